/*
 * The endpoint: one epoll set, timers, and the life and death of links.
 *
 *   connect()            accept()
 *      |                     |
 *   CONNECTING ------------ UP <----> BROKEN        close(): lingers until the peer has taken everything, then buried
 *      |                     |           |          fence(): DEAD at once, no event
 *      +-------- DEAD <------+-----------+
 */
#include "transport/path/path.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/tcp/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EVENTS_MAX        16
#define CONTROL_SLOTS_MAX 1024
#define CONTROL_BATCHES   4                  /* of control messages' slots, of one link in one call */
#define WHOLE_LOOK_NS     (5 * RF_NS_PER_MS) /* who is woken more often than that looks at the rest that often */

static path_endpoint_t *endpoint_of(rf_endpoint_t *endpoint)
{
    return (path_endpoint_t *)endpoint;
}

/* --- entering and leaving ----------------------------------------------------------------------------------- */

void path_endpoint_enter(path_endpoint_t *ep)
{
    ep->inside++;
}

static void reap(path_endpoint_t *ep)
{
    while (ep->graveyard) {
        path_link_t *link = ep->graveyard;
        ep->graveyard = link->next;
        path_bulk_free(link);
        ep->medium->link_free(link);
        free(link->control_in);
        free(link);
    }
}

void path_endpoint_leave(path_endpoint_t *ep)
{
    if (--ep->inside == 0 && rf_unlikely(ep->graveyard != NULL)) reap(ep);
}

void path_link_event(path_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
                     uint64_t cookie)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    if (link->user_closed || link->fenced || link->buried) return;
    rf_link_event_info_t info = {.err = err, .hello = hello, .cookie = cookie};
    ep->on_event(ep->context, &link->head, event, &info);
}

void path_endpoint_timer(path_endpoint_t *ep, uint64_t at_ns)
{
    if (at_ns >= ep->timer_ns) return;
    ep->timer_ns = at_ns;
    if (!ep->in_progress) {
        uint64_t one = 1;
        ssize_t ignored = write(ep->kick, &one, sizeof one);
        (void)ignored;
    }
}

void path_link_attention(path_link_t *link)
{
    link->attention = true;
    path_endpoint_of(link)->attention = true;
}

void path_link_wrong(path_link_t *link, const char *what)
{
    if (!link->wrong) link->wrong = what;
    path_link_attention(link);
}

/* --- ends of links ------------------------------------------------------------------------------------------ */

static void paths_drop(path_link_t *link)
{
    for (unsigned i = 0; i < PATH_LANES; i++) {
        path_lane_drop(&link->lanes[i]);
        link->lanes[i].offer_ns = RF_NEVER;
    }
}

static void control_drop(path_link_t *link)
{
    rf_link_t *control = link->control;
    if (!control) return;
    link->control = NULL;
    control->user = NULL;
    control->transport->close(control);
}

void path_link_bury(path_link_t *link)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    if (link->buried) return;
    paths_drop(link);
    control_drop(link);
    link->buried = true;
    link->attention = false;
    if (ep->walk == link) ep->walk = link->next;
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

void path_link_broken(path_link_t *link, rf_err_t err)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    uint64_t now_ns = rf_clock_ns();
    ep->medium->keep(link);
    path_lane_drop(lane);
    link->up_due = false;
    if (link->buried || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    path_lane_need(lane, now_ns);
    if (link->dead_ns == RF_NEVER) {
        link->dead_ns = now_ns + ep->deadline_ns;
        path_endpoint_timer(ep, link->dead_ns);
    }
    if (link->head.state != RF_LINK_STATE_UP) return;
    link->head.state = RF_LINK_STATE_BROKEN;
    link->stats.broken++;
    path_link_event(link, RF_LINK_BROKEN, err, NULL, 0);
}

