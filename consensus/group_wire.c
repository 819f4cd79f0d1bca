/* Bytes of group messages: all checks of what comes in are here, and change nothing. */
#include "consensus/group_state.h"

static uint8_t type_of(uint8_t kind)
{
    if (kind == 0 || kind >= KIND_COUNT) return 0;
    if (kind <= KIND_QUERY) return GROUP_TYPE_FIRST;
    if (kind <= KIND_REDIRECT) return GROUP_TYPE_FIRST + 1;
    if (kind <= KIND_GONE) return GROUP_TYPE_FIRST + 2;
    return GROUP_TYPE_FIRST + 3;
}

static bool op_check(uint8_t phase, uint8_t stage, uint8_t err, uint8_t n_groups)
{
    return (phase == GROUP_ONE_PHASE || phase == GROUP_TWO_PHASE) && stage >= STAGE_PREPARE &&
           stage <= STAGE_STABLE && (phase == GROUP_TWO_PHASE || stage != STAGE_PREPARE) &&
           err < RF_ERR_COUNT && n_groups <= GROUP_OBJECTS_MAX;
}

bool group_wire_check(uint8_t type, const void *bytes, size_t size, wire_t *out)
{
    wire_t in;
    if (size < sizeof in || size > GROUP_MESSAGE_MAX) return false;
    memcpy(&in, bytes, sizeof in);
    if (type_of(in.kind) != type || in.err >= RF_ERR_COUNT || in.epoch >= NUMBER_MAX ||
        in.number >= NUMBER_MAX || in.counter >= NUMBER_MAX)
        return false;
    size_t rest = size - sizeof in;
    switch (in.kind) {
    case KIND_OPERATE:
        if (in.phase != GROUP_ONE_PHASE && in.phase != GROUP_TWO_PHASE) return false;
        if (rest != in.size || rest > GROUP_BYTES_MAX || in.counter == 0) return false;
        break;
    case KIND_OP:
        if (!op_check(in.phase, in.stage, in.err, in.n_groups) || in.number == 0) return false;
        if (in.size > GROUP_BYTES_MAX || rest != in.size + (size_t)16 * in.n_groups) return false;
        break;
    case KIND_INSTALL:
    case KIND_REPORT:
        break; /* wire_state_read */
    default:
        if (rest != 0) return false;
    }
    *out = in;
    return true;
}

size_t group_wire_op_message(const groups_t *s, const group_t *g, const op_t *op, uint8_t flags, uint8_t *to)
{
    (void)s;
    bool body = op->stage == STAGE_PREPARE || op->phase == GROUP_ONE_PHASE;
    wire_t w = {.kind = KIND_OP,
                .stage = op->stage,
                .phase = op->phase,
                .err = op->err,
                .n_groups = body ? op->n_groups : 0,
                .flags = flags,
                .group = g->id,
                .epoch = g->epoch,
                .number = op->number,
                .counter = op->counter,
                .member = to_wire(op->requester),
                .size = body ? op->size : 0};
    memcpy(to, &w, sizeof w);
    size_t at = sizeof w;
    size_t half = w.n_groups * sizeof op->groups[0];
    if (half > 0) {
        memcpy(to + at, op->groups, half);
        memcpy(to + at + half, op->epochs, half);
        at += 2 * half;
    }
    if (w.size > 0) memcpy(to + at, op->bytes, w.size);
    return at + w.size;
}

