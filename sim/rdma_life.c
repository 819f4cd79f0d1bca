/* What processes joined by RDMA are given to do, and what befalls them: work in bursts, deaths, paths made anew, rest. */
#include "sim/rdma.h"

#include <stdlib.h>

#define IDLE_NS (300 * RF_NS_PER_MS) /* at rest so long, nothing may have been said */

/* ---- set up ---- */

void sim_rdma_set_up(sim_world_t *w)
{
    rf_prng_t *prng = &w->choices;
    sim_rdma_t *r = calloc(1, sizeof *r);
    rf_assert(r);
    w->rdma = r;
    w->actor = &sim_actor_rdma;
    r->looks = rf_prng_below(prng, 2);
    r->ring = (uint32_t)sim_between(prng, 2, SIM_RDMA_RING_MAX);
    r->depth = (uint32_t)sim_between(prng, 2, SIM_RDMA_DEPTH_MAX);
    r->signal_every = (uint32_t)sim_between(prng, 1, r->depth / 2);
    r->rest_ns = RF_NEVER;
    for (unsigned a = 0; a < w->n_cores; a++) {
        for (unsigned b = a + 1; b < w->n_cores; b++) {
            bool neighbour = b == a + 1, iwarp = rf_prng_below(prng, 3) == 0;
            if (!neighbour && rf_prng_below(prng, 4)) continue;
            r->ends[a][b].exists = r->ends[b][a].exists = true;
            r->ends[a][b].iwarp = r->ends[b][a].iwarp = iwarp;
        }
    }
}

void sim_rdma_begin(sim_world_t *w)
{
    for (unsigned a = 0; a < w->n_cores; a++) {
        for (unsigned b = a + 1; b < w->n_cores; b++) sim_rdma_fell(w, (rf_core_t)a, (rf_core_t)b);
    }
}

void sim_rdma_free(sim_world_t *w)
{
    free(w->rdma);
}

/* ---- work ---- */

static void arm(sim_world_t *w, unsigned number, uint64_t delay_ns)
{
    sim_push(w, w->now_ns + delay_ns + 1, SIM_EVENT_CLIENT)->x = number;
}

void sim_rdma_client_start(sim_world_t *w, unsigned number)
{
    arm(w, number, sim_exponential(&w->work, w->think_ns));
}

/* Slots for one of the links of one of the cores: the process is told by its doorbell. */
void sim_rdma_client_timer(sim_world_t *w, const sim_event_t *event)
{
    sim_rdma_t *r = w->rdma;
    if (w->operations_left == 0) return;
    w->operations_left--;
    rf_core_t core = (rf_core_t)rf_prng_below(&w->work, w->n_cores),
              peer = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    sim_sleeper_t *end = &r->ends[core][peer];
    if (w->processes[core].alive && end->exists) {
        bool burst = rf_prng_below(&w->work, 8) == 0;
        end->asked_for += 1 + rf_prng_below(&w->work, burst ? 3 * r->ring : 3);
        r->owners[core].rung = true;
        sim_rdma_wake(w, core, 1);
        w->statistics->operations++;
    }
    bool soon = rf_prng_below(&w->work, 2);
    arm(w, (unsigned)event->x, sim_exponential(&w->work, soon ? 30 * RF_NS_PER_US : 2 * w->think_ns));
}

/* ---- deaths ---- */

void sim_rdma_fell(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    rf_core_t low = a < b ? a : b, high = a < b ? b : a;
    sim_rdma_t *r = w->rdma;
    if (!r->ends[a][b].exists || r->ends[a][b].up || r->ends[b][a].up || r->makes[low][high]) return;
    if (!w->processes[a].alive || !w->processes[b].alive) return;
    r->makes[low][high] = true;
    sim_rdma_make(w, low, high);
}

void sim_rdma_died(sim_world_t *w, rf_core_t core)
{
    sim_rdma_t *r = w->rdma;
    sim_rdma_cut_off(w, core);
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_sleeper_t before = r->ends[core][i];
        r->ends[core][i] = (sim_sleeper_t){.exists = before.exists,
                                           .iwarp = before.iwarp,
                                           .broken = true,
                                           .generation = before.generation,
                                           .sleeps = before.sleeps,
                                           .grants = before.grants,
                                           .rung = before.rung,
                                           .paths = before.paths};
    }
    uint64_t mean_ms = w->phase == SIM_PHASE_SETTLE ? 1 : w->knobs.restart;
    w->processes[core].join_due_ns = w->now_ns + sim_exponential(&w->choices, (mean_ms + 1) * RF_NS_PER_MS);
}

