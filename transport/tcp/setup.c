/*
 * From a socket to a link: hello both ways. The listener's side believes nothing: a connection that has not said a
 * valid hello is one of at most TCP_HALF_OPEN_MAX, has a deadline, holds no ring, and is logged at most once in
 * TCP_LOG_INTERVAL_NS; when there are too many the oldest goes.
 */
#include "transport/tcp/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ACCEPTS_PER_CALL_MAX 32
#define ACCEPT_PAUSE_NS      (100 * RF_NS_PER_MS)
#define TLS_RECORD_ALERT     0x15
#define TLS_RECORD_HANDSHAKE 0x16
#define WHY_MAX              160

static void setup_limit(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns, uint64_t limit_ns)
{
    setup->deadline_ns = now_ns + (ep->deadline_ns < limit_ns ? ep->deadline_ns : limit_ns);
    tcp_timer(ep, setup->deadline_ns);
}

static tcp_setup_t *setup_new(tcp_endpoint_t *ep, tcp_conn_t *conn, tcp_link_t *link, uint64_t now_ns,
                              uint64_t limit_ns)
{
    tcp_setup_t *setup = calloc(1, sizeof *setup);
    if (!setup) {
        tcp_conn_free(ep, conn);
        return NULL;
    }
    setup->conn = conn;
    setup->link = link;
    conn->setup = setup;
    setup->prev = ep->setups_last;
    if (ep->setups_last)
        ep->setups_last->next = setup;
    else
        ep->setups = setup;
    ep->setups_last = setup;
    ep->n_half_open += link == NULL;
    setup_limit(ep, setup, now_ns, limit_ns);
    return setup;
}

void tcp_setup_free(tcp_endpoint_t *ep, tcp_setup_t *setup)
{
    if (!setup) return;
    if (setup->prev)
        setup->prev->next = setup->next;
    else
        ep->setups = setup->next;
    if (setup->next)
        setup->next->prev = setup->prev;
    else
        ep->setups_last = setup->prev;
    tcp_link_t *link = setup->link;
    if (!link)
        ep->n_half_open--;
    else if (setup->bulk)
        link->bulk->setup = NULL;
    else
        link->setup = NULL;
    tcp_conn_free(ep, setup->conn);
    free(setup);
}

void tcp_accept_all(tcp_endpoint_t *ep)
{
    uint64_t now_ns = rf_clock_ns();
    for (unsigned i = 0; i < ACCEPTS_PER_CALL_MAX; i++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        memset(&peer, 0, sizeof peer);
        int fd = accept4(ep->listener.fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                if (rf_log_once_per(&ep->log_accept_ns, TCP_LOG_INTERVAL_NS))
                    rf_log(RF_LOG_WARN, "tcp: cannot accept on %s: %m; raise the limit of open files",
                           ep->address);
                struct epoll_event none = {.events = 0, .data.ptr = &ep->listener};
                epoll_ctl(ep->epoll, EPOLL_CTL_MOD, ep->listener.fd, &none);
                ep->listen_again_ns = now_ns + ACCEPT_PAUSE_NS;
                tcp_timer(ep, ep->listen_again_ns);
            }
            if (errno != EINTR && errno != ECONNABORTED) return;
            continue;
        }
        for (tcp_setup_t *s = ep->setups; s && ep->n_half_open >= TCP_HALF_OPEN_MAX;) {
            tcp_setup_t *next = s->next;
            if (!s->link) {
                if (rf_log_once_per(&ep->log_limit_ns, TCP_LOG_INTERVAL_NS))
                    rf_log(RF_LOG_WARN,
                           "tcp: more than %d unfinished connections on %s; dropping the oldest, from %s",
                           TCP_HALF_OPEN_MAX, ep->address, s->peer);
                tcp_setup_free(ep, s);
            }
            s = next;
        }
        tcp_conn_tune(fd, ep->deadline_ns);
        tcp_conn_t *conn = tcp_conn_new(ep, fd, TCP_ROLE_SETUP);
        tcp_setup_t *setup = conn ? setup_new(ep, conn, NULL, now_ns, TCP_HANDSHAKE_NS_MAX) : NULL;
        if (!setup) continue;
        tcp_address_print(&peer, setup->peer, sizeof setup->peer);
        setup->phase = TCP_PHASE_HELLO;
        if (ep->key_size != 0) {
            setup->phase = TCP_PHASE_HANDSHAKE;
            if (tcp_conn_tls_server(conn) != RF_OK) tcp_setup_free(ep, setup);
        }
    }
}

