/*
 * The endpoint: one epoll set, timers, and the life and death of links.
 *
 *   connect()            accept()
 *      |                     |
 *   CONNECTING ------------ UP <----> BROKEN        close(): lingers until the peer has taken everything, then buried
 *      |                     |           |          fence(): DEAD at once, no event
 *      +-------- DEAD <------+-----------+
 */
#include "transport/rdma/internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/tcp/tcp.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define EVENTS_MAX        16
#define STEADY_NS         (20 * RF_NS_PER_MS) /* a path that lasted so long starts the back-off anew */
#define CONTROL_SLOTS_MAX 1024
#define CONTROL_BATCHES   4 /* of control messages' slots, of one link in one call */
#define OPTIONS_VARIABLE  "RACKFISH_RDMA"

static rdma_endpoint_t *endpoint_of(rf_endpoint_t *endpoint)
{
    return (rdma_endpoint_t *)endpoint;
}

/* --- entering and leaving ----------------------------------------------------------------------------------- */

void rdma_enter(rdma_endpoint_t *ep)
{
    ep->inside++;
}

static void reap(rdma_endpoint_t *ep)
{
    while (ep->graveyard) {
        rdma_link_t *link = ep->graveyard;
        ep->graveyard = link->next;
        rdma_bulk_free(link);
        rdma_memory_free(&link->ring_memory);
        rdma_domain_release(link->domain);
        free(link->in);
        free(link->control_in);
        free(link);
    }
}

void rdma_leave(rdma_endpoint_t *ep)
{
    if (--ep->inside == 0 && rf_unlikely(ep->graveyard != NULL)) reap(ep);
}

void rdma_event(rdma_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
                uint64_t cookie)
{
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    if (link->user_closed || link->fenced || link->buried) return;
    rf_link_event_info_t info = {.err = err, .hello = hello, .cookie = cookie};
    ep->on_event(ep->context, &link->head, event, &info);
}

void rdma_timer(rdma_endpoint_t *ep, uint64_t at_ns)
{
    if (at_ns >= ep->timer_ns) return;
    ep->timer_ns = at_ns;
    if (!ep->in_progress) {
        uint64_t one = 1;
        ssize_t ignored = write(ep->kick, &one, sizeof one);
        (void)ignored;
    }
}

void rdma_attention(rdma_link_t *link)
{
    link->attention = true;
    rdma_endpoint_of(link)->attention = true;
}

void rdma_link_wrong(rdma_link_t *link, const char *what)
{
    if (!link->wrong) link->wrong = what;
    rdma_attention(link);
}

/* --- ends of links ------------------------------------------------------------------------------------------ */

static void paths_drop(rdma_link_t *link)
{
    for (unsigned i = 0; i < RDMA_LANES; i++) {
        rdma_path_kill(link->lanes[i].path);
        link->lanes[i].offer_ns = link->lanes[i].overdue_ns = RF_NEVER;
    }
}

static void control_drop(rdma_link_t *link)
{
    rf_link_t *control = link->control;
    if (!control) return;
    link->control = NULL;
    control->user = NULL;
    control->transport->close(control);
}

void rdma_link_bury(rdma_link_t *link)
{
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    if (link->buried) return;
    paths_drop(link);
    control_drop(link);
    link->buried = true;
    link->attention = false;
    ep->n_links--;
    ep->n_lingering -= link->user_closed;
    if (link->prev)
        link->prev->next = link->next;
    else
        ep->links = link->next;
    if (link->next) link->next->prev = link->prev;
    link->next = ep->graveyard;
    ep->graveyard = link;
}

/* The slots' path ends: what has come over it is taken, once nothing more can come. */
static void path_end(rdma_link_t *link)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    if (!path) return;
    rdma_device_drain(path->device);
    if (path->written && path->stage == RDMA_STAGE_UP) {
        rdma_path_confirm(path);
        path->failed = true; /* nothing is sent over it any more */
        rdma_ring_take(link, path);
    }
    rdma_path_kill(path);
}

