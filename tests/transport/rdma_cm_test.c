/* iWARP connections as rdma_cm may report them: of peers, of strangers who say anything, of paths that are over; and ports that
 * TCP uses. rdma_cm is stood in for here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transport/rdma/internal.h"

#include "base/clock.h"
#include "base/prng.h"
#include "transport/tcp/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATHS  6
#define IDS    4096
#define EVENTS 16
#define LONGER 100 /* of private data, more than a token */

/* --- rdma_cm ------------------------------------------------------------------------------------------------ */

static struct ibv_device the_device = {.name = "siw0"};
static struct ibv_context context_of_device = {.device = &the_device};
static struct rdma_event_channel channel;
static struct rdma_cm_id ids[IDS];
static bool is_live[IDS];
static unsigned n_ids, n_live, accepted, rejected, connected, acknowledged, used_ports;
static struct rdma_cm_event events[EVENTS];
static unsigned n_events;
static uint8_t says[EVENTS][LONGER];

struct rdma_event_channel *rdma_create_event_channel(void)
{
    channel.fd = eventfd(0, EFD_NONBLOCK);
    return &channel;
}

void rdma_destroy_event_channel(struct rdma_event_channel *of)
{
    close(of->fd);
}

int rdma_create_id(struct rdma_event_channel *of, struct rdma_cm_id **id, void *context,
                   enum rdma_port_space space)
{
    (void)of, (void)space;
    assert_true(n_ids < IDS);
    *id = &ids[n_ids];
    (*id)->context = context;
    (*id)->verbs = &context_of_device;
    is_live[n_ids++] = true;
    n_live++;
    return 0;
}

int rdma_destroy_id(struct rdma_cm_id *id)
{
    assert_in_range(id - ids, 0, n_ids - 1);
    assert_true(is_live[id - ids]); /* once */
    is_live[id - ids] = false;
    n_live--;
    return 0;
}

static int port_taken(void)
{
    if (used_ports == 0) return 0;
    used_ports--;
    errno = EADDRINUSE;
    return -1;
}

int rdma_bind_addr(struct rdma_cm_id *id, struct sockaddr *at)
{
    (void)id;
    assert_int_equal(((struct sockaddr_in *)(void *)at)->sin_port, 0);
    return 0;
}

int rdma_listen(struct rdma_cm_id *id, int backlog)
{
    (void)id, (void)backlog;
    return port_taken();
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
    return htons((uint16_t)(id - ids + 1));
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *from, struct sockaddr *to, int ms)
{
    (void)id, (void)from, (void)to, (void)ms;
    return 0;
}

int rdma_resolve_route(struct rdma_cm_id *id, int ms)
{
    (void)id, (void)ms;
    return 0;
}

int rdma_connect(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
    (void)id, (void)param;
    if (port_taken() != 0) return -1;
    connected++;
    return 0;
}

int rdma_accept(struct rdma_cm_id *id, struct rdma_conn_param *param)
{
    (void)param;
    assert_true(is_live[id - ids]);
    accepted++;
    return 0;
}

int rdma_reject(struct rdma_cm_id *id, const void *data, uint8_t size)
{
    (void)data, (void)size;
    assert_true(is_live[id - ids]);
    rejected++;
    return 0;
}

#undef ibv_modify_qp
int ibv_modify_qp(struct ibv_qp *pair, struct ibv_qp_attr *attr, int mask)
{
    (void)pair, (void)attr, (void)mask;
    return 0;
}

/* What was said is gone with its event. */
int rdma_get_cm_event(struct rdma_event_channel *of, struct rdma_cm_event **event)
{
    (void)of;
    if (n_events == 0) {
        errno = EAGAIN;
        return -1;
    }
    struct rdma_cm_event *copy = malloc(sizeof *copy);
    assert_non_null(copy);
    *copy = events[--n_events];
    if (copy->param.conn.private_data) {
        void *said = malloc(copy->param.conn.private_data_len);
        assert_non_null(said);
        memcpy(said, copy->param.conn.private_data, copy->param.conn.private_data_len);
        copy->param.conn.private_data = said;
    }
    *event = copy;
    return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
    acknowledged++;
    free((void *)(uintptr_t)event->param.conn.private_data);
    free(event);
    return 0;
}

const char *rdma_event_str(enum rdma_cm_event_type event)
{
    (void)event;
    return "an event";
}

/* --- an endpoint with paths --------------------------------------------------------------------------------- */

