#include "net.h"

#include <stdlib.h>

net_t *net_new(const net_knobs_t *knobs, uint64_t seed)
{
    net_t *n = calloc(1, sizeof *n);
    rf_assert(n);
    n->knobs = *knobs;
    n->now_ns = 1;
    n->proposed = calloc(NET_PROPOSED_MAX, sizeof *n->proposed);
    rf_prng_seed(&n->prng, seed);
    for (rf_core_t core = 0; core < knobs->cores; core++) {
        agreement_params_t params = {.self = {.core = core, .incarnation = 1},
                                     .machine = {.bytes = {1, 2, 3}},
                                     .n_cores = (rf_core_t)knobs->cores,
                                     .log_max = knobs->log_max ? knobs->log_max : 64,
                                     .entry_max = knobs->entry_max ? knobs->entry_max : 160,
                                     .proposals_max = AGREEMENT_WINDOW,
                                     .sessions_max = 4,
                                     .resend_ns = knobs->resend_ns ? knobs->resend_ns : RF_NEVER};
        size_t size = agreement_size(&params);
        rf_assert(size > 0);
        net_core_t *c = &n->cores[core];
        c->memory = aligned_alloc(16, size);
        rf_assert(c->memory && agreement_init(c->memory, size, &params, &c->engine) == RF_OK);
        c->alive = true;
        c->tick_ns = RF_NEVER;
    }
    return n;
}

void net_free(net_t *n)
{
    for (unsigned i = 0; i < n->n_flight; i++) free(n->flight[i]);
    for (unsigned i = 0; i < n->knobs.cores; i++) free(n->cores[i].memory);
    free(n->proposed);
    free(n);
}

static void send(net_t *n, rf_core_t from, const agreement_message_t *m)
{
    for (unsigned i = 0; i < m->n_to; i++) {
        rf_core_t to = m->to[i];
        rf_assert(to < n->knobs.cores && to != from && m->size <= AGREEMENT_MESSAGE_MAX);
        if (!n->cores[to].alive) continue;
        unsigned copies = rf_prng_below(&n->prng, 100) < n->knobs.repeat_percent ? 2 : 1;
        for (unsigned k = 0; k < copies; k++) {
            rf_assert(n->n_flight < NET_FLIGHT_MAX);
            net_message_t *copy = malloc(sizeof *copy);
            rf_assert(copy);
            copy->from = from;
            copy->to = to;
            copy->type = m->type;
            copy->size = m->size;
            memcpy(copy->bytes, m->bytes, m->size);
            n->flight[n->n_flight++] = copy;
        }
    }
}

static void answered(net_t *n, rf_core_t core, const agreement_completion_t *c)
{
    net_core_t *at = &n->cores[core];
    if (c->kind == AGREEMENT_COMPLETED_READ) {
        at->reads_done++;
        at->read_err = c->err;
        return;
    }
    if (c->kind == AGREEMENT_COMPLETED_GROUP) {
        at->groups_done++;
        at->group_err = c->err;
        return;
    }
    for (unsigned i = n->n_proposed; i-- > 0;) {
        net_proposal_t *p = &n->proposed[i];
        if (p->core != core || p->session != c->session || p->sequence != c->sequence || p->answered)
            continue;
        p->answered = true;
        p->err = c->err;
        p->value = c->value;
        return;
    }
    rf_assert(!"an answer to what nobody asked");
}

typedef struct work { /* applies of one output, copied: acting on them steps again */
    unsigned n;
    struct {
        uint64_t index, number, session;
        agreement_entry_kind_t kind;
    } item[AGREEMENT_APPLIES_MAX];
    unsigned n_group;
    struct {
        rf_core_t owner;
        uint64_t number, payload;
    } group[AGREEMENT_GROUP_OPS_MAX];
    bool more;
} work_t;

