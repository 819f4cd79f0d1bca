/*
 * Configurations: which members vote, and how they are chosen. The one in force is the newest in the log, committed or
 * not (Raft 4.1); there is at most one that is not committed, because the leader starts a change only when the one
 * before is. In a joint one, elections and commits need majorities of both sets (Raft 4.3).
 */
#include "consensus/engine.h"

static bool voter_is(const agreement_t *e, agreement_member_t voter, agreement_member_t m)
{
    if (defect(e, AGREEMENT_DEFECT_NEW_INCARNATION_VOTES)) return voter.core == m.core;
    return same(voter, m);
}

unsigned config_find(const agreement_t *e, const agreement_member_t *voters, unsigned n, agreement_member_t m)
{
    unsigned i = 0;
    while (i < n && !voter_is(e, voters[i], m)) i++;
    return i;
}

unsigned config_sets(const agreement_t *e, const config_t *config, agreement_member_t m)
{
    unsigned sets = 0;
    if (config_find(e, config->voters_new, config->n_new, m) < config->n_new) sets |= SET_NEW;
    if (config->joint && config_find(e, config->voters_old, config->n_old, m) < config->n_old)
        sets |= SET_OLD;
    return sets;
}

/* ---- bodies of entries ---- */

bool config_form_member(const wire_form_t *form, const uint8_t *list, rf_core_t core)
{
    if (form->mode == 0) return core / 8u < form->n && bit_get(list, core);
    for (unsigned i = 0; i < form->n; i++) {
        uint16_t run[2];
        memcpy(run, list + i * sizeof run, sizeof run);
        if (core >= run[0] && core - run[0] < run[1]) return true;
    }
    return false;
}

static size_t form_list_size(const wire_form_t *form)
{
    return form->mode == 0 ? form->n : form->n * 2 * sizeof(uint16_t);
}

/* What a member checks of a FORM entry before it accepts it: its own machine, of its own size; voters are members. */
bool config_form_valid(const agreement_t *e, const uint8_t *body, size_t size)
{
    wire_form_t form;
    if (size < sizeof form) return false;
    memcpy(&form, body, sizeof form);
    if (memcmp(&form.machine, &e->params.machine, sizeof form.machine) != 0 ||
        form.n_cores != e->params.n_cores || form.n_voters == 0 || form.n_voters > AGREEMENT_VOTERS_MAX ||
        form.mode > 1 || size != sizeof form + form.n_voters * sizeof(rf_core_t) + form_list_size(&form) ||
        (form.mode == 0 && form.n > (form.n_cores + 7u) / 8))
        return false;
    const uint8_t *list = body + sizeof form + form.n_voters * sizeof(rf_core_t);
    rf_core_t before = 0;
    for (unsigned i = 0; i < form.n_voters; i++) {
        rf_core_t voter;
        memcpy(&voter, body + sizeof form + i * sizeof voter, sizeof voter);
        if (voter >= form.n_cores || (i > 0 && voter <= before) || !config_form_member(&form, list, voter))
            return false;
        before = voter;
    }
    return true;
}

static bool voters_valid(const agreement_t *e, const uint8_t *at, unsigned n)
{
    wire_member_t voters[AGREEMENT_VOTERS_MAX];
    memcpy(voters, at, n * sizeof *voters);
    for (unsigned i = 0; i < n; i++) {
        if (voters[i].core >= e->params.n_cores || voters[i].incarnation == 0 ||
            voters[i].incarnation > INCARNATION_MAX)
            return false;
        for (unsigned k = 0; k < i; k++) {
            if (voters[k].core == voters[i].core && voters[k].incarnation == voters[i].incarnation)
                return false;
        }
    }
    return true;
}

