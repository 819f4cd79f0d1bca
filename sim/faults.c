/* The schedule of faults: one stream of events for each knob that is a rate, exponential gaps between them. */
#include "groups.h"
#include "sim/monitors.h"

typedef enum fault {
    FAULT_PARTITION,
    FAULT_ONE_WAY,
    FAULT_FLAP,
    FAULT_ISOLATE,
    FAULT_CRASH,
    FAULT_HOST_CRASH,
    FAULT_STALL,
    FAULT_SLOW,
    FAULT_CLOCK_STOP,
    FAULT_BURST,
    FAULT_LEAVE,
    FAULT_TRANSFER,
    FAULT_FALSE_SILENCE,
    FAULT_FORM_AGAIN,
    FAULT_DEPOSE, /* not by a rate: elections bring it about */
    FAULTS,
    FAULT_LINK_BREAK = FAULTS, /* of monitors only, and in no burst */
} fault_t;

static uint32_t rate_of(const sim_world_t *w, fault_t fault)
{
    const sim_knobs_t *k = &w->knobs;
    if (fault == FAULT_LINK_BREAK) return w->monitors && w->n_hosts > 1 ? k->link_break : 0;
    const uint32_t rates[FAULTS] = {
        [FAULT_PARTITION] = k->partition,
        [FAULT_ONE_WAY] = k->one_way,
        [FAULT_FLAP] = k->flap,
        [FAULT_ISOLATE] = k->isolate,
        [FAULT_CRASH] = k->crash,
        [FAULT_HOST_CRASH] = k->host_crash,
        [FAULT_STALL] = k->stall,
        [FAULT_SLOW] = k->slow,
        [FAULT_CLOCK_STOP] = k->clock_stop,
        [FAULT_BURST] = k->burst,
        [FAULT_LEAVE] = k->leave,
        [FAULT_TRANSFER] = k->transfer,
        [FAULT_FALSE_SILENCE] = k->false_silence,
        [FAULT_FORM_AGAIN] = k->form_again,
    };
    return rates[fault];
}

static void schedule(sim_world_t *w, fault_t fault)
{
    uint32_t rate = rate_of(w, fault); /* thousandths per second */
    if (rate == 0) return;
    sim_push(w, w->now_ns + sim_exponential(&w->faults, 1000 * RF_NS_PER_S / rate) + 1, SIM_EVENT_FAULT)->x =
        fault;
}

/* ---- cuts ---- */

/* The directed pairs of hosts that a cut is about follow from (fault, seed), so that healing finds them again. */
static void cut_pairs(sim_world_t *w, fault_t fault, uint64_t seed, bool heal)
{
    rf_prng_t prng;
    rf_prng_seed(&prng, seed);
    uint8_t side[SIM_HOSTS_MAX];
    for (unsigned h = 0; h < w->n_hosts; h++) side[h] = rf_prng_next(&prng) & 1;
    uint8_t spared[SIM_HOSTS_MAX] = {
        0}; /* by a deposition, which is about the host in the seed's last byte */
    unsigned n_spared = w->n_hosts >= 4 ? (unsigned)rf_prng_below(&prng, w->n_hosts / 2) : 0;
    for (unsigned i = 0; i < n_spared && fault == FAULT_DEPOSE; i++)
        spared[rf_prng_below(&prng, w->n_hosts)] = 1; /* with it fewer than half */
    unsigned x = (unsigned)rf_prng_below(&prng, w->n_hosts), y = (unsigned)rf_prng_below(&prng, w->n_hosts);
    if (rf_prng_next(&prng) & 1) { /* one host against the rest */
        for (unsigned h = 0; h < w->n_hosts; h++) side[h] = h == x;
    }
    for (unsigned a = 0; a < w->n_hosts; a++) {
        for (unsigned b = 0; b < w->n_hosts; b++) {
            bool cut = false;
            if (a == b) continue;
            if (fault == FAULT_PARTITION) cut = side[a] != side[b];
            if (fault == FAULT_ONE_WAY) cut = a == x && (side[b] || b == y);
            if (fault == FAULT_FLAP) cut = (a == x && b == y) || (a == y && b == x);
            if (fault == FAULT_ISOLATE) cut = true;
            if (fault == FAULT_DEPOSE)
                cut = (a == (seed & 0xff) && !spared[b]) || (b == (seed & 0xff) && !spared[a]);
            if (!cut) continue;
            if (heal) {
                if (w->cut[a][b] > 0) w->cut[a][b]--;
            } else if (w->cut[a][b]++ == 0) {
                w->cut_since_ns[a][b] = w->now_ns;
            }
        }
    }
}

