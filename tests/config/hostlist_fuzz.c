/* Any text: refused with a cause, or names that fit. */
#include "base/assert.h"
#include "cluster-config/hostlist.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MAX = 32, NAME_MAX_HERE = 24 };
    static char names[MAX][NAME_MAX_HERE];
    char error[64] = "";
    size_t n = 0;
    char *text = malloc(size + 1);
    rf_assert(text);
    memcpy(text, data, size);
    text[size] = '\0';
    rf_err_t err = rf_hostlist_expand(text, names[0], NAME_MAX_HERE, MAX, &n, error, sizeof error);
    rf_assert(err == RF_OK ? n >= 1 && n <= MAX : error[0] != '\0');
    for (size_t i = 0; err == RF_OK && i < n; i++)
        rf_assert(names[i][0] && memchr(names[i], 0, NAME_MAX_HERE));
    free(text);
    return 0;
}
