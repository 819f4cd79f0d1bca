/* The clients of a world, and short ways to ask. */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

static test_client_t *client_new(world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    uint32_t handle =
        w->handle_next[core]++; /* never the same again: the end of the last may still be under way */
    rf_assert(handle < MONITOR_CLIENTS_MAX);
    for (unsigned i = 0; i < 128; i++) {
        test_client_t *c = &w->clients[i];
        if (c->used) continue;
        *c = (test_client_t){.used = true, .core = core, .handle = handle, .domain = domain, .index = index};
        return c;
    }
    rf_assert(!"too many clients");
    return NULL;
}

test_client_t *world_node_client(world_t *w, rf_core_t core)
{
    test_client_t *c = client_new(w, core, RF_DOMAIN_NONE, 0);
    world_push(w, core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_UP, NULL, 0)->client = c->handle;
    world_settle(w);
    return c;
}

test_client_t *world_dispatcher_client(world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    rf_assert(fake_dispatcher(&w->fake, core, domain, index));
    test_client_t *c = client_new(w, core, domain, index);
    rf_kernel_fds_t head = {.op = RF_KERNEL_EVENT_STARTED, .key = domain << 16 | index};
    monitor_event_t *event = world_push(w, core, CHANNEL_KERNEL, MONITOR_KERNEL_FDS, &head, sizeof head);
    event->fds[event->n_fds++] = fake_fd_new(&w->fake);
    world_settle(w);
    return c;
}

void world_client_leave(world_t *w, test_client_t *c)
{
    if (c->gone) return;
    c->gone = true;
    world_push(w, c->core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_GONE, NULL, 0)->client = c->handle;
}

void world_forget_inbox(test_client_t *c)
{
    for (unsigned i = 0; i < c->n_inbox; i++) free(c->inbox[i]);
    c->n_inbox = 0;
}

uint32_t world_send(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, unsigned n_fds)
{
    uint8_t bytes[4096];
    rf_wire_header_t header = {.tag = ++w->tag_next, .op = op};
    if (n_fds > 0) {
        rf_client_fds_t head = {.tag = header.tag, .op = op};
        monitor_event_t *event =
            world_push(w, c->core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_FDS, &head, sizeof head);
        event->client = c->handle;
        for (unsigned i = 0; i < n_fds; i++) event->fds[event->n_fds++] = fake_fd_new(&w->fake);
    }
    memcpy(bytes, &header, sizeof header);
    if (size > 0) memcpy(bytes + sizeof header, body, size);
    monitor_event_t *event = world_push(w, c->core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_MESSAGE, bytes,
                                        sizeof header + size);
    event->client = c->handle;
    event->type = RF_CLIENT_REQUEST;
    return header.tag;
}

const message_t *world_reply(const test_client_t *c, uint32_t tag)
{
    for (unsigned i = 0; i < c->n_inbox; i++) {
        if (c->inbox[i]->type == RF_CLIENT_REPLY && c->inbox[i]->header.tag == tag) return c->inbox[i];
    }
    return NULL;
}

const message_t *world_event(const test_client_t *c, uint16_t op, unsigned *from)
{
    for (; *from < c->n_inbox; (*from)++) {
        if (c->inbox[*from]->type == RF_CLIENT_EVENT && c->inbox[*from]->header.op == op)
            return c->inbox[(*from)++];
    }
    return NULL;
}

/* Waits for a reply, first without time passing, then with at most `ns`. */
static const message_t *await_reply(world_t *w, test_client_t *c, uint32_t tag, uint64_t ns)
{
    const uint64_t until = w->now_ns + ns;
    world_settle(w);
    while (!world_reply(c, tag) && w->now_ns < until && !c->gone) world_pass(w, RF_NS_PER_MS);
    return world_reply(c, tag);
}

rf_err_t world_ask(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, void *out,
                   size_t out_size)
{
    return world_ask_for(w, c, op, body, size, out, out_size, 20 * RF_NS_PER_S);
}

