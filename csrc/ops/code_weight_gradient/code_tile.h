// code_tile.h: the innermost loops: a tile of sums, kTileRows output channels by up to three vectors of 16 input columns.
//
// Operands are packed as pairs of pixels (code_pack.h): gradient [pair][kTileRows][2], input [pair][16][2], int16. A
// pair's two products are added in int32 by one instruction; after `limit` pairs, before an int32 can overflow, the
// registers are added to the int64 sums.
#pragma once
#include <cstdint>
#include <cstring>

#include "../../base/isa.h"
#include "code_weight_gradient.h"

namespace hn {
namespace cpu {

constexpr int kTileRows = 8, kLanes = 16, kTileVectors = 3;
constexpr int kTileSums = kTileRows * kTileVectors * kLanes;

struct TileArgs {
  const int16_t* gradient;             // [segments][pairs][kTileRows][2]
  const int16_t* input[kTileVectors];  // [segments][pairs][kLanes][2], segments `input_stride` elements apart
  int64_t segments, pairs, input_stride;
  int64_t limit;  // pairs an int32 holds
  int32_t shift;  // the sums are worth 2^shift
};

// Calls step(gradient, offset, n) for runs of n pairs, `offset` elements into each input, and spill() before an int32 can
// overflow and at the end.
#define HN_FOR_RUNS(t, STEP, SPILL)                                                          \
  do {                                                                                       \
    int64_t room = (t).limit;                                                                \
    const int16_t* gradient = (t).gradient;                                                  \
    for (int64_t segment = 0; segment < (t).segments; ++segment) {                           \
      int64_t offset = segment * (t).input_stride;                                           \
      for (int64_t left = (t).pairs; left > 0;) {                                            \
        const int64_t run = left < room ? left : room;                                       \
        for (int64_t k = 0; k < run; ++k, gradient += 2 * kTileRows, offset += 2 * kLanes) { \
          STEP                                                                               \
        }                                                                                    \
        left -= run;                                                                         \
        room -= run;                                                                         \
        if (room == 0) {                                                                     \
          SPILL room = (t).limit;                                                            \
        }                                                                                    \
      }                                                                                      \
    }                                                                                        \
    if (room < (t).limit) {                                                                  \
      SPILL                                                                                  \
    }                                                                                        \
  } while (false)

// sum: [kTileRows][kTileVectors][kLanes], added to.
template <int kVectors>
inline void tile_scalar(const TileArgs& t, int64_t* sum) {
  int32_t acc[kTileRows][kVectors][kLanes] = {};
  const auto step = [&](const int16_t* gradient, int64_t offset) {
    for (int r = 0; r < kTileRows; ++r) {
      const int32_t g0 = gradient[2 * r], g1 = gradient[2 * r + 1];
      for (int v = 0; v < kVectors; ++v) {
        const int16_t* x = t.input[v] + offset;
        for (int c = 0; c < kLanes; ++c) acc[r][v][c] += g0 * x[2 * c] + g1 * x[2 * c + 1];
      }
    }
  };
  const auto spill = [&] {
    for (int r = 0; r < kTileRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        for (int c = 0; c < kLanes; ++c) {
          sum[(r * kTileVectors + v) * kLanes + c] += int64_t(acc[r][v][c]) * (int64_t(1) << t.shift);
          acc[r][v][c] = 0;
        }
      }
    }
  };
  HN_FOR_RUNS(t, step(gradient, offset);, spill(););
}

#if defined(HN_X86)

inline int32_t pair_at(const int16_t* p) {
  int32_t both;
  std::memcpy(&both, p, sizeof both);
  return both;
}

// Four rows by one vector at a time: eight registers of sums.
template <int kVectors>
HN_TARGET_AVX2 inline void tile_avx2(const TileArgs& t, int64_t* sum) {
  const __m128i shift = _mm_cvtsi32_si128(t.shift);
  for (int v = 0; v < kVectors; ++v) {
    for (int row = 0; row < kTileRows; row += 4) {
      __m256i acc[4][2];
      for (auto& a : acc) a[0] = a[1] = _mm256_setzero_si256();
      HN_FOR_RUNS(
          t, const __m256i x0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.input[v] + offset));
          const __m256i x1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(t.input[v] + offset + 16));
          _Pragma("GCC unroll 4") for (int r = 0; r < 4; ++r) {
            const __m256i g = _mm256_set1_epi32(pair_at(gradient + 2 * (row + r)));
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(g, x0));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(g, x1));
          },
          for (int r = 0; r < 4; ++r) {
            for (int half = 0; half < 2; ++half) {
              __m256i* const to = reinterpret_cast<__m256i*>(sum + ((row + r) * kTileVectors + v) * kLanes + 8 * half);
              const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(acc[r][half]));
              const __m256i high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(acc[r][half], 1));
              _mm256_storeu_si256(to, _mm256_add_epi64(_mm256_loadu_si256(to), _mm256_sll_epi64(low, shift)));
              _mm256_storeu_si256(to + 1, _mm256_add_epi64(_mm256_loadu_si256(to + 1), _mm256_sll_epi64(high, shift)));
              acc[r][half] = _mm256_setzero_si256();
            }
          });
    }
  }
}

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

