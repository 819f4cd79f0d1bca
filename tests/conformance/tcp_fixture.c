/* TCP over loopback: plain, or encrypted when built with CONFORMANCE_TLS. */
#include "conformance.h"

#include "transport/tcp/tcp.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 1024

static void tcp_address(world_t *world, char *out)
{
    (void)world;
    snprintf(out, RF_ADDRESS_MAX, "127.0.0.1:0");
}

#ifdef CONFORMANCE_TLS
static void tcp_params(world_t *world, unsigned side, rf_endpoint_params_t *params)
{
    (void)world, (void)side;
    static const uint8_t key[32] = "thirty-two bytes nobody may know";
    params->key = key;
    params->key_size = sizeof key;
}
#endif

/* Every connected TCP socket of this process is reset, and what its queues held is lost. */
static void tcp_break(world_t *world)
{
    (void)world;
    for (int fd = 3; fd < DESCRIPTORS_MAX; fd++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0 || peer.ss_family != AF_INET) continue;
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        (void)!connect(fd, &nowhere, sizeof nowhere);
    }
}

static bool tcp_garbage(world_t *world, const char *address, const uint8_t *bytes, size_t size)
{
    (void)world;
    struct sockaddr_in to = {.sin_family = AF_INET};
    const char *colon = strrchr(address, ':');
    to.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    if (size > 0) (void)!send(fd, bytes, size, MSG_NOSIGNAL);
    close(fd);
    return true;
}

static const fixture_t fixture = {
#ifdef CONFORMANCE_TLS
    .name = "tcp-tls",
    .params = tcp_params,
#else
    .name = "tcp",
#endif
    .transport = &rf_transport_tcp,
    .flags = FIXTURE_BREAKS | FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .address = tcp_address,
    .break_connections = tcp_break,
    .garbage = tcp_garbage,
};

const fixture_t *conformance_fixture = &fixture;
