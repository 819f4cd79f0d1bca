#include "node/peers.h"

#include "base/log.h"
#include "node/boot.h"
#include "node/bootstrap.h"
#include "node/cores.h"
#include "node/evidence.h"
#include "node/form.h"
#include "node/monitors.h"
#include "node/peer_hello.h"
#include "node/rejoin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIAL_FIRST_NS (50 * RF_NS_PER_MS)
#define TELL_AGAIN_NS   (20 * RF_NS_PER_MS)
#define REDIAL_MAX_NS   (500 * RF_NS_PER_MS)
#define LOG_AGAIN_NS    (30 * RF_NS_PER_S)
#define FINISH_MS       1000

/* What is known of the lives of one of its cores. */
typedef struct peer_core {
    rf_core_told_t told;
    rf_incarnation_t dead; /* the last one that is proved dead, of this machine */
} peer_core_t;

/* One other node. */
typedef struct peer {
    rf_daemon_t *daemon;
    rf_node_t node;
    rf_conn_t *conn; /* standing; NULL: none */
    bool accepted;   /* both hellos are fine */
    uint8_t instance[16];
    rf_timer_t redial, late;
    uint64_t dialed_ns, redial_ns; /* the last dial, and how long after it the next one may be */
    uint64_t connect_ns;           /* how long the next one's connect() may take */
    uint64_t logged_ns;
    rf_where_t where;
    /* What it told. */
    rf_machine_id_t machine; /* which it is in; zero: none, as far as is known */
    peer_core_t *cores;
    unsigned n_addresses;
    char (*addresses)[RF_CLIENT_ADDRESS_MAX];
    char medium[16];
    uint64_t memory_bytes;
    char cpu_model[128];
} peer_t;

struct rf_peers {
    peer_t peers[RF_NODES_MAX];
};

static void dial(peer_t *peer);

/* ---- what is known of other nodes, to monitors and back ---- */

static void tell_addresses(rf_daemon_t *daemon, rf_local_core_t *core, const peer_t *peer)
{
    rf_client_addresses_t message;
    for (unsigned from = 0; from < peer->n_addresses; from += RF_CLIENT_ADDRESSES_MAX) {
        unsigned n = peer->n_addresses - from;
        memset(&message, 0, sizeof message);
        message.node = peer->node;
        message.first = (rf_core_t)(daemon->places[peer->node].first_core + from);
        message.n = (uint16_t)(n < RF_CLIENT_ADDRESSES_MAX ? n : RF_CLIENT_ADDRESSES_MAX);
        memcpy(message.medium, peer->medium, sizeof message.medium);
        for (unsigned i = 0; i < message.n; i++)
            memcpy(message.address[i], peer->addresses[from + i], sizeof message.address[i]);
        size_t size = offsetof(rf_client_addresses_t, address) + message.n * sizeof message.address[0];
        rf_err_t err = rf_monitor_tell(core, RF_CLIENT_NODE_ADDRESSES, &message, size);
        if (err != RF_OK)
            rf_log(RF_LOG_ERROR, "core %u could not be told where the cores of %s listen: %s", core->core,
                   daemon->config->nodes[peer->node].name, rf_err_text(err));
    }
}

static void tell_again(void *context);

static void tell_death(rf_local_core_t *core, rf_client_dead_t dead)
{
    if (rf_monitor_tell(core, RF_CLIENT_DEAD, &dead, sizeof dead) == RF_ERR_BUSY &&
        !rf_timer_is_set(&core->tell_again))
        rf_timer_set(&core->daemon->loop, &core->tell_again, rf_clock_ns() + TELL_AGAIN_NS, tell_again, core);
}

/* What was told while the monitor was not in reach, or not there, is told again. */
static void tell_deaths(rf_daemon_t *daemon, rf_local_core_t *core, const peer_t *peer)
{
    const rf_place_t *place = &daemon->places[peer->node];
    for (unsigned i = 0; peer->cores && i < place->n_cores; i++) {
        rf_client_dead_t dead = {.core = (rf_core_t)(place->first_core + i),
                                 .incarnation = peer->cores[i].dead};
        if (dead.incarnation > peer->cores[i].told.incarnation) tell_death(core, dead);
    }
}

