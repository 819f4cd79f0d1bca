/*
 * Lanes: memory of one core that another, the leader of a term, writes from afar (consensus/lane.h). Real media promise this
 * much and no more, and here no more is done:
 *
 *      posted --> arrives, in order --> each 8 bytes accepted, in any order --> each seen by its owner, in any order, later
 *                                                         `--> placed: completion at the writer, before or after it is seen
 *
 *   - a write that is cut, by a revocation, by the writer's death or by a link that gives up, leaves any part of itself
 *   - when a revocation is confirmed all that was accepted can be seen, and nothing is accepted any more
 *   - a completion may be heard very late, in another term too; one that is lost on its way is an error at the writer, though all
 *     of the write is there
 *   - between hosts that are cut off a write waits, and arrives late or never
 *   - memory dies with its owner, and is used again as it was left by the lane before
 *
 * On iWARP a write completes when it was handed to TCP; it is placed when a READ behind it completes, which takes longer and says the
 * same. The defect handed-commits takes the first for the second.
 *
 * Checks that nobody grants a lane while the one before can be written.
 */
#include "sim.h"

#include <stdlib.h>

#define FLIGHTS_MAX (4 * AGREEMENT_LANE_WRITES_MAX) /* placed, and not all seen, too */
#define TRIES_MAX   12                              /* of a write between hosts that are cut off */

typedef enum what {
    READY = 1,
    UNREADY,
    LINES,
    REVOKED,
    REVOKED_EARLY, /* the defect's: as it was when that was ordered */
    GRANTED,
    WRITTEN,
    REFUSED, /* WRITTEN, with an error */
    ARRIVES,
    PLACED,
    CUTS,
} what_t;

typedef struct flight { /* a write that can be seen in part, or not at all */
    sim_message_t *bytes;
    uint64_t number, seed, start_ns, span_ns, see_ns; /* start_ns RF_NEVER: not arrived */
    uint32_t offset;
} flight_t;

typedef struct lane { /* of a core: its last */
    uint64_t id, term;
    agreement_member_t leader;
    uint32_t owner_life, leader_life;
    bool open;   /* may be written */
    bool broken; /* the link gave up: no more arrives */
    bool handed, arriving;
    unsigned tries;
    uint64_t accepted_ns;  /* all that has arrived is accepted by then: nothing arrives before */
    uint64_t written_ns;   /* when its last completion is heard */
    uint64_t posted, told; /* numbers of writes: every one completes, or fails */
    uint64_t *memory, *early;
    flight_t flights[FLIGHTS_MAX];
    unsigned n_flights;
} lane_t;

typedef struct sim_lanes {
    rf_prng_t prng;
    uint32_t pairs; /* seeds which pairs have a medium that can, and which that is iWARP */
    size_t bytes;
    lane_t *lanes; /* [n_cores] */
} sim_lanes_t;

/* ---- events ---- */

static uint64_t pack(what_t what, uint64_t id, uint64_t number)
{
    return (uint64_t)what << 56 | (id & 0xffffff) << 32 | (number & UINT32_MAX);
}

static what_t what_of(const sim_event_t *event)
{
    return (what_t)(event->x >> 56);
}

static bool about(const sim_event_t *event, const lane_t *lane)
{
    return (event->x >> 32 & 0xffffff) == (lane->id & 0xffffff);
}

static void tell(sim_world_t *w, rf_core_t core, uint32_t life, agreement_member_t peer, uint64_t x,
                 uint64_t at_ns)
{
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_LANE);
    event->core = core;
    event->life = life;
    event->peer = peer;
    event->x = x;
}

static void later(sim_world_t *w, rf_core_t owner, what_t what, uint64_t number, uint64_t at_ns)
{
    const lane_t *lane = &w->lanes->lanes[owner];
    sim_event_t *event = sim_push(w, at_ns, SIM_EVENT_WRITE);
    event->core = owner;
    event->life = lane->owner_life;
    event->x = pack(what, lane->id, number);
}

