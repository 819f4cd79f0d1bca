/* What the TCP fuzzers share: an endpoint that listens on loopback, and raw connections to it. */
#ifndef RF_TESTS_TRANSPORT_TCP_FUZZ_H
#define RF_TESTS_TRANSPORT_TCP_FUZZ_H

#include "base/clock.h"
#include "base/log.h"
#include "transport/tcp/internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FUZZ_TURNS       4 /* of progress and poll after each piece of input */
#define FUZZ_REGION      4096
#define FUZZ_DEADLINE_NS (5 * RF_NS_PER_S)

typedef struct fuzz_end {
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    rf_region_t *region;
} fuzz_end_t;

static inline void fuzz_event(void *context, rf_link_t *link, rf_link_event_t event,
                              const rf_link_event_info_t *info)
{
    fuzz_end_t *end = context;
    (void)info;
    if (event != RF_LINK_INCOMING) return;
    if (end->link) {
        link->transport->reject(link, RF_ERR_LIMIT);
        return;
    }
    end->link = link;
    if (link->transport->accept(link, NULL) != RF_OK) abort();
}

static inline rf_hello_t fuzz_self(void)
{
    rf_hello_t self = {.version_major = RF_VERSION_MAJOR, .version_minor = RF_VERSION_MINOR};
    memset(self.machine.bytes, 0x5a, sizeof self.machine.bytes);
    return self;
}

static inline void fuzz_open(fuzz_end_t *end, const char *address, const uint8_t *key)
{
    rf_log_init("fuzz", RF_LOG_ERROR);
    rf_endpoint_params_t params = {.self = fuzz_self(),
                                   .on_event = fuzz_event,
                                   .context = end,
                                   .address = address,
                                   .key = key,
                                   .key_size = 32,
                                   .deadline_ns = FUZZ_DEADLINE_NS};
    if (rf_transport_tcp.endpoint_open(&params, &end->endpoint) != RF_OK) abort();
}

static inline void fuzz_turn(fuzz_end_t *end)
{
    for (unsigned i = 0; i < FUZZ_TURNS; i++) {
        uint64_t next_ns;
        rf_slot_t slots[8];
        rf_transport_tcp.endpoint_progress(end->endpoint, rf_clock_ns(), &next_ns);
        if (end->link) rf_transport_tcp.poll(end->link, slots, 8);
    }
}

static inline void fuzz_end_link(fuzz_end_t *end)
{
    if (!end->link) return;
    rf_transport_tcp.fence(end->link); /* so that close() frees it at once */
    rf_transport_tcp.close(end->link);
    end->link = NULL;
    end->region = NULL;
}

/* A connection whose end leaves no socket waiting. */
static inline int fuzz_connect(const fuzz_end_t *end)
{
    const tcp_endpoint_t *ep = (const tcp_endpoint_t *)end->endpoint;
    struct sockaddr_storage to;
    socklen_t size;
    struct linger reset = {.l_onoff = 1};
    if (tcp_address_parse(ep->address, &to, &size) != RF_OK) abort();
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, size) < 0) abort();
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return fd;
}

static inline void fuzz_say(int fd, const void *bytes, size_t size)
{
    (void)!send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static inline tcp_hello_t fuzz_hello(uint8_t what)
{
    rf_hello_t self = fuzz_self();
    tcp_hello_t hello = {.version_major = RF_VERSION_MAJOR, .what = what, .link_id = {1, 2, 3}};
    memcpy(hello.magic, TCP_MAGIC, sizeof hello.magic);
    memcpy(hello.machine, self.machine.bytes, sizeof hello.machine);
    return hello;
}

#endif
