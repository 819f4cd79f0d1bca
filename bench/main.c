/* rf-bench: measures, and states beside each figure the raw limit of the same run. */
#include "benches.h"

#include "base/log.h"
#include "base/os.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define TRIES_DEFAULT 5

static const bench_t *const benches[] = {
#define BENCH_ENTRY(name) &bench_##name,
    BENCHES(BENCH_ENTRY)
#undef BENCH_ENTRY
};
#define N_BENCHES (sizeof benches / sizeof *benches)

static void list(FILE *out, const char *indent)
{
    int width = 0;
    for (unsigned i = 0; i < N_BENCHES; i++) {
        int n = (int)strlen(benches[i]->name);
        if (n > width) width = n;
    }
    for (unsigned i = 0; i < N_BENCHES; i++)
        fprintf(out, "%s%-*s %s\n", indent, width, benches[i]->name, benches[i]->help);
}

/* One object a bench. Names and helps are this program's own, and hold nothing that wants an escape. */
static void list_json(FILE *out)
{
    for (unsigned i = 0; i < N_BENCHES; i++)
        fprintf(out, "{\"bench\":\"%s\",\"help\":\"%s\"}\n", benches[i]->name, benches[i]->help);
}

static void usage(FILE *out)
{
    fprintf(out,
            "usage: rf-bench NAME|list [options] [WORD]...    a word chooses one piece of the bench\n"
            "\n"
            "Measures one thing and prints a table; beside each figure stands its ratio to the raw limit "
            "measured\n"
            "in the same run. Figures between two cores whose CPUs sat far apart are marked inconclusive.\n"
            "\n"
            "benches:\n");
    list(out, "  ");
    fprintf(
        out,
        "\n"
        "options:\n"
        "  --cores A,B    CPUs of the two sides (default: the first two of this process)\n"
        "  --slots N      ring size, a power of two from 64 to 32768 (default: a series)\n"
        "  --batch N      slots a flush (default: a series)\n"
        "  --samples N    samples of each piece\n"
        "  --outstanding N   ordered, over TCP: commands under way in a rate, 2 to 1024 (default: 512)\n"
        "  --depth N      bulk: remote writes under way, 1 to 64 (default: 4)\n"
        "  --bytes N      bulk: of a remote write, up to 16 MiB (default: 64 KiB and 1 MiB); read: of a "
        "remote read (64)\n"
        "  --rounds N     ordered --peers: how often all sides take turns (default: 5)\n"
        "  --transport T  the medium, for benches that can use several (shm, tcp, rdma, dpdk)\n"
        "  --medium TEXT  its own options; rdma: device=rxe0,mode=send,inline=64,signal=16,depth=128,...\n"
        "  --events       between hosts: sleep until something comes, rather than poll\n"
        "  --senders N    incast: how many the receiver waits for, 1 to 16 (default: 2)\n"
        "  --tries N      brackets tried until one was near (default %d)\n"
        "  --near-ns N    what a cache line takes at most between CPUs that count as near "
        "(default: 120)\n"
        "  --format F     table, json (one object a line), osu or perftest: as those print\n"
        "  --json         the same as --format json\n"
        "  --hdr FILE     HdrHistogram percentile text of every latency\n"
        "  --through-lib  urpc: between two domains, through librackfish (the same as the bench `channel`)\n"
        "  --peers        ordered: etcd and canonical's C raft beside it, where they are installed\n"
        "  -m NAME        the machine, for benches that need a running one\n"
        "  --help         this\n",
        TRIES_DEFAULT);
}

bool bench_wanted(const bench_options_t *options, const char *piece)
{
    for (int i = 0; i < options->argc; i++) {
        if (strcmp(options->argv[i], piece) == 0) return true;
    }
    return options->argc == 0;
}

static bool parse_number(const char *text, unsigned min, unsigned max, unsigned *out)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != 0 || value < min || value > max) return false;
    *out = (unsigned)value;
    return true;
}

static bool parse_cores(const char *text, unsigned cores[2])
{
    char first[16];
    size_t n = strcspn(text, ",");
    if (text[n] != ',' || n >= sizeof first) return false;
    memcpy(first, text, n);
    first[n] = 0;
    return parse_number(first, 0, RF_CORES_MAX, &cores[0]) &&
           parse_number(text + n + 1, 0, RF_CORES_MAX, &cores[1]);
}

static bool parse_format(const char *text, bench_format_t *out)
{
    static const char *const formats[] = {"table", "json", "osu", "perftest"};
    for (unsigned i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(text, formats[i]) != 0) continue;
        *out = (bench_format_t)i;
        return true;
    }
    return false;
}

static void default_cores(unsigned cores[2])
{
    unsigned allowed[2];
    unsigned n = rf_cpu_allowed(allowed, 2);
    cores[0] = n > 0 ? allowed[0] : 0;
    cores[1] = n > 1 ? allowed[1] : cores[0];
}

enum {
    OPT_CORES = 256,
    OPT_SLOTS,
    OPT_BATCH,
    OPT_SAMPLES,
    OPT_TRIES,
    OPT_NEAR,
    OPT_JSON,
    OPT_HDR,
    OPT_HELP,
    OPT_THROUGH_LIB,
    OPT_TRANSPORT,
    OPT_PEERS,
    OPT_OUTSTANDING,
    OPT_ROUNDS,
    OPT_BYTES,
    OPT_DEPTH,
    OPT_SENDERS,
    OPT_EVENTS,
    OPT_FORMAT,
    OPT_MEDIUM
};

