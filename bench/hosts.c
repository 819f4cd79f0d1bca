#include "hosts.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/registry.h"
#include "transport/wait.h"

#include <poll.h>
#include <string.h>

#define WAIT_NS_MAX   (20 * RF_NS_PER_S)
#define NAP_MS_MAX    1000
#define LAST_WORDS_NS (50 * RF_NS_PER_MS) /* in which closed links may say what they have to */

static void incoming(hosts_end_t *end, rf_link_t *link)
{
    rf_link_params_t params = {.socket = -1, .slots = HOSTS_RING_SLOTS, .slots_max = HOSTS_RING_SLOTS};
    if (end->n_peers == end->peers_max) {
        link->transport->reject(link, RF_ERR_BUSY);
        return;
    }
    hosts_peer_t *peer = &end->peers[end->n_peers++];
    *peer = (hosts_peer_t){.link = link};
    params.user = peer;
    peer->ended = link->transport->accept(link, &params) != RF_OK;
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    hosts_peer_t *peer = link->user;
    switch (event) {
    case RF_LINK_INCOMING:
        incoming(context, link);
        break;
    case RF_LINK_UP:
        peer->up = true;
        break;
    case RF_LINK_WRITTEN:
        peer->written++;
        peer->refused |= info->err != RF_OK;
        break;
    case RF_LINK_READ:
        peer->read++;
        peer->refused |= info->err != RF_OK;
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        peer->ended = true;
        peer->why = event == RF_LINK_DEAD ? info->err : RF_ERR_CLOSED;
        break;
    default:
        break;
    }
}

rf_err_t hosts_open(hosts_end_t *end, const bench_options_t *options, const char *listen, unsigned peers_max)
{
    char why[512] = "";
    const char *name = options->transport ? options->transport : "tcp";
    *end = (hosts_end_t){.options = options, .peers_max = peers_max, .sleeps = options->events};
    rf_err_t err = rf_transport_find(name, &end->transport, why, sizeof why);
    if (err != RF_OK) {
        fprintf(stderr, "rf-bench: no medium \"%s\": %s\n", name, why);
        return err;
    }
    rf_endpoint_params_t params = {.on_event = on_event, .context = end, .address = listen};
    params.self.version_major = RF_VERSION_MAJOR;
    params.medium = (void *)(uintptr_t)options->medium;
    return end->transport->endpoint_open(&params, &end->endpoint);
}

/* rf_clock_ns(), asked once in a while, and by the processor's ticks between. */
static uint64_t now(hosts_end_t *end)
{
    uint64_t ticks = rf_clock_ticks(), us = (ticks - end->clock_ticks) / rf_clock_ticks_per_us();
    if (end->clock_ns != 0 && us < HOSTS_PROGRESS_US) return end->clock_ns + us * 1000;
    end->clock_ticks = ticks;
    return end->clock_ns = rf_clock_ns();
}

static void progress(hosts_end_t *end)
{
    end->transport->endpoint_progress(end->endpoint, now(end), &end->next_ns);
    end->progress_at = rf_clock_ticks() + HOSTS_PROGRESS_US * rf_clock_ticks_per_us();
}

static int nap_ms(const hosts_end_t *end, uint64_t now_ns)
{
    if (end->next_ns <= now_ns) return 0;
    uint64_t ms = (end->next_ns - now_ns) / RF_NS_PER_MS + 1;
    return ms < NAP_MS_MAX ? (int)ms : NAP_MS_MAX;
}

/* Sleeps until something comes or is due. */
static void nap(hosts_end_t *end)
{
    rf_link_t *links[HOSTS_PEERS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < end->n_peers; i++) {
        if (end->peers[i].link && !end->peers[i].ended) links[n++] = end->peers[i].link;
    }
    if (rf_wait_arm_all(links, n)) {
        struct pollfd fd = {.fd = end->transport->endpoint_fd(end->endpoint), .events = POLLIN};
        poll(&fd, 1, nap_ms(end, now(end)));
        rf_wait_disarm_all(links, n);
    }
    progress(end);
}

rf_err_t hosts_connect(hosts_end_t *end, const char *address)
{
    hosts_peer_t *peer = &end->peers[end->n_peers++];
    rf_link_params_t params = {.address = address,
                               .socket = -1,
                               .slots = HOSTS_RING_SLOTS,
                               .slots_max = HOSTS_RING_SLOTS,
                               .user = peer};
    *peer = (hosts_peer_t){0};
    rf_err_t err = end->transport->connect(end->endpoint, &params, &peer->link);
    uint64_t until_ns = rf_clock_ns() + WAIT_NS_MAX;
    while (err == RF_OK && !peer->up && !peer->ended && rf_clock_ns() < until_ns) nap(end);
    if (err == RF_OK && !peer->up) err = peer->ended ? peer->why : RF_ERR_TIMEOUT;
    if (err != RF_OK) fprintf(stderr, "rf-bench: no link to %s: %s\n", address, rf_err_text(err));
    return err;
}

void hosts_close(hosts_end_t *end)
{
    if (!end->endpoint) return;
    for (unsigned i = 0; i < end->n_peers; i++) {
        if (end->peers[i].link) end->transport->close(end->peers[i].link);
        end->peers[i].ended = true;
    }
    uint64_t until_ns = rf_clock_ns() + LAST_WORDS_NS;
    while (rf_clock_ns() < until_ns) {
        progress(end);
        if (end->next_ns > until_ns) end->next_ns = until_ns;
        nap(end);
    }
    end->transport->endpoint_close(end->endpoint);
}

void hosts_wait(hosts_end_t *end)
{
    if (end->sleeps)
        nap(end);
    else if ((int64_t)(rf_clock_ticks() - end->progress_at) >= 0)
        progress(end);
}

bool hosts_send(hosts_end_t *end, hosts_peer_t *peer, const rf_slot_t *slots, unsigned n)
{
    const rf_transport_t *t = end->transport;
    for (unsigned sent = 0; sent < n && !peer->ended;) {
        unsigned k = t->send(peer->link, slots + sent, n - sent);
        sent += k;
        t->flush(peer->link);
        rf_slot_t none;
        if (k == 0 && t->poll(peer->link, &none, 1) > 0) return false;
        if (k == 0 && (int64_t)(rf_clock_ticks() - end->progress_at) >= 0) progress(end);
    }
    return !peer->ended;
}

bool hosts_receive(hosts_end_t *end, hosts_peer_t *peer, rf_slot_t *out)
{
    while (!peer->ended) {
        if (end->transport->poll(peer->link, out, 1) == 1) return true;
        hosts_wait(end);
    }
    return false;
}

rf_slot_t hosts_slot(uint8_t type)
{
    return (rf_slot_t){.control = rf_control_make(type, RF_SLOT_PAYLOAD, false, 0)};
}
