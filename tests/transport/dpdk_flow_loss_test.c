/* Flows over a network that loses, repeats, delays and reorders: everything once and in order, and not slowly. */
#include "dpdk_flow_net.h"

#include "base/assert.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MS RF_NS_PER_MS
#define US RF_NS_PER_US

static const net_knobs_t wire = {.delay_ns = 5 * US, .port_bps = 10000000000ull};

/* One pair sends `forth` and `back` slots; returns the digest of the run. */
static uint64_t run(uint64_t seed, const net_knobs_t *knobs, const rf_flow_params_t *params, uint64_t forth,
                    uint64_t back, rf_flow_stats_t *stats)
{
    net_t net;
    net_open(&net, seed, knobs, 1, params);
    net.hosts[0].to_send = forth;
    net.hosts[1].to_send = back;
    if (!net_run(&net, 60 * RF_NS_PER_S, true)) {
        print_error("seed %llu: taken %llu of %llu and %llu of %llu, flows %s and %s\n",
                    (unsigned long long)seed, (unsigned long long)net.hosts[1].taken,
                    (unsigned long long)forth, (unsigned long long)net.hosts[0].taken,
                    (unsigned long long)back, rf_err_name(rf_flow_state(net.hosts[0].flow)),
                    rf_err_name(rf_flow_state(net.hosts[1].flow)));
        fail();
    }
    rf_flow_stats(net.hosts[0].flow, stats);
    uint64_t digest = net.digest;
    net_close(&net);
    return digest;
}

/* Draws a network from the seed: each fault is there or not. */
static net_knobs_t knobs_draw(uint64_t seed)
{
    rf_prng_t prng;
    rf_prng_seed(&prng, seed * 77 + 1);
    static const uint32_t losses[] = {0, 1000, 10000, 100000, 250000};
    net_knobs_t k = {.delay_ns = 1 * US + rf_prng_below(&prng, 50 * US), .late_ns = 100 * US};
    k.port_bps = rf_prng_below(&prng, 2) ? 10000000000ull : 1000000000ull;
    for (unsigned i = 0; i < 2; i++) { /* each way its own */
        k.loss[i] = losses[rf_prng_below(&prng, 5)];
        k.repeat[i] = rf_prng_below(&prng, 2) ? 50000 : 0;
        k.late[i] = rf_prng_below(&prng, 2) ? 50000 : 0;
    }
    if (rf_prng_below(&prng, 2)) k.jitter_ns = 20 * US;
    if (rf_prng_below(&prng, 3) == 0) {
        k.burst = 5000;
        k.burst_ns = 300 * US;
    }
    if (rf_prng_below(&prng, 3) == 0) k.flip = k.cut = 20000;
    if (rf_prng_below(&prng, 3) == 0) {
        k.queue_bps = 500000000ull;
        k.queue_bytes = 20000;
    }
    return k;
}

static rf_flow_params_t params_draw(uint64_t seed)
{
    rf_prng_t prng;
    rf_prng_seed(&prng, seed * 99 + 5);
    rf_flow_params_t p = net_params();
    p.seal = rf_prng_below(&prng, 2) ? RF_SEAL_SIGN : RF_SEAL_ENCRYPT;
    p.send_slots = 64u << rf_prng_below(&prng, 5);
    p.receive_slots = p.credit = 64u << rf_prng_below(&prng, 5);
    p.frame_safe = 0;
    p.frame_max = rf_prng_below(&prng, 2) ? 1472 : 8972;
    p.deadline_ns = 20 * RF_NS_PER_S;
    return p;
}

static unsigned seeds_wanted(void)
{
    const char *text = getenv("RF_SEEDS");
    return text ? (unsigned)strtoul(text, NULL, 10) : 1000;
}

