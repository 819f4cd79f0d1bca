/*
 * Who feeds whom, for GROUP_PLAN_TREE.
 *
 * By placement: two levels, an aggregator for each package or host (Baumann et al., SOSP 2009, 5.1: multicast by package).
 *
 * Weighted by latency: made greedily, one member more each time: of all messages that a member which is reached already could send to one
 * that is not, the one that arrives first, where what is also counted is how near the one so reached is to the next (earliest completing edge first
 * with look-ahead: Bhat, Raghavendra and Prasanna, JPDC 2003, 4.3). No such rule is always best, so it is tried without looking ahead, too, and
 * beside one message to each in turn; the tree that reaches the last member first is taken.
 */
#include "consensus/group.h"

#include <string.h>

typedef struct tree {
    uint8_t order[GROUP_MEMBERS_MAX], parents[GROUP_MEMBERS_MAX];
    uint64_t reach_ns;
} tree_t;

uint64_t group_plan_reach_ns(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, const uint8_t *order,
                             const uint8_t *parents)
{
    uint64_t free_ns[GROUP_MEMBERS_MAX] = {0}, last_ns = 0;
    for (unsigned i = 1; i < n; i++) {
        unsigned p = parents[i];
        free_ns[i] = free_ns[p] + latency_ns[order[p] * n + order[i]];
        free_ns[p] += send_ns;
        if (free_ns[i] > last_ns) last_ns = free_ns[i];
    }
    return last_ns;
}

/* From `from` to the nearest that is still missing, but for itself; 0: none is. */
static uint64_t nearest_ns(unsigned n, const uint32_t *latency_ns, const bool *reached, unsigned from)
{
    uint64_t least = UINT64_MAX;
    for (unsigned to = 0; to < n; to++) {
        if (to != from && !reached[to] && latency_ns[from * n + to] < least)
            least = latency_ns[from * n + to];
    }
    return least == UINT64_MAX ? 0 : least;
}

static void grow(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, bool look_ahead, tree_t *t)
{
    uint64_t free_ns[GROUP_MEMBERS_MAX] = {0}; /* by place in the order */
    bool reached[GROUP_MEMBERS_MAX] = {true};
    t->order[0] = t->parents[0] = 0;
    for (unsigned k = 1; k < n; k++) {
        uint64_t best_ns = UINT64_MAX;
        unsigned parent = 0, child = 0;
        for (unsigned to = 1; to < n; to++) {
            if (reached[to]) continue;
            uint64_t ahead_ns = look_ahead ? nearest_ns(n, latency_ns, reached, to) : 0;
            for (unsigned at = 0; at < k; at++) {
                uint64_t ns = free_ns[at] + latency_ns[t->order[at] * n + to] + ahead_ns;
                if (ns >= best_ns) continue;
                best_ns = ns;
                parent = at;
                child = to;
            }
        }
        t->order[k] = (uint8_t)child;
        t->parents[k] = (uint8_t)parent;
        free_ns[k] = free_ns[parent] + latency_ns[t->order[parent] * n + child];
        free_ns[parent] += send_ns;
        reached[child] = true;
    }
    t->reach_ns = group_plan_reach_ns(n, latency_ns, send_ns, t->order, t->parents);
}

/* One message to each, the farthest first. */
static void star(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, tree_t *t)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned at = i;
        for (; at > 1 && latency_ns[t->order[at - 1]] < latency_ns[i]; at--) t->order[at] = t->order[at - 1];
        t->order[at] = (uint8_t)i;
        t->parents[i] = 0;
    }
    t->reach_ns = group_plan_reach_ns(n, latency_ns, send_ns, t->order, t->parents);
}

uint64_t group_plan_weigh(unsigned n, const uint32_t *latency_ns, uint32_t send_ns, uint8_t *order,
                          uint8_t *parents)
{
    tree_t trees[3];
    unsigned best = 0;
    grow(n, latency_ns, send_ns, true, &trees[0]);
    grow(n, latency_ns, send_ns, false, &trees[1]);
    star(n, latency_ns, send_ns, &trees[2]);
    for (unsigned i = 1; i < 3; i++) {
        if (trees[i].reach_ns < trees[best].reach_ns) best = i;
    }
    memcpy(order, trees[best].order, n);
    memcpy(parents, trees[best].parents, n);
    return trees[best].reach_ns;
}

/* ---- by placement ---- */

typedef struct placement {
    const agreement_member_t *members;
    const uint16_t *host;
    const uint32_t *package; /* NULL: by host */
} placement_t;

static bool together(const placement_t *p, unsigned a, unsigned b)
{
    rf_core_t x = p->members[a].core, y = p->members[b].core;
    return p->host[x] == p->host[y] && (!p->package || p->package[x] == p->package[y]);
}

/* The lowest member where `i` is; the owner, where it is itself. */
static unsigned aggregator(const placement_t *p, unsigned n, unsigned i)
{
    unsigned lowest = i;
    for (unsigned k = 0; k < n; k++) {
        if (!together(p, k, i)) continue;
        if (k == 0) return 0;
        if (p->members[k].core < p->members[lowest].core) lowest = k;
    }
    return lowest;
}

/* Where in the list: aggregators of other hosts, of this one, the rest. */
static uint32_t rank(const placement_t *p, unsigned n, unsigned i)
{
    bool aggregates = aggregator(p, n, i) == i;
    bool here = p->host[p->members[i].core] == p->host[p->members[0].core];
    return (aggregates ? here ? 1u : 0u : 2u) << 16 | p->members[i].core;
}

static void place(const placement_t *p, unsigned n, uint8_t *order, uint8_t *parents)
{
    uint8_t at[GROUP_MEMBERS_MAX] = {0};
    order[0] = 0;
    for (unsigned i = 1; i < n; i++) {
        unsigned k = i;
        for (; k > 1 && rank(p, n, order[k - 1]) > rank(p, n, i); k--) order[k] = order[k - 1];
        order[k] = (uint8_t)i;
    }
    for (unsigned k = 0; k < n; k++) at[order[k]] = (uint8_t)k;
    for (unsigned k = 0; k < n; k++) {
        unsigned from = aggregator(p, n, order[k]);
        parents[k] = from == order[k] ? 0 : at[from];
    }
}

void group_plan_by_package(const agreement_member_t *members, unsigned n, const uint16_t *host,
                           const uint32_t *package, uint8_t *order, uint8_t *parents)
{
    place(&(placement_t){.members = members, .host = host, .package = package}, n, order, parents);
}

void group_plan_by_host(const agreement_member_t *members, unsigned n, const uint16_t *host, uint8_t *order,
                        uint8_t *parents)
{
    place(&(placement_t){.members = members, .host = host}, n, order, parents);
}
