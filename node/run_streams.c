#include "node/run_streams.h"

#include "base/log.h"
#include "node/run_session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define PIPE_SIZE       (256 << 10)
#define PIECES_PER_TURN 8
#define TTY_EOF         0x04

static bool send_data(rf_run_output_t *output, const uint8_t *bytes, size_t size, bool end)
{
    Rackfish__RunData data;
    rackfish__run_data__init(&data);
    data.stream = output->stream;
    data.data = (ProtobufCBinaryData){.data = (uint8_t *)(uintptr_t)bytes, .len = size};
    data.end = end;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = output->streams->id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_DATA;
    reply.run_data = &data;
    return rf_client_reply(output->streams->client, &reply);
}

/* ---- output ---- */

static void output_events(void *context, uint32_t events);

static void output_watch(rf_run_output_t *output, bool on)
{
    rf_loop_t *loop = &output->streams->daemon->loop;
    if (on && !output->watched)
        output->watched =
            rf_loop_add(loop, &output->source, output->fd, EPOLLIN, output_events, output) == RF_OK;
    if (!on && output->watched) {
        /* Removed, not masked: a pipe whose writer has gone would report that again and again. */
        rf_loop_remove(loop, &output->source);
        output->watched = false;
    }
}

static void output_end(rf_run_output_t *output)
{
    rf_run_streams_t *streams = output->streams;
    output_watch(output, false);
    close(output->fd);
    output->fd = -1;
    if (streams->client) send_data(output, NULL, 0, true);
    streams->changed(streams->context);
}

static void output_pump(rf_run_output_t *output)
{
    static uint8_t bytes[RF_RUN_PIECE];
    rf_run_streams_t *streams = output->streams;
    for (unsigned piece = 0; piece < PIECES_PER_TURN && output->fd >= 0; piece++) {
        bool drop = !streams->client || output->discard;
        if (!drop && (output->credit == 0 || rf_conn_full(streams->client->conn))) {
            output_watch(output, false);
            return;
        }
        size_t wanted = drop || output->credit > sizeof bytes ? sizeof bytes : (size_t)output->credit;
        ssize_t n;
        do {
            n = read(output->fd, bytes, wanted);
        } while (n < 0 && errno == EINTR);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) { /* a terminal whose other side is closed says EIO */
            output_end(output);
            return;
        }
        if (!drop) {
            output->credit -= (uint64_t)n;
            if (!send_data(output, bytes, (size_t)n, false)) return;
        }
    }
    if (output->fd >= 0) output_watch(output, true);
}

static void output_events(void *context, uint32_t events)
{
    (void)events;
    output_pump(context);
}

/* ---- input ---- */

static void stdin_grant(rf_run_streams_t *streams)
{
    size_t waiting = streams->stdin_end - streams->stdin_start;
    if (!streams->client || streams->stdin_owed == 0 ||
        (waiting > 0 && streams->stdin_owed < RF_RUN_STDIN_CREDIT / 4))
        return;
    Rackfish__RunCredit credit;
    rackfish__run_credit__init(&credit);
    credit.stream = RACKFISH__RUN_STREAM__STDIN;
    credit.bytes = streams->stdin_owed;
    Rackfish__ControlReply reply;
    rackfish__control_reply__init(&reply);
    reply.id = streams->id;
    reply.more = true;
    reply.kind_case = RACKFISH__CONTROL_REPLY__KIND_RUN_CREDIT;
    reply.run_credit = &credit;
    streams->stdin_credit += streams->stdin_owed;
    streams->stdin_owed = 0;
    rf_client_reply(streams->client, &reply);
}

static void stdin_close(rf_run_streams_t *streams)
{
    if (streams->stdin_watched) rf_loop_remove(&streams->daemon->loop, &streams->stdin_source);
    streams->stdin_watched = false;
    if (streams->stdin_fd >= 0) close(streams->stdin_fd);
    streams->stdin_fd = -1;
    streams->stdin_start = streams->stdin_end = 0;
}

