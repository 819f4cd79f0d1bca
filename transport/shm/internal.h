/*
 * The private side of a shared-memory link. ring.c moves slots, side.c speaks on the side socket, region.c does
 * remote writes, endpoint.c listens, connects and makes progress, shm.c has the table and a link's life.
 *
 * Counts are 64-bit and never wrap; a slot's place in its ring is a pointer that does. Pointers to the peer's memory
 * are never NULL: while there is none (connecting, dead, fenced) they point at pages of zeros, in which no slot is
 * ever fresh, so that poll() needs no look at the state.
 */
#ifndef RF_TRANSPORT_SHM_INTERNAL_H
#define RF_TRANSPORT_SHM_INTERNAL_H

#include "layout.h"
#include "shm.h"

#include "base/clock.h"
#include "base/os.h"

#define SHM_REGIONS_MAX       64 /* a link, each way */
#define SHM_REGION_SIZE_MAX   (1ull << 40)
#define SHM_SLOTS_MAX_DEFAULT 4096
#define SHM_LINKS_MAX         8192 /* an endpoint */
#define SHM_INCOMING_MAX      256  /* connections that have not said their hello */
#define SHM_INCOMING_STRANGER 16   /* ... of one user who is neither this process's nor root */
#define SHM_RELAY_SLOTS_MAX   4096 /* of a ring that a relay maps */
#define SHM_SIDE_BATCH        32   /* side messages handled at one go */

typedef enum shm_phase {
    SHM_DIALING,  /* nobody listens at the address yet */
    SHM_ARRIVED,  /* accepted a connection; its hello is to come */
    SHM_OFFERED,  /* its hello came; the owner has not answered */
    SHM_GREETING, /* our hello is sent, the peer's is to come */
    SHM_MAPPED,   /* both hellos are there, we said READY, the peer's is to come */
    SHM_UP,
    SHM_DRAINING, /* the peer is gone; what it published is being polled */
    SHM_OVER,     /* dead: reported, or fenced */
} shm_phase_t;

/* Why poll() and progress() must look beyond the ring. */
#define SHM_LOOK_NOTIFY 1u /* the notify ring may hold slots */
#define SHM_LOOK_ROOM   2u /* we were refused: tell when there is room */
#define SHM_LOOK_END    4u /* the peer is gone */
#define SHM_LOOK_SIDE   8u /* the side socket holds more than one batch */

typedef struct shm_endpoint shm_endpoint_t;

/* A region of ours, that the peer writes. */
typedef struct shm_region {
    rf_region_t base;
    uint64_t id;
    size_t mapped;
} shm_region_t;

/* A region of the peer's, that we write. */
typedef struct shm_peer_region {
    uint64_t id, size;
    void *memory; /* NULL: unused entry */
} shm_peer_region_t;

/* What is mapped of a link. */
typedef struct shm_memory {
    void *head, *peer_head, *out, *in, *next; /* NULL: nothing */
    size_t out_size, in_size, next_size;
} shm_memory_t;

typedef struct shm_link {
    rf_link_t base;

    /* Sending. `limit` is the count up to which send() need not look; it equals `sent` while the link is not up. */
    struct {
        shm_cell_t *next, *end; /* where the next slot goes; behind the last of the ring */
        uint64_t parity;
        uint64_t sent, limit, flushed;
        shm_cell_t *cells;
        const shm_head_t *peer_head;
    } rf_cache_aligned out;

    /* Receiving. */
    struct {
        const shm_cell_t *next, *end;
        uint64_t parity;
        uint64_t received, published; /* `published` is what our ack line says */
        uint64_t last;                /* control word of the last slot */
        uint32_t attention_seen;
        uint32_t look;
        uint32_t batch; /* slots between two writes of our ack line: a quarter of the ring */
        bool peer_wants_room;
    } rf_cache_aligned in;

    shm_head_t *head;
    const shm_cell_t *in_cells;
    uint32_t out_slots, in_slots;
    rf_err_t end;  /* RF_OK while the link lives: what flush() answers */
    uint32_t rung; /* the peer's sleep that we rang last */

    /* Slow: acknowledgements, growth, notify rings. */
    uint64_t acked;     /* by the peer; never goes back */
    uint64_t line_sent; /* acknowledgements in slots before this count are older than the line we read */
    uint64_t ring_base; /* `sent` at which the present ring began */
    uint32_t slots_max;
    uint32_t room_asked;       /* slots of the last refusal; 0: none */
    bool notify_full;          /* a remote write was refused */
    uint64_t full_since_ticks; /* of the refusal that still holds; 0: none */
    uint64_t notify_sent;
    uint32_t notify_received;
    uint32_t side_seen;
    bool notify_turn;
    const shm_cell_t *next_cells; /* a larger ring of the peer's, until its SWITCH slot */
    uint32_t next_slots;

    /* Life. */
    shm_endpoint_t *endpoint;
    shm_phase_t phase;
    uint32_t place, generation; /* in the endpoint's table */
    uint32_t busy;              /* calls on the stack that will still touch the link */
    bool closed;                /* the owner closed it: freed when `busy` is 0 */
    bool over_pending;          /* DEAD or CLOSED is to be reported by the next poll() or progress() */
    bool unsettled;             /* counted in the endpoint: not up yet, or over_pending */
    uint64_t redial_ns;
    int side;
    rf_hello_t self;
    uint64_t deadline_ns; /* until which it has to be up */
    rf_doorbell_t peer_doorbell;
    uint32_t peer_bell; /* SHM_BELL_FUTEX, or 0: by side socket */
    int peer_pid;
    unsigned peer_uid;
    int head_fd, ring_fd; /* until they are sent */
    shm_memory_t left;    /* of a link that has ended: unmapped when it is fenced or closed */
    char address[RF_ADDRESS_MAX];

    uint64_t region_next;
    shm_region_t *regions[SHM_REGIONS_MAX];
    shm_peer_region_t peer_regions[SHM_REGIONS_MAX];

    rf_link_stats_t stats;
    uint64_t medium_sent, medium_received; /* slots of the medium, not in the statistics */
} shm_link_t;

