/*
 * A hostile peer: slots that no correct librackfish sends. Only that channel is harmed; the victim's other channel, to
 * the same peer, goes on.
 */
#include "fake_machine.h"

#include "internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

typedef struct attack {
    const char *what;
    uint8_t types[3]; /* of the slots, 0: no more */
    uint8_t length;
    bool more[3];
    uint8_t payload[16];
    bool endless; /* the first slot again and again, `more` set */
} attack_t;

static const attack_t attacks[] = {
    {.what = "an unknown type", .types = {0x20}, .length = 8},
    {.what = "another unknown type", .types = {0xe7}, .length = 8},
    {.what = "a type that changes within a message", .types = {1, 2}, .length = 56, .more = {true}},
    {.what = "a call without a head", .types = {LIB_CALL}, .length = 7},
    {.what = "a call with tag 0", .types = {LIB_CALL}, .length = 8, .payload = {0, 0, 0, 0, 1}},
    {.what = "a call with type 0", .types = {LIB_CALL}, .length = 8, .payload = {1}},
    {.what = "a call with type 16", .types = {LIB_CALL}, .length = 8, .payload = {1, 0, 0, 0, 16}},
    {.what = "a call with reserved bytes", .types = {LIB_CALL}, .length = 8, .payload = {1, 0, 0, 0, 1, 1}},
    {.what = "a reply without a head", .types = {LIB_REPLY}, .length = 0},
    {.what = "an endless message", .types = {3}, .length = 56, .more = {true}, .endless = true},
    {.what = "a stream slot of nonsense", .types = {RF_STREAM_SLOT}, .length = 40, .payload = {9, 9, 9, 9}},
    {.what = "a stream slot that is too short", .types = {RF_STREAM_SLOT}, .length = 3},
};
#define N_ATTACKS (sizeof attacks / sizeof attacks[0])

static void strike(rf_channel_t *channel, const attack_t *attack)
{
    rf_link_t *link = channel->port.link;
    unsigned repeat = attack->endless ? 80 : 1;
    for (unsigned r = 0; r < repeat; r++) {
        for (unsigned i = 0; i < 3 && attack->types[i]; i++) {
            rf_slot_t slot = {.control =
                                  rf_control_make(attack->types[i], attack->length, attack->more[i], 0)};
            memcpy(slot.payload, attack->payload, sizeof attack->payload);
            while (channel->port.end == RF_OK && link->transport->send(link, &slot, 1) == 0)
                rf_thread_yield();
        }
    }
    if (channel->port.end == RF_OK) (void)link->transport->flush(link);
}

static int attacker(void)
{
    CHECK_OK(rf_init(SOON));
    rf_channel_t *good;
    CHECK_OK(rf_connect("good", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &good, SOON));
    for (unsigned i = 0; i < N_ATTACKS; i++) {
        rf_channel_t *channel;
        CHECK_OK(rf_connect("victim", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
        CHECK_OK(rf_channel_send(channel, 1, &i, sizeof i, SOON));
        strike(channel, &attacks[i]);
        unsigned answer;
        rf_message_t message = {.bytes = &answer, .room = sizeof answer};
        CHECK_OK(rf_call(good, 1, &i, sizeof i, &message, SOON)); /* this one lives */
        CHECK(answer == i);
        rf_channel_close(channel);
    }
    rf_finish();
    return 0;
}

static int victim(void)
{
    CHECK_OK(rf_init(SOON));
    rf_export_t *good_export, *victim_export;
    rf_channel_t *good;
    CHECK_OK(rf_export("good", 0, &good_export, SOON));
    CHECK_OK(rf_export("victim", 0, &victim_export, SOON));
    CHECK_OK(rf_accept(good_export, &good, SOON));
    for (unsigned i = 0; i < N_ATTACKS; i++) {
        rf_channel_t *channel;
        unsigned got;
        rf_message_t message = {.bytes = &got, .room = sizeof got};
        CHECK_OK(rf_accept(victim_export, &channel, SOON));
        CHECK_OK(rf_channel_receive(channel, &message, SOON)); /* what came before the attack is received */
        CHECK(got == i);
        rf_err_t err = rf_channel_receive(channel, &message, SOON);
        if (err != RF_ERR_PROTOCOL) fprintf(stderr, "%s: %s\n", attacks[i].what, rf_err_name(err));
        CHECK_ERR(err, RF_ERR_PROTOCOL);
        CHECK_ERR(rf_channel_send(channel, 1, NULL, 0, SOON), RF_ERR_PROTOCOL);
        CHECK_OK(rf_channel_receive(good, &message, SOON));
        CHECK_OK(rf_reply(good, message.call, 1, &got, sizeof got, SOON));
        rf_channel_close(channel);
    }
    rf_message_t message = {0};
    CHECK_ERR(rf_channel_receive(good, &message, SOON), RF_ERR_CLOSED);
    rf_finish();
    return 0;
}

static void test_hostile(void **state)
{
    (void)state;
    fake_domain_t domains[] = {{.run = victim, .core = 0}, {.run = attacker, .core = 1}};
    assert_int_equal(fake_machine_run(domains, 2, "tcp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hostile)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
