/*
 * A wire on which others write too. Frames that are forged, replayed, damaged, cut or of another life leave a flow as it was,
 * byte for byte, but for a counter; a peer that holds the key and breaks the rules ends the flow and no more.
 */
#include "dpdk_flow_check.h"
#include "dpdk_flow_net.h"

#include "base/assert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define US     RF_NS_PER_US
#define NOW    (5 * RF_NS_PER_MS)
#define FRAMES 64

typedef struct wire_frame {
    size_t size;
    uint8_t bytes[1472];
} wire_frame_t;

/* Two flows in the middle of their lives, with slots under way and missing, and what was said so far. */
typedef struct scene {
    rf_flow_t *flow, *peer;
    wire_frame_t came[FRAMES], lost[FRAMES]; /* at `flow` */
    unsigned n_came, n_lost;
} scene_t;

static rf_flow_t *flow_make(rf_seal_mode_t mode, bool dialer, uint8_t life)
{
    rf_flow_params_t params = net_params();
    params.seal = mode;
    params.id = dialer ? 1 : 2;
    params.id_peer = dialer ? 2 : 1;
    params.dialer = dialer;
    params.secret[31] = life;
    params.send_slots = params.receive_slots = params.credit = 64;
    rf_flow_t *flow;
    assert_int_equal(rf_flow_open(&params, 0, &flow), RF_OK);
    return flow;
}

static void write_slots(rf_flow_t *flow, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rf_slot_t *slots;
        if (rf_flow_send_span(flow, &slots) == 0) return;
        memset(slots, (int)i + 1, sizeof *slots);
        rf_flow_send_commit(flow, 1);
    }
}

/* Draws n random bytes. */
static void draw(rf_prng_t *prng, uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)rf_prng_next(prng);
}

static scene_t *scene_make(rf_seal_mode_t mode)
{
    scene_t *s = calloc(1, sizeof *s);
    rf_prng_t prng;
    assert_non_null(s);
    rf_prng_seed(&prng, 4);
    s->flow = flow_make(mode, true, 1);
    s->peer = flow_make(mode, false, 1);
    for (uint64_t now = 0; now < NOW && s->n_came < FRAMES - 8 && s->n_lost < FRAMES - 8; now += 20 * US) {
        uint8_t frame[1472];
        size_t size;
        const rf_slot_t *slots;
        write_slots(s->flow, (unsigned)rf_prng_below(&prng, 4));
        write_slots(s->peer, (unsigned)rf_prng_below(&prng, 4));
        while ((size = rf_flow_transmit(s->flow, frame, sizeof frame, now)) > 0)
            if (rf_prng_below(&prng, 4)) assert_int_equal(rf_flow_receive(s->peer, frame, size, now), RF_OK);
        for (unsigned i = 0; i < 4 && (size = rf_flow_transmit(s->peer, frame, sizeof frame, now)) > 0; i++) {
            bool lost = rf_prng_below(&prng, 4) == 0;
            wire_frame_t *copy = lost ? &s->lost[s->n_lost++] : &s->came[s->n_came++];
            copy->size = size;
            memcpy(copy->bytes, frame, size);
            if (!lost) assert_int_equal(rf_flow_receive(s->flow, frame, size, now), RF_OK);
        }
        rf_flow_take_commit(s->flow, rf_flow_take_span(s->flow, &slots) / 2);
        rf_flow_take_commit(s->peer, rf_flow_take_span(s->peer, &slots));
    }
    assert_true(s->n_came > 20 && s->n_lost > 3);
    flow_check(s->flow);
    flow_check(s->peer);
    return s;
}

static void scene_free(scene_t *s)
{
    rf_flow_close(s->flow);
    rf_flow_close(s->peer);
    free(s);
}

/* A copy of all that a flow is, without what it counts. */
static uint8_t *portrait(const rf_flow_t *flow)
{
    uint8_t *copy = malloc(flow->memory_size);
    assert_non_null(copy);
    memcpy(copy, flow, flow->memory_size);
    memset(copy + offsetof(rf_flow_t, stats), 0, sizeof flow->stats);
    return copy;
}

typedef struct watchman {
    const rf_flow_t *flow;
    uint8_t *before;
    uint64_t dropped;
} watchman_t;

static uint64_t dropped(const rf_flow_t *flow)
{
    rf_flow_stats_t stats;
    rf_flow_stats(flow, &stats);
    return stats.forged + stats.replayed + stats.stale + stats.truncated;
}

static watchman_t watchman(const rf_flow_t *flow)
{
    return (watchman_t){.flow = flow, .before = portrait(flow), .dropped = dropped(flow)};
}

/* The frame is refused, and nothing but one counter is other than before. */
static void refused(watchman_t *w, const uint8_t *frame, size_t size)
{
    uint8_t copy[RF_FLOW_FRAME_MAX + 64];
    memcpy(copy, frame, size);
    rf_err_t err = rf_flow_receive((rf_flow_t *)(uintptr_t)w->flow, copy, size, NOW + 1);
    assert_true(err == RF_ERR_AUTH || err == RF_ERR_EXISTS || err == RF_ERR_TRUNCATED);
    assert_int_equal(dropped(w->flow), ++w->dropped);
    uint8_t *after = portrait(w->flow);
    assert_memory_equal(w->before, after, w->flow->memory_size);
    free(after);
}