static void once_and_in_order(void **state)
{
    (void)state;
    uint64_t lost = 0, resent = 0, spurious = 0;
    for (uint64_t seed = 1; seed <= seeds_wanted(); seed++) {
        net_knobs_t knobs = knobs_draw(seed);
        rf_flow_params_t params = params_draw(seed);
        rf_flow_stats_t stats;
        run(seed, &knobs, &params, 200 + seed % 1500, seed % 3 ? seed % 900 : 0, &stats);
        lost += stats.frames_lost;
        resent += stats.slots_resent;
        spurious += stats.frames_spurious;
    }
    print_message("%llu frames lost, %llu of them not; %llu slots sent again\n", (unsigned long long)lost,
                  (unsigned long long)spurious, (unsigned long long)resent);
    assert_true(lost > 0 && resent > 0 && spurious > 0);
}

static void replays_to_the_bit(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        net_knobs_t knobs = knobs_draw(seed);
        rf_flow_params_t params = params_draw(seed);
        rf_flow_stats_t stats;
        uint64_t digest = run(seed, &knobs, &params, 1000, 500, &stats);
        assert_int_equal(digest, run(seed, &knobs, &params, 1000, 500, &stats));
        assert_int_not_equal(digest, run(seed + 1000, &knobs, &params, 1000, 500, &stats));
    }
}

/* Virtual nanoseconds that 100,000 slots take with these parameters. */
static uint64_t time_with_ns(rf_flow_params_t params, net_knobs_t knobs, rf_flow_stats_t *stats)
{
    net_t net;
    net_open(&net, 42, &knobs, 1, &params);
    net.hosts[0].to_send = 100000;
    assert_true(net_run(&net, 60 * RF_NS_PER_S, true));
    rf_flow_stats(net.hosts[0].flow, stats);
    uint64_t ns = net.hosts[1].done_ns;
    net_close(&net);
    return ns;
}

static uint64_t time_ns(net_knobs_t knobs, rf_flow_stats_t *stats)
{
    return time_with_ns(net_params(), knobs, stats);
}

static void goodput_under_loss(void **state)
{
    (void)state;
    rf_flow_stats_t stats;
    uint64_t clean_ns = time_ns(wire, &stats);
    print_message("no loss: %.2f Gb/s of slots\n", 100000 * 64 * 8.0 / (double)clean_ns);
    assert_int_equal(stats.frames_lost, 0);
    assert_int_equal(stats.probes_sent, 0);
    assert_true(100000 * 64 * 8.0 / (double)clean_ns > 8.0); /* of 10 */
    static const struct {
        uint32_t loss;
        unsigned percent; /* of the goodput without loss */
    } steps[] = {{1000, 90}, {10000, 70}, {100000, 30}};
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        net_knobs_t knobs = wire;
        knobs.loss[0] = knobs.loss[1] = steps[i].loss;
        uint64_t ns = time_ns(knobs, &stats);
        print_message("loss of %.1f %%: %.0f %% of that, %llu slots again, %llu frames not lost after all\n",
                      steps[i].loss / 1e4, 100.0 * (double)clean_ns / (double)ns,
                      (unsigned long long)stats.slots_resent, (unsigned long long)stats.frames_spurious);
        assert_true(100 * clean_ns > steps[i].percent * ns);
    }
}

/* A twentieth of the frames is lost, so many in a row, whoever sends them: what is sent to find out counts too. */
static void goodput_under_bursts(void **state)
{
    (void)state;
    rf_flow_stats_t stats;
    uint64_t clean_ns = time_ns(wire, &stats);
    static const struct {
        uint32_t row;
        unsigned percent; /* of the goodput without loss */
    } steps[] = {{2, 80}, {5, 45}, {10, 40}, {20, 35}};
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        net_knobs_t knobs = wire;
        knobs.row = steps[i].row;
        knobs.row_every = 20 * steps[i].row;
        uint64_t ns = time_ns(knobs, &stats);
        print_message("loss of 5 %%, %u in a row: %.0f %% of the goodput, %llu slots again, %llu probes\n",
                      steps[i].row, 100.0 * (double)clean_ns / (double)ns,
                      (unsigned long long)stats.slots_resent, (unsigned long long)stats.probes_sent);
        assert_true(100 * clean_ns > steps[i].percent * ns);
    }
}

