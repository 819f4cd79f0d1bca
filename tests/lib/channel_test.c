/* Channels and calls between two domains of a fake machine: same core (LMP), two cores (URPC). */
#include "fake_machine.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define ROUNDS 2000

static rf_channel_t *connect_to(const char *name)
{
    rf_channel_t *channel;
    CHECK_OK(rf_connect(name, &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    return channel;
}

static rf_channel_t *serve_as(const char *name)
{
    rf_export_t *export_;
    rf_channel_t *channel;
    CHECK_OK(rf_export(name, 0, &export_, SOON));
    CHECK_OK(rf_accept(export_, &channel, SOON));
    CHECK_OK(rf_export_close(export_, SOON));
    return channel;
}

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(i * 7 + seed);
}

/* ---- messages of every size, in order, echoed ---- */

static int echo_server(void)
{
    CHECK_OK(rf_init(SOON));
    CHECK(rf_self()->domain == 1 && rf_self()->cores == 8);
    rf_channel_t *channel = serve_as("echo");
    rf_channel_info_t info;
    CHECK_OK(rf_channel_info(channel, &info));
    CHECK(info.domain == 2 && strcmp(info.user, "tester") == 0);
    CHECK(strcmp(info.medium, info.kind == RF_CHANNEL_KIND_NETWORK ? "tcp" : "shm") == 0);
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    rf_err_t err;
    while ((err = rf_channel_receive(channel, &message, SOON)) == RF_OK)
        CHECK_OK(rf_channel_send(channel, message.type, bytes, message.size, SOON));
    CHECK(err == RF_ERR_CLOSED);
    CHECK_ERR(rf_channel_send(channel, 1, "x", 1, SOON), RF_ERR_CLOSED);
    rf_channel_close(channel);
    rf_finish();
    return 0;
}

static int echo_client(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = connect_to("echo");
    uint8_t sent[RF_CHANNEL_MESSAGE_MAX], got[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = got, .room = sizeof got};
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t size = i < 200 ? i : (size_t)i * 37 % (RF_CHANNEL_MESSAGE_MAX + 1);
        fill(sent, size, i);
        CHECK_OK(rf_channel_send(channel, (uint8_t)(1 + i % 15), sent, size, SOON));
        CHECK_OK(rf_channel_receive(channel, &message, SOON));
        CHECK(message.size == size && message.type == 1 + i % 15 && message.call == 0);
        CHECK(memcmp(sent, got, size) == 0);
    }
    CHECK_ERR(rf_channel_send(channel, 0, sent, 1, SOON), RF_ERR_INVALID);
    CHECK_ERR(rf_channel_send(channel, 16, sent, 1, SOON), RF_ERR_INVALID);
    CHECK_ERR(rf_channel_send(channel, 1, sent, sizeof sent + 1, SOON), RF_ERR_INVALID);
    CHECK_ERR(rf_channel_try_receive(channel, &message), RF_ERR_AGAIN);
    CHECK_ERR(rf_channel_receive(channel, &message, rf_deadline_ms(5)), RF_ERR_TIMEOUT);
    /* A message that does not fit stays. */
    CHECK_OK(rf_channel_send(channel, 1, sent, 50, SOON));
    message.room = 10;
    CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_TRUNCATED);
    CHECK(message.size == 50);
    message.room = sizeof got;
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    CHECK_OK(rf_channel_send(channel, 1, sent, 500, SOON));
    message.room = 499;
    CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_TRUNCATED);
    message.room = 500;
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    CHECK(message.size == 500);
    rf_channel_close(channel);
    rf_finish();
    return 0;
}

/* ---- full channels, batches, and a peer that dies ---- */

static int flood_server(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = serve_as("flood");
    CHECK_OK(rf_channel_send(channel, 1, NULL, 0, SOON)); /* go */
    rf_thread_sleep(rf_deadline_ms(20));
    uint64_t expected = 0;
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    rf_err_t err;
    while ((err = rf_channel_receive(channel, &message, SOON)) == RF_OK) {
        uint64_t n;
        CHECK(message.size >= sizeof n);
        memcpy(&n, bytes, sizeof n);
        CHECK(n == expected);
        expected++;
    }
    CHECK_ERR(err, RF_ERR_PEER_DEAD); /* everything that had arrived came first */
    CHECK(expected == 30000 + 1000 + 200);
    CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_PEER_DEAD);
    rf_finish();
    return 0;
}