static rdma_endpoint_t *endpoint;
static struct ibv_qp qp;
static rdma_device_t device;
static rdma_link_t the_link;
static path_lane_t lanes[PATHS];
static rdma_path_t paths[PATHS];

static void endpoint_new(bool dialer)
{
    static const rf_hello_t nobody;
    memset(&the_link, 0, sizeof the_link);
    memset(lanes, 0, sizeof lanes);
    memset(paths, 0, sizeof paths);
    n_ids = n_live = accepted = rejected = connected = acknowledged = used_ports = n_events = 0;
    endpoint = calloc(1, sizeof *endpoint);
    assert_non_null(endpoint);
    endpoint->base.head.transport = &rf_transport_rdma;
    endpoint->base.medium = &rdma_medium;
    endpoint->base.epoll = epoll_create1(EPOLL_CLOEXEC);
    endpoint->base.kick = -1;
    endpoint->base.timer_ns = RF_NEVER;
    endpoint->base.log_path_ns = endpoint->base.log_garbage_ns = rf_clock_ns();
    const rf_endpoint_params_t params = {.address = "127.0.0.1:0", .self = nobody};
    assert_int_equal(rf_transport_tcp.endpoint_open(&params, &endpoint->base.control), RF_OK);
    device = (rdma_device_t){.name = "siw0", .endpoint = endpoint, .iwarp = true};
    the_link.base.head.endpoint = &endpoint->base.head;
    the_link.base.dialer = dialer;
    snprintf(the_link.base.address_text, sizeof the_link.base.address_text, "127.0.0.1:1");
    for (unsigned i = 0; i < PATHS; i++) {
        lanes[i] = (path_lane_t){.link = &the_link.base, .stage = dialer ? PATH_JOINING : PATH_ANSWERED};
        paths[i] = (rdma_path_t){.device = &device, .lane = &lanes[i], .qp = &qp};
        rf_random_secret(paths[i].token, sizeof paths[i].token);
        endpoint->paths[i] = &paths[i];
    }
    endpoint->paths_end = PATHS;
}

static void endpoint_over(void)
{
    for (unsigned i = 0; i < PATHS; i++)
        if (paths[i].cm) rdma_destroy_id(paths[i].cm);
    rdma_cm_close(endpoint);
    assert_int_equal(n_live, 0); /* of strangers nothing is kept */
    rf_transport_tcp.endpoint_close(endpoint->base.control);
    close(endpoint->base.epoll);
    free(endpoint);
}

static void happens(enum rdma_cm_event_type type, struct rdma_cm_id *id, const void *said, size_t size)
{
    assert_true(n_events < EVENTS && size <= LONGER);
    if (said) memcpy(says[n_events], said, size);
    events[n_events] = (struct rdma_cm_event){
        .event = type,
        .id = id,
        .param.conn = {.private_data = said ? says[n_events] : NULL, .private_data_len = (uint8_t)size}};
    n_events++;
}

/* Somebody connects, who says this. */
static struct rdma_cm_id *somebody_connects(const void *said, size_t size)
{
    struct rdma_cm_id *id;
    rdma_create_id(&channel, &id, NULL, RDMA_PS_TCP);
    happens(RDMA_CM_EVENT_CONNECT_REQUEST, id, said, size);
    return id;
}

static void listens(void)
{
    uint16_t port = 0;
    assert_int_equal(rdma_cm_listen(&device, &port), RF_OK);
    assert_int_not_equal(port, 0);
}

/* --- tests -------------------------------------------------------------------------------------------------- */

/* The token is the way in: whole, of a path that waits, and once. */
static void who_has_the_token_comes_in(void **state)
{
    (void)state;
    endpoint_new(false);
    listens();
    somebody_connects(paths[1].token, RDMA_TOKEN - 1);
    somebody_connects(NULL, 0);
    paths[2].lane = NULL;         /* is over */
    lanes[3].stage = PATH_MAKING; /* has said nothing yet */
    lanes[4].stage = PATH_UP;
    for (unsigned i = 2; i < 5; i++) somebody_connects(paths[i].token, RDMA_TOKEN);
    rdma_cm_heard(endpoint);
    assert_int_equal(rejected, 5);
    assert_int_equal(accepted, 0);
    struct rdma_cm_id *id = somebody_connects(paths[1].token, RDMA_TOKEN);
    rdma_cm_heard(endpoint);
    assert_int_equal(accepted, 1);
    assert_ptr_equal(paths[1].cm, id);
    somebody_connects(paths[1].token, RDMA_TOKEN);
    rdma_cm_heard(endpoint);
    assert_int_equal(accepted, 1);
    assert_int_equal(rejected, 6);
    assert_ptr_equal(paths[1].cm, id);
    assert_int_equal(acknowledged, 7);
    endpoint_over();
}

