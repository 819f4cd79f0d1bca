#include "harness.h"

#include "base/clock.h"
#include "base/os.h"
#include "explain.h"
#include "relay.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CORE     0
#define WOKEN_MS 1000 /* what a CPU driver that was waked has to say then comes within this */

const char *harness_bin, *harness_tests;

static void remove_tree(const char *path, unsigned depth)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && depth > 0 && (entry = readdir(dir))) {
        char below[512];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            remove_tree(below, depth - 1);
        else
            unlink(below);
    }
    if (dir) closedir(dir);
    rmdir(path);
}

/* When the test has ended in whatever way: ends the CPU driver (its domains end with it), and removes what is left. */
static void start_guard(harness_t *h)
{
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char byte;
        setsid();
        signal(SIGTERM, SIG_IGN);
        close_range(pipes[0] + 1, ~0u, 0);
        for (int fd = 0; fd < pipes[0]; fd++) close(fd);
        while (read(pipes[0], &byte, 1) < 0 && errno == EINTR)
            ;
        for (unsigned i = 0; i < 100 && (access(h->run_dir, F_OK) == 0 || access(h->cgroup, F_OK) == 0);
             i++) {
            remove_tree(h->run_dir, 2);
            if (h->cgroup[0]) remove_tree(h->cgroup, 4);
            usleep(100000);
        }
        _exit(0);
    }
    close(pipes[0]);
    h->guard = pipes[1];
}

static bool make_cgroup(harness_t *h, uid_t uid)
{
    static const char *const roots[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup"};
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        char probe[256];
        snprintf(probe, sizeof probe, "%s/%s", roots[i], i == 0 ? "cpu.shares" : "cgroup.controllers");
        if (access(probe, F_OK) < 0) continue;
        snprintf(h->cgroup, sizeof h->cgroup, "%s%s", roots[i], strrchr(h->run_dir, '/'));
        if (mkdir(h->cgroup, 0755) == 0 && (uid == 0 || chown(h->cgroup, uid, uid) == 0)) return true;
    }
    h->cgroup[0] = 0;
    return false;
}

/* As rackfishd does for its CPU drivers when it was started by root. */
static void become_system_user(uid_t uid)
{
    static const unsigned caps[] = {CAP_SETUID,   CAP_SETGID,    CAP_KILL,
                                    CAP_SYS_NICE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2], wanted[2] = {{0}, {0}};
    prctl(PR_SET_KEEPCAPS, 1);
    if (syscall(SYS_capget, &header, data) < 0 || setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        _exit(97);
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        wanted[caps[i] / 32].permitted |= data[caps[i] / 32].permitted & (1u << caps[i] % 32);
    for (unsigned i = 0; i < 2; i++) wanted[i].effective = wanted[i].inheritable = wanted[i].permitted;
    if (syscall(SYS_capset, &header, wanted) < 0) _exit(96);
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, caps[i], 0, 0);
}

/* Whether `uid` can run what was built, wherever this tree lies. */
static bool can_run(uid_t uid, const char *path)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) _exit(setuid(uid) < 0 || access(path, X_OK) < 0);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

