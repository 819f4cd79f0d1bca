/*
 * What one-sided append (doc/agreement.md) asks of a medium, asked by the engine itself: writes to a lane are placed in order; what
 * WRITTEN has said of is there once the owner has fenced, whatever the writer does; nothing comes after.
 *
 *   a    leads, and writes into a region of b
 *   b    owns the lane; fences before it votes
 *   c    the third voter, without a lane; it is in no other place than this test
 *
 * Messages of the engines are delivered here, so that they can be lost: only lanes go over the medium. Memory that a peer has mapped, as
 * between processes of one host, cannot be taken back from it: such a medium carries no lanes.
 */
#include "conformance.h"

#include "consensus/agreement.h"

#include <stdlib.h>
#include <string.h>

enum { A, B, C, REPLICAS };

#define LINES        AGREEMENT_LANE_LINES_MIN
#define BYTES        (LINES * AGREEMENT_LANE_LINE)
#define MESSAGES_MAX 256
#define WRITTEN_MAX  1024
#define KEY_TYPE     2

typedef struct message {
    rf_core_t from, to;
    uint8_t type;
    size_t size;
    uint8_t bytes[AGREEMENT_MESSAGE_MAX];
} message_t;

typedef struct lanes {
    world_t *world;
    agreement_t *engines[REPLICAS];
    void *memory[REPLICAS];
    uint64_t commands[REPLICAS]; /* applied there */
    uint64_t now_ns, sequence;
    unsigned answered; /* commands, with RF_OK, at a */
    message_t *messages;
    unsigned n_messages;
    bool isolated; /* a: no message comes from there or gets there */
    agreement_lane_order_t order;
    uint64_t id, term;
    rf_region_t *region; /* at b */
    rf_region_key_t key;
    uint8_t mirror
        [BYTES]; /* of the lane, at a: what is written comes from here, and stays until its line is used again */
    struct {
        uint64_t number;
        rf_err_t err;
    } written[WRITTEN_MAX]; /* heard of and not told to the engine */
    unsigned n_written;
    bool fenced;
} lanes_t;

static agreement_member_t member(rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = 1};
}

static rf_err_t apply(void *context, const agreement_apply_t *entry, uint64_t *value)
{
    uint64_t *commands = context;
    *commands += entry->kind == AGREEMENT_ENTRY_COMMAND && !entry->duplicate;
    *value = *commands;
    return RF_OK;
}

static size_t save(void *context, void *bytes, size_t max)
{
    assert_true(max >= sizeof(uint64_t));
    memcpy(bytes, context, sizeof(uint64_t));
    return sizeof(uint64_t);
}

static rf_err_t load(void *context, uint64_t index, const void *bytes, size_t size)
{
    (void)index;
    if (size != sizeof(uint64_t)) return RF_ERR_PROTOCOL;
    memcpy(context, bytes, size);
    return RF_OK;
}

static void engine_open(lanes_t *l, rf_core_t core)
{
    static const uint16_t host[REPLICAS] = {0, 1, 2};
    agreement_params_t params = {.self = member(core),
                                 .n_cores = REPLICAS,
                                 .log_max = 256,
                                 .entry_max = 160,
                                 .proposals_max = AGREEMENT_WINDOW,
                                 .snapshot_max = 64,
                                 .voters_max = REPLICAS,
                                 .host = host,
                                 .resend_ns = RF_NS_PER_MS,
                                 .heartbeat_ns = RF_NS_PER_MS,
                                 .election_ns = 10 * RF_NS_PER_MS,
                                 .silence_ns = RF_NS_PER_S,
                                 .seed = core,
                                 .lane_lines = LINES,
                                 .state_machine = {&l->commands[core], apply, save, load}};
    size_t size = (agreement_size(&params) + 63) & ~(size_t)63;
    l->memory[core] = aligned_alloc(64, size);
    assert_non_null(l->memory[core]);
    assert_int_equal(agreement_init(l->memory[core], size, &params, &l->engines[core]), RF_OK);
}

/* ---- what the engines say ---- */

static void poll_both(lanes_t *l)
{
    const rf_transport_t *t = l->world->fixture->transport;
    rf_slot_t none;
    world_pump(l->world);
    for (unsigned side = A; side <= B; side++) {
        if (side == B && l->fenced) continue;
        assert_int_equal(t->poll(l->world->end[side].link, &none, 1), 0);
    }
}

static void a_event(end_t *a, rf_link_event_t event, const rf_link_event_info_t *info)
{
    lanes_t *l = a->user;
    if (event != RF_LINK_WRITTEN) return;
    assert_true(l->n_written < WRITTEN_MAX);
    l->written[l->n_written].number = info->cookie;
    l->written[l->n_written++].err = info->err;
}

