/*
 * The control link: who makes paths, and when. format.h has the order of things.
 *
 * The dialer of the control link offers; a listener that has lost its path, or wants a bulk lane, says LOST. A path that
 * is not up RDMA_PATH_NS_MAX after its offer is given up and offered anew, later each time, until the link's deadline.
 * What the control link has no room for is said again by rdma_control_push(): everything said follows from state.
 */
#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/prng.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define CONTROL_BATCH 16
#define POLL_ALL      UINT32_MAX

static const rf_transport_t *control_of(const rdma_link_t *link)
{
    return link->control->transport;
}

bool rdma_control_say(rdma_link_t *link, uint8_t type, const void *bytes, size_t size)
{
    if (!link->control || rf_message_send(link->control, type, bytes, size) != RF_OK) return false;
    control_of(link)->flush(link->control);
    return true;
}

static const char *lane_name(unsigned lane)
{
    return lane == RDMA_LANE_SLOTS ? "slots" : "bulk";
}

static bool complains(rdma_link_t *link)
{
    return !link->user_closed && rf_log_once_per(&rdma_endpoint_of(link)->log_path_ns, RDMA_LOG_INTERVAL_NS);
}

/* Ended or closed: it makes no path any more, whatever the peer asks for. */
static bool is_over(const rdma_link_t *link)
{
    return link->head.state == RF_LINK_STATE_DEAD || link->end_pending;
}

/* --- making paths ------------------------------------------------------------------------------------------- */

static void route_of(const rdma_link_t *link, rdma_source_t *out)
{
    const rdma_endpoint_t *ep = rdma_endpoint_of(link);
    if (link->dialer)
        rdma_source_to(link->address_text, out);
    else
        *out = ep->listen_route;
}

/* The route by which a dialer's GID is reached, where it is an address and listening said nothing. */
static void route_back(const rdma_link_t *link, const rdma_path_info_t *peer, rdma_source_t *out)
{
    route_of(link, out);
    if (out->netdev != 0 || !peer->ethernet) return;
    char address[RF_ADDRESS_MAX];
    const uint8_t *g = peer->gid;
    static const uint8_t ipv4[12] = {[10] = 0xff, 0xff};
    char text[INET6_ADDRSTRLEN];
    if (memcmp(g, ipv4, sizeof ipv4) == 0)
        snprintf(address, sizeof address, "%u.%u.%u.%u:1", g[12], g[13], g[14], g[15]);
    else if (inet_ntop(AF_INET6, g, text, sizeof text))
        snprintf(address, sizeof address, "[%s]:1", text);
    else
        return;
    rdma_source_to(address, out);
}

static void offer_later(rdma_link_t *link, rdma_lane_t *lane, uint64_t now_ns)
{
    lane->offer_ns = now_ns + lane->backoff_ns;
    lane->backoff_ns =
        lane->backoff_ns * 2 < RDMA_BACKOFF_NS_MAX ? lane->backoff_ns * 2 : RDMA_BACKOFF_NS_MAX;
    rdma_timer(rdma_endpoint_of(link), lane->offer_ns);
}

static void overdue_set(rdma_link_t *link, rdma_lane_t *lane, uint64_t now_ns)
{
    uint64_t half_ns = rdma_endpoint_of(link)->deadline_ns / 2;
    lane->overdue_ns = now_ns + (half_ns < RDMA_PATH_NS_MAX ? half_ns : RDMA_PATH_NS_MAX);
    rdma_timer(rdma_endpoint_of(link), lane->overdue_ns);
}

/* No path from here. One that has been up before is waited for; else the link ends, and the peer is told why. */
static void path_refused(rdma_link_t *link, unsigned lane, rf_err_t err, uint64_t now_ns)
{
    rdma_lane_t *l = &link->lanes[lane];
    if (err == RF_ERR_AGAIN || err == RF_ERR_LIMIT || link->was_up || lane == RDMA_LANE_BULK) {
        if (link->dialer)
            offer_later(link, l, now_ns);
        else
            l->lost_due = true;
        return;
    }
    l->lost_due = true;
    l->lost_err = err;
    rdma_control_push(link);
    rdma_link_end(link, err);
}

