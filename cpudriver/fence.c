#include "cpudriver/fence.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/os.h"
#include "cpudriver/init.h"
#include "cpudriver/kernel_link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define HARD_NS                                                                                              \
    (200 * RF_NS_PER_MS) /* a CPU driver whose monitor was killed has this long to end the core itself */
#define LOOK_NS  (500 * RF_NS_PER_US) /* between looks */
#define ARGS_MAX 512

void rf_fence_life(char out[RF_FENCE_LIFE_MAX], const rf_machine_id_t *machine, rf_core_t core,
                   rf_incarnation_t incarnation)
{
    size_t at = 0;
    for (size_t i = 0; i < sizeof machine->bytes; i++)
        at += (size_t)snprintf(out + at, RF_FENCE_LIFE_MAX - at, "%02x", machine->bytes[i]);
    snprintf(out + at, RF_FENCE_LIFE_MAX - at, "/%u/%u", core, incarnation);
}

rf_err_t rf_fence_check(const rf_cpudriver_t *driver, const rf_kernel_fence_t *what)
{
    const rf_boot_t *boot = driver->boot;
    bool itself = what->core == driver->core && what->incarnation >= driver->incarnation;
    if (what->core >= boot->n_cores || itself || what->incarnation == 0 ||
        boot->node_of[what->core] != boot->node)
        return RF_ERR_INVALID;
    for (size_t i = 0; i < RF_CORE_FENCES_MAX; i++) {
        if (!driver->fences[i].used) return RF_OK;
    }
    return RF_ERR_LIMIT;
}

static bool is_dead(int *pidfd)
{
    if (*pidfd < 0) return true;
    if (rf_process_wait_dead(*pidfd, 0) != RF_OK) return false;
    close(*pidfd);
    *pidfd = -1;
    return true;
}

static void send(int pidfd, int signo)
{
    if (pidfd >= 0 && pidfd_send_signal(pidfd, signo, NULL, 0) < 0 && errno != ESRCH)
        rf_log(RF_LOG_ERROR, "a process of a fenced core cannot be signalled: %s", strerror(errno));
}

void rf_fence_begin(rf_cpudriver_t *driver, const rf_kernel_fence_t *what, uint32_t tag)
{
    rf_fence_t *f = driver->fences;
    while (f->used) f++;
    f->used = true;
    f->hard = false;
    f->tag = tag;
    f->core = what->core;
    f->started_ns = rf_clock_ns();
    f->deadline_ns = f->started_ns + what->deadline_ms * RF_NS_PER_MS;
    f->n_left = 0;
    rf_fence_life(f->life, &driver->boot->machine, what->core, what->incarnation);
    f->driver_pid = what->driver_pid;
    f->driver = what->driver_pid > 1 ? rf_process_open(what->driver_pid, what->driver_start) : -1;
    f->monitor = what->monitor_pid > 1 ? rf_process_open(what->monitor_pid, what->monitor_start) : -1;
    send(f->monitor, SIGKILL);
    rf_log(RF_LOG_WARN, "fencing core %u, incarnation %u", what->core, what->incarnation);
    rf_core_wake_at(driver, f->started_ns);
}

/* Of the same machine and core, and no later: what was there before must be gone, too. */
static bool is_covered(const char *life, const char *by)
{
    const char *of_it = strrchr(life, '/'), *of_by = strrchr(by, '/');
    return of_it && of_by && of_it - life == of_by - by && memcmp(life, by, (size_t)(of_it - life)) == 0 &&
           strtoul(of_it + 1, NULL, 10) <= strtoul(of_by + 1, NULL, 10);
}

/* Is it an rf-init of that life, or of one before? */
static bool is_init_of(int proc, pid_t pid, const char *life)
{
    char path[32], text[ARGS_MAX];
    snprintf(path, sizeof path, "%d/cmdline", (int)pid);
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0) return false;
    text[size] = 0;
    if (strcmp(text, "rf-init") != 0) return false;
    const char *at = text;
    for (unsigned i = 0; i < RF_INIT_ARG_LIFE && at < text + size; i++) at += strlen(at) + 1;
    return at < text + size && is_covered(at, life);
}

/* Everything of that life that is still there: below its CPU driver, and its rf-inits wherever they are. */
static void list(rf_cpudriver_t *driver, rf_fence_t *f)
{
    pid_t root = f->driver >= 0 ? f->driver_pid : 0;
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    driver->scanned_ns = 0; /* the table is another's now */
    rf_processes_scan(&driver->processes, &root, 1);
    for (unsigned i = 0; i < driver->processes.n && f->n_left < RF_CORE_FENCE_LEFT_MAX; i++) {
        const rf_process_t *p = &driver->processes.at[i];
        bool below = root > 0 && p->owner == 0 && !p->is_root;
        if (p->state == 'Z' || p->pid == getpid() || (!below && !is_init_of(proc, p->pid, f->life))) continue;
        int pidfd = rf_process_open(p->pid, 0);
        if (pidfd < 0) continue;
        send(pidfd, SIGKILL);
        f->left[f->n_left++] = pidfd;
    }
    if (proc >= 0) close(proc);
}

static void hard(rf_cpudriver_t *driver, rf_fence_t *f)
{
    f->hard = true;
    if (!is_dead(&f->driver)) send(f->driver, SIGSTOP);
    list(driver, f);
    send(f->driver, SIGKILL);
}

static bool all_dead(rf_fence_t *f)
{
    for (unsigned i = f->n_left; i-- > 0;) {
        if (!is_dead(&f->left[i])) continue;
        f->left[i] = f->left[--f->n_left];
    }
    bool monitor = is_dead(&f->monitor), itself = is_dead(&f->driver);
    return monitor && itself && f->n_left == 0;
}

static void finish(rf_cpudriver_t *driver, rf_fence_t *f, rf_err_t err)
{
    rf_wire_header_t header = {.tag = f->tag, .err = (uint16_t)err, .op = RF_KERNEL_FENCE};
    if (err != RF_OK)
        rf_log(RF_LOG_ERROR, "processes of core %u are still there after having been killed", f->core);
    else
        rf_log(RF_LOG_INFO, "core %u is fenced, after %lu us", f->core,
               (unsigned long)((rf_clock_ns() - f->started_ns) / RF_NS_PER_US));
    if (rf_kernel_link_send(driver, &driver->monitor, RF_KERNEL_REPLY, header, NULL, 0) == RF_ERR_AGAIN) {
        f->deadline_ns = RF_NEVER; /* again at the next look */
        return;
    }
    if (f->driver >= 0) close(f->driver);
    if (f->monitor >= 0) close(f->monitor);
    while (f->n_left > 0) close(f->left[--f->n_left]);
    f->used = false;
}

static void run(rf_cpudriver_t *driver, rf_fence_t *f)
{
    const uint64_t now_ns = rf_clock_ns();
    if (!f->hard && (is_dead(&f->driver) || now_ns >= f->started_ns + HARD_NS)) hard(driver, f);
    if (f->hard && all_dead(f)) {
        list(driver, f); /* the last look */
        if (f->n_left == 0) {
            finish(driver, f, RF_OK);
            return;
        }
    }
    if (now_ns >= f->deadline_ns)
        finish(driver, f, RF_ERR_TIMEOUT);
    else
        rf_core_wake_at(driver, now_ns + LOOK_NS);
}

void rf_fences_run(rf_cpudriver_t *driver)
{
    for (size_t i = 0; i < RF_CORE_FENCES_MAX; i++) {
        if (driver->fences[i].used) run(driver, &driver->fences[i]);
    }
}
