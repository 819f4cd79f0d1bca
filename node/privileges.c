#include "node/privileges.h"

#include "cluster-config/doctor.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

/* Given on to CPU drivers, which become users, limit, schedule and contain what they start. */
static const int given_on[] = {CAP_SETUID,   CAP_SETGID,    CAP_KILL,
                               CAP_SYS_NICE, CAP_SYS_ADMIN, CAP_SYS_RESOURCE};

/* rackfishd's alone: terminals and private libraries become their user's; the run directory, in a folder of root's, is
 * cleaned up; the configuration is read again. */
static const int kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER};

/* Lent to the link driver: packet and XDP sockets; locked memory and a device's registers. */
static const int lent_to_socket[] = {CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN, CAP_IPC_LOCK};
static const int lent_to_device[] = {CAP_IPC_LOCK, CAP_SYS_RAWIO, CAP_SYS_ADMIN, CAP_DAC_OVERRIDE};
static const int lent_to_packet[] = {CAP_NET_RAW, CAP_NET_ADMIN}; /* the port sets the MTU of its interface */

bool rf_user_name(uid_t uid, char out[RF_USER_MAX])
{
    const struct passwd *user = getpwuid(uid);
    if (!user || strlen(user->pw_name) >= RF_USER_MAX) return false;
    snprintf(out, RF_USER_MAX, "%s", user->pw_name);
    return true;
}

rf_err_t rf_privileges_find(rf_daemon_t *daemon, char *error, size_t error_max)
{
    daemon->privileged = geteuid() == 0;
    daemon->owner_uid = getuid();
    if (!rf_user_name(daemon->owner_uid, daemon->owner))
        snprintf(daemon->owner, sizeof daemon->owner, "%u", (unsigned)daemon->owner_uid);
    daemon->system_uid = geteuid();
    daemon->system_gid = getegid();
    if (!daemon->privileged) return RF_OK;
    const struct passwd *user = getpwnam(RF_SYSTEM_USER);
    if (!user) {
        snprintf(error, error_max,
                 "there is no user %s for the system's processes; make one with: useradd --system "
                 "--no-create-home "
                 "--shell /usr/sbin/nologin " RF_SYSTEM_USER,
                 RF_SYSTEM_USER);
        return RF_ERR_CONFIG;
    }
    char closed[128];
    if (!rf_doctor_reachable(daemon->libexec_dir, closed, sizeof closed)) {
        snprintf(error, error_max,
                 "the programs in %s cannot be reached by the user " RF_SYSTEM_USER
                 ": %s is closed to others; install "
                 "them where everybody may go, with cmake --install",
                 daemon->libexec_dir, closed);
        return RF_ERR_CONFIG;
    }
    daemon->system_uid = user->pw_uid;
    daemon->system_gid = user->pw_gid;
    return RF_OK;
}

static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static bool hold(capng_type_t sets, const int *capabilities, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* In a container some are missing from the start: what needs them says so when it comes to it. */
        if (prctl(PR_CAPBSET_READ, capabilities[i]) != 1) continue;
        if (capng_update(CAPNG_ADD, sets, (unsigned)capabilities[i]) < 0) return false;
    }
    return true;
}

rf_err_t rf_privileges_drop(rf_daemon_t *daemon, char *error, size_t error_max)
{
    raise_descriptors();
    if (daemon->privileged) {
        capng_clear(CAPNG_SELECT_CAPS);
        capng_type_t lent = CAPNG_PERMITTED | CAPNG_INHERITABLE;
        if (!hold(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE, given_on,
                  sizeof given_on / sizeof given_on[0]) ||
            (daemon->config->nodes[daemon->node].n_dpdk > 0 &&
             (!hold(lent, lent_to_socket, sizeof lent_to_socket / sizeof lent_to_socket[0]) ||
              !hold(lent, lent_to_device, sizeof lent_to_device / sizeof lent_to_device[0]))) ||
            !hold(CAPNG_EFFECTIVE | CAPNG_PERMITTED, kept, sizeof kept / sizeof kept[0])) {
            snprintf(error, error_max, "capabilities could not be chosen");
            return RF_ERR_OS;
        }
        int failed = capng_change_id((int)daemon->system_uid, (int)daemon->system_gid, CAPNG_DROP_SUPP_GRP);
        if (failed) {
            snprintf(error, error_max, "cannot become user %s (step %d): %s", RF_SYSTEM_USER, failed,
                     strerror(errno));
            return RF_ERR_OS;
        }
        rf_privileges_lend(daemon, NULL);
    }
    if (prctl(PR_SET_DUMPABLE, 0) < 0) {
        snprintf(error, error_max, "cannot become undumpable: %s", strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}

static void ambient(const int *capabilities, size_t n)
{
    for (size_t i = 0; i < n; i++) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capabilities[i], 0, 0);
}

void rf_privileges_lend(const rf_daemon_t *daemon, const char *device)
{
    if (!daemon->privileged) return;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (!device)
        ambient(given_on, sizeof given_on / sizeof given_on[0]);
    else if (strncmp(device, "net_af_packet", 13) == 0)
        ambient(lent_to_packet, sizeof lent_to_packet / sizeof lent_to_packet[0]);
    else if (strncmp(device, "net_", 4) == 0)
        ambient(lent_to_socket, sizeof lent_to_socket / sizeof lent_to_socket[0]);
    else
        ambient(lent_to_device, sizeof lent_to_device / sizeof lent_to_device[0]);
}
