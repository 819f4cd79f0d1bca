/* What stands in for a device in tests of links of the RDMA medium: queue pairs and completion queues; everything else is the
 * medium's own. Included by one file of each test, after cmocka.h. */
#ifndef RF_TESTS_TRANSPORT_RDMA_STAND_IN_H
#define RF_TESTS_TRANSPORT_RDMA_STAND_IN_H

#include "path_control.h"
#include "rdma_no_device.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RING   1024 /* slots of either end's ring, of the path that a test begins with */
#define PATHS  16
#define POSTED 256

/* --- what stands in for device.c, path.c and cm.c ------------------------------------------------------------ */

/* What the next look at the completion queue finds. */
typedef enum found { NOTHING, SENT, ACK_OF_ALL, FAILURE, RUNG, SLOTS } found_t;

static rdma_endpoint_t endpoint;
static rdma_device_t device;
static rdma_path_t paths[PATHS];
static unsigned n_paths;
static found_t found,
    comes_as_armed; /* the latter: before the queue is armed, too late for the look before that */
static rdma_link_t *the_link;
static unsigned wants, looks, arms, events[RF_LINK_DEAD + 1];
static rf_err_t last_err; /* of the last event */
static unsigned n_found;  /* SLOTS: so many of `slots`, by SEND */
static path_word_t said;
static rf_slot_t slots[4096];
static rdma_source_t asked; /* the route that a place was last looked for by */
static bool closes_when_written;

/* Of the bulk lane: what was posted; and memory that is registered now, and was ever. */
static struct ibv_send_wr bulk_posted[POSTED];
static uint32_t bulk_size[POSTED];
static unsigned n_posted, doorbells, n_registered, registrations, last_access;
static int registering_fails; /* with this error; 0: it does not */

static inline void peer_says(uint32_t flags, uint64_t delivered)
{
    rdma_path_t *path = the_link->paths[PATH_LANE_SLOTS];
    path_word_t word = {.flags = flags, .generation = path->lane->generation, .delivered = delivered};
    rf_slot_t slot = {.control = rf_control_make(RDMA_WORD, sizeof word, false, 0)};
    memcpy(slot.payload, &word, sizeof word);
    rdma_link_message(the_link, path, (const uint8_t *)&slot, sizeof slot);
}

static inline void slots_come(rdma_path_t *path)
{
    for (unsigned i = 0; i < n_found; i += RDMA_MESSAGE_SLOTS) {
        unsigned n = n_found - i < RDMA_MESSAGE_SLOTS ? n_found - i : RDMA_MESSAGE_SLOTS;
        rdma_link_message(the_link, path, (const uint8_t *)&slots[i], n * (uint32_t)sizeof *slots);
    }
}

rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out)
{
    (void)ep;
    asked = *route;
    *out = (rdma_place_t){.device = &device, .mtu = IBV_MTU_1024, .ethernet = true};
    return RF_OK;
}

bool rdma_device_drain(rdma_device_t *dev)
{
    rdma_path_t *path = the_link ? the_link->paths[PATH_LANE_SLOTS] : NULL;
    found_t now = found;
    (void)dev;
    looks++;
    found = NOTHING;
    if (!path || now == NOTHING) return false;
    path->completed = path->posted;
    if (now == ACK_OF_ALL) peer_says(0, the_link->base.posted);
    if (now == FAILURE) rdma_path_broken(path);
    if (now == RUNG) rdma_sleep_rung(&path->sleep);
    if (now == SLOTS) slots_come(path);
    return true;
}

void rdma_device_arm(rdma_device_t *dev)
{
    (void)dev;
    arms++;
    if (comes_as_armed != NOTHING) found = comes_as_armed;
    comes_as_armed = NOTHING;
}

rf_err_t rdma_path_make(path_lane_t *lane, const rdma_place_t *place, rdma_path_t **out)
{
    assert_true(n_paths < PATHS);
    rdma_path_t *path = &paths[n_paths++];
    *path = (rdma_path_t){.device = place->device,
                          .lane = lane,
                          .bulk = lane->number == PATH_LANE_BULK,
                          .depth = RDMA_DEPTH_DEFAULT,
                          .signal_every = RDMA_SIGNAL_DEFAULT,
                          .inline_max = RDMA_INLINE_DEFAULT,
                          .inline_size = RDMA_INLINE_DEFAULT,
                          .ring_mr = &registered};
    rdma_link_of(lane->link)->paths[lane->number] = path;
    rdma_link_of(lane->link)->device = place->device;
    *out = path;
    return RF_OK;
}

void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    (void)path, (void)out;
}

rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer)
{
    path->peer = *peer;
    return RF_OK;
}

void rdma_path_kill(rdma_path_t *path)
{
    if (!path || !path->lane) return;
    rdma_path_link(path)->paths[path->lane->number] = NULL;
    path->lane = NULL;
    free(path->ring.base);
}

