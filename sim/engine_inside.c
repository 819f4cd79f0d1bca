/* A look inside an engine that somebody else set up: the simulator puts itself between it and its state machine. */
#include "sim/engine_inside.h"

#include "consensus/engine.h"

#include <string.h>

agreement_machine_t sim_engine_listen(agreement_t *engine, const agreement_machine_t *machine)
{
    agreement_machine_t own = engine->params.state_machine;
    engine->params.state_machine = *machine;
    return own;
}

void sim_engine_spoil(agreement_t *engine, unsigned defects)
{
    engine->params.defects = defects;
}

unsigned sim_engine_voters_old(const agreement_t *engine, agreement_member_t *out)
{
    const config_t *config = config_newest(engine);
    if (!config->joint) return 0;
    memcpy(out, config->voters_old, config->n_old * sizeof *out);
    return config->n_old;
}

uint64_t sim_engine_term(const agreement_t *engine, agreement_role_t *role)
{
    *role = engine->role;
    return engine->term;
}

bool sim_engine_has_asked(const agreement_t *engine)
{
    return engine->change_round != 0;
}
