/*
 * Sessions: the owners of what a command line's command holds in the registry. rackfishd opens one for a connection that needs
 * it; its end, asked for or because the link to rackfishd ended, is an agreed entry behind everything it still proposes.
 * When this core dies, the entry that says that it is fenced ends them all.
 *
 * A change whose outcome is unknown may still be on its way when its session ends, and get into the log behind the end. Whoever
 * of my ended sessions owns something then, or in a snapshot that was loaded, is ended once more.
 */
#include "monitor/state.h"

#define NO_PLACE UINT16_MAX

session_t *registry_session_find(monitor_t *m, uint32_t client, uint64_t id)
{
    for (unsigned i = 0; i < SESSIONS_MAX && m->n_sessions > 0; i++) {
        session_t *s = &m->sessions[i];
        if (s->used && s->id == id && (client == NO_CLIENT || (s->client == client && !s->ending))) return s;
    }
    return NULL;
}

void registry_session_open(monitor_t *m, uint32_t client, const rf_wire_header_t *request)
{
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        session_t *s = &m->sessions[i];
        if (s->used) continue;
        *s = (session_t){.used = true, .client = client, .id = registry_number(m)};
        m->n_sessions++;
        rf_client_session_t out = {.session = s->id};
        client_reply(m, client, request->tag, request->op, RF_OK, &out, sizeof out);
        return;
    }
    client_reply(m, client, request->tag, request->op, RF_ERR_LIMIT, NULL, 0);
}

static void propose_end(monitor_t *m, op_t *op)
{
    op->registry_command =
        (registry_command_t){.op = REGISTRY_SESSION_END, .session = op->session.id, .user = "root"};
    agree_propose_bytes(m, op, &op->registry_command, sizeof op->registry_command);
}

/* Once nothing of it is on its way into the log: an entry that came later would own again. */
static void go_on(monitor_t *m, session_t *s)
{
    if (!s->ending || s->op || s->proposing > 0) return;
    op_t *op = op_begin(m, OP_SESSION, RF_NEVER);
    m->sessions_late |= !op; /* then when others have ended */
    if (!op) return;
    s->op = true;
    op->session.place = (uint16_t)(s - m->sessions);
    op->session.id = s->id;
    propose_end(m, op);
}

void registry_session_end(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t id)
{
    session_t *s = registry_session_find(m, client, id);
    client_reply(m, client, request->tag, request->op, s ? RF_OK : RF_ERR_SESSION, NULL, 0);
    if (!s) return;
    s->ending = true;
    go_on(m, s);
}

void registry_session_client_gone(monitor_t *m, uint32_t client)
{
    for (unsigned i = 0; i < SESSIONS_MAX && m->n_sessions > 0; i++) {
        session_t *s = &m->sessions[i];
        if (!s->used || s->client != client) continue;
        s->client = NO_CLIENT;
        s->ending = true;
        go_on(m, s);
    }
}

void registry_session_proposed(monitor_t *m, uint64_t id)
{
    session_t *s = registry_session_find(m, NO_CLIENT, id);
    rf_assert(s && s->proposing > 0);
    s->proposing--;
    go_on(m, s);
}

/* No quorum: what it owns stands, and is given up when there is one again. */
static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    (void)value;
    if (err != RF_OK) {
        op_deadline(m, op, m->now_ns + REGISTRY_RETRY_NS);
        return;
    }
    if (op->session.place != NO_PLACE) {
        m->sessions[op->session.place].used = false;
        m->n_sessions--;
    }
    registry_session_owns(m, op->session.id); /* again, by an entry that was applied with it */
    op_end(m, op);
    for (unsigned i = 0; i < SESSIONS_MAX && m->n_sessions > 0; i++) go_on(m, &m->sessions[i]);
}

void registry_session_owns(monitor_t *m, uint64_t id)
{
    bool mine = id >> 40 == registry_number_of(m->core, m->incarnation, 0) >> 40;
    if (mine && !registry_session_find(m, NO_CLIENT, id)) m->sessions_late = true;
}

static bool is_being_ended(const monitor_t *m, uint64_t id)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        if (m->ops[i].kind == OP_SESSION && m->ops[i].session.id == id) return true;
    }
    return false;
}

void registry_sessions_tick(monitor_t *m)
{
    const uint64_t first = registry_number_of(m->core, m->incarnation, 0);
    uint64_t id = first;
    if (!m->sessions_late || !m->formed) return;
    m->sessions_late = false;
    for (unsigned i = 0; i < SESSIONS_MAX && m->n_sessions > 0; i++) {
        if (m->sessions[i].used) go_on(m, &m->sessions[i]);
    }
    /* What an incarnation before this one had is not for this one to end. */
    while ((id = registry_session_above(m->registry, m->core, id)) != 0 && id >> 40 == first >> 40) {
        if (registry_session_find(m, NO_CLIENT, id) || is_being_ended(m, id)) continue;
        op_t *op = op_begin(m, OP_SESSION, RF_NEVER);
        m->sessions_late |= !op; /* then when others have ended */
        if (!op) return;
        op->session.place = NO_PLACE;
        op->session.id = id;
        propose_end(m, op);
    }
}

static void timeout(monitor_t *m, op_t *op)
{
    if (!op->proposing) propose_end(m, op);
}

const op_class_t op_session_class = {.name = "session", .proposed = proposed, .timeout = timeout};