static const struct option long_options[] = {
    {"cores", required_argument, NULL, OPT_CORES},
    {"slots", required_argument, NULL, OPT_SLOTS},
    {"batch", required_argument, NULL, OPT_BATCH},
    {"samples", required_argument, NULL, OPT_SAMPLES},
    {"tries", required_argument, NULL, OPT_TRIES},
    {"near-ns", required_argument, NULL, OPT_NEAR},
    {"json", no_argument, NULL, OPT_JSON},
    {"hdr", required_argument, NULL, OPT_HDR},
    {"through-lib", no_argument, NULL, OPT_THROUGH_LIB},
    {"help", no_argument, NULL, OPT_HELP},
    {"peers", no_argument, NULL, OPT_PEERS},
    {"outstanding", required_argument, NULL, OPT_OUTSTANDING},
    {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"transport", required_argument, NULL, OPT_TRANSPORT},
    {"medium", required_argument, NULL, OPT_MEDIUM},
    {"bytes", required_argument, NULL, OPT_BYTES},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"senders", required_argument, NULL, OPT_SENDERS},
    {"events", no_argument, NULL, OPT_EVENTS},
    {"format", required_argument, NULL, OPT_FORMAT},
    {NULL, 0, NULL, 0},
};

/* False: the value makes no sense; the message is out. */
static bool take_option(int option, const char *value, bench_options_t *o)
{
    bool good = true;
    switch (option) {
    case OPT_CORES:
        good = parse_cores(value, o->cores);
        break;
    case OPT_SLOTS:
        good = parse_number(value, 64, 32768, &o->slots) && (o->slots & (o->slots - 1)) == 0;
        break;
    case OPT_BATCH:
        good = parse_number(value, 1, 4096, &o->batch);
        break;
    case OPT_OUTSTANDING:
        good = parse_number(value, 2, 1024, &o->outstanding);
        break;
    case OPT_ROUNDS:
        good = parse_number(value, 1, 1000, &o->rounds);
        break;
    case OPT_SAMPLES:
        good = parse_number(value, 1, 10000000, &o->samples);
        break;
    case OPT_TRIES:
        good = parse_number(value, 1, 1000, &o->tries);
        break;
    case OPT_NEAR:
        good = parse_number(value, 1, 1000000, &o->near_ns);
        break;
    case OPT_JSON:
        o->format = BENCH_JSON;
        break;
    case OPT_FORMAT:
        good = parse_format(value, &o->format);
        break;
    case OPT_BYTES:
        good = parse_number(value, 1, BENCH_BYTES_MAX, &o->bytes);
        break;
    case OPT_DEPTH:
        good = parse_number(value, 1, BENCH_DEPTH_MAX, &o->depth);
        break;
    case OPT_SENDERS:
        good = parse_number(value, 1, BENCH_SENDERS_MAX, &o->senders);
        break;
    case OPT_EVENTS:
        o->events = true;
        break;
    case OPT_MEDIUM:
        o->medium = value;
        break;
    case OPT_HDR:
        o->hdr = fopen(value, "we");
        good = o->hdr != NULL;
        break;
    case OPT_TRANSPORT:
        o->transport = value;
        break;
    case OPT_THROUGH_LIB:
        o->through_lib = true;
        break;
    case OPT_PEERS:
        o->peers = true;
        break;
    case 'm':
        o->machine = value;
        break;
    default: /* getopt has said what is wrong */
        return false;
    }
    if (!good) fprintf(stderr, "rf-bench: \"%s\" is no good value there: see rf-bench --help\n", value);
    return good;
}

static bool refused;

rf_err_t bench_refused(const char *bench, const char *why, ...)
{
    va_list values;
    refused = true;
    va_start(values, why);
    fprintf(stderr, "rf-bench %s: ", bench);
    vfprintf(stderr, why, values);
    fputc('\n', stderr);
    va_end(values);
    return RF_ERR_INVALID;
}

int main(int argc, char **argv)
{
    enum { EXIT_USAGE = 2 };
    bench_options_t options = {.tries = TRIES_DEFAULT};
    default_cores(options.cores);
    int option;
    while ((option = getopt_long(argc, argv, "m:", long_options, NULL)) != -1) {
        if (option == OPT_HELP) {
            usage(stdout);
            return 0;
        }
        if (!take_option(option, optarg, &options)) return EXIT_USAGE;
    }
    if (optind == argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[optind];
    if (options.through_lib && strcmp(name, "urpc") == 0) name = "channel";
    if (strcmp(name, "shootdown") == 0) name = "one-phase";
    options.argc = argc - optind - 1;
    options.argv = argv + optind + 1;
    rf_log_init("rf-bench", RF_LOG_WARN);
    if (strcmp(name, "list") == 0) {
        if (options.format == BENCH_JSON)
            list_json(stdout);
        else
            list(stdout, "");
        return 0;
    }
    for (unsigned i = 0; i < N_BENCHES; i++) {
        if (strcmp(benches[i]->name, name) != 0) continue;
        rf_err_t err = benches[i]->run(&options);
        if (options.hdr && fclose(options.hdr) != 0) err = RF_ERR_OS;
        if (err != RF_OK && !refused) fprintf(stderr, "rf-bench %s: %s\n", name, rf_err_text(err));
        return err == RF_OK ? 0 : 1;
    }
    fprintf(stderr, "rf-bench: there is no bench \"%s\": see rf-bench --help\n", name);
    return EXIT_USAGE;
}
