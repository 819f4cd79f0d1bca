/* What the simulator may see of an engine that a monitor has set up (engine.h and monitor/state.h do not go together). */
#ifndef RF_SIM_ENGINE_INSIDE_H
#define RF_SIM_ENGINE_INSIDE_H

#include "consensus/agreement.h"

/* From now on the engine calls `machine`; what it called so far. */
agreement_machine_t sim_engine_listen(agreement_t *engine, const agreement_machine_t *machine);
/* It has these defects (AGREEMENT_DEFECT_*). */
void sim_engine_spoil(agreement_t *engine, unsigned defects);
/* The voters of the old set while a change is joint, else none; at most AGREEMENT_VOTERS_MAX. */
unsigned sim_engine_voters_old(const agreement_t *engine, agreement_member_t *out);
/* A change of voters waits for a majority's answers: who has given one is counted on from then on. */
bool sim_engine_has_asked(const agreement_t *engine);
uint64_t sim_engine_term(const agreement_t *engine, agreement_role_t *role);

#endif
