#include "cli/run_output.h"

#include "cli/run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void run_sink_open(run_sink_t *sink, int fd)
{
    struct stat st;
    sink->fd = fd;
    sink->closed = fstat(fd, &st) < 0;
    sink->direct = !sink->closed && S_ISREG(st.st_mode);
}

void run_sink_append(run_sink_t *sink, const void *bytes, size_t size)
{
    if (sink->closed || size == 0) return;
    if (sink->used + size > sink->room) {
        size_t room = sink->room ? sink->room : RUN_SINK_MAX;
        while (room < sink->used + size) room *= 2;
        uint8_t *fresh = realloc(sink->bytes, room);
        if (!fresh) { /* bounded by the credits: a few MiB */
            sink->closed = true;
            return;
        }
        sink->bytes = fresh;
        sink->room = room;
    }
    memcpy(sink->bytes + sink->used, bytes, size);
    sink->used += size;
}

int run_sink_write(run_sink_t *sink, bool several)
{
    size_t done = 0;
    while (done < sink->used) {
        /* At most PIPE_BUF at a time where it said that it is writable. */
        size_t left = sink->used - done, chunk = sink->direct || left < PIPE_BUF ? left : PIPE_BUF;
        struct pollfd p = {.fd = sink->fd, .events = POLLOUT};
        if (!sink->direct && (poll(&p, 1, 0) <= 0 || !(p.revents & (POLLOUT | POLLERR | POLLHUP)))) break;
        if (several && chunk < left) { /* end at a line */
            const uint8_t *newline = memrchr(sink->bytes + done, '\n', chunk);
            if (newline) chunk = (size_t)(newline - (sink->bytes + done)) + 1;
        }
        ssize_t n = write(sink->fd, sink->bytes + done, chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) {
            sink->closed = true;
            sink->used = 0;
            return errno;
        }
        done += (size_t)n;
    }
    sink->used -= done;
    memmove(sink->bytes, sink->bytes + done, sink->used);
    return 0;
}

static void hand_on(run_lines_t *lines, run_sink_t *sink, const char *label)
{
    run_sink_append(sink, label, strlen(label));
    run_sink_append(sink, lines->bytes, lines->used);
    lines->used = 0;
}

void run_lines_add(run_lines_t *lines, run_sink_t *sink, const char *label, const uint8_t *bytes, size_t size)
{
    if (!lines->bytes && !(lines->bytes = malloc(RUN_LINE_MAX))) return;
    while (size > 0) {
        const uint8_t *newline = memchr(bytes, '\n', size);
        size_t n = newline ? (size_t)(newline - bytes) + 1 : size;
        if (n > RUN_LINE_MAX - lines->used) n = RUN_LINE_MAX - lines->used;
        memcpy(lines->bytes + lines->used, bytes, n);
        lines->used += n;
        bytes += n;
        size -= n;
        if (lines->bytes[lines->used - 1] == '\n' || lines->used == RUN_LINE_MAX) hand_on(lines, sink, label);
    }
}

void run_lines_end(run_lines_t *lines, run_sink_t *sink, const char *label)
{
    if (lines->used == 0) return;
    hand_on(lines, sink, label);
    run_sink_append(sink, "\n", 1);
}
