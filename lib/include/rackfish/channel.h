/*
 * Channels: ordered, reliable messages between two dispatchers, the same calls whether the peer is on the
 * same core (LMP), another core of this host (URPC, cache lines in shared memory) or another host (network).
 * Source: lib/channel.c, lib/connect.c, lib/call.c.
 *
 *   exporter:  rf_export("name") ... rf_accept()          client:  rf_connect("name")
 *                                        └──────── channel ────────┘
 *
 * A message is 0 to RF_CHANNEL_MESSAGE_MAX bytes with a type, 1 to 15, whose meaning is the program's.
 * Messages of up to RF_CHANNEL_SLOT_BYTES bytes are a single cache line. Messages arrive in the order sent,
 * each exactly once, or the channel ends: then everything that had arrived is received first, and after it
 * the reason is returned, for ever:
 *
 *   RF_ERR_CLOSED      the peer closed the channel in order
 *   RF_ERR_PEER_DEAD   the peer's process, core or host died, or could not be reached until the deadline
 *   RF_ERR_PROTOCOL    the peer sent bytes that no correct peer sends; only this channel is harmed
 *
 * Full is a normal answer (RF_ERR_AGAIN): the peer has not yet taken what was sent. Room is announced through
 * the wait set.
 */
#ifndef RACKFISH_CHANNEL_H
#define RACKFISH_CHANNEL_H

#include "rackfish/api.h"
#include "rackfish/error.h"
#include "rackfish/types.h"

RF_BEGIN_DECLS

#define RF_CHANNELS_MAX        512  /* of one dispatcher, open at a time */
#define RF_EXPORTS_MAX         32   /* of one dispatcher */
#define RF_CHANNEL_MESSAGE_MAX 4096 /* bytes of a message */
#define RF_CHANNEL_SLOT_BYTES  56   /* up to here a message is one cache line */
#define RF_CALL_BYTES_MAX      4088 /* bytes of a call's request or reply */
#define RF_CALL_SLOT_BYTES     48   /* up to here a request or reply is one cache line */

typedef struct rf_channel rf_channel_t;
typedef struct rf_export rf_export_t;

typedef enum rf_channel_kind {
    RF_CHANNEL_KIND_LMP = 1,     /* same core */
    RF_CHANNEL_KIND_URPC = 2,    /* same host, another core */
    RF_CHANNEL_KIND_NETWORK = 3, /* another host */
} rf_channel_kind_t;

/* ---- making channels ---- */

enum {
    RF_CONNECT_WAIT = 1u << 0, /* wait, until the deadline, for somebody to export the name */
};

/* NULL where these are asked for means all zero. */
typedef struct rf_channel_options {
    uint32_t flags; /* RF_CONNECT_* */
    uint32_t slots; /* ring size to start with, in slots of 64 bytes, a power of two, 64 to 32768; 0: 64.
                       Rings grow by themselves when traffic asks. */
} rf_channel_options_t;

/*
 * Makes `name` known to the whole machine, by agreement, so that others can rf_connect() to it; at most
 * RF_NAME_MAX - 1 bytes. NULL instead of a name: no name, but others may rf_connect_dispatcher() to this
 * dispatcher; at most one such export. `backlog`: how many connected clients may wait for rf_accept(), 1 to
 * 256; 0: 64. Further ones are refused with RF_ERR_LIMIT.
 *
 * RF_ERR_EXISTS: somebody exports that name. RF_ERR_NO_QUORUM: the machine cannot agree now.
 * Ended by rf_export_close().
 */
RF_API rf_err_t rf_export(const char *name, unsigned backlog, rf_export_t **out, uint64_t deadline_ns);

/* Withdraws the name and closes channels nobody accepted; accepted ones stay. Frees `export_` in every case.
 * Names of a domain that ended are withdrawn by the machine. */
RF_API rf_err_t rf_export_close(rf_export_t *export_, uint64_t deadline_ns);

/* The next client's channel; the caller closes it. Who it is: rf_channel_info(). */
RF_API rf_err_t rf_accept(rf_export_t *export_, rf_channel_t **out, uint64_t deadline_ns);

/* A channel to whoever exports `name`. RF_ERR_NOT_FOUND: nobody does (see RF_CONNECT_WAIT). RF_ERR_LIMIT: its
 * backlog is full. RF_ERR_PEER_DEAD: it died meanwhile. RF_ERR_CLOSED: the link between the two cores' monitors broke
 * meanwhile; ask again. The caller closes it. */
RF_API rf_err_t rf_connect(const char *name, const rf_channel_options_t *options, rf_channel_t **out,
                           uint64_t deadline_ns);

/* A channel to a dispatcher that has exported no name (rf_export(NULL, ...)), for instance another of this
 * domain. */
RF_API rf_err_t rf_connect_dispatcher(rf_domain_t domain, uint16_t index, const rf_channel_options_t *options,
                                      rf_channel_t **out, uint64_t deadline_ns);

/* Ends a channel in order and frees it, and its streams: the peer first receives everything flushed before.
 * Threads of this dispatcher that wait on it get RF_ERR_CLOSED. NULL is allowed. */
RF_API void rf_channel_close(rf_channel_t *channel);

