/*
 * The simulator: the real agreement engine, on virtual time, from one seed.
 *
 *      main.c       command line, seeds, jobs
 *      run.c        one seed from its first event to its verdict
 *      heap.c       the queue of events; pools of events and messages
 *      network.c    links: delays, loss, partitions, who is fenced
 *      lanes.c      memory that others write from afar: torn, late, cut (--one-sided)
 *      process.c    one life of a core's monitor: inbox, stalls, clocks
 *      actor_*.c    what runs in a process: steps the engine and carries out what it says, effect by effect, so that a
 *                   stall or a crash may fall between any two of them
 *      host.c       what a host does: death by kernel evidence, suspicion by silence, fencing, restarts and joins
 *      client.c     the workload: sessions, sequences, retries through other members
 *      replica.c    the replicated state machine: a small registry
 *      faults.c     the schedule of faults
 *      knobs.c      the named knobs and presets
 *      ledger.c     what the checkers remember of the log
 *      model.c      costs by class of edge, from files
 *      learned.c    with a model: when the last member has applied what the first has
 *      history.c    histories of operations as text (doc/history.md)
 *      steps*.c     what engines did as steps of the Spin models (--steps)
 *      check_*.c    one property each
 *      groups.h, actor_groups.c, client_groups.c    group operations by themselves, under views that an oracle gives
 *      monitors.h, *_monitor*.c, fake.c             whole monitors: the real monitor/ on each core
 *      rdma.h, *_rdma.c, rdma_*.c, check_wake.c     how those sleep who are joined by RDMA: the real decisions of transport/rdma
 *
 * Invariants: everything that happens is an event of the heap, taken in order of (time, order of making); every
 * choice comes from a generator seeded by the seed; nothing depends on addresses, on the host's clock or on floating
 * point. So a seed replays to the bit, in any build: `hash` covers every event, message bytes included.
 *
 * Owner: one thread; several worlds never share anything.
 */
#ifndef RF_SIM_SIM_H
#define RF_SIM_SIM_H

#include "base/assert.h"
#include "base/clock.h"
#include "base/histogram.h"
#include "base/prng.h"
#include "consensus/agreement.h"
#include "sim/history.h"
#include "sim/knobs.h"
#include "sim/steps.h"

#include <stdio.h>
#include <string.h>

#define SIM_CORES_MAX    16384
#define SIM_HOSTS_MAX    256
#define SIM_CLIENTS_MAX  64
#define SIM_KEYS_MAX     64
#define SIM_TRACE_EVENTS 64 /* the last events, shown when a run fails */
#define SIM_NONE         UINT32_MAX
#define SIM_PPM          1000000u /* probabilities are parts per million */

typedef struct sim_world sim_world_t;

/* ---- cost models (model.c) ---- */

typedef enum sim_edge {
    SIM_EDGE_SAME_CORE = 0,
    SIM_EDGE_SAME_PACKAGE,  /* shares a cache or a die */
    SIM_EDGE_OTHER_PACKAGE, /* one hop */
    SIM_EDGE_FAR_PACKAGE,   /* two hops */
    SIM_EDGE_OTHER_HOST,
    SIM_EDGES
} sim_edge_t;

#define SIM_QUANTILES 6 /* 0, 50, 90, 99, 99.9 and 100 percent */

typedef struct sim_distribution {
    uint32_t ns[SIM_QUANTILES];
} sim_distribution_t;

#define SIM_PACKAGES_MAX 16

typedef struct sim_model {
    char name[64], machine[128];
    unsigned hosts, packages, cores; /* shape: hosts, packages a host, cores a package */
    bool known[SIM_EDGES];
    sim_distribution_t latency[SIM_EDGES], send[SIM_EDGES], receive[SIM_EDGES];
    sim_distribution_t gap[SIM_EDGES]; /* least time between two messages on one link */
    uint32_t poll_ns;                  /* looking at one empty channel */
    sim_distribution_t step;           /* one engine step */
    uint8_t hops[SIM_PACKAGES_MAX][SIM_PACKAGES_MAX];
} sim_model_t;

