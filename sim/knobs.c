/* The named knobs: their table, how they are read, and which of them a seed uses. */
#include "sim.h"

#include <stdlib.h>

typedef enum unit { PERCENT, RATE, MS, COUNT } unit_t;

typedef struct knob {
    const char *name;
    unit_t unit;
    uint32_t by_default, storm;
    const char *help;
} knob_t;

static const knob_t knobs[] = {
#define KNOB_ROW(name, unit, by_default, storm, help) {#name, unit, by_default, storm, help},
    SIM_KNOB_TABLE(KNOB_ROW)
#undef KNOB_ROW
};
#define KNOBS (sizeof knobs / sizeof knobs[0])

_Static_assert(sizeof(sim_knobs_t) == KNOBS * sizeof(uint32_t), "the knobs are an array");

static uint32_t *values_of(sim_knobs_t *k)
{
    return (uint32_t *)k;
}

static const uint32_t scale[] = {[PERCENT] = 10000, [RATE] = 1000, [MS] = 1, [COUNT] = 1};
static const char *const unit_text[] = {[PERCENT] = "%", [RATE] = "/s", [MS] = " ms", [COUNT] = ""};

/* A decimal number, in the knob's unit. */
static bool parse_value(const char *text, const knob_t *knob, uint32_t *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0) || value > 1e6) return false;
    if (knob->unit == PERCENT && value > 100) return false;
    if (knob->unit == COUNT && value > 900000) return false;
    *out = (uint32_t)(value * scale[knob->unit] + 0.5);
    return true;
}

static bool parse_word(char *word, sim_knob_choice_t *out)
{
    bool all = strcmp(word, "all") == 0, by_default = strcmp(word, "default") == 0,
         storm = strcmp(word, "storm") == 0;
    bool none = strcmp(word, "none") == 0 || strcmp(word, "calm") == 0;
    if (all || by_default || storm || none) {
        for (unsigned i = 0; i < KNOBS; i++) {
            values_of(&out->values)[i] = none ? 0 : storm ? knobs[i].storm : knobs[i].by_default;
            values_of(&out->fixed)[i] = all ? SIM_KNOB_BY_ALL : 0;
        }
        return true;
    }
    char *value = strchr(word, '=');
    if (value) *value++ = '\0';
    for (unsigned i = 0; i < KNOBS; i++) {
        const char *a = knobs[i].name, *b = word;
        while (*a && (*a == *b || (*a == '_' && *b == '-'))) a++, b++;
        if (*a || *b) continue;
        values_of(&out->fixed)[i] = SIM_KNOB_BY_NAME;
        values_of(&out->values)[i] = knobs[i].by_default;
        return !value || parse_value(value, &knobs[i], &values_of(&out->values)[i]);
    }
    return false;
}

bool sim_knobs_parse(const char *text, sim_knob_choice_t *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof *out);
    char copy[1024], *state = NULL;
    if ((size_t)snprintf(copy, sizeof copy, "%s", text) >= sizeof copy) {
        snprintf(why, why_size, "the list of faults is too long");
        return false;
    }
    for (char *word = strtok_r(copy, ",", &state); word; word = strtok_r(NULL, ",", &state)) {
        char shown[64];
        snprintf(shown, sizeof shown, "%s", word);
        if (!parse_word(word, out)) {
            snprintf(why, why_size, "no fault, or no value for it: \"%s\"", shown);
            return false;
        }
    }
    return true;
}

/* Links of monitors carry everything once and in order, and a monitor forms once and hands over itself; an oracle gives the views
 * of groups by themselves. */
static const char *const absent[] = {
    [SIM_OF_ENGINE] = "late_start link_break",
    [SIM_OF_GROUPS] = "leave transfer form_again majority_loss link_error depose late_start link_break",
    [SIM_OF_MONITOR] = "duplicate reorder transfer form_again garbage stray",
    [SIM_OF_RDMA] = ("duplicate reorder full leave transfer false_silence fence_late form_again garbage "
                     "stray majority_loss link_error depose late_start link_break"),
};

static bool is_absent(const knob_t *knob, sim_actor_kind_t actor)
{
    size_t size = strlen(knob->name);
    for (const char *at = absent[actor]; (at = strstr(at, knob->name)); at += size) {
        if ((at == absent[actor] || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0')) return true;
    }
    return false;
}

bool sim_knobs_suit(sim_knob_choice_t *choice, sim_actor_kind_t actor, char *why, size_t why_size)
{
    for (unsigned i = 0; i < KNOBS; i++) {
        uint32_t *value = &values_of(&choice->values)[i];
        if (!is_absent(&knobs[i], actor)) continue;
        if (*value > 0 && values_of(&choice->fixed)[i] == SIM_KNOB_BY_NAME) {
            snprintf(why, why_size, "this actor knows no fault \"%s\"", knobs[i].name);
            return false;
        }
        *value = 0;
    }
    return true;
}

const char *sim_knobs_absent(sim_actor_kind_t actor)
{
    return absent[actor];
}

void sim_knobs_help(FILE *out)
{
    fprintf(out, "Faults (--faults WORD,...; a word is calm, default, storm, all, none, or NAME[=VALUE]):\n");
    for (unsigned i = 0; i < KNOBS; i++) {
        const knob_t *k = &knobs[i];
        char by_default[32], storm[32];
        snprintf(by_default, sizeof by_default, "%g%s", (double)k->by_default / scale[k->unit],
                 unit_text[k->unit]);
        snprintf(storm, sizeof storm, "%g%s", (double)k->storm / scale[k->unit], unit_text[k->unit]);
        fprintf(out, "  %-14s %8s %8s  %s\n", k->name, by_default, storm, k->help);
    }
    fprintf(
        out,
        "Columns: value in `default` and `all`, value in `storm`. With `default` and `storm` every seed "
        "leaves some\n"
        "faults out, so that seeds differ in kind; with `all`, and for those named, every seed has them.\n"
        "Nothing to the actor engine, and refused where named: %s;\n"
        "to groups: %s;\nto monitor: %s;\nto rdma: %s.\n",
        absent[SIM_OF_ENGINE], absent[SIM_OF_GROUPS], absent[SIM_OF_MONITOR], absent[SIM_OF_RDMA]);
}

void sim_knobs_draw(const sim_knob_choice_t *choice, rf_prng_t *prng, sim_knobs_t *out)
{
    sim_knob_choice_t copy = *choice;
    rf_prng_t later =
        *prng; /* the last knob is drawn apart: what a seed has of the others does not depend on it */
    *out = copy.values;
    for (unsigned i = 0; i < KNOBS; i++) {
        bool leave_out = rf_prng_below(i + 1 < KNOBS ? prng : &later, 3) == 0;
        if (leave_out && !values_of(&copy.fixed)[i] && strcmp(knobs[i].name, "restart") != 0)
            values_of(out)[i] = 0;
    }
}

void sim_knobs_print(const sim_knobs_t *k, FILE *out)
{
    sim_knobs_t copy = *k;
    for (unsigned i = 0; i < KNOBS; i++) {
        if (values_of(&copy)[i])
            fprintf(out, " %s=%g%s", knobs[i].name, (double)values_of(&copy)[i] / scale[knobs[i].unit],
                    unit_text[knobs[i].unit]);
    }
}
