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
        if (!hold(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_INHERITABLE, given_on,
                  sizeof given_on / sizeof given_on[0]) ||
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
        for (size_t i = 0; i < sizeof given_on / sizeof given_on[0]; i++)
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, given_on[i], 0, 0);
    }
    if (prctl(PR_SET_DUMPABLE, 0) < 0) {
        snprintf(error, error_max, "cannot become undumpable: %s", strerror(errno));
        return RF_ERR_OS;
    }
    return RF_OK;
}
