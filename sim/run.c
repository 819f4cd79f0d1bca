/*
 * One seed, from its first event to its verdict:
 *
 *      forming   the machine is formed; links may already lose
 *      work      clients work, faults happen
 *      settle    faults have stopped: everything must come back, within a bound, and the checkers of the end look
 */
#include "groups.h"
#include "sim/monitors.h"
#include "sim/rdma.h"

#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_SHOWN 16 /* when a run fails */
#define LARGE           64 /* cores; a larger machine has small logs, and its memory is counted */

static _Thread_local sim_world_t *current;

const sim_world_t *sim_current(void)
{
    return current;
}

uint64_t sim_exponential(rf_prng_t *prng, uint64_t mean)
{
    uint64_t u = rf_prng_next(prng) | 1;
    unsigned zeros = (unsigned)__builtin_clzll(u);
    /* -log2(u / 2^64) in 1/1024: leading zeros, less the straight line through the next bits */
    uint64_t fraction = zeros < 63 ? (u << (zeros + 1)) >> 54 : 0;
    uint64_t log2_1024 = (uint64_t)(zeros + 1) * 1024 - fraction;
    return mean / 1024 * log2_1024 * 709 / 1024 + (mean % 1024) * log2_1024 / 1024 * 709 / 1024;
}

uint64_t sim_hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        hash = sim_mix(hash, word);
    }
    uint64_t rest = size;
    for (; size > 0; size--) rest = rest << 8 | p[size - 1];
    return sim_mix(hash, rest);
}

static void fail(sim_world_t *w, sim_verdict_t verdict, const char *checker, const char *format, va_list list)
{
    if (w->verdict != SIM_OK) return;
    w->verdict = verdict;
    w->checker = checker;
    vsnprintf(w->failure, sizeof w->failure, format, list);
}

void sim_violation(sim_world_t *w, const char *checker, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fail(w, SIM_UNSAFE, checker, format, list);
    va_end(list);
}

void sim_stuck(sim_world_t *w, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fail(w, SIM_STUCK, "progress", format, list);
    va_end(list);
}

/* ---- the shape and the parameters of a seed ---- */

static void draw_shape(sim_world_t *w)
{
    const sim_options_t *o = w->options;
    rf_prng_t *prng = &w->choices;
    w->n_hosts = o->hosts ? o->hosts : (unsigned)sim_between(prng, 1, 5);
    w->n_cores = o->monitors ? o->monitors : (unsigned)sim_between(prng, 3, 9);
    if (o->model) {
        w->n_hosts = o->model->hosts;
        w->n_cores = o->monitors ? o->monitors : 3;
    }
    if (w->n_hosts > w->n_cores) w->n_hosts = w->n_cores;
    w->host = calloc(w->n_cores, sizeof *w->host);
    w->package = calloc(w->n_cores, sizeof *w->package);
    w->witness = calloc(w->n_cores, sizeof *w->witness);
    w->host_first = calloc(w->n_hosts + 1, sizeof *w->host_first);
    w->processes = calloc(w->n_cores, sizeof *w->processes);
    w->left = calloc(w->n_cores, sizeof *w->left);
    w->fenced = calloc(w->n_cores, sizeof *w->fenced);
    rf_assert(w->host && w->package && w->witness && w->host_first && w->processes && w->left && w->fenced);
    bool witness = !o->model && !o->steps && w->n_hosts >= 3 && rf_prng_below(prng, 6) == 0;
    for (unsigned h = 0; h <= w->n_hosts; h++)
        w->host_first[h] = (unsigned)((uint64_t)h * w->n_cores / w->n_hosts);
    for (unsigned h = 0; h < w->n_hosts; h++) {
        for (unsigned i = w->host_first[h]; i < w->host_first[h + 1]; i++) {
            w->host[i] = (uint16_t)h;
            w->package[i] = o->model ? i % (o->model->packages * o->model->cores) / o->model->cores
                                     : (i - w->host_first[h]) / (w->n_cores > 64 ? 8 : 2);
            w->witness[i] = witness && h == w->n_hosts - 1;
            w->processes[i] = (sim_process_t){.world = w, .core = (rf_core_t)i};
            w->processes[i].inbox_first = w->processes[i].inbox_last = SIM_NONE;
            w->processes[i].quiet_since_ns = 0;
        }
        w->clocks[h] = (sim_clock_t){.base_local_ns = RF_NS_PER_S + rf_prng_below(prng, RF_NS_PER_S)};
    }
}

