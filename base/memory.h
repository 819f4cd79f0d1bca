/* What the message path needs from the processor: cache-line size, pause, the one full fence. */
#ifndef RF_BASE_MEMORY_H
#define RF_BASE_MEMORY_H

#include <stdatomic.h>
#include <stdint.h>

#define RF_CACHE_LINE    64
#define RF_PAGE          4096
#define rf_cache_aligned __attribute__((aligned(RF_CACHE_LINE)))
#define rf_likely(x)     __builtin_expect(!!(x), 1)
#define rf_unlikely(x)   __builtin_expect(!!(x), 0)
/* A function that each slot goes through. Behind many checks gcc takes what it does with a slot for something rare, and makes it small: of a
 * slot's copy `rep movs`, which is slower than eight moves. */
#define rf_hot __attribute__((hot))

/* Tells the core that this is a spin loop. */
static inline void rf_cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * The full fence between publishing slots and reading the peer's asleep word: one per flush, none per slot
 * (store -> load order, Dekker's handshake). On x86 a locked read-modify-write, which is as fast as mfence or faster;
 * elsewhere the processor's own barrier, since there a read-modify-write orders only itself. The thread sanitizer knows no
 * plain fences, and gcc refuses them under it, so it always sees the read-modify-write.
 */
static inline void rf_full_fence(void)
{
#if defined(__x86_64__) || defined(__SANITIZE_THREAD__)
    _Atomic(uint32_t) word;
    atomic_init(&word, 0);
    atomic_fetch_add_explicit(&word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

#endif
