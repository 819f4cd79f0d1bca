/* A flow's life: peers that fall silent and come back, credit, numbers that wrap, keys that change, the path's MTU, rest. */
#include "dpdk_flow_net.h"

#include "base/assert.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS RF_NS_PER_MS
#define US RF_NS_PER_US
#define S  RF_NS_PER_S

#define WAY_NS (4 * US)

static const net_knobs_t wire = {.delay_ns = 5 * US, .port_bps = 10000000000ull};

static rf_flow_stats_t stats_of(const net_t *net, unsigned host)
{
    rf_flow_stats_t stats;
    rf_flow_stats(net->hosts[host].flow, &stats);
    return stats;
}

/* Who sends to nobody knows it at the deadline, not before, and has tried again and again meanwhile. */
static void silence_is_death(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    net_t net;
    net_open(&net, 1, &wire, 1, &params);
    net.hosts[0].to_send = 100;
    assert_true(net_run(&net, 10 * MS, true));
    net.cut = true;
    net.hosts[0].to_send += 100;
    uint64_t from_ns = net.now_ns;
    net_run(&net, from_ns + S - 1, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_OK);
    net_run(&net, from_ns + S + MS, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_ERR_PEER_DEAD);
    assert_in_range(stats_of(&net, 0).probes_sent, 10, 60);
    assert_int_equal(rf_flow_next_ns(net.hosts[0].flow), RF_NEVER);
    assert_int_equal(rf_flow_state(net.hosts[1].flow), RF_OK); /* waits for nothing */
    net_close(&net);
}

/* A wire that is cut for less than the deadline, and heals. */
static void partition_heals(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    net_t net;
    net_open(&net, 2, &wire, 1, &params);
    net.hosts[0].to_send = net.hosts[1].to_send = 20000;
    net_run(&net, MS, false);
    assert_false(net_done(&net));
    net.cut = true;
    net_run(&net, net.now_ns + 900 * MS, false);
    net.cut = false;
    assert_true(net_run(&net, net.now_ns + 300 * MS, true));
    net_close(&net);
}

/* Idle flows send nothing and want to be called by nobody; watched ones ask four times a deadline. */
static void rest_and_watch(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    net_t net;
    net_open(&net, 3, &wire, 1, &params);
    net.hosts[0].to_send = 10;
    assert_true(net_run(&net, 10 * MS, true));
    net_run(&net, 20 * MS, false);
    uint64_t frames[2] = {net.hosts[0].frames, net.hosts[1].frames};
    assert_int_equal(rf_flow_next_ns(net.hosts[0].flow), RF_NEVER);
    assert_int_equal(rf_flow_next_ns(net.hosts[1].flow), RF_NEVER);
    net_run(&net, 100 * S, false);
    assert_int_equal(net.hosts[0].frames, frames[0]);
    assert_int_equal(net.hosts[1].frames, frames[1]);

    rf_flow_watch(net.hosts[0].flow, true, net.now_ns);
    net_run(&net, net.now_ns + 10 * S, false);
    assert_in_range(net.hosts[0].frames - frames[0], 35, 45);
    assert_in_range(net.hosts[1].frames - frames[1], 35, 45);
    net.cut = true;
    net_run(&net, net.now_ns + 1300 * MS, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_ERR_PEER_DEAD);
    net_close(&net);
}

/* A driver that was stopped for long does not find its peers dead before it has listened. */
static void stopped_is_not_silent(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    rf_flow_t *flow;
    params.id_peer = 2;
    assert_int_equal(rf_flow_open(&params, 0, &flow), RF_OK);
    rf_slot_t *slots;
    uint8_t frame[RF_FLOW_FRAME_MAX];
    assert_true(rf_flow_send_span(flow, &slots) > 0);
    slots[0] = (rf_slot_t){.control = 1};
    rf_flow_send_commit(flow, 1);
    assert_int_equal(rf_flow_transmit(flow, frame, sizeof frame, 0), 128);
    assert_true(rf_flow_transmit(flow, frame, sizeof frame, 60 * S) > 0); /* a probe */
    assert_int_equal(rf_flow_state(flow), RF_OK);
    uint64_t now_ns = 60 * S;
    while (rf_flow_state(flow) == RF_OK && now_ns < 70 * S) {
        now_ns = rf_flow_next_ns(flow) > now_ns ? rf_flow_next_ns(flow) : now_ns;
        rf_flow_transmit(flow, frame, sizeof frame, now_ns);
    }
    assert_int_equal(rf_flow_state(flow), RF_ERR_PEER_DEAD);
    assert_in_range(now_ns, 61 * S, 61 * S + MS);
    rf_flow_close(flow);
}

