/*
 * Random life of a whole machine: clients that spawn, span, name, connect, wait and kill, change the registry and wait in it,
 * while cores and hosts die, stall and are cut off, and come back as new incarnations.
 * Checked throughout: every invariant of every monitor, and that monitors which have applied equally much hold equal
 * replicas. At the end: every request is answered or rightly waits, whatever the registry says is held was granted to somebody
 * who lives, and no descriptor is lost. A failing run prints its
 * seed as the last line; monitor_random_test SEED replays it to the bit.
 */
#include "world.h"

#include "monitor/registry_inside.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef RUNS
#define RUNS 150
#endif

typedef struct asked {
    test_client_t *client;
    uint32_t tag;
    uint16_t op;
} asked_t;

typedef struct life {
    world_t *w;
    rf_prng_t prng;
    test_client_t *clients[32];
    unsigned n_clients;
    uint32_t session_tags[32]; /* of the request that opened its session; 0: none */
    asked_t asked[2048];
    unsigned n_asked;
} life_t;

static uint64_t below(life_t *l, uint64_t bound)
{
    return rf_prng_below(&l->prng, bound);
}

static rf_core_t a_core(life_t *l)
{
    return (rf_core_t)below(l, l->w->n_cores);
}

/* The last one or one of the last that were numbered, alive or not. */
static rf_domain_t a_domain(life_t *l)
{
    rf_domain_t last = 1;
    for (unsigned i = 0; i < l->w->n_cores; i++) {
        if (l->w->alive[i] && l->w->monitor[i]->domain_last > last) last = l->w->monitor[i]->domain_last;
    }
    return 1 + below(l, last);
}

static void ask(life_t *l, test_client_t *c, uint16_t op, const void *body, size_t size, unsigned n_fds)
{
    if (l->n_asked == 2048 || c->n_inbox > WORLD_INBOX_MAX - 80) return;
    l->asked[l->n_asked++] =
        (asked_t){.client = c, .tag = world_send(l->w, c, op, body, size, n_fds), .op = op};
}

static void accept_all(life_t *l, test_client_t *c)
{
    unsigned at = 0;
    for (const message_t *m; (m = world_event(c, RF_CLIENT_EVENT_INCOMING, &at));) {
        rf_client_incoming_t in;
        memcpy(&in, m->body, sizeof in);
        rf_client_accept_t accept = {.channel = in.channel.channel, .err = below(l, 4) ? RF_OK : RF_ERR_BUSY};
        snprintf(accept.address, sizeof accept.address, "127.0.0.1:9");
        world_send(l->w, c, RF_CLIENT_ACCEPT, &accept, sizeof accept, 0);
    }
}

static void a_new_client(life_t *l)
{
    world_t *w = l->w;
    rf_core_t core = a_core(l);
    if (l->n_clients == 32 || !w->alive[core]) return;
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const fake_dispatcher_t *d = &w->fake.cores[core].dispatchers[i];
        if (!d->used || below(l, 2)) continue;
        const local_t *local = local_find(w->monitor[core], d->domain, d->index);
        if (!local || local->started) continue;
        l->clients[l->n_clients++] = world_dispatcher_client(w, core, d->domain, d->index);
        return;
    }
}

/* The session of a client of rackfishd; 0: it has none yet. */
static uint64_t session_of(life_t *l, unsigned client)
{
    test_client_t *c = l->clients[client];
    const message_t *m = l->session_tags[client] ? world_reply(c, l->session_tags[client]) : NULL;
    if (l->session_tags[client] == 0) {
        ask(l, c, RF_CLIENT_SESSION_OPEN, NULL, 0, 0);
        l->session_tags[client] = l->w->tag_next;
    }
    rf_client_session_t session = {0};
    if (m && m->header.err == RF_OK) memcpy(&session, m->body, sizeof session);
    return session.session;
}

