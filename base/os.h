/*
 * Thin helpers over Linux calls that more than one folder needs: descriptors over Unix sockets, sealed memory
 * objects, process identity. No policy. Any thread unless said.
 */
#ifndef RF_BASE_OS_H
#define RF_BASE_OS_H

#include "base/error.h"
#include "base/types.h"

#include <sys/types.h>

#define RF_FDS_PER_MESSAGE_MAX 8

/* Sends one datagram with up to RF_FDS_PER_MESSAGE_MAX descriptors (they stay the caller's). Never blocks, never
 * raises SIGPIPE. RF_ERR_AGAIN when the socket is full, RF_ERR_CLOSED when the peer is gone. */
rf_err_t rf_fd_send(int socket, const void *bytes, size_t size, const int *fds, unsigned n_fds);

/* Receives one datagram; descriptors arrive close-on-exec and become the caller's, unused entries are -1.
 * `*size` holds the room and then the length. A datagram that is cut, or carries more descriptors than
 * `fds_max`, gives RF_ERR_PROTOCOL with every descriptor closed. RF_ERR_AGAIN: none there. RF_ERR_CLOSED: end. */
rf_err_t rf_fd_receive(int socket, void *bytes, size_t *size, int *fds, unsigned fds_max);

/* A memory object of `size` bytes, allocated, and sealed against shrinking, growing and further sealing. */
rf_err_t rf_memory_create(const char *name, size_t size, int *fd_out);

/* Checks that `fd` is such an object: a regular memfd of exactly `size` bytes with those three seals. Call it
 * before mapping anything that somebody else made: an unsealed object can be cut short and kills by SIGBUS. */
rf_err_t rf_memory_check(int fd, size_t size);

/* A read-only re-opening of a memory object, through /proc/self/fd; the caller owns the result. */
rf_err_t rf_memory_reopen_readonly(int fd, int *fd_out);

/* Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat); 0 when there is none.
 * (pid, start time) names a process for good; a pid alone does not. */
uint64_t rf_process_start_time(pid_t pid);

/* A pidfd for `pid` if its start time is `start_time` (0: any). -1 and errno otherwise. */
int rf_process_open(pid_t pid, uint64_t start_time);

/* Waits until the process behind `pidfd` has died. RF_ERR_TIMEOUT after `timeout_ms`. */
rf_err_t rf_process_wait_dead(int pidfd, int timeout_ms);

/* Pins the calling thread to one CPU of its allowed set. */
rf_err_t rf_cpu_pin(unsigned cpu);

/* Asks the kernel for short turns on the CPU (EEVDF's slice, from Linux 6.12 on), so that a process that sleeps most of the time gets it soon
 * when it wakes, also beside programs that never sleep. No more of the CPU in all, and nothing for what it forks. Earlier kernels
 * ignore it. */
void rf_sched_prompt(void);

/* The CPUs this process may use, ascending; returns how many, at most `max`. */
unsigned rf_cpu_allowed(unsigned *cpus, unsigned max);

/* Reads a whole small file (at most max-1 bytes, zero-terminated). Returns length or -1 and errno. */
ssize_t rf_file_read(const char *path, char *buffer, size_t max);

/* Writes a whole small file by a temporary name and rename, mode 0600: a reader sees the old or the new one. */
rf_err_t rf_file_write(const char *path, const char *bytes, size_t size);

/* All bytes, also over short writes and EINTR; blocking descriptors only. */
rf_err_t rf_write_all(int fd, const void *bytes, size_t size);

#endif
