/*
 * Fencing, for every medium: nothing that a fenced peer still sends is delivered, its life cannot link again, and
 * nothing that it still maps is used for anything else. tests/monitor/fence_test.c proves that monitors fence whom they must.
 *
 *   a       the life that is fenced; it has not looked, and goes on
 *   b       fences it
 *   later   the next life of a's core, which links with b
 */
#include "conformance.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define A     0
#define B     1
#define LATER 2

#define KEY_TYPE    2 /* slots that carry a region's key */
#define NOTIFY_TYPE 3

#define REGION_SIZE (2u << 20) /* of the fenced link: what is on its way takes a while */
#define FRESH_SIZE  (64u << 10)
#define NAMES_MAX   256
#define A_BYTE      0x77 /* what a writes into regions */
#define FRESH_BYTE  0x21

typedef struct fenced {
    rf_link_t *link; /* with a; NULL: not fenced yet, or closed */
    rf_incarnation_t lowest;
    rf_region_t *region;
    uint8_t *then; /* what was in it when fence() returned; NULL: a maps it, and nobody can stop a */
    rf_region_t *fresh;
    bool a_runs; /* a is moved on by pump() */
    unsigned refused;
    uint64_t names[NAMES_MAX]; /* of the memory that the fenced link shared */
    unsigned n_names;
} fenced_t;

static void pump(world_t *world)
{
    const fenced_t *f = world->end[B].user;
    if (f->a_runs) end_progress(&world->end[A]);
    end_progress(&world->end[B]);
    end_progress(&world->end[LATER]);
    if (world->fixture->step) world->fixture->step(world);
}

/* What b does with events, as monitors do: one life of a core is never heard again after it was fenced. */
static void b_event(end_t *b, rf_link_event_t event, const rf_link_event_info_t *info)
{
    fenced_t *f = b->user;
    const rf_transport_t *t = b->world->fixture->transport;
    if (f->link) assert_ptr_not_equal(b->event_link, f->link); /* not a word of it */
    if (event != RF_LINK_INCOMING) return;
    if (info->hello->incarnation >= f->lowest) {
        assert_int_equal(t->accept(b->event_link, &b->accept), RF_OK);
        return;
    }
    if (b->link == b->event_link) b->link = NULL;
    f->refused++;
    t->reject(b->event_link, RF_ERR_FENCED);
}

static void b_prepare(world_t *world, fenced_t *f)
{
    end_t *b = &world->end[B];
    *f = (fenced_t){.a_runs = true};
    b->user = f;
    b->on_event = b_event;
    b->leave_incoming = true;
}

static void send_key(world_t *world, const rf_region_t *region)
{
    const rf_transport_t *t = world->fixture->transport;
    rf_slot_t slot = {.control = rf_control_make(KEY_TYPE, sizeof region->key, false, 0)};
    memcpy(slot.payload, &region->key, sizeof region->key);
    uint64_t since_ns = rf_clock_ns();
    while (t->send(world->end[B].link, &slot, 1) == 0) {
        pump(world);
        hang_check(since_ns, "room for a region's key");
    }
    t->flush(world->end[B].link);
}

/* False: it is not there yet. */
static bool take_key(end_t *end, rf_region_key_t *out)
{
    rf_slot_t slot;
    if (end->world->fixture->transport->poll(end->link, &slot, 1) == 0) return false;
    memcpy(out, slot.payload, sizeof *out);
    return true;
}

static bool bulk(const world_t *world)
{
    return (world->fixture->flags & FIXTURE_BULK) != 0;
}

/* Writes all of `size` bytes, and waits until they are there. */
static void write_all(world_t *world, end_t *end, const rf_region_key_t *key, const uint8_t *source,
                      size_t size)
{
    const rf_transport_t *t = world->fixture->transport;
    uint64_t since_ns = rf_clock_ns();
    unsigned written = end->written;
    assert_int_equal(t->remote_write(end->link, key, 0, source, size, NULL, 1), RF_OK);
    while (end->written == written) {
        rf_slot_t none;
        pump(world);
        assert_int_equal(t->poll(world->end[B].link, &none, 1), 0);
        assert_int_equal(t->poll(end->link, &none, 1), 0);
        hang_check(since_ns, "a remote write");
    }
    assert_int_equal(end->written_err, RF_OK);
}

static void all_bytes_are(const uint8_t *bytes, size_t size, uint8_t byte)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != byte)
            fail_msg("byte %zu of new memory is %#x, written by the fenced life", i, bytes[i]);
    }
}