static void draw_parameters(sim_world_t *w)
{
    const sim_options_t *o = w->options;
    rf_prng_t *prng = &w->choices;
    static const unsigned voters[] = {3, 3, 3, 5, 5, 7}, logs[] = {16, 32, 64, 64, 256, 1024};
    agreement_params_t *p = &w->params;
    memset(p, 0, sizeof *p);
    for (unsigned i = 0; i < sizeof p->machine.bytes; i++)
        p->machine.bytes[i] = (uint8_t)(w->seed >> i % 8 * 8 ^ i);
    p->n_cores = (rf_core_t)w->n_cores;
    p->log_max = logs[rf_prng_below(prng, sizeof logs / sizeof logs[0])];
    p->entry_max = rf_prng_below(prng, 4) ? 160 : AGREEMENT_ENTRY_MAX;
    p->proposals_max = rf_prng_below(prng, 2) ? 8 : AGREEMENT_WINDOW;
    p->sessions_max = o->clients > SIM_CLIENTS_MAX / 4 ? 2 * SIM_CLIENTS_MAX : SIM_CLIENTS_MAX;
    /* Now and then fewer than there are clients: theirs make way for each other. */
    if (!o->groups && !o->whole && !o->model && !o->clients && sim_mix(w->seed, 0x5e55) % 8 == 0)
        p->sessions_max = 3;
    p->snapshot_max = sizeof(sim_replica_t);
    p->voters_max = o->voters ? o->voters : voters[rf_prng_below(prng, sizeof voters / sizeof voters[0])];
    p->host = w->host;
    p->package = w->package;
    p->witness = w->witness;
    p->plan = (agreement_plan_t)(o->plan >= 0 ? o->plan : (int)rf_prng_below(prng, AGREEMENT_PLANS));
    static const agreement_weights_t weights[] = {{1, 1, 1}, {2, 4, 8}, {3, 2, 1}, {64, 64, 64}};
    p->weights = weights[sim_mix(w->seed, 0x9a1) % (sizeof weights / sizeof weights[0])];
    p->resend_ns = sim_between(prng, 1, 4) * RF_NS_PER_MS;
    p->heartbeat_ns = sim_between(prng, 2, 4) * RF_NS_PER_MS;
    p->election_ns = sim_between(prng, 15, 30) * RF_NS_PER_MS;
    p->silence_ns = 2 * p->election_ns;
    p->behind_ns = 20 * p->silence_ns;
    bool leases = rf_prng_below(prng, 4) == 0;
    if (o->leases >= 0) leases = o->leases;
    p->lease_ns = leases ? p->election_ns / 2 : 0;
    p->defects = o->defects;
    if (o->model) {
        p->log_max = 1024;
        p->entry_max = 160;
        p->proposals_max = AGREEMENT_WINDOW;
        p->plan = (agreement_plan_t)(o->plan >= 0 ? o->plan : AGREEMENT_PLAN_BROADCAST);
        p->weights = sim_model_weights(o->model);
        p->lease_ns = 0;
    }
    if (o->weights.package > 0) p->weights = o->weights;
    if (w->n_cores > LARGE) {
        p->log_max = 32;
        p->entry_max = 256;
        p->proposals_max = 4;
        p->sessions_max = w->n_cores > 1024 ? 4 : 16; /* each holds results three times over */
        p->lease_ns = 0;
        p->resend_ns = 20 * RF_NS_PER_MS;
    }
    if (p->lease_ns > 0 && w->knobs.drift > 20000)
        w->knobs.drift = 20000; /* leases need a bound, and are told of it */
    p->drift_ppm = p->lease_ns > 0 ? 2 * w->knobs.drift + 1000 : 1000;
    for (unsigned h = 0; h < w->n_hosts; h++) {
        int64_t drift = (int64_t)rf_prng_below(prng, 2 * (uint64_t)w->knobs.drift + 1) - w->knobs.drift;
        w->clocks[h].rate_ppm = drift;
    }
}

