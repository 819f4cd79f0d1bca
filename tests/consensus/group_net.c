#include "group_net.h"

#include <stdio.h>
#include <stdlib.h>

/* RF_GROUP_TRACE=1: every event and output, to stderr. */
static bool trace(void)
{
    static int on = -1;
    if (on < 0) on = getenv("RF_GROUP_TRACE") != NULL;
    return on == 1;
}

static void trace_message(const char *what, unsigned from, unsigned to, uint8_t type, const void *bytes,
                          size_t size)
{
    static const char *const kinds[] = {"?",        "OPERATE", "JOIN",      "LEAVE",   "LOCK",
                                        "UNLOCK",   "QUERY",   "OP",        "INSTALL", "PULL",
                                        "RESULT",   "GRANT",   "DROP",      "ANSWER",  "COLLECT",
                                        "REDIRECT", "DONE",    "INSTALLED", "GONE",    "REPORT"};
    wire_t w = {0};
    if (!trace()) return;
    memcpy(&w, bytes, size < sizeof w ? size : sizeof w);
    fprintf(stderr,
            "%s %u->%u %x %s group %llx epoch %llu number %llu value %llx counter %llu stage %u phase %u err "
            "%u flags %u "
            "entries %u ops %u size %zu\n",
            what, from, to, type, w.kind < KIND_COUNT ? kinds[w.kind] : "?", (unsigned long long)w.group,
            (unsigned long long)w.epoch, (unsigned long long)w.number, (unsigned long long)w.value,
            (unsigned long long)w.counter, w.stage, w.phase, w.err, w.flags, w.n_entries, w.n_ops, size);
}

#define COOKIE_OTHER ((uint64_t)1 << 32)

uint64_t net_group(unsigned group)
{
    return 100 + group;
}

static unsigned group_index(uint64_t id)
{
    return (unsigned)(id - 100);
}

static void violate(net_t *net, const char *what, unsigned op, unsigned node)
{
    if (net->violation || net->hostile) return; /* members do not lie: then only crashes count */
    snprintf(net->text, sizeof net->text, "%s (operation %u, node %u, views %u)", what, op, node,
             net->n_views);
    net->violation = net->text;
}

void net_init(net_t *net, uint64_t seed, const net_knobs_t *knobs)
{
    memset(net, 0, sizeof *net);
    rf_prng_seed(&net->prng, seed);
    net->n = knobs->nodes;
    net->loss = knobs->loss;
    net->dup = knobs->dup;
    net->refuse = knobs->refuse;
    net->hostile = knobs->hostile;
    net->fifo = knobs->fifo;
    net->weighted = knobs->weighted;
    net->now = 1000;
    for (unsigned i = 0; i < net->n; i++) {
        node_t *node = &net->nodes[i];
        node->id = (agreement_member_t){.core = (rf_core_t)i, .incarnation = 1};
        group_params_t p = {.self = node->id,
                            .n_cores = NET_NODES,
                            .groups_max = 8,
                            .members_max = NET_NODES,
                            .ops_max = 12,
                            .bytes_max = 64,
                            .resend_ns = knobs->resend_ns,
                            .plan = knobs->plan,
                            .defects = knobs->defects};
        size_t size = groups_size(&p);
        node->memory = aligned_alloc(64, size);
        if (!node->memory || groups_init(node->memory, size, &p, &node->groups) != RF_OK) abort();
        node->tick_ns = UINT64_MAX;
    }
}

void net_free(net_t *net)
{
    for (unsigned i = 0; i < net->n; i++) free(net->nodes[i].memory);
    for (unsigned i = 0; i < net->n_flight; i++) free(net->flight[i].bytes);
}

static void put(net_t *net, unsigned from, unsigned to, const group_message_t *m)
{
    if (net->n_flight == NET_FLIGHT) return;
    packet_t *p = &net->flight[net->n_flight++];
    *p = (packet_t){.from = from, .to = to, .type = m->type, .size = m->size, .bytes = malloc(m->size + 1)};
    memcpy(p->bytes, m->bytes, m->size);
}

