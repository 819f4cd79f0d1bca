/*
 * Terms and roles. A term has at most one leader: a vote is given once a term, and majorities of every set in force meet
 * (Raft 3.4, 4.3). Three ways to an election:
 *
 *   evidence    the kernel says that the leader is dead: the best rank of live voters stands at once, the others
 *               a little later each; no pre-vote, but for who has failed EVIDENCE_STANDS times: it may be cut off
 *   silence     the leader was not heard for election_ns: pre-vote first, so that one that is merely cut off does
 *               not disturb the others when it comes back (Raft 9.6)
 *   transfer    the leader asks a caught-up voter to stand (Raft 3.10)
 *
 * Nothing is on disk: a process that dies takes its promises along, so a new one is a new incarnation, which is in no
 * configuration that the old one voted in (Michael et al., DISC 2017).
 */
#include "consensus/engine.h"

static uint64_t mix(uint64_t x) /* splitmix64 */
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static bool is_witness(const agreement_t *e, rf_core_t core)
{
    return e->params.witness && core < e->params.n_cores && e->params.witness[core];
}

/* Where this voter is among the live ones that may stand on evidence: witnesses last, then by core. */
static unsigned rank(const agreement_t *e)
{
    const config_t *c = config_newest(e);
    unsigned rank = 0;
    for (unsigned set = 0; set < 2; set++) {
        const agreement_member_t *voters = set ? c->voters_old : c->voters_new;
        for (unsigned i = 0; i < (set ? c->joint ? c->n_old : 0u : c->n_new); i++) {
            agreement_member_t m = voters[i];
            if (member_dead(e, m) || same(m, e->leader) || is_self(e, m)) continue;
            if (set && config_find(e, c->voters_new, c->n_new, m) < c->n_new) continue;
            bool before = is_witness(e, m.core) != is_witness(e, e->params.self.core)
                              ? !is_witness(e, m.core)
                              : m.core < e->params.self.core;
            rank += before;
        }
    }
    return rank;
}

/* Between the ranks that stand by silence. */
static uint64_t apart_ns(const agreement_t *e)
{
    return e->params.election_ns / 8 < 2 * RF_NS_PER_MS ? e->params.election_ns / 8 : 2 * RF_NS_PER_MS;
}

/*
 * When a voter stands after election_ns of silence: in the order of ranks, so that the first has been heard, or has failed,
 * before the next stands; by chance as well from the second attempt on.
 */
static uint64_t spread_ns(const agreement_t *e)
{
    uint64_t r =
        mix(e->params.seed ^ mix(e->term * 1024 + e->attempts) ^ ((uint64_t)e->params.self.core << 40));
    uint64_t election_ns = e->params.election_ns;
    if (election_ns == RF_NEVER) return 0;
    uint64_t ns = rank(e) * apart_ns(e);
    if (e->attempts > 1) ns += r % (apart_ns(e) / 4 + 1) + mix(r) % election_ns;
    return is_witness(e, e->params.self.core) ? ns + election_ns : ns;
}

static uint64_t patience_ns(const agreement_t *e) /* how long without a leader until there is no quorum */
{
    return e->params.election_ns == RF_NEVER ? RF_NEVER : 3 * e->params.election_ns;
}

void role_update_lost(agreement_t *e)
{
    bool lost = config_newest(e)->n_new > 0 && !config_can_agree(e);
    if (lost != e->lost) e->output.role_changed = true;
    e->lost = lost;
    if (lost && e->quorum) role_no_quorum(e);
}

void role_no_quorum(agreement_t *e)
{
    if (e->quorum) e->output.role_changed = true;
    e->quorum = false;
    e->due |= DUE_FAIL;
    if (defect(e, AGREEMENT_DEFECT_RESET_ON_PARTITION) && !leads(e) && e->formed) {
        e->voted = NOBODY;
        log_truncate(e, e->committed);
    }
}

