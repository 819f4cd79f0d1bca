/*
 * One socket: addresses, bytes in and out, TLS.
 *
 * TLS is 1.3 only, with a pre-shared key and ephemeral Diffie-Hellman (forward secrecy), no certificates, no tickets.
 */
#include "transport/tcp/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* No signature is ever made (there are no certificates), but GnuTLS takes no list without them. */
#define TLS_PRIORITY                                                                                         \
    "NONE:+VERS-TLS1.3:+ECDHE-PSK:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+GROUP-X25519:+GROUP-SECP256R1:"     \
    "+SIGN-ALL"
#define TLS_KEY_NAME   "rackfish"
#define FD_HIGH        512
#define TLS_RAW_SIZE   (64u << 10)
#define TLS_RECORD_MAX 16384

rf_err_t tcp_address_parse(const char *text, struct sockaddr_storage *out, socklen_t *size)
{
    char host[RF_ADDRESS_MAX];
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || strlen(text) >= sizeof host) return RF_ERR_INVALID;
    char *end;
    errno = 0;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port > 65535) return RF_ERR_INVALID;
    size_t length = (size_t)(colon - text);
    memcpy(host, text, length);
    host[length] = 0;

    struct sockaddr_storage address;
    memset(&address, 0, sizeof address);
    if (host[0] == '[') {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
        if (length < 2 || host[length - 1] != ']') return RF_ERR_INVALID;
        host[length - 1] = 0;
        if (inet_pton(AF_INET6, host + 1, &v6->sin6_addr) != 1) return RF_ERR_INVALID;
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *size = sizeof *v6;
    } else {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
        if (inet_pton(AF_INET, host, &v4->sin_addr) != 1) return RF_ERR_INVALID;
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *size = sizeof *v4;
    }
    *out = address;
    return RF_OK;
}

void tcp_address_print(const struct sockaddr_storage *address, char *out, size_t max)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        snprintf(out, max, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        snprintf(out, max, "%s:%u", host, ntohs(v4->sin_port));
    }
}

/* A process that dies has its descriptors closed from the highest on: so a number above those of links inside the host, for those at
 * the other end, who know of the death by it, wait longest. */
static int number_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, FD_HIGH);
    if (high < 0) return fd; /* there are none so high */
    close(fd);
    return high;
}

tcp_conn_t *tcp_conn_new(tcp_endpoint_t *ep, int fd, tcp_role_t role)
{
    fd = number_high(fd);
    tcp_conn_t *conn = calloc(1, sizeof *conn);
    if (!conn) {
        close(fd);
        return NULL;
    }
    conn->role = role;
    conn->fd = fd;
    conn->endpoint = ep;
    /* Edge-triggered for good: going from spinning to sleeping and back costs no system call. What an edge said is
     * kept in readable and writable. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(ep->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        close(fd);
        free(conn);
        return NULL;
    }
    return conn;
}

void tcp_conn_tune(int fd, uint64_t deadline_ns)
{
    int one = 1;
    unsigned timeout_ms = (unsigned)(deadline_ns / 2 / RF_NS_PER_MS);
    if (timeout_ms == 0) timeout_ms = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
    /* An idle connection learns too that its peer has reset it while the path was cut. Probes go with the deadline, so
     * that patient links are quiet: from a quarter of it on, a few until the time above has passed. */
    int idle_s = (int)(deadline_ns / 4 / RF_NS_PER_S), interval_s = (int)(deadline_ns / 16 / RF_NS_PER_S);
    if (idle_s < 1) idle_s = 1;
    if (interval_s < 1) interval_s = 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
}

void tcp_conn_free(tcp_endpoint_t *ep, tcp_conn_t *conn)
{
    if (!conn) return;
    /* Unread bytes at close() make the kernel send a reset, which could overtake what this end said last. */
    uint8_t rest[4096];
    for (unsigned i = 0; i < 64 && recv(conn->fd, rest, sizeof rest, MSG_DONTWAIT) > 0; i++) continue;
    close(conn->fd);
    conn->fd = -1;
    conn->role = TCP_ROLE_NONE;
    if (conn->tls) {
        gnutls_deinit(conn->tls);
        conn->tls = NULL;
    }
    if (conn->raw) {
        gnutls_memset(conn->raw, 0, TLS_RAW_SIZE);
        free(conn->raw);
        conn->raw = NULL;
    }
    conn->next = ep->conn_graveyard;
    ep->conn_graveyard = conn;
}

