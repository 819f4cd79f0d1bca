#include "harness.h"

#include "base/os.h"
#include "wire/boot.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BOUND_MS 20000

/* ---- the guard ---- */

static void guard_run(int fd, const char *base)
{
    pid_t pids[64];
    unsigned n = 0;
    pid_t pid;
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    while (read(fd, &pid, sizeof pid) == sizeof pid) {
        for (unsigned i = 0; i < n && pid < 0; i++) {
            if (pids[i] == -pid) pids[i--] = pids[--n];
        }
        if (pid > 0 && n < 64) pids[n++] = pid;
    }
    for (unsigned i = 0; i < n; i++) kill(pids[i], SIGTERM);
    for (unsigned i = 0; i < n; i++) {
        int pidfd = rf_process_open(pids[i], 0);
        if (pidfd < 0) continue;
        if (rf_process_wait_dead(pidfd, 10000) != RF_OK) kill(pids[i], SIGKILL);
        close(pidfd);
    }
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", base);
    _exit(system(command) == 0 ? 0 : 1);
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void write_config(const harness_t *h, const char *path, const char *key_file)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "machine: m\nkey_file: %s\nemulated: on\nnodes:\n", key_file);
    for (unsigned i = 0; i < h->n_nodes; i++)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "  - {hosts: node%u, address: 127.0.0.1, port: %u, cores: \"0-0\"}\n", i, h->ports[i]);
    write_file(path, text, (size_t)n);
}

void harness_open(harness_t *h, unsigned n_nodes)
{
    memset(h, 0, sizeof *h);
    h->n_nodes = n_nodes;
    snprintf(h->rackfishd, sizeof h->rackfishd, "%s", RF_TEST_RACKFISHD);
    snprintf(h->base, sizeof h->base, "/tmp/rf-node-XXXXXX");
    assert_non_null(mkdtemp(h->base));
    chmod(h->base, 0755);
    snprintf(h->run_dir, sizeof h->run_dir, "%s/m", h->base);
    snprintf(h->config_path, sizeof h->config_path, "%s/machine.yaml", h->base);
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t guard = fork();
    assert_true(guard >= 0);
    if (guard == 0) {
        setsid();
        close(pipe_fds[1]);
        guard_run(pipe_fds[0], h->base);
    }
    close(pipe_fds[0]);
    h->guard = pipe_fds[1];
    for (unsigned i = 0; i < n_nodes; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof address;
        h->listen_fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(bind(h->listen_fds[i], (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(h->listen_fds[i], 16), 0);
        getsockname(h->listen_fds[i], (struct sockaddr *)&address, &size);
        h->ports[i] = ntohs(address.sin_port);
        fcntl(h->listen_fds[i], F_SETFD, FD_CLOEXEC);
    }
    char key_path[96], error[RF_CONFIG_ERROR_MAX];
    snprintf(key_path, sizeof key_path, "%s/machine.key", h->base);
    write_file(key_path, "0123456789abcdefghijklmnopqrstuv", 32);
    write_config(h, h->config_path, "machine.key");
    if (rf_config_load(h->config_path, &h->config, error) != RF_OK) fail_msg("%s", error);
    rf_config_digest(h->config, h->digest);
}

void harness_close(harness_t *h)
{
    free(h->config);
    close(h->guard);
    for (unsigned i = 0; i < h->n_nodes; i++) close(h->listen_fds[i]);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
    }
}

/* A script beside a copy of rackfishd: that is where it looks for its CPU driver. It finds the machine's id in the boot block. */
void harness_fake_drivers(harness_t *h)
{
    char driver[512];
    int size = snprintf(driver, sizeof driver,
                        "#!/bin/sh\n"
                        "id=$(od -An -v -tx1 -j %zu -N %zu /proc/self/fd/%d | tr -d ' \\n')\n"
                        "echo \"$id $1 $2\" >>\"${0%%/*}/started\"\n"
                        "exec sleep 60\n",
                        offsetof(rf_boot_t, machine), sizeof(rf_machine_id_t), RF_BOOT_FD);
    char path[128], command[512];
    snprintf(path, sizeof path, "%s/bin", h->base);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(command, sizeof command, "cp %s %s/rackfishd && : >%s/started && chmod 666 %s/started",
             RF_TEST_RACKFISHD, path, path, path);
    assert_int_equal(system(command), 0);
    snprintf(h->rackfishd, sizeof h->rackfishd, "%s/rackfishd", path);
    snprintf(path, sizeof path, "%s/bin/rf-cpudriver", h->base);
    write_file(path, driver, (size_t)size);
    assert_int_equal(chmod(path, 0755), 0);
}

pid_t harness_start(harness_t *h, unsigned node, const char *key, bool form, int *ready_fd)
{
    char node_name[8], listen_number[16], ready_number[16], path[128];
    int ready[2];
    snprintf(path, sizeof path, "%s", h->config_path);
    if (key) {
        char key_path[96];
        snprintf(key_path, sizeof key_path, "%s/other%u.key", h->base, node);
        write_file(key_path, key, strlen(key));
        snprintf(path, sizeof path, "%s/other%u.yaml", h->base, node);
        write_config(h, path, strrchr(key_path, '/') + 1);
    }
    snprintf(node_name, sizeof node_name, "node%u", node);
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        fcntl(h->listen_fds[node], F_SETFD, 0);
        fcntl(ready[1], F_SETFD, 0);
        snprintf(listen_number, sizeof listen_number, "%d", h->listen_fds[node]);
        snprintf(ready_number, sizeof ready_number, "%d", ready[1]);
        execl(h->rackfishd, h->rackfishd, "--config", path, "--node", node_name, "--run-dir", h->run_dir,
              "--listen-fd", listen_number, "--ready-fd", ready_number, form ? "--form" : NULL, NULL);
        _exit(127);
    }
    assert_int_equal(write(h->guard, &pid, sizeof pid), sizeof pid);
    close(ready[1]);
    if (ready_fd)
        *ready_fd = ready[0];
    else
        close(ready[0]);
    return pid;
}

