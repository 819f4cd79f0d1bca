/*
 * The control link: who makes paths, and when. format.h has the order of things.
 *
 * The dialer of the control link offers; a listener that has lost its path, or wants a bulk lane, says LOST. A path that
 * is not up PATH_MAKING_NS_MAX after its beginning is given up and made anew, later each time, until the link's deadline.
 * What the control link has no room for is said again by path_control_push(): everything said follows from state.
 *
 *   dialer     NONE --due--> MAKING --made: OFFER--> OFFERED --ANSWER--> JOINING --joined: HELLO--> HELLO --HELLO--> UP
 *   listener   NONE --OFFER--> MAKING --made, joined: ANSWER--> ANSWERED ----------HELLO: HELLO-------------------> UP
 *
 *   any -> NONE: refused, failed, lost or overdue; the dialer is due again later, the listener says LOST
 */
#include "transport/path/path.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

#define CONTROL_BATCH 16
#define POLL_ALL      UINT32_MAX
#define STEADY_NS     (20 * RF_NS_PER_MS) /* a path that lasted so long starts the back-off anew */
#define FLAP_NS_MAX   (16 * RF_NS_PER_MS) /* back-off of one that comes up, and breaks at once */

static const rf_transport_t *control_of(const path_link_t *link)
{
    return link->control->transport;
}

bool path_control_say(path_link_t *link, uint8_t type, const void *bytes, size_t size)
{
    if (!link->control || rf_message_send(link->control, type, bytes, size) != RF_OK) return false;
    control_of(link)->flush(link->control);
    return true;
}

static bool complains(path_link_t *link)
{
    return !link->user_closed && rf_log_once_per(&path_endpoint_of(link)->log_path_ns, PATH_LOG_INTERVAL_NS);
}

/* Ended or closed: it makes no path any more, whatever the peer asks for. */
static bool is_over(const path_link_t *link)
{
    return link->head.state == RF_LINK_STATE_DEAD || link->end_pending || link->buried;
}

/* --- making paths ------------------------------------------------------------------------------------------- */

static void offer_later(path_lane_t *lane, uint64_t now_ns)
{
    lane->offer_ns = now_ns + lane->backoff_ns;
    lane->backoff_ns =
        lane->backoff_ns * 2 < PATH_BACKOFF_NS_MAX ? lane->backoff_ns * 2 : PATH_BACKOFF_NS_MAX;
    path_endpoint_timer(path_endpoint_of(lane->link), lane->offer_ns);
}

/* The peer is told that a new offer is welcome, or with an error that there will be no path. */
static void lost_say(path_lane_t *lane, rf_err_t err)
{
    lane->lost_due = true;
    lane->lost_err = err;
    path_control_push(lane->link);
}

/* From its beginning until it is up, no path is waited for longer than this: neither what makes it nor the peer may answer. */
static void begin(path_lane_t *lane, const path_info_t *offer, uint64_t now_ns)
{
    path_endpoint_t *ep = path_endpoint_of(lane->link);
    uint64_t half_ns = ep->deadline_ns / 2;
    lane->stage = PATH_MAKING;
    lane->overdue_ns = now_ns + (half_ns < PATH_MAKING_NS_MAX ? half_ns : PATH_MAKING_NS_MAX);
    path_endpoint_timer(ep, lane->overdue_ns);
    ep->medium->make(lane, offer);
}

static void offer(path_lane_t *lane, uint64_t now_ns)
{
    lane->offer_ns = RF_NEVER;
    if (is_over(lane->link)) return;
    lane->generation++;
    begin(lane, NULL, now_ns);
}

void path_lane_drop(path_lane_t *lane)
{
    path_medium_of(lane->link)->drop(lane);
    lane->stage = PATH_NONE;
    lane->failed = false;
    lane->overdue_ns = RF_NEVER;
    explicit_bzero(lane->offer, sizeof lane->offer);
}

