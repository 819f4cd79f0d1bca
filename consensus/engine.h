/*
 * Inside of the engine; only consensus/ includes it. engine_state.h has what it holds.
 *
 *   agreement.c   parameters, memory, the step: one flat switch, then the epilogue, which derives everything from state
 *   log.c         the ring of entries, in wire layout: appending, truncating, room
 *   config.c      configurations: voter sets, majorities, choosing voters over failure domains
 *   apply.c       committed entries, in order: sessions, views, the caller's machine
 *   session.c     exactly once: which sequences were executed, and the results that are kept
 *   proposal.c read.c   own proposals and reads until they are answered
 *   form.c        the first entry, by which a machine is formed
 *   role.c        terms, elections, leading and ceasing to
 *   change.c      leader: changes of membership, one at a time; deaths and suspicions
 *   progress.c    what each member that is fed here holds; plan.h: whom that is
 *   snapshot.c    for whoever is behind what the ring holds
 *   send.c        the epilogue's messages, from state alone
 *   recv_*.c      one received message type each
 *   lane.c        one-sided append, at who owns the lane; lane_feed.c at the leader, who writes it; lane_record.c the layout
 *   steady.c      shortcuts through all of it for what a machine does nearly all the time
 *
 * Messages are made from state, never queued: what a member lacks follows from its progress, so a lost message costs a
 * resend and no memory.
 */
#ifndef RF_CONSENSUS_ENGINE_H
#define RF_CONSENSUS_ENGINE_H

#include "consensus/engine_state.h"

#include "base/assert.h"
#include "base/clock.h"

#include <string.h>

/* ---- small things ---- */

static inline bool defect(const agreement_t *e, agreement_defect_t which)
{
    return __builtin_expect(e->params.defects & (unsigned)which, 0);
}

#define OWN_SESSIONS_ALL 1024

/* Members whose own sessions are kept at once: all of a real machine; a simulated rack is larger, and most of it silent. */
static inline unsigned own_sessions_max(const agreement_params_t *p)
{
    return p->n_cores <= OWN_SESSIONS_ALL ? p->n_cores : OWN_SESSIONS_ALL / 2;
}

static inline size_t padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static inline bool bit_get(const uint8_t *map, unsigned i)
{
    return map[i / 8] >> (i % 8) & 1;
}

static inline void bit_set(uint8_t *map, unsigned i, bool value)
{
    map[i / 8] = (uint8_t)((map[i / 8] & ~(1u << (i % 8))) | (unsigned)value << (i % 8));
}

#define NOBODY ((agreement_member_t){.core = RF_CORE_NONE})

static inline bool same(agreement_member_t a, agreement_member_t b)
{
    return a.core == b.core && a.incarnation == b.incarnation;
}

static inline bool is_self(const agreement_t *e, agreement_member_t m)
{
    return same(m, e->params.self);
}

static inline agreement_member_t from_wire(wire_member_t w)
{
    return (agreement_member_t){.core = w.core, .incarnation = w.incarnation};
}

static inline wire_member_t to_wire(agreement_member_t m, uint16_t flags)
{
    return (wire_member_t){.core = m.core, .flags = flags, .incarnation = m.incarnation};
}

/*
 * May a term be true? Terms rise by one an election, so who takes part is never far behind; one that is was lied to, or has
 * slept through more elections than there can be, and comes back as a new incarnation, which knows no term. (A hostile member
 * would else end all elections by one message near the highest number.)
 */
static inline bool term_possible(const agreement_t *e, uint64_t term)
{
    return term <= UINT64_MAX / 2 && (e->term == 0 || term <= e->term || term - e->term <= TERM_AHEAD_MAX);
}

static inline bool leads(const agreement_t *e)
{
    return e->role == AGREEMENT_ROLE_LEADER;
}

static inline agreement_member_state_t member_state(const agreement_t *e, rf_core_t core)
{
    return (agreement_member_state_t)(e->members[core] & 3);
}

static inline rf_incarnation_t member_incarnation(const agreement_t *e, rf_core_t core)
{
    return e->members[core] >> 2;
}

