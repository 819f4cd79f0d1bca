/*
 * What this member's caller has asked for and is not answered yet. A request stays here, with its bytes, until its
 * outcome is known, and is sent again to whoever owns the group then: owners know by its counter whether it is new.
 *
 * Operations on several objects, one at a time here:
 *
 *   LOCKING     asks the owners of the objects, in id order, to lend them: an owner lends when nothing is under way.
 *               If an object's epoch changes meanwhile, all are given back and it begins again
 *   FORMING     a group of the members of all objects, of which the caller is the owner
 *   OPERATING   one two-phase operation in it. Members refuse it if an object is of another epoch than was lent
 *   ENDING      the group ends; objects are given back
 *
 * An object's own operations wait at each member while one on several is prepared there and not carried out, so the
 * order holds also if the loan was lost with its owner. Who waits for an object holds only such as come before it: no
 * circle. An object lent to one that has left is free when the agreement that it was lent for has ended there.
 */
#include "consensus/group_state.h"

#define JOIN_OR_QUERY(kind) ((kind) == REQUEST_JOIN || (kind) == REQUEST_QUERY)

static void release(groups_t *s, request_t *r)
{
    if (r->kind == REQUEST_OPERATE) {
        group_t *g = group_find(s, r->group);
        unsigned at = r->counter % GROUP_WINDOW;
        if (g && g->own[at] != NONE_16 && request_at(s, g->own[at]) == r) g->own[at] = NONE_16;
    }
    r->kind = REQUEST_NONE;
}

void group_request_finish(groups_t *s, unsigned index, rf_err_t err)
{
    request_t *r = request_at(s, index);
    rf_assert(r->kind != REQUEST_NONE);
    /* Lost with the owner that numbered it: of one-phase ones that owner may have carried it out before. */
    if (r->kind == REQUEST_OPERATE && r->phase == GROUP_ONE_PHASE && err == RF_ERR_CANCELLED)
        err = RF_ERR_UNKNOWN_OUTCOME;
    if (s->output.n_completions == GROUP_COMPLETIONS_MAX) {
        release(s, r);
        r->kind = REQUEST_FINISHED;
        r->err = (uint8_t)err;
        s->requests_due = true;
        return;
    }
    group_complete(s, r->cookie, err, &r->id);
    release(s, r);
}

static request_t *request_new(groups_t *s, const group_event_t *event, request_kind_t kind, uint64_t cookie)
{
    (void)event;
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        if (r->kind != REQUEST_NONE) continue;
        memset(r, 0, sizeof *r);
        r->kind = (uint8_t)kind;
        r->cookie = cookie;
        r->order = ++s->order;
        return r;
    }
    return NULL;
}

static uint16_t index_of(const groups_t *s, const request_t *r)
{
    return (uint16_t)((size_t)((const uint8_t *)r - s->requests) / s->request_stride);
}

static void send_later(groups_t *s, request_t *r)
{
    r->send_due = true;
    s->requests_due = true;
}

uint16_t group_request_joining(const groups_t *s, uint64_t group)
{
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        const request_t *r = request_at(s, i);
        if (r->kind == REQUEST_JOIN && r->group == group) return (uint16_t)i;
    }
    return NONE_16;
}

static group_t *form(groups_t *s, uint64_t id, const agreement_member_t *members, unsigned n,
                     const uint8_t *parents)
{
    group_t *g = group_create(s, id);
    if (!g) return NULL;
    for (unsigned i = 0; i < n; i++) {
        g->entries[i] = (entry_t){.member = members[i]};
        g->entries[i].parent = (uint8_t)(parents ? parents[i] : (i == 0 ? 0 : (i - 1) / 2));
    }
    g->n = n;
    g->plan = (uint8_t)s->params.plan;
    s->form_nonce = ++s->nonce;
    s->forming = g->index;
    group_install(s, g, BITS(n));
    group_resolve_view(s, g);
    return g;
}

