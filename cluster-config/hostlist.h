/* Hostlists: "rack[01-16,20],login" names rack01 ... rack16, rack20, login. Widths are kept. Slurm's form. */
#ifndef RF_CLUSTER_CONFIG_HOSTLIST_H
#define RF_CLUSTER_CONFIG_HOSTLIST_H

#include "base/error.h"

#include <stddef.h>

/* Expands `text` into at most `max` names of at most `name_max` bytes each, in order, duplicates kept.
 * RF_ERR_CONFIG with the cause in `error`; RF_ERR_LIMIT when there are more than `max`. */
rf_err_t rf_hostlist_expand(const char *text, char *names, size_t name_max, size_t max, size_t *count,
                            char *error, size_t error_max);

#endif
