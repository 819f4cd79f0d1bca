/*
 * Reading the registry and watching it. A local read is answered at once from this core's replica; a linearizable one when
 * the replica holds all that was committed when it was asked (agree_read). A watch is a question for the events from a
 * revision on; it is answered when there are some, and says where to go on, so that any monitor can answer the next one,
 * and a slow watcher costs nothing.
 */
#include "monitor/state.h"

#define PAGE_MAX (4096 - sizeof(rf_wire_header_t))
#define PAD(n)   (((n) + 7) & ~(size_t)7)

_Static_assert((int)RF_REGISTRY_EVENT_EXPIRED == (int)REGISTRY_EVENT_EXPIRED,
               "the client link's numbers are the registry's");
_Static_assert(sizeof(rf_client_registry_entry_t) + REGISTRY_NAME_MAX + REGISTRY_VALUE_MAX + 64 < PAGE_MAX,
               "a page has room");

/* ---- reading ---- */

typedef struct page {
    size_t used;
    uint8_t bytes[PAGE_MAX];
} page_t;

static bool page_add(page_t *p, const void *head, size_t head_size, const void *name, size_t name_size,
                     const void *value, size_t value_size)
{
    size_t wanted = PAD(head_size + name_size + value_size);
    if (p->used + wanted > sizeof p->bytes) return false;
    uint8_t *at = p->bytes + p->used;
    memset(at + wanted - (wanted < 8 ? wanted : 8), 0, wanted < 8 ? wanted : 8);
    memcpy(at, head, head_size);
    memcpy(at + head_size, name, name_size);
    if (value_size > 0) memcpy(at + head_size + name_size, value, value_size);
    p->used += wanted;
    return true;
}

static bool add_entry(const monitor_t *m, page_t *p, const registry_entry_t *e, bool with_value)
{
    uint8_t value[REGISTRY_VALUE_MAX];
    rf_client_registry_entry_t out = {.kind = (uint8_t)e->kind,
                                      .ephemeral = e->ephemeral,
                                      .name_size = e->name_size,
                                      .value_size = with_value ? (uint16_t)e->value_size : 0,
                                      .n = e->n,
                                      .used = e->used,
                                      .waiting = e->waiting,
                                      .created = e->created,
                                      .revision = e->revision,
                                      .version = e->version,
                                      .domain = e->domain,
                                      .session = e->session};
    memcpy(out.user, e->user, sizeof out.user);
    if (out.value_size > 0) registry_value(m->registry, e, value);
    return page_add(p, &out, sizeof out, e->name, e->name_size, value, out.value_size);
}

static void fill(const monitor_t *m, const op_t *op, page_t *p)
{
    rf_client_registry_page_t head = {.revision = registry_revision(m->registry)};
    registry_kind_t kind = (registry_kind_t)op->read.kind;
    bool with_value = kind == REGISTRY_KEY && !(op->read.flags & RF_REGISTRY_NAMES_ONLY);
    registry_entry_t e;
    p->used = sizeof head;
    if (op->read.what == RF_REGISTRY_GET) {
        if (registry_get(m->registry, kind, op->read.name, op->read.name_size, &e))
            head.n = add_entry(m, p, &e, with_value);
    } else {
        char from[REGISTRY_NAME_MAX + 1];
        size_t size = op->read.from_size;
        memcpy(from, op->read.from, size);
        if (size > 0) from[size++] = 0; /* behind it */
        while (registry_next(m->registry, kind, op->read.name, op->read.name_size, from, size, &e)) {
            if (!add_entry(m, p, &e, with_value)) {
                head.more = 1;
                break;
            }
            head.n++;
            size = e.name_size + 1u;
            memcpy(from, e.name, size);
        }
    }
    memcpy(p->bytes, &head, sizeof head);
}

static rf_err_t check_read(const rf_client_registry_t *body, size_t size)
{
    bool get = body->what == RF_REGISTRY_GET;
    if ((!get && body->what != RF_REGISTRY_LIST) || body->name_size > REGISTRY_NAME_MAX ||
        body->value_size > (get ? 0 : REGISTRY_NAME_MAX) || body->compare_size > 0 || body->kind == 0 ||
        body->kind >= REGISTRY_KINDS ||
        (body->flags & ~(RF_REGISTRY_LINEARIZABLE | RF_REGISTRY_NAMES_ONLY)) != 0 ||
        size != sizeof *body + body->name_size + body->value_size)
        return RF_ERR_INVALID;
    return RF_OK;
}

