/*
 * Hostile messages to members of groups, in two ways.
 *
 *   one       any bytes into one member: as an owner, as a member, and as one that joins. The input is a sequence of {from, type, length}
 *             and bytes; other events in between. The always-on assertions and the sanitizers are the oracle.
 *   several   members and their callers on links that are out of order: what was sent comes late, again, again after long, or cut short, in
 *             between operations, joins, departures, stalls, views and fences, as the input says. Then faults stop. The oracle is the
 *             model of what callers see (group_net.h): members do not lie here, so its invariants hold.
 */
#include "group_net.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT      16
#define QUIET_MAX 60000

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

static void one(const uint8_t *data, size_t size)
{
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
}

/* ---- several ---- */

/* What was sent comes (again) now, `size` bytes of it, if its link still delivers. */
static void deliver_again(net_t *net, const packet_t *p, size_t size)
{
    if (!p->bytes || net->nodes[p->to].state != NODE_UP || net->nodes[p->from].fenced) return;
    uint8_t *exact = malloc(size ? size : 1); /* so that reading past it is seen */
    rf_assert(exact);
    memcpy(exact, p->bytes, size);
    net_event(
        net, p->to,
        &(group_event_t){
            .kind = GROUP_RECEIVE,
            .receive = {.from = net->nodes[p->from].id, .type = p->type, .bytes = exact, .size = size}});
    free(exact);
}

static void keep(const net_t *net, unsigned which, packet_t *kept)
{
    if (net->n_flight == 0) return;
    const packet_t *p = &net->flight[which % net->n_flight];
    free(kept->bytes);
    *kept = *p;
    kept->bytes = malloc(p->size + 1);
    rf_assert(kept->bytes);
    memcpy(kept->bytes, p->bytes, p->size);
}

/* Somebody always lives on. */
static void fail(net_t *net, unsigned at, bool stalls)
{
    unsigned n_up = 0;
    for (unsigned i = 0; i < net->n; i++) n_up += net->nodes[i].state == NODE_UP && !net->nodes[i].left;
    if (n_up < 2 || net->nodes[at].state != NODE_UP || net->nodes[at].left) return;
    if (stalls)
        net->nodes[at].state = NODE_STALLED; /* its dispatchers run on */
    else
        net_die(net, at);
}

static void act(net_t *net, const uint8_t *in, packet_t *kept)
{
    unsigned at = in[1] % net->n, group = in[2] % NET_GROUPS;
    node_t *node = &net->nodes[at];
    packet_t *packet = &kept[in[1] / 8 % KEPT];
    bool up = node->state == NODE_UP;
    switch (in[0] % 18) {
    case 0:
        if (up) net_operate(net, at, GROUP_ONE_PHASE, 1u << group);
        break;
    case 1:
        if (up) net_operate(net, at, GROUP_TWO_PHASE, 1u << group);
        break;
    case 2:
        if (up) net_operate(net, at, GROUP_TWO_PHASE, 1 + in[2] % 7u);
        break;
    case 3:
        if (up) net_change(net, at, GROUP_JOIN, group, in[2] / 4 % net->n, 1);
        break;
    case 4:
        if (up) net_change(net, at, GROUP_LEAVE, group, 0, 2);
        break;
    case 5:
        if (up && in[2] > 240) net_change(net, at, GROUP_DESTROY, group, 0, 3);
        break;
    case 6:
        if (in[2] % 4 == 0) fail(net, at, in[2] & 4);
        break;
    case 7: /* the machine notices */
        if (!up) net_leave_view(net, at);
        break;
    case 8:
        if (node->left) net_fence(net, at);
        break;
    case 9: /* it has left, and does not know it yet */
        if (node->state == NODE_STALLED && !node->fenced) node->state = NODE_UP;
        break;
    case 10:
        keep(net, in[2], packet);
        break;
    case 11:
        deliver_again(net, packet, packet->size);
        break;
    case 12:
        deliver_again(net, packet, packet->size * (in[2] % 16) / 16);
        break;
    case 13:
        if (up)
            net_event(net, at, &(group_event_t){.kind = GROUP_ROOM, .peer = net->nodes[in[2] % net->n].id});
        break;
    default:
        for (unsigned i = 0; i < in[2] % 32u; i++) net_step(net);
        break;
    }
}

static void several(const uint8_t *data, size_t size)
{
    static net_t net;
    packet_t kept[KEPT] = {0};
    net_knobs_t knobs = {.nodes = 3 + data[0] % 3,
                         .refuse = data[0] & 4 ? 80 : 0,
                         .loss = data[0] & 8 ? 60 : 0,
                         .fifo = data[0] & 16,
                         .plan = (group_plan_t)(data[1] % 3),
                         .resend_ns = 1000};
    net_init(&net, data[1], &knobs);
    for (unsigned k = 0; k < NET_GROUPS; k++) {
        net_form(&net, k % net.n, k, 2 + (data[0] >> 5 & 1) + k % 2);
        if (data[0] & 64) net_quiet(&net, QUIET_MAX);
    }
    for (data += 2, size -= 2; size >= 3 && !net.violation; data += 3, size -= 3) act(&net, data, kept);
    /* Faults stop. */
    for (unsigned i = 0; i < net.n; i++) {
        if (net.nodes[i].state != NODE_UP) net_leave_view(&net, i);
    }
    for (unsigned i = 0; i < net.n; i++) {
        if (net.nodes[i].left) net_fence(&net, i);
    }
    net.loss = 0;
    if (!net.violation) net_quiet(&net, QUIET_MAX);
    if (!net.violation) net_check_end(&net);
    if (net.violation) {
        fprintf(stderr, "%s\n", net.violation);
        abort();
    }
    for (unsigned i = 0; i < KEPT; i++) free(kept[i].bytes);
    net_free(&net);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3) return 0;
    if (data[0] & 128)
        several(data, size);
    else
        one(data, size);
    return 0;
}
