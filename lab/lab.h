/*
 * The lab: a rack of Linux hosts, two to five with real RDMA devices, on this one. Each host is a guest, Linux itself as a
 * process (User-Mode Linux, built by kernel.sh with Soft-RoCE and soft-iWARP, or where none can be built Debian's kernel in QEMU), on
 * the host's own files, read-only below what the guest writes into its memory. For DPDK, which wants a fast network and no device, a guest has no kernel of its own:
 * it is processes of this one in namespaces, and one more such guest is the wire between them. README.md shows its use.
 *
 *   rf-lab COMMAND ──unix socket── supervisor ──serial line── guest 1: rf-lab-guest ── programs
 *   (client.c)              (session.c, supervisor.c) └───────── guest 2 ...
 *                                                  guests are joined by cables: socket pairs, one for each two;
 *                                                  without a kernel of their own, by veth pairs with the wire's bridge
 *
 * The supervisor owns the guests: they end with it, however it ends (spawn.h).
 */
#ifndef RF_LAB_LAB_H
#define RF_LAB_LAB_H

#include "base/error.h"
#include "lab/frame.h"

#include <stdbool.h>
#include <sys/types.h>

#define LAB_PATH_MAX 1024
#define LAB_UML_FOLDER                                                                                       \
    "/dev/shm/uml" /* in a guest's mount namespace: where its kernel keeps the socket of its console */

/* Exit statuses of rf-lab, besides a program's own. */
enum {
    LAB_OK = 0,
    LAB_FAILED = 1,
    LAB_USAGE = 2,
    LAB_NO_LAB = 3,
    LAB_SKIPPED = 77, /* this host cannot have a lab; the reason was printed */
    LAB_TIMEOUT = 124,
    LAB_LOST = 125, /* the guest died, or the lab */
};

typedef struct lab_options {
    const char *name;
    unsigned hosts;
    unsigned memory_mib;
    unsigned mtu;
    const char *device; /* of the guests; "dpdk": they have no kernel of their own */
    pid_t owner;        /* the lab ends with this process; 0: only by `down` */
    bool background;
} lab_options_t;

/* The wire between guests without a kernel of their own is one more guest, after the last. */
static inline unsigned lab_wire_of(unsigned hosts)
{
    return hosts + 1;
}

/* Where things are. */
typedef struct lab_place {
    char folder[LAB_PATH_MAX]; /* of this lab: socket, consoles, pid */
    char socket[LAB_PATH_MAX + 16];
    char lib[LAB_PATH_MAX]; /* guest-init.sh, kernel.sh, rf-lab-guest */
} lab_place_t;

/* "rf-lab: TEXT" to stderr; returns LAB_FAILED. */
int lab_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Finds the places for a lab of that name; false with a message printed. */
bool lab_place_find(const char *name, lab_place_t *place);

/* Removes a lab's folder with what is in it; false and errno when it is still there. */
bool lab_place_clear(const lab_place_t *place);

/* Runs the supervisor until the lab is down. Writes one byte to `ready` once its socket is there, and closes it. */
int lab_supervise(const lab_options_t *options, const lab_place_t *place, const char *kernel, int ready);

/* What was printed, ended by 0; the rest of what is longer is dropped. */
typedef struct lab_text {
    char bytes[LAB_PAYLOAD_MAX];
    size_t used;
} lab_text_t;

/* Asks the supervisor; prints what it answers, or puts it into `answer` if there is one. */
int lab_ask(const lab_place_t *place, const char *const *words, unsigned n, unsigned timeout_ms,
            lab_text_t *answer);

typedef struct lab_program {
    unsigned guest;
    bool terminal;
    unsigned timeout_ms; /* 0: none */
    const char *const *arguments;
    unsigned n_arguments;
    const char *directory; /* NULL: where we are */
} lab_program_t;

/* Runs a program in a guest as if it were here; its exit status, or one of ours. */
int lab_run_program(const lab_place_t *place, const lab_program_t *program);

/* The same with an empty stdin; what it prints goes to `output`, and a time that is over is not explained. */
int lab_run_quietly(const lab_place_t *place, const lab_program_t *program, lab_text_t *output);

/* To stderr, when a command in that guest did not end in time: what runs there, or, where the guest itself does not answer, what is
 * on its line and where its kernel is. At most 20 lines; takes up to 16 s. */
void lab_explain(const lab_place_t *place, unsigned guest);

#endif
