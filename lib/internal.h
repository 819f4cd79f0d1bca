/*
 * What the files of librackfish share. One dispatcher a process, driven by the one host thread that called rf_init().
 *
 *   life.c      rf_init, rf_finish; the kernel link and the client link are made here
 *   loop.c      the dispatcher's loop: looks at links, makes threads ready, polls, blocks on the doorbell
 *   thread.c    user-level threads and what they wait with; context*.[cS] switch stacks
 *   lookout.c   rings the doorbell when a descriptor is ready
 *   request.c   requests to the CPU driver and to the monitor, their replies and events
 *   channel.c   messages; call.c: calls; connect.c: export, accept, connect; stream.c: streams
 *   waitset.c   wait sets;  domain.c: spawn, span, wait;  machine.c: lists and events
 *   registry.c  keys and watches;  lock.c: locks, semaphores, barriers, queues
 *
 * How everything waits. A blocked thread has a `lib_wait_t`: a predicate that also does the work (it polls the channel, or tries
 * the send again) and the links that could make it true. The loop evaluates predicates; nothing else makes such a thread ready.
 * Before the process blocks, the links of all blocked threads, the kernel link and the client link are armed; then one fence, one look,
 * and one futex wait.
 *
 * No wake-up is lost because an armed link tells of everything that came after it was last polled, and `news` of everything before:
 * a predicate that polls may bring what another one, asked before it, or the first half of itself waits for (room, a message, a
 * reply, credit, the link's end). So the process blocks only when all predicates have been asked since there was news.
 *
 * Descriptors (sockets of links, network links, the program's own) are in one epoll instance. A host thread of the library's own, the
 * lookout, does nothing but wait for it and ring the doorbell (lookout.c says why it is not the CPU driver).
 */
#ifndef RF_LIB_INTERNAL_H
#define RF_LIB_INTERNAL_H

#include "rackfish.h"

#include "base/clock.h"
#include "base/memory.h"
#include "context.h"
#include "transport/message.h"
#include "transport/stream.h"
#include "transport/transport.h"
#include "transport/wait.h"
#include "wire/client.h"
#include "wire/kernel.h"

#include <stdio.h>

#define LIB_STAGE_SLOTS    32 /* slots taken from a channel's link at a time */
#define LIB_LINKS_MAX      (RF_CHANNELS_MAX + 2)
#define LIB_REQUESTS_MAX   512 /* outstanding, to CPU driver and monitor together */
#define LIB_LOST_FDS_MAX   16  /* descriptors that came before the event they belong to */
#define LIB_MACHINE_EVENTS 64
#define LIB_NAP_NS         (100 * RF_NS_PER_US) /* look again after this, where no link can tell */
#define LIB_CALL           0xe1 /* slot types of calls: lib_call_head_t, then the program's bytes */
#define LIB_REPLY          0xe2

_Static_assert(RF_CHANNEL_MESSAGE_MAX == RF_MESSAGE_MAX, "the public maximum is the transport's");
_Static_assert(sizeof(rf_channel_slot_t) == sizeof(rf_slot_t), "a public slot lies as a slot does");

/* ---- waiting ---- */

/* Gathers what is to be armed before blocking. */
typedef struct lib_arm {
    rf_link_t *links[LIB_LINKS_MAX];
    unsigned n;
    uint64_t round;        /* channels remember it, so that each is armed once */
    bool poll, never_poll; /* somebody waits for a peer with a CPU of its own; for one that shares ours */
    uint64_t wake_ns;      /* wake up at the latest */
} lib_arm_t;

typedef struct lib_wait {
    bool (*ready)(void *context); /* does the work if it can be done now; true: stop waiting */
    void (*arm)(void *context,
                lib_arm_t *arm); /* adds links and times; NULL: kernel and client link suffice */
    void *context;
} lib_wait_t;

/* Blocks the calling thread until wait->ready() or the deadline. Calls ready() at least once. */
rf_err_t rf_lib_block(const lib_wait_t *wait, uint64_t deadline_ns);

/* ---- threads ---- */

typedef enum lib_thread_state {
    LIB_THREAD_READY,
    LIB_THREAD_RUNNING,
    LIB_THREAD_BLOCKED,
    LIB_THREAD_ENDED
} lib_thread_state_t;

struct rf_thread {
    lib_context_t context;
    lib_thread_state_t state;
    struct rf_thread *next;        /* in the ready queue */
    struct rf_thread *queued_next; /* in a mutex's or condition's queue */
    struct rf_thread *joiner;      /* who waits for it to end */
    struct rf_thread *blocked_next, *blocked_previous;
    const lib_wait_t *wait; /* blocked on links; NULL: only another thread or the deadline wakes it */
    uint64_t deadline_ns;
    bool timed_out;
    bool detached;
    bool woken; /* a condition gave it what it waited for */
    void *(*function)(void *);
    void *argument, *result;
    void *stack; /* mapping with its guard page; NULL for the first thread */
    size_t stack_bytes;
};

