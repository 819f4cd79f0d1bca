/*
 * Link driver to link driver: the driver's own port, server and loop (transport/dpdk/driver), with a medium to its processes that is
 * played here. A process's ring is a few slots in this core's cache: they are copied as from and to shared memory, and nobody is on the
 * other side of it.
 */
#include "bounce.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/dpdk/driver/loop.h"
#include "transport/message.h"
#include "transport/ring.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SLOTS      1024
#define UDP_PORT   7118
#define MEMORY_MIB 128

#define DRAIN_LOOKS 3 /* of 50 us */

typedef struct played {
    rf_link_t link;
    rf_endpoint_t endpoint;
    rf_endpoint_params_t params;
    const bounce_piece_t *piece;
    bounce_shared_t *shared;
    unsigned side;
    bool measures, incoming, joined, ready;
    rf_slot_t says[8]; /* OPEN, or JOIN: the server is to poll it */
    unsigned n_says, said;
    rf_assembler_t in;
    dpdk_opened_t opened;

    unsigned due; /* slots that the next poll gives */
    unsigned round;
    bool paused;             /* of the end that measures: a turn is over */
    unsigned drained;        /* looks since then */
    uint64_t since;          /* ticks */
    uint64_t came, begun_ns; /* slots of this sample of the rate */
    rf_slot_t ring[SLOTS];   /* what the process would have put there */
    volatile sig_atomic_t stop;
} played_t;

static played_t self;

static void say_begin(void)
{
    self.n_says = self.said = 0;
}

static unsigned say_slots(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link;
    if (self.n_says + n > sizeof self.says / sizeof *self.says) return 0;
    memcpy(self.says + self.n_says, slots, n * sizeof *slots);
    self.n_says += n;
    return n;
}

static unsigned room(rf_link_t *link, unsigned want)
{
    (void)link;
    return want;
}

static rf_err_t flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static const rf_transport_t saying = {.send = say_slots, .room = room, .flush = flush};

static void say(uint8_t type, const void *bytes, size_t size)
{
    rf_link_t link = {.transport = &saying};
    say_begin();
    (void)rf_message_send(&link, type, bytes, size);
}

/* ---- before slots flow ---- */

static void open_say(void)
{
    const dpdk_open_t open = {.format = DPDK_LOCAL_FORMAT,
                              .lane = PATH_LANE_SLOTS,
                              .slots = SLOTS,
                              .deadline_ns = 10 * RF_NS_PER_S};
    say(DPDK_LOCAL_OPEN, &open, sizeof open);
}

static void opened_hear(const rf_slot_t *slots, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (rf_assembler_feed(&self.in, &slots[i]) != RF_OK) continue;
        if (self.in.type != DPDK_LOCAL_OPENED ||
            dpdk_opened_decode(self.in.bytes, self.in.size, &self.opened) != RF_OK) {
            atomic_store(&self.shared->failed, true);
            return;
        }
        _Static_assert(sizeof self.opened.place <= BOUNCE_PLACE, "a place fits");
        memcpy(self.shared->place[self.side], &self.opened.place, sizeof self.opened.place);
        atomic_store(&self.shared->placed[self.side], true);
    }
}

static void join_say(void)
{
    dpdk_join_t join = {.seal = (uint8_t)self.piece->seal, .dialer = self.side == 0};
    memcpy(&join.peer, self.shared->place[!self.side], sizeof join.peer);
    memset(join.secret, 1, sizeof join.secret);
    say(DPDK_LOCAL_JOIN, &join, sizeof join);
    self.joined = true;
    self.due = self.measures == self.piece->one_way; /* who begins: in a rate, who does not measure */
    self.since = rf_clock_ticks();
}

/* ---- slots ---- */

/* Of the end that measures: its turn, or all, may be over. */
static void keep(double value)
{
    if (bounce_keep(self.piece, value)) self.paused = true;
}

/* One came back. */
static void trip_count(void)
{
    if (++self.round < BOUNCE_ROUNDS) return;
    uint64_t now = rf_clock_ticks();
    double half_ns = 1000.0 / (double)rf_clock_ticks_per_us() / 2 / BOUNCE_ROUNDS;
    keep((double)(now - self.since) * half_ns);
    self.round = 0;
    self.since = now;
}

static void rate_count(unsigned n)
{
    self.came += n;
    uint64_t now_ns = rf_clock_ns();
    if (now_ns - self.begun_ns < BOUNCE_RATE_NS || self.paused) return;
    if (self.begun_ns) keep((double)self.came * 1000 / (double)(now_ns - self.begun_ns));
    self.begun_ns = now_ns;
    self.came = 0;
}

/* Between slots, once in a while: others' turns. What is on its way comes first, or the port would hold it for stuck meanwhile. */
static void turn_look(void)
{
    if (self.paused && !atomic_load(&self.shared->done)) {
        atomic_store(&self.shared->draining, true);
        if (self.drained++ < DRAIN_LOOKS) return;
    }
    if (self.paused) bounce_hand_over(self.piece);
    if (!bounce_my_turn(self.piece)) bounce_wait(self.piece);
    if (!self.paused) return;
    self.paused = false;
    self.drained = 0;
    atomic_store(&self.shared->draining, false);
    self.came = self.begun_ns = 0;
    self.round = 0;
    self.due = self.piece->one_way;
    self.since = rf_clock_ticks();
}

