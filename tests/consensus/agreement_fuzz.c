/*
 * Hostile messages into an engine: as the orderer of three, and as a member. The always-on assertions of the engine are
 * the oracle. The input is a sequence of {from, type, length} and bytes; other events in between.
 */
#include "consensus/agreement.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Steps, and applies everything that is handed out, in order. */
static void step(agreement_t *engine, agreement_event_t *event, uint64_t *handed, uint64_t *applied)
{
    event->now_ns = 1;
    for (unsigned rounds = 0; rounds < 100000; rounds++) {
        const agreement_output_t *out = agreement_step(engine, event);
        for (unsigned i = 0; i < out->n_applies; i++) rf_assert(out->applies[i].index == ++*handed);
        for (unsigned i = 0; i < out->n_messages; i++)
            rf_assert(out->messages[i].size <= AGREEMENT_MESSAGE_MAX && out->messages[i].n_to > 0);
        for (unsigned i = 0; i < out->n_group_applies; i++) rf_assert(out->group_applies[i].size <= 160);
        agreement_state_t state;
        agreement_query(engine, &state);
        rf_assert(state.applied <= state.committed && state.committed <= state.accepted);
        if (*applied < *handed)
            *event =
                (agreement_event_t){.kind = AGREEMENT_APPLIED, .now_ns = 1, .applied = {.index = ++*applied}};
        else if (out->more)
            *event = (agreement_event_t){.kind = AGREEMENT_TICK, .now_ns = 1};
        else
            return;
    }
    rf_assert(!"it never comes to rest");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4) return 0;
    rf_core_t self = data[0] % 3;
    agreement_params_t params = {.self = {.core = self, .incarnation = 1},
                                 .n_cores = 3,
                                 .log_max = 16,
                                 .entry_max = 160,
                                 .proposals_max = 8,
                                 .sessions_max = 2,
                                 .resend_ns = data[0] & 128 ? RF_NEVER : 1000};
    size_t needed = agreement_size(&params);
    void *memory = aligned_alloc(16, needed);
    agreement_t *engine;
    rf_assert(memory && agreement_init(memory, needed, &params, &engine) == RF_OK);
    uint64_t handed = 0, applied = 0, sequence = 0;
    static const rf_core_t all[] = {0, 1, 2};
    if (self == 0 && !(data[0] & 64)) {
        agreement_event_t form = {.kind = AGREEMENT_FORM, .form = {.cores = all, .n_cores = 3}};
        step(engine, &form, &handed, &applied);
    }
    data++;
    size--;
    while (size >= 3) {
        uint8_t what = data[0], type = data[1];
        size_t length = data[2] * 2u;
        data += 3;
        size -= 3;
        if (length > size) length = size;
        uint8_t *bytes = malloc(length ? length : 1); /* exact, so that reading beyond is seen */
        rf_assert(bytes);
        memcpy(bytes, data, length);
        data += length;
        size -= length;
        agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
        event.receive.from = (agreement_member_t){.core = what % 4, .incarnation = 1 + (what >> 7)};
        event.receive.type = (uint8_t)(0xd0 + type % 11);
        event.receive.bytes = bytes;
        event.receive.size = length;
        switch (what / 16 % 8) {
        case 0:
            event = (agreement_event_t){.kind = AGREEMENT_PROPOSE};
            event.propose.session = agreement_own_session(engine);
            event.propose.sequence = ++sequence;
            event.propose.bytes = bytes;
            event.propose.size = length;
            break;
        case 1:
            if (type % 4 == 0)
                event = (agreement_event_t){.kind = AGREEMENT_DEATH,
                                            .member = {.core = what % 4, .incarnation = 1}};
            if (type % 4 == 1)
                event =
                    (agreement_event_t){.kind = AGREEMENT_ROOM, .peer = {.core = what % 4, .incarnation = 1}};
            if (type % 4 == 2) event = (agreement_event_t){.kind = AGREEMENT_READ, .read = {.cookie = type}};
            if (type % 4 == 3) {
                event = (agreement_event_t){.kind = AGREEMENT_GROUP_ONE};
                event.group.group = type / 4 % 2;
                event.group.cores = all;
                event.group.n_cores = 1 + what % 3;
                event.group.bytes = bytes;
                event.group.size = length;
            }
            break;
        case 2:
            event = (agreement_event_t){.kind = type % 2 ? AGREEMENT_SESSION_OPEN : AGREEMENT_SESSION_END};
            event.session.sequence = ++sequence;
            event.session.session = (1ull << 63) | (type / 2);
            break;
        default:
            break;
        }
        step(engine, &event, &handed, &applied);
        free(bytes);
    }
    free(memory);
    return 0;
}
