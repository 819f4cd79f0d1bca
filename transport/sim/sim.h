/*
 * The simulated medium: links in one process over a network of virtual time, whose faults are knobs. One seed decides
 * everything; a run is the same to the bit each time (rf_sim_digest()). No threads, no clock, no other randomness.
 *
 * The network loses, doubles, delays and reorders packets; the links on it bring slots in order and exactly once all
 * the same, by sequence, acknowledgement and retransmission on virtual timers, as the contract of transport.h says.
 *
 * A driver:
 *
 *     while ((endpoint = rf_sim_step(network)) != NULL)        time moves to the next packet or timer
 *         rf_transport_sim.endpoint_progress(endpoint, rf_sim_now(network), &next);
 *
 * Endpoints are opened with params.medium = the network and, to listen, any name as address; connect() to that name.
 * params.deadline_ns is in virtual time.
 */
#ifndef RF_TRANSPORT_SIM_SIM_H
#define RF_TRANSPORT_SIM_SIM_H

#include "transport/transport.h"

#define RF_SIM_ENDPOINTS_MAX 256

typedef struct rf_sim_network rf_sim_network_t;

/* One direction between two endpoints. Chances are parts of a million, drawn for each packet. */
typedef struct rf_sim_path {
    uint64_t delay_min_ns, delay_max_ns; /* uniform between them */
    uint32_t loss_ppm, duplicate_ppm;
    uint32_t reorder_ppm;    /* may overtake and be overtaken; others of a path stay in order */
    uint64_t reorder_ns_max; /* extra delay of those */
    bool cut;                /* nothing arrives */
} rf_sim_path_t;

extern const rf_transport_t rf_transport_sim;

/* A network whose paths are all `path`. */
rf_err_t rf_sim_network_create(uint64_t seed, const rf_sim_path_t *path, rf_sim_network_t **out);
/* After all its endpoints were closed. */
void rf_sim_network_destroy(rf_sim_network_t *network);

uint64_t rf_sim_now(const rf_sim_network_t *network);

/* Moves time to the next event and says whose progress() it calls for; NULL: there is none. */
rf_endpoint_t *rf_sim_step(rf_sim_network_t *network);
/* Moves time on to `until_ns` at most; the same answer, NULL when nothing happens up to then. */
rf_endpoint_t *rf_sim_step_until(rf_sim_network_t *network, uint64_t until_ns);

/* Sets one direction; NULL for either: all endpoints, those opened later too. */
void rf_sim_path_set(rf_sim_network_t *network, rf_endpoint_t *from, rf_endpoint_t *to,
                     const rf_sim_path_t *path);
/* Cuts or mends `from` -> `to`; with `both` the other direction too. Packets on their way still arrive. */
void rf_sim_cut(rf_sim_network_t *network, rf_endpoint_t *from, rf_endpoint_t *to, bool both, bool cut);
/* Every link of these two endpoints loses its connection, and all that is on its way. */
void rf_sim_break(rf_sim_network_t *network, rf_endpoint_t *a, rf_endpoint_t *b);
/* A stalled endpoint does nothing whatever its owner calls; what arrives waits. */
void rf_sim_stall(rf_endpoint_t *endpoint, bool stalled);
/* A crashed endpoint does nothing for ever. Of a process the peers learn by what they send next; of a host by silence.
 * It still has to be closed. */
void rf_sim_crash(rf_endpoint_t *endpoint, bool host);

/* A hash over every packet that was delivered, and when: equal for equal runs. */
uint64_t rf_sim_digest(const rf_sim_network_t *network);

typedef struct rf_sim_counts {
    uint64_t sent, delivered, lost, duplicated, reordered;
} rf_sim_counts_t;
void rf_sim_counts(const rf_sim_network_t *network, rf_sim_counts_t *out);

#endif