static agreement_member_t member_of(const sim_world_t *w, rf_core_t core)
{
    return (agreement_member_t){.core = core, .incarnation = w->processes[core].incarnation};
}

static bool is_cut(const sim_world_t *w, rf_core_t a, rf_core_t b)
{
    return w->host[a] != w->host[b] &&
           (sim_network_cut(w, w->host[a], w->host[b]) || sim_network_cut(w, w->host[b], w->host[a]));
}

/* The writer hears of a write; completions come in order. */
static void tell_writer(sim_world_t *w, rf_core_t owner, what_t what, uint64_t number, uint64_t delay_ns)
{
    lane_t *lane = &w->lanes->lanes[owner];
    uint64_t at_ns = w->now_ns + delay_ns;
    if (at_ns <= lane->written_ns) at_ns = lane->written_ns + 1;
    lane->written_ns = at_ns;
    lane->told = what == WRITTEN ? number : lane->posted;
    agreement_member_t peer = {.core = owner, .incarnation = w->processes[owner].incarnation};
    tell(w, lane->leader.core, lane->leader_life, peer, pack(what, lane->id, number), at_ns);
}

/* ---- memory ---- */

static uint64_t accepted_ns(const flight_t *f, uint32_t unit)
{
    return f->start_ns + sim_mix(f->seed, unit) % (f->span_ns + 1);
}

static uint64_t seen_ns(const flight_t *f, uint32_t unit)
{
    return accepted_ns(f, unit) + sim_mix(~f->seed, unit) % (f->see_ns + 1);
}

/* Makes visible what is by now; with `all` whatever has been accepted. Returns how many units still are not. */
static uint32_t show(lane_t *lane, const flight_t *f, uint64_t now_ns, bool all)
{
    uint32_t missing = 0, n = f->bytes->size / 8;
    if (f->start_ns == RF_NEVER) return n;
    const uint64_t *from = (const uint64_t *)(const void *)f->bytes->bytes;
    for (uint32_t u = 0; u < n; u++) {
        if ((all ? accepted_ns(f, u) : seen_ns(f, u)) <= now_ns)
            lane->memory[f->offset / 8 + u] = from[u];
        else
            missing++;
    }
    return missing;
}

static void drop_flights(sim_world_t *w, lane_t *lane, unsigned n)
{
    for (unsigned i = 0; i < n; i++) sim_message_release(w, lane->flights[i].bytes);
    memmove(lane->flights, lane->flights + n, (lane->n_flights - n) * sizeof *lane->flights);
    lane->n_flights -= n;
}

static void look(sim_world_t *w, lane_t *lane)
{
    unsigned whole = 0;
    for (unsigned i = 0; i < lane->n_flights; i++) {
        bool all = show(lane, &lane->flights[i], w->now_ns, false) == 0;
        if (all && whole == i) whole++;
    }
    drop_flights(w, lane, whole);
}

/* Nothing more is accepted; what was, can be seen. */
static void cut(sim_world_t *w, lane_t *lane)
{
    for (unsigned i = 0; i < lane->n_flights; i++) {
        uint32_t missing = show(lane, &lane->flights[i], w->now_ns, true);
        if (missing > 0 && missing < lane->flights[i].bytes->size / 8) w->statistics->lane_torn++;
    }
    drop_flights(w, lane, lane->n_flights);
    lane->arriving = false;
}

/* ---- who there is ---- */

static bool possible(const sim_world_t *w, rf_core_t a, rf_core_t b)
{
    uint32_t low = a < b ? a : b, high = a < b ? b : a;
    return sim_mix(w->lanes->pairs, low << 16 | high) >> 8 & 3;
}

