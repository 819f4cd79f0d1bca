#include "consensus/engine.h"

static const char *const type_names[] = {
    [MESSAGE_FORWARD - 0xd0] = "FORWARD",
    [MESSAGE_APPEND - 0xd0] = "APPEND",
    [MESSAGE_ACCEPTED - 0xd0] = "ACCEPTED",
    [MESSAGE_REFUSED - 0xd0] = "REFUSED",
    [MESSAGE_REPORT - 0xd0] = "REPORT",
    [MESSAGE_VOTE_REQUEST - 0xd0] = "VOTE_REQUEST",
    [MESSAGE_VOTE - 0xd0] = "VOTE",
    [MESSAGE_READ - 0xd0] = "READ",
    [MESSAGE_READ_INDEX - 0xd0] = "READ_INDEX",
    [MESSAGE_SNAPSHOT - 0xd0] = "SNAPSHOT",
    [MESSAGE_SNAPSHOT_ACK - 0xd0] = "SNAPSHOT_ACK",
    [MESSAGE_FETCH - 0xd0] = "FETCH",
    [GROUP_TYPE_FIRST - 0xd0] = "GROUP_REQUEST",
    [GROUP_TYPE_FIRST + 1 - 0xd0] = "GROUP",
    [GROUP_TYPE_FIRST + 2 - 0xd0] = "GROUP_ACK",
    [GROUP_TYPE_FIRST + 3 - 0xd0] = "GROUP_REPORT",
};

const char *agreement_type_name(uint8_t type)
{
    return type >= AGREEMENT_TYPE_FIRST && type <= AGREEMENT_TYPE_LAST ? type_names[type - 0xd0] : "?";
}

/* ---- memory ---- */

static bool times_valid(const agreement_params_t *p)
{
    /* Who waits for silence must be able to hear: heartbeats several times within it. */
    if (p->election_ns != RF_NEVER && (p->heartbeat_ns == 0 || p->heartbeat_ns > p->election_ns / 2))
        return false;
    if (p->lease_ns != 0 && (p->heartbeat_ns > p->lease_ns || p->lease_ns > RF_NS_PER_S * 3600)) return false;
    return p->resend_ns > 0 && p->heartbeat_ns > 0 && p->election_ns > 0 && p->silence_ns > 0 &&
           p->drift_ppm < 500000;
}

static bool lanes_valid(const agreement_params_t *p)
{
    return p->lane_lines == 0 || (p->lane_lines >= AGREEMENT_LANE_LINES_MIN && p->lane_lines <= 1u << 20 &&
                                  (p->lane_lines & (p->lane_lines - 1)) == 0 && p->resend_ns != RF_NEVER);
}

static bool weight_valid(unsigned weight)
{
    return weight >= 1 && weight <= AGREEMENT_WEIGHT_MAX;
}

static bool plan_valid(const agreement_params_t *p)
{
    const agreement_weights_t *w = &p->weights;
    return p->plan < AGREEMENT_PLAN_WEIGHTED ||
           (p->plan == AGREEMENT_PLAN_WEIGHTED && weight_valid(w->package) && weight_valid(w->host) &&
            weight_valid(w->between));
}

static bool params_valid(const agreement_params_t *p)
{
    bool power_of_two = p->log_max > 0 && (p->log_max & (p->log_max - 1)) == 0;
    return p->n_cores > 0 && p->n_cores < RF_CORE_NONE && p->self.core < p->n_cores &&
           p->self.incarnation >= 1 && p->self.incarnation <= INCARNATION_MAX && power_of_two &&
           p->log_max >= 16 && p->log_max <= 1u << 20 && p->entry_max >= 160 &&
           p->entry_max <= AGREEMENT_ENTRY_MAX && p->proposals_max > 0 &&
           p->proposals_max <= AGREEMENT_PROPOSALS_MAX && p->sessions_max <= 4096 && p->voters_max >= 1 &&
           p->voters_max <= AGREEMENT_VOTERS_MAX && plan_valid(p) && p->snapshot_max <= 1u << 30 &&
           (uint64_t)p->log_max * (sizeof(wire_entry_t) + p->entry_max) < 1ull << 31 && times_valid(p) &&
           p->state_machine.apply && p->state_machine.save && p->state_machine.load && lanes_valid(p);
}