/* Is that very incarnation in the applied view? */
static inline bool member_in(const agreement_t *e, agreement_member_t m)
{
    return m.core < e->params.n_cores && e->members[m.core] == (m.incarnation << 2 | AGREEMENT_MEMBER_IN);
}

static inline bool member_dead(const agreement_t *e, agreement_member_t m)
{
    return m.core < e->params.n_cores && member_incarnation(e, m.core) == m.incarnation &&
           bit_get(e->dead, m.core);
}

static inline const config_t *config_committed(const agreement_t *e)
{
    return &e->configs[e->config];
}

/* The configuration in force: the newest in the log, committed or not (Raft 4.1). */
static inline const config_t *config_newest(const agreement_t *e)
{
    return &e->configs[e->pending ? e->config ^ 1u : e->config];
}

/* The handler leaves early, and says why. */
static inline void engine_ignore(agreement_t *e, const char *why)
{
    e->output.ignored = why;
}

static inline void engine_protocol_error(agreement_t *e, const char *why)
{
    e->output.ignored = why;
    e->output.err = RF_ERR_PROTOCOL;
}

static inline uint64_t add_ns(uint64_t at, uint64_t ns)
{
    return ns > RF_NEVER - at ? RF_NEVER : at + ns;
}

static inline void earlier(uint64_t *at, uint64_t ns)
{
    if (ns < *at) *at = ns;
}

static inline unsigned completion_room(const agreement_t *e)
{
    return AGREEMENT_COMPLETIONS_MAX - e->output.n_completions;
}

/* The caller has made sure of room. */
static inline void engine_complete(agreement_t *e, agreement_completion_t completion)
{
    rf_assert(e->output.n_completions < AGREEMENT_COMPLETIONS_MAX);
    e->output.completions[e->output.n_completions++] = completion;
}

static inline void engine_complete_proposal(agreement_t *e, uint64_t session, uint64_t sequence, rf_err_t err,
                                            uint64_t value)
{
    rf_assert(e->output.n_completions < AGREEMENT_COMPLETIONS_MAX);
    agreement_completion_t *c = &e->output.completions[e->output.n_completions++];
    c->kind = AGREEMENT_COMPLETED_PROPOSAL;
    c->err = err;
    c->session = session;
    c->sequence = sequence;
    c->cookie = 0;
    c->value = value;
}

/* Of what is mostly short: no call for it. */
static inline void copy_bytes(void *to, const void *from, size_t size)
{
    typedef uint64_t pair __attribute__((vector_size(16), aligned(1), may_alias));
    uint8_t *t = to;
    const uint8_t *f = from;
    if (size - 16 <= 16) { /* 16 to 32 */
        pair head = *(const pair *)(const void *)f, tail = *(const pair *)(const void *)(f + size - 16);
        *(pair *)(void *)t = head;
        *(pair *)(void *)(t + size - 16) = tail;
    } else if (size - 33 <= 31) { /* 33 to 64 */
        pair a = *(const pair *)(const void *)f, b = *(const pair *)(const void *)(f + 16);
        pair c = *(const pair *)(const void *)(f + size - 32),
             d = *(const pair *)(const void *)(f + size - 16);
        *(pair *)(void *)t = a;
        *(pair *)(void *)(t + 16) = b;
        *(pair *)(void *)(t + size - 32) = c;
        *(pair *)(void *)(t + size - 16) = d;
    } else {
        memcpy(t, f, size);
    }
}

/* When time matters next. */
uint64_t engine_next_tick_ns(const agreement_t *e);

/* A message, judged by who sent it, then by its type. */
void engine_receive(agreement_t *e, const agreement_event_t *event);

/* How long to wait before asking again; RF_NEVER when links lose nothing and nothing else says. */
uint64_t engine_retry_ns(const agreement_t *e);
/* By the word of the leader so much is committed; what is missing here may be on its way for a moment. */
void engine_lacks(agreement_t *e, uint64_t committed);

