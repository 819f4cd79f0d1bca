#include "consensus/engine.h"

session_t *session_find(agreement_t *e, uint64_t id)
{
    if (!(id & SESSION_OPENED)) {
        rf_core_t core = (rf_core_t)(id & 0xffff);
        if (core >= e->params.n_cores || e->sessions[core].id != id ||
            e->members[core].state == AGREEMENT_MEMBER_NONE)
            return NULL;
        return &e->sessions[core];
    }
    for (unsigned i = 0; i < e->params.sessions_max; i++) {
        session_t *s = &e->sessions[e->params.n_cores + i];
        if (s->id == id) return s;
    }
    return NULL;
}

/* Takes a free place, else that of the ended session with the lowest id: a function of the log alone. */
session_t *session_open(agreement_t *e, uint64_t id)
{
    session_t *place = NULL;
    for (unsigned i = 0; i < e->params.sessions_max; i++) {
        session_t *s = &e->sessions[e->params.n_cores + i];
        if (s->id == 0) {
            place = s;
            break;
        }
        if (s->ended && (!place || s->id < place->id)) place = s;
    }
    if (!place) return NULL;
    memset(place, 0, sizeof *place);
    place->id = id;
    return place;
}

rf_err_t window_check(const window_t *window, uint64_t sequence)
{
    if (sequence > window->high) return RF_OK;
    uint64_t back = window->high - sequence;
    if (back >= AGREEMENT_WINDOW) return RF_ERR_SESSION;
    return window->bits >> back & 1 ? RF_ERR_EXISTS : RF_OK;
}

void window_mark(window_t *window, uint64_t sequence)
{
    rf_assert(window_check(window, sequence) == RF_OK);
    if (sequence > window->high) {
        uint64_t forward = sequence - window->high;
        window->bits = forward >= AGREEMENT_WINDOW ? 0 : window->bits << forward;
        window->high = sequence;
    }
    window->bits |= 1ull << (window->high - sequence);
}

const result_t *session_result(const session_t *session, uint64_t sequence)
{
    const result_t *result = &session->results[sequence % AGREEMENT_WINDOW];
    return result->sequence == sequence && sequence > 0 ? result : NULL;
}
