/*
 * The three streams of a running program, between descriptors and the client's credits. Knows nothing of domains.
 */
#ifndef RF_NODE_RUN_STREAMS_H
#define RF_NODE_RUN_STREAMS_H

#include "node/control_server.h"

#define RF_STREAM_OUTPUTS 2 /* stdout, stderr */

typedef struct rf_run_streams rf_run_streams_t;

typedef struct rf_run_output {
    rf_run_streams_t *streams;
    Rackfish__RunStream stream;
    int fd; /* -1: ended */
    bool watched, discard;
    uint64_t credit;
    rf_source_t source;
} rf_run_output_t;

struct rf_run_streams {
    rf_daemon_t *daemon;
    rf_client_t *client; /* NULL: gone; output is read and dropped */
    uint64_t id;
    bool tty;
    rf_run_output_t outputs[RF_STREAM_OUTPUTS];
    int stdin_fd; /* -1: closed */
    bool stdin_ended, stdin_watched;
    uint8_t *stdin_bytes; /* what the pipe did not take yet, at most RF_RUN_STDIN_CREDIT */
    size_t stdin_start, stdin_end;
    uint64_t stdin_credit; /* what the client may still send */
    uint64_t stdin_owed;   /* what was written since it was last told */
    rf_source_t stdin_source;
    void (*changed)(void *context); /* an output ended */
    void *context;
};

/* Makes the pipes, or a terminal that belongs to `uid`; the program's ends go to child_fds and are the caller's to close. */
rf_err_t rf_run_streams_open(rf_run_streams_t *streams, bool tty, unsigned rows, unsigned columns, uid_t uid,
                             int child_fds[3]);

/* Starts pumping. */
void rf_run_streams_start(rf_run_streams_t *streams, uint64_t stdout_credit, uint64_t stderr_credit);

/* From the client. RF_ERR_PROTOCOL: it broke its credit, or named a wrong stream. */
rf_err_t rf_run_streams_data(rf_run_streams_t *streams, const Rackfish__RunData *data);
rf_err_t rf_run_streams_credit(rf_run_streams_t *streams, const Rackfish__RunCredit *credit);
void rf_run_streams_resize(rf_run_streams_t *streams, unsigned rows, unsigned columns);
void rf_run_streams_room(rf_run_streams_t *streams);

/* The client is gone: stdin ends, output is dropped. */
void rf_run_streams_abandon(rf_run_streams_t *streams);

/* All output was read and sent. */
bool rf_run_streams_drained(const rf_run_streams_t *streams);

/* Nothing but the program's own end of a pipe keeps an output from ending: it is neither credit nor the connection. */
bool rf_run_streams_idle(const rf_run_streams_t *streams);

void rf_run_streams_close(rf_run_streams_t *streams);

#endif
