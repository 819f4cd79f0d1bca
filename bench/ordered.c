/*
 * ordered: commands through the agreed log, from the proposal to the answer of executing it.
 *
 *   direct     replicas in one thread, messages are calls: the engine alone
 *   plan       three voters and up to 61 learners: until the last learner has it, by dissemination plan
 *   urpc       two voters on two cores over shared memory, both must acknowledge
 *   tcp        three hosts over loopback TCP, leader and one follower spinning on different CPUs
 *   blocking   the same with everybody asleep between messages
 *   failover   the leader is killed, stopped or cut off: until the next commit
 *   machine    three hosts over loopback TCP as a whole machine: a program puts keys through librackfish; only when asked for
 *   machine-failover (machine-killed, machine-stopped, machine-cut, machine-dead)
 *              the same with a whole machine and programs that put keys; only when asked for
 *   peers      etcd and canonical's C raft beside it (--peers)
 */
#include "ordered.h"

#include <string.h>

static const struct {
    const char *what;
    bool (*run)(const bench_options_t *options);
} pieces[] = {
    {"direct", ordered_direct}, {"plan", ordered_plan},         {"urpc", ordered_urpc},
    {"tcp", ordered_tcp},       {"blocking", ordered_blocking}, {"failover", ordered_failover},
    {"peers", ordered_peers},
};

/* Boots machines, so only when asked for. */
static bool wants_machine(const bench_options_t *options)
{
    for (int i = 0; i < options->argc; i++) {
        if (strncmp(options->argv[i], "machine-", 8) == 0) return true;
    }
    return false;
}

static rf_err_t run(const bench_options_t *options)
{
    if (options->argc > 0 && strcmp(options->argv[0], "machine-client") == 0)
        return ordered_machine_client(options) ? RF_OK : RF_ERR_OS;
    if (options->argc > 0 && strcmp(options->argv[0], "machine-puts") == 0)
        return ordered_registry_client(options) ? RF_OK : RF_ERR_OS;
    if (options->argc > 0 && bench_wanted(options, "machine") && !ordered_registry(options)) return RF_ERR_OS;
    if (wants_machine(options) && !ordered_machine(options)) return RF_ERR_OS;
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        bool is_peers = pieces[i].run == ordered_peers;
        if (is_peers && options->argc == 0 && !options->peers) continue;
        if (!bench_wanted(options, pieces[i].what) && !(is_peers && options->peers)) continue;
        if (!pieces[i].run(options)) return RF_ERR_OS;
    }
    return RF_OK;
}

const bench_t bench_ordered = {"ordered", "commands through the agreed log: latency, rate, fail-over", run};
