#include "sim/fake.h"

#include <stdio.h>
#include <stdlib.h>

#define SIGNAL_KILL 9
#define SIGNAL_TERM 15

void fake_init(fake_t *f, void *world, rf_prng_t *prng, unsigned n_cores)
{
    *f = (fake_t){.world = world, .prng = prng, .block_size = 1000, .fd_next = 1};
    snprintf(f->block_user, sizeof f->block_user, "alice");
    f->cores = calloc(n_cores, sizeof *f->cores);
    f->dispatchers = calloc((size_t)n_cores * MONITOR_LOCAL_MAX, sizeof *f->dispatchers);
    rf_assert(f->cores && f->dispatchers);
    for (unsigned core = 0; core < n_cores; core++)
        f->cores[core] = (fake_core_t){.dispatchers = &f->dispatchers[(size_t)core * MONITOR_LOCAL_MAX],
                                       .lease_ns = RF_NEVER};
}

void fake_free(fake_t *f)
{
    free(f->cores);
    free(f->dispatchers);
    free(f->fd_open);
}

/* ---- descriptors ---- */

int fake_fd_new(fake_t *f)
{
    if (f->fd_next >= f->fds_max) {
        unsigned max = f->fds_max ? f->fds_max * 2 : 1024;
        f->fd_open = realloc(f->fd_open, max);
        rf_assert(f->fd_open);
        memset(f->fd_open + f->fds_max, 0, max - f->fds_max);
        f->fds_max = max;
    }
    f->fd_open[f->fd_next] = 1;
    return (int)f->fd_next++;
}

void fake_fd_check(const fake_t *f, int fd)
{
    rf_assert(fd > 0 && (unsigned)fd < f->fd_next && f->fd_open[fd]);
}

void fake_fd_close(fake_t *f, int fd)
{
    fake_fd_check(f, fd);
    f->fd_open[fd] = 0;
}

unsigned fake_fds_open(const fake_t *f)
{
    unsigned n = 0;
    for (unsigned fd = 1; fd < f->fd_next; fd++) n += f->fd_open[fd];
    return n;
}

/* ---- the CPU driver ---- */

fake_dispatcher_t *fake_dispatcher(fake_t *f, rf_core_t core, rf_domain_t domain, unsigned index)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        fake_dispatcher_t *d = &f->cores[core].dispatchers[i];
        if (d->used && d->domain == domain && d->index == index) return d;
    }
    return NULL;
}

static void kernel_reply(fake_t *f, rf_core_t core, uint32_t tag, uint16_t op, rf_err_t err, const void *body,
                         size_t size)
{
    uint8_t bytes[4096];
    rf_wire_header_t header = {.tag = tag, .err = (uint16_t)err, .op = op};
    memcpy(bytes, &header, sizeof header);
    if (size > 0) memcpy(bytes + sizeof header, body, size);
    if (tag != 0)
        f->push(f->world, core, CHANNEL_KERNEL, MONITOR_KERNEL_MESSAGE, bytes, sizeof header + size)->type =
            RF_KERNEL_REPLY;
}

void fake_exit_dispatcher(fake_t *f, rf_core_t core, rf_domain_t domain, uint16_t index, int wait_status)
{
    fake_dispatcher_t *d = fake_dispatcher(f, core, domain, index);
    if (!d) return;
    d->used = false;
    struct {
        rf_wire_header_t header;
        rf_kernel_exited_t exited;
    } m = {.header = {.op = RF_KERNEL_EVENT_EXITED},
           .exited = {.domain = domain, .index = index, .wait_status = wait_status}};
    f->push(f->world, core, CHANNEL_KERNEL, MONITOR_KERNEL_MESSAGE, &m, sizeof m)->type = RF_KERNEL_EVENT;
    f->exited(f->world, core, domain, index);
}

