/*
 * A claim is a socket with an abstract name, which the kernel takes back when its process ends, however it ends. Anybody may have a socket
 * of any name, so a name by itself counts for nothing: the kernel is asked who has sockets of that name in this network namespace
 * (sock_diag(7)), and only those of our users count. Each claim has a name of its own behind the common one, so that there is none
 * to be taken away; who claims first makes its own and then looks, so that of two at the same time not both go on.
 */
#include "transport/dpdk/driver/claim.h"

#include "base/log.h"
#include "base/prng.h"
#include "base/types.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_MAX_SIZE 64
#define LOOKS         3 /* a list that changes while the kernel tells it may lack one */

typedef struct request {
    struct nlmsghdr head;
    struct unix_diag_req unix_sockets;
} request_t;

typedef enum { OTHERS_UNKNOWN, OTHERS_NONE, OTHERS_OURS } others_t;

static bool user_is_trusted(unsigned uid)
{
    if (uid == 0 || uid == geteuid()) return true;
    const struct passwd *ours = geteuid() == 0 ? getpwnam(RF_SYSTEM_USER) : NULL;
    return ours && ours->pw_uid == uid;
}

/* "\0NAME", or with '/' and more behind it; no interface has that in its name. */
static bool is_of_name(const char *bytes, size_t size, const char *name)
{
    size_t n = strlen(name);
    return size > n && bytes[0] == 0 && memcmp(bytes + 1, name, n) == 0 &&
           (size == n + 1 || bytes[n + 1] == '/');
}

static bool is_ours(struct nlmsghdr *message, const char *name, uint32_t own_inode)
{
    struct unix_diag_msg *found = NLMSG_DATA(message);
    size_t left = NLMSG_PAYLOAD(message, sizeof *found);
    uint32_t uid = UINT32_MAX;
    bool named = false;
    for (struct rtattr *at = (struct rtattr *)(found + 1); RTA_OK(at, left); at = RTA_NEXT(at, left)) {
        if (at->rta_type == UNIX_DIAG_NAME) named = is_of_name(RTA_DATA(at), RTA_PAYLOAD(at), name);
        if (at->rta_type == UNIX_DIAG_UID && RTA_PAYLOAD(at) >= sizeof uid)
            memcpy(&uid, RTA_DATA(at), sizeof uid);
    }
    return named && found->udiag_ino != own_inode && user_is_trusted(uid);
}

/* One answer of the kernel's: what it says, and whether it was the last one. */
static others_t answer_read(int fd, const char *name, uint32_t own_inode, bool *last)
{
    static union {
        struct nlmsghdr head;
        char bytes[32768];
    } answer;
    ssize_t size = recv(fd, &answer, sizeof answer, 0);
    others_t others = OTHERS_NONE;
    *last = size <= 0;
    size_t left = size > 0 ? (size_t)size : 0;
    for (struct nlmsghdr *at = &answer.head; NLMSG_OK(at, left) && !*last; at = NLMSG_NEXT(at, left)) {
        *last = at->nlmsg_type == NLMSG_DONE || at->nlmsg_type == NLMSG_ERROR;
        if (at->nlmsg_type == NLMSG_ERROR) return OTHERS_UNKNOWN;
        if (at->nlmsg_type == SOCK_DIAG_BY_FAMILY && is_ours(at, name, own_inode)) others = OTHERS_OURS;
    }
    return size > 0 ? others : OTHERS_UNKNOWN;
}

/* Who else has sockets of that name. */
static others_t others_look(const char *name, uint32_t own_inode)
{
    request_t request = {
        .head = {.nlmsg_len = sizeof request,
                 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .unix_sockets = {.sdiag_family = AF_UNIX,
                         .udiag_states = UINT32_MAX,
                         .udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_UID},
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    bool last = fd < 0 || send(fd, &request, sizeof request, 0) != sizeof request;
    others_t others = last ? OTHERS_UNKNOWN : OTHERS_NONE;
    while (!last) {
        others_t said = answer_read(fd, name, own_inode, &last);
        if (said != OTHERS_NONE) others = said;
    }
    if (fd >= 0) close(fd);
    return others;
}

static bool name_bind(int fd, const char *name, const char *more)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%.*s%s", NAME_MAX_SIZE, name, more);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return bind(fd, (struct sockaddr *)&address, size) == 0;
}

bool claim_take(const char *name)
{
    struct stat st;
    uint64_t number;
    char more[24];
    /* It does not listen: who knows its name can do nothing with it. It stays open as long as we live. */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    rf_random_secret(&number, sizeof number);
    snprintf(more, sizeof more, "/%016llx", (unsigned long long)number);
    bool common = fd >= 0 && name_bind(fd, name, "");
    if (fd < 0 || fstat(fd, &st) != 0 || (!common && !name_bind(fd, name, more))) {
        rf_log(RF_LOG_WARN, "%s cannot be claimed: %m", name);
        return true;
    }
    others_t others = OTHERS_NONE;
    for (unsigned i = 0; i < LOOKS && others == OTHERS_NONE; i++)
        others = others_look(name, (uint32_t)st.st_ino);
    if (others == OTHERS_NONE || (others == OTHERS_UNKNOWN && common)) return true;
    close(fd);
    return false;
}
