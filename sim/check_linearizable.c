/*
 * Linearizability of a registry, key by key: each key is a register with put, get, compare-and-swap and delete, and a
 * history is linearizable when that of each key is (Herlihy and Wing 1990). The search is Wing and Gong's with Lowe's
 * memory of configurations ("Testing for linearizability", 2017): an operation may come next if no other has returned
 * before its call; a configuration, what has been placed and the value then, is gone into once. It is exact; what it
 * leaves out cannot matter:
 *
 *   - what changes nothing and is explained by the value now is placed now: later is never better
 *   - a value that known operations still need is not left, unless something is left that can write it again; nor is one
 *     taken on that nothing can write again while something else must come before the last that needs it is called
 *   - an operation without a known outcome, which may take effect at any time after its call, or never, is placed only
 *     directly before one that sees what it does: else it could as well come later
 *   - values that nobody ever asks for are one value, and of the unknown operations that write it, and of unknown
 *     deletes, the one called first is taken; a configuration that has used up more of them than another like it is
 *     worse than that one
 */
#include "sim.h"

#include <stdlib.h>

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

static uint64_t scatter(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* ---- configurations that were visited ---- */

static mark_t *find_mark(mark_t *marks, size_t max, uint64_t a, uint64_t b, uint32_t value)
{
    size_t at = (a ^ scatter(value)) & (max - 1);
    while (marks[at].used && (marks[at].a != a || marks[at].b != b || marks[at].value != value))
        at = (at + 1) & (max - 1);
    return &marks[at];
}

/* False: one at least as good was there already. */
static bool visit(search_t *s)
{
    if (s->n_marks * 2 >= s->max_marks) {
        size_t max = s->max_marks ? s->max_marks * 2 : 1024;
        mark_t *marks = calloc(max, sizeof *marks);
        rf_assert(marks);
        for (size_t i = 0; i < s->max_marks; i++) {
            if (s->marks[i].used)
                *find_mark(marks, max, s->marks[i].a, s->marks[i].b, s->marks[i].value) = s->marks[i];
        }
        free(s->marks);
        s->marks = marks;
        s->max_marks = max;
    }
    mark_t *mark = find_mark(s->marks, s->max_marks, s->set_a, s->set_b, s->value);
    if (mark->used && mark->others <= s->others_used && mark->deletes <= s->deletes_used) return false;
    s->n_marks += !mark->used;
    *mark = (mark_t){s->set_a, s->set_b, s->value, 1, s->others_used, s->deletes_used};
    return true;
}

/* ---- placing an operation, and taking it back ---- */

static void lift(search_t *s, uint32_t at)
{
    const node_t *n = &s->nodes[at];
    s->nodes[n->before].after = n->after;
    if (n->after != SIM_NONE) s->nodes[n->after].before = n->before;
}

static void unlift(search_t *s, uint32_t at)
{
    const node_t *n = &s->nodes[at];
    s->nodes[n->before].after = at;
    if (n->after != SIM_NONE) s->nodes[n->after].before = at;
}

static bool is_class(const op_t *o) /* one of those that are as good as each other */
{
    return !o->known && (o->kind == SIM_DELETE || (o->kind == SIM_PUT && o->writes == VALUE_OTHER));
}

/* What placing and taking back have in common; `by` is 1 for taking back, else -1. */
static void count(search_t *s, uint32_t i, uint32_t by)
{
    op_t *o = &s->ops[i];
    o->placed = by != 1;
    if (o->needs != VALUE_NONE) s->needed[o->needs] += by;
    if (o->writes < s->n_values) s->writers[o->writes] += by;
    if (o->known) s->n_known_left += by;
    if (is_class(o)) {
        if (o->kind == SIM_PUT)
            s->others_used -= by;
        else
            s->deletes_used -= by;
        return;
    }
    s->set_a ^= scatter(i);
    s->set_b ^= scatter(i + 0x100000000ull);
}

static void place(search_t *s, uint32_t i)
{
    const op_t *o = &s->ops[i];
    s->placed[s->n_placed++] = (placed_t){i, s->value};
    if (o->known) {
        lift(s, s->calls[i]);
        lift(s, s->returns[i]);
    }
    count(s, i, UINT32_MAX);
    if (o->writes != VALUE_NONE) s->value = o->writes;
}

static void take_back(search_t *s, uint32_t n_placed)
{
    while (s->n_placed > n_placed) {
        placed_t last = s->placed[--s->n_placed];
        s->value = last.value;
        count(s, last.op, 1);
        if (!s->ops[last.op].known) continue;
        unlift(s, s->returns[last.op]);
        unlift(s, s->calls[last.op]);
    }
}

/* ---- what may come next ---- */

/* One that changes nothing, and that the value now explains. */
static bool is_explained(const op_t *o, uint32_t value)
{
    if (o->writes != VALUE_NONE) return false;
    return o->kind == SIM_CAS ? value != o->expected : value == o->needs;
}

static bool may_follow(const op_t *o, uint32_t value)
{
    switch (o->kind) {
    case SIM_PUT:
        return true;
    case SIM_CAS:
        return o->writes != VALUE_NONE && value == o->expected;
    case SIM_DELETE:
        return o->writes != VALUE_NONE && value != VALUE_ABSENT;
    default:
        return false;
    }
}

/* Places all that the value explains. The first return that is left; SIM_NONE: nothing is. */
static uint32_t place_explained(search_t *s)
{
    for (uint32_t at = s->nodes[0].after; at != SIM_NONE;) {
        const node_t *n = &s->nodes[at];
        if (n->is_return) return n->op;
        if (!is_explained(&s->ops[n->op], s->value)) {
            at = n->after;
            continue;
        }
        place(s, n->op);
        at = s->nodes[0].after; /* what was the first return may be gone */
    }
    return SIM_NONE;
}

static void choose(search_t *s, uint32_t i)
{
    if (s->n_choices == s->max_choices) {
        s->max_choices = s->max_choices ? s->max_choices * 2 : 1024;
        s->choices = realloc(s->choices, s->max_choices * sizeof *s->choices);
        rf_assert(s->choices);
    }
    s->choices[s->n_choices++] = i;
}

/* What is wanted before the first return: the likelier first. */
static unsigned rank(const op_t *o, const op_t *first)
{
    if (!o->known) return is_class(o) ? 5 : 4;
    if (o->kind == SIM_CAS) return 0;
    if (o->writes == VALUE_OTHER) return 1; /* nobody sees it: before something that is written over it */
    if (o == first || (first->needs != VALUE_NONE && first->needs == o->writes)) return 2;
    return 3;
}

static void sort_choices(search_t *s, size_t from, const op_t *first)
{
    for (size_t i = from + 1; i < s->n_choices; i++) {
        uint32_t one = s->choices[i];
        unsigned r = rank(&s->ops[one], first);
        size_t k = i;
        for (; k > from; k--) {
            const op_t *o = &s->ops[s->choices[k - 1]];
            unsigned other = rank(o, first);
            if (other < r || (other == r && o->return_ns <= s->ops[one].return_ns)) break;
            s->choices[k] = s->choices[k - 1];
        }
        s->choices[k] = one;
    }
}

/* The first unknown one of a class that is not placed, if it was called by then. */
static uint32_t first_of(const search_t *s, const uint32_t *list, uint32_t n, uint32_t used, uint64_t by_ns)
{
    return used < n && s->ops[list[used]].call_ns <= by_ns ? list[used] : SIM_NONE;
}

static bool is_wanted(const search_t *s, uint32_t value)
{
    return value < s->n_values && s->wanted[value] == s->stamp;
}

static void want(search_t *s, uint32_t value)
{
    if (value < s->n_values) s->wanted[value] = s->stamp;
}

/* What unknown ones could be for: marks the values that something which may come next needs, also by way of unknown compare-
 * and-swaps. True: any value but the one now would do for one of them. */
static bool find_wanted(search_t *s, uint64_t by_ns)
{
    bool any = false, more = true;
    s->stamp++;
    for (uint32_t at = s->nodes[0].after; !s->nodes[at].is_return; at = s->nodes[at].after) {
        const op_t *o = &s->ops[s->nodes[at].op];
        want(s, o->needs);
        any |= o->kind == SIM_CAS && o->writes == VALUE_NONE; /* it found another, and has not been placed */
        any |= o->kind == SIM_DELETE && o->writes != VALUE_NONE && s->value == VALUE_ABSENT;
    }
    while (more) {
        more = false;
        for (uint32_t k = 0; k < s->n_unknown && s->ops[s->unknown[k]].call_ns <= by_ns; k++) {
            const op_t *o = &s->ops[s->unknown[k]];
            if (o->placed || o->kind != SIM_CAS || is_wanted(s, o->expected)) continue;
            if (!any && !is_wanted(s, o->writes)) continue;
            want(s, o->expected);
            more = true;
        }
    }
    return any;
}

/* Fills in what may come next; false: nothing, or what must is out of reach. */
static bool gather_choices(search_t *s, uint32_t first, bool fresh)
{
    const op_t *f = &s->ops[first];
    size_t from = s->n_choices;
    bool reached = f->needs == VALUE_NONE || f->needs == s->value;
    for (uint32_t at = s->nodes[0].after; !s->nodes[at].is_return; at = s->nodes[at].after) {
        uint32_t i = s->nodes[at].op;
        reached |= s->ops[i].writes == f->needs;
        if (may_follow(&s->ops[i], s->value)) choose(s, i);
    }
    bool any = find_wanted(s, f->return_ns);
    for (uint32_t k = 0; k < s->n_unknown && s->ops[s->unknown[k]].call_ns <= f->return_ns; k++) {
        const op_t *o = &s->ops[s->unknown[k]];
        if (o->placed) continue;
        reached |= o->writes == f->needs;
        if (may_follow(o, s->value) && (any || is_wanted(s, o->writes))) choose(s, s->unknown[k]);
    }
    uint32_t other = first_of(s, s->others, s->n_others, s->others_used, f->return_ns);
    if (other != SIM_NONE && any) choose(s, other);
    uint32_t delete = first_of(s, s->deletes, s->n_deletes, s->deletes_used, f->return_ns);
    reached |= delete != SIM_NONE && f->needs == VALUE_ABSENT;
    if (delete != SIM_NONE && s->value != VALUE_ABSENT && (any || is_wanted(s, VALUE_ABSENT)))
        choose(s, delete);
    if (!reached) s->n_choices = from;
    if (fresh) { /* only what sees what the last one did */
        size_t n = from;
        for (size_t i = from; i < s->n_choices; i++) {
            const op_t *o = &s->ops[s->choices[i]];
            if (o->kind == SIM_CAS || (o->known && o->kind == SIM_DELETE)) s->choices[n++] = s->choices[i];
        }
        s->n_choices = n;
    }
    sort_choices(s, from, f);
    return s->n_choices > from;
}

/*
 * The value is one that nothing writes twice: it must stay until the last that needs it is called, and so explain all that
 * returns before then (Gibbons and Korach 1997, zones).
 */
static bool can_stay(const search_t *s)
{
    uint32_t value = s->value;
    if (value >= s->n_values || value == VALUE_ABSENT || s->n_writers[value] != 1 || s->needed[value] == 0)
        return true;
    uint64_t until_ns = s->last_call_ns[value];
    for (uint32_t at = s->nodes[0].after; at != SIM_NONE; at = s->nodes[at].after) {
        const op_t *o = &s->ops[s->nodes[at].op];
        if ((s->nodes[at].is_return ? o->return_ns : o->call_ns) >= until_ns) return true;
        if (s->nodes[at].is_return && !is_explained(o, value)) return false;
    }
    return true;
}

/* Goes on from where `s` is; false: no further, and all from `n_placed` on is taken back. */
static bool enter(search_t *s, uint32_t n_placed)
{
    uint32_t before = s->n_placed;
    uint32_t first = place_explained(s);
    if (s->n_known_left == 0) return true;
    bool fresh =
        before > 0 && s->n_placed == before && n_placed < before && !s->ops[s->placed[before - 1].op].known;
    if (s->n_known_left < s->furthest_left) {
        s->furthest_left = s->n_known_left;
        s->furthest = first;
    }
    size_t from = s->n_choices;
    if (can_stay(s) && (fresh || visit(s)) && gather_choices(s, first, fresh)) {
        s->frames[s->n_frames++] = (frame_t){n_placed, (uint32_t)from, (uint32_t)from, fresh};
        return true;
    }
    s->n_choices = from;
    take_back(s, n_placed);
    return false;
}

static sim_linearizable_t search(search_t *s)
{
    if (!enter(s, 0)) return SIM_NOT_LINEARIZABLE;
    while (s->n_known_left > 0) {
        if (s->n_frames == 0) return SIM_NOT_LINEARIZABLE;
        if (s->steps_left-- == 0) return SIM_UNDECIDED;
        frame_t *frame = &s->frames[s->n_frames - 1];
        if (frame->next == s->n_choices) {
            s->n_choices = frame->first;
            take_back(s, frame->n_placed);
            s->n_frames--;
            continue;
        }
        uint32_t i = s->choices[frame->next++], was = s->value, n_placed = s->n_placed;
        place(s, i);
        bool lost = was < s->n_values && was != s->value && s->needed[was] > 0 && s->writers[was] == 0;
        if (lost)
            take_back(s, n_placed);
        else
            enter(s, n_placed);
    }
    return SIM_LINEARIZABLE;
}

/* ---- setting up the search of one key ---- */

static int order_values(const void *pa, const void *pb)
{
    uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;
    return a < b ? -1 : a > b;
}

static uint32_t value_number(const search_t *s, uint32_t value)
{
    const uint32_t *found = bsearch(&value, s->values, s->n_values, sizeof *s->values, order_values);
    return (uint32_t)(found - s->values);
}

static void number_values(search_t *s)
{
    uint32_t n = 0;
    s->values[n++] = SIM_ABSENT;
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const sim_operation_t *o = &s->history->operations[s->ops[i].number];
        s->values[n++] = o->value;
        s->values[n++] = o->expected;
    }
    qsort(s->values, n, sizeof *s->values, order_values);
    s->n_values = 1;
    for (uint32_t i = 1; i < n; i++) {
        if (s->values[i] != s->values[s->n_values - 1]) s->values[s->n_values++] = s->values[i];
    }
    memset(s->needed, 0, s->n_values * sizeof *s->needed);
    memset(s->writers, 0, s->n_values * sizeof *s->writers);
    memset(s->asked_for, 0, s->n_values * sizeof *s->asked_for);
    memset(s->n_writers, 0, s->n_values * sizeof *s->n_writers);
    memset(s->last_call_ns, 0, s->n_values * sizeof *s->last_call_ns);
    s->asked_for[VALUE_ABSENT] = true;
    for (uint32_t i = 0; i < s->n_ops; i++) {
        const sim_operation_t *o = &s->history->operations[s->ops[i].number];
        if (o->kind == SIM_GET) s->asked_for[value_number(s, o->value)] = true;
        if (o->kind == SIM_CAS) s->asked_for[value_number(s, o->expected)] = true;
    }
}

