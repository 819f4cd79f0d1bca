/* The raw limits of TCP: bare sockets on loopback, spinning on both sides. */
#include "raw.h"

#include "pair.h"

#include "base/clock.h"
#include "base/memory.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WARM_UP     1000 /* rounds before the first that counts */
#define RECEIVE_MAX (256u << 10)

typedef struct pingpong {
    int first, second;
    int wait; /* MSG_DONTWAIT: spins; 0: sleeps in recv() */
    unsigned rounds;
    bench_samples_t *out;
} pingpong_t;

static bool spin_send(int fd, const uint8_t bytes[64])
{
    ssize_t n;
    do {
        n = send(fd, bytes, 64, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && (errno == EAGAIN || errno == EINTR));
    return n == 64;
}

static bool receive(int fd, int wait, uint8_t bytes[64])
{
    size_t got = 0;
    while (got < 64) {
        ssize_t n = recv(fd, bytes + got, 64 - got, wait);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n > 0) got += (size_t)n;
    }
    return true;
}

static void pingpong_first(void *context)
{
    pingpong_t *p = context;
    uint8_t bytes[64] = {0};
    double half = bench_ns_per_tick() / 2;
    for (unsigned i = 0; i < p->rounds; i++) {
        uint64_t before = rf_clock_ticks();
        if (!spin_send(p->first, bytes) || !receive(p->first, p->wait, bytes)) return;
        if (i >= WARM_UP) bench_samples_add(p->out, (double)(rf_clock_ticks() - before) * half);
    }
}

static void pingpong_second(void *context)
{
    pingpong_t *p = context;
    uint8_t bytes[64];
    for (unsigned i = 0; i < p->rounds; i++) {
        if (!receive(p->second, p->wait, bytes) || !spin_send(p->second, bytes)) return;
    }
}

/* Two connected sockets on loopback. */
static bool tcp_pair(int *first, int *second)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    *first = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *second = -1;
    bool ok = listener >= 0 && *first >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 &&
              listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &size) == 0 &&
              connect(*first, (struct sockaddr *)&address, size) == 0 &&
              (*second = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0 &&
              setsockopt(*first, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0 &&
              setsockopt(*second, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0;
    if (!ok) fprintf(stderr, "rf-bench: no TCP on loopback: %s\n", strerror(errno));
    if (listener >= 0) close(listener);
    if (!ok && *first >= 0) close(*first);
    if (!ok && *second >= 0) close(*second);
    return ok;
}

static bool pingpong(const unsigned cores[2], int wait, unsigned rounds, bench_samples_t *out)
{
    pingpong_t p = {.wait = wait, .rounds = rounds + WARM_UP, .out = out};
    if (!tcp_pair(&p.first, &p.second)) return false;
    bool ok = bench_pair_run(cores, pingpong_first, pingpong_second, &p);
    close(p.first);
    close(p.second);
    return ok;
}

bool raw_tcp_pingpong(const unsigned cores[2], unsigned rounds, bench_samples_t *out)
{
    return pingpong(cores, MSG_DONTWAIT, rounds, out);
}

bool raw_tcp_blocking(const unsigned cores[2], unsigned rounds, bench_samples_t *out)
{
    return pingpong(cores, 0, rounds, out);
}

/* ---- stream ---- */

typedef struct flood {
    int first, second;
    uint8_t *out_bytes, *in_bytes;
    size_t send_size, chunk;
    unsigned chunks;
    bench_samples_t *out;
} flood_t;

static void flood_sender(void *context)
{
    flood_t *f = context;
    size_t total = f->chunk * f->chunks, sent = 0;
    while (sent < total) {
        size_t left = total - sent, at = sent % f->send_size;
        size_t size = f->send_size - at < left ? f->send_size - at : left;
        ssize_t n = send(f->first, f->out_bytes + at, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += (size_t)n;
        if (n < 0 && errno != EAGAIN && errno != EINTR) return;
    }
}

static void flood_receiver(void *context)
{
    flood_t *f = context;
    double ns_per_tick = bench_ns_per_tick();
    size_t total = f->chunk * f->chunks, got = 0, mark = f->chunk, begun = 0;
    uint64_t before = rf_clock_ticks();
    while (got < total) {
        ssize_t n = recv(f->second, f->in_bytes, RECEIVE_MAX, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return;
        if (n > 0) got += (size_t)n;
        if (got < mark) continue;
        uint64_t now = rf_clock_ticks();
        if (begun > 0)
            bench_samples_add(f->out, (double)(got - begun) / ((double)(now - before) * ns_per_tick));
        before = now;
        begun = got;
        mark += f->chunk;
    }
}

bool raw_tcp_stream(const unsigned cores[2], size_t send_size, size_t chunk, unsigned chunks,
                    bench_samples_t *out)
{
    flood_t f = {.send_size = send_size, .chunk = chunk, .chunks = chunks + 1, .out = out};
    if (!tcp_pair(&f.first, &f.second)) return false;
    f.out_bytes = calloc(1, send_size);
    f.in_bytes = calloc(1, RECEIVE_MAX);
    bool ok = f.out_bytes && f.in_bytes && bench_pair_run(cores, flood_sender, flood_receiver, &f);
    free(f.out_bytes);
    free(f.in_bytes);
    close(f.first);
    close(f.second);
    return ok;
}
