/*
 * Inside the TCP medium.
 *
 *   tcp_endpoint   listener, one epoll set, timers, the links and the connections being set up
 *   tcp_conn       one socket, with or without TLS; belongs to a set-up, then to a link (main or bulk)
 *   tcp_link       rings and counts; outlives its connections
 *
 *   conn.c      bytes in and out, TLS               setup.c   hello both ways, re-dialling, resuming
 *   link.c      slots: frames out and in            bulk.c    regions and remote writes
 *   endpoint.c  progress, timers, life and death
 *
 * Invariants
 *   - Everything belongs to the endpoint's thread. Nothing blocks.
 *   - acked <= framed <= head and acked <= sent_max <= head, all counts of slots since the link began; the slots
 *     [acked, head) are in the ring.
 *   - Bytes of a broken connection that had arrived are still served to the owner of the link (`rx_stale`) before
 *     the new connection is read; what comes twice is dropped by its sequence.
 *   - Links and connections are freed by tcp_reap() only, when no callback and no event batch can still hold them.
 */
#ifndef RF_TRANSPORT_TCP_INTERNAL_H
#define RF_TRANSPORT_TCP_INTERNAL_H

#include "base/memory.h"
#include "transport/tcp/format.h"
#include "transport/tcp/tcp.h"

#include <gnutls/gnutls.h>
#include <sys/socket.h>

#define TCP_HALF_OPEN_MAX       64 /* connections that have not said a valid hello, and links not answered */
#define TCP_HANDSHAKE_NS_MAX    5000000000ull
#define TCP_CONNECT_NS_MIN      250000000ull  /* a SYN that was lost; the kernel's next would go after 1 s */
#define TCP_CONNECT_NS_MAX      2000000000ull /* each try in a row has twice as long: the way may be so long */
#define TCP_DEADLINE_NS_DEFAULT 10000000000ull
#define TCP_BACKOFF_NS_MIN      2000000ull
#define TCP_BACKOFF_NS_MAX      500000000ull
#define TCP_LINKS_MAX           4096
#define TCP_LINGER_MAX          256 /* closed links whose last bytes are still on their way */
#define TCP_KEY_MAX             64
#define TCP_REGIONS_MAX         64 /* a link */
#define TCP_WRITES_MAX          64 /* outstanding remote writes of a link, and waiting notify slots */
#define TCP_BUFFER              (64u << 10) /* bytes read and written at a time */
#define TCP_EVENTS_MAX          64
#define TCP_HOT_POLLS           256          /* direct receives in vain before a link counts as idle */
#define TCP_BULK_QUANTUM        (512u << 10) /* bulk bytes moved a call, each way, so that slots never wait long */
#define TCP_BULK_COPY_MAX       8192 /* chunks up to this size are copied behind their head: one send */
#define TCP_LOG_INTERVAL_NS     10000000000ull
#define TCP_REKEY_RECORDS       (1u << 22) /* records under one key; AES-GCM's bound is 2^24.5 */

/* Results of moving bytes; positive: how many. */
#define TCP_IO_END   0 /* the peer closed the connection */
#define TCP_IO_AGAIN (-1)
#define TCP_IO_ERROR (-2)

typedef struct tcp_endpoint tcp_endpoint_t;
typedef struct tcp_link tcp_link_t;
typedef struct tcp_conn tcp_conn_t;
typedef struct tcp_setup tcp_setup_t;

typedef enum tcp_role {
    TCP_ROLE_LISTENER,
    TCP_ROLE_SETUP,
    TCP_ROLE_MAIN,
    TCP_ROLE_BULK,
    TCP_ROLE_NONE
} tcp_role_t;

struct tcp_conn {
    tcp_role_t role; /* what the epoll event is for */
    int fd;
    bool readable; /* as far as is known: there may be something to receive */
    bool writable; /* false after a send that did not fit, until epoll says so */
    bool hup;      /* the other end will send no more: readable stays set until the end is read */
    bool tx_dead;  /* sending failed; what has arrived is still read */
    tcp_endpoint_t *endpoint;
    union {
        tcp_setup_t *setup;
        tcp_link_t *link;
    };
    gnutls_session_t tls; /* NULL: plain */
    uint8_t *raw;         /* TLS: bytes received and not yet decrypted */
    uint32_t raw_head, raw_tail;
    uint32_t tls_pending; /* bytes of a record given to GnuTLS that did not fit into the socket */
    uint32_t tls_records;
    bool tls_rekey;   /* a key update is under way */
    tcp_conn_t *next; /* in the graveyard */
};

