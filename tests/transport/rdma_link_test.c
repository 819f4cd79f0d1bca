/* Links of the RDMA medium without a device: slots, words and control messages as a peer might say them, at moments that a
 * device seldom hits. Queue pairs and completion queues are stood in for here; everything else is the medium's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transport/rdma/internal.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define RING       1024 /* slots of either end's ring, of the path that a test begins with */
#define PATHS      4
#define CONTROL_IN 64

/* --- what stands in for device.c, path.c and cm.c ------------------------------------------------------------ */

/* What the next look at the completion queue finds. */
typedef enum found { NOTHING, SENT, ACK_OF_ALL, FAILURE, RUNG } found_t;

static rdma_endpoint_t endpoint;
static rdma_device_t device;
static rdma_path_t paths[PATHS];
static unsigned n_paths;
static struct ibv_mr registered;
static found_t found;
static rdma_link_t *the_link;
static unsigned wants, events[RF_LINK_DEAD + 1];
static rdma_word_t said;

static void peer_says(uint32_t flags, uint64_t delivered)
{
    rdma_path_t *path = the_link->lanes[RDMA_LANE_SLOTS].path;
    rdma_word_t word = {.flags = flags, .generation = path->generation, .delivered = delivered};
    rf_slot_t slot = {.control = rf_control_make(RDMA_WORD, sizeof word, false, 0)};
    memcpy(slot.payload, &word, sizeof word);
    rdma_link_message(the_link, path, (const uint8_t *)&slot, sizeof slot);
}

rf_err_t rdma_memory_make(struct ibv_pd *pd, size_t size, int access, rdma_memory_t *out)
{
    (void)access;
    size_t whole = (size + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1);
    *out =
        (rdma_memory_t){.base = aligned_alloc(RF_PAGE, whole), .size = whole, .mr = pd ? &registered : NULL};
    if (!out->base) return RF_ERR_NO_MEMORY;
    memset(out->base, 0, whole);
    return RF_OK;
}

void rdma_memory_free(rdma_memory_t *memory)
{
    free(memory->base);
    *memory = (rdma_memory_t){.base = NULL};
}

void rdma_memory_refused(rdma_endpoint_t *ep, size_t size)
{
    (void)ep, (void)size;
}

rf_err_t rdma_domain_make(rdma_device_t *dev, rdma_domain_t **out)
{
    (void)dev, (void)out;
    return RF_ERR_OS;
}

void rdma_domain_release(rdma_domain_t *domain)
{
    (void)domain;
}

rf_err_t rdma_place_find(rdma_endpoint_t *ep, const rdma_source_t *route, rdma_place_t *out)
{
    (void)ep, (void)route;
    *out = (rdma_place_t){.device = &device, .mtu = IBV_MTU_1024, .ethernet = true};
    return RF_OK;
}

