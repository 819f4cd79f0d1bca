/*
 * Who is fed here, and what each holds: at the leader the other voters, then learners; elsewhere the children that the
 * plan gives. Entries go out as they come, up to whatever the ring holds, without waiting for answers; an answer that
 * says that something was missing, new room on the link, or the resend timer takes the stream back to what is known.
 */
#include "consensus/engine.h"
#include "consensus/plan.h"

progress_t *progress_find(agreement_t *e, agreement_member_t m)
{
    for (unsigned i = 0; i < e->n_progress; i++) {
        progress_t *p = &e->progress[i];
        if (p->member.core == m.core &&
            (p->member.incarnation == m.incarnation || defect(e, AGREEMENT_DEFECT_NEW_INCARNATION_VOTES)))
            return p;
    }
    return NULL;
}

progress_t *progress_add(agreement_t *e, agreement_member_t m)
{
    if (m.core == e->params.self.core || e->n_progress == PROGRESS_MAX ||
        e->n_progress - e->n_voters >= AGREEMENT_CHILDREN_MAX)
        return NULL;
    unsigned i = e->n_progress++;
    /* Optimistic: it holds what is committed; if not, its answer says where to go on. */
    e->progress[i] = (progress_t){
        .member = m, .ask = true, .dead = member_dead(e, m), .next = e->committed + 1, .heard_ns = e->now_ns};
    e->transfers[i] = (transfer_t){.match_seen = RF_NEVER};
    e->due |= DUE_FEED;
    return &e->progress[i];
}

/* Takes what is known of a member over from the progress of before. */
static void keep(agreement_t *e, const progress_t *was, const transfer_t *transfers, unsigned n,
                 agreement_member_t m, unsigned sets)
{
    if (m.core == e->params.self.core) return; /* also its next incarnation: another will feed it */
    progress_t *p = progress_find(e, m);
    if (p) return;
    if (sets != 0 && e->n_progress < PROGRESS_MAX) { /* voters always have a place */
        unsigned at = e->n_progress++;
        e->progress[at] =
            (progress_t){.member = m, .ask = true, .next = e->committed + 1, .heard_ns = e->now_ns};
        e->transfers[at] = (transfer_t){.match_seen = RF_NEVER};
        p = &e->progress[at];
    } else {
        p = progress_add(e, m);
    }
    if (!p) return; /* it fetches */
    for (unsigned i = 0; i < n; i++) {
        if (!same(was[i].member, m)) continue;
        *p = was[i];
        e->transfers[p - e->progress] = transfers[i];
        break;
    }
    if ((p->sets == 0) != (sets == 0)) p->round = 0;
    p->sets = (uint8_t)sets;
    p->candidate = false; /* said of those who are, after this */
    p->dead = member_dead(e, m);
}

static void keep_child(void *context, rf_core_t core)
{
    agreement_t *e = context;
    agreement_member_t m = {.core = core, .incarnation = member_incarnation(e, core)};
    if (!progress_find(e, m)) progress_add(e, m);
}

static void add_voters(const agreement_t *e, plan_view_t *view, const agreement_member_t *voters, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (member_in(e, voters[i])) view->voters[view->n_voters++] = voters[i].core;
    }
}

static void keep_children(agreement_t *e)
{
    const agreement_params_t *p = &e->params;
    const config_t *c = config_newest(e);
    plan_view_t view = {.plan = p->plan,
                        .weights = p->weights,
                        .n_cores = p->n_cores,
                        .leader = is_self(e, e->leader) == leads(e) && member_in(e, e->leader)
                                      ? e->leader.core
                                      : RF_CORE_NONE,
                        .members = e->members,
                        .host = p->host,
                        .package = p->package,
                        .witness = p->witness};
    if (e->expelled || e->n_members <= 1 || !member_in(e, p->self)) return;
    add_voters(e, &view, c->voters_new, c->n_new);
    add_voters(e, &view, c->voters_old, c->joint ? c->n_old : 0);
    plan_children(&view, p->self.core, keep_child, e);
}