/* All deaths: which of them did not fit nobody has noted. */
static void tell_again(void *context)
{
    rf_local_core_t *core = context;
    rf_daemon_t *daemon = core->daemon;
    if (!core->link_up) return;
    for (unsigned i = 0; daemon->peers && i < daemon->config->n_nodes; i++) {
        if (i != daemon->node) tell_deaths(daemon, core, &daemon->peers->peers[i]);
    }
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *other = &daemon->cores[i];
        rf_client_dead_t dead = {.core = other->core, .incarnation = other->dead};
        if (other != core && other->dead > 0 && other->monitor_pidfd < 0) tell_death(core, dead);
    }
}

void rf_peers_tell_monitor(rf_daemon_t *daemon, rf_local_core_t *core)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i == daemon->node) continue;
        tell_addresses(daemon, core, &daemon->peers->peers[i]);
        tell_deaths(daemon, core, &daemon->peers->peers[i]);
    }
}

/* Living cores' addresses are all there, so that they can be told. */
static bool own_cores_known(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        const rf_local_core_t *core = &daemon->cores[i];
        if (core->life == RF_LIFE_NONE || (core->life != RF_LIFE_DOWN && !core->listen_address[0]))
            return false;
    }
    return true;
}

static void send_cores(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    char *addresses[RF_CORES_PER_NODE_MAX];
    Rackfish__Node__PeerLife lives[RF_CORES_PER_NODE_MAX], *live[RF_CORES_PER_NODE_MAX];
    if (!peer->conn || !peer->accepted || !own_cores_known(daemon)) return;
    rf_evidence_look(daemon);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_core_said_t said = rf_evidence_of_core(&daemon->cores[i]);
        addresses[i] = daemon->cores[i].listen_address;
        live[i] = &lives[i];
        rackfish__node__peer_life__init(live[i]);
        lives[i].said = said.said;
        lives[i].looked = said.looked;
        lives[i].incarnation = said.incarnation;
    }
    Rackfish__Node__PeerCores cores;
    rackfish__node__peer_cores__init(&cores);
    cores.n_lives = daemon->n_cores;
    cores.lives = live;
    cores.first_core = daemon->places[daemon->node].first_core;
    cores.n_addresses = daemon->n_cores;
    cores.addresses = addresses;
    cores.medium = daemon->config->medium[daemon->node][peer->node];
    cores.memory_bytes = daemon->topology.memory_bytes;
    cores.cpu_model = daemon->topology.cpu_model;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_CORES;
    frame.cores = &cores;
    rf_peer_send_frame(peer->conn, &frame);
}

static void send_machine(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    if (!peer->conn || !peer->accepted) return;
    Rackfish__Node__PeerMachine machine;
    rackfish__node__peer_machine__init(&machine);
    machine.machine_id =
        (ProtobufCBinaryData){.data = daemon->machine.bytes, .len = sizeof daemon->machine.bytes};
    machine.word = rf_form_word(daemon, peer->node, peer->instance);
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_MACHINE;
    frame.machine = &machine;
    rf_peer_send_frame(peer->conn, &frame);
}

void rf_peers_tell_machine(rf_daemon_t *daemon)
{
    for (unsigned i = 0; daemon->peers && i < daemon->config->n_nodes; i++)
        send_machine(&daemon->peers->peers[i]);
}

void rf_peers_cores_changed(rf_daemon_t *daemon)
{
    if (!daemon->peers) return;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node) send_cores(&daemon->peers->peers[i]);
    }
}

static void tell_dead(rf_daemon_t *daemon, rf_core_t core, rf_incarnation_t incarnation)
{
    rf_client_dead_t dead = {.core = core, .incarnation = incarnation};
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_local_core_t *other = &daemon->cores[i];
        if (other->core != core && other->link_up) tell_death(other, dead);
    }
}

static void send_dead(peer_t *peer, rf_core_t core, rf_incarnation_t incarnation)
{
    Rackfish__Node__PeerDead dead;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_dead__init(&dead);
    rackfish__node__peer_frame__init(&frame);
    dead.core = core;
    dead.incarnation = incarnation;
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_DEAD;
    frame.dead = &dead;
    if (peer->conn && peer->accepted) rf_peer_send_frame(peer->conn, &frame);
}

void rf_peers_core_dead(rf_daemon_t *daemon, rf_core_t core, rf_incarnation_t incarnation)
{
    for (unsigned i = 0; daemon->peers && i < daemon->config->n_nodes; i++)
        send_dead(&daemon->peers->peers[i], core, incarnation);
    tell_dead(daemon, core, incarnation);
    /* It may have been told by a machine that went on without it: then the cut has just healed. */
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) rf_peers_heard(daemon, (rf_node_t)i);
}

