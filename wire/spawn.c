#include "wire/spawn.h"

#include <string.h>

size_t rf_spawn_size(const rf_spawn_t *spawn)
{
    size_t size = sizeof(rf_spawn_header_t) + strlen(spawn->user) + 1 + strlen(spawn->cwd) + 1 +
                  strlen(spawn->executable) + 1 + spawn->span_args_size;
    for (uint32_t i = 0; i < spawn->n_args; i++) size += strlen(spawn->argv[i]) + 1;
    for (uint32_t i = 0; i < spawn->n_env; i++) size += strlen(spawn->env[i]) + 1;
    return size;
}

static char *put_string(char *at, const char *text)
{
    size_t size = strlen(text) + 1;
    memcpy(at, text, size);
    return at + size;
}

rf_err_t rf_spawn_encode(const rf_spawn_t *spawn, void *out, size_t max, size_t *size_out)
{
    size_t size = rf_spawn_size(spawn);
    if (size > RF_SPAWN_BYTES_MAX || (uint64_t)spawn->n_args + spawn->n_env > RF_SPAWN_ARGS_MAX ||
        spawn->span_args_size > RF_SPAN_ARGS_MAX)
        return RF_ERR_LIMIT;
    if (size > max) return RF_ERR_TRUNCATED;
    rf_spawn_header_t header = {
        .magic = RF_SPAWN_MAGIC,
        .size = (uint32_t)size,
        .flags = spawn->flags,
        .umask = spawn->umask,
        .n_args = spawn->n_args,
        .n_env = spawn->n_env,
        .reserved_permille = spawn->reserved_permille,
        .weight = spawn->weight,
        .span_args_size = spawn->span_args_size,
    };
    memcpy(header.limits, spawn->limits, sizeof header.limits);
    char *at = out;
    memcpy(at, &header, sizeof header);
    at += sizeof header;
    at = put_string(at, spawn->user);
    at = put_string(at, spawn->cwd);
    at = put_string(at, spawn->executable);
    for (uint32_t i = 0; i < spawn->n_args; i++) at = put_string(at, spawn->argv[i]);
    for (uint32_t i = 0; i < spawn->n_env; i++) at = put_string(at, spawn->env[i]);
    if (spawn->span_args_size) memcpy(at, spawn->span_args, spawn->span_args_size);
    *size_out = size;
    return RF_OK;
}

/* Takes the string at `*at`, which must end before `end`; NULL if it does not. */
static const char *take_string(const char **at, const char *end)
{
    const char *text = *at;
    const char *zero = memchr(text, 0, (size_t)(end - text));
    if (!zero) return NULL;
    *at = zero + 1;
    return text;
}

rf_err_t rf_spawn_decode(const void *bytes, size_t size, rf_spawn_t *out, const char **pointers,
                         size_t pointers_max)
{
    rf_spawn_header_t header;
    if (size < sizeof header || size > RF_SPAWN_BYTES_MAX) return RF_ERR_PROTOCOL;
    memcpy(&header, bytes, sizeof header);
    if (header.magic != RF_SPAWN_MAGIC || header.size != size || header.span_args_size > RF_SPAN_ARGS_MAX ||
        header.reserved_permille > 1000 || header.weight > 1000 || header.umask > 0777 || header.n_args == 0)
        return RF_ERR_PROTOCOL;
    uint64_t strings = (uint64_t)header.n_args + header.n_env;
    if (strings > RF_SPAWN_ARGS_MAX || strings + 2 > pointers_max) return RF_ERR_LIMIT;
    const char *at = (const char *)bytes + sizeof header;
    const char *end = (const char *)bytes + size;
    rf_spawn_t spawn = {
        .flags = header.flags,
        .umask = header.umask,
        .reserved_permille = header.reserved_permille,
        .weight = header.weight,
        .n_args = header.n_args,
        .n_env = header.n_env,
        .span_args_size = header.span_args_size,
        .argv = pointers,
        .env = pointers + header.n_args + 1,
    };
    memcpy(spawn.limits, header.limits, sizeof spawn.limits);
    if (!(spawn.user = take_string(&at, end)) || !(spawn.cwd = take_string(&at, end)) ||
        !(spawn.executable = take_string(&at, end)))
        return RF_ERR_PROTOCOL;
    for (uint32_t i = 0; i < header.n_args; i++) {
        if (!(spawn.argv[i] = take_string(&at, end))) return RF_ERR_PROTOCOL;
    }
    spawn.argv[header.n_args] = NULL;
    for (uint32_t i = 0; i < header.n_env; i++) {
        if (!(spawn.env[i] = take_string(&at, end))) return RF_ERR_PROTOCOL;
    }
    spawn.env[header.n_env] = NULL;
    if ((size_t)(end - at) != header.span_args_size) return RF_ERR_PROTOCOL;
    spawn.span_args = (const uint8_t *)at;
    *out = spawn;
    return RF_OK;
}
