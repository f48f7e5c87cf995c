// kept_bits.cpp: the comparisons of each instruction set.
#include "kept_bits.h"

#include <algorithm>

#include "../../base/float_lanes.h"

namespace hiddennet::runtime {

namespace {

struct KeptLoops {
  void (*find)(const float* weights, int64_t words, uint64_t* kept, uint64_t* minus);
  std::size_t (*pick)(const uint64_t* bits, const uint64_t* without, int64_t words, const uint16_t* from, uint16_t* to);
};

HN_INLINE uint16_t* pick_each(uint64_t bits, const uint16_t* from, uint16_t* to) {
  for (; bits != 0; bits &= bits - 1) *to++ = from[__builtin_ctzll(bits)];
  return to;
}

}  // namespace

namespace lanes_any {

using hn::cpu::lanes_any::V;

HN_INLINE uint32_t not_zero(V v) {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= uint32_t(v[i] != 0.0f) << i;
  return bits;
}
HN_INLINE uint32_t below_zero(V v) {
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) bits |= uint32_t(v[i] < 0.0f) << i;
  return bits;
}
HN_INLINE uint16_t* pick(uint64_t bits, const uint16_t* from, uint16_t* to) { return pick_each(bits, from, to); }

}  // namespace lanes_any

#if defined(HN_X86)

namespace lanes_avx2 {

HN_TARGET_FMA HN_INLINE uint32_t not_zero(__m256 v) {
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
}
HN_TARGET_FMA HN_INLINE uint32_t below_zero(__m256 v) {
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ)));
}
HN_TARGET_FMA HN_INLINE uint16_t* pick(uint64_t bits, const uint16_t* from, uint16_t* to) {
  return pick_each(bits, from, to);
}

}  // namespace lanes_avx2

namespace lanes_avx512 {

HN_TARGET_AVX512 HN_INLINE uint32_t not_zero(__m512 v) {
  return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
HN_TARGET_AVX512 HN_INLINE uint32_t below_zero(__m512 v) {
  return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ);
}
HN_TARGET_AVX512 HN_INLINE uint16_t* pick(uint64_t bits, const uint16_t* from, uint16_t* to) {
  for (int i = 0; i < 64; i += 16) {
    const auto some = __mmask16(bits >> i);
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(some, v)));
    to += __builtin_popcount(some);
  }
  return to;
}

}  // namespace lanes_avx512

#endif

}  // namespace hiddennet::runtime

#define HN_LOOPS "../runtime/conv/kept_loops.h"
#include "../../base/each_lanes.h"

namespace hiddennet::runtime {

void KeptBits::read(const float* weights, int64_t n) {
  const int64_t whole = n / 64;
  words_ = (n + 63) / 64;
  HN_LOOPS_IN_USE(kKeptLoops).find(weights, whole, kept_.data(), minus_.data());
  if (whole == words_) return;
  float last[64] = {};
  std::copy(weights + whole * 64, weights + n, last);
  HN_LOOPS_IN_USE(kKeptLoops).find(last, 1, kept_.data() + whole, minus_.data() + whole);
}

std::size_t KeptBits::pick(bool negative, const uint64_t* only, const uint16_t* from, uint16_t* to) {
  for (std::size_t w = 0; w < std::size_t(words_); ++w) {
    without_[w] = (negative ? 0 : minus_[w]) | (only == nullptr ? 0 : ~only[w]);
  }
  return HN_LOOPS_IN_USE(kKeptLoops).pick((negative ? minus_ : kept_).data(), without_.data(), words_, from, to);
}

}  // namespace hiddennet::runtime