/* A copy of a real message, changed: other fields, cut short, made longer, replayed, to anybody. */
static void put_hostile(net_t *net, unsigned from, const group_message_t *m)
{
    static uint8_t bytes[GROUP_MESSAGE_MAX + 64];
    group_message_t copy = *m;
    memcpy(bytes, m->bytes, m->size);
    copy.bytes = bytes;
    for (uint64_t i = rf_prng_below(&net->prng, 4); i-- > 0;) {
        size_t at = rf_prng_below(&net->prng, rf_prng_below(&net->prng, 2) ? 64 : m->size);
        uint8_t values[] = {
            0, 1, 2, 0xff, 0x7f, bytes[at] + 1u, bytes[at] - 1u, (uint8_t)rf_prng_next(&net->prng)};
        bytes[at] = values[rf_prng_below(&net->prng, sizeof values)];
    }
    if (rf_prng_below(&net->prng, 8) == 0) copy.size = rf_prng_below(&net->prng, m->size + 1);
    if (rf_prng_below(&net->prng, 16) == 0) copy.size = m->size + rf_prng_below(&net->prng, 64);
    if (rf_prng_below(&net->prng, 16) == 0)
        copy.type = (uint8_t)(GROUP_TYPE_FIRST + rf_prng_below(&net->prng, 4));
    if (copy.size > GROUP_MESSAGE_MAX) copy.size = GROUP_MESSAGE_MAX;
    unsigned to = (unsigned)rf_prng_below(&net->prng, net->n);
    if (to != from) put(net, from, to, &copy);
}

static void check_stable(net_t *net, unsigned op_index, const group_action_t *a, unsigned at)
{
    /* Every member that is not fenced has recorded the decision, before it is visible to anybody. */
    if (a->n_groups != 1) return; /* checked by atomicity: the group of several is not known by its id here */
    const group_t *g = group_find(net->nodes[at].groups, a->groups[0]);
    if (!g) return;
    for (unsigned i = 0; i < g->n; i++) {
        if (!(g->members & BIT(i))) continue;
        unsigned m = g->entries[i].member.core;
        if (m == at || net->nodes[m].fenced) continue;
        const group_t *other = group_find(net->nodes[m].groups, a->groups[0]);
        const op_t *op = other ? op_find(net->nodes[m].groups, other, a->number) : NULL;
        bool recorded =
            other && (other->passed >= a->number || (op && op->stage >= STAGE_DECIDED && op->err == 0));
        if (!recorded) violate(net, "visible before stable", op_index, m);
    }
}

static void answer_later(net_t *net, node_t *node, const group_action_t *a)
{
    if (a->token == 0) return;
    if (node->n_pending == 64) abort();
    node->pending[node->n_pending++] = (pending_t){.token = a->token,
                                                   .prepare = a->kind == GROUP_ACTION_PREPARE,
                                                   .refuse = rf_prng_below(&net->prng, 1000) < net->refuse};
}

