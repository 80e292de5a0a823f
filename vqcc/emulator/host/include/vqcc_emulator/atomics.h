// Atomic functions, as overloads for the types CUDA has them for.
#pragma once

#define VQCC_ATOMIC(name, operation, type, tag)                                                            \
  __forceinline__ type name(type* address, type value) {                                                   \
    return vqcc_emulator::from_bits<type>(vqcc_emulator::atomic(vqcc_emulator::AtomicOperation::operation, \
                                                                vqcc_emulator::AtomicType::tag, address,   \
                                                                vqcc_emulator::to_bits(value), 0));        \
  }

VQCC_ATOMIC(atomicAdd, add, int, s32)
VQCC_ATOMIC(atomicAdd, add, unsigned, u32)
VQCC_ATOMIC(atomicAdd, add, unsigned long long, u64)
VQCC_ATOMIC(atomicAdd, add, float, f32)
VQCC_ATOMIC(atomicAdd, add, double, f64)
VQCC_ATOMIC(atomicMax, maximum, int, s32)
VQCC_ATOMIC(atomicMax, maximum, unsigned, u32)
VQCC_ATOMIC(atomicMax, maximum, long long, s64)
VQCC_ATOMIC(atomicMax, maximum, unsigned long long, u64)
VQCC_ATOMIC(atomicMin, minimum, int, s32)
VQCC_ATOMIC(atomicMin, minimum, unsigned, u32)
VQCC_ATOMIC(atomicMin, minimum, long long, s64)
VQCC_ATOMIC(atomicMin, minimum, unsigned long long, u64)
VQCC_ATOMIC(atomicAnd, bit_and, int, s32)
VQCC_ATOMIC(atomicAnd, bit_and, unsigned, u32)
VQCC_ATOMIC(atomicOr, bit_or, int, s32)
VQCC_ATOMIC(atomicOr, bit_or, unsigned, u32)
VQCC_ATOMIC(atomicXor, bit_xor, int, s32)
VQCC_ATOMIC(atomicXor, bit_xor, unsigned, u32)
VQCC_ATOMIC(atomicExch, exchange, int, s32)
VQCC_ATOMIC(atomicExch, exchange, unsigned, u32)
VQCC_ATOMIC(atomicExch, exchange, unsigned long long, u64)
VQCC_ATOMIC(atomicExch, exchange, float, f32)
VQCC_ATOMIC(atomicInc, increment, unsigned, u32)
VQCC_ATOMIC(atomicDec, decrement, unsigned, u32)
#undef VQCC_ATOMIC

__forceinline__ int atomicSub(int* address, int value) { return atomicAdd(address, -value); }
__forceinline__ unsigned atomicSub(unsigned* address, unsigned value) { return atomicAdd(address, 0u - value); }

#define VQCC_ATOMIC_CAS(type, tag)                                                                              \
  __forceinline__ type atomicCAS(type* address, type comparand, type value) {                                   \
    return vqcc_emulator::from_bits<type>(                                                                      \
        vqcc_emulator::atomic(vqcc_emulator::AtomicOperation::compare_exchange, vqcc_emulator::AtomicType::tag, \
                              address, vqcc_emulator::to_bits(value), vqcc_emulator::to_bits(comparand)));      \
  }
VQCC_ATOMIC_CAS(int, s32)
VQCC_ATOMIC_CAS(unsigned, u32)
VQCC_ATOMIC_CAS(unsigned long long, u64)
#undef VQCC_ATOMIC_CAS
