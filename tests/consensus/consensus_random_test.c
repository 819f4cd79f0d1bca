/*
 * Random runs of the engine: proposals from everywhere, deaths at any instant, on links that lose nothing and on links
 * that lose, repeat and reorder. A failing run prints its seed; consensus_random_test SEED replays it to the bit.
 */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNS 600

/* Survivors learn of a death some time after it, each at another time. */
typedef struct news {
    rf_core_t to, dead;
} news_t;

static void run(uint64_t seed)
{
    rf_prng_t prng;
    rf_prng_seed(&prng, seed ^ 0x5eed);
    bool lossy = seed % 3 == 2;
    net_knobs_t knobs = {.cores = 1 + (unsigned)rf_prng_below(&prng, NET_CORES_MAX),
                         .log_max = 16u << rf_prng_below(&prng, 4)};
    if (lossy) {
        knobs.lose_percent = (unsigned)rf_prng_below(&prng, 30);
        knobs.repeat_percent = (unsigned)rf_prng_below(&prng, 20);
        knobs.reorder = rf_prng_below(&prng, 2);
        knobs.resend_ns = RF_NS_PER_MS;
    }
    net_t *n = net_new(&knobs, seed);
    news_t news[NET_CORES_MAX * NET_CORES_MAX];
    unsigned n_news = 0;
    unsigned kills = (unsigned)rf_prng_below(&prng, 4);
    bool orderer_may_die = rf_prng_below(&prng, 3) == 0;
    net_form(n);
    if (rf_prng_below(&prng, 4)) net_settle(n);

    for (unsigned i = 0; i < 400; i++) {
        rf_core_t core = (rf_core_t)rf_prng_below(&prng, knobs.cores);
        switch (rf_prng_below(&prng, 12)) {
        case 0:
        case 1:
        case 2:
            if (n->cores[core].alive) net_propose(n, core);
            break;
        case 3: { /* repeats an earlier one, answered or not */
            if (n->n_proposed == 0) break;
            const net_proposal_t *p = &n->proposed[rf_prng_below(&prng, n->n_proposed)];
            if (n->cores[p->core].alive && p->answered && p->err == RF_OK)
                net_propose_as(n, p->core, p->session, p->sequence, p->number);
            break;
        }
        case 4:
            if (kills == 0 || !n->cores[core].alive || (core == 0 && !orderer_may_die)) break;
            kills--;
            net_kill(n, core);
            for (rf_core_t to = 0; to < knobs.cores; to++) {
                if (to != core && n->cores[to].alive) news[n_news++] = (news_t){.to = to, .dead = core};
            }
            break;
        case 5:
            if (n_news == 0) break;
            unsigned k = (unsigned)rf_prng_below(&prng, n_news);
            news_t told = news[k];
            news[k] = news[--n_news];
            net_tell_death(n, told.to, told.dead);
            break;
        default:
            for (unsigned d = 0; d < 6; d++) net_deliver(n);
            break;
        }
        net_check(n);
    }
    while (n_news > 0) {
        n_news--;
        net_tell_death(n, news[n_news].to, news[n_news].dead);
    }
    unsigned alive = 0;
    for (unsigned i = 0; i < knobs.cores; i++) alive += n->cores[i].alive;
    if (alive > 0) {
        net_settle(n);
        /* Links that lose may lose the survivors' last word to each other; the rest holds there too. */
        if (lossy && !n->cores[0].alive)
            net_check(n);
        else
            net_check_quiet(n);
        for (rf_core_t core = 0; core < knobs.cores; core++) {
            if (!n->cores[core].alive) continue;
            agreement_state_t s = net_state(n, core);
            rf_assert(s.applied == s.committed && s.committed <= s.accepted);
            rf_assert(!s.formed || s.quorum == n->cores[0].alive);
        }
    }
    net_free(n);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        run(strtoull(argv[1], NULL, 10));
        return 0;
    }
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        if (seed % 100 == 0)
            printf("seeds %llu to %llu\n", (unsigned long long)seed, (unsigned long long)seed + 99);
        fflush(stdout);
        if (getenv("CONSENSUS_TRACE")) fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
    printf("%d runs agree\n", RUNS);
    return 0;
}
