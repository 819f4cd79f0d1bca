/*
 * Inside the RDMA medium. What is the same for every medium over paths is in transport/path; here a path is a queue pair.
 *
 *   rdma_device     an opened device: one completion queue, one shared receive queue (iWARP: none), for all links over it
 *   rdma_path       one queue pair, with what belongs to it; belongs to a lane of a link, then dies alone
 *
 *   device.c   devices, buffers, completions         lane.c      which path is made for an offer, and what follows its end
 *   path.c     queue pairs                           link.c      slots out and in, acknowledgements
 *   ring.c     slots by WRITE, sleeping (sleep.c)    bulk.c      remote writes and reads
 *   cm.c       iWARP paths, by rdma_cm               region.c    memory that the peer writes and reads
 *   removal.c  devices that are removed in use       endpoint.c  the endpoint's devices, fencing
 *   choose.c, options.c, placement.c                 which device, port, GID and mode
 *
 * Invariants
 *   - Everything belongs to the endpoint's thread. Nothing blocks.
 *   - The slots [delivered, accepted) are in the in-ring. What a peer has written behind them is in the path's ring until
 *     poll() hands it over, or the path ends.
 *   - Completions are taken by rdma_device_drain(), which runs no callback: it leaves `attention` at a link, and
 *     path_link_settle() tells its owner.
 *   - What comes over a queue pair that is not its lane's path any more is dropped. A path is told `accepted` when it
 *     is made, after the one before was in error: so each slot comes once.
 *   - A queue pair is destroyed, and its number free to be used again, RDMA_DYING_NS after it was put in error, when
 *     all that it completed has been taken from the queue; at once by a fence, if a peer may write by it; and before
 *     another is made, if a query does not confirm that it is in error.
 *   - Memory that a peer may write lies in the protection domain of its link alone.
 */
#ifndef RF_TRANSPORT_RDMA_INTERNAL_H
#define RF_TRANSPORT_RDMA_INTERNAL_H

#include "transport/path/path.h"
#include "transport/rdma/choose.h"
#include "transport/rdma/format.h"
#include "transport/rdma/placement.h"
#include "transport/rdma/rdma.h"
#include "transport/rdma/sleep.h"

#include <infiniband/verbs.h>
#include <sys/socket.h>
#include <sys/types.h>

#define RDMA_DEVICES_MAX 4
#define RDMA_GIDS_MAX    256
#define RDMA_PATHS_MAX   2048
#define RDMA_CQ_ENTRIES  32768
#define RDMA_MESSAGES    64 /* data messages of a link on their way; each takes a buffer at its receiver */
#define RDMA_WORDS       16 /* words on their way: see link.c */
#define RDMA_BUFFER      (RDMA_MESSAGE_SLOTS * (uint32_t)sizeof(rf_slot_t))
#define RDMA_SHARED_BUFFERS_MAX                                                                              \
    4096 /* of all links of a device, which share what there is, and wait; of iWARP each has its own */
#define RDMA_REGIONS_MAX  64
#define RDMA_RING_SLOTS   1024 /* of the ring that a peer writes slots into, at most */
#define RDMA_RING_WORDS   32   /* receive requests beside a ring: words, and what rings */
#define RDMA_WRITE_SLOTS  64   /* slots of one WRITE */
#define RDMA_BULK_DEPTH   128
#define RDMA_BULK_BUFFERS 96 /* receive requests of a bulk path; a waiting notify slot holds one */
#define RDMA_LOANS_MAX    PATH_WRITES_MAX
#define RDMA_LENT_MAX     (4 * RDMA_BULK_PIECE) /* bytes of callers' memory that a link keeps registered */
#define RDMA_GONE_MAX     256
#define RDMA_READS        16         /* of one queue pair, under way at once */
#define RDMA_BULK_PIECE   (1u << 20) /* bytes of one RDMA WRITE of a longer remote write */
#define RDMA_POLL_BATCH   32
#define RDMA_POST_BATCH   32
#define RDMA_DYING_NS     20000000ull
#define RDMA_QPN_BUCKETS  256
/* What to do when the device gives no more of something. */
#define RDMA_LIMITS                                                                                          \
    "raise rdma.max of the cgroup where one limits it, and the locked memory (`ulimit -l unlimited`, "       \
    "LimitMEMLOCK=infinity in the unit)"

