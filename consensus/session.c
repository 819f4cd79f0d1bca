/*
 * Exactly once (Raft 6.3): which sequences of a session were executed, and for opened sessions what came of them. All
 * of it is a function of the applied log, and in the snapshot. A place is looked up by id through a map with open
 * addressing; where a session lies is nobody else's business, so it needs not be the same everywhere.
 *
 * Who opened a session may be gone without having ended it. So when as many are open as are kept, the one opened first makes way for
 * the next (6.3 has such a bound, agreed on by the log); if its owner lives, it is told RF_ERR_SESSION, and opens another.
 */
#include "consensus/engine.h"

static unsigned map_start(const agreement_t *e, uint64_t id)
{
    return (unsigned)((id * 0x9e3779b97f4a7c15ull) >> 40) & (e->session_map_max - 1);
}

session_t *session_look_up(const agreement_t *e, uint64_t id)
{
    for (unsigned at = map_start(e, id);; at = (at + 1) & (e->session_map_max - 1)) {
        uint16_t place = e->session_map[at];
        if (place == 0) return NULL;
        if (e->sessions[place - 1].id == id) return &e->sessions[place - 1];
    }
}

static void map_add(agreement_t *e, uint64_t id, unsigned place)
{
    unsigned at = map_start(e, id);
    while (e->session_map[at] != 0) at = (at + 1) & (e->session_map_max - 1);
    e->session_map[at] = (uint16_t)(place + 1);
}

static void map_remove(agreement_t *e, uint64_t id)
{
    unsigned mask = e->session_map_max - 1, at = map_start(e, id);
    while (e->sessions[e->session_map[at] - 1].id != id) at = (at + 1) & mask;
    unsigned hole = at;
    for (at = (at + 1) & mask; e->session_map[at] != 0; at = (at + 1) & mask) { /* those behind it move up */
        unsigned start = map_start(e, e->sessions[e->session_map[at] - 1].id);
        if (((at - start) & mask) < ((at - hole) & mask)) continue;
        e->session_map[hole] = e->session_map[at];
        hole = at;
    }
    e->session_map[hole] = 0;
}

/* A new one, with results if it was opened. NULL: no place. */
static session_t *add(agreement_t *e, uint64_t id)
{
    bool opened = id & SESSION_OPENED;
    if (opened ? e->n_opened == e->params.sessions_max : e->n_own == e->own_max) return NULL;
    unsigned place = 0;
    if (e->n_own + e->n_opened == e->n_places) {
        place = e->n_places++;
    } else {
        while (e->sessions[place].id != 0) place++;
    }
    e->sessions[place] = (session_t){.id = id};
    if (opened) {
        result_t *results = &e->results[e->free_opened[e->n_opened++] * (size_t)AGREEMENT_WINDOW];
        memset(results, 0, AGREEMENT_WINDOW * sizeof *results);
        e->sessions[place].results = results;
    } else {
        e->n_own++;
    }
    map_add(e, id, place);
    return &e->sessions[place];
}

static bool own_session_in(const agreement_t *e, uint64_t id)
{
    return !(id & SESSION_OPENED) && id >> 48 == 0 &&
           member_in(e, (agreement_member_t){.core = (rf_core_t)(id & 0xffff),
                                             .incarnation = (rf_incarnation_t)(id >> 16)});
}

bool session_exists(const agreement_t *e, uint64_t id)
{
    return id & SESSION_OPENED ? session_find(e, id) != NULL : own_session_in(e, id);
}

session_t *session_use(agreement_t *e, uint64_t id, bool *full)
{
    *full = false;
    session_t *s = session_find(e, id);
    if (s) e->session_last = s;
    if (s || !own_session_in(e, id)) return s;
    s = add(e, id);
    *full = !s;
    return s;
}

/* The opened one with the lowest id, which is the index at which it was opened; 0: none is open. */
static uint64_t opened_first(const agreement_t *e)
{
    uint64_t first = 0;
    for (unsigned i = 0; i < e->n_places; i++) {
        uint64_t id = e->sessions[i].id;
        if ((id & SESSION_OPENED) && (first == 0 || id < first)) first = id;
    }
    return first;
}

