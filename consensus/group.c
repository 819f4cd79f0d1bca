/*
 * One-phase group operations: when it completes, every member has applied it or is dead (and so fenced).
 *
 * The owner numbers its operations; one at a time is under way in a group, so members apply a group's
 * operations in the owner's order (AGREEMENT, "Group operations"). Members remember which numbers of an owner
 * they have seen and done, and so apply each once on links that lose and repeat. They need no quorum: a group
 * goes on when the orderer is dead.
 */
#include "consensus/engine.h"

static size_t map_size(const agreement_t *e)
{
    return (e->params.n_cores + 7u) / 8;
}

static void clear_bit(uint8_t *map, rf_core_t core)
{
    map[core / 8] &= (uint8_t) ~(1u << (core % 8));
}

static void member_done(group_op_t *op, rf_core_t core)
{
    if (!group_bit(op->remaining, core)) return;
    clear_bit(op->remaining, core);
    clear_bit(op->unsent, core);
    rf_assert(op->n_remaining > 0);
    op->n_remaining--;
}

static rf_err_t check(const agreement_t *e, const agreement_event_t *event, group_op_t **out)
{
    if (event->group.n_cores == 0 || event->group.size > e->params.entry_max) return RF_ERR_INVALID;
    for (unsigned i = 0; i < event->group.n_cores; i++) {
        if (event->group.cores[i] >= e->params.n_cores) return RF_ERR_INVALID;
    }
    group_op_t *unused = NULL;
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        const group_op_t *op = &e->group_ops[i];
        if (!op->used)
            unused = (group_op_t *)(uintptr_t)op;
        else if (e->group_next + 1 - op->number >= AGREEMENT_WINDOW)
            return RF_ERR_AGAIN; /* members must not take what is still under way for long done */
    }
    if (!unused) return RF_ERR_AGAIN;
    *out = unused;
    return RF_OK;
}

void group_start(agreement_t *e, const agreement_event_t *event)
{
    group_op_t *op = NULL;
    rf_err_t err = event->kind == AGREEMENT_GROUP_TWO ? RF_ERR_NOT_SUPPORTED : check(e, event, &op);
    if (err != RF_OK) {
        engine_complete(e, (agreement_completion_t){
                               .kind = AGREEMENT_COMPLETED_GROUP, .cookie = event->group.cookie, .err = err});
        return;
    }
    op->used = true;
    op->started = false;
    op->cookie = event->group.cookie;
    op->number = ++e->group_next;
    op->group = event->group.group;
    op->epoch = event->group.epoch;
    op->size = (uint32_t)event->group.size;
    op->n_remaining = 0;
    if (op->size > 0) memcpy(op->bytes, event->group.bytes, op->size);
    memset(op->remaining, 0, map_size(e));
    memset(op->unsent, 0, map_size(e));
    for (unsigned i = 0; i < event->group.n_cores; i++) {
        rf_core_t core = event->group.cores[i];
        if (e->members[core].dead || group_bit(op->remaining, core)) continue;
        op->remaining[core / 8] |= (uint8_t)(1u << (core % 8));
        op->n_remaining++;
    }
}

void group_member_died(agreement_t *e, rf_core_t core)
{
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        if (e->group_ops[i].used) member_done(&e->group_ops[i], core);
    }
}

void group_applied(agreement_t *e, rf_core_t owner, uint64_t number)
{
    if (owner == e->params.self.core) {
        for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
            group_op_t *op = &e->group_ops[i];
            if (op->used && op->started && op->number == number) member_done(op, owner);
        }
        return;
    }
    rf_assert(owner < e->params.n_cores);
    member_t *m = &e->members[owner];
    if (window_check(&m->group_done, number) == RF_OK) window_mark(&m->group_done, number);
    e->reply_to = owner;
    e->group_reply = (wire_group_t){.number = number};
}

/* An earlier one of the same group is not complete. */
static bool must_queue(const agreement_t *e, const group_op_t *op)
{
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        const group_op_t *other = &e->group_ops[i];
        if (other->used && other->group == op->group && other->number < op->number) return true;
    }
    return false;
}

void group_finish(agreement_t *e)
{
    agreement_output_t *out = &e->output;
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        group_op_t *op = &e->group_ops[i];
        if (op->used && op->n_remaining == 0) {
            if (engine_completion_room(e) == 0) {
                out->more = true;
                return;
            }
            op->used = false;
            engine_complete(e, (agreement_completion_t){
                                   .kind = AGREEMENT_COMPLETED_GROUP, .cookie = op->cookie, .err = RF_OK});
        }
    }
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        group_op_t *op = &e->group_ops[i];
        if (!op->used || op->started || must_queue(e, op)) continue;
        if (out->n_group_applies == AGREEMENT_GROUP_OPS_MAX) {
            out->more = true;
            return;
        }
        op->started = true;
        memcpy(op->unsent, op->remaining, map_size(e));
        if (group_bit(op->remaining, e->params.self.core)) {
            clear_bit(op->unsent, e->params.self.core);
            out->group_applies[out->n_group_applies++] =
                (agreement_group_apply_t){.owner = e->params.self.core,
                                          .number = op->number,
                                          .group = op->group,
                                          .epoch = op->epoch,
                                          .bytes = op->bytes,
                                          .size = op->size};
        }
    }
}
