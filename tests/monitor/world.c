#include "world.h"

#include <stdio.h>
#include <stdlib.h>

struct pending {
    rf_core_t to;
    uint32_t channel; /* who says it: order is kept within one */
    monitor_event_t event;
    uint8_t *bytes;
    monitor_link_stats_t links[WORLD_CORES_MAX];
};

void *world_memory(size_t size)
{
    void *memory = aligned_alloc(64, (size + 63) & ~(size_t)63);
    rf_assert(memory);
    return memset(memory, 0, size);
}

/* ---- queues ---- */

monitor_event_t *world_push(world_t *w, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                            const void *bytes, size_t size)
{
    if (w->n_pending == w->pending_room) {
        w->pending_room = w->pending_room ? w->pending_room * 2 : 64;
        w->pending = realloc(w->pending, w->pending_room * sizeof *w->pending);
        rf_assert(w->pending);
    }
    pending_t *p = &w->pending[w->n_pending++];
    memset(p, 0, sizeof *p);
    p->to = to;
    p->channel = channel;
    p->event.kind = kind;
    p->event.core = RF_CORE_NONE;
    p->event.size = size;
    if (size > 0) {
        p->bytes = malloc(size); /* exact, so that reading beyond is seen */
        rf_assert(p->bytes);
        memcpy(p->bytes, bytes, size);
    }
    return &p->event;
}

static void pending_drop(world_t *w, unsigned i)
{
    for (unsigned k = 0; k < w->pending[i].event.n_fds; k++)
        fake_fd_close(&w->fake, w->pending[i].event.fds[k]);
    free(w->pending[i].bytes);
    memmove(&w->pending[i], &w->pending[i + 1], (w->n_pending - i - 1) * sizeof *w->pending);
    w->n_pending--;
}

void world_unsay(world_t *w, rf_core_t to, uint32_t channel, monitor_event_kind_t kind)
{
    for (unsigned i = w->n_pending; i-- > 0;) {
        const pending_t *p = &w->pending[i];
        if (p->to == to && p->channel == channel && p->event.kind == kind) pending_drop(w, i);
    }
}

static rf_node_t node_of(const world_t *w, rf_core_t core)
{
    return w->boot.node_of[core];
}

/* ---- what monitors want ---- */

static monitor_event_t *peer_event(world_t *w, rf_core_t to, rf_core_t from, monitor_event_kind_t kind,
                                   rf_err_t err)
{
    monitor_event_t *event = world_push(w, to, CHANNEL_PEER + from, kind, NULL, 0);
    event->core = from;
    event->err = err;
    return event;
}

static void peer_is_up(world_t *w, rf_core_t to, rf_core_t from)
{
    rf_incarnation_t incarnation = w->monitor[from]->incarnation;
    monitor_event_t *event = peer_event(w, to, from, MONITOR_PEER_UP, RF_OK);
    event->incarnation = incarnation;
    if (node_of(w, from) == node_of(w, to))
        event->process = (monitor_process_t){
            .incarnation = incarnation, .monitor_pid = 1000 + from, .driver_pid = 2000 + from};
}

static void do_dial(world_t *w, rf_core_t from, rf_core_t to)
{
    if (w->linked[from][to]) {
        peer_is_up(w, from, to); /* both dialled */
        return;
    }
    if (w->refuse_dials > 0 && node_of(w, from) != node_of(w, to)) {
        w->refuse_dials--;
        peer_event(w, from, to, MONITOR_PEER_DOWN, w->refuse_dials % 2 ? RF_ERR_EXISTS : RF_ERR_TIMEOUT);
        return;
    }
    if (!w->alive[to] || w->cut[node_of(w, from)][node_of(w, to)]) {
        peer_event(w, from, to, MONITOR_PEER_DOWN, RF_ERR_TIMEOUT);
        return;
    }
    w->linked[from][to] = w->linked[to][from] = true;
    peer_is_up(w, from, to);
    peer_is_up(w, to, from);
}

static void unlink_peers(world_t *w, rf_core_t a, rf_core_t b, rf_err_t err)
{
    if (!w->linked[a][b]) return;
    w->linked[a][b] = w->linked[b][a] = false;
    if (w->alive[b]) peer_event(w, b, a, MONITOR_PEER_DOWN, err);
}

