/*
 * Other systems on the same path: three nodes on loopback TCP, logs in memory, nothing encrypted, as many bytes a command and
 * as many outstanding. Each is a program of its own in peers/, which says what its client is; "p50 / raw limit" of
 * these rows is the peer's figure over Rackfish's of the same run: C raft beside the spinning hosts with the client in the
 * leader's process, where C raft's is; etcd beside those that block with the client outside, as etcd's is. All rows of
 * Rackfish are printed, for any other comparison.
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

#define SAMPLES_ONE  2000
#define SAMPLES_RATE 40
#define PATH         4096

extern char **environ;

typedef struct peer {
    const char *name, *program, *needs; /* what its program was built from */
    const char *runs;                   /* a program it starts; NULL: none */
    bool batches;                       /* takes several commands a call */
    ordered_way_t beside;               /* what it is compared with */
} peer_t;

static const peer_t peers[] = {
    {"canonical raft", "rf-peer-raft", "libraft-dev and libuv1-dev", NULL, true, ORDERED_SPINNING},
    {"etcd", "rf-peer-etcd", "libgrpc-dev and etcd-server", "etcd", false, ORDERED_OUTSIDE},
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

static bool measure(const bench_options_t *options, const peer_t *peer, const char *path,
                    unsigned outstanding, unsigned batch, double ours)
{
    enum { WORD = 32 };
    char outstanding_word[WORD], batch_word[WORD], bytes[WORD], samples_word[WORD], cores[WORD];
    bool rate = outstanding > 1;
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
    bench_options_t once = *options; /* long, and not pinned as ours is: near says little */
    once.tries = 1;
    bracket_t bracket;
    bool ok = bracket_run(&once, peer_piece, &run, &samples, NULL, &bracket);
    if (ok) {
        char what[64];
        snprintf(what, sizeof what, "%s%s", peer->name, rate ? " rate" : "");
        bench_result_t result = {.bench = "ordered",
                                 .what = what,
                                 .unit = rate ? "M/s" : "us",
                                 .samples = &samples,
                                 .raw = "Rackfish, same run",
                                 .raw_p50 = ours,
                                 .placement = bracket.placement};
        bench_result_param(&result, "hosts", 3);
        bench_result_param(&result, "outstanding", outstanding);
        bench_result_param(&result, "batch", batch);
        bench_result_param(&result, "bytes", ORDERED_TCP_BYTES);
        bench_report(options, &result);
    } else {
        fprintf(stderr, "rf-bench ordered: %s failed\n", peer->program);
    }
    bench_samples_free(&samples);
    return ok;
}

bool ordered_peers(const bench_options_t *options)
{
    bool all = true;
    double one[ORDERED_OUTSIDE + 1], rate[ORDERED_OUTSIDE + 1];
    for (unsigned way = ORDERED_SPINNING; way <= ORDERED_OUTSIDE; way++) {
        if (!ordered_tcp_measure(options, (ordered_way_t)way, 1, 1, &one[way]) ||
            !ordered_tcp_measure(options, (ordered_way_t)way, ORDERED_OUTSTANDING, ORDERED_TCP_BATCH,
                                 &rate[way]))
            return false;
    }
    for (unsigned i = 0; i < sizeof peers / sizeof *peers; i++) {
        const peer_t *p = &peers[i];
        char path[PATH];
        if (!beside(p->program, path, sizeof path) || (p->runs && !in_path(p->runs))) {
            fprintf(stderr, "rf-bench ordered: no %s here: install %s, then configure and build again\n",
                    p->name, p->needs);
            continue;
        }
        all &= measure(options, p, path, 1, 1, one[p->beside]);
        all &= measure(options, p, path, ORDERED_OUTSTANDING, 1, rate[p->beside]);
        if (p->batches)
            all &= measure(options, p, path, ORDERED_OUTSTANDING, ORDERED_TCP_BATCH, rate[p->beside]);
    }
    return all;
}
