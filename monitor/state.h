/*
 * Inside of monitor_step; only monitor/ includes it.
 *
 *   step.c           memory, the step: one flat switch; timers
 *   output.c         making actions
 *   agree.c          the engine: proposals of this monitor, entries to apply, deaths
 *   replica.c        the agreed state: cores, domains, names; a function of the log alone
 *   registry*.c      keys, locks, semaphores, barriers, queues, on their own (registry.h): agreed, too
 *   peers.c          links to other monitors: dialling on demand, messages by type
 *   clients.c        clients and what each may ask; query.c answers what needs no operation
 *   kernel.c         the CPU driver: its answers and events, the dispatchers of this core
 *   op_*.c           one distributed operation each, as a state machine with named states
 *   snapshot.c       the replica as bytes, and back
 *   op_member.c      forming, joining, deaths; heartbeat.c: silence, contact
 *   standby.c        one-sided append: lanes in readiness, and what engine and shell say of them
 *   op_change.c      joins and leaves that somebody asks for; op_fence.c: fencing who has left; op_reclaim.c: what it had
 *   lateness.c       how late this monitor runs when it is due
 *   names.c          exporting and withdrawing names
 *   op_registry.c    changing the registry and waiting in it; op_registry_read.c: reading and watching it; op_session.c: its owners;
 *                    op_once.c: sessions of the log, for changes that are repeated through another monitor
 *   machine_events.c what subscribers are told
 *
 * Two layers of truth about who is alive:
 *   agreed   in the replica, changed only by applied entries; the same function of the log at every monitor
 *   told     what this monitor knows besides: evidence of deaths, ends of dispatchers, that are not (or, without a
 *            quorum, cannot be) agreed yet. Every answer to a question shows both; no applied entry depends on it.
 */
#ifndef RF_MONITOR_STATE_H
#define RF_MONITOR_STATE_H

#include "monitor/types.h"

/* ---- output.c ---- */
monitor_action_t *out_action(monitor_t *m, monitor_action_kind_t kind);
/* Copies two parts into the output behind each other. */
void out_bytes(monitor_t *m, monitor_action_t *action, const void *a, size_t a_size, const void *b,
               size_t b_size);
