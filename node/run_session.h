/*
 * A program that runs on a core of this node for a client (control.proto, RunStart and what follows): pipes or a terminal
 * towards the program, frames under credits towards the client, which may sit on another node.
 *
 *   PREPARING --shipped or nothing to ship--> SPAWNING --RunStarted--> RUNNING --ended and all output sent--> RunExit
 *
 * Each stream has its own credit, and a pipe is read only as far as the client takes more: a blocked stdout holds up neither
 * stderr nor signals nor stdin. A client that goes leaves the session hanging up: HUP, and KILL after RF_RUN_HANGUP_NS.
 */
#ifndef RF_NODE_RUN_SESSION_H
#define RF_NODE_RUN_SESSION_H

#include "node/control_server.h"

#define RF_RUN_PIECE        (64u << 10) /* bytes of one RunData */
#define RF_RUN_STDIN_CREDIT (1u << 20)
#define RF_RUN_HANGUP_NS    (5 * RF_NS_PER_S)

typedef struct rf_run rf_run_t;

/* Starts a session here, or relays it to the node that owns the core. `frame` is the request as it came. */
void rf_run_start(rf_client_t *client, uint64_t id, const Rackfish__RunStart *start, const uint8_t *frame,
                  size_t frame_size);

/* What the client of a session sends afterwards. */
void rf_run_request(rf_run_t *run, const Rackfish__ControlRequest *request);

/* The client takes more; the client is gone. */
void rf_run_client_room(rf_run_t *run);
void rf_run_client_gone(rf_run_t *run);

/* Ends all sessions without ceremony: this rackfishd is going. */
void rf_runs_close(rf_daemon_t *daemon);

#endif
