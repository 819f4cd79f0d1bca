/*
 * Links that are kept end to end over paths that are made anew: what is the same whatever the path is.
 *
 *   path_endpoint   the control links' endpoint (transport/tcp), one epoll set, timers, links
 *   path_link       ring and counts; outlives its paths
 *   path_lane       of a link: one for slots, one for bulk; has a path, or none
 *   path            the medium's own: what slots go over, until it breaks (a queue pair, a flow)
 *   path_medium     how a medium makes paths, and moves slots over them
 *
 *   endpoint.c  progress, timers, life and death      control.c   offers and answers, over the control link
 *   link.c      the ring of slots to send, events     bulk.c      the queues of remote writes and reads
 *
 * A medium's endpoint, link and bulk state begin with the structs here, and it has the hot path to itself: push, flush and
 * poll are its own functions, which read and move the counts here. What is called through the table below is not called
 * for each slot.
 *
 * Invariants
 *   - Everything belongs to the endpoint's thread. Nothing blocks.
 *   - acked <= posted <= slots_head and acked <= sent_max <= slots_head, all counts of slots since the link began; the
 *     slots [acked, slots_head) are in the ring. delivered <= accepted; what lies between them is with the medium.
 *   - What came over a path that ends is taken in before `accepted` is said for the next one: so each slot comes once.
 *   - Callbacks run in path_link_settle(), or by operations of the owner and of the control link; the functions of a medium
 *     leave `attention` at a link, and settling tells its owner.
 */
#ifndef RF_TRANSPORT_PATH_PATH_H
#define RF_TRANSPORT_PATH_PATH_H

#include "base/memory.h"
#include "transport/message.h"
#include "transport/path/format.h"

#define PATH_LINKS_MAX           1024
#define PATH_LINGER_MAX          256
#define PATH_WRITES_MAX          64 /* outstanding remote writes of a link */
#define PATH_READS_MAX           64 /* ... and reads */
#define PATH_WRITE_SIZE_MAX      (1ull << 48)
#define PATH_DEADLINE_NS_DEFAULT 10000000000ull
#define PATH_MAKING_NS_MAX       2000000000ull /* from a path's beginning to HELLO, before it is tried anew */
#define PATH_BACKOFF_NS_MIN      2000000ull
#define PATH_BACKOFF_NS_MAX      500000000ull
#define PATH_LOG_INTERVAL_NS     10000000000ull

typedef struct path_endpoint path_endpoint_t;
typedef struct path_link path_link_t;
typedef struct path_lane path_lane_t;
typedef struct path_medium path_medium_t;

typedef enum path_stage {
    PATH_NONE,
    PATH_MAKING,   /* the medium makes its end */
    PATH_OFFERED,  /* dialer: the answer is awaited */
    PATH_JOINING,  /* dialer: it came, and joining goes on */
    PATH_ANSWERED, /* listener: joined; HELLO is awaited */
    PATH_HELLO,    /* dialer: joined, HELLO sent, the other's is awaited */
    PATH_UP,
} path_stage_t;

struct path_lane {
    path_link_t *link;
    unsigned number; /* PATH_LANE_* */
    path_stage_t stage;
    bool failed; /* its path is over, and to be given up: settling asks the medium what follows */
    uint32_t generation;
    bool wanted;   /* bulk: there is something to write, and a path was asked for */
    bool lost_due; /* the peer is to be told LOST, with `lost_err` */
    rf_err_t lost_err;
    uint64_t offer_ns;   /* dialer: when to offer next; RF_NEVER */
    uint64_t overdue_ns; /* when to give up this path's making; RF_NEVER */
    unsigned overdue;    /* times in a row that it was given up */
    uint64_t backoff_ns;
    uint64_t offered_ns;    /* listener: when the last offer came; 0: none has */
    uint64_t up_ns;         /* since when it is up, or was */
    uint64_t peer_accepted; /* of the offer or answer */
    uint8_t offer[PATH_INFO_MAX] __attribute__((aligned(8))); /* listener: while its path is made */
};

