#include "conformance.h"
const struct CMUnitTest cases_life[] = {};
const size_t cases_life_n = 0;
