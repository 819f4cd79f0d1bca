/* Any text: refused with one line, or a configuration that keeps its limits. */
#include "base/assert.h"
#include "cluster-config/parse.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[RF_CONFIG_ERROR_MAX] = "";
    rf_config_t *config = NULL;
    rf_err_t err = rf_config_parse("fuzz", (const char *)data, size, &config, NULL, error);
    if (err != RF_OK) {
        rf_assert(err == RF_ERR_CONFIG && error[0] != '\0' && !strchr(error, '\n') && !config);
        return 0;
    }
    uint8_t digest[32];
    rf_config_digest(config, digest);
    rf_assert(config->n_nodes >= 1 && config->n_nodes <= RF_NODES_MAX && config->n_cores <= RF_CORES_MAX);
    for (unsigned i = 0; i < config->n_nodes; i++)
        rf_assert(config->nodes[i].n_cores <= RF_CORES_PER_NODE_MAX && config->nodes[i].name[0]);
    free(config);
    return 0;
}