static void quorum_again(agreement_t *e)
{
    if (e->quorum || e->lost) return;
    e->quorum = true;
    e->output.role_changed = true;
    e->due &= ~(uint32_t)DUE_FAIL;
}

/* The same as long as it is heard: computed once a term. */
static uint64_t heard_spread_ns(agreement_t *e)
{
    if (e->spread_term != e->term) {
        e->spread_term = e->term;
        e->spread_ns = spread_ns(e);
    }
    return e->spread_ns;
}

/* A leader of this term was heard. */
void role_heard(agreement_t *e)
{
    e->leader_heard_ns = e->now_ns;
    e->leader_unheard = false;
    e->attempts = 0;
    if (e->role == AGREEMENT_ROLE_FOLLOWER)
        e->election_at_ns = add_ns(add_ns(e->now_ns, e->params.election_ns), heard_spread_ns(e));
    if (!e->quorum) quorum_again(e);
}

static void set_leader(agreement_t *e, agreement_member_t leader)
{
    if (same(e->leader, leader)) return;
    e->leader = leader;
    e->leader_unheard = false;
    if (leader.core != RF_CORE_NONE) {
        e->leader_dead = member_dead(e, leader);
        e->dead_leader = leader;
    }
    e->output.role_changed = true;
    e->retry_at_ns = 0; /* what one had no room for another may take at once */
    proposal_unsend(e);
    for (unsigned i = 0; i < AGREEMENT_READS_MAX; i++) e->reads[i].sent = false;
    e->due |= DUE_READS | DUE_REPORTS;
    e->n_silent_tells = 0;
    if (!leads(e)) progress_configure(e);
}

static void become_follower(agreement_t *e)
{
    bool led = leads(e);
    e->role = config_self_votes(e) ? AGREEMENT_ROLE_FOLLOWER : AGREEMENT_ROLE_LEARNER;
    e->heartbeat_at_ns = e->check_at_ns = e->transfer_until_ns = RF_NEVER;
    e->pre = e->stands_on_evidence = e->stands_by_transfer = false;
    e->due &= ~(uint32_t)(DUE_VOTES | DUE_CHANGE | DUE_SERVED);
    e->output.role_changed = true;
    /* Who merely learns of a later term keeps its own time: else one that cannot win holds off one that could. */
    if (e->role != AGREEMENT_ROLE_FOLLOWER)
        e->election_at_ns = RF_NEVER;
    else if (led || e->election_at_ns <= e->now_ns || e->election_at_ns == RF_NEVER)
        e->election_at_ns = add_ns(add_ns(e->now_ns, e->params.election_ns), spread_ns(e));
    if (!led) return;
    e->leader_heard_ns = e->now_ns; /* the successor has as long to be heard as any leader */
    e->stand_to = NOBODY;
    e->transferring = false;
    e->request.used = false;
    e->change_round = 0;
    e->n_candidates = 0;
    read_unserve(e);
    e->leader = NOBODY;
    proposal_unsend(e);
    progress_configure(e);
}

bool role_adopt_term(agreement_t *e, uint64_t term)
{
    rf_assert(term > e->term);
    if (e->lanes && lane_bars_term(e)) return false;
    e->term = term;
    e->voted = NOBODY;
    e->matched = e->committed;
    if (e->role != AGREEMENT_ROLE_LEARNER) become_follower(e);
    set_leader(e, NOBODY);
    return true;
}

void role_follow(agreement_t *e, agreement_member_t leader)
{
    if (e->role == AGREEMENT_ROLE_CANDIDATE) become_follower(e);
    if (!same(e->leader, leader)) {
        e->matched = e->committed;
        set_leader(e, leader);
    }
    role_heard(e);
}

void role_step_down(agreement_t *e)
{
    become_follower(e);
    set_leader(e, NOBODY);
}

void role_next_round(agreement_t *e)
{
    e->round++;
    e->rounds_ns[e->round % ROUNDS_KEPT] = e->now_ns;
    for (unsigned i = 0; i < e->n_voters; i++) e->progress[i].ask = true;
    e->due |= DUE_FEED;
}

