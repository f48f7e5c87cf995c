// tile_pack.h: from rows of channels in memory to tiles, and back. Rows and channels that are not there are zeros.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../../base/float_lanes.h"
#include "tile_multiply.h"

namespace hn {
namespace cpu {

// Up to `rows` rows of `channels` elements, `stride` apart.
struct Rows {
  const uint16_t* first;
  int64_t stride;
  int32_t rows, channels;
};

// An A tile: 16 rows of 32 channels as they are.
inline void pack_rows(const Rows& r, uint16_t* out) {
  for (int32_t i = 0; i < 16; ++i, out += 32) {
    if (i < r.rows && r.channels >= 32) {
      std::memcpy(out, r.first + i * r.stride, 64);
    } else {
      const int32_t n = i < r.rows ? r.channels : 0;
      std::memcpy(out, r.first + (n > 0 ? i * r.stride : 0), size_t(n) * 2);
      std::memset(out + n, 0, size_t(32 - n) * 2);
    }
  }
}

// Two B tiles of 32 rows: pairs of rows are the pairs of k, 32 channels the columns of both tiles.
HN_INLINE void pack_pairs_body(const Rows& r, uint16_t* left, uint16_t* right) {
  for (int32_t j = 0; j < 16; ++j) {
    for (int32_t c = 0; c < 32; ++c) {
      uint16_t* const to = (c < 16 ? left : right) + j * 32 + c % 16 * 2;
      to[0] = 2 * j < r.rows && c < r.channels ? r.first[2 * j * r.stride + c] : uint16_t(0);
      to[1] = 2 * j + 1 < r.rows && c < r.channels ? r.first[(2 * j + 1) * r.stride + c] : uint16_t(0);
    }
  }
}

// Two A tiles of up to 32 rows: channels are the rows of the tiles (16 each), rows are k.
HN_INLINE void pack_turned_body(const Rows& r, uint16_t* first, uint16_t* second) {
  for (int32_t c = 0; c < 32; ++c) {
    uint16_t* const to = (c < 16 ? first : second) + c % 16 * 32;
    for (int32_t i = 0; i < 32; ++i) to[i] = i < r.rows && c < r.channels ? r.first[i * r.stride + c] : uint16_t(0);
  }
}

// A B tile of 16 rows: rows are the columns of the tile, pairs of 32 channels the pairs of k.
HN_INLINE void pack_columns_body(const Rows& r, uint16_t* out) {
  for (int32_t j = 0; j < 16; ++j) {
    for (int32_t i = 0; i < 16; ++i) {
      for (int32_t k = 0; k < 2; ++k) {
        const bool there = i < r.rows && 2 * j + k < r.channels;
        out[j * 32 + i * 2 + k] = there ? r.first[i * r.stride + 2 * j + k] : uint16_t(0);
      }
    }
  }
}

#if defined(HN_X86)

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own headers, for AVX-512
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

HN_TARGET_AVX512 inline __m512i row_or_zeros(const Rows& r, int32_t i, __mmask32 mask) {
  return i < r.rows ? _mm512_maskz_loadu_epi16(mask, r.first + i * r.stride) : _mm512_setzero_si512();
}

inline uint32_t channel_mask(int32_t channels) { return channels >= 32 ? ~0u : (1u << channels) - 1; }

HN_TARGET_AVX512 inline void pack_pairs_avx512(const Rows& r, uint16_t* left, uint16_t* right) {
  const __mmask32 mask = channel_mask(r.channels);
  alignas(64) uint16_t order[2][32];
  for (int32_t c = 0; c < 32; ++c) {
    order[c / 16][c % 16 * 2] = uint16_t(c);
    order[c / 16][c % 16 * 2 + 1] = uint16_t(32 + c);
  }
  const __m512i low = _mm512_load_si512(order[0]), high = _mm512_load_si512(order[1]);
  for (int32_t j = 0; j < 16; ++j) {
    const __m512i even = row_or_zeros(r, 2 * j, mask), odd = row_or_zeros(r, 2 * j + 1, mask);
    _mm512_store_si512(left + j * 32, _mm512_permutex2var_epi16(even, low, odd));
    _mm512_store_si512(right + j * 32, _mm512_permutex2var_epi16(even, high, odd));
  }
}

// Turns 16 x 16 words of 32 bits.
HN_TARGET_AVX512 inline void turn_words(__m512i* v) {
  __m512 words[16];
  for (int32_t i = 0; i < 16; ++i) words[i] = _mm512_castsi512_ps(v[i]);
  lanes_avx512::turn(words);
  for (int32_t i = 0; i < 16; ++i) v[i] = _mm512_castps_si512(words[i]);
}

HN_TARGET_AVX512 inline void pack_columns_avx512(const Rows& r, uint16_t* out) {
  const __mmask32 mask = channel_mask(r.channels);
  __m512i v[16];
  for (int32_t i = 0; i < 16; ++i) v[i] = row_or_zeros(r, i, mask);
  turn_words(v);
  for (int32_t i = 0; i < 16; ++i) _mm512_store_si512(out + i * 32, v[i]);
}

// Pairs of rows are words; turned, a word is a pair of k of one channel.
HN_TARGET_AVX512 inline void pack_turned_avx512(const Rows& r, uint16_t* first, uint16_t* second) {
  alignas(64) uint16_t pairs[2][kTileElements];
  pack_pairs_avx512(r, pairs[0], pairs[1]);
  uint16_t* const to[2] = {first, second};
  for (int32_t half = 0; half < 2; ++half) {
    __m512i v[16];
    for (int32_t i = 0; i < 16; ++i) v[i] = _mm512_load_si512(pairs[half] + i * 32);
    turn_words(v);
    for (int32_t i = 0; i < 16; ++i) _mm512_store_si512(to[half] + i * 32, v[i]);
  }
}

#endif

inline void pack_pairs(const Rows& r, uint16_t* left, uint16_t* right) {
#if defined(HN_X86)
  if (wide()) return pack_pairs_avx512(r, left, right);
#endif
  pack_pairs_body(r, left, right);
}

inline void pack_turned(const Rows& r, uint16_t* first, uint16_t* second) {
#if defined(HN_X86)
  if (wide()) return pack_turned_avx512(r, first, second);
#endif
  pack_turned_body(r, first, second);
}

inline void pack_columns(const Rows& r, uint16_t* out) {
#if defined(HN_X86)
  if (wide()) return pack_columns_avx512(r, out);
#endif
  pack_columns_body(r, out);
}

// 32 sums, 16 a tile, rounded to bfloat16; the first `columns` of them are written.
HN_INLINE void store_sums_body(const float* left, const float* right, int32_t columns, uint16_t* out) {
  for (int32_t c = 0; c < std::min(columns, 16); ++c) out[c] = bfloat16_bits(left[c]);
  for (int32_t c = 16; c < columns; ++c) out[c] = bfloat16_bits(right[c - 16]);
}

HN_DISPATCH(store_sums_plain, store_sums_body)

#if defined(HN_X86)

HN_TARGET_AVX512 inline __m512i bfloat16_words(__m512 x) {
  const __m512i u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd), 16);
  const __m512i nan = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), rounded, nan);
}

HN_TARGET_AVX512 inline void store_sums_avx512(const float* left, const float* right, uint16_t* out) {
  const __m256i low = _mm512_cvtepi32_epi16(bfloat16_words(_mm512_load_ps(left)));
  const __m256i high = _mm512_cvtepi32_epi16(bfloat16_words(_mm512_load_ps(right)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), high);
}

#endif

inline void store_sums(const float* left, const float* right, int32_t columns, uint16_t* out) {
#if defined(HN_X86)
  if (wide() && columns == 32) return store_sums_avx512(left, right, out);
#endif
  store_sums_plain(left, right, columns, out);
}

}  // namespace cpu
}  // namespace hn
