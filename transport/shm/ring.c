/*
 * Moving slots. The only line that both cores touch for a slot is the slot itself: the ack line is written once a
 * quarter of the ring, or when the ring is found empty, and read only when the sender has come to its limit.
 */
#include "internal.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WIDE_AFTER    8  /* slots of a batch that may still be in the caller's store buffer */
#define GROW_AFTER_US 20 /* a ring that stays full for so long has a receiver that is off its core */

const shm_head_t shm_no_head;
const shm_cell_t shm_no_cells[RF_RING_SLOTS_MIN];

/* Plain moves of two words, between an acquiring load of the control word and a releasing store of it. A peer that
 * writes meanwhile spoils only what it says itself: the slot is copied once, and looked at in the copy. */
typedef uint64_t pair_t __attribute__((vector_size(16), may_alias));
#define PAIR(slot, i) (((pair_t *)(uintptr_t)(slot))[i])

/* The caller wrote the slot just now, by words: a wider load would wait until they have left the store buffer. */
static inline void cell_write(shm_cell_t *cell, const rf_slot_t *slot, uint64_t control)
{
    atomic_store_explicit(&cell->words[0], slot->words[0], memory_order_relaxed);
    atomic_store_explicit(&cell->words[1], slot->words[1], memory_order_relaxed);
    atomic_store_explicit(&cell->words[2], slot->words[2], memory_order_relaxed);
    atomic_store_explicit(&cell->words[3], slot->words[3], memory_order_relaxed);
    atomic_store_explicit(&cell->words[4], slot->words[4], memory_order_relaxed);
    atomic_store_explicit(&cell->words[5], slot->words[5], memory_order_relaxed);
    atomic_store_explicit(&cell->words[6], slot->words[6], memory_order_relaxed);
    atomic_store_explicit(&cell->control, control, memory_order_release);
}

/* The caller wrote the slot a while ago: half the stores, so that more slots are on their way at a time. */
static inline void cell_write_wide(shm_cell_t *cell, const rf_slot_t *slot, uint64_t control)
{
    PAIR(cell, 0) = PAIR(slot, 0);
    PAIR(cell, 1) = PAIR(slot, 1);
    PAIR(cell, 2) = PAIR(slot, 2);
    atomic_store_explicit(&cell->words[6], slot->words[6], memory_order_relaxed);
    atomic_store_explicit(&cell->control, control, memory_order_release);
}

static inline void cell_read(const shm_cell_t *cell, uint64_t control, rf_slot_t *slot)
{
    PAIR(slot, 0) = PAIR(cell, 0);
    PAIR(slot, 1) = PAIR(cell, 1);
    PAIR(slot, 2) = PAIR(cell, 2);
    slot->words[6] = atomic_load_explicit(&cell->words[6], memory_order_relaxed);
    slot->control = control & RF_CONTROL_CALLERS;
}

/* A slot that a caller of the peer's may have sent: everything checked that the medium can check. */
static inline bool ordinary(uint64_t control)
{
    return rf_control_valid(control) && rf_control_type(control) < RF_SLOT_TYPE_MEDIUM;
}

/* ... or a slot of another medium's, that this link carries for it. Only looked at when a slot is not ordinary. */
static bool relayed(const shm_link_t *link, uint64_t control)
{
    return link->endpoint->relays && rf_control_valid(control) && rf_control_type(control) >= RF_SHM_RELAYED;
}

static inline uint64_t fresh(const shm_cell_t *cell, uint64_t parity, uint64_t *control)
{
    *control = atomic_load_explicit(&cell->control, memory_order_acquire);
    return !((*control ^ parity) & RF_CONTROL_PARITY);
}

/* ---- waking ---- */

static __attribute__((noinline)) void ring_peer(shm_link_t *link, uint32_t asleep)
{
    if (asleep == link->rung) return; /* one ring a sleep */
    link->rung = asleep;
    link->stats.wakeups_sent++;
    if (link->peer_bell == SHM_BELL_FUTEX)
        rf_doorbell_ring(&link->peer_doorbell);
    else
        shm_side_bell(link);
}

