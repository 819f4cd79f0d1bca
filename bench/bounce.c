/*
 * rf-dpdk-bounce: what the wires below links over DPDK can do by themselves (wire.h). `rf-bench dpdk` becomes this program.
 *
 *   one-way    a frame of one message of 64 bytes there and one back, both ends spinning; half of it
 *   rate       frames of 1 and of 16 messages one way, as many as go; counted where they arrive
 *   driver     both from link driver to link driver, by a driver's own loop (wire_driver.c), without and with a seal, in turns with the
 *              bare wire, and on a veth pair with the kernel's UDP and TCP
 *
 * Each piece has two processes, since a process has its EAL once. The ends of a veth pair are in network namespaces of these
 * processes, and vanish with them.
 */
#include "bounce.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/os.h"
#include "transport/dpdk/seal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define SAMPLES_MAX     1000000
#define RESEND_NS       (20 * RF_NS_PER_MS) /* wires lose frames */
#define SERVER_LOOK_MS  20
#define SERVER_FIRST_MS 100
#define OPEN_NS_MAX     (15 * RF_NS_PER_S)
#define LOOKS           1024 /* at what has come, between two looks at the clock */
#define TURN_LOOKS      64   /* ... and at whose turn it is */

static const wire_t wires[] = {
    {"virtio",
     "virtio_user and vhost, split rings, in shared memory",
     false,
     {"net_virtio_user0,path=%s/vhost,queues=1,queue_size=256", "net_vhost0,iface=%s/vhost,queues=1"},
     wire_port_open,
     wire_port_send,
     wire_port_receive},
    {"virtio-packed",
     "the same with packed rings",
     false,
     {"net_virtio_user0,path=%s/vhost,queues=1,queue_size=256,packed_vq=1",
      "net_vhost0,iface=%s/vhost,queues=1"},
     wire_port_open,
     wire_port_send,
     wire_port_receive},
    {"memif",
     "memif, in shared memory",
     false,
     {"net_memif0,role=client,id=0,socket=%s/memif,socket-abstract=no",
      "net_memif0,role=server,id=0,socket=%s/memif,socket-abstract=no"},
     wire_port_open,
     wire_port_send,
     wire_port_receive},
    {"af_packet",
     "packet sockets on a veth pair",
     true,
     {"net_af_packet0,iface=" WIRE_INTERFACE, "net_af_packet0,iface=" WIRE_INTERFACE},
     wire_port_open,
     wire_port_send,
     wire_port_receive},
    {"af_xdp",
     "XDP sockets on a veth pair",
     true,
     {"net_af_xdp0,iface=" WIRE_INTERFACE, "net_af_xdp0,iface=" WIRE_INTERFACE},
     wire_port_open,
     wire_port_send,
     wire_port_receive},
    {"udp",
     "the kernel's UDP on the same veth pair",
     true,
     {NULL},
     wire_udp_open,
     wire_udp_send,
     wire_udp_receive},
    {"tcp",
     "the kernel's TCP on the same veth pair",
     true,
     {NULL},
     wire_tcp_open,
     wire_tcp_send,
     wire_tcp_receive},
};
#define N_WIRES (sizeof wires / sizeof *wires)

/* ---- an end ---- */

