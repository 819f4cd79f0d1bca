/*
 * The links of one-sided append: over each, one monitor may write into the memory of another. What they are for, and who grants
 * what to whom, is the pure part's (standby.c); here are connections, memory, keys and fences.
 *
 *      owner, whose memory it is                              writer, who may lead one day
 *      dials, makes the memory           ---- KEY ---->       writes one line into another region, as a rehearsal: then all
 *      LANE_READY                        <-- STANDBY --       that the medium makes on demand is made
 *      GRANT of its engine               ---- GRANT --->      LANE_GRANTED; the key of the memory itself comes only now
 *      reads what is there               <=== writes ==
 *        and is woken to do so           <--- LOOK -----      behind what is placed; never waited for by anybody
 *      fences; LANE_REVOKED
 *
 * Such a link is used once, and not made again when it breaks: its writer goes on by messages at once, and its owner fences what
 * is left of it, reads, and dials another. So nothing here waits for a link to come back. A write that is not placed in time ends
 * the link, too.
 *
 * Only over media that take memory back from who writes it (RF_TRANSPORT_TAKES_BACK).
 */
#include "monitor/shell.h"

#include "consensus/agreement.h"

#include <stdlib.h>
#include <string.h>

#define LINE         AGREEMENT_LANE_LINE
#define LANE_BYTES   ((size_t)MONITOR_LANE_LINES_MAX * LINE)
#define TORN_NS      (100 * RF_NS_PER_US) /* between looks at a record that is not all there, */
#define TORN_NS_MAX  (100 * RF_NS_PER_MS) /* ... doubled each time: what is placed is said, too (LOOK) */
#define LOG_NS       (60 * RF_NS_PER_S)
#define SLOTS_MAX    256               /* of such a link: it carries next to nothing */
#define REHEARSAL    0                 /* cookie; writes are counted from 1 */
#define UNDER_WAY_NS (RF_NS_PER_S / 4) /* a write that is not placed by then is taken for lost */

struct lane {
    bool owner;                    /* the memory is here */
    bool granted, fenced;          /* granted: as lane `id` */
    rf_region_t *memory;           /* the lane; at its writer: what its writes are made from */
    rf_region_t *rehearsal;        /* owner */
    rf_region_key_t key;           /* writer: of the lane, once it is granted */
    uint64_t id, term;             /* term: writer */
    bool granted_due, ready_due;   /* to be told */
    uint64_t posted, placed, told; /* writer: numbers of writes */
    rf_err_t err;                  /* ... one has failed */
    uint64_t since_ns;             /* ... the oldest that is under way is so old */
    bool look_due;
};

static bool serves(const rf_transport_t *t)
{
    return !(t->flags & RF_TRANSPORT_LOCAL) && (t->flags & RF_TRANSPORT_REMOTE_WRITE) &&
           (t->flags & RF_TRANSPORT_TAKES_BACK);
}

rf_err_t lanes_init(shell_t *s)
{
    if (!s->boot->one_sided || s->boot->n_nodes < 2) return RF_OK;
    s->lanes = calloc(s->boot->n_cores, sizeof *s->lanes);
    s->lane_first = s->lane_writer = RF_CORE_NONE;
    return s->lanes ? RF_OK : RF_ERR_NO_MEMORY;
}

/* Voters are few, and cores may be many. */
static shell_lane_t *lane_with(shell_t *s, rf_core_t core)
{
    shell_lane_t *at = &s->lanes[core];
    if (!at->used) {
        at->used = true;
        at->next = s->lane_first;
        s->lane_first = core;
    }
    return at;
}

static conn_t *lane_conn_new(shell_t *s, rf_core_t core, bool owner)
{
    conn_t *conn = conn_new(s, CONN_LANE);
    if (!conn) return NULL;
    conn->lane = calloc(1, sizeof *conn->lane);
    if (!conn->lane) {
        conn_forget(conn);
        return NULL;
    }
    conn->core = core;
    conn->lane->owner = owner;
    return conn;
}

void lanes_conn_freed(shell_t *s, conn_t *conn)
{
    if (!s->lanes) return;
    for (unsigned i = 0; i < 2 && conn->core != RF_CORE_NONE; i++) {
        conn_t **at = i ? &s->lanes[conn->core].mine : &s->lanes[conn->core].theirs;
        if (*at == conn) *at = NULL;
    }
    free(conn->lane);
    conn->lane = NULL;
}

