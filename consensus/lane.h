/*
 * Inside of one-sided append; only consensus/lane*.c include it. The rules and why they hold: doc/agreement.md.
 *
 * A lane is a ring of lines that one voter, its owner, lets one other member, the leader of one term, write:
 *
 *      owner      NONE -- a leader is followed that is READY --> GRANTED -- the term is to end, or the lane broke --> REVOKING
 *                  ^                                                                                                     |
 *                  `------------------- REVOKED: all whole records are read; what waited for it goes on -----------------'
 *      leader     GRANTED heard: open -- a write fails, or the term ends --> closed
 *
 * Records follow one another. The first word of one is the number of its first line, counted from 1 and never again, so the
 * reader knows by one word whether there is anything; the checksum, over the whole record and the lane's identity, says
 * whether it is all there. Nothing in a lane needs to be cleared before its memory is used again.
 *
 *      0:8 first line   8:8 checksum   16:8 the index before its entries   24:8 committed   32:8 round
 *      40:2 flags, as of APPEND   42:2 bytes of entries   44:4 how many entries   48: entries, as in APPEND; zeros to the line's end
 *
 * A record never begins in the last LANE_RECORD_LINES - 1 lines: the next one after those is at the ring's start, which both sides know.
 */
#ifndef RF_CONSENSUS_LANE_H
#define RF_CONSENSUS_LANE_H

#include "consensus/engine.h"

typedef struct lane_record {
    uint64_t line, checksum;
    uint64_t prev_index, committed, round;
    uint16_t flags, size;
    uint32_t n;
} lane_record_t;
_Static_assert(sizeof(lane_record_t) == 48, "layout of a record");

#define LANE_ENTRIES_MAX  (AGREEMENT_MESSAGE_MAX - sizeof(wire_append_t)) /* bytes: they must fit an APPEND */
#define LANE_RECORD_BYTES (4096u)
#define LANE_RECORD_LINES (LANE_RECORD_BYTES / AGREEMENT_LANE_LINE)
_Static_assert(sizeof(lane_record_t) + LANE_ENTRIES_MAX <= LANE_RECORD_BYTES,
               "a record holds what an APPEND holds");
_Static_assert(AGREEMENT_LANE_LINES_MIN >= 4 * LANE_RECORD_LINES, "several records fit a lane");

#define LANE_PEERS_MAX (2 * AGREEMENT_VOTERS_MAX)
#define LANE_TAKES_MAX 64 /* records of one step */

typedef enum lane_state { LANE_NONE, LANE_GRANTED, LANE_REVOKING } lane_state_t;

typedef struct lane_out { /* leader: the lane of a voter */
    agreement_member_t owner;
    uint64_t id, term, seed; /* id 0: none */
    bool open;
    uint64_t lines, taken;                    /* written up to; its owner says that it has taken as much */
    uint64_t acked;                           /* index that its owner said itself that it holds */
    uint64_t number, placed;                  /* of writes */
    uint64_t ends[AGREEMENT_LANE_WRITES_MAX]; /* the index that write `number` ends with */
} lane_out_t;

typedef struct lanes {
    /* the own lane */
    lane_state_t state;
    agreement_member_t leader;
    uint64_t id, term, seed; /* id: counted up */
    uint64_t lines;          /* read up to */
    uint64_t said_lines, said_applied;
    bool ordered; /* REVOKE was put out */
    agreement_member_t ready[LANE_PEERS_MAX];
    unsigned n_ready;
    /* what waits for REVOKED: one message, which others repeat, and standing */
    bool barred; /* by the message of this step */
    agreement_event_t held;
    uint8_t held_bytes[AGREEMENT_MESSAGE_MAX];
    bool holds, stands, stands_on_evidence, stands_by_transfer;

    lane_out_t out[LANE_PEERS_MAX];
    unsigned n_out;

    agreement_lane_output_t output;
    uint64_t record[LANE_RECORD_BYTES / 8]; /* as read, or as written next */
    uint64_t message[AGREEMENT_MESSAGE_MAX / 8];
    uint64_t arena[AGREEMENT_WRITES_MAX * LANE_RECORD_BYTES / 8];
} lanes_t;

/* This step's output, empty at first. */
agreement_lane_output_t *lane_output(agreement_t *e);

/* lane_feed.c */
void lane_granted(agreement_t *e, const agreement_lane_event_t *event);
void lane_written(agreement_t *e, const agreement_lane_event_t *event);

/* lane_record.c */
/* Of one lane: what its checksums begin with. */
uint64_t lane_seed(const agreement_t *e, agreement_member_t owner, agreement_member_t leader, uint64_t id,
                   uint64_t term);
/* Lines of a record with so many bytes of entries. */
static inline uint64_t lane_record_lines(size_t entries)
{
    return (sizeof(lane_record_t) + entries + AGREEMENT_LANE_LINE - 1) / AGREEMENT_LANE_LINE;
}
/* Where the next record begins if `lines` have been used. */
uint64_t lane_record_start(unsigned lane_lines, uint64_t lines);
/* Fills in line, checksum and zeros; returns the record's bytes. `record` has room for LANE_RECORD_BYTES. */
uint32_t lane_record_end(lane_record_t *record, uint64_t line, uint64_t seed);
/* Copies the record that begins at line `start` (from 0) to `out`, if all of it is there. `torn`: the defect. */
bool lane_record_read(const uint64_t *lane, unsigned lane_lines, uint64_t start, uint64_t seed, bool torn,
                      lane_record_t *out);

#endif
