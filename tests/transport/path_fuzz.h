/* What fuzzers of media over paths share: an endpoint without descriptors, a link that is up, and links that deliver the input
 * and take whatever is sent. */
#ifndef RF_TESTS_TRANSPORT_PATH_FUZZ_H
#define RF_TESTS_TRANSPORT_PATH_FUZZ_H

#include "transport/path/path.h"

#include "base/assert.h"
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

#define FUZZ_SENT 5 /* slots that the link has sent before */

typedef struct input_link {
    rf_link_t head;
    const uint8_t *bytes;
    size_t left;
    bool
        checked; /* a medium below has looked at what comes: no slot is of nonsense, and its own bits are taken off */
} input_link_t;

static inline unsigned input_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    input_link_t *input = (input_link_t *)link;
    unsigned n = 0;
    while (n < max && input->left >= sizeof *out) {
        memcpy(&out[n], input->bytes, sizeof *out);
        input->bytes += sizeof *out;
        input->left -= sizeof *out;
        if (input->checked) out[n].control &= RF_CONTROL_CALLERS;
        n += !input->checked || rf_control_valid(out[n].control);
    }
    return n;
}

static inline bool input_ready(rf_link_t *link)
{
    return ((input_link_t *)link)->left >= sizeof(rf_slot_t);
}

static inline unsigned output_room(rf_link_t *link, unsigned want)
{
    (void)link;
    return want;
}

static inline unsigned output_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link, (void)slots;
    return n;
}

static inline rf_err_t output_flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static inline void nothing(rf_link_t *link)
{
    (void)link;
}

static const rf_transport_t input_transport = {
    .name = "input",
    .poll = input_poll,
    .ready = input_ready,
    .room = output_room,
    .send = output_send,
    .flush = output_flush,
    .arm = nothing,
    .close = nothing,
};

static inline void nobody(void *context, rf_link_t *link, rf_link_event_t event,
                          const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)event, (void)info;
}

/* Entered; path_fuzz_over() frees it. */
static inline path_endpoint_t *path_fuzz_endpoint(const path_medium_t *medium)
{
    path_endpoint_t *ep = calloc(1, medium->endpoint_size);
    rf_assert(ep);
    ep->head.transport = medium->transport;
    ep->medium = medium;
    ep->on_event = nobody;
    ep->timer_ns = RF_NEVER;
    ep->kick = -1;
    ep->in_progress = true;
    ep->deadline_ns = PATH_DEADLINE_NS_DEFAULT;
    path_endpoint_enter(ep);
    return ep;
}

static inline path_link_t *path_fuzz_link(path_endpoint_t *ep, bool dialer)
{
    path_link_t *link = path_link_new(ep, NULL);
    rf_assert(link && path_bulk_need(link) == RF_OK);
    link->head.state = RF_LINK_STATE_UP;
    link->was_up = true;
    link->slots_head = link->posted = link->sent_max = FUZZ_SENT;
    link->dialer = dialer;
    return link;
}

static inline void path_fuzz_check(const path_link_t *link)
{
    rf_assert(link->delivered <= link->accepted && link->acked <= link->posted);
    rf_assert(link->posted <= link->slots_head && link->sent_max <= link->slots_head);
}

static inline void path_fuzz_over(path_link_t *link)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    link->control = NULL;
    path_link_bury(link);
    path_endpoint_leave(ep);
    free(ep);
}

#endif
