/*
 * Devices that are removed while they are used: an adapter that is pulled out, a driver that is unbound, `rdma link delete`, a network
 * interface that goes with its software device.
 *
 * A driver that can take a device from its users (disassociate_ucontext) does, and they hear a fatal event. The software drivers cannot:
 * their device goes on working, and its removal waits in the kernel, until the last user has closed it. The kernel tells, in
 * both cases and before it waits, who listens for events of its objects: the device's entry for verbs is removed. (Not in a user
 * namespace of its own with a network namespace: there the removal waits for the end of this process.)
 *
 *   removed:  paths over the device are over, as they are with any other failure; links are BROKEN and make other paths
 *             20 ms later the last queue pair is destroyed; links leave their domain there; the device is closed
 *   back:     a device like any other, found when the next path is made
 */
#include "transport/rdma/internal.h"

#include "base/log.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define KERNEL_GROUP 1 /* of NETLINK_KOBJECT_UEVENT: the kernel's own; udev's are others */
#define MESSAGE_MAX  4096
#define MESSAGES     64 /* in one call */

/* Only messages that begin with "remo" wake this process. */
static bool filter_set(int fd)
{
    struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                                 BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x72656d6f, 0, 1),
                                 BPF_STMT(BPF_RET | BPF_K, UINT32_MAX), BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

void rdma_removal_open(rdma_endpoint_t *ep)
{
    struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_groups = KERNEL_GROUP};
    ep->uevents = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (ep->uevents >= 0 && filter_set(ep->uevents) &&
        bind(ep->uevents, (struct sockaddr *)&at, sizeof at) == 0 &&
        path_endpoint_watch(&ep->base, ep->uevents, &ep->uevents) == RF_OK)
        return;
    rf_log(RF_LOG_WARN, "rdma: that a device is removed will not be heard: %m");
    rdma_removal_close(ep);
}

void rdma_removal_close(rdma_endpoint_t *ep)
{
    if (ep->uevents >= 0) close(ep->uevents);
    ep->uevents = -1;
}

/* "remove@/devices/.../infiniband_verbs/uverbs0": the last of these names. NULL: something else. */
static const char *removed_name(const char *message, size_t size)
{
    static const char verb[] = "remove@", kind[] = "/infiniband_verbs/";
    if (!memchr(message, '\0', size) || strncmp(message, verb, sizeof verb - 1) != 0) return NULL;
    const char *at = strstr(message, kind);
    return at ? at + sizeof kind - 1 : NULL;
}

void rdma_removal_take(rdma_endpoint_t *ep, const char *message, size_t size)
{
    const char *name = removed_name(message, size);
    for (unsigned i = 0; name && i < ep->n_devices; i++) {
        rdma_device_t *device = ep->devices[i];
        if (strcmp(device->context->device->dev_name, name) == 0) rdma_device_removed(device);
    }
}

bool rdma_device_is_there(const rdma_device_t *device)
{
    return access(device->context->device->dev_path, F_OK) == 0 || errno != ENOENT;
}

void rdma_removal_look(rdma_endpoint_t *ep)
{
    for (unsigned i = 0; i < ep->n_devices; i++) {
        if (!rdma_device_is_there(ep->devices[i])) rdma_device_removed(ep->devices[i]);
    }
}

void rdma_removal_heard(rdma_endpoint_t *ep)
{
    for (unsigned n = 0; n < MESSAGES; n++) {
        char message[MESSAGE_MAX];
        struct sockaddr_nl from = {.nl_pid = UINT32_MAX};
        socklen_t size = sizeof from;
        ssize_t came = recvfrom(ep->uevents, message, sizeof message, 0, (struct sockaddr *)&from, &size);
        if (came > 0 && from.nl_pid == 0) /* of the kernel: anybody may send to this socket */
            rdma_removal_take(ep, message, (size_t)came);
        else if (came < 0 && errno == ENOBUFS)
            rdma_removal_look(ep); /* there were more than there was room for */
        else if (came < 0 && errno != EINTR)
            return;
    }
}

static void links_leave(const rdma_device_t *device)
{
    for (path_link_t *base = device->endpoint->base.links; base; base = base->next) {
        rdma_link_t *link = rdma_link_of(base);
        if (link->domain && link->domain->pd->context == device->context) rdma_link_leave(link);
        const rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
        if (link->device == device) link->device = path ? path->device : NULL;
    }
}

bool rdma_removal_sweep(rdma_endpoint_t *ep)
{
    for (unsigned i = ep->n_devices; i > 0; i--) {
        rdma_device_t *device = ep->devices[i - 1];
        if (!device->gone || device->n_paths > 0) continue;
        if (ep->base.graveyard) return true; /* with memory that is registered there */
        links_leave(device);
        if (!rdma_device_is_there(device)) rdma_cm_removed(device);
        ep->devices[i - 1] = ep->devices[--ep->n_devices];
        rdma_device_close(device);
        rf_log(RF_LOG_DEBUG, "rdma: a device that was removed is closed");
    }
    return false;
}
