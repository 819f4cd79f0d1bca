/*
 * The actor of agreement: the engine, its replica, and a cursor into what the last step said. Effects are each message to
 * each receiver, then each answer.
 */
#include "sim.h"

#include <stdlib.h>

/* ---- the state machine's callbacks ---- */

static rf_err_t machine_apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    sim_process_t *p = context;
    sim_world_t *w = p->world;
    *value = 0;
    if (entry->kind == AGREEMENT_ENTRY_COMMAND && !entry->duplicate) {
        sim_command_t command = {0};
        if (entry->size >= sizeof command) memcpy(&command, entry->bytes, sizeof command);
        *value = sim_replica_apply(p->replica, &command);
        if (w->options->model) sim_learned_applied(w, entry->index);
    }
    check_log_applied(w, p, entry);
    check_machine_applied(w, p, entry);
    check_fence_applied(w, p, entry);
    check_once_applied(w, p, entry, *value);
    if (entry->kind == AGREEMENT_ENTRY_VIEW) {
        for (unsigned i = 0; i < entry->n_changes; i++) {
            if (!entry->changes[i].joined) sim_host_departed(w, entry->changes[i].member);
        }
    }
    return RF_OK;
}

static size_t machine_save(void *context, void *bytes, size_t max)
{
    sim_process_t *p = context;
    rf_assert(max >= sizeof *p->replica);
    memcpy(bytes, p->replica, sizeof *p->replica);
    return sizeof *p->replica;
}

static rf_err_t machine_load(void *context, uint64_t index, const void *bytes, size_t size)
{
    sim_process_t *p = context;
    if (size != sizeof *p->replica) return RF_ERR_PROTOCOL;
    memcpy(p->replica, bytes, size);
    check_log_loaded(p->world, p, index);
    return RF_OK;
}

static agreement_params_t parameters(const sim_world_t *w, sim_process_t *p)
{
    agreement_params_t params = w->params;
    params.self = (agreement_member_t){.core = p->core, .incarnation = p->incarnation ? p->incarnation : 1};
    params.seed = sim_mix(w->seed, (uint64_t)p->core << 32 | p->incarnation);
    params.state_machine = (agreement_machine_t){p, machine_apply, machine_save, machine_load};
    return params;
}

size_t sim_engine_size(sim_world_t *w)
{
    agreement_params_t params = parameters(w, &w->processes[0]);
    return (agreement_size(&params) + 63) & ~(size_t)63;
}

static void start(sim_world_t *w, sim_process_t *p)
{
    agreement_params_t params = parameters(w, p);
    if (!p->memory) {
        p->memory = aligned_alloc(64, w->engine_size);
        p->replica = malloc(sizeof *p->replica);
        p->waiters = malloc(AGREEMENT_WINDOW * sizeof *p->waiters);
        rf_assert(p->memory && p->replica && p->waiters);
    }
    if (w->n_cores <= 64) memset(p->memory, 0xa5, w->engine_size); /* init must not lean on zeroed memory */
    rf_err_t err = agreement_init(p->memory, w->engine_size, &params, &p->engine);
    rf_assert(err == RF_OK);
    memset(p->replica, 0, sizeof *p->replica);
    memset(p->waiters, 0, AGREEMENT_WINDOW * sizeof *p->waiters);
    if (w->lanes) sim_lanes_started(w, p);
}

static void stop(sim_world_t *w, sim_process_t *p)
{
    if (w->lanes) sim_lanes_died(w, p);
}

/* ---- stepping, and carrying out ---- */

static void complete(sim_world_t *w, sim_process_t *p, const agreement_completion_t *c)
{
    if (c->kind == AGREEMENT_COMPLETED_PROPOSAL && c->session == agreement_own_session(p->engine)) {
        sim_waiter_t *slot = &p->waiters[c->sequence % AGREEMENT_WINDOW], waiter = *slot;
        check_once_changed(w, c->session, c->sequence, c->err);
        if (waiter.sequence != c->sequence || waiter.kind == SIM_WAIT_NONE) return;
        slot->kind = SIM_WAIT_NONE;
        if (waiter.kind == SIM_WAIT_CLIENT)
            sim_client_own_completed(w, p, &waiter, c->err, c->value);
        else
            sim_host_changed(w, p, &waiter, c->err, c->value);
        return;
    }
    sim_client_completed(w, p, c);
}