static rf_err_t event_form(groups_t *s, const group_event_t *event)
{
    unsigned n = event->form.n_members;
    const agreement_member_t *m = event->form.members;
    if (n == 0 || (event->form.group & EPHEMERAL) || !same(m[0], s->params.self)) return RF_ERR_INVALID;
    if (n > s->params.members_max) return RF_ERR_LIMIT;
    for (unsigned i = 0; i < n; i++) {
        if (m[i].core >= s->params.n_cores || m[i].incarnation == 0 || has_left(s, m[i]))
            return RF_ERR_INVALID;
        if (event->form.parents && (i == 0 ? event->form.parents[i] != 0 : event->form.parents[i] >= i))
            return RF_ERR_INVALID;
        for (unsigned k = 0; k < i; k++) {
            if (m[k].core == m[i].core) return RF_ERR_INVALID;
        }
    }
    if (group_find(s, event->form.group)) return RF_ERR_EXISTS;
    if (s->forming != NONE_16) return RF_ERR_AGAIN;
    request_t *r = request_new(s, event, REQUEST_FORM, event->form.cookie);
    if (!r) return RF_ERR_AGAIN;
    r->group = event->form.group;
    group_t *g = form(s, r->group, m, n, event->form.parents);
    if (!g) {
        release(s, r);
        return RF_ERR_LIMIT;
    }
    g->form_request = index_of(s, r);
    return RF_OK;
}

static rf_err_t event_change(groups_t *s, const group_event_t *event)
{
    group_t *g = group_find(s, event->change.group);
    request_kind_t kind = event->kind == GROUP_JOIN    ? REQUEST_JOIN
                          : event->kind == GROUP_LEAVE ? REQUEST_LEAVE
                                                       : REQUEST_DESTROY;
    if (event->change.group & EPHEMERAL) return RF_ERR_INVALID;
    if (kind == REQUEST_JOIN) {
        if (g || group_request_joining(s, event->change.group) != NONE_16) return RF_ERR_EXISTS;
        if (event->change.through.core >= s->params.n_cores || same(event->change.through, s->params.self))
            return RF_ERR_INVALID;
        if (has_left(s, event->change.through)) return RF_ERR_PEER_DEAD;
    } else {
        if (!g) return RF_ERR_NOT_FOUND;
        if (is_owner(g) != (kind == REQUEST_DESTROY)) return RF_ERR_PERMISSION;
        if (g->ending || g->destroy_asked) return RF_ERR_EXISTS;
    }
    request_t *r = request_new(s, event, kind, event->change.cookie);
    if (!r) return RF_ERR_AGAIN;
    r->group = event->change.group;
    r->to = event->change.through;
    r->nonce = ++s->nonce;
    if (kind == REQUEST_DESTROY) {
        g->destroy_asked = g->change_maybe = true;
        group_dirty(s, g);
    } else {
        send_later(s, r);
    }
    return RF_OK;
}

static rf_err_t event_operate(groups_t *s, const group_event_t *event)
{
    unsigned n = event->operate.n_groups;
    group_phase_t phase = event->operate.phase;
    if (n == 0 || n > GROUP_OBJECTS_MAX || (phase != GROUP_ONE_PHASE && phase != GROUP_TWO_PHASE) ||
        (n > 1 && phase != GROUP_TWO_PHASE))
        return RF_ERR_INVALID;
    if (event->operate.size > s->params.bytes_max) return RF_ERR_LIMIT;
    for (unsigned i = 0; i < n; i++) {
        if (event->operate.groups[i] & EPHEMERAL) return RF_ERR_INVALID;
        const group_t *object = group_find(s, event->operate.groups[i]);
        if (!object || object->ending || object->entries[object->self].leaving) return RF_ERR_NOT_FOUND;
        for (unsigned k = 0; k < i; k++) {
            if (event->operate.groups[k] == event->operate.groups[i]) return RF_ERR_INVALID;
        }
    }
    group_t *g = group_find(s, event->operate.groups[0]);
    if (n == 1 && g->own[(g->counter + 1) % GROUP_WINDOW] != NONE_16) return RF_ERR_AGAIN;
    request_t *r = request_new(s, event, n > 1 ? REQUEST_SEVERAL : REQUEST_OPERATE, event->operate.cookie);
    if (!r) return RF_ERR_AGAIN;
    r->phase = (uint8_t)phase;
    r->n_groups = (uint8_t)n;
    r->size = (uint32_t)event->operate.size;
    if (r->size > 0) memcpy(r->bytes, event->operate.bytes, r->size);
    for (unsigned i = 0; i < n; i++) { /* in the order of their ids */
        unsigned at = i;
        for (; at > 0 && r->groups[at - 1] > event->operate.groups[i]; at--)
            r->groups[at] = r->groups[at - 1];
        r->groups[at] = event->operate.groups[i];
    }
    if (n > 1) {
        s->requests_due = true;
        return RF_OK;
    }
    r->group = g->id;
    r->counter = ++g->counter;
    r->id = (group_op_id_t){.group = g->id, .member = s->params.self, .counter = r->counter};
    g->own[r->counter % GROUP_WINDOW] = index_of(s, r);
    if (!is_owner(g)) {
        send_later(s, r);
    } else {
        g->pulls |= BIT(g->self);
        group_dirty(s, g);
    }
    return RF_OK;
}

