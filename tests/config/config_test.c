/*
 * The configuration: samples load; every file in bad/ gives exactly the line in its .expected ('*' there
 * stands for what differs from host to host) and nothing else; what is written for an emulated machine reads
 * back; digest and reload.
 */
#include "base/os.h"
#include "cluster-config/config.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "right_config.h"

static char folder[] = "/tmp/rf-config-test-XXXXXX";

static void file_make(const char *name, const void *bytes, size_t size, mode_t mode)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(rf_write_all(fd, bytes, size), RF_OK);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void text_make(const char *name, const char *text)
{
    file_make(name, text, strlen(text), 0644);
}

static size_t file_copy(const char *from, const char *to)
{
    char *bytes = malloc(1 << 16);
    ssize_t n = rf_file_read(from, bytes, 1 << 16);
    assert_true(n >= 0);
    file_make(to, bytes, (size_t)n, 0644);
    free(bytes);
    return (size_t)n;
}

static int folder_setup(void **state)
{
    (void)state;
    uint8_t key[300];
    for (size_t i = 0; i < sizeof key; i++) key[i] = (uint8_t)(i * 37 + 11);
    if (!mkdtemp(folder) || chdir(folder) != 0) return -1;
    file_make("rack.key", key, 32, 0600);
    file_make("short.key", key, 8, 0600);
    file_make("long.key", key, sizeof key, 0600);
    file_make("open.key", key, 32, 0644);
    memset(key, 0, sizeof key);
    file_make("zero.key", key, 32, 0600);
    return mkdir("folder.key", 0700);
}

static int folder_teardown(void **state)
{
    (void)state;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        unlinkat(dirfd(dir), entry->d_name, strcmp(entry->d_name, "folder.key") == 0 ? AT_REMOVEDIR : 0);
    if (dir) closedir(dir);
    return chdir("/") | rmdir(folder);
}

/* '*' matches any run of characters. */
static bool matches(const char *pattern, const char *text)
{
    for (; *pattern && *pattern != '*'; pattern++, text++) {
        if (*pattern != *text) return false;
    }
    if (*pattern == '\0') return *text == '\0';
    for (;; text++) {
        if (matches(pattern + 1, text)) return true;
        if (*text == '\0') return false;
    }
}

static void test_samples_load(void **state)
{
    (void)state;
    static const char *const samples[] = {"laptop.yaml", "two-hosts.yaml", "rack.yaml"};
    for (unsigned i = 0; i < 3; i++) {
        char path[512], error[RF_CONFIG_ERROR_MAX] = "";
        rf_config_t *config = NULL;
        snprintf(path, sizeof path, RF_SOURCE_DIR "/cluster-config/samples/%s", samples[i]);
        file_copy(path, samples[i]);
        rf_err_t err = rf_config_load(samples[i], &config, error);
        assert_string_equal(error, "");
        assert_int_equal(err, RF_OK);
        assert_int_equal(config->key_size, 32);
        free(config);
    }
}

static void test_sample_is_understood(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX], place[4200];
    rf_config_t *config = NULL;
    assert_int_equal(rf_config_load("rack.yaml", &config, error), RF_OK);
    assert_string_equal(config->machine, "rack");
    assert_int_equal(config->n_nodes, 17);
    assert_int_equal(config->n_cores, 16 * 16 + 8);
    assert_string_equal(config->nodes[8].name, "rack09");
    assert_string_equal(config->nodes[8].address, "10.0.0.9");
    assert_int_equal(config->nodes[8].first_core, 8 * 16);
    assert_int_equal(config->nodes[8].cpus[8], 16);
    assert_true(config->nodes[8].memory_bytes == 64ull << 30);
    assert_int_equal(config->nodes[8].port, 7117);
    assert_string_equal(config->nodes[16].address, "head");
    assert_string_equal(config->medium[0][15], "tcp");
    assert_string_equal(config->medium[3][3], "shm");
    assert_int_equal(config->heartbeat_ms, 100);
    assert_int_equal(config->log_level, 2);
    assert_true(config->encrypt && !config->one_sided);
    assert_string_equal(config->plan, "host");
    rf_config_port_place(config, 0, place, sizeof place);
    assert_true(matches("/*/rack.yaml:18", place));
    assert_int_equal(rf_config_this_node(config, "RACK03"), 2);
    assert_int_equal(rf_config_this_node(config, "rock03"), RF_NODE_NONE);
    free(config);
}

