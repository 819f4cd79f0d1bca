/*
 * The registry from librackfish on a real machine of two nodes with two cores each: run by machine_test.sh as dispatcher 0 on core 0,
 * which spans to the other cores. The first thing that is not as it should be ends the program with status 1.
 */
#include "fake_machine.h" /* CHECK only */

#include <stdlib.h>
#include <string.h>

#define PARTIES  4
#define ROUNDS   25
#define MESSAGES 40

static void say(const char *what)
{
    if (rf_self()->index > 0) return;
    printf("%s\n", what);
    fflush(stdout);
}

static uint64_t number_of(const char *key)
{
    char text[32] = {0};
    CHECK_OK(rf_registry_get(key, RF_READ_LINEARIZABLE, NULL, text, sizeof text - 1, SOON));
    return strtoull(text, NULL, 10);
}

static void all_here(void)
{
    CHECK_OK(rf_barrier_wait("test/all", PARTIES, NULL, SOON));
}

static void keys(void)
{
    say("keys: versions, compare-and-swap, lists");
    uint64_t first, second, revision;
    char value[RF_REGISTRY_VALUE_MAX], made[RF_REGISTRY_NAME_MAX + 1];
    rf_registry_entry_t e, rows[4];
    unsigned n;
    CHECK_OK(rf_registry_put("k/a", "one", 3, RF_REGISTRY_PUT_NEW, &first, SOON));
    CHECK_ERR(rf_registry_put("k/a", "one", 3, RF_REGISTRY_PUT_NEW, NULL, SOON), RF_ERR_EXISTS);
    CHECK_OK(rf_registry_cas("k/a", first, "two", 3, &second, SOON));
    CHECK_ERR(rf_registry_cas("k/a", first, "three", 5, NULL, SOON), RF_ERR_BUSY);
    CHECK_ERR(rf_registry_cas_value("k/a", "one", 3, "x", 1, NULL, SOON), RF_ERR_BUSY);
    CHECK_OK(rf_registry_cas_value("k/a", "two", 3, "", 0, NULL, SOON));
    CHECK_OK(rf_registry_get("k/a", RF_READ_LOCAL, &e, value, sizeof value, SOON));
    CHECK(e.size == 0 && e.version == 3 && e.created == first && e.revision > second && !e.ephemeral);
    memset(value, 'v', sizeof value);
    CHECK_OK(rf_registry_put("k/b", value, sizeof value, 0, NULL, SOON));
    CHECK_ERR(rf_registry_put("k/b", value, sizeof value + 1, 0, NULL, SOON), RF_ERR_INVALID);
    CHECK_ERR(rf_registry_get("k/b", RF_READ_LOCAL, NULL, value, 100, SOON), RF_ERR_TRUNCATED);
    CHECK_ERR(rf_registry_get("k/none", RF_READ_LINEARIZABLE, NULL, value, 100, SOON), RF_ERR_NOT_FOUND);
    CHECK_ERR(rf_registry_put("not a name", "", 0, 0, NULL, SOON), RF_ERR_INVALID);
    CHECK_OK(rf_registry_put_sequential("k/s-", "", 0, RF_REGISTRY_PUT_EPHEMERAL, made, &revision, SOON));
    CHECK(strlen(made) == 4 + RF_REGISTRY_SUFFIX && strtoull(made + 4, NULL, 10) == revision);
    CHECK_OK(rf_registry_list("k/", NULL, RF_READ_LINEARIZABLE, rows, 4, &n, SOON));
    CHECK(n == 3 && strcmp(rows[0].name, "k/a") == 0 && strcmp(rows[2].name, made) == 0 && rows[2].ephemeral);
    CHECK(rows[2].domain == rf_self()->domain);
    CHECK_OK(rf_registry_list("k/", "k/a", RF_READ_LOCAL, rows, 1, &n, SOON));
    CHECK(n == 1 && strcmp(rows[0].name, "k/b") == 0);
    CHECK_ERR(rf_registry_delete("k/a", first, SOON), RF_ERR_BUSY);
    CHECK_OK(rf_registry_delete("k/a", 0, SOON));
    CHECK_ERR(rf_registry_delete("k/a", 0, SOON), RF_ERR_NOT_FOUND);
}

