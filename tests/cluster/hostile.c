/*
 * A domain that means harm, for hostile_test.sh. It runs as an ordinary user on a core of a privileged machine and tries,
 * one by one, what it must not be able to do; each attempt that succeeds is a line "HARM ...".
 *
 *   hostile processes RUN-DIR PID...   signal, trace, read, map the processes with these pids (as the host counts)
 *   hostile sockets RUN-DIR            the control socket, the monitors' sockets, the files of the run directory
 *   hostile bytes SEED                 raw garbage into the socket of its kernel link
 *   hostile invocations SEED           a proper kernel link, and garbage invocations on it
 *   hostile truncate                   cuts the link's memory short, where it can
 *   hostile forks                      as many processes as it may have, sessions of their own
 */
#include "base/clock.h"
#include "base/os.h"
#include "base/prng.h"
#include "transport/message.h"
#include "transport/shm/shm.h"
#include "wire/kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINK_SECONDS 20

static unsigned harms;

static void harm(const char *what, const char *on)
{
    printf("HARM %s %s\n", what, on);
    harms++;
}

/* ---- processes ---- */

static void try_process(const char *text)
{
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    char path[64], byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    if (kill(pid, SIGKILL) == 0) harm("killed", text);
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0) harm("traced", text);
    if (process_vm_readv(pid, &local, 1, &remote, 1, 0) >= 0) harm("read the memory of", text);
    if (process_vm_writev(pid, &local, 1, &remote, 1, 0) >= 0) harm("wrote the memory of", text);
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        if (syscall(SYS_pidfd_getfd, fd, 0, 0) >= 0) harm("took a descriptor of", text);
        if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0)
            harm("signalled through a pidfd", text);
        close(fd);
    }
    static const char *const files[] = {"mem", "maps", "environ", "fd/0", "cwd", "root", "exe", "task"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, files[i]);
        fd = open(path, O_RDONLY);
        if (fd >= 0 && strcmp(files[i], "task") != 0) harm("opened", path);
        if (fd >= 0) close(fd);
    }
}

/* ---- sockets and files ---- */

static void try_socket(const char *folder, const char *name, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", folder, name) >=
        (int)sizeof address.sun_path)
        return;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        /* Hello of the control API: request id 1, major 1. A refusal is an error reply or the end of the connection. */
        static const uint8_t hello[] = {6, 0, 0, 0, 0x08, 1, 0x12, 2, 0x08, 1};
        uint8_t reply[512];
        send(fd, hello, sizeof hello, MSG_NOSIGNAL);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        poll(&p, 1, 3000);
        ssize_t n = recv(fd, reply, sizeof reply, MSG_DONTWAIT);
        /* A reply is its length, then field 1, the id, if it is not zero, then field 2, err, if it is not zero. */
        ssize_t at = n > 6 && reply[4] == 0x08 ? 6 : 4;
        bool refused = n <= 0 || (n > at + 1 && reply[at] == 0x10 && reply[at + 1] != 0);
        if (!refused) harm("was let in at", address.sun_path);
    }
    if (fd >= 0) close(fd);
}

static void try_folder(const char *path, unsigned depth)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char child[4096];
        if (entry->d_name[0] == '.') continue;
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        int fd = open(child, O_RDONLY | O_NOFOLLOW);
        if (fd >= 0 && !strstr(child, ".lib-") && entry->d_type == DT_REG) harm("read", child);
        if (fd >= 0) close(fd);
        if (unlink(child) == 0) harm("removed", child);
        if (entry->d_type == DT_DIR && depth > 0) try_folder(child, depth - 1);
    }
    if (folder) closedir(folder);
}

