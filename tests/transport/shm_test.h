/* Two ends of a shared-memory link in one thread: what the shm tests are written on. */
#ifndef RF_TESTS_TRANSPORT_SHM_TEST_H
#define RF_TESTS_TRANSPORT_SHM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/os.h"
#include "transport/shm/shm.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHM_TEST_DEADLINE_NS (20 * RF_NS_PER_S)

/* One end, and what its events said. */
typedef struct shm_end {
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    unsigned incoming, up, room, fds, written, closed, dead;
    rf_err_t why;
    rf_hello_t hello;
    int fd[RF_FDS_PER_MESSAGE_MAX];
    unsigned n_fds;
    char bytes[256];
    size_t size;
    bool close_on_end;
} shm_end_t;

static inline void shm_end_event(void *context, rf_link_t *link, rf_link_event_t event,
                                 const rf_link_event_info_t *info)
{
    shm_end_t *end = context;
    switch (event) {
    case RF_LINK_INCOMING:
        end->incoming++;
        end->link = link;
        end->hello = *info->hello;
        break;
    case RF_LINK_UP:
        end->up++;
        end->hello = *info->hello;
        break;
    case RF_LINK_ROOM:
        end->room++;
        break;
    case RF_LINK_FDS:
        end->fds++;
        end->n_fds = info->n_fds;
        memcpy(end->fd, info->fds, info->n_fds * sizeof(int));
        end->size = info->size;
        memcpy(end->bytes, info->bytes, info->size);
        break;
    case RF_LINK_READ:
        break;
    case RF_LINK_WRITTEN:
        end->written++;
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        if (event == RF_LINK_CLOSED)
            end->closed++;
        else
            end->dead++;
        end->why = info->err;
        if (end->close_on_end) {
            link->transport->close(link);
            end->link = NULL;
        }
        break;
    case RF_LINK_BROKEN:
        break;
    }
}

static inline rf_endpoint_params_t shm_end_params(shm_end_t *end)
{
    rf_endpoint_params_t params = {
        .on_event = shm_end_event, .context = end, .deadline_ns = SHM_TEST_DEADLINE_NS};
    params.self.version_major = RF_VERSION_MAJOR;
    params.self.version_minor = RF_VERSION_MINOR;
    memset(params.self.machine.bytes, 7, sizeof params.self.machine.bytes);
    return params;
}

static inline void shm_end_open(shm_end_t *end, const rf_doorbell_t *doorbell)
{
    memset(end, 0, sizeof *end);
    rf_endpoint_params_t params = shm_end_params(end);
    params.doorbell = doorbell;
    assert_int_equal(rf_transport_shm.endpoint_open(&params, &end->endpoint), RF_OK);
}

static inline void shm_end_progress(shm_end_t *end)
{
    uint64_t next;
    rf_transport_shm.endpoint_progress(end->endpoint, rf_clock_ns(), &next);
}

static inline void shm_end_connect(shm_end_t *end, int socket, unsigned slots, unsigned slots_max)
{
    rf_link_params_t params = {.socket = socket, .slots = slots, .slots_max = slots_max};
    assert_int_equal(rf_transport_shm.connect(end->endpoint, &params, &end->link), RF_OK);
}

/* Connects both over a socket pair and waits until both are up. */
static inline void shm_ends_join(shm_end_t *a, shm_end_t *b, unsigned slots, unsigned slots_max)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    shm_end_connect(a, pair[0], slots, slots_max);
    shm_end_connect(b, pair[1], slots, slots_max);
    for (int i = 0; i < 4; i++) {
        shm_end_progress(a);
        shm_end_progress(b);
    }
    assert_int_equal(a->up, 1);
    assert_int_equal(b->up, 1);
}

static inline void shm_end_close(shm_end_t *end)
{
    if (end->endpoint) rf_transport_shm.endpoint_close(end->endpoint);
    end->endpoint = NULL;
}

static inline rf_slot_t shm_test_slot(uint64_t number)
{
    rf_slot_t slot = {
        .words = {number, ~number, number * 3, number * 5, number * 7, number * 11, number * 13},
        .control = rf_control_make(1, RF_SLOT_PAYLOAD, false, (uint16_t)number)};
    return slot;
}

static inline bool shm_test_slot_is(const rf_slot_t *slot, uint64_t number)
{
    rf_slot_t wanted = shm_test_slot(number);
    return memcmp(slot, &wanted, sizeof wanted) == 0;
}

#endif
