/* What a restarted rackfishd says of its cores, and what that proves (node/evidence.h). */
#include "node/evidence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const uint8_t first[16] = {1}, next[16] = {2};
static const rf_where_t here = {"boot 1", "host 1", "net:[1] /run/m/b"};

/* By the next life of rackfishd, at `where`. */
static bool proves(const rf_where_t *where, rf_core_said_t now)
{
    rf_core_told_t told = {.incarnation = 3, .where = here, .looked = true};
    memcpy(told.instance, first, sizeof first);
    return rf_evidence_is_dead(&told, next, where, &now);
}

static const rf_core_said_t none = {.said = true, .looked = true}, blind = {.said = true},
                            unsaid = {.looked = true},
                            same = {.said = true, .looked = true, .incarnation = 3},
                            later = {.said = true, .looked = true, .incarnation = 4};

static void a_life_that_has_looked_proves(void **unused)
{
    (void)unused;
    assert_true(proves(&here, none));
    assert_true(proves(&here, later));
    assert_false(proves(&here, same));
    assert_false(proves(&here, unsaid));
    assert_false(proves(&here, blind));
    rf_core_told_t told = {.incarnation = 3,
                           .where = here}; /* which may have been started, and listen, elsewhere */
    memcpy(told.instance, first, sizeof first);
    assert_false(rf_evidence_is_dead(&told, next, &here, &none));
}

static void a_reboot_proves(void **unused)
{
    (void)unused;
    rf_where_t there = here;
    snprintf(there.boot, sizeof there.boot, "%s", "boot 2");
    assert_true(proves(&there, none));
    assert_true(proves(&there, blind)); /* whatever was lost: nothing outlives its kernel */
    assert_true(proves(&there, later));
    assert_false(proves(&there, unsaid));
    snprintf(there.place, sizeof there.place, "%s", "net:[2] /run/other/b");
    assert_true(proves(&there, none));
    there.boot[0] = 0;
    assert_false(proves(&there, none));
}

static void another_host_or_place_proves_nothing(void **unused)
{
    (void)unused;
    rf_where_t there = here;
    snprintf(there.place, sizeof there.place, "%s",
             "net:[2] /run/m/b"); /* of a container, say: the old one may run */
    assert_false(proves(&there, none));
    there.place[0] = 0;
    assert_false(proves(&there, none));
    there = here;
    snprintf(there.boot, sizeof there.boot, "%s", "boot 2");
    snprintf(there.host, sizeof there.host, "%s", "host 2"); /* which took its name */
    assert_false(proves(&there, none));
    there.host[0] = 0;
    assert_false(proves(&there, none));
    rf_core_told_t told = {.incarnation = 3}; /* of a release that does not say where it is */
    assert_false(rf_evidence_is_dead(&told, next, &here, &none));
}

static void a_life_has_seen_its_own_die(void **unused)
{
    (void)unused;
    static const rf_where_t nowhere;
    rf_core_told_t told = {.incarnation = 3};
    memcpy(told.instance, first, sizeof first);
    assert_true(rf_evidence_is_dead(&told, first, &nowhere, &blind));
    assert_false(rf_evidence_is_dead(&told, first, &nowhere, &same));
    assert_false(rf_evidence_is_dead(&told, first, &nowhere, &unsaid));
    told.incarnation = 0;
    assert_false(rf_evidence_is_dead(&told, first, &nowhere, &blind));
}

