/* What a process asks before its slots flow: OPEN, JOIN, STATS (transport/dpdk/local.h). */
#include "transport/dpdk/driver/server_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEARD_A_TURN 64 /* slots of a process that has no flow yet */

static void say(client_t *client, uint8_t type, const void *bytes, size_t size)
{
    rf_message_send(client->link, type, bytes, size); /* a link that says these has room */
    client->link->transport->flush(client->link);
}

static void refuse(server_t *server, client_t *client, rf_err_t why)
{
    dpdk_refused_t refused = {.err = why};
    server->counters.refused++;
    say(client, DPDK_LOCAL_REFUSED, &refused, sizeof refused);
    client_link_drop(client);
}

static void asked_open(server_t *server, client_t *client)
{
    dpdk_open_t open;
    rf_err_t err = dpdk_open_decode(client->in->bytes, client->in->size, &open);
    if (err == RF_OK && server_clients(server) == SERVER_CLIENTS_MAX) err = RF_ERR_LIMIT;
    if (err != RF_OK) {
        refuse(server, client, err);
        return;
    }
    client_id_draw(server, client);
    uint32_t most = user_is_ours(client->uid) ? SERVER_WINDOW : SERVER_WINDOW_USER;
    client->lane = open.lane;
    client->slots = open.slots < most ? open.slots : most;
    if (client->slots < RF_FLOW_SLOTS_MIN) client->slots = RF_FLOW_SLOTS_MIN;
    client->deadline_ns = open.deadline_ns < DEADLINE_NS_MAX ? open.deadline_ns : DEADLINE_NS_MAX;
    client->until_ns = server->now_ns + DEADLINE_NS_MAX;
    const packet_self_t *self = &server->options.self;
    dpdk_opened_t opened = {.format = DPDK_LOCAL_FORMAT,
                            .seal = (uint16_t)server->options.seal,
                            .place = {.driver = server->driver,
                                      .flow = client->id,
                                      .credit = client->slots,
                                      .frame_max = server->frame_max,
                                      .udp_port = self->udp_port}};
    memcpy(opened.place.ipv4, self->ipv4, sizeof opened.place.ipv4);
    memcpy(opened.place.mac, self->mac, sizeof opened.place.mac);
    client->stage = STAGE_OPENED;
    server->counters.opened++;
    say(client, DPDK_LOCAL_OPENED, &opened, sizeof opened);
}

static void asked_join(server_t *server, client_t *client)
{
    dpdk_join_t join;
    rf_err_t err = dpdk_join_decode(client->in->bytes, client->in->size, &join);
    if (err == RF_OK && join.seal < server->options.seal) err = RF_ERR_PERMISSION;
    if (err == RF_OK) {
        rf_flow_params_t params = {.id = client->id,
                                   .id_peer = join.peer.flow,
                                   .dialer = join.dialer,
                                   .seal = (rf_seal_mode_t)join.seal,
                                   .frame_max = join.peer.frame_max < server->frame_max ? join.peer.frame_max
                                                                                        : server->frame_max,
                                   .send_slots = client->slots,
                                   .receive_slots = client->slots,
                                   .credit = join.peer.credit,
                                   .deadline_ns = client->deadline_ns};
        memcpy(params.secret, join.secret, sizeof params.secret);
        err = rf_flow_open(&params, server->now_ns, &client->flow);
        explicit_bzero(&params, sizeof params);
    }
    explicit_bzero(client->in, sizeof *client->in);
    explicit_bzero(join.secret, sizeof join.secret);
    if (err != RF_OK) {
        refuse(server, client, err);
        return;
    }
    client->near = packet_is_near(&server->options.self, join.peer.ipv4);
    client->unsealed = join.seal == RF_SEAL_NONE;
    server->gateway_wanted |= !client->near;
    const uint8_t *mac = client->near ? join.peer.mac : server->gateway_mac;
    packet_head_make(&server->options.self, mac, join.peer.ipv4, join.peer.udp_port, join.peer.flow,
                     client->head);
    free(client->in);
    client->in = NULL;
    client_joined(server, client);
}

