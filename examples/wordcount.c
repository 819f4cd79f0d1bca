/*
 * Counts the words of a tree of files with every core of the machine, on all its hosts.
 *
 *     rackfish run --core 0 -- wordcount [--check-against N] PATH...
 *
 * Dispatcher 0 spans this domain to every other core that is up. It reads the files and deals the text itself out, in pieces, as a
 * stream of bytes on each worker's channel; workers need no file system in common. They count and answer with a message.
 * Dispatcher 0 counts pieces too, when the workers have enough to do.
 *
 *   coordinator                               worker
 *     PIECE {number, bytes, inside a word} ──►
 *     text, on stream 0 ═════════════════════► counts
 *                      ◄── COUNTED {number, words}
 *
 * One thread a worker deals and listens; they share a bounded pool of pieces. A piece is kept until it is counted: when a worker
 * dies, what it had is dealt to others.
 *
 * A word is what `LC_ALL=C wc -w` counts: a run between white space with at least one printable character. Pieces are cut
 * at white space; where there is none for a whole piece, the next one is told whether it begins inside a word.
 */
#include <rackfish.h>

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES   (256u << 10)
#define PIECES_MAX    256 /* in the pool, at most */
#define PIECES_A_CORE 4   /* dealt to one worker and not yet answered */
#define STREAM_BYTES  (1u << 20)
#define CORES_MAX     RF_DISPATCHERS_PER_DOMAIN_MAX
#define START_MS      15000 /* for a worker to start and connect */
#define WORKERS_MS    5000  /* so long dealing waits for all workers to be there */
#define ANSWER_MS     60000 /* for a piece to be counted */
#define STACK_BYTES   (256u << 10)

enum { MESSAGE_PIECE = 1, MESSAGE_COUNTED = 2 };

typedef struct piece_message {
    uint64_t number;
    uint32_t bytes;
    uint32_t inside; /* the piece begins inside a word that is counted already */
} piece_message_t;

typedef struct counted_message {
    uint64_t number, words;
} counted_message_t;

/* ---- counting ---- */

enum { NEUTRAL, PRINTABLE, SPACE };
static uint8_t class_of[256];

static void make_classes(void)
{
    for (unsigned c = '!'; c <= '~'; c++) class_of[c] = PRINTABLE;
    for (const char *c = " \t\n\v\f\r"; *c; c++) class_of[(uint8_t)*c] = SPACE;
}

/* Words that begin in `text`; `*inside` goes on from and to the neighbouring text. */
static uint64_t count_words(const uint8_t *text, size_t size, bool *inside)
{
    uint64_t words = 0;
    unsigned in = *inside;
    for (size_t i = 0; i < size; i++) {
        unsigned c = class_of[text[i]];
        words += (c == PRINTABLE) & !in;
        in = (in | (c == PRINTABLE)) & (c != SPACE);
    }
    *inside = in;
    return words;
}

static int fail(const char *what, rf_err_t err)
{
    fprintf(stderr, "wordcount: %s: %s%s%s\n", what, rf_err_text(err), *rf_reason() ? ": " : "", rf_reason());
    return 2;
}

/* ---- a worker ---- */

static rf_err_t count_piece(rf_channel_stream_t *stream, const piece_message_t *piece, uint64_t *words)
{
    bool inside = piece->inside;
    uint32_t left = piece->bytes;
    *words = 0;
    while (left > 0) {
        const void *bytes;
        size_t size;
        rf_err_t err = rf_channel_stream_peek(stream, &bytes, &size, rf_deadline_ms(ANSWER_MS));
        if (err != RF_OK) return err;
        if (size > left) size = left;
        *words += count_words(bytes, size, &inside);
        rf_channel_stream_consume(stream, size);
        left -= (uint32_t)size;
    }
    return RF_OK;
}