static void action(net_t *net, unsigned at, const group_action_t *a)
{
    node_t *node = &net->nodes[at];
    if (a->kind == GROUP_ACTION_CHANGED) {
        if (group_index(a->groups[0]) < NET_GROUPS) node->holds[group_index(a->groups[0])] = true;
        return;
    }
    if (a->kind == GROUP_ACTION_ENDED) {
        if (group_index(a->groups[0]) < NET_GROUPS) node->holds[group_index(a->groups[0])] = false;
        return;
    }
    uint32_t index;
    if (a->size != sizeof index && net->hostile) {
        answer_later(net, node, a);
        return;
    }
    if (a->size != sizeof index) abort();
    memcpy(&index, a->bytes, sizeof index);
    if (net->hostile && index >= net->n_ops) index = 0;
    model_op_t *op = &net->ops[index];
    if (trace())
        fprintf(stderr,
                "  node %u action %u operation %u group %llx counter %llu of %u number %llu epoch %llu\n", at,
                (unsigned)a->kind, index, (unsigned long long)a->groups[0], (unsigned long long)a->id.counter,
                a->id.member.core, (unsigned long long)a->number, (unsigned long long)a->epoch);
    net->hash = (net->hash ^ (index * 64 + at * 8 + (unsigned)a->kind)) * 0x100000001b3u;
    if (op->n_groups == 1 && a->groups[0] != net_group(op->groups[0]))
        violate(net, "another group's operation", index, at);
    if (op->n_groups != a->n_groups) violate(net, "another operation's objects", index, at);
    if (a->kind == GROUP_ACTION_PREPARE) {
        if (op->prepared & BIT(at)) violate(net, "prepared twice", index, at);
        op->prepared |= BIT(at);
    } else if (a->kind == GROUP_ACTION_APPLY) {
        if (op->applied & BIT(at)) violate(net, "applied twice", index, at);
        /* What only the dead have aborted, and nobody was told of, is asked for again. */
        bool live_aborted = false;
        for (unsigned i = 0; i < net->n; i++) live_aborted |= (op->aborted & BIT(i)) && !net->nodes[i].left;
        if (op->aborted && live_aborted) violate(net, "applied here, aborted elsewhere", index, at);
        if (op->failed) violate(net, "applied, and answered as not done", index, at);
        if (op->phase == GROUP_TWO_PHASE && !(op->prepared & BIT(at)))
            violate(net, "applied, not prepared", index, at);
        op->applied |= BIT(at);
        if (op->phase == GROUP_TWO_PHASE) check_stable(net, index, a, at);
        if (a->n_groups == 1) {
            /* A one-phase operation that only the dead have carried out is asked for again, of the next owner. */
            bool only_dead = op->phase == GROUP_ONE_PHASE;
            for (unsigned i = 0; i < net->n; i++)
                only_dead &= i == at || !(op->applied & BIT(i)) || net->nodes[i].left;
            if (op->number != 0 && op->number != a->number && !only_dead)
                violate(net, "two numbers", index, at);
            op->number = a->number;
        }
        for (unsigned i = 0; i < a->n_groups; i++) {
            unsigned g = group_index(a->groups[i]);
            if (g < NET_GROUPS && node->n_order[g] < NET_OPS)
                node->order[g][node->n_order[g]++] = (uint16_t)index;
        }
    } else {
        op->aborted |= BIT(at);
        if (op->applied && !net->nodes[at].left) violate(net, "aborted here, applied elsewhere", index, at);
    }
    answer_later(net, node, a);
}

static void completion(net_t *net, unsigned at, const group_completion_t *c)
{
    if (c->cookie >= COOKIE_OTHER) {
        net->other_err[net->others++ % 64] = c->err;
        return;
    }
    model_op_t *op = &net->ops[c->cookie];
    if (op->done) violate(net, "answered twice", (unsigned)c->cookie, at);
    op->done = true;
    op->err = c->err;
    op->ok = c->err == RF_OK;
    op->failed = !op->ok && c->err != RF_ERR_UNKNOWN_OUTCOME;
    net->completions++;
    if (op->failed && op->applied) violate(net, "applied, and answered as not done", (unsigned)c->cookie, at);
    if (!op->ok) return;
    if (op->phase == GROUP_TWO_PHASE && !(op->applied & BIT(at)))
        violate(net, "answered before it is visible here", (unsigned)c->cookie, at);
    if (op->phase != GROUP_ONE_PHASE) return;
    for (unsigned i = 0; i < net->n; i++) {
        const node_t *node = &net->nodes[i];
        if (node->fenced || !node->holds[op->groups[0]] || (op->applied & BIT(i))) continue;
        const group_t *g = group_find(node->groups, net_group(op->groups[0]));
        if (g && g->passed >= op->number && op->number != 0) continue; /* joined later */
        violate(net, "a stale mapping after return", (unsigned)c->cookie, i);
    }
}