void path_lane_failed(path_lane_t *lane)
{
    lane->failed = true;
    path_link_attention(lane->link);
}

void path_lane_refused(path_lane_t *lane)
{
    path_lane_drop(lane);
    if (is_over(lane->link)) return;
    if (lane->link->dialer)
        offer_later(lane, rf_clock_ns());
    else
        lost_say(lane, RF_OK);
}

void path_lane_impossible(path_lane_t *lane, rf_err_t err)
{
    lost_say(lane, err);
    path_link_end(lane->link, err);
}

void path_lane_need(path_lane_t *lane, uint64_t now_ns)
{
    path_link_t *link = lane->link;
    if (lane->stage != PATH_NONE || !link->control || is_over(link)) return;
    if (!link->dialer)
        lost_say(lane, RF_OK);
    else if (lane->offer_ns == RF_NEVER)
        offer_later(lane, now_ns);
}

void path_lane_lost(path_lane_t *lane, rf_err_t err, bool again)
{
    uint64_t now_ns = rf_clock_ns();
    if (lane->stage == PATH_UP) {
        bool steady = now_ns - lane->up_ns > STEADY_NS;
        uint64_t most_ns = steady ? PATH_BACKOFF_NS_MIN : FLAP_NS_MAX;
        if (lane->backoff_ns > most_ns) lane->backoff_ns = most_ns;
    }
    if (lane->number == PATH_LANE_SLOTS) {
        path_link_broken(lane->link, err);
        return;
    }
    path_lane_drop(lane);
    if (again) path_lane_need(lane, now_ns);
}

/* --- what is said of a path --------------------------------------------------------------------------------- */

static rf_err_t info_say(path_lane_t *lane, uint8_t type, const path_info_t *info)
{
    bool said = path_control_say(lane->link, type, info, path_medium_of(lane->link)->info_size);
    return said ? RF_OK : RF_ERR_AGAIN;
}

void path_lane_made(path_lane_t *lane)
{
    path_link_t *link = lane->link;
    const path_medium_t *medium = path_medium_of(link);
    uint8_t bytes[PATH_INFO_MAX] __attribute__((aligned(8))) = {0};
    path_info_t *info = (path_info_t *)(void *)bytes;
    memcpy(info->magic, medium->magic, sizeof info->magic);
    info->format = medium->format;
    info->lane = (uint8_t)lane->number;
    info->generation = lane->generation;
    info->accepted = lane->number == PATH_LANE_SLOTS ? link->accepted : link->bulk->placed;
    lane->stage = link->dialer ? PATH_OFFERED : PATH_ANSWERED;
    rf_err_t err = medium->info(lane, info);
    if (err == RF_OK && !link->dialer) {
        err = medium->join(lane, (const path_info_t *)(const void *)lane->offer);
        explicit_bzero(lane->offer, sizeof lane->offer);
    }
    if (err == RF_OK) err = info_say(lane, link->dialer ? PATH_CONTROL_OFFER : PATH_CONTROL_ANSWER, info);
    explicit_bzero(bytes, sizeof bytes);
    if (err != RF_OK) path_lane_refused(lane);
}

void path_lane_joined(path_lane_t *lane)
{
    path_word_t hello = {.flags = PATH_WORD_HELLO, .generation = lane->generation};
    lane->stage = PATH_HELLO;
    if (!path_medium_of(lane->link)->say(lane, &hello)) path_lane_failed(lane);
}

void path_lane_hello(path_lane_t *lane)
{
    path_link_t *link = lane->link;
    path_word_t hello = {.flags = PATH_WORD_HELLO, .generation = lane->generation};
    if (lane->stage != PATH_ANSWERED && lane->stage != PATH_HELLO) {
        path_link_wrong(link, "a second HELLO");
        return;
    }
    if (lane->stage == PATH_ANSWERED && !path_medium_of(link)->say(lane, &hello)) {
        path_lane_failed(lane);
        return;
    }
    lane->stage = PATH_UP;
    lane->up_ns = rf_clock_ns();
    lane->overdue_ns = RF_NEVER;
    lane->overdue = 0;
    lane->wanted = false;
    bool possible = lane->number == PATH_LANE_SLOTS ? path_link_resume(link, lane->peer_accepted)
                                                    : path_bulk_resume(link, lane->peer_accepted);
    if (!possible) path_link_wrong(link, "a count of what was never sent");
    path_link_attention(link);
}

