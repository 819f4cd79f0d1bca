#include "net_model.h"

#include <stdio.h>
#include <stdlib.h>

/* What each engine is at, for a person who looks into a failing seed. */
void net_print(const net_t *n)
{
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        const net_core_t *c = &n->cores[core];
        agreement_state_t s = net_state(n, core);
        printf("core %u.%u alive %d expelled %d role %u term %llu leader %u.%u view %llu log %llu-%llu "
               "committed %llu applied %llu "
               "members %u joint %d formed %d quorum %d lost %d tick %+lld us; voters",
               core, c->incarnation, c->alive, c->expelled, s.role, (unsigned long long)s.term, s.leader.core,
               s.leader.incarnation, (unsigned long long)s.view, (unsigned long long)s.first,
               (unsigned long long)s.last, (unsigned long long)s.committed, (unsigned long long)s.applied,
               s.members, s.joint, s.formed, s.quorum, s.lost,
               c->tick_ns == RF_NEVER ? -1ll : (long long)(c->tick_ns - n->now_ns) / 1000);
        for (unsigned i = 0; i < s.n_voters; i++) printf(" %u.%u", s.voters[i].core, s.voters[i].incarnation);
        printf("\n");
    }
}

/* ---- the network ---- */

agreement_params_t net_params(net_t *n, agreement_member_t self)
{
    const net_knobs_t *k = &n->knobs;
    return (agreement_params_t){
        .self = self,
        .machine = {.bytes = {1, 2, 3}},
        .n_cores = (rf_core_t)k->cores,
        .log_max = k->log_max ? k->log_max : 64,
        .entry_max = k->entry_max ? k->entry_max : 256,
        .proposals_max = k->proposals_max ? k->proposals_max : AGREEMENT_WINDOW,
        .sessions_max = k->sessions_max ? k->sessions_max : 4,
        .snapshot_max = k->snapshot_size ? k->snapshot_size : 9000,
        .voters_max = k->voters_max ? k->voters_max : 3,
        .host = n->host,
        .package = n->package,
        .witness = n->witness,
        .plan = k->plan,
        .weights = {1, 2, 4},
        .resend_ns = k->lossless ? RF_NEVER : 500 * US,
        .heartbeat_ns = k->no_timeouts ? RF_NEVER : MS,
        .election_ns = k->no_timeouts   ? RF_NEVER
                       : k->election_ns ? k->election_ns
                                        : 5 * MS,
        .silence_ns = 15 * MS,
        .behind_ns = k->behind_ns,
        .lease_ns = k->lease_ns,
        .drift_ppm = 1000,
        .seed = 7,
        .lane_lines = k->lane_lines,
        .defects = k->defects,
        .group = k->group,
        .plain = k->plain,
        .state_machine = net_model_machine(&n->cores[self.core]),
    };
}

/* The engine's memory begins 64 bytes into it; before that is where the model is. */
void net_start(net_t *n, rf_core_t core, rf_incarnation_t incarnation)
{
    net_core_t *c = &n->cores[core];
    agreement_params_t params = net_params(n, (agreement_member_t){.core = core, .incarnation = incarnation});
    size_t size = agreement_size(&params);
    rf_assert(size > 0);
    if (c->engine) n->shortcuts += net_state(n, core).shortcuts;
    free(c->memory);
    *c = (net_core_t){.alive = true, .incarnation = incarnation, .tick_ns = RF_NEVER};
    c->memory = aligned_alloc(64, 64 + ((size + 63) & ~(size_t)63));
    rf_assert(c->memory);
    *(net_t **)c->memory = n;
    rf_assert(agreement_init((uint8_t *)c->memory + 64, size, &params, &c->engine) == RF_OK);
    for (rf_core_t other = 0; other < n->knobs.cores; other++) { /* new links */
        if (other == core || !n->cores[other].alive) continue;
        agreement_event_t room = {.kind = AGREEMENT_ROOM, .peer = net_member(n, core)};
        net_step(n, other, &room);
    }
}

