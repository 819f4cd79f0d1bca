/*
 * Runs the real rf-cpudriver with the test in place of the monitor (fake_monitor.c relays), and takes everything away
 * again, also when the test is killed: a guard process of its own session watches a pipe that closes with the test.
 */
#ifndef RF_TESTS_CPUDRIVER_HARNESS_H
#define RF_TESTS_CPUDRIVER_HARNESS_H

#include "wire/boot.h"
#include "wire/kernel.h"
#include "wire/spawn.h"

#include <sys/types.h>

#define HARNESS_EVENTS  64
#define HARNESS_WAIT_MS 60000

typedef struct harness_params {
    uint16_t sched;     /* RF_SCHED_* */
    bool cgroup;        /* give it a cgroup, if this host has one for us */
    bool no_namespaces; /* isolation none */
    uid_t uid;          /* whom to run as; 0: the caller */
    bool privileged;    /* as that user, but with the capabilities that rackfishd gives to its CPU drivers */
} harness_params_t;

typedef struct harness_event {
    rf_wire_header_t header;
    uint8_t body[512];
    int fd; /* STARTED */
} harness_event_t;

typedef struct harness {
    char run_dir[128], cgroup[160];
    rf_boot_t boot;
    bool started;
    int listener, sock, guard;
    pid_t driver;
    uint32_t tags;
    uint32_t created_tag;
    unsigned n_events;
    harness_event_t events[HARNESS_EVENTS];
    int fd_waiting; /* of a STARTED event whose message has not come yet */
} harness_t;

typedef struct harness_spawn {
    rf_domain_t domain;
    uint16_t index;
    const char *const *argv; /* ends with NULL */
    const char *const *env;
    const char *executable; /* NULL: argv[0] */
    const char *cwd, *user; /* NULL: "/", the caller */
    uint32_t flags, umask;
    uint16_t reserved_permille, weight;
    const char *span_args;
    int executable_fd; /* with RF_SPAWN_EXECUTABLE */
    const int *stdio;  /* NULL: a pipe for stdout and stderr, see `out` */
    uint64_t nofile;   /* 0: no limits given */
} harness_spawn_t;

/* A folder that the built programs are in, and where the test's own are. */
extern const char *harness_bin, *harness_tests;

/* Skips the test, with the reason printed, where this host cannot; fails it on anything else. */
void harness_start(harness_t *h, const harness_params_t *params);
void harness_stop(harness_t *h); /* TERM, and checks that nothing is left */
/* Whether the CPU driver gives domains namespaces: it was not told otherwise, and the host allows them. */
bool harness_isolates(const harness_t *h);
/* Waits for the CPU driver itself; its exit status, 128 + signal if killed. */
int harness_driver_status(harness_t *h);
void harness_cleanup(harness_t *h);
void harness_give_up(harness_t *h); /* after a failed test: shows the log, and cleans up */

/* The monitor puts the core's lease off; what is asked for next finds that done. */
void harness_lease(harness_t *h, uint64_t until_ns);
rf_err_t harness_ask(harness_t *h, uint16_t op, const void *argument, size_t size, const int *fds,
                     unsigned n_fds, void *reply, size_t reply_max);
/* Creates a dispatcher; `out` gets the read end of its stdout and stderr (-1 with spawn->stdio; may be NULL). */
rf_err_t harness_create(harness_t *h, const harness_spawn_t *spawn, rf_kernel_created_t *created, int *out);
/* Waits for an event of that kind about that domain. */
void harness_event(harness_t *h, uint16_t op, rf_domain_t domain, harness_event_t *out);
int harness_exited(harness_t *h, rf_domain_t domain); /* its wait status */
bool harness_event_pending(harness_t *h, uint16_t op, rf_domain_t domain);

/* Reads until the end, or until a line is in; zero-terminated. */
void harness_read(int fd, char *out, size_t max, bool until_line);

/* Runs a program to its end in domain `domain`; its wait status, its output in `out`. */
int harness_run(harness_t *h, const harness_spawn_t *spawn, char *out, size_t max);

/* Processes of this host whose command line has `text` in it, but this one. */
unsigned harness_processes_with(const char *text);
bool harness_gone(const char *text); /* within the usual time */

#endif