/* The machine that the models know: cores 0 to 2 vote, or form the group, and nobody else forms anything. */
static void set_up_steps(sim_world_t *w)
{
    w->knobs.form_again = 0;
    if (w->options->groups) {
        w->knobs.restart = 0;
        w->steps_groups = steps_groups_new(1, w->options->steps);
    } else {
        w->steps_log = steps_log_new();
    }
}

/* What comes back when the faults are over is no step of the models. */
static void end_steps(sim_world_t *w)
{
    if (w->steps_log) steps_log_write(w->steps_log, w->options->steps);
    steps_log_free(w->steps_log);
    steps_groups_free(w->steps_groups);
    w->steps_log = NULL;
    w->steps_groups = NULL;
}

static void set_up(sim_world_t *w)
{
    const sim_options_t *o = w->options;
    rf_prng_t root;
    rf_prng_seed(&root, w->seed);
    rf_prng_seed(&w->network, rf_prng_next(&root));
    rf_prng_seed(&w->faults, rf_prng_next(&root));
    rf_prng_seed(&w->work, rf_prng_next(&root));
    rf_prng_seed(&w->choices, rf_prng_next(&root));
    sim_knobs_draw(&o->knobs, &w->choices, &w->knobs);
    if (o->steps) set_up_steps(w);
    draw_shape(w);
    draw_parameters(w);
    w->actor = &sim_actor_engine;
    if (o->one_sided) sim_lanes_set_up(w);
    if (o->groups) {
        sim_groups_set_up(w);
    } else if (o->whole) {
        sim_monitors_set_up(w);
    } else if (o->rdma) {
        sim_rdma_set_up(w);
    } else {
        w->engine_size = sim_engine_size(w);
        rf_assert(w->engine_size > 0);
        w->statistics->engine_bytes = w->engine_size;
    }
    w->n_clients = o->clients ? o->clients : (unsigned)sim_between(&w->choices, 2, 10);
    if (w->n_clients > w->params.sessions_max && w->params.sessions_max > 4)
        w->n_clients = w->params.sessions_max;
    w->operations_left = o->operations;
    static const uint32_t keys[] = {1, 4, 12};
    w->n_keys = o->model ? SIM_KEYS_MAX : keys[rf_prng_below(&w->choices, 3)];
    w->majority_may_die = sim_chance(&w->choices, w->knobs.majority_loss);
    w->think_ns = o->model ? 0 : 3 * RF_NS_PER_S / (o->operations / w->n_clients + 1);
    w->faults_on = true;
    w->phase = SIM_PHASE_FORMING;
    w->phase_ends_ns =
        (w->monitors ? 90 : 30) * RF_NS_PER_S; /* a monitor's patience with those who do not come */
    for (unsigned i = 0; i < w->n_cores; i++) sim_process_start(w, (rf_core_t)i, 1);
    if (o->groups) {
        sim_groups_begin(w);
    } else if (o->whole) {
        sim_monitors_begin(w);
    } else if (o->rdma) {
        sim_rdma_begin(w);
    } else {
        sim_event_t *form = sim_push(w, RF_NS_PER_US, SIM_EVENT_FORM);
        form->core = 0;
        form->life = w->processes[0].life;
    }
    sim_push(w, RF_NS_PER_MS, SIM_EVENT_PHASE);
    bool calm = true;
    const sim_knobs_t none = {.restart = w->knobs.restart};
    if (memcmp(&none, &w->knobs, sizeof none) != 0 || o->whole) calm = false;
    for (unsigned h = 0; !calm && h < w->n_hosts; h++)
        sim_push(w, RF_NS_PER_MS + rf_prng_below(&w->choices, w->params.silence_ns), SIM_EVENT_HOST)->x = h;
}

