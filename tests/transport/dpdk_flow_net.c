/* See dpdk_flow_net.h. */
#include "dpdk_flow_net.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

#define PORT_FRAMES 32 /* that a port holds; a driver asks its flows for no more */

struct net_frame {
    uint64_t at_ns, drawn;
    unsigned to;
    uint32_t size;
    bool at_switch; /* else it arrives at `to` */
    bool waited;    /* until `to` was run again */
    uint8_t bytes[];
};

rf_flow_params_t net_params(void)
{
    rf_flow_params_t params = {
        .seal = RF_SEAL_SIGN,
        .frame_max = 1472,
        .frame_safe = 1472,
        .send_slots = 1024,
        .receive_slots = 1024,
        .credit = 1024,
        .deadline_ns = RF_NS_PER_S,
    };
    memset(params.secret, 7, sizeof params.secret);
    return params;
}

void net_open(net_t *net, uint64_t seed, const net_knobs_t *knobs, unsigned pairs,
              const rf_flow_params_t *params)
{
    memset(net, 0, sizeof *net);
    rf_prng_seed(&net->prng, seed);
    net->knobs = *knobs;
    net->n_hosts = 2 * pairs;
    net->heap_max = 1u << 16;
    net->heap = malloc(net->heap_max * sizeof *net->heap);
    rf_assert(net->heap && pairs <= NET_PAIRS_MAX);
    for (unsigned i = 0; i < net->n_hosts; i++) {
        rf_flow_params_t p = *params;
        p.id = 100 + i;
        p.id_peer = 100 + (i ^ 1);
        p.dialer = (i & 1) == 0;
        p.secret[0] = (uint8_t)(i / 2);
        rf_assert(rf_flow_open(&p, 0, &net->hosts[i].flow) == RF_OK);
    }
}

void net_close(net_t *net)
{
    for (unsigned i = 0; i < net->n_hosts; i++) rf_flow_close(net->hosts[i].flow);
    for (unsigned i = 0; i < net->n_heap; i++) free(net->heap[i]);
    free(net->heap);
}

void net_age(net_t *net, uint64_t slots, uint64_t frames)
{
    for (unsigned i = 0; i < net->n_hosts; i++) {
        rf_flow_t *flow = net->hosts[i].flow;
        flow->base = flow->sent = flow->end = slots;
        flow->taken = flow->next = flow->beyond = slots;
        flow->credit += slots;
        flow->credit_said += slots;
        flow->number = flow->oldest = flow->acked_top = flow->top = frames;
        net->hosts[i].written = net->hosts[i].taken = slots;
        net->hosts[i].to_send += slots;
    }
}

/* The heap: earliest first, ties in the order drawn. */
static bool before(const net_frame_t *a, const net_frame_t *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->drawn < b->drawn;
}

static void heap_push(net_t *net, net_frame_t *frame)
{
    rf_assert(net->n_heap < net->heap_max);
    unsigned i = net->n_heap++;
    for (; i > 0 && before(frame, net->heap[(i - 1) / 2]); i = (i - 1) / 2)
        net->heap[i] = net->heap[(i - 1) / 2];
    net->heap[i] = frame;
}

static net_frame_t *heap_pop(net_t *net)
{
    net_frame_t *first = net->heap[0], *last = net->heap[--net->n_heap];
    unsigned i = 0;
    for (unsigned child = 1; child < net->n_heap; child = 2 * i + 1) {
        if (child + 1 < net->n_heap && before(net->heap[child + 1], net->heap[child])) child++;
        if (!before(net->heap[child], last)) break;
        net->heap[i] = net->heap[child];
        i = child;
    }
    net->heap[i] = last;
    return first;
}

static bool chance(net_t *net, uint32_t millionths)
{
    return millionths > 0 && rf_prng_below(&net->prng, 1000000) < millionths;
}

static uint64_t serial_ns(uint64_t bytes, uint64_t bps)
{
    return bps ? (bytes + 66) * 8 * RF_NS_PER_S / bps : 0; /* headers, preamble, gap */
}

/* Through the queue of the switch: when it is out, or RF_NEVER. */
static uint64_t queue_out_ns(net_t *net, uint64_t at_ns, uint32_t size)
{
    uint64_t waiting_ns = net->queue_free_ns > at_ns ? net->queue_free_ns - at_ns : 0;
    uint64_t bytes = waiting_ns * (net->knobs.queue_bps / 1000000) / 8000 + size;
    if (bytes > net->knobs.queue_bytes) {
        net->queue_dropped++;
        return RF_NEVER;
    }
    if (bytes > net->queue_peak_bytes) net->queue_peak_bytes = bytes;
    net->queue_free_ns = at_ns + waiting_ns + serial_ns(size, net->knobs.queue_bps);
    return net->queue_free_ns;
}

static void frame_push(net_t *net, net_frame_t *frame, uint64_t at_ns)
{
    frame->at_ns = at_ns;
    frame->drawn = net->drawn++;
    heap_push(net, frame);
}

