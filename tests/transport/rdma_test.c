/* What the RDMA medium decides without a device: options, which device, port and GID, how slots come. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cluster-config/config.h"
#include "cluster-config/parse.h"
#include "transport/rdma/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rdma_gid_t gid(const char *device, int port, int index, rdma_gid_kind_t kind, const char *address,
                      uint32_t netdev)
{
    rdma_gid_t g = {.port = port, .index = index, .kind = kind, .netdev = netdev, .active = true};
    snprintf(g.device, sizeof g.device, "%s", device);
    assert_int_equal(inet_pton(AF_INET6, address, g.gid), 1);
    return g;
}

static rdma_source_t route(const char *address, uint32_t netdev)
{
    rdma_source_t r = {.netdev = netdev};
    assert_int_equal(inet_pton(AF_INET6, address, r.gid), 1);
    return r;
}

#define N(table) (unsigned)(sizeof(table) / sizeof *(table))

static const rdma_options_t any = {.gid_index = -1};

static unsigned chosen(const rdma_options_t *options, const rdma_source_t *r, const rdma_gid_t *table,
                       unsigned n, const char *reason)
{
    char why[256] = "";
    unsigned at = 999;
    assert_int_equal(rdma_choose(options, r, table, n, &at, why, sizeof why), RF_OK);
    if (!strstr(why, reason)) fail_msg("'%s' is not in '%s'", reason, why);
    return at;
}

/* The table that a RoCE port with an IPv4 and a global IPv6 address has. */
static void kinds_have_their_order(void **state)
{
    (void)state;
    rdma_gid_t table[] = {
        gid("roce0", 1, 0, RDMA_GID_ROCE_V1, "fe80::1", 5),
        gid("roce0", 1, 1, RDMA_GID_ROCE_V2, "fe80::1", 5),
        gid("roce0", 1, 2, RDMA_GID_ROCE_V1, "::ffff:10.0.0.1", 5),
        gid("roce0", 1, 3, RDMA_GID_ROCE_V2, "2001:db8::1", 5),
        gid("roce0", 1, 4, RDMA_GID_ROCE_V2, "::ffff:10.0.0.1", 5),
    };
    rdma_source_t r = route("::ffff:10.0.0.1", 5);
    assert_int_equal(chosen(&any, &r, table, 5, "RoCE v2, IPv4"), 4);
    assert_int_equal(chosen(&any, &r, table, 4, "RoCE v2, global IPv6"), 3);
    assert_int_equal(chosen(&any, &r, table, 3, "RoCE v2, link-local"), 1);
    assert_int_equal(chosen(&any, &r, table, 1, "RoCE v1"), 0);
}

static void the_route_comes_first(void **state)
{
    (void)state;
    rdma_gid_t table[] = {
        gid("a", 1, 1, RDMA_GID_ROCE_V2, "::ffff:10.0.0.1", 5),
        gid("b", 1, 0, RDMA_GID_ROCE_V1, "fe80::2", 6),
        gid("c", 1, 1, RDMA_GID_ROCE_V2, "::ffff:10.0.2.1", 7),
        gid("c", 1, 2, RDMA_GID_ROCE_V2, "::ffff:10.0.2.2", 7),
    };
    rdma_source_t r = route("::ffff:10.0.1.1", 6);
    assert_int_equal(chosen(&any, &r, table, N(table), "by the route to the peer"), 1);
    r = route("::ffff:10.0.2.2", 7); /* of two addresses of one device, the one that the route uses */
    assert_int_equal(chosen(&any, &r, table, N(table), "by the route to the peer"), 3);
    r = route("::ffff:192.0.2.1", 99);
    assert_int_equal(chosen(&any, &r, table, N(table), "none of the active ports"), 0);
    table[0].active = false;
    assert_int_equal(chosen(&any, &r, table, N(table), "c port 1"), 2);
}

/* A GID of InfiniBand names no interface: that over which the route goes is IPoIB, and has its port's GID in its hardware address. */
static void the_route_of_infiniband_is_its_ports(void **state)
{
    (void)state;
    rdma_gid_t table[] = {
        gid("ib", 1, 0, RDMA_GID_IB, "fe80::7:1", 0),
        gid("ib", 2, 0, RDMA_GID_IB, "fe80::7:2", 0),
        gid("eth", 1, 0, RDMA_GID_ROCE_V2, "::ffff:10.0.0.1", 5),
    };
    uint8_t hardware[20] = {0x80, 0, 0x02, 0x08};
    memcpy(hardware + 4, table[1].gid, RDMA_GID);
    rdma_source_t r = route("::ffff:10.0.1.1", 6);
    assert_false(rdma_port_below(1, hardware, 6, r.port)); /* Ethernet */
    assert_false(rdma_port_below(32, hardware, 19, r.port));
    assert_int_equal(chosen(&any, &r, table, N(table), "none of the active ports"), 0);
    assert_true(rdma_port_below(32, hardware, sizeof hardware, r.port));
    assert_int_equal(chosen(&any, &r, table, N(table), "by the route to the peer"), 1);
    r = route("::ffff:10.0.0.1", 5);
    assert_int_equal(chosen(&any, &r, table, N(table), "by the route to the peer"), 2);
}