static void offer(rdma_link_t *link, unsigned lane, uint64_t now_ns)
{
    rdma_lane_t *l = &link->lanes[lane];
    rdma_source_t route;
    rdma_place_t place;
    rdma_path_t *path;
    l->offer_ns = RF_NEVER;
    if (is_over(link)) return;
    route_of(link, &route);
    rf_err_t err = rdma_place_find(rdma_endpoint_of(link), &route, &place);
    if (err == RF_OK) err = rdma_path_make(link, lane, l->generation + 1, &place, &path);
    if (err != RF_OK) {
        path_refused(link, lane, err, now_ns);
        return;
    }
    l->generation++;
    path->stage = RDMA_STAGE_OFFERED;
    rdma_path_info_t info;
    rdma_path_info(path, &info);
    if (!rdma_control_say(link, RDMA_CONTROL_OFFER, &info, sizeof info)) {
        rdma_path_kill(path);
        offer_later(link, l, now_ns);
        return;
    }
    overdue_set(link, l, now_ns);
}

void rdma_control_need(rdma_link_t *link, unsigned lane, uint64_t now_ns)
{
    rdma_lane_t *l = &link->lanes[lane];
    if (l->path || !link->control || is_over(link)) return;
    if (link->dialer) {
        if (l->offer_ns == RF_NEVER) offer_later(link, l, now_ns);
    } else {
        l->lost_due = true;
        l->lost_err = RF_OK;
        rdma_control_push(link);
    }
}

void rdma_control_hello(rdma_path_t *path)
{
    rdma_link_t *link = path->link;
    rdma_lane_t *lane = &link->lanes[path->lane];
    bool answers = path->stage == RDMA_STAGE_ANSWERED;
    if (!answers && path->stage != RDMA_STAGE_HELLO) {
        rdma_link_wrong(link, "a second HELLO");
        return;
    }
    path->stage = RDMA_STAGE_UP;
    lane->overdue_ns = RF_NEVER;
    lane->overdue = 0;
    lane->wanted = false;
    rdma_word_t hello = {.flags = RDMA_WORD_HELLO, .generation = path->generation};
    if (answers) rdma_path_say(path, &hello);
    bool possible = path->lane == RDMA_LANE_SLOTS ? rdma_link_resume(link, path->peer.accepted)
                                                  : rdma_bulk_resume(link, path->peer.accepted);
    if (!possible) rdma_link_wrong(link, "a count of what was never sent");
    rdma_attention(link);
}

/* --- what the peer says ------------------------------------------------------------------------------------- */

/* RF_OK, or why no path can come of it. */
static rf_err_t info_check(const rdma_link_t *link, const rdma_path_info_t *info)
{
    if (memcmp(info->magic, RDMA_MAGIC, sizeof info->magic) != 0) return RF_ERR_PROTOCOL;
    if (info->format != RDMA_FORMAT) return RF_ERR_VERSION;
    bool right = info->lane < RDMA_LANES && info->qpn <= RDMA_PSN_MASK && info->psn <= RDMA_PSN_MASK &&
                 info->mtu >= IBV_MTU_256 && info->mtu <= IBV_MTU_4096 && info->messages > 0 &&
                 info->slots_max > 0 && (info->ring == 0) == (info->ring_slots == 0) &&
                 (info->ring_slots & (info->ring_slots - 1)) == 0 && info->ring_slots <= RDMA_RING_SLOTS &&
                 info->iwarp <= 1 && info->ethernet <= 1 && info->reserved == 0;
    if (!right) return RF_ERR_PROTOCOL;
    return info->lane == RDMA_LANE_BULK && !link->was_up ? RF_ERR_PROTOCOL : RF_OK;
}

static void path_misfit(rdma_link_t *link, unsigned lane, rf_err_t err, const char *why)
{
    if (complains(link)) rf_log(RF_LOG_WARN, "rdma: no path to %s: %s", link->address_text, why);
    link->lanes[lane].lost_due = true;
    link->lanes[lane].lost_err = err;
    rdma_control_push(link);
    rdma_link_end(link, err);
}

