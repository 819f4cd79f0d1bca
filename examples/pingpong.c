/*
 * A channel by name between any two cores: the same program, the same calls, whatever lies between.
 *
 *     rackfish run -d --core 1 -- pingpong serve
 *     rackfish run --core 0 -- pingpong          # two cores of one host
 *     rackfish run --core 3 -- pingpong          # two hosts
 *     rackfish run --core 1 -- pingpong stop
 */
#include <rackfish.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME   "pingpong"
#define PING   1
#define STOP   2
#define ROUNDS 10000

static int fail(const char *what, rf_err_t err)
{
    fprintf(stderr, "pingpong: %s: %s %s\n", what, rf_err_text(err), rf_reason());
    return 1;
}

/* Serves any number of clients from one wait set, until one says stop. */
static int serve(void)
{
    rf_export_t *door;
    rf_waitset_t *set;
    rf_err_t err = rf_export(NAME, 0, &door, rf_deadline_ms(5000));
    if (err == RF_OK) err = rf_waitset_create(&set);
    if (err == RF_OK) err = rf_waitset_add_export(set, door, NULL, NULL);
    if (err != RF_OK) return fail("serve", err);
    for (bool stop = false; !stop;) {
        rf_event_t event;
        unsigned n;
        err = rf_waitset_wait(set, &event, 1, &n, RF_NEVER);
        if (err != RF_OK) return fail("wait", err);
        rf_channel_t *channel = event.cookie;
        if (!channel) {
            if (rf_accept(door, &channel, rf_now_ns()) == RF_OK &&
                rf_waitset_add_channel(set, channel, RF_EVENT_READABLE, channel, NULL) != RF_OK)
                rf_channel_close(channel);
            continue;
        }
        char bytes[64];
        rf_message_t request = {.bytes = bytes, .room = sizeof bytes};
        while ((err = rf_channel_try_receive(channel, &request)) == RF_OK) {
            stop |= request.type == STOP;
            if (request.call)
                err = rf_reply(channel, request.call, PING, bytes, request.size, rf_deadline_ms(1000));
        }
        if (err != RF_ERR_AGAIN) rf_channel_close(channel); /* the client has left, one way or another */
    }
    return 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int client(uint8_t type)
{
    static const char *const kinds[] = {"", "LMP (same core)", "URPC (same host)", "network"};
    static uint64_t times[ROUNDS];
    rf_channel_t *channel;
    rf_err_t err =
        rf_connect(NAME, &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, rf_deadline_ms(5000));
    if (err != RF_OK) return fail("connect (is `pingpong serve` running?)", err);
    rf_channel_info_t info;
    rf_channel_info(channel, &info);
    char bytes[64];
    rf_message_t reply = {.bytes = bytes, .room = sizeof bytes};
    unsigned rounds = type == STOP ? 1 : ROUNDS;
    for (unsigned i = 0; i < rounds; i++) {
        uint64_t before = rf_now_ns();
        err = rf_call(channel, type, "ping", 4, &reply, rf_deadline_ms(5000));
        if (err != RF_OK) return fail("call", err);
        if (reply.size != 4 || memcmp(bytes, "ping", 4) != 0) return fail("call", RF_ERR_PROTOCOL);
        times[i] = rf_now_ns() - before;
    }
    if (type == STOP) return 0;
    qsort(times, rounds, sizeof times[0], compare);
    printf("core %u to core %u, %s over %s: %u calls, round trip p50 %.2f us, p99 %.2f us\n", rf_self()->core,
           info.core, kinds[info.kind], info.medium, rounds, (double)times[rounds / 2] / 1e3,
           (double)times[rounds * 99 / 100] / 1e3);
    return 0;
}

int main(int argc, char **argv)
{
    rf_err_t err = rf_init(rf_deadline_ms(5000));
    if (err != RF_OK) return fail("rf_init", err);
    int rc = argc > 1 && strcmp(argv[1], "serve") == 0 ? serve() : client(argc > 1 ? STOP : PING);
    rf_finish();
    return rc;
}
