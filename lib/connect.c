/*
 * Making channels. The monitor finds the exporter and brings the two together; the channel itself runs between the two
 * dispatchers, and no monitor touches it (wire/client.h).
 *
 *   client                      monitor(s)                        exporter
 *     │ CONNECT name ──────────────► │ EVENT_INCOMING ──────────────► │  on one host: each side gets one end of a socket pair
 *     │                              │ ◄────────────────────── ACCEPT │  and makes an shm link over it
 *     │ ◄─────────────── CONNECTED   │                                │
 *     │ ◄─────────────────────── link ──────────────────────────────► │
 *
 * Between hosts the exporter opens an endpoint for this one channel, with the channel's own key, and answers where it listens;
 * the client connects there and shows the channel's token. The endpoint stays for as long as the channel does, so that a lost
 * connection can be made again.
 *
 * The exporter's library takes clients while it runs, before rf_accept() asks for them, up to the export's backlog.
 */
#include "internal.h"

#include "base/log.h"
#include "transport/registry.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BACKLOG_DEFAULT     64
#define NETWORK_DEADLINE_MS 1000
#define BACKLOG_MAX         256
#define RETRY_NS_MIN        (2 * RF_NS_PER_MS) /* waiting for a name: between two questions */
#define RETRY_NS_MAX        (50 * RF_NS_PER_MS)

/* ---- links ---- */

static rf_hello_t hello_of(const rf_client_connected_t *about)
{
    rf_hello_t hello = {
        .version_major = RF_VERSION_MAJOR,
        .version_minor = RF_VERSION_MINOR,
        .kind = RF_ROLE_DISPATCHER,
        .core = rf_me.self.core,
        .machine = rf_me.identity.machine,
    };
    memcpy(hello.token, about->token, sizeof hello.token);
    return hello;
}

/* Over DPDK the control link says the secrets of frames, which are authenticated also where links are not encrypted. */
static bool key_wanted(const rf_transport_t *transport)
{
    return rf_me.identity.encrypt != 0 || strcmp(transport->name, "dpdk") == 0;
}

static uint64_t network_deadline_ns(void)
{
    uint64_t ms = rf_me.identity.host_deadline_ms;
    return (ms ? ms : NETWORK_DEADLINE_MS) * RF_NS_PER_MS;
}

/* An endpoint of this channel alone; listens at `address` unless that is NULL. */
static rf_err_t open_endpoint(rf_channel_t *channel, const char *address)
{
    char why[256];
    const rf_transport_t *transport;
    rf_err_t err = rf_transport_find(channel->about.medium, &transport, why, sizeof why);
    if (err != RF_OK) return rf_lib_fail(err, "%s", why);
    rf_endpoint_params_t params = {
        .self = hello_of(&channel->about),
        .doorbell = &rf_me.doorbell,
        .on_event = rf_lib_on_event,
        .context = channel,
        .address = address,
        .key = key_wanted(transport) ? channel->about.key : NULL,
        .key_size = key_wanted(transport) ? sizeof channel->about.key : 0,
        .deadline_ns = network_deadline_ns(),
    };
    if (strcmp(transport->name, "rdma") == 0 && rf_me.identity.rdma[0]) params.medium = rf_me.identity.rdma;
    if (strcmp(transport->name, "dpdk") == 0 && rf_me.identity.dpdk[0]) params.medium = rf_me.identity.dpdk;
    rf_endpoint_t *endpoint;
    err = transport->endpoint_open(&params, &endpoint);
    if (err != RF_OK) return rf_lib_fail(err, "no %s endpoint: %s", channel->about.medium, rf_err_text(err));
    err = rf_lib_watch_endpoint(&channel->watch, endpoint);
    if (err != RF_OK) {
        endpoint->transport->endpoint_close(endpoint);
        return err;
    }
    channel->endpoint = endpoint;
    channel->transport = transport;
    return RF_OK;
}

