/*
 * How much may be under way, after Swift (Kumar and others, SIGCOMM 2020):
 *
 *   target    a round trip that is allowed on a busy path + more for small windows (3.5, flow-based scaling), so that many
 *             flows to one port share it evenly
 *   below it  + 1 frame a round trip (window of a frame and more), or + as much as was acknowledged (less than a frame, or than half
 *             of what there was before a silence: RFC 5681, 3.1)
 *   above it  x (1 - 0.8 x (delay - target) / delay), at least x 0.5, once a round trip
 *   window below one frame: frames are paced, round trip / window apart (3.1)
 *
 * What differs. Delay is the whole round trip without the time the peer's acknowledgement waited, and without the time that
 * frames may have waited in the hosts until they were seen (Swift's endpoint delay, 3.2; here what passed since the host looked
 * last): link drivers share CPUs, and one that was off its CPU for a time slice is no busy path. The peer's own load is
 * held back by credit, not by a second window. On paths longer than the target the target is the path's least round trip and
 * half a target. That is measured, since one rack's link drivers poll and another's share a core: as BBR does (Cardwell and
 * others, ACM Queue 2016, "ProbeRTT"), who has not seen it for a while sends one frame at a time for a moment; others see
 * the queue get shorter, and do so at the same moment next time.
 *
 * A loss is a halving, once a round trip, only while delays say that frames wait. Otherwise wires that lose one frame in a
 * hundred would have no window: it goes down by half of the part that was lost of a round trip, as DCTCP does with marks
 * (Alizadeh and others, SIGCOMM 2010, 3.1).
 */
#include "transport/dpdk/flow_internal.h"

#define DECREASE_PERCENT 80 /* beta */
#define DECREASE_MAX     2  /* max_mdf: by a half */
#define SCALE_RANGE      2  /* fs_range, in delay targets */

#define LEAST_AGE_NS    (50 * RF_NS_PER_MS) /* the same for all, that they meet */
#define LEAST_DRAIN_MIN (LEAST_AGE_NS / 64) /* two round trips, within these */
#define LEAST_DRAIN_MAX (LEAST_AGE_NS / 4)

static uint64_t frame_window(const rf_flow_t *flow)
{
    return (uint64_t)flow_frame_bytes(flow->frame_slots) << 8;
}

static uint64_t window_max(const rf_flow_t *flow)
{
    return (uint64_t)flow_frame_bytes(flow->send_slots)
           << 9; /* twice its slots: small frames have more head */
}

static void window_set(rf_flow_t *flow, uint64_t window)
{
    flow->window = flow_max(flow_min(window, window_max(flow)), frame_window(flow) / FLOW_WINDOW_LEAST);
}

static uint64_t square_root(uint64_t x)
{
    uint64_t root = 0;
    for (uint64_t bit = 1ull << 16; bit; bit >>= 1)
        if ((root + bit) * (root + bit) <= x) root += bit;
    return root;
}

/* fs_range x (1/sqrt(window) - 1/sqrt(100)) / (1/sqrt(0.1) - 1/sqrt(100)), window in frames, within [0, fs_range]. */
static uint64_t scaling_ns(const rf_flow_t *flow)
{
    uint64_t range = SCALE_RANGE * flow->delay_target_ns;
    uint64_t root = square_root((flow->window << 8) / frame_window(flow)); /* 16 x sqrt(window in frames) */
    if (root == 0) return range;
    uint64_t inverse = 16000 / root; /* 1000 / sqrt(window) */
    if (inverse <= 100) return 0;
    return flow_min(range, range * (inverse - 100) / (3162 - 100));
}

static void target_set(rf_flow_t *flow)
{
    /* What takes a root and divisions does not change with each round trip: not on a path that is hardly used. */
    if (flow->scaling_window != flow->window || flow->scaling_slots != flow->frame_slots) {
        flow->scaling_ns = scaling_ns(flow);
        flow->scaling_window = flow->window;
        flow->scaling_slots = flow->frame_slots;
    }
    flow->target_ns =
        flow_max(flow->delay_target_ns, flow->rtt_least_ns + flow->delay_target_ns / 2) + flow->scaling_ns;
}

/* Do frames wait somewhere: a quarter of the way from the empty path to the target? */
static bool queued(const rf_flow_t *flow)
{
    return 4 * flow->path_last_ns > 3 * flow->rtt_least_ns + flow->target_ns;
}

void flow_swift_init(rf_flow_t *flow)
{
    window_set(flow, FLOW_WINDOW_FRAMES * frame_window(flow));
    target_set(flow);
}

static bool may_decrease(const rf_flow_t *flow, uint64_t now_ns)
{
    return now_ns - flow->decreased_ns >= flow->rtt_ns;
}

