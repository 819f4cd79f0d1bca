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
    return index < d->n_dispatchers && d->state != RF_DOMAIN_ENDED && (d->alive >> index & 1);
}

bool dispatcher_is_alive(const monitor_t *m, const domain_t *d, unsigned index)
{
    return alive_agreed(d, index) && !d->told_ended && !(d->told_dead >> index & 1) &&
           !m->cores[d->cores[index]].dead;
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

static void remove_names(monitor_t *m, rf_domain_t domain, int index)
{
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        name_t *n = &m->names[i];
        if (n->used && n->domain == domain && (index < 0 || n->index == index)) n->used = false;
    }
}

/* What follows when a domain is first seen to have ended, agreed or told. */
static void ended_seen(monitor_t *m, domain_t *d, rf_err_t reason)
{
    machine_event(m, RF_MACHINE_DOMAIN_ENDED, reason, d->cores[0], m->boot->cores[d->cores[0]].node, d->id);
    wait_domain_ended(m, d->id);
    local_kill_domain(m, d->id);
}

static void dispatcher_ended(monitor_t *m, domain_t *d, unsigned index, int32_t wait_status, rf_err_t reason,
                             uint64_t at_ns)
{
    d->alive &= ~(1ull << index);
    remove_names(m, d->id, (int)index);
    if (index != 0) return;
    bool seen = d->told_ended;
    d->state = RF_DOMAIN_ENDED;
    d->wait_status = wait_status;
    d->reason = reason;
    d->ended_ns = at_ns;
    d->alive = 0;
    m->n_domains_live--;
    remove_names(m, d->id, -1);
    if (!seen) ended_seen(m, d, reason);
}

static rf_err_t apply_domain_add(monitor_t *m, const command_t *c, uint64_t *value)
{
    if (m->cores[c->core].down) return RF_ERR_PEER_DEAD;
    if (!text_is_valid(c->user, sizeof c->user) || strnlen(c->name, sizeof c->name) == sizeof c->name)
        return RF_ERR_INVALID;
    if (m->n_domains_live == MONITOR_DOMAINS_MAX) return RF_ERR_LIMIT;
    /* The next number whose place is free, or remembers one that ended: the oldest is forgotten first, as numbers rise.
     */
    rf_domain_t id = m->domain_last + 1;
    while (m->domains[id % MONITOR_DOMAINS_MAX].id != 0 &&
           m->domains[id % MONITOR_DOMAINS_MAX].state != RF_DOMAIN_ENDED)
        id++;
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
    if (d->state == RF_DOMAIN_ENDED || m->cores[c->core].down) return RF_ERR_PEER_DEAD;
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
    if (!d || !alive_agreed(d, c->index)) return RF_ERR_NOT_FOUND;
    if (c->state == RF_DOMAIN_ENDED) {
        dispatcher_ended(m, d, c->index, c->wait_status, (rf_err_t)(c->reason < RF_ERR_COUNT ? c->reason : 0),
                         c->at_ns);
    } else if (c->index == 0 && d->state == RF_DOMAIN_STARTING) {
        d->state = RF_DOMAIN_RUNNING;
        machine_event(m, RF_MACHINE_DOMAIN_STARTED, RF_OK, d->cores[0], m->boot->cores[d->cores[0]].node,
                      d->id);
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

rf_err_t replica_apply(monitor_t *m, const command_t *c, size_t size, uint64_t *value)
{
    *value = 0;
    if (size != sizeof *c || c->core >= m->boot->n_cores) return RF_ERR_INVALID;
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

void replica_member_down(monitor_t *m, rf_core_t core)
{
    m->cores[core].down = true;
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        if (d->id == 0 || d->state == RF_DOMAIN_ENDED) continue;
        for (unsigned index = d->n_dispatchers; index-- > 0;) { /* the first last: it ends the domain */
            if (alive_agreed(d, index) && d->cores[index] == core)
                dispatcher_ended(m, d, index, 0, RF_ERR_PEER_DEAD, m->real_ns);
        }
    }
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
        if (d->id != 0 && !domain_has_ended(d) && d->cores[0] == core)
            replica_tell_ended(m, d->id, 0, 0, RF_ERR_PEER_DEAD, m->real_ns);
    }
}

/* ---- in a snapshot: a head, domains that are known, names that are used ---- */

typedef struct saved {
    rf_domain_t domain_last;
    uint32_t n_domains, n_names;
    uint8_t member[(RF_CORES_MAX + 7) / 8], down[(RF_CORES_MAX + 7) / 8];
} saved_t;

size_t replica_save_max(void)
{
    return sizeof(saved_t) + MONITOR_DOMAINS_MAX * sizeof(domain_t) + MONITOR_NAMES_MAX * sizeof(name_t);
}

size_t replica_save(const monitor_t *m, void *bytes, size_t max)
{
    uint8_t *out = bytes;
    saved_t head = {.domain_last = m->domain_last};
    size_t size = sizeof head;
    rf_assert(max >= replica_save_max());
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        head.member[core / 8] |= (uint8_t)(m->cores[core].member << (core % 8));
        head.down[core / 8] |= (uint8_t)(m->cores[core].down << (core % 8));
    }
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        if (m->domains[i].id == 0) continue;
        domain_t d = m->domains[i];
        d.told_ended = false; /* what was only told here is no part of it */
        d.told_status = 0;
        d.told_reason = RF_OK;
        d.told_ns = d.told_dead = d.user_us = d.system_us = d.max_rss_kib = 0;
        memcpy(out + size, &d, sizeof d);
        size += sizeof d;
        head.n_domains++;
    }
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        if (!m->names[i].used) continue;
        memcpy(out + size, &m->names[i], sizeof m->names[i]);
        size += sizeof m->names[i];
        head.n_names++;
    }
    memcpy(out, &head, sizeof head);
    return size;
}

