/*
 * Inside the RDMA medium.
 *
 *   rdma_endpoint   the control links' endpoint (transport/tcp), one epoll set, timers, devices, links, paths
 *   rdma_device     an opened device: one completion queue, one shared receive queue, for all links over it
 *   rdma_path       one queue pair, with what belongs to it; belongs to a lane of a link, then dies alone
 *   rdma_link       rings and counts; outlives its paths
 *
 *   device.c   devices, buffers, completions         control.c   offers and answers, over the control link
 *   path.c     queue pairs                           link.c      slots out and in, acknowledgements
 *   ring.c     slots by WRITE, sleeping              bulk.c      regions and remote writes
 *   cm.c       iWARP paths, by rdma_cm               endpoint.c  progress, timers, life and death
 *   choose.c, options.c, placement.c                 which device, port, GID and mode
 *
 * Invariants
 *   - Everything belongs to the endpoint's thread. Nothing blocks.
 *   - acked <= posted <= head and acked <= sent_max <= head, all counts of slots since the link began; the slots
 *     [acked, head) are in the ring. delivered <= accepted; the slots [delivered, accepted) are in the in-ring.
 *   - Completions are taken by rdma_device_drain(), which runs no callback: it leaves `attention` at a link, and
 *     rdma_link_settle() tells its owner.
 *   - What comes over a queue pair that is not its lane's path any more is dropped. A path is told `accepted` when it
 *     is made, after the one before was in error: so each slot comes once.
 *   - A queue pair is destroyed, and its number free to be used again, RDMA_DYING_NS after it was put in error, when
 *     all that it completed has been taken from the queue; by a fence at once, if a peer may write by it.
 *   - Memory that a peer may write lies in the protection domain of its link alone.
 */
#ifndef RF_TRANSPORT_RDMA_INTERNAL_H
#define RF_TRANSPORT_RDMA_INTERNAL_H

#include "base/memory.h"
#include "transport/message.h"
#include "transport/rdma/choose.h"
#include "transport/rdma/format.h"
#include "transport/rdma/placement.h"
#include "transport/rdma/rdma.h"

#include <infiniband/verbs.h>
#include <sys/socket.h>

#define RDMA_DEVICES_MAX 4
#define RDMA_GIDS_MAX    256
#define RDMA_PATHS_MAX   2048
#define RDMA_LINKS_MAX   1024
#define RDMA_LINGER_MAX  256
#define RDMA_CQ_ENTRIES  32768
#define RDMA_MESSAGES    64 /* data messages of a link on their way; each takes a buffer at its receiver */
#define RDMA_WORDS       16 /* words on their way: see link.c */
#define RDMA_BUFFERS     (RDMA_MESSAGES + RDMA_WORDS)
#define RDMA_BUFFER      (RDMA_MESSAGE_SLOTS * (uint32_t)sizeof(rf_slot_t))
#define RDMA_SHARED_BUFFERS_MAX                                                                              \
    4096 /* of all links of a device; RoCE and InfiniBand share what there is, and wait */
#define RDMA_SEND_DEPTH          128
#define RDMA_SIGNAL_EVERY        16
#define RDMA_INLINE              256
#define RDMA_WRITES_MAX          64 /* outstanding remote writes of a link, and waiting notify slots */
#define RDMA_REGIONS_MAX         64
#define RDMA_RING_SLOTS          1024 /* of the ring that a peer writes slots into, at most */
#define RDMA_RING_WORDS          32   /* receive requests beside a ring: words, and what rings */
#define RDMA_WRITE_SLOTS         64   /* slots of one WRITE */
#define RDMA_BULK_DEPTH          128
#define RDMA_BULK_BUFFERS        96 /* receive requests of a bulk path; a waiting notify slot holds one */
#define RDMA_PIECES_MAX          4
#define RDMA_GONE_MAX            256
#define RDMA_BULK_PIECE          (1u << 20) /* bytes of one RDMA WRITE of a longer remote write */
#define RDMA_POLL_BATCH          32
#define RDMA_POST_BATCH          32
#define RDMA_DEADLINE_NS_DEFAULT 10000000000ull
#define RDMA_PATH_NS_MAX         2000000000ull /* from an offer to HELLO, before it is tried anew */
#define RDMA_BACKOFF_NS_MIN      2000000ull
#define RDMA_BACKOFF_NS_MAX      500000000ull
#define RDMA_DYING_NS            20000000ull
#define RDMA_LOG_INTERVAL_NS     10000000000ull
#define RDMA_QPN_BUCKETS         256

