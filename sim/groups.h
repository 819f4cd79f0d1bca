/* What the actor of group operations and its checkers share. */
#ifndef RF_SIM_GROUPS_H
#define RF_SIM_GROUPS_H

#include "sim.h"

#define SIM_GROUPS_MAX      6
#define SIM_GROUP_CORES_MAX 64
#define SIM_GROUP_PAGES     8

/* An operation, over all processes. By core: the incarnation that has done it; 0: none. */
typedef struct sim_group_op {
    group_op_id_t id;
    group_phase_t phase;
    uint64_t first_ns;
    uint64_t position;            /* its number in the group; 0: nobody has done it */
    uint64_t number;              /* as the group counts, of who was last asked to apply it */
    bool is_applied;              /* somewhere */
    bool is_answered, is_refused; /* the caller was told that it is done; that nothing has happened */
    rf_incarnation_t prepared[SIM_GROUP_CORES_MAX], applied[SIM_GROUP_CORES_MAX],
        aborted[SIM_GROUP_CORES_MAX];
} sim_group_op_t;

typedef struct sim_mapping { /* of a page, at one process: by the operation of that number */
    uint64_t number;
    uint64_t is_mapped;
} sim_mapping_t;

typedef struct sim_groups {
    sim_group_op_t *ops;
    uint32_t n_ops, max_ops;
    agreement_member_t *views; /* who left with each view */
    uint64_t n_views, max_views;
    unsigned n_groups;
    uint32_t
        *order[SIM_GROUPS_MAX]; /* operations in the order of application, as whoever came first had it */
    uint32_t n_order[SIM_GROUPS_MAX], max_order[SIM_GROUPS_MAX];
    uint64_t formed_ns[SIM_GROUPS_MAX]; /* members that hold it by then hold it from the beginning */
    sim_mapping_t mappings[SIM_GROUP_CORES_MAX][SIM_GROUPS_MAX][SIM_GROUP_PAGES];
    uint64_t revoked[SIM_GROUPS_MAX]
                    [SIM_GROUP_PAGES]; /* number of the last answered operation that unmaps it */
} sim_groups_t;

/* actor_groups.c */
uint32_t sim_group_op_find(sim_world_t *w, const group_op_id_t *id);
/* Whether that member lives and has held the group since then. */
bool sim_group_holds(const sim_world_t *w, agreement_member_t member, uint64_t group, uint64_t since_ns);
bool sim_group_members(const sim_process_t *p, uint64_t group, group_info_t *out);
void sim_groups_expel(sim_world_t *w, agreement_member_t member);
void sim_groups_died(sim_world_t *w, rf_core_t core);
/* Starts dead cores anew, and expels who has been silent for too long. */
void sim_groups_look(sim_world_t *w, unsigned host);

/* client_groups.c */
void sim_groups_begin(sim_world_t *w);
void sim_groups_client_start(sim_world_t *w, unsigned number);
void sim_groups_print(const sim_world_t *w, const sim_process_t *p, FILE *out);
void sim_groups_client_timer(sim_world_t *w, const sim_event_t *event);
bool sim_groups_client_request(sim_world_t *w, sim_process_t *p, const sim_event_t *event,
                               group_event_t *out);
void sim_groups_client_done(sim_world_t *w, unsigned client, uint32_t stamp);
bool sim_groups_at_rest(sim_world_t *w, char *why, size_t why_size);
void sim_groups_free(sim_world_t *w);
void sim_groups_set_up(sim_world_t *w);

/* check_two_phase.c, check_one_phase.c, check_group_order.c: what they keep true stands there */
void check_two_phase_applied(sim_world_t *w, sim_process_t *p, uint32_t op, const uint64_t *groups,
                             unsigned n_groups);
void check_two_phase_aborted(sim_world_t *w, sim_process_t *p, uint32_t op);
void check_two_phase_completed(sim_world_t *w, sim_process_t *p, uint32_t op);
void check_two_phase_refused(sim_world_t *w, sim_process_t *p, uint32_t op, rf_err_t err);
void check_one_phase_completed(sim_world_t *w, sim_process_t *p, uint32_t op);
void check_group_order_applied(sim_world_t *w, sim_process_t *p, uint32_t op, uint64_t group,
                               uint64_t position, uint64_t holds_since_ns);

/* check_access.c */
void check_access_applied(sim_world_t *w, const sim_process_t *p, uint32_t op, uint64_t group,
                          uint64_t position);
void check_access_answered(sim_world_t *w, uint32_t op);
void check_access_copied(sim_world_t *w, const sim_process_t *p, uint64_t group, const sim_mapping_t *pages);
void check_access_ended(sim_world_t *w, const sim_process_t *p, uint64_t group);

#endif