typedef enum tcp_phase {
    TCP_PHASE_CONNECT,   /* dialer: the connection is being made */
    TCP_PHASE_HANDSHAKE, /* TLS */
    TCP_PHASE_HELLO,     /* reading the other end's hello */
    TCP_PHASE_DONE,
} tcp_phase_t;

/* A connection between accept or dial and the end of the hellos. */
struct tcp_setup {
    tcp_conn_t *conn;
    tcp_link_t *link; /* dialer: whose; NULL at the listener */
    tcp_phase_t phase;
    bool bulk;
    uint64_t deadline_ns;
    uint32_t got;
    union {
        tcp_hello_t hello;
        uint8_t bytes[sizeof(tcp_hello_t)];
    };
    char peer[64]; /* for log lines */
    tcp_setup_t *prev, *next;
};

struct tcp_endpoint {
    rf_endpoint_t head;
    rf_hello_t self;
    uint16_t medium; /* TCP_OF_* */
    rf_link_event_fn on_event;
    void *context;
    uint64_t deadline_ns;
    uint8_t key[TCP_KEY_MAX];
    uint32_t key_size; /* 0: not encrypted */
    int epoll, kick;   /* kick: an eventfd in the set, written when a timer moved nearer outside progress() */
    tcp_conn_t listener; /* fd -1: only connects */
    char address[RF_ADDRESS_MAX];
    uint64_t listen_again_ns; /* accepting pauses until then when descriptors ran out; 0: it does not */
    gnutls_psk_server_credentials_t server_credentials;
    gnutls_psk_client_credentials_t client_credentials;
    tcp_link_t *links;
    uint32_t n_links, n_incoming, n_lingering;
    tcp_setup_t *setups, *setups_last; /* oldest first */
    uint32_t n_half_open;
    uint64_t timer_ns;   /* the next time any timer may be due; RF_NEVER */
    uint32_t cold_polls; /* polls of idle links since the epoll set was last asked */
    uint32_t inside;     /* depth of calls that may run callbacks */
    bool in_progress;
    bool bulk_busy; /* some link's bulk stopped at its quantum */
    tcp_conn_t
        *conn_retired; /* of links that broke: closed by the next progress(), after what is said about that */
    tcp_conn_t *conn_graveyard;
    tcp_link_t *link_graveyard;
    uint64_t log_garbage_ns, log_accept_ns, log_limit_ns, log_refused_ns;
};

typedef struct tcp_write {
    uint64_t region, offset, size, cookie;
    const uint8_t *source;
    bool has_notify;
    rf_slot_t notify;
} tcp_write_t;

typedef struct tcp_region {
    rf_region_t head;
    uint64_t id;
    bool used;
} tcp_region_t;

/* The second connection of a link: remote writes of both directions. Made on demand (bulk.c). */
typedef struct tcp_bulk_state {
    tcp_conn_t *conn;
    tcp_setup_t *setup; /* dialer: while it is being made */
    uint64_t dial_ns, dialled_ns, backoff_ns, connect_ns;
    bool asked; /* listener: the dialer was asked to make it */
    bool pumping;
    uint32_t polls; /* of the link, since the epoll set was asked */
    /* Out. acked <= full <= head: counts of writes placed, wholly sent, and taken; [acked, head) are in the queue. */
    uint64_t acked, full, head;
    uint64_t sent;   /* bytes of write `full` that are sent */
    bool chunk_open; /* a chunk of it is on its way: `out`, then chunk_left bytes of the source */
    uint32_t chunk_left;
    uint32_t out_size, out_sent;
    uint8_t out[sizeof(tcp_bulk_t) + sizeof(rf_slot_t) + TCP_BULK_COPY_MAX];
    tcp_write_t writes[TCP_WRITES_MAX];
    /* In. */
    uint64_t placed, partial,
        placed_said; /* writes placed whole, bytes of the next, and what the peer was told */
    uint8_t in[sizeof(tcp_bulk_t) + sizeof(rf_slot_t)];
    uint32_t in_size;
    bool in_data; /* the head is whole and right; in_left bytes follow */
    uint32_t in_left;
    uint8_t *in_at; /* where they go; NULL: to a region that was destroyed */
    uint64_t in_region;
    uint32_t notify_head, notify_tail;
    rf_slot_t notify[TCP_WRITES_MAX];
    uint64_t regions_made;
    tcp_region_t regions[TCP_REGIONS_MAX];
} tcp_bulk_state_t;

