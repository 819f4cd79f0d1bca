/* rf-sim: the command line of the simulator; `rackfish sim` runs it. */
#include "sim/monitors.h"
#include "sim/rdma.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX 256

enum {
    OPTION_SEED = 256,
    OPTION_SEEDS,
    OPTION_OPS,
    OPTION_MONITORS,
    OPTION_HOSTS,
    OPTION_CLIENTS,
    OPTION_VOTERS,
    OPTION_PLAN,
    OPTION_FAULTS,
    OPTION_MODEL,
    OPTION_DEFECT,
    OPTION_GROUPS,
    OPTION_ACTOR,
    OPTION_ONE_SIDED,
    OPTION_LEASES,
    OPTION_JOBS,
    OPTION_KEEP_GOING,
    OPTION_JSON,
    OPTION_TRACE,
    OPTION_HISTORY,
    OPTION_STEPS,
    OPTION_CHECK_HISTORY,
    OPTION_EVENTS_MAX,
    OPTION_HELP,
};

typedef struct option_text {
    const char *name, *argument, *help;
    int id;
} option_text_t;

static const option_text_t texts[] = {
    {"seed", "N", "the first seed (default: 1); a seed decides everything that happens", OPTION_SEED},
    {"seeds", "N", "how many seeds, one after the other (default: 1)", OPTION_SEEDS},
    {"jobs", "N", "so many processes share the seeds (default: 1)", OPTION_JOBS},
    {"keep-going", NULL, "goes on after a seed that fails", OPTION_KEEP_GOING},
    {"ops", "N", "operations of clients in each seed (default: 1000)", OPTION_OPS},
    {"monitors", "N",
     "cores, at most 16384, each with its engine, or with a whole monitor, of small tables where they are "
     "more than 1024 (default: 3 to 9, by the seed)",
     OPTION_MONITORS},
    {"hosts", "N", "hosts they are on (default: 1 to 5, by the seed)", OPTION_HOSTS},
    {"clients", "N", "clients, at most 64 (default: 2 to 10, by the seed)", OPTION_CLIENTS},
    {"voters", "N", "voters at most (default: 3, 5 or 7, by the seed)", OPTION_VOTERS},
    {"leases", "on|off", "leader leases (default: in one seed of four)", OPTION_LEASES},
    {"plan", "NAME",
     "broadcast, unicast, host, package, weighted or weighted:4,8,8, which are its weights (default: by the "
     "seed)",
     OPTION_PLAN},
    {"faults", "LIST", "what goes wrong, see below (default: default)", OPTION_FAULTS},
    {"model", "NAME", "costs instead of faults: predicts latency and throughput on that machine",
     OPTION_MODEL},
    {"defect", "NAME", "for tests of the simulator: a deliberate defect, see below", OPTION_DEFECT},
    {"groups", NULL,
     "group operations (two-phase, one-phase) instead of the log, under views that an oracle gives",
     OPTION_GROUPS},
    {"actor", "NAME",
     "engine (default), groups, monitor: the whole monitor, with registry, locks, queues and domains; or "
     "rdma: how those sleep who "
     "are joined by RDMA",
     OPTION_ACTOR},
    {"one-sided", NULL,
     "leaders write into voters' memory where they can: torn, late, completed early, cut by a revocation",
     OPTION_ONE_SIDED},
    {"trace", "FROM:TO", "prints these events as they happen", OPTION_TRACE},
    {"history", "FILE", "writes what the clients did and saw, as text (doc/history.md)", OPTION_HISTORY},
    {"steps", "FILE",
     "writes what the engines, or the groups, of three members and a spare did, as steps that the models "
     "take "
     "(consensus/model/trace.sh of the sources)",
     OPTION_STEPS},
    {"check-history", "FILE", "only says whether that history is linearizable; - is standard input",
     OPTION_CHECK_HISTORY},
    {"events-max", "N", "a seed with more events is stuck (default: 50000000)", OPTION_EVENTS_MAX},
    {"json", NULL, "one JSON object", OPTION_JSON},
    {"help", NULL, "this text", OPTION_HELP},
};
#define TEXTS (sizeof texts / sizeof texts[0])

typedef enum defect_of { OF_ENGINE, OF_GROUPS, OF_SURROUNDINGS, OF_MONITOR } defect_of_t;

