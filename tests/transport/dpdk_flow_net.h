/*
 * A network on virtual time for flows (transport/dpdk/flow.h): pairs of hosts with a flow each, whose frames are lost,
 * repeated, delayed, overtaken, cut, or wait in a switch's queue, as its knobs say. Everything follows from the seed.
 *
 *   dialer[0] -- its port --.                            .-- listener[0]
 *   dialer[1] -- its port ---- one queue of the switch ----- listener[1]     forwards; the way back has no queue
 *   ...                                                  ...
 *
 * Each host sends so many slots, whose contents say which they are; what is taken is checked at once: each once, in order.
 */
#ifndef RF_TESTS_TRANSPORT_DPDK_FLOW_NET_H
#define RF_TESTS_TRANSPORT_DPDK_FLOW_NET_H

#include "base/prng.h"
#include "transport/dpdk/flow_internal.h"

#define NET_PAIRS_MAX 16

/* Chances in millionths. [0]: dialer to listener; [1]: back. */
typedef struct net_knobs {
    uint32_t loss[2], repeat[2], late[2];
    uint32_t burst; /* nothing gets through any more, for ...  */
    uint64_t burst_ns;
    uint32_t row, row_every; /* of so many frames, whoever sends them, the last so many are lost; 0: none */
    uint32_t flip, cut;      /* a bit is flipped; the end is missing */
    uint64_t delay_ns, jitter_ns;      /* one way; and up to so much more, in order */
    uint64_t late_ns;                  /* how late a late frame is, at most: it is overtaken */
    uint64_t port_bps;                 /* of each host; 0: no limit */
    uint64_t queue_bps;                /* of the switch, forwards; 0: none */
    uint32_t queue_bytes;              /* what does not fit is dropped */
    uint64_t stall_every_ns, stall_ns; /* the listeners are not run for so long, so often ... */
    bool stall_both;                   /* nor are the dialers, a quarter of that later ... */
    bool stall_seen;                   /* and the hosts know when they were not */
    uint32_t path_bytes;               /* larger frames do not get through; 0: no limit */
} net_knobs_t;

typedef struct net_host {
    rf_flow_t *flow; /* NULL: gone */
    uint64_t to_send, written, taken;
    uint64_t starts_ns;     /* writes nothing before */
    uint64_t take_every_ns; /* takes at most 16 slots so often; 0: all at once */
    uint64_t take_ns;
    uint64_t port_free_ns;
    uint64_t done_ns; /* when it had taken all that its peer sends */
    uint64_t burst_end_ns;
    uint64_t ordered_ns; /* no frame in order arrives before */
    uint64_t frames;     /* that left */
} net_host_t;

typedef struct net_frame net_frame_t;

typedef struct net {
    rf_prng_t prng;
    net_knobs_t knobs;
    uint64_t now_ns;
    unsigned n_hosts; /* pair p: hosts 2p (dialer) and 2p + 1 (listener) */
    net_host_t hosts[2 * NET_PAIRS_MAX];
    bool cut; /* nothing gets through */
    net_frame_t **heap;
    unsigned n_heap, heap_max;
    uint64_t drawn; /* breaks ties */
    uint64_t rows;  /* frames counted for `row` */
    uint64_t queue_free_ns, queue_peak_bytes, queue_dropped;
    uint64_t digest; /* of all that happened */
} net_t;

/* Parameters that tests start from: small windows, jumbo frames off. */
rf_flow_params_t net_params(void);
/* Both ends of each pair get `params`, with ids and directions of their own. */
void net_open(net_t *net, uint64_t seed, const net_knobs_t *knobs, unsigned pairs,
              const rf_flow_params_t *params);
void net_close(net_t *net);
/* Numbers of slots and frames go on from these, as after a long life; before anything is sent. */
void net_age(net_t *net, uint64_t slots, uint64_t frames);
/* Until that time, or (with `done`) until all has been taken and acknowledged. True: all was. */
bool net_run(net_t *net, uint64_t until_ns, bool done);
bool net_done(const net_t *net);

#endif
