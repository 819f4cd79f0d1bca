/*
 * Epochs: how a group's members come to hold a new list of members and, after a death, the same decisions.
 *
 *   wedge    a member of the list has left the view: the epoch's messages are refused from now on
 *   report   the whole state, to the first survivor of the list (the owner, if it lives): what is reported after the
 *            wedge can change no more by anything that the dead have sent
 *   decide   when all survivors have reported and the dead are fenced: any committed or stable means commit, a
 *            one-phase operation that anybody knows is carried out, all else is aborted
 *   install  the next epoch with these decisions, recorded at all before any is acted on; those who do not hold the
 *            group yet are told after all others have recorded them
 *
 * Reports of the highest epoch count: an epoch that somebody has installed was made from reports of all who then lived.
 * Changes of the members by a living owner (join, leave, destroy) are an install without a report: nothing is under way.
 * (Virtual synchrony: Birman and Joseph 1987; "wedge before report" and "record before act": Derecho 4.)
 */
#include "consensus/group_state.h"

/* The first survivor: who decides. */
static unsigned resolver(const group_t *g)
{
    unsigned second = NO_POSITION;
    for (unsigned i = 0; i < g->n; i++) {
        const entry_t *e = &g->entries[i];
        if (e->left || e->gone) continue;
        if (!e->leaving) return i;
        if (second == NO_POSITION) second = i;
    }
    return second;
}

/* Those whose reports are needed. */
static uint64_t survivors(const group_t *g)
{
    uint64_t mask = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (!g->entries[i].left && !g->entries[i].gone) mask |= BIT(i);
    }
    return mask;
}

void group_recompute(groups_t *s, group_t *g)
{
    g->members = 0;
    g->self = NO_POSITION;
    for (unsigned i = 0; i < g->n; i++) {
        const entry_t *e = &g->entries[i];
        if (!e->leaving && !e->gone) g->members |= BIT(i);
        if (same(e->member, s->params.self)) g->self = i;
    }
    rf_assert(g->self != NO_POSITION);
    for (unsigned i = 1; i < g->n; i++) { /* whose parent feeds no more is fed by the parent's parent */
        entry_t *e = &g->entries[i];
        while (e->parent != 0 && !(g->members & BIT(e->parent))) e->parent = g->entries[e->parent].parent;
    }
    g->fed = BIT(g->self);
    for (unsigned i = g->self + 1; i < g->n; i++) {
        if ((g->members & BIT(i)) && (g->fed & BIT(g->entries[i].parent))) g->fed |= BIT(i);
    }
    for (unsigned i = 0; i < s->pipeline; i++) {
        op_t *op = ring_at(s, g, i);
        if (op->number != 0) op->requester_at = (uint8_t)group_position(g, op->requester);
    }
}

uint64_t group_compact(group_t *g, uint64_t keep, uint64_t mask)
{
    uint64_t out = 0;
    uint8_t to[GROUP_MEMBERS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < g->n; i++) {
        to[i] = 0; /* who was fed by one that is no more is fed by the owner */
        if (!(keep & BIT(i))) continue;
        if (mask & BIT(i)) out |= BIT(n);
        to[i] = (uint8_t)n;
        g->entries[n] = g->entries[i];
        g->entries[n].parent = n == 0 ? 0 : to[g->entries[n].parent];
        n++;
    }
    g->n = n;
    return out;
}

static void ask_all(groups_t *s, group_t *g)
{
    g->collecting = true;
    g->report_due = false;
    g->reported = BIT(g->self);
    g->blank = 0;
    g->collect_base = g->passed;
    g->collect_send = survivors(g) & ~BIT(g->self);
    g->sent_ns = s->now;
    group_timer(s, s->now);
    group_dirty(s, g);
}

static void choose(groups_t *s, group_t *g)
{
    unsigned first = resolver(g);
    rf_assert(first != NO_POSITION); /* this member has not left its own view, nor lost its own group */
    if (first == g->self) {
        ask_all(s, g);
        return;
    }
    g->collecting = false;
    g->report_due = true;
    g->report_to = g->entries[first].member;
    g->sent_ns = s->now;
    group_timer(s, s->now);
    group_dirty(s, g);
}

static void wedge(groups_t *s, group_t *g)
{
    g->wedged = true;
    g->installing = false;
    g->install_ack_due = false;
    g->wedge_view = s->view;
    for (unsigned i = 0; i < s->pipeline; i++) ring_at(s, g, i)->ack_due = false;
}

