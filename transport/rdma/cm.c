/*
 * iWARP paths: a queue pair is joined to another by the TCP connection that rdma_cm makes for it, to a port that the listener
 * names in its ANSWER. The connection's private data is a token from there, which only the peer of the control link has:
 * whoever else connects is turned away.
 *
 *   dialer                                          listener
 *     | ANSWER(port, token) came                      |
 *     | address resolved, route resolved              |
 *     | connect(queue pair, token) ---------------->  | accept(queue pair of that token)
 *     | established: HELLO over the queue pair        |
 *
 * rdma_cm is told the queue pairs by number; making and ending them stays with path.c.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <string.h>
#include <sys/epoll.h>

#define EVENTS_MAX 64
#define BACKLOG    64
#define RESOLVE_MS 1000
#define CM_RETRIES 7

static bool channel_open(rdma_endpoint_t *ep)
{
    if (ep->cm) return true;
    ep->cm = rdma_create_event_channel();
    if (!ep->cm) {
        if (rf_log_once_per(&ep->log_path_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: no connection manager: %m; load its module: modprobe rdma_ucm");
        return false;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ep->cm};
    int flags = fcntl(ep->cm->fd, F_GETFL);
    return flags >= 0 && fcntl(ep->cm->fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->cm->fd, &event) == 0;
}

static void failed(rdma_path_t *path, const char *what, int status)
{
    if (path->stage == RDMA_STAGE_DYING) return;
    if (path->stage != RDMA_STAGE_UP &&
        rf_log_once_per(&path->device->endpoint->log_path_ns, RDMA_LOG_INTERVAL_NS)) {
        errno = status < 0 ? -status : status;
        rf_log(RF_LOG_WARN, "rdma: no iWARP connection to %s: %s: %m", path->link->address_text, what);
    }
    rdma_path_broken(path);
}

rf_err_t rdma_cm_listen(rdma_endpoint_t *ep, uint16_t *port)
{
    if (!channel_open(ep)) return RF_ERR_OS;
    if (!ep->cm_listener) {
        char own[RF_ADDRESS_MAX]; /* where the control links come in, another port */
        struct sockaddr_storage at;
        socklen_t size;
        if (rdma_endpoint_address(&ep->head, own, sizeof own) != RF_OK || !rdma_address_take(own, &at, &size))
            return RF_ERR_INVALID;
        if (at.ss_family == AF_INET)
            ((struct sockaddr_in *)&at)->sin_port = 0;
        else
            ((struct sockaddr_in6 *)&at)->sin6_port = 0;
        if (rdma_create_id(ep->cm, &ep->cm_listener, NULL, RDMA_PS_TCP) != 0) return RF_ERR_OS;
        if (rdma_bind_addr(ep->cm_listener, (struct sockaddr *)&at) != 0 ||
            rdma_listen(ep->cm_listener, BACKLOG) != 0) {
            rf_log(RF_LOG_ERROR, "rdma: cannot listen for iWARP connections: %m");
            rdma_destroy_id(ep->cm_listener);
            ep->cm_listener = NULL;
            return RF_ERR_OS;
        }
    }
    *port = ntohs(rdma_get_src_port(ep->cm_listener));
    return RF_OK;
}

rf_err_t rdma_cm_dial(rdma_path_t *path)
{
    rdma_endpoint_t *ep = path->device->endpoint;
    struct sockaddr_storage to;
    socklen_t size;
    if (!channel_open(ep) || !rdma_address_take(path->link->address_text, &to, &size)) return RF_ERR_OS;
    if (to.ss_family == AF_INET)
        ((struct sockaddr_in *)&to)->sin_port = htons(path->peer.port);
    else
        ((struct sockaddr_in6 *)&to)->sin6_port = htons(path->peer.port);
    if (rdma_create_id(ep->cm, &path->cm, path, RDMA_PS_TCP) != 0) return RF_ERR_OS;
    return rdma_resolve_addr(path->cm, NULL, (struct sockaddr *)&to, RESOLVE_MS) == 0 ? RF_OK : RF_ERR_OS;
}

