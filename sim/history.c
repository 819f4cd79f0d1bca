/* Histories as text: one operation a line (doc/history.md). */
#include "sim.h"

#include <errno.h>
#include <stdlib.h>

#define LINE_MAX_BYTES 4096
#define FIELDS         7

static const char *const kind_names[] = {
    [SIM_PUT] = "put", [SIM_GET] = "get", [SIM_CAS] = "cas", [SIM_DELETE] = "delete"};

size_t sim_history_add(sim_history_t *h, const sim_operation_t *operation)
{
    if (h->n == h->max) {
        h->max = h->max ? h->max * 2 : 1024;
        h->operations = realloc(h->operations, h->max * sizeof *h->operations);
        rf_assert(h->operations);
    }
    h->operations[h->n] = *operation;
    return h->n++;
}

void sim_history_free(sim_history_t *h)
{
    for (size_t i = 1; i < h->n_names; i++) free(h->names[i]);
    free(h->names);
    free(h->operations);
    memset(h, 0, sizeof *h);
}

/* ---- writing ---- */

static void write_value(const sim_history_t *h, uint32_t value, FILE *out)
{
    if (value == SIM_ABSENT)
        fputs("none", out);
    else if (h->names)
        fputs(h->names[value], out);
    else
        fprintf(out, "%u", value);
}

static void write_operation(const sim_history_t *h, const sim_operation_t *o, FILE *out)
{
    fprintf(out, "%u %llu ", o->client, (unsigned long long)o->call_ns);
    if (o->outcome == SIM_UNKNOWN)
        fputs("-", out);
    else
        fprintf(out, "%llu", (unsigned long long)o->return_ns);
    fprintf(out, " %s ", kind_names[o->kind]);
    if (h->names)
        fprintf(out, "%s ", h->names[o->key]);
    else
        fprintf(out, "k%u ", o->key);
    if (o->kind == SIM_CAS) {
        write_value(h, o->expected, out);
        fputc('>', out);
    }
    if (o->kind == SIM_PUT || o->kind == SIM_CAS)
        write_value(h, o->value, out);
    else
        fputc('-', out);
    fputc(' ', out);
    if (o->outcome == SIM_UNKNOWN)
        fputc('?', out);
    else if (o->outcome == SIM_NOT_EXECUTED)
        fputs("failed", out);
    else if (o->kind == SIM_GET)
        write_value(h, o->value, out);
    else if (o->kind == SIM_CAS)
        fputs(o->success ? "ok" : "no", out);
    else if (o->kind == SIM_DELETE)
        fputs(o->success ? "ok" : "none", out);
    else
        fputs("ok", out);
    fputc('\n', out);
}

void sim_history_write(const sim_history_t *h, FILE *out)
{
    fputs("# client call return operation key argument result\n", out);
    for (size_t i = 0; i < h->n; i++) write_operation(h, &h->operations[i], out);
}

/* ---- reading ---- */

typedef struct interner { /* numbers for names, by an open hash table */
    sim_history_t *history;
    uint32_t *slots;
    size_t max, names_max;
} interner_t;

static size_t slot_of(const interner_t *in, const char *name)
{
    size_t at = sim_hash_bytes(1, name, strlen(name)) & (in->max - 1);
    while (in->slots[at] && strcmp(in->history->names[in->slots[at]], name) != 0)
        at = (at + 1) & (in->max - 1);
    return at;
}