/* Reads a file of the format described in sim/models/README.md. False: `why` says what is wrong with it. */
bool sim_model_read(const char *path, sim_model_t *out, char *why, size_t why_size);
sim_edge_t sim_model_edge(const sim_model_t *model, rf_core_t a, rf_core_t b);
/* What a plan by weights is made of there. */
agreement_weights_t sim_model_weights(const sim_model_t *model);
uint32_t sim_distribution_draw(const sim_distribution_t *d, rf_prng_t *prng);

/* ---- the replicated state machine (replica.c) ---- */

typedef struct sim_command { /* the bytes of a proposal; more bytes may follow and mean nothing */
    uint32_t kind, key, value, expected;
} sim_command_t;

/* What a command answers: the value it found, and above it whether it did what it says. */
#define SIM_RESULT_SUCCESS (1ull << 32)

typedef struct sim_replica {
    uint64_t index; /* of the last entry applied */
    uint64_t chain; /* hash of all entries up to it */
    uint64_t commands;
    uint32_t values[SIM_KEYS_MAX];
} sim_replica_t;

uint64_t sim_replica_apply(sim_replica_t *replica, const sim_command_t *command);

/* ---- events and messages (heap.c) ---- */

typedef enum sim_event_kind {
    SIM_EVENT_NONE = 0,
    SIM_EVENT_MESSAGE, /* a message arrives at a process */
    SIM_EVENT_TICK,    /* a process's clock reaches what its engine asked for */
    SIM_EVENT_RESUME,  /* a process that was busy or stalled goes on */
    SIM_EVENT_ROOM,
    SIM_EVENT_DEATH, /* x: evidence */
    SIM_EVENT_FENCED,
    SIM_EVENT_FORM,     /* x: seed of a list of cores */
    SIM_EVENT_REQUEST,  /* a client's request reaches a process; x: client */
    SIM_EVENT_CHANGE,   /* a host asks a member for a change: x: 0 join, 1 leave of `peer` */
    SIM_EVENT_TRANSFER, /* the leader is to hand over */
    SIM_EVENT_VIEW,     /* groups: a process hears of the next view */
    SIM_EVENT_ANSWER,   /* groups: what was asked of a domain or CPU driver is done; x: which */
    SIM_EVENT_MAPPINGS, /* groups: the owner's mappings reach one that has joined; x: epoch */
    SIM_EVENT_REFUSED,  /* a process hears from a link that it has been fenced */
    SIM_EVENT_LANE,     /* lanes: a process hears of one; x: what, which, and a number (lanes.c) */
    SIM_EVENT_LINK, /* monitors: a word of the shell of `peer` about their link; x: which (actor_monitor_links.c) */
    SIM_EVENT_PROCESS_LAST = SIM_EVENT_LINK, /* up to here: for a process, in its inbox while it is busy */
    SIM_EVENT_CLIENT,                        /* a client's timer */
    SIM_EVENT_FAULT,                         /* x: knob */
    SIM_EVENT_HEAL,                          /* x: what ends */
    SIM_EVENT_HOST,                          /* a host looks after its cores */
    SIM_EVENT_KILL,                          /* a fence reaps a process of another life */
    SIM_EVENT_EXPEL,                         /* groups: the oracle says that `peer` has left */
    SIM_EVENT_PHASE,                         /* the run goes on to its next phase */
    SIM_EVENT_WRITE, /* lanes, rdma: something becomes of a write, or of a revocation */
} sim_event_kind_t;

const char *sim_event_name(unsigned kind);

typedef struct sim_message {
    struct sim_message *next; /* in the pool */
    uint32_t references, size;
    uint8_t type, size_class;
    uint8_t bytes[] __attribute__((aligned(8)));
} sim_message_t;