/* The fenced link is silent. */
static void nothing_of_it(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    const fenced_t *f = world->end[B].user;
    rf_slot_t slots[8];
    if (!f->link) return;
    assert_int_equal(t->poll(f->link, slots, 8), 0);
    assert_false(t->ready(f->link));
    assert_int_equal(f->link->state, RF_LINK_STATE_DEAD);
}

static void nothing_was_written(const fenced_t *f)
{
    if (f->then) assert_memory_equal(f->region->base, f->then, REGION_SIZE);
}

/* Nothing that the fenced link shared is shared by b's present one. */
static void memory_is_new(world_t *world)
{
    const fenced_t *f = world->end[B].user;
    uint64_t names[NAMES_MAX];
    if (!world->fixture->memory_of) return;
    unsigned n = world->fixture->memory_of(world->end[B].link, names, NAMES_MAX);
    assert_true(n > 0 && f->n_names > 0);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < f->n_names; k++) assert_int_not_equal(names[i], f->names[k]);
    }
}

static void fence(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *b = &world->end[B];
    fenced_t *f = b->user;
    rf_slot_t slot = slot_make(0);
    f->link = b->link;
    f->lowest = f->link->peer.incarnation + 1;
    f->a_runs = false;
    b->link = NULL;
    if (world->fixture->memory_of) f->n_names = world->fixture->memory_of(f->link, f->names, NAMES_MAX);
    t->fence(f->link);
    if (bulk(world) && !world->fixture->keep_mapped) {
        f->then = malloc(REGION_SIZE);
        assert_non_null(f->then);
        memcpy(f->then, f->region->base, REGION_SIZE);
    }
    nothing_of_it(world);
    assert_int_equal(t->flush(f->link), RF_ERR_FENCED);
    assert_int_equal(t->send(f->link, &slot, 1), 0);
}

static bool later_up(world_t *world)
{
    return world->end[LATER].up > 0 && world->end[B].link && world->end[B].link->state == RF_LINK_STATE_UP;
}

/* The next life links, and gets a region that it fills. */
static void later_comes(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *b = &world->end[B], *later = &world->end[LATER];
    fenced_t *f = b->user;
    b->sent = b->got = 0;
    end_open(world, LATER);
    end_connect(later);
    uint64_t since_ns = rf_clock_ns();
    while (!later_up(world)) {
        pump(world);
        nothing_of_it(world);
        hang_check(since_ns, "the later life's link");
    }
    if (!bulk(world)) return;
    uint8_t *source = malloc(FRESH_SIZE);
    assert_non_null(source);
    rf_region_key_t key;
    memset(source, FRESH_BYTE, FRESH_SIZE);
    assert_int_equal(t->region_create(b->link, FRESH_SIZE, &f->fresh), RF_OK);
    all_bytes_are(f->fresh->base, FRESH_SIZE, 0);
    send_key(world, f->fresh);
    while (!take_key(later, &key)) {
        pump(world);
        hang_check(since_ns, "the later life's key");
    }
    write_all(world, later, &key, source, FRESH_SIZE);
    free(source);
}

/* `n` numbers each way between b and the later life, each checked, while a does what `goes_on` says. */
static void later_works(world_t *world, unsigned n, void (*goes_on)(world_t *world))
{
    end_t *b = &world->end[B], *later = &world->end[LATER];
    const fenced_t *f = b->user;
    uint64_t up_to = later->got + n, down_to = b->got + n, since_ns = rf_clock_ns();
    while (later->got < up_to || b->got < down_to) {
        if (b->sent < up_to) end_send(b, up_to - b->sent < 16 ? (unsigned)(up_to - b->sent) : 16);
        if (later->sent < down_to)
            end_send(later, down_to - later->sent < 16 ? (unsigned)(down_to - later->sent) : 16);
        if (goes_on) goes_on(world);
        end_receive(b, 64);
        end_receive(later, 64);
        nothing_of_it(world);
        pump(world);
        hang_check(since_ns, "the later life's slots");
    }
    assert_int_equal(later->dead + later->closed + later->broken, 0);
    if (f->fresh) all_bytes_are(f->fresh->base, FRESH_SIZE, FRESH_BYTE);
    nothing_was_written(f);
    memory_is_new(world);
}

static void b_forgets(world_t *world)
{
    fenced_t *f = world->end[B].user;
    rf_link_t *link = f->link;
    f->link = NULL;
    free(f->then);
    f->then = NULL;
    world->fixture->transport->close(link);
}

/* ---- a lives in this process ---- */

static uint8_t a_source[REGION_SIZE];
static rf_region_key_t a_key;

/* Everything that can be on its way: slots polled, waiting and not flushed, the beginning of a message, a slot that
 * tells of bytes, bytes half arrived, and half a slot. */
