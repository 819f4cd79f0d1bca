/*
 * Dissemination plans of the ordered log: who feeds whom what is committed.
 *
 * A function of the applied view, the newest voters, the leader and what all members were told alike, so that all come to the
 * same without talking; worked out at each member for itself alone, when any of that changes, never for a message. Voters are
 * fed by the leader whatever the plan; the others, the learners, by
 *
 *   BROADCAST  the leader: one message for all who lack the same
 *   UNICAST    the leader: one message made for each, in turn, the farthest first
 *   HOST       the head of their host, which is its lowest voter, else its lowest member that is no witness, and on the
 *              leader's host the leader; heads that do not vote by the leader: one hop per host
 *   PACKAGE    as HOST, and in a host through its packages: the lowest learner of each feeds the others there
 *   WEIGHTED   hosts, then packages, then cores, as PACKAGE, but on each level through members that are reached already as far as
 *              that is quicker: by how many messages one can send while one is under way on such an edge (agreement_weights_t)
 *
 * Whatever the plan, nobody has more than AGREEMENT_CHILDREN_MAX children: what is too much for one goes through others.
 *
 * WEIGHTED is the optimal tree of the postal model (Bar-Noy and Kipnis, "Designing broadcasting algorithms in the postal model
 * for message-passing systems", SPAA 1992; Karp, Sahay, Santos and Schauser, SPAA 1993, in LogP): whoever is reached sends, again and
 * again, to those who are not. Levels one after the other, far edges first, as in hosts of packages of cores.
 *
 * While two members see different views or leaders a learner may have two parents, or none: then it fetches.
 */
#ifndef RF_CONSENSUS_PLAN_H
#define RF_CONSENSUS_PLAN_H

#include "consensus/agreement.h"

#define PLAN_STAR_MAX     56 /* children of one member: BROADCAST, UNICAST; some more may ask to be fed */
#define PLAN_HOSTS_MAX    32 /* heads of hosts that one head feeds */
#define PLAN_PACKAGES_MAX 16 /* heads of packages that one feeds */
#define PLAN_CORES_MAX    16 /* and others of its package; where packages do not count both together */

/* What a plan is made of. */
typedef struct plan_view {
    agreement_plan_t plan;
    agreement_weights_t weights;
    rf_core_t n_cores;
    rf_core_t leader;        /* no member: nobody leads */
    const uint32_t *members; /* [n_cores] its lowest two bits: agreement_member_state_t */
    /* As in agreement_params_t; host NULL: BROADCAST, unless it is UNICAST. Those of one host are numbered one after the other. */
    const uint16_t *host;
    const uint32_t *package;
    const uint8_t *witness;
    unsigned n_voters;
    rf_core_t voters[2 * AGREEMENT_VOTERS_MAX]; /* members; in any order, also twice */
} plan_view_t;

typedef void (*plan_child_fn)(void *context, rf_core_t core);

/* Calls `child` for each learner that `of`, a member, feeds, the farthest first: from within, at most AGREEMENT_CHILDREN_MAX times. Pure; `view`
 * is only read, and kept by nobody. No thread but the caller's. */
void plan_children(const plan_view_t *view, rf_core_t of, plan_child_fn child, void *context);

#endif