static void offered(rdma_link_t *link, const rdma_path_info_t *info, uint64_t now_ns)
{
    rdma_lane_t *lane = &link->lanes[info->lane];
    if (link->head.state == RF_LINK_STATE_DEAD) { /* closed by the peer: it need not come again */
        link->closed_due |= link->end_err == RF_ERR_CLOSED;
        rdma_control_push(link);
        return;
    }
    if (info->generation <= lane->generation) {
        rdma_link_wrong(link, "an offer out of order");
        return;
    }
    if (info->lane == RDMA_LANE_BULK && rdma_bulk_need(link) != RF_OK) return; /* it comes again */
    if (lane->path && info->lane == RDMA_LANE_SLOTS && lane->path->stage == RDMA_STAGE_UP)
        rdma_link_broken(link, RF_ERR_CLOSED); /* this end has not noticed it yet */
    rdma_path_kill(lane->path);
    if (link->buried || link->end_pending) return;
    lane->generation = info->generation;
    lane->lost_due = false;
    /* An honest dialer waits so long between two; each costs a queue pair here, for as long as it dies. */
    bool early = lane->offered_ns != 0 && now_ns - lane->offered_ns < RDMA_BACKOFF_NS_MIN / 2;
    lane->offered_ns = now_ns;
    if (early) {
        path_refused(link, info->lane, RF_ERR_AGAIN, now_ns);
        return;
    }
    rdma_source_t route;
    rdma_place_t place;
    rdma_path_t *path;
    route_back(link, info, &route);
    rf_err_t err = rdma_place_find(rdma_endpoint_of(link), &route, &place);
    if (err == RF_OK && (info->iwarp != place.device->iwarp || info->ethernet != place.ethernet)) {
        path_misfit(
            link, info->lane, RF_ERR_NOT_SUPPORTED,
            "one end has iWARP, RoCE or InfiniBand and the other another of them: choose with device=");
        return;
    }
    if (err == RF_OK) err = rdma_path_make(link, info->lane, info->generation, &place, &path);
    if (err != RF_OK) {
        path_refused(link, info->lane, err, now_ns);
        return;
    }
    path->stage = RDMA_STAGE_ANSWERED;
    rdma_path_info_t answer;
    rdma_path_info(path, &answer);
    if (place.device->iwarp) {
        rf_random_secret(path->token, sizeof path->token);
        memcpy(answer.token, path->token, sizeof answer.token);
        err = rdma_cm_listen(rdma_endpoint_of(link), &answer.port);
    }
    if (err != RF_OK || rdma_path_join(path, info) != RF_OK ||
        !rdma_control_say(link, RDMA_CONTROL_ANSWER, &answer, sizeof answer)) {
        rdma_path_kill(path);
        lane->lost_due = true;
        return;
    }
    overdue_set(link, lane, now_ns);
}

static void answered(rdma_link_t *link, const rdma_path_info_t *info, uint64_t now_ns)
{
    rdma_lane_t *lane = &link->lanes[info->lane];
    rdma_path_t *path = lane->path;
    if (!path || path->stage != RDMA_STAGE_OFFERED || path->generation != info->generation)
        return; /* to an offer that was given up */
    rdma_word_t hello = {.flags = RDMA_WORD_HELLO, .generation = path->generation};
    if (rdma_path_join(path, info) == RF_OK) {
        if (path->device->iwarp) return; /* HELLO is said when the connection is there */
        path->stage = RDMA_STAGE_HELLO;
        if (rdma_path_say(path, &hello)) return;
    }
    rdma_path_kill(path);
    offer_later(link, lane, now_ns);
}

static void lost(rdma_link_t *link, const rdma_lost_t *said, uint64_t now_ns)
{
    if (said->lane >= RDMA_LANES || said->err >= RF_ERR_COUNT) {
        rdma_link_wrong(link, "a loss of nothing");
        return;
    }
    if (is_over(link)) return;
    if (said->err != RF_OK) {
        if (complains(link))
            rf_log(RF_LOG_WARN, "rdma: %s has no path for this link: %s; its log says more",
                   link->address_text, rf_err_text((rf_err_t)said->err));
        rdma_link_end(link, (rf_err_t)said->err);
        return;
    }
    rdma_lane_t *lane = &link->lanes[said->lane];
    if (!link->dialer || (lane->path && lane->path->generation > said->generation)) return;
    if (said->lane == RDMA_LANE_SLOTS && lane->path && lane->path->stage == RDMA_STAGE_UP) {
        rdma_link_broken(link, RF_ERR_CLOSED);
        return;
    }
    if (said->lane == RDMA_LANE_BULK && rdma_bulk_need(link) != RF_OK) return;
    rdma_path_kill(lane->path);
    rdma_control_need(link, said->lane, now_ns);
}

