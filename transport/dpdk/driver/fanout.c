#include "transport/dpdk/driver/fanout.h"

#include "transport/dpdk/driver/interface.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Sockets of one that is down have no group, whatever its number. */
static bool is_up(int fd, const char *interface)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    return ioctl(fd, SIOCGIFFLAGS, &request) == 0 && request.ifr_flags & IFF_UP;
}

bool fanout_is_taken(const char *device)
{
    char name[IF_NAMESIZE];
    unsigned index = interface_of(device, "net_af_packet", name) ? if_nametoindex(name) : 0;
    if (index == 0) return false;
    struct sockaddr_ll address = {
        .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = (int)index};
    unsigned number = ((unsigned)getpid() ^ index) & 0xffff; /* as drivers/net/af_packet has it */
    unsigned how = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG | PACKET_FANOUT_FLAG_ROLLOVER;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)), group = (int)(number | how << 16);
    bool taken = fd >= 0 && is_up(fd, name) && bind(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
                 setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) != 0 && errno == EINVAL;
    if (fd >= 0) close(fd);
    return taken;
}
