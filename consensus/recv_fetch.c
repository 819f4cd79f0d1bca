/* FETCH: a learner whom its parent does not feed asks for what is committed; it is fed here until the next view. */
#include "consensus/engine.h"

void recv_fetch(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_fetch_t m;
    if (size != sizeof m) {
        engine_protocol_error(e, "ignoring FETCH: of no such size");
        return;
    }
    memcpy(&m, bytes, sizeof m);
    if (!e->formed || m.match > e->committed) {
        engine_ignore(e, "ignoring FETCH: it holds more than I do");
        return;
    }
    progress_t *p = progress_find(e, from);
    if (!p) {
        p = progress_add(e, from);
        if (p) p->fetched = true;
    }
    if (!p || p->dead) {
        engine_ignore(e, "ignoring FETCH: too many are fed, or it is dead");
        return;
    }
    p->heard_ns = e->now_ns;
    p->ask = true;
    if (p->mode == PROGRESS_PROBE || p->mode == PROGRESS_SILENT) p->mode = PROGRESS_STREAM;
    if (p->sets == 0 && p->mode == PROGRESS_STREAM) {
        p->match = m.match;
        p->next = m.match + 1;
        p->commit_sent = 0;
    }
    e->due |= DUE_FEED;
}
