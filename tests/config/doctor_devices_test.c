/* The preflight of RDMA, DPDK and leases, on trees of files as /sys and /proc have them. */
#include "doctor_rig.h"

static char rdma_root[64];

static void rdma_file(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", rdma_root, path);
    for (char *at = whole + strlen(rdma_root) + 1; (at = strchr(at, '/')); at++) {
        *at = '\0';
        mkdir(whole, 0755);
        *at = '/';
    }
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void rdma_device(const char *state, const char *mtu)
{
    static char root[] = "/tmp/rf-doctor-rdma-XXXXXX";
    snprintf(rdma_root, sizeof rdma_root, "%s", root);
    assert_non_null(mkdtemp(rdma_root));
    rdma_file("sys/class/infiniband/rxe0/ports/1/state", state);
    rdma_file("sys/class/infiniband/rxe0/ports/1/link_layer", "Ethernet\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gids/0", "fe80:0000:0000:0000:0052:46ff:fe00:0001\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/types/0", "RoCE v2\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0", "lan0\n");
    rdma_file("sys/class/net/lan0/mtu", mtu);
    rdma_file("dev/infiniband/uverbs0", "");
    rdma_file("dev/infiniband/rdma_cm", "");
}

static void rdma_ipv4(void)
{
    rdma_file("sys/class/infiniband/rxe0/ports/1/gids/1", "0000:0000:0000:0000:0000:ffff:0a4d:0001\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/types/1", "RoCE v2\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1", "lan0\n");
}

/* `told`: of this host's RDMA, in the configuration; NULL: there is none. */
static void rdma_run_told(const char *told)
{
    char text[512];
    snprintf(text, sizeof text,
             "nodes: [{hosts: \"a,b\", address: \"127.0.0.1,127.0.0.2\", cores: 1, rdma: {%s}}]\n"
             "transports: [{between: [a, b], use: rdma}]\n",
             told ? told : "");
    bool wanted = told != NULL;
    rf_config_t *config = wanted ? parse(text) : NULL;
    rf_doctor_options_t options = {
        .config = config, .node = wanted ? 0 : RF_NODE_NONE, .sys_root = rdma_root, .only = of_devices};
    rf_doctor_run(&options, &report);
    free(config);
}

static void rdma_run(bool wanted)
{
    rdma_run_told(wanted ? "" : NULL);
}

static void rdma_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", rdma_root);
    assert_int_equal(system(command), 0);
}

static void test_rdma_is_well(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_run(false);
    assert_true(
        says("rdma", RF_DOCTOR_GOOD, "GID 1 0000:0000:0000:0000:0000:ffff:0a4d:0001 (RoCE v2, IPv4)"));
    assert_true(says("rdma", RF_DOCTOR_GOOD, "4096 bytes"));
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    assert_null(finding("rdma", RF_DOCTOR_FAIL));
    rdma_remove();
}

static void test_rdma_says_what_is_less(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "1500\n");
    rdma_run(false);
    assert_true(says("rdma", RF_DOCTOR_NOTE, "GID 0 (RoCE v2, link-local)"));
    assert_true(says("rdma", RF_DOCTOR_NOTE, "carry 1024 bytes"));
    rdma_remove();
}

static void test_rdma_port_down_and_no_device(void **state)
{
    (void)state;
    rdma_device("1: DOWN\n", "9000\n");
    rdma_ipv4();
    rdma_run(false);
    assert_true(says("rdma", RF_DOCTOR_NOTE, "rxe0 port 1 is not active"));
    rdma_remove();
    snprintf(rdma_root, sizeof rdma_root, "/tmp/rf-doctor-nothing");
    rdma_run(false);
    assert_true(says("rdma", RF_DOCTOR_GOOD, "none is wanted"));
}