void rdma_device_close(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_devices_sweep(rdma_endpoint_t *ep)
{
    (void)ep;
}

void rdma_buffer_post(rdma_device_t *dev, rdma_buffer_t *buffer)
{
    (void)dev, (void)buffer;
}

bool rdma_device_drain(rdma_device_t *dev)
{
    rdma_path_t *path = the_link ? the_link->lanes[RDMA_LANE_SLOTS].path : NULL;
    found_t now = found;
    (void)dev;
    found = NOTHING;
    if (!path || now == NOTHING) return false;
    path->completed = path->posted;
    if (now == ACK_OF_ALL) peer_says(0, the_link->posted);
    if (now == FAILURE) rdma_path_broken(path);
    if (now == RUNG) rdma_sleep_rung(path);
    return true;
}

void rdma_device_arm(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_device_heard(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_device_async(rdma_device_t *dev)
{
    (void)dev;
}

rf_err_t rdma_path_make(rdma_link_t *link, unsigned lane, uint32_t generation, const rdma_place_t *place,
                        rdma_path_t **out)
{
    assert_true(n_paths < PATHS);
    rdma_path_t *path = &paths[n_paths++];
    *path = (rdma_path_t){.device = place->device,
                          .link = link,
                          .lane = lane,
                          .generation = generation,
                          .depth = RDMA_SEND_DEPTH,
                          .inline_max = RDMA_INLINE,
                          .ring_mr = &registered};
    link->lanes[lane].path = path;
    link->device = place->device;
    *out = path;
    return RF_OK;
}

void rdma_path_info(const rdma_path_t *path, rdma_path_info_t *out)
{
    (void)path;
    memset(out, 0, sizeof *out);
}

rf_err_t rdma_path_join(rdma_path_t *path, const rdma_path_info_t *peer)
{
    path->peer = *peer;
    return RF_OK;
}

void rdma_path_kill(rdma_path_t *path)
{
    if (!path || path->stage == RDMA_STAGE_DYING) return;
    path->link->lanes[path->lane].path = NULL;
    path->stage = RDMA_STAGE_DYING;
    path->link = NULL;
    free(path->ring.base);
}

rf_err_t rdma_path_confirm(const rdma_path_t *path)
{
    (void)path;
    return RF_OK;
}

bool rdma_path_destroy(rdma_path_t *path)
{
    (void)path;
    return true;
}

void rdma_path_post(rdma_path_t *path, struct ibv_send_wr *requests, unsigned n)
{
    (void)requests;
    assert_true(n <= rdma_path_room(path));
    path->posted += n;
}

void rdma_path_broken(rdma_path_t *path)
{
    path->failed = true;
    rdma_attention(path->link);
}

bool rdma_path_say(rdma_path_t *path, const rdma_word_t *word)
{
    if (rdma_path_room(path) == 0) return false;
    path->posted++;
    said = *word;
    wants += (word->flags & RDMA_WORD_WANT_ACK) != 0;
    return true;
}

rf_err_t rdma_cm_listen(rdma_endpoint_t *ep, uint16_t *port)
{
    (void)ep, (void)port;
    return RF_ERR_OS;
}

void rdma_cm_heard(rdma_endpoint_t *ep)
{
    (void)ep;
}

void rdma_cm_close(rdma_endpoint_t *ep)
{
    (void)ep;
}

/* --- a control link ----------------------------------------------------------------------------------------- */

static struct {
    rf_link_t head;
    rf_slot_t in[CONTROL_IN];
    unsigned n, at;
    bool full;
} control;

static bool control_ready(rf_link_t *link)
{
    (void)link;
    return control.at < control.n;
}

static unsigned control_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    (void)link;
    unsigned n = 0;
    while (n < max && control.at < control.n) out[n++] = control.in[control.at++];
    return n;
}

static unsigned control_room(rf_link_t *link, unsigned want)
{
    (void)link;
    return control.full ? 0 : want;
}

static unsigned control_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link, (void)slots;
    return control.full ? 0 : n;
}

static rf_err_t control_flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static void control_close(rf_link_t *link)
{
    (void)link;
}

static const rf_transport_t control_transport = {.ready = control_ready,
                                                 .poll = control_poll,
                                                 .room = control_room,
                                                 .send = control_send,
                                                 .flush = control_flush,
                                                 .close = control_close};

/* The peer says this over the control link. */
static void control_says(uint8_t type, const void *bytes, size_t size)
{
    const uint8_t *from = bytes;
    do {
        size_t part = size < RF_SLOT_PAYLOAD ? size : RF_SLOT_PAYLOAD;
        rf_slot_t *slot = &control.in[control.n++];
        assert_true(control.n <= CONTROL_IN);
        *slot = (rf_slot_t){.control = rf_control_make(type, (unsigned)part, size > part, 0)};
        memcpy(slot->payload, from, part);
        from += part;
        size -= part;
    } while (size > 0);
    while (rdma_control_poll(the_link, 1)) {
    }
}

/* --- links -------------------------------------------------------------------------------------------------- */

static rf_slot_t slots[4096];

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)info;
    events[event]++;
}

