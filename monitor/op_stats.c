/*
 * What the dispatchers of this core use, asked of the CPU driver; and, asked of the shell, where this monitor listens, and what
 * its process holds.
 *
 *   OWN      first page only: the monitor's own usage, shown as domain 0
 *   OTHERS   the dispatchers from a key on
 */
#include "monitor/state.h"

enum { OWN = 1, OTHERS };

#define KEY_OF(domain, index) ((uint64_t)(domain) << 16 | (index))

static void ask_others(monitor_t *m, op_t *op)
{
    rf_kernel_target_t from = {.domain = op->list.from >> 16, .index = (uint16_t)op->list.from};
    op->state = OTHERS;
    kernel_invoke(m, op_id(m, op), RF_KERNEL_STAT_ALL, &from, sizeof from, NULL, 0);
}

void stats_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from)
{
    op_t *op = op_begin_for_client(m, OP_STATS, client, request, m->now_ns + REQUEST_NS);
    if (!op) return;
    op->list.from = from;
    if (from > 0) {
        ask_others(m, op);
        return;
    }
    op->state = OWN;
    kernel_invoke(m, op_id(m, op), RF_KERNEL_STAT, NULL, 0, NULL, 0);
}

static void kernel_answer(monitor_t *m, op_t *op, rf_err_t err, const uint8_t *bytes, size_t size)
{
    struct {
        rf_client_list_reply_t head;
        rf_kernel_stat_t records[RF_KERNEL_STATS_MAX + 1];
    } out = {0};
    rf_kernel_stats_t in = {0};
    if (op->state == OWN) {
        if (err == RF_OK && size >= sizeof op->list.own) {
            memcpy(&op->list.own, bytes, sizeof op->list.own);
            op->list.own.domain = RF_DOMAIN_NONE;
            op->list.has_own = true;
        }
        ask_others(m, op);
        return;
    }
    memcpy(&in, bytes, size < sizeof in ? size : sizeof in);
    size_t fit = size < offsetof(rf_kernel_stats_t, stat)
                     ? 0
                     : (size - offsetof(rf_kernel_stats_t, stat)) / sizeof in.stat[0];
    if (err == RF_OK && (in.n > fit || in.n > RF_KERNEL_STATS_MAX)) err = RF_ERR_PROTOCOL;
    if (err != RF_OK) {
        op_reply(m, op, err, NULL, 0);
        return;
    }
    if (op->list.has_own) out.records[out.head.n++] = op->list.own;
    for (uint32_t i = 0; i < in.n; i++) out.records[out.head.n++] = in.stat[i];
    if (in.more && in.n > 0) {
        out.head.more = 1;
        out.head.next = KEY_OF(in.stat[in.n - 1].domain, in.stat[in.n - 1].index) + 1;
    }
    op_reply(m, op, RF_OK, &out, sizeof out.head + out.head.n * sizeof out.records[0]);
}

static void timeout(monitor_t *m, op_t *op)
{
    op_reply(m, op, RF_ERR_TIMEOUT, NULL, 0);
}

const op_class_t op_stats_class = {.name = "stats", .kernel = kernel_answer, .timeout = timeout};

void listen_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request)
{
    op_t *op = op_begin_for_client(m, OP_LISTEN, client, request, m->now_ns + REQUEST_NS);
    if (op) out_action(m, MONITOR_DO_LISTEN)->op = op_id(m, op);
}

static void listening(monitor_t *m, op_t *op, const monitor_event_t *event)
{
    rf_client_address_t out = {0};
    if (event->err == RF_OK && event->size <= sizeof out.address)
        memcpy(out.address, event->bytes, event->size);
    out.address[sizeof out.address - 1] = 0;
    op_reply(m, op, event->err, &out, sizeof out);
}

const op_class_t op_listen_class = {.name = "listen", .answer = listening, .timeout = timeout};

void holdings_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request)
{
    op_t *op = op_begin_for_client(m, OP_HOLDINGS, client, request, m->now_ns + REQUEST_NS);
    if (op) out_action(m, MONITOR_DO_HOLDINGS)->op = op_id(m, op);
}

static void counted(monitor_t *m, op_t *op, const monitor_event_t *event)
{
    struct {
        rf_client_list_reply_t head;
        rf_client_holdings_t record;
    } out = {.head = {.n = 1}};
    rf_err_t err = event->err;
    if (err == RF_OK && event->size != sizeof out.record) err = RF_ERR_PROTOCOL;
    if (err == RF_OK) memcpy(&out.record, event->bytes, sizeof out.record);
    op_reply(m, op, err, &out, err == RF_OK ? sizeof out : 0);
}

const op_class_t op_holdings_class = {.name = "holdings", .answer = counted, .timeout = timeout};