/* GnuTLS asks for a record's head, then for its body: one receive serves both, and further records. */
static ssize_t tls_pull(gnutls_transport_ptr_t pointer, void *bytes, size_t size)
{
    tcp_conn_t *conn = pointer;
    if (conn->raw_head == conn->raw_tail) {
        ssize_t got = recv(conn->fd, conn->raw, TLS_RAW_SIZE, MSG_DONTWAIT);
        if (got <= 0) {
            if (got < 0 && errno == EAGAIN) conn->readable = conn->hup;
            gnutls_transport_set_errno(conn->tls, got < 0 ? errno : 0);
            return got;
        }
        conn->readable = (size_t)got == TLS_RAW_SIZE || conn->hup;
        conn->raw_head = 0;
        conn->raw_tail = (uint32_t)got;
    }
    size_t n = conn->raw_tail - conn->raw_head;
    if (n > size) n = size;
    memcpy(bytes, conn->raw + conn->raw_head, n);
    conn->raw_head += (uint32_t)n;
    return (ssize_t)n;
}

static ssize_t tls_push(gnutls_transport_ptr_t pointer, const giovec_t *parts, int n)
{
    tcp_conn_t *conn = pointer;
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts, .msg_iovlen = (size_t)n};
    ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) gnutls_transport_set_errno(conn->tls, errno);
    return sent;
}

/* There is data when the socket has some: a wait would block, and is never wanted. */
static int tls_pull_timeout(gnutls_transport_ptr_t pointer, unsigned ms)
{
    (void)pointer;
    (void)ms;
    return 1;
}

static rf_err_t tls_start(tcp_conn_t *conn, unsigned flags, gnutls_credentials_type_t type, void *credentials)
{
    conn->raw = malloc(TLS_RAW_SIZE);
    if (!conn->raw) return RF_ERR_NO_MEMORY;
    if (gnutls_init(&conn->tls, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) < 0)
        return RF_ERR_NO_MEMORY;
    const char *at;
    if (gnutls_priority_set_direct(conn->tls, TLS_PRIORITY, &at) < 0 ||
        gnutls_credentials_set(conn->tls, type, credentials) < 0) {
        rf_log(RF_LOG_ERROR, "tcp: this GnuTLS does not offer TLS 1.3 with ECDHE-PSK; install 3.7 or later");
        return RF_ERR_NOT_SUPPORTED;
    }
    gnutls_session_set_ptr(conn->tls, conn);
    gnutls_transport_set_ptr(conn->tls, conn);
    gnutls_transport_set_pull_function(conn->tls, tls_pull);
    gnutls_transport_set_pull_timeout_function(conn->tls, tls_pull_timeout);
    gnutls_transport_set_vec_push_function(conn->tls, tls_push);
    gnutls_handshake_set_timeout(conn->tls, GNUTLS_INDEFINITE_TIMEOUT); /* the set-up has its own deadline */
    return RF_OK;
}

static int key_copy(gnutls_datum_t *out, const uint8_t *key, uint32_t size)
{
    out->data = gnutls_malloc(size);
    if (!out->data) return -1;
    memcpy(out->data, key, size);
    out->size = size;
    return 0;
}

/* Called by GnuTLS in every handshake of a dialer, whose links may have different keys. */
static int psk_client_key(gnutls_session_t session, char **name, gnutls_datum_t *key)
{
    const tcp_conn_t *conn = gnutls_session_get_ptr(session);
    const tcp_link_t *link = conn->setup->link;
    *name = gnutls_strdup(TLS_KEY_NAME);
    return *name ? key_copy(key, link->key, link->key_size) : -1;
}

rf_err_t tcp_conn_tls_client(tcp_conn_t *conn)
{
    tcp_endpoint_t *ep = conn->endpoint;
    if (!ep->client_credentials) {
        if (gnutls_psk_allocate_client_credentials(&ep->client_credentials) < 0) return RF_ERR_NO_MEMORY;
        gnutls_psk_set_client_credentials_function(ep->client_credentials, psk_client_key);
    }
    return tls_start(conn, GNUTLS_CLIENT, GNUTLS_CRD_PSK, ep->client_credentials);
}

static int psk_server_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const tcp_conn_t *conn = gnutls_session_get_ptr(session);
    const tcp_endpoint_t *ep = conn->endpoint;
    return strcmp(name, TLS_KEY_NAME) == 0 ? key_copy(key, ep->key, ep->key_size) : -1;
}

rf_err_t tcp_conn_tls_server(tcp_conn_t *conn)
{
    tcp_endpoint_t *ep = conn->endpoint;
    if (!ep->server_credentials) {
        if (gnutls_psk_allocate_server_credentials(&ep->server_credentials) < 0) return RF_ERR_NO_MEMORY;
        gnutls_psk_set_server_credentials_function(ep->server_credentials, psk_server_key);
    }
    return tls_start(conn, GNUTLS_SERVER, GNUTLS_CRD_PSK, ep->server_credentials);
}

