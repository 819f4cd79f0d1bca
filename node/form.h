/*
 * Forming a machine: who draws its id, and which life of a node may start the first incarnations of its cores.
 *
 * Kept true, for the sake of agreement (a vote is an incarnation's, and is given once, because one process has it):
 *
 *      of a machine, as its id names it, the first incarnation of each core is started at most once.
 *
 * An id is drawn by one life of one rackfishd, the forming one, and never again. Only that life gives the word FIRST, to at most
 * one life of each other node, and no more once the machine has formed. A life starts its cores once. Whoever finds a machine in its
 * run directory has been started before (adopted). Everybody else joins: as incarnations that the machine has agreed on,
 * after it has formed. So a node that starts anew in between, and has forgotten that it was there, waits until then.
 *
 * A life takes part in a machine when it has drawn its id, was told FIRST, joins it, or finds it in the run directory. Only then it
 * says the id to others: of a machine in which nobody takes part any more nothing is left, and another one can be formed.
 */
#ifndef RF_NODE_FORM_H
#define RF_NODE_FORM_H

#include "node/daemon.h"
#include "node/proto.h"

/* With --form: draws the machine's id once a majority of the nodes, this one counted, is connected and none that is takes part in a
 * machine. A machine that lives on a majority of the configured nodes is met, so no second one is formed; one that
 * has shrunk below that may not be. True: drawn, to be told to all. */
bool rf_form_draw(rf_daemon_t *daemon);

/* This machine of one node is formed by the node itself. */
void rf_form_alone(rf_daemon_t *daemon);

/* This node may start its cores: as first incarnations, or, when it only joins, as those that the machine names. */
bool rf_form_may_start(const rf_daemon_t *daemon);

/* What this node's word to a connected node is, whose life is `instance` (16 bytes). It counts as given. */
Rackfish__Node__PeerWord rf_form_word(rf_daemon_t *daemon, rf_node_t node, const uint8_t *instance);

/* The hello of a node that fits was read: whether it takes part, and in a machine that has formed. True: this node takes part from now on. */
bool rf_form_met(rf_daemon_t *daemon, rf_node_t node, const Rackfish__Node__PeerHello *hello);

/* The word of a connected node, whose life is `instance`. RF_ERR_AUTH: it is of another machine than this node's; RF_ERR_PROTOCOL: no word of this protocol.
 * `news` says whether this node takes part from now on. */
rf_err_t rf_form_told(rf_daemon_t *daemon, rf_node_t node, const uint8_t *instance,
                      const Rackfish__Node__PeerMachine *machine, bool *news);

/* Why this node waits, if it is for the forming or for a word: one line with the mend; false: it is not. */
bool rf_form_waits(const rf_daemon_t *daemon, char *out, size_t max);

#endif
