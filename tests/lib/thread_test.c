/* User-level threads, mutexes and conditions of one dispatcher. */
#include "fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define MANY 200

static unsigned turns, order[8];
static rf_mutex_t mutex = RF_MUTEX_INIT;
static rf_condition_t condition = RF_CONDITION_INIT;
static unsigned waiting, released, inside;

static void *count_turns(void *argument)
{
    volatile char deep[16384]; /* the stack is really there */
    for (unsigned i = 0; i < sizeof deep; i += 64) deep[i] = 1;
    double kept = 1.5 * (double)(uintptr_t)argument;
    for (unsigned i = 0; i < 50; i++) {
        turns++;
        rf_thread_yield();
        CHECK(kept == 1.5 * (double)(uintptr_t)argument);
    }
    return deep[64] == 1 ? argument : NULL;
}

static void *critical(void *argument)
{
    for (unsigned i = 0; i < 20; i++) {
        CHECK_OK(rf_mutex_lock(&mutex, SOON));
        CHECK_ERR(rf_mutex_lock(&mutex, SOON), RF_ERR_INVALID);
        CHECK(++inside == 1);
        rf_thread_yield();
        CHECK(--inside == 0);
        CHECK_OK(rf_mutex_unlock(&mutex));
    }
    CHECK_ERR(rf_mutex_unlock(&mutex), RF_ERR_PERMISSION);
    return argument;
}

static void *wait_for_release(void *argument)
{
    CHECK_OK(rf_mutex_lock(&mutex, SOON));
    waiting++;
    CHECK_OK(rf_condition_wait(&condition, &mutex, SOON));
    released++;
    CHECK_OK(rf_mutex_unlock(&mutex));
    return argument;
}

static void *time_out(void *argument)
{
    CHECK_OK(rf_mutex_lock(&mutex, SOON));
    waiting++;
    CHECK_ERR(rf_condition_wait(&condition, &mutex, rf_deadline_ms(3)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_mutex_unlock(&mutex)); /* held also then */
    return argument;
}

static void *sleeper(void *argument)
{
    static unsigned n;
    unsigned ms = *(unsigned *)argument;
    rf_thread_sleep(rf_deadline_ms(ms));
    order[n++] = ms;
    return argument;
}

static void *never_joined(void *argument)
{
    rf_thread_yield();
    (*(unsigned *)argument)++;
    return NULL;
}

static void *stuck(void *argument)
{
    CHECK_OK(rf_mutex_lock(&mutex, SOON));
    CHECK_OK(rf_mutex_unlock(&mutex));
    return argument;
}

static int threads(void)
{
    CHECK_OK(rf_init(SOON));
    rf_thread_t *many[MANY];
    for (uintptr_t i = 0; i < MANY; i++)
        CHECK_OK(rf_thread_create(count_turns, (void *)(i + 1), 0, &many[i]));
    for (uintptr_t i = 0; i < MANY; i++) {
        void *result;
        CHECK_OK(rf_thread_join(many[i], &result, SOON));
        CHECK(result == (void *)(i + 1));
    }
    CHECK(turns == MANY * 50);

    rf_thread_t *few[8];
    for (unsigned i = 0; i < 4; i++) CHECK_OK(rf_thread_create(critical, NULL, 0, &few[i]));
    for (unsigned i = 0; i < 4; i++) CHECK_OK(rf_thread_join(few[i], NULL, SOON));
    CHECK(mutex.owner == NULL && mutex.first == NULL);
    CHECK_OK(rf_mutex_try_lock(&mutex));
    CHECK_ERR(rf_mutex_try_lock(&mutex), RF_ERR_BUSY);
    CHECK_OK(rf_thread_create(stuck, NULL, 0, &few[0]));
    rf_thread_yield();
    CHECK_ERR(rf_thread_join(few[0], NULL, rf_deadline_ms(3)), RF_ERR_TIMEOUT);
    CHECK_OK(rf_mutex_unlock(&mutex));
    CHECK_OK(rf_thread_join(few[0], NULL, SOON));

    for (unsigned i = 0; i < 6; i++)
        CHECK_OK(rf_thread_create(i == 2 ? time_out : wait_for_release, NULL, 0, &few[i]));
    while (waiting < 6) rf_thread_yield();
    rf_condition_signal(&condition);
    while (released < 1) rf_thread_yield();
    for (unsigned i = 0; i < 20; i++) rf_thread_yield();
    CHECK(released == 1);
    rf_thread_sleep(rf_deadline_ms(10)); /* the third's deadline passes */
    rf_condition_broadcast(&condition);
    for (unsigned i = 0; i < 6; i++) CHECK_OK(rf_thread_join(few[i], NULL, SOON));
    CHECK(released == 5 && condition.first == NULL);

    unsigned ms[3] = {30, 5, 15};
    for (unsigned i = 0; i < 3; i++) CHECK_OK(rf_thread_create(sleeper, &ms[i], 0, &few[i]));
    for (unsigned i = 0; i < 3; i++) CHECK_OK(rf_thread_join(few[i], NULL, SOON));
    CHECK(order[0] == 5 && order[1] == 15 && order[2] == 30);

    unsigned ended = 0;
    for (unsigned i = 0; i < 3; i++) {
        CHECK_OK(rf_thread_create(never_joined, &ended, RF_THREAD_STACK_MIN, &few[0]));
        rf_thread_detach(few[0]);
    }
    while (ended < 3) rf_thread_yield();
    CHECK_ERR(rf_thread_join(rf_thread_current(), NULL, SOON), RF_ERR_INVALID);
    CHECK_ERR(rf_thread_create(stuck, NULL, 100, &few[0]), RF_ERR_INVALID);
    rf_finish();
    return 0;
}

static unsigned overflow(unsigned depth)
{
    volatile char page[8192];
    page[0] = page[8191] = 1;
    unsigned below = depth == UINT32_MAX ? 0 : overflow(depth + 1);
    return below + (unsigned)page[8191];
}

static void *overflow_thread(void *argument)
{
    (void)overflow(0);
    return argument;
}

/* Running over a stack kills the process, and nothing else is overwritten before. */
static int overflows(void)
{
    CHECK_OK(rf_init(SOON));
    rf_thread_t *thread;
    CHECK_OK(rf_thread_create(overflow_thread, NULL, RF_THREAD_STACK_MIN, &thread));
    (void)rf_thread_join(thread, NULL, SOON);
    return 0;
}

static void test_threads(void **state)
{
    (void)state;
    fake_domain_t domain = {.run = threads};
    assert_int_equal(fake_machine_run(&domain, 1, "tcp"), 0);
}

static void test_guard_page(void **state)
{
    (void)state;
    fake_domain_t domain = {.run = overflows, .dies = 1};
    assert_int_equal(fake_machine_run(&domain, 1, "tcp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads), cmocka_unit_test(test_guard_page)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