typedef struct sim_event {
    uint8_t kind;
    rf_core_t core; /* of the process it is for */
    uint32_t life;  /* of the process; another: the event is dropped */
    agreement_member_t peer;
    uint32_t next; /* in an inbox or the free list */
    uint64_t x;
    sim_message_t *message;
} sim_event_t;

typedef struct sim_heap_entry {
    uint64_t at_ns;
    uint64_t order; /* order of making << 24 | event */
} sim_heap_entry_t;

#define SIM_MESSAGE_CLASSES 5

typedef struct sim_queue {
    sim_heap_entry_t *heap;
    sim_event_t *events;
    uint32_t n, max, n_events, free;
    uint64_t next_order;
    sim_message_t *messages[SIM_MESSAGE_CLASSES];
    void **slabs;
    uint32_t n_slabs, slabs_max;
} sim_queue_t;

/* A new event at `at_ns`; to be filled in at once. */
sim_event_t *sim_push(sim_world_t *w, uint64_t at_ns, sim_event_kind_t kind);
/* The next event's number and time; SIM_NONE: none left. */
uint32_t sim_pop(sim_world_t *w, uint64_t *at_ns);
void sim_event_free(sim_world_t *w, uint32_t number);
sim_message_t *sim_message_new(sim_world_t *w, uint8_t type, const void *bytes, size_t size);
void sim_message_release(sim_world_t *w, sim_message_t *message);
void sim_queue_free(sim_queue_t *queue);

/* ---- processes (process.c) ---- */

typedef enum sim_wait_kind {
    SIM_WAIT_NONE = 0,
    SIM_WAIT_CLIENT,
    SIM_WAIT_JOIN,
    SIM_WAIT_LEAVE
} sim_wait_kind_t;

typedef struct sim_waiter { /* who waits for a sequence of the member's own session */
    uint64_t sequence;
    uint32_t who, stamp;
    uint8_t kind;
} sim_waiter_t;

typedef struct sim_process {
    sim_world_t *world;
    agreement_t *engine;
    void *memory;
    sim_replica_t *replica;
    rf_core_t core;
    rf_incarnation_t incarnation;
    uint32_t life;        /* counts the processes of this core */
    uint64_t cost_ns;     /* of what the current event has made it do so far */
    bool alive, carrying; /* carrying: `output` is not carried out to its end */
    bool ending;          /* it is to exit once its output is carried out */
    uint64_t busy_until_ns;
    bool resume_pushed;
    uint32_t inbox_first, inbox_last;
    const agreement_output_t *output;
    unsigned next_message, next_to, next_completion, next_write;
    sim_message_t *sending; /* the copy that several receivers of one message share */
    uint64_t
        stale_ns; /* the defect stale-now: the time that it goes by, read before it stood still; 0: none */
    uint64_t last_now_ns;
    uint64_t tick_local_ns, tick_pushed_ns;
    uint64_t quiet_since_ns; /* dead or stalled since; RF_NEVER: neither */
    uint64_t slow_until_ns;
    uint64_t started_ns;
    uint64_t own_sequence;
    sim_waiter_t *waiters; /* [AGREEMENT_WINDOW] */
    uint64_t applied_max, committed_max, term_max;
    uint64_t same_tick; /* ticks in a row without time going on */
    /* What its host does about it. */
    bool joining;
    uint64_t join_due_ns;
    uint32_t host_stamp;
} sim_process_t;

typedef struct sim_clock { /* of a host */
    uint64_t base_local_ns, base_ns;
    int64_t rate_ppm;
    bool stopped;
} sim_clock_t;

uint64_t sim_clock_local(const sim_world_t *w, unsigned host);
void sim_clock_set(sim_world_t *w, unsigned host, int64_t rate_ppm, bool stopped);