/* ---- what is to be told ---- */

static void revoked_due(shell_t *s, rf_core_t core, rf_incarnation_t incarnation, uint64_t id)
{
    lane_with(s, core)->revoked = id;
    s->lanes[core].revoked_incarnation = incarnation;
}

static void failed_due(shell_t *s, rf_core_t core, rf_incarnation_t incarnation, uint64_t id)
{
    lane_with(s, core)->failed = id;
    s->lanes[core].failed_incarnation = incarnation;
}

static void tell(shell_t *s, monitor_event_t event, rf_core_t core, rf_incarnation_t incarnation)
{
    event.core = core;
    event.incarnation = incarnation;
    shell_step(s, &event);
}

/* ---- the owner ---- */

static void fence_own(shell_t *s, conn_t *conn)
{
    lane_t *l = conn->lane;
    if (!l->fenced && conn->link) conn->link->transport->fence(conn->link);
    l->fenced = true;
    conn->up = conn->told_up = conn->ended = false; /* it stays until it is dropped, for what was written */
    if (s->lane_writer == conn->core) s->lane_writer = RF_CORE_NONE;
}

void lanes_standby(shell_t *s, const monitor_action_t *action)
{
    rf_core_t core = action->core;
    rf_err_t err = RF_OK;
    const network_t *network = conn_network(s, s->boot->medium[s->boot->node_of[core]], &err);
    if (network && !serves(network->transport)) {
        lane_with(s, core)->unready = action->incarnation;
        s->lanes[core].unfit = true;
        return;
    }
    conn_t *old = s->lanes[core].mine;
    rf_assert(!old || !old->lane->granted); /* its tail has been taken */
    if (old) conn_forget(old);
    conn_t *conn = lane_conn_new(s, core, true);
    lane_with(s, core)->mine = conn;
    if (!conn) { /* messages do */
        s->lanes[core].unready = action->incarnation;
        return;
    }
    conn->incarnation = action->incarnation;
    conn->dialed = true;
    if (network) {
        rf_hello_t hello;
        conn_hello(s, &hello, RF_ROLE_LANE);
        rf_link_params_t params = {
            .address = action->bytes, .socket = -1, .hello = &hello, .slots_max = SLOTS_MAX, .user = conn};
        err = network->transport->connect(network->endpoint, &params, &conn->link);
    }
    if (err == RF_OK) return;
    conn->link = NULL;
    conn->ended = true;
    conn->err = err;
}

void lanes_drop(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->lanes[action->core].mine;
    if (!conn) return;
    conn_forget(conn);
    s->lanes[action->core].mine = NULL;
}

void lanes_grant(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->lanes[action->core].mine;
    bool there = conn && conn->told_up && !conn->ended && conn->incarnation == action->incarnation &&
                 !conn->lane->granted;
    if (there) {
        lane_t *l = conn->lane;
        peer_lane_grant_t grant = {.id = action->lane, .term = action->number};
        memcpy(grant.key, l->memory->key.bytes, sizeof grant.key);
        there = rf_message_send(conn->link, PEER_LANE_GRANT, &grant, sizeof grant) == RF_OK;
        conn->dirty = true;
        l->granted = there;
        l->id = action->lane;
        if (there) s->lane_writer = action->core;
    }
    if (!there) revoked_due(s, action->core, action->incarnation, action->lane);
}

void lanes_revoke(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->lanes[action->core].mine;
    if (conn && conn->lane->granted) fence_own(s, conn);
    revoked_due(s, action->core, action->incarnation, action->lane);
}

static rf_err_t own_memory(conn_t *conn)
{
    lane_t *l = conn->lane;
    rf_link_t *link = conn->link;
    rf_err_t err = link->transport->region_create(link, LANE_BYTES, &l->memory);
    if (err == RF_OK && l->owner) err = link->transport->region_create(link, LINE, &l->rehearsal);
    if (err != RF_OK || !l->owner) return err;
    peer_lane_key_t key = {.lines = MONITOR_LANE_LINES_MAX};
    memcpy(key.key, l->rehearsal->key.bytes, sizeof key.key);
    conn->dirty = true;
    return rf_message_send(link, PEER_LANE_KEY, &key, sizeof key);
}

