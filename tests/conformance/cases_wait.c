#include "conformance.h"
const struct CMUnitTest cases_wait[] = {};
const size_t cases_wait_n = 0;
