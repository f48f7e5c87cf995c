// tile_multiply.h: sums of products of bfloat16 tiles: C (32 x 32, float32) += sum of A (32 x 32) B (32 x 32).
//
// An A tile is [16 rows][32 k]. A B tile is [16 pairs of k][16 columns][2]. Both are 1 KB and lie on a line of memory.
#pragma once
#include <cstdint>
#include <cstring>

#include "../../base/amx.h"
#include "../../base/dtype.h"

namespace hn {
namespace cpu {

constexpr int32_t kTileRows = 16, kTileDepth = 32, kTileElements = kTileRows * kTileDepth;
constexpr int32_t kSumElements = 4 * kTileRows * kTileRows;  // [2 row tiles][2 column tiles][16][16]

// `count` products along k: tiles at a, a + a_step, ... times those at b, b + b_step, ...
struct TileRun {
  const uint16_t *a, *b;
  int32_t count;
};

struct TileProduct {
  int64_t a_step, b_step;      // in elements
  int64_t a_second, b_second;  // from the first tile of rows (of columns) to the second
};

#if defined(HN_AMX)

HN_TARGET_AMX inline void multiply_amx(const TileRun* runs, int32_t n, const TileProduct& p, bool add, float* c) {
  constexpr int kLine = 64;
  if (add) {
    _tile_loadd(0, c, kLine);
    _tile_loadd(1, c + 256, kLine);
    _tile_loadd(2, c + 512, kLine);
    _tile_loadd(3, c + 768, kLine);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int32_t r = 0; r < n; ++r) {
    const uint16_t *a = runs[r].a, *b = runs[r].b;
    for (int32_t k = 0; k < runs[r].count; ++k, a += p.a_step, b += p.b_step) {
      _tile_loadd(6, b, kLine);
      _tile_loadd(4, a, kLine);
      _tile_loadd(7, b + p.b_second, kLine);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(5, a + p.a_second, kLine);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, c, kLine);
  _tile_stored(1, c + 256, kLine);
  _tile_stored(2, c + 512, kLine);
  _tile_stored(3, c + 768, kLine);
}

// Eight rows of A against 32 columns at a time.
HN_TARGET_AVX512_BF16 inline void multiply_avx512(const TileRun* runs, int32_t n, const TileProduct& p, bool add,
                                                  float* c) {
  for (int32_t first = 0; first < 32; first += 8) {
    const int64_t half = first / 16, row = first % 16;
    float* const to = c + half * 512 + row * 16;
    __m512 sum[8][2];
    for (int32_t i = 0; i < 8; ++i) {
      sum[i][0] = add ? _mm512_loadu_ps(to + i * 16) : _mm512_setzero_ps();
      sum[i][1] = add ? _mm512_loadu_ps(to + 256 + i * 16) : _mm512_setzero_ps();
    }
    for (int32_t r = 0; r < n; ++r) {
      const uint16_t *a = runs[r].a + half * p.a_second + row * 32, *b = runs[r].b;
      for (int32_t k = 0; k < runs[r].count; ++k, a += p.a_step, b += p.b_step) {
        for (int32_t j = 0; j < 16; ++j) {
          const __m512bh left = (__m512bh)_mm512_loadu_si512(b + j * 32);
          const __m512bh right = (__m512bh)_mm512_loadu_si512(b + p.b_second + j * 32);
          for (int32_t i = 0; i < 8; ++i) {
            int32_t pair;
            std::memcpy(&pair, a + i * 32 + j * 2, 4);
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

#endif

HN_INLINE void multiply_body(const TileRun* runs, int32_t n, const TileProduct& p, bool add, float* c) {
  if (!add) std::memset(c, 0, kSumElements * sizeof(float));
  for (int32_t r = 0; r < n; ++r) {
    const uint16_t *a = runs[r].a, *b = runs[r].b;
    for (int32_t k = 0; k < runs[r].count; ++k, a += p.a_step, b += p.b_step) {
      for (int32_t row = 0; row < 32; ++row) {
        const uint16_t* const left = a + (row / 16) * p.a_second + row % 16 * 32;
        for (int32_t half = 0; half < 2; ++half) {
          float* const to = c + row / 16 * 512 + half * 256 + row % 16 * 16;
          for (int32_t j = 0; j < 16; ++j) {
            const float even = from_bfloat16(left[2 * j]), odd = from_bfloat16(left[2 * j + 1]);
            const uint16_t* const right = b + half * p.b_second + j * 32;
            for (int32_t i = 0; i < 16; ++i) {
              to[i] += even * from_bfloat16(right[2 * i]) + odd * from_bfloat16(right[2 * i + 1]);
            }
          }
        }
      }
    }
  }
}

HN_DISPATCH(multiply_plain, multiply_body)

// The tile registers must be this thread's where matrix_tiles().
inline void multiply(const TileRun* runs, int32_t n, const TileProduct& p, bool add, float* c) {
#if defined(HN_AMX)
  if (matrix_tiles()) return multiply_amx(runs, n, p, add, c);
  if (bfloat16_products()) return multiply_avx512(runs, n, p, add, c);
#endif
  multiply_plain<const TileRun*, int32_t, const TileProduct&, bool, float*>(runs, n, p, add, c);
}

}  // namespace cpu
}  // namespace hn