static int work(void)
{
    rf_channel_t *channel;
    rf_channel_stream_t *stream;
    rf_err_t err = rf_connect_dispatcher(rf_self()->domain, 0, NULL, &channel, rf_deadline_ms(START_MS));
    if (err != RF_OK) return fail("no way to the coordinator", err);
    err = rf_channel_stream_open(channel, 0, STREAM_BYTES, &stream);
    if (err != RF_OK) return fail("no stream", err);
    piece_message_t piece;
    rf_message_t message = {.bytes = &piece, .room = sizeof piece};
    while ((err = rf_channel_receive(channel, &message, RF_NEVER)) == RF_OK) {
        counted_message_t counted = {.number = piece.number};
        err = count_piece(stream, &piece, &counted.words);
        if (err == RF_OK)
            err = rf_channel_send(channel, MESSAGE_COUNTED, &counted, sizeof counted,
                                  rf_deadline_ms(ANSWER_MS));
        if (err != RF_OK) break;
    }
    rf_finish();
    return err == RF_ERR_CLOSED ? 0 : fail("the coordinator is gone", err);
}

/* ---- the coordinator: pieces ---- */

typedef struct piece {
    struct piece *next;
    uint64_t number;
    uint32_t bytes, text_bytes; /* with and without what separates files */
    bool inside;
    uint8_t text[PIECE_BYTES];
} piece_t;

typedef struct share {
    rf_core_t core;
    uint64_t bytes, words, pieces;
    bool died;
} share_t;

static struct {
    piece_t *free, *ready, *ready_last;
    unsigned n_pieces;       /* in the pool, wherever they are */
    unsigned n_ready, n_out; /* waiting to be dealt; dealt and not yet counted */
    unsigned n_hungry;       /* workers waiting for a piece */
    uint64_t count;
    bool all_read; /* no more will come */
    rf_mutex_t mutex;
    rf_condition_t changed;
    share_t shares[CORES_MAX];
    unsigned n_shares;
    unsigned n_spanned; /* workers that were started */
    bool spanned;       /* ... and no more will be */
    uint64_t files, unreadable, words, bytes;
    unsigned dead_workers, redealt;
} pool;

static void ready_push(piece_t *piece, bool first)
{
    piece->next = first ? pool.ready : NULL;
    if (first)
        pool.ready = piece;
    else if (pool.ready_last)
        pool.ready_last->next = piece;
    else
        pool.ready = piece;
    if (!piece->next) pool.ready_last = piece;
    pool.n_ready++;
    rf_condition_broadcast(&pool.changed);
}

static piece_t *ready_pop(void)
{
    piece_t *piece = pool.ready;
    if (!piece) return NULL;
    pool.ready = piece->next;
    if (!pool.ready) pool.ready_last = NULL;
    pool.n_ready--;
    pool.n_out++;
    return piece;
}

/* Everything has been read and counted. */
static bool finished(void)
{
    return pool.all_read && pool.n_ready == 0 && pool.n_out == 0;
}

static void wait_change(void)
{
    rf_mutex_lock(&pool.mutex, RF_NEVER);
    rf_condition_wait(&pool.changed, &pool.mutex, rf_deadline_ms(100));
    rf_mutex_unlock(&pool.mutex);
}

static void piece_counted(piece_t *piece, share_t *share, uint64_t words)
{
    share->bytes += piece->text_bytes;
    share->words += words;
    share->pieces++;
    pool.words += words;
    pool.bytes += piece->text_bytes;
    pool.n_out--;
    piece->next = pool.free;
    pool.free = piece;
    rf_condition_broadcast(&pool.changed);
}

static void count_locally(share_t *own)
{
    piece_t *piece = ready_pop();
    bool inside = piece->inside;
    uint64_t words = count_words(piece->text, piece->bytes, &inside);
    piece_counted(piece, own, words);
}

/* An empty piece; until one is free, this core counts what the workers have no hands for. */
static piece_t *piece_take(share_t *own)
{
    for (;;) {
        piece_t *piece = pool.free;
        if (piece) {
            pool.free = piece->next;
        } else if (pool.n_pieces < PIECES_MAX && pool.n_ready < pool.n_shares * 2 &&
                   (piece = malloc(sizeof *piece))) {
            pool.n_pieces++;
        } else if (pool.n_ready > 0 && pool.n_hungry == 0) {
            count_locally(own);
            rf_thread_yield();
            continue;
        } else {
            wait_change();
            continue;
        }
        piece->number = pool.count++;
        piece->bytes = piece->text_bytes = 0;
        piece->inside = false;
        return piece;
    }
}

