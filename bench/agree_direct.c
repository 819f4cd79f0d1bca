#include "agree_direct.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

typedef struct queued {
    uint32_t size;
    uint8_t from, to, type;
    const uint8_t *bytes; /* where the engine made it, or saved */
    uint8_t saved[AGREEMENT_MESSAGE_MAX];
} queued_t;

struct agree_direct {
    unsigned n, head, tail; /* of the queue: free-running */
    unsigned answered;
    bool timed;
    uint64_t answered_ticks;
    uint64_t value; /* of the last answer */
    uint64_t messages, bytes;
    bool failed;
    unsigned lent[AGREE_REPLICAS_MAX]; /* messages that the queue names where that replica made them */
    agreement_t *engines[AGREE_REPLICAS_MAX];
    agreement_member_t members[AGREE_REPLICAS_MAX];
    agreement_event_t handed,
        taken; /* a message handed on at once, and one from the queue; what never differs is set */
    agree_replica_t replicas[AGREE_REPLICAS_MAX];
    queued_t queue[AGREE_QUEUE_MAX];
};

agree_replica_t *agree_direct_replica(agree_direct_t *direct, unsigned i)
{
    return &direct->replicas[i];
}

uint64_t agree_direct_messages(const agree_direct_t *direct)
{
    return direct->messages;
}

uint64_t agree_direct_bytes(const agree_direct_t *direct)
{
    return direct->bytes;
}

void agree_direct_time(agree_direct_t *direct)
{
    direct->timed = true;
}

uint64_t agree_direct_answered_ticks(const agree_direct_t *direct)
{
    return direct->answered_ticks;
}

static const agreement_event_t rest = {.kind = AGREEMENT_TICK, .now_ns = 1};

static inline void take_completions(agree_direct_t *d, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_completions; i++) {
        d->answered += out->completions[i].err == RF_OK;
        d->value = out->completions[i].value;
        if (__builtin_expect(d->timed, 0)) d->answered_ticks = rf_clock_ticks();
    }
}

/* Before a replica is stepped: what it has sent, and nobody has had yet, would be gone. */
static void save(agree_direct_t *d, unsigned from)
{
    for (unsigned i = d->head; i != d->tail && d->lent[from] > 0; i++) {
        queued_t *q = &d->queue[i % AGREE_QUEUE_MAX];
        if (q->from != from || q->bytes == q->saved) continue;
        memcpy(q->saved, q->bytes, q->size);
        q->bytes = q->saved;
        d->lent[from]--;
    }
}

static inline const agreement_output_t *step(agree_direct_t *d, unsigned i, const agreement_event_t *event)
{
    if (d->lent[i]) save(d, i);
    return agreement_step(d->engines[i], event);
}

static inline void enqueue(agree_direct_t *d, unsigned from, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *m = &out->messages[i];
        d->messages += m->n_to;
        d->bytes += m->n_to * m->size;
        for (unsigned k = 0; k < m->n_to; k++) {
            if (d->tail - d->head == AGREE_QUEUE_MAX - 1) { /* the place of the one just taken stays */
                d->failed = true;
                return;
            }
            queued_t *q = &d->queue[d->tail++ % AGREE_QUEUE_MAX];
            q->from = (uint8_t)from;
            q->to = (uint8_t)m->to[k].core;
            q->type = m->type;
            q->size = (uint32_t)m->size;
            q->bytes = m->bytes;
            d->lent[from]++;
        }
    }
}

/* Steps who gets it, where it lies; what that one sends goes into the queue. */
static inline void hand_over(agree_direct_t *d, unsigned from, const agreement_message_t *m)
{
    d->messages += m->n_to;
    d->bytes += m->n_to * m->size;
    d->handed.receive.from = d->members[from];
    d->handed.receive.type = m->type;
    d->handed.receive.bytes = m->bytes;
    d->handed.receive.size = m->size;
    for (unsigned k = 0; k < m->n_to; k++) {
        unsigned to = m->to[k].core;
        const agreement_output_t *out = step(d, to, &d->handed);
        for (;;) {
            take_completions(d, out);
            enqueue(d, to, out);
            if (!out->more) break;
            out = step(d, to, &rest);
        }
    }
}

unsigned agree_direct_step(agree_direct_t *d, unsigned i, const agreement_event_t *event)
{
    d->answered = 0;
    for (;;) {
        const agreement_output_t *out = step(d, i, event);
        for (;;) {
            take_completions(d, out);
            for (unsigned m = 0; m < out->n_messages; m++) hand_over(d, i, &out->messages[m]);
            if (!out->more) break;
            out = step(d, i, &rest);
        }
        if (d->head == d->tail || d->failed) break;
        const queued_t *q = &d->queue[d->head++ % AGREE_QUEUE_MAX];
        i = q->to;
        event = &d->taken;
        d->lent[q->from] -= q->bytes != q->saved;
        d->taken.receive.from = d->members[q->from];
        d->taken.receive.type = q->type;
        d->taken.receive.bytes = q->bytes;
        d->taken.receive.size = q->size;
    }
    d->head = d->tail = 0; /* the same few places again, which are in the cache */
    return d->failed ? 0 : d->answered;
}

static bool form(agree_direct_t *d, const agree_config_t *config)
{
    agreement_event_t event = agree_replica_form(&d->replicas[0], config);
    event.now_ns = 1;
    agree_direct_step(d, 0, &event);
    event = (agreement_event_t){.kind = AGREEMENT_SESSION_OPEN, .now_ns = 1};
    event.session.sequence = ++d->replicas[0].own_sequence;
    bool ok = agree_direct_step(d, 0, &event) == 1;
    d->replicas[0].session = d->value;
    return ok;
}

agree_direct_t *agree_direct_open(const agree_config_t *config)
{
    agree_direct_t *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    bool ok = true;
    d->handed = d->taken = (agreement_event_t){.kind = AGREEMENT_RECEIVE, .now_ns = 1};
    while (ok && d->n < config->n) {
        d->members[d->n] = (agreement_member_t){.core = (rf_core_t)d->n, .incarnation = 1};
        ok = agree_replica_init(&d->replicas[d->n], (rf_core_t)d->n, config);
        d->engines[d->n] = d->replicas[d->n].engine;
        d->n += ok;
    }
    if (ok && form(d, config)) return d;
    fprintf(stderr, "rf-bench: %u replicas by direct calls do not form a machine\n", config->n);
    agree_direct_close(d);
    return NULL;
}

void agree_direct_close(agree_direct_t *d)
{
    for (unsigned i = 0; i < d->n; i++) agree_replica_free(&d->replicas[i]);
    free(d);
}
