/*
 * The registry for the control API. Questions and watches go to any living local monitor, and to the next one when that dies.
 * So do changes that nobody owns: they are made in a session of the log, and a repetition is answered what the first gave, whatever
 * has become of the monitor that it went through; this rackfishd has one such session, and waits for a monitor for a while when all
 * have died. It ends the session when it goes down; of what it could not end (it was killed, nobody waited for the answer any more) the
 * machine keeps so many, and then ends the oldest, which, if its rackfishd lives, opens another. What needs an owner gets a session of the monitor, one a connection, at the monitor that first opened it; all the
 * connection's changes go there then, and its death leaves their outcome unknown.
 *
 *   ASKED       a page is on its way; a list asks on behind the last name, a watch from the revision that the page said
 *   OPENING     the session, of either kind, is being opened; then as CHANGING, or as REPEATING
 *   CHANGING    the change, or the wait, is at the monitor
 *   REPEATING   the change is at a monitor, or asks the next one a moment later
 */
#include "node/control_queries.h"

#include "node/monitors.h"

#include <stdio.h>
#include <string.h>

#define REPEAT_NS        (20 * RF_NS_PER_MS) /* between attempts */
#define REPEATS_NS       (8 * RF_NS_PER_S)   /* all attempts: less than the command line waits */
#define PAGE_RECORDS_MAX 64                  /* of one page of a monitor: they are larger than 56 bytes */
#define PAD(n)           (((n) + 7) & ~(size_t)7)

typedef struct registry_query {
    rf_operation_t operation;
    rf_monitor_call_t call;
    uint16_t op; /* RF_CLIENT_REGISTRY_* */
    unsigned tried;
    uint64_t timeout_ns;
    rf_timer_t again;
    uint64_t until_ns;
    bool unknown;              /* an attempt ended without an answer: it may have been carried out */
    rf_client_once_t once;     /* session 0: not REPEATING */
    rf_client_registry_t head; /* and what comes behind it */
    uint8_t bytes[RF_CLIENT_REGISTRY_BYTES_MAX];
    char name[RF_CLIENT_REGISTRY_NAME_MAX + 1];
} registry_query_t;
_Static_assert(offsetof(registry_query_t, bytes) ==
                   offsetof(registry_query_t, head) + sizeof(rf_client_registry_t),
               "back to back");
_Static_assert(offsetof(registry_query_t, head) ==
                   offsetof(registry_query_t, once) + sizeof(rf_client_once_t),
               "and what makes it once before it");

static void query_end(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    uint64_t *outstanding = &daemon->once.outstanding[q->once.sequence % RF_ONCE_WINDOW];
    bool of_now = q->once.session != 0 && q->once.session == daemon->once.id;
    if (of_now && *outstanding == q->once.sequence) *outstanding = 0;
    rf_timer_clear(&q->again);
    rf_operation_end(&q->operation);
}

static void query_cancel(rf_operation_t *operation)
{
    registry_query_t *q = (registry_query_t *)operation;
    rf_monitor_call_cancel(&q->call);
    query_end(q);
}

static void fail(registry_query_t *q, rf_err_t err)
{
    rf_client_t *client = q->operation.client;
    const char *mend =
        err == RF_ERR_LIMIT        ? "; a quota of yours, or a maximum of the machine"
        : err == RF_ERR_PERMISSION ? ": it is another user's (\"shared/...\" is everybody's)"
        : err == RF_ERR_SESSION    ? ": the connection lost its place in the registry; connect again"
        : err == RF_ERR_INVALID    ? ": names have 1 to 127 bytes without spaces, values at most 512"
        : err == RF_ERR_TIMEOUT && q->op == RF_CLIENT_REGISTRY_CHANGE && q->timeout_ns > 0
            ? "; it may still happen"
            : "";
    rf_client_error(client, q->operation.id, err, "%s: %s%s", q->name[0] ? q->name : "registry",
                    rf_err_text(err), mend);
    query_end(q);
}

static void reply(registry_query_t *q, Rackfish__RegistryReply *body, bool more)
{
    Rackfish__ControlReply out;
    rackfish__control_reply__init(&out);
    out.id = q->operation.id;
    out.more = more;
    out.kind_case = RACKFISH__CONTROL_REPLY__KIND_REGISTRY;
    out.registry = body;
    rf_client_reply(q->operation.client, &out);
}

