/* A host's ports, as an endpoint is told of them, and over which of them a path goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/dpdk/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HANG_NS (60 * RF_NS_PER_S)

static dpdk_ports_t parse(const char *text)
{
    dpdk_ports_t ports;
    char why[256] = "";
    assert_int_equal(dpdk_options_parse(text, &ports, why, sizeof why), RF_OK);
    return ports;
}

static void options_are_read(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL).n, 0);
    assert_int_equal(parse("").n, 0);
    dpdk_ports_t ports = parse("driver=/run/a");
    assert_int_equal(ports.n, 1);
    assert_string_equal(ports.all[0].driver, "/run/a");
    assert_int_equal(ports.all[0].prefix, 0);
    ports = parse("driver=/a,net=10.1.0.7/16,gateway;driver=/b,net=10.2.0.7");
    assert_int_equal(ports.n, 2);
    assert_string_equal(ports.all[0].driver, "/a");
    assert_int_equal(ports.all[0].prefix, 16);
    assert_true(ports.all[0].gateway && !ports.all[1].gateway);
    assert_memory_equal(ports.all[1].ipv4, ((uint8_t[]){10, 2, 0, 7}), 4);
    assert_int_equal(ports.all[1].prefix, DPDK_PREFIX_DEFAULT);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "x",
        "driver=",
        "driver=/a;",
        ";driver=/a",
        "driver=/a;net=10.0.0.1/24",
        "driver=/a,driver=/b",
        "driver=/a,net=",
        "driver=/a,net=10.0.0/24",
        "driver=/a,net=10.0.0.1/",
        "driver=/a,net=10.0.0.1/33",
        "driver=/a,net=10.0.0.1/0",
        "driver=/a,net=10.0.0.1/2x",
        "driver=/a,gateway=1",
        "driver=/a,speed=9",
        "driver=/1;driver=/2;driver=/3;driver=/4;driver=/5;driver=/6;driver=/7;driver=/8;driver=/9",
    };
    dpdk_ports_t ports;
    char why[256], text[2 * RF_DPDK_OPTIONS_MAX];
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        why[0] = 0;
        assert_int_equal(dpdk_options_parse(bad[i], &ports, why, sizeof why), RF_ERR_CONFIG);
        assert_true(strlen(why) > 0);
    }
    for (size_t n = DPDK_SOCKET_MAX; n < sizeof text;
         n += RF_DPDK_OPTIONS_MAX) { /* too long a path, and a text */
        snprintf(text, sizeof text, "driver=/%0*d", (int)n, 0);
        assert_int_equal(dpdk_options_parse(text, &ports, why, sizeof why), RF_ERR_CONFIG);
    }
}

/* So long as rackfishd makes them: all ports, with a socket of the longest path. */
static void the_longest_fit(void **state)
{
    (void)state;
    char text[RF_DPDK_OPTIONS_MAX];
    size_t used = 0;
    for (unsigned i = 0; i < RF_DPDK_PORTS_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%sdriver=/%0*u,net=110.110.110.110/24,gateway", i ? ";" : "", 80, i);
    assert_true(used < sizeof text);
    assert_int_equal(parse(text).n, RF_DPDK_PORTS_MAX);
}

/* Who dials takes them in turn; who is dialled takes those that get there. */
static void ports_take_turns(void **state)
{
    (void)state;
    const dpdk_ports_t ports =
        parse("driver=/a,net=10.1.0.7/24;driver=/b,net=10.2.0.7/24,gateway;driver=/c,net=10.1.0.8/24");
    const uint8_t first[] = {10, 1, 0, 9}, second[] = {10, 2, 0, 9}, other[] = {10, 3, 0, 9};
    for (unsigned turn = 0; turn < 12; turn++) {
        assert_ptr_equal(dpdk_port_pick(&ports, turn, NULL), &ports.all[turn % 3]);
        assert_ptr_equal(dpdk_port_pick(&ports, turn, first), &ports.all[turn % 2 ? 2 : 0]);
        assert_ptr_equal(dpdk_port_pick(&ports, turn, second), &ports.all[1]);
        assert_ptr_equal(dpdk_port_pick(&ports, turn, other), &ports.all[1]); /* by its gateway */
    }
    const dpdk_ports_t near = parse("driver=/a,net=10.1.0.7/24;driver=/c,net=10.1.0.8/24");
    assert_null(dpdk_port_pick(&near, 0, other));
    const dpdk_ports_t untold = parse("driver=/a"), none = {.n = 0};
    assert_ptr_equal(dpdk_port_pick(&untold, 5, other), &untold.all[0]);
    assert_null(dpdk_port_pick(&none, 0, NULL));
    assert_null(dpdk_port_pick(&none, 0, first));
}

/* Of all ports of two ends in one network: also where one of each end is out of order, or every second pair. */
static void every_pair_comes(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= RF_DPDK_PORTS_MAX; n++) {
        for (unsigned m = 1; m <= RF_DPDK_PORTS_MAX; m++) {
            bool met[RF_DPDK_PORTS_MAX][RF_DPDK_PORTS_MAX] = {{false}};
            unsigned left = n * m;
            for (unsigned tries = 0; left > 0; tries++) {
                assert_true(tries < (n > 4 || m > 4 ? 1024 : 4 * n * m));
                bool *pair = &met[dpdk_port_turn(tries, false) % n][dpdk_port_turn(tries, true) % m];
                left -= !*pair;
                *pair = true;
            }
        }
    }
}

