#include "group_node.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define COMMAND_BYTES 32 /* of an operation: what unmap of a range takes */
#define GROUPS_MAX    4

static agreement_member_t member(unsigned index)
{
    return (agreement_member_t){.core = (rf_core_t)index, .incarnation = 1};
}

static bool node_open(group_thread_t *t, unsigned index, unsigned members, group_plan_t plan)
{
    group_params_t params = {.self = member(index),
                             .n_cores = (rf_core_t)members,
                             .groups_max = GROUPS_MAX,
                             .members_max = GROUP_NODES_MAX,
                             .ops_max = GROUP_WINDOW,
                             .bytes_max = COMMAND_BYTES,
                             .resend_ns = RF_NEVER,
                             .plan = plan};
    size_t size = groups_size(&params);
    group_node_t *node = calloc(1, sizeof *node);
    t->nodes[index] = node;
    if (!node || size == 0) return false;
    node->index = index;
    node->memory = aligned_alloc(RF_CACHE_LINE, (size + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1));
    if (!node->memory) return false;
    memset(node->memory, 0, size);
    return groups_init(node->memory, size, &params, &node->groups) == RF_OK;
}

group_thread_t *group_thread_open(unsigned first, unsigned n, unsigned members, group_plan_t plan)
{
    group_thread_t *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->first = first;
    t->n = n;
    for (unsigned i = first; i < first + n; i++) {
        if (node_open(t, i, members, plan)) continue;
        fprintf(stderr, "rf-bench: no group machine for member %u of %u\n", i, members);
        group_thread_close(t);
        return NULL;
    }
    return t;
}

void group_thread_close(group_thread_t *t)
{
    if (!t) return;
    for (unsigned i = 0; i < GROUP_NODES_MAX; i++) {
        if (t->nodes[i]) free(t->nodes[i]->memory);
        free(t->nodes[i]);
    }
    free(t);
}

static void send_one(group_thread_t *t, group_node_t *node, unsigned to, const group_message_t *m)
{
    node->messages++;
    if (node->links[to]) {
        node->touched[to] = true;
        /* Rings are larger than what a window of operations sends. */
        if (rf_message_send(node->links[to], m->type, m->bytes, m->size) != RF_OK) t->failed = true;
        return;
    }
    if (!t->nodes[to] || t->tail - t->head == GROUP_QUEUE_MAX) {
        t->failed = true;
        return;
    }
    group_queued_t *q = &t->queue[t->tail++ % GROUP_QUEUE_MAX];
    q->from = (uint8_t)node->index;
    q->to = (uint8_t)to;
    q->type = m->type;
    q->size = (uint32_t)m->size;
    memcpy(q->bytes, m->bytes, m->size);
}

static void act(group_node_t *node, const group_action_t *action)
{
    uint64_t word;
    if (action->kind == GROUP_ACTION_PREPARE) node->prepared++;
    if (action->kind == GROUP_ACTION_APPLY) {
        node->applied++;
        memcpy(&word, action->bytes, sizeof word);
        node->sum = node->sum * 31 + word;
    }
    if (action->token == 0) return;
    node->due[node->due_tail % GROUP_DUE_MAX].kind = action->kind;
    node->due[node->due_tail++ % GROUP_DUE_MAX].token = action->token;
}

static const group_output_t *step(group_thread_t *t, group_node_t *node, const group_event_t *event)
{
    const group_output_t *out = groups_step(node->groups, event);
    if (out->err != RF_OK) t->failed = true;
    for (unsigned i = 0; i < out->n_completions; i++) {
        node->last_err = out->completions[i].err;
        node->completed += node->last_err == RF_OK;
        node->refused += node->last_err != RF_OK;
    }
    for (unsigned i = 0; i < out->n_messages; i++) {
        for (unsigned k = 0; k < out->messages[i].n_to; k++)
            send_one(t, node, out->messages[i].to[k].core, &out->messages[i]);
    }
    for (unsigned i = 0; i < out->n_actions; i++) act(node, &out->actions[i]);
    return out;
}

/* With everything that follows from it at the same member. */
static void step_all(group_thread_t *t, group_node_t *node, const group_event_t *event)
{
    const group_output_t *out = step(t, node, event);
    for (;;) {
        group_event_t next = {.kind = GROUP_TICK};
        if (!out->more && node->due_head == node->due_tail) return;
        if (!out->more) {
            unsigned at = node->due_head++ % GROUP_DUE_MAX;
            next.kind = node->due[at].kind == GROUP_ACTION_PREPARE ? GROUP_PREPARED : GROUP_APPLIED;
            next.done.token = node->due[at].token;
        }
        out = step(t, node, &next);
    }
}

