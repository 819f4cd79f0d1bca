/*
 * A peer on a shared-memory link that is written by hand: it says and scribbles what it likes. The other end is a
 * real link, the victim.
 */
#ifndef RF_TESTS_TRANSPORT_SHM_HOSTILE_H
#define RF_TESTS_TRANSPORT_SHM_HOSTILE_H

#include "base/clock.h"
#include "base/os.h"
#include "transport/shm/layout.h"
#include "transport/shm/shm.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOSTILE_SLOTS 64

typedef struct hostile {
    /* The victim. */
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    unsigned ups, ends;
    rf_err_t why;
    /* The peer by hand. */
    int socket;
    int head_fd, ring_fd;
    shm_head_t *head;
    shm_cell_t *ring;
} hostile_t;

static inline void hostile_event(void *context, rf_link_t *link, rf_link_event_t event,
                                 const rf_link_event_info_t *info)
{
    (void)link;
    hostile_t *h = context;
    if (event == RF_LINK_UP) h->ups++;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) {
        h->ends++;
        h->why = info->err;
    }
    for (unsigned i = 0; event == RF_LINK_FDS && i < info->n_fds; i++) close(info->fds[i]);
}

static inline void hostile_progress(hostile_t *h)
{
    uint64_t next;
    rf_transport_shm.endpoint_progress(h->endpoint, rf_clock_ns(), &next);
}

/* The victim's link is made, and has said its hello. False: this host is out of something. */
static inline bool hostile_open(hostile_t *h)
{
    memset(h, 0, sizeof *h);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return false;
    h->socket = pair[1];
    rf_endpoint_params_t params = {.on_event = hostile_event, .context = h, .deadline_ns = 100 * RF_NS_PER_S};
    params.self.version_major = RF_VERSION_MAJOR;
    rf_link_params_t link = {.socket = pair[0], .slots = HOSTILE_SLOTS, .slots_max = 256};
    if (rf_transport_shm.endpoint_open(&params, &h->endpoint) != RF_OK ||
        rf_transport_shm.connect(h->endpoint, &link, &h->link) != RF_OK)
        return false;
    size_t ring_size = HOSTILE_SLOTS * sizeof(shm_cell_t);
    if (rf_memory_create("hostile", sizeof(shm_head_t), &h->head_fd) != RF_OK ||
        rf_memory_create("hostile", ring_size, &h->ring_fd) != RF_OK)
        return false;
    h->head = mmap(NULL, sizeof(shm_head_t), PROT_READ | PROT_WRITE, MAP_SHARED, h->head_fd, 0);
    h->ring = mmap(NULL, ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, h->ring_fd, 0);
    return h->head != MAP_FAILED && h->ring != MAP_FAILED;
}

static inline void hostile_close(hostile_t *h)
{
    rf_transport_shm.endpoint_close(h->endpoint);
    close(h->socket);
    close(h->head_fd);
    close(h->ring_fd);
    munmap(h->head, sizeof(shm_head_t));
    munmap(h->ring, HOSTILE_SLOTS * sizeof(shm_cell_t));
}

static inline shm_side_t hostile_hello(void)
{
    shm_side_t hello = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_HELLO};
    hello.hello.hello.version_major = RF_VERSION_MAJOR;
    hello.hello.ring_slots = HOSTILE_SLOTS;
    return hello;
}

static inline void hostile_say(hostile_t *h, const shm_side_t *message, size_t size, const int *fds,
                               unsigned n_fds)
{
    rf_fd_send(h->socket, message, size, fds, n_fds);
    hostile_progress(h);
}

/* A proper hello and READY: the victim is up. */
static inline void hostile_greet(hostile_t *h)
{
    shm_side_t hello = hostile_hello();
    int fds[] = {h->head_fd, h->ring_fd};
    hostile_say(h, &hello, SHM_SIDE_SIZE(hello), fds, 2);
    shm_side_t ready = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_READY};
    hostile_say(h, &ready, SHM_SIDE_HEAD, NULL, 0);
}

#endif
