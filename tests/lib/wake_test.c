/*
 * No wake-up is lost between two domains on one CPU, whatever the scheduler does. Every operation of a channel's link has a
 * pause before and after it that a seed decides about: the peer runs there, as it would had the kernel preempted us. Rings
 * stay small, so both sides sleep all the time; one that sleeps for good fails at its deadline and says what its end of the link
 * knew.
 *
 * lib_wake [RUNS [SEED [STUCK_MS]]]: more of the same, from another seed, with less patience.
 */
#include "fake_machine.h"

#include "internal.h"

#include "../transport/shm_slow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define MESSAGES 120
#else
#define MESSAGES 400
#endif
#define CHANNELS 6 /* of one run, one after the other */
#define LAST     15

static unsigned runs = 2, stuck_ms = 20000;
static uint64_t seed = 1;

static rf_channel_t *channel;

static unsigned below(unsigned bound)
{
    return shm_slow_below(bound);
}

static void slow_down(rf_channel_t *c)
{
    static rf_transport_t slow;
    slow = shm_slow_table();
    c->transport = &slow;
    c->port.link->transport = &slow;
    ((shm_link_t *)c->port.link)->slots_max = 128u
                                              << below(3) * below(3); /* 128: the longest message just fits */
    shm_slow_every = 8u << below(4);
}

static void report(const char *what, rf_err_t err)
{
    fprintf(stderr, "domain %llu, seed %llu: %s: %s\n", (unsigned long long)rf_self()->domain,
            (unsigned long long)seed, what, rf_err_name(err));
    shm_slow_report(channel->port.link);
}

#define GO(what, expr)                                                                                       \
    do {                                                                                                     \
        rf_err_t err_ = (expr);                                                                              \
        if (err_ == RF_OK) break;                                                                            \
        report(what, err_);                                                                                  \
        usleep(100000); /* the peer says so too */                                                           \
        _exit(1);                                                                                            \
    } while (0)
#define DEADLINE rf_deadline_ms(stuck_ms)

/* ---- floods ---- */

static void flood(void)
{
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX] = {0};
    rf_channel_slot_t slots[40];
    for (uint64_t n = 0; n < MESSAGES;) {
        unsigned way = below(4);
        if (way == 0) { /* a batch, as many as fit */
            unsigned want = 1 + below(40), sent = 0;
            memset(slots, 0, sizeof slots);
            for (unsigned i = 0; i < want; i++) {
                slots[i].words[0] = n + i;
                slots[i].type = 2;
                slots[i].size = 8;
            }
            rf_err_t err = rf_channel_send_slots(channel, slots, want, &sent);
            if (err != RF_ERR_AGAIN) GO("send_slots", err);
            n += sent;
        } else if (way == 1) {
            memcpy(bytes, &n, sizeof n);
            rf_err_t err = rf_channel_try_send(channel, 3, bytes, 8 + below(400));
            if (err != RF_ERR_AGAIN) {
                GO("try_send", err);
                n++;
            }
        } else {
            memcpy(bytes, &n, sizeof n);
            size_t size = way == 2 ? 8 + below(100) : 8 + below(RF_CHANNEL_MESSAGE_MAX - 8);
            GO("send", rf_channel_send(channel, 4, bytes, size, DEADLINE));
            n++;
        }
    }
    GO("last send", rf_channel_send(channel, LAST, NULL, 0, DEADLINE));
}

static void drain(void)
{
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    for (uint64_t expected = 0;;) {
        GO("receive", rf_channel_receive(channel, &message, DEADLINE));
        if (message.type == LAST) break;
        uint64_t n;
        CHECK(message.size >= sizeof n);
        memcpy(&n, bytes, sizeof n);
        CHECK(n >= expected && n < MESSAGES + 64);
        expected = n + 1;
        if (below(64) == 0) usleep(below(200));
    }
}

static void *flood_thread(void *argument)
{
    flood();
    return argument;
}

static void *drain_thread(void *argument)
{
    drain();
    return argument;
}

/* ---- streams ---- */

#define STREAM_BYTES (MESSAGES * 1500u)

static void *write_thread(void *argument)
{
    static uint8_t bytes[9000];
    for (size_t left = STREAM_BYTES; left > 0;) {
        size_t size = below(4) ? 1 + below(40) : 1 + below(sizeof bytes), written = 0;
        if (size > left) size = left;
        GO("stream write", rf_channel_stream_write(argument, bytes, size, &written, DEADLINE));
        left -= written;
    }
    GO("stream finish", rf_channel_stream_finish(argument, DEADLINE));
    GO("stream drain", rf_channel_stream_drain(argument, DEADLINE));
    return NULL;
}

static void *read_thread(void *argument)
{
    static uint8_t bytes[9000];
    for (size_t total = 0;;) {
        size_t got = 0;
        rf_err_t err = rf_channel_stream_read(argument, bytes, 1 + below(sizeof bytes), &got, DEADLINE);
        if (err == RF_ERR_CLOSED) {
            CHECK(total == STREAM_BYTES);
            return NULL;
        }
        GO("stream read", err);
        total += got;
    }
}

/* ---- calls ---- */

static bool calls_over;