typedef struct path_write {
    rf_region_key_t to;
    uint64_t offset, size, cookie;
    uint64_t total; /* bytes of all writes of the link, this one the last */
    const uint8_t *source;
    bool has_notify;
    rf_slot_t notify;
} path_write_t;

typedef struct path_read {
    rf_region_key_t from;
    uint64_t offset, size, cookie;
    uint64_t after; /* goes behind so many writes */
    uint8_t *into;
    uint64_t sent; /* bytes asked for over the path that there is */
    uint32_t end;  /* the medium's: when it is done */
    rf_err_t err;
} path_read_t;

/* Remote writes of both directions, and reads of this end. Made on demand. */
typedef struct path_bulk {
    /* Out. acked <= done <= posted <= head: counts of writes whose owner was told, that are placed, wholly sent, and
     * taken; [acked, head) are in the queue. */
    uint64_t acked, done, posted, head;
    uint64_t total;    /* bytes of all writes taken */
    uint64_t stuck_ns; /* nothing has got there since there was no path: when to give up; RF_NEVER */
    path_write_t writes[PATH_WRITES_MAX];
    /* read_told <= read_done <= read_posted <= read_head: counts of reads whose owner was told, that are complete, wholly
     * asked for, and taken. What is not complete when a path ends is asked for again over the next. */
    uint64_t read_told, read_done, read_posted, read_head;
    path_read_t reads[PATH_READS_MAX];
    /* In. */
    uint64_t placed;                   /* so many writes have come whole */
    uint32_t notify_head, notify_tail; /* notify slots that wait for poll(); the medium has them */
} path_bulk_t;

struct path_link {
    rf_link_t head;
    path_link_t *prev, *next; /* in the endpoint's list; next also in the graveyard */
    rf_link_t *control;       /* NULL: gone */
    rf_assembler_t *control_in;
    rf_hello_t self; /* as this end said it */
    bool dialer, was_up;
    bool incoming;    /* listener: waits for accept() or reject() */
    bool user_closed; /* close() was called: no more callbacks; freed when the peer has taken everything */
    bool buried, fenced;
    bool end_pending; /* DEAD is due as soon as everything that arrived has been polled */
    bool attention;   /* path_link_settle() has something to do */
    bool closed_due;  /* the peer is to be told that all it sent before its close has been taken */
    bool up_due, room_due;
    rf_err_t end_err;
    const char *wrong; /* the peer sent this nonsense, and the link is to end */
    char address_text[RF_ADDRESS_MAX];
    uint64_t dead_ns; /* when to give up; RF_NEVER while up */
    path_lane_t lanes[PATH_LANES];

    /* Slots out. */
    rf_slot_t *ring;
    uint32_t ring_size, slots_max;
    uint64_t slots_head, acked, posted, sent_max;
    uint32_t room_wanted;  /* a send of so many was refused; 0: none */
    uint64_t ack_asked_at; /* one was asked for everything up to here */
    uint32_t say;          /* PATH_WORD_*: due in the next word */
    bool say_ack;

    /* Slots in. */
    uint64_t delivered, accepted;
    uint64_t close_at; /* the peer closed after so many; RF_NEVER */

    path_bulk_t *bulk; /* NULL until regions or remote writes are used */
    rf_link_stats_t stats;
};

struct path_endpoint {
    rf_endpoint_t head;
    const path_medium_t *medium;
    rf_link_event_fn on_event;
    void *context;
    uint64_t deadline_ns;
    rf_hello_t self;
    rf_endpoint_t *control; /* of transport/tcp */
    int epoll, kick;        /* kick: an eventfd in the set, written when progress() is due at once */
    path_link_t *links;
    path_link_t *walk; /* the next of a walk over the links: callbacks may close it; NULL: none */
    uint32_t n_links, n_lingering;
    uint64_t timer_ns;
    uint64_t whole_ns;   /* progress() looks at all that may be heard at the latest then */
    uint64_t control_ns; /* ... and then the control links' endpoint wants to be called */
    uint32_t inside;
    bool in_progress, attention;
    bool control_more; /* of control links there was more than one look takes */
    path_link_t *graveyard;
    uint64_t log_path_ns, log_garbage_ns, log_bulk_ns;
};

