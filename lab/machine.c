/* One Rackfish machine of the guests. */
#include "lab/commands.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool has_module(const rf_lab_t *lab, const char *name)
{
    static const char *const folders[] = {"../modules", "../../../lib/rackfish"};
    for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[LAB_PATH_MAX * 2];
        snprintf(path, sizeof path, "%s/%s/rackfish-%s.so", lab->place.lib, folders[i], name);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

/* In a child: brings guest `g`'s node up. All wait for each other, and the first says what came of it. */
static int join_machine(const rf_lab_t *lab, unsigned g, unsigned hosts, const char *transport)
{
    char count[16], ports[16];
    snprintf(count, sizeof count, "%u", hosts);
    snprintf(ports, sizeof ports, "%u", lab->ports);
    const char *const words[] = {"/bin/sh",
                                 "-c",
                                 "exec /bin/sh \"$0/guest-machine.sh\" \"$@\"",
                                 lab->place.lib,
                                 count,
                                 transport,
                                 lab->driver,
                                 lab->one_sided ? "on" : "off",
                                 ports};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    if (g > 1) dup2(null, STDOUT_FILENO);
    return lab_run_in_guest(lab, g, LAB_BOOT_TIMEOUT_MS, words, 9);
}

int lab_command_machine(rf_lab_t *lab)
{
    char device[LAB_DEVICE_ROOM];
    unsigned hosts = lab_hosts_of(lab, device);
    if (!hosts) return LAB_NO_LAB;
    const char *own = lab_is_dpdk(device) ? "dpdk" : strcmp(device, "rxe") == 0 ? "rdma" : NULL;
    const char *transport = lab->transport ? lab->transport : own && has_module(lab, own) ? own : "tcp";
    pid_t children[LAB_HOSTS_MAX + 1];
    for (unsigned g = 1; g <= hosts; g++) {
        fflush(NULL);
        children[g] = fork();
        if (children[g] == 0) _exit(join_machine(lab, g, hosts, transport));
    }
    int status = LAB_OK;
    for (unsigned g = 1; g <= hosts; g++) {
        int ended = 0;
        if (children[g] > 0 && waitpid(children[g], &ended, 0) == children[g] && WIFEXITED(ended) &&
            WEXITSTATUS(ended) == 0)
            continue;
        status = lab_error("guest %u did not join the machine", g);
    }
    return status;
}
