/*
 * Slots of a link: into frames and out of them.
 *
 * Out: slots wait in a ring until the peer says it has taken them; flush() copies those not yet framed behind a
 * frame's head into `out`, and one send takes them all. In: one receive takes what there is into `rx`, poll() serves
 * slots from it one by one, also of a frame that has not come whole. Acknowledgements ride on frames; when a ring is
 * half full, or a send was refused, the frame asks for one (WANT_ACK), and the receiver answers as soon as those
 * slots have been taken.
 *
 * Idle links cost nothing: after TCP_HOT_POLLS receives in vain, or arm(), a link receives only when the epoll set
 * said that there is something; polls of such links ask the set once for all of them.
 */
#include "transport/tcp/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define ACK_EVERY          1024 /* delivered slots that are acknowledged even if nobody asked */
#define PUSH_RETRY_POLLS   16   /* polls between sends to a socket that was full */
#define ABSORB_ROUNDS_MAX  64
#define BULK_REFRESH_POLLS 8 /* polls of a link with a bulk connection between looks at the epoll set */

static bool ring_grow(tcp_link_t *link, uint32_t size)
{
    return rf_ring_resize(&link->ring, &link->ring_size, size, link->acked, link->slots_head);
}

rf_err_t tcp_link_size(tcp_link_t *link, const rf_link_params_t *params)
{
    uint32_t slots, slots_max;
    rf_err_t err = rf_ring_sizes(params, &slots, &slots_max);
    if (err != RF_OK) return err;
    if (slots > link->ring_size && !ring_grow(link, slots)) return RF_ERR_NO_MEMORY;
    link->slots_max = slots_max > link->ring_size ? slots_max : link->ring_size;
    return RF_OK;
}

tcp_link_t *tcp_link_new(tcp_endpoint_t *ep, const rf_link_params_t *params)
{
    static const rf_link_params_t defaults;
    if (!params) params = &defaults;
    tcp_link_t *link = calloc(1, sizeof *link);
    if (!link) return NULL;
    link->head.transport = &rf_transport_tcp;
    link->head.endpoint = &ep->head;
    link->head.user = params->user;
    link->head.state = RF_LINK_STATE_CONNECTING;
    link->hello = params->hello ? *params->hello : ep->self;
    link->key_size = (uint32_t)(params->key ? params->key_size : ep->key_size);
    memcpy(link->key, params->key ? params->key : ep->key, link->key_size);
    link->dial_ns = link->dead_ns = link->ack_due_at = RF_NEVER;
    link->backoff_ns = TCP_BACKOFF_NS_MIN;
    link->connect_ns = TCP_CONNECT_NS_MIN;
    link->out = malloc(TCP_BUFFER);
    link->rx = malloc(TCP_BUFFER);
    if (!link->out || !link->rx || tcp_link_size(link, params) != RF_OK) {
        free(link->out);
        free(link->rx);
        free(link->ring);
        free(link);
        return NULL;
    }
    link->next = ep->links;
    if (ep->links) ep->links->prev = link;
    ep->links = link;
    ep->n_links++;
    return link;
}

/* --- out ---------------------------------------------------------------------------------------------------- */

static inline uint32_t ring_free(const tcp_link_t *link)
{
    return link->ring_size - (uint32_t)(link->slots_head - link->acked);
}

static void ring_copy_out(const tcp_link_t *link, uint64_t first, uint32_t n, uint8_t *to)
{
    uint32_t at = (uint32_t)first & (link->ring_size - 1);
    uint32_t piece = link->ring_size - at < n ? link->ring_size - at : n;
    memcpy(to, &link->ring[at], piece * sizeof(rf_slot_t));
    memcpy(to + piece * sizeof(rf_slot_t), link->ring, (n - piece) * sizeof(rf_slot_t));
}

