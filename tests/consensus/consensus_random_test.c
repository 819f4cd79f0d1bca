/*
 * Random runs of the engine: commands, reads, sessions and changes of members from everywhere, under loss, repetition,
 * overtaking, partitions, stalls, deaths with true, late and false evidence, and new incarnations that join. When the faults
 * stop, the machine must go on. A failing run prints its seed; `consensus_random_test SEED` replays it to the bit.
 *
 * With a deliberate defect (agreement_defect_t) the model must catch it within a bounded number of seeds.
 */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>

#define RUNS         600
#define DEFECT_SEEDS 3000

typedef struct run {
    net_t *n;
    rf_prng_t prng;
    rf_core_t told_dead[NET_CORES_MAX][NET_CORES_MAX]; /* 1: is still to be told */
    struct {
        unsigned proposal;
        rf_core_t core;
        bool used;
    } joins[16];
    uint64_t sessions[8];
    unsigned session_opens[8], n_opens;
    uint64_t session_sequence[8];
    unsigned n_sessions;
} run_t;

static unsigned below(run_t *r, unsigned n)
{
    return (unsigned)rf_prng_below(&r->prng, n);
}

/* The engine that knows the newest configuration. */
static rf_core_t newest(const net_t *n)
{
    rf_core_t best = RF_CORE_NONE;
    uint64_t view = 0, last = 0;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        if (!n->cores[core].alive) continue;
        agreement_state_t s = net_state(n, core);
        if (best != RF_CORE_NONE && (s.view < view || (s.view == view && s.last <= last))) continue;
        best = core;
        view = s.view;
        last = s.last;
    }
    return best;
}

static void kill(run_t *r, rf_core_t core)
{
    net_kill(r->n, core);
    for (rf_core_t to = 0; to < r->n->knobs.cores; to++) r->told_dead[to][core] = to != core;
}

static void tell_deaths(run_t *r, bool all)
{
    for (rf_core_t to = 0; to < r->n->knobs.cores; to++) {
        for (rf_core_t dead = 0; dead < r->n->knobs.cores; dead++) {
            if (!r->told_dead[to][dead] || (!all && below(r, 3) > 0)) continue;
            if (!r->n->cores[to].alive) continue; /* its next incarnation is told */
            r->told_dead[to][dead] = 0;
            if (!r->n->cores[dead].alive) net_tell_death(r->n, to, dead, AGREEMENT_EVIDENCE_KERNEL);
        }
    }
}

/* Members that nobody ever started, for whoever asked was not answered: monitors do not hear them, and say so. */
static void tell_silence(run_t *r)
{
    net_t *n = r->n;
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        agreement_event_t event = {.kind = AGREEMENT_DEATH};
        event.death.member.core = core;
        event.death.evidence = AGREEMENT_EVIDENCE_SILENCE;
        if (agreement_member_state(n->cores[leader].engine, core, &event.death.member.incarnation) ==
                AGREEMENT_MEMBER_IN &&
            event.death.member.incarnation > n->cores[core].incarnation)
            net_step(n, leader, &event);
    }
}

/* A core that is dead comes back, as what the log says. */
static void poll_joins(run_t *r)
{
    net_t *n = r->n;
    for (unsigned i = 0; i < 16; i++) {
        if (!r->joins[i].used || !n->proposed[r->joins[i].proposal].answered) continue;
        const net_proposal_t *p = &n->proposed[r->joins[i].proposal];
        r->joins[i].used = false;
        net_core_t *c = &n->cores[r->joins[i].core];
        if (p->err != RF_OK || p->value <= c->incarnation)
            continue; /* an earlier one that lives has left by that */
        rf_incarnation_t in = 0;
        rf_core_t at = newest(n);
        if (at == RF_CORE_NONE ||
            agreement_member_state(n->cores[at].engine, r->joins[i].core, &in) != AGREEMENT_MEMBER_IN ||
            in != p->value)
            continue; /* it has left meanwhile: its monitor would give up */
        for (rf_core_t to = 0; to < n->knobs.cores; to++) r->told_dead[to][r->joins[i].core] = 0;
        net_start(n, r->joins[i].core, (rf_incarnation_t)p->value);
    }
}

static void join(run_t *r, rf_core_t by, rf_core_t core)
{
    for (unsigned i = 0; i < 16; i++) {
        if (r->joins[i].used) continue;
        r->joins[i].used = true;
        r->joins[i].core = core;
        r->joins[i].proposal = net_change(r->n, by, &core, 1, NULL, 0);
        return;
    }
}

