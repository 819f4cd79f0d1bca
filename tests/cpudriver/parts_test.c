/* Parts of the CPU driver that need no processes: shares, the tree of processes, interpreters, invocations. */
#include "fake_driver.h"

#include "base/clock.h"
#include "base/os.h"
#include "cpudriver/invocation.h"
#include "cpudriver/objects.h"
#include "cpudriver/processes.h"
#include "cpudriver/program.h"
#include "cpudriver/share.h"

#include <elf.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- shares ---- */

static void admission(void **state)
{
    (void)state;
    assert_true(rf_share_admits(0, 0, 900));
    assert_false(rf_share_admits(0, 0, 901));
    assert_true(rf_share_admits(800, 0, 100));
    assert_false(rf_share_admits(801, 0, 100));
    assert_true(rf_share_admits(900, 500, 500));
    assert_true(rf_share_admits(900, 500, 100));
    assert_false(rf_share_admits(900, 500, 501));
}

static void weights_divide_a_core(void **state)
{
    (void)state;
    assert_int_equal(rf_share_best_effort(0), 1000);
    assert_int_equal(rf_share_best_effort(800), 200);
    assert_int_equal(rf_share_best_effort(900), 100);
    for (uint32_t reserved = 1; reserved <= RF_SHARE_RESERVED_MAX; reserved++) {
        /* Beside a busy best effort a reservation is never less than its part of the core. */
        uint32_t own = rf_share_weight_permille(reserved);
        uint32_t rest = rf_share_weight_permille(rf_share_best_effort(reserved));
        assert_true((uint64_t)own * 1000 >= (uint64_t)reserved * (own + rest));
        assert_in_range(own, 1, 10000); /* what cpu.weight takes */
    }
    assert_in_range(rf_share_weight_best_effort(1), 2, 10000);
    assert_in_range(rf_share_weight_best_effort(RF_SHARE_WEIGHT_MAX), 2, 10000);
    assert_int_equal(rf_share_due(800, 500, 100, 300), 500000);
    assert_int_equal(rf_share_due(800, 0, 100, 300), 200000 / 3);
    assert_int_equal(rf_share_due(800, 0, 100, 0), 0);
}

/* ---- processes ---- */

static void one_process_is_parsed(void **state)
{
    rf_process_t p;
    (void)state;
    assert_true(rf_process_parse(
        "42 (a) b) (c) R 7 42 40 34816 42 4194304 1 2 3 4 10 20 30 40 20 0 1 0 555 1000 9 18\n", 4, 10000000,
        &p));
    assert_int_equal(p.pid, 42);
    assert_int_equal(p.parent, 7);
    assert_int_equal(p.group, 42);
    assert_int_equal(p.state, 'R');
    assert_int_equal(p.cpu_ns, 100 * 10000000ull);
    assert_int_equal(p.rss_kib, 36);
    assert_false(rf_process_parse("42 (cut short) R 7 42", 4, 10000000, &p));
    assert_false(rf_process_parse("", 4, 10000000, &p));
    assert_false(rf_process_parse(")", 4, 10000000, &p));
}

static void owners_follow_the_tree(void **state)
{
    static rf_processes_t t;
    static const pid_t parents[][2] = {{1, 0},   {10, 1},  {11, 10}, {12, 11}, {13, 12}, {20, 1},
                                       {21, 20}, {30, 29}, {40, 41}, {41, 40}, {22, 21}};
    static const pid_t roots[] = {10, 0, 20, 99};
    (void)state;
    t.n = 0;
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++)
        t.at[t.n++] = (rf_process_t){.pid = parents[i][0], .parent = parents[i][1]};
    rf_processes_label(&t, roots, 4);
    static const int owners[] = {-1, 0, 0, 0, 0, 2, 2, -1, -1, -1, 2};
    for (unsigned i = 0; i < t.n; i++) assert_int_equal(t.at[i].owner, owners[i]);
    assert_true(t.at[1].is_root);
    assert_false(t.at[2].is_root);
    /* A full table, in one long chain: found, and in bounded time. */
    t.n = 0;
    for (pid_t pid = 2; pid < 4000; pid++) t.at[t.n++] = (rf_process_t){.pid = pid, .parent = pid - 1};
    static const pid_t first[] = {2};
    rf_processes_label(&t, first, 1);
    assert_int_equal(t.at[t.n - 1].owner, 0);
}

static void listed_processes_are_read(void **state)
{
    static rf_processes_t t;
    enum { LINES = 1500 };
    int list;
    (void)state;
    assert_int_equal(rf_memory_create("list", 0x4000, &list), RF_OK);
    off_t at = 0;
    for (int i = 0; i < LINES; i++) { /* more than one piece; every second one is nobody */
        char line[16];
        int length = snprintf(line, sizeof line, "%d\n", i % 2 ? (int)getpid() : 0);
        assert_int_equal(pwrite(list, line, (size_t)length, at), length);
        at += length;
    }
    assert_true(at > 4096);
    rf_processes_read(&t, list, 5, getpid());
    close(list);
    assert_int_equal(t.n, LINES / 2);
    assert_int_equal(t.at[0].pid, getpid());
    assert_int_equal(t.at[LINES / 2 - 1].owner, 5);
    assert_true(t.at[0].is_root);
}