void sim_process_start(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation);
void sim_process_kill(sim_world_t *w, rf_core_t core);
void sim_process_event(sim_world_t *w, uint32_t number);
void sim_process_stall(sim_world_t *w, rf_core_t core, uint64_t duration_ns);
/* A number of the member's own session, and who waits for it. */
uint64_t sim_process_sequence(sim_process_t *p, sim_wait_kind_t kind, uint32_t who, uint32_t stamp);
/* Steps the engine; the event's `now_ns` is filled in. */
void sim_process_step(sim_world_t *w, sim_process_t *p, agreement_event_t *event);
bool sim_process_stalled(const sim_world_t *w, const sim_process_t *p);

/* Sends one message to what is left of its receivers, from p->next_to on. False: it has stalled on the way. */
bool sim_process_send(sim_world_t *w, sim_process_t *p, uint8_t type, const void *bytes, size_t size,
                      const agreement_member_t *to, unsigned n_to);
/* A TICK has come: false: too early by the host's clock, and asked for again. */
bool sim_process_ticks(sim_world_t *w, sim_process_t *p, const sim_event_t *event);
/* Asks for a TICK when the host's clock shows `tick_local_ns`. */
void sim_process_arm_tick(sim_world_t *w, sim_process_t *p);
/* After an effect: whether the process stands still before the next. */
bool sim_process_stalls_here(sim_world_t *w, sim_process_t *p);

/* What runs in the processes of a world. `handle` may leave effects to be carried out (p->carrying): carry_on() goes on
 * with them after a stall. */
typedef struct sim_actor {
    const char *name;
    void (*start)(sim_world_t *w, sim_process_t *p);
    void (*stop)(sim_world_t *w, sim_process_t *p);
    void (*handle)(sim_world_t *w, sim_process_t *p, const sim_event_t *event);
    void (*carry_on)(sim_world_t *w, sim_process_t *p);
} sim_actor_t;

extern const sim_actor_t sim_actor_engine, sim_actor_groups;
size_t sim_engine_size(sim_world_t *w); /* bytes of each engine of this world; 0: senseless parameters */

/* ---- network (network.c) ---- */

typedef struct sim_link { /* a pair of cores that has spoken; in a hash table */
    uint32_t key;         /* from << 16 | to, plus 1; 0: free */
    bool dropped;         /* something was lost: ROOM when it may be heard again */
    uint64_t last_arrival_ns, last_departure_ns, full_until_ns;
} sim_link_t;

void sim_network_send(sim_world_t *w, sim_process_t *from, agreement_member_t to, sim_message_t *message,
                      uint64_t at_ns);
/* It wants a link to that core, which refuses it if it knows that it has left. */
void sim_network_dial(sim_world_t *w, const sim_process_t *from, rf_core_t core);
/* Whose message it is, by the link that it came over. */
agreement_member_t sim_network_sender(const sim_world_t *w, const sim_event_t *event);
/* Whether a message that has arrived may be given to the engine: the receiver has not fenced its sender. */
bool sim_network_deliver(sim_world_t *w, sim_process_t *to, const sim_event_t *event);
void sim_network_room(sim_world_t *w);
static inline bool sim_network_cut(const sim_world_t *w, unsigned from_host, unsigned to_host);

/* How long a message takes from one core to another. */
uint64_t sim_network_delay(sim_world_t *w, rf_core_t from, rf_core_t to);

/* ---- learned.c: with a model, when the last member knows ---- */

#define SIM_LEARNED_MAX 1024 /* commands that are under way to somebody */

typedef struct sim_learned {
    uint64_t index, first_ns;
    unsigned n; /* have applied it */
} sim_learned_t;

/* A member has applied that command. */
void sim_learned_applied(sim_world_t *w, uint64_t index);

/* ---- lanes (lanes.c): of one-sided append; only where w->lanes ---- */

void sim_lanes_set_up(sim_world_t *w);
void sim_lanes_free(sim_world_t *w);
/* A process begins: it, and who is there, hear who could be granted a lane. One ends: its lane's memory is gone, and
 * what it was writing is cut anywhere. */
