/*
 * The actor `rdma`: processes that are joined by links of slots written from afar, and sleep by the handshake of
 * transport/rdma/sleep.c, which is run here as the transport runs it; around it the transport is played, as far as sleeping goes.
 *
 *      rdma_device.c   queue pairs, memory, completion queues: when what is posted lands, is seen, completes and is told of
 *      actor_rdma.c    the owner of a process's links: polls, flushes, arms, looks once more, sleeps
 *      rdma_life.c     the workload, deaths, paths that break and are made anew, rest
 *      check_wake.c    nobody sleeps on slots; no words without end; an idle pair sends nothing
 *
 * Of one path all that is posted lands in the order of posting, as on a reliable connection; it is seen later than it lands, and
 * what completes at the receiver does so when all before it can be seen. Between any two effects of an owner time passes, and it may
 * stand still or die. In half of the seeds the timer of those who have not been granted never goes off: then nothing may lean on it.
 */
#ifndef RF_SIM_RDMA_H
#define RF_SIM_RDMA_H

#include "sim/sim.h"
#include "transport/rdma/sleep.h"

#define SIM_RDMA_CORES_MAX 16
#define SIM_RDMA_RING_MAX  32   /* slots */
#define SIM_RDMA_DEPTH_MAX 12   /* requests of a queue pair under way */
#define SIM_RDMA_QUEUE_MAX 1024 /* completions */
#define SIM_RDMA_STEP_NS   200  /* an effect, at most, where nothing stands still */

/* What a word says. */
enum {
    SIM_WORD_WANT_ACK = 1 << 0,
    SIM_WORD_SLEEP = 1 << 1,
    SIM_WORD_GRANT = 1 << 2,
    SIM_WORD_RING = 1 << 3,
};

typedef enum sim_request_kind { SIM_REQUEST_SLOTS, SIM_REQUEST_LINE, SIM_REQUEST_WORD } sim_request_kind_t;

typedef struct sim_request {
    sim_request_kind_t kind;
    bool rings;         /* SLOTS: completes at the receiver */
    bool signalled;     /* completes at the sender */
    bool placed;        /* on its way: it is at the receiver, and has not completed there */
    uint32_t number, n; /* of its queue pair, from 1; SLOTS: so many ... */
    uint64_t first;     /* ... from this one on, from 1 */
    uint32_t flags;     /* WORD */
    uint64_t taken,
        count; /* WORD, LINE: of the receiver's slots so many were taken; WANT_ACK: behind so many */
    uint64_t leaves_ns;
} sim_request_t;

typedef enum sim_done_kind { SIM_DONE_POSTED, SIM_DONE_RUNG, SIM_DONE_WORD } sim_done_kind_t;

typedef struct sim_done { /* a completion */
    sim_done_kind_t kind;
    uint8_t peer;
    uint32_t generation, number;
    sim_request_t word;
} sim_done_t;

typedef struct sim_cell { /* of memory that a peer writes */
    uint64_t value, seen_ns;
} sim_cell_t;

/* One end of a link: of `core`, towards `peer`. */
typedef struct sim_sleeper {
    bool exists, iwarp, up;
    bool broken;       /* its path is over: nothing that is posted goes anywhere */
    bool fails, rises; /* its path has ended, or is made: the owner does not know yet */
    uint32_t generation;
    uint64_t lives; /* of the two processes that it joins */
    rdma_sleep_t sleep;
    /* Slots out, numbered from 1. */
    uint64_t asked_for; /* to be sent, by who does not own the link */
    uint64_t wanted, posted, acked, ack_asked;
    uint32_t say;
    bool say_ack;
    uint32_t requests, completed, unsignalled;
    /* Slots in. */
    uint64_t accepted, taken, taken_said, ack_due;
    bool armed;
    sim_cell_t ring[SIM_RDMA_RING_MAX], line;
    /* On their way from here. */
    sim_request_t flights[SIM_RDMA_DEPTH_MAX];
    unsigned n_flights, tries;
    uint64_t up_since_ns, cut_ns;         /* cut_ns: nothing passed at that time */
    uint64_t sleeps, grants, rung, paths; /* over all its paths */
} sim_sleeper_t;

