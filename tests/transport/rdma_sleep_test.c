/*
 * How the receiver of an RDMA link sleeps, in virtual time: two real ends (link.c, ring.c), and between them a device that
 * places what is written, completes what completes and says so, each after a delay of its own, in the order of a reliable
 * connection. Owners poll, flush, arm and sleep at random moments, stall, and die. A seed replays.
 *
 * The invariant: no end sleeps on slots that have been written, but for one whose SLEEP has not been granted, and that one
 * looks when its timer says. So with two owners that go on, everything arrives without the timer; with one that stalls,
 * by the timer; and after a death what was placed before it is taken. That the check can fail is shown by devices that are
 * wrong: one that does not complete the write that rings, and one that hands a word on before what was written ahead of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/prng.h"
#include "rdma_no_device.h"

#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>

#define SEEDS         2000
#define TURNS         400
#define RING_SLOTS    128
#define DEPTH         24
#define IN_FLIGHT_MAX 512
#define DONE_MAX      512
#define LOOK_FD(end)  (1000 + (int)(end)) /* never a descriptor: the timer calls below are this file's */

typedef enum defect { RIGHT, RING_UNTOLD, WORD_AHEAD } defect_t;

/* What is on its way. All of one end's arrives in the order in which it was posted. */
typedef enum kind { PLACE, IMMEDIATE, WORD, POSTED } kind_t;
typedef struct flight {
    uint64_t at_ns;
    kind_t kind;
    uint64_t to;         /* PLACE: address */
    const uint8_t *from; /* ... of bytes that the device reads when it sends; NULL: they are in `bytes` */
    uint32_t size;
    uint8_t bytes[RDMA_INLINE_DEFAULT];
} flight_t;

/* What the completion queue holds. */
typedef struct done {
    kind_t kind;
    rf_slot_t word;
} done_t;

typedef struct end {
    rdma_endpoint_t endpoint;
    rdma_device_t device;
    rdma_path_t path;
    rdma_link_t *link;
    flight_t flights[IN_FLIGHT_MAX]; /* from here to the other */
    unsigned first, n;
    uint64_t last_ns; /* the latest of them */
    done_t done[DONE_MAX];
    unsigned n_done;
    bool told;        /* the channel says that a completion came */
    uint64_t look_ns; /* the timer; RF_NEVER */
    bool asleep, dead;
    uint64_t stalled_until_ns;
    uint64_t sent, taken; /* slots, numbered */
    unsigned sleeps, looks;
} end_t;

static end_t ends[2];
static uint64_t now_ns;
static rf_prng_t prng;
static defect_t defect;
static uint64_t delay_max_ns, pace_ns; /* of the device, and of the owners */
static uint32_t depth;                 /* of the queue pairs */

static uint64_t up_to(uint64_t n)
{
    return rf_prng_below(&prng, n);
}

static bool one_in(unsigned n)
{
    return up_to(n) == 0;
}

static end_t *end_of_path(const rdma_path_t *path)
{
    return path == &ends[0].path ? &ends[0] : &ends[1];
}

static end_t *other(const end_t *e)
{
    return e == &ends[0] ? &ends[1] : &ends[0];
}

/* --- the device --------------------------------------------------------------------------------------------- */

static flight_t *depart(end_t *e, kind_t kind)
{
    assert_true(e->n < IN_FLIGHT_MAX);
    uint64_t at = now_ns + 1 + up_to(delay_max_ns);
    if (one_in(16)) at += up_to(20 * delay_max_ns);
    e->last_ns = at > e->last_ns ? at : e->last_ns;
    flight_t *flight = &e->flights[(e->first + e->n++) % IN_FLIGHT_MAX];
    flight->at_ns = e->last_ns;
    flight->kind = kind;
    flight->size = 0;
    return flight;
}

static void complete(end_t *e, kind_t kind, const void *word)
{
    if (e->dead) return;
    assert_true(e->n_done < DONE_MAX);
    done_t *done = &e->done[e->n_done++];
    done->kind = kind;
    if (word) memcpy(&done->word, word, sizeof done->word);
    if (e->device.notify) e->told = true;
}