/*
 * A voter that answered a round of the leader at t does not vote before t + lease_ns by its clock; so until lease_ns after
 * that round was sent, less what the clocks may drift apart, nobody else leads (Raft 6.4.1).
 *
 * Judged by majorities of the sets in force now, old and new, not by those in force when the round was answered: a leader is
 * elected by majorities of the candidate's newest configuration, which is this one's newest, or the one before it, or
 * one that this leader has not appended, and then this one does not lead any more: of two configurations that follow one
 * another each majority of one meets a majority of a set of the other, so the candidate's majority holds somebody who answered,
 * and keeps the promise, whether it votes in its own log or not.
 */
bool role_lease_valid(const agreement_t *e)
{
    if (e->params.lease_ns == 0 || e->lease_over) return false;
    uint64_t round = progress_majority(e, PROGRESS_ROUND, e->round);
    if (round == 0 || round + ROUNDS_KEPT <= e->round) return false; /* when it was sent is forgotten */
    uint64_t drift_ns = (e->params.lease_ns * e->params.drift_ppm + 999999) / 1000000; /* rounded up */
    if (defect(e, AGREEMENT_DEFECT_NO_DRIFT)) drift_ns = 0;
    if (defect(e, AGREEMENT_DEFECT_LEASE_ENDLESS)) return true;
    uint64_t lease_ns = e->params.lease_ns - drift_ns;
    uint64_t now = defect(e, AGREEMENT_DEFECT_STALE_NOW) ? e->prev_now_ns : e->now_ns;
    return now < add_ns(e->rounds_ns[round % ROUNDS_KEPT], lease_ns);
}

bool role_promised(const agreement_t *e)
{
    if (e->leader_unheard && defect(e, AGREEMENT_DEFECT_BREAK_FREES)) return false;
    return e->promise_until_ns > e->now_ns && !member_dead(e, e->promised_to);
}

/* What earlier leaders have committed, and told others, may be in this log without being known here as committed, until an entry of the
 * own term is (Raft 6.4 has the same for reads): a round before that says nothing of views that are applied elsewhere. */
uint64_t agreement_contact_ns(const agreement_t *e)
{
    if (!leads(e) || e->committed < e->term_index || e->applied < e->committed) return 0;
    uint64_t round = progress_majority(e, PROGRESS_ROUND, e->round);
    return round == 0 || round + ROUNDS_KEPT <= e->round ? 0 : e->rounds_ns[round % ROUNDS_KEPT];
}

void role_lead(agreement_t *e)
{
    e->role = AGREEMENT_ROLE_LEADER;
    e->pre = false;
    e->n_elections++;
    e->due &= ~(uint32_t)DUE_VOTES;
    e->election_at_ns = RF_NEVER;
    e->transferring = e->lease_over = false;
    e->transfer_until_ns = RF_NEVER;
    e->stand_to = NOBODY;
    e->attempts = 0;
    e->trim_limit = e->granted_applied;
    e->n_served = 0;
    e->request.used = false;
    set_leader(e, e->params.self);
    e->leader_heard_ns = e->now_ns;
    e->output.role_changed = true;
    progress_reset(e);
    change_lead(e);
    e->term_index = e->last + 1;
    /* Entries are reserved for this; if even those are used up the log is sealed as it is (log.c). */
    if (e->last > 0 && log_append(e, AGREEMENT_ENTRY_TERM, 0, 0, NULL, 0) != RF_OK) {
        e->term_index = e->last;
        log_seal(e, e->last, e->term);
    }
    e->heartbeat_at_ns = add_ns(e->now_ns, e->params.heartbeat_ns);
    e->check_at_ns = add_ns(e->now_ns, e->params.election_ns);
    role_next_round(e);
    quorum_again(e);
    proposal_lead(e);
    e->due |= DUE_COMMIT | DUE_READS | DUE_CHANGE | DUE_PROPOSALS;
}