/* Puts frames behind what is still to be sent, as many as fit. */
static void frames_build(tcp_link_t *link)
{
    for (;;) {
        uint64_t waiting = link->slots_head - link->framed;
        bool close_due = link->say_close && waiting == 0;
        if (waiting == 0 && !link->say_ack && !link->want_ack && !close_due && !link->say_bulk) return;
        uint32_t space = TCP_BUFFER - link->out_tail;
        if (space < sizeof(tcp_frame_t) + (waiting ? sizeof(rf_slot_t) : 0)) return;
        uint32_t n = (space - (uint32_t)sizeof(tcp_frame_t)) / (uint32_t)sizeof(rf_slot_t);
        if (n > TCP_SLOTS_PER_FRAME_MAX) n = TCP_SLOTS_PER_FRAME_MAX;
        if (n > waiting) n = (uint32_t)waiting;
        tcp_frame_t frame = {.slots = (uint16_t)n, .sequence = link->framed, .delivered = link->delivered};
        if (link->bulk) frame.placed = link->bulk->placed_said = link->bulk->placed;
        uint8_t *at = link->out + link->out_tail;
        if (n > 0) ring_copy_out(link, link->framed, n, at + sizeof frame);
        link->framed += n;
        if (link->framed > link->sent_max) link->sent_max = link->framed;
        if (link->want_ack || link->framed - link->acked >= link->ring_size / 2) {
            frame.flags |= TCP_FRAME_WANT_ACK;
            link->ack_asked_at = link->framed;
            link->want_ack = false;
        }
        if (close_due && n == 0) {
            frame.flags |= TCP_FRAME_CLOSE;
            link->say_close = false;
            link->close_framed = true;
        }
        if (link->say_bulk) {
            frame.flags |= TCP_FRAME_WANT_BULK;
            link->say_bulk = false;
        }
        memcpy(at, &frame, sizeof frame);
        link->out_tail += (uint32_t)sizeof frame + n * (uint32_t)sizeof(rf_slot_t);
        link->delivered_said = link->delivered;
        link->say_ack = false;
    }
}

void tcp_push(tcp_link_t *link)
{
    tcp_conn_t *conn = link->conn;
    if (!conn || conn->tx_dead || link->head.state != RF_LINK_STATE_UP) return;
    for (;;) {
        frames_build(link);
        if (link->out_head == link->out_tail) return;
        int64_t sent = tcp_conn_send(conn, link->out + link->out_head, link->out_tail - link->out_head);
        if (sent == TCP_IO_AGAIN) return;
        if (sent < 0) {
            conn->tx_dead = conn->readable = true;
            return;
        }
        link->stats.flushes++;
        link->out_head += (uint32_t)sent;
        if (link->out_head == link->out_tail) link->out_head = link->out_tail = 0;
    }
}

/* A send was refused: the peer is asked to say what it has taken, unless it has been asked. */
static void room_ask(tcp_link_t *link)
{
    if (link->ack_asked_at <= link->acked && link->slots_head > link->acked) {
        link->want_ack = true;
        tcp_push(link);
    }
}

unsigned tcp_room(rf_link_t *link_head, unsigned want)
{
    tcp_link_t *link = tcp_link_of(link_head);
    if ((link_head->state != RF_LINK_STATE_UP && link_head->state != RF_LINK_STATE_BROKEN) ||
        link->end_pending)
        return 0;
    uint32_t used = (uint32_t)(link->slots_head - link->acked);
    uint32_t size = rf_ring_size_for(link->ring_size, link->slots_max, used, want);
    if (size > link->ring_size && !ring_grow(link, size) && rf_log_level() >= RF_LOG_DEBUG)
        rf_log(RF_LOG_DEBUG, "tcp: no memory to grow a ring to %u slots", size);
    unsigned free_slots = ring_free(link);
    if (free_slots < want) {
        link->room_wanted = want < link->ring_size ? want : link->ring_size;
        room_ask(link);
    }
    return free_slots;
}

unsigned tcp_send(rf_link_t *link_head, const rf_slot_t *slots, unsigned n)
{
    tcp_link_t *link = tcp_link_of(link_head);
    if (rf_unlikely(link_head->state != RF_LINK_STATE_UP)) {
        if (link_head->state != RF_LINK_STATE_BROKEN || link->end_pending) return 0;
    }
    if (rf_unlikely(n > ring_free(link))) {
        unsigned room = tcp_room(link_head, n);
        if (room < n) {
            link->stats.full++;
            n = room;
        }
    }
    rf_ring_put(link->ring, link->ring_size, link->slots_head, slots, n);
    link->slots_head += n;
    return n;
}

rf_err_t tcp_flush(rf_link_t *link_head)
{
    tcp_link_t *link = tcp_link_of(link_head);
    if (rf_unlikely(link_head->state == RF_LINK_STATE_DEAD || link->end_pending))
        return link->fenced                     ? RF_ERR_FENCED
               : link->end_err == RF_ERR_CLOSED ? RF_ERR_CLOSED
                                                : RF_ERR_PEER_DEAD;
    if (link->slots_head != link->framed || link->out_head != link->out_tail) tcp_push(link);
    return RF_OK;
}

/* --- in ----------------------------------------------------------------------------------------------------- */

