#include "asks.h"

#include <string.h>

rf_client_registry_t ask_body(uint16_t what, uint8_t kind)
{
    return (rf_client_registry_t){.what = what, .kind = kind, .timeout_ns = UINT64_MAX, .user = "somebody"};
}

rf_client_registry_t ask_ephemeral(uint64_t session)
{
    rf_client_registry_t body = ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY);
    body.flags = RF_REGISTRY_EPHEMERAL;
    body.session = session;
    return body;
}

uint32_t ask_send(world_t *w, test_client_t *c, uint16_t op, rf_client_registry_t body, const char *name,
                  const char *value)
{
    uint8_t bytes[4000];
    body.name_size = (uint16_t)strlen(name);
    body.value_size = (uint16_t)strlen(value);
    memcpy(bytes, &body, sizeof body);
    memcpy(bytes + sizeof body, name, body.name_size);
    memcpy(bytes + sizeof body + body.name_size, value, body.value_size);
    return world_send(w, c, op, bytes, sizeof body + body.name_size + body.value_size, 0);
}

bool ask_fetch(const test_client_t *c, uint32_t tag, answer_t *out)
{
    const message_t *m = world_reply(c, tag);
    if (!m) return false;
    *out = (answer_t){.err = (rf_err_t)m->header.err};
    size_t head = m->size < sizeof out->done ? m->size : sizeof out->done;
    memcpy(&out->done, m->body, head);
    out->size = m->size - head;
    memcpy(out->bytes, m->body + head, out->size);
    return true;
}

answer_t ask_change(world_t *w, test_client_t *c, rf_client_registry_t body, const char *name,
                    const char *value)
{
    answer_t out;
    uint32_t tag = ask_send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, name, value);
    world_settle(w);
    rf_assert(ask_fetch(c, tag, &out));
    return out;
}

rf_err_t ask_put(world_t *w, test_client_t *c, const char *name, const char *value)
{
    return ask_change(w, c, ask_body(RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY), name, value).err;
}

unsigned ask_look(world_t *w, test_client_t *c, uint16_t what, uint8_t kind, uint16_t flags, const char *name,
                  rf_client_registry_entry_t *entry, char *value)
{
    rf_client_registry_t body = ask_body(what, kind);
    rf_client_registry_page_t page;
    rf_client_registry_entry_t e;
    body.flags = flags;
    uint32_t tag = ask_send(w, c, RF_CLIENT_REGISTRY_READ, body, name, "");
    world_settle(w);
    const message_t *m = world_reply(c, tag);
    rf_assert(m && m->header.err == RF_OK);
    memcpy(&page, m->body, sizeof page);
    if (page.n == 0) return 0;
    memcpy(&e, m->body + sizeof page, sizeof e);
    if (entry) *entry = e;
    if (value) {
        memcpy(value, m->body + sizeof page + sizeof e + e.name_size, e.value_size);
        value[e.value_size] = 0;
    }
    return page.n;
}

uint32_t ask_acquire(world_t *w, test_client_t *c, const char *name, uint64_t timeout_ns)
{
    rf_client_registry_t body = ask_body(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK);
    body.timeout_ns = timeout_ns;
    uint32_t tag = ask_send(w, c, RF_CLIENT_REGISTRY_CHANGE, body, name, "");
    world_settle(w);
    return tag;
}

uint32_t ask_send_once(world_t *w, test_client_t *c, rf_client_once_t once, rf_client_registry_t body,
                       const char *name, const char *value)
{
    uint8_t bytes[4000];
    body.name_size = (uint16_t)strlen(name);
    body.value_size = (uint16_t)strlen(value);
    memcpy(bytes, &once, sizeof once);
    memcpy(bytes + sizeof once, &body, sizeof body);
    memcpy(bytes + sizeof once + sizeof body, name, body.name_size);
    memcpy(bytes + sizeof once + sizeof body + body.name_size, value, body.value_size);
    return world_send(w, c, RF_CLIENT_REGISTRY_ONCE, bytes,
                      sizeof once + sizeof body + body.name_size + body.value_size, 0);
}

answer_t ask_change_once(world_t *w, test_client_t *c, rf_client_once_t once, rf_client_registry_t body,
                         const char *name, const char *value)
{
    answer_t out;
    uint32_t tag = ask_send_once(w, c, once, body, name, value);
    world_settle(w);
    rf_assert(ask_fetch(c, tag, &out));
    return out;
}
