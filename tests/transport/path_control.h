/* A control link for tests of media over paths: it delivers what a test lets the peer say, and keeps what is said to the peer.
 * Included by one file of each test, after cmocka.h. */
#ifndef RF_TESTS_TRANSPORT_PATH_CONTROL_H
#define RF_TESTS_TRANSPORT_PATH_CONTROL_H

#include "base/clock.h"
#include "transport/path/path.h"

#include <string.h>

#define CONTROL_IN 64

static struct {
    rf_link_t head; /* its user is the link */
    rf_slot_t in[CONTROL_IN];
    unsigned n, at;
    bool full;
    unsigned looks;               /* calls of its endpoint's progress() */
    uint64_t next_ns;             /* ... which wants to be called then; 0: never */
    unsigned said[UINT8_MAX + 1]; /* messages, by type */
    rf_slot_t last;               /* the first slot of the last of them */
} control;

static inline bool control_ready(rf_link_t *link)
{
    (void)link;
    return control.at < control.n;
}

static inline unsigned control_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    (void)link;
    unsigned n = 0;
    while (n < max && control.at < control.n) out[n++] = control.in[control.at++];
    return n;
}

static inline unsigned control_room(rf_link_t *link, unsigned want)
{
    (void)link;
    return control.full ? 0 : want;
}

static inline unsigned control_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link;
    if (control.full || n == 0) return 0;
    control.last = slots[0];
    control.said[rf_control_type(slots[0].control)]++;
    return n;
}

static inline rf_err_t control_flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static inline void control_nothing(rf_link_t *link)
{
    (void)link;
}

static inline void control_progress(rf_endpoint_t *ep, uint64_t now_ns, uint64_t *next_ns)
{
    (void)ep, (void)now_ns;
    control.looks++;
    *next_ns = control.next_ns ? control.next_ns : RF_NEVER;
}

static const rf_transport_t control_transport = {.endpoint_progress = control_progress,
                                                 .ready = control_ready,
                                                 .poll = control_poll,
                                                 .room = control_room,
                                                 .send = control_send,
                                                 .flush = control_flush,
                                                 .arm = control_nothing,
                                                 .close = control_nothing};

static inline void control_reset(void)
{
    memset(&control, 0, sizeof control);
    control.head.transport = &control_transport;
    control.head.state = RF_LINK_STATE_UP;
}

/* The peer says this over the control link. */
static inline void control_says(uint8_t type, const void *bytes, size_t size)
{
    const uint8_t *from = size > 0 ? bytes : (const void *)"";
    if (control.at == control.n) control.at = control.n = 0;
    do {
        size_t part = size < RF_SLOT_PAYLOAD ? size : RF_SLOT_PAYLOAD;
        rf_slot_t *slot = &control.in[control.n++];
        assert_true(control.n <= CONTROL_IN);
        *slot = (rf_slot_t){.control = rf_control_make(type, (unsigned)part, size > part, 0)};
        if (part > 0) memcpy(slot->payload, from, part);
        from += part;
        size -= part;
    } while (size > 0);
    while (control.head.user && path_control_poll(control.head.user, 1)) {
    }
}

#endif
