/*
 * A change of the registry for a client: one proposal. Those that may have to wait (acquire, barrier, pop) go on:
 *
 *   PROPOSING    the command is on its way into the log
 *      |           a change: answered with what applying it gave
 *      |           a wait: it stands in line, in every replica
 *   WAITING ---- granted: the entry that grants it was applied here, the client is answered
 *      |  its time is over, or the client cancels
 *   CANCELLING   an entry of its own: whichever of grant and cancel comes first in the log is what the client is told
 *
 *   GIVING_BACK  granted, but nobody is there any more who asked
 *
 * A wait whose owner ends leaves the line by the entry that says so.
 */
#include "monitor/state.h"

enum { PROPOSING = 1, WAITING, CANCELLING, GIVING_BACK };

_Static_assert((int)RF_REGISTRY_PUT == (int)REGISTRY_PUT && (int)RF_REGISTRY_POP == (int)REGISTRY_POP &&
                   (int)RF_REGISTRY_KIND_QUEUE == (int)REGISTRY_QUEUE &&
                   (int)RF_REGISTRY_TRY == (int)REGISTRY_TRY &&
                   (int)RF_REGISTRY_IF_PRESENT == (int)REGISTRY_IF_PRESENT,
               "the client link's numbers are the log's");
_Static_assert(sizeof(registry_command_t) + RF_CLIENT_REGISTRY_BYTES_MAX <= REGISTRY_COMMAND_MAX,
               "it fits an entry");

#define CLIENT_FLAGS (REGISTRY_EPHEMERAL | REGISTRY_SEQUENTIAL | REGISTRY_TRY)

registry_params_t registry_params_of(const rf_boot_t *boot)
{
    uint64_t seed;
    memcpy(&seed, boot->machine.bytes, sizeof seed);
    bool small = boot->small;
    return (registry_params_t){.objects_max = small ? 128 : 4096,
                               .claims_max = small ? 128 : 4096,
                               .blocks_max = small ? 128 : 8192,
                               .users_max = small ? 16 : 256,
                               .events_max = small ? 64 : 1024,
                               .events_bytes = small ? 8 << 10 : 256 << 10,
                               .user_objects_max = small ? 128 : 2048,
                               .user_claims_max = small ? 128 : 2048,
                               .user_blocks_max = small ? 128 : 4096,
                               .seed = seed};
}

uint64_t registry_number(monitor_t *m)
{
    return registry_number_of(m->core, m->incarnation, ++m->registry_next);
}

static bool is_wait(unsigned what)
{
    return what == REGISTRY_ACQUIRE || what == REGISTRY_WAIT || what == REGISTRY_POP;
}

/* Dispatchers leave some to rackfishd. */
static uint16_t slot_take(monitor_t *m, bool dispatcher)
{
    uint16_t end = dispatcher ? REGISTRY_SLOTS_MAX - REGISTRY_SLOTS_RESERVED : REGISTRY_SLOTS_MAX;
    for (uint16_t i = 0; i < end; i++) {
        if (m->slots[i].used) continue;
        m->slots[i].used = true;
        return i;
    }
    return NO_SLOT;
}

static void slot_free(monitor_t *m, op_t *op)
{
    if (op->registry.slot != NO_SLOT) m->slots[op->registry.slot].used = false;
    op->registry.slot = NO_SLOT;
}

void registry_op_ended(monitor_t *m, op_t *op)
{
    slot_free(m, op);
    if (op->state == PROPOSING && op->registry.session != 0)
        registry_session_proposed(m, op->registry.session);
}

static bool is_privileged(const monitor_t *m, const char *user)
{
    return strcmp(user, "root") == 0 || (m->owner[0] && strncmp(user, m->owner, sizeof m->owner) == 0);
}

/* Who asks, and for whom. */
static rf_err_t identify(monitor_t *m, uint32_t client, const rf_client_registry_t *body,
                         registry_command_t *out)
{
    const client_t *c = &m->clients[client];
    out->domain = c->domain;
    if (c->domain != RF_DOMAIN_NONE) {
        out->session = c->index;
        memcpy(out->user, domain_find(m, c->domain)->user, sizeof out->user);
    } else {
        if (!text_is_valid(body->user, sizeof body->user)) return RF_ERR_INVALID;
        if (body->session != 0 && !registry_session_find(m, client, body->session)) return RF_ERR_SESSION;
        out->session = body->session;
        memcpy(out->user, body->user, strlen(body->user));
    }
    if (is_privileged(m, out->user)) out->flags |= REGISTRY_PRIVILEGED;
    return RF_OK;
}