/* Lays the parts out behind each other; with `memory` NULL it only counts. */
typedef struct layout {
    uint8_t *memory;
    size_t size;
} layout_t;

static void *take(layout_t *layout, size_t size)
{
    void *at = layout->memory ? layout->memory + layout->size : NULL;
    layout->size += (size + 63) & ~(size_t)63;
    return at;
}

static size_t lay_out(const agreement_params_t *p, uint8_t *memory, size_t *zeroed)
{
    layout_t layout = {.memory = memory};
    agreement_t *e = take(&layout, sizeof *e);
    size_t map = (p->n_cores + 7u) / 8;
    unsigned own_max = own_sessions_max(p);
    unsigned sessions = own_max + p->sessions_max, session_map_max = 16;
    while (session_map_max < 2 * sessions) session_map_max *= 2;
    uint32_t entry_stride = (uint32_t)(sizeof(wire_entry_t) + padded(p->entry_max));
    uint32_t proposal_stride = (uint32_t)((sizeof(proposal_t) + p->entry_max + 63) & ~(size_t)63);
    unsigned proposal_map_bits = 8; /* a quarter of it used, at most */
    while (1u << proposal_map_bits < 4 * p->proposals_max) proposal_map_bits++;
    uint32_t snapshot_size = (uint32_t)(snapshot_engine_max(p) + p->snapshot_max);
    size_t groups = p->group.groups_max > 0 ? engine_groups_size(p) : 0;
    size_t left = (p->n_cores + (size_t)AGREEMENT_CHANGES_MAX) * sizeof(agreement_member_t);
    struct {
        uint32_t *members, *offsets;
        uint8_t *dead, *believed, *silent, *form_map, *log, *proposals, *out, *in, *arena;
        session_t *sessions;
        uint16_t *session_map, *free_opened, *proposal_map;
        unknown_t *unknown;
        result_t *results;
        agreement_member_t *to;
        agreement_member_t *group_left;
        void *groups;
    } at = {
        .proposal_map = take(&layout, sizeof(uint16_t) << proposal_map_bits),
        .unknown = take(&layout, sizeof(unknown_t) << (proposal_map_bits - 1)),
        .session_map = take(&layout, session_map_max * sizeof(uint16_t)),
        .free_opened = take(&layout, p->sessions_max * sizeof(uint16_t)),
        .members = take(&layout, p->n_cores * sizeof(uint32_t)),
        .dead = take(&layout, map),
        .believed = take(&layout, map),
        .silent = take(&layout, map),
        .groups = take(&layout, groups),
    };
    *zeroed =
        layout.size; /* what follows is written before it is read: its pages are not touched until then */
    at.offsets = take(&layout, p->log_max * sizeof(uint32_t));
    at.to = take(&layout, 4 * PROGRESS_MAX * sizeof(agreement_member_t));
    at.sessions = take(&layout, sessions * sizeof(session_t));
    at.arena = take(&layout, ARENA_SIZE);
    at.log = take(&layout, (size_t)(p->log_max + 1) * entry_stride);
    at.proposals = take(&layout, (size_t)p->proposals_max * proposal_stride);
    at.results = take(&layout, (size_t)p->sessions_max * AGREEMENT_WINDOW * sizeof(result_t));
    at.form_map = take(&layout, map);
    at.group_left = take(&layout, groups > 0 ? left : 0);
    at.out = take(&layout, snapshot_size);
    at.in = take(&layout, snapshot_size);
    void *lanes = take(&layout, p->lane_lines > 0 ? lane_size(p) : 0);
    if (!e) return layout.size;
    e->log = at.log;
    e->log_size = (p->log_max + 1) * entry_stride;
    e->offsets = at.offsets;
    e->entry_stride = entry_stride;
    e->arena = at.arena;
    e->to = at.to;
    e->to_max = 4 * PROGRESS_MAX;
    e->proposals = at.proposals;
    e->proposal_map = at.proposal_map;
    e->proposal_map_shift = 64 - proposal_map_bits;
    e->unknown = at.unknown;
    e->proposal_stride = proposal_stride;
    e->sessions = e->session_last = at.sessions;
    e->session_map = at.session_map;
    e->session_map_max = session_map_max;
    e->own_max = own_max;
    e->free_opened = at.free_opened;
    e->results = at.results;
    e->members = at.members;
    e->dead = at.dead;
    e->believed = at.believed;
    e->silent = at.silent;
    e->form_map = at.form_map;
    e->out.bytes = at.out;
    e->in.bytes = at.in;
    e->snapshot_size = snapshot_size;
    e->groups = groups > 0 ? at.groups : NULL;
    e->group_left = at.group_left;
    e->lanes = p->lane_lines > 0 ? lanes : NULL;
    return layout.size;
}