/* A receiver that takes slowly, or not at all for a while, holds the sender back by credit; news of it is not lost. */
static void credit_runs_out_and_comes_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        rf_flow_params_t params = net_params();
        params.receive_slots = params.credit = 64;
        net_knobs_t knobs = wire;
        if (seed % 2) knobs.loss[0] = knobs.loss[1] = 200000;
        net_t net;
        net_open(&net, seed, &knobs, 1, &params);
        net.hosts[0].to_send = 2000;
        net.hosts[1].take_every_ns = 30 * US;
        net.hosts[1].take_ns = 400 * MS; /* takes nothing before */
        net_run(&net, 300 * MS, false);
        rf_flow_stats_t stats = stats_of(&net, 0);
        assert_int_equal(stats.slots_sent, 64);
        assert_int_equal(stats.credit_stalls, 1);
        assert_int_equal(stats.slots_unacked, 0);
        assert_true(net_run(&net, 600 * MS, true));
        net_close(&net);
    }
}

/* A sender that waits for credit knows when the receiver has died. */
static void stalled_sender_sees_death(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    params.receive_slots = params.credit = 64;
    net_t net;
    net_open(&net, 5, &wire, 1, &params);
    net.hosts[0].to_send = 2000;
    net.hosts[1].take_ns = RF_NEVER;
    net_run(&net, 5 * S, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_OK); /* it answers */
    net.cut = true;
    net_run(&net, 7 * S, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_ERR_PEER_DEAD);
    net_close(&net);
}

/* Numbers of slots and frames go over 2^32 on a bad wire (unsealed: a real flow would have changed keys 4,096 times). */
static void numbers_wrap(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        rf_flow_params_t params = net_params();
        params.seal = RF_SEAL_NONE;
        net_knobs_t knobs = wire;
        knobs.loss[0] = knobs.loss[1] = 50000;
        knobs.late[0] = knobs.late[1] = 50000;
        knobs.repeat[0] = 50000;
        knobs.late_ns = 50 * US;
        net_t net;
        net_open(&net, seed, &knobs, 1, &params);
        net.hosts[0].to_send = net.hosts[1].to_send = 3000;
        uint64_t turn = seed % 2 ? 1ull << 32 : 1ull << 31;
        net_age(&net, turn - seed * 8, turn - seed % 60);
        assert_true(net_run(&net, S, true));
        assert_true(net.hosts[0].flow->number > turn);
        assert_true(net.hosts[0].flow->base > turn);
        net_close(&net);
    }
}

/* Keys change on a bad wire, in both directions. */
static void keys_change(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        rf_flow_params_t params = net_params();
        params.seal = seed % 2 ? RF_SEAL_SIGN : RF_SEAL_ENCRYPT;
        net_knobs_t knobs = wire;
        knobs.loss[0] = knobs.loss[1] = 50000;
        knobs.late[0] = knobs.late[1] = 50000;
        knobs.late_ns = 50 * US;
        net_t net;
        net_open(&net, seed, &knobs, 1, &params);
        net.hosts[0].to_send = net.hosts[1].to_send = 5000;
        net_age(&net, 0, (1ull << RF_SEAL_EPOCH_BITS) - seed);
        assert_true(net_run(&net, S, true));
        assert_int_equal(net.hosts[0].flow->opener.epoch, 1);
        assert_int_equal(net.hosts[1].flow->opener.epoch, 1);
        assert_int_equal(stats_of(&net, 0).forged + stats_of(&net, 1).forged, 0);
        assert_int_equal(stats_of(&net, 0).stale + stats_of(&net, 1).stale, 0);
        net_close(&net);
    }
}

/* No frame number is left: the flow is over before one is used twice. */
static void numbers_end(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    params.seal = RF_SEAL_NONE;
    net_t net;
    net_open(&net, 7, &wire, 1, &params);
    net.hosts[0].to_send = 10000;
    net_age(&net, 0, (1ull << 56) - 10);
    net_run(&net, S, false);
    assert_int_equal(rf_flow_state(net.hosts[0].flow), RF_ERR_LIMIT);
    assert_int_equal(net.hosts[0].flow->number, 1ull << 56);
    net_close(&net);
}

/* Frames grow to what the path takes; where it takes less than the port, they stay small, and where it changes they shrink. */
static void path_mtu(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    params.frame_safe = 0;
    params.frame_max = 8972;
    params.deadline_ns = 10 * S;
    net_t net;
    net_open(&net, 8, &wire, 1, &params);
    net.hosts[0].to_send = 1000;
    assert_true(net_run(&net, S, true));
    assert_int_equal(stats_of(&net, 0).frame_bytes, 64 + 139 * 64);
    net.knobs.path_bytes = 1472; /* a smaller way from now on */
    net.hosts[0].to_send += 3000;
    assert_true(net_run(&net, net.now_ns + S, true));
    assert_int_equal(stats_of(&net, 0).frame_bytes, RF_FLOW_FRAME_MIN);
    net_close(&net);

    net_knobs_t knobs = wire;
    knobs.path_bytes = 1472;
    net_open(&net, 9, &knobs, 1, &params);
    net.hosts[0].to_send = 5000;
    assert_true(net_run(&net, S, true));
    assert_int_equal(stats_of(&net, 0).frame_bytes, RF_FLOW_FRAME_MIN);
    assert_int_equal(stats_of(&net, 0).frames_lost, 0); /* those that were tried are no sign of congestion */
    net_close(&net);
}

