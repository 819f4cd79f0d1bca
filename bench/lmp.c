/*
 * LMP: a call and its reply between two dispatchers on one core, through librackfish; the core is handed over and back.
 *
 *   call + reply     Raw limit: the same two processes hand the core over and back by bare futexes.
 *   bare hand-over   that raw limit itself, beside the same between two processes of one scheduling group: what it costs that
 *                    the machine gives every dispatcher a group of its own.
 *
 * The pieces are measured in slices that take turns.
 */
#include "domain.h"
#include "pair.h"
#include "result.h"

#include "base/clock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLES 20000
#define SLICES  10
#define WARM_UP 500

typedef struct lmp {
    rf_channel_t *channel;
    unsigned n; /* samples of a slice */
    bench_samples_t small, large, bare, one_group;
} lmp_t;

/* ---- bare ---- */

static void hand_over(bench_words_t *words, uint32_t rounds, bench_samples_t *out)
{
    double ns_per_tick = bench_ns_per_tick();
    for (uint32_t i = 1; i <= rounds; i++) {
        uint64_t before = rf_clock_ticks();
        bench_words_give(&words->there, i);
        bench_words_take(&words->back, i);
        if (i > WARM_UP) bench_samples_add(out, (double)(rf_clock_ticks() - before) * ns_per_tick);
    }
}

/* With the peer, over memory that both map by a name that is gone at once. */
static bool bare_with_peer(lmp_t *lmp)
{
    bench_handover_t how = {.rounds = lmp->n + WARM_UP, .path = "/dev/shm/rf-bench-XXXXXX"};
    int fd = mkostemp(how.path, O_CLOEXEC);
    if (fd < 0 || ftruncate(fd, RF_PAGE) != 0) return false;
    bench_words_t *words = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    rf_message_t ready = {0};
    uint64_t deadline_ns = rf_deadline_ms(BENCH_DOMAIN_MS);
    bool ok = words != MAP_FAILED &&
              rf_channel_send(lmp->channel, BENCH_HANDOVER, &how, sizeof how, deadline_ns) == RF_OK &&
              rf_channel_receive(lmp->channel, &ready, deadline_ns) == RF_OK;
    unlink(how.path);
    if (ok) hand_over(words, how.rounds, &lmp->bare);
    if (words != MAP_FAILED) munmap(words, RF_PAGE);
    return ok;
}

static bool bare_in_one_group(lmp_t *lmp)
{
    bench_words_t *words = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) return false;
    uint32_t rounds = lmp->n + WARM_UP;
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent) bench_words_answer(words, rounds);
        _exit(0);
    }
    if (child > 0) hand_over(words, rounds, &lmp->one_group);
    bool ok = child > 0 && waitpid(child, NULL, 0) == child;
    munmap(words, RF_PAGE);
    return ok;
}

/* ---- calls ---- */

static bool calls(lmp_t *lmp, size_t size, bench_samples_t *out)
{
    uint8_t bytes[RF_CALL_BYTES_MAX] = {0}, reply_bytes[RF_CALL_BYTES_MAX];
    rf_message_t reply = {.bytes = reply_bytes, .room = sizeof reply_bytes};
    double ns_per_tick = bench_ns_per_tick();
    uint64_t deadline_ns = rf_deadline_ms(BENCH_DOMAIN_MS);
    for (unsigned i = 0; i < lmp->n + WARM_UP; i++) {
        uint64_t before = rf_clock_ticks();
        rf_err_t err = rf_call(lmp->channel, BENCH_ECHO, bytes, size, &reply, deadline_ns);
        if (err != RF_OK) {
            fprintf(stderr, "rf-bench: call: %s\n", rf_err_text(err));
            return false;
        }
        if (i >= WARM_UP) bench_samples_add(out, (double)(rf_clock_ticks() - before) * ns_per_tick);
    }
    return true;
}

static void report(const bench_options_t *options, const char *what, size_t size, bench_samples_t *samples,
                   const char *raw_what, bench_samples_t *raw)
{
    bench_result_t result = {.bench = "lmp",
                             .what = what,
                             .unit = "ns",
                             .samples = samples,
                             .raw = raw_what,
                             .raw_p50 = bench_samples_percentile(raw, 50),
                             .placement = BENCH_ONE_CORE};
    if (size) bench_result_param(&result, "bytes", size);
    bench_report(options, &result);
}

#define LARGE_BYTES 1024

static rf_err_t measure(const bench_options_t *options, lmp_t *lmp)
{
    bench_samples_t *all[] = {&lmp->small, &lmp->large, &lmp->bare, &lmp->one_group};
    lmp->n = (options->samples ? options->samples : SAMPLES) / SLICES + 1;
    for (unsigned i = 0; i < 4; i++) bench_samples_init(all[i], lmp->n * SLICES);
    bool ok = true;
    for (unsigned slice = 0; slice < SLICES && ok; slice++)
        ok = bare_with_peer(lmp) && calls(lmp, RF_CALL_SLOT_BYTES, &lmp->small) && bare_in_one_group(lmp) &&
             calls(lmp, LARGE_BYTES, &lmp->large);
    if (ok) {
        report(options, "call + reply", RF_CALL_SLOT_BYTES, &lmp->small, "bare futex hand-over", &lmp->bare);
        report(options, "call + reply", LARGE_BYTES, &lmp->large, "bare futex hand-over", &lmp->bare);
        report(options, "bare hand-over", 0, &lmp->bare, "the same within one group", &lmp->one_group);
    } else {
        fprintf(stderr, "rf-bench: lmp could not be measured\n");
    }
    for (unsigned i = 0; i < 4; i++) bench_samples_free(all[i]);
    return ok ? RF_OK : RF_ERR_OS;
}

static rf_err_t run(const bench_options_t *options)
{
    lmp_t lmp = {0};
    rf_err_t err = bench_domain_enter(options);
    if (err == RF_OK) err = bench_domain_peer(rf_self()->core, &lmp.channel);
    if (err == RF_OK) err = measure(options, &lmp);
    rf_finish();
    return err;
}

const bench_t bench_lmp = {"lmp", "a call and its reply on one core, between two dispatchers; in a machine",
                           run};
