/*
 * Changes of membership that somebody asks for.
 *
 *   JOIN      rackfishd asks for the next incarnation of a core of its own, which it then starts. Refused while the last one
 *             is heard (LOOKING: it may have died just now, or has no link with this core and is called), or it would be
 *             replaced where it runs. All that ask within JOIN_GATHER_NS join by one change (a host that comes back: all its cores), and
 *             the next gather while it is under way
 *   LEAVE     this core is to leave in order. DRAINING: its dispatchers end, by themselves or (KILL) by TERM and KILL; then
 *             HANDING: if this is the leader, another one takes over; then the change is proposed; when a view without this
 *             core is in force the answer is given and the core ends. Asked for again with KILL while it waits: it waits no more, and
 *             who asked again FOLLOWS
 *   EXPEL     a host whose fenced core could not be reaped: all that live there now, by one change. Two voters stay, or it is not done
 */
#include "monitor/state.h"

#define SIGNAL_TERM 15

enum { PROPOSING = 1, DRAINING, HANDING, LOOKING, FOLLOWING };

#define LOOK_NS (100 * RF_NS_PER_MS) /* within which its death is known here, if its host knows it */
#define CALL_NS (500 * RF_NS_PER_MS) /* within which one that is called answers */

static void each_local(monitor_t *m, bool destroy)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state != LOCAL_RUNNING) continue;
        if (destroy) {
            rf_kernel_target_t target = {.domain = l->domain, .index = l->index};
            kernel_invoke(m, 0, RF_KERNEL_DESTROY, &target, sizeof target, NULL, 0);
        } else {
            rf_kernel_signal_t signal = {
                .domain = l->domain, .index = l->index, .signo = SIGNAL_TERM, .whole = 1};
            kernel_invoke(m, 0, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0);
        }
    }
}

/* Dispatchers that run or start; `also`: and those whose end is not agreed on yet. */
static unsigned n_left(const monitor_t *m, bool also)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        n += l->state == LOCAL_RUNNING || l->state == LOCAL_CREATING || (also && l->state == LOCAL_ENDING);
    }
    return n;
}

/* Somebody is left when this core, or this node, has gone. */
static bool somebody_stays(const monitor_t *m, bool whole_node)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        if (core != m->core && core_is_alive(m, core) && !(whole_node && same_node(m, core))) return true;
    }
    return false;
}

static void propose(monitor_t *m, op_t *op)
{
    op->state = PROPOSING;
    op_deadline(m, op, m->now_ns + CHANGE_NS);
    if (!op->change.join)
        agree_queue(m, op);
    else if (m->agree.joins_ns == 0)
        m->agree.joins_ns = m->now_ns + JOIN_GATHER_NS;
}

/* ---- those who join by one change ---- */

/* The next at or after *i that is part of that change (0: that waits to be part of one); NULL: no more. */
static op_t *next_joining(monitor_t *m, unsigned *i, uint64_t sequence)
{
    while (*i < MONITOR_OPS_MAX) {
        op_t *op = &m->ops[(*i)++];
        if (op->kind == OP_CHANGE && op->change.join && op->state == PROPOSING &&
            op->change.sequence == sequence)
            return op;
    }
    return NULL;
}

/* Who asks for a core that is in this change already waits for the next: each is answered with a life of its own. */
unsigned joins_gather(monitor_t *m, uint64_t sequence, rf_core_t joiners[AGREEMENT_JOINS_MAX])
{
    unsigned n = 0, i = 0;
    for (op_t *op; n < AGREEMENT_JOINS_MAX && (op = next_joining(m, &i, 0));) {
        unsigned k = 0;
        while (k < n && joiners[k] != op->change.core) k++;
        if (k < n) continue;
        joiners[n++] = op->change.core;
        op->change.sequence = sequence;
    }
    return n;
}

void joins_scatter(monitor_t *m, uint64_t sequence)
{
    unsigned i = 0;
    for (op_t *op; (op = next_joining(m, &i, sequence));) op->change.sequence = 0;
}

/* Here, not when the change is answered: a later view may be applied by then. */
void joins_applied(monitor_t *m, uint64_t sequence, const agreement_apply_t *entry)
{
    unsigned i = 0;
    for (op_t *op; (op = next_joining(m, &i, sequence));) {
        for (unsigned k = 0; k < entry->n_changes; k++) {
            const agreement_change_t *change = &entry->changes[k];
            if (change->joined && change->member.core == op->change.core)
                op->change.incarnation = change->member.incarnation;
        }
    }
}

static void answer_join(monitor_t *m, op_t *op, rf_err_t err)
{
    rf_client_joined_t out = {.incarnation = err == RF_OK ? op->change.incarnation : 0};
    if (err == RF_OK && out.incarnation == 0) err = RF_ERR_LIMIT; /* there is no later one */
    op_reply(m, op, err, &out, sizeof out);
}