/* A question and an answer of one slot each: two frames, no more: acknowledgements ride along. */
static void ping_pong_rides(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    net_t net;
    net_open(&net, 10, &wire, 1, &params);
    for (unsigned i = 0; i < 1000; i++) {
        net.hosts[0].to_send++;
        while (net.hosts[1].taken < net.hosts[0].to_send) net_run(&net, net.now_ns + US, false);
        net.hosts[1].to_send++;
        while (net.hosts[0].taken < net.hosts[1].to_send) net_run(&net, net.now_ns + US, false);
    }
    assert_in_range(net.hosts[0].frames, 1000, 1060);
    assert_in_range(net.hosts[1].frames, 1000, 1060); /* four a window are asked for at once */
    assert_int_equal(stats_of(&net, 0).probes_sent, 0);
    net_close(&net);
}

/* What `from` has to send comes to `to`, WAY_NS later; how many frames. */
static unsigned hand_over(rf_flow_t *from, rf_flow_t *to, uint64_t *now_ns)
{
    uint8_t frame[RF_FLOW_FRAME_MAX];
    const rf_slot_t *slots;
    unsigned n = 0, taken;
    for (size_t size; (size = rf_flow_transmit(from, frame, sizeof frame, *now_ns)) > 0; n++)
        assert_int_equal(rf_flow_receive(to, frame, size, *now_ns + WAY_NS), RF_OK);
    *now_ns += WAY_NS;
    while ((taken = rf_flow_take_span(to, &slots)) > 0) rf_flow_take_commit(to, taken);
    return n;
}

static void slot_put(rf_flow_t *flow)
{
    rf_slot_t *slots;
    assert_true(rf_flow_send_span(flow, &slots) > 0);
    rf_flow_send_commit(flow, 1);
}

/* Slots leave before the word that came with an acknowledgement is looked at. It counts from when it came, however late that is: by then
 * nobody probes for what it acknowledges, and nothing of it is lost. */
static void slots_go_before_bookkeeping(void **state)
{
    (void)state;
    uint8_t frame[RF_FLOW_FRAME_MAX];
    rf_flow_params_t params = net_params();
    rf_flow_t *ends[2];
    for (unsigned i = 0; i < 2; i++) {
        params.id = i + 1, params.id_peer = 2 - i, params.dialer = i == 0;
        assert_int_equal(rf_flow_open(&params, 0, &ends[i]), RF_OK);
    }
    uint64_t now_ns = S;
    rf_flow_stats_t stats;
    for (unsigned round = 0; round < 100; round++) {
        slot_put(ends[0]);
        assert_int_equal(hand_over(ends[0], ends[1], &now_ns), 1);
        slot_put(ends[1]); /* the acknowledgement rides along */
        assert_int_equal(hand_over(ends[1], ends[0], &now_ns), 1);
        assert_int_equal(ends[0]->in_flight, 1);
        now_ns += 100 * MS; /* far beyond any probe, within the deadline */
        slot_put(ends[0]);
        size_t size = rf_flow_transmit(ends[0], frame, sizeof frame, now_ns);
        assert_int_equal(size, RF_FLOW_OVERHEAD + sizeof(rf_slot_t));
        assert_int_equal(ends[0]->in_flight, 2);
        assert_int_equal(rf_flow_next_ns(ends[0]), 0);
        assert_int_equal(rf_flow_transmit(ends[0], frame + size, sizeof frame - size, now_ns), 0);
        assert_int_equal(ends[0]->in_flight, 1);
        now_ns += WAY_NS;
        assert_int_equal(rf_flow_receive(ends[1], frame, size, now_ns), RF_OK);
        slot_put(ends[1]);
        while (hand_over(ends[1], ends[0], &now_ns) + hand_over(ends[0], ends[1], &now_ns) > 0) now_ns += MS;
        rf_flow_stats(ends[0], &stats);
        assert_int_equal(stats.probes_sent + stats.frames_lost, 0);
        assert_int_equal(stats.rtt_ns, 2 * WAY_NS);
        assert_true(rf_flow_drained(ends[0]) && rf_flow_drained(ends[1]));
    }
    for (unsigned i = 0; i < 2; i++) rf_flow_close(ends[i]);
}

/* Who has always something to send, and is let send one frame at a time, hears of a silent peer at the deadline, however long all went well
 * before. */