#define RDMA_LISTENERS_MAX 64

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

/* A device that another library has open: by which descriptors, and what the first of them is. */
typedef struct rdma_held {
    bool known;
    int command, events;
    dev_t file_system;
    ino_t file;
} rdma_held_t;

struct rdma_device {
    char name[RDMA_NAME_MAX];
    char driver[RDMA_NAME_MAX]; /* "rxe", "siw", "mlx5" */
    rdma_endpoint_t *endpoint;
    struct ibv_context *context;
    rdma_held_t cm_held; /* iWARP: librdmacm's own opening of it */
    struct ibv_device_attr attr;
    bool iwarp;
    bool gone; /* removed: nothing is asked of it any more; closed when nothing here belongs to it */
    rdma_domain_t *domain; /* of the shared receive queue: nothing in it is open to peers */
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    struct ibv_srq *srq;     /* iWARP: none */
    rdma_buffers_t *buffers; /* of the shared receive queue */
    uint32_t n_buffers;
    bool draining;
    bool notify; /* the queue will say on the channel that something has come */
    bool looked; /* ... and nothing was left in it since then */
    const rdma_link_t
        *looker;          /* whose poll() looks into the queue, for all that are polled in turn with it */
    uint32_t passed_over; /* how many have been polled since it did */
    uint32_t n_paths, n_sharing; /* n_sharing: of them, those that use the shared receive queue */
    uint32_t cq_promised;        /* completions that all queue pairs together may leave in the queue */
};

/* Where a path starts from: the choice, and what the port says. */
typedef struct rdma_place {
    rdma_device_t *device;
    rdma_gid_t gid;
    uint16_t lid;
    uint8_t mtu; /* enum ibv_mtu */
    bool ethernet;
} rdma_place_t;

struct rdma_cm_id;
struct rdma_event_channel;

struct rdma_path {
    uint16_t id; /* its place in the endpoint's table */
    rdma_device_t *device;
    rdma_domain_t *domain;
    path_lane_t *lane; /* NULL when dying */
    bool bulk;
    bool written; /* slots come by WRITE, into `ring` */
    struct ibv_qp *qp;
    uint32_t qpn;
    rdma_path_t *qpn_next; /* in the endpoint's bucket */
    rdma_place_t place;
    uint32_t psn;
    uint32_t inline_max;   /* bytes that a request may carry itself; words always go so */
    uint32_t inline_size;  /* bytes of slots or of a write up to which one does */
    uint32_t signal_every; /* requests */
    uint32_t depth;        /* requests under way, at most */
    rdma_path_info_t peer;
    uint32_t posted, completed;             /* send requests; completed: READs apart, in order */
    uint32_t reads_posted, reads_completed; /* soft-iWARP completes what follows a READ before it */
    uint64_t unread;  /* iWARP: the number behind the last remote write that has no READ behind it; 0: none */
    uint64_t read_to; /* ... that has one */
    uint64_t read_at; /* the link's bytes_written then */
    uint32_t unsignalled;
    enum ibv_wc_status why;  /* it failed */
    rdma_buffers_t *buffers; /* of its own receive queue; NULL: it uses the shared one */
    uint32_t held_back;      /* of them, the first: posted as notify slots of paths before are served */
    struct ibv_mr *ring_mr;  /* of the ring of slots to send */
    rdma_memory_t retired;   /* a smaller ring, until the path ends */
    rdma_memory_t ring;      /* where the peer writes slots, and the line behind it; none: it sends them */
    uint32_t ring_slots;
    uint64_t ring_first; /* number of the first slot that comes over this path */
    uint64_t first;      /* ... that goes */
    rdma_sleep_t sleep;
    rdma_memory_t tails;   /* bulk: rdma_placed_t of each write, where they are too large to go inline */
    struct rdma_cm_id *cm; /* iWARP: its connection */
    uint8_t ports_tried;   /* ... from ports that TCP was found to use */
    uint8_t token[RDMA_TOKEN];
    bool stopped;        /* killed, and the device has said that it is in error */
    uint64_t destroy_ns; /* dying: when */
};

