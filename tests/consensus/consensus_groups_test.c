/*
 * Group operations inside whole engines: views come out of the log and of snapshots, members die, are expelled while they
 * live, leave, join again, and are fenced some time later. What is checked, by the numbers of doc/agreement.md: while it
 * runs G1 to G5; after the faults that everything is answered, no group is wedged, and all who hold one agree (G8). Of the
 * engine: groups have been told of the view that the engine is at, whenever it is at rest.
 *
 * `consensus_groups_test SEED` replays one run.
 */
#include "net.h"

#include "consensus/group_state.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNS    400
#define LIVES   16 /* incarnations of a core */
#define OPS     512
#define OTHERS  256
#define GROUPS  6
#define PENDING 64
#define FIRST   100 /* id of the first group */

typedef struct model_op {
    agreement_member_t by;
    group_phase_t phase;
    unsigned n_groups, groups[2];
    bool done, ok, failed;
    uint64_t number;
    uint16_t prepared[NET_CORES_MAX], applied[NET_CORES_MAX],
        aborted[NET_CORES_MAX]; /* bits of incarnations */
} model_op_t;

typedef struct pending {
    uint64_t token;
    bool prepare;
} pending_t;

typedef struct life {                    /* of one incarnation of a core */
    uint64_t told_fenced[NET_CORES_MAX]; /* told so of incarnations up to this */
    bool fenced;
    bool holds[GROUPS];
    pending_t pending[PENDING];
    unsigned n_pending;
    uint16_t order[GROUPS][OPS];
    unsigned n_order[GROUPS];
} life_t;

typedef struct world {
    net_t *n;
    rf_prng_t prng;
    bool told_dead[NET_CORES_MAX][NET_CORES_MAX]; /* is still to be told */
    struct {
        unsigned proposal;
        rf_core_t core;
        bool used;
    } joins[16];
    model_op_t ops[OPS];
    unsigned n_ops, n_ok;
    struct {
        agreement_member_t by;
        bool done;
        rf_err_t err;
    } others[OTHERS]; /* FORM, JOIN, LEAVE */
    unsigned n_others;
    unsigned n_groups;
    life_t lives[NET_CORES_MAX][LIVES];
    char text[160];
} world_t;

static world_t *w;

static unsigned below(unsigned n)
{
    return (unsigned)rf_prng_below(&w->prng, n);
}

static void violate(const char *what, unsigned op, rf_core_t core)
{
    snprintf(w->text, sizeof w->text, "%s (operation or group %u, core %u)", what, op, core);
    net_unsafe(w->n, w->text);
}

static const groups_t *groups_at(rf_core_t core)
{
    return agreement_groups(w->n->cores[core].engine);
}

static life_t *life_at(rf_core_t core)
{
    return &w->lives[core][w->n->cores[core].incarnation];
}

static bool runs(rf_core_t core)
{
    return w->n->cores[core].alive;
}

/* ---- what the machines ask for, and answer ---- */

static void check_stable(unsigned index, const group_action_t *a, rf_core_t at)
{
    const group_t *g = group_find(groups_at(at), a->groups[0]);
    for (unsigned i = 0; a->n_groups == 1 && g && i < g->n; i++) {
        agreement_member_t m = g->entries[i].member;
        if (!(g->members & BIT(i)) || m.core == at || w->lives[m.core][m.incarnation].fenced) continue;
        if (m.incarnation != w->n->cores[m.core].incarnation) continue;
        const group_t *other = group_find(groups_at(m.core), a->groups[0]);
        const op_t *op = other ? op_find(groups_at(m.core), other, a->number) : NULL;
        if (!other || !(other->passed >= a->number || (op && op->stage >= STAGE_DECIDED && op->err == 0)))
            violate("visible before stable", index, m.core);
    }
}

/* Has somebody done this who has not left what the machine of `at` has agreed on? */
static bool done_by_a_survivor(const uint16_t *done, rf_core_t at)
{
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        rf_incarnation_t in = w->n->cores[core].incarnation;
        if (core == at || !(done[core] >> in & 1) || !runs(core)) continue;
        return true;
    }
    return false;
}