static void kernel_create(fake_t *f, rf_core_t core, uint32_t tag, const monitor_action_t *a)
{
    rf_kernel_create_t create;
    memcpy(&create, (const uint8_t *)a->bytes + sizeof(rf_wire_header_t), sizeof create);
    rf_assert(create.n_fds == a->n_fds && a->n_fds >= 1);
    rf_kernel_created_t out = {.pid = 100};
    if (f->create_err == RF_OK) {
        rf_assert(!fake_dispatcher(f, core, create.domain, create.index));
        for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
            fake_dispatcher_t *d = &f->cores[core].dispatchers[i];
            if (d->used) continue;
            *d = (fake_dispatcher_t){.used = true, .domain = create.domain, .index = create.index};
            break;
        }
    } else {
        out.os_errno = 2;
        snprintf(out.what, sizeof out.what, "exec ./missing");
    }
    kernel_reply(f, core, tag, RF_KERNEL_CREATE, f->create_err, &out, sizeof out);
}

static void kernel_signal(fake_t *f, rf_core_t core, const rf_wire_header_t *header, const uint8_t *body)
{
    rf_kernel_signal_t signal;
    memcpy(&signal, body, sizeof signal);
    if (f->kernel_stuck) return;
    bool there = fake_dispatcher(f, core, signal.domain, signal.index) != NULL;
    kernel_reply(f, core, header->tag, header->op, there ? RF_OK : RF_ERR_NOT_FOUND, NULL, 0);
    if (there && (signal.signo == SIGNAL_KILL || (signal.signo == SIGNAL_TERM && !f->ignore_term)))
        fake_exit_dispatcher(f, core, signal.domain, signal.index, signal.signo);
}

static void kernel_stat_all(fake_t *f, rf_core_t core, const rf_wire_header_t *header)
{
    rf_kernel_stats_t stats = {0};
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX && stats.n < RF_KERNEL_STATS_MAX; i++) {
        const fake_dispatcher_t *d = &f->cores[core].dispatchers[i];
        if (d->used) stats.stat[stats.n++] = (rf_kernel_stat_t){.domain = d->domain, .index = d->index};
    }
    kernel_reply(f, core, header->tag, header->op, RF_OK, &stats, sizeof stats);
}

static void kernel_invoked(fake_t *f, rf_core_t core, const monitor_action_t *a)
{
    rf_wire_header_t header;
    memcpy(&header, a->bytes, sizeof header);
    const uint8_t *body = (const uint8_t *)a->bytes + sizeof header;
    for (unsigned i = 0; i < a->n_fds; i++) fake_fd_check(f, a->fds[i]);
    switch (header.op) {
    case RF_KERNEL_IDENTIFY: {
        rf_kernel_identity_t identity;
        memset(&identity, 0, sizeof identity); /* and what pads it: the simulator takes note of every byte */
        identity.core = core;
        snprintf(identity.scheduler, sizeof identity.scheduler, "fake shares");
        snprintf(identity.isolation, sizeof identity.isolation, "fake walls");
        kernel_reply(f, core, header.tag, header.op, RF_OK, &identity, sizeof identity);
        break;
    }
    case RF_KERNEL_CREATE:
        if (!f->kernel_stuck) kernel_create(f, core, header.tag, a);
        break;
    case RF_KERNEL_SIGNAL:
        kernel_signal(f, core, &header, body);
        break;
    case RF_KERNEL_DESTROY: {
        rf_kernel_target_t target;
        memcpy(&target, body, sizeof target);
        fake_exit_dispatcher(f, core, target.domain, target.index, SIGNAL_KILL);
        break;
    }
    case RF_KERNEL_STAT: {
        rf_kernel_stat_t stat = {.pid = 7};
        kernel_reply(f, core, header.tag, header.op, RF_OK, &stat, sizeof stat);
        break;
    }
    case RF_KERNEL_STAT_ALL:
        kernel_stat_all(f, core, &header);
        break;
    case RF_KERNEL_FENCE: {
        rf_kernel_fence_t fence;
        memcpy(&fence, body, sizeof fence);
        kernel_reply(f, core, header.tag, header.op, f->fence(f->world, core, &fence), NULL, 0);
        break;
    }
    case RF_KERNEL_FREEZE_ALL: {
        rf_kernel_freeze_all_t freeze;
        memcpy(&freeze, body, sizeof freeze);
        f->cores[core].frozen = freeze.frozen;
        break;
    }
    default:
        rf_assert(!"the monitor invokes what it should not");
    }
}