static uint32_t written(const search_t *s, uint32_t value)
{
    uint32_t number = value_number(s, value);
    return s->asked_for[number] ? number : VALUE_OTHER;
}

static void set_up_op(search_t *s, op_t *op)
{
    const sim_operation_t *o = &s->history->operations[op->number];
    op->needs = op->writes = VALUE_NONE;
    op->expected = value_number(s, o->expected);
    switch (o->kind) {
    case SIM_PUT:
        op->writes = written(s, o->value);
        break;
    case SIM_GET:
        op->needs = value_number(s, o->value);
        break;
    case SIM_CAS:
        if (!op->known || o->success) op->writes = written(s, o->value);
        if (op->known && o->success) op->needs = op->expected;
        break;
    case SIM_DELETE:
        if (!op->known || o->success)
            op->writes = VALUE_ABSENT;
        else
            op->needs = VALUE_ABSENT;
        break;
    default:
        break;
    }
    if (op->needs != VALUE_NONE) {
        s->needed[op->needs]++;
        if (s->last_call_ns[op->needs] < op->call_ns) s->last_call_ns[op->needs] = op->call_ns;
    }
    if (op->writes < s->n_values) {
        s->writers[op->writes]++;
        s->n_writers[op->writes]++;
    }
}

static int order_calls(const void *pa, const void *pb)
{
    const op_t *a = pa, *b = pb;
    if (a->call_ns != b->call_ns) return a->call_ns < b->call_ns ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

static int order_nodes(const void *pa, const void *pb, void *context)
{
    const node_t *a = pa, *b = pb;
    const op_t *ops = context;
    uint64_t a_ns = a->is_return ? ops[a->op].return_ns : ops[a->op].call_ns;
    uint64_t b_ns = b->is_return ? ops[b->op].return_ns : ops[b->op].call_ns;
    if (a_ns != b_ns) return a_ns < b_ns ? -1 : 1;
    if (a->is_return != b->is_return) return a->is_return ? 1 : -1; /* at one time: concurrent */
    return a->op < b->op ? -1 : a->op > b->op;
}

static void lay_out(search_t *s)
{
    uint32_t n = 1;
    s->n_known_left = s->n_others = s->n_deletes = s->n_unknown = 0;
    for (uint32_t i = 0; i < s->n_ops; i++) {
        op_t *o = &s->ops[i];
        set_up_op(s, o);
        if (o->known) {
            s->n_known_left++;
            s->nodes[n++] = (node_t){.op = i};
            s->nodes[n++] = (node_t){.op = i, .is_return = true};
        } else if (!is_class(o)) {
            s->unknown[s->n_unknown++] = i;
        } else if (o->kind == SIM_PUT) {
            s->others[s->n_others++] = i;
        } else {
            s->deletes[s->n_deletes++] = i;
        }
    }
    qsort_r(s->nodes + 1, n - 1, sizeof *s->nodes, order_nodes, s->ops);
    s->nodes[0] = (node_t){.op = SIM_NONE, .before = SIM_NONE, .after = n > 1 ? 1 : SIM_NONE};
    for (uint32_t i = 1; i < n; i++) {
        s->nodes[i].before = i - 1;
        s->nodes[i].after = i + 1 < n ? i + 1 : SIM_NONE;
        (s->nodes[i].is_return ? s->returns : s->calls)[s->nodes[i].op] = i;
    }
    if (s->marks) memset(s->marks, 0, s->max_marks * sizeof *s->marks);
    s->n_marks = s->n_choices = 0;
    s->n_placed = s->n_frames = s->others_used = s->deletes_used = 0;
    s->set_a = s->set_b = 0;
    s->value = VALUE_ABSENT;
    s->furthest_left = SIM_NONE;
}

/* Operations of the key of `by_key[from]`; the first of the next key. */
static size_t gather(search_t *s, const uint32_t *by_key, size_t from)
{
    const sim_operation_t *operations = s->history->operations;
    uint32_t key = operations[by_key[from]].key;
    size_t i = from;
    s->n_ops = 0;
    for (; i < s->history->n && operations[by_key[i]].key == key; i++) {
        const sim_operation_t *o = &operations[by_key[i]];
        if (o->outcome == SIM_NOT_EXECUTED || (o->outcome == SIM_UNKNOWN && o->kind == SIM_GET)) continue;
        bool known = o->outcome == SIM_DONE;
        s->ops[s->n_ops++] = (op_t){.call_ns = o->call_ns,
                                    .return_ns = known ? o->return_ns : RF_NEVER,
                                    .number = by_key[i],
                                    .kind = o->kind,
                                    .known = known};
    }
    qsort(s->ops, s->n_ops, sizeof *s->ops, order_calls);
    number_values(s);
    lay_out(s);
    return i;
}

static int by_key_order(const void *pa, const void *pb, void *context)
{
    const sim_operation_t *operations = context;
    uint32_t a = *(const uint32_t *)pa, b = *(const uint32_t *)pb;
    if (operations[a].key != operations[b].key) return operations[a].key < operations[b].key ? -1 : 1;
    return a < b ? -1 : a > b;
}

static void say_why(const sim_history_t *history, const sim_operation_t *o, sim_linearizable_t result,
                    char *why, size_t why_size)
{
    char key[16];
    snprintf(key, sizeof key, "k%u", o->key);
    const char *name = history->names ? history->names[o->key] : key;
    if (result == SIM_UNDECIDED)
        snprintf(why, why_size, "key %s: not decided within the allowed steps", name);
    else
        snprintf(why, why_size,
                 "key %s: nothing explains what client %u was answered (operation %zu of the history, called "
                 "at %llu, "
                 "returned at %llu)",
                 name, o->client, (size_t)(o - history->operations) + 1, (unsigned long long)o->call_ns,
                 (unsigned long long)o->return_ns);
}

static void *array(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    rf_assert(memory);
    return memory;
}

sim_linearizable_t check_linearizable(const sim_history_t *history, uint64_t steps_max, char *why,
                                      size_t why_size)
{
    size_t n = history->n;
    if (n == 0) return SIM_LINEARIZABLE;
    search_t s = {.history = history};
    s.ops = array(n, sizeof *s.ops);
    s.values = array(2 * n + 1, sizeof *s.values);
    s.needed = array(2 * n + 1, sizeof *s.needed);
    s.writers = array(2 * n + 1, sizeof *s.writers);
    s.asked_for = array(2 * n + 1, sizeof *s.asked_for);
    s.n_writers = array(2 * n + 1, sizeof *s.n_writers);
    s.last_call_ns = array(2 * n + 1, sizeof *s.last_call_ns);
    s.wanted = array(2 * n + 1, sizeof *s.wanted);
    s.nodes = array(2 * n + 1, sizeof *s.nodes);
    s.placed = array(n, sizeof *s.placed);
    s.frames = array(n + 1, sizeof *s.frames);
    uint32_t *numbers = array(6 * n, sizeof *numbers);
    s.calls = numbers;
    s.returns = numbers + n;
    s.others = numbers + 2 * n;
    s.deletes = numbers + 3 * n;
    s.unknown = numbers + 4 * n;
    uint32_t *by_key = numbers + 5 * n;
    for (size_t i = 0; i < n; i++) by_key[i] = (uint32_t)i;
    qsort_r(by_key, n, sizeof *by_key, by_key_order, history->operations);
    sim_linearizable_t result = SIM_LINEARIZABLE;
    for (size_t from = 0, to; from < n && result != SIM_NOT_LINEARIZABLE; from = to) {
        to = gather(&s, by_key, from);
        s.steps_left = steps_max;
        sim_linearizable_t one = search(&s);
        if (one == SIM_LINEARIZABLE) continue;
        result = one;
        uint32_t where = one == SIM_UNDECIDED ? by_key[from] : s.ops[s.furthest].number;
        say_why(history, &history->operations[where], one, why, why_size);
    }
    free(s.ops);
    free(s.values);
    free(s.needed);
    free(s.writers);
    free(s.asked_for);
    free(s.n_writers);
    free(s.last_call_ns);
    free(s.wanted);
    free(s.nodes);
    free(s.placed);
    free(s.frames);
    free(s.choices);
    free(s.marks);
    free(numbers);
    return result;
}