/* Each write, then the order, is an effect. False: it has stalled on the way. */
static bool carry_out_lane(sim_world_t *w, sim_process_t *p)
{
    const agreement_lane_output_t *lane = p->output->lane;
    if (!lane) return true;
    while (p->next_write < lane->n_writes) {
        sim_lanes_write(w, p, &lane->writes[p->next_write++]);
        if (sim_process_stalls_here(w, p)) return false;
    }
    if (lane->order == AGREEMENT_LANE_KEEP || p->next_write > lane->n_writes) return true;
    p->next_write++; /* given */
    sim_lanes_order(w, p, lane);
    return !sim_process_stalls_here(w, p);
}

/* False: it has stalled on the way, and goes on from there. */
static bool carry_out(sim_world_t *w, sim_process_t *p)
{
    const agreement_output_t *out = p->output;
    for (; p->next_message < out->n_messages; p->next_message++) {
        const agreement_message_t *m = &out->messages[p->next_message];
        if (!sim_process_send(w, p, m->type, m->bytes, m->size, m->to, m->n_to)) return false;
    }
    if (!carry_out_lane(w, p)) return false;
    while (p->next_completion < out->n_completions) {
        complete(w, p, &out->completions[p->next_completion++]);
        if (sim_process_stalls_here(w, p)) return false;
    }
    if (out->expelled) p->ending = true;
    p->carrying = false;
    return true;
}

static void step_once(sim_world_t *w, sim_process_t *p, agreement_event_t *event)
{
    event->now_ns = sim_clock_local(w, w->host[p->core]);
    if (p->stale_ns) event->now_ns = p->stale_ns;
    p->last_now_ns = event->now_ns;
    const agreement_output_t *out = agreement_step(p->engine, event);
    if (w->steps_log) {
        agreement_state_t state;
        agreement_member_t self = {.core = p->core, .incarnation = p->incarnation};
        agreement_query(p->engine, &state);
        steps_log_stepped(w->steps_log, self, &state, out);
    }
    if (out->role_changed || out->view_changed || (w->n_events & 255) == 0) check_leader(w, p);
    if (w->options->model) p->cost_ns += sim_distribution_draw(&w->options->model->step, &w->choices);
    if (p->slow_until_ns > w->now_ns) p->cost_ns += sim_between(&w->faults, 20, 500) * RF_NS_PER_US;
    if (out->next_tick_ns <= event->now_ns) {
        if (++p->same_tick > 100000) sim_stuck(w, "core %u asks for the time again and again", p->core);
    } else {
        p->same_tick = 0;
    }
    p->output = out;
    p->next_message = p->next_to = p->next_completion = p->next_write = 0;
    p->carrying = true;
}

/* What is left of the last output, and of what it says that there is more of. */
static void carry_on(sim_world_t *w, sim_process_t *p)
{
    while (p->alive && w->verdict == SIM_OK) {
        if (p->carrying && !carry_out(w, p)) return;
        if (p->ending) {
            w->statistics->expulsions++;
            sim_process_kill(w, p->core);
            sim_host_died(w, p->core, true);
            return;
        }
        if (!p->output->more) break;
        agreement_event_t tick = {.kind = AGREEMENT_TICK};
        step_once(w, p, &tick);
    }
    if (!p->alive) return;
    p->tick_local_ns = p->output->next_tick_ns;
    sim_process_arm_tick(w, p);
    if (p->cost_ns > 0) {
        p->busy_until_ns =
            w->now_ns + p->cost_ns > p->busy_until_ns ? w->now_ns + p->cost_ns : p->busy_until_ns;
        p->cost_ns = 0;
    }
}

void sim_process_step(sim_world_t *w, sim_process_t *p, agreement_event_t *event)
{
    step_once(w, p, event);
    carry_on(w, p);
}

