/*
 * Hostile messages between running engines. The input is a list of actions: let time pass, propose, read, kill, members join, as new incarnations,
 * and leave, and on the link of a true member: a message of before again, cut short, or at another receiver; or any bytes at all.
 *
 * Oracles: nothing aborts and no memory is broken, whatever the bytes. As long as only real messages were repeated, cut or
 * misdirected (a link that is out of order), the model's invariants hold as well (net.h); a member that lies may break those,
 * for members are not Byzantine.
 */
#include "net.h"

#include <stdlib.h>

#define KEPT      32
#define JOINS_MAX 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct kept {
    agreement_member_t from, to;
    uint8_t type;
    size_t size;
    uint8_t *bytes;
} kept_t;

/* Changes that were asked for; who joins is started when the answer has come, as its monitor would be. */
typedef struct joins {
    unsigned n;
    struct {
        rf_core_t core;
        unsigned proposal;
    } join[JOINS_MAX];
} joins_t;

static void join(net_t *n, rf_core_t by, rf_core_t core, joins_t *joins)
{
    if (joins->n == JOINS_MAX || !n->cores[by].alive || n->cores[core].alive || n->n_proposed >= 1000) return;
    joins->join[joins->n].core = core;
    joins->join[joins->n++].proposal = net_change(n, by, &core, 1, NULL, 0);
}

static void start_joined(net_t *n, joins_t *joins)
{
    for (unsigned i = 0; i < joins->n; i++) {
        const net_proposal_t *p = &n->proposed[joins->join[i].proposal];
        net_core_t *c = &n->cores[joins->join[i].core];
        if (!p->answered) continue;
        if (p->err == RF_OK && !c->alive && p->value > c->incarnation)
            net_start(n, joins->join[i].core, (rf_incarnation_t)p->value);
        joins->join[i--] = joins->join[--joins->n];
    }
}

static void leave(net_t *n, rf_core_t by, rf_core_t core)
{
    agreement_member_t leaver = net_member(n, core);
    if (n->cores[by].alive && n->cores[core].alive && n->n_proposed < 1000)
        net_change(n, by, NULL, 0, &leaver, 1);
}

static void keep(net_t *n, kept_t *kept, unsigned *n_kept)
{
    if (n->n_flight == 0) return;
    const net_message_t *m = n->flight[n->n_flight - 1];
    kept_t *k = &kept[(*n_kept)++ % KEPT];
    free(k->bytes);
    *k = (kept_t){.from = m->from, .to = m->to, .type = m->type, .size = m->size, .bytes = malloc(m->size)};
    rf_assert(k->bytes);
    memcpy(k->bytes, m->bytes, m->size);
}

/* Of exactly that size, so that a read beyond it is seen. */
static void inject(net_t *n, rf_core_t to, agreement_member_t from, uint8_t type, const uint8_t *bytes,
                   size_t size)
{
    uint8_t *exact = malloc(size ? size : 1);
    rf_assert(exact);
    memcpy(exact, bytes, size);
    net_receive(n, to, from, type, exact, size);
    free(exact);
}

static void act(net_t *n, const uint8_t *in, const uint8_t *bytes, size_t size, kept_t *kept,
                unsigned *n_kept, joins_t *joins, bool lies)
{
    rf_core_t core = in[1] % n->knobs.cores, other = in[1] / 16 % n->knobs.cores;
    const kept_t *k = &kept[in[2] % KEPT];
    switch (in[0] % 16) {
    case 0:
    case 1:
        if (n->cores[core].alive && n->n_proposed < 1000) net_propose(n, core);
        break;
    case 2:
        if (n->cores[core].alive && n->n_reads < 1000) net_read(n, core);
        break;
    case 3:
        net_run(n, in[2] * 10 * US);
        break;
    case 4:
        net_run(n, in[2] * 200 * US);
        break;
    case 5:
        if (in[2] % 8 == 0) {
            net_kill(n, core);
            net_tell_all(n, core);
        }
        break;
    case 6:
        keep(n, kept, n_kept);
        break;
    case 7: /* once more */
        if (k->bytes && k->to.incarnation == n->cores[k->to.core].incarnation)
            inject(n, k->to.core, k->from, k->type, k->bytes, k->size);
        break;
    case 8: /* cut short */
        if (k->bytes && k->to.incarnation == n->cores[k->to.core].incarnation)
            inject(n, k->to.core, k->from, k->type, k->bytes, k->size * (in[1] % 8) / 8);
        break;
    case 9:
        net_cut(n, core, other, in[2] & 1);
        break;
    case 11:
        if (in[2] % 4 == 0) leave(n, core, other);
        break;
    case 12:
    case 13:
        join(n, core, other, joins);
        break;
    case 14:
        start_joined(n, joins);
        break;
    case 10: /* some bytes of it are changed */
        if (!k->bytes || !lies) break;
        uint8_t *forged = malloc(k->size);
        rf_assert(forged);
        memcpy(forged, k->bytes, k->size);
        for (size_t i = 0; i + 1 < size; i += 2) forged[(bytes[i] * 3u) % k->size] = bytes[i + 1];
        inject(n, core, k->from.core == core ? net_member(n, other) : k->from, k->type, forged, k->size);
        free(forged);
        break;
    default: /* anything */
        if (!lies) break;
        inject(n, core, (agreement_member_t){.core = other, .incarnation = 1 + (in[2] >> 7)},
               (uint8_t)(AGREEMENT_TYPE_FIRST + in[2] % 17), bytes, size);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    jmp_buf unsafe;
    kept_t kept[KEPT] = {0};
    unsigned n_kept = 0;
    joins_t joins = {0};
    if (size < 4) return 0;
    bool lies = data[0] & 1;
    net_knobs_t knobs = {.cores = 3 + data[0] / 2 % 3,
                         .log_max = 16,
                         .lease_ns = data[0] & 16 ? 4 * MS : 0,
                         .lossless = data[0] & 32,
                         .per_host = data[0] & 64 ? 2 : 0,
                         .plan = (agreement_plan_t)((data[0] >> 5) % AGREEMENT_PLANS)};
    net_t *n = net_new(&knobs, data[1]);
    if (lies) n->unsafe = &unsafe;
    if (!lies || setjmp(unsafe) == 0) {
        net_form(n);
        net_run(n, (data[1] & 3) * MS);
        for (data += 2, size -= 2; size >= 4;) {
            size_t length = data[3] % 128;
            if (length > size - 4) length = size - 4;
            act(n, data, data + 4, length, kept, &n_kept, &joins, lies);
            data += 4 + length;
            size -= 4 + length;
        }
        net_run(n, 20 * MS);
    }
    for (unsigned i = 0; i < KEPT; i++) free(kept[i].bytes);
    net_free(n);
    return 0;
}