static void arrive(end_t *from, const flight_t *flight)
{
    end_t *to = other(from);
    switch (flight->kind) {
    case PLACE:
        /* Each slot with its control word last, as a device that places in order does. */
        memcpy((void *)(uintptr_t)flight->to, flight->from ? flight->from : flight->bytes, flight->size);
        break;
    case IMMEDIATE:
        if (defect == RING_UNTOLD && one_in(2)) break;
        complete(to, IMMEDIATE, NULL);
        break;
    case WORD:
        complete(to, WORD, flight->bytes);
        break;
    case POSTED:
        complete(from, POSTED, NULL);
        break;
    }
}

/* Of end `e`: the next thing that happens by itself. */
static uint64_t next_of(const end_t *e)
{
    return e->n ? e->flights[e->first].at_ns : RF_NEVER;
}

static void land_one(end_t *e)
{
    flight_t flight = e->flights[e->first];
    e->first = (e->first + 1) % IN_FLIGHT_MAX;
    e->n--;
    arrive(e, &flight);
}

/* What stands in for device.c and path.c, as far as an end that is up calls it. */

bool rdma_device_drain(rdma_device_t *device)
{
    end_t *e = device == &ends[0].device ? &ends[0] : &ends[1];
    unsigned n = e->n_done;
    if (device->draining) return false;
    device->looked = device->notify;
    if (n == 0) return false;
    device->draining = true;
    for (unsigned i = 0; i < e->n_done; i++) {
        done_t done = e->done[i];
        if (done.kind == POSTED) e->path.completed++;
        if (done.kind == IMMEDIATE) rdma_sleep_rung(&e->path.sleep);
        if (done.kind == WORD)
            rdma_link_message(e->link, &e->path, (const uint8_t *)&done.word, sizeof done.word);
    }
    e->n_done = 0;
    device->draining = false;
    return true;
}

void rdma_device_arm(rdma_device_t *device)
{
    if (!device->notify) device->looked = false;
    device->notify = true;
}

void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n)
{
    end_t *e = end_of_path(path);
    assert_true(n <= rdma_path_room(path));
    path->posted += n;
    for (unsigned i = 0; i < n; i++) {
        const struct ibv_send_wr *request = &requests[i];
        flight_t *place = depart(e, PLACE);
        place->to = request->wr.rdma.remote_addr;
        place->size = request->sg_list->length;
        place->from = (const uint8_t *)(uintptr_t)request->sg_list->addr;
        if (request->send_flags & IBV_SEND_INLINE) {
            assert_true(place->size <= sizeof place->bytes);
            memcpy(place->bytes, place->from, place->size);
            place->from = NULL;
        }
        if (request->opcode == IBV_WR_RDMA_WRITE_WITH_IMM) depart(e, IMMEDIATE);
        depart(e, POSTED);
    }
}

bool rdma_path_say(rdma_path_t *path, const path_word_t *word)
{
    end_t *e = end_of_path(path);
    if (rdma_path_room(path) == 0) return false;
    path->posted++;
    rf_slot_t slot = {.control = rf_control_make(RDMA_WORD, sizeof *word, false, 0)};
    memcpy(slot.payload, word, sizeof *word);
    if (defect == WORD_AHEAD && word->flags == RDMA_WORD_GRANT) {
        complete(other(e), WORD, &slot);
    } else {
        memcpy(depart(e, WORD)->bytes, &slot, sizeof slot);
    }
    depart(e, POSTED);
    return true;
}

rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out)
{
    (void)ep, (void)route, (void)out;
    return RF_ERR_NOT_FOUND;
}

rf_err_t rdma_path_make(path_lane_t *lane, const rdma_place_t *place, rdma_path_t **out)
{
    (void)lane, (void)place, (void)out;
    return RF_ERR_OS;
}

void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    (void)path, (void)out;
}

rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer)
{
    (void)path, (void)peer;
    return RF_ERR_OS;
}

void rdma_path_kill(rdma_path_t *path)
{
    (void)path;
}

