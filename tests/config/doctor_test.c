/* The preflight: every finding is whole; what a test can break is found; needs grow with the configuration. */
#include "cluster-config/doctor.h"
#include "cluster-config/parse.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static rf_doctor_report_t report;

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

static void rdma_run(bool wanted)
{
    rf_config_t *config =
        wanted ? parse("nodes: [{hosts: \"a,b\", address: \"127.0.0.1,127.0.0.2\", cores: 1}]\n"
                       "transports: [{between: [a, b], use: rdma}]\n")
               : NULL;
    rf_doctor_options_t options = {
        .config = config, .node = wanted ? 0 : RF_NODE_NONE, .run_base = "/tmp", .sys_root = rdma_root};
    rf_doctor_run(&options, &report);
    free(config);
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
            .config = config, .node = 0, .run_base = "/tmp", .sys_root = rdma_root};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_findings_are_whole),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_transport_and_host_that_are_not_there),
        cmocka_unit_test(test_socket_path_too_long),
        cmocka_unit_test(test_closed_folder_is_found),
        cmocka_unit_test(test_rdma_is_well),
        cmocka_unit_test(test_rdma_says_what_is_less),
        cmocka_unit_test(test_rdma_port_down_and_no_device),
        cmocka_unit_test(test_rdma_wanted_and_not_to_be_had),
        cmocka_unit_test(test_rdma_device_by_name),
        cmocka_unit_test(test_need_grows_with_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
