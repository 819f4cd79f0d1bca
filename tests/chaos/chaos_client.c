/*
 * One client of chaos_test.sh: it changes and reads keys of the registry through one host after the other, and writes what it
 * did and saw as a history (doc/history.md).
 *
 *   chaos_client work CLIENT SEED KEYS ROUND-FILE HISTORY NODE-SOCKET...   until SIGTERM
 *   chaos_client read CLIENT KEYS FIRST LAST HISTORY NODE-SOCKET...        each key of these rounds once; 1: one cannot be read
 *   chaos_client keep HISTORY                                              elsewhere, for a client that may be lost
 *
 * HISTORY "-" is for a client on a host that may be lost with it, a guest of the lab. Its history goes to stdout, and a
 * comment line "# under way: " with each operation precedes its call: the call is made when `keep`, which writes all lines
 * into a file at once, has answered that line on stdin. So no operation takes effect that the file does not know of, and one
 * whose line of return never came is without a known outcome. Times are then ticks of the time stamp counter, which the
 * guests of a lab and its host share, whatever their clocks say; that they do is seen at each answer, which holds the
 * keeper's counter: it must be between the client's before and after. 3: it was not, and there is no common clock.
 *
 * The keys of round R are chaos/R/0 to chaos/R/KEYS-1; ROUND-FILE says which round it is. Each value is written once in the
 * whole history. One operation at a time: its call is noted before the first byte of the request is sent, its return after
 * the last of the reply has come. An outcome is unknown unless the reply says what happened, or by its error (rackfish/error.h)
 * that nothing did.
 */
#include "base/clock.h"
#include "base/prng.h"
#include "cli/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define KEYS_MAX        16
#define VALUE_ROOM      64
#define CONNECT_MS      1000
#define ANSWER_MS       3000
#define THINK_MS_MAX    30
#define PAUSE_MS        100 /* after an error, so that what is unknown stays checkable */
#define READ_TRIES_MAX  30
#define NO_COMMON_CLOCK 3
#define UNDER_WAY       "# under way: "

typedef enum what { GET, PUT, CAS, DELETE } what_t;

static const char *const what_names[] = {"get", "put", "cas", "delete"};

typedef struct chaos {
    unsigned client, n_keys, n_nodes, node;
    char **sockets;
    client_t link;          /* fd -1: not connected */
    bool may_be_lost, torn; /* torn: from the keeper, or its counter from ours */
    rf_prng_t prng;
    FILE *history;
    uint64_t sequence, round, values;
    char seen[KEYS_MAX][VALUE_ROOM]; /* of each key of this round, what this client saw last; "": nothing */
} chaos_t;

static volatile sig_atomic_t ended;

static void on_term(int number)
{
    (void)number;
    ended = 1;
}

static bool connected(chaos_t *c)
{
    char why[256];
    if (c->link.fd >= 0) return true;
    c->sequence = 0;
    return client_connect(&c->link, c->sockets[c->node], CONNECT_MS, why, sizeof why) == RF_OK;
}

/* The next operation goes through another host. */
static void move_on(chaos_t *c)
{
    client_close(&c->link);
    c->node = (c->node + 1 + (unsigned)rf_prng_below(&c->prng, c->n_nodes)) % c->n_nodes;
}

/* What the reply means in the history's words, in `result`. False: the connection is of no use any more. */
static bool result_of(what_t what, rf_err_t err, const reply_t *reply, char *result)
{
    const char *word = "?";
    if (err == RF_OK) err = reply->err < RF_ERR_COUNT ? (rf_err_t)reply->err : RF_ERR_PROTOCOL;
    bool registry = reply && reply->kind_case == RACKFISH__CONTROL_REPLY__KIND_REGISTRY;
    if (err == RF_OK && registry && what == GET) {
        const Rackfish__RegistryReply *r = reply->registry;
        snprintf(result, VALUE_ROOM, "%.*s", r->n_entries ? (int)r->entries[0]->value.len : 4,
                 r->n_entries ? (const char *)r->entries[0]->value.data : "none");
        return true;
    }
    if (err == RF_OK && registry)
        word = "ok";
    else if (what == CAS && (err == RF_ERR_BUSY || err == RF_ERR_EXISTS || err == RF_ERR_NOT_FOUND))
        word = "no";
    else if (what == DELETE && err == RF_ERR_NOT_FOUND)
        word = "none";
    else if (what == GET && err == RF_ERR_NOT_FOUND)
        word = "none";
    else if (what == GET || err == RF_ERR_NO_QUORUM || err == RF_ERR_AGAIN || err == RF_ERR_LIMIT ||
             err == RF_ERR_SESSION || err == RF_ERR_FORMING || err == RF_ERR_LOST)
        word = "failed";
    snprintf(result, VALUE_ROOM, "%s", word);
    return err != RF_ERR_TIMEOUT && err != RF_ERR_CLOSED && err != RF_ERR_SESSION && err != RF_ERR_PROTOCOL;
}