/* ---- pages ---- */

static void on_page(void *context, rf_err_t err, const void *body, size_t size);

/* Asks the next living monitor. */
static void ask(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    size_t size = sizeof q->head + q->head.name_size + q->head.value_size;
    for (;; q->tried++) {
        rf_local_core_t *core = rf_monitor_first(daemon, q->tried);
        if (!core) {
            rf_client_error(q->operation.client, q->operation.id, RF_ERR_PEER_DEAD,
                            "no monitor of node %s is in reach; ask another node",
                            daemon->config->nodes[daemon->node].name);
            query_end(q);
            return;
        }
        q->tried = (unsigned)(core - daemon->cores);
        if (rf_monitor_call(core, &q->call, q->op, &q->head, size, NULL, 0, q->timeout_ns, on_page, q) ==
            RF_OK)
            return;
    }
}

/* Behind the name that a page ended with. */
static void set_after(registry_query_t *q, const char *after)
{
    size_t size = strlen(after);
    memcpy(q->bytes + q->head.name_size, after, size);
    q->head.value_size = (uint16_t)size;
}

static char *take_name(const uint8_t *from, size_t size, char *room)
{
    memcpy(room, from, size);
    room[size] = 0;
    return room;
}

static rf_err_t show_entries(registry_query_t *q, const uint8_t *body, size_t size)
{
    rf_client_registry_page_t page;
    rf_client_registry_entry_t e[PAGE_RECORDS_MAX];
    Rackfish__RegistryEntry items[PAGE_RECORDS_MAX], *pointers[PAGE_RECORDS_MAX];
    char names[PAGE_RECORDS_MAX][RF_CLIENT_REGISTRY_NAME_MAX + 1], users[PAGE_RECORDS_MAX][sizeof e->user];
    if (size < sizeof page) return RF_ERR_PROTOCOL;
    memcpy(&page, body, sizeof page);
    if (page.n > PAGE_RECORDS_MAX || (page.more && page.n == 0)) return RF_ERR_PROTOCOL;
    size_t at = sizeof page;
    for (uint32_t i = 0; i < page.n; i++) {
        if (size - at < sizeof *e) return RF_ERR_PROTOCOL;
        memcpy(&e[i], body + at, sizeof *e);
        size_t wanted = PAD(sizeof *e + e[i].name_size + e[i].value_size);
        if (e[i].name_size > RF_CLIENT_REGISTRY_NAME_MAX || size - at < wanted || e[i].kind == 0)
            return RF_ERR_PROTOCOL;
        rackfish__registry_entry__init(&items[i]);
        items[i].kind = (Rackfish__RegistryKind)(e[i].kind - 1);
        items[i].name = take_name(body + at + sizeof *e, e[i].name_size, names[i]);
        items[i].value = (ProtobufCBinaryData){
            .len = e[i].value_size, .data = (uint8_t *)(uintptr_t)body + at + sizeof *e + e[i].name_size};
        items[i].created = e[i].created;
        items[i].revision = e[i].revision;
        items[i].version = e[i].version;
        items[i].ephemeral = e[i].ephemeral;
        items[i].domain = e[i].domain;
        items[i].index = e[i].domain ? (uint32_t)e[i].session : 0;
        snprintf(users[i], sizeof users[i], "%.*s", (int)sizeof e[i].user - 1, e[i].user);
        items[i].user = users[i];
        items[i].n = e[i].n;
        items[i].used = e[i].used;
        items[i].waiting = e[i].waiting;
        pointers[i] = &items[i];
        at += wanted;
    }
    Rackfish__RegistryReply out;
    rackfish__registry_reply__init(&out);
    out.revision = page.revision;
    out.n_entries = page.n;
    out.entries = pointers;
    bool more = page.more && q->head.what == RF_REGISTRY_LIST;
    reply(q, &out, more);
    if (!more) return RF_OK;
    set_after(q, names[page.n - 1]);
    return RF_ERR_AGAIN;
}

