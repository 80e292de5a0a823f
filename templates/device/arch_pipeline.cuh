// The machine, continued: how warps of a block hand each other stages of shared memory without meeting all. Barriers lie in
// shared memory themselves and are counted by phases; copies of whole rows report to them. From compute capability 9.0 on;
// those functions whose comment says so are 9.0's alone (target sm_90a).
#pragma once

#include "arch.cuh"

namespace vqcc {

/// A barrier in shared memory (PTX mbarrier). A phase ends when as many threads have arrived as it was made for and all
/// bytes that were announced are there; then the next one begins. Phases have the parities 0, 1, 0, ...
using StageBarrier = unsigned long long;

/// Makes a barrier of `arrivals` arrivals a phase. One thread calls it, then show_barriers; others use it past a
/// block_barrier (PTX mbarrier.init).
VQCC_DEVICE void make_barrier(StageBarrier* barrier, int arrivals) {
#ifdef VQCC_EMULATE
  vqcc_emulator::barrier_init(barrier, static_cast<unsigned>(arrivals));
#else
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(barrier))), "r"(arrivals)
               : "memory");
#endif
}

/// Makes barriers that this thread has made visible to copies that report to them (PTX fence.mbarrier_init,
/// fence.proxy.async).
VQCC_DEVICE void show_barriers() {
#ifdef VQCC_EMULATE
  vqcc_emulator::show_stores();
#else
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/// Arrives: what this thread did before can be seen by all that wait for the phase (PTX mbarrier.arrive, .release.cta).
VQCC_DEVICE void arrive(StageBarrier* barrier) {
#ifdef VQCC_EMULATE
  vqcc_emulator::barrier_arrive(barrier);
#else
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(barrier)))
               : "memory");
#endif
}

/// Arrives, and announces bytes of copies that the phase also waits for (PTX mbarrier.arrive.expect_tx).
VQCC_DEVICE void arrive_expecting(StageBarrier* barrier, int bytes) {
#ifdef VQCC_EMULATE
  vqcc_emulator::barrier_arrive_expecting(barrier, static_cast<unsigned>(bytes));
#else
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(barrier))), "r"(bytes)
               : "memory");
#endif
}

/// Waits until the phase of `parity` has ended: until the barrier is past it, so that parity 1 of a new one is past at once
/// (PTX mbarrier.try_wait.parity, .acquire.cta).
VQCC_DEVICE void wait_for_phase(StageBarrier* barrier, uint32 parity) {
#ifdef VQCC_EMULATE
  vqcc_emulator::barrier_wait(barrier, parity);
#else
  asm volatile(
      "{\n\t.reg .pred done;\nwait:\n\tmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t@!done bra wait;\n\t}"
      :
      : "r"(static_cast<uint32>(__cvta_generic_to_shared(barrier))), "r"(parity)
      : "memory");
#endif
}

/// Orders this thread's accesses of global memory, and those it has been shown, before copies of whole rows that read or
/// follow them: both who writes and who then starts a copy calls it (PTX fence.proxy.async).
VQCC_DEVICE void show_to_copies() {
#ifndef VQCC_EMULATE
  asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

/// Adds one to *counter in global memory and returns what it held: a number that nobody else has. It orders nothing, so that
/// nothing waits for it but who needs the number (PTX atom, .relaxed.gpu).
VQCC_DEVICE uint32 take_number(uint32* counter) {
#ifdef VQCC_EMULATE
  return atomicAdd(counter, 1u);
#else
  uint32 number;
  asm volatile("atom.add.relaxed.gpu.global.u32 %0, [%1], 1;" : "=r"(number) : "l"(__cvta_generic_to_global(counter)));
  return number;
#endif
}

/// Counts arrivals in global memory: what this thread did, or had been shown by a barrier, can be seen by all that find them
/// counted (PTX red, .release.gpu).
VQCC_DEVICE void tell_arrivals(uint32* counter, uint32 count) {
#ifdef VQCC_EMULATE
  __threadfence();
  atomicAdd(counter, count);
#else
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;"
               :
               : "l"(__cvta_generic_to_global(counter)), "r"(count)
               : "memory");
#endif
}

/// Waits until others have counted `least` arrivals at a counter in global memory: what they did before can then be seen
/// (PTX ld.acquire.gpu).
VQCC_DEVICE void wait_for_arrivals(uint32* counter, uint32 least) {
#ifdef VQCC_EMULATE
  while (atomicAdd(counter, 0u) < least) vqcc_emulator::let_others_run();
#else
  for (unsigned nanoseconds = 32;; nanoseconds = nanoseconds < 1024 ? 2 * nanoseconds : nanoseconds) {
    uint32 count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(__cvta_generic_to_global(counter)) : "memory");
    if (count >= least) return;
    __nanosleep(nanoseconds);  // who asks often keeps others from counting
  }
#endif
}

/// Starts to copy `bytes`, a multiple of 16 at addresses that are, from global to shared memory; they report to `barrier`,
/// where they were announced. One thread calls it (PTX cp.async.bulk, .mbarrier::complete_tx::bytes).
VQCC_DEVICE void start_bulk_copy(uint8* shared, const void* global, int bytes, StageBarrier* barrier) {
#ifdef VQCC_EMULATE
  vqcc_emulator::bulk_copy(shared, global, static_cast<size_t>(bytes), barrier);
#else
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               :
               : "r"(static_cast<uint32>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global)),
                 "r"(bytes), "r"(static_cast<uint32>(__cvta_generic_to_shared(barrier)))
               : "memory");
#endif
}

/// Waits for the kThreads threads, whole warps, of a block that name the barrier `name`, 1 to 15; what they wrote before it
/// they may all read after it (PTX barrier.sync).
template <int kThreads>
VQCC_DEVICE void group_barrier(int name) {
  static_assert(kThreads % kWarpSize == 0, "whole warps");
#ifdef VQCC_EMULATE
  vqcc_emulator::group_barrier(static_cast<unsigned>(name), kThreads);
#else
  asm volatile("barrier.sync %0, %1;" : : "r"(name), "n"(kThreads) : "memory");
#endif
}

/// Registers of a thread from here on: more, once other warpgroups have given some back, or fewer. All warps of a warpgroup
/// call it; 9.0's alone (PTX setmaxnreg).
template <int kRegisters>
VQCC_DEVICE void take_registers() {
#ifndef VQCC_EMULATE
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kRegisters));
#endif
}
template <int kRegisters>
VQCC_DEVICE void give_registers() {
#ifndef VQCC_EMULATE
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kRegisters));
#endif
}

}  // namespace vqcc
