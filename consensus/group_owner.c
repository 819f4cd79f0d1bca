/*
 * The owner of a group: numbers what is asked, takes each operation through its stages when all members have done the
 * one before, and between operations changes the members or lends the group as a lock.
 *
 * Requests wait at those who ask; the owner remembers only that somebody has more (`pulls`) and asks when there is
 * room, in turn: nothing of it is ever full.
 */
#include "consensus/group_state.h"

op_t *group_op_in_progress(const groups_t *s, const group_t *g, agreement_member_t m, uint64_t counter)
{
    for (uint64_t n = g->retired + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        if (op && op->counter == counter && same(op->requester, m)) return op;
    }
    return NULL;
}

static bool drained(const group_t *g)
{
    return g->retired == g->last && g->passed == g->last;
}

static uint64_t gone(const group_t *g)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (g->entries[i].gone && !g->entries[i].leaving) mask |= BIT(i);
    }
    return mask;
}

/* The members are to change: what comes later waits for it. */
static bool change_wanted(const group_t *g)
{
    if (!g->change_maybe) return false;
    if (g->leaves != 0 || g->destroy_asked || (g->members | gone(g)) != g->members) return true;
    for (unsigned i = 0; i < JOINERS_MAX; i++) {
        if (g->joiners[i].member.core != RF_CORE_NONE) return true;
    }
    return false;
}

bool group_owner_can_number(const groups_t *s, const group_t *g)
{
    if (!is_owner(g) || g->wedged || g->installing || g->ending || g->lock_id != 0) return false;
    if (g->last - g->retired >= s->pipeline || ring_at(s, g, g->last + 1)->result_due) return false;
    return (g->locks == 0 || g->lock_yields) && !change_wanted(g);
}

static void stage_set(groups_t *s, group_t *g, op_t *op, stage_t stage)
{
    op->stage = (uint8_t)stage;
    op->waiting = g->members;
    op->direct = false;
    op->send = g->plan == GROUP_PLAN_TREE ? 0 : g->members & ~BIT(g->self);
    if (g->plan == GROUP_PLAN_TREE) {
        for (unsigned i = 1; i < g->n; i++) {
            if (g->entries[i].parent == g->self) op->send |= BIT(i) & g->members;
        }
    }
    op->sent_ns = s->now;
    group_timer(s, s->now);
    group_member_learnt(s, g, op, s->params.self, false);
    op->feed = 0;
}

void group_owner_number(groups_t *s, group_t *g, unsigned requester, uint64_t counter, group_phase_t phase,
                        const request_t *several, const void *bytes, size_t size)
{
    rf_assert(group_owner_can_number(s, g) && size <= s->params.bytes_max);
    op_t *op = ring_at(s, g, ++g->last);
    memset(op, 0, sizeof *op);
    op->number = g->last;
    op->requester = g->entries[requester].member;
    op->requester_at = (uint8_t)requester;
    op->counter = counter;
    op->phase = (uint8_t)phase;
    op->size = (uint32_t)size;
    if (size > 0) memcpy(op->bytes, bytes, size);
    if (several) {
        op->n_groups = several->n_groups;
        memcpy(op->groups, several->groups, sizeof op->groups);
        memcpy(op->epochs, several->epochs, sizeof op->epochs);
    }
    g->entries[requester].assigned = counter;
    g->lock_yields = false;
    stage_set(s, g, op, phase == GROUP_ONE_PHASE ? STAGE_STABLE : STAGE_PREPARE);
}

void group_owner_done(groups_t *s, group_t *g, op_t *op, uint64_t mask, uint8_t err)
{
    if (g->wedged || g->installing) return;
    if (op->stage == STAGE_PREPARE && err != RF_OK) {
        op->err = err; /* one refuses: aborted everywhere, with nothing to record */
        stage_set(s, g, op, STAGE_STABLE);
        return;
    }
    op->waiting &= ~mask;
    if (op->waiting != 0) return;
    if (op->stage == STAGE_PREPARE) {
        stage_set(s, g, op, STAGE_DECIDED);
        return;
    }
    if (op->stage == STAGE_DECIDED) {
        stage_set(s, g, op, STAGE_STABLE); /* recorded by every member: stable */
        return;
    }
    for (op_t *next; (next = op_find(s, g, g->retired + 1)) && next->number <= g->passed &&
                     next->stage == STAGE_STABLE && next->waiting == 0;) {
        g->retired++;
        next->send = 0;
        next->result_due = next->phase == GROUP_ONE_PHASE;
        g->results_due |= next->result_due;
    }
    group_dirty(s, g);
}

