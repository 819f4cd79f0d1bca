#include "cpudriver/invocation.h"

#include "base/clock.h"
#include "base/log.h"
#include "cpudriver/fence.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/lease.h"
#include "cpudriver/objects.h"
#include "cpudriver/scheduler.h"
#include "cpudriver/share.h"
#include "cpudriver/spawn.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define WATCH_EVENTS     (EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP)
#define TIMER_PERIOD_MAX (1ull << 60)
#define SIGNAL_BIT(n)    (1ull << ((n)-1))

static rf_err_t decode_nothing(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                               rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)argument, (void)out, (void)why;
    return RF_OK;
}

static void invoke_nothing(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                           rf_answer_t *answer)
{
    (void)driver, (void)caller, (void)decoded, (void)answer;
}

/* ---- IDENTIFY: who am I, and the way to my monitor ---- */

static rf_err_t identify_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)argument, (void)why;
    out->client_sockets[0] = out->client_sockets[1] = -1;
    if (caller->is_monitor || caller->identified) return RF_OK;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, out->client_sockets) < 0)
        return RF_ERR_NO_MEMORY;
    rf_err_t err = rf_kernel_link_pass(caller, (rf_kernel_fds_t){.tag = out->tag, .op = RF_KERNEL_IDENTIFY},
                                       out->client_sockets[0]);
    close(out->client_sockets[0]);
    if (err != RF_OK) close(out->client_sockets[1]);
    return err;
}

static void identify_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                            rf_answer_t *answer)
{
    const rf_boot_t *boot = driver->boot;
    const rf_boot_node_t *node = &boot->nodes[boot->node];
    const rf_boot_core_t *core = &boot->cores[driver->core];
    rf_kernel_identity_t *identity = &answer->identity;
    answer->size = sizeof *identity;
    *identity = (rf_kernel_identity_t){
        .machine = boot->machine,
        .domain = caller->domain,
        .index = caller->index,
        .node = boot->node,
        .core = driver->core,
        .cores = boot->n_cores,
        .nodes = boot->n_nodes,
        .node_first_core = node->first_core,
        .node_cores = node->n_cores,
        .cpu = core->cpu,
        .cpu_shared = core->cpu_shared,
        .encrypt = boot->encrypt,
        .span_args_size = caller->span_args_size,
        .host_deadline_ms =
            boot->host_deadline_ms < UINT16_MAX ? (uint16_t)boot->host_deadline_ms : UINT16_MAX,
    };
    snprintf(identity->machine_name, sizeof identity->machine_name, "%.*s", RF_NAME_MAX - 1,
             boot->machine_name);
    snprintf(identity->node_name, sizeof identity->node_name, "%.*s", RF_NAME_MAX - 1, node->name);
    snprintf(identity->host_address, sizeof identity->host_address, "%.63s", node->address);
    snprintf(identity->rdma, sizeof identity->rdma, "%.*s", RF_RDMA_OPTIONS_MAX - 1, boot->rdma);
    snprintf(identity->dpdk, sizeof identity->dpdk, "%.*s", RF_DPDK_OPTIONS_MAX - 1, boot->dpdk);
    snprintf(identity->scheduler, sizeof identity->scheduler, "%s", driver->scheduler_text);
    snprintf(identity->isolation, sizeof identity->isolation, "%s", driver->isolation.text);
    memcpy(identity->span_args, caller->span_args, caller->span_args_size);
    if (decoded->client_sockets[1] >= 0) {
        caller->identified = true;
        caller->started_due = true;
        caller->client_socket = decoded->client_sockets[1];
    }
}

/* ---- YIELD ---- */

static void yield_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                         rf_answer_t *answer)
{
    (void)decoded, (void)answer;
    if (driver->scheduler->yield && !caller->is_monitor) driver->scheduler->yield(driver, caller);
}

/* ---- TIMER_SET, TIMER_CANCEL ---- */

static rf_err_t timer_set_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                 rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)why;
    memcpy(&out->timer, argument, sizeof out->timer);
    if (out->timer.id >= RF_KERNEL_TIMERS_MAX || out->timer.deadline_ns == RF_NEVER) return RF_ERR_INVALID;
    if (out->timer.period_ns != 0 &&
        (out->timer.period_ns < RF_TIMER_PERIOD_NS_MIN || out->timer.period_ns > TIMER_PERIOD_MAX))
        return RF_ERR_INVALID;
    return RF_OK;
}

static void timer_set_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                             rf_answer_t *answer)
{
    (void)answer;
    rf_timer_set(driver, caller, &decoded->timer);
}

static rf_err_t timer_cancel_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                    rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)why;
    memcpy(&out->timer, argument, sizeof out->timer);
    return out->timer.id < RF_KERNEL_TIMERS_MAX ? RF_OK : RF_ERR_INVALID;
}