struct tcp_link {
    rf_link_t head;
    tcp_link_t *prev, *next; /* in the endpoint's list; next also in the graveyard */
    uint8_t id[TCP_LINK_ID];
    bool dialer, was_up, armed;
    bool incoming;    /* listener: waits for accept() or reject() */
    bool accepted;    /* accept() was called and its answer is due in progress() */
    bool user_closed; /* close() was called: no more callbacks; freed when the last bytes are out */
    bool buried;
    bool fenced;
    bool end_pending; /* DEAD is due as soon as everything that arrived has been polled */
    rf_err_t end_err;
    rf_hello_t hello; /* what this end says */
    uint8_t key[TCP_KEY_MAX];
    uint32_t key_size;
    struct sockaddr_storage address;
    socklen_t address_size;
    char address_text[RF_ADDRESS_MAX];
    tcp_conn_t *conn;   /* main */
    tcp_setup_t *setup; /* dialer: while main is being made */
    uint64_t dial_ns;   /* when to dial next; RF_NEVER */
    uint64_t backoff_ns;
    uint64_t connect_ns; /* how long the next connect() may take */
    uint64_t up_ns;
    uint64_t dead_ns; /* when to give up; RF_NEVER while up */

    /* Slots out. */
    rf_slot_t *ring;
    uint32_t ring_size, slots_max;
    uint64_t slots_head, acked, framed, sent_max;
    uint32_t room_wanted;              /* a send of so many was refused; 0: none */
    bool want_ack;                     /* the next frame asks for an acknowledgement */
    uint64_t ack_asked_at;             /* one was asked for everything up to here */
    bool say_ack, say_close, say_bulk; /* the next frame is due even without slots */
    bool close_framed;
    uint32_t push_waits; /* polls since a push that did not fit */
    uint8_t *out;
    uint32_t out_head, out_tail;

    /* Slots in. */
    uint8_t *rx;
    uint32_t rx_head, rx_tail;
    bool rx_stale;        /* the bytes are of the connection before */
    uint32_t rx_slots;    /* still to come of the current frame */
    uint64_t rx_sequence; /* of the next of them */
    uint64_t delivered, delivered_said;
    uint64_t ack_due_at;    /* answer the first WANT_ACK not answered once so many are delivered; RF_NEVER */
    uint64_t ack_wanted_at; /* the same of the last */
    uint32_t hot;           /* direct receives left before the link counts as idle */

    tcp_bulk_state_t *bulk; /* NULL until regions or remote writes are used */
    rf_link_stats_t stats;
};

/* conn.c */
rf_err_t tcp_address_parse(const char *text, struct sockaddr_storage *out, socklen_t *size);
void tcp_address_print(const struct sockaddr_storage *address, char *out, size_t max);
/* Takes over `fd` (non-blocking) and watches it. NULL when memory or the epoll set refuse; fd is closed then. */
tcp_conn_t *tcp_conn_new(tcp_endpoint_t *ep, int fd, tcp_role_t role);
void tcp_conn_tune(int fd, uint64_t deadline_ns);
/* Closes at once; the memory goes with tcp_reap(). */
void tcp_conn_free(tcp_endpoint_t *ep, tcp_conn_t *conn);
/* Start TLS on a connection that belongs to a set-up. */
rf_err_t tcp_conn_tls_client(tcp_conn_t *conn);
rf_err_t tcp_conn_tls_server(tcp_conn_t *conn);
/* RF_OK: done; RF_ERR_AGAIN: waits for the socket; else failed and *why says how. */
rf_err_t tcp_conn_handshake(tcp_conn_t *conn, const char **why);
/* Positive: bytes moved; else TCP_IO_*. After AGAIN from send, offer the same bytes again (more may follow them). */
int64_t tcp_conn_recv(tcp_conn_t *conn, void *bytes, size_t size);
int64_t tcp_conn_send(tcp_conn_t *conn, const void *bytes, size_t size);
/* Something may be there to receive. */
bool tcp_conn_more(const tcp_conn_t *conn);

/* setup.c */
/* TCP_OF_* of a name; NULL: this medium itself; TCP_OF_COUNT: there is none. */
unsigned tcp_medium_find(const char *name);
void tcp_accept_all(tcp_endpoint_t *ep);
void tcp_dial(tcp_link_t *link, bool bulk, uint64_t now_ns);
void tcp_setup_step(tcp_endpoint_t *ep, tcp_setup_t *setup, uint64_t now_ns);
void tcp_setup_free(tcp_endpoint_t *ep, tcp_setup_t *setup);
/* Listener: answers a dialer on `conn`. False: the connection failed. */
bool tcp_answer(tcp_endpoint_t *ep, const tcp_link_t *link, tcp_conn_t *conn, rf_err_t status);

