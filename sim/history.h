/* Histories of what clients did and saw, as text (history.c, doc/history.md), and whether they are linearizable (check_linearizable.c). */
#ifndef RF_SIM_HISTORY_H
#define RF_SIM_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum sim_operation_kind { SIM_PUT = 1, SIM_GET, SIM_CAS, SIM_DELETE } sim_operation_kind_t;
typedef enum sim_outcome {
    SIM_UNKNOWN = 0, /* may take effect at any time after its call, or never */
    SIM_DONE,
    SIM_NOT_EXECUTED, /* surely never */
} sim_outcome_t;

#define SIM_ABSENT 0u /* the value of a key that is not there */

typedef struct sim_operation {
    uint64_t call_ns, return_ns;
    uint32_t client, key;
    uint8_t kind, outcome;
    bool success;             /* CAS: matched. DELETE: was there */
    uint32_t value, expected; /* PUT, CAS: new value; CAS: what it must be. GET: `value` is what was found */
} sim_operation_t;

typedef struct sim_history {
    sim_operation_t *operations;
    size_t n, max;
    char **names; /* read from text: names of keys and values by number; NULL: numbers are what they are */
    size_t n_names;
} sim_history_t;

/* Adds an operation; its number. */
size_t sim_history_add(sim_history_t *history, const sim_operation_t *operation);
void sim_history_free(sim_history_t *history);
void sim_history_write(const sim_history_t *history, FILE *out);
bool sim_history_read(sim_history_t *history, FILE *in, char *why, size_t why_size);

typedef enum sim_linearizable {
    SIM_LINEARIZABLE,
    SIM_NOT_LINEARIZABLE,
    SIM_UNDECIDED, /* more than `steps_max` steps of search */
} sim_linearizable_t;

/* Whether every key, by itself, is a linearizable register (locality: Herlihy and Wing 1990). `why` names the key and
 * the first operation that nothing explains. */
sim_linearizable_t check_linearizable(const sim_history_t *history, uint64_t steps_max, char *why,
                                      size_t why_size);

#endif
