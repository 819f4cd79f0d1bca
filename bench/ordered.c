/*
 * ordered: commands through the agreed log, from the proposal to the answer of executing it.
 *
 *   direct     replicas in one thread, messages are calls: the engine alone
 *   plan       sixteen members, three voters: by dissemination plan
 *   urpc       two voters on two cores over shared memory, both must acknowledge
 *   tcp        three hosts over loopback TCP, leader and one follower spinning on different CPUs
 *   blocking   the same with everybody asleep between messages
 *   failover   the leader is killed, stopped or cut off: until the next commit
 *   peers      etcd and canonical's C raft beside it (--peers)
 */
#include "ordered.h"

static const struct {
    const char *what;
    bool (*run)(const bench_options_t *options);
} pieces[] = {
    {"direct", ordered_direct}, {"plan", ordered_plan},         {"urpc", ordered_urpc},
    {"tcp", ordered_tcp},       {"blocking", ordered_blocking}, {"failover", ordered_failover},
    {"peers", ordered_peers},
};

static rf_err_t run(const bench_options_t *options)
{
    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        bool is_peers = pieces[i].run == ordered_peers;
        if (is_peers && options->argc == 0 && !options->peers) continue;
        if (!bench_wanted(options, pieces[i].what) && !(is_peers && options->peers)) continue;
        if (!pieces[i].run(options)) return RF_ERR_OS;
    }
    return RF_OK;
}

const bench_t bench_ordered = {"ordered", "commands through the agreed log: latency, rate, fail-over", run};
