/*
 * Wait sets: a table of sources, each asked in turn whether it has something. Asking is what makes things move (a channel is
 * polled, a descriptor's one-shot is armed again), so a set has no state that could miss an event.
 *
 *   id = generation << 10 | place: an id of a source that is gone matches nothing
 */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define PLACE_BITS 10
#define PLACES_MIN 8
#define ROOM_SLOTS ((RF_CHANNEL_MESSAGE_MAX + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD)
_Static_assert(RF_WAITSET_SOURCES_MAX == 1 << PLACE_BITS, "an id holds the place");

typedef enum source_kind {
    SOURCE_NONE,
    SOURCE_CHANNEL,
    SOURCE_STREAM,
    SOURCE_EXPORT,
    SOURCE_TIMER,
    SOURCE_FD,
    SOURCE_SIGNALS,
    SOURCE_MACHINE,
    SOURCE_OPERATION,
    SOURCE_WATCH,
} source_kind_t;

typedef struct source {
    source_kind_t kind;
    uint32_t id, wanted;
    void *cookie;
    union {
        rf_channel_t *channel;
        rf_channel_stream_t *stream;
        rf_export_t *export_;
        rf_operation_t *operation;
        rf_registry_watch_t *registry_watch;
        const void *object;
        struct {
            uint64_t next_ns, period_ns;
        } timer;
        lib_watch_t *watch;
        uint64_t signals;
        struct {
            uint32_t mask;
            uint64_t seen; /* events before this count have been reported or skipped */
        } machine;
    };
} source_t;

struct rf_waitset {
    source_t *sources;
    unsigned room, used; /* entries; entries ever used */
    unsigned turn;       /* where the next round starts */
    uint32_t generation;
    struct rf_waitset *next;
};

rf_err_t rf_waitset_create(rf_waitset_t **out)
{
    if (!rf_me.up) return rf_lib_fail(RF_ERR_NO_MACHINE, "rf_waitset_create: call rf_init() first");
    if (rf_me.n_waitsets == RF_WAITSETS_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "%d wait sets exist already", RF_WAITSETS_MAX);
    rf_waitset_t *set = calloc(1, sizeof *set);
    if (!set) return RF_ERR_NO_MEMORY;
    set->next = rf_me.waitsets;
    rf_me.waitsets = set;
    rf_me.n_waitsets++;
    *out = set;
    return RF_OK;
}

static void source_end(source_t *source)
{
    if (source->kind == SOURCE_FD) {
        epoll_ctl(rf_me.epoll, EPOLL_CTL_DEL, source->watch->fd, NULL);
        free(source->watch);
    }
    source->kind = SOURCE_NONE;
}

void rf_waitset_destroy(rf_waitset_t *set)
{
    if (!set) return;
    bool signals = false;
    for (unsigned i = 0; i < set->used; i++) {
        signals |= set->sources[i].kind == SOURCE_SIGNALS;
        source_end(&set->sources[i]);
    }
    for (rf_waitset_t **at = &rf_me.waitsets; *at; at = &(*at)->next) {
        if (*at != set) continue;
        *at = set->next;
        rf_me.n_waitsets--;
        break;
    }
    if (signals) (void)rf_lib_signals_update(0);
    free(set->sources);
    free(set);
}

void rf_lib_waitsets_stop(void)
{
    while (rf_me.waitsets) rf_waitset_destroy(rf_me.waitsets);
}

void rf_lib_waitsets_forget(const void *object)
{
    for (rf_waitset_t *set = rf_me.waitsets; set; set = set->next) {
        for (unsigned i = 0; i < set->used; i++) {
            source_t *source = &set->sources[i];
            bool has_object = source->kind == SOURCE_CHANNEL || source->kind == SOURCE_STREAM ||
                              source->kind == SOURCE_EXPORT || source->kind == SOURCE_OPERATION ||
                              source->kind == SOURCE_WATCH;
            if (has_object && source->object == object) source_end(source);
        }
    }
}

