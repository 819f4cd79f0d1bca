/*
 * Messages of a channel. Slots are taken from the link in batches into the channel's own memory (a hostile peer can
 * change what lies in the ring at any time, not what was copied), stream slots sorted out, and the rest looked at in order:
 *
 *   link --poll--> in[] --front--> a plain message in one slot, in place
 *                            |---> a longer message or a call, put together in `assembler`
 *                            |---> a reply: delivered to the call that waits (call.c)
 *
 * Fast path of a receive: one indirect call (poll), one copy. Of a send: two (send, flush), one copy.
 */
#include "internal.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define TYPE_MAX        15
#define SPIN_US         2 /* at most, before the loop takes over */
#define POLLS_PER_CLOCK 16
#define SPINS_PER_LOOK  256 /* everything else is looked at, however quick one peer's answers are */

rf_channel_t *rf_lib_channel_create(const rf_client_connected_t *about)
{
    if (rf_me.n_channels == RF_CHANNELS_MAX) {
        rf_lib_fail(RF_ERR_LIMIT, "%d channels are open already", RF_CHANNELS_MAX);
        return NULL;
    }
    rf_channel_t *channel = aligned_alloc(RF_CACHE_LINE, sizeof *channel);
    if (!channel) return NULL;
    memset(channel, 0, sizeof *channel);
    channel->port.kind = LIB_PORT_CHANNEL;
    channel->about = *about;
    channel->about.medium[sizeof channel->about.medium - 1] = 0;
    channel->about.address[sizeof channel->about.address - 1] = 0;
    channel->about.user[sizeof channel->about.user - 1] = 0;
    channel->next = rf_me.channels;
    if (channel->next) channel->next->previous = channel;
    rf_me.channels = channel;
    rf_me.n_channels++;
    return channel;
}

static void free_if_left(rf_channel_t *channel)
{
    if (channel->closed && channel->waiters == 0) free(channel);
}

/* A thread that waited on the channel has stopped doing so. */
void rf_lib_channel_leave(rf_channel_t *channel)
{
    channel->waiters--;
    free_if_left(channel);
}

void rf_lib_channel_destroy(rf_channel_t *channel, bool orderly)
{
    rf_lib_waitsets_forget(channel);
    rf_lib_streams_close(channel);
    if (channel->export_) rf_lib_export_drop(channel);
    if (channel->answer_owed) rf_me.n_answers_owed--;
    channel->answer_owed = false;
    if (channel->port.link) {
        rf_link_t *link = channel->port.link;
        channel->port.link = NULL;
        if (orderly && channel->port.end == RF_OK && channel->port.up) (void)link->transport->flush(link);
        link->transport->close(link);
    }
    if (channel->endpoint) {
        rf_lib_unwatch_endpoint(&channel->watch);
        channel->endpoint->transport->endpoint_close(channel->endpoint);
        channel->endpoint = NULL;
    }
    if (channel->previous)
        channel->previous->next = channel->next;
    else
        rf_me.channels = channel->next;
    if (channel->next) channel->next->previous = channel->previous;
    rf_me.n_channels--;
    if (channel->port.end == RF_OK) channel->port.end = RF_ERR_CLOSED;
    channel->muted = true;
    channel->in_head = channel->in_count = 0;
    channel->front = LIB_FRONT_NONE;
    channel->closed = true;
    free_if_left(channel);
}

void rf_channel_close(rf_channel_t *channel)
{
    if (channel && !channel->closed) rf_lib_channel_destroy(channel, true);
}

void rf_lib_channel_poison(rf_channel_t *channel, const char *why)
{
    if (channel->muted) return;
    rf_log(RF_LOG_WARN, "channel %llu: peer %llu.%u sent %s: the channel is fenced",
           (unsigned long long)channel->about.channel, (unsigned long long)channel->about.domain,
           channel->about.index, why);
    channel->muted = true; /* what was staged before is still received */
    channel->port.end = RF_ERR_PROTOCOL;
    if (channel->port.link) channel->port.link->transport->fence(channel->port.link);
}

