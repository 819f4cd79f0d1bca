/*
 * The actor of whole monitors: the real monitor_step, and a cursor into the actions of its last step. Between any two actions
 * the process may stall or die. The simulator looks on at the engine inside: what is applied goes through the checkers of the
 * log on its way to the monitor, and a snapshot carries the index and hash of all before it, as the simulator's own does.
 */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REAL_NS        (1000000000ull * RF_NS_PER_S)
#define DRIFT_MAX      40000 /* parts per million */
#define DRIFT_TOLD     9     /* percent, a little more than two such clocks differ by: 1.04 / 0.96 */
#define LATE_ONE_IN    16
#define SAME_TICK_MAX  10000
#define CHECK_INTERVAL 1024 /* events of a world between two looks at every invariant of a monitor */

/* ---- what the engine inside applies ---- */

typedef struct trailer { /* behind a snapshot of the monitor's */
    uint64_t index, chain;
} trailer_t;

static sim_monitor_t *monitor_of(const sim_process_t *p)
{
    return &p->world->monitors->monitors[p->core];
}

static rf_err_t machine_apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    sim_process_t *p = context;
    sim_world_t *w = p->world;
    sim_monitor_t *m = monitor_of(p);
    bool first = sim_ledger_at(w, entry->index)->hash == 0;
    rf_err_t err = m->machine.apply(m->machine.context, entry, value);
    check_log_applied(w, p, entry);
    check_machine_applied(w, p, entry);
    check_fence_applied(w, p, entry);
    check_once_applied(w, p, entry, *value);
    if (first) check_registry_applied(w, p);
    if (first) check_owned_applied(w, p, entry);
    for (unsigned i = 0; entry->kind == AGREEMENT_ENTRY_VIEW && i < entry->n_changes; i++) {
        agreement_member_t member = entry->changes[i].member;
        if (entry->changes[i].in_order) sim_monitors_left(w, member);
        if (entry->changes[i].joined || member.incarnation <= w->left[member.core]) continue;
        w->left[member.core] = member.incarnation;
        w->n_departures++;
        w->statistics->expulsions += !entry->changes[i].in_order;
    }
    return err;
}

static size_t machine_save(void *context, void *bytes, size_t max)
{
    sim_process_t *p = context;
    sim_monitor_t *m = monitor_of(p);
    trailer_t trailer = {p->replica->index, p->replica->chain};
    size_t size = m->machine.save(m->machine.context, bytes, max - sizeof trailer);
    memcpy((uint8_t *)bytes + size, &trailer, sizeof trailer);
    return size + sizeof trailer;
}

static rf_err_t machine_load(void *context, uint64_t index, const void *bytes, size_t size)
{
    sim_process_t *p = context;
    sim_monitor_t *m = monitor_of(p);
    trailer_t trailer;
    if (size < sizeof trailer) return RF_ERR_PROTOCOL;
    rf_err_t err = m->machine.load(m->machine.context, index, bytes, size - sizeof trailer);
    if (err != RF_OK) return err;
    memcpy(&trailer, (const uint8_t *)bytes + size - sizeof trailer, sizeof trailer);
    p->replica->index = trailer.index;
    p->replica->chain = trailer.chain;
    check_log_loaded(p->world, p, index);
    return RF_OK;
}

/* ---- packets ---- */

typedef union packet_buffer {
    sim_packet_t head;
    uint8_t bytes[sizeof(sim_packet_t) + AGREEMENT_MESSAGE_MAX];
} packet_buffer_t;

sim_message_t *sim_packet_new(sim_world_t *w, const void *bytes, size_t size)
{
    static _Thread_local packet_buffer_t packet;
    rf_assert(size <= AGREEMENT_MESSAGE_MAX);
    memset(&packet.head, 0, sizeof packet.head);
    packet.head.size = (uint32_t)size;
    packet.head.event.core = RF_CORE_NONE;
    packet.head.event.size = size;
    if (size > 0) memcpy(packet.head.bytes, bytes, size);
    return sim_message_new(w, 0, &packet, sizeof packet.head + size);
}

