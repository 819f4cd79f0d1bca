/*
 * librackfish on a real machine of two nodes with two cores each: run by machine_test.sh as dispatcher 0 on core 0. Each part says what
 * it does; the first thing that is not as it should be ends the program with status 1.
 */
#include "fake_machine.h" /* CHECK only */

#include <signal.h>
#include <string.h>
#include <sys/wait.h>

static void say(const char *what)
{
    printf("%s\n", what);
    fflush(stdout);
}

static void asks(void)
{
    say("questions about the machine");
    rf_machine_info_t machine;
    rf_core_info_t cores[8];
    rf_domain_info_t domains[64];
    unsigned n;
    uint64_t next = 0;
    CHECK_OK(rf_machine_info(&machine, SOON));
    CHECK(machine.cores == 4 && machine.nodes == 2 && machine.has_quorum && machine.leader == 0);
    CHECK_OK(rf_core_list(0, cores, 8, &n, NULL, SOON));
    CHECK(n == 4);
    for (unsigned i = 0; i < n; i++)
        CHECK(cores[i].core == i && cores[i].node == i / 2 && cores[i].state == RF_CORE_STATE_UP);
    bool found = false;
    while (next != UINT64_MAX) {
        CHECK_OK(rf_domain_list(next, domains, 64, &n, &next, SOON));
        for (unsigned i = 0; i < n; i++)
            found |= domains[i].domain == rf_self()->domain && domains[i].state == RF_DOMAIN_STATE_RUNNING;
    }
    CHECK(found);
}

static rf_domain_t spawn_shell(rf_core_t core, const char *command)
{
    const char *const argv[] = {"sh", "-c", command, NULL};
    rf_domain_t domain;
    CHECK_OK(rf_spawn(core, argv, NULL, &domain, SOON));
    return domain;
}

static void spawns(void)
{
    rf_domain_info_t ended;
    for (rf_core_t core = 0; core < 4; core++) {
        say("a program on every core, its status");
        CHECK_OK(rf_wait_domain(spawn_shell(core, "exit 7"), &ended, SOON));
        CHECK(WIFEXITED(ended.wait_status) && WEXITSTATUS(ended.wait_status) == 7 && ended.reason == RF_OK);
        CHECK(ended.cores[0] == core && ended.state == RF_DOMAIN_STATE_ENDED);
    }
    say("a program that is not there, here and on the other host");
    rf_domain_t domain;
    const char *const missing[] = {"/nonexistent/program", NULL};
    CHECK_ERR(rf_spawn(0, missing, NULL, &domain, SOON), RF_ERR_EXEC);
    CHECK(strstr(rf_reason(), "/nonexistent/program"));
    CHECK_ERR(rf_spawn(3, missing, NULL, &domain, SOON), RF_ERR_EXEC);
    CHECK_ERR(rf_spawn(4, missing, NULL, &domain, SOON), RF_ERR_NOT_FOUND);
    say("environment, folder and streams");
    int out[2];
    CHECK(pipe(out) == 0);
    const char *const env[] = {"WORD=seen", NULL};
    const char *const argv[] = {"/bin/sh", "-c", "echo $WORD $PWD", NULL};
    rf_spawn_options_t options = {
        .env = env, .cwd = "/usr", .streams = RF_SPAWN_STREAMS_FDS, .stdio = {0, out[1], 2}};
    CHECK_OK(rf_spawn(1, argv, &options, &domain, SOON));
    close(out[1]);
    char text[64] = {0};
    CHECK(read(out[0], text, sizeof text - 1) > 0 && strcmp(text, "seen /usr\n") == 0);
    close(out[0]);
    CHECK_OK(rf_wait_domain(domain, &ended, SOON));
    say("a signal to a domain on the other host");
    domain = spawn_shell(2, "sleep 100");
    CHECK_ERR(rf_wait_domain(domain, &ended, rf_deadline_ms(50)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_kill(domain, SIGTERM, true, SOON));
    CHECK_OK(rf_wait_domain(domain, &ended, SOON));
    CHECK((WIFSIGNALED(ended.wait_status) && WTERMSIG(ended.wait_status) == SIGTERM) ||
          ended.wait_status >> 8 == 128 + SIGTERM);
    CHECK_ERR(rf_kill(1000000, SIGTERM, true, SOON), RF_ERR_NOT_FOUND);
    CHECK_ERR(rf_wait_domain(1000000, &ended, SOON), RF_ERR_NOT_FOUND);
}

static void events(void)
{
    say("events of the machine, signals, many operations at once");
    rf_waitset_t *set;
    rf_event_t event;
    unsigned n, left = 8;
    bool started = false, ended = false;
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_machine(set, RF_MACHINE_EVENTS_DOMAINS, NULL, NULL, SOON));
    rf_domain_t domain = spawn_shell(3, "exit 0");
    while (!started || !ended) {
        CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
        CHECK(event.what == RF_EVENT_MACHINE);
        if (event.machine.domain != domain) continue;
        started |= event.machine.what == RF_MACHINE_EVENT_DOMAIN_STARTED;
        ended |= event.machine.what == RF_MACHINE_EVENT_DOMAIN_ENDED;
    }
    rf_waitset_destroy(set);
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_signals(set, 1ull << (SIGUSR1 - 1), NULL, NULL, SOON));
    CHECK_OK(rf_kill(rf_self()->domain, SIGUSR1, false, SOON));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(event.what == RF_EVENT_SIGNAL && event.signo == SIGUSR1);
    const char *const argv[] = {"true", NULL};
    for (unsigned i = 0; i < left; i++) {
        rf_operation_t *operation;
        rf_err_t err;
        while ((err = rf_spawn_begin((rf_core_t)(i % 4), argv, NULL, &operation)) == RF_ERR_AGAIN)
            rf_thread_yield();
        CHECK_OK(err);
        CHECK_OK(rf_waitset_add_operation(set, operation, operation, NULL));
    }
    while (left > 0) {
        CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
        if (event.what != RF_EVENT_DONE) continue;
        CHECK_OK(rf_operation_wait(event.cookie, NULL, SOON));
        left--;
    }
    rf_waitset_destroy(set);
}

