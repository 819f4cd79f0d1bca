/* What each message of groups does. The bytes have been checked by group_wire.c before anything here changes. */
#include "consensus/group_state.h"

static void not_here(groups_t *s, agreement_member_t to, uint64_t group)
{
    uint64_t nonce = s->nonce;
    uint16_t joining = group_request_joining(s, group);
    if (joining != NONE_16) nonce = request_at(s, joining)->nonce - 1u;
    group_send_one(s, to, GROUP_TYPE_FIRST + 2, &(wire_t){.kind = KIND_GONE, .group = group, .value = nonce});
}

/*
 * Who answers that it does not hold a group must not come to hold it later, by an INSTALL of its FORM that is on its way: the
 * former has left, as known here, or the former says itself (COLLECT) which of its FORMs are over.
 */
static bool may_say_gone(groups_t *s, agreement_member_t from, const wire_t *in)
{
    if (in->counter > s->view) {
        group_ignore(s, "ignoring: of a view not applied here yet");
        return false;
    }
    uint64_t formed = (uint64_t)from.incarnation << 32 | (in->value & UINT32_MAX);
    if (in->kind == KIND_COLLECT && in->value != 0 && formed > s->formed[from.core])
        s->formed[from.core] = formed;
    return true;
}

static void result(groups_t *s, agreement_member_t to, const wire_t *in, rf_err_t err)
{
    group_send_one(s, to, GROUP_TYPE_FIRST + 1,
                   &(wire_t){.kind = KIND_RESULT,
                             .err = (uint8_t)err,
                             .group = in->group,
                             .epoch = in->epoch,
                             .counter = in->counter,
                             .value = in->kind == KIND_JOIN ? in->value : 0});
}

static rf_err_t kept(uint64_t highest, const uint8_t *results, uint64_t counter)
{
    if (counter == 0 || counter > highest || highest - counter >= GROUP_WINDOW) return RF_ERR_UNKNOWN_OUTCOME;
    return (rf_err_t)results[counter % GROUP_WINDOW];
}

/* Asks for an operation. */
static void recv_operate(groups_t *s, group_t *g, unsigned at, const wire_t *in, const uint8_t *body)
{
    entry_t *e = &g->entries[at];
    if (in->epoch != g->epoch || !is_owner(g) || g->wedged || !(g->members & BIT(at))) {
        group_ignore(s, "ignoring GROUP_REQUEST: of another epoch, or not to the owner");
        return;
    }
    if (in->size > s->params.bytes_max) {
        s->output.err = RF_ERR_PROTOCOL;
        group_ignore(s, "ignoring GROUP_REQUEST: too large");
        return;
    }
    if (!g->installing && in->counter <= e->assigned) {
        if (group_op_in_progress(s, g, e->member, in->counter)) return;
        result(s, e->member, in, kept(e->highest, e->results, in->counter));
        return;
    }
    if (in->counter == e->assigned + 1 && group_owner_can_number(s, g))
        group_owner_number(s, g, at, in->counter, (group_phase_t)in->phase, NULL, body, in->size);
    else
        g->pulls |= BIT(at);
    group_dirty(s, g);
}

/* A member that has not acknowledged yet what it is sent, and whose JOIN has come: whether it was sent before, or the member holds the
 * group no more, INSTALLED or GONE will say (joiner_answered()). */
static bool is_being_told(const group_t *g, unsigned at)
{
    return g->installing && (g->install_waiting & BIT(at));
}

/* It has acknowledged, and has used no nonce above this one. */
static void joiner_answered(groups_t *s, group_t *g, unsigned at, uint64_t nonce)
{
    entry_t *e = &g->entries[at];
    for (unsigned i = 0; i < JOINERS_MAX; i++) {
        joiner_t *j = &g->joiners[i];
        if (!same(j->member, e->member) || e->gone) continue;
        if (j->nonce <= nonce)
            j->member = *nobody(); /* late: it is in */
        else
            group_resolve_gone(s, g, at);
    }
    if (nonce > e->nonce && nonce <= UINT32_MAX) e->nonce = (uint32_t)nonce;
}

