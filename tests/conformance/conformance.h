/*
 * One suite for every medium: a transport is right when this passes on it.
 *
 * A medium plugs in by a `fixture`: its table of operations, what it can do beyond slots, and hooks for the faults
 * that only it knows how to make. A case works on a `world`: two ends, `a` that connects and `b` that listens, driven
 * in one thread by world_pump(), or each in a thread or a process of its own.
 *
 * Nothing here depends on time being short: waits end when what they wait for has come, and deadlines only keep a
 * broken medium from hanging the suite. Every wait has one, and says what it waited for and how the links are (watch.c).
 */
#ifndef RF_TESTS_CONFORMANCE_CONFORMANCE_H
#define RF_TESTS_CONFORMANCE_CONFORMANCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/prng.h"
#include "transport/message.h"
#include "transport/transport.h"

#define CONFORMANCE_HANG_NS (30 * RF_NS_PER_S)
#define CONFORMANCE_SLOT    1 /* type of the numbered slots */

typedef struct world world_t;
typedef struct fixture fixture_t;

#define FIXTURE_BREAKS    1u /* break_connections() exists: a connection can be lost and made again */
#define FIXTURE_BULK      2u /* regions and remote writes */
#define FIXTURE_THREADS   4u /* the two ends may run in two threads */
#define FIXTURE_PROCESSES 8u /* ... and in two processes */

struct fixture {
    const char *name;
    const rf_transport_t *transport;
    unsigned flags;
    uint64_t deadline_ns; /* of the endpoints */

    /* Makes what one world needs (a network, a folder); world->medium is the fixture's. May be NULL. */
    void (*open)(world_t *world);
    void (*close)(world_t *world);
    /* The address to listen on; fills `out` of RF_ADDRESS_MAX bytes. */
    void (*address)(world_t *world, char *out);
    /* Completes the parameters of an endpoint: key, network. May be NULL. */
    void (*params)(world_t *world, unsigned side, rf_endpoint_params_t *params);
    /* Virtual media: lets time pass. NULL: real time. */
    void (*step)(world_t *world);
    uint64_t (*now_ns)(world_t *world);
    /* Loses every connection of this process, with what is in flight on it. */
    void (*break_connections)(world_t *world);
    /* Connects to `address` as a stranger and says `size` bytes of garbage. False: not possible on this medium. */
    bool (*garbage)(world_t *world, const char *address, const uint8_t *bytes, size_t size);
    /* Makes `side` hostile on an UP link, way number `way`: the other end must end its link with RF_ERR_PROTOCOL, or go
     * on unharmed (*harmless). False: no such way. */
    bool (*hostile)(world_t *world, unsigned side, unsigned way, bool *harmless);
    /* Stops `side` as SIGSTOP does a process, and lets it go on. Only where FIXTURE_PROCESSES is not set. */
    void (*stop)(world_t *world, unsigned side, bool stopped);
    /* Says half of what comes next on the UP link of `side`: some words of a slot, some bytes of a frame. NULL: the
     * medium has no halves. */
    void (*half)(world_t *world, unsigned side);
    /* All or none: neighbours of this medium map memory of each other. memory_of() names what an UP link shares with
     * its peer, whoever made it; the same memory has the same name in every link, and other memory another.
     * keep_mapped() keeps a second mapping of all that the UP link of `side` maps to write, for as long as the process
     * lives; overwrite_kept() writes slots that look right into every such ring, and other bytes everywhere else. */
    unsigned (*memory_of)(const rf_link_t *link, uint64_t *out, unsigned max);
    void (*keep_mapped)(world_t *world, unsigned side);
    void (*overwrite_kept)(world_t *world);
    /* Tells on standard error how a link is that does not get on, a line or more. May be NULL. */
    void (*explain)(rf_link_t *link);
};

/* One end, and what its events said. */
typedef struct end {
    world_t *world;
    unsigned side; /* 0: a, connects; 1: b, listens; 2: a later life of a's core, connects */
    rf_endpoint_t *endpoint;
    rf_link_t *link;
    rf_link_t *event_link; /* of the event that on_event is told of */
    rf_doorbell_t doorbell;
    unsigned incoming, up, broken, room, fds, written, read, closed, dead;
    rf_err_t why; /* of DEAD */
    rf_err_t written_err, read_err;
    rf_hello_t hello;    /* the peer's */
    uint64_t sent, got;  /* numbered slots */
    bool leave_incoming; /* do not accept by itself */
    rf_link_params_t accept;
    void (*on_event)(struct end *end, rf_link_event_t event, const rf_link_event_info_t *info);
    void *user;
} end_t;