/* What a medium brings. No function here runs a callback of the owner or frees a link, unless it says so. */
struct path_medium {
    const rf_transport_t *transport; /* its name is in log lines, and in the control links' hellos */
    char magic[8];                   /* of path_info_t, with its format */
    uint16_t format;
    uint16_t info_size; /* bytes of its OFFERs, path_info_t among them; at most PATH_INFO_MAX */
    uint8_t word;       /* the type of a slot that is a word */
    uint32_t word_flags;
    size_t endpoint_size, link_size, bulk_size; /* of its structs, which begin with those here */

    /* The endpoint: opened before its control links' endpoint, and closed, also half open, after all links are freed. */
    rf_err_t (*open)(path_endpoint_t *ep, const rf_endpoint_params_t *params);
    void (*close)(path_endpoint_t *ep);
    /* A descriptor that it put into the set under this tag (never the endpoint itself) is ready. May be NULL. */
    void (*heard)(path_endpoint_t *ep, void *tag);
    /* What ends a sleep mostly, without asking the set: true, it did, and was taken. May be NULL. */
    bool (*woken)(path_endpoint_t *ep);
    /* In each progress(), behind what the control links' endpoint has to do. */
    void (*progress)(path_endpoint_t *ep, uint64_t now_ns);
    /* Last in each progress(): returns when it wants to be called again; RF_NEVER. */
    uint64_t (*rest)(path_endpoint_t *ep, uint64_t now_ns);

    /* A link: what it has beyond path_link_t. link_init may be NULL; link_free frees all but the link itself. */
    rf_err_t (*link_init)(path_link_t *link);
    void (*link_free)(path_link_t *link);
    /* Moves the ring to one of `size` slots, a larger power of two; the slots keep their numbers. False: not now. */
    bool (*ring_grow)(path_link_t *link, uint32_t size);
    /* In each progress(), for each link: takes in what nobody polls for. True: there is more. */
    bool (*hear)(path_link_t *link);
    /* Sends what is due. */
    void (*push)(path_link_t *link);
    /* The slots' path ends: takes in what has come over it. */
    void (*keep)(path_link_t *link);
    /* Cuts every path of the link for good, those that are ending too: nothing of the peer is delivered, or written into
     * its regions, any more. */
    void (*fence)(path_link_t *link);
    /* A control message of a type from PATH_CONTROL_MEDIUM on. False: nonsense. May be NULL. */
    bool (*message)(path_link_t *link, uint8_t type, const uint8_t *bytes, size_t size);

    /* Makes its end of a path, at the listener for an offer. Ends, at once or later, by path_lane_made(), path_lane_refused()
     * or path_lane_impossible(); the last may bury the link, and run callbacks. */
    void (*make)(path_lane_t *lane, const path_info_t *offer);
    /* Writes what the peer has to know of that end behind `out`, whose fields are filled in. */
    rf_err_t (*info)(path_lane_t *lane, path_info_t *out);
    /* The medium's part of an OFFER or ANSWER makes sense. */
    bool (*info_right)(const path_info_t *info);
    /* Joins it to the peer's end. RF_OK: words may be sent; RF_ERR_AGAIN: path_lane_joined() follows (dialer only). */
    rf_err_t (*join)(path_lane_t *lane, const path_info_t *peer);
    bool (*say)(path_lane_t *lane, const path_word_t *word); /* false: no room */
    /* Ends the lane's path, if there is one; nothing of it is read any more. */
    void (*drop)(path_lane_t *lane);
    /* `failed` was set: what follows, by path_lane_lost(), path_lane_refused() or path_lane_impossible(). Runs callbacks. */
    void (*failed)(path_lane_t *lane);
    /* For a log line: what does not come up in time, and what to look at. */
    const char *(*overdue)(const path_lane_t *lane);
    /* The slots' lane is up: link->posted is the number of the first slot that goes over it. */
    void (*resume)(path_link_t *link);