void net_event(net_t *net, unsigned at, const group_event_t *event)
{
    node_t *node = &net->nodes[at];
    group_event_t e = *event;
    e.now_ns = net->now;
    if (e.kind == GROUP_RECEIVE)
        trace_message("recv", e.receive.from.core, at, e.receive.type, e.receive.bytes, e.receive.size);
    else if (trace())
        fprintf(stderr, "event %u at %u now %llu\n", (unsigned)e.kind, at, (unsigned long long)net->now);
    const group_output_t *o = groups_step(node->groups, &e);
    if (trace() && o->ignored) fprintf(stderr, "  %s\n", o->ignored);
    node->tick_ns = o->next_tick_ns;
    node->more = o->more;
    for (unsigned i = 0; i < o->n_messages; i++) {
        const group_message_t *m = &o->messages[i];
        for (unsigned k = 0; k < m->n_to; k++) {
            unsigned to = m->to[k].core;
            if (net->hostile && (to == at || to >= net->n)) continue;
            if (to == at) violate(net, "a message to itself", 0, at);
            if (m->to[k].incarnation != 1) continue;
            if (rf_prng_below(&net->prng, 1000) < net->loss) continue;
            put(net, at, to, m);
            if (rf_prng_below(&net->prng, 1000) < net->hostile) put_hostile(net, at, m);
            if (rf_prng_below(&net->prng, 1000) < net->dup) put(net, at, to, m);
        }
    }
    for (unsigned i = 0; i < o->n_actions; i++) action(net, at, &o->actions[i]);
    for (unsigned i = 0; i < o->n_completions; i++) completion(net, at, &o->completions[i]);
    if (net->watch) net->watch(net, at, &e);
}

/* The list and its parents as group_plan_weigh() makes them of random latencies. */
static const uint8_t *net_weigh(net_t *net, agreement_member_t *members, unsigned n, uint8_t *parents)
{
    uint32_t latency_ns[NET_NODES * NET_NODES];
    agreement_member_t listed[NET_NODES];
    uint8_t order[NET_NODES];
    for (unsigned i = 0; i < n * n; i++) latency_ns[i] = 100 + (uint32_t)rf_prng_below(&net->prng, 2000);
    group_plan_weigh(n, latency_ns, 100, order, parents);
    for (unsigned i = 0; i < n; i++) listed[i] = members[order[i]];
    memcpy(members, listed, n * sizeof *members);
    return parents;
}

void net_form(net_t *net, unsigned node, unsigned group, unsigned n)
{
    agreement_member_t members[NET_NODES];
    unsigned k = 0;
    members[k++] = net->nodes[node].id;
    for (unsigned i = 0; i < net->n && k < n; i++) {
        if (i != node && !net->nodes[i].left) members[k++] = net->nodes[i].id;
    }
    uint8_t parents[NET_NODES];
    net->nodes[node].holds[group] = true;
    net_event(net, node,
              &(group_event_t){.kind = GROUP_FORM,
                               .form = {.group = net_group(group),
                                        .cookie = COOKIE_OTHER,
                                        .members = members,
                                        .parents = net->weighted ? net_weigh(net, members, k, parents) : NULL,
                                        .n_members = k}});
}

int net_operate(net_t *net, unsigned node, group_phase_t phase, unsigned mask)
{
    if (net->n_ops == NET_OPS) return -1;
    uint32_t index = net->n_ops++;
    model_op_t *op = &net->ops[index];
    *op = (model_op_t){.node = node, .phase = phase};
    uint64_t groups[NET_GROUPS];
    for (unsigned i = NET_GROUPS; i-- > 0;) {
        if (!(mask & BIT(i))) continue;
        op->groups[op->n_groups] = i;
        groups[op->n_groups++] = net_group(i);
    }
    net_event(net, node,
              &(group_event_t){.kind = GROUP_OPERATE,
                               .operate = {.cookie = index,
                                           .phase = phase,
                                           .groups = groups,
                                           .n_groups = op->n_groups,
                                           .bytes = &index,
                                           .size = sizeof index}});
    return (int)index;
}

void net_change(net_t *net, unsigned node, group_event_kind_t kind, unsigned group, unsigned through,
                uint64_t cookie)
{
    net_event(net, node,
              &(group_event_t){.kind = kind,
                               .change = {.group = net_group(group),
                                          .cookie = COOKIE_OTHER + cookie,
                                          .through = net->nodes[through].id}});
}

void net_die(net_t *net, unsigned node)
{
    net->nodes[node].state = NODE_DEAD;
    net->nodes[node].n_pending = 0;
}