void group_resolve_view(groups_t *s, group_t *g)
{
    bool more = false;
    for (unsigned i = 0; i < g->n; i++) {
        entry_t *e = &g->entries[i];
        if (e->left || i == g->self || !has_left(s, e->member)) continue;
        e->left = true;
        more |= !e->gone;
    }
    if (g->lock_id != 0) group_dirty(s, g);
    if (more) {
        wedge(s, g);
        choose(s, g);
        group_requests_changed(s, g);
    }
    if (g->collect_view != 0 && g->collect_view <= s->view) {
        uint64_t view = g->collect_view;
        g->collect_view = 0;
        group_resolve_collect(s, g, g->collect_from, g->collect_epoch, view);
    }
}

void group_resolve_gone(groups_t *s, group_t *g, unsigned at)
{
    entry_t *e = &g->entries[at];
    if (e->gone || at == g->self) return;
    e->gone = true;
    g->change_maybe = true;
    g->drop_send &= ~BIT(at);
    g->drop_waiting &= ~BIT(at);
    g->install_send &= ~BIT(at);
    g->install_waiting &= ~BIT(at);
    g->members &= ~BIT(at);
    g->fed &= ~BIT(at);
    g->locks &= ~BIT(at);
    g->leaves &= ~BIT(at);
    g->pulls &= ~BIT(at);
    group_dirty(s, g);
    if (g->wedged) {
        unsigned first = resolver(g);
        if (!g->collecting && (first == g->self || same(g->report_to, e->member))) choose(s, g);
        return;
    }
    if (s->forming == g->index && g->installing) group_requests_formed(s, g, RF_ERR_LIMIT);
    if (!is_owner(g) || g->installing) return;
    for (uint64_t n = g->retired + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n); /* it holds nothing of the group: nothing to wait for */
        if (!op) continue;
        op->direct = true; /* and whoever it fed is told directly */
        op->send |= op->waiting & ~BIT(g->self) & ~BIT(at);
        if (op->waiting & BIT(at)) group_owner_done(s, g, op, BIT(at), 0);
    }
}

void group_resolve_collect(groups_t *s, group_t *g, agreement_member_t from, uint64_t epoch, uint64_t view)
{
    unsigned at = group_position(g, from);
    if (at == NO_POSITION || g->entries[at].left || epoch < g->epoch) {
        group_ignore(s, "ignoring COLLECT: not of this epoch's members");
        return;
    }
    if (view > s->view) {
        g->collect_view = view;
        g->collect_from = from;
        g->collect_epoch = epoch;
        return;
    }
    if (epoch == g->epoch && g->wedged && g->collecting && at > g->self) {
        group_ignore(s, "ignoring COLLECT: this member collects, and comes first");
        return;
    }
    if (!g->wedged) wedge(s, g);
    g->collecting = false;
    g->report_due = true;
    g->report_to = from;
    g->sent_ns = s->now;
    group_timer(s, s->now);
    group_dirty(s, g);
}

static void merge(groups_t *s, group_t *g, const state_view_t *in)
{
    for (unsigned i = 0; i < in->head.n_ops; i++) {
        const wire_op_t *x = &in->ops[i].op;
        op_t *op = op_find(s, g, x->number);
        if (op) {
            if (x->stage <= op->stage) continue;
            op->stage = x->stage;
            op->err = x->err;
            continue;
        }
        op = ring_at(s, g, x->number);
        if (op->number > x->number || x->number <= g->passed) continue; /* long done here */
        if (g->token != 0 && g->token_number == op->number) continue;
        memset(op, 0, sizeof *op);
        op->number = x->number;
        op->requester = from_wire(x->member);
        op->requester_at = (uint8_t)group_position(g, op->requester);
        op->counter = x->counter;
        op->phase = x->phase;
        op->stage = x->stage;
        op->err = x->err;
        op->n_groups = x->n_groups;
        op->size = x->size;
        memcpy(op->groups, in->ops[i].groups, x->n_groups * sizeof op->groups[0]);
        memcpy(op->epochs, in->ops[i].epochs, x->n_groups * sizeof op->epochs[0]);
        memcpy(op->bytes, in->ops[i].bytes, x->size);
    }
    if (in->head.number > g->last) g->last = in->head.number;
    for (unsigned i = 0; i < in->head.n_entries; i++) {
        unsigned at = group_position(g, from_wire(in->entries[i].member));
        if (at == NO_POSITION || g->entries[at].highest >= in->entries[i].highest) continue;
        g->entries[at].highest = in->entries[i].highest;
        memcpy(g->entries[at].results, in->entries[i].results, GROUP_WINDOW);
    }
}

