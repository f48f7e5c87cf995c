// magnitude_tile.h: the innermost loops: masked magnitudes made of weights and bits, and a tile of sums of products.
//
// A tile is kTileRows rows by a panel of 128 bytes of columns: 16 doubles or 32 floats. Vectors are the compiler's, of
// 64, 32 or 16 bytes; a product is rounded before it is added, so the width changes no bit.
#pragma once
#include <cstdint>
#include <cstring>

#include "../../base/isa.h"

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

template <class T, int kBytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(kBytes)));
};

template <class T, int kBytes, int kRows, int kVectors>
HN_INLINE void tile_part(const TileArgs<T>& t, int row, int column) {
  using Vector = typename VectorOf<T, kBytes>::type;
  constexpr int kLanes = kBytes / int(sizeof(T));
  Vector sums[kRows][kVectors];
  _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) {
      std::memcpy(&sums[r][v], t.sums + (row + r) * kPanel<T> + column + v * kLanes, kBytes);
    }
  }
  const T* rows = t.rows + row * t.row_stride;
  const T* columns = t.columns + column;
  for (int64_t s = 0; s < t.steps; ++s, rows += t.step_stride, columns += kPanel<T>) {
    Vector x[kVectors];
    _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) std::memcpy(&x[v], columns + v * kLanes, kBytes);
    _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {
      const T factor = rows[r * t.row_stride];
      _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) sums[r][v] += factor * x[v];
    }
  }
  _Pragma("GCC unroll 8") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 2") for (int v = 0; v < kVectors; ++v) {
      std::memcpy(t.sums + (row + r) * kPanel<T> + column + v * kLanes, &sums[r][v], kBytes);
    }
  }
}

template <class T, int kBytes, int kRows>
HN_INLINE void tile_body(const TileArgs<T>& t) {
  constexpr int kLanes = kBytes / int(sizeof(T));
  for (int column = 0; column < t.used; column += 2 * kLanes) {
    for (int row = 0; row < kTileRows; row += kRows) {
      if (t.used - column > kLanes) {
        tile_part<T, kBytes, kRows, 2>(t, row, column);
      } else {
        tile_part<T, kBytes, kRows, 1>(t, row, column);
      }
    }
  }
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
HN_INLINE void eight_magnitudes(const float* values, const uint8_t* bits, int64_t at, int64_t n, Float8* to) {
  const Int8 lanes = {1, 2, 4, 8, 16, 32, 64, 128};
  Int8 words = {};
  std::memcpy(&words, values + at, n < 8 ? size_t(n) * sizeof(float) : sizeof words);
  words &= ((eight_bits(bits, at, n) & lanes) != 0) & 0x7fffffff;
  std::memcpy(to, &words, sizeof words);
}

// m of the n weights from `at` on, as doubles; zeros up to a multiple of eight.
HN_INLINE void widen_body(const float* values, const uint8_t* bits, int64_t at, int64_t n, double* to) {
  for (int64_t i = 0; i < n; i += 8) {
    Float8 magnitudes;
    if (n - i >= 8) {
      eight_magnitudes(values, bits, at + i, 8, &magnitudes);
    } else {
      eight_magnitudes(values, bits, at + i, n - i, &magnitudes);
    }
    const Double8 wide = __builtin_convertvector(magnitudes, Double8);
    std::memcpy(to + i, &wide, sizeof wide);
  }
}

// scores[at...] (+)= m * slopes, n of them.
HN_INLINE void score_body(const float* values, const uint8_t* bits, int64_t at, int64_t n, const float* slopes,
                          bool accumulate, float* scores) {
  for (int64_t i = 0; i < n; i += 8) {
    Float8 score, slope;
    if (n - i >= 8) {
      eight_magnitudes(values, bits, at + i, 8, &score);
    } else {
      eight_magnitudes(values, bits, at + i, n - i, &score);
    }
    std::memcpy(&slope, slopes + i, sizeof slope);
    score *= slope;
    const size_t bytes = (n - i >= 8 ? 8 : size_t(n - i)) * sizeof(float);
    if (accumulate) {
      Float8 before = {};
      std::memcpy(&before, scores + at + i, bytes);
      score += before;
    }
    if (n - i >= 8) {
      std::memcpy(scores + at + i, &score, sizeof score);
    } else {
      std::memcpy(scores + at + i, &score, bytes);
    }
  }
}

HN_DISPATCH(widen, widen_body)
HN_DISPATCH(score, score_body)

#if defined(HN_X86)
template <class T>
HN_TARGET_AVX512 inline void tile_avx512(const TileArgs<T>& t) {
  tile_body<T, 64, 8>(t);
}

template <class T>
HN_TARGET_AVX2 inline void tile_avx2(const TileArgs<T>& t) {
  tile_body<T, 32, 4>(t);
}
#endif

template <class T>
inline void tile(const TileArgs<T>& t) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return wide() ? tile_avx512(t) : tile_avx2(t);
#endif
  tile_body<T, 16, 4>(t);
}

}  // namespace cpu
}  // namespace hn