/* --- what the peer says ------------------------------------------------------------------------------------- */

/* RF_OK, or why no path can come of it. */
static rf_err_t info_check(const path_link_t *link, const path_info_t *info, size_t size)
{
    const path_medium_t *medium = path_medium_of(link);
    if (memcmp(info->magic, medium->magic, sizeof info->magic) != 0) return RF_ERR_PROTOCOL;
    if (info->format != medium->format) return RF_ERR_VERSION; /* its size may differ, too */
    bool right = size == medium->info_size && info->lane < PATH_LANES && medium->info_right(info);
    return right && (info->lane != PATH_LANE_BULK || link->was_up) ? RF_OK : RF_ERR_PROTOCOL;
}

static void offered(path_link_t *link, const path_info_t *info, uint64_t now_ns)
{
    path_lane_t *lane = &link->lanes[info->lane];
    if (link->head.state == RF_LINK_STATE_DEAD) { /* closed by the peer: it need not come again */
        link->closed_due |= link->end_err == RF_ERR_CLOSED;
        path_control_push(link);
        return;
    }
    if (info->generation <= lane->generation) {
        path_link_wrong(link, "an offer out of order");
        return;
    }
    if (info->lane == PATH_LANE_BULK && path_bulk_need(link) != RF_OK) return; /* it comes again */
    if (info->lane == PATH_LANE_SLOTS && lane->stage == PATH_UP)
        path_link_broken(link, RF_ERR_CLOSED); /* this end has not noticed it yet */
    if (is_over(link)) return;
    path_lane_drop(lane);
    lane->generation = info->generation;
    lane->lost_due = false;
    /* An honest dialer waits so long between two; each costs a path here, for as long as it takes to end. */
    bool early = lane->offered_ns != 0 && now_ns - lane->offered_ns < PATH_BACKOFF_NS_MIN / 2;
    lane->offered_ns = now_ns;
    if (early) {
        path_lane_refused(lane);
        return;
    }
    lane->peer_accepted = info->accepted;
    memcpy(lane->offer, info, path_medium_of(link)->info_size);
    begin(lane, (const path_info_t *)(const void *)lane->offer, now_ns);
}

static void answered(path_link_t *link, const path_info_t *info)
{
    path_lane_t *lane = &link->lanes[info->lane];
    if (lane->stage != PATH_OFFERED || lane->generation != info->generation)
        return; /* to an offer that was given up */
    lane->peer_accepted = info->accepted;
    lane->stage = PATH_JOINING; /* another answer to the same offer changes nothing */
    rf_err_t err = path_medium_of(link)->join(lane, info);
    if (err == RF_OK)
        path_lane_joined(lane);
    else if (err != RF_ERR_AGAIN)
        path_lane_refused(lane);
}

static void lost(path_link_t *link, const path_lost_t *said, uint64_t now_ns)
{
    if (said->lane >= PATH_LANES || said->err >= RF_ERR_COUNT) {
        path_link_wrong(link, "a loss of nothing");
        return;
    }
    if (is_over(link)) return;
    if (said->err != RF_OK) {
        if (complains(link))
            rf_log(RF_LOG_WARN, "%s: %s has no path for this link: %s; its log says more", path_name_of(link),
                   link->address_text, rf_err_text((rf_err_t)said->err));
        path_link_end(link, (rf_err_t)said->err);
        return;
    }
    path_lane_t *lane = &link->lanes[said->lane];
    if (!link->dialer || lane->generation > said->generation) return;
    if (lane->stage == PATH_UP) {
        path_lane_lost(lane, RF_ERR_CLOSED, true);
        return;
    }
    if (said->lane == PATH_LANE_BULK && path_bulk_need(link) != RF_OK) return;
    path_lane_drop(lane);
    path_lane_need(lane, now_ns);
}