static const struct {
    const char *name;
    unsigned bit;
    defect_of_t of;
} defects[] = {
    {"new-incarnation-votes", AGREEMENT_DEFECT_NEW_INCARNATION_VOTES, OF_ENGINE},
    {"change-before-term", AGREEMENT_DEFECT_CHANGE_BEFORE_TERM, OF_ENGINE},
    {"old-term-commit", AGREEMENT_DEFECT_OLD_TERM_COMMIT, OF_ENGINE},
    {"elect-in-lease", AGREEMENT_DEFECT_ELECT_IN_LEASE, OF_ENGINE},
    {"stale-now", AGREEMENT_DEFECT_STALE_NOW, OF_ENGINE},
    {"no-promise", AGREEMENT_DEFECT_NO_PROMISE, OF_ENGINE},
    {"break-frees", AGREEMENT_DEFECT_BREAK_FREES, OF_ENGINE},
    {"lease-endless", AGREEMENT_DEFECT_LEASE_ENDLESS, OF_ENGINE},
    {"no-drift", AGREEMENT_DEFECT_NO_DRIFT, OF_ENGINE},
    {"no-sessions-saved", AGREEMENT_DEFECT_NO_SESSIONS_SAVED, OF_ENGINE},
    {"reset-on-partition", AGREEMENT_DEFECT_RESET_ON_PARTITION, OF_ENGINE},
    {"single-majority", AGREEMENT_DEFECT_SINGLE_MAJORITY, OF_ENGINE},
    {"vote-before-fence", AGREEMENT_DEFECT_VOTE_BEFORE_FENCE, OF_ENGINE},
    {"torn-record", AGREEMENT_DEFECT_TORN_RECORD, OF_ENGINE},
    {"old-completion", AGREEMENT_DEFECT_OLD_COMPLETION, OF_ENGINE},
    {"expel-to-one", AGREEMENT_DEFECT_EXPEL_TO_ONE, OF_ENGINE},
    {"change-unasked", AGREEMENT_DEFECT_CHANGE_UNASKED, OF_ENGINE},
    {"change-denied", AGREEMENT_DEFECT_CHANGE_DENIED, OF_ENGINE},
    {"tail-early", SIM_DEFECT_TAIL_EARLY, OF_SURROUNDINGS},
    {"handed-commits", SIM_DEFECT_HANDED_COMMITS, OF_SURROUNDINGS},
    {"no-last-look", SIM_DEFECT_NO_LAST_LOOK, OF_SURROUNDINGS},
    {"armed-late", SIM_DEFECT_ARMED_LATE, OF_SURROUNDINGS},
    {"not-rung", SIM_DEFECT_NOT_RUNG, OF_SURROUNDINGS},
    {"no-timer", SIM_DEFECT_NO_TIMER, OF_SURROUNDINGS},
    {"rings-on", SIM_DEFECT_RINGS_ON, OF_SURROUNDINGS},
    {"armed-once", SIM_DEFECT_ARMED_ONCE, OF_SURROUNDINGS},
    {"rung-unseen", SIM_DEFECT_RUNG_UNSEEN, OF_SURROUNDINGS},
    {"word-early", SIM_DEFECT_WORD_EARLY, OF_SURROUNDINGS},
    {"left-unsaid", SIM_DEFECT_LEFT_UNSAID, OF_SURROUNDINGS},
    {"sleep-kept", SIM_DEFECT_SLEEP_KEPT, OF_SURROUNDINGS},
    {"reply-before-stable", GROUP_DEFECT_REPLY_BEFORE_STABLE, OF_GROUPS},
    {"report-before-wedge", GROUP_DEFECT_REPORT_BEFORE_WEDGE, OF_GROUPS},
    {"one-phase-unnumbered", GROUP_DEFECT_ONE_PHASE_UNNUMBERED, OF_GROUPS},
    {"never-rejoins", SIM_DEFECT_NEVER_REJOINS, OF_SURROUNDINGS},
    {"ring-reused", SIM_DEFECT_RING_REUSED, OF_SURROUNDINGS},
    {"watch-gap", MONITOR_DEFECT_WATCH_GAP, OF_MONITOR},
    {"ephemeral-kept", MONITOR_DEFECT_EPHEMERAL_KEPT, OF_MONITOR},
    {"read-stale", MONITOR_DEFECT_READ_STALE, OF_MONITOR},
    {"left-heard", MONITOR_DEFECT_LEFT_HEARD, OF_MONITOR},
    {"not-frozen", MONITOR_DEFECT_NOT_FROZEN, OF_MONITOR},
    {"no-lease", MONITOR_DEFECT_NO_LEASE, OF_MONITOR},
    {"lease-led", MONITOR_DEFECT_LEASE_LED, OF_MONITOR},
    {"reclaim-unfenced", MONITOR_DEFECT_RECLAIM_UNFENCED, OF_MONITOR},
    {"outcome-denied", MONITOR_DEFECT_OUTCOME_DENIED, OF_MONITOR},
};
#define DEFECTS (sizeof defects / sizeof defects[0])