/* Of this process, as the kernel has it. */
static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file) return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1) pages = 0;
    fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* ... and the most that it ever was. */
static uint64_t resident_max_bytes(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
    return (uint64_t)usage.ru_maxrss * 1024;
}

/* Gives back the monitors' own memory, and sees how much that was. */
static void weigh_monitors(sim_world_t *w)
{
    uint64_t all = resident_bytes();
    sim_monitors_unmap(w);
    uint64_t each = (all - resident_bytes()) / w->n_cores;
    if (each > w->statistics->monitor_bytes) w->statistics->monitor_bytes = each;
}

static void tear_down(sim_world_t *w)
{
    sim_groups_free(w);
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].alive) sim_process_kill(w, (rf_core_t)i);
        if (!w->monitors) free(w->processes[i].memory);
        free(w->processes[i].replica);
        free(w->processes[i].waiters);
    }
    if (w->monitors && w->n_cores > LARGE) weigh_monitors(w);
    sim_monitors_free(w);
    sim_lanes_free(w);
    sim_rdma_free(w);
    sim_queue_free(&w->queue);
    sim_ledger_free(w);
    sim_history_free(&w->history);
    free(w->links);
    free(w->host);
    free(w->package);
    free(w->witness);
    free(w->host_first);
    free(w->processes);
    free(w->left);
    free(w->fenced);
}

/* ---- phases ---- */

static bool formed(sim_world_t *w)
{
    if (!sim_agrees(w)) return w->now_ns > 20 * RF_NS_PER_MS;
    for (unsigned i = 0; i < w->n_cores; i++) {
        agreement_state_t s;
        agreement_query(w->processes[i].engine, &s);
        if (s.formed && s.quorum) return true;
    }
    return false;
}

/* Whether a majority of some newest voter set is dead for good: then nothing can be asked of the machine any more. */
static bool majority_dead(sim_world_t *w)
{
    uint64_t newest = 0;
    bool dead = false;
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (!w->processes[i].alive) continue;
        agreement_state_t s;
        agreement_query(w->processes[i].engine, &s);
        if (s.lost) return true; /* by evidence, which here is true */
        if (s.view < newest || s.n_voters == 0) continue;
        unsigned alive = 0;
        for (unsigned v = 0; v < s.n_voters; v++) {
            const sim_process_t *p = &w->processes[s.voters[v].core];
            alive += p->alive && p->incarnation == s.voters[v].incarnation;
        }
        bool here = alive < s.n_voters / 2 + 1;
        dead = s.view > newest ? here : dead || here;
        newest = s.view;
    }
    return dead || newest == 0;
}

static void phase_forming(sim_world_t *w)
{
    if (formed(w)) {
        w->phase = SIM_PHASE_WORK;
        w->work_started_ns = w->now_ns;
        if (w->now_ns > w->statistics->formed_ns) w->statistics->formed_ns = w->now_ns;
        w->phase_ends_ns = w->now_ns + 60 * RF_NS_PER_S;
        for (unsigned i = 0; i < w->n_clients; i++) {
            if (w->groups)
                sim_groups_client_start(w, i);
            else if (w->monitors)
                sim_mclient_start(w, i);
            else if (w->rdma)
                sim_rdma_client_start(w, i);
            else
                sim_client_start(w, i);
        }
        sim_faults_start(w);
    } else if (w->now_ns > w->phase_ends_ns) {
        sim_stuck(w, "the machine does not form");
    }
}