/* ---- the shell ---- */

static monitor_event_t *answer(fake_t *f, rf_core_t core, const monitor_action_t *a,
                               monitor_event_kind_t kind, const void *bytes, size_t size)
{
    monitor_event_t *event = f->push(f->world, core, CHANNEL_SHELL, kind, bytes, size);
    event->op = a->op;
    return event;
}

static monitor_event_t *block_answer(fake_t *f, rf_core_t core, const monitor_action_t *a, const char *user)
{
    monitor_event_t *event = answer(f, core, a, MONITOR_BLOCK, NULL, 0);
    event->err = f->block_err;
    if (event->err != RF_OK) return event;
    event->fds[event->n_fds++] = fake_fd_new(f);
    event->block.size = f->block_size;
    event->block.flags = f->block_flags;
    event->block.uid = 1000;
    snprintf(event->block.user, sizeof event->block.user, "%s", user[0] ? user : f->block_user);
    snprintf(event->block.program, sizeof event->block.program, "prog");
    return event;
}

static void make_block(fake_t *f, rf_core_t core, const monitor_action_t *a)
{
    monitor_block_t change;
    rf_assert(a->size == sizeof change);
    memcpy(&change, a->bytes, sizeof change);
    fake_fd_check(f, a->fds[0]);
    if (change.consume) fake_fd_close(f, a->fds[0]);
    monitor_event_t *event = block_answer(f, core, a, change.user);
    if (event->err == RF_OK) event->block.flags &= ~change.flags_clear;
    if (event->err == RF_OK && a->n_fds == 2) event->fds[event->n_fds++] = fake_fd_new(f);
}

static void random_answer(fake_t *f, rf_core_t core, const monitor_action_t *a)
{
    uint8_t bytes[64];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)rf_prng_next(f->prng);
    answer(f, core, a, MONITOR_RANDOM, bytes, sizeof bytes);
}

bool fake_act(fake_t *f, rf_core_t core, const monitor_action_t *a)
{
    static const uint8_t zeros[4096];
    switch ((monitor_action_kind_t)a->kind) {
    case MONITOR_DO_SEND_KERNEL:
        kernel_invoked(f, core, a);
        return true;
    case MONITOR_DO_CLOSE_FD:
        fake_fd_close(f, a->fds[0]);
        return true;
    case MONITOR_DO_BLOCK:
        make_block(f, core, a);
        return true;
    case MONITOR_DO_BLOCK_GET:
        fake_fd_check(f, a->fds[0]);
        answer(f, core, a, MONITOR_CHUNK, zeros, a->size);
        return true;
    case MONITOR_DO_BLOCK_PUT:
        if (a->offset + a->size == a->total) block_answer(f, core, a, "");
        return true;
    case MONITOR_DO_SOCKETPAIR: {
        monitor_event_t *event = answer(f, core, a, MONITOR_SOCKETPAIR, NULL, 0);
        event->fds[event->n_fds++] = fake_fd_new(f);
        event->fds[event->n_fds++] = fake_fd_new(f);
        return true;
    }
    case MONITOR_DO_RANDOM:
        random_answer(f, core, a);
        return true;
    case MONITOR_DO_LISTEN:
        answer(f, core, a, MONITOR_LISTENING, "127.0.0.1:1", 12);
        return true;
    case MONITOR_DO_HOLDINGS: {
        const rf_client_holdings_t holdings = {.descriptors = 20, .links = 3, .ring_bytes = 24576};
        answer(f, core, a, MONITOR_HOLDINGS, &holdings, sizeof holdings);
        return true;
    }
    case MONITOR_DO_BLOCK_DROP:
    case MONITOR_DO_LOG_LEVEL:
        return true;
    default:
        return false;
    }
}