/* Incarnations are of one machine: one of that name may have been formed, and taken down, before. */
static bool is_of_this_machine(const rf_daemon_t *daemon, const rf_machine_id_t *machine)
{
    return daemon->machine_known && memcmp(machine, &daemon->machine, sizeof *machine) == 0;
}

static void note_machine(peer_t *peer, const ProtobufCBinaryData *id)
{
    memset(&peer->machine, 0, sizeof peer->machine);
    if (id->len == sizeof peer->machine.bytes) memcpy(peer->machine.bytes, id->data, id->len);
}

static bool make_cores(peer_t *peer)
{
    if (!peer->cores) peer->cores = calloc(peer->daemon->places[peer->node].n_cores, sizeof *peer->cores);
    return peer->cores;
}

static void note_dead(peer_t *peer, unsigned index, rf_incarnation_t incarnation)
{
    peer_core_t *core = &peer->cores[index];
    if (incarnation > core->dead && is_of_this_machine(peer->daemon, &peer->machine))
        core->dead = incarnation;
    if (core->told.incarnation == incarnation) core->told.incarnation = 0;
    tell_dead(peer->daemon, (rf_core_t)(peer->daemon->places[peer->node].first_core + index), incarnation);
}

/* What lived when the node was heard of last, and what it says now. */
static void judge_lives(peer_t *peer, const Rackfish__Node__PeerCores *cores)
{
    for (size_t i = 0; i < cores->n_lives; i++) {
        const Rackfish__Node__PeerLife *life = cores->lives[i];
        rf_core_said_t now = {.said = life->said, .looked = life->looked, .incarnation = life->incarnation};
        rf_core_told_t *told = &peer->cores[i].told;
        if (is_of_this_machine(peer->daemon, &told->machine) &&
            rf_evidence_is_dead(told, peer->instance, &peer->where, &now)) {
            rf_log(RF_LOG_WARN, "node %s: incarnation %u of its core %u is dead",
                   peer->daemon->config->nodes[peer->node].name, told->incarnation,
                   peer->daemon->places[peer->node].first_core + (unsigned)i);
            note_dead(peer, (unsigned)i, told->incarnation);
        }
        if (!now.said || now.incarnation == 0 || now.incarnation <= peer->cores[i].dead) continue;
        told->incarnation = now.incarnation;
        told->machine = peer->machine;
        told->where = peer->where;
        told->looked = now.looked;
        memcpy(told->instance, peer->instance, sizeof told->instance);
    }
}

/* Of its own cores alone a node speaks. */
static rf_err_t on_dead(peer_t *peer, const Rackfish__Node__PeerDead *dead)
{
    rf_daemon_t *daemon = peer->daemon;
    if (dead->core >= RF_CORES_MAX || rf_daemon_node_of_core(daemon, (int)dead->core) != peer->node)
        return RF_ERR_PROTOCOL;
    if (!make_cores(peer)) return RF_ERR_NO_MEMORY;
    note_dead(peer, dead->core - daemon->places[peer->node].first_core, dead->incarnation);
    return RF_OK;
}

static rf_err_t on_cores(peer_t *peer, const Rackfish__Node__PeerCores *cores)
{
    rf_daemon_t *daemon = peer->daemon;
    const rf_place_t *place = &daemon->places[peer->node];
    if (cores->n_addresses != place->n_cores || strlen(cores->medium) >= sizeof peer->medium ||
        (cores->n_lives != 0 && cores->n_lives != place->n_cores))
        return RF_ERR_PROTOCOL;
    for (size_t i = 0; i < cores->n_addresses; i++) {
        if (strlen(cores->addresses[i]) >= RF_CLIENT_ADDRESS_MAX) return RF_ERR_PROTOCOL;
    }
    if (!peer->addresses && !(peer->addresses = calloc(place->n_cores, sizeof *peer->addresses)))
        return RF_ERR_NO_MEMORY;
    if (!make_cores(peer)) return RF_ERR_NO_MEMORY;
    bool first = peer->n_addresses == 0;
    peer->n_addresses = place->n_cores;
    for (size_t i = 0; i < cores->n_addresses; i++)
        snprintf(peer->addresses[i], sizeof peer->addresses[i], "%s", cores->addresses[i]);
    snprintf(peer->medium, sizeof peer->medium, "%s", cores->medium);
    peer->memory_bytes = cores->memory_bytes;
    snprintf(peer->cpu_model, sizeof peer->cpu_model, "%s", cores->cpu_model);
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].link_up) tell_addresses(daemon, &daemon->cores[i], peer);
    }
    judge_lives(peer, cores);
    if (first && daemon->phase == RF_PHASE_BOOTING)
        rf_boot_progress(daemon, "node %s is up", daemon->config->nodes[peer->node].name);
    rf_boot_step(daemon);
    return RF_OK;
}