static void recv_join(groups_t *s, group_t *g, agreement_member_t from, const wire_t *in)
{
    if (!is_owner(g)) {
        group_send_one(s, from, GROUP_TYPE_FIRST + 1,
                       &(wire_t){.kind = KIND_REDIRECT,
                                 .group = g->id,
                                 .value = in->value,
                                 .member = to_wire(g->entries[0].member)});
        return;
    }
    if (g->ending || (g->id & EPHEMERAL)) {
        result(s, from, in, RF_ERR_NOT_FOUND);
        return;
    }
    unsigned at = group_position(g, from);
    if (at != NO_POSITION && !g->entries[at].gone) {
        if (in->value <= g->entries[at].nonce) {
            group_ignore(s, "ignoring a join: a member already");
            return;
        }
        if (!is_being_told(g, at)) group_resolve_gone(s, g, at); /* whoever asks again holds it no more */
    }
    joiner_t *room = NULL;
    for (unsigned i = 0; i < JOINERS_MAX; i++) {
        joiner_t *j = &g->joiners[i];
        if (j->member.core == RF_CORE_NONE || j->member.core == from.core) room = j;
    }
    if (!room) {
        result(s, from, in, RF_ERR_AGAIN);
        return;
    }
    g->change_maybe = true;
    *room = (joiner_t){.member = from, .nonce = (uint32_t)in->value};
    group_dirty(s, g);
}

static void recv_query(groups_t *s, group_t *g, agreement_member_t from, const wire_t *in)
{
    agreement_member_t who = from_wire(in->member);
    unsigned at = group_position(g, who);
    rf_err_t err = RF_ERR_UNKNOWN_OUTCOME;
    if (!is_owner(g) || g->wedged || g->installing) return; /* asked again */
    if (group_op_in_progress(s, g, who, in->counter)) {
        err = RF_ERR_BUSY;
    } else if (at != NO_POSITION) {
        err = kept(g->entries[at].highest, g->entries[at].results, in->counter);
    } else {
        for (unsigned i = 0; i < PAST_MAX; i++) {
            if (same(g->past[i].member, who)) err = kept(g->past[i].highest, g->past[i].results, in->counter);
        }
    }
    group_send_one(s, from, GROUP_TYPE_FIRST + 1,
                   &(wire_t){.kind = KIND_ANSWER, .err = (uint8_t)err, .group = g->id, .value = in->value});
}

static void recv_request(groups_t *s, agreement_member_t from, const wire_t *in, const uint8_t *body)
{
    group_t *g = group_find(s, in->group);
    if (!g) {
        if (in->kind == KIND_JOIN)
            result(s, from, in, RF_ERR_NOT_FOUND);
        else if (in->kind != KIND_UNLOCK)
            not_here(s, from, in->group);
        return;
    }
    if (in->kind == KIND_JOIN) {
        recv_join(s, g, from, in);
        return;
    }
    unsigned at = group_position(g, from);
    if (at == NO_POSITION) {
        if (!g->installing && !g->wedged)
            group_send_one(s, from, GROUP_TYPE_FIRST + 1,
                           &(wire_t){.kind = KIND_DROP, .group = g->id, .epoch = g->epoch});
        return;
    }
    if (in->kind == KIND_OPERATE) {
        recv_operate(s, g, at, in, body);
    } else if (in->kind == KIND_QUERY) {
        recv_query(s, g, from, in);
    } else if (in->kind == KIND_UNLOCK) {
        if (g->entries[at].lock_id == in->value) g->locks &= ~BIT(at);
        if (g->lock_id == in->value && in->value != 0 && same(g->lock_holder, from)) group_owner_unlock(s, g);
    } else if (!is_owner(g) || in->epoch != g->epoch || g->wedged || !(g->members & BIT(at)) || at == 0) {
        group_ignore(s, "ignoring GROUP_REQUEST: of another epoch, or not to the owner");
    } else if (in->kind == KIND_LEAVE) {
        g->leaves |= BIT(at);
        g->change_maybe = true;
        group_dirty(s, g);
    } else if (in->kind == KIND_LOCK && in->value != 0 && !g->ending) {
        if (g->lock_id == in->value) {
            g->grant_due = true;
        } else {
            g->entries[at].lock_id = in->value;
            g->locks |= BIT(at);
        }
        group_dirty(s, g);
    }
}

