/*
 * Requests to the CPU driver (wire/kernel.h) and to the monitor (wire/client.h): one table, replies found by tag.
 *
 *   tag = (count << 9 | place in the table) + 1: a reply to a request that was given up matches nothing and is dropped
 *
 * Descriptors arrive beside the link and before the message they belong to; they are kept with the request, or, for events, in a
 * small table until the event is seen.
 */
#include "internal.h"

#include <string.h>
#include <unistd.h>

#define PLACE_BITS 9
_Static_assert(LIB_REQUESTS_MAX == 1 << PLACE_BITS, "a tag holds the place");
#define SLOTS_PER_LOOK 256 /* taken from one link before others have their turn */

static lib_request_t *request_of_tag(uint32_t tag)
{
    if (tag == 0) return NULL;
    lib_request_t *request = &rf_me.requests[(tag - 1) & (LIB_REQUESTS_MAX - 1)];
    return request->used && request->tag == tag ? request : NULL;
}

static rf_err_t send_request(lib_server_port_t *server, uint32_t tag, uint16_t op, const void *in,
                             size_t in_size, const int *fds, unsigned n_fds)
{
    if (server->port.end != RF_OK) return server->port.end;
    rf_link_t *link = server->port.link;
    if (!link) return RF_ERR_NO_MACHINE;
    rf_wire_header_t head = {.tag = tag, .op = op};
    unsigned slots = (unsigned)((sizeof head + in_size + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD);
    if (link->transport->room(link, slots) < slots) return RF_ERR_AGAIN;
    if (n_fds) {
        rf_client_fds_t about = {.tag = tag, .op = op}; /* the kernel link's rf_kernel_fds lies the same */
        rf_err_t err = link->transport->pass_fds(link, &about, sizeof about, fds, n_fds);
        if (err != RF_OK) return err;
    }
    rf_err_t err = rf_message_send2(link, server->request_type, &head, sizeof head, in, in_size);
    return err == RF_OK ? link->transport->flush(link) : err;
}
_Static_assert(sizeof(rf_client_fds_t) == sizeof(rf_kernel_fds_t), "one layout");

rf_err_t rf_lib_request_start(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size,
                              const int *fds, unsigned n_fds, void *out, size_t out_max,
                              lib_request_t **out_request)
{
    lib_request_t *request = NULL;
    for (unsigned i = 0; i < LIB_REQUESTS_MAX && !request; i++) {
        unsigned place = (rf_me.request_count + i) & (LIB_REQUESTS_MAX - 1);
        if (!rf_me.requests[place].used) request = &rf_me.requests[place];
    }
    if (!request) return rf_lib_fail(RF_ERR_LIMIT, "%d requests are outstanding already", LIB_REQUESTS_MAX);
    unsigned place = (unsigned)(request - rf_me.requests);
    *request = (lib_request_t){
        .used = true,
        .server = server,
        .tag = (++rf_me.request_count << PLACE_BITS | place) + 1,
        .op = op,
        .out = out,
        .out_max = out_max,
        .fd = -1,
    };
    if (request->tag == 0) request->tag = (++rf_me.request_count << PLACE_BITS | place) + 1; /* 0 is no tag */
    rf_err_t err = send_request(server, request->tag, op, in, in_size, fds, n_fds);
    if (err != RF_OK) {
        request->used = false;
        return err;
    }
    *out_request = request;
    return RF_OK;
}

void rf_lib_request_free(lib_request_t *request)
{
    if (request->fd >= 0) close(request->fd);
    request->fd = -1;
    request->used = false;
}

typedef struct start_wait {
    lib_server_port_t *server;
    uint16_t op;
    const void *in;
    size_t in_size;
    void *out;
    size_t out_max;
    lib_request_t *request;
    rf_err_t err;
} start_wait_t;

static bool start_ready(void *context)
{
    start_wait_t *w = context;
    w->err =
        rf_lib_request_start(w->server, w->op, w->in, w->in_size, NULL, 0, w->out, w->out_max, &w->request);
    return w->err != RF_ERR_AGAIN;
}

static bool request_done(void *context)
{
    const lib_request_t *request = context;
    return request->done;
}

rf_err_t rf_lib_request_wait(lib_request_t *request, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_block(&(lib_wait_t){.ready = request_done, .context = request}, deadline_ns);
    if (err == RF_OK) err = request->err;
    rf_lib_request_free(request);
    return err;
}

rf_err_t rf_lib_request(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size, void *out,
                        size_t out_min, size_t out_max, size_t *out_size, int *fd, uint64_t deadline_ns)
{
    start_wait_t start = {
        .server = server, .op = op, .in = in, .in_size = in_size, .out = out, .out_max = out_max};
    rf_err_t err = rf_lib_block(&(lib_wait_t){.ready = start_ready, .context = &start}, deadline_ns);
    if (err != RF_OK) return err;
    if (start.err != RF_OK) return start.err;
    lib_request_t *request = start.request;
    err = rf_lib_block(&(lib_wait_t){.ready = request_done, .context = request}, deadline_ns);
    if (err == RF_OK) err = request->err;
    if (err == RF_OK && request->out_size < out_min)
        err = rf_lib_fail(RF_ERR_PROTOCOL, "the answer to request %u is too short", op);
    if (err == RF_OK && fd && request->fd < 0) {
        rf_lib_look_at_descriptors(); /* sent before the answer, so it is there */
    }
    if (err == RF_OK && out_size) *out_size = request->out_size;
    if (fd) {
        *fd = request->fd;
        request->fd = -1;
    }
    rf_lib_request_free(request);
    return err;
}

rf_err_t rf_lib_tell(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size)
{
    return send_request(server, 0, op, in, in_size, NULL, 0);
}

/* ---- what comes ---- */

static void take_reply(lib_server_port_t *server, const rf_wire_header_t *head, const uint8_t *bytes,
                       size_t size)
{
    lib_request_t *request = request_of_tag(head->tag);
    if (!request || request->server != server || request->done) return; /* given up meanwhile */
    request->err = head->err < RF_ERR_COUNT ? (rf_err_t)head->err : RF_ERR_PROTOCOL;
    request->out_size = size < request->out_max ? size : request->out_max;
    if (request->out_size) memcpy(request->out, bytes, request->out_size);
    request->done = true;
    if (request->abandoned) {
        rf_lib_registry_abandoned(request->abandoned);
        rf_lib_operation_free(request->abandoned);
    }
}

static void take_kernel_event(const rf_wire_header_t *head, const uint8_t *bytes, size_t size)
{
    if (head->op == RF_KERNEL_EVENT_SIGNAL && size >= sizeof(rf_kernel_signal_event_t)) {
        rf_kernel_signal_event_t event;
        memcpy(&event, bytes, sizeof event);
        if (event.signo >= 1 && event.signo <= 64) rf_me.signals_pending |= 1ull << (event.signo - 1);
    }
}

static void take_client_event(const rf_wire_header_t *head, const uint8_t *bytes, size_t size)
{
    if (head->op == RF_CLIENT_EVENT_INCOMING && size >= sizeof(rf_client_incoming_t)) {
        rf_client_incoming_t incoming;
        memcpy(&incoming, bytes, sizeof incoming);
        rf_lib_connect_incoming(&incoming);
    } else if (head->op == RF_CLIENT_EVENT_MACHINE && size >= sizeof(rf_client_machine_event_t)) {
        rf_client_machine_event_t event;
        memcpy(&event, bytes, sizeof event);
        rf_lib_machine_event(&event);
    }
}

static void take_message(lib_server_port_t *server)
{
    const uint8_t *bytes = server->in.bytes;
    size_t size = server->in.size;
    rf_wire_header_t head;
    if (size < sizeof head) return;
    memcpy(&head, bytes, sizeof head);
    bytes += sizeof head;
    size -= sizeof head;
    if (server->in.type == server->reply_type)
        take_reply(server, &head, bytes, size);
    else if (server->in.type == server->event_type && server == &rf_me.kernel)
        take_kernel_event(&head, bytes, size);
    else if (server->in.type == server->event_type)
        take_client_event(&head, bytes, size);
}

static void poll_server(lib_server_port_t *server)
{
    rf_link_t *link = server->port.link;
    if (!link || server->port.end != RF_OK) return;
    rf_slot_t slots[8];
    for (unsigned taken = 0; taken < SLOTS_PER_LOOK;) {
        unsigned n = link->transport->poll(link, slots, 8);
        rf_me.news += n;
        for (unsigned i = 0; i < n; i++) {
            rf_err_t err = rf_assembler_feed(&server->in, &slots[i]);
            if (err == RF_OK) {
                take_message(server);
            } else if (err != RF_ERR_AGAIN) {
                link->transport->fence(link);
                rf_lib_server_ended(server, err);
                return;
            }
        }
        if (n < 8) return;
        taken += n;
    }
}

void rf_lib_servers_poll(void)
{
    poll_server(&rf_me.kernel);
    poll_server(&rf_me.client);
}

/* ---- descriptors beside the links ---- */

void rf_lib_server_fds(lib_server_port_t *server, const rf_link_event_info_t *info)
{
    rf_client_fds_t about;
    unsigned kept = 0;
    if (info->n_fds >= 1 && info->size >= sizeof about) {
        memcpy(&about, info->bytes, sizeof about);
        lib_request_t *request = request_of_tag(about.tag);
        if (request && request->server == server && request->fd < 0) {
            request->fd = info->fds[0];
            kept = 1;
        } else if (about.tag == 0) {
            for (unsigned i = 0; i < LIB_LOST_FDS_MAX && !kept; i++) {
                if (rf_me.lost_fds[i].server) continue;
                rf_me.lost_fds[i].server = server;
                rf_me.lost_fds[i].op = about.op;
                rf_me.lost_fds[i].key = about.key;
                rf_me.lost_fds[i].fd = info->fds[0];
                kept = 1;
            }
        }
    }
    for (unsigned i = kept; i < info->n_fds; i++) close(info->fds[i]);
}

int rf_lib_event_fd(lib_server_port_t *server, uint16_t op, uint64_t key)
{
    for (unsigned tries = 0; tries < 2; tries++) {
        for (unsigned i = 0; i < LIB_LOST_FDS_MAX; i++) {
            if (rf_me.lost_fds[i].server != server || rf_me.lost_fds[i].op != op ||
                rf_me.lost_fds[i].key != key)
                continue;
            rf_me.lost_fds[i].server = NULL;
            return rf_me.lost_fds[i].fd;
        }
        if (tries == 0) rf_lib_look_at_descriptors();
    }
    return -1;
}

void rf_lib_server_ended(lib_server_port_t *server, rf_err_t err)
{
    if (server->port.end != RF_OK) return;
    server->port.end = err;
    for (unsigned i = 0; i < LIB_REQUESTS_MAX; i++) {
        lib_request_t *request = &rf_me.requests[i];
        if (!request->used || request->done || request->server != server) continue;
        request->err = err;
        request->done = true;
        if (request->abandoned) rf_lib_operation_free(request->abandoned);
    }
}