static void do_send_peer(world_t *w, rf_core_t from, const monitor_action_t *a)
{
    for (unsigned i = 0; i < a->n_fds; i++) fake_fd_check(&w->fake, a->fds[i]);
    if (!w->linked[from][a->core] || !w->alive[a->core] || w->cut[node_of(w, from)][node_of(w, a->core)])
        return;
    if (a->n_fds > 0) {
        rf_assert(node_of(w, from) == node_of(w, a->core));
        monitor_event_t *event =
            world_push(w, a->core, CHANNEL_PEER + from, MONITOR_PEER_FDS, a->head, a->head_size);
        event->core = from;
        for (unsigned i = 0; i < a->n_fds; i++) event->fds[event->n_fds++] = fake_fd_new(&w->fake);
    }
    monitor_event_t *event =
        world_push(w, a->core, CHANNEL_PEER + from, MONITOR_PEER_MESSAGE, a->bytes, a->size);
    event->core = from;
    event->type = a->type;
}

test_client_t *world_client_of(world_t *w, rf_core_t core, uint32_t handle)
{
    for (unsigned i = 0; i < 128; i++) {
        test_client_t *c = &w->clients[i];
        if (c->used && !c->gone && c->core == core && c->handle == handle) return c;
    }
    return NULL;
}

static void do_send_client(world_t *w, rf_core_t core, const monitor_action_t *a)
{
    test_client_t *c = world_client_of(w, core, a->client);
    if (!c) return;
    rf_assert(c->n_inbox < WORLD_INBOX_MAX && a->size >= sizeof(rf_wire_header_t) && a->size <= 4096);
    message_t *m = calloc(1, sizeof *m);
    rf_assert(m);
    m->type = a->type;
    m->fd = -1;
    m->size = a->size - sizeof m->header;
    memcpy(&m->header, a->bytes, sizeof m->header);
    memcpy(m->body, (const uint8_t *)a->bytes + sizeof m->header, m->size);
    for (unsigned i = 0; i < a->n_fds; i++) {
        fake_fd_check(&w->fake, a->fds[i]);
        m->fd = 0; /* the client's own number does not matter */
    }
    c->inbox[c->n_inbox++] = m;
}

static void exited(void *world, rf_core_t core, rf_domain_t domain, uint16_t index)
{
    world_t *w = world;
    for (unsigned i = 0; i < 128; i++) {
        test_client_t *c = &w->clients[i];
        if (c->used && !c->gone && c->core == core && c->domain == domain && c->index == index)
            world_client_leave(w, c);
    }
}

static rf_err_t fence(void *world, rf_core_t core, const rf_kernel_fence_t *fence)
{
    world_t *w = world;
    rf_assert(node_of(w, fence->core) == node_of(w, core));
    if (w->monitor[fence->core]->incarnation == fence->incarnation && w->fence_err == RF_OK)
        world_kill(w, fence->core);
    w->n_fenced++;
    return w->fence_err;
}

static monitor_event_t *push(void *world, rf_core_t to, uint32_t channel, monitor_event_kind_t kind,
                             const void *bytes, size_t size)
{
    return world_push(world, to, channel, kind, bytes, size);
}

void world_exit_dispatcher(world_t *w, rf_core_t core, rf_domain_t domain, uint16_t index, int wait_status)
{
    fake_exit_dispatcher(&w->fake, core, domain, index, wait_status);
}

static void link_stats(world_t *w, rf_core_t core, uint32_t op)
{
    world_push(w, core, CHANNEL_SHELL, MONITOR_LINK_STATS, NULL, 0)->op = op;
    pending_t *p = &w->pending[w->n_pending - 1];
    for (rf_core_t to = 0; to < w->n_cores; to++) {
        if (w->linked[core][to])
            p->links[p->event.n++] = (monitor_link_stats_t){.core = to, .medium = "fake"};
    }
}

