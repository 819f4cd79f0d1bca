/*
 * The peer link: what two monitors say to each other. An shm link inside a host, a network link between hosts.
 * Slot types 0x90-0xcf; agreement's own messages (0xd0-0xdf) travel on the same links and belong to consensus/.
 * A link belongs to two incarnations, which its hello names; another incarnation has another link with fresh memory.
 *
 *   type            from -> to                      meaning
 *   READY           any -> core 0                   my links to the other cores of my host are up: form the machine
 *   HEARTBEAT       gateway -> gateway, and inside  I live, and so old is my host's contact with the quorum (gateway: the
 *                   a host with an answer           lowest live core of a host)
 *   CONTACT         gateway -> its host             contact is lost: freeze; or back
 *   DEATHS          any -> any                      I have evidence that these cores are dead
 *   FENCED          gateway -> any                  nothing of a core of my host that has left runs any more; or it
 *                                                   cannot be ended
 *   DOMAIN_ENDED    any -> any                      a dispatcher of mine has ended and it cannot be agreed on
 *   EXPELLED        any -> any                      the machine goes on without you: end
 *   PING, PONG      any -> any, and back            how long does it take
 *   SPAWN           origin -> target                start a dispatcher on your core
 *   SPAWN_CHUNK     origin -> target                a piece of its spawn block (other host only)
 *   SPAWN_MORE      target -> origin                send the piece at this offset
 *   SPAWNED         target -> origin                it runs, or why not
 *   KILL, KILLED    any -> core of a dispatcher     send it a signal; done, or why not
 *   CONNECT         origin -> exporter's core       a channel to a dispatcher of yours
 *   CONNECTED       exporter's core -> origin       taken, and where it listens; or why not
 *   LANE_KEY        owner of a lane -> voter        you could be granted it: rehearse with this key. These four go over a link
 *                                                   of their own (lane_links.c)
 *   LANE_STANDBY    voter -> owner                  rehearsed
 *   LANE_GRANT      owner -> leader                 in this term write here
 *   LANE_LOOK       leader -> owner                 something has been placed
 *
 * Requests and their answers start with rf_wire_header: tag is the asker's operation, echoed; err in answers.
 * A monitor has at most PEER_REQUESTS_MAX unanswered requests at one peer, which bounds what a link may be given at once. A ring
 * may still be full: what it does not take waits, in order, until it has room (monitor/backlog.c).
 * Inside a host descriptors travel by pass_fds(), sent before the request that needs them, with peer_fds_t.
 */
#ifndef RF_MONITOR_PEER_H
#define RF_MONITOR_PEER_H

#include "wire/client.h"
#include "wire/spawn.h"

enum {
    PEER_READY = 0x90,
    PEER_HEARTBEAT = 0x91,
    PEER_DEATHS = 0x92,
    PEER_DOMAIN_ENDED = 0x93,
    PEER_EXPELLED = 0x94,
    PEER_PING = 0x95,
    PEER_PONG = 0x96,
    PEER_CONTACT = 0x97,
    PEER_SPAWN = 0x98,
    PEER_SPAWN_CHUNK = 0x99,
    PEER_SPAWN_MORE = 0x9a,
    PEER_SPAWNED = 0x9b,
    PEER_KILL = 0x9c,
    PEER_KILLED = 0x9d,
    PEER_CONNECT = 0x9e,
    PEER_CONNECTED = 0x9f,
    PEER_TYPE_LAST = 0x9f,
    PEER_FENCED = 0xa0,
    PEER_LANE_KEY = 0xa1,
    PEER_LANE_STANDBY = 0xa2,
    PEER_LANE_GRANT = 0xa3,
    PEER_LANE_LOOK = 0xa4,
};

#define PEER_AGREEMENT_APPEND 0xd1 /* what only a leader and parents say (consensus/) */
#define PEER_REQUESTS_MAX     128
#define PEER_CHUNK_MAX        3840 /* bytes of a spawn block in one message */

typedef struct peer_fds {
    uint32_t tag;
    uint32_t reserved;
} peer_fds_t;

typedef struct peer_core { /* READY (its sender), DEATHS (one or more), EXPELLED (the receiver), FENCED */
    rf_core_t core;
    uint16_t reserved;
    rf_incarnation_t incarnation;
    uint32_t err; /* why */
} peer_core_t;

typedef struct peer_heartbeat {
    uint64_t sent_ns;        /* the sender's CLOCK_BOOTTIME */
    uint64_t echo_ns;        /* sent_ns of the last one that came from the receiver; 0: none yet */
    uint64_t contact_age_ns; /* at the sender; UINT64_MAX: none */
    uint64_t view;           /* applied there: contact is taken by who has applied it too */
    uint32_t wants_answer, reserved;
} peer_heartbeat_t;

typedef struct peer_lane_key { /* LANE_KEY */
    uint8_t key[24];           /* rf_region_key_t, of one line that is read by nobody */
    uint32_t lines, reserved;  /* of the lane itself */
} peer_lane_key_t;

typedef struct peer_lane_grant { /* LANE_GRANT */
    uint64_t id, term;           /* as the engine's */
    uint8_t key[24];
} peer_lane_grant_t;

typedef struct peer_contact {
    uint32_t frozen, reserved;
} peer_contact_t;

typedef struct peer_ended {
    rf_domain_t domain;
    uint16_t index;
    uint16_t reserved;
    int32_t wait_status;
    uint32_t reason;
    uint32_t reserved32;
    uint64_t ended_ns;
} peer_ended_t;

typedef struct peer_ping { /* PING and PONG */
    uint64_t sent_ns;
} peer_ping_t;

typedef struct peer_spawn { /* behind the header */
    rf_domain_t domain;     /* 0: a new one; else another dispatcher of it */
    uint32_t size;          /* of the spawn block; with n_fds == 0 it follows in chunks */
    uint16_t n_fds;         /* same host: block[, stdin, stdout, stderr][, executable] */
    uint16_t reserved;
} peer_spawn_t;

typedef struct peer_chunk { /* SPAWN_CHUNK: followed by bytes; SPAWN_MORE: alone */
    uint32_t offset;
    uint32_t size;
} peer_chunk_t;

/* SPAWNED: header, rf_client_spawned_t. KILL: header, rf_kernel_signal_t. KILLED: header. */

typedef struct peer_connect {
    uint64_t channel;
    rf_domain_t domain; /* the exporter's dispatcher */
    rf_domain_t from_domain;
    uint16_t index, from_index;
    rf_core_t from_core;
    uint16_t kind; /* RF_CHANNEL_*; URPC brings a descriptor */
    uint32_t slots, from_uid;
    char from_user[32];
    char name[RF_NAME_MAX]; /* under which it was found; "" : by dispatcher */
    uint8_t token[32], key[32];
} peer_connect_t;

typedef struct peer_connected {
    uint32_t uid; /* the exporter's user on its host */
    uint32_t reserved;
    char address[RF_CLIENT_ADDRESS_MAX];
} peer_connected_t;

_Static_assert(sizeof(peer_core_t) == 12 && sizeof(peer_heartbeat_t) == 40 && sizeof(peer_ended_t) == 32 &&
                   sizeof(peer_spawn_t) == 16 && sizeof(peer_chunk_t) == 8 && sizeof(peer_connect_t) == 200 &&
                   sizeof(peer_connected_t) == 136 && sizeof(peer_lane_key_t) == 32 &&
                   sizeof(peer_lane_grant_t) == 40,
               "wire layout");
_Static_assert(sizeof(rf_wire_header_t) + sizeof(peer_chunk_t) + PEER_CHUNK_MAX <= 4096,
               "fits a control message");

#endif
