/*
 * The engine inside the monitor. Everything that concerns it is queued and then worked off by one loop, run(). Committed
 * entries are applied by the engine's callbacks from within its step; what applying one sets in motion only notes
 * what the engine is to be told next, and never calls it.
 */
#include "monitor/state.h"

#include <stdio.h>

static rf_err_t apply(void *context, const agreement_apply_t *entry, uint64_t *value);
static size_t save(void *context, void *bytes, size_t max);
static rf_err_t load(void *context, uint64_t index, const void *bytes, size_t size);

static agreement_params_t params_of(const rf_boot_t *boot, rf_core_t core)
{
    uint64_t deadline_ns = boot->host_deadline_ms * RF_NS_PER_MS, beat_ns = boot->heartbeat_ms * RF_NS_PER_MS;
    return (agreement_params_t){
        .self = {.core = core, .incarnation = 1},
        .machine = boot->machine,
        .n_cores = boot->n_cores,
        .log_max = AGREE_LOG_MAX,
        .entry_max = AGREE_ENTRY_MAX,
        .proposals_max = AGREE_PROPOSALS_MAX,
        .sessions_max = 0,
        .snapshot_max = (unsigned)replica_save_max(),
        .voters_max = boot->n_nodes >= 5 ? 5 : 3,
        .plan = AGREEMENT_PLAN_BROADCAST,
        .resend_ns = RF_NEVER, /* links lose nothing; a new link is reported as room */
        .heartbeat_ns = beat_ns < deadline_ns / 2 ? beat_ns : deadline_ns / 2,
        .election_ns = deadline_ns,
        .silence_ns = deadline_ns,
        .seed = core,
        .state_machine = {.apply = apply, .save = save, .load = load},
    };
}

size_t agree_size(const rf_boot_t *boot, rf_core_t core)
{
    agreement_params_t params = params_of(boot, core);
    return agreement_size(&params) + 64;
}

rf_err_t agree_init(monitor_t *m, void *memory, size_t size)
{
    agreement_params_t params = params_of(m->boot, m->core);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        m->agree.host[core] = m->boot->cores[core].node;
        m->agree.package[core] = m->boot->cores[core].package;
    }
    params.host = m->agree.host;
    params.package = m->agree.package;
    params.state_machine.context = m;
    m->agree.tick_ns = RF_NEVER;
    uint8_t *aligned = (uint8_t *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
    return agreement_init(aligned, size - (size_t)(aligned - (uint8_t *)memory), &params, &m->agree.engine);
}

static void send_messages(monitor_t *m, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *message = &out->messages[i];
        for (unsigned k = 0; k < message->n_to; k++) {
            /* Dropped where there is no link yet: the engine makes it again when there is (agree_room). */
            rf_core_t to = message->to[k].core;
            if (peer_need(m, to) == RF_OK)
                peer_send(m, to, message->type, message->bytes, message->size, NULL, 0);
        }
    }
}

static void complete(monitor_t *m, const agreement_completion_t *completion)
{
    agree_t *a = &m->agree;
    if (completion->kind != AGREEMENT_COMPLETED_PROPOSAL) return;
    for (unsigned i = 0; i < a->n_inflight; i++) {
        if (a->inflight[i].sequence != completion->sequence) continue;
        op_t *op = op_find(m, a->inflight[i].op, OP_FREE);
        a->inflight[i] = a->inflight[--a->n_inflight];
        if (!op || !op->proposing) return;
        op->proposing = false;
        if (completion->err == RF_ERR_AGAIN) { /* the log is full, for now */
            a->retry_ns = m->now_ns + RETRY_NS;
            command_t command = op->command;
            agree_propose(m, op, &command);
            return;
        }
        op_class_of(op)->proposed(m, op, completion->err, completion->value);
        return;
    }
}

/* Quorum lost or found. */
static void note_state(monitor_t *m)
{
    agreement_state_t state;
    agreement_query(m->agree.engine, &state);
    bool had = m->quorum;
    m->quorum = state.formed && state.quorum;
    if (had && !m->quorum) {
        char waiting[96] = "";
        size_t at = 0;
        for (unsigned i = 0; i < state.n_waiting && at + 8 < sizeof waiting; i++)
            at += (size_t)snprintf(waiting + at, sizeof waiting - at, " %u", state.waiting[i].core);
        out_log(
            m, RF_LOG_ERROR,
            state.lost
                ? "a majority of the voters is dead (cores%s): nothing can be agreed on until the machine is "
                  "formed anew; what runs goes on"
                : "no quorum: nothing can be agreed on until cores%s are heard again; what runs goes on",
            waiting);
        end_tell_all(m, RF_CORE_NONE);
    } else if (!had && m->quorum && m->formed) {
        out_log(m, RF_LOG_INFO, "quorum: core %u leads term %llu", state.leader.core,
                (unsigned long long)state.term);
    }
}

static void step(monitor_t *m, agreement_event_t *event, bool *more)
{
    event->now_ns = m->now_ns;
    const agreement_output_t *out = agreement_step(m->agree.engine, event);
    m->agree.tick_ns = out->next_tick_ns;
    *more = out->more;
    if (out->ignored) out_log(m, RF_LOG_DEBUG, "agreement: %s", out->ignored);
    if (out->err != RF_OK) m->agree.received_err = out->err;
    send_messages(m, out);
    bool changed = out->view_changed || out->role_changed, expelled = out->expelled;
    for (unsigned i = 0; i < out->n_completions; i++) complete(m, &out->completions[i]);
    if (changed) note_state(m);
    if (expelled) member_expelled(m, RF_CORE_NONE, RF_ERR_PEER_DEAD);
}

