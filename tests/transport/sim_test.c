/* The simulated network itself: equal runs, and what each knob does to links. Times are virtual, so they are exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define DELAY_NS    (50 * RF_NS_PER_US)
#define DEADLINE_NS (2 * RF_NS_PER_S)
#define NODES_MAX   6

static const rf_transport_t *const sim = &rf_transport_sim;

typedef struct node {
    rf_endpoint_t *endpoint;
    rf_link_t *links[NODES_MAX]; /* by peer */
    unsigned up, broken, dead;
    rf_err_t why;
    uint64_t up_ns, dead_ns, sent, got;
    struct net *net;
} node_t;

typedef struct net {
    rf_sim_network_t *network;
    node_t nodes[NODES_MAX];
    unsigned n;
} net_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    node_t *node = context;
    switch (event) {
    case RF_LINK_INCOMING:
        node->links[info->hello->core] = link;
        assert_int_equal(sim->accept(link, NULL), RF_OK);
        break;
    case RF_LINK_UP:
        node->up++;
        node->up_ns = rf_sim_now(node->net->network);
        break;
    case RF_LINK_BROKEN:
        node->broken++;
        break;
    case RF_LINK_DEAD:
        node->dead++;
        node->why = info->err;
        node->dead_ns = rf_sim_now(node->net->network);
        break;
    default:
        break;
    }
}

static net_t *net_open(uint64_t seed, unsigned n, const rf_sim_path_t *path)
{
    net_t *net = calloc(1, sizeof *net);
    assert_non_null(net);
    net->n = n;
    assert_int_equal(rf_sim_network_create(seed, path, &net->network), RF_OK);
    for (unsigned i = 0; i < n; i++) {
        char name[2] = {(char)('a' + i), 0};
        rf_endpoint_params_t params = {.on_event = on_event,
                                       .context = &net->nodes[i],
                                       .address = name,
                                       .deadline_ns = DEADLINE_NS,
                                       .medium = net->network};
        params.self.version_major = RF_VERSION_MAJOR;
        params.self.core = (rf_core_t)i;
        net->nodes[i].net = net;
        assert_int_equal(sim->endpoint_open(&params, &net->nodes[i].endpoint), RF_OK);
    }
    return net;
}

static void net_link(net_t *net, unsigned from, unsigned to)
{
    char name[2] = {(char)('a' + to), 0};
    rf_link_params_t params = {.address = name, .socket = -1};
    assert_int_equal(sim->connect(net->nodes[from].endpoint, &params, &net->nodes[from].links[to]), RF_OK);
}

static void net_close(net_t *net)
{
    for (unsigned i = 0; i < net->n; i++) sim->endpoint_close(net->nodes[i].endpoint);
    rf_sim_network_destroy(net->network);
    free(net);
}

/* Runs until `until_ns`; every endpoint that an event calls for makes progress and takes what came. */
static void run(net_t *net, uint64_t until_ns)
{
    rf_endpoint_t *endpoint;
    while ((endpoint = rf_sim_step_until(net->network, until_ns)) != NULL) {
        uint64_t next_ns;
        sim->endpoint_progress(endpoint, rf_sim_now(net->network), &next_ns);
        for (unsigned i = 0; i < net->n; i++) {
            node_t *node = &net->nodes[i];
            for (unsigned j = 0; node->endpoint == endpoint && j < net->n; j++) {
                rf_slot_t slots[16];
                if (node->links[j] && !node->dead) node->got += sim->poll(node->links[j], slots, 16);
            }
        }
    }
    assert_int_equal(rf_sim_now(net->network), until_ns);
}

static void send_some(net_t *net, unsigned from, unsigned to, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        rf_slot_t slot = {.words = {i}, .control = rf_control_make(1, 8, false, 0)};
        net->nodes[from].sent += sim->send(net->nodes[from].links[to], &slot, 1);
    }
    sim->flush(net->nodes[from].links[to]);
}

static uint64_t faulty_run(uint64_t seed, rf_sim_counts_t *counts)
{
    rf_sim_path_t path = {.delay_min_ns = 10000,
                          .delay_max_ns = 90000,
                          .loss_ppm = 100000,
                          .duplicate_ppm = 50000,
                          .reorder_ppm = 200000,
                          .reorder_ns_max = 300000};
    net_t *net = net_open(seed, NODES_MAX, &path);
    for (unsigned i = 0; i < NODES_MAX; i++)
        for (unsigned j = 0; j < i; j++) net_link(net, i, j);
    for (unsigned round = 1; round <= 50; round++) {
        run(net, round * RF_NS_PER_MS * 10);
        for (unsigned i = 0; i < NODES_MAX; i++) {
            unsigned to = (i + round) % NODES_MAX;
            if (to != i && net->nodes[i].links[to]) send_some(net, i, to, round % 7);
        }
    }
    run(net, 5 * RF_NS_PER_S);
    uint64_t sent = 0, got = 0;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        sent += net->nodes[i].sent;
        got += net->nodes[i].got;
        assert_int_equal(net->nodes[i].dead, 0);
    }
    assert_true(sent > 500);
    assert_int_equal(got, sent);
    rf_sim_counts(net->network, counts);
    uint64_t digest = rf_sim_digest(net->network);
    net_close(net);
    return digest;
}