static bool wait_for(const bounce_shared_t *shared, const _Atomic(bool) *what, uint64_t ns_max)
{
    uint64_t until_ns = rf_clock_ns() + ns_max;
    while (!atomic_load(what)) {
        if (atomic_load(&shared->failed) || rf_clock_ns() > until_ns) return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return true;
}

/* Sends `number` and waits for its echo, sending again what may be lost. False: the piece is over. */
static bool round_trip(const bounce_piece_t *piece, wire_end_t *end, uint64_t number, bool *again)
{
    uint64_t sent_ns = 0;
    for (unsigned looks = LOOKS;; looks++) {
        if (piece->wire->receive(end) > 0 && end->number == number) return true;
        if (looks < LOOKS && sent_ns) continue;
        looks = 0;
        uint64_t now_ns = rf_clock_ns();
        if (atomic_load(&piece->shared->failed)) return false;
        if (sent_ns && now_ns - sent_ns < RESEND_NS) continue;
        *again = sent_ns != 0;
        while (piece->wire->send(end, number, 1, 1) == 0 && rf_clock_ns() - now_ns < RESEND_NS)
            ;
        sent_ns = now_ns;
    }
}

static bool latency_measure(const bounce_piece_t *piece, wire_end_t *end)
{
    double half_ns = 1000.0 / (double)rf_clock_ticks_per_us() / 2 / BOUNCE_ROUNDS;
    uint64_t number = 0;
    while (!atomic_load(&piece->shared->done)) {
        bool again = false;
        uint64_t before = rf_clock_ticks();
        for (unsigned k = 0; k < BOUNCE_ROUNDS; k++) {
            if (!round_trip(piece, end, ++number, &again)) return false;
        }
        if (!again && bounce_keep(piece, (double)(rf_clock_ticks() - before) * half_ns)) {
            bounce_hand_over(piece);
            bounce_wait(piece);
        }
    }
    return true;
}

/* What an end looks at beside its wire, now and then. False: the piece is over. */
static bool goes_on(const bounce_piece_t *piece)
{
    if (!bounce_my_turn(piece)) bounce_wait(piece);
    return !atomic_load(&piece->shared->done) && !atomic_load(&piece->shared->failed);
}

static bool latency_answer(const bounce_piece_t *piece, wire_end_t *end)
{
    for (unsigned looks = 1;; looks++) {
        if (piece->wire->receive(end) > 0) piece->wire->send(end, end->number, 1, 1);
        if (looks % TURN_LOOKS == 0 && !goes_on(piece)) return true;
    }
}

static bool rate_send(const bounce_piece_t *piece, wire_end_t *end)
{
    for (uint64_t i = 1;; i++) {
        piece->wire->send(end, i, WIRE_BURST, piece->messages);
        if (i % TURN_LOOKS) continue;
        piece->wire->receive(end);
        if (!goes_on(piece)) return !atomic_load(&piece->shared->failed);
    }
}

static bool rate_count(const bounce_piece_t *piece, wire_end_t *end)
{
    uint64_t begun_ns = 0, n = 0;
    for (unsigned looks = 0; !atomic_load(&piece->shared->done); looks++) {
        n += piece->wire->receive(end);
        if (looks % 16) continue;
        uint64_t now_ns = rf_clock_ns();
        if (now_ns - begun_ns < BOUNCE_RATE_NS) continue;
        if (begun_ns && n > 0 && bounce_keep(piece, (double)n * 1000 / (double)(now_ns - begun_ns))) {
            bounce_hand_over(piece);
            bounce_wait(piece);
            now_ns = rf_clock_ns();
        }
        if (atomic_load(&piece->shared->failed)) return false;
        begun_ns = now_ns;
        n = 0;
    }
    return true;
}

#define COMMAND_WORDS 24

/* Runs a command of so many words, separated by one space each; whether it ended well. */
static bool command(const char *format, ...) __attribute__((format(printf, 1, 2)));
static bool command(const char *format, ...)
{
    char text[256], *words[COMMAND_WORDS] = {0}, *rest = text;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (unsigned i = 0; rest && i + 1 < COMMAND_WORDS; i++) words[i] = strsep(&rest, " ");
    pid_t pid;
    int status = 0;
    int error = posix_spawnp(&pid, words[0], NULL, NULL, words, environ);
    if (error != 0) fprintf(stderr, "rf-dpdk-bounce: %s: %s\n", words[0], strerror(error));
    return error == 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool interface_up(unsigned side)
{
    (void)rf_file_write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1", 1);
    return command("ip link set lo up") &&
           command("ip address add 10.255.0.%u/30 dev %s", side + 1, WIRE_INTERFACE) &&
           command("ip link set %s up", WIRE_INTERFACE);
}

/* What the libraries of a wire say while it is opened concerns nobody, unless it cannot be opened. */
static bool open_quietly(const bounce_piece_t *piece, wire_end_t *end)
{
    char path[64], said[4096] = "";
    snprintf(path, sizeof path, "%s/said-%u", piece->folder, end->side);
    int before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (before < 0 || file < 0) return false;
    dup2(file, STDERR_FILENO);
    bool ok = piece->wire->open(piece->wire, end);
    dup2(before, STDERR_FILENO);
    close(before);
    close(file);
    if (!ok && rf_file_read(path, said, sizeof said) > 0) fputs(said, stderr);
    return ok;
}

/* The server of a wire in shared memory opens first: its socket is the one that is in the folder, and listens a moment after. */
static bool wait_for_server(const bounce_piece_t *piece)
{
    uint64_t until_ns = rf_clock_ns() + OPEN_NS_MAX;
    bool there = false;
    while (!there && rf_clock_ns() < until_ns && !atomic_load(&piece->shared->failed)) {
        rf_clock_sleep_ms(SERVER_LOOK_MS);
        DIR *folder = opendir(piece->folder);
        for (struct dirent *entry; folder && (entry = readdir(folder));) there |= entry->d_type == DT_SOCK;
        if (folder) closedir(folder);
    }
    rf_clock_sleep_ms(SERVER_FIRST_MS);
    return there;
}

void bounce_end(const bounce_piece_t *piece, unsigned side, unsigned cpu)
{
    bounce_shared_t *shared = piece->shared;
    wire_end_t end = {.side = side, .cpu = cpu, .folder = piece->folder, .packets = piece->packets, .fd = -1};
    bool one_way = piece->one_way;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    bool ok = !piece->wire->veth || unshare(CLONE_NEWNET) == 0;
    atomic_store(&shared->namespace_there[side], true);
    ok = ok && wait_for(shared, &shared->wire_there, OPEN_NS_MAX);
    ok = ok && (!piece->wire->veth || interface_up(side));
    if (ok && !piece->wire->veth && side == 0) ok = wait_for_server(piece);
    rf_cpu_pin(cpu);
    if (piece->driver) {
        if (!ok || !bounce_driver(piece, side, cpu)) atomic_store(&shared->failed, true);
        _exit(atomic_load(&shared->failed));
    }
    ok = ok && open_quietly(piece, &end);
    atomic_store(&shared->open[side], true);
    ok = ok && wait_for(shared, &shared->open[!side], OPEN_NS_MAX);
    if (ok) bounce_ready(piece);
    bool measures = side == (one_way ? 0 : 1);
    if (ok && one_way) ok = measures ? latency_measure(piece, &end) : latency_answer(piece, &end);
    if (ok && !one_way) ok = measures ? rate_count(piece, &end) : rate_send(piece, &end);
    if (!ok) atomic_store(&shared->failed, true);
    if (measures) atomic_store(&shared->done, true);
    _exit(ok ? 0 : 1);
}

/* ---- the parent ---- */

bool bounce_wire(const bounce_piece_t *piece, const pid_t ends[2])
{
    bounce_shared_t *shared = piece->shared;
    bool ok = wait_for(shared, &shared->namespace_there[0], OPEN_NS_MAX) &&
              wait_for(shared, &shared->namespace_there[1], OPEN_NS_MAX);
    /* af_xdp wants one queue each way. */
    ok = ok && (!piece->wire->veth ||
                command("ip link add %s netns %d numtxqueues 1 numrxqueues 1 type veth peer name %s netns %d "
                        "numtxqueues 1 numrxqueues 1",
                        WIRE_INTERFACE, (int)ends[0], WIRE_INTERFACE, (int)ends[1]));
    if (!ok) atomic_store(&shared->failed, true);
    atomic_store(&shared->wire_there, true);
    return ok;
}

static bool measure_bare(const bench_options_t *options, const wire_t *wire, bool one_way, unsigned messages)
{
    bounce_run_t c = {.n = 1, .pieces = {{.wire = wire, .one_way = one_way, .messages = messages}}};
    return bounce_measure(options, &c);
}

/* The bare wire, with the smallest frames and with packets as large as the drivers'; link drivers; and where the wire is the kernel's too,
 * what the kernel makes of it. */
static bool measure_driver(const bench_options_t *options, const wire_t *wire, bool one_way)
{
    bounce_run_t c = {0};
    bounce_piece_t piece = {.wire = wire, .one_way = one_way, .messages = one_way ? 1 : WIRE_MESSAGES_MAX};
    c.pieces[c.n++] = piece;
    if (one_way) {
        c.pieces[c.n] = piece;
        c.pieces[c.n++].packets = true;
    }
    piece.driver = true;
    for (piece.seal = RF_SEAL_NONE; piece.seal <= RF_SEAL_SIGN; piece.seal++) c.pieces[c.n++] = piece;
    piece.driver = false;
    for (unsigned i = 0; i < N_WIRES && wire->veth; i++) {
        piece.wire = &wires[i];
        if (!wires[i].port[0]) c.pieces[c.n++] = piece;
    }
    return bounce_measure(options, &c);
}

static void usage(FILE *out)
{
    fputs("usage: rf-dpdk-bounce [OPTION]... [driver] [one-way|rate] [WIRE]...\n\n"
          "driver: link driver to link driver over a DPDK port, in turns with the bare wire, UDP and "
          "TCP\n\nwires (default: "
          "all):\n",
          out);
    for (unsigned i = 0; i < N_WIRES; i++) fprintf(out, "  %-14s %s\n", wires[i].name, wires[i].help);
    fputs("\noptions: --cores A,B  --samples N  --tries N  --json  --help, as of rf-bench\n", out);
}

static bool take_option(int option, const char *value, bench_options_t *o)
{
    char end;
    switch (option) {
    case 'c':
        return sscanf(value, "%u,%u%c", &o->cores[0], &o->cores[1], &end) == 2 && o->cores[0] != o->cores[1];
    case 's':
        return sscanf(value, "%u%c", &o->samples, &end) == 1 && o->samples > 0 && o->samples <= SAMPLES_MAX;
    case 't':
        return sscanf(value, "%u%c", &o->tries, &end) == 1 && o->tries > 0;
    case 'j':
        o->format = BENCH_JSON;
        return true;
    default:
        return false;
    }
}

static bool is_word(const char *word)
{
    bool known = strcmp(word, "one-way") == 0 || strcmp(word, "rate") == 0 || strcmp(word, "driver") == 0;
    for (unsigned i = 0; i < N_WIRES; i++) known |= strcmp(word, wires[i].name) == 0;
    if (!known) fprintf(stderr, "rf-dpdk-bounce: there is no \"%s\"; see --help\n", word);
    return known;
}

static bool has_word(const bench_options_t *o, const char *word)
{
    for (int i = 0; i < o->argc; i++) {
        if (strcmp(o->argv[i], word) == 0) return true;
    }
    return false;
}

static bool wants(const bench_options_t *o, const char *piece)
{
    return has_word(o, piece) || (!has_word(o, "one-way") && !has_word(o, "rate"));
}

static bool measure_wire(const bench_options_t *o, const wire_t *wire)
{
    bool ok = !wants(o, "one-way") || measure_bare(o, wire, true, 1);
    if (!wants(o, "rate")) return ok;
    ok &= measure_bare(o, wire, false, 1);
    return measure_bare(o, wire, false, WIRE_MESSAGES_MAX) && ok;
}

static bool measure_wire_driver(const bench_options_t *o, const wire_t *wire)
{
    bool ok = !wants(o, "one-way") || measure_driver(o, wire, true);
    return (!wants(o, "rate") || measure_driver(o, wire, false)) && ok;
}

int main(int argc, char **argv)
{
    enum { EXIT_USAGE = 2, EXIT_SKIPPED = 77 };
    static const struct option long_options[] = {
        {"cores", required_argument, NULL, 'c'}, {"samples", required_argument, NULL, 's'},
        {"tries", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    bench_options_t options = {.tries = 1};
    unsigned allowed[2];
    unsigned n_allowed = rf_cpu_allowed(allowed, 2);
    for (unsigned i = 0; i < 2 && n_allowed == 2; i++) options.cores[i] = allowed[i];
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        if (c == 'h') {
            usage(stdout);
            return 0;
        }
        if (!take_option(c, optarg, &options)) {
            fprintf(stderr, "rf-dpdk-bounce: \"%s\" is no good value there; see --help\n",
                    optarg ? optarg : "?");
            return EXIT_USAGE;
        }
    }
    options.argc = argc - optind;
    options.argv = argv + optind;
    bool any_wire = true, driver = has_word(&options, "driver");
    for (int i = 0; i < options.argc; i++) {
        if (!is_word(options.argv[i])) return EXIT_USAGE;
    }
    for (unsigned i = 0; i < N_WIRES; i++) any_wire &= !has_word(&options, wires[i].name);
    if (options.cores[0] == options.cores[1]) {
        fprintf(stderr, "rf-dpdk-bounce: two spinning ends need two different CPUs\n");
        return EXIT_SKIPPED;
    }
    bool ok = true, none = true;
    for (unsigned i = 0; i < N_WIRES; i++) {
        const wire_t *wire = &wires[i];
        if (!any_wire && !has_word(&options, wire->name)) continue;
        if (wire->veth && geteuid() != 0) {
            fprintf(stderr, "rf-dpdk-bounce: %s: a veth pair between namespaces takes root\n", wire->name);
            continue;
        }
        none = false;
        ok &= driver ? !wire->port[0] || measure_wire_driver(&options, wire) : measure_wire(&options, wire);
    }
    return none ? EXIT_SKIPPED : ok ? 0 : 1;
}
