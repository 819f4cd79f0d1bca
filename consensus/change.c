/*
 * Leader: changes of membership, one at a time, each only after an entry of the leader's own term has committed (Ongaro,
 * raft-dev 2015). If the voters stay the same it is one VIEW entry; else a joint one first, and when that is committed the
 * final one, which also holds who joins and leaves (Raft 4.3). In order of urgency: finish what is joint; what was asked
 * for; the dead and those whose silence is believed, together; better voters out of caught-up learners.
 *
 * A death by the kernel's evidence is true for ever. Silence is believed if the leader has not heard of that member itself
 * for silence_ns; one that it does not hear from in the ordinary way it asks first.
 *
 * What changes who votes goes into the log only when majorities of the old and of the new set have answered a round that was sent since the
 * change is due: once there it can be neither committed without them nor taken back.
 */
#include "consensus/engine.h"

/* ---- voters that would be better ---- */

static bool live_member(const void *context, unsigned i, agreement_member_t *out)
{
    const agreement_t *e = context;
    if (member_state(e, (rf_core_t)i) != AGREEMENT_MEMBER_IN || bit_get(e->dead, i) ||
        bit_get(e->believed, i))
        return false;
    *out = (agreement_member_t){.core = (rf_core_t)i, .incarnation = member_incarnation(e, (rf_core_t)i)};
    return true;
}

/* Finds out who should vote, and feeds those who do not yet. */
void change_want(agreement_t *e)
{
    const config_t *c = config_newest(e);
    agreement_member_t wanted[AGREEMENT_VOTERS_MAX];
    unsigned n =
        config_choose(&e->params, live_member, e, e->params.n_cores, c->voters_new, c->n_new, wanted);
    e->n_candidates = 0;
    for (unsigned i = 0; i < n; i++) {
        if (config_find(e, c->voters_new, c->n_new, wanted[i]) == c->n_new)
            e->candidates[e->n_candidates++] = wanted[i];
    }
    e->candidates_ns = e->now_ns;
    e->due |= DUE_CHANGE;
}

void change_lead(agreement_t *e)
{
    e->late = NOBODY;
    memset(e->believed, 0, (e->params.n_cores + 7u) / 8);
    for (unsigned i = 0; i < (e->params.n_cores + 7u) / 8; i++) e->believed[i] = e->dead[i];
    e->n_suspicions = 0;
    if (e->formed) change_want(e);
    progress_configure(e);
}

static bool caught_up(const agreement_t *e, const progress_t *p)
{
    return !p->dead && p->mode == PROGRESS_STREAM && p->match >= e->term_index && p->match > 0 &&
           p->match + e->params.log_max / 4 >= e->committed && !bit_get(e->believed, p->member.core);
}

/* ---- the entry ---- */

typedef struct plan {
    wire_member_t changes[AGREEMENT_CHANGES_MAX];
    unsigned n_changes;
    uint64_t session, sequence;
    bool in_order; /* somebody leaves because it was asked for */
    uint8_t err;   /* nothing is done: why */
} plan_t;

typedef struct pool {
    agreement_member_t member[PROGRESS_MAX + 1];
} pool_t;

static bool pool_member(const void *context, unsigned i, agreement_member_t *out)
{
    *out = ((const pool_t *)context)->member[i];
    return true;
}

static bool leaves(const plan_t *plan, agreement_member_t m)
{
    for (unsigned i = 0; i < plan->n_changes; i++) {
        if (!(plan->changes[i].flags & CHANGE_JOINED) && same(from_wire(plan->changes[i]), m)) return true;
    }
    return false;
}

/* Is m, by its core, one of them? */
static bool has_core(const agreement_member_t *voters, unsigned n, rf_core_t core)
{
    for (unsigned i = 0; i < n; i++) {
        if (voters[i].core == core) return true;
    }
    return false;
}

/*
 * Of the voters after a change a majority were voters before, if enough of those stay: so the change commits without those it promotes, who
 * may all have died since they were heard. In place of the others those stay that would have been replaced; the next change goes on. Of
 * two or one no majority can stay when one is replaced: then it is one at a time.
 */