static inline void wake(shm_link_t *link)
{
    uint32_t asleep = atomic_load_explicit(&link->out.peer_head->asleep, memory_order_relaxed);
    if (rf_unlikely(asleep & 1)) ring_peer(link, asleep);
}

static void raise(_Atomic(uint32_t) *word)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + 1, memory_order_release);
}

void shm_attention(shm_link_t *link)
{
    raise(&link->head->attention);
    rf_full_fence();
    wake(link);
}

/* ---- acknowledgements ---- */

void shm_set_limit(shm_link_t *link)
{
    uint64_t from = link->acked > link->ring_base ? link->acked : link->ring_base;
    link->out.limit =
        link->phase == SHM_UP ? from + link->out_slots - RF_RING_SLOTS_RESERVED : link->out.sent;
}

/* The acknowledgement in the last slot that was polled. */
static void learn_from_slot(shm_link_t *link)
{
    if (link->in.received <= link->line_sent) return; /* older than the ack line that we read meanwhile */
    uint64_t more = (uint16_t)(rf_control_ack(link->in.last) - (uint16_t)link->acked);
    if (more > link->out.sent - link->acked)
        shm_protocol_error(link, "it acknowledged slots that were not sent");
    else
        link->acked += more;
}

static void learn_from_line(shm_link_t *link)
{
    uint64_t line = atomic_load_explicit(&link->out.peer_head->ack, memory_order_acquire);
    int32_t more = (int32_t)((uint32_t)line - (uint32_t)link->acked);
    if (more <= 0) return; /* slots told us already */
    int32_t sent = (int32_t)((uint32_t)(line >> 32) - (uint32_t)link->in.received);
    if ((uint64_t)more > link->out.sent - link->acked || sent > 2 * RF_RING_SLOTS_MAX) {
        shm_protocol_error(link, "its acknowledgement line is out of range");
        return;
    }
    link->acked += (uint64_t)more;
    link->line_sent = link->in.received + (sent > 0 ? (uint64_t)sent : 0);
}

/* Learns what the peer has taken, when send() has come to its limit: no slot costs anything for it before. */
static void learn_acks(shm_link_t *link)
{
    if (link->phase != SHM_UP) return;
    learn_from_slot(link);
    if (link->phase == SHM_UP) learn_from_line(link);
    shm_set_limit(link);
}

/* Rings a peer that waits for room. Its wish is in its head; clearing it needs no message. */
static void tell_room(shm_link_t *link)
{
    rf_full_fence();
    if (atomic_load_explicit(&link->out.peer_head->room_wanted, memory_order_relaxed) & 1)
        wake(link);
    else
        link->in.peer_wants_room = false;
}

static void publish(shm_link_t *link)
{
    link->in.published = link->in.received;
    link->stats.acks_explicit++;
    uint64_t line = (uint32_t)link->in.received | link->out.sent << 32;
    atomic_store_explicit(&link->head->ack, line, memory_order_release);
    if (rf_unlikely(link->in.peer_wants_room)) tell_room(link);
}

/* ---- sending ---- */

void shm_out_ring(shm_link_t *link, shm_cell_t *cells, uint32_t slots)
{
    link->out.cells = cells;
    link->out_slots = slots;
    link->out.next = cells;
    link->out.end = cells + slots;
    link->out.parity = RF_CONTROL_PARITY;
}

static bool grow(shm_link_t *link, uint32_t want)
{
    uint32_t slots = link->out_slots;
    if (link->phase != SHM_UP || slots >= link->slots_max || link->acked < link->ring_base) return false;
    do {
        slots *= 2;
    } while (slots < link->slots_max && slots - RF_RING_SLOTS_RESERVED < want);

    int fd;
    size_t size = (size_t)slots * sizeof(shm_cell_t), old_size = (size_t)link->out_slots * sizeof(shm_cell_t);
    if (rf_memory_create("rackfish-ring", size, &fd) != RF_OK) return false;
    void *cells = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    rf_err_t err = cells == MAP_FAILED ? RF_ERR_OS : shm_side_grow(link, slots, fd);
    close(fd);
    if (err != RF_OK || !shm_send_medium(link, SHM_SLOT_SWITCH)) {
        if (cells != MAP_FAILED) munmap(cells, size);
        return false;
    }
    munmap(link->out.cells, old_size);
    shm_out_ring(link, cells, slots);
    link->ring_base = link->out.sent;
    link->full_since_ticks = 0;
    shm_set_limit(link);
    return true;
}

