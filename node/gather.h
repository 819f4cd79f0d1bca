/*
 * A question that every node answers for itself: asked of this node's own parts and, unless it was relayed already, of all
 * other rackfishds. Their replies are passed on as they come, with `more` set; a last, empty one ends the answer and names in
 * its message who was out of reach.
 */
#ifndef RF_NODE_GATHER_H
#define RF_NODE_GATHER_H

#include "node/control_server.h"
#include "node/remote.h"

typedef struct rf_gather rf_gather_t;

struct rf_gather {
    rf_operation_t operation; /* first */
    unsigned outstanding;
    bool follow; /* never ends by itself */
    char missing[256];
    rf_timer_t late;
    void (*finish)(rf_gather_t *gather,
                   Rackfish__ControlReply *last); /* sets the kind of the last reply; may be NULL */
    void (*release)(rf_gather_t *gather);         /* frees own parts; may be NULL */
    struct rf_gather_node {
        rf_gather_t *gather;
        rf_node_t node;
        rf_remote_t *remote;
    } nodes[RF_NODES_MAX];
};

/* `size` of the caller's structure, whose first member is the rf_gather_t. One part (the caller's own) is outstanding. */
void *rf_gather_new(rf_client_t *client, uint64_t id, size_t size);

/* Asks one node, or all others but this. */
void rf_gather_ask(rf_gather_t *gather, rf_node_t node, const Rackfish__ControlRequest *request);
void rf_gather_ask_others(rf_gather_t *gather, const Rackfish__ControlRequest *request);

/* A part is done; the last one ends the gathering. False: it was the last, and `gather` is gone. */
bool rf_gather_part_done(rf_gather_t *gather);

/* Adds to the last reply's message. */
void rf_gather_missing(rf_gather_t *gather, const char *who);

#endif