static void promote_few(const agreement_t *e, const plan_t *plan, agreement_member_t *out, unsigned n)
{
    const config_t *c = config_newest(e);
    unsigned n_kept = 0, next = 0, keep = n > 2 ? n / 2 + 1 : n - (n > 0);
    for (unsigned i = 0; i < n; i++) n_kept += config_find(e, c->voters_new, c->n_new, out[i]) < c->n_new;
    for (unsigned i = n; i > 0 && n_kept < keep; i--) {
        if (config_find(e, c->voters_new, c->n_new, out[i - 1]) < c->n_new) continue;
        for (; next < c->n_new; next++) {
            agreement_member_t m = c->voters_new[next];
            if (!leaves(plan, m) && !bit_get(e->dead, m.core) && !bit_get(e->believed, m.core) &&
                !has_core(out, n, m.core))
                break;
        }
        if (next == c->n_new) return;
        out[i - 1] = c->voters_new[next++];
        n_kept++;
    }
}

static unsigned choose(agreement_t *e, const plan_t *plan, agreement_member_t *out)
{
    const config_t *c = config_newest(e);
    pool_t pool;
    unsigned n = 0;
    for (unsigned i = 0; i < c->n_new; i++) {
        if (!leaves(plan, c->voters_new[i])) pool.member[n++] = c->voters_new[i];
    }
    for (unsigned i = e->n_voters; i < e->n_progress; i++) {
        const progress_t *p = &e->progress[i];
        if (p->sets == 0 && member_in(e, p->member) && caught_up(e, p) && !leaves(plan, p->member))
            pool.member[n++] = p->member;
    }
    n = config_choose(&e->params, pool_member, &pool, n, c->voters_new, c->n_new, out);
    promote_few(e, plan, out, n);
    return n;
}

static bool same_set(const config_t *c, const agreement_member_t *voters, unsigned n)
{
    bool equal = c->n_new == n;
    for (unsigned i = 0; i < n && equal; i++) {
        bool there = false;
        for (unsigned k = 0; k < n; k++) there |= same(c->voters_new[k], voters[i]);
        equal = there;
    }
    return equal;
}

static bool append_view(agreement_t *e, const config_t *from, bool joint, const agreement_member_t *voters,
                        unsigned n, const plan_t *plan)
{
    wire_view_t head = {.view = from->view + 1,
                        .session = plan->session,
                        .sequence = plan->sequence,
                        .joint = joint,
                        .err = plan->err,
                        .n_old = joint ? from->n_new : 0,
                        .n_new = (uint8_t)n,
                        .n_changes = (uint16_t)plan->n_changes};
    uint8_t body[sizeof head + (2 * AGREEMENT_VOTERS_MAX + AGREEMENT_CHANGES_MAX) * sizeof(wire_member_t)];
    size_t size = sizeof head;
    memcpy(body, &head, sizeof head);
    for (unsigned i = 0; i < head.n_old; i++, size += sizeof(wire_member_t)) {
        wire_member_t m = to_wire(from->voters_new[i], 0);
        memcpy(body + size, &m, sizeof m);
    }
    for (unsigned i = 0; i < n; i++, size += sizeof(wire_member_t)) {
        wire_member_t m = to_wire(voters[i], 0);
        memcpy(body + size, &m, sizeof m);
    }
    memcpy(body + size, plan->changes, plan->n_changes * sizeof(wire_member_t));
    size += plan->n_changes * sizeof(wire_member_t);
    /* Whoever asked has it executed by the entry that ends the change. */
    return log_append(e, AGREEMENT_ENTRY_VIEW, joint ? 0 : plan->session, joint ? 0 : plan->sequence, body,
                      size) == RF_OK;
}

/* How many changes fit beside two full sets of voters. */
static unsigned changes_max(const agreement_t *e)
{
    size_t room =
        (e->params.entry_max - sizeof(wire_view_t)) / sizeof(wire_member_t) - 2 * AGREEMENT_VOTERS_MAX;
    return room < AGREEMENT_CHANGES_MAX ? (unsigned)room : AGREEMENT_CHANGES_MAX;
}

/* They are asked again then. */
static uint64_t asked_until_ns(const agreement_t *e)
{
    return e->params.election_ns == RF_NEVER ? RF_NEVER
                                             : add_ns(e->change_asked_ns, e->params.election_ns / 2);
}

static bool has_answered(const agreement_t *e, const progress_t *p)
{
    return !p->dead && p->match >= e->term_index && p->round >= e->change_round;
}

/* An answer is worth an election's time: what it says of a leader that stood still for longer was said long before. */
static void ask_voters(agreement_t *e, const agreement_member_t *voters, unsigned n)
{
    bool stood =
        e->params.election_ns != RF_NEVER && e->now_ns >= add_ns(e->change_asked_ns, e->params.election_ns);
    role_next_round(e);
    e->change_round = e->change_round == 0 || stood ? e->round : e->change_round_next;
    e->change_round_next = e->round;
    e->change_asked_ns = e->now_ns;
    for (unsigned i = 0; i < n; i++) { /* who learns is asked by a FEED */
        progress_t *p = progress_find(e, voters[i]);
        if (p) p->ask = true;
    }
    e->due |= DUE_FEED;
}