static void a_has_much_on_its_way(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    rf_slot_t notify = {.control = rf_control_make(NOTIFY_TYPE, 8, false, 0)};
    rf_slot_t begun = {.control = rf_control_make(CONFORMANCE_SLOT, RF_SLOT_PAYLOAD, true, 0)};
    uint64_t goal = b->got + 10, since_ns = rf_clock_ns();
    assert_int_equal(end_send(a, 40), 40);
    while (b->got < goal) {
        pump(world);
        end_receive(b, (unsigned)(goal - b->got));
        hang_check(since_ns, "the first slots");
    }
    if (bulk(world)) {
        assert_int_equal(t->remote_write(a->link, &a_key, 64, a_source, 64, &notify, 2), RF_OK);
        for (unsigned i = 0; i < 10; i++) pump(world);
        assert_int_equal(t->remote_write(a->link, &a_key, 0, a_source, REGION_SIZE, &notify, 3), RF_OK);
    }
    assert_int_equal(t->send(a->link, &begun, 1), 1);
    t->flush(a->link);
    pump(world);
    while (!t->ready(b->link)) {
        pump(world);
        hang_check(since_ns, "slots that wait");
    }
    assert_int_equal(t->send(a->link, &begun, 1), 1);
    if (world->fixture->keep_mapped) world->fixture->keep_mapped(world, A);
    if (world->fixture->half) world->fixture->half(world, A);
}

static void a_goes_on(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A];
    rf_slot_t notify = {.control = rf_control_make(NOTIFY_TYPE, 8, false, 0)};
    if (a->link && a->link->state == RF_LINK_STATE_UP) {
        end_send(a, 3);
        if (bulk(world)) t->remote_write(a->link, &a_key, 4096, a_source, 5000, &notify, 4);
    }
    if (world->fixture->overwrite_kept) world->fixture->overwrite_kept(world);
}

/* It looks, and learns that its link is over; then it comes again, as the life that it was. */
static void a_looks_and_comes_again(world_t *world)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    fenced_t *f = b->user;
    rf_slot_t slots[8];
    uint64_t since_ns = rf_clock_ns();
    f->a_runs = true;
    while (a->dead + a->closed == 0) {
        a_goes_on(world);
        t->poll(a->link, slots, 8);
        pump(world);
        nothing_of_it(world);
        hang_check(since_ns, "the fenced life to learn it");
    }
    t->close(a->link);
    a->dead = a->closed = 0;
    unsigned up = a->up, refused = f->refused;
    end_connect(a);
    while (a->dead + a->closed == 0) {
        pump(world);
        nothing_of_it(world);
        hang_check(since_ns, "the fenced life to be refused");
    }
    assert_int_equal(a->why, RF_ERR_FENCED);
    assert_int_equal(a->up, up);
    assert_int_equal(f->refused, refused + 1);
    t->close(a->link);
    a->link = NULL;
}

static void fenced_in_one_process(bool stopped)
{
    world_t *world = world_linked(64, 256);
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A], *b = &world->end[B];
    fenced_t f;
    b_prepare(world, &f);
    memset(a_source, A_BYTE, sizeof a_source);
    world_stream(world, A, 100);
    if (bulk(world)) {
        assert_int_equal(t->region_create(b->link, REGION_SIZE, &f.region), RF_OK);
        send_key(world, f.region);
        uint64_t since_ns = rf_clock_ns();
        while (!take_key(a, &a_key)) {
            pump(world);
            hang_check(since_ns, "a region's key");
        }
        write_all(world, a, &a_key, a_source, 4096);
        all_bytes_are(f.region->base, 4096, A_BYTE);
    }
    a_has_much_on_its_way(world);
    if (stopped) world->fixture->stop(world, A, true);
    fence(world);
    for (unsigned i = 0; i < 20 && !stopped; i++) {
        a_goes_on(world);
        pump(world);
        nothing_of_it(world);
    }
    later_comes(world);
    if (stopped) later_works(world, 300, NULL);
    if (stopped) world->fixture->stop(world, A, false);
    later_works(world, 1000, a_goes_on);
    a_looks_and_comes_again(world);
    later_works(world, 300, a_goes_on);

    /* What b gives back is not what anybody gets next. */
    b_forgets(world);
    for (unsigned i = 0; i < 4 && bulk(world); i++) {
        rf_region_t *more;
        assert_int_equal(t->region_create(b->link, REGION_SIZE, &more), RF_OK);
        a_goes_on(world);
        all_bytes_are(more->base, REGION_SIZE, 0);
    }
    later_works(world, 300, a_goes_on);
    world_close(world);
}

