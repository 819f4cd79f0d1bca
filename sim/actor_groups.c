/*
 * The actor of group operations: consensus/group.h by itself, under views that an oracle gives. The oracle says who has left,
 * each process hears of it in the order of views at its own time, and of a fence only after the process is gone. So the
 * machine of groups is seen under more interleavings than the log would let through.
 *
 * Each process carries out actions late, as domains and CPU drivers do: what PREPARE and APPLY ask for takes effect when it
 * is answered. What is kept of every operation, over all processes, is a sim_group_op_t; check_group_*.c judge by it.
 */
#include "sim.h"
#include "groups.h"

#include <stdlib.h>

typedef struct pending { /* an action that is to be answered */
    bool used;
    group_action_kind_t kind;
    uint64_t token;
    uint32_t op;
    uint64_t groups[GROUP_OBJECTS_MAX];
    unsigned n_groups;
    uint64_t number;
} pending_t;

#define PENDING_MAX 32
#define FORMING     0xffu /* cookies of clients end in their numbers */

typedef struct state { /* of a process; the machine's memory follows it */
    groups_t *groups;
    const group_output_t *output;
    unsigned next_action;
    uint64_t view; /* has heard of views up to this one */
    pending_t pending[PENDING_MAX];
    uint64_t holds_since_ns[SIM_GROUPS_MAX]; /* RF_NEVER: does not hold it */
    uint64_t applied[SIM_GROUPS_MAX];        /* operations, of each group */
} state_t;

static state_t *state_of(const sim_process_t *p)
{
    return p->memory;
}

static sim_groups_t *ledger_of(sim_world_t *w)
{
    return w->groups;
}

/* ---- operations ---- */

uint32_t sim_group_op_find(sim_world_t *w, const group_op_id_t *id)
{
    sim_groups_t *l = ledger_of(w);
    for (uint32_t i = l->n_ops; i-- > 0;) { /* asked for soon after they are made */
        const group_op_id_t *known = &l->ops[i].id;
        if (known->counter == id->counter && known->group == id->group &&
            known->member.core == id->member.core && known->member.incarnation == id->member.incarnation)
            return i;
    }
    return SIM_NONE;
}

/* The operation of that id; the first to name it is the member that asked, or whoever it reached. */
static uint32_t op_of(sim_world_t *w, const group_op_id_t *id, group_phase_t phase)
{
    sim_groups_t *l = ledger_of(w);
    uint32_t found = sim_group_op_find(w, id);
    if (found != SIM_NONE) return found;
    if (l->n_ops == l->max_ops) {
        l->max_ops = l->max_ops ? l->max_ops * 2 : 256;
        l->ops = realloc(l->ops, l->max_ops * sizeof *l->ops);
        rf_assert(l->ops);
    }
    l->ops[l->n_ops] = (sim_group_op_t){.id = *id, .phase = phase, .first_ns = w->now_ns};
    return l->n_ops++;
}

bool sim_group_holds(const sim_world_t *w, agreement_member_t member, uint64_t group, uint64_t since_ns)
{
    const sim_process_t *p = &w->processes[member.core];
    if (!p->alive || p->incarnation != member.incarnation || group == 0 || group > SIM_GROUPS_MAX)
        return false;
    return state_of(p)->holds_since_ns[group - 1] <= since_ns;
}

bool sim_group_members(const sim_process_t *p, uint64_t group, group_info_t *out)
{
    return groups_query(state_of(p)->groups, group, out) == RF_OK;
}

/* ---- life ---- */

static group_params_t parameters(const sim_world_t *w, const sim_process_t *p)
{
    group_params_t g = w->group_params;
    g.self = (agreement_member_t){.core = p->core, .incarnation = p->incarnation};
    return g;
}