static void try_sockets(const char *run_dir)
{
    char path[4096];
    static const char *const nodes[] = {"node0", "node1"};
    static const char *const files[] = {"config.yaml",   "cluster.key", "node0/state",
                                        "node0/machine", "node0/lock",  "node0/rackfishd.log"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s.sock", nodes[i]);
        try_socket(run_dir, path, SOCK_STREAM);
        for (unsigned core = 0; core < 4; core++) {
            snprintf(path, sizeof path, "%s/monitor-%u.sock", nodes[i], core);
            try_socket(run_dir, path, SOCK_SEQPACKET);
        }
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", run_dir, files[i]);
        if (open(path, O_RDONLY) >= 0) harm("read", path);
    }
    snprintf(path, sizeof path, "%s/planted", run_dir);
    if (open(path, O_WRONLY | O_CREAT, 0600) >= 0) harm("wrote", path);
    try_folder(run_dir, 1);
}

/* ---- the kernel link ---- */

static void try_bytes(rf_prng_t *prng)
{
    uint8_t bytes[4096];
    for (unsigned i = 0; i < 5000; i++) {
        size_t size = rf_prng_below(prng, sizeof bytes);
        for (size_t k = 0; k < size; k++) bytes[k] = (uint8_t)rf_prng_next(prng);
        int fds[RF_FDS_PER_MESSAGE_MAX];
        unsigned n_fds = (unsigned)rf_prng_below(prng, RF_FDS_PER_MESSAGE_MAX + 1);
        for (unsigned k = 0; k < n_fds; k++) fds[k] = (int)rf_prng_below(prng, 3);
        rf_err_t err = rf_fd_send(RF_DISPATCHER_FD, bytes, size, fds, n_fds);
        if (err == RF_ERR_AGAIN) rf_clock_sleep_ms(1);
        if (err == RF_ERR_CLOSED) return; /* thrown out: as it should be */
    }
}

static bool link_dead;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context;
    (void)link;
    for (unsigned i = 0; event == RF_LINK_FDS && i < info->n_fds; i++) close(info->fds[i]);
    link_dead |= event == RF_LINK_DEAD || event == RF_LINK_CLOSED;
}

/* An invocation of the right length (another one ends the link), and garbage in it; now and then garbage altogether. */
static size_t make_garbage(rf_prng_t *prng, uint8_t *bytes)
{
    static const struct {
        uint16_t op, size;
    } invocations[] = {
        {RF_KERNEL_IDENTIFY, 0},
        {RF_KERNEL_YIELD, 0},
        {RF_KERNEL_TIMER_SET, sizeof(rf_kernel_timer_t)},
        {RF_KERNEL_TIMER_CANCEL, sizeof(rf_kernel_timer_t)},
        {RF_KERNEL_FD_WATCH, sizeof(rf_kernel_watch_t)},
        {RF_KERNEL_FD_REARM, sizeof(rf_kernel_watch_t)},
        {RF_KERNEL_FD_UNWATCH, sizeof(rf_kernel_watch_t)},
        {RF_KERNEL_SIGNALS_SET, sizeof(rf_kernel_signals_t)},
        {RF_KERNEL_STAT, 0},
        {RF_KERNEL_SHARE_SET, sizeof(rf_kernel_share_t)},
        {RF_KERNEL_CREATE, sizeof(rf_kernel_create_t)},
        {RF_KERNEL_SIGNAL, sizeof(rf_kernel_signal_t)},
        {RF_KERNEL_DESTROY, sizeof(rf_kernel_target_t)},
        {RF_KERNEL_FREEZE, sizeof(rf_kernel_target_t)},
        {RF_KERNEL_STAT_ALL, sizeof(rf_kernel_target_t)},
        {99, 100},
        {65535, 0},
    };
    size_t which = rf_prng_below(prng, sizeof invocations / sizeof invocations[0]);
    rf_wire_header_t header = {.tag = (uint32_t)rf_prng_next(prng), .op = invocations[which].op};
    size_t size = sizeof header + invocations[which].size;
    if (rf_prng_below(prng, 10000) == 0) size = rf_prng_below(prng, 4000);
    for (size_t i = 0; i < size; i++)
        bytes[i] = rf_prng_below(prng, 3) ? (uint8_t)rf_prng_next(prng) : (uint8_t)rf_prng_below(prng, 3);
    if (size >= sizeof header) memcpy(bytes, &header, sizeof header);
    return size;
}

