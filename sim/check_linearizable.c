/*
 * Linearizability of a registry, key by key: each key is a register with put, get, compare-and-swap and delete, and a
 * history is linearizable when that of each key is (Herlihy and Wing 1990). The search is Wing and Gong's with Lowe's
 * memory of configurations ("Testing for linearizability", 2017): walk along calls and returns in the order of time; a call
 * that the register explains is taken out together with its return and the walk starts again; at a return whose
 * call is still in, take back the last one. A configuration, the set taken out and the value, is visited once.
 *
 * An operation without a known outcome may take effect at any time after its call, or never: its return is at the end
 * of time, and nothing asks that it be taken out. So at each point those with a known outcome are tried first: the others
 * only where something needs them.
 */
#include "sim.h"

#include <stdlib.h>

typedef struct node {
    uint32_t operation; /* number in the history */
    uint32_t match;     /* of a call: its return. Of a return: SIM_NONE */
    uint32_t before, after;
} node_t;

typedef struct mark { /* a visited configuration; 128 bits of hash of the set */
    uint64_t a, b;
    uint32_t value, used;
} mark_t;

typedef struct edge {
    uint64_t time_ns;
    uint32_t operation;
    bool is_return;
} edge_t;

typedef struct step {
    uint32_t node, value;
    bool known;
} step_t;

typedef struct search {
    const sim_history_t *history;
    edge_t *edges;
    node_t *nodes; /* [0] is the head */
    step_t *stack;
    mark_t *marks;
    size_t n_marks, max_marks;
    uint64_t set_a, set_b;
    uint64_t steps_left;
    uint32_t furthest; /* the operation whose return could not be passed */
} search_t;

static bool explain(const sim_operation_t *o, uint32_t value, uint32_t *next)
{
    bool known = o->outcome == SIM_DONE;
    *next = value;
    switch (o->kind) {
    case SIM_PUT:
        *next = o->value;
        return true;
    case SIM_GET:
        return !known || value == o->value;
    case SIM_CAS:
        if (known && o->success != (value == o->expected)) return false;
        if (value == o->expected) *next = o->value;
        return true;
    case SIM_DELETE:
        if (known && o->success != (value != SIM_ABSENT)) return false;
        *next = SIM_ABSENT;
        return true;
    default:
        return false;
    }
}

static uint64_t scatter(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static void toggle(search_t *s, uint32_t operation)
{
    s->set_a ^= scatter(operation);
    s->set_b ^= scatter(operation + 0x100000000ull);
}

static mark_t *find_mark(mark_t *marks, size_t max, uint64_t a, uint64_t b, uint32_t value)
{
    size_t at = (a ^ scatter(value)) & (max - 1);
    while (marks[at].used && (marks[at].a != a || marks[at].b != b || marks[at].value != value))
        at = (at + 1) & (max - 1);
    return &marks[at];
}

/* False: this configuration was there already. */
static bool visit(search_t *s, uint32_t value)
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
    mark_t *mark = find_mark(s->marks, s->max_marks, s->set_a, s->set_b, value);
    if (mark->used) return false;
    *mark = (mark_t){s->set_a, s->set_b, value, 1};
    s->n_marks++;
    return true;
}

static void lift(search_t *s, uint32_t call)
{
    const node_t *n = &s->nodes[call], *m = &s->nodes[n->match];
    s->nodes[n->before].after = n->after;
    if (n->after != SIM_NONE) s->nodes[n->after].before = n->before;
    s->nodes[m->before].after = m->after;
    if (m->after != SIM_NONE) s->nodes[m->after].before = m->before;
}

static void unlift(search_t *s, uint32_t call)
{
    const node_t *n = &s->nodes[call], *m = &s->nodes[n->match];
    s->nodes[m->before].after = n->match;
    if (m->after != SIM_NONE) s->nodes[m->after].before = n->match;
    s->nodes[n->before].after = call;
    if (n->after != SIM_NONE) s->nodes[n->after].before = call;
}

static int order(const void *pa, const void *pb)
{
    const edge_t *a = pa, *b = pb;
    if (a->time_ns != b->time_ns) return a->time_ns < b->time_ns ? -1 : 1;
    if (a->is_return != b->is_return) return a->is_return ? 1 : -1; /* at one time: concurrent */
    return a->operation < b->operation ? -1 : a->operation > b->operation;
}

/* Lays the edges of one key out as a list; how many of its operations have a known outcome. */
static size_t lay_out(search_t *s, size_t n_edges)
{
    size_t known = 0;
    qsort(s->edges, n_edges, sizeof *s->edges, order);
    s->nodes[0] = (node_t){.match = SIM_NONE, .before = SIM_NONE, .after = n_edges ? 1 : SIM_NONE};
    for (size_t i = 0; i < n_edges; i++) {
        s->nodes[i + 1] = (node_t){.operation = s->edges[i].operation,
                                   .match = SIM_NONE,
                                   .before = (uint32_t)i,
                                   .after = i + 1 < n_edges ? (uint32_t)i + 2 : SIM_NONE};
        known += s->edges[i].is_return && s->history->operations[s->edges[i].operation].outcome == SIM_DONE;
    }
    return known;
}