/* Writes as much as the pipe takes; how much that was. A program that closed its stdin takes everything, like /dev/null. */
static size_t stdin_write(rf_run_streams_t *streams, const uint8_t *bytes, size_t size)
{
    size_t done = 0;
    while (done < size && streams->stdin_fd >= 0) {
        ssize_t n = write(streams->stdin_fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return done;
        if (n < 0) {
            stdin_close(streams);
            break;
        }
        done += (size_t)n;
    }
    return streams->stdin_fd >= 0 ? done : size;
}

static void stdin_events(void *context, uint32_t events);

/* A terminal's end is a byte, for which there may be no room now, either. */
static bool stdin_end_written(rf_run_streams_t *streams)
{
    static const uint8_t end = TTY_EOF;
    return !streams->tty || stdin_write(streams, &end, 1) == 1;
}

static void stdin_settle(rf_run_streams_t *streams)
{
    bool waiting = streams->stdin_end > streams->stdin_start;
    if (!waiting && streams->stdin_ended && streams->stdin_fd >= 0) {
        waiting = !stdin_end_written(streams);
        if (!waiting) stdin_close(streams);
    }
    if (waiting && !streams->stdin_watched && streams->stdin_fd >= 0)
        streams->stdin_watched = rf_loop_add(&streams->daemon->loop, &streams->stdin_source,
                                             streams->stdin_fd, EPOLLOUT, stdin_events, streams) == RF_OK;
    if (!waiting && streams->stdin_watched) {
        rf_loop_remove(&streams->daemon->loop, &streams->stdin_source);
        streams->stdin_watched = false;
    }
    stdin_grant(streams);
}

static void stdin_events(void *context, uint32_t events)
{
    (void)events;
    rf_run_streams_t *streams = context;
    size_t waiting = streams->stdin_end - streams->stdin_start;
    size_t done =
        waiting > 0 ? stdin_write(streams, streams->stdin_bytes + streams->stdin_start, waiting) : 0;
    streams->stdin_owed += done;
    if (streams->stdin_fd >= 0) streams->stdin_start += done;
    if (streams->stdin_start == streams->stdin_end) streams->stdin_start = streams->stdin_end = 0;
    stdin_settle(streams);
}

static rf_err_t stdin_data(rf_run_streams_t *streams, const Rackfish__RunData *data)
{
    const uint8_t *bytes = data->data.data;
    size_t size = data->data.len;
    if (size > streams->stdin_credit || (size > 0 && streams->stdin_ended)) return RF_ERR_PROTOCOL;
    streams->stdin_credit -= size;
    if (data->end) streams->stdin_ended = true;
    size_t done = streams->stdin_end == streams->stdin_start ? stdin_write(streams, bytes, size) : 0;
    streams->stdin_owed += done;
    if (done < size) {
        if (!streams->stdin_bytes && !(streams->stdin_bytes = malloc(RF_RUN_STDIN_CREDIT)))
            return RF_ERR_NO_MEMORY;
        if (streams->stdin_end + (size - done) > RF_RUN_STDIN_CREDIT) {
            memmove(streams->stdin_bytes, streams->stdin_bytes + streams->stdin_start,
                    streams->stdin_end - streams->stdin_start);
            streams->stdin_end -= streams->stdin_start;
            streams->stdin_start = 0;
        }
        /* Fits: credit and what waits here together never exceed RF_RUN_STDIN_CREDIT. */
        memcpy(streams->stdin_bytes + streams->stdin_end, bytes + done, size - done);
        streams->stdin_end += size - done;
    }
    stdin_settle(streams);
    return RF_OK;
}

/* ---- the whole ---- */

static bool make_pipe(int fds[2], int ours)
{
    if (pipe2(fds, O_CLOEXEC) < 0) return false;
    fcntl(fds[0], F_SETPIPE_SZ, PIPE_SIZE); /* a wish: there is a limit a user */
    return fcntl(fds[ours], F_SETFL, O_NONBLOCK | (ours == 1 ? O_WRONLY : O_RDONLY)) == 0;
}

static rf_err_t open_terminal(rf_run_streams_t *streams, unsigned rows, unsigned columns, uid_t uid,
                              int child_fds[3])
{
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (master < 0) return RF_ERR_OS;
    streams->outputs[0].fd = master;
    if (grantpt(master) < 0 || unlockpt(master) < 0 || ptsname_r(master, name, sizeof name) != 0)
        return RF_ERR_OS;
    child_fds[0] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (child_fds[0] < 0) return RF_ERR_OS;
    if (uid != (uid_t)-1 && fchown(child_fds[0], uid, (gid_t)-1) < 0)
        rf_log(RF_LOG_DEBUG, "the terminal %s stays the system user's: %m", name);
    child_fds[1] = fcntl(child_fds[0], F_DUPFD_CLOEXEC, 0);
    child_fds[2] = fcntl(child_fds[0], F_DUPFD_CLOEXEC, 0);
    streams->stdin_fd = fcntl(master, F_DUPFD_CLOEXEC, 0);
    if (child_fds[1] < 0 || child_fds[2] < 0 || streams->stdin_fd < 0) return RF_ERR_OS;
    rf_run_streams_resize(streams, rows, columns);
    return RF_OK;
}

rf_err_t rf_run_streams_open(rf_run_streams_t *streams, bool tty, unsigned rows, unsigned columns, uid_t uid,
                             int child_fds[3])
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
    streams->tty = tty;
    child_fds[0] = child_fds[1] = child_fds[2] = -1;
    streams->stdin_fd = -1;
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++)
        streams->outputs[i] =
            (rf_run_output_t){.streams = streams,
                              .fd = -1,
                              .stream = i == 0 ? RACKFISH__RUN_STREAM__STDOUT : RACKFISH__RUN_STREAM__STDERR};
    if (tty) return open_terminal(streams, rows, columns, uid, child_fds);
    bool ok = make_pipe(in, 1) && make_pipe(out, 0) && make_pipe(err, 0);
    child_fds[0] = in[0];
    child_fds[1] = out[1];
    child_fds[2] = err[1];
    streams->stdin_fd = in[1];
    streams->outputs[0].fd = out[0];
    streams->outputs[1].fd = err[0];
    return ok ? RF_OK : RF_ERR_OS;
}

