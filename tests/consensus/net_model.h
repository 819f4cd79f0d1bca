/* The model beside the network of net.h, as net.c keeps it; a breach goes to net_unsafe(). */
#ifndef RF_TESTS_CONSENSUS_NET_MODEL_H
#define RF_TESTS_CONSENSUS_NET_MODEL_H

#include "net.h"

/* The machine that `core` replicates; its memory begins with a pointer to the net. */
agreement_machine_t net_model_machine(net_core_t *core);

/* After a step of `core`: what it was answered; its terms, indices and leaders. */
void net_model_answered(net_t *n, rf_core_t core, const agreement_completion_t *c);
void net_model_check(net_t *n, rf_core_t core);
/* All that a caller can see of the step, into n->hash. */
void net_model_hash(net_t *n, rf_core_t core, const agreement_output_t *out);

#endif