void harness_start(harness_t *h, const harness_params_t *params)
{
    if (params->uid && getuid() != 0) {
        print_message("skipped: needs root, to run as another user\n");
        skip();
    }
    char bin[512];
    snprintf(bin, sizeof bin, "%s/rf-cpudriver", harness_bin);
    if (params->uid && !can_run(params->uid, bin)) {
        print_message("skipped: user %u may not run %s\n", params->uid, bin);
        skip();
    }
    memset(h, 0, sizeof *h);
    h->fd_waiting = h->sock = -1;
    snprintf(h->run_dir, sizeof h->run_dir, "/tmp/rackfish-test-%d-XXXXXX", (int)getpid());
    assert_non_null(mkdtemp(h->run_dir));
    if (params->uid) assert_int_equal(chown(h->run_dir, params->uid, params->uid), 0);
    if (params->cgroup) make_cgroup(h, params->uid);
    start_guard(h);
    h->started = true;

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/test.sock", h->run_dir);
    h->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(chmod(address.sun_path, 0777), 0);
    assert_int_equal(listen(h->listener, 1), 0);

    rf_boot_t *boot = &h->boot;
    unsigned cpu = 0;
    assert_true(rf_cpu_allowed(&cpu, 1) == 1);
    *boot = (rf_boot_t){.magic = RF_BOOT_MAGIC,
                        .size = sizeof *boot,
                        .machine_name = "test",
                        .n_nodes = 1,
                        .n_cores = 2,
                        .sched = params->sched,
                        .privileged = params->privileged,
                        .allow_root = 1,
                        .system_uid = params->uid ? params->uid : getuid(),
                        .system_gid = params->uid ? params->uid : getgid(),
                        .log_level = 2};
    memset(boot->machine.bytes, 7, sizeof boot->machine.bytes);
    boot->nodes[0] = (rf_boot_node_t){.name = "n0", .address = "127.0.0.1", .n_cores = 2};
    boot->cores[0].cpu = boot->cores[1].cpu = (uint16_t)cpu;
    snprintf(boot->run_dir, sizeof boot->run_dir, "%s", h->run_dir);
    snprintf(boot->libexec_dir, sizeof boot->libexec_dir, "%s/cpudriver-libexec", harness_tests);
    snprintf(boot->module_dir, sizeof boot->module_dir, "/nonexistent/modules");
    snprintf(boot->cgroup, sizeof boot->cgroup, "%s", h->cgroup);
    int boot_fd, log;
    assert_int_equal(rf_boot_publish(boot, &boot_fd), RF_OK);
    char path[512];
    snprintf(path, sizeof path, "%s/cpudriver.log", h->run_dir);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    h->driver = fork();
    assert_true(h->driver >= 0);
    if (h->driver == 0) {
        if (params->privileged)
            become_system_user(params->uid);
        else if (params->uid &&
                 (setgroups(0, NULL) < 0 || setgid(params->uid) < 0 || setuid(params->uid) < 0))
            _exit(99);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(boot_fd, RF_BOOT_FD);
        dup2(log, 2);
        if (params->no_namespaces) setenv("RACKFISH_ISOLATION", "none", 1);
        execl(bin, "rf-cpudriver", "0", "1", NULL);
        _exit(98);
    }
    close(boot_fd);
    close(log);
    struct pollfd p = {.fd = h->listener, .events = POLLIN};
    if (poll(&p, 1, HARNESS_WAIT_MS) <= 0) {
        char text[4096] = "";
        rf_file_read(path, text, sizeof text);
        fail_msg("the CPU driver did not start: %s", text);
    }
    h->sock = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(h->sock >= 0);
}

bool harness_isolates(const harness_t *h)
{
    char path[256], text[8192] = "";
    snprintf(path, sizeof path, "%s/cpudriver.log", h->run_dir);
    rf_file_read(path, text, sizeof text);
    assert_non_null(strstr(text, "isolation: "));
    return !strstr(text, "isolation: none");
}

int harness_driver_status(harness_t *h)
{
    int status;
    for (unsigned i = 0; i < HARNESS_WAIT_MS / 10; i++) {
        if (waitpid(h->driver, &status, WNOHANG) == h->driver) {
            h->driver = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        poll(NULL, 0, 10);
    }
    fail_msg("the CPU driver does not end");
    return -1;
}

void harness_give_up(harness_t *h)
{
    char path[256], text[8192] = "";
    if (!h->started) return;
    static const char *const logs[] = {"cpudriver.log", "monitor-0.log"};
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        snprintf(path, sizeof path, "%s/%s", h->run_dir, logs[i]);
        if (rf_file_read(path, text, sizeof text) > 0) print_message("%s:\n%s", logs[i], text);
    }
    harness_cleanup(h);
}

void harness_cleanup(harness_t *h)
{
    h->started = false;
    if (h->driver > 0) {
        kill(h->driver, SIGKILL);
        waitpid(h->driver, NULL, 0);
        h->driver = 0;
    }
    for (unsigned i = 0; i < h->n_events; i++) {
        if (h->events[i].fd >= 0) close(h->events[i].fd);
    }
    h->n_events = 0;
    if (h->sock >= 0) close(h->sock);
    close(h->listener);
    h->sock = -1;
    remove_tree(h->run_dir, 2);
    for (unsigned i = 0; h->cgroup[0] && i < 100 && access(h->cgroup, F_OK) == 0; i++) {
        remove_tree(h->cgroup, 4); /* what a killed CPU driver left */
        poll(NULL, 0, 20);
    }
    close(h->guard);
}

void harness_stop(harness_t *h)
{
    kill(h->driver, SIGTERM);
    assert_int_equal(harness_driver_status(h), RF_CPUDRIVER_EXIT_OK);
    assert_true(harness_gone(h->run_dir));
    if (h->cgroup[0]) {
        char core[256];
        snprintf(core, sizeof core, "%s/core-0", h->cgroup);
        assert_int_equal(access(core, F_OK), -1);
    }
    harness_cleanup(h);
}