static int flood_client(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = connect_to("flood");
    rf_message_t go = {0};
    CHECK_OK(rf_channel_receive(channel, &go, SOON));
    uint64_t n = 0;
    bool was_full = false;
    rf_channel_slot_t slots[16] = {0};
    while (n < 30000) {
        unsigned sent, want = n % 16 + 1;
        if (want > 30000 - n) want = (unsigned)(30000 - n);
        for (unsigned i = 0; i < want; i++) {
            slots[i].words[0] = n + i;
            slots[i].type = 2;
            slots[i].size = 8;
        }
        rf_err_t err = rf_channel_send_slots(channel, slots, want, &sent);
        if (err == RF_ERR_AGAIN) {
            was_full = true;
            CHECK_OK(rf_channel_send(channel, 2, &n, sizeof n, SOON));
            n++;
        } else {
            CHECK_OK(err);
            n += sent;
        }
    }
    CHECK(was_full);
    for (unsigned i = 0; i < 1000; i++, n++) {
        rf_err_t err = rf_channel_try_send(channel, 3, &n, sizeof n);
        if (err == RF_ERR_AGAIN) err = rf_channel_send(channel, 3, &n, sizeof n, SOON);
        CHECK_OK(err);
    }
    uint8_t large[RF_CHANNEL_MESSAGE_MAX] = {0};
    for (unsigned i = 0; i < 200; i++, n++) {
        memcpy(large, &n, sizeof n);
        CHECK_OK(rf_channel_send(channel, 4, large, sizeof large, SOON));
    }
    slots[0].reserved[0] = 1;
    unsigned sent;
    CHECK_ERR(rf_channel_send_slots(channel, slots, 1, &sent), RF_ERR_INVALID);
    _exit(0); /* no farewell */
}

/* ---- calls ---- */

static int call_server(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = serve_as("calls");
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t request = {.bytes = bytes, .room = sizeof bytes};
    rf_err_t err = rf_reply_and_wait(channel, 0, 0, NULL, 0, &request, SOON);
    while (err == RF_OK) {
        CHECK(request.call != 0);
        if (request.type == 9) { /* never answered in time: the answer comes after the caller has given up */
            rf_thread_sleep(rf_deadline_ms(30));
        }
        for (size_t i = 0; i < request.size; i++) bytes[i] ^= 0xff;
        err = rf_reply_and_wait(channel, request.call, request.type, bytes, request.size, &request, SOON);
    }
    CHECK_ERR(err, RF_ERR_CLOSED);
    CHECK_ERR(rf_reply(channel, 0, 1, NULL, 0, SOON), RF_ERR_INVALID);
    rf_finish();
    return 0;
}

static rf_channel_t *calls;

static void *caller(void *argument)
{
    unsigned seed = *(unsigned *)argument;
    uint8_t sent[RF_CALL_BYTES_MAX], got[RF_CALL_BYTES_MAX];
    rf_message_t reply = {.bytes = got, .room = sizeof got};
    for (unsigned i = 0; i < 300; i++) {
        size_t size = i * seed % 5 ? i % 49 : i * 13 % (RF_CALL_BYTES_MAX + 1);
        fill(sent, size, i + seed);
        CHECK_OK(rf_call(calls, (uint8_t)seed, sent, size, &reply, SOON));
        CHECK(reply.size == size && reply.type == seed);
        for (size_t k = 0; k < size; k++) CHECK((sent[k] ^ got[k]) == 0xff);
    }
    return argument;
}

