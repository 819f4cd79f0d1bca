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
    {"short", 's', NULL, "fewer rounds, one line a bench"},
    {NULL, 0, NULL, NULL},
};

#define ARGUMENTS_MAX 64

/* Benches that run in or through a machine; the others bring up what they measure themselves. */
static bool needs_machine(const char *name)
{
    return strcmp(name, "lmp") == 0 || strcmp(name, "spawn") == 0 || strcmp(name, "channel") == 0;
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

int cli_bench(cli_t *cli, int argc, char **argv)
{
    bool is_short = false;
    for (int c; (c = cli_option_next(cli, argc, argv)) != CLI_OPTION_END;) {
        if (c == CLI_OPTION_STOP) return cli->status;
        is_short = true;
    }
    if (optind == argc) return cli_usage(cli, "which bench? `rackfish bench list` says what there is");
    if (argc - optind + 4 > ARGUMENTS_MAX) return cli_usage(cli, "more than %d arguments", ARGUMENTS_MAX - 4);
    char program[CLI_PATH_MAX], self[CLI_PATH_MAX], machine[RF_NAME_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0 || !up_find_program(cli, "rf-bench", program, sizeof program)) return CLI_FAILED;
    self[n] = '\0';
    bool own_machine = false;
    int status = CLI_OK;
    if (needs_machine(argv[optind]) && !cli->machine_chosen) {
        machine_dir_t dir;
        if (!machine_find(cli, &dir)) {
            snprintf(machine, sizeof machine, "bench-%d", (int)getpid());
            cli->machine = machine;
            own_machine = true;
            const char *const up[] = {"rackfish", "-m", machine, "up", "--nodes", "1", "--cores", "2", NULL};
            /* Ctrl-C ends the bench, which is in our process group too; we go on to take the machine down. */
            struct sigaction ignore = {.sa_handler = ignore_signal};
            sigaction(SIGINT, &ignore, NULL);
            sigaction(SIGTERM, &ignore, NULL);
            status = run_program(cli, self, up);
        }
    }
    if (status == CLI_OK) {
        const char *arguments[ARGUMENTS_MAX];
        size_t k = 0;
        arguments[k++] = "rf-bench";
        for (int i = optind; i < argc; i++) arguments[k++] = argv[i];
        if (is_short) arguments[k++] = "--short";
        if (cli->json) arguments[k++] = "--json";
        arguments[k] = NULL;
        setenv("RACKFISH_MACHINE", cli->machine, 1);
        status = run_program(cli, program, arguments);
    }
    if (own_machine) {
        const char *const down[] = {"rackfish", "-m", machine, "down", NULL};
        int down_status = run_program(cli, self, down);
        status = status == CLI_OK ? down_status : status;
    }
    return status;
}
