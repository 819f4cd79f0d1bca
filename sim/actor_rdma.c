/*
 * The owner of a process's links over RDMA: what transport/rdma/link.c and its caller do, one effect after the other.
 *
 *      poll    takes completions, then from each link what can be seen, and posts what is to be sent
 *      arm     if there was nothing: the device is to tell of the next completion, and each link arms
 *      ready   once more: completions, then each link; whatever there is begins the next turn
 *      sleep   until the device tells, the doorbell is rung, or the timer goes off
 *
 * Each step reads what others write only as it begins; what it does after that, it does some time after another.
 */
#include "sim/rdma.h"

#define POST_BATCH   3
#define WRITE_SLOTS  4
#define ACK_SHARE    4
#define ASKING       4 /* one slot in so many asks for one back */
#define EMPTY_MAX    4
#define STOOD_NS     (100 * RF_NS_PER_US)
#define TAKE_MAX     8
#define ELSEWHERE_NS (500 * RF_NS_PER_MS)

static sim_owner_t *owner_of(const sim_process_t *p)
{
    return &p->world->rdma->owners[p->core];
}

static bool defect(const sim_world_t *w, sim_defect_t which)
{
    return w->options->sim_defects & which;
}

/* Time passes; now and then a lot. */
static void effect(sim_world_t *w, sim_process_t *p)
{
    p->cost_ns += 1 + rf_prng_below(&w->choices, SIM_RDMA_STEP_NS);
    if (p->slow_until_ns > w->now_ns) p->cost_ns += sim_between(&w->faults, 20, 500) * RF_NS_PER_US;
    if (!w->faults_on || !sim_chance(&w->faults, w->knobs.effect_stall)) return;
    p->cost_ns += sim_exponential(&w->faults,
                                  rf_prng_below(&w->faults, 4) ? 300 * RF_NS_PER_US : w->params.election_ns);
}

/* ---- out ---- */

static uint32_t room(const sim_world_t *w, const sim_sleeper_t *end)
{
    return w->rdma->depth - (end->requests - end->completed);
}

static void post(sim_world_t *w, sim_process_t *p, rf_core_t peer, const sim_request_t *request)
{
    effect(w, p);
    sim_rdma_post(w, p, peer, *request);
}

static void ack_said(sim_sleeper_t *end)
{
    end->taken_said = end->taken;
    end->say_ack = false;
}

static void say_word(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    if (room(w, end) == 0) return;
    sim_request_t word = {
        .kind = SIM_REQUEST_WORD, .flags = end->say, .taken = end->taken, .count = end->posted};
    post(w, p, peer, &word);
    if (word.flags & SIM_WORD_WANT_ACK) end->ack_asked = end->posted;
    if (word.flags & SIM_WORD_GRANT) {
        rdma_sleep_grants(&end->sleep);
        end->grants++;
    }
    if (word.flags & SIM_WORD_SLEEP) end->sleeps++;
    end->say = 0;
    ack_said(end);
    check_wake_said(w, p->core, peer);
}

/* As rdma_push(). */
static void push(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_rdma_t *r = w->rdma;
    sim_sleeper_t *end = &r->ends[p->core][peer];
    bool sent = false;
    while (end->up) {
        sim_request_t requests[POST_BATCH];
        uint32_t n = 0, most = room(w, end);
        while (n < POST_BATCH && n < most && end->posted < end->wanted &&
               end->posted - end->acked < r->ring) {
            uint64_t slots = end->wanted - end->posted, left = r->ring - (end->posted - end->acked);
            slots = slots < left ? slots : left;
            slots = slots < WRITE_SLOTS ? slots : WRITE_SLOTS;
            requests[n++] =
                (sim_request_t){.kind = SIM_REQUEST_SLOTS, .first = end->posted + 1, .n = (uint32_t)slots};
            end->posted += slots;
        }
        if (n == 0) break;
        sent = true;
        bool rings = rdma_sleep_rings(&end->sleep) || (defect(w, SIM_DEFECT_RINGS_ON) && end->grants > 0);
        if (rings && !defect(w, SIM_DEFECT_NOT_RUNG)) {
            if (end->iwarp)
                end->say |= SIM_WORD_RING;
            else
                requests[n - 1].rings = true;
        }
        for (uint32_t i = 0; i < n; i++) post(w, p, peer, &requests[i]);
        if (r->looks && w->faults_on && sim_chance(&w->faults, w->knobs.effect_stall))
            p->cost_ns += sim_exponential(&w->faults, ELSEWHERE_NS); /* it does something else, for long */
        if (n == most) break;
    }
    if (sent) ack_said(end);
    if (end->up && (end->say || end->say_ack)) say_word(w, p, peer);
}

