#include "consensus/plan.h"

#include "base/assert.h"

#define NOT_IN       UINT32_MAX
#define PACKAGES_MAX 64  /* of a host that are told apart; the others count as the head's */
#define SLOTS_MAX    512 /* in which all cores that there can be are reached: four generations of 16 */

_Static_assert(PLAN_STAR_MAX <= AGREEMENT_CHILDREN_MAX, "no more than one may feed");
_Static_assert(PLAN_HOSTS_MAX + PLAN_PACKAGES_MAX + PLAN_CORES_MAX <= AGREEMENT_CHILDREN_MAX,
               "nor on three levels");

const char *agreement_plan_name(unsigned plan)
{
    static const char *const names[AGREEMENT_PLANS] = {
        [AGREEMENT_PLAN_BROADCAST] = "broadcast", [AGREEMENT_PLAN_HOST] = "host",
        [AGREEMENT_PLAN_PACKAGE] = "package",     [AGREEMENT_PLAN_UNICAST] = "unicast",
        [AGREEMENT_PLAN_WEIGHTED] = "weighted",
    };
    return plan < AGREEMENT_PLANS ? names[plan] : NULL;
}

/* ---- one level: a root, and those below it by ordinals from 1 ---- */

/*
 * A heap; or, with `reach`, in slots of what sending one message takes. Who is reached in slot t sends `arity` messages in a row, which
 * arrive from slot t + reach on. So what arrives in slot t is from those who were reached by slot t - reach and are not through,
 * one from each in order: whose child one is follows from how many are reached in which slot.
 */
typedef struct level {
    rf_core_t of;
    plan_child_fn child;
    void *context;
    uint32_t self, last; /* ordinals: of `of`, and of the one added last */
    uint32_t arity, reach, slot;
    uint32_t by[SLOTS_MAX]; /* how many are reached by that slot, the root among them */
} level_t;

static uint32_t reached_by(const level_t *l, uint32_t slot, uint32_t before)
{
    return before > slot ? 0 : l->by[slot - before];
}

/* Whose child that ordinal is: a lower one. Asked for in rising order. */
static uint32_t parent(level_t *l, uint32_t ordinal)
{
    const uint32_t through = l->reach + l->arity;
    if (l->reach == 0) return (ordinal - 1) / l->arity;
    for (; ordinal >= l->by[l->slot]; l->slot++) {
        uint32_t next = l->slot + 1;
        rf_assert(next < SLOTS_MAX);
        l->by[next] = l->by[next - 1] + reached_by(l, next, l->reach) - reached_by(l, next, through);
    }
    return ordinal - l->by[l->slot - 1] + reached_by(l, l->slot, through);
}

static void level_begin(level_t *l, bool is_root, unsigned arity, unsigned reach)
{
    l->self = is_root ? 0 : NOT_IN;
    l->last = l->slot = 0;
    l->arity = arity;
    l->reach = reach;
    l->by[0] = 1;
}

static void level_add(level_t *l, rf_core_t core)
{
    l->last++;
    if (core == l->of)
        l->self = l->last;
    else if (l->self != NOT_IN && parent(l, l->last) == l->self)
        l->child(l->context, core);
}

/* ---- who is who ---- */

static bool in(const plan_view_t *v, rf_core_t core)
{
    return (v->members[core] & 3) == AGREEMENT_MEMBER_IN;
}

static bool leads(const plan_view_t *v, rf_core_t core)
{
    return core == v->leader && in(v, core);
}

static bool votes(const plan_view_t *v, rf_core_t core)
{
    unsigned i = 0;
    while (i < v->n_voters && v->voters[i] != core) i++;
    return i < v->n_voters;
}

/* Is to be fed by somebody. */
static bool learns(const plan_view_t *v, rf_core_t core)
{
    return in(v, core) && core != v->leader && !votes(v, core);
}

/* ---- BROADCAST, UNICAST ---- */

static void star(const plan_view_t *v, level_t *l)
{
    const uint32_t feeding = v->n_cores / PLAN_STAR_MAX; /* these ordinals, at most, have children */
    level_begin(l, leads(v, l->of), PLAN_STAR_MAX, 0);
    for (unsigned near = 0; near < 2; near++) {
        for (rf_core_t c = 0; c < v->n_cores; c++) {
            bool is_near = !v->host || v->leader >= v->n_cores || v->host[c] == v->host[v->leader];
            if (is_near != (near == 1) || !learns(v, c)) continue;
            level_add(l, c);
            if (l->self == NOT_IN && l->last > feeding) return;
        }
    }
}

/* ---- by hosts ---- */

