/* What `link` and `bulk` do when they are told another host. */
#ifndef RF_BENCH_LINK_HOSTS_H
#define RF_BENCH_LINK_HOSTS_H

#include "bench.h"

#include <string.h>

/* The first word is `listen` or HOST:PORT. */
static inline bool bench_names_host(const bench_options_t *options)
{
    return options->argc > 0 &&
           (strcmp(options->argv[0], "listen") == 0 || strchr(options->argv[0], ':') != NULL);
}

rf_err_t bench_between_hosts(const bench_options_t *options);

#endif
