#include "monitor/state.h"

#include <stdarg.h>
#include <stdio.h>

/* Room for what one event may cause at most besides sweeps, which ask out_is_nearly_full() first. */
#define HEADROOM_ACTIONS (MONITOR_ACTIONS_MAX / 2)
#define HEADROOM_BYTES   (MONITOR_BYTES_MAX / 2)

bool out_is_nearly_full(const monitor_t *m)
{
    return m->out->n_actions > MONITOR_ACTIONS_MAX - HEADROOM_ACTIONS ||
           m->out->n_bytes > MONITOR_BYTES_MAX - HEADROOM_BYTES;
}

monitor_action_t *out_action(monitor_t *m, monitor_action_kind_t kind)
{
    rf_assert(m->out->n_actions < MONITOR_ACTIONS_MAX);
    monitor_action_t *action = &m->out->actions[m->out->n_actions++];
    memset(action, 0, sizeof *action);
    action->kind = (uint8_t)kind;
    action->core = RF_CORE_NONE;
    return action;
}

static void *reserve(monitor_t *m, size_t size)
{
    size_t padded = (size + 7) & ~(size_t)7;
    rf_assert(m->out->n_bytes + padded <= MONITOR_BYTES_MAX);
    void *at = m->out->bytes + m->out->n_bytes;
    m->out->n_bytes += padded;
    return at;
}

void out_bytes(monitor_t *m, monitor_action_t *action, const void *a, size_t a_size, const void *b,
               size_t b_size)
{
    uint8_t *at = reserve(m, a_size + b_size);
    if (a_size > 0) memcpy(at, a, a_size);
    if (b_size > 0) memcpy(at + a_size, b, b_size);
    action->bytes = at;
    action->size = a_size + b_size;
}

static void put_fds(monitor_t *m, monitor_action_t *action, const void *head, size_t head_size,
                    const int *fds, unsigned n_fds)
{
    rf_assert(n_fds <= MONITOR_FDS_MAX);
    void *at = reserve(m, head_size);
    memcpy(at, head, head_size);
    action->head = at;
    action->head_size = head_size;
    action->n_fds = (uint8_t)n_fds;
    memcpy(action->fds, fds, n_fds * sizeof *fds);
}

void out_log(monitor_t *m, rf_log_level_t level, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0) return;
    monitor_action_t *action = out_action(m, MONITOR_DO_LOG);
    action->type = (uint8_t)level;
    out_bytes(m, action, line, strlen(line) + 1, NULL, 0);
}

void out_close_fd(monitor_t *m, int *fd)
{
    if (*fd < 0) return;
    monitor_action_t *action = out_action(m, MONITOR_DO_CLOSE_FD);
    action->fds[0] = *fd;
    action->n_fds = 1;
    *fd = -1;
}

void out_close_fds(monitor_t *m, int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) out_close_fd(m, &fds[i]);
}

void kernel_invoke(monitor_t *m, uint32_t tag, uint16_t op, const void *body, size_t size, const int *fds,
                   unsigned n_fds)
{
    rf_wire_header_t header = {.tag = tag, .op = op};
    monitor_action_t *action = out_action(m, MONITOR_DO_SEND_KERNEL);
    action->type = RF_KERNEL_INVOKE;
    out_bytes(m, action, &header, sizeof header, body, size);
    if (n_fds > 0) {
        rf_kernel_fds_t head = {.tag = tag, .op = op};
        put_fds(m, action, &head, sizeof head, fds, n_fds);
    }
}

static monitor_action_t *reply(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, rf_err_t err,
                               const void *body, size_t size)
{
    if (err == RF_ERR_NO_QUORUM && m->agree.state.lost) err = RF_ERR_LOST;
    rf_wire_header_t header = {.tag = tag, .err = (uint16_t)err, .op = op};
    monitor_action_t *action = out_action(m, MONITOR_DO_SEND_CLIENT);
    action->type = RF_CLIENT_REPLY;
    action->client = client;
    out_bytes(m, action, &header, sizeof header, body, size);
    return action;
}

void client_reply(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, rf_err_t err, const void *body,
                  size_t size)
{
    reply(m, client, tag, op, err, body, size);
}

void client_reply_fd(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, const void *body, size_t size,
                     int fd)
{
    rf_client_fds_t head = {.tag = tag, .op = op};
    put_fds(m, reply(m, client, tag, op, RF_OK, body, size), &head, sizeof head, &fd, 1);
}

void client_event_fd(monitor_t *m, uint32_t client, uint16_t op, uint64_t key, const void *body, size_t size,
                     int fd)
{
    rf_wire_header_t header = {.op = op};
    monitor_action_t *action = out_action(m, MONITOR_DO_SEND_CLIENT);
    action->type = RF_CLIENT_EVENT;
    action->client = client;
    out_bytes(m, action, &header, sizeof header, body, size);
    if (fd >= 0) {
        rf_client_fds_t head = {.op = op, .key = key};
        put_fds(m, action, &head, sizeof head, &fd, 1);
    }
}

void client_close(monitor_t *m, uint32_t client, const char *why)
{
    client_t *c = &m->clients[client];
    out_log(m, RF_LOG_WARN, "closing the client link of %s %llu.%u: %s", c->domain ? "domain" : "the node",
            (unsigned long long)c->domain, c->index, why);
    monitor_action_t *action = out_action(m, MONITOR_DO_CLOSE_CLIENT);
    action->client = client;
    client_gone(m, client);
}

void peer_send(monitor_t *m, rf_core_t core, uint8_t type, const void *a, size_t a_size, const void *b,
               size_t b_size)
{
    monitor_action_t *action = out_action(m, MONITOR_DO_SEND_PEER);
    action->type = type;
    action->core = core;
    out_bytes(m, action, a, a_size, b, b_size);
}

rf_err_t peer_request(monitor_t *m, op_t *op, rf_core_t core, uint8_t type, const void *body, size_t size,
                      const int *fds, unsigned n_fds)
{
    core_t *peer = &m->cores[core];
    rf_assert(peer->link == PEER_LINKED && !op->counted);
    if (peer->unanswered >= PEER_REQUESTS_MAX) return RF_ERR_AGAIN;
    peer->unanswered++;
    op->counted = true;
    op->peer = core;
    op->asked = peer->linked;
    rf_wire_header_t header = {.tag = op_id(m, op)};
    peer_send(m, core, type, &header, sizeof header, body, size);
    if (n_fds > 0) {
        peer_fds_t head = {.tag = header.tag};
        put_fds(m, &m->out->actions[m->out->n_actions - 1], &head, sizeof head, fds, n_fds);
    }
    return RF_OK;
}

void peer_asked(monitor_t *m, op_t *op, rf_core_t from, uint32_t tag)
{
    op->peer = from;
    op->peer_tag = tag;
    op->asker = m->cores[from].linked;
}

bool peer_waits(const monitor_t *m, const op_t *op)
{
    return op->peer_tag != 0 && m->cores[op->peer].link == PEER_LINKED &&
           m->cores[op->peer].linked == op->asker;
}