static void acked(sim_world_t *w, sim_process_t *p, rf_core_t peer, uint64_t taken)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    if (taken <= end->acked) return;
    if (taken > end->posted)
        sim_violation(w, "ring", "core %u hears from core %u that %llu slots were taken, of %llu", p->core,
                      peer, (unsigned long long)taken, (unsigned long long)end->posted);
    end->acked = taken;
    if (end->posted < end->wanted) push(w, p, peer);
}

/* ---- in ---- */

/* All that can be seen is taken in, for who polls next. */
static void ring_take(const sim_world_t *w, sim_sleeper_t *end)
{
    while (sim_rdma_seen(w, end, end->accepted + 1)) end->accepted++;
}

static void rung(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    end->rung++;
    rdma_sleep_rung(&end->sleep);
    check_wake_said(w, p->core, peer);
}

static void word_take(sim_world_t *w, sim_process_t *p, rf_core_t peer, const sim_request_t *word)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    ring_take(w, end);
    acked(w, p, peer, word->taken);
    if (word->flags & SIM_WORD_WANT_ACK) end->ack_due = word->count;
    if (word->flags & SIM_WORD_SLEEP) end->say |= SIM_WORD_GRANT;
    if (word->flags & SIM_WORD_GRANT) rdma_sleep_granted(&end->sleep);
    if (word->flags & SIM_WORD_RING) rung(w, p, peer);
    if (end->ack_due <= end->taken) {
        end->ack_due = RF_NEVER;
        end->say_ack = true;
    }
    if (end->say || end->say_ack) push(w, p, peer);
}

/* Takes one completion. False: there was none. */
static bool queue_take(sim_world_t *w, sim_process_t *p)
{
    sim_done_t done;
    if (!sim_rdma_done(w, p->core, &done)) return false;
    sim_sleeper_t *end = &w->rdma->ends[p->core][done.peer];
    effect(w, p);
    if (done.generation != end->generation) return true;
    switch (done.kind) {
    case SIM_DONE_POSTED:
        if ((int32_t)(done.number - end->completed) > 0) end->completed = done.number;
        break;
    case SIM_DONE_RUNG:
        rung(w, p, done.peer);
        break;
    case SIM_DONE_WORD:
        word_take(w, p, done.peer, &done.word);
        break;
    }
    return true;
}

static void ack_if_due(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    bool asked = end->taken >= end->ack_due;
    if (!asked && end->taken - end->taken_said < (w->rdma->ring + ACK_SHARE - 1) / ACK_SHARE) return;
    if (asked) {
        end->ack_due = RF_NEVER;
        end->say_ack = true;
        push(w, p, peer);
    } else if (room(w, end) > 0) {
        post(w, p, peer, &(sim_request_t){.kind = SIM_REQUEST_LINE, .taken = end->taken});
        ack_said(end);
    }
}

/* As rdma_link_keep(), or as a path that is up anew. */
static bool path_hears(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    if (end->fails) {
        end->fails = end->rises = false;
        if (end->up) ring_take(w, end);
        end->up = false;
        sim_rdma_fell(w, p->core, peer);
        return true;
    }
    if (end->rises) {
        end->rises = false;
        end->up = true;
        end->up_since_ns = w->now_ns;
        return true;
    }
    return false;
}

