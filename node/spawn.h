/* Starting the system's processes: in a session of their own, with nothing of rackfishd's but what they are given. */
#ifndef RF_NODE_SPAWN_H
#define RF_NODE_SPAWN_H

#include <sys/types.h>

typedef struct rf_spawn {
    const char *program;
    char *const *argv; /* with its name, ended by NULL */
    const char *log;   /* standard output and error are appended to it; made for its owner alone */
    int fd, fd_there;  /* one descriptor it is given, and its number there (3 or above); -1: none */
} rf_spawn_t;

/* 0 and the process, a child of ours, or an errno. */
int rf_spawn(const rf_spawn_t *plan, pid_t *pid);

#endif
