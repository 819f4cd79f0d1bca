/*
 * Plans: who feeds whom. A function of the applied view, the newest voters and the leader alone, so that all members
 * come to the same without talking: voters are fed by the leader; learners by the leader (broadcast), or by the head of
 * their host, which is its lowest voter, else its lowest member that is no witness; heads that are no voters by the
 * leader. In a tree by packages the lowest of a package feeds the others of it. More than PLAN_ARITY children of one
 * member become a heap, in order of cores. While two members see different views or leaders a learner may have two
 * parents, or none: then it fetches.
 *
 * Cores of one host are numbered one after the other (base/types.h): a host is a run.
 */
#include "consensus/engine.h"

typedef struct run {
    rf_core_t first, end;
    rf_core_t head; /* RF_CORE_NONE: none */
    bool head_votes;
} run_t;

static bool in(const agreement_t *e, rf_core_t core)
{
    return member_state(e, core) == AGREEMENT_MEMBER_IN;
}

static agreement_member_t member_at(const agreement_t *e, rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = member_incarnation(e, core)};
}

static bool votes(const agreement_t *e, rf_core_t core)
{
    return in(e, core) && config_sets(e, config_newest(e), member_at(e, core)) != 0;
}

static bool run_next(const agreement_t *e, rf_core_t from, run_t *run)
{
    if (from >= e->params.n_cores) return false;
    const agreement_params_t *p = &e->params;
    *run = (run_t){.first = from, .end = from, .head = RF_CORE_NONE};
    rf_core_t witness = RF_CORE_NONE;
    for (rf_core_t c = from; c < p->n_cores && (!p->host || p->host[c] == p->host[from]); c++) {
        run->end = (rf_core_t)(c + 1);
        if (!in(e, c)) continue;
        if (!run->head_votes && votes(e, c)) {
            run->head = c;
            run->head_votes = true;
        } else if (run->head == RF_CORE_NONE && p->witness && p->witness[c]) {
            if (witness == RF_CORE_NONE) witness = c;
        } else if (run->head == RF_CORE_NONE) {
            run->head = c;
        }
    }
    if (run->head == RF_CORE_NONE) run->head = witness;
    if (in(e, e->leader.core < p->n_cores ? e->leader.core : from) && e->leader.core >= run->first &&
        e->leader.core < run->end && e->leader.core < p->n_cores) {
        run->head = e->leader.core;
        run->head_votes = true;
    }
    return true;
}

/* The i-th (of all) below `root` in a heap: is its parent the one with ordinal `self` (-1: the root)? */
static bool is_child(int i, int self)
{
    return (i < PLAN_ARITY ? -1 : (i - PLAN_ARITY) / PLAN_ARITY) == self;
}

static void broadcast(agreement_t *e, void (*child)(agreement_t *, agreement_member_t))
{
    if (!leads(e)) return;
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        if (in(e, core) && core != e->params.self.core && !votes(e, core)) child(e, member_at(e, core));
    }
}

/* Heads of hosts that are no voters, below the leader. */
static void between_hosts(agreement_t *e, void (*child)(agreement_t *, agreement_member_t))
{
    int ordinal = 0, self = leads(e) ? -1 : -2;
    run_t run;
    for (rf_core_t at = 0; self == -2 && run_next(e, at, &run); at = run.end) {
        if (run.head == RF_CORE_NONE || run.head_votes) continue;
        if (run.head == e->params.self.core) self = ordinal;
        ordinal++;
    }
    if (self == -2) return;
    ordinal = 0;
    for (rf_core_t at = 0; run_next(e, at, &run); at = run.end) {
        if (run.head == RF_CORE_NONE || run.head_votes) continue;
        if (is_child(ordinal++, self)) child(e, member_at(e, run.head));
    }
}

static uint32_t package_of(const agreement_t *e, rf_core_t core)
{
    bool tree = e->params.plan == AGREEMENT_PLAN_TREE && e->params.package;
    return tree ? e->params.package[core] : 0;
}

/* The lowest learner of a package of the run; in the head's own package that is the head. */
static rf_core_t package_head(const agreement_t *e, const run_t *run, uint32_t package)
{
    if (package_of(e, run->head) == package) return run->head;
    rf_core_t c = run->first;
    while (c < run->end && !(in(e, c) && !votes(e, c) && package_of(e, c) == package)) c++;
    return c < run->end ? c : run->head;
}

static void inside_host(agreement_t *e, void (*child)(agreement_t *, agreement_member_t))
{
    rf_core_t self = e->params.self.core;
    run_t run;
    for (rf_core_t at = 0; run_next(e, at, &run); at = run.end) {
        if (self < run.first || self >= run.end) continue;
        if (run.head == RF_CORE_NONE) return;
        rf_core_t mine = package_head(e, &run, package_of(e, self));
        int my_ordinal = -2, ordinal = 0;
        for (rf_core_t c = run.first; c < run.end; c++) { /* heads of packages, below the head of the host */
            if (!in(e, c) || votes(e, c) || c == run.head || package_head(e, &run, package_of(e, c)) != c)
                continue;
            if (self == run.head && is_child(ordinal, -1)) child(e, member_at(e, c));
            ordinal++;
        }
        ordinal = 0;
        for (int pass = 0; pass < 2; pass++, ordinal = 0) { /* members of my package, below its head */
            if (self == mine) my_ordinal = -1;
            for (rf_core_t c = run.first; c < run.end; c++) {
                if (!in(e, c) || votes(e, c) || c == run.head || c == mine ||
                    package_of(e, c) != package_of(e, self))
                    continue;
                if (pass == 0 && c == self) my_ordinal = ordinal;
                if (pass == 1 && my_ordinal >= -1 && is_child(ordinal, my_ordinal)) child(e, member_at(e, c));
                ordinal++;
            }
        }
        return;
    }
}

void plan_children(agreement_t *e, void (*child)(agreement_t *, agreement_member_t))
{
    if (e->expelled || e->n_members <= 1) return;
    if (e->params.plan == AGREEMENT_PLAN_BROADCAST || !e->params.host) {
        broadcast(e, child);
        return;
    }
    between_hosts(e, child);
    inside_host(e, child);
}