/* One datagram of the relay. Events are kept; true when it was the reply to `tag`. */
static bool take(harness_t *h, uint32_t tag, rf_wire_header_t *header, void *reply, size_t reply_max)
{
    relay_t relay;
    size_t size = sizeof relay;
    int fds[RF_FDS_PER_MESSAGE_MAX];
    rf_err_t err = rf_fd_receive(h->sock, &relay, &size, fds, RF_FDS_PER_MESSAGE_MAX);
    assert_int_equal(err, RF_OK);
    if (relay.type == 0) {
        h->fd_waiting = fds[0];
        return false;
    }
    memcpy(header, relay.bytes, sizeof *header);
    size_t body = relay.size - sizeof *header;
    if (relay.type == RF_KERNEL_REPLY && header->tag == tag) {
        if (reply) memcpy(reply, relay.bytes + sizeof *header, body < reply_max ? body : reply_max);
        return true;
    }
    assert_int_equal(relay.type, RF_KERNEL_EVENT);
    assert_true(h->n_events < HARNESS_EVENTS);
    harness_event_t *event = &h->events[h->n_events++];
    event->header = *header;
    event->fd = -1;
    memcpy(event->body, relay.bytes + sizeof *header, body < sizeof event->body ? body : sizeof event->body);
    if (header->op == RF_KERNEL_EVENT_STARTED) {
        event->fd = h->fd_waiting;
        h->fd_waiting = -1;
    }
    return false;
}

