/* What only TCP has: keys that differ, encryption at one end only, half-open connections, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "transport/tcp/internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANG_NS     (30 * RF_NS_PER_S)
#define DEADLINE_NS (20 * RF_NS_PER_S)

static const rf_transport_t *const tcp = &rf_transport_tcp;
static const uint8_t key_right[32] = "thirty-two bytes nobody may know",
                     key_wrong[32] = "and another thirty-two of them!";

typedef struct end {
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    unsigned incoming, up, dead;
    rf_err_t why;
} end_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    end_t *end = context;
    if (event == RF_LINK_INCOMING) {
        end->incoming++;
        end->link = link;
        assert_int_equal(tcp->accept(link, NULL), RF_OK);
    }
    end->up += event == RF_LINK_UP;
    if (event == RF_LINK_DEAD) {
        end->dead++;
        end->why = info->err;
    }
}

static rf_err_t end_open_as(end_t *end, const char *address, const uint8_t *key, char *medium)
{
    rf_endpoint_params_t params = {.on_event = on_event,
                                   .context = end,
                                   .address = address,
                                   .key = key,
                                   .key_size = 32,
                                   .medium = medium,
                                   .deadline_ns = DEADLINE_NS};
    params.self.version_major = RF_VERSION_MAJOR;
    *end = (end_t){0};
    return tcp->endpoint_open(&params, &end->endpoint);
}

static rf_err_t end_open(end_t *end, const char *address, const uint8_t *key)
{
    return end_open_as(end, address, key, NULL);
}

static void connect_to(end_t *from, const end_t *to, const uint8_t *key)
{
    char address[RF_ADDRESS_MAX];
    assert_int_equal(tcp->endpoint_address(to->endpoint, address, sizeof address), RF_OK);
    rf_link_params_t params = {.address = address, .socket = -1, .key = key, .key_size = 32};
    assert_int_equal(tcp->connect(from->endpoint, &params, &from->link), RF_OK);
}

static void pump(end_t *a, end_t *b)
{
    uint64_t next_ns;
    tcp->endpoint_progress(a->endpoint, rf_clock_ns(), &next_ns);
    tcp->endpoint_progress(b->endpoint, rf_clock_ns(), &next_ns);
}

static void pump_until_settled(end_t *a, end_t *b)
{
    uint64_t since_ns = rf_clock_ns();
    while (a->dead == 0 && !(a->up && b->up)) {
        pump(a, b);
        if (rf_clock_ns() - since_ns > HANG_NS) fail_msg("neither up nor refused");
    }
}

/* What becomes of a link whose ends hold these keys, and are of these media. RF_OK: it comes up. */
static rf_err_t meet_as(const uint8_t *listener, char *listens_as, const uint8_t *dialer, char *dials_as)
{
    end_t a, b;
    assert_int_equal(end_open_as(&b, "127.0.0.1:0", listener, listens_as), RF_OK);
    assert_int_equal(end_open_as(&a, NULL, dialer, dials_as), RF_OK);
    connect_to(&a, &b, NULL);
    pump_until_settled(&a, &b);
    rf_err_t err = a.dead ? a.why : RF_OK;
    if (a.dead) assert_int_equal(b.incoming, 0);
    tcp->endpoint_close(a.endpoint);
    tcp->endpoint_close(b.endpoint);
    return err;
}

static rf_err_t meet(const uint8_t *listener, const uint8_t *dialer)
{
    return meet_as(listener, NULL, dialer, NULL);
}

/* Links of this medium do not meet control links of another. */
static void media_decide(void **state)
{
    (void)state;
    char rdma[] = "rdma", dpdk[] = "dpdk", plain[] = "tcp", unknown[] = "carrier pigeon";
    assert_int_equal(meet_as(NULL, rdma, NULL, rdma), RF_OK);
    assert_int_equal(meet_as(key_right, plain, key_right, NULL), RF_OK);
    assert_int_equal(meet_as(NULL, rdma, NULL, NULL), RF_ERR_CONFIG);
    assert_int_equal(meet_as(NULL, NULL, NULL, rdma), RF_ERR_CONFIG);
    assert_int_equal(meet_as(key_right, dpdk, key_right, rdma), RF_ERR_CONFIG);
    end_t end;
    assert_int_equal(end_open_as(&end, NULL, NULL, unknown), RF_ERR_INVALID);
}