void sim_lanes_started(sim_world_t *w, const sim_process_t *p);
void sim_lanes_died(sim_world_t *w, const sim_process_t *p);
void sim_lanes_write(sim_world_t *w, const sim_process_t *from, const agreement_write_t *write);
void sim_lanes_order(sim_world_t *w, const sim_process_t *owner, const agreement_lane_output_t *order);
/* What was to be shown is to be shown once more. */
void sim_lanes_again(sim_world_t *w, const sim_process_t *owner, const sim_event_t *event);
/* A LANE event has reached its process: what to step the engine with. False: it is not wanted any more. */
bool sim_lanes_event(sim_world_t *w, const sim_process_t *p, const sim_event_t *event,
                     agreement_lane_event_t *out);
void sim_lanes_world_event(sim_world_t *w, const sim_event_t *event);
/* Whole monitors: a link for that one to write is dialled; READY or UNREADY follow, or, where the two have no such medium, nothing. */
#define SIM_LANE_LINES_WHOLE 1024
void sim_lanes_standby(sim_world_t *w, const sim_process_t *owner, agreement_member_t writer);
/* ... the word at `offset` of its lane can be seen, and is that. */
bool sim_lanes_show_word(sim_world_t *w, const sim_process_t *owner, uint32_t offset, uint64_t word);
/* ... nothing of that member, or an earlier life of it, is placed any more. */
void sim_lanes_fence(sim_world_t *w, const sim_process_t *owner, rf_core_t core,
                     rf_incarnation_t incarnation);

/* ---- hosts (host.c) ---- */

/* The process of that core has just died: who is told, and when the next one is to start. */
void sim_host_died(sim_world_t *w, rf_core_t core, bool known);
void sim_host_look(sim_world_t *w, unsigned host);
void sim_host_change(sim_world_t *w, sim_process_t *p, const sim_event_t *event);
void sim_host_changed(sim_world_t *w, sim_process_t *p, const sim_waiter_t *waiter, rf_err_t err,
                      uint64_t value);
void sim_host_departed(sim_world_t *w, agreement_member_t member);
void sim_host_kill(sim_world_t *w, const sim_event_t *event);

/* ---- clients (client.c) ---- */

typedef enum sim_client_state {
    SIM_CLIENT_IDLE,
    SIM_CLIENT_OPENING,
    SIM_CLIENT_WAITING,
    SIM_CLIENT_REST
} sim_client_state_t;

typedef struct sim_client {
    uint32_t number, stamp; /* stamp: of its current timer and request; older ones are dropped */
    bool own;               /* uses the sessions of the members it talks to, not one of its own */
    sim_client_state_t state;
    uint64_t session, sequence;
    rf_core_t core; /* whom it talks to */
    uint32_t life;
    unsigned attempts, refusals;
    bool reading, local;
    size_t operation;
    sim_command_t command;
    uint64_t started_ns;
    uint64_t finished; /* operations */
} sim_client_t;

void sim_client_start(sim_world_t *w, unsigned number);
void sim_client_timer(sim_world_t *w, const sim_event_t *event);
/* The request has reached the process: what to step the engine with. False: it is not wanted any more. */
bool sim_client_request(sim_world_t *w, sim_process_t *p, const sim_event_t *event, agreement_event_t *out);
void sim_client_completed(sim_world_t *w, sim_process_t *p, const agreement_completion_t *c);
void sim_client_own_completed(sim_world_t *w, sim_process_t *p, const sim_waiter_t *waiter, rf_err_t err,
                              uint64_t value);

/* ---- checkers ---- */

typedef struct sim_ledger_entry { /* an index of the log, from whoever applied it first; hash 0: nobody has */
    uint64_t hash, chain;
    rf_core_t by;
} sim_ledger_entry_t;

typedef struct sim_ledger_command { /* by (session, sequence); sequence 0: when that member left */
    uint64_t session, sequence, index, value;
    bool refused; /* a client was told that it was not executed */
    bool change;  /* of members; a session that has gone on far since knows of it no more */
} sim_ledger_command_t;