rf_err_t tcp_conn_handshake(tcp_conn_t *conn, const char **why)
{
    for (;;) {
        int result = gnutls_handshake(conn->tls);
        if (result == GNUTLS_E_SUCCESS) return RF_OK;
        if (result == GNUTLS_E_AGAIN) return RF_ERR_AGAIN;
        if (gnutls_error_is_fatal(result)) {
            *why = gnutls_strerror(result);
            /* A connection that just ends may be made again; everything else is a peer without the key. */
            if (result == GNUTLS_E_PREMATURE_TERMINATION || result == GNUTLS_E_PULL_ERROR ||
                result == GNUTLS_E_PUSH_ERROR)
                return RF_ERR_CLOSED;
            gnutls_alert_send_appropriate(conn->tls, result);
            return RF_ERR_AUTH;
        }
    }
}

bool tcp_conn_more(const tcp_conn_t *conn)
{
    return conn->readable ||
           (conn->tls && (conn->raw_head < conn->raw_tail || gnutls_record_check_pending(conn->tls) > 0));
}

static int64_t tls_recv(tcp_conn_t *conn, uint8_t *bytes, size_t size)
{
    size_t got = 0;
    do {
        ssize_t n = gnutls_record_recv(conn->tls, bytes + got, size - got);
        if (n > 0) {
            got += (size_t)n;
            continue;
        }
        if (got > 0) {
            conn->readable |= n != GNUTLS_E_AGAIN; /* says so again the next time */
            return (int64_t)got;
        }
        if (n == 0 || n == GNUTLS_E_PREMATURE_TERMINATION) return TCP_IO_END;
        if (n == GNUTLS_E_AGAIN) return TCP_IO_AGAIN;
        return n == GNUTLS_E_INTERRUPTED ? TCP_IO_AGAIN : TCP_IO_ERROR;
    } while (got < size && (conn->raw_head < conn->raw_tail || gnutls_record_check_pending(conn->tls) > 0));
    return (int64_t)got;
}

int64_t tcp_conn_recv(tcp_conn_t *conn, void *bytes, size_t size)
{
    if (conn->tls) return tls_recv(conn, bytes, size);
    ssize_t got = recv(conn->fd, bytes, size, MSG_DONTWAIT);
    if (got > 0) {
        conn->readable = (size_t)got == size || conn->hup; /* a short read has emptied the socket */
        return got;
    }
    if (got == 0) return TCP_IO_END;
    if (errno == EAGAIN || errno == EINTR) {
        conn->readable = errno == EINTR || conn->hup;
        return TCP_IO_AGAIN;
    }
    return TCP_IO_ERROR;
}

static int64_t tls_send(tcp_conn_t *conn, const void *bytes, size_t size)
{
    if (conn->tls_rekey || ++conn->tls_records >= TCP_REKEY_RECORDS) {
        int result = conn->tls_pending == 0 ? gnutls_session_key_update(conn->tls, 0) : 0;
        conn->tls_rekey = conn->tls_pending > 0 || result == GNUTLS_E_AGAIN;
        if (result == GNUTLS_E_AGAIN) {
            conn->writable = false;
            return TCP_IO_AGAIN;
        }
        if (result < 0) return TCP_IO_ERROR;
        conn->tls_records = 0;
    }
    ssize_t sent;
    if (conn->tls_pending > 0) {
        sent = gnutls_record_send(conn->tls, NULL, 0);
    } else {
        if (size > TLS_RECORD_MAX) size = TLS_RECORD_MAX;
        sent = gnutls_record_send(conn->tls, bytes, size);
    }
    if (sent == GNUTLS_E_AGAIN || sent == GNUTLS_E_INTERRUPTED) {
        if (conn->tls_pending == 0) conn->tls_pending = (uint32_t)size;
        conn->writable = false;
        return TCP_IO_AGAIN;
    }
    if (sent < 0) return TCP_IO_ERROR;
    int64_t done = conn->tls_pending > 0 ? conn->tls_pending : sent;
    conn->tls_pending = 0;
    return done;
}

int64_t tcp_conn_send(tcp_conn_t *conn, const void *bytes, size_t size)
{
    if (conn->tls) return tls_send(conn, bytes, size);
    ssize_t sent = send(conn->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
        conn->writable = (size_t)sent == size;
        return sent > 0 ? sent : TCP_IO_AGAIN;
    }
    if (errno == EAGAIN || errno == EINTR) {
        conn->writable = errno == EINTR;
        return TCP_IO_AGAIN;
    }
    return TCP_IO_ERROR;
}
