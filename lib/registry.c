/* Keys of the registry: changes, reads and watches, as requests to the monitor of this core (wire/client.h). */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(RF_REGISTRY_NAME_MAX == RF_CLIENT_REGISTRY_NAME_MAX &&
                   RF_REGISTRY_VALUE_MAX == RF_CLIENT_REGISTRY_VALUE_MAX &&
                   RF_REGISTRY_CAS_MAX + RF_REGISTRY_NAME_MAX <= RF_CLIENT_REGISTRY_BYTES_MAX,
               "the public maxima are the wire's");
_Static_assert((int)RF_REGISTRY_EXPIRED == (int)RF_REGISTRY_EVENT_EXPIRED, "public events are the wire's");

#define PAD(n) (((n) + 7) & ~(size_t)7)

rf_err_t rf_lib_registry_encode(lib_registry_request_t *out, const rf_client_registry_t *head,
                                const char *name, const void *value, size_t size, const void *compare,
                                size_t compare_size)
{
    size_t name_size = name ? strlen(name) : 0;
    if (name_size > RF_REGISTRY_NAME_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "names have at most %d bytes", RF_REGISTRY_NAME_MAX);
    if (size > RF_REGISTRY_VALUE_MAX || compare_size > RF_REGISTRY_VALUE_MAX ||
        size + compare_size > RF_REGISTRY_CAS_MAX)
        return rf_lib_fail(RF_ERR_INVALID,
                           "values and messages have at most %d bytes, both of a comparison %d",
                           RF_REGISTRY_VALUE_MAX, RF_REGISTRY_CAS_MAX);
    out->head = *head;
    out->head.name_size = (uint16_t)name_size;
    out->head.value_size = (uint16_t)size;
    out->head.compare_size = (uint16_t)compare_size;
    if (name_size > 0) memcpy(out->bytes, name, name_size);
    if (size > 0) memcpy(out->bytes + name_size, value, size);
    if (compare_size > 0) memcpy(out->bytes + name_size + size, compare, compare_size);
    out->size = sizeof out->head + name_size + size + compare_size;
    return RF_OK;
}

/* A change and its answer; `made` (may be NULL): the name in sequence. */
static rf_err_t change(const rf_client_registry_t *head, const char *name, const void *value, size_t size,
                       const void *compare, size_t compare_size, uint64_t *revision, char *made,
                       uint64_t deadline_ns)
{
    lib_registry_request_t request;
    struct {
        rf_client_registry_done_t head;
        char name[RF_REGISTRY_VALUE_MAX];
    } reply;
    size_t got;
    rf_err_t err = rf_lib_registry_encode(&request, head, name, value, size, compare, compare_size);
    if (err == RF_OK)
        err = rf_lib_request(&rf_me.client, RF_CLIENT_REGISTRY_CHANGE, &request.head, request.size, &reply,
                             sizeof reply.head, sizeof reply, &got, NULL, deadline_ns);
    if (err != RF_OK) return err;
    size_t name_size = got - sizeof reply.head;
    if (made && (name_size == 0 || name_size > RF_REGISTRY_NAME_MAX))
        return rf_lib_fail(RF_ERR_PROTOCOL, "the monitor's answer has no name");
    if (made) snprintf(made, RF_REGISTRY_NAME_MAX + 1, "%.*s", (int)name_size, reply.name);
    if (revision) *revision = reply.head.revision;
    return RF_OK;
}

rf_err_t rf_lib_registry_change(const rf_client_registry_t *head, const char *name, const void *value,
                                size_t size, uint64_t deadline_ns)
{
    return change(head, name, value, size, NULL, 0, NULL, NULL, deadline_ns);
}

rf_err_t rf_registry_put(const char *name, const void *value, size_t size, unsigned flags, uint64_t *revision,
                         uint64_t deadline_ns)
{
    if (flags & ~(unsigned)(RF_REGISTRY_PUT_EPHEMERAL | RF_REGISTRY_PUT_NEW))
        return rf_lib_fail(RF_ERR_INVALID, "rf_registry_put: unknown flags");
    rf_client_registry_t head = {.what = RF_REGISTRY_PUT, .kind = RF_REGISTRY_KIND_KEY};
    if (flags & RF_REGISTRY_PUT_EPHEMERAL) head.flags = RF_REGISTRY_EPHEMERAL;
    if (flags & RF_REGISTRY_PUT_NEW) head.condition = RF_REGISTRY_IF_ABSENT;
    return change(&head, name, value, size, NULL, 0, revision, NULL, deadline_ns);
}