void tcp_protocol_error(tcp_link_t *link, const char *what)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    link->stats.protocol_errors++;
    if (rf_log_once_per(&ep->log_garbage_ns, TCP_LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "tcp: the peer at %s sent %s; its link ends", link->address_text, what);
    link->rx_head = link->rx_tail = 0;
    link->rx_slots = 0;
    tcp_link_end(link, RF_ERR_PROTOCOL);
}

/* The peer has taken `delivered` slots. False: it cannot have. */
static bool acked(tcp_link_t *link, uint64_t delivered)
{
    if (delivered > link->sent_max) return false;
    if (delivered <= link->acked) return true; /* nothing new, or an older word from the connection before */
    link->acked = delivered;
    if (link->framed < delivered) link->framed = delivered;
    if (link->room_wanted != 0) {
        if (ring_free(link) >= link->room_wanted) {
            link->room_wanted = 0;
            tcp_event(link, RF_LINK_ROOM, RF_OK, NULL, 0);
        } else {
            room_ask(link);
        }
    }
    if (link->user_closed && link->close_framed && link->acked == link->slots_head &&
        link->out_head == link->out_tail)
        tcp_link_bury(link);
    return true;
}

/* What is wrong with a frame's head; NULL: nothing. */
static const char *frame_wrong(const tcp_link_t *link, const tcp_frame_t *frame)
{
    if (frame->slots > TCP_SLOTS_PER_FRAME_MAX || (frame->flags & ~TCP_FRAME_FLAGS) || frame->reserved != 0)
        return "a frame that makes no sense";
    if (frame->sequence > link->delivered || ((frame->flags & TCP_FRAME_CLOSE) && frame->slots != 0) ||
        ((frame->flags & TCP_FRAME_WANT_BULK) && !link->dialer))
        return "a frame out of order";
    return NULL;
}

/* Acts on a frame's head that was taken from the buffer. False: serving stops here. */
static bool frame_take(tcp_link_t *link, const tcp_frame_t *frame)
{
    link->rx_slots = frame->slots;
    link->rx_sequence = frame->sequence;
    if ((frame->flags & TCP_FRAME_WANT_ACK) && !link->rx_stale) {
        link->ack_wanted_at = frame->sequence + frame->slots;
        if (link->ack_due_at == RF_NEVER) link->ack_due_at = link->ack_wanted_at;
    }
    if (!acked(link, frame->delivered)) {
        tcp_protocol_error(link, "an acknowledgement of slots never sent");
        return false;
    }
    if (frame->placed != 0 && !tcp_bulk_placed(link, frame->placed)) {
        tcp_protocol_error(link, "an acknowledgement of bytes never sent");
        return false;
    }
    if (link->buried || link->fenced || link->user_closed)
        return link->user_closed && !link->buried && !(frame->flags & TCP_FRAME_CLOSE);
    if ((frame->flags & TCP_FRAME_WANT_BULK) && tcp_bulk_need(link) == RF_OK) tcp_bulk_dial(link);
    if (frame->flags & TCP_FRAME_CLOSE) {
        tcp_link_closed(link);
        return false;
    }
    return true;
}

/* Serves up to `max` slots from the buffer. */
static unsigned serve(tcp_link_t *link, rf_slot_t *out, unsigned max)
{
    unsigned n = 0;
    while (link->rx_head != link->rx_tail) {
        uint32_t there = link->rx_tail - link->rx_head;
        if (link->rx_slots == 0) {
            tcp_frame_t frame;
            if (there < sizeof frame) break;
            memcpy(&frame, link->rx + link->rx_head, sizeof frame);
            const char *wrong = frame_wrong(link, &frame);
            if (n > 0 && (wrong || (frame.flags & TCP_FRAME_CLOSE)))
                break; /* what was served in this call is with its owner before the end is told */
            link->rx_head += (uint32_t)sizeof frame;
            if (wrong) tcp_protocol_error(link, wrong);
            if (wrong || !frame_take(link, &frame)) return n;
            continue;
        }
        if (n == max || there < sizeof(rf_slot_t)) break;
        const uint8_t *from = link->rx + link->rx_head;
        uint64_t control;
        memcpy(&control, from + offsetof(rf_slot_t, control), sizeof control);
        if (!rf_control_valid(control) || (control & ~RF_CONTROL_CALLERS) ||
            rf_control_type(control) >= RF_SLOT_TYPE_MEDIUM) {
            if (n == 0) tcp_protocol_error(link, "a slot that makes no sense");
            return n;
        }
        if (link->rx_sequence == link->delivered) { /* else it came before the break already */
            memcpy(&out[n++], from, sizeof *out);
            link->delivered++;
        }
        link->rx_sequence++;
        link->rx_slots--;
        link->rx_head += (uint32_t)sizeof(rf_slot_t);
    }
    if (link->rx_head == link->rx_tail) {
        link->rx_head = link->rx_tail = 0;
        if (link->rx_stale) link->rx_slots = 0;
        link->rx_stale = false;
    } else if (link->rx_stale && n == 0) { /* the broken connection ended within this item */
        link->rx_head = link->rx_tail = 0;
        link->rx_slots = 0;
        link->rx_stale = false;
    }
    return n;
}