static void a_registry_request(life_t *l, unsigned client)
{
    static const uint16_t kinds_of[][2] = {
        {RF_REGISTRY_PUT, RF_REGISTRY_KIND_KEY},          {RF_REGISTRY_DELETE, RF_REGISTRY_KIND_KEY},
        {RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK},     {RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK},
        {RF_REGISTRY_RELEASE, RF_REGISTRY_KIND_LOCK},     {RF_REGISTRY_WAIT, RF_REGISTRY_KIND_BARRIER},
        {RF_REGISTRY_CREATE, RF_REGISTRY_KIND_SEMAPHORE}, {RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_SEMAPHORE},
        {RF_REGISTRY_DELETE, RF_REGISTRY_KIND_SEMAPHORE}, {RF_REGISTRY_CREATE, RF_REGISTRY_KIND_QUEUE},
        {RF_REGISTRY_PUSH, RF_REGISTRY_KIND_QUEUE},       {RF_REGISTRY_POP, RF_REGISTRY_KIND_QUEUE},
    };
    test_client_t *c = l->clients[client];
    struct {
        rf_client_registry_t head;
        char name[9];
    } r = {.name = "shared/x"};
    const uint16_t *kind = kinds_of[below(l, sizeof kinds_of / sizeof kinds_of[0])];
    r.head = (rf_client_registry_t){.what = kind[0],
                                    .kind = (uint8_t)kind[1],
                                    .name_size = 8,
                                    .n = 1 + (uint32_t)below(l, 3),
                                    .timeout_ns = below(l, 5 * RF_NS_PER_S),
                                    .flags = (uint16_t)(below(l, 5) == 0 ? RF_REGISTRY_TRY : 0),
                                    .user = "alice"};
    r.name[7] = (char)('a' + below(l, 3));
    if (r.head.what == RF_REGISTRY_PUT || r.head.what == RF_REGISTRY_CREATE)
        r.head.flags = (uint16_t)below(l, 2);
    if (c->domain == RF_DOMAIN_NONE) r.head.session = session_of(l, client);
    registry_entry_t held;
    if (r.head.what == RF_REGISTRY_RELEASE &&
        registry_get(l->w->monitor[c->core]->registry, REGISTRY_LOCK, r.name, 8, &held))
        r.head.number = held.revision;
    uint16_t op = RF_CLIENT_REGISTRY_CHANGE;
    if (below(l, 6) == 0) {
        op = RF_CLIENT_REGISTRY_WATCH;
        r.head.what = (uint16_t)(RF_REGISTRY_KEY + below(l, 2));
    } else if (below(l, 5) == 0) {
        op = RF_CLIENT_REGISTRY_READ;
        r.head.what = (uint16_t)(RF_REGISTRY_GET + below(l, 2));
    }
    if (op != RF_CLIENT_REGISTRY_CHANGE) r.head.flags = 0;
    if (op == RF_CLIENT_REGISTRY_READ && below(l, 2)) r.head.flags = RF_REGISTRY_LINEARIZABLE;
    ask(l, c, op, &r, sizeof r.head + 8, 0);
    if (below(l, 8) == 0) {
        rf_client_target_t target = {.domain = l->w->tag_next};
        world_send(l->w, c, RF_CLIENT_CANCEL, &target, sizeof target, 0);
    }
}