/* ---- link drivers that refuse ---- */

static const rf_transport_t *const shm = &rf_transport_shm, *const dpdk = &rf_transport_dpdk;

/* One, and how often it was asked. */
typedef struct refuser {
    char socket[DPDK_SOCKET_MAX];
    rf_endpoint_t *endpoint;
    unsigned asked;
} refuser_t;

static void refuse(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)info;
    refuser_t *refuser = context;
    if (event != RF_LINK_INCOMING) return;
    refuser->asked++;
    shm->reject(link, RF_ERR_PERMISSION);
}

static void refuser_open(refuser_t *refuser, const char *folder, unsigned number)
{
    *refuser = (refuser_t){0};
    snprintf(refuser->socket, sizeof refuser->socket, "%s/%u", folder, number);
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR},
                                   .on_event = refuse,
                                   .context = refuser,
                                   .address = refuser->socket,
                                   .medium = (void *)(uintptr_t)RF_SHM_RELAY};
    assert_int_equal(shm->endpoint_open(&params, &refuser->endpoint), RF_OK);
}

typedef struct end {
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    unsigned dead;
    rf_err_t why;
} end_t;

static void end_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    end_t *end = context;
    if (event == RF_LINK_INCOMING) assert_int_equal(dpdk->accept(link, NULL), RF_OK);
    if (event != RF_LINK_DEAD || link != end->link) return;
    end->dead++;
    end->why = info->err;
}

static void end_open(end_t *end, const char *address, const char *ports)
{
    static const uint8_t key[32] = "thirty-two bytes nobody may know";
    *end = (end_t){0};
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR},
                                   .on_event = end_event,
                                   .context = end,
                                   .address = address,
                                   .key = key,
                                   .key_size = sizeof key,
                                   .medium = (void *)(uintptr_t)ports,
                                   .deadline_ns = 2 * HANG_NS};
    assert_int_equal(dpdk->endpoint_open(&params, &end->endpoint), RF_OK);
}

/* Dials over ports whose drivers all refuse for good, until the link is over. */
static void dial(refuser_t *refusers, unsigned n)
{
    char folder[] = "/tmp/rf-refuse-XXXXXX", ports[RF_DPDK_OPTIONS_MAX] = "", address[RF_ADDRESS_MAX];
    assert_non_null(mkdtemp(folder));
    for (unsigned i = 0; i < n; i++) {
        refuser_open(&refusers[i], folder, i);
        size_t used = strlen(ports);
        snprintf(ports + used, sizeof ports - used, "%sdriver=%s", i ? ";" : "", refusers[i].socket);
    }
    end_t listener, dialer;
    end_open(&listener, "127.0.0.1:0", ports);
    end_open(&dialer, NULL, ports);
    assert_int_equal(dpdk->endpoint_address(listener.endpoint, address, sizeof address), RF_OK);
    rf_link_params_t params = {.address = address, .socket = -1};
    assert_int_equal(dpdk->connect(dialer.endpoint, &params, &dialer.link), RF_OK);
    for (uint64_t since_ns = rf_clock_ns(), next_ns; dialer.dead == 0;) {
        dpdk->endpoint_progress(listener.endpoint, rf_clock_ns(), &next_ns);
        dpdk->endpoint_progress(dialer.endpoint, rf_clock_ns(), &next_ns);
        for (unsigned i = 0; i < n; i++)
            shm->endpoint_progress(refusers[i].endpoint, rf_clock_ns(), &next_ns);
        rf_slot_t slot;
        (void)dpdk->poll(dialer.link, &slot, 1);
        if (rf_clock_ns() - since_ns > HANG_NS) fail_msg("all drivers refuse, and the link goes on");
    }
    assert_int_equal(dialer.why, RF_ERR_PERMISSION);
    dpdk->endpoint_close(dialer.endpoint);
    dpdk->endpoint_close(listener.endpoint);
    for (unsigned i = 0; i < n; i++) {
        shm->endpoint_close(refusers[i].endpoint);
        unlink(refusers[i].socket);
    }
    rmdir(folder);
}

/* Where there is one, the link is over at its first word, long before the deadline. */
static void the_only_driver_refuses(void **state)
{
    (void)state;
    refuser_t refuser;
    dial(&refuser, 1);
    assert_int_equal(refuser.asked, 1);
}

/* Of several each is asked, and more than once, before it is. */
static void what_one_driver_refuses_another_may_carry(void **state)
{
    (void)state;
    refuser_t refusers[3];
    dial(refusers, 3);
    for (unsigned i = 0; i < 3; i++) assert_true(refusers[i].asked > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(the_longest_fit),
        cmocka_unit_test(ports_take_turns),
        cmocka_unit_test(every_pair_comes),
        cmocka_unit_test(the_only_driver_refuses),
        cmocka_unit_test(what_one_driver_refuses_another_may_carry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
