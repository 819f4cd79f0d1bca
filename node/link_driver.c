#include "node/link_driver.h"

#include "base/log.h"
#include "base/os.h"
#include "node/privileges.h"
#include "node/run_dir.h"
#include "node/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define PROGRAM        "rackfish-dpdk"
#define READY_FD       3
#define STARTS_MAX     8     /* of one that says that another process might have the port */
#define READY_MS       20000 /* a port of many queues and huge memory takes seconds */
#define STOP_MS        3000
#define PAUSE_NS_FIRST (10 * RF_NS_PER_MS)
#define PAUSE_NS_MAX   (10 * RF_NS_PER_S)
#define LIVED_NS       (30 * RF_NS_PER_S) /* one that lived so long is started again at once */
#define ARGUMENTS_MAX  24
#define LOOK_NS        (250 * RF_NS_PER_MS)
#define ASKS_A_LOOK    24 /* where others do not let it come to an answer */
#define SILENT_LOOKS                                                                                         \
    8 /* one that hangs, or is stopped: it is killed before the default host_deadline_ms is over */
#define STARTING_LOOKS 120 /* one that has not answered yet */

static unsigned n_ports(const rf_daemon_t *daemon)
{
    return daemon->config->nodes[daemon->node].n_dpdk;
}

static const rf_config_dpdk_t *port_of(const rf_link_driver_t *driver)
{
    return &driver->daemon->config->nodes[driver->daemon->node].dpdk[driver->port];
}

static bool is_wanted(const rf_daemon_t *daemon)
{
    const rf_config_t *config = daemon->config;
    for (unsigned i = 0; i < config->n_nodes && n_ports(daemon) > 0; i++) {
        if (strcmp(config->medium[daemon->node][i], "dpdk") == 0) return true;
    }
    return false;
}

/* "" for the first port: most hosts have one. */
static const char *number_of(unsigned port, char text[4])
{
    text[0] = 0;
    if (port > 0) snprintf(text, 4, "%u", port % 100);
    return text;
}

static int folder_path(const rf_daemon_t *daemon, char *out, size_t max)
{
    return snprintf(out, max, "%s%s", daemon->node_dir, RF_LINK_DRIVER_FOLDER);
}

static int socket_path(const rf_daemon_t *daemon, unsigned port, char *out, size_t max)
{
    char number[4];
    return snprintf(out, max, "%s%s/%s%s", daemon->node_dir, RF_LINK_DRIVER_FOLDER, RF_LINK_DRIVER_SOCKET,
                    number_of(port, number));
}

static int log_path(const rf_link_driver_t *driver, char *out, size_t max)
{
    char number[4];
    return snprintf(out, max, "%s/dpdk%s.log", driver->daemon->node_dir, number_of(driver->port, number));
}

void rf_link_drivers_options(const rf_daemon_t *daemon, char *out, size_t max)
{
    char socket[RF_PATH_MAX];
    size_t used = 0;
    out[0] = 0;
    if (!is_wanted(daemon)) return;
    for (unsigned i = 0; i < n_ports(daemon) && used < max; i++) {
        const rf_config_dpdk_t *port = &daemon->config->nodes[daemon->node].dpdk[i];
        socket_path(daemon, i, socket, sizeof socket);
        used += (size_t)snprintf(out + used, max - used, "%sdriver=%s", i ? ";" : "", socket);
        if (port->address[0] && used < max)
            used += (size_t)snprintf(out + used, max - used, ",net=%s", port->address);
        if (port->gateway[0] && used < max) used += (size_t)snprintf(out + used, max - used, ",gateway");
    }
}