static void take(net_t *n, rf_core_t core, const agreement_output_t *out, work_t *work)
{
    net_core_t *c = &n->cores[core];
    work->n = work->n_group = 0;
    work->more = out->more;
    c->tick_ns = out->next_tick_ns;
    c->view_changed |= out->view_changed;
    for (unsigned i = 0; i < out->n_messages; i++) send(n, core, &out->messages[i]);
    for (unsigned i = 0; i < out->n_completions; i++) answered(n, core, &out->completions[i]);
    for (unsigned i = 0; i < out->n_applies; i++) {
        const agreement_apply_t *a = &out->applies[i];
        work->item[work->n].index = a->index;
        work->item[work->n].kind = a->kind;
        work->item[work->n].session = a->session;
        work->item[work->n].number = a->kind == AGREEMENT_ENTRY_MEMBER_DOWN ? NET_DOWN | a->member.core : 0;
        if (a->kind == AGREEMENT_ENTRY_COMMAND) {
            rf_assert(a->size >= sizeof(uint64_t));
            memcpy(&work->item[work->n].number, a->bytes, sizeof(uint64_t));
        }
        rf_assert(a->kind != AGREEMENT_ENTRY_VOID);
        work->n++;
    }
    for (unsigned i = 0; i < out->n_group_applies; i++) {
        const agreement_group_apply_t *g = &out->group_applies[i];
        work->group[work->n_group].owner = g->owner;
        work->group[work->n_group].number = g->number;
        memcpy(&work->group[work->n_group].payload, g->bytes, sizeof(uint64_t));
        work->n_group++;
    }
}

/* Steps, then applies what came of it one after the other, first handed out first applied. */
void net_step(net_t *n, rf_core_t core, agreement_event_t *event)
{
    net_core_t *c = &n->cores[core];
    work_t *queue[64];
    unsigned n_queue = 0;
    if (!c->alive) return;
    event->now_ns = n->now_ns;
    queue[n_queue] = malloc(sizeof(work_t));
    take(n, core, agreement_step(c->engine, event), queue[n_queue]);
    n_queue++;
    for (unsigned q = 0; q < n_queue; q++) {
        work_t *w = queue[q];
        bool more = w->more;
        for (unsigned i = 0; i < w->n; i++) {
            rf_assert(c->n_log < NET_LOG_MAX);
            if (w->item[i].kind == AGREEMENT_ENTRY_COMMAND || w->item[i].kind == AGREEMENT_ENTRY_MEMBER_DOWN)
                c->log[c->n_log++] = w->item[i].number;
            agreement_event_t applied = {.kind = AGREEMENT_APPLIED, .now_ns = n->now_ns};
            applied.applied.index = w->item[i].index;
            applied.applied.err = RF_OK;
            applied.applied.value = w->item[i].number * 10;
            work_t *next = malloc(sizeof *next);
            take(n, core, agreement_step(c->engine, &applied), next);
            more = next->more;
            rf_assert(n_queue < 64);
            if (next->n > 0 || next->n_group > 0)
                queue[n_queue++] = next;
            else
                free(next);
        }
        for (unsigned i = 0; i < w->n_group; i++) {
            c->group_log[c->n_group++ % 256] = w->group[i].payload;
            agreement_event_t applied = {.kind = AGREEMENT_GROUP_APPLIED, .now_ns = n->now_ns};
            applied.group_applied.owner = w->group[i].owner;
            applied.group_applied.number = w->group[i].number;
            work_t *next = malloc(sizeof *next);
            take(n, core, agreement_step(c->engine, &applied), next);
            more = next->more;
            rf_assert(n_queue < 64);
            if (next->n > 0 || next->n_group > 0)
                queue[n_queue++] = next;
            else
                free(next);
        }
        free(w);
        if (q + 1 == n_queue && more) {
            agreement_event_t tick = {.kind = AGREEMENT_TICK, .now_ns = n->now_ns};
            rf_assert(n_queue < 64);
            queue[n_queue] = malloc(sizeof(work_t));
            take(n, core, agreement_step(c->engine, &tick), queue[n_queue]);
            n_queue++;
        }
    }
}

void net_form(net_t *n)
{
    rf_core_t all[NET_CORES_MAX];
    unsigned count = 0;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        if (n->cores[core].alive) all[count++] = core;
    }
    agreement_event_t event = {.kind = AGREEMENT_FORM, .form = {.cores = all, .n_cores = count}};
    net_step(n, 0, &event);
}

unsigned net_propose_as(net_t *n, rf_core_t core, uint64_t session, uint64_t sequence, uint64_t number)
{
    rf_assert(n->n_proposed < NET_PROPOSED_MAX);
    unsigned at = n->n_proposed++;
    n->proposed[at] =
        (net_proposal_t){.core = core, .session = session, .sequence = sequence, .number = number};
    uint64_t bytes[4] = {number, number ^ 5, 0, 0};
    agreement_event_t event = {.kind = AGREEMENT_PROPOSE};
    event.propose.session = session;
    event.propose.sequence = sequence;
    event.propose.bytes = bytes;
    event.propose.size = 8 + number % 25;
    net_step(n, core, &event);
    return at;
}