/* An own proposal that was answered "unknown" and is in the log after all. */
static bool was_given_up(const monitor_t *m, const agreement_apply_t *entry)
{
    if (entry->session != agreement_own_session(m->agree.engine)) return false;
    for (unsigned i = 0; i < m->agree.n_inflight; i++) {
        if (m->agree.inflight[i].sequence == entry->sequence) return false;
    }
    return true;
}

static rf_err_t apply_command(monitor_t *m, const agreement_apply_t *entry, uint64_t *value)
{
    command_t command;
    if (entry->size != sizeof command) return RF_ERR_INVALID;
    memcpy(&command, entry->bytes, sizeof command);
    rf_err_t err = replica_apply(m, &command, entry->size, value);
    if (err == RF_OK && command.op == COMMAND_DOMAIN_ADD && was_given_up(m, entry)) end_given_up(m, *value);
    return err;
}

static rf_err_t apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    monitor_t *m = context;
    switch (entry->kind) {
    case AGREEMENT_ENTRY_FORM:
        member_formed(m, entry->members);
        return RF_OK;
    case AGREEMENT_ENTRY_VIEW:
        for (unsigned i = 0; i < entry->n_changes; i++) {
            const agreement_change_t *change = &entry->changes[i];
            if (change->joined || change->member.core == m->core) continue;
            replica_member_down(m, change->member.core);
            member_dead(m, change->member.core, RF_ERR_PEER_DEAD, false, false);
            m->cores[change->member.core].fenced_due = true;
        }
        return RF_OK;
    case AGREEMENT_ENTRY_COMMAND:
        return apply_command(m, entry, value);
    default:
        return RF_OK;
    }
}

static size_t save(void *context, void *bytes, size_t max)
{
    return replica_save(context, bytes, max);
}

static rf_err_t load(void *context, uint64_t index, const void *bytes, size_t size)
{
    (void)index;
    return replica_load(context, bytes, size);
}

static void propose_next(monitor_t *m, bool *more)
{
    agree_t *a = &m->agree;
    uint32_t id = a->queue[a->queue_head];
    a->queue_head = (a->queue_head + 1) % MONITOR_OPS_MAX;
    a->n_queue--;
    op_t *op = op_find(m, id, OP_FREE);
    if (!op || !op->proposing) return; /* ended meanwhile */
    agreement_event_t event = {.kind = AGREEMENT_PROPOSE};
    event.propose.session = agreement_own_session(a->engine);
    event.propose.sequence = ++a->sequence;
    event.propose.bytes = &op->command;
    event.propose.size = sizeof op->command;
    a->inflight[a->n_inflight].sequence = a->sequence;
    a->inflight[a->n_inflight].op = id;
    a->n_inflight++;
    step(m, &event, more);
}

static bool tell_next(monitor_t *m, bool *more)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        agreement_member_t who = {.core = core, .incarnation = 1};
        agreement_event_t event = {.kind = AGREEMENT_TICK};
        if (c->death_due || c->silence_due) {
            event.kind = AGREEMENT_DEATH;
            event.death.member = who;
            event.death.evidence = c->death_due ? AGREEMENT_EVIDENCE_KERNEL : AGREEMENT_EVIDENCE_SILENCE;
            c->death_due = c->silence_due = false;
        } else if (c->room_due) {
            event.kind = AGREEMENT_ROOM;
            event.peer = who;
            c->room_due = false;
        } else if (c->fenced_due) { /* its link is: nothing of it is listened to any more */
            event.kind = AGREEMENT_FENCED;
            event.fenced = who;
            c->fenced_due = false;
        } else {
            continue;
        }
        step(m, &event, more);
        return true;
    }
    return false;
}

/* Works off everything; `first` may be NULL. */
static void run(monitor_t *m, agreement_event_t *first)
{
    agree_t *a = &m->agree;
    rf_assert(!a->busy);
    a->busy = true;
    bool more = false;
    if (first) step(m, first, &more);
    for (;;) {
        if (more) {
            agreement_event_t event = {.kind = AGREEMENT_TICK};
            step(m, &event, &more);
        } else if (tell_next(m, &more)) {
            continue;
        } else if (a->n_queue > 0 && a->n_inflight < AGREE_PROPOSALS_MAX && m->now_ns >= a->retry_ns) {
            propose_next(m, &more);
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

void agree_propose(monitor_t *m, op_t *op, const command_t *command)
{
    agree_t *a = &m->agree;
    rf_assert(!op->proposing);
    op->proposing = true;
    op->command = *command;
    rf_assert(a->n_queue < MONITOR_OPS_MAX);
    a->queue[(a->queue_head + a->n_queue++) % MONITOR_OPS_MAX] = op_id(m, op);
}

void agree_form(monitor_t *m, const rf_core_t *cores, unsigned n)
{
    agreement_event_t event = {.kind = AGREEMENT_FORM, .form = {.cores = cores, .n_cores = n}};
    run(m, &event);
}

void agree_death(monitor_t *m, rf_core_t core)
{
    m->cores[core].death_due = true;
}

void agree_suspect(monitor_t *m, rf_core_t core)
{
    m->cores[core].silence_due = true;
}

void agree_room(monitor_t *m, rf_core_t core)
{
    m->cores[core].room_due = true;
}

rf_err_t agree_receive(monitor_t *m, rf_core_t from, uint8_t type, const void *bytes, size_t size)
{
    agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
    event.receive.from = (agreement_member_t){.core = from, .incarnation = 1};
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    m->agree.received_err = RF_OK;
    run(m, &event);
    return m->agree.received_err;
}