static void grant(agreement_t *e, agreement_member_t m)
{
    const config_t *c = config_newest(e);
    unsigned i = config_find(e, c->voters_new, c->n_new, m);
    if (i < c->n_new) e->granted_new |= (uint8_t)(1u << i);
    i = config_find(e, c->voters_old, c->n_old, m);
    if (i < c->n_old) e->granted_old |= (uint8_t)(1u << i);
}

void role_count_votes(agreement_t *e)
{
    const config_t *c = config_newest(e);
    if (e->role != AGREEMENT_ROLE_CANDIDATE) return;
    if ((unsigned)__builtin_popcount(e->granted_new) <= c->n_new / 2u) return;
    if (c->joint && !defect(e, AGREEMENT_DEFECT_SINGLE_MAJORITY) &&
        (unsigned)__builtin_popcount(e->granted_old) <= c->n_old / 2u)
        return;
    if (e->pre)
        role_stand(e, false, false, false);
    else
        role_lead(e);
}

/* Votes are bits of the places in the sets that were in force: with other sets they are asked for again. */
void role_recount(agreement_t *e)
{
    if (e->role != AGREEMENT_ROLE_CANDIDATE) return;
    e->granted_new = e->granted_old = 0;
    grant(e, e->params.self);
    e->due |= DUE_VOTES;
}

void role_granted(agreement_t *e, agreement_member_t by, const wire_vote_t *vote)
{
    if (vote->applied < e->granted_applied) e->granted_applied = vote->applied;
    if (vote->last < e->granted_last) e->granted_last = vote->last;
    grant(e, by);
    role_count_votes(e);
}

void role_behind(agreement_t *e)
{
    uint64_t turn = e->now_ns + STAGGER_NS * (16 + 8 * rank(e));
    if (e->election_at_ns < turn) e->election_at_ns = turn;
}

void role_outrun(agreement_t *e)
{
    /* Also when no death is known, as of one that led in between: who asks for a vote, and not only whether it would be given, has been
     * told that no leader is heard, or why; it cannot win, and this one may. Without a death it asks first (pre-vote). */
    if (e->role == AGREEMENT_ROLE_FOLLOWER && e->leader_unheard)
        earlier(&e->election_at_ns, e->now_ns);
    else if (e->role == AGREEMENT_ROLE_FOLLOWER && e->leader.core != RF_CORE_NONE) /* silent for it, too */
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS * rank(e));
    else if (e->role == AGREEMENT_ROLE_FOLLOWER && e->leader.core == RF_CORE_NONE)
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS * (1 + rank(e)));
}

bool role_is_first(const agreement_t *e)
{
    return rank(e) == 0;
}

void role_voted(agreement_t *e, bool claimed)
{
    e->election_at_ns = add_ns(add_ns(e->now_ns, e->params.election_ns), spread_ns(e));
    if (e->leader_dead || claimed) earlier(&e->election_at_ns, e->now_ns + STAGGER_NS * (16 + 8 * rank(e)));
}

