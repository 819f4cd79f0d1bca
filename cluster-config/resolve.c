/* What depends on this host: the key file, the users' names, which node this host is, and its CPUs. */
#include "cluster-config/parse.h"

#include "base/os.h"
#include "config.pb-c.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE_MAX (2 * RF_CONFIG_KEY_MAX + 2) /* hex and a line end */
#define KEY_MEND     "make one with: (umask 077; head -c 32 /dev/urandom > %s)"

typedef Rackfish__Config__Machine machine_t;

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Hex text (with an end of line or not) or raw bytes into the key. */
static void key_decode(const uint8_t *bytes, size_t size, rf_config_t *config)
{
    size_t text = size;
    while (text > 0 && (bytes[text - 1] == '\n' || bytes[text - 1] == '\r')) text--;
    bool hex = text >= 2 && text % 2 == 0;
    for (size_t i = 0; i < text && hex; i++) hex = hex_digit((char)bytes[i]) >= 0;
    config->key_size = 0;
    if (hex && text / 2 <= RF_CONFIG_KEY_MAX) {
        for (size_t i = 0; i < text; i += 2)
            config->key[config->key_size++] =
                (uint8_t)(hex_digit((char)bytes[i]) << 4 | hex_digit((char)bytes[i + 1]));
        return;
    }
    if (size <= RF_CONFIG_KEY_MAX) {
        memcpy(config->key, bytes, size);
        config->key_size = size;
    }
}

static bool key_is_constant(const rf_config_t *config)
{
    for (size_t i = 1; i < config->key_size; i++) {
        if (config->key[i] != config->key[0]) return false;
    }
    return true;
}

static rf_err_t key_path_make(rf_reader_t *reader, int line, const char *key_file, rf_config_t *config)
{
    const char *slash = strrchr(config->path, '/');
    int folder = key_file[0] == '/' || !slash ? 0 : (int)(slash - config->path + 1);
    int n = snprintf(config->key_path, sizeof config->key_path, "%.*s%s", folder, config->path, key_file);
    if (n < 0 || (size_t)n >= sizeof config->key_path)
        return rf_reader_fail(reader, line, "key_file: a path that is too long; move the file");
    return RF_OK;
}

static rf_err_t key_resolve(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    int line = rf_reader_line(reader, m, "key_file", 0);
    if (!m->key_file || !m->key_file[0])
        return rf_reader_fail(reader, line, "no key_file; " KEY_MEND " and name it", "rack.key");
    rf_err_t err = key_path_make(reader, line, m->key_file, config);
    if (err != RF_OK) return err;
    uint8_t bytes[KEY_FILE_MAX + 1];
    struct stat st;
    int fd = open(config->key_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT
                   ? rf_reader_fail(reader, line, "key_file: %.80s does not exist; " KEY_MEND,
                                    config->key_path, m->key_file)
                   : rf_reader_fail(reader, line,
                                    "key_file: %.80s cannot be read: %s; let the one who starts it read it",
                                    config->key_path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return rf_reader_fail(reader, line, "key_file: %.80s is not a file; " KEY_MEND, config->key_path,
                              "rack.key");
    }
    ssize_t n = read(fd, bytes, sizeof bytes);
    close(fd);
    if ((st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        err = rf_reader_fail(reader, line, "key_file: %.80s is open to others (mode %04o); chmod 600 %s",
                             config->key_path, (unsigned)(st.st_mode & 07777), m->key_file);
    else if (n < 0)
        err = rf_reader_fail(reader, line, "key_file: %.80s cannot be read: %s; mend that", config->key_path,
                             strerror(errno));
    else if ((size_t)n > KEY_FILE_MAX)
        err = rf_reader_fail(reader, line, "key_file: %.80s is longer than %d bytes; " KEY_MEND,
                             config->key_path, RF_CONFIG_KEY_MAX, m->key_file);
    else {
        key_decode(bytes, (size_t)n, config);
        if (config->key_size == 0 && n > 0)
            err = rf_reader_fail(reader, line, "key_file: %.80s is longer than %d bytes; " KEY_MEND,
                                 config->key_path, RF_CONFIG_KEY_MAX, m->key_file);
        else if (config->key_size < RF_CONFIG_KEY_MIN)
            err = rf_reader_fail(reader, line, "key_file: %.80s holds %zu bytes, fewer than %d; " KEY_MEND,
                                 config->key_path, config->key_size, RF_CONFIG_KEY_MIN, m->key_file);
        else if (key_is_constant(config))
            err = rf_reader_fail(reader, line, "key_file: %.80s holds one byte repeated; " KEY_MEND,
                                 config->key_path, m->key_file);
    }
    explicit_bzero(bytes, sizeof bytes);
    return err;
}

static rf_err_t users_resolve(rf_reader_t *reader, const machine_t *m, rf_config_t *config)
{
    for (unsigned i = 0; i < config->n_users; i++) {
        const char *user = config->users[i];
        bool group = user[0] == '@';
        if (group ? getgrnam(user + 1) != NULL : getpwnam(user) != NULL) continue;
        return rf_reader_fail(reader, rf_reader_line(reader, m, "users", i),
                              "users: there is no %s '%s' on this host; create it or remove it here",
                              group ? "group" : "user", group ? user + 1 : user);
    }
    return RF_OK;
}

static bool cpu_in(unsigned cpu, const unsigned *cpus, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (cpus[i] == cpu) return true;
    }
    return false;
}

/* "0-3,8" of an ascending list. */
static void cpus_write(const unsigned *cpus, unsigned n, char *text, size_t max)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < n && used < max;) {
        unsigned j = i;
        while (j + 1 < n && cpus[j + 1] == cpus[j] + 1) j++;
        used += (size_t)(j > i ? snprintf(text + used, max - used, "%s%u-%u", i ? "," : "", cpus[i], cpus[j])
                               : snprintf(text + used, max - used, "%s%u", i ? "," : "", cpus[i]));
        i = j + 1;
    }
}

