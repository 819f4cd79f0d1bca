/* The pieces of the bench `ordered`, one file each. Each measures, reports, and says whether it could. */
#ifndef RF_BENCH_ORDERED_H
#define RF_BENCH_ORDERED_H

#include "agree_replica.h"
#include "result.h"

#define ORDERED_BATCH       64 /* commands proposed before the engine is asked for messages, by direct calls */
#define ORDERED_OUTSTANDING 512 /* over TCP, ours and the peers' */
#define ORDERED_TCP_BATCH   16 /* of so many outstanding, as many are asked for at a time as one part of this */
#define ORDERED_TCP_BYTES   64 /* of a command, ours and the peers' */

/* Replicas in one thread: the engine alone. */
bool ordered_direct(const bench_options_t *options);
/* The same with learners: how long until the last has it, and what it costs, by plan. */
bool ordered_plan(const bench_options_t *options);
bool ordered_plan_rate(const bench_options_t *options, const agree_config_t *config, const char *what);
/* Two voters on two cores over shared memory. */
bool ordered_urpc(const bench_options_t *options);
/* Three hosts over loopback TCP, spinning or blocking. */
bool ordered_tcp(const bench_options_t *options);
bool ordered_blocking(const bench_options_t *options);
typedef enum ordered_way {
    ORDERED_SPINNING, /* leader and one follower spin */
    ORDERED_BLOCKING, /* all sleep between messages */
    ORDERED_BESIDE, /* all sleep; the client is a process of its own on the leader's core, over shared memory */
    ORDERED_OUTSIDE, /* all sleep; the client is a process of its own on the leader's core, over TCP */
    ORDERED_WAYS,
} ordered_way_t;

typedef enum ordered_load {
    ORDERED_ONE,  /* one outstanding: latency */
    ORDERED_RATE, /* many, each a proposal of its own, with its own answer */
    ORDERED_RATE_BATCHED, /* as many, several in a proposal, which gets one answer; not of a client outside the leader */
    ORDERED_LOADS,
} ordered_load_t;

typedef struct ordered_figure {
    double p50, raw_p50;
    bench_placement_t placement;
} ordered_figure_t;

/* How many are outstanding in a rate, and how many are asked for at a time. */
unsigned ordered_outstanding(const bench_options_t *options);
unsigned ordered_tcp_batch(unsigned outstanding);
unsigned ordered_tcp_per_proposal(unsigned outstanding); /* batched: the same, or as many as one holds */
/* One figure, by itself; it is reported if nobody takes it (`out`: NULL). */
bool ordered_tcp_measure(const bench_options_t *options, ordered_way_t way, ordered_load_t load,
                         ordered_figure_t *out);
const char *ordered_tcp_name(ordered_way_t way, ordered_load_t load); /* NULL: not measured */
const char *ordered_tcp_raw(ordered_way_t way, ordered_load_t load);
/* How long after the leader has died, or is out of reach, the next command commits. */
bool ordered_failover(const bench_options_t *options);
/* The same of whole machines, which it boots, by cause; and what its programs in them run. */
bool ordered_machine(const bench_options_t *options);
bool ordered_machine_client(const bench_options_t *options);
/* Puts of a program in a whole machine; the program. */
bool ordered_registry(const bench_options_t *options);
bool ordered_registry_client(const bench_options_t *options);
/* Other systems on the same path, where they are installed. */
bool ordered_peers(const bench_options_t *options);

#endif