void role_stand(agreement_t *e, bool pre, bool evidence, bool transfer)
{
    if (!config_self_votes(e) || !config_can_elect(e)) {
        e->election_at_ns = add_ns(add_ns(e->now_ns, e->params.election_ns), spread_ns(e));
        return;
    }
    /* To stand is to vote, for itself: not while what it promised to the leader holds. */
    bool bound = role_promised(e) && !transfer;
    if (bound && !pre && !defect(e, AGREEMENT_DEFECT_ELECT_IN_LEASE)) {
        become_follower(e);
        e->election_at_ns = e->promise_until_ns;
        return;
    }
    if (!pre && e->lanes && lane_bars_standing(e, evidence, transfer)) {
        e->election_at_ns = add_ns(e->now_ns, e->params.election_ns); /* it comes back when that is done */
        return;
    }
    e->role = AGREEMENT_ROLE_CANDIDATE;
    e->pre = pre;
    e->stands_on_evidence = evidence;
    e->stands_by_transfer = transfer;
    e->granted_new = e->granted_old = 0;
    e->granted_applied = e->applied;
    e->granted_last = e->last;
    e->attempts++;
    if (!pre) {
        e->term++;
        set_leader(e, NOBODY);
        e->voted = e->params.self;
        e->matched = e->committed;
    }
    /* It is soon tried again, each time less soon: two may have stood at once, or others heard the leader a little later.
     * Without evidence at last after about an election's time. */
    uint64_t dice = mix(e->params.seed ^ mix(e->term) ^ ((uint64_t)e->params.self.core << 40)) % 8;
    uint64_t step =
        evidence ? STAGGER_NS * (4 + 4 * rank(e) + dice) : apart_ns(e) * (8 + 8 * rank(e) + dice) / 4;
    uint64_t again = step << (e->attempts < 5 ? e->attempts : 5);
    if (!evidence && e->params.election_ns != RF_NEVER)
        earlier(&again, e->params.election_ns / 2 + spread_ns(e));
    e->election_at_ns = add_ns(e->now_ns, again);
    e->due |= DUE_VOTES;
    e->output.role_changed = true;
    grant(e, e->params.self);
    role_count_votes(e);
}

void role_claimed(agreement_t *e, uint64_t term)
{
    if (e->role == AGREEMENT_ROLE_CANDIDATE && e->pre && term == e->term + 1)
        role_stand(e, false, false, false);
}

/* Between the ranks that stand on evidence: they learn of it one after the other, in any order, and the first has to be heard before the
 * next stands; two that stand at once have no majority each. */
static uint64_t turn_ns(const agreement_t *e)
{
    return STAGGER_NS * EVIDENCE_TURNS * rank(e);
}

/* Refused in this term by one who is no better: it has voted for another that stood at the same time. The first rank stands again before
 * the others do. */
void role_split(agreement_t *e)
{
    if (!e->pre && e->stands_on_evidence && e->attempts < EVIDENCE_STANDS && rank(e) == 0)
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS);
}

/* The link to the leader broke: others may hear it, so this is a reason to ask them (pre-vote), no more. Its kernel closes its links one
 * after the other, so whoever is asked may learn of it a little later, and then says yes after all. */
void role_leader_unheard(agreement_t *e)
{
    if (e->role != AGREEMENT_ROLE_FOLLOWER || e->params.election_ns == RF_NEVER) return;
    e->leader_heard_ns = e->now_ns > e->params.election_ns ? e->now_ns - e->params.election_ns : 0;
    e->leader_unheard = true;
    vote_after_all_t vote = vote_after_all(e);
    if (vote == VOTE_CANNOT_WIN || (vote == VOTE_NOBODY && rank(e) == 0))
        role_stand(e, true, false, false);
    else if (vote == VOTE_NOBODY)
        earlier(&e->election_at_ns, e->now_ns + turn_ns(e));
    else
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS + turn_ns(e));
}

/* The leader is dead, or the one that led last while nobody does: the kernel says so. The first rank stands now. */
void role_leader_died(agreement_t *e)
{
    bool led = e->leader.core != RF_CORE_NONE;
    unsigned r = rank(e);
    e->leader_dead = true;
    if (led) e->dead_leader = e->leader;
    if (same(e->promised_to, e->dead_leader)) e->promise_until_ns = 0;
    if (e->role != AGREEMENT_ROLE_FOLLOWER && e->role != AGREEMENT_ROLE_CANDIDATE) return;
    if (e->role == AGREEMENT_ROLE_CANDIDATE &&
        !e->pre) { /* by suspicion until now: it gives the reason, and has less patience */
        e->stands_on_evidence = true;
        e->due |= DUE_VOTES;
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS * EVIDENCE_TURNS + turn_ns(e));
    } else if (!led && e->voted.core != RF_CORE_NONE) { /* for one whom it gives time, as role_voted() does */
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS * (16 + 8 * r));
    } else if (e->hears_candidate) { /* its request first */
        earlier(&e->election_at_ns, e->now_ns + STAGGER_NS + turn_ns(e));
    } else if (r == 0) {
        role_stand(e, false, true, false);
    } else {
        earlier(&e->election_at_ns, e->now_ns + turn_ns(e));
    }
}