typedef struct command_line {
    sim_options_t options;
    const char *check_history, *model, *steps;
    bool keep_going, help;
    sim_model_t model_read;
    char replay[2048];
} command_line_t;

static void print_help(void)
{
    printf("Usage: rackfish sim [OPTION]...\n\nSimulates a machine: the real agreement engine, on virtual "
           "time, with everything "
           "going wrong that can.\n\nOptions:\n");
    for (unsigned i = 0; i < TEXTS; i++) {
        char left[64];
        snprintf(left, sizeof left, "  --%s %s", texts[i].name, texts[i].argument ? texts[i].argument : "");
        printf("%-26s %s\n", left, texts[i].help);
    }
    printf("\n");
    sim_knobs_help(stdout);
    printf("\nDefects:");
    for (unsigned i = 0; i < DEFECTS; i++) printf(" %s", defects[i].name);
    printf("\n\nExit status: 0 all is well, 1 wrong usage, 3 unsafe: a property was violated, 4 stuck: no "
           "progress after the\n"
           "faults had stopped. Each failure says how to replay it.\n\n"
           "  rackfish sim --seeds 2000                                     as in ./check\n"
           "  rackfish sim --seeds 10000 --jobs 16 --keep-going             more; sim/nightly.py of the "
           "sources runs a night's\n"
           "  rackfish sim --actor monitor --ops 300 --seeds 1000           whole monitors\n"
           "  rackfish sim --actor monitor --ops 100 --monitors 2048 --hosts 32 --faults none    a large "
           "machine: 170 KiB a monitor\n"
           "  rackfish sim --actor monitor --monitors 16384 --hosts 256 --ops 100 --faults none --plan "
           "package --events-max 1000000000    the largest: 250 KiB a monitor\n"
           "  rackfish sim --monitors 16384 --hosts 256 --ops 100 --faults none --plan package --events-max "
           "1000000000    the largest of engines\n"
           "  rackfish sim --model amd-4x4 --monitors 3 --clients 1         latency of an ordered change\n");
}

static bool complain(const char *what, const char *value)
{
    fprintf(stderr, "rackfish sim: %s: %s\n", what, value);
    return false;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || errno || *end || value < min || value > max)
        return complain("not a number in its range", text);
    *out = value;
    return true;
}

static bool parse_unsigned(const char *text, uint64_t min, uint64_t max, unsigned *out)
{
    uint64_t value;
    if (!parse_number(text, min, max, &value)) return false;
    *out = (unsigned)value;
    return true;
}

static bool parse_weights(const char *text, agreement_weights_t *out)
{
    unsigned w[3];
    char after;
    if (sscanf(text, "%3u,%3u,%3u%c", &w[0], &w[1], &w[2], &after) != 3) return complain("no weights", text);
    for (unsigned i = 0; i < 3; i++) {
        if (w[i] < 1 || w[i] > AGREEMENT_WEIGHT_MAX) return complain("no weight from 1 to 64 in", text);
    }
    *out = (agreement_weights_t){(uint16_t)w[0], (uint16_t)w[1], (uint16_t)w[2]};
    return true;
}

