// filter_rows.h: the innermost loops of the nodes' filter: a rectified row, a row of sums of nine.
#pragma once
#include <algorithm>
#include <cstdint>

#include "../../base/isa.h"

#if defined(HN_X86)
#define HN_TARGET_FMA __attribute__((target("avx2,fma")))
#endif

namespace hn {
namespace cpu {

constexpr int32_t kRowLanes = 16;  // rows in scratch have room for whole vectors

// Where the nine terms of a row of outputs begin, in rows in scratch.
struct NineRows {
  const float* from[9];
};

// out[0..n) = ReLU(scale x + shift). Lanes behind n, to a whole vector, become 0.
inline void rectify_scalar(const float* x, float scale, float shift, int32_t n, float* out) {
  for (int32_t i = 0; i < n; ++i) {
    const float r = __builtin_fmaf(scale, x[i], shift);
    out[i] = r < 0.0f ? 0.0f : r;
  }
}

inline void sum_row_scalar(const NineRows& rows, const float* taps, int32_t n, float* y) {
  for (int32_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int k = 0; k < 9; ++k) sum = __builtin_fmaf(taps[k], rows.from[k][i], sum);
    y[i] = sum;
  }
}

// out[i] = row[first + stride i], for i in [0, n).
HN_INLINE void every(const float* row, int32_t first, int32_t stride, int32_t n, float* out) {
  if (stride == 2) {
    for (int32_t i = 0; i < n; ++i) out[i] = row[first + 2 * i];
  } else {
    for (int32_t i = 0; i < n; ++i) out[i] = row[first + int64_t(stride) * i];
  }
}

inline void every_scalar(const float* row, int32_t first, int32_t stride, int32_t n, float* out) {
  every(row, first, stride, n, out);
}

#if defined(HN_X86)

HN_TARGET_FMA inline void rectify_avx2(const float* x, float scale, float shift, int32_t n, float* out) {
  const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(shift), zero = _mm256_setzero_ps();
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int32_t i = 0; i < n; i += 8) {
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n - i), lane);
    const __m256 r = _mm256_max_ps(zero, _mm256_fmadd_ps(a, _mm256_maskload_ps(x + i, mask), b));
    _mm256_storeu_ps(out + i, _mm256_and_ps(r, _mm256_castsi256_ps(mask)));
  }
}

HN_TARGET_FMA inline void sum_row_avx2(const NineRows& rows, const float* taps, int32_t n, float* y) {
  __m256 t[9];
  _Pragma("GCC unroll 9") for (int k = 0; k < 9; ++k) t[k] = _mm256_broadcast_ss(taps + k);
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  for (int32_t i = 0; i < n; i += 8) {
    __m256 sum = _mm256_setzero_ps();
    _Pragma("GCC unroll 9") for (int k = 0; k < 9; ++k) {
      sum = _mm256_fmadd_ps(t[k], _mm256_loadu_ps(rows.from[k] + i), sum);
    }
    _mm256_maskstore_ps(y + i, _mm256_cmpgt_epi32(_mm256_set1_epi32(n - i), lane), sum);
  }
}

HN_TARGET_FMA inline void every_avx2(const float* row, int32_t first, int32_t stride, int32_t n, float* out) {
  every(row, first, stride, n, out);
}

HN_TARGET_AVX512 inline __mmask16 lanes_of(int32_t n) { return __mmask16(n >= 16 ? 0xffffu : (1u << n) - 1u); }

HN_TARGET_AVX512 inline void rectify_avx512(const float* x, float scale, float shift, int32_t n, float* out) {
  const __m512 a = _mm512_set1_ps(scale), b = _mm512_set1_ps(shift), zero = _mm512_setzero_ps();
  for (int32_t i = 0; i < n; i += 16) {
    const __mmask16 mask = lanes_of(n - i);
    const __m512 r = _mm512_fmadd_ps(a, _mm512_maskz_loadu_ps(mask, x + i), b);
    _mm512_storeu_ps(out + i, _mm512_maskz_max_ps(mask, zero, r));
  }
}

HN_TARGET_AVX512 inline void sum_row_avx512(const NineRows& rows, const float* taps, int32_t n, float* y) {
  __m512 t[9];
  _Pragma("GCC unroll 9") for (int k = 0; k < 9; ++k) t[k] = _mm512_set1_ps(taps[k]);
  for (int32_t i = 0; i < n; i += 16) {
    __m512 sum = _mm512_setzero_ps();
    _Pragma("GCC unroll 9") for (int k = 0; k < 9; ++k) {
      sum = _mm512_fmadd_ps(t[k], _mm512_loadu_ps(rows.from[k] + i), sum);
    }
    _mm512_mask_storeu_ps(y + i, lanes_of(n - i), sum);
  }
}

// Reads whole vectors: up to 33 floats behind the last one that is taken.
HN_TARGET_AVX512 inline void every_avx512(const float* row, int32_t first, int32_t stride, int32_t n, float* out) {
  if (stride != 2) return every(row, first, stride, n, out);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  for (int32_t i = 0; i < n; i += 16) {
    const float* const from = row + first + 2 * i;
    _mm512_storeu_ps(out + i, _mm512_permutex2var_ps(_mm512_loadu_ps(from), even, _mm512_loadu_ps(from + 16)));
  }
}

#endif  // HN_X86

// This machine's loops.
struct RowLoops {
  void (*rectify)(const float*, float, float, int32_t, float*) = &rectify_scalar;
  void (*sum_row)(const NineRows&, const float*, int32_t, float*) = &sum_row_scalar;
  void (*every)(const float*, int32_t, int32_t, int32_t, float*) = &every_scalar;
};

inline RowLoops row_loops() {
#if defined(HN_X86)
  static const bool fma = __builtin_cpu_supports("fma");
  if (isa() == Isa::kAvx2 && wide()) return {&rectify_avx512, &sum_row_avx512, &every_avx512};
  if (isa() == Isa::kAvx2 && fma) return {&rectify_avx2, &sum_row_avx2, &every_avx2};
#endif
  return {};
}

}  // namespace cpu
}  // namespace hn
