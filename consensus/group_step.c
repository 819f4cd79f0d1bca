/* The one step of the group machine: takes an event, then makes what is due, group by group, while there is room. */
#include "consensus/group_state.h"

/* Messages that race with a departure are dropped, and asked for again also where links lose nothing. */
#define RESEND_NS_MAX 1000000000u

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

/* How many operations of a group may be under way: what all of them and the members need fits one message. */
static unsigned pipeline_of(const group_params_t *p)
{
    size_t rest = GROUP_MESSAGE_MAX - sizeof(wire_t) - (p->members_max + PAST_MAX) * sizeof(wire_entry_t);
    size_t each = sizeof(wire_op_t) + (size_t)16 * GROUP_OBJECTS_MAX + p->bytes_max;
    unsigned n = GROUP_WINDOW;
    while (n > 1 && n * each > rest) n /= 2;
    return n;
}

typedef struct layout {
    size_t left, fenced, formed, buckets, groups, entries, rings, requests, size;
    size_t op_stride, ring, request_stride;
    unsigned pipeline, n_buckets;
} layout_t;

static bool layout(const group_params_t *p, layout_t *l)
{
    memset(l, 0, sizeof *l);
    if (p->groups_max == 0) {
        l->size = ALIGN(sizeof(groups_t));
        return true;
    }
    if (p->groups_max >= NONE_16 || p->members_max == 0 || p->members_max > GROUP_MEMBERS_MAX ||
        p->ops_max == 0 || p->ops_max >= NONE_16 || p->bytes_max == 0 || p->bytes_max > GROUP_BYTES_MAX ||
        p->self.core >= p->n_cores || p->self.incarnation == 0 || p->self.incarnation > INT32_MAX ||
        p->resend_ns == 0 || p->plan > GROUP_PLAN_TREE)
        return false;
    l->pipeline = pipeline_of(p);
    l->op_stride = ALIGN(sizeof(op_t) + p->bytes_max);
    l->ring = l->op_stride * l->pipeline;
    l->request_stride = ALIGN(sizeof(request_t) + p->bytes_max);
    for (l->n_buckets = 1; l->n_buckets < p->groups_max;) l->n_buckets *= 2;
    size_t at = ALIGN(sizeof(groups_t));
    l->left = at, at += ALIGN(p->n_cores * sizeof(uint32_t));
    l->fenced = at, at += ALIGN(p->n_cores * sizeof(uint32_t));
    l->formed = at, at += ALIGN(p->n_cores * sizeof(uint64_t));
    l->buckets = at, at += ALIGN(l->n_buckets * sizeof(uint16_t));
    l->groups = at, at += ALIGN(p->groups_max * sizeof(group_t));
    l->entries = at, at += ALIGN((size_t)p->groups_max * p->members_max * sizeof(entry_t));
    l->rings = at, at += p->groups_max * l->ring;
    l->requests = at, at += p->ops_max * l->request_stride;
    l->size = at;
    return true;
}

size_t groups_size(const group_params_t *params)
{
    layout_t l;
    return layout(params, &l) ? l.size : 0;
}

rf_err_t groups_init(void *memory, size_t size, const group_params_t *params, groups_t **out)
{
    layout_t l;
    if (!layout(params, &l)) return RF_ERR_INVALID;
    if (size < l.size) return RF_ERR_NO_MEMORY;
    memset(memory, 0, l.size);
    uint8_t *base = memory;
    groups_t *s = memory;
    s->params = *params;
    if (s->params.resend_ns > RESEND_NS_MAX) s->params.resend_ns = RESEND_NS_MAX;
    s->pipeline = l.pipeline;
    s->op_stride = l.op_stride;
    s->request_stride = l.request_stride;
    s->buckets_mask = l.n_buckets - 1;
    s->timer_ns = UINT64_MAX;
    s->dirty_first = s->dirty_last = s->several = s->forming = NONE_16;
    if (params->groups_max > 0) {
        s->left = (uint32_t *)(void *)(base + l.left);
        s->fenced = (uint32_t *)(void *)(base + l.fenced);
        s->formed = (uint64_t *)(void *)(base + l.formed);
        s->buckets = (uint16_t *)(void *)(base + l.buckets);
        s->groups = (group_t *)(void *)(base + l.groups);
        s->requests = base + l.requests;
        for (unsigned i = 0; i < l.n_buckets; i++) s->buckets[i] = NONE_16;
        for (unsigned i = 0; i < params->groups_max; i++) {
            group_t *g = &s->groups[i];
            g->index = (uint16_t)i;
            g->entries = (entry_t *)(void *)(base + l.entries) + (size_t)i * params->members_max;
            g->ring = base + l.rings + i * l.ring;
        }
    }
    *out = s;
    return RF_OK;
}

