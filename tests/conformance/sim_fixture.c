/*
 * The simulated network, in virtual time. CONFORMANCE_FAULTS: with loss, duplication and reordering on every path; the
 * same cases have to pass.
 */
#include "conformance.h"

#include "transport/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

static void sim_open(world_t *world)
{
    rf_sim_path_t path = {.delay_min_ns = 20 * RF_NS_PER_US, .delay_max_ns = 80 * RF_NS_PER_US};
#ifdef CONFORMANCE_FAULTS
    path.loss_ppm = 50000;
    path.duplicate_ppm = 30000;
    path.reorder_ppm = 100000;
    path.reorder_ns_max = 500 * RF_NS_PER_US;
#endif
    rf_sim_network_t *network;
    assert_int_equal(rf_sim_network_create(42, &path, &network), RF_OK);
    world->medium = network;
}

static void sim_close(world_t *world)
{
    rf_sim_network_destroy(world->medium);
}

static void sim_address(world_t *world, char *out)
{
    (void)world;
    snprintf(out, RF_ADDRESS_MAX, "b");
}

static void sim_params(world_t *world, unsigned side, rf_endpoint_params_t *params)
{
    (void)side;
    params->medium = world->medium;
}

static void sim_step(world_t *world)
{
    rf_sim_step_until(world->medium, rf_sim_now(world->medium) + 200 * RF_NS_PER_US);
}

static uint64_t sim_now(world_t *world)
{
    return rf_sim_now(world->medium);
}

static void sim_break(world_t *world)
{
    rf_sim_break(world->medium, world->end[0].endpoint, world->end[1].endpoint);
}

static void sim_stop(world_t *world, unsigned side, bool stopped)
{
    rf_sim_stall(world->end[side].endpoint, stopped);
}

static const fixture_t fixture = {
#ifdef CONFORMANCE_FAULTS
    .name = "sim-faults",
#else
    .name = "sim",
#endif
    .transport = &rf_transport_sim,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK,
    .deadline_ns = 20 * RF_NS_PER_S,
    .open = sim_open,
    .close = sim_close,
    .address = sim_address,
    .params = sim_params,
    .step = sim_step,
    .now_ns = sim_now,
    .break_connections = sim_break,
    .stop = sim_stop,
};

const fixture_t *conformance_fixture = &fixture;
