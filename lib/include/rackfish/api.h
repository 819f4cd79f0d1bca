/* What every public header needs: linkage, and time. Source: lib/life.c. */
#ifndef RACKFISH_API_H
#define RACKFISH_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define RF_BEGIN_DECLS extern "C" {
#define RF_END_DECLS   }
#else
#define RF_BEGIN_DECLS
#define RF_END_DECLS
#endif

#define RF_API __attribute__((visibility("default")))

#ifndef RF_NEVER
#define RF_NEVER UINT64_MAX /* a deadline that does not come */
#endif

RF_BEGIN_DECLS

/* Now, in nanoseconds of CLOCK_MONOTONIC: what deadlines are compared with. Any thread. */
RF_API uint64_t rf_now_ns(void);

/* The deadline `milliseconds` from now. Any thread. */
RF_API uint64_t rf_deadline_ms(uint64_t milliseconds);

RF_END_DECLS

#endif
