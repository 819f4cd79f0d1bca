/*
 * Forming a machine while its nodes start anew (node/form.h): of each machine id, each core is started as incarnation 1 at most once,
 * wherever in the exchange a node loses its memory; and whoever waits for it says so.
 */
#include "harness.h"

#include "base/os.h"
#include "base/prng.h"
#include "base/types.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define STARTS_MAX 1024
#define STEP_MS    20
#define ROUNDS     12
#define REBOOTS    8

static harness_t h;

/* ---- what was started ---- */

typedef struct start {
    char id[40];
    unsigned core, incarnation;
} start_t;

static unsigned read_starts(start_t *out)
{
    static char text[STARTS_MAX * 64];
    char path[128], *rest;
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/bin/started", h.base);
    assert_true(rf_file_read(path, text, sizeof text) >= 0);
    for (char *line = strtok_r(text, "\n", &rest); line && n < STARTS_MAX;
         line = strtok_r(NULL, "\n", &rest), n++)
        assert_int_equal(sscanf(line, "%39s %u %u", out[n].id, &out[n].core, &out[n].incarnation), 3);
    return n;
}

static unsigned n_starts(unsigned core)
{
    static start_t starts[STARTS_MAX];
    unsigned all = read_starts(starts), n = 0;
    for (unsigned i = 0; i < all; i++) n += starts[i].core == core;
    return n;
}

static void wait_for_starts(unsigned core, unsigned n)
{
    for (unsigned tries = 0; tries < 1000 && n_starts(core) < n; tries++) usleep(STEP_MS * 1000);
    assert_int_equal(n_starts(core), n);
}

static void first_lives_are_single(void)
{
    static start_t starts[STARTS_MAX];
    unsigned n = read_starts(starts);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(starts[i].incarnation, 1); /* nothing here forms, so nobody joins */
        for (unsigned k = 0; k < i; k++) {
            if (starts[i].core == starts[k].core && strcmp(starts[i].id, starts[k].id) == 0)
                fail_msg("core %u of machine %s was started as incarnation 1 twice", starts[i].core,
                         starts[i].id);
        }
    }
}

static int set_up(void **state)
{
    (void)state;
    harness_open(&h, 2);
    harness_fake_drivers(&h);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    harness_close(&h);
    return 0;
}

/* Until the node says a line with `text` in it. */
static void says(int ready_fd, const char *text)
{
    static char heard[1 << 16];
    size_t n = 0;
    do {
        ssize_t more = read(ready_fd, heard + n, sizeof heard - 1 - n);
        if (more <= 0) fail_msg("it never said \"%s\", but:\n%s", text, heard);
        heard[n += (size_t)more] = 0;
    } while (!strstr(heard, text));
}

/* ---- the forming node, the other one played by the test ---- */

/* A life of node1, of instance `life`; what it is told: -1 nothing, within `frames` of what comes. */
typedef struct played {
    blocking_t b;
    uint8_t id[16];
    int word;
} played_t;

static void play_hello(played_t *p, uint8_t life, const uint8_t *id, bool formed)
{
    static char node_name[] = "node1";
    uint8_t instance[16] = {life};
    Rackfish__Node__PeerHello hello;
    p->word = -1;
    assert_true(blocking_tls(&h, harness_connect(&h, 0), false, &p->b));
    harness_hello(&h, &hello);
    hello.node = 1;
    hello.node_name = node_name;
    hello.instance.data = instance;
    if (id) hello.machine_id = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)id, .len = 16};
    hello.formed = formed;
    assert_true(blocking_send_hello(&p->b, &hello));
}

/* The next frame; remembers the word of a PeerMachine. False: the other side closed. */
static bool play_frame(played_t *p)
{
    static uint8_t bytes[1 << 16];
    ssize_t size = blocking_receive(&p->b, bytes, sizeof bytes);
    if (size < 0) return false;
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, (size_t)size);
    assert_non_null(frame);
    if (frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_MACHINE) {
        assert_int_equal(frame->machine->machine_id.len, 16);
        memcpy(p->id, frame->machine->machine_id.data, 16);
        p->word = (int)frame->machine->word;
    }
    rf_peer_frame_free(frame);
    return true;
}

