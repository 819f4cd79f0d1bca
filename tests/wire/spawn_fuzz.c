/* libFuzzer: the spawn block decoder on any bytes; what it accepts must survive being written again. */
#include "base/assert.h"
#include "wire/spawn.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    const char *pointers[256], *again_pointers[256];
    rf_spawn_t spawn, again;
    if (rf_spawn_decode(bytes, size, &spawn, pointers, 256) != RF_OK) return 0;
    void *copy = malloc(size);
    size_t copied = 0;
    rf_assert(copy && rf_spawn_encode(&spawn, copy, size, &copied) == RF_OK && copied == size);
    rf_assert(rf_spawn_decode(copy, copied, &again, again_pointers, 256) == RF_OK);
    rf_assert(again.n_args == spawn.n_args && strcmp(again.cwd, spawn.cwd) == 0);
    free(copy);
    return 0;
}