static int call_client(void)
{
    CHECK_OK(rf_init(SOON));
    calls = connect_to("calls");
    unsigned seeds[4] = {1, 2, 3, 4};
    rf_thread_t *threads[4];
    for (unsigned i = 0; i < 4; i++) CHECK_OK(rf_thread_create(caller, &seeds[i], 0, &threads[i]));
    for (unsigned i = 0; i < 4; i++) {
        void *result;
        CHECK_OK(rf_thread_join(threads[i], &result, SOON));
        CHECK(result == &seeds[i]);
    }
    char small[4];
    rf_message_t reply = {.bytes = small, .room = sizeof small};
    CHECK_ERR(rf_call(calls, 9, "late", 4, &reply, rf_deadline_ms(5)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_call(calls, 5, "abcd", 4, &reply, SOON)); /* the late answer is not taken for this one's */
    CHECK(reply.type == 5);
    CHECK_ERR(rf_call(calls, 5, "abcdefgh", 8, &reply, SOON), RF_ERR_TRUNCATED);
    CHECK_ERR(rf_call(calls, 5, small, RF_CALL_BYTES_MAX + 1, &reply, SOON), RF_ERR_INVALID);
    rf_finish();
    return 0;
}

/* ---- closed by another thread, the last that could have told ---- */

static void *closer(void *argument)
{
    rf_channel_close(argument);
    return NULL;
}

static int closing_server(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = serve_as("closing");
    rf_thread_t *thread;
    rf_message_t message = {0};
    CHECK_OK(rf_thread_create(closer, channel, 0, &thread));
    CHECK_ERR(rf_channel_receive(channel, &message, RF_NEVER), RF_ERR_CLOSED);
    CHECK_OK(rf_thread_join(thread, NULL, SOON));
    rf_finish();
    return 0;
}

static int closing_client(void)
{
    CHECK_OK(rf_init(SOON));
    rf_message_t message = {0};
    CHECK_ERR(rf_channel_receive(connect_to("closing"), &message, SOON), RF_ERR_CLOSED);
    rf_finish();
    return 0;
}

/* ---- a peer on another host that dies ---- */

static int mourner(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = serve_as("mortal");
    char bytes[8];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    CHECK_OK(rf_channel_send(channel, 1, NULL, 0, SOON));
    CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_PEER_DEAD);
    CHECK_ERR(rf_call(channel, 1, NULL, 0, &message, SOON), RF_ERR_PEER_DEAD);
    rf_finish();
    return 0;
}

static int mortal(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *channel = connect_to("mortal");
    rf_message_t message = {0};
    CHECK_OK(rf_channel_send(channel, 1, "last", 4, SOON));
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    kill(getpid(), SIGKILL);
    return 0;
}

/* ---- names, refusals, several clients ---- */

static int names_server(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *first, *second, *by_dispatcher;
    CHECK_OK(rf_export("one", 2, &first, SOON));
    CHECK_ERR(rf_export("one", 2, &second, SOON), RF_ERR_EXISTS);
    CHECK_ERR(rf_export("", 2, &second, SOON), RF_ERR_INVALID);
    CHECK_OK(rf_export(NULL, 0, &by_dispatcher, SOON));
    rf_channel_t *channel;
    CHECK_OK(rf_accept(by_dispatcher, &channel, SOON));
    char byte;
    rf_message_t message = {.bytes = &byte, .room = 1};
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    CHECK_OK(rf_channel_send(channel, 1, "x", 1, SOON));
    CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_CLOSED);
    rf_channel_close(channel);
    rf_channel_close(NULL);
    CHECK_ERR(rf_accept(first, &channel, rf_deadline_ms(5)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_export_close(first, SOON));
    rf_finish();
    rf_finish();
    return 0;
}

