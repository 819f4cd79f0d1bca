/*
 * Lanes of a world: memory of one monitor that another writes without the owner's doing, also while the owner stands still. A link
 * belongs to one pair of processes and ends with a fence, a cut, or the death of either; another is dialled then.
 *
 * What is written is there at once; that it was written is heard later, in any order with all else, or never, if the link ends before.
 */
#include "world.h"

#include <stdlib.h>

#define LOOKS_MAX  16
#define LANE_BYTES (MONITOR_LANE_LINES_MAX * AGREEMENT_LANE_LINE)

struct world_lane { /* of the owner, for the writer */
    bool linked, granted, fenced;
    rf_incarnation_t owner, writer;
    uint64_t id;
    uint64_t looked; /* the word that was looked at last, */
    unsigned looks;  /* ... and how often */
    uint8_t *memory; /* NULL: never used */
};

static world_lane_t *lane_of(world_t *w, rf_core_t owner, rf_core_t writer)
{
    if (!w->lanes) {
        w->lanes = calloc(WORLD_CORES_MAX * WORLD_CORES_MAX, sizeof *w->lanes);
        rf_assert(w->lanes);
    }
    return &w->lanes[owner * WORLD_CORES_MAX + writer];
}

static monitor_event_t *lane_event(world_t *w, rf_core_t to, rf_core_t from, rf_incarnation_t incarnation,
                                   monitor_event_kind_t kind, uint64_t id)
{
    monitor_event_t *event = world_push(w, to, CHANNEL_LANE + from, kind, NULL, 0);
    event->core = from;
    event->incarnation = incarnation;
    event->lane.id = id;
    return event;
}

static const uint64_t *lines_of(const world_lane_t *l)
{
    return (const uint64_t *)(const void *)l->memory;
}

static void fence(world_t *w, world_lane_t *l, rf_core_t owner, rf_core_t writer)
{
    if (l->fenced) return;
    l->fenced = true;
    world_unsay(w, owner, CHANNEL_LANE + writer, MONITOR_LANE_LINES); /* the shell looks no more */
    if (w->alive[writer] && w->monitor[writer]->incarnation == l->writer)
        lane_event(w, writer, owner, l->owner, MONITOR_LANE_WRITTEN, l->id)->err = RF_ERR_CLOSED;
}

/* The link is no more; each end that lives hears of it. */
static void end(world_t *w, rf_core_t owner, rf_core_t writer)
{
    world_lane_t *l = lane_of(w, owner, writer);
    if (!l->linked || l->fenced) return;
    bool there = w->alive[owner] && w->monitor[owner]->incarnation == l->owner;
    if (l->granted) {
        fence(w, l, owner, writer);
        if (there)
            lane_event(w, owner, writer, l->writer, MONITOR_LANE_REVOKED, l->id)->lane.lines = lines_of(l);
    } else if (there) {
        lane_event(w, owner, writer, l->writer, MONITOR_LANE_UNREADY, 0);
    }
    l->linked = l->granted && there; /* its memory is, until it has been read */
}

static bool reach(const world_t *w, rf_core_t a, rf_core_t b)
{
    return w->alive[a] && w->alive[b] && !w->cut[w->boot.node_of[a]][w->boot.node_of[b]];
}

static void standby(world_t *w, rf_core_t owner, const monitor_action_t *a)
{
    world_lane_t *l = lane_of(w, owner, a->core);
    bool can = reach(w, owner, a->core) && w->monitor[a->core]->incarnation == a->incarnation &&
               w->lanes_refused == RF_OK;
    w->n_lanes_dialled++;
    rf_assert(!l->linked || !l->granted); /* its tail has been taken */
    if (!l->memory) l->memory = aligned_alloc(64, LANE_BYTES);
    rf_assert(l->memory);
    memset(l->memory, 0xa5, LANE_BYTES);
    *l = (world_lane_t){.linked = can,
                        .owner = w->monitor[owner]->incarnation,
                        .writer = a->incarnation,
                        .memory = l->memory};
    lane_event(w, owner, a->core, a->incarnation, can ? MONITOR_LANE_READY : MONITOR_LANE_UNREADY, 0)->err =
        can ? RF_OK : w->lanes_refused;
}

static void grant(world_t *w, rf_core_t owner, const monitor_action_t *a)
{
    world_lane_t *l = lane_of(w, owner, a->core);
    if (!l->linked || l->fenced || l->writer != a->incarnation) { /* it has just ended */
        lane_event(w, owner, a->core, a->incarnation, MONITOR_LANE_REVOKED, a->lane);
        return;
    }
    l->granted = true;
    l->id = a->lane;
    lane_event(w, a->core, owner, l->owner, MONITOR_LANE_GRANTED, l->id)->lane.number = a->number;
}

