/*
 * Links: every peer link is pinged a few times, one ping outstanding each; then their statistics are asked of the shell.
 *
 *   MEASURING   until every linked peer has answered all rounds, or the deadline
 *   COUNTING    the shell's answer
 *
 * Requests that come while a measurement runs, or soon after, share it: pages of one list show one measurement.
 */
#include "monitor/state.h"

#include <stdlib.h>

enum { MEASURING = 1, COUNTING };

static void ping(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    peer_ping_t body = {.sent_ns = m->now_ns};
    c->ping_sent_ns = m->now_ns;
    peer_send(m, core, PEER_PING, &body, sizeof body, NULL, 0);
}

static void measure(monitor_t *m)
{
    m->pinging = true;
    m->ping_deadline_ns = m->now_ns + PING_NS;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        c->n_pings = 0;
        /* A peer that still owes an answer is not asked again: its ring must not fill. */
        if (c->link == PEER_LINKED && c->ping_sent_ns == 0) ping(m, core);
    }
}

static void count(monitor_t *m, op_t *op)
{
    op->state = COUNTING;
    out_action(m, MONITOR_DO_LINK_STATS)->op = op_id(m, op);
}

static bool measured(const monitor_t *m)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        const core_t *c = &m->cores[core];
        if (c->link == PEER_LINKED && c->n_pings < PING_ROUNDS) return false;
    }
    return true;
}

void links_tick(monitor_t *m)
{
    if (!m->pinging || (m->now_ns < m->ping_deadline_ns && !measured(m))) return;
    m->pinging = false;
    m->pinged_ns = m->now_ns;
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        if (m->ops[i].kind == OP_LINKS && m->ops[i].state == MEASURING) count(m, &m->ops[i]);
    }
}

void links_pong(monitor_t *m, rf_core_t core, const uint8_t *bytes, size_t size)
{
    core_t *c = &m->cores[core];
    peer_ping_t body;
    if (size != sizeof body) return;
    memcpy(&body, bytes, sizeof body);
    if (c->ping_sent_ns == 0 || body.sent_ns != c->ping_sent_ns) return;
    c->ping_sent_ns = 0;
    if (c->n_pings < PING_ROUNDS) c->pings[c->n_pings++] = m->now_ns - body.sent_ns;
    if (m->pinging && c->n_pings < PING_ROUNDS) ping(m, core);
}

void links_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from)
{
    op_t *op = op_begin_for_client(m, OP_LINKS, client, request, m->now_ns + REQUEST_NS);
    if (!op) return;
    op->list.from = from;
    op->state = MEASURING;
    if (m->pinged_ns != 0 && m->now_ns - m->pinged_ns < PING_FRESH_NS && from > 0)
        count(m, op);
    else if (!m->pinging)
        measure(m);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Half the median round trip; 0: no answer. */
static uint64_t one_way_ns(const core_t *c)
{
    uint64_t sorted[PING_ROUNDS];
    if (c->n_pings == 0) return 0;
    memcpy(sorted, c->pings, c->n_pings * sizeof *sorted);
    qsort(sorted, c->n_pings, sizeof *sorted, compare);
    return sorted[c->n_pings / 2] / 2;
}

static void shell_answer(monitor_t *m, op_t *op, const monitor_event_t *event)
{
    struct {
        rf_client_list_reply_t head;
        rf_client_link_t records[(4096 - sizeof(rf_wire_header_t) - sizeof(rf_client_list_reply_t)) /
                                 sizeof(rf_client_link_t)];
    } out = {0};
    if (event->kind != MONITOR_LINK_STATS || op->state != COUNTING) return;
    uint64_t next = UINT64_MAX;
    for (unsigned i = 0; i < event->n; i++) { /* in core order */
        const monitor_link_stats_t *s = &event->links[i];
        if (s->core < op->list.from || s->core >= m->boot->n_cores) continue;
        if (out.head.n == sizeof out.records / sizeof out.records[0]) {
            next = s->core;
            break;
        }
        rf_client_link_t *r = &out.records[out.head.n++];
        *r = (rf_client_link_t){.from = m->core,
                                .to = s->core,
                                .state = s->state,
                                .encrypted = s->encrypted,
                                .one_way_ns_p50 = one_way_ns(&m->cores[s->core]),
                                .slots_sent = s->slots_sent,
                                .slots_received = s->slots_received,
                                .broken = s->broken};
        memcpy(r->medium, s->medium, sizeof r->medium);
        memcpy(r->address, s->address, sizeof r->address);
    }
    out.head.more = next != UINT64_MAX;
    out.head.next = out.head.more ? next : 0;
    op_reply(m, op, RF_OK, &out, sizeof out.head + out.head.n * sizeof out.records[0]);
}

static void timeout(monitor_t *m, op_t *op)
{
    op_reply(m, op, RF_ERR_TIMEOUT, NULL, 0);
}

const op_class_t op_links_class = {.name = "links", .answer = shell_answer, .timeout = timeout};
