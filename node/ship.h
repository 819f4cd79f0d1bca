/*
 * Files that a program brings from another host: its executable, and with --with-libs its libraries. What this host has with
 * the same SHA-256 at the same path is used as it is; the rest is asked of the client and received into a sealed memory object
 * (the executable) and a private folder of the user (libraries), which lives as long as the program.
 */
#ifndef RF_NODE_SHIP_H
#define RF_NODE_SHIP_H

#include "node/daemon.h"
#include "node/proto.h"

#define RF_SHIP_FILES_MAX 256
#define RF_SHIP_BYTES_MAX (1ull << 30) /* of one file */

typedef struct rf_ship rf_ship_t;

typedef void (*rf_ship_done_fn)(void *context, rf_err_t err, const char *why);
typedef void (*rf_ship_need_fn)(void *context, char **paths, size_t n_paths);

/* Compares in pieces from the loop, then calls `need` if anything is missing, then `done`, neither before this returns. `start`
 * must stay until then. */
rf_err_t rf_ship_start(rf_daemon_t *daemon, const Rackfish__RunStart *start, const char *user,
                       rf_ship_done_fn done, rf_ship_need_fn need, void *context, rf_ship_t **out);

/* A piece of a needed file; files come in the order asked for. */
void rf_ship_receive(rf_ship_t *ship, const Rackfish__RunExecutable *piece);

/* After `done`: read-only descriptor of the received executable, -1: this host's own. `ship` may be NULL. */
int rf_ship_executable_fd(const rf_ship_t *ship);

/* After `done`: the folder of received libraries, NULL: none. `ship` may be NULL. */
const char *rf_ship_library_folder(const rf_ship_t *ship);

/* Removes what was received. NULL is fine. */
void rf_ship_free(rf_ship_t *ship);

#endif
