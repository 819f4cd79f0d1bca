/*
 * A random run of three voters and a spare, printed as steps of the model of the log (consensus/model/log.pml, TRACE): what
 * can be seen of the engines from outside, that is their messages and agreement_query(). Up to two processes crash, one core comes back
 * as a new incarnation, links to the leader break, the voters change, who falls behind the ring is sent a snapshot, and in every fourth run a voter that has not
 * been sent FORM votes. The model's engines 0 to 3 are the cores' first incarnations, 4 is the one that came back.
 * `test_consensus_trace SEED`; the format: consensus/model/trace.sh.
 */
#include "net.h"

#include "consensus/engine.h" /* only what is on the wire */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VOTERS      3
#define CORES       (VOTERS + 1)
#define ENGINES     (CORES + 1)
#define CRASHES_MAX 2
#define TERMS_SEEN  64
#define INDEX_SEEN  256
#define STEPS_MAX   4096

/* What kind an entry is of is seen when it is first sent, after the step that appended it. */
typedef struct step {
    char text[40];        /* of an entry: empty */
    uint64_t term, index; /* of an entry */
} step_t;

static struct {
    unsigned leader[TERMS_SEEN]; /* 1 + engine */
    bool stood[TERMS_SEEN][ENGINES], voted[TERMS_SEEN][ENGINES];
    bool sent[TERMS_SEEN][INDEX_SEEN];
    uint64_t said[TERMS_SEEN]; /* length of the leader's log */
    uint64_t holds[TERMS_SEEN][ENGINES], committed[ENGINES], last[ENGINES];
    bool view[TERMS_SEEN][INDEX_SEEN], joint[TERMS_SEEN][INDEX_SEEN]; /* by term and index of the entry */
    unsigned voters[TERMS_SEEN][INDEX_SEEN];
    step_t steps[STEPS_MAX];
    unsigned n_steps;
} seen;

static step_t *step(void)
{
    rf_assert(seen.n_steps < STEPS_MAX);
    return &seen.steps[seen.n_steps++];
}

static void __attribute__((format(printf, 1, 2))) print(const char *format, ...)
{
    step_t *s = step();
    va_list list;
    va_start(list, format);
    vsnprintf(s->text, sizeof s->text, format, list);
    va_end(list);
}

static void print_entry(uint64_t term, uint64_t index)
{
    rf_assert(index < INDEX_SEEN);
    *step() = (step_t){.term = term, .index = index};
}

static unsigned engine_of(rf_core_t core, rf_incarnation_t incarnation)
{
    rf_assert(core < CORES && (incarnation == 1 || incarnation == 2));
    return incarnation == 1 ? core : CORES;
}

static void watch_view(const wire_entry_t *entry, uint64_t index, const uint8_t *body)
{
    wire_view_t view;
    wire_member_t voter;
    memcpy(&view, body, sizeof view);
    seen.view[entry->term][index] = true;
    seen.joint[entry->term][index] = view.joint;
    seen.voters[entry->term][index] = 0;
    for (unsigned i = 0; i < view.n_new; i++) {
        memcpy(&voter, body + sizeof view + (view.n_old + i) * sizeof voter, sizeof voter);
        seen.voters[entry->term][index] |= 1u << engine_of(voter.core, voter.incarnation);
    }
}

static void watch_append(unsigned engine, const agreement_message_t *m)
{
    wire_append_t head;
    const uint8_t *at = (const uint8_t *)m->bytes + sizeof head;
    memcpy(&head, m->bytes, sizeof head);
    rf_assert(head.term < TERMS_SEEN && !(head.flags & APPEND_SEAL));
    bool leads = !(head.flags & APPEND_FEED) && seen.leader[head.term] == 1 + engine;
    for (uint32_t i = 0; i < head.n; i++) {
        wire_entry_t entry;
        uint64_t index = head.prev_index + 1 + i;
        memcpy(&entry, at, sizeof entry);
        rf_assert(index < INDEX_SEEN);
        if (entry.kind == AGREEMENT_ENTRY_VIEW) watch_view(&entry, index, at + sizeof entry);
        at += sizeof entry + padded(entry.size);
        if (!leads || seen.sent[head.term][index]) continue;
        seen.sent[head.term][index] = true;
        print("sent %llu %llu %llu", (unsigned long long)head.term, (unsigned long long)index,
              (unsigned long long)entry.term);
    }
}