static bool link_poll(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    uint64_t taken = end->taken, most = taken + 1 + rf_prng_below(&w->choices, TAKE_MAX);
    bool any = path_hears(w, p, peer);
    effect(w, p);
    while (end->taken < most) {
        bool held = end->taken < end->accepted;
        if (!held && !(end->up && sim_rdma_seen(w, end, end->accepted + 1))) break;
        if (!held) end->accepted++;
        end->taken++;
        w->hash = sim_mix(w->hash, (uint64_t)p->core << 48 ^ (uint64_t)peer << 32 ^ end->taken);
        if (sim_mix(w->seed ^ end->taken, (uint64_t)p->core << 8 | peer) % ASKING == 0) end->asked_for++;
    }
    any |= end->taken > taken || end->asked_for > 0;
    end->wanted += end->asked_for;
    end->asked_for = 0;
    if (!end->up) return any;
    if (end->taken > taken) ack_if_due(w, p, peer);
    if (end->posted < end->wanted) acked(w, p, peer, sim_rdma_line(w, end));
    if (end->posted < end->wanted || end->say || end->say_ack) push(w, p, peer);
    return any;
}

/* ---- sleeping ---- */

static void arm_device(sim_world_t *w, sim_owner_t *o)
{
    if (o->notify) return;
    o->notify = true;
    o->looked = false;
    o->tells = !(defect(w, SIM_DEFECT_ARMED_ONCE) && o->ever_armed);
    o->ever_armed = true;
}

static void arm_link(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_owner_t *o = owner_of(p);
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    uint64_t look_ns;
    end->armed = end->up;
    if (!end->up) return;
    effect(w, p);
    if (end->posted < end->wanted && end->ack_asked <= end->acked && end->wanted != end->acked) {
        end->say |= SIM_WORD_WANT_ACK; /* the line wakes nobody */
        push(w, p, peer);
    }
    if (rdma_sleep_arm(&end->sleep, &look_ns)) {
        end->say |= SIM_WORD_SLEEP;
        push(w, p, peer);
    }
    if (look_ns == 0 || !w->rdma->looks || defect(w, SIM_DEFECT_NO_TIMER)) return;
    if (!rdma_sleep_timer(&o->look_ns, look_ns)) return;
    p->tick_local_ns = sim_clock_local(w, w->host[p->core]) + look_ns;
    sim_process_arm_tick(w, p);
}

/* As rdma_ready(). */
static bool link_ready(sim_world_t *w, sim_process_t *p, rf_core_t peer)
{
    sim_sleeper_t *end = &w->rdma->ends[p->core][peer];
    bool waits = end->posted < end->wanted || end->say || end->say_ack;
    if (waits && end->up && room(w, end) > 0 && !defect(w, SIM_DEFECT_LEFT_UNSAID)) push(w, p, peer);
    bool rung = end->up && end->armed && rdma_sleep_over(&end->sleep) && !defect(w, SIM_DEFECT_RUNG_UNSEEN);
    return end->taken < end->accepted || end->fails || end->rises || rung ||
           (end->up && sim_rdma_seen(w, end, end->accepted + 1));
}

static void turn_begins(sim_owner_t *o)
{
    o->step = SIM_STEP_POLL_QUEUE;
    o->at = 0;
    o->found = false;
}

static void disarm(sim_world_t *w, const sim_process_t *p)
{
    for (unsigned i = 0; i < w->n_cores; i++) w->rdma->ends[p->core][i].armed = false;
}

static void wake(sim_world_t *w, const sim_process_t *p)
{
    sim_owner_t *o = owner_of(p);
    disarm(w, p);
    o->wakes++;
    o->asleep = false;
    if (o->told) o->notify = o->looked = false;
    if (o->look_due) o->look_ns = 0;
    o->told = o->rung = o->look_due = false;
    o->budget = (unsigned)rf_prng_below(&w->choices, 3);
    turn_begins(o);
}

/* The next link, from o->at on. False: there is none. */
static bool next_link(const sim_world_t *w, const sim_process_t *p, sim_owner_t *o)
{
    while (o->at < w->n_cores && !w->rdma->ends[p->core][o->at].exists) o->at++;
    return o->at < w->n_cores;
}

static void go_to(sim_owner_t *o, sim_owner_step_t step)
{
    o->step = step;
    o->at = 0;
}

/* Nothing was found: arms, or looks once more. */
static void turn_ends(sim_world_t *w, sim_owner_t *o)
{
    if (o->found) {
        o->empty = 0;
        turn_begins(o);
    } else if (o->budget > 0) {
        o->budget--;
        turn_begins(o);
    } else {
        go_to(o, defect(w, SIM_DEFECT_ARMED_LATE) ? SIM_STEP_READY_QUEUE : SIM_STEP_ARM_DEVICE);
    }
}

