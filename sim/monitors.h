/*
 * The actor of whole monitors: each core runs the real monitor (monitor/, with its engine, replicas and registry), between
 * simulated links, a fake CPU driver and a fake shell (fake.h).
 *
 *      actor_monitor.c          a process: events in, actions out, one by one
 *      actor_monitor_links.c    links between monitors: dials, order, cuts, breaks, fences
 *      actor_monitor_host.c     rackfishd: addresses, deaths, joins, leaves
 *      client_monitor.c         commands, dispatchers and watchers, which ask through client links
 *      client_monitor_said.c    ... and what they make of the answers
 *      check_registry.c         what was acknowledged, read and watched, by the log
 *      check_still.c            who is taken for fenced runs no more
 *      check_owned.c            locks, queues, barriers, what vanishes
 *      check_monitors.c         replicas are equal; everything is back when faults have stopped
 *
 * Links are reliable, as real ones are: in order, exactly once, until they end. So of the knobs `loss` is here how often
 * a link ends; `link_break`, and `link_error` with a cut, are connections that break under links which last; duplicate,
 * reorder, garbage and stray are refused, as are transfer and form_again (knobs.c).
 */
#ifndef RF_SIM_MONITORS_H
#define RF_SIM_MONITORS_H

#include "sim/engine_inside.h"
#include "sim/fake.h"
#include "sim/sim.h"

#define SIM_OUTPUTS_MAX                                                                                      \
    8 /* kept for the next step: what stalls between two actions has one of its own meanwhile */
#define SIM_TOLD_ALL                                                                                         \
    1024                /* cores; in a larger machine rackfishd tells a monitor the addresses that it wants */
#define SIM_NAME_MAX 32 /* of a key in a workload */
#define SIM_LOCKS    2

/* ---- processes ---- */

/* One end of the link between two monitors: what this core's shell knows. */
typedef enum sim_end_state { SIM_END_NONE, SIM_END_DIALING, SIM_END_UP } sim_end_state_t;

typedef struct sim_end {
    sim_end_state_t state;
    uint32_t generation;                   /* of the link; what comes from another one is dropped */
    rf_incarnation_t incarnation;          /* of the other end; DIALING: not known */
    bool full;                             /* the last message was dropped */
    rf_incarnation_t lowest;               /* an earlier one is refused */
    rf_incarnation_t watched;              /* whose process this monitor watches */
    uint64_t last_arrival_ns;              /* of what comes here */
    uint64_t remade_ns;                    /* UP: the connection has broken, and is there again by then */
    sim_message_t *held_first, *held_last; /* what is to come here waits for a cut to heal */
} sim_end_t;

/* What reaches a process, as a message of the queue; bytes follow. */
typedef struct sim_packet {
    uint32_t generation; /* of its link; 0: it came over none */
    uint32_t size;
    monitor_event_t event; /* pointers are filled in when it is taken out */
    uint8_t bytes[];
} sim_packet_t;

typedef struct sim_monitor {
    monitor_t *monitor;
    monitor_output_t *output; /* of its last step, until that is carried out; NULL */
    uint64_t lane_number;     /* as in the last one */
    uint32_t lane_offset;
    unsigned next_action;
    bool exits;
    int exit_status;
    struct { /* arrivals; clients: by handle, NULL: of none yet but rackfishd */
        uint64_t kernel, shell, rackfishd, *clients;
    } last_ns;
    agreement_machine_t machine; /* of the monitor; the simulator's looks on */
    uint64_t checked_term;
    agreement_role_t checked_role;
    rf_incarnation_t *fenced; /* by core: the last that it has taken for fenced; NULL: none yet */
    unsigned n_fenced;        /* how often it has taken one for fenced */
    uint64_t
        *told_lives; /* [n_hosts]: which cores of each it has the addresses of; NULL: those that it wants */
    struct sim_want {
        rf_core_t core;
        rf_incarnation_t told; /* 0: not yet */
    } * wants; /* SIM_TOLD_ALL: the addresses that it has asked for, and is told of from then on */
    unsigned n_wants, wants_max;
    sim_end_t **ends;      /* of its links, those that are or were, by the other core's number, */
    rf_core_t *ends_there; /* ... which is this: a search looks at nothing else */
    unsigned n_ends, ends_max;
    struct {
        uint32_t tag;
        rf_core_t core; /* who is to join */
        uint32_t stamp;
    } asked[16];
    unsigned n_asked;
    rf_incarnation_t named;     /* its core's next one, not started yet; 0: none */
    rf_incarnation_t given[16]; /* the last that JOIN was answered with for its core, at whichever monitor */
    unsigned n_given;
    struct { /* what its host asked of it and was told: */
        rf_incarnation_t incarnation,
            denied; /* of that one; denied: that nothing was done, of all that was asked */
        unsigned unanswered;
        bool unsure;
    } leave;
    uint64_t start_ns;
} sim_monitor_t;

