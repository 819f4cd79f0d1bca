#include "monitor/shell.h"

#include "monitor/block.h"

#include "base/os.h"
#include "base/prng.h"
#include "wire/death.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- answers ---- */

static answer_t *answer_new(shell_t *s, const monitor_action_t *action, monitor_event_kind_t kind,
                            rf_err_t err)
{
    rf_assert(s->n_answers < SHELL_ANSWERS_MAX);
    answer_t *a = &s->answers[(s->answers_head + s->n_answers++) % SHELL_ANSWERS_MAX];
    *a = (answer_t){.event = {.kind = kind, .op = action->op, .err = err}};
    return a;
}

/* Bytes that go with an answer; without memory it becomes that error. */
static void *answer_bytes(answer_t *a, size_t size)
{
    a->bytes = calloc(1, size);
    if (!a->bytes && a->event.err == RF_OK) a->event.err = RF_ERR_NO_MEMORY;
    if (!a->bytes) return NULL;
    a->event.bytes = a->bytes;
    a->event.size = size;
    return a->bytes;
}

void actions_tell_answer(shell_t *s)
{
    answer_t a = s->answers[s->answers_head];
    s->answers_head = (s->answers_head + 1) % SHELL_ANSWERS_MAX;
    s->n_answers--;
    shell_step(s, &a.event);
    free(a.bytes);
}

/* ---- the log ---- */

/* Before each line. */
typedef struct said {
    uint64_t real_ns;
    rf_log_level_t level;
} said_t;

void actions_say(shell_t *s)
{
    for (size_t at = 0; at < s->said_used; at += strlen(s->said + at) + 1) {
        said_t said;
        memcpy(&said, s->said + at, sizeof said);
        at += sizeof said;
        rf_log_said(said.level, said.real_ns, "%s", s->said + at);
    }
    s->said_used = 0;
    s->say_ns = RF_NEVER;
}

/* A line costs as much as several messages, and wakes who looks after the logs. So they come when what they are about has been done:
 * when another host died, that there is a new leader is committed before it is written. Errors may be the last words. */
static void say_later(shell_t *s, const monitor_action_t *action)
{
    said_t said = {.real_ns = shell_real_ns(), .level = (rf_log_level_t)action->type};
    size_t size = sizeof said + action->size; /* its end included */
    if (said.level > rf_log_level()) return;
    if (s->said_used + size > sizeof s->said) actions_say(s);
    if (size > sizeof s->said) return;
    if (said.level == RF_LOG_ERROR)
        s->say_ns = 0;
    else if (s->said_used == 0)
        s->say_ns = rf_clock_ns() + RF_DEATH_SAY_NS;
    memcpy(s->said + s->said_used, &said, sizeof said);
    memcpy(s->said + s->said_used + sizeof said, action->bytes, action->size);
    s->said_used += size;
}

/* ---- sending ---- */

static bool log_now(uint64_t *last_ns)
{
    return rf_log_once_per(last_ns, RF_NS_PER_S);
}

static void send_kernel(shell_t *s, const monitor_action_t *action)
{
    rf_err_t err = s->kernel && !s->kernel->ended ? backlog_send(s->kernel, action, true) : RF_ERR_CLOSED;
    if (err == RF_OK || err == RF_ERR_CLOSED || err == RF_ERR_PEER_DEAD)
        return; /* its end is told by its link */
    rf_log(RF_LOG_ERROR, "the CPU driver takes nothing more (%s): ending", rf_err_text(err));
    s->exit_status = MONITOR_EXIT_FAILED;
}

static void send_peer(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->peers[action->core];
    if (!conn || conn->ended || !conn->up) return;
    rf_err_t err = backlog_send(conn, action, true);
    if (err != RF_ERR_AGAIN && err != RF_ERR_LIMIT) return;
    conn->full = true;
    if (err == RF_ERR_LIMIT && log_now(&s->logged_ns[0]))
        rf_log(RF_LOG_WARN, "core %u has stopped reading: messages to it are dropped", action->core);
}

static void send_client(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->clients[action->client];
    if (!conn || conn->ended) return;
    rf_err_t err = backlog_send(conn, action, true);
    if (err == RF_OK) return;
    if (log_now(&s->logged_ns[1]))
        rf_log(RF_LOG_WARN, "closing the client link of domain %llu.%u: it does not read its answers (%s)",
               (unsigned long long)conn->domain, conn->index, rf_err_text(err));
    conn->ended = true;
    conn->err = err;
}

static void send_event(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->clients[action->client];
    if (!conn || conn->ended || conn->full) return;
    if (backlog_send(conn, action, false) != RF_ERR_AGAIN) return;
    conn->full = true;
    answer_new(s, action, MONITOR_CLIENT_FULL, RF_OK)->event.client = action->client;
}