void sim_lanes_set_up(sim_world_t *w)
{
    sim_lanes_t *l = calloc(1, sizeof *l);
    rf_assert(l);
    w->lanes = l;
    rf_prng_seed(&l->prng, w->seed ^ 0x6c616e65);
    l->pairs = (uint32_t)rf_prng_next(&l->prng);
    w->params.lane_lines = AGREEMENT_LANE_LINES_MIN << rf_prng_below(&l->prng, 3);
    if (w->options->whole) w->params.lane_lines = SIM_LANE_LINES_WHOLE;
    l->bytes = (size_t)w->params.lane_lines * AGREEMENT_LANE_LINE;
    l->lanes = calloc(w->n_cores, sizeof *l->lanes);
    rf_assert(l->lanes);
    for (unsigned i = 0; i < w->n_cores; i++) {
        lane_t *lane = &l->lanes[i];
        lane->memory = malloc(l->bytes);
        lane->early = malloc(l->bytes);
        rf_assert(lane->memory && lane->early);
        memset(lane->memory, 0xa5, l->bytes);
    }
}

void sim_lanes_free(sim_world_t *w)
{
    if (!w->lanes) return;
    for (unsigned i = 0; i < w->n_cores; i++) {
        free(w->lanes->lanes[i].memory);
        free(w->lanes->lanes[i].early);
    }
    free(w->lanes->lanes);
    free(w->lanes);
}

void sim_lanes_started(sim_world_t *w, const sim_process_t *p)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *q = &w->processes[i];
        if (!q->alive || q == p || !possible(w, p->core, q->core)) continue;
        tell(w, q->core, q->life, member_of(w, p->core), pack(READY, 0, 0), w->now_ns + RF_NS_PER_US);
        tell(w, p->core, p->life, member_of(w, q->core), pack(READY, 0, 0), w->now_ns + RF_NS_PER_US);
    }
}

void sim_lanes_died(sim_world_t *w, const sim_process_t *p)
{
    for (unsigned i = 0; i < w->n_cores; i++) {
        const sim_process_t *q = &w->processes[i];
        if (q->alive && q != p && possible(w, p->core, q->core))
            tell(w, q->core, q->life, member_of(w, p->core), pack(UNREADY, 0, 0), w->now_ns + RF_NS_PER_US);
        lane_t *lane = &w->lanes->lanes[i];
        /* Its queue pair dies with it; `life` counts on when a process ends. */
        if (lane->open && lane->leader.core == p->core && lane->leader_life + 1 == p->life) cut(w, lane);
    }
    lane_t *own = &w->lanes->lanes[p->core];
    if (!own->open) return;
    drop_flights(w, own, own->n_flights);
    own->open = own->arriving = false;
    tell_writer(w, p->core, REFUSED, 0, sim_exponential(&w->lanes->prng, 2 * RF_NS_PER_MS));
}

/* ---- writing ---- */

static void arrive_next(sim_world_t *w, rf_core_t owner, uint64_t at_ns)
{
    lane_t *lane = &w->lanes->lanes[owner];
    if (lane->arriving) return;
    lane->arriving = true;
    later(w, owner, ARRIVES, 0, at_ns > lane->accepted_ns ? at_ns : lane->accepted_ns + 1);
}

void sim_lanes_write(sim_world_t *w, const sim_process_t *from, const agreement_write_t *write)
{
    sim_lanes_t *l = w->lanes;
    lane_t *lane = &l->lanes[write->to.core];
    rf_prng_t *prng = &l->prng;
    const sim_process_t *owner = &w->processes[write->to.core];
    bool current = lane->open && !lane->broken && lane->id == write->id && lane->leader.core == from->core &&
                   lane->leader_life == from->life && owner->alive && owner->life == lane->owner_life;
    if (!current) {
        tell(w, from->core, from->life, write->to, pack(REFUSED, write->id, write->number),
             w->now_ns + sim_exponential(prng, 50 * RF_NS_PER_US));
        return;
    }
    if (write->size == 0 || write->size % AGREEMENT_LANE_LINE != 0 ||
        write->offset % AGREEMENT_LANE_LINE != 0 || write->offset + write->size > l->bytes ||
        lane->n_flights == FLIGHTS_MAX) {
        sim_violation(w, "lane", "core %u writes %u bytes at %u, or too many at once", from->core,
                      write->size, write->offset);
        return;
    }
    w->statistics->lane_writes++;
    lane->posted = write->number;
    lane->flights[lane->n_flights++] = (flight_t){.bytes = sim_message_new(w, 0, write->bytes, write->size),
                                                  .number = write->number,
                                                  .seed = rf_prng_next(prng),
                                                  .start_ns = RF_NEVER,
                                                  .offset = write->offset};
    if (lane->handed && w->options->sim_defects & SIM_DEFECT_HANDED_COMMITS)
        tell_writer(w, write->to.core, WRITTEN, write->number, RF_NS_PER_US);
    arrive_next(w, write->to.core, w->now_ns + sim_network_delay(w, from->core, write->to.core));
}

