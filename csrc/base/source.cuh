// source.cuh: where a layer's weights come from: stored, or made from a seed whenever they are needed.
#pragma once
#include <cstdint>

#include "layout.cuh"
#include "macros.h"
#include "rng.cuh"

namespace hn {

enum class Source : int32_t {
  kStored = 0,    // a float32 tensor, in the same physical layout as the scores
  kConstant = 1,  // +scale everywhere
  kSigns = 2,     // +scale or -scale by a bit plane
  kUniform = 3,   // scale * U(-1, 1)
  kNormal = 4,    // scale * N(0, 1)
  kLaplace = 5,   // scale * Laplace(0, 1)
};
constexpr int64_t kLastSource = int64_t(Source::kLaplace);

// Are its weights made of words of the counter generator, four a block?
HN_HD bool draws_words(Source kind) {
  return kind == Source::kUniform || kind == Source::kNormal || kind == Source::kLaplace;
}

// The family of numbers that a drawn source takes.
HN_HD Stream stream_of(Source kind) {
  switch (kind) {
    case Source::kUniform: return kUniformStream;
    case Source::kNormal: return kNormalStream;
    case Source::kLaplace: return kLaplaceStream;
    default: return kSignStream;
  }
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
    case Source::kUniform: return mul_rn(uniform(w.draw, uint32_t(i)), w.scale);
    case Source::kLaplace: return mul_rn(laplace(w.draw, uint32_t(i)), w.scale);
    default: return mul_rn(normal(w.draw, uint32_t(i)), w.scale);
  }
}

}  // namespace hn
