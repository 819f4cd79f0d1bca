/*
 * Two tiers of assertion.
 *   rf_assert   always on: invariants of agreement, capabilities and ownership. Aborts with place and text.
 *   rf_debug    debug builds only: hot paths.
 * Never assert on what the world can do: I/O errors, hostile bytes, full queues.
 */
#ifndef RF_BASE_ASSERT_H
#define RF_BASE_ASSERT_H

_Noreturn void rf_assert_failed(const char *expr, const char *file, int line, const char *func);

#define rf_assert(expr)                                                                                      \
    (__builtin_expect(!!(expr), 1) ? (void)0 : rf_assert_failed(#expr, __FILE__, __LINE__, __func__))

#ifdef NDEBUG
#define rf_debug(expr) ((void)sizeof(expr))
#else
#define rf_debug(expr) rf_assert(expr)
#endif

#endif