static void sessions(run_t *r, rf_core_t core)
{
    net_t *n = r->n;
    for (unsigned i = 0; i < r->n_opens; i++) {
        const net_proposal_t *p = &n->proposed[r->session_opens[i]];
        if (!p->answered) continue;
        if (p->err == RF_OK && r->n_sessions < 8) {
            r->session_sequence[r->n_sessions] = 0;
            r->sessions[r->n_sessions++] = p->value;
        }
        r->session_opens[i--] = r->session_opens[--r->n_opens];
    }
    unsigned what = below(r, 8);
    if (what == 0 && r->n_opens < 8) {
        r->session_opens[r->n_opens++] = net_session(n, core, AGREEMENT_SESSION_OPEN, 0);
    } else if (r->n_sessions > 0) {
        unsigned s = below(r, r->n_sessions);
        if (what == 1) {
            net_session(n, core, AGREEMENT_SESSION_END, r->sessions[s]);
            return;
        }
        /* A client that retries through whichever member, with the same number. */
        uint64_t sequence = what < 5 ? ++r->session_sequence[s] : r->session_sequence[s];
        if (sequence == 0) return;
        uint64_t number = 0;
        for (unsigned i = n->n_proposed; i-- > 0;) {
            const net_proposal_t *p = &n->proposed[i];
            if (p->session != r->sessions[s] || p->sequence != sequence) continue;
            number = p->number;
            if (p->core == core && p->incarnation == n->cores[core].incarnation && !p->answered) return;
        }
        if (number == 0) number = ++n->next_number;
        n->maybe[number] =
            1; /* under way elsewhere perhaps: one member's "nothing happened" is only its own */
        net_propose_as(n, core, r->sessions[s], sequence, number);
    }
}

static void repeat(run_t *r)
{
    net_t *n = r->n;
    if (n->n_proposed == 0) return;
    const net_proposal_t *p =
        &n->proposed[n->n_proposed - 1 - below(r, n->n_proposed < 40 ? n->n_proposed : 40)];
    if (p->number == 0 || !p->answered || !n->cores[p->core].alive ||
        p->incarnation != n->cores[p->core].incarnation)
        return;
    if (p->err != RF_ERR_UNKNOWN_OUTCOME && p->err != RF_OK) return;
    for (unsigned i = 0; i < n->n_proposed; i++) { /* one at a time */
        const net_proposal_t *q = &n->proposed[i];
        if (!q->answered && q->session == p->session && q->sequence == p->sequence) return;
    }
    n->maybe[p->number] = 1;
    net_propose_as(n, p->core, p->session, p->sequence, p->number);
}

static void partition(run_t *r)
{
    net_t *n = r->n;
    unsigned mask = below(r, 1u << n->knobs.cores);
    for (rf_core_t a = 0; a < n->knobs.cores; a++) {
        for (rf_core_t b = 0; b < a; b++) {
            bool apart = (mask >> a & 1) != (mask >> b & 1);
            if (apart && below(r, 4) == 0) { /* one way */
                n->cut[a][b] = true;
                continue;
            }
            net_cut(n, a, b, apart);
        }
    }
}

static bool all_members_up(net_t *n, void *context)
{
    (void)context;
    rf_core_t leader = net_leader(n);
    if (leader == RF_CORE_NONE) return false;
    agreement_state_t l = net_state(n, leader);
    if (l.joint || !l.quorum) return false;
    for (rf_core_t core = 0; core < n->knobs.cores; core++) {
        const net_core_t *c = &n->cores[core];
        rf_incarnation_t in;
        bool member = agreement_member_state(n->cores[leader].engine, core, &in) == AGREEMENT_MEMBER_IN;
        if (c->alive && (!member || in != c->incarnation)) return false; /* will learn that it was expelled */
        if (!c->alive && member && in == c->incarnation && l.n_voters > 2)
            return false; /* will be expelled */
        if (c->alive && (net_state(n, core).applied < l.committed || !net_state(n, core).quorum))
            return false;
    }
    return true;
}

static net_knobs_t draw_knobs(run_t *r)
{
    net_knobs_t k = {.cores = 1 + below(r, 7),
                     .log_max = 16u << below(r, 4),
                     .plan = (agreement_plan_t)below(r, AGREEMENT_PLANS)};
    if (below(r, 2)) k.per_host = 1 + below(r, 3);
    if (below(r, 2)) k.per_package = 2;
    k.voters_max = below(r, 3) ? 3 : 5;
    if (below(r, 3) == 0) k.lease_ns = 4 * MS;
    if (below(r, 4) == 0) k.witness_host = 1 + below(r, 3);
    if (below(r, 3) == 0) k.hold_percent = 10 + below(r, 60);
    switch (below(r, 3)) {
    case 0:
        k.lossless = true;
        break;
    case 1:
        k.lose_percent = below(r, 20);
        k.repeat_percent = below(r, 10);
        k.reorder = below(r, 2);
        break;
    default:
        break;
    }
    return k;
}