static void act(rf_core_t at, const group_action_t *a)
{
    life_t *life = life_at(at);
    uint16_t bit = (uint16_t)(1u << w->n->cores[at].incarnation);
    if (a->kind == GROUP_ACTION_CHANGED || a->kind == GROUP_ACTION_ENDED) {
        if (a->groups[0] - FIRST < GROUPS)
            life->holds[a->groups[0] - FIRST] = a->kind == GROUP_ACTION_CHANGED;
        return;
    }
    uint32_t index;
    rf_assert(a->size == sizeof index && life->n_pending < PENDING);
    memcpy(&index, a->bytes, sizeof index);
    rf_assert(index < w->n_ops);
    model_op_t *op = &w->ops[index];
    if (op->n_groups != a->n_groups) violate("another operation's objects", index, at);
    if (a->kind == GROUP_ACTION_PREPARE) {
        if (op->prepared[at] & bit) violate("prepared twice", index, at);
        op->prepared[at] |= bit;
    } else if (a->kind == GROUP_ACTION_APPLY) {
        if (op->applied[at] & bit) violate("applied twice", index, at);
        if (done_by_a_survivor(op->aborted, at)) violate("applied here, aborted elsewhere", index, at);
        if (op->failed) violate("applied, and answered as not done", index, at);
        if (op->phase == GROUP_TWO_PHASE && !(op->prepared[at] & bit))
            violate("applied, not prepared", index, at);
        if (op->phase == GROUP_TWO_PHASE) check_stable(index, a, at);
        if (a->n_groups ==
            1) { /* what only the dead have carried out is asked for again, of the next owner */
            bool again = op->phase == GROUP_ONE_PHASE && !done_by_a_survivor(op->applied, at);
            if (op->number != 0 && op->number != a->number && !again) violate("two numbers", index, at);
            op->number = a->number;
        }
        op->applied[at] |= bit;
        for (unsigned i = 0; i < a->n_groups; i++) {
            unsigned g = (unsigned)(a->groups[i] - FIRST);
            life->order[g][life->n_order[g]++] = (uint16_t)index;
        }
    } else {
        op->aborted[at] |= bit;
        if (done_by_a_survivor(op->applied, at)) violate("aborted here, applied elsewhere", index, at);
    }
    if (a->token != 0)
        life->pending[life->n_pending++] =
            (pending_t){.token = a->token, .prepare = a->kind == GROUP_ACTION_PREPARE};
}

static void completed(rf_core_t at, const group_completion_t *c)
{
    if (c->cookie >= OPS) {
        w->others[c->cookie - OPS].done = true;
        w->others[c->cookie - OPS].err = c->err;
        return;
    }
    unsigned index = (unsigned)c->cookie;
    model_op_t *op = &w->ops[index];
    if (op->done) violate("answered twice", index, at);
    op->done = true;
    op->ok = c->err == RF_OK;
    op->failed = !op->ok && c->err != RF_ERR_UNKNOWN_OUTCOME;
    w->n_ok += op->ok;
    for (rf_core_t core = 0; core < w->n->knobs.cores && op->failed; core++) {
        if (op->applied[core]) violate("applied, and answered as not done", index, core);
    }
    if (!op->ok) return;
    if (op->phase == GROUP_TWO_PHASE) {
        if (!(op->applied[at] >> w->n->cores[at].incarnation & 1))
            violate("answered before it is visible here", index, at);
        return;
    }
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        const life_t *life = life_at(core);
        if (life->fenced || !life->holds[op->groups[0]]) continue;
        if (op->applied[core] >> w->n->cores[core].incarnation & 1) continue;
        const group_t *g = group_find(groups_at(core), FIRST + op->groups[0]);
        if (g && op->number != 0 && g->passed >= op->number) continue; /* joined later */
        violate("a stale mapping after return", index, core);
    }
}

static void watch(net_t *n, rf_core_t at, const agreement_output_t *out)
{
    for (unsigned i = 0; out->group && i < out->group->n_actions; i++) act(at, &out->group->actions[i]);
    for (unsigned i = 0; out->group && i < out->group->n_completions; i++)
        completed(at, &out->group->completions[i]);
    for (unsigned i = 0; out->group && i < out->group->n_messages; i++) {
        const group_message_t *m = &out->group->messages[i];
        for (unsigned k = 0; k < m->n_to; k++) {
            if (m->to[k].core == at && m->to[k].incarnation >= n->cores[at].incarnation)
                violate("a message to itself", 0, at);
        }
    }
    if (out->more || out->next_tick_ns <= n->now_ns) return; /* an event may have been held */
    agreement_state_t s = net_state(n, at);
    if (groups_at(at)->view != s.view) violate("groups are not told of a view", (unsigned)s.view, at);
}