void rf_lib_threads_start(void);
void rf_lib_threads_stop(void);

/* ---- a descriptor in our epoll instance ---- */

typedef struct lib_watch {
    enum { LIB_WATCH_ENDPOINT, LIB_WATCH_FD } kind;
    int fd;
    uint32_t wanted, fired;  /* FD: EPOLL* asked for; seen since it was last armed */
    rf_endpoint_t *endpoint; /* ENDPOINT */
    uint64_t next_ns;        /* ENDPOINT: when to look at the latest */
    struct lib_watch *next;  /* ENDPOINT: list of all */
} lib_watch_t;

rf_err_t rf_lib_watch_endpoint(lib_watch_t *watch, rf_endpoint_t *endpoint);
void rf_lib_unwatch_endpoint(lib_watch_t *watch);

/* The lookout rings `doorbell` once, when something in `epoll` is ready and it is armed. */
rf_err_t rf_lib_lookout_start(int epoll, const rf_doorbell_t *doorbell);
void rf_lib_lookout_stop(void);
bool rf_lib_lookout_fired(void);
/* Before blocking: descriptors that became ready have been looked at. */
void rf_lib_lookout_arm(void);

/* ---- ports: our ends of the kernel link and the client link ---- */

typedef enum lib_port_kind { LIB_PORT_KERNEL, LIB_PORT_CLIENT, LIB_PORT_CHANNEL } lib_port_kind_t;

/* What link->user points to; first member of whatever owns the link. */
typedef struct lib_port {
    lib_port_kind_t kind;
    rf_link_t *link; /* NULL: none */
    bool up;
    rf_err_t end; /* RF_OK while it lives */
} lib_port_t;

typedef struct lib_server_port {
    lib_port_t port;
    uint8_t request_type, reply_type, event_type;
    rf_assembler_t in;
} lib_server_port_t;

/* A request on its way. From a fixed pool. */
typedef struct lib_request {
    bool used, done;
    lib_server_port_t *server;
    uint32_t tag;
    uint16_t op;
    rf_err_t err;
    void *out; /* where the reply's bytes behind the header go; the asker's */
    size_t out_max, out_size;
    rf_operation_t *abandoned; /* nobody waits for the answer: this operation goes when it comes */
    int fd;                    /* descriptor that came with the reply, or -1 */
} lib_request_t;

/* Sends a request; the reply's bytes go to `out`, which stays put until rf_lib_request_free(). RF_ERR_AGAIN: the link is full. */
rf_err_t rf_lib_request_start(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size,
                              const int *fds, unsigned n_fds, void *out, size_t out_max,
                              lib_request_t **request);
/* Gives it back; a reply that comes later is dropped, its descriptor closed. */
void rf_lib_request_free(lib_request_t *request);
/* Waits for the answer, and gives it back. */
rf_err_t rf_lib_request_wait(lib_request_t *request, uint64_t deadline_ns);
/* Sends, also when the link is full for now, and waits for the answer. At least `out_min` bytes must come with success. */
rf_err_t rf_lib_request(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size, void *out,
                        size_t out_min, size_t out_max, size_t *out_size, int *fd, uint64_t deadline_ns);
/* Sends something that is not answered. RF_ERR_AGAIN when full. */
rf_err_t rf_lib_tell(lib_server_port_t *server, uint16_t op, const void *in, size_t in_size);
/* Takes what has arrived on kernel and client link. */
void rf_lib_servers_poll(void);
/* Descriptors that came with event `op`, `key`; -1 when none did. */
int rf_lib_event_fd(lib_server_port_t *server, uint16_t op, uint64_t key);
void rf_lib_server_fds(lib_server_port_t *server, const rf_link_event_info_t *info);
void rf_lib_server_ended(lib_server_port_t *server, rf_err_t err);

/* ---- channels ---- */

typedef struct lib_call_head {
    uint32_t tag;
    uint8_t type;
    uint8_t reserved[3];
} lib_call_head_t;
_Static_assert(sizeof(lib_call_head_t) == 8, "wire layout");

typedef struct lib_call {
    bool used, done;
    uint32_t tag;
    rf_err_t err;
    rf_message_t *reply;
} lib_call_t;

typedef enum lib_front { LIB_FRONT_NONE, LIB_FRONT_SLOT, LIB_FRONT_WHOLE } lib_front_t;

