/*
 * Switching stacks, for user-level threads. One of three files implements it, chosen by CMake:
 *   context_x86_64.S, context_aarch64.S   what a function call keeps, and nothing else: a few nanoseconds
 *   context_ucontext.c                    any processor, and under sanitizers, which are told of each switch
 */
#ifndef RF_LIB_CONTEXT_H
#define RF_LIB_CONTEXT_H

#include <stddef.h>

typedef struct lib_context {
    void *stack_pointer; /* assembly: of the suspended context, first: known to the .S files */
    void *ucontext;      /* ucontext: allocated by make */
    void *fiber;         /* sanitizers */
    void *fake_stack;
    void *stack;
    size_t stack_bytes;
} lib_context_t;

/* Makes the context of the running thread known, to be switched away from. */
void rf_lib_context_adopt(lib_context_t *context);

/* Makes a context that runs entry() on `stack` when first switched to; entry must never return. 0, or -1 without memory. */
int rf_lib_context_make(lib_context_t *context, void *stack, size_t stack_bytes, void (*entry)(void));

/* Suspends `from`, resumes `to`. `last`: `from` never runs again. */
void rf_lib_context_switch(lib_context_t *from, lib_context_t *to, int last);

/* First thing in entry(). */
void rf_lib_context_entered(lib_context_t *self);

/* Frees what make() took. */
void rf_lib_context_free(lib_context_t *context);

#endif