/* A free entry, its id and cookie set. */
static rf_err_t source_add(rf_waitset_t *set, source_kind_t kind, void *cookie, uint32_t *id, source_t **out)
{
    unsigned place = 0;
    while (place < set->used && set->sources[place].kind != SOURCE_NONE) place++;
    if (place == RF_WAITSET_SOURCES_MAX)
        return rf_lib_fail(RF_ERR_LIMIT, "a wait set has at most %d sources", RF_WAITSET_SOURCES_MAX);
    if (place == set->room) {
        unsigned room = set->room ? set->room * 2 : PLACES_MIN;
        source_t *larger = realloc(set->sources, room * sizeof *larger);
        if (!larger) return RF_ERR_NO_MEMORY;
        set->sources = larger;
        set->room = room;
    }
    if (place == set->used) set->used++;
    source_t *source = &set->sources[place];
    *source = (source_t){.kind = kind, .id = ++set->generation << PLACE_BITS | place, .cookie = cookie};
    if (id) *id = source->id;
    *out = source;
    return RF_OK;
}

static source_t *source_find(rf_waitset_t *set, uint32_t id)
{
    unsigned place = id & (RF_WAITSET_SOURCES_MAX - 1);
    source_t *source = place < set->used ? &set->sources[place] : NULL;
    return source && source->kind != SOURCE_NONE && source->id == id ? source : NULL;
}

static rf_err_t check_events(uint32_t events)
{
    if (events && !(events & ~(RF_EVENT_READABLE | RF_EVENT_WRITABLE))) return RF_OK;
    return rf_lib_fail(RF_ERR_INVALID, "events are RF_EVENT_READABLE, RF_EVENT_WRITABLE or both");
}

rf_err_t rf_waitset_add_channel(rf_waitset_t *set, rf_channel_t *channel, uint32_t events, void *cookie,
                                uint32_t *id)
{
    source_t *source;
    rf_err_t err = check_events(events);
    if (err == RF_OK) err = source_add(set, SOURCE_CHANNEL, cookie, id, &source);
    if (err != RF_OK) return err;
    source->channel = channel;
    source->wanted = events;
    return RF_OK;
}

rf_err_t rf_waitset_add_stream(rf_waitset_t *set, rf_channel_stream_t *stream, uint32_t events, void *cookie,
                               uint32_t *id)
{
    source_t *source;
    rf_err_t err = check_events(events);
    if (err == RF_OK) err = source_add(set, SOURCE_STREAM, cookie, id, &source);
    if (err != RF_OK) return err;
    source->stream = stream;
    source->wanted = events;
    return RF_OK;
}

rf_err_t rf_waitset_add_export(rf_waitset_t *set, rf_export_t *export_, void *cookie, uint32_t *id)
{
    source_t *source;
    rf_err_t err = source_add(set, SOURCE_EXPORT, cookie, id, &source);
    if (err == RF_OK) source->export_ = export_;
    return err;
}

rf_err_t rf_waitset_add_timer(rf_waitset_t *set, uint64_t first_ns, uint64_t period_ns, void *cookie,
                              uint32_t *id)
{
    source_t *source;
    rf_err_t err = source_add(set, SOURCE_TIMER, cookie, id, &source);
    if (err != RF_OK) return err;
    source->timer.next_ns = first_ns;
    source->timer.period_ns = period_ns;
    return RF_OK;
}

