/* The world of consensus_groups_test: what members do is kept in a model, and checked against it. */
#include "groups_world.h"

#include <stdio.h>
#include <stdlib.h>

world_t *world;

unsigned world_below(unsigned n)
{
    return (unsigned)rf_prng_below(&world->prng, n);
}

void world_violate(const char *what, unsigned op, rf_core_t core)
{
    snprintf(world->text, sizeof world->text, "%s (operation or group %u, core %u)", what, op, core);
    net_unsafe(world->n, world->text);
}

const groups_t *world_groups(rf_core_t core)
{
    return agreement_groups(world->n->cores[core].engine);
}

life_t *world_life(rf_core_t core)
{
    return &world->lives[core][world->n->cores[core].incarnation];
}

bool world_runs(rf_core_t core)
{
    return world->n->cores[core].alive;
}

/* ---- what the machines ask for, and answer ---- */

static void check_stable(unsigned index, const group_action_t *a, rf_core_t at)
{
    const group_t *g = group_find(world_groups(at), a->groups[0]);
    for (unsigned i = 0; a->n_groups == 1 && g && i < g->n; i++) {
        agreement_member_t m = g->entries[i].member;
        if (!(g->members & BIT(i)) || m.core == at || world->lives[m.core][m.incarnation].fenced) continue;
        if (m.incarnation != world->n->cores[m.core].incarnation) continue;
        const group_t *other = group_find(world_groups(m.core), a->groups[0]);
        const op_t *op = other ? op_find(world_groups(m.core), other, a->number) : NULL;
        if (!other || !(other->passed >= a->number || (op && op->stage >= STAGE_DECIDED && op->err == 0)))
            world_violate("visible before stable", index, m.core);
    }
}

/* Has somebody done this who has not left what the machine of `at` has agreed on? */
static bool done_by_a_survivor(const uint16_t *done, rf_core_t at)
{
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        rf_incarnation_t in = world->n->cores[core].incarnation;
        if (core == at || !(done[core] >> in & 1) || !world_runs(core)) continue;
        return true;
    }
    return false;
}

static void act(rf_core_t at, const group_action_t *a)
{
    life_t *life = world_life(at);
    uint16_t bit = (uint16_t)(1u << world->n->cores[at].incarnation);
    if (a->kind == GROUP_ACTION_CHANGED || a->kind == GROUP_ACTION_ENDED) {
        if (a->groups[0] - FIRST < GROUPS)
            life->holds[a->groups[0] - FIRST] = a->kind == GROUP_ACTION_CHANGED;
        return;
    }
    uint32_t index;
    rf_assert(a->size == sizeof index && life->n_pending < PENDING);
    memcpy(&index, a->bytes, sizeof index);
    rf_assert(index < world->n_ops);
    model_op_t *op = &world->ops[index];
    if (op->n_groups != a->n_groups) world_violate("another operation's objects", index, at);
    if (a->kind == GROUP_ACTION_PREPARE) {
        if (op->prepared[at] & bit) world_violate("prepared twice", index, at);
        op->prepared[at] |= bit;
    } else if (a->kind == GROUP_ACTION_APPLY) {
        if (op->applied[at] & bit) world_violate("applied twice", index, at);
        if (done_by_a_survivor(op->aborted, at)) world_violate("applied here, aborted elsewhere", index, at);
        if (op->failed) world_violate("applied, and answered as not done", index, at);
        if (op->phase == GROUP_TWO_PHASE && !(op->prepared[at] & bit))
            world_violate("applied, not prepared", index, at);
        if (op->phase == GROUP_TWO_PHASE) check_stable(index, a, at);
        if (a->n_groups ==
            1) { /* what only the dead have carried out is asked for again, of the next owner */
            bool again = op->phase == GROUP_ONE_PHASE && !done_by_a_survivor(op->applied, at);
            if (op->number != 0 && op->number != a->number && !again) world_violate("two numbers", index, at);
            op->number = a->number;
        }
        op->applied[at] |= bit;
        for (unsigned i = 0; i < a->n_groups; i++) {
            unsigned g = (unsigned)(a->groups[i] - FIRST);
            life->order[g][life->n_order[g]++] = (uint16_t)index;
        }
    } else {
        op->aborted[at] |= bit;
        if (done_by_a_survivor(op->applied, at)) world_violate("aborted here, applied elsewhere", index, at);
    }
    if (a->token != 0)
        life->pending[life->n_pending++] =
            (pending_t){.token = a->token, .prepare = a->kind == GROUP_ACTION_PREPARE};
}