/* link.c */
tcp_link_t *tcp_link_new(tcp_endpoint_t *ep, const rf_link_params_t *params);
/* Makes the ring as large as `params` asks. */
rf_err_t tcp_link_size(tcp_link_t *link, const rf_link_params_t *params);
void tcp_link_up(tcp_link_t *link, tcp_conn_t *conn, uint64_t peer_delivered);
/* Sends what is due. Runs no callback: a failure is marked (tx_dead) and found by the next receive. */
void tcp_push(tcp_link_t *link);
/* The peer sent nonsense: counted, logged, and the link ends. */
void tcp_protocol_error(tcp_link_t *link, const char *what);
/* Takes in what the socket holds, without serving slots: to reach the end of a connection, or while lingering. */
void tcp_absorb(tcp_link_t *link);
unsigned tcp_room(rf_link_t *link, unsigned want);
unsigned tcp_send(rf_link_t *link, const rf_slot_t *slots, unsigned n);
rf_err_t tcp_flush(rf_link_t *link);
unsigned tcp_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void tcp_arm(rf_link_t *link);
bool tcp_ready(rf_link_t *link);
void tcp_disarm(rf_link_t *link);
void tcp_stats(rf_link_t *link, rf_link_stats_t *out);

/* bulk.c */
/* Makes the link's bulk state if it is not there. */
rf_err_t tcp_bulk_need(tcp_link_t *link);
/* Dialer: makes the second connection, if it is neither there nor being made. */
void tcp_bulk_dial(tcp_link_t *link);
void tcp_bulk_attach(tcp_link_t *link, tcp_conn_t *conn, uint64_t peer_placed, uint64_t peer_partial);
void tcp_bulk_detach(tcp_link_t *link);
/* Moves what can be moved, at most a quantum each way; makes the connection if there is something to write. */
void tcp_bulk_pump(tcp_link_t *link);
bool tcp_bulk_ready(const tcp_link_t *link);
/* Serves notify slots. */
unsigned tcp_bulk_notified(tcp_link_t *link, rf_slot_t *out, unsigned max);
/* The peer has placed so many writes. False: it cannot have. */
bool tcp_bulk_placed(tcp_link_t *link, uint64_t placed);
/* Every outstanding write ends with `err`. */
void tcp_bulk_fail(tcp_link_t *link, rf_err_t err);
void tcp_bulk_free(tcp_link_t *link);
rf_err_t tcp_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void tcp_region_destroy(rf_link_t *link, rf_region_t *region);
rf_err_t tcp_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                          size_t size, const rf_slot_t *notify, uint64_t cookie);

/* endpoint.c */
/* accept() was called: the answer goes out, and slots flow. */
void tcp_accepted_finish(tcp_link_t *link);
void tcp_enter(tcp_endpoint_t *ep);
void tcp_leave(tcp_endpoint_t *ep);
void tcp_event(tcp_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
               uint64_t cookie);
void tcp_timer(tcp_endpoint_t *ep, uint64_t at_ns);
/* Asks the epoll set what is known now, and acts on it. */
void tcp_refresh(tcp_endpoint_t *ep);
/* The peer closed in order, and everything before that has been polled. */
void tcp_link_closed(tcp_link_t *link);
/* The main connection is gone. `spent_ns`: how long there has been no contact already. */
void tcp_link_broken(tcp_link_t *link, rf_err_t err, uint64_t spent_ns);
/* The link ends with `err`: at once if nothing that arrived is left, else after it has been polled. */
void tcp_link_end(tcp_link_t *link, rf_err_t err);
/* Delivers an end that was waiting, if it may be. */
void tcp_link_end_settle(tcp_link_t *link);
void tcp_link_bury(tcp_link_t *link);
rf_err_t tcp_accept(rf_link_t *incoming, const rf_link_params_t *params);
void tcp_reject(rf_link_t *incoming, rf_err_t why);
rf_err_t tcp_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
void tcp_fence(rf_link_t *link);
void tcp_close(rf_link_t *link);
rf_err_t tcp_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);
void tcp_endpoint_close(rf_endpoint_t *endpoint);
rf_err_t tcp_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max);
int tcp_endpoint_fd(rf_endpoint_t *endpoint);
void tcp_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);

static inline tcp_link_t *tcp_link_of(rf_link_t *link)
{
    return (tcp_link_t *)link;
}
static inline tcp_endpoint_t *tcp_endpoint_of(tcp_link_t *link)
{
    return (tcp_endpoint_t *)link->head.endpoint;
}

#endif