typedef enum sim_owner_step {
    SIM_STEP_POLL_QUEUE,
    SIM_STEP_POLL_LINK,
    SIM_STEP_ARM_DEVICE,
    SIM_STEP_ARM_LINK,
    SIM_STEP_READY_QUEUE,
    SIM_STEP_READY_LINK,
    SIM_STEP_SLEEP
} sim_owner_step_t;

typedef struct sim_owner { /* of a process: its loop, and its device */
    sim_owner_step_t step;
    unsigned at;     /* the link */
    unsigned budget; /* looks before it arms */
    bool found, asleep;
    unsigned empty; /* turns in a row in which it armed, did not sleep, and had not found anything */
    bool told, rung, look_due; /* why it would wake: the device, somebody by its doorbell, the timer */
    bool notify, looked;       /* as rdma_device_t has them */
    bool tells;                /* the device itself: the next completion is told of */
    bool ever_armed;
    uint64_t look_ns; /* rdma_sleep_timer() */
    sim_done_t queue[SIM_RDMA_QUEUE_MAX];
    uint32_t queue_first, queue_n;
    uint64_t stood_ns; /* until then it stood still, last */
    uint64_t wakes;
} sim_owner_t;

typedef struct sim_rdma {
    sim_sleeper_t ends[SIM_RDMA_CORES_MAX][SIM_RDMA_CORES_MAX];
    sim_owner_t owners[SIM_RDMA_CORES_MAX];
    bool makes[SIM_RDMA_CORES_MAX]
              [SIM_RDMA_CORES_MAX]; /* a new path is being made, between lower and higher */
    bool looks;                     /* the timer goes off */
    uint32_t ring, depth, signal_every;
    uint32_t under_way; /* events of devices */
    uint64_t posts;
    uint64_t rest_ns, rest_posts, rest_wakes; /* all was at rest since; RF_NEVER: it is not */
} sim_rdma_t;

extern const sim_actor_t sim_actor_rdma;

/* rdma_device.c */
void sim_rdma_post(sim_world_t *w, sim_process_t *p, rf_core_t peer, sim_request_t request);
/* Of the slots that come: this one can be seen. */
bool sim_rdma_seen(const sim_world_t *w, const sim_sleeper_t *end, uint64_t number);
uint64_t sim_rdma_line(const sim_world_t *w, const sim_sleeper_t *end);
/* The next completion. False: there is none. */
bool sim_rdma_done(sim_world_t *w, rf_core_t core, sim_done_t *out);
void sim_rdma_device_event(sim_world_t *w, const sim_event_t *event);
/* The path of the two is over: what is on its way is lost, and each end hears of it in its time. */
void sim_rdma_break(sim_world_t *w, rf_core_t a, rf_core_t b);
/* That process has died: of what it had posted some has left, and lands; then its paths are over. */
void sim_rdma_cut_off(sim_world_t *w, rf_core_t core);
/* A process is woken, if it sleeps; `after_ns` from now. */
void sim_rdma_wake(sim_world_t *w, rf_core_t core, uint64_t after_ns);

/* rdma_life.c */
void sim_rdma_set_up(sim_world_t *w);
void sim_rdma_begin(sim_world_t *w);
void sim_rdma_free(sim_world_t *w);
void sim_rdma_client_start(sim_world_t *w, unsigned number);
void sim_rdma_client_timer(sim_world_t *w, const sim_event_t *event);
void sim_rdma_died(sim_world_t *w, rf_core_t core);
void sim_rdma_look(sim_world_t *w, unsigned host);
/* An end has heard that its path is over. */
void sim_rdma_fell(sim_world_t *w, rf_core_t a, rf_core_t b);
void sim_rdma_make(sim_world_t *w, rf_core_t a, rf_core_t b);
bool sim_rdma_at_rest(sim_world_t *w, char *why, size_t why_size);
void sim_rdma_print(const sim_world_t *w, const sim_process_t *p, FILE *out);

/* check_wake.c */
void check_wake(sim_world_t *w);
void check_wake_said(sim_world_t *w, rf_core_t core, rf_core_t peer);

#endif