    /* Remote writes. bulk_free frees all but the bulk state itself. */
    void (*bulk_free)(path_link_t *link);
    /* Sends what the bulk lane, which is up, takes; a read when `after` writes have been sent. */
    void (*bulk_pump)(path_link_t *link);
    /* The bulk lane is up: the peer has so many writes; goes on from there. False: it cannot have. */
    bool (*bulk_resume)(path_link_t *link, uint64_t peer_placed);
    /* Before the owner is told of writes and reads that are done: counts them. May be NULL. */
    void (*bulk_settle)(path_link_t *link);
};

/* endpoint.c: operations of a medium's table, or what they are made of. */
rf_err_t path_endpoint_open(const path_medium_t *medium, const rf_endpoint_params_t *params,
                            rf_endpoint_t **out);
void path_endpoint_close(rf_endpoint_t *endpoint);
rf_err_t path_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max);
int path_endpoint_fd(rf_endpoint_t *endpoint);
void path_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);
rf_err_t path_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
rf_err_t path_accept(rf_link_t *incoming, const rf_link_params_t *params);
void path_reject(rf_link_t *incoming, rf_err_t why);
void path_fence(rf_link_t *link);
void path_close(rf_link_t *link);
/* Puts a descriptor into the endpoint's set. */
rf_err_t path_endpoint_watch(path_endpoint_t *ep, int fd, void *tag);
/* Around whatever may run callbacks: links are freed when the outermost call leaves. */
void path_endpoint_enter(path_endpoint_t *ep);
void path_endpoint_leave(path_endpoint_t *ep);
/* progress() is due then at the latest. */
void path_endpoint_timer(path_endpoint_t *ep, uint64_t at_ns);
void path_link_event(path_link_t *link, rf_link_event_t event, rf_err_t err, const rf_hello_t *hello,
                     uint64_t cookie);
/* path_link_settle() is to be called for it, in poll() or progress(). */
void path_link_attention(path_link_t *link);
/* The peer sent nonsense, so the link is to end. */
void path_link_wrong(path_link_t *link, const char *what);
/* The slots' path is gone. Runs callbacks. */
void path_link_broken(path_link_t *link, rf_err_t err);
/* The link ends with `err`: at once if nothing that arrived is left, else after it has been polled. */
void path_link_end(path_link_t *link, rf_err_t err);
void path_link_end_settle(path_link_t *link);
/* The peer closed in order, and everything before that has been polled. */
void path_link_closed(path_link_t *link);
/* The link is over, and is freed by path_endpoint_leave(). */
void path_link_bury(path_link_t *link);

/* control.c */
void path_control_event(void *context, rf_link_t *control, rf_link_event_t event,
                        const rf_link_event_info_t *info);
/* Takes what came over the control link, at most so many batches. True: there is more. */
bool path_control_poll(path_link_t *link, unsigned batches);
/* What is due by time: offers, paths that do not come up. */
void path_control_timers(path_link_t *link, uint64_t now_ns);
uint64_t path_control_next(const path_link_t *link);
/* Says again what could not be said before. */
void path_control_push(path_link_t *link);
/* False: no room, or no control link any more. */
bool path_control_say(path_link_t *link, uint8_t type, const void *bytes, size_t size);
/* The medium has made its end of the path. */
void path_lane_made(path_lane_t *lane);
/* The dialer's end is joined: HELLO may be said. */
void path_lane_joined(path_lane_t *lane);
/* HELLO came. */
void path_lane_hello(path_lane_t *lane);
/* The path is over, says the medium: settling calls `failed`. */
void path_lane_failed(path_lane_t *lane);
/* Ends its path, if there is one. */
void path_lane_drop(path_lane_t *lane);
/* It has lost its path, or needs one: the dialer offers, the listener asks for it. */
void path_lane_need(path_lane_t *lane, uint64_t now_ns);
/* Its path is over, and another is made: of slots the link is BROKEN; of bulk one is made if `again`. */
void path_lane_lost(path_lane_t *lane, rf_err_t err, bool again);
/* No path from here now: it is tried again, until what waits for it has waited too long. */
void path_lane_refused(path_lane_t *lane);
/* There can never be one: the link ends with `err`, which the peer is told. */
void path_lane_impossible(path_lane_t *lane, rf_err_t err);

