/*
 * The engine inside the monitor. Everything that concerns it is queued and then worked off by one loop, run(): a step
 * never runs inside another. Committed entries are applied from within a step, by the callbacks below; what they set in
 * motion only queues.
 */
#include "monitor/state.h"

#include <stdio.h>

#define STEPS_MAX 256 /* of the engine, before the actions so far are carried out */

/* ---- the replicated state machine, called from within steps ---- */

static bool is_awaited(const agree_t *a, uint64_t session, uint64_t sequence)
{
    for (unsigned i = 0; i < a->n_inflight; i++) {
        if (a->inflight[i].session == session && a->inflight[i].sequence == sequence) return true;
    }
    return false;
}

static rf_err_t apply_command(monitor_t *m, const agreement_apply_t *entry, uint64_t *value)
{
    command_t command;
    rf_err_t err = replica_apply(m, entry->bytes, entry->size, value);
    if (entry->size != sizeof command) return err;
    memcpy(&command, entry->bytes, sizeof command);
    if (command.op == COMMAND_RECLAIM && err == RF_OK) fence_known(m, command.core, command.incarnation);
    if (command.op < REGISTRY_OP_FIRST)
        m->agree.awaited = true; /* anybody may wait for a domain, or a name */
    /* A dispatcher of mine whose spawn was given up, its outcome unknown then: it never ran. */
    bool mine = command.core == m->core && command.incarnation == m->incarnation;
    if (err == RF_OK && mine && !is_awaited(&m->agree, entry->session, entry->sequence)) {
        if (command.op == COMMAND_DOMAIN_ADD)
            end_orphan(m, *value, 0);
        else if (command.op == COMMAND_DISPATCHER_ADD)
            end_orphan(m, command.domain, (unsigned)*value);
    }
    return err;
}

/* Who leaves, first: a core's next incarnation may join by the same entry, and then its last one has left. */
static void apply_view(monitor_t *m, const agreement_apply_t *entry)
{
    for (unsigned i = 0; i < entry->n_changes; i++) {
        const agreement_change_t *change = &entry->changes[i];
        const core_t *c = &m->cores[change->member.core];
        bool mine = change->member.core == m->core;
        m->expulsions_silent += !change->joined && !change->in_order && !mine &&
                                !(c->dead_kernel && core_life(c) == change->member.incarnation);
        if (!change->joined)
            member_left(m, change->member.core, change->member.incarnation, change->in_order);
        else if (core_is_member(m, change->member.core))
            member_left(m, change->member.core, core_agreed(m, change->member.core), false);
    }
    for (unsigned i = 0; i < entry->n_changes; i++) {
        const agreement_change_t *change = &entry->changes[i];
        if (change->joined) member_joined(m, change->member.core, change->member.incarnation);
    }
}

static rf_err_t on_apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    monitor_t *m = context;
    *value = 0;
    switch (entry->kind) {
    case AGREEMENT_ENTRY_COMMAND:
        return apply_command(m, entry, value);
    case AGREEMENT_ENTRY_FORM:
        for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
            if (entry->members[core / 8] >> (core % 8) & 1) member_joined(m, core, 1);
        }
        break;
    case AGREEMENT_ENTRY_VIEW:
        apply_view(m, entry);
        if (entry->sequence == m->agree.joins && is_awaited(&m->agree, entry->session, entry->sequence))
            joins_applied(m, entry->sequence, entry);
        break;
    default:
        break;
    }
    return RF_OK;
}

static size_t on_save(void *context, void *bytes, size_t max)
{
    return replica_save(context, bytes, max);
}

static rf_err_t on_load(void *context, uint64_t index, const void *bytes, size_t size)
{
    (void)index;
    return replica_load(context, bytes, size);
}

/* ---- parameters ---- */

/* Several within an election's time, and a lease's, so that one that is late does not count. */
static uint64_t heartbeat_ns(const rf_boot_t *boot)
{
    uint64_t ms = boot->heartbeat_ms < boot->election_ms / 4 ? boot->heartbeat_ms : boot->election_ms / 4;
    if (boot->lease_ms > 0 && ms > boot->lease_ms / 2) ms = boot->lease_ms / 2;
    return (ms > 0 ? ms : 1) * RF_NS_PER_MS;
}

static uint64_t seed(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation)
{
    uint64_t out = (uint64_t)incarnation << 16 | core;
    for (size_t i = 0; i < sizeof boot->machine.bytes; i++)
        out = out * 1099511628211u ^ boot->machine.bytes[i];
    return out;
}

