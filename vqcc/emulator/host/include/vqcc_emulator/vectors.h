// CUDA's built-in vector types, with their alignment: a 16-byte access to an 8-byte aligned address is an error.
#pragma once

#define VQCC_VECTOR(type, name, align2, align4)                                                  \
  struct name##1 { type x; };                                                                    \
  struct __align__(align2) name##2 { type x, y; };                                               \
  struct name##3 { type x, y, z; };                                                              \
  struct __align__(align4) name##4 { type x, y, z, w; };                                         \
  __forceinline__ constexpr name##1 make_##name##1(type x) { return {x}; }                       \
  __forceinline__ constexpr name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  __forceinline__ constexpr name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  __forceinline__ constexpr name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

VQCC_VECTOR(signed char, char, 2, 4)
VQCC_VECTOR(unsigned char, uchar, 2, 4)
VQCC_VECTOR(short, short, 4, 8)
VQCC_VECTOR(unsigned short, ushort, 4, 8)
VQCC_VECTOR(int, int, 8, 16)
VQCC_VECTOR(unsigned, uint, 8, 16)
VQCC_VECTOR(float, float, 8, 16)
VQCC_VECTOR(long long, longlong, 16, 16)
VQCC_VECTOR(unsigned long long, ulonglong, 16, 16)
VQCC_VECTOR(double, double, 16, 16)
#undef VQCC_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

namespace vqcc_emulator {
__forceinline__ uint3 to_uint3(Index3 index) { return {index.x, index.y, index.z}; }
}  // namespace vqcc_emulator

#define threadIdx (vqcc_emulator::to_uint3(vqcc_emulator::thread_index()))
#define blockIdx (vqcc_emulator::to_uint3(vqcc_emulator::block_index()))
#define blockDim (dim3(vqcc_emulator::to_uint3(vqcc_emulator::block_dimensions())))
#define gridDim (dim3(vqcc_emulator::to_uint3(vqcc_emulator::grid_dimensions())))
#define warpSize 32
