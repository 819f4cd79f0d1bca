/*
 * Why a command in a guest did not end: asked from outside, when its time is over.
 *
 * A guest that answers shows what runs in it. Of one that does not, the supervisor knows what is on its line, this host knows its
 * processes, and its kernel, User-Mode Linux, has a management console of its own (mconsole), which needs nothing of the line: a kernel that
 * answers there lives, and tells where its first process, the agent, waits.
 */
#include "lab/lab.h"

#include "base/os.h"

#include <dirent.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ECHO_TIMEOUT_MS     4000
#define ASK_TIMEOUT_MS      2000
#define MCONSOLE_TIMEOUT_MS 2000
#define LINES_MAX           14
#define LINE_MAX_CHARS      180

typedef struct silence {
    int pid; /* of the guest's first process on this host */
    unsigned long long silent_ms, heard_ms;
    size_t unread, waiting;
    unsigned nudges;
    char state[16];
} silence_t;

/* The first lines of a text, each of bounded length, behind a label. */
static void print_lines(const char *label, const char *text, unsigned lines)
{
    while (*text && lines-- > 0) {
        size_t n = strcspn(text, "\n");
        if (n > 0)
            fprintf(stderr, "rf-lab:   %s%.*s\n", label, (int)(n < LINE_MAX_CHARS ? n : LINE_MAX_CHARS),
                    text);
        text += n + (text[n] == '\n');
    }
}

static bool ask_supervisor(const lab_place_t *place, unsigned guest, silence_t *silence)
{
    static lab_text_t text;
    char number[12];
    snprintf(number, sizeof number, "%u", guest);
    const char *const words[] = {"silent", number};
    text.used = 0;
    text.bytes[0] = '\0';
    return lab_ask(place, words, 2, ASK_TIMEOUT_MS, &text) == LAB_OK &&
           sscanf(text.bytes, "%d %llu %llu %zu %zu %u %15s", &silence->pid, &silence->silent_ms,
                  &silence->heard_ms, &silence->unread, &silence->waiting, &silence->nudges,
                  silence->state) == 7;
}

/* What runs there; false: nobody answers. */
static bool show_programs(const lab_place_t *place, unsigned guest)
{
    static lab_text_t text;
    static const char script[] = "ps -eo pid,ppid,stat,wchan:20,etimes,time,args --sort=start_time | "
                                 "grep -v ' \\[[^]]*\\]$' | tail -n 12";
    static const char *const words[] = {"sh", "-c", script};
    lab_program_t program = {.guest = guest,
                             .timeout_ms = ECHO_TIMEOUT_MS,
                             .arguments = words,
                             .n_arguments = 3,
                             .directory = "/"};
    text.used = 0;
    text.bytes[0] = '\0';
    int status = lab_run_quietly(place, &program, &text);
    if (status == LAB_TIMEOUT || status == LAB_LOST || status == LAB_NO_LAB) return false;
    print_lines("", text.bytes, LINES_MAX);
    return true;
}

/* ---- its processes on this host ---- */

static int parent_of(int pid, char *line, size_t max)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    ssize_t n = rf_file_read(path, text, sizeof text - 1);
    const char *end = n > 0 ? strrchr(text, ')') : NULL;
    char state;
    int parent;
    unsigned long user, system;
    if (!end || sscanf(end + 1, " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &state, &parent, &user,
                       &system) != 4)
        return -1;
    char waits[64] = "", call[128] = "";
    snprintf(path, sizeof path, "/proc/%d/wchan", pid);
    n = rf_file_read(path, waits, sizeof waits - 1);
    waits[n > 0 ? n : 0] = '\0';
    snprintf(path, sizeof path, "/proc/%d/syscall", pid);
    n = rf_file_read(path, call, sizeof call - 1);
    call[n > 0 ? strcspn(call, "\n") : 0] = '\0';
    snprintf(line, max,
             "process %d of %d: %.*s, state %c, in %s, system call %.60s, %lu and %lu ticks of CPU", pid,
             parent, (int)(end + 1 - text), text, state, waits, call, user, system);
    return parent;
}