/* Remembers what was refused; the peer is told only when we go to sleep over it (shm_arm). */
static void refuse(shm_link_t *link, uint32_t slots)
{
    uint32_t most = link->slots_max - RF_RING_SLOTS_RESERVED;
    link->stats.full++;
    link->room_asked = slots < most ? slots : most;
    link->in.look |= SHM_LOOK_ROOM;
}

/* The way of send() that has come to its limit: returns how many of `n` may go. */
static __attribute__((noinline)) uint32_t make_room(shm_link_t *link, uint32_t n)
{
    learn_acks(link);
    uint64_t room = link->out.limit - link->out.sent;
    if (room >= n) {
        link->full_since_ticks = 0;
        return n;
    }
    if (link->phase != SHM_UP) return 0;
    uint64_t now = rf_clock_ticks();
    if (room > 0 || link->full_since_ticks == 0) {
        link->full_since_ticks = now;
    } else if (now - link->full_since_ticks > GROW_AFTER_US * rf_clock_ticks_per_us() && grow(link, n)) {
        room = link->out.limit - link->out.sent;
        if (room >= n) return n;
    }
    refuse(link, n - (uint32_t)room);
    return (uint32_t)room;
}

unsigned shm_room(rf_link_t *base, unsigned want)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->out.limit - link->out.sent < want) {
        learn_acks(link);
        if (link->out_slots - RF_RING_SLOTS_RESERVED < want) grow(link, want);
        if (link->out.limit - link->out.sent < want && link->phase == SHM_UP) refuse(link, want);
    }
    return (unsigned)(link->out.limit - link->out.sent);
}

static inline void put(shm_link_t *link, const rf_slot_t *slots, unsigned n, bool wide)
{
    shm_cell_t *cell = link->out.next;
    uint64_t stamp = link->out.parity | (uint64_t)(uint16_t)link->in.received << RF_CONTROL_ACK_SHIFT;
    link->out.sent += n;
    for (; n > 0; n--, slots++) {
        uint64_t control = (slots->control & RF_CONTROL_CALLERS) | stamp;
        if (wide)
            cell_write_wide(cell, slots, control);
        else
            cell_write(cell, slots, control);
        if (rf_unlikely(++cell == link->out.end)) {
            cell = link->out.cells;
            stamp ^= RF_CONTROL_PARITY;
            link->out.parity ^= RF_CONTROL_PARITY;
        }
    }
    link->out.next = cell;
}

static __attribute__((noinline)) unsigned send_some(shm_link_t *link, const rf_slot_t *slots, unsigned n)
{
    if (n > link->out.limit - link->out.sent) n = make_room(link, n);
    unsigned wide = n > WIDE_AFTER ? n - WIDE_AFTER : 0;
    put(link, slots, wide, true);
    put(link, slots + wide, n - wide, false);
    return n;
}

unsigned shm_send(rf_link_t *base, const rf_slot_t *slots, unsigned n)
{
    shm_link_t *link = (shm_link_t *)base;
    if (rf_unlikely(n != 1 || link->out.limit == link->out.sent)) return send_some(link, slots, n);
    put(link, slots, 1, false);
    return 1;
}

bool shm_send_medium(shm_link_t *link, uint8_t type)
{
    uint64_t from = link->acked > link->ring_base ? link->acked : link->ring_base;
    if (link->out.sent - from >= link->out_slots) return false;
    rf_slot_t slot = {.control = rf_control_make(type, 0, false, 0)};
    put(link, &slot, 1, false);
    link->medium_sent++;
    return true;
}

static __attribute__((noinline)) rf_err_t flush_asleep(shm_link_t *link, uint32_t asleep)
{
    ring_peer(link, asleep);
    return link->end;
}