typedef struct rdma_region {
    rf_region_t head;
    uint32_t id;
    bool used, gone; /* gone: destroyed here, and the peer may still be writing */
    bool gone_due;   /* the peer is to be told */
    bool moved_due;  /* ... its key */
    rdma_memory_t memory;
} rdma_region_t;

/* A remote write that is being sent, beside its path_write_t. */
typedef struct rdma_sending {
    uint64_t sent;     /* bytes posted */
    uint32_t end;      /* the path's `posted` with its last request */
    uint32_t read_end; /* ... and its `reads_posted` with the READ behind it */
    bool says;         /* posted with a message */
} rdma_sending_t;

/* The caller's memory, registered while the device reads from it, or writes into it. */
typedef struct rdma_loan {
    struct ibv_mr *mr;
    const uint8_t *base;
    uint32_t size;
    uint32_t end;      /* the path's `posted` with the last request that reads from it, */
    uint32_t read_end; /* ... and its `reads_posted` with the last that writes */
    uint32_t made;     /* the one of them that the request it was made for has */
    bool written;      /* by remote reads */
    bool shut;         /* that request is done: not all of these bytes need be there any more */
} rdma_loan_t;

/* A notify slot that waits for poll(), and the buffer it came in, which is posted again when it is served. */
typedef struct rdma_notify {
    rf_slot_t slot;
    rdma_buffer_t *buffer; /* NULL: its path has ended; the next holds one back for it */
} rdma_notify_t;

typedef struct rdma_bulk {
    path_bulk_t base;
    /* Out. */
    uint64_t told; /* iWARP: so many have come and been taken, the peer says */
    uint64_t said; /* the number behind the last that is done and went with a message: the peer knows of it */
    rdma_sending_t sending[PATH_WRITES_MAX];
    rdma_loan_t loans[RDMA_LOANS_MAX];
    uint32_t n_loans;
    uint64_t lent;                /* bytes */
    rf_err_t refused;             /* what it was asked to lend cannot be: the link ends; RF_OK */
    uint32_t gone[RDMA_GONE_MAX]; /* regions of the peer that it has destroyed: nothing is written there */
    uint32_t n_gone, n_freed;     /* how many in all; and how many of them the peer may forget */
    uint64_t gone_after;          /* ... the next, when so many writes are done, */
    uint64_t gone_after_reads;    /* and so many reads */
    rdma_region_moved_t
        moved[RDMA_REGIONS_MAX]; /* regions of the peer that have another key than it was given out with */
    uint32_t n_moved;
    /* In; base.placed is as far as messages said so. */
    rdma_notify_t notify[RDMA_BULK_BUFFERS];
    uint64_t taken_said;                /* iWARP: so many a word over the slots' path said were taken */
    uint32_t regions_made, regions_end; /* regions_end: above all that were ever used */
    rdma_region_t regions[RDMA_REGIONS_MAX];
} rdma_bulk_t;

struct rdma_link {
    path_link_t base;
    bool armed;
    rdma_path_t *paths[PATH_LANES]; /* of its lanes; NULL: none */
    rdma_device_t *device;          /* of its last path; NULL: none yet, or it was removed */
    rdma_domain_t *domain;          /* of memory that the peer may write; NULL until there is some */

    /* Slots out. */
    rdma_memory_t ring_memory;
    uint64_t ends[RDMA_MESSAGES]; /* of the data messages on their way: the count of slots behind each */
    uint32_t ends_head, ends_tail;

