#include "dpdk_wire.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 30000
#define STARTS   8

const char *const dpdk_wire_virtio[DPDK_WIRE_SIDES] = {
    "net_vhost0,iface=%s/wire,queues=1", "net_virtio_user0,path=%s/wire,queues=1,queue_size=256"};

static char folder[] = "/tmp/rackfish-wire-XXXXXX";
static const char *wire_program;
static pid_t owner;
static unsigned n_ports;
static struct {
    pid_t pid[DPDK_WIRE_PORTS_MAX];
    const char *port[DPDK_WIRE_PORTS_MAX];
    char option[300];
} sides[DPDK_WIRE_SIDES];

static void socket_name(unsigned side, unsigned port, char out[64])
{
    snprintf(out, 64, "%s/%c%u.sock", folder, (int)('a' + side), port);
}

static bool start_once(unsigned side, unsigned port)
{
    char socket[64], device[120], address[20], ready_text[16], byte;
    int ready[2];
    if (pipe(ready) != 0) return false;
    socket_name(side, port, socket);
    snprintf(device, sizeof device, sides[side].port[port], folder);
    snprintf(address, sizeof address, "10.99.%u.%u/24", port, side + 1);
    snprintf(ready_text, sizeof ready_text, "%d", ready[1]);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(wire_program, "rackfish-dpdk", "--socket", socket, "--device", device, "--address", address,
              "--queues", "2", "--ready-fd", ready_text, NULL);
        _exit(127);
    }
    sides[side].pid[port] = pid;
    close(ready[1]);
    struct pollfd fd = {.fd = ready[0], .events = POLLIN};
    bool up = pid > 0 && poll(&fd, 1, START_MS) == 1 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    return up;
}

/* DPDK numbers a packet socket's fanout group by process and interface (pid ^ ifindex); where drivers share a network namespace that
 * may be another's, and the port cannot be had: another process has another number. */
bool dpdk_wire_start(unsigned side, unsigned port)
{
    for (unsigned i = 0; i < STARTS; i++) {
        if (start_once(side, port)) return true;
        dpdk_wire_kill(side, port);
    }
    return false;
}

void dpdk_wire_kill(unsigned side, unsigned port)
{
    pid_t *pid = &sides[side].pid[port];
    if (*pid <= 0) return;
    kill(*pid, SIGKILL);
    waitpid(*pid, NULL, 0);
    *pid = 0;
}

static void option_make(unsigned side)
{
    char *out = sides[side].option, socket[64];
    size_t used = 0, max = sizeof sides[side].option;
    for (unsigned port = 0; port < n_ports; port++) {
        socket_name(side, port, socket);
        used += (size_t)snprintf(out + used, max - used, "%sdriver=%s", port ? ";" : "", socket);
        if (n_ports > 1)
            used += (size_t)snprintf(out + used, max - used, ",net=10.99.%u.%u/24", port, side + 1);
    }
}

bool dpdk_wire_begin_ports(const char *program, unsigned n, const char *const ports[][DPDK_WIRE_SIDES])
{
    wire_program = program;
    owner = getpid();
    n_ports = n;
    if (!mkdtemp(folder)) return false;
    for (unsigned port = 0; port < n; port++) {
        for (unsigned side = 0; side < DPDK_WIRE_SIDES; side++) {
            sides[side].port[port] = ports[port][side];
            option_make(side);
            if (dpdk_wire_start(side, port)) continue;
            dpdk_wire_end();
            return false;
        }
    }
    return true;
}

bool dpdk_wire_begin(const char *program, const char *const ports[DPDK_WIRE_SIDES])
{
    const char *const one[1][DPDK_WIRE_SIDES] = {{ports[0], ports[1]}};
    return dpdk_wire_begin_ports(program, 1, one);
}

void dpdk_wire_end(void)
{
    char command[80];
    if (getpid() != owner) return;
    for (unsigned side = DPDK_WIRE_SIDES; side-- > 0;) {
        for (unsigned port = 0; port < n_ports; port++)
            dpdk_wire_kill(side, port); /* virtio_user does not bear the end of vhost */
    }
    snprintf(command, sizeof command, "rm -rf %s", folder);
    (void)!system(command);
}

unsigned long dpdk_wire_stat(unsigned side, unsigned port, const char *name)
{
    char command[256], socket[64], line[128], said[64];
    unsigned long value = 0, found = 0;
    socket_name(side, port, socket);
    snprintf(command, sizeof command, "%s --stats %s", wire_program, socket);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof line, pipe)) {
        if (sscanf(line, "%63s %lu", said, &value) == 2 && strcmp(said, name) == 0) found = value;
    }
    if (pipe) pclose(pipe);
    return found;
}

const char *dpdk_wire_option(unsigned side)
{
    return sides[side].option;
}

unsigned dpdk_wire_ports(void)
{
    return n_ports;
}

pid_t dpdk_wire_pid(unsigned side, unsigned port)
{
    return sides[side].pid[port];
}