rf_err_t shm_flush(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->out.sent == link->out.flushed) return link->end;
    link->out.flushed = link->out.sent;
    link->stats.flushes++;
    rf_full_fence(); /* the slots, before the look at the asleep word: the other half is in rf_wait_arm_all */
    uint32_t asleep = atomic_load_explicit(&link->out.peer_head->asleep, memory_order_relaxed);
    if (rf_unlikely(asleep & 1)) return flush_asleep(link, asleep);
    return link->end;
}

/* ---- receiving ---- */

void shm_in_ring(shm_link_t *link, const shm_cell_t *cells, uint32_t slots)
{
    link->in_cells = cells;
    link->in_slots = slots;
    link->in.batch = slots / 4;
    link->in.next = cells;
    link->in.end = cells + slots;
    link->in.parity = RF_CONTROL_PARITY;
}

static inline bool in_fresh(const shm_link_t *link, uint64_t *control)
{
    return fresh(link->in.next, link->in.parity, control);
}

/* Takes one slot, which is there and ordinary. */
static inline void take_one(shm_link_t *link, uint64_t control, rf_slot_t *out)
{
    const shm_cell_t *cell = link->in.next;
    cell_read(cell, control, out);
    link->in.last = control;
    link->in.received++;
    if (rf_unlikely(++cell == link->in.end)) {
        cell = link->in_cells;
        link->in.parity ^= RF_CONTROL_PARITY;
    }
    link->in.next = cell;
}

static inline bool publish_due(const shm_link_t *link)
{
    return link->in.received - link->in.published >= link->in.batch;
}

/* Goes on after `n` slots. */
static __attribute__((noinline)) unsigned take_more(shm_link_t *link, rf_slot_t *out, unsigned max,
                                                    unsigned n)
{
    uint64_t control;
    if (publish_due(link)) publish(link);
    while (n < max && in_fresh(link, &control) && rf_likely(ordinary(control) || relayed(link, control))) {
        take_one(link, control, &out[n++]);
        if (rf_unlikely(publish_due(link))) publish(link);
    }
    if (n == 0 && link->in.received != link->in.published) publish(link);
    return n;
}

static __attribute__((noinline)) unsigned found_empty(shm_link_t *link)
{
    publish(link);
    return 0;
}

void shm_take_medium(shm_link_t *link)
{
    uint64_t control;
    while (link->phase >= SHM_UP && in_fresh(link, &control) && !ordinary(control) &&
           !relayed(link, control)) {
        uint8_t type = rf_control_type(control);
        if (!rf_control_valid(control)) {
            shm_protocol_error(link, "a slot with a malformed control word");
        } else if (type == SHM_SLOT_SWITCH) {
            if (!link->next_cells) shm_side_drain(link);
            if (!link->next_cells) {
                shm_protocol_error(link, "it switched to a ring that it did not pass");
                return;
            }
            munmap((void *)(uintptr_t)link->in_cells, (size_t)link->in_slots * sizeof(shm_cell_t));
            shm_in_ring(link, link->next_cells, link->next_slots);
            link->next_cells = NULL;
            link->in.last = control;
            link->in.received++;
            link->medium_received++;
        } else if (type == SHM_SLOT_CLOSE) {
            uint32_t attention = atomic_load_explicit(&link->out.peer_head->attention, memory_order_acquire);
            if (attention != link->in.attention_seen || (link->in.look & (SHM_LOOK_NOTIFY | SHM_LOOK_SIDE)))
                return; /* what came beside the ring comes first */
            shm_end(link, RF_ERR_CLOSED);
        } else {
            shm_protocol_error(link, "a slot of an unknown type of the medium");
        }
    }
}

static inline bool notify_fresh(const shm_link_t *link, uint64_t *control)
{
    uint32_t number = link->notify_received;
    uint64_t parity = number / SHM_NOTIFY_SLOTS % 2 ? 0 : RF_CONTROL_PARITY;
    return fresh(&link->out.peer_head->notify[number % SHM_NOTIFY_SLOTS], parity, control);
}

