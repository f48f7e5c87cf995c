// picks.h: weights of scattered quads (four OIHW neighbours, a Philox block's worth), eight quads at a time.
//
// For CPU loops that redraw few of a layer's weights: only quads that hold one are drawn, each by its own redraw number.
#pragma once
#include "blocks.h"
#include "philox_avx2.h"

namespace hn {
namespace cpu {

constexpr int32_t kPickRoom = 256;

struct Picks {
  int32_t count = 0;
  uint32_t quad[kPickRoom + kLanes] = {};    // OIHW index / 4
  uint32_t redraw[kPickRoom + kLanes] = {};  // which draw
  uint32_t mask[kPickRoom + kLanes] = {};    // bit q: element 4 * quad + q is wanted
  uint32_t word[4 * (kPickRoom + kLanes)];
  float value[4 * (kPickRoom + kLanes)];  // of element 4 * quad[k] + q at 4 * k + q
};

#if defined(HN_X86)

// For each byte the places of its set bits, lowest first.
struct BitPlaces {
  uint8_t of[256][8];
};

constexpr BitPlaces make_bit_places() {
  BitPlaces t{};
  for (int byte = 0; byte < 256; ++byte) {
    for (int bit = 0, found = 0; bit < 8; ++bit) {
      if (byte >> bit & 1) t.of[byte][found++] = uint8_t(bit);
    }
  }
  return t;
}

constexpr BitPlaces kBitPlaces = make_bit_places();

// No branch depends on the bits: picks are as good as random, and a branch would be mispredicted for every word.
HN_TARGET_AVX2 inline void pick_quads_avx2(const uint32_t* bits, int32_t words, uint32_t first_quad, Picks* p) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), shift = _mm256_slli_epi32(lane, 2);
  const __m256i fifteen = _mm256_set1_epi32(15), zero = _mm256_setzero_si256();
  int32_t count = 0;
  for (int32_t w = 0; w < words; ++w) {
    const __m256i mask = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(int(bits[w])), shift), fifteen);
    const uint32_t some = uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(mask, zero))));
    const __m256i places = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitPlaces.of[some])));
    const __m256i quad = _mm256_add_epi32(_mm256_set1_epi32(int(first_quad + uint32_t(8 * w))), places);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p->quad + count), quad);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p->mask + count), _mm256_permutevar8x32_epi32(mask, places));
    count += __builtin_popcount(some);
  }
  p->count = count;
}

#endif

// Lists the quads that hold a set bit; their redraws are the caller's. Bit e of word w: element 4 * first_quad + 32 w + e.
inline void pick_quads(const uint32_t* bits, int32_t words, uint32_t first_quad, Picks* p) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return pick_quads_avx2(bits, words, first_quad, p);
#endif
  p->count = 0;
  for (int32_t q = 0; q < 8 * words; ++q) {
    const uint32_t mask = bits[q / 8] >> (q % 8 * 4) & 15u;
    p->quad[p->count] = first_quad + uint32_t(q);
    p->mask[p->count] = mask;
    p->count += mask != 0;
  }
}

// The words of blocks that each have their own number and redraw, block after block; count as below.
HN_INLINE void block_words_body(const Draw* d, Stream stream, const uint32_t* block, const uint32_t* redraw,
                                int32_t count, uint32_t* out) {
  for (int32_t i = 0; i < count; i += kLanes) {
    PhiloxLanes p;
    philox_rounds(*d, stream, block + i, redraw + i, &p);
    for (int l = 0; l < kLanes; ++l) {
      for (int q = 0; q < 4; ++q) out[4 * (i + l) + q] = p.word[q][l];
    }
  }
}

// `count` is rounded up to a multiple of kLanes: so much is read and written.
inline void block_words(const Draw& d, Stream stream, const uint32_t* block, const uint32_t* redraw, int32_t count,
                        uint32_t* out) {
#if defined(HN_X86)
  if (isa() == Isa::kAvx2) return block_words_avx2(d, stream, block, redraw, count, out);
#endif
  block_words_body(&d, stream, block, redraw, count, out);
}

// n is a multiple of 4 * kLanes.
template <class D>
HN_INLINE void numbers_of_words_body(D, const uint32_t* words, float scale, int32_t n, float* out) {
  if constexpr (!D::kPairs) {
    for (int32_t e = 0; e < n; ++e) out[e] = D::number(words[e]) * scale;
    return;
  } else {
    constexpr int kPairs = 2 * kLanes;
    for (int32_t e = 0; e < n; e += 2 * kPairs) {
      uint32_t first[kPairs], second[kPairs];
      float even[kPairs], odd[kPairs];
      for (int l = 0; l < kPairs; ++l) {
        first[l] = words[e + 2 * l];
        second[l] = words[e + 2 * l + 1];
      }
      for (int l = 0; l < kPairs; ++l) D::numbers(first[l], second[l], &even[l], &odd[l]);
      for (int l = 0; l < kPairs; ++l) {
        out[e + 2 * l] = even[l] * scale;
        out[e + 2 * l + 1] = odd[l] * scale;
      }
    }
  }
}

HN_DISPATCH(numbers_of_words, numbers_of_words_body)

// A block of signs is 32 quads: each takes four bits of one of its words.
inline void picked_signs(const Draw& d, float scale, Picks* p) {
  uint32_t block[kPickRoom + kLanes];
  const int32_t count = (p->count + kLanes - 1) / kLanes * kLanes;
  for (int32_t i = 0; i < count; ++i) block[i] = p->quad[i] / 32;
  block_words(d, kSignStream, block, p->redraw, count, p->word);
  for (int32_t i = 0; i < p->count; ++i) {
    const uint32_t quad = p->quad[i] % 32, bits = p->word[uint32_t(4 * i) + quad / 8] >> (quad % 8 * 4);
    for (uint32_t q = 0; q < 4; ++q) p->value[uint32_t(4 * i) + q] = signed_scale(scale, bits >> q & 1u);
  }
}

// value[4 k + q] = weight_at of element 4 * quad[k] + q under redraw[k]; the draw names seed and layer.
inline void draw_picks(const Draw& d, Source kind, float scale, Picks* p) {
  const int32_t count = (p->count + kLanes - 1) / kLanes * kLanes;
  if (kind == Source::kSigns) return picked_signs(d, scale, p);
  if (!draws_words(kind)) {
    std::fill_n(p->value, 4 * count, scale);
    return;
  }
  with_distribution(kind, [&](auto distribution) {
    block_words(d, distribution.kStream, p->quad, p->redraw, count, p->word);
    numbers_of_words(distribution, static_cast<const uint32_t*>(p->word), scale, 4 * count,
                     static_cast<float*>(p->value));
  });
}

}  // namespace cpu
}  // namespace hn
