#include "cpudriver/kernel_link.h"

#include "base/clock.h"
#include "base/log.h"
#include "cpudriver/invocation.h"
#include "cpudriver/objects.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGES_PER_TURN   16                 /* a dispatcher ... */
#define TURN_NS             (RF_NS_PER_MS / 2) /* ... or what takes this long */
#define DISPATCHER_SLOTS    64
#define MONITOR_SLOTS       256
#define SLOTS_MAX           1024
#define REPLY_SLOTS         20 /* room that must be there before an invocation is read: identity and more */
#define REPLY_SLOTS_MONITOR 76 /* ... STAT_ALL */
#define BLOCKED_LOOK_NS     (1 * RF_NS_PER_MS) /* how soon a full link is looked at again */
#define RESTLESS_TURNS_MAX  64                 /* without a message, though a link says that it is ready */
#define LOG_INTERVAL_NS     RF_NS_PER_S
#define PEER_DEADLINE_NS    (10 * RF_NS_PER_S)

static void drop_parked(rf_dispatcher_t *d)
{
    for (unsigned i = 0; i < RF_CORE_FDS_PARKED_MAX; i++) {
        for (unsigned k = 0; k < d->parked[i].n; k++) close(d->parked[i].fds[k]);
        d->parked[i].n = 0;
    }
}

/* Bytes that no librackfish sends: the dispatcher loses its link, and nobody else notices. */
static void misbehaved(rf_cpudriver_t *driver, rf_dispatcher_t *d, const char *what)
{
    if (rf_log_once_per(&driver->logged_protocol_ns, LOG_INTERVAL_NS))
        rf_log(RF_LOG_WARN, "kernel link of %s ended: %s", rf_dispatcher_name(d), what);
    rf_kernel_link_detach(driver, d);
}

static void park_fds(rf_cpudriver_t *driver, rf_dispatcher_t *d, const rf_link_event_info_t *info)
{
    rf_kernel_fds_t head;
    rf_parked_fds_t *place = NULL;
    for (unsigned i = 0; i < RF_CORE_FDS_PARKED_MAX && !place; i++) {
        if (d->parked[i].n == 0) place = &d->parked[i];
    }
    if (info->size != sizeof head || info->n_fds == 0 || info->n_fds > RF_CORE_CREATE_FDS_MAX || !place) {
        for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
        misbehaved(driver, d, "descriptors that belong to no invocation");
        return;
    }
    memcpy(&head, info->bytes, sizeof head);
    place->tag = head.tag;
    place->op = head.op;
    place->n = (uint16_t)info->n_fds;
    memcpy(place->fds, info->fds, info->n_fds * sizeof(int));
}

static void on_link_event(void *context, rf_link_t *link, rf_link_event_t event,
                          const rf_link_event_info_t *info)
{
    rf_cpudriver_t *driver = context;
    rf_dispatcher_t *d = link->user;
    switch (event) {
    case RF_LINK_FDS:
        park_fds(driver, d, info);
        break;
    case RF_LINK_ROOM:
        d->blocked_until_ns = 0;
        break;
    case RF_LINK_DEAD:
        if (d->is_monitor && !driver->stopping) rf_core_step_aside(driver);
        if (info->err == RF_ERR_PROTOCOL) {
            misbehaved(driver, d, "the bytes in its ring are no slots");
            break;
        }
        rf_kernel_link_detach(driver, d);
        break;
    case RF_LINK_CLOSED:
        rf_kernel_link_detach(driver, d);
        break;
    case RF_LINK_UP:
        rf_log(RF_LOG_DEBUG, "%s connected its kernel link", rf_dispatcher_name(d));
        break;
    case RF_LINK_INCOMING:
    case RF_LINK_BROKEN:
    case RF_LINK_WRITTEN:
    case RF_LINK_READ:
        break;
    }
}

/* The dispatcher's first bytes have come: make the link. */
static void on_socket(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    rf_dispatcher_t *d = source->dispatcher;
    int fd = rf_source_release(driver, source);
    char byte;
    (void)events;
    if (recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) <= 0) {
        close(fd); /* every holder of the other end has ended without asking for anything */
        return;
    }
    rf_link_params_t params = {
        .socket = fd,
        .slots = d->is_monitor ? MONITOR_SLOTS : DISPATCHER_SLOTS,
        .slots_max = SLOTS_MAX,
        .user = d,
    };
    rf_err_t err = driver->transport->connect(driver->endpoint, &params, &d->link);
    if (err != RF_OK) {
        d->link = NULL;
        if (rf_log_once_per(&driver->logged_refused_ns, LOG_INTERVAL_NS))
            rf_log(RF_LOG_WARN, "no kernel link for %s: %s", rf_dispatcher_name(d), rf_err_text(err));
    }
}