/* False: it makes no sense. */
static bool info_take(path_link_t *link, uint8_t type, const uint8_t *bytes, size_t size, uint64_t now_ns)
{
    uint8_t copy[PATH_INFO_MAX] __attribute__((aligned(8))) = {0};
    const path_info_t *info = (const path_info_t *)(const void *)copy;
    if (size < offsetof(path_info_t, lane) || (type == PATH_CONTROL_ANSWER) != link->dialer) return false;
    memcpy(copy, bytes, size < sizeof copy ? size : sizeof copy);
    rf_err_t err = info_check(link, info, size);
    if (err == RF_ERR_VERSION) {
        if (complains(link))
            rf_log(RF_LOG_WARN, "%s: no path to %s: it has another version of this medium",
                   path_name_of(link), link->address_text);
        path_lane_impossible(&link->lanes[PATH_LANE_SLOTS], err);
    }
    if (err == RF_OK && link->dialer) answered(link, info);
    if (err == RF_OK && !link->dialer) offered(link, info, now_ns);
    explicit_bzero(copy, sizeof copy);
    return err != RF_ERR_PROTOCOL;
}

static void message_take(path_link_t *link, uint8_t type, const uint8_t *bytes, size_t size)
{
    const path_medium_t *medium = path_medium_of(link);
    uint64_t now_ns = rf_clock_ns();
    path_lost_t said;
    bool right = false;
    switch (type) {
    case PATH_CONTROL_OFFER:
    case PATH_CONTROL_ANSWER:
        right = info_take(link, type, bytes, size, now_ns);
        break;
    case PATH_CONTROL_LOST:
        right = size == sizeof said;
        if (!right) break;
        memcpy(&said, bytes, sizeof said);
        lost(link, &said, now_ns);
        break;
    case PATH_CONTROL_CLOSED:
        right = link->user_closed;
        if (right) path_link_bury(link);
        break;
    default:
        right = medium->message && medium->message(link, type, bytes, size);
        break;
    }
    if (!right)
        path_link_wrong(link, link->was_up
                                  ? "a control message that makes no sense"
                                  : "what no such endpoint says (are both ends' transports the same?)");
}

bool path_control_poll(path_link_t *link, unsigned batches)
{
    rf_slot_t slots[CONTROL_BATCH];
    while (link->control && !link->buried && control_of(link)->ready(link->control)) {
        if (batches-- == 0) return true;
        unsigned n = control_of(link)->poll(link->control, slots, CONTROL_BATCH);
        for (unsigned i = 0; i < n && link->control && !link->buried; i++) {
            rf_assembler_t *in = link->control_in;
            rf_err_t err = rf_assembler_feed(in, &slots[i]);
            if (err == RF_OK)
                message_take(link, in->type, in->bytes, in->size);
            else if (err != RF_ERR_AGAIN)
                path_link_wrong(link, "a control message that makes no sense");
        }
        if (n == 0) break;
    }
    return false;
}

void path_control_push(path_link_t *link)
{
    for (unsigned i = 0; i < PATH_LANES; i++) {
        path_lane_t *lane = &link->lanes[i];
        if (!lane->lost_due) continue;
        path_lost_t said = {
            .generation = lane->generation, .lane = (uint16_t)i, .err = (uint16_t)lane->lost_err};
        lane->lost_due = !path_control_say(link, PATH_CONTROL_LOST, &said, sizeof said);
    }
    if (link->closed_due) link->closed_due = !path_control_say(link, PATH_CONTROL_CLOSED, NULL, 0);
}

/* --- what the control link itself says ---------------------------------------------------------------------- */