/* Frames that overtake each other are not sent again and again: the flow learns how far they do. */
static void reordering_is_learnt(void **state)
{
    (void)state;
    net_knobs_t knobs = wire;
    knobs.late[0] = 200000;
    knobs.late_ns = 15 * US;
    rf_flow_stats_t stats;
    uint64_t clean_ns = time_ns(wire, &stats), ns = time_ns(knobs, &stats);
    print_message("a fifth overtaken: %.0f %% of the goodput, %llu slots of 100000 again\n",
                  100.0 * (double)clean_ns / (double)ns, (unsigned long long)stats.slots_resent);
    assert_true(stats.slots_resent < 3000);
    assert_true(100 * clean_ns > 60 * ns);
}

/* A receiver that is on its CPU half of the time: silence of that kind is no congestion, and no smaller path. */
static void slow_receiver(void **state)
{
    (void)state;
    net_knobs_t knobs = wire;
    rf_flow_stats_t stats;
    rf_flow_params_t params = net_params();
    params.frame_safe = 0;
    params.frame_max = 8972;
    uint64_t clean_ns = time_with_ns(params, wire, &stats);
    knobs.stall_every_ns = 4 * MS;
    knobs.stall_ns = 2 * MS;
    uint64_t ns = time_with_ns(params, knobs, &stats);
    print_message(
        "a receiver that runs half of the time: %.0f %% of the goodput, %llu probes, %llu slots again\n",
        100.0 * (double)clean_ns / (double)ns, (unsigned long long)stats.probes_sent,
        (unsigned long long)stats.slots_resent);
    assert_true(100 * clean_ns > 40 * ns);
    assert_int_equal(stats.frame_bytes, 64 + 139 * 64);
    assert_true(stats.probes_sent > 0);
}

/* Both ends share their CPUs with others, and run together a tenth of the time: what is waited for a host is not taken for a busy
 * path, where the host says how long it was away. */
static void ends_that_share_their_cpus(void **state)
{
    (void)state;
    net_knobs_t knobs = wire;
    rf_flow_stats_t stats;
    uint64_t clean_ns = time_ns(wire, &stats);
    knobs.stall_every_ns = 200 * US;
    knobs.stall_ns = 120 * US;
    knobs.stall_both = true;
    uint64_t blind_ns = time_ns(knobs, &stats);
    knobs.stall_seen = true;
    uint64_t ns = time_ns(knobs, &stats);
    print_message(
        "both ends run two fifths of the time: %.0f %% of the goodput, %.0f %% if they do not know it\n",
        100.0 * (double)clean_ns / (double)ns, 100.0 * (double)clean_ns / (double)blind_ns);
    assert_true(100 * clean_ns > 25 * ns);
}

/* Only acknowledgements are lost: next to nothing is sent again. */
static void lost_acknowledgements(void **state)
{
    (void)state;
    net_knobs_t knobs = wire;
    knobs.loss[1] = 300000;
    rf_flow_stats_t stats;
    uint64_t clean_ns = time_ns(wire, &stats), ns = time_ns(knobs, &stats);
    print_message("three tenths of the acknowledgements lost: %.0f %% of the goodput, %llu slots again\n",
                  100.0 * (double)clean_ns / (double)ns, (unsigned long long)stats.slots_resent);
    assert_true(stats.slots_resent < 2000);
    assert_true(100 * clean_ns > 70 * ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_and_in_order),          cmocka_unit_test(replays_to_the_bit),
        cmocka_unit_test(goodput_under_loss),         cmocka_unit_test(goodput_under_bursts),
        cmocka_unit_test(reordering_is_learnt),       cmocka_unit_test(slow_receiver),
        cmocka_unit_test(ends_that_share_their_cpus), cmocka_unit_test(lost_acknowledgements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