/* Receives once into the buffer; TCP_IO_*, or how many bytes. Runs no callback. */
static int64_t receive(tcp_link_t *link)
{
    tcp_conn_t *conn = link->conn;
    if (link->rx_head != 0) {
        uint32_t there = link->rx_tail - link->rx_head;
        memmove(link->rx, link->rx + link->rx_head, there);
        link->rx_head = 0;
        link->rx_tail = there;
    }
    if (link->rx_tail == TCP_BUFFER) return TCP_IO_AGAIN;
    int64_t got = tcp_conn_recv(conn, link->rx + link->rx_tail, TCP_BUFFER - link->rx_tail);
    if (got > 0) {
        link->rx_tail += (uint32_t)got;
        link->hot = TCP_HOT_POLLS;
    } else if (got == TCP_IO_AGAIN && conn->tx_dead) {
        got = TCP_IO_END; /* what had arrived has been read */
    } else if (got == TCP_IO_AGAIN) {
        link->hot -= link->hot > 0;
    }
    return got;
}

/* The same, and acts on the end of the connection. False: nothing came. */
static bool fill(tcp_link_t *link)
{
    int64_t got = receive(link);
    if (got > 0) return true;
    if (got == TCP_IO_AGAIN) return false;
    bool timed_out = got == TCP_IO_ERROR && !link->conn->tls && errno == ETIMEDOUT;
    tcp_link_broken(link, timed_out ? RF_ERR_TIMEOUT : RF_ERR_CLOSED,
                    timed_out ? tcp_endpoint_of(link)->deadline_ns / 2 : 0);
    return false;
}

void tcp_absorb(tcp_link_t *link)
{
    rf_slot_t scratch[16];
    for (unsigned i = 0; i < ABSORB_ROUNDS_MAX && link->conn && !link->buried; i++) {
        if (link->user_closed) {
            while (serve(link, scratch, 16) > 0) continue; /* nobody takes them any more */
            if (link->buried || !link->conn) return;
        }
        if (link->rx_stale || !fill(link)) return;
    }
}

/* Whether the buffer holds something that serve() can deal with. */
static bool served_something(const tcp_link_t *link)
{
    uint32_t there = link->rx_tail - link->rx_head;
    return there >= (link->rx_slots ? sizeof(rf_slot_t) : sizeof(tcp_frame_t)) ||
           (link->rx_stale && there > 0);
}

/* Receives if it is worth a system call: see the head of this file. */
static bool fill_if_due(tcp_link_t *link)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (!link->armed && link->conn && (link->hot > 0 || ep->n_links == 1))
        return link->head.state == RF_LINK_STATE_UP && fill(link);
    if (!link->armed && ++ep->cold_polls >= ep->n_links) tcp_refresh(ep);
    return !link->buried && link->conn && link->head.state == RF_LINK_STATE_UP && !link->rx_stale &&
           tcp_conn_more(link->conn) && fill(link);
}

unsigned tcp_poll(rf_link_t *link_head, rf_slot_t *out, unsigned max)
{
    tcp_link_t *link = tcp_link_of(link_head);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (link->fenced || max == 0) return 0;
    tcp_enter(ep);
    unsigned n = serve(link, out, max);
    if (n == 0 && !link->buried && fill_if_due(link)) n = serve(link, out, max);
    if (link->buried) goto leave;
    if (link->bulk) {
        if (n < max) n += tcp_bulk_notified(link, out + n, max - n);
        if (link->bulk->conn && !link->armed && ++link->bulk->polls % BULK_REFRESH_POLLS == 0)
            tcp_refresh(ep);
        if (!link->buried && tcp_bulk_ready(link)) tcp_bulk_pump(link);
    }
    bool asked = link->delivered >= link->ack_due_at && link->delivered_said < link->ack_due_at;
    if (link->delivered >= link->ack_due_at)
        link->ack_due_at = link->ack_wanted_at > link->delivered ? link->ack_wanted_at : RF_NEVER;
    if (asked || link->delivered - link->delivered_said >= ACK_EVERY) {
        link->say_ack = true;
        link->stats.acks_explicit++;
        tcp_push(link);
    } else if (rf_unlikely(link->out_head != link->out_tail) && ++link->push_waits % PUSH_RETRY_POLLS == 0) {
        tcp_push(link);
    }
    if (n == 0 && rf_unlikely(link->end_pending)) tcp_link_end_settle(link);
leave:
    tcp_leave(ep);
    return n;
}