static agreement_plan_t plan_of(const rf_boot_t *boot)
{
    unsigned plan = 0;
    while (plan < AGREEMENT_PLANS && strcmp(agreement_plan_name(plan), boot->plan) != 0) plan++;
    return plan < AGREEMENT_PLANS ? (agreement_plan_t)plan : AGREEMENT_PLAN_HOST;
}

agreement_params_t agree_params(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation)
{
    bool alone = boot->n_cores == 1;
    return (agreement_params_t){
        .self = {.core = core, .incarnation = incarnation},
        .machine = boot->machine,
        .n_cores = boot->n_cores,
        .log_max = boot->small ? SMALL_LOG_MAX : AGREE_LOG_MAX,
        .entry_max = AGREE_ENTRY_MAX,
        .proposals_max = boot->small ? SMALL_PROPOSALS_MAX : AGREE_PROPOSALS_MAX,
        .sessions_max = boot->small ? SMALL_SESSIONS_MAX : AGREE_SESSIONS_MAX,
        .snapshot_max = SNAPSHOT_MAX,
        .voters_max =
            boot->voters_max > 0 && boot->voters_max < AGREE_VOTERS_MAX ? boot->voters_max : AGREE_VOTERS_MAX,
        .no_vote = boot->no_vote,
        .witness = boot->witness,
        .host = boot->node_of,
        .package = boot->package_of,
        .plan = plan_of(boot),
        .weights = {boot->weights[0], boot->weights[1], boot->weights[2]},
        .resend_ns = heartbeat_ns(boot),
        .heartbeat_ns = alone ? RF_NEVER : heartbeat_ns(boot),
        .election_ns = alone ? RF_NEVER : boot->election_ms * RF_NS_PER_MS,
        .silence_ns = boot->host_deadline_ms * RF_NS_PER_MS / 2, /* besides that of who reports it */
        .behind_ns = AGREE_BEHIND_NS,
        .lease_ns = alone ? 0 : boot->lease_ms * RF_NS_PER_MS,
        .drift_ppm = boot->lease_drift * 10000,
        .lane_lines = boot->one_sided && boot->n_nodes > 1 ? MONITOR_LANE_LINES_MAX : 0,
        .seed = seed(boot, core, incarnation),
        .state_machine = {.apply = on_apply, .save = on_save, .load = on_load},
    };
}

rf_err_t agree_init(monitor_t *m, void *memory, size_t size)
{
    agreement_params_t params = agree_params(m->boot, m->core, m->incarnation);
    params.state_machine.context = m;
    m->agree.tick_ns = RF_NEVER;
    return agreement_init(memory, size, &params, &m->agree.engine);
}

/* ---- steps ---- */

static void send_messages(monitor_t *m, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *message = &out->messages[i];
        for (unsigned k = 0; k < message->n_to; k++) {
            /* Dropped where there is no link yet: the engine makes it again when there is (agree_room). */
            agreement_member_t to = message->to[k];
            if (peer_reach(m, to.core, to.incarnation))
                peer_send(m, to.core, message->type, message->bytes, message->size, NULL, 0);
        }
    }
}

static void complete_read(monitor_t *m, const agreement_completion_t *completion)
{
    op_t *op = op_find(m, (uint32_t)completion->cookie, OP_FREE);
    rf_assert(m->agree.n_reading > 0);
    m->agree.n_reading--;
    if (op && op_class_of(op)->readable) op_class_of(op)->readable(m, op, completion->err);
}

static void complete_joins(monitor_t *m, const agreement_completion_t *completion, bool again)
{
    m->agree.joins = 0;
    m->agree.joins_ns = m->now_ns; /* who came meanwhile has waited */
    if (again)
        joins_scatter(m, completion->sequence);
    else
        joins_proposed(m, completion->sequence, completion->err);
}

static void complete(monitor_t *m, const agreement_completion_t *completion)
{
    agree_t *a = &m->agree;
    if (completion->kind == AGREEMENT_COMPLETED_READ) complete_read(m, completion);
    if (completion->kind != AGREEMENT_COMPLETED_PROPOSAL) return;
    for (unsigned i = 0; i < a->n_inflight; i++) {
        if (a->inflight[i].session != completion->session || a->inflight[i].sequence != completion->sequence)
            continue;
        uint32_t id = a->inflight[i].op;
        a->inflight[i] = a->inflight[--a->n_inflight];
        bool again = completion->err == RF_ERR_AGAIN; /* the log is full, or another change is under way */
        if (again) a->retry_ns = m->now_ns + RETRY_NS;
        if (id == 0) {
            complete_joins(m, completion, again);
            return;
        }
        op_t *op = op_find(m, id, OP_FREE);
        if (!op || !op->proposing) return;
        op->proposing = false;
        if (again) {
            agree_queue(m, op);
            return;
        }
        op_class_of(op)->proposed(m, op, completion->err, completion->value);
        return;
    }
}