static void adopt(world_t *w, rf_core_t core, const monitor_action_t *a)
{
    fake_fd_close(&w->fake, a->fds[0]);
    for (unsigned i = 0; i < 128; i++) {
        test_client_t *c = &w->clients[i];
        if (!c->used || c->core != core || c->domain != a->domain || c->index != a->index || c->gone)
            continue;
        monitor_event_t *event = world_push(w, core, CHANNEL_SHELL, MONITOR_CLIENT_UP, NULL, 0);
        event->client = c->handle;
        event->domain = a->domain;
        event->index = a->index;
    }
}

static void act(world_t *w, rf_core_t core, const monitor_action_t *a)
{
    switch ((monitor_action_kind_t)a->kind) {
    case MONITOR_DO_SEND_PEER:
        do_send_peer(w, core, a);
        break;
    case MONITOR_DO_SEND_CLIENT:
    case MONITOR_DO_SEND_EVENT:
        do_send_client(w, core, a);
        break;
    case MONITOR_DO_DIAL:
        do_dial(w, core, a->core);
        break;
    case MONITOR_DO_FENCE_PEER:
        if (w->monitor[a->core]->incarnation <= a->incarnation) unlink_peers(w, core, a->core, RF_ERR_CLOSED);
        break;
    case MONITOR_DO_CLOSE_CLIENT: {
        test_client_t *c = world_client_of(w, core, a->client);
        if (c) c->gone = true;
        break;
    }
    case MONITOR_DO_ADOPT:
        adopt(w, core, a);
        break;
    case MONITOR_DO_LINK_STATS:
        link_stats(w, core, a->op);
        break;
    case MONITOR_DO_LOG:
        w->n_logged++;
        if (getenv("WORLD_VERBOSE")) w->verbose = true;
        if (w->verbose)
            fprintf(stderr, "%12.6f monitor/%u %s\n", (double)w->now_ns / 1e9, core, (const char *)a->bytes);
        break;
    case MONITOR_DO_EXIT:
        w->exit_status[core] = (int)a->size;
        w->exited[core] = true;
        break;
    default:
        rf_assert(world_lane_act(w, core, a) || fake_act(&w->fake, core, a));
        break;
    }
}

static void step(world_t *w, rf_core_t core, monitor_event_t *event)
{
    monitor_event_t tick = {.kind = MONITOR_TICK};
    bool looks = event->kind == MONITOR_LANE_LINES;
    rf_assert(!w->stalled[core]);
    for (unsigned i = 0; i < 10000 && w->alive[core]; i++) {
        event->now_ns = w->now_ns;
        event->real_ns = 1000000 + w->now_ns;
        monitor_step(w->monitor[core], event, w->output);
        w->tick_ns[core] = w->output->next_tick_ns;
        w->fake.cores[core].lease_ns = w->output->lease_ns;
        bool more = w->output->more;
        for (unsigned k = 0; k < w->output->n_actions; k++) act(w, core, &w->output->actions[k]);
        if (w->exited[core]) world_kill(w, core);
        if (!more) break;
        event = &tick;
    }
    if (looks && w->alive[core]) world_lane_look(w, core);
}

/* ---- running ---- */

static bool runs(const world_t *w, rf_core_t core)
{
    return w->alive[core] && !w->stalled[core];
}

/* It is not delivered now. */
static bool waits(const world_t *w, const pending_t *p)
{
    uint32_t from = p->channel - CHANNEL_PEER;
    bool held = from < w->n_cores && w->held[from][p->to];
    return w->stalled[p->to] || held;
}

static void deliver_one(world_t *w)
{
    /* Any link may be next; of that link, the oldest. */
    unsigned chosen = (unsigned)rf_prng_below(&w->prng, w->n_pending);
    while (waits(w, &w->pending[chosen])) chosen = (chosen + 1) % w->n_pending; /* one is deliverable */
    for (unsigned i = 0; i < chosen; i++) {
        if (w->pending[i].to == w->pending[chosen].to &&
            w->pending[i].channel == w->pending[chosen].channel) {
            chosen = i;
            break;
        }
    }
    pending_t p = w->pending[chosen];
    w->pending[chosen].event.n_fds = 0;
    w->pending[chosen].bytes = NULL;
    pending_drop(w, chosen);
    if (w->alive[p.to]) {
        p.event.bytes = p.bytes;
        p.event.links = p.links;
        step(w, p.to, &p.event);
    } else {
        for (unsigned i = 0; i < p.event.n_fds; i++) fake_fd_close(&w->fake, p.event.fds[i]);
    }
    free(p.bytes);
}

