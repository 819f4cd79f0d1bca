/*
 * Fail-over of a whole machine: three hosts of one core, real monitors, CPU drivers and rackfishds. A program on each host that stays
 * puts keys through librackfish at a fixed rate, whether the ones before are answered or not; the leader is then hurt, and measured is
 * the time until a put that was made after that is answered. Each sample is a machine of its own.
 *
 *   killed    kill -9 of the leader's monitor; the kernel tells its rackfishd, which tells the others. Raw limit: until the kernel
 *             says so to this process.
 *   stopped   SIGSTOP of it; found by silence. Raw limit: the configured timeout.
 *   cut off   the leader's host has no network (namespaces, takes root). Raw limit: the configured timeout.
 *   dead      its network goes, and then all that runs on it: the host has lost its power. Raw limit: the same.
 *
 * A put that was made after the kill is answered by a later leader: the process that is to be killed executes nothing any more when
 * kill() has returned but what runs on another CPU until its interrupt is there.
 */
#include "machine.h"
#include "ordered.h"

#include "base/clock.h"
#include "base/os.h"

#include <rackfish.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREADS     32 /* puts of one client under way, at most */
#define INTERVAL_NS (500 * RF_NS_PER_US)
#define ROUNDS      50
#define WARM_PUTS   100
#define LOG_MS      500 /* until what monitors said is written, at most */
#define WAIT_NS     (20 * RF_NS_PER_S)
#define ELECTION_MS 500 /* the default of `election_ms` */

typedef enum cause { KILLED, STOPPED, CUT_OFF, DEAD, CAUSES } cause_t;

static const struct {
    const char *word, *what, *raw;
    bool namespaces;
} causes[CAUSES] = {
    {"machine-killed", "machine, monitor killed", "until the kernel says so", false},
    {"machine-stopped", "machine, monitor stopped", "the configured timeout", false},
    {"machine-cut", "machine, host cut off", "the configured timeout", true},
    {"machine-dead", "machine, host dead", "the configured timeout", true},
};

/* ---- the client: a program of the machine ---- */

/* Between the bench and a client, in a file of both. */
typedef struct desk {
    _Atomic(uint32_t) stop;
    _Atomic(uint64_t) answered; /* puts */
    _Atomic(uint64_t) hurt_ns;  /* the leader was hurt then; 0: not yet */
    _Atomic(uint64_t) first_ns; /* when the first put that was made since was answered */
    _Atomic(uint32_t) err;      /* the last error of a put */
} desk_t;

static desk_t *desk;
static uint64_t begun_ns;