/* Whole pages that are 0 already are only read: those that are fresh from the kernel stay untouched. */
static void clear(uint8_t *memory, size_t size)
{
    static const uint8_t zeros[4096];
    for (size_t at = 0, n; at < size; at += n) {
        size_t in_page = sizeof zeros - ((uintptr_t)(memory + at) & (sizeof zeros - 1));
        n = size - at < in_page ? size - at : in_page;
        if (memcmp(memory + at, zeros, n) != 0) memset(memory + at, 0, n);
    }
}

size_t agreement_size(const agreement_params_t *params)
{
    if (!params_valid(params)) return 0;
    if (params->group.groups_max > 0 && engine_groups_size(params) == 0) return 0;
    size_t zeroed;
    return lay_out(params, NULL, &zeroed);
}

rf_err_t agreement_init(void *memory, size_t size, const agreement_params_t *params, agreement_t **out)
{
    size_t needed = agreement_size(params);
    if (needed == 0) return RF_ERR_INVALID;
    if (size < needed || (uintptr_t)memory % 64 != 0) return RF_ERR_NO_MEMORY;
    size_t zeroed;
    lay_out(params, NULL, &zeroed);
    clear(memory, zeroed);
    lay_out(params, memory, &zeroed);
    agreement_t *e = memory;
    e->params = *params;
    e->voted = e->leader = e->dead_leader = e->promised_to = e->parent = e->stand_to = e->asked = NOBODY;
    e->stuck = e->behind = e->late = NOBODY;
    e->first = 1;
    e->own_session = agreement_own_session(e);
    e->command.kind = AGREEMENT_ENTRY_COMMAND;
    e->n_places = 1; /* session_last */
    e->groups_tick_ns = RF_NEVER;
    e->election_at_ns = e->heartbeat_at_ns = e->resend_at_ns = e->check_at_ns = e->fetch_at_ns = RF_NEVER;
    e->transfer_until_ns = RF_NEVER;
    session_clear(e);
    if (e->groups && !engine_groups_init(e)) return RF_ERR_INVALID;
    if (e->lanes) lane_init(e, e->lanes);
    *out = e;
    return RF_OK;
}

/* ---- the step ---- */

uint64_t engine_retry_ns(const agreement_t *e)
{
    if (e->params.resend_ns != RF_NEVER) return e->params.resend_ns;
    return e->params.heartbeat_ns != RF_NEVER ? e->params.heartbeat_ns : RF_NS_PER_MS;
}

