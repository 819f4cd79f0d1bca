#include "explain.h"

#include "base/os.h"

#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROCESSES_MAX 8192
#define DEPTH_MAX     16 /* of the tree below a CPU driver that is of interest */

typedef struct seen {
    pid_t pid, parent;
    char state, name[17];
    long long cpu, policy, priority;
} seen_t;

static seen_t all[PROCESSES_MAX];
static unsigned n_all;

static bool read_of(pid_t pid, const char *what, char *text, size_t max)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, what);
    return rf_file_read(path, text, max) > 0;
}

static void look(pid_t pid)
{
    enum { PARENT = 4, CPU = 39, PRIORITY = 40, POLICY = 41, FIELDS }; /* as in proc(5) */
    char text[1024];
    long long field[FIELDS] = {0};
    seen_t *seen = &all[n_all];
    if (!read_of(pid, "stat", text, sizeof text)) return;
    char *name = strchr(text, '('), *at = strrchr(text, ')');
    if (!name || !at || !at[1] || !at[2]) return;
    *at = 0;
    *seen = (seen_t){.pid = pid, .state = at[2]};
    snprintf(seen->name, sizeof seen->name, "%s", name + 1);
    at += 3;
    for (int i = PARENT; i < FIELDS; i++) field[i] = strtoll(at, &at, 10);
    seen->parent = (pid_t)field[PARENT];
    seen->cpu = field[CPU];
    seen->policy = field[POLICY];
    seen->priority = field[PRIORITY];
    n_all++;
}

static void look_at_all(void)
{
    DIR *proc = opendir("/proc");
    n_all = 0;
    for (struct dirent *entry; proc && n_all < PROCESSES_MAX && (entry = readdir(proc));) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0) look(pid);
    }
    if (proc) closedir(proc);
}

static bool is_below(const seen_t *process, pid_t root)
{
    pid_t at = process->pid;
    for (unsigned depth = 0; depth < DEPTH_MAX && at > 0; depth++) {
        if (at == root) return true;
        unsigned i = 0;
        while (i < n_all && all[i].pid != at) i++;
        at = i < n_all ? all[i].parent : 0;
    }
    return false;
}

/* The lines of /proc/PID/status that begin so. */
static void print_status(pid_t pid, const char *const *wanted)
{
    char text[4096];
    if (!read_of(pid, "status", text, sizeof text)) return;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        for (const char *const *want = wanted; *want; want++) {
            if (strncmp(line, *want, strlen(*want)) == 0) print_message("      %s\n", line);
        }
    }
}

static void print_file(const char *title, pid_t pid, const char *what)
{
    char text[4096];
    if (!read_of(pid, what, text, sizeof text)) return;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        print_message("      %s%s\n", title, line);
}

static void print_process(const seen_t *process)
{
    static const char *const signals[] = {"SigPnd", "ShdPnd", "SigBlk", "NSpid", "TracerPid", NULL};
    char text[256];
    unsigned long long ran_ns, waited_ns;
    print_message("  %d %s: %c, child of %d, CPU %lld, policy %lld priority %lld\n", (int)process->pid,
                  process->name, process->state, (int)process->parent, process->cpu, process->policy,
                  process->priority);
    if (read_of(process->pid, "schedstat", text, sizeof text) &&
        sscanf(text, "%llu %llu", &ran_ns, &waited_ns) == 2)
        print_message("      ran %.3f ms, waited for its CPU %.3f ms\n", (double)ran_ns / 1e6,
                      (double)waited_ns / 1e6);
    print_file("waits in ", process->pid, "wchan");
    print_file("call ", process->pid, "syscall");
    print_file("", process->pid, "stack");
    print_status(process->pid, signals);
}

void explain_silence(pid_t driver)
{
    static const char *const shortages[] = {"cpu", "memory", "io"};
    char path[64], text[512];
    look_at_all();
    print_message("the CPU driver and what is below it:\n");
    for (unsigned i = 0; i < n_all; i++) {
        if (is_below(&all[i], driver)) print_process(&all[i]);
    }
    print_message("others in real time, or not to be interrupted:\n");
    for (unsigned i = 0; i < n_all; i++) {
        const seen_t *p = &all[i];
        if (!is_below(p, driver) && (p->policy == SCHED_FIFO || p->policy == SCHED_RR || p->state == 'D') &&
            p->parent != 2) /* but the kernel's own */
            print_process(p);
    }
    for (size_t i = 0; i < sizeof shortages / sizeof *shortages; i++) {
        snprintf(path, sizeof path, "/proc/pressure/%s", shortages[i]);
        if (rf_file_read(path, text, sizeof text) > 0)
            print_message("shortage of %s:\n%s", shortages[i], text);
    }
    if (rf_file_read("/proc/loadavg", text, sizeof text) > 0) print_message("load %s", text);
}
