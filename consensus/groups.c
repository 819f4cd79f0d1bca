/*
 * Group operations inside the engine: the machine of consensus/group.h is stepped at most once in a step of this one, because
 * one output lives until the next: with the event that concerns it, else with what the log has brought (a view), else with
 * the time. Entries after a view with leavers are applied when it has been told.
 *
 * Groups are told of every view, also of those that nobody left with: members compare the numbers of the views in which they
 * resolve a departure, so all must come to the same number, whether they learn of it by the log or by a snapshot. Of several
 * views at once, the last: with its number go all who have left until then.
 */
#include "consensus/engine.h"

static group_params_t params_of(const agreement_params_t *p)
{
    group_params_t params = p->group;
    params.self = p->self;
    params.n_cores = p->n_cores;
    return params;
}

size_t engine_groups_size(const agreement_params_t *p)
{
    group_params_t params = params_of(p);
    return groups_size(&params);
}

bool engine_groups_init(agreement_t *e)
{
    group_params_t params = params_of(&e->params);
    return groups_init(e->groups, groups_size(&params), &params, &e->groups) == RF_OK;
}

static bool untold(const agreement_t *e)
{
    return e->n_group_left > 0 || e->groups_view != e->view;
}

const groups_t *agreement_groups(const agreement_t *e)
{
    return e->groups;
}

static void step(agreement_t *e, group_event_t *event)
{
    event->now_ns = e->now_ns;
    const group_output_t *out = groups_step(e->groups, event);
    e->output.group = out;
    e->groups_tick_ns = out->next_tick_ns;
    e->groups_more = out->more;
    if (out->ignored) engine_ignore(e, out->ignored);
    if (out->err != RF_OK) e->output.err = out->err;
}

void engine_groups_receive(agreement_t *e, const agreement_event_t *event)
{
    group_event_t in = {.kind = GROUP_RECEIVE};
    in.receive.from = event->receive.from;
    in.receive.type = event->receive.type;
    in.receive.bytes = event->receive.bytes;
    in.receive.size = event->receive.size;
    step(e, &in);
}

void engine_groups_tick(agreement_t *e)
{
    group_event_t in = {.kind = GROUP_TICK};
    if (e->groups && !untold(e) && (e->groups_more || e->now_ns >= e->groups_tick_ns)) step(e, &in);
}

void engine_groups_room(agreement_t *e, agreement_member_t peer)
{
    group_event_t in = {.kind = GROUP_ROOM, .peer = peer};
    if (e->groups) step(e, &in);
}

void engine_groups_fenced(agreement_t *e, agreement_member_t m)
{
    group_event_t in = {.kind = GROUP_FENCED, .fenced = m};
    if (e->groups) step(e, &in);
}

void engine_groups_event(agreement_t *e, const group_event_t *event)
{
    group_event_t in = *event;
    if (!e->groups) {
        engine_ignore(e, "ignoring: groups are not used");
        return;
    }
    if (in.kind < GROUP_FORM) {
        engine_ignore(e, "ignoring: the engine itself tells groups of time, messages and views");
        return;
    }
    step(e, &in);
}

/* After a snapshot: all that have ever left, of each core the last. */
void engine_groups_loaded(agreement_t *e)
{
    e->n_group_left = 0;
    for (rf_core_t core = 0; core < e->params.n_cores && e->groups; core++) {
        rf_incarnation_t last = member_incarnation(e, core);
        if (member_state(e, core) == AGREEMENT_MEMBER_IN) last--;
        if (last > 0)
            e->group_left[e->n_group_left++] = (agreement_member_t){.core = core, .incarnation = last};
    }
}

void engine_groups_finish(agreement_t *e)
{
    if (!e->groups) return;
    if (untold(e) && !e->output.group) {
        group_event_t in = {.kind = GROUP_VIEW};
        in.view.view = e->view;
        in.view.left = e->group_left;
        in.view.n_left = e->n_group_left;
        step(e, &in);
        e->n_group_left = 0;
        e->groups_view = e->view;
    }
    e->output.more |= e->groups_more || untold(e) || e->applied < e->committed;
}
