/* Who is served: clients, their lists, their ids. See server_internal.h. */
#include "transport/dpdk/driver/server_internal.h"

#include "base/prng.h"

#include <stdlib.h>
#include <unistd.h>

bool user_is_ours(unsigned uid)
{
    return uid == geteuid() || uid == 0;
}

static clients_t *list_of(server_t *server, const client_t *client)
{
    return client->urgent ? &server->urgent : &server->others;
}

static void list_add(server_t *server, client_t *client)
{
    clients_t *list = list_of(server, client);
    client->place = list->n;
    list->all[list->n++] = client;
}

static void list_remove(server_t *server, const client_t *client)
{
    clients_t *list = list_of(server, client);
    client_t *last = list->all[--list->n];
    last->place = client->place;
    list->all[client->place] = last;
}

client_t *client_new(server_t *server, rf_link_t *link)
{
    if (server_clients(server) == SERVER_CLIENTS_MAX) return NULL;
    client_t *client = calloc(1, sizeof *client);
    if (!client) return NULL;
    client->in = calloc(1, sizeof *client->in);
    if (!client->in) {
        free(client);
        return NULL;
    }
    client->link = link;
    client->until_ns = server->now_ns + DEADLINE_NS;
    list_add(server, client);
    return client;
}

void flow_stats_add(rf_flow_stats_t *sum, const rf_flow_stats_t *more)
{
    uint64_t *to = &sum->slots_sent;
    const uint64_t *from = &more->slots_sent;
    for (size_t i = 0; i <= offsetof(rf_flow_stats_t, truncated) / sizeof *to; i++) to[i] += from[i];
}

void client_free(server_t *server, client_t *client)
{
    client_link_drop(client);
    if (client->flow) {
        rf_flow_stats_t stats;
        rf_flow_stats(client->flow, &stats);
        flow_stats_add(&server->counters.flows, &stats);
        rf_flow_close(client->flow);
    }
    if (client->id) server->by_id[client->id % SERVER_CLIENTS_MAX] = NULL;
    server->n_joined -= client->stage == STAGE_JOINED;
    list_remove(server, client);
    free(client->in);
    free(client);
}

void client_link_drop(client_t *client)
{
    rf_link_t *link = client->link;
    client->link = NULL;
    if (!link) return;
    link->user = NULL;
    link->transport->close(link); /* in order: the process polls what is in the ring first */
}

void client_joined(server_t *server, client_t *client)
{
    list_remove(server, client);
    client->urgent = client->lane == PATH_LANE_SLOTS && user_is_ours(client->uid);
    list_add(server, client);
    client->stage = STAGE_JOINED;
    server->n_joined++;
}

void client_end(server_t *server, client_t *client, uint64_t linger_ns)
{
    client_link_drop(client);
    if (client->stage == STAGE_ENDING) return;
    server->n_joined -= client->stage == STAGE_JOINED;
    server->counters.ended++;
    client->until_ns = server->now_ns + linger_ns;
    client->stage = STAGE_ENDING;
}

/* Draws a flow id that no other client has. */
void client_id_draw(server_t *server, client_t *client)
{
    uint32_t random;
    rf_random_secret(&random, sizeof random);
    while (server->by_id[server->ids_from % SERVER_CLIENTS_MAX] || server->ids_from % SERVER_CLIENTS_MAX == 0)
        server->ids_from++;
    client->id = (random & ~(uint32_t)(SERVER_CLIENTS_MAX - 1)) | server->ids_from++ % SERVER_CLIENTS_MAX;
    server->by_id[client->id % SERVER_CLIENTS_MAX] = client;
}

bool client_may_come(const server_t *server, unsigned uid)
{
    uint32_t n = 0, all = server_clients(server);
    if (user_is_ours(uid)) return true;
    for (uint32_t i = 0; i < all; i++) n += server_client(server, i)->uid == uid;
    return n < SERVER_CLIENTS_USER_MAX && all < SERVER_CLIENTS_MAX / 2;
}