static rf_err_t show_events(registry_query_t *q, const uint8_t *body, size_t size)
{
    rf_client_registry_events_t page;
    Rackfish__RegistryEvent items[2 * PAGE_RECORDS_MAX], *pointers[2 * PAGE_RECORDS_MAX];
    char names[2 * PAGE_RECORDS_MAX][RF_CLIENT_REGISTRY_NAME_MAX + 1];
    if (size < sizeof page) return RF_ERR_PROTOCOL;
    memcpy(&page, body, sizeof page);
    if (page.n > 2 * PAGE_RECORDS_MAX) return RF_ERR_PROTOCOL;
    size_t at = sizeof page;
    for (uint32_t i = 0; i < page.n; i++) {
        rf_client_registry_event_t e;
        if (size - at < sizeof e) return RF_ERR_PROTOCOL;
        memcpy(&e, body + at, sizeof e);
        size_t wanted = PAD(sizeof e + e.name_size + e.value_size);
        if (e.name_size > RF_CLIENT_REGISTRY_NAME_MAX || size - at < wanted) return RF_ERR_PROTOCOL;
        rackfish__registry_event__init(&items[i]);
        items[i].what = (Rackfish__RegistryEvent__What)e.what;
        items[i].name = take_name(body + at + sizeof e, e.name_size, names[i]);
        items[i].value = (ProtobufCBinaryData){
            .len = e.value_size, .data = (uint8_t *)(uintptr_t)body + at + sizeof e + e.name_size};
        items[i].revision = e.revision;
        items[i].version = e.version;
        pointers[i] = &items[i];
        at += wanted;
    }
    Rackfish__RegistryReply out;
    rackfish__registry_reply__init(&out);
    out.n_events = page.n;
    out.events = pointers;
    out.next = q->head.number = page.next;
    out.missed = page.missed;
    reply(q, &out, true);
    return RF_ERR_AGAIN;
}

static void on_page(void *context, rf_err_t err, const void *body, size_t size)
{
    registry_query_t *q = context;
    bool watches = q->op == RF_CLIENT_REGISTRY_WATCH;
    if (err == RF_ERR_PEER_DEAD || (err == RF_ERR_TIMEOUT && !(q->head.flags & RF_REGISTRY_LINEARIZABLE))) {
        q->tried++;
        ask(q);
        return;
    }
    if (err == RF_OK) err = watches ? show_events(q, body, size) : show_entries(q, body, size);
    if (err == RF_OK)
        query_end(q);
    else if (err == RF_ERR_AGAIN)
        ask(q);
    else
        fail(q, err);
}

/* ---- changes ---- */

static void on_changed(void *context, rf_err_t err, const void *body, size_t size)
{
    registry_query_t *q = context;
    rf_client_registry_done_t done;
    char name[RF_CLIENT_REGISTRY_NAME_MAX + 1];
    if (err == RF_ERR_PEER_DEAD) err = RF_ERR_UNKNOWN_OUTCOME; /* the monitor's death says nothing of it */
    if (err == RF_OK && size < sizeof done) err = RF_ERR_PROTOCOL;
    if (err != RF_OK) {
        fail(q, err);
        return;
    }
    memcpy(&done, body, sizeof done);
    const uint8_t *bytes = (const uint8_t *)body + sizeof done;
    size -= sizeof done;
    Rackfish__RegistryReply out;
    rackfish__registry_reply__init(&out);
    out.revision = done.revision;
    if (q->head.what == RF_REGISTRY_POP)
        out.message = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)(uintptr_t)bytes};
    else if (size > 0 && size <= RF_CLIENT_REGISTRY_NAME_MAX)
        out.name = take_name(bytes, size, name);
    reply(q, &out, false);
    query_end(q);
}

static void change(registry_query_t *q, rf_local_core_t *core)
{
    size_t size = sizeof q->head + q->head.name_size + q->head.value_size + q->head.compare_size;
    rf_daemon_t *daemon = q->operation.client->daemon;
    rf_err_t err = RF_ERR_PEER_DEAD;
    while (core && err != RF_OK) {
        err = rf_monitor_call(core, &q->call, q->op, &q->head, size, NULL, 0, q->timeout_ns, on_changed, q);
        /* One that does not take it has not heard of it: another may, unless the connection's session is at this one. */
        if (err != RF_OK)
            core = q->head.session ? NULL : rf_monitor_first(daemon, (unsigned)(core - daemon->cores) + 1);
    }
    if (err != RF_OK) fail(q, err);
}

