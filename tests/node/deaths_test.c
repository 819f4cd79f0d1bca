/* What a monitor that does not read was told of deaths it is told again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cluster-config/config.h"
#include "node/daemon.h"
#include "node/monitors.h"
#include "node/peers.h"
#include "transport/transport.h"
#include "wire/client.h"

#include <stdlib.h>
#include <string.h>

#define HANG_NS (30 * RF_NS_PER_S)

static bool full;
static rf_incarnation_t told[4]; /* by core: the last death that was told */
static unsigned n_told;

static unsigned room(rf_link_t *link, unsigned want)
{
    (void)link;
    return full ? 0 : want;
}

static unsigned send_slots(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    rf_wire_header_t header;
    rf_client_dead_t dead;
    (void)link;
    assert_int_equal(n, 1);
    memcpy(&header, slots[0].payload, sizeof header);
    memcpy(&dead, slots[0].payload + sizeof header, sizeof dead);
    assert_int_equal(header.op, RF_CLIENT_DEAD);
    assert_in_range(dead.core, 0, 3);
    told[dead.core] = dead.incarnation;
    n_told++;
    return n;
}

static rf_err_t flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static const rf_transport_t fake = {.room = room, .send = send_slots, .flush = flush};

/* Three cores of one node, without processes; the first one's monitor is in reach. */
static void told_when_there_is_room(void **state)
{
    (void)state;
    rf_link_t link = {.transport = &fake, .state = RF_LINK_STATE_UP};
    rf_daemon_t *daemon = calloc(1, sizeof *daemon);
    rf_config_t *config = calloc(1, sizeof *config);
    assert_non_null(daemon);
    assert_non_null(config);
    config->n_nodes = 1;
    daemon->config = config;
    daemon->n_cores = 3;
    assert_int_equal(rf_loop_init(&daemon->loop), RF_OK);
    for (unsigned i = 0; i < 3; i++)
        daemon->cores[i] =
            (rf_local_core_t){.daemon = daemon, .core = (rf_core_t)i, .pidfd = -1, .monitor_pidfd = -1};
    daemon->cores[0].link = &link;
    daemon->cores[0].link_up = true;

    full = true;
    for (unsigned i = 1; i < 3; i++) {
        daemon->cores[i].dead = (rf_incarnation_t)(4 + i);
        rf_peers_core_dead(daemon, (rf_core_t)i, (rf_incarnation_t)(4 + i));
    }
    rf_loop_turn(&daemon->loop, 60 * RF_NS_PER_MS); /* once again it does not fit */
    assert_int_equal(n_told, 0);
    full = false;
    for (uint64_t since_ns = rf_clock_ns(); n_told == 0;) {
        assert_true(rf_clock_ns() - since_ns < HANG_NS);
        rf_loop_turn(&daemon->loop, 100 * RF_NS_PER_MS);
    }
    assert_int_equal(told[1], 5);
    assert_int_equal(told[2], 6);
    rf_loop_turn(&daemon->loop, 60 * RF_NS_PER_MS); /* and no more */
    assert_int_equal(n_told, 2);
    rf_loop_finish(&daemon->loop);
    free(config);
    free(daemon);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(told_when_there_is_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