void group_resolve_report(groups_t *s, group_t *g, agreement_member_t from, const state_view_t *in)
{
    unsigned at = group_position(g, from);
    const wire_t *head = &in->head;
    bool self_in = false, self_leaves = false, members = false;
    for (unsigned i = 0; i < head->n_entries; i++) {
        const wire_entry_t *e = &in->entries[i];
        members |= !e->leaving && !has_left(s, from_wire(e->member));
        if (!same(from_wire(e->member), s->params.self)) continue;
        self_in = true;
        self_leaves = e->leaving;
    }
    self_in &= !self_leaves || !members;
    if (head->number - head->value > s->pipeline) {
        s->output.err = RF_ERR_PROTOCOL;
        group_ignore(s, "ignoring REPORT: more under way than there can be");
        return;
    }
    if (head->epoch > g->epoch) {
        if (!self_in) {
            group_ignore(s, "ignoring REPORT: of an epoch without this member");
            return;
        }
        /* Whoever knows a later epoch takes this member for the first survivor: so it is. */
        group_adopt(s, g, in, false);
        g->install_ack_due = false;
        wedge(s, g);
        for (unsigned i = 0; i < g->n; i++) g->entries[i].left = has_left(s, g->entries[i].member);
        ask_all(s, g);
        at = group_position(g, from);
    }
    if (at == NO_POSITION || g->entries[at].left || at == g->self) {
        group_send_one(s, from, GROUP_TYPE_FIRST + 1,
                       &(wire_t){.kind = KIND_DROP, .group = g->id, .epoch = g->epoch});
        group_ignore(s, "ignoring REPORT: its sender is no member any more");
        return;
    }
    if (!g->wedged && head->epoch == g->epoch && head->counter <= s->view && resolver(g) == g->self) {
        wedge(s, g);
        choose(s, g);
    }
    if (!g->wedged || !g->collecting || head->counter < g->wedge_view) {
        group_ignore(s, "ignoring REPORT: nothing is being resolved here, or of an older view");
        return;
    }
    if (head->epoch == g->epoch) merge(s, g, in);
    if (head->value < g->collect_base) g->collect_base = head->value;
    g->reported |= BIT(at);
    g->collect_send &= ~BIT(at);
    group_dirty(s, g);
}

void group_resolve_blank(groups_t *s, group_t *g, unsigned at)
{
    if (!g->wedged || !g->collecting) return;
    g->reported |= BIT(at);
    g->blank |= BIT(at);
    g->collect_send &= ~BIT(at);
    group_dirty(s, g);
}

/* All survivors have reported: what becomes of what was under way. */
static void decide(groups_t *s, group_t *g)
{
    uint64_t base = g->collect_base < g->passed ? g->collect_base : g->passed;
    if (g->last - base > s->pipeline) base = g->last - s->pipeline;
    for (uint64_t n = base + 1; n <= g->last; n++) {
        op_t *op = op_find(s, g, n);
        if (!op) { /* known to the dead only: its number stays empty */
            op = ring_at(s, g, n);
            memset(op, 0, sizeof *op);
            op->number = n;
            op->requester = *nobody();
            op->phase = GROUP_TWO_PHASE;
            op->err = RF_ERR_CANCELLED;
            op->acted = n <= g->passed ? ACTED_PASSED : ACTED_NONE;
        } else if (op->phase == GROUP_TWO_PHASE && op->stage == STAGE_PREPARE) {
            op->err = RF_ERR_CANCELLED;
        }
        op->stage = STAGE_DECIDED;
        op->done = op->feed = op->send = op->waiting = 0;
        op->result_due = op->ack_due = false;
    }
    g->retired = base;
    uint64_t keep = 0;
    for (unsigned i = 0; i < g->n; i++) {
        const entry_t *e = &g->entries[i];
        if (!e->left && !e->gone) {
            keep |= BIT(i);
            continue;
        }
        if (!e->left) continue;
        past_t *p = &g->past[g->past_next++ % PAST_MAX];
        p->member = e->member;
        p->highest = e->highest;
        memcpy(p->results, e->results, sizeof p->results);
        for (uint64_t n = base + 1; n <= g->last; n++) {
            op_t *op = op_find(s, g, n);
            if (same(op->requester, e->member))
                group_dedup_note(&p->highest, p->results, op->counter, op->err);
        }
    }
    /* All who remain were about to leave: so they do. */
    bool members = false;
    for (unsigned i = 0; i < g->n; i++) members |= (keep & BIT(i)) && !g->entries[i].leaving;
    if (!members) g->ending = true;
    /* The resolver owns the group: it comes first. */
    uint64_t blank = group_compact(g, keep, g->blank);
    unsigned self = group_position(g, s->params.self);
    entry_t me = g->entries[self];
    uint64_t low = blank & BITS(self);
    memmove(&g->entries[1], &g->entries[0], self * sizeof me);
    g->entries[0] = me;
    blank = (blank & ~BITS(self + 1)) | low << 1;
    if (self != 0) {
        for (unsigned i = 0; i < g->n; i++) g->entries[i].parent = 0;
    }
    group_install(s, g, blank);
}