static void write_lane(lanes_t *l, const agreement_write_t *w)
{
    const rf_transport_t *t = l->world->fixture->transport;
    uint64_t since_ns = rf_clock_ns();
    assert_int_equal(w->to.core, B);
    assert_true(w->offset + w->size <= BYTES);
    memcpy(l->mirror + w->offset, w->bytes, w->size);
    rf_err_t err;
    while ((err = t->remote_write(l->world->end[A].link, &l->key, w->offset, l->mirror + w->offset, w->size,
                                  NULL, w->number)) == RF_ERR_AGAIN) {
        poll_both(l);
        hang_check(since_ns, "room for a write to a lane");
    }
    if (err == RF_OK) return;
    assert_true(l->fenced && l->n_written < WRITTEN_MAX);
    l->written[l->n_written].number = w->number;
    l->written[l->n_written++].err = err;
}

static void post(lanes_t *l, rf_core_t from, const agreement_message_t *m)
{
    for (unsigned i = 0; i < m->n_to; i++) {
        if (l->isolated && (from == A || m->to[i].core == A)) continue;
        assert_true(l->n_messages < MESSAGES_MAX);
        message_t *out = &l->messages[l->n_messages++];
        *out = (message_t){.from = from, .to = m->to[i].core, .type = m->type, .size = m->size};
        memcpy(out->bytes, m->bytes, m->size);
    }
}

static void step(lanes_t *l, rf_core_t core, agreement_event_t event)
{
    for (bool more = true; more; event = (agreement_event_t){.kind = AGREEMENT_TICK}) {
        event.now_ns = l->now_ns;
        const agreement_output_t *out = agreement_step(l->engines[core], &event);
        assert_int_equal(out->err, RF_OK);
        for (unsigned i = 0; i < out->n_messages; i++) post(l, core, &out->messages[i]);
        for (unsigned i = 0; core == A && i < out->n_completions; i++)
            l->answered += out->completions[i].err == RF_OK;
        more = out->more;
        if (!out->lane) continue;
        for (unsigned i = 0; i < out->lane->n_writes; i++) write_lane(l, &out->lane->writes[i]);
        if (out->lane->order == AGREEMENT_LANE_KEEP) continue;
        assert_int_equal(core, B);
        l->order = out->lane->order;
        l->id = out->lane->id;
        l->term = out->lane->term;
    }
}

static void lane(lanes_t *l, rf_core_t core, agreement_lane_event_t event)
{
    step(l, core, (agreement_event_t){.kind = AGREEMENT_LANE, .lane = event});
}

/* All messages, and time for what they lead to. */
static void run(lanes_t *l, uint64_t ns)
{
    for (uint64_t until_ns = l->now_ns + ns; l->now_ns < until_ns; l->now_ns += RF_NS_PER_MS / 4) {
        for (unsigned i = 0; i < l->n_messages; i++) { /* grows meanwhile */
            message_t m = l->messages[i];
            agreement_event_t event = {.kind = AGREEMENT_RECEIVE};
            event.receive.from = member(m.from);
            event.receive.type = m.type;
            event.receive.bytes = m.bytes;
            event.receive.size = m.size;
            if (!l->isolated || (m.from != A && m.to != A)) step(l, m.to, event);
        }
        l->n_messages = 0;
        for (rf_core_t core = A; core < REPLICAS; core++)
            step(l, core, (agreement_event_t){.kind = AGREEMENT_TICK});
    }
}

/* Tells a's engine of the writes that the medium has told of. */
static void tell_written(lanes_t *l)
{
    poll_both(l);
    unsigned n = l->n_written;
    for (unsigned i = 0; i < n; i++)
        lane(l, A,
             (agreement_lane_event_t){.kind = AGREEMENT_LANE_WRITTEN,
                                      .peer = member(B),
                                      .id = l->id,
                                      .number = l->written[i].number,
                                      .err = l->written[i].err});
    memmove(l->written, l->written + n, (l->n_written - n) * sizeof *l->written);
    l->n_written -= n;
}

static void show_lines(lanes_t *l, agreement_lane_kind_t kind)
{
    lane(l, B, (agreement_lane_event_t){.kind = kind, .id = l->id, .lines = l->region->base});
}

static void propose(lanes_t *l, unsigned n)
{
    uint8_t command[64] = {0};
    for (unsigned i = 0; i < n; i++) {
        agreement_event_t event = {.kind = AGREEMENT_PROPOSE};
        event.propose.session = agreement_own_session(l->engines[A]);
        event.propose.sequence = ++l->sequence;
        event.propose.bytes = command;
        event.propose.size = 1 + l->sequence % sizeof command;
        step(l, A, event);
    }
}

static agreement_state_t state_of(const lanes_t *l, rf_core_t core)
{
    agreement_state_t s;
    agreement_query(l->engines[core], &s);
    return s;
}

/* ---- the case ---- */

static void key_over(lanes_t *l)
{
    const rf_transport_t *t = l->world->fixture->transport;
    rf_slot_t slot = {.control = rf_control_make(KEY_TYPE, sizeof l->key, false, 0)};
    memcpy(slot.payload, &l->region->key, sizeof l->key);
    uint64_t since_ns = rf_clock_ns();
    while (t->send(l->world->end[B].link, &slot, 1) == 0) {
        world_pump(l->world);
        hang_check(since_ns, "room for a lane's key");
    }
    t->flush(l->world->end[B].link);
    while (t->poll(l->world->end[A].link, &slot, 1) == 0) {
        world_pump(l->world);
        hang_check(since_ns, "a lane's key");
    }
    memcpy(&l->key, slot.payload, sizeof l->key);
}

