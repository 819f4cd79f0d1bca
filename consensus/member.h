/* Who takes part in agreement and in groups: one life of a core's monitor. Incarnation 1 is what FORM makes; later
 * ones are assigned by the log, rising for each core. */
#ifndef RF_CONSENSUS_MEMBER_H
#define RF_CONSENSUS_MEMBER_H

#include "base/types.h"

typedef struct agreement_member {
    rf_core_t core;
    rf_incarnation_t incarnation;
} agreement_member_t;

#endif
