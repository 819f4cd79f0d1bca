#include "node/evidence.h"

#include "base/log.h"
#include "base/os.h"
#include "node/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SOCKETS_TEXT_MAX    (64u << 20) /* more than that proves nothing */
#define LISTENS             0x10000ul   /* __SO_ACCEPTCON */
#define LOOKS               2
#define PID_NAMESPACE_FIRST "pid:[4026531836]" /* PROC_PID_INIT_INO: the host's own */

static bool same(const char *a, const char *b)
{
    return a[0] && strcmp(a, b) == 0;
}

bool rf_evidence_is_dead(const rf_core_told_t *told, const uint8_t instance[16], const rf_where_t *where,
                         const rf_core_said_t *now)
{
    if (told->incarnation == 0 || !now->said || now->incarnation == told->incarnation) return false;
    if (memcmp(told->instance, instance, sizeof told->instance) == 0) return true; /* it has seen it die */
    if (!told->where.boot[0] || !where->boot[0]) return false;
    if (!same(told->where.boot, where->boot)) return same(told->where.host, where->host);
    return told->looked && now->looked && same(told->where.place, where->place);
}

/* Of a line "Num: RefCount Protocol Flags Type St Inode Path": where the path begins, and the flags. NULL: it has none. A name may hold anything but
 * begins there, so one that ends like a path is not taken for it. */
static const char *path_of(const char *line, const char *end, unsigned long *flags)
{
    for (unsigned field = 0; field < 7; field++) {
        while (line < end && *line == ' ') line++;
        if (field == 3) *flags = strtoul(line, NULL, 16);
        while (line < end && *line != ' ') line++;
    }
    return line < end ? line + 1 : NULL;
}

unsigned rf_evidence_sockets(const char *text, const char *path, unsigned *listening)
{
    unsigned n = 0;
    size_t length = strlen(path);
    *listening = 0;
    for (const char *line = text; *line;) {
        const char *end = line + strcspn(line, "\n");
        unsigned long flags = 0;
        const char *name = path_of(line, end, &flags);
        if (name && (size_t)(end - name) == length && memcmp(name, path, length) == 0) {
            n++;
            if (flags & LISTENS) (*listening)++;
        }
        line = *end ? end + 1 : end;
    }
    return n;
}

/* The whole file, of whatever size; NULL: it cannot be read. */
static char *read_all(const char *path)
{
    size_t size = 0, room = 1 << 16;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(room);
    while (text) {
        ssize_t n = read(fd, text + size, room - 1 - size);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) break;
        size += n > 0 ? (size_t)n : 0;
        char *more = n < 0 || room > SOCKETS_TEXT_MAX ? NULL
                     : size + 1 < room                ? text
                                                      : realloc(text, room *= 2);
        if (!more) free(text);
        text = more;
    }
    if (text) text[size] = 0;
    if (fd >= 0) close(fd);
    return text;
}

static void digest_of(const char *text, char *out)
{
    static const rf_machine_id_t any;
    uint8_t digest[32];
    if (rf_key_derive((const uint8_t *)text, strlen(text), &any, "host", digest) != RF_OK) return;
    for (size_t i = 0; i < sizeof digest; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* As it begins: the first word of a small file; "" if there is none. */
static void word_of(const char *path, char *out, size_t max)
{
    if (rf_file_read(path, out, max) < 0) out[0] = 0;
    out[strcspn(out, " \n")] = 0;
}

void rf_evidence_where(const rf_daemon_t *daemon, rf_where_t *out)
{
    char machine_id[64], net[64], pid[64] = "";
    memset(out, 0, sizeof *out);
    word_of("/proc/sys/kernel/random/boot_id", out->boot, sizeof out->boot);
    if (strlen(out->boot) != 36) out->boot[0] = 0;
    word_of("/etc/machine-id", machine_id, sizeof machine_id);
    ssize_t n_pid = readlink("/proc/self/ns/pid", pid, sizeof pid - 1);
    bool contained =
        n_pid <= 0 || strcmp(pid, PID_NAMESPACE_FIRST) != 0; /* its image is on many hosts, perhaps */
    if (strlen(machine_id) == 32 && !contained)
        digest_of(machine_id, out->host); /* "uninitialized" while a host first boots */
    ssize_t n = readlink("/proc/self/ns/net", net, sizeof net - 1);
    if (n <= 0) return;
    net[n] = 0;
    snprintf(out->place, sizeof out->place, "%s %s", net, daemon->node_dir);
}

/* The list has this life's own control socket, so it is the whole of this network namespace, and no other life's, which may start cores. */
static bool is_ours(const rf_daemon_t *daemon, const char *text)
{
    char path[RF_PATH_MAX];
    unsigned listening;
    snprintf(path, sizeof path, "%s.sock", daemon->node_dir);
    rf_evidence_sockets(text, path, &listening);
    return listening == 1;
}

/* A core that was not started by this life has its listening socket, if it lives, and nothing else has. */
static bool is_alone(const rf_local_core_t *core, const char *text)
{
    char path[RF_PATH_MAX];
    unsigned listening;
    snprintf(path, sizeof path, "%s/monitor-%u.sock", core->daemon->node_dir, core->core);
    unsigned n = rf_evidence_sockets(text, path, &listening);
    return core->life == RF_LIFE_UP ? listening == 1 : n == 0;
}

/* One that this life has started has a socket, too, and is looked at before that, or when it has ended. */
static bool can_look(const rf_local_core_t *core)
{
    if (core->looked || core->unsure) return false;
    if (core->life == RF_LIFE_UP) return !core->child && core->link_up;
    return core->life == RF_LIFE_NONE || core->life == RF_LIFE_DOWN;
}

bool rf_evidence_look(rf_daemon_t *daemon)
{
    bool alone[RF_CORES_PER_NODE_MAX], any = false, news = false;
    for (unsigned i = 0; i < daemon->n_cores; i++) any |= alone[i] = can_look(&daemon->cores[i]);
    /* The kernel lists sockets in parts, and one that is closed meanwhile may hide another: so more than once. */
    for (unsigned look = 0; look < LOOKS && any; look++) {
        char *text = read_all("/proc/net/unix");
        bool ours = text && is_ours(daemon, text);
        for (unsigned i = 0; i < daemon->n_cores; i++)
            alone[i] = ours && alone[i] && is_alone(&daemon->cores[i], text);
        free(text);
    }
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (!alone[i]) continue;
        daemon->cores[i].looked = true;
        news = true;
    }
    return news;
}

rf_core_said_t rf_evidence_of_core(const rf_local_core_t *core)
{
    rf_core_said_t out = {.looked = core->looked};
    if (core->unsure) return out;
    if (core->monitor_pidfd >= 0)
        out.incarnation = core->monitor_incarnation;
    else if (core->life != RF_LIFE_NONE && core->life != RF_LIFE_DOWN)
        return out; /* it comes, or its end has not been told yet */
    out.said = core->monitor_pidfd < 0 || out.incarnation > 0;
    return out;
}