/* ---- what happens ---- */

static void tell(rf_core_t at, const group_event_t *event)
{
    agreement_event_t e = {.kind = AGREEMENT_GROUP, .group = *event};
    net_step(w->n, at, &e);
}

static bool answer(rf_core_t at)
{
    life_t *life = life_at(at);
    if (!runs(at) || life->n_pending == 0) return false;
    unsigned i = below(life->n_pending);
    pending_t p = life->pending[i];
    life->pending[i] = life->pending[--life->n_pending];
    tell(at, &(group_event_t){
                 .kind = p.prepare ? GROUP_PREPARED : GROUP_APPLIED,
                 .done = {.token = p.token, .err = p.prepare && below(20) == 0 ? RF_ERR_PERMISSION : RF_OK}});
    return true;
}

static void fence(rf_core_t core, rf_incarnation_t incarnation)
{
    net_t *n = w->n;
    for (rf_incarnation_t in = 1; in <= incarnation; in++) {
        if (w->lives[core][in].fenced) continue;
        w->lives[core][in].fenced = true;
        if (n->cores[core].incarnation == in) n->cores[core].alive = false;
        for (unsigned i = 0; i < n->n_flight; i++) {
            if (n->flight[i]->from.core != core || n->flight[i]->from.incarnation != in) continue;
            free(n->flight[i]);
            n->flight[i--] = n->flight[--n->n_flight];
        }
    }
}

/* Whoever has left, as far as `at` knows, is fenced, and `at` told so. */
static bool tell_fenced(rf_core_t at, bool all)
{
    bool any = false;
    for (rf_core_t core = 0; core < w->n->knobs.cores && runs(at); core++) {
        rf_incarnation_t left;
        if (core == at) continue;
        agreement_member_state_t state = agreement_member_state(w->n->cores[at].engine, core, &left);
        if (state == AGREEMENT_MEMBER_NONE) continue;
        if (state == AGREEMENT_MEMBER_IN) left--;
        if (left == 0 || life_at(at)->told_fenced[core] >= left || (!all && below(3) != 0)) continue;
        fence(core, left);
        life_at(at)->told_fenced[core] = left;
        agreement_event_t e = {.kind = AGREEMENT_FENCED};
        e.fenced = (agreement_member_t){.core = core, .incarnation = left};
        net_step(w->n, at, &e);
        any = true;
    }
    return any;
}

static uint64_t other(rf_core_t at)
{
    w->others[w->n_others].by = net_member(w->n, at);
    return OPS + w->n_others++;
}

static void form(rf_core_t at)
{
    agreement_member_t members[NET_CORES_MAX];
    unsigned n = 0;
    if (w->n_groups == GROUPS || w->n_others == OTHERS) return;
    members[n++] = net_member(w->n, at);
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        rf_incarnation_t in;
        if (core == at || below(5) == 0) continue;
        if (agreement_member_state(w->n->cores[at].engine, core, &in) != AGREEMENT_MEMBER_IN) continue;
        if (in == w->n->cores[core].incarnation) members[n++] = net_member(w->n, core);
    }
    life_at(at)->holds[w->n_groups] = true;
    tell(at, &(group_event_t){.kind = GROUP_FORM,
                              .form = {.group = FIRST + w->n_groups++,
                                       .cookie = other(at),
                                       .members = members,
                                       .n_members = n}});
}

static int operate(rf_core_t at, group_phase_t phase, unsigned first, unsigned second)
{
    if (w->n_ops == OPS || w->n_groups == 0) return -1;
    uint32_t index = w->n_ops++;
    model_op_t *op = &w->ops[index];
    *op = (model_op_t){.by = net_member(w->n, at), .phase = phase, .n_groups = first == second ? 1 : 2};
    op->groups[0] = first;
    op->groups[1] = second;
    uint64_t ids[2] = {FIRST + first, FIRST + second};
    tell(at, &(group_event_t){.kind = GROUP_OPERATE,
                              .operate = {.cookie = index,
                                          .phase = phase,
                                          .groups = ids,
                                          .n_groups = op->n_groups,
                                          .bytes = &index,
                                          .size = sizeof index}});
    return (int)index;
}

