// magnitude_tile.h: the innermost loops: masked magnitudes made of weights and bits, and a tile of sums of products.
//
// A tile is kTileRows rows by a panel of 128 bytes of columns: 16 doubles or 32 floats. A product is added
// with one rounding, on every instruction set, in the order of the steps: the width of the vectors changes no bit.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#include "../../base/isa.h"
#include "magnitude_conv.h"

namespace hn {
namespace cpu {

constexpr int kTileRows = 8;

template <class T>
constexpr int kPanel = 128 / int(sizeof(T));

template <class T>
struct TileArgs {
  const T* rows;  // of row r and step s at [r * row_stride + s * step_stride]
  int64_t row_stride, step_stride;
  const T* columns;  // [steps][kPanel]
  int64_t steps;
  int32_t used;  // columns that are wanted
  T* sums;       // [kTileRows][kPanel], added to
};

#if defined(HN_X86)
HN_TARGET_AVX512 HN_INLINE __m512d add_product(double a, __m512d b, __m512d sum) {
  return _mm512_fmadd_pd(_mm512_set1_pd(a), b, sum);
}
HN_TARGET_AVX512 HN_INLINE __m512 add_product(float a, __m512 b, __m512 sum) {
  return _mm512_fmadd_ps(_mm512_set1_ps(a), b, sum);
}
HN_TARGET_FMA HN_INLINE __m256d add_product(double a, __m256d b, __m256d sum) {
  return _mm256_fmadd_pd(_mm256_set1_pd(a), b, sum);
}
HN_TARGET_FMA HN_INLINE __m256 add_product(float a, __m256 b, __m256 sum) {
  return _mm256_fmadd_ps(_mm256_set1_ps(a), b, sum);
}

template <class T, int kBytes>
struct VectorOf;
template <>
struct VectorOf<double, 64> {
  using type = __m512d;
};
template <>
struct VectorOf<float, 64> {
  using type = __m512;
};
template <>
struct VectorOf<double, 32> {
  using type = __m256d;
};
template <>
struct VectorOf<float, 32> {
  using type = __m256;
};

// A part of a tile in kRows * kVectors registers of sums; and the tile.
#define HN_TILE(name, target, kBytes, kRows)                                                                       \
  template <class T, int kVectors>                                                                                 \
  target inline void name##_part(const TileArgs<T>& t, int row, int column) {                                      \
    constexpr int kLanes = kBytes / int(sizeof(T));                                                                \
    typename VectorOf<T, kBytes>::type sums[kRows][kVectors], x[kVectors];                                         \
    const auto at = [&](int r, int v) { return t.sums + (row + r) * kPanel<T> + column + v * kLanes; };            \
    _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {                                                      \
      _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) std::memcpy(&sums[r][v], at(r, v), kBytes);       \
    }                                                                                                              \
    const T* rows = t.rows + row * t.row_stride;                                                                   \
    const T* columns = t.columns + column;                                                                         \
    for (int64_t s = 0; s < t.steps; ++s, rows += t.step_stride, columns += kPanel<T>) {                           \
      _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) std::memcpy(&x[v], columns + v * kLanes, kBytes); \
      _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {                                                    \
        const T factor = rows[r * t.row_stride];                                                                   \
        _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) {                                               \
          sums[r][v] = add_product(factor, x[v], sums[r][v]);                                                      \
        }                                                                                                          \
      }                                                                                                            \
    }                                                                                                              \
    _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {                                                      \
      _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) std::memcpy(at(r, v), &sums[r][v], kBytes);       \
    }                                                                                                              \
  }                                                                                                                \
  template <class T>                                                                                               \
  target inline void name(const TileArgs<T>& t) {                                                                  \
    constexpr int kLanes = kBytes / int(sizeof(T));                                                                \
    for (int column = 0; column < t.used; column += 2 * kLanes) {                                                  \
      for (int row = 0; row < kTileRows; row += kRows) {                                                           \
        t.used - column > kLanes ? name##_part<T, 2>(t, row, column) : name##_part<T, 1>(t, row, column);          \
      }                                                                                                            \
    }                                                                                                              \
  }

HN_TILE(tile_avx512, HN_TARGET_AVX512, 64, 8)
HN_TILE(tile_avx2, HN_TARGET_FMA, 32, 4)
#undef HN_TILE
#endif

template <class T>
inline void tile_scalar(const TileArgs<T>& t) {
  for (int r = 0; r < kTileRows; ++r) {
    for (int64_t s = 0; s < t.steps; ++s) {
      const T factor = t.rows[r * t.row_stride + s * t.step_stride];
      for (int32_t c = 0; c < t.used; ++c) {
        T& sum = t.sums[r * kPanel<T> + c];
        sum = std::fma(factor, t.columns[s * kPanel<T> + c], sum);
      }
    }
  }
}

template <class T>
inline void tile(const TileArgs<T>& t) {
#if defined(HN_X86)
  static const bool fused = __builtin_cpu_supports("fma");
  if (isa() == Isa::kAvx2 && wide()) return tile_avx512(t);
  if (isa() == Isa::kAvx2 && fused) return tile_avx2(t);
#endif
  tile_scalar(t);
}