#define HN_TILE_512(name, target, DOT)                                                                                \
  template <int kVectors>                                                                                             \
  target inline void name(const TileArgs& t, int64_t* sum) {                                                          \
    __m512i acc[kTileRows][kVectors];                                                                                 \
    for (auto& row : acc) {                                                                                           \
      for (auto& a : row) a = _mm512_setzero_si512();                                                                 \
    }                                                                                                                 \
    const __m128i shift = _mm_cvtsi32_si128(t.shift);                                                                 \
    HN_FOR_RUNS(                                                                                                      \
        t, __m512i x[kVectors];                                                                                       \
        _Pragma("GCC unroll 3") for (int v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_si512(t.input[v] + offset);    \
        _Pragma("GCC unroll 8") for (int r = 0; r < kTileRows; ++r) {                                                 \
          const __m512i g = _mm512_set1_epi32(pair_at(gradient + 2 * r));                                             \
          _Pragma("GCC unroll 3") for (int v = 0; v < kVectors; ++v) acc[r][v] = DOT(acc[r][v], g, x[v]);             \
        },                                                                                                            \
        _Pragma("GCC unroll 8") for (int r = 0; r < kTileRows; ++r) {                                                 \
          _Pragma("GCC unroll 3") for (int v = 0; v < kVectors; ++v) {                                                \
            int64_t* const to = sum + (r * kTileVectors + v) * kLanes;                                                \
            const __m512i low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(acc[r][v]));                             \
            const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(acc[r][v], 1));                      \
            _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), _mm512_sll_epi64(low, shift)));          \
            _mm512_storeu_si512(to + 8, _mm512_add_epi64(_mm512_loadu_si512(to + 8), _mm512_sll_epi64(high, shift))); \
            acc[r][v] = _mm512_setzero_si512();                                                                       \
          }                                                                                                           \
        });                                                                                                           \
  }

#define HN_DOT_AVX512(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#define HN_DOT_VNNI(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
HN_TILE_512(tile_avx512, HN_TARGET_AVX512, HN_DOT_AVX512)
HN_TILE_512(tile_vnni, HN_TARGET_VNNI, HN_DOT_VNNI)
#undef HN_TILE_512

HN_TARGET_AVX512 inline void scale_vector_avx512(const int64_t* sums, double scale, int32_t count, float* to,
                                                 uint32_t* largest) {
  const __m512d factor = _mm512_set1_pd(scale);
  const __m256 low = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtepi64_pd(_mm512_loadu_si512(sums)), factor));
  const __m256 high = _mm512_cvtpd_ps(_mm512_mul_pd(_mm512_cvtepi64_pd(_mm512_loadu_si512(sums + 8)), factor));
  const __m512 values = _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
  const __mmask16 mask = __mmask16((1u << count) - 1u);
  const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(0x7fffffff));
  const __m512i most = _mm512_loadu_si512(largest);
  _mm512_storeu_si512(largest, _mm512_mask_max_epu32(most, mask, most, magnitude));
  _mm512_mask_storeu_ps(to, mask, values);
}

#undef HN_DOT_AVX512
#undef HN_DOT_VNNI

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif  // HN_X86
#undef HN_FOR_RUNS

using TileFunction = void (*)(const TileArgs&, int64_t*);

template <int kVectors>
inline TileFunction tile_function() {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return dot_products() ? &tile_vnni<kVectors> : &tile_avx512<kVectors>;
  if (isa() == Isa::kAvx2) return &tile_avx2<kVectors>;
#endif
  return &tile_scalar<kVectors>;
}

inline TileFunction tile_function(int32_t vectors) {
  return vectors == 1 ? tile_function<1>() : (vectors == 2 ? tile_function<2>() : tile_function<3>());
}

HN_INLINE void scale_vector_body(const int64_t* sums, double scale, int32_t count, float* to, uint32_t* largest) {
  for (int32_t c = 0; c < count; ++c) {
    to[c] = scaled_sum(sums[c], scale);
    largest[c] = largest[c] > magnitude_bits(to[c]) ? largest[c] : magnitude_bits(to[c]);
  }
}

HN_DISPATCH(scale_vector_narrow, scale_vector_body)

// The first `count` of kLanes sums as gradients; largest: [kLanes] magnitudes so far.
inline void scale_vector(const int64_t* sums, double scale, int32_t count, float* to, uint32_t* largest) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return scale_vector_avx512(sums, scale, count, to, largest);
#endif
  scale_vector_narrow(sums, scale, count, to, largest);
}

}  // namespace cpu
}  // namespace hn