static void timer_cancel_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                                rf_answer_t *answer)
{
    (void)driver, (void)answer;
    rf_timer_cancel(caller, decoded->timer.id);
}

/* ---- FD_WATCH, FD_REARM, FD_UNWATCH ---- */

static rf_err_t watch_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                             rf_decoded_t *out, rf_answer_t *why)
{
    int fds[RF_CORE_CREATE_FDS_MAX];
    unsigned n = rf_kernel_link_take_fds(driver, caller, out->tag, RF_KERNEL_FD_WATCH, fds);
    (void)why;
    memcpy(&out->watch.watch, argument, sizeof out->watch.watch);
    rf_err_t err = n == 1 ? RF_OK : RF_ERR_INVALID;
    if (out->watch.watch.id >= RF_KERNEL_WATCHES_MAX || (out->watch.watch.events & ~(uint32_t)WATCH_EVENTS))
        err = RF_ERR_INVALID;
    if (err == RF_OK) err = rf_watch_check(fds[0]);
    if (err ==
        RF_OK) /* adding may be refused by the host, so it is the reservation; nothing fires before our turn */
        return rf_watch_add(driver, caller, &out->watch.watch, fds[0]);
    for (unsigned i = 0; i < n; i++) close(fds[i]);
    return err;
}

static rf_err_t rearm_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                             rf_decoded_t *out, rf_answer_t *why)
{
    (void)why;
    memcpy(&out->watch.watch, argument, sizeof out->watch.watch);
    if (out->watch.watch.id >= RF_KERNEL_WATCHES_MAX || (out->watch.watch.events & ~(uint32_t)WATCH_EVENTS))
        return RF_ERR_INVALID;
    if (caller->watches[out->watch.watch.id].source.fd < 0) return RF_ERR_NOT_FOUND;
    return rf_watch_rearm(driver, caller, &out->watch.watch);
}

static rf_err_t unwatch_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                               rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)why;
    memcpy(&out->watch.watch, argument, sizeof out->watch.watch);
    if (out->watch.watch.id >= RF_KERNEL_WATCHES_MAX) return RF_ERR_INVALID;
    return caller->watches[out->watch.watch.id].source.fd >= 0 ? RF_OK : RF_ERR_NOT_FOUND;
}

static void unwatch_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                           rf_answer_t *answer)
{
    (void)answer;
    rf_watch_remove(driver, caller, decoded->watch.watch.id);
}

/* ---- SIGNALS_SET ---- */

static rf_err_t signals_set_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                   rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)why;
    memcpy(&out->signals, argument, sizeof out->signals);
    return out->signals.mask & (SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP)) ? RF_ERR_INVALID : RF_OK;
}

static void signals_set_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                               rf_answer_t *answer)
{
    (void)driver, (void)answer;
    caller->signals_mask = decoded->signals.mask;
}

/* ---- STAT, STAT_ALL ---- */

static void stat_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                        rf_answer_t *answer)
{
    (void)decoded;
    answer->size = sizeof answer->stat;
    rf_dispatchers_stat(driver, &caller, 1, &answer->stat);
}

static rf_err_t stat_all_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)why;
    memcpy(&out->from, argument, sizeof out->from);
    return RF_OK;
}

static bool before(rf_domain_t domain, uint16_t index, rf_domain_t other_domain, uint16_t other_index)
{
    return domain < other_domain || (domain == other_domain && index < other_index);
}

static void stat_all_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                            rf_answer_t *answer)
{
    rf_dispatcher_t *found[RF_KERNEL_STATS_MAX];
    unsigned n = 0;
    (void)caller;
    answer->stats.more = 0;
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        rf_dispatcher_t *d = &driver->dispatchers[i];
        unsigned at = n;
        if ((d->state != RF_DISPATCHER_RUNNING && d->state != RF_DISPATCHER_ENDING) ||
            before(d->domain, d->index, decoded->from.domain, decoded->from.index))
            continue;
        while (at > 0 && before(d->domain, d->index, found[at - 1]->domain, found[at - 1]->index)) at--;
        if (n == RF_KERNEL_STATS_MAX) {
            answer->stats.more = 1;
            if (at == n) continue;
            n--;
        }
        memmove(&found[at + 1], &found[at], (n - at) * sizeof *found);
        found[at] = d;
        n++;
    }
    rf_dispatchers_stat(driver, found, n, answer->stats.stat);
    answer->stats.n = n;
    answer->size = (uint16_t)(offsetof(rf_kernel_stats_t, stat) + n * sizeof answer->stats.stat[0]);
}

/* ---- SHARE_SET ---- */