static void say_waiting(monitor_t *m, const agreement_state_t *state)
{
    char who[128] = "";
    size_t at = 0;
    if (m->phase == PHASE_SHUTDOWN) return; /* the others are going, too */
    for (unsigned i = 0; i < state->n_waiting && at < sizeof who - 16; i++)
        at += (size_t)snprintf(who + at, sizeof who - at, "%s%u", i ? ", " : "", state->waiting[i].core);
    if (state->lost)
        out_log(m, RF_LOG_ERROR,
                "a majority of the voters is dead: this machine can never agree on anything again; 'rackfish "
                "down' on every host, and 'rackfish up' forms a new one");
    else
        out_log(m, RF_LOG_WARN, "no quorum: nothing can be agreed on until it is back%s%s; what runs goes on",
                who[0] ? "; waiting for core " : "", who);
}

void agree_note_state(monitor_t *m)
{
    agree_t *a = &m->agree;
    agreement_state_t *state = &a->state;
    bool had = m->quorum, was_lost = state->lost;
    rf_core_t leader = state->leader.core;
    uint64_t behind = state->expelled_behind;
    agreement_query(a->engine, state);
    if (state->expelled_behind != behind)
        out_log(m, RF_LOG_WARN,
                "core %u, incarnation %u, is expelled: for %llu s it has not caught up with what the machine "
                "agrees on; is its link too slow for the state and the load?",
                state->behind.core, state->behind.incarnation,
                (unsigned long long)(AGREE_BEHIND_NS / RF_NS_PER_S));
    standby_note_members(m);
    /* A learner knows from the voters, through its host's contact. */
    m->quorum = m->formed && state->quorum && !(m->frozen && state->role == AGREEMENT_ROLE_LEARNER);
    if (state->leader.core != leader && state->leader.core != RF_CORE_NONE && m->formed)
        out_log(m, RF_LOG_INFO, "core %u leads, term %llu", state->leader.core,
                (unsigned long long)state->term);
    if (had && !m->quorum) {
        say_waiting(m, state);
        end_tell_all(m, RF_CORE_NONE);
        for (rf_core_t core = 0; core < m->boot->n_cores; core++) /* the log cannot say it */
            if (m->cores[core].dead_kernel && m->cores[core].dead) replica_tell_core_dead(m, core);
    } else if (!had && m->quorum && m->formed) {
        end_propose_again(m);
    } else if (state->lost && !was_lost) {
        say_waiting(m, state);
    }
}

/* Others learn what is committed by the next entries; by a message of its own only if none come, or if somebody there waits for it. */
static void hold_notice(monitor_t *m, const agreement_output_t *out)
{
    agree_t *a = &m->agree;
    if (!out->only_notice)
        a->notice_ns = 0;
    else if (a->notice_ns == 0 || a->awaited)
        a->notice_ns = a->awaited ? m->now_ns : m->now_ns + NOTICE_NS;
    a->awaited = false;
    a->tick_ns = a->notice_ns != 0 ? a->notice_ns : out->next_tick_ns;
}

static void step(monitor_t *m, agreement_event_t *event, bool *more)
{
    agree_t *a = &m->agree;
    event->now_ns = m->now_ns;
    const agreement_output_t *out = agreement_step(a->engine, event);
    hold_notice(m, out);
    *more = out->more || a->tick_ns <= m->now_ns;
    if (out->ignored) out_log(m, RF_LOG_DEBUG, "agreement: %s", out->ignored);
    if (out->err != RF_OK) a->received_err = out->err;
    if (out->lane) standby_act(m, out->lane);
    send_messages(m, out);
    for (unsigned i = 0; i < out->n_completions; i++) complete(m, &out->completions[i]);
    bool noteworthy = out->role_changed || out->view_changed || out->loaded;
    bool expelled = out->expelled;
    if (noteworthy) agree_note_state(m);
    if (expelled) member_expelled(m, RF_CORE_NONE, RF_ERR_FENCED);
}