/* A link of so many slots each way, its path's peer having a ring of `peer_ring`; 0: taking slots by SEND. */
static rdma_link_t *link_up(uint32_t size, uint32_t peer_ring)
{
    memset(&endpoint, 0, sizeof endpoint);
    memset(&control, 0, sizeof control);
    memset(events, 0, sizeof events);
    n_paths = wants = 0;
    found = NOTHING;
    endpoint.head.transport = &rf_transport_rdma;
    endpoint.on_event = on_event;
    endpoint.deadline_ns = RDMA_DEADLINE_NS_DEFAULT;
    endpoint.timer_ns = RF_NEVER;
    endpoint.epoll = endpoint.kick = endpoint.look = -1;
    device = (rdma_device_t){.endpoint = &endpoint};
    control.head.transport = &control_transport;
    control.head.state = RF_LINK_STATE_UP;
    the_link = rdma_link_new(&endpoint, &(rf_link_params_t){.slots = size, .slots_max = size});
    assert_non_null(the_link);
    the_link->control = &control.head;
    the_link->dialer = the_link->was_up = true;
    the_link->head.state = RF_LINK_STATE_UP;
    rdma_place_t place = {.device = &device};
    rdma_path_t *path;
    assert_int_equal(rdma_path_make(the_link, RDMA_LANE_SLOTS, 1, &place, &path), RF_OK);
    the_link->lanes[RDMA_LANE_SLOTS].generation = 1;
    path->stage = RDMA_STAGE_UP;
    path->peer = (rdma_path_info_t){.messages = RDMA_MESSAGES, .slots_max = 4096};
    if (peer_ring == 0) return the_link;
    path->written = true;
    path->ring_slots = RING;
    assert_int_equal(rdma_memory_make(NULL, (RING + 1) * sizeof(rf_slot_t), 0, &path->ring), RF_OK);
    path->peer.ring = path->peer.line = RF_PAGE;
    path->peer.ring_slots = peer_ring;
    path->peer.line_key = 1;
    for (unsigned i = 0; i < sizeof slots / sizeof *slots; i++)
        slots[i].control = rf_control_make(1, 8, false, 0);
    return the_link;
}

static void link_over(rdma_link_t *link)
{
    rdma_enter(&endpoint);
    rdma_link_bury(link);
    rdma_leave(&endpoint);
    the_link = NULL;
}

/* The peer says, by the line, how many it has taken. */
static void line_says(rdma_link_t *link, uint64_t delivered)
{
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    memcpy(path->ring.base + path->ring_slots * sizeof(rf_slot_t), &delivered, sizeof delivered);
}

/* So many requests were posted before, and wait for their completion: the next push looks into the queue. */
static void queue_filled(rdma_link_t *link, uint32_t posted)
{
    link->lanes[RDMA_LANE_SLOTS].path->posted = posted;
}

/* --- tests -------------------------------------------------------------------------------------------------- */

static void what_a_push_posted_may_be_acknowledged_within_it(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2048, RING);
    queue_filled(link, RDMA_SEND_DEPTH - 8);
    found = ACK_OF_ALL;
    assert_int_equal(rdma_send(&link->head, slots, 900), 900);
    assert_int_equal(rdma_flush(&link->head), RF_OK);
    assert_null(link->wrong);
    assert_int_equal(link->posted, 900);
    assert_in_range(link->acked, 1, 900);
    link_over(link);
}

static void what_a_push_posted_before_it_failed_may_have_come(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2048, RING);
    queue_filled(link, RDMA_SEND_DEPTH - 8);
    found = FAILURE;
    assert_int_equal(rdma_send(&link->head, slots, 900), 900);
    rdma_flush(&link->head);
    uint64_t came = link->posted;
    assert_true(came > 0);
    link->lanes[RDMA_LANE_SLOTS].path->failed = false;
    assert_false(rdma_link_resume(link, came + 1));
    assert_true(rdma_link_resume(link, came));
    link_over(link);
}

