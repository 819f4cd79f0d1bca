#include "agree_replica.h"

#include "base/clock.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

#define LOG_DEFAULT  1024
#define SNAPSHOT_MAX 64
#define SESSIONS_MAX 64

static rf_err_t apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    agree_replica_t *r = context;
    if (entry->kind != AGREEMENT_ENTRY_COMMAND) return RF_OK;
    size_t one = r->command_bytes ? r->command_bytes : entry->size;
    for (size_t at = 0; at + one <= entry->size; at += one) {
        uint64_t word = 0;
        if (one >= sizeof word) memcpy(&word, (const uint8_t *)entry->bytes + at, sizeof word);
        r->sum += word;
        r->applied++;
        if (one == 0) break;
    }
    *value = r->sum;
    return RF_OK;
}

static size_t save(void *context, void *bytes, size_t max)
{
    const agree_replica_t *r = context;
    uint64_t words[2] = {r->sum, r->applied};
    if (max < sizeof words) return 0;
    memcpy(bytes, words, sizeof words);
    return sizeof words;
}

static rf_err_t load(void *context, uint64_t index, const void *bytes, size_t size)
{
    (void)index;
    agree_replica_t *r = context;
    uint64_t words[2];
    if (size != sizeof words) return RF_ERR_PROTOCOL;
    memcpy(words, bytes, sizeof words);
    r->sum = words[0];
    r->applied = words[1];
    return RF_OK;
}

static uint64_t or_never(uint64_t ns)
{
    return ns ? ns : RF_NEVER;
}

static unsigned voters_of(const agree_config_t *config)
{
    unsigned voters = config->voters ? config->voters : config->n;
    return voters > AGREEMENT_VOTERS_MAX ? AGREEMENT_VOTERS_MAX : voters;
}

bool agree_replica_init(agree_replica_t *r, rf_core_t core, const agree_config_t *config)
{
    *r = (agree_replica_t){.core = core, .command_bytes = config->command_bytes};
    unsigned per_host = config->per_host ? config->per_host : 1;
    for (unsigned i = 0; i < config->n; i++) {
        r->hosts[i] = (uint16_t)(i / per_host);
        r->packages[i] = config->per_package ? i / config->per_package : 0;
        r->cores[i] = (rf_core_t)i;
    }
    agreement_params_t params = {
        .self = {.core = core, .incarnation = 1},
        .machine = {.bytes = {1}},
        .n_cores = (rf_core_t)config->n,
        .log_max = config->log_max ? config->log_max : LOG_DEFAULT,
        .entry_max = config->entry_max ? config->entry_max : AGREE_COMMAND_MAX,
        .proposals_max = config->proposals ? config->proposals : AGREEMENT_WINDOW,
        .sessions_max = SESSIONS_MAX,
        .snapshot_max = SNAPSHOT_MAX,
        .voters_max = voters_of(config),
        .host = r->hosts,
        .package = r->packages,
        .plan = config->plan,
        .weights = config->weights,
        .lane_lines = config->lane_lines,
        .resend_ns = or_never(config->resend_ns),
        .heartbeat_ns = or_never(config->heartbeat_ns),
        .election_ns = or_never(config->election_ns),
        .silence_ns = or_never(config->election_ns),
        .seed = 1 + core,
        .state_machine = {.context = r, .apply = apply, .save = save, .load = load},
    };
    size_t size = agreement_size(&params);
    r->memory =
        size ? aligned_alloc(RF_CACHE_LINE, (size + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1)) : NULL;
    if (r->memory) memset(r->memory, 0, size); /* touched */
    if (r->memory && agreement_init(r->memory, size, &params, &r->engine) == RF_OK) return true;
    fprintf(stderr, "rf-bench: no engine for replica %u of %u\n", core, config->n);
    agree_replica_free(r);
    return false;
}

void agree_replica_free(agree_replica_t *r)
{
    free(r->memory);
    r->memory = NULL;
    r->engine = NULL;
}

agreement_event_t agree_replica_form(const agree_replica_t *r, const agree_config_t *config)
{
    return (agreement_event_t){.kind = AGREEMENT_FORM, .form = {.cores = r->cores, .n_cores = config->n}};
}