void rdma_path_broken(rdma_path_t *path)
{
    (void)path;
    fail_msg("a path breaks");
}

int timerfd_settime(int fd, int flags, const struct itimerspec *at, struct itimerspec *before)
{
    (void)flags, (void)before;
    uint64_t ns = (uint64_t)at->it_value.tv_sec * RF_NS_PER_S + (uint64_t)at->it_value.tv_nsec;
    ends[fd - LOOK_FD(0)].look_ns = now_ns + ns;
    return 0;
}

/* --- the ends ----------------------------------------------------------------------------------------------- */

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)info;
    assert_int_not_equal(event, RF_LINK_DEAD);
}

static void end_begin(unsigned i, bool iwarp)
{
    end_t *e = &ends[i];
    memset(e, 0, sizeof *e);
    e->look_ns = RF_NEVER;
    path_endpoint_t *ep = &e->endpoint.base;
    ep->head.transport = &rf_transport_rdma;
    ep->medium = &rdma_medium;
    ep->on_event = on_event;
    ep->deadline_ns = PATH_DEADLINE_NS_DEFAULT;
    ep->timer_ns = e->endpoint.destroy_ns = RF_NEVER;
    ep->epoll = ep->kick = -1;
    e->endpoint.look = LOOK_FD(i);
    e->device = (rdma_device_t){.endpoint = &e->endpoint, .iwarp = iwarp};
    path_link_t *base = path_link_new(ep, &(rf_link_params_t){.slots = RING_SLOTS, .slots_max = RING_SLOTS});
    assert_non_null(base);
    base->dialer = i == 0;
    base->was_up = true;
    base->head.state = RF_LINK_STATE_UP;
    path_lane_t *lane = &base->lanes[PATH_LANE_SLOTS];
    lane->generation = 1;
    lane->stage = PATH_UP;
    e->link = rdma_link_of(base);
    e->link->device = &e->device;
    e->link->paths[PATH_LANE_SLOTS] = &e->path;
    e->path = (rdma_path_t){.device = &e->device,
                            .lane = lane,
                            .written = true,
                            .depth = depth,
                            .inline_max = RDMA_INLINE_DEFAULT,
                            .inline_size = one_in(2) ? 0 : RDMA_INLINE_DEFAULT,
                            .ring_mr = &registered,
                            .ring_slots = RING_SLOTS};
    e->path.ring.base = aligned_alloc(RF_PAGE, 4 * RF_PAGE);
    assert_non_null(e->path.ring.base);
    memset(e->path.ring.base, 0, 4 * RF_PAGE);
}

static void join(end_t *e)
{
    rdma_path_info_t *peer = &e->path.peer;
    *peer = (rdma_path_info_t){.messages = RDMA_MESSAGES, .slots_max = RING_SLOTS, .ring_slots = RING_SLOTS};
    peer->ring = (uintptr_t)other(e)->path.ring.base;
    peer->line = peer->ring + RING_SLOTS * sizeof(rf_slot_t);
    peer->ring_key = peer->line_key = 1;
}

static void end_over(end_t *e)
{
    e->link->paths[PATH_LANE_SLOTS] = NULL;
    path_endpoint_enter(&e->endpoint.base);
    path_link_bury(&e->link->base);
    path_endpoint_leave(&e->endpoint.base);
    free(e->path.ring.base);
}

static void send_some(end_t *e)
{
    rf_slot_t slots[40];
    unsigned n = 1 + (unsigned)up_to(sizeof slots / sizeof *slots);
    for (unsigned i = 0; i < n; i++) {
        uint64_t number = e->sent + i;
        slots[i] = (rf_slot_t){.control = rf_control_make(1, sizeof number, false, 0)};
        memcpy(slots[i].payload, &number, sizeof number);
    }
    e->sent += path_send(&e->link->base.head, slots, n);
    rdma_flush(&e->link->base.head);
}