/* ---- clients ---- */

typedef enum sim_mclient_kind { SIM_COMMAND, SIM_DISPATCHER, SIM_WATCHER } sim_mclient_kind_t;

typedef enum sim_mclient_state {
    SIM_M_HOMELESS,   /* looks for a core */
    SIM_M_SPAWNING,   /* its domain is being started */
    SIM_M_CONNECTING, /* its client link is being made */
    SIM_M_OPENING,    /* its session */
    SIM_M_IDLE,
    SIM_M_WAITING, /* for an answer */
    SIM_M_REST
} sim_mclient_state_t;

typedef enum sim_m_op {
    SIM_M_PUT,
    SIM_M_CAS,
    SIM_M_DELETE,
    SIM_M_GET,
    SIM_M_GET_LOCAL,
    SIM_M_LIST,
    SIM_M_SEQUENTIAL,
    SIM_M_EPHEMERAL,
    SIM_M_ACQUIRE,
    SIM_M_RELEASE,
    SIM_M_CREATE_QUEUE,
    SIM_M_PUSH,
    SIM_M_POP,
    SIM_M_BARRIER,
    SIM_M_SPAWN,
    SIM_M_KILL,
    SIM_M_WAIT,
    SIM_M_NAME,
    SIM_M_UNNAME,
    SIM_M_WATCH,
} sim_m_op_t;

typedef struct sim_mclient {
    uint32_t number, stamp;
    sim_mclient_kind_t kind;
    sim_mclient_state_t state;
    rf_core_t core;
    uint32_t life, handle;
    bool up; /* its client link */
    rf_domain_t domain;
    uint64_t session;
    uint32_t tag, spawn_tag;
    rf_core_t spawn_core; /* whom it has asked for its domain */
    uint32_t spawn_life;
    sim_m_op_t op;
    uint32_t key, value, expected;
    size_t operation; /* in the history; SIZE_MAX: not in it */
    uint64_t called_ns, finished;
    uint64_t token; /* of the lock that it holds; 0: none */
    uint32_t lock;
    bool may_be_released;
    const char *prefix; /* a watcher's */
    uint64_t watched;   /* the revision to go on from */
    uint32_t name;      /* that it has exported, and 1; 0: none. While it asks: the one that it asks for */
    bool named;
    rf_domain_t child; /* a domain that it has started */
    bool killed;
} sim_mclient_t;

/* ---- what the log says, from whoever applied it first ---- */

typedef struct sim_change { /* of a key */
    uint64_t revision;
    registry_event_what_t what;
    char name[SIM_NAME_MAX];
    uint32_t value;
    bool acknowledged;
} sim_change_t;

typedef struct sim_grant { /* of a lock */
    uint64_t token, domain, session;
    uint32_t lock;
} sim_grant_t;

typedef struct sim_holder { /* of a lock, a dispatcher; all 0: none */
    uint64_t token;
    rf_domain_t domain;
    rf_core_t core;
} sim_holder_t;

typedef struct sim_element { /* of the queue; by value */
    bool pushed, acknowledged, popped;
} sim_element_t;