static void push_heal(sim_world_t *w, fault_t fault, uint64_t seed, uint64_t mean_ns, unsigned left)
{
    sim_event_t *event = sim_push(w, w->now_ns + sim_exponential(&w->faults, mean_ns) + 1, SIM_EVENT_HEAL);
    event->x = seed;
    event->peer = (agreement_member_t){.core = (rf_core_t)fault, .incarnation = left};
}

/* Links have broken, and who held one says so: a suspicion, as any silence is. */
static void report_broken_links(sim_world_t *w)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        for (unsigned k = 0; k < w->n_cores && w->processes[i].alive; k++) {
            const sim_process_t *p = &w->processes[i], *q = &w->processes[k];
            unsigned a = w->host[i], b = w->host[k];
            if (!q->alive || a == b || (!sim_network_cut(w, a, b) && !sim_network_cut(w, b, a))) continue;
            sim_event_t *event =
                sim_push(w, w->now_ns + sim_exponential(&w->faults, 300 * RF_NS_PER_US), SIM_EVENT_DEATH);
            event->core = p->core;
            event->life = p->life;
            event->peer = (agreement_member_t){.core = q->core, .incarnation = q->incarnation};
            event->x = AGREEMENT_EVIDENCE_SILENCE;
        }
    }
}

static bool cut(sim_world_t *w, fault_t fault)
{
    if (w->n_hosts < 2) return false;
    uint64_t seed = rf_prng_next(&w->faults);
    uint64_t short_ns = w->params.election_ns / 2, long_ns = 3 * w->params.silence_ns;
    cut_pairs(w, fault, seed, false);
    if (w->actor == &sim_actor_engine && w->n_cores <= 64 && sim_chance(&w->faults, w->knobs.link_error))
        report_broken_links(w);
    if (w->monitors && sim_chance(&w->faults, w->knobs.link_error)) sim_links_cut(w);
    if (fault == FAULT_FLAP && rf_prng_below(&w->faults, 2))
        push_heal(w, fault, seed, 2 * RF_NS_PER_MS, 20);
    else
        push_heal(w, fault, seed, rf_prng_below(&w->faults, 2) ? short_ns : long_ns, 0);
    return true;
}

/* One at a time: who was deposed before is back. */
static void restore(sim_world_t *w)
{
    if (w->deposed == 0) return;
    cut_pairs(w, FAULT_DEPOSE, w->deposed, true);
    w->deposed = 0;
    sim_network_room(w);
}

void sim_faults_heal(sim_world_t *w, const sim_event_t *event)
{
    fault_t fault = (fault_t)event->peer.core;
    if (!w->faults_on) return;
    if (fault == FAULT_CLOCK_STOP) {
        unsigned host = (unsigned)event->x;
        sim_clock_set(w, host, w->clocks[host].rate_ppm, false);
        return;
    }
    if (fault == FAULT_DEPOSE) {
        if (w->deposed == event->x) restore(w);
        return;
    }
    if (fault == FAULT_LINK_BREAK) {
        sim_network_room(w);
        return;
    }
    unsigned left = event->peer.incarnation;
    if (fault == FAULT_FLAP && left % 2 == 1) { /* cut once more */
        cut_pairs(w, fault, event->x, false);
        push_heal(w, fault, event->x, 2 * RF_NS_PER_MS, left - 1);
        return;
    }
    cut_pairs(w, fault, event->x, true);
    sim_network_room(w);
    if (fault == FAULT_FLAP && left > 1) push_heal(w, fault, event->x, 2 * RF_NS_PER_MS, left - 1);
}