/* ---- interpreters ---- */

static void interpreters_are_found(void **state)
{
    char out[64];
    struct {
        Elf64_Ehdr head;
        Elf64_Phdr part;
        char name[16];
    } file = {
        .head = {.e_phoff = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1},
        .part = {.p_type = PT_INTERP, .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), .p_filesz = 9},
        .name = "/lib/foo"};
    (void)state;
    memcpy(file.head.e_ident, ELFMAG, SELFMAG);
    file.head.e_ident[EI_CLASS] = ELFCLASS64;
    assert_true(rf_program_interpreter("#!/bin/sh -x\n", 13, out, sizeof out));
    assert_string_equal(out, "/bin/sh");
    assert_true(rf_program_interpreter("#! \t/bin/sh", 11, out, sizeof out));
    assert_string_equal(out, "/bin/sh");
    assert_false(rf_program_interpreter("#!\n", 3, out, sizeof out));
    assert_true(rf_program_interpreter(&file, sizeof file, out, sizeof out));
    assert_string_equal(out, "/lib/foo");
    assert_false(rf_program_interpreter(&file, sizeof(Elf64_Ehdr), out, sizeof out));
    file.part.p_filesz = UINT64_MAX;
    assert_false(rf_program_interpreter(&file, sizeof file, out, sizeof out));
    file.head.e_phoff = UINT64_MAX - 8;
    assert_false(rf_program_interpreter(&file, sizeof file, out, sizeof out));
}

/* ---- invocations ---- */

static rf_err_t invoke(rf_dispatcher_t *caller, uint16_t op, const void *argument, size_t size)
{
    uint8_t bytes[256];
    rf_wire_header_t header = {.tag = 77, .op = op};
    memcpy(bytes, &header, sizeof header);
    if (size) memcpy(bytes + sizeof header, argument, size);
    unsigned n = fake_answer.n;
    assert_int_equal(rf_invocation_handle(&fake_driver, caller, bytes, sizeof header + size), RF_OK);
    assert_int_equal(fake_answer.n, n + 1);
    assert_int_equal(fake_answer.type, RF_KERNEL_REPLY);
    assert_int_equal(fake_answer.header.tag, 77);
    assert_int_equal(fake_answer.header.op, op);
    return (rf_err_t)fake_answer.header.err;
}

static void malformed_messages_end_the_link(void **state)
{
    rf_wire_header_t header = {.op = RF_KERNEL_TIMER_SET};
    uint8_t bytes[64] = {0};
    (void)state;
    fake_reset();
    memcpy(bytes, &header, sizeof header);
    assert_int_equal(rf_invocation_handle(&fake_driver, &fake_driver.dispatchers[0], bytes, 3),
                     RF_ERR_PROTOCOL);
    assert_int_equal(rf_invocation_handle(&fake_driver, &fake_driver.dispatchers[0], bytes, sizeof header),
                     RF_ERR_PROTOCOL);
    assert_int_equal(rf_invocation_handle(&fake_driver, &fake_driver.dispatchers[0], bytes, sizeof bytes),
                     RF_ERR_PROTOCOL);
    assert_int_equal(fake_answer.n, 0);
}

static void only_the_monitor_may(void **state)
{
    rf_kernel_target_t target = {.domain = FAKE_OTHER};
    (void)state;
    fake_reset();
    assert_int_equal(invoke(&fake_driver.dispatchers[0], RF_KERNEL_FREEZE, &target, sizeof target),
                     RF_ERR_PERMISSION);
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_FREEZE, &target, sizeof target), RF_OK);
    assert_true(fake_driver.dispatchers[1].frozen);
    assert_int_equal(invoke(&fake_driver.monitor, 999, NULL, 0), RF_ERR_NOT_SUPPORTED);
}

static void shares_are_checked(void **state)
{
    rf_kernel_share_t share = {.domain = FAKE_OWN, .reserved_permille = 600};
    (void)state;
    fake_reset();
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SHARE_SET, &share, sizeof share), RF_OK);
    assert_int_equal(fake_driver.reserved_permille_total, 600);
    share.domain = FAKE_OTHER;
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SHARE_SET, &share, sizeof share), RF_ERR_LIMIT);
    share.weight = 1001;
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SHARE_SET, &share, sizeof share), RF_ERR_INVALID);
    share = (rf_kernel_share_t){.weight = 101};
    assert_int_equal(invoke(&fake_driver.dispatchers[1], RF_KERNEL_SHARE_SET, &share, sizeof share),
                     RF_ERR_PERMISSION);
    share.domain = FAKE_OWN; /* whatever it names: a dispatcher means itself */
    share.weight = 7;
    assert_int_equal(invoke(&fake_driver.dispatchers[1], RF_KERNEL_SHARE_SET, &share, sizeof share), RF_OK);
    assert_int_equal(fake_driver.dispatchers[1].weight, 7);
    assert_int_equal(fake_driver.dispatchers[0].reserved_permille, 600);
    assert_int_equal(fake_driver.reserved_permille_total, 600);
}