static uint16_t *bucket(const groups_t *s, uint64_t id)
{
    return &s->buckets[(id * 0x9e3779b97f4a7c15u >> 40) & s->buckets_mask];
}

group_t *group_find(const groups_t *s, uint64_t id)
{
    for (uint16_t i = *bucket(s, id); i != NONE_16; i = s->groups[i].chain) {
        if (s->groups[i].id == id) return &s->groups[i];
    }
    return NULL;
}

group_t *group_create(groups_t *s, uint64_t id)
{
    rf_assert(!group_find(s, id));
    for (unsigned i = 0; i < s->params.groups_max; i++) {
        group_t *g = &s->groups[i];
        if (g->used || g->dirty) continue; /* dirty: still in the list of those that are due */
        entry_t *entries = g->entries;
        uint8_t *ring = g->ring;
        uint16_t *first = bucket(s, id);
        *g = (group_t){.id = id, .index = (uint16_t)i, .chain = *first, .used = true, .dirty_next = NONE_16};
        *first = (uint16_t)i;
        g->entries = entries;
        g->ring = ring;
        g->form_request = NONE_16;
        g->lock_holder = *nobody();
        for (unsigned k = 0; k < GROUP_WINDOW; k++) g->own[k] = NONE_16;
        for (unsigned k = 0; k < JOINERS_MAX; k++) g->joiners[k].member = *nobody();
        for (unsigned k = 0; k < PAST_MAX; k++) g->past[k].member = *nobody();
        for (unsigned k = 0; k < s->pipeline; k++) ring_at(s, g, k)->number = 0;
        return g;
    }
    return NULL;
}

void group_drop(groups_t *s, group_t *g)
{
    rf_assert(g->used);
    uint16_t *at = bucket(s, g->id);
    while (*at != g->index) at = &s->groups[*at].chain;
    *at = g->chain;
    /* What it had prepared of several objects is prepared no more; a lock that was for it ends. */
    for (uint64_t n = g->passed + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        if (!op) continue;
        for (unsigned i = 0; op->holds && i < op->n_groups; i++) {
            group_t *object = group_find(s, op->groups[i]);
            if (object && object->held > 0) object->held--;
            if (object) group_dirty(s, object);
        }
    }
    g->used = false;
    if (s->forming == g->index) s->forming = NONE_16;
    if (g->id & EPHEMERAL) {
        for (unsigned i = 0; i < s->params.groups_max; i++) {
            group_t *object = &s->groups[i];
            if (object->used && object->lock_id == g->id) group_owner_unlock(s, object);
        }
    }
    group_requests_gone(s, g);
}

void group_dirty(groups_t *s, group_t *g)
{
    if (g->dirty) return;
    g->dirty = true;
    g->dirty_next = NONE_16;
    if (s->dirty_last == NONE_16)
        s->dirty_first = g->index;
    else
        s->groups[s->dirty_last].dirty_next = g->index;
    s->dirty_last = g->index;
}

unsigned group_position(const group_t *g, agreement_member_t m)
{
    for (unsigned i = 0; i < g->n; i++) {
        if (same(g->entries[i].member, m)) return i;
    }
    return NO_POSITION;
}

uint8_t *group_send_begin(groups_t *s)
{
    rf_assert(s->arena_used + GROUP_MESSAGE_MAX <= ARENA_BYTES && s->output.n_messages < GROUP_MESSAGES_MAX);
    return s->arena + s->arena_used;
}

