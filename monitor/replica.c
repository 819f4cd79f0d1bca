/*
 * The agreed state. replica_apply() is a function of the log alone: it reads nothing that was only told, no clock and no
 * link, so it gives the same result at every monitor (asserted by the tests, which compare replicas).
 */
#include "monitor/state.h"

bool text_is_valid(const char *text, size_t max)
{
    size_t length = strnlen(text, max);
    if (length == 0 || length == max) return false;
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] <= ' ' || text[i] == 127) return false;
    }
    return true;
}

domain_t *domain_find(monitor_t *m, rf_domain_t id)
{
    domain_t *d = &m->domains[id % MONITOR_DOMAINS_MAX];
    return id != RF_DOMAIN_NONE && d->id == id ? d : NULL;
}

bool domain_has_ended(const domain_t *d)
{
    return d->state == RF_DOMAIN_ENDED || d->told_ended;
}

static bool alive_agreed(const domain_t *d, unsigned index)
{
    return index < d->n_dispatchers && (d->alive >> index & 1);
}

bool dispatcher_is_alive(const monitor_t *m, const domain_t *d, unsigned index)
{
    return alive_agreed(d, index) && !d->told_ended && !(d->told_dead >> index & 1) &&
           core_is_alive(m, d->cores[index]);
}

name_t *name_find(monitor_t *m, const char *name)
{
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        if (m->names[i].used && strncmp(m->names[i].name, name, RF_NAME_MAX) == 0) return &m->names[i];
    }
    return NULL;
}

bool name_is_alive(monitor_t *m, const name_t *name)
{
    const domain_t *d = domain_find(m, name->domain);
    return d && dispatcher_is_alive(m, d, name->index);
}

/* Nothing of it runs any more: what it had is free. */
static void release(monitor_t *m, domain_t *d, unsigned index)
{
    const uint64_t bit = 1ull << index;
    bool kept = domain_is_kept(d);
    d->alive &= ~bit;
    d->ending &= ~bit;
    d->left &= ~bit;
    m->n_domains_live -= kept && !domain_is_kept(d);
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        name_t *n = &m->names[i];
        if (n->used && n->domain == d->id && n->index == index) n->used = false;
    }
    registry_owner_ended(m->registry, d->id, index);
}

/* What follows when a domain is first seen to have ended, agreed or told. */
static void ended_seen(monitor_t *m, domain_t *d, rf_err_t reason)
{
    machine_event(m, RF_MACHINE_DOMAIN_ENDED, reason, d->cores[0], m->boot->node_of[d->cores[0]], d->id);
    wait_domain_ended(m, d->id);
    local_kill_domain(m, d->id);
}

void replica_ended_seen(monitor_t *m, domain_t *d)
{
    ended_seen(m, d, d->reason);
}

/* With the first one ends the domain; the others are killed, and keep what they have until their cores say that they have gone. */
static void dispatcher_ended(monitor_t *m, domain_t *d, unsigned index, int32_t wait_status, rf_err_t reason,
                             uint64_t at_ns)
{
    if (index == 0) {
        d->ending = d->alive & ~1ull;
        d->alive &= 1;
        d->wait_status = wait_status;
        d->reason = reason;
        d->ended_ns = at_ns;
        for (unsigned other = 1; other < d->n_dispatchers; other++)
            if (d->ending >> other & 1) registry_owner_leaves(m->registry, d->id, other);
        d->state = RF_DOMAIN_ENDED;
    }
    release(m, d, index);
    if (index == 0 && !d->told_ended) ended_seen(m, d, reason);
}

static rf_err_t apply_domain_add(monitor_t *m, const command_t *c, uint64_t *value)
{
    if (!text_is_valid(c->user, sizeof c->user) || strnlen(c->name, sizeof c->name) == sizeof c->name)
        return RF_ERR_INVALID;
    if (m->n_domains_live == MONITOR_DOMAINS_MAX) return RF_ERR_LIMIT;
    /* The next number whose place is free, or remembers one that ended: the oldest is forgotten first, as numbers rise.
     */
    rf_domain_t id = m->domain_last + 1;
    while (domain_is_kept(&m->domains[id % MONITOR_DOMAINS_MAX])) id++;
    domain_t *d = &m->domains[id % MONITOR_DOMAINS_MAX];
    *d = (domain_t){.id = id,
                    .uid = c->uid,
                    .state = RF_DOMAIN_STARTING,
                    .n_dispatchers = 1,
                    .started_ns = c->at_ns,
                    .alive = 1};
    d->cores[0] = c->core;
    memcpy(d->user, c->user, sizeof d->user);
    memcpy(d->program, c->name, sizeof d->program);
    m->domain_last = id;
    m->n_domains_live++;
    *value = id;
    return RF_OK;
}