void progress_configure(agreement_t *e)
{
    progress_t was[PROGRESS_MAX];
    transfer_t transfers[PROGRESS_MAX];
    unsigned n = e->n_progress;
    memcpy(was, e->progress, n * sizeof *was);
    memcpy(transfers, e->transfers, n * sizeof *transfers);
    e->n_progress = e->n_voters = 0;
    const config_t *c = config_newest(e);
    if (leads(e)) {
        for (unsigned i = 0; i < c->n_new; i++)
            keep(e, was, transfers, n, c->voters_new[i], config_sets(e, c, c->voters_new[i]));
        for (unsigned i = 0; i < c->n_old && c->joint; i++)
            keep(e, was, transfers, n, c->voters_old[i], config_sets(e, c, c->voters_old[i]));
        e->n_voters = e->n_progress;
        for (unsigned i = 0; i < e->n_candidates; i++) {
            if (!member_in(e, e->candidates[i])) continue;
            keep(e, was, transfers, n, e->candidates[i], 0);
            progress_t *p = progress_find(e, e->candidates[i]);
            if (p) p->candidate = true;
        }
    }
    for (unsigned i = 0; i < n; i++) {
        /* Until it has caught up, and its parent may go on with it. */
        bool behind = was[i].match == 0 || was[i].match + e->params.log_max / 4 < e->committed;
        if (was[i].fetched && behind && member_in(e, was[i].member))
            keep(e, was, transfers, n, was[i].member, 0);
    }
    if (e->formed) {
        unsigned before = e->n_progress;
        keep_children(e);
        for (unsigned i = before; i < e->n_progress; i++) {
            for (unsigned k = 0; k < n; k++) {
                if (!same(was[k].member, e->progress[i].member)) continue;
                e->progress[i] = was[k];
                if (was[k].sets != 0) e->progress[i].round = 0;
                e->progress[i].sets = 0;
                e->transfers[i] = transfers[k];
            }
        }
    }
    for (unsigned i = e->n_voters; i < e->n_progress; i++) { /* no voter any more: committed entries only */
        if (e->progress[i].next > e->committed + 1) e->progress[i].next = e->committed + 1;
        if (e->progress[i].match > e->committed) e->progress[i].match = e->committed;
        e->progress[i].dead = member_dead(e, e->progress[i].member);
    }
    e->due |= DUE_FEED | (leads(e) ? DUE_COMMIT : 0);
}

/* A new leader's voters: its log up to here, most likely. */
static uint64_t all_hold(const agreement_t *e)
{
    uint64_t last = e->granted_last < e->last ? e->granted_last : e->last;
    return last > e->committed ? last : e->committed;
}

void progress_reset(agreement_t *e)
{
    e->n_progress = 0;
    e->hold.on = false;
    progress_configure(e);
    for (unsigned i = 0; i < e->n_voters; i++) {
        e->progress[i].match = 0;
        e->progress[i].next = all_hold(e) + 1;
        e->transfers[i].moved.looks = 0;
    }
}

void progress_rewind(agreement_t *e, progress_t *p)
{
    p->mode = PROGRESS_STREAM;
    /* Where nothing is known yet its answer to any message will say: no reason for a snapshot. */
    p->next = (p->match > 0 ? p->match : e->committed) + 1;
    p->commit_sent = 0;
    p->ask = true;
    transfer_t *t = &e->transfers[p - e->progress];
    *t = (transfer_t){.match_seen = t->match_seen, .applied_seen = t->applied_seen, .moved = t->moved};
    e->due |= DUE_FEED;
}

/* The value that a majority of n has at least. */
static uint64_t majority_of(uint64_t *values, unsigned n)
{
    for (unsigned i = 1; i < n; i++) { /* rising */
        uint64_t v = values[i];
        unsigned k = i;
        for (; k > 0 && values[k - 1] > v; k--) values[k] = values[k - 1];
        values[k] = v;
    }
    return values[n - (n / 2 + 1)];
}

static uint64_t set_majority(const agreement_t *e, unsigned set, unsigned n, bool self,
                             progress_field_t field, uint64_t own)
{
    uint64_t values[AGREEMENT_VOTERS_MAX];
    unsigned count = 0;
    if (self) values[count++] = own;
    for (unsigned i = 0; i < e->n_voters && count < n; i++) {
        const progress_t *p = &e->progress[i];
        if (!(p->sets & set)) continue;
        values[count++] = field == PROGRESS_MATCH     ? p->match
                          : field == PROGRESS_APPLIED ? p->applied
                          : field == PROGRESS_ROUND   ? p->round
                                                      : p->heard_ns;
    }
    while (count < n) values[count++] = 0;
    return majority_of(values, n);
}