/* Those below `root`, two levels deep: the guest's kernel, and the programs whose code it runs. */
static void show_processes(int root)
{
    DIR *folder = opendir("/proc");
    if (!folder) return;
    unsigned lines = 6;
    int kernel = 0;
    for (struct dirent *entry; lines > 0 && (entry = readdir(folder));) {
        char line[512];
        int pid = (int)strtoul(entry->d_name, NULL, 10),
            parent = pid > 0 ? parent_of(pid, line, sizeof line) : -1;
        if (parent < 0 || (pid != root && parent != root && parent != kernel)) continue;
        if (parent == root) kernel = pid;
        print_lines("", line, 1);
        lines--;
    }
    closedir(folder);
}

/* ---- its kernel's console ---- */

typedef struct mconsole_request {
    uint32_t magic, version, length;
    char words[512];
} mconsole_request_t;

typedef struct mconsole_reply {
    uint32_t failed, more, length;
    char text[512];
} mconsole_reply_t;

#define MCONSOLE_MAGIC 0xcafebabe

static bool ask_kernel(const char *socket_path, const char *words, unsigned lines)
{
    mconsole_request_t request = {.magic = MCONSOLE_MAGIC, .version = 2, .length = (uint32_t)strlen(words)};
    struct sockaddr_un address = {.sun_family = AF_UNIX}, own = {.sun_family = AF_UNIX};
    memcpy(request.words, words, request.length);
    if (strlen(socket_path) >= sizeof address.sun_path) return false;
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool answered = false;
    /* An address that the kernel chooses, for the answer. */
    if (fd >= 0 && bind(fd, (struct sockaddr *)&own, sizeof own.sun_family) == 0 &&
        sendto(fd, &request, sizeof request, MSG_DONTWAIT, (struct sockaddr *)&address, sizeof address) > 0) {
        mconsole_reply_t reply = {.more = 1};
        struct pollfd there = {.fd = fd, .events = POLLIN};
        while (lines > 0 && reply.more && poll(&there, 1, MCONSOLE_TIMEOUT_MS) > 0) {
            ssize_t n = recv(fd, &reply, sizeof reply - 1, 0);
            if (n < (ssize_t)offsetof(mconsole_reply_t, text)) break;
            ((char *)&reply)[n] = '\0';
            answered = true;
            char label[64];
            snprintf(label, sizeof label, "its kernel, %s: ", words);
            print_lines(label, reply.text, lines);
            lines = lines > 3 ? lines - 3 : 0;
        }
    }
    if (fd >= 0) close(fd);
    return answered;
}

static void show_kernel(int pid, unsigned guest)
{
    char path[100];
    snprintf(path, sizeof path, "/proc/%d/root%s/lab%u/mconsole", pid, LAB_UML_FOLDER, guest);
    if (access(path, F_OK) != 0) return; /* it has no kernel of its own, or not this one */
    if (!ask_kernel(path, "version", 1)) {
        fprintf(stderr, "rf-lab:   its kernel does not answer on its console either: it hears no interrupts, "
                        "or runs nothing\n");
        return;
    }
    static const char *const questions[] = {"proc uptime", "proc 1/syscall", "proc 1/wchan"};
    for (unsigned i = 0; i < sizeof questions / sizeof questions[0]; i++) ask_kernel(path, questions[i], 1);
}

void lab_explain(const lab_place_t *place, unsigned guest)
{
    silence_t before = {0}, after = {0};
    bool known = ask_supervisor(place, guest, &before);
    if (known && strcmp(before.state, "frozen") == 0) {
        lab_error("guest %u is frozen", guest);
        return;
    }
    if (show_programs(place, guest)) return;
    if (!known || !ask_supervisor(place, guest, &after)) {
        lab_error("the lab's supervisor does not answer");
        return;
    }
    fprintf(stderr,
            "rf-lab: guest %u (%s) does not answer: its line was heard %llu ms ago, and is silent for %llu "
            "ms in spite of %u nudges; on it "
            "%zu bytes are unread, %zu more wait\n",
            guest, after.state, after.heard_ms, after.silent_ms, after.nudges, after.unread, after.waiting);
    show_processes(after.pid);
    show_kernel(after.pid, guest);
    if (ask_supervisor(place, guest, &after) && after.silent_ms < before.silent_ms)
        fprintf(stderr, "rf-lab: guest %u was heard again meanwhile\n", guest);
}
