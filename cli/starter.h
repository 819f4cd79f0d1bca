/*
 * Starting rackfishds and following them until they are ready: child processes that write lines to a descriptor,
 *
 *   progress TEXT
 *   ready [NODE]
 *   error TEXT
 *
 * be it rackfishd itself (--ready-fd) or `rackfish up --relay` at the far end of ssh or srun. Anything else they say is
 * kept as their last words, for when they end without one of these.
 */
#ifndef RF_CLI_STARTER_H
#define RF_CLI_STARTER_H

#include "cli/cli.h"

#include <sys/types.h>

#define STARTER_TEXT_MAX 512

typedef enum starter_state { STARTER_WAITING, STARTER_READY, STARTER_FAILED } starter_state_t;

typedef struct starter {
    char name[RF_NAME_MAX]; /* of the node, or of the launcher */
    pid_t pid;
    int fd;            /* its lines; -1 closed */
    unsigned expected; /* how many "ready" make it ready: 1, or srun's tasks */
    starter_state_t state;
    char line[STARTER_TEXT_MAX]; /* being read */
    size_t used;
    char said[STARTER_TEXT_MAX]; /* progress, error or last words */
    char log[CLI_PATH_MAX];      /* where its reasons are; "" none */
} starter_t;

typedef struct starter_exec {
    const char *const *argv;
    int log_fd;         /* stderr; -1: into the line descriptor as well */
    int stdin_fd;       /* -1: /dev/null */
    int pass_fd;        /* kept open for the child; -1: none */
    int line_fd_target; /* descriptor number the child writes lines to; 1 for stdout */
} starter_exec_t;

/* Forks and executes in a session of its own. False with errno. */
bool starter_start(starter_t *starter, const starter_exec_t *exec);

/*
 * Follows all until each is ready, one failed, the deadline (CLOCK_MONOTONIC ns) passed or a signal came. `progress` is
 * called when something changed. CLI_OK, CLI_FAILED (with state and said set), CLI_TIMEOUT, or 128 + signal.
 */
int starter_follow(starter_t *starters, size_t n, uint64_t deadline_ns,
                   void (*progress)(const starter_t *starters, size_t n, void *context), void *context);

/* Blocks and collects INT, TERM, HUP and CHLD for starter_follow; call once, before the first starter_start. */
bool starter_signals(void);

#endif