typedef struct sim_ledger {
    sim_ledger_entry_t *log;
    size_t n_log, max_log;
    agreement_member_t *leaders; /* by term */
    size_t max_leaders;
    sim_ledger_command_t *commands; /* open hash table */
    size_t n_commands, max_commands;
    uint64_t acknowledged; /* highest index of an acknowledged command */
    uint64_t formed_hash;  /* of the FORM entry; 0: none yet */
    uint64_t voters_index; /* of the last view that a leader applied */
    unsigned n_voters;     /* ... and how many vote in it */
} sim_ledger_t;

/* ledger.c */
sim_ledger_entry_t *sim_ledger_at(sim_world_t *w, uint64_t index);
/* NULL: not there, unless `add`. */
sim_ledger_command_t *sim_ledger_command(sim_world_t *w, uint64_t session, uint64_t sequence, bool add);
void sim_ledger_free(sim_world_t *w);

/* What each keeps true stands in its file. They call sim_violation(). */
void check_leader(sim_world_t *w, sim_process_t *p);
void check_log_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry);
void check_log_loaded(sim_world_t *w, sim_process_t *p, uint64_t index);
void check_once_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry, uint64_t value);
void check_once_refused(sim_world_t *w, uint64_t session, uint64_t sequence);
/* A change of members is asked for; what it was answered, whoever waits for that. */
void check_once_change(sim_world_t *w, uint64_t session, uint64_t sequence);
void check_once_changed(sim_world_t *w, uint64_t session, uint64_t sequence, rf_err_t err);
void check_lost_acknowledged(sim_world_t *w, sim_process_t *p, uint64_t session, uint64_t sequence,
                             uint64_t value);
void check_lost_end(sim_world_t *w);
void check_machine_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry);
void check_fence_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry);
void check_fence_delivered(sim_world_t *w, sim_process_t *p, const sim_event_t *event);
/* Whether the run has come to rest as it should; else `why` says what is missing. */
bool check_progress(sim_world_t *w, char *why, size_t why_size);

/* ---- the world ---- */

/* Deliberate defects of what is around the engine: of links. */
typedef enum sim_defect {
    SIM_DEFECT_RING_REUSED = 1 << 0,    /* what a dead incarnation has sent is taken for the next one's */
    SIM_DEFECT_TAIL_EARLY = 1 << 1,     /* a lane's tail is read before its revocation is confirmed */
    SIM_DEFECT_HANDED_COMMITS = 1 << 2, /* iWARP: a write that was handed to TCP counts as placed */
    SIM_DEFECT_NEVER_REJOINS =
        1 << 13, /* no host asks for the next incarnation of a dead core: nothing unsafe, and no progress */
    /* ... of who sleeps over RDMA */
    SIM_DEFECT_NO_LAST_LOOK = 1 << 3, /* having armed, it sleeps without looking once more */
    SIM_DEFECT_ARMED_LATE = 1 << 4,   /* it looks once more, then arms */
    SIM_DEFECT_NOT_RUNG = 1 << 5,     /* who has granted forgets to ring */
    SIM_DEFECT_NO_TIMER = 1 << 12,    /* who has not been granted never looks by itself */
    SIM_DEFECT_RINGS_ON = 1 << 11,    /* having granted once, it rings for ever */
    SIM_DEFECT_ARMED_ONCE = 1 << 6,   /* the device is asked to tell of a completion only once */
    SIM_DEFECT_RUNG_UNSEEN = 1 << 7,  /* rung after it armed, it sleeps all the same */
    SIM_DEFECT_WORD_EARLY = 1 << 8,   /* the device completes before what was written earlier can be seen */
    SIM_DEFECT_LEFT_UNSAID =
        1 << 10, /* it sleeps on what waited for room in its queue pair, where there is some by then */
    SIM_DEFECT_SLEEP_KEPT = 1 << 9, /* a path made anew begins as the one before ended */
} sim_defect_t;

