/*
 * One life of a core's monitor: an inbox, a clock, and an actor that handles events and carries out, effect by effect, what
 * it then has to do. After any effect the process may stall or die (the knobs effect_stall, stall, crash): what was not
 * carried out then is late, or never happens. While it is busy or stalled, what comes waits in the inbox, and `now` is read
 * when it is taken out.
 */
#include "sim.h"

/* ---- clocks ---- */

uint64_t sim_clock_local(const sim_world_t *w, unsigned host)
{
    const sim_clock_t *c = &w->clocks[host];
    if (c->stopped) return c->base_local_ns;
    int64_t passed = (int64_t)(w->now_ns - c->base_ns);
    return c->base_local_ns + (uint64_t)(passed + passed * c->rate_ppm / (int64_t)SIM_PPM);
}

/* When the host's clock shows `local_ns`; always later than now. */
static uint64_t when_local(const sim_world_t *w, unsigned host, uint64_t local_ns)
{
    const sim_clock_t *c = &w->clocks[host];
    uint64_t shown = sim_clock_local(w, host);
    if (local_ns == RF_NEVER || (c->stopped && local_ns > shown)) return RF_NEVER;
    if (local_ns <= shown) return w->now_ns + 1;
    uint64_t wait = local_ns - shown;
    if (wait > 1000 * RF_NS_PER_S) return RF_NEVER;
    return w->now_ns + wait * SIM_PPM / (uint64_t)((int64_t)SIM_PPM + c->rate_ppm) + 1;
}

void sim_process_arm_tick(sim_world_t *w, sim_process_t *p)
{
    uint64_t at_ns = when_local(w, w->host[p->core], p->tick_local_ns);
    if (at_ns >= p->tick_pushed_ns) return;
    p->tick_pushed_ns = at_ns;
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_TICK);
    event->core = p->core;
    event->life = p->life;
    event->x = at_ns;
}

void sim_clock_set(sim_world_t *w, unsigned host, int64_t rate_ppm, bool stopped)
{
    sim_clock_t *c = &w->clocks[host];
    c->base_local_ns = sim_clock_local(w, host);
    c->base_ns = w->now_ns;
    c->rate_ppm = rate_ppm;
    c->stopped = stopped;
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        if (!w->processes[i].alive) continue;
        w->processes[i].tick_pushed_ns = RF_NEVER;
        sim_process_arm_tick(w, &w->processes[i]);
    }
}

/* ---- standing still ---- */

static void push_resume(sim_world_t *w, sim_process_t *p)
{
    if (p->resume_pushed) return;
    p->resume_pushed = true;
    sim_event_t *event = sim_push(w, p->busy_until_ns, SIM_EVENT_RESUME);
    event->core = p->core;
    event->life = p->life;
}

void sim_process_stall(sim_world_t *w, rf_core_t core, uint64_t duration_ns)
{
    sim_process_t *p = &w->processes[core];
    if (p->busy_until_ns < w->now_ns + duration_ns) p->busy_until_ns = w->now_ns + duration_ns;
    if (p->quiet_since_ns == RF_NEVER) p->quiet_since_ns = w->now_ns;
    push_resume(w, p);
}

/* After an effect: whether the process stands still before the next. */
bool sim_process_stalls_here(sim_world_t *w, sim_process_t *p)
{
    if (!w->faults_on || !sim_chance(&w->faults, w->knobs.effect_stall)) return false;
    uint64_t mean_ns = rf_prng_below(&w->faults, 4) ? 300 * RF_NS_PER_US : w->params.election_ns;
    sim_process_stall(w, p->core, sim_exponential(&w->faults, mean_ns));
    return true;
}

static uint64_t send_cost(sim_world_t *w, const sim_process_t *p, rf_core_t to)
{
    const sim_model_t *m = w->options->model;
    return m ? sim_distribution_draw(&m->send[sim_model_edge(m, p->core, to)], &w->network) : 0;
}

bool sim_process_send(sim_world_t *w, sim_process_t *p, uint8_t type, const void *bytes, size_t size,
                      const agreement_member_t *to, unsigned n_to)
{
    if (!p->sending) p->sending = sim_message_new(w, type, bytes, size);
    while (p->next_to < n_to) {
        agreement_member_t receiver = to[p->next_to++];
        p->cost_ns += send_cost(w, p, receiver.core);
        sim_network_send(w, p, receiver, p->sending, w->now_ns + p->cost_ns);
        if (sim_process_stalls_here(w, p)) return false;
    }
    sim_message_release(w, p->sending);
    p->sending = NULL;
    p->next_to = 0;
    return true;
}

