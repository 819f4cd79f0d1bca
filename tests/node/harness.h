/*
 * rackfishds of a test's own: some nodes of a machine of a core each, the others are played by the test. They start no core until they
 * take part in a machine; with harness_fake_drivers() what they start then only writes that down. A guard process ends everything
 * and removes the folder when the test has ended, however it did.
 */
#ifndef RF_TESTS_NODE_HARNESS_H
#define RF_TESTS_NODE_HARNESS_H

#include "cluster-config/config.h"
#include "node/conn.h"
#include "node/peer_hello.h"
#include "node/proto.h"

#include <sys/types.h>

#define HARNESS_NODES_MAX 3

typedef struct harness {
    char base[32];        /* temporary */
    char run_dir[64];     /* base/m */
    char config_path[96]; /* of the machine */
    char rackfishd[192];
    unsigned n_nodes;
    uint16_t ports[HARNESS_NODES_MAX];
    int listen_fds[HARNESS_NODES_MAX];
    int guard; /* what is started is written here, and what was reaped, negative */
    rf_config_t *config;
    uint8_t digest[32];
} harness_t;

void harness_open(harness_t *h, unsigned n_nodes);
void harness_close(harness_t *h);

/* From now on CPU drivers that are started only add a line to base/bin/started: machine id, core, incarnation; and sleep. */
void harness_fake_drivers(harness_t *h);

/* Starts a rackfishd for a node with a key file (NULL: the machine's); returns its pid. `form`: with --form. */
pid_t harness_start(harness_t *h, unsigned node, const char *key, bool form, int *ready_fd);

/* As if its host had gone down and come up again: nothing of it runs any more, and it has forgotten everything. */
void harness_reboot(harness_t *h, unsigned node, pid_t pid);

/* Waits until a file of the run directory has `text` in it; false when not within the bound. */
bool harness_log_has(const harness_t *h, const char *file, const char *text);

/* Is the process there? */
bool harness_lives(pid_t pid);

/* A connection to node's bootstrap port; TLS with `key` (NULL: the machine's) when `tls`. Blocks until authenticated; NULL
 * when that fails. */
int harness_connect(const harness_t *h, unsigned node);
typedef struct blocking {
    int fd;
    rf_tls_t *tls;
} blocking_t;
bool blocking_tls(const harness_t *h, int fd, bool server, blocking_t *out);
/* Waits for the connection of a node that dials the one that the test plays, and authenticates it. */
bool blocking_accept(const harness_t *h, unsigned node, blocking_t *out);
bool blocking_send(blocking_t *b, const uint8_t *bytes, size_t size);
/* One frame, at most `max`; -1: the other side closed, or said nothing within the bound. */
ssize_t blocking_receive(blocking_t *b, uint8_t *bytes, size_t max);
void blocking_close(blocking_t *b);

/* A hello as node0 would send it, in its first life. */
void harness_hello(const harness_t *h, Rackfish__Node__PeerHello *hello);
bool blocking_send_hello(blocking_t *b, Rackfish__Node__PeerHello *hello);
bool blocking_send_machine(blocking_t *b, const uint8_t *id, Rackfish__Node__PeerWord word);

/* The control socket of a node. */
int harness_control(const harness_t *h, unsigned node);

#endif
