/*
 * The one interface to every medium.
 *
 *   endpoint   a process's presence on one medium: it listens, connects, and is what an event loop waits on
 *   link       an ordered, exactly-once path of slots to one peer (a pair of incarnations), both directions
 *   region     memory that the peer of a link may write (bulk)
 *
 * Rules that hold for every medium and are proven by the conformance suite (tests/conformance):
 *
 *   order         slots of a link arrive in the order sent, each exactly once, also over a connection that breaks
 *                 and is made again; a slot is the sender's until the peer's incarnation has taken it
 *   blocking      nothing here blocks, but open and listen
 *   back-pressure full is a normal answer: send takes fewer slots than offered; RF_LINK_ROOM follows when there is
 *                 room again. Callers keep no retry queue.
 *   bounds        all memory is taken at connect or accept, or when a ring grows, up to the link's `slots_max`
 *   threads       an endpoint and its links belong to one thread
 *   callbacks     run only inside progress, poll, send, flush, remote_write, remote_read and close of that thread; a callback may
 *                 send and may close the link (it stays valid until the callback returned)
 *   fencing       the receiver's act: after fence() nothing of the peer is delivered any more, and memory that the
 *                 peer had mapped is never used again for anything else
 *   death         a link whose peer died, or could not be reached until the deadline, reports RF_LINK_DEAD once,
 *                 after everything that arrived before has been polled
 *
 * Life of a link:  CONNECTING -> UP <-> BROKEN (being made again) ; any -> DEAD ; close() at any time frees it.
 *
 * Waiting (transport/wait.h does it): poll all links for a while; then arm() each, one full fence, ready() each; if
 * none is ready, block on the doorbell or in epoll; then disarm() each. A sender pays one fence a flush for this.
 */
#ifndef RF_TRANSPORT_TRANSPORT_H
#define RF_TRANSPORT_TRANSPORT_H

#include "base/error.h"
#include "base/types.h"
#include "transport/doorbell.h"
#include "transport/slot.h"

#define RF_TRANSPORT_ABI       3   /* of struct rf_transport, for loadable modules */
#define RF_ADDRESS_MAX         128 /* bytes of an address with its final zero */
#define RF_TOKEN_SIZE          32
#define RF_REGION_KEY_SIZE     24
#define RF_RING_SLOTS_MIN      64    /* where rings start */
#define RF_RING_SLOTS_MAX      32768 /* 2^15, see HOSTING: the 16-bit acknowledgement */
#define RF_RING_SLOTS_RESERVED 8     /* for acknowledgements and fences; two full rings must not deadlock */

#define RF_VERSION_MAJOR 1
#define RF_VERSION_MINOR 0

typedef struct rf_endpoint rf_endpoint_t;
typedef struct rf_link rf_link_t;
typedef struct rf_region rf_region_t;
typedef struct rf_transport rf_transport_t;

/* Who speaks: exchanged when a link is made, and checked by the medium: another machine id is refused with
 * RF_ERR_AUTH, another major version with RF_ERR_VERSION; minor becomes the lower of the two. */
typedef struct rf_hello {
    uint16_t version_major, version_minor;
    uint16_t kind; /* a wire/ role, opaque to the medium */
    rf_core_t core;
    rf_incarnation_t incarnation;
    rf_machine_id_t machine;
    uint8_t token[RF_TOKEN_SIZE]; /* who is meant, or proof of being allowed; opaque to the medium */
} rf_hello_t;

typedef enum rf_link_event {
    RF_LINK_INCOMING =
        1,      /* listener: a peer wants a link; `hello` is its; call accept() or reject() now or later */
    RF_LINK_UP, /* slots flow; again after each BROKEN */
    RF_LINK_BROKEN,  /* connection lost, being made again until the deadline; nothing is lost */
    RF_LINK_ROOM,    /* a send that was refused would be taken now */
    RF_LINK_FDS,     /* local media: descriptors arrived; see rf_link_event_info */
    RF_LINK_WRITTEN, /* a remote write with this cookie is complete: the source buffer is the caller's again */
    RF_LINK_READ,    /* a remote read with this cookie is complete: the bytes are there, or not (`err`) */
    RF_LINK_CLOSED,  /* the peer closed in order, after its last slot was polled; final, no DEAD follows */
    RF_LINK_DEAD,    /* the peer died, misbehaved (RF_ERR_PROTOCOL) or the deadline passed; final */
} rf_link_event_t;

typedef struct rf_link_event_info {
    rf_err_t err;            /* BROKEN, DEAD, WRITTEN, READ: why */
    const rf_hello_t *hello; /* INCOMING, UP: the peer's; valid during the callback */
    const void *bytes;       /* FDS: what came with them; valid during the callback */
    size_t size;
    const int *fds; /* FDS: the callback owns them and closes what it does not keep */
    unsigned n_fds;
    uint64_t cookie; /* WRITTEN, READ */
} rf_link_event_info_t;

