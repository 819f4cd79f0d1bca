/*
 * The program that the CPU driver's tests run as a domain: `domain WHAT [ARG]`. Says what is wrong on stdout and
 * exits with 1; with 0 when all was as it should be.
 */
#include "base/clock.h"
#include "base/os.h"
#include "transport/message.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"
#include "wire/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_NS (50 * RF_NS_PER_S)

static rf_doorbell_t doorbell;
static rf_endpoint_t *endpoint;
static rf_link_t *kernel;
static rf_assembler_t assembler;
static int passed_fd = -1;
static bool link_dead;
static uint32_t tags;

static _Noreturn void fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)link;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) link_dead = true;
    if (event == RF_LINK_FDS) passed_fd = info->fds[0];
}

static void progress(void)
{
    uint64_t next_ns;
    rf_transport_shm.endpoint_progress(endpoint, rf_clock_ns(), &next_ns);
}

static void connect_kernel(void)
{
    const char *fd = getenv(RF_ENV_DISPATCHER_FD);
    if (!fd || atoi(fd) != RF_DISPATCHER_FD) fail("%s is %s", RF_ENV_DISPATCHER_FD, fd ? fd : "not set");
    if (rf_doorbell_create(&doorbell) != RF_OK) fail("no doorbell");
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_DISPATCHER},
        .doorbell = &doorbell,
        .on_event = on_event,
        .deadline_ns = DEADLINE_NS,
    };
    memset(params.self.machine.bytes, 7, sizeof params.self.machine.bytes); /* as in the test's boot block */
    if (rf_transport_shm.endpoint_open(&params, &endpoint) != RF_OK) fail("no endpoint");
    rf_link_params_t how = {.socket = RF_DISPATCHER_FD, .slots_max = 1024};
    if (rf_transport_shm.connect(endpoint, &how, &kernel) != RF_OK) fail("no kernel link");
    for (uint64_t end_ns = rf_clock_ns() + DEADLINE_NS; kernel->state != RF_LINK_STATE_UP; usleep(200)) {
        progress();
        if (link_dead || rf_clock_ns() > end_ns) fail("the kernel link does not come up");
    }
}

/* The next message; its header. False after `wait_ns`. */
static bool receive(rf_wire_header_t *header, void *body, size_t *size, uint64_t wait_ns)
{
    const uint64_t end_ns = rf_clock_ns() + wait_ns;
    rf_wait_t wait;
    rf_slot_t slot;
    rf_wait_init(&wait, 0);
    while (rf_clock_ns() < end_ns && !link_dead) {
        progress();
        while (!link_dead && rf_transport_shm.poll(kernel, &slot, 1) == 1) {
            if (rf_assembler_feed(&assembler, &slot) != RF_OK) continue;
            memcpy(header, assembler.bytes, sizeof *header);
            *size = assembler.size - sizeof *header;
            memcpy(body, assembler.bytes + sizeof *header, *size);
            return true;
        }
        uint64_t look_ns = rf_clock_ns() + 5 * RF_NS_PER_MS;
        if (!link_dead) rf_wait_links(&wait, &doorbell, &kernel, 1, look_ns < end_ns ? look_ns : end_ns);
    }
    return false;
}

static union {
    uint8_t bytes[4096];
    rf_kernel_identity_t identity;
    rf_kernel_stat_t stat;
    rf_kernel_timer_event_t timer;
    rf_kernel_watch_t watch;
    rf_kernel_signal_event_t signal;
} body;
static size_t body_size;

static rf_err_t invoke(uint16_t op, const void *argument, size_t size, int fd)
{
    rf_wire_header_t header = {.tag = ++tags, .op = op}, reply;
    if (fd >= 0) {
        rf_kernel_fds_t head = {.tag = header.tag, .op = op};
        if (rf_transport_shm.pass_fds(kernel, &head, sizeof head, &fd, 1) != RF_OK)
            fail("cannot pass a descriptor");
    }
    if (rf_message_send2(kernel, RF_KERNEL_INVOKE, &header, sizeof header, argument, size) != RF_OK)
        fail("no room to invoke %u", op);
    rf_transport_shm.flush(kernel);
    if (!receive(&reply, &body, &body_size, DEADLINE_NS) || reply.tag != header.tag || reply.op != op)
        fail("no answer to invocation %u", op);
    return (rf_err_t)reply.err;
}

static void want(rf_err_t got, rf_err_t wanted, const char *what)
{
    if (got != wanted) fail("%s: %s instead of %s", what, rf_err_name(got), rf_err_name(wanted));
}

