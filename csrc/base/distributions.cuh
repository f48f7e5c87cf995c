// distributions.cuh: the families of numbers that drawn weights take, listed once: all switches over them come from here.
//
// A new one is a struct and its name in HN_DISTRIBUTIONS; hiddennet/ops/inits.py lists the same names in the same order.
// A struct says which stream its words are of (never changed: it is part of the numbers), whether it makes two numbers of
// two neighbouring words (kPairs) or one of one, and how: by correctly rounded mul, add and sqrt, as in rng.cuh.
#pragma once
#include <cstdint>

#include "macros.h"
#include "rng.cuh"

namespace hn {

// U(-1, 1), never 0.
struct Uniform {
  static constexpr Stream kStream = Stream(1);
  static constexpr bool kPairs = false;
  HN_HD static float number(uint32_t word) { return symmetric_unit(word); }
};

// N(0, 1): Box-Muller, two of two words.
struct Normal {
  static constexpr Stream kStream = Stream(2);
  static constexpr bool kPairs = true;
  HN_HD static void numbers(uint32_t even_word, uint32_t odd_word, float* even, float* odd) {
    normal_pair(even_word, odd_word, even, odd);
  }
};

// Laplace(0, 1): the lowest bit is the sign, the upper 23 are a uniform u = x * 2^-24, x odd, whose -log is the size:
// above 0, at most 24 log 2.
struct Laplace {
  static constexpr Stream kStream = Stream(5);
  static constexpr bool kPairs = false;
  HN_HD static float number(uint32_t word) {
    return bits_float(float_bits(-log_unit(2 * (word >> 9) + 1)) ^ (word << 31));
  }
};

// N(0, 1) given that it lies within [-2, 2], which it leaves out 1 of 22 times: its own quantile of a uniform, by the
// inverse error function for floats of Giles (GPU Computing Gems 2, 2011), whose central branch is all that is needed.
struct TruncatedNormal {
  static constexpr Stream kStream = Stream(6);
  static constexpr bool kPairs = false;
  HN_HD static float number(uint32_t word) {
    const float x = mul_rn(symmetric_unit(word), 0.95449972f);  // erf(sqrt(2))
    const float w = add_rn(-log_float(add_rn(1.0f, -mul_rn(x, x))), -2.5f);
    float p = 2.81022636e-08f;
    p = add_rn(mul_rn(p, w), 3.43273939e-07f);
    p = add_rn(mul_rn(p, w), -3.5233877e-06f);
    p = add_rn(mul_rn(p, w), -4.39150654e-06f);
    p = add_rn(mul_rn(p, w), 2.1858087e-04f);
    p = add_rn(mul_rn(p, w), -1.25372503e-03f);
    p = add_rn(mul_rn(p, w), -4.17768164e-03f);
    p = add_rn(mul_rn(p, w), 2.46640727e-01f);
    p = add_rn(mul_rn(p, w), 1.50140941f);
    return mul_rn(mul_rn(p, x), 1.41421356f);
  }
};

// The list. Its order gives the codes of `Source`: append, never insert.
#define HN_DISTRIBUTIONS(F) \
  F(Uniform)                \
  F(Normal)                 \
  F(Laplace)                \
  F(TruncatedNormal)

// The number of an even or odd element, of its pair's words.
template <class D>
HN_HD float number_of(uint32_t even_word, uint32_t odd_word, bool is_odd) {
  if constexpr (D::kPairs) {
    float even, odd;
    D::numbers(even_word, odd_word, &even, &odd);
    return is_odd ? odd : even;
  } else {
    return D::number(is_odd ? odd_word : even_word);
  }
}

// The number of element i: four elements a block of the distribution's stream.
template <class D>
HN_HD float number_of(const Draw& d, uint32_t i) {
  const Philox4 block = philox_block(d, D::kStream, i / 4);
  return number_of<D>(word_of(block, i & 2u), word_of(block, (i & 2u) | 1u), i & 1u);
}

}  // namespace hn