/* ---- the coordinator: one thread a worker ---- */

typedef struct worker {
    rf_channel_t *channel;
    rf_channel_stream_t *stream;
    share_t *share;
    piece_t *out[PIECES_A_CORE]; /* dealt, in order */
    unsigned n_out;
} worker_t;

static rf_err_t deal(worker_t *worker, piece_t *piece)
{
    worker->out[worker->n_out++] = piece;
    piece_message_t message = {.number = piece->number, .bytes = piece->bytes, .inside = piece->inside};
    rf_err_t err =
        rf_channel_send(worker->channel, MESSAGE_PIECE, &message, sizeof message, rf_deadline_ms(ANSWER_MS));
    if (err == RF_OK)
        err = rf_channel_stream_write(worker->stream, piece->text, piece->bytes, NULL,
                                      rf_deadline_ms(ANSWER_MS));
    return err;
}

/* Takes one answer; answers come in the order the pieces were dealt. */
static rf_err_t hear(worker_t *worker)
{
    counted_message_t counted;
    rf_message_t message = {.bytes = &counted, .room = sizeof counted};
    rf_err_t err = rf_channel_receive(worker->channel, &message, rf_deadline_ms(ANSWER_MS));
    if (err != RF_OK) return err;
    piece_t *piece = worker->out[0];
    if (message.type != MESSAGE_COUNTED || message.size != sizeof counted || counted.number != piece->number)
        return RF_ERR_PROTOCOL;
    worker->n_out--;
    memmove(worker->out, worker->out + 1, worker->n_out * sizeof worker->out[0]);
    piece_counted(piece, worker->share, counted.words);
    return RF_OK;
}

static void *feed(void *argument)
{
    worker_t worker = {.channel = argument};
    rf_channel_info_t info;
    rf_channel_info(worker.channel, &info);
    worker.share = &pool.shares[pool.n_shares++];
    *worker.share = (share_t){.core = info.core};
    rf_condition_broadcast(&pool.changed);
    rf_err_t err = rf_channel_stream_open(worker.channel, 0, STREAM_BYTES, &worker.stream);
    while (err == RF_OK && (!finished() || worker.n_out > 0)) {
        if (worker.n_out < PIECES_A_CORE && pool.n_ready > 0) {
            err = deal(&worker, ready_pop());
        } else if (worker.n_out > 0) {
            err = hear(&worker);
        } else {
            pool.n_hungry++;
            wait_change();
            pool.n_hungry--;
        }
    }
    if (err != RF_OK) {
        fprintf(stderr, "wordcount: the worker on core %u is gone (%s): dealing its %u pieces again\n",
                info.core, rf_err_text(err), worker.n_out);
        worker.share->died = true;
        pool.dead_workers++;
        pool.redealt += worker.n_out;
        while (worker.n_out > 0) {
            pool.n_out--;
            ready_push(worker.out[--worker.n_out], true);
        }
    }
    rf_channel_close(worker.channel);
    return NULL;
}

/* Starts a feeding thread for every worker that comes. */
static void *welcome(void *argument)
{
    rf_export_t *door = argument;
    rf_thread_t *feeders[CORES_MAX];
    unsigned n = 0;
    while (!finished() && n < CORES_MAX - 1) {
        rf_channel_t *channel;
        rf_err_t err = rf_accept(door, &channel, rf_deadline_ms(100));
        if (err == RF_OK && rf_thread_create(feed, channel, STACK_BYTES, &feeders[n]) == RF_OK)
            n++;
        else if (err == RF_OK)
            rf_channel_close(channel);
        else if (err != RF_ERR_TIMEOUT)
            break;
    }
    for (unsigned i = 0; i < n; i++) rf_thread_join(feeders[i], NULL, RF_NEVER);
    return NULL;
}

