/*
 * A whole machine as a program sees it: three hosts of one core, emulated on this host, real monitors, CPU drivers and rackfishds,
 * links between hosts over TCP on loopback without encryption. A program on the leader's core puts keys through librackfish; key and
 * value are as many bytes as a command of the other pieces.
 *
 *   alone   one put after the other. Raw limit: 64 bytes there and back by bare blocking sockets, which every commit waits for.
 *   reads   one get after the other, linearizable: by read index, which asks a majority; and, of a machine of its own, by the leader's
 *           lease. The same raw limit; and a get of what the replica shows, by the same way, which asks nobody.
 *   rate    PUTTERS threads of the program, each puts one key after the other: as many puts as a monitor takes from one client.
 *
 * Everybody sleeps between messages: program and monitor share a core, and so do the two followers.
 */
#include "machine.h"
#include "ordered.h"
#include "pair.h"
#include "raw.h"

#include "base/clock.h"

#include <rackfish.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUTTERS     64
#define SAMPLES     3000
#define RATE_CHUNKS 60
#define CHUNK       1024
#define WARM_UP     200
#define WAIT_NS     (60 * RF_NS_PER_S)
#define DEADLINE_MS 20000

/* Between the bench and its program, in a file of both. */
typedef struct paper {
    uint32_t n_alone, n_rate,
        n_read;             /* wanted; n_read: of gets that are linearizable, and of those that are not */
    _Atomic(uint32_t) done; /* all are there */
    _Atomic(uint32_t) err;
    double samples[]; /* alone, then rate, then gets of both kinds */
} paper_t;

static size_t paper_size(uint32_t n_alone, uint32_t n_rate, uint32_t n_read)
{
    return sizeof(paper_t) + ((size_t)n_alone + n_rate + 2 * (size_t)n_read) * sizeof(double);
}

static void *map(const char *path, int flags, size_t size)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    bool ok = fd >= 0 && (!(flags & O_CREAT) || ftruncate(fd, (off_t)size) == 0);
    void *memory = ok ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

/* ---- the program ---- */

typedef struct rate {
    paper_t *paper;
    uint64_t answered, mark, since;
    uint32_t n;
} rate_t;

static rate_t rate;

static rf_err_t put(unsigned which)
{
    char key[32], value[ORDERED_TCP_BYTES] = {0};
    uint64_t revision;
    size_t n = (size_t)snprintf(key, sizeof key, "shared/bench/%u", which);
    rf_err_t err = rf_registry_put(key, value, sizeof value - n, 0, &revision, rf_deadline_ms(DEADLINE_MS));
    if (err != RF_OK) atomic_store(&rate.paper->err, (uint32_t)err);
    return err;
}

static void alone(paper_t *paper)
{
    double us_per_tick = bench_ns_per_tick() / 1000;
    for (uint32_t i = 0; i < paper->n_alone + WARM_UP; i++) {
        uint64_t before = rf_clock_ticks();
        if (put(0) != RF_OK) return;
        if (i >= WARM_UP) paper->samples[i - WARM_UP] = (double)(rf_clock_ticks() - before) * us_per_tick;
    }
}

static void reads(paper_t *paper, rf_read_t kind, double *samples)
{
    double us_per_tick = bench_ns_per_tick() / 1000;
    char value[ORDERED_TCP_BYTES];
    for (uint32_t i = 0; i < paper->n_read + WARM_UP; i++) {
        rf_registry_entry_t entry;
        uint64_t before = rf_clock_ticks();
        rf_err_t err =
            rf_registry_get("shared/bench/0", kind, &entry, value, sizeof value, rf_deadline_ms(DEADLINE_MS));
        if (i >= WARM_UP) samples[i - WARM_UP] = (double)(rf_clock_ticks() - before) * us_per_tick;
        if (err == RF_OK) continue;
        atomic_store(&paper->err, (uint32_t)err);
        return;
    }
}

/* All threads of a dispatcher run on one thread of the kernel: no locks. */
static void *putter(void *argument)
{
    unsigned which = *(const unsigned *)argument;
    double us_per_tick = bench_ns_per_tick() / 1000;
    while (rate.n < rate.paper->n_rate && put(which) == RF_OK) {
        if (++rate.answered < rate.mark) continue;
        uint64_t now = rf_clock_ticks();
        if (rate.since != 0)
            rate.paper->samples[rate.paper->n_alone + rate.n++] =
                CHUNK / ((double)(now - rate.since) * us_per_tick);
        rate.since = now;
        rate.mark = rate.answered + CHUNK;
    }
    return NULL;
}

