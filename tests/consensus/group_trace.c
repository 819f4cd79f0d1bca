/*
 * A random run of a group of three and an outsider that may join it, printed as steps of the model of group operations
 * (sim/steps.h). Operations of both kinds are asked for by anybody, domains
 * refuse some, messages are lost, doubled and overtaken, and up to two members die or stall, are expelled and fenced.
 * `test_group_trace SEED`.
 */
#include "group_net.h"

#include "sim/steps.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMBERS    STEPS_MEMBERS
#define OUTSIDER   MEMBERS
#define NODES      STEPS_CORES
#define OPS_MAX    5
#define DEATHS_MAX 2

static steps_groups_t *steps;
static bool answered[NET_OPS];

static void watch(net_t *net, unsigned at, const group_event_t *event)
{
    steps_groups_stepped(steps, at, net->nodes[at].groups,
                         event->kind == GROUP_VIEW ? event->view.left[0].core : RF_CORE_NONE);
    for (unsigned i = 0; i < net->n_ops; i++) {
        if (!net->ops[i].ok || answered[i]) continue;
        answered[i] = true;
        steps_groups_answered(steps, net->ops[i].number);
    }
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
    steps_groups_left(steps, at);
}

static void fence(net_t *net, unsigned at)
{
    if (net->nodes[at].fenced) return;
    net_fence(net, at);
    steps_groups_fenced(steps, at);
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
        if (up && net->n_ops < OPS_MAX)
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
    steps = steps_groups_new(net_group(0), stdout);
    net.watch = watch;
    net_form(&net, 0, 0, MEMBERS);
    net_quiet(&net, 20000);
    net.loss = (unsigned)rf_prng_below(&prng, 3) * 60;
    net.dup = (unsigned)rf_prng_below(&prng, 3) * 60;
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
    steps_groups_free(steps);
    net_free(&net);
    return net.violation != NULL;
}