static rf_err_t event_query(groups_t *s, const group_event_t *event)
{
    const group_op_id_t *id = &event->query.id;
    if (id->group & EPHEMERAL || id->counter == 0 || id->counter >= NUMBER_MAX) return RF_ERR_INVALID;
    if (!group_find(s, id->group)) return RF_ERR_NOT_FOUND;
    request_t *r = request_new(s, event, REQUEST_QUERY, event->query.cookie);
    if (!r) return RF_ERR_AGAIN;
    r->group = id->group;
    r->id = *id;
    r->nonce = ++s->nonce;
    send_later(s, r);
    return RF_OK;
}

void group_request_event(groups_t *s, const group_event_t *event)
{
    rf_err_t err;
    uint64_t cookie;
    switch (event->kind) {
    case GROUP_FORM:
        cookie = event->form.cookie;
        err = event_form(s, event);
        break;
    case GROUP_OPERATE:
        cookie = event->operate.cookie;
        err = event_operate(s, event);
        break;
    case GROUP_QUERY:
        cookie = event->query.cookie;
        err = event_query(s, event);
        break;
    default:
        cookie = event->change.cookie;
        err = event_change(s, event);
        break;
    }
    if (err != RF_OK) group_complete(s, cookie, err, NULL);
}

bool group_request_pull(groups_t *s, group_t *g)
{
    entry_t *me = &g->entries[g->self];
    request_t *next = NULL;
    for (unsigned i = 0; i < GROUP_WINDOW; i++) {
        if (g->own[i] == NONE_16) continue;
        request_t *r = request_at(s, g->own[i]);
        if (r->kind != REQUEST_OPERATE) continue;
        if (r->counter > me->assigned) {
            if (!next || r->counter < next->counter) next = r;
        } else if (!group_op_in_progress(s, g, s->params.self, r->counter) &&
                   !ring_at(s, g, g->last)->result_due) { /* numbered by an owner before, and done */
            bool known = r->counter <= me->highest && me->highest - r->counter < GROUP_WINDOW;
            group_request_finish(s, g->own[i],
                                 known ? (rf_err_t)me->results[r->counter % GROUP_WINDOW]
                                       : RF_ERR_UNKNOWN_OUTCOME);
            return true;
        }
    }
    if (!next) return false;
    group_owner_number(s, g, g->self, next->counter, (group_phase_t)next->phase, NULL, next->bytes,
                       next->size);
    return true;
}

void group_requests_again(groups_t *s, group_t *g)
{
    for (unsigned i = 0; i < GROUP_WINDOW; i++) {
        if (g->own[i] != NONE_16) send_later(s, request_at(s, g->own[i]));
    }
}

void group_requests_changed(groups_t *s, group_t *g)
{
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        bool mine = (r->kind == REQUEST_OPERATE || r->kind == REQUEST_LEAVE || r->kind == REQUEST_QUERY) &&
                    r->group == g->id;
        if (mine) send_later(s, r);
        if (r->kind != REQUEST_SEVERAL || r->several != SEVERAL_LOCKING) continue;
        for (unsigned k = 0; k < r->n_groups && k <= r->locked; k++) {
            if (r->groups[k] == g->id) r->err = 1; /* begins again */
        }
        s->requests_due = true;
    }
    if (is_owner(g)) g->pulls |= BIT(g->self);
}