static void change(rf_core_t at, group_event_kind_t kind, unsigned group, rf_core_t through)
{
    if (w->n_others == OTHERS || group >= w->n_groups) return;
    tell(at,
         &(group_event_t){
             .kind = kind,
             .change = {.group = FIRST + group, .cookie = other(at), .through = net_member(w->n, through)}});
}

static void kill(rf_core_t core)
{
    net_kill(w->n, core);
    for (rf_core_t to = 0; to < w->n->knobs.cores; to++) w->told_dead[to][core] = to != core;
}

static void tell_deaths(bool all)
{
    for (rf_core_t to = 0; to < w->n->knobs.cores; to++) {
        for (rf_core_t dead = 0; dead < w->n->knobs.cores; dead++) {
            if (!w->told_dead[to][dead] || (!all && below(3) > 0) || !runs(to)) continue;
            w->told_dead[to][dead] = false;
            if (!runs(dead)) net_tell_death(w->n, to, dead, AGREEMENT_EVIDENCE_KERNEL);
        }
    }
}

static void join(rf_core_t by, rf_core_t core)
{
    for (unsigned i = 0; i < 16; i++) {
        if (w->joins[i].used) {
            if (w->joins[i].core == core) return;
            continue;
        }
        w->joins[i].used = true;
        w->joins[i].core = core;
        w->joins[i].proposal = net_change(w->n, by, &core, 1, NULL, 0);
        return;
    }
}

/* Comes back as what the log says; its process before that is no more. */
static void poll_joins(void)
{
    net_t *n = w->n;
    for (unsigned i = 0; i < 16; i++) {
        const net_proposal_t *p = &n->proposed[w->joins[i].proposal];
        rf_core_t core = w->joins[i].core;
        if (!w->joins[i].used ||
            (!p->answered && runs(p->core) && p->incarnation == n->cores[p->core].incarnation))
            continue;
        w->joins[i].used = false;
        if (!p->answered || p->err != RF_OK || p->value <= n->cores[core].incarnation || p->value >= LIVES)
            continue;
        fence(core, (rf_incarnation_t)p->value - 1);
        for (rf_core_t to = 0; to < n->knobs.cores; to++) w->told_dead[to][core] = false;
        net_start(n, core, (rf_incarnation_t)p->value);
    }
}

/* Members that nobody has started: whoever asked for them was not answered. */
static void tell_silence(void)
{
    rf_core_t leader = net_leader(w->n);
    for (rf_core_t core = 0; core < w->n->knobs.cores && leader != RF_CORE_NONE; core++) {
        agreement_event_t event = {.kind = AGREEMENT_DEATH};
        event.death.member.core = core;
        event.death.evidence = AGREEMENT_EVIDENCE_SILENCE;
        if (agreement_member_state(w->n->cores[leader].engine, core, &event.death.member.incarnation) ==
                AGREEMENT_MEMBER_IN &&
            event.death.member.incarnation > w->n->cores[core].incarnation)
            net_step(w->n, leader, &event);
    }
}

/* One is cut off while another leaves, perhaps comes back, and the log goes on beyond what is kept of it: it learns of the
 * departure by a snapshot, of a later view than those who saw it in the log. */
static void behind(void)
{
    net_t *n = w->n;
    rf_core_t cut = (rf_core_t)below(n->knobs.cores), dead = (rf_core_t)below(n->knobs.cores);
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE || cut == leader || dead == cut || !runs(dead) || !runs(cut)) return;
    net_isolate(n, cut, true);
    if (net_may_die(n, dead)) kill(dead);
    tell_deaths(true);
    net_run(n, 10 * MS);
    for (unsigned i = 0; i < 60; i++) {
        rf_core_t at = net_leader(n);
        poll_joins();
        if (at != RF_CORE_NONE && i == 20 && below(2)) join(at, dead);
        if (at != RF_CORE_NONE) net_propose(n, at);
        net_run(n, below(300) * US);
    }
    net_isolate(n, cut, false);
}