rf_err_t session_open(agreement_t *e, uint64_t id)
{
    if (e->n_opened > 0 && e->n_opened == e->params.sessions_max) session_end(e, opened_first(e));
    return add(e, id) ? RF_OK : RF_ERR_LIMIT;
}

rf_err_t session_end(agreement_t *e, uint64_t id)
{
    session_t *s = session_find(e, id);
    if (!s) return RF_ERR_NOT_FOUND;
    map_remove(e, id);
    s->id = 0;
    if (s->results) {
        e->free_opened[--e->n_opened] = (uint16_t)((s->results - e->results) / AGREEMENT_WINDOW);
        s->results = NULL;
    } else {
        e->n_own--;
    }
    return RF_OK;
}

void session_mark(session_t *s, uint64_t sequence)
{
    if (sequence > s->high) {
        uint64_t forward = sequence - s->high;
        s->bits = forward >= AGREEMENT_WINDOW ? 0 : s->bits << forward;
        s->high = sequence;
    }
    s->bits |= 1ull << (s->high - sequence);
}

void session_clear(agreement_t *e)
{
    memset(e->sessions, 0, e->n_places * sizeof *e->sessions);
    memset(e->session_map, 0, e->session_map_max * sizeof *e->session_map);
    for (unsigned i = 0; i < e->params.sessions_max; i++) e->free_opened[i] = (uint16_t)i;
    e->n_own = e->n_opened = 0;
}

/* ---- in a snapshot: a count, then {session, number of results, results} ---- */

typedef struct wire_session {
    uint64_t id, high, bits, n_results;
} wire_session_t;

size_t session_save_max(const agreement_params_t *p)
{
    unsigned own = own_sessions_max(p);
    return sizeof(uint64_t) + own * sizeof(wire_session_t) +
           p->sessions_max * (sizeof(wire_session_t) + AGREEMENT_WINDOW * sizeof(result_t));
}

size_t session_save(const agreement_t *e, uint8_t *out)
{
    uint64_t n = e->n_own + e->n_opened;
    size_t size = sizeof n;
    if (defect(e, AGREEMENT_DEFECT_NO_SESSIONS_SAVED)) n = 0;
    memcpy(out, &n, sizeof n);
    for (unsigned i = 0; i < e->n_places && n > 0; i++) {
        const session_t *s = &e->sessions[i];
        if (s->id == 0) continue;
        wire_session_t head = {.id = s->id, .high = s->high, .bits = s->bits};
        size_t at = size;
        size += sizeof head;
        for (unsigned k = 0; k < AGREEMENT_WINDOW && s->results; k++) {
            const result_t *r = session_result(s, k);
            if (r->sequence == 0) continue;
            memcpy(out + size, r, sizeof *r);
            size += sizeof *r;
            head.n_results++;
        }
        memcpy(out + at, &head, sizeof head);
    }
    return size;
}

size_t session_load(agreement_t *e, const uint8_t *bytes, size_t size, bool take)
{
    uint64_t n;
    size_t at = sizeof n;
    unsigned n_own = 0, n_opened = 0;
    if (size < sizeof n) return 0;
    memcpy(&n, bytes, sizeof n);
    if (n > e->own_max + e->params.sessions_max) return 0;
    if (take) session_clear(e);
    for (uint64_t i = 0; i < n; i++) {
        wire_session_t head;
        if (size - at < sizeof head) return 0;
        memcpy(&head, bytes + at, sizeof head);
        at += sizeof head;
        bool opened = head.id & SESSION_OPENED;
        if (head.id == 0 || head.n_results > (opened ? AGREEMENT_WINDOW : 0) ||
            size - at < head.n_results * sizeof(result_t) ||
            ++*(opened ? &n_opened : &n_own) > (opened ? e->params.sessions_max : e->own_max))
            return 0;
        session_t *s = take && !session_find(e, head.id) ? add(e, head.id) : NULL;
        if (s) {
            s->high = head.high;
            s->bits = head.bits;
        }
        for (uint64_t k = 0; k < head.n_results; k++, at += sizeof(result_t)) {
            result_t r;
            memcpy(&r, bytes + at, sizeof r);
            if (s) *session_result(s, r.sequence) = r;
        }
    }
    return at;
}