static void progress(rf_cpudriver_t *driver)
{
    driver->transport->endpoint_progress(driver->endpoint, rf_clock_ns(), &driver->progress_ns);
}

static void on_endpoint(rf_cpudriver_t *driver, rf_source_t *source, uint32_t events)
{
    (void)source, (void)events;
    progress(driver);
}

rf_err_t rf_kernel_link_open(rf_cpudriver_t *driver)
{
    driver->transport = &rf_transport_shm;
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR,
                 .version_minor = RF_VERSION_MINOR,
                 .kind = RF_ROLE_CPUDRIVER,
                 .core = driver->core,
                 .machine = driver->boot->machine},
        .on_event = on_link_event,
        .context = driver,
        .deadline_ns = PEER_DEADLINE_NS,
    };
    rf_err_t err = driver->transport->endpoint_open(&params, &driver->endpoint);
    if (err != RF_OK) return err;
    int fd = fcntl(driver->transport->endpoint_fd(driver->endpoint), F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? RF_ERR_OS
                  : rf_source_open(driver, &driver->endpoint_source, fd, EPOLLIN, on_endpoint, NULL);
}

rf_err_t rf_kernel_link_attach(rf_cpudriver_t *driver, rf_dispatcher_t *d, int socket)
{
    return rf_source_open(driver, &d->socket, socket, EPOLLIN, on_socket, d);
}

void rf_kernel_link_detach(rf_cpudriver_t *driver, rf_dispatcher_t *d)
{
    rf_source_close(driver, &d->socket);
    if (d->link) {
        driver->transport->fence(d->link);
        driver->transport->close(d->link);
        d->link = NULL;
    }
    memset(&d->assembler, 0, offsetof(rf_assembler_t, bytes));
    drop_parked(d);
    rf_timers_clear(d);
    rf_watches_clear(driver, d);
    d->signals_mask = d->signals_pending = 0;
    d->events_due = false;
    d->blocked_until_ns = 0;
}

bool rf_kernel_link_up(const rf_dispatcher_t *d)
{
    return d->link && d->link->state == RF_LINK_STATE_UP;
}

rf_err_t rf_kernel_link_send(rf_cpudriver_t *driver, rf_dispatcher_t *to, uint8_t type,
                             rf_wire_header_t header, const void *body, size_t size)
{
    if (!rf_kernel_link_up(to)) return RF_ERR_CLOSED;
    rf_err_t err = rf_message_send2(to->link, type, &header, sizeof header, body, size);
    if (err == RF_ERR_AGAIN) {
        to->blocked_until_ns = rf_clock_ns() + BLOCKED_LOOK_NS;
        rf_core_wake_at(driver, to->blocked_until_ns);
        return err;
    }
    return err == RF_OK ? driver->transport->flush(to->link) : err;
}

rf_err_t rf_kernel_link_pass(rf_dispatcher_t *to, rf_kernel_fds_t head, int fd)
{
    if (!rf_kernel_link_up(to)) return RF_ERR_CLOSED;
    return to->link->transport->pass_fds(to->link, &head, sizeof head, &fd, 1);
}

unsigned rf_kernel_link_take_fds(rf_cpudriver_t *driver, rf_dispatcher_t *from, uint32_t tag, uint16_t op,
                                 int fds[RF_CORE_CREATE_FDS_MAX])
{
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        for (unsigned i = 0; i < RF_CORE_FDS_PARKED_MAX; i++) {
            rf_parked_fds_t *parked = &from->parked[i];
            if (parked->n == 0 || parked->tag != tag || parked->op != op) continue;
            unsigned n = parked->n;
            memcpy(fds, parked->fds, n * sizeof(int));
            parked->n = 0;
            return n;
        }
        /* They were sent before the message, but lie in the socket while it came through the ring. */
        if (attempt == 0) progress(driver);
    }
    return 0;
}

