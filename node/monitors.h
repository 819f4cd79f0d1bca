/*
 * Client links from rackfishd to the monitors of its cores (wire/client.h), and calls on them.
 *
 * A call is a request and its one answer. The caller embeds an rf_monitor_call_t in what it is doing; `done` runs exactly
 * once, from the loop: with the answer's error and body, with RF_ERR_TIMEOUT, or with RF_ERR_PEER_DEAD when the core died
 * meanwhile. Cancelling it means `done` does not run.
 */
#ifndef RF_NODE_MONITORS_H
#define RF_NODE_MONITORS_H

#include "node/daemon.h"

typedef void (*rf_monitor_done_fn)(void *context, rf_err_t err, const void *body, size_t size);

struct rf_monitor_call {
    rf_local_core_t *core; /* NULL: not under way */
    uint32_t tag;
    uint16_t op;
    rf_monitor_done_fn done;
    void *context;
    rf_timer_t timer;
    rf_monitor_call_t *next, **link;
};

/* Opens the endpoint and hangs it into the loop. */
rf_err_t rf_monitors_open(rf_daemon_t *daemon, char *error, size_t error_max);
void rf_monitors_close(rf_daemon_t *daemon);

/* Connects to a core's monitor; goes on trying, until the core is down. */
void rf_monitor_connect(rf_local_core_t *core);

/* Ends the link of a core that died: calls under way end with RF_ERR_PEER_DEAD. */
void rf_monitor_disconnect(rf_local_core_t *core);

/* Starts a call. The descriptors stay the caller's. timeout_ns 0: for ever. RF_ERR_PEER_DEAD: no link now; RF_ERR_BUSY: the
 * monitor does not read; `done` then does not run. */
rf_err_t rf_monitor_call(rf_local_core_t *core, rf_monitor_call_t *call, uint16_t op, const void *body,
                         size_t size, const int *fds, unsigned n_fds, uint64_t timeout_ns,
                         rf_monitor_done_fn done, void *context);
void rf_monitor_call_cancel(rf_monitor_call_t *call);
static inline bool rf_monitor_call_is_under_way(const rf_monitor_call_t *call)
{
    return call->core != NULL;
}

/* A request without an interest in its answer. */
rf_err_t rf_monitor_tell(rf_local_core_t *core, uint16_t op, const void *body, size_t size);

/* The first core at or after index `from` whose monitor is in reach; NULL: none. */
rf_local_core_t *rf_monitor_first(rf_daemon_t *daemon, unsigned from);

/* Polls all links until none has anything; then arms them. True: the loop may block now. After blocking: disarm. */
bool rf_monitors_arm(rf_daemon_t *daemon);
void rf_monitors_disarm(rf_daemon_t *daemon);
void rf_monitors_pump(rf_daemon_t *daemon);

/* Splits a list reply: RF_OK with the records inside `body`. RF_ERR_PROTOCOL: sizes do not fit. */
rf_err_t rf_list_reply_parse(const void *body, size_t size, size_t record_size, rf_client_list_reply_t *head,
                             const void **records);

#endif
