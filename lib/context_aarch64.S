/*
 * void rf_lib_context_swap(void **save, void *load)
 *
 * AAPCS64: what a callee keeps (x19-x30, d8-d15), stored on the stack that is left, its pointer in *save; the other
 * stack's loaded. Layout known to context_assembly.c.
 */
    .text
    .globl  rf_lib_context_swap
    .hidden rf_lib_context_swap
    .type   rf_lib_context_swap, %function
    .p2align 4
rf_lib_context_swap:
    hint    #34 /* bti c */
    sub     sp, sp, #160
    stp     x19, x20, [sp, #0]
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    stp     x25, x26, [sp, #48]
    stp     x27, x28, [sp, #64]
    stp     x29, x30, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    mov     x2, sp
    str     x2, [x0]
    mov     sp, x1
    ldp     x19, x20, [sp, #0]
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldp     x25, x26, [sp, #48]
    ldp     x27, x28, [sp, #64]
    ldp     x29, x30, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    add     sp, sp, #160
    ret
    .size   rf_lib_context_swap, . - rf_lib_context_swap
    .section .note.GNU-stack, "", %progbits