/* How it stands; RF_OK: open. A peer that died leaves memory mapped, which goes when its channel's owner first learns of it. */
static rf_err_t channel_end(rf_channel_t *channel)
{
    rf_link_t *link = channel->port.link;
    if (channel->port.end != RF_OK && link && link->state == RF_LINK_STATE_DEAD &&
        (link->transport->flags & RF_TRANSPORT_LOCAL))
        link->transport->fence(link);
    return channel->port.end;
}

/* ---- receiving ---- */

bool rf_lib_channel_refill(rf_channel_t *channel)
{
    if (channel->muted || !channel->port.link) return false;
    if (channel->in_head > 0) {
        memmove(&channel->in[0], &channel->in[channel->in_head],
                (channel->in_count - channel->in_head) * sizeof channel->in[0]);
        channel->in_count -= channel->in_head;
        channel->in_head = 0;
    }
    unsigned base = channel->in_count;
    if (base == LIB_STAGE_SLOTS) return false;
    unsigned n = channel->transport->poll(channel->port.link, &channel->in[base], LIB_STAGE_SLOTS - base);
    rf_me.news += n;
    unsigned kept = base;
    for (unsigned i = base; i < base + n; i++) {
        if (rf_unlikely(rf_control_type(channel->in[i].control) == RF_STREAM_SLOT)) {
            rf_lib_streams_slot(channel, &channel->in[i]);
            if (channel->muted) break;
        } else {
            if (kept != i) channel->in[kept] = channel->in[i];
            kept++;
        }
    }
    channel->in_count = kept;
    return kept > base;
}

/* Nonsense at the front: nothing behind it is looked at. */
static void poison_here(rf_channel_t *channel, const char *why)
{
    channel->in_head = channel->in_count = 0;
    rf_lib_channel_poison(channel, why);
}

/* The slot at the front is no plain message of one slot. True: the front is known now; false: look at the next slot,
 * or the channel is poisoned. */
static bool front_slow(rf_channel_t *channel, const rf_slot_t *slot)
{
    uint8_t type = rf_control_type(slot->control);
    bool program = type >= 1 && type <= TYPE_MAX;
    if (!program && type != LIB_CALL && type != LIB_REPLY) {
        poison_here(channel, "a slot of an unknown type");
        return false;
    }
    rf_err_t err = rf_assembler_feed(&channel->assembler, slot);
    channel->in_head++;
    if (err == RF_ERR_AGAIN) return false;
    if (err != RF_OK) {
        poison_here(channel, "a message that is too long or changes its type");
        return false;
    }
    const rf_assembler_t *whole = &channel->assembler;
    if (program) {
        channel->front = LIB_FRONT_WHOLE;
        channel->front_is_call = false;
        return true;
    }
    lib_call_head_t head;
    if (whole->size < sizeof head) {
        poison_here(channel, "a call that is too short");
        return false;
    }
    memcpy(&head, whole->bytes, sizeof head);
    if (head.tag == 0 || head.type < 1 || head.type > TYPE_MAX || head.reserved[0] || head.reserved[1] ||
        head.reserved[2]) {
        poison_here(channel, "a call without tag or type");
        return false;
    }
    if (type == LIB_REPLY) {
        rf_lib_call_deliver(channel, whole->bytes, whole->size);
        return false;
    }
    channel->front = LIB_FRONT_WHOLE;
    channel->front_is_call = true;
    return true;
}

bool rf_lib_channel_front(rf_channel_t *channel)
{
    for (;;) {
        if (channel->front != LIB_FRONT_NONE) return true;
        if (channel->in_head == channel->in_count && !rf_lib_channel_refill(channel)) return false;
        const rf_slot_t *slot = &channel->in[channel->in_head];
        uint8_t type = rf_control_type(slot->control);
        if (rf_likely(type - 1u < TYPE_MAX && !rf_control_more(slot->control) && !channel->assembler.open)) {
            channel->front = LIB_FRONT_SLOT;
            return true;
        }
        if (front_slow(channel, slot)) return true;
    }
}

