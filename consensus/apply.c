/*
 * Committed entries, in order, each once: sessions and views are the engine's own part of the replicated state, the rest
 * is the caller's machine. What is done here is a function of the log alone: no entry, whatever it holds, is refused
 * with an assertion.
 */
#include "consensus/engine.h"

static void forget_early(agreement_t *e, agreement_member_t m);

void apply_membership(agreement_t *e)
{
    e->formed = true;
    for (unsigned i = e->n_early; i-- > 0;) { /* named by a snapshot */
        agreement_member_t m = {.core = e->early[i].core,
                                .incarnation = member_incarnation(e, e->early[i].core)};
        if (i < e->n_early && member_in(e, m) && e->early[i].incarnation <= m.incarnation) forget_early(e, m);
    }
    e->output.view_changed = true;
    e->due |= DUE_REPORTS | DUE_LEFT;
    if (leads(e)) change_want(e);
    config_changed(e);
}

static void set_member(agreement_t *e, agreement_member_t m, agreement_member_state_t state)
{
    uint32_t *word = &e->members[m.core];
    if ((*word & 3) == AGREEMENT_MEMBER_IN) e->n_members--;
    if (*word >> 2 > INCARNATION_INLINE) e->n_escapes--;
    if (*word >> 2 != m.incarnation || state != AGREEMENT_MEMBER_IN) {
        bit_set(e->dead, m.core, false);
        bit_set(e->believed, m.core, false);
        bit_set(e->silent, m.core, false);
    }
    *word = m.incarnation << 2 | (uint32_t)state;
    if (state == AGREEMENT_MEMBER_IN) e->n_members++;
    if (m.incarnation > INCARNATION_INLINE) e->n_escapes++;
}

static void apply_form(agreement_t *e, const wire_entry_t *entry, agreement_apply_t *apply)
{
    wire_form_t form;
    memcpy(&form, log_body(entry), sizeof form);
    const uint8_t *list = log_body(entry) + sizeof form + form.n_voters * sizeof(rf_core_t);
    memset(e->form_map, 0, (e->params.n_cores + 7u) / 8);
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        if (!config_form_member(&form, list, core)) continue;
        bit_set(e->form_map, core, true);
        bool dead = bit_get(e->dead, core); /* died while the machine was forming */
        set_member(e, (agreement_member_t){.core = core, .incarnation = 1}, AGREEMENT_MEMBER_IN);
        bit_set(e->dead, core, dead);
        if (dead) bit_set(e->believed, core, true);
    }
    e->view = 1;
    if (!member_in(e, e->params.self) && e->params.self.incarnation == 1) e->expelled = true;
    apply->members = e->form_map;
}

static void forget_early(agreement_t *e, agreement_member_t m)
{
    for (unsigned i = 0; i < e->n_early; i++) {
        if (e->early[i].core != m.core) continue;
        bool dead = e->early[i].incarnation == m.incarnation;
        if (e->early[i].incarnation <= m.incarnation) e->early[i--] = e->early[--e->n_early];
        if (dead) {
            bit_set(e->dead, m.core, true);
            bit_set(e->believed, m.core, true);
        }
    }
}

