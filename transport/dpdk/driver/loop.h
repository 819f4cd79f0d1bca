/*
 * What a link driver does all day, on one thread: packets in, slots of all processes both ways, packets out.
 *
 * It polls for about the cost of a wake-up after the last thing that moved, and then sleeps: until a process rings, a packet comes, or
 * a timer is due. A port that cannot say that packets have come is looked at every 100 us instead.
 *
 * A process that the driver has just woken may have to run where the driver polls: after a moment without anything it yields to it,
 * and later to anybody, now and then. Not in each pass: a yield takes longer than a pass, and a packet that comes meanwhile waits.
 * Where a yield costs a time slice, since somebody only computes there, it sleeps instead for a while: who is woken comes first.
 */
#ifndef RF_DPDK_DRIVER_LOOP_H
#define RF_DPDK_DRIVER_LOOP_H

#include "transport/dpdk/driver/server.h"

#include <signal.h>

typedef struct loop loop_t;

/* `port` and `server` stay the caller's, and have to outlive it. */
rf_err_t loop_open(port_t *port, server_t *server, loop_t **out);
void loop_close(loop_t *loop);

/* Its port does not say when packets come. */
bool loop_is_blind(const loop_t *loop);

/* Returns when `*stopping` is set, by a signal or by what a process says. */
void loop_run(loop_t *loop, const volatile sig_atomic_t *stopping);

#endif
