// test_rng.cpp: the counter-based generator: published vectors, distributions, and device bits
// equal to host bits.
#include <cmath>
#include <iterator>
#include <set>

#include "base/distributions.cuh"
#include "base/launch.cuh"
#include "device.h"

using namespace hn::test;
using hn::Draw;
using hn::launch;

namespace {

// Known answers of philox4x32-10 as distributed with Random123 (Salmon et al., SC 2011).
TEST(philox_known_answers) {
  const uint32_t f = 0xffffffffu;
  struct Vector {
    uint32_t in[6], out[4];
  };
  const Vector vectors[] = {{{0, 0, 0, 0, 0, 0}, {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}},
                            {{f, f, f, f, f, f}, {0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}},
                            {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u, 0xa4093822u, 0x299f31d0u},
                             {0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}}};
  for (const Vector& v : vectors) {
    const hn::Philox4 got = hn::philox4x32(v.in[0], v.in[1], v.in[2], v.in[3], v.in[4], v.in[5]);
    for (int i = 0; i < 4; ++i) CHECK_EQ(got.word[i], v.out[i]);
  }
}

TEST(mul_hi_is_the_high_word) {
  CHECK_EQ(hn::mul_hi(0xffffffffu, 0xffffffffu), 0xfffffffeu);
  CHECK_EQ(hn::mul_hi(0x10000u, 0x10000u), 1u);
  CHECK_EQ(hn::mul_hi(0xffffu, 0x10001u), 0u);
}

#define STREAM(D) , hn::D::kStream
constexpr hn::Stream kStreams[] = {hn::kSignStream, hn::kBernoulliStream, hn::kRedrawStream HN_DISTRIBUTIONS(STREAM)};
#undef STREAM

TEST(blocks_are_named_by_every_part_of_the_draw) {
  const Draw d = {1, 2, 3, 4};
  std::set<uint32_t> words;
  for (const Draw& e : {d, Draw{9, 2, 3, 4}, Draw{1, 9, 3, 4}, Draw{1, 2, 9, 4}, Draw{1, 2, 3, 9}}) {
    for (const hn::Stream s : kStreams) {
      for (uint32_t block : {0u, 1u, 0xffffffffu}) {
        const hn::Philox4 p = hn::philox_block(e, s, block);
        words.insert(p.word, p.word + 4);
      }
    }
  }
  CHECK_EQ(words.size(), 5 * std::size(kStreams) * 3 * 4);
  const hn::Philox4 direct = hn::philox4x32(7, 3, 4, hn::Normal::kStream, 1, 2);
  CHECK_EQ(hn::philox_block(d, hn::Normal::kStream, 7).word[2], direct.word[2]);
}

TEST(elements_are_taken_from_blocks_as_documented) {
  const Draw d = {0x12345678u, 0x9abcdef0u, 5, 6};
  for (uint32_t i : {0u, 1u, 31u, 32u, 127u, 128u, 4099u, 0x7fffffffu}) {
    const hn::Philox4 s = hn::philox_block(d, hn::kSignStream, i / 128);
    CHECK_EQ(hn::sign_bit(d, i), s.word[i % 128 / 32] >> (i % 32) & 1u);
    const hn::Philox4 u = hn::philox_block(d, hn::Uniform::kStream, i / 4);
    CHECK_EQ(hn::number_of<hn::Uniform>(d, i), hn::symmetric_unit(u.word[i % 4]));
    const hn::Philox4 n = hn::philox_block(d, hn::Normal::kStream, i / 4);
    float pair[2];
    hn::normal_pair(n.word[i % 4 / 2 * 2], n.word[i % 4 / 2 * 2 + 1], pair, pair + 1);
    CHECK_EQ(hn::number_of<hn::Normal>(d, i), pair[i % 2]);
    const hn::Philox4 l = hn::philox_block(d, hn::Laplace::kStream, i / 4);
    CHECK_EQ(hn::number_of<hn::Laplace>(d, i), hn::Laplace::number(l.word[i % 4]));
    const hn::Philox4 b = hn::philox_block(d, hn::kBernoulliStream, i / 4);
    CHECK_EQ(hn::bernoulli_logit(d, i), hn::logit_of_word(b.word[i % 4]));
    CHECK_EQ(hn::bernoulli_unit(d, i), hn::unit_of_word(b.word[i % 4]));
  }
}