static void form(lanes_t *l)
{
    const rf_transport_t *t = l->world->fixture->transport;
    static const rf_core_t cores[REPLICAS] = {A, B, C};
    for (rf_core_t core = A; core < REPLICAS; core++) engine_open(l, core);
    agreement_event_t event = {.kind = AGREEMENT_FORM};
    event.form.cores = cores;
    event.form.n_cores = REPLICAS;
    step(l, A, event);
    run(l, 3 * RF_NS_PER_MS);
    assert_int_equal(t->region_create(l->world->end[B].link, BYTES, &l->region), RF_OK);
    memset(l->region->base, 0xa5, BYTES); /* nothing needs to be cleared */
    key_over(l);
    lane(l, B, (agreement_lane_event_t){.kind = AGREEMENT_LANE_READY, .peer = member(A)});
    assert_int_equal(l->order, AGREEMENT_LANE_GRANT);
    lane(l, A,
         (agreement_lane_event_t){
             .kind = AGREEMENT_LANE_GRANTED, .peer = member(B), .id = l->id, .term = l->term});
}

/* Several laps, committed by c's messages or b's lane, whichever is first; b looks now and then. */
static void works(lanes_t *l)
{
    uint64_t since_ns = rf_clock_ns();
    for (unsigned round = 0; round < 200 || l->answered < l->sequence; round++) {
        if (round < 200) propose(l, 1 + round % 3);
        tell_written(l);
        if (round % 5 == 0) show_lines(l, AGREEMENT_LANE_LINES);
        run(l, RF_NS_PER_MS / 4);
        hang_check(since_ns, "commands through a lane");
    }
    while (state_of(l, B).committed < state_of(l, A).committed) {
        tell_written(l);
        show_lines(l, AGREEMENT_LANE_LINES);
        run(l, RF_NS_PER_MS / 4);
        hang_check(since_ns, "the lane's owner to hear of it all");
    }
}

/* a alone with b's memory: what the medium has told of is committed, and b knows nothing of it. */
static void commits_unseen(lanes_t *l, unsigned n)
{
    unsigned answered = l->answered;
    uint64_t since_ns = rf_clock_ns(), last = state_of(l, B).last;
    l->isolated = true;
    propose(l, n);
    while (l->answered == answered) {
        tell_written(l);
        hang_check(since_ns, "a commit by completion");
    }
    assert_int_equal(state_of(l, B).last, last);
}

static void a_lane_is_fenced_before_a_vote(void **state)
{
    (void)state;
    if (!fixture_can(FIXTURE_BULK, "it moves no bulk")) return;
    if (conformance_fixture->keep_mapped) {
        print_message("memory that a peer has mapped cannot be taken back: no lanes over this medium\n");
        return;
    }
    lanes_t *l = calloc(1, sizeof *l);
    uint8_t *then = malloc(BYTES);
    assert_true(l && then && (l->messages = calloc(MESSAGES_MAX, sizeof *l->messages)));
    l->world = world_linked(64, 256);
    l->now_ns = RF_NS_PER_S;
    l->world->end[A].user = l;
    l->world->end[A].on_event = a_event;
    form(l);
    works(l);
    commits_unseen(l, 24);

    /* a is silent: the others ask, and b must not answer before its lane is a's no more */
    for (unsigned i = 0; i < 400 && l->order != AGREEMENT_LANE_REVOKE; i++) {
        if (i % 40 == 0) propose(l, 1); /* more is on its way there */
        run(l, RF_NS_PER_MS / 4);
    }
    assert_int_equal(l->order, AGREEMENT_LANE_REVOKE);
    assert_int_equal(state_of(l, B).term, 1);
    l->world->fixture->transport->fence(l->world->end[B].link);
    l->fenced = true;
    memcpy(then, l->region->base, BYTES);
    l->order = AGREEMENT_LANE_KEEP;
    for (unsigned i = 0; i < 50; i++) { /* a goes on as if nothing were */
        if (i % 10 == 0) propose(l, 1);
        tell_written(l);
    }
    show_lines(l, AGREEMENT_LANE_REVOKED);
    run(l, 200 * RF_NS_PER_MS);
    tell_written(l);
    agreement_state_t b = state_of(l, B), c = state_of(l, C);
    assert_true(b.term > 1 && (b.role == AGREEMENT_ROLE_LEADER || c.role == AGREEMENT_ROLE_LEADER));
    assert_true(l->commands[B] >= l->answered && l->commands[C] >= l->answered);
    assert_memory_equal(then, l->region->base, BYTES);

    world_close(l->world);
    for (unsigned i = 0; i < REPLICAS; i++) free(l->memory[i]);
    free(l->messages);
    free(then);
    free(l);
}

const struct CMUnitTest cases_lane[] = {
    cmocka_unit_test(a_lane_is_fenced_before_a_vote),
};
const size_t cases_lane_n = sizeof cases_lane / sizeof *cases_lane;