/* groups.c */
size_t engine_groups_size(const agreement_params_t *p);
bool engine_groups_init(agreement_t *e);
void engine_groups_receive(agreement_t *e, const agreement_event_t *event);
void engine_groups_tick(agreement_t *e);
void engine_groups_room(agreement_t *e, agreement_member_t peer);
void engine_groups_fenced(agreement_t *e, agreement_member_t m);
void engine_groups_event(agreement_t *e, const group_event_t *event);
void engine_groups_loaded(agreement_t *e);
void engine_groups_finish(agreement_t *e);

/* log.c */
static inline wire_entry_t *log_at(const agreement_t *e, uint64_t index)
{
    return (wire_entry_t *)(void *)(e->log + e->offsets[index & (e->params.log_max - 1)]);
}
static inline const uint8_t *log_body(const wire_entry_t *entry)
{
    return (const uint8_t *)(entry + 1);
}
/* Term of an entry that the ring holds, or of the one before; index in [first - 1, last]. */
static inline uint64_t log_term(const agreement_t *e, uint64_t index)
{
    rf_assert(index + 1 >= e->first && index <= e->last);
    if (index == e->last) return e->last_term;
    return index + 1 == e->first ? e->first_term : log_at(e, index)->term;
}
/* Makes room for one more in the ring, of `need` bytes. */
static inline wire_entry_t *log_place(agreement_t *e, uint32_t need)
{
    uint64_t index = e->last + 1;
    if (index - e->first >= e->params.log_max) {
        rf_assert(e->first <= e->applied);
        e->first_term = log_at(e, e->first)->term;
        e->first++;
    }
    uint32_t at = e->log_end + need > e->log_size ? 0 : e->log_end;
    e->offsets[index & (e->params.log_max - 1)] = at;
    e->log_end = at + need;
    e->last = index;
    return (wire_entry_t *)(void *)(e->log + at);
}
/* Leader: adds an entry of its term. RF_ERR_AGAIN: the ring is full of what a majority has not applied. */
rf_err_t log_append(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size);
/* Follower: adds a checked entry. False: the ring is full of what is not applied here. */
bool log_accept(agreement_t *e, const wire_entry_t *entry, const void *body);
/* Forgets what is after `last`, which is at least what is committed. */
void log_truncate(agreement_t *e, uint64_t last);
/* Raises `committed`, at most to `last`. */
void log_commit(agreement_t *e, uint64_t committed);
/* The log ends at `index`, as the leader of `term` says, and is sealed. */
void log_seal(agreement_t *e, uint64_t index, uint64_t term);
/* What counts beside the length when logs are compared for a vote: of the last entry, or of the seal. */
static inline uint64_t log_vote_term(const agreement_t *e)
{
    return e->sealed_index == e->last && e->sealed_term > e->last_term ? e->sealed_term : e->last_term;
}
/* Empties the log: the next entry is `index` + 1. */
void log_reset(agreement_t *e, uint64_t index, uint64_t term);
/* What the body of an entry must be for its kind, wherever it comes from. */
bool log_entry_valid(const agreement_t *e, const wire_entry_t *entry, const uint8_t *body, uint64_t index);

/* config.c */
unsigned config_find(const agreement_t *e, const agreement_member_t *voters, unsigned n,
                     agreement_member_t m); /* n: not there */
/* SET_* bits of the sets of the newest configuration that a member is in. */
unsigned config_sets(const agreement_t *e, const config_t *config, agreement_member_t m);
/* Takes part in elections: until the configuration that it does not vote in is committed it may be needed, for its log
 * may be the longest (Raft 4.2.2); its own vote counts only in sets that name it. */
