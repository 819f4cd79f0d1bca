/*
 * How late this monitor runs when it is due: from when it asked for the time to the first step from then on. Timeouts that do not
 * exceed it take who is alive for dead, so it is shown, and warned of. Nothing is done for it while nothing is due.
 */
#include "monitor/state.h"

#define SPAN    16384 /* of which it is the p99.9; then anew */
#define ENOUGH  1000  /* fewer have no p99.9: it is the worst, and nobody is warned */
#define LOOK_AT 128   /* between looks at what they come to */

/* The shortest silence that is taken for a death. */
static uint64_t timeout_ns(const rf_boot_t *boot)
{
    uint64_t spare_ms =
        boot->host_deadline_ms > boot->heartbeat_ms ? boot->host_deadline_ms - boot->heartbeat_ms : 1;
    return (boot->election_ms < spare_ms ? boot->election_ms : spare_ms) * RF_NS_PER_MS;
}

static void look(monitor_t *m)
{
    lateness_t *l = &m->lateness;
    const uint64_t limit_ns = timeout_ns(m->boot) / 2;
    if (l->samples.count < ENOUGH) return;
    l->often_ns = rf_histogram_percentile(&l->samples, 99.9);
    if (l->often_ns > limit_ns && !l->warned)
        out_log(m, RF_LOG_WARN,
                "this monitor runs late when it is due: of %u times p99.9 by up to %.1f ms, more than half "
                "of the "
                "shortest timeout, %.0f ms; raise election_ms and host_deadline_ms, or give it more of a CPU",
                (unsigned)l->samples.count, (double)l->often_ns / 1e6, (double)limit_ns / 5e5);
    l->warned = l->often_ns > limit_ns;
    if (l->samples.count >= SPAN) rf_histogram_reset(&l->samples);
}

void lateness_note(monitor_t *m, uint64_t due_ns)
{
    lateness_t *l = &m->lateness;
    const uint64_t late_ns = m->now_ns - due_ns;
    rf_histogram_add(&l->samples, late_ns);
    if (late_ns > l->worst_ns) l->worst_ns = late_ns;
    if (l->samples.count % LOOK_AT == 0) look(m);
}

uint64_t lateness_often_ns(const monitor_t *m)
{
    return m->lateness.often_ns > 0 ? m->lateness.often_ns : m->lateness.worst_ns;
}
