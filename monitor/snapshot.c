/*
 * The whole agreed state as bytes, for a member that cannot be told entry by entry.
 *
 *   head | section ...        a section: kind, size of its body, body; everything is a multiple of 8 bytes
 *   CORES     per core: is it a member, which incarnation was its last; which has left and is not reclaimed
 *   DOMAINS   the last number, then each domain that is known, with its dispatchers' cores
 *   NAMES     each name
 *   REGISTRY  its bytes (registry_save.c)
 *
 * Loading checks everything first and only then changes anything: bytes come from a member of the machine, but its memory
 * may have been hurt, and a section that another version would write must be refused whole. What is only told here
 * is kept where it still fits.
 */
#include "monitor/state.h"

#define MAGIC 0x32534652u /* "RFS2" */

enum { SECTION_CORES = 1, SECTION_DOMAINS = 2, SECTION_NAMES = 3, SECTION_REGISTRY = 4, SECTIONS = 4 };

typedef struct head {
    uint32_t magic, n_sections;
} head_t;

typedef struct section {
    uint32_t kind, size;
} section_t;

typedef struct saved_core {
    uint32_t incarnation, holding;
    uint16_t member, reserved[3];
} saved_core_t;

typedef struct saved_domains {
    uint64_t last;
    uint32_t n, reserved;
} saved_domains_t;

typedef struct saved_domain { /* followed by n_dispatchers core numbers */
    uint64_t id, started_ns, ended_ns, alive, ending, left;
    uint32_t uid, reason;
    int32_t wait_status;
    uint16_t state, n_dispatchers;
    char user[32];
    char program[RF_NAME_MAX];
} saved_domain_t;

typedef struct saved_name {
    uint64_t domain;
    uint16_t index, core;
    uint32_t reserved;
    char name[RF_NAME_MAX];
} saved_name_t;

typedef struct saved_registry { /* followed by its bytes */
    uint64_t size;
} saved_registry_t;
_Static_assert(sizeof(saved_core_t) == 16 && sizeof(saved_domain_t) == 64 + 32 + RF_NAME_MAX &&
                   sizeof(saved_name_t) == 16 + RF_NAME_MAX,
               "multiples of 8, without holes");
_Static_assert(sizeof(head_t) + SECTIONS * sizeof(section_t) + sizeof(saved_registry_t) + 8 +
                       RF_CORES_MAX * sizeof(saved_core_t) + sizeof(saved_domains_t) +
                       MONITOR_DOMAINS_MAX *
                           (sizeof(saved_domain_t) + RF_DISPATCHERS_PER_DOMAIN_MAX * sizeof(rf_core_t)) +
                       MONITOR_NAMES_MAX * sizeof(saved_name_t) <=
                   REPLICA_MAX,
               "full, and besides the registry's bytes");

/* ---- saving ---- */

typedef struct writer {
    uint8_t *at, *end;
    bool full;
} writer_t;

static void put(writer_t *w, const void *bytes, size_t size)
{
    size_t padded = (size + 7) & ~(size_t)7;
    if ((size_t)(w->end - w->at) < padded) {
        w->full = true;
        return;
    }
    memcpy(w->at, bytes, size);
    memset(w->at + size, 0, padded - size);
    w->at += padded;
}

static void put_section(writer_t *w, uint32_t kind, void (*body)(const monitor_t *m, writer_t *w),
                        const monitor_t *m)
{
    uint8_t *at = w->at;
    section_t section = {.kind = kind};
    put(w, &section, sizeof section);
    body(m, w);
    if (w->full) return;
    section.size = (uint32_t)(w->at - at - (ptrdiff_t)sizeof section);
    memcpy(at, &section, sizeof section);
}

static void put_cores(const monitor_t *m, writer_t *w)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        saved_core_t saved = {.incarnation = core_agreed(m, core),
                              .holding = m->cores[core].holding,
                              .member = core_is_member(m, core)};
        put(w, &saved, sizeof saved);
    }
}

static void put_domains(const monitor_t *m, writer_t *w)
{
    saved_domains_t all = {.last = m->domain_last};
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) all.n += m->domains[i].id != 0;
    put(w, &all, sizeof all);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        const domain_t *d = &m->domains[i];
        if (d->id == 0) continue;
        saved_domain_t saved = {.id = d->id,
                                .started_ns = d->started_ns,
                                .ended_ns = d->ended_ns,
                                .alive = d->alive,
                                .ending = d->ending,
                                .left = d->left,
                                .uid = d->uid,
                                .reason = (uint32_t)d->reason,
                                .wait_status = d->wait_status,
                                .state = d->state,
                                .n_dispatchers = d->n_dispatchers};
        memcpy(saved.user, d->user, sizeof saved.user);
        memcpy(saved.program, d->program, sizeof saved.program);
        put(w, &saved, sizeof saved);
        put(w, d->cores, d->n_dispatchers * sizeof *d->cores);
    }
}

