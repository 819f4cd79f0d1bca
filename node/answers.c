#include "node/answers.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void rf_answers_begin(rf_answers_t *answers)
{
    *answers = (rf_answers_t){.fd = -1};
}

void rf_answers_end(rf_answers_t *answers)
{
    if (answers->fd >= 0) close(answers->fd);
    answers->fd = -1;
}

static bool closed_by_peer(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, sizeof byte, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* -1: nobody listens, or (errno is EAGAIN) as many as may wait do. */
static int ask(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    errno = ENAMETOOLONG;
    if (strlen(path) >= sizeof address.sun_path) return -1;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && shutdown(fd, SHUT_WR) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

void rf_answers_ask(rf_answers_t *answers, const char *socket)
{
    if (answers->fd >= 0) return;
    answers->fd = ask(socket);
    answers->full = answers->fd < 0 && errno == EAGAIN;
}

unsigned rf_answers_look(rf_answers_t *answers, const char *socket)
{
    bool answered = answers->fd >= 0 && closed_by_peer(answers->fd);
    if (answered) {
        rf_answers_end(answers);
        answers->ever = true;
    }
    answers->silent = answered ? 0 : answers->silent + 1;
    rf_answers_ask(answers, socket);
    return answers->silent;
}