/* ---- resources ---- */

static void make_block(shell_t *s, const monitor_action_t *action)
{
    monitor_block_t change;
    block_result_t made;
    memcpy(&change, action->bytes, sizeof change);
    rf_err_t err = block_copy(action->fds[0], &change, s->self_user, &made);
    if (change.consume) close(action->fds[0]);
    int copy = -1;
    if (err == RF_OK && action->n_fds == 2) {
        copy = dup(action->fds[1]);
        if (copy < 0) {
            close(made.fd);
            err = RF_ERR_OS;
        }
    }
    monitor_event_t *event = &answer_new(s, action, MONITOR_BLOCK, err)->event;
    if (err != RF_OK) return;
    event->fds[event->n_fds++] = made.fd;
    if (copy >= 0) event->fds[event->n_fds++] = copy;
    event->block.size = made.size;
    event->block.flags = made.flags;
    event->block.uid = made.uid;
    memcpy(event->block.user, made.user, sizeof made.user);
    memcpy(event->block.program, made.program, sizeof made.program);
}

static void read_chunk(shell_t *s, const monitor_action_t *action)
{
    answer_t *a = answer_new(s, action, MONITOR_CHUNK, RF_OK);
    void *bytes = answer_bytes(a, action->size);
    if (bytes) a->event.err = block_read(action->fds[0], action->offset, bytes, action->size);
}

static transfer_t *transfer_find(shell_t *s, uint32_t op)
{
    for (unsigned i = 0; i < MONITOR_TRANSFERS_MAX; i++) {
        if (s->transfers[i].op == op) return &s->transfers[i];
    }
    return NULL;
}

static void drop_transfer(shell_t *s, uint32_t op)
{
    transfer_t *t = transfer_find(s, op);
    if (!t) return;
    free(t->bytes);
    *t = (transfer_t){0};
}

static void put_chunk(shell_t *s, const monitor_action_t *action)
{
    transfer_t *t = transfer_find(s, action->op);
    if (!t && (t = transfer_find(s, 0))) {
        t->bytes = malloc(action->total);
        if (t->bytes) t->op = action->op;
        t->size = action->total;
        t->have = 0;
    }
    if (!t || !t->bytes || action->offset != t->have || action->size > t->size - t->have) {
        answer_new(s, action, MONITOR_BLOCK, RF_ERR_NO_MEMORY);
        return;
    }
    memcpy(t->bytes + t->have, action->bytes, action->size);
    t->have += (uint32_t)action->size;
    if (t->have < t->size) return;
    monitor_block_t change = {0};
    block_result_t made;
    rf_err_t err = block_copy_bytes(t->bytes, t->size, &change, s->self_user, &made);
    drop_transfer(s, action->op);
    monitor_event_t *event = &answer_new(s, action, MONITOR_BLOCK, err)->event;
    if (err != RF_OK) return;
    event->fds[0] = made.fd;
    event->n_fds = 1;
    event->block.size = made.size;
    event->block.flags = made.flags;
    event->block.uid = made.uid;
    memcpy(event->block.user, made.user, sizeof made.user);
    memcpy(event->block.program, made.program, sizeof made.program);
}

static void make_socketpair(shell_t *s, const monitor_action_t *action)
{
    int fds[2];
    bool made = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0;
    monitor_event_t *event = &answer_new(s, action, MONITOR_SOCKETPAIR, made ? RF_OK : RF_ERR_OS)->event;
    if (!made) return;
    memcpy(event->fds, fds, sizeof fds);
    event->n_fds = 2;
}

static void draw_random(shell_t *s, const monitor_action_t *action)
{
    answer_t *a = answer_new(s, action, MONITOR_RANDOM, RF_OK);
    void *bytes = answer_bytes(a, 64);
    if (bytes) rf_random_secret(bytes, 64);
}

/* On the medium towards the first other node; all nodes of a machine name it the same in the usual case. */
static void start_listening(shell_t *s, const monitor_action_t *action)
{
    rf_err_t err = RF_ERR_NOT_SUPPORTED;
    network_t *network = NULL;
    for (rf_node_t node = 0; node < s->boot->n_nodes && !network; node++) {
        if (node != s->boot->node) network = conn_network(s, s->boot->medium[node], &err);
    }
    answer_t *a = answer_new(s, action, MONITOR_LISTENING, network ? RF_OK : err);
    char *bytes = network ? answer_bytes(a, strlen(network->address) + 1) : NULL;
    if (bytes) memcpy(bytes, network->address, strlen(network->address) + 1);
}

