/* The preflight: every finding is whole; what a test can break is found; needs grow with the configuration. */
#include "cluster-config/doctor_internal.h"
#include "cluster-config/parse.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static rf_doctor_report_t report;
/* Most tests are of these: the others, which take their time, are run once. */
static const char *const of_devices[] = {"memlock", "hugepages", "rdma", "mtu", "dpdk", "capabilities", NULL};

static rf_config_t *parse(const char *text)
{
    char error[RF_CONFIG_ERROR_MAX] = "";
    rf_config_t *config = NULL;
    rf_err_t err = rf_config_parse("text", text, strlen(text), &config, NULL, error);
    assert_string_equal(error, "");
    assert_int_equal(err, RF_OK);
    return config;
}

static const rf_doctor_finding_t *finding(const char *check, rf_doctor_severity_t severity)
{
    for (unsigned i = 0; i < report.n; i++) {
        if (strcmp(report.findings[i].check, check) == 0 && report.findings[i].severity == severity)
            return &report.findings[i];
    }
    return NULL;
}

static rf_err_t only_tcp(const char *name, char *why, size_t why_max)
{
    if (strcmp(name, "tcp") == 0) return RF_OK;
    snprintf(why, why_max, "no module rackfish-%s.so", name);
    return RF_ERR_NOT_FOUND;
}

static void test_findings_are_whole(void **state)
{
    (void)state;
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .run_base = "/tmp", .transport = only_tcp};
    rf_doctor_run(&options, &report);
    assert_true(report.n >= 14 && report.n < RF_DOCTOR_FINDINGS_MAX);
    for (unsigned i = 0; i < report.n; i++) {
        const rf_doctor_finding_t *f = &report.findings[i];
        print_message("%-5s %-12s %s%s%s\n",
                      f->severity == RF_DOCTOR_GOOD   ? "good"
                      : f->severity == RF_DOCTOR_NOTE ? "note"
                                                      : "FAIL",
                      f->check, f->what, f->mend[0] ? "; " : "", f->mend);
        assert_true(f->check[0] && f->what[0] && !strchr(f->what, '\n'));
        assert_int_equal(f->severity == RF_DOCTOR_GOOD, f->mend[0] == '\0');
    }
    assert_non_null(finding("transports", RF_DOCTOR_GOOD));
    assert_non_null(finding("kernel", RF_DOCTOR_GOOD));
}

static void test_port_in_use(void **state)
{
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    char text[200];
    snprintf(text, sizeof text, "nodes:\n  - hosts: a\n    address: 127.0.0.1\n    cores: 1\n    port: %u\n",
             ntohs(address.sin_port));
    rf_config_t *config = parse(text);
    snprintf(config->path, sizeof config->path, "/x/y.yaml");
    rf_doctor_options_t options = {.config = config, .node = 0};
    rf_doctor_run(&options, &report);
    const rf_doctor_finding_t *f = finding("ports", RF_DOCTOR_FAIL);
    assert_non_null(f);
    assert_true(strncmp(f->what, "/x/y.yaml:5: port ", 18) == 0);
    assert_int_equal(rf_doctor_worst(&report), RF_DOCTOR_FAIL);
    close(fd);
    rf_doctor_run(&options, &report);
    assert_null(finding("ports", RF_DOCTOR_FAIL));
    free(config);
}

static void test_transport_and_host_that_are_not_there(void **state)
{
    (void)state;
    rf_config_t *config = parse("nodes: [{hosts: \"a,b\", address: \"127.0.0.1,name.invalid\", cores: 1}]\n"
                                "transports: [{between: [a, b], use: rdma}]\n");
    rf_doctor_options_t options = {.config = config, .node = 0, .transport = only_tcp};
    rf_doctor_run(&options, &report);
    const rf_doctor_finding_t *f = finding("transports", RF_DOCTOR_FAIL);
    assert_non_null(f);
    assert_non_null(strstr(f->what, "rackfish-rdma.so"));
    assert_non_null(finding("hosts", RF_DOCTOR_FAIL));
    f = finding("mtu", RF_DOCTOR_NOTE);
    assert_non_null(f);
    assert_non_null(strstr(f->what, "1 host(s), 'b' first"));
    free(config);
}

