/* Loading, and what can be asked of a loaded configuration. */
#include "cluster-config/parse.h"

#include "config.pb-c.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DPDK_TEXT_MAX 384

void rf_config_source_free(rf_config_source_t *source)
{
    if (source->message) protobuf_c_message_free_unpacked(source->message, NULL);
    free(source->reader);
    *source = (rf_config_source_t){0};
}

rf_err_t rf_config_parse(const char *name, const char *text, size_t size, rf_config_t **out,
                         rf_config_source_t *source_out, char *error)
{
    rf_config_source_t source = {.reader = malloc(sizeof *source.reader)};
    rf_config_t *config = calloc(1, sizeof *config);
    rf_err_t err = RF_ERR_CONFIG;
    if (!source.reader || !config) {
        snprintf(error, RF_CONFIG_ERROR_MAX, "%.250s:1: out of memory while reading", name);
    } else {
        source.reader->name = name;
        source.reader->error = error;
        err = rf_reader_read(source.reader, text, size, &rackfish__config__machine__descriptor,
                             &source.message);
        if (err == RF_OK) err = rf_config_validate(source.reader, source.message, config);
    }
    if (err == RF_OK && source_out)
        *source_out = source;
    else
        rf_config_source_free(&source);
    if (err == RF_OK)
        *out = config;
    else
        free(config);
    return err;
}

/* Reads all of a regular file of bounded size; the caller frees *text. */
static rf_err_t text_read(const char *path, char **text, size_t *size, char *error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        snprintf(error, RF_CONFIG_ERROR_MAX, "%.250s:1: cannot be opened: %s; name a file that can be read",
                 path, strerror(errno));
        return RF_ERR_CONFIG;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > RF_READER_BYTES_MAX) {
        snprintf(error, RF_CONFIG_ERROR_MAX,
                 "%.250s:1: is no file of at most %u KiB; name a configuration file", path,
                 RF_READER_BYTES_MAX / 1024);
        close(fd);
        return RF_ERR_CONFIG;
    }
    char *bytes = malloc(RF_READER_BYTES_MAX);
    size_t used = 0;
    ssize_t n = bytes ? 0 : -1;
    while (bytes && used < RF_READER_BYTES_MAX &&
           (n = read(fd, bytes + used, RF_READER_BYTES_MAX - used)) > 0)
        used += (size_t)n;
    if (n < 0) {
        snprintf(error, RF_CONFIG_ERROR_MAX, "%.250s:1: cannot be read: %s", path, strerror(errno));
        free(bytes);
        close(fd);
        return RF_ERR_CONFIG;
    }
    close(fd);
    *text = bytes;
    *size = used;
    return RF_OK;
}

rf_err_t rf_config_load(const char *path, rf_config_t **out, char *error)
{
    char *text = NULL, *absolute = NULL;
    size_t size = 0;
    rf_config_t *config = NULL;
    rf_config_source_t source = {0};
    rf_err_t err = text_read(path, &text, &size, error);
    if (err == RF_OK) err = rf_config_parse(path, text, size, &config, &source, error);
    free(text);
    if (err != RF_OK) return err;
    absolute = realpath(path, NULL);
    if (!absolute || strlen(absolute) >= sizeof config->path)
        err = rf_reader_fail(source.reader, 1, "its path is too long or just went away; move the file");
    else
        snprintf(config->path, sizeof config->path, "%s", absolute);
    if (err == RF_OK) err = rf_config_resolve(source.reader, source.message, config);
    free(absolute);
    rf_config_source_free(&source);
    if (err == RF_OK) {
        *out = config;
    } else {
        explicit_bzero(config->key, sizeof config->key);
        free(config);
    }
    return err;
}

void rf_config_port_place(const rf_config_t *config, rf_node_t node, char *place, size_t max)
{
    snprintf(place, max, "%s:%d", config->path, node < config->n_nodes ? config->nodes[node].port_line : 1);
}

void rf_config_dpdk_text(const rf_config_dpdk_t *dpdk, char *out, size_t max)
{
    snprintf(out, max, "%s %s %s %s %u %u %u %d %d %d %u", dpdk->device, dpdk->interface, dpdk->address,
             dpdk->gateway, dpdk->udp_port, dpdk->mtu, dpdk->memory_mib, dpdk->cpu, dpdk->hugepages,
             dpdk->encrypt, dpdk->queues);
}

static bool dpdk_equal(const rf_config_node_t *a, const rf_config_node_t *b)
{
    char text_a[DPDK_TEXT_MAX], text_b[DPDK_TEXT_MAX];
    if (a->n_dpdk != b->n_dpdk) return false;
    for (unsigned i = 0; i < a->n_dpdk; i++) {
        rf_config_dpdk_text(&a->dpdk[i], text_a, sizeof text_a);
        rf_config_dpdk_text(&b->dpdk[i], text_b, sizeof text_b);
        if (strcmp(text_a, text_b) != 0) return false;
    }
    return true;
}