struct shm_endpoint {
    rf_endpoint_t base;
    rf_endpoint_params_t params;
    bool relays; /* RF_SHM_RELAY */
    char address[RF_ADDRESS_MAX];
    int epoll, listener;
    uint64_t listener_inode;
    shm_link_t **links;
    uint32_t links_room, n_links, n_unsettled,
        n_arrived; /* unsettled: have a deadline or an event to report */
    uint32_t generation;
    uint64_t logged_ns;
    uint64_t resume_ns; /* when to listen again after descriptors ran out; 0: listening */
};

/* Link life (shm.c). enter() .. leave() bracket everything that may call back; leave() is false when the owner closed
 * the link meanwhile: it is then freed, and must not be touched. */
void shm_enter(shm_link_t *link);
bool shm_leave(shm_link_t *link);
void shm_event(shm_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info);
shm_link_t *shm_link_new(shm_endpoint_t *endpoint, const rf_link_params_t *params, rf_err_t *err);
void shm_link_free(shm_link_t *link);
/* Fills in defaults; RF_ERR_INVALID when they are no sizes of rings. */
rf_err_t shm_ring_slots_check(uint32_t *slots, uint32_t *slots_max);
/* Makes head and ring, ready to be sent. */
rf_err_t shm_link_objects(shm_link_t *link);
/* Ends the link: no more slots either way, socket closed, memory unmapped, now or by fence() or close(). The event is left to shm_report_over(). */
void shm_end(shm_link_t *link, rf_err_t why);
void shm_protocol_error(shm_link_t *link, const char *what);
/* The peer is gone: nothing more is sent, what it published is still polled. */
void shm_peer_gone(shm_link_t *link);
/* Ends a link whose peer is gone if its last slot has been polled. */
void shm_end_if_drained(shm_link_t *link);
void shm_report_over(shm_link_t *link);
/* Starts the flow of slots. */
void shm_up(shm_link_t *link);
void shm_settle(shm_link_t *link, bool unsettled);

/* Slots (ring.c). */
extern const shm_head_t shm_no_head;
extern const shm_cell_t shm_no_cells[RF_RING_SLOTS_MIN];
unsigned shm_room(rf_link_t *link, unsigned want);
unsigned shm_send(rf_link_t *link, const rf_slot_t *slots, unsigned n);
rf_err_t shm_flush(rf_link_t *link);
unsigned shm_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void shm_arm(rf_link_t *link);
bool shm_ready(rf_link_t *link);
void shm_disarm(rf_link_t *link);
/* One slot of the medium's own, from the reserve. False: the reserve is used up. */
bool shm_send_medium(shm_link_t *link, uint8_t type);
/* Says that there is something besides the ring, and wakes the peer. */
void shm_attention(shm_link_t *link);
/* Handles slots of the medium at the head of the peer's ring. The link may be over afterwards. */
void shm_take_medium(shm_link_t *link);
/* Nothing that the peer sent is left to poll, and nothing to look at. */
bool shm_in_empty(shm_link_t *link);
/* Our ring and the peer's, from their first slots. */
void shm_out_ring(shm_link_t *link, shm_cell_t *cells, uint32_t slots);
void shm_in_ring(shm_link_t *link, const shm_cell_t *cells, uint32_t slots);
/* Up to which count send() may go: none while the link is not up. */
void shm_set_limit(shm_link_t *link);

/* Side socket (side.c). */
rf_err_t shm_side_hello(shm_link_t *link);
rf_err_t shm_side_ready(shm_link_t *link);
void shm_side_reject(int socket, rf_err_t why);
void shm_side_bell(shm_link_t *link);
rf_err_t shm_side_grow(shm_link_t *link, uint32_t slots, int fd);
rf_err_t shm_side_region(shm_link_t *link, uint64_t id, uint64_t size, int fd);
void shm_side_drop(shm_link_t *link, uint64_t id);
rf_err_t shm_side_fds(shm_link_t *link, const void *bytes, size_t size, const int *fds, unsigned n_fds);
/* Reads and handles up to SHM_SIDE_BATCH messages. The link may be over afterwards. Within enter() .. leave(). */
void shm_side_drain(shm_link_t *link);
/* One message; takes the descriptors over. */
void shm_side_handle(shm_link_t *link, const shm_side_t *message, size_t size, int *fds, unsigned n_fds);

/* Regions (region.c). */
rf_err_t shm_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void shm_region_destroy(rf_link_t *link, rf_region_t *region);
rf_err_t shm_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                          size_t size, const rf_slot_t *notify, uint64_t cookie);
rf_err_t shm_remote_read(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, void *destination,
                         size_t size, uint64_t cookie);
void shm_regions_free(shm_link_t *link);
bool shm_region_adopt(shm_link_t *link, uint64_t id, uint64_t size, int fd);
void shm_region_drop(shm_link_t *link, uint64_t id);

/* Endpoints (endpoint.c). */
rf_err_t shm_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);
void shm_endpoint_close(rf_endpoint_t *endpoint);
rf_err_t shm_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max);
int shm_endpoint_fd(rf_endpoint_t *endpoint);
void shm_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);
rf_err_t shm_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
rf_err_t shm_accept(rf_link_t *incoming, const rf_link_params_t *params);
void shm_reject(rf_link_t *incoming, rf_err_t why);
bool shm_watch_side(shm_link_t *link);

#endif
