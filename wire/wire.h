/*
 * What the machine's processes say to each other inside a host, byte for byte. Little-endian, naturally aligned,
 * sizes asserted. Every message starts with rf_wire_header. doc/protocol.md has the table of message x sender x
 * receiver x meaning; the numbers live only here.
 *
 *   slot types   0x01-0x0f   channels between domains (the program's own)
 *                0x10-0x3f   kernel link: dispatcher <-> CPU driver             wire/kernel.h
 *                0x40-0x8f   client link: dispatcher or node <-> monitor        wire/client.h
 *                0x90-0xcf   peer link: monitor <-> monitor                     monitor/peer.h
 *                0xd0-0xdf   agreement messages, on peer links                  consensus/
 *                0xe0-0xef   streams, librackfish's own channel protocol        transport/stream.h, lib/
 *                0xf0-0xff   the medium's own
 */
#ifndef RF_WIRE_WIRE_H
#define RF_WIRE_WIRE_H

#include "base/error.h"
#include "base/types.h"

/* Roles in rf_hello.kind. */
enum {
    RF_ROLE_CPUDRIVER = 1,
    RF_ROLE_MONITOR = 2,
    RF_ROLE_DISPATCHER = 3,
    RF_ROLE_NODE = 4, /* rackfishd */
    RF_ROLE_TOOL = 5, /* benches and tests */
    RF_ROLE_LANE = 6, /* a monitor whose lane the other may write (monitor/lane_links.c) */
};

typedef struct rf_wire_header {
    uint32_t tag; /* the asker's number, echoed by the answer; 0 in events */
    uint16_t err; /* rf_err_t, in answers */
    uint16_t op;  /* which invocation, request or event */
} rf_wire_header_t;
_Static_assert(sizeof(rf_wire_header_t) == 8, "wire layout");

/* The environment of every process of a machine. */
#define RF_ENV_DISPATCHER_FD "RACKFISH_DISPATCHER_FD" /* descriptor of the kernel link's socket, in domains */
#define RF_DISPATCHER_FD     200                      /* where it is put: out of a shell's way */

#endif
