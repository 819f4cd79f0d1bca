/* Wires of the host kernel: UDP and TCP between the two ends of the veth pair, never sleeping. */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT            4711
#define CONNECT_TRIES   200 /* of 10 ms */
#define BUFFER          (4 << 20)
#define RECEIVE_AT_ONCE (64u << 10)

static bool failed(const char *what)
{
    fprintf(stderr, "rf-dpdk-bounce: %s: %s\n", what, strerror(errno));
    return false;
}

static struct sockaddr_in address_of(unsigned side)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    address.sin_addr.s_addr = htonl(0x0aff0001u + side); /* 10.255.0.1 and .2: bounce.c */
    return address;
}

static bool bound(wire_end_t *end, int type)
{
    struct sockaddr_in own = address_of(end->side);
    int size = BUFFER, one = 1;
    end->fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    if (end->fd < 0 || bind(end->fd, (struct sockaddr *)&own, sizeof own) < 0) return failed("socket");
    setsockopt(end->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    setsockopt(end->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    if (type == SOCK_STREAM) setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return true;
}

static bool joined(wire_end_t *end)
{
    struct sockaddr_in other = address_of(!end->side);
    for (unsigned i = 0; i < CONNECT_TRIES; i++) {
        if (connect(end->fd, (struct sockaddr *)&other, sizeof other) == 0) return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return failed("connect");
}

static void fill(uint8_t *bytes, uint64_t number, unsigned messages)
{
    for (unsigned i = 0; i < messages; i++) memcpy(bytes + (size_t)i * WIRE_MESSAGE, &number, sizeof number);
}

/* ---- UDP ---- */

bool wire_udp_open(const wire_t *wire, wire_end_t *end)
{
    (void)wire;
    return bound(end, SOCK_DGRAM) && joined(end);
}

unsigned wire_udp_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages)
{
    uint8_t bytes[WIRE_MESSAGES_MAX * WIRE_MESSAGE] = {0};
    unsigned sent = 0;
    fill(bytes, number, messages);
    while (sent < frames &&
           send(end->fd, bytes, (size_t)messages * WIRE_MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        sent++;
    return sent;
}

unsigned wire_udp_receive(wire_end_t *end)
{
    uint8_t bytes[WIRE_MESSAGES_MAX * WIRE_MESSAGE];
    ssize_t n = recv(end->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < (ssize_t)WIRE_MESSAGE) return 0;
    memcpy(&end->number, bytes, sizeof end->number);
    return (unsigned)n / WIRE_MESSAGE;
}

/* ---- TCP ---- */

bool wire_tcp_open(const wire_t *wire, wire_end_t *end)
{
    (void)wire;
    int one = 1;
    if (!bound(end, SOCK_STREAM)) return false;
    if (end->side == 0) return joined(end);
    if (listen(end->fd, 1) < 0) return failed("listen");
    int fd = accept4(end->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) return failed("accept");
    close(end->fd);
    end->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return true;
}

/* A message that went in part is finished: the stream must not lose step. */
static bool send_whole(int fd, const uint8_t *bytes, size_t size)
{
    ssize_t n = send(fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n <= 0) return false;
    for (size_t sent = (size_t)n; sent<size; sent += n> 0 ? (size_t)n : 0) {
        n = send(fd, bytes + sent, size - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) return false;
    }
    return true;
}

unsigned wire_tcp_send(wire_end_t *end, uint64_t number, unsigned frames, unsigned messages)
{
    uint8_t bytes[WIRE_MESSAGES_MAX * WIRE_MESSAGE] = {0};
    unsigned sent = 0;
    fill(bytes, number, messages);
    while (sent < frames && send_whole(end->fd, bytes, (size_t)messages * WIRE_MESSAGE)) sent++;
    return sent;
}

unsigned wire_tcp_receive(wire_end_t *end)
{
    uint8_t bytes[RECEIVE_AT_ONCE];
    ssize_t n = recv(end->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n <= 0) return 0;
    if (end->got == 0 && n >= (ssize_t)sizeof end->number) memcpy(&end->number, bytes, sizeof end->number);
    unsigned total = end->got + (unsigned)n;
    end->got = total % WIRE_MESSAGE;
    return total / WIRE_MESSAGE;
}
