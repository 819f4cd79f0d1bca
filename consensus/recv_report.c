/* REPORT, to the leader: members that are dead, or not heard. The kernel's evidence counts from the dead one's own host;
 * from elsewhere it is hearsay. Or members that its sender feeds, and that do not catch up: voters are fed by the leader alone. */
#include "consensus/engine.h"

void recv_report(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size)
{
    wire_member_t who;
    if (size < sizeof(wire_head_t) || (size - sizeof(wire_head_t)) % sizeof who != 0) {
        engine_protocol_error(e, "ignoring REPORT: of no such size");
        return;
    }
    if (!leads(e)) {
        engine_ignore(e, "ignoring REPORT: not the leader");
        return;
    }
    for (size_t at = sizeof(wire_head_t); at < size; at += sizeof who) {
        memcpy(&who, bytes + at, sizeof who);
        if (who.core >= e->params.n_cores || who.flags < AGREEMENT_EVIDENCE_KERNEL ||
            who.flags > AGREEMENT_EVIDENCE_BEHIND) {
            engine_protocol_error(e, "ignoring the rest of REPORT: it cannot be");
            return;
        }
        if (who.flags == AGREEMENT_EVIDENCE_BEHIND) {
            /* Of whom the leader feeds itself, it sees that itself. */
            if (config_sets(e, config_newest(e), from_wire(who)) == 0 && !progress_find(e, from_wire(who)))
                change_stuck(e, from_wire(who));
            continue;
        }
        bool near = !e->params.host || e->params.host[from.core] == e->params.host[who.core];
        change_died(e, from_wire(who),
                    who.flags == AGREEMENT_EVIDENCE_KERNEL && near ? AGREEMENT_EVIDENCE_KERNEL
                                                                   : AGREEMENT_EVIDENCE_SILENCE,
                    false);
        if (!leads(e)) return;
    }
}
