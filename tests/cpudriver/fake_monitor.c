/*
 * Stands in for rf-monitor in the tests of the CPU driver: relays between the core's kernel link and a socket of the
 * test, RUN_DIR/test.sock, so that the test itself is the monitor.
 *
 *   test -> here        rf_relay_t {RF_KERNEL_INVOKE}, bytes of the invocation, descriptors of it
 *   here -> test        rf_relay_t {type}, bytes of the message; or {0}, bytes of rf_kernel_fds and its descriptors
 *
 * RELAY_LEASE puts the core's lease off to the time that follows, RELAY_EXIT makes it exit with the status that follows.
 */
#include "relay.h"

#include "base/clock.h"
#include "base/os.h"
#include "transport/message.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"
#include "wire/boot.h"
#include "wire/kernel.h"
#include "wire/lease.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int test = -1;
static rf_link_t *kernel;
static rf_lease_t *lease;
static rf_assembler_t assembler;

static void die(const char *what)
{
    fprintf(stderr, "fake monitor: %s: %s\n", what, strerror(errno));
    exit(9);
}

static void to_test(uint8_t type, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
    relay_t relay = {.type = type, .size = (uint32_t)size};
    memcpy(relay.bytes, bytes, size);
    struct pollfd p = {.fd = test, .events = POLLOUT};
    poll(&p, 1, 10000);
    if (rf_fd_send(test, &relay, offsetof(relay_t, bytes) + size, fds, n_fds) != RF_OK)
        die("send to the test");
}

static void on_event(void *context, rf_link_t *l, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)l;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) die("the kernel link ended");
    if (event == RF_LINK_FDS) {
        to_test(0, info->bytes, info->size, info->fds, info->n_fds);
        for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
    }
}

static void from_test(void)
{
    relay_t relay;
    size_t size = sizeof relay;
    int fds[RF_FDS_PER_MESSAGE_MAX];
    unsigned n = 0;
    rf_err_t err = rf_fd_receive(test, &relay, &size, fds, RF_FDS_PER_MESSAGE_MAX);
    if (err == RF_ERR_AGAIN) return;
    if (err != RF_OK) exit(8); /* the test is gone */
    while (n < RF_FDS_PER_MESSAGE_MAX && fds[n] >= 0) n++;
    if (relay.type == RELAY_EXIT) exit(relay.bytes[0]);
    if (relay.type == RELAY_LEASE) {
        uint64_t until_ns;
        memcpy(&until_ns, relay.bytes, sizeof until_ns);
        atomic_store(&lease->until_ns, until_ns);
        return;
    }
    if (n > 0) {
        rf_wire_header_t header;
        memcpy(&header, relay.bytes, sizeof header);
        rf_kernel_fds_t head = {.tag = header.tag, .op = header.op};
        if (rf_transport_shm.pass_fds(kernel, &head, sizeof head, fds, n) != RF_OK) die("pass_fds");
    }
    for (unsigned i = 0; i < n; i++) close(fds[i]);
    while (rf_message_send(kernel, relay.type, relay.bytes, relay.size) == RF_ERR_AGAIN) usleep(100);
    rf_transport_shm.flush(kernel);
}

static void from_driver(void)
{
    rf_slot_t slot;
    while (rf_transport_shm.poll(kernel, &slot, 1) == 1) {
        rf_err_t err = rf_assembler_feed(&assembler, &slot);
        if (err == RF_OK)
            to_test(assembler.type, assembler.bytes, assembler.size, NULL, 0);
        else if (err != RF_ERR_AGAIN)
            die("assembler");
    }
}

int main(void)
{
    const rf_boot_t *boot;
    rf_endpoint_t *endpoint;
    uint64_t next_ns;
    if (rf_boot_map(RF_BOOT_FD, &boot) != RF_OK) die("boot block");
    if (rf_lease_map(RF_LEASE_FD, &lease) != RF_OK) die("lease");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.90s/test.sock", boot->run_dir);
    test = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (test < 0 || connect(test, (struct sockaddr *)&address, sizeof address) < 0) die(address.sun_path);
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_MONITOR, .machine = boot->machine},
        .on_event = on_event,
        .deadline_ns = 10 * RF_NS_PER_S,
    };
    if (rf_transport_shm.endpoint_open(&params, &endpoint) != RF_OK) die("endpoint");
    rf_link_params_t how = {.socket = RF_DISPATCHER_FD, .slots = 256, .slots_max = 4096};
    if (rf_transport_shm.connect(endpoint, &how, &kernel) != RF_OK) die("connect");
    struct pollfd waits[] = {{.fd = test, .events = POLLIN},
                             {.fd = rf_transport_shm.endpoint_fd(endpoint), .events = POLLIN}};
    for (;;) {
        rf_transport_shm.endpoint_progress(endpoint, rf_clock_ns(), &next_ns);
        if (kernel->state == RF_LINK_STATE_UP) from_driver();
        waits[0].events = kernel->state == RF_LINK_STATE_UP ? POLLIN : 0;
        bool block = rf_wait_arm_all(&kernel, 1);
        poll(waits, 2, block ? 1000 : 0);
        if (block) rf_wait_disarm_all(&kernel, 1);
        if (waits[0].revents & (POLLIN | POLLHUP)) from_test();
    }
}