void joins_proposed(monitor_t *m, uint64_t sequence, rf_err_t err)
{
    unsigned i = 0;
    for (op_t *op; (op = next_joining(m, &i, sequence));) answer_join(m, op, err);
}

/* Linked, and heard within the time after which its host would be given up. */
static bool is_heard(const monitor_t *m, rf_core_t core)
{
    const core_t *c = &m->cores[core];
    uint64_t deadline_ns = m->boot->host_deadline_ms * RF_NS_PER_MS;
    return core_is_alive(m, core) &&
           (core == m->core || (c->link == PEER_LINKED && c->linked == core_agreed(m, core) &&
                                core_heard_ns(m, c) + deadline_ns > m->now_ns));
}

void join_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_core_t core)
{
    rf_err_t err = core >= m->boot->n_cores ? RF_ERR_INVALID
                   : !m->formed             ? RF_ERR_FORMING
                   : !m->quorum             ? RF_ERR_NO_QUORUM
                                            : RF_OK;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    /* Most cores of other hosts have no link with this one: that nothing was heard says nothing of them. */
    bool called = core_is_alive(m, core) && core != m->core && m->cores[core].link != PEER_LINKED &&
                  peer_need(m, core) == RF_ERR_AGAIN;
    op_t *op = op_begin_for_client(m, OP_CHANGE, client, request, m->now_ns + (called ? CALL_NS : LOOK_NS));
    if (!op) return;
    op->change.join = true;
    op->change.core = core;
    if (called || is_heard(m, core))
        op->state = LOOKING;
    else
        propose(m, op);
}

/* The request by which this core leaves, or one that follows it; NULL: no more. */
static op_t *next_leaving(monitor_t *m, unsigned *i)
{
    while (*i < MONITOR_OPS_MAX) {
        op_t *op = &m->ops[(*i)++];
        if (op->kind == OP_CHANGE && !op->change.join && !op->change.expel && op->change.core == m->core)
            return op;
    }
    return NULL;
}

/* An attempt that may still be carried out: in the engine, or answered so. */
static bool is_unsure(const monitor_t *m, const op_t *op)
{
    return op->change.unsure || agree_is_under_way(m, op);
}

/* Those who ask that this core leaves are told that this is not known; it goes on asking, and takes nothing on. */
static void go_on_leaving(monitor_t *m, op_t *op)
{
    rf_client_left_t out = {0};
    unsigned i = 0;
    op->change.unsure = true;
    for (op_t *other; (other = next_leaving(m, &i));) {
        if (other != op) op_reply(m, other, RF_ERR_UNKNOWN_OUTCOME, &out, sizeof out);
    }
    if (op->client == NO_CLIENT) return;
    client_reply(m, op->client, op->client_tag, op->client_op, RF_ERR_UNKNOWN_OUTCOME, &out, sizeof out);
    m->clients[op->client].outstanding--;
    op->client = NO_CLIENT;
}

static void answer_leaving(monitor_t *m, rf_err_t err)
{
    rf_client_left_t out = {0};
    unsigned i = 0;
    for (op_t *op; (op = next_leaving(m, &i));) op_reply(m, op, err, &out, sizeof out);
}

static void kill_instead_of_waiting(monitor_t *m)
{
    unsigned i = 0;
    for (op_t *op; (op = next_leaving(m, &i));) {
        if (op->state != DRAINING || op->change.kill) continue;
        op->change.kill = true;
        op_deadline(m, op, m->now_ns + SHUTDOWN_GRACE_NS);
        each_local(m, false);
    }
}

void leave_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_leave_t *body)
{
    rf_client_left_t out = {.dispatchers = n_left(m, false)};
    bool again = m->phase == PHASE_LEAVING && body->mode == RF_LEAVE_KILL;
    rf_err_t err = m->phase != PHASE_FORMED && !again                      ? RF_ERR_BUSY
                   : !m->quorum                                            ? RF_ERR_NO_QUORUM
                   : !somebody_stays(m, body->whole_node != 0)             ? RF_ERR_PERMISSION
                   : body->mode > RF_LEAVE_KILL                            ? RF_ERR_INVALID
                   : body->mode == RF_LEAVE_IF_IDLE && out.dispatchers > 0 ? RF_ERR_BUSY
                                                                           : RF_OK;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, &out, sizeof out);
        return;
    }
    op_t *op =
        op_begin_for_client(m, OP_CHANGE, client, request,
                            body->mode == RF_LEAVE_KILL && !again ? m->now_ns + SHUTDOWN_GRACE_NS : RF_NEVER);
    if (!op) return;
    op->state = again ? FOLLOWING : DRAINING;
    op->change.core = m->core;
    op->change.incarnation = m->incarnation;
    if (again) {
        kill_instead_of_waiting(m);
        return;
    }
    op->change.kill = body->mode == RF_LEAVE_KILL;
    m->phase = PHASE_LEAVING;
    out_log(m, RF_LOG_INFO, "this core leaves the machine%s",
            out.dispatchers > 0 ? ", when its dispatchers have ended" : "");
    machine_event(m, RF_MACHINE_CORE_LEAVING, RF_OK, m->core, m->node, RF_DOMAIN_NONE);
    if (op->change.kill) each_local(m, false);
}

