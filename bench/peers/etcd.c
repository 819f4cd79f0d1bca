/*
 * etcd: three nodes on loopback, each a process with its data in memory (/dev/shm), nothing encrypted. The client is this process, over one
 * gRPC connection that stays open, to the node that leads: etcd has no other way in, so a commit here includes that hop.
 * KV.Put with a key of 8 bytes and a value of the rest. The nodes are not pinned: a Go program runs several threads.
 */
#include "peer.h"

#include "base/clock.h"

#include <fcntl.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define NODES           3
#define OUTSTANDING_MAX 4096
#define START_SECONDS   20
#define CALL_SECONDS    30
#define CHUNK           1024 /* commits of one throughput sample */
#define LOOK_MS         50
#define PATH            128
#define KEY_BYTES       8
#define MESSAGE_MAX     1024

static pid_t pids[NODES];
static char root[PATH];

static void stop_nodes(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        if (pids[i] <= 0) continue;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    peer_folder_remove(root);
}

static void start_node(unsigned index, const uint16_t *ports)
{
    char name[8], folder[PATH + 8], client[48], peer[48], cluster[160];
    snprintf(name, sizeof name, "n%u", index);
    snprintf(folder, sizeof folder, "%s/%u", root, index);
    snprintf(client, sizeof client, "http://127.0.0.1:%u", ports[index]);
    snprintf(peer, sizeof peer, "http://127.0.0.1:%u", ports[NODES + index]);
    snprintf(cluster, sizeof cluster, "n0=http://127.0.0.1:%u,n1=http://127.0.0.1:%u,n2=http://127.0.0.1:%u",
             ports[NODES], ports[NODES + 1], ports[NODES + 2]);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_WRONLY);
    if (null < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0) _exit(1);
    execlp("etcd", "etcd", "--name", name, "--data-dir", folder, "--listen-client-urls", client,
           "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls",
           peer, "--initial-cluster", cluster, "--initial-cluster-state", "new", "--initial-cluster-token",
           root, "--snapshot-count", "100000000", "--log-level", "error", (char *)NULL);
    _exit(127);
}

/* ---- one unary call ---- */

typedef struct call {
    grpc_call *call;
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer *request, *reply;
    grpc_status_code status;
    grpc_slice details;
    uint64_t asked_ns;
} call_t;

typedef struct client {
    grpc_channel *channel;
    grpc_completion_queue *queue;
} client_t;

static gpr_timespec deadline(unsigned seconds)
{
    return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(seconds, GPR_TIMESPAN));
}

static bool call_start(client_t *client, void *method, call_t *c, const uint8_t *bytes, size_t size)
{
    grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, size);
    c->request = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    c->reply = NULL;
    grpc_metadata_array_init(&c->initial);
    grpc_metadata_array_init(&c->trailing);
    c->call = grpc_channel_create_registered_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
                                                  client->queue, method, deadline(CALL_SECONDS), NULL);
    grpc_op ops[6];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = c->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &c->initial;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &c->reply;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &c->trailing;
    ops[5].data.recv_status_on_client.status = &c->status;
    ops[5].data.recv_status_on_client.status_details = &c->details;
    c->asked_ns = rf_clock_ns();
    return grpc_call_start_batch(c->call, ops, 6, c, NULL) == GRPC_CALL_OK;
}

