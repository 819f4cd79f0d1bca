#include "node/rejoin.h"

#include "base/assert.h"
#include "base/log.h"
#include "node/boot.h"
#include "node/cores.h"
#include "node/evidence.h"
#include "node/monitors.h"
#include "node/peers.h"
#include "node/remote.h"
#include "node/run_dir.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_FIRST_NS (100 * RF_NS_PER_MS)
#define PAUSE_MAX_NS   (30 * RF_NS_PER_S)
#define STABLE_NS      (30 * RF_NS_PER_S)   /* who lived so long starts without a pause */
#define AGAIN_NS       (200 * RF_NS_PER_MS) /* the machine could not answer now */
#define AGAIN_MAX_NS   (5 * RF_NS_PER_S)
#define JOIN_NS        (12 * RF_NS_PER_S) /* a monitor's answer: it waits for a change to be agreed on */

/* To another node: all cores that ask it share one connection, so that they come together, and join by one change. */
typedef struct rf_rejoin_way {
    rf_daemon_t *daemon;
    rf_remote_t *remote; /* NULL: none */
    unsigned n_asking;   /* cores that wait for its answer */
    rf_timer_t timer;    /* while there are any: it may stand still */
} way_t;

typedef struct rf_rejoin {
    rf_timer_t timer;
    rf_monitor_call_t call;
    way_t *way;     /* a node is asked; NULL: none is */
    unsigned tried; /* places asked: the cores of this node, the nodes that are connected, then the others */
    uint64_t pause_ns, again_ns, up_ns;
} rejoin_t;

static rejoin_t *state_of(rf_local_core_t *core)
{
    if (!core->rejoin) core->rejoin = calloc(1, sizeof *core->rejoin);
    return core->rejoin;
}

static bool is_wanted(const rf_local_core_t *core)
{
    const rf_daemon_t *daemon = core->daemon;
    return core->life == RF_LIFE_DOWN && !core->off &&
           (daemon->phase == RF_PHASE_READY || daemon->phase == RF_PHASE_BOOTING);
}

static void ask(rf_local_core_t *core);

static void on_timer(void *context)
{
    rf_local_core_t *core = context;
    rf_cores_end_orphans(core->daemon);
    if (!core->looked && rf_evidence_look(core->daemon)) rf_peers_cores_changed(core->daemon);
    if (is_wanted(core)) ask(core);
}

static void again(rf_local_core_t *core)
{
    rejoin_t *r = core->rejoin;
    r->again_ns = r->again_ns == 0                 ? AGAIN_NS
                  : r->again_ns * 2 < AGAIN_MAX_NS ? r->again_ns * 2
                                                   : AGAIN_MAX_NS;
    r->tried = 0;
    rf_timer_set(&core->daemon->loop, &r->timer, rf_clock_ns() + r->again_ns, on_timer, core);
}

static void start(rf_local_core_t *core, rf_incarnation_t incarnation)
{
    rf_daemon_t *daemon = core->daemon;
    char error[RF_CONFIG_ERROR_MAX];
    rejoin_t *r = core->rejoin;
    r->again_ns = 0;
    rf_err_t err = is_wanted(core) ? rf_boot_block(daemon) : RF_ERR_CANCELLED;
    if (err == RF_ERR_CANCELLED) return;
    if (err == RF_OK) err = rf_core_start(core, incarnation, daemon->boot_fd, error, sizeof error);
    if (err != RF_OK) {
        rf_log(RF_LOG_ERROR, "core %u cannot be started again: %s", core->core, rf_err_text(err));
        again(core);
        return;
    }
    rf_log(RF_LOG_INFO, "core %u joins the machine as incarnation %u", core->core, incarnation);
    rf_run_dir_write_state(daemon);
    rf_monitor_connect(core);
}

/* The machine can never let anybody join again. With no core here that lives a node that boots is of no use. */
static void say_lost(rf_local_core_t *core)
{
    rf_daemon_t *daemon = core->daemon;
    if (daemon->phase == RF_PHASE_BOOTING && rf_cores_alive(daemon) == 0)
        rf_boot_failed(daemon, "%s", rf_err_text(RF_ERR_LOST));
    else if (daemon->join_err != RF_ERR_LOST)
        rf_log(RF_LOG_ERROR, "core %u cannot join: %s", core->core, rf_err_text(RF_ERR_LOST));
}

