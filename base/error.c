#include "base/error.h"

#include <stddef.h>

static const struct {
    const char *name;
    const char *text;
} table[] = {
#define RF_ERROR_ROW(name, value, text) [value] = {#name, text},
    RF_ERROR_TABLE(RF_ERROR_ROW)
#undef RF_ERROR_ROW
};

__attribute__((visibility("default"))) const char *rf_err_text(rf_err_t err)
{
    return (unsigned)err < RF_ERR_COUNT ? table[err].text : "unknown error";
}

__attribute__((visibility("default"))) const char *rf_err_name(rf_err_t err)
{
    return (unsigned)err < RF_ERR_COUNT ? table[err].name : "RF_ERR_UNKNOWN";
}