static unsigned take_some(end_t *e)
{
    rf_slot_t slots[64];
    unsigned n = rdma_poll(&e->link->base.head, slots, 1 + (unsigned)up_to(sizeof slots / sizeof *slots));
    for (unsigned i = 0; i < n; i++) {
        uint64_t number;
        memcpy(&number, slots[i].payload, sizeof number);
        assert_int_equal(number, e->taken); /* once, and in order */
        e->taken++;
    }
    assert_null(e->link->base.wrong);
    return n;
}

/* What progress() does for a link that is up. */
static void progress(end_t *e)
{
    e->endpoint.base.attention = false;
    rdma_link_hear(&e->link->base);
    path_endpoint_enter(&e->endpoint.base);
    if (e->link->base.attention) path_link_settle(&e->link->base);
    path_endpoint_leave(&e->endpoint.base);
}

/* One turn of an owner: true: it did something, or found something. Like transport/wait.c it arms before it sleeps. */
static bool turn(end_t *e, bool sends)
{
    if (e->dead || now_ns < e->stalled_until_ns) return false;
    if (e->asleep) {
        bool look = now_ns >= e->look_ns;
        bool wants_to_send = sends && one_in(4);
        if (!e->told && !look && !wants_to_send) return false;
        if (look) {
            e->look_ns = RF_NEVER;
            e->looks++;
            rdma_ring_looked(&e->endpoint);
        }
        e->told = e->device.notify = e->device.looked = e->asleep = false;
        rdma_disarm(&e->link->base.head);
    }
    bool any = take_some(e) > 0;
    progress(e);
    if (sends && one_in(3)) send_some(e), any = true;
    if (any) return true;
    rdma_arm(&e->link->base.head);
    if (rdma_ready(&e->link->base.head)) {
        rdma_disarm(&e->link->base.head);
        return true;
    }
    e->asleep = true;
    e->sleeps++;
    return true;
}

/* Lets time pass until the next thing happens; timers count if `looks`. False: nothing will. */
static bool pass(bool looks)
{
    uint64_t at = RF_NEVER, landing = RF_NEVER;
    end_t *next = NULL;
    for (unsigned i = 0; i < 2; i++) {
        end_t *e = &ends[i];
        if (next_of(e) < landing) landing = next_of(e), next = e;
        if (looks && e->asleep && !e->dead && e->look_ns < at) at = e->look_ns;
        if (e->stalled_until_ns > now_ns && e->stalled_until_ns < at) at = e->stalled_until_ns;
    }
    if (landing <= at) at = landing;
    if (at == RF_NEVER) return false;
    now_ns = at > now_ns ? at : now_ns;
    if (next && landing <= now_ns) land_one(next);
    return true;
}

/* Until both owners sleep and nothing is on its way. */
static void settle(bool looks)
{
    for (unsigned i = 0; i < 1000000; i++) {
        bool any = turn(&ends[0], false);
        any |= turn(&ends[1], false);
        if (!any && !pass(looks)) return;
        if (looks && ends[0].taken == ends[1].sent && ends[1].taken == ends[0].sent) return;
    }
    fail_msg("no end of it at %llu ns", (unsigned long long)now_ns);
}

static void begin(uint64_t seed, bool iwarp)
{
    rf_prng_seed(&prng, seed);
    now_ns = 1000;
    delay_max_ns = 1 + up_to(20000);
    pace_ns = 1ull << up_to(16);
    depth = one_in(3) ? 1 + (uint32_t)up_to(4) : DEPTH; /* where a queue pair is full, words wait, too */
    end_begin(0, iwarp);
    end_begin(1, iwarp);
    join(&ends[0]);
    join(&ends[1]);
}

static void work(unsigned turns, bool stalls)
{
    for (unsigned i = 0; i < turns; i++) {
        end_t *e = &ends[up_to(2)];
        turn(e, true);
        if (stalls && one_in(40)) e->stalled_until_ns = now_ns + up_to(5 * RF_NS_PER_MS);
        now_ns += up_to(pace_ns);
        while (next_of(&ends[0]) <= now_ns) land_one(&ends[0]);
        while (next_of(&ends[1]) <= now_ns) land_one(&ends[1]);
    }
}