static sim_linearizable_t search_key(search_t *s, size_t n_edges, uint32_t *call_of)
{
    size_t left = lay_out(s, n_edges), depth = 0;
    for (size_t i = 0; i < n_edges; i++) {
        if (!s->edges[i].is_return)
            call_of[s->edges[i].operation] = (uint32_t)i + 1;
        else
            s->nodes[call_of[s->edges[i].operation]].match = (uint32_t)i + 1;
    }
    if (s->marks) memset(s->marks, 0, s->max_marks * sizeof *s->marks);
    s->n_marks = 0;
    s->set_a = s->set_b = 0;
    uint32_t value = SIM_ABSENT, at = s->nodes[0].after;
    size_t least = left + 1;
    bool known = true; /* which operations are tried now */
    while (left > 0) {
        if (s->steps_left-- == 0) return SIM_UNDECIDED;
        rf_assert(at != SIM_NONE);
        const node_t *n = &s->nodes[at];
        if (n->match == SIM_NONE && known) {
            known = false;
            at = s->nodes[0].after;
            continue;
        }
        if (n->match == SIM_NONE) { /* a return whose call could not be placed before it */
            if (left < least) {
                least = left;
                s->furthest = n->operation;
            }
            if (depth == 0) return SIM_NOT_LINEARIZABLE;
            step_t last = s->stack[--depth];
            unlift(s, last.node);
            toggle(s, s->nodes[last.node].operation);
            left += last.known;
            value = last.value;
            known = last.known;
            at = s->nodes[last.node].after;
            continue;
        }
        const sim_operation_t *o = &s->history->operations[n->operation];
        uint32_t next;
        if ((o->outcome == SIM_DONE) == known && explain(o, value, &next)) {
            toggle(s, n->operation);
            if (visit(s, next)) {
                s->stack[depth++] = (step_t){at, value, known};
                left -= known;
                value = next;
                lift(s, at);
                at = s->nodes[0].after;
                known = true;
                continue;
            }
            toggle(s, n->operation);
        }
        at = n->after;
    }
    return SIM_LINEARIZABLE;
}

/* Operations of the key that has the least number above `above`; edges go into s->edges. */
static size_t gather(search_t *s, const uint32_t *by_key, size_t from, size_t *to)
{
    const sim_operation_t *operations = s->history->operations;
    uint32_t key = operations[by_key[from]].key;
    size_t n_edges = 0, i = from;
    for (; i < s->history->n && operations[by_key[i]].key == key; i++) {
        const sim_operation_t *o = &operations[by_key[i]];
        if (o->outcome == SIM_NOT_EXECUTED) continue;
        if (o->outcome == SIM_UNKNOWN && o->kind == SIM_GET) continue;
        s->edges[n_edges++] = (edge_t){o->call_ns, by_key[i], false};
        s->edges[n_edges++] = (edge_t){o->outcome == SIM_DONE ? o->return_ns : RF_NEVER, by_key[i], true};
    }
    *to = i;
    return n_edges;
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

sim_linearizable_t check_linearizable(const sim_history_t *history, uint64_t steps_max, char *why,
                                      size_t why_size)
{
    size_t n = history->n;
    if (n == 0) return SIM_LINEARIZABLE;
    search_t s = {.history = history};
    s.edges = malloc(2 * n * sizeof *s.edges);
    s.nodes = malloc((2 * n + 1) * sizeof *s.nodes);
    s.stack = malloc(n * sizeof *s.stack);
    uint32_t *by_key = malloc(n * sizeof *by_key), *call_of = malloc(n * sizeof *call_of);
    rf_assert(s.edges && s.nodes && s.stack && by_key && call_of);
    for (size_t i = 0; i < n; i++) by_key[i] = (uint32_t)i;
    qsort_r(by_key, n, sizeof *by_key, by_key_order, history->operations);
    sim_linearizable_t result = SIM_LINEARIZABLE;
    for (size_t from = 0, to; from < n && result != SIM_NOT_LINEARIZABLE; from = to) {
        size_t n_edges = gather(&s, by_key, from, &to);
        s.steps_left = steps_max;
        sim_linearizable_t one = search_key(&s, n_edges, call_of);
        if (one == SIM_LINEARIZABLE) continue;
        result = one;
        say_why(history, &history->operations[one == SIM_UNDECIDED ? by_key[from] : s.furthest], one, why,
                why_size);
    }
    free(s.edges);
    free(s.nodes);
    free(s.stack);
    free(s.marks);
    free(by_key);
    free(call_of);
    return result;
}