static ProtobufCBinaryData text(char *word)
{
    return (ProtobufCBinaryData){.data = (uint8_t *)word, .len = strlen(word)};
}

/* Not before what was done before. */
static uint64_t counter(void)
{
#if defined(__x86_64__)
    __builtin_ia32_lfence();
#endif
    return rf_clock_ticks();
}

static uint64_t now(const chaos_t *c)
{
    return c->may_be_lost ? counter() : rf_clock_ns();
}

/* The keeper knows of the operation that this line is about. False: it does not, and nothing may be asked any more. */
static bool is_kept(chaos_t *c, const char *words)
{
    char answer[32];
    uint64_t before = counter(), there, after;
    if (!c->may_be_lost) return true;
    fprintf(c->history, UNDER_WAY "%u %" PRIu64 " - %s ?\n", c->client, before, words);
    c->torn = fgets(answer, sizeof answer, stdin) == NULL;
    if (c->torn) return false;
    after = counter();
    there = strtoull(answer, NULL, 10);
    c->torn = there < before || there > after;
    if (!c->torn) return true;
    fprintf(stderr, "no common clock: %" PRIu64 " elsewhere between %" PRIu64 " and %" PRIu64 " here\n",
            there, before, after);
    return false;
}

/* One operation, from its call to its line in the history. False: it failed, or nobody knows; wait a little. */
static bool operate(chaos_t *c, what_t what, char *key, char *expected, char *value, char *result)
{
    if (!connected(c)) return false;
    Rackfish__RegistryRequest r;
    rackfish__registry_request__init(&r);
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_REGISTRY;
    request.registry = &r;
    r.name = key;
    r.what = what == GET      ? RACKFISH__REGISTRY_WHAT__REGISTRY_GET
             : what == DELETE ? RACKFISH__REGISTRY_WHAT__REGISTRY_DELETE
                              : RACKFISH__REGISTRY_WHAT__REGISTRY_PUT;
    r.linearizable = what == GET;
    if (what != GET) r.sequence = ++c->sequence;
    if (what == PUT || what == CAS) r.value = text(value);
    if (what == CAS && expected[0]) {
        r.condition = RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_VALUE;
        r.compare = text(expected);
    } else if (what == CAS) {
        r.condition = RACKFISH__REGISTRY_CONDITION__REGISTRY_IF_ABSENT;
    }

    char argument[2 * VALUE_ROOM + 2] = "-", returned[24] = "-";
    if (what == PUT) snprintf(argument, sizeof argument, "%s", value);
    if (what == CAS) snprintf(argument, sizeof argument, "%s>%s", expected[0] ? expected : "none", value);
    char words[sizeof argument + VALUE_ROOM + 16];
    snprintf(words, sizeof words, "%s %s %s", what_names[what], key, argument);
    if (!is_kept(c, words)) return false;
    reply_t *reply = NULL;
    uint64_t called = now(c), deadline_ns = rf_clock_ns() + ANSWER_MS * RF_NS_PER_MS;
    uint64_t id = client_queue(&c->link, &request);
    rf_err_t err = id ? RF_OK : RF_ERR_NO_MEMORY;
    while (err == RF_OK && !reply) {
        err = client_receive(&c->link, deadline_ns, &reply);
        if (err == RF_OK && reply->id != id) {
            client_reply_free(reply);
            reply = NULL;
        }
    }
    uint64_t ended_at = now(c);
    bool usable = result_of(what, err, reply, result);
    if (reply) client_reply_free(reply);

    if (result[0] != '?') snprintf(returned, sizeof returned, "%" PRIu64, ended_at);
    fprintf(c->history, "%u %" PRIu64 " %s %s %s\n", c->client, called, returned, words, result);
    if (!usable) move_on(c);
    return result[0] != '?' && strcmp(result, "failed") != 0;
}

static void follow_round(chaos_t *c, int round_fd)
{
    char digits[24] = "";
    ssize_t n = pread(round_fd, digits, sizeof digits - 1, 0);
    uint64_t round = n > 0 ? strtoull(digits, NULL, 10) : 0;
    if (round == 0 || round == c->round) return;
    c->round = round;
    memset(c->seen, 0, sizeof c->seen);
}