static void waits(void)
{
    say("waits: deadlines, cancelling, wait sets");
    uint64_t token, other;
    rf_operation_t *operation;
    rf_waitset_t *set;
    rf_event_t event;
    rf_operation_result_t result;
    unsigned n;
    CHECK_OK(rf_lock_try("w/lock", &token, SOON));
    CHECK_ERR(rf_lock_try("w/lock", &other, SOON), RF_ERR_AGAIN);
    CHECK_ERR(rf_lock_acquire("w/lock", &other, rf_deadline_ms(30)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_lock_acquire_begin("w/lock", &operation));
    CHECK_ERR(rf_operation_wait(operation, &result, rf_deadline_ms(20)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_operation(set, operation, &token, NULL));
    CHECK_OK(rf_lock_release("w/lock", token, SOON));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(n == 1 && event.what == RF_EVENT_DONE && event.cookie == &token);
    CHECK_OK(rf_operation_wait(operation, &result, SOON));
    CHECK(result.revision > token);
    CHECK_ERR(rf_lock_release("w/lock", token, SOON), RF_ERR_NOT_FOUND);
    /* One that is given up leaves the line; or, granted meanwhile, is given back. */
    CHECK_OK(rf_lock_acquire_begin("w/lock", &operation));
    rf_operation_cancel(operation);
    CHECK_OK(rf_lock_acquire_begin("w/lock", &operation));
    CHECK_OK(rf_lock_release("w/lock", result.revision, SOON));
    rf_operation_cancel(operation);
    CHECK_OK(rf_lock_acquire("w/lock", &token, SOON));
    CHECK_OK(rf_lock_release("w/lock", token, SOON));
    rf_waitset_destroy(set);
    CHECK_OK(rf_semaphore_create("w/s", 2, RF_OBJECT_EPHEMERAL, SOON));
    CHECK_ERR(rf_semaphore_create("w/s", 3, 0, SOON), RF_ERR_EXISTS);
    CHECK_OK(rf_semaphore_acquire("w/s", 2, &token, SOON));
    CHECK_ERR(rf_semaphore_try("w/s", 1, &other, SOON), RF_ERR_AGAIN);
    CHECK_OK(rf_semaphore_release("w/s", token, SOON));
    CHECK_OK(rf_semaphore_try("w/s", 1, &other, SOON));
    CHECK_OK(rf_semaphore_delete("w/s", SOON));
    char message[RF_QUEUE_MESSAGE_MAX];
    size_t size;
    CHECK_OK(rf_queue_create("w/q", 1, 0, SOON));
    CHECK_ERR(rf_queue_try_pop("w/q", message, &size, SOON), RF_ERR_AGAIN);
    CHECK_ERR(rf_queue_pop("w/q", message, &size, rf_deadline_ms(20)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_queue_pop_begin("w/q", &operation));
    CHECK_OK(rf_queue_push("w/q", "hello", 5, SOON));
    CHECK_OK(rf_operation_wait(operation, &result, SOON));
    CHECK(result.size == 5 && memcmp(result.message, "hello", 5) == 0);
    CHECK_OK(rf_queue_push("w/q", "", 0, SOON));
    CHECK_ERR(rf_queue_push("w/q", "full", 4, SOON), RF_ERR_AGAIN);
    CHECK_OK(rf_queue_delete("w/q", SOON));
}

/* Everybody. */
static void together(void)
{
    say("together: a counter under a lock, one by compare-and-swap");
    char text[32];
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t token;
        CHECK_OK(rf_lock_acquire("test/lock", &token, SOON));
        snprintf(text, sizeof text, "%llu", (unsigned long long)number_of("shared/count") + 1);
        CHECK_OK(rf_registry_put("shared/count", text, strlen(text), 0, NULL, SOON));
        CHECK_OK(rf_lock_release("test/lock", token, SOON));
        for (rf_err_t err = RF_ERR_BUSY; err != RF_OK;) {
            rf_registry_entry_t e;
            char held[32] = {0};
            CHECK_OK(rf_registry_get("shared/cas", RF_READ_LOCAL, &e, held, sizeof held - 1, SOON));
            snprintf(text, sizeof text, "%llu", strtoull(held, NULL, 10) + 1);
            err = rf_registry_cas("shared/cas", e.revision, text, strlen(text), NULL, SOON);
            CHECK(err == RF_OK || err == RF_ERR_BUSY);
        }
    }
    all_here();
    CHECK(number_of("shared/count") == PARTIES * ROUNDS);
    CHECK(number_of("shared/cas") == PARTIES * ROUNDS);
}

static void work(void)
{
    say("a queue of work, done once");
    for (unsigned done = 0;; done++) {
        char message[RF_QUEUE_MESSAGE_MAX], key[RF_REGISTRY_NAME_MAX];
        size_t size;
        CHECK_OK(rf_queue_pop("test/work", message, &size, SOON));
        if (size == 0) break;
        snprintf(key, sizeof key, "done/%.*s", (int)size, message);
        CHECK_OK(rf_registry_put(key, "", 0, RF_REGISTRY_PUT_NEW, NULL, SOON));
    }
}

/* Dispatchers other than 0; the last leaves with a lock and an ephemeral key. */
static void other(void)
{
    all_here();
    together();
    work();
    all_here();
    if (rf_self()->index != PARTIES - 1) return;
    uint64_t token;
    CHECK_OK(rf_registry_put("test/here", "for now", 7, RF_REGISTRY_PUT_EPHEMERAL, NULL, SOON));
    CHECK_OK(rf_lock_acquire("test/heir", &token, SOON));
    CHECK_OK(rf_registry_put("test/holding", "", 0, 0, NULL, SOON));
    rf_thread_sleep(rf_deadline_ms(200));
    _Exit(0); /* not in order */
}

static void heirs(rf_registry_watch_t *watch)
{
    say("who ends leaves nothing held");
    rf_waitset_t *set;
    rf_event_t event;
    rf_registry_event_t e;
    unsigned n;
    CHECK_OK(rf_waitset_create(&set));
    CHECK_OK(rf_waitset_add_watch(set, watch, watch, NULL));
    CHECK_OK(rf_waitset_wait(set, &event, 1, &n, SOON));
    CHECK(event.cookie == watch && event.what == RF_EVENT_READABLE && rf_registry_watch_ready(watch));
    CHECK_OK(rf_registry_watch_next(watch, &e, SOON));
    CHECK(e.what == RF_REGISTRY_CHANGED && e.version == 1 && e.size == 7 &&
          memcmp(e.value, "for now", 7) == 0);
    CHECK_OK(rf_registry_watch_next(watch, &e, SOON));
    CHECK(strcmp(e.name, "test/holding") == 0);
    uint64_t token;
    CHECK_OK(rf_lock_acquire("test/heir", &token, SOON));
    CHECK(token > e.revision);
    CHECK_OK(rf_registry_watch_next(watch, &e, SOON));
    CHECK(e.what == RF_REGISTRY_EXPIRED && strcmp(e.name, "test/here") == 0);
    CHECK_ERR(rf_registry_watch_next(watch, &e, rf_deadline_ms(30)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_registry_put("test/last", "", 0, 0, NULL, SOON));
    CHECK_OK(rf_registry_watch_next(watch, &e, SOON));
    CHECK(strcmp(e.name, "test/last") == 0);
    rf_waitset_destroy(set);
}

int main(void)
{
    CHECK_OK(rf_init(SOON));
    if (rf_self()->index > 0) {
        other();
        rf_finish();
        return 0;
    }
    keys();
    waits();
    rf_registry_watch_t *watch;
    CHECK_OK(rf_registry_watch("test/", RF_REGISTRY_WATCH_PREFIX, 0, &watch));
    CHECK_OK(rf_registry_put("shared/count", "0", 1, 0, NULL, SOON));
    CHECK_OK(rf_registry_put("shared/cas", "0", 1, 0, NULL, SOON));
    CHECK_OK(rf_queue_create("test/work", 8, RF_OBJECT_EPHEMERAL, SOON));
    for (rf_core_t core = 1; core < PARTIES; core++) {
        uint16_t index;
        CHECK_OK(rf_span(core, NULL, 0, &index, SOON));
    }
    all_here();
    together();
    for (unsigned i = 0; i < MESSAGES + PARTIES - 1; i++) {
        char text[16] = "";
        if (i < MESSAGES) snprintf(text, sizeof text, "%u", i);
        rf_err_t err = RF_ERR_AGAIN;
        while ((err = rf_queue_push("test/work", text, strlen(text), SOON)) == RF_ERR_AGAIN)
            rf_thread_sleep(rf_deadline_ms(1));
        CHECK_OK(err);
    }
    all_here();
    rf_registry_entry_t rows[MESSAGES + 1];
    unsigned n;
    CHECK_OK(rf_registry_list("done/", NULL, RF_READ_LOCAL, rows, MESSAGES + 1, &n, SOON));
    CHECK(n == MESSAGES);
    heirs(watch);
    rf_registry_watch_close(watch);
    rf_finish();
    printf("all as it should be\n");
    return 0;
}
