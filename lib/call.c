/*
 * Calls: a request that carries a tag, and the reply that carries it back.
 *
 *   slot type LIB_CALL or LIB_REPLY;  tag 4 | message type 1 | zero 3 | the program's bytes
 *
 * On one core, both ends wait without polling (their channel says same_cpu), so that a call is: publish, wake the
 * peer's futex, wait on one's own: the kernel hands the core over, and back the same way (L4's call and
 * reply-and-wait).
 */
#include "internal.h"

#include <string.h>

#define PLACE_BITS 6
_Static_assert(RF_CALLS_MAX == 1 << PLACE_BITS, "a tag holds the place");

void rf_lib_call_deliver(rf_channel_t *channel, const uint8_t *bytes, size_t size)
{
    lib_call_head_t head;
    memcpy(&head, bytes, sizeof head);
    lib_call_t *call = &channel->calls[(head.tag - 1) & (RF_CALLS_MAX - 1)];
    if (!call->used || call->tag != head.tag || call->done)
        return; /* given up meanwhile, or made up by the peer */
    rf_message_t *reply = call->reply;
    size -= sizeof head;
    reply->size = size;
    reply->type = head.type;
    reply->call = 0;
    call->done = true;
    if (size > reply->room) {
        call->err = RF_ERR_TRUNCATED;
        return;
    }
    if (size) memcpy(reply->bytes, bytes + sizeof head, size);
    call->err = RF_OK;
}

typedef struct call_wait {
    rf_channel_t *channel;
    lib_call_t *call;
} call_wait_t;

static bool call_ready(void *context)
{
    call_wait_t *w = context;
    if (w->call->done) return true;
    bool other = rf_lib_channel_front(w->channel);
    if (w->call->done) return true;
    if (other || w->channel->port.end == RF_OK) return false;
    w->call->err = w->channel->port.end;
    return true;
}

static void call_arm(void *context, lib_arm_t *arm)
{
    call_wait_t *w = context;
    /* A message in front of the reply has to be received by another thread; until then the link cannot help. */
    if (w->channel->front == LIB_FRONT_NONE) rf_lib_arm_channel(w->channel, arm);
}

static rf_err_t check_call(uint8_t type, size_t size)
{
    if (type >= 1 && type <= 15 && size <= RF_CALL_BYTES_MAX) return RF_OK;
    return rf_lib_fail(RF_ERR_INVALID, "a call has a type of 1 to 15 and at most %d bytes",
                       RF_CALL_BYTES_MAX);
}

rf_err_t rf_call(rf_channel_t *channel, uint8_t type, const void *request, size_t size, rf_message_t *reply,
                 uint64_t deadline_ns)
{
    rf_err_t err = check_call(type, size);
    if (err != RF_OK) return err;
    lib_call_t *call = NULL;
    unsigned place = 0;
    for (unsigned i = 0; i < RF_CALLS_MAX && !call; i++) {
        place = (channel->call_count + i) & (RF_CALLS_MAX - 1);
        if (!channel->calls[place].used) call = &channel->calls[place];
    }
    if (!call) return rf_lib_fail(RF_ERR_LIMIT, "%d calls are outstanding on this channel", RF_CALLS_MAX);
    uint32_t tag = (++channel->call_count << PLACE_BITS | place) + 1;
    if (tag == 0) tag = (++channel->call_count << PLACE_BITS | place) + 1;
    *call = (lib_call_t){.used = true, .tag = tag, .reply = reply};
    channel->waiters++;
    lib_call_head_t head = {.tag = tag, .type = type};
    err = rf_lib_channel_put_wait(channel, LIB_CALL, &head, sizeof head, request, size, deadline_ns);
    if (err == RF_OK) {
        call_wait_t w = {channel, call};
        err = rf_lib_block(&(lib_wait_t){call_ready, call_arm, &w}, deadline_ns);
        if (err == RF_OK) err = call->err;
    }
    call->used = false;
    rf_lib_channel_leave(channel);
    return err;
}

rf_err_t rf_reply(rf_channel_t *channel, uint32_t call, uint8_t type, const void *bytes, size_t size,
                  uint64_t deadline_ns)
{
    rf_err_t err = check_call(type, size);
    if (err != RF_OK) return err;
    if (call == 0) return rf_lib_fail(RF_ERR_INVALID, "rf_reply: the message was no call");
    lib_call_head_t head = {.tag = call, .type = type};
    return rf_lib_channel_put_wait(channel, LIB_REPLY, &head, sizeof head, bytes, size, deadline_ns);
}

rf_err_t rf_reply_and_wait(rf_channel_t *channel, uint32_t call, uint8_t type, const void *bytes, size_t size,
                           rf_message_t *next, uint64_t deadline_ns)
{
    if (call != 0) {
        rf_err_t err = rf_reply(channel, call, type, bytes, size, deadline_ns);
        if (err != RF_OK) return err;
    }
    return rf_channel_receive(channel, next, deadline_ns);
}