static agreement_member_t *take(groups_t *s, uint8_t type, size_t size, unsigned n)
{
    group_message_t *m = &s->output.messages[s->output.n_messages++];
    uint8_t *bytes = s->arena + s->arena_used;
    s->arena_used += (size + 7) & ~(size_t)7;
    agreement_member_t *to = (agreement_member_t *)(void *)(s->arena + s->arena_used);
    s->arena_used += n * sizeof *to;
    rf_assert(size <= GROUP_MESSAGE_MAX && s->arena_used <= ARENA_BYTES);
    *m = (group_message_t){.to = to, .n_to = n, .type = type, .bytes = bytes, .size = size};
    return to;
}

void group_send_end(groups_t *s, uint8_t type, size_t size, const group_t *g, uint64_t mask)
{
    agreement_member_t *to = take(s, type, size, (unsigned)__builtin_popcountll(mask));
    for (; mask != 0; mask &= mask - 1) *to++ = g->entries[__builtin_ctzll(mask)].member;
}

void group_send_end_one(groups_t *s, uint8_t type, size_t size, agreement_member_t to)
{
    *take(s, type, size, 1) = to;
}

void group_send_one(groups_t *s, agreement_member_t to, uint8_t type, const wire_t *wire)
{
    memcpy(group_send_begin(s), wire, sizeof *wire);
    group_send_end_one(s, type, sizeof *wire, to);
}

const void *group_output_copy(groups_t *s, const void *bytes, size_t size)
{
    uint8_t *to = s->arena + s->arena_used;
    rf_assert(s->arena_used + size <= ARENA_BYTES);
    memcpy(to, bytes, size);
    s->arena_used += (size + 7) & ~(size_t)7;
    return to;
}

void group_complete(groups_t *s, uint64_t cookie, rf_err_t err, const group_op_id_t *id)
{
    rf_assert(s->output.n_completions < GROUP_COMPLETIONS_MAX);
    group_completion_t *c = &s->output.completions[s->output.n_completions++];
    *c = (group_completion_t){.cookie = cookie, .err = err};
    if (id) c->id = *id;
}

group_action_t *group_act(groups_t *s, group_t *g, group_action_kind_t kind, op_t *op)
{
    rf_assert(s->output.n_actions < GROUP_ACTIONS_MAX);
    group_action_t *a = &s->output.actions[s->output.n_actions++];
    *a = (group_action_t){
        .kind = kind, .groups = {g->id}, .n_groups = 1, .epoch = g->epoch, .number = g->last};
    if (op) {
        a->number = op->number;
        a->id = (group_op_id_t){.group = g->id, .member = op->requester, .counter = op->counter};
        a->phase = (group_phase_t)op->phase;
        a->bytes = op->bytes;
        a->size = op->size;
        if (op->n_groups > 0) {
            a->n_groups = op->n_groups;
            memcpy(a->groups, op->groups, op->n_groups * sizeof op->groups[0]);
        }
    }
    return a;
}

void group_timer(groups_t *s, uint64_t sent_ns)
{
    uint64_t resend = s->params.resend_ns;
    uint64_t at = sent_ns > UINT64_MAX - resend ? UINT64_MAX : sent_ns + resend;
    if (at < s->timer_ns) s->timer_ns = at;
}

bool group_timer_due(const groups_t *s, uint64_t sent_ns)
{
    return s->params.resend_ns <= UINT64_MAX - sent_ns && s->now >= sent_ns + s->params.resend_ns;
}

void group_ignore(groups_t *s, const char *why)
{
    s->output.ignored = why;
}

void group_run(groups_t *s, group_t *g)
{
    if (g->used && group_output_room(s)) group_resolve_run(s, g);
    if (g->used && group_output_room(s)) group_member_run(s, g);
    if (g->used && is_owner(g)) group_owner_run(s, g);
}

static void tick(groups_t *s)
{
    if (s->now < s->timer_ns) return;
    s->timer_ns = UINT64_MAX;
    for (unsigned i = 0; i < s->params.groups_max; i++) {
        group_t *g = &s->groups[i];
        if (!g->used) continue;
        group_resolve_tick(s, g);
        if (is_owner(g)) group_owner_tick(s, g);
    }
    group_requests_tick(s);
}

static void view(groups_t *s, const group_event_t *event)
{
    for (unsigned i = 0; i < event->view.n_left; i++) {
        agreement_member_t m = event->view.left[i];
        if (m.core < s->params.n_cores && m.incarnation > s->left[m.core]) s->left[m.core] = m.incarnation;
    }
    if (event->view.view > s->view) s->view = event->view.view;
    for (unsigned i = 0; i < s->params.groups_max; i++) {
        if (s->groups[i].used) group_resolve_view(s, &s->groups[i]);
    }
    group_requests_view(s);
}