/* Takes the front message. RF_ERR_AGAIN: none, and the channel is open. */
rf_err_t rf_lib_channel_take(rf_channel_t *channel, rf_message_t *message)
{
    if (!rf_lib_channel_front(channel))
        return channel->port.end == RF_OK ? RF_ERR_AGAIN : channel_end(channel);
    if (rf_likely(channel->front == LIB_FRONT_SLOT)) {
        const rf_slot_t *slot = &channel->in[channel->in_head];
        size_t size = rf_control_length(slot->control);
        message->size = size;
        if (rf_likely(message->room >= RF_SLOT_PAYLOAD))
            memcpy(message->bytes, slot->payload, RF_SLOT_PAYLOAD);
        else if (size > message->room)
            return RF_ERR_TRUNCATED;
        else if (size)
            memcpy(message->bytes, slot->payload, size);
        message->type = rf_control_type(slot->control);
        message->call = 0;
        channel->in_head++;
        channel->front = LIB_FRONT_NONE;
        return RF_OK;
    }
    const uint8_t *bytes = channel->assembler.bytes;
    size_t size = channel->assembler.size;
    uint8_t type = channel->assembler.type;
    uint32_t call = 0;
    if (channel->front_is_call) {
        lib_call_head_t head;
        memcpy(&head, bytes, sizeof head);
        type = head.type;
        call = head.tag;
        bytes += sizeof head;
        size -= sizeof head;
    }
    message->size = size;
    if (size > message->room) return RF_ERR_TRUNCATED;
    if (size) memcpy(message->bytes, bytes, size);
    message->type = type;
    message->call = call;
    channel->front = LIB_FRONT_NONE;
    return RF_OK;
}

void rf_lib_arm_nap(lib_arm_t *arm)
{
    uint64_t nap_ns = rf_clock_ns() + LIB_NAP_NS;
    if (nap_ns < arm->wake_ns) arm->wake_ns = nap_ns;
}

void rf_lib_arm_channel(rf_channel_t *channel, lib_arm_t *arm)
{
    if (!channel->port.link || channel->port.end != RF_OK || channel->armed_round == arm->round) return;
    if (channel->in_count - channel->in_head == LIB_STAGE_SLOTS) {
        rf_lib_arm_nap(
            arm); /* unread messages fill what we may keep, so the link will go on saying "ready" */
        return;
    }
    channel->armed_round = arm->round;
    if (arm->n < LIB_LINKS_MAX) arm->links[arm->n++] = channel->port.link;
    if (channel->about.same_cpu)
        arm->never_poll = true;
    else
        arm->poll = true;
}

typedef struct receive_wait {
    rf_channel_t *channel;
    rf_message_t *message;
    rf_err_t err;
} receive_wait_t;

static bool receive_ready(void *context)
{
    receive_wait_t *w = context;
    w->err = rf_lib_channel_take(w->channel, w->message);
    return w->err != RF_ERR_AGAIN;
}

static void receive_arm(void *context, lib_arm_t *arm)
{
    rf_lib_arm_channel(((receive_wait_t *)context)->channel, arm);
}

/* Alone on this dispatcher, with a CPU that no peer needs: the answer of a peer that polls is a few hundred nanoseconds away, and
 * the loop's own way of polling would be a good part of that. True: taken, or the channel has ended. */
static bool spin(rf_channel_t *channel, rf_message_t *message, rf_err_t *err)
{
    if (rf_me.n_threads != 1 || rf_me.wait.budget_us == 0 || channel->about.same_cpu) return false;
    if (++rf_me.n_spins % SPINS_PER_LOOK == 0) rf_lib_loop_look();
    uint64_t start = rf_clock_ticks(), budget = SPIN_US * rf_clock_ticks_per_us();
    do {
        for (unsigned i = 0; i < POLLS_PER_CLOCK; i++) {
            *err = rf_lib_channel_take(channel, message);
            if (*err != RF_ERR_AGAIN) return true;
        }
    } while (rf_clock_ticks() - start < budget);
    return false;
}

static __attribute__((noinline)) rf_err_t receive_slow(rf_channel_t *channel, rf_message_t *message,
                                                       uint64_t deadline_ns)
{
    receive_wait_t w = {.channel = channel, .message = message};
    rf_err_t err;
    if (deadline_ns != 0 && spin(channel, message, &err)) return err;
    channel->waiters++;
    err = rf_lib_block(&(lib_wait_t){receive_ready, receive_arm, &w}, deadline_ns);
    rf_lib_channel_leave(channel);
    return err == RF_OK ? w.err : err;
}

