/* Hellos and other frames between nodes, from hostile bytes, and the judgement on them. */
#include "base/log.h"
#include "node/peer_hello.h"
#include "node/proto.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static rf_daemon_t daemon_of_test;

static void set_up(void)
{
    static rf_config_t config;
    snprintf(config.machine, sizeof config.machine, "m");
    config.n_nodes = 2;
    snprintf(config.nodes[0].name, sizeof config.nodes[0].name, "a");
    snprintf(config.nodes[1].name, sizeof config.nodes[1].name, "b");
    daemon_of_test.config = &config;
    daemon_of_test.places[0].n_cores = 2;
    rf_log_init("fuzz", RF_LOG_ERROR);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char why[512] = "";
    if (!daemon_of_test.config) set_up();
    Rackfish__Node__PeerFrame *frame = rf_peer_frame_unpack(bytes, size);
    if (frame && frame->kind_case == RACKFISH__NODE__PEER_FRAME__KIND_HELLO) {
        /* As if the digest had matched, so that the checks behind it are reached. */
        uint8_t *digest = frame->hello->config_digest.data;
        if (frame->hello->config_digest.len == sizeof daemon_of_test.config_digest)
            memcpy(daemon_of_test.config_digest, digest, sizeof daemon_of_test.config_digest);
        rf_err_t err = rf_peer_judge(&daemon_of_test, frame->hello, RF_NODE_NONE, why, sizeof why);
        if (err == RF_OK && frame->hello->node != 1) abort();
        if (strlen(why) >= sizeof why && err != RF_OK) abort();
    }
    rf_peer_frame_free(frame);
    return 0;
}
