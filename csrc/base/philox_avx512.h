// philox_avx512.h: philox_avx2.h's decisions, eight blocks a register: three-way xor, unsigned compare into a mask.
#pragma once
#include "isa.h"
#include "rng.cuh"

#if defined(HN_X86)

namespace hn {
namespace cpu {

constexpr int kWideWordsAtOnce = 4;  // four chains: measured best of 1 to 4

// The bits of four words each of blocks 0, 2, 4, 6 and of 1, 3, 5, 7, in the order of the blocks.
inline uint32_t interleaved_nibbles(uint32_t even, uint32_t odd) {
  const auto spread = [](uint32_t x) {
    x = (x | x << 8) & 0x00ff00ffu;
    return (x | x << 4) & 0x0f0f0f0fu;
  };
  return spread(even) | spread(odd) << 4;
}

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif

// As words_below_avx2; `words` is rounded up to a multiple of kWideWordsAtOnce.
HN_TARGET_AVX512 inline void words_below_avx512(const Draw& d, Stream stream, uint32_t first_block, uint32_t limit,
                                                int32_t words, uint32_t* out) {
  constexpr int kXor3 = 0x96;
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57);
  __m512i key[10][2];
  uint32_t k0 = d.key0, k1 = d.key1;
  for (auto& round : key) {
    round[0] = _mm512_set1_epi32(int(k0));
    round[1] = _mm512_set1_epi32(int(k1));
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const __m512i layer = _mm512_set1_epi64(d.layer), redraw = _mm512_set1_epi64(d.redraw);
  const __m512i family = _mm512_set1_epi64(stream), bar = _mm512_set1_epi32(int(limit));
  const __m512i eight = _mm512_set1_epi64(8);
  __m512i block = _mm512_add_epi64(_mm512_set1_epi64(first_block), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
  for (int32_t w = 0; w < words; w += kWideWordsAtOnce) {
    __m512i chains[kWideWordsAtOnce][4];
    for (auto& c : chains) {
      c[0] = block;
      c[1] = layer;
      c[2] = redraw;
      c[3] = family;
      block = _mm512_add_epi64(block, eight);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 8
      for (auto& c : chains) {
        const __m512i p0 = _mm512_mul_epu32(m0, c[0]), p1 = _mm512_mul_epu32(m1, c[2]);
        c[0] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), c[1], key[round][0], kXor3);
        c[2] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), c[3], key[round][1], kXor3);
        c[1] = p1;
        c[3] = p0;
      }
    }
    for (int k = 0; k < kWideWordsAtOnce; ++k) {
      const auto& c = chains[k];
      const __m512i first = _mm512_mask_blend_epi32(0xAAAA, c[0], _mm512_slli_epi64(c[1], 32));
      const __m512i second = _mm512_mask_blend_epi32(0xAAAA, c[2], _mm512_slli_epi64(c[3], 32));
      out[w + k] = interleaved_nibbles(_mm512_cmplt_epu32_mask(_mm512_unpacklo_epi64(first, second), bar),
                                       _mm512_cmplt_epu32_mask(_mm512_unpackhi_epi64(first, second), bar));
    }
  }
}

#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace cpu
}  // namespace hn

#endif
