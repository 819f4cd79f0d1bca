/*
 * The search for an order that explains a key's operations (linearizable_search.c), as check_linearizable.c sets it up: what each operation
 * may have done, calls and returns in the order of time, and the memory for it.
 */
#ifndef RF_SIM_LINEARIZABLE_H
#define RF_SIM_LINEARIZABLE_H

#include "sim.h"

#define VALUE_ABSENT 0u
#define VALUE_OTHER  (SIM_NONE - 1) /* any that nobody asks for */
#define VALUE_NONE   SIM_NONE

/* An operation of the key that is looked at. */
typedef struct op {
    uint64_t call_ns, return_ns;
    uint32_t number;   /* in the history */
    uint32_t expected; /* CAS */
    uint32_t needs;    /* known: the value that it must find; VALUE_NONE: no certain one */
    uint32_t writes;   /* VALUE_NONE: it changes nothing */
    uint8_t kind;
    bool known, placed;
} op_t;

/* Calls and returns of known operations in the order of time, as a list out of which what is placed is taken. */
typedef struct node {
    uint32_t op, before, after;
    bool is_return;
} node_t;

typedef struct mark { /* a visited configuration; 128 bits of hash of the set */
    uint64_t a, b;
    uint32_t value, used, others, deletes;
} mark_t;

typedef struct placed {
    uint32_t op, value; /* the value before it */
} placed_t;

typedef struct frame { /* a configuration, with what may come next */
    uint32_t n_placed; /* before the operation that led here */
    uint32_t first, next;
    bool fresh; /* the last one is without a known outcome, and nothing has seen it yet */
} frame_t;

typedef struct search {
    const sim_history_t *history;
    op_t *ops;
    uint32_t n_ops, n_known_left;
    uint32_t *values; /* sorted: what the numbers of values stand for */
    uint32_t n_values;
    uint32_t *needed, *writers; /* [n_values]: operations not placed yet that need it, or may write it */
    bool *asked_for;            /* [n_values]: somebody compares with it */
    uint32_t *n_writers;        /* [n_values]: operations that may write it, placed or not */
    uint64_t *last_call_ns;     /* [n_values]: of those that need it */
    uint64_t *wanted, stamp;    /* [n_values]: equal to `stamp`: something that may come next needs it */
    node_t *nodes; /* [0] is the head; of operation i the call is calls[i], the return returns[i] */
    uint32_t *calls, *returns;
    uint32_t *others, *deletes, *unknown; /* unknown operations: writing VALUE_OTHER; deleting; all others */
    uint32_t n_others, n_deletes, n_unknown, others_used, deletes_used;
    uint32_t value;
    placed_t *placed;
    uint32_t n_placed;
    frame_t *frames;
    uint32_t n_frames;
    uint32_t *choices;
    size_t n_choices, max_choices;
    mark_t *marks;
    size_t n_marks, max_marks;
    uint64_t set_a, set_b;
    uint64_t steps_left;
    uint32_t furthest, furthest_left; /* the operation whose return could not be passed */
} search_t;

/* One of those that are as good as each other: without a known outcome, and a delete or a put of what nobody asks for. */
static inline bool linearizable_is_class(const op_t *o)
{
    return !o->known && (o->kind == SIM_DELETE || (o->kind == SIM_PUT && o->writes == VALUE_OTHER));
}

/* `s` as set up: nothing is placed, `steps_left` says how long to search. Not linearizable: s->furthest is the operation that could not be
 * passed. What it allocates, choices and marks, it uses again for the next key; the caller frees it. */
sim_linearizable_t linearizable_search(search_t *s);

#endif