static void unlock(groups_t *s, const request_t *r)
{
    for (unsigned i = 0; i < r->n_groups && group_output_room(s); i++) {
        group_t *g = group_find(s, r->groups[i]);
        if (!g) continue;
        if (is_owner(g)) {
            if (g->entries[g->self].lock_id == r->lock_id) g->locks &= ~BIT(g->self);
            if (g->lock_id == r->lock_id) group_owner_unlock(s, g);
        } else {
            group_send_one(
                s, g->entries[0].member, GROUP_TYPE_FIRST,
                &(wire_t){.kind = KIND_UNLOCK, .group = g->id, .epoch = g->epoch, .value = r->lock_id});
        }
    }
}

static uint64_t lock_id_new(groups_t *s)
{
    agreement_member_t m = s->params.self;
    return EPHEMERAL | (uint64_t)m.core << 47 | (uint64_t)(m.incarnation & 0x7fff) << 32 | ++s->nonce;
}

static void several_end(groups_t *s, request_t *r)
{
    unlock(s, r);
    r->kind = REQUEST_NONE;
    s->several = NONE_16;
    s->requests_due = true;
}

/* Answers the caller; what is left to do needs it no more. */
static void several_answer(groups_t *s, request_t *r, rf_err_t err)
{
    group_complete(s, r->cookie, err, &r->id);
    r->several = SEVERAL_ENDING;
}

static void several_form(groups_t *s, request_t *r)
{
    agreement_member_t all[GROUP_MEMBERS_MAX] = {s->params.self};
    unsigned n = 1;
    if (s->forming != NONE_16) return; /* group_requests_formed() comes back here */
    for (unsigned i = 0; i < r->n_groups; i++) {
        const group_t *g = group_find(s, r->groups[i]);
        for (unsigned k = 0; k < g->n; k++) {
            unsigned at = 0;
            while (at < n && !same(all[at], g->entries[k].member)) at++;
            if (at < n || !(g->members & BIT(k))) continue;
            if (n == s->params.members_max) {
                several_answer(s, r, RF_ERR_LIMIT);
                several_end(s, r);
                return;
            }
            all[n++] = g->entries[k].member;
        }
    }
    group_t *e = form(s, r->lock_id, all, n, NULL);
    if (!e) {
        several_answer(s, r, RF_ERR_LIMIT);
        several_end(s, r);
        return;
    }
    e->form_request = index_of(s, r);
    r->several = SEVERAL_FORMING;
}

static void several_run(groups_t *s)
{
    if (s->several == NONE_16) {
        request_t *first = NULL;
        for (unsigned i = 0; i < s->params.ops_max; i++) {
            request_t *r = request_at(s, i);
            if (r->kind == REQUEST_SEVERAL && (!first || r->order < first->order)) first = r;
        }
        if (!first) return;
        s->several = index_of(s, first);
        first->several = SEVERAL_LOCKING;
        first->lock_id = lock_id_new(s);
        first->send_due = true;
    }
    request_t *r = request_at(s, s->several);
    if (r->several != SEVERAL_LOCKING) return;
    if (r->err != 0) {
        unlock(s, r);
        r->err = 0;
        r->locked = 0;
        r->lock_id = lock_id_new(s);
        r->send_due = true;
    }
    for (unsigned i = 0; i < r->n_groups; i++) {
        if (group_find(s, r->groups[i])) continue;
        several_answer(s, r, RF_ERR_NOT_FOUND);
        several_end(s, r);
        return;
    }
    if (r->locked == r->n_groups) {
        several_form(s, r);
        return;
    }
    if (!r->send_due || !group_output_room(s)) return;
    group_t *g = group_find(s, r->groups[r->locked]);
    if (g->wedged) return; /* asks when it is resolved */
    r->send_due = false;
    r->sent_ns = s->now;
    group_timer(s, s->now);
    if (is_owner(g)) {
        g->entries[g->self].lock_id = r->lock_id;
        if (g->lock_id == r->lock_id)
            g->grant_due = true;
        else
            g->locks |= BIT(g->self);
        group_dirty(s, g);
    } else {
        group_send_one(s, g->entries[0].member, GROUP_TYPE_FIRST,
                       &(wire_t){.kind = KIND_LOCK, .group = g->id, .epoch = g->epoch, .value = r->lock_id});
    }
}

