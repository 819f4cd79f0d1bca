/*
 * What two TCP endpoints say to each other, byte for byte: little-endian, naturally aligned, sizes asserted.
 *
 *   dialer                                             listener
 *     | connection, TLS 1.3 handshake if encrypted        |
 *     | hello NEW, RESUME or BULK  --------------------->  |  NEW: a link; RESUME: the same link over a new
 *     | <------------------------------------ hello ANSWER |  connection; BULK: a link's second connection
 *     | frames <-----------------------------------------> |
 *
 * A link is known by 16 random bytes that its dialer drew. Each end numbers the slots it sends from 0; `delivered`
 * is how many of the other end's slots its owner has taken. After a break both say `delivered` in their hellos, send
 * again from there, and drop what arrives twice by its sequence: each slot exactly once, in order.
 *
 *   frame   32-byte head, then `slots` slots of 64 bytes
 *   bulk    64-byte head, then the notify slot (last chunk, NOTIFY), then `size` bytes
 */
#ifndef RF_TRANSPORT_TCP_FORMAT_H
#define RF_TRANSPORT_TCP_FORMAT_H

#include "transport/transport.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the formats below are little-endian");

#define TCP_MAGIC               "RKFSHTCP"
#define TCP_LINK_ID             16
#define TCP_SLOTS_PER_FRAME_MAX 512
#define TCP_BULK_CHUNK_MAX      (256u << 10)

/* Links of this medium, or control links of another one. */
enum { TCP_OF_TCP, TCP_OF_RDMA, TCP_OF_DPDK, TCP_OF_COUNT };

enum { TCP_HELLO_NEW = 1, TCP_HELLO_RESUME = 2, TCP_HELLO_BULK = 3, TCP_HELLO_ANSWER = 4 };

typedef struct tcp_hello {
    uint8_t magic[8];
    uint16_t version_major, version_minor;
    uint8_t what;   /* TCP_HELLO_* */
    uint8_t status; /* ANSWER: rf_err_t; else 0 */
    uint16_t kind;
    uint16_t core;
    uint16_t medium; /* TCP_OF_*: whose links the sender's are */
    uint32_t incarnation;
    uint8_t machine[16];
    uint8_t token[RF_TOKEN_SIZE];
    uint8_t link_id[TCP_LINK_ID];
    uint64_t delivered; /* slots taken by the sender of this hello */
    uint64_t placed;    /* remote writes placed whole */
    uint64_t partial;   /* bytes placed of the next one */
} tcp_hello_t;
_Static_assert(sizeof(tcp_hello_t) == 112, "wire layout");

#define TCP_FRAME_CLOSE     1u /* the sender closed the link; no slots follow */
#define TCP_FRAME_WANT_ACK  2u /* say `delivered` as soon as these slots have been taken */
#define TCP_FRAME_WANT_BULK 4u /* listener to dialer: make the bulk connection */
#define TCP_FRAME_FLAGS     7u

typedef struct tcp_frame {
    uint16_t slots;
    uint16_t flags;
    uint32_t reserved;
    uint64_t sequence; /* number of the first slot */
    uint64_t delivered;
    uint64_t placed;
} tcp_frame_t;
_Static_assert(sizeof(tcp_frame_t) == 32, "wire layout");

#define TCP_BULK_LAST   1u /* the last chunk of its write */
#define TCP_BULK_NOTIFY 2u /* a notify slot follows the head; only with LAST */
#define TCP_BULK_FLAGS  3u

typedef struct tcp_bulk {
    uint32_t size; /* bytes of this chunk */
    uint32_t flags;
    uint64_t write; /* number of the write, from 0 */
    uint64_t region;
    uint64_t offset; /* in the region, of this chunk */
    uint64_t done;   /* bytes of the write before this chunk */
    uint64_t total;  /* bytes of the write */
    uint64_t reserved[2];
} tcp_bulk_t;
_Static_assert(sizeof(tcp_bulk_t) == 64, "wire layout");

typedef struct tcp_region_key {
    uint64_t region, size, reserved;
} tcp_region_key_t;
_Static_assert(sizeof(tcp_region_key_t) == RF_REGION_KEY_SIZE, "wire layout");

#endif
