#include "node/reload.h"

#include "base/log.h"
#include "node/monitors.h"

#include <stdlib.h>
#include <string.h>

void rf_reload(rf_daemon_t *daemon)
{
    rf_config_t *fresh = NULL;
    char error[RF_CONFIG_ERROR_MAX], names[256];
    if (rf_config_load(daemon->config->path, &fresh, error) != RF_OK) {
        rf_log(RF_LOG_ERROR, "reload: %s; nothing was changed", error);
        return;
    }
    rf_config_not_reloadable(daemon->config, fresh, names, sizeof names);
    if (names[0])
        rf_log(RF_LOG_WARN, "reload: a change of %s needs 'rackfish down' and 'up'; it was not taken over",
               names);
    daemon->config->log_level = fresh->log_level;
    memcpy(daemon->config->users, fresh->users, sizeof daemon->config->users);
    daemon->config->n_users = fresh->n_users;
    explicit_bzero(fresh, sizeof *fresh);
    free(fresh);
    rf_log_set_level((rf_log_level_t)daemon->config->log_level);
    rf_client_reload_t reload = {.log_level = daemon->config->log_level};
    for (unsigned i = 0; i < daemon->n_cores; i++) {
        if (daemon->cores[i].link_up &&
            rf_monitor_tell(&daemon->cores[i], RF_CLIENT_RELOAD, &reload, sizeof reload) != RF_OK)
            rf_log(RF_LOG_WARN, "reload: core %u was not told", daemon->cores[i].core);
    }
    rf_log(RF_LOG_INFO, "reloaded %s: log level and users", daemon->config->path);
}