bool config_view_valid(const agreement_t *e, const uint8_t *body, size_t size)
{
    wire_view_t view;
    if (size < sizeof view) return false;
    memcpy(&view, body, sizeof view);
    if (view.n_new == 0 || view.n_new > AGREEMENT_VOTERS_MAX || view.n_old > AGREEMENT_VOTERS_MAX ||
        view.joint > 1 || view.n_changes > AGREEMENT_CHANGES_MAX || (view.joint != 0) != (view.n_old > 0) ||
        size != sizeof view + (view.n_old + view.n_new + (size_t)view.n_changes) * sizeof(wire_member_t))
        return false;
    const uint8_t *at = body + sizeof view;
    if (!voters_valid(e, at, view.n_old) ||
        !voters_valid(e, at + view.n_old * sizeof(wire_member_t), view.n_new))
        return false;
    at += (view.n_old + (size_t)view.n_new) * sizeof(wire_member_t);
    for (unsigned i = 0; i < view.n_changes; i++) {
        wire_member_t change;
        memcpy(&change, at + i * sizeof change, sizeof change);
        if (change.core >= e->params.n_cores || change.incarnation == 0 ||
            change.incarnation > INCARNATION_MAX)
            return false;
    }
    return true;
}

void config_take(agreement_t *e, const wire_entry_t *entry, uint64_t index)
{
    rf_assert(!e->pending);
    const uint8_t *at = log_body(entry);
    config_t *c = &e->configs[e->config ^ 1u];
    c->index = index;
    c->session = c->sequence = 0;
    c->joint = false;
    c->n_old = 0;
    c->n_changes = 0;
    if (entry->kind == AGREEMENT_ENTRY_FORM) {
        wire_form_t form;
        memcpy(&form, at, sizeof form);
        c->view = 1;
        c->n_new = (uint8_t)form.n_voters;
        for (unsigned i = 0; i < form.n_voters; i++) {
            rf_core_t voter;
            memcpy(&voter, at + sizeof form + i * sizeof voter, sizeof voter);
            c->voters_new[i] = (agreement_member_t){.core = voter, .incarnation = 1};
        }
    } else {
        wire_view_t view;
        wire_member_t members[2 * AGREEMENT_VOTERS_MAX + AGREEMENT_CHANGES_MAX];
        memcpy(&view, at, sizeof view);
        memcpy(members, at + sizeof view, entry->size - sizeof view);
        c->view = view.view;
        c->session = view.session;
        c->sequence = view.sequence;
        c->joint = view.joint;
        c->n_old = view.n_old;
        c->n_new = view.n_new;
        c->n_changes = view.n_changes;
        const wire_member_t *m = members;
        for (unsigned i = 0; i < view.n_old; i++) c->voters_old[i] = from_wire(*m++);
        for (unsigned i = 0; i < view.n_new; i++) c->voters_new[i] = from_wire(*m++);
        memcpy(c->changes, m, view.n_changes * sizeof *m);
    }
    e->pending = true;
    config_changed(e);
}

void config_changed(agreement_t *e)
{
    bool votes = config_self_votes(e);
    if (!votes && (e->role == AGREEMENT_ROLE_FOLLOWER || e->role == AGREEMENT_ROLE_CANDIDATE))
        e->role = AGREEMENT_ROLE_LEARNER;
    if (votes && e->role == AGREEMENT_ROLE_LEARNER) {
        e->role = AGREEMENT_ROLE_FOLLOWER;
        role_heard(e);
    }
    role_recount(e);
    e->output.role_changed = true;
    e->trim_limit = 0;
    e->spread_term = 0; /* ranks have changed */
    progress_configure(e);
    role_update_lost(e);
}

/* ---- failure domains ---- */

static bool set_can_agree(const agreement_t *e, const agreement_member_t *voters, unsigned n)
{
    unsigned live = 0;
    for (unsigned i = 0; i < n; i++) live += !member_dead(e, voters[i]);
    return live > n / 2;
}

static bool sets_can_agree(const agreement_t *e, const config_t *c)
{
    return set_can_agree(e, c->voters_new, c->n_new) &&
           (!c->joint || set_can_agree(e, c->voters_old, c->n_old));
}

bool config_can_elect(const agreement_t *e)
{
    return sets_can_agree(e, config_newest(e));
}

bool config_can_agree(const agreement_t *e)
{
    return config_can_elect(e) || (e->pending && sets_can_agree(e, config_committed(e)));
}

static unsigned domain_of(const agreement_params_t *p, rf_core_t core)
{
    return p->host ? p->host[core] : 0;
}

typedef struct score { /* lower is better, from the first field on */
    unsigned hosts, packages, fresh, witness, core;
} score_t;

static bool better(const score_t *a, const score_t *b)
{
    if (a->hosts != b->hosts) return a->hosts < b->hosts;
    if (a->packages != b->packages) return a->packages < b->packages;
    if (a->fresh != b->fresh) return a->fresh < b->fresh;
    if (a->witness != b->witness) return a->witness < b->witness;
    return a->core < b->core;
}