static const char another_machine[] =
    "it belongs to another machine; correct the address, or let `machine` say the same on both hosts";

static const char *const media[TCP_OF_COUNT] = {"tcp", "rdma", "dpdk"};

unsigned tcp_medium_find(const char *name)
{
    unsigned medium = 0;
    while (name && medium < TCP_OF_COUNT && strcmp(name, media[medium]) != 0) medium++;
    return medium;
}

static void medium_differs(char *why, size_t max, uint16_t theirs, uint16_t ours)
{
    snprintf(why, max, "its links are by %s and ours by %s; let `transports` say the same on both hosts",
             theirs < TCP_OF_COUNT ? media[theirs] : "what is not known here", media[ours]);
}

static void version_differs(char *why, size_t max, uint16_t theirs, uint16_t ours)
{
    snprintf(why, max,
             "it speaks version %u of the protocol and this host version %u; install the same release on "
             "both hosts",
             theirs, ours);
}

static void hello_fill(tcp_hello_t *out, const tcp_endpoint_t *ep, const rf_hello_t *self, uint8_t what)
{
    memset(out, 0, sizeof *out);
    memcpy(out->magic, TCP_MAGIC, sizeof out->magic);
    out->version_major = self->version_major;
    out->version_minor = self->version_minor;
    out->what = what;
    out->medium = ep->medium;
    out->kind = self->kind;
    out->core = self->core;
    out->incarnation = self->incarnation;
    memcpy(out->machine, self->machine.bytes, sizeof out->machine);
    memcpy(out->token, self->token, sizeof out->token);
}

static void hello_take(rf_hello_t *out, const tcp_hello_t *hello, uint16_t own_minor)
{
    memset(out, 0, sizeof *out);
    out->version_major = hello->version_major;
    out->version_minor = hello->version_minor < own_minor ? hello->version_minor : own_minor;
    out->kind = hello->kind;
    out->core = hello->core;
    out->incarnation = hello->incarnation;
    memcpy(out->machine.bytes, hello->machine, sizeof hello->machine);
    memcpy(out->token, hello->token, sizeof hello->token);
}

/* A hello is far smaller than a fresh socket's buffer: one that does not fit is a failure. */
static bool hello_send(tcp_conn_t *conn, const tcp_hello_t *hello)
{
    return tcp_conn_send(conn, hello, sizeof *hello) == (int64_t)sizeof *hello;
}

static void hello_counts(tcp_hello_t *hello, const tcp_link_t *link)
{
    memcpy(hello->link_id, link->id, sizeof link->id);
    hello->delivered = link->delivered;
    if (link->bulk) {
        hello->placed = link->bulk->placed;
        hello->partial = link->bulk->partial;
    }
}

bool tcp_answer(tcp_endpoint_t *ep, const tcp_link_t *link, tcp_conn_t *conn, rf_err_t status)
{
    tcp_hello_t hello;
    hello_fill(&hello, ep, link ? &link->hello : &ep->self, TCP_HELLO_ANSWER);
    hello.status = (uint8_t)status;
    if (link) hello_counts(&hello, link);
    return hello_send(conn, &hello);
}

/* --- dialer ------------------------------------------------------------------------------------------------- */