static void a_fenced_life_is_silent(void **state)
{
    (void)state;
    fenced_in_one_process(false);
}

/* ---- a is a process of its own, stopped when it is fenced, and continued ---- */

static bool kept(const world_t *world)
{
    return world->fixture->overwrite_kept != NULL;
}

/* Hears where b listens, sends without end, and when its link is over comes again; says how that went, and then a byte
 * whenever it has overwritten what it maps. */
static void live_and_be_fenced(world_t *world, const child_t *parent, unsigned unused)
{
    (void)unused;
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[A];
    rf_slot_t none;
    child_hear(parent, world->address, sizeof world->address);
    end_open(world, A);
    end_connect(a);
    while (a->up == 0) end_progress(a);
    while (bulk(world) && !take_key(a, &a_key)) end_progress(a);
    for (unsigned round = 0; a->dead + a->closed == 0; round++) {
        end_send(a, 64);
        if (bulk(world) && round % 8 == 0)
            t->remote_write(a->link, &a_key, 0, a_source, round % 64 == 0 ? REGION_SIZE : 4096, NULL, 5);
        if (round % 4 == 0) {
            t->poll(a->link, &none, 1);
            end_progress(a);
        }
        if (round == 0 && world->fixture->keep_mapped) world->fixture->keep_mapped(world, A);
    }
    if (kept(world)) world->fixture->overwrite_kept(world);
    t->close(a->link);
    a->dead = a->closed = 0;
    unsigned up = a->up;
    end_connect(a);
    while (a->dead + a->closed == 0 && a->up == up) end_progress(a);
    rf_err_t why = a->up == up ? a->why : RF_OK;
    child_say(parent, &why, sizeof why);
    for (;;) {
        if (kept(world)) world->fixture->overwrite_kept(world);
        child_say(parent, "o", 1);
        usleep(1000);
    }
}

static bool b_up(world_t *world)
{
    return world->end[B].up > 0;
}

static void a_stopped_process_is_fenced(void)
{
    world_t *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->fixture = conformance_fixture;
    world->slots = world->slots_max = 256; /* a ring that grows would not be the one that is kept */
    rf_prng_seed(&world->prng, 9);
    if (world->fixture->open) world->fixture->open(world);
    memset(a_source, A_BYTE, sizeof a_source);
    child_t child = child_start(world, live_and_be_fenced, 0);

    const rf_transport_t *t = world->fixture->transport;
    end_t *b = &world->end[B];
    fenced_t f;
    end_open(world, B);
    b_prepare(world, &f);
    child_say(&child, world->address, sizeof world->address);
    world_until(world, b_up, "the link of the other process");
    if (bulk(world)) {
        assert_int_equal(t->region_create(b->link, REGION_SIZE, &f.region), RF_OK);
        send_key(world, f.region);
    }
    uint64_t since_ns = rf_clock_ns();
    while (b->got < 3000) {
        end_receive(b, 64);
        pump(world);
        hang_check(since_ns, "slots of the other process");
    }
    int status;
    assert_int_equal(kill(child.pid, SIGSTOP), 0);
    assert_int_equal(waitpid(child.pid, &status, WUNTRACED), child.pid);
    assert_true(WIFSTOPPED(status));
    fence(world);
    later_comes(world);
    later_works(world, 300, NULL);
    assert_int_equal(kill(child.pid, SIGCONT), 0);
    later_works(world, 1000, NULL);

    rf_err_t why; /* why it was refused: its own word */
    while (f.refused == 0) {
        later_works(world, 10, NULL);
        hang_check(since_ns, "the fenced process to come again");
    }
    for (unsigned i = 0; i < 10; i++) later_works(world, 10, NULL);
    child_hear(&child, &why, sizeof why);
    assert_int_equal(why, RF_ERR_FENCED);
    for (unsigned i = 0; i < 10; i++) {
        char done;
        child_hear(&child, &done, 1);
        later_works(world, 50, NULL);
        if (i == 5) b_forgets(world);
    }
    child_reap(&child);
    later_works(world, 50, NULL);
    world_close(world);
}

static void a_stopped_life_is_fenced(void **state)
{
    (void)state;
    if (conformance_fixture->flags & FIXTURE_PROCESSES)
        a_stopped_process_is_fenced();
    else
        fenced_in_one_process(true);
}

const struct CMUnitTest cases_fence[] = {
    cmocka_unit_test(a_fenced_life_is_silent),
    cmocka_unit_test(a_stopped_life_is_fenced),
};
const size_t cases_fence_n = sizeof cases_fence / sizeof *cases_fence;
