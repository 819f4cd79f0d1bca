/*
 * Shutdown of this core, for `down`: its domains end, then it answers and exits, and the CPU driver with it.
 *
 *   TERM   every dispatcher has got TERM; a grace passes, or all have gone
 *   KILL   those that are left are destroyed
 *   the answer, and exit
 */
#include "monitor/state.h"

enum { TERM = 1, KILL };

#define SIGNAL_TERM 15

static bool any_left(const monitor_t *m)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        if (m->locals[i].state == LOCAL_RUNNING || m->locals[i].state == LOCAL_CREATING) return true;
    }
    return false;
}

void shutdown_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request)
{
    op_t *op = op_begin_for_client(m, OP_SHUTDOWN, client, request, m->now_ns + SHUTDOWN_GRACE_NS);
    if (!op) return;
    op->state = TERM;
    m->phase = PHASE_SHUTDOWN;
    out_log(m, RF_LOG_INFO, "shutting down");
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state != LOCAL_RUNNING) continue;
        rf_kernel_signal_t signal = {
            .domain = l->domain, .index = l->index, .signo = SIGNAL_TERM, .whole = 1};
        kernel_invoke(m, 0, RF_KERNEL_SIGNAL, &signal, sizeof signal, NULL, 0);
    }
}

static void timeout(monitor_t *m, op_t *op)
{
    if (op->state == TERM) {
        op->state = KILL;
        op_deadline(m, op, m->now_ns + SHUTDOWN_KILL_NS);
        for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
            const local_t *l = &m->locals[i];
            if (l->state != LOCAL_RUNNING) continue;
            rf_kernel_target_t target = {.domain = l->domain, .index = l->index};
            kernel_invoke(m, 0, RF_KERNEL_DESTROY, &target, sizeof target, NULL, 0);
        }
        return;
    }
    out_log(m, RF_LOG_WARN, "dispatchers are left; the CPU driver kills them");
    m->exit_status = MONITOR_EXIT_SHUTDOWN;
    op_reply(m, op, RF_OK, NULL, 0);
}

void shutdown_progress(monitor_t *m)
{
    if (m->phase != PHASE_SHUTDOWN || m->exit_status >= 0 || any_left(m)) return;
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        if (m->ops[i].kind == OP_SHUTDOWN) op_reply(m, &m->ops[i], RF_OK, NULL, 0);
    }
    m->exit_status = MONITOR_EXIT_SHUTDOWN;
}

const op_class_t op_shutdown_class = {.name = "shutdown", .timeout = timeout};