void sim_rdma_look(sim_world_t *w, unsigned host)
{
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        sim_process_t *p = &w->processes[i];
        if (p->alive || w->now_ns < p->join_due_ns) continue;
        sim_process_start(w, p->core, p->incarnation + 1);
        w->statistics->restarts++;
        for (unsigned k = 0; k < w->n_cores; k++) sim_rdma_fell(w, p->core, (rf_core_t)k);
    }
    sim_push(w, w->now_ns + sim_between(&w->choices, 1, 5) * RF_NS_PER_MS, SIM_EVENT_HOST)->x = host;
}

/* ---- rest ---- */

static uint64_t wakes(const sim_world_t *w)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < w->n_cores; i++) n += w->rdma->owners[i].wakes;
    return n;
}

static bool end_rests(const sim_world_t *w, unsigned a, unsigned b, char *why, size_t why_size)
{
    const sim_sleeper_t *end = &w->rdma->ends[a][b], *other = &w->rdma->ends[b][a];
    const char *what = NULL;
    if (!end->exists) return true;
    if (!end->up)
        what = "is not up";
    else if (end->posted < end->wanted || end->asked_for > 0)
        what = "has slots to post";
    else if (end->taken < other->posted)
        what = "has slots to take";
    else if (end->sleep.state != RDMA_GRANTED)
        what = "has not been granted";
    else if (end->n_flights > 0)
        what = "has requests under way";
    if (what) snprintf(why, why_size, "the end of core %u towards core %u %s", a, b, what);
    return !what;
}

static bool all_rest(const sim_world_t *w, char *why, size_t why_size)
{
    for (unsigned a = 0; a < w->n_cores; a++) {
        const sim_process_t *p = &w->processes[a];
        if (!p->alive || !w->rdma->owners[a].asleep || p->busy_until_ns > w->now_ns ||
            p->tick_pushed_ns != RF_NEVER) {
            snprintf(why, why_size, "core %u %s", a,
                     !p->alive                       ? "is dead"
                     : p->tick_pushed_ns != RF_NEVER ? "waits for a timer"
                                                     : "does not sleep");
            return false;
        }
        for (unsigned b = 0; b < w->n_cores; b++) {
            if (!end_rests(w, a, b, why, why_size)) return false;
        }
    }
    if (w->rdma->under_way > 0) snprintf(why, why_size, "devices have something under way");
    return w->rdma->under_way == 0;
}

bool sim_rdma_at_rest(sim_world_t *w, char *why, size_t why_size)
{
    sim_rdma_t *r = w->rdma;
    if (r->rest_ns == RF_NEVER) {
        if (!all_rest(w, why, why_size)) return false;
        r->rest_ns = w->now_ns;
        r->rest_posts = r->posts;
        r->rest_wakes = wakes(w);
    }
    if (r->posts != r->rest_posts || wakes(w) != r->rest_wakes)
        sim_violation(w, "wake",
                      "everybody slept at %.3f ms, and nobody had anything to do; since then there were %llu "
                      "requests and %llu wake-ups",
                      (double)r->rest_ns / 1e6, (unsigned long long)(r->posts - r->rest_posts),
                      (unsigned long long)(wakes(w) - r->rest_wakes));
    snprintf(why, why_size, "at rest, for not long enough");
    return w->now_ns >= r->rest_ns + IDLE_NS;
}

void sim_rdma_print(const sim_world_t *w, const sim_process_t *p, FILE *out)
{
    static const char *const states[] = {"awake", "asked", "granted"};
    const sim_owner_t *o = &w->rdma->owners[p->core];
    fprintf(out, "%s, step %d, %u completions%s%s%s:", o->asleep ? "asleep" : "runs", (int)o->step,
            o->queue_n, p->busy_until_ns > w->now_ns ? ", stalled" : "", o->notify ? ", notify" : "",
            o->tells ? ", tells" : "");
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_sleeper_t *e = &w->rdma->ends[p->core][i];
        if (!e->exists) continue;
        fprintf(out, " [%u%s: %s%s, out %llu/%llu/%llu, in %llu/%llu%s, say %x]", i, e->up ? "" : ", down",
                states[e->sleep.state], e->sleep.peer_sleeps ? ", peer sleeps" : "",
                (unsigned long long)e->acked, (unsigned long long)e->posted, (unsigned long long)e->wanted,
                (unsigned long long)e->taken, (unsigned long long)e->accepted,
                sim_rdma_seen(w, e, e->accepted + 1) ? " and more" : "", e->say);
    }
    fputc('\n', out);
}
