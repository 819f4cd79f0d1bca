/*
 * Inside the DPDK medium: what runs in the process that has the links. What is the same for every medium over paths is in
 * transport/path; here a path is a link of shared memory to the link driver, which carries one flow.
 *
 *   path.c      flows, asked of the driver       bulk.c      regions and remote writes
 *   link.c      slots out and in                 endpoint.c  the endpoint of links to the driver, and when to look
 *   options.c   where the drivers are, and over whose port a path goes
 *
 * Invariants
 *   - Everything belongs to the endpoint's thread. Nothing blocks.
 *   - The slots [delivered, accepted) are in `left`, and there are some only when a path has ended: else a slot goes from the
 *     driver's ring to the caller, without a copy between.
 *   - A path that ends is emptied, and closed, before `accepted` is said for the next: so each slot comes once.
 */
#ifndef RF_TRANSPORT_DPDK_INTERNAL_H
#define RF_TRANSPORT_DPDK_INTERNAL_H

#include "transport/dpdk/dpdk.h"
#include "transport/dpdk/local.h"
#include "transport/path/path.h"

#define DPDK_NOTIFY_MAX     128 /* notify slots that wait for poll() */
#define DPDK_REGIONS_MAX    64
#define DPDK_SOCKET_MAX     108 /* bytes of a socket's path with its final zero */
#define DPDK_PREFIX_DEFAULT 24

/* A port of this host. */
typedef struct dpdk_port {
    char driver[DPDK_SOCKET_MAX]; /* the socket of its link driver */
    uint8_t ipv4[4], prefix;      /* prefix 0: not told */
    bool gateway;
} dpdk_port_t;

typedef struct dpdk_ports {
    unsigned n;
    dpdk_port_t all[RF_DPDK_PORTS_MAX];
} dpdk_ports_t;

/* A lane's path. */
typedef struct dpdk_path {
    rf_link_t *local;         /* to the driver; NULL: no path */
    const dpdk_port_t *port;  /* over which; NULL: none would do */
    unsigned tries;           /* how many paths there were before */
    rf_err_t why;             /* it is over because the driver is not there, or refuses */
    bool ask_due;             /* OPEN is to be said */
    rf_assembler_t *local_in; /* until it has joined */
    dpdk_place_t place;
    uint8_t seal, nonce[RF_SEAL_NONCE];
} dpdk_path_t;

typedef struct dpdk_region {
    rf_region_t head;
    uint64_t id;
    bool used;
} dpdk_region_t;

typedef struct dpdk_bulk {
    path_bulk_t base;
    unsigned heads;       /* of the write that is being sent: head and notify slot that are out */
    uint64_t sent;        /* ... and bytes */
    uint64_t placed_said; /* how many the peer has been told of */
    bool open;            /* within a write: `now`, of which `came` bytes are there */
    bool notify_came;
    dpdk_bulk_head_t now;
    rf_slot_t now_notify;
    uint64_t came;
    rf_slot_t notify[DPDK_NOTIFY_MAX];
    uint64_t regions_made;
    dpdk_region_t regions[DPDK_REGIONS_MAX];
} dpdk_bulk_t;

typedef struct dpdk_link {
    path_link_t base;
    dpdk_path_t paths[PATH_LANES];
    rf_slot_t *left; /* of paths that have ended, not delivered yet */
    uint32_t left_from;
} dpdk_link_t;

typedef struct dpdk_endpoint {
    path_endpoint_t base;
    dpdk_ports_t ports;
    rf_endpoint_t *local;
    uint64_t local_ns; /* when it is to be called again */
    bool has_doorbell;
    uint64_t log_driver_ns;
} dpdk_endpoint_t;

extern const path_medium_t dpdk_medium;

/* options.c: reads an endpoint's options (dpdk.h); NULL and "" are no port. RF_ERR_CONFIG: `why` says what is wrong. */
rf_err_t dpdk_options_parse(const char *text, dpdk_ports_t *out, char *why, size_t why_max);
/* The port whose turn it is; `peer`: among those from which frames get to that address (NULL: not known yet). NULL: there is none. */
const dpdk_port_t *dpdk_port_pick(const dpdk_ports_t *ports, unsigned turn, const uint8_t *peer);
/* The turn of a try to make a path, counted from 0 at both ends: `answers`, the end that is offered one, goes ahead with every
 * second, fourth, eighth... try, so that in time each port of one end meets each of the other. */
unsigned dpdk_port_turn(unsigned tries, bool answers);

/* path.c */
void dpdk_path_make(path_lane_t *lane, const path_info_t *offer);
rf_err_t dpdk_path_info(path_lane_t *lane, path_info_t *out);
bool dpdk_path_info_right(const path_info_t *info);
rf_err_t dpdk_path_join(path_lane_t *lane, const path_info_t *peer);
bool dpdk_path_say(path_lane_t *lane, const path_word_t *word);
void dpdk_path_drop(path_lane_t *lane);
void dpdk_path_failed(path_lane_t *lane);
const char *dpdk_path_overdue(const path_lane_t *lane);
/* Hears the driver, and HELLO. Runs no callback. */
void dpdk_path_hear(path_lane_t *lane);
void dpdk_local_event(void *context, rf_link_t *local, rf_link_event_t event,
                      const rf_link_event_info_t *info);

/* link.c */
bool dpdk_ring_grow(path_link_t *link, uint32_t size);
void dpdk_link_keep(path_link_t *link);
/* Nobody takes slots any more: those that come are dropped. */
void dpdk_link_discard(dpdk_link_t *link);
void dpdk_push(path_link_t *link);
rf_err_t dpdk_flush(rf_link_t *link);
unsigned dpdk_poll(rf_link_t *link, rf_slot_t *out, unsigned max);
void dpdk_arm(rf_link_t *link);
bool dpdk_ready(rf_link_t *link);
void dpdk_disarm(rf_link_t *link);
void dpdk_stats(rf_link_t *link, rf_link_stats_t *out);

/* bulk.c */
void dpdk_bulk_free(path_link_t *link);
void dpdk_bulk_pump(path_link_t *link);
bool dpdk_bulk_resume(path_link_t *link, uint64_t peer_placed);
/* Takes what has come, at most so many slots. True: there may be more. */
bool dpdk_bulk_take(dpdk_link_t *link, unsigned slots);
unsigned dpdk_bulk_notified(dpdk_link_t *link, rf_slot_t *out, unsigned max);
rf_err_t dpdk_region_create(rf_link_t *link, size_t size, rf_region_t **out);
void dpdk_region_destroy(rf_link_t *link, rf_region_t *region);

/* endpoint.c */
rf_err_t dpdk_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);

static inline dpdk_link_t *dpdk_link_of(const path_link_t *link)
{
    return (dpdk_link_t *)(uintptr_t)link;
}
static inline dpdk_endpoint_t *dpdk_endpoint_of(const path_link_t *link)
{
    return (dpdk_endpoint_t *)link->head.endpoint;
}
static inline dpdk_bulk_t *dpdk_bulk_of(const path_link_t *link)
{
    return (dpdk_bulk_t *)link->bulk;
}
static inline dpdk_path_t *dpdk_path_of(const path_lane_t *lane)
{
    return &dpdk_link_of(lane->link)->paths[lane->number];
}

#endif
