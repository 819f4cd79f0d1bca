/*
 * What a peer says as soon as its end of the kernel link is up, which may be a moment before the CPU driver's is: taken and
 * answered, wherever in its turn the CPU driver learns that the link is up.
 *
 * Both ends are in this process, so every order is made, not waited for.
 */
#include "fake_driver.h"

#include "base/clock.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/objects.h"
#include "transport/message.h"
#include "transport/shm/internal.h"
#include "transport/shm/shm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TURNS 8 /* of the CPU driver's loop; each of them does all that there is to do */
#define TAG   77

static rf_endpoint_t *endpoint;
static rf_link_t *peer;
static rf_wire_header_t answer;
static unsigned answers;

static void on_peer_event(void *context, rf_link_t *link, rf_link_event_t event,
                          const rf_link_event_info_t *info)
{
    (void)context, (void)link, (void)info;
    assert_int_not_equal(event, RF_LINK_DEAD);
}

static void peer_turn(void)
{
    static rf_assembler_t assembler;
    rf_slot_t slot;
    uint64_t next_ns;
    rf_transport_shm.endpoint_progress(endpoint, rf_clock_ns(), &next_ns);
    while (peer->state == RF_LINK_STATE_UP && rf_transport_shm.poll(peer, &slot, 1) == 1) {
        if (rf_assembler_feed(&assembler, &slot) != RF_OK) continue;
        memcpy(&answer, assembler.bytes, sizeof answer);
        answers++;
    }
}

/* An invocation that needs a descriptor, from the peer, whose end is up. */
static void invoke(int fd)
{
    rf_wire_header_t header = {.tag = TAG, .op = RF_KERNEL_FD_WATCH};
    rf_kernel_fds_t head = {.tag = TAG, .op = RF_KERNEL_FD_WATCH};
    rf_kernel_watch_t watch = {.id = 1, .events = EPOLLIN};
    assert_int_equal(rf_transport_shm.pass_fds(peer, &head, sizeof head, &fd, 1), RF_OK);
    assert_int_equal(rf_message_send2(peer, RF_KERNEL_INVOKE, &header, sizeof header, &watch, sizeof watch),
                     RF_OK);
    assert_int_equal(rf_transport_shm.flush(peer), RF_OK);
}

static void make_both_ends(rf_dispatcher_t *d)
{
    int sockets[2];
    fake_reset();
    fake_driver.monitor.link = fake_driver.dispatchers[0].link = fake_driver.dispatchers[1].link = NULL;
    answers = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets), 0);
    assert_int_equal(rf_kernel_link_open(&fake_driver), RF_OK);
    assert_int_equal(rf_kernel_link_attach(&fake_driver, d, sockets[0]), RF_OK);
    rf_endpoint_params_t params = {.self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_DISPATCHER},
                                   .on_event = on_peer_event,
                                   .deadline_ns = 100 * RF_NS_PER_S};
    assert_int_equal(rf_transport_shm.endpoint_open(&params, &endpoint), RF_OK);
    rf_link_params_t how = {.socket = sockets[1], .slots = 64};
    assert_int_equal(rf_transport_shm.connect(endpoint, &how, &peer), RF_OK);
    rf_core_sleep(&fake_driver, true); /* the first bytes: the CPU driver makes its end, and says hello */
    assert_non_null(d->link);
    rf_core_sleep(&fake_driver, true); /* the peer's hello: the CPU driver is ready */
    assert_int_equal(d->link->state, RF_LINK_STATE_CONNECTING);
}

/* The peer is up and has spoken; the CPU driver has its hello, and has not yet read that it is ready. */
static void speak_first(rf_dispatcher_t *d, int fd)
{
    make_both_ends(d);
    peer_turn();
    assert_int_equal(peer->state, RF_LINK_STATE_UP);
    invoke(fd);
    assert_int_equal(d->link->state, RF_LINK_STATE_CONNECTING);
}

static void take_both_ends_away(rf_dispatcher_t *d)
{
    rf_kernel_link_detach(&fake_driver, d);
    rf_source_close(&fake_driver, &fake_driver.endpoint_source);
    rf_transport_shm.endpoint_close(fake_driver.endpoint);
    rf_transport_shm.endpoint_close(endpoint);
}

static void finish(rf_dispatcher_t *d, int fd)
{
    for (unsigned i = 0; i < TURNS && answers == 0; i++) {
        rf_core_sleep(&fake_driver, true);
        rf_kernel_link_serve(&fake_driver);
        peer_turn();
    }
    assert_int_equal(answers, 1);
    assert_int_equal(answer.tag, TAG);
    assert_int_equal(answer.err, RF_OK);
    assert_true(d->watches[1].source.fd >= 0);
    take_both_ends_away(d);
    close(fd);
}

/* It serves its links before it looks at its descriptors. */
static void served_before_it_is_up(void **state)
{
    rf_dispatcher_t *const both[] = {&fake_driver.dispatchers[0], &fake_driver.monitor};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int fd = eventfd(0, EFD_CLOEXEC);
        speak_first(both[i], fd);
        assert_false(rf_kernel_link_serve(&fake_driver));
        finish(both[i], fd);
    }
}

/* It looks at its descriptors before it serves its links. */
static void up_before_it_is_served(void **state)
{
    rf_dispatcher_t *const both[] = {&fake_driver.dispatchers[0], &fake_driver.monitor};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        int fd = eventfd(0, EFD_CLOEXEC);
        speak_first(both[i], fd);
        rf_core_sleep(&fake_driver, true);
        assert_int_equal(both[i]->link->state, RF_LINK_STATE_UP);
        finish(both[i], fd);
    }
}

/* It learns that it is up while it is about to sleep: then it does not. */
static void up_while_it_goes_to_sleep(void **state)
{
    rf_dispatcher_t *d = &fake_driver.dispatchers[0];
    int fd = eventfd(0, EFD_CLOEXEC);
    (void)state;
    speak_first(d, fd);
    fake_driver.wake_ns = RF_NEVER;
    rf_kernel_link_sleep(&fake_driver, rf_kernel_link_serve(&fake_driver));
    assert_int_equal(d->link->state, RF_LINK_STATE_UP);
    finish(d, fd);
}

/* Its peer asks for attention and never says that it is ready: nobody is kept awake by that. */
static void a_peer_that_is_never_ready(void **state)
{
    rf_dispatcher_t *d = &fake_driver.dispatchers[0];
    (void)state;
    make_both_ends(d);
    shm_attention((shm_link_t *)peer);
    for (unsigned i = 0; i < TURNS; i++) {
        fake_driver.wake_ns = rf_clock_ns() + RF_NS_PER_MS;
        rf_kernel_link_sleep(&fake_driver, rf_kernel_link_serve(&fake_driver));
        assert_int_equal(d->link->state, RF_LINK_STATE_CONNECTING);
        assert_int_equal(fake_driver.restless_turns, 0); /* it slept */
    }
    take_both_ends_away(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(served_before_it_is_up),
        cmocka_unit_test(up_before_it_is_served),
        cmocka_unit_test(up_while_it_goes_to_sleep),
        cmocka_unit_test(a_peer_that_is_never_ready),
    };
    return cmocka_run_group_tests_name("cpudriver first words", tests, NULL, NULL);
}
