/* Links of the DPDK medium without a driver: what comes from it at moments that a machine seldom hits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transport/dpdk/internal.h"

#include "path_fuzz.h"

/* A link to a driver that puts in slots as it is armed: too late for the look before that, too early to be told to wake. */
typedef struct late_link {
    rf_link_t head;
    unsigned there, late, arms;
} late_link_t;

static unsigned late_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    late_link_t *late = (late_link_t *)link;
    unsigned n = late->there < max ? late->there : max;
    for (unsigned i = 0; i < n; i++) out[i] = (rf_slot_t){.control = rf_control_make(1, 8, false, 0)};
    late->there -= n;
    return n;
}

static void late_arm(rf_link_t *link)
{
    late_link_t *late = (late_link_t *)link;
    late->arms++;
    late->there += late->late;
    late->late = 0;
}

static bool late_ready(rf_link_t *link)
{
    return ((late_link_t *)link)->there > 0;
}

static const rf_transport_t late_transport = {.name = "late",
                                              .poll = late_poll,
                                              .arm = late_arm,
                                              .ready = late_ready,
                                              .room = output_room,
                                              .send = output_send,
                                              .flush = output_flush,
                                              .close = nothing};

/* Whose owner has gone: nobody else looks before the driver rings, which it does not for what it put in before. */
static void a_closed_link_looks_again_once_armed(void **state)
{
    (void)state;
    path_endpoint_t *ep = path_fuzz_endpoint(&dpdk_medium);
    path_link_t *link = path_fuzz_link(ep, true);
    late_link_t late = {.head = {.transport = &late_transport}, .there = 3, .late = 70};
    dpdk_link_of(link)->paths[PATH_LANE_SLOTS].local = &late.head;
    link->lanes[PATH_LANE_SLOTS].stage = PATH_UP;
    link->user_closed = true;
    dpdk_link_discard(dpdk_link_of(link));
    assert_int_equal(late.arms, 1);
    assert_int_equal(late.there, 0);
    assert_int_equal(link->accepted, 73);
    assert_int_equal(link->delivered, 73);
    assert_null(link->wrong);
    path_fuzz_over(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_link_looks_again_once_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
