/* The replicated state machine: a registry of numbers. What a command answers says what it found, so that a command that
 * is executed twice, or on another state, answers otherwise. */
#include "sim.h"

uint64_t sim_replica_apply(sim_replica_t *replica, const sim_command_t *command)
{
    replica->commands++;
    if (command->key >= SIM_KEYS_MAX) return 0;
    uint32_t *value = &replica->values[command->key], found = *value;
    bool success = true;
    switch (command->kind) {
    case SIM_PUT:
        *value = command->value;
        break;
    case SIM_CAS:
        success = found == command->expected;
        if (success) *value = command->value;
        break;
    case SIM_DELETE:
        success = found != SIM_ABSENT;
        *value = SIM_ABSENT;
        break;
    case SIM_GET: /* a read through the log */
        break;
    default:
        return 0;
    }
    return found | (success ? SIM_RESULT_SUCCESS : 0);
}
