#include "agree_node.h"

#include "pair.h"

#define BUSY_NS 1000

static uint64_t ticks_at_start, ns_at_start;
static double ns_per_tick;

void agree_clock_start(void)
{
    ns_per_tick = bench_ns_per_tick();
    ns_at_start = rf_clock_ns();
    ticks_at_start = rf_clock_ticks();
}

uint64_t agree_clock_ns(void)
{
    return ns_at_start + (uint64_t)((double)(rf_clock_ticks() - ticks_at_start) * ns_per_tick);
}

agreement_member_t agree_member(unsigned core)
{
    return (agreement_member_t){.core = (rf_core_t)core, .incarnation = 1};
}

static void fail(agree_node_t *node, const char *why)
{
    if (!node->failed) node->why = why;
    node->failed = true;
}

static void send_messages(agree_node_t *node, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *m = &out->messages[i];
        for (unsigned k = 0; k < m->n_to; k++) {
            unsigned to = m->to[k].core;
            if (node->cut[to] || !node->links[to]) continue;
            if (rf_message_send(node->links[to], m->type, m->bytes, m->size) != RF_OK) {
                node->refused[to] = true;
                continue;
            }
            node->touched[to] = true;
            node->messages++;
            node->slots += (m->size + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD;
        }
    }
}

static void take(agree_node_t *node, const agreement_output_t *out)
{
    node->next_tick_ns = out->next_tick_ns;
    if (out->next_tick_ns > node->now_ns || out->more)
        node->lazy_at_ns = 0;
    else if (node->lazy_at_ns == 0)
        node->lazy_at_ns = node->now_ns + node->lazy_ns;
    if (node->lazy_at_ns != 0) node->next_tick_ns = node->lazy_at_ns;
    node->role_changed |= out->role_changed;
    if (out->err != RF_OK) fail(node, rf_err_text(out->err));
    for (unsigned i = 0; i < out->n_completions; i++) {
        node->last_err = out->completions[i].err;
        node->last_value = out->completions[i].value;
        node->answered += node->last_err == RF_OK;
        node->refused_err += node->last_err != RF_OK;
        if (node->on_answer) node->on_answer(node, &out->completions[i]);
    }
    if (out->lane && node->on_lane) node->on_lane(node, out->lane);
    send_messages(node, out);
}

void agree_node_step(agree_node_t *node, agreement_event_t *event)
{
    event->now_ns = node->now_ns;
    const agreement_output_t *out = agreement_step(node->replica.engine, event);
    take(node, out);
    while (out->more) {
        agreement_event_t tick = {.kind = AGREEMENT_TICK, .now_ns = node->now_ns};
        out = agreement_step(node->replica.engine, &tick);
        take(node, out);
    }
}

static void flush(agree_node_t *node, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        if (!node->touched[i]) continue;
        node->touched[i] = false;
        if (node->links[i]) node->links[i]->transport->flush(node->links[i]);
    }
}

void agree_node_flush(agree_node_t *node)
{
    flush(node, node->n_members, node->n);
    flush(node, 0, node->n_members);
}

void agree_node_send_other(agree_node_t *node, unsigned to, const void *bytes, size_t size)
{
    if (rf_message_send(node->links[to], AGREE_OTHER, bytes, size) != RF_OK)
        fail(node, "a link did not take a message");
    node->touched[to] = true;
}

static void receive(agree_node_t *node, unsigned from, uint8_t type, const void *bytes, size_t size,
                    bool hold)
{
    if (type == AGREE_OTHER && node->on_other) {
        node->on_other(node, from, bytes, size, hold);
        return;
    }
    agreement_event_t event; /* only what is read is set */
    event.kind = AGREEMENT_RECEIVE;
    event.hold = hold;
    event.receive.from = agree_member(from);
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    agree_node_step(node, &event);
}

/* A message of one slot is read where it was polled to. */
static void feed(agree_node_t *node, unsigned from, const rf_slot_t *slot, bool hold)
{
    rf_assembler_t *assembler = &node->assemblers[from];
    if (!assembler->open && !rf_control_more(slot->control) && rf_control_valid(slot->control)) {
        receive(node, from, rf_control_type(slot->control), slot->payload, rf_control_length(slot->control),
                hold);
        return;
    }
    rf_err_t err = rf_assembler_feed(assembler, slot);
    if (err == RF_OK)
        receive(node, from, assembler->type, assembler->bytes, assembler->size, hold);
    else if (err != RF_ERR_AGAIN)
        fail(node, "a message made no sense");
}

static unsigned poll_link(agree_node_t *node, unsigned from)
{
    rf_slot_t slots[AGREE_BURST_MAX];
    unsigned burst = node->burst ? node->burst : AGREE_BURST;
    unsigned n = node->links[from]->transport->poll(node->links[from], slots, burst), last = 0;
    if (n == 0 || node->cut[from]) return n;
    node->now_ns = agree_clock_ns();
    for (unsigned i = 0; i < n; i++) {
        if (!rf_control_more(slots[i].control)) last = i;
    }
    for (unsigned i = 0; i < n; i++) feed(node, from, &slots[i], i < last);
    return n;
}

/* Whoever refused a message gets what it lacks once a whole message would be taken. */
static void look_for_room(agree_node_t *node, unsigned to)
{
    enum { SLOTS = (RF_MESSAGE_MAX + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD };
    if (!node->refused[to] || node->links[to]->transport->room(node->links[to], SLOTS) < SLOTS) return;
    node->refused[to] = false;
    agreement_event_t event = {.kind = AGREEMENT_ROOM, .peer = agree_member(to)};
    agree_node_step(node, &event);
}

unsigned agree_node_poll(agree_node_t *node)
{
    unsigned n = 0;
    for (unsigned i = 0; i < node->n; i++) {
        if (!node->links[i]) continue;
        n += poll_link(node, i);
        look_for_room(node, i);
    }
    if (node->on_turn) node->on_turn(node);
    /* What is due at once can wait for what else there is to do: the next proposal, say, tells what is committed. */
    if (node->next_tick_ns != RF_NEVER) {
        node->now_ns = agree_clock_ns();
        if (node->now_ns >= node->next_tick_ns + (n > 0 ? BUSY_NS : 0)) {
            agreement_event_t tick = {.kind = AGREEMENT_TICK};
            agree_node_step(node, &tick);
        }
    }
    return n;
}

void agree_node_propose(agree_node_t *node, const void *bytes, size_t size, bool hold)
{
    agreement_event_t event;
    agree_replica_command(&node->replica, &event, bytes, size, hold);
    node->now_ns = agree_clock_ns();
    agree_node_step(node, &event);
}
