/*
 * The endpoint: one epoll set, timers, and the life and death of links.
 *
 *   connect()            accept()
 *      |                     |
 *   CONNECTING ------------ UP <----> BROKEN        close(): lingers until its last bytes are out, then buried
 *      |                     |           |          fence(): DEAD at once, no event
 *      +-------- DEAD <------+-----------+
 */
#include "transport/tcp/internal.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define REFRESHES_PER_PROGRESS_MAX 4
#define LISTEN_BACKLOG             256
#define FLAP_NS_MAX                (16 * RF_NS_PER_MS)
#define STEADY_NS                  (20 * RF_NS_PER_MS) /* a connection that lasted so long starts the back-off anew */

static tcp_endpoint_t *endpoint_of(rf_endpoint_t *endpoint)
{
    return (tcp_endpoint_t *)endpoint;
}

/* --- entering and leaving ----------------------------------------------------------------------------------- */

void tcp_enter(tcp_endpoint_t *ep)
{
    ep->inside++;
}

static void reap(tcp_endpoint_t *ep)
{
    while (ep->conn_graveyard) {
        tcp_conn_t *conn = ep->conn_graveyard;
        ep->conn_graveyard = conn->next;
        free(conn);
    }
    while (ep->link_graveyard) {
        tcp_link_t *link = ep->link_graveyard;
        ep->link_graveyard = link->next;
        tcp_bulk_free(link);
        free(link->ring);
        free(link->out);
        free(link->rx);
        gnutls_memset(link, 0, sizeof *link);
        free(link);
    }
}

void tcp_leave(tcp_endpoint_t *ep)
{
    if (--ep->inside == 0 && rf_unlikely(ep->conn_graveyard || ep->link_graveyard)) reap(ep);
}

void tcp_event(tcp_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
               uint64_t cookie)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (link->user_closed || link->fenced || link->buried) return;
    rf_link_event_info_t info = {.err = err, .hello = hello, .cookie = cookie};
    ep->on_event(ep->context, &link->head, event, &info);
}

void tcp_timer(tcp_endpoint_t *ep, uint64_t at_ns)
{
    if (at_ns >= ep->timer_ns) return;
    ep->timer_ns = at_ns;
    if (!ep->in_progress) {
        uint64_t one = 1;
        ssize_t ignored = write(ep->kick, &one, sizeof one);
        (void)ignored;
    }
}

/* --- ends of links ------------------------------------------------------------------------------------------ */

static void connections_drop(tcp_link_t *link)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_conn_free(ep, link->conn);
    link->conn = NULL;
    tcp_setup_free(ep, link->setup);
    if (link->bulk) {
        tcp_setup_free(ep, link->bulk->setup);
        tcp_bulk_detach(link);
    }
    link->out_head = link->out_tail = 0;
    link->dial_ns = RF_NEVER;
}

void tcp_link_bury(tcp_link_t *link)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (link->buried) return;
    connections_drop(link);
    link->buried = true;
    ep->n_links--;
    ep->n_incoming -= link->incoming || link->accepted;
    ep->n_lingering -= link->user_closed;
    if (link->prev)
        link->prev->next = link->next;
    else
        ep->links = link->next;
    if (link->next) link->next->prev = link->prev;
    link->next = ep->link_graveyard;
    ep->link_graveyard = link;
}

/* Closing it and wiping its keys takes longer than telling of it. */
static void conn_retire(tcp_endpoint_t *ep, tcp_conn_t *conn, uint64_t now_ns)
{
    if (!conn) return;
    conn->role = TCP_ROLE_NONE;
    conn->next = ep->conn_retired;
    ep->conn_retired = conn;
    tcp_timer(ep, now_ns);
}

static void close_retired(tcp_endpoint_t *ep)
{
    while (ep->conn_retired) {
        tcp_conn_t *conn = ep->conn_retired;
        ep->conn_retired = conn->next;
        tcp_conn_free(ep, conn);
    }
}