static void start(sim_world_t *w, sim_process_t *p)
{
    group_params_t params = parameters(w, p);
    size_t head = (sizeof(state_t) + 63) & ~(size_t)63, size = groups_size(&params);
    rf_assert(size > 0);
    w->statistics->engine_bytes = size;
    if (!p->memory) {
        p->memory = aligned_alloc(64, head + ((size + 63) & ~(size_t)63));
        rf_assert(p->memory);
    }
    memset((uint8_t *)p->memory + head, 0xa5, size);
    state_t *s = state_of(p);
    memset(s, 0, sizeof *s);
    rf_err_t err = groups_init((uint8_t *)p->memory + head, size, &params, &s->groups);
    rf_assert(err == RF_OK);
    s->view = w->groups->n_views;
    for (unsigned i = 0; i < SIM_GROUPS_MAX; i++) {
        s->holds_since_ns[i] = RF_NEVER;
        check_access_ended(w, p, i + 1);
    }
}

static void stop(sim_world_t *w, sim_process_t *p)
{
    (void)w;
    (void)p;
}

/* ---- carrying out ---- */

/* The owner of a group that has changed: all members hold it now, and those that are new may be told what is mapped. */
static void send_mappings(sim_world_t *w, sim_process_t *p, uint64_t group)
{
    group_info_t info;
    if (!sim_group_members(p, group, &info) || info.owner.core != p->core) return;
    uint64_t mean_ns = rf_prng_below(&w->choices, 4) ? 30 * RF_NS_PER_US : 2 * RF_NS_PER_MS;
    for (unsigned i = 1; i < info.n_members; i++) {
        const sim_process_t *to = &w->processes[info.members[i].core];
        if (!to->alive || to->incarnation != info.members[i].incarnation) continue;
        sim_event_t *event =
            sim_push(w, w->now_ns + sim_exponential(&w->network, mean_ns), SIM_EVENT_MAPPINGS);
        event->core = to->core;
        event->life = to->life;
        event->peer.incarnation = (rf_incarnation_t)group;
        event->x = info.epoch;
        event->message =
            sim_message_new(w, 0, w->groups->mappings[p->core][group - 1], sizeof w->groups->mappings[0][0]);
        w->in_flight++;
    }
}

/* Of an epoch that has passed: it may have left and joined again since, and asks for nothing that old. */
static void handle_mappings(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    sim_mapping_t pages[SIM_GROUP_PAGES];
    uint64_t group = event->peer.incarnation;
    group_info_t info;
    memcpy(pages, event->message->bytes, sizeof pages);
    bool holds = state_of(p)->holds_since_ns[group - 1] != RF_NEVER;
    if (holds && sim_group_members(p, group, &info) && info.epoch == event->x)
        check_access_copied(w, p, group, pages);
}

static void act(sim_world_t *w, sim_process_t *p, const group_action_t *a)
{
    state_t *s = state_of(p);
    if (a->kind == GROUP_ACTION_CHANGED || a->kind == GROUP_ACTION_ENDED) {
        for (unsigned i = 0; i < a->n_groups; i++) {
            uint64_t group = a->groups[i];
            if (group == 0 || group > SIM_GROUPS_MAX) continue;
            uint64_t *since = &s->holds_since_ns[group - 1];
            if (a->kind == GROUP_ACTION_ENDED) {
                *since = RF_NEVER;
                s->applied[group - 1] = 0;
                check_access_ended(w, p, group);
                continue;
            }
            if (*since == RF_NEVER) *since = w->now_ns;
            send_mappings(w, p, group);
        }
        return;
    }
    group_op_id_t id = a->id;
    if (id.group >> 63) /* of several: actions name their own agreement, completions the first group */
        id = (group_op_id_t){.group = a->groups[0], .member = id.member, .counter = id.group};
    uint32_t op = op_of(w, &id, a->phase);
    if (a->kind == GROUP_ACTION_APPLY) w->groups->ops[op].number = a->number;
    if (a->kind == GROUP_ACTION_ABORT) {
        check_two_phase_aborted(w, p, op);
        return;
    }
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        if (s->pending[i].used) continue;
        pending_t *q = &s->pending[i];
        *q = (pending_t){.used = true,
                         .kind = a->kind,
                         .token = a->token,
                         .op = op,
                         .n_groups = a->n_groups,
                         .number = a->number};
        memcpy(q->groups, a->groups, sizeof q->groups);
        uint64_t mean_ns = rf_prng_below(&w->choices, 8) ? 5 * RF_NS_PER_US : 500 * RF_NS_PER_US;
        sim_event_t *event = sim_push(w, w->now_ns + sim_exponential(&w->choices, mean_ns), SIM_EVENT_ANSWER);
        event->core = p->core;
        event->life = p->life;
        event->x = i;
        return;
    }
    sim_violation(w, "group", "core %u has more than %d actions under way", p->core, PENDING_MAX);
}

