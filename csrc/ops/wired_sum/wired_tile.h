// wired_tile.h: the innermost loops: the sums of a range of destinations over a few vectors of pixels.
#pragma once
#include <cstdint>

#include "../../base/isa.h"
#include "wired_sum.h"

#if defined(HN_X86)
#define HN_TARGET_FMA __attribute__((target("avx2,fma")))
#endif

namespace hn {
namespace cpu {

struct WiredTile {
  const float* x;  // the tile's first pixel of source 0
  float* y;        // the same of the first destination
  int64_t x_map, y_map;
  const int32_t* starts;  // of the first destination
  int32_t rows;
  int32_t count;  // pixels
  bool accumulate;
};

using WiredFunction = void (*)(const Edges&, const WiredTile&);

constexpr int32_t kScalarPixels = 128;

template <class Source>
inline void wired_rows_scalar(const Edges& g, const WiredTile& t) {
  const Source* const sources = sources_of<Source>(g);
  float sum[kScalarPixels];
  for (int32_t r = 0; r < t.rows; ++r) {
    float* const y = t.y + r * t.y_map;
    for (int32_t i = 0; i < t.count; ++i) sum[i] = t.accumulate ? y[i] : 0.0f;
    for (int32_t e = t.starts[r]; e < t.starts[r + 1]; ++e) {
      const float* const x = t.x + sources[e] * t.x_map;
      const float w = g.values[e];
      for (int32_t i = 0; i < t.count; ++i) sum[i] = __builtin_fmaf(w, x[i], sum[i]);
    }
    for (int32_t i = 0; i < t.count; ++i) y[i] = sum[i];
  }
}

#if defined(HN_X86)

// The next edge's source comes from the second level while this one is added: maps are far apart.
template <int kLines>
HN_INLINE void prefetch_map(const float* x) {
  _Pragma("GCC unroll 16") for (int line = 0; line < kLines; ++line) {
    _mm_prefetch(reinterpret_cast<const char*>(x + 16 * line), _MM_HINT_T0);
  }
}

// kVectors sums of 8 pixels stay in registers over all edges of a destination; the last has 1 to 8.
template <class Source, int kVectors>
HN_TARGET_FMA inline void wired_rows_avx2(const Edges& g, const WiredTile& t) {
  const Source* const sources = sources_of<Source>(g);
  constexpr int kLast = kVectors - 1;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(t.count - 8 * kLast), lane);
  for (int32_t r = 0; r < t.rows; ++r) {
    float* const y = t.y + r * t.y_map;
    __m256 sum[kVectors];
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[v] = _mm256_setzero_ps();
    if (t.accumulate) {
      _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) sum[v] = _mm256_loadu_ps(y + 8 * v);
      sum[kLast] = _mm256_maskload_ps(y + 8 * kLast, mask);
    }
    for (int32_t e = t.starts[r]; e < t.starts[r + 1]; ++e) {
      const float* const x = t.x + sources[e] * t.x_map;
      const __m256 w = _mm256_broadcast_ss(g.values + e);
      prefetch_map<(kVectors + 1) / 2>(t.x + sources[e + 1 < t.starts[r + 1] ? e + 1 : e] * t.x_map);
      _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) {
        sum[v] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x + 8 * v), sum[v]);
      }
      sum[kLast] = _mm256_fmadd_ps(w, _mm256_maskload_ps(x + 8 * kLast, mask), sum[kLast]);
    }
    _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) _mm256_storeu_ps(y + 8 * v, sum[v]);
    _mm256_maskstore_ps(y + 8 * kLast, mask, sum[kLast]);
  }
}