void tcp_link_broken(tcp_link_t *link, rf_err_t err, uint64_t spent_ns)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    uint64_t now_ns = rf_clock_ns();
    conn_retire(ep, link->conn, now_ns);
    link->conn = NULL;
    connections_drop(link);
    link->rx_stale = true;
    if (link->rx_head == link->rx_tail) link->rx_slots = 0;
    link->dead_ns = now_ns + (spent_ns < ep->deadline_ns ? ep->deadline_ns - spent_ns : 0);
    tcp_timer(ep, link->dead_ns);
    if (link->dialer) {
        /* A connection that breaks at once, again and again, is not made again at full speed. */
        bool steady = !link->was_up || now_ns - link->up_ns > STEADY_NS;
        uint64_t slower_ns = link->backoff_ns * 2 < FLAP_NS_MAX ? link->backoff_ns * 2 : FLAP_NS_MAX;
        link->backoff_ns = steady ? TCP_BACKOFF_NS_MIN : slower_ns;
        link->dial_ns = now_ns + link->backoff_ns;
        tcp_timer(ep, link->dial_ns);
    }
    if (!link->was_up) return;
    link->head.state = RF_LINK_STATE_BROKEN;
    link->stats.broken++;
    tcp_event(link, RF_LINK_BROKEN, err, NULL, 0);
}

void tcp_link_end(tcp_link_t *link, rf_err_t err)
{
    if (link->buried || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    connections_drop(link);
    link->dead_ns = RF_NEVER;
    link->rx_stale = true;
    if (link->user_closed) {
        tcp_link_bury(link);
        return;
    }
    link->end_pending = true;
    link->end_err = err;
    tcp_link_end_settle(link);
}

void tcp_link_end_settle(tcp_link_t *link)
{
    bool served =
        link->rx_head == link->rx_tail && (!link->bulk || link->bulk->notify_head == link->bulk->notify_tail);
    if (!link->end_pending || !served) return;
    link->end_pending = false;
    link->head.state = RF_LINK_STATE_DEAD;
    tcp_bulk_fail(link, link->end_err);
    tcp_event(link, RF_LINK_DEAD, link->end_err, NULL, 0);
}

void tcp_link_closed(tcp_link_t *link)
{
    if (link->user_closed) { /* both ends closed: neither wants more */
        tcp_link_bury(link);
        return;
    }
    link->say_ack = true; /* the peer learns that it has all been taken, and lingers no longer */
    tcp_push(link);
    connections_drop(link);
    link->dead_ns = RF_NEVER;
    link->end_pending = false;
    link->end_err = RF_ERR_CLOSED;
    link->rx_head = link->rx_tail = 0;
    link->head.state = RF_LINK_STATE_DEAD;
    tcp_bulk_fail(link, RF_ERR_CLOSED);
    tcp_event(link, RF_LINK_CLOSED, RF_OK, NULL, 0);
}

/* --- events ------------------------------------------------------------------------------------------------- */

void tcp_accepted_finish(tcp_link_t *link)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_conn_t *conn = link->conn;
    link->conn = NULL;
    if (!tcp_answer(ep, link, conn, RF_OK)) { /* the dialer will come again, or not */
        tcp_conn_free(ep, conn);
        link->dead_ns = rf_clock_ns() + ep->deadline_ns;
        tcp_timer(ep, link->dead_ns);
        return;
    }
    link->accepted = false;
    ep->n_incoming--;
    tcp_link_up(link, conn, 0);
}

/* A dialer says nothing before its answer: what can be read here is the end of the connection, or nonsense. */
static void incoming_watch(tcp_link_t *link)
{
    uint8_t byte;
    if (tcp_conn_recv(link->conn, &byte, 1) == TCP_IO_AGAIN) return;
    tcp_conn_free(tcp_endpoint_of(link), link->conn);
    link->conn = NULL;
    link->dead_ns = rf_clock_ns() + tcp_endpoint_of(link)->deadline_ns;
    tcp_timer(tcp_endpoint_of(link), link->dead_ns);
}

