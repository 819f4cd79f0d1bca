/* The two changes of role: the machine is formed, once; the orderer dies, for good. And every other death. */
#include "consensus/engine.h"

/* Orderer: the first entry of the log names the machine and its members. */
void role_form(agreement_t *e, const rf_core_t *cores, unsigned n_cores)
{
    if (!engine_orders(e)) {
        engine_ignore(e, "ignoring: only the lowest core forms the machine");
        return;
    }
    if (e->last > 0) {
        engine_ignore(e, "ignoring: the machine is formed already");
        return;
    }
    struct {
        wire_form_t head;
        uint8_t map[RF_CORES_MAX / 8];
    } body;
    memset(&body, 0, sizeof body);
    body.head.machine = e->params.machine;
    body.head.n_cores = e->params.n_cores;
    for (unsigned i = 0; i < n_cores; i++) {
        if (cores[i] < e->params.n_cores && !e->members[cores[i]].dead)
            body.map[cores[i] / 8] |= (uint8_t)(1u << (cores[i] % 8));
    }
    if (!group_bit(body.map, ORDERER)) {
        engine_ignore(e, "ignoring: the forming core is not among the members");
        return;
    }
    size_t size = sizeof body.head + (e->params.n_cores + 7u) / 8;

    for (rf_core_t core = 0; core < e->params.n_cores; core++)
        e->members[core].voting = group_bit(body.map, core);
    rf_err_t err = log_append(e, AGREEMENT_ENTRY_FORM, 0, 0, &body, size);
    rf_assert(err == RF_OK);
}

/* What a member checks of a FORM entry before it accepts it: its own machine, of its own size, with itself in
 * it. */
bool role_form_valid(const agreement_t *e, const void *bytes, size_t size)
{
    wire_form_t form;
    if (size != sizeof form + (e->params.n_cores + 7u) / 8) return false;
    memcpy(&form, bytes, sizeof form);
    const uint8_t *map = (const uint8_t *)bytes + sizeof form;
    return memcmp(&form.machine, &e->params.machine, sizeof form.machine) == 0 &&
           form.n_cores == e->params.n_cores && group_bit(map, ORDERER) &&
           group_bit(map, e->params.self.core);
}

void role_form_apply(agreement_t *e, const log_entry_t *entry)
{
    rf_assert(e->view == 0 && entry->index == 1);
    const uint8_t *map = entry->bytes + sizeof(wire_form_t);
    for (rf_core_t core = 0; core < e->params.n_cores; core++) {
        if (!group_bit(map, core)) continue;
        member_t *m = &e->members[core];
        m->state = AGREEMENT_MEMBER_IN;
        e->sessions[core].id = (uint64_t)m->incarnation << 16 | core;
        if (m->dead && !engine_orders(e)) m->report = true; /* died while the machine was forming */
    }
    e->view = 1;
    e->output.view_changed = true;
}

/* Answers every own proposal and read that the dead orderer may or may not have ordered. */
void role_fail_proposals(agreement_t *e)
{
    for (unsigned i = 0; i < e->params.proposals_max && engine_completion_room(e) > 0; i++) {
        proposal_t *p = proposal_at(e, i);
        if (!p->used) continue;
        p->used = false;
        engine_complete(e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_PROPOSAL,
                                                    .session = p->session,
                                                    .sequence = p->sequence,
                                                    .err = RF_ERR_UNKNOWN_OUTCOME});
    }
    for (unsigned i = 0; i < AGREEMENT_READS_MAX && engine_completion_room(e) > 0; i++) {
        reading_t *r = &e->reads[i];
        if (!r->used || r->index != UINT64_MAX) continue;
        r->used = false;
        engine_complete(e, (agreement_completion_t){.kind = AGREEMENT_COMPLETED_READ,
                                                    .cookie = r->cookie,
                                                    .err = RF_ERR_NO_QUORUM});
    }
}

void role_tell_committed(agreement_t *e)
{
    for (rf_core_t core = 0; core < e->params.n_cores; core++)
        e->members[core].commit_tells = e->params.resend_ns == RF_NEVER ? 1 : COMMIT_TELLS;
}

void role_death(agreement_t *e, agreement_member_t who)
{
    if (who.core >= e->params.n_cores || who.core == e->params.self.core) {
        engine_ignore(e, "ignoring: no such member, or myself");
        return;
    }
    member_t *m = &e->members[who.core];
    if (m->incarnation != who.incarnation) {
        engine_ignore(e, "ignoring: another incarnation");
        return;
    }
    if (m->dead) {
        engine_ignore(e, "ignoring: known to be dead");
        return;
    }

    m->dead = true;
    group_member_died(e, who.core);
    if (who.core == ORDERER) {
        e->lost = true;
        e->output.view_changed = true;
        role_tell_committed(e);
    } else if (!engine_orders(e) && m->state == AGREEMENT_MEMBER_IN) {
        m->report = true;
    }
}