/* The peer's ring is a quarter of what its link takes: what is asked for is what has been sent there, no more. */
static void room_is_asked_for_each_time(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(4 * RING, RING);
    found = SENT;
    assert_int_equal(rdma_send(&link->head, slots, 4 * RING), 4 * RING);
    rdma_flush(&link->head);
    assert_int_equal(link->posted, RING);
    assert_int_equal(rdma_send(&link->head, slots, 1), 0);
    assert_int_equal(wants, 1);
    assert_int_equal(said.count, RING);
    peer_says(0, RING);
    rdma_link_settle(link);
    assert_int_equal(events[RF_LINK_ROOM], 1);
    assert_int_equal(link->posted, 2 * RING);
    found = SENT;
    assert_int_equal(rdma_send(&link->head, slots, RING), RING);
    assert_int_equal(rdma_send(&link->head, slots, 1), 0);
    assert_int_equal(wants, 2);
    assert_int_equal(said.count, 2 * RING);
    link_over(link);
}

/* A sleeper with slots that do not fit its peer's ring is woken when they do: it has asked, which the line does not answer. */
static void a_sleeper_with_slots_to_send_has_asked(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(2 * RING, RING);
    assert_int_equal(rdma_send(&link->head, slots, 2 * RING), 2 * RING);
    rdma_flush(&link->head);
    rdma_arm(&link->head);
    assert_int_equal(wants, 1);
    rdma_disarm(&link->head);
    line_says(link, RING / 2);
    rdma_line_hear(link);
    assert_int_equal(link->posted, RING + RING / 2);
    line_says(link, RING);
    rdma_line_hear(link);
    rdma_arm(&link->head);
    assert_int_equal(link->posted, 2 * RING);
    rdma_disarm(&link->head);
    assert_int_equal(rdma_send(&link->head, slots, RING), RING);
    rdma_flush(&link->head);
    rdma_arm(&link->head);
    assert_int_equal(wants, 2);
    assert_int_equal(said.count, 2 * RING);
    link_over(link);
}

static void a_smaller_ring_is_not_overrun(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(4096, RING);
    assert_int_equal(rdma_send(&link->head, slots, 1024), 1024);
    rdma_flush(&link->head);
    assert_int_equal(link->posted, 1024);
    link->lanes[RDMA_LANE_SLOTS].path->peer.ring_slots = 256; /* as the next path's may be */
    assert_true(rdma_link_resume(link, 1024));
    assert_int_equal(rdma_send(&link->head, slots, 1024), 1024);
    rdma_flush(&link->head);
    assert_int_equal(link->posted, 1024);
    found = SENT;
    peer_says(0, 1000);
    assert_int_equal(link->posted, 1000 + 256);
    link_over(link);
}

/* What rang a sleeper after its last look, and was taken in by the look of ready(), is all the ringing there is. */
static void a_ring_between_poll_and_arm_is_not_lost(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    rdma_path_t *path = link->lanes[RDMA_LANE_SLOTS].path;
    rf_slot_t out[8];
    path->sleep = RDMA_GRANTED;
    rf_slot_t *ring = (rf_slot_t *)path->ring.base;
    ring[0].control = slots[0].control | RF_CONTROL_PARITY;
    assert_int_equal(rdma_poll(&link->head, out, 8), 1);
    assert_int_equal(rdma_poll(&link->head, out, 8), 0);
    rdma_arm(&link->head);
    found = RUNG;
    assert_true(rdma_ready(&link->head));
    rdma_disarm(&link->head);
    assert_false(rdma_ready(&link->head));
    rdma_arm(&link->head);
    assert_true(said.flags & RDMA_WORD_SLEEP);
    assert_false(rdma_ready(&link->head));
    link_over(link);
}

static rdma_path_info_t info_of(uint32_t generation)
{
    return (rdma_path_info_t){.magic = RDMA_MAGIC,
                              .format = RDMA_FORMAT,
                              .generation = generation,
                              .mtu = IBV_MTU_1024,
                              .messages = RDMA_MESSAGES,
                              .slots_max = 64,
                              .ethernet = 1};
}

