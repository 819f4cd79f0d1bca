/* Wait sets: channels, exports, timers, descriptors, signals, machine events, operations. And questions to the monitor. */
#include "fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define CLIENTS  3
#define MESSAGES 500

/* A server with one set: an export and the channels of its clients. */
static int server(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *export_;
    rf_waitset_t *set;
    CHECK_OK(rf_export("set", 0, &export_, SOON));
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_export(set, export_, export_, NULL));
    unsigned ended = 0, messages = 0;
    while (ended < CLIENTS) {
        rf_event_t events[2]; /* fewer than sources: they take turns */
        unsigned n;
        CHECK_OK(rf_waitset_wait(set, events, 2, &n, SOON));
        for (unsigned i = 0; i < n; i++) {
            if (events[i].cookie == export_) {
                rf_channel_t *channel;
                CHECK(events[i].what == RF_EVENT_READABLE);
                CHECK_OK(rf_accept(export_, &channel, rf_now_ns()));
                CHECK_OK(rf_waitset_add_channel(set, channel, RF_EVENT_READABLE, channel, NULL));
                continue;
            }
            rf_channel_t *channel = events[i].cookie;
            uint64_t value;
            rf_message_t message = {.bytes = &value, .room = sizeof value};
            if (events[i].what & RF_EVENT_ENDED) {
                CHECK_ERR(rf_channel_try_receive(channel, &message), RF_ERR_CLOSED);
                rf_channel_close(channel); /* leaves the set */
                ended++;
                continue;
            }
            CHECK_OK(rf_channel_try_receive(channel, &message));
            CHECK_OK(rf_channel_send(channel, 1, &value, sizeof value, SOON));
            messages++;
        }
    }
    CHECK(messages == CLIENTS * MESSAGES);
    rf_finish();
    return 0;
}