/* At the end of a round trip: the part that was lost of it. */
static void round_end(rf_flow_t *flow, uint64_t now_ns)
{
    uint64_t lost = flow->round_lost, all = lost + flow->round_acked;
    if (lost > 0 && may_decrease(flow, now_ns)) {
        window_set(flow, flow->window -
                             (queued(flow) ? flow->window / DECREASE_MAX : flow->window / 2 * lost / all));
        flow->decreased_ns = now_ns;
    }
    flow->round_lost = flow->round_acked = 0;
    flow->round_end = flow->number;
    target_set(flow);
}

/* Half of the window was in use when this came. */
static bool in_use(const rf_flow_t *flow, const flow_acks_t *acks)
{
    return (uint64_t)acks->in_flight_bytes << 9 >= flow->window;
}

/* The least round trip of the path (BBR, see above). */
static void least_measured(rf_flow_t *flow, const flow_acks_t *acks, uint64_t rtt_ns)
{
    uint64_t now_ns = acks->came_ns;
    if (flow->rtt_least_ns == 0 || rtt_ns <= flow->rtt_least_ns + flow->rtt_least_ns / 32) {
        flow->least_seen_ns = now_ns;
        if (flow->rtt_least_ns == 0 || rtt_ns < flow->rtt_least_ns) flow->rtt_least_ns = rtt_ns;
    } else if (now_ns - flow->least_seen_ns > LEAST_AGE_NS) {
        flow->least_seen_ns = now_ns;
        flow->rtt_least_ns = rtt_ns;
        if (in_use(flow, acks))
            flow->drain_end_ns =
                now_ns + flow_min(flow_max(2 * flow->rtt_ns, LEAST_DRAIN_MIN), LEAST_DRAIN_MAX);
    }
}

/* The part of a round trip that the path took: at least what it takes when nothing waits. */
static uint64_t of_path(const rf_flow_t *flow, uint64_t rtt_ns, uint64_t late_ns)
{
    if (flow->rtt_least_ns == 0) return rtt_ns;
    return flow_max(rtt_ns - flow_min(late_ns, rtt_ns), flow_min(rtt_ns, flow->rtt_least_ns));
}

void flow_swift_acked(rf_flow_t *flow, const flow_acks_t *acks, uint32_t bytes, uint64_t rtt_ns)
{
    uint64_t now_ns = acks->came_ns;
    flow->round_acked += bytes;
    rtt_ns = of_path(flow, rtt_ns, acks->late_ns);
    if (rtt_ns > 0) {
        least_measured(flow, acks, rtt_ns);
        flow->path_last_ns = rtt_ns;
    }
    if (rtt_ns > flow->target_ns) {
        if (may_decrease(flow, now_ns)) {
            uint64_t over = (rtt_ns - flow->target_ns) * 1024 / rtt_ns;
            uint64_t cut = flow->window * DECREASE_PERCENT / 100 * over / 1024;
            window_set(flow, flow->window - flow_min(cut, flow->window / DECREASE_MAX));
            flow->decreased_ns = now_ns;
            target_set(flow);
        }
    } else if (in_use(flow, acks)) {
        uint64_t frame = frame_window(flow);
        bool fast = flow->window < flow_max(frame, flow->window_known);
        uint64_t more = fast ? (uint64_t)bytes << 8 : frame * ((uint64_t)bytes << 8) / flow->window;
        window_set(flow, flow->window + more);
    }
    if (flow->acked_top > flow->round_end) round_end(flow, now_ns);
}

void flow_swift_lost(rf_flow_t *flow, uint32_t bytes)
{
    flow->round_lost += bytes;
}

void flow_swift_unlost(rf_flow_t *flow, uint32_t bytes)
{
    flow->round_lost -= (uint32_t)flow_min(bytes, flow->round_lost);
}

void flow_swift_silence(rf_flow_t *flow, uint64_t now_ns)
{
    flow->window_known = flow->window / 2;
    window_set(flow, flow_min(flow->window, frame_window(flow)));
    flow->decreased_ns = now_ns;
}

bool flow_swift_allows(const rf_flow_t *flow, uint32_t bytes, uint64_t now_ns)
{
    if (now_ns < flow->drain_end_ns) return flow->in_flight_bytes == 0;
    if ((uint64_t)(flow->in_flight_bytes + bytes) << 8 <= flow->window) return true;
    return flow->in_flight_bytes == 0 && now_ns >= flow->paced_ns;
}

void flow_swift_sent(rf_flow_t *flow, uint32_t bytes, uint64_t now_ns)
{
    if (flow->window >= frame_window(flow)) {
        flow->paced_ns = 0;
        return;
    }
    uint64_t apart = flow->rtt_ns * ((uint64_t)bytes << 8) / flow->window;
    flow->paced_ns = now_ns + flow_min(apart, FLOW_PACE_MAX_NS);
}