static void revoke(world_t *w, rf_core_t owner, const monitor_action_t *a)
{
    world_lane_t *l = lane_of(w, owner, a->core);
    bool granted = l->linked && l->granted && l->id == a->lane;
    if (granted) fence(w, l, owner, a->core);
    lane_event(w, owner, a->core, a->incarnation, MONITOR_LANE_REVOKED, a->lane)->lane.lines =
        granted ? lines_of(l) : NULL;
}

static void write(world_t *w, rf_core_t writer, const monitor_action_t *a)
{
    world_lane_t *l = lane_of(w, a->core, writer);
    bool there = l->linked && l->granted && !l->fenced && l->id == a->lane && reach(w, writer, a->core) &&
                 l->owner == a->incarnation && l->writer == w->monitor[writer]->incarnation;
    monitor_event_t *event = lane_event(w, writer, a->core, a->incarnation, MONITOR_LANE_WRITTEN, a->lane);
    event->lane.number = a->number;
    event->err = there ? RF_OK : RF_ERR_CLOSED;
    if (!there) {
        w->n_late_writes++;
        return;
    }
    rf_assert(a->offset + a->size <= LANE_BYTES && a->size % AGREEMENT_LANE_LINE == 0);
    memcpy(l->memory + a->offset, a->bytes, a->size);
    w->n_lane_writes++;
    lane_event(w, a->core, writer, l->writer, MONITOR_LANE_LINES, a->lane)->lane.lines = lines_of(l);
}

bool world_lane_act(world_t *w, rf_core_t core, const monitor_action_t *a)
{
    switch ((monitor_action_kind_t)a->kind) {
    case MONITOR_DO_LANE_STANDBY:
        standby(w, core, a);
        return true;
    case MONITOR_DO_LANE_DROP:
        lane_of(w, core, a->core)->linked = false;
        return true;
    case MONITOR_DO_LANE_GRANT:
        grant(w, core, a);
        return true;
    case MONITOR_DO_LANE_REVOKE:
        revoke(w, core, a);
        return true;
    case MONITOR_DO_LANE_WRITE:
        write(w, core, a);
        return true;
    default:
        return false;
    }
}

bool world_lane_spoil(world_t *w, rf_core_t owner, rf_core_t writer, uint64_t seed)
{
    world_lane_t *l = lane_of(w, owner, writer);
    if (!l->linked || !l->granted || l->fenced) return false;
    rf_prng_t prng;
    rf_prng_seed(&prng, seed);
    uint64_t *words = (uint64_t *)(void *)l->memory;
    unsigned n = LANE_BYTES / sizeof *words;
    uint32_t offset = 0;
    uint64_t expected = agreement_lane_next(w->monitor[owner]->agree.engine, &offset);
    switch (seed % 4) {
    case 0: /* nothing of it is right */
    case 1: /* ... but the word that is polled for */
        for (unsigned i = 0; i < n; i++) words[i] = rf_prng_next(&prng);
        break;
    case 2: /* bits of what is there */
        for (unsigned i = 0; i < 64; i++) words[rf_prng_below(&prng, n)] ^= 1ull << rf_prng_below(&prng, 64);
        break;
    default: /* an old lap, once more, in another place */
        memmove(l->memory + LANE_BYTES / 2, l->memory, LANE_BYTES / 2);
        break;
    }
    if (seed % 4 != 0 && expected != 0) words[offset / sizeof *words] = expected;
    lane_event(w, owner, writer, l->writer, MONITOR_LANE_LINES, l->id)->lane.lines = lines_of(l);
    return true;
}

/* The word that the shell would poll: what was told of once, and not all taken, is told again; what is still not taken then, when
 * more is written. (The shell waits ever longer between looks.) */
void world_lane_look(world_t *w, rf_core_t owner)
{
    for (rf_core_t writer = 0; w->lanes && w->output->lane_number && writer < w->n_cores; writer++) {
        world_lane_t *l = lane_of(w, owner, writer);
        if (!l->linked || !l->granted || l->fenced) continue;
        uint64_t word;
        memcpy(&word, l->memory + w->output->lane_offset, sizeof word);
        if (word != w->output->lane_number) continue;
        l->looks = l->looked == word ? l->looks + 1 : 1;
        l->looked = word;
        if (l->looks <= LOOKS_MAX)
            lane_event(w, owner, writer, l->writer, MONITOR_LANE_LINES, l->id)->lane.lines = lines_of(l);
    }
}

void world_lanes_end(world_t *w, rf_core_t a, rf_core_t b)
{
    if (!w->lanes) return;
    end(w, a, b);
    end(w, b, a);
}

void world_lanes_free(world_t *w)
{
    for (unsigned i = 0; w->lanes && i < WORLD_CORES_MAX * WORLD_CORES_MAX; i++) free(w->lanes[i].memory);
    free(w->lanes);
}