struct world {
    const fixture_t *fixture;
    void *medium;
    end_t end[3]; /* the third: opened by who needs it */
    char address[RF_ADDRESS_MAX];
    unsigned slots, slots_max; /* of both links; 0: the medium's defaults */
    uint64_t deadline_ns;      /* 0: the fixture's */
    rf_prng_t prng;
};

extern const fixture_t *conformance_fixture;
extern bool
    conformance_doorbell; /* endpoints opened from now on have one; they do unless a case changes it */

/* Opens endpoints a and b; with the fixture's deadline, or another. */
world_t *world_open(void);
world_t *world_open_until(uint64_t deadline_ns);
/* ... and a link between them, UP at both ends. */
world_t *world_linked(unsigned slots, unsigned slots_max);
void world_close(world_t *world);

rf_endpoint_params_t world_params(world_t *world, unsigned side);
void end_connect(end_t *end);
/* Opens one end, as a process or thread of its own would. */
void end_open(world_t *world, unsigned side);
void end_close(end_t *end);
void end_progress(end_t *end);

/* Progress at all ends, and virtual time. */
void world_pump(world_t *world);
/* Pumps until `condition(world)`; fails the case when nothing comes of it. */
void world_until(world_t *world, bool (*condition)(world_t *), const char *what);
/* In every loop that waits: fails the case when it has gone on since then for CONFORMANCE_HANG_NS. */
void hang_check(uint64_t since_ns, const char *what);
/* Tells what hang_check() does when it fails: for waits that fail by themselves. */
void hang_tell(const char *what);

/* watch.c: from here on a thread of this process ends it when the case at hand is blocked. */
void watch_start(void);
/* A case begins; NULL: it has ended. */
void watch_case(const char *name);
/* The case gets on. */
void watch_beat(void);
/* The world that is told of; NULL: none. */
void watch_world(const world_t *world);
/* Another process of this program is to tell on standard error where it is. */
void watch_ask(pid_t process);

/* Numbered slots: contents follow from the number, so that damage, loss, doubling and disorder all show. */
rf_slot_t slot_make(uint64_t number);
void slot_check(const rf_slot_t *slot, uint64_t number);
/* Sends as many of `n` next numbers as are taken, flushes, and returns how many. */
unsigned end_send(end_t *end, unsigned n);
/* Polls up to `max` and checks them; returns how many. */
unsigned end_receive(end_t *end, unsigned max);
/* Sends and receives until `n` numbers went from `from` to the other end. */
void world_stream(world_t *world, unsigned from, uint64_t n);

/* A region of 4096 bytes at b, with the number 0; one remote write of a's has been placed in it, with a notify slot if asked. */
void world_written(world_t *world, bool notify);

bool is_up(world_t *world);
bool is_b_ended(world_t *world);
bool is_a_ended(world_t *world);

bool fixture_can(unsigned flag, const char *what);

/* Sends a region's key from b to a, as a program would. */
rf_region_key_t world_key_over(world_t *world, const rf_region_t *region);
/* Bytes that follow from the seed. */
void bytes_fill(uint8_t *bytes, size_t size, uint64_t seed);

/* A process that lives on one end of the world; killed with this one. `serve` does not return. Skips the case where ends are
 * open here: User-Mode Linux leaves a child what its parent has mapped of memory that is not for children (MADV_DONTFORK), as
 * that of a verbs device is, and what the child maps there is the parent's. */
typedef struct child {
    pid_t pid;
    int from, to; /* pipes */
} child_t;

child_t child_start(world_t *world, void (*serve)(world_t *world, const child_t *parent, unsigned argument),
                    unsigned argument);
/* Both wait for all of it; a child whose parent is gone, or that waits for CONFORMANCE_HANG_NS, ends. */
void child_say(const child_t *child, const void *bytes, size_t size);
void child_hear(const child_t *child, void *bytes, size_t size);
void child_reap(child_t *child);

/* sockets.c: a fixture's `garbage`; every connection by TCP of this process is reset, and what its queues held is lost; every
 * socket of this process to one of these is shut. */
bool sockets_garbage(world_t *world, const char *address, const uint8_t *bytes, size_t size);
void sockets_reset(void);
void sockets_shut(const pid_t *peers, unsigned n);

/* The cases, by subject. */
extern const struct CMUnitTest cases_slots[], cases_life[], cases_break[], cases_bulk[], cases_wait[],
    cases_process[], cases_fence[], cases_lane[], cases_read[];
extern const size_t cases_slots_n, cases_life_n, cases_break_n, cases_bulk_n, cases_wait_n, cases_process_n,
    cases_fence_n, cases_lane_n, cases_read_n;

#endif
