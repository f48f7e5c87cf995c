// pixel_loads.h: vectors of neighbouring outputs' inputs: those in the padding are zeros and are not read; vectors whose
// lanes are turned.
#pragma once
#include <cstdint>

#include "../../base/float_lanes.h"

namespace hiddennet::runtime {

namespace lanes_any {

using hn::cpu::lanes_any::V;

HN_INLINE V load_chosen(const float* p, uint32_t lanes) {
  V v = {};
  for (int i = 0; i < 4; ++i) {
    if (lanes >> i & 1) v[i] = p[i];
  }
  return v;
}
HN_INLINE V load_places(const float* p, const int32_t* at) {  // below 0: zero
  V v = {};
  for (int i = 0; i < 4; ++i) {
    if (at[i] >= 0) v[i] = p[at[i]];
  }
  return v;
}

// Lane i is lane at[i] of what is at p.
HN_INLINE V load_lanes(const float* p, const int32_t* at) { return load_places(p, at); }

}  // namespace lanes_any

#if defined(HN_X86)

namespace lanes_avx2 {

HN_TARGET_FMA HN_INLINE __m256 load_chosen(const float* p, uint32_t lanes) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_maskload_ps(p, _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(lanes)), each), each));
}
HN_TARGET_FMA HN_INLINE __m256 load_places(const float* p, const int32_t* at) {
  const __m256i places = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  const __m256i there = _mm256_cmpgt_epi32(places, _mm256_set1_epi32(-1));
  return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), p, places, _mm256_castsi256_ps(there), 4);
}

HN_TARGET_FMA HN_INLINE __m256 load_lanes(const float* p, const int32_t* at) {
  const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  const __m256 turned = _mm256_permutevar8x32_ps(_mm256_loadu_ps(p), lanes);
  return _mm256_blendv_ps(turned, _mm256_setzero_ps(), _mm256_castsi256_ps(lanes));
}

}  // namespace lanes_avx2

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

namespace lanes_avx512 {

HN_TARGET_AVX512 HN_INLINE __m512 load_chosen(const float* p, uint32_t lanes) {
  return _mm512_maskz_loadu_ps(__mmask16(lanes), p);
}
HN_TARGET_AVX512 HN_INLINE __m512 load_places(const float* p, const int32_t* at) {
  const __m512i places = _mm512_loadu_si512(at);
  const __mmask16 there = _mm512_cmpgt_epi32_mask(places, _mm512_set1_epi32(-1));
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, places, p, 4);
}

HN_TARGET_AVX512 HN_INLINE __m512 load_lanes(const float* p, const int32_t* at) {
  const __m512i lanes = _mm512_loadu_si512(at);
  const __mmask16 there = _mm512_cmpgt_epi32_mask(lanes, _mm512_set1_epi32(-1));
  return _mm512_maskz_permutexvar_ps(there, lanes, _mm512_loadu_ps(p));
}

}  // namespace lanes_avx512

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

}  // namespace hiddennet::runtime