static inline bool config_self_votes(const agreement_t *e)
{
    return !e->expelled && (config_sets(e, config_newest(e), e->params.self) != 0 ||
                            (e->pending && config_sets(e, config_committed(e), e->params.self) != 0));
}
/* Takes a checked FORM or VIEW entry as the newest configuration. */
void config_take(agreement_t *e, const wire_entry_t *entry, uint64_t index);
/* After any change of what is in force: role, progress. */
void config_changed(agreement_t *e);
bool config_form_valid(const agreement_t *e, const uint8_t *body, size_t size);
bool config_form_member(const wire_form_t *form, const uint8_t *list, rf_core_t core);
bool config_view_valid(const agreement_t *e, const uint8_t *body, size_t size);
/* The voters not proved dead can still make a majority of every set in force: of the newest in this log. */
bool config_can_elect(const agreement_t *e);
/* The same, or of the committed ones: who lacks an uncommitted change may be elected by them, and the change is undone. */
bool config_can_agree(const agreement_t *e);
/* Best voters of those for whom member(context, i) answers true, i below n. */
typedef bool (*config_member_fn)(const void *context, unsigned i, agreement_member_t *out);
unsigned config_choose(const agreement_params_t *p, config_member_fn member, const void *context, unsigned n,
                       const agreement_member_t *current, unsigned n_current, agreement_member_t *out);

/* apply.c */
void apply_committed(agreement_t *e);
/* After FORM, VIEW or a snapshot: all that follows from membership. */
void apply_membership(agreement_t *e);

/* session.c */
session_t *session_look_up(const agreement_t *e, uint64_t id);
static inline session_t *session_find(const agreement_t *e, uint64_t id)
{
    session_t *last = e->session_last; /* the same one, mostly */
    return last->id == id && id != 0 ? last : session_look_up(e, id);
}
/* Own sessions are made when first used. NULL: there is no such session; *full: because all places are taken. */
session_t *session_use(agreement_t *e, uint64_t id, bool *full);
rf_err_t session_open(agreement_t *e, uint64_t id);
rf_err_t session_end(agreement_t *e, uint64_t id);
bool session_exists(const agreement_t *e, uint64_t id);
/* RF_OK: fresh. RF_ERR_EXISTS: executed. RF_ERR_SESSION: older than the window. `s` may be NULL: fresh. */
static inline rf_err_t session_check(const session_t *s, uint64_t sequence)
{
    if (!s || sequence > s->high) return RF_OK;
    uint64_t back = s->high - sequence;
    if (back >= AGREEMENT_WINDOW) return RF_ERR_SESSION;
    return s->bits >> back & 1 ? RF_ERR_EXISTS : RF_OK;
}
void session_mark(session_t *s, uint64_t sequence);
static inline result_t *session_result(const session_t *s, uint64_t sequence) /* place for it; NULL: own */
{
    return s->results ? &s->results[sequence % AGREEMENT_WINDOW] : NULL;
}
void session_clear(agreement_t *e);
size_t session_save(const agreement_t *e, uint8_t *out);
size_t session_save_max(const agreement_params_t *p);
/* Checks, and takes if `take`. Returns bytes used; 0: nonsense. */
size_t session_load(agreement_t *e, const uint8_t *bytes, size_t size, bool take);

/* proposal.c */
static inline proposal_t *proposal_at(const agreement_t *e, unsigned place)
{
    return (proposal_t *)(void *)(e->proposals + (size_t)(place - 1) * e->proposal_stride);
}
/* The map: open addressing by session and sequence; place + 1. At most a quarter of it is used. */
static inline unsigned proposal_map_start(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    /* Apart: removal walks over neighbours. */
    return (unsigned)((sequence * 0x9e3779b97f4a7c15ull + session) >> e->proposal_map_shift);
}

static inline unsigned proposal_map_mask(const agreement_t *e)
{
    return (1u << (64 - e->proposal_map_shift)) - 1;
}

/* Where its place stands; where there is 0: not in it. */
static inline unsigned proposal_map_find(const agreement_t *e, uint64_t session, uint64_t sequence)
{
    unsigned at = proposal_map_start(e, session, sequence);
    for (; e->proposal_map[at] != 0; at = (at + 1) & proposal_map_mask(e)) {
        const proposal_t *p = proposal_at(e, e->proposal_map[at]);
        if (p->sequence == sequence && p->session == session) break;
    }
    return at;
}