static void propose_event(monitor_t *m, agreement_event_t *event, uint64_t session, uint64_t sequence,
                          uint32_t op, bool *more)
{
    agree_t *a = &m->agree;
    a->inflight[a->n_inflight].session = session;
    a->inflight[a->n_inflight].sequence = sequence;
    a->inflight[a->n_inflight].op = op;
    a->n_inflight++;
    step(m, event, more);
}

/* All that wait to join, by one change: while it is under way the next gather. */
static void propose_joins(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    rf_core_t join[AGREEMENT_JOINS_MAX];
    unsigned n = joins_gather(m, a->sequence + 1, join);
    a->joins_ns = 0;
    if (n == 0) return;
    a->joins = ++a->sequence;
    agreement_event_t event = {.kind = AGREEMENT_CHANGE,
                               .change = {.sequence = a->joins, .join = join, .n_join = n}};
    propose_event(m, &event, agreement_own_session(a->engine), a->joins, 0, more);
}

static void propose_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    uint32_t id = a->queue[a->queue_head];
    a->queue_head = (a->queue_head + 1) % MONITOR_OPS_MAX;
    a->n_queue--;
    op_t *op = op_find(m, id, OP_FREE);
    if (!op || !op->proposing) return; /* ended meanwhile */
    agreement_event_t event;
    agreement_member_t leave[CHANGE_LEAVERS_MAX];
    memset(&event, 0, sizeof event);
    uint64_t session = op->log_session ? op->log_session : agreement_own_session(a->engine);
    uint64_t sequence = op->log_session ? op->log_sequence : ++a->sequence;
    if (op->kind == OP_ONCE) {
        event.kind = op->once.end ? AGREEMENT_SESSION_END : AGREEMENT_SESSION_OPEN;
        event.session.sequence = sequence;
        event.session.session = op->once.id;
    } else if (op->kind == OP_CHANGE) {
        event.kind = AGREEMENT_CHANGE;
        event.change.sequence = sequence;
        event.change.leave = leave;
        event.change.n_leave = change_leavers(m, op, leave);
        event.change.expel = op->change.expel;
    } else {
        event.kind = AGREEMENT_PROPOSE;
        event.propose.session = session;
        event.propose.sequence = sequence;
        event.propose.bytes = op->proposal;
        event.propose.size = op->proposal_size;
    }
    propose_event(m, &event, session, sequence, id, more);
}

static void read_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    uint32_t id = a->reads[a->reads_head];
    a->reads_head = (a->reads_head + 1) % MONITOR_OPS_MAX;
    a->n_reads--;
    if (!op_find(m, id, OP_FREE)) return; /* ended meanwhile */
    a->n_reading++;
    agreement_event_t event = {.kind = AGREEMENT_READ, .read = {.cookie = id}};
    step(m, &event, more);
}

static bool tell_of_peers(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    if (!a->peers_due) return false;
    for (rf_core_t core = a->peers_from; core <= a->peers_to; core++) {
        core_t *c = &m->cores[core];
        agreement_event_t event;
        memset(&event, 0, sizeof event);
        if (c->death_due != 0 && c->death_of != core_life(c))
            c->death_due = 0; /* it has come back meanwhile: that was its last life */
        if (c->death_due != 0) {
            event.kind = AGREEMENT_DEATH;
            event.death.member = (agreement_member_t){.core = core, .incarnation = core_life(c)};
            event.death.evidence = (agreement_evidence_t)c->death_due;
            c->death_due = 0;
        } else if (c->fenced_due) {
            event.kind = AGREEMENT_FENCED;
            event.fenced = (agreement_member_t){.core = core, .incarnation = c->left};
            c->fenced_due = false;
        } else if (c->room_due) {
            event.kind = AGREEMENT_ROOM;
            event.peer = (agreement_member_t){.core = core, .incarnation = c->linked};
            c->room_due = false;
        } else {
            continue;
        }
        a->peers_from = core; /* none before it */
        step(m, &event, more);
        return true;
    }
    a->peers_due = false;
    return false;
}

static bool may_propose(const monitor_t *m)
{
    unsigned max = m->boot->small ? SMALL_PROPOSALS_MAX : AGREE_PROPOSALS_MAX;
    return m->agree.n_inflight < max && m->now_ns >= m->agree.retry_ns;
}