static void depose(sim_world_t *w, rf_core_t core)
{
    restore(w);
    w->statistics->faults++;
    w->deposed = (rf_prng_next(&w->faults) & ~(uint64_t)0xff) | 0x100 | w->host[core];
    cut_pairs(w, FAULT_DEPOSE, w->deposed, false);
    if (w->monitors && sim_chance(&w->faults, w->knobs.link_error)) sim_links_cut(w);
    push_heal(w, FAULT_DEPOSE, w->deposed, 6 * w->params.election_ns, 0);
}

/*
 * What Figure 8 of Raft takes, made likely: leaders whose entries reach a few others only, or nobody, and who are followed
 * by leaders that know nothing of them, and come back. Half of them are cut off before their first message leaves.
 */
void sim_faults_led(sim_world_t *w, rf_core_t core)
{
    if (!w->faults_on || w->n_hosts < 2 || !sim_chance(&w->faults, w->knobs.depose)) return;
    if (rf_prng_below(&w->faults, 2)) {
        depose(w, core);
        return;
    }
    uint64_t mean_ns = rf_prng_below(&w->faults, 2) ? RF_NS_PER_MS / 4 : w->params.election_ns / 2;
    sim_event_t *event = sim_push(w, w->now_ns + sim_exponential(&w->faults, mean_ns), SIM_EVENT_FAULT);
    event->x = FAULT_DEPOSE;
    event->peer.core = core;
}

/* ---- deaths ---- */

static bool dies(const rf_core_t *cores, unsigned n, rf_core_t core)
{
    for (unsigned i = 0; i < n; i++) {
        if (cores[i] == core) return true;
    }
    return false;
}

/* Whether a majority of these voters lives, and goes on to. */
static bool majority_lives(const sim_world_t *w, const agreement_member_t *voters, unsigned n_voters,
                           const rf_core_t *cores, unsigned n)
{
    unsigned alive = 0;
    for (unsigned v = 0; v < n_voters; v++) {
        const sim_process_t *p = &w->processes[voters[v].core];
        alive += p->alive && p->incarnation == voters[v].incarnation && !dies(cores, n, voters[v].core);
    }
    return n_voters == 0 || alive >= n_voters / 2 + 1;
}

bool sim_may_die(sim_world_t *w, const rf_core_t *cores, unsigned n)
{
    if (w->majority_may_die || !sim_agrees(w)) return true;
    agreement_state_t state;
    agreement_member_t old[AGREEMENT_VOTERS_MAX];
    uint64_t newest = 0;
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (!w->processes[i].alive) continue;
        agreement_query(w->processes[i].engine, &state);
        if (state.view > newest) newest = state.view;
    }
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *p = &w->processes[i];
        if (!p->alive) continue;
        agreement_query(p->engine, &state);
        if (state.view + 1 < newest) continue;
        if (!majority_lives(w, state.voters, state.n_voters, cores, n)) return false;
        if (sim_engine_has_asked(p->engine)) return false; /* who has answered is counted on */
        unsigned n_old = sim_engine_voters_old(p->engine, old);
        if (!majority_lives(w, old, n_old, cores, n)) return false;
    }
    return newest > 0;
}

static rf_core_t any_alive(sim_world_t *w)
{
    for (unsigned i = 0; i < 16; i++) {
        rf_core_t core = (rf_core_t)rf_prng_below(&w->faults, w->n_cores);
        if (w->processes[core].alive) return core;
    }
    return RF_CORE_NONE;
}