static void keys_decide(void **state)
{
    (void)state;
    assert_int_equal(meet(key_right, key_right), RF_OK);
    assert_int_equal(meet(NULL, NULL), RF_OK);
    assert_int_equal(meet(key_right, key_wrong), RF_ERR_AUTH);
    assert_int_equal(meet(key_right, NULL), RF_ERR_AUTH);
    assert_int_equal(meet(NULL, key_right), RF_ERR_AUTH);
}

static void a_key_of_one_link(void **state)
{
    (void)state;
    end_t a, b;
    if (end_open(&b, "[::1]:0", key_right) != RF_OK) /* a host without IPv6 */
        assert_int_equal(end_open(&b, "127.0.0.1:0", key_right), RF_OK);
    assert_int_equal(end_open(&a, NULL, key_wrong), RF_OK);
    connect_to(&a, &b, key_right);
    pump_until_settled(&a, &b);
    assert_int_equal(a.dead, 0);
    tcp->endpoint_close(a.endpoint);
    tcp->endpoint_close(b.endpoint);
}

/* Far more connections that say nothing, or half a hello, than may wait: they cost bounded memory, and a real
 * peer still gets its link. */
static void half_open_connections(void **state)
{
    (void)state;
    enum { STRANGERS = 3 * TCP_HALF_OPEN_MAX };
    const uint8_t *const keys[] = {NULL, key_right};
    for (unsigned k = 0; k < 2; k++) {
        end_t a, b;
        int strangers[STRANGERS];
        assert_int_equal(end_open(&b, "127.0.0.1:0", keys[k]), RF_OK);
        assert_int_equal(end_open(&a, NULL, keys[k]), RF_OK);
        struct sockaddr_storage to;
        socklen_t size;
        assert_int_equal(tcp_address_parse(((tcp_endpoint_t *)b.endpoint)->address, &to, &size), RF_OK);
        for (unsigned i = 0; i < STRANGERS; i++) {
            strangers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
            assert_true(strangers[i] >= 0);
            assert_int_equal(connect(strangers[i], (struct sockaddr *)&to, size), 0);
            if (i % 2) assert_int_equal(send(strangers[i], TCP_MAGIC, 5, MSG_NOSIGNAL), 5);
            pump(&a, &b);
            assert_true(((tcp_endpoint_t *)b.endpoint)->n_half_open <= TCP_HALF_OPEN_MAX);
        }
        connect_to(&a, &b, NULL);
        pump_until_settled(&a, &b);
        assert_int_equal(a.dead, 0);
        assert_int_equal(b.incoming, 1);
        for (unsigned i = 0; i < STRANGERS; i++) close(strangers[i]);
        tcp->endpoint_close(a.endpoint);
        tcp->endpoint_close(b.endpoint);
    }
}

/* Idle links cost polls next to nothing: the epoll set is asked once a round, not each link's socket. */
static void idle_links_wait_in_the_set(void **state)
{
    (void)state;
    enum { LINKS = 50 };
    end_t a, b;
    rf_link_t *links[LINKS];
    assert_int_equal(end_open(&b, "127.0.0.1:0", NULL), RF_OK);
    assert_int_equal(end_open(&a, NULL, NULL), RF_OK);
    for (unsigned i = 0; i < LINKS; i++) {
        connect_to(&a, &b, NULL);
        links[i] = a.link;
        uint64_t since_ns = rf_clock_ns();
        while (a.up <= i || b.up <= i) {
            pump(&a, &b);
            if (rf_clock_ns() - since_ns > HANG_NS) fail_msg("a link does not come up");
        }
    }
    rf_slot_t slots[4];
    for (unsigned round = 0; round < 2 * TCP_HOT_POLLS; round++)
        for (unsigned i = 0; i < LINKS; i++) assert_int_equal(tcp->poll(links[i], slots, 4), 0);
    for (unsigned i = 0; i < LINKS; i++) assert_int_equal(tcp_link_of(links[i])->hot, 0);
    /* And what comes is found all the same. */
    rf_slot_t slot = {.control = rf_control_make(1, 1, false, 0)};
    assert_int_equal(tcp->send(b.link, &slot, 1), 1);
    assert_int_equal(tcp->flush(b.link), RF_OK);
    unsigned got = 0;
    uint64_t since_ns = rf_clock_ns();
    while (got == 0) {
        for (unsigned i = 0; i < LINKS; i++) got += tcp->poll(links[i], slots, 4);
        if (rf_clock_ns() - since_ns > HANG_NS) fail_msg("a slot on one of many idle links is not found");
    }
    tcp->endpoint_close(a.endpoint);
    tcp->endpoint_close(b.endpoint);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const good[] = {"127.0.0.1:1", "0.0.0.0:65535", "[::1]:80", "[2001:db8::7]:4711"};
    static const char *const bad[] = {
        "",        ":",       "127.0.0.1",    "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:1x",
        "[::1:80", "::1:80x", "localhost:80", "[]:1",       "1.2.3:4",         "999.0.0.1:1"};
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        struct sockaddr_storage address;
        socklen_t size;
        char text[RF_ADDRESS_MAX];
        assert_int_equal(tcp_address_parse(good[i], &address, &size), RF_OK);
        tcp_address_print(&address, text, sizeof text);
        assert_string_equal(text, good[i]);
    }
    end_t end;
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(end_open(&end, bad[i], NULL), RF_ERR_INVALID);
}