static void message_take(rdma_link_t *link, uint8_t type, const uint8_t *bytes, size_t size)
{
    uint64_t now_ns = rf_clock_ns();
    rdma_path_info_t info;
    rdma_lost_t said;
    rdma_region_gone_t gone;
    rf_err_t err;
    bool right = false;
    switch (type) {
    case RDMA_CONTROL_OFFER:
    case RDMA_CONTROL_ANSWER:
        right = size >= offsetof(rdma_path_info_t, lane) && (type == RDMA_CONTROL_ANSWER) == link->dialer;
        if (!right) break;
        memset(&info, 0, sizeof info);
        memcpy(&info, bytes, size < sizeof info ? size : sizeof info);
        err = info_check(link, &info);
        if (err == RF_OK && size != sizeof info) err = RF_ERR_PROTOCOL; /* another format's size differs */
        if (err == RF_ERR_VERSION)
            path_misfit(link, RDMA_LANE_SLOTS, err, "the peer has another version of this medium");
        right = err != RF_ERR_PROTOCOL;
        if (err == RF_OK && link->dialer) answered(link, &info, now_ns);
        if (err == RF_OK && !link->dialer) offered(link, &info, now_ns);
        break;
    case RDMA_CONTROL_LOST:
        right = size == sizeof said;
        if (!right) break;
        memcpy(&said, bytes, sizeof said);
        lost(link, &said, now_ns);
        break;
    case RDMA_CONTROL_CLOSED:
        right = link->user_closed;
        if (right) rdma_link_bury(link);
        break;
    case RDMA_CONTROL_REGION_GONE:
    case RDMA_CONTROL_REGION_FREE:
        right = size == sizeof gone;
        if (!right) break;
        memcpy(&gone, bytes, sizeof gone);
        if (type == RDMA_CONTROL_REGION_GONE)
            rdma_bulk_region_gone(link, gone.region);
        else
            rdma_bulk_region_free(link, gone.region);
        break;
    default:
        break;
    }
    if (!right)
        rdma_link_wrong(link, link->was_up
                                  ? "a control message that makes no sense"
                                  : "what no RDMA endpoint says (are both ends' transports the same?)");
}

bool rdma_control_poll(rdma_link_t *link, unsigned batches)
{
    rf_slot_t slots[CONTROL_BATCH];
    while (link->control && !link->buried && control_of(link)->ready(link->control)) {
        if (batches-- == 0) return true;
        unsigned n = control_of(link)->poll(link->control, slots, CONTROL_BATCH);
        for (unsigned i = 0; i < n && link->control && !link->buried; i++) {
            rf_assembler_t *in = link->control_in;
            rf_err_t err = rf_assembler_feed(in, &slots[i]);
            if (err == RF_OK)
                message_take(link, in->type, in->bytes, in->size);
            else if (err != RF_ERR_AGAIN)
                rdma_link_wrong(link, "a control message that makes no sense");
        }
        if (n == 0) break;
    }
    return false;
}

void rdma_control_push(rdma_link_t *link)
{
    for (unsigned i = 0; i < RDMA_LANES; i++) {
        rdma_lane_t *lane = &link->lanes[i];
        if (!lane->lost_due) continue;
        rdma_lost_t said = {
            .generation = lane->generation, .lane = (uint16_t)i, .err = (uint16_t)lane->lost_err};
        lane->lost_due = !rdma_control_say(link, RDMA_CONTROL_LOST, &said, sizeof said);
    }
    if (link->closed_due) link->closed_due = !rdma_control_say(link, RDMA_CONTROL_CLOSED, NULL, 0);
    if (link->bulk) rdma_bulk_push_control(link);
}

/* --- what the control link itself says ---------------------------------------------------------------------- */

