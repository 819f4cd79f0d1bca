/* Ending a machine: for `down`, and for `up` and `bench` that tear down what they booted. */
#ifndef RF_CLI_DOWN_H
#define RF_CLI_DOWN_H

#include "cli/machine.h"

/* Ends the machine in `dir` and reports to stdout. An exit status. */
int down_machine(const cli_t *cli, const machine_dir_t *dir, uint64_t grace_ms, bool this_host);

#endif
