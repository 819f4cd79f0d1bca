/* What a client of whole monitors makes of an answer, or of there being none: it goes into the history, and to the
 * checkers. */
#include "sim/monitors.h"

#include <stdio.h>
#include <stdlib.h>

static void finish(sim_world_t *w, sim_mclient_t *c, sim_outcome_t outcome, bool success, uint32_t value)
{
    sim_operation_t *o = c->operation != SIZE_MAX ? &w->history.operations[c->operation] : NULL;
    if (o) {
        o->outcome = (uint8_t)outcome;
        o->return_ns = outcome == SIM_UNKNOWN ? RF_NEVER : w->now_ns;
        o->success = success;
        if (o->kind == SIM_GET && outcome == SIM_DONE) o->value = value;
    }
    if (c->kind == SIM_WATCHER) return;
    w->statistics->operations++;
    w->statistics->unknown += outcome == SIM_UNKNOWN;
    w->statistics->refused += outcome == SIM_NOT_EXECUTED;
    if (outcome != SIM_DONE) return;
    rf_histogram_add(&w->statistics->latency, w->now_ns - c->called_ns);
    c->finished++;
    w->last_done_ns = w->now_ns;
}

void sim_mclient_unknown(sim_world_t *w, sim_mclient_t *c)
{
    if (c->op == SIM_M_POP) w->monitors->pops_unknown++;
    c->may_be_released |= c->op == SIM_M_RELEASE; /* it asks again */
    bool reads =
        c->op == SIM_M_GET || c->op == SIM_M_GET_LOCAL || c->op == SIM_M_LIST || c->op == SIM_M_WATCH;
    finish(w, c, reads ? SIM_NOT_EXECUTED : SIM_UNKNOWN, false, 0);
}

static uint32_t number_of(const uint8_t *bytes, size_t size)
{
    char text[16] = "";
    memcpy(text, bytes, size < sizeof text - 1 ? size : sizeof text - 1);
    return (uint32_t)strtoul(text, NULL, 10);
}

/* Whether nothing has happened, for sure. */
static bool is_refusal(rf_err_t err)
{
    return err == RF_ERR_NO_QUORUM || err == RF_ERR_FORMING || err == RF_ERR_AGAIN || err == RF_ERR_LIMIT ||
           err == RF_ERR_SESSION || err == RF_ERR_LOST || err == RF_ERR_CLOSED;
}

/* A condition that did not hold: an answer like another. */
static bool is_unfulfilled(rf_err_t err)
{
    return err == RF_ERR_BUSY || err == RF_ERR_EXISTS || err == RF_ERR_NOT_FOUND;
}

static void changed(sim_world_t *w, sim_mclient_t *c, const uint8_t *body, size_t size)
{
    rf_client_registry_done_t done = {0};
    char name[SIM_NAME_MAX] = "";
    memcpy(&done, body, size < sizeof done ? size : sizeof done);
    if (c->op == SIM_M_SEQUENTIAL)
        snprintf(name, sizeof name, "%.*s", (int)(size - sizeof done), (const char *)body + sizeof done);
    else if (c->op == SIM_M_EPHEMERAL)
        snprintf(name, sizeof name, "e/%u", c->value);
    else
        snprintf(name, sizeof name, "k/%u", c->key);
    check_registry_acknowledged(w, c, done.revision, name, c->value, c->op == SIM_M_DELETE);
}

static void read_value(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, const uint8_t *body, size_t size)
{
    char name[SIM_NAME_MAX];
    rf_client_registry_page_t page = {0};
    rf_client_registry_entry_t entry;
    snprintf(name, sizeof name, "k/%u", c->key);
    check_registry_read(w, p, c->op == SIM_M_LIST ? "k/" : name, c->op != SIM_M_LIST, body, size);
    memcpy(&page, body, size < sizeof page ? size : sizeof page);
    uint32_t value = SIM_ABSENT;
    if (page.n > 0) {
        memcpy(&entry, body + sizeof page, sizeof entry);
        value = number_of(body + sizeof page + sizeof entry + entry.name_size, entry.value_size);
    }
    w->statistics->reads += c->op == SIM_M_GET;
    w->statistics->local_reads += c->op != SIM_M_GET;
    finish(w, c, SIM_DONE, true, value);
}

static void object_done(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, const uint8_t *body, size_t size)
{
    rf_client_registry_done_t done = {0};
    memcpy(&done, body, size < sizeof done ? size : sizeof done);
    switch (c->op) {
    case SIM_M_ACQUIRE:
        check_owned_acquired(w, p, c, done.revision);
        c->token = done.revision;
        c->may_be_released = false;
        break;
    case SIM_M_RELEASE:
        c->token = 0;
        break;
    case SIM_M_PUSH:
        check_owned_element(w, c->value)->acknowledged = true;
        break;
    case SIM_M_POP:
        if (done.size > 0)
            check_owned_popped(w, c, number_of(body + sizeof done, done.size));
        else /* it was taken while this monitor loaded a snapshot: that it was is all that is known */
            w->monitors->pops_unknown++;
        break;
    case SIM_M_BARRIER:
        check_owned_barrier(w, c, done.revision);
        break;
    default:
        break;
    }
}