rf_err_t rf_waitset_add_fd(rf_waitset_t *set, int fd, uint32_t events, void *cookie, uint32_t *id)
{
    rf_err_t err = check_events(events);
    if (err != RF_OK) return err;
    lib_watch_t *watch = calloc(1, sizeof *watch);
    if (!watch) return RF_ERR_NO_MEMORY;
    watch->kind = LIB_WATCH_FD;
    watch->fd = fd;
    watch->wanted = (events & RF_EVENT_READABLE ? EPOLLIN | EPOLLRDHUP : 0u) |
                    (events & RF_EVENT_WRITABLE ? EPOLLOUT : 0u);
    struct epoll_event event = {.events = watch->wanted | EPOLLONESHOT, .data.ptr = watch};
    if (epoll_ctl(rf_me.epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        int os_errno = errno;
        free(watch);
        if (os_errno == EEXIST)
            return rf_lib_fail(RF_ERR_EXISTS, "descriptor %d is in a wait set already", fd);
        if (os_errno == EPERM)
            return rf_lib_fail(RF_ERR_NOT_SUPPORTED, "descriptor %d cannot be waited for", fd);
        return rf_lib_fail(os_errno == EBADF ? RF_ERR_INVALID : RF_ERR_OS, "descriptor %d: %s", fd,
                           strerror(os_errno));
    }
    source_t *source;
    err = source_add(set, SOURCE_FD, cookie, id, &source);
    if (err != RF_OK) {
        epoll_ctl(rf_me.epoll, EPOLL_CTL_DEL, fd, NULL);
        free(watch);
        return err;
    }
    source->watch = watch;
    source->wanted = events;
    return RF_OK;
}

rf_err_t rf_lib_signals_update(uint64_t deadline_ns)
{
    rf_kernel_signals_t signals = {0};
    for (rf_waitset_t *set = rf_me.waitsets; set; set = set->next)
        for (unsigned i = 0; i < set->used; i++)
            if (set->sources[i].kind == SOURCE_SIGNALS) signals.mask |= set->sources[i].signals;
    if (signals.mask == rf_me.signals_set) return RF_OK;
    rf_err_t err = RF_OK;
    if (deadline_ns == 0)
        err = rf_lib_tell(&rf_me.kernel, RF_KERNEL_SIGNALS_SET, &signals, sizeof signals);
    else
        err = rf_lib_request(&rf_me.kernel, RF_KERNEL_SIGNALS_SET, &signals, sizeof signals, NULL, 0, 0, NULL,
                             NULL, deadline_ns);
    if (err == RF_OK) rf_me.signals_set = signals.mask;
    return err;
}

rf_err_t rf_waitset_add_signals(rf_waitset_t *set, uint64_t mask, void *cookie, uint32_t *id,
                                uint64_t deadline_ns)
{
    source_t *source;
    uint32_t own_id;
    if (mask == 0) return rf_lib_fail(RF_ERR_INVALID, "rf_waitset_add_signals: an empty mask");
    rf_err_t err = source_add(set, SOURCE_SIGNALS, cookie, &own_id, &source);
    if (err != RF_OK) return err;
    source->signals = mask;
    err = rf_lib_signals_update(deadline_ns);
    if (err != RF_OK) {
        (void)rf_waitset_remove(set, own_id);
        return err;
    }
    if (id) *id = own_id;
    return RF_OK;
}

rf_err_t rf_waitset_add_machine(rf_waitset_t *set, uint32_t mask, void *cookie, uint32_t *id,
                                uint64_t deadline_ns)
{
    if (mask == 0 ||
        mask & ~(uint32_t)(RF_MACHINE_EVENTS_CORES | RF_MACHINE_EVENTS_NODES | RF_MACHINE_EVENTS_DOMAINS))
        return rf_lib_fail(RF_ERR_INVALID, "rf_waitset_add_machine: unknown events");
    source_t *source;
    uint32_t own_id;
    rf_err_t err = source_add(set, SOURCE_MACHINE, cookie, &own_id, &source);
    if (err != RF_OK) return err;
    source->machine.mask = mask;
    source->machine.seen = rf_me.machine_count;
    err = rf_lib_machine_subscribe(mask, deadline_ns);
    if (err != RF_OK) {
        (void)rf_waitset_remove(set, own_id);
        return err;
    }
    if (id) *id = own_id;
    return RF_OK;
}

rf_err_t rf_waitset_add_operation(rf_waitset_t *set, rf_operation_t *operation, void *cookie, uint32_t *id)
{
    source_t *source;
    rf_err_t err = source_add(set, SOURCE_OPERATION, cookie, id, &source);
    if (err == RF_OK) source->operation = operation;
    return err;
}

rf_err_t rf_waitset_add_watch(rf_waitset_t *set, rf_registry_watch_t *watch, void *cookie, uint32_t *id)
{
    source_t *source;
    rf_err_t err = source_add(set, SOURCE_WATCH, cookie, id, &source);
    if (err == RF_OK) source->registry_watch = watch;
    return err;
}

rf_err_t rf_waitset_remove(rf_waitset_t *set, uint32_t id)
{
    source_t *source = source_find(set, id);
    if (!source) return RF_ERR_NOT_FOUND;
    bool signals = source->kind == SOURCE_SIGNALS;
    source_end(source);
    if (signals) (void)rf_lib_signals_update(0);
    return RF_OK;
}

/* ---- asking ---- */

static uint32_t channel_events(rf_channel_t *channel, uint32_t wanted)
{
    uint32_t events = 0;
    bool any = rf_lib_channel_front(channel);
    if (any && (wanted & RF_EVENT_READABLE)) events |= RF_EVENT_READABLE;
    if (!any && channel->port.end != RF_OK) events |= RF_EVENT_ENDED | RF_EVENT_READABLE;
    if ((wanted & RF_EVENT_WRITABLE) && channel->port.end == RF_OK &&
        channel->transport->room(channel->port.link, ROOM_SLOTS) >= ROOM_SLOTS)
        events |= RF_EVENT_WRITABLE;
    return events & (wanted | RF_EVENT_ENDED);
}

static bool timer_expired(source_t *source, rf_event_t *event)
{
    uint64_t now_ns = rf_clock_ns();
    if (now_ns < source->timer.next_ns) return false;
    if (source->timer.period_ns == 0) {
        event->expirations = 1;
        source->kind = SOURCE_NONE;
        return true;
    }
    uint64_t periods = (now_ns - source->timer.next_ns) / source->timer.period_ns + 1;
    source->timer.next_ns += periods * source->timer.period_ns;
    event->expirations = periods;
    return true;
}

/* One-shot: what fired is reported once, and asked for again when the set is next waited on. */
static uint32_t fd_events(source_t *source)
{
    lib_watch_t *watch = source->watch;
    uint32_t fired = watch->fired, events = 0;
    if (!fired) return 0;
    if (fired & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) events |= RF_EVENT_READABLE;
    if (fired & (EPOLLOUT | EPOLLERR)) events |= RF_EVENT_WRITABLE;
    if (fired & (EPOLLHUP | EPOLLERR)) events |= RF_EVENT_ENDED;
    return events & (source->wanted | RF_EVENT_ENDED);
}

static bool next_machine_event(source_t *source, rf_event_t *event)
{
    if (source->machine.seen + LIB_MACHINE_EVENTS < rf_me.machine_count) {
        source->machine.seen = rf_me.machine_count - LIB_MACHINE_EVENTS;
        event->machine = (rf_machine_event_t){.what = RF_MACHINE_EVENT_LOST};
        return true;
    }
    while (source->machine.seen < rf_me.machine_count) {
        const rf_machine_event_t *kept = &rf_me.machine_events[source->machine.seen++ % LIB_MACHINE_EVENTS];
        bool core = kept->what == RF_MACHINE_EVENT_CORE_UP || kept->what == RF_MACHINE_EVENT_CORE_DOWN ||
                    kept->what == RF_MACHINE_EVENT_CORE_LEAVING;
        bool node = kept->what == RF_MACHINE_EVENT_NODE_UP || kept->what == RF_MACHINE_EVENT_NODE_DOWN;
        uint32_t bit = core   ? (uint32_t)RF_MACHINE_EVENTS_CORES
                       : node ? (uint32_t)RF_MACHINE_EVENTS_NODES
                              : (uint32_t)RF_MACHINE_EVENTS_DOMAINS;
        if (!(source->machine.mask & bit)) continue;
        event->machine = *kept;
        return true;
    }
    return false;
}

static bool ask(source_t *source, rf_event_t *event)
{
    *event = (rf_event_t){.cookie = source->cookie, .id = source->id};
    switch (source->kind) {
    case SOURCE_NONE:
        break;
    case SOURCE_CHANNEL:
        event->what = channel_events(source->channel, source->wanted);
        break;
    case SOURCE_STREAM:
        event->what = rf_lib_stream_events(source->stream, source->wanted);
        break;
    case SOURCE_EXPORT:
        if (rf_lib_export_front(source->export_)) event->what = RF_EVENT_READABLE;
        break;
    case SOURCE_TIMER:
        if (timer_expired(source, event)) event->what = RF_EVENT_TIMER;
        break;
    case SOURCE_FD:
        event->what = fd_events(source);
        break;
    case SOURCE_SIGNALS: {
        uint64_t pending = rf_me.signals_pending & source->signals;
        if (!pending) break;
        event->signo = (uint32_t)__builtin_ctzll(pending) + 1;
        event->what = RF_EVENT_SIGNAL;
        rf_me.signals_pending &= ~(1ull << (event->signo - 1));
        break;
    }
    case SOURCE_MACHINE:
        if (next_machine_event(source, event)) event->what = RF_EVENT_MACHINE;
        break;
    case SOURCE_WATCH:
        if (rf_registry_watch_ready(source->registry_watch)) event->what = RF_EVENT_READABLE;
        break;
    case SOURCE_OPERATION:
        if (!rf_operation_done(source->operation)) break;
        event->what = RF_EVENT_DONE;
        source->kind = SOURCE_NONE; /* told once */
        break;
    }
    return event->what != 0;
}

typedef struct set_wait {
    rf_waitset_t *set;
    rf_event_t *events;
    unsigned max, n;
} set_wait_t;

static bool set_ready(void *context)
{
    set_wait_t *w = context;
    rf_waitset_t *set = w->set;
    unsigned used = set->used;
    for (unsigned i = 0; i < used && w->n < w->max; i++) {
        unsigned place = (set->turn + i) % used;
        while (w->n < w->max && ask(&set->sources[place], &w->events[w->n])) {
            uint32_t what = w->events[w->n++].what;
            /* Signals and machine events carry one piece of news each; the others have said all they have. */
            if (!(what & (RF_EVENT_SIGNAL | RF_EVENT_MACHINE))) break;
        }
    }
    if (w->n == 0) return false;
    set->turn = (set->turn + 1) % used;
    return true;
}

static void set_arm(void *context, lib_arm_t *arm)
{
    rf_waitset_t *set = ((set_wait_t *)context)->set;
    for (unsigned i = 0; i < set->used; i++) {
        source_t *source = &set->sources[i];
        if (source->kind == SOURCE_CHANNEL) {
            /* With a message in front that nobody asked for, the link would always be ready. */
            if (source->channel->front == LIB_FRONT_NONE)
                rf_lib_arm_channel(source->channel, arm);
            else if (source->wanted & RF_EVENT_WRITABLE)
                rf_lib_arm_nap(arm);
        } else if (source->kind == SOURCE_STREAM) {
            rf_lib_arm_channel(rf_lib_stream_channel(source->stream), arm);
        } else if (source->kind == SOURCE_TIMER && source->timer.next_ns < arm->wake_ns) {
            arm->wake_ns = source->timer.next_ns;
        }
    }
}

/* Descriptors that were reported are asked for again; if one is still ready, it fires at once. */
static void rearm_fds(rf_waitset_t *set)
{
    bool any = false;
    for (unsigned i = 0; i < set->used; i++) {
        if (set->sources[i].kind != SOURCE_FD) continue;
        any = true;
        lib_watch_t *watch = set->sources[i].watch;
        if (!watch->fired) continue;
        watch->fired = 0;
        struct epoll_event event = {.events = watch->wanted | EPOLLONESHOT, .data.ptr = watch};
        epoll_ctl(rf_me.epoll, EPOLL_CTL_MOD, watch->fd, &event);
    }
    if (any) rf_lib_look_at_descriptors();
}

rf_err_t rf_waitset_wait(rf_waitset_t *set, rf_event_t *events, unsigned max, unsigned *n,
                         uint64_t deadline_ns)
{
    if (max == 0) return rf_lib_fail(RF_ERR_INVALID, "rf_waitset_wait: room for no event");
    rf_lib_service();
    rearm_fds(set);
    set_wait_t w = {.set = set, .events = events, .max = max};
    rf_err_t err = rf_lib_block(&(lib_wait_t){set_ready, set_arm, &w}, deadline_ns);
    if (err != RF_OK) return err;
    *n = w.n;
    return RF_OK;
}