typedef void (*rf_link_event_fn)(void *context, rf_link_t *link, rf_link_event_t event,
                                 const rf_link_event_info_t *info);

typedef struct rf_endpoint_params {
    rf_hello_t self; /* what this process says of itself by default */
    /* Rung when a link's asleep word is set; NULL: endpoint_fd becomes readable then. Outlives the endpoint. */
    const rf_doorbell_t *doorbell;
    rf_link_event_fn on_event;
    void *context;
    const char *address; /* to listen on: shm "path", tcp "host:port" (port 0: any); NULL: only connects */
    const uint8_t *key;  /* tcp: pre-shared key for TLS 1.3; NULL: not encrypted */
    size_t key_size;
    uint64_t deadline_ns; /* how long a link may stay without contact before it is DEAD */
    void *medium; /* extra parameters of one medium (sim: its network; rdma: a text; tcp: tcp.h), else NULL */
} rf_endpoint_params_t;

typedef struct rf_link_params {
    const char *address; /* the peer's; or NULL with `socket` */
    int socket; /* shm: an already connected SOCK_SEQPACKET socket, both ends connect(); else -1. Owned
                                by the link from then on, also on failure. */
    const rf_hello_t *hello; /* instead of the endpoint's self; or NULL */
    const uint8_t *key;      /* tcp: instead of the endpoint's key; or NULL */
    size_t key_size;
    unsigned slots;     /* ring size to start with, a power of two; 0: RF_RING_SLOTS_MIN */
    unsigned slots_max; /* up to which it may grow; 0: 4096 */
    void *user;         /* into link->user */
} rf_link_params_t;

typedef struct rf_link_stats {
    uint64_t slots_sent, slots_received, bytes_written;
    uint64_t bytes_read; /* by remote reads of this end */
    uint64_t
        bytes_placed; /* by the peer's remote writes; rdma: as of the last that came with a notify slot */
    uint64_t flushes, wakeups_sent, full, acks_explicit, retransmitted, broken, protocol_errors;
    uint32_t ring_slots_send, ring_slots_receive; /* as they are now */
    uint32_t queue_pairs;                         /* rdma: of the link, now */
} rf_link_stats_t;

typedef struct rf_region_key {
    uint8_t bytes[RF_REGION_KEY_SIZE]; /* opaque; send it to the peer in a message */
} rf_region_key_t;

/* The head of every medium's link: what callers may read. */
struct rf_link {
    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    void *user; /* the caller's */
    enum { RF_LINK_STATE_CONNECTING, RF_LINK_STATE_UP, RF_LINK_STATE_BROKEN, RF_LINK_STATE_DEAD } state;
    rf_hello_t peer; /* valid from UP on */
};

struct rf_endpoint {
    const rf_transport_t *transport;
};

/* A region as its owner (the side that is written to, and read from) sees it. */
struct rf_region {
    void *base;
    size_t size;
    rf_region_key_t key;
};

#define RF_TRANSPORT_LOCAL        1u /* both ends on one host */
#define RF_TRANSPORT_REMOTE_WRITE 2u
#define RF_TRANSPORT_PASS_FDS     4u
#define RF_TRANSPORT_POLLS_MEMORY 8u  /* poll() makes no system call */
#define RF_TRANSPORT_ENCRYPTS     16u /* what it carries is encrypted where there is a key */
#define RF_TRANSPORT_TAKES_BACK                                                                              \
    32u /* after fence() nothing that the peer writes is placed, and what was can be read */
#define RF_TRANSPORT_REMOTE_READ 64u /* remote_read() */

struct rf_transport {
    uint32_t abi;
    const char *name;
    uint32_t flags;

    /* Opens an endpoint, listening if params->address is given. May block for as long as a bind takes. */
    rf_err_t (*endpoint_open)(const rf_endpoint_params_t *params, rf_endpoint_t **out);
    /* Closes all links without ceremony and frees everything. */
    void (*endpoint_close)(rf_endpoint_t *endpoint);
    /* The address peers connect to, with the real port; RF_ERR_NOT_SUPPORTED when it does not listen. */
    rf_err_t (*endpoint_address)(rf_endpoint_t *endpoint, char *out, size_t max);
    /* A descriptor that polls readable when progress() has something to do; -1 if there is none. Owned by the
     * endpoint. With links armed, data on a network link also makes it readable. */
    int (*endpoint_fd)(rf_endpoint_t *endpoint);
    /* Accepts, makes and re-makes connections, notices deaths, delivers events. `*next_ns`: when to call again at
     * the latest (CLOCK_MONOTONIC), RF_NEVER if only the descriptor decides. */
    void (*endpoint_progress)(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);