static void over(void)
{
    end_over(&ends[0]);
    end_over(&ends[1]);
}

static bool all_arrived(void)
{
    return ends[0].taken == ends[1].sent && ends[1].taken == ends[0].sent;
}

/* --- tests -------------------------------------------------------------------------------------------------- */

static void nobody_sleeps_on_slots(void **state)
{
    (void)state;
    unsigned sleeps = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed, seed % 3 == 0);
        work(TURNS, false);
        settle(false);
        if (!all_arrived()) fail_msg("seed %llu: an end sleeps on slots", (unsigned long long)seed);
        sleeps += ends[0].sleeps + ends[1].sleeps;
        over();
    }
    assert_true(sleeps > 10 * SEEDS);
}

static void who_is_not_granted_looks_by_itself(void **state)
{
    (void)state;
    unsigned looks = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed, seed % 3 == 0);
        work(TURNS, true);
        /* One sends, and does something else for long: what it has written arrives all the same. */
        end_t *sender = &ends[up_to(2)], *receiver = other(sender);
        sender->stalled_until_ns = receiver->stalled_until_ns = 0;
        sender->asleep = false;
        send_some(sender);
        uint64_t written = sender->link->base.posted;
        sender->stalled_until_ns = now_ns + RF_NS_PER_S;
        uint64_t until = now_ns + RF_NS_PER_S / 2;
        while (receiver->taken < written && now_ns < until) {
            if (!turn(receiver, false) && !pass(true)) break;
        }
        if (receiver->taken < written)
            fail_msg("seed %llu: %llu of %llu slots that were written", (unsigned long long)seed,
                     (unsigned long long)receiver->taken, (unsigned long long)written);
        looks += receiver->looks;
        settle(true);
        assert_true(all_arrived());
        over();
    }
    assert_true(looks > 0);
}

static void what_was_placed_before_a_death_is_taken(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        begin(seed, seed % 3 == 0);
        work((unsigned)up_to(TURNS), one_in(2));
        end_t *dead = &ends[up_to(2)], *left = other(dead);
        dead->dead = true;
        left->stalled_until_ns = 0;
        for (uint64_t n = up_to(dead->n + 1); n > 0; n--) land_one(dead); /* ... of what it had posted */
        dead->n = 0;
        uint64_t placed = left->link->base.accepted;
        const rf_slot_t *ring = (const rf_slot_t *)(const void *)left->path.ring.base;
        for (;; placed++) {
            uint64_t number = placed - left->path.ring_first, control = ring[number % RING_SLOTS].control;
            if ((control & RF_CONTROL_PARITY) != rdma_ring_parity(number, RING_SLOTS)) break;
        }
        /* The control link tells of the death, and that wakes who sleeps. */
        left->told = true;
        left->link->base.lanes[PATH_LANE_SLOTS].failed = false;
        while (turn(left, false) && !left->asleep) {
        }
        if (left->taken < placed)
            fail_msg("seed %llu: %llu of %llu slots that were placed", (unsigned long long)seed,
                     (unsigned long long)left->taken, (unsigned long long)placed);
        over();
    }
}

/* With a device that is wrong, somebody sleeps on slots before long; so the tests above can fail. */
static void finds(defect_t which)
{
    bool found = false;
    defect = which;
    for (uint64_t seed = 1; seed <= SEEDS && !found; seed++) {
        begin(seed, false);
        work(TURNS, false);
        settle(false);
        found = !all_arrived();
        over();
    }
    defect = RIGHT;
    assert_true(found);
}

static void a_ring_that_is_not_told_is_found(void **state)
{
    (void)state;
    finds(RING_UNTOLD);
}

static void a_word_ahead_of_slots_is_found(void **state)
{
    (void)state;
    finds(WORD_AHEAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_sleeps_on_slots),
        cmocka_unit_test(who_is_not_granted_looks_by_itself),
        cmocka_unit_test(what_was_placed_before_a_death_is_taken),
        cmocka_unit_test(a_ring_that_is_not_told_is_found),
        cmocka_unit_test(a_word_ahead_of_slots_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
