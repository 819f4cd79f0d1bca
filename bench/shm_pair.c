#include "shm_pair.h"

#include "base/clock.h"

#include <string.h>
#include <sys/socket.h>

#define JOIN_NS RF_NS_PER_S

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)link, (void)info;
    shm_pair_t *pair = context;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) pair->failed = true;
}

void shm_pair_close(shm_pair_t *pair)
{
    for (unsigned i = 0; i < 2; i++) {
        if (pair->endpoints[i]) rf_transport_shm.endpoint_close(pair->endpoints[i]);
        if (pair->bells[i].word) rf_doorbell_destroy(&pair->bells[i]);
    }
}

static bool open_side(shm_pair_t *pair, unsigned side)
{
    rf_endpoint_params_t params = {.doorbell = &pair->bells[side], .on_event = on_event, .context = pair};
    params.self.version_major = RF_VERSION_MAJOR;
    return rf_doorbell_create(&pair->bells[side]) == RF_OK &&
           rf_transport_shm.endpoint_open(&params, &pair->endpoints[side]) == RF_OK;
}

static bool join(shm_pair_t *pair, unsigned slots)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return false;
    unsigned n = pair->n_links++;
    for (unsigned i = 0; i < 2; i++) {
        rf_link_params_t params = {.socket = ends[i], .slots = slots, .slots_max = slots};
        if (rf_transport_shm.connect(pair->endpoints[i], &params, &pair->links[i][n]) != RF_OK) return false;
    }
    uint64_t until_ns = rf_clock_ns() + JOIN_NS, next_ns;
    for (unsigned turn = 0; rf_clock_ns() < until_ns; turn++) {
        rf_transport_shm.endpoint_progress(pair->endpoints[turn % 2], rf_clock_ns(), &next_ns);
        if (pair->links[0][n]->state == RF_LINK_STATE_UP && pair->links[1][n]->state == RF_LINK_STATE_UP)
            return true;
    }
    return false;
}

bool shm_pair_open(shm_pair_t *pair, unsigned n_links, unsigned slots)
{
    memset(pair, 0, sizeof *pair);
    bool ok = n_links <= SHM_PAIR_LINKS_MAX && open_side(pair, 0) && open_side(pair, 1);
    while (ok && pair->n_links < n_links) ok = join(pair, slots);
    if (ok) return true;
    fprintf(stderr, "rf-bench: cannot make %u shared-memory links: out of descriptors or memory?\n", n_links);
    shm_pair_close(pair);
    return false;
}