/* The word that this life is told in the end. */
static int play_life(uint8_t life, played_t *p)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        play_hello(p, life, NULL, false);
        while (p->word < 0 && play_frame(p)) {
        }
        blocking_close(&p->b);
        if (p->word >= 0) return p->word;
        usleep(STEP_MS * 1000); /* refused: the connection of the life before is not down yet */
    }
    fail_msg("life %u was told nothing", life);
    return -1;
}

/* A life that ends after so many steps; whether it may have been told FIRST. */
enum { CONNECTED, PROVED, SENT_HELLO, HEARD_HELLO, HEARD_WORD, N_STEPS };

static void play_cut(uint8_t life, unsigned steps)
{
    played_t p = {.word = -1};
    if (steps == CONNECTED) {
        close(harness_connect(&h, 0));
        return;
    }
    if (steps == PROVED) {
        assert_true(blocking_tls(&h, harness_connect(&h, 0), false, &p.b));
        blocking_close(&p.b);
        return;
    }
    play_hello(&p, life, NULL, false);
    if (steps >= HEARD_HELLO) assert_true(play_frame(&p));
    while (steps >= HEARD_WORD && p.word < 0) assert_true(play_frame(&p));
    if (steps >= HEARD_WORD) assert_int_equal(p.word, RACKFISH__NODE__PEER_WORD__FIRST);
    blocking_close(&p.b);
}

static void one_life_of_a_node_is_the_first(void **state)
{
    (void)state;
    for (unsigned steps = CONNECTED; steps < N_STEPS; steps++) {
        played_t p, again;
        pid_t former = harness_start(&h, 0, NULL, true, NULL);
        play_cut(1, steps);
        int word = play_life(2, &p);
        if (steps <= PROVED) assert_int_equal(word, RACKFISH__NODE__PEER_WORD__FIRST);
        if (steps >= HEARD_HELLO) assert_int_equal(word, RACKFISH__NODE__PEER_WORD__AGAIN);
        /* The same life hears the same, whoever came in between; and it is one machine. */
        int third = play_life(3, &again);
        assert_int_equal(third, RACKFISH__NODE__PEER_WORD__AGAIN);
        assert_memory_equal(again.id, p.id, sizeof p.id);
        assert_int_equal(play_life(2, &again), word);
        if (steps >= HEARD_HELLO) assert_int_equal(play_life(1, &again), RACKFISH__NODE__PEER_WORD__FIRST);
        assert_true(harness_log_has(&h, "node0/rackfishd.log", "node1 was started anew"));
        harness_reboot(&h, 0, former);
    }
    first_lives_are_single();
}

static void the_forming_node_says_for_whom_it_waits(void **state)
{
    (void)state;
    int ready_fd;
    played_t p;
    pid_t former = harness_start(&h, 0, NULL, true, &ready_fd);
    play_cut(1, HEARD_WORD);
    assert_int_equal(play_life(2, &p), RACKFISH__NODE__PEER_WORD__AGAIN);
    says(ready_fd,
         "node node1 was started anew meanwhile and joins later; if it does not form, 'rackfish down'");
    close(ready_fd);
    harness_reboot(&h, 0, former);
}

