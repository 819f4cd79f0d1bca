/*
 * The commands' sessions with the supervisor: what each asks, and frames between it and the guest in which its program runs.
 *
 * A connection is one session; it has a number of its own on the guest's line for as long as it lives. When a guest dies its sessions
 * end with LAB_LOST; when a command goes, the guest is told. While there is no descriptor for a connection, who connects waits.
 */
#ifndef RF_LAB_SESSION_H
#define RF_LAB_SESSION_H

#include "lab/frame.h"
#include "lab/supervisor.h"

#include <poll.h>

#define LAB_SESSION_FDS (1 + LAB_SESSIONS_MAX)

/* Listens at the lab's socket; false and errno where that cannot be. */
bool lab_sessions_open(void);

/* Answers those who have waited for a guest, sends what there is, and fills in what to poll for. Milliseconds until it is to be called
 * again, for poll; -1: when one of `fds` says so. */
int lab_sessions_prepare(struct pollfd fds[LAB_SESSION_FDS]);

/* Takes what poll has found. */
void lab_sessions_read(const struct pollfd fds[LAB_SESSION_FDS]);

/* From the guest's line: to whom it belongs. */
void lab_sessions_frame(unsigned g, const lab_frame_t *frame);

/* A guest is ready, or off: those who wait for all guests may have an answer. */
void lab_sessions_guest_ready(void);
void lab_sessions_guest_off(unsigned g);

/* Whether programs run in it. */
bool lab_sessions_in(unsigned g);

/* To all who still listen, whoever asked for the end among them: these guests, not 0, have not ended in time. */
void lab_sessions_tell_of_those_left(const pid_t *pids);

#endif
