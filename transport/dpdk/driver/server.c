#include "transport/dpdk/driver/server_internal.h"

#include "base/log.h"
#include "base/prng.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FRAMES_A_TURN 8                    /* of one flow, before the next one's turn */
#define FRAMES_URGENT (PORT_BURST / 2)     /* of all urgent flows in a pass: the others come on too */
#define LINGER_NS     (250 * RF_NS_PER_MS) /* an answer to DPDK_END may be lost, and is asked for again */
#define STALL_NS      RF_NS_PER_MS /* a look at a process that may want to say more than its window takes */
#define ASK_NS        RF_NS_PER_S  /* between two ARP questions for the gateway */
#define ARP_A_TURN    2            /* answers: a flood of questions leaves the port to the flows */

static unsigned frame_max(const port_t *port)
{
    unsigned size = port_mtu(port) - PACKET_IP_MTU;
    return size < RF_FLOW_FRAME_MAX ? size : RF_FLOW_FRAME_MAX;
}

/* --- slots -------------------------------------------------------------------------------------------------- */

/* From the ring of the process straight into the send window. What does not stand side by side there comes in the next turn. */
static unsigned slots_out(client_t *client)
{
    rf_slot_t *slots;
    unsigned room = rf_flow_send_span(client->flow, &slots);
    unsigned n = room > 0 ? client->link->transport->poll(client->link, slots, room) : 0;
    rf_flow_send_commit(client->flow, n);
    return n;
}

static bool slot_right(uint64_t control)
{
    uint8_t type = rf_control_type(control);
    return rf_control_valid(control) && (type < RF_SLOT_TYPE_MEDIUM || type >= RF_SHM_RELAYED);
}

/* How many of `n` slots go to the process: those before DPDK_END, and before one that no link may carry. */
static unsigned slots_right(const rf_slot_t *slots, unsigned n)
{
    unsigned i = 0;
    while (i < n && slot_right(slots[i].control) && rf_control_type(slots[i].control) != DPDK_END) i++;
    return i;
}

/* From the receive window straight into the ring to the process. What does not stand side by side, or finds the ring full, goes in the next
 * turn. */
static unsigned slots_in(server_t *server, client_t *client)
{
    const rf_slot_t *slots;
    unsigned n = rf_flow_take_span(client->flow, &slots), right = slots_right(slots, n);
    unsigned taken = right > 0 ? client->link->transport->send(client->link, slots, right) : 0;
    if (rf_unlikely(right < n && taken == right)) {
        if (!slot_right(slots[right].control)) server->counters.wrong++;
        client_end(server, client, LINGER_NS);
    }
    client->came = rf_flow_take_commit(client->flow, taken);
    if (taken > 0 && client->link) {
        client->link->transport->flush(client->link);
        client->fed = true;
    }
    return taken;
}

/* The process is gone: what still comes for it is nobody's. */
static void slots_discard(client_t *client)
{
    const rf_slot_t *slots;
    unsigned n;
    while ((n = rf_flow_take_span(client->flow, &slots)) > 0) rf_flow_take_commit(client->flow, n);
}

static void end_put(client_t *client)
{
    rf_slot_t *slot;
    if (!client->end_due || rf_flow_send_span(client->flow, &slot) == 0) return;
    *slot = (rf_slot_t){.control = rf_control_make(DPDK_END, 0, false, 0)};
    rf_flow_send_commit(client->flow, 1);
    client->end_due = false;
}

/* --- frames ------------------------------------------------------------------------------------------------- */

/* What a flow says last in a turn, that there is nothing more, it says in the next: the frames leave before. To a gateway that is
 * asked for, they go where it was, and count for the flow's deadline. True: some go. */
rf_hot static inline bool frames_out(server_t *server, client_t *client)
{
    unsigned n = 0;
    uint64_t next_ns = rf_flow_next_ns(client->flow);
    for (size_t size = RF_FLOW_FRAME_MIN; size >= RF_FLOW_FRAME_MIN && n < FRAMES_A_TURN; n++) {
        if (next_ns > server->now_ns || server->frames_left == 0 || !port_tx_room(server->port)) break;
        uint8_t *bytes = port_tx_next(server->port);
        size = rf_flow_transmit(client->flow, bytes + PACKET_HEAD, server->frame_max, server->now_ns);
        next_ns = rf_flow_next_ns(client->flow);
        if (size == 0) break;
        memcpy(bytes, client->head, PACKET_HEAD);
        port_tx_put(server->port, size, true, client->unsealed);
        server->frames_left--;
    }
    client->next_ns = next_ns;
    return n > 0;
}