unsigned net_propose(net_t *n, rf_core_t core)
{
    net_core_t *c = &n->cores[core];
    return net_propose_as(n, core, agreement_own_session(c->engine), ++c->next_sequence, ++n->next_number);
}

bool net_deliver(net_t *n)
{
    if (n->n_flight == 0) return false;
    unsigned chosen = (unsigned)rf_prng_below(&n->prng, n->n_flight);
    for (unsigned i = 0; i < chosen && !n->knobs.reorder; i++) {
        if (n->flight[i]->from == n->flight[chosen]->from && n->flight[i]->to == n->flight[chosen]->to)
            chosen = i;
    }
    net_message_t *m = n->flight[chosen];
    memmove(&n->flight[chosen], &n->flight[chosen + 1], (n->n_flight - chosen - 1) * sizeof *n->flight);
    n->n_flight--;
    if (n->cores[m->to].alive && rf_prng_below(&n->prng, 100) >= n->knobs.lose_percent) {
        n->n_delivered++;
        agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
        event.receive.from = (agreement_member_t){.core = m->from, .incarnation = 1};
        event.receive.type = m->type;
        event.receive.bytes = m->bytes;
        event.receive.size = m->size;
        net_step(n, m->to, &event);
    } else {
        n->n_lost++;
    }
    free(m);
    return true;
}

void net_settle(net_t *n)
{
    for (unsigned rounds = 0;; rounds++) {
        rf_assert(rounds < 200000); /* they never come to rest */
        if (net_deliver(n)) continue;
        uint64_t next = RF_NEVER;
        for (unsigned i = 0; i < n->knobs.cores; i++) {
            if (n->cores[i].alive && n->cores[i].tick_ns < next) next = n->cores[i].tick_ns;
        }
        if (next == RF_NEVER) return;
        if (next > n->now_ns) n->now_ns = next;
        for (rf_core_t core = 0; core < n->knobs.cores; core++) {
            agreement_event_t tick = {.kind = AGREEMENT_TICK};
            if (n->cores[core].alive && n->cores[core].tick_ns <= n->now_ns) net_step(n, core, &tick);
        }
    }
}

void net_kill(net_t *n, rf_core_t core)
{
    n->cores[core].alive = false;
}

void net_tell_death(net_t *n, rf_core_t to, rf_core_t dead)
{
    agreement_event_t event = {.kind = AGREEMENT_DEATH, .member = {.core = dead, .incarnation = 1}};
    net_step(n, to, &event);
}

agreement_state_t net_state(const net_t *n, rf_core_t core)
{
    agreement_state_t state;
    agreement_query(n->cores[core].engine, &state);
    return state;
}

void net_check(const net_t *n)
{
    const net_core_t *longest = &n->cores[0];
    for (unsigned i = 1; i < n->knobs.cores; i++) {
        if (n->cores[i].n_log > longest->n_log) longest = &n->cores[i];
    }
    for (unsigned i = 0; i < n->knobs.cores; i++) /* one total order, the dead included */
        rf_assert(memcmp(n->cores[i].log, longest->log, n->cores[i].n_log * sizeof longest->log[0]) == 0);
}

static bool holds(const net_core_t *c, uint64_t number, unsigned *times)
{
    *times = 0;
    for (unsigned i = 0; i < c->n_log; i++) *times += c->log[i] == number;
    return *times > 0;
}

void net_check_quiet(const net_t *n)
{
    net_check(n);
    int first = -1;
    for (unsigned i = 0; i < n->knobs.cores; i++) {
        if (!n->cores[i].alive) continue;
        if (first >= 0) rf_assert(n->cores[i].n_log == n->cores[first].n_log);
        if (first < 0) first = (int)i;
    }
    rf_assert(first >= 0);
    for (unsigned i = 0; i < n->n_proposed; i++) {
        const net_proposal_t *p = &n->proposed[i];
        unsigned times;
        bool there = holds(&n->cores[first], p->number, &times);
        rf_assert(times <= 1);                               /* exactly once */
        if (n->cores[p->core].alive) rf_assert(p->answered); /* no hang */
        if (!p->answered) continue;
        if (p->err == RF_OK && n->cores[p->core].alive) rf_assert(there && p->value == p->number * 10);
        if (p->err != RF_OK && p->err != RF_ERR_UNKNOWN_OUTCOME && p->err != RF_ERR_SESSION)
            rf_assert(!there); /* nothing happened means nothing happened */
    }
}
