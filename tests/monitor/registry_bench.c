#include "registry_bench.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const registry_params_t bench_small = {
    .objects_max = 64,
    .claims_max = 48,
    .blocks_max = 96,
    .users_max = 4,
    .events_max = 16,
    .events_bytes = 1024,
    .user_objects_max = 40,
    .user_claims_max = 40,
    .user_blocks_max = 60,
};

static void on_answer(void *context, const registry_answer_t *answer)
{
    bench_t *b = context;
    rf_assert(b->n_answers < ANSWERS_MAX);
    b->answers[b->n_answers++] = *answer;
    if (answer->size > 0) memcpy(b->bytes, answer->bytes, answer->size);
}

void bench_open(bench_t *b, const registry_params_t *params, uint64_t seed)
{
    registry_params_t p = *params;
    p.seed = seed;
    *b = (bench_t){0};
    size_t size = registry_size(&p);
    rf_assert(size > 0);
    b->memory = calloc(1, size);
    rf_assert(b->memory && registry_init(b->memory, size, &p, on_answer, b, &b->r) == RF_OK);
}

void bench_close(bench_t *b)
{
    registry_check(b->r);
    free(b->memory);
}

static size_t bench_encode(const registry_command_t *c, const char *name, const void *value,
                           const void *compare, uint8_t *out)
{
    registry_command_t head = *c;
    if (name) head.name_size = (uint16_t)strlen(name);
    if (head.user[0] == 0) snprintf(head.user, sizeof head.user, "ann");
    size_t at = sizeof head;
    memcpy(out, &head, sizeof head);
    if (name) memcpy(out + at, name, head.name_size);
    at += head.name_size;
    if (head.value_size > 0) memcpy(out + at, value, head.value_size);
    at += head.value_size;
    if (head.compare_size > 0) memcpy(out + at, compare, head.compare_size);
    return at + head.compare_size;
}

rf_err_t bench_apply(bench_t *b, const registry_command_t *c, const char *name, const void *value,
                     const void *compare, uint64_t *result)
{
    uint8_t bytes[REGISTRY_COMMAND_MAX + 2 * REGISTRY_VALUE_MAX];
    uint64_t ignored;
    b->n_answers = 0;
    rf_err_t err =
        registry_apply(b->r, bytes, bench_encode(c, name, value, compare, bytes), result ? result : &ignored);
    registry_check(b->r);
    return err;
}

registry_command_t bench_command(enum registry_op op, registry_kind_t kind, uint64_t domain)
{
    return (registry_command_t){.op = (uint16_t)op, .kind = (uint8_t)kind, .domain = domain};
}

rf_err_t bench_put_as(bench_t *b, const char *user, const char *name, const char *value, uint64_t domain,
                      uint16_t flags, uint8_t condition, uint64_t number, const char *compare,
                      uint64_t *result)
{
    registry_command_t c = bench_command(REGISTRY_PUT, REGISTRY_KEY, domain);
    c.flags = flags;
    c.condition = condition;
    c.number = number;
    c.value_size = (uint16_t)strlen(value);
    c.compare_size = (uint16_t)(compare ? strlen(compare) : 0);
    snprintf(c.user, sizeof c.user, "%s", user);
    return bench_apply(b, &c, name, value, compare, result);
}

rf_err_t bench_put(bench_t *b, const char *name, const char *value, uint64_t *result)
{
    return bench_put_as(b, "ann", name, value, 0, 0, REGISTRY_ALWAYS, 0, NULL, result);
}

bool bench_has(bench_t *b, const char *name, const char *value)
{
    registry_entry_t e;
    char held[REGISTRY_VALUE_MAX];
    if (!registry_get(b->r, REGISTRY_KEY, name, strlen(name), &e)) return false;
    registry_value(b->r, &e, held);
    return e.value_size == strlen(value) && memcmp(held, value, e.value_size) == 0;
}