/* This try has failed; the next one comes later each time. */
static void dial_again(tcp_link_t *link, bool bulk, uint64_t now_ns)
{
    uint64_t *backoff = bulk ? &link->bulk->backoff_ns : &link->backoff_ns;
    uint64_t at = now_ns + *backoff;
    *backoff = *backoff * 2 < TCP_BACKOFF_NS_MAX ? *backoff * 2 : TCP_BACKOFF_NS_MAX;
    if (bulk)
        link->bulk->dial_ns = at;
    else
        link->dial_ns = at;
    tcp_timer(tcp_endpoint_of(link), at);
}

void tcp_dial(tcp_link_t *link, bool bulk, uint64_t now_ns)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (bulk)
        link->bulk->dial_ns = RF_NEVER;
    else
        link->dial_ns = RF_NEVER;
    int fd = socket(link->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        if (rf_log_once_per(&ep->log_refused_ns, TCP_LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "tcp: cannot make a socket to %s: %m", link->address_text);
        dial_again(link, bulk, now_ns);
        return;
    }
    tcp_conn_tune(fd, ep->deadline_ns);
    if (connect(fd, (struct sockaddr *)&link->address, link->address_size) < 0 && errno != EINPROGRESS) {
        close(fd);
        dial_again(link, bulk, now_ns);
        return;
    }
    tcp_conn_t *conn = tcp_conn_new(ep, fd, TCP_ROLE_SETUP);
    uint64_t limit_ns = bulk ? link->bulk->connect_ns : link->connect_ns;
    tcp_setup_t *setup = conn ? setup_new(ep, conn, link, now_ns, limit_ns) : NULL;
    if (!setup) {
        dial_again(link, bulk, now_ns);
        return;
    }
    setup->bulk = bulk;
    setup->phase = TCP_PHASE_CONNECT;
    snprintf(setup->peer, sizeof setup->peer, "%.63s", link->address_text);
    if (bulk)
        link->bulk->setup = setup;
    else
        link->setup = setup;
}