static bool anything_to_deliver(const world_t *w)
{
    for (unsigned i = 0; i < w->n_pending; i++) {
        if (!waits(w, &w->pending[i])) return true;
    }
    return false;
}

void world_deliver(world_t *w, unsigned n)
{
    for (unsigned i = 0; i < n && anything_to_deliver(w); i++) deliver_one(w);
}

/* What is committed is told to the others a moment later, if nothing else tells it (monitor/agree.c). */
static bool tell_notices(world_t *w)
{
    bool any = false;
    for (rf_core_t core = 0; core < w->n_cores; core++) {
        if (!runs(w, core) || w->monitor[core]->agree.notice_ns == 0) continue;
        monitor_event_t tick = {.kind = MONITOR_TICK};
        if (w->monitor[core]->agree.notice_ns > w->now_ns) w->now_ns = w->monitor[core]->agree.notice_ns;
        step(w, core, &tick);
        any = true;
    }
    return any;
}

void world_settle(world_t *w)
{
    for (unsigned i = 0; anything_to_deliver(w) || tell_notices(w); i++) {
        rf_assert(i < 2000000); /* they talk for ever */
        if (anything_to_deliver(w)) deliver_one(w);
        for (rf_core_t core = 0; core < w->n_cores; core++) {
            if (runs(w, core) && w->tick_ns[core] <= w->now_ns) {
                monitor_event_t tick = {.kind = MONITOR_TICK};
                step(w, core, &tick);
            }
        }
    }
}

void world_pass(world_t *w, uint64_t ns)
{
    uint64_t until = w->now_ns + ns;
    for (;;) {
        world_settle(w);
        uint64_t next = RF_NEVER;
        for (rf_core_t core = 0; core < w->n_cores; core++) {
            if (runs(w, core) && w->tick_ns[core] < next) next = w->tick_ns[core];
        }
        if (next > until) break;
        if (next > w->now_ns) w->now_ns = next;
        for (rf_core_t core = 0; core < w->n_cores; core++) {
            if (!runs(w, core) || w->tick_ns[core] > w->now_ns) continue;
            monitor_event_t tick = {.kind = MONITOR_TICK};
            step(w, core, &tick);
            rf_assert(!w->alive[core] ||
                      w->tick_ns[core] > w->now_ns); /* a tick that is due for ever never ends */
        }
    }
    if (w->now_ns < until) w->now_ns = until; /* notices may have gone beyond it */
}

static void start_core(world_t *w, rf_core_t core, const rf_boot_t *boot, rf_incarnation_t incarnation)
{
    size_t size = monitor_size(boot, core);
    free(w->memory[core]);
    w->memory[core] = world_memory(size);
    rf_assert(w->memory[core]);
    rf_err_t err =
        monitor_init(w->memory[core], size, boot, core, incarnation, "owner", w->now_ns, &w->monitor[core]);
    rf_assert(err == RF_OK);
    w->alive[core] = true;
    w->exited[core] = w->stalled[core] = false;
    w->tick_ns[core] = w->now_ns;
    world_push(w, core, CHANNEL_KERNEL, MONITOR_KERNEL_UP, NULL, 0);
}

