/*
 * Sleep over RDMA, as the sleepers see it:
 *
 *      nobody sleeps on slots    a slot that can be seen is taken within a bound, by a process that does not stand still: where the
 *                                timer goes off by that, whatever its sender does; where it does not, by a sender that goes
 *                                on, and hears its peer
 *      no words without end      a path's end says SLEEP once, and once for each time that it was rung; each SLEEP is granted once, each
 *                                GRANT rings once
 *
 * That nobody sends or wakes once all is done: sim_rdma_at_rest().
 */
#include "sim/rdma.h"

#define BOUND_LOOKS_NS   (300 * RF_NS_PER_MS) /* twice the longest look, by a slow clock */
#define BOUND_GRANTED_NS (40 * RF_NS_PER_MS)  /* words there and back, each a hundred times as late as most */

static void note_standing(sim_world_t *w, unsigned core)
{
    const sim_process_t *p = &w->processes[core];
    uint64_t *stood = &w->rdma->owners[core].stood_ns, until = 0;
    if (!p->alive || w->clocks[w->host[core]].stopped) until = w->now_ns;
    if (p->busy_until_ns > w->now_ns + 100 * RF_NS_PER_US) until = p->busy_until_ns;
    if (p->slow_until_ns > w->now_ns) until = p->slow_until_ns;
    if (until > *stood) *stood = until;
}

static uint64_t later_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void check_wake(sim_world_t *w)
{
    sim_rdma_t *r = w->rdma;
    for (unsigned i = 0; i < w->n_cores; i++) note_standing(w, i);
    for (unsigned a = 0; a < w->n_cores; a++) {
        for (unsigned b = 0; b < w->n_cores; b++) {
            sim_sleeper_t *end = &r->ends[a][b];
            bool cut =
                sim_network_cut(w, w->host[a], w->host[b]) || sim_network_cut(w, w->host[b], w->host[a]);
            if (cut || !r->ends[b][a].up) end->cut_ns = w->now_ns;
            if (!w->processes[a].alive || !end->up || !sim_rdma_seen(w, end, end->taken + 1)) continue;
            uint64_t since = end->ring[(end->taken + 1) % r->ring].seen_ns;
            since = later_of(since, later_of(r->owners[a].stood_ns, end->up_since_ns));
            /* Who has been granted has no timer: it waits for its ring, which may wait for room in its sender's queue. */
            bool timer = r->looks && end->sleep.state != RDMA_GRANTED;
            if (!timer) since = later_of(since, later_of(r->owners[b].stood_ns, end->cut_ns));
            if (w->now_ns < since + (r->looks ? BOUND_LOOKS_NS : BOUND_GRANTED_NS)) continue;
            sim_violation(
                w, "wake",
                "core %u has not taken slot %llu of core %u, which can be seen since %.3f ms: it %s", a,
                (unsigned long long)end->taken + 1, b,
                (double)end->ring[(end->taken + 1) % r->ring].seen_ns / 1e6,
                r->owners[a].asleep ? "sleeps" : "does something else");
        }
    }
}

void check_wake_said(sim_world_t *w, rf_core_t core, rf_core_t peer)
{
    const sim_sleeper_t *end = &w->rdma->ends[core][peer], *other = &w->rdma->ends[peer][core];
    if (end->sleeps <= end->paths + end->rung && end->grants <= other->sleeps && end->rung <= other->grants)
        return;
    sim_violation(
        w, "wake",
        "core %u said SLEEP %llu times to core %u, over %llu paths, was granted it %llu times and rung %llu "
        "times; it granted %llu of %llu",
        core, (unsigned long long)end->sleeps, peer, (unsigned long long)end->paths,
        (unsigned long long)other->grants, (unsigned long long)end->rung, (unsigned long long)end->grants,
        (unsigned long long)other->sleeps);
}