static bool parse_plan(const char *text, sim_options_t *o)
{
    const char *name;
    for (int i = 0; (name = agreement_plan_name((unsigned)i)) != NULL; i++) {
        size_t n = strlen(name);
        bool weights = i == AGREEMENT_PLAN_WEIGHTED && text[0] == name[0] && strchr(text, ':') == text + n;
        if (strncmp(text, name, n) != 0 || (text[n] != '\0' && !weights)) continue;
        o->plan = i;
        return !weights || parse_weights(text + n + 1, &o->weights);
    }
    return complain("no such plan (broadcast, unicast, host, package, weighted, weighted:4,8,8)", text);
}

static bool parse_leases(const char *text, int *out)
{
    *out = strcmp(text, "on") == 0;
    return *out || strcmp(text, "off") == 0 || complain("neither on nor off", text);
}

static bool parse_defect(const char *text, sim_options_t *o)
{
    unsigned *const sets[] = {[OF_ENGINE] = &o->defects,
                              [OF_GROUPS] = &o->group_defects,
                              [OF_SURROUNDINGS] = &o->sim_defects,
                              [OF_MONITOR] = &o->monitor_defects};
    for (unsigned i = 0; i < DEFECTS; i++) {
        if (strcmp(text, defects[i].name) == 0) {
            *sets[defects[i].of] |= defects[i].bit;
            return true;
        }
    }
    return complain("no such defect", text);
}

static bool parse_trace(const char *text, sim_options_t *o)
{
    char copy[64];
    snprintf(copy, sizeof copy, "%s", text);
    char *colon = strchr(copy, ':');
    if (!colon) return complain("not FROM:TO", text);
    *colon = '\0';
    return parse_number(copy, 0, UINT64_MAX - 1, &o->trace_from) &&
           parse_number(colon + 1, 0, UINT64_MAX - 1, &o->trace_to);
}

/* A file, or a name: beside the program where it was built or installed. */
static bool read_model(command_line_t *line)
{
    char why[256], path[4096], self[2048];
    if (strchr(line->model, '/') || access(line->model, R_OK) == 0) {
        if (!sim_model_read(line->model, &line->model_read, why, sizeof why)) return complain("model", why);
        return true;
    }
    static const char *const places[] = {"../share/rackfish/models", "../../share/rackfish/models",
                                         "../../../sim/models"};
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%s/%s/%s.model", self, places[i], line->model);
        if (access(path, R_OK) != 0) continue;
        if (!sim_model_read(path, &line->model_read, why, sizeof why)) return complain("model", why);
        return true;
    }
    return complain("no model of that name", line->model);
}

static bool take_option(command_line_t *line, int id, const char *value)
{
    sim_options_t *o = &line->options;
    char why[256];
    switch (id) {
    case OPTION_SEED:
        return parse_number(value, 0, UINT64_MAX - 1, &o->seed);
    case OPTION_SEEDS:
        return parse_number(value, 1, UINT64_MAX - 1, &o->seeds);
    case OPTION_OPS:
        return parse_number(value, 1, 100000000, &o->operations);
    case OPTION_MONITORS:
        return parse_unsigned(value, 1, SIM_CORES_MAX, &o->monitors);
    case OPTION_HOSTS:
        return parse_unsigned(value, 1, SIM_HOSTS_MAX, &o->hosts);
    case OPTION_CLIENTS:
        return parse_unsigned(value, 1, SIM_CLIENTS_MAX, &o->clients);
    case OPTION_VOTERS:
        return parse_unsigned(value, 1, AGREEMENT_VOTERS_MAX, &o->voters);
    case OPTION_PLAN:
        return parse_plan(value, o);
    case OPTION_FAULTS:
        return sim_knobs_parse(value, &o->knobs, why, sizeof why) || complain("faults", why);
    case OPTION_MODEL:
        line->model = value;
        return true;
    case OPTION_DEFECT:
        return parse_defect(value, o);
    case OPTION_LEASES:
        return parse_leases(value, &o->leases);
    case OPTION_GROUPS:
        return o->groups = true;
    case OPTION_ONE_SIDED:
        return o->one_sided = true;
    case OPTION_ACTOR:
        o->groups = strcmp(value, "groups") == 0;
        o->whole = strcmp(value, "monitor") == 0;
        o->rdma = strcmp(value, "rdma") == 0;
        return o->groups || o->whole || o->rdma || strcmp(value, "engine") == 0 ||
               complain("no such actor", value);
    case OPTION_JOBS:
        return parse_unsigned(value, 1, JOBS_MAX, &o->jobs);
    case OPTION_KEEP_GOING:
        return line->keep_going = true;
    case OPTION_JSON:
        return o->json = true;
    case OPTION_TRACE:
        return parse_trace(value, o);
    case OPTION_HISTORY:
        o->history_path = value;
        return true;
    case OPTION_STEPS:
        line->steps = value;
        return true;
    case OPTION_CHECK_HISTORY:
        line->check_history = value;
        return true;
    case OPTION_EVENTS_MAX:
        return parse_number(value, 1, UINT64_MAX - 1, &o->events_max);
    case OPTION_HELP:
        return line->help = true;
    default:
        return false;
    }
}