static uint32_t intern(interner_t *in, const char *name)
{
    sim_history_t *h = in->history;
    if (h->n_names * 2 >= in->max) {
        in->max = in->max ? in->max * 2 : 1024;
        free(in->slots);
        in->slots = calloc(in->max, sizeof *in->slots);
        rf_assert(in->slots);
        for (uint32_t i = 1; i < h->n_names; i++) in->slots[slot_of(in, h->names[i])] = i;
    }
    if (h->n_names == in->names_max) {
        in->names_max = in->names_max ? in->names_max * 2 : 1024;
        h->names = realloc(h->names, in->names_max * sizeof *h->names);
        rf_assert(h->names);
    }
    if (h->n_names == 0) h->names[h->n_names++] = NULL; /* SIM_ABSENT */
    size_t at = slot_of(in, name);
    if (in->slots[at] == 0) {
        in->slots[at] = (uint32_t)h->n_names;
        h->names[h->n_names] = strdup(name);
        rf_assert(h->names[h->n_names]);
        h->n_names++;
    }
    return in->slots[at];
}

static uint32_t value_of(interner_t *in, const char *text)
{
    return strcmp(text, "none") == 0 ? SIM_ABSENT : intern(in, text);
}

static bool parse_number(const char *text, uint64_t *out)
{
    if (*text < '0' || *text > '9') return false;
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static bool parse_result(interner_t *in, const char *text, sim_operation_t *o)
{
    if (strcmp(text, "?") == 0) {
        o->outcome = SIM_UNKNOWN;
        return true;
    }
    if (strcmp(text, "failed") == 0) {
        o->outcome = SIM_NOT_EXECUTED;
        return true;
    }
    o->outcome = SIM_DONE;
    if (o->kind == SIM_GET) {
        o->value = value_of(in, text);
        return true;
    }
    o->success = strcmp(text, "ok") == 0;
    if (o->success) return true;
    return (o->kind == SIM_CAS && strcmp(text, "no") == 0) ||
           (o->kind == SIM_DELETE && strcmp(text, "none") == 0);
}

static bool parse_fields(interner_t *in, char *fields[FIELDS], sim_operation_t *o)
{
    uint64_t client;
    if (!parse_number(fields[0], &client) || client > UINT32_MAX || !parse_number(fields[1], &o->call_ns))
        return false;
    o->client = (uint32_t)client;
    o->return_ns = RF_NEVER;
    if (strcmp(fields[2], "-") != 0 && (!parse_number(fields[2], &o->return_ns) || o->return_ns < o->call_ns))
        return false;
    for (unsigned k = SIM_PUT; k <= SIM_DELETE; k++) {
        if (strcmp(fields[3], kind_names[k]) == 0) o->kind = (uint8_t)k;
    }
    if (o->kind == 0) return false;
    o->key = intern(in, fields[4]);
    char *argument = fields[5];
    if (o->kind == SIM_CAS) {
        char *arrow = strchr(argument, '>');
        if (!arrow) return false;
        *arrow = '\0';
        o->expected = value_of(in, argument);
        argument = arrow + 1;
    }
    bool takes_value = o->kind == SIM_PUT || o->kind == SIM_CAS;
    if (takes_value ? !*argument : strcmp(argument, "-") != 0) return false;
    if (takes_value) o->value = value_of(in, argument);
    if (!parse_result(in, fields[6], o)) return false;
    return (o->return_ns == RF_NEVER) == (o->outcome == SIM_UNKNOWN);
}

bool sim_history_read(sim_history_t *h, FILE *file, char *why, size_t why_size)
{
    memset(h, 0, sizeof *h);
    interner_t in = {.history = h};
    char line[LINE_MAX_BYTES];
    bool ok = true;
    for (size_t number = 1; ok && fgets(line, sizeof line, file); number++) {
        char *fields[FIELDS + 1], *state = NULL;
        unsigned n = 0;
        if (line[0] == '#') continue;
        for (char *word = strtok_r(line, " \n", &state); word && n <= FIELDS;
             word = strtok_r(NULL, " \n", &state))
            fields[n++] = word;
        if (n == 0) continue;
        sim_operation_t o = {0};
        ok = n == FIELDS && parse_fields(&in, fields, &o);
        if (ok)
            sim_history_add(h, &o);
        else
            snprintf(why, why_size, "line %zu is not \"client call return operation key argument result\"",
                     number);
    }
    free(in.slots);
    return ok;
}