    /* Slots in. */
    rf_slot_t *in;
    uint32_t in_size; /* grows up to base.slots_max */
    rf_slot_t *out;   /* while poll() looks: its caller's, so many of so many taken */
    uint32_t out_n, out_max;
    uint32_t ack_every, ack_most; /* so many slots are acknowledged, over this path, without being asked */
    uint64_t delivered_said;
    uint64_t came[RDMA_MESSAGES]; /* of the data messages not acknowledged: the count of slots behind each */
    uint32_t came_head, came_tail;
    uint64_t ack_due_at; /* answer WANT_ACK when so many are delivered; RF_NEVER */
};

struct rdma_endpoint {
    path_endpoint_t base;
    rdma_options_t options;
    rdma_source_t listen_route;
    struct rdma_event_channel *cm;                       /* iWARP; NULL: not used yet */
    struct rdma_cm_id *cm_listeners[RDMA_LISTENERS_MAX]; /* the last is the one that answers name */
    unsigned n_cm_listeners;
    unsigned cm_missed; /* paths in a row that were over before anybody connected to them */
    int uevents;        /* a netlink socket: what the kernel says of devices; -1: nothing */
    int look;           /* a timerfd in the set: a sleeper whose SLEEP is not granted looks at its rings */
    uint64_t look_ns;   /* it goes off at the latest so long from now; 0: it is not set */
    rdma_device_t *devices[RDMA_DEVICES_MAX];
    unsigned n_devices;
    rdma_path_t *paths[RDMA_PATHS_MAX];
    unsigned paths_end;                    /* above all that are used */
    uint64_t destroy_ns;                   /* of the first dying path; RF_NEVER */
    rdma_path_t *by_qpn[RDMA_QPN_BUCKETS]; /* of all devices */
    char chosen[256];                      /* the last choice that was logged */
    uint64_t log_device_ns, log_memory_ns;
};

extern const path_medium_t rdma_medium;

/* device.c */
rf_err_t rdma_memory_make(struct ibv_pd *pd, size_t size, int access, rdma_memory_t *out);
void rdma_memory_free(rdma_memory_t *memory);
/* What to do when registering failed. */
void rdma_memory_refused(rdma_endpoint_t *ep, size_t size);
rf_err_t rdma_domain_make(rdma_device_t *device, rdma_domain_t **out);
void rdma_domain_release(rdma_domain_t *domain);
/* Chooses and opens. RF_ERR_AGAIN: the port is down; RF_ERR_NOT_FOUND: there is no such device, port or GID. */
rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out);
void rdma_device_close(rdma_device_t *device);
/* Buffers for one more link at the shared receive queue. */
rf_err_t rdma_device_grow(rdma_device_t *device);
/* More buffers for one path's own receive queue, to be posted: path->buffers. */
rf_err_t rdma_buffers_make(rdma_path_t *path, unsigned n, uint32_t size);
void rdma_buffers_free(rdma_buffers_t *buffers);
void rdma_buffer_post(rdma_device_t *device, rdma_buffer_t *buffer);
/* Receive requests that a link's words may need: iWARP, which tells remote writes by words, has no mercy on one that finds none. */
static inline uint32_t rdma_words_of(const rdma_device_t *device, uint32_t words)
{
    return words + (device->iwarp ? PATH_WRITES_MAX : 0);
}
/* Takes all completions. Runs no callback. True: there were some. */
bool rdma_device_drain(rdma_device_t *device);
/* ... that are in the queue now, however many. */
void rdma_device_drain_all(rdma_device_t *device);
void rdma_device_arm(rdma_device_t *device);
/* Takes what the channel says. True: something has come since the queue was armed. */
bool rdma_device_heard(rdma_device_t *device);
void rdma_device_async(rdma_device_t *device);
/* It is no more: its paths are over at once, and it is closed when they have ended. */
void rdma_device_removed(rdma_device_t *device);