static rf_err_t make_command(monitor_t *m, uint32_t client, const rf_client_registry_t *body, size_t size,
                             registry_command_t *out)
{
    size_t bytes = (size_t)body->name_size + body->value_size + body->compare_size;
    if (body->what < RF_REGISTRY_PUT || body->what > RF_REGISTRY_POP || (body->flags & ~CLIENT_FLAGS) != 0 ||
        bytes > RF_CLIENT_REGISTRY_BYTES_MAX || size != sizeof *body + bytes)
        return RF_ERR_INVALID;
    if (!m->formed) return RF_ERR_FORMING;
    if (!m->quorum) return RF_ERR_NO_QUORUM;
    *out = (registry_command_t){.op = body->what,
                                .kind = body->kind,
                                .condition = body->condition,
                                .flags = body->flags,
                                .name_size = body->name_size,
                                .value_size = body->value_size,
                                .compare_size = body->compare_size,
                                .n = body->n,
                                .number = body->number};
    return identify(m, client, body, out);
}

/* What may be repeated through another monitor: nobody waits for it here, and nobody here owns it. */
static rf_err_t check_once(const monitor_t *m, const rf_client_registry_t *body, const rf_client_once_t *once)
{
    if (!once) return RF_OK;
    if (once->session == 0 || once->sequence == 0 || body->session != 0 || is_wait(body->what) ||
        body->what == RF_REGISTRY_RELEASE || (body->flags & RF_REGISTRY_EPHEMERAL))
        return RF_ERR_INVALID;
    for (unsigned i = 0; i < MONITOR_OPS_MAX && m->n_ops > 0; i++) {
        const op_t *op = &m->ops[i];
        if (op->kind == OP_REGISTRY && op->log_session == once->session && op->log_sequence == once->sequence)
            return RF_ERR_AGAIN;
    }
    return RF_OK;
}

void registry_change(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_registry_t *body, size_t size, const rf_client_once_t *once)
{
    registry_command_t command;
    rf_err_t err = make_command(m, client, body, size, &command);
    if (err == RF_OK) err = check_once(m, body, once);
    uint16_t slot = err == RF_OK ? slot_take(m, command.domain != RF_DOMAIN_NONE) : NO_SLOT;
    if (err == RF_OK && slot == NO_SLOT) err = RF_ERR_AGAIN;
    if (err != RF_OK) {
        client_reply(m, client, request->tag, request->op, err, NULL, 0);
        return;
    }
    bool waits =
        is_wait(body->what) && !(body->flags & REGISTRY_TRY) && body->timeout_ns < RF_NEVER - m->now_ns;
    op_t *op =
        op_begin_for_client(m, OP_REGISTRY, client, request, waits ? m->now_ns + body->timeout_ns : RF_NEVER);
    if (!op) {
        m->slots[slot].used = false;
        return;
    }
    command.wait = registry_number(m);
    command.cookie = op_id(m, op);
    op->state = PROPOSING;
    if (once) {
        op->log_session = once->session;
        op->log_sequence = once->sequence;
    }
    op->registry.wait = command.wait;
    op->registry.session = command.domain == RF_DOMAIN_NONE ? command.session : 0;
    op->registry.domain = command.domain;
    op->registry.index = m->clients[client].index;
    op->registry.what = body->what;
    op->registry.flags = body->flags;
    op->registry.slot = slot;
    if (op->registry.session != 0) registry_session_find(m, client, command.session)->proposing++;
    size_t bytes = size - sizeof *body;
    memcpy(m->slots[slot].bytes, &command, sizeof command);
    memcpy(m->slots[slot].bytes + sizeof command, body + 1, bytes);
    agree_propose_bytes(m, op, m->slots[slot].bytes, sizeof command + bytes);
}

