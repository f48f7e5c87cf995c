// sparse_append.h: append the chosen of a vector of weights to a list, without a branch. Lists have room for a vector
// more than they hold.
#pragma once
#include "../../base/compact_avx2.h"
#include "../../base/float_lanes.h"

namespace hn {
namespace cpu {

namespace lanes_any {

struct Places {  // of a vector's lanes
  int32_t first, step;
};
HN_INLINE Places places(int32_t first, int32_t step) { return {first, step}; }
HN_INLINE Places moved(Places p, int32_t by) { return {p.first + by, p.step}; }
HN_INLINE void advance(Places* p) { p->first += kLanes * p->step; }
HN_INLINE unsigned positive(V w) {
  unsigned mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= unsigned(w[i] > 0.0f) << i;
  return mask;
}
HN_INLINE unsigned nonzero(V w) {
  unsigned mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= unsigned(w[i] != 0.0f) << i;
  return mask;
}
HN_INLINE unsigned magnitude_is(V w, float c) {
  unsigned mask = 0;
  for (int i = 0; i < kLanes; ++i) mask |= unsigned(w[i] == c || w[i] == -c) << i;
  return mask;
}
HN_INLINE int append(unsigned mask, Places p, uint16_t* to) {
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    to[n] = uint16_t(p.first + i * p.step);
    n += int(mask >> i & 1u);
  }
  return n;
}
HN_INLINE void append_values(unsigned mask, V w, float* to) {
  int n = 0;
  for (int i = 0; i < kLanes; ++i) {
    to[n] = w[i];
    n += int(mask >> i & 1u);
  }
}

}  // namespace lanes_any

#if defined(HN_X86)

namespace lanes_avx2 {

struct Places {
  __m256i at, step;
};
HN_TARGET_FMA HN_INLINE Places places(int32_t first, int32_t step) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), by = _mm256_set1_epi32(step);
  return {_mm256_add_epi32(_mm256_set1_epi32(first), _mm256_mullo_epi32(lanes, by)), _mm256_slli_epi32(by, 3)};
}
HN_TARGET_FMA HN_INLINE Places moved(Places p, int32_t by) {
  return {_mm256_add_epi32(p.at, _mm256_set1_epi32(by)), p.step};
}
HN_TARGET_FMA HN_INLINE void advance(Places* p) { p->at = _mm256_add_epi32(p->at, p->step); }
HN_TARGET_FMA HN_INLINE unsigned positive(V w) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(w, _mm256_setzero_ps(), _CMP_GT_OQ)));
}
HN_TARGET_FMA HN_INLINE unsigned nonzero(V w) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(w, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
}
HN_TARGET_FMA HN_INLINE unsigned magnitude_is(V w, float c) {
  const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), w);
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(magnitude, _mm256_set1_ps(c), _CMP_EQ_OQ)));
}
HN_TARGET_FMA HN_INLINE int append(unsigned mask, Places p, uint16_t* to) {
  const __m256i at = compacted(p.at, mask);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_packus_epi32(_mm256_castsi256_si128(at), _mm256_extracti128_si256(at, 1)));
  return __builtin_popcount(mask);
}
HN_TARGET_FMA HN_INLINE void append_values(unsigned mask, V w, float* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), compacted(_mm256_castps_si256(w), mask));
}

}  // namespace lanes_avx2

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

namespace lanes_avx512 {

struct Places {
  __m512i at, step;
};
HN_TARGET_AVX512 HN_INLINE Places places(int32_t first, int32_t step) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i by = _mm512_set1_epi32(step);
  return {_mm512_add_epi32(_mm512_set1_epi32(first), _mm512_mullo_epi32(lanes, by)), _mm512_slli_epi32(by, 4)};
}
HN_TARGET_AVX512 HN_INLINE Places moved(Places p, int32_t by) {
  return {_mm512_add_epi32(p.at, _mm512_set1_epi32(by)), p.step};
}
HN_TARGET_AVX512 HN_INLINE void advance(Places* p) { p->at = _mm512_add_epi32(p->at, p->step); }
HN_TARGET_AVX512 HN_INLINE unsigned positive(V w) { return _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_GT_OQ); }
HN_TARGET_AVX512 HN_INLINE unsigned nonzero(V w) { return _mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_NEQ_UQ); }
HN_TARGET_AVX512 HN_INLINE unsigned magnitude_is(V w, float c) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(w), _mm512_set1_ps(c), _CMP_EQ_OQ);
}
HN_TARGET_AVX512 HN_INLINE int append(unsigned mask, Places p, uint16_t* to) {
  const __m512i at = _mm512_maskz_compress_epi32(__mmask16(mask), p.at);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(at));
  return __builtin_popcount(mask);
}
HN_TARGET_AVX512 HN_INLINE void append_values(unsigned mask, V w, float* to) {
  _mm512_storeu_ps(to, _mm512_maskz_compress_ps(__mmask16(mask), w));
}

}  // namespace lanes_avx512

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

}  // namespace cpu
}  // namespace hn
