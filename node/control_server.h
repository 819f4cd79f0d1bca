/*
 * The control socket (control.proto, doc/control.md): who may use it, its clients, and dispatch of their requests.
 *
 * A client is a connection on the Unix socket, or one that another node's rackfishd relays. What a client has asked for and
 * not been answered yet is an *operation*; operations belong to their client and are cancelled when it goes.
 */
#ifndef RF_NODE_CONTROL_SERVER_H
#define RF_NODE_CONTROL_SERVER_H

#include "node/conn.h"
#include "node/daemon.h"
#include "node/proto.h"

#define RF_CLIENTS_MAX      2048
#define RF_OPERATIONS_MAX   64 /* a client */
#define RF_CONTROL_HELLO_NS (10 * RF_NS_PER_S)

typedef struct rf_client rf_client_t;
typedef struct rf_operation rf_operation_t;

/* Embedded as first member in what is under way for a client. */
struct rf_operation {
    rf_garbage_t garbage;
    rf_client_t *client;
    uint64_t id;
    void (*cancel)(rf_operation_t *operation); /* ends it without an answer and frees it */
    void (*room)(rf_operation_t *operation);   /* the client takes more again; may be NULL */
    rf_operation_t *next, **link;
};

struct rf_client {
    rf_garbage_t garbage;
    rf_daemon_t *daemon;
    rf_conn_t *conn;
    bool hello_done;
    bool relayed;     /* by another node: questions are answered for this node alone */
    bool privileged;  /* root or the machine's owner */
    bool needs_token; /* comes from inside a domain: only with the token of --control */
    uid_t uid;        /* not relayed */
    char user[RF_USER_MAX];
    rf_timer_t hello_timer;
    rf_operation_t *operations;
    unsigned n_operations;
    struct rf_run *run;             /* this connection is a session of run_session.c ... */
    struct rf_relay *relay;         /* ... or of run_relay.c */
    rf_local_core_t *registry_core; /* whose monitor has its session in the registry; NULL: none */
    uint64_t registry_session, registry_sequence;
    rf_client_t *next, **link;
};

/* Makes the socket. `error` is one line. */
rf_err_t rf_control_open(rf_daemon_t *daemon, char *error, size_t error_max);
/* Closes the socket to new clients. */
void rf_control_refuse_new(rf_daemon_t *daemon);
void rf_control_close(rf_daemon_t *daemon);

/* Takes over a relayed connection whose hello was accepted. NULL: too many clients; the connection is closed. */
rf_client_t *rf_control_adopt(rf_daemon_t *daemon, rf_conn_t *conn, const char *user, bool privileged);
/* Frames of an adopted connection come in here. */
void rf_client_frame(void *client, const uint8_t *bytes, size_t size);
void rf_client_room(void *client);
void rf_client_closed(void *client, rf_err_t err, const char *why);

/* Packs and queues one reply. False: the client is going. */
bool rf_client_reply(rf_client_t *client, const Rackfish__ControlReply *reply);
bool rf_client_error(rf_client_t *client, uint64_t id, rf_err_t err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Zeroed memory for an operation, hung to its client; NULL after having answered that there are too many. */
void *rf_operation_new(rf_client_t *client, uint64_t id, size_t size, void (*cancel)(rf_operation_t *));
/* Takes it off its client and frees it. */
void rf_operation_end(rf_operation_t *operation);

/* Lets go of a client: its operations are cancelled, its session hangs up, what is queued is still sent. */
void rf_client_end(rf_client_t *client);

/* May this user use the machine? Checks `users:` of the configuration. */
bool rf_control_user_allowed(const rf_daemon_t *daemon, uid_t uid, const char *user);

#endif