/* One that has left, and does not know. */
static void tell_expelled(agreement_t *e, agreement_member_t to)
{
    struct {
        wire_refused_head_t head;
        wire_refused_t refused;
    } m = {.head = {.view = e->view, .term = e->term, .applied = e->applied, .leader = to_wire(e->leader, 0)},
           .refused = {.why = REFUSED_EXPELLED}};
    send_one(e, MESSAGE_REFUSED, &m, sizeof m, to);
}

void engine_receive(agreement_t *e, const agreement_event_t *event)
{
    agreement_member_t from = event->receive.from;
    const uint8_t *bytes = event->receive.bytes;
    size_t size = event->receive.size;
    if (from.core >= e->params.n_cores || from.core == e->params.self.core || from.incarnation == 0 ||
        from.incarnation > INCARNATION_MAX || size > AGREEMENT_MESSAGE_MAX || size == 0) {
        engine_protocol_error(e, "ignoring a message: from no such member, empty, or too long");
        return;
    }
    rf_incarnation_t known = member_incarnation(e, from.core);
    if (from.incarnation < known ||
        (from.incarnation == known && member_state(e, from.core) == AGREEMENT_MEMBER_OUT)) {
        engine_ignore(e, "ignoring a message: its sender has left");
        if (e->formed && !e->expelled && event->receive.type != MESSAGE_REFUSED) tell_expelled(e, from);
        return;
    }
    if (from.incarnation == known && bit_get(e->dead, from.core)) {
        engine_ignore(e, "ignoring a message: its sender is dead");
        return;
    }
    if (leads(e)) change_heard(e, from);
    switch (event->receive.type) {
    case MESSAGE_FORWARD:
        recv_forward(e, from, bytes, size);
        break;
    case MESSAGE_APPEND:
        recv_append(e, from, bytes, size);
        break;
    case MESSAGE_ACCEPTED:
        recv_accepted(e, from, bytes, size);
        break;
    case MESSAGE_REFUSED:
        recv_refused(e, from, bytes, size);
        break;
    case MESSAGE_REPORT:
        recv_report(e, from, bytes, size);
        break;
    case MESSAGE_VOTE_REQUEST:
        recv_vote_request(e, from, bytes, size);
        break;
    case MESSAGE_VOTE:
        recv_vote(e, from, bytes, size);
        break;
    case MESSAGE_READ:
        recv_read(e, from, bytes, size);
        break;
    case MESSAGE_READ_INDEX:
        recv_read_index(e, from, bytes, size);
        break;
    case MESSAGE_SNAPSHOT:
        recv_snapshot(e, from, bytes, size);
        break;
    case MESSAGE_SNAPSHOT_ACK:
        recv_snapshot_ack(e, from, bytes, size);
        break;
    case MESSAGE_FETCH:
        recv_fetch(e, from, bytes, size);
        break;
    default:
        if (groups_type(event->receive.type) && e->groups) {
            engine_groups_receive(e, event);
            break;
        }
        engine_protocol_error(e, "ignoring a message: no such type");
        break;
    }
    if (e->lanes) lane_hold(e, event);
}

/* The link to a member is new, or takes messages again: what was sent may be lost. */
static void room(agreement_t *e, agreement_member_t peer)
{
    progress_t *p = progress_find(e, peer);
    if (p && same(p->member, peer)) {
        if (p->mode == PROGRESS_SNAPSHOT) {
            snapshot_lost(e, p);
            e->due |= DUE_FEED;
        } else {
            progress_rewind(e, p);
        }
    }
    if (same(peer, e->leader)) {
        e->leader_unheard = false;
        proposal_unsend(e);
        for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) {
            if (e->reads[i].used && e->reads[i].index == UINT64_MAX) e->reads[i].sent = false;
        }
        e->due |= DUE_READS | DUE_REPORTS;
        e->n_silent_tells = 0;
    }
    if (e->role == AGREEMENT_ROLE_CANDIDATE) e->due |= DUE_VOTES;
    bool left = peer.incarnation < member_incarnation(e, peer.core) ||
                (peer.incarnation == member_incarnation(e, peer.core) &&
                 member_state(e, peer.core) == AGREEMENT_MEMBER_OUT);
    if (left && e->formed && !e->expelled) tell_expelled(e, peer);
    if (e->role == AGREEMENT_ROLE_LEARNER && (same(peer, e->parent) || same(peer, e->leader)))
        e->due |= DUE_FETCH * (e->formed ? 1u : 0u);
}