/* Options that a replay needs again. */
static void remember(command_line_t *line, int id, const char *name, const char *value)
{
    static const int forgotten[] = {OPTION_SEED,       OPTION_SEEDS, OPTION_JOBS,
                                    OPTION_KEEP_GOING, OPTION_JSON,  OPTION_TRACE};
    for (unsigned i = 0; i < sizeof forgotten / sizeof forgotten[0]; i++) {
        if (id == forgotten[i]) return;
    }
    size_t used = strlen(line->replay);
    snprintf(line->replay + used, sizeof line->replay - used, "%s--%s%s%s", used ? " " : "", name,
             value ? " " : "", value ? value : "");
}

static sim_actor_kind_t actor_kind(const sim_options_t *o)
{
    return o->groups ? SIM_OF_GROUPS : o->whole ? SIM_OF_MONITOR : o->rdma ? SIM_OF_RDMA : SIM_OF_ENGINE;
}

/* The models know four cores, of which three vote, or hold the group. */
static bool take_steps(command_line_t *line)
{
    sim_options_t *o = &line->options;
    if (o->whole || o->rdma || o->one_sided || line->model)
        return complain("only for the actors engine and groups", "--steps");
    if (o->seeds != 1) return complain("of one seed only", "--steps");
    if ((o->monitors && o->monitors != STEPS_CORES) || (o->hosts && o->hosts != STEPS_CORES) ||
        (o->voters && o->voters != STEPS_MEMBERS))
        return complain("of 4 monitors on 4 hosts, 3 of which vote", "--steps");
    o->monitors = o->hosts = STEPS_CORES;
    o->voters = STEPS_MEMBERS;
    o->steps = fopen(line->steps, "w");
    return o->steps || complain("cannot be written", line->steps);
}

static bool parse(command_line_t *line, int argc, char **argv)
{
    struct option long_options[TEXTS + 1] = {0};
    for (unsigned i = 0; i < TEXTS; i++)
        long_options[i] = (struct option){texts[i].name, texts[i].argument ? required_argument : no_argument,
                                          NULL, texts[i].id};
    char why[256];
    bool faults = false;
    for (int id, index = 0; (id = getopt_long(argc, argv, "h", long_options, &index)) != -1;) {
        if (id == 'h') id = OPTION_HELP;
        if (id == '?' || !take_option(line, id, optarg)) return false;
        if (id != OPTION_HELP) remember(line, id, long_options[index].name, optarg);
        faults |= id == OPTION_FAULTS;
    }
    if (optind < argc) return complain("takes no argument", argv[optind]);
    if (line->model && !read_model(line)) return false;
    if (line->options.one_sided && (line->options.groups || line->options.rdma || line->model))
        return complain("only for the actors engine and monitor, without a model", "--one-sided");
    if (line->options.rdma && line->options.monitors > SIM_RDMA_CORES_MAX)
        return complain("too many sleepers in one run", "--monitors");
    if (line->options.rdma && line->model) return complain("there is no model for this actor", "rdma");
    if (line->model) line->options.model = &line->model_read;
    if (line->steps && !take_steps(line)) return false;
    if (!faults) sim_knobs_parse(line->model ? "none" : "default", &line->options.knobs, why, sizeof why);
    return sim_knobs_suit(&line->options.knobs, actor_kind(&line->options), why, sizeof why) ||
           complain("faults", why);
}

/* ---- running ---- */

