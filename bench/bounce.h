/* What the parts of rf-dpdk-bounce share: a piece, of which each end is a process, and turns between pieces. */
#ifndef RF_BENCH_BOUNCE_H
#define RF_BENCH_BOUNCE_H

#include "result.h"
#include "wire.h"

#include <stdatomic.h>
#include <sys/types.h>

#define BOUNCE_ROUNDS  10 /* a sample of the one-way time: some hosts' tick counters go in steps of 10 ns */
#define BOUNCE_RATE_NS 2000000ull /* a sample of the rate */
#define BOUNCE_PLACE   64         /* bytes at most of how an end's flow is found */
#define BOUNCE_TURNS   8          /* pieces that take turns, at most */

/* Pieces that are measured side by side take turns of a few milliseconds: all ends of the others sleep meanwhile. So each sees the
 * same host, whatever it is doing. In memory of all ends. */
typedef struct bounce_turns {
    _Atomic(uint32_t) whose; /* a piece's place; BOUNCE_TURNS: not all ends are there yet */
    _Atomic(uint32_t) ready; /* ends */
    uint32_t n;
    _Atomic(bool) over[BOUNCE_TURNS];
} bounce_turns_t;

/* What both ends and the parent see. */
typedef struct bounce_shared {
    _Atomic(bool) namespace_there[2], wire_there, open[2], placed[2], done, failed;
    _Atomic(bool) draining;         /* a link driver's turn ends: it sends nothing more */
    uint8_t place[2][BOUNCE_PLACE]; /* of link drivers' flows: dpdk_place_t */
    uint32_t samples, n;
    uint32_t warm_left; /* samples that are not kept; of the end that measures */
    double values[];
} bounce_shared_t;

typedef struct bounce_piece {
    const wire_t *wire;
    bool one_way; /* else the rate */
    bool driver;  /* an end is a link driver's own loop, else the bare wire */
    bool packets; /* the bare wire, with packets like a link driver's */
    unsigned seal, messages;
    unsigned slice; /* samples of a turn; 0: all */
    unsigned place; /* its turn */
    const char *folder;
    bounce_shared_t *shared;
    bounce_turns_t *turns;
} bounce_piece_t;

/* The pieces that take turns, and what came of them. */
typedef struct bounce_run {
    bounce_piece_t pieces[BOUNCE_TURNS];
    bench_samples_t samples[BOUNCE_TURNS];
    pid_t ends[2 * BOUNCE_TURNS];
    unsigned n;
} bounce_run_t;

/* bounce_run.c: measures all pieces, by turns where there are several, and reports them; the first is what the others are compared
 * with. */
bool bounce_measure(const bench_options_t *options, bounce_run_t *run);

/* bounce.c */
/* A process that is an end of a piece. Never returns. */
void bounce_end(const bounce_piece_t *piece, unsigned side, unsigned cpu);
/* Lays the wire between the processes of both ends, where it is a veth pair, and lets them begin. */
bool bounce_wire(const bounce_piece_t *piece, const pid_t ends[2]);

/* wire_driver.c: an end that is all of a link driver but its processes: one flow, whose slots are made and counted where a process's
 * ring would be. Returns when the piece is over; false: it failed. */
bool bounce_driver(const bounce_piece_t *piece, unsigned side, unsigned cpu);

/* bounce_turns.c */

/* An end can begin: waits for the piece's turn. */
void bounce_ready(const bounce_piece_t *piece);
bool bounce_my_turn(const bounce_piece_t *piece);
/* Until it is; or the piece is over. */
void bounce_wait(const bounce_piece_t *piece);
/* Of the end that measures. True: the turn is over, or the piece (shared->done): bounce_hand_over() is due. */
bool bounce_keep(const bounce_piece_t *piece, double value);
void bounce_hand_over(const bounce_piece_t *piece);

#endif