/* The link of this lane is over, as its writer hears at once, its owner perhaps. */
static void give_up(sim_world_t *w, rf_core_t owner)
{
    lane_t *lane = &w->lanes->lanes[owner];
    lane->broken = true;
    tell_writer(w, owner, REFUSED, 0, RF_NS_PER_US);
    if (rf_prng_next(&w->lanes->prng) & 1)
        later(w, owner, CUTS, 0, w->now_ns + sim_exponential(&w->lanes->prng, 5 * RF_NS_PER_MS));
}

/* Whether nothing passes between the two now: then the event comes again, or the link gives up. */
static bool waits(sim_world_t *w, rf_core_t owner, what_t what, uint64_t number)
{
    lane_t *lane = &w->lanes->lanes[owner];
    if (!is_cut(w, owner, lane->leader.core)) {
        lane->tries = 0;
        return false;
    }
    if (++lane->tries > TRIES_MAX) {
        give_up(w, owner);
    } else {
        later(w, owner, what, number, w->now_ns + sim_exponential(&w->lanes->prng, 2 * RF_NS_PER_MS));
        if (what == ARRIVES) lane->arriving = true;
    }
    return true;
}

static void arrives(sim_world_t *w, rf_core_t owner)
{
    lane_t *lane = &w->lanes->lanes[owner];
    rf_prng_t *prng = &w->lanes->prng;
    lane->arriving = false;
    if (waits(w, owner, ARRIVES, 0)) return;
    unsigned i = 0;
    while (i < lane->n_flights && lane->flights[i].start_ns != RF_NEVER) i++;
    if (i == lane->n_flights) return;
    if (w->faults_on && sim_chance(prng, w->knobs.loss / 16)) {
        give_up(w, owner);
        return;
    }
    flight_t *f = &lane->flights[i];
    bool slow = rf_prng_below(prng, 8) == 0;
    f->start_ns = w->now_ns;
    f->span_ns = sim_exponential(prng, slow ? 500 * RF_NS_PER_US : 500);
    f->see_ns = sim_exponential(prng, rf_prng_below(prng, 8) ? 200 : 300 * RF_NS_PER_US);
    uint64_t end_ns = f->start_ns + f->span_ns, seen = end_ns + f->see_ns;
    uint64_t x = pack(LINES, lane->id, 0);
    tell(w, owner, lane->owner_life, lane->leader, x,
         f->start_ns + rf_prng_below(prng, seen - w->now_ns + 1));
    tell(w, owner, lane->owner_life, lane->leader, x, seen);
    later(w, owner, PLACED, f->number, end_ns);
    lane->accepted_ns = end_ns;
    if (i + 1 < lane->n_flights) arrive_next(w, owner, end_ns + 1);
}

