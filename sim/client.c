/*
 * The workload. A client has a session of the machine (or uses those of the members), one operation at a time, and a
 * sequence for each; what is not answered in time it asks again through another member, with the same sequence. What it
 * was told goes into the history and to the checkers.
 */
#include "sim.h"

static void arm(sim_world_t *w, sim_client_t *c, uint64_t delay_ns)
{
    c->stamp++;
    sim_push(w, w->now_ns + delay_ns, SIM_EVENT_CLIENT)->x = (uint64_t)c->stamp << 32 | c->number;
}

static void think(sim_world_t *w, sim_client_t *c)
{
    c->state = SIM_CLIENT_IDLE;
    uint64_t delay_ns = 1;
    if (w->think_ns > 0) /* half of the time in bursts */
        delay_ns =
            sim_exponential(&w->work, rf_prng_below(&w->work, 2) ? w->think_ns / 100 : w->think_ns * 2);
    arm(w, c, delay_ns + 1);
}

/* Sends the current request to a member, and sets the time after which it is asked again. */
static void ask(sim_world_t *w, sim_client_t *c, bool elsewhere)
{
    if (elsewhere && !w->options->model) c->core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    sim_process_t *p = &w->processes[c->core];
    c->life = p->life;
    c->attempts++;
    arm(w, c,
        w->options->model ? RF_NS_PER_S : 2 * RF_NS_PER_MS + sim_exponential(&w->work, 10 * RF_NS_PER_MS));
    if (!p->alive) return;
    sim_event_t *event = sim_push(
        w, w->now_ns + (w->options->model ? 0 : sim_exponential(&w->work, RF_NS_PER_US)), SIM_EVENT_REQUEST);
    event->core = p->core;
    event->life = p->life;
    event->x = (uint64_t)c->stamp << 32 | c->number;
}