/* Every other dispatcher: echoes, until told to die. */
static int echo(void)
{
    rf_channel_t *channel;
    uint8_t bytes[RF_CHANNEL_MESSAGE_MAX];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    CHECK(rf_self()->span_args_size == 5 && memcmp(rf_self()->span_args, "words", 5) == 0);
    CHECK_OK(rf_connect("test-domain", &(rf_channel_options_t){.flags = RF_CONNECT_WAIT}, &channel, SOON));
    CHECK_OK(rf_channel_send(channel, 1, &rf_self()->index, sizeof rf_self()->index, SOON));
    rf_err_t err;
    while ((err = rf_channel_receive(channel, &message, SOON)) == RF_OK) {
        if (message.type == 9) kill(getpid(), SIGKILL);
        CHECK_OK(rf_reply(channel, message.call, 1, bytes, message.size, SOON));
    }
    CHECK(err == RF_ERR_CLOSED);
    rf_finish();
    return 0;
}

static void spans(void)
{
    static const rf_channel_kind_t kinds[] = {RF_CHANNEL_KIND_LMP, RF_CHANNEL_KIND_URPC,
                                              RF_CHANNEL_KIND_NETWORK, RF_CHANNEL_KIND_NETWORK};
    rf_export_t *door;
    rf_name_info_t name;
    CHECK_ERR(rf_name_find("test-domain", &name, SOON), RF_ERR_NOT_FOUND);
    CHECK_OK(rf_export("test-domain", 0, &door, SOON));
    CHECK_OK(rf_name_find("test-domain", &name, SOON));
    CHECK(name.domain == rf_self()->domain && name.index == 0 && name.core == 0);
    for (rf_core_t core = 0; core < 4; core++) {
        printf("a dispatcher on core %u: calls, then its death\n", core);
        fflush(stdout);
        rf_channel_t *channel;
        rf_channel_info_t info;
        uint16_t index, said;
        uint8_t bytes[RF_CHANNEL_MESSAGE_MAX], got[RF_CHANNEL_MESSAGE_MAX];
        rf_message_t message = {.bytes = &said, .room = sizeof said};
        CHECK_OK(rf_span(core, "words", 5, &index, SOON));
        CHECK_OK(rf_accept(door, &channel, SOON));
        CHECK_OK(rf_channel_receive(channel, &message, SOON));
        CHECK_OK(rf_channel_info(channel, &info));
        CHECK(said == index && info.index == index && info.domain == rf_self()->domain && info.core == core);
        CHECK(info.kind == kinds[core]);
        message = (rf_message_t){.bytes = got, .room = sizeof got};
        for (size_t size = 0; size <= RF_CALL_BYTES_MAX; size += 73) {
            memset(bytes, (int)size, size);
            CHECK_OK(rf_call(channel, 1, bytes, size, &message, SOON));
            CHECK(message.size == size && memcmp(bytes, got, size) == 0);
        }
        CHECK_OK(rf_channel_send(channel, 9, NULL, 0, SOON));
        CHECK_ERR(rf_channel_receive(channel, &message, SOON), RF_ERR_PEER_DEAD);
        rf_channel_close(channel);
    }
    CHECK_OK(rf_export_close(door, SOON));
    CHECK_ERR(rf_name_find("test-domain", &name, SOON), RF_ERR_NOT_FOUND);
}

int main(void)
{
    CHECK_OK(rf_init(SOON));
    if (rf_self()->index > 0) return echo();
    asks();
    spawns();
    events();
    spans();
    rf_finish();
    say("all well");
    return 0;
}