void rdma_link_broken(rdma_link_t *link, rf_err_t err)
{
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    rdma_lane_t *lane = &link->lanes[RDMA_LANE_SLOTS];
    uint64_t now_ns = rf_clock_ns();
    path_end(link);
    lane->overdue_ns = RF_NEVER;
    if (link->buried || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    /* A path that breaks at once, again and again, is not made again at full speed. */
    if (link->was_up && now_ns - link->up_ns > STEADY_NS) lane->backoff_ns = RDMA_BACKOFF_NS_MIN;
    rdma_control_need(link, RDMA_LANE_SLOTS, now_ns);
    if (link->dead_ns == RF_NEVER) {
        link->dead_ns = now_ns + ep->deadline_ns;
        rdma_timer(ep, link->dead_ns);
    }
    if (link->head.state != RF_LINK_STATE_UP) return;
    link->head.state = RF_LINK_STATE_BROKEN;
    link->stats.broken++;
    rdma_event(link, RF_LINK_BROKEN, err, NULL, 0);
}

void rdma_link_end(rdma_link_t *link, rf_err_t err)
{
    if (link->buried || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    path_end(link); /* what came before the end is still served */
    paths_drop(link);
    control_drop(link);
    link->dead_ns = RF_NEVER;
    if (link->user_closed) {
        rdma_link_bury(link);
        return;
    }
    link->end_pending = true;
    link->end_err = err;
    if (rdma_link_served(link)) rdma_attention(link);
}

void rdma_link_end_settle(rdma_link_t *link)
{
    if (!link->end_pending || !rdma_link_served(link)) return;
    link->end_pending = false;
    link->head.state = RF_LINK_STATE_DEAD;
    rdma_bulk_fail(link, link->end_err);
    rdma_event(link, RF_LINK_DEAD, link->end_err, NULL, 0);
}

void rdma_link_closed(rdma_link_t *link)
{
    link->close_at = RF_NEVER;
    if (link->user_closed) { /* both ends closed: neither wants more */
        rdma_link_bury(link);
        return;
    }
    paths_drop(link);
    link->closed_due = true;
    rdma_control_push(link);
    link->dead_ns = RF_NEVER;
    link->end_err = RF_ERR_CLOSED;
    link->head.state = RF_LINK_STATE_DEAD;
    rdma_bulk_fail(link, RF_ERR_CLOSED);
    rdma_event(link, RF_LINK_CLOSED, RF_OK, NULL, 0);
}

/* --- progress ----------------------------------------------------------------------------------------------- */

static void refresh(rdma_endpoint_t *ep)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(ep->epoll, events, EVENTS_MAX, 0);
    for (int i = 0; i < n; i++) {
        uint64_t count;
        if (events[i].data.ptr == ep) {
            ssize_t ignored = read(ep->kick, &count, sizeof count);
            (void)ignored;
        } else if (events[i].data.ptr == &ep->look) {
            ssize_t ignored = read(ep->look, &count, sizeof count);
            (void)ignored;
        } else if (events[i].data.ptr == &ep->cm) {
            rdma_cm_heard(ep);
        } else if (events[i].data.ptr) {
            rdma_device_heard(events[i].data.ptr);
            rdma_device_async(events[i].data.ptr);
        }
    }
}

/* A callback may close any link, this one too: buried links keep their memory until rdma_leave(), but not their place in
 * the list, so a walk starts again after each that did something. */
static void links_settle(rdma_endpoint_t *ep)
{
    ep->attention = false;
    for (rdma_link_t *link = ep->links; link;) {
        bool due = link->attention;
        if (due) rdma_link_settle(link);
        link = due ? ep->links : link->next;
    }
}

/* A peer that says much is heard in turn with the others. True: there is more. */
static bool links_hear(rdma_endpoint_t *ep)
{
    bool more = false;
    for (rdma_link_t *link = ep->links; link;) {
        bool heard = link->control && link->control->transport->ready(link->control);
        if (heard) more |= rdma_control_poll(link, CONTROL_BATCHES);
        link = heard && link->buried ? ep->links : link->next;
    }
    return more;
}

static void link_timers(rdma_link_t *link, uint64_t now_ns)
{
    if (link->dead_ns <= now_ns) {
        link->dead_ns = RF_NEVER;
        rdma_link_end(link, link->was_up ? RF_ERR_PEER_DEAD : RF_ERR_TIMEOUT);
        return;
    }
    rdma_control_timers(link, now_ns);
}

static void timers_run(rdma_endpoint_t *ep, uint64_t now_ns)
{
    ep->timer_ns = RF_NEVER;
    for (rdma_link_t *link = ep->links; link;) {
        bool due = link->dead_ns <= now_ns || rdma_control_next(link) <= now_ns;
        if (due) link_timers(link, now_ns);
        link = due ? ep->links : link->next;
    }
    uint64_t at = RF_NEVER;
    for (unsigned i = 0; i < ep->paths_end; i++) {
        rdma_path_t *path = ep->paths[i];
        if (!path || path->stage != RDMA_STAGE_DYING) continue;
        if (path->destroy_ns <= now_ns)
            rdma_path_destroy(path);
        else if (path->destroy_ns < at)
            at = path->destroy_ns;
    }
    for (rdma_link_t *link = ep->links; link; link = link->next) {
        uint64_t next_ns = rdma_control_next(link);
        at = link->dead_ns < at ? link->dead_ns : at;
        at = next_ns < at ? next_ns : at;
    }
    if (at < ep->timer_ns) ep->timer_ns = at;
}

static void devices_drain(rdma_endpoint_t *ep)
{
    for (unsigned i = 0; i < ep->n_devices; i++) rdma_device_drain(ep->devices[i]);
}

/* What could not be sent when it was due, and what closed links still have to hear. */
static void links_push(rdma_endpoint_t *ep)
{
    for (rdma_link_t *link = ep->links; link; link = link->next) {
        if (link->user_closed) rdma_link_take(link);
        if (link->room_wanted != 0 || link->posted != link->slots_head) rdma_line_hear(link);
        if (link->posted != link->slots_head || link->say || link->say_ack) rdma_push(link);
        if (link->control) rdma_control_push(link);
    }
}

void rdma_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    rdma_endpoint_t *ep = endpoint_of(endpoint);
    uint64_t control_ns;
    rdma_enter(ep);
    ep->in_progress = true;
    refresh(ep);
    ep->control->transport->endpoint_progress(ep->control, now_ns, &control_ns);
    devices_drain(
        ep); /* before the control links: what came over a path comes before what is said about it */
    bool more = links_hear(ep);
    links_push(ep);
    if (ep->attention) links_settle(ep);
    if (ep->timer_ns <= now_ns) timers_run(ep, now_ns);
    rdma_devices_sweep(ep);
    *next_ns = ep->attention || more ? now_ns : ep->timer_ns < control_ns ? ep->timer_ns : control_ns;
    ep->in_progress = false;
    rdma_leave(ep);
}