void out_log(monitor_t *m, rf_log_level_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void out_close_fds(monitor_t *m, int *fds, unsigned n);
void out_close_fd(monitor_t *m, int *fd);
bool out_is_nearly_full(const monitor_t *m);
void kernel_invoke(monitor_t *m, uint32_t tag, uint16_t op, const void *body, size_t size, const int *fds,
                   unsigned n_fds);
void client_reply(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, rf_err_t err, const void *body,
                  size_t size);
void client_reply_fd(monitor_t *m, uint32_t client, uint32_t tag, uint16_t op, const void *body, size_t size,
                     int fd);
void client_event_fd(monitor_t *m, uint32_t client, uint16_t op, uint64_t key, const void *body, size_t size,
                     int fd);
void client_close(monitor_t *m, uint32_t client, const char *why);

/* ---- agree.c ---- */
rf_err_t agree_init(monitor_t *m, void *memory, size_t size);
agreement_params_t agree_params(const rf_boot_t *boot, rf_core_t core, rf_incarnation_t incarnation);
/* Proposes for `op`, when there is room; its class's `proposed` gets the answer, never before this returns. */
void agree_propose(monitor_t *m, op_t *op, const command_t *command);
/* The same with other bytes, which stay put until then. */
void agree_propose_bytes(monitor_t *m, op_t *op, const void *bytes, size_t size);
/* The same with the proposal it has already; or, OP_CHANGE, its change. */
void agree_queue(monitor_t *m, op_t *op);
bool agree_is_under_way(const monitor_t *m, const op_t *op); /* proposed, and not answered */
/* A linearizable read (Raft 6.4): its class's `readable` is called once the replica holds all that was committed by now. */
void agree_read(monitor_t *m, op_t *op);
void agree_form(monitor_t *m, const rf_core_t *cores, unsigned n);
void agree_transfer(monitor_t *m); /* not from within a step */
void agree_death(monitor_t *m, rf_core_t core, agreement_evidence_t evidence);
void agree_fenced(monitor_t *m, rf_core_t core);
void agree_room(monitor_t *m, rf_core_t core);
rf_err_t agree_receive(monitor_t *m, rf_core_t from, uint8_t type, const void *bytes, size_t size);
void agree_tick(monitor_t *m);
void agree_note_state(monitor_t *m); /* whether there is a quorum, and who leads */

/* An event of lanes. */
void agree_lane(monitor_t *m, agreement_event_t *event);

/* ---- standby.c ---- */
void standby_act(monitor_t *m, const agreement_lane_output_t *out); /* what a step of the engine wants */
void standby_event(monitor_t *m, const monitor_event_t *event);
void standby_note_members(monitor_t *m); /* voters, incarnations or addresses may have changed */
/* The media to all other hosts' voters take no memory back: this core has no lanes, and never will. */
bool standby_is_unfit(const monitor_t *m);
void standby_tick(monitor_t *m);
uint64_t standby_next_ns(const monitor_t *m);
void standby_look(const monitor_t *m, monitor_output_t *out); /* which word the shell is to look at */

/* ---- snapshot.c ---- */
size_t replica_save(const monitor_t *m, void *bytes, size_t max);
rf_err_t replica_load(monitor_t *m, const void *bytes,
                      size_t size); /* RF_ERR_PROTOCOL: nothing has changed */

/* ---- replica.c ---- */
domain_t *domain_find(monitor_t *m, rf_domain_t id);
/* Some dispatcher of it may run, also if it has ended: its place is not another's yet. */
static inline bool domain_is_kept(const domain_t *d)
{
    return (d->alive | d->ending | d->left) != 0;
}
bool domain_has_ended(const domain_t *d); /* agreed or told */
bool dispatcher_is_alive(const monitor_t *m, const domain_t *d,
                         unsigned index); /* agreed, and nothing else told */
name_t *name_find(monitor_t *m, const char *name);
bool name_is_alive(monitor_t *m, const name_t *name); /* its dispatcher is, agreed and told */
rf_err_t replica_apply(monitor_t *m, const void *bytes, size_t size, uint64_t *value);
void replica_core_left(monitor_t *m,
                       rf_core_t core); /* `agreed` of it: what it has is kept until it is reclaimed */
void replica_ended_seen(monitor_t *m, domain_t *d); /* what follows when its end is first seen */
/* Besides the log: dispatcher `index` has ended. */
void replica_tell_ended(monitor_t *m, rf_domain_t domain, unsigned index, int32_t wait_status,
                        rf_err_t reason, uint64_t at_ns);
/* The kernel of its host says so. Its domains have ended when the log says so; without a quorum, for all that can be said, now. */
void replica_tell_core_dead(monitor_t *m, rf_core_t core);
bool text_is_valid(const char *text, size_t max); /* printable, ends within max, not empty */

/* ---- ops ---- */
op_t *op_begin(monitor_t *m, op_kind_t kind, uint64_t deadline_ns); /* NULL: too many */
void op_end(monitor_t *m, op_t *op);
void op_deadline(monitor_t *m, op_t *op, uint64_t deadline_ns);
uint32_t op_id(const monitor_t *m, const op_t *op);
op_t *op_find(monitor_t *m, uint32_t id, op_kind_t kind); /* OP_FREE: of any kind */
/* For a request of a client. Answers RF_ERR_LIMIT itself and returns NULL when there are too many. */
op_t *op_begin_for_client(monitor_t *m, op_kind_t kind, uint32_t client, const rf_wire_header_t *request,
                          uint64_t deadline_ns);
void op_reply(monitor_t *m, op_t *op, rf_err_t err, const void *body,
              size_t size); /* to its client, and ends it */

extern const op_class_t op_spawn_class, op_end_class, op_running_class, op_wait_class, op_kill_class,
    op_connect_class, op_name_class, op_links_class, op_stats_class, op_listen_class, op_shutdown_class,
    op_change_class, op_fence_class, op_reclaim_class, op_registry_class, op_read_class, op_watch_class,
    op_session_class, op_once_class, op_holdings_class;

const op_class_t *op_class_of(const op_t *op);

/* ---- peers.c ---- */
/* RF_OK: linked. RF_ERR_AGAIN: being dialled, or will be when its address comes: peer_up() of the operation follows.
 * RF_ERR_PEER_DEAD. */
rf_err_t peer_need(monitor_t *m, rf_core_t core);
/* Linked with that very incarnation; if not, it is being dialled, unless that makes no sense. */
bool peer_reach(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
/* Is dialled, also where it is known to be dead: its next life may answer. */
void peer_try(monitor_t *m, rf_core_t core);
void peer_send(monitor_t *m, rf_core_t core, uint8_t type, const void *a, size_t a_size, const void *b,
               size_t b_size);
/* A request for an operation; counted. RF_ERR_AGAIN: too many unanswered. */
rf_err_t peer_request(monitor_t *m, op_t *op, rf_core_t core, uint8_t type, const void *body, size_t size,
                      const int *fds, unsigned n_fds);
void peer_answered(monitor_t *m, op_t *op);
/* This operation is what that monitor asked for, by its tag. */
void peer_asked(monitor_t *m, op_t *op, rf_core_t from, uint32_t tag);
/* The life that asked is linked: a later one counts its tags anew, and would take the answer for that to another question. */
bool peer_waits(const monitor_t *m, const op_t *op);
void peer_up(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, const monitor_process_t *process);
void peer_process_died(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
void peer_told_died(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation); /* by rackfishd */
/* Closes the link with `incarnation` of a core, or an earlier one, and listens to none of these any more. */
void peer_fence(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
void peer_fail_ops(monitor_t *m, rf_core_t core); /* those that wait for it */
void peer_room(monitor_t *m, rf_core_t core);
void peer_down(monitor_t *m, rf_core_t core, rf_err_t err);
void peer_broken(monitor_t *m, rf_core_t core);
void peer_message(monitor_t *m, rf_core_t core, uint8_t type, const uint8_t *bytes, size_t size);
void peer_address(monitor_t *m, rf_core_t core, const char *address);
void peer_ask_addresses(monitor_t *m, uint32_t client); /* a rackfishd, for those that are wanted */
static inline bool same_node(const monitor_t *m, rf_core_t core)
{
    return m->boot->node_of[core] == m->node;
}
void park_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, const monitor_event_t *event);
unsigned unpark_fds(monitor_t *m, bool peer, uint32_t who, uint32_t tag, int *fds); /* how many */
void unpark_all(monitor_t *m, bool peer, uint32_t who);

/* ---- clients.c, query.c, machine_events.c ---- */
void client_up(monitor_t *m, uint32_t client, rf_domain_t domain, uint16_t index);
void client_gone(monitor_t *m, uint32_t client);
void client_message(monitor_t *m, uint32_t client, uint8_t type, const uint8_t *bytes, size_t size);
bool query_answer(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const uint8_t *body);
void query_domain(const monitor_t *m, const domain_t *d, rf_client_domain_t *out);
void machine_event(monitor_t *m, uint32_t what, rf_err_t err, rf_core_t core, rf_node_t node,
                   rf_domain_t domain);
void machine_events_deliver(monitor_t *m);

/* ---- kernel.c ---- */
void kernel_up(monitor_t *m);
void kernel_message(monitor_t *m, uint8_t type, const uint8_t *bytes, size_t size);
void kernel_fds(monitor_t *m, const monitor_event_t *event);
local_t *local_find(monitor_t *m, rf_domain_t domain, unsigned index);
local_t *local_add(monitor_t *m,
                   bool reserved); /* reserved: also the last LOCAL_RESERVED places; NULL: full */
void local_free(monitor_t *m, local_t *local);
void kernel_reconcile(monitor_t *m); /* the replica was replaced: ends what it knows to have ended */
void local_kill_domain(monitor_t *m, rf_domain_t domain); /* its dispatchers here: the domain has ended */

/* ---- operations ---- */
void spawn_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_spawn_t *body);
void spawn_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_chunk(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_more(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_peer_spawned(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void spawn_check_span(op_t *op); /* op_span.c's operation waits for its block */
void span_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_spawn_t *body);
void end_local(monitor_t *m, local_t *local, int32_t wait_status, rf_err_t reason);
void end_orphan(monitor_t *m, rf_domain_t domain,
                unsigned index);      /* agreed for this core, but never started */
void end_propose_again(monitor_t *m); /* the quorum is back */
void end_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void end_tell_all(monitor_t *m, rf_core_t to); /* RF_CORE_NONE: everybody in reach */
void wait_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_domain_t domain);
void wait_cancel(monitor_t *m, uint32_t client, uint32_t tag);
void wait_domain_ended(monitor_t *m, rf_domain_t domain);
void wait_domain_forgotten(monitor_t *m, rf_domain_t domain);
void kill_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                  const rf_client_kill_t *body);
void kill_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void kill_peer_killed(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void connect_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_connect_t *body);
void connect_accept(monitor_t *m, uint32_t client, const rf_client_accept_t *body);
void connect_peer(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void connect_peer_connected(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void name_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, const char *name);
/* `size`: of the bytes behind the header. `once`: NULL, or the session of the log and the sequence in it. */
void registry_change(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                     const rf_client_registry_t *body, size_t size, const rf_client_once_t *once);
void once_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t session);
void registry_cancel(monitor_t *m, op_t *op); /* a wait, because its client says so */
void registry_op_ended(monitor_t *m, op_t *op);
void registry_answered(void *monitor,
                       const registry_answer_t *answer); /* by the registry, while it applies */
/* A snapshot was loaded into the registry: waits whose end it hides are answered. */
void registry_loaded(monitor_t *m);
registry_params_t registry_params_of(const rf_boot_t *boot);
/* Names a wait or a session, of all that ever were in this machine. */
uint64_t registry_number(monitor_t *m);
void registry_read(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_registry_t *body, size_t size);
void registry_watch(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                    const rf_client_registry_t *body, size_t size);
void registry_watches_deliver(monitor_t *m);
void registry_session_open(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void registry_session_end(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t id);
session_t *registry_session_find(monitor_t *m, uint32_t client,
                                 uint64_t id); /* open; NO_CLIENT: of whomever, in any state */
void registry_session_client_gone(monitor_t *m, uint32_t client);
void registry_session_proposed(monitor_t *m, uint64_t id); /* one less that it proposes */
/* A change of that session has been applied: one of mine that has ended is ended again. */
void registry_session_owns(monitor_t *m, uint64_t id);
void registry_sessions_tick(monitor_t *m);
void links_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from);
void links_pong(monitor_t *m, rf_core_t core, const uint8_t *bytes, size_t size);
void links_tick(monitor_t *m);
void stats_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, uint64_t from);
void listen_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void holdings_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void shutdown_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request);
void shutdown_progress(monitor_t *m);

