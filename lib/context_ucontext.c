/* context.h by ucontext(3): slower (it saves the signal mask), but everywhere, and what sanitizers understand. */
#include "context.h"

#include <stdlib.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/common_interface_defs.h>
static lib_context_t *left; /* whom the last switch suspended: its stack's bounds are learnt on arrival */
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

void rf_lib_context_adopt(lib_context_t *context)
{
    context->ucontext = calloc(1, sizeof(ucontext_t));
    if (!context->ucontext) abort();
#ifdef WITH_TSAN
    context->fiber = __tsan_get_current_fiber();
#endif
}

int rf_lib_context_make(lib_context_t *context, void *stack, size_t stack_bytes, void (*entry)(void))
{
    ucontext_t *u = calloc(1, sizeof *u);
    if (!u) return -1;
    getcontext(u);
    u->uc_stack.ss_sp = stack;
    u->uc_stack.ss_size = stack_bytes;
    u->uc_link = NULL;
    makecontext(u, entry, 0);
    context->ucontext = u;
    context->stack = stack;
    context->stack_bytes = stack_bytes;
#ifdef WITH_TSAN
    context->fiber = __tsan_create_fiber(0);
#endif
    return 0;
}

void rf_lib_context_entered(lib_context_t *self)
{
    (void)self;
#ifdef WITH_ASAN
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(self->fake_stack, &bottom, &size);
    if (left) {
        left->stack = (void *)(size_t)bottom;
        left->stack_bytes = size;
    }
#endif
}

void rf_lib_context_switch(lib_context_t *from, lib_context_t *to, int last)
{
    (void)last;
#ifdef WITH_ASAN
    left = last ? NULL : from;
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef WITH_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    swapcontext(from->ucontext, to->ucontext);
    rf_lib_context_entered(from);
}

void rf_lib_context_free(lib_context_t *context)
{
    free(context->ucontext);
    context->ucontext = NULL;
#ifdef WITH_TSAN
    if (context->stack && context->fiber) __tsan_destroy_fiber(context->fiber);
    context->fiber = NULL;
#endif
}
