/* Forming: the first entry of the log, by the lowest listed core, who leads term 1 without an election. */
#include "consensus/engine.h"

static const char *form_check(const agreement_t *e, const agreement_event_t *event)
{
    const rf_core_t *cores = event->form.cores;
    rf_core_t self = e->params.self.core;
    bool has_self = false;
    if (e->params.self.incarnation != 1) return "ignoring: a restarted core joins, it never forms";
    if (e->last > 0 || e->term > 0) return "ignoring: the machine is formed already";
    for (unsigned i = 0; i < event->form.n_cores; i++) {
        if (cores[i] >= e->params.n_cores) return "ignoring: a listed core is none of the machine's";
        if (cores[i] < self) return "ignoring: only the lowest core forms the machine";
        has_self |= cores[i] == self;
    }
    if (!has_self) return "ignoring: the forming core is not among the members";
    if (event->form.voters && (event->form.n_voters == 0 || event->form.n_voters > AGREEMENT_VOTERS_MAX))
        return "ignoring: no voters, or too many";
    for (unsigned i = 0; i < event->form.n_voters && event->form.voters; i++) {
        bool member = false;
        for (unsigned k = 0; k < event->form.n_cores; k++) member |= cores[k] == event->form.voters[i];
        if (!member) return "ignoring: a voter is not among the members";
        for (unsigned k = 0; k < i; k++) {
            if (event->form.voters[k] == event->form.voters[i]) return "ignoring: a voter is listed twice";
        }
    }
    return NULL;
}

static bool listed_member(const void *context, unsigned i, agreement_member_t *out)
{
    *out = (agreement_member_t){.core = ((const rf_core_t *)context)[i], .incarnation = 1};
    return true;
}

/* The members, in whichever way is shorter; runs that do not fit are left out: they can join later. */
static size_t form_body(agreement_t *e, uint8_t *body, const rf_core_t *cores, unsigned n_cores,
                        const agreement_member_t *voters, unsigned n_voters)
{
    wire_form_t form = {
        .machine = e->params.machine, .n_cores = e->params.n_cores, .n_voters = (uint16_t)n_voters};
    size_t size = sizeof form, map = (e->params.n_cores + 7u) / 8;
    memset(e->form_map, 0, map);
    for (unsigned i = 0; i < n_cores; i++) bit_set(e->form_map, cores[i], true);
    for (unsigned i = 0; i < n_voters; i++, size += sizeof(rf_core_t))
        memcpy(body + size, &voters[i].core, sizeof(rf_core_t));
    if (size + map <= e->params.entry_max) {
        form.n = (uint16_t)map;
        memcpy(body + size, e->form_map, map);
        size += map;
    } else {
        form.mode = 1;
        for (unsigned core = 0;
             core < e->params.n_cores && size + 2 * sizeof(uint16_t) <= e->params.entry_max;) {
            uint16_t run[2] = {(uint16_t)core, 0};
            while (core < e->params.n_cores && bit_get(e->form_map, core)) core++, run[1]++;
            if (run[1] > 0) {
                memcpy(body + size, run, sizeof run);
                size += sizeof run;
                form.n++;
            } else {
                core++;
            }
        }
    }
    memcpy(body, &form, sizeof form);
    return size;
}

void role_form(agreement_t *e, const agreement_event_t *event)
{
    const char *why = form_check(e, event);
    if (why) {
        engine_ignore(e, why);
        return;
    }
    agreement_member_t voters[AGREEMENT_VOTERS_MAX];
    const rf_core_t *list = event->form.voters ? event->form.voters : event->form.cores;
    unsigned n_list = event->form.voters ? event->form.n_voters : event->form.n_cores;
    agreement_params_t params = e->params;
    if (event->form.voters) params.voters_max = AGREEMENT_VOTERS_MAX;
    unsigned n = config_choose(&params, listed_member, list, n_list, NULL, 0, voters);
    if (event->form.voters) { /* as listed, an even number too */
        n = n_list;
        for (unsigned i = 0; i < n; i++) voters[i] = (agreement_member_t){.core = list[i], .incarnation = 1};
        for (unsigned i = 1; i < n; i++) {
            for (unsigned k = i; k > 0 && voters[k - 1].core > voters[k].core; k--) {
                agreement_member_t m = voters[k];
                voters[k] = voters[k - 1];
                voters[k - 1] = m;
            }
        }
    }
    uint8_t body[AGREEMENT_ENTRY_MAX];
    size_t size = form_body(e, body, event->form.cores, event->form.n_cores, voters, n);

    e->term = 1;
    e->voted = e->params.self;
    role_lead(e);
    rf_err_t err = log_append(e, AGREEMENT_ENTRY_FORM, 0, 0, body, size);
    rf_assert(err == RF_OK && e->term_index == 1);
    e->n_elections = 0;
}
