/*
 * void rf_lib_context_swap(void **save, void *load)
 *
 * System V ABI: what a callee keeps, pushed on the stack that is left, its pointer stored in *save; the other stack's
 * popped. Layout known to context_assembly.c.
 */
    .text
    .globl  rf_lib_context_swap
    .hidden rf_lib_context_swap
    .type   rf_lib_context_swap, @function
    .p2align 4
rf_lib_context_swap:
    .cfi_startproc
    endbr64
    pushq   %rbp
    pushq   %rbx
    pushq   %r12
    pushq   %r13
    pushq   %r14
    pushq   %r15
    subq    $8, %rsp
    stmxcsr (%rsp)
    fnstcw  4(%rsp)
    movq    %rsp, (%rdi)
    movq    %rsi, %rsp
    ldmxcsr (%rsp)
    fldcw   4(%rsp)
    addq    $8, %rsp
    popq    %r15
    popq    %r14
    popq    %r13
    popq    %r12
    popq    %rbx
    popq    %rbp
    ret
    .cfi_endproc
    .size   rf_lib_context_swap, . - rf_lib_context_swap
    .section .note.GNU-stack, "", @progbits