static void stat_say(client_t *client, const char *name, uint64_t value)
{
    dpdk_stats_t stat = {.value = value};
    snprintf(stat.name, sizeof stat.name, "%s", name);
    rf_message_send(client->link, DPDK_LOCAL_STATS, &stat, sizeof stat);
}

static void asked_stats(server_t *server, client_t *client)
{
    port_stats_t port;
    port_stats(server->port, &port);
    rf_flow_stats_t flows = server->counters.flows, one;
    for (uint32_t i = 0; i < server_clients(server); i++) {
        const client_t *other = server_client(server, i);
        if (!other->flow) continue;
        rf_flow_stats(other->flow, &one);
        flow_stats_add(&flows, &one);
    }
    client->link->transport->room(client->link, 64);
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {{"link_up", port.up},
               {"mtu", port_mtu(server->port)},
               {"clients", server_clients(server) - 1},
               {"flows_opened", server->counters.opened},
               {"flows_refused", server->counters.refused},
               {"flows_ended", server->counters.ended},
               {"flows_dead", server->counters.dead},
               {"slots_sent", flows.slots_sent},
               {"slots_resent", flows.slots_resent},
               {"slots_received", flows.slots_received},
               {"slots_repeated", flows.slots_repeated},
               {"frames_sent", flows.frames_sent},
               {"frames_received", flows.frames_received},
               {"frames_lost", flows.frames_lost},
               {"frames_spurious", flows.frames_spurious},
               {"acks_sent", flows.acks_sent},
               {"probes_sent", flows.probes_sent},
               {"credit_stalls", flows.credit_stalls},
               {"bytes_sent", flows.bytes_sent},
               {"bytes_received", flows.bytes_received},
               {"frames_forged", flows.forged},
               {"frames_replayed", flows.replayed},
               {"frames_stale", flows.stale},
               {"frames_truncated", flows.truncated},
               {"slots_wrong", server->counters.wrong},
               {"packets_strange", server->counters.strangers},
               {"packets_other", server->counters.others},
               {"packets_segmented", port.rx_segmented},
               {"rx_packets", port.rx_packets},
               {"rx_bursts", port.rx_bursts},
               {"rx_missed", port.rx_missed},
               {"rx_errors", port.rx_errors},
               {"tx_packets", port.tx_packets},
               {"tx_bursts", port.tx_bursts},
               {"tx_stuck", port.tx_stuck},
               {"tx_errors", port.tx_errors},
               {"no_buffers", port.no_buffers}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) stat_say(client, all[i].name, all[i].value);
    for (unsigned i = 0; i < port_queues(server->port); i++) {
        char name[24];
        snprintf(name, sizeof name, "rx_queue_%u", i);
        stat_say(client, name, port.rx_queue[i]);
    }
    client_link_drop(client);
}

static void asked(server_t *server, client_t *client)
{
    uint8_t type = client->in->type;
    if (client->stage == STAGE_ASKED && type == DPDK_LOCAL_OPEN)
        asked_open(server, client);
    else if (client->stage == STAGE_ASKED && type == DPDK_LOCAL_STATS)
        asked_stats(server, client);
    else if (client->stage == STAGE_OPENED && type == DPDK_LOCAL_JOIN)
        asked_join(server, client);
    else
        refuse(server, client, RF_ERR_PROTOCOL);
}

/* A client without a flow: one slot at a time, since those behind JOIN are the flow's. */
bool client_hear(server_t *server, client_t *client)
{
    rf_slot_t slot;
    unsigned heard = 0;
    while (heard < HEARD_A_TURN && client->link && client->in &&
           client->link->transport->poll(client->link, &slot, 1) == 1) {
        rf_err_t err = rf_assembler_feed(client->in, &slot);
        heard++;
        if (err == RF_OK)
            asked(server, client);
        else if (err != RF_ERR_AGAIN)
            refuse(server, client, RF_ERR_PROTOCOL);
    }
    return heard > 0;
}