void rf_run_streams_start(rf_run_streams_t *streams, uint64_t stdout_credit, uint64_t stderr_credit)
{
    streams->stdin_credit = RF_RUN_STDIN_CREDIT;
    streams->outputs[0].credit = stdout_credit;
    streams->outputs[1].credit = stderr_credit;
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) {
        if (streams->outputs[i].fd >= 0) output_watch(&streams->outputs[i], true);
    }
}

rf_err_t rf_run_streams_data(rf_run_streams_t *streams, const Rackfish__RunData *data)
{
    if (data->stream == RACKFISH__RUN_STREAM__STDIN) return stdin_data(streams, data);
    if (!data->end || data->data.len > 0 || data->stream > RACKFISH__RUN_STREAM__STDERR)
        return RF_ERR_PROTOCOL;
    rf_run_output_t *output = &streams->outputs[data->stream == RACKFISH__RUN_STREAM__STDOUT ? 0 : 1];
    if (output->fd < 0) return RF_OK;
    if (streams->tty) { /* closing the terminal would hang the program up */
        output->discard = true;
        output_watch(output, true);
        return RF_OK;
    }
    output_watch(output, false);
    close(output->fd);
    output->fd = -1;
    streams->changed(streams->context);
    return RF_OK;
}

rf_err_t rf_run_streams_credit(rf_run_streams_t *streams, const Rackfish__RunCredit *credit)
{
    if (credit->stream != RACKFISH__RUN_STREAM__STDOUT && credit->stream != RACKFISH__RUN_STREAM__STDERR)
        return RF_ERR_PROTOCOL;
    rf_run_output_t *output = &streams->outputs[credit->stream == RACKFISH__RUN_STREAM__STDOUT ? 0 : 1];
    if (credit->bytes > UINT64_MAX - output->credit) return RF_ERR_PROTOCOL;
    output->credit += credit->bytes;
    if (output->fd >= 0 && output->credit > 0) output_watch(output, true);
    return RF_OK;
}

void rf_run_streams_resize(rf_run_streams_t *streams, unsigned rows, unsigned columns)
{
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    if (streams->tty && rows > 0 && columns > 0 && streams->outputs[0].fd >= 0)
        ioctl(streams->outputs[0].fd, TIOCSWINSZ, &size);
}

void rf_run_streams_room(rf_run_streams_t *streams)
{
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) {
        if (streams->outputs[i].fd >= 0 && streams->outputs[i].credit > 0)
            output_watch(&streams->outputs[i], true);
    }
}

void rf_run_streams_abandon(rf_run_streams_t *streams)
{
    streams->client = NULL;
    stdin_close(streams);
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) {
        if (streams->outputs[i].fd >= 0) output_watch(&streams->outputs[i], true);
    }
}

bool rf_run_streams_drained(const rf_run_streams_t *streams)
{
    return streams->outputs[0].fd < 0 && streams->outputs[1].fd < 0;
}

bool rf_run_streams_idle(const rf_run_streams_t *streams)
{
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) {
        if (streams->outputs[i].fd >= 0 && !streams->outputs[i].watched) return false;
    }
    return true;
}

void rf_run_streams_close(rf_run_streams_t *streams)
{
    stdin_close(streams);
    for (unsigned i = 0; i < RF_STREAM_OUTPUTS; i++) {
        rf_run_output_t *output = &streams->outputs[i];
        if (output->fd < 0) continue;
        output_watch(output, false);
        close(output->fd);
        output->fd = -1;
    }
    free(streams->stdin_bytes);
    streams->stdin_bytes = NULL;
}