/* ---- op_member.c ---- */
void member_start(monitor_t *m);
void member_tick(monitor_t *m);
uint64_t member_next_ns(const monitor_t *m);
void member_linked(monitor_t *m, rf_core_t core);
void member_ready(monitor_t *m, rf_core_t core);
void member_joined(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation); /* by an applied entry */
void member_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order);
/* The kernel's evidence of a core's death: first-hand, or told. */
void member_dead(monitor_t *m, rf_core_t core, bool first_hand);
void member_tell_deaths(monitor_t *m, rf_core_t to);
void member_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void member_expelled(monitor_t *m, rf_core_t from, rf_err_t err);    /* RF_CORE_NONE: the engine says so */
static inline bool core_is_member(const monitor_t *m, unsigned core) /* core_agreed() of it is in the view */
{
    return m->members[core / 8] >> (core % 8) & 1;
}
/* The last incarnation that was in the view; 0: none yet. */
static inline rf_incarnation_t core_agreed(const monitor_t *m, unsigned core)
{
    rf_incarnation_t later = m->cores[core].agreed;
    return later > 0 ? later : m->named[core / 8] >> (core % 8) & 1;
}
/* The last incarnation that is known of; an earlier one is never heard of again. */
static inline rf_incarnation_t core_life(const core_t *c)
{
    return c->after_first + 1;
}
static inline uint64_t core_heard_ns(const monitor_t *m, const core_t *c)
{
    return c->heard_ns > m->silent_since_ns ? c->heard_ns : m->silent_since_ns;
}
/* A member of the view, and nothing else is known of it. */
static inline bool core_is_alive(const monitor_t *m, unsigned core)
{
    const core_t *c = &m->cores[core];
    return core_is_member(m, core) && core_agreed(m, core) == core_life(c) && !c->dead;
}

