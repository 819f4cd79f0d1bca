/* How late this host lets a process run that is due: what the timeouts of the machine must exceed. */
#include "cluster-config/doctor_internal.h"

#include "base/clock.h"
#include "base/os.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define CPUS_MAX    4
#define SLEEPS_MAX  2000 /* on each: of all together a thousandth is more than one */
#define SLEEP_NS    (400 * RF_NS_PER_US)
#define MEASURE_NS  (1500 * RF_NS_PER_MS) /* whatever the sleeps take */
#define ENOUGH      1000                  /* fewer have no p99.9: then it is the worst */
#define MARGIN      2                     /* a second is no day */
#define ELECTION_MS 500                   /* of a machine without a configuration file */
#define DEADLINE_MS 1000
#define HEARTBEAT   100

typedef struct sleeper { /* on one CPU */
    unsigned cpu, n;
    uint64_t until_ns, late_ns[SLEEPS_MAX];
    pthread_t thread;
} sleeper_t;

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Which CPUs are looked at: of the node's, or of all, a few that lie apart. */
static unsigned choose_cpus(const doctor_t *doctor, unsigned *cpus)
{
    unsigned allowed[RF_CORES_PER_NODE_MAX], n = rf_cpu_allowed(allowed, RF_CORES_PER_NODE_MAX), chosen = 0;
    const rf_config_t *config = doctor->options->config;
    rf_node_t node = doctor->options->node;
    if (config && node < config->n_nodes && config->nodes[node].n_cores > 0) {
        n = config->nodes[node].n_cores;
        for (unsigned i = 0; i < n; i++) allowed[i] = config->nodes[node].cpus[i];
    }
    for (unsigned i = 0; i < CPUS_MAX && i < n; i++)
        cpus[chosen++] = allowed[n <= CPUS_MAX ? i : i * n / CPUS_MAX];
    return chosen;
}

static void *sleep_there(void *argument)
{
    sleeper_t *s = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(s->cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) return NULL;
    while (s->n < SLEEPS_MAX && rf_clock_ns() < s->until_ns) {
        struct timespec time = {.tv_nsec = (long)SLEEP_NS};
        uint64_t before = rf_clock_ns();
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) != 0) continue;
        uint64_t took = rf_clock_ns() - before;
        s->late_ns[s->n++] = took > SLEEP_NS ? took - SLEEP_NS : 0;
    }
    return NULL;
}

void doctor_judge_delays(doctor_t *doctor, uint64_t *late_ns, unsigned n)
{
    const rf_config_t *config = doctor->options->config;
    uint64_t election_ms = config ? config->election_ms : ELECTION_MS;
    uint64_t deadline_ms = config ? config->host_deadline_ms : DEADLINE_MS;
    uint64_t heartbeat_ms = config ? config->heartbeat_ms : HEARTBEAT;
    char mend[160];
    if (n == 0) {
        doctor_finding(doctor, RF_DOCTOR_NOTE, "look whether `status` shows elections and expulsions",
                       "how late this host lets processes run cannot be measured: no CPU can be chosen");
        return;
    }
    qsort(late_ns, n, sizeof *late_ns, compare);
    uint64_t worst_ns = late_ns[n - 1], often_ns = n < ENOUGH ? worst_ns : late_ns[n * 999ull / 1000];
    /* Silence is noticed up to a heartbeat before the deadline. */
    uint64_t spare_ms = deadline_ms > heartbeat_ms ? deadline_ms - heartbeat_ms : 1;
    const char *which = election_ms <= spare_ms ? "election_ms" : "host_deadline_ms less heartbeat_ms";
    if (election_ms < spare_ms) spare_ms = election_ms;
    uint64_t wanted_ns = MARGIN * often_ns > worst_ns ? MARGIN * often_ns : worst_ns;
    if (wanted_ns <= spare_ms * RF_NS_PER_MS) {
        doctor_good(doctor,
                    "of %u sleeps p99.9 end %.1f ms late or less, the worst %.1f ms; the shortest timeout, "
                    "%s, is %llu ms",
                    n, (double)often_ns / 1e6, (double)worst_ns / 1e6, which, (unsigned long long)spare_ms);
        return;
    }
    unsigned long long wanted_ms = (wanted_ns + RF_NS_PER_MS - 1) / RF_NS_PER_MS;
    snprintf(mend, sizeof mend,
             "write election_ms %llu and host_deadline_ms %llu or more, or give the machine CPUs of its own",
             wanted_ms, wanted_ms + (unsigned long long)heartbeat_ms);
    doctor_finding(doctor, RF_DOCTOR_NOTE, mend,
                   "who is due runs late: of %u sleeps p99.9 by up to %.1f ms, the worst by %.1f ms; %s is "
                   "%llu ms: leaders may be replaced, and cores expelled, that are alive",
                   n, (double)often_ns / 1e6, (double)worst_ns / 1e6, which, (unsigned long long)spare_ms);
}

void doctor_check_delays(doctor_t *doctor)
{
    unsigned cpus[CPUS_MAX], n_cpus = choose_cpus(doctor, cpus), n = 0;
    sleeper_t *sleepers = calloc(CPUS_MAX, sizeof *sleepers);
    uint64_t *late_ns = calloc((size_t)CPUS_MAX * SLEEPS_MAX, sizeof *late_ns);
    for (unsigned i = 0; i < n_cpus && sleepers && late_ns; i++) {
        sleeper_t *s = &sleepers[i];
        s->cpu = cpus[i];
        s->until_ns = rf_clock_ns() + MEASURE_NS;
        if (pthread_create(&s->thread, NULL, sleep_there, s) != 0) n_cpus = i;
    }
    for (unsigned i = 0; i < n_cpus && sleepers && late_ns; i++) {
        const sleeper_t *s = &sleepers[i];
        pthread_join(s->thread, NULL);
        for (unsigned k = 0; k < s->n; k++) late_ns[n++] = s->late_ns[k];
    }
    doctor_judge_delays(doctor, late_ns, n);
    free(late_ns);
    free(sleepers);
}