bool ordered_registry_client(const bench_options_t *options)
{
    static unsigned indices[PUTTERS];
    rf_thread_t *threads[PUTTERS];
    paper_t *paper = options->argc == 2 ? map(options->argv[1], 0, sizeof *paper) : NULL;
    size_t size = paper ? paper_size(paper->n_alone, paper->n_rate, paper->n_read) : 0;
    if (paper) munmap(paper, sizeof *paper);
    paper = size ? map(options->argv[1], 0, size) : NULL;
    if (!paper || rf_init(rf_deadline_ms(DEADLINE_MS)) != RF_OK) {
        fprintf(stderr, "rf-bench: the bench itself starts this, in a machine\n");
        return false;
    }
    rate = (rate_t){.paper = paper, .mark = CHUNK};
    alone(paper);
    double *read_samples = paper->samples + paper->n_alone + paper->n_rate;
    reads(paper, RF_READ_LINEARIZABLE, read_samples);
    reads(paper, RF_READ_LOCAL, read_samples + paper->n_read);
    for (unsigned i = 0; i < PUTTERS; i++) {
        indices[i] = i;
        if (rf_thread_create(putter, &indices[i], 0, &threads[i]) != RF_OK) return false;
    }
    for (unsigned i = 0; i < PUTTERS; i++) (void)rf_thread_join(threads[i], NULL, RF_NEVER);
    atomic_store(&paper->done, 1);
    rf_finish();
    return true;
}

/* ---- the bench ---- */

static bool wait_for_paper(paper_t *paper)
{
    uint64_t end_ns = rf_clock_ns() + WAIT_NS;
    while (!atomic_load(&paper->done) && rf_clock_ns() < end_ns) rf_clock_sleep_ms(10);
    return atomic_load(&paper->done) && atomic_load(&paper->err) == RF_OK;
}

/* A row of what is measured: `n` samples from there on in the paper. */
typedef struct row {
    const char *what;
    const double *from;
    uint32_t n;
    bool is_rate, asks; /* asks: others, so that there is a raw limit */
} row_t;

static void report(const bench_options_t *options, const row_t *row, double raw_p50)
{
    bench_samples_t samples;
    bench_samples_init(&samples, row->n);
    for (uint32_t i = 0; i < row->n; i++) bench_samples_add(&samples, row->from[i]);
    bench_result_t result = {.bench = "ordered",
                             .what = row->what,
                             .unit = row->is_rate ? "M/s" : "us",
                             .samples = &samples,
                             .raw = row->asks ? "bare TCP there and back, blocking" : NULL,
                             .raw_p50 = row->asks ? raw_p50 : 0,
                             .placement = BENCH_ONE_CORE};
    bench_result_param(&result, "hosts", MACHINE_HOSTS);
    bench_result_param(&result, "outstanding", row->is_rate ? PUTTERS : 1);
    bench_result_param(&result, "bytes", ORDERED_TCP_BYTES);
    bench_report(options, &result);
    bench_samples_free(&samples);
}

static bool measure(const bench_options_t *options, const machine_t *machine, paper_t *paper,
                    const char *path)
{
    int leader = machine_leader(machine);
    const char *const words[] = {machine->self, "ordered", "machine-puts", path, NULL};
    if (leader < 0 || !machine_start(machine, (unsigned)leader, words) || !wait_for_paper(paper)) {
        fprintf(stderr, "rf-bench ordered: the machine's program did not put everything: %s\n",
                rf_err_text((rf_err_t)atomic_load(&paper->err)));
        return false;
    }
    const double *rates = paper->samples + paper->n_alone, *gets = rates + paper->n_rate;
    const row_t rows[] = {
        {"machine, put", paper->samples, paper->n_alone, false, true},
        {"machine rate, put", rates, paper->n_rate, true, false},
        {"machine, get by read index", gets, machine->leases ? 0 : paper->n_read, false, true},
        {"machine, get by lease", gets, machine->leases ? paper->n_read : 0, false, false},
        {"machine, get of the replica", gets + paper->n_read, paper->n_read, false, false},
    };
    bench_samples_t raw;
    bench_samples_init(&raw, paper->n_read);
    bool ok = raw_tcp_blocking(options->cores, raw.max, &raw);
    for (unsigned i = 0; ok && i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].n > 0) report(options, &rows[i], bench_samples_percentile(&raw, 50) * 2 / 1000);
    }
    bench_samples_free(&raw);
    return ok;
}

static bool run(const bench_options_t *options, bool leases, uint32_t n_alone, uint32_t n_rate,
                uint32_t n_read)
{
    machine_t machine;
    char path[96];
    size_t size = paper_size(n_alone, n_rate, n_read);
    bool ok = machine_begin(&machine, false);
    machine.plain = true;
    machine.leases = leases;
    snprintf(path, sizeof path, "%s/puts", machine.folder);
    paper_t *paper = ok ? map(path, O_CREAT | O_TRUNC, size) : NULL;
    if (paper) {
        paper->n_alone = n_alone;
        paper->n_rate = n_rate;
        paper->n_read = n_read;
    }
    ok = paper && machine_up(&machine) && measure(options, &machine, paper, path);
    if (paper) munmap(paper, size);
    machine_end(&machine);
    return ok;
}

bool ordered_registry(const bench_options_t *options)
{
    uint32_t n = options->samples ? options->samples : SAMPLES;
    return run(options, false, n, n < RATE_CHUNKS ? n : RATE_CHUNKS, n) && run(options, true, 0, 0, n);
}
