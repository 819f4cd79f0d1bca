/*
 * Group operations inside the engine: the machine of consensus/group.h is stepped at most once in a step of this one, with
 * the event that concerns it, else with what the log has brought: who has left. One output lives until the next.
 */
#include "consensus/engine.h"

size_t engine_groups_size(const agreement_params_t *p)
{
    (void)p;
    return 0;
}

bool engine_groups_init(agreement_t *e)
{
    (void)e;
    return false;
}

void engine_groups_receive(agreement_t *e, const agreement_event_t *event)
{
    (void)e;
    (void)event;
}

void engine_groups_tick(agreement_t *e)
{
    (void)e;
}

void engine_groups_room(agreement_t *e, agreement_member_t peer)
{
    (void)e;
    (void)peer;
}

void engine_groups_fenced(agreement_t *e, agreement_member_t m)
{
    (void)e;
    (void)m;
}

void engine_groups_event(agreement_t *e, const group_event_t *event)
{
    (void)event;
    if (!e->groups) engine_ignore(e, "ignoring: groups are not used");
}

void engine_groups_finish(agreement_t *e)
{
    e->n_group_left = 0;
}
