#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char log_who[32] = "rackfish";
static _Atomic(int) log_level = RF_LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug"};

bool rf_log_level_parse(const char *name, rf_log_level_t *out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (rf_log_level_t)i;
            return true;
        }
    }
    return false;
}

void rf_log_init(const char *who, rf_log_level_t level)
{
    snprintf(log_who, sizeof log_who, "%s", who);
    const char *env = secure_getenv("RACKFISH_LOG");
    if (env) rf_log_level_parse(env, &level);
    rf_log_set_level(level);
}

void rf_log_set_level(rf_log_level_t level)
{
    atomic_store_explicit(&log_level, level, memory_order_relaxed);
}

rf_log_level_t rf_log_level(void)
{
    return (rf_log_level_t)atomic_load_explicit(&log_level, memory_order_relaxed);
}

static void put_line(rf_log_level_t level, const struct timespec *at, const char *format, va_list args)
{
    int saved_errno = errno;
    char line[RF_LOG_LINE_MAX];
    struct tm utc;
    gmtime_r(&at->tv_sec, &utc);
    size_t head = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    head += (size_t)snprintf(line + head, sizeof line - head, ".%06ldZ %-5s %s ", at->tv_nsec / 1000,
                             level_names[level], log_who);
    errno = saved_errno; /* for %m */
    int body = vsnprintf(line + head, sizeof line - head - 1, format, args);
    size_t length = head + (body > 0 ? (size_t)body : 0);
    if (length > sizeof line - 2) {
        length = sizeof line - 2;
        memcpy(line + length - 3, "...", 3);
    }
    for (size_t i = head; i < length; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 127) line[i] = '?';
    }
    line[length++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void)ignored;
    errno = saved_errno;
}

void rf_log(rf_log_level_t level, const char *format, ...)
{
    if (level > rf_log_level()) return;
    struct timespec now;
    va_list args;
    clock_gettime(CLOCK_REALTIME, &now);
    va_start(args, format);
    put_line(level, &now, format, args);
    va_end(args);
}

void rf_log_said(rf_log_level_t level, uint64_t real_ns, const char *format, ...)
{
    if (level > rf_log_level()) return;
    const struct timespec at = {.tv_sec = (time_t)(real_ns / RF_NS_PER_S),
                                .tv_nsec = (long)(real_ns % RF_NS_PER_S)};
    va_list args;
    va_start(args, format);
    put_line(level, &at, format, args);
    va_end(args);
}

bool rf_log_once_per(uint64_t *last_ns, uint64_t interval_ns)
{
    uint64_t now = rf_clock_ns();
    if (*last_ns != 0 && now - *last_ns < interval_ns) return false;
    *last_ns = now;
    return true;
}
