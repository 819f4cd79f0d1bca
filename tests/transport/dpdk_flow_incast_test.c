/*
 * Many senders, one port: the queue of the switch stays short, nobody starves, the port is used. Rates of the virtual switch;
 * goodput of each sender over a time in which all send.
 */
#include "dpdk_flow_net.h"

#include "base/assert.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MS RF_NS_PER_MS
#define US RF_NS_PER_US

typedef struct incast {
    unsigned senders;
    uint64_t queue_bps, port_bps;
    uint32_t queue_bytes, frame_max;
    uint64_t apart_ns; /* between the starts of two senders */
    uint64_t warm_ns, ns;
    unsigned slowest_percent; /* at least, of the mean */
    unsigned used_percent;    /* of the switch's rate, by slots alone */
    uint32_t peak_bytes;      /* the queue was never longer, after all had started */
} incast_t;

static void incast_run(const incast_t *c)
{
    rf_flow_params_t params = net_params();
    params.frame_max = params.frame_safe = c->frame_max;
    net_knobs_t knobs = {.delay_ns = 5 * US,
                         .port_bps = c->port_bps,
                         .queue_bps = c->queue_bps,
                         .queue_bytes = c->queue_bytes};
    net_t net;
    net_open(&net, 11, &knobs, c->senders, &params);
    for (unsigned i = 0; i < c->senders; i++) {
        net.hosts[2 * i].to_send = UINT32_MAX;
        net.hosts[2 * i].starts_ns = i * c->apart_ns;
    }
    net_run(&net, c->warm_ns, false);
    uint64_t taken[NET_PAIRS_MAX], sum = 0, slowest = UINT64_MAX, fastest = 0, dropped = net.queue_dropped;
    uint64_t first_peak = net.queue_peak_bytes;
    net.queue_peak_bytes = 0;
    for (unsigned i = 0; i < c->senders; i++) taken[i] = net.hosts[2 * i + 1].taken;
    net_run(&net, c->warm_ns + c->ns, false);
    for (unsigned i = 0; i < c->senders; i++) {
        uint64_t n = net.hosts[2 * i + 1].taken - taken[i];
        sum += n;
        slowest = flow_min(slowest, n);
        fastest = flow_max(fastest, n);
        assert_int_equal(rf_flow_state(net.hosts[2 * i].flow), RF_OK);
    }
    uint64_t used = sum * 64 * 8 * 100 / (c->queue_bps / 1000000 * (c->ns / 1000));
    print_message("%2u to 1, %6.2f Gb/s, frames of %u: slowest %llu %%, fastest %llu %% of the mean; %llu %% "
                  "used; queue %llu KB "
                  "at first, then %llu KB; dropped %llu, then %llu\n",
                  c->senders, (double)c->queue_bps / 1e9, c->frame_max,
                  (unsigned long long)(slowest * c->senders * 100 / sum),
                  (unsigned long long)(fastest * c->senders * 100 / sum), (unsigned long long)used,
                  (unsigned long long)first_peak / 1024, (unsigned long long)net.queue_peak_bytes / 1024,
                  (unsigned long long)dropped, (unsigned long long)(net.queue_dropped - dropped));
    assert_true(slowest * c->senders * 100 >= sum * c->slowest_percent);
    assert_true(used >= c->used_percent);
    assert_true(net.queue_peak_bytes <= c->peak_bytes);
    net_close(&net);
}

static void eight_at_once(void **state)
{
    (void)state;
    static const incast_t cases[] = {
        {8, 10000000000ull, 10000000000ull, 1 << 20, 1472, 0, 500 * MS, 50 * MS, 50, 80, 128 << 10},
        {8, 10000000000ull, 10000000000ull, 1 << 20, 8972, 0, 500 * MS, 50 * MS, 50, 80, 512 << 10},
        {8, 1000000000ull, 10000000000ull, 1 << 20, 1472, 0, 500 * MS, 200 * MS, 50, 80, 96 << 10},
        {8, 100000000ull, 1000000000ull, 1 << 20, 1472, 0, 500 * MS, 2000 * MS, 50, 80, 48 << 10},
        {16, 10000000000ull, 25000000000ull, 1 << 20, 1472, 0, 500 * MS, 50 * MS, 50, 80, 192 << 10},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) incast_run(&cases[i]);
}

/* Those who come later have never seen the path empty. */
static void one_after_the_other(void **state)
{
    (void)state;
    static const incast_t cases[] = {
        {8, 10000000000ull, 10000000000ull, 1 << 20, 1472, 2 * MS, 500 * MS, 100 * MS, 50, 80, 256 << 10},
        {8, 1000000000ull, 10000000000ull, 1 << 20, 1472, 5 * MS, 500 * MS, 200 * MS, 50, 80, 192 << 10},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) incast_run(&cases[i]);
}

/* A switch with hardly any room: losses, but no collapse. */
static void shallow_switch(void **state)
{
    (void)state;
    static const incast_t cases[] = {
        {8, 10000000000ull, 10000000000ull, 32 << 10, 1472, 0, 500 * MS, 50 * MS, 50, 70, 32 << 10},
        {8, 1000000000ull, 10000000000ull, 16 << 10, 1472, 0, 500 * MS, 200 * MS, 50, 70, 16 << 10},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) incast_run(&cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_at_once),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(shallow_switch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