/* ---- changes that are repeated ---- */

static bool is_silence(rf_err_t err)
{
    return err == RF_ERR_PEER_DEAD || err == RF_ERR_TIMEOUT || err == RF_ERR_UNKNOWN_OUTCOME;
}

/* Says nothing of what came of it, or comes of a monitor that has not joined yet, or has no room (a full queue is BUSY). */
static bool is_no_answer(registry_query_t *q, rf_err_t err)
{
    q->unknown |= is_silence(err) && q->once.session != 0;
    return is_silence(err) || err == RF_ERR_AGAIN || err == RF_ERR_FORMING ||
           (q->unknown && (err == RF_ERR_NO_QUORUM || err == RF_ERR_LOST));
}

/* False: it has been tried for long enough. */
static bool try_again(registry_query_t *q, rf_timer_fn what)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    if (rf_clock_ns() >= q->until_ns) return false;
    q->tried++;
    rf_timer_set(&daemon->loop, &q->again, rf_clock_ns() + REPEAT_NS, what, q);
    return true;
}

/* The next living monitor; NULL: there is none now. */
static rf_local_core_t *next_monitor(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    rf_local_core_t *core = rf_monitor_first(daemon, q->tried);
    if (!core) core = rf_monitor_first(daemon, 0);
    if (core) q->tried = (unsigned)(core - daemon->cores);
    return core;
}

static void repeat(void *context);
static void change_once(void *context);

/* The session has ended: it was the oldest of too many. What was never without an answer has not been made, and is in another. */
static bool begin_again(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    if (daemon->once.id == q->once.session) daemon->once.id = 0;
    if (q->unknown) return false;
    q->once.session = 0;
    return try_again(q, change_once);
}

/* What the entry resulted in, also of an attempt that had no answer; other refusals are of the last attempt alone. */
static bool is_of_entry(rf_err_t err)
{
    return err == RF_OK || err == RF_ERR_BUSY || err == RF_ERR_EXISTS || err == RF_ERR_NOT_FOUND;
}

static void on_repeated(void *context, rf_err_t err, const void *body, size_t size)
{
    registry_query_t *q = context;
    if (is_no_answer(q, err) && try_again(q, repeat)) return;
    if (err == RF_ERR_SESSION && begin_again(q)) return;
    if (q->unknown && !is_of_entry(err)) err = RF_ERR_UNKNOWN_OUTCOME;
    if (err == RF_ERR_BUSY && q->head.what == RF_REGISTRY_PUSH) err = RF_ERR_AGAIN; /* full */
    on_changed(q, err, body, size);
}

static void repeat(void *context)
{
    registry_query_t *q = context;
    rf_local_core_t *core = next_monitor(q);
    size_t size =
        sizeof q->once + sizeof q->head + q->head.name_size + q->head.value_size + q->head.compare_size;
    rf_err_t err = core ? rf_monitor_call(core, &q->call, RF_CLIENT_REGISTRY_ONCE, &q->once, size, NULL, 0,
                                          RF_ANSWER_NS, on_repeated, q)
                        : RF_ERR_PEER_DEAD;
    if (err == RF_OK || try_again(q, repeat)) return; /* not asked, so nothing is unknown by that */
    fail(q, q->unknown ? RF_ERR_UNKNOWN_OUTCOME : err);
}

/* Of the session that is open. False: too many are outstanding. */
static bool number(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    uint64_t sequence = daemon->once.sequence + 1;
    if (daemon->once.outstanding[sequence % RF_ONCE_WINDOW] != 0) return false;
    daemon->once.outstanding[sequence % RF_ONCE_WINDOW] = daemon->once.sequence = sequence;
    q->once = (rf_client_once_t){.session = daemon->once.id, .sequence = sequence};
    return true;
}

