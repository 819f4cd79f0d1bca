/*
 * The workload of whole monitors. A client is a command of rackfishd's with a session of its own, a dispatcher of a domain
 * that it has started, or a watcher. It talks to the monitor of its core alone; when that dies, so does its link, what it had
 * asked is of unknown outcome, and it begins anew elsewhere, as somebody else: a new session, or a new domain.
 */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_NS      (20 * RF_NS_PER_MS)
#define HANDLES_FIRST 1
#define SETTLE_NS     (120 * RF_NS_PER_S) /* a monitor is patient: with a join 10 s, a spawn 30 s */
#define NAMES         2
#define CANCEL_ONE_IN 6  /* waits that are given up before their time */
#define END_ONE_IN    40 /* operations: then it ends itself, and all that it owns is to vanish */

static sim_mclient_t *client_at(sim_world_t *w, rf_core_t core, uint32_t handle)
{
    uint32_t number = (handle - HANDLES_FIRST) % SIM_CLIENTS_MAX;
    if (handle < HANDLES_FIRST || number >= w->n_clients) return NULL;
    sim_mclient_t *c = &w->monitors->clients[number];
    const sim_process_t *p = &w->processes[core];
    return c->up && c->core == core && c->handle == handle && c->life == p->life ? c : NULL;
}

void sim_mclient_arm(sim_world_t *w, sim_mclient_t *c, uint64_t delay_ns)
{
    c->stamp++;
    sim_push(w, w->now_ns + delay_ns + 1, SIM_EVENT_CLIENT)->x = (uint64_t)c->stamp << 32 | c->number;
}

/* Where there are leases: who is cut off with its leader cannot do much else. */
static bool reads_only(const sim_world_t *w, const sim_mclient_t *c)
{
    return w->params.lease_ns > 0 && c->number % 3 == 0;
}

void sim_mclient_think(sim_world_t *w, sim_mclient_t *c)
{
    c->state = SIM_M_IDLE;
    uint64_t mean_ns = c->kind == SIM_WATCHER || reads_only(w, c) ? w->think_ns / 10 : w->think_ns;
    sim_mclient_arm(w, c,
                    sim_exponential(&w->work, rf_prng_below(&w->work, 2) ? mean_ns / 100 : mean_ns * 2));
}

void sim_mclient_start(sim_world_t *w, unsigned number)
{
    sim_mclient_t *c = &w->monitors->clients[number];
    *c = (sim_mclient_t){.number = number, .watched = 1};
    c->kind = number % 4 == 3 ? SIM_WATCHER : number % 2 ? SIM_DISPATCHER : SIM_COMMAND;
    c->prefix = number % 8 == 7 ? "k/" : "";
    sim_mclient_arm(w, c, sim_exponential(&w->work, RF_NS_PER_MS));
}

void sim_monitors_settle(sim_world_t *w)
{
    w->phase_ends_ns = w->now_ns + SETTLE_NS;
    for (unsigned i = 0; i < w->n_clients; i++) {
        sim_mclient_t *c = &w->monitors->clients[i];
        c->finished = 0;
        if (c->state == SIM_M_REST) sim_mclient_arm(w, c, 0);
    }
}

/* ---- coming and going ---- */

static void go_home(sim_world_t *w, sim_mclient_t *c, uint64_t delay_ns)
{
    c->state = SIM_M_HOMELESS;
    c->up = false;
    c->session = c->domain = c->token = 0;
    c->named = false;
    sim_mclient_arm(w, c, delay_ns);
}

void sim_mclient_lost(sim_world_t *w, sim_mclient_t *c)
{
    if (c->state == SIM_M_WAITING) sim_mclient_unknown(w, c);
    go_home(w, c, sim_exponential(&w->work, RETRY_NS));
}

static void link_up(sim_world_t *w, sim_mclient_t *c)
{
    c->life = w->processes[c->core].life;
    c->handle = HANDLES_FIRST + (c->kind == SIM_DISPATCHER ? SIM_CLIENTS_MAX : 0) + c->number;
    c->up = true;
    monitor_event_t *event =
        sim_monitors_push(w, c->core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_UP, NULL, 0);
    event->client = c->handle;
    event->domain = c->domain;
}

static void link_down(sim_world_t *w, sim_mclient_t *c)
{
    if (c->up)
        sim_monitors_push(w, c->core, CHANNEL_CLIENT + c->handle, MONITOR_CLIENT_GONE, NULL, 0)->client =
            c->handle;
    c->up = false;
}