/* ---- standing connections ---- */

static void say(peer_t *peer, const char *why)
{
    if (!rf_log_once_per(&peer->logged_ns, LOG_AGAIN_NS)) return;
    const char *name = peer->daemon->config->nodes[peer->node].name;
    rf_log(RF_LOG_WARN, "node %s: %s", name, why);
    if (peer->daemon->phase == RF_PHASE_BOOTING) rf_boot_progress(peer->daemon, "node %s: %s", name, why);
}

static void redial(void *context)
{
    dial(context);
}

static void peer_drop(peer_t *peer)
{
    rf_timer_clear(&peer->late);
    if (peer->conn) rf_conn_finish(peer->conn, FINISH_MS);
    peer->conn = NULL;
    peer->accepted = false;
    if (peer->daemon->node < peer->node || peer->daemon->phase == RF_PHASE_GONE)
        return; /* the other side dials */
    if (peer->redial_ns < REDIAL_FIRST_NS) peer->redial_ns = REDIAL_FIRST_NS;
    uint64_t earliest_ns = rf_clock_ns() + REDIAL_FIRST_NS, at_ns = peer->dialed_ns + peer->redial_ns;
    rf_timer_set(&peer->daemon->loop, &peer->redial, at_ns > earliest_ns ? at_ns : earliest_ns, redial, peer);
    peer->redial_ns = peer->redial_ns * 2 < REDIAL_MAX_NS ? peer->redial_ns * 2 : REDIAL_MAX_NS;
}

static void peer_accept(peer_t *peer, const Rackfish__Node__PeerHello *hello)
{
    rf_daemon_t *daemon = peer->daemon;
    memcpy(peer->instance, hello->instance.data, sizeof peer->instance);
    note_machine(peer, &hello->machine_id);
    snprintf(peer->where.boot, sizeof peer->where.boot, "%s", hello->boot);
    snprintf(peer->where.host, sizeof peer->where.host, "%s", hello->host);
    snprintf(peer->where.place, sizeof peer->where.place, "%s", hello->place);
    peer->accepted = true;
    peer->redial_ns = REDIAL_FIRST_NS;
    peer->connect_ns = RF_CONNECT_NS;
    rf_timer_clear(&peer->late);
    rf_bootstrap_set_standing(peer->conn);
    rf_log(RF_LOG_INFO, "node %s is connected", daemon->config->nodes[peer->node].name);
    if (daemon->places[peer->node].n_cores == 0) {
        daemon->places[peer->node].n_cores = (rf_core_t)hello->n_cores;
        rf_config_resolve_remote(daemon->config, peer->node, (rf_core_t)hello->n_cores);
    }
    if (hello->forms && daemon->options.form && !daemon->machine_known && hello->machine_id.len == 0 &&
        peer->node < daemon->node) {
        rf_boot_failed(daemon, "node %s forms the machine, too; start only one host with --form",
                       daemon->config->nodes[peer->node].name);
        return;
    }
    if (rf_form_met(daemon, peer->node, hello))
        rf_peers_tell_machine(daemon);
    else if (daemon->machine_known)
        send_machine(peer);
    send_cores(peer);
    for (unsigned i = 0; i < daemon->n_cores; i++) { /* it may have been cut off then */
        if (daemon->cores[i].dead > 0 && daemon->cores[i].monitor_pidfd < 0)
            send_dead(peer, daemon->cores[i].core, daemon->cores[i].dead);
    }
    rf_rejoin_node_connected(daemon);
    rf_boot_step(daemon);
}

void rf_peers_other_machine(rf_daemon_t *daemon, const char *why)
{
    if (daemon->phase == RF_PHASE_BOOTING && rf_cores_alive(daemon) == 0) rf_boot_failed(daemon, "%s", why);
}

