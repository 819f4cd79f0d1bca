/* GROUP: apply this operation, once. GROUP_DONE: a member has. */
#include "consensus/engine.h"

void recv_group(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_group_t in;
    if (size < sizeof in) {
        engine_protocol_error(e, "ignoring GROUP: cut short");
        return;
    }
    memcpy(&in, bytes, sizeof in);
    if (in.number == 0 || in.size > e->params.entry_max || size != sizeof in + in.size) {
        engine_protocol_error(e, "ignoring GROUP: its size is wrong");
        return;
    }
    member_t *m = &e->members[from];
    rf_err_t err = window_check(&m->group_seen, in.number);
    if (err != RF_OK) {
        /* Older than the window: the owner starts nothing so far ahead of what is under way, so it is long done. */
        if (err == RF_ERR_SESSION || window_check(&m->group_done, in.number) == RF_ERR_EXISTS) {
            e->reply_to = from;
            e->group_reply = (wire_group_t){.number = in.number};
        }
        engine_ignore(e, "ignoring GROUP: seen before");
        return;
    }

    window_mark(&m->group_seen, in.number);
    if (in.size > 0) memcpy(e->group_bytes, bytes + sizeof in, in.size);
    e->output.group_applies[e->output.n_group_applies++] = (agreement_group_apply_t){.owner = from,
                                                                                     .number = in.number,
                                                                                     .group = in.group,
                                                                                     .epoch = in.epoch,
                                                                                     .bytes = e->group_bytes,
                                                                                     .size = in.size};
}

void recv_group_done(agreement_t *e, rf_core_t from, const uint8_t *bytes, size_t size)
{
    wire_group_t in;
    if (size != sizeof in) {
        engine_protocol_error(e, "ignoring GROUP_DONE: its size is wrong");
        return;
    }
    memcpy(&in, bytes, sizeof in);
    for (unsigned i = 0; i < AGREEMENT_GROUP_OPS_MAX; i++) {
        group_op_t *op = &e->group_ops[i];
        if (!op->used || !op->started || op->number != in.number || !group_bit(op->remaining, from)) continue;
        op->remaining[from / 8] &= (uint8_t) ~(1u << (from % 8));
        op->unsent[from / 8] &= (uint8_t) ~(1u << (from % 8));
        rf_assert(op->n_remaining > 0);
        op->n_remaining--;
        return;
    }
    engine_ignore(e, "ignoring GROUP_DONE: counted already");
}