static void on_answer(rf_local_core_t *core, rf_err_t err, rf_incarnation_t incarnation)
{
    rf_daemon_t *daemon = core->daemon;
    if (err == RF_ERR_LOST) say_lost(core);
    if (err == RF_OK || err == RF_ERR_LOST || (err == RF_ERR_NO_QUORUM && daemon->join_err != RF_ERR_LOST))
        daemon->join_err = err;
    if (err == RF_ERR_LOST) {
        again(core);
        return;
    }
    if (err == RF_OK && incarnation > 0) {
        start(core, incarnation);
        return;
    }
    core->rejoin->tried++;
    ask(core);
}

static void on_monitor_answer(void *context, rf_err_t err, const void *body, size_t size)
{
    rf_client_joined_t joined = {0};
    if (err == RF_OK && size >= sizeof joined) memcpy(&joined, body, sizeof joined);
    on_answer(context, err, joined.incarnation);
}

static void way_close(way_t *way)
{
    rf_timer_clear(&way->timer);
    rf_remote_close(way->remote);
    way->remote = NULL;
    way->n_asking = 0;
}

static void on_way_ended(void *context, rf_err_t err, const char *why)
{
    way_t *way = context;
    rf_daemon_t *daemon = way->daemon;
    (void)why;
    way_close(way);
    for (unsigned i = 0; i < daemon->n_cores; i++) { /* each once: it may ask the same node again */
        rejoin_t *r = daemon->cores[i].rejoin;
        if (!r || r->way != way) continue;
        r->way = NULL;
        on_answer(&daemon->cores[i], err == RF_OK ? RF_ERR_CLOSED : err, 0);
    }
}

static void on_way_silent(void *context)
{
    on_way_ended(context, RF_ERR_TIMEOUT, NULL);
}

static void on_way_answer(void *context, const uint8_t *bytes, size_t size)
{
    way_t *way = context;
    Rackfish__ControlReply *reply = rf_control_reply_unpack(bytes, size);
    rf_err_t err = reply ? (rf_err_t)reply->err : RF_ERR_PROTOCOL;
    rf_incarnation_t incarnation = 0;
    if (err == RF_OK && reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_JOINED)
        incarnation = reply->joined->incarnation;
    rf_local_core_t *core =
        reply && reply->id <= RF_CORES_MAX ? rf_daemon_core(way->daemon, (int)reply->id - 1) : NULL;
    rf_control_reply_free(reply);
    if (!core || !core->rejoin || core->rejoin->way != way) { /* nothing that anybody asked for */
        on_way_ended(way, RF_ERR_PROTOCOL, NULL);
        return;
    }
    core->rejoin->way = NULL;
    if (--way->n_asking == 0) way_close(way);
    on_answer(core, err, incarnation);
}

static const rf_remote_handlers_t way_handlers = {.on_frame = on_way_answer, .on_ended = on_way_ended};

static way_t *way_to(rf_daemon_t *daemon, rf_node_t node)
{
    unsigned n_nodes = daemon->config->n_nodes;
    if (!daemon->rejoin_ways) daemon->rejoin_ways = calloc(n_nodes, sizeof(way_t));
    if (!daemon->rejoin_ways) return NULL;
    way_t *way = &daemon->rejoin_ways[node];
    way->daemon = daemon;
    if (!way->remote &&
        rf_remote_open(daemon, node, daemon->owner, true, &way_handlers, way, &way->remote) != RF_OK)
        way->remote = NULL;
    return way->remote ? way : NULL;
}

