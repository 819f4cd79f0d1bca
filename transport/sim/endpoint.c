/* The simulated endpoint: inbox, hellos, timers, and the ends of links. */
#include "transport/sim/internal.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static sim_endpoint_t *endpoint_of(rf_endpoint_t *endpoint)
{
    return (sim_endpoint_t *)endpoint;
}

void sim_enter(sim_endpoint_t *ep)
{
    ep->inside++;
}

void sim_leave(sim_endpoint_t *ep)
{
    if (--ep->inside > 0) return;
    while (ep->graveyard) {
        sim_link_t *link = ep->graveyard;
        ep->graveyard = link->next;
        sim_bulk_free(link);
        free(link->ring);
        free(link->rx);
        free(link);
    }
}

void sim_event(sim_link_t *link, rf_link_event_t event, rf_err_t err, uint64_t cookie)
{
    sim_endpoint_t *ep = sim_endpoint_of(link);
    if (link->user_closed || link->fenced || link->buried) return;
    const rf_hello_t peer = link->head.peer;
    bool has_hello = event == RF_LINK_INCOMING || event == RF_LINK_UP;
    rf_link_event_info_t info = {.err = err, .cookie = cookie, .hello = has_hello ? &peer : NULL};
    ep->on_event(ep->context, &link->head, event, &info);
}

/* ---- timers ---- */

static void endpoint_timer(sim_endpoint_t *ep, uint64_t at_ns)
{
    if (at_ns >= ep->timer_ns) return;
    ep->timer_ns = at_ns;
    sim_timer_event(ep->network, ep, at_ns);
}

static uint64_t retry_first_ns(const sim_link_t *link)
{
    const sim_endpoint_t *ep = sim_endpoint_of(link);
    return SIM_RETRY_NS_MIN + 2 * sim_round_trip_ns(ep->network, ep->place, link->peer);
}

void sim_link_timer(sim_link_t *link)
{
    sim_endpoint_t *ep = sim_endpoint_of(link);
    if (!sim_link_waits(link)) {
        link->timer_ns = RF_NEVER;
        return;
    }
    if (link->timer_ns != RF_NEVER) return;
    link->retry_ns = retry_first_ns(link);
    link->contact_ns = ep->network->now_ns;
    link->timer_ns = ep->network->now_ns + link->retry_ns;
    endpoint_timer(ep, link->timer_ns);
}

/* ---- ends ---- */

static void bury(sim_link_t *link)
{
    sim_endpoint_t *ep = sim_endpoint_of(link);
    if (link->buried) return;
    link->buried = true;
    link->timer_ns = RF_NEVER;
    if (!link->dialer) ep->network->ended[link->id / 8] |= (uint8_t)(1u << link->id % 8);
    if (link->prev)
        link->prev->next = link->next;
    else
        ep->links = link->next;
    if (link->next) link->next->prev = link->prev;
    ep->n_links--;
    link->next = ep->graveyard;
    ep->graveyard = link;
}

static void send_reset(sim_link_t *link, rf_err_t status)
{
    sim_packet_t *packet = sim_link_packet(link, SIM_RESET);
    if (!packet) return;
    packet->status = (uint8_t)status;
    sim_packet_send(sim_endpoint_of(link)->network, packet);
}

void sim_link_end(sim_link_t *link, rf_err_t err)
{
    if (link->buried || link->end_pending || link->closed_pending || link->head.state == RF_LINK_STATE_DEAD)
        return;
    if (link->user_closed) {
        bury(link);
        return;
    }
    link->end_pending = true;
    link->end_err = err;
    link->timer_ns = RF_NEVER;
    endpoint_timer(sim_endpoint_of(link), sim_endpoint_of(link)->network->now_ns);
}

