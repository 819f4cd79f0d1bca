/* The workload of group operations: each client is a domain on some core that maps, unmaps (one-phase) and retypes
 * (two-phase, also over several groups), one operation at a time; an operation whose process dies has no outcome. */
#include "groups.h"

#include <stdlib.h>

static void arm(sim_world_t *w, sim_client_t *c, uint64_t delay_ns)
{
    c->stamp++;
    sim_push(w, w->now_ns + delay_ns + 1, SIM_EVENT_CLIENT)->x = (uint64_t)c->stamp << 32 | c->number;
}

void sim_groups_begin(sim_world_t *w)
{
    sim_groups_t *l = w->groups;
    l->n_groups = (unsigned)sim_between(&w->work, 1, SIM_GROUPS_MAX);
    if (w->steps_groups) l->n_groups = 1;
    for (unsigned g = 0; g < l->n_groups; g++) {
        sim_event_t *event = sim_push(w, RF_NS_PER_US * (g + 1), SIM_EVENT_FORM);
        event->core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
        if (w->steps_groups) event->core = 0;
        event->life = w->processes[event->core].life;
        event->peer.incarnation = g + 1;
        event->x = rf_prng_next(&w->work);
    }
}

void sim_groups_client_start(sim_world_t *w, unsigned number)
{
    sim_client_t *c = &w->clients[number];
    *c = (sim_client_t){.number = number};
    arm(w, c, sim_exponential(&w->work, w->think_ns));
}

static void begin(sim_world_t *w, sim_client_t *c)
{
    if (w->operations_left == 0) {
        c->state = SIM_CLIENT_REST;
        return;
    }
    c->core = (rf_core_t)rf_prng_below(&w->work, w->n_cores);
    sim_process_t *p = &w->processes[c->core];
    c->life = p->life;
    c->state = SIM_CLIENT_WAITING;
    c->started_ns = w->now_ns;
    arm(w, c, 5 * RF_NS_PER_MS);
    if (!p->alive) return;
    w->operations_left--;
    sim_event_t *event = sim_push(w, w->now_ns + sim_exponential(&w->work, RF_NS_PER_US), SIM_EVENT_REQUEST);
    event->core = p->core;
    event->life = p->life;
    event->x = (uint64_t)c->stamp << 32 | c->number;
    c->sequence = c->stamp;
}

void sim_groups_client_timer(sim_world_t *w, const sim_event_t *event)
{
    sim_client_t *c = &w->clients[(uint32_t)event->x];
    if (c->stamp != event->x >> 32) return;
    if (c->state == SIM_CLIENT_REST) return;
    if (c->state == SIM_CLIENT_WAITING) {
        const sim_process_t *p = &w->processes[c->core];
        if (p->alive && p->life == c->life) { /* it will be answered, however long it takes */
            c->stamp++;
            sim_push(w, w->now_ns + 5 * RF_NS_PER_MS, SIM_EVENT_CLIENT)->x =
                (uint64_t)c->stamp << 32 | c->number;
            return;
        }
        w->statistics->unknown++;
        w->statistics->operations++;
    }
    begin(w, c);
}

void sim_groups_client_done(sim_world_t *w, unsigned client, uint32_t stamp)
{
    if (client >= w->n_clients) return;
    sim_client_t *c = &w->clients[client];
    if (c->state != SIM_CLIENT_WAITING || c->sequence != stamp) return;
    c->state = SIM_CLIENT_IDLE;
    arm(w, c, sim_exponential(&w->work, rf_prng_below(&w->work, 2) ? w->think_ns / 100 : w->think_ns * 2));
}

/* A domain comes to this core: it joins one of the groups through somebody who holds it. */
static bool join(sim_world_t *w, sim_client_t *c, group_event_t *out)
{
    out->kind = GROUP_JOIN;
    out->change.group = 1 + rf_prng_below(&w->work, w->groups->n_groups);
    out->change.cookie = c->sequence << 32 | c->number;
    for (unsigned tries = 0; tries < 2 * w->n_cores; tries++) {
        const sim_process_t *p = &w->processes[rf_prng_below(&w->work, w->n_cores)];
        group_info_t info;
        if (p->core == c->core || !p->alive || !sim_group_members(p, out->change.group, &info)) continue;
        out->change.through = (agreement_member_t){.core = p->core, .incarnation = p->incarnation};
        return true;
    }
    sim_groups_client_done(w, c->number, (uint32_t)c->sequence); /* nobody has it any more */
    return false;
}