static void test_no_packets_from_no_host(void **state)
{
    (void)state;
    rf_config_t *config = parse("nodes: [{hosts: \"a,b\", address: \"127.0.0.1,127.0.0.2\", cores: 1}]\n"
                                "transports: [{between: [a, b], use: rdma}]\n");
    rf_doctor_options_t options = {.config = config, .node = RF_NODE_NONE};
    rf_doctor_run(&options, &report);
    assert_null(finding("mtu", RF_DOCTOR_GOOD));
    free(config);
}

static void test_socket_path_too_long(void **state)
{
    (void)state;
    char base[120] = "/tmp/";
    memset(base + 5, 'x', 100);
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .run_base = base};
    rf_doctor_run(&options, &report);
    assert_non_null(finding("run-dir", RF_DOCTOR_FAIL));
}

static void test_closed_folder_is_found(void **state)
{
    (void)state;
    char folder[] = "/tmp/rf-doctor-XXXXXX", below[64], closed[64] = "";
    assert_non_null(mkdtemp(folder)); /* mode 0700 */
    snprintf(below, sizeof below, "%s/bin", folder);
    assert_int_equal(mkdir(below, 0755), 0);
    assert_false(rf_doctor_reachable(below, closed, sizeof closed));
    assert_int_equal(strncmp(closed, folder, strlen(folder)), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    assert_true(rf_doctor_reachable(below, closed, sizeof closed));
    assert_int_equal(rmdir(below), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_false(rf_doctor_reachable(below, closed, sizeof closed));
}

/* ---- RDMA, on a tree of files as /sys has them ---- */

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

/* Whether a finding of that kind about RDMA has `text` in it. */
static bool rdma_says(rf_doctor_severity_t severity, const char *text)
{
    for (unsigned i = 0; i < report.n; i++) {
        const rf_doctor_finding_t *f = &report.findings[i];
        if (strcmp(f->check, "rdma") == 0 && f->severity == severity && strstr(f->what, text)) return true;
    }
    return false;
}

static void test_rdma_is_well(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_run(false);
    assert_true(rdma_says(RF_DOCTOR_GOOD, "GID 1 0000:0000:0000:0000:0000:ffff:0a4d:0001 (RoCE v2, IPv4)"));
    assert_true(rdma_says(RF_DOCTOR_GOOD, "4096 bytes"));
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    assert_null(finding("rdma", RF_DOCTOR_FAIL));
    rdma_remove();
}

static void test_rdma_says_what_is_less(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "1500\n");
    rdma_run(false);
    assert_true(rdma_says(RF_DOCTOR_NOTE, "GID 0 (RoCE v2, link-local)"));
    assert_true(rdma_says(RF_DOCTOR_NOTE, "carry 1024 bytes"));
    rdma_remove();
}

static void test_rdma_port_down_and_no_device(void **state)
{
    (void)state;
    rdma_device("1: DOWN\n", "9000\n");
    rdma_ipv4();
    rdma_run(false);
    assert_true(rdma_says(RF_DOCTOR_NOTE, "rxe0 port 1 is not active"));
    rdma_remove();
    snprintf(rdma_root, sizeof rdma_root, "/tmp/rf-doctor-nothing");
    rdma_run(false);
    assert_true(rdma_says(RF_DOCTOR_GOOD, "none is wanted"));
}

static void test_rdma_wanted_and_not_to_be_had(void **state)
{
    (void)state;
    snprintf(rdma_root, sizeof rdma_root, "/tmp/rf-doctor-nothing");
    rdma_run(true);
    assert_true(rdma_says(RF_DOCTOR_FAIL, "no RDMA device"));
    rdma_device("1: DOWN\n", "9000\n");
    rdma_file("sys/class/infiniband/rxe0/ports/1/gids/0", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    rdma_run(true);
    assert_true(rdma_says(RF_DOCTOR_FAIL, "not active"));
    rdma_file("sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE\n");
    rdma_run(true);
    assert_true(rdma_says(RF_DOCTOR_FAIL, "has no GID"));
    char node[128];
    snprintf(node, sizeof node, "%s/dev/infiniband/uverbs0", rdma_root);
    assert_int_equal(unlink(node), 0);
    rdma_run(true);
    assert_true(rdma_says(RF_DOCTOR_FAIL, "/dev/infiniband/uverbs*"));
    rdma_remove();
}

static void test_rdma_as_it_is_told(void **state)
{
    (void)state;
    rdma_device("4: ACTIVE\n", "9000\n");
    rdma_ipv4();
    rdma_run_told("device: rxe0, port: 1, gid_index: 0");
    assert_true(rdma_says(RF_DOCTOR_NOTE, "GID 0 (RoCE v2, link-local)"));
    assert_null(finding("rdma", RF_DOCTOR_FAIL));
    rdma_run_told("gid_index: 7");
    assert_true(rdma_says(RF_DOCTOR_FAIL, "no GID with index 7"));
    rdma_run_told("port: 2");
    assert_true(rdma_says(RF_DOCTOR_FAIL, "rxe0 has no port 2"));
    rdma_run_told("mode: auto");
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    rdma_run_told("mode: write");
    assert_true(rdma_says(RF_DOCTOR_NOTE, "Soft-RoCE was seen to show slots before their payload"));
    rdma_file("sys/class/infiniband/rxe0/device/vendor", "0x15b3\n");
    rdma_run_told("mode: write");
    assert_false(rdma_says(RF_DOCTOR_NOTE, "before their payload"));
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
    assert_true(rdma_says(RF_DOCTOR_GOOD, "GID 0 0252:4600:0001:0000:0000:0000:0000:0000"));
    assert_null(finding("rdma", RF_DOCTOR_NOTE));
    rdma_run_told("mode: write");
    assert_true(rdma_says(RF_DOCTOR_NOTE, "iWARP promises no order of placement"));
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

static void test_need_grows_with_cores(void **state)
{
    (void)state;
    rf_doctor_need_t small, large, all;
    rf_config_t *config = parse("nodes: [{hosts: a, cores: 2}, {hosts: b, cores: 64}]\n");
    rf_doctor_need(config, 0, &small);
    rf_doctor_need(config, 1, &large);
    assert_int_equal(small.processes, 5);
    assert_int_equal(large.processes, 129);
    assert_true(large.files_all > 64 * 64 * 3 && large.memory_bytes > small.memory_bytes);
    config->emulated = true;
    rf_doctor_need(config, RF_NODE_NONE, &all);
    assert_int_equal(all.processes, 134);
    assert_int_equal(all.files_all, small.files_all + large.files_all);
    free(config);
}

/* Which plan is in force, and where one core would feed more than it can. */
static void test_plan(void **state)
{
    (void)state;
    static const char *const only[] = {"plan", NULL};
    static const struct {
        const char *text, *says;
        rf_doctor_severity_t severity;
    } cases[] = {
        {"nodes: [{hosts: a, cores: 3}]\n", "plan host", RF_DOCTOR_GOOD},
        {"plan: unicast\nnodes: [{hosts: \"a,b\", cores: 31}]\n", "plan unicast", RF_DOCTOR_GOOD},
        {"plan: broadcast\nnodes: [{hosts: \"a,b\", cores: 32}]\n", "cannot feed the 63 others",
         RF_DOCTOR_NOTE},
        {"plan: weighted\nweights: {between: 20}\nnodes: [{hosts: \"a,b\", cores: 32}]\n",
         "plan weighted: 4 in a package, 8 in a host, 20 between hosts", RF_DOCTOR_GOOD},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        rf_config_t *config = parse(cases[i].text);
        rf_doctor_options_t options = {.config = config, .node = 0, .only = only};
        rf_doctor_run(&options, &report);
        const rf_doctor_finding_t *f = finding("plan", cases[i].severity);
        assert_non_null(f);
        assert_non_null(strstr(f->what, cases[i].says));
        free(config);
    }
}

/* What one-sided append takes, and where it cannot be. */
static void test_lanes(void **state)
{
    (void)state;
    static const char *const only[] = {"lanes", NULL};
    static const struct {
        const char *text, *says;
        rf_doctor_severity_t severity;
    } cases[] = {
        {"one_sided: on\nnodes: [{hosts: \"a,b,c\", cores: 1}]\n"
         "transports: [{between: [\"a,b,c\", \"a,b,c\"], use: rdma}]\n",
         "4 lanes: 8 queue pairs, and 640 KiB locked", RF_DOCTOR_GOOD},
        {"one_sided: on\nnodes: [{hosts: \"a,b,c\", cores: 1}]\n", "4 lanes: 0 queue pairs, and 0 KiB",
         RF_DOCTOR_GOOD},
        {"one_sided: on\nnodes: [{hosts: a, cores: 3}]\n", "of no use on one host", RF_DOCTOR_NOTE},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        rf_config_t *config = parse(cases[i].text);
        rf_doctor_options_t options = {.config = config, .node = 0, .only = only, .transport = only_tcp};
        rf_doctor_run(&options, &report);
        const rf_doctor_finding_t *f = finding("lanes", cases[i].severity);
        assert_non_null(f);
        assert_non_null(strstr(f->what, cases[i].says));
        free(config);
    }
    rf_config_t *config = parse(cases[0].text);
    snprintf(config->medium[0][1], sizeof config->medium[0][1], "dpdk");
    rf_doctor_options_t options = {.config = config, .node = 0, .only = only, .transport = only_tcp};
    rf_doctor_run(&options, &report);
    assert_non_null(
        strstr(finding("lanes", RF_DOCTOR_NOTE)->what, "dpdk between 'a' and 'b' takes no memory back"));
    config->one_sided = false;
    rf_doctor_run(&options, &report);
    assert_int_equal(report.n, 0);
    free(config);
}

/* Links and lanes together: a voter that is a gateway to two hosts of two cores has 4 links and 4 lanes. */
static void test_memory_locked(void **state)
{
    (void)state;
    static const char *const only[] = {"memlock", NULL};
    static const struct {
        const char *one_sided, *says;
        unsigned limit_kib, iwarp_kib;
        rf_doctor_severity_t severity;
    } cases[] = {
        {"off", "2400 KiB may be locked; a monitor's links over RDMA lock 336", 2400, 336, RF_DOCTOR_GOOD},
        {"off", "lock 336, and a driver that pins its queues (mlx5) 2048", 400, 336, RF_DOCTOR_NOTE},
        {"off", "300 KiB may be locked; a monitor's links over RDMA lock 336 KiB", 300, 336, RF_DOCTOR_FAIL},
        {"on", "900 KiB may be locked; a monitor's links over RDMA lock 976 KiB", 900, 1232, RF_DOCTOR_FAIL},
        {"on", "3100 KiB may be locked; a monitor's links over RDMA lock 976", 3100, 1232, RF_DOCTOR_GOOD},
    };
    struct rlimit was;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &was), 0);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "one_sided: %s\nvoters: 3\nnodes: [{hosts: \"a,b,c\", cores: 2}]\n"
                 "transports: [{between: [\"a,b,c\", \"a,b,c\"], use: rdma}]\n",
                 cases[i].one_sided);
        rf_config_t *config = parse(text);
        rf_doctor_options_t options = {.config = config, .node = 0, .only = only, .transport = only_tcp};
        struct rlimit little = {.rlim_cur = cases[i].limit_kib << 10, .rlim_max = was.rlim_max};
        assert_int_equal(doctor_rdma_locked(config, 0, true) >> 10, cases[i].iwarp_kib);
        assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &little), 0);
        rf_doctor_run(&options, &report);
        assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &was), 0);
        const rf_doctor_finding_t *f = finding("memlock", cases[i].severity);
        assert_non_null(f);
        assert_non_null(strstr(f->what, cases[i].says));
        free(config);
    }
}