static bool at_rest(sim_world_t *w, char *why, size_t why_size)
{
    if (w->groups) return sim_groups_at_rest(w, why, why_size);
    if (w->rdma) return sim_rdma_at_rest(w, why, why_size);
    return w->monitors ? check_monitors_at_rest(w, why, why_size) : check_progress(w, why, why_size);
}

static void phase_settle(sim_world_t *w)
{
    char why[400] = "";
    if (at_rest(w, why, sizeof why)) {
        if (sim_agrees(w)) check_lost_end(w);
        if (w->monitors) check_monitors_end(w);
        w->phase = SIM_PHASE_END;
    } else if (w->now_ns > w->phase_ends_ns) {
        bool dead = sim_agrees(w) && majority_dead(w);
        if (dead && !w->majority_may_die) {
            sim_stuck(w, "a majority of every set of voters lived all the time, until a change needed one "
                         "that was dead");
        } else if (dead) {
            w->statistics->lost_machines++;
            w->lost = true;
            w->phase = SIM_PHASE_END;
        } else {
            sim_stuck(w, "%.1f s after the last fault: %s", (double)(w->now_ns - w->settle_started_ns) / 1e9,
                      why);
        }
    }
}

static void phase_event(sim_world_t *w)
{
    if (w->rdma) check_wake(w);
    switch (w->phase) {
    case SIM_PHASE_FORMING:
        phase_forming(w);
        break;
    case SIM_PHASE_WORK:
        if (w->operations_left > 0 && w->now_ns < w->phase_ends_ns) break;
        w->phase = SIM_PHASE_SETTLE;
        w->operations_left = 0;
        if (w->steps_log) end_steps(w);
        w->settle_started_ns = w->now_ns;
        w->statistics->work_ns +=
            w->last_done_ns > w->work_started_ns ? w->last_done_ns - w->work_started_ns : 1;
        w->phase_ends_ns = w->now_ns + 60 * (w->params.silence_ns + w->params.election_ns) + 2 * RF_NS_PER_S;
        sim_faults_stop(w);
        for (unsigned i = 0; i < w->n_clients; i++) w->clients[i].finished = 0;
        if (w->monitors) sim_monitors_settle(w);
        break;
    case SIM_PHASE_SETTLE:
        phase_settle(w);
        break;
    case SIM_PHASE_END:
        return;
    }
    sim_push(w, w->now_ns + RF_NS_PER_MS * (w->phase == SIM_PHASE_SETTLE ? 5 : 1), SIM_EVENT_PHASE);
}

/* ---- events ---- */

static void print_event(const sim_traced_t *t, FILE *out)
{
    const sim_event_t *e = &t->event;
    fprintf(out, "  %10llu %14.6f ms  %-9s", (unsigned long long)t->number, (double)t->at_ns / 1e6,
            sim_event_name(e->kind));
    if (e->core != RF_CORE_NONE) fprintf(out, " core %u", e->core);
    if (e->kind == SIM_EVENT_MESSAGE)
        fprintf(out, " %s, %u bytes, from %u (%u)", agreement_type_name(t->type), t->size, e->peer.core,
                e->peer.incarnation);
    else if (e->peer.core != 0 || e->peer.incarnation != 0)
        fprintf(out, " about %u (%u)", e->peer.core, e->peer.incarnation);
    if (e->kind != SIM_EVENT_MESSAGE && e->x) fprintf(out, " x %llx", (unsigned long long)e->x);
    fputc('\n', out);
}

static void note(sim_world_t *w, const sim_event_t *event)
{
    sim_traced_t *t = &w->trace[w->n_events % SIM_TRACE_EVENTS];
    t->number = w->n_events;
    t->at_ns = w->now_ns;
    t->event = *event;
    t->event.message = NULL;
    t->type = event->message ? event->message->type : 0;
    t->size = event->message ? event->message->size : 0;
    uint64_t hash = sim_mix(w->hash, w->now_ns);
    hash = sim_mix(hash, (uint64_t)event->kind << 48 | (uint64_t)event->core << 32 | event->life);
    hash = sim_mix(hash, event->x);
    hash = sim_mix(hash, (uint64_t)event->peer.core << 32 | event->peer.incarnation);
    if (event->message) {
        hash = sim_mix(hash, event->message->type);
        hash = sim_hash_bytes(hash, event->message->bytes, event->message->size);
    }
    w->hash = hash;
    if (sim_traces(w)) print_event(t, stderr);
}