static bool saved_domain_valid(const monitor_t *m, const domain_t *d)
{
    bool valid = d->id != RF_DOMAIN_NONE && d->n_dispatchers >= 1 &&
                 d->n_dispatchers <= RF_DISPATCHERS_PER_DOMAIN_MAX &&
                 (d->state == RF_DOMAIN_ENDED) == !(d->alive & 1) &&
                 strnlen(d->user, sizeof d->user) < sizeof d->user &&
                 strnlen(d->program, sizeof d->program) < sizeof d->program && !d->told_ended &&
                 d->told_dead == 0;
    for (unsigned i = 0; valid && i < d->n_dispatchers; i++) valid = d->cores[i] < m->boot->n_cores;
    return valid;
}

rf_err_t replica_load(monitor_t *m, const void *bytes, size_t size)
{
    const uint8_t *in = bytes;
    saved_t head;
    if (size < sizeof head) return RF_ERR_PROTOCOL;
    memcpy(&head, in, sizeof head);
    if (head.n_domains > MONITOR_DOMAINS_MAX || head.n_names > MONITOR_NAMES_MAX ||
        size != sizeof head + head.n_domains * sizeof(domain_t) + head.n_names * sizeof(name_t))
        return RF_ERR_PROTOCOL;
    const uint8_t *names = in + sizeof head + head.n_domains * sizeof(domain_t);
    for (unsigned i = 0; i < head.n_domains; i++) {
        domain_t d;
        memcpy(&d, in + sizeof head + i * sizeof d, sizeof d);
        if (!saved_domain_valid(m, &d) || d.id > head.domain_last) return RF_ERR_PROTOCOL;
    }
    for (unsigned i = 0; i < head.n_names; i++) {
        name_t n;
        memcpy(&n, names + i * sizeof n, sizeof n);
        if (!n.used || !text_is_valid(n.name, sizeof n.name)) return RF_ERR_PROTOCOL;
    }

    m->n_domains_live = 0;
    m->domain_last = head.domain_last;
    for (unsigned i = 0; i < head.n_domains; i++) {
        domain_t d, *was;
        memcpy(&d, in + sizeof head + i * sizeof d, sizeof d);
        was = &m->domains[d.id % MONITOR_DOMAINS_MAX];
        bool told = was->id == d.id && was->told_ended, had_ended = was->id == d.id && domain_has_ended(was);
        if (told) {
            d.told_ended = true;
            d.told_status = was->told_status;
            d.told_reason = was->told_reason;
            d.told_ns = was->told_ns;
            d.told_dead = was->told_dead;
        }
        *was = d;
        m->n_domains_live += d.state != RF_DOMAIN_ENDED;
        if (d.state == RF_DOMAIN_ENDED && !had_ended) ended_seen(m, was, d.reason);
    }
    memset(m->names, 0, sizeof m->names);
    for (unsigned i = 0; i < head.n_names; i++)
        memcpy(&m->names[i], names + i * sizeof(name_t), sizeof(name_t));
    if (!m->formed) member_formed(m, head.member);
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        if (c->down || !(head.down[core / 8] >> (core % 8) & 1)) continue;
        c->down = true;
        if (core != m->core) member_dead(m, core, RF_ERR_PEER_DEAD, false, false);
    }
    return RF_OK;
}