/* Some member may vote, by the configuration. */
static bool any_may_vote(const agreement_params_t *p, config_member_fn member, const void *context,
                         unsigned n)
{
    agreement_member_t m;
    for (unsigned i = 0; i < n; i++) {
        if (member(context, i, &m) && m.core < p->n_cores && !p->no_vote[m.core]) return true;
    }
    return false;
}

unsigned config_choose(const agreement_params_t *p, config_member_fn member, const void *context, unsigned n,
                       const agreement_member_t *current, unsigned n_current, agreement_member_t *out)
{
    unsigned count = 0, wanted = p->voters_max;
    const uint8_t *no_vote = p->no_vote && any_may_vote(p, member, context, n) ? p->no_vote : NULL;
    while (count < wanted) {
        score_t best_score = {0};
        agreement_member_t best = NOBODY;
        for (unsigned i = 0; i < n; i++) {
            agreement_member_t m;
            if (!member(context, i, &m) || m.core >= p->n_cores || (no_vote && no_vote[m.core])) continue;
            score_t score = {.fresh = 1, .core = m.core, .witness = p->witness && p->witness[m.core]};
            bool taken = false;
            for (unsigned k = 0; k < count; k++) {
                if (out[k].core == m.core) taken = true;
                if (domain_of(p, out[k].core) != domain_of(p, m.core)) continue;
                score.hosts++;
                score.packages += p->package && p->package[out[k].core] == p->package[m.core];
            }
            if (taken) continue;
            for (unsigned k = 0; k < n_current; k++) score.fresh &= !same(current[k], m);
            if (best.core != RF_CORE_NONE && !better(&score, &best_score)) continue;
            best = m;
            best_score = score;
        }
        if (best.core == RF_CORE_NONE) break;
        out[count++] = best;
    }
    /* An even number survives no more than the odd one below it; of two, one would survive nothing that two do not,
     * but two keep what was acknowledged when one dies. */
    if (count > 2 && count % 2 == 0) count--;
    for (unsigned i = 1; i < count; i++) { /* by core: the same set is the same list */
        agreement_member_t m = out[i];
        unsigned k = i;
        for (; k > 0 && out[k - 1].core > m.core; k--) out[k] = out[k - 1];
        out[k] = m;
    }
    return count;
}

static bool listed(const void *context, unsigned i, agreement_member_t *out)
{
    *out = ((const agreement_member_t *)context)[i];
    return true;
}

unsigned agreement_choose_voters(const agreement_params_t *params, const agreement_member_t *members,
                                 unsigned n_members, const agreement_member_t *current, unsigned n_current,
                                 agreement_member_t *out)
{
    return config_choose(params, listed, members, n_members, current, n_current, out);
}

void agreement_survives(const agreement_params_t *params, const agreement_member_t *voters, unsigned n_voters,
                        unsigned *members, unsigned *hosts)
{
    *members = n_voters > 0 ? (n_voters - 1) / 2 : 0;
    *hosts = 0;
    unsigned on_host[AGREEMENT_VOTERS_MAX], n_hosts = 0;
    if (n_voters > AGREEMENT_VOTERS_MAX) n_voters = AGREEMENT_VOTERS_MAX;
    for (unsigned i = 0; i < n_voters; i++) {
        bool first = true;
        for (unsigned k = 0; k < i; k++)
            first &= domain_of(params, voters[k].core) != domain_of(params, voters[i].core);
        if (!first) continue;
        unsigned count = 0;
        for (unsigned k = i; k < n_voters; k++)
            count += domain_of(params, voters[k].core) == domain_of(params, voters[i].core);
        on_host[n_hosts++] = count;
    }
    unsigned gone = 0;
    for (;;) { /* the hosts with most voters may be the ones that die */
        unsigned most = 0;
        for (unsigned i = 1; i < n_hosts; i++) {
            if (on_host[i] > on_host[most]) most = i;
        }
        if (n_hosts == 0 || on_host[most] == 0 || n_voters - gone - on_host[most] <= n_voters / 2) return;
        gone += on_host[most];
        on_host[most] = 0;
        (*hosts)++;
    }
}