/* One domain over all cores that are up. */
static void *span_all(void *argument)
{
    rf_core_info_t cores[RF_CORES_MAX > 256 ? 256 : RF_CORES_MAX];
    rf_operation_t *spans[CORES_MAX];
    rf_core_t where[CORES_MAX];
    unsigned n_cores, n = 0;
    rf_err_t err =
        rf_core_list(0, cores, sizeof cores / sizeof cores[0], &n_cores, NULL, rf_deadline_ms(5000));
    if (err != RF_OK) {
        fail("no list of cores", err);
        n_cores = 0;
    }
    for (unsigned i = 0; i < n_cores && n < CORES_MAX - 1; i++) {
        if (cores[i].core == rf_self()->core || cores[i].state != RF_CORE_STATE_UP) continue;
        while ((err = rf_span_begin(cores[i].core, NULL, 0, &spans[n])) == RF_ERR_AGAIN)
            rf_thread_sleep(rf_deadline_ms(1)); /* the monitor has much to do */
        if (err == RF_OK)
            where[n++] = cores[i].core;
        else
            fail("span", err);
    }
    for (unsigned i = 0; i < n; i++) {
        err = rf_operation_wait(spans[i], NULL, rf_deadline_ms(START_MS));
        pool.n_spanned += err == RF_OK;
        if (err == RF_OK) continue;
        fprintf(stderr, "wordcount: core %u cannot take part: %s %s\n", where[i], rf_err_text(err),
                rf_reason());
        if (err == RF_ERR_TIMEOUT) rf_operation_cancel(spans[i]);
    }
    pool.spanned = true;
    rf_condition_broadcast(&pool.changed);
    return argument;
}

/* ---- the coordinator: reading ---- */

typedef struct reader {
    piece_t *piece; /* being filled, or NULL */
    share_t *own;
} reader_t;

static void piece_send(reader_t *reader)
{
    if (reader->piece) ready_push(reader->piece, false);
    reader->piece = NULL;
    rf_thread_yield(); /* workers get it, and their answers are taken */
}

/* Cuts a full piece behind its last white space and takes what follows into the next. */
static void piece_cut(reader_t *reader)
{
    piece_t *full = reader->piece;
    uint32_t cut = full->bytes;
    while (cut > 0 && class_of[full->text[cut - 1]] != SPACE) cut--;
    bool inside = full->inside;
    if (cut == 0) { /* one endless word, or none: tell the next piece */
        cut = full->bytes;
        (void)count_words(full->text, full->bytes, &inside);
    } else {
        inside = false;
    }
    piece_t *next = piece_take(reader->own);
    next->bytes = next->text_bytes = full->bytes - cut;
    next->inside = inside;
    memcpy(next->text, full->text + cut, next->bytes);
    full->text_bytes -= next->bytes;
    full->bytes = cut;
    reader->piece = full;
    piece_send(reader);
    reader->piece = next;
}

static void read_file(reader_t *reader, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        fprintf(stderr, "wordcount: %s: %s\n", path, strerror(errno));
        pool.unreadable++;
        return;
    }
    pool.files++;
    /* A file begins outside any word: what separates it from the one before counts as nobody's text. */
    if (reader->piece && reader->piece->bytes == PIECE_BYTES) piece_send(reader);
    if (reader->piece && reader->piece->bytes > 0) reader->piece->text[reader->piece->bytes++] = '\n';
    for (;;) {
        if (!reader->piece) reader->piece = piece_take(reader->own);
        if (reader->piece->bytes == PIECE_BYTES) piece_cut(reader);
        piece_t *piece = reader->piece;
        ssize_t n = read(fd, piece->text + piece->bytes, PIECE_BYTES - piece->bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            fprintf(stderr, "wordcount: %s: %s\n", path, strerror(errno));
            pool.unreadable++;
        }
        if (n <= 0) break;
        piece->bytes += (uint32_t)n;
        piece->text_bytes += (uint32_t)n;
    }
    close(fd);
    if (reader->piece && reader->piece->inside && reader->piece->bytes == 0) reader->piece->inside = false;
}

