/* An emulated machine: N nodes of this host, the same configuration file and code path as N hosts. */
#include "cli/up.h"

#include "base/os.h"
#include "base/prng.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES 32

/* A listening socket on a free loopback port: bound here and handed over, so that nobody takes the port in between. */
static int listen_on_loopback(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    *port = ntohs(address.sin_port);
    int high = fcntl(fd, F_DUPFD_CLOEXEC, UP_HIGH_FD);
    close(fd);
    return high;
}

static int write_key(const up_t *up)
{
    uint8_t key[KEY_BYTES];
    char hex[2 * KEY_BYTES + 2], path[CLI_PATH_MAX];
    rf_random_secret(key, sizeof key);
    for (unsigned i = 0; i < KEY_BYTES; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    hex[2 * KEY_BYTES] = '\n';
    snprintf(path, sizeof path, "%s/cluster.key", up->dir.path);
    rf_err_t err = rf_file_write(path, hex, 2 * KEY_BYTES + 1);
    explicit_bzero(key, sizeof key);
    explicit_bzero(hex, sizeof hex);
    return err == RF_OK ? CLI_OK : cli_error(up->cli, "cannot write %s: %s", path, strerror(errno));
}

int up_write_emulated(up_t *up)
{
    const up_options_t *o = &up->options;
    uint16_t ports[RF_NODES_MAX];
    char error[RF_CONFIG_ERROR_MAX];
    for (unsigned i = 0; i < o->nodes; i++) {
        up->listen_fds[i] = listen_on_loopback(&ports[i]);
        if (up->listen_fds[i] < 0)
            return cli_error(up->cli, "cannot listen on a loopback port: %s", strerror(errno));
    }
    int status = write_key(up);
    if (status != CLI_OK) return status;
    rf_config_emulation_t emulation = {
        .machine = up->cli->machine,
        .nodes = o->nodes,
        .cores = o->cores,
        .ports = ports,
        .key_file = "cluster.key",
        .transport = o->transport,
        .plan = o->plan,
        .encrypt = o->encrypt,
        .one_sided = o->one_sided,
        .leases = o->leases,
        .allow_root = o->allow_root,
        .users = o->users,
        .n_users = o->n_users,
    };
    snprintf(up->config_path, sizeof up->config_path, "%s/config.yaml", up->dir.path);
    int fd = open(up->config_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out) return cli_error(up->cli, "cannot write %s: %s", up->config_path, strerror(errno));
    rf_err_t err = rf_config_write_emulated(&emulation, out, error);
    if (fclose(out) != 0 && err == RF_OK)
        return cli_error(up->cli, "cannot write %s: %s", up->config_path, strerror(errno));
    return err == RF_OK ? CLI_OK : cli_usage(up->cli, "%s", error);
}
