/* The part of context.h around the assembly files: laying out a new stack so that the first switch "returns" into it. */
#include "context.h"

#include <stdint.h>

#if defined(__x86_64__)
#define SAVED_WORDS 8 /* mxcsr and x87 control word, r15 r14 r13 r12 rbx rbp, return address */
#define RETURN_WORD 7
#elif defined(__aarch64__)
#define SAVED_WORDS 20 /* x19-x30, d8-d15 */
#define RETURN_WORD 11 /* x30 */
#endif

void rf_lib_context_swap(void **save, void *load); /* context_<processor>.S */

void rf_lib_context_adopt(lib_context_t *context)
{
    context->stack_pointer = NULL;
}

int rf_lib_context_make(lib_context_t *context, void *stack, size_t stack_bytes, void (*entry)(void))
{
    uintptr_t top = ((uintptr_t)stack + stack_bytes) & ~(uintptr_t)15;
    /* One word above the frame where a return address would lie: entry() sees the alignment that a call gives. */
    uintptr_t *frame = (uintptr_t *)(top - 16) - SAVED_WORDS;
#if defined(__x86_64__)
    frame = (uintptr_t *)(top - 8) - SAVED_WORDS;
#endif
    for (unsigned i = 0; i < SAVED_WORDS; i++) frame[i] = 0;
    frame[RETURN_WORD] = (uintptr_t)entry;
#if defined(__x86_64__)
    uint32_t mxcsr;
    uint16_t x87;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    frame[0] = (uintptr_t)mxcsr | (uintptr_t)x87 << 32;
#endif
    context->stack_pointer = frame;
    return 0;
}

void rf_lib_context_switch(lib_context_t *from, lib_context_t *to, int last)
{
    (void)last;
    rf_lib_context_swap(&from->stack_pointer, to->stack_pointer);
}

void rf_lib_context_entered(lib_context_t *self)
{
    (void)self;
}
void rf_lib_context_free(lib_context_t *context)
{
    (void)context;
}