/* --- routes ------------------------------------------------------------------------------------------------- */

bool rdma_address_take(const char *address, struct sockaddr_storage *out, socklen_t *size)
{
    char host[RF_ADDRESS_MAX];
    const char *colon = strrchr(address, ':');
    if (!colon || (size_t)(colon - address) >= sizeof host) return false;
    bool bracket = address[0] == '[' && colon > address && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - address - 2 * bracket), address + bracket);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *found;
    if (getaddrinfo(host, "9", &hints, &found) != 0) return false; /* any port: nothing is sent */
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *size = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static void gid_of(const struct sockaddr *address, uint8_t gid[RDMA_GID])
{
    memset(gid, 0, RDMA_GID);
    if (address->sa_family == AF_INET) {
        gid[10] = gid[11] = 0xff;
        memcpy(gid + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else {
        memcpy(gid, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, RDMA_GID);
    }
}

void rdma_source_to(const char *address, rdma_source_t *out)
{
    struct sockaddr_storage at;
    socklen_t size;
    memset(out, 0, sizeof *out);
    if (!rdma_address_take(address, &at, &size)) return;
    int fd = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool found = fd >= 0 && connect(fd, (struct sockaddr *)&at, size) == 0 &&
                 getsockname(fd, (struct sockaddr *)&at, &size) == 0;
    if (fd >= 0) close(fd);
    struct ifaddrs *all = NULL;
    if (!found || getifaddrs(&all) != 0) return;
    gid_of((struct sockaddr *)&at, out->gid);
    for (struct ifaddrs *one = all; one && out->netdev == 0; one = one->ifa_next) {
        uint8_t gid[RDMA_GID];
        if (!one->ifa_addr || one->ifa_addr->sa_family != at.ss_family) continue;
        gid_of(one->ifa_addr, gid);
        if (memcmp(gid, out->gid, sizeof gid) == 0) out->netdev = if_nametoindex(one->ifa_name);
    }
    freeifaddrs(all);
}

/* --- operations --------------------------------------------------------------------------------------------- */

static rf_err_t options_take(rdma_endpoint_t *ep, const char *given)
{
    char why[256];
    const char *text = given ? given : secure_getenv(OPTIONS_VARIABLE);
    rf_err_t err = rdma_options_parse(text, &ep->options, why, sizeof why);
    if (err != RF_OK) rf_log(RF_LOG_ERROR, "rdma: %s: %s", given ? "options" : OPTIONS_VARIABLE, why);
    return err;
}

rf_err_t rdma_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    rdma_endpoint_t *ep = calloc(1, sizeof *ep);
    if (!ep) return RF_ERR_NO_MEMORY;
    ep->head.transport = &rf_transport_rdma;
    ep->on_event = params->on_event;
    ep->context = params->context;
    ep->deadline_ns = params->deadline_ns ? params->deadline_ns : RDMA_DEADLINE_NS_DEFAULT;
    ep->timer_ns = RF_NEVER;
    rf_err_t err = options_take(ep, params->medium);
    if (err != RF_OK) goto free_endpoint;
    err = RF_ERR_OS;
    ep->epoll = epoll_create1(EPOLL_CLOEXEC);
    ep->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    ep->look = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = ep};
    struct epoll_event look = {.events = EPOLLIN, .data.ptr = &ep->look};
    if (ep->epoll < 0 || ep->kick < 0 || ep->look < 0 ||
        epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->kick, &event) < 0 ||
        epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->look, &look) < 0) {
        rf_log(RF_LOG_ERROR, "rdma: cannot make an event set: %m");
        goto close_all;
    }
    /* A host without a device is told so at once; a port that is down may come up. */
    rdma_place_t place;
    if (params->address) rdma_source_to(params->address, &ep->listen_route);
    err = rdma_place_find(ep, &ep->listen_route, &place);
    if (err != RF_OK && err != RF_ERR_AGAIN) goto close_all;
    rf_endpoint_params_t control = *params;
    control.on_event = rdma_control_event;
    control.context = ep;
    control.medium = NULL;
    err = rf_transport_tcp.endpoint_open(&control, &ep->control);
    if (err != RF_OK) goto close_all;
    event = (struct epoll_event){.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(ep->epoll, EPOLL_CTL_ADD, rf_transport_tcp.endpoint_fd(ep->control), &event) < 0) {
        err = RF_ERR_OS;
        goto close_all;
    }
    *out = &ep->head;
    return RF_OK;