typedef struct sim_options {
    uint64_t seed, seeds, operations;
    bool groups;                                     /* the actor is that of group operations */
    bool whole;                                      /* ... that of whole monitors */
    bool rdma;                                       /* ... that of sleepers over RDMA */
    bool one_sided;                                  /* leaders write into voters' lanes where they can */
    unsigned monitors, hosts, clients, jobs, voters; /* 0: drawn */
    int plan, leases;                                /* -1: drawn */
    agreement_weights_t weights;                     /* package 0: by the model, or drawn */
    sim_knob_choice_t knobs;
    unsigned defects, group_defects, monitor_defects, sim_defects;
    const sim_model_t *model;
    bool json, verbose, quiet; /* quiet: says nothing of failures */
    const char *replay;        /* the other options, for the line that says how to replay */
    uint64_t trace_from, trace_to;
    const char *history_path;
    FILE *steps; /* NULL: none are written, and the run need not be one that the models know */
    uint64_t events_max;
} sim_options_t;

typedef enum sim_verdict { SIM_OK = 0, SIM_USAGE = 1, SIM_UNSAFE = 3, SIM_STUCK = 4 } sim_verdict_t;

typedef struct sim_statistics {
    uint64_t seeds, events, messages, operations, unknown, refused, virtual_ns, work_ns;
    uint64_t lane_writes, lane_cuts, lane_torn;
    uint64_t elections, views, crashes, restarts, snapshots, duplicates, expulsions, lost_machines, undecided;
    uint64_t reads, local_reads, cpu_ns;
    uint64_t faults;        /* of the schedule, that happened to somebody */
    uint64_t false_reports; /* of silence, that a whole monitor heard */
    uint64_t engine_bytes;
    uint64_t
        formed_ns; /* of virtual time, until somebody is in a formed machine with a quorum; the longest */
    uint64_t resident_bytes; /* the most that the process had, for each monitor; of large machines only */
    uint64_t monitor_bytes;  /* ... what a whole monitor touched of its own memory, on average */
    rf_histogram_t latency;
    rf_histogram_t learned; /* with a model: from the first member that applies a command to the last */
} sim_statistics_t;

typedef enum sim_phase { SIM_PHASE_FORMING, SIM_PHASE_WORK, SIM_PHASE_SETTLE, SIM_PHASE_END } sim_phase_t;

typedef struct sim_traced {
    uint64_t number, at_ns;
    sim_event_t event;
    uint32_t size;
    uint8_t type;
} sim_traced_t;

struct sim_world {
    const sim_options_t *options;
    uint64_t seed, now_ns, n_events, hash;
    rf_prng_t network, faults, work,
        choices; /* one stream each, so that one knob does not shift all others */
    sim_knobs_t knobs;
    sim_queue_t queue;

    const sim_actor_t *actor;
    struct sim_groups *groups;     /* groups.h; NULL: not the actor of groups */
    struct sim_monitors *monitors; /* monitors.h; NULL: not that of whole monitors */
    struct sim_lanes *lanes;       /* lanes.c; NULL: no one-sided append */
    struct sim_rdma *rdma;         /* rdma.h; NULL: not that of sleepers over RDMA */
    group_params_t group_params;
    unsigned n_cores, n_hosts, n_clients;
    agreement_params_t params; /* of every engine, but for `self` */
    uint16_t *host;
    uint32_t *package;
    uint8_t *witness;
    unsigned *host_first; /* [n_hosts + 1]: cores of host h are [first[h], first[h + 1]) */
    sim_process_t *processes;
    size_t engine_size;
    sim_clock_t clocks[SIM_HOSTS_MAX];
    uint8_t cut[SIM_HOSTS_MAX][SIM_HOSTS_MAX]; /* how many partitions cut from -> to; 0: none */
    uint64_t cut_since_ns[SIM_HOSTS_MAX][SIM_HOSTS_MAX];
    uint64_t deposed; /* the cut of the leader that was deposed last; 0: none */
    sim_link_t *links;
    uint32_t n_links, links_max; /* a power of two */
    uint32_t in_flight;          /* messages that have not arrived, or wait in inboxes */
    sim_client_t clients[SIM_CLIENTS_MAX];
    rf_incarnation_t *left,
        *fenced; /* [n_cores]: incarnations up to this one have left by the log; are fenced */
    uint64_t n_departures;