/* A leader of a large machine: of RoCE its links share 4 MiB of buffers; and it has room for so many. */
static void test_links_of_a_leader(void **state)
{
    (void)state;
    static const char *const only[] = {"links", NULL};
    rf_config_t *config = parse("nodes: [{hosts: \"a,b,c,d\", cores: 64}]\n"
                                "transports: [{between: [a, \"b,c,d\"], use: rdma}]\n");
    rf_doctor_options_t options = {.config = config, .node = 0, .only = only, .transport = only_tcp};
    assert_int_equal(doctor_rdma_locked(config, 0, false) >> 10, 4096 + 192 * 4);
    assert_int_equal(doctor_rdma_locked(config, 0, true) >> 10, 120 * 84);
    rf_doctor_run(&options, &report);
    assert_int_equal(report.n, 0);
    config->nodes[3].n_cores = 128;
    rf_doctor_run(&options, &report);
    assert_non_null(strstr(finding("links", RF_DOCTOR_NOTE)->what, "256 cores of other nodes are over rdma"));
    assert_int_equal(doctor_rdma_locked(config, 0, false) >> 10, 4096 + 224 * 4);
    free(config);
}

/* What a witness changes of what the machine survives. */
static void test_witness(void **state)
{
    (void)state;
    static const char *const only[] = {"voters", NULL};
    static const struct {
        const char *nodes, *says;
        rf_doctor_severity_t severity;
    } cases[] = {
        {"{hosts: \"a,b\", cores: 4}", "but not of node a", RF_DOCTOR_NOTE},
        {"{hosts: \"a,b\", cores: 4}, {hosts: w, cores: 1, witness: on}",
         "7 voters: the machine survives the "
         "death of any 3 core(s), or of any 1 node(s)",
         RF_DOCTOR_GOOD},
        {"{hosts: w, cores: 4, witness: on}, {hosts: \"a,b\", cores: 4}", "or of any 1 node(s)",
         RF_DOCTOR_GOOD},
        {"{hosts: \"a,b\", cores: 1}, {hosts: w, cores: 4, witness: on}", "but not of node w",
         RF_DOCTOR_NOTE},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        snprintf(text, sizeof text, "nodes: [%s]\n", cases[i].nodes);
        rf_config_t *config = parse(text);
        rf_doctor_options_t options = {.config = config, .node = 0, .only = only, .transport = only_tcp};
        rf_doctor_run(&options, &report);
        const rf_doctor_finding_t *f = finding("voters", cases[i].severity);
        assert_non_null(f);
        assert_non_null(strstr(f->what, cases[i].says));
        free(config);
    }
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

/* Delays that were measured, and timeouts that do, or do not, exceed them. */
static void test_delays(void **state)
{
    (void)state;
    static const struct {
        const char *times, *says, *mend;
        unsigned n, n_late; /* so many of them are this late, the others by 1 ms */
        uint64_t late_ms;
    } cases[] = {
        {"", "of 4000 sleeps p99.9 end 1.0 ms late or less, the worst 10.0 ms", NULL, 4000, 1, 10},
        {"", "p99.9 end 1.0 ms late or less, the worst 300.0 ms", NULL, 4000, 1, 300}, /* once is not often */
        {"", "p99.9 by up to 1.0 ms, the worst by 501.0 ms; election_ms is 500 ms", "election_ms 501 and",
         4000, 1, 501},
        {"", "p99.9 by up to 300.0 ms, the worst by 300.0 ms; election_ms is 500 ms",
         "election_ms 600 and host_deadline_ms 700", 4000, 4, 300},
        {"election_ms: 2000\n", "host_deadline_ms less heartbeat_ms is 900 ms", "host_deadline_ms 1100", 4000,
         9, 500},
        {"election_ms: 600\n", "the shortest timeout, election_ms, is 600 ms", NULL, 4000, 4, 300},
        {"", "of 500 sleeps p99.9 by up to 300.0 ms", "election_ms 600", 500, 1,
         300}, /* too few: the worst */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        uint64_t late_ns[4000];
        snprintf(text, sizeof text, "%snodes: [{hosts: a, cores: 1}]\n", cases[i].times);
        rf_config_t *config = parse(text);
        rf_doctor_options_t options = {.config = config, .node = 0};
        doctor_t doctor = {.options = &options, .report = &report, .check = "delays"};
        report.n = 0;
        for (unsigned k = 0; k < cases[i].n; k++)
            late_ns[k] = k >= 77 && k < 77 + cases[i].n_late ? cases[i].late_ms * 1000000 : 1000000;
        doctor_judge_delays(&doctor, late_ns, cases[i].n);
        const rf_doctor_finding_t *f = finding("delays", cases[i].mend ? RF_DOCTOR_NOTE : RF_DOCTOR_GOOD);
        assert_non_null(f);
        assert_non_null(strstr(f->what, cases[i].says));
        assert_true(!cases[i].mend || strstr(f->mend, cases[i].mend));
        free(config);
    }
    static const char *const only[] = {"delays", NULL};
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .only = only};
    rf_doctor_run(&options, &report);
    assert_int_equal(report.n, 1);
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
            assert_true(rdma_says(RF_DOCTOR_FAIL, cases[i].says));
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

static bool dpdk_says(rf_doctor_severity_t severity, const char *text)
{
    for (unsigned i = 0; i < report.n; i++) {
        const rf_doctor_finding_t *f = &report.findings[i];
        if (strcmp(f->check, "dpdk") == 0 && f->severity == severity && strstr(f->what, text)) return true;
    }
    return false;
}

static void test_dpdk_on_an_interface(void **state)
{
    (void)state;
    dpdk_root();
    dpdk_run("interface: eth7");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "/x/y.yaml:5: dpdk: this host has no network interface 'eth7'"));
    rdma_file("sys/class/net/eth7/mtu", "1500\n");
    rdma_file("sys/class/net/eth7/operstate", "down\n");
    dpdk_run("interface: eth7");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "eth7 is down"));
    rdma_file("sys/class/net/eth7/operstate", "up\n");
    dpdk_run("interface: eth7");
    assert_true(dpdk_says(RF_DOCTOR_GOOD, "eth7 is up"));
    assert_true(dpdk_says(RF_DOCTOR_GOOD, "an MTU of 1500"));
    dpdk_run("interface: eth7, mtu: 9000");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "an MTU of 1500, and the configuration wants 9000"));
    rdma_file("sys/class/net/eth7/queues/rx-0/x", "");
    rdma_file("sys/class/net/eth7/queues/rx-1/x", "");
    dpdk_run("interface: eth7, driver: af_xdp");
    assert_false(dpdk_says(RF_DOCTOR_FAIL, "receive queues"));
    for (unsigned i = 2; i < 17; i++) {
        char path[64];
        snprintf(path, sizeof path, "sys/class/net/eth7/queues/rx-%u/x", i);
        rdma_file(path, "");
    }
    dpdk_run("interface: eth7, driver: af_xdp");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "17 receive queues, and a link driver takes 16"));
    assert_true(dpdk_says(RF_DOCTOR_NOTE, "af_xdp takes all frames of eth7"));
    dpdk_run("interface: eth7, cpu: 3");
    assert_false(dpdk_says(RF_DOCTOR_NOTE, "CPU 3"));
    dpdk_run("ports: [{interface: eth7, address: '10.1.0.[1-2]', cpu: 3}, {interface: eth8, address: "
             "'10.2.0.[1-2]', cpu: 3}]");
    assert_true(
        dpdk_says(RF_DOCTOR_NOTE, "CPU 3 of a link driver, which polls, is also that of another port's"));
    dpdk_run("interface: eth7, hugepages: on");
    rdma_remove();
}