static void relieved(watchman_t *w)
{
    free(w->before);
}

static void each_mode(void (*test)(rf_seal_mode_t mode))
{
    test(RF_SEAL_SIGN);
    test(RF_SEAL_ENCRYPT);
}

static void replays(rf_seal_mode_t mode)
{
    scene_t *s = scene_make(mode);
    watchman_t w = watchman(s->flow);
    for (unsigned i = 0; i < s->n_came; i++) refused(&w, s->came[i].bytes, s->came[i].size);
    assert_int_equal(s->flow->stats.replayed, s->n_came);
    relieved(&w);
    scene_free(s);
}

static void damages(rf_seal_mode_t mode)
{
    scene_t *s = scene_make(mode);
    watchman_t w = watchman(s->flow);
    wire_frame_t *fresh = &s->lost[s->n_lost - 1]; /* never came: would be taken */
    for (size_t bit = 0; bit < 8 * fresh->size; bit++) {
        fresh->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        refused(&w, fresh->bytes, fresh->size);
        fresh->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < fresh->size; size++) refused(&w, fresh->bytes, size);
    uint8_t longer[RF_FLOW_FRAME_MAX + 64] = {0};
    memcpy(longer, fresh->bytes, fresh->size);
    for (size_t size = fresh->size + 1; size < sizeof longer; size += 61) refused(&w, longer, size);
    relieved(&w);
    assert_int_equal(rf_flow_receive(s->flow, fresh->bytes, fresh->size, NOW), RF_OK);
    scene_free(s);
}

static void forgeries(rf_seal_mode_t mode)
{
    scene_t *s = scene_make(mode);
    watchman_t w = watchman(s->flow);
    rf_prng_t prng;
    rf_prng_seed(&prng, 9);
    for (unsigned i = 0; i < 3000; i++) {
        uint8_t frame[64 + 3 * 64];
        size_t units = rf_prng_below(&prng, 4);
        draw(&prng, frame, sizeof frame);
        /* Half of them with a head that a flow could have written. */
        flow_head_t head = {
            .flow = 1, .format = FLOW_FORMAT, .flags = FLOW_FRAME_ACKS, .units = (uint16_t)units};
        head.number = s->flow->top + rf_prng_below(&prng, 1u << rf_prng_below(&prng, 31));
        head.next = (uint32_t)s->flow->sent;
        head.sequence = (uint32_t)s->flow->next;
        head.largest = (uint32_t)s->flow->number - 1;
        head.credit = (uint32_t)s->flow->credit + 10;
        if (i & 1) memcpy(frame, &head, sizeof head);
        refused(&w, frame, flow_frame_bytes(units));
    }
    assert_true(s->flow->stats.forged > 1000 && s->flow->stats.stale > 10 && s->flow->stats.truncated > 1000);
    relieved(&w);
    scene_free(s);
}

/* What another life of the same flow said, and what this end said itself. */
static void other_lives(rf_seal_mode_t mode)
{
    scene_t *s = scene_make(mode);
    rf_flow_t *before = flow_make(mode, false, 2);
    uint8_t frame[1472];
    write_slots(before, 30);
    before->number = s->flow->top; /* numbers that were not seen here */
    size_t size = rf_flow_transmit(before, frame, sizeof frame, NOW);
    assert_true(size > 0);
    watchman_t w = watchman(s->flow);
    refused(&w, frame, size);
    relieved(&w);

    write_slots(s->flow, 1);
    s->flow->probes = 1;
    size = rf_flow_transmit(s->flow, frame, sizeof frame, NOW);
    assert_true(size > 0);
    frame[0] = 1; /* to itself */
    w = watchman(s->flow);
    refused(&w, frame, size);
    relieved(&w);
    rf_flow_close(before);
    scene_free(s);
}

static void replays_change_nothing(void **state)
{
    (void)state;
    each_mode(replays);
}
static void damages_change_nothing(void **state)
{
    (void)state;
    each_mode(damages);
}
static void forgeries_change_nothing(void **state)
{
    (void)state;
    each_mode(forgeries);
}
static void other_lives_change_nothing(void **state)
{
    (void)state;
    each_mode(other_lives);
}

/* An authentic frame with this head, whose flow, format, number and units are put right. */
static rf_err_t says(scene_t *s, flow_head_t head, unsigned units)
{
    uint8_t frame[RF_FLOW_FRAME_MAX] = {0};
    head.flow = 1;
    head.format = FLOW_FORMAT;
    head.number = s->peer->number;
    head.units = (uint16_t)units;
    memcpy(frame, &head, sizeof head);
    assert_int_equal(seal_frame(&s->peer->sealer, frame, flow_frame_bytes(units), head.number), RF_OK);
    return rf_flow_receive(s->flow, frame, flow_frame_bytes(units), NOW);
}