static void want_event(uint16_t op)
{
    rf_wire_header_t header;
    if (!receive(&header, &body, &body_size, DEADLINE_NS) || header.op != op || header.tag != 0)
        fail("no event %u", op);
}

static void identify(void)
{
    connect_kernel();
    want(invoke(RF_KERNEL_IDENTIFY, NULL, 0, -1), RF_OK, "identify");
    if (body.identity.domain == 0 || body.identity.cores != 2 || !body.identity.scheduler[0] ||
        !body.identity.isolation[0])
        fail("wrong identity");
    printf("domain %llu.%u core %u span %.*s\n", (unsigned long long)body.identity.domain,
           body.identity.index, body.identity.core, body.identity.span_args_size, body.identity.span_args);
    fflush(stdout);
    char text[8] = "";
    progress(); /* the descriptor was sent before the answer */
    struct pollfd answer = {.fd = passed_fd, .events = POLLIN};
    if (passed_fd < 0 || send(passed_fd, "ping", 5, 0) != 5 || poll(&answer, 1, 10000) != 1 ||
        recv(passed_fd, text, sizeof text, 0) != 5 || strcmp(text, "pong") != 0)
        fail("the way to the monitor does not work");
    passed_fd = -1;
    want(invoke(RF_KERNEL_IDENTIFY, NULL, 0, -1), RF_OK, "identify again");
    progress();
    if (passed_fd >= 0) fail("a second client link");
}

static void timers(void)
{
    connect_kernel();
    uint64_t start_ns = rf_clock_ns();
    rf_kernel_timer_t timer = {.id = 3, .deadline_ns = start_ns + 20 * RF_NS_PER_MS};
    want(invoke(RF_KERNEL_TIMER_SET, &timer, sizeof timer, -1), RF_OK, "set");
    want_event(RF_KERNEL_EVENT_TIMER);
    if (body.timer.id != 3 || body.timer.expirations != 1 || rf_clock_ns() < timer.deadline_ns)
        fail("wrong timer event");
    timer = (rf_kernel_timer_t){.id = 63, .deadline_ns = rf_clock_ns(), .period_ns = 5 * RF_NS_PER_MS};
    want(invoke(RF_KERNEL_TIMER_SET, &timer, sizeof timer, -1), RF_OK, "set a period");
    for (uint64_t seen = 0; seen < 5; seen += body.timer.expirations) want_event(RF_KERNEL_EVENT_TIMER);
    rf_wire_header_t header = {.tag = ++tags, .op = RF_KERNEL_TIMER_CANCEL};
    rf_message_send2(kernel, RF_KERNEL_INVOKE, &header, sizeof header, &timer, sizeof timer);
    rf_transport_shm.flush(kernel);
    do {
        if (!receive(&header, &body, &body_size, DEADLINE_NS)) fail("no answer to cancel");
    } while (header.tag != tags);
    if (receive(&header, &body, &body_size, 30 * RF_NS_PER_MS)) fail("an event of a cancelled timer");
    timer.id = RF_KERNEL_TIMERS_MAX;
    want(invoke(RF_KERNEL_TIMER_SET, &timer, sizeof timer, -1), RF_ERR_INVALID, "id out of range");
    timer = (rf_kernel_timer_t){.deadline_ns = 1, .period_ns = 1000};
    want(invoke(RF_KERNEL_TIMER_SET, &timer, sizeof timer, -1), RF_ERR_INVALID, "period too short");
}

static void watches(void)
{
    int pipes[2];
    connect_kernel();
    if (pipe(pipes) < 0) fail("pipe");
    rf_kernel_watch_t watch = {.id = 5, .events = EPOLLIN};
    want(invoke(RF_KERNEL_FD_WATCH, &watch, sizeof watch, pipes[0]), RF_OK, "watch");
    if (write(pipes[1], "x", 1) != 1) fail("write");
    want_event(RF_KERNEL_EVENT_FD);
    if (body.watch.id != 5 || !(body.watch.events & EPOLLIN)) fail("wrong event");
    rf_wire_header_t header;
    if (receive(&header, &body, &body_size, 20 * RF_NS_PER_MS))
        fail("a second event before it was armed again");
    want(invoke(RF_KERNEL_FD_REARM, &watch, sizeof watch, -1), RF_OK, "rearm");
    want_event(RF_KERNEL_EVENT_FD);
    want(invoke(RF_KERNEL_FD_UNWATCH, &watch, sizeof watch, -1), RF_OK, "unwatch");
    want(invoke(RF_KERNEL_FD_REARM, &watch, sizeof watch, -1), RF_ERR_NOT_FOUND, "rearm what is gone");
    want(invoke(RF_KERNEL_FD_WATCH, &watch, sizeof watch, -1), RF_ERR_INVALID, "watch without a descriptor");
    int set = epoll_create1(0), file = open("/etc/passwd", O_RDONLY);
    want(invoke(RF_KERNEL_FD_WATCH, &watch, sizeof watch, set), RF_ERR_INVALID, "watch an epoll set");
    want(invoke(RF_KERNEL_FD_WATCH, &watch, sizeof watch, file), RF_ERR_INVALID, "watch a file");
    watch.events = EPOLLIN | EPOLLET;
    want(invoke(RF_KERNEL_FD_WATCH, &watch, sizeof watch, pipes[0]), RF_ERR_INVALID, "edge-triggered");
}

