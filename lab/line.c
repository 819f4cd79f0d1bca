#include "lab/line.h"

#include "base/clock.h"

#include <unistd.h>

#define NUDGE_NS                                                                                             \
    (250 * RF_NS_PER_MS) /* first after that, then at twice the time, at most NUDGE_NS_MAX apart */
#define NUDGE_NS_MAX (4 * RF_NS_PER_S)
#define QUIET_NS     (5 * RF_NS_PER_S) /* a guest in which programs run, and that owes nothing */
#define NUDGE_SIZE   8                 /* an empty frame */

static void owe(lab_line_t *line, bool owes, uint64_t now_ns)
{
    line->owes_ns = owes ? now_ns : 0;
    line->interval_ns = NUDGE_NS;
    line->nudge_at_ns = now_ns + NUDGE_NS;
    line->nudges = 0;
}

void lab_line_open(lab_line_t *line, int fd, size_t buffer_max, uint64_t now_ns)
{
    *line = (lab_line_t){
        .fd = fd, .room = LAB_LINE_WINDOW, .in.max = buffer_max, .out.max = buffer_max, .heard_ns = now_ns};
    owe(line, false, now_ns);
}

void lab_line_close(lab_line_t *line)
{
    if (line->fd >= 0) close(line->fd);
    lab_free(&line->in);
    lab_free(&line->out);
    *line = (lab_line_t){.fd = -1};
}

size_t lab_line_unread(const lab_line_t *line)
{
    return LAB_LINE_WINDOW + line->beyond - line->room;
}

rf_err_t lab_line_flush(lab_line_t *line, uint64_t now_ns)
{
    rf_err_t err = lab_flush_some(&line->out, line->fd, &line->room);
    if (!line->owes_ns && lab_line_unread(line) > 0) owe(line, true, now_ns);
    return err;
}

rf_err_t lab_line_read(lab_line_t *line, uint64_t now_ns)
{
    rf_err_t err = lab_read(&line->in, line->fd);
    if (err != RF_OK) return err;
    lab_line_forgive(line, now_ns);
    return RF_OK;
}

void lab_line_forgive(lab_line_t *line, uint64_t now_ns)
{
    line->heard_ns = now_ns;
    owe(line, line->owes_ns != 0, now_ns);
}

void lab_line_taken(lab_line_t *line, size_t bytes, uint64_t now_ns)
{
    size_t unread = lab_line_unread(line);
    line->room += bytes < unread ? bytes : unread;
    size_t back = line->beyond < line->room ? line->beyond : line->room;
    line->room -= back;
    line->beyond -= back;
    owe(line, lab_line_unread(line) > 0, now_ns);
}

uint64_t lab_line_due(const lab_line_t *line, bool busy)
{
    if (line->owes_ns) return line->nudge_at_ns;
    return busy ? line->heard_ns + QUIET_NS : RF_NEVER;
}

/* More room than there is now, up to `wanted`. */
static bool widen(lab_line_t *line, size_t wanted)
{
    if (line->room >= wanted) return true;
    size_t more = wanted - line->room;
    if (line->beyond + more > LAB_LINE_BEYOND) return false;
    line->beyond += more;
    line->room += more;
    return true;
}

void lab_line_nudge(lab_line_t *line, bool busy, uint64_t now_ns)
{
    if (now_ns < lab_line_due(line, busy)) return;
    bool waits = lab_left(&line->out) > 0;
    if (widen(line, waits ? 1 : NUDGE_SIZE) && !waits) (void)lab_put(&line->out, LAB_NUDGE, 0, NULL, 0);
    if (!line->owes_ns) return; /* it will, when the frame is sent */
    line->nudges++;
    line->nudge_at_ns = now_ns + line->interval_ns;
    if (line->interval_ns < NUDGE_NS_MAX) line->interval_ns *= 2;
}

uint64_t lab_line_silent_ns(const lab_line_t *line, uint64_t now_ns)
{
    return line->owes_ns && now_ns > line->owes_ns ? now_ns - line->owes_ns : 0;
}