static unsigned poll_slots(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    (void)link;
    unsigned n = 0;
    if (rf_likely(self.joined && self.said == self.n_says)) {
        n = self.due < max ? self.due : max;
        if (!self.piece->one_way && self.due)
            n = atomic_load_explicit(&self.shared->draining, memory_order_relaxed) ? 0
                : max < SLOTS                                                      ? max
                                                                                   : SLOTS;
        rf_slots_copy(out, self.ring, n);
        if (self.piece->one_way) self.due -= n;
        return n;
    }
    while (n < max && self.said < self.n_says) out[n++] = self.says[self.said++];
    return n;
}

static unsigned send_slots(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link;
    if (rf_unlikely(!self.joined)) {
        opened_hear(slots, n);
        return n;
    }
    unsigned kept = n < SLOTS ? n : SLOTS;
    rf_slots_copy(self.ring, slots, kept);
    if (!self.piece->one_way) {
        rate_count(kept);
        return kept;
    }
    if (self.measures) trip_count();
    if (!self.paused) self.due += kept;
    return kept;
}

/* ---- the rest of a medium ---- */

static rf_err_t endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out);

static void endpoint_close(rf_endpoint_t *endpoint)
{
    (void)endpoint;
}

static int endpoint_fd(rf_endpoint_t *endpoint)
{
    (void)endpoint;
    return -1;
}

static void endpoint_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    (void)endpoint;
    *next_ns = now_ns + RF_NS_PER_MS;
    if (!self.incoming) {
        self.incoming = true;
        self.params.on_event(self.params.context, &self.link, RF_LINK_INCOMING, &(rf_link_event_info_t){0});
    }
    if (atomic_load(&self.shared->placed[0]) && atomic_load(&self.shared->placed[1]) && !self.joined)
        join_say();
    else if (self.ready)
        turn_look();
    else if (self.joined && self.said == self.n_says) {
        self.ready = true;
        bounce_ready(self.piece);
        self.since = rf_clock_ticks();
    }
    if (atomic_load(&self.shared->done) || atomic_load(&self.shared->failed)) self.stop = 1;
}

static rf_err_t accept_link(rf_link_t *link, const rf_link_params_t *params)
{
    link->user = params->user;
    open_say();
    return RF_OK;
}

static rf_err_t credentials(rf_link_t *link, int *pid, unsigned *uid)
{
    (void)link;
    *pid = getpid();
    *uid = geteuid();
    return RF_OK;
}

static void nothing(rf_link_t *link)
{
    (void)link;
}

static bool ready(rf_link_t *link)
{
    (void)link;
    return self.said < self.n_says || self.due > 0;
}

/* Nobody sleeps. */
static void stats(rf_link_t *link, rf_link_stats_t *out)
{
    (void)link;
    *out = (rf_link_stats_t){0};
}

static const rf_transport_t played = {.name = "played",
                                      .endpoint_open = endpoint_open,
                                      .endpoint_close = endpoint_close,
                                      .endpoint_fd = endpoint_fd,
                                      .endpoint_progress = endpoint_progress,
                                      .accept = accept_link,
                                      .peer_credentials = credentials,
                                      .room = room,
                                      .poll = poll_slots,
                                      .send = send_slots,
                                      .flush = flush,
                                      .arm = nothing,
                                      .ready = ready,
                                      .disarm = nothing,
                                      .stats = stats,
                                      .close = nothing};

static rf_err_t endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    self.params = *params;
    self.link.transport = self.endpoint.transport = &played;
    *out = &self.endpoint;
    return RF_OK;
}

bool bounce_driver(const bounce_piece_t *piece, unsigned side, unsigned cpu)
{
    char device[320], prefix[32];
    snprintf(device, sizeof device, piece->wire->port[side], piece->folder);
    snprintf(prefix, sizeof prefix, "rf-bounce-%d", (int)getpid());
    port_options_t options = {
        .device = device, .file_prefix = prefix, .memory_mib = MEMORY_MIB, .cpu = (int)cpu};
    /* An address that the kernel has not on its interface: it would answer that nobody listens. */
    server_options_t serves = {
        .transport = &played,
        .seal = (rf_seal_mode_t)piece->seal,
        .self = {.ipv4 = {10, 254, 0, (uint8_t)(side + 1)}, .prefix = 24, .udp_port = UDP_PORT}};
    port_t *port = NULL;
    server_t *server = NULL;
    loop_t *loop = NULL;
    self.piece = piece;
    self.shared = piece->shared;
    self.side = side;
    self.measures = side == (piece->one_way ? 0 : 1);
    for (unsigned i = 0; i < SLOTS; i++) self.ring[i].control = rf_control_make(1, RF_SLOT_PAYLOAD, false, 0);
    rf_log_init("rf-dpdk-bounce", RF_LOG_ERROR);
    rf_err_t err = port_open(&options, &port);
    if (err == RF_OK) memcpy(serves.self.mac, port_mac(port), sizeof serves.self.mac);
    if (err == RF_OK) err = server_open(&serves, port, &server);
    if (err == RF_OK) err = loop_open(port, server, &loop);
    if (err == RF_OK) loop_run(loop, &self.stop);
    if (loop) loop_close(loop);
    if (server) server_close(server);
    return err == RF_OK && !atomic_load(&self.shared->failed);
}