void group_owner_unlock(groups_t *s, group_t *g)
{
    g->lock_id = 0;
    g->lock_holder = *nobody();
    g->grant_due = false;
    g->lock_yields = true;
    group_dirty(s, g);
}

void group_owner_installed(groups_t *s, group_t *g)
{
    g->installing = false;
    g->change_maybe = true;
    g->changed_due = !(g->id & EPHEMERAL);
    g->drop_send = g->drop_waiting = 0;
    for (unsigned i = 0; i < g->n; i++) {
        entry_t *e = &g->entries[i];
        e->assigned = e->highest;
        if (i != g->self && !e->gone && (e->leaving || g->ending)) g->drop_waiting |= BIT(i);
    }
    g->drop_send = g->drop_waiting;
    g->sent_ns = s->now;
    group_timer(s, s->now);
    /* The decisions are recorded at all: they are acted on now. */
    for (uint64_t n = g->retired + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        rf_assert(op);
        if (op->requester_at != NO_POSITION && op->counter > g->entries[op->requester_at].assigned)
            g->entries[op->requester_at].assigned = op->counter;
    }
    for (uint64_t n = g->retired + 1; n <= g->last; n++) stage_set(s, g, op_find(s, g, n), STAGE_STABLE);
    /* The one who formed it has left, or cannot be sure that all hold it: nothing more is agreed on in it. */
    if ((g->id & EPHEMERAL) && g->epoch > 1 && !g->ending) g->destroy_asked = g->change_maybe = true;
    group_requests_changed(s, g);
    if (s->forming == g->index) group_requests_formed(s, g, RF_OK);
    group_dirty(s, g);
}

static void send_ops(groups_t *s, group_t *g)
{
    for (uint64_t n = g->retired + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        rf_assert(op);
        op->send &= op->waiting | (op->direct ? 0 : BITS(64));
        while (op->send != 0 && group_output_room(s)) {
            bool tree = g->plan == GROUP_PLAN_TREE && !op->direct;
            uint64_t to = g->plan == GROUP_PLAN_UNICAST ? op->send & -op->send : op->send;
            size_t size = group_wire_op_message(s, g, op, tree ? FLAG_TREE : 0, group_send_begin(s));
            group_send_end(s, GROUP_TYPE_FIRST + 1, size, g, to);
            op->send &= ~to;
        }
    }
}

static void send_results(groups_t *s, group_t *g)
{
    if (!g->results_due) return;
    for (unsigned i = 0; i < s->pipeline; i++) {
        op_t *op = ring_at(s, g, i);
        if (!group_output_room(s)) return;
        if (op->number == 0 || !op->result_due) continue;
        op->result_due = false;
        if (same(op->requester, s->params.self)) {
            group_requests_own_passed(s, g, op->counter, (rf_err_t)op->err);
        } else if (op->requester_at != NO_POSITION) {
            group_send_one(s, op->requester, GROUP_TYPE_FIRST + 1,
                           &(wire_t){.kind = KIND_RESULT,
                                     .err = op->err,
                                     .group = g->id,
                                     .epoch = g->epoch,
                                     .counter = op->counter});
        }
    }
    g->results_due = false;
}

/* The members change, between operations. */
static void change(groups_t *s, group_t *g)
{
    if (g->destroy_asked) {
        g->ending = true;
        g->destroy_asked = false;
        group_install(s, g, 0);
        return;
    }
    for (unsigned i = 1; i < g->n; i++) {
        if (g->leaves & BIT(i)) g->entries[i].leaving = true;
    }
    g->leaves = 0;
    uint64_t keep = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (!g->entries[i].gone) keep |= BIT(i);
    }
    g->pulls = group_compact(g, keep, g->pulls);
    g->locks = 0; /* those who wait ask again in the new epoch */
    uint64_t blank = 0;
    for (unsigned k = 0; k < JOINERS_MAX; k++) {
        joiner_t *j = &g->joiners[k];
        if (j->member.core == RF_CORE_NONE) continue;
        bool there = false;
        for (unsigned i = 0; i < g->n; i++) there |= g->entries[i].member.core == j->member.core;
        if (!there && !has_left(s, j->member) && g->n < s->params.members_max) {
            uint64_t base = ((g->epoch + 1) & 0x3fffffff)
                            << 32; /* counters of an earlier membership are below */
            blank |= BIT(g->n);
            g->entries[g->n++] =
                (entry_t){.member = j->member, .nonce = j->nonce, .highest = base, .assigned = base};
        } else if (!there && !has_left(s, j->member)) {
            group_send_one(
                s, j->member, GROUP_TYPE_FIRST + 1,
                &(wire_t){.kind = KIND_RESULT, .err = RF_ERR_LIMIT, .group = g->id, .value = j->nonce});
        }
        j->member = *nobody();
        if (!group_output_room(s)) break;
    }
    group_install(s, g, blank);
}

