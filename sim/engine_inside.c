/* A look inside an engine that somebody else set up: the simulator puts itself between it and its state machine. */
#include "sim/engine_inside.h"

#include "consensus/engine.h"

agreement_machine_t sim_engine_listen(agreement_t *engine, const agreement_machine_t *machine)
{
    agreement_machine_t own = engine->params.state_machine;
    engine->params.state_machine = *machine;
    return own;
}

uint64_t sim_engine_term(const agreement_t *engine, agreement_role_t *role)
{
    *role = engine->role;
    return engine->term;
}