static void one_step(void)
{
    net_t *n = w->n;
    rf_core_t core = (rf_core_t)below(n->knobs.cores), peer = (rf_core_t)below(n->knobs.cores);
    bool up = runs(core) && n->cores[core].stalled_until_ns <= n->now_ns;
    unsigned what = below(100);
    poll_joins();
    for (unsigned i = below(6); i > 0; i--) answer((rf_core_t)below(n->knobs.cores));
    if (what < 20) { /* the log goes on, so that who is behind takes a snapshot */
        if (up) net_propose(n, core);
    } else if (what < 32) {
        if (up && w->n_groups > 0) {
            unsigned g = below(w->n_groups);
            operate(core, GROUP_ONE_PHASE, g, g);
        }
    } else if (what < 44) {
        if (up && w->n_groups > 0) {
            unsigned g = below(w->n_groups);
            operate(core, GROUP_TWO_PHASE, g, g);
        }
    } else if (what < 45) {
        if (up && w->n_groups > 1) {
            unsigned g = below(w->n_groups - 1);
            operate(core, GROUP_TWO_PHASE, g, g + 1);
        }
    } else if (what < 47) {
        if (up && below(3) == 0) form(core);
    } else if (what < 51) {
        if (up && w->n_groups > 0 && peer != core) change(core, GROUP_JOIN, below(w->n_groups), peer);
    } else if (what < 52) {
        if (up && w->n_groups > 0) change(core, GROUP_LEAVE, below(w->n_groups), core);
    } else if (what < 56) {
        if (runs(core) && net_may_die(n, core)) kill(core);
    } else if (what < 66) {
        tell_deaths(false);
    } else if (what < 68) {
        if (runs(core)) n->cores[core].stalled_until_ns = n->now_ns + below(12) * MS;
    } else if (what < 70) {
        if (runs(peer) && core != peer && net_may_die(n, peer))
            net_tell_death(n, core, peer, AGREEMENT_EVIDENCE_SILENCE);
    } else if (what < 78) {
        if (up) tell_fenced(core, false);
    } else if (what < 86) {
        if (up && !runs(peer)) join(core, peer);
    } else if (what < 87) {
        agreement_member_t leaver = net_member(n, peer);
        if (up && runs(peer) && net_may_die(n, peer)) net_change(n, core, NULL, 0, &leaver, 1);
    } else if (what < 89) {
        for (rf_core_t b = 0; b < n->knobs.cores; b++) {
            if (b != core && below(2)) net_cut(n, core, b, true);
        }
    } else if (what < 94) {
        for (rf_core_t a = 0; a < n->knobs.cores; a++) {
            for (rf_core_t b = 0; b < a; b++) net_cut(n, a, b, false);
        }
    } else if (what < 96) {
        agreement_event_t event = {.kind = AGREEMENT_TRANSFER};
        if (up) net_step(n, core, &event);
    } else if (what < 97) {
        behind();
    }
}

/* ---- after the faults ---- */

static bool settled(void)
{
    net_t *n = w->n;
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return false;
    agreement_state_t l = net_state(n, leader);
    if (l.joint || !l.quorum) return false;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        rf_incarnation_t in;
        bool member = agreement_member_state(n->cores[leader].engine, core, &in) == AGREEMENT_MEMBER_IN;
        if (runs(core) && (!member || in != n->cores[core].incarnation)) return false;
        if (!runs(core) && member && l.n_voters > 2) return false;
        if (runs(core) && net_state(n, core).applied < l.committed) return false;
        if (runs(core) && life_at(core)->n_pending > 0) return false;
        for (unsigned k = 0; runs(core) && k < groups_at(core)->params.groups_max; k++) {
            const group_t *g = &groups_at(core)->groups[k];
            if (g->used && ((g->id & EPHEMERAL) || g->wedged || g->installing || g->lock_id != 0 ||
                            g->passed != g->last))
                return false;
        }
    }
    for (unsigned i = 0; i < w->n_ops; i++) {
        const model_op_t *op = &w->ops[i];
        if (!op->done && runs(op->by.core) && n->cores[op->by.core].incarnation == op->by.incarnation)
            return false;
    }
    for (unsigned i = 0; i < w->n_others; i++) {
        agreement_member_t by = w->others[i].by;
        if (!w->others[i].done && runs(by.core) && n->cores[by.core].incarnation == by.incarnation)
            return false;
    }
    return true;
}

