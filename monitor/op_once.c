/*
 * Sessions of the log (Raft 6.3): what is changed in one is changed once, however often and through whichever monitor it is asked for,
 * and the repetition is answered what the first gave. rackfishd has one, for its command lines' changes: if the monitor that it asked
 * dies, or knows no outcome, it asks again. It outlives the monitor that opened it, and ends by an entry: END, or the
 * OPEN of one more than the machine keeps (consensus/session.c), since who opened it may be gone without a word.
 */
#include "monitor/state.h"

void once_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t session)
{
    rf_err_t err = !m->formed ? RF_ERR_FORMING : !m->quorum ? RF_ERR_NO_QUORUM : RF_OK;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    op_t *op = op_begin_for_client(m, OP_ONCE, client, request, RF_NEVER);
    if (!op) return;
    op->once.end = request->op == RF_CLIENT_ONCE_END;
    op->once.id = session;
    agree_queue(m, op);
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    if (op->client == NO_CLIENT && err == RF_OK && !op->once.end) { /* opened for nobody */
        op->once.end = true;
        op->once.id = value;
        agree_queue(m, op);
        return;
    }
    rf_client_session_t out = {.session = op->once.end ? op->once.id : value};
    op_reply(m, op, err, &out, err == RF_OK ? sizeof out : 0);
}

const op_class_t op_once_class = {.name = "once", .proposed = proposed};