static void no_second_machine_while_somebody_is_in_one(void **state)
{
    (void)state;
    int ready_fd;
    uint8_t id[16] = {7};
    played_t p;
    /* The forming node has forgotten the machine, the other one is still in it: not formed, as far as it knows. */
    unsigned before = n_starts(0);
    pid_t former = harness_start(&h, 0, NULL, true, &ready_fd);
    play_hello(&p, 1, id, false);
    says(ready_fd, "node node1 is in a machine that has not formed: waiting to join it; if it does not form");
    assert_int_equal(n_starts(0), before);
    /* That one gives up as well, and has forgotten it: then another machine can be formed. */
    blocking_close(&p.b);
    assert_int_equal(play_life(2, &p), RACKFISH__NODE__PEER_WORD__FIRST);
    assert_int_not_equal(memcmp(p.id, id, sizeof id), 0);
    wait_for_starts(0, before + 1);
    close(ready_fd);
    harness_reboot(&h, 0, former);
}

/* ---- a node that is told, the forming one played by the test ---- */

static void host_hello(blocking_t *b, uint8_t life, const uint8_t *id, bool formed, bool *takes_part)
{
    static uint8_t bytes[1 << 16];
    uint8_t instance[16] = {life};
    Rackfish__Node__PeerHello hello;
    ssize_t size = -1;
    for (unsigned tries = 0; tries < 200 && size < 0; tries++) { /* dials of a life that is over */
        if (blocking_accept(&h, 0, b)) size = blocking_receive(b, bytes, sizeof bytes);
        if (size < 0) blocking_close(b);
    }
    assert_true(size > 0);
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, (size_t)size);
    assert_non_null(frame);
    assert_int_equal(frame->kind_case, RACKFISH__NODE__PEER_FRAME__KIND_HELLO);
    *takes_part = frame->hello->machine_id.len != 0;
    rf_peer_frame_free(frame);
    harness_hello(&h, &hello);
    hello.instance.data = instance;
    hello.forms = true;
    if (id) hello.machine_id = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)id, .len = 16};
    hello.formed = formed;
    assert_true(blocking_send_hello(b, &hello));
}

static const uint8_t id_x[16] = {1, 2, 3}, id_y[16] = {4, 5, 6};

static void who_was_not_told_first_does_not_start(void **state)
{
    (void)state;
    blocking_t b;
    bool takes_part;
    int ready_fd;
    unsigned before = n_starts(1);
    pid_t node = harness_start(&h, 1, NULL, false, &ready_fd);
    /* The forming node goes away after its hello, in which it was in a machine; a later life of it forms another one. */
    host_hello(&b, 1, id_x, false, &takes_part);
    assert_false(takes_part);
    says(ready_fd, "node node0 is in a machine that has not formed: waiting to join it");
    blocking_close(&b);
    host_hello(&b, 2, NULL, false, &takes_part);
    assert_false(takes_part);
    assert_true(blocking_send_machine(&b, id_x, RACKFISH__NODE__PEER_WORD__NONE));
    assert_true(blocking_send_machine(&b, id_x, RACKFISH__NODE__PEER_WORD__AGAIN));
    says(ready_fd,
         "an earlier life of this node may be in the machine that forms: waiting to join it; if it does");
    assert_int_equal(n_starts(1), before);
    blocking_close(&b);
    host_hello(&b, 3, NULL, false, &takes_part);
    assert_false(takes_part);
    assert_true(blocking_send_machine(&b, id_y, RACKFISH__NODE__PEER_WORD__FIRST));
    wait_for_starts(1, before + 1);
    blocking_close(&b);
    /* Now it is in that one, and says so; it starts nothing for others, nor a second time. */
    host_hello(&b, 4, NULL, false, &takes_part);
    assert_true(takes_part);
    assert_true(blocking_send_machine(&b, id_x, RACKFISH__NODE__PEER_WORD__FIRST));
    blocking_close(&b);
    host_hello(&b, 3, id_y, false, &takes_part);
    assert_true(takes_part);
    assert_true(blocking_send_machine(&b, id_y, RACKFISH__NODE__PEER_WORD__FIRST));
    assert_true(blocking_send_machine(&b, id_y, RACKFISH__NODE__PEER_WORD__JOIN));
    blocking_close(&b);
    host_hello(&b, 5, NULL, false, &takes_part);
    says(ready_fd, "node node0, which forms it, was started anew; if it does not form, 'rackfish down'");
    assert_int_equal(n_starts(1), before + 1);
    blocking_close(&b);
    close(ready_fd);
    harness_reboot(&h, 1, node);
    first_lives_are_single();
}