static void test_dpdk_on_a_device(void **state)
{
    (void)state;
    dpdk_root();
    dpdk_run("device: \"03:00.0\"");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "no PCI device 0000:03:00.0"));
    rdma_file("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086\n");
    char path[128];
    snprintf(path, sizeof path, "%s/sys/bus/pci/devices/0000:03:00.0/driver", rdma_root);
    assert_int_equal(symlink("../../drivers/ixgbe", path), 0);
    dpdk_run("device: \"03:00.0\"");
    assert_true(dpdk_says(RF_DOCTOR_FAIL, "bound to the kernel's driver ixgbe"));
    assert_true(dpdk_says(RF_DOCTOR_NOTE, "no IOMMU"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("../../drivers/vfio-pci", path), 0);
    rdma_file("sys/kernel/iommu_groups/0/type", "DMA\n");
    dpdk_run("device: \"0000:03:00.0\"");
    assert_true(dpdk_says(RF_DOCTOR_GOOD, "bound to vfio-pci"));
    assert_false(dpdk_says(RF_DOCTOR_NOTE, "no IOMMU"));
    rdma_remove();
    rf_doctor_options_t options = {.node = RF_NODE_NONE, .run_base = "/tmp"};
    rf_doctor_run(&options, &report);
    assert_true(dpdk_says(RF_DOCTOR_GOOD, "rackfish lab dpdk"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_findings_are_whole),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_transport_and_host_that_are_not_there),
        cmocka_unit_test(test_no_packets_from_no_host),
        cmocka_unit_test(test_socket_path_too_long),
        cmocka_unit_test(test_closed_folder_is_found),
        cmocka_unit_test(test_rdma_is_well),
        cmocka_unit_test(test_rdma_says_what_is_less),
        cmocka_unit_test(test_rdma_port_down_and_no_device),
        cmocka_unit_test(test_rdma_wanted_and_not_to_be_had),
        cmocka_unit_test(test_rdma_as_it_is_told),
        cmocka_unit_test(test_rdma_iwarp),
        cmocka_unit_test(test_rdma_device_by_name),
        cmocka_unit_test(test_packets_reach_another_host),
        cmocka_unit_test(test_packets_by_another_interface_say_nothing),
        cmocka_unit_test(test_dpdk_on_an_interface),
        cmocka_unit_test(test_dpdk_on_a_device),
        cmocka_unit_test(test_need_grows_with_cores),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_memory_locked),
        cmocka_unit_test(test_links_of_a_leader),
        cmocka_unit_test(test_witness),
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_leases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
