/*
 * Other systems on the same path: three nodes on loopback TCP, logs in memory, nothing encrypted, as many bytes a command and
 * as many outstanding, on the same two CPUs. Each is a program of its own in peers/, which says what its client is.
 *
 * All sides take turns, `--rounds` times, every other time the other way round; a row has the medians of the rounds. The
 * rows "ahead of ..." say how many times shorter Rackfish takes, or how many times more it commits, in the same round, beside each
 * placement of the client that is worth comparing:
 *
 *   C raft   in the leader's process, as Rackfish's of "spinning" and "blocking"; C raft's hosts always block. One command a call
 *            of raft_apply(), which is what a client has that gets an answer to each; and a batch a call, which C raft takes as one
 *            request with one answer: beside Rackfish's of a batch a proposal, with one answer, too.
 *   etcd     a process of its own over TCP, which is the only way in: beside Rackfish's "outside", which is that too, and "beside",
 *            which is how a program that runs on a core of Rackfish is connected. Ours is pinned to the leader's core; etcd's, as its
 *            nodes, runs where the kernel puts it.
 *
 * willemt/raft has no network and is not run: three replicas in one thread took 327 ns a commit alone and 180 ns in batches on
 * the machine where `direct` was first measured.
 */
#include "bracket.h"
#include "ordered.h"

#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLES_ONE  1000
#define SAMPLES_RATE 20
#define PATH         4096
#define ROUNDS       5

extern char **environ;

typedef struct peer {
    const char *name, *program, *needs; /* what its program was built from */
    const char *runs;                   /* a program it starts; NULL: none */
} peer_t;

enum { RAFT, ETCD, PEERS };
static const peer_t peers[PEERS] = {
    [RAFT] = {"canonical raft", "rf-peer-raft", "libraft-dev and libuv1-dev", NULL},
    [ETCD] = {"etcd", "rf-peer-etcd", "libgrpc-dev and etcd-server", "etcd"},
};

typedef enum peer_side {
    RAFT_ONE,
    RAFT_RATE,
    RAFT_RATE_BATCHED,
    ETCD_ONE,
    ETCD_RATE,
    PEER_SIDES
} peer_side_t;

static const struct {
    unsigned peer;
    const char *what;
    ordered_load_t load;
} peer_sides[PEER_SIDES] = {
    [RAFT_ONE] = {RAFT, "canonical raft", ORDERED_ONE},
    [RAFT_RATE] = {RAFT, "canonical raft rate", ORDERED_RATE},
    [RAFT_RATE_BATCHED] = {RAFT, "canonical raft rate, batched", ORDERED_RATE_BATCHED},
    [ETCD_ONE] = {ETCD, "etcd", ORDERED_ONE},
    [ETCD_RATE] = {ETCD, "etcd rate", ORDERED_RATE},
};

static const struct {
    const char *what;
    peer_side_t side;
    ordered_way_t way;
} comparisons[] = {
    /* of the same load */
    {"ahead of canonical raft: spinning", RAFT_ONE, ORDERED_SPINNING},
    {"ahead of canonical raft: blocking", RAFT_ONE, ORDERED_BLOCKING},
    {"ahead of canonical raft rate: spinning", RAFT_RATE, ORDERED_SPINNING},
    {"ahead of canonical raft rate: blocking", RAFT_RATE, ORDERED_BLOCKING},
    {"ahead of canonical raft rate, batched: spinning", RAFT_RATE_BATCHED, ORDERED_SPINNING},
    {"ahead of canonical raft rate, batched: blocking", RAFT_RATE_BATCHED, ORDERED_BLOCKING},
    {"ahead of etcd: client beside", ETCD_ONE, ORDERED_BESIDE},
    {"ahead of etcd: client outside", ETCD_ONE, ORDERED_OUTSIDE},
    {"ahead of etcd rate: client beside", ETCD_RATE, ORDERED_BESIDE},
    {"ahead of etcd rate: client outside", ETCD_RATE, ORDERED_OUTSIDE},
};

/* Beside this program. */
static bool beside(const char *program, char *out, size_t max)
{
    ssize_t n = readlink("/proc/self/exe", out, max - 1);
    if (n <= 0) return false;
    out[n] = 0;
    char *slash = strrchr(out, '/');
    size_t at = slash ? (size_t)(slash + 1 - out) : 0;
    snprintf(out + at, max - at, "%s", program);
    return access(out, X_OK) == 0;
}