/* Of a queue pair: about 0.5 s until a peer that answers nothing is an error; not ready to receive is no error. */
#define RDMA_ACK_TIMEOUT  14 /* 4.096 us << 14 = 67 ms */
#define RDMA_RETRIES      6  /* 7 would be for ever on rxe */
#define RDMA_RNR_FOR_EVER 7
#define RDMA_RNR_TIMER    1 /* 10 us */
#define RDMA_HOP_LIMIT    64
#define RDMA_PSN_MASK     0xffffffu

typedef struct rdma_endpoint rdma_endpoint_t;
typedef struct rdma_device rdma_device_t;
typedef struct rdma_path rdma_path_t;
typedef struct rdma_link rdma_link_t;

/* Registered memory; zeroed, page-aligned, of its own mapping. */
typedef struct rdma_memory {
    uint8_t *base; /* NULL: none */
    size_t size;
    struct ibv_mr *mr;
} rdma_memory_t;

/* One receive request's memory. Its address is the request's wr_id. */
typedef struct rdma_buffer {
    uint8_t *bytes;
    uint32_t size, lkey;
    rdma_path_t *path; /* whose receive queue; NULL: the shared one */
} rdma_buffer_t;

typedef struct rdma_buffers {
    struct rdma_buffers *next;
    rdma_memory_t memory;
    unsigned n;
    rdma_buffer_t of[];
} rdma_buffers_t;

/* A protection domain; a link and its paths hold it. */
typedef struct rdma_domain {
    struct ibv_pd *pd;
    unsigned holders;
} rdma_domain_t;

struct rdma_device {
    char name[RDMA_NAME_MAX];
    char driver[RDMA_NAME_MAX]; /* "rxe", "siw", "mlx5" */
    rdma_endpoint_t *endpoint;
    struct ibv_context *context;
    struct ibv_device_attr attr;
    bool iwarp, gone;
    rdma_domain_t *domain; /* of the shared receive queue: nothing in it is open to peers */
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_srq *srq;
    rdma_buffers_t *buffers; /* of the shared receive queue */
    uint32_t n_buffers;
    bool draining;
    bool notify; /* the queue will say on the channel that something has come */
    uint32_t n_paths;
    uint32_t cq_promised; /* completions that all queue pairs together may leave in the queue */
};

/* Where a path starts from: the choice, and what the port says. */
typedef struct rdma_place {
    rdma_device_t *device;
    rdma_gid_t gid;
    uint16_t lid;
    uint8_t mtu; /* enum ibv_mtu */
    bool ethernet;
} rdma_place_t;

typedef enum rdma_stage {
    RDMA_STAGE_OFFERED,  /* dialer: made, the answer is awaited */
    RDMA_STAGE_ANSWERED, /* listener: ready; HELLO is awaited */
    RDMA_STAGE_HELLO,    /* dialer: ready, HELLO sent, the other's is awaited */
    RDMA_STAGE_UP,
    RDMA_STAGE_DYING,
} rdma_stage_t;

typedef enum rdma_sleep { RDMA_AWAKE, RDMA_ASKED, RDMA_GRANTED } rdma_sleep_t;

struct rdma_cm_id;
struct rdma_event_channel;

struct rdma_path {
    uint16_t id; /* its place in the endpoint's table */
    rdma_stage_t stage;
    rdma_device_t *device;
    rdma_domain_t *domain;
    rdma_link_t *link; /* NULL when dying */
    unsigned lane;
    bool written; /* slots come by WRITE, into `ring` */
    uint32_t generation;
    struct ibv_qp *qp;
    uint32_t qpn;
    rdma_path_t *qpn_next; /* in the endpoint's bucket */
    rdma_place_t place;
    uint32_t psn;
    uint32_t inline_max, depth;
    rdma_path_info_t peer;
    uint32_t posted, completed; /* send requests */
    uint32_t unsignalled;
    bool failed; /* a completion said so */
    enum ibv_wc_status why;
    rdma_buffers_t *buffers; /* of its own receive queue; NULL: it uses the shared one */
    struct ibv_mr *ring_mr;  /* of the ring of slots to send */
    rdma_memory_t retired;   /* a smaller ring, until the path ends */
    rdma_memory_t ring;      /* where the peer writes slots, and the line behind it; none: it sends them */
    uint32_t ring_slots;
    uint64_t ring_first;   /* number of the first slot that comes over this path */
    uint64_t first;        /* ... that goes */
    rdma_sleep_t sleep;    /* of this end: see ring.c */
    rdma_memory_t tails;   /* bulk: rdma_placed_t of each write, where they are too large to go inline */
    struct rdma_cm_id *cm; /* iWARP: its connection */
    uint8_t token[RDMA_TOKEN];
    bool peer_sleeps; /* the next flush is to ring */
    uint64_t look_ns;
    uint64_t destroy_ns; /* dying: when */
};

