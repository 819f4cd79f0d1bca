/* The table of operations, and the life of a link from its memory to its end. */
#include "internal.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static size_t ring_size(uint32_t slots)
{
    return (size_t)slots * sizeof(shm_cell_t);
}

void shm_enter(shm_link_t *link)
{
    link->busy++;
}

bool shm_leave(shm_link_t *link)
{
    link->busy--;
    if (!link->closed) return true;
    if (link->busy == 0) shm_link_free(link);
    return false;
}

void shm_event(shm_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    if (!link->closed && link->endpoint->params.on_event)
        link->endpoint->params.on_event(link->endpoint->params.context, &link->base, event, info);
}

void shm_settle(shm_link_t *link, bool unsettled)
{
    if (link->unsettled == unsettled) return;
    link->unsettled = unsettled;
    if (unsettled)
        link->endpoint->n_unsettled++;
    else
        link->endpoint->n_unsettled--;
}

rf_err_t shm_ring_slots_check(uint32_t *slots, uint32_t *slots_max)
{
    if (*slots == 0) *slots = RF_RING_SLOTS_MIN;
    if (*slots_max == 0) *slots_max = *slots > SHM_SLOTS_MAX_DEFAULT ? *slots : SHM_SLOTS_MAX_DEFAULT;
    bool powers = (*slots & (*slots - 1)) == 0 && (*slots_max & (*slots_max - 1)) == 0;
    return powers && *slots >= RF_RING_SLOTS_MIN && *slots_max >= *slots && *slots_max <= RF_RING_SLOTS_MAX
               ? RF_OK
               : RF_ERR_INVALID;
}

static rf_err_t take_place(shm_endpoint_t *endpoint, shm_link_t *link)
{
    uint32_t place = 0;
    while (place < endpoint->links_room && endpoint->links[place]) place++;
    if (place == endpoint->links_room) {
        if (place >= SHM_LINKS_MAX) return RF_ERR_LIMIT;
        uint32_t room = place ? place * 2 : 16;
        shm_link_t **links = realloc(endpoint->links, room * sizeof(shm_link_t *));
        if (!links) return RF_ERR_NO_MEMORY;
        memset(links + place, 0, (room - place) * sizeof(shm_link_t *));
        endpoint->links = links;
        endpoint->links_room = room;
    }
    endpoint->links[place] = link;
    endpoint->n_links++;
    link->place = place;
    link->generation = ++endpoint->generation;
    return RF_OK;
}

shm_link_t *shm_link_new(shm_endpoint_t *endpoint, const rf_link_params_t *params, rf_err_t *err)
{
    uint32_t slots = params ? params->slots : 0, slots_max = params ? params->slots_max : 0;
    *err = shm_ring_slots_check(&slots, &slots_max);
    if (*err != RF_OK) return NULL;
    shm_link_t *link = aligned_alloc(RF_CACHE_LINE, sizeof *link);
    if (!link) {
        *err = RF_ERR_NO_MEMORY;
        return NULL;
    }
    memset(link, 0, sizeof *link);
    *err = take_place(endpoint, link);
    if (*err != RF_OK) {
        free(link);
        return NULL;
    }
    link->base.transport = &rf_transport_shm;
    link->base.endpoint = &endpoint->base;
    link->base.state = RF_LINK_STATE_CONNECTING;
    link->endpoint = endpoint;
    link->self = params && params->hello ? *params->hello : endpoint->params.self;
    link->base.user = params ? params->user : NULL;
    link->out_slots = slots;
    link->slots_max = slots_max;
    link->out.peer_head = &shm_no_head;
    shm_in_ring(link, shm_no_cells, RF_RING_SLOTS_MIN);
    link->side = link->head_fd = link->ring_fd = -1;
    link->peer_doorbell.fd = -1;
    link->deadline_ns = rf_clock_ns() + endpoint->params.deadline_ns;
    return link;
}

static rf_err_t make_object(const char *name, size_t size, void **memory, int *fd)
{
    rf_err_t err = rf_memory_create(name, size, fd);
    if (err != RF_OK) return err;
    *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *fd, 0);
    if (*memory != MAP_FAILED) return RF_OK;
    *memory = NULL;
    return RF_ERR_OS; /* the descriptor is closed with the link */
}

/* What is passed of the head cannot be mapped to be written. */
static rf_err_t make_readonly(int *fd)
{
    int again;
    rf_err_t err = rf_memory_reopen_readonly(*fd, &again);
    if (err != RF_OK) return err;
    close(*fd);
    *fd = again;
    return RF_OK;
}