/* Whether majorities of the voters of now and of these have answered since a change is due; if not they are asked. */
static bool majorities_are_there(agreement_t *e, const agreement_member_t *voters, unsigned n)
{
    if (defect(e, AGREEMENT_DEFECT_CHANGE_UNASKED)) return true;
    if (e->change_round == 0 || e->now_ns >= asked_until_ns(e)) ask_voters(e, voters, n);
    unsigned there = 0;
    for (unsigned i = 0; i < n; i++) {
        const progress_t *p = progress_find(e, voters[i]);
        there += is_self(e, voters[i]) || (p && has_answered(e, p));
    }
    if (there > n / 2 && progress_majority(e, PROGRESS_ROUND, e->round) >= e->change_round) return true;
    e->change_waits = true;
    return false;
}

typedef enum started {
    STARTED,
    START_LATER, /* who is needed has not answered yet, or the log is full */
    START_NEVER, /* nothing is to be done, or it would leave nobody, or one alone, to vote */
} started_t;

static started_t start(agreement_t *e, const plan_t *plan, bool may_be_one)
{
    const config_t *c = config_newest(e);
    agreement_member_t voters[AGREEMENT_VOTERS_MAX];
    unsigned n = choose(e, plan, voters);
    if (n == 0 || (n < 2 && c->n_new >= 2 && !may_be_one && !defect(e, AGREEMENT_DEFECT_EXPEL_TO_ONE)))
        return START_NEVER; /* crashes never leave fewer than two */
    bool joint = !same_set(c, voters, n);
    if (!joint && plan->n_changes == 0) return START_NEVER;
    if (joint && !majorities_are_there(e, voters, n)) return START_LATER;
    if (append_view(e, c, joint, voters, n, plan)) return STARTED;
    e->change_waits = joint; /* for room: what was answered is still worth something */
    return START_LATER;
}

/* ---- what was asked for ---- */

static void plan_leave(plan_t *plan, agreement_member_t m, uint16_t flags)
{
    if (plan->n_changes < AGREEMENT_CHANGES_MAX && !leaves(plan, m))
        plan->changes[plan->n_changes++] = to_wire(m, flags);
}

/* False: not yet. */
static bool start_request(agreement_t *e)
{
    plan_t plan = {.session = e->request.session, .sequence = e->request.sequence};
    unsigned n_escapes = e->n_escapes;
    for (unsigned i = 0; i < e->request.n_leave; i++) {
        if (!member_in(e, e->request.leave[i])) continue;
        plan_leave(&plan, e->request.leave[i], e->request.expel ? 0 : CHANGE_IN_ORDER);
        plan.in_order = !e->request.expel;
    }
    for (unsigned i = 0; i < e->request.n_join; i++) {
        rf_core_t core = e->request.join[i];
        rf_incarnation_t was = member_incarnation(e, core);
        /* Those beyond INCARNATION_INLINE have their room in snapshots already. */
        if (was >= INCARNATION_MAX || (was == INCARNATION_INLINE && n_escapes >= ESCAPES_MAX)) continue;
        n_escapes += was == INCARNATION_INLINE;
        if (member_state(e, core) == AGREEMENT_MEMBER_IN) {
            plan_leave(&plan, (agreement_member_t){.core = core, .incarnation = was}, 0);
        }
        agreement_member_t m = {.core = core, .incarnation = was < 1 ? 2 : was + 1};
        if (plan.n_changes < AGREEMENT_CHANGES_MAX)
            plan.changes[plan.n_changes++] = to_wire(m, CHANGE_JOINED);
    }
    started_t started = start(e, &plan, plan.in_order);
    if (started == STARTED) e->request.used = false;
    if (started != START_NEVER) return started == STARTED;
    /* It cannot be: nobody would be left to vote, or one alone. An empty view answers it; what it asked for is not in it. */
    plan.n_changes = 0;
    plan.err = RF_ERR_INVALID;
    const config_t *c = config_newest(e);
    if (append_view(e, c, false, c->voters_new, c->n_new, &plan)) e->request.used = false;
    return true;
}

/* ---- the dead ---- */

static agreement_member_t member_of(const agreement_t *e, rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = member_incarnation(e, core)};
}

