/*
 * Carrying out: a member hands a group's operations to its caller in the order of their numbers, each once, one at a
 * time. Stages that it has done it acknowledges to whoever told it, for itself and for those that it feeds.
 *
 *   PREPARE   handed over when all before it are two-phase and prepared, or carried out (operations overlap)
 *   DECIDED   recorded: acknowledged at once, nothing is visible
 *   STABLE    carried out after all before it; acknowledged when the caller has
 */
#include "consensus/group_state.h"

void group_dedup_note(uint64_t *highest, uint8_t *results, uint64_t counter, uint8_t err)
{
    if (counter == 0) return;
    if (counter > *highest) {
        /* What was skipped has been lost with the owner that numbered it: nobody carried it out, nor will. */
        uint64_t from = counter - *highest > GROUP_WINDOW ? counter - GROUP_WINDOW : *highest;
        while (++from < counter) results[from % GROUP_WINDOW] = RF_ERR_CANCELLED;
        *highest = counter;
    } else if (*highest - counter >= GROUP_WINDOW) {
        return;
    }
    results[counter % GROUP_WINDOW] = err;
}

static uint64_t children(const group_t *g)
{
    uint64_t mask = 0;
    for (unsigned i = g->self + 1; i < g->n; i++) {
        if (g->entries[i].parent == g->self) mask |= BIT(i);
    }
    return mask & g->members;
}

/* This member has done the operation's stage. */
static void stage_done(groups_t *s, group_t *g, op_t *op)
{
    if (op->done & BIT(g->self)) return;
    op->done |= BIT(g->self);
    if (is_owner(g)) {
        group_owner_done(s, g, op, BIT(g->self), op->stage == STAGE_PREPARE ? op->refused : 0);
        return;
    }
    bool defect = s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE;
    bool told = op->up.incarnation != 0 && (!g->wedged || defect); /* else it was learnt of by a report */
    if (told && (op->refused || !op->feeds || (g->fed & ~op->done) == 0)) op->ack_due = g->acks_due = true;
    group_dirty(s, g);
}

void group_member_learnt(groups_t *s, group_t *g, op_t *op, agreement_member_t from, bool tree)
{
    op->up = from;
    op->done = 0;
    op->feeds = tree;
    op->feed = tree ? children(g) : 0;
    g->acks_due |= op->feed != 0;
    op->ack_due = false;
    bool done = op->stage == STAGE_DECIDED || (op->stage == STAGE_PREPARE && op->acted >= ACTED_PREPARED) ||
                op->acted == ACTED_PASSED;
    if (done) stage_done(s, g, op);
    group_dirty(s, g);
}

void group_member_again(groups_t *s, group_t *g, op_t *op, agreement_member_t from, bool tree)
{
    op->up = from;
    if (!tree) op->feeds = false; /* the owner asks each: no more waiting for others */
    if (op->feeds) op->feed = children(g) & ~op->done;
    if (op->done & BIT(g->self)) op->ack_due = true;
    g->acks_due = true;
    group_dirty(s, g);
}

static void hold(groups_t *s, op_t *op, bool on)
{
    if (op->holds == on) return;
    op->holds = on;
    for (unsigned i = 0; i < op->n_groups; i++) {
        group_t *object = group_find(s, op->groups[i]);
        if (!object) continue;
        if (on) {
            object->held++;
        } else if (object->held > 0) {
            object->held--;
            group_dirty(s, object);
        }
    }
}

/* The objects of an operation on several are as they were when it locked them. */
static bool objects_ready(const groups_t *s, const op_t *op)
{
    for (unsigned i = 0; i < op->n_groups; i++) {
        const group_t *object = group_find(s, op->groups[i]);
        if (object && (object->wedged || object->epoch != op->epochs[i] || object->passed != object->last ||
                       object->held > 0))
            return false;
    }
    return true;
}

static void pass(groups_t *s, group_t *g, op_t *op)
{
    op->acted = ACTED_PASSED;
    hold(s, op, false);
    for (op_t *next; (next = op_find(s, g, g->passed + 1)) && next->acted == ACTED_PASSED;) g->passed++;
    if (op->requester_at != NO_POSITION) {
        entry_t *e = &g->entries[op->requester_at];
        group_dedup_note(&e->highest, e->results, op->counter, op->err);
    }
    if (op->phase == GROUP_TWO_PHASE && same(op->requester, s->params.self))
        group_requests_own_passed(s, g, op->counter, (rf_err_t)op->err);
    if (op->stage == STAGE_STABLE) stage_done(s, g, op);
}

static void ask(groups_t *s, group_t *g, op_t *op, group_action_kind_t kind)
{
    group_action_t *a = group_act(s, g, kind, op);
    g->token = ++s->token << 16 | g->index;
    g->token_number = op->number;
    a->token = g->token;
    op->acted = kind == GROUP_ACTION_PREPARE ? ACTED_PREPARING : ACTED_APPLYING;
}

