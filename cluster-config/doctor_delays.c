/* How late this host lets a process run that is due: what the timeouts of the machine must exceed. */
#include "cluster-config/doctor_internal.h"

#include "base/clock.h"
#include "base/os.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define CPUS_MAX    4
#define SLEEPS_MAX  600
#define SLEEP_NS    RF_NS_PER_MS
#define MEASURE_NS  (900 * RF_NS_PER_MS) /* all CPUs together, whatever the sleeps take */
#define MARGIN      2                    /* a second is no day */
#define ELECTION_MS 500                  /* of a machine without a configuration file */
#define DEADLINE_MS 1000
#define HEARTBEAT   100

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

static unsigned sleep_on(unsigned cpu, unsigned sleeps, uint64_t until_ns, uint64_t *late_ns)
{
    cpu_set_t set;
    unsigned n = 0;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) return 0;
    for (; n < sleeps && rf_clock_ns() < until_ns; n++) {
        struct timespec time = {.tv_nsec = (long)SLEEP_NS};
        uint64_t before = rf_clock_ns();
        while (clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &time) != 0) continue;
        uint64_t took = rf_clock_ns() - before;
        late_ns[n] = took > SLEEP_NS ? took - SLEEP_NS : 0;
    }
    return n;
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
    uint64_t worst_ns = late_ns[n - 1], often_ns = late_ns[n * 999ull / 1000];
    /* Silence is noticed up to a heartbeat before the deadline. */
    uint64_t spare_ms = deadline_ms > heartbeat_ms ? deadline_ms - heartbeat_ms : 1;
    const char *which = election_ms <= spare_ms ? "election_ms" : "host_deadline_ms less heartbeat_ms";
    if (election_ms < spare_ms) spare_ms = election_ms;
    if (MARGIN * worst_ns <= spare_ms * RF_NS_PER_MS) {
        doctor_good(
            doctor,
            "who is due runs at most %.1f ms late (p99.9 %.1f ms, of %u sleeps); the shortest timeout, %s, "
            "is %llu ms",
            (double)worst_ns / 1e6, (double)often_ns / 1e6, n, which, (unsigned long long)spare_ms);
        return;
    }
    unsigned long long wanted_ms = (MARGIN * worst_ns + RF_NS_PER_MS - 1) / RF_NS_PER_MS;
    snprintf(mend, sizeof mend,
             "write election_ms %llu and host_deadline_ms %llu or more, or give the machine CPUs of its own",
             wanted_ms, wanted_ms + (unsigned long long)heartbeat_ms);
    doctor_finding(
        doctor, RF_DOCTOR_NOTE, mend,
        "who is due runs up to %.1f ms late (p99.9 %.1f ms, of %u sleeps), more than half of %s, %llu ms: "
        "leaders may be replaced, and cores expelled, that are alive",
        (double)worst_ns / 1e6, (double)often_ns / 1e6, n, which, (unsigned long long)spare_ms);
}

void doctor_check_delays(doctor_t *doctor)
{
    unsigned cpus[CPUS_MAX], n_cpus = choose_cpus(doctor, cpus), n = 0;
    uint64_t late_ns[SLEEPS_MAX], start_ns = rf_clock_ns();
    cpu_set_t was;
    bool known = sched_getaffinity(0, sizeof was, &was) == 0;
    for (unsigned i = 0; known && i < n_cpus; i++)
        n += sleep_on(cpus[i], SLEEPS_MAX / n_cpus, start_ns + (i + 1) * MEASURE_NS / n_cpus, late_ns + n);
    if (known) sched_setaffinity(0, sizeof was, &was);
    doctor_judge_delays(doctor, late_ns, n);
}