/* Starts the link of a local channel over its socket, which is owned from here on. */
static rf_err_t link_local(rf_channel_t *channel, int socket, uint32_t slots)
{
    rf_hello_t hello = hello_of(&channel->about);
    rf_link_params_t params = {.socket = socket, .hello = &hello, .slots = slots, .user = channel};
    channel->transport = rf_me.shm;
    rf_link_t *link;
    rf_err_t err = rf_me.shm->connect(rf_me.endpoint, &params, &link);
    if (err == RF_OK) channel->port.link = link;
    rf_me.endpoint_watch.next_ns = 0; /* a new link has a deadline: ask for it */
    return err;
}

static rf_err_t link_network(rf_channel_t *channel, uint32_t slots)
{
    rf_err_t err = open_endpoint(channel, NULL);
    if (err != RF_OK) return err;
    rf_hello_t hello = hello_of(&channel->about);
    rf_link_params_t params = {
        .address = channel->about.address, .socket = -1, .hello = &hello, .slots = slots, .user = channel};
    rf_link_t *link;
    err = channel->transport->connect(channel->endpoint, &params, &link);
    if (err == RF_OK) channel->port.link = link;
    channel->watch.next_ns = 0;
    return err;
}

/* No early end: how long it takes must not tell how much of a token was right. */
static bool tokens_equal(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0;
    for (unsigned i = 0; i < RF_TOKEN_SIZE; i++) differ |= a[i] ^ b[i];
    return differ == 0;
}

/* A peer came to a channel's endpoint. */
static void link_incoming(rf_channel_t *channel, rf_link_t *link, const rf_hello_t *hello)
{
    if (!channel || channel->port.link || channel->port.end != RF_OK || hello->kind != RF_ROLE_DISPATCHER ||
        !tokens_equal(hello->token, channel->about.token)) {
        link->transport->reject(link, RF_ERR_AUTH);
        return;
    }
    rf_link_params_t params = {.socket = -1, .user = channel};
    channel->port.link = link; /* events may come before accept() returns */
    if (link->transport->accept(link, &params) == RF_OK) return;
    channel->port.link = NULL;
    channel->port.end = RF_ERR_PEER_DEAD;
}

void rf_lib_on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    if (event == RF_LINK_INCOMING) {
        link_incoming(context, link, info->hello);
        return;
    }
    rf_me.news++;
    lib_port_t *port = link->user;
    lib_server_port_t *server = port && port->kind != LIB_PORT_CHANNEL ? (lib_server_port_t *)port : NULL;
    switch (event) {
    case RF_LINK_UP:
        if (port) port->up = true;
        break;
    case RF_LINK_FDS:
        if (server) {
            rf_lib_server_fds(server, info);
        } else {
            for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
        }
        break;
    case RF_LINK_WRITTEN:
        if (port && !server) rf_lib_streams_written((rf_channel_t *)port, info->cookie, info->err);
        break;
    case RF_LINK_READ:
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD: {
        rf_err_t why = event == RF_LINK_CLOSED ? RF_ERR_CLOSED : info->err;
        if (why == RF_OK || why == RF_ERR_TIMEOUT) why = RF_ERR_PEER_DEAD;
        if (server)
            rf_lib_server_ended(server, RF_ERR_PEER_DEAD);
        else if (port && port->end == RF_OK)
            port->end = why;
        break;
    }
    case RF_LINK_ROOM: /* whoever waits for room tries again: there is news */
        if (port && !server) rf_lib_streams_room((rf_channel_t *)port);
        break;
    case RF_LINK_BROKEN: /* made again by the medium */
    case RF_LINK_INCOMING:
        break;
    }
}

/* ---- exporting ---- */