void sim_packet_send(sim_world_t *w, rf_core_t to, sim_message_t *message, uint64_t at_ns)
{
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_MESSAGE);
    event->core = to;
    event->life = w->processes[to].life;
    event->message = message; /* its reference goes with it */
    w->in_flight++;
}

static uint64_t *last_arrival(sim_monitor_t *m, uint32_t channel)
{
    if (channel == CHANNEL_KERNEL) return &m->last_ns.kernel;
    if (channel == CHANNEL_SHELL) return &m->last_ns.shell;
    if (channel == CHANNEL_CLIENT) return &m->last_ns.rackfishd;
    if (!m->last_ns.clients) m->last_ns.clients = calloc(MONITOR_CLIENTS_MAX, sizeof *m->last_ns.clients);
    rf_assert(m->last_ns.clients);
    return &m->last_ns.clients[channel - CHANNEL_CLIENT];
}

monitor_event_t *sim_monitors_push(void *world, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                                   const void *bytes, size_t size)
{
    sim_world_t *w = world;
    uint64_t *last_ns = last_arrival(&w->monitors->monitors[to], channel);
    uint64_t at_ns = w->now_ns + 200 + sim_exponential(&w->network, channel == CHANNEL_SHELL ? 500 : 2000);
    if (at_ns <= *last_ns) at_ns = *last_ns + 1;
    *last_ns = at_ns;
    sim_message_t *message = sim_packet_new(w, bytes, size);
    sim_packet_send(w, to, message, at_ns);
    sim_packet_of(message)->event.kind = kind;
    return &sim_packet_of(message)->event;
}

/* ---- life ---- */

/* A step's output is large, and is its process's own only until it has been carried out. */
static monitor_output_t *take_output(sim_monitors_t *all)
{
    if (all->n_outputs > 0) return all->outputs[--all->n_outputs];
    monitor_output_t *output = calloc(1, sizeof *output);
    rf_assert(output);
    return output;
}

static void drop_output(sim_monitors_t *all, sim_monitor_t *m)
{
    if (m->output && all->n_outputs < SIM_OUTPUTS_MAX)
        all->outputs[all->n_outputs++] = m->output;
    else
        free(m->output);
    m->output = NULL;
}