static void not_ready(const sim_world_t *w, sim_owner_t *o)
{
    go_to(o, defect(w, SIM_DEFECT_ARMED_LATE) ? SIM_STEP_ARM_DEVICE : SIM_STEP_SLEEP);
}

static void is_ready(sim_world_t *w, const sim_process_t *p, sim_owner_t *o)
{
    if (++o->empty > EMPTY_MAX)
        sim_violation(w, "wake", "core %u arms again and again, finds nothing, and does not sleep", p->core);
    disarm(w, p);
    turn_begins(o);
}

static void step(sim_world_t *w, sim_process_t *p)
{
    sim_owner_t *o = owner_of(p);
    switch (o->step) {
    case SIM_STEP_POLL_QUEUE:
        if (queue_take(w, p)) {
            o->found = true;
            break;
        }
        o->looked = o->notify;
        go_to(o, SIM_STEP_POLL_LINK);
        break;
    case SIM_STEP_POLL_LINK:
        if (next_link(w, p, o))
            o->found |= link_poll(w, p, (rf_core_t)o->at++);
        else
            turn_ends(w, o);
        break;
    case SIM_STEP_ARM_DEVICE:
        arm_device(w, o);
        go_to(o, SIM_STEP_ARM_LINK);
        break;
    case SIM_STEP_ARM_LINK:
        if (next_link(w, p, o))
            arm_link(w, p, (rf_core_t)o->at++);
        else
            go_to(o, defect(w, SIM_DEFECT_NO_LAST_LOOK) || defect(w, SIM_DEFECT_ARMED_LATE)
                         ? SIM_STEP_SLEEP
                         : SIM_STEP_READY_QUEUE);
        break;
    case SIM_STEP_READY_QUEUE:
        if (!(o->notify && o->looked) && queue_take(w, p)) {
            o->empty = 0;
            break;
        }
        o->looked = o->notify;
        go_to(o, SIM_STEP_READY_LINK);
        break;
    case SIM_STEP_READY_LINK:
        if (!next_link(w, p, o))
            not_ready(w, o);
        else if (link_ready(w, p, (rf_core_t)o->at))
            is_ready(w, p, o);
        else
            o->at++;
        break;
    case SIM_STEP_SLEEP:
        if (o->told || o->rung || o->look_due) {
            wake(w, p);
        } else {
            o->asleep = true;
            o->empty = 0;
            p->carrying = false;
        }
        break;
    }
}

/* ---- a process ---- */

static void carry_on(sim_world_t *w, sim_process_t *p)
{
    sim_owner_t *o = owner_of(p);
    p->cost_ns = 0;
    effect(w, p);
    step(w, p);
    if (p->cost_ns > STOOD_NS) o->stood_ns = w->now_ns + p->cost_ns;
    if (p->carrying) p->busy_until_ns = w->now_ns + p->cost_ns;
}

static void handle(sim_world_t *w, sim_process_t *p, const sim_event_t *event)
{
    sim_owner_t *o = owner_of(p);
    if (event->kind == SIM_EVENT_TICK) {
        if (!sim_process_ticks(w, p, event)) return;
        p->tick_local_ns = RF_NEVER;
        o->look_due = true;
    }
    if (!o->asleep || !(o->told || o->rung || o->look_due)) return;
    wake(w, p);
    p->carrying = true;
    sim_process_stall(w, p->core, 1 + sim_exponential(&w->choices, RF_NS_PER_US)); /* goes on after so long */
}

static void start(sim_world_t *w, sim_process_t *p)
{
    sim_owner_t *o = owner_of(p);
    memset(o, 0, sizeof *o);
    o->stood_ns = w->now_ns;
    turn_begins(o);
    p->carrying = true;
    sim_process_stall(w, p->core, 1);
}

static void stop(sim_world_t *w, sim_process_t *p)
{
    (void)w;
    (void)p;
}

const sim_actor_t sim_actor_rdma = {"rdma", start, stop, handle, carry_on};