static void busy_sender_sees_death(void **state)
{
    (void)state;
    uint8_t frame[RF_FLOW_FRAME_MAX];
    rf_flow_params_t params = net_params();
    rf_flow_t *ends[2];
    for (unsigned i = 0; i < 2; i++) {
        params.id = i + 1, params.id_peer = 2 - i, params.dialer = i == 0;
        assert_int_equal(rf_flow_open(&params, 0, &ends[i]), RF_OK);
    }
    uint64_t now_ns = S;
    for (unsigned turn = 0; turn < 50000; turn++) {
        rf_slot_t *slots;
        rf_flow_send_commit(ends[0], rf_flow_send_span(ends[0], &slots));
        size_t size = rf_flow_transmit(ends[0], frame, sizeof frame, now_ns);
        if (size > 0) assert_int_equal(rf_flow_receive(ends[1], frame, size, now_ns + WAY_NS), RF_OK);
        slot_put(ends[1]);
        now_ns += WAY_NS;
        hand_over(ends[1], ends[0], &now_ns);
        const rf_slot_t *taken;
        for (unsigned n; (n = rf_flow_take_span(ends[1], &taken)) > 0;) rf_flow_take_commit(ends[1], n);
        now_ns += 100 * US;
    }
    uint64_t silent_ns = now_ns;
    while (rf_flow_state(ends[0]) == RF_OK && now_ns < silent_ns + 10 * S) {
        (void)rf_flow_transmit(ends[0], frame, sizeof frame, now_ns);
        now_ns += MS;
    }
    assert_int_equal(rf_flow_state(ends[0]), RF_ERR_PEER_DEAD);
    assert_in_range(now_ns - silent_ns, S - MS, S + 3 * MS);
    for (unsigned i = 0; i < 2; i++) rf_flow_close(ends[i]);
}

/* Who only acknowledged for long, and used up thousands of numbers with that, can still send. */
static void acknowledging_keeps_no_place(void **state)
{
    (void)state;
    rf_flow_params_t params = net_params();
    net_knobs_t knobs = wire;
    for (unsigned bad = 0; bad < 2; bad++) {
        knobs.loss[0] = knobs.loss[1] = bad ? 20000 : 0;
        net_t net;
        net_open(&net, 12, &knobs, 1, &params);
        net.hosts[1].to_send = 10;
        assert_true(net_run(&net, RF_NS_PER_S, true));
        net.hosts[0].to_send = 800000;
        assert_true(net_run(&net, net.now_ns + RF_NS_PER_S, true));
        assert_true(net.hosts[1].frames > 3 * RF_FLOW_PACKETS_MAX / 2);
        net.hosts[1].to_send += 500;
        uint64_t from_ns = net.now_ns;
        assert_true(net_run(&net, from_ns + 20 * MS, true));
        net_close(&net);
    }
}

static void parameters_are_checked(void **state)
{
    (void)state;
    rf_flow_params_t good = net_params(), bad[12];
    for (unsigned i = 0; i < 12; i++) bad[i] = good;
    bad[0].send_slots = 32;
    bad[1].send_slots = 100;
    bad[2].receive_slots = 65536;
    bad[3].credit = RF_FLOW_SLOTS_MAX + 1;
    bad[4].frame_max = RF_FLOW_FRAME_MAX + 1;
    bad[5].frame_safe = RF_FLOW_FRAME_MIN - 1;
    bad[6].frame_safe = 1473;
    bad[7].deadline_ns = 0;
    bad[8].deadline_ns = UINT64_MAX;
    bad[9].ack_delay_ns = good.deadline_ns;
    bad[10].probe_min_ns = good.deadline_ns;
    bad[11].seal = (rf_seal_mode_t)3;
    rf_flow_t *flow = NULL;
    for (unsigned i = 0; i < 12; i++) assert_int_equal(rf_flow_open(&bad[i], 0, &flow), RF_ERR_INVALID);
    assert_null(flow);
    assert_int_equal(rf_flow_open(&good, 0, &flow), RF_OK);
    rf_flow_close(flow);
    rf_flow_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_death),
        cmocka_unit_test(partition_heals),
        cmocka_unit_test(rest_and_watch),
        cmocka_unit_test(stopped_is_not_silent),
        cmocka_unit_test(credit_runs_out_and_comes_back),
        cmocka_unit_test(stalled_sender_sees_death),
        cmocka_unit_test(numbers_wrap),
        cmocka_unit_test(keys_change),
        cmocka_unit_test(numbers_end),
        cmocka_unit_test(path_mtu),
        cmocka_unit_test(ping_pong_rides),
        cmocka_unit_test(slots_go_before_bookkeeping),
        cmocka_unit_test(busy_sender_sees_death),
        cmocka_unit_test(acknowledging_keeps_no_place),
        cmocka_unit_test(parameters_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