static void recv_op(groups_t *s, group_t *g, agreement_member_t from, const wire_t *in, const uint8_t *body)
{
    bool defect = s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE;
    if (in->epoch != g->epoch || is_owner(g) || (g->wedged && !defect) ||
        group_position(g, from) == NO_POSITION) {
        group_ignore(s, "ignoring GROUP: of another epoch");
        return;
    }
    bool tree = in->flags & FLAG_TREE;
    op_t *op = op_find(s, g, in->number);
    if (!op && in->number <= g->passed) {
        group_send_one(s, from, GROUP_TYPE_FIRST + 2,
                       &(wire_t){.kind = KIND_DONE,
                                 .stage = in->stage,
                                 .group = g->id,
                                 .epoch = g->epoch,
                                 .number = in->number,
                                 .value = BIT(g->self)});
        return;
    }
    /* What is aborted needs no bytes: one has refused before this member was asked. */
    bool with_body = in->phase == GROUP_ONE_PHASE || in->stage == STAGE_PREPARE || in->err != RF_OK;
    if (!op) {
        if (!with_body || in->number - g->passed > s->pipeline || in->size > s->params.bytes_max) {
            group_ignore(s, "ignoring GROUP: not known here, or too far ahead");
            return;
        }
        op = ring_at(s, g, in->number);
        if (op->number > g->passed) {
            group_ignore(s, "ignoring GROUP: its place is taken");
            return;
        }
        memset(op, 0, sizeof *op);
        op->number = in->number;
        op->requester = from_wire(in->member);
        op->requester_at = (uint8_t)group_position(g, op->requester);
        op->counter = in->counter;
        op->phase = in->phase;
        op->n_groups = in->n_groups;
        op->size = in->size;
        size_t half = in->n_groups * sizeof op->groups[0];
        memcpy(op->groups, body, half);
        memcpy(op->epochs, body + half, half);
        memcpy(op->bytes, body + 2 * half, in->size);
        if (in->number > g->last) g->last = in->number;
    } else if (op->phase != in->phase || in->stage < op->stage) {
        group_ignore(s, "ignoring GROUP: of an earlier stage");
        return;
    } else if (in->stage == op->stage) {
        group_member_again(s, g, op, from, tree);
        return;
    }
    op->stage = in->stage;
    op->err = in->err;
    group_member_learnt(s, g, op, from, tree);
}

static void recv_install(groups_t *s, agreement_member_t from, const wire_t *in, const uint8_t *bytes,
                         size_t size)
{
    state_view_t state;
    if (!group_wire_state_read(s, in, bytes, size, &state) || in->number - in->value > s->pipeline) {
        s->output.err = RF_ERR_PROTOCOL;
        group_ignore(s, "ignoring INSTALL: its state makes no sense");
        return;
    }
    const wire_entry_t *me = NULL;
    for (unsigned i = 0; i < in->n_entries; i++) {
        if (same(from_wire(state.entries[i].member), s->params.self)) me = &state.entries[i];
    }
    group_t *g = group_find(s, in->group);
    if (!me || same(from_wire(state.entries[0].member), s->params.self)) {
        group_ignore(s, "ignoring INSTALL: this member is not in it, or owns it");
        return;
    }
    if (g && in->epoch <= g->epoch) {
        if (in->epoch == g->epoch && same(from, g->install_from)) g->install_ack_due = !g->wedged;
        group_dirty(s, g);
        return;
    }
    bool blank = !g;
    if (g && !g->wedged && !same(from, g->entries[0].member)) {
        group_ignore(s, "ignoring INSTALL: not from the owner");
        return;
    }
    uint16_t joining = group_request_joining(s, in->group);
    if (!g && (in->flags & FLAG_FORM)) {
        uint64_t formed = (uint64_t)from.incarnation << 32 | (in->counter & UINT32_MAX);
        if (formed <= s->formed[from.core] || !(g = group_create(s, in->group))) {
            not_here(s, from, in->group);
            return;
        }
        s->formed[from.core] = formed;
    } else if (!g) {
        if (joining == NONE_16 || request_at(s, joining)->nonce != me->nonce ||
            !(g = group_create(s, in->group))) {
            not_here(s, from, in->group);
            return;
        }
    }
    group_adopt(s, g, &state, blank);
    g->install_ack_due = true;
    g->install_from = from;
    if (blank && joining != NONE_16) group_request_finish(s, joining, RF_OK);
    group_resolve_view(s, g); /* whoever of the list has left the view as known here */
}

