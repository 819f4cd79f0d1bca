/* Asking for, and showing, the machine's lists: shared by the commands of show.c, by `up` and by `top`. */
#ifndef RF_CLI_SHOW_H
#define RF_CLI_SHOW_H

#include "cli/client.h"

/* Sends the empty request of `kind` (RACKFISH__CONTROL_REQUEST__KIND_STATUS, ...) and checks that the answer is of
 * `reply_kind`. As client_ask otherwise. */
int show_ask(const cli_t *cli, client_t *client, Rackfish__ControlRequest__KindCase kind,
             Rackfish__ControlReply__KindCase reply_kind, reply_t **reply);

/* Asks for the resources in use, and puts the names of programs to them, which a core's CPU driver does not know. */
int show_ask_resources(const cli_t *cli, client_t *client, reply_t **reply);

/* `status --resources`; exit status. */
int show_holdings(cli_t *cli);

/* "0-7,12" in the caller's buffer, returned. */
const char *show_ranges(char *buffer, size_t max, const uint32_t *numbers, size_t n);

#endif