void sim_client_start(sim_world_t *w, unsigned number)
{
    sim_client_t *c = &w->clients[number];
    *c = (sim_client_t){.number = number};
    c->own = w->options->model || number % 3 == 2;
    c->core = w->options->model ? 0 : (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    think(w, c);
}

/* In every fourth seed those who use a member's own session mostly use one member's, which goes on fast. */
static rf_core_t own_core(sim_world_t *w)
{
    rf_core_t core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    rf_core_t busy = (rf_core_t)(sim_mix(w->seed, 0xb5) % w->n_cores);
    return sim_mix(w->seed, 0xb6) % 4 == 0 && w->processes[busy].alive ? busy : core;
}

/* ---- operations ---- */

static void draw_operation(sim_world_t *w, sim_client_t *c)
{
    static const uint8_t kinds[] = {SIM_PUT, SIM_PUT,    SIM_PUT, SIM_CAS, SIM_CAS,
                                    SIM_CAS, SIM_DELETE, SIM_GET, SIM_GET, SIM_GET};
    sim_operation_t o = {.client = c->number, .call_ns = w->now_ns};
    o.kind = w->options->model ? SIM_PUT : kinds[rf_prng_below(&w->work, sizeof kinds)];
    o.key = (uint32_t)rf_prng_below(&w->work, w->n_keys);
    o.value = o.kind == SIM_PUT || o.kind == SIM_CAS ? ++w->next_value : 0;
    if (o.kind == SIM_CAS) { /* often what is there: as some replica shows it */
        const sim_process_t *p = &w->processes[c->core];
        o.expected = p->alive ? p->replica->values[o.key] : SIM_ABSENT;
    }
    c->reading = o.kind == SIM_GET && rf_prng_below(&w->work, 8) != 0; /* else a read through the log */
    c->command = (sim_command_t){o.kind, o.key, o.value, o.expected};
    c->operation = sim_history_add(&w->history, &o);
    c->attempts = 0;
    c->started_ns = w->now_ns;
    c->state = SIM_CLIENT_WAITING;
}

static void begin(sim_world_t *w, sim_client_t *c)
{
    if (w->operations_left == 0 && (w->phase != SIM_PHASE_SETTLE || c->finished >= 2)) {
        c->state = SIM_CLIENT_REST;
        return;
    }
    if (!c->own && c->session == 0) {
        c->state = SIM_CLIENT_OPENING;
        c->reading = false;
        c->attempts = 0;
        c->sequence = 0;
        ask(w, c, true);
        return;
    }
    if (w->operations_left > 0) w->operations_left--;
    if (c->own && !w->options->model) c->core = own_core(w);
    draw_operation(w, c);
    c->sequence = c->own ? 0 : c->sequence + 1;
    ask(w, c, !c->own && rf_prng_below(&w->work, 4) == 0);
}

static void finish(sim_world_t *w, sim_client_t *c, sim_outcome_t outcome, uint64_t value)
{
    sim_operation_t *o = &w->history.operations[c->operation];
    o->outcome = (uint8_t)outcome;
    o->return_ns = outcome == SIM_UNKNOWN ? RF_NEVER : w->now_ns;
    if (outcome == SIM_DONE) {
        o->success = value & SIM_RESULT_SUCCESS;
        if (o->kind == SIM_GET) o->value = (uint32_t)value;
        rf_histogram_add(&w->statistics->latency, w->now_ns - c->started_ns);
        c->finished++;
        w->last_done_ns = w->now_ns;
    }
    w->statistics->operations++;
    w->statistics->unknown += outcome == SIM_UNKNOWN;
    w->statistics->refused += outcome == SIM_NOT_EXECUTED;
    c->refusals = outcome == SIM_NOT_EXECUTED ? c->refusals + 1 : 0;
    think(w, c);
}

void sim_client_timer(sim_world_t *w, const sim_event_t *event)
{
    sim_client_t *c = &w->clients[(uint32_t)event->x];
    if (c->stamp != event->x >> 32) return;
    switch (c->state) {
    case SIM_CLIENT_IDLE:
    case SIM_CLIENT_REST:
        begin(w, c);
        break;
    case SIM_CLIENT_OPENING: {
        /* Again with the same number while that member lives: a second one would be a second session. */
        const sim_process_t *p = &w->processes[c->core];
        bool gone = !p->alive || p->life != c->life;
        if (gone) c->sequence = 0;
        ask(w, c, gone);
        break;
    }
    case SIM_CLIENT_WAITING: {
        sim_process_t *p = &w->processes[c->core];
        bool gone = !p->alive || p->life != c->life;
        if (c->own && !c->reading && gone && c->sequence != 0)
            finish(w, c, SIM_UNKNOWN, 0); /* the session has died with its member */
        else if (c->own && !c->reading)
            ask(w, c, gone);
        else
            ask(w, c, true);
        break;
    }
    }
}

/* The number of the member's own session that the client uses, and that it waits for it. */
static uint64_t own_sequence(sim_process_t *p, sim_client_t *c, uint32_t stamp)
{
    if (c->sequence == 0) c->sequence = sim_process_sequence(p, SIM_WAIT_CLIENT, c->number, 0);
    p->waiters[c->sequence % AGREEMENT_WINDOW] =
        (sim_waiter_t){c->sequence, c->number, stamp, SIM_WAIT_CLIENT};
    return c->sequence;
}

bool sim_client_request(sim_world_t *w, sim_process_t *p, const sim_event_t *event, agreement_event_t *out)
{
    static _Thread_local uint8_t bytes[AGREEMENT_ENTRY_MAX];
    sim_client_t *c = &w->clients[(uint32_t)event->x];
    if (c->stamp != event->x >> 32) return false;
    if (c->state == SIM_CLIENT_OPENING) {
        out->kind = AGREEMENT_SESSION_OPEN;
        out->session.sequence = own_sequence(p, c, c->stamp);
        return true;
    }
    if (c->state != SIM_CLIENT_WAITING) return false;
    if (c->reading) {
        out->kind = AGREEMENT_READ;
        out->read.cookie = event->x;
        return true;
    }
    out->kind = AGREEMENT_PROPOSE;
    if (c->own) own_sequence(p, c, c->stamp);
    out->propose.session = c->own ? agreement_own_session(p->engine) : c->session;
    out->propose.sequence = c->sequence;
    memcpy(bytes, &c->command, sizeof c->command);
    out->propose.bytes = bytes;
    out->propose.size = sizeof c->command;
    if (!w->options->model) { /* of any size; the same when it is sent again */
        out->propose.size += sim_mix(c->operation, w->seed) % (w->params.entry_max - sizeof c->command + 1);
        memset(bytes + sizeof c->command, (int)c->command.value, out->propose.size - sizeof c->command);
    }
    return true;
}

/* ---- answers ---- */

static void answered(sim_world_t *w, sim_client_t *c, sim_process_t *p, uint64_t session, rf_err_t err,
                     uint64_t value)
{
    if (sim_traces(w))
        fprintf(stderr, "             core %u answers client %u, session %llx, sequence %llu: %s, %llx\n",
                p->core, c->number, (unsigned long long)session, (unsigned long long)c->sequence,
                rf_err_name(err), (unsigned long long)value);
    switch (err) {
    case RF_OK:
        check_lost_acknowledged(w, p, session, c->sequence, value);
        finish(w, c, SIM_DONE, value);
        return;
    case RF_ERR_NO_QUORUM:
    case RF_ERR_FORMING:
        /* Nothing has happened here; an earlier attempt through another member may still take effect. */
        if (c->attempts == 1 && rf_prng_below(&w->work, 4) == 0) {
            check_once_refused(w, session, c->sequence);
            finish(w, c, SIM_NOT_EXECUTED, 0);
        } else {
            arm(w, c, sim_exponential(&w->work, 2 * RF_NS_PER_MS) + 1);
        }
        return;
    case RF_ERR_AGAIN:
    case RF_ERR_LIMIT:
        if (c->attempts == 1) check_once_refused(w, session, c->sequence);
        finish(w, c, c->attempts == 1 ? SIM_NOT_EXECUTED : SIM_UNKNOWN, 0);
        return;
    case RF_ERR_UNKNOWN_OUTCOME:
        if (c->own && c->attempts > 3) { /* no results are kept for the members' own sessions */
            finish(w, c, SIM_UNKNOWN, 0);
            return;
        }
        arm(w, c, sim_exponential(&w->work, RF_NS_PER_MS) + 1);
        return;
    case RF_ERR_SESSION:
        if (c->attempts == 1) check_once_refused(w, session, c->sequence);
        if (!c->own) c->session = 0;
        finish(w, c, c->attempts == 1 ? SIM_NOT_EXECUTED : SIM_UNKNOWN, 0);
        return;
    default:
        sim_violation(w, "protocol", "a proposal of client %u through core %u was answered %s", c->number,
                      p->core, rf_err_name(err));
    }
}

void sim_client_own_completed(sim_world_t *w, sim_process_t *p, const sim_waiter_t *waiter, rf_err_t err,
                              uint64_t value)
{
    sim_client_t *c = &w->clients[waiter->who];
    if (c->state == SIM_CLIENT_OPENING) {
        if (c->sequence != waiter->sequence || c->life != p->life) return;
        if (err != RF_OK) {
            /* Another one, unless this may have been opened: then again, to learn; but no results are kept for ever. */
            if (err != RF_ERR_UNKNOWN_OUTCOME || c->attempts > 3) c->life = 0;
            arm(w, c, sim_exponential(&w->work, 5 * RF_NS_PER_MS) + 1);
            return;
        }
        c->session = value;
        c->sequence = 0;
        think(w, c);
    } else if (c->state == SIM_CLIENT_WAITING && c->own && c->sequence == waiter->sequence &&
               c->life == p->life) {
        answered(w, c, p, agreement_own_session(p->engine), err, value);
    }
}

void sim_client_completed(sim_world_t *w, sim_process_t *p, const agreement_completion_t *done)
{
    if (done->kind == AGREEMENT_COMPLETED_READ) {
        sim_client_t *c = &w->clients[(uint32_t)done->cookie % SIM_CLIENTS_MAX];
        if (c->state != SIM_CLIENT_WAITING || !c->reading || c->stamp != done->cookie >> 32) return;
        if (done->err != RF_OK) {
            arm(w, c, sim_exponential(&w->work, 2 * RF_NS_PER_MS) + 1);
            return;
        }
        w->statistics->reads++;
        finish(w, c, SIM_DONE, p->replica->values[c->command.key] | SIM_RESULT_SUCCESS);
        return;
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        sim_client_t *c = &w->clients[i];
        if (c->own || c->session != done->session || c->state != SIM_CLIENT_WAITING || c->reading) continue;
        if (c->sequence == done->sequence) answered(w, c, p, done->session, done->err, done->value);
        return;
    }
}