bool sim_groups_client_request(sim_world_t *w, sim_process_t *p, const sim_event_t *event, group_event_t *out)
{
    static _Thread_local uint64_t groups[GROUP_OBJECTS_MAX];
    static _Thread_local uint8_t bytes[64];
    sim_client_t *c = &w->clients[(uint32_t)event->x];
    uint64_t held[SIM_GROUPS_MAX];
    unsigned n = 0;
    if (c->state != SIM_CLIENT_WAITING || c->sequence != event->x >> 32) return false;
    for (uint64_t g = 1; g <= w->groups->n_groups; g++) {
        group_info_t info;
        if (sim_group_members(p, g, &info)) held[n++] = g;
    }
    if (n == 0 || rf_prng_below(&w->work, 16) == 0) return join(w, c, out);
    if (rf_prng_below(&w->work, 32) == 0 && !w->steps_groups) { /* of which the model knows nothing */
        out->kind = GROUP_LEAVE;                                /* refused if it is the owner */
        out->change.group = held[rf_prng_below(&w->work, n)];
        out->change.cookie = c->sequence << 32 | c->number;
        return true;
    }
    bool two = rf_prng_below(&w->work, 2);
    out->kind = GROUP_OPERATE;
    unsigned first = (unsigned)rf_prng_below(&w->work, n),
             wanted = two && n > 1 && rf_prng_below(&w->work, 3) == 0 ? 2 : 1;
    for (unsigned i = 0; i < wanted; i++) groups[i] = held[(first + i) % n];
    if (wanted == 2 && groups[0] > groups[1]) {
        uint64_t higher = groups[0];
        groups[0] = groups[1];
        groups[1] = higher;
    }
    memset(bytes, (int)c->stamp, sizeof bytes);
    out->operate.cookie = c->sequence << 32 | (two ? 1u << 9 : 0) | 1u << 8 | c->number;
    out->operate.phase = two ? GROUP_TWO_PHASE : GROUP_ONE_PHASE;
    out->operate.groups = groups;
    out->operate.n_groups = wanted;
    out->operate.bytes = bytes;
    out->operate.size = (size_t)sim_between(&w->work, 1, sizeof bytes);
    return true;
}

bool sim_groups_at_rest(sim_world_t *w, char *why, size_t why_size)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const sim_client_t *c = &w->clients[i];
        if (c->state == SIM_CLIENT_REST) continue;
        snprintf(why, why_size, "client %u on core %u has no answer since %.3f ms", i, c->core,
                 (double)(w->now_ns - c->started_ns) / 1e6);
        return false;
    }
    return true;
}

void sim_groups_free(sim_world_t *w)
{
    if (!w->groups) return;
    free(w->groups->ops);
    free(w->groups->views);
    for (unsigned g = 0; g < SIM_GROUPS_MAX; g++) free(w->groups->order[g]);
    free(w->groups);
}

void sim_groups_print(const sim_world_t *w, const sim_process_t *p, FILE *out)
{
    fprintf(out, "%s", p->busy_until_ns > w->now_ns ? "stalled, " : "");
    for (uint64_t g = 1; g <= w->groups->n_groups; g++) {
        group_info_t info;
        if (!sim_group_members(p, g, &info)) continue;
        fprintf(out, " [group %llu, epoch %llu, number %llu, owner %u.%u%s:", (unsigned long long)g,
                (unsigned long long)info.epoch, (unsigned long long)info.number, info.owner.core,
                info.owner.incarnation, info.wedged ? ", wedged" : "");
        for (unsigned i = 0; i < info.n_members; i++)
            fprintf(out, " %u.%u", info.members[i].core, info.members[i].incarnation);
        fprintf(out, "]");
    }
    fputc('\n', out);
}