/* removal.c */
/* From here on the endpoint hears of devices that are removed, where the kernel tells it. */
void rdma_removal_open(rdma_endpoint_t *ep);
void rdma_removal_close(rdma_endpoint_t *ep);
void rdma_removal_heard(rdma_endpoint_t *ep);
/* One message of the kernel: text, zero bytes between its lines. */
void rdma_removal_take(rdma_endpoint_t *ep, const char *message, size_t size);
/* Its entry in /sys is still there. */
bool rdma_device_is_there(const rdma_device_t *device);
/* Finds out by itself which devices are no more. */
void rdma_removal_look(rdma_endpoint_t *ep);
/* Closes devices that were removed and over which nothing goes any more. True: one waits for a link that is being freed. */
bool rdma_removal_sweep(rdma_endpoint_t *ep);

/* path.c */
rf_err_t rdma_path_make(path_lane_t *lane, const rdma_place_t *place, rdma_path_t **out);
/* READs that a queue pair of this device may have under way, as asker and as asked. */
uint8_t rdma_reads_of(const rdma_device_t *device);
void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out);
/* To ready-to-send, towards `peer`; iWARP: by a connection that is being made, RF_ERR_AGAIN. */
rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer);
/* Puts it in error and cuts it from its link; it is destroyed later, but before another path is made if the device does not say that
 * it is in error. NULL is fine. */
void rdma_path_kill(rdma_path_t *path);
/* Puts it in error: no packet that comes later is placed, and nothing is sent, over it. False: the device does not say so. */
bool rdma_path_stop(const rdma_path_t *path);
/* At once; nothing of its peer is placed from here on, nor what the device was placing. False: the device did not say so, or not
 * before that it was in error. */
bool rdma_path_destroy(rdma_path_t *path);
/* Destroys those that were killed and whose time it is. */
void rdma_paths_bury(rdma_endpoint_t *ep, uint64_t now_ns);
/* A queue pair's number is its own among those of its device only: soft-iWARP counts from 1 at each. NULL: there is none. */
rdma_path_t *rdma_path_find(const rdma_device_t *device, uint32_t qpn);
static inline uint32_t rdma_path_room(const rdma_path_t *path)
{
    return path->depth - (path->posted - path->completed);
}
/* Posts `n` chained requests with one doorbell; sets their wr_id and, now and then, IBV_SEND_SIGNALED. */
void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n);
/* It is over, for this reason: the next one begins where this one ends. */
void rdma_path_failed(rdma_path_t *path, enum ibv_wc_status why);
void rdma_path_broken(rdma_path_t *path);
/* Sends a word; false: no room. */
bool rdma_path_say(rdma_path_t *path, const path_word_t *word);

/* lane.c */
void rdma_lane_make(path_lane_t *lane, const path_info_t *offer);
rf_err_t rdma_lane_info(path_lane_t *lane, path_info_t *out);
bool rdma_lane_info_right(const path_info_t *info);
rf_err_t rdma_lane_join(path_lane_t *lane, const path_info_t *peer);
bool rdma_lane_say(path_lane_t *lane, const path_word_t *word);
void rdma_lane_drop(path_lane_t *lane);
void rdma_lane_failed(path_lane_t *lane);
const char *rdma_lane_overdue(const path_lane_t *lane);

/* link.c */
rf_err_t rdma_link_init(path_link_t *link);
void rdma_link_free(path_link_t *link);
bool rdma_ring_grow(path_link_t *link, uint32_t size);
/* The ring for the slots to send is registered for this path. */
rf_err_t rdma_link_attach(rdma_link_t *link, rdma_path_t *path);
void rdma_resume(path_link_t *link);
/* A message came over the slots' lane. */
void rdma_link_message(rdma_link_t *link, rdma_path_t *path, const uint8_t *bytes, uint32_t size);
/* Takes in what has come, polled for or not. Runs no callback. */
void rdma_link_take(rdma_link_t *link);
void rdma_link_keep(path_link_t *link);
bool rdma_link_hear(path_link_t *link);
/* What the line says more than slots and words have, where it is one. Runs no callback. */
void rdma_line_hear(rdma_link_t *link);
void rdma_push(path_link_t *link);
unsigned rdma_room(rf_link_t *link, unsigned want);
rf_err_t rdma_flush(rf_link_t *link);
unsigned rdma_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void rdma_arm(rf_link_t *link);
bool rdma_ready(rf_link_t *link);
void rdma_disarm(rf_link_t *link);
void rdma_stats(rf_link_t *link, rf_link_stats_t *out);