static void count_links(shell_t *s, const monitor_action_t *action)
{
    answer_t *a = answer_new(s, action, MONITOR_LINK_STATS, RF_OK);
    monitor_link_stats_t *out = answer_bytes(a, (s->boot->n_cores + 1u) * sizeof *out);
    if (!out) return;
    for (rf_core_t core = 0; core < s->boot->n_cores; core++) {
        const conn_t *conn = s->peers[core];
        if (!conn || !conn->link) continue;
        rf_link_stats_t stats = {0};
        conn->link->transport->stats(conn->link, &stats);
        monitor_link_stats_t *r = &out[a->event.n++];
        r->core = core;
        r->state = (uint16_t)conn->link->state;
        r->encrypted = s->boot->encrypt && (conn->link->transport->flags & RF_TRANSPORT_ENCRYPTS);
        snprintf(r->medium, sizeof r->medium, "%s", conn->link->transport->name);
        memcpy(r->address, conn->address, sizeof r->address);
        r->slots_sent = stats.slots_sent;
        r->slots_received = stats.slots_received;
        r->broken = stats.broken;
    }
    a->event.links = out;
}

static void count_holdings(shell_t *s, const monitor_action_t *action)
{
    answer_t *a = answer_new(s, action, MONITOR_HOLDINGS, RF_OK);
    rf_client_holdings_t *out = answer_bytes(a, sizeof *out);
    if (out) holdings_count(s, out);
}

static void fence_peer(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->peers[action->core];
    if (s->lowest[action->core] <= action->incarnation) s->lowest[action->core] = action->incarnation + 1;
    lanes_fence(s, action->core, action->incarnation);
    if (!conn || conn->ended || conn->incarnation > action->incarnation) return;
    if (conn->link) conn->link->transport->flush(conn->link);
    conn_fence(conn);
}

static void run(shell_t *s, const monitor_action_t *action)
{
    switch ((monitor_action_kind_t)action->kind) {
    case MONITOR_DO_SEND_KERNEL:
        send_kernel(s, action);
        break;
    case MONITOR_DO_SEND_PEER:
        send_peer(s, action);
        break;
    case MONITOR_DO_SEND_CLIENT:
        send_client(s, action);
        break;
    case MONITOR_DO_SEND_EVENT:
        send_event(s, action);
        break;
    case MONITOR_DO_DIAL:
        conn_dial(s, action->core, action->bytes);
        break;
    case MONITOR_DO_FENCE_PEER:
        fence_peer(s, action);
        break;
    case MONITOR_DO_CLOSE_CLIENT:
        if (s->clients[action->client]) conn_forget(s->clients[action->client]);
        break;
    case MONITOR_DO_ADOPT:
        conn_adopt(s, action->domain, action->index, action->fds[0]);
        break;
    case MONITOR_DO_CLOSE_FD:
        close(action->fds[0]);
        break;
    case MONITOR_DO_BLOCK:
        make_block(s, action);
        break;
    case MONITOR_DO_BLOCK_GET:
        read_chunk(s, action);
        break;
    case MONITOR_DO_BLOCK_PUT:
        put_chunk(s, action);
        break;
    case MONITOR_DO_BLOCK_DROP:
        drop_transfer(s, action->op);
        break;
    case MONITOR_DO_SOCKETPAIR:
        make_socketpair(s, action);
        break;
    case MONITOR_DO_RANDOM:
        draw_random(s, action);
        break;
    case MONITOR_DO_LISTEN:
        start_listening(s, action);
        break;
    case MONITOR_DO_LINK_STATS:
        count_links(s, action);
        break;
    case MONITOR_DO_HOLDINGS:
        count_holdings(s, action);
        break;
    case MONITOR_DO_LOG:
        say_later(s, action);
        break;
    case MONITOR_DO_LOG_LEVEL:
        rf_log_set_level((rf_log_level_t)action->type);
        break;
    case MONITOR_DO_LANE_STANDBY:
        lanes_standby(s, action);
        break;
    case MONITOR_DO_LANE_DROP:
        lanes_drop(s, action);
        break;
    case MONITOR_DO_LANE_GRANT:
        lanes_grant(s, action);
        break;
    case MONITOR_DO_LANE_REVOKE:
        lanes_revoke(s, action);
        break;
    case MONITOR_DO_LANE_WRITE:
        lanes_write(s, action);
        break;
    case MONITOR_DO_EXIT:
        if (s->exit_status < 0) s->exit_status = (int)action->size;
        break;
    }
}

void actions_run(shell_t *s)
{
    for (unsigned i = 0; i < s->output->n_actions; i++) run(s, &s->output->actions[i]);
}