rf_err_t rf_channel_receive(rf_channel_t *channel, rf_message_t *message, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_channel_take(channel, message);
    return rf_likely(err != RF_ERR_AGAIN) ? err : receive_slow(channel, message, deadline_ns);
}

rf_err_t rf_channel_try_receive(rf_channel_t *channel, rf_message_t *message)
{
    return rf_lib_channel_take(channel, message);
}

rf_err_t rf_channel_poll_slots(rf_channel_t *channel, rf_channel_slot_t *slots, unsigned max, unsigned *got)
{
    unsigned n = 0;
    while (n < max && rf_lib_channel_front(channel) && channel->front == LIB_FRONT_SLOT) {
        const rf_slot_t *slot = &channel->in[channel->in_head++];
        channel->front = LIB_FRONT_NONE;
        memcpy(slots[n].words, slot->words, sizeof slots[n].words);
        slots[n].type = rf_control_type(slot->control);
        slots[n].size = (uint8_t)rf_control_length(slot->control);
        memset(slots[n].reserved, 0, sizeof slots[n].reserved);
        n++;
    }
    if (n == 0) {
        if (channel->front == LIB_FRONT_WHOLE) return RF_ERR_TRUNCATED;
        return channel->port.end == RF_OK ? RF_ERR_AGAIN : channel_end(channel);
    }
    *got = n;
    return RF_OK;
}

/* ---- sending ---- */

rf_err_t rf_lib_channel_put(rf_channel_t *channel, uint8_t slot_type, const void *head, size_t head_size,
                            const void *body, size_t body_size)
{
    if (rf_unlikely(channel->port.end != RF_OK)) return channel_end(channel);
    size_t size = head_size + body_size;
    if (rf_unlikely(size > RF_SLOT_PAYLOAD))
        return rf_message_send2(channel->port.link, slot_type, head, head_size, body, body_size);
    rf_slot_t slot;
    memset(&slot, 0, sizeof slot); /* what the program did not write must not reach the peer */
    if (head_size) memcpy(slot.payload, head, head_size);
    if (body_size) memcpy(slot.payload + head_size, body, body_size);
    slot.control = rf_control_make(slot_type, (unsigned)size, false, 0);
    return channel->transport->send(channel->port.link, &slot, 1) == 1 ? RF_OK : RF_ERR_AGAIN;
}

typedef struct put_wait {
    rf_channel_t *channel;
    uint8_t slot_type;
    const void *head, *body;
    size_t head_size, body_size;
    rf_err_t err;
} put_wait_t;

static bool put_ready(void *context)
{
    put_wait_t *w = context;
    w->err = rf_lib_channel_put(w->channel, w->slot_type, w->head, w->head_size, w->body, w->body_size);
    if (w->err == RF_OK) w->err = w->channel->transport->flush(w->channel->port.link);
    if (w->err != RF_ERR_AGAIN) return true;
    rf_lib_channel_refill(w->channel); /* acknowledgements and the news of a death come with what is polled */
    return false;
}

static void put_arm(void *context, lib_arm_t *arm)
{
    rf_lib_arm_channel(((put_wait_t *)context)->channel, arm);
}

static __attribute__((noinline)) rf_err_t put_slow(put_wait_t *w, uint64_t deadline_ns)
{
    if (w->channel->port.link) (void)w->channel->transport->flush(w->channel->port.link);
    w->channel->waiters++;
    rf_err_t err = rf_lib_block(&(lib_wait_t){put_ready, put_arm, w}, deadline_ns);
    if (err == RF_OK) err = w->err;
    rf_lib_channel_leave(w->channel);
    return err;
}

rf_err_t rf_lib_channel_put_wait(rf_channel_t *channel, uint8_t slot_type, const void *head, size_t head_size,
                                 const void *body, size_t body_size, uint64_t deadline_ns)
{
    rf_err_t err = rf_lib_channel_put(channel, slot_type, head, head_size, body, body_size);
    if (rf_likely(err == RF_OK)) return channel->transport->flush(channel->port.link);
    if (err != RF_ERR_AGAIN) return err;
    return put_slow(&(put_wait_t){channel, slot_type, head, body, head_size, body_size, RF_ERR_AGAIN},
                    deadline_ns);
}