static void on_peer_frame(void *context, const uint8_t *bytes, size_t size)
{
    peer_t *peer = context;
    rf_daemon_t *daemon = peer->daemon;
    char why[512] = "it sent bytes that are no frame of the node protocol";
    rf_err_t err = RF_ERR_PROTOCOL;
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, size);
    switch (frame ? frame->kind_case : RACKFISH__NODE__PEER_FRAME__KIND__NOT_SET) {
    case RACKFISH__NODE__PEER_FRAME__KIND_HELLO:
        if (peer->accepted) break;
        err = rf_peer_judge(daemon, frame->hello, peer->node, why, sizeof why);
        if (err == RF_OK)
            peer_accept(peer, frame->hello);
        else
            rf_peer_send_refusal(peer->conn, err, why);
        if (err == RF_ERR_AUTH) rf_peers_other_machine(daemon, why);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_REFUSED:
        snprintf(why, sizeof why, "it refused this node: %.400s", frame->refused->message);
        if (frame->refused->err == RF_ERR_AUTH) rf_peers_other_machine(daemon, why);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_MACHINE:
        if (!peer->accepted) break;
        bool news;
        err = rf_form_told(daemon, peer->node, peer->instance, frame->machine, &news);
        if (err == RF_ERR_AUTH)
            snprintf(why, sizeof why,
                     "it was told the id of another machine; only one node may form ('rackfish down')");
        if (err != RF_OK) break;
        note_machine(peer, &frame->machine->machine_id);
        if (news) rf_peers_tell_machine(daemon);
        rf_boot_step(daemon);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_CORES:
        if (peer->accepted) err = on_cores(peer, frame->cores);
        break;
    case RACKFISH__NODE__PEER_FRAME__KIND_DEAD:
        if (peer->accepted) err = on_dead(peer, frame->dead);
        break;
    default:
        break;
    }
    rf_peer_frame_free(frame);
    if (err != RF_OK) {
        say(peer, why);
        peer_drop(peer);
    }
}

static void on_peer_closed(void *context, rf_err_t err, const char *why)
{
    peer_t *peer = context;
    (void)err;
    bool booting = peer->daemon->phase == RF_PHASE_BOOTING && !peer->accepted && err == RF_ERR_CLOSED;
    if (!booting) /* while hosts start one after the other, "connection refused" is no news */
        say(peer, why);
    peer_drop(peer);
}

static void on_peer_late(void *context)
{
    peer_t *peer = context;
    uint64_t hello_ns = peer->dialed_ns + RF_PEER_HELLO_NS;
    if (!rf_conn_is_connecting(peer->conn) && rf_clock_ns() < hello_ns) {
        rf_timer_set(&peer->daemon->loop, &peer->late, hello_ns, on_peer_late, peer);
        return;
    }
    if (rf_conn_is_connecting(peer->conn)) peer->connect_ns = rf_connect_longer_ns(peer->connect_ns);
    say(peer, "it does not answer on its bootstrap port");
    rf_conn_close(
        peer->conn); /* at once: its hello must not arrive yet and take the place of the next dial */
    peer->conn = NULL;
    peer_drop(peer);
}

static const rf_conn_handlers_t peer_handlers = {.on_frame = on_peer_frame, .on_closed = on_peer_closed};

static void dial(peer_t *peer)
{
    rf_daemon_t *daemon = peer->daemon;
    if (peer->conn) return;
    rf_timer_clear(&peer->redial);
    peer->dialed_ns = rf_clock_ns();
    if (rf_bootstrap_dial(daemon, peer->node, &peer_handlers, peer, &peer->conn) != RF_OK) {
        peer->conn = NULL;
        peer_drop(peer);
        return;
    }
    rf_bootstrap_set_standing(peer->conn);
    rf_peer_send_hello(daemon, peer->conn, false, NULL, false);
    rf_timer_set(&daemon->loop, &peer->late, peer->dialed_ns + peer->connect_ns, on_peer_late, peer);
}

void rf_peers_heard(rf_daemon_t *daemon, rf_node_t node)
{
    if (!daemon->peers || daemon->node <= node || daemon->phase == RF_PHASE_GONE) return;
    peer_t *peer = &daemon->peers->peers[node];
    if (peer->conn && !rf_conn_is_connecting(peer->conn)) return;
    if (rf_clock_ns() - peer->dialed_ns < REDIAL_FIRST_NS) return;
    rf_conn_close(peer->conn);
    peer->conn = NULL;
    dial(peer);
}