/* ---- op_change.c ---- */
void join_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request, rf_core_t core);
void leave_request(monitor_t *m, uint32_t client, const rf_wire_header_t *request,
                   const rf_client_leave_t *body);
void leave_tick(monitor_t *m);
bool leave_done(monitor_t *m); /* this core was asked to leave, and has: answers and ends. Else false */
void expel_node(monitor_t *m, rf_node_t node); /* in the lives that its cores have now */
/* Those who wait to join, for one change of that sequence: their cores, each once. Returns how many. */
unsigned joins_gather(monitor_t *m, uint64_t sequence, rf_core_t joiners[AGREEMENT_JOINS_MAX]);
void joins_scatter(monitor_t *m, uint64_t sequence); /* ... it was not taken: they wait again */
/* The view of that change is applied, from within the engine's step. */
void joins_applied(monitor_t *m, uint64_t sequence, const agreement_apply_t *entry);
void joins_proposed(monitor_t *m, uint64_t sequence, rf_err_t err);
#define CHANGE_LEAVERS_MAX AGREEMENT_CHANGES_MAX
/* Whom the change has leave, for one entry; of a larger node the rest is asked for again. */
unsigned change_leavers(const monitor_t *m, const op_t *op, agreement_member_t leavers[CHANGE_LEAVERS_MAX]);