static rf_err_t apply_view(agreement_t *e, const wire_entry_t *entry, agreement_apply_t *apply,
                           agreement_change_t *changes, uint64_t *value)
{
    wire_view_t view;
    wire_member_t change;
    memcpy(&view, log_body(entry), sizeof view);
    const uint8_t *at = log_body(entry) + sizeof view + (view.n_old + (size_t)view.n_new) * sizeof change;
    e->view = view.view;
    for (unsigned i = 0; i < view.n_changes && !view.joint; i++) {
        memcpy(&change, at + i * sizeof change, sizeof change);
        agreement_member_t m = from_wire(change);
        bool joined = change.flags & CHANGE_JOINED;
        agreement_member_t was = {.core = m.core, .incarnation = member_incarnation(e, m.core)};
        if (joined && m.incarnation <= was.incarnation) continue; /* none that ever was */
        if (!joined && !member_in(e, m)) continue;
        if (joined ? member_in(e, was) : true) session_end(e, (uint64_t)was.incarnation << 16 | was.core);
        set_member(e, m, joined ? AGREEMENT_MEMBER_IN : AGREEMENT_MEMBER_OUT);
        changes[apply->n_changes++] = (agreement_change_t){
            .member = m, .joined = joined, .in_order = (change.flags & CHANGE_IN_ORDER) != 0};
        if (joined) {
            if (*value == 0) *value = m.incarnation;
            forget_early(e, m);
            /* It knows nobody: the leader feeds it until it can ask. */
            progress_t *p = leads(e) && !progress_find(e, m) ? progress_add(e, m) : NULL;
            if (p) p->fetched = true;
            if (m.core == e->params.self.core && m.incarnation > e->params.self.incarnation)
                e->expelled = true;
        } else {
            e->n_expulsions += !(change.flags & CHANGE_IN_ORDER);
            e->n_behind += leads(e) && same(m, e->behind);
            if (is_self(e, m))
                e->expelled = true;
            else if (e->n_left < AGREEMENT_CHANGES_MAX && (change.flags & CHANGE_IN_ORDER))
                e->left[e->n_left++] = m;
        }
    }
    apply->changes = changes;
    return view.err < RF_ERR_COUNT ? (rf_err_t)view.err : RF_ERR_INVALID;
}

/* Groups are told who has left, in the order of the views: no entry is applied before they are. */
static void tell_groups(agreement_t *e, const agreement_apply_t *apply)
{
    for (unsigned i = 0; i < apply->n_changes && e->groups; i++) {
        if (!apply->changes[i].joined) e->group_left[e->n_group_left++] = apply->changes[i].member;
    }
}

static inline void keep(result_t *to, uint64_t sequence, uint64_t value, rf_err_t err)
{
    to->sequence = sequence;
    to->value = value;
    to->err = (uint32_t)err;
    to->reserved = 0;
}

/* What it gave, into the session, and to who proposed it here. */
static inline void give(agreement_t *e, const session_t *s, const wire_entry_t *entry, uint64_t value,
                        rf_err_t err)
{
    if (s && s->results) keep(&s->results[entry->sequence % AGREEMENT_WINDOW], entry->sequence, value, err);
    if (entry->session == e->own_session)
        keep(&e->own_results[entry->sequence % AGREEMENT_WINDOW], entry->sequence, value, err);
    if (e->n_proposals | e->n_unknown) proposal_answer(e, entry->session, entry->sequence, err, value);
}

/* Nearly all entries: the next command of the session that the last one was of, or of one near. False: not that. */
static inline bool apply_command(agreement_t *e, uint64_t index)
{
    const wire_entry_t *entry = log_at(e, index);
    uint64_t sequence = entry->sequence;
    if (entry->kind != AGREEMENT_ENTRY_COMMAND) return false;
    session_t *s = session_find(e, entry->session);
    if (!s || sequence - s->high - 1 >= AGREEMENT_WINDOW - 1) return false; /* s->high + 1 to s->high + 63 */
    e->session_last = s;
    e->applied = index;
    s->bits = s->bits << (sequence - s->high) | 1;
    s->high = sequence;
    agreement_apply_t *apply = &e->command;
    apply->index = index;
    apply->view = e->view;
    apply->term = entry->term;
    apply->session = entry->session;
    apply->sequence = sequence;
    apply->bytes = log_body(entry);
    apply->size = entry->size;
    uint64_t value = 0;
    rf_err_t err = e->params.state_machine.apply(e->params.state_machine.context, apply, &value);
    give(e, s, entry, value, err);
    return true;
}