void net_leave_view(net_t *net, unsigned node)
{
    if (net->nodes[node].left || net->n_views == NET_VIEWS) return;
    net->nodes[node].left = true;
    net->left_order[net->n_views++] = node;
}

void net_fence(net_t *net, unsigned node)
{
    net->nodes[node].state = NODE_DEAD;
    net->nodes[node].fenced = true;
}

static bool runs(const node_t *node)
{
    return node->state == NODE_UP;
}

static bool apply_view(net_t *net, unsigned at)
{
    node_t *node = &net->nodes[at];
    if (!runs(node) || node->views == net->n_views) return false;
    unsigned who = (unsigned)net->left_order[node->views++];
    if (who == at) { /* it learns that it is expelled: it ends; its domains run until it is fenced */
        net_die(net, at);
        return true;
    }
    net_event(net, at,
              &(group_event_t){.kind = GROUP_VIEW,
                               .view = {.view = node->views, .left = &net->nodes[who].id, .n_left = 1}});
    return true;
}

static bool tell_fenced(net_t *net, unsigned at)
{
    node_t *node = &net->nodes[at];
    if (!runs(node)) return false;
    for (unsigned v = 0; v < node->views; v++) {
        unsigned who = (unsigned)net->left_order[v];
        if (!net->nodes[who].fenced || (node->told_fenced & BIT(who))) continue;
        node->told_fenced |= BIT(who);
        net_event(net, at, &(group_event_t){.kind = GROUP_FENCED, .fenced = net->nodes[who].id});
        return true;
    }
    return false;
}

static bool answer(net_t *net, unsigned at)
{
    node_t *node = &net->nodes[at];
    if (!runs(node) || node->n_pending == 0) return false;
    unsigned i = (unsigned)rf_prng_below(&net->prng, node->n_pending);
    pending_t p = node->pending[i];
    node->pending[i] = node->pending[--node->n_pending];
    net_event(net, at,
              &(group_event_t){.kind = p.prepare ? GROUP_PREPARED : GROUP_APPLIED,
                               .done = {.token = p.token, .err = p.refuse ? RF_ERR_PERMISSION : RF_OK}});
    return true;
}

static bool deliver(net_t *net)
{
    if (net->n_flight == 0) return false;
    unsigned i = net->fifo ? 0 : (unsigned)rf_prng_below(&net->prng, net->n_flight);
    for (unsigned tries = 0; tries < net->n_flight; tries++, i = (i + 1) % net->n_flight) {
        packet_t p = net->flight[i];
        node_t *to = &net->nodes[p.to];
        if (to->state == NODE_STALLED) continue; /* waits in its ring */
        if (net->fifo)
            memmove(&net->flight[i], &net->flight[i + 1], (--net->n_flight - i) * sizeof p);
        else
            net->flight[i] = net->flight[--net->n_flight];
        if (runs(to) && !net->nodes[p.from].fenced)
            net_event(net, p.to,
                      &(group_event_t){.kind = GROUP_RECEIVE,
                                       .receive = {.from = net->nodes[p.from].id,
                                                   .type = p.type,
                                                   .bytes = p.bytes,
                                                   .size = p.size}});
        free(p.bytes);
        return true;
    }
    return false;
}

bool net_step(net_t *net)
{
    unsigned at = (unsigned)rf_prng_below(&net->prng, net->n);
    unsigned what = (unsigned)rf_prng_below(&net->prng, 16);
    node_t *node = &net->nodes[at];
    if (runs(node) && node->more) {
        net_event(net, at, &(group_event_t){.kind = GROUP_TICK});
        return true;
    }
    if (what < 9 && deliver(net)) return true;
    if (what < 12 && answer(net, at)) return true;
    if (what == 12 && apply_view(net, at)) return true;
    if (what == 13 && tell_fenced(net, at)) return true;
    if (what == 14 && runs(node)) {
        net->now += rf_prng_below(&net->prng, 300);
        if (node->tick_ns <= net->now) net_event(net, at, &(group_event_t){.kind = GROUP_TICK});
        return true;
    }
    return false;
}