static void refuse(groups_t *s, group_t *g, op_t *op, rf_err_t err)
{
    op->acted = ACTED_REFUSED;
    op->refused = (uint8_t)err;
    if (op->stage == STAGE_PREPARE) stage_done(s, g, op);
}

static bool is_stable(const groups_t *s, const group_t *g, const op_t *op)
{
    if (op->stage == STAGE_STABLE) return true;
    return op->stage == STAGE_DECIDED && is_owner(g) && !g->installing && !g->wedged &&
           (s->params.defects & GROUP_DEFECT_REPLY_BEFORE_STABLE);
}

/* Carries out the operation if it is its turn; false: it is not. */
static bool carry_out(groups_t *s, group_t *g, op_t *op)
{
    if (g->wedged && !(s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE)) return false;
    if (!is_stable(s, g, op) || (g->held > 0 && !(g->id & EPHEMERAL))) return false;
    if (op->err == RF_OK) {
        ask(s, g, op, GROUP_ACTION_APPLY);
    } else {
        if (op->acted == ACTED_PREPARED) {
            group_action_t *a = group_act(s, g, GROUP_ACTION_ABORT, op);
            a->bytes =
                group_output_copy(s, op->bytes, op->size); /* its place may be taken within this step */
        }
        pass(s, g, op);
    }
    return true;
}

/* The next operation that may be prepared: all before it are two-phase and prepared, or carried out. */
static bool prepare_next(groups_t *s, group_t *g)
{
    if (g->wedged && !(s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE)) return false;
    if (g->held > 0 && !(g->id & EPHEMERAL)) return false;
    for (uint64_t n = g->passed + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        if (!op || op->phase != GROUP_TWO_PHASE) return false;
        if (op->acted != ACTED_NONE) continue;
        if (op->stage != STAGE_PREPARE) return false;
        if (op->n_groups > 0 && !objects_ready(s, op)) {
            refuse(s, g, op, RF_ERR_CANCELLED);
            return true;
        }
        hold(s, op, true);
        ask(s, g, op, GROUP_ACTION_PREPARE);
        return true;
    }
    return false;
}

/* Test only: one-phase operations as they come. */
static bool carry_out_unnumbered(groups_t *s, group_t *g)
{
    for (uint64_t n = g->passed + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        if (!op || op->phase != GROUP_ONE_PHASE || op->acted != ACTED_NONE || op->stage != STAGE_STABLE)
            continue;
        return carry_out(s, g, op);
    }
    return false;
}

static void acknowledge(groups_t *s, group_t *g)
{
    if (!g->acks_due) return;
    for (unsigned i = 0; i < s->pipeline; i++) {
        op_t *op = ring_at(s, g, i);
        if (!group_output_room(s)) return;
        if (op->number == 0) continue;
        if (op->feed != 0) {
            size_t size = group_wire_op_message(s, g, op, FLAG_TREE, group_send_begin(s));
            group_send_end(s, GROUP_TYPE_FIRST + 1, size, g, op->feed);
            op->feed = 0;
            if (!group_output_room(s)) return;
        }
        if (!op->ack_due) continue;
        op->ack_due = false;
        group_send_one(s, op->up, GROUP_TYPE_FIRST + 2,
                       &(wire_t){.kind = KIND_DONE,
                                 .stage = op->stage,
                                 .err = op->stage == STAGE_PREPARE ? op->refused : 0,
                                 .group = g->id,
                                 .epoch = g->epoch,
                                 .number = op->number,
                                 .value = op->done});
    }
    g->acks_due = false;
}

void group_member_run(groups_t *s, group_t *g)
{
    while (g->token == 0 && group_output_room(s)) {
        op_t *op = op_find(s, g, g->passed + 1);
        if (op && carry_out(s, g, op)) continue;
        if ((s->params.defects & GROUP_DEFECT_ONE_PHASE_UNNUMBERED) && carry_out_unnumbered(s, g)) continue;
        if (!prepare_next(s, g)) break;
    }
    if (!is_owner(g)) acknowledge(s, g);
}

void group_member_answer(groups_t *s, uint64_t token, rf_err_t err, bool prepared)
{
    unsigned index = token & 0xffff;
    group_t *g = index < s->params.groups_max ? &s->groups[index] : NULL;
    if (!g || !g->used || token == 0 || g->token != token) {
        group_ignore(s, "ignoring an answer: nothing of that token is asked");
        return;
    }
    op_t *op = op_find(s, g, g->token_number);
    if (!op || op->acted != (prepared ? ACTED_PREPARING : ACTED_APPLYING)) {
        group_ignore(s, "ignoring an answer: not to this question");
        return;
    }
    g->token = 0;
    group_dirty(s, g);
    if (!prepared) {
        pass(s, g, op);
    } else if (err != RF_OK) {
        refuse(s, g, op, err < RF_ERR_COUNT ? err : RF_ERR_INVALID);
    } else {
        op->acted = ACTED_PREPARED;
        if (op->stage == STAGE_PREPARE) stage_done(s, g, op);
    }
}
