/*
 * The endpoint: the links of shared memory to the driver have one of their own, beside that of the control links.
 *
 * A driver wakes who has a doorbell by that, and then nobody calls progress(): while there is something that only it does, it
 * is called by time.
 */
#include "transport/dpdk/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define BULK_SLOTS       256 /* of one link in one call */
#define OPTIONS_VARIABLE "RACKFISH_DPDK"
#define MAKING_LOOK_NS   (200 * RF_NS_PER_US)
#define WAITING_LOOK_NS  RF_NS_PER_MS

static dpdk_endpoint_t *endpoint_of(path_endpoint_t *ep)
{
    return (dpdk_endpoint_t *)ep;
}

static rf_err_t options_take(dpdk_endpoint_t *ep, const char *given)
{
    char why[256];
    const char *text = given ? given : secure_getenv(OPTIONS_VARIABLE);
    rf_err_t err = dpdk_options_parse(text, &ep->ports, why, sizeof why);
    if (err != RF_OK) rf_log(RF_LOG_ERROR, "dpdk: %s: %s", given ? "options" : OPTIONS_VARIABLE, why);
    return err;
}

static rf_err_t dpdk_open(path_endpoint_t *base, const rf_endpoint_params_t *params)
{
    dpdk_endpoint_t *ep = endpoint_of(base);
    rf_endpoint_params_t local = {.doorbell = params->doorbell,
                                  .on_event = dpdk_local_event,
                                  .context = ep,
                                  .medium = (void *)(uintptr_t)RF_SHM_RELAY,
                                  .deadline_ns = base->deadline_ns};
    local.self.version_major = RF_VERSION_MAJOR; /* the driver serves any machine: it is told nothing else */
    local.self.version_minor = RF_VERSION_MINOR;
    ep->has_doorbell = params->doorbell != NULL;
    rf_err_t err = options_take(ep, params->medium);
    if (err == RF_OK) err = rf_transport_shm.endpoint_open(&local, &ep->local);
    if (err == RF_OK) err = path_endpoint_watch(base, rf_transport_shm.endpoint_fd(ep->local), NULL);
    return err;
}

static void dpdk_endpoint_end(path_endpoint_t *ep)
{
    rf_endpoint_t *local = endpoint_of(ep)->local;
    if (local) local->transport->endpoint_close(local);
}

static void dpdk_progress(path_endpoint_t *base, uint64_t now_ns)
{
    dpdk_endpoint_t *ep = endpoint_of(base);
    ep->local->transport->endpoint_progress(ep->local, now_ns, &ep->local_ns);
}

static bool is_making(const path_lane_t *lane)
{
    return lane->stage != PATH_NONE && lane->stage != PATH_UP;
}

/* Paths that are being made hear their driver and their peer's HELLO; bulk, and slots that nobody wants, are taken in here. */
static bool dpdk_hear(path_link_t *base)
{
    dpdk_link_t *link = dpdk_link_of(base);
    for (unsigned i = 0; i < PATH_LANES; i++) {
        if (is_making(&base->lanes[i])) dpdk_path_hear(&base->lanes[i]);
    }
    if (base->user_closed) dpdk_link_discard(link);
    return base->bulk && dpdk_bulk_take(link, BULK_SLOTS);
}

/* How long until it is to be looked at; RF_NEVER: nothing waits there. */
static uint64_t looks(const path_link_t *link)
{
    if (is_making(&link->lanes[PATH_LANE_SLOTS]) || is_making(&link->lanes[PATH_LANE_BULK]))
        return MAKING_LOOK_NS;
    bool slots = link->posted != link->slots_head || link->user_closed;
    bool bulk = link->bulk && link->bulk->done != link->bulk->head;
    return slots || bulk ? WAITING_LOOK_NS : RF_NEVER;
}

static uint64_t dpdk_rest(path_endpoint_t *base, uint64_t now_ns)
{
    const dpdk_endpoint_t *ep = endpoint_of(base);
    uint64_t least = RF_NEVER;
    for (const path_link_t *link = ep->has_doorbell ? base->links : NULL; link; link = link->next) {
        uint64_t ns = looks(link);
        least = ns < least ? ns : least;
    }
    uint64_t look_ns = least == RF_NEVER ? RF_NEVER : now_ns + least;
    return look_ns < ep->local_ns ? look_ns : ep->local_ns;
}

static void dpdk_link_free(path_link_t *link)
{
    free(link->ring);
    free(dpdk_link_of(link)->left);
}

/* The rings are unmapped, and the driver ends the flows. */
static void dpdk_fence(path_link_t *link)
{
    for (unsigned i = 0; i < PATH_LANES; i++) {
        rf_link_t *local = dpdk_link_of(link)->paths[i].local;
        if (local) local->transport->fence(local);
    }
}

static void dpdk_resume(path_link_t *link)
{
    (void)link; /* a flow numbers nothing */
}

const path_medium_t dpdk_medium = {
    .transport = &rf_transport_dpdk,
    .magic = DPDK_MAGIC,
    .format = DPDK_FORMAT,
    .info_size = sizeof(dpdk_path_info_t),
    .word = DPDK_WORD,
    .word_flags = PATH_WORD_MEDIUM - 1,
    .endpoint_size = sizeof(dpdk_endpoint_t),
    .link_size = sizeof(dpdk_link_t),
    .bulk_size = sizeof(dpdk_bulk_t),
    .open = dpdk_open,
    .close = dpdk_endpoint_end,
    .progress = dpdk_progress,
    .rest = dpdk_rest,
    .link_free = dpdk_link_free,
    .ring_grow = dpdk_ring_grow,
    .hear = dpdk_hear,
    .push = dpdk_push,
    .keep = dpdk_link_keep,
    .fence = dpdk_fence,
    .make = dpdk_path_make,
    .info = dpdk_path_info,
    .info_right = dpdk_path_info_right,
    .join = dpdk_path_join,
    .say = dpdk_path_say,
    .drop = dpdk_path_drop,
    .failed = dpdk_path_failed,
    .overdue = dpdk_path_overdue,
    .resume = dpdk_resume,
    .bulk_free = dpdk_bulk_free,
    .bulk_pump = dpdk_bulk_pump,
    .bulk_resume = dpdk_bulk_resume,
};

rf_err_t dpdk_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    return path_endpoint_open(&dpdk_medium, params, out);
}