static void dispatch(sim_world_t *w, uint32_t number)
{
    sim_event_t event = w->queue.events[number];
    if (event.kind <= SIM_EVENT_PROCESS_LAST) {
        sim_process_event(w, number);
        return;
    }
    switch (event.kind) {
    case SIM_EVENT_CLIENT:
        if (w->groups)
            sim_groups_client_timer(w, &event);
        else if (w->monitors)
            sim_mclient_timer(w, &event);
        else if (w->rdma)
            sim_rdma_client_timer(w, &event);
        else
            sim_client_timer(w, &event);
        break;
    case SIM_EVENT_EXPEL:
        sim_groups_expel(w, event.peer);
        break;
    case SIM_EVENT_FAULT:
        sim_faults_event(w, &event);
        break;
    case SIM_EVENT_HEAL:
        sim_faults_heal(w, &event);
        break;
    case SIM_EVENT_HOST:
        sim_host_look(w, (unsigned)event.x);
        break;
    case SIM_EVENT_KILL:
        sim_host_kill(w, &event);
        break;
    case SIM_EVENT_PHASE:
        phase_event(w);
        break;
    case SIM_EVENT_WRITE:
        if (w->rdma)
            sim_rdma_device_event(w, &event);
        else
            sim_lanes_world_event(w, &event);
        break;
    default:
        rf_assert(!"an event of no kind");
    }
    sim_event_free(w, number);
}

void sim_replay_hint(const sim_world_t *w, FILE *out)
{
    fprintf(out, "replay: rackfish sim --seed %llu", (unsigned long long)w->seed);
    const sim_options_t *o = w->options;
    if (o->replay && *o->replay) fprintf(out, " %s", o->replay);
    fprintf(out, " --trace %llu:%llu\n", (unsigned long long)(w->n_events > 200 ? w->n_events - 200 : 0),
            (unsigned long long)w->n_events + 1);
}

static void print_process(const sim_world_t *w, const sim_process_t *p, FILE *out)
{
    fprintf(out, "  core %u on host %u, incarnation %u: ", p->core, w->host[p->core], p->incarnation);
    if (!p->alive) {
        fprintf(out, "dead%s\n", p->joining ? ", a join has been asked for" : "");
        return;
    }
    if (w->groups) {
        sim_groups_print(w, p, out);
        return;
    }
    if (w->rdma) {
        sim_rdma_print(w, p, out);
        return;
    }
    agreement_state_t s;
    agreement_query(p->engine, &s);
    static const char *const roles[] = {"learner", "follower", "candidate", "leader"};
    fprintf(out,
            "%s%s%s, view %llu, term %llu, leader %d, log %llu-%llu, committed %llu, applied %llu, %u "
            "members, voters%s",
            roles[s.role & 3], s.formed ? "" : ", not formed",
            p->busy_until_ns > w->now_ns ? ", stalled" : "", (unsigned long long)s.view,
            (unsigned long long)s.term, (int)(int16_t)s.leader.core, (unsigned long long)s.first,
            (unsigned long long)s.last, (unsigned long long)s.committed, (unsigned long long)s.applied,
            s.members, s.joint ? " (joint)" : "");
    for (unsigned v = 0; v < s.n_voters; v++)
        fprintf(out, " %u.%u", s.voters[v].core, s.voters[v].incarnation);
    fprintf(out, "%s%s\n", s.quorum ? "" : ", no quorum", s.lost ? ", lost" : "");
}