static void on_abort(int signal_number)
{
    (void)signal_number;
    const sim_world_t *w = sim_current();
    if (w) {
        fprintf(stderr, "seed %llu: an assertion failed, or memory was misused, at event %llu\n",
                (unsigned long long)w->seed, (unsigned long long)w->n_events);
        sim_replay_hint(w, stderr);
    }
    fflush(NULL);
    _exit(SIM_UNSAFE);
}

typedef struct share { /* what one process has done */
    sim_statistics_t statistics;
    uint64_t hash, failed, first_failed;
    uint32_t verdict;
} share_t;

static void run_share(const command_line_t *line, unsigned from, unsigned step, share_t *share)
{
    const sim_options_t *o = &line->options;
    rf_histogram_reset(&share->statistics.latency);
    rf_histogram_reset(&share->statistics.learned);
    for (uint64_t i = from; i < o->seeds; i += step) {
        uint64_t hash;
        sim_verdict_t verdict = sim_run(o, o->seed + i, &share->statistics, &hash);
        share->hash ^= sim_mix(hash, i); /* whoever ran it */
        if (o->seeds == 1) share->hash = hash;
        if (verdict == SIM_OK) continue;
        if (share->failed++ == 0) share->first_failed = o->seed + i;
        if (share->verdict != SIM_UNSAFE) share->verdict = verdict;
        /* With a deliberate defect only what is unsafe counts. */
        bool deliberate = (o->defects | o->group_defects | o->sim_defects | o->monitor_defects) != 0;
        if (!line->keep_going && (!deliberate || verdict == SIM_UNSAFE)) break;
    }
}

static void merge(share_t *into, const share_t *from)
{
    sim_statistics_t *a = &into->statistics;
    const sim_statistics_t *b = &from->statistics;
    uint64_t *to = (uint64_t *)a;
    const uint64_t *add = (const uint64_t *)b;
    for (size_t i = 0; i < offsetof(sim_statistics_t, engine_bytes) / sizeof *to; i++) to[i] += add[i];
    if (b->engine_bytes > a->engine_bytes) a->engine_bytes = b->engine_bytes;
    if (b->formed_ns > a->formed_ns) a->formed_ns = b->formed_ns;
    if (b->resident_bytes > a->resident_bytes) a->resident_bytes = b->resident_bytes;
    if (b->monitor_bytes > a->monitor_bytes) a->monitor_bytes = b->monitor_bytes;
    rf_histogram_merge(&a->latency, &b->latency);
    rf_histogram_merge(&a->learned, &b->learned);
    if (from->failed > 0 && (into->failed == 0 || from->first_failed < into->first_failed))
        into->first_failed = from->first_failed;
    into->failed += from->failed;
    into->hash ^= from->hash;
    if (into->verdict != SIM_UNSAFE && from->verdict != SIM_OK) into->verdict = from->verdict;
}

static bool read_all(int fd, void *bytes, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, (char *)bytes + got, size - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        got += (size_t)n;
    }
    return true;
}

static void write_all(int fd, const void *bytes, size_t size)
{
    for (size_t put = 0; put < size;) {
        ssize_t n = write(fd, (const char *)bytes + put, size - put);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        put += (size_t)n;
    }
}

static bool run_jobs(const command_line_t *line, share_t *total)
{
    unsigned jobs = line->options.jobs;
    int pipes[JOBS_MAX];
    pid_t children[JOBS_MAX];
    for (unsigned j = 0; j < jobs; j++) {
        int ends[2];
        if (pipe(ends) < 0) return complain("pipe", strerror(errno));
        fflush(NULL);
        children[j] = fork();
        if (children[j] < 0) return complain("fork", strerror(errno));
        if (children[j] == 0) {
            share_t *mine = calloc(1, sizeof *mine);
            if (!mine) _exit(SIM_USAGE);
            run_share(line, j, jobs, mine);
            write_all(ends[1], mine, sizeof *mine);
            _exit(0);
        }
        close(ends[1]);
        pipes[j] = ends[0];
    }
    share_t *one = calloc(1, sizeof *one);
    for (unsigned j = 0; one && j < jobs; j++) {
        int status = 0;
        if (read_all(pipes[j], one, sizeof *one)) {
            merge(total, one);
        } else { /* an assertion, which has said so itself */
            total->verdict = SIM_UNSAFE;
            total->failed++;
        }
        close(pipes[j]);
        while (waitpid(children[j], &status, 0) < 0 && errno == EINTR)
            ;
    }
    free(one);
    return true;
}

