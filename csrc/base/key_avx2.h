// key_avx2.h: key.cuh on eight scores at a time.
#pragma once
#include "isa.h"
#include "key.cuh"

#if defined(HN_X86)

namespace hn {
namespace cpu {

// The key with its top bit flipped, so that AVX2's signed compare orders it as unsigned.
template <Order kOrder>
HN_TARGET_AVX2 inline __m256i signed_keys(__m256i bits) {
  const __m256i top = _mm256_set1_epi32(int(0x80000000u)), rest = _mm256_set1_epi32(0x7fffffff);
  const __m256i magnitude = _mm256_and_si256(bits, rest);
  const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  if (kOrder == Order::kMagnitude) {
    return _mm256_xor_si256(_mm256_or_si256(magnitude, nan), top);
  }
  const __m256i minus_zero = _mm256_cmpeq_epi32(bits, top);
  const __m256i v = _mm256_andnot_si256(minus_zero, bits);
  const __m256i negative = _mm256_srai_epi32(v, 31);
  const __m256i ordered = _mm256_xor_si256(v, _mm256_and_si256(negative, rest));
  return _mm256_blendv_epi8(ordered, rest, nan);
}

// Lane e is all ones where bit e of a byte is set, else 0.
HN_TARGET_AVX2 inline __m256i bit_lanes(uint8_t byte) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(byte), bit), bit);
}

}  // namespace cpu
}  // namespace hn

#endif