/* Slots came, in order, with no parity: copies them to who polls, the rest into the in-ring. */
void rdma_link_accept(rdma_link_t *link, rdma_path_t *path, const rf_slot_t *slots, uint32_t n);
/* What a peer may send: of a control word without its parity. */
static inline bool rdma_control_right(uint64_t c)
{
    return rf_control_valid(c) && rf_control_type(c) < RF_SLOT_TYPE_MEDIUM && !(c & RF_CONTROL_PARITY);
}

/* ring.c */
rf_err_t rdma_ring_make(rdma_path_t *path);
void rdma_ring_info(const rdma_path_t *path, rdma_path_info_t *out);
/* The parity of slot `number`, counted from the path's first, in a ring of so many: the first lap differs from memory never
 * written. */
static inline uint64_t rdma_ring_parity(uint64_t number, uint32_t slots)
{
    return number & slots ? 0 : RF_CONTROL_PARITY;
}
/* Takes all that has been written. */
void rdma_ring_take(rdma_link_t *link, rdma_path_t *path);
/* This one has been written. */
bool rdma_ring_written(const rdma_path_t *path, uint64_t at);
/* Copies at most `max` of the slots that have been written, from this one on, for a caller of poll(); returns how many make
 * sense. *last: the control word of the last that was copied, without its parity, be it right or not. */
unsigned rdma_ring_read(const rdma_path_t *path, uint64_t at, rf_slot_t *out, unsigned max, uint64_t *last);
uint64_t rdma_line_read(const rdma_path_t *path);
/* False: no room. */
bool rdma_line_write(rdma_path_t *path, uint64_t delivered);
/* Its owner is about to sleep. */
void rdma_ring_arm(rdma_link_t *link, rdma_path_t *path);
/* What a word says of sleeping; what was written before it has been taken. */
void rdma_ring_word(rdma_link_t *link, rdma_path_t *path, uint32_t flags);
/* The timer has gone off. */
void rdma_ring_looked(rdma_endpoint_t *ep);

/* cm.c */
/* Where the peer is to connect to for a path over this device. */
rf_err_t rdma_cm_listen(rdma_device_t *device, uint16_t *port);
/* Connects the path to what its peer's ANSWER said; HELLO follows. */
rf_err_t rdma_cm_dial(rdma_path_t *path);
/* A path ends. */
void rdma_cm_over(const rdma_path_t *path);
void rdma_cm_heard(rdma_endpoint_t *ep);
/* The device was removed, and is about to be closed: librdmacm lets go of it, too. */
void rdma_cm_removed(rdma_device_t *device);
void rdma_cm_close(rdma_endpoint_t *ep);

/* bulk.c */
bool rdma_bulk_resume(path_link_t *link, uint64_t peer_placed);
/* A message came over the bulk lane. True: the buffer stays with it until the notify slot in it is served. */
bool rdma_bulk_message(rdma_link_t *link, rdma_buffer_t *buffer, uint32_t size);
/* The lane's path ends: what was posted is not on its way any more. */
void rdma_bulk_detach(rdma_link_t *link);
void rdma_bulk_pump(path_link_t *link);
unsigned rdma_bulk_notified(rdma_link_t *link, rf_slot_t *out, unsigned max);
/* Notify slots that wait for poll(); of a link whose owner has closed it none do. */
static inline uint32_t rdma_bulk_waiting(const rdma_link_t *link)
{
    const path_bulk_t *bulk = link->base.bulk;
    return bulk && !link->base.user_closed ? bulk->notify_head - bulk->notify_tail : 0;
}
/* ... of a path that has ended, when the next is made: its HELLO needs a buffer, and on iWARP, where nothing waits for one, so does
 * whatever may come before its sender is told that something was taken. */