/* Notify slots get half of what the caller takes, so that neither ring starves the other. */
static unsigned take_notify(shm_link_t *link, rf_slot_t *out, unsigned max)
{
    link->notify_turn = !link->notify_turn;
    unsigned quota = max > 1 ? max / 2 : max & link->notify_turn, n = 0;
    uint64_t control;
    bool more;
    while ((more = notify_fresh(link, &control)) && n < quota) {
        if (!ordinary(control)) {
            shm_protocol_error(link, "a malformed notify slot");
            return 0;
        }
        cell_read(&link->out.peer_head->notify[link->notify_received % SHM_NOTIFY_SLOTS], control, &out[n++]);
        link->notify_received++;
    }
    if (!more) link->in.look &= ~SHM_LOOK_NOTIFY;
    if (n > 0) {
        link->stats.slots_received += n;
        atomic_store_explicit(&link->head->notify_ack, link->notify_received, memory_order_release);
        if (link->in.peer_wants_room) tell_room(link);
    }
    return n;
}

bool shm_in_empty(shm_link_t *link)
{
    uint64_t control;
    return !in_fresh(link, &control) && !notify_fresh(link, &control) &&
           atomic_load_explicit(&link->out.peer_head->attention, memory_order_acquire) ==
               link->in.attention_seen &&
           !(link->in.look & (SHM_LOOK_NOTIFY | SHM_LOOK_SIDE));
}

/* The ring takes what was asked for. Or it is empty and still too small: the peer has nothing left to tell, growing is the
 * sender's turn. */
static bool slots_due(const shm_link_t *link)
{
    return link->room_asked &&
           (link->out.limit - link->out.sent >= link->room_asked || link->acked == link->out.sent);
}

static bool notify_due(const shm_link_t *link)
{
    uint32_t acked = atomic_load_explicit(&link->out.peer_head->notify_ack, memory_order_acquire);
    return link->notify_full && (uint32_t)link->notify_sent - acked < SHM_NOTIFY_SLOTS;
}

/* Each wish is granted by itself: a sender that waits for both may use the one. */
static bool room_due(shm_link_t *link)
{
    learn_acks(link);
    return link->phase == SHM_UP && (slots_due(link) || notify_due(link));
}

static void report_room(shm_link_t *link)
{
    if (!room_due(link)) return;
    if (slots_due(link)) link->room_asked = 0;
    if (notify_due(link)) link->notify_full = false;
    if (!link->room_asked && !link->notify_full) {
        link->in.look &= ~SHM_LOOK_ROOM;
        link->full_since_ticks = 0;
        if (atomic_load_explicit(&link->head->room_wanted, memory_order_relaxed) & 1)
            raise(&link->head->room_wanted);
    }
    shm_event(link, RF_LINK_ROOM, &(rf_link_event_info_t){.err = RF_OK});
}

/* Everything besides the ring. False: a callback closed the link, and it is gone. */
static __attribute__((noinline)) bool attend(shm_link_t *link, rf_slot_t *out, unsigned max, unsigned *taken)
{
    shm_enter(link);
    uint32_t attention = atomic_load_explicit(&link->out.peer_head->attention, memory_order_acquire);
    if (attention != link->in.attention_seen) {
        link->in.attention_seen = attention;
        link->in.look |= SHM_LOOK_NOTIFY;
        uint32_t side = atomic_load_explicit(&link->out.peer_head->side_messages, memory_order_relaxed);
        if (side != link->side_seen) {
            link->side_seen = side;
            link->in.look |= SHM_LOOK_SIDE;
        }
        if (atomic_load_explicit(&link->out.peer_head->room_wanted, memory_order_relaxed) & 1) {
            link->in.peer_wants_room = true;
            publish(link);
        }
    }
    if (link->in.look & SHM_LOOK_SIDE) shm_side_drain(link);
    if (link->in.look & SHM_LOOK_ROOM && !link->closed) report_room(link);
    if (link->in.look & SHM_LOOK_END && !link->closed) {
        shm_end_if_drained(link);
        shm_report_over(link);
    }
    if (link->in.look & SHM_LOOK_NOTIFY && !link->closed) *taken = take_notify(link, out, max);
    return shm_leave(link);
}

static inline bool besides(const shm_link_t *link)
{
    uint32_t attention = atomic_load_explicit(&link->out.peer_head->attention, memory_order_acquire);
    return attention != link->in.attention_seen || link->in.look;
}

