#include "conformance.h"
const struct CMUnitTest cases_break[] = {};
const size_t cases_break_n = 0;