void tcp_arm(rf_link_t *link_head)
{
    tcp_link_t *link = tcp_link_of(link_head);
    link->armed = true;
    link->hot = 0; /* who slept asks the epoll set first when awake again */
}

void tcp_disarm(rf_link_t *link)
{
    tcp_link_of(link)->armed = false;
}

bool tcp_ready(rf_link_t *link_head)
{
    tcp_link_t *link = tcp_link_of(link_head);
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    tcp_conn_t *conn = link->conn;
    if (link->fenced) return false;
    if (served_something(link) || link->end_pending || (conn && tcp_conn_more(conn)) || tcp_bulk_ready(link))
        return true;
    if (link->armed) return false; /* what comes from now on makes the endpoint's descriptor readable */
    if (conn && link->head.state == RF_LINK_STATE_UP && (link->hot > 0 || ep->n_links == 1)) {
        int64_t got = receive(link);
        /* An end is told by poll(), which may call back: until then there is something to receive. */
        if (got == TCP_IO_END || got == TCP_IO_ERROR) conn->hup = conn->readable = true;
        return got == TCP_IO_END || got == TCP_IO_ERROR || served_something(link);
    }
    if (++ep->cold_polls < ep->n_links) return false;
    ep->cold_polls = 0;
    struct pollfd set = {.fd = ep->epoll, .events = POLLIN};
    return poll(&set, 1, 0) > 0; /* for some link or other: poll() or progress() finds out */
}

void tcp_link_up(tcp_link_t *link, tcp_conn_t *conn, uint64_t peer_delivered)
{
    tcp_endpoint_t *ep = tcp_endpoint_of(link);
    if (peer_delivered < link->acked || peer_delivered > link->sent_max) {
        tcp_conn_free(ep, conn);
        tcp_protocol_error(link, "a count of slots never sent");
        return;
    }
    conn->role = TCP_ROLE_MAIN;
    conn->link = link;
    conn->readable = conn->writable = true;
    link->conn = conn;
    link->acked = link->framed = peer_delivered;
    link->stats.retransmitted += link->sent_max - peer_delivered;
    link->ack_asked_at = peer_delivered;
    link->delivered_said = link->delivered;
    link->ack_due_at = RF_NEVER;
    link->ack_wanted_at = 0;
    link->out_head = link->out_tail = 0;
    if (link->rx_head == link->rx_tail) {
        link->rx_stale = false;
        link->rx_slots = 0;
    }
    link->hot = TCP_HOT_POLLS;
    link->up_ns = rf_clock_ns();
    if (!link->was_up) link->backoff_ns = TCP_BACKOFF_NS_MIN;
    link->connect_ns = TCP_CONNECT_NS_MIN;
    link->was_up = true;
    link->dial_ns = RF_NEVER;
    link->say_close = link->user_closed;
    link->close_framed = false;
    if (!link->user_closed) link->dead_ns = RF_NEVER;
    link->head.state = RF_LINK_STATE_UP;
    const rf_hello_t peer = link->head.peer;
    tcp_event(link, RF_LINK_UP, RF_OK, &peer, 0);
    if (link->conn != conn) return;
    if (link->room_wanted != 0 && ring_free(link) >= link->room_wanted) {
        link->room_wanted = 0;
        tcp_event(link, RF_LINK_ROOM, RF_OK, NULL, 0);
        if (link->conn != conn) return;
    }
    link->want_ack = link->room_wanted != 0 && link->slots_head > link->acked;
    if (link->bulk) tcp_bulk_pump(link);
    if (link->conn == conn) tcp_push(link);
}

void tcp_stats(rf_link_t *link_head, rf_link_stats_t *out)
{
    tcp_link_t *link = tcp_link_of(link_head);
    link->stats.slots_sent = link->slots_head;
    link->stats.slots_received = link->delivered;
    link->stats.ring_slots_send = link->stats.ring_slots_receive = link->ring_size;
    *out = link->stats;
}
