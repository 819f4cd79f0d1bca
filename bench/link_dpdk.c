#include "link_dpdk.h"

#include "folder.h"

#include "base/clock.h"

#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS  30000
#define WORDS_MAX 12

static bench_folder_t folder;
static char media[2][80]; /* "driver=", and the driver's socket */
static pid_t pids[2];

static bool beside(const char *program, char out[PATH_MAX])
{
    char self[PATH_MAX / 2];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0) return false;
    self[length] = 0;
    snprintf(out, PATH_MAX, "%s/%s", dirname(self), program);
    if (access(out, X_OK) == 0) return true;
    fprintf(stderr, "rf-bench link: %s is not there; install libdpdk-dev and build Rackfish again\n", out);
    return false;
}

static bool start_one(const char *program, unsigned side)
{
    char device[128], address[32], ready_text[16], socket[64], byte;
    int ready[2];
    snprintf(socket, sizeof socket, "%s/%u.sock", folder.path, side);
    snprintf(media[side], sizeof media[side], "driver=%s", socket);
    snprintf(address, sizeof address, "10.255.1.%u/24", side + 1);
    snprintf(device, sizeof device,
             side ? "net_virtio_user0,path=%s/wire,mac=02:00:00:ff:01:02,queues=1,queue_size=256"
                  : "net_vhost0,iface=%s/wire,queues=1",
             folder.path);
    if (pipe(ready) != 0) return false;
    snprintf(ready_text, sizeof ready_text, "%d", ready[1]);
    pids[side] = fork();
    if (pids[side] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("RACKFISH_LOG", "error", 0); /* a bench's figures stand alone, unless it is asked for more */
        execl(program, "rackfish-dpdk", "--socket", socket, "--device", device, "--address", address,
              "--ready-fd", ready_text, NULL);
        _exit(127);
    }
    close(ready[1]);
    struct pollfd fd = {.fd = ready[0], .events = POLLIN};
    bool up = pids[side] > 0 && poll(&fd, 1, START_MS) == 1 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    return up;
}

bool link_dpdk_start(void)
{
    char program[PATH_MAX];
    if (!beside("rackfish-dpdk", program) || !bench_folder_make(&folder, "rf-link-")) return false;
    bool up = start_one(program, 0) && start_one(program, 1);
    if (up) {
        fprintf(stderr, "rf-bench link: two link drivers are up; measuring\n");
    } else {
        fprintf(stderr, "rf-bench link: a link driver does not start; RACKFISH_LOG=info says what it does\n");
        link_dpdk_stop();
    }
    return up;
}

void link_dpdk_stop(void)
{
    for (unsigned side = 2; side-- > 0;) { /* virtio_user does not bear the end of vhost */
        if (pids[side] <= 0) continue;
        kill(pids[side], SIGTERM);
        waitpid(pids[side], NULL, 0);
        pids[side] = 0;
    }
    bench_folder_remove(&folder);
}

const char *link_dpdk_medium(unsigned side)
{
    return media[side];
}

/* A bench's standard output; NULL: it cannot be started. The last of `words` is NULL. */
static FILE *bench_start(const char *program, const char *const *words, pid_t *pid)
{
    char path[PATH_MAX];
    const char *arguments[WORDS_MAX + 1] = {program};
    int out[2];
    for (unsigned i = 0; words[i] && i + 2 < WORDS_MAX; i++) arguments[i + 1] = words[i];
    if (!beside(program, path) || pipe(out) != 0) return NULL;
    *pid = fork();
    if (*pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execv(path, (char **)(uintptr_t)arguments);
        _exit(127);
    }
    close(out[1]);
    FILE *file = *pid > 0 ? fdopen(out[0], "r") : NULL;
    if (!file) close(out[0]);
    return file;
}

/* The p50 of the last line of a bench that has `what` in it; 0: it failed. */
static double bench_p50(const char *program, const char *const *words, const char *what)
{
    char line[1024];
    pid_t pid;
    FILE *out = bench_start(program, words, &pid);
    if (!out) return 0;
    double p50 = 0;
    while (fgets(line, sizeof line, out)) {
        const char *at = strstr(line, what) ? strstr(line, "\"p50\":") : NULL;
        if (at) p50 = strtod(at + strlen("\"p50\":"), NULL);
    }
    int status = -1;
    fclose(out);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? p50 : 0;
}

static bool keep(bench_samples_t *raw, double p50)
{
    raw->n = 0;
    if (p50 > 0) bench_samples_add(raw, p50);
    return p50 > 0;
}

bool link_dpdk_bounce(const bench_options_t *options, const char *piece, bench_samples_t *raw)
{
    char cores[32], samples[32];
    const char *words[] = {cores, samples, "--tries=1", "--json", piece, "virtio", NULL};
    snprintf(cores, sizeof cores, "--cores=%u,%u", options->cores[0], options->cores[1]);
    snprintf(samples, sizeof samples, "--samples=%u", raw->max);
    return keep(raw, bench_p50("rf-dpdk-bounce", words, "")); /* the last of a rate: frames of 16 messages */
}

bool link_dpdk_parts(const bench_options_t *options, bench_samples_t *raw)
{
    char cores[32], samples[32];
    const char *driver[] = {cores, samples, "--tries=1", "--json", "driver", "one-way", "virtio", NULL};
    const char *urpc[] = {cores,       samples, "--tries=1", "--json", "--slots=64",
                          "--batch=1", "urpc",  "one-way",   NULL};
    snprintf(cores, sizeof cores, "--cores=%u,%u", options->cores[0], options->cores[1]);
    snprintf(samples, sizeof samples, "--samples=%u", raw->max);
    double between = bench_p50("rf-dpdk-bounce", driver, "driver one-way signed");
    double beside_it = bench_p50("rf-bench", urpc, "\"one-way\"");
    return keep(raw, between > 0 && beside_it > 0 ? between + 2 * beside_it : 0);
}