static void watch_stand(unsigned engine, uint64_t term)
{
    if (seen.stood[term][engine]) return;
    seen.stood[term][engine] = true;
    print("stand %u %llu", engine, (unsigned long long)term);
}

static void watch_message(unsigned engine, const agreement_message_t *m)
{
    if (m->type == MESSAGE_VOTE_REQUEST) {
        wire_vote_request_t v;
        memcpy(&v, m->bytes, sizeof v);
        if (v.flags & VOTE_CLAIM) print("claim %u %llu", engine, (unsigned long long)v.term);
        if (!(v.flags & (VOTE_PRE | VOTE_STAND))) watch_stand(engine, v.term);
    } else if (m->type == MESSAGE_VOTE) {
        wire_vote_t v;
        memcpy(&v, m->bytes, sizeof v);
        if (v.granted != VOTE_GRANTED || v.pre || seen.voted[v.term][engine]) return;
        seen.voted[v.term][engine] = true;
        unsigned candidate = engine_of(m->to[0].core, m->to[0].incarnation);
        print("%s %u %u %llu", seen.stood[v.term][candidate] ? "vote" : "ahead", engine, candidate,
              (unsigned long long)v.term);
    } else if (m->type == MESSAGE_APPEND) {
        watch_append(engine, m);
    } else if (m->type == MESSAGE_ACCEPTED) {
        /* True of the leader's log, whoever it is told. */
        wire_accepted_t a;
        memcpy(&a, m->bytes, sizeof a);
        if (seen.leader[a.term] == 0 || a.match <= seen.holds[a.term][engine]) return;
        seen.holds[a.term][engine] = a.match;
        print("holds %u %llu %llu", engine, (unsigned long long)a.term, (unsigned long long)a.match);
    }
}

static void watch(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    agreement_state_t s = net_state(n, core);
    unsigned engine = engine_of(core, n->cores[core].incarnation);
    rf_assert(s.term + 1 < TERMS_SEEN);
    if (out->loaded) print("load %u %llu", engine, (unsigned long long)out->applied_to);
    if (s.role == AGREEMENT_ROLE_LEADER && seen.leader[s.term] == 0) {
        rf_assert(s.term == 1 || s.last > seen.last[engine]); /* it has sealed nothing */
        seen.leader[s.term] = 1 + engine;
        seen.said[s.term] = seen.last[engine] + 1; /* its first entry ends what it had */
        if (s.term > 1)
            watch_stand(engine, s.term); /* elected by votes that it had claimed: it asks for none */
        if (s.term > 1) print("lead %u %llu", engine, (unsigned long long)s.term);
    }
    while (s.role == AGREEMENT_ROLE_LEADER && seen.said[s.term] < s.last)
        print_entry(s.term, ++seen.said[s.term]);
    seen.last[engine] = s.last;
    for (unsigned i = 0; i < out->n_messages; i++) watch_message(engine, &out->messages[i]);
    if (s.committed <= seen.committed[engine]) return;
    seen.committed[engine] = s.committed;
    if (s.role == AGREEMENT_ROLE_LEADER)
        print("commit %llu %llu", (unsigned long long)s.term, (unsigned long long)s.committed);
    print("knows %u %llu", engine, (unsigned long long)s.committed);
}

static void print_steps(void)
{
    for (unsigned i = 0; i < seen.n_steps; i++) {
        const step_t *s = &seen.steps[i];
        unsigned long long term = s->term, index = s->index;
        if (s->text[0])
            printf("%s\n", s->text);
        else if (seen.view[term][index])
            printf("%s %llu %llu %u\n", seen.joint[term][index] ? "joint" : "final", term, index,
                   seen.voters[term][index]);
        else
            printf("entry %llu %llu\n", term, index);
    }
}

/* Crashes never take the majority: all voters live. */
static bool may_crash(const net_t *n)
{
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return false;
    agreement_state_t s = net_state(n, leader);
    if (s.joint || s.n_voters < VOTERS || s.committed < s.last) return false;
    for (unsigned i = 0; i < s.n_voters; i++) {
        const net_core_t *c = &n->cores[s.voters[i].core];
        if (!c->alive || c->incarnation != s.voters[i].incarnation) return false;
    }
    return true;
}