static void test_rdma_wanted_and_not_to_be_had(void **state)
{
    (void)state;
    snprintf(rdma_root, sizeof rdma_root, "/tmp/rf-doctor-nothing");
    rdma_run(true);
    assert_true(says("rdma", RF_DOCTOR_FAIL, "no RDMA device"));
    rdma_device("1: DOWN\n", "9000\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gids/0", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    rdma_run(true);
    assert_true(says("rdma", RF_DOCTOR_FAIL, "not active"));
    rdma_file("sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE\n");
    rdma_run(true);
    assert_true(says("rdma", RF_DOCTOR_FAIL, "has no GID"));
    char node[128];
    snprintf(node, sizeof node, "%s/dev/infiniband/uverbs0", rdma_root);
    assert_int_equal(unlink(node), 0);
    rdma_run(true);
    assert_true(says("rdma", RF_DOCTOR_FAIL, "/dev/infiniband/uverbs*"));
    rdma_remove();
}

static void test_rdma_as_it_is_told(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_run_told("device: rxe0, port: 1, gid_index: 0");
    assert_true(says("rdma", RF_DOCTOR_NOTE, "GID 0 (RoCE v2, link-local)"));
    assert_null(finding("rdma", RF_DOCTOR_FAIL));
    rdma_run_told("gid_index: 7");
    assert_true(says("rdma", RF_DOCTOR_FAIL, "no GID with index 7"));
    rdma_run_told("port: 2");
    assert_true(says("rdma", RF_DOCTOR_FAIL, "rxe0 has no port 2"));
    rdma_run_told("mode: auto");
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    rdma_run_told("mode: write");
    assert_true(says("rdma", RF_DOCTOR_NOTE, "Soft-RoCE was seen to show slots before their payload"));
    rdma_file("sys/class/infiniband/rxe0/device/vendor", "0x15b3\n");
    rdma_run_told("mode: write");
    assert_false(says("rdma", RF_DOCTOR_NOTE, "before their payload"));
    rdma_remove();
}

/* Its one GID is of no RoCE kind, whatever the kernel calls it. */
static void test_rdma_iwarp(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_file("sys/class/infiniband/rxe0/node_type", "4: RNIC\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gids/0", "0252:4600:0001:0000:0000:0000:0000:0000\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/types/0", "IB/RoCE v1\n");
    rdma_run(true);
    assert_true(says("rdma", RF_DOCTOR_GOOD, "GID 0 0252:4600:0001:0000:0000:0000:0000:0000"));
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    rdma_run_told("mode: write");
    assert_true(says("rdma", RF_DOCTOR_NOTE, "iWARP promises no order of placement"));
    rdma_remove();
}

/* How large the packets are that another host gets: by its `mtu` and ours, and by what carries RDMA. */
static void test_packets_reach_another_host(void **state)
{
    (void)state;
    static const char *const only[] = {"mtu", NULL};
    static const struct {
        const char *here, *there, *says;
    } cases[] = {
        {"", "", "1 other host(s) get packets of 4176 bytes"},
        {"mtu: 512", "", "packets of 592 bytes"},
        {"mtu: 1024", "mtu: 256", "packets of 336 bytes"},
        {"device: iw0, mtu: 512", "", "packets of 65535 bytes"}, /* of loopback */
        {"device: ib0", "", NULL},
    };
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_file("sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1",
              "lo\n"); /* by which the other host is reached */
    rdma_file("sys/class/infiniband/iw0/ports/1/state", "4: ACTIVE\n");
    rdma_file("sys/class/infiniband/iw0/node_type", "4: RNIC\n");
    rdma_file("sys/class/infiniband/ib0/ports/1/state", "4: ACTIVE\n");
    rdma_file("sys/class/infiniband/ib0/ports/1/link_layer", "InfiniBand\n");
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "nodes: [{hosts: a, address: 127.0.0.1, cores: 1, rdma: {%s}},\n"
                 "  {hosts: b, address: 127.0.0.2, cores: 1, rdma: {%s}}]\n"
                 "transports: [{between: [a, b], use: rdma}]\n",
                 cases[i].here, cases[i].there);
        rf_config_t *config = parse(text);
        rf_doctor_options_t options = {.config = config, .node = 0, .sys_root = rdma_root, .only = only};
        rf_doctor_run(&options, &report);
        const rf_doctor_finding_t *f = finding("mtu", RF_DOCTOR_GOOD);
        if (cases[i].says) {
            assert_non_null(f);
            assert_non_null(strstr(f->what, cases[i].says));
        } else {
            assert_int_equal(report.n, 0);
        }
        free(config);
    }
    rdma_remove();
}