static void signals(void)
{
    connect_kernel();
    rf_kernel_signals_t set = {.mask = 1ull << (SIGUSR1 - 1) | 1ull << (SIGTERM - 1)};
    want(invoke(RF_KERNEL_SIGNALS_SET, &set, sizeof set, -1), RF_OK, "set");
    printf("ready\n");
    fflush(stdout);
    want_event(RF_KERNEL_EVENT_SIGNAL);
    if (body.signal.signo != SIGUSR1) fail("signal %u instead of USR1", body.signal.signo);
    want_event(RF_KERNEL_EVENT_SIGNAL);
    if (body.signal.signo != SIGTERM) fail("signal %u instead of TERM", body.signal.signo);
    set.mask = 1ull << (SIGKILL - 1);
    want(invoke(RF_KERNEL_SIGNALS_SET, &set, sizeof set, -1), RF_ERR_INVALID, "KILL as a message");
}

static void rights(void)
{
    connect_kernel();
    rf_kernel_target_t target = {.domain = 1};
    rf_kernel_create_t create = {.domain = 99, .n_fds = 1};
    rf_kernel_signal_t kill_all = {.domain = 1, .signo = SIGKILL, .whole = 1};
    rf_kernel_share_t share = {.reserved_permille = 500};
    want(invoke(RF_KERNEL_DESTROY, &target, sizeof target, -1), RF_ERR_PERMISSION, "destroy");
    want(invoke(RF_KERNEL_STAT_ALL, &target, sizeof target, -1), RF_ERR_PERMISSION, "stat all");
    want(invoke(RF_KERNEL_SIGNAL, &kill_all, sizeof kill_all, -1), RF_ERR_PERMISSION, "signal");
    want(invoke(RF_KERNEL_CREATE, &create, sizeof create, open("/dev/null", O_RDONLY)), RF_ERR_PERMISSION,
         "create");
    want(invoke(RF_KERNEL_SHARE_SET, &share, sizeof share, -1), RF_ERR_PERMISSION, "a reservation");
    share = (rf_kernel_share_t){.weight = 1000};
    want(invoke(RF_KERNEL_SHARE_SET, &share, sizeof share, -1), RF_ERR_PERMISSION, "more weight");
    share.weight = 50;
    want(invoke(RF_KERNEL_SHARE_SET, &share, sizeof share, -1), RF_OK, "less weight");
    want(invoke(RF_KERNEL_STAT, NULL, 0, -1), RF_OK, "stat");
    if (body.stat.weight != 50 || body.stat.processes != 1 || body.stat.rss_kib == 0)
        fail("stat: weight %u, %u processes, %llu KiB", body.stat.weight, body.stat.processes,
             (unsigned long long)body.stat.rss_kib);
    want(invoke(RF_KERNEL_YIELD, NULL, 0, -1), RF_OK, "yield");
    want(invoke(RF_KERNEL_NULL, NULL, 0, -1), RF_OK, "null");
    want(invoke(4711, NULL, 0, -1), RF_ERR_NOT_SUPPORTED, "an operation that there is not");
}

/* What the CPU driver must not be impressed by. It may end our link; the test looks whether others notice. */
static void hostile(void)
{
    uint8_t noise[4096];
    connect_kernel();
    unsigned seed = 42;
    for (unsigned round = 0; round < 20000 && !link_dead; round++) {
        rf_wire_header_t header = {.tag = round, .op = (uint16_t)(rand_r(&seed) % 40)};
        size_t size = (size_t)rand_r(&seed) % 96;
        for (size_t i = 0; i < size; i++) noise[i] = (uint8_t)rand_r(&seed);
        static const uint8_t sizes[] = {0, 8, 16, 24};
        if (round % 4) size = sizes[round / 4 % 4];
        while (!link_dead && rf_message_send2(kernel, RF_KERNEL_INVOKE, &header, sizeof header, noise,
                                              size) == RF_ERR_AGAIN) {
            rf_slot_t slot;
            progress();
            while (!link_dead && rf_transport_shm.poll(kernel, &slot, 1) == 1)
                ;
        }
        if (!link_dead) rf_transport_shm.flush(kernel);
    }
    for (uint64_t end_ns = rf_clock_ns() + DEADLINE_NS; !link_dead && rf_clock_ns() < end_ns; usleep(1000)) {
        rf_slot_t slot = {.control = rf_control_make(0x99, 8, false, 0)};
        rf_transport_shm.send(kernel, &slot, 1);
        rf_transport_shm.flush(kernel);
        progress();
    }
    if (!link_dead) fail("the link outlived all that");
}

