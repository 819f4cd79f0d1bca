/*
 * The thin shell around monitor_step: links, descriptors, clocks, secrets. Only rf-monitor and monitor/ include it.
 *
 *   shell.c     start, the loop, waiting
 *   conn.c      links: who is at the other end, deaths, the tie of two links between the same monitors
 *   lane_links.c  links of one-sided append
 *   watch.c     the processes of the other monitors of this host
 *   actions.c   carrying out what a step wants
 *   backlog.c   messages that wait for room on their link
 *   keeper.c    what makes this process's death quick for who waits for it
 *
 * One link for each pair of monitors: inside a host the higher core dials the lower. Between hosts both may dial at once;
 * then the link that the higher core dialled stays, the other is refused with RF_ERR_EXISTS (which is no evidence of
 * anything) or given up.
 *
 * Everything that happens inside a medium's callback is only noted, and told to the monitor by the loop: a step never runs
 * inside another, nor inside a medium.
 */
#ifndef RF_MONITOR_SHELL_H
#define RF_MONITOR_SHELL_H

#include "monitor/step.h"

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "transport/message.h"
#include "transport/transport.h"
#include "wire/lease.h"

#define SHELL_NETWORKS_MAX 4
#define SHELL_ANSWERS_MAX  2048 /* results of actions that wait to be told: two an operation */
#define SHELL_ARRIVED_MAX  1024 /* descriptors that wait to be told */
#define SHELL_SLOTS_MAX    8192 /* up to which a link's ring grows */
#define SHELL_SAID_MAX     4096
#define SHELL_POLL_BATCH   64
#define SHELL_ROUNDS_MAX   16 /* of one link in one turn, so that none keeps the loop */

#define SHELL_BACKLOG_MAX (256u << 10) /* bytes that wait for one link */

typedef struct kept kept_t; /* a message that waits for room */

typedef struct lane lane_t;
typedef enum conn_kind { CONN_KERNEL = 1, CONN_PEER, CONN_NODE, CONN_DISPATCHER, CONN_LANE } conn_kind_t;

typedef struct conn {
    conn_kind_t kind;
    rf_link_t *link;
    bool dialed, up, told_up; /* told_up: the monitor knows of it */
    bool ended;               /* to be told and freed by the loop; only conn_settle() frees */
    bool forgotten;           /* ... without telling: the monitor wanted it so */
    bool full;                /* refused something: room is to be told */
    bool room;                /* room came */
    bool broken;              /* its connection broke: to be told */
    bool dirty;               /* to be flushed */
    rf_err_t err;
    rf_core_t core;               /* PEER, LANE */
    rf_incarnation_t incarnation; /* ... of it; 0: dialled, and not answered yet */
    uint32_t client;              /* NODE, DISPATCHER */
    rf_domain_t domain;
    uint16_t index;
    char address[RF_NAME_MAX];
    kept_t *kept, *kept_last; /* oldest and newest message that waits for room */
    size_t kept_bytes;
    lane_t *lane; /* LANE */
    rf_assembler_t assembler;
    struct conn *next;
} conn_t;

typedef struct arrived { /* descriptors from a link */
    conn_t *conn;
    size_t size;
    unsigned n_fds;
    uint8_t bytes[256];
    int fds[8];
} arrived_t;

typedef struct answer { /* of an action */
    monitor_event_t event;
    uint8_t *bytes; /* owned; NULL */
} answer_t;

typedef struct network {
    char medium[16];
    const rf_transport_t *transport;
    rf_endpoint_t *endpoint;
    char address[RF_ADDRESS_MAX];
    uint64_t next_ns;
} network_t;

typedef struct transfer { /* a spawn block that comes in pieces */
    uint32_t op;          /* 0: free */
    uint32_t size, have;
    uint8_t *bytes;
} transfer_t;

/* The process of another monitor of this host. Its death is the kernel's word, through the pidfd, and nothing else's. */
typedef struct watched {
    rf_incarnation_t incarnation; /* 0: none */
    int pidfd;
    monitor_process_t process;
    bool died; /* to be told, once its link has ended */
} watched_t;

/* Of one-sided append with one core; what is 0 is not due. */
typedef struct shell_lane {
    rf_core_t next; /* that has anything; RF_CORE_NONE: the last */
    bool used;
    conn_t *mine, *theirs;    /* the links over which it may write this core's lane, and this core its */
    uint64_t revoked, failed; /* LANE_REVOKED, LANE_WRITTEN with an error: of which lane */
    rf_incarnation_t revoked_incarnation, failed_incarnation, unready;
    bool unfit; /* the medium to it takes no memory back */
} shell_lane_t;

