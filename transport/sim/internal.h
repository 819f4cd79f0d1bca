/*
 * Inside the simulated medium.
 *
 *   network.c    virtual time, packets, faults         link.c    slots, acknowledgement, retransmission
 *   endpoint.c   inboxes, hellos, timers, ends         bulk.c    regions and remote writes
 *
 * A packet that arrives goes to its endpoint's inbox; it is acted on when the endpoint's owner calls, so callbacks run
 * where the contract allows. Counts are of slots, or of bulk chunks, since the link began:
 *
 *   acked <= received <= sent <= head       acked: taken by the peer's owner; received: with the peer's link
 *   delivered <= rx_received                the same, seen from the other side
 *
 * Retransmission goes back to `received`; what comes out of order is dropped, what comes twice is acknowledged again.
 */
#ifndef RF_TRANSPORT_SIM_INTERNAL_H
#define RF_TRANSPORT_SIM_INTERNAL_H

#include "transport/sim/sim.h"

#include "base/clock.h"
#include "base/prng.h"

#define SIM_PACKETS_MAX            32768 /* on their way; above it they are lost, as in a full switch */
#define SIM_PACKET_SLOTS           16
#define SIM_CHUNK                  4096
#define SIM_CHUNKS_AT_ONCE         32         /* unacknowledged chunks of a link */
#define SIM_LINKS_MAX              (1u << 20) /* ever made on one network */
#define SIM_LINKS_PER_ENDPOINT_MAX 4096
#define SIM_WRITES_MAX             64
#define SIM_REGIONS_MAX            64
#define SIM_DEADLINE_NS_DEFAULT    10000000000ull
#define SIM_RETRY_NS_MIN           1000000ull /* and twice the path's round trip */

typedef struct sim_endpoint sim_endpoint_t;
typedef struct sim_link sim_link_t;

typedef enum sim_type { SIM_HELLO = 1, SIM_ANSWER, SIM_DATA, SIM_BULK, SIM_CLOSE, SIM_RESET } sim_type_t;

typedef struct sim_packet {
    struct sim_packet *next; /* in an inbox, or free */
    uint64_t at_ns, order;
    uint16_t from, to;
    uint8_t type, status; /* RESET: rf_err_t */
    bool to_dialer;
    bool want;  /* an answer, even if there is nothing new */
    uint16_t n; /* DATA: slots */
    uint64_t link;
    uint64_t sequence; /* DATA: of the first slot; CLOSE: of the one after the last; BULK: of the chunk */
    uint64_t received, delivered, chunks_received;
    rf_hello_t hello; /* HELLO, ANSWER */
    uint64_t region, offset;
    uint32_t size;
    bool last, has_notify;
    rf_slot_t notify;
    union {
        rf_slot_t slots[SIM_PACKET_SLOTS];
        uint8_t bytes[SIM_CHUNK];
    };
} sim_packet_t;

#define RF_SIM_END UINT64_MAX

typedef struct sim_event {
    uint64_t at_ns, order;
    sim_packet_t *packet; /* NULL: the timer of `endpoint` */
    uint16_t endpoint;
} sim_event_t;

struct rf_sim_network {
    uint64_t now_ns, orders, digest;
    rf_prng_t prng;
    rf_sim_path_t *paths; /* [from][to] */
    uint64_t *last_at_ns; /* [from][to]: when the latest packet in order arrives */
    sim_endpoint_t *endpoints[RF_SIM_ENDPOINTS_MAX];
    uint16_t n_endpoints; /* ever opened: places are not used twice */
    uint64_t links;       /* ever made */
    uint8_t *ended; /* bit per link: ended at its listener, so that a late hello does not make it again */
    sim_event_t *events; /* a heap by (at_ns, order) */
    uint32_t n_events, room_events;
    sim_packet_t *free_packets;
    uint32_t n_packets;
    rf_sim_counts_t counts;
};

struct sim_endpoint {
    rf_endpoint_t head;
    rf_sim_network_t *network;
    uint16_t place;
    rf_hello_t self;
    rf_link_event_fn on_event;
    void *context;
    uint64_t deadline_ns;
    char address[RF_ADDRESS_MAX]; /* "": does not listen */
    bool stalled, crashed, silent;
    sim_packet_t *inbox, **inbox_end;
    sim_link_t *links;
    uint32_t n_links, inside;
    uint64_t timer_ns; /* the earliest of its links'; an event for it is in the heap */
    sim_link_t *graveyard;
};

typedef struct sim_write {
    uint64_t region, offset, size, cookie, chunks; /* chunks: number of the chunk after its last */
    const uint8_t *source;
    bool has_notify;
    rf_slot_t notify;
} sim_write_t;

typedef struct sim_region {
    rf_region_t head;
    uint64_t id;
    bool used;
} sim_region_t;

typedef struct sim_bulk {
    /* Out: counts of chunks. */
    uint64_t acked, sent, head;
    uint64_t writes_done, writes; /* counts of writes; [writes_done, writes) are in the queue */
    sim_write_t queue[SIM_WRITES_MAX];
    /* In. */
    uint64_t received, received_said;
    uint32_t notify_head, notify_tail;
    rf_slot_t notify[SIM_WRITES_MAX];
    uint64_t regions_made;
    sim_region_t regions[SIM_REGIONS_MAX];
} sim_bulk_t;