uint64_t progress_majority(const agreement_t *e, progress_field_t field, uint64_t own)
{
    const config_t *c = config_newest(e);
    if (c->n_new == 0) return 0;
    unsigned self = config_sets(e, c, e->params.self);
    uint64_t least = set_majority(e, SET_NEW, c->n_new, self & SET_NEW, field, own);
    if (c->joint && !defect(e, AGREEMENT_DEFECT_SINGLE_MAJORITY)) {
        uint64_t old = set_majority(e, SET_OLD, c->n_old, self & SET_OLD, field, own);
        if (old < least) least = old;
    }
    return least;
}

void progress_commit(agreement_t *e)
{
    if (e->last == e->committed) return;
    uint64_t held = progress_majority(e, PROGRESS_MATCH, e->last);
    if (held <= e->committed) return;
    /* Entries of older terms commit only through one of the leader's own (Raft 3.6.2, 5.4.2). Entries from term_index on
     * are of its own term, or sealed in it (log.c). */
    if (held < e->term_index && !defect(e, AGREEMENT_DEFECT_OLD_TERM_COMMIT)) return;
    log_commit(e, held);
}

bool progress_waits(const agreement_t *e)
{
    for (unsigned i = 0; i < e->n_progress; i++) {
        const progress_t *p = &e->progress[i];
        if (!p->dead && (p->match + 1 < p->next || p->applied < e->committed ||
                         (p->mode != PROGRESS_STREAM && p->mode != PROGRESS_LANE)))
            return true;
    }
    return false;
}

/* It lacks something, and has applied nothing for behind_ns: its snapshot does not load, or is never whole before the next one is due. By the
 * looks, which are resend_ns apart: all may have stood still, and what it has answered lies unread. */
static bool is_stuck(const agreement_t *e, const progress_t *p, transfer_t *t)
{
    if (p->applied >= e->committed || p->applied > t->moved.applied) {
        t->moved.applied = p->applied;
        t->moved.looks = 0;
        return false;
    }
    t->moved.looks++;
    return e->params.behind_ns > 0 && t->moved.looks > e->params.behind_ns / e->params.resend_ns;
}

void progress_resend(agreement_t *e)
{
    agreement_member_t stuck = NOBODY;
    for (unsigned i = 0; i < e->n_progress; i++) {
        progress_t *p = &e->progress[i];
        if (p->dead) continue;
        transfer_t *t = &e->transfers[i];
        bool heard = add_ns(p->heard_ns, 4 * e->params.resend_ns) >= e->now_ns;
        /* Whom a parent does not hear, somebody else may feed. */
        if (is_stuck(e, p, t) && (heard || leads(e))) stuck = p->member;
        if (p->mode == PROGRESS_SNAPSHOT) {
            if (t->match_seen == t->acked) snapshot_lost(e, p);
            t->match_seen = t->acked;
            e->due |= DUE_FEED;
            continue;
        }
        if (p->mode ==
            PROGRESS_LANE) { /* what is written completes, or fails: it is only asked how far it is */
            p->ask |= p->applied < e->committed;
            if (p->ask) e->due |= DUE_FEED;
            continue;
        }
        if (p->mode == PROGRESS_STREAM && p->match + 1 >= p->next && p->applied >= e->committed) continue;
        bool moves = t->match_seen != p->match || t->applied_seen != p->applied;
        t->match_seen = p->match;
        t->applied_seen = p->applied;
        if (moves) continue;
        uint8_t mode = p->mode;
        progress_rewind(e, p);
        if (!heard)
            p->mode = PROGRESS_SILENT;
        else if (mode == PROGRESS_PROBE && p->match > 0)
            p->mode = PROGRESS_PROBE;
    }
    if (stuck.core == RF_CORE_NONE) return;
    if (leads(e)) {
        change_stuck(e, stuck); /* who is fed changes by it */
    } else {
        e->stuck = stuck;
        e->due |= DUE_REPORTS;
    }
}
