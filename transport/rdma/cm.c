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
 *
 * Ports are rdma_cm's own: it knows not which ones TCP uses, and where the device's connections are of the kernel's TCP, as
 * soft-iWARP's, one that is used there is refused only when something is done with it. Another is chosen then.
 *
 * And a listener may stop without a word: Linux's soft-iWARP (6.1, siw_cm.c) takes a connection that a stranger closes before it was
 * accepted for the listener's own, and closes the port. So when nobody has come to the paths of two answers, another port is
 * listened at.
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
#include <sys/stat.h>
#include <unistd.h>

#define EVENTS_MAX 64
#define BACKLOG    64
#define RESOLVE_MS 1000
#define CM_RETRIES 7
#define PORT_TRIES 16
#define MISSED_MAX 2

/* librdmacm opens a device for itself when it first meets it. */
static void held_note(rdma_device_t *device, const struct ibv_context *verbs)
{
    struct stat is;
    if (!verbs || device->cm_held.known || strcmp(ibv_get_device_name(verbs->device), device->name) != 0 ||
        fstat(verbs->cmd_fd, &is) != 0)
        return;
    device->cm_held = (rdma_held_t){.known = true,
                                    .command = verbs->cmd_fd,
                                    .events = verbs->async_fd,
                                    .file_system = is.st_dev,
                                    .file = is.st_ino};
}

/* It closes one that is no more when it meets another that it has not seen, which may be never; and the removal of a device whose driver
 * cannot take it from its users (soft-iWARP) waits until nobody has it open. So what it still has open becomes nothing, which
 * it closes when it comes to it. Nobody opens that file any more: the number is still librdmacm's, or names another by now. */
void rdma_cm_removed(rdma_device_t *device)
{
    const rdma_held_t *held = &device->cm_held;
    struct stat is;
    if (!held->known || fstat(held->command, &is) != 0 || is.st_dev != held->file_system ||
        is.st_ino != held->file)
        return;
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0) {
        rf_log(RF_LOG_ERROR, "rdma: %s stays open: %m", device->name);
        return;
    }
    dup3(nothing, held->command, O_CLOEXEC);
    dup3(nothing, held->events, O_CLOEXEC);
    close(nothing);
    device->cm_held.known = false;
}

static bool channel_open(rdma_endpoint_t *ep)
{
    if (ep->cm) return true;
    ep->cm = rdma_create_event_channel();
    if (!ep->cm) {
        if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_ERROR, "rdma: no connection manager: %m; load its module: modprobe rdma_ucm");
        return false;
    }
    int flags = fcntl(ep->cm->fd, F_GETFL);
    if (flags >= 0 && fcntl(ep->cm->fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
        path_endpoint_watch(&ep->base, ep->cm->fd, &ep->cm) == RF_OK)
        return true;
    rdma_destroy_event_channel(ep->cm); /* nobody would hear it */
    ep->cm = NULL;
    return false;
}

static void failed(rdma_path_t *path, const char *what, int status)
{
    if (!path->lane) return;
    if (path->lane->stage != PATH_UP &&
        rf_log_once_per(&path->device->endpoint->base.log_path_ns, PATH_LOG_INTERVAL_NS)) {
        errno = status < 0 ? -status : status;
        rf_log(RF_LOG_WARN, "rdma: no iWARP connection to %s: %s: %m", path->lane->link->address_text, what);
    }
    rdma_path_broken(path);
}

/* At any port. NULL: errno says why. */
static struct rdma_cm_id *listener_make(rdma_endpoint_t *ep, struct sockaddr_storage *at)
{
    struct rdma_cm_id *id;
    if (rdma_create_id(ep->cm, &id, NULL, RDMA_PS_TCP) != 0) return NULL;
    if (rdma_bind_addr(id, (struct sockaddr *)at) == 0 && rdma_listen(id, BACKLOG) == 0) return id;
    int why = errno;
    rdma_destroy_id(id);
    errno = why;
    return NULL;
}

static void port_set(struct sockaddr_storage *at, uint16_t port)
{
    if (at->ss_family == AF_INET)
        ((struct sockaddr_in *)at)->sin_port = htons(port);
    else
        ((struct sockaddr_in6 *)at)->sin6_port = htons(port);
}

void rdma_cm_over(const rdma_path_t *path)
{
    bool waits = path->device->iwarp && !path->cm && path->lane->stage == PATH_ANSWERED;
    path->device->endpoint->cm_missed += waits;
}

/* Nobody has come for a while. The listener stays, for who is on his way to it: and soft-iWARP has freed one that it closed, so
 * that destroying it may never end. */
static bool is_deserted(rdma_endpoint_t *ep)
{
    if (ep->cm_missed < MISSED_MAX) return false;
    bool more = ep->n_cm_listeners < RDMA_LISTENERS_MAX;
    if (rf_log_once_per(&ep->base.log_path_ns, PATH_LOG_INTERVAL_NS))
        rf_log(more ? RF_LOG_WARN : RF_LOG_ERROR, "rdma: nobody comes to port %u for iWARP connections: %s",
               ntohs(rdma_get_src_port(ep->cm_listeners[ep->n_cm_listeners - 1])),
               more ? "another is listened at"
                    : "nor did anybody to as many before it: keep strangers from these ports by a packet "
                      "filter, and start this process anew");
    return more;
}