static void *call_thread(void *argument)
{
    uint8_t bytes[RF_CALL_BYTES_MAX] = {0};
    rf_message_t reply = {.bytes = bytes, .room = sizeof bytes};
    for (unsigned i = 0; i < MESSAGES / 4; i++)
        GO("call",
           rf_call(channel, 1, bytes, below(4) ? below(200) : below(RF_CALL_BYTES_MAX), &reply, DEADLINE));
    return argument;
}

static void serve_calls(void)
{
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    for (;;) {
        GO("serve", rf_channel_receive(channel, &message, DEADLINE));
        if (!message.call) break;
        GO("reply", rf_reply(channel, message.call, 1, bytes, message.size, DEADLINE));
    }
    calls_over = true;
}

/* ---- a run ---- */

static rf_thread_t *start(void *(*function)(void *), void *argument)
{
    rf_thread_t *thread;
    CHECK_OK(rf_thread_create(function, argument, 0, &thread));
    return thread;
}

static void join(rf_thread_t *thread)
{
    CHECK_OK(rf_thread_join(thread, NULL, RF_NEVER));
}

enum { ONE_WAY, BOTH_WAYS, STREAMS, CALLS, KINDS };

static unsigned kind;

static void one_channel(bool first)
{
    if (kind == ONE_WAY) {
        first ? drain() : flood();
        first ? flood() : drain();
        return;
    }
    rf_thread_t *threads[4];
    unsigned n = 0;
    rf_channel_stream_t *stream = NULL;
    if (kind == STREAMS) {
        GO("stream open", rf_channel_stream_open(channel, 0, 64 << 10, &stream));
        threads[n++] = start(write_thread, stream);
        threads[n++] = start(read_thread, stream);
    }
    if (kind == CALLS) {
        threads[n++] = start(call_thread, NULL);
        threads[n++] = start(call_thread, NULL);
        threads[n++] = start(call_thread, NULL);
        rf_thread_t *server = start((void *(*)(void *))(void (*)(void))serve_calls, NULL);
        while (n > 0) join(threads[--n]);
        GO("last send", rf_channel_send(channel, LAST, NULL, 0, DEADLINE));
        join(server);
        return;
    }
    bool turn = below(2); /* who of a channel's threads is asked first depends on who waited last */
    threads[n++] = start(turn ? drain_thread : flood_thread, NULL);
    threads[n++] = start(turn ? flood_thread : drain_thread, NULL);
    while (n > 0) join(threads[--n]);
}

static void begin(unsigned domain)
{
    rf_prng_seed(&shm_slow_prng, seed * 2 + domain);
    CHECK_OK(rf_init(SOON));
}

/* The other end has read everything before a channel is closed. */
static void part(bool first)
{
    rf_message_t none = {0};
    if (first) {
        GO("goodbye", rf_channel_send(channel, 1, NULL, 0, DEADLINE));
        rf_err_t err = rf_channel_receive(channel, &none, DEADLINE);
        if (err != RF_ERR_CLOSED) GO("end", err);
    } else {
        GO("goodbye", rf_channel_receive(channel, &none, DEADLINE));
    }
    rf_channel_close(channel);
}

static int server(void)
{
    begin(0);
    rf_export_t *export_;
    CHECK_OK(rf_export("wake", 0, &export_, SOON));
    for (unsigned i = 0; i < CHANNELS; i++) {
        CHECK_OK(rf_accept(export_, &channel, SOON));
        slow_down(channel);
        one_channel(true);
        part(true);
    }
    CHECK_OK(rf_export_close(export_, SOON));
    rf_finish();
    return 0;
}

static int client(void)
{
    begin(1);
    for (unsigned i = 0; i < CHANNELS; i++) {
        CHECK_OK(rf_connect("wake", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
        slow_down(channel);
        one_channel(false);
        part(false);
    }
    rf_finish();
    return 0;
}

static void run_kind(unsigned which)
{
    kind = which;
    cpu_set_t before, one;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    (void)sched_setaffinity(0, sizeof one, &one);
    uint64_t first = seed;
    unsigned stuck = 0;
    for (unsigned i = 0; i < runs; i++, seed++) {
        fake_domain_t domains[] = {{.run = server},
                                   {.run = client, .core = (rf_core_t)(seed % 2)}}; /* LMP, URPC */
        stuck += fake_machine_run(domains, 2, "tcp") != 0;
    }
    seed = first;
    (void)sched_setaffinity(0, sizeof before, &before);
    if (stuck) fprintf(stderr, "kind %u: %u runs, %u stuck\n", which, runs, stuck);
    assert_int_equal(stuck, 0);
}

static void test_one_way(void **state)
{
    (void)state, run_kind(ONE_WAY);
}
static void test_both_ways(void **state)
{
    (void)state, run_kind(BOTH_WAYS);
}
static void test_streams(void **state)
{
    (void)state, run_kind(STREAMS);
}
static void test_calls(void **state)
{
    (void)state, run_kind(CALLS);
}

int main(int argc, char **argv)
{
    if (argc > 1) runs = (unsigned)strtoul(argv[1], NULL, 10);
    if (argc > 2) seed = strtoull(argv[2], NULL, 10);
    if (argc > 3) stuck_ms = (unsigned)strtoul(argv[3], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_way),
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
