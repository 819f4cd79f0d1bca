/* The wires below links over DPDK by themselves: becomes rf-dpdk-bounce, which is built where DPDK is installed. */
#include "bench.h"
#include "benches.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#define ARGUMENTS_MAX 16
#define NUMBERS_MAX   4

static rf_err_t run(const bench_options_t *options)
{
    char self[PATH_MAX / 2], program[PATH_MAX], numbers[NUMBERS_MAX][32];
    const char *arguments[ARGUMENTS_MAX] = {"rf-dpdk-bounce"};
    unsigned n = 1, k = 0;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return RF_ERR_OS;
    self[length] = 0;
    snprintf(program, sizeof program, "%s/rf-dpdk-bounce", dirname(self));
    if (access(program, X_OK) < 0) {
        fprintf(stderr, "rf-bench dpdk: built without DPDK; install libdpdk-dev and build Rackfish again\n");
        return RF_ERR_NOT_SUPPORTED;
    }
    snprintf(numbers[k], sizeof numbers[k], "--cores=%u,%u", options->cores[0], options->cores[1]);
    arguments[n++] = numbers[k++];
    snprintf(numbers[k], sizeof numbers[k], "--tries=%u", options->tries);
    arguments[n++] = numbers[k++];
    if (options->samples) {
        snprintf(numbers[k], sizeof numbers[k], "--samples=%u", options->samples);
        arguments[n++] = numbers[k++];
    }
    if (options->format == BENCH_JSON) arguments[n++] = "--json";
    for (int i = 0; i < options->argc && n + 1 < ARGUMENTS_MAX; i++) arguments[n++] = options->argv[i];
    fflush(NULL);
    execv(program, (char **)(uintptr_t)arguments);
    fprintf(stderr, "rf-bench dpdk: cannot execute %s: %s\n", program, strerror(errno));
    return RF_ERR_OS;
}

const bench_t bench_dpdk = {"dpdk", "bare DPDK ports and kernel sockets: what lies below links over DPDK",
                            run};