static bool start_expulsion(agreement_t *e)
{
    plan_t plan = {0};
    unsigned max = changes_max(e);
    for (unsigned i = 0; i < (e->params.n_cores + 7u) / 8 && plan.n_changes < max; i++) {
        if (e->believed[i] == 0) continue;
        for (unsigned core = i * 8; core < i * 8 + 8 && core < e->params.n_cores && plan.n_changes < max;
             core++) {
            if (!bit_get(e->believed, core) || member_state(e, (rf_core_t)core) != AGREEMENT_MEMBER_IN)
                continue;
            agreement_member_t m = member_of(e, (rf_core_t)core);
            if (!is_self(e, m)) plan_leave(&plan, m, 0);
        }
    }
    if (plan.n_changes == 0 || start(e, &plan, false) != STARTED) return false;
    if (leaves(&plan, e->late)) {
        e->behind = e->late;
        e->late = NOBODY;
    }
    return true;
}

static bool start_promotion(agreement_t *e)
{
    bool all = true;
    if (e->n_candidates == 0) return false;
    for (unsigned i = 0; i < e->n_candidates; i++) {
        const progress_t *p = progress_find(e, e->candidates[i]);
        all &= p && caught_up(e, p);
    }
    if (!all && e->now_ns < add_ns(e->candidates_ns, e->params.election_ns)) return false;
    plan_t plan = {0};
    agreement_member_t voters[AGREEMENT_VOTERS_MAX];
    unsigned n = choose(e, &plan, voters);
    const config_t *c = config_newest(e);
    if (n < c->n_new && n < 2) return false;
    return !same_set(c, voters, n) && start(e, &plan, false) == STARTED;
}

void change_step(agreement_t *e)
{
    if (!leads(e) || e->transfer_until_ns != RF_NEVER) return;
    /* The defect takes what is joint in its log for committed. */
    if (e->pending && config_newest(e)->joint && defect(e, AGREEMENT_DEFECT_CHANGE_BEFORE_TERM)) {
        e->config ^= 1u;
        e->pending = false;
    }
    /* A majority of the sets that the change needs is dead: it can never commit. One without it may be elected, and undo it. */
    if (e->pending && !config_can_elect(e)) {
        role_step_down(e);
        return;
    }
    if (e->pending) return;
    /* The rest is applied in the next step (completions full, groups to be told first): looked at again then. */
    if (e->committed >= e->term_index && e->applied < e->committed) e->due |= DUE_CHANGE;
    if ((e->committed < e->term_index || e->applied < e->committed) &&
        !defect(e, AGREEMENT_DEFECT_CHANGE_BEFORE_TERM))
        return;
    if (!e->formed) return;
    const config_t *c = config_committed(e);
    if (c->joint) {
        plan_t plan = {.n_changes = c->n_changes, .session = c->session, .sequence = c->sequence};
        memcpy(plan.changes, c->changes, c->n_changes * sizeof *plan.changes);
        append_view(e, c, false, c->voters_new, c->n_new, &plan);
        return;
    }
    if (config_sets(e, c, e->params.self) == 0) { /* this one has left: the others go on */
        role_transfer(e);
        for (unsigned i = 0; i < e->n_voters && e->stand_to.core != RF_CORE_NONE; i++) {
            if (same(e->progress[i].member, e->stand_to)) send_all(e);
        }
        role_step_down(e);
        return;
    }
    e->change_waits = false;
    bool started = (e->request.used && start_request(e)) || start_expulsion(e) || start_promotion(e);
    if (started || !e->change_waits) e->change_round = 0;
}

/* ---- deaths and suspicions ---- */

static void unsuspect(agreement_t *e, unsigned i)
{
    e->suspicions[i] = e->suspicions[--e->n_suspicions];
}

static void believe(agreement_t *e, agreement_member_t m)
{
    if (bit_get(e->believed, m.core)) return;
    bit_set(e->believed, m.core, true);
    e->due |= DUE_CHANGE;
    change_want(e);
    progress_configure(e);
}

static void suspect(agreement_t *e, agreement_member_t m)
{
    for (unsigned i = 0; i < e->n_suspicions; i++) {
        if (same(e->suspicions[i].member, m)) return;
    }
    if (e->n_suspicions == SUSPICIONS_MAX) {
        engine_ignore(e, "ignoring: too many members are suspected already");
        return;
    }
    progress_t *p = progress_find(e, m);
    uint64_t since = p && config_sets(e, config_newest(e), m) ? p->heard_ns : e->now_ns;
    if (e->now_ns >= add_ns(since, e->params.silence_ns)) {
        believe(e, m);
        return;
    }
    if (!p) p = progress_add(e, m); /* to ask it */
    if (p) {
        p->ask = true;
        e->due |= DUE_FEED;
    }
    e->suspicions[e->n_suspicions++] = (suspicion_t){.member = m, .since_ns = since};
}

