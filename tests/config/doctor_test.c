/* The preflight: every finding is whole; what a test can break is found; needs grow with the configuration. */
#include "doctor_rig.h"

#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_findings_are_whole),
        cmocka_unit_test(test_port_in_use),
        cmocka_unit_test(test_transport_and_host_that_are_not_there),
        cmocka_unit_test(test_no_packets_from_no_host),
        cmocka_unit_test(test_socket_path_too_long),
        cmocka_unit_test(test_closed_folder_is_found),
        cmocka_unit_test(test_need_grows_with_cores),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_memory_locked),
        cmocka_unit_test(test_links_of_a_leader),
        cmocka_unit_test(test_witness),
        cmocka_unit_test(test_delays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