static void a_closed_link_makes_no_path(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    peer_says(RDMA_WORD_CLOSE, 0);
    rdma_link_settle(link);
    assert_int_equal(events[RF_LINK_CLOSED], 1);
    rdma_lost_t lost = {.generation = 1};
    control_says(RDMA_CONTROL_LOST, &lost, sizeof lost);
    rdma_control_event(&endpoint, &control.head, RF_LINK_BROKEN, NULL);
    assert_int_equal(rdma_control_next(link), RF_NEVER);
    rdma_control_timers(link, RF_NEVER - 1);
    rdma_path_info_t answer = info_of(2);
    control_says(RDMA_CONTROL_ANSWER, &answer, sizeof answer);
    assert_int_equal(n_paths, 1);
    rdma_link_settle(link);
    assert_int_equal(link->head.state, RF_LINK_STATE_DEAD);
    assert_int_equal(events[RF_LINK_UP], 0);
    link_over(link);
}

static void offers_in_a_row_make_one_path(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    link->dialer = false;
    for (uint32_t generation = 2; generation < 12; generation++) {
        rdma_path_info_t offer = info_of(generation);
        control.n = control.at = 0;
        control_says(RDMA_CONTROL_OFFER, &offer, sizeof offer);
    }
    assert_null(link->wrong);
    assert_in_range(n_paths, 2, 3);
    assert_int_equal(link->lanes[RDMA_LANE_SLOTS].generation, 11);
    link_over(link);
}

/* Another format may be of another size. */
static void another_format_is_called_so(void **state)
{
    (void)state;
    rdma_link_t *link = link_up(64, RING);
    link->dialer = false;
    uint8_t offer[sizeof(rdma_path_info_t) + 8] = RDMA_MAGIC;
    offer[offsetof(rdma_path_info_t, format)] = RDMA_FORMAT + 1;
    control_says(RDMA_CONTROL_OFFER, offer, sizeof offer);
    assert_null(link->wrong);
    assert_int_equal(link->end_err, RF_ERR_VERSION);
    link_over(link);
    link = link_up(64, RING);
    link->dialer = false;
    offer[offsetof(rdma_path_info_t, format)] = RDMA_FORMAT;
    control_says(RDMA_CONTROL_OFFER, offer, sizeof offer);
    assert_non_null(link->wrong);
    link_over(link);
}

/* The peer frees a region before it can know that the region is to go. */
static void a_region_is_not_freed_before_it_was_asked_for(void **state)
{
    (void)state;
    static struct ibv_pd pd;
    static rdma_domain_t domain = {.pd = &pd, .holders = 1};
    rdma_link_t *link = link_up(64, RING);
    rf_region_t *region;
    link->domain = &domain;
    assert_int_equal(rdma_region_create(&link->head, RF_PAGE, &region), RF_OK);
    control.full = true;
    rdma_region_destroy(&link->head, region);
    rdma_region_gone_t gone = {.region = 0};
    control_says(RDMA_CONTROL_REGION_FREE, &gone, sizeof gone);
    assert_non_null(link->wrong);
    assert_non_null(link->bulk->regions[0].memory.base);
    link_over(link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_push_posted_may_be_acknowledged_within_it),
        cmocka_unit_test(what_a_push_posted_before_it_failed_may_have_come),
        cmocka_unit_test(room_is_asked_for_each_time),
        cmocka_unit_test(a_sleeper_with_slots_to_send_has_asked),
        cmocka_unit_test(a_smaller_ring_is_not_overrun),
        cmocka_unit_test(a_ring_between_poll_and_arm_is_not_lost),
        cmocka_unit_test(a_closed_link_makes_no_path),
        cmocka_unit_test(offers_in_a_row_make_one_path),
        cmocka_unit_test(another_format_is_called_so),
        cmocka_unit_test(a_region_is_not_freed_before_it_was_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