static void test_bad_files_name_line_and_mend(void **state)
{
    (void)state;
    DIR *dir = opendir(RF_SOURCE_DIR "/tests/config/bad");
    assert_non_null(dir);
    unsigned files = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[512], expected[RF_CONFIG_ERROR_MAX] = "", error[RF_CONFIG_ERROR_MAX] = "";
        char *dot = strstr(entry->d_name, ".yaml");
        if (!dot) continue;
        snprintf(path, sizeof path, RF_SOURCE_DIR "/tests/config/bad/%s", entry->d_name);
        file_copy(path, entry->d_name);
        snprintf(path, sizeof path, RF_SOURCE_DIR "/tests/config/bad/%.*s.expected",
                 (int)(dot - entry->d_name), entry->d_name);
        assert_true(rf_file_read(path, expected, sizeof expected) > 0);
        expected[strcspn(expected, "\n")] = '\0';
        rf_config_t *config = NULL;
        rf_err_t err = rf_config_load(entry->d_name, &config, error);
        if (err != RF_ERR_CONFIG || !matches(expected, error))
            fail_msg("%s: got '%s', expected '%s'", entry->d_name, error, expected);
        assert_null(config);
        files++;
    }
    closedir(dir);
    assert_true(files >= 60);
}

static void test_missing_file(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX];
    rf_config_t *config = NULL;
    assert_int_equal(rf_config_load("nowhere.yaml", &config, error), RF_ERR_CONFIG);
    assert_true(matches("nowhere.yaml:1: cannot be opened: No such file*", error));
    assert_int_equal(rf_config_load(".", &config, error), RF_ERR_CONFIG);
    assert_int_equal(rf_config_load("/dev/zero", &config, error), RF_ERR_CONFIG);
}

static void test_key_in_hex(void **state)
{
    (void)state;
    char error[RF_CONFIG_ERROR_MAX];
    rf_config_t *config = NULL;
    static const char hex[] = "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
    file_make("hex.key", hex, strlen(hex), 0600);
    text_make("hex.yaml", "key_file: hex.key\nnodes: [{hosts: a, cores: 1}]\n");
    assert_int_equal(rf_config_load("hex.yaml", &config, error), RF_OK);
    assert_int_equal(config->key_size, 32);
    for (unsigned i = 0; i < 32; i++) assert_int_equal(config->key[i], i);
    assert_string_equal(config->machine, "rackfish");
    free(config);
}

static rf_config_t *emulate(unsigned nodes, unsigned cores)
{
    uint16_t ports[RF_NODES_MAX];
    char error[RF_CONFIG_ERROR_MAX] = "";
    const char *const users[] = {"root"};
    for (unsigned i = 0; i < RF_NODES_MAX; i++) ports[i] = (uint16_t)(30000 + i);
    rf_config_emulation_t emulation = {.machine = "emulated",
                                       .nodes = nodes,
                                       .cores = cores,
                                       .ports = ports,
                                       .key_file = "rack.key",
                                       .transport = "tcp",
                                       .plan = "package",
                                       .encrypt = false,
                                       .one_sided = true,
                                       .leases = true,
                                       .allow_root = true,
                                       .users = users,
                                       .n_users = 1};
    FILE *out = fopen("emulated.yaml", "w");
    assert_non_null(out);
    rf_err_t err = rf_config_write_emulated(&emulation, out, error);
    fclose(out);
    rf_config_t *config = NULL;
    if (err == RF_OK) err = rf_config_load("emulated.yaml", &config, error);
    if (err != RF_OK) print_message("%s\n", error);
    return config;
}