static void connect_now(rdma_path_t *path)
{
    const char *over = path->cm->verbs ? ibv_get_device_name(path->cm->verbs->device) : "no device";
    if (strcmp(over, path->device->name) != 0) {
        rf_log(RF_LOG_WARN, "rdma: the route to %s goes over %s, not over %s: correct device= or the routes",
               path->link->address_text, over, path->device->name);
        rdma_path_broken(path);
        return;
    }
    struct rdma_conn_param param = {.private_data = path->peer.token,
                                    .private_data_len = sizeof path->peer.token,
                                    .responder_resources = 1,
                                    .initiator_depth = 1,
                                    .retry_count = CM_RETRIES,
                                    .qp_num = path->qp->qp_num};
    if (rdma_connect(path->cm, &param) != 0) failed(path, "connecting", errno);
}

/* Somebody connects: the path whose token he has, or nobody's. */
static void requested(rdma_endpoint_t *ep, struct rdma_cm_id *id, const uint8_t *token, unsigned size)
{
    rdma_path_t *path = NULL;
    for (unsigned i = 0; size >= RDMA_TOKEN && i < ep->paths_end && !path; i++) {
        rdma_path_t *one = ep->paths[i];
        bool waits = one && one->stage == RDMA_STAGE_ANSWERED && one->device->iwarp && !one->cm;
        if (waits && memcmp(one->token, token, RDMA_TOKEN) == 0) path = one;
    }
    struct rdma_conn_param param = {.responder_resources = 1, .initiator_depth = 1};
    if (!path) {
        if (rf_log_once_per(&ep->log_garbage_ns, RDMA_LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "rdma: turned away an iWARP connection that no path waits for");
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        return;
    }
    path->cm = id;
    id->context = path;
    param.qp_num = path->qp->qp_num;
    if (rdma_accept(id, &param) != 0) failed(path, "accepting", errno);
}

static void established(rdma_path_t *path)
{
    if (path->stage != RDMA_STAGE_OFFERED) return;
    rdma_word_t hello = {.flags = RDMA_WORD_HELLO, .generation = path->generation};
    path->stage = RDMA_STAGE_HELLO;
    if (!rdma_path_say(path, &hello)) rdma_path_broken(path);
}

static void event_take(rdma_endpoint_t *ep, enum rdma_cm_event_type event, struct rdma_cm_id *id, int status,
                       const uint8_t *token, unsigned size)
{
    rdma_path_t *path = id->context;
    if (event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        requested(ep, id, token, size);
        return;
    }
    if (event == RDMA_CM_EVENT_DEVICE_REMOVAL && id == ep->cm_listener) { /* the next offer listens anew */
        rdma_destroy_id(id);
        ep->cm_listener = NULL;
        return;
    }
    if (!path || path->stage == RDMA_STAGE_DYING) return;
    switch (event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (rdma_resolve_route(id, RESOLVE_MS) != 0) failed(path, "resolving the route", errno);
        break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        connect_now(path);
        break;
    case RDMA_CM_EVENT_ESTABLISHED:
        established(path);
        break;
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
        break;
    default: /* errors, rejections, the other end's disconnecting, the device's removal */
        failed(path, rdma_event_str(event), status);
        break;
    }
}

void rdma_cm_heard(rdma_endpoint_t *ep)
{
    struct rdma_cm_event *event;
    for (unsigned n = 0; n < EVENTS_MAX && rdma_get_cm_event(ep->cm, &event) == 0; n++) {
        uint8_t token[RDMA_TOKEN] = {0};
        unsigned size = event->param.conn.private_data ? event->param.conn.private_data_len : 0;
        if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST) size = 0;
        if (size > 0)
            memcpy(token, event->param.conn.private_data, size < sizeof token ? size : sizeof token);
        enum rdma_cm_event_type type = event->event;
        struct rdma_cm_id *id = event->id;
        int status = event->status;
        rdma_ack_cm_event(event); /* an id whose events are not acknowledged cannot be destroyed */
        event_take(ep, type, id, status, token, size);
    }
}

void rdma_cm_close(rdma_endpoint_t *ep)
{
    if (ep->cm_listener) rdma_destroy_id(ep->cm_listener);
    if (ep->cm) rdma_destroy_event_channel(ep->cm);
}