static rf_err_t apply_dispatcher_add(monitor_t *m, const command_t *c, uint64_t *value)
{
    domain_t *d = domain_find(m, c->domain);
    if (!d) return RF_ERR_NOT_FOUND;
    if (!alive_agreed(d, 0)) return RF_ERR_PEER_DEAD;
    if (d->n_dispatchers == RF_DISPATCHERS_PER_DOMAIN_MAX) return RF_ERR_LIMIT;
    unsigned index = d->n_dispatchers++;
    d->cores[index] = c->core;
    d->alive |= 1ull << index;
    *value = index;
    return RF_OK;
}

static rf_err_t apply_dispatcher_state(monitor_t *m, const command_t *c)
{
    domain_t *d = domain_find(m, c->domain);
    bool ending = d && c->index < d->n_dispatchers && (d->ending >> c->index & 1);
    if (!d || (!ending && !alive_agreed(d, c->index))) return RF_ERR_NOT_FOUND;
    if (ending) {
        if (c->state == RF_DOMAIN_ENDED) release(m, d, c->index);
    } else if (c->state == RF_DOMAIN_ENDED) {
        dispatcher_ended(m, d, c->index, c->wait_status, (rf_err_t)(c->reason < RF_ERR_COUNT ? c->reason : 0),
                         c->at_ns);
    } else if (c->index == 0 && d->state == RF_DOMAIN_STARTING) {
        d->state = RF_DOMAIN_RUNNING;
        machine_event(m, RF_MACHINE_DOMAIN_STARTED, RF_OK, d->cores[0], m->boot->node_of[d->cores[0]], d->id);
    }
    return RF_OK;
}

static unsigned names_of_user(monitor_t *m, const char *user)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        const domain_t *d = m->names[i].used ? domain_find(m, m->names[i].domain) : NULL;
        n += d && strncmp(d->user, user, sizeof d->user) == 0;
    }
    return n;
}

static rf_err_t apply_name_put(monitor_t *m, const command_t *c)
{
    domain_t *d = domain_find(m, c->domain);
    if (!text_is_valid(c->name, sizeof c->name)) return RF_ERR_INVALID;
    if (!d || !alive_agreed(d, c->index)) return RF_ERR_PEER_DEAD;
    if (name_find(m, c->name)) return RF_ERR_EXISTS;
    if (names_of_user(m, d->user) >= NAMES_PER_USER_MAX) return RF_ERR_LIMIT;
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        name_t *n = &m->names[i];
        if (n->used) continue;
        *n = (name_t){.used = true, .domain = c->domain, .index = c->index, .core = d->cores[c->index]};
        memcpy(n->name, c->name, sizeof n->name);
        return RF_OK;
    }
    return RF_ERR_LIMIT;
}

static rf_err_t apply_name_delete(monitor_t *m, const command_t *c)
{
    if (!text_is_valid(c->name, sizeof c->name)) return RF_ERR_INVALID;
    name_t *n = name_find(m, c->name);
    if (!n) return RF_ERR_NOT_FOUND;
    if (n->domain != c->domain || n->index != c->index) return RF_ERR_PERMISSION;
    n->used = false;
    return RF_OK;
}

/* Of the incarnation that is in the view (registry_number_of()). */
static bool session_is_of_member(const monitor_t *m, uint64_t session)
{
    uint64_t core = session >> 48;
    return core < m->boot->n_cores && core_is_member(m, core) &&
           registry_number_of((rf_core_t)core, core_agreed(m, core), session) == session;
}

/* What the registry cannot know: whether the owner is still there. */
static rf_err_t apply_registry(monitor_t *m, const void *bytes, size_t size, uint64_t *value)
{
    registry_command_t c;
    if (size < sizeof c) return RF_ERR_INVALID;
    memcpy(&c, bytes, sizeof c);
    const domain_t *d = domain_find(m, c.domain);
    if (c.domain != RF_DOMAIN_NONE && (c.session > UINT16_MAX || !d || !alive_agreed(d, (unsigned)c.session)))
        return RF_ERR_PEER_DEAD;
    if (c.domain == RF_DOMAIN_NONE && c.session != 0 && !session_is_of_member(m, c.session))
        return RF_ERR_PEER_DEAD;
    rf_err_t err = registry_apply(m->registry, bytes, size, value);
    if (c.domain == RF_DOMAIN_NONE && c.session != 0 && c.op != REGISTRY_SESSION_END)
        registry_session_owns(m, c.session); /* sets only what this monitor does next */
    return err;
}

