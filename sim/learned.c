/* With a model: how long it takes until what one member has applied is applied by all, which is what a plan is for. */
#include "sim.h"

void sim_learned_applied(sim_world_t *w, uint64_t index)
{
    sim_learned_t *l = &w->learned[index % SIM_LEARNED_MAX];
    if (l->index > index) return; /* so late that it is counted no more */
    if (l->index < index) *l = (sim_learned_t){.index = index, .first_ns = w->now_ns};
    if (++l->n == w->n_cores) rf_histogram_add(&w->statistics->learned, w->now_ns - l->first_ns);
}