static const char *verdict_text(unsigned verdict)
{
    return verdict == SIM_OK ? "ok" : verdict == SIM_STUCK ? "stuck" : "unsafe";
}

static void print_json(const share_t *t, double seconds)
{
    const sim_statistics_t *s = &t->statistics;
    printf("{\"verdict\":\"%s\",\"seeds\":%llu,\"failed\":%llu,\"events\":%llu,\"seconds\":%.3f,\"events_per_"
           "s\":%.0f,"
           "\"hash\":\"%016llx\",\"operations\":%llu,\"unknown\":%llu,\"refused\":%llu,\"reads\":%llu,"
           "\"messages\":%llu,"
           "\"faults\":%llu,\"crashes\":%llu,\"restarts\":%llu,\"elections\":%llu,\"views\":%llu,"
           "\"snapshots\":%llu,"
           "\"duplicates\":%llu,\"expulsions\":%llu,\"false_reports\":%llu,\"lost_machines\":%llu,"
           "\"undecided\":%llu,\"virtual_s\":%"
           ".3f,"
           "\"engine_bytes\":%llu,\"resident_bytes\":%llu,\"monitor_bytes\":%llu,\"cpu_s\":%.3f,"
           "\"latency_p50_ns\":%llu,\"latency_"
           "p99_ns\":%llu,\"learned_p50_ns\":%llu,\"learned_p99_ns\":%llu}\n",
           verdict_text(t->verdict), (unsigned long long)s->seeds, (unsigned long long)t->failed,
           (unsigned long long)s->events, seconds, (double)s->events / seconds, (unsigned long long)t->hash,
           (unsigned long long)s->operations, (unsigned long long)s->unknown, (unsigned long long)s->refused,
           (unsigned long long)s->reads, (unsigned long long)s->messages, (unsigned long long)s->faults,
           (unsigned long long)s->crashes, (unsigned long long)s->restarts, (unsigned long long)s->elections,
           (unsigned long long)s->views, (unsigned long long)s->snapshots, (unsigned long long)s->duplicates,
           (unsigned long long)s->expulsions, (unsigned long long)s->false_reports,
           (unsigned long long)s->lost_machines, (unsigned long long)s->undecided,
           (double)s->virtual_ns / 1e9, (unsigned long long)s->engine_bytes,
           (unsigned long long)s->resident_bytes, (unsigned long long)s->monitor_bytes,
           (double)s->cpu_ns / 1e9, (unsigned long long)rf_histogram_percentile(&s->latency, 50),
           (unsigned long long)rf_histogram_percentile(&s->latency, 99),
           (unsigned long long)rf_histogram_percentile(&s->learned, 50),
           (unsigned long long)rf_histogram_percentile(&s->learned, 99));
}