typedef struct shell {
    const rf_boot_t *boot;
    rf_core_t core;
    rf_incarnation_t incarnation;
    monitor_t *monitor;
    monitor_output_t *output;
    rf_lease_t *lease;         /* the CPU driver's */
    char said[SHELL_SAID_MAX]; /* lines for the log, each behind its level and time: written a little later */
    size_t said_used;
    uint64_t say_ns;        /* when they are; RF_NEVER: there are none */
    int epoll, exit_status; /* -1: goes on */
    uint64_t tick_ns;
    const rf_transport_t *shm;
    rf_endpoint_t *host; /* shm */
    uint64_t host_next_ns;
    network_t networks[SHELL_NETWORKS_MAX];
    unsigned n_networks;
    conn_t *conns; /* all */
    unsigned n_conns;
    conn_t *kernel;
    conn_t **peers;           /* [n_cores] the one link of each, or NULL */
    rf_incarnation_t *lowest; /* [n_cores] the lowest incarnation that is still listened to; never falls */
    watched_t *watched;       /* [n_cores] processes of the monitors of this host */
    conn_t *clients[MONITOR_CLIENTS_MAX];
    answer_t answers[SHELL_ANSWERS_MAX];
    unsigned answers_head, n_answers;
    arrived_t arrived[SHELL_ARRIVED_MAX];
    unsigned arrived_head, n_arrived;
    transfer_t transfers[MONITOR_TRANSFERS_MAX];
    char owner[32], self_user[32];
    unsigned n_died;                   /* of watched */
    shell_lane_t *lanes;               /* [n_cores]; NULL: no one-sided append */
    rf_core_t lane_first, lane_writer; /* of the list; who may write this core's; RF_CORE_NONE */
    uint64_t lane_again_ns,
        lane_torn_ns; /* when to look again at a record that was torn, and how long that is */
    uint64_t lane_log_ns;
    uint64_t logged_ns[3];
    rf_link_t **links; /* scratch, for arming */
    unsigned links_room;
} shell_t;

/* shell.c */
int shell_run(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation, int kernel_socket,
              rf_lease_t *lease); /* exit status */
void shell_step(shell_t *s, monitor_event_t *event);
void shell_flush(shell_t *s); /* sends what is due, and then writes the log */
void shell_progress(shell_t *s);
void shell_tell_arrived(shell_t *s);

/* conn.c */
void conn_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info);
conn_t *conn_new(shell_t *s, conn_kind_t kind);
void conn_free(shell_t *s, conn_t *conn); /* closes its link */
void conn_forget(conn_t *conn);           /* it is to end, and the monitor is not to be told */
void conn_fence(conn_t *conn);            /* the same, and nothing of it is heard any more */
void conn_settle(shell_t *s);             /* tells the monitor of links that came up or ended */
bool conn_pump(shell_t *s, conn_t *conn); /* tells the monitor what it says; false: nothing there */
void conn_dial(shell_t *s, rf_core_t core, const char *address);
void conn_adopt(shell_t *s, rf_domain_t domain, uint16_t index, int fd);
network_t *conn_network(shell_t *s, const char *medium, rf_err_t *err);

void conn_hello(const shell_t *s, rf_hello_t *out, unsigned kind); /* to another host */

/* lane_links.c */
rf_err_t lanes_init(shell_t *s);
void lanes_incoming(shell_t *s, rf_link_t *link, const rf_hello_t *hello);
void lanes_up(shell_t *s, conn_t *conn);
void lanes_message(shell_t *s, conn_t *conn);
void lanes_written(conn_t *conn, const rf_link_event_info_t *info); /* inside a callback */
bool lanes_ended(shell_t *s, conn_t *conn);                         /* true: it is not to be freed yet */
void lanes_conn_freed(shell_t *s, conn_t *conn);
void lanes_standby(shell_t *s, const monitor_action_t *action);
void lanes_drop(shell_t *s, const monitor_action_t *action);
void lanes_grant(shell_t *s, const monitor_action_t *action);
void lanes_revoke(shell_t *s, const monitor_action_t *action);
void lanes_write(shell_t *s, const monitor_action_t *action);
void lanes_fence(shell_t *s, rf_core_t core,
                 rf_incarnation_t incarnation); /* with that one, and earlier ones */
bool lanes_settle(shell_t *s);                  /* tells the monitor what there is; false: nothing */
void lanes_flush(shell_t *s);
uint64_t lanes_next_ns(const shell_t *s); /* CLOCK_MONOTONIC */

/* watch.c */
void watch_peer(shell_t *s, conn_t *conn); /* its link is up, on this host */
void watch_readable(shell_t *s, int fd);   /* maybe one of the pidfds */
bool watch_settle(shell_t *s);             /* tells the monitor of deaths; false: nothing to tell */
void watch_end(shell_t *s);

/* holdings.c */
void holdings_count(const shell_t *s, rf_client_holdings_t *out);

/* backlog.c */
/* Sends, behind what waits already. RF_ERR_AGAIN: no room (only without `may_wait`). RF_ERR_LIMIT: too much waits. */
rf_err_t backlog_send(conn_t *conn, const monitor_action_t *action, bool may_wait);
bool backlog_drain(conn_t *conn); /* sends what fits; false: nothing */
void backlog_clear(conn_t *conn);

/* actions.c */
void actions_say(shell_t *s); /* writes the log */
uint64_t shell_real_ns(void); /* CLOCK_REALTIME */
void actions_run(shell_t *s);
void actions_tell_answer(shell_t *s); /* the oldest; there is one */

#endif