static void completed(sim_world_t *w, sim_process_t *p, const group_completion_t *c)
{
    unsigned client = (unsigned)(c->cookie & 0xff);
    if (client == FORMING) {
        if (c->err == RF_OK) w->groups->formed_ns[(c->cookie >> 32) - 1] = w->now_ns;
        return;
    }
    w->statistics->operations++;
    if (c->cookie >> 8 & 1) { /* OPERATE */
        bool phase_two = c->cookie >> 9 & 1;
        uint32_t op = op_of(w, &c->id, phase_two ? GROUP_TWO_PHASE : GROUP_ONE_PHASE);
        if (c->err == RF_OK) {
            if (w->steps_groups) steps_groups_answered(w->steps_groups, w->groups->ops[op].number);
            rf_histogram_add(&w->statistics->latency, w->now_ns - w->clients[client].started_ns);
            if (phase_two) {
                check_two_phase_completed(w, p, op);
            } else {
                check_access_answered(w, op);
                check_one_phase_completed(w, p, op);
            }
        } else if (c->err == RF_ERR_UNKNOWN_OUTCOME) {
            w->statistics->unknown++;
        } else {
            w->statistics->refused++;
            check_two_phase_refused(w, p, op, c->err);
        }
    }
    sim_groups_client_done(w, client, (uint32_t)(c->cookie >> 32));
}

static bool carry_out(sim_world_t *w, sim_process_t *p)
{
    state_t *s = state_of(p);
    const group_output_t *out = s->output;
    while (s->next_action < out->n_actions) {
        act(w, p, &out->actions[s->next_action++]);
        if (sim_process_stalls_here(w, p)) return false;
    }
    for (; p->next_message < out->n_messages; p->next_message++) {
        const group_message_t *m = &out->messages[p->next_message];
        if (!sim_process_send(w, p, m->type, m->bytes, m->size, m->to, m->n_to)) return false;
    }
    while (p->next_completion < out->n_completions) {
        completed(w, p, &out->completions[p->next_completion++]);
        if (sim_process_stalls_here(w, p)) return false;
    }
    p->carrying = false;
    return true;
}

static void step_once(sim_world_t *w, sim_process_t *p, group_event_t *event)
{
    state_t *s = state_of(p);
    event->now_ns = sim_clock_local(w, w->host[p->core]);
    s->output = groups_step(s->groups, event);
    if (w->steps_groups)
        steps_groups_stepped(w->steps_groups, p->core, s->groups,
                             event->kind == GROUP_VIEW ? event->view.left[0].core : RF_CORE_NONE);
    if (p->slow_until_ns > w->now_ns)
        p->busy_until_ns = w->now_ns + sim_between(&w->faults, 20, 500) * RF_NS_PER_US;
    p->next_message = p->next_to = p->next_completion = s->next_action = 0;
    p->carrying = true;
}

static void carry_on(sim_world_t *w, sim_process_t *p)
{
    state_t *s = state_of(p);
    while (w->verdict == SIM_OK) {
        if (p->carrying && !carry_out(w, p)) return;
        if (!s->output->more) break;
        group_event_t tick = {.kind = GROUP_TICK};
        step_once(w, p, &tick);
    }
    p->tick_local_ns = s->output->next_tick_ns;
    sim_process_arm_tick(w, p);
}