rf_err_t shm_link_objects(shm_link_t *link)
{
    void *head = NULL, *ring = NULL;
    rf_err_t err = make_object("rackfish-head", sizeof(shm_head_t), &head, &link->head_fd);
    if (err == RF_OK) err = make_readonly(&link->head_fd);
    if (err == RF_OK) err = make_object("rackfish-ring", ring_size(link->out_slots), &ring, &link->ring_fd);
    link->head = head; /* what was made is freed with the link */
    if (ring) shm_out_ring(link, ring, link->out_slots);
    return err;
}

void shm_up(shm_link_t *link)
{
    link->phase = SHM_UP;
    link->base.state = RF_LINK_STATE_UP;
    shm_in_ring(link, link->next_cells, link->next_slots);
    link->next_cells = NULL;
    shm_set_limit(link);
    shm_settle(link, false);
    shm_event(link, RF_LINK_UP, &(rf_link_event_info_t){.hello = &link->base.peer});
}

static void close_side(shm_link_t *link)
{
    if (link->side < 0) return;
    epoll_ctl(link->endpoint->epoll, EPOLL_CTL_DEL, link->side, NULL); /* a forked child may hold it open */
    close(link->side);
    link->side = -1;
}

static void unmap(shm_memory_t *m)
{
    if (m->head) munmap(m->head, sizeof(shm_head_t));
    if (m->peer_head) munmap(m->peer_head, sizeof(shm_head_t));
    if (m->out) munmap(m->out, m->out_size);
    if (m->in) munmap(m->in, m->in_size);
    if (m->next) munmap(m->next, m->next_size);
    *m = (shm_memory_t){0};
}

/* Gives back the socket, and leaves the memory in link->left. Pointers that poll() and flush() follow stay good. */
static void release(shm_link_t *link)
{
    close_side(link);
    if (link->head_fd >= 0) close(link->head_fd);
    if (link->ring_fd >= 0) close(link->ring_fd);
    link->head_fd = link->ring_fd = -1;
    unmap(&link->left);
    link->left = (shm_memory_t){.head = link->head,
                                .out = link->out.cells,
                                .next = (void *)(uintptr_t)link->next_cells,
                                .out_size = ring_size(link->out_slots),
                                .in_size = ring_size(link->in_slots),
                                .next_size = ring_size(link->next_slots)};
    if (link->out.peer_head != &shm_no_head) link->left.peer_head = (void *)(uintptr_t)link->out.peer_head;
    if (link->in_cells != shm_no_cells) link->left.in = (void *)(uintptr_t)link->in_cells;
    link->head = NULL;
    link->out.cells = NULL;
    link->out.peer_head = &shm_no_head;
    shm_in_ring(link, shm_no_cells, RF_RING_SLOTS_MIN);
    link->next_cells = NULL;
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        if (link->peer_regions[i].memory) shm_region_drop(link, link->peer_regions[i].id);
    }
    rf_doorbell_destroy(&link->peer_doorbell);
    link->in.attention_seen = 0;
    link->in.published = link->in.received;
    link->in.peer_wants_room = false;
    link->out.flushed = link->out.sent;
}

void shm_end(shm_link_t *link, rf_err_t why)
{
    if (link->phase == SHM_OVER) return;
    if (link->phase == SHM_ARRIVED) link->endpoint->n_arrived--;
    bool known = link->phase != SHM_ARRIVED; /* nobody was told of a link that has not said its hello */
    link->phase = SHM_OVER;
    link->base.state = RF_LINK_STATE_DEAD;
    link->end = why;
    link->stats.bytes_placed =
        atomic_load_explicit(&link->out.peer_head->bytes_written, memory_order_relaxed);
    release(link);
    /* When a process has died, others may be electing a leader on this very CPU. To unmap takes long, so it waits until the
     * owner fences or closes the link. */
    if (why != RF_ERR_PEER_DEAD) unmap(&link->left);
    shm_set_limit(link);
    link->in.look = SHM_LOOK_END;
    if (known) {
        link->over_pending = true;
        shm_settle(link, true);
    } else {
        link->closed = true; /* freed on the way out */
    }
}

void shm_protocol_error(shm_link_t *link, const char *what)
{
    link->stats.protocol_errors++;
    if (rf_log_once_per(&link->endpoint->logged_ns, RF_NS_PER_S))
        rf_log(RF_LOG_WARN, "shm: the link to process %d ends, its peer broke the protocol: %s",
               link->peer_pid, what);
    shm_end(link, RF_ERR_PROTOCOL);
}

void shm_peer_gone(shm_link_t *link)
{
    if (link->phase != SHM_UP) {
        shm_end(link, RF_ERR_PEER_DEAD);
        return;
    }
    close_side(link);
    link->phase = SHM_DRAINING;
    link->end = RF_ERR_PEER_DEAD;
    link->in.look = (link->in.look & SHM_LOOK_NOTIFY) | SHM_LOOK_END;
    shm_set_limit(link);
    link->out.flushed = link->out.sent;
}