net_t *net_new(const net_knobs_t *knobs, uint64_t seed)
{
    net_t *n = calloc(1, sizeof *n);
    rf_assert(n);
    n->knobs = *knobs;
    n->now_ns = 100 * MS;
    n->proposed = calloc(NET_PROPOSED_MAX, sizeof *n->proposed);
    n->reads = calloc(NET_READS_MAX, sizeof *n->reads);
    n->entries = calloc(NET_LOG_MAX, sizeof *n->entries);
    n->history = calloc(NET_PROPOSED_MAX, sizeof *n->history);
    n->hashes = calloc(NET_PROPOSED_MAX + 1, sizeof *n->hashes);
    n->executed = calloc(NET_PROPOSED_MAX + 1, 1);
    n->denied = calloc(NET_PROPOSED_MAX + 1, 1);
    n->maybe = calloc(NET_PROPOSED_MAX + 1, 1);
    for (unsigned i = 0; i < NET_TERMS_MAX; i++) n->leaders[i].core = RF_CORE_NONE;
    for (unsigned i = 0; i < NET_CORES_MAX; i++) {
        n->host[i] = (uint16_t)(knobs->per_host ? i / knobs->per_host : 0);
        n->package[i] = knobs->per_package ? i / knobs->per_package : 0;
        n->witness[i] = knobs->witness_host != 0 && n->host[i] + 1u == knobs->witness_host;
    }
    rf_prng_seed(&n->prng, seed);
    for (rf_core_t core = 0; core < knobs->cores; core++) net_start(n, core, 1);
    return n;
}

void net_free(net_t *n)
{
    for (unsigned i = 0; i < n->n_flight; i++) free(n->flight[i]);
    for (unsigned i = 0; i < n->knobs.cores; i++) free(n->cores[i].memory);
    free(n->delivering);
    free(n->proposed);
    free(n->reads);
    free(n->entries);
    free(n->history);
    free(n->hashes);
    free(n->executed);
    free(n->denied);
    free(n->maybe);
    free(n);
}

agreement_member_t net_member(const net_t *n, rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = n->cores[core].incarnation};
}

static void send(net_t *n, rf_core_t from, const agreement_message_t *m)
{
    for (unsigned i = 0; i < m->n_to; i++) {
        rf_core_t to = m->to[i].core;
        rf_assert(to < n->knobs.cores && m->size <= AGREEMENT_MESSAGE_MAX && m->size > 0);
        /* A new incarnation may hear of a group before it hears that its last one has left it. */
        rf_assert(to != from || n->knobs.defects != 0 || groups_type(m->type));
        bool careless = n->knobs.defects & AGREEMENT_DEFECT_NEW_INCARNATION_VOTES;
        if (to == from || (m->to[i].incarnation != n->cores[to].incarnation && !careless)) continue;
        unsigned copies = rf_prng_below(&n->prng, 100) < n->knobs.repeat_percent ? 2 : 1;
        for (unsigned k = 0; k < copies; k++) {
            if (n->n_flight == NET_FLIGHT_MAX || rf_prng_below(&n->prng, 100) < n->knobs.lose_percent ||
                n->cut[from][to]) {
                n->n_lost++;
                continue;
            }
            net_message_t *copy = malloc(sizeof *copy + m->size);
            rf_assert(copy);
            copy->from = net_member(n, from);
            copy->to = net_member(n, to);
            copy->type = m->type;
            copy->size = m->size;
            copy->order = n->order++;
            copy->at_ns = n->now_ns + n->far_ns + 5 * US + rf_prng_below(&n->prng, 40 * US);
            if (n->knobs.reorder && rf_prng_below(&n->prng, 20) == 0)
                copy->at_ns += rf_prng_below(&n->prng, 3 * MS);
            uint64_t slow_ns = n->slow_ns[from][to];
            if (slow_ns > 0)
                copy->at_ns = (n->link_ns[from][to] > n->now_ns ? n->link_ns[from][to] : n->now_ns) + slow_ns;
            if (!n->knobs.reorder && copy->at_ns <= n->link_ns[from][to])
                copy->at_ns = n->link_ns[from][to] + 1;
            n->link_ns[from][to] = copy->at_ns;
            memcpy(copy->bytes, m->bytes, m->size);
            n->flight[n->n_flight++] = copy;
        }
    }
}

