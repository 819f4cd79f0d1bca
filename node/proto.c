#include "node/proto.h"

#include <stdlib.h>

/* What the message being decoded may still take. */
static size_t budget;

static void *budget_alloc(void *unused, size_t size)
{
    (void)unused;
    if (size > budget) return NULL;
    budget -= size;
    return malloc(size);
}

static void budget_free(void *unused, void *pointer)
{
    (void)unused;
    free(pointer);
}

static ProtobufCAllocator allocator = {.alloc = budget_alloc, .free = budget_free};

Rackfish__ControlRequest *rf_control_request_unpack(const uint8_t *bytes, size_t size)
{
    budget = RF_PROTO_BUDGET;
    return rackfish__control_request__unpack(&allocator, size, bytes);
}

void rf_control_request_free(Rackfish__ControlRequest *request)
{
    if (request) rackfish__control_request__free_unpacked(request, &allocator);
}

Rackfish__ControlReply *rf_control_reply_unpack(const uint8_t *bytes, size_t size)
{
    budget = RF_PROTO_BUDGET;
    return rackfish__control_reply__unpack(&allocator, size, bytes);
}

void rf_control_reply_free(Rackfish__ControlReply *reply)
{
    if (reply) rackfish__control_reply__free_unpacked(reply, &allocator);
}

Rackfish__Node__PeerFrame *rf_peer_frame_unpack(const uint8_t *bytes, size_t size)
{
    budget = RF_PROTO_BUDGET;
    return rackfish__node__peer_frame__unpack(&allocator, size, bytes);
}

void rf_peer_frame_free(Rackfish__Node__PeerFrame *frame)
{
    if (frame) rackfish__node__peer_frame__free_unpacked(frame, &allocator);
}