static world_t *make(unsigned nodes, unsigned cores, uint64_t seed, bool one_sided)
{
    world_t *w = calloc(1, sizeof *w);
    rf_assert(w && nodes * cores <= WORLD_CORES_MAX);
    rf_prng_seed(&w->prng, seed);
    w->output = calloc(1, sizeof *w->output);
    w->n_cores = nodes * cores;
    w->now_ns = RF_NS_PER_S;
    fake_init(&w->fake, w, &w->prng, w->n_cores);
    w->fake.push = push;
    w->fake.exited = exited;
    w->fake.fence = fence;
    rf_boot_t *b = &w->boot;
    b->magic = RF_BOOT_MAGIC;
    b->size = sizeof *b;
    b->machine.bytes[0] = 7;
    b->n_nodes = (rf_node_t)nodes;
    b->n_cores = (rf_core_t)w->n_cores;
    b->heartbeat_ms = 100;
    b->host_deadline_ms = 1000;
    b->election_ms = 500;
    b->one_sided = one_sided;
    snprintf(b->machine_name, sizeof b->machine_name, "test");
    for (unsigned n = 0; n < nodes; n++) {
        snprintf(b->nodes[n].name, sizeof b->nodes[n].name, "node%u", n);
        snprintf(b->medium[n], sizeof b->medium[n], "tcp");
        b->nodes[n].first_core = (rf_core_t)(n * cores);
        b->nodes[n].n_cores = (rf_core_t)cores;
        for (unsigned c = 0; c < cores; c++) {
            b->node_of[n * cores + c] = (rf_node_t)n;
            b->cores[n * cores + c].cpu = (uint16_t)c;
        }
    }
    rf_boot_t *boots = calloc(nodes, sizeof *boots); /* each node's own block */
    rf_assert(boots && w->output);
    for (unsigned n = 0; n < nodes; n++) {
        boots[n] = *b;
        boots[n].node = (rf_node_t)n;
    }
    for (rf_core_t core = 0; core < w->n_cores; core++) start_core(w, core, &boots[core / cores], 1);
    return w;
}

world_t *world_new(unsigned nodes, unsigned cores, uint64_t seed)
{
    return make(nodes, cores, seed, false);
}

world_t *world_new_one_sided(unsigned nodes, unsigned cores, uint64_t seed)
{
    return make(nodes, cores, seed, true);
}

/* What its rackfishd does first: tells where the others listen. */
void world_introduce(world_t *w, rf_core_t core)
{
    test_client_t *c = world_node_client(w, core);
    for (rf_node_t node = 0; node < w->boot.n_nodes; node++) {
        if (node == node_of(w, core)) continue;
        rf_client_addresses_t a = {.node = node,
                                   .first = w->boot.nodes[node].first_core,
                                   .n = w->boot.nodes[node].n_cores,
                                   .medium = "tcp"};
        for (unsigned i = 0; i < a.n; i++)
            snprintf(a.address[i], sizeof a.address[i], "127.0.0.1:%u", 5000 + a.first + i);
        rf_assert(world_ask(w, c, RF_CLIENT_NODE_ADDRESSES, &a, sizeof a, NULL, 0) == RF_OK);
    }
}

static void introduce(world_t *w)
{
    world_settle(w);
    for (rf_core_t core = 0; core < w->n_cores; core++) {
        if (w->alive[core]) world_introduce(w, core);
    }
    world_pass(w, RF_NS_PER_S);
}

rf_err_t world_join(world_t *w, rf_core_t core, rf_core_t asked, rf_incarnation_t *incarnation)
{
    rf_assert(!w->alive[core]);
    rf_client_join_t join = {.core = core};
    rf_client_joined_t joined = {0};
    rf_err_t err = world_ask_for(w, world_node_client(w, asked), RF_CLIENT_JOIN, &join, sizeof join, &joined,
                                 sizeof joined, 15 * RF_NS_PER_S);
    rf_assert(err != RF_OK || joined.incarnation > w->monitor[core]->incarnation);
    *incarnation = joined.incarnation;
    return err;
}

void world_start(world_t *w, rf_core_t core, rf_incarnation_t incarnation)
{
    for (unsigned i = w->n_pending; i-- > 0;) {
        if (w->pending[i].to == core) pending_drop(w, i); /* nothing of the earlier life comes through */
    }
    start_core(w, core, w->monitor[core]->boot, incarnation);
    world_settle(w);
    world_introduce(w, core);
    for (rf_core_t other = 0; other < w->n_cores; other++) { /* and theirs tell the others */
        if (!runs(w, other) || node_of(w, other) == node_of(w, core)) continue;
        rf_client_addresses_t a = {.node = node_of(w, core), .first = core, .n = 1, .medium = "tcp"};
        snprintf(a.address[0], sizeof a.address[0], "127.0.0.1:%u", 5000 + core);
        world_send(w, world_node_client(w, other), RF_CLIENT_NODE_ADDRESSES, &a, sizeof a, 0);
    }
    world_settle(w);
}