static void recv_drop(groups_t *s, group_t *g, agreement_member_t from, const wire_t *in)
{
    if (!(in->epoch > g->epoch || (in->epoch == g->epoch && (g->entries[g->self].leaving || g->ending))) ||
        (is_owner(g) && !g->wedged)) {
        group_ignore(s, "ignoring DROP: a member of this epoch");
        return;
    }
    if (!(g->id & EPHEMERAL) && !g->ended) group_act(s, g, GROUP_ACTION_ENDED, NULL);
    uint64_t id = g->id;
    group_drop(s, g);
    not_here(s, from, id);
}

static void recv_group(groups_t *s, agreement_member_t from, const wire_t *in, const uint8_t *bytes,
                       size_t size)
{
    if (in->kind == KIND_INSTALL) {
        recv_install(s, from, in, bytes, size);
        return;
    }
    if (in->kind == KIND_ANSWER || in->kind == KIND_REDIRECT || (in->kind == KIND_RESULT && in->value != 0)) {
        for (unsigned i = 0; i < s->params.ops_max; i++) {
            request_t *r = request_at(s, i);
            bool join = r->kind == REQUEST_JOIN && r->group == in->group && r->nonce == in->value;
            if (in->kind == KIND_ANSWER && r->kind == REQUEST_QUERY && r->nonce == in->value) {
                group_request_finish(s, i, (rf_err_t)in->err);
            } else if (in->kind == KIND_RESULT && join && in->err != RF_OK) {
                group_request_finish(s, i, (rf_err_t)in->err);
            } else if (in->kind == KIND_REDIRECT && join && in->member.core < s->params.n_cores &&
                       !same(from_wire(in->member), s->params.self)) {
                r->to = from_wire(in->member);
                r->send_due = s->requests_due = true;
                group_requests_view(s);
            }
        }
        return;
    }
    group_t *g = group_find(s, in->group);
    if (!g) {
        uint16_t joining = group_request_joining(s, in->group);
        if (in->kind == KIND_COLLECT && !may_say_gone(s, from, in)) return;
        if (in->kind == KIND_COLLECT && joining != NONE_16)
            group_send_one(s, from, GROUP_TYPE_FIRST + 3,
                           &(wire_t){.kind = KIND_REPORT,
                                     .flags = FLAG_BLANK,
                                     .group = in->group,
                                     .epoch = in->epoch,
                                     .value = request_at(s, joining)->nonce});
        else if (in->kind == KIND_GRANT)
            group_send_one(s, from, GROUP_TYPE_FIRST,
                           &(wire_t){.kind = KIND_UNLOCK, .group = in->group, .value = in->value});
        else
            not_here(s, from, in->group);
        return;
    }
    switch (in->kind) {
    case KIND_OP:
        recv_op(s, g, from, in, bytes + sizeof(wire_t));
        break;
    case KIND_PULL:
        if (in->epoch == g->epoch && !g->wedged && same(from, g->entries[0].member))
            group_requests_again(s, g);
        break;
    case KIND_RESULT: {
        unsigned at = g->entries[g->self].highest >= in->counter;
        /* Also of an epoch gone by: what has happened has. A two-phase one is answered when it is carried out here. */
        if (same(from, g->entries[0].member) && in->counter > 0)
            group_requests_own_passed(s, g, in->counter, at || in->err != RF_OK ? (rf_err_t)in->err : RF_OK);
        break;
    }
    case KIND_GRANT:
        if (same(from, g->entries[0].member)) group_requests_granted(s, in->value, g->id, in->epoch);
        break;
    case KIND_DROP:
        recv_drop(s, g, from, in);
        break;
    case KIND_COLLECT:
        group_resolve_collect(s, g, from, in->epoch, in->counter);
        break;
    default:
        break;
    }
}