static void fenced(groups_t *s, agreement_member_t m)
{
    if (m.core >= s->params.n_cores || m.incarnation <= s->fenced[m.core]) return;
    s->fenced[m.core] = m.incarnation;
    for (unsigned i = 0; i < s->params.groups_max; i++) {
        if (s->groups[i].used && s->groups[i].wedged) group_dirty(s, &s->groups[i]);
    }
}

/* The link to `peer` takes messages again: all that it may lack is due now. */
static void room(groups_t *s)
{
    uint64_t resend = s->params.resend_ns;
    s->params.resend_ns =
        0; /* all is overdue; `now` stays true, or what is lost now would never be due again */
    s->timer_ns = 0;
    tick(s);
    s->params.resend_ns = resend;
    s->timer_ns = s->now;
}

/* Makes what is due of all groups; each that stays due goes behind the others. */
static void run(groups_t *s)
{
    if (s->requests_due && group_output_room(s)) group_requests_run(s);
    while (s->dirty_first != NONE_16 && group_output_room(s)) {
        group_t *g = &s->groups[s->dirty_first];
        s->dirty_first = g->dirty_next;
        if (s->dirty_first == NONE_16) s->dirty_last = NONE_16;
        g->dirty = false;
        group_run(s, g);
        if (g->used && !group_output_room(s)) group_dirty(s, g);
        if (s->requests_due && group_output_room(s)) group_requests_run(s);
    }
    s->output.more = s->dirty_first != NONE_16 || s->requests_due;
}

const group_output_t *groups_step(groups_t *s, const group_event_t *event)
{
    group_output_t *o = &s->output;
    o->n_messages = o->n_actions = o->n_completions = 0;
    o->ignored = NULL;
    o->err = RF_OK;
    o->more = false;
    o->next_tick_ns = UINT64_MAX;
    s->arena_used = 0;
    if (s->params.groups_max == 0) {
        o->ignored = "ignoring: no groups here";
        return o;
    }
    if (event->now_ns > s->now) s->now = event->now_ns;
    switch (event->kind) {
    case GROUP_TICK:
        tick(s);
        break;
    case GROUP_RECEIVE:
        group_receive(s, event->receive.from, event->receive.type, event->receive.bytes, event->receive.size);
        break;
    case GROUP_ROOM:
        room(s);
        break;
    case GROUP_VIEW:
        view(s, event);
        break;
    case GROUP_FENCED:
        fenced(s, event->fenced);
        break;
    case GROUP_PREPARED:
        group_member_answer(s, event->done.token, event->done.err, true);
        break;
    case GROUP_APPLIED:
        group_member_answer(s, event->done.token, RF_OK, false);
        break;
    case GROUP_FORM:
    case GROUP_JOIN:
    case GROUP_LEAVE:
    case GROUP_DESTROY:
    case GROUP_OPERATE:
    case GROUP_QUERY:
        group_request_event(s, event);
        break;
    default:
        group_ignore(s, "ignoring: no such event");
        break;
    }
    run(s);
    o->next_tick_ns = o->more ? s->now : s->timer_ns;
    return o;
}

rf_err_t groups_query(const groups_t *s, uint64_t group, group_info_t *out)
{
    const group_t *g = s->params.groups_max > 0 ? group_find(s, group) : NULL;
    if (!g) return RF_ERR_NOT_FOUND;
    *out = (group_info_t){.group = g->id, .epoch = g->epoch, .number = g->last, .wedged = g->wedged};
    out->owner = g->entries[0].member;
    for (unsigned i = 0; i < g->n; i++) {
        if (g->members & BIT(i)) out->members[out->n_members++] = g->entries[i].member;
    }
    return RF_OK;
}

const char *groups_type_name(uint8_t type)
{
    static const char *const names[] = {"GROUP_REQUEST", "GROUP", "GROUP_ACK", "GROUP_REPORT"};
    return groups_type(type) ? names[type - GROUP_TYPE_FIRST] : "?";
}