void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n)
{
    assert_true(n <= rdma_path_room(path));
    path->posted += n;
    doorbells++;
    for (unsigned i = 0; i < n && path->bulk; i++) {
        assert_true(n_posted < POSTED);
        path->reads_posted += requests[i].opcode == IBV_WR_RDMA_READ;
        bulk_posted[n_posted] = requests[i];
        bulk_size[n_posted++] = requests[i].sg_list->length;
    }
}

#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *base, size_t size, int access)
{
    (void)pd, (void)base, (void)size, (void)access;
    if (registering_fails != 0) {
        errno = registering_fails;
        return NULL;
    }
    n_registered++;
    registrations++;
    return &registered;
}

/* What the macro of the same name without 2 calls where the access is not constant. */
struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *base, size_t size, uint64_t iova, unsigned access)
{
    (void)iova;
    last_access = access;
    return ibv_reg_mr(pd, base, size, (int)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    (void)mr;
    assert_true(n_registered > 0);
    n_registered--;
    return 0;
}

void rdma_path_broken(rdma_path_t *path)
{
    path_lane_failed(path->lane);
}

bool rdma_path_say(rdma_path_t *path, const path_word_t *word)
{
    if (rdma_path_room(path) == 0) return false;
    path->posted++;
    said = *word;
    wants += (word->flags & PATH_WORD_WANT_ACK) != 0;
    return true;
}

/* --- links -------------------------------------------------------------------------------------------------- */

static inline void on_event(void *context, rf_link_t *link, rf_link_event_t event,
                            const rf_link_event_info_t *info)
{
    (void)context;
    events[event]++;
    last_err = info->err;
    if (event == RF_LINK_WRITTEN && closes_when_written) {
        closes_when_written = false;
        path_close(link);
    }
}

/* A link of so many slots each way, its path's peer having a ring of `peer_ring`; 0: taking slots by SEND. */
static inline rdma_link_t *link_up(uint32_t size, uint32_t peer_ring)
{
    memset(&endpoint, 0, sizeof endpoint);
    memset(events, 0, sizeof events);
    n_paths = wants = arms = 0;
    found = comes_as_armed = NOTHING;
    endpoint.base.head.transport = &rf_transport_rdma;
    endpoint.base.medium = &rdma_medium;
    endpoint.base.on_event = on_event;
    endpoint.base.deadline_ns = PATH_DEADLINE_NS_DEFAULT;
    endpoint.base.timer_ns = endpoint.destroy_ns = RF_NEVER;
    endpoint.base.epoll = endpoint.base.kick = endpoint.look = -1;
    device = (rdma_device_t){.endpoint = &endpoint};
    control_reset();
    path_link_t *base = path_link_new(&endpoint.base, &(rf_link_params_t){.slots = size, .slots_max = size});
    assert_non_null(base);
    the_link = rdma_link_of(base);
    base->control = &control.head;
    control.head.user = base;
    base->dialer = base->was_up = true;
    base->head.state = RF_LINK_STATE_UP;
    rdma_place_t place = {.device = &device};
    rdma_path_t *path;
    path_lane_t *lane = &base->lanes[PATH_LANE_SLOTS];
    assert_int_equal(rdma_path_make(lane, &place, &path), RF_OK);
    lane->generation = 1;
    lane->stage = PATH_UP;
    path->peer = (rdma_path_info_t){.messages = RDMA_MESSAGES, .slots_max = 4096};
    the_link->ack_every = the_link->ack_most = size / 4;
    for (unsigned i = 0; i < sizeof slots / sizeof *slots; i++)
        slots[i].control = rf_control_make(1, 8, false, 0);
    if (peer_ring == 0) return the_link;
    path->written = true;
    path->ring_slots = RING;
    assert_int_equal(rdma_memory_make(NULL, (RING + 1) * sizeof(rf_slot_t), 0, &path->ring), RF_OK);
    path->peer.ring = path->peer.line = RF_PAGE;
    path->peer.ring_slots = peer_ring;
    path->peer.line_key = 1;
    return the_link;
}

static inline void link_over(rdma_link_t *link)
{
    path_endpoint_enter(&endpoint.base);
    path_link_bury(&link->base);
    path_endpoint_leave(&endpoint.base);
    the_link = NULL;
}

/* The peer says, by the line, how many it has taken. */
static inline void line_says(rdma_link_t *link, uint64_t delivered)
{
    rdma_path_t *path = link->paths[PATH_LANE_SLOTS];
    memcpy(path->ring.base + path->ring_slots * sizeof(rf_slot_t), &delivered, sizeof delivered);
}

/* So many requests were posted before, and wait for their completion: the next push looks into the queue. */
static inline void queue_filled(rdma_link_t *link, uint32_t posted)
{
    link->paths[PATH_LANE_SLOTS]->posted = posted;
}

#endif