static void recv_ack(groups_t *s, agreement_member_t from, const wire_t *in)
{
    group_t *g = group_find(s, in->group);
    unsigned at = g ? group_position(g, from) : NO_POSITION;
    if (!g || at == NO_POSITION) {
        /* Who acknowledges holds what it should not any more. */
        if (in->kind != KIND_GONE)
            group_send_one(
                s, from, GROUP_TYPE_FIRST + 1,
                &(wire_t){.kind = KIND_DROP, .group = in->group, .epoch = g ? g->epoch : in->epoch + 1});
        return;
    }
    if (in->kind == KIND_GONE) {
        if (in->value < g->entries[at].nonce) return;
        if (at == 0 &&
            !is_owner(g)) { /* an owner lets go only when all have: this member has been counted as gone */
            if (!(g->id & EPHEMERAL) && !g->ended) group_act(s, g, GROUP_ACTION_ENDED, NULL);
            group_drop(s, g);
            return;
        }
        group_resolve_gone(s, g, at);
        return;
    }
    if (in->epoch != g->epoch || g->wedged) {
        group_ignore(s, "ignoring GROUP_ACK: of another epoch");
        return;
    }
    if (in->kind == KIND_INSTALLED) {
        joiner_answered(s, g, at, in->value);
        if (g->installing && (g->install_waiting & ~g->blank & BIT(at))) {
            g->install_waiting &= ~BIT(at);
            g->install_send &= ~BIT(at);
            group_dirty(s, g);
        }
        return;
    }
    op_t *op = op_find(s, g, in->number);
    if (!op || op->stage != in->stage) {
        group_ignore(s, "ignoring GROUP_ACK: of another stage");
        return;
    }
    uint64_t mask = in->value & g->members & ~BIT(g->self);
    if (is_owner(g)) {
        if ((mask & op->waiting) != 0 || in->err != RF_OK) group_owner_done(s, g, op, mask, in->err);
        return;
    }
    /* From one that this member feeds. */
    op->done |= mask & g->fed;
    if (in->err != RF_OK && op->stage == STAGE_PREPARE && op->refused == RF_OK) {
        op->refused = in->err;
        op->ack_due = g->acks_due = true;
    }
    if (!op->feeds || (g->fed & ~op->done) == 0) op->ack_due = op->up.incarnation != 0;
    g->acks_due |= op->ack_due;
    group_dirty(s, g);
}

static void recv_report(groups_t *s, agreement_member_t from, const wire_t *in, const uint8_t *bytes,
                        size_t size)
{
    group_t *g = group_find(s, in->group);
    if (!g) {
        if (may_say_gone(s, from, in)) not_here(s, from, in->group);
        return;
    }
    if (in->flags & FLAG_BLANK) {
        unsigned at = group_position(g, from);
        if (at == NO_POSITION || at == g->self || in->epoch != g->epoch) return;
        if (g->entries[at].nonce == in->value)
            group_resolve_blank(s, g, at);
        else if (g->entries[at].nonce < in->value)
            group_resolve_gone(s, g, at); /* what it waits for is another membership */
        return;
    }
    state_view_t state;
    if (!group_wire_state_read(s, in, bytes, size, &state)) {
        s->output.err = RF_ERR_PROTOCOL;
        group_ignore(s, "ignoring REPORT: its state makes no sense");
        return;
    }
    group_resolve_report(s, g, from, &state);
}

void group_receive(groups_t *s, agreement_member_t from, uint8_t type, const uint8_t *bytes, size_t size)
{
    wire_t in;
    bool refused = has_left(s, from) && !(s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE);
    if (from.core >= s->params.n_cores || same(from, s->params.self) || from.incarnation == 0 || refused) {
        group_ignore(s, "ignoring: from one that has left, or is none");
        return;
    }
    if (!group_wire_check(type, bytes, size, &in)) {
        s->output.err = RF_ERR_PROTOCOL;
        group_ignore(s, "ignoring: no message of groups");
        return;
    }
    switch (type - GROUP_TYPE_FIRST) {
    case 0:
        recv_request(s, from, &in, bytes + sizeof in);
        break;
    case 1:
        recv_group(s, from, &in, bytes, size);
        break;
    case 2:
        recv_ack(s, from, &in);
        break;
    default:
        recv_report(s, from, &in, bytes, size);
        break;
    }
}