/* Waits for some call to end; each does, within CALL_SECONDS. */
static call_t *call_next(client_t *client)
{
    grpc_event event = grpc_completion_queue_next(client->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    return event.type == GRPC_OP_COMPLETE ? event.tag : NULL;
}

static size_t call_end(call_t *c, uint8_t *out, size_t max)
{
    size_t size = 0;
    grpc_byte_buffer_reader reader;
    if (out && c->reply && grpc_byte_buffer_reader_init(&reader, c->reply)) {
        grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
        size = GRPC_SLICE_LENGTH(all) < max ? GRPC_SLICE_LENGTH(all) : max;
        memcpy(out, GRPC_SLICE_START_PTR(all), size);
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
    }
    grpc_byte_buffer_destroy(c->request);
    if (c->reply) grpc_byte_buffer_destroy(c->reply);
    grpc_metadata_array_destroy(&c->initial);
    grpc_metadata_array_destroy(&c->trailing);
    grpc_slice_unref(c->details);
    grpc_call_unref(c->call);
    return size;
}

/* ---- the two messages, by hand ---- */

static size_t put_varint(uint8_t *to, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

/* PutRequest: key = 1, value = 2. */
static size_t put_request(uint8_t *to, uint64_t key, size_t bytes)
{
    size_t n = 0, value = bytes - KEY_BYTES;
    to[n++] = 0x0a;
    n += put_varint(to + n, KEY_BYTES);
    memcpy(to + n, &key, KEY_BYTES);
    n += KEY_BYTES;
    to[n++] = 0x12;
    n += put_varint(to + n, value);
    memset(to + n, 'v', value);
    return n + value;
}

static uint64_t get_varint(const uint8_t *bytes, size_t size, size_t *at)
{
    uint64_t value = 0;
    for (unsigned shift = 0; *at < size && shift < 64; shift += 7) {
        uint8_t byte = bytes[(*at)++];
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) break;
    }
    return value;
}

/* The last varint field of that number in a message whose other fields are varints or bytes; 0 when there is none. */
static uint64_t field(const uint8_t *bytes, size_t size, unsigned number, const uint8_t **inner,
                      size_t *inner_size)
{
    uint64_t found = 0;
    for (size_t at = 0; at < size;) {
        uint64_t tag = get_varint(bytes, size, &at), value = get_varint(bytes, size, &at);
        bool is_bytes = (tag & 7) == 2;
        if (tag >> 3 == number && !is_bytes) found = value;
        if (tag >> 3 == number && is_bytes && inner && value <= size - at) {
            *inner = bytes + at;
            *inner_size = value;
        }
        if (is_bytes) at += value;
    }
    return found;
}

/* StatusResponse: header = 1 {member_id = 2}, leader = 4. */
static bool leads(client_t *client, void *method)
{
    call_t call;
    uint8_t reply[MESSAGE_MAX];
    if (!call_start(client, method, &call, (const uint8_t *)"", 0) || !call_next(client)) return false;
    size_t size = call_end(&call, reply, sizeof reply), header_size = 0;
    const uint8_t *header = reply;
    field(reply, size, 1, &header, &header_size);
    uint64_t self = field(header, header_size, 2, NULL, NULL), leader = field(reply, size, 4, NULL, NULL);
    return call.status == GRPC_STATUS_OK && leader != 0 && self == leader;
}

/* A connection to the node that leads. */
static bool find_leader(client_t *client, const uint16_t *ports)
{
    client->queue = grpc_completion_queue_create_for_next(NULL);
    for (unsigned ms = 0; ms < START_SECONDS * 1000; ms += LOOK_MS) {
        for (unsigned i = 0; i < NODES; i++) {
            char address[32];
            snprintf(address, sizeof address, "127.0.0.1:%u", ports[i]);
            grpc_channel_credentials *plain = grpc_insecure_credentials_create();
            client->channel = grpc_channel_create(address, plain, NULL);
            grpc_channel_credentials_release(plain);
            if (leads(client, grpc_channel_register_call(client->channel, "/etcdserverpb.Maintenance/Status",
                                                         NULL, NULL)))
                return true;
            grpc_channel_destroy(client->channel);
        }
        rf_clock_sleep_ms(LOOK_MS);
    }
    fprintf(stderr, "etcd: no leader within %u seconds\n", START_SECONDS);
    return false;
}

static bool measure(client_t *client, const peer_options_t *options)
{
    static call_t calls[OUTSTANDING_MAX];
    uint8_t bytes[MESSAGE_MAX];
    peer_meter_t meter = {.options = options, .chunk = CHUNK};
    void *put = grpc_channel_register_call(client->channel, "/etcdserverpb.KV/Put", NULL, NULL);
    for (unsigned i = 0; i < options->outstanding; i++) {
        if (!call_start(client, put, &calls[i], bytes, put_request(bytes, i, options->bytes))) return false;
    }
    for (;;) {
        call_t *call = call_next(client);
        if (!call || call->status != GRPC_STATUS_OK) {
            fprintf(stderr, "etcd: a put was answered with status %d\n", call ? (int)call->status : -1);
            return false;
        }
        call_end(call, NULL, 0);
        if (peer_answered(&meter, call->asked_ns)) return true;
        size_t size = put_request(bytes, (uint64_t)(call - calls), options->bytes);
        if (!call_start(client, put, call, bytes, size)) return false;
    }
}

static double cpu_s(int who)
{
    struct rusage r;
    getrusage(who, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1e-6;
}

/* How much of the CPUs the client takes itself. */
static void say_shares(void)
{
    double own = cpu_s(RUSAGE_SELF), nodes = cpu_s(RUSAGE_CHILDREN);
    fprintf(stderr, "etcd: %.0f %% of the CPU time was the client's, the rest the nodes'\n",
            100 * own / (own + nodes));
}

int main(int argc, char **argv)
{
    peer_options_t options;
    uint16_t ports[2 * NODES];
    client_t client;
    if (!peer_parse(argc, argv, &options)) return 2;
    if (options.outstanding > OUTSTANDING_MAX || options.bytes > MESSAGE_MAX / 2) return 2;
    if (!peer_ports(ports, 2 * NODES) || !peer_folder_make(root, sizeof root)) return 1;
    for (unsigned i = 0; i < NODES; i++) {
        pids[i] = fork();
        if (pids[i] == 0) start_node(i, ports);
    }
    peer_clean_up_by(stop_nodes);
    grpc_init();
    bool ok = find_leader(&client, ports) && measure(&client, &options);
    peer_clean_up();
    say_shares();
    fflush(stdout);
    _exit(ok ? 0 : 1); /* gRPC's threads are not worth waiting for */
}