void path_link_end(path_link_t *link, rf_err_t err)
{
    if (link->buried || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    path_medium_of(link)->keep(link); /* what came before the end is still served */
    paths_drop(link);
    control_drop(link);
    link->dead_ns = RF_NEVER;
    if (link->user_closed) {
        path_link_bury(link);
        return;
    }
    link->end_pending = true;
    link->end_err = err;
    if (path_link_served(link)) path_link_attention(link);
}

void path_link_end_settle(path_link_t *link)
{
    if (!link->end_pending || !path_link_served(link)) return;
    link->end_pending = false;
    link->head.state = RF_LINK_STATE_DEAD;
    path_bulk_fail(link, link->end_err);
    path_link_event(link, RF_LINK_DEAD, link->end_err, NULL, 0);
}

void path_link_closed(path_link_t *link)
{
    link->close_at = RF_NEVER;
    if (link->user_closed) { /* both ends closed: neither wants more */
        path_link_bury(link);
        return;
    }
    paths_drop(link);
    link->closed_due = true;
    path_control_push(link);
    link->dead_ns = RF_NEVER;
    link->end_err = RF_ERR_CLOSED;
    link->head.state = RF_LINK_STATE_DEAD;
    path_bulk_fail(link, RF_ERR_CLOSED);
    path_link_event(link, RF_LINK_CLOSED, RF_OK, NULL, 0);
}

/* --- progress ----------------------------------------------------------------------------------------------- */

static void refresh(path_endpoint_t *ep)
{
    struct epoll_event events[EVENTS_MAX];
    int n = epoll_wait(ep->epoll, events, EVENTS_MAX, 0);
    for (int i = 0; i < n; i++) {
        void *tag = events[i].data.ptr;
        if (tag == ep) {
            uint64_t count;
            ssize_t ignored = read(ep->kick, &count, sizeof count);
            (void)ignored;
        } else if (tag && ep->medium->heard) {
            ep->medium->heard(ep, tag);
        }
    }
}

/* The next link of a walk, each once: NULL behind the last. A callback may close any link, this one and the next too; one
 * that is new comes in front, and has its turn in the next walk. */
static path_link_t *walk_next(path_endpoint_t *ep)
{
    path_link_t *link = ep->walk;
    if (link) ep->walk = link->next;
    return link;
}

static void links_settle(path_endpoint_t *ep)
{
    ep->attention = false;
    ep->walk = ep->links;
    for (path_link_t *link; (link = walk_next(ep));)
        if (link->attention) path_link_settle(link);
}

/* A peer that says much is heard in turn with the others; over control links only in a whole look. True: there is more. */
static bool links_hear(path_endpoint_t *ep, bool whole)
{
    bool more = false;
    if (whole) ep->control_more = false;
    ep->walk = ep->links;
    for (path_link_t *link; (link = walk_next(ep));) {
        if (whole && link->control && link->control->transport->ready(link->control))
            ep->control_more |= path_control_poll(link, CONTROL_BATCHES);
        if (!link->buried) more |= ep->medium->hear(link);
    }
    return more || ep->control_more;
}

static void link_timers(path_link_t *link, uint64_t now_ns)
{
    if (link->dead_ns <= now_ns) {
        link->dead_ns = RF_NEVER;
        path_link_end(link, link->was_up ? RF_ERR_PEER_DEAD : RF_ERR_TIMEOUT);
        return;
    }
    path_control_timers(link, now_ns);
}

static uint64_t link_next(const path_link_t *link)
{
    uint64_t next_ns = path_control_next(link);
    return link->dead_ns < next_ns ? link->dead_ns : next_ns;
}

static void timers_run(path_endpoint_t *ep, uint64_t now_ns)
{
    ep->timer_ns = RF_NEVER;
    ep->walk = ep->links;
    for (path_link_t *link; (link = walk_next(ep));)
        if (link_next(link) <= now_ns) link_timers(link, now_ns);
    for (path_link_t *link = ep->links; link; link = link->next) {
        uint64_t next_ns = link_next(link);
        if (next_ns < ep->timer_ns) ep->timer_ns = next_ns;
    }
}

/* What could not be sent when it was due, and what closed links still have to hear. */
static void links_push(path_endpoint_t *ep)
{
    for (path_link_t *link = ep->links; link; link = link->next) {
        if (link->posted != link->slots_head || link->say || link->say_ack) ep->medium->push(link);
        if (link->bulk) path_bulk_pump(link);
        if (link->control) path_control_push(link);
    }
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Looks at all that may be heard, which takes system calls; not where the medium says what has ended a sleep, unless that
 * is long ago or there is something to do. True: it did. */
static bool look_whole(path_endpoint_t *ep, uint64_t now_ns)
{
    bool due = ep->control_more || earlier(ep->whole_ns, ep->control_ns) <= now_ns;
    if (!due && ep->medium->woken && ep->medium->woken(ep)) return false;
    ep->whole_ns = now_ns + WHOLE_LOOK_NS;
    refresh(ep);
    ep->control->transport->endpoint_progress(ep->control, now_ns, &ep->control_ns);
    return true;
}

void path_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    path_endpoint_t *ep = endpoint_of(endpoint);
    path_endpoint_enter(ep);
    ep->in_progress = true;
    bool whole = look_whole(ep, now_ns);
    ep->medium->progress(ep, now_ns); /* what came over a path comes before what is said about it */
    bool more = links_hear(ep, whole);
    links_push(ep);
    if (ep->attention) links_settle(ep);
    if (ep->timer_ns <= now_ns) timers_run(ep, now_ns);
    uint64_t rest_ns = ep->medium->rest(ep, now_ns);
    uint64_t look_ns = whole ? ep->control_ns : earlier(ep->control_ns, ep->whole_ns);
    *next_ns = ep->attention || more ? now_ns : earlier(earlier(ep->timer_ns, rest_ns), look_ns);
    ep->in_progress = false;
    path_endpoint_leave(ep);
}

/* --- operations: the endpoint ------------------------------------------------------------------------------- */

rf_err_t path_endpoint_watch(path_endpoint_t *ep, int fd, void *tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    return epoll_ctl(ep->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? RF_OK : RF_ERR_OS;
}

static rf_err_t control_open(path_endpoint_t *ep, const rf_endpoint_params_t *params)
{
    rf_endpoint_params_t control = *params;
    control.on_event = path_control_event;
    control.context = ep;
    control.medium = (void *)(uintptr_t)ep->head.transport->name; /* said in the control links' hellos */
    rf_err_t err = rf_transport_tcp.endpoint_open(&control, &ep->control);
    if (err == RF_OK) err = path_endpoint_watch(ep, rf_transport_tcp.endpoint_fd(ep->control), NULL);
    return err;
}

static rf_err_t set_open(path_endpoint_t *ep)
{
    ep->epoll = epoll_create1(EPOLL_CLOEXEC);
    ep->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ep->epoll >= 0 && ep->kick >= 0 && path_endpoint_watch(ep, ep->kick, ep) == RF_OK) return RF_OK;
    rf_log(RF_LOG_ERROR, "%s: cannot make an event set: %m", ep->head.transport->name);
    return RF_ERR_OS;
}

static void set_close(path_endpoint_t *ep)
{
    if (ep->epoll >= 0) close(ep->epoll);
    if (ep->kick >= 0) close(ep->kick);
}

rf_err_t path_endpoint_open(const path_medium_t *medium, const rf_endpoint_params_t *params,
                            rf_endpoint_t **out)
{
    path_endpoint_t *ep = calloc(1, medium->endpoint_size);
    if (!ep) return RF_ERR_NO_MEMORY;
    ep->head.transport = medium->transport;
    ep->medium = medium;
    ep->on_event = params->on_event;
    ep->context = params->context;
    ep->deadline_ns = params->deadline_ns ? params->deadline_ns : PATH_DEADLINE_NS_DEFAULT;
    ep->self = params->self;
    ep->timer_ns = RF_NEVER;
    rf_err_t err = set_open(ep);
    if (err != RF_OK) goto close_set;
    err = medium->open(ep, params);
    if (err == RF_OK) err = control_open(ep, params);
    if (err != RF_OK) goto close_medium;
    *out = &ep->head;
    return RF_OK;

close_medium:
    if (ep->control) ep->control->transport->endpoint_close(ep->control);
    medium->close(ep);
close_set:
    set_close(ep);
    free(ep);
    return err;
}

void path_endpoint_close(rf_endpoint_t *endpoint)
{
    path_endpoint_t *ep = endpoint_of(endpoint);
    rf_assert(ep->inside == 0); /* not from a callback */
    for (path_link_t *link = ep->links; link; link = link->next) {
        link->control = NULL; /* they end with their endpoint, without ceremony */
        link->fenced = true;
    }
    ep->control->transport->endpoint_close(ep->control);
    while (ep->links) path_link_bury(ep->links);
    reap(ep);
    ep->medium->close(ep);
    set_close(ep);
    free(ep);
}

rf_err_t path_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max)
{
    path_endpoint_t *ep = endpoint_of(endpoint);
    return ep->control->transport->endpoint_address(ep->control, out, max);
}

