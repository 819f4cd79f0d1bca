/* The named knobs of the simulator (knobs.c): what may go wrong, and how often. */
#ifndef RF_SIM_KNOBS_H
#define RF_SIM_KNOBS_H

#include "base/prng.h"

#include <stdio.h>

#define SIM_KNOB_TABLE(X)                                                                                    \
    /* name, unit, default, storm, what it is */                                                             \
    X(loss, PERCENT, 20000, 100000, "messages between hosts that are lost")                                  \
    X(duplicate, PERCENT, 20000, 100000, "messages that arrive twice")                                       \
    X(reorder, PERCENT, 50000, 200000, "messages that others may overtake")                                  \
    X(tail, PERCENT, 10000, 50000, "messages that take up to a hundred times as long")                       \
    X(full, PERCENT, 2000, 10000, "messages that a full link refuses; it says later that it has room")       \
    X(partition, RATE, 800, 3000, "hosts fall into two parts that do not hear each other")                   \
    X(one_way, RATE, 500, 2000, "one host is not heard by some others, but hears them")                      \
    X(flap, RATE, 300, 1500, "two hosts do not hear each other, for long or again and again")                \
    X(isolate, RATE, 100, 500, "all hosts are cut off from each other, and heal")                            \
    X(crash, RATE, 1000, 3000, "a monitor's process dies; its host knows at once")                           \
    X(host_crash, RATE, 150, 600, "all monitors of a host die, and no kernel tells of it")                   \
    X(restart, MS, 30, 15, "mean time until a dead core's monitor is started as a new incarnation")          \
    X(stall, RATE, 1500, 5000, "a process stands still, also for longer than any timeout")                   \
    X(effect_stall, PERCENT, 200, 1000, "effects after which the process stands still, before the next")     \
    X(slow, RATE, 300, 1000, "a core is slow for a while: every step takes 20 to 500 us")                    \
    X(drift, COUNT, 100000, 300000, "hosts' clocks differ in rate by up to so many parts per million")       \
    X(clock_stop, RATE, 200, 800, "a host's clock stands still for a while")                                 \
    X(burst, RATE, 100, 800, "ten faults of any kind at once")                                               \
    X(leave, RATE, 300, 1000, "a member leaves in order, and joins again later")                             \
    X(transfer, RATE, 300, 1000, "the leader is asked to hand over")                                         \
    X(false_silence, RATE, 500, 2000, "a healthy member is said to be silent")                               \
    X(fence_late, PERCENT, 300000, 600000, "fences that take long, or must be tried again")                  \
    X(form_again, RATE, 300, 1000, "somebody is told to form a machine once more")                           \
    X(garbage, PERCENT, 500, 3000, "messages that are damaged, cut short or repeated much later")            \
    X(stray, PERCENT, 50000, 300000,                                                                         \
      "messages to a process that has ended that reach the next one of its core")                            \
    X(majority_loss, PERCENT, 0, 30000, "runs in which crashes may take a majority for good")                \
    X(link_error, PERCENT, 100000, 300000,                                                                   \
      "cuts that break links: at once who is cut off from each other hears of it; of monitors all, "         \
      "some, or one side")                                                                                   \
    X(depose, PERCENT, 50000, 200000,                                                                        \
      "new leaders that are soon cut off from all hosts but a few, until others have stood")                 \
    X(late_start, MS, 20, 200,                                                                               \
      "mean time from when a monitor's next incarnation is named until it is started")                       \
    X(link_break, RATE, 600, 3000,                                                                           \
      "connections of monitors on two hosts that break while both live, or that one or both say have "       \
      "broken")

typedef struct sim_knobs {
#define SIM_KNOB_FIELD(name, unit, by_default, storm, help) uint32_t name;
    SIM_KNOB_TABLE(SIM_KNOB_FIELD)
#undef SIM_KNOB_FIELD
} sim_knobs_t;

typedef enum sim_actor_kind { SIM_OF_ENGINE, SIM_OF_GROUPS, SIM_OF_MONITOR, SIM_OF_RDMA } sim_actor_kind_t;

enum { SIM_KNOB_BY_ALL = 1, SIM_KNOB_BY_NAME }; /* how it was fixed */

typedef struct sim_knob_choice {
    sim_knobs_t values;
    sim_knobs_t fixed; /* not 0: asked for by the user; never switched off by a seed */
} sim_knob_choice_t;

/* Reads "all", "none", a preset's name, or a list "loss=2,crash,storm=0". False: not understood, `why` says what. */
bool sim_knobs_parse(const char *text, sim_knob_choice_t *out, char *why, size_t why_size);
/* Leaves out what means nothing to that actor. False: the user has named such a one, `why` says which. */
bool sim_knobs_suit(sim_knob_choice_t *choice, sim_actor_kind_t actor, char *why, size_t why_size);
/* Their names. */
const char *sim_knobs_absent(sim_actor_kind_t actor);
void sim_knobs_help(FILE *out);
/* The knobs of one seed: of those not fixed each is left out with probability 1/3, so that seeds differ in kind
 * (swarm testing, Groce et al., ISSTA 2012). */
void sim_knobs_draw(const sim_knob_choice_t *choice, rf_prng_t *prng, sim_knobs_t *out);
void sim_knobs_print(const sim_knobs_t *knobs, FILE *out);

#endif