rf_err_t rf_export(const char *name, unsigned backlog, rf_export_t **out, uint64_t deadline_ns)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "rf_export: call rf_init() first");
    if (!name)
        name = "";
    else if (!*name || strlen(name) >= RF_NAME_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "a name has 1 to %d bytes", RF_NAME_MAX - 1);
    if (backlog > BACKLOG_MAX) return rf_lib_fail(RF_ERR_INVALID, "a backlog is 1 to %d", BACKLOG_MAX);
    if (rf_me.n_exports == RF_EXPORTS_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "%d names are exported already", RF_EXPORTS_MAX);
    for (rf_export_t *other = rf_me.exports; other; other = other->next)
        if (strcmp(other->name, name) == 0)
            return rf_lib_fail(RF_ERR_EXISTS, "this dispatcher exports \"%s\" already", name);
    rf_export_t *export_ = calloc(1, sizeof *export_);
    if (!export_) return RF_ERR_NO_MEMORY;
    snprintf(export_->name, sizeof export_->name, "%s", name);
    export_->backlog = backlog ? backlog : BACKLOG_DEFAULT;
    /* In the list first: clients can come before the answer does. */
    export_->next = rf_me.exports;
    rf_me.exports = export_;
    rf_me.n_exports++;
    if (*name) {
        rf_client_name_request_t request = {0};
        snprintf(request.name, sizeof request.name, "%s", name);
        rf_err_t err = rf_lib_request(&rf_me.client, RF_CLIENT_NAME_PUT, &request, sizeof request, NULL, 0, 0,
                                      NULL, NULL, deadline_ns);
        if (err != RF_OK) {
            if (err == RF_ERR_EXISTS) rf_lib_fail(err, "\"%s\" is exported by another", name);
            if (err == RF_ERR_TIMEOUT) /* it may yet be agreed on: take it back */
                (void)rf_lib_tell(&rf_me.client, RF_CLIENT_NAME_DELETE, &request, sizeof request);
            export_->name[0] = 0; /* it is not ours to withdraw */
            (void)rf_export_close(export_, deadline_ns);
            return err;
        }
    }
    *out = export_;
    return RF_OK;
}

static void export_leave(rf_export_t *export_)
{
    if (--export_->waiters == 0 && export_->closed) free(export_);
}

rf_err_t rf_export_close(rf_export_t *export_, uint64_t deadline_ns)
{
    rf_err_t err = RF_OK;
    rf_lib_waitsets_forget(export_);
    for (rf_export_t **at = &rf_me.exports; *at; at = &(*at)->next) {
        if (*at != export_) continue;
        *at = export_->next;
        rf_me.n_exports--;
        break;
    }
    if (export_->name[0] && deadline_ns) {
        rf_client_name_request_t request = {0};
        snprintf(request.name, sizeof request.name, "%s", export_->name);
        err = rf_lib_request(&rf_me.client, RF_CLIENT_NAME_DELETE, &request, sizeof request, NULL, 0, 0, NULL,
                             NULL, deadline_ns);
    }
    while (export_->first) rf_lib_channel_destroy(export_->first, true);
    export_->closed = true;
    if (export_->waiters == 0) free(export_);
    return err;
}

void rf_lib_export_drop(rf_channel_t *channel)
{
    rf_export_t *export_ = channel->export_;
    rf_channel_t *previous = NULL;
    for (rf_channel_t *at = export_->first; at; previous = at, at = at->queue_next) {
        if (at != channel) continue;
        if (previous)
            previous->queue_next = at->queue_next;
        else
            export_->first = at->queue_next;
        if (export_->last == at) export_->last = previous;
        export_->n_queued--;
        break;
    }
    channel->export_ = NULL;
    channel->queue_next = NULL;
}

rf_channel_t *rf_lib_export_front(rf_export_t *export_)
{
    for (rf_channel_t *at = export_->first, *next; at; at = next) {
        next = at->queue_next;
        if (at->port.up) return at;
        if (at->port.end != RF_OK) rf_lib_channel_destroy(at, false);
    }
    return NULL;
}

typedef struct accept_wait {
    rf_export_t *export_;
    rf_channel_t *channel;
} accept_wait_t;

static bool accept_ready(void *context)
{
    accept_wait_t *w = context;
    if (w->export_->closed) return true;
    w->channel = rf_lib_export_front(w->export_);
    if (w->channel) rf_lib_export_drop(w->channel);
    return w->channel != NULL;
}

