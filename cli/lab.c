/* lab: becomes rf-lab, with the same arguments. */
#include "cli/cli.h"
#include "cli/up.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_lab(cli_t *cli, int argc, char **argv)
{
    char program[CLI_PATH_MAX];
    if (!up_find_program(cli, "rf-lab", program, sizeof program)) return CLI_FAILED;
    char **arguments = calloc((size_t)argc + 1, sizeof *arguments);
    if (!arguments) return cli_error(cli, "out of memory");
    static char name[] = "rf-lab";
    arguments[0] = name;
    for (int i = 1; i < argc; i++) arguments[i] = argv[i];
    fflush(NULL);
    execv(program, arguments);
    free(arguments);
    return cli_error(cli, "cannot execute %s: %s", program, strerror(errno));
}