typedef struct sim_monitors {
    rf_boot_t
        boot; /* of all hosts: `node` is that of who is being started, and read by monitor_init() alone */
    fake_t fake;
    size_t memory_size;
    sim_monitor_t *monitors;
    monitor_output_t *outputs[SIM_OUTPUTS_MAX]; /* that no step is under way with */
    unsigned n_outputs;
    uint32_t next_generation, next_tag;
    sim_mclient_t clients[SIM_CLIENTS_MAX];
    uint64_t deadline_ns; /* of a link between hosts */

    sim_change_t *changes;
    size_t n_changes, max_changes;
    uint64_t revision; /* of all that is in `changes` */
    sim_grant_t *grants;
    size_t n_grants, max_grants;
    uint64_t last_token[SIM_LOCKS];
    sim_holder_t holders[SIM_LOCKS], now_held[SIM_LOCKS]; /* before and behind the last entry */
    sim_element_t *elements;
    uint32_t max_elements;
    uint64_t pops_unknown;
    struct {
        uint64_t revision;
        unsigned n;
    } barriers[256]; /* the last that opened */
    unsigned n_barriers;
    uint64_t barrier_calls, barrier_returns;
} sim_monitors_t;

/* actor_monitor_links.c: NULL: there never was such a link. */
sim_end_t *sim_end_find(const sim_world_t *w, rf_core_t here, rf_core_t there);
/* ... made, if so. It stays where it is. */
sim_end_t *sim_end(sim_world_t *w, rf_core_t here, rf_core_t there);

extern const sim_actor_t sim_actor_monitor;

/* actor_monitor.c */
void sim_monitors_set_up(sim_world_t *w);
void sim_monitors_free(sim_world_t *w);
/* Gives back the memory of all monitors themselves: none is looked at any more. */
void sim_monitors_unmap(sim_world_t *w);
/* All processes have been started. */
void sim_monitors_begin(sim_world_t *w);
/* Faults have stopped: everybody asks once more. */
void sim_monitors_settle(sim_world_t *w);
/* An event for a monitor, on its way from now on. */
monitor_event_t *sim_monitors_push(void *world, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                                   const void *bytes, size_t size);
/* A packet, to be filled in and sent. */
sim_message_t *sim_packet_new(sim_world_t *w, const void *bytes, size_t size);
static inline sim_packet_t *sim_packet_of(sim_message_t *message)
{
    return (sim_packet_t *)(void *)message->bytes;
}
/* Takes the message over; whoever runs on the core now gets it. */
void sim_packet_send(sim_world_t *w, rf_core_t to, sim_message_t *message, uint64_t at_ns);

/* actor_monitor_links.c */
void sim_links_start(sim_world_t *w, rf_core_t core);
void sim_links_died(sim_world_t *w, rf_core_t core, bool known);
/* actor_monitor_lanes.c */
bool sim_mlanes_act(sim_world_t *w, const sim_process_t *p,
                    const monitor_action_t *a); /* false: nothing of lanes */
bool sim_mlanes_event(sim_world_t *w, const sim_process_t *p, const sim_event_t *event, monitor_event_t *out);
void sim_mlanes_told(sim_world_t *w, const sim_process_t *p, const sim_event_t *event,
                     const sim_monitor_t *m);

void sim_links_act(sim_world_t *w, sim_process_t *p, const monitor_action_t *action);
/* False: the packet came over a link that is no more. */
bool sim_links_take(sim_world_t *w, const sim_process_t *p, const sim_packet_t *packet);
/* A LINK event has reached its process: what its shell makes of it. False: nothing that its monitor is told. */
bool sim_links_event(sim_world_t *w, sim_process_t *p, const sim_event_t *event, monitor_event_t *out);
void sim_links_look(sim_world_t *w, unsigned host);
/* The connection between the two breaks, or is only said to have: one or both hear of it. */
void sim_links_break(sim_world_t *w, rf_core_t a, rf_core_t b);
/* Who is cut off now hears at once, by all connections, or some, or only one of the two does. */
void sim_links_cut(sim_world_t *w);
void sim_links_heal(sim_world_t *w);
void sim_links_room(sim_world_t *w, unsigned host);