/* To whoever is linked with it. */
static void break_links(net_t *n, rf_core_t core)
{
    for (rf_core_t to = 0; to < CORES; to++) {
        if (to != core && n->cores[to].alive) net_tell_death(n, to, core, AGREEMENT_EVIDENCE_SILENCE);
    }
}

static void crash(net_t *n, rf_core_t core, bool told)
{
    print("crash %u", engine_of(core, n->cores[core].incarnation));
    net_kill(n, core);
    if (told)
        net_tell_all(n, core);
    else
        break_links(n, core);
}

/* The core's new incarnation joins, if the members agree to it in time. */
static void restart(net_t *n, rf_core_t core)
{
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return;
    unsigned join = net_change(n, leader, &core, 1, NULL, 0);
    if (!net_answered(n, join, 20 * MS) || n->proposed[join].err != RF_OK) return;
    print("join %u %u", CORES, engine_of(core, 1));
    net_start(n, core, 2);
}

/* Two of three have formed the machine, and the first is cut off: the third, whose log is empty, decides who leads. */
static void form_without_one(net_t *n)
{
    net_isolate(n, 2, true);
    net_form(n);
    net_run(n, 2 * MS);
    net_isolate(n, 2, false);
    net_isolate(n, 0, true);
    net_run(n, 40 * MS);
    net_isolate(n, 0, false);
}

/* More is agreed on without it than a small ring holds. */
static void fall_behind(net_t *n, rf_core_t core, rf_core_t leader)
{
    net_isolate(n, core, true);
    for (unsigned i = 0; i < 24; i++) {
        net_propose(n, leader);
        net_run(n, 100 * US);
    }
    net_isolate(n, core, false);
    net_run(n, 4 * MS);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rf_prng_t prng;
    rf_core_t crashed = RF_CORE_NONE;
    bool tried = false;
    unsigned fallen = 0, crashes = 0;
    net_knobs_t knobs = {
        .cores = CORES, .voters_max = VOTERS, .reorder = seed % 2 == 0, .log_max = seed % 3 == 0 ? 256 : 16};
    rf_prng_seed(&prng, seed);
    net_t *n = net_new(&knobs, seed);
    n->watch = watch;
    printf("# seed %llu\n", (unsigned long long)seed);
    if (seed % 4 == 1)
        form_without_one(n);
    else
        net_form(n);
    net_run(n, 2 * MS);
    n->knobs.lose_percent = (unsigned)rf_prng_below(&prng, 15);
    n->knobs.repeat_percent = 5;
    for (unsigned i = 0; i < 14; i++) {
        rf_core_t core = (rf_core_t)rf_prng_below(&prng, CORES), leader = net_leader(n);
        switch (rf_prng_below(&prng, 7)) {
        case 0:
            if (leader == RF_CORE_NONE) break;
            net_isolate(n, leader, true);
            if (rf_prng_below(&prng, 2) == 0) break_links(n, leader);
            break;
        case 1:
            net_isolate(n, core, rf_prng_below(&prng, 2) == 0);
            break;
        case 2:
            if (crashes == CRASHES_MAX || !n->cores[core].alive || !may_crash(n)) break;
            if (crashes++ == 0) crashed = core;
            crash(n, core, rf_prng_below(&prng, 3) != 0);
            break;
        case 3:
            if (crashed == RF_CORE_NONE || tried) break;
            tried = true;
            restart(n, crashed);
            break;
        case 4:
            if (leader != RF_CORE_NONE && leader != core && n->cores[core].alive && fallen++ == 0)
                fall_behind(n, core, leader);
            break;
        default:
            for (uint64_t k = rf_prng_below(&prng, 8); n->cores[core].alive && k > 0; k--) {
                net_propose(n, core);
                net_run(n, rf_prng_below(&prng, 200 * US));
            }
            break;
        }
        net_run(n, rf_prng_below(&prng, 8 * MS));
        if (rf_prng_below(&prng, 3) == 0) net_isolate(n, (rf_core_t)rf_prng_below(&prng, CORES), false);
    }
    net_heal(n);
    net_run(n, 60 * MS);
    net_check_quiet(n);
    print_steps();
    net_free(n);
    return 0;
}