static void start(sim_world_t *w, sim_process_t *p)
{
    sim_monitors_t *all = w->monitors;
    sim_monitor_t *m = monitor_of(p);
    if (!p->memory) {
        p->memory = mmap(NULL, all->memory_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        rf_assert(p->memory != MAP_FAILED);
        madvise(p->memory, all->memory_size, MADV_NOHUGEPAGE); /* most of it is never touched */
        p->replica = malloc(sizeof *p->replica);
        rf_assert(p->replica);
    } else {
        madvise(p->memory, all->memory_size, MADV_DONTNEED); /* all 0, as monitor_init() wants it */
    }
    memset(p->replica, 0, sizeof *p->replica);
    all->boot.node = (rf_node_t)w->host[p->core];
    rf_err_t err = monitor_init(p->memory, all->memory_size, &all->boot, p->core, p->incarnation, "owner",
                                sim_clock_local(w, w->host[p->core]), &m->monitor);
    rf_assert(err == RF_OK);
    m->monitor->defects = w->options->monitor_defects;
    p->engine = m->monitor->agree.engine;
    sim_engine_spoil(p->engine, w->options->defects);
    const agreement_machine_t mine = {p, machine_apply, machine_save, machine_load};
    m->machine = sim_engine_listen(p->engine, &mine);
    drop_output(all, m); /* it may have died on the way */
    m->exits = false;
    m->n_asked = m->n_wants = 0;
    m->checked_term = 0;
    m->checked_role = AGREEMENT_ROLE_LEARNER;
    m->n_fenced = 0;
    if (m->fenced) memset(m->fenced, 0, w->n_cores * sizeof *m->fenced);
    if (w->n_cores <= SIM_TOLD_ALL) {
        if (!m->told_lives) m->told_lives = malloc(w->n_hosts * sizeof *m->told_lives);
        rf_assert(m->told_lives);
        memset(m->told_lives, 0, w->n_hosts * sizeof *m->told_lives);
    }
    free(m->last_ns.clients);
    memset(&m->last_ns, 0, sizeof m->last_ns);
    sim_links_start(w, p->core);
    p->tick_local_ns = sim_clock_local(w, w->host[p->core]);
    sim_process_arm_tick(w, p);
    sim_monitors_push(w, p->core, CHANNEL_KERNEL, MONITOR_KERNEL_UP, NULL, 0);
    sim_monitors_push(w, p->core, CHANNEL_CLIENT, MONITOR_CLIENT_UP, NULL, 0); /* rackfishd: client 0 */
}

static void stop(sim_world_t *w, sim_process_t *p)
{
    if (w->lanes) sim_lanes_died(w, p);
    fake_core_died(&w->monitors->fake, p->core, monitor_of(p)->monitor);
}

/* ---- stepping, and carrying out ---- */

static void print_log(const sim_world_t *w, const sim_process_t *p, const monitor_action_t *a)
{
    if (sim_traces(w))
        fprintf(stderr, "             %.6f monitor/%u(%u) %s\n", (double)w->now_ns / 1e9, p->core,
                p->incarnation, (const char *)a->bytes);
}

static void act(sim_world_t *w, sim_process_t *p, const monitor_action_t *a)
{
    sim_monitor_t *m = monitor_of(p);
    rf_wire_header_t header;
    switch ((monitor_action_kind_t)a->kind) {
    case MONITOR_DO_SEND_PEER:
    case MONITOR_DO_DIAL:
        sim_links_act(w, p, a);
        break;
    case MONITOR_DO_FENCE_PEER:
        sim_links_act(w, p, a);
        if (w->lanes) sim_lanes_fence(w, p, a->core, a->incarnation);
        break;
    case MONITOR_DO_SEND_CLIENT:
    case MONITOR_DO_SEND_EVENT:
        rf_assert(a->size >= sizeof header);
        memcpy(&header, a->bytes, sizeof header);
        if (a->type == RF_CLIENT_EVENT && header.op == RF_CLIENT_EVENT_ADDRESS) {
            rf_client_wanted_t wanted;
            rf_assert(a->size == sizeof header + sizeof wanted);
            memcpy(&wanted, (const uint8_t *)a->bytes + sizeof header, sizeof wanted);
            sim_monitors_wants(w, p->core, wanted.core);
        }
        if (a->type != RF_CLIENT_REPLY) break;
        if (a->client == 0)
            sim_monitors_told(w, p, &header, (const uint8_t *)a->bytes + sizeof header,
                              a->size - sizeof header);
        else
            sim_mclient_told(w, p, a->client, &header, (const uint8_t *)a->bytes + sizeof header,
                             a->size - sizeof header);
        break;
    case MONITOR_DO_CLOSE_CLIENT:
        sim_mclient_closed(w, p->core, a->client);
        break;
    case MONITOR_DO_ADOPT:
        fake_fd_close(&w->monitors->fake, a->fds[0]);
        sim_mclient_adopted(w, p->core, a->domain, a->index);
        break;
    case MONITOR_DO_LINK_STATS:
        sim_monitors_push(w, p->core, CHANNEL_SHELL, MONITOR_LINK_STATS, NULL, 0)->op = a->op;
        break;
    case MONITOR_DO_LOG:
        print_log(w, p, a);
        break;
    case MONITOR_DO_EXIT:
        m->exits = true;
        m->exit_status = (int)a->size;
        break;
    default:
        rf_assert((w->lanes && sim_mlanes_act(w, p, a)) || fake_act(&w->monitors->fake, p->core, a));
        break;
    }
}

/* False: it has stalled on the way, and goes on from there. */
static bool carry_out(sim_world_t *w, sim_process_t *p)
{
    sim_monitor_t *m = monitor_of(p);
    while (m->next_action < m->output->n_actions) {
        const monitor_action_t *a = &m->output->actions[m->next_action++];
        act(w, p, a);
        if (a->kind != MONITOR_DO_LOG && sim_process_stalls_here(w, p)) return false;
    }
    p->carrying = false;
    return true;
}

static void step_once(sim_world_t *w, sim_process_t *p, monitor_event_t *event)
{
    sim_monitor_t *m = monitor_of(p);
    event->now_ns = p->stale_ns ? p->stale_ns : sim_clock_local(w, w->host[p->core]);
    p->last_now_ns = event->now_ns;
    event->real_ns = REAL_NS + w->now_ns;
    if (!m->output) m->output = take_output(w->monitors);
    monitor_step(m->monitor, event, m->output);
    m->lane_number = m->output->lane_number;
    m->lane_offset = m->output->lane_offset;
    w->monitors->fake.cores[p->core].lease_ns = m->output->lease_ns;
    agreement_role_t role;
    uint64_t term = sim_engine_term(p->engine, &role);
    bool changed = term != m->checked_term || role != m->checked_role;
    m->checked_term = term;
    m->checked_role = role;
    if (changed || (w->n_events & 255) == 0) check_leader(w, p);
    check_still_stepped(w, p);
    if (w->n_events % CHECK_INTERVAL == 0) monitor_check(m->monitor);
    if (p->slow_until_ns > w->now_ns) p->cost_ns += sim_between(&w->faults, 20, 500) * RF_NS_PER_US;
    if (m->output->next_tick_ns <= event->now_ns || m->output->more) {
        if (++p->same_tick > SAME_TICK_MAX)
            sim_stuck(w, "core %u asks for the time again and again", p->core);
    } else {
        p->same_tick = 0;
    }
    m->next_action = 0;
    p->carrying = true;
}

static void carry_on(sim_world_t *w, sim_process_t *p)
{
    sim_monitor_t *m = monitor_of(p);
    while (p->alive && w->verdict == SIM_OK) {
        if (p->carrying && !carry_out(w, p)) return;
        if (m->exits) {
            sim_process_kill(w, p->core);
            sim_host_died(w, p->core, true);
            return;
        }
        if (!m->output->more) break;
        monitor_event_t tick = {.kind = MONITOR_TICK};
        step_once(w, p, &tick);
    }
    if (!p->alive) return;
    p->tick_local_ns = m->output->next_tick_ns;
    drop_output(w->monitors, m);
    sim_process_arm_tick(w, p);
    if (p->cost_ns > 0) {
        p->busy_until_ns =
            w->now_ns + p->cost_ns > p->busy_until_ns ? w->now_ns + p->cost_ns : p->busy_until_ns;
        p->cost_ns = 0;
    }
}

/* ---- events ---- */

static void handle_packet(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    static _Thread_local packet_buffer_t packet;
    memset(&packet.head, 0, sizeof packet.head);
    memcpy(&packet, event->message->bytes, event->message->size);
    if (packet.head.generation != 0 && !sim_links_take(w, p, &packet.head)) return;
    monitor_event_t e = packet.head.event;
    uint8_t *bytes = e.size > 0 ? malloc(e.size) : NULL; /* exact, so that reading beyond is seen */
    rf_assert(bytes || e.size == 0);
    if (bytes) memcpy(bytes, packet.head.bytes, e.size);
    e.bytes = bytes;
    step_once(w, p, &e);
    free(bytes);
    carry_on(w, p);
}

static void handle_link(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    monitor_event_t e;
    if (!sim_links_event(w, p, event, &e)) return;
    step_once(w, p, &e);
    carry_on(w, p);
}

static void handle_lane(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    monitor_event_t e;
    const sim_monitor_t *m = monitor_of(p);
    if (!sim_mlanes_event(w, p, event, &e)) return;
    uint64_t looked_for = m->lane_number;
    step_once(w, p, &e);
    bool some = e.kind == MONITOR_LANE_LINES && m->lane_number != looked_for;
    if (some) sim_mlanes_told(w, p, event, m);
    carry_on(w, p);
}

/* As when it has counted too many beats without a word (monitor/heartbeat.c), though the other is healthy. */
static void suspect(sim_world_t *w, sim_process_t *p, agreement_member_t of)
{
    monitor_t *m = monitor_of(p)->monitor;
    if (!core_is_alive(m, of.core) || core_life(&m->cores[of.core]) != of.incarnation) return;
    agree_death(m, of.core, AGREEMENT_EVIDENCE_SILENCE);
    w->statistics->false_reports++;
}

static void handle(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    monitor_event_t tick = {.kind = MONITOR_TICK};
    switch (event->kind) {
    case SIM_EVENT_MESSAGE:
        handle_packet(w, p, event);
        return;
    case SIM_EVENT_TICK:
        if (event->x == p->tick_pushed_ns) p->tick_pushed_ns = RF_NEVER;
        if (sim_clock_local(w, w->host[p->core]) < p->tick_local_ns) {
            sim_process_arm_tick(w, p);
            return;
        }
        step_once(w, p, &tick);
        carry_on(w, p);
        return;
    case SIM_EVENT_LINK:
        handle_link(w, p, event);
        return;
    case SIM_EVENT_LANE:
        handle_lane(w, p, event);
        return;
    case SIM_EVENT_DEATH:
        suspect(w, p, event->peer);
        step_once(w, p, &tick);
        carry_on(w, p);
        return;
    case SIM_EVENT_ROOM:
        if (sim_end(w, p->core, event->peer.core)->state != SIM_END_UP) return;
        tick.kind = MONITOR_PEER_ROOM;
        tick.core = event->peer.core;
        step_once(w, p, &tick);
        carry_on(w, p);
        return;
    default:
        rf_assert(!"an event that is not for a monitor");
    }
}

const sim_actor_t sim_actor_monitor = {"monitor", start, stop, handle, carry_on};

/* ---- the world ---- */

static void draw_boot(sim_world_t *w)
{
    sim_monitors_t *all = w->monitors;
    rf_prng_t *prng = &w->choices;
    uint32_t heartbeat_ms = (uint32_t)sim_between(prng, 10, 30);
    rf_boot_t *b = &all->boot;
    b->magic = RF_BOOT_MAGIC;
    b->size = sizeof *b;
    b->machine = w->params.machine;
    snprintf(b->machine_name, sizeof b->machine_name, "sim");
    b->n_nodes = (rf_node_t)w->n_hosts;
    b->n_cores = (rf_core_t)w->n_cores;
    b->small = w->n_cores > SIM_TOLD_ALL;
    b->heartbeat_ms = heartbeat_ms;
    b->one_sided = w->lanes != NULL;
    snprintf(b->plan, sizeof b->plan, "%s", agreement_plan_name(w->params.plan));
    memcpy(b->weights, &w->params.weights, sizeof b->weights);
    bool odd = rf_prng_below(prng, 2); /* anything that a configuration may say; else as by default, faster */
    b->host_deadline_ms =
        heartbeat_ms * (uint32_t)(odd ? sim_between(prng, 3, 30) : sim_between(prng, 8, 12));
    b->election_ms = odd ? (uint32_t)sim_between(prng, 20, 8 * heartbeat_ms)
                         : heartbeat_ms * (uint32_t)sim_between(prng, 4, 6);
    /* Who holds a lease where the clock is slow, and the others' are fast, leans on all that is allowed for; core 0 leads first. */
    bool leases = w->params.lease_ns > 0, extreme = leases && w->knobs.drift > 0;
    unsigned slow = extreme && rf_prng_below(prng, 2) ? (unsigned)rf_prng_below(prng, w->n_hosts) : 0;
    b->lease_ms = leases ? b->election_ms / 2 : 0;
    b->lease_drift = DRIFT_TOLD;
    for (unsigned h = 0; h < w->n_hosts; h++) {
        snprintf(b->nodes[h].name, sizeof b->nodes[h].name, "node%u", h);
        snprintf(b->medium[h], sizeof b->medium[h], "sim");
        b->nodes[h].first_core = (rf_core_t)w->host_first[h];
        b->nodes[h].n_cores = (rf_core_t)(w->host_first[h + 1] - w->host_first[h]);
        for (unsigned i = w->host_first[h]; i < w->host_first[h + 1]; i++) {
            b->cores[i].cpu = (uint16_t)i;
            b->node_of[i] = (rf_node_t)h;
            b->package_of[i] = w->package[i];
        }
    }
    memcpy(b->witness, w->witness, w->n_cores * sizeof *w->witness);
    w->params.election_ns = b->election_ms * RF_NS_PER_MS;
    w->params.silence_ns = b->host_deadline_ms * RF_NS_PER_MS;
    w->params.lease_ns = b->lease_ms * RF_NS_PER_MS; /* no clock stops then */
    for (unsigned h = 0; h < w->n_hosts; h++) { /* a tenth between two is what a fence by time allows for */
        int64_t *rate_ppm = &w->clocks[h].rate_ppm;
        *rate_ppm = *rate_ppm > DRIFT_MAX ? DRIFT_MAX : *rate_ppm < -DRIFT_MAX ? -DRIFT_MAX : *rate_ppm;
        if (extreme) *rate_ppm = h == slow ? -DRIFT_MAX : DRIFT_MAX;
    }
    uint32_t spare_ms = 2 * heartbeat_ms; /* as monitor/conn.c has it */
    all->deadline_ns = (b->host_deadline_ms - spare_ms) * RF_NS_PER_MS;
}

void sim_monitors_set_up(sim_world_t *w)
{
    sim_monitors_t *all = w->monitors = calloc(1, sizeof *w->monitors);
    rf_assert(all);
    w->actor = &sim_actor_monitor;
    draw_boot(w);
    all->memory_size = (monitor_size(&all->boot, 0) + 63) & ~(size_t)63;
    all->monitors = calloc(w->n_cores, sizeof *all->monitors);
    rf_assert(all->monitors);
    fake_init(&all->fake, w, &w->choices, w->n_cores);
    all->fake.push = sim_monitors_push;
    all->fake.exited = sim_mclient_exited;
    all->fake.fence = sim_monitors_fence;
    w->statistics->engine_bytes = all->memory_size;
}

void sim_monitors_begin(sim_world_t *w)
{
    /* In some machines one core does not come: the others wait for it as long as they do, and form without it. */
    if (w->n_cores < 4 || rf_prng_below(&w->choices, LATE_ONE_IN) != 0) return;
    rf_core_t late = (rf_core_t)sim_between(&w->choices, 1, w->n_cores - 1); /* core 0 is who forms */
    sim_process_kill(w, late);
    sim_host_died(w, late, rf_prng_below(&w->choices, 2));
}

void sim_monitors_unmap(sim_world_t *w)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].memory) munmap(w->processes[i].memory, w->monitors->memory_size);
        w->processes[i].memory = NULL;
    }
}

void sim_monitors_free(sim_world_t *w)
{
    sim_monitors_t *all = w->monitors;
    if (!all) return;
    sim_monitors_unmap(w);
    for (unsigned i = 0; i < w->n_cores; i++) {
        sim_monitor_t *m = &all->monitors[i];
        for (unsigned k = 0; k < m->n_ends; k++) free(m->ends[k]);
        free(m->ends);
        free(m->ends_there);
        free(m->fenced);
        free(m->wants);
        free(m->told_lives);
        free(m->last_ns.clients);
        free(m->output);
    }
    while (all->n_outputs > 0) free(all->outputs[--all->n_outputs]);
    fake_free(&all->fake);
    free(all->monitors);
    free(all->changes);
    free(all->grants);
    free(all->elements);
    free(all);
}
