/* The table of checks, and what a configuration needs of its host. */
#include "cluster-config/doctor_internal.h"

#include "base/clock.h"
#include "base/os.h"

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define ATTEMPT_TIMEOUT_MS 5000

/* What one process of a node holds open, besides its links: log, boot block, epoll, doorbell, timers, listener. */
#define FILES_BASE         24
#define FILES_PER_SHM_LINK 3 /* side socket, the peer's doorbell, its pidfd */
#define FILES_PER_TCP_LINK 2
#define FILES_PER_DOMAIN   8   /* rackfishd: pipes or terminal, session, pidfd */
#define DOMAINS_ALLOWED    256 /* at a time on one node, for this estimate */

/* An shm link at its first size, both ends: two heads of 4 KiB and two rings of 64 slots of 64 bytes. */
#define BYTES_PER_SHM_LINK (2 * (4096 + 64 * 64))

static const struct {
    const char *name;
    doctor_check_fn run;
} checks[] = {
    {"kernel", doctor_check_kernel},
    {"cpus", doctor_check_cpus},
    {"clock", doctor_check_clock},
    {"delays", doctor_check_delays},
    {"memory", doctor_check_memory},
    {"files", doctor_check_files},
    {"processes", doctor_check_processes},
    {"memlock", doctor_check_memlock},
    {"hugepages", doctor_check_hugepages},
    {"rdma", doctor_check_rdma},
    {"mtu", doctor_check_mtu},
    {"dpdk", doctor_check_dpdk},
    {"user", doctor_check_user},
    {"capabilities", doctor_check_capabilities},
    {"isolation", doctor_check_isolation},
    {"cgroup", doctor_check_cgroup},
    {"realtime", doctor_check_realtime},
    {"run-dir", doctor_check_run_dir},
    {"programs", doctor_check_programs},
    {"node", doctor_check_node},
    {"key", doctor_check_key},
    {"hosts", doctor_check_hosts},
    {"ports", doctor_check_ports},
    {"transports", doctor_check_transports},
    {"voters", doctor_check_voters},
    {"plan", doctor_check_plan},
    {"lanes", doctor_check_lanes},
    {"leases", doctor_check_leases},
    {"links", doctor_check_links},
};

static void finding_add(doctor_t *doctor, rf_doctor_severity_t severity, const char *mend, const char *format,
                        va_list args)
{
    rf_doctor_report_t *report = doctor->report;
    if (report->n == RF_DOCTOR_FINDINGS_MAX) return;
    rf_doctor_finding_t *finding = &report->findings[report->n++];
    finding->severity = severity;
    snprintf(finding->check, sizeof finding->check, "%s", doctor->check);
    vsnprintf(finding->what, sizeof finding->what, format, args);
    snprintf(finding->mend, sizeof finding->mend, "%s", mend);
}

void doctor_good(doctor_t *doctor, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    finding_add(doctor, RF_DOCTOR_GOOD, "", format, args);
    va_end(args);
}

void doctor_finding(doctor_t *doctor, rf_doctor_severity_t severity, const char *mend, const char *format,
                    ...)
{
    va_list args;
    va_start(args, format);
    finding_add(doctor, severity, mend, format, args);
    va_end(args);
}

int doctor_try(int (*attempt)(void))
{
    pid_t pid = fork();
    if (pid < 0) return -1;
    if (pid == 0) _exit(attempt());
    int pidfd = rf_process_open(pid, 0), status = 0;
    if (pidfd >= 0) {
        if (rf_process_wait_dead(pidfd, ATTEMPT_TIMEOUT_MS) != RF_OK) kill(pid, SIGKILL);
        close(pidfd);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return -1;
    return WEXITSTATUS(status);
}

static const rf_doctor_need_t need_of_default = {
    .files_per_process = FILES_BASE + 8 * FILES_PER_SHM_LINK + DOMAINS_ALLOWED * FILES_PER_DOMAIN,
    .files_all =
        2 * (FILES_BASE + DOMAINS_ALLOWED * FILES_PER_DOMAIN) + 8 * (FILES_BASE + 8 * FILES_PER_SHM_LINK),
    .processes = 2 + 2 * 4,
    .memory_bytes = 2 * 5 * BYTES_PER_SHM_LINK,
};

void rf_doctor_need(const rf_config_t *config, rf_node_t node, rf_doctor_need_t *need)
{
    if (!config || config->n_nodes == 0) {
        *need = need_of_default;
        return;
    }
    *need = (rf_doctor_need_t){0};
    for (rf_node_t i = 0; i < config->n_nodes; i++) {
        /* Emulated nodes are all here; else only ours, or the largest when ours is not known. */
        if (!config->emulated && node != RF_NODE_NONE && i != node) continue;
        uint64_t cores = config->nodes[i].n_cores ? config->nodes[i].n_cores : RF_CORES_PER_NODE_MAX;
        uint64_t far_cores = config->n_cores > cores ? config->n_cores - cores : 0;
        uint64_t far =
            far_cores > config->n_nodes ? far_cores : config->n_nodes; /* of core 0, and of a gateway */
        uint64_t monitor = FILES_BASE + (cores + 1) * FILES_PER_SHM_LINK + far * FILES_PER_TCP_LINK;
        uint64_t daemon = FILES_BASE + cores * (FILES_PER_SHM_LINK + 2) +
                          config->n_nodes * FILES_PER_TCP_LINK + DOMAINS_ALLOWED * FILES_PER_DOMAIN;
        uint64_t links = cores * (cores - 1) / 2 + 2 * cores;
        uint64_t largest = monitor > daemon ? monitor : daemon;
        uint64_t files = daemon + cores * (monitor + FILES_BASE + FILES_PER_SHM_LINK);
        if (!config->emulated && node == RF_NODE_NONE && files <= need->files_all) continue;
        uint64_t before = config->emulated ? 1 : 0;
        need->files_per_process = need->files_per_process > largest ? need->files_per_process : largest;
        need->files_all = before * need->files_all + files;
        need->processes = before * need->processes + 1 + 2 * cores + config->nodes[i].n_dpdk;
        need->memory_bytes = before * need->memory_bytes + links * BYTES_PER_SHM_LINK;
    }
}

static bool is_asked_for(const rf_doctor_options_t *options, const char *check)
{
    for (unsigned i = 0; options->only && options->only[i]; i++) {
        if (strcmp(options->only[i], check) == 0) return true;
    }
    return !options->only;
}

void rf_doctor_run(const rf_doctor_options_t *options, rf_doctor_report_t *report)
{
    report->n = 0;
    doctor_t doctor = {.options = options, .report = report, .root = geteuid() == 0};
    for (unsigned i = 0; i < sizeof checks / sizeof *checks; i++) {
        doctor.check = checks[i].name;
        if (is_asked_for(options, doctor.check)) checks[i].run(&doctor);
    }
}

rf_doctor_severity_t rf_doctor_worst(const rf_doctor_report_t *report)
{
    rf_doctor_severity_t worst = RF_DOCTOR_GOOD;
    for (unsigned i = 0; i < report->n; i++) {
        if (report->findings[i].severity > worst) worst = report->findings[i].severity;
    }
    return worst;
}