/* No majority lives of the newest voters that anybody knows. */
static bool is_lost(void)
{
    agreement_state_t newest = {0};
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        agreement_state_t s = net_state(w->n, core);
        if (runs(core) && (s.view > newest.view || (s.view == newest.view && s.last > newest.last)))
            newest = s;
    }
    return newest.lost || net_live_voters(w->n, &newest) <= newest.n_voters / 2;
}

static void print_groups(void)
{
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        for (unsigned k = 0; runs(core) && k < groups_at(core)->params.groups_max; k++) {
            const group_t *g = &groups_at(core)->groups[k];
            if (!g->used) continue;
            printf("  core %u.%u view %llu: group %llx epoch %llu n %u self %u last %llu passed %llu wedged "
                   "%d (view %llu) "
                   "collects %d (put off to %llu) installs %d reported %llx of %u.%u; left",
                   core, w->n->cores[core].incarnation, (unsigned long long)groups_at(core)->view,
                   (unsigned long long)g->id, (unsigned long long)g->epoch, g->n, g->self,
                   (unsigned long long)g->last, (unsigned long long)g->passed, g->wedged,
                   (unsigned long long)g->wedge_view, g->collecting, (unsigned long long)g->collect_view,
                   g->installing, (unsigned long long)g->reported, g->report_to.core,
                   g->report_to.incarnation);
            for (unsigned i = 0; i < g->n; i++)
                printf(" %u.%u%s%s", g->entries[i].member.core, g->entries[i].member.incarnation,
                       g->entries[i].left ? "!" : "", g->entries[i].gone ? "-" : "");
            printf("\n");
        }
    }
}

static void check_end(void)
{
    net_t *n = w->n;
    for (unsigned k = 0; k < w->n_groups; k++) {
        const group_t *first = NULL;
        const life_t *longest = NULL;
        for (rf_core_t core = 0; core < n->knobs.cores; core++) {
            const group_t *g = runs(core) ? group_find(groups_at(core), FIRST + k) : NULL;
            if (!g) continue;
            if (!first) first = g;
            if (!longest || life_at(core)->n_order[k] > longest->n_order[k]) longest = life_at(core);
            if (g->held != 0) violate("stuck: operations on several are held", k, core);
            if (g->epoch != first->epoch || g->last != first->last || g->n != first->n)
                violate("members disagree at the end", k, core);
        }
        for (rf_core_t core = 0; longest && core < n->knobs.cores; core++) {
            const life_t *life = life_at(core);
            uint16_t where[OPS] = {0};
            unsigned last = 0;
            if (!runs(core)) continue;
            for (unsigned i = 0; i < longest->n_order[k]; i++)
                where[longest->order[k][i]] = (uint16_t)(i + 1);
            for (unsigned i = 0; i < life->n_order[k]; i++) {
                unsigned at = where[life->order[k][i]];
                if (at == 0) continue; /* of an earlier membership of one that has joined again */
                if (at < last) violate("another order", life->order[k][i], core);
                last = at;
            }
            const group_t *g = group_find(groups_at(core), FIRST + k);
            for (unsigned i = 0; g && g->entries[g->self].nonce == 0 && i < w->n_ops; i++) {
                const model_op_t *op = &w->ops[i];
                bool here = op->applied[core] >> n->cores[core].incarnation & 1;
                if (op->ok && op->n_groups == 1 && op->groups[0] == k && !here)
                    violate("acknowledged, and lost", i, core);
            }
        }
    }
}

static world_t *begin(const net_knobs_t *knobs, uint64_t seed)
{
    w = calloc(1, sizeof *w);
    rf_assert(w);
    rf_prng_seed(&w->prng, seed ^ 0x6709);
    w->n = net_new(knobs, seed);
    w->n->watch = watch;
    return w;
}

static void end(void)
{
    net_free(w->n);
    free(w);
    w = NULL;
}

static group_params_t group_params(group_plan_t plan)
{
    return (group_params_t){.groups_max = 2 * GROUPS,
                            .members_max = NET_CORES_MAX,
                            .ops_max = 8,
                            .bytes_max = 64,
                            .resend_ns = 500 * US,
                            .plan = plan};
}

typedef struct seen {
    uint64_t ops, ok, views, loads, lost;
} seen_t;

