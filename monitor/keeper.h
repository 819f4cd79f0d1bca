/*
 * The keeper: a second process in the monitor's address space, without descriptors and without anything to do. It makes the monitor's
 * death quick for who waits for it.
 *
 * A process that is killed first takes down its address space, half a millisecond for the few MiB of a monitor; only then its
 * sockets are closed, and its pidfd says that it is dead. Whoever shares the address space and outlives it by a moment takes it down
 * instead: then sockets and pidfd tell of the death within some 30 us. The monitor executes nothing any more either way. It takes it down
 * only some milliseconds later, at the least priority: at once others elect, on this CPU, too, where it is that of several cores.
 */
#ifndef RF_MONITOR_KEEPER_H
#define RF_MONITOR_KEEPER_H

/* Starts it; it dies some milliseconds after the calling process. Where it cannot be made, deaths are merely told later. */
void keeper_start(void);

#endif