static desk_t *desk_open(const char *path, bool create)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0600);
    bool ok = fd >= 0 && (!create || ftruncate(fd, sizeof(desk_t)) == 0);
    void *memory = ok ? mmap(NULL, sizeof(desk_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (fd >= 0) close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}

static void *put_now_and_then(void *argument)
{
    char key[64];
    unsigned index = *(const unsigned *)argument;
    snprintf(key, sizeof key, "shared/bench/%u/%u", (unsigned)rf_self()->core, index);
    uint64_t period_ns = THREADS * INTERVAL_NS, next_ns = begun_ns + index * INTERVAL_NS;
    while (!atomic_load(&desk->stop)) {
        rf_thread_sleep(next_ns);
        uint64_t made_ns = rf_clock_ns(), revision;
        rf_err_t err = rf_registry_put(key, &made_ns, sizeof made_ns, 0, &revision, rf_deadline_ms(10000));
        uint64_t now_ns = rf_clock_ns(), hurt_ns = atomic_load(&desk->hurt_ns);
        if (err == RF_OK) {
            if (hurt_ns != 0 && made_ns > hurt_ns && atomic_load(&desk->first_ns) == 0)
                atomic_store(&desk->first_ns, now_ns);
            atomic_fetch_add(&desk->answered, 1);
        } else {
            atomic_store(&desk->err, (uint32_t)err);
        }
        while (next_ns <= now_ns) next_ns += period_ns;
    }
    return NULL;
}

bool ordered_machine_client(const bench_options_t *options)
{
    static unsigned indices[THREADS];
    rf_thread_t *threads[THREADS];
    desk = options->argc == 2 ? desk_open(options->argv[1], false) : NULL;
    if (!desk || rf_init(rf_deadline_ms(20000)) != RF_OK) {
        fprintf(stderr, "rf-bench: the bench itself starts this, in a machine\n");
        return false;
    }
    begun_ns = rf_clock_ns();
    for (unsigned i = 0; i < THREADS; i++) {
        indices[i] = i;
        if (rf_thread_create(put_now_and_then, &indices[i], 0, &threads[i]) != RF_OK) return false;
    }
    for (unsigned i = 0; i < THREADS; i++) (void)rf_thread_join(threads[i], NULL, RF_NEVER);
    rf_finish();
    return true;
}

/* ---- the bench ---- */

typedef struct round {
    uint64_t start_ns, first_ns, all_ns; /* hurt; a client goes on; both do */
    uint64_t noticed_ns, leads_ns;       /* KILLED: the kernel says so. Somebody leads; 0: not found */
} round_t;

static bool wait_for(bool (*done)(desk_t *const *desks), desk_t *const *desks)
{
    uint64_t end_ns = rf_clock_ns() + WAIT_NS;
    while (!done(desks)) {
        if (rf_clock_ns() > end_ns) return false;
        rf_clock_sleep_ms(2);
    }
    return true;
}

static bool both_work(desk_t *const *desks)
{
    return atomic_load(&desks[0]->answered) >= WARM_PUTS && atomic_load(&desks[1]->answered) >= WARM_PUTS;
}

static bool both_go_on(desk_t *const *desks)
{
    return atomic_load(&desks[0]->first_ns) && atomic_load(&desks[1]->first_ns);
}

static bool start_clients(const machine_t *machine, unsigned leader, desk_t **desks)
{
    for (unsigned core = 0, n = 0; core < MACHINE_HOSTS; core++) {
        if (core == leader) continue;
        char path[96];
        snprintf(path, sizeof path, "%s/client%u", machine->folder, n);
        const char *const words[] = {machine->self, "ordered", "machine-client", path, NULL};
        if (!(desks[n++] = desk_open(path, true)) || !machine_start(machine, core, words)) return false;
    }
    return true;
}

/* False: it could not be done. */
static bool hurt(const machine_t *machine, cause_t cause, unsigned leader, desk_t **desks, round_t *r)
{
    pid_t pids[16];
    const char *role = cause == DEAD ? NULL : "monitor";
    unsigned n = machine_pids(machine, leader, role, pids, 16);
    if (n == 0) return false;
    int pidfd = cause == KILLED ? rf_process_open(pids[0], 0) : -1;
    r->start_ns = rf_clock_ns();
    bool ok = cause < CUT_OFF ? kill(pids[0], cause == KILLED ? SIGKILL : SIGSTOP) == 0
                              : machine_cut(machine, leader, true);
    uint64_t hurt_ns = rf_clock_ns();
    for (unsigned i = 0; i < 2; i++) atomic_store(&desks[i]->hurt_ns, hurt_ns);
    if (pidfd >= 0) {
        struct pollfd wait = {.fd = pidfd, .events = POLLIN};
        ok = ok && poll(&wait, 1, 5000) == 1;
        r->noticed_ns = rf_clock_ns();
        close(pidfd);
    }
    for (unsigned i = 0; ok && cause == DEAD && i < n; i++) kill(pids[i], SIGKILL);
    return ok;
}

/* When a later leader said so; 0: nobody has yet. */
static uint64_t said_ns(const machine_t *machine, unsigned leader, uint64_t since_ns)
{
    for (unsigned core = 0; core < MACHINE_HOSTS; core++) {
        char words[32];
        snprintf(words, sizeof words, " core %u leads", core);
        uint64_t said_ns = core == leader ? 0 : machine_said_ns(machine, core, words);
        if (said_ns > since_ns) return said_ns;
    }
    return 0;
}

static void note_leader(const machine_t *machine, unsigned leader, round_t *r)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t real_ns = (uint64_t)t.tv_sec * RF_NS_PER_S + (uint64_t)t.tv_nsec, now_ns = rf_clock_ns();
    uint64_t start_ns = real_ns - (now_ns - r->start_ns), said = 0;
    for (unsigned ms = 0; ms < LOG_MS && (said = said_ns(machine, leader, start_ns)) == 0; ms++)
        rf_clock_sleep_ms(1);
    if (said != 0)
        r->leads_ns = r->start_ns + (said - start_ns);
    else
        fprintf(stderr, "rf-bench ordered: no log says who leads: a sample less of \"until it leads\"\n");
}