void leave_tick(monitor_t *m)
{
    unsigned i = 0;
    for (op_t *op; m->phase == PHASE_LEAVING && (op = next_leaving(m, &i));) {
        if (op->state == DRAINING && n_left(m, true) == 0) {
            op->state = HANDING;
            op_deadline(m, op, m->now_ns + REQUEST_NS);
            if (m->agree.state.role == AGREEMENT_ROLE_LEADER) agree_transfer(m);
        }
        if (op->state == HANDING && m->agree.state.role != AGREEMENT_ROLE_LEADER && m->quorum) propose(m, op);
    }
}

bool leave_done(monitor_t *m)
{
    unsigned i = 0;
    for (op_t *op; m->phase == PHASE_LEAVING && (op = next_leaving(m, &i));) {
        if (op->state != PROPOSING) continue;
        answer_leaving(m, RF_OK);
        m->phase = PHASE_SHUTDOWN;
        m->exit_status = MONITOR_EXIT_SHUTDOWN;
        return true;
    }
    return false;
}

static bool is_being_expelled(const monitor_t *m, rf_node_t node)
{
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        const op_t *op = &m->ops[i];
        if (op->kind == OP_CHANGE && op->state == PROPOSING && op->change.expel &&
            m->boot->node_of[op->change.core] == node)
            return true;
    }
    return false;
}

/* One change (AGREEMENT: losing a host is one). Asked for again and again, until it has left: what is under way already is enough. */
void expel_node(monitor_t *m, rf_node_t node)
{
    if (is_being_expelled(m, node)) return;
    op_t *op = op_begin(m, OP_CHANGE, m->now_ns + CHANGE_NS);
    if (!op) return; /* again with the fence */
    const rf_boot_node_t *n = &m->boot->nodes[node];
    op->change.expel = true;
    op->change.core = n->first_core;
    op->state = PROPOSING;
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores; core++)
        m->cores[core].expelling = core_agreed(m, core);
    agree_queue(m, op);
}

unsigned change_leavers(const monitor_t *m, const op_t *op, agreement_member_t leavers[CHANGE_LEAVERS_MAX])
{
    if (!op->change.expel) {
        leavers[0] = (agreement_member_t){.core = op->change.core, .incarnation = op->change.incarnation};
        return 1;
    }
    const rf_boot_node_t *n = &m->boot->nodes[m->boot->node_of[op->change.core]];
    unsigned count = 0;
    for (rf_core_t core = n->first_core; core < n->first_core + n->n_cores && count < CHANGE_LEAVERS_MAX;
         core++) {
        rf_incarnation_t agreed = core_agreed(m, core);
        if (core_is_member(m, core) && agreed == m->cores[core].expelling)
            leavers[count++] = (agreement_member_t){.core = core, .incarnation = agreed};
    }
    return count;
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    bool mine = op->change.core == m->core && m->phase == PHASE_LEAVING;
    (void)value;
    if (mine && err == RF_OK) {
        leave_done(m);
    } else if (mine && (op->change.unsure || err == RF_ERR_UNKNOWN_OUTCOME ||
                        (m->now_ns < op->deadline_ns && err == RF_ERR_NO_QUORUM))) {
        op->change.unsure |= err == RF_ERR_UNKNOWN_OUTCOME;
        m->agree.retry_ns = m->now_ns + RETRY_NS; /* leaving twice is leaving once */
        agree_queue(m, op);
    } else if (mine) { /* not now: it goes on as a member */
        m->phase = PHASE_FORMED;
        answer_leaving(m, err);
    } else {
        op_end(m, op);
    }
}

static void timeout(monitor_t *m, op_t *op)
{
    if (op->state == DRAINING && op->change.kill) {
        op_deadline(m, op, RF_NEVER);
        each_local(m, true);
    } else if (op->state == LOOKING) {
        if (is_heard(m, op->change.core))
            answer_join(m, op, RF_ERR_BUSY);
        else
            propose(m, op);
    } else if (op->state == HANDING) {
        propose(m, op); /* nobody took over: the change ends its reign as well */
    } else if (op->change.join) {
        answer_join(m, op, RF_ERR_TIMEOUT);
    } else if (!op->change.expel && is_unsure(m, op)) {
        go_on_leaving(m, op);
    } else {
        op->proposing = false; /* its answer, if it still comes, finds nobody */
        proposed(m, op, RF_ERR_TIMEOUT, 0);
    }
}

const op_class_t op_change_class = {.name = "change", .proposed = proposed, .timeout = timeout};