/* Where RDMA goes by another interface than packets to the other host's address, those would say nothing of it. */
static void test_packets_by_another_interface_say_nothing(void **state)
{
    (void)state;
    static const char *const only[] = {"mtu", NULL};
    rf_config_t *config = parse("nodes: [{hosts: \"a,b\", address: \"127.0.0.1,127.0.0.2\", cores: 1}]\n"
                                "transports: [{between: [a, b], use: rdma}]\n");
    rdma_device("4: ACTIVE\n", "9000\n"); /* of lan0 */
    rdma_ipv4();
    rf_doctor_options_t options = {.config = config, .node = 0, .sys_root = rdma_root, .only = only};
    rf_doctor_run(&options, &report);
    assert_int_equal(report.n, 1);
    const rf_doctor_finding_t *f = finding("mtu", RF_DOCTOR_NOTE);
    assert_non_null(f);
    assert_non_null(strstr(f->what, "1 host(s), 'b' first"));
    assert_non_null(strstr(f->what, "those go by lan0, and packets to the configured address by lo"));
    rdma_remove();
    free(config);
}

/* The file names a device: that one counts, and a port of another that lies idle does not. */
static void test_rdma_device_by_name(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_file("sys/class/infiniband/idle0/ports/1/state", "1: DOWN\n");
    rdma_run(true);
    assert_null(finding("rdma", RF_DOCTOR_FAIL));
    static const char text[] = "nodes:\n"
                               "  - hosts: \"a,b\"\n"
                               "    cores: 1\n"
                               "    rdma: {device: %s}\n"
                               "transports: [{between: [a, b], use: rdma}]\n";
    static const struct {
        const char *device, *says;
    } cases[] = {{"rxe0", NULL},
                 {"idle0", "idle0 port 1 is not active"},
                 {"mlx5_9", ":4: rdma: this host has no device 'mlx5_9', but "}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char file[200];
        snprintf(file, sizeof file, text, cases[i].device);
        rf_config_t *config = parse(file);
        rf_doctor_options_t options = {
            .config = config, .node = 0, .sys_root = rdma_root, .only = of_devices};
        rf_doctor_run(&options, &report);
        if (cases[i].says)
            assert_true(says("rdma", RF_DOCTOR_FAIL, cases[i].says));
        else
            assert_null(finding("rdma", RF_DOCTOR_FAIL));
        free(config);
    }
    static const char *const only[] = {"ports", NULL};
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .sys_root = rdma_root, .only = only};
    rf_doctor_run(&options, &report);
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    rdma_remove();
}

/* ---- DPDK, on the same ---- */

static void dpdk_root(void)
{
    static char root[] = "/tmp/rf-doctor-dpdk-XXXXXX";
    snprintf(rdma_root, sizeof rdma_root, "%s", root);
    assert_non_null(mkdtemp(rdma_root));
}

static void dpdk_run(const char *port)
{
    char text[300];
    snprintf(
        text, sizeof text,
        "nodes:\n  - hosts: \"a,b\"\n    address: \"127.0.0.1,127.0.0.2\"\n    cores: 1\n    dpdk: {%s}\n"
        "transports: [{between: [a, b], use: dpdk}]\n",
        port);
    rf_config_t *config = parse(text);
    snprintf(config->path, sizeof config->path, "/x/y.yaml");
    rf_doctor_options_t options = {.config = config, .node = 0, .sys_root = rdma_root, .only = of_devices};
    rf_doctor_run(&options, &report);
    free(config);
}

static void test_dpdk_on_an_interface(void **state)
{
    (void)state;
    dpdk_root();
    dpdk_run("interface: eth7");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "/x/y.yaml:5: dpdk: this host has no network interface 'eth7'"));
    rdma_file("sys/class/net/eth7/mtu", "1500\n");
    rdma_file("sys/class/net/eth7/operstate", "down\n");
    dpdk_run("interface: eth7");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "eth7 is down"));
    rdma_file("sys/class/net/eth7/operstate", "up\n");
    dpdk_run("interface: eth7");
    assert_true(says("dpdk", RF_DOCTOR_GOOD, "eth7 is up"));
    assert_true(says("dpdk", RF_DOCTOR_GOOD, "an MTU of 1500"));
    dpdk_run("interface: eth7, mtu: 9000");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "an MTU of 1500, and the configuration wants 9000"));
    rdma_file("sys/class/net/eth7/queues/rx-0/x", "");
    rdma_file("sys/class/net/eth7/queues/rx-1/x", "");
    dpdk_run("interface: eth7, driver: af_xdp");
    assert_false(says("dpdk", RF_DOCTOR_FAIL, "receive queues"));
    for (unsigned i = 2; i < 17; i++) {
        char path[64];
        snprintf(path, sizeof path, "sys/class/net/eth7/queues/rx-%u/x", i);
        rdma_file(path, "");
    }
    dpdk_run("interface: eth7, driver: af_xdp");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "17 receive queues, and a link driver takes 16"));
    assert_true(says("dpdk", RF_DOCTOR_NOTE, "af_xdp takes all frames of eth7"));
    dpdk_run("interface: eth7, cpu: 3");
    assert_false(says("dpdk", RF_DOCTOR_NOTE, "CPU 3"));
    dpdk_run("ports: [{interface: eth7, address: '10.1.0.[1-2]', cpu: 3}, {interface: eth8, address: "
             "'10.2.0.[1-2]', cpu: 3}]");
    assert_true(
        says("dpdk", RF_DOCTOR_NOTE, "CPU 3 of a link driver, which polls, is also that of another port's"));
    dpdk_run("interface: eth7, hugepages: on");
    rdma_remove();
}