typedef struct run { /* of cores: a host */
    rf_core_t first, end;
    rf_core_t head; /* RF_CORE_NONE: none */
} run_t;

static rf_core_t head_of(const plan_view_t *v, const run_t *run)
{
    rf_core_t lowest = RF_CORE_NONE, witness = RF_CORE_NONE;
    if (v->leader >= run->first && v->leader < run->end && in(v, v->leader)) return v->leader;
    for (rf_core_t c = run->first; c < run->end; c++) {
        if (!in(v, c)) continue;
        if (votes(v, c)) return c;
        rf_core_t *which = v->witness && v->witness[c] ? &witness : &lowest;
        if (*which == RF_CORE_NONE) *which = c;
    }
    return lowest != RF_CORE_NONE ? lowest : witness;
}

static run_t run_from(const plan_view_t *v, rf_core_t first)
{
    run_t run = {.first = first, .end = first};
    while (run.end < v->n_cores && v->host[run.end] == v->host[first]) run.end++;
    run.head = head_of(v, &run);
    return run;
}

static run_t run_of(const plan_view_t *v, rf_core_t core)
{
    while (core > 0 && v->host[core - 1] == v->host[core]) core--;
    return run_from(v, core);
}

/* Heads that do not vote, below the leader. */
static void between_hosts(const plan_view_t *v, level_t *l)
{
    run_t run;
    level_begin(l, leads(v, l->of), PLAN_HOSTS_MAX,
                v->plan == AGREEMENT_PLAN_WEIGHTED ? v->weights.between : 0);
    for (rf_core_t at = 0; at < v->n_cores; at = run.end) {
        run = run_from(v, at);
        if (run.head != RF_CORE_NONE && learns(v, run.head)) level_add(l, run.head);
    }
}

/* All others below the head. */
static void inside_host(const plan_view_t *v, const run_t *run, level_t *l)
{
    level_begin(l, l->of == run->head, PLAN_PACKAGES_MAX + PLAN_CORES_MAX, 0);
    for (rf_core_t c = run->first; c < run->end; c++) {
        if (learns(v, c) && c != run->head) level_add(l, c);
    }
}

typedef struct packages { /* of a host: the head's own first, then in order of their heads */
    unsigned n;
    struct {
        uint32_t package;
        rf_core_t head;
    } at[PACKAGES_MAX];
} packages_t;

static unsigned package_of(const plan_view_t *v, const packages_t *p, rf_core_t core)
{
    unsigned i = 0;
    while (i < p->n && p->at[i].package != v->package[core]) i++;
    return i;
}

static void packages_find(const plan_view_t *v, const run_t *run, packages_t *p)
{
    p->n = 1;
    p->at[0].package = v->package[run->head];
    p->at[0].head = run->head;
    for (rf_core_t c = run->first; c < run->end && p->n < PACKAGES_MAX; c++) {
        if (!learns(v, c) || package_of(v, p, c) < p->n) continue;
        p->at[p->n].package = v->package[c];
        p->at[p->n++].head = c;
    }
}

static void inside_packages(const plan_view_t *v, const run_t *run, level_t *l)
{
    const bool weighted = v->plan == AGREEMENT_PLAN_WEIGHTED;
    packages_t p;
    packages_find(v, run, &p);
    level_begin(l, l->of == run->head, PLAN_PACKAGES_MAX, weighted ? v->weights.host : 0);
    for (unsigned i = 1; i < p.n; i++) level_add(l, p.at[i].head);

    const unsigned mine = package_of(v, &p, l->of) % p.n; /* one too many: the head's */
    level_begin(l, l->of == p.at[mine].head, PLAN_CORES_MAX, weighted ? v->weights.package : 0);
    for (rf_core_t c = run->first; c < run->end; c++) {
        if (learns(v, c) && c != p.at[mine].head && c != run->head && package_of(v, &p, c) % p.n == mine)
            level_add(l, c);
    }
}

void plan_children(const plan_view_t *view, rf_core_t of, plan_child_fn child, void *context)
{
    level_t level = {.of = of, .child = child, .context = context};
    rf_assert(of < view->n_cores && in(view, of));
    if (view->plan == AGREEMENT_PLAN_BROADCAST || view->plan == AGREEMENT_PLAN_UNICAST || !view->host) {
        star(view, &level);
        return;
    }
    run_t run = run_of(view, of);
    if (of == run.head) between_hosts(view, &level);
    if (view->plan == AGREEMENT_PLAN_HOST || !view->package)
        inside_host(view, &run, &level);
    else
        inside_packages(view, &run, &level);
}