typedef struct local {
    rf_config_t *config;
    const char *file; /* how errors call it */
    char *error;
} local_t;

static rf_err_t cpus_fail(const local_t *local, const rf_config_node_t *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static rf_err_t cpus_fail(const local_t *local, const rf_config_node_t *node, const char *format, ...)
{
    char text[240];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(local->error, RF_CONFIG_ERROR_MAX, "%.250s:%d: %s", local->file, node->cores_line, text);
    return RF_ERR_CONFIG;
}

static rf_err_t node_resolve_local(const local_t *local, rf_node_t index)
{
    rf_config_t *config = local->config;
    rf_config_node_t *node = &config->nodes[index], before = *node;
    unsigned allowed[RF_CORES_PER_NODE_MAX];
    unsigned n_allowed = rf_cpu_allowed(allowed, RF_CORES_PER_NODE_MAX);
    if (n_allowed == 0)
        return cpus_fail(local, node, "cores: the CPUs this process may use cannot be read: %s",
                         strerror(errno));
    char has[80];
    cpus_write(allowed, n_allowed, has, sizeof has);
    if (node->cores_form == RF_CONFIG_CORES_ALL) {
        node->n_cores = (rf_core_t)n_allowed;
        for (unsigned i = 0; i < n_allowed; i++) node->cpus[i] = (uint16_t)allowed[i];
    } else if (node->cores_form == RF_CONFIG_CORES_COUNT) {
        if (node->n_cores > n_allowed && !config->emulated)
            return cpus_fail(local, node,
                             "cores: %u cores on host '%s', which may use %u CPU(s) (%s); write at most %u",
                             node->n_cores, node->name, n_allowed, has, n_allowed);
        unsigned dealt =
            config->emulated ? node->first_core : 0; /* round robin over all cores of the machine */
        for (unsigned i = 0; i < node->n_cores; i++)
            node->cpus[i] = (uint16_t)allowed[(dealt + i) % n_allowed];
    } else {
        for (unsigned i = 0; i < node->n_cores; i++) {
            if (!cpu_in(node->cpus[i], allowed, n_allowed))
                return cpus_fail(local, node,
                                 "cores: CPU %u does not exist on host '%s', or may not be used; it has %s",
                                 node->cpus[i], node->name, has);
        }
    }
    if (rf_config_number_cores(config) != RF_OK) {
        *node = before;
        return cpus_fail(local, node, "cores: with the %u of host '%s' more than %d in all; name fewer",
                         n_allowed, before.name, RF_CORES_MAX);
    }
    return RF_OK;
}

rf_err_t rf_config_resolve_local(rf_config_t *config, rf_node_t index, char *error)
{
    if (index >= config->n_nodes) return RF_ERR_INVALID;
    return node_resolve_local(&(local_t){config, config->path, error}, index);
}

rf_err_t rf_config_resolve_remote(rf_config_t *config, rf_node_t index, rf_core_t n_cores)
{
    if (index >= config->n_nodes || n_cores == 0) return RF_ERR_INVALID;
    rf_config_node_t *node = &config->nodes[index];
    if (n_cores > RF_CORES_PER_NODE_MAX) return RF_ERR_LIMIT;
    if (node->n_cores != 0) return node->n_cores == n_cores ? RF_OK : RF_ERR_INVALID;
    node->n_cores = n_cores;
    if (rf_config_number_cores(config) != RF_OK) {
        node->n_cores = 0;
        return RF_ERR_LIMIT;
    }
    for (unsigned i = 0; i < n_cores; i++) node->cpus[i] = (uint16_t)i;
    return RF_OK;
}

/* Whether a numeric address belongs to an interface of this host. */
static bool address_is_local(const struct ifaddrs *interfaces, const char *address)
{
    struct in_addr v4;
    struct in6_addr v6;
    bool is4 = inet_pton(AF_INET, address, &v4) == 1, is6 = !is4 && inet_pton(AF_INET6, address, &v6) == 1;
    for (const struct ifaddrs *i = interfaces; i; i = i->ifa_next) {
        if (!i->ifa_addr) continue;
        if (is4 && i->ifa_addr->sa_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)i->ifa_addr;
            if (in->sin_addr.s_addr == v4.s_addr) return true;
        } else if (is6 && i->ifa_addr->sa_family == AF_INET6) {
            const struct sockaddr_in6 *in6 = (const void *)i->ifa_addr;
            if (memcmp(&in6->sin6_addr, &v6, sizeof v6) == 0) return true;
        }
    }
    return false;
}