static void a_word_that_is_none_is_refused(void **state)
{
    (void)state;
    blocking_t b;
    bool takes_part;
    uint8_t bytes[1 << 12];
    unsigned before = n_starts(1);
    pid_t node = harness_start(&h, 1, NULL, false, NULL);
    host_hello(&b, 1, NULL, false, &takes_part);
    assert_true(blocking_send_machine(&b, id_x, (Rackfish__Node__PeerWord)9));
    while (blocking_receive(&b, bytes, sizeof bytes) >= 0) {
    }
    blocking_close(&b);
    host_hello(&b, 2, NULL, false, &takes_part);
    assert_false(takes_part);
    assert_int_equal(n_starts(1), before);
    blocking_close(&b);
    harness_reboot(&h, 1, node);
}

static void who_comes_back_joins_what_has_formed(void **state)
{
    (void)state;
    blocking_t b;
    bool takes_part;
    int ready_fd;
    unsigned before = n_starts(1);
    for (unsigned way = 0; way < 3; way++) {
        pid_t node = harness_start(&h, 1, NULL, false, &ready_fd);
        host_hello(&b, 1, way == 0 ? id_x : NULL, way == 0, &takes_part);
        if (way == 2) assert_true(blocking_send_machine(&b, id_x, RACKFISH__NODE__PEER_WORD__AGAIN));
        if (way > 0) assert_true(blocking_send_machine(&b, id_x, RACKFISH__NODE__PEER_WORD__JOIN));
        says(ready_fd, "the machine is formed already: its 1 core join");
        blocking_close(&b);
        close(ready_fd);
        harness_reboot(&h, 1, node);
    }
    assert_int_equal(n_starts(1), before);
}

/* ---- three real ones, which go down and come up whenever they like ---- */

static void reboots_at_any_time(void **state)
{
    (void)state;
    rf_prng_t prng;
    harness_close(&h);
    harness_open(&h, 3);
    harness_fake_drivers(&h);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pid_t pids[3];
        rf_prng_seed(&prng, round + 1);
        for (unsigned i = 0; i < 3; i++) pids[i] = harness_start(&h, i, NULL, i == 0, NULL);
        for (unsigned i = 0; i < REBOOTS; i++) {
            unsigned node = (unsigned)rf_prng_below(&prng, 3);
            usleep((useconds_t)rf_prng_below(&prng, 60) * 1000);
            harness_reboot(&h, node, pids[node]);
            usleep((useconds_t)rf_prng_below(&prng, 10) * 1000);
            pids[node] = harness_start(&h, node, NULL, node == 0, NULL);
        }
        /* All of them down for once: nothing is left of any machine, and another one begins. */
        for (unsigned i = 0; i < 3; i++) harness_reboot(&h, i, pids[i]);
        unsigned before[3] = {n_starts(0), n_starts(1), n_starts(2)};
        for (unsigned i = 0; i < 3; i++) pids[i] = harness_start(&h, i, NULL, i == 0, NULL);
        for (unsigned i = 0; i < 3; i++) wait_for_starts(i, before[i] + 1);
        for (unsigned i = 0; i < 3; i++) harness_reboot(&h, i, pids[i]);
    }
    first_lives_are_single();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_life_of_a_node_is_the_first),
        cmocka_unit_test(the_forming_node_says_for_whom_it_waits),
        cmocka_unit_test(no_second_machine_while_somebody_is_in_one),
        cmocka_unit_test(who_was_not_told_first_does_not_start),
        cmocka_unit_test(a_word_that_is_none_is_refused),
        cmocka_unit_test(who_comes_back_joins_what_has_formed),
        cmocka_unit_test(reboots_at_any_time),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
