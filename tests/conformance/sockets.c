/* What fixtures of media with sockets do to them. */
#include "conformance.h"

#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 1024

bool sockets_garbage(world_t *world, const char *address, const uint8_t *bytes, size_t size)
{
    char host[RF_ADDRESS_MAX];
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *to;
    (void)world;
    assert_non_null(colon);
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    assert_int_equal(getaddrinfo(host, colon + 1, &hints, &to), 0);
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, to->ai_addr, to->ai_addrlen), 0);
    freeaddrinfo(to);
    if (size > 0) (void)!send(fd, bytes, size, MSG_NOSIGNAL);
    close(fd);
    return true;
}

void sockets_reset(void)
{
    for (int fd = 3; fd < DESCRIPTORS_MAX; fd++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0 || peer.ss_family != AF_INET) continue;
        struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
        (void)!connect(fd, &nowhere, sizeof nowhere);
    }
}

void sockets_shut(const pid_t *peers, unsigned n)
{
    for (int fd = 3; fd < DESCRIPTORS_MAX; fd++) {
        struct ucred peer;
        socklen_t size = sizeof peer;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) continue;
        for (unsigned i = 0; i < n; i++) {
            if (peers[i] == peer.pid) shutdown(fd, SHUT_RDWR);
        }
    }
}
