// bracket.h: one pass over a run of scores that counts keys below a bracket and collects those inside it.
#pragma once
#include <cstdint>

#include "../../base/compact_avx2.h"
#include "../../base/isa.h"
#include "../../base/key.cuh"
#include "../../base/key_avx2.h"

namespace hn {
namespace cpu {

struct Bracket {
  uint32_t low, high;  // inclusive
};

struct BracketCount {
  int64_t below;       // keys < low
  int64_t candidates;  // keys in the bracket; -1: more than the capacity
};

constexpr int64_t kScanRoom = 16;  // keys beyond the capacity that a scan may write

// `out` has room for capacity + kScanRoom keys: whole vectors are stored and the next one overwrites the tail.
template <Order kOrder>
inline BracketCount scan_bracket_scalar(const float* scores, int64_t n, Bracket b, int64_t capacity, uint32_t* out) {
  BracketCount c{0, 0};
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = key_of<kOrder>(scores[i]);
    c.below += key < b.low;
    if (key >= b.low && key <= b.high) {
      if (c.candidates == capacity) return {c.below, -1};
      out[c.candidates++] = key;
    }
  }
  return c;
}

#if defined(HN_X86)

template <Order kOrder>
HN_TARGET_AVX2 inline BracketCount scan_bracket_avx2(const float* scores, int64_t n, Bracket b, int64_t capacity,
                                                     uint32_t* out) {
  const __m256i top = _mm256_set1_epi32(int(0x80000000u));
  const __m256i low = _mm256_set1_epi32(int(b.low ^ 0x80000000u));
  const __m256i high = _mm256_set1_epi32(int(b.high ^ 0x80000000u));
  __m256i below = _mm256_setzero_si256();
  int64_t count = 0, i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256i key = signed_keys<kOrder>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + i)));
    const __m256i is_below = _mm256_cmpgt_epi32(low, key);
    below = _mm256_sub_epi32(below, is_below);
    const __m256i outside = _mm256_or_si256(is_below, _mm256_cmpgt_epi32(key, high));
    const unsigned mask = 0xffu & ~unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(outside)));
    if (mask != 0) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + count), compacted(_mm256_xor_si256(key, top), mask));
      count += __builtin_popcount(mask);
      if (count > capacity) return {0, -1};
    }
  }
  alignas(32) uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), below);
  int64_t total = 0;
  for (const uint32_t lane : lanes) total += lane;
  const BracketCount tail = scan_bracket_scalar<kOrder>(scores + i, n - i, b, capacity - count, out + count);
  if (tail.candidates < 0) return {0, -1};
  return {total + tail.below, count + tail.candidates};
}

template <Order kOrder>
HN_TARGET_AVX512 inline __m512i keys_avx512(__m512i bits) {
  const __m512i top = _mm512_set1_epi32(int(0x80000000u)), ones = _mm512_set1_epi32(-1);
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __mmask16 nan = _mm512_cmpgt_epu32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
  if (kOrder == Order::kMagnitude) return _mm512_mask_mov_epi32(magnitude, nan, ones);
  const __m512i v = _mm512_maskz_mov_epi32(_mm512_cmpneq_epi32_mask(bits, top), bits);
  const __m512i turned = _mm512_xor_si512(v, _mm512_mask_mov_epi32(top, _mm512_movepi32_mask(v), ones));
  return _mm512_mask_mov_epi32(turned, nan, ones);
}

// Without a branch on whether there are candidates, which comes out either way now and then.
template <Order kOrder>
HN_TARGET_AVX512 inline BracketCount scan_bracket_avx512(const float* scores, int64_t n, Bracket b, int64_t capacity,
                                                         uint32_t* out) {
  const __m512i low = _mm512_set1_epi32(int(b.low)), width = _mm512_set1_epi32(int(b.high - b.low));
  int64_t count = 0, below = 0, i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512i key = keys_avx512<kOrder>(_mm512_loadu_si512(scores + i));
    const __mmask16 inside = _mm512_cmple_epu32_mask(_mm512_sub_epi32(key, low), width);
    below += __builtin_popcount(_mm512_cmplt_epu32_mask(key, low));
    _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(inside, key));
    count += __builtin_popcount(inside);
    if (count > capacity) return {0, -1};
  }
  const BracketCount tail = scan_bracket_scalar<kOrder>(scores + i, n - i, b, capacity - count, out + count);
  if (tail.candidates < 0) return {0, -1};
  return {below + tail.below, count + tail.candidates};
}

#endif

template <Order kOrder>
inline BracketCount scan_bracket(const float* scores, int64_t n, Bracket b, int64_t capacity, uint32_t* out) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2 && wide()) return scan_bracket_avx512<kOrder>(scores, n, b, capacity, out);
  if (isa() == Isa::kAvx2) return scan_bracket_avx2<kOrder>(scores, n, b, capacity, out);
#endif
  return scan_bracket_scalar<kOrder>(scores, n, b, capacity, out);
}

}  // namespace cpu
}  // namespace hn