static int names_client(void)
{
    CHECK_ERR(rf_export("early", 0, &(rf_export_t *){0}, SOON), RF_ERR_NO_MACHINE);
    CHECK(rf_self() == NULL);
    CHECK_OK(rf_init(SOON));
    CHECK_ERR(rf_init(SOON), RF_ERR_EXISTS);
    rf_channel_t *channel;
    CHECK_ERR(rf_connect("nobody", NULL, &channel, SOON), RF_ERR_NOT_FOUND);
    CHECK_ERR(
        rf_connect("nobody", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, rf_deadline_ms(20)),
        RF_ERR_TIMEOUT);
    CHECK_ERR(rf_connect("one", &(rf_channel_options_t){.slots = 100}, &channel, SOON), RF_ERR_INVALID);
    rf_err_t err;
    while ((err = rf_connect_dispatcher(1, 0, NULL, &channel, SOON)) == RF_ERR_NOT_FOUND ||
           err == RF_ERR_PEER_DEAD || err == RF_ERR_CLOSED)
        rf_thread_sleep(rf_deadline_ms(2));
    CHECK_OK(err);
    char byte;
    rf_message_t message = {.bytes = &byte, .room = 1};
    CHECK_OK(rf_channel_send(channel, 1, "x", 1, SOON));
    CHECK_OK(rf_channel_receive(channel, &message, SOON));
    rf_finish();
    CHECK_ERR(rf_init(SOON), RF_ERR_NO_MACHINE);
    return 0;
}

/* ---- */

enum { LMP, URPC, NETWORK };

static void run_pair(int (*server)(void), int (*client)(void), int kind, int client_dies)
{
    fake_domain_t domains[] = {{.run = server, .core = 0},
                               {.run = client,
                                .core = kind == LMP    ? 0
                                        : kind == URPC ? 1
                                                       : 4,
                                .node = kind == NETWORK,
                                .dies = client_dies}};
    assert_int_equal(fake_machine_run(domains, 2, "tcp"), 0);
}

static void test_echo_lmp(void **state)
{
    (void)state, run_pair(echo_server, echo_client, LMP, 0);
}
static void test_echo_urpc(void **state)
{
    (void)state, run_pair(echo_server, echo_client, URPC, 0);
}
static void test_echo_network(void **state)
{
    (void)state, run_pair(echo_server, echo_client, NETWORK, 0);
}
static void test_flood_lmp(void **state)
{
    (void)state, run_pair(flood_server, flood_client, LMP, 1);
}
static void test_flood_urpc(void **state)
{
    (void)state, run_pair(flood_server, flood_client, URPC, 1);
}
static void test_calls_lmp(void **state)
{
    (void)state, run_pair(call_server, call_client, LMP, 0);
}
static void test_calls_urpc(void **state)
{
    (void)state, run_pair(call_server, call_client, URPC, 0);
}
static void test_calls_network(void **state)
{
    (void)state, run_pair(call_server, call_client, NETWORK, 0);
}
static void test_closing(void **state)
{
    (void)state, run_pair(closing_server, closing_client, LMP, 0);
}
static void test_death_lmp(void **state)
{
    (void)state, run_pair(mourner, mortal, LMP, 1);
}
static void test_death_urpc(void **state)
{
    (void)state, run_pair(mourner, mortal, URPC, 1);
}
static void test_death_network(void **state)
{
    (void)state, run_pair(mourner, mortal, NETWORK, 1);
}
static void test_names(void **state)
{
    (void)state, run_pair(names_server, names_client, URPC, 0);
}

static int outside(void)
{
    unsetenv("RACKFISH_DISPATCHER_FD");
    CHECK_ERR(rf_init(SOON), RF_ERR_NO_MACHINE);
    CHECK(strstr(rf_reason(), "rackfish run"));
    return 0;
}
static void test_outside(void **state)
{
    (void)state;
    fake_domain_t domain = {.run = outside};
    assert_int_equal(fake_machine_run(&domain, 1, "tcp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo_lmp),     cmocka_unit_test(test_echo_urpc),
        cmocka_unit_test(test_echo_network), cmocka_unit_test(test_flood_lmp),
        cmocka_unit_test(test_flood_urpc),   cmocka_unit_test(test_calls_lmp),
        cmocka_unit_test(test_calls_urpc),   cmocka_unit_test(test_calls_network),
        cmocka_unit_test(test_closing),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_outside),      cmocka_unit_test(test_death_lmp),
        cmocka_unit_test(test_death_urpc),   cmocka_unit_test(test_death_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