static void options_override(void **state)
{
    (void)state;
    rdma_gid_t table[] = {
        gid("a", 1, 0, RDMA_GID_ROCE_V1, "fe80::1", 5),
        gid("a", 1, 1, RDMA_GID_ROCE_V2, "::ffff:10.0.0.1", 5),
        gid("a", 2, 0, RDMA_GID_ROCE_V2, "::ffff:10.0.1.1", 6),
        gid("ib", 1, 0, RDMA_GID_IB, "fe80::7", 0),
    };
    rdma_source_t r = route("::ffff:10.0.0.1", 5);
    rdma_options_t o = any;
    o.gid_index = 0;
    assert_int_equal(chosen(&o, &r, table, N(table), "as configured"), 0);
    o = any;
    o.port = 2;
    assert_int_equal(chosen(&o, &r, table, N(table), "as configured"), 2);
    o = any;
    snprintf(o.device, sizeof o.device, "ib");
    assert_int_equal(chosen(&o, &r, table, N(table), "InfiniBand"), 3);
}

static void refused(const rdma_options_t *options, const rdma_gid_t *table, unsigned n, rf_err_t err,
                    const char *mend)
{
    char why[256] = "";
    unsigned at;
    rdma_source_t r = {.netdev = 1};
    assert_int_equal(rdma_choose(options, &r, table, n, &at, why, sizeof why), err);
    if (!strstr(why, mend)) fail_msg("'%s' is not in '%s'", mend, why);
}

static void what_is_missing_is_said(void **state)
{
    (void)state;
    rdma_gid_t table[] = {gid("a", 1, 0, RDMA_GID_ROCE_V2, "fe80::1", 5),
                          gid("b", 1, 0, RDMA_GID_ROCE_V2, "fe80::2", 6)};
    refused(&any, table, 0, RF_ERR_NOT_FOUND, "no RDMA device");
    rdma_options_t o = any;
    snprintf(o.device, sizeof o.device, "mlx5_9");
    refused(&o, table, 2, RF_ERR_NOT_FOUND, "no RDMA device 'mlx5_9', but a, b");
    o = any;
    o.port = 3;
    refused(&o, table, 2, RF_ERR_NOT_FOUND, "no port 3");
    o = any;
    o.gid_index = 7;
    refused(&o, table, 2, RF_ERR_NOT_FOUND, "no GID with index 7");
    table[0].active = table[1].active = false;
    refused(&any, table, 2, RF_ERR_AGAIN, "port 1 of a is down");
}

static void options_are_read(void **state)
{
    (void)state;
    rdma_options_t o;
    char why[256] = "";
    assert_int_equal(rdma_options_parse(NULL, &o, why, sizeof why), RF_OK);
    assert_int_equal(o.gid_index, -1);
    assert_int_equal(o.mode, RDMA_MODE_AUTO);
    assert_int_equal(o.inline_size, RDMA_INLINE_DEFAULT);
    assert_int_equal(rdma_options_parse("", &o, why, sizeof why), RF_OK);
    assert_int_equal(rdma_options_parse("device=mlx5_0,port=2,gid_index=0,traffic_class=106,service_level=3,"
                                        "mtu=1024,pkey_index=1,mode=send,inline=0,signal=1,depth=64",
                                        &o, why, sizeof why),
                     RF_OK);
    assert_string_equal(o.device, "mlx5_0");
    assert_int_equal(o.port, 2);
    assert_int_equal(o.gid_index, 0);
    assert_int_equal(o.traffic_class, 106);
    assert_int_equal(o.service_level, 3);
    assert_int_equal(o.mtu, 1024);
    assert_int_equal(o.pkey_index, 1);
    assert_int_equal(o.mode, RDMA_MODE_SEND);
    assert_int_equal(o.inline_size, 0);
    assert_int_equal(o.signal_every, 1);
    assert_int_equal(o.depth, 64);
}