static void placed(sim_world_t *w, rf_core_t owner, uint64_t number)
{
    lane_t *lane = &w->lanes->lanes[owner];
    if (lane->broken || waits(w, owner, PLACED, number)) return;
    if (lane->handed && w->options->sim_defects & SIM_DEFECT_HANDED_COMMITS) return;
    uint64_t delay_ns = sim_network_delay(w, owner, lane->leader.core);
    if (lane->handed) delay_ns += 2 * sim_network_delay(w, owner, lane->leader.core);
    if (rf_prng_below(&w->lanes->prng, 32) == 0) /* heard late */
        delay_ns += sim_exponential(&w->lanes->prng, 2 * w->params.election_ns);
    tell_writer(w, owner, WRITTEN, number, delay_ns);
}

/* ---- granting and revoking ---- */

static void grant(sim_world_t *w, const sim_process_t *owner, const agreement_lane_output_t *order)
{
    sim_lanes_t *l = w->lanes;
    lane_t *lane = &l->lanes[owner->core];
    const sim_process_t *leader = &w->processes[order->peer.core];
    bool careless = w->options->sim_defects & SIM_DEFECT_TAIL_EARLY;
    if (lane->open && lane->owner_life == owner->life && !careless)
        sim_violation(
            w, "lane",
            "core %u lets core %u write in term %llu, while core %u may write its lane of term %llu",
            owner->core, order->peer.core, (unsigned long long)order->term, lane->leader.core,
            (unsigned long long)lane->term);
    drop_flights(w, lane, lane->n_flights);
    lane->id = order->id;
    lane->term = order->term;
    lane->leader = order->peer;
    lane->owner_life = owner->life;
    lane->leader_life = leader->life;
    lane->open = leader->alive && leader->incarnation == order->peer.incarnation;
    lane->broken = lane->arriving = false;
    lane->handed = sim_mix(l->pairs, (uint32_t)owner->core << 16 | order->peer.core) >> 20 & 1;
    lane->tries = 0;
    lane->posted = lane->told = 0;
    lane->written_ns = lane->accepted_ns = w->now_ns;
    if (!lane->open || is_cut(w, owner->core, leader->core)) return; /* it never hears of it */
    tell(w, leader->core, leader->life, member_of(w, owner->core), pack(GRANTED, lane->id, 0),
         w->now_ns + sim_network_delay(w, owner->core, leader->core));
}

static void revoke(sim_world_t *w, const sim_process_t *owner)
{
    sim_lanes_t *l = w->lanes;
    lane_t *lane = &l->lanes[owner->core];
    uint64_t mean_ns = 50 * RF_NS_PER_US;
    if (w->faults_on && sim_chance(&l->prng, w->knobs.fence_late)) mean_ns = 3 * RF_NS_PER_MS;
    uint64_t at_ns = w->now_ns + sim_exponential(&l->prng, mean_ns);
    if (w->options->sim_defects & SIM_DEFECT_TAIL_EARLY) {
        look(w, lane);
        memcpy(lane->early, lane->memory, l->bytes);
        tell(w, owner->core, owner->life, lane->leader, pack(REVOKED_EARLY, lane->id, 0), w->now_ns + 1);
    }
    later(w, owner->core, CUTS, 0, at_ns);
}

static void cuts(sim_world_t *w, rf_core_t owner)
{
    lane_t *lane = &w->lanes->lanes[owner];
    if (lane->told < lane->posted) tell_writer(w, owner, REFUSED, 0, RF_NS_PER_US);
    cut(w, lane);
    lane->open = false;
    w->statistics->lane_cuts++;
    tell(w, owner, lane->owner_life, lane->leader, pack(REVOKED, lane->id, 0),
         w->now_ns + sim_exponential(&w->lanes->prng, 20 * RF_NS_PER_US));
}

void sim_lanes_order(sim_world_t *w, const sim_process_t *owner, const agreement_lane_output_t *order)
{
    lane_t *lane = &w->lanes->lanes[owner->core];
    if (order->order == AGREEMENT_LANE_GRANT) {
        grant(w, owner, order);
    } else if (lane->open && lane->id == order->id) {
        revoke(w, owner);
    } else { /* never granted, or its link broke before */
        tell(w, owner->core, owner->life, order->peer, pack(REVOKED, order->id, 0), w->now_ns + 1);
    }
}