static void sockets_are_counted(void **unused)
{
    (void)unused;
    static const char text[] =
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000002 00000000 00010000 0005 01 82612 /run/m/b/monitor-1.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0005 03 82613 /run/m/b/monitor-1.sock\n"
        "0000000000000000: 00000002 00000000 00010000 0005 01 82614 /x/run/m/b/monitor-1.sock\n"
        "0000000000000000: 00000002 00000000 00010000 0005 01 82615 /run/m/b/monitor-11.sock\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 82616\n"
        "0000000000000000: 00000003 00000000 00000000 0005 03 82617 /run/m/b/monitor-1.sock";
    unsigned listening;
    assert_int_equal(rf_evidence_sockets(text, "/run/m/b/monitor-1.sock", &listening), 3);
    assert_int_equal(listening, 1);
    assert_int_equal(rf_evidence_sockets(text, "/run/m/b/monitor-2.sock", &listening), 0);
    assert_int_equal(listening, 0);
    assert_int_equal(rf_evidence_sockets("", "/run/m/b/monitor-1.sock", &listening), 0);
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_return_code(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_return_code(listen(fd, 1), 0);
    return fd;
}

/* With the kernel's own list: what lives is seen also when its path is gone. */
static void the_kernel_is_asked(void **unused)
{
    (void)unused;
    static rf_daemon_t daemon;
    char folder[] = "/tmp/rackfish-look-XXXXXX", control[128], inside[160];
    assert_non_null(mkdtemp(folder));
    snprintf(daemon.node_dir, sizeof daemon.node_dir, "%s/b", folder);
    snprintf(control, sizeof control, "%s.sock", daemon.node_dir);
    daemon.n_cores = 2;
    for (unsigned i = 0; i < 2; i++)
        daemon.cores[i] = (rf_local_core_t){.daemon = &daemon, .core = (rf_core_t)i, .monitor_pidfd = -1};
    assert_false(rf_evidence_look(&daemon)); /* not even its own socket is there */
    int own = listen_at(control);
    assert_return_code(mkdir(daemon.node_dir, 0700), 0);
    snprintf(inside, sizeof inside, "%s/monitor-1.sock", daemon.node_dir);
    int old = listen_at(inside);
    unlink(inside);
    assert_true(rf_evidence_look(&daemon));
    assert_true(daemon.cores[0].looked);
    assert_false(daemon.cores[1].looked);
    assert_false(rf_evidence_look(&daemon));
    close(old);
    unlink(control);
    int other = listen_at(control); /* another rackfishd, whose folder was taken away */
    assert_false(rf_evidence_look(&daemon));
    close(other);
    assert_true(rf_evidence_look(&daemon));
    assert_true(daemon.cores[1].looked);
    close(own);
    unlink(control);
    rmdir(daemon.node_dir);
    rmdir(folder);

    rf_where_t where;
    rf_evidence_where(&daemon, &where);
    assert_int_equal(strlen(where.boot), 36);
    assert_non_null(strstr(where.place, daemon.node_dir));
}

static void what_is_not_sure_is_not_said(void **unused)
{
    (void)unused;
    rf_local_core_t core = {.monitor_pidfd = -1, .life = RF_LIFE_DOWN, .looked = true};
    rf_core_said_t said = rf_evidence_of_core(&core);
    assert_true(said.said && said.looked && said.incarnation == 0);
    core.life = RF_LIFE_STARTING;
    assert_false(rf_evidence_of_core(&core).said);
    core.life = RF_LIFE_UP; /* its monitor has ended, its CPU driver not yet */
    assert_false(rf_evidence_of_core(&core).said);
    core.monitor_pidfd = 0;
    core.monitor_incarnation = 5;
    assert_int_equal(rf_evidence_of_core(&core).incarnation, 5);
    core.life = RF_LIFE_DOWN; /* the other way round */
    assert_int_equal(rf_evidence_of_core(&core).incarnation, 5);
    core.unsure = true;
    assert_false(rf_evidence_of_core(&core).said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_life_that_has_looked_proves),
        cmocka_unit_test(a_reboot_proves),
        cmocka_unit_test(another_host_or_place_proves_nothing),
        cmocka_unit_test(a_life_has_seen_its_own_die),
        cmocka_unit_test(sockets_are_counted),
        cmocka_unit_test(the_kernel_is_asked),
        cmocka_unit_test(what_is_not_sure_is_not_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
