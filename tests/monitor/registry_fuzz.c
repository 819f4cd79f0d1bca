/*
 * The registry under hostile bytes: first byte even: a snapshot to load; odd: a sequence of {length, bytes} commands, the ends of
 * owners between them. Whatever is accepted keeps every invariant, survives saving and loading, and saves the same again.
 */
#include "monitor/registry.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static registry_t *make(uint64_t seed)
{
    registry_params_t p = {.objects_max = 16,
                           .claims_max = 16,
                           .blocks_max = 32,
                           .users_max = 3,
                           .events_max = 8,
                           .events_bytes = 1024,
                           .user_objects_max = 12,
                           .user_claims_max = 12,
                           .user_blocks_max = 24,
                           .seed = seed};
    registry_t *r;
    void *memory = calloc(1, registry_size(&p));
    rf_assert(memory && registry_init(memory, registry_size(&p), &p, NULL, NULL, &r) == RF_OK);
    return r;
}

/* As commands come, but most of them sensible. */
static void one_command(registry_t *r, const uint8_t *bytes, size_t size)
{
    uint8_t room[REGISTRY_COMMAND_MAX] = {0};
    registry_command_t c;
    uint64_t value;
    memcpy(room, bytes, size);
    memcpy(&c, room, sizeof c);
    if (size > sizeof c && (c.reserved & 1) == 0) {
        c.op = (uint16_t)(REGISTRY_OP_FIRST + c.op % (REGISTRY_OP_LAST - REGISTRY_OP_FIRST + 1));
        c.kind = (uint8_t)(c.kind % REGISTRY_KINDS);
        c.flags &= REGISTRY_FLAGS;
        c.condition %= REGISTRY_CONDITIONS;
        c.name_size = c.op >= REGISTRY_CANCEL ? 0 : 1;
        c.compare_size = 0;
        c.value_size = (uint16_t)(size - sizeof c - c.name_size);
        memset(c.user, 0, sizeof c.user);
        c.user[0] = (char)('a' + c.reserved / 2 % 3);
        c.domain %= 4;
        c.session %= 2;
        memcpy(room, &c, sizeof c);
        room[sizeof c] = (uint8_t)('k' + room[sizeof c] % 4);
    }
    registry_apply(r, room, size, &value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static registry_t *r, *copy, *blank;
    static uint8_t saved[1 << 16], again[1 << 16];
    if (!r) {
        r = make(1);
        copy = make(2);
        blank = make(3);
    }
    if (size == 0) return 0;
    size_t empty = registry_save(blank, saved, sizeof saved);
    rf_assert(registry_load(r, saved, empty) == RF_OK);
    bool commands = data[0] & 1;
    data++;
    size--;
    if (!commands) registry_load(r, data, size);
    while (commands && size > 1) {
        size_t length = (size_t)data[0] * 2;
        data++;
        size--;
        if (length > size) length = size;
        if (length < 4 && (size & 2))
            registry_owner_leaves(r, length, size % 2);
        else if (length < 4)
            registry_owner_ended(r, length, size % 2);
        else
            one_command(r, data, length);
        registry_check(r);
        data += length;
        size -= length;
    }
    registry_check(r);
    size_t n = registry_save(r, saved, sizeof saved);
    rf_assert(n > 0 && registry_load(copy, saved, n) == RF_OK);
    registry_check(copy);
    rf_assert(registry_save(copy, again, sizeof again) == n && memcmp(saved, again, n) == 0);
    return 0;
}