void lanes_up(shell_t *s, conn_t *conn)
{
    rf_err_t err = own_memory(conn);
    if (err == RF_OK) return;
    if (rf_log_once_per(&s->lane_log_ns, LOG_NS))
        rf_log(
            RF_LOG_WARN,
            "no lane with core %u: %s; what it would have carried goes by messages (limits of locked memory: "
            "`rackfish doctor`)",
            conn->core, rf_err_text(err));
    conn->ended = true;
    conn->err = err;
}

/* ---- the writer ---- */

void lanes_incoming(shell_t *s, rf_link_t *link, const rf_hello_t *hello)
{
    rf_core_t core = hello->core;
    conn_t *old = s->lanes[core].theirs;
    if (old && old->incarnation > hello->incarnation) {
        link->transport->reject(link, RF_ERR_FENCED);
        return;
    }
    conn_t *conn = lane_conn_new(s, core, false);
    rf_link_params_t params = {.socket = -1, .slots_max = SLOTS_MAX, .user = conn};
    if (!conn || link->transport->accept(link, &params) != RF_OK) {
        if (conn) conn_forget(conn);
        link->transport->reject(link, RF_ERR_NO_MEMORY);
        return;
    }
    if (old) { /* its owner has given it up */
        if (old->lane->granted) failed_due(s, core, old->incarnation, old->lane->id);
        conn_forget(old);
    }
    conn->link = link;
    conn->incarnation = hello->incarnation;
    lane_with(s, core)->theirs = conn;
}

void lanes_write(shell_t *s, const monitor_action_t *action)
{
    conn_t *conn = s->lanes[action->core].theirs;
    lane_t *l = conn ? conn->lane : NULL;
    bool open = conn && !conn->ended && l->granted && l->id == action->lane && l->err == RF_OK &&
                action->offset + action->size <= LANE_BYTES;
    if (open) {
        uint8_t *from = (uint8_t *)l->memory->base + action->offset;
        memcpy(from, action->bytes, action->size);
        if (l->posted == l->placed) l->since_ns = rf_clock_ns();
        l->posted = action->number;
        l->err = conn->link->transport->remote_write(conn->link, &l->key, action->offset, from, action->size,
                                                     NULL, action->number);
        open = l->err == RF_OK;
    }
    if (!open) failed_due(s, action->core, action->incarnation, action->lane);
}

void lanes_written(conn_t *conn, const rf_link_event_info_t *info)
{
    lane_t *l = conn->lane;
    if (info->err != RF_OK) {
        if (l->err == RF_OK) l->err = info->err;
    } else if (info->cookie == REHEARSAL) {
        l->ready_due = true;
    } else if (l->err == RF_OK) {
        l->placed = info->cookie;
        l->since_ns = rf_clock_ns();
    }
}

/* ---- both ---- */

static bool lane_said_key(conn_t *conn, const uint8_t *bytes, size_t size)
{
    lane_t *l = conn->lane;
    peer_lane_key_t m;
    rf_region_key_t key;
    if (l->owner || size != sizeof m) return false;
    memcpy(&m, bytes, sizeof m);
    if (m.lines != MONITOR_LANE_LINES_MAX) return false;
    memcpy(key.bytes, m.key, sizeof key.bytes);
    rf_err_t err =
        conn->link->transport->remote_write(conn->link, &key, 0, l->memory->base, LINE, NULL, REHEARSAL);
    if (err != RF_OK) l->err = err;
    return true;
}

static bool lane_said_grant(conn_t *conn, const uint8_t *bytes, size_t size)
{
    lane_t *l = conn->lane;
    peer_lane_grant_t m;
    if (l->owner || l->granted || size != sizeof m) return false;
    memcpy(&m, bytes, sizeof m);
    memcpy(l->key.bytes, m.key, sizeof l->key.bytes);
    l->id = m.id;
    l->term = m.term;
    l->granted = l->granted_due = m.id != 0;
    return l->granted;
}