/* ---- events ---- */

static void handle_message(sim_world_t *w, sim_process_t *p, const sim_event_t *arrived)
{
    sim_event_t taken = *arrived, *event = &taken;
    taken.peer = sim_network_sender(w, arrived);
    if (!sim_network_deliver(w, p, event)) return;
    check_fence_delivered(w, p, event);
    agreement_event_t e = {.kind = AGREEMENT_RECEIVE};
    e.receive.from = event->peer;
    e.receive.type = event->message->type;
    e.receive.bytes = event->message->bytes;
    e.receive.size = event->message->size;
    if (w->options->model) {
        const sim_model_t *m = w->options->model;
        p->cost_ns +=
            sim_distribution_draw(&m->receive[sim_model_edge(m, event->peer.core, p->core)], &w->network);
    }
    step_once(w, p, &e);
    if (p->output->err == RF_ERR_PROTOCOL && !event->x)
        sim_violation(w, "protocol",
                      "core %u (incarnation %u) does not understand %s of %u bytes from core %u (%u): %s",
                      p->core, p->incarnation, agreement_type_name(event->message->type),
                      event->message->size, event->peer.core, event->peer.incarnation,
                      p->output->ignored ? p->output->ignored : "?");
    carry_on(w, p);
}

static void handle_lane(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    agreement_event_t e = {.kind = AGREEMENT_LANE};
    if (!sim_lanes_event(w, p, event, &e.lane)) return;
    step_once(w, p, &e);
    if (p->output->lane && p->output->lane->again) sim_lanes_again(w, p, event);
    if (p->output->err == RF_ERR_PROTOCOL)
        sim_violation(w, "protocol", "core %u (incarnation %u) does not understand what its lane holds: %s",
                      p->core, p->incarnation, p->output->ignored ? p->output->ignored : "?");
    carry_on(w, p);
}

static void handle_form(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    rf_core_t cores[SIM_CORES_MAX > 4096 ? 16384 : SIM_CORES_MAX];
    unsigned n = 0;
    rf_prng_t prng;
    rf_prng_seed(&prng, event->x);
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (event->x == 0 || i == p->core || rf_prng_next(&prng) & 1) cores[n++] = (rf_core_t)i;
    }
    agreement_event_t e = {.kind = AGREEMENT_FORM};
    e.form.cores = cores;
    e.form.n_cores = n;
    sim_process_step(w, p, &e);
}

static void handle(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    agreement_event_t e = {0};
    switch (event->kind) {
    case SIM_EVENT_MESSAGE:
        handle_message(w, p, event);
        return;
    case SIM_EVENT_TICK:
        if (!sim_process_ticks(w, p, event)) return;
        e.kind = AGREEMENT_TICK;
        break;
    case SIM_EVENT_ROOM:
        e.kind = AGREEMENT_ROOM;
        e.peer = event->peer;
        break;
    case SIM_EVENT_DEATH:
        e.kind = AGREEMENT_DEATH;
        e.death.member = event->peer;
        e.death.evidence = (agreement_evidence_t)event->x;
        break;
    case SIM_EVENT_FENCED:
        e.kind = AGREEMENT_FENCED;
        e.fenced = event->peer;
        break;
    case SIM_EVENT_TRANSFER:
        e.kind = AGREEMENT_TRANSFER;
        break;
    case SIM_EVENT_FORM:
        handle_form(w, p, event);
        return;
    case SIM_EVENT_LANE:
        handle_lane(w, p, event);
        return;
    case SIM_EVENT_CHANGE:
        sim_host_change(w, p, event);
        return;
    case SIM_EVENT_REQUEST:
        if (!sim_client_request(w, p, event, &e)) return;
        break;
    case SIM_EVENT_REFUSED:
        w->statistics->expulsions++;
        sim_process_kill(w, p->core);
        sim_host_died(w, p->core, true);
        return;
    default:
        rf_assert(!"an event that is not for a process");
    }
    sim_process_step(w, p, &e);
}

const sim_actor_t sim_actor_engine = {"engine", start, stop, handle, carry_on};