static inline bool path_lane_up(const path_lane_t *lane)
{
    return lane->stage == PATH_UP && !lane->failed;
}

/* link.c */
path_link_t *path_link_new(path_endpoint_t *ep, const rf_link_params_t *params);
rf_err_t path_link_size(path_link_t *link, const rf_link_params_t *params);
unsigned path_room(rf_link_t *link, unsigned want);
unsigned path_send(rf_link_t *link, const rf_slot_t *slots, unsigned n);
/* The link does not take slots any more: what flush() returns. */
rf_err_t path_link_over(const path_link_t *link);
void path_link_stats(const path_link_t *link, rf_link_stats_t *out);
/* A send was refused, or somebody sleeps: the peer is asked to say what it has taken, unless it has been asked. */
void path_link_ask(path_link_t *link);
/* The peer's owner has taken `delivered` slots. False: it cannot have. */
bool path_link_acked(path_link_t *link, uint64_t delivered);
/* The slots' lane is up: the peer has accepted so many. False: it cannot have. */
bool path_link_resume(path_link_t *link, uint64_t peer_accepted);
/* Tells the owner what is due. Runs callbacks. */
void path_link_settle(path_link_t *link);
/* A word, as its sender may make it. */
bool path_word_read(const path_lane_t *lane, const rf_slot_t *slot, path_word_t *out);
/* The word that is due. False: none is. */
bool path_word_due(const path_link_t *link, path_word_t *out);
/* ... and it has been said. */
void path_word_said(path_link_t *link, const path_word_t *word);

/* bulk.c */
/* Makes link->bulk if it is not there. */
rf_err_t path_bulk_need(path_link_t *link);
void path_bulk_free(path_link_t *link);
rf_err_t path_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                           size_t size, const rf_slot_t *notify, uint64_t cookie);
rf_err_t path_remote_read(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, void *destination,
                          size_t size, uint64_t cookie);
/* Sends what can be sent, or asks for a path to send it over. */
void path_bulk_pump(path_link_t *link);
bool path_bulk_resume(path_link_t *link, uint64_t peer_placed);
/* Tells the owner which writes are complete. Runs callbacks. */
void path_bulk_settle(path_link_t *link);
/* Every outstanding write and read ends with `err`. Runs callbacks. */
void path_bulk_fail(path_link_t *link, rf_err_t err);
/* What is due by time: nothing gets there. */
void path_bulk_timers(path_link_t *link, uint64_t now_ns);

static inline path_link_t *path_link_of(rf_link_t *link)
{
    return (path_link_t *)link;
}
static inline path_endpoint_t *path_endpoint_of(const path_link_t *link)
{
    return (path_endpoint_t *)link->head.endpoint;
}
static inline const path_medium_t *path_medium_of(const path_link_t *link)
{
    return path_endpoint_of(link)->medium;
}
static inline const char *path_name_of(const path_link_t *link)
{
    return link->head.transport->name;
}
/* Writes or reads are not complete. */
static inline bool path_bulk_waits(const path_bulk_t *bulk)
{
    return bulk->done != bulk->head || bulk->read_done != bulk->read_head;
}
static inline uint32_t path_ring_free(const path_link_t *link)
{
    return link->ring_size - (uint32_t)(link->slots_head - link->acked);
}
/* Nothing that arrived waits for poll(). */
static inline bool path_link_served(const path_link_t *link)
{
    return link->delivered == link->accepted &&
           (!link->bulk || link->bulk->notify_head == link->bulk->notify_tail);
}

#endif