rf_err_t rf_link_drivers_prepare(rf_daemon_t *daemon, char *error, size_t error_max)
{
    char path[RF_PATH_MAX];
    struct stat st;
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++)
        daemon->link_drivers[i] = (rf_link_driver_t){.daemon = daemon, .port = i, .pidfd = -1};
    if (!is_wanted(daemon)) return RF_OK;
    folder_path(daemon, path, sizeof path);
    mode_t mode = daemon->privileged ? 0711 : 0700;
    if ((mkdir(path, mode) < 0 && errno != EEXIST) || lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) ||
        (st.st_uid != geteuid() && st.st_uid != daemon->system_uid) || chmod(path, mode) < 0 ||
        chown(path, daemon->system_uid, daemon->system_gid) < 0) {
        snprintf(error, error_max, "the folder %s of the link drivers cannot be had: %s; remove it", path,
                 strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

/* ---- its command line ---- */

typedef struct arguments {
    char text[1024];
    size_t used;
    char *words[ARGUMENTS_MAX];
    unsigned n;
} arguments_t;

static void add(arguments_t *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(arguments_t *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *at = a->text + a->used;
    size_t room = sizeof a->text - a->used;
    int n = vsnprintf(at, room, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= room || a->n + 1 >= ARGUMENTS_MAX) return; /* config.h bounds them all */
    a->words[a->n++] = at;
    a->used += (size_t)n + 1;
}

/* What one can use: a queue for each core that it serves. */
static unsigned queues_of(const rf_link_driver_t *driver)
{
    unsigned cores = driver->daemon->config->nodes[driver->daemon->node].n_cores,
             queues = port_of(driver)->queues;
    if (queues == 0) queues = cores < RF_DPDK_QUEUES_MAX ? cores : RF_DPDK_QUEUES_MAX;
    return queues ? queues : 1;
}

static void make_arguments(const rf_link_driver_t *driver, bool tells_ready, arguments_t *a)
{
    const rf_config_dpdk_t *port = port_of(driver);
    char socket[RF_PATH_MAX];
    socket_path(driver->daemon, driver->port, socket, sizeof socket);
    add(a, PROGRAM);
    add(a, "--socket=%s", socket);
    add(a, "--device=%s", port->device);
    add(a, "--udp-port=%u", port->udp_port);
    if (port->address[0]) add(a, "--address=%s", port->address);
    if (port->gateway[0]) add(a, "--gateway=%s", port->gateway);
    if (port->mtu) add(a, "--mtu=%u", port->mtu);
    if (port->memory_mib) add(a, "--memory=%u", port->memory_mib);
    if (port->cpu >= 0) add(a, "--cpu=%d", port->cpu);
    if (queues_of(driver) > 1) add(a, "--queues=%u", queues_of(driver));
    if (port->hugepages) add(a, "--hugepages");
    if (port->encrypt) add(a, "--encrypt");
    if (tells_ready) add(a, "--ready-fd=%d", READY_FD);
}

/* ---- its life ---- */

static void on_pidfd(void *context, uint32_t events);

static void look(void *context)
{
    rf_link_driver_t *driver = context;
    rf_daemon_t *daemon = driver->daemon;
    char socket[RF_PATH_MAX];
    if (driver->pid <= 0 || driver->pidfd < 0) return;
    socket_path(daemon, driver->port, socket, sizeof socket);
    unsigned silent = 0;
    if (driver->answers.full && driver->asks < ASKS_A_LOOK) {
        driver->asks++;
        rf_answers_ask(&driver->answers, socket);
    } else {
        driver->asks = 0;
        silent = rf_answers_look(&driver->answers, socket);
    }
    if (silent > (driver->answers.ever ? SILENT_LOOKS : STARTING_LOOKS)) {
        rf_log(RF_LOG_ERROR, "the link driver (pid %d) has not answered %u times in a row: it is killed",
               (int)driver->pid, silent);
        pidfd_send_signal(driver->pidfd, SIGKILL, NULL, 0);
        rf_answers_end(&driver->answers);
        return; /* on_pidfd() goes on */
    }
    uint64_t wait_ns = driver->answers.full ? LOOK_NS / (ASKS_A_LOOK + 1) : LOOK_NS;
    rf_timer_set(&daemon->loop, &driver->look, rf_clock_ns() + wait_ns, look, driver);
}

static rf_err_t watch(rf_link_driver_t *driver)
{
    rf_loop_t *loop = &driver->daemon->loop;
    rf_err_t err = rf_loop_add(loop, &driver->source, driver->pidfd, EPOLLIN, on_pidfd, driver);
    if (err != RF_OK) return err;
    rf_answers_begin(&driver->answers);
    rf_timer_set(loop, &driver->look, rf_clock_ns() + LOOK_NS, look, driver);
    return RF_OK;
}

/* One that was just started and cannot be watched: nobody would ever find it again. */
static void end_unwatched(rf_link_driver_t *driver)
{
    kill(driver->pid, SIGKILL);
    while (waitpid(driver->pid, NULL, 0) < 0 && errno == EINTR) continue;
    if (driver->pidfd >= 0) close(driver->pidfd);
    driver->pidfd = -1;
    driver->pid = 0;
}

/* One that is not to be asked whether it is ready gives ready_fd -1. */
static rf_err_t spawn(rf_link_driver_t *driver, int ready_fd, char *error, size_t error_max)
{
    rf_daemon_t *daemon = driver->daemon;
    char program[RF_PATH_MAX + 32], log[RF_PATH_MAX + 16];
    arguments_t arguments = {.used = 0};
    snprintf(program, sizeof program, "%s/%s", daemon->libexec_dir, PROGRAM);
    log_path(driver, log, sizeof log);
    if (access(program, X_OK) < 0) {
        snprintf(error, error_max,
                 "links over DPDK want %s, and it is not there: install libdpdk-dev and build Rackfish again",
                 program);
        return RF_ERR_NOT_FOUND;
    }
    make_arguments(driver, ready_fd >= 0, &arguments);
    rf_spawn_t plan = {
        .program = program, .argv = arguments.words, .log = log, .fd = ready_fd, .fd_there = READY_FD};
    rf_privileges_lend(daemon, port_of(driver)->device);
    int failed = rf_spawn(&plan, &driver->pid);
    rf_privileges_lend(daemon, NULL);
    if (failed) {
        snprintf(error, error_max, "cannot start %s: %s", program, strerror(failed));
        return RF_ERR_OS;
    }
    driver->started_ns = rf_clock_ns();
    driver->child = true;
    driver->start_time = rf_process_start_time(driver->pid);
    driver->pidfd = pidfd_open(driver->pid, 0);
    if (driver->pidfd < 0 || watch(driver) != RF_OK) {
        snprintf(error, error_max,
                 "cannot watch the link driver: %s; raise the limit of open files (LimitNOFILE= of the unit, "
                 "ulimit -n)",
                 strerror(errno));
        end_unwatched(driver);
        return RF_ERR_OS;
    }
    return RF_OK;
}

/* The last line that it logged, without its time. */
static void last_words(const rf_link_driver_t *driver, char *out, size_t max)
{
    char path[RF_PATH_MAX + 16], text[8192];
    log_path(driver, path, sizeof path);
    out[0] = 0;
    ssize_t size = rf_file_read(path, text, sizeof text);
    while (size > 0 && text[size - 1] == '\n') text[--size] = 0;
    const char *line = size > 0 ? strrchr(text, '\n') : NULL;
    if (size > 0) snprintf(out, max, "%.200s", line ? line + 1 : text);
}

static void start_again(void *context)
{
    rf_link_driver_t *driver = context;
    rf_daemon_t *daemon = driver->daemon;
    char error[RF_CONFIG_ERROR_MAX] = "";
    if (daemon->phase == RF_PHASE_GONE) return;
    if (spawn(driver, -1, error, sizeof error) == RF_OK) {
        rf_run_dir_write_state(daemon);
        return;
    }
    rf_log(RF_LOG_ERROR, "%s", error);
    rf_timer_set(&daemon->loop, &driver->again, rf_clock_ns() + PAUSE_NS_MAX, start_again, driver);
}

/* Stops watching. */
static void release(rf_link_driver_t *driver)
{
    rf_timer_clear(&driver->again);
    rf_timer_clear(&driver->look);
    if (driver->pid <= 0 || driver->pidfd < 0) return;
    rf_answers_end(&driver->answers);
    rf_loop_remove(&driver->daemon->loop, &driver->source);
    close(driver->pidfd);
    driver->pidfd = -1;
}

static void on_pidfd(void *context, uint32_t events)
{
    (void)events;
    rf_link_driver_t *driver = context;
    rf_daemon_t *daemon = driver->daemon;
    uint64_t now_ns = rf_clock_ns();
    if (driver->child) waitid(P_PIDFD, (id_t)driver->pidfd, &(siginfo_t){0}, WEXITED | WNOHANG);
    release(driver);
    if (now_ns - driver->started_ns > LIVED_NS)
        driver->pause_ns = PAUSE_NS_FIRST;
    else if (driver->pause_ns < PAUSE_NS_MAX)
        driver->pause_ns = driver->pause_ns ? 2 * driver->pause_ns : PAUSE_NS_FIRST;
    rf_log(RF_LOG_ERROR, "the link driver (pid %d) is gone; it is started again in %lu ms", (int)driver->pid,
           (unsigned long)(driver->pause_ns / RF_NS_PER_MS));
    driver->pid = 0;
    rf_run_dir_write_state(daemon);
    rf_timer_set(&daemon->loop, &driver->again, now_ns + driver->pause_ns, start_again, driver);
}

/* Where a port's number stands since nodes have several, one of before wrote that it is no core's. */
static unsigned port_said(const rf_state_process_t *process)
{
    return process->core > 0 ? (unsigned)process->core : 0;
}

static bool adopt(rf_link_driver_t *driver)
{
    static rf_state_t state;
    if (rf_run_dir_read_state(driver->daemon->node_dir, &state) != RF_OK) return false;
    for (unsigned i = 0; i < state.n; i++) {
        const rf_state_process_t *p = &state.processes[i];
        if (strcmp(p->role, RF_LINK_DRIVER_ROLE) != 0 || port_said(p) != driver->port) continue;
        driver->pidfd = rf_process_open(p->pid, p->start_time);
        if (driver->pidfd < 0) return false;
        if (rf_process_wait_dead(driver->pidfd, 0) == RF_OK || watch(driver) != RF_OK) {
            close(driver->pidfd);
            driver->pidfd = -1;
            return false;
        }
        driver->pid = p->pid;
        driver->start_time = p->start_time;
        driver->started_ns = rf_clock_ns();
        return true;
    }
    return false;
}

static bool wait_ready(int fd)
{
    char byte;
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    int n;
    do {
        n = poll(&ready, 1, READY_MS);
    } while (n < 0 && errno == EINTR);
    return n == 1 && read(fd, &byte, 1) == 1;
}

/* From now on a rackfishd after this one finds it. One that took over a node's cores has not read them yet, and leaves them be. */
static void record(const rf_link_driver_t *driver)
{
    rf_state_process_t process = {.role = RF_LINK_DRIVER_ROLE,
                                  .core = (int)driver->port,
                                  .pid = driver->pid,
                                  .start_time = driver->start_time};
    if (driver->daemon->adopted)
        rf_run_dir_add_state(driver->daemon->node_dir, &process);
    else
        rf_run_dir_write_state(driver->daemon);
}

/* Returns the status with which it ended; -1: a signal did it, or nobody knows. */
static int stop(rf_link_driver_t *driver)
{
    siginfo_t end = {0};
    rf_timer_clear(&driver->again);
    rf_timer_clear(&driver->look);
    if (driver->pid <= 0 || driver->pidfd < 0) return -1;
    if (rf_process_wait_dead(driver->pidfd, STOP_MS) != RF_OK) {
        pidfd_send_signal(driver->pidfd, SIGKILL, NULL, 0);
        (void)rf_process_wait_dead(driver->pidfd, STOP_MS);
    }
    if (driver->child) waitid(P_PIDFD, (id_t)driver->pidfd, &end, WEXITED | WNOHANG);
    return end.si_code == CLD_EXITED ? end.si_status : -1;
}

/* Starts one and waits until it serves. RF_ERR_BUSY: this process cannot have the port, and another may. */
static rf_err_t start_once(rf_link_driver_t *driver, char *error, size_t error_max)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) {
        snprintf(error, error_max, "pipe: %s", strerror(errno));
        return RF_ERR_OS;
    }
    rf_err_t err = spawn(driver, ready[1], error, error_max);
    close(ready[1]);
    if (err == RF_OK) record(driver);
    if (err == RF_OK && !wait_ready(ready[0])) {
        pidfd_send_signal(driver->pidfd, SIGTERM, NULL, 0);
        int status = stop(driver);
        release(driver);
        driver->pid = 0;
        char words[256];
        last_words(driver, words, sizeof words);
        snprintf(error, error_max,
                 "the link driver of %s does not start%s%s; `rackfish doctor --config` looks why",
                 port_of(driver)->device, words[0] ? "; it said: " : "", words);
        err = status == EX_TEMPFAIL ? RF_ERR_BUSY : RF_ERR_OS;
    }
    close(ready[0]);
    return err;
}

static rf_err_t start(rf_link_driver_t *driver, char *error, size_t error_max)
{
    rf_err_t err = RF_ERR_BUSY;
    for (unsigned i = 0; i < STARTS_MAX && err == RF_ERR_BUSY; i++)
        err = start_once(driver, error, error_max);
    return err;
}

rf_err_t rf_link_drivers_start(rf_daemon_t *daemon, char *error, size_t error_max)
{
    rf_err_t err = RF_OK;
    unsigned serve = 0, n = is_wanted(daemon) ? n_ports(daemon) : 0;
    for (unsigned i = 0; i < n; i++) {
        rf_link_driver_t *driver = &daemon->link_drivers[i];
        rf_err_t one = adopt(driver) ? RF_OK : start(driver, error, error_max);
        serve += one == RF_OK;
        if (one == RF_OK) continue;
        err = one;
        if (n == 1 && !daemon->adopted) break;
        rf_log(RF_LOG_ERROR, "%s; it is tried again", error);
        rf_timer_set(&daemon->loop, &driver->again, rf_clock_ns() + PAUSE_NS_MAX, start_again, driver);
    }
    /* Links go over the ports that there are; cores that live go on even without. */
    return serve > 0 || daemon->adopted ? RF_OK : err;
}

void rf_link_drivers_stop(rf_daemon_t *daemon)
{
    if (!daemon->config) return;
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++) {
        const rf_link_driver_t *driver = &daemon->link_drivers[i];
        if (driver->pid > 0 && driver->pidfd >= 0) pidfd_send_signal(driver->pidfd, SIGTERM, NULL, 0);
    }
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++) stop(&daemon->link_drivers[i]);
}

void rf_link_drivers_release(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++) release(&daemon->link_drivers[i]);
}
