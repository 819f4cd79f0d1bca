/*
 * A booted machine of three hosts with one core each, to be hurt: emulated on this host, or each host in a network namespace of its
 * own, so that its network can be cut. The machine is Rackfish's own programs, driven by the `rackfish` command.
 */
#ifndef RF_BENCH_MACHINE_H
#define RF_BENCH_MACHINE_H

#include "bench.h"

#include <sys/types.h>

#define MACHINE_HOSTS 3

typedef struct machine {
    char name[RF_NAME_MAX], folder[64]; /* folder: configuration and clients' files; removed at the end */
    char command[256], self[256];       /* `rackfish`, rf-bench */
    bool namespaces;
    bool plain;  /* links between hosts are not encrypted; emulated hosts only */
    bool leases; /* the leader reads alone; emulated hosts only */
    char run_dir[128];
    char network[16];
    const char *hosts[MACHINE_HOSTS]; /* their names */
    pid_t keeper; /* cleans up when keeper_end is closed: also when this process is killed */
    int keeper_end;
} machine_t;

/* NULL: machines of this kind can be made here; else why not. */
const char *machine_missing(bool namespaces);

/* Boots it; false with a message. machine_down() also after a failure. `namespaces`: the network is made by the first boot, and taken
 * away by machine_end(). */
bool machine_begin(machine_t *machine, bool namespaces);
bool machine_up(machine_t *machine);
void machine_down(machine_t *machine);
void machine_end(machine_t *machine);

/* Runs a program to its end; at most `max` - 1 bytes of its output go into `out`, a string. Its messages are shown if it fails and `quiet`
 * is false. */
bool machine_run(const char *const *argv, bool quiet, char *out, size_t max);

/* The core that leads; -1: none answers. */
int machine_leader(const machine_t *machine);

/* Pids of a host's state file of this role ("monitor", "cpudriver", "node"; NULL: all). */
unsigned machine_pids(const machine_t *machine, unsigned host, const char *role, pid_t *pids, unsigned max);

/* A program in the background on a core. */
bool machine_start(const machine_t *machine, unsigned core, const char *const *argv);

/* The host's network is dead, or there again: one call of the kernel. */
bool machine_cut(const machine_t *machine, unsigned host, bool cut);

/* When the log of a host's monitor has a line with these words for the last time: CLOCK_REALTIME; 0: never. */
uint64_t machine_said_ns(const machine_t *machine, unsigned host, const char *words);

#endif