static void put_names(const monitor_t *m, writer_t *w)
{
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        const name_t *n = &m->names[i];
        if (!n->used) continue;
        saved_name_t saved = {.domain = n->domain, .index = n->index, .core = n->core};
        memcpy(saved.name, n->name, sizeof saved.name);
        put(w, &saved, sizeof saved);
    }
}

/* In place: it may be large. */
static void put_registry(const monitor_t *m, writer_t *w)
{
    saved_registry_t saved = {0};
    uint8_t *at = w->at;
    put(w, &saved, sizeof saved);
    if (w->full) return;
    saved.size = registry_save(m->registry, w->at, (size_t)(w->end - w->at) & ~(size_t)7);
    memcpy(at, &saved, sizeof saved);
    size_t padded = (saved.size + 7) & ~(size_t)7;
    w->full = saved.size == 0;
    memset(w->at + saved.size, 0, padded - saved.size);
    w->at += padded;
}

size_t replica_save(const monitor_t *m, void *bytes, size_t max)
{
    writer_t w = {.at = bytes, .end = (uint8_t *)bytes + max};
    head_t head = {.magic = MAGIC, .n_sections = SECTIONS};
    put(&w, &head, sizeof head);
    put_section(&w, SECTION_CORES, put_cores, m);
    put_section(&w, SECTION_DOMAINS, put_domains, m);
    put_section(&w, SECTION_NAMES, put_names, m);
    put_section(&w, SECTION_REGISTRY, put_registry, m);
    rf_assert(!w.full); /* SNAPSHOT_MAX holds a full replica */
    return (size_t)(w.at - (uint8_t *)bytes);
}

/* ---- checking ---- */

typedef struct reader {
    const uint8_t *at, *end;
} reader_t;

static bool take(reader_t *r, void *out, size_t size)
{
    size_t padded = (size + 7) & ~(size_t)7;
    if ((size_t)(r->end - r->at) < padded) return false;
    memcpy(out, r->at, size);
    r->at += padded;
    return true;
}

typedef struct sections {
    reader_t cores, domains, names, registry;
    const uint8_t *domain_at[MONITOR_DOMAINS_MAX]; /* by place, once they have been checked; NULL: none */
} sections_t;

static bool split(const void *bytes, size_t size, sections_t *out)
{
    reader_t r = {.at = bytes, .end = (const uint8_t *)bytes + size};
    reader_t *const parts[] = {[SECTION_CORES] = &out->cores,
                               [SECTION_DOMAINS] = &out->domains,
                               [SECTION_NAMES] = &out->names,
                               [SECTION_REGISTRY] = &out->registry};
    head_t head;
    memset(out, 0, sizeof *out);
    if (size % 8 != 0 || !take(&r, &head, sizeof head) || head.magic != MAGIC || head.n_sections != SECTIONS)
        return false;
    for (uint32_t kind = 1; kind <= head.n_sections; kind++) {
        section_t section;
        if (!take(&r, &section, sizeof section) || section.kind != kind || section.size % 8 != 0 ||
            section.size > (size_t)(r.end - r.at))
            return false;
        *parts[kind] = (reader_t){.at = r.at, .end = r.at + section.size};
        r.at += section.size;
    }
    return r.at == r.end;
}

static bool ends(const char *text, size_t max)
{
    return strnlen(text, max) < max;
}

static saved_core_t saved_core(const sections_t *s, rf_core_t core)
{
    saved_core_t saved;
    memcpy(&saved, s->cores.at + core * sizeof saved, sizeof saved);
    return saved;
}

static bool cores_fit(const monitor_t *m, reader_t r)
{
    saved_core_t saved;
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        if (!take(&r, &saved, sizeof saved) || saved.member > 1 || (saved.member && saved.incarnation == 0) ||
            saved.member > saved.incarnation || saved.holding > saved.incarnation - saved.member)
            return false;
    }
    return r.at == r.end;
}

/* Of one domain; `cores` has room for all. */
static bool take_domain(reader_t *r, saved_domain_t *d, rf_core_t *cores)
{
    return take(r, d, sizeof *d) && d->n_dispatchers >= 1 &&
           d->n_dispatchers <= RF_DISPATCHERS_PER_DOMAIN_MAX &&
           take(r, cores, d->n_dispatchers * sizeof *cores);
}

