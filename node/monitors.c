#include "node/monitors.h"

#include "base/log.h"
#include "base/os.h"
#include "node/boot.h"
#include "node/control_events.h"
#include "node/cores.h"
#include "node/peers.h"
#include "node/run_dir.h"
#include "transport/message.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"
#include "wire/death.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_NS       (5 * RF_NS_PER_MS)
#define RETRY_LATER_NS (200 * RF_NS_PER_MS)
#define CONNECT_NS     (10 * RF_NS_PER_S) /* the endpoint's deadline */
#define POLL_BATCH     32
#define POLLS_PER_PUMP 16
/* A ring of this size from the start: what a booting monitor is told (the other nodes' addresses) comes before it reads. */
#define SLOTS_MAX 1024

static void retry_connect(void *context)
{
    rf_monitor_connect(context);
}

static void end_calls(rf_local_core_t *core, rf_err_t err)
{
    while (core->calls) {
        rf_monitor_call_t *call = core->calls;
        rf_monitor_done_fn done = call->done;
        rf_monitor_call_cancel(call);
        done(call->context, err, NULL, 0);
    }
}

static void close_gone(void *context)
{
    rf_local_core_t *core = context;
    rf_link_t *link = core->link_gone;
    core->link_gone = NULL;
    rf_timer_clear(&core->close_gone);
    if (!link) return;
    rf_log(RF_LOG_WARN, "the link to core %u's monitor ended", core->core);
    link->transport->close(link);
}

/* To take the link's memory down is in no hurry: the other monitors elect now, it may be on this CPU. */
static void close_later(rf_local_core_t *core, rf_link_t *link)
{
    close_gone(core);
    core->link_gone = link;
    rf_timer_set(&core->daemon->loop, &core->close_gone, rf_clock_ns() + RF_DEATH_CLOSE_NS, close_gone, core);
}

static void link_lost(rf_local_core_t *core, rf_err_t err)
{
    rf_link_t *link = core->link;
    bool was_up = core->link_up;
    core->link = NULL;
    core->link_up = false;
    core->assembler->open = false;
    if (link && was_up && err == RF_ERR_PEER_DEAD)
        close_later(core, link);
    else if (link)
        link->transport->close(link);
    end_calls(core, RF_ERR_PEER_DEAD);
    if (was_up && err != RF_ERR_PEER_DEAD)
        rf_log(RF_LOG_WARN, "the link to core %u's monitor ended: %s", core->core, rf_err_text(err));
    rf_daemon_t *daemon = core->daemon;
    if (daemon->events_core == (int)(core - daemon->cores)) daemon->events_core = -1;
    if ((core->life == RF_LIFE_STARTING || core->life == RF_LIFE_UP) && daemon->phase != RF_PHASE_GONE)
        rf_timer_set(&daemon->loop, &core->retry, rf_clock_ns() + (was_up ? RETRY_LATER_NS : RETRY_NS),
                     retry_connect, core);
    rf_events_resubscribe(daemon);
}

static void unwatch(rf_local_core_t *core)
{
    if (core->monitor_pidfd < 0) return;
    rf_loop_remove(&core->daemon->loop, &core->monitor_source);
    close(core->monitor_pidfd);
    core->monitor_pidfd = -1;
}

/* A monitor died: the others elect, and who waits for it learns it, before anything else is done. */
static void on_monitor_died(void *context, uint32_t events)
{
    rf_local_core_t *core = context;
    (void)events;
    unwatch(core);
    core->dead = core->monitor_incarnation;
    rf_peers_core_dead(core->daemon, core->core, core->monitor_incarnation);
}