// The same of 16 pixels.
template <class Source, int kVectors>
HN_TARGET_AVX512 inline void wired_rows_avx512(const Edges& g, const WiredTile& t) {
  const Source* const sources = sources_of<Source>(g);
  constexpr int kLast = kVectors - 1;
  const __mmask16 mask = __mmask16((1u << (t.count - 16 * kLast)) - 1u);
  for (int32_t r = 0; r < t.rows; ++r) {
    float* const y = t.y + r * t.y_map;
    __m512 sum[kVectors];
    _Pragma("GCC unroll 16") for (int v = 0; v < kVectors; ++v) sum[v] = _mm512_setzero_ps();
    if (t.accumulate) {
      _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) sum[v] = _mm512_loadu_ps(y + 16 * v);
      sum[kLast] = _mm512_maskz_loadu_ps(mask, y + 16 * kLast);
    }
    for (int32_t e = t.starts[r]; e < t.starts[r + 1]; ++e) {
      const float* const x = t.x + sources[e] * t.x_map;
      const __m512 w = _mm512_set1_ps(g.values[e]);
      prefetch_map<kVectors>(t.x + sources[e + 1 < t.starts[r + 1] ? e + 1 : e] * t.x_map);
      _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) {
        sum[v] = _mm512_fmadd_ps(w, _mm512_loadu_ps(x + 16 * v), sum[v]);
      }
      sum[kLast] = _mm512_fmadd_ps(w, _mm512_maskz_loadu_ps(mask, x + 16 * kLast), sum[kLast]);
    }
    _Pragma("GCC unroll 16") for (int v = 0; v < kLast; ++v) _mm512_storeu_ps(y + 16 * v, sum[v]);
    _mm512_mask_storeu_ps(y + 16 * kLast, mask, sum[kLast]);
  }
}

constexpr int kAvx2Vectors = 13, kAvx512Vectors = 16;

template <class Source>
constexpr WiredFunction kRowsAvx2[kAvx2Vectors] = {
    &wired_rows_avx2<Source, 1>,  &wired_rows_avx2<Source, 2>,  &wired_rows_avx2<Source, 3>,
    &wired_rows_avx2<Source, 4>,  &wired_rows_avx2<Source, 5>,  &wired_rows_avx2<Source, 6>,
    &wired_rows_avx2<Source, 7>,  &wired_rows_avx2<Source, 8>,  &wired_rows_avx2<Source, 9>,
    &wired_rows_avx2<Source, 10>, &wired_rows_avx2<Source, 11>, &wired_rows_avx2<Source, 12>,
    &wired_rows_avx2<Source, 13>};
template <class Source>
constexpr WiredFunction kRowsAvx512[kAvx512Vectors] = {
    &wired_rows_avx512<Source, 1>,  &wired_rows_avx512<Source, 2>,  &wired_rows_avx512<Source, 3>,
    &wired_rows_avx512<Source, 4>,  &wired_rows_avx512<Source, 5>,  &wired_rows_avx512<Source, 6>,
    &wired_rows_avx512<Source, 7>,  &wired_rows_avx512<Source, 8>,  &wired_rows_avx512<Source, 9>,
    &wired_rows_avx512<Source, 10>, &wired_rows_avx512<Source, 11>, &wired_rows_avx512<Source, 12>,
    &wired_rows_avx512<Source, 13>, &wired_rows_avx512<Source, 14>, &wired_rows_avx512<Source, 15>,
    &wired_rows_avx512<Source, 16>};

#endif  // HN_X86

// What this machine's loops take at once.
struct WiredMachine {
  int32_t lanes, vectors;  // of a tile, at most

  int32_t most() const { return lanes * vectors; }
  int32_t vectors_of(int32_t pixels) const { return (pixels + lanes - 1) / lanes; }

  WiredFunction function(const Edges& g, int32_t pixels) const {
    return g.sources == nullptr ? function<uint16_t>(pixels) : function<int32_t>(pixels);
  }

 private:
  template <class Source>
  WiredFunction function(int32_t pixels) const {
#if defined(HN_X86)
    if (lanes == 16) return kRowsAvx512<Source>[vectors_of(pixels) - 1];
    if (lanes == 8) return kRowsAvx2<Source>[vectors_of(pixels) - 1];
#endif
    return &wired_rows_scalar<Source>;
  }
};

inline WiredMachine wired_machine() {
#if defined(HN_X86)
  static const bool fma = __builtin_cpu_supports("fma");
  if (isa() == Isa::kAvx2 && wide()) return {16, kAvx512Vectors};
  if (isa() == Isa::kAvx2 && fma) return {8, kAvx2Vectors};
#endif
  return {1, kScalarPixels};
}

}  // namespace cpu
}  // namespace hn