void harness_reboot(harness_t *h, unsigned node, pid_t pid)
{
    char command[384];
    pid_t reaped = -pid;
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(write(h->guard, &reaped, sizeof reaped), sizeof reaped);
    snprintf(command, sizeof command, "%s --sweep --node node%u --run-dir %s 2>/dev/null", h->rackfishd, node,
             h->run_dir);
    int ignored = system(command); /* it may have nothing to remove */
    (void)ignored;
}

bool harness_log_has(const harness_t *h, const char *file, const char *text)
{
    static char bytes[1 << 20];
    char path[128];
    snprintf(path, sizeof path, "%s/%s", h->run_dir, file);
    for (unsigned tries = 0; tries < BOUND_MS / 10; tries++) {
        if (rf_file_read(path, bytes, sizeof bytes) > 0 && strstr(bytes, text)) return true;
        usleep(10000);
    }
    return false;
}

bool harness_lives(pid_t pid)
{
    int status;
    return waitpid(pid, &status, WNOHANG) == 0;
}

/* ---- clients ---- */

int harness_connect(const harness_t *h, unsigned node)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(h->ports[node])};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

int harness_control(const harness_t *h, unsigned node)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/node%u.sock", h->run_dir, node);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (unsigned tries = 0; tries < BOUND_MS / 10; tries++) {
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
        usleep(10000);
    }
    fail_msg("no control socket %s", address.sun_path);
    return -1;
}

static bool wait_for(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, BOUND_MS) == 1;
}

bool blocking_tls(const harness_t *h, int fd, bool server, blocking_t *out)
{
    char why[160];
    bool wants_write = false;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *out = (blocking_t){.fd = fd};
    assert_int_equal(rf_tls_open(server, fd, h->config->key, h->config->key_size, &out->tls), RF_OK);
    rf_err_t err;
    while ((err = rf_tls_handshake(out->tls, &wants_write, why, sizeof why)) == RF_ERR_AGAIN) {
        if (!wait_for(fd, wants_write ? POLLOUT : POLLIN)) return false;
    }
    return err == RF_OK;
}