static void arp_take(server_t *server, const packet_t *packet)
{
    if (packet->kind == PACKET_ARP_ASKED) {
        if (server->arp_left == 0 || !port_tx_room(server->port)) return;
        server->arp_left--;
        packet_arp_answer(&server->options.self, packet, port_tx_next(server->port));
        port_tx_put(server->port, PACKET_ARP, false, false);
        return;
    }
    if (!server->gateway_wanted || server->gateway_known ||
        memcmp(packet->ipv4, server->options.self.gateway, 4) != 0)
        return;
    memcpy(server->gateway_mac, packet->mac, PACKET_MAC);
    server->gateway_known = true;
    for (uint32_t i = 0; i < server_clients(server); i++) {
        client_t *client = server_client(server, i);
        if (client->flow && !client->near) memcpy(client->head, packet->mac, PACKET_MAC);
    }
}

static void gateway_ask(server_t *server)
{
    static const uint8_t none[4];
    if (!server->gateway_wanted || server->gateway_known || server->now_ns < server->ask_ns) return;
    server->ask_ns = server->now_ns + ASK_NS;
    if (memcmp(server->options.self.gateway, none, sizeof none) == 0) {
        if (rf_log_once_per(&server->log_ns, LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "a peer is outside of this port's network, and no --gateway is given");
        return;
    }
    if (!port_tx_room(server->port)) return;
    packet_arp_ask(&server->options.self, server->options.self.gateway, port_tx_next(server->port));
    port_tx_put(server->port, PACKET_ARP, false, false);
}

/* Whose flow a packet is of, if it is of one at all. */
static client_t *client_of(const server_t *server, const uint8_t *frame, size_t size)
{
    uint32_t id;
    client_t *client = rf_frame_flow(frame, size, &id) ? server->by_id[id % SERVER_CLIENTS_MAX] : NULL;
    return client && client->id == id ? client : NULL;
}

/* A flow's next packet mostly has the headers of the one before, which need not be read again. NULL: it has not. */
static client_t *packet_again(const server_t *server, uint8_t *bytes, size_t size)
{
    client_t *client = size > PACKET_HEAD ? client_of(server, bytes + PACKET_HEAD, size - PACKET_HEAD) : NULL;
    bool same = client && client->came_size > 0 && size >= PACKET_HEAD + (size_t)client->came_size &&
                packet_is_same(bytes, client->came_head);
    return same ? client : NULL;
}

/* The client whose flow's frame is in a packet, or NULL. */
static client_t *packet_take(server_t *server, uint8_t *bytes, size_t size, bool checked)
{
    packet_t packet;
    if (packet_read(&server->options.self, bytes, size, checked, &packet) != PACKET_FLOW) {
        if (packet.kind == PACKET_OTHER)
            server->counters.others++;
        else
            arp_take(server, &packet);
        return NULL;
    }
    client_t *client = client_of(server, packet.frame, packet.size);
    /* The other end's first frame may come before this turn has heard that the flow is joined. */
    if (client && !client->flow) client_hear(server, client);
    if (!client || !client->flow) {
        server->counters.strangers++;
        return NULL;
    }
    memcpy(client->came_head, bytes, sizeof client->came_head);
    client->came_size = (uint16_t)packet.size;
    return client;
}

rf_hot void server_packet(void *context, uint8_t *bytes, size_t size, bool checked)
{
    server_t *server = context;
    client_t *client = packet_again(server, bytes, size);
    if (rf_unlikely(!client)) client = packet_take(server, bytes, size, checked);
    if (rf_unlikely(!client)) return;
    client->came = true;
    rf_flow_receive_since(client->flow, bytes + PACKET_HEAD, client->came_size, server->since_ns,
                          server->now_ns);
}

/* --- the turn ----------------------------------------------------------------------------------------------- */

/* Nothing is left to do for it. */
static bool client_over(const server_t *server, const client_t *client)
{
    if (client->stage == STAGE_ENDING && client->flow) {
        if (rf_flow_state(client->flow) != RF_OK) return true;
        bool drained = client->gone && !client->end_due && rf_flow_drained(client->flow);
        return drained || server->now_ns >= client->until_ns;
    }
    if (!client->link) return true;
    return !client->flow && (client->gone || server->now_ns >= client->until_ns);
}

static void flow_check(server_t *server, client_t *client)
{
    rf_err_t err = rf_flow_state(client->flow);
    if (err == RF_OK || client->stage != STAGE_JOINED) return;
    server->counters.dead++;
    if (!client->near) server->gateway_known = false; /* it may have moved: it is asked for again */
    if (rf_log_once_per(&server->log_ns, LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "a flow to %u.%u.%u.%u ends: %s", client->head[PACKET_IP + 16],
               client->head[PACKET_IP + 17], client->head[PACKET_IP + 18], client->head[PACKET_IP + 19],
               rf_err_text(err));
    client_end(server, client, 0);
}

static void process_gone(server_t *server, client_t *client)
{
    if (!client->near && !rf_flow_drained(client->flow)) server->gateway_known = false;
    client->end_due = true;
    client_end(server, client, client->deadline_ns);
}

/* One that is not, or no longer, joined. True: something moved. */
static bool client_turn_else(server_t *server, client_t *client)
{
    if (!client->flow) return client_hear(server, client);
    slots_discard(client);
    if (client->end_due) end_put(client);
    return frames_out(server, client);
}

/* True: something moved. */
static bool client_turn(server_t *server, client_t *client)
{
    if (rf_unlikely(client->stage != STAGE_JOINED)) return client_turn_else(server, client);
    bool came = client->came, moved = false;
    if (came) {
        moved = slots_in(server, client) > 0;
        if (client->stage != STAGE_JOINED) return true;
    }
    bool out = slots_out(client) > 0;
    if (rf_unlikely(client->gone)) {
        process_gone(server, client);
        return true;
    }
    if (!came && !out && client->next_ns > server->now_ns) return false;
    if (frames_out(server, client)) return true;
    flow_check(server, client); /* one that is over sends nothing */
    return moved || out;
}

void server_turn(server_t *server, uint64_t now_ns)
{
    server->since_ns = server->turn_ns;
    server->now_ns = server->turn_ns = now_ns;
    server->arp_left = ARP_A_TURN;
}

/* True: something moved. The next pass goes on where this one could send no more. */
rf_hot static bool list_turn(server_t *server, clients_t *list, unsigned frames)
{
    uint32_t n = list->n, at = list->first < n ? list->first : 0, i;
    bool moved = false;
    server->frames_left = frames;
    for (i = 0; i < n && server->frames_left > 0; i++) {
        moved |= client_turn(server, list->all[at]);
        at = at + 1 < n ? at + 1 : 0;
    }
    list->first = i < n ? at : at + 1;
    return moved;
}

bool server_pass(server_t *server)
{
    bool moved = list_turn(server, &server->urgent, FRAMES_URGENT);
    if (server->others.n > 0)
        moved |= list_turn(server, &server->others, PORT_BURST - FRAMES_URGENT + server->frames_left);
    uint32_t n = server_clients(server);
    for (uint32_t i = server->n_joined < n ? n : 0; i > 0; i--) {
        client_t *client = server_client(server, i - 1);
        if (client_over(server, client)) client_free(server, client);
    }
    if (server->gateway_wanted) gateway_ask(server);
    return moved;
}

bool server_woke(server_t *server)
{
    bool woke = false;
    for (uint32_t i = 0; i < server_clients(server); i++) {
        client_t *client = server_client(server, i);
        rf_link_stats_t stats;
        if (!client->fed || !client->link) continue;
        client->fed = false;
        client->link->transport->stats(client->link, &stats);
        woke |= stats.wakeups_sent != client->woken;
        client->woken = stats.wakeups_sent;
    }
    return woke;
}

/* --- links -------------------------------------------------------------------------------------------------- */

static void incoming(server_t *server, rf_link_t *link)
{
    int pid = 0;
    unsigned uid = 0;
    rf_err_t err = link->transport->peer_credentials(link, &pid, &uid);
    if (err == RF_OK && !client_may_come(server, uid)) err = RF_ERR_LIMIT;
    client_t *client = err == RF_OK ? client_new(server, link) : NULL;
    if (err == RF_OK && !client) err = RF_ERR_LIMIT;
    if (!client) {
        if (rf_log_once_per(&server->log_ns, LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "process %d of user %u is turned away: %s%s", pid, uid, rf_err_text(err),
                   err == RF_ERR_LIMIT ? " (of flows, of this user or of all together)" : "");
        link->transport->reject(link, err);
        return;
    }
    client->uid = uid;
    rf_link_params_t params = {.socket = -1, .user = client};
    if (link->transport->accept(link, &params) != RF_OK) client->gone = true;
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)info;
    client_t *client = link->user;
    if (event == RF_LINK_INCOMING)
        incoming(context, link);
    else if (client && (event == RF_LINK_CLOSED || event == RF_LINK_DEAD))
        client->gone = true;
}

void server_progress(server_t *server, uint64_t now_ns, uint64_t *next_ns)
{
    server->now_ns = now_ns;
    server->endpoint->transport->endpoint_progress(server->endpoint, now_ns, next_ns);
}

static uint64_t client_next(const server_t *server, client_t *client)
{
    if (!client->flow) return client->until_ns;
    uint64_t at = rf_flow_next_ns(client->flow);
    if (!client->near && !server->gateway_known && server->ask_ns < at) at = server->ask_ns;
    if (client->stage == STAGE_ENDING && client->until_ns < at) at = client->until_ns;
    if (client->stalled && server->now_ns + STALL_NS < at) at = server->now_ns + STALL_NS;
    return at;
}

/* Slots wait for a process whose ring was full: again, since a poll behind that may have been told that there is room, which is said once
 * (transport/shm). True: some go, and the next turn does the rest. */
static bool slots_go(server_t *server, client_t *client)
{
    if (!client->came || client->stage != STAGE_JOINED) return false;
    return slots_in(server, client) > 0 || client->stage != STAGE_JOINED;
}

/* The process has something for the driver. While the window is full it may have, and waits for frames. */
static bool client_ready(client_t *client)
{
    if (client->stage == STAGE_ENDING || client->stalled) return false;
    return client->gone || client->link->transport->ready(client->link);
}

bool server_arm(server_t *server, uint64_t *next_ns)
{
    bool idle = true;
    rf_slot_t *slots;
    uint32_t n = server_clients(server);
    for (uint32_t i = 0; i < n; i++) {
        client_t *client = server_client(server, i);
        idle &= !slots_go(server, client);
        client->stalled = client->flow && !client->gone && rf_flow_send_span(client->flow, &slots) == 0;
        if (client->link) client->link->transport->arm(client->link);
        uint64_t at = client_next(server, client);
        *next_ns = at < *next_ns ? at : *next_ns;
    }
    rf_full_fence();
    for (uint32_t i = 0; i < n && idle; i++) idle = !client_ready(server_client(server, i));
    return idle;
}

void server_disarm(server_t *server)
{
    for (uint32_t i = 0; i < server_clients(server); i++) {
        rf_link_t *link = server_client(server, i)->link;
        if (link) link->transport->disarm(link);
    }
}

int server_fd(server_t *server)
{
    return server->endpoint->transport->endpoint_fd(server->endpoint);
}

rf_err_t server_open(const server_options_t *options, port_t *port, server_t **out)
{
    server_t *server = calloc(1, sizeof *server);
    if (!server) return RF_ERR_NO_MEMORY;
    server->options = *options;
    server->port = port;
    server->frame_max = frame_max(port);
    rf_random_secret(&server->driver, sizeof server->driver);
    rf_random_secret(&server->ids_from, sizeof server->ids_from);
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .version_minor = RF_VERSION_MINOR},
        .on_event = on_event,
        .context = server,
        .address = options->socket,
        .medium = (void *)(uintptr_t)RF_SHM_RELAY};
    const rf_transport_t *transport = options->transport ? options->transport : &rf_transport_shm;
    rf_err_t err = transport->endpoint_open(&params, &server->endpoint);
    if (err != RF_OK) {
        free(server);
        return err;
    }
    if (options->socket && chmod(options->socket, 0666) != 0) /* who may come is up to its folder */
        rf_log(RF_LOG_WARN, "%s: other users' domains cannot come: %m", options->socket);
    *out = server;
    return RF_OK;
}

void server_close(server_t *server)
{
    while (server_clients(server) > 0) client_free(server, server_client(server, server_clients(server) - 1));
    server->endpoint->transport->endpoint_close(server->endpoint);
    explicit_bzero(server, sizeof *server);
    free(server);
}
