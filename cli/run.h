/*
 * `run`: programs on cores of the machine, as if they were local.
 *
 *   run.c          options, what is forwarded, which cores
 *   run_session.c  the event loop: one control connection a core (a session), our streams, our signals
 *
 *   stdin --> source --> session (credit granted by its node) --> RunData
 *   RunData --> session's lines (only --all) --> sink --> stdout, stderr; credit goes back when the sink has drained
 */
#ifndef RF_CLI_RUN_H
#define RF_CLI_RUN_H

#include "cli/client.h"
#include "cli/executable.h"

#define RUN_CREDIT     (256u << 10) /* bytes of output that a lone session's node may send ahead */
#define RUN_CREDIT_ALL (64u << 10)  /* ... of each session when there are several */
#define RUN_SINK_MAX   (256u << 10) /* no credit is given back while a sink holds more */
#define RUN_LINE_MAX   (64u << 10)  /* longer lines are passed on in pieces */
#define RUN_DATA_MAX   (64u << 10)
#define RUN_HANG_UP_MS 500

typedef struct run_plan {
    Rackfish__RunStart start;       /* all but the core */
    const executable_file_t *files; /* what a node may ask for: the program, then its libraries */
    size_t n_files;
    const uint32_t *cores; /* --all; else NULL and one session */
    size_t n_cores;
    bool label, stdin_all, interactive; /* -l, --stdin all, -t */
} run_plan_t;

/* Runs it to its end. The exit status; when `*signo` is set, the command is to die by that signal. */
int run_sessions(const cli_t *cli, run_plan_t *plan, int *signo);

#endif
