/*
 * A first domain: says where it runs, and greets every other core of the machine by starting itself there.
 *
 *     rackfish run --core 0 -- hello
 */
#include <rackfish.h>

#include <stdio.h>

static int fail(const char *what, rf_err_t err)
{
    fprintf(stderr, "hello: %s: %s %s\n", what, rf_err_text(err), rf_reason());
    return 1;
}

/* Every other dispatcher: sends one line to dispatcher 0. */
static int greet(const rf_self_t *self)
{
    rf_channel_t *channel;
    rf_err_t err = rf_connect_dispatcher(self->domain, 0, NULL, &channel, rf_deadline_ms(5000));
    if (err != RF_OK) return fail("connect", err);
    char line[128];
    int size = snprintf(line, sizeof line, "hello from core %u on %s", self->core, self->node_name);
    err = rf_channel_send(channel, 1, line, (size_t)size, rf_deadline_ms(5000));
    rf_finish(); /* closes the channel in order: the line arrives first */
    return err == RF_OK ? 0 : fail("send", err);
}

int main(void)
{
    rf_err_t err = rf_init(rf_deadline_ms(5000));
    if (err != RF_OK) return fail("rf_init", err);
    const rf_self_t *self = rf_self();
    if (self->index > 0) return greet(self);

    printf("domain %llu on core %u of %u, machine %s\n", (unsigned long long)self->domain, self->core,
           self->cores, self->machine_name);
    rf_export_t *door;
    err = rf_export(NULL, 0, &door, rf_deadline_ms(5000));
    if (err != RF_OK) return fail("export", err);
    for (rf_core_t core = 0; core < self->cores; core++) {
        uint16_t index;
        if (core == self->core) continue;
        err = rf_span(core, NULL, 0, &index, rf_deadline_ms(5000));
        if (err != RF_OK) {
            fail("span", err);
            continue; /* a core that is down */
        }
        rf_channel_t *channel;
        err = rf_accept(door, &channel, rf_deadline_ms(5000));
        if (err != RF_OK) return fail("accept", err);
        char line[128];
        rf_message_t message = {.bytes = line, .room = sizeof line};
        err = rf_channel_receive(channel, &message, rf_deadline_ms(5000));
        if (err != RF_OK) return fail("receive", err);
        rf_channel_info_t info;
        rf_channel_info(channel, &info);
        printf("%.*s, over %s\n", (int)message.size, line, info.medium);
        rf_channel_close(channel);
    }
    rf_finish();
    return 0;
}