static void rules_are_kept_or_it_ends(void **state)
{
    (void)state;
    for (unsigned wrong = 0; wrong <= 14; wrong++) {
        scene_t *s = scene_make(RF_SEAL_SIGN);
        const rf_flow_t *f = s->flow;
        flow_head_t head = {.flags = FLOW_FRAME_ACKS,
                            .sequence = (uint32_t)f->next,
                            .next = (uint32_t)f->base,
                            .credit = (uint32_t)f->credit,
                            .largest = (uint32_t)f->acked_top - 1};
        unsigned units = 1;
        switch (wrong) {
        case 0:
            break; /* nothing is wrong */
        case 1:
            head.flags |= 128;
            break;
        case 2:
            head.flags |= 16;
            break;
        case 3:
            head.next = (uint32_t)f->sent + 1;
            break;
        case 4:
            head.next = (uint32_t)f->base + INT32_MAX;
            break;
        case 5:
            head.largest = (uint32_t)f->number;
            break;
        case 6:
            head.largest = (uint32_t)f->number + INT32_MAX;
            break;
        case 7:
            head.largest = (uint32_t)-1;
            break; /* before frame 0 */
        case 8:
            head.largest = 3; /* older than what is known: not looked at */
            break;
        case 9:
            head.credit = (uint32_t)f->sent + RF_FLOW_SLOTS_MAX + 1;
            break;
        case 10:
            units = (unsigned)(f->credit_said - f->next) + 1;
            break;
        case 11:
            head.sequence = (uint32_t)f->credit_said;
            break;
        case 12:
            head.sequence = (uint32_t)-1;
            break; /* before slot 0 */
        case 13:
            head.flags |= FLOW_FRAME_PAD;
            break; /* without PING */
        case 14:
            head.sequence = (uint32_t)f->next + (1u << 31);
            break;
        }
        uint8_t *before = portrait(f);
        rf_err_t err = says(s, head, units);
        if (wrong == 0 || wrong == 8) {
            assert_int_equal(err, RF_OK);
            assert_int_equal(rf_flow_state(f), RF_OK);
        } else {
            assert_int_equal(err, RF_ERR_PROTOCOL);
            assert_int_equal(rf_flow_state(f), RF_ERR_PROTOCOL);
            uint8_t frame[1472], *after = portrait(f);
            ((rf_flow_t *)after)->over = RF_OK;
            ((rf_flow_t *)after)->next_ns = ((rf_flow_t *)before)->next_ns;
            assert_memory_equal(before, after, f->memory_size);
            assert_int_equal(rf_flow_transmit(s->flow, frame, sizeof frame, NOW), 0);
            assert_int_equal(rf_flow_next_ns(f), RF_NEVER);
            free(after);
        }
        free(before);
        flow_check(f);
        scene_free(s);
    }
}

/* Traffic goes on beside a flood: for each frame that is real, three that are not. */
static void flood_starves_nobody(void **state)
{
    (void)state;
    rf_flow_t *ends[2] = {flow_make(RF_SEAL_SIGN, true, 1), flow_make(RF_SEAL_SIGN, false, 1)};
    rf_prng_t prng;
    rf_prng_seed(&prng, 3);
    uint64_t taken = 0;
    wire_frame_t old[2] = {0};
    for (uint64_t now = 0; taken < 10000; now += US) {
        assert_true(now < RF_NS_PER_S);
        for (unsigned i = 0; i < 2; i++) {
            wire_frame_t frame, junk;
            write_slots(ends[i], 3);
            frame.size = rf_flow_transmit(ends[i], frame.bytes, sizeof frame.bytes, now);
            if (frame.size == 0) continue;
            junk = frame;
            junk.bytes[rf_prng_below(&prng, junk.size)] ^= 0x55;
            rf_flow_receive(ends[i ^ 1], junk.bytes, junk.size, now);
            if (old[i].size) rf_flow_receive(ends[i ^ 1], old[i].bytes, old[i].size, now);
            old[i] = frame;
            assert_int_equal(rf_flow_receive(ends[i ^ 1], frame.bytes, frame.size, now), RF_OK);
            draw(&prng, junk.bytes, junk.size);
            rf_flow_receive(ends[i ^ 1], junk.bytes, junk.size, now);
            const rf_slot_t *slots;
            unsigned n = rf_flow_take_span(ends[i ^ 1], &slots);
            taken += n;
            rf_flow_take_commit(ends[i ^ 1], n);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        rf_flow_stats_t stats;
        rf_flow_stats(ends[i], &stats);
        assert_true(stats.forged > 100 && stats.replayed > 100 && stats.truncated > 100);
        assert_int_equal(stats.frames_lost, 0);
        flow_check(ends[i]);
        rf_flow_close(ends[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_change_nothing),    cmocka_unit_test(damages_change_nothing),
        cmocka_unit_test(forgeries_change_nothing),  cmocka_unit_test(other_lives_change_nothing),
        cmocka_unit_test(rules_are_kept_or_it_ends), cmocka_unit_test(flood_starves_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
