/* The options of an endpoint: rdma.h says how they are written. Pure. */
#ifndef RF_TRANSPORT_RDMA_OPTIONS_H
#define RF_TRANSPORT_RDMA_OPTIONS_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define RDMA_NAME_MAX       64
#define RDMA_INLINE_DEFAULT 256
#define RDMA_SIGNAL_DEFAULT 16
#define RDMA_DEPTH_DEFAULT  128

typedef enum rdma_mode { RDMA_MODE_AUTO, RDMA_MODE_SEND, RDMA_MODE_WRITE } rdma_mode_t;

typedef struct rdma_options {
    char device[RDMA_NAME_MAX]; /* "": any */
    int port;                   /* 0: any */
    int gid_index;              /* -1: any */
    int traffic_class, service_level;
    int mtu; /* bytes; 0: the largest that both ends have */
    int pkey_index;
    int inline_size;  /* bytes of slots, or of a remote write, up to which a request carries them itself */
    int signal_every; /* requests of slots after which one is to say that it is done */
    int depth;        /* requests under way, of the slots' queue pair */
    rdma_mode_t mode;
} rdma_options_t;

/* Reads "name=value,...". NULL and "" are the defaults. RF_ERR_CONFIG: `why` says which part is wrong, and what it may be. */
rf_err_t rdma_options_parse(const char *text, rdma_options_t *out, char *why, size_t why_max);

#endif