struct rf_channel {
    lib_port_t port; /* first: link->user leads here */
    const rf_transport_t *transport;
    unsigned in_head, in_count; /* slots staged and not yet taken: in[in_head .. in_count) */
    lib_front_t front;          /* is the next message known, and where */
    bool front_is_call;
    bool muted;    /* never poll again: fenced after nonsense */
    bool accepted; /* the program has it */
    bool closed;   /* closed by the program, kept until its waiters have left */
    unsigned waiters;
    uint64_t armed_round;
    struct rf_channel *next, *previous;           /* all channels of the dispatcher */
    struct rf_channel *queue_next;                /* in an export's queue */
    rf_export_t *export_;                         /* while in that queue */
    rf_stream_t *streams[RF_CHANNEL_STREAMS_MAX]; /* by id, as the transport knows them; compact copy below */
    rf_channel_stream_t *stream_handles[RF_CHANNEL_STREAMS_MAX];
    unsigned n_streams;
    lib_call_t calls[RF_CALLS_MAX];
    uint32_t call_count;
    bool answer_owed; /* the monitor still waits for our ACCEPT: its link was full */
    rf_client_accept_t answer;
    rf_client_connected_t about;
    rf_endpoint_t *endpoint; /* network: of this channel alone */
    lib_watch_t watch;
    rf_slot_t in[LIB_STAGE_SLOTS];
    rf_assembler_t assembler;
};

/* A channel without a link yet; the caller gives it one. NULL when there are too many. */
rf_channel_t *rf_lib_channel_create(const rf_client_connected_t *about);
/* Takes a channel out of everything and frees it once nobody waits on it. `orderly`: the peer gets what was flushed. */
void rf_lib_channel_destroy(rf_channel_t *channel, bool orderly);
/* Makes the next message known; false if none has arrived. Delivers replies and stream slots on the way. */
bool rf_lib_channel_front(rf_channel_t *channel);
/* The peer did what no correct peer does: nothing of it is read any more. */
void rf_lib_channel_poison(rf_channel_t *channel, const char *why);
void rf_lib_channel_leave(rf_channel_t *channel);
/* Takes more slots from the link, as far as there is room to keep them; true if some came. */
bool rf_lib_channel_refill(rf_channel_t *channel);
/* What arrives on the channel next can make a predicate true. */
void rf_lib_arm_channel(rf_channel_t *channel, lib_arm_t *arm);
/* No link can tell: look again a little later. */
void rf_lib_arm_nap(lib_arm_t *arm);
rf_err_t rf_lib_channel_take(rf_channel_t *channel, rf_message_t *message);
rf_err_t rf_lib_channel_put(rf_channel_t *channel, uint8_t slot_type, const void *head, size_t head_size,
                            const void *body, size_t body_size);
/* Blocks until the whole message is in, then flushes. */
rf_err_t rf_lib_channel_put_wait(rf_channel_t *channel, uint8_t slot_type, const void *head, size_t head_size,
                                 const void *body, size_t body_size, uint64_t deadline_ns);
void rf_lib_call_deliver(rf_channel_t *channel, const uint8_t *bytes, size_t size);
void rf_lib_streams_slot(rf_channel_t *channel, const rf_slot_t *slot);
void rf_lib_streams_written(rf_channel_t *channel, uint64_t cookie, rf_err_t err);
/* There is room in the link again: what the streams could not say or post goes, whoever waits for what. */
void rf_lib_streams_room(rf_channel_t *channel);
void rf_lib_streams_close(rf_channel_t *channel);
uint32_t rf_lib_stream_events(rf_channel_stream_t *stream, uint32_t wanted);
rf_channel_t *rf_lib_stream_channel(const rf_channel_stream_t *stream);
void rf_lib_connect_incoming(const rf_client_incoming_t *incoming);
void rf_lib_connect_service(void);

struct rf_export {
    char name[RF_NAME_MAX]; /* "" : by dispatcher */
    unsigned backlog, n_queued;
    rf_channel_t *first, *last; /* incoming, connected or connecting */
    struct rf_export *next;
    unsigned waiters;
    bool closed;
};
/* The first that is up, or NULL; drops dead ones. */
rf_channel_t *rf_lib_export_front(rf_export_t *export_);
void rf_lib_export_drop(rf_channel_t *channel);

/* ---- operations ---- */

struct rf_operation {
    lib_request_t *request;
    enum { OPERATION_SPAWN, OPERATION_SPAN, OPERATION_WAIT, OPERATION_REGISTRY } kind;
    rf_domain_t domain;                  /* WAIT: which */
    uint8_t kind_waited;                 /* REGISTRY: RF_REGISTRY_KIND_*, */
    char name[RF_REGISTRY_NAME_MAX + 1]; /* ... and which */
    union {
        rf_client_spawned_t spawned;
        rf_client_domain_t ended;
        struct {
            rf_client_registry_done_t done;
            uint8_t message[RF_REGISTRY_VALUE_MAX];
        };
    } reply;
    struct rf_operation *next;
};