static void a_request(life_t *l)
{
    unsigned client = (unsigned)below(l, l->n_clients);
    test_client_t *c = l->clients[client];
    if (c->gone || !l->w->alive[c->core]) return;
    accept_all(l, c);
    if (below(l, 2)) {
        a_registry_request(l, client);
        return;
    }
    switch (below(l, 9)) {
    case 0:
    case 1: {
        bool local = below(l, 2);
        rf_client_spawn_t spawn = {.core = local ? c->core : a_core(l), .n_fds = 1};
        ask(l, c, RF_CLIENT_SPAWN, &spawn, sizeof spawn, 1);
        break;
    }
    case 2: {
        rf_client_spawn_t span = {.core = a_core(l), .span_args_size = 2};
        if (c->domain) ask(l, c, RF_CLIENT_SPAN, &span, sizeof span, 0);
        break;
    }
    case 3:
    case 4: {
        rf_client_name_request_t name = {0};
        snprintf(name.name, sizeof name.name, "name%u", (unsigned)below(l, 5));
        uint16_t op = below(l, 3) ? RF_CLIENT_NAME_PUT : RF_CLIENT_NAME_DELETE;
        if (c->domain) ask(l, c, op, &name, sizeof name, 0);
        break;
    }
    case 5: {
        rf_client_connect_t connect = {.slots = 64};
        snprintf(connect.name, sizeof connect.name, "name%u", (unsigned)below(l, 5));
        if (c->domain) ask(l, c, RF_CLIENT_CONNECT, &connect, sizeof connect, 0);
        break;
    }
    case 6: {
        rf_client_target_t target = {.domain = a_domain(l)};
        ask(l, c, RF_CLIENT_WAIT, &target, sizeof target, 0);
        break;
    }
    case 7: {
        static const uint32_t signals[] = {9, 10, 15};
        rf_client_kill_t kill = {.domain = a_domain(l), .signo = signals[below(l, 3)], .user = "alice"};
        ask(l, c, RF_CLIENT_KILL, &kill, sizeof kill, 0);
        break;
    }
    default: {
        rf_client_list_t list = {.from = below(l, 10)};
        static const uint16_t ops[] = {RF_CLIENT_STATUS, RF_CLIENT_CORES, RF_CLIENT_DOMAINS, RF_CLIENT_NAMES,
                                       RF_CLIENT_STATS,  RF_CLIENT_LINKS, RF_CLIENT_HOLDINGS};
        ask(l, c, ops[below(l, sizeof ops / sizeof *ops)], &list, sizeof list, 0);
        break;
    }
    }
}

static void an_end(life_t *l)
{
    rf_core_t core = a_core(l);
    const fake_dispatcher_t *d = &l->w->fake.cores[core].dispatchers[below(l, 8)];
    if (d->used && l->w->alive[core])
        world_exit_dispatcher(l->w, core, d->domain, d->index, (int)below(l, 3) << 8);
}

/* rackfishd of a dead core's node asks for an incarnation: of any monitor that answers. */
static void a_return(life_t *l)
{
    world_t *w = l->w;
    rf_core_t core = a_core(l), asked = a_core(l);
    if (w->alive[core] || !w->alive[asked] || w->stalled[asked] || w->monitor[asked]->phase != PHASE_FORMED)
        return;
    world_rejoin(w, core, asked);
}

static void a_stall(life_t *l)
{
    world_t *w = l->w;
    rf_core_t core = a_core(l);
    if (!w->alive[core]) return;
    world_stall(w, core, true);
    world_pass(w, below(l, 3 * RF_NS_PER_S));
    if (w->alive[core]) world_stall(w, core, false);
}

static void a_cut(life_t *l, unsigned nodes)
{
    rf_node_t a = (rf_node_t)below(l, nodes), b = (rf_node_t)below(l, nodes);
    if (a == b) return;
    world_cut(l->w, a, b, true);
    world_pass(l->w, below(l, 6 * RF_NS_PER_S));
    world_cut(l->w, a, b, false);
}

static void check_answers(life_t *l)
{
    for (unsigned i = 0; i < l->n_asked; i++) {
        const asked_t *a = &l->asked[i];
        if (a->client->gone || !l->w->alive[a->client->core] || world_reply(a->client, a->tag)) continue;
        /* Nothing else may take for ever; what is under way without a quorum is answered, too. */
        rf_assert(a->op == RF_CLIENT_WAIT);
    }
}

/* Was the client told that it has this? */
static bool was_granted(const world_t *w, uint64_t token)
{
    for (unsigned i = 0; i < sizeof w->clients / sizeof w->clients[0]; i++) {
        const test_client_t *c = &w->clients[i];
        for (unsigned k = 0; c->used && k < c->n_inbox; k++) {
            rf_client_registry_done_t done;
            const message_t *m = c->inbox[k];
            if (m->type != RF_CLIENT_REPLY || m->header.op != RF_CLIENT_REGISTRY_CHANGE ||
                m->header.err != RF_OK)
                continue;
            memcpy(&done, m->body, sizeof done);
            if (done.revision == token) return true;
        }
    }
    return false;
}