static void print_text(const command_line_t *line, const share_t *t, double seconds)
{
    const sim_statistics_t *s = &t->statistics;
    printf("%llu seeds: %s (%llu failed); %llu events in %.2f s, %.2f M/s of a CPU's time; hash %016llx\n",
           (unsigned long long)s->seeds, verdict_text(t->verdict), (unsigned long long)t->failed,
           (unsigned long long)s->events, seconds, (double)s->events / ((double)s->cpu_ns / 1e3 + 1e-9),
           (unsigned long long)t->hash);
    printf("%llu operations (%llu unknown, %llu refused), %llu linearizable reads, %llu duplicates seen\n",
           (unsigned long long)s->operations, (unsigned long long)s->unknown, (unsigned long long)s->refused,
           (unsigned long long)s->reads, (unsigned long long)s->duplicates);
    printf("%llu faults, %llu crashes, %llu restarts, %llu elections, %llu views, %llu snapshots, %llu "
           "expulsions, %llu machines "
           "lost, %llu histories undecided\n",
           (unsigned long long)s->faults, (unsigned long long)s->crashes, (unsigned long long)s->restarts,
           (unsigned long long)s->elections, (unsigned long long)s->views, (unsigned long long)s->snapshots,
           (unsigned long long)s->expulsions, (unsigned long long)s->lost_machines,
           (unsigned long long)s->undecided);
    printf("%.3f s of virtual time, %llu messages, %llu bytes an engine\n", (double)s->virtual_ns / 1e9,
           (unsigned long long)s->messages, (unsigned long long)s->engine_bytes);
    if (!line->options.model)
        printf("faults that mean nothing to this actor, and were left out: %s\n",
               sim_knobs_absent(actor_kind(&line->options)));
    if (line->options.whole)
        printf("%llu false reports of a healthy member's silence, each heard by a monitor\n",
               (unsigned long long)s->false_reports);
    if (line->options.one_sided)
        printf("%llu writes into lanes, %llu revocations, %llu writes that were torn by one\n",
               (unsigned long long)s->lane_writes, (unsigned long long)s->lane_cuts,
               (unsigned long long)s->lane_torn);
    if (s->resident_bytes > 0)
        printf("%llu bytes of memory in use a monitor at the peak, with all that the simulator holds; formed "
               "after %.3f s\n",
               (unsigned long long)s->resident_bytes, (double)s->formed_ns / 1e9);
    if (s->monitor_bytes > 0)
        printf("%llu bytes of them are what a whole monitor touches, on average\n",
               (unsigned long long)s->monitor_bytes);
    const sim_model_t *m = line->options.model;
    if (!m) return;
    printf("%s (%s): ordered change p50 %llu ns, p99 %llu ns; %.3f M/s\n", m->name, m->machine,
           (unsigned long long)rf_histogram_percentile(&s->latency, 50),
           (unsigned long long)rf_histogram_percentile(&s->latency, 99),
           (double)s->operations / ((double)s->work_ns / 1e9) / 1e6);
    printf("applied by the last of %u members p50 %llu ns, p99 %llu ns after the first\n",
           line->options.monitors ? line->options.monitors : 3,
           (unsigned long long)rf_histogram_percentile(&s->learned, 50),
           (unsigned long long)rf_histogram_percentile(&s->learned, 99));
}

static int check_history(const char *path)
{
    char why[512];
    sim_history_t history;
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "r");
    if (!in) {
        complain("cannot be opened", path);
        return SIM_USAGE;
    }
    bool ok = sim_history_read(&history, in, why, sizeof why);
    if (in != stdin) fclose(in);
    int status = SIM_USAGE;
    if (!ok) {
        complain(path, why);
    } else {
        switch (check_linearizable(&history, 200000000, why, sizeof why)) {
        case SIM_LINEARIZABLE:
            printf("%zu operations: linearizable\n", history.n);
            status = SIM_OK;
            break;
        case SIM_NOT_LINEARIZABLE:
            printf("%zu operations: not linearizable: %s\n", history.n, why);
            status = SIM_UNSAFE;
            break;
        case SIM_UNDECIDED:
            printf("%zu operations: undecided: %s\n", history.n, why);
            status = SIM_STUCK;
            break;
        }
    }
    sim_history_free(&history);
    return status;
}

int main(int argc, char **argv)
{
    static command_line_t line;
    line.options = (sim_options_t){.seed = 1,
                                   .seeds = 1,
                                   .operations = 1000,
                                   .jobs = 1,
                                   .plan = -1,
                                   .leases = -1,
                                   .events_max = 50000000};
    if (!parse(&line, argc, argv)) return SIM_USAGE;
    if (line.help) {
        print_help();
        return SIM_OK;
    }
    if (line.check_history) return check_history(line.check_history);
    line.options.replay = line.replay;
    struct sigaction on = {.sa_handler = on_abort};
    sigaction(SIGABRT, &on, NULL);
    sigaction(SIGSEGV, &on, NULL);
    sigaction(SIGBUS, &on, NULL);
    static share_t total;
    rf_histogram_reset(&total.statistics.latency);
    rf_histogram_reset(&total.statistics.learned);
    uint64_t started_ns = rf_clock_ns();
    if (line.options.jobs > 1) {
        if (!run_jobs(&line, &total)) return SIM_USAGE;
    } else {
        run_share(&line, 0, 1, &total);
    }
    if (line.options.steps && fclose(line.options.steps) != 0) complain("cannot be written", line.steps);
    double seconds = (double)(rf_clock_ns() - started_ns) / 1e9;
    if (line.options.json)
        print_json(&total, seconds);
    else
        print_text(&line, &total, seconds);
    return (int)total.verdict;
}