void group_install(groups_t *s, group_t *g, uint64_t blank)
{
    g->epoch++;
    g->wedged = g->collecting = g->report_due = false;
    g->installing = true;
    g->collect_view = 0;
    g->pulls = g->locks = g->leaves = 0;
    for (unsigned i = 0; i < g->n; i++) g->entries[i].lock_id = 0;
    group_recompute(s, g);
    g->install_waiting = survivors(g) & ~BIT(g->self);
    g->blank = blank & g->install_waiting;
    g->install_send = g->install_waiting & ~g->blank;
    g->sent_ns = s->now;
    group_timer(s, s->now);
    group_dirty(s, g);
}

/* Takes over a state that is of a later epoch, and has this member in it. */
void group_adopt(groups_t *s, group_t *g, const state_view_t *in, bool blank)
{
    const wire_t *head = &in->head;
    entry_t old[GROUP_MEMBERS_MAX];
    unsigned n_old = g->n;
    memcpy(old, g->entries, n_old * sizeof old[0]);
    g->epoch = head->epoch;
    g->n = head->n_entries;
    for (unsigned i = 0; i < g->n; i++) {
        const wire_entry_t *x = &in->entries[i];
        entry_t *e = &g->entries[i];
        *e = (entry_t){.member = from_wire(x->member),
                       .nonce = x->nonce,
                       .parent = x->parent,
                       .leaving = x->leaving != 0,
                       .highest = x->highest};
        memcpy(e->results, x->results, sizeof e->results);
        for (unsigned k = 0; k < n_old; k++) {
            if (!same(old[k].member, e->member) || old[k].highest <= e->highest) continue;
            e->highest = old[k].highest;
            memcpy(e->results, old[k].results, sizeof e->results);
        }
    }
    for (unsigned i = 0; i < PAST_MAX; i++) {
        past_t *p = &g->past[i];
        p->member = *nobody();
        if (i >= in->n_past) continue;
        p->member = from_wire(in->past[i].member);
        p->highest = in->past[i].highest;
        memcpy(p->results, in->past[i].results, sizeof p->results);
    }
    g->past_next = in->n_past;
    g->plan = head->flags & FLAG_PLAN_TREE
                  ? GROUP_PLAN_TREE
                  : (head->flags & FLAG_UNICAST ? GROUP_PLAN_UNICAST : GROUP_PLAN_BROADCAST);
    g->ending = (head->flags & FLAG_ENDING) != 0;
    if (blank) g->passed = head->number;
    for (unsigned i = 0; i < s->pipeline; i++) {
        op_t *op = ring_at(s, g, i);
        if (op->number > head->number && op->number > g->passed) {
            if (g->token != 0 && g->token_number == op->number) g->token = 0;
            op->number = 0;
        }
    }
    g->last = head->number > g->passed ? head->number : g->passed;
    g->retired = head->value;
    for (unsigned i = 0; i < head->n_ops; i++) {
        const wire_op_t *x = &in->ops[i].op;
        op_t *op = op_find(s, g, x->number);
        if (!op) {
            op = ring_at(s, g, x->number);
            if (op->number > x->number || (op->number > g->passed && op->number != 0)) continue;
            memset(op, 0, sizeof *op);
            op->acted = x->number <= g->passed ? ACTED_PASSED : ACTED_NONE;
            op->number = x->number;
            op->requester = from_wire(x->member);
            op->counter = x->counter;
            op->phase = x->phase;
            op->n_groups = x->n_groups;
            op->size = x->size;
            memcpy(op->groups, in->ops[i].groups, x->n_groups * sizeof op->groups[0]);
            memcpy(op->epochs, in->ops[i].epochs, x->n_groups * sizeof op->epochs[0]);
            memcpy(op->bytes, in->ops[i].bytes, x->size);
        }
        op->stage = x->stage;
        op->err = x->err;
        op->done = op->feed = 0;
        op->ack_due = op->result_due = false;
        unsigned at = group_position(g, op->requester);
        if (blank && at != NO_POSITION)
            group_dedup_note(&g->entries[at].highest, g->entries[at].results, op->counter, op->err);
    }
    g->wedged = g->collecting = g->report_due = g->installing = false;
    g->collect_view = 0;
    g->pulls = g->locks = g->leaves = 0;
    g->lock_id = 0;
    g->lock_holder = *nobody();
    group_recompute(s, g);
    if (blank) g->counter = g->entries[g->self].highest;
    g->changed_due = !(g->id & EPHEMERAL) && !g->ended;
    group_requests_changed(s, g);
    group_dirty(s, g);
}