static void completed(rf_core_t at, const group_completion_t *c)
{
    if (c->cookie >= OPS) {
        world->others[c->cookie - OPS].done = true;
        world->others[c->cookie - OPS].err = c->err;
        return;
    }
    unsigned index = (unsigned)c->cookie;
    model_op_t *op = &world->ops[index];
    if (op->done) world_violate("answered twice", index, at);
    op->done = true;
    op->ok = c->err == RF_OK;
    op->failed = !op->ok && c->err != RF_ERR_UNKNOWN_OUTCOME;
    world->n_ok += op->ok;
    for (rf_core_t core = 0; core < world->n->knobs.cores && op->failed; core++) {
        if (op->applied[core]) world_violate("applied, and answered as not done", index, core);
    }
    if (!op->ok) return;
    if (op->phase == GROUP_TWO_PHASE) {
        if (!(op->applied[at] >> world->n->cores[at].incarnation & 1))
            world_violate("answered before it is visible here", index, at);
        return;
    }
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        const life_t *life = world_life(core);
        if (life->fenced || !life->holds[op->groups[0]]) continue;
        if (op->applied[core] >> world->n->cores[core].incarnation & 1) continue;
        const group_t *g = group_find(world_groups(core), FIRST + op->groups[0]);
        if (g && op->number != 0 && g->passed >= op->number) continue; /* joined later */
        world_violate("a stale mapping after return", index, core);
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
                world_violate("a message to itself", 0, at);
        }
    }
    if (out->more || out->next_tick_ns <= n->now_ns) return; /* an event may have been held */
    agreement_state_t s = net_state(n, at);
    if (world_groups(at)->view != s.view)
        world_violate("groups are not told of a view", (unsigned)s.view, at);
}

/* ---- what happens ---- */

void world_tell(rf_core_t at, const group_event_t *event)
{
    agreement_event_t e = {.kind = AGREEMENT_GROUP, .group = *event};
    net_step(world->n, at, &e);
}

bool world_answer(rf_core_t at)
{
    life_t *life = world_life(at);
    if (!world_runs(at) || life->n_pending == 0) return false;
    unsigned i = world_below(life->n_pending);
    pending_t p = life->pending[i];
    life->pending[i] = life->pending[--life->n_pending];
    world_tell(
        at, &(group_event_t){.kind = p.prepare ? GROUP_PREPARED : GROUP_APPLIED,
                             .done = {.token = p.token,
                                      .err = p.prepare && world_below(20) == 0 ? RF_ERR_PERMISSION : RF_OK}});
    return true;
}

static void fence(rf_core_t core, rf_incarnation_t incarnation)
{
    net_t *n = world->n;
    for (rf_incarnation_t in = 1; in <= incarnation; in++) {
        if (world->lives[core][in].fenced) continue;
        world->lives[core][in].fenced = true;
        if (n->cores[core].incarnation == in) n->cores[core].alive = false;
        for (unsigned i = 0; i < n->n_flight; i++) {
            if (n->flight[i]->from.core != core || n->flight[i]->from.incarnation != in) continue;
            free(n->flight[i]);
            n->flight[i--] = n->flight[--n->n_flight];
        }
    }
}

bool world_tell_fenced(rf_core_t at, bool all)
{
    bool any = false;
    for (rf_core_t core = 0; core < world->n->knobs.cores && world_runs(at); core++) {
        rf_incarnation_t left;
        if (core == at) continue;
        agreement_member_state_t state = agreement_member_state(world->n->cores[at].engine, core, &left);
        if (state == AGREEMENT_MEMBER_NONE) continue;
        if (state == AGREEMENT_MEMBER_IN) left--;
        if (left == 0 || world_life(at)->told_fenced[core] >= left || (!all && world_below(3) != 0)) continue;
        fence(core, left);
        world_life(at)->told_fenced[core] = left;
        agreement_event_t e = {.kind = AGREEMENT_FENCED};
        e.fenced = (agreement_member_t){.core = core, .incarnation = left};
        net_step(world->n, at, &e);
        any = true;
    }
    return any;
}

uint64_t world_other(rf_core_t at)
{
    world->others[world->n_others].by = net_member(world->n, at);
    return OPS + world->n_others++;
}

void world_form(rf_core_t at)
{
    agreement_member_t members[NET_CORES_MAX];
    unsigned n = 0;
    if (world->n_groups == GROUPS || world->n_others == OTHERS) return;
    members[n++] = net_member(world->n, at);
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        rf_incarnation_t in;
        if (core == at || world_below(5) == 0) continue;
        if (agreement_member_state(world->n->cores[at].engine, core, &in) != AGREEMENT_MEMBER_IN) continue;
        if (in == world->n->cores[core].incarnation) members[n++] = net_member(world->n, core);
    }
    world_life(at)->holds[world->n_groups] = true;
    world_tell(at, &(group_event_t){.kind = GROUP_FORM,
                                    .form = {.group = FIRST + world->n_groups++,
                                             .cookie = world_other(at),
                                             .members = members,
                                             .n_members = n}});
}

