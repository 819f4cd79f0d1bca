/*
 * Inside the server of a link driver: who is served, and what its parts call of each other.
 *
 *   clients.c  who there is: their lists, ids and ends       server.c  slots, frames, the turn; links that come and go
 *   asked.c    what a process asks before its slots flow
 *
 * There are two lists. Flows of monitors, but for their bulk, are urgent: each pass serves them all before the first of the others,
 * and ends when a burst of the port is full, so that the others' bulk delays no monitor for longer than that.
 */
#ifndef RF_DPDK_DRIVER_SERVER_INTERNAL_H
#define RF_DPDK_DRIVER_SERVER_INTERNAL_H

#include "base/clock.h"
#include "transport/dpdk/driver/server.h"
#include "transport/dpdk/flow.h"
#include "transport/message.h"

#define LOG_INTERVAL_NS (10 * RF_NS_PER_S)
#define DEADLINE_NS     (10 * RF_NS_PER_S) /* of a process that connects and says nothing */
#define DEADLINE_NS_MAX (60 * RF_NS_PER_S) /* a flow whose process is gone is kept no longer */

typedef enum stage {
    STAGE_ASKED,  /* connected; OPEN is to come */
    STAGE_OPENED, /* it knows its flow's id; JOIN is to come */
    STAGE_JOINED, /* slots flow */
    STAGE_ENDING, /* the link to the process is over; the flow is until it is drained, or `until_ns` */
} stage_t;

typedef struct client {
    /* Looked at in every turn. */
    rf_link_t *link; /* NULL: closed */
    rf_flow_t *flow;
    stage_t stage;
    bool gone;    /* the process's end is over */
    bool end_due; /* DPDK_END is to be put behind the last slot */
    bool near;    /* without a gateway */
    bool unsealed;
    bool came;        /* frames came for it, or its ring was full: there may be slots for it */
    bool fed;         /* slots went to its process since server_woke() */
    bool stalled;     /* asleep with a full window */
    bool urgent;      /* in which list; from JOIN on */
    uint64_t next_ns; /* when its flow wants to send again, while nothing comes */
    uint8_t head[PACKET_HEAD];
    uint8_t came_head[PACKET_SAME]; /* of the last packet of its flow, ... */
    uint16_t came_size;             /* ... whose frame was so long; 0: none came yet */

    uint32_t id, place; /* its place in its list */
    uint64_t woken;     /* how often its process was, as server_woke() knows */
    uint32_t slots;
    unsigned uid, lane; /* whose process, and what for: PATH_LANE_* */
    uint64_t deadline_ns, until_ns;
    rf_assembler_t *in; /* NULL from JOIN on */
} client_t;

typedef struct clients {
    uint32_t n, first; /* `first`: whose turn it is to send first */
    client_t *all[SERVER_CLIENTS_MAX];
} clients_t;

typedef struct counters {
    uint64_t strangers; /* packets of no flow here */
    uint64_t others;    /* packets of something else */
    uint64_t opened, refused, ended, dead, wrong;
    rf_flow_stats_t flows; /* of those that are over */
} counters_t;

struct server {
    server_options_t options;
    port_t *port;
    rf_endpoint_t *endpoint;
    uint64_t driver;            /* which life this is */
    uint64_t now_ns;            /* of what happens now */
    uint64_t since_ns, turn_ns; /* when the turn before began, and this one: the port was looked at */
    unsigned arp_left;          /* answers of this turn */
    unsigned frames_left;       /* of this pass */
    unsigned frame_max;         /* bytes behind UDP that the port takes */
    bool gateway_known, gateway_wanted;
    uint8_t gateway_mac[PACKET_MAC];
    uint64_t ask_ns;
    uint32_t n_joined; /* clients in STAGE_JOINED */
    uint32_t ids_from;
    uint64_t log_ns;
    counters_t counters;
    clients_t urgent, others;
    client_t *by_id[SERVER_CLIENTS_MAX];
};

static inline uint32_t server_clients(const server_t *server)
{
    return server->urgent.n + server->others.n;
}

/* All of them, 0 <= i < server_clients(). */
static inline client_t *server_client(const server_t *server, uint32_t i)
{
    return i < server->urgent.n ? server->urgent.all[i] : server->others.all[i - server->urgent.n];
}

/* clients.c */
/* NULL: there are too many, or no memory. */
client_t *client_new(server_t *server, rf_link_t *link);
void client_free(server_t *server, client_t *client);
void client_id_draw(server_t *server, client_t *client);
/* Its slots flow from now on: it is put into its list. */
void client_joined(server_t *server, client_t *client);
/* Closes the link to the process. */
void client_link_drop(client_t *client);
/* The link to the process is over, or is to be. What is in the flow still goes. */
void client_end(server_t *server, client_t *client, uint64_t linger_ns);
/* Whether a user may have one more. Domains run as other users: one that takes too much must not keep the others, or the monitors,
 * from their flows. */
bool client_may_come(const server_t *server, unsigned uid);
/* Adds the counters of a flow to those of others. */
void flow_stats_add(rf_flow_stats_t *sum, const rf_flow_stats_t *more);

/* asked.c */
/* Hears a client that has no flow yet. True: it said something. */
bool client_hear(server_t *server, client_t *client);

/* Of a monitor, or of who runs the machine; domains run as other users, where the installation is privileged. */
bool user_is_ours(unsigned uid);

#endif
