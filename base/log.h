/*
 * Log lines: one write(2) a line to standard error, which the node points at a rotated file or the journal.
 *
 *   2026-11-21T12:00:00.123456Z info  monitor/3 link to core 1 is up
 *
 * Any thread. Never blocks on locks; a line is at most RF_LOG_LINE_MAX bytes, longer ones are cut with "...".
 * Control characters in arguments are replaced by '?', so that hostile names cannot forge lines.
 */
#ifndef RF_BASE_LOG_H
#define RF_BASE_LOG_H

#include "base/types.h"

#define RF_LOG_LINE_MAX 1024

typedef enum rf_log_level { RF_LOG_ERROR, RF_LOG_WARN, RF_LOG_INFO, RF_LOG_DEBUG } rf_log_level_t;

/* Sets who is speaking ("monitor/3") and the least important level that is still written. Copies `who`.
 * The level is overridden by the environment variable RACKFISH_LOG (error, warn, info or debug). */
void rf_log_init(const char *who, rf_log_level_t level);

void rf_log_set_level(rf_log_level_t level);
rf_log_level_t rf_log_level(void);

/* Parses a level's name; returns false and leaves *out alone when it is none. */
bool rf_log_level_parse(const char *name, rf_log_level_t *out);

void rf_log(rf_log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A line that was kept back: `real_ns` is when it was said (CLOCK_REALTIME). */
void rf_log_said(rf_log_level_t level, uint64_t real_ns, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* For causes that a hostile peer can repeat: true at most once per `interval_ns` per `*last_ns` (start it at 0). */
bool rf_log_once_per(uint64_t *last_ns, uint64_t interval_ns);

#endif