/* Reads what one dispatcher asks. True: there was more than one turn's work. */
static bool serve(rf_cpudriver_t *driver, rf_dispatcher_t *d, uint64_t now_ns)
{
    const unsigned answer = d->is_monitor ? REPLY_SLOTS_MONITOR : REPLY_SLOTS;
    unsigned messages = 0;
    if (!d->link) return false;
    if (d->link->state == RF_LINK_STATE_DEAD) {
        /* Its death may wait to be told; what it said before does not matter any more. Not to poll it here would keep
         * us awake, and, as SCHED_FIFO, its rf-init from telling how it ended. */
        rf_slot_t dropped[MESSAGES_PER_TURN];
        driver->transport->poll(d->link, dropped, MESSAGES_PER_TURN);
        return false;
    }
    /* One that is being made is not polled: that could bring it up and take the first invocation in one go. */
    if (!rf_kernel_link_up(d)) return false;
    if (d->blocked_until_ns > now_ns) {
        rf_core_wake_at(driver, d->blocked_until_ns);
        return false;
    }
    if (now_ns - d->window_started_ns >= RF_CORE_SERVE_WINDOW_NS) {
        d->window_started_ns = now_ns;
        d->served_ns = 0;
    }
    uint64_t end_ns = now_ns;
    while (messages < MESSAGES_PER_TURN && end_ns - now_ns < TURN_NS) {
        rf_slot_t slot;
        if (driver->transport->room(d->link, answer) < answer) {
            d->blocked_until_ns = now_ns + BLOCKED_LOOK_NS;
            rf_core_wake_at(driver, d->blocked_until_ns);
            break;
        }
        if (driver->transport->poll(d->link, &slot, 1) == 0) break;
        if (rf_control_type(slot.control) != RF_KERNEL_INVOKE) {
            misbehaved(driver, d, "a slot that is no invocation");
            return false;
        }
        rf_err_t err = rf_assembler_feed(&d->assembler, &slot);
        if (err == RF_ERR_AGAIN) continue; /* a message is at most RF_MESSAGE_MAX long, so this ends */
        if (err == RF_OK) err = rf_invocation_handle(driver, d, d->assembler.bytes, d->assembler.size);
        if (!d->link) return false; /* it ended meanwhile */
        if (err != RF_OK) {
            misbehaved(driver, d, "a message that is no invocation");
            return false;
        }
        messages++;
        end_ns = rf_clock_ns();
    }
    if (messages == 0) return false;
    driver->restless_turns = 0;
    driver->transport->flush(d->link);
    d->served_ns += end_ns - now_ns;
    if (!d->is_monitor && d->served_ns >= RF_CORE_SERVE_BUDGET_NS) {
        d->blocked_until_ns = d->window_started_ns + RF_CORE_SERVE_WINDOW_NS;
        rf_core_wake_at(driver, d->blocked_until_ns);
        return false;
    }
    return messages == MESSAGES_PER_TURN || end_ns - now_ns >= TURN_NS;
}

bool rf_kernel_link_serve(rf_cpudriver_t *driver)
{
    bool more = serve(driver, &driver->monitor, rf_clock_ns());
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        if (driver->dispatchers[i].link) more |= serve(driver, &driver->dispatchers[i], rf_clock_ns());
    }
    if (rf_clock_ns() >= driver->progress_ns) progress(driver);
    rf_core_wake_at(driver, driver->progress_ns);
    return more;
}

/* Whether its link is one to be waited for in memory. One that is being made wakes us by the endpoint's descriptor, and whatever its
 * peer writes until then keeps nobody awake. */
static bool may_speak(const rf_dispatcher_t *d, uint64_t now_ns)
{
    return d->link && d->link->state != RF_LINK_STATE_CONNECTING && d->blocked_until_ns <= now_ns;
}

void rf_kernel_link_sleep(rf_cpudriver_t *driver, bool more)
{
    rf_link_t *links[RF_CORE_DISPATCHERS_MAX + 1];
    unsigned n = 0;
    const uint64_t now_ns = rf_clock_ns();
    if (!more) {
        if (may_speak(&driver->monitor, now_ns)) links[n++] = driver->monitor.link;
        for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
            if (may_speak(&driver->dispatchers[i], now_ns)) links[n++] = driver->dispatchers[i].link;
        }
        if (rf_wait_arm_all(links, n)) {
            driver->restless_turns = 0;
        } else {
            more = ++driver->restless_turns < RESTLESS_TURNS_MAX;
            n = 0;                   /* all are disarmed already */
            driver->progress_ns = 0; /* it may be an event, which only progress delivers */
            if (!more)
                rf_core_wake_at(driver, now_ns + BLOCKED_LOOK_NS); /* whatever a peer does, we do not spin */
        }
    }
    if (n == 0) {
        rf_core_sleep(driver, more);
        return;
    }
    rf_core_sleep(driver, false);
    /* A callback may have closed one of them meanwhile: disarm those that are still there. */
    if (driver->monitor.link) driver->transport->disarm(driver->monitor.link);
    for (size_t i = 0; i < RF_CORE_DISPATCHERS_MAX; i++) {
        if (driver->dispatchers[i].link) driver->transport->disarm(driver->dispatchers[i].link);
    }
}
