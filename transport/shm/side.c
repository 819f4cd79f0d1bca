/*
 * The side socket: hello, growth, regions, descriptors, wake-ups of epoll waiters, and the end of the peer. Every
 * message is hostile until checked; what is wrong ends the link with RF_ERR_PROTOCOL.
 */
#include "internal.h"

#include "base/log.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

static shm_side_t message(shm_side_type_t type)
{
    return (shm_side_t){.magic = SHM_SIDE_MAGIC, .type = (uint16_t)type};
}

static void close_fd(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ---- saying ---- */

rf_err_t shm_side_hello(shm_link_t *link)
{
    const rf_doorbell_t *doorbell = link->endpoint->params.doorbell;
    bool futex = doorbell != NULL;
    shm_side_t hello = message(SHM_SIDE_HELLO);
    hello.hello.hello = link->self;
    hello.hello.ring_slots = link->out_slots;
    hello.hello.doorbell = futex ? SHM_BELL_FUTEX : 0;
    int fds[3] = {link->head_fd, link->ring_fd, futex ? doorbell->fd : -1};
    rf_err_t err = rf_fd_send(link->side, &hello, SHM_SIDE_SIZE(hello), fds, futex ? 3 : 2);
    close_fd(&link->head_fd);
    close_fd(&link->ring_fd);
    return err;
}

rf_err_t shm_side_ready(shm_link_t *link)
{
    shm_side_t ready = message(SHM_SIDE_READY);
    return rf_fd_send(link->side, &ready, SHM_SIDE_HEAD, NULL, 0);
}

void shm_side_reject(int socket, rf_err_t why)
{
    shm_side_t reject = message(SHM_SIDE_REJECT);
    reject.reject.err = why;
    rf_fd_send(socket, &reject, SHM_SIDE_SIZE(reject), NULL, 0);
}

void shm_side_bell(shm_link_t *link)
{
    /* A full socket is readable already, and a dead peer needs no waking. */
    shm_side_t bell = message(SHM_SIDE_BELL);
    rf_fd_send(link->side, &bell, SHM_SIDE_HEAD, NULL, 0);
}

rf_err_t shm_side_grow(shm_link_t *link, uint32_t slots, int fd)
{
    shm_side_t grow = message(SHM_SIDE_GROW);
    grow.grow.ring_slots = slots;
    return rf_fd_send(link->side, &grow, SHM_SIDE_SIZE(grow), &fd, 1);
}

rf_err_t shm_side_region(shm_link_t *link, uint64_t id, uint64_t size, int fd)
{
    shm_side_t region = message(SHM_SIDE_REGION);
    region.region.id = id;
    region.region.size = size;
    return rf_fd_send(link->side, &region, SHM_SIDE_SIZE(region), &fd, 1);
}

void shm_side_drop(shm_link_t *link, uint64_t id)
{
    shm_side_t drop = message(SHM_SIDE_DROP);
    drop.region.id = id;
    rf_fd_send(link->side, &drop, SHM_SIDE_SIZE(region), NULL, 0);
}

rf_err_t shm_side_fds(shm_link_t *link, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
    shm_side_t pass = message(SHM_SIDE_FDS);
    pass.fds.size = (uint32_t)size;
    if (size > 0) memcpy(pass.fds.bytes, bytes, size);
    return rf_fd_send(link->side, &pass, SHM_SIDE_SIZE(fds), fds, n_fds);
}

/* ---- hearing ---- */

/* A ring is only ever read here, and still mapped to be written: an AMD core that polls a line through a read-only
 * mapping gets it 17 ns later, of 53 (doc/adr/0008). Nothing rests on it: a sender never reads its ring,
 * so a peer that wrote there would only change what it itself will read. */
#define RING_PROTECTION (PROT_READ | PROT_WRITE)

/* A relay serves strangers: their rings are mapped, and paid for, here. */
static bool slots_plausible(const shm_link_t *link, uint32_t slots)
{
    uint32_t max = link->endpoint->relays ? SHM_RELAY_SLOTS_MAX : RF_RING_SLOTS_MAX;
    return slots >= RF_RING_SLOTS_MIN && slots <= max && (slots & (slots - 1)) == 0;
}

/* Maps an object of the peer's; NULL when it is not what it should be. */
static const void *map_peer(int fd, size_t size, int protection)
{
    if (rf_memory_check(fd, size) != RF_OK) return NULL;
    void *memory = mmap(NULL, size, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* A process that does not know its machine yet says zeros. That is believed only over a socket pair, which somebody
 * handed to just these two. */
static bool machines_agree(const rf_machine_id_t *self, const rf_machine_id_t *peer, bool socket_pair)
{
    static const rf_machine_id_t unknown;
    if (memcmp(peer, self, sizeof *self) == 0) return true;
    return socket_pair &&
           (memcmp(peer, &unknown, sizeof unknown) == 0 || memcmp(self, &unknown, sizeof unknown) == 0);
}

static rf_err_t judge(const shm_link_t *link, const rf_hello_t *peer)
{
    if (peer->version_major != link->self.version_major) return RF_ERR_VERSION;
    bool socket_pair = link->phase == SHM_GREETING && !link->address[0];
    return machines_agree(&link->self.machine, &peer->machine, socket_pair) ? RF_OK : RF_ERR_AUTH;
}

static void hear_hello(shm_link_t *link, const shm_side_t *m, int *fds, unsigned n_fds)
{
    if (link->phase != SHM_ARRIVED && link->phase != SHM_GREETING) {
        shm_protocol_error(link, "a second hello");
        return;
    }
    rf_err_t err = judge(link, &m->hello.hello);
    if (err != RF_OK) {
        if (rf_log_once_per(&link->endpoint->logged_ns, RF_NS_PER_S))
            rf_log(RF_LOG_WARN, "shm: process %d is refused: %s", link->peer_pid, rf_err_text(err));
        shm_side_reject(link->side, err);
        shm_end(link, err);
        return;
    }
    bool futex = m->hello.doorbell == SHM_BELL_FUTEX;
    if (!slots_plausible(link, m->hello.ring_slots) || (!futex && m->hello.doorbell != 0) ||
        n_fds != (futex ? 3u : 2u)) {
        shm_protocol_error(link, "a malformed hello");
        return;
    }
    const shm_head_t *head = map_peer(fds[0], sizeof(shm_head_t), PROT_READ);
    if (!head) {
        shm_protocol_error(link, "its head is no sealed memory of the right size");
        return;
    }
    link->out.peer_head = head;
    const shm_cell_t *cells =
        map_peer(fds[1], (size_t)m->hello.ring_slots * sizeof(shm_cell_t), RING_PROTECTION);
    if (!cells) {
        shm_protocol_error(link, "its ring is no sealed memory of the right size");
        return;
    }
    link->next_cells = cells; /* until the link is up: before that nothing is polled */
    link->next_slots = m->hello.ring_slots;
    if (futex) {
        if (rf_doorbell_adopt(fds[2], &link->peer_doorbell) != RF_OK) {
            shm_protocol_error(link, "its doorbell is no sealed memory of the right size");
            return;
        }
        fds[2] = -1;
        link->peer_bell = SHM_BELL_FUTEX;
    }
    link->base.peer = m->hello.hello;
    if (link->self.version_minor < link->base.peer.version_minor)
        link->base.peer.version_minor = link->self.version_minor;

    if (link->phase == SHM_ARRIVED) {
        link->phase = SHM_OFFERED;
        link->endpoint->n_arrived--;
        shm_settle(link, false); /* the owner may take its time; the peer has a deadline of its own */
        shm_event(link, RF_LINK_INCOMING, &(rf_link_event_info_t){.hello = &link->base.peer});
    } else {
        link->phase = SHM_MAPPED;
        err = shm_side_ready(link);
        if (err == RF_ERR_CLOSED)
            return; /* the end of the stream comes next, behind what the peer still said */
        if (err != RF_OK) shm_end(link, err);
    }
}

static void hear_grow(shm_link_t *link, const shm_side_t *m, const int *fds, unsigned n_fds)
{
    if (n_fds != 1 || link->next_cells || !slots_plausible(link, m->grow.ring_slots) ||
        m->grow.ring_slots <= link->in_slots) {
        shm_protocol_error(link, "a malformed growth of its ring");
        return;
    }
    link->next_cells = map_peer(fds[0], (size_t)m->grow.ring_slots * sizeof(shm_cell_t), RING_PROTECTION);
    link->next_slots = m->grow.ring_slots;
    if (!link->next_cells) shm_protocol_error(link, "its ring is no sealed memory of the right size");
}

static void hear_fds(shm_link_t *link, const shm_side_t *m, int *fds, unsigned n_fds)
{
    if (m->fds.size > SHM_FDS_BYTES_MAX) {
        shm_protocol_error(link, "a malformed passing of descriptors");
        return;
    }
    int passed[RF_FDS_PER_MESSAGE_MAX];
    memcpy(passed, fds, sizeof passed);
    for (unsigned i = 0; i < n_fds; i++) fds[i] = -1;
    rf_link_event_info_t info = {.bytes = m->fds.bytes, .size = m->fds.size, .fds = passed, .n_fds = n_fds};
    if (link->endpoint->params.on_event) {
        shm_event(link, RF_LINK_FDS, &info);
        return;
    }
    for (unsigned i = 0; i < n_fds; i++) close(passed[i]);
}

/* The exact size of a message of each type; 0: there is none. */
static size_t message_size(unsigned type)
{
    switch (type) {
    case SHM_SIDE_HELLO:
        return SHM_SIDE_SIZE(hello);
    case SHM_SIDE_READY:
    case SHM_SIDE_BELL:
        return SHM_SIDE_HEAD;
    case SHM_SIDE_REJECT:
        return SHM_SIDE_SIZE(reject);
    case SHM_SIDE_GROW:
        return SHM_SIDE_SIZE(grow);
    case SHM_SIDE_REGION:
    case SHM_SIDE_DROP:
        return SHM_SIDE_SIZE(region);
    case SHM_SIDE_FDS:
        return SHM_SIDE_SIZE(fds);
    default:
        return 0;
    }
}

static void handle(shm_link_t *link, const shm_side_t *m, size_t size, int *fds, unsigned n_fds)
{
    if (size < SHM_SIDE_HEAD || m->magic != SHM_SIDE_MAGIC || m->reserved != 0 ||
        size != message_size(m->type)) {
        shm_protocol_error(link, "a malformed message on the side socket");
        return;
    }
    if (m->type == SHM_SIDE_HELLO) {
        hear_hello(link, m, fds, n_fds);
        return;
    }
    if (m->type == SHM_SIDE_REJECT) {
        uint32_t err = m->reject.err;
        shm_end(link, err > RF_OK && err < RF_ERR_COUNT ? (rf_err_t)err : RF_ERR_PROTOCOL);
        return;
    }
    if (m->type == SHM_SIDE_READY) {
        if (link->phase == SHM_MAPPED)
            shm_up(link);
        else
            shm_protocol_error(link, "READY out of turn");
        return;
    }
    /* The rest may come as soon as the peer is up, which can be a moment before we are, but never before our READY. */
    if (link->phase != SHM_UP) {
        shm_protocol_error(link, "a message before its READY");
        return;
    }
    /* Nor does a relay map a stranger's regions, or keep its descriptors. */
    if (link->endpoint->relays && m->type != SHM_SIDE_GROW && m->type != SHM_SIDE_BELL) {
        shm_protocol_error(link, "a message that a relay has no use for");
        return;
    }
    switch (m->type) {
    case SHM_SIDE_GROW:
        hear_grow(link, m, fds, n_fds);
        break;
    case SHM_SIDE_REGION:
        if (n_fds != 1 || !shm_region_adopt(link, m->region.id, m->region.size, fds[0]))
            shm_protocol_error(link, "a malformed region");
        break;
    case SHM_SIDE_DROP:
        shm_region_drop(link, m->region.id);
        break;
    case SHM_SIDE_FDS:
        hear_fds(link, m, fds, n_fds);
        break;
    default: /* SHM_SIDE_BELL: that it came is all it says */
        break;
    }
}

void shm_side_handle(shm_link_t *link, const shm_side_t *m, size_t size, int *fds, unsigned n_fds)
{
    handle(link, m, size, fds, n_fds);
    for (unsigned i = 0; i < n_fds; i++) close_fd(&fds[i]);
}

void shm_side_drain(shm_link_t *link)
{
    link->in.look |= SHM_LOOK_SIDE;
    unsigned ends = 0;
    for (unsigned i = 0; i < SHM_SIDE_BATCH; i++) {
        if (link->side < 0 || link->closed) break;
        union {
            shm_side_t message;
            uint8_t bytes[sizeof(shm_side_t) + 1]; /* one more, so that a longer message shows */
        } buffer;
        int fds[RF_FDS_PER_MESSAGE_MAX];
        size_t size = sizeof buffer.bytes;
        rf_err_t err = rf_fd_receive(link->side, &buffer, &size, fds, RF_FDS_PER_MESSAGE_MAX);
        if (err == RF_ERR_AGAIN) {
            link->in.look &= ~SHM_LOOK_SIDE;
            return;
        }
        if (err == RF_ERR_CLOSED) {
            /* The kernel first says that the peer left messages of ours unread, then gives what it sent itself. */
            if (ends++ == 0) continue;
            shm_peer_gone(link);
            return;
        }
        if (err != RF_OK) {
            shm_protocol_error(link, "a side-socket message that is too long");
            return;
        }
        unsigned n_fds = 0;
        while (n_fds < RF_FDS_PER_MESSAGE_MAX && fds[n_fds] >= 0) n_fds++;
        shm_side_handle(link, &buffer.message, size, fds, n_fds);
    }
    if (link->side < 0) link->in.look &= ~SHM_LOOK_SIDE;
}