static void timers_merge_while_the_link_is_full(void **state)
{
    rf_dispatcher_t *d = &fake_driver.dispatchers[0];
    rf_kernel_timer_t timer = {.id = 9, .deadline_ns = 1, .period_ns = RF_NS_PER_MS};
    rf_kernel_timer_event_t event;
    (void)state;
    fake_reset();
    assert_int_equal(invoke(d, RF_KERNEL_TIMER_SET, &timer, sizeof timer), RF_OK);
    fake_room = 0;
    rf_timers_run(&fake_driver);
    rf_objects_tell(&fake_driver, d);
    assert_true(d->events_due);
    assert_int_equal(fake_answer.n, 1);
    uint64_t noted = d->timers[9].expirations;
    assert_true(noted > 1000);
    fake_room = 1024;
    rf_objects_tell(&fake_driver, d);
    assert_false(d->events_due);
    assert_int_equal(fake_answer.n, 2);
    assert_int_equal(fake_answer.header.op, RF_KERNEL_EVENT_TIMER);
    memcpy(&event, fake_answer.body, sizeof event);
    assert_int_equal(event.id, 9);
    assert_int_equal(event.expirations, noted);
    timer.period_ns = UINT64_MAX;
    assert_int_equal(invoke(d, RF_KERNEL_TIMER_SET, &timer, sizeof timer), RF_ERR_INVALID);
    timer.period_ns = 0;
    timer.deadline_ns = RF_NEVER;
    assert_int_equal(invoke(d, RF_KERNEL_TIMER_SET, &timer, sizeof timer), RF_ERR_INVALID);
}

static void descriptors_are_found_by_tag(void **state)
{
    rf_dispatcher_t *d = &fake_driver.dispatchers[0];
    rf_kernel_watch_t watch = {.id = 1, .events = 1};
    int fd = eventfd(0, EFD_CLOEXEC);
    (void)state;
    fake_reset();
    fake_park(d, 78, RF_KERNEL_FD_WATCH, &fd, 1);
    assert_int_equal(invoke(d, RF_KERNEL_FD_WATCH, &watch, sizeof watch), RF_ERR_INVALID);
    d->parked[0].tag = 77;
    assert_int_equal(invoke(d, RF_KERNEL_FD_WATCH, &watch, sizeof watch), RF_OK);
    assert_int_equal(d->watches[1].source.fd, fd);
    assert_int_equal(invoke(d, RF_KERNEL_FD_UNWATCH, &watch, sizeof watch), RF_OK);
    assert_int_equal(d->watches[1].source.fd, -1);
    watch.id = RF_KERNEL_WATCHES_MAX;
    assert_int_equal(invoke(d, RF_KERNEL_FD_UNWATCH, &watch, sizeof watch), RF_ERR_INVALID);
}

static void signals_become_messages(void **state)
{
    rf_dispatcher_t *d = &fake_driver.dispatchers[0];
    rf_kernel_signals_t set = {.mask = 1ull << (SIGUSR1 - 1) | 1ull << 63};
    rf_kernel_signal_t signal = {.domain = FAKE_OWN, .signo = SIGUSR1};
    (void)state;
    fake_reset();
    assert_int_equal(invoke(d, RF_KERNEL_SIGNALS_SET, &set, sizeof set), RF_OK);
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SIGNAL, &signal, sizeof signal), RF_OK);
    signal.signo = 64;
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SIGNAL, &signal, sizeof signal), RF_OK);
    assert_int_equal(d->signals_pending, set.mask);
    rf_objects_tell(&fake_driver, d);
    assert_int_equal(d->signals_pending, 0);
    signal.signo = 65;
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SIGNAL, &signal, sizeof signal), RF_ERR_INVALID);
    signal.signo = SIGTERM;
    signal.domain = 4711;
    assert_int_equal(invoke(&fake_driver.monitor, RF_KERNEL_SIGNAL, &signal, sizeof signal),
                     RF_ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(admission),
        cmocka_unit_test(weights_divide_a_core),
        cmocka_unit_test(one_process_is_parsed),
        cmocka_unit_test(owners_follow_the_tree),
        cmocka_unit_test(listed_processes_are_read),
        cmocka_unit_test(interpreters_are_found),
        cmocka_unit_test(malformed_messages_end_the_link),
        cmocka_unit_test(only_the_monitor_may),
        cmocka_unit_test(shares_are_checked),
        cmocka_unit_test(timers_merge_while_the_link_is_full),
        cmocka_unit_test(descriptors_are_found_by_tag),
        cmocka_unit_test(signals_become_messages),
    };
    return cmocka_run_group_tests_name("cpudriver parts", tests, NULL, NULL);
}