/* A new one, the last of all; its place stands at `at` of the map. */
static inline proposal_t *proposal_take(agreement_t *e, unsigned at)
{
    rf_assert(e->n_proposals < e->params.proposals_max);
    uint16_t place = e->free_proposal;
    if (place == 0)
        place = (uint16_t)++e->n_proposal_places;
    else
        e->free_proposal = proposal_at(e, place)->after;
    proposal_t *p = proposal_at(e, place);
    p->before = e->newest;
    p->after = 0;
    *(e->newest ? &proposal_at(e, e->newest)->after : &e->oldest) = place;
    e->newest = place;
    e->n_proposals++;
    e->proposal_map[at] = place;
    return p;
}

/* One that is not under way, of which the place in the map was sought; whether it is sent is for the caller to say. */
static inline proposal_t *proposal_new(agreement_t *e, unsigned at, agreement_entry_kind_t kind,
                                       uint64_t session, uint64_t sequence, const void *bytes, size_t size)
{
    proposal_t *p = proposal_take(e, at);
    p->refused = false;
    p->kind = (uint16_t)kind;
    p->size = (uint16_t)size;
    p->session = session;
    p->sequence = sequence;
    p->since_ns = e->now_ns;
    p->loads = e->n_loads;
    p->order = ++e->proposal_order;
    if (size > 0) copy_bytes(p->bytes, bytes, size);
    return p;
}
proposal_t *proposal_find(const agreement_t *e, uint64_t session, uint64_t sequence);
/* Its proposer was told that its outcome is unknown. */
bool proposal_may_be_in_log(const agreement_t *e, uint64_t session, uint64_t sequence);
void proposal_start(agreement_t *e, agreement_entry_kind_t kind, uint64_t session, uint64_t sequence,
                    const void *bytes, size_t size);
void proposal_change(agreement_t *e, const agreement_event_t *event);
/* Answers it, if it is one that was made here. */
void proposal_answer(agreement_t *e, uint64_t session, uint64_t sequence, rf_err_t err, uint64_t value);
/* Leader: what becomes of a proposal: RF_OK: appended; else why not, as REFUSED_* in *why. */
void proposal_order(agreement_t *e, const wire_proposal_t *p, const uint8_t *bytes, wire_refused_t *refused);
proposal_t *proposal_next_unsent(agreement_t *e);
void proposal_refuse(agreement_t *e, proposal_t *p, uint32_t err, uint64_t applied);
void proposal_finish_refused(agreement_t *e);
void proposal_unsend_one(agreement_t *e, proposal_t *p); /* it is to be sent (again) */
void proposal_unsend(agreement_t *e);                    /* to a new leader, or again: all of them */
void proposal_unsend_overdue(agreement_t *e);            /* those unanswered for resend_ns */
void proposal_fail(agreement_t *e); /* no quorum: all are answered, as far as there is room */
void proposal_lead(agreement_t *e); /* a new leader's own */
void proposal_after_load(agreement_t *e);
bool proposal_overdue(const agreement_t *e, uint64_t since_ns);

/* steady.c */
steady_t steady_state(const agreement_t *e);
/* The event by a shortcut, with the epilogue; false: nothing has happened, it is to go the general way. */
bool steady_step(agreement_t *e, const agreement_event_t *event);

/* read.c */
void read_start(agreement_t *e, uint64_t cookie);
void read_finish(agreement_t *e);
void read_fail(agreement_t *e);
/* Leader: true: answered at once, by an index (all ones: no room, later); false: when a round has been answered. */
bool read_serve(agreement_t *e, agreement_member_t from, uint64_t id, uint64_t *index);
void read_answer(agreement_t *e, agreement_member_t to, const wire_read_t *reads, unsigned n);
void read_confirm(agreement_t *e);
void read_unserve(agreement_t *e);

/* form.c */
void role_form(agreement_t *e, const agreement_event_t *event);