void sim_link_settle(sim_link_t *link)
{
    if (link->broken_due) {
        link->broken_due = false;
        sim_event(link, RF_LINK_BROKEN, RF_ERR_CLOSED, 0);
    }
    if (link->up_due && !link->buried) {
        link->up_due = false;
        sim_event(link, RF_LINK_UP, RF_OK, 0);
    }
    bool polled = link->delivered == link->rx_received &&
                  (!link->bulk || link->bulk->notify_head == link->bulk->notify_tail);
    if (link->buried || link->fenced || !polled || !(link->end_pending || link->closed_pending)) return;
    rf_link_event_t event = link->closed_pending ? RF_LINK_CLOSED : RF_LINK_DEAD;
    rf_err_t err = link->closed_pending ? RF_OK : link->end_err;
    if (link->closed_pending) {
        link->end_err = RF_ERR_CLOSED;
        send_reset(link, RF_ERR_CLOSED); /* the peer lingers no longer */
    }
    link->end_pending = link->closed_pending = false;
    link->head.state = RF_LINK_STATE_DEAD;
    link->timer_ns = RF_NEVER;
    sim_bulk_fail(link, link->end_err);
    sim_event(link, event, err, 0);
}

/* ---- packets ---- */

static sim_link_t *link_find(sim_endpoint_t *ep, const sim_packet_t *packet)
{
    for (sim_link_t *link = ep->links; link; link = link->next) {
        if (link->id == packet->link && link->dialer == packet->to_dialer) return link;
    }
    return NULL;
}

static void reset_back(sim_endpoint_t *ep, const sim_packet_t *to, rf_err_t status)
{
    sim_packet_t *packet = sim_packet_take(ep->network);
    if (!packet) return;
    packet->type = SIM_RESET;
    packet->status = (uint8_t)status;
    packet->from = ep->place;
    packet->to = to->from;
    packet->link = to->link;
    packet->to_dialer = !to->to_dialer;
    sim_packet_send(ep->network, packet);
}

static void send_hello(sim_link_t *link, sim_type_t type)
{
    sim_packet_t *packet = sim_link_packet(link, type);
    if (!packet) return;
    packet->hello = link->hello;
    sim_packet_send(sim_endpoint_of(link)->network, packet);
}

static void hello_keep(sim_link_t *link, const rf_hello_t *hello)
{
    link->head.peer = *hello;
    if (link->hello.version_minor < hello->version_minor)
        link->head.peer.version_minor = link->hello.version_minor;
}

static void take_hello(sim_endpoint_t *ep, const sim_packet_t *packet)
{
    sim_link_t *link = link_find(ep, packet);
    if (link) {
        if (link->was_up) send_hello(link, SIM_ANSWER); /* the first answer was lost */
        return;
    }
    if (ep->network->ended[packet->link / 8] & 1u << packet->link % 8) return;
    if (packet->hello.version_major != ep->self.version_major) {
        reset_back(ep, packet, RF_ERR_VERSION);
        return;
    }
    if (memcmp(&packet->hello.machine, &ep->self.machine, sizeof ep->self.machine) != 0) {
        reset_back(ep, packet, RF_ERR_AUTH);
        return;
    }
    rf_err_t err;
    link = sim_link_new(ep, NULL, &err);
    if (!link) {
        reset_back(ep, packet, err);
        return;
    }
    link->id = packet->link;
    link->peer = packet->from;
    link->incoming = true;
    hello_keep(link, &packet->hello);
    sim_event(link, RF_LINK_INCOMING, RF_OK, 0);
}

static void take_close(sim_link_t *link, const sim_packet_t *packet)
{
    if (link->user_closed) { /* both ends closed: neither wants more */
        send_reset(link, RF_ERR_CLOSED);
        bury(link);
        return;
    }
    if (link->rx_received < packet->sequence || link->end_pending)
        return; /* slots before it are still to come */
    link->peer_closed = true;
    link->closed_pending = true;
}