static void send_install(groups_t *s, group_t *g)
{
    if (g->install_send == 0 || !group_output_room(s)) return;
    bool form = s->forming == g->index;
    uint8_t flags = form ? FLAG_FORM : 0;
    uint64_t nonce = form ? s->form_nonce : 0;
    size_t size = group_wire_state(s, g, KIND_INSTALL, flags, nonce, group_send_begin(s));
    group_send_end(s, GROUP_TYPE_FIRST + 1, size, g, g->install_send);
    g->install_send = 0;
}

void group_resolve_run(groups_t *s, group_t *g)
{
    if (g->changed_due && !g->wedged) {
        bool leaves = g->ending || g->entries[g->self].leaving;
        g->ended =
            leaves && !is_owner(g); /* before it is acknowledged: what is done later does not reach here */
        group_act(s, g, g->ended ? GROUP_ACTION_ENDED : GROUP_ACTION_CHANGED, NULL);
        g->changed_due = false;
    }
    if (g->install_ack_due && !g->changed_due && group_output_room(s)) {
        g->install_ack_due = false;
        /* A JOIN of before, which comes late, is none of a member that has lost the group. */
        group_send_one(
            s, g->install_from, GROUP_TYPE_FIRST + 2,
            &(wire_t){.kind = KIND_INSTALLED, .group = g->id, .epoch = g->epoch, .value = s->nonce});
    }
    if (g->wedged && g->report_due && group_output_room(s)) {
        g->report_due = false;
        size_t size = group_wire_state(s, g, KIND_REPORT, 0, s->view, group_send_begin(s));
        group_send_end_one(s, GROUP_TYPE_FIRST + 3, size, g->report_to);
    }
    if (g->wedged && g->collecting) {
        if (g->collect_send != 0 && group_output_room(s)) {
            wire_t w = {.kind = KIND_COLLECT,
                        .group = g->id,
                        .epoch = g->epoch,
                        .counter = g->wedge_view,
                        .value = s->forming == g->index ? s->form_nonce : 0};
            memcpy(group_send_begin(s), &w, sizeof w);
            group_send_end(s, GROUP_TYPE_FIRST + 1, sizeof w, g, g->collect_send);
            g->collect_send = 0;
        }
        bool ready = (survivors(g) & ~g->reported) == 0;
        bool defect = s->params.defects & GROUP_DEFECT_REPORT_BEFORE_WEDGE;
        for (unsigned i = 0; i < g->n && !defect; i++)
            ready &= !g->entries[i].left || is_fenced(s, g->entries[i].member);
        if (ready) decide(s, g);
    }
    if (!g->installing) return;
    send_install(s, g);
    if ((g->install_waiting & ~g->blank) == 0 && g->blank != 0) {
        g->blank = 0; /* all others have recorded the new holders: now they may know */
        g->install_send = g->install_waiting;
        send_install(s, g);
        if (g->install_send != 0) group_dirty(s, g);
    }
    if (g->install_waiting == 0) group_owner_installed(s, g);
}

void group_resolve_tick(groups_t *s, group_t *g)
{
    if (!g->wedged && !g->installing) return;
    if (group_timer_due(s, g->sent_ns)) {
        g->sent_ns = s->now;
        if (g->installing) g->install_send = g->install_waiting & ~g->blank;
        if (g->wedged && g->collecting) g->collect_send = survivors(g) & ~g->reported;
        if (g->wedged && !g->collecting) g->report_due = true;
        group_dirty(s, g);
    }
    group_timer(s, g->sent_ns);
}
