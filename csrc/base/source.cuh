// source.cuh: where a layer's weights come from: stored, or made from a seed whenever they are needed.
#pragma once
#include <cstdint>

#include "distributions.cuh"
#include "layout.cuh"
#include "macros.h"
#include "rng.cuh"

namespace hn {

enum class Source : int32_t {
  kStored = 0,    // a float32 tensor, in the same physical layout as the scores
  kConstant = 1,  // +scale everywhere
  kSigns = 2,     // +scale or -scale by a bit plane
// scale times a number of the counter generator: kUniform = 3 and on
#define HN_SOURCE(D) k##D,
  HN_DISTRIBUTIONS(HN_SOURCE)
#undef HN_SOURCE
};

#define HN_SOURCE(D) , Source::k##D
constexpr Source kSources[] = {Source::kStored, Source::kConstant, Source::kSigns HN_DISTRIBUTIONS(HN_SOURCE)};
#undef HN_SOURCE
constexpr int64_t kLastSource = int64_t(sizeof(kSources) / sizeof(Source)) - 1;

// Are its weights made of words of the counter generator, four a block?
HN_HD bool draws_words(Source kind) { return kind > Source::kSigns; }

// f(D{}) for the distribution D of a drawn source; nothing for the others.
template <class F>
HN_HD void with_distribution(Source kind, const F& f) {
  switch (kind) {
#define HN_CASE(D) \
  case Source::k##D: return f(D{});
    HN_DISTRIBUTIONS(HN_CASE)
#undef HN_CASE
    default: return;
  }
}

// The stream of a drawn source's words.
HN_HD Stream stream_of(Source kind) {
  Stream stream = kSignStream;
  with_distribution(kind, [&](auto d) { stream = d.kStream; });
  return stream;
}

// scale times the number of element i of a drawn source, whose block of its stream this is.
HN_HD float drawn_weight(Source kind, float scale, const Philox4& block, uint32_t i) {
  const uint32_t even = word_of(block, i & 2u), odd = word_of(block, (i & 2u) | 1u);
  float number = 0.0f;
  with_distribution(kind, [&](auto d) { number = number_of<decltype(d)>(even, odd, i & 1u); });
  return mul_rn(number, scale);
}

struct WeightSource {
  Source kind;
  const float* stored;   // [n], kStored only
  const uint8_t* plane;  // [ceil(n / 8)], kSigns only: bit i % 8 of byte i / 8, i = OIHW index, 1 = negative
  float scale;
  Draw draw;
};

HN_HD float signed_scale(float scale, uint32_t negative) { return bits_float(float_bits(scale) ^ (negative << 31)); }

// Weight at physical position p, OIHW index i.
HN_HD float weight_at(const WeightSource& w, int32_t p, int32_t i) {
  switch (w.kind) {
    case Source::kStored: return w.stored[p];
    case Source::kConstant: return w.scale;
    case Source::kSigns: return signed_scale(w.scale, w.plane[i >> 3] >> (i & 7) & 1u);
    default:
      return drawn_weight(w.kind, w.scale, philox_block(w.draw, stream_of(w.kind), uint32_t(i) / 4), uint32_t(i));
  }
}

}  // namespace hn