/* role.c */
void role_lead(agreement_t *e);
/* False: not yet: what comes of the lane in the term that ends is to be read first (lane.c), and the message comes again. */
bool role_adopt_term(agreement_t *e, uint64_t term);
void role_follow(agreement_t *e, agreement_member_t leader);
void role_heard(agreement_t *e);
void role_step_down(agreement_t *e);
void role_stand(agreement_t *e, bool pre, bool evidence, bool transfer);
void role_count_votes(agreement_t *e);
void role_granted(agreement_t *e, agreement_member_t by, const wire_vote_t *vote);
void role_recount(agreement_t *e);                /* candidate: other sets of voters are in force */
void role_behind(agreement_t *e);                 /* candidate: another's log is longer: that one's turn */
void role_outrun(agreement_t *e);                 /* refused a candidate whose log is behind this one's */
void role_claimed(agreement_t *e, uint64_t term); /* a vote of that term has come ahead: it enters it */
void role_voted(agreement_t *e, bool claimed);    /* for another: gives it time */
bool role_is_first(const agreement_t *e);         /* of the live voters that may stand */
void role_no_quorum(agreement_t *e);
void role_leader_died(agreement_t *e);
void role_leader_unheard(agreement_t *e); /* the link to it broke */
void role_split(agreement_t *e);          /* candidate: refused in its own term */
void role_transfer(agreement_t *e);
void role_tick(agreement_t *e);
void role_next_round(agreement_t *e);
bool role_lease_valid(const agreement_t *e);
/* It has promised its leader not to vote, and that holds: the leader may read alone, and is not known to be dead. */
bool role_promised(const agreement_t *e);
void role_update_lost(agreement_t *e);

/* change.c */
void change_step(agreement_t *e);
void change_died(agreement_t *e, agreement_member_t m, agreement_evidence_t evidence, bool first_hand);
void change_heard(agreement_t *e, agreement_member_t m);
void change_stuck(agreement_t *e, agreement_member_t m);
void change_tick(agreement_t *e);
uint64_t change_next_ns(const agreement_t *e);
void change_lead(agreement_t *e);
void change_want(agreement_t *e);

/* progress.c */
progress_t *progress_find(agreement_t *e, agreement_member_t m);
progress_t *progress_add(agreement_t *e, agreement_member_t m);
void progress_configure(agreement_t *e); /* after a change of configuration, membership, role or leader */
void progress_reset(agreement_t *e);     /* new leader: nothing is known */
void progress_rewind(agreement_t *e, progress_t *p);
/* Of each set in force: what its majority has at least; the least of the sets. */
typedef enum progress_field {
    PROGRESS_MATCH,
    PROGRESS_APPLIED,
    PROGRESS_ROUND,
    PROGRESS_HEARD
} progress_field_t;
uint64_t progress_majority(const agreement_t *e, progress_field_t field, uint64_t own);
void progress_commit(agreement_t *e);
bool progress_waits(const agreement_t *e);
void progress_resend(agreement_t *e);

/* snapshot.c */
size_t snapshot_engine_max(const agreement_params_t *p);
bool snapshot_start(agreement_t *e, progress_t *p);
/* False: the output is full, or not now; DUE_FEED is to stay. */
bool snapshot_send(agreement_t *e, progress_t *p);
void snapshot_acked(agreement_t *e, progress_t *p, uint64_t id, uint64_t offset);
void snapshot_lost(agreement_t *e, progress_t *p); /* what was sent and not acknowledged is sent again */
/* Leader: up to where the ring may be trimmed, if that is `limit` but for voters who are sent what precedes it. */
uint64_t snapshot_trim_limit(agreement_t *e, uint64_t limit);
bool snapshot_load(agreement_t *e);

