/*
 * One-sided append between whole monitors: what their shells do for them (monitor/lane_links.c), with the memory of lanes.c, which is torn,
 * late and cut as anywhere else. A link that is dialled is there, or is not, after a while; what happens to it then is the lane's.
 */
#include "sim/monitors.h"

_Static_assert(MONITOR_LANE_LINES_MAX == SIM_LANE_LINES_WHOLE, "one size");

static void order(sim_world_t *w, const sim_process_t *p, const monitor_action_t *a,
                  agreement_lane_order_t what)
{
    agreement_lane_output_t out = {.order = what,
                                   .peer = {.core = a->core, .incarnation = a->incarnation},
                                   .id = a->lane,
                                   .term = a->number};
    sim_lanes_order(w, p, &out);
}

bool sim_mlanes_act(sim_world_t *w, const sim_process_t *p, const monitor_action_t *a)
{
    agreement_member_t peer = {.core = a->core, .incarnation = a->incarnation};
    agreement_write_t write = {.to = peer,
                               .id = a->lane,
                               .number = a->number,
                               .offset = a->offset,
                               .size = (uint32_t)a->size,
                               .bytes = a->bytes};
    switch ((monitor_action_kind_t)a->kind) {
    case MONITOR_DO_LANE_STANDBY:
        sim_lanes_standby(w, p, peer);
        return true;
    case MONITOR_DO_LANE_DROP:
        return true;
    case MONITOR_DO_LANE_GRANT:
        order(w, p, a, AGREEMENT_LANE_GRANT);
        return true;
    case MONITOR_DO_LANE_REVOKE:
        order(w, p, a, AGREEMENT_LANE_REVOKE);
        return true;
    case MONITOR_DO_LANE_WRITE:
        sim_lanes_write(w, p, &write);
        return true;
    default:
        return false;
    }
}

bool sim_mlanes_event(sim_world_t *w, const sim_process_t *p, const sim_event_t *event, monitor_event_t *out)
{
    static const monitor_event_kind_t kinds[] = {
        [AGREEMENT_LANE_READY] = MONITOR_LANE_READY,     [AGREEMENT_LANE_UNREADY] = MONITOR_LANE_UNREADY,
        [AGREEMENT_LANE_LINES] = MONITOR_LANE_LINES,     [AGREEMENT_LANE_REVOKED] = MONITOR_LANE_REVOKED,
        [AGREEMENT_LANE_GRANTED] = MONITOR_LANE_GRANTED, [AGREEMENT_LANE_WRITTEN] = MONITOR_LANE_WRITTEN};
    agreement_lane_event_t lane = {0};
    if (!sim_lanes_event(w, p, event, &lane)) return false;
    *out = (monitor_event_t){.kind = kinds[lane.kind],
                             .core = lane.peer.core,
                             .incarnation = lane.peer.incarnation,
                             .err = lane.err};
    out->lane.id = lane.id;
    out->lane.number = lane.kind == AGREEMENT_LANE_GRANTED ? lane.term : lane.number;
    out->lane.lines = lane.lines;
    return true;
}

/* The shell polls one word: what could not be taken all at once is told again. (One that is there in part is told of when the rest is; and what
 * an earlier lane left in this memory, where shells have fresh memory for each, is no record of this one.) */
void sim_mlanes_told(sim_world_t *w, const sim_process_t *p, const sim_event_t *event, const sim_monitor_t *m)
{
    if (m->lane_number && sim_lanes_show_word(w, p, m->lane_offset, m->lane_number))
        sim_lanes_again(w, p, event);
}
