/* What fixtures of links over paths (transport/path/path.h) share, whatever the path is. */
#ifndef RF_TESTS_CONFORMANCE_PATH_FIXTURE_H
#define RF_TESTS_CONFORMANCE_PATH_FIXTURE_H

#include "transport/path/path.h"

#define PATH_HOSTILE_WAYS 15

/* A peer that breaks the rules (transport/path/format.h), for a fixture's `hostile`. Way 0 to PATH_HOSTILE_WAYS - 1: says a word,
 * or something over the control link, that makes no sense. True. */
bool path_hostile(path_link_t *link, unsigned way);
/* A fixture's `explain`. */
void path_explain(rf_link_t *link);

#endif