/* A poll that finds more than ordinary slots. */
static __attribute__((noinline)) unsigned poll_all(shm_link_t *link, rf_slot_t *out, unsigned max)
{
    unsigned taken = 0;
    if (besides(link) && !attend(link, out, max, &taken)) return 0;
    taken = take_more(link, out, max, taken);

    uint64_t control;
    while (taken == 0 && max > 0 && in_fresh(link, &control)) {
        if (!ordinary(control) && !relayed(link, control)) {
            shm_enter(link);
            shm_take_medium(link);
            if (!link->closed) shm_report_over(link);
            bool over = link->phase == SHM_OVER,
                 stays = in_fresh(link, &control) && !ordinary(control) && !relayed(link, control);
            if (!shm_leave(link) || over || stays) return 0;
        }
        taken = take_more(link, out, max, 0);
    }
    return taken;
}

unsigned shm_poll(rf_link_t *base, rf_slot_t *out, unsigned max)
{
    shm_link_t *link = (shm_link_t *)base;
    uint64_t control;
    if (rf_unlikely(besides(link))) return poll_all(link, out, max);
    if (!in_fresh(link, &control)) return link->in.received == link->in.published ? 0 : found_empty(link);
    if (rf_unlikely(max == 0 || !ordinary(control))) return poll_all(link, out, max);
    take_one(link, control, out);
    if (rf_unlikely(publish_due(link) || (max > 1 && in_fresh(link, &control))))
        return take_more(link, out, max, 1);
    return 1;
}

/* ---- waiting ----
 *
 * No wake-up is lost. An end that is asleep (its word is odd, and ready() said no after the fence that followed) has
 * nothing to take, and whatever would change that rings it:
 *
 *   slots, attention   the peer writes, fences, looks at our asleep word (flush, attention); we write that word, fence, look
 *                      at what it wrote. One of the two sees the other. The doorbell's value was read before we armed, so
 *                      a ring from then on ends the wait; each arming has a new number, so each sleep is rung for once.
 *   room               refused, we raise `room_wanted`, then `attention`, then the asleep word. We do not ring the peer for it:
 *                      if it is asleep it has told of everything it took (arm() publishes) and taken everything we
 *                      flushed (arm() flushes), so ready() sees room, or an empty ring that is ours to grow. If it is awake
 *                      it sees `attention` in poll() or ready() before it sleeps, remembers the wish, and from then on
 *                      each acknowledgement of either ring is followed by a fence and a look at `room_wanted` and our
 *                      asleep word, until it finds the wish taken back (even); a later wish raises `attention` anew.
 *
 * What an end is told it is told once: RF_LINK_ROOM takes the wish back, so whoever was refused has to try again before it
 * arms, if poll() was called since.
 */

void shm_arm(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->phase != SHM_UP) return;
    if (link->in.received != link->in.published) publish(link);
    shm_head_t *head = link->head;
    if (link->in.look & SHM_LOOK_ROOM &&
        !(atomic_load_explicit(&head->room_wanted, memory_order_relaxed) & 1) &&
        !(link->room_asked && grow(link, link->room_asked))) { /* grown: there is room, ready() says so */
        raise(&head->room_wanted);
        raise(&head->attention);
    }
    if (link->out.sent != link->out.flushed) shm_flush(base);
    uint32_t asleep = atomic_load_explicit(&head->asleep, memory_order_relaxed);
    atomic_store_explicit(&head->asleep, (asleep + 1) | 1, memory_order_release);
}

bool shm_ready(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    uint64_t control;
    if (in_fresh(link, &control)) return true;
    if (atomic_load_explicit(&link->out.peer_head->attention, memory_order_acquire) !=
        link->in.attention_seen)
        return true;
    if (link->in.look & SHM_LOOK_ROOM && room_due(link)) return true;
    return link->in.look & ~SHM_LOOK_ROOM; /* looking may have found that the peer lies: an end to report */
}

void shm_disarm(rf_link_t *base)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->phase != SHM_UP) return;
    uint32_t asleep = atomic_load_explicit(&link->head->asleep, memory_order_relaxed);
    if (asleep & 1) atomic_store_explicit(&link->head->asleep, asleep + 1, memory_order_release);
}