static void wrong_options_are_explained(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } wrong[] = {
        {"port", "name=value"},          {"prot=1", "there are device, port"}, {"port=0", "from 1 to 254"},
        {"signal=0", "from 1 to 1024"},  {"port=one", "from 1 to 254"},        {"port=1x", "from 1 to 254"},
        {"mtu=1500", "power of two"},    {"mode=fast", "send or write"},       {"device=", "ibv_devices"},
        {"port=1,,port=2", "no option"}, {"gid_index=-1", "from 0 to"},
    };
    for (unsigned i = 0; i < N(wrong); i++) {
        rdma_options_t o = {.port = 77};
        char why[256] = "";
        assert_int_equal(rdma_options_parse(wrong[i].text, &o, why, sizeof why), RF_ERR_CONFIG);
        if (!strstr(why, wrong[i].why)) fail_msg("%s: '%s' is not in '%s'", wrong[i].text, wrong[i].why, why);
        assert_int_equal(o.port, 77);
    }
    char longer[400], why[256] = "";
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    rdma_options_t o;
    assert_int_equal(rdma_options_parse(longer, &o, why, sizeof why), RF_ERR_CONFIG);
}

/* What a machine's configuration takes the medium takes too, and nothing else. */
static void the_configuration_says_the_same(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        long least, most;
    } numbers[] = {{"port", 1, 254},         {"gid_index", 0, 255}, {"traffic_class", 0, 255},
                   {"service_level", 0, 15}, {"mtu", 256, 4096},    {"pkey_index", 0, 65535}};
    for (unsigned i = 0; i < N(numbers); i++) {
        const long values[] = {numbers[i].least - 1, numbers[i].least, numbers[i].most, numbers[i].most + 1};
        for (unsigned v = 0; v < N(values); v++) {
            bool right = values[v] >= numbers[i].least && values[v] <= numbers[i].most;
            char yaml[256], text[64], why[256] = "", error[RF_CONFIG_ERROR_MAX];
            rdma_options_t o;
            rf_config_t *config = NULL;
            snprintf(yaml, sizeof yaml,
                     "machine: m\nkey_file: k\nnodes: [{hosts: a, cores: 1, rdma: {%s: %ld}}]\n",
                     numbers[i].name, values[v]);
            snprintf(text, sizeof text, "%s=%ld", numbers[i].name, values[v]);
            assert_int_equal(rdma_options_parse(text, &o, why, sizeof why), right ? RF_OK : RF_ERR_CONFIG);
            assert_int_equal(rf_config_parse("m.yaml", yaml, strlen(yaml), &config, NULL, error),
                             right ? RF_OK : RF_ERR_CONFIG);
            if (right) assert_string_equal(config->nodes[0].rdma, text);
            free(config);
        }
    }
}

static void placement_is_tested_or_told(void **state)
{
    (void)state;
    const char *why = "";
    assert_int_equal(rdma_placement(RDMA_MODE_AUTO, "rxe", false, &why), RDMA_MODE_SEND);
    assert_non_null(strstr(why, "litmus test saw"));
    assert_int_equal(rdma_placement(RDMA_MODE_WRITE, "rxe", false, &why), RDMA_MODE_WRITE);
    assert_string_equal(why, "as configured, though the litmus test saw slots before their payload here: for "
                             "measuring only");
    assert_int_equal(rdma_placement(RDMA_MODE_WRITE, "other", false, &why), RDMA_MODE_WRITE);
    assert_string_equal(why, "as configured");
    assert_int_equal(rdma_placement(RDMA_MODE_AUTO, "other", false, &why), RDMA_MODE_SEND);
    assert_int_equal(rdma_placement(RDMA_MODE_AUTO, "siw", true, &why), RDMA_MODE_SEND);
    assert_int_equal(rdma_placement(RDMA_MODE_WRITE, "siw", true, &why), RDMA_MODE_WRITE);
    assert_string_equal(why,
                        "as configured, though iWARP promises no order of placement: for measuring only");
    assert_int_equal(rdma_placement(RDMA_MODE_SEND, "rxe", false, &why), RDMA_MODE_SEND);
    assert_string_equal(why, "as configured");
    assert_true(rdma_placement_doubtful(RDMA_MODE_WRITE, "rxe", false));
    assert_true(rdma_placement_doubtful(RDMA_MODE_WRITE, "siw", true));
    assert_false(rdma_placement_doubtful(RDMA_MODE_WRITE, "other", false));
    assert_false(rdma_placement_doubtful(RDMA_MODE_SEND, "rxe", false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_have_their_order),
        cmocka_unit_test(the_route_comes_first),
        cmocka_unit_test(the_route_of_infiniband_is_its_ports),
        cmocka_unit_test(options_override),
        cmocka_unit_test(what_is_missing_is_said),
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(wrong_options_are_explained),
        cmocka_unit_test(the_configuration_says_the_same),
        cmocka_unit_test(placement_is_tested_or_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
