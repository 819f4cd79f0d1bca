/*
 * A whole machine of monitors in one process, on virtual time: the real monitor_step of every core, joined by queues
 * that this file owns. No sockets. Messages of one link keep their order; which link is served next is drawn from a seed.
 *
 * Each core has a fake CPU driver that creates, signals and ends dispatchers at once. Descriptors are numbers that are
 * counted: one that is closed twice, used after closing, or never closed fails the test.
 */
#ifndef RF_TESTS_MONITOR_WORLD_H
#define RF_TESTS_MONITOR_WORLD_H

#include "sim/fake.h"

#define WORLD_CORES_MAX 16
#define WORLD_INBOX_MAX 256

typedef struct message { /* what a client has received */
    uint8_t type;
    rf_wire_header_t header;
    size_t size; /* of the body */
    int fd;      /* that came with it; -1 */
    uint8_t body[4096];
} message_t;

typedef struct test_client {
    bool used, gone;
    rf_core_t core;
    uint32_t handle;
    rf_domain_t domain;
    uint16_t index;
    unsigned n_inbox;
    message_t *inbox[WORLD_INBOX_MAX];
    int fds[WORLD_INBOX_MAX]; /* passed, waiting for their message: by arrival */
} test_client_t;

typedef struct pending pending_t;
typedef struct world_lane world_lane_t; /* world_lanes.c */

typedef struct world {
    rf_boot_t boot;
    rf_prng_t prng;
    uint64_t now_ns;
    unsigned n_cores;
    bool alive[WORLD_CORES_MAX], exited[WORLD_CORES_MAX];
    bool stalled[WORLD_CORES_MAX]; /* its monitor does not run, what comes for it waits */
    rf_err_t fence_err;            /* what CPU drivers answer who are asked to fence */
    unsigned n_fenced;             /* cores that CPU drivers were asked to fence */
    int exit_status[WORLD_CORES_MAX];
    void *memory[WORLD_CORES_MAX];
    monitor_t *monitor[WORLD_CORES_MAX];
    monitor_output_t *output;
    uint64_t tick_ns[WORLD_CORES_MAX];
    bool linked[WORLD_CORES_MAX][WORLD_CORES_MAX];
    bool cut[RF_NODES_MAX][RF_NODES_MAX];
    bool held[WORLD_CORES_MAX][WORLD_CORES_MAX]; /* what the first has sent to the second stays on its way */
    pending_t *pending;                          /* in order of sending */
    unsigned n_pending, pending_room;
    test_client_t clients[128];
    uint32_t handle_next[WORLD_CORES_MAX];
    fake_t fake; /* CPU drivers and shells */
    uint32_t tag_next;
    unsigned refuse_dials; /* so many dials between hosts fail first */
    unsigned n_logged;
    bool verbose;
    world_lane_t *lanes;    /* NULL: none yet */
    rf_err_t lanes_refused; /* RF_OK: links of lanes come up; else why they do not */
    unsigned n_lanes_dialled;
    unsigned n_lane_writes, n_late_writes; /* placed; and refused, for they came too late */
} world_t;

/* `nodes` hosts of `cores` cores; everything starts at once. */
world_t *world_new(unsigned nodes, unsigned cores, uint64_t seed);
/* The same with one-sided append. */
world_t *world_new_one_sided(unsigned nodes, unsigned cores, uint64_t seed);
/* Checks that no descriptor is left but those of running dispatchers, and frees. */
void world_free(world_t *w);

/* Delivers until nothing is under way, without time passing. */
void world_settle(world_t *w);
/* Lets time pass, with everything that happens meanwhile. */
void world_pass(world_t *w, uint64_t ns);
/* Delivers at most `n`, whatever is left. */
void world_deliver(world_t *w, unsigned n);
/* Until formed, on all live monitors; late: some never come, and the boot time has to pass. */
void world_form(world_t *w);
void world_form_late(world_t *w);

