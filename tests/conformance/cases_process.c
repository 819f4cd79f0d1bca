#include "conformance.h"
const struct CMUnitTest cases_process[] = {};
const size_t cases_process_n = 0;