void engine_lacks(agreement_t *e, uint64_t committed)
{
    if (committed <= e->known_committed) return;
    if (committed > e->committed && e->known_committed <= e->committed) e->parent_heard_ns = e->now_ns;
    e->known_committed = committed;
}

/* A learner that is fed nothing, or is behind, asks. What the leader answers but for that brings it no entries. */
static void fetch_tick(agreement_t *e)
{
    if (e->role != AGREEMENT_ROLE_LEARNER || !e->formed || e->expelled) {
        e->fetch_at_ns = RF_NEVER;
        return;
    }
    uint64_t fed = e->parent_heard_ns;
    bool unanswered = e->fetched_ns > fed, behind = e->known_committed > e->committed || !e->quorum;
    uint64_t patience = e->params.election_ns;
    if (behind && e->params.resend_ns != RF_NEVER)
        patience = 4 * e->params.resend_ns;
    else if (!behind && !unanswered &&
             patience != RF_NEVER) /* has it left, or no place among those who are fed? */
        patience = e->params.resend_ns == RF_NEVER ? RF_NEVER : 64 * patience;
    e->fetch_at_ns = add_ns(unanswered ? e->fetched_ns : fed, patience);
    if (e->fetch_at_ns > e->now_ns) return;
    if (unanswered && e->fetched_ns > e->leader_heard_ns && e->quorum &&
        e->now_ns >= add_ns(e->fetched_ns, e->params.election_ns))
        role_no_quorum(e);
    e->fetched_ns = e->now_ns;
    e->fetch_at_ns = add_ns(e->now_ns, patience);
    e->due |= DUE_FETCH;
}

static void tick(agreement_t *e)
{
    if (e->lazy) {
        e->lazy = false;
        e->due |= DUE_FEED;
    }
    role_tick(e);
    change_tick(e);
    if (e->now_ns >= e->resend_at_ns) send_again(e);
    engine_groups_tick(e);
}

/* When time matters next. */
uint64_t engine_next_tick_ns(const agreement_t *e)
{
    if (e->lazy) return e->now_ns;
    uint64_t next = e->resend_at_ns;
    if (leads(e)) {
        earlier(&next, e->heartbeat_at_ns);
        earlier(&next, e->check_at_ns);
        earlier(&next, e->transfer_until_ns);
        if (e->n_suspicions > 0 || e->n_candidates > 0 || e->change_round != 0)
            earlier(&next, change_next_ns(e));
    } else {
        if (e->role != AGREEMENT_ROLE_LEARNER)
            earlier(&next, e->election_at_ns);
        else
            earlier(&next, e->fetch_at_ns);
        if (e->quorum && e->params.election_ns != RF_NEVER &&
            (e->n_proposals > 0 || e->n_reads > 0 || e->role != AGREEMENT_ROLE_LEARNER)) {
            uint64_t from = e->leader_heard_ns;
            if (e->role == AGREEMENT_ROLE_LEARNER && from + 2 * e->params.election_ns < e->now_ns)
                from = e->now_ns - 2 * e->params.election_ns;
            earlier(&next, add_ns(from, 3 * e->params.election_ns));
        }
    }
    if (((e->due & DUE_PROPOSALS) && e->n_proposals > 0) || ((e->due & DUE_READS) && e->n_reads > 0)) {
        if (e->retry_at_ns > e->now_ns) earlier(&next, e->retry_at_ns);
    }
    earlier(&next, e->groups_tick_ns);
    return next;
}

