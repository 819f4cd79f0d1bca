/*
 * canonical's C raft: three servers, a process each, raft_uv over TCP on loopback, its log in memory (/dev/shm). The client is
 * in the leader's process and calls raft_apply(), `batch` commands a call, which are one request to it and get one answer. The leader is
 * on the first CPU, the others are on the second.
 */
#include "peer.h"

#include "base/clock.h"

#include <raft.h>
#include <raft/uv.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVERS         3
#define RETRY_MS        20
#define LOOK_MS         10
#define STEADY_MS       10000 /* nobody stands while it is measured, however busy the host */
#define SNAPSHOT_NEVER  (1u << 30)
#define OUTSTANDING_MAX 4096
#define SECONDS_MAX     60
#define PATH            128
#define CHUNK           4096 /* commits of one throughput sample */

typedef struct call {
    struct raft_apply apply; /* first: what the callback gets */
    uint64_t asked_ns;
    unsigned n;
} call_t;

typedef struct server {
    const peer_options_t *options;
    struct uv_loop_s loop;
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
    struct uv_timer_s timer;
    bool measuring;
    peer_meter_t meter;
    uint64_t sum;
    call_t calls[OUTSTANDING_MAX];
} server_t;

static _Atomic(int) *ended; /* shared by all */
static pid_t pids[SERVERS];
static char root[PATH];

static void end(int status)
{
    atomic_store(ended, status);
    for (;;) pause(); /* the parent kills us all */
}

static int apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
    server_t *s = fsm->data;
    uint64_t word;
    memcpy(&word, buf->base, sizeof word);
    s->sum += word;
    *result = &s->sum;
    return 0;
}

static int snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n)
{
    (void)fsm, (void)bufs, (void)n;
    return RAFT_NOMEM;
}

static int restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
    (void)fsm, (void)buf;
    return 0;
}

static void pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void on_applied(struct raft_apply *req, int status, void *result);

static void ask(server_t *s, call_t *call)
{
    struct raft_buffer bufs[OUTSTANDING_MAX];
    for (unsigned i = 0; i < s->options->batch; i++) {
        bufs[i].len = s->options->bytes;
        bufs[i].base = raft_calloc(1, s->options->bytes);
        if (!bufs[i].base) end(-1);
        *(uint64_t *)bufs[i].base = 1;
    }
    call->apply.data = s;
    call->n = s->options->batch;
    call->asked_ns = rf_clock_ns();
    int err = raft_apply(&s->raft, &call->apply, bufs, call->n, on_applied);
    if (err != 0) {
        fprintf(stderr, "raft_apply: %s\n", raft_strerror(err));
        end(-1);
    }
}

static void on_applied(struct raft_apply *req, int status, void *result)
{
    call_t *call = (call_t *)req;
    server_t *s = req->data;
    if (status != 0 || !result) {
        fprintf(stderr, "raft_apply ended with %s\n", raft_strerror(status));
        end(-1);
    }
    for (unsigned i = 0; i < call->n; i++) {
        if (peer_answered(&s->meter, call->asked_ns)) end(1);
    }
    ask(s, call);
}

/* libuv leaves Nagle's algorithm on: with it a second message waits for the answer to the first, 40 ms where that is delayed. */
static void no_delay(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (handle->type == UV_TCP) uv_tcp_nodelay((uv_tcp_t *)handle, 1);
}

/* Who leads measures, on the first CPU; the others go to the second. */
static void on_timer(uv_timer_t *timer)
{
    server_t *s = timer->data;
    raft_id leader;
    const char *address;
    raft_leader(&s->raft, &leader, &address);
    if (s->measuring || leader == 0) return;
    s->measuring = true;
    uv_walk(&s->loop, no_delay, NULL);
    raft_set_election_timeout(&s->raft, STEADY_MS);
    pin(s->options->cores[leader == s->raft.id ? 0 : 1]);
    if (leader != s->raft.id) return;
    s->meter = (peer_meter_t){.options = s->options, .chunk = CHUNK};
    unsigned calls = s->options->outstanding / s->options->batch;
    for (unsigned i = 0; i < calls; i++) ask(s, &s->calls[i]);
}

static int set_up(server_t *s, unsigned index, const char *folder, const uint16_t *ports)
{
    char addresses[SERVERS][32];
    struct raft_configuration all;
    raft_configuration_init(&all);
    for (unsigned i = 0; i < SERVERS; i++) {
        snprintf(addresses[i], sizeof addresses[i], "127.0.0.1:%u", ports[i]);
        if (raft_configuration_add(&all, i + 1, addresses[i], RAFT_VOTER) != 0) return -1;
    }
    s->fsm =
        (struct raft_fsm){.version = 1, .data = s, .apply = apply, .snapshot = snapshot, .restore = restore};
    int err = uv_loop_init(&s->loop);
    s->transport.data = NULL;
    if (err == 0) err = raft_uv_tcp_init(&s->transport, &s->loop);
    if (err == 0) err = raft_uv_init(&s->io, &s->loop, folder, &s->transport);
    if (err == 0) raft_uv_set_connect_retry_delay(&s->io, RETRY_MS);
    if (err == 0) err = raft_init(&s->raft, &s->io, &s->fsm, index + 1, addresses[index]);
    if (err == 0) raft_set_snapshot_threshold(&s->raft, SNAPSHOT_NEVER);
    if (err == 0) err = raft_bootstrap(&s->raft, &all);
    if (err == 0) err = raft_start(&s->raft);
    if (err == 0) err = uv_timer_init(&s->loop, &s->timer);
    s->timer.data = s;
    if (err == 0) err = uv_timer_start(&s->timer, on_timer, LOOK_MS, LOOK_MS);
    raft_configuration_close(&all);
    if (err != 0) fprintf(stderr, "server %u: %s %s\n", index, raft_strerror(err), raft_errmsg(&s->raft));
    return err;
}

static void serve(const peer_options_t *options, unsigned index, const uint16_t *ports)
{
    static server_t server;
    char folder[PATH + 16];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    server.options = options;
    snprintf(folder, sizeof folder, "%s/%u", root, index);
    if (mkdir(folder, 0700) != 0 || set_up(&server, index, folder, ports) != 0) end(-1);
    uv_run(&server.loop, UV_RUN_DEFAULT);
    end(-1);
}

static void stop_servers(void)
{
    for (unsigned i = 0; i < SERVERS; i++) {
        if (pids[i] <= 0) continue;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    peer_folder_remove(root);
}

int main(int argc, char **argv)
{
    peer_options_t options;
    uint16_t ports[SERVERS];
    if (!peer_parse(argc, argv, &options)) return 2;
    if (options.outstanding > OUTSTANDING_MAX || options.bytes % 8 != 0) {
        fprintf(stderr, "at most %u outstanding, and bytes a multiple of 8\n", OUTSTANDING_MAX);
        return 2;
    }
    ended = mmap(NULL, sizeof *ended, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ended == MAP_FAILED || !peer_ports(ports, SERVERS) || !peer_folder_make(root, sizeof root)) return 1;
    for (unsigned i = 0; i < SERVERS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) serve(&options, i, ports);
    }
    peer_clean_up_by(stop_servers);
    for (unsigned ms = 0; *ended == 0 && ms < SECONDS_MAX * 1000; ms += LOOK_MS) rf_clock_sleep_ms(LOOK_MS);
    peer_clean_up();
    return *ended == 1 ? 0 : 1;
}