static void receive(group_thread_t *t, unsigned to, unsigned from, uint8_t type, const void *bytes,
                    size_t size)
{
    group_event_t event = {.kind = GROUP_RECEIVE};
    event.receive.from = member(from);
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    step_all(t, t->nodes[to], &event);
}

static void settle(group_thread_t *t)
{
    for (; t->head != t->tail; t->head++) {
        const group_queued_t *q = &t->queue[t->head % GROUP_QUEUE_MAX];
        receive(t, q->to, q->from, q->type, q->bytes, q->size);
    }
    for (unsigned i = t->first; i < t->first + t->n; i++) {
        group_node_t *node = t->nodes[i];
        for (unsigned k = 0; k < GROUP_NODES_MAX; k++) {
            if (!node->touched[k]) continue;
            node->touched[k] = false;
            t->transport->flush(node->links[k]);
        }
    }
}

void group_thread_step(group_thread_t *t, unsigned index, const group_event_t *event)
{
    step_all(t, t->nodes[index], event);
    settle(t);
}

uint32_t group_thread_hop_ns(void)
{
    enum { HOPS = 20000, BYTES = 56 };
    static group_queued_t queue[GROUP_QUEUE_MAX];
    uint8_t message[BYTES] = {1};
    uint64_t before = rf_clock_ns();
    for (unsigned i = 0; i < HOPS; i++) {
        group_queued_t *q = &queue[i % GROUP_QUEUE_MAX];
        q->size = BYTES;
        memcpy(q->bytes, message, sizeof message);
        __asm__ volatile("" : : "r"(q->bytes) : "memory"); /* the copy is made */
    }
    return 1 + (uint32_t)((rf_clock_ns() - before) / HOPS);
}

static unsigned poll_link(group_thread_t *t, group_node_t *node, unsigned from)
{
    enum { BURST = 32 };
    rf_slot_t slots[BURST];
    unsigned n = t->transport->poll(node->links[from], slots, BURST);
    for (unsigned i = 0; i < n; i++) {
        rf_assembler_t *a = &node->assemblers[from];
        uint64_t control = slots[i].control;
        if (!a->open && !rf_control_more(control) && rf_control_valid(control)) {
            receive(t, node->index, from, rf_control_type(control), slots[i].payload,
                    rf_control_length(control));
            continue;
        }
        rf_err_t err = rf_assembler_feed(a, &slots[i]);
        if (err == RF_OK) receive(t, node->index, from, a->type, a->bytes, a->size);
        if (err != RF_OK && err != RF_ERR_AGAIN) t->failed = true;
    }
    return n;
}

unsigned group_thread_poll(group_thread_t *t)
{
    unsigned n = 0;
    for (unsigned i = t->first; i < t->first + t->n; i++) {
        for (unsigned k = 0; k < GROUP_NODES_MAX; k++) {
            if (t->nodes[i]->links[k]) n += poll_link(t, t->nodes[i], k);
        }
    }
    if (n > 0) settle(t);
    return n;
}

void group_thread_form(group_thread_t *t, unsigned members, const uint8_t *order, const uint8_t *parents)
{
    agreement_member_t list[GROUP_NODES_MAX];
    for (unsigned i = 0; i < members; i++) list[i] = member(order ? order[i] : i);
    group_event_t event = {.kind = GROUP_FORM};
    event.form.group = GROUP_BENCHED;
    event.form.members = list;
    event.form.n_members = members;
    event.form.parents = parents;
    group_thread_step(t, 0, &event);
}

void group_thread_operate(group_thread_t *t, group_phase_t phase, uint64_t cookie)
{
    static const uint64_t groups[] = {GROUP_BENCHED};
    uint64_t words[COMMAND_BYTES / 8] = {cookie};
    group_event_t event = {.kind = GROUP_OPERATE};
    event.operate.cookie = cookie;
    event.operate.phase = phase;
    event.operate.groups = groups;
    event.operate.n_groups = 1;
    event.operate.bytes = words;
    event.operate.size = sizeof words;
    group_thread_step(t, 0, &event);
}