static void report_failure(sim_world_t *w)
{
    FILE *out = stderr;
    fprintf(out, "seed %llu: %s: %s\n", (unsigned long long)w->seed, w->checker, w->failure);
    fprintf(out,
            "at event %llu, %.6f ms; %u cores on %u hosts, up to %u voters, plan %s, log of %u, lease %llu "
            "ms; faults:",
            (unsigned long long)w->n_events, (double)w->now_ns / 1e6, w->n_cores, w->n_hosts,
            w->params.voters_max, agreement_plan_name(w->params.plan), w->params.log_max,
            (unsigned long long)(w->params.lease_ns / RF_NS_PER_MS));
    sim_knobs_print(&w->knobs, out);
    fprintf(out, "\n");
    for (unsigned i = 0; i < w->n_cores && i < PROCESSES_SHOWN; i++) print_process(w, &w->processes[i], out);
    fprintf(out, "the last events:\n");
    uint64_t n = w->n_events + 1 < SIM_TRACE_EVENTS ? w->n_events + 1 : SIM_TRACE_EVENTS;
    for (uint64_t i = w->n_events + 1 - n; i <= w->n_events; i++)
        print_event(&w->trace[i % SIM_TRACE_EVENTS], out);
    sim_replay_hint(w, out);
}

static void check_end(sim_world_t *w)
{
    char why[400];
    for (size_t i = 0; i < w->history.n; i++) { /* those that were under way when the machine was lost */
        sim_operation_t *o = &w->history.operations[i];
        if (o->outcome == SIM_UNKNOWN) o->return_ns = RF_NEVER;
    }
    switch (check_linearizable(&w->history, 1000000, why, sizeof why)) {
    case SIM_LINEARIZABLE:
        break;
    case SIM_NOT_LINEARIZABLE:
        sim_violation(w, "linearizable", "%s", why);
        break;
    case SIM_UNDECIDED:
        w->statistics->undecided++;
        break;
    }
}

static void run_events(sim_world_t *w)
{
    while (w->verdict == SIM_OK && w->phase != SIM_PHASE_END) {
        uint64_t at_ns;
        uint32_t number = sim_pop(w, &at_ns);
        if (number == SIM_NONE) {
            sim_stuck(w, "nothing is left to happen");
            break;
        }
        w->now_ns = at_ns;
        note(w, &w->queue.events[number]);
        dispatch(w, number);
        if (w->verdict != SIM_OK) break;
        if (++w->n_events > w->options->events_max)
            sim_stuck(w, "more than %llu events", (unsigned long long)w->options->events_max);
    }
}

static void write_history(const sim_world_t *w)
{
    FILE *out = w->options->history_path ? fopen(w->options->history_path, "w") : NULL;
    if (!out) return;
    sim_history_write(&w->history, out);
    fclose(out);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec;
}

sim_verdict_t sim_run(const sim_options_t *options, uint64_t seed, sim_statistics_t *statistics,
                      uint64_t *hash)
{
    uint64_t started_cpu_ns = cpu_ns();
    sim_world_t *w = calloc(1, sizeof *w);
    rf_assert(w);
    w->options = options;
    w->seed = seed;
    w->hash = seed;
    w->statistics = statistics;
    w->queue.free = SIM_NONE;
    current = w;
    set_up(w);
    run_events(w);
    if (w->verdict == SIM_OK) check_end(w);
    if (w->verdict != SIM_OK && !options->quiet) report_failure(w);
    write_history(w);
    end_steps(w);
    uint64_t each = w->n_cores > LARGE ? resident_max_bytes() / w->n_cores : 0;
    if (each > statistics->resident_bytes) statistics->resident_bytes = each;
    statistics->cpu_ns += cpu_ns() - started_cpu_ns;
    statistics->seeds++;
    statistics->events += w->n_events;
    statistics->virtual_ns += w->now_ns;
    sim_verdict_t verdict = w->verdict;
    *hash = w->hash;
    current = NULL;
    tear_down(w);
    free(w);
    return verdict;
}
