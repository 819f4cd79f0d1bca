/*
 * Hostile messages into a member of groups: as an owner, as a member, and as one that joins. The input is a sequence of
 * {from, type, length} and bytes; other events in between. The always-on assertions and the sanitizers are the oracle.
 */
#include "consensus/group.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t tokens[16];
static bool prepares[16];
static unsigned n_tokens;

static void step(groups_t *groups, group_event_t event)
{
    static uint64_t now = 1;
    event.now_ns = now += 100;
    for (unsigned rounds = 0; rounds < 1000; rounds++) {
        const group_output_t *out = groups_step(groups, &event);
        for (unsigned i = 0; i < out->n_messages; i++) {
            rf_assert(out->messages[i].size <= GROUP_MESSAGE_MAX && out->messages[i].n_to > 0);
            rf_assert(groups_type(out->messages[i].type));
        }
        for (unsigned i = 0; i < out->n_actions; i++) {
            const group_action_t *a = &out->actions[i];
            rf_assert(a->n_groups > 0 && a->n_groups <= GROUP_OBJECTS_MAX && a->size <= 64);
            if (a->token == 0) continue;
            tokens[n_tokens % 16] = a->token;
            prepares[n_tokens++ % 16] = a->kind == GROUP_ACTION_PREPARE;
        }
        if (!out->more) return;
        event = (group_event_t){.kind = GROUP_TICK, .now_ns = now};
    }
    rf_assert(!"it never comes to rest");
}

static void other(groups_t *groups, uint8_t what, uint8_t arg)
{
    agreement_member_t peer = {.core = (rf_core_t)(arg % 4), .incarnation = 1u + arg % 2};
    uint64_t ids[] = {100u + arg % 3, 100u + (arg / 3) % 3};
    unsigned at = arg % 16;
    switch (what % 10) {
    case 0:
        step(groups, (group_event_t){.kind = GROUP_TICK});
        break;
    case 1:
        if (peer.core != 0)
            step(groups,
                 (group_event_t){.kind = GROUP_VIEW, .view = {.view = arg, .left = &peer, .n_left = 1}});
        break;
    case 2:
        step(groups, (group_event_t){.kind = GROUP_FENCED, .fenced = peer});
        break;
    case 3:
        step(groups,
             (group_event_t){.kind = GROUP_JOIN, .change = {.group = ids[0], .cookie = 1, .through = peer}});
        break;
    case 4:
        step(groups, (group_event_t){.kind = GROUP_LEAVE, .change = {.group = ids[0], .cookie = 2}});
        break;
    case 5:
        step(groups, (group_event_t){.kind = GROUP_DESTROY, .change = {.group = ids[0], .cookie = 3}});
        break;
    case 6:
        step(groups, (group_event_t){.kind = GROUP_OPERATE,
                                     .operate = {.phase = arg & 64 ? GROUP_ONE_PHASE : GROUP_TWO_PHASE,
                                                 .groups = ids,
                                                 .n_groups = 1 + (arg & 128) / 128,
                                                 .bytes = &arg,
                                                 .size = 1}});
        break;
    case 7:
        step(groups, (group_event_t){.kind = GROUP_ROOM, .peer = peer});
        break;
    default:
        step(groups, (group_event_t){.kind = prepares[at] ? GROUP_PREPARED : GROUP_APPLIED,
                                     .done = {.token = tokens[at], .err = arg & 32 ? RF_ERR_BUSY : RF_OK}});
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    group_params_t params = {.self = {.core = 0, .incarnation = 1},
                             .n_cores = 4,
                             .groups_max = 3,
                             .members_max = 4,
                             .ops_max = 4,
                             .bytes_max = 64,
                             .resend_ns = 1000,
                             .plan = data[0] % 3};
    size_t needed = groups_size(&params);
    void *memory = aligned_alloc(64, needed);
    groups_t *groups;
    rf_assert(memory && groups_init(memory, needed, &params, &groups) == RF_OK);
    n_tokens = 0;
    memset(tokens, 0, sizeof tokens);
    agreement_member_t members[] = {{0, 1}, {1, 1}, {2, 1}};
    if (data[0] & 4)
        step(groups, (group_event_t){
                         .kind = GROUP_FORM,
                         .form = {.group = 100, .members = members, .n_members = 1 + (data[0] >> 3) % 3}});
    data++;
    size--;
    while (size >= 3) {
        uint8_t from = data[0], type = data[1], length = data[2];
        data += 3;
        size -= 3;
        if (from & 128) {
            other(groups, type, length);
            continue;
        }
        size_t n = length * 4u;
        if (n > size) n = size;
        void *bytes = malloc(n + 1); /* so that reading past it is seen */
        rf_assert(bytes);
        memcpy(bytes, data, n);
        step(groups, (group_event_t){.kind = GROUP_RECEIVE,
                                     .receive = {.from = {.core = (rf_core_t)(from % 5),
                                                          .incarnation = 1u + (from >> 5) % 2},
                                                 .type = (uint8_t)(GROUP_TYPE_FIRST + type % 4),
                                                 .bytes = bytes,
                                                 .size = n}});
        free(bytes);
        data += n;
        size -= n;
    }
    free(memory);
    return 0;
}