/* Somebody, the leader more often than by chance. */
static rf_core_t any_leader(sim_world_t *w)
{
    rf_core_t core = any_alive(w);
    if (!sim_agrees(w) || rf_prng_below(&w->faults, 3) != 0) return core;
    for (unsigned i = 0; i < w->n_cores; i++) {
        agreement_state_t state;
        if (!w->processes[i].alive) continue;
        agreement_query(w->processes[i].engine, &state);
        if (state.role == AGREEMENT_ROLE_LEADER) core = (rf_core_t)i;
    }
    return core;
}

static bool crash(sim_world_t *w)
{
    rf_core_t core = any_leader(w);
    if (core == RF_CORE_NONE || !sim_may_die(w, &core, 1)) return false;
    w->statistics->crashes++;
    sim_process_kill(w, core);
    sim_host_died(w, core, true);
    return true;
}

static bool crash_host(sim_world_t *w)
{
    unsigned host = (unsigned)rf_prng_below(&w->faults, w->n_hosts), n = 0;
    rf_core_t cores[256];
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1] && n < 256; i++) {
        if (w->processes[i].alive) cores[n++] = (rf_core_t)i;
    }
    if (n == 0 || n == w->n_cores || !sim_may_die(w, cores, n)) return false;
    for (unsigned i = 0; i < n; i++) {
        w->statistics->crashes++;
        sim_process_kill(w, cores[i]);
    }
    for (unsigned i = 0; i < n; i++) sim_host_died(w, cores[i], false);
    return true;
}

/* ---- the others ---- */

static bool stall(sim_world_t *w)
{
    rf_core_t core = any_leader(w);
    if (core == RF_CORE_NONE) return false;
    const uint64_t means_ns[] = {RF_NS_PER_MS, w->params.election_ns, 2 * w->params.silence_ns};
    sim_process_stall(w, core, sim_exponential(&w->faults, means_ns[rf_prng_below(&w->faults, 3)]) + 1);
    return true;
}

static bool slow(sim_world_t *w)
{
    rf_core_t core = any_alive(w);
    if (core == RF_CORE_NONE) return false;
    w->processes[core].slow_until_ns = w->now_ns + sim_exponential(&w->faults, 50 * RF_NS_PER_MS);
    return true;
}

static bool stop_clock(sim_world_t *w)
{
    unsigned host = (unsigned)rf_prng_below(&w->faults, w->n_hosts);
    if (w->params.lease_ns > 0) return false; /* leases lean on clocks that go */
    sim_clock_set(w, host, w->clocks[host].rate_ppm, true);
    push_heal(w, FAULT_CLOCK_STOP, host, 2 * w->params.election_ns, 0);
    return true;
}

static bool say(sim_world_t *w, sim_event_kind_t kind)
{
    rf_core_t core = any_alive(w), other = any_alive(w);
    if (core == RF_CORE_NONE || other == RF_CORE_NONE) return false;
    if (w->groups) { /* a healthy one is expelled: all the same to the others */
        sim_groups_expel(w,
                         (agreement_member_t){.core = other, .incarnation = w->processes[other].incarnation});
        return true;
    }
    if (!sim_agrees(w)) return false;
    agreement_state_t state;
    const sim_process_t *p = &w->processes[core];
    agreement_query(p->engine, &state);
    if (kind == SIM_EVENT_FORM && !state.formed && p->incarnation == 1)
        return false; /* it might: the caller's mistake */
    if (kind == SIM_EVENT_CHANGE && state.members <= 3) return false;
    if (w->monitors && kind == SIM_EVENT_CHANGE) {
        sim_monitors_leave(w, other);
        return true;
    }
    if (w->monitors && core == other) return false; /* its own silence nobody is told of */
    if (kind == SIM_EVENT_TRANSFER && state.leader.core < w->n_cores && w->processes[state.leader.core].alive)
        core = state.leader.core;
    sim_event_t *event = sim_push(w, w->now_ns + 1, kind);
    event->core = core;
    event->life = w->processes[core].life;
    event->peer = (agreement_member_t){.core = other, .incarnation = w->processes[other].incarnation};
    event->x = kind == SIM_EVENT_DEATH  ? (uint64_t)AGREEMENT_EVIDENCE_SILENCE
               : kind == SIM_EVENT_FORM ? rf_prng_next(&w->faults) | 1
                                        : 1;
    return true;
}