static void take(sim_endpoint_t *ep, const sim_packet_t *packet)
{
    if (packet->type == SIM_HELLO) {
        take_hello(ep, packet);
        return;
    }
    sim_link_t *link = link_find(ep, packet);
    if (!link || link->fenced || link->head.state == RF_LINK_STATE_DEAD) {
        if (packet->type != SIM_RESET)
            reset_back(ep, packet,
                       link && link->fenced                     ? RF_ERR_FENCED
                       : link && link->end_err == RF_ERR_CLOSED ? RF_ERR_CLOSED
                                                                : RF_ERR_PEER_DEAD);
        return;
    }
    link->contact_ns = ep->network->now_ns;
    link->retry_ns = retry_first_ns(link);
    if (packet->type == SIM_RESET) {
        sim_link_end(link, (rf_err_t)packet->status);
        return;
    }
    if (link->head.state == RF_LINK_STATE_CONNECTING) {
        if (packet->type != SIM_ANSWER || !link->dialer) return;
        hello_keep(link, &packet->hello);
        link->was_up = link->up_due = true;
        link->head.state = RF_LINK_STATE_UP;
    } else if (link->head.state == RF_LINK_STATE_BROKEN) {
        link->head.state = RF_LINK_STATE_UP;
        link->up_due = true;
        link->say = true;
        link->sent = link->received;
        if (link->bulk) link->bulk->sent = link->bulk->acked;
    }
    sim_link_settle(link);
    if (link->buried || link->fenced || link->head.state == RF_LINK_STATE_DEAD) return;
    sim_link_take_counts(link, packet);
    if (link->buried || link->fenced) return;
    if (packet->type == SIM_DATA) sim_link_take_data(link, packet);
    if (packet->type == SIM_BULK) sim_bulk_take(link, packet);
    if (packet->type == SIM_CLOSE) take_close(link, packet);
    if (link->buried) return;
    if (!link->closed_pending) sim_link_transmit(link);
    link->timer_ns = RF_NEVER;
    sim_link_timer(link);
}

void sim_inbox(sim_endpoint_t *ep)
{
    if (ep->inside > 1) return; /* a callback polls: the loop below goes on afterwards */
    while (ep->inbox && !sim_inert(ep)) {
        sim_packet_t *packet = ep->inbox;
        ep->inbox = packet->next;
        if (!ep->inbox) ep->inbox_end = &ep->inbox;
        take(ep, packet);
        sim_packet_free(ep->network, packet);
    }
}

/* Nothing was heard in time: everything not acknowledged goes again, more slowly each time. */
static void retry(sim_link_t *link)
{
    sim_endpoint_t *ep = sim_endpoint_of(link);
    uint64_t now_ns = ep->network->now_ns;
    if (!sim_link_waits(link)) {
        link->timer_ns = RF_NEVER;
        return;
    }
    uint64_t silent_ns = now_ns - link->contact_ns;
    if (silent_ns >= ep->deadline_ns) {
        sim_link_end(link, link->was_up ? RF_ERR_PEER_DEAD : RF_ERR_TIMEOUT);
        return;
    }
    if (link->head.state == RF_LINK_STATE_UP && silent_ns >= ep->deadline_ns / 8) {
        link->head.state = RF_LINK_STATE_BROKEN;
        link->stats.broken++;
        link->broken_due = true;
    }
    if (link->head.state == RF_LINK_STATE_CONNECTING) {
        send_hello(link, SIM_HELLO);
    } else if (link->head.state == RF_LINK_STATE_BROKEN) {
        sim_packet_t *packet = sim_link_packet(link, SIM_DATA);
        if (packet) {
            packet->sequence = link->received;
            packet->want = true;
            sim_packet_send(ep->network, packet);
        }
    } else {
        link->sent = link->received;
        if (link->bulk) link->bulk->sent = link->bulk->acked;
        link->say = true;
        if (link->room_wanted != 0 && link->sent == link->slots_head) {
            sim_packet_t *packet = sim_link_packet(link, SIM_DATA);
            if (packet) {
                packet->sequence = link->sent;
                packet->want = true;
                sim_packet_send(ep->network, packet);
            }
        }
        sim_link_transmit(link);
        sim_bulk_transmit(link);
    }
    link->retry_ns *= 2;
    if (link->retry_ns > ep->deadline_ns / 16 && link->retry_ns > 2 * retry_first_ns(link))
        link->retry_ns =
            ep->deadline_ns / 16 > retry_first_ns(link) ? ep->deadline_ns / 16 : retry_first_ns(link);
    link->timer_ns = now_ns + link->retry_ns;
    if (link->timer_ns > link->contact_ns + ep->deadline_ns)
        link->timer_ns = link->contact_ns + ep->deadline_ns;
    if (link->timer_ns <= now_ns) link->timer_ns = now_ns + 1;
}

