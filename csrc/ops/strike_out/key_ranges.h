// key_ranges.h: which of a run of scores rank inside a range of keys, and how they spread over their high bits.
#pragma once
#include <cstdint>

#include "../../base/compact_avx2.h"
#include "../../base/isa.h"
#include "../../base/key.cuh"
#include "../../base/key_avx2.h"

namespace hn {
namespace cpu {

struct KeyRange {
  uint32_t low, high;  // inclusive; low > high: nothing is inside
};

constexpr int kHalfBins = 1 << 16;  // a key is searched 16 bits at a time

template <Order kOrder>
inline uint32_t ranked(float score, uint32_t flip) {
  return key_of<kOrder>(score) ^ flip;
}

template <Order kOrder>
inline uint8_t inside_byte(const float* scores, int32_t n, KeyRange r, uint32_t flip) {
  uint32_t bits = 0;
  for (int32_t e = 0; e < n; ++e) {
    const uint32_t key = ranked<kOrder>(scores[e], flip);
    bits |= uint32_t(key >= r.low && key <= r.high) << e;
  }
  return uint8_t(bits);
}

// Appends the ranked keys of the active scores, at most 8, to a list; returns its new length.
template <Order kOrder>
inline int32_t list_byte(const float* scores, uint32_t active, uint32_t flip, int32_t count, uint32_t* keys) {
  for (int e = 0; active != 0; ++e, active >>= 1) {
    if (active & 1u) keys[count++] = ranked<kOrder>(scores[e], flip);
  }
  return count;
}

#if defined(HN_X86)

template <Order kOrder>
HN_TARGET_AVX2 inline __m256i ranked_lanes(const float* scores, __m256i flip) {
  return _mm256_xor_si256(signed_keys<kOrder>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores))), flip);
}

template <Order kOrder>
HN_TARGET_AVX2 inline void inside_avx2(const float* scores, int32_t bytes, KeyRange r, uint32_t flip, uint8_t* out) {
  const __m256i low = _mm256_set1_epi32(int(r.low ^ 0x80000000u)), high = _mm256_set1_epi32(int(r.high ^ 0x80000000u));
  const __m256i turn = _mm256_set1_epi32(int(flip));
  for (int32_t b = 0; b < bytes; ++b) {
    const __m256i key = ranked_lanes<kOrder>(scores + 8 * b, turn);
    const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(low, key), _mm256_cmpgt_epi32(key, high));
    out[b] = uint8_t(~_mm256_movemask_ps(_mm256_castsi256_ps(outside)));
  }
}

template <Order kOrder>
HN_TARGET_AVX2 inline int32_t list_avx2(const float* scores, const uint8_t* active, int32_t bytes, uint32_t flip,
                                        uint32_t* keys) {
  const __m256i turn = _mm256_set1_epi32(int(flip ^ 0x80000000u));
  int32_t count = 0;
  for (int32_t b = 0; b < bytes; ++b) {
    const __m256i key = ranked_lanes<kOrder>(scores + 8 * b, turn);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(keys + count), compacted(key, active[b]));
    count += __builtin_popcount(active[b]);
  }
  return count;
}

#endif

// Bit e of out[b]: does scores[8 b + e] rank inside? Writes ceil(n / 8) bytes; bits past n are 0.
template <Order kOrder>
inline void inside(const float* scores, int32_t n, KeyRange r, uint32_t flip, uint8_t* out) {
  int32_t b = 0;
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) {
    b = n / 8;
    inside_avx2<kOrder>(scores, b, r, flip, out);
  }
#endif
  for (; 8 * b < n; ++b) out[b] = inside_byte<kOrder>(scores + 8 * b, n - 8 * b < 8 ? n - 8 * b : 8, r, flip);
}

// Lists the ranked keys of the scores whose bit is set in `active`, in order; returns how many. `keys` has room for
// n + 8: whole vectors are stored and the next one overwrites the tail.
template <Order kOrder>
inline int32_t list_keys(const float* scores, const uint8_t* active, int32_t n, uint32_t flip, uint32_t* keys) {
  int32_t b = 0, count = 0;
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) {
    b = n / 8;
    count = list_avx2<kOrder>(scores, active, b, flip, keys);
  }
#endif
  for (; 8 * b < n; ++b) {
    const int32_t here = n - 8 * b < 8 ? n - 8 * b : 8;
    count = list_byte<kOrder>(scores + 8 * b, active[b] & (0xffu >> (8 - here)), flip, count, keys);
  }
  return count;
}

}  // namespace cpu
}  // namespace hn