typedef struct rdma_lane {
    rdma_path_t *path;
    uint32_t generation;
    bool wanted;   /* bulk: there is something to write */
    bool lost_due; /* the peer is to be told LOST, with `lost_err` */
    rf_err_t lost_err;
    uint64_t offer_ns;   /* dialer: when to offer next; RF_NEVER */
    unsigned overdue;    /* times in a row that it was given up */
    uint64_t overdue_ns; /* when to give up this path's making; RF_NEVER */
    uint64_t backoff_ns;
    uint64_t offered_ns; /* listener: when the last offer came; 0: none has */
} rdma_lane_t;

typedef struct rdma_region {
    rf_region_t head;
    uint32_t id;
    bool used, gone; /* gone: destroyed here, and the peer may still be writing */
    bool gone_due;   /* the peer is to be told */
    rdma_memory_t memory;
} rdma_region_t;

typedef struct rdma_write {
    uint64_t offset, size, cookie;
    rdma_region_key_t to;
    const uint8_t *source;
    uint64_t sent; /* bytes posted */
    uint32_t end;  /* the path's `posted` with its last request */
    bool has_notify;
    rf_slot_t notify;
} rdma_write_t;

/* Bytes of a write that the device reads from the caller's buffer. */
typedef struct rdma_piece {
    struct ibv_mr *mr;
    uint32_t end; /* the path's `posted` with its request */
} rdma_piece_t;

/* A notify slot that waits for poll(), and the buffer it came in, which is posted again when it is served. */
typedef struct rdma_notify {
    rf_slot_t slot;
    rdma_buffer_t *buffer; /* NULL: its path has ended */
} rdma_notify_t;

/* Remote writes of both directions. Made on demand (bulk.c). */
typedef struct rdma_bulk {
    /* Out. acked <= done <= posted <= head: counts of writes whose owner was told, that are placed, wholly posted, and
     * taken; [acked, head) are in the queue. */
    uint64_t acked, done, posted, head;
    uint64_t told; /* iWARP: so many have come, the peer says */
    rdma_write_t writes[RDMA_WRITES_MAX];
    rdma_piece_t pieces[RDMA_PIECES_MAX];
    uint32_t pieces_head, pieces_tail;
    uint32_t gone[RDMA_GONE_MAX]; /* regions of the peer that it has destroyed: nothing is written there */
    uint32_t n_gone, n_freed;     /* how many in all; and how many of them the peer may forget */
    uint64_t gone_after;          /* ... the next, when so many writes are done */
    /* In. */
    uint64_t placed; /* writes that have come whole */
    uint32_t notify_head, notify_tail;
    rdma_notify_t notify[RDMA_BULK_BUFFERS];
    uint32_t regions_made;
    rdma_region_t regions[RDMA_REGIONS_MAX];
    bool pumping;
} rdma_bulk_t;

struct rdma_link {
    rf_link_t head;
    rdma_link_t *prev, *next; /* in the endpoint's list; next also in the graveyard */
    rf_link_t *control;       /* NULL: gone */
    rf_assembler_t *control_in;
    bool dialer, was_up;
    bool incoming;    /* listener: waits for accept() or reject() */
    bool user_closed; /* close() was called: no more callbacks; freed when the peer has taken everything */
    bool buried, fenced;
    bool end_pending; /* DEAD is due as soon as everything that arrived has been polled */
    bool attention;   /* rdma_link_settle() has something to do */
    bool closed_due;  /* the peer is to be told that all it sent before its close has been taken */
    bool up_due, room_due;
    rf_err_t end_err;
    const char *wrong; /* the peer sent this nonsense, and the link is to end */
    bool armed;
    char address_text[RF_ADDRESS_MAX];
    uint64_t dead_ns; /* when to give up; RF_NEVER while up */
    uint64_t up_ns;
    rdma_lane_t lanes[RDMA_LANES];
    rdma_device_t *device; /* of its last path; NULL: none yet */
    rdma_domain_t *domain; /* of memory that the peer may write; NULL until there is some */