/* Invocations as fast as they go, answers not read. */
static void flood(void)
{
    connect_kernel();
    printf("ready\n");
    fflush(stdout);
    for (;;) {
        rf_wire_header_t header = {.tag = 1, .op = RF_KERNEL_STAT};
        rf_message_send(kernel, RF_KERNEL_INVOKE, &header, sizeof header);
        rf_transport_shm.flush(kernel);
        rf_slot_t slot;
        while (!link_dead && rf_transport_shm.poll(kernel, &slot, 1) == 1)
            ;
        progress();
    }
}

static void null_cost(void)
{
    enum { ROUNDS = 20000 };
    connect_kernel();
    uint64_t start_ns = rf_clock_ns();
    for (unsigned i = 0; i < ROUNDS; i++) want(invoke(RF_KERNEL_NULL, NULL, 0, -1), RF_OK, "null");
    printf("%llu ns\n", (unsigned long long)(rf_clock_ns() - start_ns) / ROUNDS);
}

/* Spins in `n` children and here. */
static void spin(int n)
{
    for (int i = 0; i < n; i++) {
        if (fork() == 0) break;
    }
    for (volatile unsigned turns = 0;; turns++)
        ;
}

/* Its first process waits in the kernel, where no stop reaches it, for a child that spins a quarter of a second; then it spins itself. */
static void late(void)
{
    if (vfork() == 0) {
        struct timespec used;
        do clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        while (used.tv_sec == 0 && used.tv_nsec < 250000000);
        _exit(0);
    }
    spin(0);
}

/* Leaves in every way Linux knows; then the first process goes on, or ends. */
static void escape(bool stay)
{
    int away[2]; /* held by those who are not */
    char byte;
    if (pipe(away) < 0) fail("pipe");
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            setsid();
            signal(SIGHUP, SIG_IGN);
            signal(SIGTERM, SIG_IGN);
            if (fork() > 0) _exit(0);
            setsid();
            prctl(PR_SET_PDEATHSIG, 0);
            close(away[1]);
            for (;;) pause();
        }
    }
    close(away[1]);
    if (read(away[0], &byte, 1) != 0) fail("read");
    printf("ready\n");
    fflush(stdout);
    while (stay) pause();
}

static void facts(void)
{
    char cwd[256];
    struct rlimit files;
    mode_t mask = umask(0);
    cpu_set_t set;
    getrlimit(RLIMIT_NOFILE, &files);
    sched_getaffinity(0, sizeof set, &set);
    printf("uid %u gid %u umask %03o files %llu cpus %d policy %d nnp %d cwd %s pid %d pgid-leader %d fds",
           getuid(), getgid(), mask, (unsigned long long)files.rlim_cur, CPU_COUNT(&set),
           sched_getscheduler(0), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), getcwd(cwd, sizeof cwd), getpid(),
           getpgrp() == getpid());
    for (int fd = 0; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) printf(" %d", fd);
    }
    printf("\n");
}

static void terminal(void)
{
    printf("tty %d leader %d foreground %d\n", isatty(0), getsid(0) == getpid(), tcgetpgrp(0) == getpid());
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    static const struct {
        const char *name;
        void (*run)(void);
    } table[] = {{"identify", identify}, {"timers", timers},    {"watches", watches}, {"signals", signals},
                 {"rights", rights},     {"hostile", hostile},  {"flood", flood},     {"null", null_cost},
                 {"facts", facts},       {"terminal", terminal}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(what, table[i].name) == 0) {
            table[i].run();
            return 0;
        }
    }
    if (strcmp(what, "spin") == 0)
        spin(argc > 2 ? atoi(argv[2]) : 0);
    else if (strcmp(what, "late") == 0)
        late();
    else if (strcmp(what, "escape") == 0)
        escape(true);
    else if (strcmp(what, "leave") == 0)
        escape(false);
    else
        fail("domain: what?");
    return 0;
}