void fake_core_died(fake_t *f, rf_core_t core, const monitor_t *m)
{
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) {
        const local_t *l = &m->locals[i];
        if (l->state == LOCAL_FREE) continue;
        if (l->block_fd >= 0) fake_fd_close(f, l->block_fd);
        if (l->executable_fd >= 0) fake_fd_close(f, l->executable_fd);
    }
    for (unsigned i = 0; i < MONITOR_OPS_MAX; i++) {
        const op_t *op = &m->ops[i];
        for (unsigned k = 0; op->kind == OP_SPAWN && k < op->spawn.n_fds; k++) {
            if (op->spawn.fds[k] >= 0) fake_fd_close(f, op->spawn.fds[k]);
        }
        for (unsigned k = 0; op->kind == OP_CONNECT && k < 2; k++) {
            if (op->connect.fds[k] >= 0) fake_fd_close(f, op->connect.fds[k]);
        }
    }
    for (unsigned i = 0; i < MONITOR_PARKED_FDS_MAX; i++) {
        for (unsigned k = 0; m->parked[i].used && k < m->parked[i].n_fds; k++)
            fake_fd_close(f, m->parked[i].fds[k]);
    }
    for (unsigned i = 0; i < MONITOR_LOCAL_MAX; i++) f->cores[core].dispatchers[i].used = false;
    f->cores[core].frozen = false;
    f->cores[core].lease_ns = RF_NEVER;
}

/* ---- replicas ---- */

/* The agreed part of a domain; what was told besides may differ. */
static bool same_domain(const domain_t *a, const domain_t *b)
{
    return a->id == b->id && a->state == b->state && a->n_dispatchers == b->n_dispatchers &&
           a->alive == b->alive && a->ending == b->ending && a->left == b->left &&
           a->started_ns == b->started_ns && a->ended_ns == b->ended_ns && a->wait_status == b->wait_status &&
           a->reason == b->reason && memcmp(a->cores, b->cores, sizeof a->cores) == 0 &&
           memcmp(a->user, b->user, sizeof a->user) == 0;
}

/* Where a name stands in its table depends on whether a snapshot was loaded: only that it is there counts. */
static unsigned n_names(const monitor_t *m)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) n += m->names[i].used;
    return n;
}

static bool has_name(const monitor_t *m, const name_t *name)
{
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        const name_t *n = &m->names[i];
        if (n->used && n->domain == name->domain && n->index == name->index && n->core == name->core &&
            strcmp(n->name, name->name) == 0)
            return true;
    }
    return false;
}

void fake_check_pair(const monitor_t *a, const monitor_t *b)
{
    agreement_state_t x, y;
    agreement_query(a->agree.engine, &x);
    agreement_query(b->agree.engine, &y);
    if (x.applied != y.applied) return;
    rf_assert(x.view == y.view && a->domain_last == b->domain_last && a->n_domains_live == b->n_domains_live);
    for (unsigned i = 0; i < MONITOR_DOMAINS_MAX; i++) rf_assert(same_domain(&a->domains[i], &b->domains[i]));
    for (rf_core_t core = 0; core < a->boot->n_cores; core++) {
        rf_assert(core_is_member(a, core) == core_is_member(b, core) &&
                  core_agreed(a, core) == core_agreed(b, core) &&
                  a->cores[core].holding == b->cores[core].holding);
    }
    static _Thread_local uint8_t registry[2][1 << 22];
    size_t size = registry_save(a->registry, registry[0], sizeof registry[0]);
    rf_assert(size > 0 && registry_save(b->registry, registry[1], sizeof registry[1]) == size);
    rf_assert(memcmp(registry[0], registry[1], size) == 0);
    rf_assert(n_names(a) == n_names(b));
    for (unsigned i = 0; i < MONITOR_NAMES_MAX; i++) {
        const name_t *n = &a->names[i];
        rf_assert(!n->used || has_name(b, n));
    }
}
