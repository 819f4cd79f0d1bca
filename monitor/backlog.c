/*
 * What a link does not take now. Rings start small and grow only once the peer has read, so a burst to a peer that has
 * not had its turn on a shared CPU is normal; it waits here, in order, and goes out when the link reports room. Bounded:
 * what a peer may owe or be owed is bounded by the protocol, so only one that has stopped reading fills it.
 */
#include "monitor/shell.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct kept {
    kept_t *next;
    size_t size, head_size;
    unsigned n_fds;
    uint8_t type;
    int fds[MONITOR_FDS_MAX]; /* duplicates */
    uint8_t bytes[];          /* the message, then what comes with the descriptors */
};

static rf_err_t send_now(conn_t *conn, uint8_t type, const void *bytes, size_t size, const void *head,
                         size_t head_size, const int *fds, unsigned n_fds)
{
    rf_link_t *link = conn->link;
    unsigned slots = size == 0 ? 1 : (unsigned)((size + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD);
    if (link->transport->room(link, slots) < slots) return RF_ERR_AGAIN;
    if (n_fds > 0) {
        rf_err_t err = link->transport->pass_fds(link, head, head_size, fds, n_fds);
        if (err != RF_OK) return err;
    }
    rf_err_t err = rf_message_send(link, type, bytes, size);
    if (err == RF_OK) conn->dirty = true;
    return err;
}

static void kept_free(kept_t *kept)
{
    for (unsigned i = 0; i < kept->n_fds; i++) close(kept->fds[i]);
    free(kept);
}

static rf_err_t keep(conn_t *conn, const monitor_action_t *action)
{
    size_t cost = sizeof(kept_t) + action->size + action->head_size;
    if (conn->kept_bytes + cost > SHELL_BACKLOG_MAX) return RF_ERR_LIMIT;
    kept_t *kept = malloc(cost);
    if (!kept) return RF_ERR_NO_MEMORY;
    *kept = (kept_t){.size = action->size, .head_size = action->head_size, .type = action->type};
    memcpy(kept->bytes, action->bytes, action->size);
    if (action->head_size > 0) memcpy(kept->bytes + action->size, action->head, action->head_size);
    for (unsigned i = 0; i < action->n_fds; i++) {
        int fd = fcntl(action->fds[i], F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            kept_free(kept);
            return RF_ERR_OS;
        }
        kept->fds[kept->n_fds++] = fd;
    }
    *(conn->kept_last ? &conn->kept_last->next : &conn->kept) = kept;
    conn->kept_last = kept;
    conn->kept_bytes += cost;
    return RF_OK;
}

rf_err_t backlog_send(conn_t *conn, const monitor_action_t *action, bool may_wait)
{
    rf_err_t err = RF_ERR_AGAIN;
    if (!conn->kept)
        err = send_now(conn, action->type, action->bytes, action->size, action->head, action->head_size,
                       action->fds, action->n_fds);
    return err == RF_ERR_AGAIN && may_wait ? keep(conn, action) : err;
}

bool backlog_drain(conn_t *conn)
{
    bool any = false;
    while (conn->kept && !conn->ended) {
        kept_t *k = conn->kept;
        rf_err_t err =
            send_now(conn, k->type, k->bytes, k->size, k->bytes + k->size, k->head_size, k->fds, k->n_fds);
        if (err == RF_ERR_AGAIN) break;
        conn->kept = k->next;
        if (!conn->kept) conn->kept_last = NULL;
        conn->kept_bytes -= sizeof(kept_t) + k->size + k->head_size;
        kept_free(k);
        any = true;
    }
    return any;
}

void backlog_clear(conn_t *conn)
{
    while (conn->kept) {
        kept_t *kept = conn->kept;
        conn->kept = kept->next;
        kept_free(kept);
    }
    conn->kept_last = NULL;
    conn->kept_bytes = 0;
}