static char breach[160];

static const char *run(uint64_t seed, bool verbose, seen_t *seen)
{
    rf_prng_t prng;
    jmp_buf unsafe;
    rf_prng_seed(&prng, seed ^ 0x9109);
    net_knobs_t knobs = {.cores = 3 + (unsigned)rf_prng_below(&prng, 5),
                         .log_max = 16u << rf_prng_below(&prng, 2),
                         .voters_max = rf_prng_below(&prng, 3) ? 3 : 5,
                         .group = group_params((group_plan_t)rf_prng_below(&prng, 3))};
    if (rf_prng_below(&prng, 2)) knobs.per_host = 1 + (unsigned)rf_prng_below(&prng, 2);
    if (rf_prng_below(&prng, 3) == 0) knobs.hold_percent = 10 + (unsigned)rf_prng_below(&prng, 50);
    if (rf_prng_below(&prng, 2)) {
        knobs.lose_percent = (unsigned)rf_prng_below(&prng, 10);
        knobs.repeat_percent = (unsigned)rf_prng_below(&prng, 5);
        knobs.reorder = rf_prng_below(&prng, 2);
    }
    net_t *n = begin(&knobs, seed)->n;
    if (setjmp(unsafe)) {
        snprintf(breach, sizeof breach, "%s", w->n->breach);
        if (verbose) {
            net_print(w->n);
            print_groups();
        }
        end();
        return breach;
    }
    n->unsafe = &unsafe;
    n->trace = verbose && getenv("NET_TRACE");
    net_form(n);
    net_run(n, 10 * MS);
    for (unsigned i = 0; i < 2; i++) form((rf_core_t)below(knobs.cores));
    net_run(n, below(5) * MS);
    for (unsigned i = 0; i < 300; i++) {
        one_step();
        net_run(n, below(4) ? below(150 * US) : below(3 * MS));
    }
    if (below(2)) behind();
    /* Faults stop. */
    net_heal(n);
    tell_deaths(true);
    bool done = false, lost = false;
    for (unsigned i = 0; i < 600 && !done && !lost; i++) {
        net_run(n, MS);
        poll_joins();
        tell_silence();
        tell_deaths(true);
        for (rf_core_t core = 0; core < knobs.cores; core++) {
            tell_fenced(core, true);
            while (answer(core)) {
            }
        }
        done = settled();
        lost = i > 100 && is_lost();
    }
    if (!lost && !done) violate("stuck: a group is not at rest, or something is not answered", 0, 0);
    if (!lost) check_end();
    rf_core_t at = net_leader(n);
    seen->ops += w->n_ops;
    seen->ok += w->n_ok;
    seen->views += at == RF_CORE_NONE ? 0 : net_state(n, at).view;
    seen->lost += lost;
    for (rf_core_t core = 0; core < knobs.cores; core++) seen->loads += n->cores[core].n_loads;
    end();
    return NULL;
}

/* ---- one thing at a time ---- */

static bool op_done(net_t *n, void *context)
{
    (void)n;
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) {
        while (answer(core)) {
        }
    }
    return w->ops[*(int *)context].done;
}

/* Five cores, of which three vote; `owner` has formed a group of all of them. */
static net_t *begin_formed(rf_core_t owner)
{
    net_knobs_t knobs = {
        .cores = 5, .log_max = 16, .voters_max = 3, .group = group_params(GROUP_PLAN_BROADCAST)};
    agreement_member_t all[NET_CORES_MAX] = {0};
    net_t *n = begin(&knobs, 11)->n;
    net_form(n);
    net_run(n, 10 * MS);
    for (rf_core_t i = 0; i < 5; i++) all[i] = net_member(n, (owner + i) % 5);
    w->n_groups = 1;
    for (rf_core_t core = 0; core < 5; core++) life_at(core)->holds[0] = true;
    tell(owner,
         &(group_event_t){.kind = GROUP_FORM,
                          .form = {.group = FIRST, .cookie = other(owner), .members = all, .n_members = 5}});
    net_run(n, 10 * MS);
    rf_assert(w->others[0].done && w->others[0].err == RF_OK);
    return n;
}

static void all_fenced(void)
{
    for (rf_core_t core = 0; core < w->n->knobs.cores; core++) tell_fenced(core, true);
}