/* lane.c: what the rest of the engine knows of it; `e->lanes` is there */
size_t lane_size(const agreement_params_t *p);
void lane_init(agreement_t *e, void *memory);
void lane_event(agreement_t *e, const agreement_lane_event_t *event);
/* Whether the term must not end before the own lane is fenced and read: then that is under way. */
bool lane_bars_term(agreement_t *e);
bool lane_bars_standing(agreement_t *e, bool evidence, bool transfer);
/* The message just received may have been barred: it is kept. */
void lane_hold(agreement_t *e, const agreement_event_t *event);
size_t lane_ack_put(const agreement_t *e, void *out); /* bytes of what follows an ACCEPTED; 0: nothing */
void lane_finish(agreement_t *e);
void lane_query(const agreement_t *e, agreement_state_t *out);
/* lane_feed.c: at the leader */
/* Whether that voter is fed through its lane: if it can be now, it is from now on. */
bool lane_serves(agreement_t *e, progress_t *p);
bool lane_feed(agreement_t *e, progress_t *p); /* false: the output is full */
unsigned lane_open(const agreement_t *e);      /* how many voters are fed through theirs */
void lane_accepted(agreement_t *e, agreement_member_t from, uint64_t match, const wire_lane_t *taken);

/* send.c */
/* Entries from `first` on, to at most `last`, as many as fit before `*size` exceeds `max`; returns how many. */
uint32_t send_put_entries(const agreement_t *e, uint64_t first, uint64_t last, uint8_t *out, size_t *size,
                          size_t max);
/* A message being made, of at most `max` bytes. NULL: the output is full. */
static inline uint8_t *send_begin(agreement_t *e, size_t max)
{
    if (e->output.n_messages == AGREEMENT_MESSAGES_MAX || ARENA_SIZE - e->arena_used < max ||
        e->to_max - e->n_to < PROGRESS_MAX) {
        e->output.more = true;
        return NULL;
    }
    return e->arena + e->arena_used;
}
static inline void send_end(agreement_t *e, uint8_t type, size_t size, unsigned n_to)
{
    rf_assert(size <= AGREEMENT_MESSAGE_MAX && n_to > 0);
    agreement_message_t *m = &e->output.messages[e->output.n_messages++];
    m->to = e->to + e->n_to;
    m->n_to = n_to;
    m->type = type;
    m->bytes = e->arena + e->arena_used;
    m->size = size;
    e->n_to += n_to;
    e->arena_used += (uint32_t)padded(size);
    if (e->resend_at_ns == RF_NEVER && e->params.resend_ns != RF_NEVER)
        e->resend_at_ns = e->now_ns + e->params.resend_ns;
}
/* Answers this step's APPEND, at the next place of the arena. */
static inline void send_ack_put(agreement_t *e)
{
    wire_accepted_t *m = (wire_accepted_t *)(void *)(e->arena + e->arena_used);
    m->view = e->view;
    m->term = e->term;
    m->round = e->ack_round;
    m->match = e->matched;
    m->committed = e->committed;
    m->applied = e->applied;
    m->flags = e->ack_flags;
    m->reserved = 0;
    e->to[e->n_to] = e->ack_to;
    e->ack_due = false;
    /* What it acknowledges to the leader it has promised (role.c, role_lease_valid). */
    if (e->params.lease_ns > 0 && same(e->ack_to, e->leader) && !defect(e, AGREEMENT_DEFECT_NO_PROMISE)) {
        e->promise_until_ns = add_ns(e->now_ns, e->params.lease_ns);
        e->promised_to = e->leader;
    }
}
void send_one(agreement_t *e, uint8_t type, const void *bytes, size_t size, agreement_member_t to);
void send_all(agreement_t *e);
/* The resend timer: whatever is unanswered is made again. */
void send_again(agreement_t *e);

/* recv_*.c; `bytes` is hostile */
void recv_forward(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_append(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_accepted(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_refused(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_report(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_vote_request(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
/* The link to the leader broke: a pre-vote, or a vote that was claimed, is given now, if it was refused a moment ago because the leader was
 * heard. */
typedef enum vote_after_all {
    VOTE_NOBODY,
    VOTE_GIVEN,
    VOTE_CANNOT_WIN /* its log is behind this one's */
} vote_after_all_t;
vote_after_all_t vote_after_all(agreement_t *e);
void recv_vote(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_read(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_read_index(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_snapshot(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_snapshot_ack(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);
void recv_fetch(agreement_t *e, agreement_member_t from, const uint8_t *bytes, size_t size);

#endif