/* A domain of its own on `core`, asked for at the same core or another one. */
static uint32_t spawn(sim_world_t *w, rf_core_t at, uint32_t handle, rf_core_t core)
{
    rf_client_spawn_t body = {.core = core, .n_fds = 1};
    rf_client_fds_t head = {.tag = w->monitors->next_tag + 1, .op = RF_CLIENT_SPAWN};
    monitor_event_t *event =
        sim_monitors_push(w, at, CHANNEL_CLIENT + handle, MONITOR_CLIENT_FDS, &head, sizeof head);
    event->client = handle;
    event->fds[event->n_fds++] = fake_fd_new(&w->monitors->fake);
    return sim_monitors_ask(w, at, handle, RF_CLIENT_SPAWN, &body, sizeof body);
}

static void find_home(sim_world_t *w, sim_mclient_t *c)
{
    c->core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    if (!w->processes[c->core].alive) {
        sim_mclient_arm(w, c, RETRY_NS);
        return;
    }
    if (c->kind != SIM_DISPATCHER) {
        link_up(w, c);
        if (c->kind == SIM_WATCHER) {
            sim_mclient_think(w, c);
            return;
        }
        c->state = SIM_M_OPENING;
        c->tag = sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_SESSION_OPEN, NULL, 0);
        return;
    }
    c->spawn_core = rf_prng_below(&w->work, 2) ? c->core : (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    if (!w->processes[c->spawn_core].alive) c->spawn_core = c->core;
    c->spawn_life = w->processes[c->spawn_core].life;
    c->life = w->processes[c->core].life;
    c->state = SIM_M_SPAWNING;
    c->spawn_tag = spawn(w, c->spawn_core, 0, c->core);
}

static void spawned(sim_world_t *w, sim_mclient_t *c, rf_err_t err, const uint8_t *body, size_t size)
{
    rf_client_spawned_t out = {0};
    memcpy(&out, body, size < sizeof out ? size : sizeof out);
    bool there = w->processes[c->core].alive && w->processes[c->core].life == c->life;
    if (err != RF_OK || !there || !fake_dispatcher(&w->monitors->fake, c->core, out.domain, 0)) {
        go_home(w, c, sim_exponential(&w->work, RETRY_NS));
        return;
    }
    c->domain = out.domain;
    c->state = SIM_M_CONNECTING;
    rf_kernel_fds_t head = {.op = RF_KERNEL_EVENT_STARTED, .key = out.domain << 16};
    monitor_event_t *event =
        sim_monitors_push(w, c->core, CHANNEL_KERNEL, MONITOR_KERNEL_FDS, &head, sizeof head);
    event->fds[event->n_fds++] = fake_fd_new(&w->monitors->fake);
}

void sim_mclient_adopted(sim_world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    for (unsigned i = 0; i < w->n_clients && index == 0; i++) {
        sim_mclient_t *c = &w->monitors->clients[i];
        if (c->state != SIM_M_CONNECTING || c->core != core || c->domain != domain) continue;
        link_up(w, c);
        sim_mclient_think(w, c);
        return;
    }
}

void sim_mclient_exited(void *world, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    sim_world_t *w = world;
    for (unsigned i = 0; i < w->n_clients && index == 0; i++) {
        sim_mclient_t *c = &w->monitors->clients[i];
        if (c->kind != SIM_DISPATCHER || c->domain != domain || c->core != core) continue;
        link_down(w, c);
        sim_mclient_lost(w, c);
        return;
    }
}

void sim_mclient_closed(sim_world_t *w, rf_core_t core, uint32_t handle)
{
    sim_mclient_t *c = client_at(w, core, handle);
    if (!c) return;
    c->up = false;
    sim_mclient_lost(w, c);
}

void sim_mclient_core_died(sim_world_t *w, rf_core_t core)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        sim_mclient_t *c = &w->monitors->clients[i];
        bool asks = c->state == SIM_M_SPAWNING && c->spawn_core == core;
        if (asks ||
            (c->core == core && (c->up || c->state == SIM_M_CONNECTING || c->state == SIM_M_SPAWNING)))
            sim_mclient_lost(w, c);
    }
}

bool sim_mclient_owner_lives(const sim_world_t *w, uint64_t domain, uint64_t session)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const sim_mclient_t *c = &w->monitors->clients[i];
        if (!c->up) continue;
        if (domain != RF_DOMAIN_NONE ? c->domain == domain : c->session == session && session != 0)
            return true;
    }
    return false;
}

static void end_itself(sim_world_t *w, sim_mclient_t *c)
{
    if (c->kind == SIM_DISPATCHER) {
        fake_exit_dispatcher(&w->monitors->fake, c->core, c->domain, 0, 0);
        return;
    }
    rf_client_session_t session = {.session = c->session};
    if (rf_prng_below(&w->work, 2))
        sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_SESSION_END, &session, sizeof session);
    link_down(w, c);
    go_home(w, c, sim_exponential(&w->work, RETRY_NS));
}

