// philox_avx2.h: the counter generator eight blocks at a time: words of any blocks, or one bit a word.
//
// A counter of four words lives in four registers of 64-bit lanes, one block a lane. Only the low half of a lane is
// ever read by the multiplication, so what the upper halves hold does not matter, and no product is taken apart.
#pragma once
#include "isa.h"
#include "rng.cuh"

#if defined(HN_X86)

namespace hn {
namespace cpu {

struct PhiloxKeys {
  __m256i key[10][2];
};

HN_TARGET_AVX2 inline void spread_keys(const Draw& d, PhiloxKeys* out) {
  uint32_t k0 = d.key0, k1 = d.key1;
  for (auto& round : out->key) {
    round[0] = _mm256_set1_epi32(int(k0));
    round[1] = _mm256_set1_epi32(int(k1));
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Four blocks a chain, one a lane, from round `first` to the last; the words are the low halves. Chains side by side hide
// each other's latency.
template <int kChains>
HN_TARGET_AVX2 inline void philox_chains(const PhiloxKeys& keys, int first, __m256i (&chains)[kChains][4]) {
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57);
#pragma GCC unroll 10
  for (int round = first; round < 10; ++round) {
    const __m256i k0 = keys.key[round][0], k1 = keys.key[round][1];
#pragma GCC unroll 8
    for (auto& c : chains) {
      const __m256i p0 = _mm256_mul_epu32(m0, c[0]), p1 = _mm256_mul_epu32(m1, c[2]);
      c[0] = _mm256_xor_si256(_mm256_srli_epi64(p1, 32), _mm256_xor_si256(c[1], k0));
      c[2] = _mm256_xor_si256(_mm256_srli_epi64(p0, 32), _mm256_xor_si256(c[3], k1));
      c[1] = p1;
      c[3] = p0;
    }
  }
}

// Words 0 and 1, or 2 and 3, of four blocks as neighbours.
HN_TARGET_AVX2 inline __m256i word_pairs(__m256i even, __m256i odd) {
  return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}

// All ones or zeros for the 16 words of four blocks, as 16-bit lanes: two blocks, in order, in each half. `limit` has
// its top bit flipped, because AVX2 compares signed.
HN_TARGET_AVX2 inline __m256i four_below(const __m256i (&c)[4], __m256i limit) {
  const __m256i top = _mm256_set1_epi32(int(0x80000000u));
  const __m256i a = _mm256_cmpgt_epi32(limit, _mm256_xor_si256(word_pairs(c[0], c[1]), top));
  const __m256i b = _mm256_cmpgt_epi32(limit, _mm256_xor_si256(word_pairs(c[2], c[3]), top));
  return _mm256_shuffle_epi32(_mm256_packs_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
}

constexpr int kWordsAtOnce = 3;  // six chains: measured best of 2, 4, 6 and 8

// Bit e of out[w]: the word of element 4 * first_block + 32 w + e is below the limit. `words` is rounded up to a multiple
// of kWordsAtOnce: so much is written. Blocks that differ in their number alone share half of their first two rounds.
HN_TARGET_AVX2 inline void words_below_avx2(const Draw& d, Stream stream, uint32_t first_block, uint32_t limit,
                                            int32_t words, uint32_t* out) {
  PhiloxKeys keys;
  spread_keys(d, &keys);
  const uint32_t mul0 = 0xD2511F53u, mul1 = 0xCD9E8D57u;
  const uint32_t c0 = mul_hi(mul1, d.redraw) ^ d.layer ^ d.key0, c1 = mul1 * d.redraw;  // after the first round
  const __m256i m0 = _mm256_set1_epi64x(mul0), m1 = _mm256_set1_epi64x(mul1);
  const __m256i bar = _mm256_set1_epi32(int(limit ^ 0x80000000u)), four = _mm256_set1_epi64x(4);
  const __m256i x2 = _mm256_set1_epi32(int(stream ^ d.key1));
  const __m256i y0 = _mm256_xor_si256(_mm256_set1_epi32(int(c1)), keys.key[1][0]);
  const __m256i y2 = _mm256_xor_si256(_mm256_set1_epi32(int(mul_hi(mul0, c0))), keys.key[1][1]);
  const __m256i y3 = _mm256_set1_epi32(int(mul0 * c0));
  __m256i block = _mm256_add_epi64(_mm256_set1_epi64x(first_block), _mm256_setr_epi64x(0, 1, 2, 3));
  for (int32_t w = 0; w < words; w += kWordsAtOnce) {
    __m256i quads[2 * kWordsAtOnce][4];
    for (auto& c : quads) {
      const __m256i p0 = _mm256_mul_epu32(m0, block);
      const __m256i p1 = _mm256_mul_epu32(m1, _mm256_xor_si256(_mm256_srli_epi64(p0, 32), x2));
      c[0] = _mm256_xor_si256(_mm256_srli_epi64(p1, 32), y0);
      c[1] = p1;
      c[2] = _mm256_xor_si256(p0, y2);
      c[3] = y3;
      block = _mm256_add_epi64(block, four);
    }
    philox_chains(keys, 2, quads);
    for (int k = 0; k < kWordsAtOnce; ++k) {
      const __m256i both = _mm256_packs_epi16(four_below(quads[2 * k], bar), four_below(quads[2 * k + 1], bar));
      out[w + k] = uint32_t(_mm256_movemask_epi8(_mm256_permute4x64_epi64(both, _MM_SHUFFLE(3, 1, 2, 0))));
    }
  }
}

// The sixteen words of four blocks, block after block.
HN_TARGET_AVX2 inline void store_words(const __m256i (&c)[4], uint32_t* out) {
  const __m256i first = word_pairs(c[0], c[1]), second = word_pairs(c[2], c[3]);
  const __m256i even = _mm256_unpacklo_epi64(first, second), odd = _mm256_unpackhi_epi64(first, second);
  auto* to = reinterpret_cast<__m256i*>(out);
  _mm256_storeu_si256(to, _mm256_permute2x128_si256(even, odd, 0x20));
  _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(even, odd, 0x31));
}

// The words of `count` blocks, each with its own number and redraw; count is rounded up to a multiple of 8.
HN_TARGET_AVX2 inline void block_words_avx2(const Draw& d, Stream stream, const uint32_t* block, const uint32_t* redraw,
                                            int32_t count, uint32_t* out) {
  PhiloxKeys keys;
  spread_keys(d, &keys);
  const __m256i layer = _mm256_set1_epi64x(d.layer), family = _mm256_set1_epi64x(stream);
  for (int32_t i = 0; i < count; i += 8) {
    __m256i quads[2][4];
    for (int half = 0; half < 2; ++half) {
      const int32_t at = i + 4 * half;
      const __m128i number = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + at));
      const __m128i draw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(redraw + at));
      quads[half][0] = _mm256_cvtepu32_epi64(number);
      quads[half][1] = layer;
      quads[half][2] = _mm256_cvtepu32_epi64(draw);
      quads[half][3] = family;
    }
    philox_chains(keys, 0, quads);
    store_words(quads[0], out + 4 * i);
    store_words(quads[1], out + 4 * i + 16);
  }
}

}  // namespace cpu
}  // namespace hn

#endif