size_t group_wire_state(const groups_t *s, const group_t *g, kind_t kind, uint8_t flags, uint64_t counter,
                        uint8_t *to)
{
    wire_t w = {.kind = (uint8_t)kind,
                .flags = flags,
                .group = g->id,
                .epoch = g->epoch,
                .number = g->last,
                .value = kind == KIND_REPORT ? g->passed : g->retired,
                .counter = counter,
                .n_entries = (uint8_t)g->n};
    if (g->ending) w.flags |= FLAG_ENDING;
    if (g->plan == GROUP_PLAN_TREE) w.flags |= FLAG_PLAN_TREE;
    if (g->plan == GROUP_PLAN_UNICAST) w.flags |= FLAG_UNICAST;
    size_t at = sizeof w;
    for (unsigned i = 0; i < g->n; i++) {
        const entry_t *e = &g->entries[i];
        wire_entry_t x = {.member = to_wire(e->member),
                          .nonce = e->nonce,
                          .parent = e->parent,
                          .leaving = e->leaving,
                          .highest = e->highest};
        memcpy(x.results, e->results, sizeof x.results);
        memcpy(to + at, &x, sizeof x);
        at += sizeof x;
    }
    for (unsigned i = 0; i < PAST_MAX; i++) {
        const past_t *p = &g->past[i];
        if (p->member.core == RF_CORE_NONE) continue;
        wire_entry_t x = {.member = to_wire(p->member), .highest = p->highest};
        memcpy(x.results, p->results, sizeof x.results);
        memcpy(to + at, &x, sizeof x);
        at += sizeof x;
        w.n_groups++;
    }
    for (unsigned i = 0; i < s->pipeline; i++) {
        const op_t *op = ring_at(s, g, i);
        if (op->number == 0 || op->number > g->last || op->number <= g->retired ||
            g->last - op->number >= s->pipeline)
            continue;
        wire_op_t x = {.number = op->number,
                       .counter = op->counter,
                       .member = to_wire(op->requester),
                       .phase = op->phase,
                       .stage = op->stage,
                       .err = op->err,
                       .n_groups = op->n_groups,
                       .size = op->size};
        size_t half = op->n_groups * sizeof op->groups[0];
        memcpy(to + at, &x, sizeof x);
        at += sizeof x;
        memcpy(to + at, op->groups, half);
        memcpy(to + at + half, op->epochs, half);
        at += 2 * half;
        memcpy(to + at, op->bytes, op->size);
        at += op->size;
        w.n_ops++;
    }
    memcpy(to, &w, sizeof w);
    rf_assert(at <= GROUP_MESSAGE_MAX);
    return at;
}

bool group_wire_state_read(const groups_t *s, const wire_t *head, const uint8_t *bytes, size_t size,
                           state_view_t *out)
{
    size_t at = sizeof(wire_t);
    out->head = *head;
    out->n_past = head->n_groups;
    if (head->n_entries == 0 || head->n_entries > s->params.members_max || head->n_groups > PAST_MAX ||
        head->n_ops > s->pipeline || head->value > head->number || head->epoch == 0)
        return false;
    size_t entries = (size_t)(head->n_entries + head->n_groups) * sizeof(wire_entry_t);
    if (size - at < entries) return false;
    memcpy(out->entries, bytes + at, head->n_entries * sizeof(wire_entry_t));
    memcpy(out->past, bytes + at + head->n_entries * sizeof(wire_entry_t),
           head->n_groups * sizeof(wire_entry_t));
    at += entries;
    for (unsigned i = 0; i < head->n_entries + out->n_past; i++) {
        const wire_entry_t *e = i < head->n_entries ? &out->entries[i] : &out->past[i - head->n_entries];
        if (e->member.core >= s->params.n_cores || e->member.incarnation == 0 || e->highest >= NUMBER_MAX)
            return false;
        if (i < head->n_entries && i > 0 ? e->parent >= i : i == 0 && e->parent != 0) return false;
        for (unsigned k = 0; k < GROUP_WINDOW; k++) {
            if (e->results[k] >= RF_ERR_COUNT) return false;
        }
        for (unsigned k = 0; i < head->n_entries && k < i; k++) {
            if (out->entries[k].member.core == e->member.core) return false; /* no core twice */
        }
    }
    for (unsigned i = 0; i < head->n_ops; i++) {
        wire_op_t *x = &out->ops[i].op;
        if (size - at < sizeof *x) return false;
        memcpy(x, bytes + at, sizeof *x);
        at += sizeof *x;
        if (!op_check(x->phase, x->stage, x->err, x->n_groups) || x->size > s->params.bytes_max ||
            x->number == 0 || x->number > head->number || head->number - x->number >= s->pipeline ||
            x->counter >= NUMBER_MAX)
            return false;
        for (unsigned k = 0; k < i; k++) {
            if (out->ops[k].op.number == x->number) return false;
        }
        size_t half = x->n_groups * sizeof(uint64_t);
        if (size - at < 2 * half + x->size) return false;
        memcpy(out->ops[i].groups, bytes + at, half);
        memcpy(out->ops[i].epochs, bytes + at + half, half);
        at += 2 * half;
        out->ops[i].bytes = bytes + at;
        at += x->size;
    }
    return at == size;
}