void group_requests_granted(groups_t *s, uint64_t lock_id, uint64_t group, uint64_t epoch)
{
    request_t *r = s->several == NONE_16 ? NULL : request_at(s, s->several);
    group_t *g = group_find(s, group);
    rf_assert(g);
    if (r && r->lock_id == lock_id) {
        if (r->several != SEVERAL_LOCKING || r->err != 0) return;
        if (r->locked == r->n_groups || r->groups[r->locked] != group) return;
        if (g->wedged || g->epoch != epoch || g->passed != g->last)
            return; /* asked again, or it begins again */
        r->epochs[r->locked++] = epoch;
        r->send_due = true;
        s->requests_due = true;
        return;
    }
    if (is_owner(g)) {
        if (g->lock_id == lock_id) group_owner_unlock(s, g);
        return;
    }
    group_send_one(s, g->entries[0].member, GROUP_TYPE_FIRST,
                   &(wire_t){.kind = KIND_UNLOCK, .group = group, .epoch = g->epoch, .value = lock_id});
}

void group_requests_formed(groups_t *s, group_t *g, rf_err_t err)
{
    uint16_t index = g->form_request;
    s->forming = NONE_16;
    s->requests_due = true;
    g->form_request = NONE_16;
    if (g->epoch != 1 && err == RF_OK)
        err = RF_ERR_CANCELLED; /* a member has left meanwhile: not all hold it */
    if (err != RF_OK) g->destroy_asked = g->change_maybe = true;
    group_dirty(s, g);
    if (index == NONE_16) return;
    request_t *r = request_at(s, index);
    if (r->kind == REQUEST_FORM) {
        group_request_finish(s, index, err);
        return;
    }
    if (err != RF_OK || !group_owner_can_number(s, g)) {
        g->destroy_asked = g->change_maybe = true;
        several_answer(s, r, err != RF_OK ? err : RF_ERR_CANCELLED);
        return;
    }
    r->several = SEVERAL_OPERATING;
    r->counter = ++g->counter;
    r->id = (group_op_id_t){.group = r->groups[0], .member = s->params.self, .counter = r->lock_id};
    g->own[r->counter % GROUP_WINDOW] = index;
    group_owner_number(s, g, g->self, r->counter, GROUP_TWO_PHASE, r, r->bytes, r->size);
}

void group_requests_own_passed(groups_t *s, group_t *g, uint64_t counter, rf_err_t err)
{
    uint16_t index = g->own[counter % GROUP_WINDOW];
    if (index == NONE_16) return;
    request_t *r = request_at(s, index);
    if (r->counter != counter) return;
    g->own[counter % GROUP_WINDOW] = NONE_16;
    if (r->kind == REQUEST_OPERATE) {
        group_request_finish(s, index, err);
    } else if (r->kind == REQUEST_SEVERAL) {
        several_answer(s, r, err);
        g->destroy_asked = g->change_maybe = true;
        group_dirty(s, g);
    }
}

void group_requests_gone(groups_t *s, group_t *g)
{
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        if (r->kind == REQUEST_SEVERAL && r->lock_id == g->id && r->several >= SEVERAL_FORMING) {
            if (r->several != SEVERAL_ENDING) several_answer(s, r, RF_ERR_UNKNOWN_OUTCOME);
            several_end(s, r);
        }
        if (r->kind == REQUEST_NONE || r->group != g->id || JOIN_OR_QUERY(r->kind)) continue;
        if (r->kind == REQUEST_OPERATE) group_request_finish(s, i, RF_ERR_UNKNOWN_OUTCOME);
        if (r->kind == REQUEST_LEAVE || r->kind == REQUEST_DESTROY) group_request_finish(s, i, RF_OK);
        if (r->kind == REQUEST_FORM) group_request_finish(s, i, RF_ERR_CANCELLED);
    }
    s->requests_due = true;
}