static net_frame_t *frame_make(unsigned to, const uint8_t *bytes, uint32_t size)
{
    net_frame_t *frame = malloc(sizeof *frame + size);
    rf_assert(frame);
    *frame = (net_frame_t){.to = to, .size = size};
    memcpy(frame->bytes, bytes, size);
    return frame;
}

static void damage(net_t *net, net_frame_t *frame)
{
    if (chance(net, net->knobs.flip)) {
        uint64_t bit = rf_prng_below(&net->prng, 8ull * frame->size);
        frame->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    if (chance(net, net->knobs.cut)) frame->size = (uint32_t)rf_prng_below(&net->prng, frame->size);
}

/* The rest of the way, from the switch on (backwards: all of it). */
static void travels(net_t *net, net_frame_t *frame, uint64_t out_ns)
{
    unsigned way = frame->to & 1 ? 0 : 1;
    net_host_t *from = &net->hosts[frame->to ^ 1];
    uint64_t at_ns = out_ns + net->knobs.delay_ns;
    if (net->knobs.jitter_ns) at_ns += rf_prng_below(&net->prng, net->knobs.jitter_ns);
    if (at_ns < from->ordered_ns) at_ns = from->ordered_ns;
    from->ordered_ns = at_ns;
    if (chance(net, net->knobs.late[way])) at_ns += rf_prng_below(&net->prng, net->knobs.late_ns) + 1;
    if (chance(net, net->knobs.repeat[way])) {
        net_frame_t *again = frame_make(frame->to, frame->bytes, frame->size);
        frame_push(net, again, at_ns + rf_prng_below(&net->prng, net->knobs.delay_ns + 1));
    }
    damage(net, frame);
    frame->at_switch = false;
    frame_push(net, frame, at_ns);
}

/* A frame has come to the queue of the switch. */
static void queues(net_t *net, net_frame_t *frame)
{
    uint64_t out_ns = queue_out_ns(net, net->now_ns, frame->size);
    if (out_ns == RF_NEVER)
        free(frame);
    else
        travels(net, frame, out_ns);
}

/* Is it one of those that are lost in a row? */
static bool in_row(net_t *net)
{
    uint32_t every = net->knobs.row_every;
    return every > 0 && net->rows++ % every >= every - net->knobs.row;
}

/* A frame leaves a host's port. */
static void leaves(net_t *net, unsigned from, const uint8_t *bytes, uint32_t size)
{
    net_host_t *host = &net->hosts[from];
    unsigned way = from & 1;
    host->frames++;
    host->port_free_ns = (host->port_free_ns > net->now_ns ? host->port_free_ns : net->now_ns) +
                         serial_ns(size, net->knobs.port_bps);
    if (chance(net, net->knobs.burst)) host->burst_end_ns = net->now_ns + net->knobs.burst_ns;
    bool lost = chance(net, net->knobs.loss[way]) || net->now_ns < host->burst_end_ns || in_row(net);
    if (lost || net->cut || (net->knobs.path_bytes && size > net->knobs.path_bytes)) return;
    net_frame_t *frame = frame_make(from ^ 1, bytes, size);
    if (way == 0 && net->knobs.queue_bps > 0) {
        frame->at_switch = true;
        frame_push(net, frame, host->port_free_ns);
    } else {
        travels(net, frame, host->port_free_ns);
    }
}

static void slot_make(rf_slot_t *slot, unsigned from, uint64_t number)
{
    for (unsigned i = 0; i < 7; i++) slot->words[i] = (number * 7 + i) * 0x9e3779b97f4a7c15ull ^ from;
    slot->control = number;
}

static void writes(net_t *net, unsigned h)
{
    net_host_t *host = &net->hosts[h];
    if (net->now_ns < host->starts_ns) return;
    while (host->written < host->to_send) {
        rf_slot_t *slots;
        unsigned n = rf_flow_send_span(host->flow, &slots);
        if (n == 0) return;
        if (n > host->to_send - host->written) n = (unsigned)(host->to_send - host->written);
        for (unsigned i = 0; i < n; i++) slot_make(&slots[i], h, host->written++);
        rf_flow_send_commit(host->flow, n);
    }
}

static void takes(net_t *net, unsigned h)
{
    net_host_t *host = &net->hosts[h];
    unsigned left = host->take_every_ns ? 16 : UINT32_MAX;
    if (net->now_ns < host->take_ns) return;
    for (;;) {
        const rf_slot_t *slots;
        unsigned n = rf_flow_take_span(host->flow, &slots);
        if (n > left) n = left;
        if (n == 0) break;
        for (unsigned i = 0; i < n; i++) {
            rf_slot_t expected;
            slot_make(&expected, h ^ 1, host->taken++);
            rf_assert(memcmp(&expected, &slots[i], sizeof expected) == 0);
        }
        rf_flow_take_commit(host->flow, n);
        left -= n;
    }
    if (host->take_every_ns) host->take_ns = net->now_ns + host->take_every_ns;
    if (host->done_ns == 0 && host->taken == net->hosts[h ^ 1].to_send) host->done_ns = net->now_ns;
}

static void port_room(net_t *net, unsigned h)
{
    uint8_t frame[RF_FLOW_FRAME_MAX];
    net_host_t *host = &net->hosts[h];
    uint64_t full_ns = PORT_FRAMES * serial_ns(1472, net->knobs.port_bps);
    for (;;) {
        if (net->knobs.port_bps && host->port_free_ns > net->now_ns + full_ns) return;
        if (rf_flow_next_ns(host->flow) > net->now_ns) return;
        size_t size = rf_flow_transmit(host->flow, frame, sizeof frame, net->now_ns);
        if (size > 0) leaves(net, h, frame, (uint32_t)size);
        writes(net, h);
    }
}

/* When a host runs again: now, unless it stalls. */
static uint64_t runs_ns(const net_t *net, unsigned h)
{
    uint64_t every_ns = net->knobs.stall_every_ns;
    if (every_ns == 0 || ((h & 1) == 0 && !net->knobs.stall_both)) return net->now_ns;
    uint64_t phase = (net->now_ns + (h & 1 ? 0 : 3 * every_ns / 4)) % every_ns;
    return phase < net->knobs.stall_ns ? net->now_ns - phase + net->knobs.stall_ns : net->now_ns;
}

/* When a host has something to do, if no frame comes. */
static uint64_t host_next_ns(const net_t *net, unsigned h)
{
    const net_host_t *host = &net->hosts[h];
    if (!host->flow) return RF_NEVER;
    uint64_t next_ns = rf_flow_next_ns(host->flow);
    uint64_t full_ns = PORT_FRAMES * serial_ns(1472, net->knobs.port_bps);
    if (net->knobs.port_bps && host->port_free_ns > full_ns) {
        uint64_t room_ns = host->port_free_ns - full_ns;
        if (next_ns < room_ns) next_ns = room_ns;
    }
    if (host->written < host->to_send && host->starts_ns > net->now_ns && host->starts_ns < next_ns)
        next_ns = host->starts_ns;
    if (host->take_every_ns && host->flow->taken < host->flow->next && host->take_ns < next_ns)
        next_ns = host->take_ns;
    if (next_ns <= net->now_ns) next_ns = runs_ns(net, h);
    return next_ns;
}

static void digest(net_t *net, uint64_t word)
{
    net->digest = (net->digest ^ word) * 0x100000001b3ull;
}

static void host_step(net_t *net, unsigned h)
{
    if (!net->hosts[h].flow || runs_ns(net, h) > net->now_ns) return;
    takes(net, h);
    writes(net, h);
    port_room(net, h);
}

bool net_done(const net_t *net)
{
    for (unsigned i = 0; i < net->n_hosts; i++) {
        const net_host_t *host = &net->hosts[i], *peer = &net->hosts[i ^ 1];
        if (!host->flow) continue;
        if (host->written < host->to_send || host->taken < peer->to_send || !rf_flow_drained(host->flow))
            return false;
    }
    return true;
}

bool net_run(net_t *net, uint64_t until_ns, bool done)
{
    for (unsigned i = 0; i < net->n_hosts; i++) host_step(net, i);
    for (;;) {
        if (done && net_done(net)) return true;
        uint64_t next_ns = net->n_heap ? net->heap[0]->at_ns : RF_NEVER;
        for (unsigned i = 0; i < net->n_hosts; i++) next_ns = flow_min(next_ns, host_next_ns(net, i));
        if (next_ns > until_ns) {
            net->now_ns = until_ns;
            return net_done(net);
        }
        net->now_ns = flow_max(net->now_ns, next_ns);
        digest(net, net->now_ns);
        while (net->n_heap && net->heap[0]->at_ns <= net->now_ns) {
            net_frame_t *frame = heap_pop(net);
            if (frame->at_switch) {
                queues(net, frame);
                continue;
            }
            if (runs_ns(net, frame->to) > net->now_ns) { /* waits in its port */
                frame->waited = true;
                frame_push(net, frame, runs_ns(net, frame->to));
                continue;
            }
            net_host_t *host = &net->hosts[frame->to];
            digest(net, frame->to << 16 | frame->size);
            uint64_t late_ns = frame->waited && net->knobs.stall_seen ? net->knobs.stall_ns : 0;
            if (host->flow)
                rf_flow_receive_since(host->flow, frame->bytes, frame->size, net->now_ns - late_ns,
                                      net->now_ns);
            host_step(net, frame->to);
            free(frame);
        }
        for (unsigned i = 0; i < net->n_hosts; i++)
            if (host_next_ns(net, i) <= net->now_ns) host_step(net, i);
    }
}