void change_heard(agreement_t *e, agreement_member_t m)
{
    for (unsigned i = 0; i < e->n_suspicions; i++) {
        if (same(e->suspicions[i].member, m)) unsuspect(e, i--);
    }
    if (bit_get(e->believed, m.core) && !bit_get(e->dead, m.core) && member_in(e, m)) {
        bit_set(e->believed, m.core, false);
        if (same(e->late, m)) e->late = NOBODY;
    }
}

/* Its next answer takes it back, unless the change is under way by then: so it is said again and again. */
void change_stuck(agreement_t *e, agreement_member_t m)
{
    if (!member_in(e, m) || is_self(e, m)) return;
    e->late = m;
    believe(e, m);
}

void change_died(agreement_t *e, agreement_member_t m, agreement_evidence_t evidence, bool first_hand)
{
    if (m.core >= e->params.n_cores || is_self(e, m) || m.incarnation == 0) {
        engine_ignore(e, "ignoring: no such member, or myself");
        return;
    }
    rf_incarnation_t known = member_incarnation(e, m.core);
    bool formed = e->formed || known != 0;
    if ((formed && m.incarnation < known) ||
        (known == m.incarnation && member_state(e, m.core) == AGREEMENT_MEMBER_OUT)) {
        engine_ignore(e, "ignoring: it has left already");
        return;
    }
    if (m.incarnation != known &&
        !(m.incarnation == 1 && !e->formed)) { /* the log has not named it yet, here */
        for (unsigned i = 0; i < e->n_early; i++) {
            if (same(e->early[i], m)) return;
        }
        if (evidence == AGREEMENT_EVIDENCE_KERNEL && e->n_early < EARLY_DEATHS_MAX)
            e->early[e->n_early++] = m;
        return;
    }
    if (evidence == AGREEMENT_EVIDENCE_SILENCE) {
        if (!e->formed || bit_get(e->dead, m.core)) return;
        if (leads(e)) {
            suspect(e, m);
        } else if (first_hand) {
            bit_set(e->silent, m.core, true);
            e->n_silent_tells = 0;
            e->due |= DUE_REPORTS;
            if (same(m, e->leader)) role_leader_unheard(e);
        }
        return;
    }
    if (bit_get(e->dead, m.core)) {
        engine_ignore(e, "ignoring: known to be dead");
        return;
    }
    bit_set(e->dead, m.core, true);
    if (same(e->late, m)) e->late = NOBODY; /* it leaves because it died */
    e->due |= DUE_REPORTS;
    progress_t *p = progress_find(e, m);
    if (p && same(p->member, m)) p->dead = true;
    change_heard(e, m);
    if (leads(e)) {
        believe(e, m);
        e->due |= DUE_CHANGE; /* also if its silence was believed: a change that needs it is given up */
    }
    role_update_lost(e);
    if (same(e->leader, m) || (e->leader.core == RF_CORE_NONE && same(e->dead_leader, m)))
        role_leader_died(e);
}

void change_tick(agreement_t *e)
{
    if (!leads(e)) return;
    for (unsigned i = 0; i < e->n_suspicions; i++) {
        suspicion_t s = e->suspicions[i];
        if (!member_in(e, s.member)) {
            unsuspect(e, i--);
        } else if (e->now_ns >= add_ns(s.since_ns, e->params.silence_ns)) {
            unsuspect(e, i--);
            believe(e, s.member);
        }
    }
    if (e->n_candidates > 0 || e->request.used || e->change_round != 0) e->due |= DUE_CHANGE;
}

uint64_t change_next_ns(const agreement_t *e)
{
    uint64_t next = RF_NEVER;
    if (!leads(e)) return next;
    for (unsigned i = 0; i < e->n_suspicions; i++)
        earlier(&next, add_ns(e->suspicions[i].since_ns, e->params.silence_ns));
    if (e->n_candidates > 0 && !e->pending) {
        uint64_t at = add_ns(e->candidates_ns, e->params.election_ns);
        if (at > e->now_ns) earlier(&next, at);
    }
    if (e->change_round != 0 && asked_until_ns(e) > e->now_ns) earlier(&next, asked_until_ns(e));
    return next;
}