static int client(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel;
    CHECK_OK(rf_connect("set", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    for (uint64_t i = 0; i < MESSAGES; i++) {
        uint64_t got;
        rf_message_t message = {.bytes = &got, .room = sizeof got};
        CHECK_OK(rf_channel_send(channel, 1, &i, sizeof i, SOON));
        CHECK_OK(rf_channel_receive(channel, &message, SOON));
        CHECK(got == i);
    }
    rf_finish();
    return 0;
}

static void timers(rf_waitset_t *set)
{
    rf_event_t event;
    unsigned n;
    uint32_t id;
    CHECK_ERR(rf_waitset_wait(set, &event, 1, &n, rf_deadline_ms(2)), RF_ERR_TIMEOUT);
    uint64_t first = rf_deadline_ms(5);
    CHECK_OK(rf_waitset_add_timer(set, first, 0, &id, &id));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(n == 1 && event.what == RF_EVENT_TIMER && event.id == id && event.cookie == &id &&
          event.expirations == 1);
    CHECK(rf_now_ns() >= first);
    CHECK_ERR(rf_waitset_remove(set, id), RF_ERR_NOT_FOUND); /* once, and gone */
    CHECK_OK(rf_waitset_add_timer(set, rf_now_ns(), 1000000, NULL, &id));
    uint64_t expirations = 0;
    while (expirations < 10) {
        CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
        expirations += event.expirations;
    }
    CHECK_OK(rf_waitset_remove(set, id));
}

static void *write_later(void *argument)
{
    rf_thread_sleep(rf_deadline_ms(5));
    CHECK(write(*(int *)argument, "x", 1) == 1);
    return NULL;
}

static void descriptors(rf_waitset_t *set)
{
    rf_event_t events[4];
    unsigned n;
    uint32_t id, writable;
    int pair[2];
    CHECK(pipe(pair) == 0);
    CHECK_OK(rf_waitset_add_fd(set, pair[0], RF_EVENT_READABLE, pair, &id));
    CHECK_ERR(rf_waitset_add_fd(set, pair[0], RF_EVENT_READABLE, pair, NULL), RF_ERR_EXISTS);
    CHECK_ERR(rf_waitset_add_fd(set, 199, RF_EVENT_READABLE, pair, NULL), RF_ERR_INVALID);
    CHECK_ERR(rf_waitset_wait(set, events, 4, &n, rf_deadline_ms(2)), RF_ERR_TIMEOUT);
    for (unsigned round = 0; round < 20; round++) {
        rf_thread_t *thread;
        CHECK_OK(rf_thread_create(write_later, &pair[1], 0, &thread));
        CHECK_OK(rf_waitset_wait(set, events, 4, &n, SOON));
        CHECK(n == 1 && events[0].what == RF_EVENT_READABLE && events[0].cookie == pair);
        CHECK_OK(rf_waitset_wait(set, events, 4, &n, SOON)); /* a level: still readable */
        char byte;
        CHECK(read(pair[0], &byte, 1) == 1);
        CHECK_OK(rf_thread_join(thread, NULL, SOON));
        CHECK_ERR(rf_waitset_wait(set, events, 4, &n, rf_now_ns()), RF_ERR_TIMEOUT);
    }
    CHECK_OK(rf_waitset_add_fd(set, pair[1], RF_EVENT_WRITABLE, NULL, &writable));
    CHECK_OK(rf_waitset_wait(set, events, 4, &n, SOON));
    CHECK(n == 1 && events[0].what == RF_EVENT_WRITABLE);
    CHECK_OK(rf_waitset_remove(set, writable));
    close(pair[1]);
    CHECK_OK(rf_waitset_wait(set, events, 4, &n, SOON)); /* the end of the pipe */
    CHECK(events[0].what == (RF_EVENT_READABLE | RF_EVENT_ENDED));
    CHECK_OK(rf_waitset_remove(set, id));
    close(pair[0]);
}

static void signals_and_events(rf_waitset_t *set)
{
    rf_event_t events[8];
    unsigned n;
    uint32_t id;
    CHECK_ERR(rf_waitset_add_signals(set, 0, NULL, &id, SOON), RF_ERR_INVALID);
    CHECK_OK(
        rf_waitset_add_signals(set, 1ull << 9 | 1ull << 11, NULL, &id, SOON)); /* the fake sends them all */
    unsigned seen = 0;
    while (seen != (1u << 10 | 1u << 12)) {
        CHECK_OK(rf_waitset_wait(set, events, 8, &n, SOON));
        for (unsigned i = 0; i < n; i++) {
            CHECK(events[i].what == RF_EVENT_SIGNAL && events[i].id == id);
            seen |= 1u << events[i].signo;
        }
    }
    CHECK_OK(rf_waitset_remove(set, id));

    CHECK_OK(rf_waitset_add_machine(set, RF_MACHINE_EVENTS_CORES, NULL, &id, SOON));
    unsigned cores = 0;
    bool lost = false;
    for (unsigned last = 0; last != 79;) { /* 80 events come, half of them of domains; 64 are kept */
        CHECK_OK(rf_waitset_wait(set, events, 8, &n, SOON));
        for (unsigned i = 0; i < n; i++) {
            CHECK(events[i].what == RF_EVENT_MACHINE);
            if (events[i].machine.what == RF_MACHINE_EVENT_LOST) {
                lost = true;
                continue;
            }
            CHECK(events[i].machine.what == RF_MACHINE_EVENT_CORE_UP && events[i].machine.core >= last);
            last = events[i].machine.core;
            cores++;
        }
    }
    CHECK(lost ? cores == 32 : cores <= 40);
    CHECK_OK(rf_waitset_remove(set, id));
}

static void operations(rf_waitset_t *set)
{
    const char *const argv[] = {"./program", "argument", NULL};
    rf_operation_t *operation;
    rf_operation_result_t result;
    rf_event_t event;
    unsigned n;
    CHECK_OK(rf_spawn_begin(1, argv, NULL, &operation));
    CHECK_OK(rf_waitset_add_operation(set, operation, operation, NULL));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(event.what == RF_EVENT_DONE && event.cookie == operation && rf_operation_done(operation));
    CHECK_OK(rf_operation_wait(operation, &result, SOON));
    CHECK(result.domain == 101 && result.core == 1);
    CHECK_OK(rf_wait_domain_begin(101, &operation));
    CHECK_OK(rf_waitset_add_operation(set, operation, NULL, NULL));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK_OK(rf_operation_wait(operation, &result, SOON));
    CHECK(result.ended.wait_status == 7 << 8 && result.ended.state == RF_DOMAIN_STATE_ENDED);
    CHECK_OK(rf_wait_domain_begin(999, &operation));
    CHECK_ERR(rf_operation_wait(operation, &result, rf_deadline_ms(3)), RF_ERR_TIMEOUT);
    CHECK(!rf_operation_done(operation));
    rf_operation_cancel(operation);

    rf_domain_t domain;
    rf_domain_info_t ended;
    CHECK_OK(rf_spawn(2, argv, NULL, &domain, SOON));
    CHECK_ERR(rf_spawn(3, argv, NULL, &domain, SOON), RF_ERR_EXEC);
    CHECK(strcmp(rf_reason(), "exec ./missing: No such file or directory") == 0);
    CHECK_ERR(rf_spawn(8, argv, NULL, &domain, SOON), RF_ERR_NOT_FOUND);
    CHECK_OK(rf_wait_domain(domain, &ended, SOON));
    CHECK_ERR(rf_wait_domain(999, &ended, rf_deadline_ms(3)), RF_ERR_TIMEOUT);
    uint16_t index;
    CHECK_OK(rf_span(1, "args", 4, &index, SOON));
    CHECK(index == 1);
    CHECK_ERR(rf_span(1, "", RF_SPAN_ARGS_BYTES_MAX + 1, &index, SOON), RF_ERR_INVALID);
}

static void lists(void)
{
    rf_core_info_t rows[8];
    uint64_t next = 0;
    unsigned n, seen = 0;
    CHECK_OK(rf_core_list(0, rows, 8, &n, &next, SOON));
    CHECK(n == 8 && next == UINT64_MAX && rows[7].core == 7 && rows[7].node == 1);
    for (next = 0; next != UINT64_MAX;) {
        CHECK_OK(rf_core_list(next, rows, 3, &n, &next, SOON));
        for (unsigned i = 0; i < n; i++) CHECK(rows[i].core == seen++);
    }
    CHECK(seen == 8);
}

static int alone(void)
{
    CHECK_OK(rf_init(SOON));
    rf_waitset_t *set;
    CHECK_OK(rf_waitset_create(&set));
    timers(set);
    descriptors(set);
    signals_and_events(set);
    operations(set);
    lists();
    rf_waitset_destroy(set);
    rf_waitset_destroy(NULL);
    rf_finish();
    return 0;
}

/* Room on a full channel is announced. */
static int slow_reader(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *export_;
    rf_channel_t *channel;
    CHECK_OK(rf_export("slow", 0, &export_, SOON));
    CHECK_OK(rf_accept(export_, &channel, SOON));
    rf_thread_sleep(rf_deadline_ms(20));
    uint64_t value, expected = 0;
    rf_message_t message = {.bytes = &value, .room = sizeof value};
    while (rf_channel_receive(channel, &message, SOON) == RF_OK) CHECK(value == expected++);
    CHECK(expected == 20000);
    rf_finish();
    return 0;
}

static int fast_writer(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel;
    rf_waitset_t *set;
    CHECK_OK(rf_connect("slow", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_channel(set, channel, RF_EVENT_WRITABLE, NULL, NULL));
    for (uint64_t value = 0; value < 20000;) {
        rf_err_t err = rf_channel_try_send(channel, 1, &value, sizeof value);
        if (err == RF_OK) {
            value++;
            continue;
        }
        CHECK_ERR(err, RF_ERR_AGAIN);
        CHECK_OK(rf_channel_flush(channel));
        rf_event_t event;
        unsigned n;
        CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
        CHECK(event.what == RF_EVENT_WRITABLE);
    }
    CHECK_OK(rf_channel_flush(channel));
    rf_finish();
    return 0;
}

static void test_alone(void **state)
{
    (void)state;
    fake_domain_t domain = {.run = alone};
    assert_int_equal(fake_machine_run(&domain, 1, "tcp"), 0);
}

static void test_server(void **state)
{
    (void)state;
    fake_domain_t domains[] = {{.run = server, .core = 0},
                               {.run = client, .core = 0},
                               {.run = client, .core = 1},
                               {.run = client, .core = 2}};
    assert_int_equal(fake_machine_run(domains, 4, "tcp"), 0);
}

static void test_writable(void **state)
{
    (void)state;
    fake_domain_t domains[] = {{.run = slow_reader, .core = 0}, {.run = fast_writer, .core = 1}};
    assert_int_equal(fake_machine_run(domains, 2, "tcp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone), cmocka_unit_test(test_server),
                                       cmocka_unit_test(test_writable)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