static bool read_trees(reader_t *reader, char **paths)
{
    FTS *tree = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL);
    if (!tree) {
        fprintf(stderr, "wordcount: %s\n", strerror(errno));
        return false;
    }
    for (FTSENT *entry; (entry = fts_read(tree));) {
        if (entry->fts_info == FTS_F && S_ISREG(entry->fts_statp->st_mode)) {
            read_file(reader, entry->fts_accpath);
        } else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS) {
            fprintf(stderr, "wordcount: %s: %s\n", entry->fts_path, strerror(entry->fts_errno));
            pool.unreadable++;
        }
    }
    fts_close(tree);
    piece_send(reader);
    return true;
}

/* ---- the coordinator ---- */

static void report(double seconds)
{
    printf("words %llu\n", (unsigned long long)pool.words);
    printf("bytes %llu in %llu files", (unsigned long long)pool.bytes, (unsigned long long)pool.files);
    if (pool.unreadable) printf(" (%llu could not be read)", (unsigned long long)pool.unreadable);
    printf("\ntime %.3f s, %.1f MB/s\n", seconds, (double)pool.bytes / 1e6 / seconds);
    if (pool.dead_workers)
        printf("workers lost %u, pieces dealt again %u\n", pool.dead_workers, pool.redealt);
    printf("%6s %14s %14s %8s %7s\n", "core", "bytes", "words", "pieces", "share");
    for (unsigned i = 0; i < pool.n_shares; i++) {
        const share_t *share = &pool.shares[i];
        printf("%6u %14llu %14llu %8llu %6.1f%%%s\n", share->core, (unsigned long long)share->bytes,
               (unsigned long long)share->words, (unsigned long long)share->pieces,
               pool.bytes ? 100.0 * (double)share->bytes / (double)pool.bytes : 0.0,
               share->died ? "  died" : "");
    }
}

static int coordinate(char **paths, const char *check_against)
{
    rf_export_t *door;
    rf_thread_t *spanner, *welcomer;
    share_t *own = &pool.shares[pool.n_shares++];
    *own = (share_t){.core = rf_self()->core};
    rf_err_t err = rf_export(NULL, CORES_MAX, &door, rf_deadline_ms(5000));
    if (err == RF_OK) err = rf_thread_create(span_all, NULL, STACK_BYTES, &spanner);
    if (err == RF_OK) err = rf_thread_create(welcome, door, STACK_BYTES, &welcomer);
    if (err != RF_OK) return fail("cannot start", err);
    uint64_t patience_ns = rf_deadline_ms(WORKERS_MS);
    while (!(pool.spanned && pool.n_shares > pool.n_spanned) && rf_now_ns() < patience_ns) wait_change();
    uint64_t start_ns = rf_now_ns();
    reader_t reader = {.own = own};
    bool read = read_trees(&reader, paths);
    pool.all_read = true;
    rf_condition_broadcast(&pool.changed);
    while (!finished()) {
        if (pool.n_ready > 0 && pool.n_hungry == 0)
            count_locally(own);
        else
            wait_change();
        rf_thread_yield();
    }
    double seconds = (double)(rf_now_ns() - start_ns) / 1e9;
    rf_thread_join(welcomer, NULL, RF_NEVER);
    rf_thread_join(spanner, NULL, RF_NEVER);
    rf_finish();
    report(seconds);
    if (!read) return 2;
    if (!check_against) return 0;
    bool right = strtoull(check_against, NULL, 10) == pool.words;
    printf("check %s: %s words were expected\n", right ? "passed" : "FAILED", check_against);
    return right ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *check_against = NULL;
    int first = 1;
    if (argc > 2 && strcmp(argv[1], "--check-against") == 0) {
        check_against = argv[2];
        first = 3;
    }
    if (first >= argc || argv[first][0] == '-' ||
        (check_against && strspn(check_against, "0123456789") != strlen(check_against))) {
        fprintf(stderr, "usage: wordcount [--check-against WORDS] PATH...\n"
                        "Counts words as `LC_ALL=C wc -w` does, with every core of the machine.\n"
                        "Exit status: 0 right (or nothing to check against), 1 wrong, 2 could not count.\n");
        return 2;
    }
    make_classes();
    rf_err_t err = rf_init(rf_deadline_ms(START_MS));
    if (err != RF_OK) return fail("rf_init", err);
    return rf_self()->index > 0 ? work() : coordinate(argv + first, check_against);
}
