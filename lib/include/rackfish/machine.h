/*
 * The machine as one: its cores, domains, names, and what happens to them. Source: lib/machine.c.
 *
 * All answers come from the replica of this core's monitor: what this core knows now.
 */
#ifndef RACKFISH_MACHINE_H
#define RACKFISH_MACHINE_H

#include "rackfish/domain.h"

RF_BEGIN_DECLS

typedef enum rf_core_state {
    RF_CORE_STATE_DOWN = 0,
    RF_CORE_STATE_UP = 1,
    RF_CORE_STATE_JOINING = 2,
} rf_core_state_t;

typedef struct rf_core_info {
    rf_core_t core;
    rf_node_t node;
    uint16_t cpu; /* of that host */
    rf_core_state_t state;
    rf_incarnation_t incarnation; /* which life of its monitor */
    uint32_t package, numa;       /* topology; UINT32_MAX: unknown */
    char node_name[RF_NAME_MAX];
} rf_core_info_t;

typedef struct rf_name_info {
    char name[RF_NAME_MAX];
    rf_domain_t domain; /* who exports it */
    uint16_t index;
    rf_core_t core;
} rf_name_info_t;

typedef struct rf_machine_info {
    rf_machine_id_t machine;
    char name[RF_NAME_MAX];
    uint64_t view;    /* number of the agreed membership */
    rf_core_t leader; /* who orders changes; RF_CORE_NONE: none in reach */
    rf_core_t cores, cores_up;
    rf_node_t nodes, nodes_up;
    bool has_quorum; /* changes can be agreed on now */
    uint32_t domains;
    uint32_t survives_cores; /* how many (any) cores may die without losing agreed changes */
    uint64_t uptime_ns;
} rf_machine_info_t;

RF_API rf_err_t rf_machine_info(rf_machine_info_t *out, uint64_t deadline_ns);

/* Fill up to `max` rows, in ascending order of core, domain or position, from the first that is not below
 * `from`; `*n` tells how many.
 * `*next` (may be NULL) is where to go on, UINT64_MAX when that was all. */
RF_API rf_err_t rf_core_list(uint64_t from, rf_core_info_t *rows, unsigned max, unsigned *n, uint64_t *next,
                             uint64_t deadline_ns);
RF_API rf_err_t rf_domain_list(uint64_t from, rf_domain_info_t *rows, unsigned max, unsigned *n,
                               uint64_t *next, uint64_t deadline_ns);
RF_API rf_err_t rf_name_list(uint64_t from, rf_name_info_t *rows, unsigned max, unsigned *n, uint64_t *next,
                             uint64_t deadline_ns);

/* Who exports a name. RF_ERR_NOT_FOUND. */
RF_API rf_err_t rf_name_find(const char *name, rf_name_info_t *out, uint64_t deadline_ns);

/* ---- events ---- */

enum { /* what to hear of, rf_waitset_add_machine() */
       RF_MACHINE_EVENTS_CORES = 1u << 0,
       RF_MACHINE_EVENTS_NODES = 1u << 1,
       RF_MACHINE_EVENTS_DOMAINS = 1u << 2,
};

typedef enum rf_machine_event_what {
    RF_MACHINE_EVENT_LOST = 0, /* more happened than was kept: look again */
    RF_MACHINE_EVENT_CORE_UP = 1,
    RF_MACHINE_EVENT_CORE_DOWN = 2,
    RF_MACHINE_EVENT_NODE_UP = 3,
    RF_MACHINE_EVENT_NODE_DOWN = 4,
    RF_MACHINE_EVENT_DOMAIN_STARTED = 5,
    RF_MACHINE_EVENT_DOMAIN_ENDED = 6,
    RF_MACHINE_EVENT_CORE_LEAVING = 7, /* this core is being turned off: end, it waits for you or kills you */
} rf_machine_event_what_t;

typedef struct rf_machine_event {
    rf_machine_event_what_t what;
    rf_err_t err; /* why it went down */
    rf_core_t core;
    rf_node_t node;
    rf_domain_t domain; /* DOMAIN_*; else RF_DOMAIN_NONE */
    uint64_t at_ns;     /* CLOCK_REALTIME, when this core learnt it */
} rf_machine_event_t;

RF_END_DECLS

#endif