static bool nodes_equal(const rf_config_t *a, const rf_config_t *b)
{
    if (a->n_nodes != b->n_nodes) return false;
    for (unsigned i = 0; i < a->n_nodes; i++) {
        const rf_config_node_t *x = &a->nodes[i], *y = &b->nodes[i];
        bool told =
            x->cores_form != RF_CONFIG_CORES_ALL; /* `all` may be resolved in one and not yet in the other */
        if (strcmp(x->name, y->name) != 0 || strcmp(x->address, y->address) != 0 || x->port != y->port ||
            x->memory_bytes != y->memory_bytes || x->cores_form != y->cores_form ||
            x->witness != y->witness || (told && x->n_cores != y->n_cores) || strcmp(x->rdma, y->rdma) != 0 ||
            !dpdk_equal(x, y))
            return false;
        if (x->cores_form == RF_CONFIG_CORES_LIST &&
            memcmp(x->cpus, y->cpus, x->n_cores * sizeof *x->cpus) != 0)
            return false;
    }
    return true;
}

void rf_config_not_reloadable(const rf_config_t *running, const rf_config_t *fresh, char *names, size_t max)
{
    const struct {
        const char *name;
        bool differs;
    } settings[] = {
        {"machine", strcmp(running->machine, fresh->machine) != 0},
        {"key_file", running->key_size != fresh->key_size ||
                         gnutls_memcmp(running->key, fresh->key, running->key_size) != 0},
        {"encrypt", running->encrypt != fresh->encrypt},
        {"allow_root", running->allow_root != fresh->allow_root},
        {"emulated", running->emulated != fresh->emulated},
        {"heartbeat_ms", running->heartbeat_ms != fresh->heartbeat_ms},
        {"host_deadline_ms", running->host_deadline_ms != fresh->host_deadline_ms},
        {"election_ms", running->election_ms != fresh->election_ms},
        {"voters", running->voters_max != fresh->voters_max || running->n_voters != fresh->n_voters ||
                       memcmp(running->voters, fresh->voters, sizeof running->voters) != 0},
        {"leases", (running->lease_ms == 0) != (fresh->lease_ms == 0)},
        {"lease_drift", running->lease_ms && fresh->lease_ms && running->lease_drift != fresh->lease_drift},
        {"one_sided", running->one_sided != fresh->one_sided},
        {"plan", strcmp(running->plan, fresh->plan) != 0},
        {"weights", memcmp(running->weights, fresh->weights, sizeof running->weights) != 0},
        {"scheduler", running->sched != fresh->sched},
        {"nodes", !nodes_equal(running, fresh)},
        {"transports", memcmp(running->medium, fresh->medium, sizeof running->medium) != 0},
    };
    size_t used = 0;
    names[0] = '\0';
    for (unsigned i = 0; i < sizeof settings / sizeof *settings && used < max; i++) {
        if (settings[i].differs)
            used += (size_t)snprintf(names + used, max - used, "%s%s", used ? ", " : "", settings[i].name);
    }
}

/* Numbers and zero-terminated strings, in a fixed order; every string's end is hashed, so that no two run
 * together. */
static void digest_number(gnutls_hash_hd_t hash, uint64_t value)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    gnutls_hash(hash, bytes, sizeof bytes);
}

static void digest_text(gnutls_hash_hd_t hash, const char *text)
{
    gnutls_hash(hash, text, strlen(text) + 1);
}

void rf_config_digest(const rf_config_t *config, uint8_t digest[32])
{
    gnutls_hash_hd_t hash;
    memset(digest, 0, 32);
    char dpdk[DPDK_TEXT_MAX];
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0) return;
    digest_text(hash, config->machine);
    digest_number(hash, config->encrypt);
    digest_number(hash, config->allow_root);
    digest_number(hash, config->emulated);
    digest_number(hash, config->heartbeat_ms);
    digest_number(hash, config->host_deadline_ms);
    digest_number(hash, config->election_ms);
    digest_number(hash, config->one_sided);
    digest_number(hash, config->lease_ms);
    digest_number(hash, config->lease_drift);
    digest_number(hash, config->voters_max);
    digest_number(hash, config->n_voters);
    for (unsigned i = 0; i < config->n_voters; i++) digest_number(hash, config->voters[i]);
    digest_text(hash, config->plan);
    for (unsigned i = 0; i < 3; i++) digest_number(hash, config->weights[i]);
    digest_number(hash, config->sched);
    digest_number(hash, config->n_nodes);
    for (unsigned i = 0; i < config->n_nodes; i++) {
        const rf_config_node_t *node = &config->nodes[i];
        digest_text(hash, node->name);
        digest_text(hash, node->address);
        digest_number(hash, node->port);
        digest_number(hash, node->memory_bytes);
        digest_text(hash, node->rdma);
        digest_number(hash, node->n_dpdk);
        for (unsigned j = 0; j < node->n_dpdk; j++) {
            rf_config_dpdk_text(&node->dpdk[j], dpdk, sizeof dpdk);
            digest_text(hash, dpdk);
        }
        digest_number(hash, node->cores_form);
        digest_number(hash, node->cores_form == RF_CONFIG_CORES_ALL ? 0 : node->n_cores);
        for (unsigned j = 0; node->cores_form == RF_CONFIG_CORES_LIST && j < node->n_cores; j++)
            digest_number(hash, node->cpus[j]);
        for (unsigned j = 0; j < config->n_nodes; j++) digest_text(hash, config->medium[i][j]);
        if (node->witness) digest_text(hash, "witness"); /* else as where there is no such key yet */
    }
    gnutls_hash_deinit(hash, digest);
}
