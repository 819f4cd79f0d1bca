/* RDMA devices: what becomes of requests that were posted. */
#include "sim/rdma.h"

#define TRIES_MAX 12 /* of a request that nothing answers: then its path is over */

typedef enum what { LANDS, COMPLETES, TELLS, FAILS, RISES, MAKES } what_t;

/* x: what, the path's generation, a number. */
static void later(sim_world_t *w, rf_core_t core, rf_core_t peer, what_t what, uint32_t number,
                  uint64_t at_ns)
{
    sim_rdma_t *r = w->rdma;
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_WRITE);
    event->core = core;
    event->life = w->processes[core].life;
    event->peer.core = peer;
    event->x = (uint64_t)what << 56 | (uint64_t)(r->ends[core][peer].generation & 0xffffff) << 32 | number;
    r->under_way++;
}

static bool is_cut(const sim_world_t *w, rf_core_t a, rf_core_t b)
{
    unsigned from = w->host[a], to = w->host[b];
    return from != to && (sim_network_cut(w, from, to) || sim_network_cut(w, to, from));
}

void sim_rdma_wake(sim_world_t *w, rf_core_t core, uint64_t after_ns)
{
    sim_event_t *event = sim_push(w, w->now_ns + after_ns, SIM_EVENT_ROOM);
    event->core = core;
    event->life = w->processes[core].life;
}

/* ---- posting ---- */

void sim_rdma_post(sim_world_t *w, sim_process_t *p, rf_core_t peer, sim_request_t request)
{
    sim_rdma_t *r = w->rdma;
    sim_sleeper_t *end = &r->ends[p->core][peer];
    rf_assert(end->up && end->requests - end->completed < r->depth && end->n_flights < SIM_RDMA_DEPTH_MAX);
    request.number = ++end->requests;
    request.signalled = ++end->unsignalled >= r->signal_every;
    if (request.signalled) end->unsignalled = 0;
    request.leaves_ns = w->now_ns + p->cost_ns;
    r->posts++;
    w->statistics->messages++;
    if (end->broken) return;
    end->flights[end->n_flights++] = request;
    if (end->n_flights == 1)
        later(w, p->core, peer, LANDS, 0, request.leaves_ns + sim_network_delay(w, p->core, peer));
}

/* ---- completions ---- */

static void complete(sim_world_t *w, rf_core_t core, const sim_done_t *done)
{
    sim_owner_t *o = &w->rdma->owners[core];
    if (!w->processes[core].alive) return;
    rf_assert(o->queue_n < SIM_RDMA_QUEUE_MAX);
    o->queue[(o->queue_first + o->queue_n++) % SIM_RDMA_QUEUE_MAX] = *done;
    if (!o->tells) return;
    o->tells = false;
    uint64_t mean_ns = rf_prng_below(&w->network, 16) ? 3 * RF_NS_PER_US : 200 * RF_NS_PER_US;
    later(w, core, core, TELLS, 0, w->now_ns + sim_exponential(&w->network, mean_ns));
}

bool sim_rdma_done(sim_world_t *w, rf_core_t core, sim_done_t *out)
{
    sim_owner_t *o = &w->rdma->owners[core];
    if (o->queue_n == 0) return false;
    *out = o->queue[o->queue_first];
    o->queue_first = (o->queue_first + 1) % SIM_RDMA_QUEUE_MAX;
    o->queue_n--;
    return true;
}

/* ---- landing ---- */

static void show_all(const sim_world_t *w, sim_sleeper_t *to)
{
    for (unsigned i = 0; i < SIM_RDMA_RING_MAX; i++) {
        if (to->ring[i].seen_ns > w->now_ns) to->ring[i].seen_ns = w->now_ns;
    }
    if (to->line.seen_ns > w->now_ns) to->line.seen_ns = w->now_ns;
}

static uint64_t seen_at(sim_world_t *w)
{
    uint64_t mean_ns = rf_prng_below(&w->network, 8) ? 200 : 100 * RF_NS_PER_US;
    return w->now_ns + sim_exponential(&w->network, mean_ns);
}