void lanes_message(shell_t *s, conn_t *conn)
{
    lane_t *l = conn->lane;
    const uint8_t *bytes = conn->assembler.bytes;
    size_t size = conn->assembler.size;
    bool right = false;
    switch (conn->assembler.type) {
    case PEER_LANE_KEY:
        right = lane_said_key(conn, bytes, size);
        break;
    case PEER_LANE_STANDBY:
        right = l->owner && !l->granted;
        l->ready_due = right;
        break;
    case PEER_LANE_GRANT:
        right = lane_said_grant(conn, bytes, size);
        break;
    case PEER_LANE_LOOK: /* that it came is all of it: the loop looks */
        right = l->owner;
        s->lane_again_ns = s->lane_torn_ns = 0;
        break;
    default:
        break;
    }
    if (right) return;
    conn->ended = true;
    conn->err = RF_ERR_PROTOCOL;
}

/* True: it stays, fenced. */
bool lanes_ended(shell_t *s, conn_t *conn)
{
    const lane_t *l = conn->lane;
    rf_log(RF_LOG_DEBUG, "the link of the lane %s core %u has ended: %s", l->owner ? "for" : "of", conn->core,
           rf_err_text(conn->err));
    if (l->owner && l->granted) {
        fence_own(s, conn);
        revoked_due(s, conn->core, conn->incarnation, l->id);
        return true;
    }
    if (l->granted) failed_due(s, conn->core, conn->incarnation, l->id);
    if (l->owner && s->lanes[conn->core].mine == conn) s->lanes[conn->core].unready = conn->incarnation;
    return false;
}

void lanes_fence(shell_t *s, rf_core_t core, rf_incarnation_t incarnation)
{
    if (!s->lanes) return;
    conn_t *mine = s->lanes[core].mine, *theirs = s->lanes[core].theirs;
    if (mine && !mine->lane->fenced && mine->incarnation <= incarnation) {
        if (mine->lane->granted) {
            fence_own(s, mine);
            revoked_due(s, core, mine->incarnation, mine->lane->id);
        } else {
            s->lanes[core].unready = mine->incarnation;
            conn_fence(mine);
        }
    }
    if (theirs && theirs->incarnation <= incarnation) {
        if (theirs->lane->granted) failed_due(s, core, theirs->incarnation, theirs->lane->id);
        conn_fence(theirs);
        s->lanes[core].theirs = NULL;
    }
}

/* ---- the loop ---- */

static bool tell_of_owned(shell_t *s, rf_core_t core)
{
    shell_lane_t *at = &s->lanes[core];
    conn_t *conn = at->mine;
    if (at->revoked) {
        monitor_event_t event = {.kind = MONITOR_LANE_REVOKED,
                                 .lane = {.id = at->revoked,
                                          .lines = conn && conn->lane->fenced && conn->lane->id == at->revoked
                                                       ? conn->lane->memory->base
                                                       : NULL}};
        at->revoked = 0;
        tell(s, event, core, at->revoked_incarnation);
    } else if (at->unready) {
        rf_incarnation_t incarnation = at->unready;
        at->unready = 0;
        rf_err_t err = at->unfit ? RF_ERR_NOT_SUPPORTED : RF_ERR_CLOSED;
        tell(s, (monitor_event_t){.kind = MONITOR_LANE_UNREADY, .err = err}, core, incarnation);
    } else if (conn && conn->lane->ready_due && !conn->ended) {
        conn->lane->ready_due = false;
        tell(s, (monitor_event_t){.kind = MONITOR_LANE_READY}, core, conn->incarnation);
    } else {
        return false;
    }
    return true;
}

/* What is placed, then that it has failed: what comes after that is not of this lane. */
static bool tell_of_written(shell_t *s, rf_core_t core)
{
    shell_lane_t *at = &s->lanes[core];
    conn_t *conn = at->theirs;
    lane_t *l = conn && !conn->ended ? conn->lane : NULL;
    if (l && l->granted_due) {
        l->granted_due = false;
        monitor_event_t event = {.kind = MONITOR_LANE_GRANTED, .lane = {.id = l->id, .number = l->term}};
        tell(s, event, core, conn->incarnation);
        return true;
    }
    if (l && l->granted && l->told != l->placed) {
        l->told = l->placed;
        l->look_due = true;
        monitor_event_t event = {.kind = MONITOR_LANE_WRITTEN, .lane = {.id = l->id, .number = l->placed}};
        tell(s, event, core, conn->incarnation);
        return true;
    }
    bool late = l && l->posted != l->placed && rf_clock_ns() > l->since_ns + UNDER_WAY_NS;
    if (l && (l->err != RF_OK || late)) {
        rf_log(RF_LOG_WARN, "core %u's lane takes nothing more (%s): it is sent messages", core,
               rf_err_text(late ? RF_ERR_TIMEOUT : l->err));
        if (l->granted) failed_due(s, core, conn->incarnation, l->id);
        conn_forget(conn); /* which its owner sees */
        at->theirs = NULL;
    }
    if (!at->failed) return false;
    monitor_event_t event = {.kind = MONITOR_LANE_WRITTEN, .err = RF_ERR_CLOSED, .lane = {.id = at->failed}};
    at->failed = 0;
    tell(s, event, core, at->failed_incarnation);
    return true;
}