    /* Slots out. */
    rdma_memory_t ring_memory;
    rf_slot_t *ring;
    uint32_t ring_size, slots_max;
    uint64_t slots_head, acked, posted, sent_max;
    uint64_t ends[RDMA_MESSAGES]; /* of the data messages on their way: the count of slots behind each */
    uint32_t ends_head, ends_tail;
    uint32_t room_wanted;  /* a send of so many was refused; 0: none */
    uint64_t ack_asked_at; /* one was asked for everything up to here */
    uint32_t say;          /* RDMA_WORD_*: due in the next word */
    bool say_ack;

    /* Slots in. */
    rf_slot_t *in;
    uint32_t in_size, in_max;
    uint64_t delivered, accepted, delivered_said;
    uint64_t came[RDMA_MESSAGES]; /* of the data messages not acknowledged: the count of slots behind each */
    uint32_t came_head, came_tail;
    uint64_t ack_due_at; /* answer WANT_ACK when so many are delivered; RF_NEVER */
    uint64_t close_at;   /* the peer closed after so many; RF_NEVER */

    rdma_bulk_t *bulk; /* NULL until regions or remote writes are used */
    rf_link_stats_t stats;
};

struct rdma_endpoint {
    rf_endpoint_t head;
    rf_link_event_fn on_event;
    void *context;
    uint64_t deadline_ns;
    uint16_t version_minor;
    rdma_options_t options;
    rf_endpoint_t *control; /* of transport/tcp */
    rdma_source_t listen_route;
    bool listens;
    int epoll, kick;               /* kick: an eventfd in the set, written when progress() is due at once */
    struct rdma_event_channel *cm; /* iWARP; NULL: not used yet */
    struct rdma_cm_id *cm_listener;
    int look; /* a timerfd in the set: a sleeper whose SLEEP is not granted looks at its rings */
    rdma_device_t *devices[RDMA_DEVICES_MAX];
    unsigned n_devices;
    rdma_path_t *paths[RDMA_PATHS_MAX];
    unsigned paths_end; /* above all that are used */
    rdma_path_t *by_qpn[RDMA_QPN_BUCKETS];
    rdma_link_t *links;
    uint32_t n_links, n_lingering;
    uint64_t timer_ns;
    uint32_t inside;
    bool in_progress, attention;
    rdma_link_t *graveyard;
    char chosen[256]; /* the last choice that was logged */
    uint64_t log_device_ns, log_path_ns, log_garbage_ns, log_memory_ns;
};

/* device.c */
rf_err_t rdma_memory_make(struct ibv_pd *pd, size_t size, int access, rdma_memory_t *out);
void rdma_memory_free(rdma_memory_t *memory);
/* What to do when registering failed. */
void rdma_memory_refused(rdma_endpoint_t *ep, size_t size);
rf_err_t rdma_domain_make(rdma_device_t *device, rdma_domain_t **out);
void rdma_domain_release(rdma_domain_t *domain);
/* Lists the GIDs of all devices; returns how many. */
unsigned rdma_gids(rdma_gid_t *out, unsigned max);
/* Chooses and opens. RF_ERR_AGAIN: the port is down; RF_ERR_NOT_FOUND: there is no such device, port or GID. */
rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out);
void rdma_device_close(rdma_device_t *device);
/* Closes devices that are gone and that nothing here belongs to any more. */
void rdma_devices_sweep(rdma_endpoint_t *ep);
/* Buffers for one more link at the shared receive queue. */
rf_err_t rdma_device_grow(rdma_device_t *device);
/* Buffers for one path's own receive queue. */
rf_err_t rdma_buffers_make(rdma_path_t *path, unsigned n, uint32_t size);
void rdma_buffers_free(rdma_buffers_t *buffers);
void rdma_buffer_post(rdma_device_t *device, rdma_buffer_t *buffer);
/* Takes all completions. Runs no callback. True: there were some. */
bool rdma_device_drain(rdma_device_t *device);
/* ... that are in the queue now, however many. */
void rdma_device_drain_all(rdma_device_t *device);
void rdma_device_arm(rdma_device_t *device);
/* Takes what the channel says. */
void rdma_device_heard(rdma_device_t *device);
void rdma_device_async(rdma_device_t *device);

/* path.c */
rf_err_t rdma_path_make(rdma_link_t *link, unsigned lane, uint32_t generation, const rdma_place_t *place,
                        rdma_path_t **out);