static bool is_nothing(int fd)
{
    struct stat is, null;
    return fstat(fd, &is) == 0 && stat("/dev/null", &null) == 0 && is.st_rdev == null.st_rdev;
}

/* librdmacm has a device open for itself; of one that was removed it is made to let go, unless it has done so itself, and
 * its descriptors have become others'. */
static void a_removed_device_is_not_kept_open(void **state)
{
    (void)state;
    for (unsigned others = 0; others < 2; others++) {
        endpoint_new(false);
        int kept[2];
        assert_int_equal(pipe2(kept, O_CLOEXEC), 0);
        context_of_device.cmd_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        context_of_device.async_fd = eventfd(0, EFD_CLOEXEC);
        rdma_cm_removed(&device); /* it has none open */
        assert_false(is_nothing(context_of_device.cmd_fd));
        rdma_device_t another = {.name = "siw1", .endpoint = endpoint, .iwarp = true};
        uint16_t port;
        assert_int_equal(rdma_cm_listen(&another, &port), RF_OK);
        rdma_cm_removed(&another); /* that listener is at the other device */
        assert_false(is_nothing(context_of_device.cmd_fd));
        listens();
        if (others) dup3(kept[0], context_of_device.cmd_fd, O_CLOEXEC);
        rdma_cm_removed(&device);
        assert_int_equal(is_nothing(context_of_device.cmd_fd), !others);
        assert_int_equal(is_nothing(context_of_device.async_fd), !others);
        assert_int_equal(fcntl(context_of_device.cmd_fd, F_GETFD), FD_CLOEXEC);
        happens(RDMA_CM_EVENT_DEVICE_REMOVAL, endpoint->cm_listeners[0], NULL,
                0); /* then the kernel goes on */
        rdma_cm_heard(endpoint);
        assert_int_equal(endpoint->n_cm_listeners, 0);
        close(kept[0]);
        close(kept[1]);
        close(context_of_device.cmd_fd);
        close(context_of_device.async_fd);
        endpoint_over();
    }
}

/* Anything of anybody; often a path's token, or nearly. */
static void something_happens(rf_prng_t *prng)
{
    uint8_t said[LONGER];
    size_t size = rf_prng_below(prng, 3) == 0 ? rf_prng_below(prng, sizeof said) : RDMA_TOKEN;
    for (size_t i = 0; i < sizeof said; i++) said[i] = (uint8_t)rf_prng_next(prng);
    rdma_path_t *path = &paths[rf_prng_below(prng, PATHS)];
    switch (rf_prng_below(prng, 6)) {
    case 0:
        somebody_connects(said, size);
        break;
    case 1:
        memcpy(said, path->token, RDMA_TOKEN);
        said[rf_prng_below(prng, RDMA_TOKEN)] ^= (uint8_t)(1u << rf_prng_below(prng, 8));
        somebody_connects(said, size);
        break;
    case 2:
        memcpy(said, path->token, RDMA_TOKEN);
        somebody_connects(said, size);
        break;
    case 3:
        somebody_connects(NULL, 0);
        break;
    default:
        if (path->cm) /* whichever, also those that make no sense there */
            happens((enum rdma_cm_event_type)rf_prng_below(prng, RDMA_CM_EVENT_TIMEWAIT_EXIT + 1), path->cm,
                    said, size);
        break;
    }
}

static unsigned paths_connected(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PATHS; i++) n += paths[i].cm != NULL;
    return n;
}

static void whatever_strangers_say_they_stay_outside(void **state)
{
    (void)state;
    rf_prng_t prng;
    rf_prng_seed(&prng, 1);
    const unsigned lives = 300, rounds = 40;
    for (unsigned life = 0; life < lives; life++) {
        endpoint_new(false);
        listens();
        unsigned heard = 0;
        for (unsigned round = 0; round < rounds; round++) {
            for (unsigned n = 1 + (unsigned)rf_prng_below(&prng, 4); n > 0; n--) something_happens(&prng);
            for (unsigned i = 0; i < n_events; i++) { /* a request on a connection is a new one's */
                if (events[i].event != RDMA_CM_EVENT_CONNECT_REQUEST || !events[i].id->context) continue;
                events[i].event = RDMA_CM_EVENT_DISCONNECTED;
            }
            heard += n_events;
            rdma_cm_heard(endpoint);
            assert_int_equal(n_events, 0);
            assert_int_equal(acknowledged, heard);
            assert_int_equal(accepted, paths_connected());
            assert_int_equal(n_live, paths_connected() + 1); /* and the listener */
        }
        assert_int_equal(n_ids, 1 + accepted + rejected);
        endpoint_over();
    }
}