/* A random operation on a random key of the round. */
static bool step(chaos_t *c)
{
    char key[VALUE_ROOM], value[VALUE_ROOM], result[VALUE_ROOM];
    unsigned k = (unsigned)rf_prng_below(&c->prng, c->n_keys), dice = (unsigned)rf_prng_below(&c->prng, 10);
    what_t what = dice < 4 ? GET : dice < 6 ? PUT : dice < 9 ? CAS : DELETE;
    snprintf(key, sizeof key, "chaos/%llu/%u", (unsigned long long)c->round, k);
    snprintf(value, sizeof value, "%u.%llu", c->client, (unsigned long long)++c->values);
    bool fine = operate(c, what, key, c->seen[k], value, result);
    if (!fine) return false;
    if (what == GET)
        snprintf(c->seen[k], VALUE_ROOM, "%s", strcmp(result, "none") == 0 ? "" : result);
    else if (what == DELETE)
        c->seen[k][0] = 0;
    else if (strcmp(result, "ok") == 0)
        snprintf(c->seen[k], VALUE_ROOM, "%s", value);
    return true;
}

static int work(chaos_t *c, const char *round_path)
{
    int round_fd = open(round_path, O_RDONLY | O_CLOEXEC);
    if (round_fd < 0) return 2;
    while (!ended && !c->torn) {
        follow_round(c, round_fd);
        bool fine = step(c);
        if (!fine && rf_prng_below(&c->prng, 3) == 0) move_on(c);
        poll(NULL, 0, fine ? (int)rf_prng_below(&c->prng, THINK_MS_MAX) : PAUSE_MS);
    }
    close(round_fd);
    return c->torn && !ended ? NO_COMMON_CLOCK : 0;
}

static int read_all(chaos_t *c, uint64_t first, uint64_t last)
{
    for (c->round = first; c->round <= last; c->round++) {
        for (unsigned k = 0; k < c->n_keys; k++) {
            char key[VALUE_ROOM], result[VALUE_ROOM];
            unsigned tries = 0;
            snprintf(key, sizeof key, "chaos/%llu/%u", (unsigned long long)c->round, k);
            while (!operate(c, GET, key, NULL, NULL, result)) {
                if (++tries == READ_TRIES_MAX) {
                    fprintf(stderr, "%s cannot be read through %s\n", key, c->sockets[c->node]);
                    return 1;
                }
                poll(NULL, 0, PAUSE_MS);
            }
            move_on(c);
        }
    }
    return 0;
}

/* Keeps what a client elsewhere did and saw: each line, before the next is read. A line that its end did not reach is none. */
static int keep(const char *path)
{
    char line[512];
    FILE *history = fopen(path, "ae");
    if (!history) {
        perror(path);
        return 2;
    }
    while (fgets(line, sizeof line, stdin) && strchr(line, '\n')) {
        if (fputs(line, history) < 0 || fflush(history) != 0) return 2;
        if (strncmp(line, UNDER_WAY, strlen(UNDER_WAY)) != 0) continue;
        if (printf("%" PRIu64 "\n", counter()) < 0 || fflush(stdout) != 0) break;
    }
    return fclose(history) == 0 ? 0 : 2;
}

static uint64_t number(const char *word)
{
    return strtoull(word, NULL, 10);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "keep") == 0) return keep(argv[2]);
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* also when the test is killed */
    bool works = argc > 7 && strcmp(argv[1], "work") == 0;
    if (!works && (argc < 8 || strcmp(argv[1], "read") != 0)) return 2;
    chaos_t c = {.client = (unsigned)number(argv[2]),
                 .n_keys = (unsigned)number(argv[works ? 4 : 3]),
                 .n_nodes = (unsigned)argc - 7,
                 .sockets = argv + 7,
                 .link = {.fd = -1}};
    if (c.n_keys == 0 || c.n_keys > KEYS_MAX) return 2;
    rf_prng_seed(&c.prng, (works ? number(argv[3]) : 1) * 64 + c.client);
    c.node = c.client % c.n_nodes;
    c.may_be_lost = strcmp(argv[6], "-") == 0;
    c.history = c.may_be_lost ? stdout : fopen(argv[6], "ae");
    if (!c.history) {
        perror(argv[6]);
        return 2;
    }
    setvbuf(c.history, NULL, _IOLBF, 0); /* who is killed loses no line */
    int status = works ? work(&c, argv[5]) : read_all(&c, number(argv[4]), number(argv[5]));
    client_close(&c.link);
    if (fclose(c.history) != 0) return 2;
    return status;
}