/* Nothing is owned by what has ended, nobody waits for ever, and nobody has what he was not told of. */
static void check_claims(const world_t *w, const monitor_t *m)
{
    const registry_t *r = m->registry;
    for (uint32_t at = r->claims_first; at != UINT32_MAX && m->quorum; at = r->claims[at].all_next) {
        const claim_t *c = &r->claims[at];
        const owner_t *o = &r->owners[c->owner];
        if (o->domain != RF_DOMAIN_NONE) {
            const domain_t *d = &m->domains[o->domain % MONITOR_DOMAINS_MAX];
            rf_assert(d->id == o->domain && (d->alive >> o->session & 1));
        } else {
            rf_core_t core = (rf_core_t)(o->session >> 48);
            rf_assert(core_is_member(m, core) &&
                      registry_number_of(core, core_agreed(m, core), o->session) == o->session);
        }
        rf_assert(c->state != CLAIM_WAITING); /* all had their time */
        rf_assert(c->state != CLAIM_HELD || was_granted(w, c->token));
    }
}

static void run(uint64_t seed)
{
    static const unsigned shapes[][2] = {{1, 1}, {1, 3}, {2, 2}, {3, 2}, {2, 4}, {4, 1}};
    const unsigned *shape = shapes[seed % 6];
    bool one_sided = seed / 6 % 2; /* each shape with lanes, too */
    life_t l = {.w = (one_sided ? world_new_one_sided : world_new)(shape[0], shape[1], seed)};
    world_t *w = l.w;
    rf_prng_seed(&l.prng, seed * 77 + 1);
    world_form(w);
    bool hurts = seed % 2;
    unsigned deaths = (unsigned)below(&l, hurts ? 12 : 4);
    bool leader_may_die = below(&l, 3) == 0;
    w->fake.block_size = below(&l, 2) ? 100 : 9000;
    for (unsigned i = 0; i < 4; i++) l.clients[l.n_clients++] = world_node_client(w, a_core(&l));
    for (unsigned i = 0; i < 400; i++) {
        switch (below(&l, 40)) {
        case 0: {
            rf_core_t core = a_core(&l);
            if (deaths == 0 || (core == 0 && !leader_may_die)) break;
            deaths--;
            world_kill(w, core);
            break;
        }
        case 1: {
            rf_node_t node = (rf_node_t)below(&l, shape[0]);
            if (deaths == 0 || (node == 0 && !leader_may_die) || below(&l, 3)) break;
            deaths--;
            world_kill_node(w, node);
            break;
        }
        case 2:
            world_pass(w, below(&l, 2 * RF_NS_PER_S));
            break;
        case 3:
        case 4:
            an_end(&l);
            break;
        case 5:
        case 6:
        case 7:
            a_new_client(&l);
            break;
        case 8:
            if (below(&l, 20) == 0) world_client_leave(w, l.clients[below(&l, l.n_clients)]);
            break;
        case 9:
        case 12:
        case 13:
            if (hurts) a_return(&l);
            break;
        case 10:
            if (hurts && below(&l, 12) == 0) a_stall(&l);
            break;
        case 11:
            if (hurts && below(&l, 12) == 0) a_cut(&l, shape[0]);
            break;
        default:
            a_request(&l);
            world_deliver(w, (unsigned)below(&l, 12));
            break;
        }
        world_check(w);
    }
    world_pass(w, 40 * RF_NS_PER_S);
    world_check(w);
    check_answers(&l);
    for (rf_core_t core = 0; core < w->n_cores; core++)
        if (w->alive[core]) check_claims(w, w->monitor[core]);
    for (unsigned i = 0; i < l.n_clients; i++) accept_all(&l, l.clients[i]);
    world_pass(w, 40 * RF_NS_PER_S);
    world_free(w);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        run(strtoull(argv[1], NULL, 10));
        return 0;
    }
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        printf("seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        run(seed);
    }
    return 0;
}