/* An edge is said once: what it said is kept, also for the link that a set-up's connection will be of. */
static void note_edge(tcp_conn_t *conn, uint32_t events)
{
    conn->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    conn->hup |= (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    conn->writable |= (events & EPOLLOUT) != 0;
}

static void main_event(tcp_conn_t *conn)
{
    tcp_link_t *link = conn->link;
    if (link->accepted) {
        tcp_accepted_finish(link);
        return;
    }
    if (link->incoming) {
        if (conn->readable) incoming_watch(link);
        return;
    }
    if (conn->writable) tcp_push(link);
    if (link->conn == conn && conn->readable && (conn->hup || conn->tx_dead || link->user_closed))
        tcp_absorb(link);
}

void tcp_refresh(tcp_endpoint_t *ep)
{
    struct epoll_event events[TCP_EVENTS_MAX];
    ep->cold_polls = 0;
    for (unsigned round = 0; round < REFRESHES_PER_PROGRESS_MAX; round++) {
        int n = epoll_wait(ep->epoll, events, TCP_EVENTS_MAX, 0);
        for (int i = 0; i < n; i++) {
            tcp_conn_t *conn = events[i].data.ptr;
            if (!conn) {
                uint64_t count;
                ssize_t ignored = ep->in_progress ? read(ep->kick, &count, sizeof count) : 0;
                (void)ignored;
                continue;
            }
            if (conn->role != TCP_ROLE_LISTENER) note_edge(conn, events[i].events);
            switch (conn->role) {
            case TCP_ROLE_LISTENER:
                tcp_accept_all(ep);
                break;
            case TCP_ROLE_SETUP:
                tcp_setup_step(ep, conn->setup, rf_clock_ns());
                break;
            case TCP_ROLE_MAIN:
                main_event(conn);
                break;
            case TCP_ROLE_BULK:
                tcp_bulk_pump(conn->link);
                break;
            case TCP_ROLE_NONE:
                break;
            }
        }
        if (n < TCP_EVENTS_MAX) break;
    }
}

/* --- timers ------------------------------------------------------------------------------------------------- */

static void setup_expired(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    tcp_link_t *link = setup->link;
    bool bulk = setup->bulk, connecting = setup->phase == TCP_PHASE_CONNECT;
    if (!link && rf_log_once_per(&ep->log_garbage_ns, TCP_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "tcp: dropped a connection from %s to %s: no hello in time", setup->peer,
               ep->address);
    tcp_setup_free(ep, setup);
    if (!link) return;
    uint64_t *connect_ns = bulk ? &link->bulk->connect_ns : &link->connect_ns;
    if (connecting && *connect_ns < TCP_CONNECT_NS_MAX) *connect_ns *= 2;
    *(bulk ? &link->bulk->dial_ns : &link->dial_ns) = now_ns;
}

static void link_timers(tcp_link_t *link, uint64_t now_ns)
{
    if (link->dead_ns <= now_ns) {
        link->dead_ns = RF_NEVER;
        tcp_link_end(link, link->was_up ? RF_ERR_PEER_DEAD : RF_ERR_TIMEOUT);
        return;
    }
    if (link->dial_ns <= now_ns) tcp_dial(link, false, now_ns);
    if (link->bulk && link->bulk->dial_ns <= now_ns) tcp_dial(link, true, now_ns);
}

static void timers_run(tcp_endpoint_t *ep, uint64_t now_ns)
{
    ep->timer_ns = RF_NEVER;
    if (ep->listen_again_ns != 0 && ep->listen_again_ns <= now_ns) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ep->listener};
        epoll_ctl(ep->epoll, EPOLL_CTL_MOD, ep->listener.fd, &event);
        ep->listen_again_ns = 0;
    }
    for (tcp_setup_t *setup = ep->setups, *next; setup; setup = next) {
        next = setup->next;
        if (setup->deadline_ns <= now_ns) setup_expired(ep, setup, now_ns);
    }
    /* A callback may close any link, this one too: buried links keep their memory until tcp_leave(), but not their
     * place in the list, so the walk starts again after each that did something. Each does so at most once. */
    for (tcp_link_t *link = ep->links; link;) {
        bool due = link->dead_ns <= now_ns || link->dial_ns <= now_ns ||
                   (link->bulk && link->bulk->dial_ns <= now_ns);
        if (due) {
            link_timers(link, now_ns);
            link = ep->links;
        } else {
            link = link->next;
        }
    }
    uint64_t at = ep->listen_again_ns ? ep->listen_again_ns : RF_NEVER;
    for (tcp_setup_t *setup = ep->setups; setup; setup = setup->next)
        at = setup->deadline_ns < at ? setup->deadline_ns : at;
    for (tcp_link_t *link = ep->links; link; link = link->next) {
        at = link->dead_ns < at ? link->dead_ns : at;
        at = link->dial_ns < at ? link->dial_ns : at;
        if (link->bulk && link->bulk->dial_ns < at) at = link->bulk->dial_ns;
    }
    ep->timer_ns = at;
}

void tcp_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    tcp_endpoint_t *ep = endpoint_of(endpoint);
    tcp_enter(ep);
    ep->in_progress = true;
    close_retired(ep);
    tcp_refresh(ep);
    if (ep->bulk_busy) {
        ep->bulk_busy = false;
        for (tcp_link_t *link = ep->links; link;) {
            if (tcp_bulk_ready(link)) tcp_bulk_pump(link);
            link = link->buried ? ep->links : link->next; /* a callback may have closed it */
        }
    }
    if (ep->timer_ns <= now_ns) timers_run(ep, now_ns);
    *next_ns = ep->bulk_busy || ep->conn_retired ? now_ns : ep->timer_ns;
    ep->in_progress = false;
    tcp_leave(ep);
}