void sim_endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    sim_endpoint_t *ep = endpoint_of(endpoint);
    (void)now_ns; /* time is the network's */
    *next_ns = RF_NEVER;
    if (sim_inert(ep)) return;
    sim_enter(ep);
    sim_inbox(ep);
    uint64_t now = ep->network->now_ns;
    for (sim_link_t *link = ep->links; link;) {
        bool due = link->up_due || link->broken_due || link->timer_ns <= now;
        bool was_ending = link->end_pending || link->closed_pending;
        if (link->timer_ns <= now) retry(link);
        sim_link_settle(link);
        bool ended = was_ending && !(link->end_pending || link->closed_pending);
        /* A callback may have closed any link: after one ran the walk begins again. Each is due at most once. */
        link = due || ended ? ep->links : link->next;
    }
    ep->timer_ns = RF_NEVER;
    uint64_t at_ns = RF_NEVER;
    for (const sim_link_t *link = ep->links; link; link = link->next)
        at_ns = link->timer_ns < at_ns ? link->timer_ns : at_ns;
    endpoint_timer(ep, at_ns);
    *next_ns = at_ns;
    sim_leave(ep);
}

/* ---- operations ---- */

rf_err_t sim_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    rf_sim_network_t *network = params->medium;
    if (!network || (params->address && (!params->address[0] || strlen(params->address) >= RF_ADDRESS_MAX)))
        return RF_ERR_INVALID;
    if (network->n_endpoints == RF_SIM_ENDPOINTS_MAX) return RF_ERR_LIMIT;
    for (uint16_t i = 0; i < network->n_endpoints && params->address; i++) {
        if (network->endpoints[i] && strcmp(network->endpoints[i]->address, params->address) == 0)
            return RF_ERR_EXISTS;
    }
    sim_endpoint_t *ep = calloc(1, sizeof *ep);
    if (!ep) return RF_ERR_NO_MEMORY;
    ep->head.transport = &rf_transport_sim;
    ep->network = network;
    ep->place = network->n_endpoints++;
    ep->self = params->self;
    ep->on_event = params->on_event;
    ep->context = params->context;
    ep->deadline_ns = params->deadline_ns ? params->deadline_ns : SIM_DEADLINE_NS_DEFAULT;
    ep->inbox_end = &ep->inbox;
    ep->timer_ns = RF_NEVER;
    snprintf(ep->address, sizeof ep->address, "%s", params->address ? params->address : "");
    network->endpoints[ep->place] = ep;
    *out = &ep->head;
    return RF_OK;
}

void sim_endpoint_close(rf_endpoint_t *endpoint)
{
    sim_endpoint_t *ep = endpoint_of(endpoint);
    rf_assert(ep->inside == 0); /* not from a callback */
    sim_enter(ep);
    while (ep->links) {
        if (!ep->crashed) send_reset(ep->links, RF_ERR_PEER_DEAD);
        bury(ep->links);
    }
    sim_leave(ep);
    while (ep->inbox) {
        sim_packet_t *packet = ep->inbox;
        ep->inbox = packet->next;
        sim_packet_free(ep->network, packet);
    }
    ep->network->endpoints[ep->place] = NULL;
    free(ep);
}

rf_err_t sim_endpoint_address(rf_endpoint_t *endpoint, char *out, size_t max)
{
    const sim_endpoint_t *ep = endpoint_of(endpoint);
    if (!ep->address[0]) return RF_ERR_NOT_SUPPORTED;
    if (strlen(ep->address) >= max) return RF_ERR_TRUNCATED;
    snprintf(out, max, "%s", ep->address);
    return RF_OK;
}

int sim_endpoint_fd(rf_endpoint_t *endpoint)
{
    (void)endpoint;
    return -1;
}

rf_err_t sim_connect(rf_endpoint_t *endpoint, const rf_link_params_t *params, rf_link_t **out)
{
    sim_endpoint_t *ep = endpoint_of(endpoint);
    rf_sim_network_t *network = ep->network;
    if (!params->address || !params->address[0]) return RF_ERR_INVALID;
    if (network->links == SIM_LINKS_MAX) return RF_ERR_LIMIT;
    /* A name that nobody has yet gets the last place, where nobody ever is: hellos go unanswered until the deadline. */
    uint16_t peer = RF_SIM_ENDPOINTS_MAX - 1;
    for (uint16_t i = 0; i < network->n_endpoints; i++) {
        if (network->endpoints[i] && strcmp(network->endpoints[i]->address, params->address) == 0) peer = i;
    }
    rf_err_t err;
    sim_link_t *link = sim_link_new(ep, params, &err);
    if (!link) return err;
    link->dialer = true;
    link->id = network->links++;
    link->peer = peer;
    if (!sim_inert(ep)) send_hello(link, SIM_HELLO);
    sim_link_timer(link);
    *out = &link->head;
    return RF_OK;
}