/* Nothing runs any more of what that core was up to that incarnation. Said twice, or of one before the last: nothing happens. */
static rf_err_t apply_reclaim(monitor_t *m, const command_t *c)
{
    core_t *core = &m->cores[c->core];
    rf_incarnation_t agreed = core_agreed(m, c->core);
    bool member = core_is_member(m, c->core);
    /* A life that has not left: it would be taken for fenced when it does. */
    if (c->incarnation > agreed || (member && c->incarnation == agreed)) return RF_ERR_INVALID;
    if (core->holding == 0 || c->incarnation < core->holding) return RF_OK;
    core->holding = 0;
    if (!(m->defects & MONITOR_DEFECT_EPHEMERAL_KEPT))
        registry_core_ended(m->registry, c->core, member ? agreed : 0);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        for (unsigned index = d->n_dispatchers; index-- > 0;) { /* the first last: it ends the domain */
            if (!(d->left >> index & 1) || d->cores[index] != c->core) continue;
            if (index == 0)
                dispatcher_ended(m, d, 0, 0, RF_ERR_PEER_DEAD, c->at_ns);
            else
                release(m, d, index);
        }
    }
    return RF_OK;
}

rf_err_t replica_apply(monitor_t *m, const void *bytes, size_t size, uint64_t *value)
{
    uint16_t what;
    command_t command;
    const command_t *c = &command;
    *value = 0;
    if (size < sizeof what) return RF_ERR_INVALID;
    memcpy(&what, bytes, sizeof what);
    if (what >= REGISTRY_OP_FIRST) return apply_registry(m, bytes, size, value);
    if (size != sizeof command) return RF_ERR_INVALID;
    memcpy(&command, bytes, sizeof command);
    if (c->core >= m->boot->n_cores) return RF_ERR_INVALID;
    if (c->op == COMMAND_RECLAIM) return apply_reclaim(m, c);
    /* Only members change anything: what an incarnation that has left still had under way is void. */
    if (!core_is_member(m, c->core) || core_agreed(m, c->core) != c->incarnation) return RF_ERR_PEER_DEAD;
    switch (c->op) {
    case COMMAND_DOMAIN_ADD:
        return apply_domain_add(m, c, value);
    case COMMAND_DISPATCHER_ADD:
        return apply_dispatcher_add(m, c, value);
    case COMMAND_DISPATCHER_STATE:
        return apply_dispatcher_state(m, c);
    case COMMAND_NAME_PUT:
        return apply_name_put(m, c);
    case COMMAND_NAME_DELETE:
        return apply_name_delete(m, c);
    default:
        return RF_ERR_INVALID;
    }
}

void replica_core_left(monitor_t *m, rf_core_t core)
{
    core_t *c = &m->cores[core];
    bool holds = registry_core_leaves(m->registry, core);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        for (unsigned index = 0; index < d->n_dispatchers; index++) {
            const uint64_t bit = 1ull << index;
            if (d->cores[index] != core || !((d->alive | d->ending | d->left) & bit)) continue;
            holds = true;
            if (d->left & bit) continue;
            d->alive &= ~bit;
            d->ending &= ~bit;
            d->left |= bit;
            registry_owner_leaves(m->registry, d->id, index);
            if (index == 0) local_kill_domain(m, d->id); /* it is to end as a whole */
        }
    }
    c->holding = holds ? core_agreed(m, core) : 0;
    m->reclaims_due |= holds;
    const command_t at_once = {.core = core, .incarnation = core_agreed(m, core)};
    if (m->defects & MONITOR_DEFECT_RECLAIM_UNFENCED) apply_reclaim(m, &at_once);
}

void replica_tell_ended(monitor_t *m, rf_domain_t domain, unsigned index, int32_t wait_status,
                        rf_err_t reason, uint64_t at_ns)
{
    domain_t *d = domain_find(m, domain);
    if (!d || index >= d->n_dispatchers || domain_has_ended(d)) return;
    d->told_dead |= 1ull << index;
    if (index != 0) return;
    d->told_ended = true;
    d->told_status = wait_status;
    d->told_reason = reason;
    d->told_ns = at_ns;
    ended_seen(m, d, reason);
}

void replica_tell_core_dead(monitor_t *m, rf_core_t core)
{
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        if (d->id == 0 || domain_has_ended(d) || d->cores[0] != core) continue;
        if (m->quorum)
            local_kill_domain(m,
                              d->id); /* it is to end as a whole; that it has, the log says when that is so */
        else
            replica_tell_ended(m, d->id, 0, 0, RF_ERR_PEER_DEAD, m->real_ns);
    }
}
