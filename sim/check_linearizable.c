/*
 * Linearizability of a registry, key by key: a history is linearizable when that of each key is (Herlihy and Wing 1990). Here the history is
 * taken apart by key and each key's search set up; linearizable_search.c is the search, and says what it leaves out.
 */
#include "linearizable.h"

#include <stdlib.h>

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
        } else if (!linearizable_is_class(o)) {
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
        sim_linearizable_t one = linearizable_search(&s);
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
