/*
 * Two sides of link drivers with a wire between them, or several, for tests that want links over DPDK between processes of this host.
 * They end with the process that began them, however it ends; children that it forks do not end them.
 */
#ifndef RF_TESTS_DPDK_WIRE_H
#define RF_TESTS_DPDK_WIRE_H

#include <stdbool.h>
#include <sys/types.h>

#define DPDK_WIRE_SIDES     2
#define DPDK_WIRE_PORTS_MAX 2 /* of each side, each with a wire of its own to the other side's */

/* The ports of both sides, as the EAL takes them; %s is a folder of theirs. Shared memory, which takes no rights: */
extern const char *const dpdk_wire_virtio[DPDK_WIRE_SIDES];

/* All serve. False: one does not start here; its log, on standard error, says why. `program` is rackfish-dpdk; strings stay the
 * caller's, and have to stay. */
bool dpdk_wire_begin(const char *program, const char *const ports[DPDK_WIRE_SIDES]);
/* The same of `n` ports a side. */
bool dpdk_wire_begin_ports(const char *program, unsigned n, const char *const ports[][DPDK_WIRE_SIDES]);
/* Ends all, and what they left in the file system. */
void dpdk_wire_end(void);

/* The options of an endpoint (transport/dpdk/dpdk.h) at that side of the wires; the string stays. */
const char *dpdk_wire_option(unsigned side);
unsigned dpdk_wire_ports(void);
pid_t dpdk_wire_pid(unsigned side, unsigned port);

/* KILL; and another in its place: false when it does not start. */
void dpdk_wire_kill(unsigned side, unsigned port);
bool dpdk_wire_start(unsigned side, unsigned port);

/* A counter of that driver, as `rackfish-dpdk --stats` says it; 0: it does not say. */
unsigned long dpdk_wire_stat(unsigned side, unsigned port, const char *name);

#endif