bool blocking_accept(const harness_t *h, unsigned node, blocking_t *out)
{
    *out = (blocking_t){.fd = -1};
    if (!wait_for(h->listen_fds[node], POLLIN)) return false;
    int fd = accept4(h->listen_fds[node], NULL, NULL, SOCK_CLOEXEC);
    return fd >= 0 && blocking_tls(h, fd, true, out);
}

static bool send_all(blocking_t *b, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t done = 0;
        rf_err_t err = RF_OK;
        if (b->tls) {
            err = rf_tls_write(b->tls, bytes, size, &done);
        } else {
            ssize_t n = send(b->fd, bytes, size, MSG_NOSIGNAL);
            done = n > 0 ? (size_t)n : 0;
            err = n > 0 ? RF_OK : errno == EAGAIN ? RF_ERR_AGAIN : RF_ERR_CLOSED;
        }
        if (err == RF_ERR_AGAIN && wait_for(b->fd, POLLOUT)) continue;
        if (err != RF_OK) return false;
        bytes += done;
        size -= done;
    }
    return true;
}

static bool receive_all(blocking_t *b, uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t done = 0;
        rf_err_t err = RF_OK;
        if (b->tls) {
            err = rf_tls_read(b->tls, bytes, size, &done);
        } else {
            if (!wait_for(b->fd, POLLIN)) return false;
            ssize_t n = recv(b->fd, bytes, size, 0);
            done = n > 0 ? (size_t)n : 0;
            err = n > 0 ? RF_OK : RF_ERR_CLOSED;
        }
        if (err == RF_ERR_AGAIN && wait_for(b->fd, POLLIN)) continue;
        if (err != RF_OK) return false;
        bytes += done;
        size -= done;
    }
    return true;
}

bool blocking_send(blocking_t *b, const uint8_t *bytes, size_t size)
{
    uint8_t length[4] = {(uint8_t)size, (uint8_t)(size >> 8), (uint8_t)(size >> 16), (uint8_t)(size >> 24)};
    return send_all(b, length, sizeof length) && send_all(b, bytes, size);
}

ssize_t blocking_receive(blocking_t *b, uint8_t *bytes, size_t max)
{
    uint8_t length[4];
    if (!receive_all(b, length, sizeof length)) return -1;
    size_t size =
        (size_t)length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
    assert_in_range(size, 0, max);
    return receive_all(b, bytes, size) ? (ssize_t)size : -1;
}

void blocking_close(blocking_t *b)
{
    rf_tls_close(b->tls);
    close(b->fd);
}

void harness_hello(const harness_t *h, Rackfish__Node__PeerHello *hello)
{
    static char software[] = "test", machine[] = "m", node_name[] = "node0";
    static uint8_t instance[16] = {1};
    rackfish__node__peer_hello__init(hello);
    hello->major = RF_PEER_MAJOR;
    hello->software = software;
    hello->machine = machine;
    hello->node = 0;
    hello->node_name = node_name;
    hello->config_digest =
        (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)h->digest, .len = sizeof h->digest};
    hello->instance = (ProtobufCBinaryData){.data = instance, .len = sizeof instance};
    hello->n_cores = 1;
}

bool blocking_send_hello(blocking_t *b, Rackfish__Node__PeerHello *hello)
{
    uint8_t bytes[4096];
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_HELLO;
    frame.hello = hello;
    assert_in_range(rackfish__node__peer_frame__get_packed_size(&frame), 1, sizeof bytes);
    return blocking_send(b, bytes, rackfish__node__peer_frame__pack(&frame, bytes));
}

bool blocking_send_machine(blocking_t *b, const uint8_t *id, Rackfish__Node__PeerWord word)
{
    uint8_t bytes[64];
    Rackfish__Node__PeerMachine machine;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_machine__init(&machine);
    rackfish__node__peer_frame__init(&frame);
    machine.machine_id = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)id, .len = 16};
    machine.word = word;
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_MACHINE;
    frame.machine = &machine;
    assert_in_range(rackfish__node__peer_frame__get_packed_size(&frame), 1, sizeof bytes);
    return blocking_send(b, bytes, rackfish__node__peer_frame__pack(&frame, bytes));
}