static rf_err_t listener_add(rdma_endpoint_t *ep)
{
    char own[RF_ADDRESS_MAX]; /* where the control links come in, another port */
    struct sockaddr_storage at;
    socklen_t size;
    struct rdma_cm_id *id = NULL;
    if (path_endpoint_address(&ep->base.head, own, sizeof own) != RF_OK ||
        !rdma_address_take(own, &at, &size))
        return RF_ERR_INVALID;
    for (unsigned tries = 0; !id && tries < PORT_TRIES; tries++) {
        port_set(&at, 0);
        id = listener_make(ep, &at);
        if (!id && errno != EADDRINUSE) break;
    }
    if (!id) {
        rf_log(RF_LOG_ERROR, "rdma: cannot listen for iWARP connections: %m");
        return RF_ERR_OS;
    }
    ep->cm_missed = 0;
    ep->cm_listeners[ep->n_cm_listeners++] = id;
    return RF_OK;
}

rf_err_t rdma_cm_listen(rdma_device_t *device, uint16_t *port)
{
    rdma_endpoint_t *ep = device->endpoint;
    if (!channel_open(ep)) return RF_ERR_OS;
    rf_err_t err = ep->n_cm_listeners == 0 || is_deserted(ep) ? listener_add(ep) : RF_OK;
    if (err != RF_OK) return err;
    struct rdma_cm_id *id = ep->cm_listeners[ep->n_cm_listeners - 1];
    held_note(device, id->verbs); /* NULL: it listens at every device */
    *port = ntohs(rdma_get_src_port(id));
    return RF_OK;
}

/* Its device is removed: the next answer listens anew. False: it is no listener. */
static bool listener_gone(rdma_endpoint_t *ep, struct rdma_cm_id *id)
{
    for (unsigned i = 0; i < ep->n_cm_listeners; i++) {
        if (ep->cm_listeners[i] != id) continue;
        rdma_destroy_id(id);
        for (ep->n_cm_listeners--; i < ep->n_cm_listeners; i++) ep->cm_listeners[i] = ep->cm_listeners[i + 1];
        return true;
    }
    return false;
}

rf_err_t rdma_cm_dial(rdma_path_t *path)
{
    rdma_endpoint_t *ep = path->device->endpoint;
    struct sockaddr_storage to;
    socklen_t size;
    if (!channel_open(ep) || !rdma_address_take(path->lane->link->address_text, &to, &size)) return RF_ERR_OS;
    port_set(&to, path->peer.port);
    if (rdma_create_id(ep->cm, &path->cm, path, RDMA_PS_TCP) != 0) return RF_ERR_OS;
    return rdma_resolve_addr(path->cm, NULL, (struct sockaddr *)&to, RESOLVE_MS) == 0 ? RF_OK : RF_ERR_OS;
}

/* From another port. False: there is nothing to be had by that. */
static bool dial_again(rdma_path_t *path, int why)
{
    if (why != EADDRINUSE || path->ports_tried == PORT_TRIES) return false;
    path->ports_tried++;
    rdma_destroy_id(path->cm);
    path->cm = NULL;
    return rdma_cm_dial(path) == RF_OK;
}

static void connect_now(rdma_path_t *path)
{
    const char *over = path->cm->verbs ? ibv_get_device_name(path->cm->verbs->device) : "no device";
    if (strcmp(over, path->device->name) != 0) {
        rf_log(RF_LOG_WARN, "rdma: the route to %s goes over %s, not over %s: correct device= or the routes",
               path->lane->link->address_text, over, path->device->name);
        rdma_path_broken(path);
        return;
    }
    held_note(path->device, path->cm->verbs);
    struct rdma_conn_param param = {.private_data = path->peer.token,
                                    .private_data_len = sizeof path->peer.token,
                                    .responder_resources = rdma_reads_of(path->device),
                                    .initiator_depth = rdma_reads_of(path->device),
                                    .retry_count = CM_RETRIES,
                                    .qp_num = path->qp->qp_num};
    if (rdma_connect(path->cm, &param) == 0) return;
    int why = errno;
    if (!dial_again(path, why)) failed(path, "connecting", why);
}

/* Somebody connects: the path whose token he has, or nobody's. */
static void requested(rdma_endpoint_t *ep, struct rdma_cm_id *id, const uint8_t *token, unsigned size)
{
    rdma_path_t *path = NULL;
    for (unsigned i = 0; size >= RDMA_TOKEN && i < ep->paths_end && !path; i++) {
        rdma_path_t *one = ep->paths[i];
        bool waits = one && one->lane && one->lane->stage == PATH_ANSWERED && one->device->iwarp && !one->cm;
        if (waits && memcmp(one->token, token, RDMA_TOKEN) == 0) path = one;
    }
    if (!path) {
        if (rf_log_once_per(&ep->base.log_garbage_ns, PATH_LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "rdma: turned away an iWARP connection that no path waits for");
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
        return;
    }
    ep->cm_missed = 0;
    path->cm = id;
    id->context = path;
    held_note(path->device, id->verbs);
    struct rdma_conn_param param = {.responder_resources = rdma_reads_of(path->device),
                                    .initiator_depth = rdma_reads_of(path->device),
                                    .qp_num = path->qp->qp_num};
    if (rdma_accept(id, &param) != 0) failed(path, "accepting", errno);
}

static void established(rdma_path_t *path)
{
    if (path->lane->stage == PATH_JOINING) path_lane_joined(path->lane);
}

static void event_take(rdma_endpoint_t *ep, enum rdma_cm_event_type event, struct rdma_cm_id *id, int status,
                       const uint8_t *token, unsigned size)
{
    rdma_path_t *path = id->context;
    if (event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        requested(ep, id, token, size);
        return;
    }
    if (event == RDMA_CM_EVENT_DEVICE_REMOVAL && listener_gone(ep, id)) return;
    if (!path || !path->lane) return;
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
    while (ep->n_cm_listeners > 0) rdma_destroy_id(ep->cm_listeners[--ep->n_cm_listeners]);
    if (ep->cm) rdma_destroy_event_channel(ep->cm);
}