static rf_err_t check_message(uint8_t type, size_t size)
{
    if (rf_likely(type - 1u < TYPE_MAX && size <= RF_CHANNEL_MESSAGE_MAX)) return RF_OK;
    return rf_lib_fail(RF_ERR_INVALID, "a message has a type of 1 to %d and at most %d bytes", TYPE_MAX,
                       RF_CHANNEL_MESSAGE_MAX);
}

rf_err_t rf_channel_send(rf_channel_t *channel, uint8_t type, const void *bytes, size_t size,
                         uint64_t deadline_ns)
{
    rf_err_t err = check_message(type, size);
    if (rf_unlikely(err != RF_OK)) return err;
    return rf_lib_channel_put_wait(channel, type, NULL, 0, bytes, size, deadline_ns);
}

rf_err_t rf_channel_try_send(rf_channel_t *channel, uint8_t type, const void *bytes, size_t size)
{
    rf_err_t err = check_message(type, size);
    return err == RF_OK ? rf_lib_channel_put(channel, type, NULL, 0, bytes, size) : err;
}

rf_err_t rf_channel_flush(rf_channel_t *channel)
{
    if (channel->port.end != RF_OK) return channel_end(channel);
    return channel->transport->flush(channel->port.link);
}

rf_err_t rf_channel_send_slots(rf_channel_t *channel, const rf_channel_slot_t *slots, unsigned n,
                               unsigned *sent)
{
    if (channel->port.end != RF_OK) return channel_end(channel);
    for (unsigned i = 0; i < n; i++) {
        const rf_slot_t *slot = (const rf_slot_t *)&slots[i];
        /* On this little-endian layout a public slot's last eight bytes are a control word without medium's parts. */
        if (slot->control >> 16 || slots[i].type - 1u >= TYPE_MAX || slots[i].size > RF_CHANNEL_SLOT_BYTES)
            return rf_lib_fail(RF_ERR_INVALID, "slot %u has a wrong type, size or reserved byte", i);
    }
    unsigned taken = channel->transport->send(channel->port.link, (const rf_slot_t *)slots, n);
    rf_err_t err = channel->transport->flush(channel->port.link);
    if (err != RF_OK) return err;
    if (taken == 0 && n > 0) {
        rf_lib_channel_refill(channel);
        return channel->port.end == RF_OK ? RF_ERR_AGAIN : channel_end(channel);
    }
    *sent = taken;
    return RF_OK;
}
_Static_assert(offsetof(rf_channel_slot_t, type) == offsetof(rf_slot_t, control),
               "a type is a control word's low byte");
_Static_assert(RF_CONTROL_LENGTH_SHIFT == 8, "a size is its second");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "public slots are cast to slots");

/* ---- about a channel ---- */

rf_err_t rf_channel_info(rf_channel_t *channel, rf_channel_info_t *out)
{
    const rf_client_connected_t *about = &channel->about;
    rf_channel_info_t info = {
        .id = about->channel,
        .kind = (rf_channel_kind_t)about->kind,
        .same_cpu = about->same_cpu,
        .encrypted = about->kind == RF_CHANNEL_NETWORK && rf_me.identity.encrypt,
        .domain = about->domain,
        .index = about->index,
        .core = about->core,
        .state = channel->port.end,
    };
    memcpy(info.medium, about->medium, sizeof info.medium);
    memcpy(info.user, about->user, sizeof info.user);
    if (channel->port.link) {
        rf_link_stats_t stats = {0};
        channel->transport->stats(channel->port.link, &stats);
        info.slots_sent = stats.slots_sent;
        info.slots_received = stats.slots_received;
        info.wakeups_sent = stats.wakeups_sent;
        info.full = stats.full;
        info.broken = stats.broken;
    }
    *out = info;
    return RF_OK;
}
_Static_assert((int)RF_CHANNEL_KIND_LMP == RF_CHANNEL_LMP && (int)RF_CHANNEL_KIND_URPC == RF_CHANNEL_URPC &&
                   (int)RF_CHANNEL_KIND_NETWORK == RF_CHANNEL_NETWORK,
               "public kinds are the wire's");