    /* Starts a link; RF_LINK_UP or RF_LINK_DEAD follows. */
    rf_err_t (*connect)(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
    /* Answers RF_LINK_INCOMING: takes the link (slots flow after RF_LINK_UP) ... */
    rf_err_t (*accept)(rf_link_t *incoming, const rf_link_params_t *params);
    /* ... or refuses it; the peer sees RF_LINK_DEAD with `why`. Frees the link. */
    void (*reject)(rf_link_t *incoming, rf_err_t why);

    /* How many slots send() would take now, growing the ring towards `want` if it may. */
    unsigned (*room)(rf_link_t *link, unsigned want);
    /* Copies up to `n` slots into the link; returns how many it took, 0 when full or not UP. BROKEN links take slots
     * while there is room. Only `words` and the caller's part of `control` are read; the array stays the caller's.
     * Not visible to a sleeping peer before flush(). */
    unsigned (*send)(rf_link_t *link, const rf_slot_t *slots, unsigned n);
    /* Makes all sent slots visible and wakes the peer if it sleeps. At most one fence, doorbell or system call.
     * RF_OK, or RF_ERR_PEER_DEAD / RF_ERR_CLOSED / RF_ERR_FENCED. */
    rf_err_t (*flush)(rf_link_t *link);
    /* Copies up to `max` slots out, in order; 0 when there are none. Medium-internal slots never show. Of a link that is being made
     * the first slots may come with RF_LINK_UP, in one call: who polls before it is up keeps what comes. */
    unsigned (*poll)(rf_link_t *link, rf_slot_t *out, unsigned max);

    /* The wait protocol above. ready(): anything to poll, or an event to deliver? */
    void (*arm)(rf_link_t *link);
    bool (*ready)(rf_link_t *link);
    void (*disarm)(rf_link_t *link);

    /* Memory that the peer may write into and read, from zeroes on. Never reused after the link ends. */
    rf_err_t (*region_create)(rf_link_t *link, size_t size, rf_region_t **out);
    void (*region_destroy)(rf_link_t *link, rf_region_t *region);
    /* Copies [source, source+size) to `offset` in the peer's region; the buffer must stay untouched until
     * RF_LINK_WRITTEN with `cookie` (which may come before this returns). With `notify`, that slot is delivered to the
     * peer after the bytes are visible; it is not ordered against slots of send(). Full: RF_ERR_AGAIN. Bulk never
     * delays slots of send(). While others are under way it may go out at the next poll() or progress only, with what else is asked for
     * until then (ready() says so). A source in a region of the same link costs an RDMA device no registering. */
    rf_err_t (*remote_write)(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                             size_t size, const rf_slot_t *notify, uint64_t cookie);
    /* Copies `size` bytes at `offset` of the peer's region to `destination`, which nobody else may touch until RF_LINK_READ with
     * `cookie` (which may come before this returns). Reads of a link are complete in the order asked for, and have in them what
     * was written over it before; of what is written later, or by the region's owner meanwhile, any part. The peer does not notice.
     * Beyond the region: RF_ERR_INVALID; a region that its owner destroyed: RF_ERR_NOT_FOUND, here or in the event; full:
     * RF_ERR_AGAIN, until a READ was told. Reads never delay slots of send() (a local medium copies here); they end as remote writes do, and after fence() nothing is placed. A
     * destination in a region of the same link costs an RDMA device no registering. */
    rf_err_t (*remote_read)(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, void *destination,
                            size_t size, uint64_t cookie);

    /* Local media: passes descriptors (they stay the caller's) with up to 256 bytes, rings the peer. RF_ERR_AGAIN when full. */
    rf_err_t (*pass_fds)(rf_link_t *link, const void *bytes, size_t size, const int *fds, unsigned n_fds);

    /* See "fencing". The link is DEAD afterwards (no event), and still has to be closed. */
    void (*fence)(rf_link_t *link);
    /* Ends the link in order (the peer first gets everything flushed before), and frees it. Remote writes and reads that are not
     * complete end before it returns, by WRITTEN or READ with an error. */
    void (*close)(rf_link_t *link);
    void (*stats)(rf_link_t *link, rf_link_stats_t *out);
    /* The process at the other end, where the medium knows it (shm, SO_PEERCRED): pid, uid; else NOT_SUPPORTED. */
    rf_err_t (*peer_credentials)(rf_link_t *link, int *pid, unsigned *uid);
};

/* Optional operations that a medium lacks point here (transport/missing.c); all say RF_ERR_NOT_SUPPORTED. */
rf_err_t rf_missing_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void rf_missing_region_destroy(rf_link_t *link, rf_region_t *region);
rf_err_t rf_missing_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset,
                                 const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie);
rf_err_t rf_missing_remote_read(rf_link_t *link, const rf_region_key_t *key, uint64_t offset,
                                void *destination, size_t size, uint64_t cookie);
rf_err_t rf_missing_pass_fds(rf_link_t *link, const void *bytes, size_t size, const int *fds, unsigned n_fds);
rf_err_t rf_missing_peer_credentials(rf_link_t *link, int *pid, unsigned *uid);

#endif