void net_step(net_t *n, rf_core_t core, agreement_event_t *event)
{
    net_core_t *c = &n->cores[core];
    agreement_event_t tick = {.kind = AGREEMENT_TICK};
    if (!c->alive) return;
    for (unsigned rounds = 0;; rounds++) {
        if (rounds > 10000) net_unsafe(n, "it never comes to rest");
        event->now_ns = n->now_ns;
        event->hold = event->kind != AGREEMENT_TICK && n->knobs.hold_percent > 0 &&
                      rf_prng_below(&n->prng, 100) < n->knobs.hold_percent;
        const agreement_output_t *out = agreement_step(c->engine, event);
        n->n_steps++;
        net_model_hash(n, core, out);
        if (n->trace && out->ignored) printf("    %u: %s\n", core, out->ignored);
        if (n->watch) n->watch(n, core, out);
        if (out->applied_from <= out->applied_to) c->applied = out->applied_to;
        c->tick_ns = out->next_tick_ns;
        c->view_changed |= out->view_changed;
        c->role_changed |= out->role_changed;
        for (unsigned i = 0; i < out->n_messages; i++) send(n, core, &out->messages[i]);
        for (unsigned i = 0; out->group && i < out->group->n_messages; i++) {
            const group_message_t *m = &out->group->messages[i];
            send(n, core,
                 &(agreement_message_t){
                     .to = m->to, .n_to = m->n_to, .type = m->type, .bytes = m->bytes, .size = m->size});
        }
        for (unsigned i = 0; i < out->n_completions; i++) net_model_answered(n, core, &out->completions[i]);
        net_model_check(n, core);
        if (out->expelled) {
            c->alive = false;
            c->expelled = true;
            return;
        }
        if (!out->more) return;
        event = &tick;
    }
}

void net_receive(net_t *n, rf_core_t to, agreement_member_t from, uint8_t type, const void *bytes,
                 size_t size)
{
    agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
    event.receive.from = from;
    event.receive.type = type;
    event.receive.bytes = bytes;
    event.receive.size = size;
    if (n->trace)
        printf("%llu us: %u <- %u %s\n", (unsigned long long)(n->now_ns / US), to, from.core,
               agreement_type_name(type));
    net_step(n, to, &event);
}

void net_form(net_t *n)
{
    rf_core_t all[NET_CORES_MAX];
    unsigned count = 0;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        if (n->cores[core].alive) all[count++] = core;
    }
    agreement_event_t event = {.kind = AGREEMENT_FORM};
    event.form.cores = all;
    event.form.n_cores = count;
    net_step(n, all[0], &event);
}

static unsigned note(net_t *n, rf_core_t core, uint64_t session, uint64_t sequence, uint64_t number)
{
    rf_assert(n->n_proposed < NET_PROPOSED_MAX);
    n->proposed[n->n_proposed] = (net_proposal_t){.core = core,
                                                  .incarnation = n->cores[core].incarnation,
                                                  .session = session,
                                                  .sequence = sequence,
                                                  .number = number};
    return n->n_proposed++;
}

unsigned net_propose_as(net_t *n, rf_core_t core, uint64_t session, uint64_t sequence, uint64_t number)
{
    unsigned at = note(n, core, session, sequence, number);
    uint64_t bytes[16] = {number, number ^ 5};
    agreement_event_t event = {.kind = AGREEMENT_PROPOSE};
    event.propose.session = session;
    event.propose.sequence = sequence;
    event.propose.bytes = bytes;
    event.propose.size = 8 + number % 25 + (number % 7 == 0 ? 90 : 0);
    net_step(n, core, &event);
    return at;
}

unsigned net_propose(net_t *n, rf_core_t core)
{
    net_core_t *c = &n->cores[core];
    uint64_t sequence = ++c->next_sequence, number = ++n->next_number;
    return net_propose_as(n, core, agreement_own_session(c->engine), sequence, number);
}

static unsigned change(net_t *n, rf_core_t core, agreement_event_t event)
{
    net_core_t *c = &n->cores[core];
    event.change.sequence = ++c->next_sequence;
    unsigned at = note(n, core, agreement_own_session(c->engine), event.change.sequence, 0);
    net_step(n, core, &event);
    return at;
}

unsigned net_change(net_t *n, rf_core_t core, const rf_core_t *join, unsigned n_join,
                    const agreement_member_t *leave, unsigned n_leave)
{
    return change(
        n, core,
        (agreement_event_t){.kind = AGREEMENT_CHANGE,
                            .change = {.join = join, .n_join = n_join, .leave = leave, .n_leave = n_leave}});
}