/* A standing connection of a node that has one already: the old one is of an earlier life that the kernel has not reported
 * dead yet, or two hosts claim one index. The old one counts as long as it is up; the other side dials again. */
bool rf_peers_are_two(const rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, char *why,
                      size_t why_max)
{
    const peer_t *peer = &daemon->peers->peers[hello->node];
    bool same = hello->instance.len == sizeof peer->instance &&
                memcmp(hello->instance.data, peer->instance, sizeof peer->instance) == 0;
    if (!peer->accepted || same) return false;
    snprintf(why, why_max, "a living node is %s already; give each host its own name (--node)",
             hello->node_name);
    return true;
}

rf_err_t rf_peers_take(rf_daemon_t *daemon, rf_conn_t *conn, const Rackfish__Node__PeerHello *hello,
                       char *why, size_t why_max)
{
    peer_t *peer = &daemon->peers->peers[hello->node];
    if (hello->node < daemon->node) {
        snprintf(why, why_max, "the node with the higher index dials, not %s", hello->node_name);
        return RF_ERR_PROTOCOL;
    }
    if (rf_peers_are_two(daemon, hello, why, why_max)) return RF_ERR_EXISTS;
    rf_peer_send_hello(daemon, conn, false, NULL, false);
    rf_conn_close(peer->conn);
    peer->conn = conn;
    conn->handlers = &peer_handlers;
    conn->context = peer;
    peer_accept(peer, hello);
    return RF_OK;
}

rf_err_t rf_peers_open(rf_daemon_t *daemon)
{
    daemon->peers = calloc(1, sizeof *daemon->peers);
    if (!daemon->peers) return RF_ERR_NO_MEMORY;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++)
        daemon->peers->peers[i] =
            (peer_t){.daemon = daemon, .node = (rf_node_t)i, .connect_ns = RF_CONNECT_NS};
    return RF_OK;
}

void rf_peers_dial(rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->node; i++) dial(&daemon->peers->peers[i]);
}

void rf_peers_close(rf_daemon_t *daemon)
{
    rf_peers_t *peers = daemon->peers;
    if (!peers) return;
    for (unsigned i = 0; i < RF_NODES_MAX; i++) {
        rf_timer_clear(&peers->peers[i].redial);
        rf_timer_clear(&peers->peers[i].late);
        rf_conn_close(peers->peers[i].conn);
        free(peers->peers[i].addresses);
        free(peers->peers[i].cores);
    }
    free(peers);
    daemon->peers = NULL;
}

unsigned rf_peers_connected(const rf_daemon_t *daemon)
{
    unsigned n = 0;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) n += rf_peer_is_connected(daemon, (rf_node_t)i);
    return n;
}

bool rf_peers_all_known(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node && daemon->peers->peers[i].n_addresses == 0) return false;
    }
    return true;
}

static void name_node(const rf_daemon_t *daemon, unsigned node, char *out, size_t max)
{
    size_t at = strlen(out);
    snprintf(out + at, max - at, "%snode %s (%s port %u)", at ? ", " : "", daemon->config->nodes[node].name,
             daemon->places[node].address, daemon->config->nodes[node].port);
}

void rf_peers_missing(const rf_daemon_t *daemon, char *out, size_t max)
{
    out[0] = 0;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node && daemon->peers->peers[i].n_addresses == 0) name_node(daemon, i, out, max);
    }
}

unsigned rf_peers_silent(const rf_daemon_t *daemon, char *out, size_t max)
{
    unsigned majority = daemon->config->n_nodes / 2 + 1, have = rf_peers_connected(daemon);
    out[0] = 0;
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (!rf_peer_is_connected(daemon, (rf_node_t)i)) name_node(daemon, i, out, max);
    }
    return have < majority ? majority - have : 0;
}

bool rf_peer_is_connected(const rf_daemon_t *daemon, rf_node_t node)
{
    return node == daemon->node || (daemon->peers->peers[node].conn && daemon->peers->peers[node].accepted);
}

bool rf_peer_host(const rf_daemon_t *daemon, rf_node_t node, uint64_t *memory_bytes, const char **cpu_model)
{
    const peer_t *peer = &daemon->peers->peers[node];
    if (peer->n_addresses == 0) return false;
    *memory_bytes = peer->memory_bytes;
    *cpu_model = peer->cpu_model;
    return true;
}