rf_operation_t *rf_lib_operation_create(int kind); /* NULL: see rf_lib_no_operation() */
rf_err_t rf_lib_no_operation(void);
void rf_lib_operation_free(rf_operation_t *operation);
/* Until it is done; it stays the caller's. */
rf_err_t rf_lib_operation_block(rf_operation_t *operation, uint64_t deadline_ns);

/* ---- the registry ---- */

typedef struct lib_registry_request {
    rf_client_registry_t head; /* and the bytes behind it: `size` in all */
    uint8_t bytes[RF_CLIENT_REGISTRY_BYTES_MAX];
    size_t size;
} lib_registry_request_t;
_Static_assert(offsetof(lib_registry_request_t, bytes) == sizeof(rf_client_registry_t), "back to back");

rf_err_t rf_lib_registry_encode(lib_registry_request_t *out, const rf_client_registry_t *head,
                                const char *name, const void *value, size_t size, const void *compare,
                                size_t compare_size);
rf_err_t rf_lib_registry_change(const rf_client_registry_t *head, const char *name, const void *value,
                                size_t size, uint64_t deadline_ns);
void rf_lib_registry_abandoned(const rf_operation_t *operation);
void rf_lib_watches_stop(void);

/* ---- wait sets, machine events ---- */

void rf_lib_waitsets_forget(const void *object);
void rf_lib_machine_event(const rf_client_machine_event_t *event);
rf_err_t rf_lib_machine_subscribe(uint32_t mask, uint64_t deadline_ns);
void rf_lib_domain_info(const rf_client_domain_t *row, rf_domain_info_t *out);
void rf_lib_operations_stop(void);
void rf_lib_waitsets_stop(void);
/* Asks the CPU driver for exactly the signals that wait sets want. */
rf_err_t rf_lib_signals_update(uint64_t deadline_ns);

/* ---- the dispatcher ---- */

typedef struct lib_dispatcher {
    bool up;
    rf_doorbell_t doorbell;
    const rf_transport_t *shm;
    rf_endpoint_t *endpoint;
    lib_watch_t endpoint_watch;
    lib_server_port_t kernel, client;
    rf_kernel_identity_t identity;
    rf_self_t self;

    int epoll;
    bool looked;           /* at the descriptors, since the lookout was armed */
    uint64_t looked_ticks; /* ... and when */
    lib_watch_t *endpoints;

    uint64_t news,
        news_tried; /* slots and events taken so far; before the last time all predicates were asked */

    rf_wait_t wait;
    unsigned n_spins;
    lib_arm_t arm; /* too large for a thread's stack */

    rf_thread_t *current, first_thread;
    rf_thread_t *ready_first, *ready_last;
    rf_thread_t *blocked; /* doubly linked */
    rf_thread_t *dead;    /* has left its stack for good; freed by the next to run */
    unsigned n_threads, n_switches;

    rf_channel_t *channels;
    unsigned n_channels, n_answers_owed;
    rf_export_t *exports;
    unsigned n_exports;
    rf_waitset_t *waitsets;
    unsigned n_waitsets;
    rf_operation_t *operations;
    unsigned n_operations;
    rf_registry_watch_t *watches;
    unsigned n_watches;

    lib_request_t requests[LIB_REQUESTS_MAX];
    uint32_t request_count;
    struct {
        lib_server_port_t *server;
        uint16_t op;
        uint64_t key;
        int fd; /* valid while server is set */
    } lost_fds[LIB_LOST_FDS_MAX];

    uint64_t signals_pending, signals_set;
    rf_machine_event_t machine_events[LIB_MACHINE_EVENTS];
    uint64_t machine_count; /* events ever kept */
    uint32_t machine_mask;  /* subscribed */
} lib_dispatcher_t;

extern lib_dispatcher_t rf_me;

/* One look at the kernel link, the client link and, where due, descriptors. */
void rf_lib_service(void);
/* Looks at the descriptors now: makes connections go on, notices deaths. */
void rf_lib_look_at_descriptors(void);
/* rf_lib_service(), and every blocked thread that can go on is made ready. */
void rf_lib_loop_look(void);
/* Polls, then blocks, until at least one thread is ready. */
void rf_lib_loop_wait(void);
/* Runs threads until the calling one, which is no longer RUNNING, runs again. */
void rf_lib_schedule(void);
void rf_lib_make_ready(rf_thread_t *thread);
void rf_lib_on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info);
rf_err_t rf_lib_wait_up(lib_port_t *port, uint64_t deadline_ns);

/* Notes why, and returns `err`. */
rf_err_t rf_lib_fail(rf_err_t err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
