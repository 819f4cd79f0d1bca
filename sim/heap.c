/* The queue of events: a heap with four children a node, so that a node's children are one cache line; and the pools of
 * events and messages. Nothing is given back to the allocator until the world ends. */
#include "sim.h"

#include <stdlib.h>

#define EVENT_BITS 24
#define EVENTS_MAX (1u << EVENT_BITS)
#define SLAB_BYTES (1u << 16)

static const uint32_t class_bytes[SIM_MESSAGE_CLASSES] = {128, 384, 1024, AGREEMENT_MESSAGE_MAX,
                                                          AGREEMENT_MESSAGE_MAX + 512};

static inline bool before(const sim_heap_entry_t *a, const sim_heap_entry_t *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void grow(sim_queue_t *q)
{
    uint32_t max = q->max ? q->max * 2 : 4096;
    rf_assert(max <= EVENTS_MAX);
    q->heap = realloc(q->heap, (size_t)max * sizeof *q->heap);
    q->events = realloc(q->events, (size_t)max * sizeof *q->events);
    rf_assert(q->heap && q->events);
    q->max = max;
}

static uint32_t take_event(sim_queue_t *q)
{
    if (q->free != SIM_NONE) {
        uint32_t number = q->free;
        q->free = q->events[number].next;
        return number;
    }
    if (q->n_events == q->max) grow(q);
    return q->n_events++;
}

sim_event_t *sim_push(sim_world_t *w, uint64_t at_ns, sim_event_kind_t kind)
{
    sim_queue_t *q = &w->queue;
    uint32_t number = take_event(q);
    sim_heap_entry_t entry = {at_ns < w->now_ns ? w->now_ns : at_ns, q->next_order++ << EVENT_BITS | number};
    uint32_t i = q->n++;
    while (i > 0) {
        uint32_t parent = (i - 1) / 4;
        if (!before(&entry, &q->heap[parent])) break;
        q->heap[i] = q->heap[parent];
        i = parent;
    }
    q->heap[i] = entry;
    sim_event_t *event = &q->events[number];
    *event = (sim_event_t){.kind = (uint8_t)kind, .core = RF_CORE_NONE, .next = SIM_NONE};
    return event;
}

uint32_t sim_pop(sim_world_t *w, uint64_t *at_ns)
{
    sim_queue_t *q = &w->queue;
    if (q->n == 0) return SIM_NONE;
    sim_heap_entry_t top = q->heap[0], last = q->heap[--q->n];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = i * 4 + 1, end = child + 4 < q->n ? child + 4 : q->n;
        if (child >= q->n) break;
        uint32_t least = child;
        for (uint32_t k = child + 1; k < end; k++) {
            if (before(&q->heap[k], &q->heap[least])) least = k;
        }
        if (!before(&q->heap[least], &last)) break;
        q->heap[i] = q->heap[least];
        i = least;
    }
    q->heap[i] = last;
    *at_ns = top.at_ns;
    return (uint32_t)(top.order & (EVENTS_MAX - 1));
}

void sim_event_free(sim_world_t *w, uint32_t number)
{
    sim_queue_t *q = &w->queue;
    sim_event_t *event = &q->events[number];
    if (event->message) {
        sim_message_release(w, event->message);
        w->in_flight--;
    }
    event->message = NULL;
    event->kind = SIM_EVENT_NONE;
    event->next = q->free;
    q->free = number;
}

static void new_slab(sim_queue_t *q, unsigned size_class)
{
    if (q->n_slabs == q->slabs_max) {
        q->slabs_max = q->slabs_max ? q->slabs_max * 2 : 16;
        q->slabs = realloc(q->slabs, q->slabs_max * sizeof *q->slabs);
        rf_assert(q->slabs);
    }
    uint8_t *slab = malloc(SLAB_BYTES);
    rf_assert(slab);
    q->slabs[q->n_slabs++] = slab;
    size_t stride = sizeof(sim_message_t) + class_bytes[size_class];
    for (size_t at = 0; at + stride <= SLAB_BYTES; at += stride) {
        sim_message_t *message = (sim_message_t *)(void *)(slab + at);
        message->size_class = (uint8_t)size_class;
        message->next = q->messages[size_class];
        q->messages[size_class] = message;
    }
}

sim_message_t *sim_message_new(sim_world_t *w, uint8_t type, const void *bytes, size_t size)
{
    sim_queue_t *q = &w->queue;
    rf_assert(size <= class_bytes[SIM_MESSAGE_CLASSES - 1]);
    unsigned size_class = 0;
    while (size > class_bytes[size_class]) size_class++;
    if (!q->messages[size_class]) new_slab(q, size_class);
    sim_message_t *message = q->messages[size_class];
    q->messages[size_class] = message->next;
    message->references = 1;
    message->size = (uint32_t)size;
    message->type = type;
    if (size > 0) memcpy(message->bytes, bytes, size);
    return message;
}

void sim_message_release(sim_world_t *w, sim_message_t *message)
{
    rf_assert(message->references > 0);
    if (--message->references > 0) return;
    message->next = w->queue.messages[message->size_class];
    w->queue.messages[message->size_class] = message;
}

void sim_queue_free(sim_queue_t *q)
{
    for (uint32_t i = 0; i < q->n_slabs; i++) free(q->slabs[i]);
    free(q->slabs);
    free(q->heap);
    free(q->events);
    memset(q, 0, sizeof *q);
    q->free = SIM_NONE;
}

const char *sim_event_name(unsigned kind)
{
    static const char *const names[] = {
        [SIM_EVENT_NONE] = "none",     [SIM_EVENT_MESSAGE] = "message",   [SIM_EVENT_TICK] = "tick",
        [SIM_EVENT_RESUME] = "resume", [SIM_EVENT_ROOM] = "room",         [SIM_EVENT_DEATH] = "death",
        [SIM_EVENT_FENCED] = "fenced", [SIM_EVENT_FORM] = "form",         [SIM_EVENT_REQUEST] = "request",
        [SIM_EVENT_CHANGE] = "change", [SIM_EVENT_TRANSFER] = "transfer", [SIM_EVENT_REFUSED] = "refused",
        [SIM_EVENT_VIEW] = "view",     [SIM_EVENT_MAPPINGS] = "mappings", [SIM_EVENT_ANSWER] = "answer",
        [SIM_EVENT_CLIENT] = "client", [SIM_EVENT_FAULT] = "fault",       [SIM_EVENT_HEAL] = "heal",
        [SIM_EVENT_HOST] = "host",     [SIM_EVENT_KILL] = "kill",         [SIM_EVENT_EXPEL] = "expel",
        [SIM_EVENT_PHASE] = "phase",   [SIM_EVENT_LANE] = "lane",         [SIM_EVENT_WRITE] = "write",
        [SIM_EVENT_LINK] = "link",
    };
    return kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}
