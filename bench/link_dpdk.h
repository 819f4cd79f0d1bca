/* Two link drivers for `link --transport dpdk`, with a wire of shared memory between them (virtio_user and vhost). */
#ifndef RF_BENCH_LINK_DPDK_H
#define RF_BENCH_LINK_DPDK_H

#include "result.h"

/* Starts them, and waits until both serve. They end with link_dpdk_stop(), and with this process. False: a message is on standard
 * error. */
bool link_dpdk_start(void);
void link_dpdk_stop(void);
/* What the endpoint of a side takes as its medium. */
const char *link_dpdk_medium(unsigned side);

/* The bare wire's p50 of this very minute, one-way or rate, by rf-dpdk-bounce: into `raw`. The drivers rest meanwhile. */
bool link_dpdk_bounce(const bench_options_t *options, const char *piece, bench_samples_t *raw);
/* What a slot's way between two monitors is made of, measured one by one in this very minute: from link driver to link driver, signed, and
 * one way of URPC at either end; the sum of their p50s, into `raw`. */
bool link_dpdk_parts(const bench_options_t *options, bench_samples_t *raw);

#endif