static void place(sim_world_t *w, rf_core_t from, rf_core_t to_core, const sim_request_t *request)
{
    sim_rdma_t *r = w->rdma;
    sim_sleeper_t *to = &r->ends[to_core][from];
    if (request->kind == SIM_REQUEST_LINE)
        to->line = (sim_cell_t){.value = request->taken, .seen_ns = seen_at(w)};
    for (uint64_t number = request->first; number < request->first + request->n; number++) {
        if (number > to->taken + r->ring)
            sim_violation(w, "ring", "core %u writes slot %llu to core %u, which has taken %llu of %u", from,
                          (unsigned long long)number, to_core, (unsigned long long)to->taken, r->ring);
        to->ring[number % r->ring] = (sim_cell_t){.value = number, .seen_ns = seen_at(w)};
    }
}

/* What completes at the receiver does: all that was placed before can be seen. */
static void arrive(sim_world_t *w, rf_core_t from, rf_core_t to_core, const sim_request_t *request)
{
    sim_sleeper_t *to = &w->rdma->ends[to_core][from];
    if (request->kind != SIM_REQUEST_WORD && !request->rings) return;
    if (!(w->options->sim_defects & SIM_DEFECT_WORD_EARLY)) show_all(w, to);
    complete(w, to_core,
             &(sim_done_t){.kind = request->rings ? SIM_DONE_RUNG : SIM_DONE_WORD,
                           .peer = (uint8_t)from,
                           .generation = to->generation,
                           .word = *request});
}

static void drop_first(sim_sleeper_t *end)
{
    memmove(&end->flights[0], &end->flights[1], --end->n_flights * sizeof end->flights[0]);
}

static void lands(sim_world_t *w, rf_core_t from, rf_core_t to)
{
    sim_sleeper_t *end = &w->rdma->ends[from][to];
    if (end->n_flights == 0) return;
    bool lost = w->faults_on && sim_chance(&w->network, w->knobs.loss / 16);
    if (is_cut(w, from, to)) {
        end->cut_ns = w->rdma->ends[to][from].cut_ns = w->now_ns;
        lost = ++end->tries > TRIES_MAX;
        if (!lost) {
            later(w, from, to, LANDS, 0, w->now_ns + sim_exponential(&w->network, 2 * RF_NS_PER_MS));
            return;
        }
    }
    if (lost) {
        sim_rdma_break(w, from, to);
        return;
    }
    end->tries = 0;
    if (!end->flights[0].placed) {
        end->flights[0].placed = true;
        place(w, from, to, &end->flights[0]);
        uint64_t mean_ns =
            rf_prng_below(&w->network, 2) ? 200 : 4 * RF_NS_PER_US; /* as long as a look at all links */
        later(w, from, to, LANDS, 0, w->now_ns + 1 + sim_exponential(&w->network, mean_ns));
        return;
    }
    sim_request_t request = end->flights[0];
    drop_first(end);
    arrive(w, from, to, &request);
    uint64_t next_ns = w->now_ns + 1 + sim_exponential(&w->network, 300);
    if (request.signalled)
        later(w, from, to, COMPLETES, request.number, w->now_ns + sim_network_delay(w, to, from));
    if (end->n_flights == 0) return;
    uint64_t leaves_ns = end->flights[0].leaves_ns;
    if (leaves_ns >= w->now_ns) next_ns = leaves_ns + sim_network_delay(w, from, to);
    later(w, from, to, LANDS, 0, next_ns);
}

/* ---- paths ---- */

void sim_rdma_break(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    for (unsigned i = 0; i < 2; i++) {
        rf_core_t core = i ? b : a, peer = i ? a : b;
        sim_sleeper_t *end = &w->rdma->ends[core][peer];
        end->n_flights = end->tries = 0;
        if (end->broken || end->generation == 0) continue;
        end->broken = true;
        if (w->processes[core].alive)
            later(w, core, peer, FAILS, 0, w->now_ns + sim_exponential(&w->network, 500 * RF_NS_PER_US));
    }
}

void sim_rdma_cut_off(sim_world_t *w, rf_core_t core)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        sim_sleeper_t *end = &w->rdma->ends[core][i];
        if (!end->exists) continue;
        for (uint64_t n = rf_prng_below(&w->network, end->n_flights + 1); n > 0; n--) {
            sim_request_t request = end->flights[0];
            if (request.leaves_ns > w->now_ns) break;
            drop_first(end);
            if (!request.placed) place(w, core, (rf_core_t)i, &request);
            arrive(w, core, (rf_core_t)i, &request);
        }
        sim_rdma_break(w, core, (rf_core_t)i);
    }
}

