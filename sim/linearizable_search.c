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
#include "linearizable.h"

#include <stdlib.h>

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

/* What placing and taking back have in common; `by` is 1 for taking back, else -1. */
static void count(search_t *s, uint32_t i, uint32_t by)
{
    op_t *o = &s->ops[i];
    o->placed = by != 1;
    if (o->needs != VALUE_NONE) s->needed[o->needs] += by;
    if (o->writes < s->n_values) s->writers[o->writes] += by;
    if (o->known) s->n_known_left += by;
    if (linearizable_is_class(o)) {
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
    if (!o->known) return linearizable_is_class(o) ? 5 : 4;
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

sim_linearizable_t linearizable_search(search_t *s)
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