static void test_dpdk_on_a_device(void **state)
{
    (void)state;
    dpdk_root();
    dpdk_run("device: \"03:00.0\"");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "no PCI device 0000:03:00.0"));
    rdma_file("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086\n");
    char path[128];
    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/0000:03:00.0/driver", rdma_root);
    assert_int_equal(symlink("../../drivers/ixgbe", path), 0);
    dpdk_run("device: \"03:00.0\"");
    assert_true(says("dpdk", RF_DOCTOR_FAIL, "bound to the kernel's driver ixgbe"));
    assert_true(says("dpdk", RF_DOCTOR_NOTE, "no IOMMU"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("../../drivers/vfio-pci", path), 0);
    rdma_file("sys/kernel/iommu_groups/0/type", "DMA\n");
    dpdk_run("device: \"0000:03:00.0\"");
    assert_true(says("dpdk", RF_DOCTOR_GOOD, "bound to vfio-pci"));
    assert_false(says("dpdk", RF_DOCTOR_NOTE, "no IOMMU"));
    rdma_remove();
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .run_base = "/tmp"};
    rf_doctor_run(&options, &report);
    assert_true(says("dpdk", RF_DOCTOR_GOOD, "rackfish lab dpdk"));
}

/* Leases lean on a clock that goes, also on a virtual machine. */
static void test_leases(void **state)
{
    (void)state;
    static const char *const only[] = {"leases", NULL};
    static char root[] = "/tmp/rf-doctor-leases-XXXXXX";
    snprintf(rdma_root, sizeof rdma_root, "%s", root);
    assert_non_null(mkdtemp(rdma_root));
    rf_config_t *config = parse("leases: on\nnodes: [{hosts: a, cores: 2}]\n");
    snprintf(config->path, sizeof config->path, "/x/y.yaml");
    rf_doctor_options_t options = {.config = config, .node = 0, .sys_root = rdma_root, .only = only};
    rdma_file("proc/cpuinfo", "processor : 0\nflags : fpu vme\n");
    rf_doctor_run(&options, &report);
    assert_non_null(strstr(finding("leases", RF_DOCTOR_GOOD)->what, "leases of 250 ms"));
    rdma_file("proc/cpuinfo", "processor : 0\nflags : fpu hypervisor vme\n");
    rf_doctor_run(&options, &report);
    assert_non_null(strstr(finding("leases", RF_DOCTOR_NOTE)->what, "/x/y.yaml:1: leases are on"));
    config->lease_ms = 0;
    rf_doctor_run(&options, &report);
    assert_int_equal(report.n, 0);
    free(config);
    rdma_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rdma_is_well),
        cmocka_unit_test(test_rdma_says_what_is_less),
        cmocka_unit_test(test_rdma_port_down_and_no_device),
        cmocka_unit_test(test_rdma_wanted_and_not_to_be_had),
        cmocka_unit_test(test_rdma_as_it_is_told),
        cmocka_unit_test(test_rdma_iwarp),
        cmocka_unit_test(test_packets_reach_another_host),
        cmocka_unit_test(test_packets_by_another_interface_say_nothing),
        cmocka_unit_test(test_rdma_device_by_name),
        cmocka_unit_test(test_dpdk_on_an_interface),
        cmocka_unit_test(test_dpdk_on_a_device),
        cmocka_unit_test(test_leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
