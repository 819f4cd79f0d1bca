/* `rackfish run` against a node of this test's own, which answers as no real one can be made to. */
#include "cli/machine.h"
#include "cli/run.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_S 60 /* a command that waits for what has come already would wait for ever */

typedef struct node {
    char folder[512], socket[600], machine[32];
    int listener, output; /* what the command prints goes to `output` */
    pid_t command;
} node_t;

static int node_open(void **state)
{
    static node_t the_node;
    node_t *node = *state = &the_node;
    char base[400];
    cli_t cli = {.machine = node->machine};
    if (geteuid() != 0) {
        char own[] = "/tmp/rackfish-run-test-XXXXXX";
        assert_non_null(mkdtemp(own));
        setenv("XDG_RUNTIME_DIR", own, 1);
    }
    snprintf(node->machine, sizeof node->machine, "run-test-%d", (int)getpid());
    assert_true(machine_base_prepare(&cli, base, sizeof base));
    snprintf(node->folder, sizeof node->folder, "%s/%s", base, node->machine);
    assert_int_equal(mkdir(node->folder, 0700), 0);
    snprintf(node->socket, sizeof node->socket, "%.511s/node0.sock", node->folder);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    assert_true(strlen(node->socket) < sizeof address.sun_path);
    memcpy(address.sun_path, node->socket, strlen(node->socket));
    node->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(node->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(node->listener, 1), 0);
    node->output = memfd_create("output", MFD_CLOEXEC);
    assert_true(node->output >= 0);
    return 0;
}

static int node_close(void **state)
{
    node_t *node = *state;
    close(node->listener);
    close(node->output);
    unlink(node->socket);
    rmdir(node->folder);
    if (geteuid() != 0) {
        *strrchr(node->folder, '/') = '\0';
        rmdir(node->folder);
        rmdir(getenv("XDG_RUNTIME_DIR"));
    }
    return 0;
}

/* The command, in a child: its standard input is empty. */
static void command_start(node_t *node)
{
    node->command = fork();
    assert_true(node->command >= 0);
    if (node->command > 0) return;
    alarm(DEADLINE_S);
    dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), STDIN_FILENO);
    dup2(node->output, STDOUT_FILENO);
    cli_t cli = {.command = cli_command_find("run"), .machine = node->machine, .machine_chosen = true};
    static char program[] = "program", *words[] = {program, NULL};
    run_plan_t plan = {0};
    rackfish__run_start__init(&plan.start);
    plan.start.argv = words;
    plan.start.n_argv = 1;
    plan.start.executable = program;
    plan.start.stdout_credit = plan.start.stderr_credit = RUN_CREDIT;
    int signo, status = run_sessions(&cli, &plan, &signo);
    _exit(signo ? 128 + signo : status);
}

