// Switching between stacks: a CUDA thread is a fiber, and a launch switches a hundred million times in a test run.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#define VQCC_UCONTEXT 1
#endif

namespace vqcc_emulator {

constexpr size_t stack_bytes = 128 * 1024;  // touched lazily; large enough for a kernel that spills everything
constexpr size_t guard_bytes = 4096 * 4;    // unmapped, a multiple of every usual page size

// What resumes a fiber: its stack pointer, or a whole context where no switch is written for the machine.
struct Context {
#ifdef VQCC_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer;
#endif
};

#if defined(__x86_64__)
// The return goes through a register jump: `ret` would always miss the return predictor after a switch.
extern "C" void vqcc_emulator_switch(void** save, void* load);
asm(R"(
    .text
    .type vqcc_emulator_switch, @function
vqcc_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
    .size vqcc_emulator_switch, .-vqcc_emulator_switch
)");

inline void prepare(Context& context, unsigned char* stack, void (*entry)()) {
  // At entry the stack must be 8 past a multiple of 16, as after a call.
  void** top = reinterpret_cast<void**>(stack + stack_bytes - 16);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  context.stack_pointer = top - 6;
}
#elif defined(__aarch64__)
extern "C" void vqcc_emulator_switch(void** save, void* load);
asm(R"(
    .text
    .type vqcc_emulator_switch, %function
vqcc_emulator_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    br x30
    .size vqcc_emulator_switch, .-vqcc_emulator_switch
)");

inline void prepare(Context& context, unsigned char* stack, void (*entry)()) {
  void** frame = reinterpret_cast<void**>(stack + stack_bytes - 160);
  frame[11] = reinterpret_cast<void*>(entry);
  context.stack_pointer = frame;
}
#endif

#ifdef VQCC_UCONTEXT
inline void prepare(Context& context, unsigned char* stack, void (*entry)()) {
  getcontext(&context.context);
  context.context.uc_stack.ss_sp = stack;
  context.context.uc_stack.ss_size = stack_bytes;
  context.context.uc_link = nullptr;
  makecontext(&context.context, entry, 0);
}
inline void switch_context(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
#else
inline void switch_context(Context& from, Context& to) { vqcc_emulator_switch(&from.stack_pointer, to.stack_pointer); }
#endif

// Stacks with an unmapped page below each, kept for the life of the process.
inline unsigned char* allocate_stack() {
  void* mapping = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return nullptr;
  }
  mprotect(mapping, guard_bytes, PROT_NONE);
  return static_cast<unsigned char*>(mapping) + guard_bytes;
}

}  // namespace vqcc_emulator
