/*
 * The world of consensus_groups_test: whole engines on a network (net.h), groups of them, and a model of all that they were asked
 * for and did. What a member does is checked against the model while it happens, G1 to G5 of doc/agreement.md.
 *
 * One world at a time; all of it on one thread.
 */
#ifndef RF_TESTS_CONSENSUS_GROUPS_WORLD_H
#define RF_TESTS_CONSENSUS_GROUPS_WORLD_H

#include "net.h"

#include "consensus/group_state.h"

#define LIVES   16 /* incarnations of a core */
#define OPS     512
#define OTHERS  256
#define GROUPS  6
#define PENDING 64
#define FIRST   100 /* id of the first group */

typedef struct model_op {
    agreement_member_t by;
    group_phase_t phase;
    unsigned n_groups, groups[2];
    bool done, ok, failed;
    uint64_t number;
    uint16_t prepared[NET_CORES_MAX], applied[NET_CORES_MAX],
        aborted[NET_CORES_MAX]; /* bits of incarnations */
} model_op_t;

typedef struct pending {
    uint64_t token;
    bool prepare;
} pending_t;

typedef struct life {                    /* of one incarnation of a core */
    uint64_t told_fenced[NET_CORES_MAX]; /* told so of incarnations up to this */
    bool fenced;
    bool holds[GROUPS];
    pending_t pending[PENDING];
    unsigned n_pending;
    uint16_t order[GROUPS][OPS];
    unsigned n_order[GROUPS];
} life_t;

typedef struct world {
    net_t *n;
    rf_prng_t prng;
    bool told_dead[NET_CORES_MAX][NET_CORES_MAX]; /* is still to be told */
    struct {
        unsigned proposal;
        rf_core_t core;
        bool used;
    } joins[16];
    model_op_t ops[OPS];
    unsigned n_ops, n_ok;
    struct {
        agreement_member_t by;
        bool done;
        rf_err_t err;
    } others[OTHERS]; /* FORM, JOIN, LEAVE */
    unsigned n_others;
    unsigned n_groups;
    life_t lives[NET_CORES_MAX][LIVES];
    char text[160];
} world_t;

extern world_t *world;

/* A world with nothing in it but cores, by `seed`; a breach of a rule is told to the network's `unsafe`. Owned by the caller, until
 * world_end. */
world_t *world_begin(const net_knobs_t *knobs, uint64_t seed);
void world_end(void);
group_params_t world_group_params(group_plan_t plan);

/* A number below `n`, drawn from the seed. */
unsigned world_below(unsigned n);
void world_violate(const char *what, unsigned op, rf_core_t core);

/* ---- of a core, as it is ---- */

bool world_runs(rf_core_t core);
life_t *world_life(rf_core_t core);
const groups_t *world_groups(rf_core_t core);

/* ---- what happens ---- */

void world_tell(rf_core_t at, const group_event_t *event);
/* One of the actions that wait at `at` is done, whichever; false: none waits. */
bool world_answer(rf_core_t at);
/* A cookie for what is neither a one-phase nor a two-phase operation. */
uint64_t world_other(rf_core_t at);
void world_form(rf_core_t at);
/* On one group, or two; the operation's number in the model, -1: there are enough. */
int world_operate(rf_core_t at, group_phase_t phase, unsigned first, unsigned second);
void world_change(rf_core_t at, group_event_kind_t kind, unsigned group, rf_core_t through);
void world_kill(rf_core_t core);
/* Each is told of deaths that it does not know of: all, or some of them. */
void world_tell_deaths(bool all);
/* Members that nobody has started: whoever asked for them was not answered. */
void world_tell_silence(void);
/* Whoever has left, as far as `at` knows, is fenced, and `at` told so: all, or some. */
bool world_tell_fenced(rf_core_t at, bool all);
void world_join(rf_core_t by, rf_core_t core);
/* Who was let in comes back as what the log says; its process before that is no more. */
void world_poll_joins(void);

/* ---- after the faults ---- */

/* All live members have applied all, and no group has anything under way. */
bool world_settled(void);
/* No majority lives of the newest voters that anybody knows. */
bool world_is_lost(void);
void world_print(void);
/* All who hold a group agree (G8), and nothing acknowledged is lost. */
void world_check_end(void);

#endif