static void reply_done(monitor_t *m, op_t *op, uint64_t revision, const void *bytes, size_t size)
{
    struct {
        rf_client_registry_done_t head;
        uint8_t bytes[REGISTRY_VALUE_MAX];
    } out = {.head = {.revision = revision, .size = (uint32_t)size}};
    rf_assert(size <= sizeof out.bytes);
    if (size > 0) memcpy(out.bytes, bytes, size);
    op_reply(m, op, RF_OK, &out, sizeof out.head + size);
}

/* The name that the revision made of it (registry.h). */
static void reply_in_sequence(monitor_t *m, op_t *op, uint64_t revision)
{
    registry_command_t command;
    char name[REGISTRY_NAME_MAX];
    const uint8_t *bytes = m->slots[op->registry.slot].bytes;
    memcpy(&command, bytes, sizeof command);
    size_t size = command.name_size;
    uint64_t left = revision;
    memcpy(name, bytes + sizeof command, size);
    for (unsigned i = REGISTRY_SUFFIX; i-- > 0; left /= 10) name[size + i] = (char)('0' + left % 10);
    reply_done(m, op, revision, name, size + REGISTRY_SUFFIX);
}

/* Proposes that the wait leaves its line; `flags`: also what it was granted. */
static void propose_cancel(monitor_t *m, op_t *op, uint64_t domain, uint64_t session, uint16_t flags)
{
    op->registry_command = (registry_command_t){.op = REGISTRY_CANCEL,
                                                .flags = flags,
                                                .domain = domain,
                                                .session = session,
                                                .wait = op->registry.wait,
                                                .user = "root"};
    agree_propose_bytes(m, op, &op->registry_command, sizeof op->registry_command);
}

static uint64_t owner_session(const op_t *op)
{
    return op->registry.domain != RF_DOMAIN_NONE ? op->registry.index : op->registry.session;
}

static void start_cancel(monitor_t *m, op_t *op)
{
    op->state = CANCELLING;
    propose_cancel(m, op, op->registry.domain, owner_session(op), 0);
}

static void propose_give_back(monitor_t *m, op_t *op)
{
    propose_cancel(m, op, op->registry.domain, owner_session(op), REGISTRY_GIVE_BACK);
}

static void stands_in_line(monitor_t *m, op_t *op)
{
    registry_op_ended(m, op);
    op->state = WAITING;
    if (op->registry.over != RF_OK || op->client == NO_CLIENT) start_cancel(m, op);
}

void registry_loaded(monitor_t *m)
{
    m->sessions_late = true;
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        op_t *op = &m->ops[i];
        uint64_t token;
        if (op->kind != OP_REGISTRY || op->state != WAITING) continue;
        registry_wait_state_t state = registry_wait_state(m->registry, op->registry.wait, &token);
        if (state == REGISTRY_WAIT_HELD)
            reply_done(m, op, token, NULL, 0);
        else if (
            state ==
            REGISTRY_WAIT_NONE) /* a barrier that has opened, a message taken: what it was is not known */
            op_reply(m, op, RF_ERR_UNKNOWN_OUTCOME, NULL, 0);
    }
}

/* Nothing is known of what the entry has done, or will do. */
static bool is_open(rf_err_t err)
{
    return err == RF_ERR_NO_QUORUM || err == RF_ERR_UNKNOWN_OUTCOME || err == RF_ERR_FORMING;
}

/* The client is told that the outcome is unknown. It may stand in line, or get there yet, and no snapshot would say that
 * it was granted: it is taken out, tried until there is a quorum. */
static void let_go(monitor_t *m, op_t *op)
{
    if (op->client != NO_CLIENT) {
        client_reply(m, op->client, op->client_tag, op->client_op, RF_ERR_UNKNOWN_OUTCOME, NULL, 0);
        m->clients[op->client].outstanding--;
        op->client = NO_CLIENT;
    }
    registry_op_ended(m, op);
    op->state = GIVING_BACK;
    op_deadline(m, op, m->now_ns + REGISTRY_RETRY_NS);
}

