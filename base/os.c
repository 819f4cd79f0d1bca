#include "base/os.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEMORY_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

rf_err_t rf_fd_send(int socket, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
    if (n_fds > RF_FDS_PER_MESSAGE_MAX) return RF_ERR_INVALID;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * RF_FDS_PER_MESSAGE_MAX)];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (n_fds > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) return RF_OK;
    switch (errno) {
    case EAGAIN:
    case ENOBUFS:
    case ETOOMANYREFS:
        return RF_ERR_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
        return RF_ERR_CLOSED;
    default:
        return RF_ERR_OS;
    }
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (fds[i] >= 0) close(fds[i]);
    }
}

rf_err_t rf_fd_receive(int socket, void *bytes, size_t *size, int *fds, unsigned fds_max)
{
    /* Room for more than anybody may send, so that surplus descriptors are seen and closed, not lost. */
    enum { CONTROL_FDS = 64 };
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int) * CONTROL_FDS)];
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = *size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;
    do {
        got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    for (unsigned i = 0; i < fds_max; i++) fds[i] = -1;
    if (got < 0) return errno == EAGAIN ? RF_ERR_AGAIN : errno == ECONNRESET ? RF_ERR_CLOSED : RF_ERR_OS;
    int arrived[CONTROL_FDS];
    unsigned n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        unsigned count = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < count && n < CONTROL_FDS; i++)
            memcpy(&arrived[n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || n > fds_max) {
        close_all(arrived, n);
        return RF_ERR_PROTOCOL;
    }
    if (got == 0 && n == 0) return RF_ERR_CLOSED;
    memcpy(fds, arrived, sizeof(int) * n);
    *size = (size_t)got;
    return RF_OK;
}

rf_err_t rf_memory_create(const char *name, size_t size, int *fd_out)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return RF_ERR_OS;
    if (fchmod(fd, 0600) < 0 || posix_fallocate(fd, 0, (off_t)size) != 0 ||
        fcntl(fd, F_ADD_SEALS, MEMORY_SEALS) < 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return RF_ERR_OS;
    }
    *fd_out = fd;
    return RF_OK;
}

rf_err_t rf_memory_check(int fd, size_t size)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & MEMORY_SEALS) != MEMORY_SEALS) return RF_ERR_PROTOCOL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size != size)
        return RF_ERR_PROTOCOL;
    return RF_OK;
}

rf_err_t rf_memory_reopen_readonly(int fd, int *fd_out)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDONLY | O_CLOEXEC);
    if (again < 0) return RF_ERR_OS;
    *fd_out = again;
    return RF_OK;
}

uint64_t rf_process_start_time(pid_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (rf_file_read(path, text, sizeof text) < 0) return 0;
    char *at = strrchr(text, ')'); /* the name may hold spaces and brackets */
    if (!at) return 0;
    at++;
    for (int field = 3; field < 22 && at; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

int rf_process_open(pid_t pid, uint64_t start_time)
{
    int fd = pidfd_open(pid, 0);
    if (fd < 0) return -1;
    if (start_time != 0 && rf_process_start_time(pid) != start_time) {
        close(fd);
        errno = ESRCH;
        return -1;
    }
    return fd;
}

rf_err_t rf_process_wait_dead(int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int n;
    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n > 0 ? RF_OK : n == 0 ? RF_ERR_TIMEOUT : RF_ERR_OS;
}

rf_err_t rf_cpu_pin(unsigned cpu)
{
    if (cpu >= CPU_SETSIZE) return RF_ERR_INVALID;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0 ? RF_OK : RF_ERR_OS;
}

#define PROMPT_SLICE_NS 100000 /* the shortest that the kernel takes */

/* As the kernel knows it: the C library has it neither by name nor by type. */
struct rf_sched_attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

void rf_sched_prompt(void)
{
    struct rf_sched_attr attr = {.size = sizeof attr};
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) < 0 || attr.policy != SCHED_OTHER) return;
    attr.size = sizeof attr;
    attr.flags = 1; /* SCHED_FLAG_RESET_ON_FORK */
    attr.runtime = PROMPT_SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attr, 0);
}

unsigned rf_cpu_allowed(unsigned *cpus, unsigned max)
{
    cpu_set_t set;
    unsigned n = 0;
    if (sched_getaffinity(0, sizeof set, &set) < 0) return 0;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE && n < max; cpu++) {
        if (CPU_ISSET(cpu, &set)) cpus[n++] = cpu;
    }
    return n;
}

ssize_t rf_file_read(const char *path, char *buffer, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t length = 0;
    ssize_t got = 0;
    while (length < max - 1 && (got = read(fd, buffer + length, max - 1 - length)) > 0) length += (size_t)got;
    int saved = errno;
    close(fd);
    errno = saved;
    if (got < 0) return -1;
    buffer[length] = 0;
    return (ssize_t)length;
}

rf_err_t rf_file_write(const char *path, const char *bytes, size_t size)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary) return RF_ERR_LIMIT;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return RF_ERR_OS;
    rf_err_t err = rf_write_all(fd, bytes, size);
    if (close(fd) < 0 && err == RF_OK) err = RF_ERR_OS;
    if (err == RF_OK && rename(temporary, path) < 0) err = RF_ERR_OS;
    if (err != RF_OK) {
        int saved = errno;
        unlink(temporary);
        errno = saved;
    }
    return err;
}

rf_err_t rf_write_all(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t n = write(fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EPIPE ? RF_ERR_CLOSED : RF_ERR_OS;
        at += n;
        size -= (size_t)n;
    }
    return RF_OK;
}