static void one_seed_is_one_run(void **state)
{
    (void)state;
    rf_sim_counts_t first, again, other;
    uint64_t digest = faulty_run(7, &first);
    assert_int_equal(faulty_run(7, &again), digest);
    assert_memory_equal(&first, &again, sizeof first);
    assert_int_not_equal(faulty_run(8, &other), digest);
    assert_true(first.lost > 0 && first.duplicated > 0 && first.reordered > 0);
}

static void time_is_exact(void **state)
{
    (void)state;
    rf_sim_path_t path = {.delay_min_ns = DELAY_NS, .delay_max_ns = DELAY_NS};
    net_t *net = net_open(1, 2, &path);
    net_link(net, 0, 1);
    run(net, RF_NS_PER_MS);
    assert_int_equal(net->nodes[1].up_ns, DELAY_NS);     /* the hello */
    assert_int_equal(net->nodes[0].up_ns, 2 * DELAY_NS); /* and its answer */
    run(net, RF_NS_PER_S);
    rf_sim_counts_t before, after;
    rf_sim_counts(net->network, &before);
    run(net, 100 * RF_NS_PER_S);
    rf_sim_counts(net->network, &after);
    assert_int_equal(before.sent, after.sent); /* an idle link says nothing */
    net_close(net);
}

static void a_partition_heals_or_kills(void **state)
{
    (void)state;
    rf_sim_path_t path = {.delay_min_ns = DELAY_NS, .delay_max_ns = DELAY_NS};
    net_t *net = net_open(1, 2, &path);
    node_t *a = &net->nodes[0], *b = &net->nodes[1];
    net_link(net, 0, 1);
    run(net, RF_NS_PER_MS);
    /* One way only: what a says arrives, what b answers does not. */
    rf_sim_cut(net->network, b->endpoint, a->endpoint, false, true);
    send_some(net, 0, 1, 5);
    run(net, RF_NS_PER_S);
    assert_int_equal(b->got, 5);
    assert_int_equal(a->broken, 1);
    rf_sim_cut(net->network, b->endpoint, a->endpoint, false, false);
    run(net, 2 * RF_NS_PER_S);
    assert_int_equal(a->up, 2);
    assert_int_equal(a->dead + b->dead, 0);
    assert_int_equal(b->got, 5);
    /* Both ways, for good. */
    rf_sim_cut(net->network, a->endpoint, b->endpoint, true, true);
    send_some(net, 0, 1, 3);
    uint64_t cut_ns = rf_sim_now(net->network);
    run(net, cut_ns + 10 * RF_NS_PER_S);
    assert_int_equal(a->dead, 1);
    assert_int_equal(a->why, RF_ERR_PEER_DEAD);
    assert_true(a->dead_ns >= cut_ns + DEADLINE_NS && a->dead_ns <= cut_ns + DEADLINE_NS + RF_NS_PER_S);
    assert_int_equal(b->got, 5);
    net_close(net);
}

static void a_stalled_endpoint_comes_back(void **state)
{
    (void)state;
    rf_sim_path_t path = {.delay_min_ns = DELAY_NS, .delay_max_ns = DELAY_NS};
    net_t *net = net_open(1, 2, &path);
    net_link(net, 0, 1);
    run(net, RF_NS_PER_MS);
    rf_sim_stall(net->nodes[1].endpoint, true);
    send_some(net, 0, 1, 40);
    run(net, RF_NS_PER_S);
    assert_int_equal(net->nodes[1].got, 0);
    assert_false(sim->ready(net->nodes[1].links[0]));
    rf_sim_stall(net->nodes[1].endpoint, false);
    run(net, 2 * RF_NS_PER_S);
    assert_int_equal(net->nodes[1].got, 40);
    assert_int_equal(net->nodes[0].dead + net->nodes[1].dead, 0);
    net_close(net);
}

static void crashes(void **state)
{
    (void)state;
    for (unsigned host = 0; host < 2; host++) {
        rf_sim_path_t path = {.delay_min_ns = DELAY_NS, .delay_max_ns = DELAY_NS};
        net_t *net = net_open(1, 2, &path);
        node_t *a = &net->nodes[0];
        net_link(net, 0, 1);
        run(net, RF_NS_PER_MS);
        rf_sim_crash(net->nodes[1].endpoint, host);
        send_some(net, 0, 1, 1);
        run(net, 10 * RF_NS_PER_S);
        assert_int_equal(a->dead, 1);
        assert_int_equal(a->why, RF_ERR_PEER_DEAD);
        if (host)
            assert_true(a->dead_ns >= DEADLINE_NS);
        else
            assert_int_equal(a->dead_ns, RF_NS_PER_MS + 2 * DELAY_NS);
        assert_int_equal(net->nodes[1].dead, 0);
        net_close(net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_seed_is_one_run),
        cmocka_unit_test(time_is_exact),
        cmocka_unit_test(a_partition_heals_or_kills),
        cmocka_unit_test(a_stalled_endpoint_comes_back),
        cmocka_unit_test(crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