close_all:
    if (ep->control) rf_transport_tcp.endpoint_close(ep->control);
    for (unsigned i = 0; i < ep->n_devices; i++) rdma_device_close(ep->devices[i]);
    if (ep->epoll >= 0) close(ep->epoll);
    if (ep->kick >= 0) close(ep->kick);
    if (ep->look >= 0) close(ep->look);
free_endpoint:
    free(ep);
    return err;
}

void rdma_endpoint_close(rf_endpoint_t *endpoint)
{
    rdma_endpoint_t *ep = endpoint_of(endpoint);
    rf_assert(ep->inside == 0); /* not from a callback */
    for (rdma_link_t *link = ep->links; link; link = link->next) {
        link->control = NULL; /* they end with their endpoint, without ceremony */
        link->fenced = true;
    }
    ep->control->transport->endpoint_close(ep->control);
    while (ep->links) rdma_link_bury(ep->links);
    for (unsigned i = ep->paths_end; i > 0; i--) {
        if (ep->paths[i - 1]) rdma_path_destroy(ep->paths[i - 1]);
    }
    reap(ep);
    rdma_cm_close(ep);
    for (unsigned i = 0; i < ep->n_devices; i++) rdma_device_close(ep->devices[i]);
    close(ep->epoll);
    close(ep->kick);
    close(ep->look);
    free(ep);
}

rf_err_t rdma_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max)
{
    rdma_endpoint_t *ep = endpoint_of(endpoint);
    return ep->control->transport->endpoint_address(ep->control, out, max);
}

int rdma_endpoint_fd(rf_endpoint_t *endpoint)
{
    return endpoint_of(endpoint)->epoll;
}

rf_err_t rdma_link_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out)
{
    rdma_endpoint_t *ep = endpoint_of(endpoint);
    if (!params->address) return RF_ERR_INVALID;
    if (ep->n_links >= RDMA_LINKS_MAX) return RF_ERR_LIMIT;
    rdma_link_t *link = rdma_link_new(ep, params);
    if (!link) return RF_ERR_NO_MEMORY;
    rf_link_params_t control = *params;
    control.slots = RF_RING_SLOTS_MIN;
    control.slots_max = CONTROL_SLOTS_MAX;
    control.user = link;
    link->dialer = true;
    snprintf(link->address_text, sizeof link->address_text, "%s", params->address);
    rf_err_t err = ep->control->transport->connect(ep->control, &control, &link->control);
    if (err != RF_OK) {
        rdma_enter(ep);
        rdma_link_bury(link);
        rdma_leave(ep);
        return err;
    }
    *out = &link->head;
    return RF_OK;
}

