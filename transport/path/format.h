/*
 * What two ends of a link over paths say to each other, byte for byte: little-endian, naturally aligned, sizes asserted.
 *
 * Control link (an exactly-once link of transport/tcp; messages of type PATH_CONTROL_*):
 *
 *   dialer                                              listener
 *     | makes its end of a path                           |
 *     | OFFER(generation, its end) -------------------->  |  makes its end, joined to the dialer's
 *     | <------------------- ANSWER(generation, its end)  |
 *     | joins its end to the listener's                   |
 *     | HELLO over the path --------------------------->  |  UP
 *     | <---------------------------- HELLO over the path |  UP at the dialer
 *     | <-------------------------------------- LOST, or  |  either end's path ended: the dialer offers anew
 *
 * Path: slots, in order, and words: single slots of a type of the medium's, which their receiver's owner never sees.
 *
 * `delivered` is how many of the other end's slots their owner has taken, and acknowledges them; `accepted` is how many
 * have come, and is where a new path goes on. Counts are of the life of the link, over all its paths; words are not counted.
 */
#ifndef RF_TRANSPORT_PATH_FORMAT_H
#define RF_TRANSPORT_PATH_FORMAT_H

#include "transport/transport.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats below are little-endian");

#define PATH_INFO_MAX 128 /* bytes of an OFFER or ANSWER */

enum {
    PATH_CONTROL_OFFER = 1,
    PATH_CONTROL_ANSWER,
    PATH_CONTROL_LOST,   /* path_lost_t: offer anew; or why there will be no path */
    PATH_CONTROL_CLOSED, /* all slots up to CLOSE have been taken: the closer need not stay */
    PATH_CONTROL_MEDIUM, /* from here on: the medium's own */
};

enum { PATH_LANE_SLOTS = 0, PATH_LANE_BULK = 1, PATH_LANES = 2 };

/* How every OFFER and ANSWER begins; behind it is what the medium has to say of its end of the path. */
typedef struct path_info {
    uint8_t magic[8]; /* which medium */
    uint16_t format;  /* of that medium's; the layout of this struct is part of it */
    uint8_t lane;     /* PATH_LANE_* */
    uint8_t kind;     /* the medium's own */
    uint32_t generation;
    uint64_t accepted; /* slots (bulk: remote writes) that have come at this end */
} path_info_t;
_Static_assert(sizeof(path_info_t) == 24, "wire layout");

typedef struct path_lost {
    uint32_t generation;
    uint16_t lane;
    uint16_t err; /* rf_err_t; RF_OK: a new offer is welcome */
} path_lost_t;
_Static_assert(sizeof(path_lost_t) == 8, "wire layout");

#define PATH_WORD_HELLO    1u /* first on a path, each way */
#define PATH_WORD_WANT_ACK 2u /* say `delivered` as soon as everything sent before this has been taken */
#define PATH_WORD_CLOSE    4u /* the sender closed; it has sent `count` slots in all */
#define PATH_WORD_MEDIUM   8u /* this and higher flags: the medium's own */

/* The payload of a word. */
typedef struct path_word {
    uint32_t flags;
    uint32_t generation;
    uint64_t delivered;
    uint64_t placed; /* remote writes of the other end that were taken whole */
    uint64_t count;  /* CLOSE, WANT_ACK: slots sent so far */
    uint64_t reserved[3];
} path_word_t;
_Static_assert(sizeof(path_word_t) == RF_SLOT_PAYLOAD, "a word fills the payload of a slot");

/* What every medium's region key has in this place. */
typedef struct path_region_key {
    uint64_t where;
    uint64_t size;
    uint64_t more;
} path_region_key_t;
_Static_assert(sizeof(path_region_key_t) == RF_REGION_KEY_SIZE, "wire layout");

#endif
