/*
 * Waits that end. hang_check() gives each wait of a case its deadline; and a thread looks whether the case still comes by here
 * at all: one that is blocked in a call, of ours or of the kernel's, ends the program. Either says what was awaited, where every
 * thread is, and how the links are.
 *
 * The thread counts its own turns, not time: a host that was stopped for a while has not hung.
 */
#include "conformance.h"

#include <dirent.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef CONFORMANCE_BLOCKED_MS
#define CONFORMANCE_BLOCKED_MS                                                                               \
    45000 /* beyond every sleep that a case takes by itself, and every wait of hang_check() */
#endif
#define TURN_MS    500
#define ANSWER_MS  1000 /* of a thread that is asked where it is */
#define FRAMES_MAX 64
#define ASK_SIGNAL SIGUSR2
#define NS_PER_MS  1000000

static _Atomic(const char *) case_now; /* NULL: none */
static _Atomic(const char *) awaited;  /* the last; NULL: nothing yet in this case */
static _Atomic(const world_t *) world_now;
static atomic_uint beats, answers;

void watch_beat(void)
{
    atomic_fetch_add_explicit(&beats, 1, memory_order_relaxed);
}

void watch_world(const world_t *world)
{
    atomic_store(&world_now, world);
}

void watch_case(const char *name)
{
    atomic_store(&awaited, NULL);
    atomic_store(&case_now, name);
    watch_beat();
}

/* ---- what is told ---- */

static const char *state_of(const rf_link_t *link)
{
    static const char *const names[] = {"connecting", "up", "broken", "dead"};
    return (unsigned)link->state < sizeof names / sizeof *names ? names[link->state] : "?";
}

static void end_tell(const end_t *end)
{
    const fixture_t *fixture = end->world->fixture;
    fprintf(stderr,
            "  end %u: told of %u incoming, %u up, %u broken, %u room, %u written, %u read, %u closed, %u "
            "dead (%s); "
            "sent %llu, got %llu\n",
            end->side, end->incoming, end->up, end->broken, end->room, end->written, end->read, end->closed,
            end->dead, rf_err_name(end->why), (unsigned long long)end->sent, (unsigned long long)end->got);
    if (!end->link) return;
    rf_link_stats_t stats = {0};
    fixture->transport->stats(end->link, &stats);
    fprintf(stderr, "    link %s: %llu slots sent, %llu received, %llu times full, %llu protocol errors\n",
            state_of(end->link), (unsigned long long)stats.slots_sent,
            (unsigned long long)stats.slots_received, (unsigned long long)stats.full,
            (unsigned long long)stats.protocol_errors);
    if (fixture->explain) fixture->explain(end->link);
}

static void links_tell(void)
{
    const world_t *world = atomic_load(&world_now);
    for (unsigned side = 0; world && side < 3; side++)
        if (world->end[side].endpoint) end_tell(&world->end[side]);
}

/* Of a thread of this process: what the kernel says of it, in one line, as far as it does. */
static void kernel_tell(const char *thread, const char *what)
{
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/self/task/%.16s/%s", thread, what);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return;
    text[n] = '\0';
    for (char *at = text; *at; at++)
        if (*at == '\n') *at = at[1] ? '|' : '\0';
    fprintf(stderr, "  %s: %s\n", what, text);
}

static void where_am_i(int number)
{
    void *frames[FRAMES_MAX];
    (void)number;
    backtrace_symbols_fd(frames, backtrace(frames, FRAMES_MAX), STDERR_FILENO);
    atomic_fetch_add(&answers, 1);
}

static void pause_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * NS_PER_MS};
    nanosleep(&time, NULL);
}

/* By its own word; one that is inside the kernel for good cannot give it. */
static void thread_ask(const char *thread)
{
    unsigned before = atomic_load(&answers);
    if (syscall(SYS_tgkill, getpid(), (pid_t)strtol(thread, NULL, 10), ASK_SIGNAL) != 0) return;
    for (unsigned ms = 0; ms < ANSWER_MS && atomic_load(&answers) == before; ms += 10) pause_ms(10);
    if (atomic_load(&answers) == before) fprintf(stderr, "  it does not answer\n");
}

static void threads_tell(void)
{
    DIR *all = opendir("/proc/self/task");
    for (struct dirent *one; all && (one = readdir(all));) {
        if (one->d_name[0] == '.' || strtol(one->d_name, NULL, 10) == gettid()) continue;
        fprintf(stderr, "thread %s\n", one->d_name);
        kernel_tell(one->d_name, "syscall");
        kernel_tell(one->d_name, "wchan");
        kernel_tell(one->d_name, "stack");
        thread_ask(one->d_name);
    }
    if (all) closedir(all);
}

/* ---- deadlines ---- */

void hang_tell(const char *what)
{
    const char *name = atomic_load(&case_now);
    fprintf(stderr, "%s waits in vain for %s\n", name ? name : "nobody", what);
    links_tell();
}

void hang_check(uint64_t since_ns, const char *what)
{
    watch_beat();
    atomic_store_explicit(&awaited, what, memory_order_relaxed);
    if (rf_clock_ns() - since_ns <= CONFORMANCE_HANG_NS) return;
    hang_tell(what);
    fail_msg("hangs while waiting for %s", what);
}

void watch_ask(pid_t process)
{
    kill(process, ASK_SIGNAL);
    pause_ms(ANSWER_MS);
}

_Noreturn static void give_up(const char *name)
{
    const char *what = atomic_load(&awaited);
    fflush(stdout);
    fprintf(stderr, "%s is blocked: nothing was done for %d s; last it waited for %s\n", name,
            CONFORMANCE_BLOCKED_MS / 1000, what ? what : "nothing");
    threads_tell();
    links_tell();
    fprintf(stderr, "[  FAILED  ] %s: blocked\n", name);
    _exit(1);
}

static void *watch(void *unused)
{
    unsigned seen = 0, still_ms = 0;
    (void)unused;
    for (;;) {
        pause_ms(TURN_MS);
        unsigned now = atomic_load(&beats);
        const char *name = atomic_load(&case_now);
        still_ms = name && now == seen ? still_ms + TURN_MS : 0;
        seen = now;
        if (still_ms >= CONFORMANCE_BLOCKED_MS) give_up(name);
    }
    return NULL;
}

void watch_start(void)
{
    void *frames[1];
    pthread_t thread;
    sigset_t all, before;
    struct sigaction ask = {.sa_handler = where_am_i, .sa_flags = SA_RESTART};
    (void)backtrace(frames, 1); /* what it loads is loaded now */
    sigaction(ASK_SIGNAL, &ask, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, watch, NULL) == 0) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