/* ---- operations ---- */

static void request(sim_world_t *w, sim_mclient_t *c, uint16_t op, rf_client_registry_t head,
                    const char *name, const char *value, const char *compare)
{
    uint8_t bytes[sizeof head + 128];
    snprintf(head.user, sizeof head.user, "alice");
    head.session = c->kind == SIM_COMMAND ? c->session : 0;
    head.name_size = (uint16_t)strlen(name);
    head.value_size = (uint16_t)strlen(value);
    head.compare_size = (uint16_t)strlen(compare);
    memcpy(bytes, &head, sizeof head);
    size_t size = sizeof head;
    size += (size_t)snprintf((char *)bytes + size, sizeof bytes - size, "%s%s%s", name, value, compare);
    c->tag = sim_monitors_ask(w, c->core, c->handle, op, bytes, size);
}

static void note(sim_world_t *w, sim_mclient_t *c, sim_operation_kind_t kind)
{
    sim_operation_t o = {.client = c->number,
                         .call_ns = w->now_ns,
                         .kind = (uint8_t)kind,
                         .key = c->key,
                         .value = kind == SIM_PUT || kind == SIM_CAS ? c->value : 0,
                         .expected = c->expected};
    c->operation = sim_history_add(&w->history, &o);
}

static const uint8_t mix[] = {
    SIM_M_PUT,       SIM_M_PUT,       SIM_M_PUT,     SIM_M_PUT,       SIM_M_CAS,     SIM_M_CAS,
    SIM_M_CAS,       SIM_M_CAS,       SIM_M_DELETE,  SIM_M_DELETE,    SIM_M_GET,     SIM_M_GET,
    SIM_M_GET,       SIM_M_GET,       SIM_M_GET,     SIM_M_GET_LOCAL, SIM_M_LIST,    SIM_M_SEQUENTIAL,
    SIM_M_EPHEMERAL, SIM_M_EPHEMERAL, SIM_M_ACQUIRE, SIM_M_ACQUIRE,   SIM_M_ACQUIRE, SIM_M_CREATE_QUEUE,
    SIM_M_PUSH,      SIM_M_PUSH,      SIM_M_POP,     SIM_M_POP,       SIM_M_BARRIER, SIM_M_SPAWN,
    SIM_M_NAME,
};

static sim_m_op_t draw(sim_world_t *w, const sim_mclient_t *c)
{
    if (c->kind == SIM_WATCHER) return SIM_M_WATCH;
    if (reads_only(w, c) && rf_prng_below(&w->work, 64)) return SIM_M_GET;
    if (c->token != 0 && rf_prng_below(&w->work, 2)) return SIM_M_RELEASE;
    if (c->child != 0 && rf_prng_below(&w->work, 4) == 0) return c->killed ? SIM_M_WAIT : SIM_M_KILL;
    sim_m_op_t op = (sim_m_op_t)mix[rf_prng_below(&w->work, sizeof mix)];
    if (op == SIM_M_ACQUIRE && c->token != 0) op = SIM_M_RELEASE;
    if (op == SIM_M_NAME && c->kind != SIM_DISPATCHER) op = SIM_M_SPAWN;
    if (op == SIM_M_NAME && c->named) op = SIM_M_UNNAME;
    if (op == SIM_M_SPAWN && c->child != 0) op = c->killed ? SIM_M_WAIT : SIM_M_KILL;
    return op;
}

static uint64_t patience_ns(sim_world_t *w)
{
    return rf_prng_below(&w->work, 4) ? sim_exponential(&w->work, w->params.election_ns)
                                      : sim_exponential(&w->work, 10 * w->params.silence_ns);
}

/* What some replica shows, often what is there. */
static uint32_t guess(sim_world_t *w, const sim_mclient_t *c, const char *name)
{
    char value[REGISTRY_VALUE_MAX + 1] = "";
    registry_entry_t e;
    const registry_t *r = w->monitors->monitors[c->core].monitor->registry;
    if (!registry_get(r, REGISTRY_KEY, name, strlen(name), &e)) return SIM_ABSENT;
    registry_value(r, &e, value);
    value[e.value_size] = 0;
    return (uint32_t)strtoul(value, NULL, 10);
}

