/*
 * A hostile writer of a lane. Three engines run, core 0 leads and writes the lanes of the others; then the input: a list of writes into
 * the lane of core 1, of any bytes, of records that are right but for what they say, or of a real record changed and sealed
 * again, which only the leader of the term could do; between them commands, time, and looks at the lane: as it is read while it is
 * granted, and as what it holds when it was revoked.
 *
 * Oracle: nothing aborts and no memory is broken. A leader that lies, or that destroys what it has written, may break what the
 * model holds true, for members are not Byzantine: then that run is over.
 */
#include "net.h"
#include "consensus/lane.h"

#include <stdlib.h>

#define LINES  AGREEMENT_LANE_LINES_MIN
#define BYTES  ((size_t)LINES * AGREEMENT_LANE_LINE)
#define VICTIM 1
#define ACTION 4 /* bytes: what, two of where or how, and how many more follow */

enum { RAW = 5, FORGE, CHANGE }; /* no leader's way */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct script {
    uint64_t *lane[3];
    agreement_lane_output_t order[3]; /* the last one of each */
    uint64_t number[3];               /* of writes to each, carried out */
} s;

static void watch(net_t *n, rf_core_t core, const agreement_output_t *out)
{
    (void)n;
    if (!out->lane) return;
    if (out->lane->order != AGREEMENT_LANE_KEEP) s.order[core] = *out->lane;
    for (unsigned i = 0; i < out->lane->n_writes; i++) {
        const agreement_write_t *w = &out->lane->writes[i];
        rf_assert(w->to.core < 3 && w->offset + w->size <= BYTES);
        memcpy((uint8_t *)s.lane[w->to.core] + w->offset, w->bytes, w->size);
        s.number[w->to.core] = w->number;
    }
}

static void lane(net_t *n, rf_core_t core, agreement_lane_event_t event)
{
    if (n->cores[core].alive) net_step(n, core, &(agreement_event_t){.kind = AGREEMENT_LANE, .lane = event});
}

static void grant(net_t *n)
{
    for (rf_core_t core = 1; core < 3; core++) {
        lane(n, core, (agreement_lane_event_t){.kind = AGREEMENT_LANE_READY, .peer = net_member(n, 0)});
        if (s.order[core].order != AGREEMENT_LANE_GRANT) continue;
        lane(n, 0,
             (agreement_lane_event_t){.kind = AGREEMENT_LANE_GRANTED,
                                      .peer = net_member(n, core),
                                      .id = s.order[core].id,
                                      .term = s.order[core].term});
    }
    net_run(n, 2 * MS);
}

static void shown(net_t *n, rf_core_t core, agreement_lane_kind_t kind)
{
    lane(n, core, (agreement_lane_event_t){.kind = kind, .id = s.order[core].id, .lines = s.lane[core]});
}

static void written(net_t *n, rf_core_t core)
{
    lane(n, 0,
         (agreement_lane_event_t){.kind = AGREEMENT_LANE_WRITTEN,
                                  .peer = net_member(n, core),
                                  .id = s.order[core].id,
                                  .number = s.number[core]});
}

/* Where the victim looks for its next record, sealed as by the leader it was granted to. */
static void seal(net_t *n, lane_record_t *record)
{
    uint32_t offset;
    const agreement_t *engine = n->cores[VICTIM].engine;
    uint64_t number = agreement_lane_next(engine, &offset);
    if (number == 0) return;
    uint64_t seed = lane_seed(engine, net_member(n, VICTIM), s.order[VICTIM].peer, s.order[VICTIM].id,
                              s.order[VICTIM].term);
    uint32_t bytes = lane_record_end(record, number - 1, seed);
    memcpy((uint8_t *)s.lane[VICTIM] + offset, record, bytes);
}