static void lock_next(groups_t *s, group_t *g)
{
    for (unsigned k = 0; k < g->n; k++) {
        g->turn = (g->turn + 1) % g->n;
        if (!(g->locks & BIT(g->turn))) continue;
        g->locks &= ~BIT(g->turn);
        g->lock_id = g->entries[g->turn].lock_id;
        g->lock_holder = g->entries[g->turn].member;
        g->grant_due = true;
        g->sent_ns = s->now;
        group_timer(s, s->now);
        return;
    }
    g->locks = 0;
}

static void number_next(groups_t *s, group_t *g)
{
    while (g->pulls != 0 && group_owner_can_number(s, g) && group_output_room(s)) {
        g->turn = (g->turn + 1) % g->n;
        if (!(g->pulls & BIT(g->turn))) continue;
        if (g->turn == g->self) {
            if (!group_request_pull(s, g)) g->pulls &= ~BIT(g->turn);
            continue;
        }
        g->pulls &= ~BIT(g->turn);
        group_send_one(s, g->entries[g->turn].member, GROUP_TYPE_FIRST + 1,
                       &(wire_t){.kind = KIND_PULL, .group = g->id, .epoch = g->epoch});
    }
}

static void end(groups_t *s, group_t *g)
{
    if (!(g->id & EPHEMERAL)) group_act(s, g, GROUP_ACTION_ENDED, NULL);
    group_drop(s, g);
}

void group_owner_run(groups_t *s, group_t *g)
{
    if (g->wedged || g->installing) return;
    send_ops(s, g);
    send_results(s, g);
    if (!group_output_room(s)) return;
    if (g->drop_send != 0) {
        wire_t w = {.kind = KIND_DROP, .group = g->id, .epoch = g->epoch};
        memcpy(group_send_begin(s), &w, sizeof w);
        group_send_end(s, GROUP_TYPE_FIRST + 1, sizeof w, g, g->drop_send);
        g->drop_send = 0;
    }
    if (g->ending) {
        if (g->drop_waiting == 0 && group_output_room(s)) end(s, g);
        return;
    }
    /* A holder that has left the view, and whose agreement is not known here: nobody can have committed it. */
    if (g->lock_id != 0 && has_left(s, g->lock_holder) && !group_find(s, g->lock_id))
        group_owner_unlock(s, g);
    if (g->lock_id != 0) {
        if (!g->grant_due || !group_output_room(s)) return;
        g->grant_due = false;
        if (same(g->lock_holder, s->params.self))
            group_requests_granted(s, g->lock_id, g->id, g->epoch);
        else
            group_send_one(
                s, g->lock_holder, GROUP_TYPE_FIRST + 1,
                &(wire_t){.kind = KIND_GRANT, .group = g->id, .epoch = g->epoch, .value = g->lock_id});
        return;
    }
    if (!group_output_room(s)) return;
    if (change_wanted(g)) {
        if (drained(g)) change(s, g);
        if (g->installing && group_output_room(s)) group_resolve_run(s, g);
        return;
    }
    if (g->locks != 0 && !g->lock_yields) {
        if (drained(g)) {
            lock_next(s, g);
            group_dirty(s, g);
        }
        return;
    }
    number_next(s, g);
    send_ops(s, g);
    if (g->locks != 0 && g->pulls == 0 && g->lock_yields) {
        g->lock_yields = false;
        group_dirty(s, g);
    }
}

void group_owner_tick(groups_t *s, group_t *g)
{
    if (g->wedged || g->installing) return;
    for (uint64_t n = g->retired + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        uint64_t waiting = op->waiting & ~BIT(g->self);
        if (waiting == 0) continue;
        if (group_timer_due(s, op->sent_ns)) {
            op->send = waiting;
            op->direct = true; /* around whoever does not feed them */
            op->sent_ns = s->now;
            group_dirty(s, g);
        }
        group_timer(s, op->sent_ns);
    }
    bool lent = g->lock_id != 0 && !same(g->lock_holder, s->params.self);
    if (g->drop_waiting == 0 && !lent) return;
    if (group_timer_due(s, g->sent_ns)) {
        g->drop_send = g->drop_waiting;
        g->grant_due = lent && !group_find(s, g->lock_id); /* asks the holder whether it still is */
        g->sent_ns = s->now;
        group_dirty(s, g);
    }
    group_timer(s, g->sent_ns);
}