void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out);
/* To ready-to-send, towards `peer`. */
rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer);
/* Puts it in error and cuts it from its link; it is destroyed later. NULL is fine. */
void rdma_path_kill(rdma_path_t *path);
/* In error, the device says. */
rf_err_t rdma_path_confirm(const rdma_path_t *path);
/* At once; nothing of its peer comes from here on. False: the device did not say so. */
bool rdma_path_destroy(rdma_path_t *path);
rdma_path_t *rdma_path_find(rdma_endpoint_t *ep, uint32_t qpn);
static inline uint32_t rdma_path_room(const rdma_path_t *path)
{
    return path->depth - (path->posted - path->completed);
}
/* Posts `n` chained requests with one doorbell; sets their wr_id and, now and then, IBV_SEND_SIGNALED. */
void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n);
/* Gives it up: the next one begins where this one ends. */
void rdma_path_broken(rdma_path_t *path);
/* Sends a word; false: no room. */
bool rdma_path_say(rdma_path_t *path, const rdma_word_t *word);

/* control.c */
void rdma_control_event(void *context, rf_link_t *control, rf_link_event_t event,
                        const rf_link_event_info_t *info);
/* Takes what came over the control link, at most so many batches. True: there is more. */
bool rdma_control_poll(rdma_link_t *link, unsigned batches);
/* What is due by time: offers, paths that do not come up. */
void rdma_control_timers(rdma_link_t *link, uint64_t now_ns);
uint64_t rdma_control_next(const rdma_link_t *link);
/* This lane has lost its path, or needs one: the dialer offers, the listener asks for it. */
void rdma_control_need(rdma_link_t *link, unsigned lane, uint64_t now_ns);
/* HELLO came over a path. */
void rdma_control_hello(rdma_path_t *path);
void rdma_control_closed(rdma_link_t *link);
/* Sends what could not be sent before. */
void rdma_control_push(rdma_link_t *link);
bool rdma_control_say(rdma_link_t *link, uint8_t type, const void *bytes, size_t size);

/* link.c */
rdma_link_t *rdma_link_new(rdma_endpoint_t *ep, const rf_link_params_t *params);
rf_err_t rdma_link_size(rdma_link_t *link, const rf_link_params_t *params);
/* The ring for the slots to send is registered for this path. */
rf_err_t rdma_link_attach(rdma_link_t *link, rdma_path_t *path);
/* The slots' lane is up: the peer has accepted so many. False: it cannot have. */
bool rdma_link_resume(rdma_link_t *link, uint64_t peer_accepted);
/* A message came over the slots' lane. */
void rdma_link_message(rdma_link_t *link, rdma_path_t *path, const uint8_t *bytes, uint32_t size);
/* Takes in what has come. Runs no callback. True: there were slots. */
bool rdma_link_take(rdma_link_t *link);
/* What the line says more than slots and words have, where it is one. Runs no callback. */
void rdma_line_hear(rdma_link_t *link);
/* Sends what is due. Runs no callback. */
void rdma_push(rdma_link_t *link);
/* Tells the owner what is due. */
void rdma_link_settle(rdma_link_t *link);
bool rdma_link_served(const rdma_link_t *link);
unsigned rdma_room(rf_link_t *link, unsigned want);
unsigned rdma_send(rf_link_t *link, const rf_slot_t *slots, unsigned n);
rf_err_t rdma_flush(rf_link_t *link);
unsigned rdma_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void rdma_arm(rf_link_t *link);
bool rdma_ready(rf_link_t *link);
void rdma_disarm(rf_link_t *link);
void rdma_stats(rf_link_t *link, rf_link_stats_t *out);

/* Slots came, in order: copies them into the in-ring. */
void rdma_link_accept(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slots, uint32_t n);

/* ring.c */
rf_err_t rdma_ring_make(rdma_path_t *path);
void rdma_ring_info(const rdma_path_t *path, rdma_path_info_t *out);
/* The parity of slot `number`, counted from the path's first, in a ring of so many. */
uint64_t rdma_ring_parity(uint64_t number, uint32_t slots);
/* Takes what has been written. True: there was something. */
bool rdma_ring_take(rdma_link_t *link, rdma_path_t *path);
uint64_t rdma_line_read(const rdma_path_t *path);
/* False: no room. */
bool rdma_line_write(rdma_path_t *path, uint64_t delivered);
void rdma_sleep_arm(rdma_link_t *link, rdma_path_t *path);
void rdma_sleep_word(rdma_link_t *link, rdma_path_t *path, uint32_t flags);
void rdma_sleep_rung(rdma_path_t *path);

