/*
 * The queues of remote writes and reads of a link, which go over a lane of their own.
 *
 * A lane for bulk is made when somebody wants to write or read. After a break its receiver says up to which write all has come, and
 * the sender goes on from there; what was not wholly read is read again. A lane that does not come up, or fails before anything has got there, is not tried for ever
 * while slots go on: then the link ends.
 */
#include "transport/path/path.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

rf_err_t path_bulk_need(path_link_t *link)
{
    if (link->bulk) return RF_OK;
    size_t size = (path_medium_of(link)->bulk_size + RF_CACHE_LINE - 1) & ~(size_t)(RF_CACHE_LINE - 1);
    path_bulk_t *bulk = aligned_alloc(RF_CACHE_LINE, size);
    if (!bulk) return RF_ERR_NO_MEMORY;
    memset(bulk, 0, size);
    bulk->stuck_ns = RF_NEVER;
    link->bulk = bulk;
    return RF_OK;
}

void path_bulk_free(path_link_t *link)
{
    if (!link->bulk) return;
    path_medium_of(link)->bulk_free(link);
    free(link->bulk);
    link->bulk = NULL;
}

static path_lane_t *lane_of(path_link_t *link)
{
    return &link->lanes[PATH_LANE_BULK];
}

rf_err_t path_remote_write(rf_link_t *link_head, const rf_region_key_t *key, uint64_t offset,
                           const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    path_link_t *link = path_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending)
        return link->fenced ? RF_ERR_FENCED : RF_ERR_PEER_DEAD;
    path_region_key_t to;
    memcpy(&to, key, sizeof to);
    if (size > PATH_WRITE_SIZE_MAX || offset > to.size || size > to.size - offset) return RF_ERR_INVALID;
    if (notify &&
        (!rf_control_valid(notify->control) || rf_control_type(notify->control) >= RF_SLOT_TYPE_MEDIUM))
        return RF_ERR_INVALID;
    rf_err_t err = path_bulk_need(link);
    if (err != RF_OK) return err;
    path_bulk_t *bulk = link->bulk;
    if (bulk->head - bulk->acked == PATH_WRITES_MAX) return RF_ERR_AGAIN;
    path_write_t *write = &bulk->writes[bulk->head % PATH_WRITES_MAX];
    bulk->total += size;
    *write = (path_write_t){.to = *key,
                            .offset = offset,
                            .size = size,
                            .cookie = cookie,
                            .total = bulk->total,
                            .source = source,
                            .has_notify = notify != NULL};
    if (notify) write->notify = *notify;
    bulk->head++;
    if (bulk->posted >
        bulk->done) { /* what is under way keeps the wire busy until the next look, and ends a sleep */
        path_link_attention(link);
        return RF_OK;
    }
    path_endpoint_enter(path_endpoint_of(link));
    path_bulk_pump(link);
    path_endpoint_leave(path_endpoint_of(link));
    return RF_OK;
}

rf_err_t path_remote_read(rf_link_t *link_head, const rf_region_key_t *key, uint64_t offset,
                          void *destination, size_t size, uint64_t cookie)
{
    path_link_t *link = path_link_of(link_head);
    if (link_head->state == RF_LINK_STATE_DEAD || link->end_pending)
        return link->fenced ? RF_ERR_FENCED : RF_ERR_PEER_DEAD;
    path_region_key_t from;
    memcpy(&from, key, sizeof from);
    if (size > PATH_WRITE_SIZE_MAX || offset > from.size || size > from.size - offset) return RF_ERR_INVALID;
    rf_err_t err = path_bulk_need(link);
    if (err != RF_OK) return err;
    path_bulk_t *bulk = link->bulk;
    if (bulk->read_head - bulk->read_told == PATH_READS_MAX) return RF_ERR_AGAIN;
    bulk->reads[bulk->read_head++ % PATH_READS_MAX] = (path_read_t){.from = *key,
                                                                    .offset = offset,
                                                                    .size = size,
                                                                    .cookie = cookie,
                                                                    .after = bulk->head,
                                                                    .into = destination};
    path_endpoint_enter(path_endpoint_of(link));
    path_bulk_pump(link);
    path_endpoint_leave(path_endpoint_of(link));
    return RF_OK;
}