struct sim_link {
    rf_link_t head;
    sim_link_t *prev, *next;
    uint64_t id;
    uint16_t peer; /* endpoint's place */
    bool dialer, was_up, incoming, user_closed, fenced, buried;
    bool up_due, broken_due, end_pending, closed_pending; /* events that wait for progress() */
    rf_err_t end_err;
    rf_hello_t hello;
    uint64_t retry_ns;   /* from one retransmission to the next; doubles */
    uint64_t timer_ns;   /* RF_NEVER: nothing is waited for */
    uint64_t contact_ns; /* when the peer was heard last, or waiting began */

    rf_slot_t *ring;
    uint32_t ring_size, slots_max, room_wanted;
    uint64_t slots_head, acked, received, sent, sent_max;

    rf_slot_t *rx;
    uint32_t rx_size;
    uint64_t rx_received, delivered, delivered_said;
    bool say, peer_closed;
    uint64_t close_at; /* peer_closed: slots it sent in all */

    sim_bulk_t *bulk;
    rf_link_stats_t stats;
};

/* network.c */
/* A packet to fill in; NULL when too many are on their way. */
sim_packet_t *sim_packet_take(rf_sim_network_t *network);
void sim_packet_free(rf_sim_network_t *network, sim_packet_t *packet);
/* Hands it to the network, faults and all; the network's from then on. */
void sim_packet_send(rf_sim_network_t *network, sim_packet_t *packet);
void sim_timer_event(rf_sim_network_t *network, sim_endpoint_t *ep, uint64_t at_ns);
uint64_t sim_round_trip_ns(const rf_sim_network_t *network, uint16_t a, uint16_t b);

/* link.c */
sim_link_t *sim_link_new(sim_endpoint_t *ep, const rf_link_params_t *params, rf_err_t *err);
rf_err_t sim_link_size(sim_link_t *link, const rf_link_params_t *params);
/* A packet of this link with the counts that every packet carries; NULL: none to be had, as if it were lost. */
sim_packet_t *sim_link_packet(sim_link_t *link, sim_type_t type);
void sim_link_transmit(sim_link_t *link);
void sim_link_take_data(sim_link_t *link, const sim_packet_t *packet);
void sim_link_take_counts(sim_link_t *link, const sim_packet_t *packet);
/* Whether an answer of the peer is waited for. */
bool sim_link_waits(const sim_link_t *link);
unsigned sim_room(rf_link_t *link, unsigned want);
unsigned sim_send(rf_link_t *link, const rf_slot_t *slots, unsigned n);
rf_err_t sim_flush(rf_link_t *link);
unsigned sim_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void sim_arm(rf_link_t *link);
bool sim_ready(rf_link_t *link);
void sim_disarm(rf_link_t *link);
void sim_stats(rf_link_t *link, rf_link_stats_t *out);

/* bulk.c */
rf_err_t sim_bulk_need(sim_link_t *link);
void sim_bulk_free(sim_link_t *link);
void sim_bulk_transmit(sim_link_t *link);
void sim_bulk_take(sim_link_t *link, const sim_packet_t *packet);
void sim_bulk_acked(sim_link_t *link, uint64_t chunks);
void sim_bulk_fail(sim_link_t *link, rf_err_t err);
rf_err_t sim_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void sim_region_destroy(rf_link_t *link, rf_region_t *region);
rf_err_t sim_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset, const void *source,
                          size_t size, const rf_slot_t *notify, uint64_t cookie);

/* endpoint.c */
void sim_enter(sim_endpoint_t *ep);
void sim_leave(sim_endpoint_t *ep);
/* Acts on what has arrived. */
void sim_inbox(sim_endpoint_t *ep);
void sim_event(sim_link_t *link, rf_link_event_t event, rf_err_t err, uint64_t cookie);
/* Starts the link's timer if something is waited for, stops it otherwise. */
void sim_link_timer(sim_link_t *link);
void sim_link_end(sim_link_t *link, rf_err_t err);
/* Delivers what waits: UP, BROKEN, and the end once everything before it was polled. */
void sim_link_settle(sim_link_t *link);
rf_err_t sim_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);
void sim_endpoint_close(rf_endpoint_t *endpoint);
rf_err_t sim_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max);
int sim_endpoint_fd(rf_endpoint_t *endpoint);
void sim_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns);
rf_err_t sim_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out);
rf_err_t sim_accept(rf_link_t *incoming, const rf_link_params_t *params);
void sim_reject(rf_link_t *incoming, rf_err_t why);
void sim_fence(rf_link_t *link);
void sim_close(rf_link_t *link);

static inline sim_link_t *sim_link_of(rf_link_t *link)
{
    return (sim_link_t *)link;
}
static inline sim_endpoint_t *sim_endpoint_of(const sim_link_t *link)
{
    return (sim_endpoint_t *)link->head.endpoint;
}
static inline bool sim_inert(const sim_endpoint_t *ep)
{
    return ep->stalled || ep->crashed;
}

#endif