static void one_step(run_t *r, bool calm)
{
    net_t *n = r->n;
    rf_core_t core = (rf_core_t)below(r, n->knobs.cores), other = (rf_core_t)below(r, n->knobs.cores);
    unsigned what = below(r, 100);
    bool alive = n->cores[core].alive && n->cores[core].stalled_until_ns <= n->now_ns;
    poll_joins(r);
    if (what < 40) {
        if (alive) net_propose(n, core);
    } else if (what < 55) {
        if (alive) net_read(n, core);
    } else if (what < 63) {
        if (alive) sessions(r, core);
    } else if (what < 67) {
        if (alive) repeat(r);
    } else if (calm) {
        return;
    } else if (what < 70) {
        if (n->cores[core].alive && net_may_die(n, core)) kill(r, core);
    } else if (what < 78) {
        tell_deaths(r, false);
    } else if (what < 80 && n->cores[core].alive) {
        n->cores[core].stalled_until_ns = n->now_ns + below(r, 12) * MS;
    } else if (what < 83) {
        if (n->cores[other].alive && core != other)
            net_tell_death(n, core, other, AGREEMENT_EVIDENCE_SILENCE);
    } else if (what < 87) {
        if (!n->knobs.lossless || below(r, 3) == 0) partition(r);
    } else if (what < 93) {
        for (rf_core_t a = 0; a < n->knobs.cores; a++) {
            for (rf_core_t b = 0; b < a; b++) net_cut(n, a, b, false);
        }
    } else if (what < 97) {
        if (alive && !n->cores[other].alive) join(r, core, other);
    } else if (what < 98) {
        agreement_event_t event = {.kind = AGREEMENT_TRANSFER};
        if (alive) net_step(n, core, &event);
    } else if (alive) { /* in order; and back again later */
        agreement_member_t leaver = net_member(n, other);
        if (n->cores[other].alive && net_may_die(n, other)) net_change(n, core, NULL, 0, &leaver, 1);
    }
}

typedef struct how {
    unsigned defects;
    bool verbose, plain;
    uint64_t hash, shortcuts; /* out */
} how_t;

static const char *run_as(uint64_t seed, how_t *how)
{
    const unsigned defects = how->defects;
    const bool verbose = how->verbose;
    run_t r = {0};
    jmp_buf unsafe;
    rf_prng_seed(&r.prng, seed ^ 0x5eed);
    net_knobs_t knobs = draw_knobs(&r);
    knobs.defects = defects;
    knobs.plain = how->plain;
    if (defects & (AGREEMENT_DEFECT_ELECT_IN_LEASE | AGREEMENT_DEFECT_STALE_NOW)) knobs.lease_ns = 4 * MS;
    net_t *n = net_new(&knobs, seed);
    r.n = n;
    if (setjmp(unsafe)) {
        const char *breach = n->breach;
        if (verbose) {
            printf("seed %llu at %llu us: %s\n", (unsigned long long)seed,
                   (unsigned long long)(n->now_ns / US), breach);
            net_print(n);
        }
        net_free(n);
        return breach;
    }
    n->unsafe = &unsafe;
    n->trace = verbose && getenv("NET_TRACE");
    net_form(n);
    net_run(n, 3 * MS);

    for (unsigned i = 0; i < 300; i++) {
        one_step(&r, false);
        net_run(n, below(&r, 4) ? below(&r, 150 * US) : below(&r, 3 * MS));
    }
    /* Faults stop: it must go on. */
    net_heal(n);
    tell_deaths(&r, true);
    for (rf_core_t core = 0; core < knobs.cores; core++) n->cores[core].stalled_until_ns = 0;
    bool lost = false;
    for (rf_core_t core = 0; core < knobs.cores; core++) {
        if (n->cores[core].alive) {
            agreement_state_t s = net_state(n, core);
            lost |= s.lost || !s.formed;
        }
    }
    for (unsigned i = 0; i < 20 && !lost; i++) {
        net_run(n, 10 * MS);
        poll_joins(&r);
        tell_silence(&r);
        rf_core_t at = newest(n);
        if (at == RF_CORE_NONE) {
            lost = true;
            break;
        }
        agreement_state_t s = net_state(n, at);
        if (s.lost || net_live_voters(n, &s) <= s.n_voters / 2) lost = true;
    }
    if (!lost) {
        if (!net_until(n, all_members_up, NULL, 400 * MS))
            net_unsafe(n, "stuck: members do not come up after the faults");
        unsigned first = n->n_proposed, first_read = n->n_reads;
        for (rf_core_t core = 0; core < knobs.cores; core++) {
            if (!n->cores[core].alive) continue;
            net_propose(n, core);
            net_read(n, core);
        }
        if (!net_all_answered(n, 100 * MS)) net_unsafe(n, "stuck: no answer after the faults");
        for (unsigned i = first; i < n->n_proposed; i++) {
            if (n->proposed[i].err != RF_OK && n->cores[n->proposed[i].core].alive)
                net_unsafe(n, "stuck: refused after the faults");
        }
        for (unsigned i = first_read; i < n->n_reads; i++) {
            if (n->reads[i].err != RF_OK && n->cores[n->reads[i].core].alive)
                net_unsafe(n, "stuck: a read refused after the faults");
        }
        net_run(n, 60 * MS);
        net_check_quiet(n);
    }
    if (verbose)
        printf("seed %llu: %u steps, %u delivered, %u lost, %llu commands, lost %d\n",
               (unsigned long long)seed, n->n_steps, n->n_delivered, n->n_lost,
               (unsigned long long)n->n_history, lost);
    how->hash = n->hash;
    how->shortcuts = net_shortcuts(n);
    net_free(n);
    return NULL;
}

