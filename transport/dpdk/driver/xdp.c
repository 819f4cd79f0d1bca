#include "transport/dpdk/driver/xdp.h"

#include "base/log.h"
#include "transport/dpdk/driver/claim.h"
#include "transport/dpdk/driver/interface.h"
#include "transport/dpdk/driver/port.h"

#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEVICE "net_af_xdp"

/* RTM_SETLINK with IFLA_XDP { IFLA_XDP_FD: -1 }: none, in whatever mode it was attached. */
typedef struct request {
    struct nlmsghdr head;
    struct ifinfomsg link;
    struct nlattr xdp;
    struct nlattr fd;
    int none;
} request_t;

/* Asked of this network namespace (a /sys may be another's). DPDK's driver serves several only where they are for both ways. */
static unsigned queues_of(const char *interface)
{
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    struct ifreq request = {.ifr_data = (void *)&channels};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    bool told = fd >= 0 && ioctl(fd, SIOCETHTOOL, &request) == 0;
    if (fd >= 0) close(fd);
    if (told && channels.combined_count == 0 && channels.rx_count > 1)
        rf_log(RF_LOG_WARN, "of %s's %u receive queues the first alone is served: ethtool -L %s rx 1",
               interface, channels.rx_count, interface);
    return told && channels.combined_count > 0 ? channels.combined_count : 1;
}

/* The device's own words leave some queues to others, on purpose. */
static bool says_queues(const char *device)
{
    return strstr(device, "queue_count=") || strstr(device, "start_queue=");
}

const char *xdp_queues(const char *device, char *out, size_t max)
{
    char name[IF_NAMESIZE];
    out[0] = 0;
    if (!interface_of(device, DEVICE, name) || says_queues(device)) return out;
    unsigned n = queues_of(name);
    if (n > 1) snprintf(out, max, ",queue_count=%u", n);
    return out;
}

/* One link driver an interface. */
static bool is_ours_alone(const char *interface)
{
    char name[IF_NAMESIZE + 16];
    snprintf(name, sizeof name, "rackfish-xdp-%s", interface);
    return claim_take(name);
}

static void detach(const char *device, unsigned index)
{
    int fd = index ? socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) : -1;
    if (fd < 0) return;
    request_t request = {.head = {.nlmsg_len = sizeof request,
                                  .nlmsg_type = RTM_SETLINK,
                                  .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
                         .link = {.ifi_family = AF_UNSPEC, .ifi_index = (int)index},
                         .xdp = {.nla_len = sizeof request.xdp + sizeof request.fd + sizeof request.none,
                                 .nla_type = IFLA_XDP | NLA_F_NESTED},
                         .fd = {.nla_len = sizeof request.fd + sizeof request.none, .nla_type = IFLA_XDP_FD},
                         .none = -1};
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        char more[256];
    } answer = {0};
    bool heard =
        send(fd, &request, sizeof request, 0) == sizeof request &&
        recv(fd, &answer, sizeof answer, 0) >= (ssize_t)(sizeof answer.head + sizeof answer.error.error);
    if (heard && answer.head.nlmsg_type == NLMSG_ERROR && answer.error.error != 0)
        rf_log(RF_LOG_WARN, "%s: an XDP program that a killed driver may have left stays: %s", device,
               strerror(-answer.error.error));
    close(fd);
}

rf_err_t xdp_take(const char *device)
{
    char name[IF_NAMESIZE];
    if (!interface_of(device, DEVICE, name)) return RF_OK;
    unsigned n = says_queues(device) ? 1 : queues_of(name);
    if (n > RF_DPDK_QUEUES_MAX) {
        rf_log(RF_LOG_ERROR,
               "%s has %u receive queues, and %u are as many as can be served: ethtool -L %s combined %u",
               name, n, RF_DPDK_QUEUES_MAX, name, RF_DPDK_QUEUES_MAX);
        return RF_ERR_LIMIT;
    }
    if (!is_ours_alone(name)) {
        rf_log(RF_LOG_ERROR, "another link driver has %s: stop it, or name another interface", name);
        return RF_ERR_EXISTS;
    }
    detach(device, if_nametoindex(name));
    return RF_OK;
}
