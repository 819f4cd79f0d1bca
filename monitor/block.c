#include "monitor/block.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POINTERS_MAX (RF_SPAWN_ARGS_MAX + 2)

rf_err_t block_read(int fd, uint32_t offset, void *out, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t n = pread(fd, (uint8_t *)out + have, size - have, (off_t)(offset + have));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return RF_ERR_OS;
        if (n == 0) return RF_ERR_PROTOCOL;
        have += (size_t)n;
    }
    return RF_OK;
}

/* Of a name, or of the number of a user without one. */
static rf_err_t user_uid(const char *user, uint32_t *uid)
{
    char buffer[4096], number[16];
    struct passwd entry, *found = NULL;
    if (getpwnam_r(user, &entry, buffer, sizeof buffer, &found) == 0 && found) {
        *uid = entry.pw_uid;
        return RF_OK;
    }
    snprintf(number, sizeof number, "%u", (unsigned)geteuid());
    if (strcmp(user, number) != 0) return RF_ERR_NOT_FOUND;
    *uid = geteuid();
    return RF_OK;
}

static void program_name(const char *argv0, char out[RF_NAME_MAX])
{
    const char *slash = strrchr(argv0, '/');
    const char *name = slash && slash[1] ? slash + 1 : argv0;
    snprintf(out, RF_NAME_MAX, "%s", name);
    for (char *c = out; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    }
}

/* Decides on whose behalf, and with what flags and span arguments. */
static rf_err_t apply_change(rf_spawn_t *spawn, const monitor_block_t *change, const char *default_user,
                             block_result_t *result)
{
    if (change->user[0]) {
        if (spawn->user[0] && strcmp(spawn->user, change->user) != 0) return RF_ERR_PERMISSION;
        spawn->user = change->user;
    } else if (!spawn->user[0]) {
        spawn->user = default_user;
    }
    if (strlen(spawn->user) >= sizeof result->user) return RF_ERR_LIMIT;
    rf_err_t err = user_uid(spawn->user, &result->uid);
    if (err != RF_OK) return err;
    spawn->flags &= ~change->flags_clear;
    if (change->span_args_set) {
        if (change->span_args_size > RF_SPAN_ARGS_MAX) return RF_ERR_LIMIT;
        spawn->span_args = change->span_args;
        spawn->span_args_size = change->span_args_size;
    }
    return RF_OK;
}

static rf_err_t publish(const void *bytes, size_t size, int *out)
{
    int fd;
    rf_err_t err = rf_memory_create("rackfish-spawn", size, &fd);
    if (err != RF_OK) return err;
    err = rf_write_all(fd, bytes, size);
    if (err == RF_OK) err = rf_memory_reopen_readonly(fd, out);
    close(fd);
    return err;
}

rf_err_t block_copy_bytes(const void *bytes, size_t size, const monitor_block_t *change,
                          const char *default_user, block_result_t *out)
{
    rf_spawn_t spawn;
    block_result_t result = {.fd = -1};
    const char **pointers = calloc(POINTERS_MAX, sizeof *pointers);
    uint8_t *encoded = NULL;
    rf_err_t err = pointers ? rf_spawn_decode(bytes, size, &spawn, pointers, POINTERS_MAX) : RF_ERR_NO_MEMORY;
    if (err == RF_OK) err = apply_change(&spawn, change, default_user, &result);
    if (err == RF_OK) {
        size_t wanted = rf_spawn_size(&spawn), made = 0;
        encoded = malloc(wanted);
        err = encoded ? rf_spawn_encode(&spawn, encoded, wanted, &made) : RF_ERR_NO_MEMORY;
        result.size = (uint32_t)made;
    }
    if (err == RF_OK) err = publish(encoded, result.size, &result.fd);
    if (err == RF_OK) {
        result.flags = spawn.flags;
        snprintf(result.user, sizeof result.user, "%s", spawn.user);
        program_name(spawn.argv[0], result.program);
        *out = result;
    }
    free(encoded);
    free(pointers);
    return err;
}

rf_err_t block_copy(int fd, const monitor_block_t *change, const char *default_user, block_result_t *out)
{
    struct stat st;
    if (fstat(fd, &st) < 0) return RF_ERR_OS;
    if (fcntl(fd, F_GET_SEALS) < 0) return RF_ERR_PROTOCOL; /* no memory object: reading it might never end */
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(rf_spawn_header_t) ||
        st.st_size > RF_SPAWN_BYTES_MAX)
        return RF_ERR_PROTOCOL;
    uint8_t *bytes = malloc((size_t)st.st_size);
    if (!bytes) return RF_ERR_NO_MEMORY;
    rf_err_t err = block_read(fd, 0, bytes, (size_t)st.st_size);
    if (err == RF_OK) err = block_copy_bytes(bytes, (size_t)st.st_size, change, default_user, out);
    free(bytes);
    return err;
}