rf_err_t rf_registry_put_sequential(const char *base, const void *value, size_t size, unsigned flags,
                                    char *made, uint64_t *revision, uint64_t deadline_ns)
{
    if (flags & ~(unsigned)RF_REGISTRY_PUT_EPHEMERAL)
        return rf_lib_fail(RF_ERR_INVALID, "rf_registry_put_sequential: unknown flags");
    rf_client_registry_t head = {
        .what = RF_REGISTRY_PUT, .kind = RF_REGISTRY_KIND_KEY, .flags = RF_REGISTRY_SEQUENTIAL};
    if (flags & RF_REGISTRY_PUT_EPHEMERAL) head.flags |= RF_REGISTRY_EPHEMERAL;
    return change(&head, base, value, size, NULL, 0, revision, made, deadline_ns);
}

rf_err_t rf_registry_cas(const char *name, uint64_t expected, const void *value, size_t size,
                         uint64_t *revision, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_PUT,
                                 .kind = RF_REGISTRY_KIND_KEY,
                                 .condition = RF_REGISTRY_IF_REVISION,
                                 .number = expected};
    return change(&head, name, value, size, NULL, 0, revision, NULL, deadline_ns);
}

rf_err_t rf_registry_cas_value(const char *name, const void *expected, size_t expected_size,
                               const void *value, size_t size, uint64_t *revision, uint64_t deadline_ns)
{
    rf_client_registry_t head = {
        .what = RF_REGISTRY_PUT, .kind = RF_REGISTRY_KIND_KEY, .condition = RF_REGISTRY_IF_VALUE};
    return change(&head, name, value, size, expected, expected_size, revision, NULL, deadline_ns);
}

rf_err_t rf_registry_delete(const char *name, uint64_t expected, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_DELETE,
                                 .kind = RF_REGISTRY_KIND_KEY,
                                 .condition = expected ? RF_REGISTRY_IF_REVISION : RF_REGISTRY_ALWAYS,
                                 .number = expected};
    return change(&head, name, NULL, 0, NULL, 0, NULL, NULL, deadline_ns);
}

/* ---- reading ---- */

typedef struct page {
    size_t size, at; /* at: of the next entry */
    unsigned left;
    bool more;
    uint8_t bytes[RF_MESSAGE_MAX - sizeof(rf_wire_header_t)];
} page_t;

static rf_err_t nonsense(void)
{
    return rf_lib_fail(RF_ERR_PROTOCOL, "the monitor's answer about the registry makes no sense");
}

static rf_err_t ask(const rf_client_registry_t *head, const char *name, const char *after, page_t *page,
                    uint64_t deadline_ns)
{
    lib_registry_request_t request;
    rf_client_registry_page_t about;
    rf_err_t err = rf_lib_registry_encode(&request, head, name, after, after ? strlen(after) : 0, NULL, 0);
    if (err == RF_OK)
        err = rf_lib_request(&rf_me.client, RF_CLIENT_REGISTRY_READ, &request.head, request.size, page->bytes,
                             sizeof about, sizeof page->bytes, &page->size, NULL, deadline_ns);
    if (err != RF_OK) return err;
    memcpy(&about, page->bytes, sizeof about);
    page->at = sizeof about;
    page->left = about.n;
    page->more = about.more;
    return about.more && about.n == 0 ? nonsense() : RF_OK;
}

/* The next entry of a page, with its value inside the page. */
static rf_err_t next_entry(page_t *page, rf_registry_entry_t *out, const uint8_t **value)
{
    rf_client_registry_entry_t e;
    if (page->size - page->at < sizeof e) return nonsense();
    memcpy(&e, page->bytes + page->at, sizeof e);
    const uint8_t *name = page->bytes + page->at + sizeof e;
    size_t wanted = PAD(sizeof e + e.name_size + e.value_size);
    if (e.name_size > RF_REGISTRY_NAME_MAX || e.value_size > RF_REGISTRY_VALUE_MAX ||
        page->size - page->at < wanted)
        return nonsense();
    *out = (rf_registry_entry_t){.created = e.created,
                                 .revision = e.revision,
                                 .version = e.version,
                                 .size = e.value_size,
                                 .ephemeral = e.ephemeral,
                                 .domain = e.domain,
                                 .index = (uint16_t)(e.domain != RF_DOMAIN_NONE ? e.session : 0)};
    memcpy(out->name, name, e.name_size);
    snprintf(out->user, sizeof out->user, "%.*s", (int)sizeof e.user, e.user);
    if (value) *value = name + e.name_size;
    page->at += wanted;
    page->left--;
    return RF_OK;
}