static void watch(rf_local_core_t *core)
{
    rf_incarnation_t incarnation = core->link->peer.incarnation;
    if (core->monitor_pidfd >= 0 && core->monitor_incarnation != incarnation &&
        rf_process_wait_dead(core->monitor_pidfd, 0) != RF_OK)
        core->unsure = true;
    unwatch(core);
    core->monitor_pidfd = rf_process_open(core->monitor_pid, core->monitor_start_time);
    core->monitor_incarnation = incarnation;
    if (core->monitor_pidfd >= 0 &&
        rf_loop_add(&core->daemon->loop, &core->monitor_source, core->monitor_pidfd, EPOLLIN, on_monitor_died,
                    core) != RF_OK) {
        close(core->monitor_pidfd);
        core->monitor_pidfd = -1;
    }
    bool is_there =
        core->monitor_start_time != 0 && rf_process_start_time(core->monitor_pid) == core->monitor_start_time;
    if (core->monitor_pidfd < 0 && (is_there || core->monitor_start_time == 0)) core->unsure = true;
}

static void link_up(rf_local_core_t *core)
{
    int pid = 0;
    unsigned uid = 0;
    if (core->link->transport->peer_credentials(core->link, &pid, &uid) == RF_OK) {
        core->monitor_pid = pid;
        core->monitor_start_time = rf_process_start_time(pid);
        watch(core);
    } else {
        core->unsure = true;
    }
    core->link_up = true;
    core->life = RF_LIFE_UP;
    rf_run_dir_write_state(core->daemon);
    rf_boot_core_up(core);
    rf_events_resubscribe(core->daemon);
}

static void on_link_event(void *context, rf_link_t *link, rf_link_event_t event,
                          const rf_link_event_info_t *info)
{
    (void)context;
    rf_local_core_t *core = link->user;
    if (event == RF_LINK_FDS) {
        for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
        return;
    }
    if (!core || core->link != link) return;
    if (event == RF_LINK_UP && !core->link_up)
        link_up(core);
    else if (event == RF_LINK_CLOSED || event == RF_LINK_DEAD)
        link_lost(core, event == RF_LINK_CLOSED ? RF_ERR_CLOSED : info->err);
}

void rf_monitor_connect(rf_local_core_t *core)
{
    rf_daemon_t *daemon = core->daemon;
    if (core->link || (core->life != RF_LIFE_STARTING && core->life != RF_LIFE_UP)) return;
    char path[RF_ADDRESS_MAX];
    snprintf(path, sizeof path, "%s/monitor-%u.sock", daemon->node_dir, core->core);
    rf_link_params_t params = {
        .address = path, .socket = -1, .slots = SLOTS_MAX, .slots_max = SLOTS_MAX, .user = core};
    if (access(path, F_OK) < 0 || daemon->shm->connect(daemon->endpoint, &params, &core->link) != RF_OK) {
        core->link = NULL;
        rf_timer_set(&daemon->loop, &core->retry, rf_clock_ns() + RETRY_NS, retry_connect, core);
    }
}

void rf_monitor_disconnect(rf_local_core_t *core)
{
    rf_timer_clear(&core->tell_again);
    rf_timer_clear(&core->retry);
    if (core->link || core->calls) link_lost(core, RF_ERR_PEER_DEAD);
    rf_timer_clear(&core->retry);
}

static uint32_t next_tag(void)
{
    static uint32_t tag;
    if (++tag == 0) tag = 1;
    return tag;
}

static rf_err_t send_request(rf_local_core_t *core, uint32_t tag, uint16_t op, const void *body, size_t size,
                             const int *fds, unsigned n_fds)
{
    rf_wire_header_t header = {.tag = tag, .op = op};
    unsigned slots = (unsigned)((sizeof header + size + RF_SLOT_PAYLOAD - 1) / RF_SLOT_PAYLOAD);
    if (!core->link_up) return RF_ERR_PEER_DEAD;
    if (core->link->transport->room(core->link, slots) < slots) return RF_ERR_BUSY;
    if (n_fds > 0) {
        rf_client_fds_t head = {.tag = tag, .op = op};
        rf_err_t err = core->link->transport->pass_fds(core->link, &head, sizeof head, fds, n_fds);
        if (err != RF_OK) return err == RF_ERR_AGAIN ? RF_ERR_BUSY : err;
    }
    rf_err_t err = rf_message_send2(core->link, RF_CLIENT_REQUEST, &header, sizeof header, body, size);
    if (err != RF_OK) return err == RF_ERR_AGAIN ? RF_ERR_BUSY : err;
    core->link->transport->flush(core->link);
    return RF_OK;
}