/* A record of the input's fields and entries. */
static void forge(net_t *n, const uint8_t *in, const uint8_t *bytes, size_t size)
{
    static uint64_t words[LANE_RECORD_BYTES / 8];
    lane_record_t *record = (lane_record_t *)(void *)words;
    memset(words, 0, sizeof words);
    record->prev_index = net_state(n, VICTIM).last + in[1] % 16 - 8;
    record->committed = net_state(n, VICTIM).last + in[2] % 16 - 8;
    record->flags = in[1] >> 4;
    record->n = in[2] >> 4;
    record->size = (uint16_t)(size & ~7u);
    memcpy(record + 1, bytes, record->size);
    seal(n, record);
}

/* What lies at the victim's next record, with some of it changed. */
static void change(net_t *n, const uint8_t *bytes, size_t size)
{
    static uint64_t words[LANE_RECORD_BYTES / 8];
    lane_record_t *record = (lane_record_t *)(void *)words;
    uint32_t offset;
    if (agreement_lane_next(n->cores[VICTIM].engine, &offset) == 0) return;
    memcpy(words, (const uint8_t *)s.lane[VICTIM] + offset, sizeof words);
    for (size_t i = 0; i + 2 < size; i += 3)
        ((uint8_t *)words)[(bytes[i] | bytes[i + 1] << 8) % sizeof words] = bytes[i + 2];
    record->size = (uint16_t)(record->size % (LANE_ENTRIES_MAX + 1) & ~7u);
    seal(n, record);
}

static void act(net_t *n, const uint8_t *in, const uint8_t *bytes, size_t size)
{
    size_t at = (size_t)(in[1] | in[2] << 8) % BYTES;
    switch (in[0] % 10) {
    case 0:
    case 1:
        if (n->cores[0].alive && n->n_proposed < 1000) net_propose(n, 0);
        break;
    case 2:
        shown(n, VICTIM, AGREEMENT_LANE_LINES);
        break;
    case 3:
        net_run(n, in[1] * 20 * US);
        break;
    case 4:
        written(n, 1 + in[1] % 2);
        break;
    case RAW: /* torn, of a lap before, or nonsense: all the same to a reader */
        memcpy((uint8_t *)s.lane[VICTIM] + at, bytes, size < BYTES - at ? size : BYTES - at);
        break;
    case FORGE:
        forge(n, in, bytes, size);
        break;
    case CHANGE:
        change(n, bytes, size);
        break;
    case 8: /* it is to end, and does */
        if (in[1] % 4 == 0) net_kill(n, 0);
        net_run(n, 10 * MS);
        if (s.order[VICTIM].order == AGREEMENT_LANE_REVOKE) shown(n, VICTIM, AGREEMENT_LANE_REVOKED);
        break;
    default:
        if (n->cores[0].alive) grant(n);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    jmp_buf unsafe;
    if (size < 1) return 0;
    volatile bool hostile = false;
    memset(&s, 0, sizeof s);
    for (unsigned i = 0; i < 3; i++) {
        s.lane[i] = calloc(1, BYTES); /* of exactly that size, so that a read beyond it is seen */
        rf_assert(s.lane[i]);
    }
    net_t *n = net_new(&(net_knobs_t){.cores = 3, .lane_lines = LINES, .log_max = 64}, data[0]);
    n->watch = watch;
    n->unsafe = &unsafe;
    if (setjmp(unsafe) == 0) {
        net_form(n);
        net_run(n, 3 * MS);
        grant(n);
        for (data++, size--; size >= ACTION;) {
            size_t length = data[3] % 128;
            if (length > size - ACTION) length = size - ACTION;
            hostile = hostile || data[0] % 10 == RAW || data[0] % 10 == FORGE || data[0] % 10 == CHANGE;
            act(n, data, data + ACTION, length);
            data += ACTION + length;
            size -= ACTION + length;
        }
        net_run(n, 20 * MS);
    } else {
        rf_assert(hostile);
    }
    net_free(n);
    for (unsigned i = 0; i < 3; i++) free(s.lane[i]);
    return 0;
}