static uint16_t read_flags(rf_read_t read)
{
    return read == RF_READ_LINEARIZABLE ? RF_REGISTRY_LINEARIZABLE : 0;
}

rf_err_t rf_registry_get(const char *name, rf_read_t read, rf_registry_entry_t *entry, void *value,
                         size_t max, uint64_t deadline_ns)
{
    rf_client_registry_t head = {
        .what = RF_REGISTRY_GET, .kind = RF_REGISTRY_KIND_KEY, .flags = read_flags(read)};
    page_t page;
    rf_registry_entry_t found;
    const uint8_t *bytes;
    rf_err_t err = ask(&head, name, NULL, &page, deadline_ns);
    if (err == RF_OK && page.left == 0) return RF_ERR_NOT_FOUND;
    if (err == RF_OK) err = next_entry(&page, &found, &bytes);
    if (err != RF_OK) return err;
    if (found.size > max) return rf_lib_fail(RF_ERR_TRUNCATED, "the value has %zu bytes", found.size);
    if (found.size > 0) memcpy(value, bytes, found.size);
    if (entry) *entry = found;
    return RF_OK;
}

rf_err_t rf_registry_list(const char *prefix, const char *after, rf_read_t read, rf_registry_entry_t *rows,
                          unsigned max, unsigned *n_out, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_LIST,
                                 .kind = RF_REGISTRY_KIND_KEY,
                                 .flags = (uint16_t)(read_flags(read) | RF_REGISTRY_NAMES_ONLY)};
    unsigned n = 0;
    for (bool more = true; more && n < max;) {
        page_t page;
        rf_err_t err = ask(&head, prefix, n > 0 ? rows[n - 1].name : after, &page, deadline_ns);
        for (; err == RF_OK && page.left > 0 && n < max; n++) err = next_entry(&page, &rows[n], NULL);
        if (err != RF_OK) return err;
        more = page.more;
    }
    *n_out = n;
    return RF_OK;
}

/* ---- watching ---- */

/*
 * One request to the monitor is always outstanding, unless events lie here that were not taken yet:
 *
 *   ASKING    the request waits at the monitor for events
 *      |  its reply is in `page`
 *   HOLDING   events are handed out; when none is left, and the next is asked for: ASKING, from where the reply said
 */
struct rf_registry_watch {
    lib_request_t *request; /* NULL: HOLDING */
    rf_client_registry_t head;
    char name[RF_REGISTRY_NAME_MAX + 1];
    rf_err_t err;  /* of the last request, told once */
    unsigned left; /* events in `page` from `at` on */
    bool missed;
    size_t at;
    uint8_t page[RF_MESSAGE_MAX - sizeof(rf_wire_header_t)];
    rf_registry_watch_t *next;
};

static rf_err_t watch_ask(rf_registry_watch_t *w)
{
    lib_registry_request_t request;
    rf_err_t err = rf_lib_registry_encode(&request, &w->head, w->name, NULL, 0, NULL, 0);
    if (err == RF_OK)
        err = rf_lib_request_start(&rf_me.client, RF_CLIENT_REGISTRY_WATCH, &request.head, request.size, NULL,
                                   0, w->page, sizeof w->page, &w->request);
    return err;
}