rf_err_t world_rejoin(world_t *w, rf_core_t core, rf_core_t asked)
{
    rf_incarnation_t incarnation;
    rf_err_t err = world_join(w, core, asked, &incarnation);
    if (err == RF_OK) world_start(w, core, incarnation);
    return err;
}

void world_stall(world_t *w, rf_core_t core, bool stalled)
{
    w->stalled[core] = stalled;
}

void world_hold(world_t *w, rf_core_t from, rf_core_t to, bool held)
{
    w->held[from][to] = held;
}

void world_form(world_t *w)
{
    introduce(w);
    for (rf_core_t core = 0; core < w->n_cores; core++)
        rf_assert(!w->alive[core] || w->monitor[core]->formed);
}

void world_form_late(world_t *w)
{
    introduce(w);
    for (rf_core_t core = 0; core < w->n_cores; core++) rf_assert(!w->monitor[core]->formed);
    world_pass(w, BOOT_NS);
    for (rf_core_t core = 0; core < w->n_cores; core++)
        rf_assert(!w->alive[core] || w->monitor[core]->formed);
}

void world_kill(world_t *w, rf_core_t core)
{
    if (!w->alive[core]) return;
    w->alive[core] = w->stalled[core] = false;
    monitor_t *m = w->monitor[core];
    fake_core_died(&w->fake, core, m);
    for (unsigned i = 0; i < 128; i++) {
        if (w->clients[i].used && w->clients[i].core == core) w->clients[i].gone = true;
    }
    for (rf_core_t other = 0; other < w->n_cores; other++) {
        if (other == core) continue;
        world_lanes_end(w, core, other);
        if (node_of(w, other) == node_of(w, core)) {
            bool watched = w->linked[core][other];
            unlink_peers(w, core, other, RF_ERR_PEER_DEAD);
            if (watched && w->alive[other])
                peer_event(w, other, core, MONITOR_PEER_DIED, RF_OK)->incarnation = m->incarnation;
        } else
            w->linked[core][other] = w->linked[other][core] = false; /* the other host hears nothing */
    }
}

void world_kill_node(world_t *w, rf_node_t node)
{
    for (rf_core_t core = 0; core < w->n_cores; core++) {
        if (node_of(w, core) == node) {
            for (rf_core_t other = 0; other < w->n_cores; other++)
                w->linked[core][other] = w->linked[other][core] = false;
            world_kill(w, core);
        }
    }
}

void world_cut(world_t *w, rf_node_t a, rf_node_t b, bool cut)
{
    w->cut[a][b] = w->cut[b][a] = cut;
    for (rf_core_t from = 0; cut && from < w->n_cores; from++) {
        for (rf_core_t to = 0; to < w->n_cores; to++) {
            if (node_of(w, from) != a || node_of(w, to) != b) continue;
            world_lanes_end(w, from, to);
            if (!w->linked[from][to]) continue;
            unlink_peers(w, from, to, RF_ERR_TIMEOUT); /* when its deadline has passed: here at once */
            if (w->alive[from]) peer_event(w, from, to, MONITOR_PEER_DOWN, RF_ERR_TIMEOUT);
        }
    }
}

/* ---- checking ---- */

void world_check(world_t *w)
{
    for (rf_core_t core = 0; core < w->n_cores; core++) {
        if (!w->alive[core]) continue;
        monitor_check(w->monitor[core]);
        for (rf_core_t other = 0; other < core; other++) {
            if (w->alive[other]) fake_check_pair(w->monitor[core], w->monitor[other]);
        }
    }
}

void world_free(world_t *w)
{
    world_settle(w);
    world_check(w);
    const rf_boot_t *boots = w->monitor[0]->boot;
    for (rf_core_t core = 0; core < w->n_cores; core++) {
        world_kill(w, core);
        free(w->memory[core]);
    }
    while (w->n_pending > 0) pending_drop(w, w->n_pending - 1);
    rf_assert(fake_fds_open(&w->fake) == 0); /* a descriptor leaked */
    fake_free(&w->fake);
    for (unsigned i = 0; i < 128; i++) {
        for (unsigned k = 0; k < w->clients[i].n_inbox; k++) free(w->clients[i].inbox[k]);
    }
    world_lanes_free(w);
    free(w->pending);
    free(w->output);
    free((void *)(uintptr_t)boots);
    free(w);
}