static void on_once_opened(void *context, rf_err_t err, const void *body, size_t size)
{
    registry_query_t *q = context;
    rf_daemon_t *daemon = q->operation.client->daemon;
    rf_client_session_t session = {0};
    if (err == RF_OK && size >= sizeof session) memcpy(&session, body, sizeof session);
    if (daemon->once.id != 0 && session.session != 0) { /* another change was faster */
        rf_local_core_t *core = next_monitor(q);
        if (core) rf_monitor_tell(core, RF_CLIENT_ONCE_END, &session, sizeof session);
    } else if (session.session != 0) {
        daemon->once.id = session.session;
        daemon->once.sequence = 0;
        memset(daemon->once.outstanding, 0, sizeof daemon->once.outstanding);
    }
    if (daemon->once.id != 0)
        change_once(q);
    else if (!is_no_answer(q, err) || !try_again(q, change_once))
        fail(q, is_silence(err) ? RF_ERR_NO_QUORUM : err); /* nothing has been changed */
}

static void open_once(registry_query_t *q)
{
    rf_local_core_t *core = next_monitor(q);
    rf_err_t err = core ? rf_monitor_call(core, &q->call, RF_CLIENT_ONCE_OPEN, NULL, 0, NULL, 0, RF_ANSWER_NS,
                                          on_once_opened, q)
                        : RF_ERR_PEER_DEAD;
    if (err != RF_OK) on_once_opened(q, err == RF_ERR_BUSY ? RF_ERR_AGAIN : err, NULL, 0);
}

/* In the session of the log, which is opened if there is none. */
static void change_once(void *context)
{
    registry_query_t *q = context;
    if (q->until_ns == 0) q->until_ns = rf_clock_ns() + REPEATS_NS;
    if (q->operation.client->daemon->once.id == 0)
        open_once(q);
    else if (number(q))
        repeat(q);
    else if (!try_again(q, change_once))
        fail(q, RF_ERR_AGAIN);
}

/* ---- changes that are owned ---- */

static void on_opened(void *context, rf_err_t err, const void *body, size_t size)
{
    registry_query_t *q = context;
    rf_client_t *client = q->operation.client;
    rf_client_session_t session = {0};
    rf_local_core_t *core = &client->daemon->cores[q->tried];
    if (err == RF_OK && size < sizeof session) err = RF_ERR_PROTOCOL;
    if (err != RF_OK) {
        fail(q, err);
        return;
    }
    memcpy(&session, body, sizeof session);
    if (client->registry_core) { /* another request of the connection was faster */
        rf_monitor_tell(core, RF_CLIENT_SESSION_END, &session, sizeof session);
    } else {
        client->registry_core = core;
        client->registry_session = session.session;
    }
    q->head.session = client->registry_session;
    change(q, client->registry_core);
}

static void open_session(registry_query_t *q)
{
    rf_daemon_t *daemon = q->operation.client->daemon;
    rf_local_core_t *core = rf_monitor_first(daemon, 0);
    rf_err_t err = RF_ERR_PEER_DEAD;
    if (core) {
        q->tried = (unsigned)(core - daemon->cores);
        err = rf_monitor_call(core, &q->call, RF_CLIENT_SESSION_OPEN, NULL, 0, NULL, 0, RF_ANSWER_NS,
                              on_opened, q);
    }
    if (err != RF_OK) fail(q, err);
}

void rf_registry_once_end(rf_daemon_t *daemon)
{
    rf_client_session_t session = {.session = daemon->once.id};
    rf_local_core_t *core = session.session != 0 ? rf_monitor_first(daemon, 0) : NULL;
    if (core) rf_monitor_tell(core, RF_CLIENT_ONCE_END, &session, sizeof session);
    daemon->once.id = 0;
}

void rf_registry_client_end(rf_client_t *client)
{
    rf_client_session_t session = {.session = client->registry_session};
    if (client->registry_core && client->registry_core->link_up)
        rf_monitor_tell(client->registry_core, RF_CLIENT_SESSION_END, &session, sizeof session);
    client->registry_core = NULL;
}

/* ---- requests ---- */

static const struct {
    uint16_t op, what;
    bool owned, waits;
} whats[] = {
    [RACKFISH__REGISTRY_WHAT__REGISTRY_GET] = {RF_CLIENT_REGISTRY_READ, RF_REGISTRY_GET, false, false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_LIST] = {RF_CLIENT_REGISTRY_READ, RF_REGISTRY_LIST, false, false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_WATCH] = {RF_CLIENT_REGISTRY_WATCH, RF_REGISTRY_KEY, false, true},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_PUT] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_PUT, false, false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_DELETE] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_DELETE, false,
                                                  false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_CREATE] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_CREATE, false,
                                                  false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_ACQUIRE] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_ACQUIRE, true,
                                                   true},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_RELEASE] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_RELEASE, true,
                                                   false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_WAIT] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_WAIT, true, true},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_PUSH] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_PUSH, false, false},
    [RACKFISH__REGISTRY_WHAT__REGISTRY_POP] = {RF_CLIENT_REGISTRY_CHANGE, RF_REGISTRY_POP, true, true},
};