static void try_invocations(rf_prng_t *prng)
{
    const rf_transport_t *shm = &rf_transport_shm;
    rf_doorbell_t doorbell;
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    if (rf_doorbell_create(&doorbell) != RF_OK) exit(2);
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_DISPATCHER},
                                   .doorbell = &doorbell,
                                   .on_event = on_event,
                                   .deadline_ns = 5 * RF_NS_PER_S};
    rf_link_params_t link_params = {.socket = dup(RF_DISPATCHER_FD)};
    if (shm->endpoint_open(&params, &endpoint) != RF_OK ||
        shm->connect(endpoint, &link_params, &link) != RF_OK)
        exit(2);
    uint64_t end = rf_clock_ns() + LINK_SECONDS * RF_NS_PER_S, next, sent = 0;
    uint8_t bytes[RF_MESSAGE_MAX];
    rf_slot_t slots[64];
    while (!link_dead && sent < 50000 && rf_clock_ns() < end) {
        shm->endpoint_progress(endpoint, rf_clock_ns(), &next);
        if (link_dead) break;
        while (shm->poll(link, slots, 64) > 0)
            ;
        if (link->state != RF_LINK_STATE_UP) {
            rf_clock_sleep_ms(1);
            continue;
        }
        static const uint8_t types[] = {RF_KERNEL_REPLY, RF_KERNEL_EVENT, 1, 0x40, 0x90, 0xd0, 0xe0};
        /* Mostly what is not thrown out at first sight. */
        uint8_t type = rf_prng_below(prng, 10000)
                           ? RF_KERNEL_INVOKE
                           : types[rf_prng_below(prng, sizeof types / sizeof types[0])];
        if (rf_prng_below(prng, 20000) == 0) {
            int fds[2] = {0, 1};
            shm->pass_fds(link, bytes, rf_prng_below(prng, 64), fds, (unsigned)rf_prng_below(prng, 3));
        }
        if (rf_message_send(link, type, bytes, make_garbage(prng, bytes)) == RF_OK)
            sent++;
        else
            rf_clock_sleep_ms(1);
        shm->flush(link);
    }
    printf("sent %llu, %s\n", (unsigned long long)sent, link_dead ? "thrown out" : "still in");
    if (!link_dead) shm->close(link);
    shm->endpoint_close(endpoint);
}

/* Every memory object that this process was given: cut it short. */
static void try_truncate(void)
{
    for (int fd = 3; fd < 1024; fd++) {
        if (fcntl(fd, F_GET_SEALS) < 0) continue;
        char text[16];
        snprintf(text, sizeof text, "%d", fd);
        if (ftruncate(fd, 0) == 0) harm("cut short descriptor", text);
    }
}

static void try_forks(void)
{
    for (unsigned i = 0; i < 200; i++) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            setsid();
            if (fork() > 0) _exit(0);
            for (;;) pause();
        }
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    printf("forked\n");
    fflush(stdout);
    for (;;) pause();
}

int main(int argc, char **argv)
{
    rf_prng_t prng;
    const char *what = argc > 1 ? argv[1] : "";
    rf_prng_seed(&prng, argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
    if (strcmp(what, "processes") == 0) {
        for (int i = 3; i < argc; i++) try_process(argv[i]);
    } else if (strcmp(what, "sockets") == 0 && argc > 2) {
        try_sockets(argv[2]);
    } else if (strcmp(what, "bytes") == 0) {
        try_bytes(&prng);
    } else if (strcmp(what, "invocations") == 0) {
        try_invocations(&prng);
    } else if (strcmp(what, "truncate") == 0) {
        try_truncate();
    } else if (strcmp(what, "forks") == 0) {
        try_forks();
    } else {
        fprintf(stderr, "usage: hostile processes|sockets|bytes|invocations|truncate|forks ...\n");
        return 2;
    }
    printf("%u harms\n", harms);
    return harms > 0;
}