/* --- operations --------------------------------------------------------------------------------------------- */

static rf_err_t listen_on(tcp_endpoint_t *ep, const char *address)
{
    struct sockaddr_storage at;
    socklen_t size;
    if (tcp_address_parse(address, &at, &size) != RF_OK) {
        rf_log(RF_LOG_ERROR,
               "tcp: '%s' is no address to listen on; write it as 192.0.2.7:4711 or [2001:db8::7]:4711",
               address);
        return RF_ERR_INVALID;
    }
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        rf_log(RF_LOG_ERROR, "tcp: cannot make a socket: %m");
        return RF_ERR_OS;
    }
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &ep->listener};
    if (bind(fd, (struct sockaddr *)&at, size) < 0 || listen(fd, LISTEN_BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) < 0 ||
        epoll_ctl(ep->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int saved = errno;
        rf_log(RF_LOG_ERROR, "tcp: cannot listen on %s: %m%s", address,
               saved == EADDRINUSE      ? "; choose another port or stop the program that has it"
               : saved == EADDRNOTAVAIL ? "; it is no address of this host"
               : saved == EACCES        ? "; ports below 1024 need a privilege"
                                        : "");
        close(fd);
        errno = saved;
        return RF_ERR_OS;
    }
    ep->listener.fd = fd;
    tcp_address_print(&at, ep->address, sizeof ep->address);
    return RF_OK;
}

rf_err_t tcp_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    unsigned medium = tcp_medium_find(params->medium);
    if (params->key && (params->key_size == 0 || params->key_size > TCP_KEY_MAX)) return RF_ERR_INVALID;
    if (medium == TCP_OF_COUNT) return RF_ERR_INVALID;
    tcp_endpoint_t *ep = calloc(1, sizeof *ep);
    if (!ep) return RF_ERR_NO_MEMORY;
    ep->head.transport = &rf_transport_tcp;
    ep->self = params->self;
    ep->medium = (uint16_t)medium;
    ep->on_event = params->on_event;
    ep->context = params->context;
    ep->deadline_ns = params->deadline_ns ? params->deadline_ns : TCP_DEADLINE_NS_DEFAULT;
    ep->timer_ns = RF_NEVER;
    ep->listener = (tcp_conn_t){.role = TCP_ROLE_LISTENER, .fd = -1, .endpoint = ep};
    if (params->key) {
        memcpy(ep->key, params->key, params->key_size);
        ep->key_size = (uint32_t)params->key_size;
    }
    rf_err_t err = RF_ERR_OS;
    ep->epoll = epoll_create1(EPOLL_CLOEXEC);
    ep->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (ep->epoll < 0 || ep->kick < 0 || epoll_ctl(ep->epoll, EPOLL_CTL_ADD, ep->kick, &event) < 0) {
        rf_log(RF_LOG_ERROR, "tcp: cannot make an event set: %m");
        goto close_all;
    }
    if (params->address && (err = listen_on(ep, params->address)) != RF_OK) goto close_all;
    *out = &ep->head;
    return RF_OK;

close_all:
    if (ep->epoll >= 0) close(ep->epoll);
    if (ep->kick >= 0) close(ep->kick);
    gnutls_memset(ep, 0, sizeof *ep);
    free(ep);
    return err;
}

void tcp_endpoint_close(rf_endpoint_t *endpoint)
{
    tcp_endpoint_t *ep = endpoint_of(endpoint);
    rf_assert(ep->inside == 0); /* not from a callback */
    for (tcp_link_t *link = ep->links; link; link = ep->links) tcp_link_bury(link);
    while (ep->setups) tcp_setup_free(ep, ep->setups);
    close_retired(ep);
    reap(ep);
    if (ep->listener.fd >= 0) close(ep->listener.fd);
    close(ep->epoll);
    close(ep->kick);
    if (ep->server_credentials) gnutls_psk_free_server_credentials(ep->server_credentials);
    if (ep->client_credentials) gnutls_psk_free_client_credentials(ep->client_credentials);
    gnutls_memset(ep, 0, sizeof *ep);
    free(ep);
}

rf_err_t tcp_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max)
{
    tcp_endpoint_t *ep = endpoint_of(endpoint);
    if (ep->listener.fd < 0) return RF_ERR_NOT_SUPPORTED;
    if (strlen(ep->address) >= max) return RF_ERR_TRUNCATED;
    snprintf(out, max, "%s", ep->address);
    return RF_OK;
}

int tcp_endpoint_fd(rf_endpoint_t *endpoint)
{
    return endpoint_of(endpoint)->epoll;
}

