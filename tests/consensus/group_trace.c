/*
 * A random run of a group of three and an outsider that may join it, printed as steps of the model of group operations
 * (consensus/model/group.pml, TRACE): what its members hold, step by step. Operations of both kinds are asked for by anybody, domains
 * refuse some, messages are lost, doubled and overtaken, and up to two members die or stall, are expelled and fenced.
 * `test_group_trace SEED`; the format: consensus/model/trace.sh.
 */
#include "group_net.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMBERS    3
#define OUTSIDER   MEMBERS
#define NODES      (MEMBERS + 1)
#define NUMBERS    8 /* the model counts in bytes, and must not have many */
#define DEATHS_MAX 2

/* As in the model. */
typedef enum model_stage { NONE, HEARD, PREPARED, REFUSED, ABORTED, COMMITTED, DONE } model_stage_t;
typedef enum model_told { NOTHING, PREPARE, COMMIT, STABLE, ABORT, ONE } model_told_t;

static struct {
    bool on;
    uint64_t epoch[NODES], list[NODES];    /* cores; as printed last */
    unsigned model_epoch[NODES], n_epochs; /* an epoch with the members of the last is none to the model */
    bool departed[NODES];                  /* one of its list has, as it knows */
    uint8_t stage[NODES][NUMBERS + 1], told[NODES][NUMBERS + 1];
    bool answered[NET_OPS];
    unsigned numbers; /* given in this run */
} seen;

static uint64_t list_of(const group_t *g)
{
    uint64_t list = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (g->members & BIT(i)) list |= BIT(g->entries[i].member.core);
    }
    return list;
}

static model_told_t told_of(const op_t *op)
{
    bool two = op->phase == GROUP_TWO_PHASE;
    if (op->stage == STAGE_PREPARE) return PREPARE;
    if (two && op->err != RF_OK) return ABORT;
    return !two ? ONE : op->stage == STAGE_STABLE ? STABLE : COMMIT;
}

static model_stage_t stage_of(const op_t *op)
{
    if (op->stage == STAGE_PREPARE)
        return op->acted == ACTED_PREPARED ? PREPARED : op->acted == ACTED_REFUSED ? REFUSED : HEARD;
    if (op->phase == GROUP_TWO_PHASE && op->err != RF_OK) return ABORTED;
    if (op->acted == ACTED_APPLYING || op->acted == ACTED_PASSED) return DONE;
    return op->phase == GROUP_TWO_PHASE ? COMMITTED : HEARD;
}

/* Whether a survivor has an epoch with the outsider, which then is what is decided on. */
static bool taken_in(const net_t *net, unsigned at)
{
    bool some = false;
    if (has_left(net->nodes[at].groups, net->nodes[OUTSIDER].id)) return false;
    for (unsigned i = 0; i < NODES; i++) some |= !net->nodes[i].left && (seen.list[i] & BIT(OUTSIDER));
    return some;
}

static void print_epoch(const net_t *net, unsigned at, const group_t *g)
{
    uint64_t list = list_of(g);
    bool outsider = list & BIT(OUTSIDER), in = taken_in(net, at);
    unsigned owner = g->entries[0].member.core;
    if (owner == at && (seen.departed[at] || outsider != in)) {
        if (seen.departed[at]) printf("decide %u\n", at);
        if (outsider != in) printf("%s %u\n", outsider ? "takein" : "dropped", at);
        seen.model_epoch[at] = ++seen.n_epochs;
    }
    if (seen.model_epoch[at] != seen.model_epoch[owner]) printf("install %u %u\n", at, owner);
    seen.model_epoch[at] = seen.model_epoch[owner];
    seen.epoch[at] = g->epoch;
    seen.list[at] = list;
    seen.departed[at] = false;
}

/* The highest number that a survivor knows. */
static unsigned known_of(const net_t *net)
{
    unsigned known = 0;
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned n = known + 1; n <= NUMBERS && !net->nodes[i].left; n++) {
            if (seen.stage[i][n] != NONE) known = n;
        }
    }
    return known;
}

/* The step that brings an epoch brings its decisions; a number that only the departed knew is free again. */
static void begin_epoch(const net_t *net, unsigned at, const group_t *g, unsigned known)
{
    for (unsigned n = 1; n <= NUMBERS; n++) {
        const op_t *op = op_find(net->nodes[at].groups, g, n);
        if (op && is_owner(g)) seen.told[at][n] = n <= known ? (uint8_t)told_of(op) : NOTHING;
        if (n > known || seen.stage[at][n] == HEARD) seen.stage[at][n] = NONE;
    }
}

static void print_stage(unsigned at, unsigned n, model_stage_t stage)
{
    if (seen.stage[at][n] == stage) return;
    seen.stage[at][n] = (uint8_t)stage;
    printf("stage %u %u %u\n", at, n, (unsigned)stage);
}

static void print_stage_before(unsigned at, unsigned n, model_stage_t stage)
{
    if (seen.stage[at][n] < stage) print_stage(at, n, stage);
}