static void a_port_in_use(void **state)
{
    (void)state;
    end_t first, second;
    char address[RF_ADDRESS_MAX];
    assert_int_equal(end_open(&first, "127.0.0.1:0", NULL), RF_OK);
    assert_int_equal(tcp->endpoint_address(first.endpoint, address, sizeof address), RF_OK);
    assert_int_equal(end_open(&second, address, NULL), RF_ERR_OS);
    tcp->endpoint_close(first.endpoint);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in at;
    socklen_t size = sizeof at;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
    return at.sin_port;
}

/* Which socket it is; no other ever has the same. */
static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof cookie;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
    return cookie;
}

/* A kernel whose queue is full drops what asks for a place in it, as a bad wire would: long before the link's deadline another
 * connection asks, and the first that is let in is the link's. */
static void a_lost_connect_is_made_anew(void **state)
{
    (void)state;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int filler = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    assert_int_equal(connect(filler, (struct sockaddr *)&at, sizeof at), 0);

    end_t end;
    char address[RF_ADDRESS_MAX];
    assert_int_equal(end_open(&end, NULL, NULL), RF_OK);
    snprintf(address, sizeof address, "127.0.0.1:%u", ntohs(at.sin_port));
    rf_link_params_t params = {.address = address, .socket = -1};
    assert_int_equal(tcp->connect(end.endpoint, &params, &end.link), RF_OK);
    const tcp_link_t *link = (const tcp_link_t *)end.link;
    uint64_t now_ns = rf_clock_ns(), next_ns;
    tcp->endpoint_progress(end.endpoint, now_ns, &next_ns);
    assert_non_null(link->setup);
    uint64_t last = cookie_of(link->setup->conn->fd);
    uint64_t limit_ns = TCP_CONNECT_NS_MIN; /* each has longer than the one before: the way may be long */
    for (unsigned i = 0; i < 4; i++) {
        now_ns += limit_ns;
        tcp->endpoint_progress(end.endpoint, now_ns, &next_ns);
        assert_non_null(link->setup);
        limit_ns = limit_ns * 2 < TCP_CONNECT_NS_MAX ? limit_ns * 2 : TCP_CONNECT_NS_MAX;
        assert_int_equal(link->setup->deadline_ns, now_ns + limit_ns);
        assert_int_equal(link->setup->phase, TCP_PHASE_CONNECT);
        uint64_t cookie = cookie_of(link->setup->conn->fd);
        assert_int_not_equal(cookie, last);
        last = cookie;
    }
    close(accept(listener, NULL, NULL)); /* the filler's */
    tcp->endpoint_progress(end.endpoint, now_ns + limit_ns, &next_ns);
    int in = accept(listener, NULL, NULL);
    assert_true(in >= 0);
    struct sockaddr_in from;
    assert_int_equal(getpeername(in, (struct sockaddr *)&from, &size), 0);
    assert_int_equal(from.sin_port, port_of(link->setup->conn->fd));
    tcp->endpoint_progress(end.endpoint, rf_clock_ns(), &next_ns);
    assert_int_equal(link->setup->phase, TCP_PHASE_HELLO);
    assert_int_equal(end.dead, 0);
    tcp->endpoint_close(end.endpoint);
    close(in);
    close(filler);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_decide),
        cmocka_unit_test(media_decide),
        cmocka_unit_test(a_key_of_one_link),
        cmocka_unit_test(half_open_connections),
        cmocka_unit_test(a_lost_connect_is_made_anew),
        cmocka_unit_test(idle_links_wait_in_the_set),
        cmocka_unit_test(addresses),
        cmocka_unit_test(a_port_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