static void call_late(void *context)
{
    rf_monitor_call_t *call = context;
    rf_monitor_done_fn done = call->done;
    rf_monitor_call_cancel(call);
    done(call->context, RF_ERR_TIMEOUT, NULL, 0);
}

rf_err_t rf_monitor_call(rf_local_core_t *core, rf_monitor_call_t *call, uint16_t op, const void *body,
                         size_t size, const int *fds, unsigned n_fds, uint64_t timeout_ns,
                         rf_monitor_done_fn done, void *context)
{
    uint32_t tag = next_tag();
    rf_err_t err = send_request(core, tag, op, body, size, fds, n_fds);
    if (err != RF_OK) return err;
    *call = (rf_monitor_call_t){.core = core, .tag = tag, .op = op, .done = done, .context = context};
    call->next = core->calls;
    call->link = &core->calls;
    if (call->next) call->next->link = &call->next;
    core->calls = call;
    if (timeout_ns)
        rf_timer_set(&core->daemon->loop, &call->timer, rf_clock_ns() + timeout_ns, call_late, call);
    return RF_OK;
}

static void unlink_call(rf_monitor_call_t *call)
{
    rf_timer_clear(&call->timer);
    *call->link = call->next;
    if (call->next) call->next->link = call->link;
    call->core = NULL;
}

void rf_monitor_call_cancel(rf_monitor_call_t *call)
{
    rf_local_core_t *core = call->core;
    if (!core) return;
    bool waits = call->op == RF_CLIENT_WAIT || call->op == RF_CLIENT_REGISTRY_WATCH ||
                 call->op == RF_CLIENT_REGISTRY_CHANGE;
    if (waits && core->link_up) {
        rf_client_target_t target = {.domain = call->tag};
        rf_monitor_tell(core, RF_CLIENT_CANCEL, &target, sizeof target);
    }
    unlink_call(call);
}

rf_err_t rf_monitor_tell(rf_local_core_t *core, uint16_t op, const void *body, size_t size)
{
    return send_request(core, next_tag(), op, body, size, NULL, 0);
}

rf_local_core_t *rf_monitor_first(rf_daemon_t *daemon, unsigned from)
{
    for (unsigned i = from; i < daemon->n_cores; i++) {
        if (daemon->cores[i].link_up) return &daemon->cores[i];
    }
    return NULL;
}

/* One whole message from a monitor. Answers to calls that were given up are ignored. */
static void on_message(rf_local_core_t *core, uint8_t type, const uint8_t *bytes, size_t size)
{
    rf_wire_header_t header;
    if (size < sizeof header) return;
    memcpy(&header, bytes, sizeof header);
    bytes += sizeof header;
    size -= sizeof header;
    if (type == RF_CLIENT_EVENT) {
        rf_client_machine_event_t event;
        if (header.op == RF_CLIENT_EVENT_MACHINE && size >= sizeof event) {
            memcpy(&event, bytes, sizeof event);
            rf_events_publish(core->daemon, &event);
        }
        return;
    }
    if (type != RF_CLIENT_REPLY) return;
    for (rf_monitor_call_t *call = core->calls; call; call = call->next) {
        if (call->tag != header.tag) continue;
        rf_monitor_done_fn done = call->done;
        unlink_call(call);
        done(call->context, (rf_err_t)header.err, bytes, size);
        return;
    }
}

/* Everything that one link has; a bounded amount, so that no monitor keeps the loop. */
static bool pump_link(rf_local_core_t *core)
{
    rf_slot_t slots[POLL_BATCH];
    bool any = false;
    for (unsigned round = 0; round < POLLS_PER_PUMP && core->link_up; round++) {
        rf_link_t *link = core->link;
        unsigned n = link->transport->poll(link, slots, POLL_BATCH);
        if (n == 0) break;
        any = true;
        for (unsigned i = 0; i < n && core->link == link; i++) {
            rf_err_t err = rf_assembler_feed(core->assembler, &slots[i]);
            if (err == RF_OK) {
                on_message(core, core->assembler->type, core->assembler->bytes, core->assembler->size);
            } else if (err != RF_ERR_AGAIN) {
                link_lost(core, err);
                break;
            }
        }
    }
    return any;
}