static bool is_wedged(rf_core_t core)
{
    group_info_t info;
    rf_assert(groups_query(groups_at(core), FIRST, &info) == RF_OK);
    return info.wedged;
}

/* A member dies while an operation is under way: nobody is answered before it is fenced, then all are. */
static void waits_for_the_fence(group_phase_t phase)
{
    net_t *n = begin_formed(0);
    uint64_t view = net_state(n, 0).view;
    int before = operate(0, phase, 0, 0);
    net_kill(n, 4);
    net_tell_all(n, 4);
    net_run(n, 60 * MS);
    int after = operate(0, phase, 0, 0);
    rf_assert(net_state(n, 0).view > view && is_wedged(0));
    rf_assert(!net_until(n, op_done, &after, 100 * MS) && !w->ops[before].done && is_wedged(0));
    all_fenced();
    rf_assert(net_until(n, op_done, &after, 100 * MS) && w->ops[after].ok);
    rf_assert(net_until(n, op_done, &before, 100 * MS));
    net_run(n, 10 * MS);
    for (rf_core_t core = 0; core < 4; core++) rf_assert(!is_wedged(core));
    end();
}

/* The owner does not vote, is cut off, and learns of a departure by a snapshot, of a later view than the departure's: one in which
 * the core has joined again, and nobody has left. The others learned of it by the log. */
static void owner_takes_a_snapshot(void)
{
    net_t *n = begin_formed(4);
    agreement_state_t s = net_state(n, 0);
    rf_core_t dead = s.voters[0].core != s.leader.core ? s.voters[0].core : s.voters[1].core;
    uint64_t view = s.view;
    for (unsigned i = 0; i < s.n_voters; i++) rf_assert(s.voters[i].core != 4);
    rf_assert(s.n_voters == 3);
    net_isolate(n, 4, true);
    net_kill(n, dead);
    net_tell_all(n, dead);
    net_run(n, 20 * MS);
    rf_core_t leader = net_leader(n);
    uint64_t departed = net_state(n, leader).view;
    rf_assert(departed > view);
    join(leader, dead);
    for (unsigned i = 0; i < 60; i++) {
        poll_joins();
        net_propose(n, leader);
        net_run(n, MS / 2);
    }
    rf_assert(net_state(n, leader).view > departed && runs(dead));
    all_fenced();
    net_isolate(n, 4, false);
    net_run(n, 60 * MS);
    all_fenced();
    rf_assert(n->cores[4].n_loads > 0);
    int after = operate(4, GROUP_TWO_PHASE, 0, 0);
    rf_assert(net_until(n, op_done, &after, 200 * MS) && w->ops[after].ok);
    net_run(n, 10 * MS);
    for (rf_core_t core = 0; core < 5; core++) rf_assert(core == dead || !is_wedged(core));
    rf_assert(!group_find(groups_at(dead), FIRST));
    end();
}

int main(int argc, char **argv)
{
    seen_t seen = {0};
    if (argc > 1 && !strchr(argv[1], '+')) {
        const char *text = run(strtoull(argv[1], NULL, 10), true, &seen);
        printf("%s\n", text ? text : "nothing wrong");
        return text != NULL;
    }
    waits_for_the_fence(GROUP_ONE_PHASE);
    waits_for_the_fence(GROUP_TWO_PHASE);
    owner_takes_a_snapshot();
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    uint64_t many = argc > 1 ? strtoull(strchr(argv[1], '+') + 1, NULL, 10) : RUNS;
    unsigned failed = 0;
    for (uint64_t seed = first; seed < first + many && failed < 10; seed++) {
        const char *text = run(seed, false, &seen);
        if (!text) continue;
        printf("seed %llu: %s\n", (unsigned long long)seed, text);
        fflush(stdout);
        failed++;
    }
    printf("%llu runs: %llu operations, %llu done, %llu views, %llu snapshots loaded, %llu machines lost\n",
           (unsigned long long)many, (unsigned long long)seen.ops, (unsigned long long)seen.ok,
           (unsigned long long)seen.views, (unsigned long long)seen.loads, (unsigned long long)seen.lost);
    if (failed > 0) return 1;
    return seen.ok < 10 * many || seen.loads < many / 10 || seen.lost > many / 10;
}