/* One machine from its boot to its end. */
static bool once(machine_t *machine, cause_t cause, unsigned round, round_t *r)
{
    desk_t *desks[2] = {NULL, NULL};
    const char *step = "it does not boot";
    *r = (round_t){0};
    bool ok = machine_up(machine);
    int leader = ok ? machine_leader(machine) : -1;
    if (ok) step = "it has no leader";
    ok = ok && leader >= 0 && leader < MACHINE_HOSTS;
    if (ok && (step = "the clients do not start", ok = start_clients(machine, (unsigned)leader, desks)))
        step = "the clients' puts are not answered", ok = wait_for(both_work, desks);
    if (ok) {
        struct timespec chance = {.tv_nsec = (long)(round * 7919 % 20011) * 1000};
        nanosleep(&chance, NULL);
        step = "the leader cannot be hurt";
        ok = hurt(machine, cause, (unsigned)leader, desks, r);
    }
    if (ok) {
        step = "no put is answered after the leader was hurt";
        ok = wait_for(both_go_on, desks);
    }
    if (ok) {
        uint64_t a = atomic_load(&desks[0]->first_ns), b = atomic_load(&desks[1]->first_ns);
        r->first_ns = a < b ? a : b;
        r->all_ns = a < b ? b : a;
        note_leader(machine, (unsigned)leader, r);
    }
    if (!ok)
        fprintf(stderr, "rf-bench ordered: %s, round %u: %s (%s)\n", causes[cause].what, round, step,
                desks[0] ? rf_err_text((rf_err_t)atomic_load(&desks[0]->err)) : "");
    for (unsigned i = 0; i < 2; i++) {
        if (!desks[i]) continue;
        atomic_store(&desks[i]->stop, 1);
        munmap(desks[i], sizeof *desks[i]);
    }
    machine_down(machine);
    return ok;
}

typedef enum part { FIRST, ALL, NOTICED, LEADS, PARTS } part_t;

static const char *const part_of[PARTS] = {
    NULL, "  until both clients go on", "  of that, until the kernel says so", "  of that, until it leads"};

static void report(const bench_options_t *options, cause_t cause, bench_samples_t *parts)
{
    for (unsigned part = 0; part < PARTS; part++) {
        if (parts[part].n == 0) continue;
        bench_result_t result = {.bench = "ordered",
                                 .what = part_of[part] ? part_of[part] : causes[cause].what,
                                 .unit = "us",
                                 .samples = &parts[part],
                                 .raw = causes[cause].raw,
                                 .raw_p50 = cause == KILLED ? bench_samples_percentile(&parts[NOTICED], 50)
                                                            : (double)ELECTION_MS * 1000,
                                 .placement = BENCH_ONE_CORE};
        bench_result_param(&result, "hosts", MACHINE_HOSTS);
        if (cause != KILLED) bench_result_param(&result, "timeout_ms", ELECTION_MS);
        bench_report(options, &result);
    }
}

static bool measure(const bench_options_t *options, cause_t cause)
{
    machine_t machine;
    bench_samples_t parts[PARTS];
    unsigned n = options->samples ? options->samples : ROUNDS;
    const char *missing = machine_missing(causes[cause].namespaces);
    if (missing) {
        fprintf(stderr, "rf-bench ordered: %s left out: %s\n", causes[cause].what, missing);
        return true;
    }
    for (unsigned part = 0; part < PARTS; part++) bench_samples_init(&parts[part], n);
    bool ok = machine_begin(&machine, causes[cause].namespaces);
    for (unsigned i = 0; ok && i < n; i++) {
        round_t r;
        if (!(ok = once(&machine, cause, i, &r))) break;
        bench_samples_add(&parts[FIRST], (double)(r.first_ns - r.start_ns) / 1000);
        bench_samples_add(&parts[ALL], (double)(r.all_ns - r.start_ns) / 1000);
        if (r.noticed_ns) bench_samples_add(&parts[NOTICED], (double)(r.noticed_ns - r.start_ns) / 1000);
        if (r.leads_ns) bench_samples_add(&parts[LEADS], (double)(r.leads_ns - r.start_ns) / 1000);
    }
    machine_end(&machine);
    report(options, cause, parts);
    for (unsigned part = 0; part < PARTS; part++) bench_samples_free(&parts[part]);
    return ok;
}

bool ordered_machine(const bench_options_t *options)
{
    bool all = bench_wanted(options, "machine-failover"), ok = true;
    for (unsigned cause = 0; cause < CAUSES && ok; cause++) {
        if (all || bench_wanted(options, causes[cause].word)) ok = measure(options, (cause_t)cause);
    }
    return ok;
}