/* Works off everything; `first` may be NULL. */
static void run(monitor_t *m, agreement_event_t *first)
{
    agree_t *a = &m->agree;
    rf_assert(!a->busy);
    a->busy = true;
    bool more = false;
    if (first) step(m, first, &more);
    for (unsigned steps = 0;; steps++) {
        if ((steps >= STEPS_MAX || out_is_nearly_full(m)) &&
            (more || a->peers_due || a->n_queue > 0 || a->joins_ns != 0)) {
            m->out->more = true; /* the rest when these actions are carried out */
            if (more) a->tick_ns = 0;
            break;
        }
        if (more) {
            agreement_event_t event = {.kind = AGREEMENT_TICK};
            step(m, &event, &more);
        } else if (tell_of_peers(m, &more)) {
            continue;
        } else if (a->joins_ns != 0 && a->joins == 0 && m->now_ns >= a->joins_ns && may_propose(m)) {
            propose_joins(m, &more);
        } else if (a->n_queue > 0 && may_propose(m)) {
            propose_next(m, &more);
        } else if (a->n_reads > 0 && a->n_reading < AGREEMENT_READS_MAX) {
            read_next(m, &more);
        } else {
            break;
        }
    }
    a->busy = false;
}

void agree_tick(monitor_t *m)
{
    if (m->now_ns < m->agree.tick_ns) {
        run(m, NULL);
        return;
    }
    agreement_event_t event = {.kind = AGREEMENT_TICK};
    run(m, &event);
}

void agree_queue(monitor_t *m, op_t *op)
{
    agree_t *a = &m->agree;
    rf_assert(!op->proposing);
    op->proposing = true;
    rf_assert(a->n_queue < MONITOR_OPS_MAX);
    a->queue[(a->queue_head + a->n_queue++) % MONITOR_OPS_MAX] = op_id(m, op);
}

bool agree_is_under_way(const monitor_t *m, const op_t *op)
{
    for (unsigned i = 0; i < m->agree.n_inflight; i++) {
        if (m->agree.inflight[i].op == op_id(m, op)) return true;
    }
    return false;
}

void agree_propose_bytes(monitor_t *m, op_t *op, const void *bytes, size_t size)
{
    rf_assert(size <= AGREE_ENTRY_MAX);
    op->proposal = bytes;
    op->proposal_size = (uint16_t)size;
    agree_queue(m, op);
}

void agree_propose(monitor_t *m, op_t *op, const command_t *command)
{
    op->command = *command;
    agree_propose_bytes(m, op, &op->command, sizeof op->command);
}

void agree_read(monitor_t *m, op_t *op)
{
    agree_t *a = &m->agree;
    if (a->n_reads == MONITOR_OPS_MAX) { /* of operations that ended meanwhile: only a flood of them */
        op_class_of(op)->readable(m, op, RF_ERR_AGAIN);
        return;
    }
    a->reads[(a->reads_head + a->n_reads++) % MONITOR_OPS_MAX] = op_id(m, op);
}

void agree_form(monitor_t *m, const rf_core_t *cores, unsigned n)
{
    agreement_event_t event = {.kind = AGREEMENT_FORM, .form = {.cores = cores, .n_cores = n}};
    run(m, &event);
}

void agree_transfer(monitor_t *m)
{
    agreement_event_t event = {.kind = AGREEMENT_TRANSFER};
    run(m, &event);
}

static void note_peer(monitor_t *m, rf_core_t core)
{
    agree_t *a = &m->agree;
    if (!a->peers_due || core < a->peers_from) a->peers_from = core;
    if (!a->peers_due || core > a->peers_to) a->peers_to = core;
    a->peers_due = true;
}

void agree_death(monitor_t *m, rf_core_t core, agreement_evidence_t evidence)
{
    core_t *c = &m->cores[core];
    if (c->death_due != AGREEMENT_EVIDENCE_KERNEL || c->death_of != core_life(c))
        c->death_due = (uint8_t)evidence;
    c->death_of = core_life(c);
    note_peer(m, core);
}

void agree_fenced(monitor_t *m, rf_core_t core)
{
    m->cores[core].fenced_due = true;
    note_peer(m, core);
}

void agree_room(monitor_t *m, rf_core_t core)
{
    m->cores[core].room_due = true;
    note_peer(m, core);
}

rf_err_t agree_receive(monitor_t *m, rf_core_t from, uint8_t type, const void *bytes, size_t size)
{
    agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
    event.receive.from = (agreement_member_t){.core = from, .incarnation = m->cores[from].linked};
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    m->agree.received_err = RF_OK;
    run(m, &event);
    return m->agree.received_err;
}

void agree_lane(monitor_t *m, agreement_event_t *event)
{
    run(m, event);
}