/* ---- op_fence.c ---- */
void fence_left(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation, bool in_order);
void fence_told(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
/* That incarnation, and whatever was before it, is known to run no more. */
void fence_known(monitor_t *m, rf_core_t core, rf_incarnation_t incarnation);
void fence_tell(monitor_t *m, rf_core_t to); /* what a new link may have missed */
void fence_tick(monitor_t *m);
uint64_t fence_next_ns(const monitor_t *m);

/* ---- lateness.c ---- */
void lateness_note(monitor_t *m, uint64_t due_ns); /* the first step at or after it */
uint64_t lateness_often_ns(const monitor_t *m);    /* p99.9; of few, the worst */

/* ---- op_reclaim.c ---- */
void reclaim_tick(monitor_t *m);
uint64_t reclaim_next_ns(const monitor_t *m);

/* ---- heartbeat.c ---- */
void heartbeat_tick(monitor_t *m);
uint64_t heartbeat_next_ns(const monitor_t *m);
rf_core_t heartbeat_gateway(const monitor_t *m, rf_node_t node); /* RF_CORE_NONE: no member lives there */
void heartbeat_received(monitor_t *m, rf_core_t from, const uint8_t *bytes, size_t size);
void heartbeat_frozen(monitor_t *m, bool frozen);
void heartbeat_led(monitor_t *m);          /* a word of the leader was read, which says nothing */
uint64_t heartbeat_lease_ns(monitor_t *m); /* at the end of a step */
void heartbeat_tell_frozen(monitor_t *m, rf_core_t to);
rf_core_t heartbeat_speaker(const monitor_t *m); /* whose word on this host's contact counts */
/* A host without contact to the quorum for so long freezes its dispatchers ... */
static inline uint64_t boot_self_ns(const rf_boot_t *boot)
{
    return boot->host_deadline_ms * RF_NS_PER_MS;
}
/* ... or, if its monitors cannot say so any more, its CPU drivers freeze them: their leases are as much longer as the word of
 * contact may take inside the host ... */
#define WATCH_BEATS 3 /* of a gateway, between questions to the others of its host */
static inline uint64_t boot_lease_ns(const rf_boot_t *boot)
{
    return boot_self_ns(boot) + (WATCH_BEATS + 1) * boot->heartbeat_ms * RF_NS_PER_MS;
}
/* ... and the others wait so long after the view without it: contact precedes that, so what is left is that clocks differ in rate (a
 * tenth is far more than they do), and that freezing takes a moment, of which the longest part is waiting for a CPU: election_ms is
 * more than that. */
static inline uint64_t boot_expel_ns(const rf_boot_t *boot)
{
    return boot_lease_ns(boot) + boot_lease_ns(boot) / 10 +
           ((uint64_t)boot->election_ms + 3 * boot->heartbeat_ms) * RF_NS_PER_MS;
}

#endif