/* Says STANDBY once the rehearsal is written. */
static void answer_rehearsal(conn_t *conn)
{
    lane_t *l = conn->lane;
    if (!l->ready_due || conn->ended) return;
    l->ready_due = rf_message_send(conn->link, PEER_LANE_STANDBY, NULL, 0) != RF_OK;
    conn->dirty = true;
}

static bool is_there(const shell_t *s)
{
    if (s->lane_writer == RF_CORE_NONE || s->output->lane_number == 0) return false;
    const conn_t *conn = s->lanes[s->lane_writer].mine;
    if (!conn || !conn->lane->granted || conn->lane->fenced) return false;
    const uint8_t *at = (const uint8_t *)conn->lane->memory->base + s->output->lane_offset;
    return __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_ACQUIRE) == s->output->lane_number;
}

/* One word says whether there is anything. */
static bool look(shell_t *s)
{
    if (!is_there(s)) {
        s->lane_again_ns = s->lane_torn_ns = 0;
        return false;
    }
    if (rf_clock_ns() < s->lane_again_ns) return false;
    uint64_t number = s->output->lane_number;
    const conn_t *conn = s->lanes[s->lane_writer].mine;
    monitor_event_t event = {.kind = MONITOR_LANE_LINES,
                             .lane = {.id = conn->lane->id, .lines = conn->lane->memory->base}};
    tell(s, event, s->lane_writer, conn->incarnation);
    bool torn = s->output->lane_number == number;
    s->lane_torn_ns = !torn ? 0 : s->lane_torn_ns == 0 ? TORN_NS : 2 * s->lane_torn_ns;
    if (s->lane_torn_ns > TORN_NS_MAX) s->lane_torn_ns = TORN_NS_MAX;
    s->lane_again_ns = torn ? rf_clock_ns() + s->lane_torn_ns : 0;
    return true;
}

bool lanes_settle(shell_t *s)
{
    bool any = false;
    if (!s->lanes) return false;
    for (rf_core_t core = s->lane_first; core != RF_CORE_NONE && s->exit_status < 0;
         core = s->lanes[core].next) {
        if (s->lanes[core].theirs) answer_rehearsal(s->lanes[core].theirs);
        while (s->exit_status < 0 && (tell_of_owned(s, core) || tell_of_written(s, core))) any = true;
    }
    while (s->exit_status < 0 && look(s)) any = true;
    return any;
}

/* Wakes owners, behind all else. */
void lanes_flush(shell_t *s)
{
    if (!s->lanes) return;
    for (rf_core_t core = s->lane_first; core != RF_CORE_NONE; core = s->lanes[core].next) {
        conn_t *conn = s->lanes[core].theirs;
        if (!conn || conn->ended || !conn->lane->look_due) continue;
        if (rf_message_send(conn->link, PEER_LANE_LOOK, NULL, 0) != RF_OK)
            continue; /* it has not read the last ones */
        conn->lane->look_due = false;
        conn->link->transport->flush(conn->link);
    }
}

uint64_t lanes_next_ns(const shell_t *s)
{
    if (!s->lanes) return RF_NEVER;
    uint64_t next_ns = s->lane_again_ns ? s->lane_again_ns : RF_NEVER;
    for (rf_core_t core = s->lane_first; core != RF_CORE_NONE; core = s->lanes[core].next) {
        const conn_t *conn = s->lanes[core].theirs;
        if (!conn || conn->ended || conn->lane->posted == conn->lane->placed) continue;
        uint64_t at_ns = conn->lane->since_ns + UNDER_WAY_NS + 1;
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    return next_ns;
}