/* There is something to write or read, and no path for it. */
static void path_want(path_link_t *link)
{
    path_bulk_t *bulk = link->bulk;
    path_lane_t *lane = lane_of(link);
    if (!path_bulk_waits(bulk) || link->head.state != RF_LINK_STATE_UP) return;
    uint64_t now_ns = rf_clock_ns();
    if (bulk->stuck_ns == RF_NEVER) {
        bulk->stuck_ns = now_ns + path_endpoint_of(link)->deadline_ns;
        path_endpoint_timer(path_endpoint_of(link), bulk->stuck_ns);
    }
    if (lane->stage != PATH_NONE || lane->wanted) return;
    lane->wanted = true;
    path_lane_need(lane, now_ns);
}

void path_bulk_pump(path_link_t *link)
{
    if (link->user_closed || link->end_pending || link->head.state == RF_LINK_STATE_DEAD) return;
    if (path_lane_up(lane_of(link)))
        path_medium_of(link)->bulk_pump(link);
    else
        path_want(link);
}

bool path_bulk_resume(path_link_t *link, uint64_t peer_placed)
{
    path_bulk_t *bulk = link->bulk;
    uint64_t before = bulk->done;
    if (!path_medium_of(link)->bulk_resume(link, peer_placed)) return false;
    if (bulk->done != before) bulk->stuck_ns = RF_NEVER;
    bulk->read_posted = bulk->read_done;
    for (unsigned i = 0; i < PATH_READS_MAX; i++) bulk->reads[i].sent = 0;
    return true;
}

static bool is_told(const path_link_t *link)
{
    return !link->buried && !link->fenced && !link->user_closed;
}

static void read_tell(path_link_t *link, rf_err_t err)
{
    path_read_t *read = &link->bulk->reads[link->bulk->read_told++ % PATH_READS_MAX];
    if (err == RF_OK) err = read->err;
    if (err == RF_OK) link->stats.bytes_read += read->size;
    path_link_event(link, RF_LINK_READ, err, NULL, read->cookie);
}

void path_bulk_settle(path_link_t *link)
{
    path_bulk_t *bulk = link->bulk;
    if (path_medium_of(link)->bulk_settle) path_medium_of(link)->bulk_settle(link);
    if (bulk->acked < bulk->done || bulk->read_told < bulk->read_done) bulk->stuck_ns = RF_NEVER;
    while (bulk->acked < bulk->done && is_told(link)) {
        uint64_t cookie = bulk->writes[bulk->acked++ % PATH_WRITES_MAX].cookie;
        path_link_event(link, RF_LINK_WRITTEN, RF_OK, NULL, cookie);
    }
    while (bulk->read_told < bulk->read_done && is_told(link)) read_tell(link, RF_OK);
    if (!link->buried) path_bulk_pump(link);
}

void path_bulk_fail(path_link_t *link, rf_err_t err)
{
    path_bulk_t *bulk = link->bulk;
    if (!bulk) return;
    while (bulk->acked < bulk->head && is_told(link)) {
        uint64_t number = bulk->acked++;
        uint64_t cookie = bulk->writes[number % PATH_WRITES_MAX].cookie;
        rf_err_t why = number < bulk->done ? RF_OK : err;
        if (bulk->done < bulk->acked) bulk->done = bulk->acked;
        if (bulk->posted < bulk->done) bulk->posted = bulk->done;
        path_link_event(link, RF_LINK_WRITTEN, why, NULL, cookie);
    }
    while (bulk->read_told < bulk->read_head && is_told(link)) {
        rf_err_t why = bulk->read_told < bulk->read_done ? RF_OK : err;
        if (bulk->read_done <= bulk->read_told) bulk->read_done = bulk->read_told + 1;
        if (bulk->read_posted < bulk->read_done) bulk->read_posted = bulk->read_done;
        read_tell(link, why);
    }
}

void path_bulk_timers(path_link_t *link, uint64_t now_ns)
{
    path_bulk_t *bulk = link->bulk;
    path_endpoint_t *ep = path_endpoint_of(link);
    if (bulk->stuck_ns > now_ns) return;
    bulk->stuck_ns = RF_NEVER;
    if (path_lane_up(lane_of(link)) || !path_bulk_waits(bulk) || link->head.state != RF_LINK_STATE_UP)
        return; /* it has come up; or what the link waits for decides, and pumping counts anew */
    if (rf_log_once_per(&ep->log_bulk_ns, PATH_LOG_INTERVAL_NS))
        rf_log(RF_LOG_ERROR,
               "%s: remote writes do not get to %s, while slots do: the link ends; either end's log says "
               "what is refused there",
               path_name_of(link), link->address_text);
    path_lane_impossible(lane_of(link), RF_ERR_TIMEOUT);
}