    sim_phase_t phase;
    bool faults_on, majority_may_die, lost;
    uint64_t phase_ends_ns, work_started_ns, last_done_ns, settle_started_ns;
    uint64_t think_ns, operations_left;
    uint32_t n_keys;
    uint32_t next_value;

    sim_learned_t learned[SIM_LEARNED_MAX];
    sim_history_t history;
    steps_log_t *steps_log; /* NULL: none are written */
    steps_groups_t *steps_groups;
    sim_ledger_t ledger;
    sim_statistics_t *statistics;
    sim_traced_t trace[SIM_TRACE_EVENTS];

    sim_verdict_t verdict;
    const char *checker;
    char failure[512];
};

static inline bool sim_network_cut(const sim_world_t *w, unsigned from_host, unsigned to_host)
{
    return w->cut[from_host][to_host] != 0;
}

/* Processes of this world run the agreement. */
static inline bool sim_agrees(const sim_world_t *w)
{
    return !w->groups && !w->rdma;
}

static inline bool sim_chance(rf_prng_t *prng, uint32_t ppm)
{
    return ppm > 0 && rf_prng_below(prng, SIM_PPM) < ppm;
}

static inline uint64_t sim_between(rf_prng_t *prng, uint64_t from, uint64_t to)
{
    return from + rf_prng_below(prng, to - from + 1);
}

/* About exponential with that mean, in whole numbers: -log2 by leading zeros and a straight line between. */
uint64_t sim_exponential(rf_prng_t *prng, uint64_t mean);

static inline uint64_t sim_mix(uint64_t hash, uint64_t word)
{
    hash ^= word;
    hash *= 0x9e3779b97f4a7c15ull;
    return hash ^ (hash >> 29);
}

uint64_t sim_hash_bytes(uint64_t hash, const void *bytes, size_t size);

/* Whether the current event is one that --trace asks for. */
static inline bool sim_traces(const sim_world_t *w)
{
    return w->n_events >= w->options->trace_from && w->n_events < w->options->trace_to;
}

/* The run ends with that verdict; the first one counts. */
__attribute__((format(printf, 3, 4))) void sim_violation(sim_world_t *w, const char *checker,
                                                         const char *format, ...);
__attribute__((format(printf, 2, 3))) void sim_stuck(sim_world_t *w, const char *format, ...);

/* faults.c */
void sim_faults_start(sim_world_t *w);
void sim_faults_event(sim_world_t *w, const sim_event_t *event);
void sim_faults_heal(sim_world_t *w, const sim_event_t *event);
/* Then connections that broke have been made again. */
void sim_faults_remake(sim_world_t *w, uint64_t at_ns);
/* That core leads a new term. */
void sim_faults_led(sim_world_t *w, rf_core_t core);
void sim_faults_stop(sim_world_t *w);
/* Whether these deaths leave a majority of every voter set that any live member knows of. */
bool sim_may_die(sim_world_t *w, const rf_core_t *cores, unsigned n);

/* run.c */
sim_verdict_t sim_run(const sim_options_t *options, uint64_t seed, sim_statistics_t *statistics,
                      uint64_t *hash);
/* For a handler of SIGABRT: what the run that is under way was about. NULL: none. */
const sim_world_t *sim_current(void);
void sim_replay_hint(const sim_world_t *w, FILE *out);

#endif