static void step(sim_world_t *w, sim_process_t *p, group_event_t *event)
{
    step_once(w, p, event);
    carry_on(w, p);
}

/* ---- views ---- */

/* Tells the process of the next view that it has not heard of; a stall may come before the one after. */
static void hear_view(sim_world_t *w, sim_process_t *p)
{
    state_t *s = state_of(p);
    const sim_groups_t *l = w->groups;
    agreement_member_t left[SIM_GROUP_CORES_MAX];
    unsigned n = 0;
    group_event_t e = {.kind = GROUP_VIEW};
    if (s->view == RF_NEVER) { /* new: all that ever left, of each core the last */
        s->view = l->n_views;
        for (unsigned i = 0; i < w->n_cores; i++) {
            if (w->left[i] > 0)
                left[n++] = (agreement_member_t){.core = (rf_core_t)i, .incarnation = w->left[i]};
        }
    } else if (s->view < l->n_views) {
        left[n++] = l->views[s->view++];
    } else {
        return;
    }
    e.view.view = s->view + 1;
    e.view.left = left;
    e.view.n_left = n;
    step(w, p, &e);
}

static void push_view(sim_world_t *w, const sim_process_t *p)
{
    sim_event_t *event =
        sim_push(w, w->now_ns + sim_exponential(&w->choices, 300 * RF_NS_PER_US), SIM_EVENT_VIEW);
    event->core = p->core;
    event->life = p->life;
}

void sim_groups_expel(sim_world_t *w, agreement_member_t member)
{
    sim_groups_t *l = w->groups;
    if (w->left[member.core] >= member.incarnation) return;
    if (l->n_views == l->max_views) {
        l->max_views = l->max_views ? l->max_views * 2 : 64;
        l->views = realloc(l->views, l->max_views * sizeof *l->views);
        rf_assert(l->views);
    }
    l->views[l->n_views++] = member;
    w->statistics->views++;
    if (w->steps_groups) steps_groups_left(w->steps_groups, member.core);
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].alive) push_view(w, &w->processes[i]);
    }
    sim_host_departed(w, member);
}

/* Who has left by the views; processes of that life run on until they are fenced. */
static void handle_fenced(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    state_t *s = state_of(p);
    const sim_groups_t *l = w->groups;
    bool heard = s->view != RF_NEVER;
    for (uint64_t v = heard ? s->view : 0; v < l->n_views; v++) {
        if (l->views[v].core == event->peer.core && l->views[v].incarnation == event->peer.incarnation)
            heard = false;
    }
    if (!heard) { /* the view first */
        sim_event_t *again = sim_push(w, w->now_ns + 50 * RF_NS_PER_US, SIM_EVENT_FENCED);
        again->core = p->core;
        again->life = p->life;
        again->peer = event->peer;
        return;
    }
    group_event_t e = {.kind = GROUP_FENCED};
    e.fenced = event->peer;
    step(w, p, &e);
}

/* ---- events ---- */

static void handle_answer(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    state_t *s = state_of(p);
    pending_t q = s->pending[event->x];
    s->pending[event->x].used = false;
    group_event_t e = {.kind = GROUP_PREPARED};
    e.done.token = q.token;
    if (q.kind == GROUP_ACTION_PREPARE) {
        if (rf_prng_below(&w->choices, 40) == 0)
            e.done.err = RF_ERR_PERMISSION;
        else
            w->groups->ops[q.op].prepared[p->core] = p->incarnation;
    } else {
        e.kind = GROUP_APPLIED;
        if (w->groups->ops[q.op].phase == GROUP_TWO_PHASE)
            check_two_phase_applied(w, p, q.op, q.groups, q.n_groups);
        for (unsigned i = 0; i < q.n_groups; i++) {
            if (q.groups[i] == 0 || q.groups[i] > SIM_GROUPS_MAX ||
                s->holds_since_ns[q.groups[i] - 1] == RF_NEVER)
                continue;
            check_group_order_applied(w, p, q.op, q.groups[i], s->applied[q.groups[i] - 1]++,
                                      s->holds_since_ns[q.groups[i] - 1]);
        }
        w->groups->ops[q.op].applied[p->core] = p->incarnation;
        w->groups->ops[q.op].is_applied = true;
        bool holds = q.n_groups == 1 && q.groups[0] <= SIM_GROUPS_MAX &&
                     s->holds_since_ns[q.groups[0] - 1] != RF_NEVER;
        if (holds) check_access_applied(w, p, q.op, q.groups[0], q.number);
    }
    if (e.kind == GROUP_APPLIED && e.done.token == 0) return;
    step(w, p, &e);
}

