#include "transport/rdma/options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_TEXT_MAX 256

typedef struct option_number {
    const char *name;
    size_t offset;
    long least, most;
} option_number_t;

static const option_number_t numbers[] = {
    {"port", offsetof(rdma_options_t, port), 1, 254},
    {"gid_index", offsetof(rdma_options_t, gid_index), 0, 255},
    {"traffic_class", offsetof(rdma_options_t, traffic_class), 0, 255},
    {"service_level", offsetof(rdma_options_t, service_level), 0, 15},
    {"mtu", offsetof(rdma_options_t, mtu), 256, 4096},
    {"pkey_index", offsetof(rdma_options_t, pkey_index), 0, 65535},
    {"inline", offsetof(rdma_options_t, inline_size), 0, 4096},
    {"signal", offsetof(rdma_options_t, signal_every), 1, 1024},
    {"depth", offsetof(rdma_options_t, depth), 16, 4096},
};
#define N_NUMBERS (sizeof numbers / sizeof *numbers)

static rf_err_t number_set(const option_number_t *number, const char *value, rdma_options_t *out, char *why,
                           size_t why_max)
{
    char *end;
    errno = 0;
    long n = strtol(value, &end, 10);
    bool whole = value[0] >= '0' && value[0] <= '9' && *end == 0 && errno == 0;
    bool right = whole && n >= number->least && n <= number->most;
    if (right && strcmp(number->name, "mtu") == 0) right = (n & (n - 1)) == 0;
    if (!right) {
        snprintf(why, why_max, "%s=%.20s: it is a number from %ld to %ld%s", number->name, value,
                 number->least, number->most, strcmp(number->name, "mtu") == 0 ? ", a power of two" : "");
        return RF_ERR_CONFIG;
    }
    int set = (int)n;
    memcpy((char *)out + number->offset, &set, sizeof set);
    return RF_OK;
}

static rf_err_t mode_set(const char *value, rdma_options_t *out, char *why, size_t why_max)
{
    static const char *const modes[] = {"auto", "send", "write"};
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
        if (strcmp(value, modes[i]) == 0) {
            out->mode = (rdma_mode_t)i;
            return RF_OK;
        }
    }
    snprintf(why, why_max, "mode=%.20s: it is auto, send or write", value);
    return RF_ERR_CONFIG;
}

static rf_err_t option_set(const char *name, const char *value, rdma_options_t *out, char *why,
                           size_t why_max)
{
    if (strcmp(name, "mode") == 0) return mode_set(value, out, why, why_max);
    if (strcmp(name, "device") == 0) {
        if (value[0] == 0 || strlen(value) >= sizeof out->device) {
            snprintf(why, why_max, "device=%.20s: it is a name that `ibv_devices` lists", value);
            return RF_ERR_CONFIG;
        }
        snprintf(out->device, sizeof out->device, "%s", value);
        return RF_OK;
    }
    for (unsigned i = 0; i < N_NUMBERS; i++) {
        if (strcmp(name, numbers[i].name) == 0) return number_set(&numbers[i], value, out, why, why_max);
    }
    snprintf(why, why_max,
             "'%.30s' is no option; there are device, port, gid_index, traffic_class, service_level, mtu, "
             "pkey_index, mode, inline, signal and depth",
             name);
    return RF_ERR_CONFIG;
}

rf_err_t rdma_options_parse(const char *text, rdma_options_t *out, char *why, size_t why_max)
{
    rdma_options_t options = {.gid_index = -1,
                              .inline_size = RDMA_INLINE_DEFAULT,
                              .signal_every = RDMA_SIGNAL_DEFAULT,
                              .depth = RDMA_DEPTH_DEFAULT};
    char copy[OPTIONS_TEXT_MAX];
    int length = snprintf(copy, sizeof copy, "%s", text ? text : "");
    if (length < 0 || (size_t)length >= sizeof copy) {
        snprintf(why, why_max, "the options are longer than %u characters", OPTIONS_TEXT_MAX - 1);
        return RF_ERR_CONFIG;
    }
    char *rest = copy, *word;
    while ((word = strsep(&rest, ","))) {
        if (*word == 0 && !rest && word == copy) break; /* none at all */
        char *value = strchr(word, '=');
        if (!value) {
            snprintf(why, why_max, "'%.30s' is no option; write it as name=value", word);
            return RF_ERR_CONFIG;
        }
        *value++ = 0;
        rf_err_t err = option_set(word, value, &options, why, why_max);
        if (err != RF_OK) return err;
    }
    *out = options;
    return RF_OK;
}
