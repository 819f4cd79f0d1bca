/* The kernel's interface that a device of DPDK is on: "net_af_packet0,iface=eth1". */
#ifndef RF_DPDK_DRIVER_INTERFACE_H
#define RF_DPDK_DRIVER_INTERFACE_H

#include <net/if.h>
#include <stdbool.h>
#include <string.h>

/* False: it is no device of that driver ("net_af_packet"), or names no interface. */
static inline bool interface_of(const char *device, const char *driver, char name[IF_NAMESIZE])
{
    static const char word[] = "iface=";
    const char *at = strncmp(device, driver, strlen(driver)) == 0 ? strstr(device, word) : NULL;
    if (!at) return false;
    at += sizeof word - 1;
    size_t length = strcspn(at, ",");
    if (length >= IF_NAMESIZE) return false;
    memcpy(name, at, length);
    name[length] = 0;
    return true;
}

#endif