/* What its owner has told of it, and what it has itself done, one after the other. */
static void print_operation(unsigned at, const group_t *g, const op_t *op)
{
    unsigned n = (unsigned)op->number;
    model_stage_t stage = stage_of(op);
    if (is_owner(g)) {
        model_told_t told = told_of(op), before = (model_told_t)seen.told[at][n];
        if (before == NOTHING) {
            printf("number %u %u %u\n", at, n, op->phase == GROUP_TWO_PHASE);
            before = op->phase == GROUP_TWO_PHASE ? PREPARE : ONE;
            if (n > seen.numbers) seen.numbers = n;
        }
        if (before == PREPARE && (told == COMMIT || told == STABLE)) {
            print_stage_before(at, n, PREPARED);
            printf("told %u %u %u\n", at, n, (unsigned)COMMIT);
            before = COMMIT;
        }
        if (before == PREPARE && told == ABORT) {
            if (op->refused != 0) print_stage_before(at, n, REFUSED);
            printf("told %u %u %u\n", at, n, (unsigned)ABORT);
        }
        if (before == COMMIT && told == STABLE) {
            print_stage_before(at, n, COMMITTED);
            printf("told %u %u %u\n", at, n, (unsigned)STABLE);
        }
        seen.told[at][n] = (uint8_t)told;
    }
    print_stage(at, n, stage);
}

static void watch_answers(const net_t *net)
{
    for (unsigned i = 0; i < net->n_ops; i++) {
        if (!net->ops[i].ok || seen.answered[i]) continue;
        seen.answered[i] = true;
        printf("answered %llu\n", (unsigned long long)net->ops[i].number);
    }
}

static void watch(net_t *net, unsigned at, const group_event_t *event)
{
    if (!seen.on) return;
    if (event->kind == GROUP_VIEW) {
        printf("learn %u\n", at);
        seen.departed[at] |= (seen.list[at] & BIT(event->view.left[0].core)) != 0;
    }
    const groups_t *groups = net->nodes[at].groups;
    const group_t *g = group_find(groups, net_group(0));
    if (g && !g->wedged) {
        if (g->epoch != seen.epoch[at]) {
            unsigned known = known_of(net);
            print_epoch(net, at, g);
            begin_epoch(net, at, g, known);
        }
        for (unsigned n = 1; n <= NUMBERS; n++) {
            const op_t *op = op_find(groups, g, n);
            if (op) print_operation(at, g, op);
        }
    }
    watch_answers(net);
}

static void die(net_t *net, unsigned at, rf_prng_t *prng)
{
    if (rf_prng_below(prng, 2))
        net_die(net, at);
    else
        net->nodes[at].state = NODE_STALLED; /* and may come back, expelled, before it is fenced */
}

static void expel(net_t *net, unsigned at)
{
    if (net->nodes[at].left) return;
    net_leave_view(net, at);
    printf("depart %u\n", at);
}

static void fence(net_t *net, unsigned at)
{
    if (net->nodes[at].fenced) return;
    net_fence(net, at);
    printf("fence %u\n", at);
}

/* Something of what callers, domains and the machine do. */
static void disturb(net_t *net, rf_prng_t *prng, unsigned *deaths)
{
    unsigned at = (unsigned)rf_prng_below(prng, NODES);
    node_t *node = &net->nodes[at];
    bool up = node->state == NODE_UP;
    switch (rf_prng_below(prng, 60)) {
    case 0:
    case 1:
        if (up && net->n_ops < NUMBERS - 3)
            net_operate(net, at, rf_prng_below(prng, 2) ? GROUP_ONE_PHASE : GROUP_TWO_PHASE, 1);
        break;
    case 2:
        if (net->nodes[OUTSIDER].state == NODE_UP && rf_prng_below(prng, 3) == 0)
            net_change(net, OUTSIDER, GROUP_JOIN, 0, (unsigned)rf_prng_below(prng, MEMBERS), 1);
        break;
    case 3:
        if (!up || *deaths == DEATHS_MAX || rf_prng_below(prng, 3)) break;
        (*deaths)++;
        die(net, at, prng);
        break;
    case 4:
    case 5:
        if (!up) expel(net, at);
        break;
    case 6:
        if (node->state == NODE_STALLED && !node->fenced) node->state = NODE_UP;
        break;
    case 7:
        if (node->left) fence(net, at);
        break;
    default:
        break;
    }
}

int main(int argc, char **argv)
{
    static net_t net;
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rf_prng_t prng;
    unsigned deaths = 0;
    rf_prng_seed(&prng, seed ^ 0x7ace);
    net_knobs_t knobs = {.nodes = NODES,
                         .refuse = (unsigned)rf_prng_below(&prng, 3) * 80,
                         .plan = (group_plan_t)rf_prng_below(&prng, 3),
                         .fifo = rf_prng_below(&prng, 4) == 0,
                         .resend_ns = 1000};
    net_init(&net, seed, &knobs);
    printf("# seed %llu\n", (unsigned long long)seed);
    net_form(&net, 0, 0, MEMBERS);
    net_quiet(&net, 20000);
    for (unsigned i = 0; i < MEMBERS; i++) {
        seen.epoch[i] = group_find(net.nodes[i].groups, net_group(0))->epoch;
        seen.list[i] = BITS(MEMBERS);
    }
    net.loss = (unsigned)rf_prng_below(&prng, 3) * 60;
    net.dup = (unsigned)rf_prng_below(&prng, 3) * 60;
    net.watch = watch;
    seen.on = true;
    for (unsigned step = 0; step < 800 && !net.violation; step++) {
        net_step(&net);
        disturb(&net, &prng, &deaths);
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (net.nodes[i].state != NODE_UP) expel(&net, i);
    }
    for (unsigned i = 0; i < NODES; i++) {
        if (net.nodes[i].left) fence(&net, i);
    }
    net.loss = net.dup = 0;
    net_quiet(&net, 60000);
    net_check_end(&net);
    if (net.violation) fprintf(stderr, "seed %llu: %s\n", (unsigned long long)seed, net.violation);
    net_free(&net);
    return net.violation != NULL;
}
