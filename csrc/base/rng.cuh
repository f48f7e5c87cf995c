// rng.cuh: random numbers as pure functions of (seed, layer, redraw, element), equal to the last bit on every backend.
//
// Philox4x32-10 (Salmon et al., SC 2011) with key = seed and counter = (block, layer, redraw, stream). An element is
// named by its flat OIHW index, so a value depends neither on the memory format nor on the grid. Every floating-point
// step below is one correctly rounded mul, add or sqrt: no fma, no libm.
#pragma once
#include <cstdint>

#include "bits.cuh"
#include "macros.h"

namespace hn {

// Which family of numbers a counter belongs to: families never share a block. Those of weights: distributions.cuh.
enum Stream : uint32_t {
  kSignStream = 0,
  kBernoulliStream = 3,
  kRedrawStream = 4,  // whether a weight is redrawn
};

struct Philox4 {
  uint32_t word[4];
};

// Word i % 4, chosen without an indexed load, which would put the block into local memory on a GPU.
HN_HD uint32_t word_of(const Philox4& p, uint32_t i) {
  const uint32_t low = i & 1u ? p.word[1] : p.word[0], high = i & 1u ? p.word[3] : p.word[2];
  return i & 2u ? high : low;
}

// What names a layer's numbers. `redraw` counts re-randomisations (weights) or training steps (Bernoulli).
struct Draw {
  uint32_t key0, key1, layer, redraw;
};

HN_HD uint32_t mul_hi(uint32_t a, uint32_t b) { return uint32_t((uint64_t(a) * b) >> 32); }

HN_HD Philox4 philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint32_t hi0 = mul_hi(0xD2511F53u, c0), lo0 = 0xD2511F53u * c0;
    const uint32_t hi1 = mul_hi(0xCD9E8D57u, c2), lo1 = 0xCD9E8D57u * c2;
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

HN_HD Philox4 philox_block(const Draw& d, Stream stream, uint32_t block) {
  return philox4x32(block, d.layer, d.redraw, stream, d.key0, d.key1);
}

// 1 = negative. 128 signs a block.
HN_HD uint32_t sign_bit(const Draw& d, uint32_t i) {
  return word_of(philox_block(d, kSignStream, i / 128), i / 32) >> (i % 32) & 1u;
}

// A word as an odd integer times 2^-24 in (-1, 1): symmetric, never 0, exact in float.
HN_HD float symmetric_unit(uint32_t word) {
  return mul_rn(float(int32_t(2 * (word >> 8) + 1) - (1 << 24)), 5.9604644775390625e-08f);
}

// log(x * 2^-shift) for a positive normal x: the float polynomial of the Cephes library's logf, 1e-7 relative.
HN_HD float log_float(float x, int32_t shift = 0) {
  const uint32_t u = float_bits(x);
  const uint32_t high = (u & 0x007fffffu) > 0x3504f3u ? 1u : 0u;  // mantissa above sqrt(2): halve it
  const float e = float(int32_t(u >> 23) - 127 + int32_t(high) - shift);
  const float f = add_rn(bits_float((u & 0x007fffffu) | (high ? 0x3f000000u : 0x3f800000u)), -1.0f);
  const float z = mul_rn(f, f);
  float y = 7.0376836292e-2f;
  y = add_rn(mul_rn(y, f), -1.1514610310e-1f);
  y = add_rn(mul_rn(y, f), 1.1676998740e-1f);
  y = add_rn(mul_rn(y, f), -1.2420140846e-1f);
  y = add_rn(mul_rn(y, f), 1.4249322787e-1f);
  y = add_rn(mul_rn(y, f), -1.6668057665e-1f);
  y = add_rn(mul_rn(y, f), 2.0000714765e-1f);
  y = add_rn(mul_rn(y, f), -2.4999993993e-1f);
  y = add_rn(mul_rn(y, f), 3.3333331174e-1f);
  y = mul_rn(mul_rn(y, f), z);
  y = add_rn(y, mul_rn(e, -2.12194440e-4f));
  y = add_rn(y, mul_rn(z, -0.5f));
  return add_rn(add_rn(f, y), mul_rn(e, 0.693359375f));
}

// log(x * 2^-24) for odd x < 2^24.
HN_HD float log_unit(uint32_t x) { return log_float(float(x), 24); }

// Two independent standard normals from two words (Box-Muller).
HN_HD void normal_pair(uint32_t radius_word, uint32_t angle_word, float* cos_part, float* sin_part) {
  const float r = sqrt_rn(mul_rn(-2.0f, log_unit(2 * (radius_word >> 9) + 1)));
  const uint32_t turn = angle_word >> 8;  // 2 bits of quadrant, 22 bits of angle in (-pi/4, pi/4)
  const float t =
      mul_rn(float(int32_t(2 * (turn & 0x3fffffu) + 1) - (1 << 22)), 1.8725351414619643e-07f);  // pi / 2 / 2^23
  const float z = mul_rn(t, t);
  float s = add_rn(mul_rn(-1.9515295891e-4f, z), 8.3321608736e-3f);
  s = add_rn(mul_rn(s, z), -1.6666654611e-1f);
  s = add_rn(mul_rn(mul_rn(s, z), t), t);
  float c = add_rn(mul_rn(2.443315711809948e-5f, z), -1.388731625493765e-3f);
  c = add_rn(mul_rn(c, z), 4.166664568298827e-2f);
  c = add_rn(add_rn(mul_rn(mul_rn(c, z), z), mul_rn(z, -0.5f)), 1.0f);
  const uint32_t quadrant = turn >> 22;
  const float x = quadrant & 1u ? s : c, y = quadrant & 1u ? c : s;
  *cos_part = mul_rn(r, bits_float(float_bits(x) ^ ((quadrant == 1u || quadrant == 2u) ? 0x80000000u : 0u)));
  *sin_part = mul_rn(r, bits_float(float_bits(y) ^ (quadrant >= 2u ? 0x80000000u : 0u)));
}

// logit(u) of a uniform u = x * 2^-24, x odd: a Bernoulli(sigmoid(s)) draw is kept iff s > logit(u).
HN_HD float logit_of_word(uint32_t word) {
  const uint32_t x = 2 * (word >> 9) + 1;
  return add_rn(log_unit(x), -log_unit((1u << 24) - x));
}

// The uniform itself, in (0, 1) and exact in float: a Bernoulli(p) draw is kept iff p > u.
HN_HD float unit_of_word(uint32_t word) { return mul_rn(float(int32_t(2 * (word >> 9) + 1)), 5.9604644775390625e-08f); }

HN_HD float bernoulli_unit(const Draw& d, uint32_t i) {
  return unit_of_word(word_of(philox_block(d, kBernoulliStream, i / 4), i));
}

HN_HD float bernoulli_logit(const Draw& d, uint32_t i) {
  return logit_of_word(word_of(philox_block(d, kBernoulliStream, i / 4), i));
}

// Is element i replaced by redraw number d.redraw? With probability limit / 2^32; always, from 2^32 on. Four a block.
HN_HD bool redrawn(const Draw& d, uint64_t limit, uint32_t i) {
  return word_of(philox_block(d, kRedrawStream, i / 4), i) < limit;
}

}  // namespace hn