static bool wait_readable(harness_t *h, int timeout_ms)
{
    struct pollfd p = {.fd = h->sock, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0;
}

void harness_lease(harness_t *h, uint64_t until_ns)
{
    relay_t relay = {.type = RELAY_LEASE, .size = sizeof until_ns};
    memcpy(relay.bytes, &until_ns, sizeof until_ns);
    assert_int_equal(rf_fd_send(h->sock, &relay, offsetof(relay_t, bytes) + relay.size, NULL, 0), RF_OK);
}

/* Nothing came in HARNESS_WAIT_MS: says what would explain that, and whether waking the CPU driver helps. */
static void explain(harness_t *h)
{
    explain_silence(h->driver);
    kill(h->driver, SIGCHLD); /* means nothing to it but to look again */
    print_message("waked, it %s\n",
                  wait_readable(h, WOKEN_MS) ? "speaks: a wake-up was lost" : "says nothing");
}

rf_err_t harness_ask(harness_t *h, uint16_t op, const void *argument, size_t size, const int *fds,
                     unsigned n_fds, void *reply, size_t reply_max)
{
    rf_wire_header_t header = {.tag = ++h->tags, .op = op};
    const uint32_t tag = header.tag;
    relay_t relay = {.type = RF_KERNEL_INVOKE, .size = (uint32_t)(sizeof header + size)};
    memcpy(relay.bytes, &header, sizeof header);
    if (size) memcpy(relay.bytes + sizeof header, argument, size);
    assert_int_equal(rf_fd_send(h->sock, &relay, offsetof(relay_t, bytes) + relay.size, fds, n_fds), RF_OK);
    while (wait_readable(h, HARNESS_WAIT_MS)) {
        if (take(h, tag, &header, reply, reply_max)) return (rf_err_t)header.err;
    }
    explain(h);
    fail_msg("no answer to invocation %u", op);
    return RF_ERR_TIMEOUT;
}

static rf_domain_t domain_of(const harness_event_t *event)
{
    rf_domain_t domain;
    memcpy(&domain, event->body, sizeof domain); /* first in STARTED and EXITED */
    return domain;
}

static bool find_event(harness_t *h, uint16_t op, rf_domain_t domain, harness_event_t *out)
{
    for (unsigned i = 0; i < h->n_events; i++) {
        if (h->events[i].header.op != op || domain_of(&h->events[i]) != domain) continue;
        *out = h->events[i];
        memmove(&h->events[i], &h->events[i + 1], (h->n_events - i - 1) * sizeof h->events[0]);
        h->n_events--;
        return true;
    }
    return false;
}

void harness_event(harness_t *h, uint16_t op, rf_domain_t domain, harness_event_t *out)
{
    rf_wire_header_t header;
    while (!find_event(h, op, domain, out)) {
        if (!wait_readable(h, HARNESS_WAIT_MS)) {
            explain(h);
            fail_msg("no event %u of domain %llu", op, (unsigned long long)domain);
        }
        take(h, 0, &header, NULL, 0);
    }
}

bool harness_event_pending(harness_t *h, uint16_t op, rf_domain_t domain)
{
    rf_wire_header_t header;
    while (wait_readable(h, 0)) take(h, 0, &header, NULL, 0);
    for (unsigned i = 0; i < h->n_events; i++) {
        if (h->events[i].header.op == op && domain_of(&h->events[i]) == domain) return true;
    }
    return false;
}

int harness_exited(harness_t *h, rf_domain_t domain)
{
    harness_event_t event;
    rf_kernel_exited_t exited;
    harness_event(h, RF_KERNEL_EVENT_EXITED, domain, &event);
    memcpy(&exited, event.body, sizeof exited);
    return exited.wait_status;
}

static const char *own_name(void)
{
    struct passwd *entry = getpwuid(getuid());
    return entry ? entry->pw_name : "";
}

rf_err_t harness_create(harness_t *h, const harness_spawn_t *s, rf_kernel_created_t *created, int *out)
{
    static uint8_t block[RF_SPAWN_BYTES_MAX];
    rf_spawn_t spawn = {
        .flags = s->flags | (s->nofile ? RF_SPAWN_LIMITS_SET : 0) | RF_SPAWN_STDIO,
        .umask = s->umask ? s->umask : 022,
        .reserved_permille = s->reserved_permille,
        .weight = s->weight,
        .user = s->user                          ? s->user
                : h->boot.system_uid == getuid() ? own_name()
                                                 : "",
        .cwd = s->cwd ? s->cwd : "/",
        .executable = s->executable ? s->executable : s->argv[0],
        .argv = (const char **)(uintptr_t)s->argv,
        .env = (const char **)(uintptr_t)s->env,
        .span_args = (const uint8_t *)s->span_args,
        .span_args_size = s->span_args ? (uint16_t)strlen(s->span_args) : 0,
    };
    while (s->argv[spawn.n_args]) spawn.n_args++;
    while (s->env && s->env[spawn.n_env]) spawn.n_env++;
    if (getuid() == 0 && !s->user) spawn.flags |= RF_SPAWN_ROOT;
    for (unsigned i = 0; i < RF_SPAWN_LIMITS; i++) spawn.limits[i][0] = spawn.limits[i][1] = UINT64_MAX;
    if (s->nofile) spawn.limits[7][0] = s->nofile; /* RLIMIT_NOFILE */
    size_t size;
    assert_int_equal(rf_spawn_encode(&spawn, block, sizeof block, &size), RF_OK);
    int fds[5], n = 0, pipes[2] = {-1, -1}, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(rf_memory_create("test-spawn", size, &fds[n++]), RF_OK);
    assert_int_equal(pwrite(fds[0], block, size, 0), size);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    fds[n++] = s->stdio ? s->stdio[0] : null;
    fds[n++] = s->stdio ? s->stdio[1] : pipes[1];
    fds[n++] = s->stdio ? s->stdio[2] : pipes[1];
    if (s->flags & RF_SPAWN_EXECUTABLE) fds[n++] = s->executable_fd;
    rf_kernel_create_t create = {.domain = s->domain, .index = s->index, .n_fds = (uint16_t)n};
    memset(created, 0, sizeof *created);
    rf_err_t err =
        harness_ask(h, RF_KERNEL_CREATE, &create, sizeof create, fds, (unsigned)n, created, sizeof *created);
    close(fds[0]);
    close(null);
    close(pipes[1]);
    if (err == RF_OK && out)
        *out = pipes[0];
    else
        close(pipes[0]);
    return err;
}

void harness_read(int fd, char *out, size_t max, bool until_line)
{
    size_t length = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (length < max - 1 && poll(&p, 1, HARNESS_WAIT_MS) > 0) {
        ssize_t got = read(fd, out + length, max - 1 - length);
        if (got <= 0) break;
        length += (size_t)got;
        if (until_line && memchr(out, '\n', length)) break;
    }
    out[length] = 0;
}

int harness_run(harness_t *h, const harness_spawn_t *spawn, char *out, size_t max)
{
    rf_kernel_created_t created;
    int fd = -1;
    rf_err_t err = harness_create(h, spawn, &created, &fd);
    if (err != RF_OK)
        fail_msg("%s: %s %s: %s", spawn->argv[0], rf_err_name(err), created.what,
                 strerror((int)created.os_errno));
    harness_read(fd, out, max, false);
    close(fd);
    return harness_exited(h, spawn->domain);
}

unsigned harness_processes_with(const char *text)
{
    unsigned n = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc && (entry = readdir(proc))) {
        char path[300], line[4096];
        pid_t pid = atoi(entry->d_name);
        if (pid <= 0 || pid == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
        ssize_t got = rf_file_read(path, line, sizeof line);
        for (ssize_t i = 0; i + 1 < got; i++) {
            if (line[i] == 0) line[i] = ' ';
        }
        n += got > 0 && strstr(line, text) != NULL;
    }
    if (proc) closedir(proc);
    return n;
}

bool harness_gone(const char *text)
{
    for (unsigned i = 0; i < HARNESS_WAIT_MS / 20; i++) {
        if (harness_processes_with(text) == 0) return true;
        poll(NULL, 0, 20);
    }
    return false;
}
