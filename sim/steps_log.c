/*
 * What can be seen of engines from outside, their messages and agreement_query(), as steps of consensus/model/log.pml. The model's engines 0
 * to 3 are the first incarnations of the cores, of which core 0 has formed a machine whose voters are 0 to 2; 4 is a later incarnation.
 */
#include "sim/steps.h"

#include "base/assert.h"
#include "consensus/engine.h" /* only what is on the wire */

#include <stdarg.h>
#include <stdlib.h>

#define ENGINES    (STEPS_CORES + 1)
#define TERMS_SEEN 48
#define INDEX_SEEN 224 /* the model counts in bytes */
#define CLAIMS_MAX 255
#define STEPS_MAX  8192

/* What kind an entry is of is seen when it is first sent, after the step that appended it. */
typedef struct step {
    char text[40];        /* of an entry: empty */
    uint64_t term, index; /* of an entry */
} step_t;

struct steps_log {
    bool over;                   /* it has gone beyond what the model counts */
    unsigned leader[TERMS_SEEN]; /* 1 + engine */
    bool stood[TERMS_SEEN][ENGINES], voted[TERMS_SEEN][ENGINES];
    bool sent[TERMS_SEEN][INDEX_SEEN];
    uint64_t said[TERMS_SEEN]; /* length of the leader's log */
    uint64_t holds[TERMS_SEEN][ENGINES], committed[ENGINES], last[ENGINES];
    bool view[TERMS_SEEN][INDEX_SEEN], joint[TERMS_SEEN][INDEX_SEEN]; /* by term and index of the entry */
    unsigned voters[TERMS_SEEN][INDEX_SEEN];
    bool changing[ENGINES]; /* its newest configuration is joint */
    unsigned claims;
    step_t steps[STEPS_MAX];
    unsigned n_steps;
};

steps_log_t *steps_log_new(void)
{
    steps_log_t *s = calloc(1, sizeof *s);
    rf_assert(s);
    return s;
}

void steps_log_free(steps_log_t *steps)
{
    free(steps);
}

static step_t *step(steps_log_t *s)
{
    if (s->n_steps == STEPS_MAX - 1) s->over = true;
    return &s->steps[s->over ? STEPS_MAX - 1 : s->n_steps++];
}

static void __attribute__((format(printf, 2, 3))) note(steps_log_t *s, const char *format, ...)
{
    step_t *next = step(s);
    va_list list;
    va_start(list, format);
    vsnprintf(next->text, sizeof next->text, format, list);
    va_end(list);
}

/* False: the model has not so many, and nothing more is written. */
static bool counted(steps_log_t *s, uint64_t term, uint64_t index)
{
    if (term >= TERMS_SEEN || index >= INDEX_SEEN) s->over = true;
    return !s->over;
}

static unsigned engine_of(rf_core_t core, rf_incarnation_t incarnation)
{
    rf_assert(core < STEPS_CORES);
    return incarnation == 1 ? core : STEPS_CORES;
}

static void watch_view(steps_log_t *s, const wire_entry_t *entry, uint64_t index, const uint8_t *body)
{
    wire_view_t view;
    wire_member_t voter;
    memcpy(&view, body, sizeof view);
    s->view[entry->term][index] = true;
    s->joint[entry->term][index] = view.joint;
    s->voters[entry->term][index] = 0;
    for (unsigned i = 0; i < view.n_new; i++) {
        memcpy(&voter, body + sizeof view + (view.n_old + i) * sizeof voter, sizeof voter);
        s->voters[entry->term][index] |= 1u << engine_of(voter.core, voter.incarnation);
    }
}

static void watch_append(steps_log_t *s, unsigned engine, const agreement_message_t *m)
{
    wire_append_t head;
    const uint8_t *at = (const uint8_t *)m->bytes + sizeof head;
    memcpy(&head, m->bytes, sizeof head);
    if (head.flags & APPEND_SEAL) s->over = true;
    if (!counted(s, head.term, head.prev_index + head.n)) return;
    bool leads = !(head.flags & APPEND_FEED) && s->leader[head.term] == 1 + engine;
    for (uint32_t i = 0; i < head.n; i++) {
        wire_entry_t entry;
        uint64_t index = head.prev_index + 1 + i;
        memcpy(&entry, at, sizeof entry);
        if (entry.kind == AGREEMENT_ENTRY_VIEW) watch_view(s, &entry, index, at + sizeof entry);
        at += sizeof entry + padded(entry.size);
        if (!leads || s->sent[head.term][index]) continue;
        s->sent[head.term][index] = true;
        note(s, "sent %llu %llu %llu", (unsigned long long)head.term, (unsigned long long)index,
             (unsigned long long)entry.term);
    }
}

static void watch_stand(steps_log_t *s, unsigned engine, uint64_t term)
{
    if (s->stood[term][engine]) return;
    s->stood[term][engine] = true;
    note(s, "stand %u %llu", engine, (unsigned long long)term);
}

