/* The two ends in two processes: killed, and stopped. */
#include "conformance.h"

#include "base/os.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct child {
    pid_t pid;
    int from; /* the child writes a byte for each thing it has done; the address first */
} child_t;

static void say(int fd, const void *bytes, size_t size)
{
    if (rf_write_all(fd, bytes, size) != RF_OK) _exit(3);
}

/* Serves as end b: `last_words` numbered slots, told through the pipe when flushed; then echoes nothing and drains. */
static void serve(world_t *world, int to, unsigned last_words)
{
    end_t *b = &world->end[1];
    end_open(world, 1);
    say(to, world->address, sizeof world->address);
    while (b->up == 0) end_progress(b);
    while (b->sent < last_words) {
        end_send(b, (unsigned)(last_words - b->sent));
        end_receive(b, 64);
        end_progress(b);
    }
    say(to, "f", 1);
    for (;;) {
        end_receive(b, 64);
        end_progress(b);
    }
}

static child_t start(world_t *world, unsigned last_words)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t parent = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(2);
        close(ends[0]);
        serve(world, ends[1], last_words);
    }
    close(ends[1]);
    return (child_t){.pid = pid, .from = ends[0]};
}

static void hear(const child_t *child, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        ssize_t n = read(child->from, at, size);
        if (n < 0 && errno == EINTR) continue;
        assert_true(n > 0);
        at += n;
        size -= (size_t)n;
    }
}

static void reap(child_t *child)
{
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    close(child->from);
}

static bool a_up(world_t *world)
{
    return world->end[0].up > 0;
}

/* A world of which only `a` is in this process. */
static world_t *world_with_child(child_t *child, unsigned last_words)
{
    world_t *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->fixture = conformance_fixture;
    world->deadline_ns = RF_NS_PER_S;
    rf_prng_seed(&world->prng, 5);
    if (world->fixture->open) world->fixture->open(world);
    *child = start(world, last_words);
    hear(child, world->address, sizeof world->address);
    end_open(world, 0);
    end_connect(&world->end[0]);
    world_until(world, a_up, "the link to the other process");
    return world;
}

/* Killed in the midst of sending: everything it had flushed arrives, then DEAD, once. */
static void a_killed_peer(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_PROCESSES, "both ends live in one process")) return;
    child_t child;
    world_t *world = world_with_child(&child, 40);
    end_t *a = &world->end[0];
    char flushed;
    hear(&child, &flushed, 1);
    end_send(a, 30); /* unread at the peer: its death must not take what it said before with it */
    reap(&child);
    uint64_t since_ns = rf_clock_ns();
    while (a->dead + a->closed == 0) {
        end_progress(a);
        end_receive(a, 7);
        hang_check(since_ns, "the death of a killed peer");
    }
    assert_int_equal(a->got, 40);
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->closed, 0);
    assert_int_equal(a->why, RF_ERR_PEER_DEAD);
    for (unsigned i = 0; i < 20; i++) end_progress(a);
    assert_int_equal(a->dead, 1);
    world_close(world);
}

/* A stopped peer is slow, not dead: its ring fills, nothing is lost, and all goes on when it does. */
static void a_stopped_peer(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_PROCESSES, "both ends live in one process")) return;
    child_t child;
    world_t *world = world_with_child(&child, 1);
    end_t *a = &world->end[0];
    char flushed;
    hear(&child, &flushed, 1);
    assert_int_equal(kill(child.pid, SIGSTOP), 0);
    uint64_t since_ns = rf_clock_ns();
    for (unsigned quiet = 0; quiet < 100;) {
        quiet = end_send(a, 64) == 0 ? quiet + 1 : 0;
        end_progress(a);
        end_receive(a, 1);
        hang_check(since_ns, "a full ring");
    }
    assert_int_equal(a->dead, 0);
    assert_int_equal(kill(child.pid, SIGCONT), 0);
    uint64_t goal = a->sent + 10000;
    while (a->sent < goal) {
        end_send(a, 64);
        end_progress(a);
        end_receive(a, 1);
        hang_check(since_ns, "a stopped peer to go on");
    }
    assert_int_equal(a->dead, 0);
    reap(&child);
    world_close(world);
}

const struct CMUnitTest cases_process[] = {
    cmocka_unit_test(a_killed_peer),
    cmocka_unit_test(a_stopped_peer),
};
const size_t cases_process_n = sizeof cases_process / sizeof *cases_process;
