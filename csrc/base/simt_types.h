// simt_types.h: CUDA's vector and 16-bit float types, for simt_cuda.h. No arithmetic on 16-bit
// floats: kernels compute in float, and convert with the round-to-nearest-even functions of
// cuda_bf16.h and cuda_fp16.h.
#pragma once
#include <cstdint>

#include "dtype.h"

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define HN_SIMT_VECTORS(T, name)                                \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };            \
  struct alignas(4 * sizeof(T)) name##4 { T x, y, z, w; };      \
  constexpr name##2 make_##name##2(T x, T y) { return {x, y}; } \
  constexpr name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HN_SIMT_VECTORS(int, int)
HN_SIMT_VECTORS(unsigned, uint)
HN_SIMT_VECTORS(float, float)
#undef HN_SIMT_VECTORS

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct alignas(4) __half2 {
  __half x, y;
};

// Both CUDA conversions answer any NaN with 0x7fff.
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return {x == x ? hn::bfloat16_bits(x) : uint16_t(0x7fff)}; }
inline __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }
inline float __bfloat162float(__nv_bfloat16 x) { return hn::from_bfloat16(x.bits); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return {bits}; }

inline __half __float2half_rn(float x) { return {x == x ? hn::float16_bits(x) : uint16_t(0x7fff)}; }
inline __half __float2half(float x) { return __float2half_rn(x); }
inline float __half2float(__half x) { return hn::from_float16(x.bits); }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
inline uint16_t __half_as_ushort(__half x) { return x.bits; }
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
