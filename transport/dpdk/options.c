#include "transport/dpdk/internal.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_MAX 32

static bool net_take(const char *text, dpdk_port_t *port)
{
    char address[INET_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    unsigned long prefix = slash ? strtoul(slash + 1, NULL, 10) : DPDK_PREFIX_DEFAULT;
    bool number = !slash || (slash[1] && strspn(slash + 1, "0123456789") == strlen(slash + 1));
    if (n >= sizeof address || !number || prefix < 1 || prefix > PREFIX_MAX) return false;
    memcpy(address, text, n);
    address[n] = 0;
    port->prefix = (uint8_t)prefix;
    return inet_pton(AF_INET, address, port->ipv4) == 1;
}

static bool word_take(const char *word, dpdk_port_t *port)
{
    size_t n;
    if (strncmp(word, "driver=", 7) == 0) {
        n = strlen(word + 7);
        if (n == 0 || n >= sizeof port->driver || port->driver[0]) return false;
        memcpy(port->driver, word + 7, n + 1);
        return true;
    }
    if (strncmp(word, "net=", 4) == 0) return net_take(word + 4, port);
    port->gateway = true;
    return strcmp(word, "gateway") == 0;
}

/* One port: words with ',' between. NULL, or the word that is wrong. */
static const char *port_take(char *text, dpdk_port_t *port)
{
    for (char *word; (word = strsep(&text, ","));) {
        if (!word_take(word, port)) return word;
    }
    return port->driver[0] ? NULL : "";
}

rf_err_t dpdk_options_parse(const char *text, dpdk_ports_t *out, char *why, size_t why_max)
{
    char copy[RF_DPDK_OPTIONS_MAX], *rest = copy, *port;
    *out = (dpdk_ports_t){.n = 0};
    if (!text || !*text) return RF_OK;
    if (strlen(text) >= sizeof copy) {
        snprintf(why, why_max, "they are longer than %zu bytes", sizeof copy - 1);
        return RF_ERR_CONFIG;
    }
    memcpy(copy, text, strlen(text) + 1);
    while ((port = strsep(&rest, ";"))) {
        if (out->n == RF_DPDK_PORTS_MAX) {
            snprintf(why, why_max, "more than %d ports", RF_DPDK_PORTS_MAX);
            return RF_ERR_CONFIG;
        }
        const char *wrong = port_take(port, &out->all[out->n++]);
        if (!wrong) continue;
        snprintf(
            why, why_max,
            "'%.30s' is no option of a port; write driver=PATH, the socket of its link driver (at most %u "
            "characters), and if wanted ,net=ADDRESS/PREFIX and ,gateway",
            wrong, DPDK_SOCKET_MAX - 1);
        return RF_ERR_CONFIG;
    }
    return RF_OK;
}

/* Frames of this port get to that address without a gateway. A port that says nothing of its network is taken for one of it. */
static bool is_near(const dpdk_port_t *port, const uint8_t ipv4[4])
{
    uint32_t mine, its;
    if (port->prefix == 0) return true;
    memcpy(&mine, port->ipv4, sizeof mine);
    memcpy(&its, ipv4, sizeof its);
    return (ntohl(mine) ^ ntohl(its)) >> (PREFIX_MAX - port->prefix) == 0;
}

static bool is_far(const dpdk_port_t *port, const uint8_t ipv4[4])
{
    (void)ipv4;
    return port->gateway;
}

static bool is_any(const dpdk_port_t *port, const uint8_t ipv4[4])
{
    (void)port, (void)ipv4;
    return true;
}

unsigned dpdk_port_turn(unsigned tries, bool answers)
{
    unsigned turn = tries;
    while (answers && (tries /= 2) > 0) turn += tries;
    return turn;
}

const dpdk_port_t *dpdk_port_pick(const dpdk_ports_t *ports, unsigned turn, const uint8_t *peer)
{
    bool (*const fits[])(const dpdk_port_t *, const uint8_t *) = {is_near, is_far};
    bool (*fit)(const dpdk_port_t *, const uint8_t *) = is_any;
    unsigned n = ports->n;
    for (unsigned i = 0; peer && i < sizeof fits / sizeof *fits; i++) {
        fit = fits[i];
        n = 0;
        for (unsigned j = 0; j < ports->n; j++) n += fit(&ports->all[j], peer);
        if (n > 0) break;
    }
    if (n == 0) return NULL;
    turn %= n;
    for (unsigned i = 0; i < ports->n; i++) {
        if (fit(&ports->all[i], peer) && turn-- == 0) return &ports->all[i];
    }
    return NULL;
}