static bool in_path(const char *program)
{
    const char *paths = getenv("PATH");
    char one[PATH];
    while (paths && *paths) {
        size_t n = strcspn(paths, ":");
        snprintf(one, sizeof one, "%.*s/%s", (int)n, paths, program);
        if (access(one, X_OK) == 0) return true;
        paths += n + (paths[n] == ':');
    }
    return false;
}

/* Runs it, and reads one figure a line. */
static bool run_peer(const char *path, char *const *argv, bench_samples_t *out)
{
    int ends[2];
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe(ends) != 0) return false;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    int err = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    FILE *lines = err == 0 ? fdopen(ends[0], "r") : NULL;
    if (!lines) {
        close(ends[0]);
        return false;
    }
    char line[64];
    while (fgets(line, sizeof line, lines)) bench_samples_add(out, strtod(line, NULL));
    fclose(lines);
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 && out->n > 0;
}

typedef struct peer_run {
    const char *path;
    const char *const *argv;
} peer_run_t;

static bool peer_piece(const bench_options_t *options, void *context, bench_samples_t *samples,
                       bench_samples_t *raw)
{
    (void)options, (void)raw;
    const peer_run_t *run = context;
    return run_peer(run->path, (char *const *)(uintptr_t)run->argv, samples);
}

static bool measure_peer(const bench_options_t *options, peer_side_t side, const char *path,
                         ordered_figure_t *out)
{
    enum { WORD = 32 };
    char outstanding_word[WORD], batch_word[WORD], bytes[WORD], samples_word[WORD], cores[WORD];
    bool rate = peer_sides[side].load != ORDERED_ONE;
    unsigned outstanding = rate ? ordered_outstanding(options) : 1;
    unsigned batch = peer_sides[side].load == ORDERED_RATE_BATCHED ? ordered_tcp_batch(outstanding) : 1;
    unsigned n = options->samples ? options->samples : rate ? SAMPLES_RATE : SAMPLES_ONE;
    snprintf(outstanding_word, WORD, "%u", outstanding);
    snprintf(batch_word, WORD, "%u", batch);
    snprintf(bytes, WORD, "%u", ORDERED_TCP_BYTES);
    snprintf(samples_word, WORD, "%u", n);
    snprintf(cores, WORD, "%u,%u", options->cores[0], options->cores[1]);
    const char *argv[] = {path,  "--outstanding", outstanding_word, "--batch", batch_word, "--bytes",
                          bytes, "--samples",     samples_word,     "--cores", cores,      NULL};
    bench_samples_t samples;
    bench_samples_init(&samples, n);
    peer_run_t run = {.path = path, .argv = argv};
    bracket_t bracket;
    bool ok = bracket_run(options, peer_piece, &run, &samples, NULL, &bracket);
    if (ok) *out = (ordered_figure_t){bench_samples_percentile(&samples, 50), 0, bracket.placement};
    if (!ok) fprintf(stderr, "rf-bench ordered: %s failed\n", peers[peer_sides[side].peer].program);
    bench_samples_free(&samples);
    return ok;
}

/* ---- rounds ---- */

#define OURS (ORDERED_LOADS * ORDERED_WAYS) /* each placement: alone, rate, batched where that is measured */

static unsigned our_column(ordered_way_t way, ordered_load_t load)
{
    return ORDERED_LOADS * way + load;
}

static ordered_load_t load_of(unsigned column)
{
    return column < OURS ? (ordered_load_t)(column % ORDERED_LOADS) : peer_sides[column - OURS].load;
}

/* A column is a side of ours, then of the peers; a row is a round. */
typedef struct rounds {
    bench_options_t once; /* long, and peers are not pinned as ours are: near says little */
    unsigned n;
    char paths[PEERS][PATH]; /* empty: not here */
    double (*p50)[OURS + PEER_SIDES];
    double (*raw)[OURS];
    bool far[OURS + PEER_SIDES]; /* in some round */
} rounds_t;

static bool is_here(const rounds_t *r, unsigned column)
{
    return column < OURS ? ordered_tcp_name((ordered_way_t)(column / ORDERED_LOADS), load_of(column)) != NULL
                         : r->paths[peer_sides[column - OURS].peer][0] != 0;
}

static bool measure_column(rounds_t *r, unsigned round, unsigned column)
{
    ordered_figure_t figure;
    bool ok;
    if (column < OURS) {
        ok = ordered_tcp_measure(&r->once, (ordered_way_t)(column / ORDERED_LOADS), load_of(column), &figure);
    } else {
        peer_side_t side = (peer_side_t)(column - OURS);
        ok = measure_peer(&r->once, side, r->paths[peer_sides[side].peer], &figure);
    }
    if (!ok) return false;
    r->p50[round][column] = figure.p50;
    if (column < OURS) r->raw[round][column] = figure.raw_p50;
    r->far[column] |= figure.placement == BENCH_FAR;
    return true;
}

