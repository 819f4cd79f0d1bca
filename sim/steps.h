/*
 * What engines did, written as steps that the models of consensus/model take, or refuse (consensus/model/trace.sh says the format): who watches
 * engines calls these after each of their steps, in the order in which they were taken. The simulator does (`rackfish sim --steps`), and
 * so do the networks of tests/consensus.
 *
 * Both follow four cores, 0 to 3, within what the models count: steps that would go beyond it end the record, and what was written
 * until then stands for itself. Owner: the caller's thread; nothing is kept of what is given.
 */
#ifndef RF_SIM_STEPS_H
#define RF_SIM_STEPS_H

#include "consensus/agreement.h"
#include "consensus/group.h"

#include <stdio.h>

#define STEPS_CORES 4
#define STEPS_MEMBERS                                                                                        \
    3 /* cores 0 to 2: the first voters, who begin with the group; 3 is the spare, or the outsider */

/* Of the ordered log (log.pml). */
typedef struct steps_log steps_log_t;

steps_log_t *steps_log_new(void);
void steps_log_free(steps_log_t *steps);
/* That engine has stepped; `state` is what it says of itself since. */
void steps_log_stepped(steps_log_t *steps, agreement_member_t self, const agreement_state_t *state,
                       const agreement_output_t *output);
/* Its process has ended; a process of that core was started as the next incarnation, the only one that may be. */
void steps_log_ended(steps_log_t *steps, agreement_member_t member);
void steps_log_started_anew(steps_log_t *steps, rf_core_t core);
void steps_log_write(const steps_log_t *steps, FILE *out);

/* Of operations on one group (group.pml), from when all its first members hold it. */
typedef struct steps_groups steps_groups_t;

steps_groups_t *steps_groups_new(uint64_t group, FILE *out);
void steps_groups_free(steps_groups_t *steps);
/* The member of core `at` has stepped, and has heard of a view which `left` has left with (RF_CORE_NONE: has not). */
void steps_groups_stepped(steps_groups_t *steps, unsigned at, const groups_t *groups, rf_core_t left);
/* The machine has agreed that it has left; nothing of it runs any more. */
void steps_groups_left(steps_groups_t *steps, unsigned at);
void steps_groups_fenced(steps_groups_t *steps, unsigned at);
/* The caller of the operation of that number was told that it is done. */
void steps_groups_answered(steps_groups_t *steps, uint64_t number);

#endif
