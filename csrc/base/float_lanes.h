// float_lanes.h: vectors of floats for loops that are compiled once an instruction set: loads, stores, products, and a
// square of as many vectors as lanes turned on its diagonal. Each namespace has the same names.
#pragma once
#include <cstdint>
#include <cstring>

#include "isa.h"

namespace hn {
namespace cpu {

// A pointer as the compiler does not know it: one a row, and not one an element of a tile, stays in a register.
HN_INLINE const float* opaque(const float* p) {
#if defined(HN_X86)
  asm("" : "+r"(p));
#endif
  return p;
}

namespace lanes_any {  // plain x86-64 and others; a product and its sum are rounded each

constexpr int kLanes = 4;
typedef float V __attribute__((vector_size(16)));

HN_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
HN_INLINE V load_part(const float* p, int n) {  // n < kLanes; zeros behind
  float f[kLanes] = {};
  for (int i = 0; i < n; ++i) f[i] = p[i];
  return load(f);
}
HN_INLINE void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }
HN_INLINE void store_part(float* p, int n, V v) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
HN_INLINE V spread(float a) { return V{a, a, a, a}; }
HN_INLINE V add(V a, V b) { return a + b; }
HN_INLINE V subtract(V a, V b) { return a - b; }
HN_INLINE V multiply(V a, V b) { return a * b; }
HN_INLINE V add_product(V a, V b, V sum) { return sum + a * b; }
HN_INLINE void turn(V* v) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float above = v[j][i];
      v[j][i] = v[i][j];
      v[i][j] = above;
    }
  }
}
HN_INLINE V totals(V* v) {  // lane l: the sum of v[l]'s lanes
  turn(v);
  return (v[0] + v[2]) + (v[1] + v[3]);
}

}  // namespace lanes_any

#if defined(HN_X86)

namespace lanes_avx2 {

constexpr int kLanes = 8;
typedef __m256 V;

HN_TARGET_FMA HN_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
HN_TARGET_FMA HN_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
HN_TARGET_FMA HN_INLINE V load_part(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
HN_TARGET_FMA HN_INLINE void store(float* p, V v) { _mm256_storeu_ps(p, v); }
HN_TARGET_FMA HN_INLINE void store_part(float* p, int n, V v) { _mm256_maskstore_ps(p, first_lanes(n), v); }
HN_TARGET_FMA HN_INLINE V spread(float a) { return _mm256_set1_ps(a); }
HN_TARGET_FMA HN_INLINE V add(V a, V b) { return _mm256_add_ps(a, b); }
HN_TARGET_FMA HN_INLINE V subtract(V a, V b) { return _mm256_sub_ps(a, b); }
HN_TARGET_FMA HN_INLINE V multiply(V a, V b) { return _mm256_mul_ps(a, b); }
HN_TARGET_FMA HN_INLINE V add_product(V a, V b, V sum) { return _mm256_fmadd_ps(a, b, sum); }
HN_TARGET_FMA HN_INLINE void turn(V* v) {
  V t[8], u[8];
  _Pragma("GCC unroll 4") for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  _Pragma("GCC unroll 2") for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}
// Of four vectors, in each half: the sums of the half's lanes.
HN_TARGET_FMA HN_INLINE V half_totals(const V* v) {
  const V a = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
  const V b = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
}
HN_TARGET_FMA HN_INLINE V totals(V* v) {
  const V a = half_totals(v), b = half_totals(v + 4);
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

}  // namespace lanes_avx2

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

namespace lanes_avx512 {

constexpr int kLanes = 16;
typedef __m512 V;

HN_TARGET_AVX512 HN_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
HN_TARGET_AVX512 HN_INLINE __mmask16 first_lanes(int n) { return __mmask16((1u << n) - 1); }
HN_TARGET_AVX512 HN_INLINE V load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
HN_TARGET_AVX512 HN_INLINE void store(float* p, V v) { _mm512_storeu_ps(p, v); }
HN_TARGET_AVX512 HN_INLINE void store_part(float* p, int n, V v) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
HN_TARGET_AVX512 HN_INLINE V spread(float a) { return _mm512_set1_ps(a); }
HN_TARGET_AVX512 HN_INLINE V add(V a, V b) { return _mm512_add_ps(a, b); }
HN_TARGET_AVX512 HN_INLINE V subtract(V a, V b) { return _mm512_sub_ps(a, b); }
HN_TARGET_AVX512 HN_INLINE V multiply(V a, V b) { return _mm512_mul_ps(a, b); }
HN_TARGET_AVX512 HN_INLINE V add_product(V a, V b, V sum) { return _mm512_fmadd_ps(a, b, sum); }
HN_TARGET_AVX512 HN_INLINE void turn(V* v) {
  V t[16], u[16];
  _Pragma("GCC unroll 8") for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  _Pragma("GCC unroll 4") for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
  }
  _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
  }
}
HN_TARGET_AVX512 HN_INLINE V quarter_totals(const V* v) {
  const V a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const V b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
HN_TARGET_AVX512 HN_INLINE V both_halves(V a, V b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}
HN_TARGET_AVX512 HN_INLINE V totals(V* v) {
  const V a = both_halves(quarter_totals(v), quarter_totals(v + 4));
  const V b = both_halves(quarter_totals(v + 8), quarter_totals(v + 12));
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

}  // namespace lanes_avx512

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

}  // namespace cpu
}  // namespace hn