static __attribute__((noinline)) void apply_entry(agreement_t *e, uint64_t index)
{
    const wire_entry_t *entry = log_at(e, index);
    agreement_change_t changes[AGREEMENT_CHANGES_MAX];
    agreement_apply_t apply = {
        .index = index,
        .term = entry->term,
        .view = e->view,
        .kind = (agreement_entry_kind_t)entry->kind,
        .session = entry->session,
        .sequence = entry->sequence,
    };
    uint64_t value = 0;
    rf_err_t err = RF_OK;
    session_t *s = NULL;
    e->applied = index;
    if (entry->session != 0) {
        bool full;
        s = session_use(e, entry->session, &full);
        err = full ? RF_ERR_LIMIT : !s ? RF_ERR_SESSION : session_check(s, entry->sequence);
        /* A view is in force by its voters already: it is carried out, whatever became of the session of who asked. */
        if (err != RF_OK && entry->kind == AGREEMENT_ENTRY_VIEW) {
            err = RF_OK;
            s = NULL;
        }
        if (err != RF_OK) { /* executed before, or never to be */
            apply.duplicate = true;
            if (err == RF_ERR_EXISTS) {
                const result_t *r = session_result(s, entry->sequence);
                if (!r && entry->session == e->own_session)
                    r = &e->own_results[entry->sequence % AGREEMENT_WINDOW];
                bool kept = r && r->sequence == entry->sequence;
                err = kept ? (rf_err_t)r->err : RF_ERR_UNKNOWN_OUTCOME;
                value = kept ? r->value : 0;
            }
            proposal_answer(e, entry->session, entry->sequence, err, value);
            return;
        }
        if (s) session_mark(s, entry->sequence);
    }
    switch (entry->kind) {
    case AGREEMENT_ENTRY_COMMAND:
        apply.bytes = log_body(entry);
        apply.size = entry->size;
        err = e->params.state_machine.apply(e->params.state_machine.context, &apply, &value);
        break;
    case AGREEMENT_ENTRY_FORM:
        apply_form(e, entry, &apply);
        break;
    case AGREEMENT_ENTRY_VIEW:
        err = apply_view(e, entry, &apply, changes, &value);
        if (s) s = session_find(e, entry->session); /* its own may have ended */
        break;
    case AGREEMENT_ENTRY_SESSION_OPEN:
        err = session_open(e, SESSION_OPENED | index);
        value = err == RF_OK ? SESSION_OPENED | index : 0;
        if (s) s = session_find(e, entry->session); /* the one that asked may have made way */
        break;
    case AGREEMENT_ENTRY_SESSION_END: {
        uint64_t id;
        memcpy(&id, log_body(entry), sizeof id);
        err = id & SESSION_OPENED ? session_end(e, id) : RF_ERR_NOT_FOUND;
        if (err == RF_OK && id == entry->session) s = NULL;
        break;
    }
    default:
        break;
    }
    if (entry->kind != AGREEMENT_ENTRY_COMMAND) {
        apply.view = e->view;
        e->params.state_machine.apply(e->params.state_machine.context, &apply, &(uint64_t){0});
    }
    if (entry->session != 0) give(e, s, entry, value, err);
    if (entry->kind == AGREEMENT_ENTRY_FORM || entry->kind == AGREEMENT_ENTRY_VIEW) {
        tell_groups(e, &apply);
        apply_membership(e);
    }
}

void apply_committed(agreement_t *e)
{
    if (e->applied == e->committed) return;
    uint64_t from = e->applied + 1;
    while (e->applied < e->committed && completion_room(e) > 0 && e->n_group_left == 0) {
        if (!apply_command(e, e->applied + 1)) apply_entry(e, e->applied + 1);
    }
    if (e->output.applied_from > e->output.applied_to) e->output.applied_from = from;
    e->output.applied_to = e->applied;
    if (e->applied < e->committed) e->output.more = true;
    if (e->n_reads > 0) e->due |= DUE_READS;
    if (e->n_refused > 0) e->due |= DUE_REFUSED;
}