/* A refusal that trying again cannot change. */
static void dial_refused(tcp_endpoint_t *ep, tcp_setup_t *setup, rf_err_t err, const char *why)
{
    tcp_link_t *link = setup->link;
    bool bulk = setup->bulk;
    if (!link->user_closed && rf_log_once_per(&ep->log_refused_ns, TCP_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "tcp: %s refuses the link: %s", setup->peer, why);
    tcp_setup_free(ep, setup);
    if (bulk)
        dial_again(link, true, rf_clock_ns());
    else
        tcp_link_end(link, err);
}

static void dial_failed(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    tcp_link_t *link = setup->link;
    bool bulk = setup->bulk;
    tcp_setup_free(ep, setup);
    dial_again(link, bulk, now_ns);
}

static bool dial_hello(tcp_setup_t *setup)
{
    tcp_link_t *link = setup->link;
    tcp_hello_t hello;
    hello_fill(&hello, tcp_endpoint_of(link), &link->hello,
               setup->bulk    ? TCP_HELLO_BULK
               : link->was_up ? TCP_HELLO_RESUME
                              : TCP_HELLO_NEW);
    hello_counts(&hello, link);
    setup->phase = TCP_PHASE_HELLO;
    return hello_send(setup->conn, &hello);
}

static void dial_answered(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    tcp_link_t *link = setup->link;
    const tcp_hello_t hello = setup->hello;
    char why[WHY_MAX];
    if (hello.version_major != link->hello.version_major) {
        version_differs(why, sizeof why, hello.version_major, link->hello.version_major);
        dial_refused(ep, setup, RF_ERR_VERSION, why);
        return;
    }
    if (hello.what != TCP_HELLO_ANSWER || hello.status >= RF_ERR_COUNT) {
        dial_refused(ep, setup, RF_ERR_PROTOCOL, rf_err_text(RF_ERR_PROTOCOL));
        return;
    }
    if (hello.medium != ep->medium) {
        medium_differs(why, sizeof why, hello.medium, ep->medium);
        dial_refused(ep, setup, RF_ERR_CONFIG, why);
        return;
    }
    if (hello.status == RF_ERR_AGAIN || hello.status == RF_ERR_LIMIT) {
        dial_failed(ep, setup, now_ns);
        return;
    }
    if (hello.status != RF_OK) {
        dial_refused(ep, setup, (rf_err_t)hello.status, rf_err_text((rf_err_t)hello.status));
        return;
    }
    if (memcmp(hello.machine, link->hello.machine.bytes, sizeof hello.machine) != 0 ||
        memcmp(hello.link_id, link->id, sizeof link->id) != 0) {
        dial_refused(ep, setup, RF_ERR_AUTH, another_machine);
        return;
    }
    tcp_conn_t *conn = setup->conn;
    bool bulk = setup->bulk;
    setup->conn = NULL;
    tcp_setup_free(ep, setup);
    if (bulk) {
        tcp_bulk_attach(link, conn, hello.placed, hello.partial);
        return;
    }
    if (!link->was_up) hello_take(&link->head.peer, &hello, link->hello.version_minor);
    tcp_link_up(link, conn, hello.delivered);
}

/* --- listener ----------------------------------------------------------------------------------------------- */

static void drop(tcp_endpoint_t *ep, tcp_setup_t *setup, const char *why)
{
    if (rf_log_once_per(&ep->log_garbage_ns, TCP_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "tcp: dropped a connection from %s to %s: %s", setup->peer, ep->address, why);
    tcp_setup_free(ep, setup);
}

static void refuse(tcp_endpoint_t *ep, tcp_setup_t *setup, rf_err_t status, const char *why)
{
    tcp_answer(ep, NULL, setup->conn, status);
    drop(ep, setup, why);
}

static tcp_link_t *link_find(tcp_endpoint_t *ep, const uint8_t id[TCP_LINK_ID])
{
    for (tcp_link_t *link = ep->links; link; link = link->next) {
        if (!link->dialer && memcmp(link->id, id, TCP_LINK_ID) == 0) return link;
    }
    return NULL;
}

static void hello_new(tcp_endpoint_t *ep, tcp_setup_t *setup)
{
    if (ep->n_incoming >= TCP_HALF_OPEN_MAX || ep->n_links >= TCP_LINKS_MAX) {
        refuse(ep, setup, RF_ERR_LIMIT, "as many links as there may be");
        return;
    }
    tcp_link_t *link = tcp_link_new(ep, NULL);
    if (!link) {
        refuse(ep, setup, RF_ERR_LIMIT, "no memory for another link");
        return;
    }
    memcpy(link->id, setup->hello.link_id, sizeof link->id);
    hello_take(&link->head.peer, &setup->hello, ep->self.version_minor);
    snprintf(link->address_text, sizeof link->address_text, "%s", setup->peer);
    link->incoming = true;
    ep->n_incoming++;
    link->conn = setup->conn;
    link->conn->role = TCP_ROLE_MAIN;
    link->conn->link = link;
    setup->conn = NULL;
    tcp_setup_free(ep, setup);
    rf_hello_t peer = link->head.peer;
    tcp_event(link, RF_LINK_INCOMING, RF_OK, &peer, 0);
}

/* A dialer comes back for a link that is here. */
static void hello_again(tcp_endpoint_t *ep, tcp_setup_t *setup, tcp_link_t *link)
{
    rf_hello_t peer;
    hello_take(&peer, &setup->hello, ep->self.version_minor);
    const tcp_hello_t hello = setup->hello;
    if (link->fenced || link->head.state == RF_LINK_STATE_DEAD) {
        tcp_answer(ep, NULL, setup->conn, link->fenced ? RF_ERR_FENCED : RF_ERR_CLOSED);
        tcp_setup_free(ep, setup);
        return;
    }
    /* Of a link whose main connection goes on, that may have said more since. */
    bool counts_right =
        hello.what == TCP_HELLO_BULK || (hello.delivered >= link->acked && hello.delivered <= link->sent_max);
    if (memcmp(&peer, &link->head.peer, sizeof peer) != 0 || !counts_right) {
        link->stats.protocol_errors++;
        refuse(ep, setup, RF_ERR_PROTOCOL, "its hello does not fit its link");
        return;
    }
    if (hello.what == TCP_HELLO_BULK) {
        if (!link->conn || link->incoming || tcp_bulk_need(link) != RF_OK) {
            tcp_answer(ep, link, setup->conn, RF_ERR_AGAIN);
            tcp_setup_free(ep, setup);
            return;
        }
        tcp_bulk_detach(link); /* before the answer says how much of its last chunk arrived */
        if (!tcp_answer(ep, link, setup->conn, RF_OK)) {
            tcp_setup_free(ep, setup);
            return;
        }
        tcp_conn_t *conn = setup->conn;
        setup->conn = NULL;
        tcp_setup_free(ep, setup);
        tcp_bulk_attach(link, conn, hello.placed, hello.partial);
        return;
    }
    tcp_conn_t *conn = setup->conn;
    setup->conn = NULL;
    tcp_setup_free(ep, setup);
    if (link->incoming || link->accepted) {
        tcp_conn_free(ep, link->conn);
        link->conn = conn;
        conn->role = TCP_ROLE_MAIN;
        conn->link = link;
        link->dead_ns = RF_NEVER;
        if (link->accepted) tcp_accepted_finish(link);
        return;
    }
    if (link->conn) /* this end has not noticed the break yet */
        tcp_link_broken(link, RF_ERR_CLOSED, 0);
    if (link->buried || !tcp_answer(ep, link, conn, RF_OK)) {
        tcp_conn_free(ep, conn);
        return;
    }
    tcp_link_up(link, conn, hello.delivered);
}

static void hello_arrived(tcp_endpoint_t *ep, tcp_setup_t *setup)
{
    const tcp_hello_t *hello = &setup->hello;
    char why[WHY_MAX];
    if (hello->version_major != ep->self.version_major) {
        version_differs(why, sizeof why, hello->version_major, ep->self.version_major);
        refuse(ep, setup, RF_ERR_VERSION, why);
        return;
    }
    if (hello->what < TCP_HELLO_NEW || hello->what > TCP_HELLO_BULK || hello->status != 0) {
        drop(ep, setup, "its hello makes no sense");
        return;
    }
    if (hello->medium != ep->medium) {
        medium_differs(why, sizeof why, hello->medium, ep->medium);
        refuse(ep, setup, RF_ERR_CONFIG, why);
        return;
    }
    if (memcmp(hello->machine, ep->self.machine.bytes, sizeof hello->machine) != 0) {
        refuse(ep, setup, RF_ERR_AUTH, another_machine);
        return;
    }
    tcp_link_t *link = link_find(ep, hello->link_id);
    if (link)
        hello_again(ep, setup, link);
    else if (hello->what == TCP_HELLO_NEW)
        hello_new(ep, setup);
    else
        refuse(ep, setup, RF_ERR_PEER_DEAD, "its link is not known here");
}

/* --- both --------------------------------------------------------------------------------------------------- */

/* True: done, the hello is next. False: it waits, or failed and the set-up is gone. */
static bool handshake_step(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    const char *why = "";
    rf_err_t err = tcp_conn_handshake(setup->conn, &why);
    if (err == RF_ERR_AGAIN) return false;
    if (err == RF_OK) {
        setup->phase = TCP_PHASE_HELLO;
        if (!setup->link || dial_hello(setup)) return true;
        dial_failed(ep, setup, now_ns);
        return false;
    }
    char text[WHY_MAX];
    snprintf(text, sizeof text,
             "no TLS 1.3 handshake with the key expected (%s); both hosts need the same key_file", why);
    if (!setup->link)
        drop(ep, setup, text);
    else if (err == RF_ERR_AUTH)
        dial_refused(ep, setup, RF_ERR_AUTH, text);
    else
        dial_failed(ep, setup, now_ns);
    return false;
}

/* The other end speaks TLS and this one does not, or speaks nothing known. */
static void hello_garbage(tcp_endpoint_t *ep, tcp_setup_t *setup)
{
    static const uint8_t handshake_failure[] = {TLS_RECORD_ALERT, 3, 3, 0, 2, 2, 40};
    uint8_t first = setup->bytes[0];
    if (setup->link) {
        dial_refused(ep, setup, first == TLS_RECORD_ALERT ? RF_ERR_AUTH : RF_ERR_PROTOCOL,
                     first == TLS_RECORD_ALERT
                         ? "it asks for encryption, which is off here; both hosts need the same key_file"
                         : "it does not speak Rackfish's protocol");
    } else if (first == TLS_RECORD_HANDSHAKE && !setup->conn->tls) {
        tcp_conn_send(setup->conn, handshake_failure, sizeof handshake_failure);
        drop(ep, setup, "it asks for encryption, which is off here; both hosts need the same key_file");
    } else {
        drop(ep, setup, "it does not speak Rackfish's protocol");
    }
}

static void hello_step(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    while (setup->got < sizeof setup->hello) {
        int64_t n = tcp_conn_recv(setup->conn, setup->bytes + setup->got, sizeof setup->hello - setup->got);
        if (n == TCP_IO_AGAIN) return;
        if (n <= 0) {
            if (setup->link)
                dial_failed(ep, setup, now_ns);
            else
                drop(ep, setup, "it closed before its hello");
            return;
        }
        setup->got += (uint32_t)n;
        uint32_t known =
            setup->got < sizeof setup->hello.magic ? setup->got : (uint32_t)sizeof setup->hello.magic;
        if (memcmp(setup->hello.magic, TCP_MAGIC, known) != 0) {
            hello_garbage(ep, setup);
            return;
        }
    }
    if (setup->link)
        dial_answered(ep, setup, now_ns);
    else
        hello_arrived(ep, setup);
}

void tcp_setup_step(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns)
{
    if (setup->phase == TCP_PHASE_CONNECT) {
        int error = 0;
        socklen_t size = sizeof error;
        struct sockaddr_storage peer, own;
        socklen_t peer_size = sizeof peer, own_size = sizeof own;
        if (getsockopt(setup->conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error != 0) {
            dial_failed(ep, setup, now_ns);
            return;
        }
        if (getpeername(setup->conn->fd, (struct sockaddr *)&peer, &peer_size) < 0)
            return; /* not connected yet */
        /* Dialling a port of this host that nobody listens on can, by chance, connect a socket to itself. */
        if (getsockname(setup->conn->fd, (struct sockaddr *)&own, &own_size) < 0 ||
            (own_size == peer_size && memcmp(&own, &peer, own_size) == 0)) {
            dial_failed(ep, setup, now_ns);
            return;
        }
        setup_limit(ep, setup, now_ns, TCP_HANDSHAKE_NS_MAX);
        if (setup->link->key_size == 0) {
            if (!dial_hello(setup)) dial_failed(ep, setup, now_ns);
            return;
        }
        setup->phase = TCP_PHASE_HANDSHAKE;
        rf_err_t err = tcp_conn_tls_client(setup->conn);
        if (err != RF_OK) {
            dial_refused(ep, setup, err, rf_err_text(err));
            return;
        }
    }
    if (setup->phase == TCP_PHASE_HANDSHAKE && !handshake_step(ep, setup, now_ns)) return;
    hello_step(ep, setup, now_ns);
}