/* What is known of a channel and of its peer. `user` is the peer's user as its own host's kernel names it. */
typedef struct rf_channel_info {
    uint64_t id; /* machine-wide, the same at both ends */
    rf_channel_kind_t kind;
    bool same_cpu; /* the two ends share a CPU: waiting never polls */
    bool encrypted;
    char medium[16];    /* "shm", "tcp" */
    rf_domain_t domain; /* the peer's */
    uint16_t index;
    rf_core_t core;
    char user[32];
    rf_err_t state;                      /* RF_OK: open; else the reason it ended */
    uint64_t slots_sent, slots_received; /* of 64 bytes, messages and streams together */
    uint64_t wakeups_sent;               /* how often the peer was asleep */
    uint64_t full;                       /* how often it was full */
    uint64_t broken;                     /* network: how often the connection was lost and made again */
} rf_channel_info_t;
RF_API rf_err_t rf_channel_info(rf_channel_t *channel, rf_channel_info_t *out);

/* ---- messages ---- */

/* A message received, and where to put it. */
typedef struct rf_message {
    void *bytes;   /* in: the caller's buffer; what lies behind `size` bytes in it is lost */
    size_t room;   /* in: its size; RF_CHANNEL_MESSAGE_MAX is always enough */
    size_t size;   /* out: bytes of the message; with RF_ERR_TRUNCATED the room it needs */
    uint32_t call; /* out: not 0: the sender waits in rf_call() for rf_reply() with this number */
    uint8_t type;  /* out: 1 to 15 */
} rf_message_t;

/* Sends one message and makes it visible (one flush). Blocks while the channel is full. RF_ERR_INVALID: type
 * or size out of range. Else the reasons a channel ends. */
RF_API rf_err_t rf_channel_send(rf_channel_t *channel, uint8_t type, const void *bytes, size_t size,
                                uint64_t deadline_ns);

/* The same without blocking, and without flush: RF_ERR_AGAIN when full. Several of these, then
 * rf_channel_flush(), cost one fence and at most one wake-up together. A message that was not flushed may
 * stay unseen. */
RF_API rf_err_t rf_channel_try_send(rf_channel_t *channel, uint8_t type, const void *bytes, size_t size);
RF_API rf_err_t rf_channel_flush(rf_channel_t *channel);

/* Takes the next message. RF_ERR_TRUNCATED: it does not fit; it stays, and message->size says how much room
 * it needs. */
RF_API rf_err_t rf_channel_receive(rf_channel_t *channel, rf_message_t *message, uint64_t deadline_ns);

/* The same without blocking: RF_ERR_AGAIN when there is none. */
RF_API rf_err_t rf_channel_try_receive(rf_channel_t *channel, rf_message_t *message);

/* ---- batches of small messages ---- */

/* A message of at most RF_CHANNEL_SLOT_BYTES bytes as it lies in the ring. */
typedef struct rf_channel_slot {
    union {
        uint64_t words[7];
        uint8_t bytes[RF_CHANNEL_SLOT_BYTES];
    };
    uint8_t type;        /* 1 to 15 */
    uint8_t size;        /* 0 to 56 */
    uint8_t reserved[6]; /* zero */
} __attribute__((aligned(64))) rf_channel_slot_t;

/* Sends up to `n` messages, one slot each, and flushes once. `*sent` of them were taken; fewer than `n` means
 * full. RF_ERR_AGAIN: none. RF_ERR_INVALID: a slot has a wrong type, size or reserved byte; nothing was sent.
 */
RF_API rf_err_t rf_channel_send_slots(rf_channel_t *channel, const rf_channel_slot_t *slots, unsigned n,
                                      unsigned *sent);

/* Takes up to `max` messages of one slot each. RF_ERR_AGAIN: none now. RF_ERR_TRUNCATED: the next message is
 * longer than a slot or is a call; rf_channel_receive() takes it. Never blocks. */
RF_API rf_err_t rf_channel_poll_slots(rf_channel_t *channel, rf_channel_slot_t *slots, unsigned max,
                                      unsigned *got);

/* ---- calls ---- */

/*
 * Sends a request and waits for its reply, which goes to `reply`. On a channel of one core (LMP) the core is
 * handed straight to the peer and back: one wake and one wait a side. On others the same call polls for a
 * while, then blocks. Several threads may have calls outstanding on one channel. Calls and messages may share
 * a channel, but a reply is found only after the messages that came before it were received: some other
 * thread has to.
 *
 * RF_ERR_TIMEOUT: the request was sent; a reply that comes later is dropped. RF_ERR_TRUNCATED: the reply does
 * not fit into `reply`, and was dropped. RF_ERR_LIMIT: RF_CALLS_MAX calls are outstanding.
 */
#define RF_CALLS_MAX 64 /* outstanding on one channel */
RF_API rf_err_t rf_call(rf_channel_t *channel, uint8_t type, const void *request, size_t size,
                        rf_message_t *reply, uint64_t deadline_ns);

/* Answers a call (message->call). Blocks while the channel is full. */
RF_API rf_err_t rf_reply(rf_channel_t *channel, uint32_t call, uint8_t type, const void *bytes, size_t size,
                         uint64_t deadline_ns);

/* Answers a call and waits for the next message: the loop of a server. `call` 0: nothing to answer yet, only
 * waits. `next` may use the buffer that `bytes` points into. */
RF_API rf_err_t rf_reply_and_wait(rf_channel_t *channel, uint32_t call, uint8_t type, const void *bytes,
                                  size_t size, rf_message_t *next, uint64_t deadline_ns);

RF_END_DECLS

#endif