static inline uint32_t rdma_bulk_may_wait(const rdma_device_t *device)
{
    return RDMA_BULK_BUFFERS - 1 - (device->iwarp ? PATH_WRITES_MAX : 0);
}
/* Its path has failed. */
void rdma_bulk_failed(path_lane_t *lane, enum ibv_wc_status why);
void rdma_bulk_settle(path_link_t *link);
/* iWARP: the peer has placed so many writes. False: it cannot have. */
bool rdma_bulk_placed(rdma_link_t *link, uint64_t placed);
/* Writes of the peer that came whole, and whose buffers are free again. */
uint64_t rdma_bulk_taken(const rdma_link_t *link);
/* iWARP: ... of which no word has told the peer, who waits for it. */
bool rdma_bulk_owes(const rdma_link_t *link);
/* A word that said so is on its way. */
void rdma_bulk_said(rdma_link_t *link, uint64_t taken);
/* A message of RDMA_CONTROL_REGION_*. False: it makes no sense. */
bool rdma_bulk_control(path_link_t *link, uint8_t type, const uint8_t *bytes, size_t size);
/* Tells the peer of regions here, and which of its own are free. */
void rdma_bulk_push_control(rdma_link_t *link);

/* region.c */
/* Nobody writes its regions any more; the memory stays. False: the device does not give back all of it. */
bool rdma_bulk_shut(rdma_link_t *link);
/* The link has a domain at this device, with its regions in it. RF_ERR_AGAIN: paths over another device are still ending. */
rf_err_t rdma_link_enter(rdma_link_t *link, rdma_device_t *device);
/* The link has no domain any more; its regions stay. */
void rdma_link_leave(rdma_link_t *link);
/* Tells the peer which regions are gone, and which have another key. False: not all of it now. */
bool rdma_regions_push(rdma_link_t *link);
/* Nothing of the peer is on its way to a region that was destroyed here. False: it was not. */
bool rdma_region_freed(rdma_link_t *link, uint64_t region);
void rdma_bulk_free(path_link_t *link);
rf_err_t rdma_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void rdma_region_destroy(rf_link_t *link, rf_region_t *region);

/* endpoint.c */
/* Reads "host:port", numbers. */
bool rdma_address_take(const char *address, struct sockaddr_storage *out, socklen_t *size);
void rdma_source_to(const char *address, rdma_source_t *out);
rf_err_t rdma_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);

static inline rdma_link_t *rdma_link_of(const path_link_t *link)
{
    return (rdma_link_t *)(uintptr_t)link;
}
static inline rdma_endpoint_t *rdma_endpoint_of(const path_link_t *link)
{
    return (rdma_endpoint_t *)link->head.endpoint;
}
static inline rdma_bulk_t *rdma_bulk_of(const rdma_link_t *link)
{
    return (rdma_bulk_t *)link->base.bulk;
}
/* Its queue pair; NULL: none. */
static inline rdma_path_t *rdma_path_of(const path_lane_t *lane)
{
    return rdma_link_of(lane->link)->paths[lane->number];
}
/* Nothing is sent over it any more. */
static inline bool rdma_path_over(const rdma_path_t *path)
{
    return !path->lane || path->lane->failed;
}
/* Of a path that is not dying. */
static inline rdma_link_t *rdma_path_link(const rdma_path_t *path)
{
    return rdma_link_of(path->lane->link);
}
/* What a lane's words, slots or writes go over now; NULL: nothing. */
static inline rdma_path_t *rdma_path_up(const rdma_link_t *link, unsigned lane)
{
    return path_lane_up(&link->base.lanes[lane]) ? link->paths[lane] : NULL;
}

#endif