static rf_err_t share_set_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                 rf_decoded_t *out, rf_answer_t *why)
{
    (void)why;
    memcpy(&out->share, argument, sizeof out->share);
    out->target = caller;
    if (caller->is_monitor) {
        out->target = rf_core_find(driver, out->share.domain, out->share.index);
        if (!out->target) return RF_ERR_NOT_FOUND;
    }
    if (out->share.weight > RF_SHARE_WEIGHT_MAX || out->share.reserved_permille > 1000) return RF_ERR_INVALID;
    if (out->share.weight == 0) out->share.weight = out->target->weight;
    if (!caller->is_monitor &&
        (out->share.reserved_permille > caller->reserved_permille || out->share.weight > caller->weight))
        return RF_ERR_PERMISSION;
    if (!rf_share_admits(driver->reserved_permille_total, out->target->reserved_permille,
                         out->share.reserved_permille))
        return RF_ERR_LIMIT;
    return driver->scheduler->change(driver, out->target, out->share.reserved_permille, out->share.weight);
}

static void share_set_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                             rf_answer_t *answer)
{
    rf_dispatcher_t *target = decoded->target;
    (void)caller, (void)answer;
    driver->reserved_permille_total += decoded->share.reserved_permille - (uint32_t)target->reserved_permille;
    target->reserved_permille = decoded->share.reserved_permille;
    target->weight = decoded->share.weight;
    driver->scheduler->update(driver);
}

/* ---- CREATE ---- */

static rf_err_t create_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                              rf_decoded_t *out, rf_answer_t *why)
{
    int fds[RF_CORE_CREATE_FDS_MAX];
    rf_kernel_create_t create;
    memcpy(&create, argument, sizeof create);
    unsigned n = rf_kernel_link_take_fds(driver, caller, out->tag, RF_KERNEL_CREATE, fds);
    memset(&why->created, 0, sizeof why->created);
    why->size = sizeof why->created;
    rf_err_t err = rf_spawn_prepare(driver, &create, fds, n, &out->target, &why->created);
    for (unsigned i = 0; i < n; i++) close(fds[i]);
    return err;
}

static void create_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                          rf_answer_t *answer)
{
    (void)caller;
    rf_spawn_commit(driver, decoded->target, decoded->tag);
    answer->deferred = true; /* until the program runs, or could not be started */
}

/* ---- SIGNAL, DESTROY, FREEZE, THAW ---- */

static rf_err_t signal_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                              rf_decoded_t *out, rf_answer_t *why)
{
    (void)caller, (void)why;
    memcpy(&out->signal, argument, sizeof out->signal);
    if (out->signal.signo >= NSIG) return RF_ERR_INVALID;
    out->target = rf_core_find(driver, out->signal.domain, out->signal.index);
    return out->target && out->target->state == RF_DISPATCHER_RUNNING ? RF_OK : RF_ERR_NOT_FOUND;
}

static void signal_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                          rf_answer_t *answer)
{
    (void)caller, (void)answer;
    rf_dispatcher_signal(driver, decoded->target, decoded->signal.signo, decoded->signal.whole != 0);
}

static rf_err_t target_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                              rf_decoded_t *out, rf_answer_t *why)
{
    rf_kernel_target_t target;
    (void)caller, (void)why;
    memcpy(&target, argument, sizeof target);
    out->target = rf_core_find(driver, target.domain, target.index);
    if (!out->target || out->target->state == RF_DISPATCHER_ENDED) return RF_ERR_NOT_FOUND;
    return RF_OK;
}

static void destroy_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                           rf_answer_t *answer)
{
    (void)caller, (void)answer;
    rf_dispatcher_destroy(driver, decoded->target);
}

static void freeze_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                          rf_answer_t *answer)
{
    (void)caller, (void)answer;
    rf_dispatcher_freeze(driver, decoded->target, true);
}

static void thaw_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                        rf_answer_t *answer)
{
    (void)caller, (void)answer;
    rf_dispatcher_freeze(driver, decoded->target, false);
}

/* ---- FENCE, FREEZE_ALL ---- */

static rf_err_t fence_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                             rf_decoded_t *out, rf_answer_t *why)
{
    (void)caller, (void)why;
    memcpy(&out->fence, argument, sizeof out->fence);
    return rf_fence_check(driver, &out->fence);
}

static void fence_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                         rf_answer_t *answer)
{
    (void)caller;
    rf_fence_begin(driver, &decoded->fence, decoded->tag);
    answer->deferred = true; /* until nothing is left */
}

static rf_err_t freeze_all_decode(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *argument,
                                  rf_decoded_t *out, rf_answer_t *why)
{
    (void)driver, (void)caller, (void)why;
    memcpy(&out->freeze_all, argument, sizeof out->freeze_all);
    return RF_OK;
}