static void ask_about_key(sim_world_t *w, sim_mclient_t *c)
{
    char name[SIM_NAME_MAX], value[16] = "", compare[16] = "";
    rf_client_registry_t head = {.kind = RF_REGISTRY_KIND_KEY};
    uint16_t op = RF_CLIENT_REGISTRY_CHANGE;
    c->key = (uint32_t)rf_prng_below(&w->work, w->n_keys);
    snprintf(name, sizeof name, "k/%u", c->key);
    c->value = ++w->next_value;
    switch (c->op) {
    case SIM_M_PUT:
        head.what = RF_REGISTRY_PUT;
        note(w, c, SIM_PUT);
        break;
    case SIM_M_CAS:
        head.what = RF_REGISTRY_PUT;
        c->expected = guess(w, c, name);
        head.condition = c->expected == SIM_ABSENT ? RF_REGISTRY_IF_ABSENT : RF_REGISTRY_IF_VALUE;
        if (c->expected != SIM_ABSENT) snprintf(compare, sizeof compare, "%u", c->expected);
        note(w, c, SIM_CAS);
        break;
    case SIM_M_DELETE:
        head.what = RF_REGISTRY_DELETE;
        note(w, c, SIM_DELETE);
        break;
    case SIM_M_SEQUENTIAL:
        head.what = RF_REGISTRY_PUT;
        head.flags = RF_REGISTRY_SEQUENTIAL;
        snprintf(name, sizeof name, "s/");
        break;
    case SIM_M_EPHEMERAL:
        head.what = RF_REGISTRY_PUT;
        head.flags = RF_REGISTRY_EPHEMERAL;
        snprintf(name, sizeof name, "e/%u", c->value);
        break;
    case SIM_M_LIST:
        op = RF_CLIENT_REGISTRY_READ;
        head.what = RF_REGISTRY_LIST;
        snprintf(name, sizeof name, "k/");
        break;
    default:
        op = RF_CLIENT_REGISTRY_READ;
        head.what = RF_REGISTRY_GET;
        if (c->op == SIM_M_GET) head.flags = RF_REGISTRY_LINEARIZABLE;
        if (c->op == SIM_M_GET) note(w, c, SIM_GET);
        break;
    }
    if (head.what == RF_REGISTRY_PUT) snprintf(value, sizeof value, "%u", c->value);
    request(w, c, op, head, name, value, compare);
}

static void ask_about_object(sim_world_t *w, sim_mclient_t *c)
{
    char name[SIM_NAME_MAX] = "q", value[16] = "";
    rf_client_registry_t head = {.kind = RF_REGISTRY_KIND_QUEUE, .timeout_ns = patience_ns(w)};
    if (rf_prng_below(&w->work, 4) == 0) head.flags = RF_REGISTRY_TRY;
    switch (c->op) {
    case SIM_M_ACQUIRE:
        head.what = RF_REGISTRY_ACQUIRE;
        head.kind = RF_REGISTRY_KIND_LOCK;
        c->lock = (uint32_t)rf_prng_below(&w->work, SIM_LOCKS);
        snprintf(name, sizeof name, "l/%u", c->lock);
        break;
    case SIM_M_RELEASE:
        head.what = RF_REGISTRY_RELEASE;
        head.kind = RF_REGISTRY_KIND_LOCK;
        head.flags = 0;
        head.number = c->token;
        snprintf(name, sizeof name, "l/%u", c->lock);
        break;
    case SIM_M_CREATE_QUEUE:
        head.what = RF_REGISTRY_CREATE;
        head.flags = 0;
        head.n = 16;
        break;
    case SIM_M_PUSH:
        head.what = RF_REGISTRY_PUSH;
        head.flags = 0;
        c->value = ++w->next_value;
        check_owned_element(w, c->value)->pushed = true;
        snprintf(value, sizeof value, "%u", c->value);
        break;
    case SIM_M_POP:
        head.what = RF_REGISTRY_POP;
        break;
    default:
        head.what = RF_REGISTRY_WAIT;
        head.kind = RF_REGISTRY_KIND_BARRIER;
        head.flags = 0;
        head.n = 2;
        snprintf(name, sizeof name, "b");
        w->monitors->barrier_calls++;
        break;
    }
    request(w, c, RF_CLIENT_REGISTRY_CHANGE, head, name, value, "");
    bool waits = c->op == SIM_M_ACQUIRE || c->op == SIM_M_POP || c->op == SIM_M_BARRIER;
    if (waits && rf_prng_below(&w->work, CANCEL_ONE_IN) == 0)
        sim_mclient_arm(w, c, sim_exponential(&w->work, w->params.election_ns));
}

