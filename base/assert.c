#include "base/assert.h"

#include "base/log.h"

#include <stdlib.h>

_Noreturn void rf_assert_failed(const char *expr, const char *file, int line, const char *func)
{
    rf_log(RF_LOG_ERROR, "assertion failed: %s (%s:%d, %s)", expr, file, line, func);
    abort();
}