static void freeze_all_invoke(rf_cpudriver_t *driver, rf_dispatcher_t *caller, rf_decoded_t *decoded,
                              rf_answer_t *answer)
{
    (void)caller, (void)answer;
    rf_lease_freeze(driver, decoded->freeze_all.frozen != 0);
}

static const rf_invocation_t invocations[] = {
    {RF_KERNEL_IDENTIFY, "identify", false, 0, identify_decode, identify_invoke},
    {RF_KERNEL_YIELD, "yield", false, 0, decode_nothing, yield_invoke},
    {RF_KERNEL_TIMER_SET, "timer set", false, sizeof(rf_kernel_timer_t), timer_set_decode, timer_set_invoke},
    {RF_KERNEL_TIMER_CANCEL, "timer cancel", false, sizeof(rf_kernel_timer_t), timer_cancel_decode,
     timer_cancel_invoke},
    {RF_KERNEL_FD_WATCH, "descriptor watch", false, sizeof(rf_kernel_watch_t), watch_decode, invoke_nothing},
    {RF_KERNEL_FD_REARM, "descriptor rearm", false, sizeof(rf_kernel_watch_t), rearm_decode, invoke_nothing},
    {RF_KERNEL_FD_UNWATCH, "descriptor unwatch", false, sizeof(rf_kernel_watch_t), unwatch_decode,
     unwatch_invoke},
    {RF_KERNEL_SIGNALS_SET, "signals set", false, sizeof(rf_kernel_signals_t), signals_set_decode,
     signals_set_invoke},
    {RF_KERNEL_STAT, "stat", false, 0, decode_nothing, stat_invoke},
    {RF_KERNEL_SHARE_SET, "share set", false, sizeof(rf_kernel_share_t), share_set_decode, share_set_invoke},
    {RF_KERNEL_NULL, "null", false, 0, decode_nothing, invoke_nothing},
    {RF_KERNEL_CREATE, "create", true, sizeof(rf_kernel_create_t), create_decode, create_invoke},
    {RF_KERNEL_SIGNAL, "signal", true, sizeof(rf_kernel_signal_t), signal_decode, signal_invoke},
    {RF_KERNEL_DESTROY, "destroy", true, sizeof(rf_kernel_target_t), target_decode, destroy_invoke},
    {RF_KERNEL_FREEZE, "freeze", true, sizeof(rf_kernel_target_t), target_decode, freeze_invoke},
    {RF_KERNEL_THAW, "thaw", true, sizeof(rf_kernel_target_t), target_decode, thaw_invoke},
    {RF_KERNEL_FENCE, "fence", true, sizeof(rf_kernel_fence_t), fence_decode, fence_invoke},
    {RF_KERNEL_FREEZE_ALL, "freeze all", true, sizeof(rf_kernel_freeze_all_t), freeze_all_decode,
     freeze_all_invoke},
    {RF_KERNEL_STAT_ALL, "stat all", true, sizeof(rf_kernel_target_t), stat_all_decode, stat_all_invoke},
};

static const rf_invocation_t *find(uint16_t op)
{
    for (size_t i = 0; i < sizeof invocations / sizeof *invocations; i++) {
        if (invocations[i].op == op) return &invocations[i];
    }
    return NULL;
}

rf_err_t rf_invocation_handle(rf_cpudriver_t *driver, rf_dispatcher_t *caller, const void *bytes, size_t size)
{
    rf_wire_header_t header;
    rf_answer_t answer;
    if (size < sizeof header) return RF_ERR_PROTOCOL;
    memcpy(&header, bytes, sizeof header);
    const rf_invocation_t *invocation = find(header.op);
    answer.err = RF_OK;
    answer.deferred = false;
    answer.size = 0;
    if (!invocation) {
        answer.err = RF_ERR_NOT_SUPPORTED;
    } else if (size != sizeof header + invocation->argument_size) {
        return RF_ERR_PROTOCOL;
    } else if (invocation->monitor_only && !caller->is_monitor) {
        answer.err = RF_ERR_PERMISSION;
    } else {
        rf_decoded_t decoded = {.tag = header.tag};
        const void *argument = (const uint8_t *)bytes + sizeof header;
        answer.err = invocation->decode(driver, caller, argument, &decoded, &answer);
        if (answer.err == RF_OK)
            invocation->invoke(driver, caller, &decoded, &answer);
        else
            rf_log(RF_LOG_DEBUG, "%s refused to %s: %s", invocation->name, rf_dispatcher_name(caller),
                   rf_err_text(answer.err));
    }
    if (answer.deferred) return RF_OK;
    header.err = (uint16_t)answer.err;
    /* Serving made sure of the room before it read the message; a link that died meanwhile needs no answer. */
    rf_kernel_link_send(driver, caller, RF_KERNEL_REPLY, header, answer.size ? &answer.identity : NULL,
                        answer.size);
    return RF_OK;
}