static const char *run(uint64_t seed, unsigned defects, bool verbose)
{
    how_t how = {.defects = defects, .verbose = verbose};
    return run_as(seed, &how);
}

/* The shortcuts of the steady state (steady.c) are the general code in all but time: whole runs with and without put out the
 * same, to the bit. */
static int steady_is_the_same(uint64_t first, uint64_t runs)
{
    uint64_t shortcuts = 0;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        how_t with = {0}, without = {.plain = true};
        const char *breach = run_as(seed, &with);
        if (!breach) breach = run_as(seed, &without);
        if (!breach && without.shortcuts > 0) breach = "a shortcut is taken that should not be";
        if (!breach && with.hash != without.hash) breach = "with shortcuts something else comes out";
        shortcuts += with.shortcuts;
        if (!breach) continue;
        printf("seed %llu: %s\n", (unsigned long long)seed, breach);
        return 1;
    }
    printf("%llu runs are the same with shortcuts and without; %llu shortcuts\n", (unsigned long long)runs,
           (unsigned long long)shortcuts);
    return shortcuts < 100 * runs;
}

static const struct {
    unsigned defect;
    const char *name;
} defects[] = {
    {AGREEMENT_DEFECT_NEW_INCARNATION_VOTES, "a new incarnation is counted in the old quorum"},
    {AGREEMENT_DEFECT_CHANGE_BEFORE_TERM, "a change of members before a commit in the own term"},
    {AGREEMENT_DEFECT_OLD_TERM_COMMIT, "an entry of an older term committed by counting"},
    {AGREEMENT_DEFECT_ELECT_IN_LEASE, "votes while a lease may be held"},
    {AGREEMENT_DEFECT_STALE_NOW, "a lease judged by the time of the step before"},
    {AGREEMENT_DEFECT_NO_SESSIONS_SAVED, "sessions missing from the snapshot"},
    {AGREEMENT_DEFECT_RESET_ON_PARTITION, "a voter without quorum forgets its promises"},
    {AGREEMENT_DEFECT_SINGLE_MAJORITY, "joint: only the new set's majority counts"},
};

/* Every defect is caught within so many seeds. */
static int check_defects(uint64_t seeds)
{
    int missed = 0;
    for (unsigned i = 0; i < sizeof defects / sizeof *defects; i++) {
        uint64_t seed = 0;
        const char *breach = NULL;
        for (; seed < seeds; seed++) {
            breach = run(seed, defects[i].defect, false);
            if (breach && strncmp(breach, "stuck", 5) != 0) break;
            breach = NULL;
        }
        printf("%s: %s%s, seed %llu\n", defects[i].name, breach ? "caught: " : "MISSED", breach ? breach : "",
               (unsigned long long)seed);
        fflush(stdout);
        missed += !breach;
    }
    return missed;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "defects") == 0)
        return check_defects(argc > 2 ? strtoull(argv[2], NULL, 10) : DEFECT_SEEDS) != 0;
    if (argc > 2) return run(strtoull(argv[1], NULL, 10), (unsigned)strtoul(argv[2], NULL, 10), true) != NULL;
    uint64_t first = 0, runs = RUNS;
    if (argc > 1 && strchr(argv[1], '+')) {
        first = strtoull(argv[1], NULL, 10);
        runs = strtoull(strchr(argv[1], '+') + 1, NULL, 10);
    } else if (argc > 1) {
        return run(strtoull(argv[1], NULL, 10), 0, true) != NULL;
    }
    unsigned failed = 0;
    for (uint64_t seed = first; seed < first + runs; seed++) {
        const char *breach = run(seed, 0, false);
        if (!breach) continue;
        printf("seed %llu: %s\n", (unsigned long long)seed, breach);
        fflush(stdout);
        if (++failed == 20) return 1;
    }
    if (failed > 0) return 1;
    printf("%llu runs agree\n", (unsigned long long)runs);
    return steady_is_the_same(first, runs / 3);
}