unsigned net_expel(net_t *n, rf_core_t core, const agreement_member_t *leave, unsigned n_leave)
{
    return change(n, core,
                  (agreement_event_t){.kind = AGREEMENT_CHANGE,
                                      .change = {.leave = leave, .n_leave = n_leave, .expel = true}});
}

unsigned net_session(net_t *n, rf_core_t core, agreement_event_kind_t kind, uint64_t session)
{
    net_core_t *c = &n->cores[core];
    agreement_event_t event = {.kind = kind};
    event.session.sequence = ++c->next_sequence;
    event.session.session = session;
    unsigned at = note(n, core, agreement_own_session(c->engine), event.session.sequence, 0);
    net_step(n, core, &event);
    return at;
}

unsigned net_read(net_t *n, rf_core_t core)
{
    rf_assert(n->n_reads < NET_READS_MAX);
    unsigned at = n->n_reads++;
    n->reads[at] = (net_read_t){.core = core, .incarnation = n->cores[core].incarnation, .needs = n->n_acked};
    agreement_event_t event = {.kind = AGREEMENT_READ, .read = {.cookie = at}};
    net_step(n, core, &event);
    return at;
}

/* ---- time ---- */

static void deliver(net_t *n, unsigned i)
{
    net_message_t *m = n->flight[i];
    n->flight[i] = n->flight[--n->n_flight];
    net_core_t *c = &n->cores[m->to.core];
    if (c->alive && c->incarnation == m->to.incarnation && !n->cut[m->from.core][m->to.core]) {
        n->n_delivered++;
        n->types |= 1ull << (m->type - AGREEMENT_TYPE_FIRST);
        free(n->delivering);
        n->delivering = malloc(m->size); /* so that a sanitizer sees a read beyond it */
        memcpy(n->delivering, m->bytes, m->size);
        net_message_t head = *m;
        free(m);
        net_receive(n, head.to.core, head.from, head.type, n->delivering, head.size);
        return;
    }
    n->n_lost++;
    free(m);
}

/* The next thing that happens, if it does before `until`. */
static bool next(net_t *n, uint64_t until)
{
    uint64_t at = until, order = 0;
    unsigned what = UINT32_MAX;
    for (unsigned i = 0; i < n->n_flight; i++) {
        const net_message_t *m = n->flight[i];
        uint64_t when = m->at_ns;
        if (n->cores[m->to.core].stalled_until_ns > when) when = n->cores[m->to.core].stalled_until_ns;
        if (when > at || (when == at && (what == UINT32_MAX || m->order > order))) continue;
        at = when;
        order = m->order;
        what = i;
    }
    for (unsigned i = 0; i < n->knobs.cores; i++) {
        const net_core_t *c = &n->cores[i];
        if (!c->alive) continue;
        uint64_t when = c->tick_ns > c->stalled_until_ns ? c->tick_ns : c->stalled_until_ns;
        if (c->tick_ns == RF_NEVER || when >= at) continue;
        at = when;
        what = NET_FLIGHT_MAX + i;
    }
    if (what == UINT32_MAX) return false;
    if (at > n->now_ns) n->now_ns = at;
    if (what < NET_FLIGHT_MAX) {
        deliver(n, what);
        return true;
    }
    agreement_event_t tick = {.kind = AGREEMENT_TICK};
    n->cores[what - NET_FLIGHT_MAX].tick_ns = RF_NEVER;
    net_step(n, (rf_core_t)(what - NET_FLIGHT_MAX), &tick);
    return true;
}

void net_run(net_t *n, uint64_t ns)
{
    uint64_t until = n->now_ns + ns;
    for (unsigned i = 0; next(n, until); i++) {
        if (i > 3000000) net_unsafe(n, "time does not go on");
    }
    n->now_ns = until;
}

bool net_until(net_t *n, bool (*condition)(net_t *n, void *context), void *context, uint64_t ns)
{
    uint64_t until = n->now_ns + ns;
    while (!condition(n, context)) {
        if (!next(n, until)) {
            n->now_ns = until;
            return condition(n, context);
        }
    }
    return true;
}

static bool is_answered(net_t *n, void *context)
{
    return n->proposed[*(unsigned *)context].answered;
}

bool net_answered(net_t *n, unsigned proposal, uint64_t ns)
{
    return net_until(n, is_answered, &proposal, ns);
}