/* False: it cannot be asked now. */
static bool ask_node(rf_local_core_t *core, rf_node_t node)
{
    way_t *way = way_to(core->daemon, node);
    Rackfish__CoreRequest join;
    Rackfish__ControlRequest request;
    uint8_t bytes[64];
    rackfish__core_request__init(&join);
    rackfish__control_request__init(&request);
    join.core = core->core;
    request.id = core->core + 1u;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_JOIN;
    request.join = &join;
    rf_assert(rackfish__control_request__get_packed_size(&request) <= sizeof bytes);
    if (!way || way->n_asking == RF_OPERATIONS_MAX) return false;
    if (!rf_remote_send(way->remote, bytes, rackfish__control_request__pack(&request, bytes))) {
        if (way->n_asking == 0) way_close(way);
        return false;
    }
    way->n_asking++;
    rf_timer_set(&way->daemon->loop, &way->timer, rf_clock_ns() + JOIN_NS, on_way_silent, way);
    core->rejoin->way = way;
    return true;
}

/* The next place that may know an incarnation; when there is none, later again. */
static void ask(rf_local_core_t *core)
{
    rf_daemon_t *daemon = core->daemon;
    rejoin_t *r = core->rejoin;
    if (rf_monitor_call_is_under_way(&r->call) || r->way) return;
    unsigned n_nodes = daemon->config->n_nodes;
    for (; r->tried < daemon->n_cores + 2 * n_nodes; r->tried++) {
        if (r->tried < daemon->n_cores) {
            rf_local_core_t *other = &daemon->cores[r->tried];
            rf_client_join_t join = {.core = core->core};
            if (other == core || !other->link_up) continue;
            if (rf_monitor_call(other, &r->call, RF_CLIENT_JOIN, &join, sizeof join, NULL, 0, JOIN_NS,
                                on_monitor_answer, core) == RF_OK)
                return;
        } else {
            rf_node_t node = (rf_node_t)((r->tried - daemon->n_cores) % n_nodes);
            bool connected = rf_peer_is_connected(daemon, node), first = r->tried < daemon->n_cores + n_nodes;
            if (node != daemon->node && connected == first && ask_node(core, node)) return;
        }
    }
    again(core);
}

void rf_rejoin_core_ended(rf_local_core_t *core)
{
    rejoin_t *r = state_of(core);
    if (!r || !is_wanted(core)) return;
    uint64_t now_ns = rf_clock_ns();
    bool stable = r->up_ns != 0 && now_ns - r->up_ns >= STABLE_NS;
    if (stable) r->pause_ns = 0;
    rf_timer_set(&core->daemon->loop, &r->timer, now_ns + r->pause_ns, on_timer, core);
    if (r->pause_ns > PAUSE_FIRST_NS)
        rf_log(RF_LOG_WARN, "core %u dies too often: it joins again in %lu ms", core->core,
               (unsigned long)(r->pause_ns / RF_NS_PER_MS));
    r->pause_ns = r->pause_ns == 0                 ? PAUSE_FIRST_NS
                  : r->pause_ns * 2 < PAUSE_MAX_NS ? r->pause_ns * 2
                                                   : PAUSE_MAX_NS;
    r->up_ns = 0;
    r->tried = 0;
    r->again_ns = 0;
}

void rf_rejoin_now(rf_local_core_t *core)
{
    rejoin_t *r = state_of(core);
    if (!r || !is_wanted(core)) return;
    r->pause_ns = 0;
    r->tried = 0;
    rf_timer_clear(&r->timer);
    ask(core);
}

void rf_rejoin_node_connected(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *core = &daemon->cores[i];
        if (!core->rejoin || core->rejoin->again_ns == 0 || !is_wanted(core)) continue;
        core->rejoin->again_ns = 0;
        core->rejoin->tried = 0;
        rf_timer_clear(&core->rejoin->timer);
        ask(core);
    }
}

void rf_rejoin_core_up(rf_local_core_t *core)
{
    rejoin_t *r = state_of(core);
    if (r) r->up_ns = rf_clock_ns();
}

void rf_rejoin_close(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rejoin_t *r = daemon->cores[i].rejoin;
        if (!r) continue;
        rf_timer_clear(&r->timer);
        rf_monitor_call_cancel(&r->call);
        free(r);
        daemon->cores[i].rejoin = NULL;
    }
    for (unsigned i = 0; daemon->rejoin_ways && i < daemon->config->n_nodes; i++)
        way_close(&daemon->rejoin_ways[i]);
    free(daemon->rejoin_ways);
    daemon->rejoin_ways = NULL;
}