/* Some groups have a tree of their own: by package, by host, or weighted by latencies of which nobody knows anything. */
static const uint8_t *draw_parents(sim_world_t *w, rf_prng_t *prng, agreement_member_t *members, unsigned n,
                                   uint8_t *parents)
{
    static uint32_t latency_ns[GROUP_MEMBERS_MAX * GROUP_MEMBERS_MAX];
    agreement_member_t listed[GROUP_MEMBERS_MAX];
    uint8_t order[GROUP_MEMBERS_MAX];
    switch (rf_prng_below(prng, 4)) {
    case 0:
        return NULL; /* binary */
    case 1:
        group_plan_by_package(members, n, w->host, w->package, order, parents);
        break;
    case 2:
        group_plan_by_host(members, n, w->host, order, parents);
        break;
    default:
        for (unsigned i = 0; i < n * n; i++) latency_ns[i] = 100 + (uint32_t)rf_prng_below(prng, 2000);
        group_plan_weigh(n, latency_ns, 100, order, parents);
    }
    for (unsigned i = 0; i < n; i++) listed[i] = members[order[i]];
    memcpy(members, listed, n * sizeof *members);
    return parents;
}

static void handle_form(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    agreement_member_t members[GROUP_MEMBERS_MAX];
    uint8_t parents[GROUP_MEMBERS_MAX];
    unsigned n = 0;
    rf_prng_t prng;
    rf_prng_seed(&prng, event->x);
    members[n++] = (agreement_member_t){.core = p->core, .incarnation = p->incarnation};
    for (unsigned i = 0; i < w->n_cores && n < w->group_params.members_max; i++) {
        unsigned core = (p->core + i) % w->n_cores;
        const sim_process_t *m = &w->processes[core];
        if (core == p->core || !m->alive) continue;
        if (w->steps_groups ? core >= STEPS_MEMBERS : rf_prng_below(&prng, 4) == 0) continue;
        members[n++] = (agreement_member_t){.core = m->core, .incarnation = m->incarnation};
    }
    group_event_t e = {.kind = GROUP_FORM};
    e.form.group = event->peer.incarnation;
    e.form.cookie = e.form.group << 32 | FORMING;
    if (!w->steps_groups) e.form.parents = draw_parents(w, &prng, members, n, parents);
    e.form.members = members;
    e.form.n_members = n;
    step(w, p, &e);
    /* The owner holds it from now on, and tells the others. */
    if (state_of(p)->holds_since_ns[e.form.group - 1] == RF_NEVER)
        state_of(p)->holds_since_ns[e.form.group - 1] = w->now_ns;
}