rf_err_t sim_accept(rf_link_t *incoming, const rf_link_params_t *params)
{
    sim_link_t *link = sim_link_of(incoming);
    if (!link->incoming) return RF_ERR_INVALID;
    if (params) {
        rf_err_t err = sim_link_size(link, params);
        if (err != RF_OK) return err;
        if (params->hello) link->hello = *params->hello;
        link->head.user = params->user;
    }
    link->incoming = false;
    link->was_up = link->up_due = true;
    link->head.state = RF_LINK_STATE_UP;
    send_hello(link, SIM_ANSWER);
    sim_endpoint_t *ep = sim_endpoint_of(link);
    endpoint_timer(ep, ep->network->now_ns);
    return RF_OK;
}

void sim_reject(rf_link_t *incoming, rf_err_t why)
{
    sim_link_t *link = sim_link_of(incoming);
    sim_endpoint_t *ep = sim_endpoint_of(link);
    sim_enter(ep);
    send_reset(link, why == RF_OK ? RF_ERR_PERMISSION : why);
    link->head.state = RF_LINK_STATE_DEAD;
    bury(link);
    sim_leave(ep);
}

void sim_fence(rf_link_t *link_head)
{
    sim_link_t *link = sim_link_of(link_head);
    link->fenced = true;
    link->end_pending = link->closed_pending = link->up_due = link->broken_due = false;
    link->delivered = link->rx_received;
    link->head.state = RF_LINK_STATE_DEAD;
    link->timer_ns = RF_NEVER;
    if (link->bulk) {
        link->bulk->notify_head = link->bulk->notify_tail;
        link->bulk->acked = link->bulk->sent = link->bulk->head;
        link->bulk->writes_done = link->bulk->writes; /* the buffers are their owner's again */
    }
    if (!sim_inert(sim_endpoint_of(link))) send_reset(link, RF_ERR_FENCED);
}

void sim_close(rf_link_t *link_head)
{
    sim_link_t *link = sim_link_of(link_head);
    sim_endpoint_t *ep = sim_endpoint_of(link);
    sim_enter(ep);
    bool over = link->head.state == RF_LINK_STATE_DEAD || link->end_pending || link->closed_pending;
    if (!link->was_up || over) {
        if (link->incoming || link->closed_pending) send_reset(link, RF_ERR_CLOSED);
        bury(link);
    } else {
        sim_bulk_fail(link, RF_ERR_CLOSED);
        link->user_closed = true;
        if (!sim_inert(ep)) sim_link_transmit(link);
        link->timer_ns = RF_NEVER;
        sim_link_timer(link);
    }
    sim_leave(ep);
}

const rf_transport_t rf_transport_sim = {
    .abi = RF_TRANSPORT_ABI,
    .name = "sim",
    .flags = RF_TRANSPORT_LOCAL | RF_TRANSPORT_REMOTE_WRITE | RF_TRANSPORT_POLLS_MEMORY,
    .endpoint_open = sim_endpoint_open,
    .endpoint_close = sim_endpoint_close,
    .endpoint_address = sim_endpoint_address,
    .endpoint_fd = sim_endpoint_fd,
    .endpoint_progress = sim_endpoint_progress,
    .connect = sim_connect,
    .accept = sim_accept,
    .reject = sim_reject,
    .room = sim_room,
    .send = sim_send,
    .flush = sim_flush,
    .poll = sim_poll,
    .arm = sim_arm,
    .ready = sim_ready,
    .disarm = sim_disarm,
    .region_create = sim_region_create,
    .region_destroy = sim_region_destroy,
    .remote_write = sim_remote_write,
    .remote_read = rf_missing_remote_read,
    .pass_fds = rf_missing_pass_fds,
    .fence = sim_fence,
    .close = sim_close,
    .stats = sim_stats,
    .peer_credentials = rf_missing_peer_credentials,
};
