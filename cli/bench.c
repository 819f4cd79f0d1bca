/* bench: runs rf-bench, and boots a machine of its own for it when it needs one and none is up. */
#include "cli/cli.h"
#include "cli/up.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

const cli_option_t cli_bench_options[] = {
    {"short", 's', NULL, "instead of a name: a short tour of what matters most"},
    {NULL, 0, NULL, NULL},
};

#define ARGUMENTS_MAX 64

/* What `bench --short` runs: one after the other, in one machine. */
static const char *const short_tour[][12] = {
    {"urpc", "--slots", "64", "--batch", "64", "--samples", "1000", "--tries", "1", "one-way", "rate"},
    {"link", "--transport", "tcp", "--samples", "500", "--tries", "1", "one-way"},
    {"lmp", "--samples", "1000", "--tries", "1"},
    {"channel", "--samples", "500", "--tries", "1", "one-way"},
    {"spawn", "--samples", "20", "--tries", "1"},
};
#define SHORT_TOUR (sizeof short_tour / sizeof short_tour[0])

/* Benches that run in a machine, and the short look at all of them (NULL); the others bring up what they measure. */
static bool needs_machine(const char *name)
{
    return !name || strcmp(name, "lmp") == 0 || strcmp(name, "spawn") == 0 || strcmp(name, "channel") == 0;
}

/* Runs a program to its end; its exit status, 128 + N for a signal. */
static int run_program(const cli_t *cli, const char *path, const char *const *argv)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        execv(path, (char **)(uintptr_t)argv);
        fprintf(stderr, "rackfish: cannot execute %s: %s\n", path, strerror(errno));
        _exit(CLI_FAILED);
    }
    int status;
    if (child < 0) return cli_error(cli, "fork: %s", strerror(errno));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void ignore_signal(int signo)
{
    (void)signo;
}

/* One bench with its arguments, NULL at the end. */
static int run_bench(const cli_t *cli, const char *program, const char *const *words)
{
    const char *arguments[ARGUMENTS_MAX];
    size_t k = 0;
    arguments[k++] = "rf-bench";
    if (cli->json) arguments[k++] = "--json";
    for (size_t i = 0; words[i] && k + 1 < ARGUMENTS_MAX; i++) arguments[k++] = words[i];
    arguments[k] = NULL;
    return run_program(cli, program, arguments);
}

static int run_short_tour(const cli_t *cli, const char *program)
{
    int status = CLI_OK;
    for (size_t i = 0; i < SHORT_TOUR; i++) {
        int ended = run_bench(cli, program, short_tour[i]);
        if (ended != CLI_OK && status == CLI_OK) status = ended;
    }
    return status;
}

/* Boots a machine for the bench; its name goes into `name` (RF_NAME_MAX bytes). */
static int own_machine_up(cli_t *cli, const char *self, char *name)
{
    snprintf(name, RF_NAME_MAX, "bench-%d", (int)getpid());
    cli->machine = name;
    const char *const up[] = {"rackfish", "-m", name, "up", "--nodes", "1", "--cores", "2", NULL};
    /* Ctrl-C ends the bench, which is in our process group too; we go on to take the machine down. */
    struct sigaction ignore = {.sa_handler = ignore_signal};
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGTERM, &ignore, NULL);
    return run_program(cli, self, up);
}

int cli_bench(cli_t *cli, int argc, char **argv)
{
    bool is_short = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        is_short = true;
    }
    bool tour = is_short && optind == argc;
    if (is_short && !tour) return cli_usage(cli, "--short is the tour of all benches and takes no name");
    if (!tour && optind == argc)
        return cli_usage(cli, "which bench? `rackfish bench list` says what there is");
    if (argc - optind + 4 > ARGUMENTS_MAX) return cli_usage(cli, "more than %d arguments", ARGUMENTS_MAX - 4);
    char program[CLI_PATH_MAX], self[CLI_PATH_MAX], machine[RF_NAME_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || !up_find_program(cli, "rf-bench", program, sizeof program)) return CLI_FAILED;
    self[n] = '\0';
    bool own_machine = false;
    int status = CLI_OK;
    machine_dir_t dir;
    if ((tour || needs_machine(argv[optind])) && !cli->machine_chosen && !machine_find(cli, &dir)) {
        own_machine = true;
        status = own_machine_up(cli, self, machine);
    }
    if (status == CLI_OK) {
        setenv("RACKFISH_MACHINE", cli->machine, 1);
        status = tour ? run_short_tour(cli, program)
                      : run_bench(cli, program, (const char *const *)(uintptr_t)(argv + optind));
    }
    if (own_machine) {
        const char *const down[] = {"rackfish", "-m", machine, "down", NULL};
        int down_status = run_program(cli, self, down);
        status = status == CLI_OK ? down_status : status;
    }
    return status;
}