rf_err_t rf_accept(rf_export_t *export_, rf_channel_t **out, uint64_t deadline_ns)
{
    accept_wait_t w = {.export_ = export_};
    export_->waiters++;
    rf_err_t err = rf_lib_block(&(lib_wait_t){accept_ready, NULL, &w}, deadline_ns);
    export_leave(export_);
    if (err != RF_OK) return err;
    if (!w.channel) return RF_ERR_CLOSED;
    *out = w.channel;
    return RF_OK;
}

/* ---- clients that come ---- */

static void answer(const rf_client_accept_t *accept, rf_channel_t *channel)
{
    if (rf_lib_tell(&rf_me.client, RF_CLIENT_ACCEPT, accept, sizeof *accept) != RF_ERR_AGAIN || !channel)
        return;
    channel->answer = *accept; /* the monitor gives up by itself on clients whose refusal was lost */
    channel->answer_owed = true;
    rf_me.n_answers_owed++;
}

static rf_err_t take_incoming(const rf_client_incoming_t *incoming, int *socket, rf_client_accept_t *accept,
                              rf_channel_t **out)
{
    rf_export_t *export_ = rf_me.exports;
    while (export_ && strncmp(export_->name, incoming->name, RF_NAME_MAX) != 0) export_ = export_->next;
    if (!export_) return RF_ERR_NOT_FOUND;
    if (export_->n_queued >= export_->backlog) return RF_ERR_LIMIT;
    bool network = incoming->channel.kind == RF_CHANNEL_NETWORK;
    if (!network && *socket < 0) return RF_ERR_PROTOCOL;
    rf_channel_t *channel = rf_lib_channel_create(&incoming->channel);
    if (!channel) return RF_ERR_LIMIT;
    rf_err_t err;
    if (network) {
        char address[RF_ADDRESS_MAX];
        const char *host = rf_me.identity.host_address;
        snprintf(address, sizeof address, strchr(host, ':') ? "[%s]:0" : "%s:0", host);
        err = open_endpoint(channel, address);
        if (err == RF_OK)
            err = channel->transport->endpoint_address(channel->endpoint, accept->address,
                                                       sizeof accept->address);
    } else {
        err = link_local(channel, *socket, incoming->slots);
        *socket = -1;
    }
    if (err != RF_OK) {
        rf_lib_channel_destroy(channel, false);
        return err;
    }
    channel->export_ = export_;
    if (export_->last)
        export_->last->queue_next = channel;
    else
        export_->first = channel;
    export_->last = channel;
    export_->n_queued++;
    *out = channel;
    return RF_OK;
}

void rf_lib_connect_incoming(const rf_client_incoming_t *incoming)
{
    uint64_t id = incoming->channel.channel;
    int socket = -1;
    if (incoming->channel.kind != RF_CHANNEL_NETWORK)
        socket = rf_lib_event_fd(&rf_me.client, RF_CLIENT_EVENT_INCOMING, id);
    rf_client_accept_t accept = {.channel = id};
    rf_channel_t *channel = NULL;
    rf_err_t err = take_incoming(incoming, &socket, &accept, &channel);
    if (socket >= 0) close(socket);
    if (err != RF_OK)
        rf_log(RF_LOG_WARN, "a client of \"%.63s\" was refused: %s", incoming->name, rf_err_text(err));
    accept.err = (uint32_t)err;
    answer(&accept, channel);
}

void rf_lib_connect_service(void)
{
    if (rf_me.n_answers_owed == 0) return;
    for (rf_channel_t *channel = rf_me.channels; channel; channel = channel->next) {
        if (!channel->answer_owed) continue;
        if (rf_lib_tell(&rf_me.client, RF_CLIENT_ACCEPT, &channel->answer, sizeof channel->answer) ==
            RF_ERR_AGAIN)
            return;
        channel->answer_owed = false;
        rf_me.n_answers_owed--;
    }
}

/* ---- connecting ---- */

static bool port_settled(void *context)
{
    const lib_port_t *port = context;
    return port->up || port->end != RF_OK;
}