TEST(symmetric_unit_is_odd_and_never_zero) {
  CHECK_EQ(hn::symmetric_unit(0), -1.0f + std::ldexp(1.0f, -24));
  CHECK_EQ(hn::symmetric_unit(0xffffffffu), 1.0f - std::ldexp(1.0f, -24));
  CHECK_EQ(hn::symmetric_unit(0x80000000u), std::ldexp(1.0f, -24));
  CHECK_EQ(hn::symmetric_unit(0x7fffffffu), -std::ldexp(1.0f, -24));
  Random random(1);
  for (int i = 0; i < 10000; ++i) {
    const uint32_t w = uint32_t(random.bits());
    CHECK_EQ(hn::symmetric_unit(~w), -hn::symmetric_unit(w));
  }
}

TEST(unit_of_word_is_inside_and_exact) {
  CHECK_EQ(hn::unit_of_word(0), std::ldexp(1.0f, -24));
  CHECK_EQ(hn::unit_of_word(0xffffffffu), 1.0f - std::ldexp(1.0f, -24));
  Random random(6);
  for (int i = 0; i < 10000; ++i) {
    const uint32_t w = uint32_t(random.bits());
    CHECK_EQ(double(hn::unit_of_word(w)), std::ldexp(double(2 * (w >> 9) + 1), -24));
  }
}

TEST(log_unit_is_the_logarithm) {
  Random random(2);
  std::vector<uint32_t> xs = {1, 3, 5, 7, (1u << 24) - 1, (1u << 24) - 3, (1u << 23) + 1, (1u << 23) - 1};
  for (int i = 0; i < 20000; ++i) xs.push_back(((uint32_t(random.bits()) >> random.below(24)) & 0xffffffu) | 1u);
  for (uint32_t x : xs) {
    const double exact = std::log(std::ldexp(double(x), -24));
    const double got = hn::log_unit(x);
    if (std::fabs(got - exact) > 2.5e-7 * std::fabs(exact) + 1e-12) CHECK_EQ(got, exact);
    CHECK(got < 0);  // the square root in normal_pair depends on it
  }
}

TEST(normal_pair_is_box_muller) {
  Random random(3);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t a = i < 4 ? 0xffffffffu * uint32_t(i & 1) : uint32_t(random.bits());
    const uint32_t b = i < 4 ? 0xffffffffu * uint32_t(i >> 1) : uint32_t(random.bits());
    const double u = std::ldexp(double(2 * (a >> 9) + 1), -24);
    const uint32_t turn = b >> 8;
    const double angle =
        1.5707963267948966 * (turn >> 22) + 1.5707963267948966 * (double(2 * (turn & 0x3fffffu) + 1) / (1 << 23) - 0.5);
    const double r = std::sqrt(-2.0 * std::log(u));
    float c, s;
    hn::normal_pair(a, b, &c, &s);
    const double error = std::max(std::fabs(c - r * std::cos(angle)), std::fabs(s - r * std::sin(angle)));
    if (error > 2e-6) CHECK_EQ(error, 0.0);
  }
}

TEST(laplace_is_signed_and_the_logarithm_of_a_uniform) {
  CHECK_EQ(hn::Laplace::number(0), -hn::log_unit(1));
  CHECK_EQ(hn::Laplace::number(1), hn::log_unit(1));
  Random random(5);
  for (int i = 0; i < 10000; ++i) {
    const uint32_t w = uint32_t(random.bits());
    const double exact = -std::log(std::ldexp(double(2 * (w >> 9) + 1), -24)) * (w & 1u ? -1 : 1);
    const double got = hn::Laplace::number(w);
    if (std::fabs(got - exact) > 2.5e-7 * std::fabs(exact) + 1e-12) CHECK_EQ(got, exact);
    CHECK_EQ(hn::Laplace::number(w ^ 1u), -hn::Laplace::number(w));
  }
}