/* The epilogue of every step: everything that follows from state alone. */
static void finish(agreement_t *e)
{
    if (e->due & DUE_COMMIT) {
        e->due &= ~(uint32_t)DUE_COMMIT;
        if (leads(e)) progress_commit(e);
    }
    uint64_t applied = e->applied;
    if (applied != e->committed) apply_committed(e);
    /* Nobody else waits for these: they need no message of their own now. */
    if (e->applied > applied && leads(e)) e->lazy = e->output.n_completions >= e->applied - applied;
    if (e->due & ~(uint32_t)DUE_FEED) {
        if (e->due & DUE_CHANGE) {
            e->due &= ~(uint32_t)DUE_CHANGE;
            if (leads(e)) {
                change_step(e);
                if (leads(e)) progress_commit(e);
                apply_committed(e);
            }
        }
        if (e->due & DUE_LOADED) proposal_after_load(e);
        if (e->due & DUE_REFUSED) proposal_finish_refused(e);
        if (e->due & DUE_READS) read_finish(e);
        if ((e->due & DUE_SERVED) && leads(e)) {
            read_confirm(e);
            if (e->due & DUE_READS) read_finish(e);
        }
        if (e->n_reads == 0) e->due &= ~(uint32_t)DUE_READS;
        if (e->due & DUE_FAIL) {
            proposal_fail(e);
            read_fail(e);
            if (e->n_proposals > 0 || e->n_reads > 0)
                e->output.more = true;
            else
                e->due &= ~(uint32_t)DUE_FAIL;
        }
    }
    if (e->role == AGREEMENT_ROLE_LEARNER) fetch_tick(e);
    if (e->due || e->ack_due || e->stand_to.core != RF_CORE_NONE) send_all(e);
    if (e->groups) engine_groups_finish(e);
    if (e->lanes) lane_finish(e);
    e->output.next_tick_ns = engine_next_tick_ns(e);
    e->output.only_notice = e->lazy;
    e->output.expelled = e->expelled;
    rf_assert(e->applied <= e->committed && e->committed <= e->last && e->first <= e->last + 1);
}

static __attribute__((noinline)) void step(agreement_t *e, const agreement_event_t *event)
{
    e->steady = STEADY_NOT;
    switch (event->kind) {
    case AGREEMENT_TICK:
        tick(e);
        break;
    case AGREEMENT_RECEIVE:
        engine_receive(e, event);
        break;
    case AGREEMENT_ROOM:
        if (event->peer.core < e->params.n_cores && event->peer.core != e->params.self.core)
            room(e, event->peer);
        engine_groups_room(e, event->peer);
        break;
    case AGREEMENT_DEATH:
        change_died(e, event->death.member, event->death.evidence, true);
        break;
    case AGREEMENT_FENCED:
        engine_groups_fenced(e, event->fenced);
        break;
    case AGREEMENT_FORM:
        role_form(e, event);
        break;
    case AGREEMENT_CHANGE:
        proposal_change(e, event);
        break;
    case AGREEMENT_PROPOSE:
        proposal_start(e, AGREEMENT_ENTRY_COMMAND, event->propose.session, event->propose.sequence,
                       event->propose.bytes, event->propose.size);
        break;
    case AGREEMENT_SESSION_OPEN:
        proposal_start(e, AGREEMENT_ENTRY_SESSION_OPEN, e->own_session, event->session.sequence, NULL, 0);
        break;
    case AGREEMENT_SESSION_END:
        proposal_start(e, AGREEMENT_ENTRY_SESSION_END, e->own_session, event->session.sequence,
                       &event->session.session, sizeof event->session.session);
        break;
    case AGREEMENT_READ:
        read_start(e, event->read.cookie);
        break;
    case AGREEMENT_TRANSFER:
        role_transfer(e);
        break;
    case AGREEMENT_GROUP:
        engine_groups_event(e, &event->group);
        break;
    case AGREEMENT_LANE:
        if (e->lanes)
            lane_event(e, &event->lane);
        else
            engine_ignore(e, "ignoring: this engine has no lanes");
        break;
    }
    if (event->hold && completion_room(e) > AGREEMENT_COMPLETIONS_MAX / 2)
        e->output.next_tick_ns = e->now_ns, e->output.only_notice = false;
    else
        finish(e);
    e->steady = (uint8_t)steady_state(e);
}