rf_err_t rf_registry_watch(const char *name, unsigned flags, uint64_t from, rf_registry_watch_t **out)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "rf_registry_watch: call rf_init() first");
    if ((flags & ~(unsigned)RF_REGISTRY_WATCH_PREFIX) != 0 || strlen(name) > RF_REGISTRY_NAME_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "rf_registry_watch: unknown flags, or a name that is too long");
    if (rf_me.n_watches == RF_REGISTRY_WATCHES_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "%d watches exist already", RF_REGISTRY_WATCHES_MAX);
    rf_registry_watch_t *w = calloc(1, sizeof *w);
    if (!w) return RF_ERR_NO_MEMORY;
    w->head = (rf_client_registry_t){
        .what = flags & RF_REGISTRY_WATCH_PREFIX ? RF_REGISTRY_PREFIX : RF_REGISTRY_KEY,
        .number = from,
        .timeout_ns = UINT64_MAX,
    };
    snprintf(w->name, sizeof w->name, "%s", name);
    rf_err_t err = watch_ask(w);
    if (err != RF_OK) {
        free(w);
        return err;
    }
    w->next = rf_me.watches;
    rf_me.watches = w;
    rf_me.n_watches++;
    *out = w;
    return RF_OK;
}

void rf_registry_watch_close(rf_registry_watch_t *w)
{
    if (!w) return;
    rf_lib_waitsets_forget(w);
    if (w->request && !w->request->done) {
        rf_client_target_t target = {.domain = w->request->tag};
        (void)rf_lib_tell(&rf_me.client, RF_CLIENT_CANCEL, &target, sizeof target);
    }
    if (w->request) rf_lib_request_free(w->request);
    for (rf_registry_watch_t **at = &rf_me.watches; *at; at = &(*at)->next) {
        if (*at != w) continue;
        *at = w->next;
        rf_me.n_watches--;
        break;
    }
    free(w);
}

void rf_lib_watches_stop(void)
{
    while (rf_me.watches) rf_registry_watch_close(rf_me.watches);
}

static void watch_take(rf_registry_watch_t *w)
{
    rf_client_registry_events_t about = {0};
    w->err = w->request->err;
    size_t size = w->request->out_size;
    rf_lib_request_free(w->request);
    w->request = NULL;
    w->left = 0;
    w->missed = false;
    if (w->err == RF_OK && size < sizeof about) w->err = nonsense();
    if (w->err != RF_OK) return;
    memcpy(&about, w->page, sizeof about);
    memset(w->page + size, 0, sizeof w->page - size);
    w->left = about.n;
    w->missed = about.missed;
    w->at = sizeof about;
    w->head.number = about.next;
}

bool rf_registry_watch_ready(rf_registry_watch_t *w)
{
    if (!w->request && w->err == RF_OK && w->left == 0 && !w->missed) {
        rf_err_t err = watch_ask(w);
        if (err == RF_ERR_AGAIN) return false;
        w->err = err;
    }
    if (w->request && w->request->done) watch_take(w);
    return !w->request;
}

static rf_err_t next_event(rf_registry_watch_t *w, rf_registry_event_t *out)
{
    rf_client_registry_event_t e;
    if (sizeof w->page - w->at < sizeof e) return nonsense();
    memcpy(&e, w->page + w->at, sizeof e);
    size_t wanted = PAD(sizeof e + e.name_size + e.value_size);
    if (e.name_size > RF_REGISTRY_NAME_MAX || e.value_size > RF_REGISTRY_VALUE_MAX ||
        sizeof w->page - w->at < wanted || e.what < RF_REGISTRY_EVENT_PUT ||
        e.what > RF_REGISTRY_EVENT_EXPIRED)
        return nonsense();
    const uint8_t *name = w->page + w->at + sizeof e;
    out->what = (rf_registry_event_what_t)e.what;
    out->revision = e.revision;
    out->version = e.version;
    out->size = e.value_size;
    memset(out->name, 0, sizeof out->name);
    memcpy(out->name, name, e.name_size);
    memcpy(out->value, name + e.name_size, e.value_size);
    w->at += wanted;
    w->left--;
    return RF_OK;
}

static bool watch_ready(void *context)
{
    return rf_registry_watch_ready(context);
}

rf_err_t rf_registry_watch_next(rf_registry_watch_t *w, rf_registry_event_t *event, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_block(&(lib_wait_t){watch_ready, NULL, w}, deadline_ns);
    if (err != RF_OK) return err;
    if (w->err != RF_OK) {
        err = w->err;
        w->err = RF_OK;
    } else if (w->missed) {
        w->missed = false;
        *event = (rf_registry_event_t){.what = RF_REGISTRY_MISSED, .revision = w->head.number};
    } else {
        err = next_event(w, event);
        if (err != RF_OK) w->left = 0;
    }
    return err;
}