// The eight bits from `at` on; of them those of `n` entries are looked at.
HN_INLINE int32_t eight_bits(const uint8_t* bits, int64_t at, int64_t n) {
  const int shift = int(at & 7);
  const uint8_t* from = bits + (at >> 3);
  const int32_t low = from[0] >> shift;
  return (shift + (n < 8 ? n : 8) > 8 ? low | from[1] << (8 - shift) : low) & 0xff;
}

typedef int32_t Int8 __attribute__((vector_size(32)));
typedef float Float8 __attribute__((vector_size(32)));
typedef double Double8 __attribute__((vector_size(64)));

// m of eight weights, or of the first n of them and zeros.
HN_INLINE void eight_magnitudes(const MagnitudeWeight& w, int64_t at, int64_t n, Float8* to) {
  const Int8 lanes = {1, 2, 4, 8, 16, 32, 64, 128};
  Int8 words = {};
  if (n < 8) {
    std::memcpy(&words, w.values + at, size_t(n) * sizeof(float));
  } else {
    std::memcpy(&words, w.values + at, sizeof words);
  }
  words &= ((eight_bits(w.bits, at, n) & lanes) != 0) & 0x7fffffff;
  std::memcpy(to, &words, sizeof words);
}

// m of the n weights from `at` on, as doubles; zeros up to a multiple of eight.
HN_INLINE void widen_body(const MagnitudeWeight& w, int64_t at, int64_t n, double* to) {
  for (int64_t i = 0; i < n; i += 8) {
    Float8 magnitudes;
    eight_magnitudes(w, at + i, n - i, &magnitudes);
    const Double8 wide = __builtin_convertvector(magnitudes, Double8);
    std::memcpy(to + i, &wide, sizeof wide);
  }
}

// scores[at...] (+)= m * slopes, n of them; slopes are there up to a multiple of eight.
HN_INLINE void score_body(const MagnitudeWeight& w, int64_t at, int64_t n, const float* slopes, bool accumulate,
                          float* scores) {
  for (int64_t i = 0; i < n; i += 8) {
    Float8 score, slope, before = {};
    eight_magnitudes(w, at + i, n - i, &score);
    std::memcpy(&slope, slopes + i, sizeof slope);
    score *= slope;
    const size_t bytes = (n - i >= 8 ? 8 : size_t(n - i)) * sizeof(float);
    if (accumulate) {
      std::memcpy(&before, scores + at + i, bytes);
      score += before;
    }
    std::memcpy(scores + at + i, &score, bytes);
  }
}

HN_DISPATCH(widen_narrow, widen_body)
HN_DISPATCH(score_narrow, score_body)

#if defined(HN_X86)
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

HN_TARGET_AVX512 HN_INLINE __m512 sixteen_magnitudes(const MagnitudeWeight& w, int64_t at) {
  const __mmask16 mask = __mmask16(eight_bits(w.bits, at, 8) | eight_bits(w.bits, at + 8, 8) << 8);
  return _mm512_castsi512_ps(
      _mm512_maskz_and_epi32(mask, _mm512_loadu_si512(w.values + at), _mm512_set1_epi32(0x7fffffff)));
}

// ahead: how far on the memory lies that is wanted soon.
HN_TARGET_AVX512 inline void widen_avx512(const MagnitudeWeight& w, int64_t at, int64_t n, int64_t ahead, double* to) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    _mm_prefetch(reinterpret_cast<const char*>(w.values + at + i + ahead), _MM_HINT_T1);
    const __m512 magnitudes = sixteen_magnitudes(w, at + i);
    _mm512_storeu_pd(to + i, _mm512_cvtps_pd(_mm512_castps512_ps256(magnitudes)));
    _mm512_storeu_pd(to + i + 8, _mm512_cvtps_pd(_mm512_extractf32x8_ps(magnitudes, 1)));
  }
  widen_body(w, at + i, n - i, to + i);
}

// Whole cache lines go past the caches: nobody reads them soon.
HN_TARGET_AVX512 inline void score_avx512(const MagnitudeWeight& w, int64_t at, int64_t n, const float* slopes,
                                          bool accumulate, float* scores) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    float* const to = scores + at + i;
    __m512 score = _mm512_mul_ps(sixteen_magnitudes(w, at + i), _mm512_loadu_ps(slopes + i));
    if (accumulate) score = _mm512_add_ps(score, _mm512_loadu_ps(to));
    reinterpret_cast<uintptr_t>(to) % 64 == 0 ? _mm512_stream_ps(to, score) : _mm512_storeu_ps(to, score);
  }
  score_body(w, at + i, n - i, slopes + i, accumulate, scores);
}

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

inline void widen(const MagnitudeWeight& w, int64_t at, int64_t n, [[maybe_unused]] int64_t ahead, double* to) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return widen_avx512(w, at, n, ahead, to);
#endif
  widen_narrow(w, at, n, to);
}

inline void score(const MagnitudeWeight& w, int64_t at, int64_t n, const float* slopes, bool accumulate,
                  float* scores) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return score_avx512(w, at, n, slopes, accumulate, scores);
#endif
  score_narrow(w, at, n, slopes, accumulate, scores);
}

}  // namespace cpu
}  // namespace hn
