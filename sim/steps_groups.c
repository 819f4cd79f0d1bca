/*
 * What members of a group hold, step by step, as steps of consensus/model/group.pml: numbers given, stages told and reached, views heard of,
 * decisions, epochs installed, answers. An epoch with the members of the last, where nobody has left, is no step of the model.
 */
#include "sim/steps.h"

#include "base/assert.h"
#include "consensus/group_state.h"

#include <stdlib.h>

#define OUTSIDER       STEPS_MEMBERS
#define NUMBERS        24 /* the model counts in bytes, and must not have many */
#define DEPARTURES_MAX 2

/* As in the model. */
typedef enum model_stage { NONE, HEARD, PREPARED, REFUSED, ABORTED, COMMITTED, DONE } model_stage_t;
typedef enum model_told { NOTHING, PREPARE, COMMIT, STABLE, ABORT, ONE } model_told_t;

struct steps_groups {
    FILE *out;
    uint64_t group;
    bool on;   /* all first members hold it */
    bool over; /* it has gone beyond what the model counts */
    bool left[STEPS_CORES], fenced[STEPS_CORES];
    bool
        heard[STEPS_CORES]; /* has heard that it has left itself: from then on it has no views in the model */
    unsigned departures;
    uint64_t epoch[STEPS_CORES], list[STEPS_CORES]; /* cores; as written last */
    unsigned model_epoch[STEPS_CORES],
        n_epochs;               /* an epoch with the members of the last is none to the model */
    bool departed[STEPS_CORES]; /* one of its list has, as it knows */
    uint8_t stage[STEPS_CORES][NUMBERS + 1], told[STEPS_CORES][NUMBERS + 1];
};

steps_groups_t *steps_groups_new(uint64_t group, FILE *out)
{
    steps_groups_t *s = calloc(1, sizeof *s);
    rf_assert(s);
    s->group = group;
    s->out = out;
    return s;
}

void steps_groups_free(steps_groups_t *steps)
{
    free(steps);
}

static uint64_t list_of(const group_t *g)
{
    uint64_t list = 0;
    for (unsigned i = 0; i < g->n; i++) {
        if (g->members & BIT(i)) list |= BIT(g->entries[i].member.core);
    }
    return list;
}

static model_told_t told_of(const op_t *op)
{
    bool two = op->phase == GROUP_TWO_PHASE;
    if (op->stage == STAGE_PREPARE) return PREPARE;
    if (two && op->err != RF_OK) return ABORT;
    return !two ? ONE : op->stage == STAGE_STABLE ? STABLE : COMMIT;
}

static model_stage_t stage_of(const op_t *op)
{
    if (op->stage == STAGE_PREPARE)
        return op->acted == ACTED_PREPARED ? PREPARED : op->acted == ACTED_REFUSED ? REFUSED : HEARD;
    if (op->phase == GROUP_TWO_PHASE && op->err != RF_OK) return ABORTED;
    if (op->acted == ACTED_APPLYING || op->acted == ACTED_PASSED) return DONE;
    return op->phase == GROUP_TWO_PHASE ? COMMITTED : HEARD;
}

/* Whether a survivor has an epoch with the outsider, which then is what is decided on. */
static bool taken_in(const steps_groups_t *s, const groups_t *groups)
{
    bool some = false;
    if (has_left(groups, (agreement_member_t){.core = OUTSIDER, .incarnation = 1})) return false;
    for (unsigned i = 0; i < STEPS_CORES; i++) some |= !s->left[i] && (s->list[i] & BIT(OUTSIDER));
    return some;
}

static void print_epoch(steps_groups_t *s, unsigned at, const groups_t *groups, const group_t *g)
{
    uint64_t list = list_of(g);
    bool outsider = list & BIT(OUTSIDER), in = taken_in(s, groups);
    unsigned owner = g->entries[0].member.core;
    if (owner == at && (s->departed[at] || outsider != in)) {
        if (s->departed[at]) fprintf(s->out, "decide %u\n", at);
        if (outsider != in) fprintf(s->out, "%s %u\n", outsider ? "takein" : "dropped", at);
        s->model_epoch[at] = ++s->n_epochs;
    }
    if (s->model_epoch[at] != s->model_epoch[owner]) fprintf(s->out, "install %u %u\n", at, owner);
    s->model_epoch[at] = s->model_epoch[owner];
    s->epoch[at] = g->epoch;
    s->list[at] = list;
    s->departed[at] = false;
}

/* The highest number that a survivor knows. */
static unsigned known_of(const steps_groups_t *s)
{
    unsigned known = 0;
    for (unsigned i = 0; i < STEPS_CORES; i++) {
        for (unsigned n = known + 1; n <= NUMBERS && !s->left[i]; n++) {
            if (s->stage[i][n] != NONE) known = n;
        }
    }
    return known;
}

