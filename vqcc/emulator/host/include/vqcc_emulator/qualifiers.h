// CUDA's qualifiers as a host compiler understands them.
#pragma once

#define __global__ __attribute__((noinline, visibility("default")))
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __maxnreg__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

// Static shared memory would be one host variable for all blocks, without bounds and without a written state. Device
// code takes all of its shared memory from vqcc_emulator::dynamic_shared() instead.
#define __shared__ _Static_assert_shared_variables_are_not_emulated_use_the_dynamic_shared_memory_function_of_arch_cuh