/* cm.c */
rf_err_t rdma_cm_listen(rdma_endpoint_t *ep, uint16_t *port);
/* Connects the path to what its peer's ANSWER said; HELLO follows. */
rf_err_t rdma_cm_dial(rdma_path_t *path);
void rdma_cm_heard(rdma_endpoint_t *ep);
void rdma_cm_close(rdma_endpoint_t *ep);

/* bulk.c */
rf_err_t rdma_bulk_need(rdma_link_t *link);
/* The lane is up: the peer has so many writes. False: it cannot have. */
bool rdma_bulk_resume(rdma_link_t *link, uint64_t peer_placed);
/* A message came over the bulk lane. */
/* True: the buffer stays with it until the notify slot in it is served. */
bool rdma_bulk_message(rdma_link_t *link, rdma_buffer_t *buffer, uint32_t size);
/* The lane's path ends: what was posted is not on its way any more. */
void rdma_bulk_detach(rdma_link_t *link);
void rdma_bulk_pump(rdma_link_t *link);
/* Notify slots wait. */
bool rdma_bulk_ready(const rdma_link_t *link);
unsigned rdma_bulk_notified(rdma_link_t *link, rf_slot_t *out, unsigned max);
/* Tells the owner which writes are complete. */
void rdma_bulk_settle(rdma_link_t *link);
/* iWARP: the peer has placed so many writes. False: it cannot have. */
bool rdma_bulk_placed(rdma_link_t *link, uint64_t placed);
/* Writes of the peer that came whole, and whose buffers are free again. */
uint64_t rdma_bulk_taken(const rdma_link_t *link);
void rdma_bulk_fail(rdma_link_t *link, rf_err_t err);
void rdma_bulk_free(rdma_link_t *link);
void rdma_bulk_region_gone(rdma_link_t *link, uint64_t region);
void rdma_bulk_region_free(rdma_link_t *link, uint64_t region);
/* Nobody writes its regions any more; the memory stays. */
void rdma_bulk_shut(rdma_link_t *link);
/* Tells the peer which regions are gone, and which of its own are free. */
void rdma_bulk_push_control(rdma_link_t *link);
rf_err_t rdma_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void rdma_region_destroy(rf_link_t *link, rf_region_t *region);
rf_err_t rdma_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                           size_t size, const rf_slot_t *notify, uint64_t cookie);

/* endpoint.c */
void rdma_enter(rdma_endpoint_t *ep);
void rdma_leave(rdma_endpoint_t *ep);
void rdma_event(rdma_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
                uint64_t cookie);
void rdma_timer(rdma_endpoint_t *ep, uint64_t at_ns);
/* rdma_link_settle() is to be called for it, in poll() or progress(). */
void rdma_attention(rdma_link_t *link);
/* The slots' path is gone. */
void rdma_link_broken(rdma_link_t *link, rf_err_t err);
/* The link ends with `err`: at once if nothing that arrived is left, else after it has been polled. */
void rdma_link_end(rdma_link_t *link, rf_err_t err);
void rdma_link_end_settle(rdma_link_t *link);
/* The peer closed in order, and everything before that has been polled. */
void rdma_link_closed(rdma_link_t *link);
void rdma_link_bury(rdma_link_t *link);
/* The peer sent nonsense. Runs no callback. */
void rdma_link_wrong(rdma_link_t *link, const char *what);
/* Reads "host:port", numbers. */
bool rdma_address_take(const char *address, struct sockaddr_storage *out, socklen_t *size);
void rdma_source_to(const char *address, rdma_source_t *out);
rf_err_t rdma_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);
void rdma_endpoint_close(rf_endpoint_t *endpoint);
rf_err_t rdma_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max);
int rdma_endpoint_fd(rf_endpoint_t *endpoint);
void rdma_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);
rf_err_t rdma_link_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
rf_err_t rdma_link_accept_incoming(rf_link_t *incoming, const rf_link_params_t *params);
void rdma_link_reject(rf_link_t *incoming, rf_err_t why);
void rdma_fence(rf_link_t *link);
void rdma_close(rf_link_t *link);

static inline rdma_link_t *rdma_link_of(rf_link_t *link)
{
    return (rdma_link_t *)link;
}
static inline rdma_endpoint_t *rdma_endpoint_of(const rdma_link_t *link)
{
    return (rdma_endpoint_t *)link->head.endpoint;
}

#endif