/* How many rounds could be measured. */
static unsigned measure_rounds(rounds_t *r)
{
    for (unsigned round = 0; round < r->n; round++) {
        for (unsigned i = 0; i < OURS + PEER_SIDES; i++) {
            unsigned column = round % 2 ? OURS + PEER_SIDES - 1 - i : i;
            if (is_here(r, column) && !measure_column(r, round, column)) return round;
        }
    }
    return r->n;
}

static void report_column(const rounds_t *r, unsigned column, bench_samples_t *samples, bench_samples_t *raw)
{
    bool ours = column < OURS;
    ordered_way_t way = (ordered_way_t)(column / ORDERED_LOADS);
    ordered_load_t load = load_of(column);
    unsigned outstanding = load != ORDERED_ONE ? ordered_outstanding(&r->once) : 1;
    samples->n = raw->n = 0;
    for (unsigned round = 0; round < r->n; round++) {
        bench_samples_add(samples, r->p50[round][column]);
        if (ours) bench_samples_add(raw, r->raw[round][column]);
    }
    bench_result_t result = {.bench = "ordered",
                             .what = ours ? ordered_tcp_name(way, load) : peer_sides[column - OURS].what,
                             .unit = load != ORDERED_ONE ? "M/s" : "us",
                             .samples = samples,
                             .raw = ours ? ordered_tcp_raw(way, load) : NULL,
                             .raw_p50 = ours ? bench_samples_percentile(raw, 50) : 0,
                             .placement = r->far[column] ? BENCH_FAR : BENCH_NEAR};
    bench_result_param(&result, "rounds", r->n);
    bench_result_param(&result, "hosts", 3);
    bench_result_param(&result, "outstanding", outstanding);
    if (load == ORDERED_RATE_BATCHED)
        bench_result_param(&result, "batch",
                           ours ? ordered_tcp_per_proposal(outstanding) : ordered_tcp_batch(outstanding));
    bench_result_param(&result, "bytes", ORDERED_TCP_BYTES);
    bench_report(&r->once, &result);
}

static void report_rounds(const rounds_t *r)
{
    bench_samples_t samples, raw;
    bench_samples_init(&samples, r->n);
    bench_samples_init(&raw, r->n);
    for (unsigned column = 0; column < OURS + PEER_SIDES; column++) {
        if (is_here(r, column)) report_column(r, column, &samples, &raw);
    }
    for (unsigned i = 0; i < sizeof comparisons / sizeof *comparisons; i++) {
        unsigned theirs = OURS + comparisons[i].side;
        ordered_load_t load = peer_sides[comparisons[i].side].load;
        bool rate = load != ORDERED_ONE;
        unsigned ours = our_column(comparisons[i].way, load);
        if (!is_here(r, theirs)) continue;
        samples.n = 0;
        for (unsigned round = 0; round < r->n; round++) {
            double we = r->p50[round][ours], they = r->p50[round][theirs];
            bench_samples_add(&samples, rate ? we / they : they / we);
        }
        bench_result_t result = {.bench = "ordered",
                                 .what = comparisons[i].what,
                                 .unit = "times",
                                 .samples = &samples,
                                 .placement = r->far[ours] || r->far[theirs] ? BENCH_FAR : BENCH_NEAR};
        bench_result_param(&result, "rounds", r->n);
        bench_result_param(&result, "outstanding", rate ? ordered_outstanding(&r->once) : 1);
        bench_report(&r->once, &result);
    }
    bench_samples_free(&samples);
    bench_samples_free(&raw);
}

bool ordered_peers(const bench_options_t *options)
{
    rounds_t r = {.once = *options, .n = options->rounds ? options->rounds : ROUNDS};
    r.once.tries = 1;
    for (unsigned i = 0; i < PEERS; i++) {
        const peer_t *p = &peers[i];
        if (beside(p->program, r.paths[i], PATH) && (!p->runs || in_path(p->runs))) continue;
        r.paths[i][0] = 0;
        fprintf(stderr, "rf-bench ordered: no %s here: install %s, then configure and build again\n", p->name,
                p->needs);
    }
    r.p50 = calloc(r.n, sizeof *r.p50);
    r.raw = calloc(r.n, sizeof *r.raw);
    unsigned n = r.n;
    r.n = r.p50 && r.raw ? measure_rounds(&r) : 0;
    if (r.n > 0) report_rounds(&r);
    free(r.p50);
    free(r.raw);
    return r.n == n;
}
