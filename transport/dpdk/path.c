/* Flows, asked of the link driver: local.h has the order of things. */
#include "transport/dpdk/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <stdlib.h>
#include <string.h>

#define RING_SLOTS_MAX 4096 /* of the rings to and from the driver */
#define WINDOW_SLOTS   1024 /* of a flow for slots; one for bulk has as many as its rings */
#define ANOTHER_SHARE  4    /* of the deadline */

static const rf_transport_t *shm(const dpdk_path_t *path)
{
    return path->local->transport;
}

static void fail(path_lane_t *lane, rf_err_t why)
{
    dpdk_path_of(lane)->why = why;
    path_lane_failed(lane);
}

/* --- asking ------------------------------------------------------------------------------------------------- */

/* There is no flow to be had: the driver is not there, or refuses. */
static void no_flow(path_lane_t *lane, rf_err_t err)
{
    dpdk_endpoint_t *ep = dpdk_endpoint_of(lane->link);
    const dpdk_port_t *port = dpdk_path_of(lane)->port;
    if (rf_log_once_per(&ep->log_driver_ns, PATH_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN,
               "dpdk: no flow to be had of the link driver at %s: %s; is rackfish-dpdk running there?",
               port              ? port->driver
               : ep->ports.n > 0 ? "(none: no port is in the peer's network, and none has a gateway)"
                                 : "(nowhere: say driver=PATH)",
               rf_err_text(err));
    bool others = ep->ports.n > 1 &&
                  dpdk_path_of(lane)->tries < 2 * ep->ports.n; /* whose drivers may say something else */
    bool never = ((err == RF_ERR_VERSION || err == RF_ERR_PERMISSION) && !others) || ep->ports.n == 0;
    if (never && !lane->link->was_up)
        path_lane_impossible(lane, err);
    else
        path_lane_refused(lane);
}

static rf_err_t local_connect(path_lane_t *lane)
{
    dpdk_endpoint_t *ep = dpdk_endpoint_of(lane->link);
    dpdk_path_t *path = dpdk_path_of(lane);
    bool bulk = lane->number == PATH_LANE_BULK;
    if (!path->port) return RF_ERR_NOT_FOUND;
    rf_link_params_t params = {.address = path->port->driver,
                               .socket = -1,
                               .slots = bulk ? WINDOW_SLOTS : RF_RING_SLOTS_MIN,
                               .slots_max = RING_SLOTS_MAX,
                               .user = lane};
    path->local_in = calloc(1, sizeof *path->local_in);
    if (!path->local_in) return RF_ERR_NO_MEMORY;
    path->ask_due = false;
    path->why = RF_OK;
    rf_random_secret(path->nonce, sizeof path->nonce);
    return ep->local->transport->connect(ep->local, &params, &path->local);
}

void dpdk_path_make(path_lane_t *lane, const path_info_t *offer)
{
    dpdk_path_t *path = dpdk_path_of(lane);
    const path_link_t *link = lane->link;
    const dpdk_path_info_t *its = (const dpdk_path_info_t *)(const void *)offer;
    unsigned turn =
        link->self.core + link->head.peer.core + lane->number + dpdk_port_turn(path->tries++, its);
    path->port = dpdk_port_pick(&dpdk_endpoint_of(link)->ports, turn, its ? its->place.ipv4 : NULL);
    rf_err_t err = local_connect(lane);
    if (err != RF_OK) no_flow(lane, err);
}

/* How long a flow may be silent. Where there is another port, long before the link, and who waits for it, gives up. */
static uint64_t silence_max(uint64_t deadline_ns, const dpdk_ports_t *ports)
{
    return ports->n > 1 ? deadline_ns / ANOTHER_SHARE : deadline_ns;
}

static void ask(path_lane_t *lane)
{
    dpdk_path_t *path = dpdk_path_of(lane);
    const path_link_t *link = lane->link;
    uint32_t slots = link->slots_max < WINDOW_SLOTS ? link->slots_max : WINDOW_SLOTS;
    dpdk_open_t open = {.format = DPDK_LOCAL_FORMAT,
                        .lane = (uint16_t)lane->number,
                        .slots = lane->number == PATH_LANE_BULK ? RING_SLOTS_MAX : slots,
                        .deadline_ns =
                            silence_max(path_endpoint_of(link)->deadline_ns, &dpdk_endpoint_of(link)->ports)};
    path->ask_due = false;
    if (rf_message_send(path->local, DPDK_LOCAL_OPEN, &open, sizeof open) != RF_OK)
        path_lane_failed(lane);
    else
        shm(path)->flush(path->local);
}

void dpdk_local_event(void *context, rf_link_t *local, rf_link_event_t event,
                      const rf_link_event_info_t *info)
{
    (void)context;
    path_lane_t *lane = local->user;
    if (!lane) return;
    dpdk_path_t *path = dpdk_path_of(lane);
    switch (event) {
    case RF_LINK_UP:
        path->ask_due = true;
        path_link_attention(lane->link);
        break;
    case RF_LINK_ROOM:
        path_link_attention(lane->link); /* settling pushes */
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        if (lane->stage == PATH_MAKING && path->why == RF_OK)
            path->why = info->err == RF_OK ? RF_ERR_CLOSED : info->err;
        path_lane_failed(lane);
        break;
    default:
        break;
    }
}

void dpdk_path_failed(path_lane_t *lane)
{
    rf_err_t why = dpdk_path_of(lane)->why;
    if (why != RF_OK || lane->stage == PATH_MAKING)
        no_flow(lane, why == RF_OK ? RF_ERR_CLOSED : why);
    else
        path_lane_lost(lane, RF_ERR_CLOSED, true); /* bulk too: the peer may be writing */
}

const char *dpdk_path_overdue(const path_lane_t *lane)
{
    return lane->stage == PATH_MAKING
               ? "this host's link driver does not answer: check that rackfish-dpdk runs"
               : "no flow to it comes up: check that the ports are on one network, and its switches pass "
                 "frames of their MTU";
}

/* --- hearing ------------------------------------------------------------------------------------------------ */

static void opened(path_lane_t *lane, const uint8_t *bytes, size_t size)
{
    dpdk_path_t *path = dpdk_path_of(lane);
    dpdk_opened_t said;
    rf_err_t err = dpdk_opened_decode(bytes, size, &said);
    if (err != RF_OK) {
        fail(lane, err);
        return;
    }
    path->place = said.place;
    path->seal = (uint8_t)said.seal;
    path_lane_made(lane);
}

static void message_take(path_lane_t *lane)
{
    const rf_assembler_t *in = dpdk_path_of(lane)->local_in;
    dpdk_refused_t refused;
    if (in->type == DPDK_LOCAL_OPENED && lane->stage == PATH_MAKING) {
        opened(lane, in->bytes, in->size);
    } else if (in->type == DPDK_LOCAL_REFUSED && in->size == sizeof refused) {
        memcpy(&refused, in->bytes, sizeof refused);
        bool known = refused.err > RF_OK && refused.err < RF_ERR_COUNT;
        fail(lane, known ? (rf_err_t)refused.err : RF_ERR_PROTOCOL);
    } else {
        fail(lane, RF_ERR_PROTOCOL);
    }
}

static void hello_take(path_lane_t *lane, const rf_slot_t *slot)
{
    path_word_t word;
    if (path_word_read(lane, slot, &word) && word.flags == PATH_WORD_HELLO)
        path_lane_hello(lane);
    else
        path_link_wrong(lane->link, "no HELLO first");
}

/* What is there now. */
static void hear(path_lane_t *lane)
{
    const dpdk_path_t *path = dpdk_path_of(lane);
    rf_slot_t slot;
    while (path->local && lane->stage != PATH_UP && !lane->failed && !lane->link->wrong &&
           shm(path)->poll(path->local, &slot, 1) == 1) {
        if (lane->stage >= PATH_ANSWERED && rf_control_type(slot.control) >= RF_SHM_RELAYED) {
            hello_take(lane, &slot);
            continue;
        }
        rf_err_t err = path->local_in ? rf_assembler_feed(path->local_in, &slot) : RF_ERR_PROTOCOL;
        if (err == RF_OK)
            message_take(lane);
        else if (err != RF_ERR_AGAIN)
            path_lane_failed(lane);
    }
}

/* The owner arms a link once it is up; until then its endpoint alone is waited on, and has to be rung. */
void dpdk_path_hear(path_lane_t *lane)
{
    const dpdk_path_t *path = dpdk_path_of(lane);
    if (path->local && path->ask_due && !lane->failed) ask(lane);
    hear(lane);
    if (!path->local || lane->stage == PATH_UP || lane->failed) return;
    shm(path)->arm(path->local);
    rf_full_fence();
    if (shm(path)->ready(path->local)) hear(lane);
}

/* --- joining ------------------------------------------------------------------------------------------------ */

rf_err_t dpdk_path_info(path_lane_t *lane, path_info_t *out)
{
    const dpdk_path_t *path = dpdk_path_of(lane);
    dpdk_path_info_t *info = (dpdk_path_info_t *)(void *)out;
    info->path.kind = path->seal;
    info->place = path->place;
    memcpy(info->nonce, path->nonce, sizeof info->nonce);
    return RF_OK;
}

bool dpdk_path_info_right(const path_info_t *info)
{
    return info->kind <= RF_SEAL_ENCRYPT &&
           dpdk_place_valid(&((const dpdk_path_info_t *)(const void *)info)->place);
}

/* Of this very flow, the same at both ends. */
static rf_err_t secret_make(const path_lane_t *lane, const dpdk_path_info_t *peer,
                            uint8_t secret[RF_SEAL_SECRET])
{
    const path_link_t *link = lane->link;
    const dpdk_path_t *path = dpdk_path_of(lane);
    unsigned mine = link->dialer ? 0 : 1, its = !mine;
    rf_seal_identity_t identity = {.machine = link->self.machine, .lane = lane->number};
    identity.core[mine] = link->self.core;
    identity.core[its] = link->head.peer.core;
    identity.incarnation[mine] = link->self.incarnation;
    identity.incarnation[its] = link->head.peer.incarnation;
    identity.driver[mine] = path->place.driver;
    identity.driver[its] = peer->place.driver;
    identity.flow[mine] = path->place.flow;
    identity.flow[its] = peer->place.flow;
    memcpy(identity.nonce[mine], path->nonce, RF_SEAL_NONCE);
    memcpy(identity.nonce[its], peer->nonce, RF_SEAL_NONCE);
    return rf_seal_secret(&identity, secret); /* the nonces came over the control link: they are the secret */
}

rf_err_t dpdk_path_join(path_lane_t *lane, const path_info_t *info)
{
    dpdk_path_t *path = dpdk_path_of(lane);
    const dpdk_path_info_t *peer = (const dpdk_path_info_t *)(const void *)info;
    dpdk_join_t join = {.peer = peer->place,
                        .seal = info->kind > path->seal ? info->kind : path->seal,
                        .dialer = lane->link->dialer};
    rf_err_t err = secret_make(lane, peer, join.secret);
    if (err == RF_OK) err = rf_message_send(path->local, DPDK_LOCAL_JOIN, &join, sizeof join);
    explicit_bzero(join.secret, sizeof join.secret);
    if (err == RF_OK) err = shm(path)->flush(path->local);
    explicit_bzero(path->nonce, sizeof path->nonce);
    return err == RF_ERR_AGAIN ? RF_ERR_LIMIT : err; /* nothing follows by itself */
}

bool dpdk_path_say(path_lane_t *lane, const path_word_t *word)
{
    const dpdk_path_t *path = dpdk_path_of(lane);
    rf_slot_t slot = {.control = rf_control_make(DPDK_WORD, sizeof *word, false, 0)};
    memcpy(slot.payload, word, sizeof *word);
    if (shm(path)->send(path->local, &slot, 1) != 1) return false;
    shm(path)->flush(path->local);
    return true;
}

void dpdk_path_drop(path_lane_t *lane)
{
    dpdk_path_t *path = dpdk_path_of(lane);
    rf_link_t *local = path->local;
    path->local = NULL;
    path->ask_due = false;
    explicit_bzero(path->nonce, sizeof path->nonce);
    free(path->local_in);
    path->local_in = NULL;
    if (!local) return;
    local->user = NULL;
    local->transport->close(local);
}