void sim_rdma_make(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    later(w, a, b, MAKES, 0, w->now_ns + sim_exponential(&w->network, 300 * RF_NS_PER_US));
}

/* An end begins anew, with fresh memory: slots go on from what the other has accepted. */
static void rise(sim_world_t *w, rf_core_t core, rf_core_t peer)
{
    sim_rdma_t *r = w->rdma;
    sim_sleeper_t *end = &r->ends[core][peer];
    memset(end->ring, 0, sizeof end->ring);
    end->line = (sim_cell_t){0};
    if (!(w->options->sim_defects & SIM_DEFECT_SLEEP_KEPT)) end->sleep = (rdma_sleep_t){0};
    end->posted = r->ends[peer][core].accepted;
    end->ack_asked = end->acked;
    end->say = 0;
    end->say_ack = end->taken != 0;
    end->requests = end->completed = end->unsignalled = 0;
    end->taken_said = end->taken;
    end->ack_due = RF_NEVER;
    end->n_flights = end->tries = 0;
    end->fails = end->broken = false;
    end->generation++;
    end->paths++;
    later(w, core, peer, RISES, 0, w->now_ns + sim_network_delay(w, peer, core));
}

static void begin_anew(sim_sleeper_t *end, uint64_t lives)
{
    end->lives = lives;
    end->wanted = end->posted = end->acked = end->accepted = end->taken = 0;
}

static void makes(sim_world_t *w, rf_core_t a, rf_core_t b)
{
    sim_sleeper_t *one = &w->rdma->ends[a][b], *other = &w->rdma->ends[b][a];
    if (is_cut(w, a, b)) {
        one->cut_ns = other->cut_ns = w->now_ns;
        later(w, a, b, MAKES, 0, w->now_ns + sim_exponential(&w->network, 3 * RF_NS_PER_MS));
        return;
    }
    w->rdma->makes[a][b] = false;
    if (one->up || other->up || !w->processes[a].alive || !w->processes[b].alive) return;
    uint64_t lives = (uint64_t)w->processes[a].life << 32 | w->processes[b].life;
    if (one->lives != lives) { /* another link: nothing of the one before goes on */
        begin_anew(one, lives);
        begin_anew(other, lives);
    }
    rise(w, a, b);
    rise(w, b, a);
}

void sim_rdma_device_event(sim_world_t *w, const sim_event_t *event)
{
    sim_rdma_t *r = w->rdma;
    rf_core_t core = event->core, peer = event->peer.core;
    what_t what = (what_t)(event->x >> 56);
    sim_sleeper_t *end = &r->ends[core][peer];
    r->under_way--;
    bool same_life = w->processes[core].life == event->life;
    bool same_path = same_life && (event->x >> 32 & 0xffffff) == end->generation;
    if (what != MAKES && !same_path && !(what == TELLS && same_life)) return;
    switch (what) {
    case LANDS:
        lands(w, core, peer);
        return;
    case COMPLETES:
        complete(w, core,
                 &(sim_done_t){.kind = SIM_DONE_POSTED,
                               .peer = (uint8_t)peer,
                               .generation = end->generation,
                               .number = (uint32_t)event->x});
        return;
    case TELLS:
        r->owners[core].told = true;
        break;
    case FAILS:
        end->fails = true;
        r->owners[core].rung = true;
        break;
    case RISES:
        if (end->broken) return;
        end->rises = true;
        r->owners[core].rung = true;
        break;
    case MAKES:
        makes(w, core, peer);
        return;
    }
    sim_rdma_wake(w, core, 1);
}

/* ---- reading ---- */

bool sim_rdma_seen(const sim_world_t *w, const sim_sleeper_t *end, uint64_t number)
{
    const sim_cell_t *cell = &end->ring[number % w->rdma->ring];
    return cell->value == number && cell->seen_ns <= w->now_ns;
}

uint64_t sim_rdma_line(const sim_world_t *w, const sim_sleeper_t *end)
{
    return end->line.seen_ns <= w->now_ns ? end->line.value : 0;
}