static bool host_name_equal(const char *configured, const char *hostname)
{
    size_t a = strcspn(configured, "."), b = strcspn(hostname, ".");
    if (configured[a] && hostname[b]) return strcasecmp(configured, hostname) == 0;
    return a == b && strncasecmp(configured, hostname, a) == 0;
}

rf_node_t rf_config_this_node(const rf_config_t *config, const char *wanted_name)
{
    if (wanted_name) {
        for (unsigned i = 0; i < config->n_nodes; i++) {
            if (strcasecmp(config->nodes[i].name, wanted_name) == 0) return (rf_node_t)i;
        }
        return RF_NODE_NONE;
    }
    char hostname[256];
    if (gethostname(hostname, sizeof hostname) == 0) {
        hostname[sizeof hostname - 1] = '\0';
        for (unsigned i = 0; i < config->n_nodes; i++) {
            if (host_name_equal(config->nodes[i].name, hostname)) return (rf_node_t)i;
        }
    }
    struct ifaddrs *interfaces;
    if (getifaddrs(&interfaces) < 0) return RF_NODE_NONE;
    rf_node_t found = RF_NODE_NONE;
    for (unsigned i = 0; i < config->n_nodes && found == RF_NODE_NONE; i++) {
        if (address_is_local(interfaces, config->nodes[i].address)) found = (rf_node_t)i;
    }
    freeifaddrs(interfaces);
    return found;
}

rf_err_t rf_config_resolve(rf_reader_t *reader, const ProtobufCMessage *message, rf_config_t *config)
{
    const machine_t *m = (const machine_t *)message;
    rf_err_t err = key_resolve(reader, m, config);
    if (err == RF_OK) err = users_resolve(reader, m, config);
    rf_node_t this_node = rf_config_this_node(config, NULL);
    for (unsigned i = 0; i < config->n_nodes && err == RF_OK; i++) {
        if (config->emulated || i == this_node)
            err = node_resolve_local(&(local_t){config, reader->name, reader->error}, (rf_node_t)i);
    }
    return err;
}
