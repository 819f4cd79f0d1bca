/* A replica of the registry by itself, and what a test does with it: every command is checked, and its answers are kept. */
#ifndef RF_TESTS_MONITOR_REGISTRY_BENCH_H
#define RF_TESTS_MONITOR_REGISTRY_BENCH_H

#include "monitor/registry.h"

#define ANSWERS_MAX 64

typedef struct bench {
    registry_t *r;
    void *memory;
    unsigned n_answers;
    registry_answer_t answers[ANSWERS_MAX]; /* of the last command */
    uint8_t bytes[REGISTRY_VALUE_MAX];      /* of the last message */
    uint64_t waits;
} bench_t;

/* So small that its maxima are met. */
extern const registry_params_t bench_small;

void bench_open(bench_t *b, const registry_params_t *params, uint64_t seed);
void bench_close(bench_t *b);

registry_command_t bench_command(enum registry_op op, registry_kind_t kind, uint64_t domain);

/* As user "ann" if the command names none; `name`, `value`, `compare` and `result` may be NULL. */
rf_err_t bench_apply(bench_t *b, const registry_command_t *c, const char *name, const void *value,
                     const void *compare, uint64_t *result);

/* A key; the second by ann, whatever is there. */
rf_err_t bench_put_as(bench_t *b, const char *user, const char *name, const char *value, uint64_t domain,
                      uint16_t flags, uint8_t condition, uint64_t number, const char *compare,
                      uint64_t *result);
rf_err_t bench_put(bench_t *b, const char *name, const char *value, uint64_t *result);
bool bench_has(bench_t *b, const char *name, const char *value);

#endif
