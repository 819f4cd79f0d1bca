/* What a test of the registry in a whole machine asks its monitors, as their clients do. Unless it says otherwise it waits for the answer. */
#ifndef RF_TESTS_MONITOR_ASKS_H
#define RF_TESTS_MONITOR_ASKS_H

#include "world.h"

typedef struct answer {
    rf_err_t err;
    rf_client_registry_done_t done;
    uint8_t bytes[4096];
    size_t size; /* of bytes */
} answer_t;

/* The body of a request of user "somebody", without a deadline. */
rf_client_registry_t ask_body(uint16_t what, uint8_t kind);

/* ... to put a key that goes with that session; 0: with the domain that asks. */
rf_client_registry_t ask_ephemeral(uint64_t session);

/* Only sends it, as RF_CLIENT_REGISTRY_..., with a name and a value; returns its tag. */
uint32_t ask_send(world_t *w, test_client_t *c, uint16_t op, rf_client_registry_t body, const char *name,
                  const char *value);

/* What has been answered; false: nothing yet. */
bool ask_fetch(const test_client_t *c, uint32_t tag, answer_t *out);

answer_t ask_change(world_t *w, test_client_t *c, rf_client_registry_t body, const char *name,
                    const char *value);
rf_err_t ask_put(world_t *w, test_client_t *c, const char *name, const char *value);

/* How many objects there are at that monitor; the first's value (room for all of it) and entry, either may be NULL. */
unsigned ask_look(world_t *w, test_client_t *c, uint16_t what, uint8_t kind, uint16_t flags, const char *name,
                  rf_client_registry_entry_t *entry, char *value);

/* Asks for a lock and lets the machine settle, whether it is had by then or not; returns the tag. */
uint32_t ask_acquire(world_t *w, test_client_t *c, const char *name, uint64_t timeout_ns);

/* A change in a session of the log; the first only sends it. */
uint32_t ask_send_once(world_t *w, test_client_t *c, rf_client_once_t once, rf_client_registry_t body,
                       const char *name, const char *value);
answer_t ask_change_once(world_t *w, test_client_t *c, rf_client_once_t once, rf_client_registry_t body,
                         const char *name, const char *value);

#endif