static void progress_again(void *context)
{
    rf_monitors_pump(context);
}

void rf_monitors_pump(rf_daemon_t *daemon)
{
    uint64_t next_ns = RF_NEVER;
    daemon->shm->endpoint_progress(daemon->endpoint, rf_clock_ns(), &next_ns);
    for (unsigned i = 0; i < daemon->n_cores; i++) pump_link(&daemon->cores[i]);
    if (next_ns != RF_NEVER)
        rf_timer_set(&daemon->loop, &daemon->endpoint_timer, next_ns, progress_again, daemon);
    else
        rf_timer_clear(&daemon->endpoint_timer);
}

static unsigned collect_links(rf_daemon_t *daemon, rf_link_t **links)
{
    unsigned n = 0;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].link_up) links[n++] = daemon->cores[i].link;
    }
    return n;
}

bool rf_monitors_arm(rf_daemon_t *daemon)
{
    rf_link_t *links[RF_CORES_PER_NODE_MAX];
    return rf_wait_arm_all(links, collect_links(daemon, links));
}

void rf_monitors_disarm(rf_daemon_t *daemon)
{
    rf_link_t *links[RF_CORES_PER_NODE_MAX];
    rf_wait_disarm_all(links, collect_links(daemon, links));
}

/* What the endpoint has to do is done by rf_monitors_pump() in every turn of the main loop. */
static void on_endpoint(void *context, uint32_t events)
{
    (void)context;
    (void)events;
}

rf_err_t rf_monitors_open(rf_daemon_t *daemon, char *error, size_t error_max)
{
    daemon->shm = &rf_transport_shm;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (!(daemon->cores[i].assembler = calloc(1, sizeof(rf_assembler_t)))) {
            snprintf(error, error_max, "no memory for the links to the monitors");
            return RF_ERR_NO_MEMORY;
        }
    }
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR,
                 .version_minor = RF_VERSION_MINOR,
                 .kind = RF_ROLE_NODE,
                 .core = RF_CORE_NONE,
                 .machine = daemon->machine},
        .on_event = on_link_event,
        .context = daemon,
        .deadline_ns = CONNECT_NS,
    };
    rf_err_t err = daemon->shm->endpoint_open(&params, &daemon->endpoint);
    int fd = err == RF_OK ? daemon->shm->endpoint_fd(daemon->endpoint) : -1;
    if (fd >= 0) err = rf_loop_add(&daemon->loop, &daemon->endpoint_source, fd, EPOLLIN, on_endpoint, daemon);
    if (err != RF_OK)
        snprintf(error, error_max, "cannot open the links to the monitors: %s", rf_err_text(err));
    return err;
}

void rf_monitors_close(rf_daemon_t *daemon)
{
    if (!daemon->endpoint) return;
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        rf_monitor_disconnect(&daemon->cores[i]);
        close_gone(&daemon->cores[i]);
        unwatch(&daemon->cores[i]);
        free(daemon->cores[i].assembler);
        daemon->cores[i].assembler = NULL;
    }
    rf_timer_clear(&daemon->endpoint_timer);
    rf_loop_remove(&daemon->loop, &daemon->endpoint_source);
    daemon->shm->endpoint_close(daemon->endpoint);
    daemon->endpoint = NULL;
}

rf_err_t rf_list_reply_parse(const void *body, size_t size, size_t record_size, rf_client_list_reply_t *head,
                             const void **records)
{
    if (size < sizeof *head) return RF_ERR_PROTOCOL;
    memcpy(head, body, sizeof *head);
    if ((size - sizeof *head) / record_size < head->n) return RF_ERR_PROTOCOL;
    *records = (const uint8_t *)body + sizeof *head;
    return RF_OK;
}