rf_err_t rf_lib_wait_up(lib_port_t *port, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_block(&(lib_wait_t){port_settled, NULL, port}, deadline_ns);
    if (err != RF_OK) return err;
    return port->up ? RF_OK : port->end;
}

/* `*link_failed`: the exporter is there and took the channel, but no link to its host came up in time. */
static rf_err_t connect_once(const rf_client_connect_t *request, rf_channel_t **out, bool *link_failed,
                             uint64_t deadline_ns)
{
    rf_client_connected_t about;
    int socket = -1;
    rf_err_t err = rf_lib_request(&rf_me.client, RF_CLIENT_CONNECT, request, sizeof *request, &about,
                                  sizeof about, sizeof about, NULL, &socket, deadline_ns);
    if (err != RF_OK) goto close_socket;
    bool network = about.kind == RF_CHANNEL_NETWORK;
    if (!network && socket < 0) {
        err = rf_lib_fail(RF_ERR_PROTOCOL, "the monitor sent no socket for a local channel");
        goto close_socket;
    }
    rf_channel_t *channel = rf_lib_channel_create(&about);
    if (!channel) {
        err = RF_ERR_LIMIT;
        goto close_socket;
    }
    if (network) {
        err = link_network(channel, request->slots);
    } else {
        err = link_local(channel, socket, request->slots);
        socket = -1;
    }
    if (err == RF_OK) {
        channel->waiters++;
        err = rf_lib_wait_up(&channel->port, deadline_ns);
        channel->waiters--;
        *link_failed = network && err == RF_ERR_PEER_DEAD;
    }
    if (err != RF_OK)
        rf_lib_channel_destroy(channel, false);
    else
        *out = channel;
close_socket:
    if (socket >= 0) close(socket);
    return err;
}

static rf_err_t connect_channel(rf_client_connect_t *request, const rf_channel_options_t *options,
                                rf_channel_t **out, uint64_t deadline_ns)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "rf_connect: call rf_init() first");
    if (options) {
        request->slots = options->slots;
        if (options->slots && (options->slots < RF_RING_SLOTS_MIN || options->slots > RF_RING_SLOTS_MAX ||
                               (options->slots & (options->slots - 1))))
            return rf_lib_fail(RF_ERR_INVALID, "a ring has %d to %d slots, a power of two", RF_RING_SLOTS_MIN,
                               RF_RING_SLOTS_MAX);
    }
    uint64_t retry_ns = RETRY_NS_MIN;
    for (;;) {
        bool link_failed = false;
        rf_err_t err = connect_once(request, out, &link_failed, deadline_ns);
        /* A host that is very busy may need longer than the deadline for one connection; whether the exporter still
         * lives, the monitor knows: it is asked again. */
        bool name_missing = err == RF_ERR_NOT_FOUND && options && (options->flags & RF_CONNECT_WAIT);
        if (!name_missing && !link_failed) return err;
        uint64_t now_ns = rf_clock_ns();
        if (now_ns >= deadline_ns) return RF_ERR_TIMEOUT;
        rf_thread_sleep(now_ns + retry_ns < deadline_ns ? now_ns + retry_ns : deadline_ns);
        if (retry_ns < RETRY_NS_MAX) retry_ns *= 2;
    }
}

rf_err_t rf_connect(const char *name, const rf_channel_options_t *options, rf_channel_t **out,
                    uint64_t deadline_ns)
{
    rf_client_connect_t request = {0};
    if (!name || !*name || strlen(name) >= RF_NAME_MAX)
        return rf_lib_fail(RF_ERR_INVALID, "a name has 1 to %d bytes", RF_NAME_MAX - 1);
    snprintf(request.name, sizeof request.name, "%s", name);
    return connect_channel(&request, options, out, deadline_ns);
}

rf_err_t rf_connect_dispatcher(rf_domain_t domain, uint16_t index, const rf_channel_options_t *options,
                               rf_channel_t **out, uint64_t deadline_ns)
{
    rf_client_connect_t request = {.domain = domain, .index = index};
    return connect_channel(&request, options, out, deadline_ns);
}