/* rdma_cm's ports are not TCP's: one that TCP uses is not the last. */
static void a_port_that_is_used_is_not_the_last(void **state)
{
    (void)state;
    uint16_t port;
    endpoint_new(false);
    used_ports = 5;
    listens();
    assert_int_equal(n_ids, 6);
    assert_int_equal(n_live, 1);
    listens(); /* it does already */
    assert_int_equal(n_ids, 6);
    endpoint_over();
    endpoint_new(false);
    used_ports = 1000;
    assert_int_not_equal(rdma_cm_listen(&device, &port), RF_OK);
    assert_int_equal(n_live, 0);
    endpoint_over();
}

/* Nobody says that a listener is no more: nobody comes. */
static void where_nobody_comes_is_listened_no_longer(void **state)
{
    (void)state;
    endpoint_new(false);
    listens();
    rdma_path_kill(&paths[0]);
    listens();
    assert_int_equal(n_ids, 1);
    somebody_connects(paths[1].token, RDMA_TOKEN);
    rdma_cm_heard(endpoint);
    assert_int_equal(accepted, 1);
    rdma_path_kill(&paths[1]); /* to which somebody came */
    rdma_path_kill(&paths[2]);
    unsigned before = n_ids;
    listens();
    assert_int_equal(n_ids, before);
    rdma_path_kill(&paths[3]);
    listens();
    assert_int_equal(n_ids, before + 1);
    assert_int_equal(n_live, 3); /* both listeners, and the path's connection until that is destroyed */
    rdma_path_kill(&paths[4]);
    listens(); /* counted from there on */
    assert_int_equal(n_ids, before + 1);
    happens(RDMA_CM_EVENT_DEVICE_REMOVAL, endpoint->cm_listeners[0], NULL, 0);
    happens(RDMA_CM_EVENT_DEVICE_REMOVAL, endpoint->cm_listeners[1], NULL, 0);
    rdma_cm_heard(endpoint);
    assert_int_equal(n_live, 1);
    listens();
    assert_int_equal(n_ids, before + 2);
    endpoint_over();
}

/* Strangers who close one after the other do not have this end open ports for ever. */
static void ports_are_not_opened_for_ever(void **state)
{
    (void)state;
    endpoint_new(false);
    for (unsigned i = 0; i < 2 * RDMA_LISTENERS_MAX; i++) {
        endpoint->cm_missed = 100;
        listens();
    }
    assert_int_equal(n_live, RDMA_LISTENERS_MAX);
    endpoint_over();
}

/* The address and the route of the path's connection are resolved, and it connects. */
static void route_comes(rdma_path_t *path)
{
    happens(RDMA_CM_EVENT_ADDR_RESOLVED, path->cm, NULL, 0);
    rdma_cm_heard(endpoint);
    happens(RDMA_CM_EVENT_ROUTE_RESOLVED, path->cm, NULL, 0);
    rdma_cm_heard(endpoint);
}

static void a_dialer_takes_another_port(void **state)
{
    (void)state;
    endpoint_new(true);
    used_ports = 3;
    assert_int_equal(rdma_cm_dial(&paths[0]), RF_OK);
    for (unsigned i = 0; i < 4; i++) {
        assert_false(lanes[0].failed);
        route_comes(&paths[0]);
    }
    assert_int_equal(connected, 1);
    assert_int_equal(n_live, 1);
    assert_false(lanes[0].failed);
    used_ports = 1000;
    assert_int_equal(rdma_cm_dial(&paths[1]), RF_OK);
    for (unsigned i = 0; i < 100 && !lanes[1].failed; i++) route_comes(&paths[1]);
    assert_true(lanes[1].failed);
    endpoint_over();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_the_token_comes_in),
        cmocka_unit_test(a_removed_device_is_not_kept_open),
        cmocka_unit_test(whatever_strangers_say_they_stay_outside),
        cmocka_unit_test(a_port_that_is_used_is_not_the_last),
        cmocka_unit_test(where_nobody_comes_is_listened_no_longer),
        cmocka_unit_test(ports_are_not_opened_for_ever),
        cmocka_unit_test(a_dialer_takes_another_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