static bool domain_fits(const monitor_t *m, const sections_t *s, const saved_domain_t *d,
                        const rf_core_t *cores)
{
    uint64_t all = d->n_dispatchers == 64 ? UINT64_MAX : (1ull << d->n_dispatchers) - 1;
    bool ended = d->state == RF_DOMAIN_ENDED;
    bool apart = (d->alive & d->ending) == 0 && ((d->alive | d->ending) & d->left) == 0;
    if (d->id == 0 || d->state < RF_DOMAIN_STARTING || d->state > RF_DOMAIN_ENDED || !apart ||
        ((d->alive | d->ending | d->left) & ~all) != 0 || ended != !((d->alive | d->left) & 1) ||
        (ended ? d->alive : d->ending) != 0 || d->reason >= RF_ERR_COUNT || !ends(d->user, sizeof d->user) ||
        !ends(d->program, sizeof d->program))
        return false;
    for (unsigned i = 0; i < d->n_dispatchers; i++) {
        if (cores[i] >= m->boot->n_cores ||
            (((d->alive | d->ending) >> i & 1) && !saved_core(s, cores[i]).member) ||
            ((d->left >> i & 1) && saved_core(s, cores[i]).holding == 0))
            return false;
    }
    return true;
}

static bool domains_fit(const monitor_t *m, sections_t *s)
{
    reader_t r = s->domains;
    saved_domains_t all;
    if (!take(&r, &all, sizeof all) || all.n > MONITOR_DOMAINS_MAX) return false;
    for (uint32_t i = 0; i < all.n; i++) {
        saved_domain_t d;
        rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX];
        const uint8_t *at = r.at;
        if (!take_domain(&r, &d, cores) || d.id > all.last || !domain_fits(m, s, &d, cores)) return false;
        unsigned place = d.id % MONITOR_DOMAINS_MAX;
        if (s->domain_at[place]) return false;
        s->domain_at[place] = at;
    }
    return r.at == r.end;
}

/* Whether a dispatcher of the snapshot may run, and where. */
static bool find_kept(const sections_t *s, rf_domain_t domain, uint64_t index, rf_core_t *core)
{
    saved_domain_t d;
    rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX];
    reader_t r = {.at = s->domain_at[domain % MONITOR_DOMAINS_MAX], .end = s->domains.end};
    if (!r.at || !take_domain(&r, &d, cores) || d.id != domain || index >= d.n_dispatchers) return false;
    *core = cores[index];
    return (d.alive | d.ending | d.left) >> index & 1;
}

static bool names_fit(const sections_t *s)
{
    reader_t r = s->names;
    size_t n = (size_t)(r.end - r.at) / sizeof(saved_name_t);
    if ((size_t)(r.end - r.at) % sizeof(saved_name_t) != 0 || n > MONITOR_NAMES_MAX) return false;
    for (size_t i = 0; i < n; i++) {
        saved_name_t name, other;
        rf_core_t core = RF_CORE_NONE;
        memcpy(&name, s->names.at + i * sizeof name, sizeof name);
        if (!text_is_valid(name.name, sizeof name.name) || !find_kept(s, name.domain, name.index, &core) ||
            core != name.core)
            return false;
        for (size_t k = 0; k < i; k++) {
            memcpy(&other, s->names.at + k * sizeof other, sizeof other);
            if (strncmp(name.name, other.name, sizeof name.name) == 0) return false;
        }
    }
    return true;
}

/* As replica_apply() would have had it: a dispatcher that may run, or a session of a core's incarnation that is a member, or has left
 * and is not reclaimed. */
static bool owner_lives(const void *context, uint64_t domain, uint64_t session)
{
    const sections_t *s = context;
    rf_core_t core = (rf_core_t)(session >> 48);
    saved_core_t saved;
    if (domain != RF_DOMAIN_NONE) return find_kept(s, domain, session, &core);
    if (core >= (size_t)(s->cores.end - s->cores.at) / sizeof saved) return false;
    saved = saved_core(s, core);
    return saved.holding > 0 ||
           (saved.member && registry_number_of(core, saved.incarnation, session) == session);
}

/* Leaves the registry's own bytes in s->registry. */
static bool registry_section_fits(const monitor_t *m, sections_t *s)
{
    saved_registry_t saved;
    reader_t *r = &s->registry;
    if (!take(r, &saved, sizeof saved)) return false;
    size_t left = (size_t)(r->end - r->at);
    if (saved.size > left || left - saved.size >= 8) return false;
    r->end = r->at + saved.size;
    return registry_fits(m->registry, r->at, saved.size, owner_lives, s);
}

