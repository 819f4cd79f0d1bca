#include "agree_direct.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_BYTES 56

typedef struct queued {
    uint32_t size;
    uint8_t from, to, type;
    uint8_t bytes[AGREEMENT_MESSAGE_MAX];
} queued_t;

struct agree_direct {
    unsigned n, head, tail; /* of the queue: free-running */
    unsigned answered;
    uint64_t value; /* of the last answer */
    uint64_t messages, bytes;
    bool failed;
    agreement_member_t members[AGREE_REPLICAS_MAX];
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

static inline void take_completions(agree_direct_t *d, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_completions; i++) {
        d->answered += out->completions[i].err == RF_OK;
        d->value = out->completions[i].value;
    }
}

/* What fits a slot of a link is mostly as long as one, and is copied without a call, as links do. */
static inline void copy(uint8_t *to, const uint8_t *from, size_t size)
{
    if (size == SLOT_BYTES)
        memcpy(to, from, SLOT_BYTES);
    else
        memcpy(to, from, size);
}

static inline void enqueue(agree_direct_t *d, unsigned from, const agreement_output_t *out)
{
    for (unsigned i = 0; i < out->n_messages; i++) {
        const agreement_message_t *m = &out->messages[i];
        d->messages += m->n_to;
        d->bytes += m->n_to * m->size;
        for (unsigned k = 0; k < m->n_to; k++) {
            if (d->tail - d->head == AGREE_QUEUE_MAX) {
                d->failed = true;
                return;
            }
            queued_t *q = &d->queue[d->tail++ % AGREE_QUEUE_MAX];
            q->from = (uint8_t)from;
            q->to = (uint8_t)m->to[k].core;
            q->type = m->type;
            q->size = (uint32_t)m->size;
            copy(q->bytes, m->bytes, m->size);
        }
    }
}

/* Only what is read is set: clearing a whole event takes as long as a good part of a step. */
static inline void received(agreement_event_t *event, agreement_member_t from, uint8_t type,
                            const void *bytes, size_t size)
{
    event->kind = AGREEMENT_RECEIVE;
    event->now_ns = 1;
    event->hold = false;
    event->receive.from = from;
    event->receive.type = type;
    event->receive.bytes = bytes;
    event->receive.size = size;
}

/* One event, and what is sent because of it handed over; what comes back is in the queue then. */
static inline void step_one(agree_direct_t *d, unsigned i, const agreement_event_t *event)
{
    static const agreement_event_t more = {.kind = AGREEMENT_TICK, .now_ns = 1};
    const agreement_output_t *out = agreement_step(d->replicas[i].engine, event);
    for (;;) {
        take_completions(d, out);
        for (unsigned m = 0; m < out->n_messages; m++) {
            const agreement_message_t *message = &out->messages[m];
            d->messages += message->n_to;
            d->bytes += message->n_to * message->size;
            for (unsigned k = 0; k < message->n_to; k++) {
                unsigned to = message->to[k].core;
                agreement_event_t in;
                received(&in, d->members[i], message->type, message->bytes, message->size);
                const agreement_output_t *back = agreement_step(d->replicas[to].engine, &in);
                for (;;) {
                    take_completions(d, back);
                    enqueue(d, to, back);
                    if (!back->more) break;
                    back = agreement_step(d->replicas[to].engine, &more);
                }
            }
        }
        if (!out->more) return;
        out = agreement_step(d->replicas[i].engine, &more);
    }
}

unsigned agree_direct_step(agree_direct_t *d, unsigned i, const agreement_event_t *event)
{
    agreement_event_t in;
    d->answered = 0;
    for (;;) {
        step_one(d, i, event);
        if (event == &in) d->head++; /* its place is free only now: the step has read it */
        if (d->head == d->tail || d->failed) break;
        const queued_t *q = &d->queue[d->head % AGREE_QUEUE_MAX];
        received(&in, d->members[q->from], q->type, q->bytes, q->size);
        i = q->to;
        event = &in;
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
    while (ok && d->n < config->n) {
        d->members[d->n] = (agreement_member_t){.core = (rf_core_t)d->n, .incarnation = 1};
        ok = agree_replica_init(&d->replicas[d->n], (rf_core_t)d->n, config);
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