static void watch_vote(steps_log_t *s, unsigned engine, const agreement_message_t *m)
{
    wire_vote_t v;
    memcpy(&v, m->bytes, sizeof v);
    if (!counted(s, v.term, 0)) return;
    if (v.granted != VOTE_GRANTED || v.pre || s->voted[v.term][engine]) return;
    s->voted[v.term][engine] = true;
    unsigned candidate = engine_of(m->to[0].core, m->to[0].incarnation);
    note(s, "%s %u %u %llu", s->stood[v.term][candidate] ? "vote" : "ahead", engine, candidate,
         (unsigned long long)v.term);
}

static void watch_message(steps_log_t *s, unsigned engine, const agreement_message_t *m)
{
    if (m->type == MESSAGE_VOTE_REQUEST) {
        wire_vote_request_t v;
        memcpy(&v, m->bytes, sizeof v);
        if (!counted(s, v.term, 0)) return;
        if ((v.flags & VOTE_CLAIM) && s->claims++ == CLAIMS_MAX) s->over = true;
        if (s->over) return;
        if (v.flags & VOTE_CLAIM) note(s, "claim %u %llu", engine, (unsigned long long)v.term);
        if (!(v.flags & (VOTE_PRE | VOTE_STAND))) watch_stand(s, engine, v.term);
    } else if (m->type == MESSAGE_VOTE) {
        watch_vote(s, engine, m);
    } else if (m->type == MESSAGE_APPEND) {
        watch_append(s, engine, m);
    } else if (m->type == MESSAGE_ACCEPTED) {
        /* True of the leader's log, whoever it is told. */
        wire_accepted_t a;
        memcpy(&a, m->bytes, sizeof a);
        if (!counted(s, a.term, a.match)) return;
        if (s->leader[a.term] == 0 || a.match <= s->holds[a.term][engine]) return;
        s->holds[a.term][engine] = a.match;
        note(s, "holds %u %llu %llu", engine, (unsigned long long)a.term, (unsigned long long)a.match);
    }
}

static void watch_leader(steps_log_t *s, unsigned engine, const agreement_state_t *state)
{
    if (state->role != AGREEMENT_ROLE_LEADER) return;
    if (s->leader[state->term] == 0) {
        if (state->term > 1 && state->last <= s->last[engine]) s->over = true; /* it has sealed its log */
        if (s->over) return;
        s->leader[state->term] = 1 + engine;
        s->said[state->term] = s->last[engine] + 1; /* its first entry ends what it had */
        if (state->term > 1) {
            watch_stand(s, engine, state->term); /* elected by votes that it had claimed: it asks for none */
            note(s, "lead %u %llu", engine, (unsigned long long)state->term);
        }
    }
    /* The end of a change may leave one voter, which sends it to nobody. */
    uint64_t index = state->last;
    if (s->changing[engine] && !state->joint && s->said[state->term] + 1 == index) {
        s->view[state->term][index] = true;
        s->voters[state->term][index] = 0;
        for (unsigned i = 0; i < state->n_voters; i++)
            s->voters[state->term][index] |=
                1u << engine_of(state->voters[i].core, state->voters[i].incarnation);
    }
    while (s->said[state->term] < state->last)
        *step(s) = (step_t){.term = state->term, .index = ++s->said[state->term]};
}

void steps_log_stepped(steps_log_t *s, agreement_member_t self, const agreement_state_t *state,
                       const agreement_output_t *output)
{
    unsigned engine = engine_of(self.core, self.incarnation);
    if (s->over || !counted(s, state->term + 1, state->last)) return;
    if (output->loaded) note(s, "load %u %llu", engine, (unsigned long long)output->applied_to);
    watch_leader(s, engine, state);
    s->last[engine] = state->last;
    s->changing[engine] = state->joint;
    for (unsigned i = 0; i < output->n_messages && !s->over; i++)
        watch_message(s, engine, &output->messages[i]);
    if (s->over || state->committed <= s->committed[engine]) return;
    s->committed[engine] = state->committed;
    if (state->role == AGREEMENT_ROLE_LEADER)
        note(s, "commit %llu %llu", (unsigned long long)state->term, (unsigned long long)state->committed);
    note(s, "knows %u %llu", engine, (unsigned long long)state->committed);
}

void steps_log_ended(steps_log_t *s, agreement_member_t member)
{
    if (!s->over) note(s, "crash %u", engine_of(member.core, member.incarnation));
}

void steps_log_started_anew(steps_log_t *s, rf_core_t core)
{
    if (!s->over) note(s, "join %u %u", STEPS_CORES, core);
}

void steps_log_write(const steps_log_t *s, FILE *out)
{
    for (unsigned i = 0; i < s->n_steps; i++) {
        const step_t *next = &s->steps[i];
        unsigned long long term = next->term, index = next->index;
        if (next->text[0])
            fprintf(out, "%s\n", next->text);
        else if (s->view[term][index])
            fprintf(out, "%s %llu %llu %u\n", s->joint[term][index] ? "joint" : "final", term, index,
                    s->voters[term][index]);
        else
            fprintf(out, "entry %llu %llu\n", term, index);
    }
}