TEST(truncated_normal_is_the_quantile_of_a_uniform) {
  Random random(7);
  for (int i = 0; i < 20000; ++i) {
    const uint32_t w = i < 2 ? 0xffffffffu * uint32_t(i) : uint32_t(random.bits());
    const double got = hn::TruncatedNormal::number(w);
    const double u = std::erf(got / std::sqrt(2.0)) / std::erf(std::sqrt(2.0));
    if (std::fabs(u - hn::symmetric_unit(w)) > 4e-7 * std::fabs(u)) CHECK_EQ(u, hn::symmetric_unit(w));
    CHECK_EQ(hn::TruncatedNormal::number(~w), -hn::TruncatedNormal::number(w));
  }
}

TEST(logit_is_antisymmetric_and_right) {
  Random random(4);
  for (int i = 0; i < 10000; ++i) {
    const uint32_t w = uint32_t(random.bits());
    const double u = std::ldexp(double(2 * (w >> 9) + 1), -24), exact = std::log(u / (1 - u));
    const double got = hn::logit_of_word(w);
    if (std::fabs(got - exact) > 2e-6) CHECK_EQ(got, exact);
    CHECK_EQ(hn::logit_of_word(~w), -hn::logit_of_word(w));
  }
}

// Mean and variance of a million elements lie within five standard errors; neighbours do not
// correlate.
template <class F>
void check_moments(F f, double mean, double variance, double fourth) {
  const uint32_t n = 1u << 20;
  double sum = 0, squares = 0, lagged = 0, previous = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const double x = f(i) - mean;
    sum += x;
    squares += x * x;
    lagged += x * previous;
    previous = x;
  }
  CHECK(std::fabs(sum / n) < 5 * std::sqrt(variance / n));
  CHECK(std::fabs(squares / n - variance) < 5 * std::sqrt((fourth - variance * variance) / n) + 1e-9);
  CHECK(std::fabs(lagged / n) < 5 * variance / std::sqrt(double(n)));
}

TEST(moments) {
  const Draw d = {2024, 7, 3, 0};
  check_moments([&](uint32_t i) { return double(hn::sign_bit(d, i)); }, 0.5, 0.25, 0.0625);
  check_moments([&](uint32_t i) { return double(hn::number_of<hn::Uniform>(d, i)); }, 0, 1.0 / 3, 0.2);
  check_moments([&](uint32_t i) { return double(hn::number_of<hn::Normal>(d, i)); }, 0, 1, 3);
  check_moments([&](uint32_t i) { return double(hn::number_of<hn::Laplace>(d, i)); }, 0, 2, 24);
  check_moments([&](uint32_t i) { return double(hn::number_of<hn::TruncatedNormal>(d, i)); }, 0, 0.7737413, 1.4162);
  const double p = 1 / (1 + std::exp(-0.7));  // kept iff score > logit, with score 0.7
  check_moments([&](uint32_t i) { return double(0.7f > hn::bernoulli_logit(d, i)); }, p, p * (1 - p),
                p * (1 - p) * (1 - 3 * p * (1 - p)));
}

// One of each family but the redraws'.
constexpr uint32_t kPerElement = std::size(kStreams) - 1;

HN_HD void draw_element(const Draw& d, uint32_t i, float* out) {
  *out++ = float(hn::sign_bit(d, i));
  *out++ = hn::bernoulli_logit(d, i);
#define NUMBER(D) *out++ = hn::number_of<hn::D>(d, i);
  HN_DISTRIBUTIONS(NUMBER)
#undef NUMBER
}

__global__ void draw_kernel(Draw d, uint32_t first, uint32_t n, float* out) {
  const uint32_t t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t < n) draw_element(d, first + t, out + kPerElement * t);
}

TEST(device_bits_are_host_bits) {
  const Draw d = {77, 88, 3, 4};
  for (uint32_t first : {0u, 1u, 0x7ffffff0u}) {
    const uint32_t n = 16411;
    std::vector<float> expected(kPerElement * n);
    for (uint32_t t = 0; t < n; ++t) draw_element(d, first + t, &expected[kPerElement * t]);
    Buffer<float> out(expected.size());
    CHECK_EQ(launch(draw_kernel, (n + 255) / 256, 256, 0, nullptr, d, first, n, out.data()), 0);
    CHECK_EQ(out.read(), expected);
  }
}

}  // namespace