rf_err_t world_ask_for(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, void *out,
                       size_t out_size, uint64_t ns)
{
    uint32_t tag = world_send(w, c, op, body, size, 0);
    const message_t *m = await_reply(w, c, tag, ns);
    rf_assert(m);
    if (out_size > 0) {
        memset(out, 0, out_size);
        memcpy(out, m->body, m->size < out_size ? m->size : out_size);
    }
    return (rf_err_t)m->header.err;
}

rf_err_t world_spawn(world_t *w, test_client_t *c, rf_core_t core, rf_domain_t *domain)
{
    rf_client_spawn_t body = {.core = core, .n_fds = 1};
    rf_client_spawned_t out = {0};
    uint32_t tag = world_send(w, c, RF_CLIENT_SPAWN, &body, sizeof body, 1);
    const message_t *m = await_reply(w, c, tag, 20 * RF_NS_PER_S);
    rf_assert(m);
    memcpy(&out, m->body, sizeof out);
    if (domain) *domain = out.domain;
    return (rf_err_t)m->header.err;
}

rf_err_t world_name(world_t *w, test_client_t *c, uint16_t op, const char *name)
{
    rf_client_name_request_t body = {0};
    snprintf(body.name, sizeof body.name, "%s", name);
    return world_ask(w, c, op, &body, sizeof body, NULL, 0);
}

rf_client_session_t world_session(world_t *w, test_client_t *node)
{
    rf_client_session_t session;
    rf_assert(world_ask(w, node, RF_CLIENT_SESSION_OPEN, NULL, 0, &session, sizeof session) == RF_OK);
    return session;
}

rf_client_status_t world_status(world_t *w, test_client_t *c)
{
    rf_client_status_t status;
    rf_assert(world_ask(w, c, RF_CLIENT_STATUS, NULL, 0, &status, sizeof status) == RF_OK);
    return status;
}

rf_err_t world_domain(world_t *w, test_client_t *c, rf_domain_t domain, rf_client_domain_t *out)
{
    struct {
        rf_client_list_reply_t head;
        rf_client_domain_t records[14];
    } reply;
    rf_client_list_t list = {.from = domain};
    rf_assert(world_ask(w, c, RF_CLIENT_DOMAINS, &list, sizeof list, &reply, sizeof reply) == RF_OK);
    if (reply.head.n == 0 || reply.records[0].domain != domain) return RF_ERR_NOT_FOUND;
    *out = reply.records[0];
    return RF_OK;
}

bool world_runs(const world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    return fake_dispatcher((fake_t *)(uintptr_t)&w->fake, core, domain, index) != NULL;
}

test_client_t *world_domain_on(world_t *w, rf_core_t core, rf_domain_t *domain)
{
    test_client_t *node = world_node_client(w, core);
    rf_assert(world_spawn(w, node, core, domain) == RF_OK);
    return world_dispatcher_client(w, core, *domain, 0);
}

rf_err_t world_connect(world_t *w, test_client_t *c, test_client_t *exporter, const char *name,
                       rf_err_t answer, rf_client_connected_t *asker, rf_client_incoming_t *incoming,
                       bool *fds)
{
    rf_client_connect_t body = {.slots = 128};
    snprintf(body.name, sizeof body.name, "%s", name);
    unsigned at = exporter->n_inbox;
    uint32_t tag = world_send(w, c, RF_CLIENT_CONNECT, &body, sizeof body, 0);
    world_settle(w);
    const message_t *event = world_event(exporter, RF_CLIENT_EVENT_INCOMING, &at);
    rf_assert(event);
    memcpy(incoming, event->body, sizeof *incoming);
    rf_assert(!world_reply(c, tag));
    rf_client_accept_t accept = {.channel = incoming->channel.channel, .err = (uint32_t)answer};
    if (incoming->channel.kind == RF_CHANNEL_NETWORK)
        snprintf(accept.address, sizeof accept.address, "127.0.0.1:77");
    world_send(w, exporter, RF_CLIENT_ACCEPT, &accept, sizeof accept, 0);
    world_settle(w);
    const message_t *reply = world_reply(c, tag);
    rf_assert(reply);
    if (reply->header.err == RF_OK) memcpy(asker, reply->body, sizeof *asker);
    *fds = event->fd >= 0 && (reply->header.err != RF_OK || reply->fd >= 0);
    return (rf_err_t)reply->header.err;
}
