/*
 * A random run of three voters and a spare, printed as steps of the model of the log (consensus/model/log.pml, TRACE): what
 * can be seen of the engines from outside, that is their messages and agreement_query(). No changes of voters: nobody is told of
 * deaths. `test_consensus_trace SEED`; the format: consensus/model/trace.sh.
 */
#include "net.h"

#include "consensus/engine.h" /* only what is on the wire */

#include <stdio.h>
#include <stdlib.h>

#define VOTERS     3
#define TERMS_SEEN 64
#define INDEX_SEEN 200

static struct {
    rf_core_t leader[TERMS_SEEN];
    bool stood[TERMS_SEEN][VOTERS], voted[TERMS_SEEN][VOTERS];
    bool sent[TERMS_SEEN][INDEX_SEEN];
    uint64_t said[TERMS_SEEN]; /* length of the leader's log */
    uint64_t holds[TERMS_SEEN][VOTERS], committed[VOTERS], last[VOTERS];
} seen;

static void watch_append(rf_core_t core, const agreement_message_t *m)
{
    wire_append_t head;
    const uint8_t *at = (const uint8_t *)m->bytes + sizeof head;
    memcpy(&head, m->bytes, sizeof head);
    rf_assert(head.term < TERMS_SEEN);
    if ((head.flags & APPEND_FEED) || seen.leader[head.term] != core) return;
    for (uint32_t i = 0; i < head.n; i++) {
        wire_entry_t entry;
        uint64_t index = head.prev_index + 1 + i;
        memcpy(&entry, at, sizeof entry);
        at += sizeof entry + padded(entry.size);
        rf_assert(index < INDEX_SEEN && entry.kind != AGREEMENT_ENTRY_VIEW);
        if (seen.sent[head.term][index]) continue;
        seen.sent[head.term][index] = true;
        printf("sent %llu %llu %llu\n", (unsigned long long)head.term, (unsigned long long)index,
               (unsigned long long)entry.term);
    }
}

static void watch_message(rf_core_t core, const agreement_message_t *m)
{
    if (m->type == MESSAGE_VOTE_REQUEST) {
        wire_vote_request_t v;
        memcpy(&v, m->bytes, sizeof v);
        if ((v.flags & (VOTE_PRE | VOTE_STAND)) || seen.stood[v.term][core]) return;
        seen.stood[v.term][core] = true;
        printf("stand %u %llu\n", core, (unsigned long long)v.term);
    } else if (m->type == MESSAGE_VOTE) {
        wire_vote_t v;
        memcpy(&v, m->bytes, sizeof v);
        if (v.granted != VOTE_GRANTED || v.pre || seen.voted[v.term][core]) return;
        seen.voted[v.term][core] = true;
        printf("vote %u %u %llu\n", core, m->to[0].core, (unsigned long long)v.term);
    } else if (m->type == MESSAGE_APPEND) {
        watch_append(core, m);
    } else if (m->type == MESSAGE_ACCEPTED) {
        wire_accepted_t a;
        memcpy(&a, m->bytes, sizeof a);
        if (seen.leader[a.term] != m->to[0].core || a.match <= seen.holds[a.term][core]) return;
        seen.holds[a.term][core] = a.match;
        printf("holds %u %llu %llu\n", core, (unsigned long long)a.term, (unsigned long long)a.match);
    }
}

static void watch(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    agreement_state_t s = net_state(n, core);
    rf_assert(s.term + 1 < TERMS_SEEN);
    if (core >= VOTERS) return;
    if (s.role == AGREEMENT_ROLE_LEADER && seen.leader[s.term] == RF_CORE_NONE) {
        seen.leader[s.term] = core;
        seen.said[s.term] = seen.last[core] + 1; /* its first entry ends what it had */
        if (s.term > 1) printf("lead %u %llu\n", core, (unsigned long long)s.term);
    }
    while (s.role == AGREEMENT_ROLE_LEADER && seen.said[s.term] < s.last)
        printf("entry %llu %llu\n", (unsigned long long)s.term, (unsigned long long)++seen.said[s.term]);
    seen.last[core] = s.last;
    for (unsigned i = 0; i < out->n_messages; i++) watch_message(core, &out->messages[i]);
    if (s.committed <= seen.committed[core]) return;
    seen.committed[core] = s.committed;
    if (s.role == AGREEMENT_ROLE_LEADER)
        printf("commit %llu %llu\n", (unsigned long long)s.term, (unsigned long long)s.committed);
    printf("knows %u %llu\n", core, (unsigned long long)s.committed);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    rf_prng_t prng;
    net_knobs_t knobs = {.cores = VOTERS + 1, .voters_max = VOTERS, .reorder = seed % 2 == 0, .log_max = 256};
    for (unsigned i = 0; i < TERMS_SEEN; i++) seen.leader[i] = RF_CORE_NONE;
    rf_prng_seed(&prng, seed);
    net_t *n = net_new(&knobs, seed);
    n->watch = watch;
    printf("# seed %llu\n", (unsigned long long)seed);
    net_form(n);
    net_run(n, 2 * MS);
    n->knobs.lose_percent = (unsigned)rf_prng_below(&prng, 15);
    n->knobs.repeat_percent = 5;
    for (unsigned i = 0; i < 12; i++) {
        rf_core_t core = (rf_core_t)rf_prng_below(&prng, VOTERS), leader = net_leader(n);
        switch (rf_prng_below(&prng, 4)) {
        case 0:
            if (leader != RF_CORE_NONE) net_isolate(n, leader, true);
            break;
        case 1:
            net_isolate(n, core, rf_prng_below(&prng, 2) == 0);
            break;
        default:
            net_propose(n, core);
            break;
        }
        net_run(n, rf_prng_below(&prng, 8 * MS));
        if (rf_prng_below(&prng, 3) == 0) net_isolate(n, (rf_core_t)rf_prng_below(&prng, VOTERS), false);
    }
    net_heal(n);
    net_run(n, 60 * MS);
    net_check_quiet(n);
    net_free(n);
    return 0;
}