void group_requests_view(groups_t *s)
{
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        if (r->kind == REQUEST_JOIN && has_left(s, r->to)) group_request_finish(s, i, RF_ERR_PEER_DEAD);
    }
}

static void send(groups_t *s, unsigned index, request_t *r)
{
    r->send_due = false;
    r->sent_ns = s->now;
    group_timer(s, s->now);
    if (r->kind == REQUEST_JOIN) {
        group_send_one(s, r->to, GROUP_TYPE_FIRST,
                       &(wire_t){.kind = KIND_JOIN, .group = r->group, .value = r->nonce});
        return;
    }
    group_t *g = group_find(s, r->group);
    if (!g) {
        group_request_finish(s, index, RF_ERR_NOT_FOUND);
        return;
    }
    if (is_owner(g)) {
        if (r->kind == REQUEST_LEAVE) {
            group_request_finish(s, index, RF_ERR_PERMISSION); /* it has become the owner */
        } else if (r->kind == REQUEST_QUERY && !g->wedged && !g->installing) {
            unsigned at = group_position(g, r->id.member);
            rf_err_t err = RF_ERR_UNKNOWN_OUTCOME;
            const uint64_t *highest = NULL;
            const uint8_t *results = NULL;
            if (at != NO_POSITION) highest = &g->entries[at].highest, results = g->entries[at].results;
            for (unsigned i = 0; at == NO_POSITION && i < PAST_MAX; i++) {
                if (same(g->past[i].member, r->id.member))
                    highest = &g->past[i].highest, results = g->past[i].results;
            }
            if (highest && r->id.counter <= *highest && *highest - r->id.counter < GROUP_WINDOW)
                err = (rf_err_t)results[r->id.counter % GROUP_WINDOW];
            if (group_op_in_progress(s, g, r->id.member, r->id.counter)) err = RF_ERR_BUSY;
            group_request_finish(s, index, err);
        }
        return;
    }
    if (g->wedged) return; /* sent when it is resolved */
    wire_t w = {
        .kind = r->kind == REQUEST_LEAVE ? KIND_LEAVE : KIND_QUERY, .group = g->id, .epoch = g->epoch};
    if (r->kind == REQUEST_QUERY) {
        w.value = r->nonce;
        w.member = to_wire(r->id.member);
        w.counter = r->id.counter;
    }
    if (r->kind != REQUEST_OPERATE) {
        group_send_one(s, g->entries[0].member, GROUP_TYPE_FIRST, &w);
        return;
    }
    w.kind = KIND_OPERATE;
    w.phase = r->phase;
    w.counter = r->counter;
    w.size = r->size;
    uint8_t *to = group_send_begin(s);
    memcpy(to, &w, sizeof w);
    memcpy(to + sizeof w, r->bytes, r->size);
    group_send_end_one(s, GROUP_TYPE_FIRST, sizeof w + r->size, g->entries[0].member);
}

void group_requests_run(groups_t *s)
{
    s->requests_due = false;
    several_run(s);
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        if (r->kind == REQUEST_NONE || r->kind == REQUEST_SEVERAL) continue;
        if (r->kind != REQUEST_FINISHED && !r->send_due) continue;
        if (!group_output_room(s)) {
            s->requests_due = true;
            return;
        }
        if (r->kind == REQUEST_FINISHED) {
            group_complete(s, r->cookie, (rf_err_t)r->err, &r->id);
            r->kind = REQUEST_NONE;
        } else {
            send(s, i, r);
        }
    }
}

void group_requests_tick(groups_t *s)
{
    for (unsigned i = 0; i < s->params.ops_max; i++) {
        request_t *r = request_at(s, i);
        bool sends = r->kind == REQUEST_JOIN || r->kind == REQUEST_LEAVE || r->kind == REQUEST_OPERATE ||
                     r->kind == REQUEST_QUERY ||
                     (r->kind == REQUEST_SEVERAL && r->several == SEVERAL_LOCKING && s->several == i);
        if (!sends) continue;
        if (group_timer_due(s, r->sent_ns)) {
            r->send_due = s->requests_due = true;
            r->sent_ns = s->now;
        }
        group_timer(s, r->sent_ns);
    }
}