static void control_incoming(path_endpoint_t *ep, rf_link_t *control, const rf_hello_t *hello)
{
    path_link_t *link = ep->n_links < PATH_LINKS_MAX ? path_link_new(ep, NULL) : NULL;
    if (!link) {
        control->transport->reject(control, RF_ERR_LIMIT);
        return;
    }
    link->control = control;
    control->user = link;
    link->incoming = true;
    link->head.peer = *hello;
    snprintf(link->address_text, sizeof link->address_text, "core %u", hello->core);
    const rf_hello_t peer = *hello;
    path_link_event(link, RF_LINK_INCOMING, RF_OK, &peer, 0);
}

static void control_up(path_link_t *link, const rf_hello_t *hello)
{
    path_endpoint_t *ep = path_endpoint_of(link);
    uint64_t now_ns = rf_clock_ns();
    link->head.peer = *hello;
    control_of(link)->arm(
        link->control); /* for good: it is read only when its endpoint says that there is something */
    if (!link->was_up && link->dead_ns == RF_NEVER) {
        link->dead_ns = now_ns + ep->deadline_ns;
        path_endpoint_timer(ep, link->dead_ns);
    }
    path_lane_t *slots = &link->lanes[PATH_LANE_SLOTS];
    if (link->dialer && slots->stage == PATH_NONE && slots->offer_ns == RF_NEVER) offer(slots, now_ns);
}

/* The peer's control link ended before the link did. */
static void control_ended(path_link_t *link, rf_err_t err)
{
    rf_link_t *control = link->control;
    path_control_poll(link, POLL_ALL); /* what it said last */
    if (link->control != control) return;
    link->control = NULL;
    control->user = NULL;
    control->transport->close(control);
    path_link_end(link, err);
}

void path_control_event(void *context, rf_link_t *control, rf_link_event_t event,
                        const rf_link_event_info_t *info)
{
    path_link_t *link = control->user;
    if (event == RF_LINK_INCOMING) {
        control_incoming(context, control, info->hello);
        return;
    }
    if (!link) return;
    switch (event) {
    case RF_LINK_UP:
        control_up(link, info->hello);
        break;
    case RF_LINK_BROKEN: /* the peer may have died: whether a word comes over to it says so */
        link->say_ack = true;
        path_medium_of(link)->push(link);
        break;
    case RF_LINK_CLOSED:
        control_ended(link, RF_ERR_CLOSED);
        break;
    case RF_LINK_DEAD:
        control_ended(link, info->err);
        break;
    default:
        break;
    }
}

/* --- timers ------------------------------------------------------------------------------------------------- */

uint64_t path_control_next(const path_link_t *link)
{
    uint64_t at = link->bulk ? link->bulk->stuck_ns : RF_NEVER;
    for (unsigned i = 0; i < PATH_LANES; i++) {
        at = link->lanes[i].offer_ns < at ? link->lanes[i].offer_ns : at;
        at = link->lanes[i].overdue_ns < at ? link->lanes[i].overdue_ns : at;
    }
    return at;
}

void path_control_timers(path_link_t *link, uint64_t now_ns)
{
    for (unsigned i = 0; i < PATH_LANES && !link->buried; i++) {
        path_lane_t *lane = &link->lanes[i];
        if (lane->overdue_ns <= now_ns) {
            if (lane->overdue++ > 0 && complains(link)) /* the first time the peer may just be busy */
                rf_log(RF_LOG_WARN, "%s: %s is reached by TCP, but %s", path_name_of(link),
                       link->address_text, path_medium_of(link)->overdue(lane));
            path_lane_refused(lane);
        }
        if (lane->offer_ns <= now_ns) {
            if (lane->stage == PATH_NONE && link->control)
                offer(lane, now_ns);
            else
                lane->offer_ns = RF_NEVER;
        }
    }
    if (link->bulk && !link->buried) path_bulk_timers(link, now_ns);
}
