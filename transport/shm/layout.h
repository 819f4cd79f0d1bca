/*
 * What the two ends of a shared-memory link see of each other: memory and side-socket messages. Each end makes and
 * writes its own objects (regions excepted); the other checks seals and size before mapping them. No end reads what
 * the other could have written in the first end's own objects.
 *
 *   head, one page            written by its owner, read by the peer
 *     0        ack            slots delivered here (low 32 bits) | slots sent from here, then (high 32 bits)
 *              notify_ack     notify slots delivered here
 *     256      asleep         odd: armed, ring me; every arming has a number of its own
 *              attention      goes up when there is something to see besides the ring: a notify slot, a message on
 *                             the side socket, a wish for room
 *              side_messages  how many messages were put on the side socket that poll() has to look for
 *              room_wanted    odd: the owner was refused and wants to be rung when there is room
 *              bytes_written  into the peer's regions, for its statistics
 *     2048..   notify ring    32 slots: what remote writes announce, apart from the ring
 *
 *   ring, 64 to 32,768 slots  written by its owner, read by the peer. When it grows, the owner makes a larger object,
 *                             sends it over the side socket (GROW) and then puts a SWITCH slot into the old ring:
 *                             what follows that slot is in the new one. Counts go on across rings.
 *
 * The acknowledgement in a slot's control word and the one in the head race: a slot may be read after a newer line
 * was. So the line says how many slots its owner had sent when it wrote it, and acknowledgements in slots older than
 * that are passed over.
 *
 * Side socket, SOCK_SEQPACKET, little-endian, one message a datagram, sizes exact:
 *
 *   HELLO  both ways, first   who, ring size, doorbell       descriptors: head, ring, futex doorbell if it has one
 *   READY  both ways          "your objects are checked and mapped": the link is up when it has arrived
 *   REJECT instead            error
 *   GROW   after READY        new ring size                  descriptor: ring
 *   REGION                    id, size                       descriptor: memory that the receiver may write
 *   DROP                      id
 *   FDS                       up to 256 bytes                up to 8 descriptors
 *   BELL                      nothing: wakes a peer that waits in epoll
 *   end of stream             the peer died, or closed in order if its CLOSE slot came before
 */
#ifndef RF_TRANSPORT_SHM_LAYOUT_H
#define RF_TRANSPORT_SHM_LAYOUT_H

#include "base/memory.h"
#include "transport/transport.h"

#define SHM_NOTIFY_SLOTS  32
#define SHM_WAIT_OFFSET   256
#define SHM_NOTIFY_OFFSET 2048
#define SHM_FDS_BYTES_MAX 256
#define SHM_BELL_FUTEX    1 /* how to wake a peer: by its futex doorbell; 0: by BELL */

/* Slot types of the medium. */
#define SHM_SLOT_SWITCH (RF_SLOT_TYPE_MEDIUM + 1) /* the next slot is in the new ring */
#define SHM_SLOT_CLOSE  (RF_SLOT_TYPE_MEDIUM + 2) /* the owner closed in order; nothing follows */

/* A slot in memory that two processes see. */
typedef struct shm_cell {
    _Atomic(uint64_t) words[7];
    _Atomic(uint64_t) control;
} rf_cache_aligned shm_cell_t;
_Static_assert(sizeof(shm_cell_t) == sizeof(rf_slot_t), "a cell is a slot");

typedef struct shm_head {
    struct {
        _Atomic(uint64_t) ack;
        _Atomic(uint32_t) notify_ack;
    } rf_cache_aligned;
    uint8_t apart[SHM_WAIT_OFFSET - RF_CACHE_LINE]; /* processors fetch lines in pairs */
    struct {
        _Atomic(uint32_t) asleep;
        _Atomic(uint32_t) attention;
        _Atomic(uint32_t) side_messages;
        _Atomic(uint32_t) room_wanted;
        _Atomic(uint64_t) bytes_written;
    } rf_cache_aligned;
    uint8_t unused[SHM_NOTIFY_OFFSET - SHM_WAIT_OFFSET - RF_CACHE_LINE];
    shm_cell_t notify[SHM_NOTIFY_SLOTS];
} shm_head_t;
_Static_assert(offsetof(shm_head_t, asleep) == SHM_WAIT_OFFSET, "layout between processes");
_Static_assert(offsetof(shm_head_t, notify) == SHM_NOTIFY_OFFSET, "layout between processes");
_Static_assert(sizeof(shm_head_t) == RF_PAGE, "one page");

#define SHM_SIDE_MAGIC 0x48534652u /* "RFSH" */

typedef enum shm_side_type {
    SHM_SIDE_HELLO = 1,
    SHM_SIDE_READY,
    SHM_SIDE_REJECT,
    SHM_SIDE_GROW,
    SHM_SIDE_REGION,
    SHM_SIDE_DROP,
    SHM_SIDE_FDS,
    SHM_SIDE_BELL,
} shm_side_type_t;

typedef struct shm_side {
    uint32_t magic;
    uint16_t type;
    uint16_t reserved;
    union {
        struct {
            rf_hello_t hello;
            uint32_t ring_slots;
            uint32_t doorbell; /* SHM_BELL_FUTEX: third descriptor; or 0 */
        } hello;
        struct {
            uint32_t err;
        } reject;
        struct {
            uint32_t ring_slots;
        } grow;
        struct {
            uint64_t id, size;
        } region; /* DROP too */
        struct {
            uint32_t size;
            uint8_t bytes[SHM_FDS_BYTES_MAX];
        } fds;
    };
} shm_side_t;
_Static_assert(sizeof(rf_hello_t) == 60, "layout between processes: no padding");

#define SHM_SIDE_HEAD         offsetof(shm_side_t, hello)
#define SHM_SIDE_SIZE(member) (SHM_SIDE_HEAD + sizeof(((shm_side_t *)0)->member))

#endif
