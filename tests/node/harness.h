/*
 * A rackfishd of its own for a test: node1 of a machine of two, waiting for a node0 that the test plays. It starts no core until
 * it knows the machine's id, so neither CPU drivers nor monitors are needed. A guard process ends everything and removes the
 * folder when the test has ended, however it did.
 */
#ifndef RF_TESTS_NODE_HARNESS_H
#define RF_TESTS_NODE_HARNESS_H

#include "cluster-config/config.h"
#include "node/conn.h"
#include "node/proto.h"

#include <sys/types.h>

typedef struct harness {
    char base[32];        /* temporary */
    char run_dir[64];     /* base/m */
    char config_path[96]; /* of the machine */
    uint16_t ports[2];
    int listen_fds[2];
    int guard; /* what is started is written here */
    rf_config_t *config;
    uint8_t digest[32];
} harness_t;

void harness_open(harness_t *h);
void harness_close(harness_t *h);

/* Starts a rackfishd for a node with a key file (NULL: the machine's); returns its pid. */
pid_t harness_start(harness_t *h, unsigned node, const char *key, int *ready_fd);

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
bool blocking_tls(const harness_t *h, int fd, blocking_t *out);
bool blocking_send(blocking_t *b, const uint8_t *bytes, size_t size);
/* One frame, at most `max`; -1: the other side closed, or said nothing within the bound. */
ssize_t blocking_receive(blocking_t *b, uint8_t *bytes, size_t max);
void blocking_close(blocking_t *b);

/* A hello as node0 would send it. */
void harness_hello(const harness_t *h, Rackfish__Node__PeerHello *hello);
bool blocking_send_hello(blocking_t *b, Rackfish__Node__PeerHello *hello);

/* The control socket of a node. */
int harness_control(const harness_t *h, unsigned node);

#endif