/* Its exit status; -1: it died by a signal, the alarm for example. */
static int command_end(const node_t *node)
{
    int status;
    assert_int_equal(waitpid(node->command, &status, 0), node->command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void read_whole(int fd, void *bytes, size_t size)
{
    assert_int_equal(recv(fd, bytes, size, MSG_WAITALL), size);
}

/* The next request's id. */
static uint64_t next_request(int fd)
{
    uint8_t head[4];
    read_whole(fd, head, sizeof head);
    size_t size = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    uint8_t *bytes = malloc(size);
    assert_non_null(bytes);
    read_whole(fd, bytes, size);
    request_t *request = rackfish__control_request__unpack(NULL, size, bytes);
    assert_non_null(request);
    uint64_t id = request->id;
    rackfish__control_request__free_unpacked(request, NULL);
    free(bytes);
    return id;
}

/* Frames that are sent together. */
typedef struct batch {
    uint8_t bytes[64 << 10];
    size_t used;
} batch_t;

static void batch_add(batch_t *batch, uint64_t id, reply_t *reply)
{
    reply->id = id;
    size_t size = rackfish__control_reply__get_packed_size(reply);
    assert_true(batch->used + 4 + size <= sizeof batch->bytes);
    uint8_t *at = batch->bytes + batch->used;
    for (unsigned i = 0; i < 4; i++) at[i] = (uint8_t)(size >> (8 * i));
    rackfish__control_reply__pack(reply, at + 4);
    batch->used += 4 + size;
}

static void batch_send(batch_t *batch, int fd)
{
    assert_int_equal(send(fd, batch->bytes, batch->used, MSG_NOSIGNAL), batch->used);
    batch->used = 0;
}

/* Accepts the command's connection, says hello, and takes its request to run something: the connection, and that request's id. */
static int accept_run(const node_t *node, uint64_t *id)
{
    int fd = accept(node->listener, NULL, NULL);
    assert_true(fd >= 0);
    static batch_t batch;
    Rackfish__Hello hello;
    rackfish__hello__init(&hello);
    hello.major = CLIENT_PROTOCOL_MAJOR;
    hello.machine = (char *)(uintptr_t)node->machine;
    hello.node = (char *)(uintptr_t) "node0";
    reply_t reply;
    rackfish__control_reply__init(&reply);
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_HELLO;
    reply.hello = &hello;
    batch_add(&batch, next_request(fd), &reply);
    batch_send(&batch, fd);
    *id = next_request(fd);
    return fd;
}

static void add_started(batch_t *batch, uint64_t id)
{
    Rackfish__RunStarted started;
    rackfish__run_started__init(&started);
    started.domain = 1;
    started.node = (char *)(uintptr_t) "node0";
    reply_t reply;
    rackfish__control_reply__init(&reply);
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_STARTED;
    reply.run_started = &started;
    batch_add(batch, id, &reply);
}

static void add_byte(batch_t *batch, uint64_t id, uint8_t byte)
{
    Rackfish__RunData data;
    rackfish__run_data__init(&data);
    data.stream = RACKFISH__RUN_STREAM__STDOUT;
    data.data = (ProtobufCBinaryData){1, &byte};
    reply_t reply;
    rackfish__control_reply__init(&reply);
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_DATA;
    reply.run_data = &data;
    batch_add(batch, id, &reply);
}

static void add_exit(batch_t *batch, uint64_t id, int status)
{
    Rackfish__RunExit end;
    rackfish__run_exit__init(&end);
    end.wait_status = status << 8;
    reply_t reply;
    rackfish__control_reply__init(&reply);
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_EXIT;
    reply.run_exit = &end;
    batch_add(batch, id, &reply);
}

/* More than the command handles in one turn, the end among it, and nothing after: a starved command finds it so. */
static void test_all_at_once(void **state)
{
    enum { BYTES = 1000 };
    node_t *node = *state;
    static batch_t batch;
    command_start(node);
    uint64_t id;
    int fd = accept_run(node, &id);
    add_started(&batch, id);
    for (unsigned i = 0; i < BYTES; i++) add_byte(&batch, id, (uint8_t)i);
    add_exit(&batch, id, 7);
    batch_send(&batch, fd);
    assert_int_equal(command_end(node), 7);
    uint8_t printed[BYTES + 1];
    assert_int_equal(pread(node->output, printed, sizeof printed, 0), BYTES);
    for (unsigned i = 0; i < BYTES; i++) assert_int_equal(printed[i], (uint8_t)i);
    close(fd);
}

/* A node that ends in the middle of a message is one that died. */
static void test_cut_short(void **state)
{
    node_t *node = *state;
    static batch_t batch;
    command_start(node);
    uint64_t id;
    int fd = accept_run(node, &id);
    add_started(&batch, id);
    for (unsigned i = 0; i < 100; i++) add_byte(&batch, id, (uint8_t)i);
    batch.used -= 1;
    batch_send(&batch, fd);
    close(fd);
    assert_int_equal(command_end(node), CLI_RUN_FAILED);
    assert_int_equal(lseek(node->output, 0, SEEK_END), 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_at_once, node_open, node_close),
        cmocka_unit_test_setup_teardown(test_cut_short, node_open, node_close),
    };
    return cmocka_run_group_tests_name("cli_run", tests, NULL, NULL);
}