/* The process of a core's monitor dies, and with it the core. */
void world_kill(world_t *w, rf_core_t core);
/* All cores of a host at once; nobody there sees anything. */
void world_kill_node(world_t *w, rf_node_t node);
/* What its rackfishd does first: tells where the cores of the other hosts listen. */
void world_introduce(world_t *w, rf_core_t core);
/* A dead core joins again as the next incarnation, which the monitor of `asked` has the machine assign. */
rf_err_t world_rejoin(world_t *w, rf_core_t core, rf_core_t asked);
/* The same in two steps: it is assigned, and is started at any time later. */
rf_err_t world_join(world_t *w, rf_core_t core, rf_core_t asked, rf_incarnation_t *incarnation);
void world_start(world_t *w, rf_core_t core, rf_incarnation_t incarnation);
/* SIGSTOP and SIGCONT to the monitor. */
void world_stall(world_t *w, rf_core_t core, bool stalled);
/* What one core sends to another stays on its way, or goes on, in order; the links live. */
void world_hold(world_t *w, rf_core_t from, rf_core_t to, bool held);
/* Nothing passes between two hosts any more, or again. */
void world_cut(world_t *w, rf_node_t a, rf_node_t b, bool cut);

/* A client of rackfishd; a dispatcher's, which must run there. */
test_client_t *world_node_client(world_t *w, rf_core_t core);
test_client_t *world_dispatcher_client(world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index);
void world_client_leave(world_t *w, test_client_t *c);
void world_forget_inbox(test_client_t *c);

/* Sends a request, with descriptors that are made for it; returns its tag. */
uint32_t world_send(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, unsigned n_fds);
/* The reply with that tag, NULL if it has not come; it stays until the end. */
const message_t *world_reply(const test_client_t *c, uint32_t tag);
/* The next event of that kind at or after *from, which is moved behind it; NULL: none. */
const message_t *world_event(const test_client_t *c, uint16_t op, unsigned *from);
/* Sends, settles, and copies the reply's body out; fails the test if there is none. */
rf_err_t world_ask(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, void *out,
                   size_t out_size);

/* The same, and time passes until the reply is there, or `ns` are over. */
rf_err_t world_ask_for(world_t *w, test_client_t *c, uint16_t op, const void *body, size_t size, void *out,
                       size_t out_size, uint64_t ns);

/* Conveniences on top. */
rf_err_t world_spawn(world_t *w, test_client_t *c, rf_core_t core, rf_domain_t *domain);
rf_err_t world_name(world_t *w, test_client_t *c, uint16_t op, const char *name);
/* Opens a session of a command, from its rackfishd's client. */
rf_client_session_t world_session(world_t *w, test_client_t *node);
rf_client_status_t world_status(world_t *w, test_client_t *c);
rf_err_t world_domain(world_t *w, test_client_t *c, rf_domain_t domain, rf_client_domain_t *out);
void world_exit_dispatcher(world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index, int wait_status);
bool world_runs(const world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index);

/* A domain on `core`, and its dispatcher as a client. */
test_client_t *world_domain_on(world_t *w, rf_core_t core, rf_domain_t *domain);
/* Connects `c` to a name of `exporter`, who answers with `answer`; fds: both sides got theirs. */
rf_err_t world_connect(world_t *w, test_client_t *c, test_client_t *exporter, const char *name,
                       rf_err_t answer, rf_client_connected_t *asker, rf_client_incoming_t *incoming,
                       bool *fds);

/* Every invariant of every live monitor; and replicas that have applied equally much are equal. */
void world_check(world_t *w);

/* ---- between world.c, world_client.c and world_lanes.c ---- */

/* For a monitor; the caller frees it. */
void *world_memory(size_t size);
monitor_event_t *world_push(world_t *w, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                            const void *bytes, size_t size);
test_client_t *world_client_of(world_t *w, rf_core_t core, uint32_t handle);
/* Nobody will ever tell of that. */
void world_unsay(world_t *w, rf_core_t to, uint32_t channel, monitor_event_kind_t kind);
bool world_lane_act(world_t *w, rf_core_t core, const monitor_action_t *a); /* false: nothing of lanes */
void world_lane_look(world_t *w, rf_core_t owner); /* after a step that was told of its lane */
/* `writer` fills the lane of `owner` that it may write with what no engine writes. False: it may not. */
bool world_lane_spoil(world_t *w, rf_core_t owner, rf_core_t writer, uint64_t seed);
void world_lanes_end(world_t *w, rf_core_t a, rf_core_t b);
void world_lanes_free(world_t *w);

#endif