static void test_emulated_reads_back(void **state)
{
    (void)state;
    static const unsigned shapes[][2] = {{1, 1}, {2, 1}, {2, 2}, {2, 8}, {64, 16}, {4, 256}};
    unsigned allowed[RF_CORES_PER_NODE_MAX];
    unsigned n_allowed = rf_cpu_allowed(allowed, RF_CORES_PER_NODE_MAX);
    for (unsigned s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        unsigned nodes = shapes[s][0], cores = shapes[s][1];
        rf_config_t *config = emulate(nodes, cores);
        assert_non_null(config);
        assert_true(config->emulated && config->allow_root && !config->encrypt && config->one_sided);
        assert_string_equal(config->plan, "package");
        assert_true(config->lease_ms > 0);
        assert_int_equal(config->n_nodes, nodes);
        assert_int_equal(config->n_cores, nodes * cores);
        for (unsigned i = 0; i < nodes; i++) {
            assert_int_equal(config->nodes[i].port, 30000 + i);
            assert_int_equal(config->nodes[i].first_core, i * cores);
            for (unsigned j = 0; j < cores; j++)
                assert_int_equal(config->nodes[i].cpus[j], allowed[(i * cores + j) % n_allowed]);
        }
        free(config);
    }
    assert_null(emulate(0, 1));
    assert_null(emulate(65, 1));
    assert_null(emulate(8, 256));
}

static bool digests_equal(const char *a, const char *b)
{
    uint8_t da[32], db[32];
    rf_config_t *ca = parse(a), *cb = parse(b);
    rf_config_digest(ca, da);
    rf_config_digest(cb, db);
    free(ca);
    free(cb);
    return memcmp(da, db, sizeof da) == 0;
}