static bool are_answered(net_t *n, void *context)
{
    (void)context;
    for (unsigned i = 0; i < n->n_proposed; i++) {
        const net_proposal_t *p = &n->proposed[i];
        const net_core_t *c = &n->cores[p->core];
        if (!p->answered && c->alive && c->incarnation == p->incarnation) return false;
    }
    for (unsigned i = 0; i < n->n_reads; i++) {
        const net_read_t *r = &n->reads[i];
        const net_core_t *c = &n->cores[r->core];
        if (!r->answered && c->alive && c->incarnation == r->incarnation) return false;
    }
    return true;
}

bool net_all_answered(net_t *n, uint64_t ns)
{
    return net_until(n, are_answered, NULL, ns);
}

/* ---- faults ---- */

void net_kill(net_t *n, rf_core_t core)
{
    n->cores[core].alive = false;
}

void net_tell_death(net_t *n, rf_core_t to, rf_core_t dead, agreement_evidence_t evidence)
{
    agreement_event_t event = {.kind = AGREEMENT_DEATH};
    event.death.member = net_member(n, dead);
    event.death.evidence = evidence;
    net_step(n, to, &event);
}

void net_tell_all(net_t *n, rf_core_t dead)
{
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        if (core != dead) net_tell_death(n, core, dead, AGREEMENT_EVIDENCE_KERNEL);
    }
}

void net_cut(net_t *n, rf_core_t a, rf_core_t b, bool cut)
{
    bool was = n->cut[a][b] || n->cut[b][a];
    n->cut[a][b] = n->cut[b][a] = cut;
    if (!was || cut) return;
    for (unsigned i = 0; i < 2; i++) { /* a new link */
        agreement_event_t room = {.kind = AGREEMENT_ROOM, .peer = net_member(n, i ? a : b)};
        net_step(n, i ? b : a, &room);
    }
}

void net_isolate(net_t *n, rf_core_t core, bool cut)
{
    for (rf_core_t other = 0; other < n->knobs.cores; other++) {
        if (other != core) net_cut(n, core, other, cut);
    }
}

void net_heal(net_t *n)
{
    n->knobs.lose_percent = n->knobs.repeat_percent = 0;
    n->knobs.reorder = false;
    for (rf_core_t a = 0; a < n->knobs.cores; a++) {
        n->cores[a].stalled_until_ns = 0;
        for (rf_core_t b = 0; b < a; b++) {
            if (n->cut[a][b] || n->cut[b][a]) net_cut(n, a, b, false);
        }
    }
}

/* ---- questions ---- */

agreement_state_t net_state(const net_t *n, rf_core_t core)
{
    agreement_state_t state;
    agreement_query(n->cores[core].engine, &state);
    return state;
}

uint64_t net_shortcuts(const net_t *n)
{
    uint64_t shortcuts = n->shortcuts;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) shortcuts += net_state(n, core).shortcuts;
    return shortcuts;
}

rf_core_t net_leader(const net_t *n)
{
    rf_core_t leader = RF_CORE_NONE;
    uint64_t term = 0;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        if (!n->cores[core].alive) continue;
        agreement_state_t s = net_state(n, core);
        if (s.role != AGREEMENT_ROLE_LEADER || s.term <= term) continue;
        leader = core;
        term = s.term;
    }
    return leader;
}

unsigned net_live_voters(const net_t *n, const agreement_state_t *s)
{
    unsigned live = 0;
    for (unsigned i = 0; i < s->n_voters; i++) {
        const net_core_t *c = &n->cores[s->voters[i].core];
        live += c->alive && c->incarnation == s->voters[i].incarnation;
    }
    return live;
}

bool net_may_die(const net_t *n, rf_core_t core)
{
    for (rf_core_t at = 0; at < n->knobs.cores; at++) {
        if (!n->cores[at].alive) continue;
        agreement_state_t s = net_state(n, at);
        if (!s.formed) return false;
        if (s.joint) return false;
        unsigned live = net_live_voters(n, &s);
        for (unsigned i = 0; i < s.n_voters; i++) {
            if (s.voters[i].core == core && s.voters[i].incarnation == n->cores[core].incarnation) live--;
        }
        if (live <= s.n_voters / 2) return false;
    }
    return true;
}