static void domain_done(sim_world_t *w, sim_mclient_t *c, rf_err_t err, const uint8_t *body, size_t size)
{
    rf_client_spawned_t out = {0};
    if (c->op == SIM_M_SPAWN) {
        memcpy(&out, body, size < sizeof out ? size : sizeof out);
        c->child = err == RF_OK ? out.domain : 0;
        c->killed = false;
    } else if (c->op == SIM_M_KILL) {
        c->killed = err == RF_OK || err == RF_ERR_NOT_FOUND;
        if (err == RF_ERR_NOT_FOUND) c->child = 0;
    } else {
        c->child = 0;
    }
    finish(w, c, err == RF_OK ? SIM_DONE : SIM_UNKNOWN, true, 0);
}

static void name_done(sim_world_t *w, sim_mclient_t *c, rf_err_t err)
{
    if (c->op == SIM_M_NAME && err == RF_OK) check_owned_named(w, c);
    if (err == RF_OK) c->named = c->op == SIM_M_NAME;
    /* It is not its any more, or may not be. */
    if (c->op == SIM_M_UNNAME && (err == RF_ERR_NOT_FOUND || err == RF_ERR_UNKNOWN_OUTCOME)) c->named = false;
    finish(w, c, err == RF_OK ? SIM_DONE : SIM_UNKNOWN, true, 0);
}

static void failed(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, rf_err_t err)
{
    bool waits = c->op == SIM_M_ACQUIRE || c->op == SIM_M_POP || c->op == SIM_M_BARRIER;
    if (c->op == SIM_M_RELEASE && err == RF_ERR_NOT_FOUND && !c->may_be_released &&
        w->left[c->core] < p->incarnation)
        sim_violation(w, "lock", "client %u holds lock %u by token %llu, and core %u knows nothing of it",
                      c->number, c->lock, (unsigned long long)c->token, p->core);
    bool ended = err == RF_ERR_PEER_DEAD && waits && w->left[c->core] >= p->incarnation; /* and learns so */
    if (err == RF_ERR_UNKNOWN_OUTCOME || ended)
        sim_mclient_unknown(w, c);
    else if (is_refusal(err) || (waits && (err == RF_ERR_TIMEOUT || err == RF_ERR_CANCELLED)))
        finish(w, c, waits && err == RF_ERR_TIMEOUT ? SIM_DONE : SIM_NOT_EXECUTED, false, 0);
    else if (is_unfulfilled(err))
        finish(w, c, SIM_DONE, false, 0);
    else if (err == RF_ERR_TIMEOUT && (c->op == SIM_M_GET || c->op == SIM_M_GET_LOCAL || c->op == SIM_M_LIST))
        finish(w, c, SIM_NOT_EXECUTED, false, 0);
    else
        sim_violation(w, "protocol", "operation %d of client %u through core %u was answered %s", (int)c->op,
                      c->number, p->core, rf_err_name(err));
    if (c->op == SIM_M_RELEASE && is_unfulfilled(err)) c->token = 0;
}

static void watched(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, rf_err_t err, const uint8_t *body,
                    size_t size)
{
    if (err == RF_OK) check_registry_watched(w, p, c, body, size);
    finish(w, c, SIM_NOT_EXECUTED, false, 0);
}

void sim_mclient_answered(sim_world_t *w, sim_mclient_t *c, sim_process_t *p, rf_err_t err,
                          const uint8_t *body, size_t size)
{
    bool key = c->op == SIM_M_PUT || c->op == SIM_M_CAS || c->op == SIM_M_DELETE ||
               c->op == SIM_M_SEQUENTIAL || c->op == SIM_M_EPHEMERAL;
    if (c->op == SIM_M_WATCH) {
        watched(w, c, p, err, body, size);
    } else if (c->op == SIM_M_NAME || c->op == SIM_M_UNNAME) {
        name_done(w, c, err);
    } else if (c->op >= SIM_M_SPAWN) {
        domain_done(w, c, err, body, size);
    } else if (err != RF_OK) {
        failed(w, c, p, err);
    } else if (key) {
        changed(w, c, body, size);
        finish(w, c, SIM_DONE, true, 0);
    } else if (c->op == SIM_M_GET || c->op == SIM_M_GET_LOCAL || c->op == SIM_M_LIST) {
        read_value(w, c, p, body, size);
    } else {
        object_done(w, c, p, body, size);
        finish(w, c, SIM_DONE, true, 0);
    }
    if (w->verdict != SIM_OK) return;
    if (err == RF_ERR_SESSION) { /* another one */
        c->state = SIM_M_OPENING;
        c->token = 0;
        sim_mclient_arm(w, c, RF_NS_PER_MS);
    } else {
        sim_mclient_think(w, c);
    }
}