static void ask_about_domain(sim_world_t *w, sim_mclient_t *c)
{
    if (c->op == SIM_M_SPAWN) {
        rf_core_t core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
        c->tag = spawn(w, c->core, c->handle, core);
    } else if (c->op == SIM_M_NAME || c->op == SIM_M_UNNAME) {
        rf_client_name_request_t body = {0};
        if (c->op == SIM_M_NAME) c->name = (uint32_t)rf_prng_below(&w->work, NAMES);
        snprintf(body.name, sizeof body.name, "name%u", c->name);
        c->tag = sim_monitors_ask(w, c->core, c->handle,
                                  c->op == SIM_M_NAME ? RF_CLIENT_NAME_PUT : RF_CLIENT_NAME_DELETE, &body,
                                  sizeof body);
    } else if (c->op == SIM_M_KILL) {
        rf_client_kill_t kill = {.domain = c->child, .signo = 9, .user = "alice"};
        c->tag = sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_KILL, &kill, sizeof kill);
    } else {
        rf_client_target_t target = {.domain = c->child};
        c->tag = sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_WAIT, &target, sizeof target);
    }
}

static void begin(sim_world_t *w, sim_mclient_t *c)
{
    bool watches = c->kind == SIM_WATCHER;
    if (!watches && w->operations_left == 0 && (w->phase != SIM_PHASE_SETTLE || c->finished >= 2)) {
        c->state = SIM_M_REST;
        return;
    }
    if (!watches && rf_prng_below(&w->work, END_ONE_IN) == 0) {
        end_itself(w, c);
        return;
    }
    if (!watches && !reads_only(w, c) && w->operations_left > 0) w->operations_left--;
    c->op = draw(w, c);
    c->operation = SIZE_MAX;
    c->expected = 0;
    c->called_ns = w->now_ns;
    c->state = SIM_M_WAITING;
    if (watches) {
        rf_client_registry_t head = {.what = RF_REGISTRY_PREFIX,
                                     .kind = RF_REGISTRY_KIND_KEY,
                                     .number = c->watched,
                                     .timeout_ns = patience_ns(w)};
        request(w, c, RF_CLIENT_REGISTRY_WATCH, head, c->prefix, "", "");
    } else if (c->op <= SIM_M_EPHEMERAL) {
        ask_about_key(w, c);
    } else if (c->op <= SIM_M_BARRIER) {
        ask_about_object(w, c);
    } else {
        ask_about_domain(w, c);
    }
}

void sim_mclient_timer(sim_world_t *w, const sim_event_t *event)
{
    sim_mclient_t *c = &w->monitors->clients[(uint32_t)event->x];
    if (c->stamp != event->x >> 32) return;
    switch (c->state) {
    case SIM_M_HOMELESS:
        find_home(w, c);
        break;
    case SIM_M_OPENING: /* it was refused */
        c->tag = sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_SESSION_OPEN, NULL, 0);
        break;
    case SIM_M_IDLE:
    case SIM_M_REST:
        if (c->kind == SIM_DISPATCHER &&
            !fake_core_runs(&w->monitors->fake.cores[c->core], sim_clock_local(w, w->host[c->core])))
            sim_mclient_arm(w, c, RETRY_NS);
        else
            begin(w, c);
        break;
    case SIM_M_WAITING: {
        rf_client_target_t target = {.domain = c->tag};
        sim_monitors_ask(w, c->core, c->handle, RF_CLIENT_CANCEL, &target, sizeof target);
        break;
    }
    default:
        break;
    }
}

void sim_mclient_told(sim_world_t *w, sim_process_t *p, uint32_t handle, const rf_wire_header_t *header,
                      const uint8_t *body, size_t size)
{
    rf_err_t err = (rf_err_t)header->err;
    if (handle == 0) { /* rackfishd started its domain */
        for (unsigned i = 0; i < w->n_clients; i++) {
            sim_mclient_t *c = &w->monitors->clients[i];
            if (c->state == SIM_M_SPAWNING && c->spawn_tag == header->tag) spawned(w, c, err, body, size);
        }
        return;
    }
    sim_mclient_t *c = client_at(w, p->core, handle);
    if (!c || c->tag != header->tag) return;
    if (c->state == SIM_M_OPENING) {
        rf_client_session_t session = {0};
        memcpy(&session, body, size < sizeof session ? size : sizeof session);
        c->session = session.session;
        if (err == RF_OK)
            sim_mclient_think(w, c);
        else
            sim_mclient_arm(w, c, RETRY_NS);
    } else if (c->state == SIM_M_WAITING) {
        if (sim_traces(w))
            fprintf(stderr, "             core %u answers client %u, operation %d of %u: %s\n", p->core,
                    c->number, (int)c->op, c->value, rf_err_name(err));
        sim_mclient_answered(w, c, p, err, body, size);
    }
}