/* actor_monitor_host.c */
void sim_monitors_died(sim_world_t *w, rf_core_t core, bool known);
void sim_monitors_look(sim_world_t *w, unsigned host);
/* A monitor wants that core's address. */
void sim_monitors_wants(sim_world_t *w, rf_core_t core, rf_core_t wanted);
void sim_monitors_leave(sim_world_t *w, rf_core_t core);
/* A view has that incarnation leave in order: its host was not told that it does not. */
void sim_monitors_left(sim_world_t *w, agreement_member_t member);
rf_err_t sim_monitors_fence(void *world, rf_core_t core, const rf_kernel_fence_t *fence);
/* A client's request on its way. */
uint32_t sim_monitors_ask(sim_world_t *w, rf_core_t core, uint32_t client, uint16_t op, const void *body,
                          size_t size);
void sim_monitors_told(sim_world_t *w, sim_process_t *p, const rf_wire_header_t *header, const uint8_t *body,
                       size_t size);

/* client_monitor.c */
void sim_mclient_start(sim_world_t *w, unsigned number);
void sim_mclient_timer(sim_world_t *w, const sim_event_t *event);
void sim_mclient_arm(sim_world_t *w, sim_mclient_t *c, uint64_t delay_ns);
void sim_mclient_think(sim_world_t *w, sim_mclient_t *c);
void sim_mclient_core_died(sim_world_t *w, rf_core_t core);
void sim_mclient_exited(void *world, rf_core_t core, rf_domain_t domain, uint16_t index);
void sim_mclient_adopted(sim_world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index);
void sim_mclient_closed(sim_world_t *w, rf_core_t core, uint32_t handle);
void sim_mclient_told(sim_world_t *w, sim_process_t *p, uint32_t handle, const rf_wire_header_t *header,
                      const uint8_t *body, size_t size);
/* The outcome of its operation is not known; its link is gone. */
void sim_mclient_lost(sim_world_t *w, sim_mclient_t *c);
bool sim_mclient_owner_lives(const sim_world_t *w, uint64_t domain, uint64_t session);

/* client_monitor_said.c */
void sim_mclient_answered(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, rf_err_t err,
                          const uint8_t *body, size_t size);
void sim_mclient_unknown(sim_world_t *w, sim_mclient_t *c);

/* check_registry.c, check_owned.c, check_monitors.c: what they keep true stands there */
void check_registry_applied(sim_world_t *w, sim_process_t *p);
void check_registry_acknowledged(sim_world_t *w, const sim_mclient_t *c, uint64_t revision, const char *name,
                                 uint32_t value, bool deleted);
void check_registry_read(sim_world_t *w, sim_process_t *p, const char *prefix, bool exact,
                         const uint8_t *body, size_t size);
void check_registry_watched(sim_world_t *w, sim_process_t *p, sim_mclient_t *c, const uint8_t *body,
                            size_t size);
void check_still_stepped(sim_world_t *w, sim_process_t *p);
bool check_registry_all_told(const sim_world_t *w, const sim_mclient_t *c);
void check_owned_applied(sim_world_t *w, sim_process_t *p, const agreement_apply_t *entry);
void check_owned_acquired(sim_world_t *w, sim_process_t *p, sim_mclient_t *c, uint64_t token);
void check_owned_popped(sim_world_t *w, sim_mclient_t *c, uint32_t value);
void check_owned_named(sim_world_t *w, const sim_mclient_t *c);
void check_owned_barrier(sim_world_t *w, sim_mclient_t *c, uint64_t revision);
sim_element_t *check_owned_element(sim_world_t *w, uint32_t value);
bool check_monitors_at_rest(sim_world_t *w, char *why, size_t why_size);
void check_monitors_end(sim_world_t *w);

#endif
