#include "node/form.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/prng.h"
#include "node/boot.h"
#include "node/peers.h"

#include <stdio.h>
#include <string.h>

#define MEND "if it does not form, 'rackfish down' on all hosts and 'rackfish up'"

static const char *name_of(const rf_daemon_t *daemon, rf_node_t node)
{
    return daemon->config->nodes[node].name;
}

static bool has_started(const rf_daemon_t *daemon)
{
    return daemon->adopted || daemon->cores[0].life != RF_LIFE_NONE;
}

static void draw(rf_daemon_t *daemon)
{
    rf_assert(!daemon->machine_known && !daemon->adopted);
    rf_random_secret(daemon->machine.bytes, sizeof daemon->machine.bytes);
    daemon->machine_known = true;
    daemon->form.drew = true;
}

/* A connected node that takes part in a machine; RF_NODE_NONE: none. */
static rf_node_t who_takes_part(const rf_daemon_t *daemon)
{
    for (unsigned i = 0; i < daemon->config->n_nodes; i++) {
        if (i != daemon->node && daemon->form.nodes[i].takes_part &&
            rf_peer_is_connected(daemon, (rf_node_t)i))
            return (rf_node_t)i;
    }
    return RF_NODE_NONE;
}

bool rf_form_draw(rf_daemon_t *daemon)
{
    unsigned n = rf_peers_connected(daemon), n_nodes = daemon->config->n_nodes;
    if (daemon->machine_known || !daemon->options.form) return false;
    if (2 * n <= n_nodes || who_takes_part(daemon) != RF_NODE_NONE) return false;
    draw(daemon);
    rf_log(RF_LOG_INFO, "no machine is known to %u of %u nodes: forming one", n, n_nodes);
    return true;
}

void rf_form_alone(rf_daemon_t *daemon)
{
    draw(daemon);
}

bool rf_form_may_start(const rf_daemon_t *daemon)
{
    return daemon->machine_known && (daemon->form.drew || daemon->form.first || daemon->join_only);
}

Rackfish__Node__PeerWord rf_form_word(rf_daemon_t *daemon, rf_node_t node, const uint8_t *instance)
{
    rf_form_node_t *other = &daemon->form.nodes[node];
    rf_assert(daemon->machine_known);
    if (daemon->phase == RF_PHASE_READY || daemon->adopted) return RACKFISH__NODE__PEER_WORD__JOIN;
    if (!daemon->form.drew || daemon->phase != RF_PHASE_BOOTING) return RACKFISH__NODE__PEER_WORD__NONE;
    if (!other->admitted) {
        other->admitted = true;
        memcpy(other->first, instance, sizeof other->first);
    }
    if (memcmp(other->first, instance, sizeof other->first) == 0) return RACKFISH__NODE__PEER_WORD__FIRST;
    if (!other->again)
        rf_log(RF_LOG_WARN, "node %s was started anew while the machine forms: its cores join later",
               name_of(daemon, node));
    other->again = true;
    return RACKFISH__NODE__PEER_WORD__AGAIN;
}

/* Takes part from now on, unless it does already. */
static bool take_part(rf_daemon_t *daemon, const ProtobufCBinaryData *id)
{
    rf_assert(id->len == sizeof daemon->machine.bytes);
    if (daemon->machine_known) return false;
    memcpy(daemon->machine.bytes, id->data, id->len);
    daemon->machine_known = true;
    rf_boot_progress(daemon, "the machine's id is known");
    return true;
}

static bool join(rf_daemon_t *daemon, const ProtobufCBinaryData *id)
{
    if (daemon->phase != RF_PHASE_BOOTING || has_started(daemon)) return false;
    daemon->join_only = true;
    return take_part(daemon, id);
}

bool rf_form_met(rf_daemon_t *daemon, rf_node_t node, const Rackfish__Node__PeerHello *hello)
{
    rf_form_t *form = &daemon->form;
    form->nodes[node].takes_part = hello->machine_id.len != 0;
    if (form->first && node == form->former &&
        memcmp(form->former_instance, hello->instance.data, sizeof form->former_instance) != 0)
        form->former_lost = true;
    return hello->formed && hello->machine_id.len != 0 && join(daemon, &hello->machine_id);
}

static bool be_first(rf_daemon_t *daemon, rf_node_t node, const uint8_t *instance,
                     const ProtobufCBinaryData *id)
{
    rf_form_t *form = &daemon->form;
    if (daemon->phase != RF_PHASE_BOOTING || has_started(daemon) || form->first) return false;
    form->first = true;
    form->former = node;
    memcpy(form->former_instance, instance, sizeof form->former_instance);
    return take_part(daemon, id);
}

rf_err_t rf_form_told(rf_daemon_t *daemon, rf_node_t node, const uint8_t *instance,
                      const Rackfish__Node__PeerMachine *machine, bool *news)
{
    *news = false;
    if (machine->machine_id.len != sizeof daemon->machine.bytes) return RF_ERR_PROTOCOL;
    if (daemon->machine_known &&
        memcmp(machine->machine_id.data, daemon->machine.bytes, sizeof daemon->machine.bytes) != 0)
        return RF_ERR_AUTH;
    daemon->form.nodes[node].takes_part = true;
    switch (machine->word) {
    case RACKFISH__NODE__PEER_WORD__FIRST:
        *news = be_first(daemon, node, instance, &machine->machine_id);
        return RF_OK;
    case RACKFISH__NODE__PEER_WORD__JOIN:
        *news = join(daemon, &machine->machine_id);
        return RF_OK;
    case RACKFISH__NODE__PEER_WORD__AGAIN:
        if (!daemon->form.came_again)
            rf_log(RF_LOG_WARN,
                   "node %s forms the machine and knows an earlier life of this node: joining later",
                   name_of(daemon, node));
        daemon->form.came_again = true;
        return RF_OK;
    case RACKFISH__NODE__PEER_WORD__NONE:
        return RF_OK;
    default:
        return RF_ERR_PROTOCOL;
    }
}

bool rf_form_waits(const rf_daemon_t *daemon, char *out, size_t max)
{
    const rf_form_t *form = &daemon->form;
    rf_node_t other = who_takes_part(daemon);
    if (rf_form_may_start(daemon)) {
        for (unsigned i = 0; i < daemon->config->n_nodes && form->drew; i++) {
            if (!form->nodes[i].again) continue;
            snprintf(
                out, max,
                "waiting for the machine to form: node %s was started anew meanwhile and joins later; " MEND,
                name_of(daemon, (rf_node_t)i));
            return true;
        }
        if (!form->former_lost) return false;
        snprintf(out, max,
                 "waiting for the machine to form: node %s, which forms it, was started anew; " MEND,
                 name_of(daemon, form->former));
        return true;
    }
    if (form->came_again)
        snprintf(out, max,
                 "an earlier life of this node may be in the machine that forms: waiting to join it; " MEND);
    else if (other != RF_NODE_NONE)
        snprintf(out, max, "node %s is in a machine that has not formed: waiting to join it; " MEND,
                 name_of(daemon, other));
    else
        return false;
    return true;
}