static void control_incoming(rdma_endpoint_t *ep, rf_link_t *control, const rf_hello_t *hello)
{
    rdma_link_t *link = ep->n_links < RDMA_LINKS_MAX ? rdma_link_new(ep, NULL) : NULL;
    if (!link) {
        control->transport->reject(control, RF_ERR_LIMIT);
        return;
    }
    link->control = control;
    control->user = link;
    link->incoming = true;
    link->head.peer = *hello;
    snprintf(link->address_text, sizeof link->address_text, "core %u", hello->core);
    const rf_hello_t peer = *hello;
    rdma_event(link, RF_LINK_INCOMING, RF_OK, &peer, 0);
}

static void control_up(rdma_link_t *link, const rf_hello_t *hello)
{
    uint64_t now_ns = rf_clock_ns();
    link->head.peer = *hello;
    control_of(link)->arm(
        link->control); /* for good: it is read only when its endpoint says that there is something */
    if (!link->was_up && link->dead_ns == RF_NEVER) {
        link->dead_ns = now_ns + rdma_endpoint_of(link)->deadline_ns;
        rdma_timer(rdma_endpoint_of(link), link->dead_ns);
    }
    rdma_lane_t *slots = &link->lanes[RDMA_LANE_SLOTS];
    if (link->dialer && !slots->path && slots->offer_ns == RF_NEVER) offer(link, RDMA_LANE_SLOTS, now_ns);
}

/* The peer's control link ended before the link did. */
static void control_ended(rdma_link_t *link, rf_err_t err)
{
    rf_link_t *control = link->control;
    rdma_control_poll(link, POLL_ALL); /* what it said last */
    if (link->control != control) return;
    link->control = NULL;
    control->user = NULL;
    control->transport->close(control);
    rdma_link_end(link, err);
}

void rdma_control_event(void *context, rf_link_t *control, rf_link_event_t event,
                        const rf_link_event_info_t *info)
{
    rdma_endpoint_t *ep = context;
    rdma_link_t *link = control->user;
    if (event == RF_LINK_INCOMING) {
        control_incoming(ep, control, info->hello);
        return;
    }
    if (!link) return;
    switch (event) {
    case RF_LINK_UP:
        control_up(link, info->hello);
        break;
    case RF_LINK_BROKEN: /* the peer may have died: its queue pair knows */
        link->say |= RDMA_WORD_PROBE;
        rdma_push(link);
        break;
    case RF_LINK_CLOSED:
        control_ended(link, RF_ERR_CLOSED);
        break;
    case RF_LINK_DEAD:
        control_ended(link, info->err);
        break;
    default:
        break;
    }
}

/* --- timers ------------------------------------------------------------------------------------------------- */

uint64_t rdma_control_next(const rdma_link_t *link)
{
    uint64_t at = RF_NEVER;
    for (unsigned i = 0; i < RDMA_LANES; i++) {
        at = link->lanes[i].offer_ns < at ? link->lanes[i].offer_ns : at;
        at = link->lanes[i].overdue_ns < at ? link->lanes[i].overdue_ns : at;
    }
    return at;
}

void rdma_control_timers(rdma_link_t *link, uint64_t now_ns)
{
    for (unsigned i = 0; i < RDMA_LANES && !link->buried; i++) {
        rdma_lane_t *lane = &link->lanes[i];
        if (lane->overdue_ns <= now_ns) {
            lane->overdue_ns = RF_NEVER;
            if (lane->overdue++ > 0 && complains(link)) /* the first time the peer may just be busy */
                rf_log(RF_LOG_WARN,
                       "rdma: %s is reached by TCP, but the path for %s does not come up: check that GIDs "
                       "reach each "
                       "other, MTUs, and that no firewall drops UDP port 4791",
                       link->address_text, lane_name(i));
            rdma_path_kill(lane->path);
            if (link->dialer) offer_later(link, lane, now_ns);
        }
        if (lane->offer_ns <= now_ns) {
            if (lane->path)
                lane->offer_ns = RF_NEVER;
            else if (link->control)
                offer(link, i, now_ns);
            else
                lane->offer_ns = RF_NEVER;
        }
    }
}