void shm_end_if_drained(shm_link_t *link)
{
    if (link->phase != SHM_DRAINING) return;
    shm_take_medium(link);
    if (link->phase == SHM_DRAINING && shm_in_empty(link)) shm_end(link, RF_ERR_PEER_DEAD);
}

void shm_report_over(shm_link_t *link)
{
    if (!link->over_pending) return;
    link->over_pending = false;
    link->in.look = 0;
    shm_settle(link, false);
    rf_link_event_t event = link->end == RF_ERR_CLOSED ? RF_LINK_CLOSED : RF_LINK_DEAD;
    shm_event(link, event, &(rf_link_event_info_t){.err = link->end});
}

void shm_link_free(shm_link_t *link)
{
    shm_endpoint_t *endpoint = link->endpoint;
    if (link->phase == SHM_ARRIVED) endpoint->n_arrived--;
    shm_settle(link, false);
    release(link);
    unmap(&link->left);
    shm_regions_free(link);
    endpoint->links[link->place] = NULL;
    endpoint->n_links--;
    free(link);
}

static void close_link(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->closed) return;
    if (link->phase == SHM_UP && shm_send_medium(link, SHM_SLOT_CLOSE)) shm_flush(base);
    shm_enter(link);
    link->closed = true;
    link->phase = SHM_OVER;
    link->base.state = RF_LINK_STATE_DEAD;
    link->end = RF_ERR_CLOSED;
    release(link);
    shm_set_limit(link);
    shm_leave(link);
}

static void fence_link(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    shm_end(link, RF_ERR_FENCED);
    unmap(&link->left);
    link->end = RF_ERR_FENCED;
    link->over_pending = false;
    link->in.look = 0;
    shm_settle(link, false);
}

static rf_err_t pass_fds(rf_link_t *base, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
    shm_link_t *link = (shm_link_t *)base;
    if (size > SHM_FDS_BYTES_MAX || n_fds > RF_FDS_PER_MESSAGE_MAX) return RF_ERR_INVALID;
    if (link->phase != SHM_UP) return link->end != RF_OK ? link->end : RF_ERR_AGAIN;
    rf_err_t err = shm_side_fds(link, bytes, size, fds, n_fds);
    if (err != RF_OK) return err == RF_ERR_CLOSED ? RF_ERR_PEER_DEAD : err;
    _Atomic(uint32_t) *messages = &link->head->side_messages;
    atomic_store_explicit(messages, atomic_load_explicit(messages, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    shm_attention(link);
    return RF_OK;
}

static void stats(rf_link_t *base, rf_link_stats_t *out)
{
    shm_link_t *link = (shm_link_t *)base;
    *out = link->stats;
    out->slots_sent += link->out.sent - link->medium_sent;
    out->slots_received += link->in.received - link->medium_received;
    if (link->phase != SHM_OVER)
        out->bytes_placed = atomic_load_explicit(&link->out.peer_head->bytes_written, memory_order_relaxed);
    out->ring_slots_send = link->out_slots;
    out->ring_slots_receive = link->in_slots;
}

static rf_err_t peer_credentials(rf_link_t *base, int *pid, unsigned *uid)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->peer_pid == 0) return RF_ERR_AGAIN;
    *pid = link->peer_pid;
    *uid = link->peer_uid;
    return RF_OK;
}

const rf_transport_t rf_transport_shm = {
    .abi = RF_TRANSPORT_ABI,
    .name = "shm",
    .flags = RF_TRANSPORT_LOCAL | RF_TRANSPORT_REMOTE_WRITE | RF_TRANSPORT_REMOTE_READ |
             RF_TRANSPORT_PASS_FDS | RF_TRANSPORT_POLLS_MEMORY,
    .endpoint_open = shm_endpoint_open,
    .endpoint_close = shm_endpoint_close,
    .endpoint_address = shm_endpoint_address,
    .endpoint_fd = shm_endpoint_fd,
    .endpoint_progress = shm_endpoint_progress,
    .connect = shm_connect,
    .accept = shm_accept,
    .reject = shm_reject,
    .room = shm_room,
    .send = shm_send,
    .flush = shm_flush,
    .poll = shm_poll,
    .arm = shm_arm,
    .ready = shm_ready,
    .disarm = shm_disarm,
    .region_create = shm_region_create,
    .region_destroy = shm_region_destroy,
    .remote_write = shm_remote_write,
    .remote_read = shm_remote_read,
    .pass_fds = pass_fds,
    .fence = fence_link,
    .close = close_link,
    .stats = stats,
    .peer_credentials = peer_credentials,
};