bool sim_process_ticks(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    if (event->x == p->tick_pushed_ns) p->tick_pushed_ns = RF_NEVER;
    if (sim_clock_local(w, w->host[p->core]) >= p->tick_local_ns) return true;
    sim_process_arm_tick(w, p);
    return false;
}

/* ---- life and death ---- */

void sim_process_start(sim_world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    sim_process_t *p = &w->processes[core];
    rf_assert(!p->alive);
    p->life++;
    p->incarnation = incarnation;
    p->alive = true;
    p->carrying = p->ending = p->joining = p->resume_pushed = false;
    p->busy_until_ns = p->slow_until_ns = 0;
    p->inbox_first = p->inbox_last = SIM_NONE;
    p->sending = NULL;
    p->tick_local_ns = p->tick_pushed_ns = p->quiet_since_ns = RF_NEVER;
    p->started_ns = w->now_ns;
    p->own_sequence = p->same_tick = p->cost_ns = 0;
    p->applied_max = p->committed_max = p->term_max = 0;
    p->stale_ns = p->last_now_ns = 0;
    w->actor->start(w, p);
}

void sim_process_kill(sim_world_t *w, rf_core_t core)
{
    sim_process_t *p = &w->processes[core];
    rf_assert(p->alive);
    if (w->steps_log)
        steps_log_ended(w->steps_log, (agreement_member_t){.core = core, .incarnation = p->incarnation});
    p->alive = p->carrying = false;
    p->life++;
    if (p->quiet_since_ns == RF_NEVER) p->quiet_since_ns = w->now_ns;
    w->actor->stop(w, p);
    if (p->sending) sim_message_release(w, p->sending);
    p->sending = NULL;
    while (p->inbox_first != SIM_NONE) {
        uint32_t number = p->inbox_first;
        p->inbox_first = w->queue.events[number].next;
        sim_event_free(w, number);
    }
    p->inbox_last = SIM_NONE;
}

uint64_t sim_process_sequence(sim_process_t *p, sim_wait_kind_t kind, uint32_t who, uint32_t stamp)
{
    uint64_t sequence = ++p->own_sequence;
    p->waiters[sequence % AGREEMENT_WINDOW] = (sim_waiter_t){sequence, who, stamp, (uint8_t)kind};
    return sequence;
}

bool sim_process_stalled(const sim_world_t *w, const sim_process_t *p)
{
    return p->alive && p->busy_until_ns > w->now_ns + RF_NS_PER_MS;
}

/* ---- events ---- */

static void resume(sim_world_t *w, sim_process_t *p)
{
    p->resume_pushed = false;
    if (w->now_ns < p->busy_until_ns) {
        push_resume(w, p);
        return;
    }
    p->quiet_since_ns = RF_NEVER;
    /* The defect is the caller's: `now` is read before it waits for an event, not when it takes one out of its queue. */
    if (w->params.defects & AGREEMENT_DEFECT_STALE_NOW) p->stale_ns = p->last_now_ns;
    if (p->carrying) w->actor->carry_on(w, p);
    while (p->alive && !p->carrying && w->now_ns >= p->busy_until_ns && p->inbox_first != SIM_NONE &&
           w->verdict == SIM_OK) {
        uint32_t number = p->inbox_first;
        sim_event_t event = w->queue.events[number];
        p->inbox_first = event.next;
        if (p->inbox_first == SIM_NONE) p->inbox_last = SIM_NONE;
        w->actor->handle(w, p, &event);
        sim_event_free(w, number);
    }
    p->stale_ns = 0;
    if (p->alive && (p->carrying || p->inbox_first != SIM_NONE)) push_resume(w, p);
}

void sim_process_event(sim_world_t *w, uint32_t number)
{
    sim_event_t event = w->queue.events[number];
    sim_process_t *p = &w->processes[event.core];
    if (!p->alive || event.life != p->life) {
        sim_event_free(w, number);
        return;
    }
    if (event.kind == SIM_EVENT_RESUME) {
        resume(w, p);
        sim_event_free(w, number);
        return;
    }
    if (p->carrying || w->now_ns < p->busy_until_ns || p->inbox_first != SIM_NONE) {
        w->queue.events[number].next = SIM_NONE;
        if (p->inbox_first == SIM_NONE)
            p->inbox_first = number;
        else
            w->queue.events[p->inbox_last].next = number;
        p->inbox_last = number;
        push_resume(w, p);
        return;
    }
    w->actor->handle(w, p, &event);
    sim_event_free(w, number);
}
