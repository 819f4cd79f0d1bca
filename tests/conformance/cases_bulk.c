#include "conformance.h"
const struct CMUnitTest cases_bulk[] = {};
const size_t cases_bulk_n = 0;