rf_err_t rdma_link_accept_incoming(rf_link_t *incoming, const rf_link_params_t *params)
{
    rdma_link_t *link = rdma_link_of(incoming);
    if (!link->incoming || !link->control) return RF_ERR_INVALID;
    if (params && (params->slots > link->ring_size || params->slots_max)) {
        rf_err_t err = rdma_link_size(link, params);
        if (err != RF_OK) return err;
    }
    rf_link_params_t control = {.socket = -1,
                                .hello = params ? params->hello : NULL,
                                .slots = RF_RING_SLOTS_MIN,
                                .slots_max = CONTROL_SLOTS_MAX,
                                .user = link};
    rf_err_t err = link->control->transport->accept(link->control, &control);
    if (err != RF_OK) return err;
    if (params) link->head.user = params->user;
    link->incoming = false;
    return RF_OK;
}

void rdma_link_reject(rf_link_t *incoming, rf_err_t why)
{
    rdma_link_t *link = rdma_link_of(incoming);
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    rdma_enter(ep);
    if (link->control) link->control->transport->reject(link->control, why);
    link->control = NULL;
    link->head.state = RF_LINK_STATE_DEAD;
    rdma_link_bury(link);
    rdma_leave(ep);
}

/* Of a link's own domain: where its peer may write. Paths that die are among them; those that only SEND into shared
 * buffers are not, and nothing that comes over them is looked at. False: some may still be there. */
static bool paths_destroy(rdma_endpoint_t *ep, const rdma_domain_t *domain)
{
    bool all = true;
    for (unsigned i = ep->paths_end; domain && i > 0; i--) {
        rdma_path_t *path = i <= ep->paths_end ? ep->paths[i - 1] : NULL;
        if (path && path->domain == domain) all = rdma_path_destroy(path) && all;
    }
    return all;
}

void rdma_fence(rf_link_t *link_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    rdma_enter(ep);
    uint64_t before_ns = rf_clock_ns();
    paths_drop(link);
    bool certain = paths_destroy(ep, link->domain);
    if (!certain && link->bulk) rdma_bulk_shut(link);
    uint64_t took_ns = rf_clock_ns() - before_ns;
    rf_log(certain ? RF_LOG_INFO : RF_LOG_WARN,
           "rdma: the link to %s is fenced: its queue pairs %s, after %llu us", link->address_text,
           certain ? "are no more"
                   : "are not known to be gone; nothing is read from them any more, and its regions are shut",
           (unsigned long long)(took_ns / RF_NS_PER_US));
    link->fenced = true;
    if (link->control) link->control->transport->fence(link->control);
    link->end_pending = link->attention = false;
    link->dead_ns = RF_NEVER;
    link->delivered = link->accepted;
    if (link->bulk) {
        link->bulk->notify_tail = link->bulk->notify_head;
        link->bulk->acked = link->bulk->done = link->bulk->posted =
            link->bulk->head; /* the buffers are their owner's */
    }
    link->head.state = RF_LINK_STATE_DEAD;
    rdma_leave(ep);
}

/* Closed links wait in the list, newest first: the oldest gives way when there are too many. */
static void lingering_limit(rdma_endpoint_t *ep)
{
    if (ep->n_lingering < RDMA_LINGER_MAX) return;
    rdma_link_t *oldest = NULL;
    for (rdma_link_t *link = ep->links; link; link = link->next) oldest = link->user_closed ? link : oldest;
    if (oldest) rdma_link_bury(oldest);
}

void rdma_close(rf_link_t *link_head)
{
    rdma_link_t *link = rdma_link_of(link_head);
    rdma_endpoint_t *ep = rdma_endpoint_of(link);
    rdma_enter(ep);
    if (link->was_up && link->head.state != RF_LINK_STATE_DEAD && !link->end_pending) {
        lingering_limit(ep);
        rdma_path_kill(link->lanes[RDMA_LANE_BULK].path); /* the device reads the owner's buffers no more */
        rdma_bulk_fail(link, RF_ERR_CLOSED);
        if (link->user_closed || link->buried) { /* by the owner, while it was told */
            rdma_leave(ep);
            return;
        }
        link->user_closed = true;
        ep->n_lingering++;
        link->delivered = link->accepted;
        link->say |= RDMA_WORD_CLOSE;
        uint64_t dead_ns = rf_clock_ns() + ep->deadline_ns;
        if (link->dead_ns > dead_ns) link->dead_ns = dead_ns;
        rdma_timer(ep, link->dead_ns);
        rdma_push(link);
    } else {
        rdma_link_bury(link);
    }
    rdma_leave(ep);
}