int world_operate(rf_core_t at, group_phase_t phase, unsigned first, unsigned second)
{
    if (world->n_ops == OPS || world->n_groups == 0) return -1;
    uint32_t index = world->n_ops++;
    model_op_t *op = &world->ops[index];
    *op = (model_op_t){.by = net_member(world->n, at), .phase = phase, .n_groups = first == second ? 1 : 2};
    op->groups[0] = first;
    op->groups[1] = second;
    uint64_t ids[2] = {FIRST + first, FIRST + second};
    world_tell(at, &(group_event_t){.kind = GROUP_OPERATE,
                                    .operate = {.cookie = index,
                                                .phase = phase,
                                                .groups = ids,
                                                .n_groups = op->n_groups,
                                                .bytes = &index,
                                                .size = sizeof index}});
    return (int)index;
}

void world_change(rf_core_t at, group_event_kind_t kind, unsigned group, rf_core_t through)
{
    if (world->n_others == OTHERS || group >= world->n_groups) return;
    world_tell(at, &(group_event_t){.kind = kind,
                                    .change = {.group = FIRST + group,
                                               .cookie = world_other(at),
                                               .through = net_member(world->n, through)}});
}

void world_kill(rf_core_t core)
{
    net_kill(world->n, core);
    for (rf_core_t to = 0; to < world->n->knobs.cores; to++) world->told_dead[to][core] = to != core;
}

void world_tell_deaths(bool all)
{
    for (rf_core_t to = 0; to < world->n->knobs.cores; to++) {
        for (rf_core_t dead = 0; dead < world->n->knobs.cores; dead++) {
            if (!world->told_dead[to][dead] || (!all && world_below(3) > 0) || !world_runs(to)) continue;
            world->told_dead[to][dead] = false;
            if (!world_runs(dead)) net_tell_death(world->n, to, dead, AGREEMENT_EVIDENCE_KERNEL);
        }
    }
}

void world_join(rf_core_t by, rf_core_t core)
{
    for (unsigned i = 0; i < 16; i++) {
        if (world->joins[i].used) {
            if (world->joins[i].core == core) return;
            continue;
        }
        world->joins[i].used = true;
        world->joins[i].core = core;
        world->joins[i].proposal = net_change(world->n, by, &core, 1, NULL, 0);
        return;
    }
}

void world_poll_joins(void)
{
    net_t *n = world->n;
    for (unsigned i = 0; i < 16; i++) {
        const net_proposal_t *p = &n->proposed[world->joins[i].proposal];
        rf_core_t core = world->joins[i].core;
        if (!world->joins[i].used ||
            (!p->answered && world_runs(p->core) && p->incarnation == n->cores[p->core].incarnation))
            continue;
        world->joins[i].used = false;
        if (!p->answered || p->err != RF_OK || p->value <= n->cores[core].incarnation || p->value >= LIVES)
            continue;
        fence(core, (rf_incarnation_t)p->value - 1);
        for (rf_core_t to = 0; to < n->knobs.cores; to++) world->told_dead[to][core] = false;
        net_start(n, core, (rf_incarnation_t)p->value);
    }
}

void world_tell_silence(void)
{
    rf_core_t leader = net_leader(world->n);
    for (rf_core_t core = 0; core < world->n->knobs.cores && leader != RF_CORE_NONE; core++) {
        agreement_event_t event = {.kind = AGREEMENT_DEATH};
        event.death.member.core = core;
        event.death.evidence = AGREEMENT_EVIDENCE_SILENCE;
        if (agreement_member_state(world->n->cores[leader].engine, core, &event.death.member.incarnation) ==
                AGREEMENT_MEMBER_IN &&
            event.death.member.incarnation > world->n->cores[core].incarnation)
            net_step(world->n, leader, &event);
    }
}

/* ---- after the faults ---- */