/* Takes down what is asked for: also for those that are answered at once. */
static void note(op_t *op, const rf_client_registry_t *body)
{
    op->read.what = body->what;
    op->read.flags = body->flags;
    op->read.kind = body->kind;
    op->read.name_size = body->name_size;
    op->read.from_size = body->value_size;
    memcpy(op->read.name, body + 1, body->name_size);
    memcpy(op->read.from, (const uint8_t *)(body + 1) + body->name_size, body->value_size);
}

static void readable(monitor_t *m, op_t *op, rf_err_t err)
{
    page_t page;
    if (err == RF_OK) fill(m, op, &page);
    op_reply(m, op, err, page.bytes, err == RF_OK ? page.used : 0);
}

void registry_read(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_registry_t *body, size_t size)
{
    rf_err_t err = check_read(body, size);
    if (err == RF_OK && !m->formed) err = RF_ERR_FORMING;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_READ, client, request, m->now_ns + REQUEST_NS);
    if (!op) return;
    note(op, body);
    if ((body->flags & RF_REGISTRY_LINEARIZABLE) && !(m->defects & MONITOR_DEFECT_READ_STALE))
        agree_read(m, op);
    else
        readable(m, op, RF_OK);
}

/* ---- watching ---- */

/* Answers with what there is from op->read.next on; false: nothing yet, and op->read.next moves on. */
static bool tell(monitor_t *m, op_t *op)
{
    page_t page = {.used = sizeof(rf_client_registry_events_t)};
    rf_client_registry_events_t head = {.next = op->read.next};
    uint64_t first = registry_events_first(m->registry);
    bool exact = op->read.what == RF_REGISTRY_KEY;
    if (head.next < first) {
        head.missed = !(m->defects & MONITOR_DEFECT_WATCH_GAP);
        head.next = first;
    }
    registry_event_t e;
    while (!head.missed &&
           registry_event(m->registry, head.next, op->read.name, op->read.name_size, exact, &e, NULL)) {
        rf_client_registry_event_t out = {.revision = e.revision,
                                          .version = e.version,
                                          .what = (uint16_t)e.what,
                                          .name_size = e.name_size,
                                          .value_size = e.value_size};
        if (!page_add(&page, &out, sizeof out, e.name, e.name_size, e.value, e.value_size)) break;
        head.n++;
        head.next = e.revision + 1;
    }
    if (head.n == 0 && !head.missed) {
        uint64_t behind = registry_revision(m->registry) + 1;
        if (op->read.next < behind) op->read.next = behind;
        return false;
    }
    memcpy(page.bytes, &head, sizeof head);
    op_reply(m, op, RF_OK, page.bytes, page.used);
    return true;
}

void registry_watch(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                    const rf_client_registry_t *body, size_t size)
{
    bool valid = (body->what == RF_REGISTRY_KEY || body->what == RF_REGISTRY_PREFIX) &&
                 body->name_size <= REGISTRY_NAME_MAX && body->value_size == 0 && body->compare_size == 0 &&
                 body->flags == 0 && size == sizeof *body + body->name_size;
    rf_err_t err = !valid ? RF_ERR_INVALID : m->formed ? RF_OK : RF_ERR_FORMING;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    bool bounded = body->timeout_ns < RF_NEVER - m->now_ns;
    op_t *op =
        op_begin_for_client(m, OP_WATCH, client, request, bounded ? m->now_ns + body->timeout_ns : RF_NEVER);
    if (!op) return;
    m->n_watches++;
    note(op, body);
    op->read.next = body->number != 0 ? body->number : registry_revision(m->registry) + 1;
    tell(m, op);
}

void registry_watches_deliver(monitor_t *m)
{
    uint64_t revision = registry_revision(m->registry);
    if (revision == m->registry_watched) return;
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_watches > 0; i++) {
        op_t *op = &m->ops[i];
        if (op->kind != OP_WATCH) continue;
        if (out_is_nearly_full(m)) {
            m->out->more = true;
            return;
        }
        tell(m, op);
    }
    m->registry_watched = revision;
}

static void timeout(monitor_t *m, op_t *op)
{
    op_reply(m, op, RF_ERR_TIMEOUT, NULL, 0);
}

static void client_went(monitor_t *m, op_t *op, uint32_t client)
{
    if (op->client == client) op_end(m, op);
}

const op_class_t op_read_class = {
    .name = "read", .readable = readable, .timeout = timeout, .client_gone = client_went};
const op_class_t op_watch_class = {.name = "watch", .timeout = timeout, .client_gone = client_went};
