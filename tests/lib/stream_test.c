/* Streams beside messages, in both directions at once, and what becomes of them when a channel ends. */
#include "fake_machine.h"

#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define STREAM_BYTES (24u << 20)

static uint64_t mix(uint64_t sum, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) sum = (sum ^ bytes[i]) * 1099511628211ull;
    return sum;
}

static uint64_t sums[2];

static void *write_all(void *argument)
{
    static uint8_t bytes[100000];
    rf_channel_stream_t *stream = argument;
    rf_prng_t prng;
    rf_prng_seed(&prng, rf_self()->domain);
    for (size_t left = STREAM_BYTES; left > 0;) {
        size_t size = 1 + rf_prng_below(&prng, sizeof bytes);
        if (size > left) size = left;
        for (size_t i = 0; i < size; i += 8) {
            uint64_t word = rf_prng_next(&prng);
            memcpy(bytes + i, &word, size - i < 8 ? size - i : 8);
        }
        size_t written = 0;
        CHECK_OK(rf_channel_stream_write(stream, bytes, size, &written, SOON));
        CHECK(written == size);
        sums[0] = mix(sums[0], bytes, size);
        left -= size;
    }
    CHECK_OK(rf_channel_stream_finish(stream, SOON));
    CHECK_OK(rf_channel_stream_drain(stream, SOON));
    return NULL;
}

static void *read_all(void *argument)
{
    rf_channel_stream_t *stream = argument;
    static uint8_t bytes[5000];
    size_t total = 0;
    for (unsigned i = 0;; i++) {
        size_t size;
        rf_err_t err;
        if (i % 2) {
            const void *at;
            err = rf_channel_stream_peek(stream, &at, &size, SOON);
            if (err == RF_OK) {
                sums[1] = mix(sums[1], at, size);
                rf_channel_stream_consume(stream, size);
            }
        } else {
            err = rf_channel_stream_read(stream, bytes, sizeof bytes, &size, SOON);
            if (err == RF_OK) sums[1] = mix(sums[1], bytes, size);
        }
        if (err == RF_ERR_CLOSED) break;
        CHECK_OK(err);
        total += size;
    }
    CHECK(total == STREAM_BYTES);
    return NULL;
}

/* Both ends write and read stream 3, exchange messages meanwhile, and compare what they saw at the end. */
static int both(rf_channel_t *channel)
{
    rf_channel_stream_t *stream;
    rf_thread_t *writer, *reader;
    CHECK_ERR(rf_channel_stream_open(channel, 8, 0, &stream), RF_ERR_INVALID);
    CHECK_ERR(rf_channel_stream_open(channel, 0, 100, &stream), RF_ERR_INVALID);
    CHECK_OK(rf_channel_stream_open(channel, 3, 64 << 10, &stream));
    CHECK_ERR(rf_channel_stream_open(channel, 3, 64 << 10, &stream), RF_ERR_EXISTS);
    CHECK_OK(rf_thread_create(write_all, stream, 0, &writer));
    CHECK_OK(rf_thread_create(read_all, stream, 0, &reader));
    uint64_t got;
    rf_message_t message = {.bytes = &got, .room = sizeof got};
    for (uint64_t i = 0; i < 300; i++) {
        CHECK_OK(rf_channel_send(channel, 1, &i, sizeof i, SOON));
        CHECK_OK(rf_channel_receive(channel, &message, SOON));
        CHECK(got == i);
    }
    CHECK_OK(rf_thread_join(writer, NULL, SOON));
    CHECK_OK(rf_thread_join(reader, NULL, SOON));
    CHECK_OK(rf_channel_send(channel, 2, &sums[0], sizeof sums[0], SOON));
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    CHECK(message.type == 2 && got == sums[1]);
    CHECK_OK(rf_channel_send(channel, 3, NULL, 0, SOON));
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    rf_finish();
    return 0;
}

static int first(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *export_;
    rf_channel_t *channel;
    CHECK_OK(rf_export("bulk", 0, &export_, SOON));
    CHECK_OK(rf_accept(export_, &channel, SOON));
    return both(channel);
}

static int second(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel;
    CHECK_OK(rf_connect("bulk", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    return both(channel);
}

/* ---- ends ---- */

static int writer_dies(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel;
    rf_channel_stream_t *stream;
    CHECK_OK(rf_connect("ends", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    CHECK_OK(rf_channel_stream_open(channel, 0, 0, &stream));
    CHECK_OK(rf_channel_stream_write(stream, "some bytes", 10, NULL, SOON));
    uint64_t go;
    rf_message_t message = {.bytes = &go, .room = sizeof go};
    CHECK_OK(rf_channel_receive(channel, &message, SOON)); /* the reader has seen some of it */
    _exit(0);
}

static int reader_sees(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *export_;
    rf_channel_t *channel;
    rf_channel_stream_t *stream;
    rf_waitset_t *set;
    CHECK_OK(rf_export("ends", 0, &export_, SOON));
    CHECK_OK(rf_accept(export_, &channel, SOON));
    CHECK_OK(rf_channel_stream_open(channel, 0, 0, &stream));
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_stream(set, stream, RF_EVENT_READABLE, stream, NULL));
    rf_event_t event;
    unsigned n;
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(event.what == RF_EVENT_READABLE && event.cookie == stream);
    char bytes[16];
    size_t got, total = 0;
    CHECK_OK(rf_channel_stream_read(stream, bytes, 4, &got, SOON));
    CHECK(got == 4);
    total = got;
    CHECK_OK(rf_channel_send(channel, 1, NULL, 0, SOON));
    rf_err_t err;
    while ((err = rf_channel_stream_read(stream, bytes, sizeof bytes, &got, SOON)) == RF_OK) total += got;
    CHECK_ERR(err, RF_ERR_PEER_DEAD);
    CHECK(total == 10);
    CHECK_ERR(rf_channel_stream_write(stream, bytes, 1, NULL, SOON), RF_ERR_PEER_DEAD);
    CHECK_ERR(rf_channel_stream_drain(stream, SOON), RF_OK);
    rf_finish();
    return 0;
}

static void run_pair(int (*one)(void), int (*two)(void), rf_core_t core, rf_node_t node, int dies)
{
    fake_domain_t domains[] = {{.run = one, .core = 0},
                               {.run = two, .core = core, .node = node, .dies = dies}};
    assert_int_equal(fake_machine_run(domains, 2, "tcp"), 0);
}

static void test_both_lmp(void **state)
{
    (void)state, run_pair(first, second, 0, 0, 0);
}
static void test_both_urpc(void **state)
{
    (void)state, run_pair(first, second, 1, 0, 0);
}
static void test_both_network(void **state)
{
    (void)state, run_pair(first, second, 4, 1, 0);
}
static void test_ends(void **state)
{
    (void)state, run_pair(reader_sees, writer_dies, 1, 0, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_both_lmp), cmocka_unit_test(test_both_urpc),
                                       cmocka_unit_test(test_both_network), cmocka_unit_test(test_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
