/* The CPU driver of this core: its answers and events, and the dispatchers that it runs here. */
#include "monitor/state.h"

#define IDENTIFY_TAG UINT32_MAX /* no operation's number */

local_t *local_find(monitor_t *m, rf_domain_t domain, unsigned index)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX && domain != RF_DOMAIN_NONE; i++) {
        local_t *l = &m->locals[i];
        if (l->state != LOCAL_FREE && l->domain == domain && l->index == index) return l;
    }
    return NULL;
}

local_t *local_add(monitor_t *m, bool reserved)
{
    local_t *place = NULL;
    unsigned used = 0;
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        local_t *l = &m->locals[i];
        if (l->state != LOCAL_FREE)
            used++;
        else if (!place)
            place = l;
    }
    if (!place || used >= MONITOR_LOCAL_MAX - (reserved ? 0 : LOCAL_RESERVED)) return NULL;
    *place = (local_t){.state = LOCAL_CREATING, .block_fd = -1, .executable_fd = -1, .client = NO_CLIENT};
    return place;
}

void local_free(monitor_t *m, local_t *local)
{
    out_close_fd(m, &local->block_fd);
    out_close_fd(m, &local->executable_fd);
    local->state = LOCAL_FREE;
    local->domain = RF_DOMAIN_NONE;
    local->client = NO_CLIENT;
}

void local_kill_domain(monitor_t *m, rf_domain_t domain)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state != LOCAL_RUNNING || l->domain != domain) continue;
        rf_kernel_target_t target = {.domain = domain, .index = l->index};
        kernel_invoke(m, 0, RF_KERNEL_DESTROY, &target, sizeof target, NULL, 0);
    }
}

void kernel_reconcile(monitor_t *m)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state != LOCAL_RUNNING) continue;
        const domain_t *d = domain_find(m, l->domain);
        if (!d || !(d->alive >> l->index & 1)) local_kill_domain(m, l->domain);
    }
    /* What was agreed for this core by an entry that the snapshot has passed over: whoever asked was told that the outcome is
     * unknown, so it never starts. */
    bool in = core_is_member(m, m->core) && core_agreed(m, m->core) == m->incarnation;
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX && in; i++) {
        const domain_t *d = &m->domains[i];
        for (unsigned k = 0; d->id != RF_DOMAIN_NONE && k < d->n_dispatchers; k++) {
            if (((d->alive | d->ending) >> k & 1) && d->cores[k] == m->core && !local_find(m, d->id, k))
                end_orphan(m, d->id, k);
        }
    }
}

void kernel_up(monitor_t *m)
{
    m->kernel_up = true;
    kernel_invoke(m, IDENTIFY_TAG, RF_KERNEL_IDENTIFY, NULL, 0, NULL, 0);
}

static void identified(monitor_t *m, const uint8_t *bytes, size_t size)
{
    rf_kernel_identity_t identity;
    if (size < sizeof identity) return;
    memcpy(&identity, bytes, sizeof identity);
    identity.scheduler[sizeof identity.scheduler - 1] = 0;
    identity.isolation[sizeof identity.isolation - 1] = 0;
    memcpy(m->scheduler, identity.scheduler, sizeof m->scheduler);
    memcpy(m->isolation, identity.isolation, sizeof m->isolation);
}

static void exited(monitor_t *m, const uint8_t *bytes, size_t size)
{
    rf_kernel_exited_t e;
    if (size < sizeof e) return;
    memcpy(&e, bytes, sizeof e);
    local_t *local = local_find(m, e.domain, e.index);
    domain_t *d = e.index == 0 ? domain_find(m, e.domain) : NULL;
    if (d) {
        d->user_us = e.user_us;
        d->system_us = e.system_us;
        d->max_rss_kib = e.max_rss_kib;
    }
    if (local && local->state != LOCAL_ENDING) end_local(m, local, e.wait_status, RF_OK);
}

void kernel_message(monitor_t *m, uint8_t type, const uint8_t *bytes, size_t size)
{
    rf_wire_header_t header;
    if (size < sizeof header) return;
    memcpy(&header, bytes, sizeof header);
    bytes += sizeof header;
    size -= sizeof header;
    if (type == RF_KERNEL_EVENT && header.op == RF_KERNEL_EVENT_EXITED) {
        exited(m, bytes, size);
    } else if (type == RF_KERNEL_REPLY && header.tag == IDENTIFY_TAG) {
        identified(m, bytes, size);
    } else if (type == RF_KERNEL_REPLY) {
        op_t *op = op_find(m, header.tag, OP_FREE);
        rf_err_t err = header.err < RF_ERR_COUNT ? (rf_err_t)header.err : RF_ERR_PROTOCOL;
        if (op && op_class_of(op)->kernel) op_class_of(op)->kernel(m, op, err, bytes, size);
    }
}

/* EVENT_STARTED brings the socket of the dispatcher's client link; the CPU driver says whose it is. */
void kernel_fds(monitor_t *m, const monitor_event_t *event)
{
    rf_kernel_fds_t head = {0};
    int fds[8];
    memcpy(fds, event->fds, sizeof fds);
    if (event->size == sizeof head) memcpy(&head, event->bytes, sizeof head);
    local_t *local = local_find(m, head.key >> 16, head.key & 0xffff);
    if (head.op == RF_KERNEL_EVENT_STARTED && event->n_fds == 1 && local && !local->started) {
        local->started = true;
        monitor_action_t *action = out_action(m, MONITOR_DO_ADOPT);
        action->domain = local->domain;
        action->index = local->index;
        action->fds[0] = fds[0];
        action->n_fds = 1;
        return;
    }
    out_close_fds(m, fds, event->n_fds <= 8 ? event->n_fds : 8);
}