int path_endpoint_fd(rf_endpoint_t *endpoint)
{
    return endpoint_of(endpoint)->epoll;
}

/* --- operations: links -------------------------------------------------------------------------------------- */

rf_err_t path_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out)
{
    path_endpoint_t *ep = endpoint_of(endpoint);
    if (!params->address) return RF_ERR_INVALID;
    if (ep->n_links >= PATH_LINKS_MAX) return RF_ERR_LIMIT;
    path_link_t *link = path_link_new(ep, params);
    if (!link) return RF_ERR_NO_MEMORY;
    rf_link_params_t control = *params;
    control.slots = RF_RING_SLOTS_MIN;
    control.slots_max = CONTROL_SLOTS_MAX;
    control.user = link;
    link->dialer = true;
    if (params->hello) link->self = *params->hello;
    snprintf(link->address_text, sizeof link->address_text, "%s", params->address);
    rf_err_t err = ep->control->transport->connect(ep->control, &control, &link->control);
    if (err != RF_OK) {
        path_endpoint_enter(ep);
        path_link_bury(link);
        path_endpoint_leave(ep);
        return err;
    }
    *out = &link->head;
    return RF_OK;
}

rf_err_t path_accept(rf_link_t *incoming, const rf_link_params_t *params)
{
    path_link_t *link = path_link_of(incoming);
    if (!link->incoming || !link->control) return RF_ERR_INVALID;
    if (params && (params->slots > link->ring_size || params->slots_max)) {
        rf_err_t err = path_link_size(link, params);
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
    if (params && params->hello) link->self = *params->hello;
    link->incoming = false;
    return RF_OK;
}

void path_reject(rf_link_t *incoming, rf_err_t why)
{
    path_link_t *link = path_link_of(incoming);
    path_endpoint_t *ep = path_endpoint_of(link);
    path_endpoint_enter(ep);
    if (link->control) link->control->transport->reject(link->control, why);
    link->control = NULL;
    link->head.state = RF_LINK_STATE_DEAD;
    path_link_bury(link);
    path_endpoint_leave(ep);
}

/* What came and waits for poll() is nobody's any more. */
static void discard(path_link_t *link)
{
    link->delivered = link->accepted;
    if (link->bulk) link->bulk->notify_tail = link->bulk->notify_head;
}

void path_fence(rf_link_t *link_head)
{
    path_link_t *link = path_link_of(link_head);
    path_endpoint_t *ep = path_endpoint_of(link);
    path_endpoint_enter(ep);
    link->fenced = true;
    ep->medium->fence(link);
    paths_drop(link);
    if (link->control) link->control->transport->fence(link->control);
    link->end_pending = link->attention = false;
    link->dead_ns = RF_NEVER;
    discard(link);
    if (link->bulk) { /* the buffers are their owner's */
        path_bulk_t *bulk = link->bulk;
        bulk->acked = bulk->done = bulk->posted = bulk->head;
        bulk->read_told = bulk->read_done = bulk->read_posted = bulk->read_head;
    }
    link->head.state = RF_LINK_STATE_DEAD;
    path_endpoint_leave(ep);
}

/* Closed links wait in the list, newest first: the oldest gives way when there are too many. */
static void lingering_limit(path_endpoint_t *ep)
{
    if (ep->n_lingering < PATH_LINGER_MAX) return;
    path_link_t *oldest = NULL;
    for (path_link_t *link = ep->links; link; link = link->next) oldest = link->user_closed ? link : oldest;
    if (oldest) path_link_bury(oldest);
}

/* Goes on without its owner until the peer has taken everything. */
static void linger(path_link_t *link)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    lingering_limit(ep);
    path_lane_drop(&link->lanes[PATH_LANE_BULK]); /* the owner's buffers are read no more */
    path_bulk_fail(link, RF_ERR_CLOSED);
    if (link->user_closed || link->buried) return; /* by the owner, while it was told */
    link->user_closed = true;
    ep->n_lingering++;
    discard(link);
    link->say |= PATH_WORD_CLOSE;
    uint64_t dead_ns = rf_clock_ns() + ep->deadline_ns;
    if (link->dead_ns > dead_ns) link->dead_ns = dead_ns;
    path_endpoint_timer(ep, link->dead_ns);
    ep->medium->push(link);
}

void path_close(rf_link_t *link_head)
{
    path_link_t *link = path_link_of(link_head);
    path_endpoint_t *ep = path_endpoint_of(link);
    path_endpoint_enter(ep);
    if (link->was_up && link->head.state != RF_LINK_STATE_DEAD && !link->end_pending) {
        linger(link);
    } else {
        path_lane_drop(&link->lanes[PATH_LANE_BULK]); /* the owner's buffers are read no more */
        path_bulk_fail(link, link->end_pending ? link->end_err : RF_ERR_CLOSED);
        path_link_bury(link);
    }
    path_endpoint_leave(ep);
}