void net_quiet(net_t *net, unsigned steps_max)
{
    for (unsigned step = 0; step < steps_max && !net->violation; step++) {
        bool any = false;
        for (unsigned i = 0; i < net->n; i++) {
            if (apply_view(net, i) || tell_fenced(net, i) || answer(net, i)) any = true;
            while (runs(&net->nodes[i]) && net->nodes[i].more) {
                net_event(net, i, &(group_event_t){.kind = GROUP_TICK});
                any = true;
            }
        }
        if (deliver(net)) any = true;
        if (any) continue;
        uint64_t next = UINT64_MAX;
        for (unsigned i = 0; i < net->n; i++) {
            if (runs(&net->nodes[i]) && net->nodes[i].tick_ns < next) next = net->nodes[i].tick_ns;
        }
        if (next == UINT64_MAX) return;
        if (next > net->now) net->now = next;
        for (unsigned i = 0; i < net->n; i++) {
            if (runs(&net->nodes[i]) && net->nodes[i].tick_ns <= net->now)
                net_event(net, i, &(group_event_t){.kind = GROUP_TICK});
        }
    }
    violate(net, "stuck: never quiet", 0, 0);
}

/* After all faults: everybody agrees, and everything is answered. */
void net_check_end(net_t *net)
{
    for (unsigned i = 0; i < net->n_ops; i++) {
        const model_op_t *op = &net->ops[i];
        if (runs(&net->nodes[op->node]) && !op->done) violate(net, "stuck: not answered", i, op->node);
    }
    for (unsigned k = 0; k < NET_GROUPS; k++) {
        const group_t *first = NULL;
        unsigned longest = 0;
        for (unsigned i = 0; i < net->n; i++) {
            bool longer = net->nodes[i].n_order[k] > net->nodes[longest].n_order[k];
            if (net->nodes[longest].left ? longer || !net->nodes[i].left : longer && !net->nodes[i].left)
                longest = i;
            const group_t *g = runs(&net->nodes[i]) ? group_find(net->nodes[i].groups, net_group(k)) : NULL;
            if (!g) continue;
            if (!first) first = g;
            if (g->wedged || g->installing || g->lock_id != 0 || g->held != 0 || g->passed != g->last)
                violate(net, "stuck: a group is not at rest", k, i);
            if (g->epoch != first->epoch || g->last != first->last || g->n != first->n)
                violate(net, "members disagree at the end", k, i);
        }
        for (unsigned i = 0; i < net->n; i++) {
            uint16_t where[NET_OPS] = {0};
            for (unsigned j = 0; j < net->nodes[longest].n_order[k]; j++)
                where[net->nodes[longest].order[k][j]] = (uint16_t)(j + 1);
            unsigned last = 0;
            for (unsigned j = 0; j < net->nodes[i].n_order[k]; j++) {
                unsigned w = where[net->nodes[i].order[k][j]];
                if (w == 0 ||
                    (net->nodes[i].left && net->ops[net->nodes[i].order[k][j]].phase == GROUP_ONE_PHASE))
                    continue;
                if (w < last) violate(net, "another order", net->nodes[i].order[k][j], i);
                last = w;
            }
        }
        for (unsigned i = 0; first && i < net->n; i++) {
            const group_t *g = runs(&net->nodes[i]) ? group_find(net->nodes[i].groups, net_group(k)) : NULL;
            if (!g) continue;
            uint64_t nonce = g->entries[g->self].nonce;
            for (unsigned j = 0; nonce == 0 && j < net->n_ops; j++) {
                const model_op_t *op = &net->ops[j];
                if (op->ok && op->groups[0] == k && op->n_groups == 1 && !(op->applied & BIT(i)))
                    violate(net, "acknowledged, and lost", j, i);
            }
        }
    }
    for (unsigned i = 0; i < net->n; i++) {
        for (unsigned k = 0; runs(&net->nodes[i]) && k < net->nodes[i].groups->params.groups_max; k++) {
            const group_t *g = &net->nodes[i].groups->groups[k];
            if (g->used && (g->id & EPHEMERAL)) violate(net, "stuck: a group of several is left", k, i);
        }
    }
}