/* The better successor: no witness; on another host, if it was heard of late; caught up most. */
static bool succeeds_better(const agreement_t *e, const progress_t *a, const progress_t *b)
{
    const progress_t *p[2] = {a, b};
    bool away[2];
    if (is_witness(e, a->member.core) != is_witness(e, b->member.core)) return is_witness(e, b->member.core);
    for (unsigned i = 0; i < 2; i++)
        away[i] = e->params.host &&
                  e->params.host[p[i]->member.core] != e->params.host[e->params.self.core] &&
                  add_ns(p[i]->heard_ns, e->params.election_ns) > e->now_ns;
    return away[0] != away[1] ? away[0] : a->match > b->match;
}

/* To the best other voter: on another host if there is one, for what is wrong with this one may be wrong with its host. */
void role_transfer(agreement_t *e)
{
    const progress_t *best = NULL;
    if (!leads(e)) {
        engine_ignore(e, "ignoring: not the leader");
        return;
    }
    for (unsigned i = 0; i < e->n_voters; i++) {
        const progress_t *p = &e->progress[i];
        if (p->dead || !(p->sets & SET_NEW)) continue;
        if (!best || succeeds_better(e, p, best)) best = p;
    }
    if (!best) {
        engine_ignore(e, "ignoring: there is no other voter");
        return;
    }
    e->stand_to = best->member;
    e->transferring = true;
    e->lease_over = true; /* in this term: a vote for the successor may be under way for long */
    e->transfer_until_ns = add_ns(e->now_ns, e->params.election_ns != RF_NEVER ? e->params.election_ns
                                                                               : 64 * engine_retry_ns(e));
    e->due |= DUE_FEED;
}

/* Leader: has a majority been heard of late (Raft 6.2)? */
static void check_quorum(agreement_t *e)
{
    if (!e->formed) { /* it waits for the others as long as the caller does: only it can form the machine */
        e->check_at_ns = add_ns(e->now_ns, e->params.election_ns);
        return;
    }
    uint64_t heard = progress_majority(e, PROGRESS_HEARD, e->now_ns);
    if (add_ns(heard, e->params.election_ns) <= e->now_ns) {
        role_step_down(e);
        role_no_quorum(e);
        return;
    }
    e->check_at_ns = add_ns(heard, e->params.election_ns);
}

void role_tick(agreement_t *e)
{
    if (leads(e)) {
        if (e->now_ns >= e->check_at_ns) check_quorum(e);
        if (!leads(e)) return;
        if (e->now_ns >= e->heartbeat_at_ns) {
            role_next_round(e);
            e->heartbeat_at_ns = add_ns(e->now_ns, e->params.heartbeat_ns);
        }
        if (e->now_ns >= e->transfer_until_ns) {
            e->transfer_until_ns = RF_NEVER;
            e->stand_to = NOBODY;
            e->transferring = false;
            proposal_unsend(e);
            e->due |= DUE_CHANGE;
        }
        return;
    }
    if (e->role != AGREEMENT_ROLE_LEARNER && e->now_ns >= e->election_at_ns) {
        bool evidence = e->leader_dead && e->attempts < EVIDENCE_STANDS;
        role_stand(e, !evidence, evidence, false);
    }
    bool asks = e->n_proposals > 0 || e->n_reads > 0;
    if (e->quorum && !leads(e) && (e->role != AGREEMENT_ROLE_LEARNER || asks) && patience_ns(e) != RF_NEVER &&
        proposal_overdue(e, e->leader_heard_ns))
        role_no_quorum(e);
}
