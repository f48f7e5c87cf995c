// tile_kernels.h: products of bfloat16 tiles for convolutions that are only run. Sums of 32 rows (outputs' places) and 32
// columns (output channels) at a time: [2 row tiles][2 column tiles][16][16] floats.
//
// An A tile is 16 rows of 32 k, rows `stride` bytes apart. A B tile is [16 pairs of k][16 columns][2], 1 KB.
#pragma once
#include <cstdint>
#include <cstring>

#include "../../base/amx.h"
#include "epilogue.h"

#if defined(HN_AMX)

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own headers, for AVX-512
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace hiddennet::runtime {

constexpr int32_t kTile = 512, kStrip = 32;  // elements of a tile; columns of a strip

// `count` products along k; the second row tile's sources lie at `second`.
struct TileRun {
  const uint16_t *first, *second, *b;
  int32_t count;
};

struct TileSteps {
  int64_t stride;  // bytes from a row of A to the next one
  int64_t a_step;  // elements from a tile of A to the next one along k; of B it is two tiles
};

// Which weights are kept and which of those are negative: of 16 pairs of k and 16 columns.
struct TileBits {
  uint32_t kept[16], minus[16];
};

HN_TARGET_AVX512 inline void expand_tile(const TileBits& bits, uint16_t* to) {
  const __m512i one = _mm512_set1_epi16(0x3f80), minus_one = _mm512_set1_epi16(short(0xbf80));
  _Pragma("GCC unroll 16") for (int32_t j = 0; j < 16; ++j) {
    const __m512i v = _mm512_maskz_mov_epi16(bits.kept[j], one);
    _mm512_store_si512(to + j * 32, _mm512_mask_mov_epi16(v, bits.minus[j], minus_one));
  }
}

HN_TARGET_AMX inline void clear_amx() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

HN_TARGET_AMX inline void store_amx(float* sums) {
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
}

HN_TARGET_AMX inline void add_amx(const TileRun* runs, int32_t n, const TileSteps& s) {
  for (int32_t r = 0; r < n; ++r) {
    const uint16_t *first = runs[r].first, *second = runs[r].second, *b = runs[r].b;
    for (int32_t k = 0; k < runs[r].count; ++k, first += s.a_step, second += s.a_step, b += 2 * kTile) {
      _tile_loadd(6, b, 64);
      _tile_loadd(4, first, s.stride);
      _tile_loadd(7, b + kTile, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, second, s.stride);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
}

// Of one row tile: the sums of odd k are kept where the second row tile's would be.
HN_TARGET_AMX inline void add_single_amx(const TileRun* runs, int32_t n, const TileSteps& s) {
  for (int32_t r = 0; r < n; ++r) {
    const uint16_t *first = runs[r].first, *b = runs[r].b;
    int32_t k = 0;
    for (; k + 2 <= runs[r].count; k += 2, first += 2 * s.a_step, b += 4 * kTile) {
      _tile_loadd(4, first, s.stride);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, first + s.a_step, s.stride);
      _tile_loadd(6, b + 2 * kTile, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, b + 3 * kTile, 64);
      _tile_dpbf16ps(3, 5, 7);
    }
    if (k < runs[r].count) {
      _tile_loadd(4, first, s.stride);
      _tile_loadd(6, b, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b + kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
  }
}

HN_TARGET_AVX512 inline void join_sums(float* sums) {
  for (int32_t i = 0; i < 512; i += 16) {
    _mm512_storeu_ps(sums + i, _mm512_add_ps(_mm512_loadu_ps(sums + i), _mm512_loadu_ps(sums + 512 + i)));
  }
}

// Eight rows against 32 columns at a time; what is in `sums` stays.
HN_TARGET_AVX512_BF16 inline void add_avx512(const TileRun* runs, int32_t n, const TileSteps& s, int32_t rows,
                                             float* sums) {
  for (int32_t top = 0; top < rows; top += 8) {
    float* const to = sums + top / 16 * 512 + top % 16 * 16;
    __m512 sum[8][2];
    for (int32_t i = 0; i < 8; ++i) {
      sum[i][0] = _mm512_loadu_ps(to + i * 16);
      sum[i][1] = _mm512_loadu_ps(to + 256 + i * 16);
    }
    for (int32_t r = 0; r < n; ++r) {
      const uint16_t* a = (top < 16 ? runs[r].first : runs[r].second) + top % 16 * (s.stride / 2);
      const uint16_t* b = runs[r].b;
      for (int32_t k = 0; k < runs[r].count; ++k, a += s.a_step, b += 2 * kTile) {
        for (int32_t j = 0; j < 16; ++j) {
          const __m512bh left = (__m512bh)_mm512_load_si512(b + j * 32);
          const __m512bh right = (__m512bh)_mm512_load_si512(b + kTile + j * 32);
          _Pragma("GCC unroll 8") for (int32_t i = 0; i < 8; ++i) {
            int32_t pair;
            std::memcpy(&pair, a + i * (s.stride / 2) + j * 2, 4);
            const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
            sum[i][0] = _mm512_dpbf16_ps(sum[i][0], both, left);
            sum[i][1] = _mm512_dpbf16_ps(sum[i][1], both, right);
          }
        }
      }
    }
    for (int32_t i = 0; i < 8; ++i) {
      _mm512_storeu_ps(to + i * 16, sum[i][0]);
      _mm512_storeu_ps(to + 256 + i * 16, sum[i][1]);
    }
  }
}

// Rows of one row tile, on their way out.
struct TileRows {
  uint16_t* y;  // the strip's first column of the first row
  const uint16_t* residual;
  int64_t stride;  // elements from a row to the next one
  int32_t rows;
};

HN_TARGET_AVX512 HN_INLINE __m512 wide_bfloat16(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

HN_TARGET_AVX512 HN_INLINE __m512 activated_wide(const Finish& f, __m512 x) {
  alignas(64) float v[16];
  _mm512_store_ps(v, x);
  for (int32_t i = 0; i < 16; ++i) v[i] = activate(f.activation, v[i], f.low, f.high);
  return _mm512_load_ps(v);
}

template <bool kResidual, bool kClamps>
HN_TARGET_AVX512_BF16 inline void finish_rows(const float* sums, const TileRows& r, const Finish& f, int32_t column,
                                              int32_t columns) {
  const __mmask32 mask = columns >= 32 ? ~0u : (1u << columns) - 1;
  const __mmask16 low = __mmask16(mask), high = __mmask16(mask >> 16);
  const __m512 scale[2] = {_mm512_maskz_loadu_ps(low, f.scale.data() + column),
                           _mm512_maskz_loadu_ps(high, f.scale.data() + column + 16)};
  const __m512 bias[2] = {_mm512_maskz_loadu_ps(low, f.bias.data() + column),
                          _mm512_maskz_loadu_ps(high, f.bias.data() + column + 16)};
  const bool clamp = f.activation == Activation::clamp, relu = f.activation == Activation::relu;
  constexpr float kInfinity = __builtin_inff();
  const __m512 least = _mm512_set1_ps(clamp ? f.low : (relu ? 0.0f : -kInfinity));
  const __m512 most = _mm512_set1_ps(clamp ? f.high : kInfinity);
  for (int32_t i = 0; i < r.rows; ++i) {
    __m512 left = _mm512_fmadd_ps(_mm512_load_ps(sums + i * 16), scale[0], bias[0]);
    __m512 right = _mm512_fmadd_ps(_mm512_load_ps(sums + 256 + i * 16), scale[1], bias[1]);
    if (kResidual) {
      const __m512i both = _mm512_maskz_loadu_epi16(mask, r.residual + i * r.stride);
      left = _mm512_add_ps(left, wide_bfloat16(_mm512_castsi512_si256(both)));
      right = _mm512_add_ps(right, wide_bfloat16(_mm512_extracti64x4_epi64(both, 1)));
    }
    if (kClamps) {  // the second operand is what stays where either is NaN
      left = _mm512_min_ps(most, _mm512_max_ps(least, left));
      right = _mm512_min_ps(most, _mm512_max_ps(least, right));
    } else {
      left = activated_wide(f, left);
      right = activated_wide(f, right);
    }
    _mm512_mask_storeu_epi16(r.y + i * r.stride, mask, (__m512i)_mm512_cvtne2ps_pbh(right, left));
  }
}

inline void finish(const float* sums, const TileRows& r, const Finish& f, int32_t column, int32_t columns) {
  const bool clamps =
      f.activation == Activation::none || f.activation == Activation::relu || f.activation == Activation::clamp;
  if (r.residual != nullptr) {
    return clamps ? finish_rows<true, true>(sums, r, f, column, columns)
                  : finish_rows<true, false>(sums, r, f, column, columns);
  }
  clamps ? finish_rows<false, true>(sums, r, f, column, columns)
         : finish_rows<false, false>(sums, r, f, column, columns);
}

// `pieces` of 32 elements, those of [begin, end) from `from`, zeros elsewhere; pieces `step` elements apart.
HN_TARGET_AVX512 inline void copy_pieces(const uint16_t* from, int32_t begin, int32_t end, int32_t pieces, int64_t step,
                                         uint16_t* to) {
  for (int32_t k = 0; k < pieces; ++k, begin -= 32, end -= 32, from += 32, to += step) {
    const uint32_t above = begin <= 0 ? ~0u : (begin >= 32 ? 0u : ~0u << begin);
    const uint32_t below = end >= 32 ? ~0u : (end <= 0 ? 0u : (1u << end) - 1);
    _mm512_store_si512(to, _mm512_maskz_loadu_epi16(above & below, from));
  }
}

}  // namespace hiddennet::runtime

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