/* ---- loading ---- */

static void load_cores(monitor_t *m, reader_t r)
{
    for (rf_core_t core = 0; core < m->boot->n_cores; core++) {
        core_t *c = &m->cores[core];
        saved_core_t saved;
        take(&r, &saved, sizeof saved);
        rf_incarnation_t agreed = core_agreed(m, core);
        if (core_is_member(m, core) && (!saved.member || saved.incarnation != agreed))
            member_left(m, core, agreed, false);
        if (!saved.member && saved.incarnation > core_agreed(m, core))
            member_left(m, core, saved.incarnation, false);
        /* One that joined before it, and is linked, has left meanwhile, which is nowhere said. */
        if (saved.member && core != m->core && c->link == PEER_LINKED && c->linked < saved.incarnation)
            member_left(m, core, c->linked, false);
        if (saved.member && !core_is_member(m, core)) member_joined(m, core, saved.incarnation);
        if (c->holding != saved.holding) c->holding = saved.holding;
        m->reclaims_due |= c->holding != 0;
        /* One that joined and left meanwhile; and what was before this one. */
        fence_left(m, core, core == m->core ? m->incarnation - 1 : c->holding, false);
    }
}

static void load_domains(monitor_t *m, reader_t r)
{
    saved_domains_t all;
    take(&r, &all, sizeof all);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) m->domains[i].stale = true;
    m->domain_last = all.last;
    m->n_domains_live = 0;
    for (uint32_t i = 0; i < all.n; i++) {
        saved_domain_t saved = {0};
        rf_core_t cores[RF_DISPATCHERS_PER_DOMAIN_MAX];
        take_domain(&r, &saved, cores);
        domain_t *d = &m->domains[saved.id % MONITOR_DOMAINS_MAX];
        if (d->id != saved.id) memset(d, 0, sizeof *d);
        bool seen = domain_has_ended(d) && d->id == saved.id;
        d->stale = false;
        d->id = saved.id;
        d->uid = saved.uid;
        d->state = saved.state;
        d->n_dispatchers = saved.n_dispatchers;
        d->wait_status = saved.wait_status;
        d->reason = (rf_err_t)saved.reason;
        d->started_ns = saved.started_ns;
        d->ended_ns = saved.ended_ns;
        d->alive = saved.alive;
        d->ending = saved.ending;
        d->left = saved.left;
        memcpy(d->cores, cores, saved.n_dispatchers * sizeof *cores);
        memcpy(d->user, saved.user, sizeof d->user);
        memcpy(d->program, saved.program, sizeof d->program);
        m->n_domains_live += domain_is_kept(d);
        if (d->state == RF_DOMAIN_ENDED && !seen) replica_ended_seen(m, d);
    }
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) {
        domain_t *d = &m->domains[i];
        if (!d->stale) continue;
        d->stale = false;
        if (d->id == 0) continue;
        wait_domain_forgotten(m, d->id);
        memset(d, 0, sizeof *d);
    }
}

static void load_names(monitor_t *m, reader_t r)
{
    unsigned n = 0;
    memset(m->names, 0, sizeof m->names);
    for (saved_name_t saved; take(&r, &saved, sizeof saved);) {
        name_t *name = &m->names[n++];
        *name = (name_t){.used = true, .domain = saved.domain, .index = saved.index, .core = saved.core};
        memcpy(name->name, saved.name, sizeof name->name);
    }
}

rf_err_t replica_load(monitor_t *m, const void *bytes, size_t size)
{
    sections_t s;
    if (!split(bytes, size, &s) || !cores_fit(m, s.cores) || !domains_fit(m, &s) || !names_fit(&s) ||
        !registry_section_fits(m, &s)) {
        out_log(m, RF_LOG_ERROR, "a snapshot of %zu bytes is refused: %s", size,
                rf_err_text(RF_ERR_PROTOCOL));
        return RF_ERR_PROTOCOL;
    }
    m->loading = true;
    load_cores(m,
               s.cores); /* first: who left takes his dispatchers with him, before others of that core come */
    load_domains(m, s.domains);
    load_names(m, s.names);
    m->loading = false;
    rf_err_t err = registry_load(m->registry, s.registry.at, (size_t)(s.registry.end - s.registry.at));
    rf_assert(err == RF_OK); /* it fits */
    registry_loaded(m);
    kernel_reconcile(m);
    return RF_OK;
}
