/*
 * Evidence that the monitor of a core of another node is dead, which that node's next rackfishd gives: what lived when it was last heard of,
 * and what lives now. The argument is in doc/agreement.md, *Evidence of a death*.
 *
 * A life of rackfishd says which kernel it is on and where it keeps its sockets; of each own core it says which incarnation's monitor
 * lives, and whether it has looked: whether it knows that nothing else of that core runs here, also if its run directory was lost.
 */
#ifndef RF_NODE_EVIDENCE_H
#define RF_NODE_EVIDENCE_H

#include "node/daemon.h"

#define RF_EVIDENCE_BOOT_MAX 40
#define RF_EVIDENCE_HOST_MAX 65

/* Where a life of rackfishd is. Empty: not known, which proves nothing. */
typedef struct rf_where {
    char boot[RF_EVIDENCE_BOOT_MAX]; /* of the kernel: /proc/sys/kernel/random/boot_id */
    char host
        [RF_EVIDENCE_HOST_MAX]; /* outlives a boot: a digest of /etc/machine-id; none in a container, which has its image's */
    char place[RF_PATH_MAX]; /* network namespace and the node's folder: there its monitors' sockets are */
} rf_where_t;

/* What a node says of one of its cores. */
typedef struct rf_core_said {
    bool said;                    /* else: it cannot tell now */
    bool looked;                  /* nothing of this core runs at its place but that incarnation */
    rf_incarnation_t incarnation; /* whose monitor lives; 0: none */
} rf_core_said_t;

/* The last that a node told to live. */
typedef struct rf_core_told {
    rf_incarnation_t incarnation; /* 0: none, or it is known to be dead */
    rf_machine_id_t machine;      /* which it was in */
    uint8_t instance[16];         /* which life of rackfishd said so, */
    rf_where_t where;             /* and where that was; */
    bool looked;                  /* it had looked there, so that is where this life had its socket */
} rf_core_told_t;

/* Is what was told then dead, by what life `instance` of that node's rackfishd, which is at `where`, says now? */
bool rf_evidence_is_dead(const rf_core_told_t *told, const uint8_t instance[16], const rf_where_t *where,
                         const rf_core_said_t *now);

/* How many sockets of a text as /proc/net/unix gives it have this path; of them, how many are listened on. */
unsigned rf_evidence_sockets(const char *text, const char *path, unsigned *listening);

/* Where this life is. */
void rf_evidence_where(const rf_daemon_t *daemon, rf_where_t *out);

/* Looks once more for what may run of the cores of which that is not known. True: more is known than before. */
bool rf_evidence_look(rf_daemon_t *daemon);

/* What is to be said of a core of this node. */
rf_core_said_t rf_evidence_of_core(const rf_local_core_t *core);

#endif
