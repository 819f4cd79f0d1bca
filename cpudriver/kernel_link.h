/*
 * The CPU driver's end of the kernel links: one shm link a dispatcher, all on one endpoint, whose
 * descriptor is in the epoll set: a peer that finds us asleep makes it readable.
 *
 * A dispatcher's socket is only watched until the dispatcher connects, so a program that never asks its CPU driver
 * for anything costs a descriptor and no ring. What a dispatcher sends can only harm its own link: per turn and per
 * RF_CORE_SERVE_WINDOW_NS it gets a bounded part of this process's time, its link is read only while there is room
 * for the answer, and bytes outside the protocol end the link (logged once per second at most, for all).
 */
#ifndef RF_CPUDRIVER_KERNEL_LINK_H
#define RF_CPUDRIVER_KERNEL_LINK_H

#include "cpudriver/core.h"

rf_err_t rf_kernel_link_open(rf_cpudriver_t *driver);

/* Watches `socket` (owned from then on, also on failure) until the dispatcher connects. */
rf_err_t rf_kernel_link_attach(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher, int socket);

/* Ends link or socket, and drops what hung on them: timers, watches, signals as messages, parked descriptors. */
void rf_kernel_link_detach(rf_cpudriver_t *driver, rf_dispatcher_t *dispatcher);

bool rf_kernel_link_up(const rf_dispatcher_t *dispatcher);

/* Serves every link for a bounded time. True: there is more to do at once. */
bool rf_kernel_link_serve(rf_cpudriver_t *driver);

/* One message; RF_ERR_AGAIN: no room (the caller keeps its note and is called again by settle). */
rf_err_t rf_kernel_link_send(rf_cpudriver_t *driver, rf_dispatcher_t *to, uint8_t type,
                             rf_wire_header_t header, const void *body, size_t size);
rf_err_t rf_kernel_link_pass(rf_dispatcher_t *to, rf_kernel_fds_t head, int fd);

/* Takes the descriptors that came for an invocation: how many, 0 if none. They become the caller's. */
unsigned rf_kernel_link_take_fds(rf_cpudriver_t *driver, rf_dispatcher_t *from, uint32_t tag, uint16_t op,
                                 int fds[RF_CORE_CREATE_FDS_MAX]);

/* The verb that blocks: arms the links, then rf_core_sleep(). */
void rf_kernel_link_sleep(rf_cpudriver_t *driver, bool more);

#endif
