/* SIGHUP: reads the configuration again, takes over what is reloadable, and names what is not. */
#ifndef RF_NODE_RELOAD_H
#define RF_NODE_RELOAD_H

#include "node/daemon.h"

void rf_reload(rf_daemon_t *daemon);

#endif