/* One connection, or, as when a port of a host goes down, all of one with all of another host. */
static bool break_links(sim_world_t *w)
{
    rf_core_t a = any_leader(w), b = any_alive(w);
    if (a == RF_CORE_NONE || b == RF_CORE_NONE || w->host[a] == w->host[b]) return false;
    if (rf_prng_below(&w->faults, 3)) {
        sim_links_break(w, a, b);
    } else {
        unsigned x = w->host[a], y = w->host[b];
        for (unsigned i = w->host_first[x]; i < w->host_first[x + 1]; i++) {
            for (unsigned k = w->host_first[y]; k < w->host_first[y + 1]; k++)
                sim_links_break(w, (rf_core_t)i, (rf_core_t)k);
        }
    }
    return true;
}

void sim_faults_remake(sim_world_t *w, uint64_t at_ns)
{
    sim_push(w, at_ns, SIM_EVENT_HEAL)->peer.core = (rf_core_t)FAULT_LINK_BREAK;
}

/* False: there was nobody, or nothing, that it could happen to. */
static bool happen(sim_world_t *w, fault_t fault)
{
    switch (fault) {
    case FAULT_PARTITION:
    case FAULT_ONE_WAY:
    case FAULT_FLAP:
    case FAULT_ISOLATE:
        return cut(w, fault);
    case FAULT_CRASH:
        return crash(w);
    case FAULT_HOST_CRASH:
        return crash_host(w);
    case FAULT_STALL:
        return stall(w);
    case FAULT_SLOW:
        return slow(w);
    case FAULT_CLOCK_STOP:
        return stop_clock(w);
    case FAULT_LEAVE:
        return say(w, SIM_EVENT_CHANGE);
    case FAULT_TRANSFER:
        return say(w, SIM_EVENT_TRANSFER);
    case FAULT_FALSE_SILENCE:
        return say(w, SIM_EVENT_DEATH);
    case FAULT_FORM_AGAIN:
        return say(w, SIM_EVENT_FORM);
    case FAULT_LINK_BREAK:
        return break_links(w);
    case FAULT_DEPOSE:
    case FAULT_BURST:
        break;
    }
    return false;
}

void sim_faults_event(sim_world_t *w, const sim_event_t *event)
{
    if (!w->faults_on) return;
    fault_t fault = (fault_t)event->x;
    if (fault == FAULT_DEPOSE) {
        depose(w, event->peer.core);
        return;
    }
    if (fault != FAULT_BURST) {
        w->statistics->faults += happen(w, fault);
    } else {
        for (unsigned i = 0; i < 10; i++) { /* of the kinds that this seed has */
            fault_t one = (fault_t)rf_prng_below(&w->faults, FAULTS);
            if (rate_of(w, one) > 0) w->statistics->faults += happen(w, one);
        }
    }
    schedule(w, fault);
}

void sim_faults_start(sim_world_t *w)
{
    for (unsigned i = 0; i <= FAULT_LINK_BREAK; i++) schedule(w, (fault_t)i);
}

void sim_faults_stop(sim_world_t *w)
{
    w->faults_on = false;
    memset(w->cut, 0, sizeof w->cut);
    w->deposed = 0;
    for (unsigned h = 0; h < w->n_hosts; h++) sim_clock_set(w, h, w->clocks[h].rate_ppm, false);
    for (unsigned i = 0; i < w->n_cores; i++) {
        w->processes[i].slow_until_ns = 0;
        if (!w->processes[i].alive && w->processes[i].join_due_ns > w->now_ns)
            w->processes[i].join_due_ns = w->now_ns;
    }
    sim_network_room(w);
}