const agreement_output_t *agreement_step(agreement_t *e, const agreement_event_t *event)
{
    e->prev_now_ns = e->now_ns;
    if (event->now_ns > e->now_ns) e->now_ns = event->now_ns;
    agreement_output_t *out = &e->output;
    out->n_messages = out->n_completions = 0;
    out->group = NULL;
    out->lane = NULL;
    out->applied_from = 1;
    out->applied_to = 0;
    out->view_changed = out->role_changed = out->loaded = out->more = false;
    out->ignored = NULL;
    out->err = RF_OK;
    e->n_to = e->arena_used = 0;
    e->holding = event->hold;

    if (e->steady == STEADY_NOT || !steady_step(e, event)) step(e, event);
    return out;
}

/* ---- questions ---- */

uint64_t agreement_own_session(const agreement_t *e)
{
    return (uint64_t)e->params.self.incarnation << 16 | e->params.self.core;
}

static void waiting_for(const agreement_t *e, agreement_state_t *out)
{
    for (unsigned i = 0; i < out->n_voters; i++) {
        agreement_member_t m = out->voters[i];
        if (is_self(e, m)) continue;
        bool heard = false;
        for (unsigned k = 0; k < e->n_voters && leads(e); k++) {
            const progress_t *p = &e->progress[k];
            heard |= same(p->member, m) && add_ns(p->heard_ns, e->params.election_ns) > e->now_ns;
        }
        if (!heard || member_dead(e, m)) out->waiting[out->n_waiting++] = m;
    }
}

void agreement_query(const agreement_t *e, agreement_state_t *out)
{
    const config_t *c = config_newest(e);
    *out = (agreement_state_t){
        .view = e->view,
        .term = e->term,
        .first = e->first,
        .last = e->last,
        .committed = e->committed,
        .applied = e->applied,
        .role = e->role,
        .leader = e->leader,
        .members = e->n_members,
        .n_voters = c->n_new,
        .joint = c->joint,
        .formed = e->formed,
        .quorum = e->formed && e->quorum && !e->lost && !e->expelled,
        .lost = e->lost,
        .elections = e->n_elections,
        .snapshots_sent = e->n_snapshots_sent,
        .snapshots_loaded = e->n_loads,
        .expulsions = e->n_expulsions,
        .expelled_behind = e->n_behind,
        .behind = e->behind,
        .reads_leased = e->n_reads_leased,
        .reads_asked = e->n_reads_asked,
        .shortcuts = e->n_shortcuts,
    };
    memcpy(out->voters, c->voters_new, c->n_new * sizeof *out->voters);
    agreement_survives(&e->params, c->voters_new, c->n_new, &out->survives, &out->survives_hosts);
    if (c->joint) {
        unsigned members, hosts;
        agreement_survives(&e->params, c->voters_old, c->n_old, &members, &hosts);
        if (members < out->survives) out->survives = members;
        if (hosts < out->survives_hosts) out->survives_hosts = hosts;
    }
    if (!out->quorum) waiting_for(e, out);
    if (e->lanes) lane_query(e, out);
}

agreement_member_state_t agreement_member_state(const agreement_t *e, rf_core_t core,
                                                rf_incarnation_t *incarnation)
{
    if (core >= e->params.n_cores) return AGREEMENT_MEMBER_NONE;
    if (incarnation) *incarnation = member_incarnation(e, core);
    return member_state(e, core);
}
