/* sim: becomes rf-sim, the simulator, with the same arguments. */
#include "cli/cli.h"
#include "cli/up.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_sim(cli_t *cli, int argc, char **argv)
{
    char program[CLI_PATH_MAX];
    if (!up_find_program(cli, "rf-sim", program, sizeof program)) return CLI_FAILED;
    char **arguments = calloc((size_t)argc + 2, sizeof *arguments);
    if (!arguments) return cli_error(cli, "out of memory");
    static char name[] = "rf-sim", json[] = "--json";
    size_t n = 0;
    arguments[n++] = name;
    if (cli->json) arguments[n++] = json;
    for (int i = 1; i < argc; i++) arguments[n++] = argv[i];
    fflush(NULL);
    execv(program, arguments);
    free(arguments);
    return cli_error(cli, "cannot execute %s: %s", program, strerror(errno));
}
