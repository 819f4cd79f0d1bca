/* Which kernel guests with RDMA devices have. */
#include "lab/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

/* Runs a script that says on stderr what it does and on stdout where the kernel is. */
static int run_script(const lab_place_t *place, const char *name, char *kernel, size_t max)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0) return lab_error("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        char script[LAB_PATH_MAX + 16];
        dup2(out[1], STDOUT_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        snprintf(script, sizeof script, "%s/%s", place->lib, name);
        execl(script, name, "build", (char *)NULL);
        lab_error("%s: %s", script, strerror(errno));
        _exit(LAB_FAILED);
    }
    close(out[1]);
    size_t used = 0;
    for (ssize_t n; used + 1 < max && (n = read(out[0], kernel + used, max - 1 - used)) != 0;) {
        if (n > 0) used += (size_t)n;
        if (n < 0 && errno != EINTR) break;
    }
    close(out[0]);
    kernel[used] = '\0';
    kernel[strcspn(kernel, "\n")] = '\0';
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return LAB_FAILED;
    if (WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
    return access(kernel, X_OK) == 0 ? LAB_OK : lab_error("%s made no kernel", name);
}

int lab_find_kernel(const rf_lab_t *lab, char *kernel, size_t max)
{
    bool stock = lab->kernel && strcmp(lab->kernel, "stock") == 0;
    int status = stock ? LAB_SKIPPED : run_script(&lab->place, "kernel.sh", kernel, max);
    if (status != LAB_SKIPPED || (lab->kernel && !stock)) return status;
    if (!stock) lab_error("no kernel can be built here; trying Debian's own, in QEMU");
    if (strcmp(lab->options.device, "siw") == 0 || strcmp(lab->options.device, "both") == 0) {
        lab_error("Debian's kernel has no soft-iWARP; --device rxe");
        return LAB_SKIPPED;
    }
    return run_script(&lab->place, "stock-kernel.sh", kernel, max);
}

int lab_command_kernel(rf_lab_t *lab)
{
    char kernel[LAB_PATH_MAX];
    int status = lab_find_kernel(lab, kernel, sizeof kernel);
    if (status == LAB_OK) puts(kernel);
    return status;
}