/* The step that brings an epoch brings its decisions; a number that only the departed knew is free again. */
static void begin_epoch(steps_groups_t *s, unsigned at, const groups_t *groups, const group_t *g,
                        unsigned known)
{
    for (unsigned n = 1; n <= NUMBERS; n++) {
        const op_t *op = op_find(groups, g, n);
        if (op && is_owner(g)) s->told[at][n] = n <= known ? (uint8_t)told_of(op) : NOTHING;
        if (n > known || s->stage[at][n] == HEARD) s->stage[at][n] = NONE;
    }
}

static void print_stage(steps_groups_t *s, unsigned at, unsigned n, model_stage_t stage)
{
    if (s->stage[at][n] == stage) return;
    s->stage[at][n] = (uint8_t)stage;
    fprintf(s->out, "stage %u %u %u\n", at, n, (unsigned)stage);
}

static void print_stage_before(steps_groups_t *s, unsigned at, unsigned n, model_stage_t stage)
{
    if (s->stage[at][n] < stage) print_stage(s, at, n, stage);
}

/* What its owner has told of it, and what it has itself done, one after the other. */
static void print_operation(steps_groups_t *s, unsigned at, const group_t *g, const op_t *op)
{
    unsigned n = (unsigned)op->number;
    model_stage_t stage = stage_of(op);
    if (is_owner(g)) {
        model_told_t told = told_of(op), before = (model_told_t)s->told[at][n];
        if (before == NOTHING) {
            fprintf(s->out, "number %u %u %u\n", at, n, op->phase == GROUP_TWO_PHASE);
            before = op->phase == GROUP_TWO_PHASE ? PREPARE : ONE;
        }
        if (before == PREPARE && (told == COMMIT || told == STABLE)) {
            print_stage_before(s, at, n, PREPARED);
            fprintf(s->out, "told %u %u %u\n", at, n, (unsigned)COMMIT);
            before = COMMIT;
        }
        if (before == PREPARE && told == ABORT) {
            if (op->refused != 0) print_stage_before(s, at, n, REFUSED);
            fprintf(s->out, "told %u %u %u\n", at, n, (unsigned)ABORT);
        }
        if (before == COMMIT && told == STABLE) {
            print_stage_before(s, at, n, COMMITTED);
            fprintf(s->out, "told %u %u %u\n", at, n, (unsigned)STABLE);
        }
        s->told[at][n] = (uint8_t)told;
    }
    print_stage(s, at, n, stage);
}

/* The first members have all installed the group, and nothing has happened to it. */
static bool begins(steps_groups_t *s, unsigned at, const group_t *g)
{
    s->epoch[at] = g && !g->wedged ? g->epoch : 0;
    s->list[at] = g ? list_of(g) : 0;
    for (unsigned i = 0; i < STEPS_MEMBERS; i++) {
        if (s->epoch[i] == 0 || s->epoch[i] != s->epoch[0] || s->list[i] != BITS(STEPS_MEMBERS)) return false;
    }
    return s->departures == 0 && s->list[OUTSIDER] == 0 && (!g || g->last == 0);
}

void steps_groups_stepped(steps_groups_t *s, unsigned at, const groups_t *groups, rf_core_t left)
{
    const group_t *g = group_find(groups, s->group);
    if (s->over) return;
    if (!s->on) {
        s->on = begins(s, at, g);
        return;
    }
    if (left == at) s->heard[at] = true;
    if (left != RF_CORE_NONE && !s->heard[at]) {
        fprintf(s->out, "learn %u\n", at);
        s->departed[at] |= (s->list[at] & BIT(left)) != 0;
    }
    if (!g || g->wedged) return;
    if (g->last > NUMBERS) {
        s->over = true;
        return;
    }
    if (g->epoch != s->epoch[at]) {
        unsigned known = known_of(s);
        print_epoch(s, at, groups, g);
        begin_epoch(s, at, groups, g, known);
    }
    for (unsigned n = 1; n <= NUMBERS; n++) {
        const op_t *op = op_find(groups, g, n);
        if (op) print_operation(s, at, g, op);
    }
}

void steps_groups_left(steps_groups_t *s, unsigned at)
{
    if (s->left[at] || s->over) return;
    if (s->departures == DEPARTURES_MAX) {
        s->over = true;
        return;
    }
    s->left[at] = true;
    s->departures++;
    if (s->on) fprintf(s->out, "depart %u\n", at);
}

void steps_groups_fenced(steps_groups_t *s, unsigned at)
{
    if (s->fenced[at] || s->over) return;
    s->fenced[at] = true;
    if (s->on) fprintf(s->out, "fence %u\n", at);
}

void steps_groups_answered(steps_groups_t *s, uint64_t number)
{
    if (s->on && !s->over) fprintf(s->out, "answered %llu\n", (unsigned long long)number);
}
