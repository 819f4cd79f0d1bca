/*
 * Who waits, and how long, when a monitor has died (doc/adr/0011-keeper-of-the-address-space.md). The other monitors elect within some hundred
 * microseconds, where cores share a CPU on the very one on which the dead one is cleared away; nobody waits for that, so it comes after them.
 */
#ifndef RF_WIRE_DEATH_H
#define RF_WIRE_DEATH_H

#include "base/clock.h"

#define RF_DEATH_SAY_NS                                                                                      \
    (2 * RF_NS_PER_MS)      /* monitors: between what a log line is about and its being written */
#define RF_DEATH_ASIDE_MS 3 /* the CPU driver of a core that shares its CPU: until it ends the core */
#define RF_DEATH_CLOSE_NS                                                                                    \
    (3 * RF_NS_PER_MS) /* rackfishd: until it takes down the link with the dead monitor */
#define RF_DEATH_KEEPER_NS (5 * RF_NS_PER_MS) /* the keeper: until it takes down the address space */

#endif