bool world_settled(void)
{
    net_t *n = world->n;
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return false;
    agreement_state_t l = net_state(n, leader);
    if (l.joint || !l.quorum) return false;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        rf_incarnation_t in;
        bool member = agreement_member_state(n->cores[leader].engine, core, &in) == AGREEMENT_MEMBER_IN;
        if (world_runs(core) && (!member || in != n->cores[core].incarnation)) return false;
        if (!world_runs(core) && member && l.n_voters > 2) return false;
        if (world_runs(core) && net_state(n, core).applied < l.committed) return false;
        if (world_runs(core) && world_life(core)->n_pending > 0) return false;
        for (unsigned k = 0; world_runs(core) && k < world_groups(core)->params.groups_max; k++) {
            const group_t *g = &world_groups(core)->groups[k];
            if (g->used && ((g->id & EPHEMERAL) || g->wedged || g->installing || g->lock_id != 0 ||
                            g->passed != g->last))
                return false;
        }
    }
    for (unsigned i = 0; i < world->n_ops; i++) {
        const model_op_t *op = &world->ops[i];
        if (!op->done && world_runs(op->by.core) && n->cores[op->by.core].incarnation == op->by.incarnation)
            return false;
    }
    for (unsigned i = 0; i < world->n_others; i++) {
        agreement_member_t by = world->others[i].by;
        if (!world->others[i].done && world_runs(by.core) && n->cores[by.core].incarnation == by.incarnation)
            return false;
    }
    return true;
}

bool world_is_lost(void)
{
    agreement_state_t newest = {0};
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        agreement_state_t s = net_state(world->n, core);
        if (world_runs(core) && (s.view > newest.view || (s.view == newest.view && s.last > newest.last)))
            newest = s;
    }
    return newest.lost || net_live_voters(world->n, &newest) <= newest.n_voters / 2;
}

void world_print(void)
{
    for (rf_core_t core = 0; core < world->n->knobs.cores; core++) {
        for (unsigned k = 0; world_runs(core) && k < world_groups(core)->params.groups_max; k++) {
            const group_t *g = &world_groups(core)->groups[k];
            if (!g->used) continue;
            printf("  core %u.%u view %llu: group %llx epoch %llu n %u self %u last %llu passed %llu wedged "
                   "%d (view %llu) "
                   "collects %d (put off to %llu) installs %d reported %llx of %u.%u; left",
                   core, world->n->cores[core].incarnation, (unsigned long long)world_groups(core)->view,
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

void world_check_end(void)
{
    net_t *n = world->n;
    for (unsigned k = 0; k < world->n_groups; k++) {
        const group_t *first = NULL;
        const life_t *longest = NULL;
        for (rf_core_t core = 0; core < n->knobs.cores; core++) {
            const group_t *g = world_runs(core) ? group_find(world_groups(core), FIRST + k) : NULL;
            if (!g) continue;
            if (!first) first = g;
            if (!longest || world_life(core)->n_order[k] > longest->n_order[k]) longest = world_life(core);
            if (g->held != 0) world_violate("stuck: operations on several are held", k, core);
            if (g->epoch != first->epoch || g->last != first->last || g->n != first->n)
                world_violate("members disagree at the end", k, core);
        }
        for (rf_core_t core = 0; longest && core < n->knobs.cores; core++) {
            const life_t *life = world_life(core);
            uint16_t where[OPS] = {0};
            unsigned last = 0;
            if (!world_runs(core)) continue;
            for (unsigned i = 0; i < longest->n_order[k]; i++)
                where[longest->order[k][i]] = (uint16_t)(i + 1);
            for (unsigned i = 0; i < life->n_order[k]; i++) {
                unsigned at = where[life->order[k][i]];
                if (at == 0) continue; /* of an earlier membership of one that has joined again */
                if (at < last) world_violate("another order", life->order[k][i], core);
                last = at;
            }
            const group_t *g = group_find(world_groups(core), FIRST + k);
            for (unsigned i = 0; g && g->entries[g->self].nonce == 0 && i < world->n_ops; i++) {
                const model_op_t *op = &world->ops[i];
                bool here = op->applied[core] >> n->cores[core].incarnation & 1;
                if (op->ok && op->n_groups == 1 && op->groups[0] == k && !here)
                    world_violate("acknowledged, and lost", i, core);
            }
        }
    }
}

world_t *world_begin(const net_knobs_t *knobs, uint64_t seed)
{
    world = calloc(1, sizeof *world);
    rf_assert(world);
    rf_prng_seed(&world->prng, seed ^ 0x6709);
    world->n = net_new(knobs, seed);
    world->n->watch = watch;
    return world;
}

void world_end(void)
{
    net_free(world->n);
    free(world);
    world = NULL;
}

group_params_t world_group_params(group_plan_t plan)
{
    return (group_params_t){.groups_max = 2 * GROUPS,
                            .members_max = NET_CORES_MAX,
                            .ops_max = 8,
                            .bytes_max = 64,
                            .resend_ns = 500 * US,
                            .plan = plan};
}