static void first_proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    bool tells_full = is_wait(op->registry.what) || op->registry.what == REGISTRY_PUSH;
    /* AGAIN, which no entry results in; of what is repeated it says that nothing is known yet, so there BUSY stays. */
    if (err == RF_ERR_BUSY && tells_full && op->log_session == 0) err = RF_ERR_AGAIN;
    uint64_t token;
    registry_wait_state_t state = err == RF_ERR_UNKNOWN_OUTCOME && is_wait(op->registry.what)
                                      ? registry_wait_state(m->registry, op->registry.wait, &token)
                                      : REGISTRY_WAIT_NONE;
    if (state == REGISTRY_WAIT_HELD) {
        reply_done(m, op, token, NULL, 0);
    } else if (state == REGISTRY_WAIT_WAITING) {
        stands_in_line(m, op);
    } else if (err == RF_ERR_UNKNOWN_OUTCOME && is_wait(op->registry.what)) {
        let_go(m, op);
    } else if (err == RF_ERR_UNKNOWN_OUTCOME && (m->defects & MONITOR_DEFECT_OUTCOME_DENIED)) {
        op_reply(m, op, RF_ERR_NO_QUORUM, NULL, 0);
    } else if (err != RF_OK) {
        op_reply(m, op, err, NULL, 0);
    } else if (!is_wait(op->registry.what)) {
        if (op->registry.flags & REGISTRY_SEQUENTIAL)
            reply_in_sequence(m, op, value);
        else
            reply_done(m, op, value, NULL, 0);
    } else {
        stands_in_line(m, op);
    }
}

static void proposed(monitor_t *m, op_t *op, rf_err_t err, uint64_t value)
{
    switch (op->state) {
    case PROPOSING:
        first_proposed(m, op, err, value);
        break;
    case CANCELLING:
        if (is_open(err))
            let_go(m, op);
        else
            op_reply(m, op, err == RF_OK && value == 1 ? op->registry.over : RF_ERR_UNKNOWN_OUTCOME, NULL, 0);
        break;
    default:
        if (is_open(err))
            op_deadline(m, op, m->now_ns + REGISTRY_RETRY_NS);
        else
            op_end(m, op);
        break;
    }
}

static void give_back(monitor_t *m, const registry_answer_t *answer)
{
    op_t *op = op_begin(m, OP_REGISTRY, RF_NEVER);
    if (!op) {
        out_log(m, RF_LOG_WARN,
                "what was granted to nobody stays taken until its owner ends: too many operations");
        return;
    }
    op->state = GIVING_BACK;
    op->registry.slot = NO_SLOT;
    op->registry.wait = answer->wait;
    op->registry.domain = answer->domain;
    op->registry.index = (uint16_t)answer->session; /* of a dispatcher */
    op->registry.session = answer->domain == RF_DOMAIN_NONE ? answer->session : 0;
    propose_give_back(m, op);
}

void registry_answered(void *monitor, const registry_answer_t *answer)
{
    monitor_t *m = monitor;
    if (answer->wait >> 40 != registry_number_of(m->core, m->incarnation, 0) >> 40) { /* another's */
        m->agree.awaited = true;
        return;
    }
    op_t *op = op_find(m, answer->cookie, OP_REGISTRY);
    if (op && op->registry.wait != answer->wait) op = NULL;
    if (op && op->state == GIVING_BACK) return; /* its entry comes behind this one, and takes it back */
    if (answer->err == RF_OK && (!op || op->client == NO_CLIENT)) {
        if (op) op_end(m, op);
        give_back(m, answer);
    } else if (op && answer->err == RF_OK) {
        reply_done(m, op, answer->revision, answer->bytes, answer->size);
    } else if (op) {
        op_reply(m, op, answer->err, NULL, 0);
    }
}

static void end_wait(monitor_t *m, op_t *op, rf_err_t why)
{
    if (op->registry.over != RF_OK || !is_wait(op->registry.what)) return;
    op->registry.over = why;
    if (op->state == WAITING) start_cancel(m, op);
}

void registry_cancel(monitor_t *m, op_t *op)
{
    end_wait(m, op, RF_ERR_CANCELLED);
}

static void timeout(monitor_t *m, op_t *op)
{
    if (op->state != GIVING_BACK)
        end_wait(m, op, RF_ERR_TIMEOUT);
    else if (!op->proposing)
        propose_give_back(m, op);
}

/* What is on its way into the log goes on; a place in line is left at once, also if its owner lives on without a link. */
static void client_went(monitor_t *m, op_t *op, uint32_t client)
{
    if (op->client == client && op->state == WAITING) start_cancel(m, op);
}

const op_class_t op_registry_class = {
    .name = "registry", .proposed = proposed, .timeout = timeout, .client_gone = client_went};