static void test_digest(void **state)
{
    (void)state;
    static const char base[] = "key_file: k\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n";
    assert_true(
        digests_equal(base, "key_file: other\nlog_level: debug\nnodes: [{hosts: \"a1,a2\", cores: 2}]\n"));
    assert_false(digests_equal(base, "key_file: k\nnodes: [{hosts: \"a[1-2]\", cores: 3}]\n"));
    assert_false(digests_equal(base, "key_file: k\nnodes: [{hosts: \"a[1-3]\", cores: 2}]\n"));
    assert_false(digests_equal(base, "key_file: k\nencrypt: off\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(digests_equal(base, "key_file: k\nleases: on\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(
        digests_equal("key_file: k\nleases: on\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n",
                      "key_file: k\nleases: on\nlease_drift: 3\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(digests_equal(base, "key_file: k\none_sided: on\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_true(digests_equal(base, "key_file: k\nplan: host\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(digests_equal(base, "key_file: k\nplan: package\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(digests_equal(
        "key_file: k\nplan: weighted\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n",
        "key_file: k\nplan: weighted\nweights: {package: 9}\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(
        digests_equal(base, "key_file: k\nheartbeat_ms: 50\nnodes: [{hosts: \"a[1-2]\", cores: 2}]\n"));
    assert_false(
        digests_equal(base, "key_file: k\nnodes: [{hosts: \"a[1-2]\", cores: 2, rdma: {mtu: 1024}}]\n"));
    assert_false(digests_equal(
        "key_file: k\nnodes: [{hosts: \"a,b,c\", cores: 2}]\n",
        "key_file: k\nnodes: [{hosts: \"a,b\", cores: 2}, {hosts: c, cores: 2, witness: on}]\n"));
}

static void test_reload_names_what_cannot_change(void **state)
{
    (void)state;
    char names[200];
    rf_config_t *running = parse("nodes: [{hosts: a, cores: 2}]\n");
    rf_config_t *fresh = parse("log_level: debug\nusers: [root]\nnodes: [{hosts: a, cores: 2}]\n");
    rf_config_not_reloadable(running, fresh, names, sizeof names);
    assert_string_equal(names, "");
    free(fresh);
    fresh = parse("machine: other\nheartbeat_ms: 50\nnodes: [{hosts: a, cores: 3}]\n");
    rf_config_not_reloadable(running, fresh, names, sizeof names);
    assert_string_equal(names, "machine, heartbeat_ms, nodes");
    free(fresh);
    fresh = parse("nodes: [{hosts: a, cores: 2, rdma: {mode: send}}]\n");
    rf_config_not_reloadable(running, fresh, names, sizeof names);
    assert_string_equal(names, "nodes");
    free(fresh);
    free(running);
    running = parse("leases: on\nelection_ms: 300\nnodes: [{hosts: a, cores: 2}]\n");
    fresh = parse("election_ms: 300\nnodes: [{hosts: a, cores: 2}]\n");
    assert_true(running->lease_ms == 150 && running->lease_drift == 20 && fresh->lease_ms == 0);
    rf_config_not_reloadable(running, fresh, names, sizeof names);
    assert_string_equal(names, "leases");
    free(fresh);
    free(running);
    running = parse("nodes: [{hosts: \"a,b,c\", cores: 2}]\n");
    fresh = parse("nodes: [{hosts: \"a,b\", cores: 2}, {hosts: c, cores: 2, witness: on}]\n");
    assert_true(!fresh->nodes[1].witness && fresh->nodes[2].witness);
    rf_config_not_reloadable(running, fresh, names, sizeof names);
    assert_string_equal(names, "nodes");
    free(fresh);
    free(running);
}

static void test_remote_cores_are_counted_later(void **state)
{
    (void)state;
    rf_config_t *config = parse("nodes: [{hosts: \"far[1-2]\", cores: all}, {hosts: near, cores: 4}]\n");
    assert_int_equal(config->n_cores, 4);
    assert_int_equal(rf_config_resolve_remote(config, 0, 8), RF_OK);
    assert_int_equal(rf_config_resolve_remote(config, 1, 2), RF_OK);
    assert_int_equal(config->n_cores, 14);
    assert_int_equal(config->nodes[1].first_core, 8);
    assert_int_equal(config->nodes[2].first_core, 10);
    assert_int_equal(rf_config_resolve_remote(config, 1, 2), RF_OK);
    assert_int_equal(rf_config_resolve_remote(config, 1, 3), RF_ERR_INVALID);
    assert_int_equal(rf_config_resolve_remote(config, 2, 300), RF_ERR_LIMIT);
    assert_int_equal(rf_config_resolve_remote(config, 9, 1), RF_ERR_INVALID);
    free(config);
}

static void test_first_rule_wins(void **state)
{
    (void)state;
    rf_config_t *config = parse("nodes: [{hosts: \"a[1-4]\", cores: 1}]\n"
                                "transports:\n"
                                "  - {between: [a1, \"a[2-3]\"], use: rdma}\n"
                                "  - {between: [\"a[1-4]\", \"a[1-4]\"], use: tcp}\n");
    assert_string_equal(config->medium[0][1], "rdma");
    assert_string_equal(config->medium[2][0], "rdma");
    assert_string_equal(config->medium[0][3], "tcp");
    assert_string_equal(config->medium[1][2], "tcp");
    free(config);
}

static void test_rdma_options(void **state)
{
    (void)state;
    rf_config_t *config =
        parse("defaults:\n"
              "  rdma: {mode: send}\n"
              "nodes:\n"
              "  - {hosts: a, cores: 1}\n"
              "  - hosts: \"b[1-2]\"\n"
              "    cores: 1\n"
              "    rdma: {mode: write, pkey_index: 7, mtu: 4096, service_level: 3, device: mlx5_0,\n"
              "           port: 2, traffic_class: 106, gid_index: 0}\n");
    assert_string_equal(config->nodes[0].rdma, "mode=send");
    assert_string_equal(config->nodes[0].rdma_device, "");
    assert_int_equal(config->nodes[0].rdma_line, 2);
    assert_string_equal(config->nodes[2].rdma,
                        "device=mlx5_0,port=2,gid_index=0,traffic_class=106,service_level=3,mtu=4096,"
                        "pkey_index=7,mode=write");
    assert_string_equal(config->nodes[2].rdma_device, "mlx5_0");
    assert_int_equal(config->nodes[2].rdma_line, 7);
    free(config);
    config = parse("nodes: [{hosts: a, cores: 1, rdma: {}}]\n");
    assert_string_equal(config->nodes[0].rdma, "");
    free(config);
    /* The longest there can be. */
    char longest[300], name[RF_NAME_MAX] = "";
    memset(name, 'd', sizeof name - 1);
    snprintf(longest, sizeof longest,
             "nodes: [{hosts: a, cores: 1, rdma: {device: %s, port: 254, gid_index: 255, traffic_class: 255, "
             "service_level: 15, mtu: 4096, pkey_index: 65535, mode: write}}]\n",
             name);
    config = parse(longest);
    assert_non_null(strstr(config->nodes[0].rdma, ",mode=write"));
    free(config);
}

static void test_dpdk_options(void **state)
{
    (void)state;
    rf_config_t *config =
        parse("defaults:\n"
              "  dpdk: {interface: eth1, mtu: 9000, encrypt: on}\n"
              "nodes:\n"
              "  - {hosts: a, cores: 1}\n"
              "  - hosts: \"b[1-2]\"\n"
              "    cores: 1\n"
              "    dpdk: {interface: eth2, driver: af_xdp, address: \"10.1.0.[7-8]/24\", gateway: 10.1.0.1,\n"
              "           udp_port: 4000, memory: 1G, hugepages: on, cpu: 3}\n"
              "  - {hosts: c, cores: 1, dpdk: {device: \"0000:03:00.0\"}}\n"
              "  - {hosts: d, cores: 1, dpdk: {device: \"net_memif0,role=server,socket=/run/w\"}}\n"
              "transports: [{between: [\"a,b[1-2]\", \"c,d\"], use: dpdk}]\n");
    const rf_config_dpdk_t *a = &config->nodes[0].dpdk[0], *b = &config->nodes[2].dpdk[0];
    assert_string_equal(a->device, "net_af_packet0,iface=eth1");
    assert_string_equal(a->address, "");
    assert_int_equal(a->mtu, 9000);
    assert_int_equal(a->udp_port, 7118);
    assert_int_equal(a->cpu, -1);
    assert_true(a->encrypt && !a->hugepages);
    assert_int_equal(config->nodes[0].dpdk_line, 2);
    assert_string_equal(b->device, "net_af_xdp0,iface=eth2");
    assert_string_equal(b->address, "10.1.0.8/24");
    assert_string_equal(b->gateway, "10.1.0.1");
    assert_int_equal(b->udp_port, 4000);
    assert_int_equal(b->memory_mib, 1024);
    assert_int_equal(b->cpu, 3);
    assert_true(b->hugepages && !b->encrypt);
    assert_int_equal(config->nodes[2].dpdk_line, 7);
    assert_string_equal(config->nodes[3].dpdk[0].device, "0000:03:00.0");
    assert_string_equal(config->nodes[4].dpdk[0].interface, "");
    assert_string_equal(config->medium[0][3], "dpdk");
    free(config);
    assert_false(
        digests_equal("key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {interface: e}}]\n",
                      "key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {interface: e, mtu: 1400}}]\n"));
}

static void test_dpdk_several_ports(void **state)
{
    (void)state;
    rf_config_t *config =
        parse("nodes:\n"
              "  - hosts: \"a[1-2]\"\n"
              "    cores: 1\n"
              "    dpdk:\n"
              "      ports:\n"
              "        - {interface: eth1, address: \"10.1.0.[1-2]/24\", queues: 4}\n"
              "        - {device: \"0000:03:00.0\", address: \"10.2.0.[1-2]/24\", gateway: 10.2.0.9}\n"
              "transports: [{between: [a1, a2], use: dpdk}]\n");
    const rf_config_node_t *node = &config->nodes[1];
    assert_int_equal(node->n_dpdk, 2);
    assert_string_equal(node->dpdk[0].device, "net_af_packet0,iface=eth1,qpairs=4");
    assert_string_equal(node->dpdk[0].address, "10.1.0.2/24");
    assert_int_equal(node->dpdk[0].queues, 4);
    assert_string_equal(node->dpdk[1].device, "0000:03:00.0");
    assert_string_equal(node->dpdk[1].address, "10.2.0.2/24");
    assert_string_equal(node->dpdk[1].gateway, "10.2.0.9");
    assert_int_equal(node->dpdk[1].queues, 0);
    free(config);
    assert_false(
        digests_equal("key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {ports: [{interface: e}]}}]\n",
                      "key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {ports: [{interface: f}]}}]\n"));
    assert_true(digests_equal("key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {ports: [{interface: e}]}}]\n",
                              "key_file: k\nnodes: [{hosts: a, cores: 2, dpdk: {interface: e}}]\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_load),
        cmocka_unit_test(test_sample_is_understood),
        cmocka_unit_test(test_bad_files_name_line_and_mend),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_key_in_hex),
        cmocka_unit_test(test_emulated_reads_back),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_reload_names_what_cannot_change),
        cmocka_unit_test(test_remote_cores_are_counted_later),
        cmocka_unit_test(test_first_rule_wins),
        cmocka_unit_test(test_rdma_options),
        cmocka_unit_test(test_dpdk_options),
        cmocka_unit_test(test_dpdk_several_ports),
    };
    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