static rf_err_t decode(const rf_client_t *client, const Rackfish__RegistryRequest *r, registry_query_t *q)
{
    size_t name_size = strlen(r->name);
    if ((unsigned)r->what >= sizeof whats / sizeof whats[0] || (unsigned)r->kind >= RF_REGISTRY_KIND_QUEUE ||
        (unsigned)r->condition > RF_REGISTRY_IF_PRESENT || name_size > RF_CLIENT_REGISTRY_NAME_MAX ||
        r->value.len > RF_CLIENT_REGISTRY_VALUE_MAX || r->compare.len > RF_CLIENT_REGISTRY_VALUE_MAX ||
        name_size + r->value.len + r->compare.len > RF_CLIENT_REGISTRY_BYTES_MAX)
        return RF_ERR_INVALID;
    q->op = whats[r->what].op;
    q->timeout_ns = whats[r->what].waits ? 0 : RF_ANSWER_NS;
    bool changes = q->op == RF_CLIENT_REGISTRY_CHANGE;
    q->head = (rf_client_registry_t){
        .what = r->prefix && r->what == RACKFISH__REGISTRY_WHAT__REGISTRY_WATCH ? RF_REGISTRY_PREFIX
                                                                                : whats[r->what].what,
        .kind = (uint8_t)(r->kind + 1),
        .condition = (uint8_t)r->condition,
        .name_size = (uint16_t)name_size,
        .n = r->n,
        .number = r->number,
        .timeout_ns =
            r->timeout_ms == 0 || r->timeout_ms > UINT32_MAX ? UINT64_MAX : r->timeout_ms * RF_NS_PER_MS,
    };
    memcpy(q->bytes, r->name, name_size);
    memcpy(q->name, r->name, name_size);
    if (q->op == RF_CLIENT_REGISTRY_READ && r->linearizable) q->head.flags = RF_REGISTRY_LINEARIZABLE;
    if (q->op == RF_CLIENT_REGISTRY_READ) q->timeout_ns = r->linearizable ? 6 * RF_NS_PER_S : RF_ANSWER_NS;
    if (!changes) return RF_OK;
    q->head.flags =
        (uint16_t)((r->ephemeral ? RF_REGISTRY_EPHEMERAL : 0) | (r->sequential ? RF_REGISTRY_SEQUENTIAL : 0) |
                   (r->try_ ? RF_REGISTRY_TRY : 0));
    q->head.value_size = (uint16_t)r->value.len;
    q->head.compare_size = (uint16_t)r->compare.len;
    if (r->value.len > 0) memcpy(q->bytes + name_size, r->value.data, r->value.len);
    if (r->compare.len > 0) memcpy(q->bytes + name_size + r->value.len, r->compare.data, r->compare.len);
    snprintf(q->head.user, sizeof q->head.user, "%.31s", client->user);
    return r->sequence != 0 && r->sequence <= client->registry_sequence ? RF_ERR_SESSION : RF_OK;
}

void rf_query_registry(rf_client_t *client, uint64_t id, const Rackfish__RegistryRequest *request)
{
    registry_query_t *q = rf_operation_new(client, id, sizeof *q, query_cancel);
    if (!q) return;
    rf_err_t err = decode(client, request, q);
    if (err != RF_OK) {
        fail(q, err);
        return;
    }
    if (q->op != RF_CLIENT_REGISTRY_CHANGE) {
        ask(q);
        return;
    }
    if (request->sequence != 0) client->registry_sequence = request->sequence;
    bool owned = whats[request->what].owned || request->ephemeral;
    q->head.session = client->registry_session;
    if (client->registry_core)
        change(q, client->registry_core);
    else if (owned)
        open_session(q);
    else
        change_once(q);
}