/* ---- whole monitors: links in readiness ---- */

void sim_lanes_standby(sim_world_t *w, const sim_process_t *owner, agreement_member_t writer)
{
    const sim_process_t *q = &w->processes[writer.core];
    if (!possible(w, owner->core, writer.core)) return;
    bool can = q->alive && q->incarnation == writer.incarnation && !is_cut(w, owner->core, writer.core);
    uint64_t after_ns = can ? 3 * sim_network_delay(w, owner->core, writer.core) : 0;
    tell(w, owner->core, owner->life, writer, pack(can ? READY : UNREADY, 0, 0),
         w->now_ns + after_ns + sim_exponential(&w->lanes->prng, 2 * RF_NS_PER_MS));
}

bool sim_lanes_show_word(sim_world_t *w, const sim_process_t *owner, uint32_t offset, uint64_t word)
{
    lane_t *own = &w->lanes->lanes[owner->core];
    if (!own->open || own->owner_life != owner->life) return false;
    look(w, own);
    return own->memory[offset / 8] == word;
}

void sim_lanes_fence(sim_world_t *w, const sim_process_t *owner, rf_core_t core, rf_incarnation_t incarnation)
{
    const lane_t *own = &w->lanes->lanes[owner->core];
    if (own->open && own->owner_life == owner->life && own->leader.core == core &&
        own->leader.incarnation <= incarnation)
        later(w, owner->core, CUTS, 0, w->now_ns + 1);
}

/* ---- what comes of it ---- */

void sim_lanes_world_event(sim_world_t *w, const sim_event_t *event)
{
    lane_t *lane = &w->lanes->lanes[event->core];
    if (!lane->open || lane->owner_life != event->life || !about(event, lane)) return;
    switch (what_of(event)) {
    case ARRIVES:
        if (!lane->broken) arrives(w, event->core);
        break;
    case PLACED:
        placed(w, event->core, event->x & UINT32_MAX);
        break;
    case CUTS:
        cuts(w, event->core);
        break;
    default:
        rf_assert(!"an event of a lane that is not the world's");
    }
}

void sim_lanes_again(sim_world_t *w, const sim_process_t *owner, const sim_event_t *event)
{
    tell(w, owner->core, owner->life, event->peer, event->x, w->now_ns + RF_NS_PER_US);
}

bool sim_lanes_event(sim_world_t *w, const sim_process_t *p, const sim_event_t *event,
                     agreement_lane_event_t *out)
{
    lane_t *own = &w->lanes->lanes[p->core];
    const lane_t *peer = &w->lanes->lanes[event->peer.core];
    out->peer = event->peer;
    out->id = event->x >> 32 & 0xffffff;
    out->number = event->x & UINT32_MAX;
    switch (what_of(event)) {
    case READY:
        out->kind = AGREEMENT_LANE_READY;
        return true;
    case UNREADY:
        out->kind = AGREEMENT_LANE_UNREADY;
        return true;
    case LINES:
        if (!own->open || !about(event, own)) return false;
        look(w, own);
        out->kind = AGREEMENT_LANE_LINES;
        out->lines = own->memory;
        return true;
    case REVOKED:
    case REVOKED_EARLY:
        if (!about(event, own)) return false;
        out->kind = AGREEMENT_LANE_REVOKED;
        out->lines = what_of(event) == REVOKED ? own->memory : own->early;
        return true;
    case GRANTED:
        out->kind = AGREEMENT_LANE_GRANTED;
        out->term = peer->term;
        return about(event, peer);
    case WRITTEN:
    case REFUSED:
        out->kind = AGREEMENT_LANE_WRITTEN;
        out->err = what_of(event) == WRITTEN ? RF_OK : RF_ERR_PEER_DEAD;
        return true;
    default:
        rf_assert(!"an event of a lane that is not a process's");
        return false;
    }
}