static void handle(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    group_event_t e = {0};
    switch (event->kind) {
    case SIM_EVENT_MESSAGE:
        if (event->peer.incarnation <= w->fenced[event->peer.core]) return;
        e.kind = GROUP_RECEIVE;
        e.receive.from = event->peer;
        e.receive.type = event->message->type;
        e.receive.bytes = event->message->bytes;
        e.receive.size = event->message->size;
        step_once(w, p, &e);
        if (state_of(p)->output->err == RF_ERR_PROTOCOL && !event->x)
            sim_violation(w, "protocol", "core %u does not understand %s from core %u: %s", p->core,
                          groups_type_name(event->message->type), event->peer.core,
                          state_of(p)->output->ignored ? state_of(p)->output->ignored : "?");
        carry_on(w, p);
        return;
    case SIM_EVENT_TICK:
        if (!sim_process_ticks(w, p, event)) return;
        e.kind = GROUP_TICK;
        break;
    case SIM_EVENT_ROOM:
        e.kind = GROUP_ROOM;
        e.peer = event->peer;
        break;
    case SIM_EVENT_VIEW:
        hear_view(w, p);
        return;
    case SIM_EVENT_FENCED:
        handle_fenced(w, p, event);
        return;
    case SIM_EVENT_ANSWER:
        handle_answer(w, p, event);
        return;
    case SIM_EVENT_MAPPINGS:
        handle_mappings(w, p, event);
        return;
    case SIM_EVENT_FORM:
        handle_form(w, p, event);
        return;
    case SIM_EVENT_REQUEST:
        if (!sim_groups_client_request(w, p, event, &e)) return;
        break;
    default:
        return; /* of the log's world: suspicion, evidence */
    }
    step(w, p, &e);
}

/* ---- hosts ---- */

void sim_groups_died(sim_world_t *w, rf_core_t core)
{
    const sim_process_t *p = &w->processes[core];
    sim_event_t *event = sim_push(w, w->now_ns + sim_exponential(&w->choices, RF_NS_PER_MS), SIM_EVENT_EXPEL);
    event->peer = (agreement_member_t){.core = core, .incarnation = p->incarnation};
}

static void start_anew(sim_world_t *w, rf_core_t core)
{
    sim_process_t *p = &w->processes[core];
    sim_process_start(w, core, p->incarnation + 1);
    w->statistics->restarts++;
    state_of(p)->view = RF_NEVER;
    push_view(w, p);
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->fenced[i] == 0) continue;
        sim_event_t *event = sim_push(w, w->now_ns + RF_NS_PER_MS, SIM_EVENT_FENCED);
        event->core = core;
        event->life = p->life;
        event->peer = (agreement_member_t){.core = (rf_core_t)i, .incarnation = w->fenced[i]};
    }
    sim_network_room(w);
}

void sim_groups_look(sim_world_t *w, unsigned host)
{
    for (unsigned i = w->host_first[host]; i < w->host_first[host + 1]; i++) {
        sim_process_t *p = &w->processes[i];
        bool gone = !p->alive && w->fenced[i] >= p->incarnation && w->now_ns >= p->join_due_ns;
        if (gone && w->knobs.restart > 0) start_anew(w, (rf_core_t)i);
        if (p->alive && p->quiet_since_ns != RF_NEVER && w->now_ns > p->quiet_since_ns + w->params.silence_ns)
            sim_groups_expel(w, (agreement_member_t){.core = p->core, .incarnation = p->incarnation});
    }
    uint64_t period_ns = w->params.silence_ns / 3;
    sim_push(w, w->now_ns + period_ns / 2 + rf_prng_below(&w->choices, period_ns), SIM_EVENT_HOST)->x = host;
}

void sim_groups_set_up(sim_world_t *w)
{
    w->groups = calloc(1, sizeof *w->groups);
    rf_assert(w->groups);
    w->actor = &sim_actor_groups;
    if (w->n_cores > SIM_GROUP_CORES_MAX) w->n_cores = SIM_GROUP_CORES_MAX;
    w->group_params = (group_params_t){
        .n_cores = (rf_core_t)w->n_cores,
        .groups_max = 2 * SIM_GROUPS_MAX,
        .members_max = 16,
        .ops_max = 16,
        .bytes_max = 64,
        .resend_ns = w->params.resend_ns,
        .plan = (group_plan_t)rf_prng_below(&w->choices, 3),
        .defects = w->options->group_defects,
    };
}

const sim_actor_t sim_actor_groups = {"groups", start, stop, handle, carry_on};