rf_err_t tcp_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out)
{
    tcp_endpoint_t *ep = endpoint_of(endpoint);
    if (!params->address || (params->key && (params->key_size == 0 || params->key_size > TCP_KEY_MAX)))
        return RF_ERR_INVALID;
    struct sockaddr_storage address;
    socklen_t size;
    if (tcp_address_parse(params->address, &address, &size) != RF_OK) {
        rf_log(RF_LOG_ERROR,
               "tcp: '%s' is no address to connect to; write it as 192.0.2.7:4711 or [2001:db8::7]:4711",
               params->address);
        return RF_ERR_INVALID;
    }
    if (ep->n_links >= TCP_LINKS_MAX) return RF_ERR_LIMIT;
    tcp_link_t *link = tcp_link_new(ep, params);
    if (!link) return RF_ERR_NO_MEMORY;
    link->dialer = true;
    link->address = address;
    link->address_size = size;
    snprintf(link->address_text, sizeof link->address_text, "%s", params->address);
    rf_random_secret(link->id, sizeof link->id);
    uint64_t now_ns = rf_clock_ns();
    link->dead_ns = now_ns + ep->deadline_ns;
    tcp_timer(ep, link->dead_ns);
    tcp_dial(link, false, now_ns);
    *out = &link->head;
    return RF_OK;
}

rf_err_t tcp_accept(rf_link_t *incoming, const rf_link_params_t *params)
{
    tcp_link_t *link = tcp_link_of(incoming);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (!link->incoming) return RF_ERR_INVALID;
    if (params) {
        if (params->hello) link->hello = *params->hello;
        if (params->slots > link->ring_size || params->slots_max) {
            rf_err_t err = tcp_link_size(link, params);
            if (err != RF_OK) return err;
        }
        link->head.user = params->user;
    }
    link->incoming = false;
    link->accepted = true;
    if (link->conn) { /* its answer is sent by progress(): a fresh edge makes it due */
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                    .data.ptr = link->conn};
        epoll_ctl(ep->epoll, EPOLL_CTL_MOD, link->conn->fd, &event);
    }
    return RF_OK;
}

void tcp_reject(rf_link_t *incoming, rf_err_t why)
{
    tcp_link_t *link = tcp_link_of(incoming);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_enter(ep);
    if (link->incoming && link->conn)
        tcp_answer(ep, link, link->conn, why == RF_OK || why == RF_ERR_AGAIN ? RF_ERR_PERMISSION : why);
    link->head.state = RF_LINK_STATE_DEAD;
    tcp_link_bury(link);
    tcp_leave(ep);
}

void tcp_fence(rf_link_t *link_head)
{
    tcp_link_t *link = tcp_link_of(link_head);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_enter(ep);
    connections_drop(link);
    link->fenced = true;
    link->end_pending = false;
    link->dead_ns = RF_NEVER;
    link->rx_head = link->rx_tail = 0;
    link->rx_slots = 0;
    if (link->bulk) {
        link->bulk->notify_head = link->bulk->notify_tail;
        link->bulk->acked = link->bulk->full = link->bulk->head; /* the buffers are their owner's again */
    }
    link->head.state = RF_LINK_STATE_DEAD;
    tcp_leave(ep);
}

void tcp_close(rf_link_t *link_head)
{
    tcp_link_t *link = tcp_link_of(link_head);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_enter(ep);
    bool lingers = link->was_up && link->head.state != RF_LINK_STATE_DEAD && !link->end_pending;
    if (link->incoming && link->conn) tcp_answer(ep, link, link->conn, RF_ERR_CLOSED);
    if (lingers) {
        /* Closed links wait in the list, newest first: the oldest gives way when there are too many. */
        if (ep->n_lingering >= TCP_LINGER_MAX) {
            tcp_link_t *oldest = NULL;
            for (tcp_link_t *l = ep->links; l; l = l->next) oldest = l->user_closed ? l : oldest;
            if (oldest) tcp_link_bury(oldest);
        }
        tcp_bulk_fail(link, RF_ERR_CLOSED);
        link->user_closed = true;
        ep->n_lingering++;
        link->say_close = true;
        uint64_t dead_ns = rf_clock_ns() + ep->deadline_ns;
        if (link->dead_ns > dead_ns) link->dead_ns = dead_ns;
        tcp_timer(ep, link->dead_ns);
        if (link->conn) {
            tcp_push(link);
            tcp_absorb(link);
        }
    } else {
        tcp_link_bury(link);
    }
    tcp_leave(ep);
}
