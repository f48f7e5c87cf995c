// test_quantize_codes.cpp: ranges, codes and thresholds: kernels and CPU loops, bit for bit against the one-element
// functions, and those against exact arithmetic.
#include <cmath>
#include <limits>

#include "base/isa.h"
#include "device.h"
#include "ops/quantize_codes/quantize_codes.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> some_values(int64_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(i % 7 == 0 ? 0.0f : random.symmetric() * (i % 5 == 0 ? 4.0f : 1.0f));
  return x;
}

std::vector<uint16_t> as_bfloat16(const std::vector<float>& x) {
  std::vector<uint16_t> bits;
  for (const float v : x) bits.push_back(bfloat16_bits(v));
  return bits;
}

// On every CPU path and in every order of threads; `skew`: elements between an aligned address and x.
template <class T>
std::vector<float> range_of(const std::vector<T>& x, Dtype dtype, int64_t samples, int64_t size) {
  const auto run_cpu = [&] {
    std::vector<uint32_t> work(size_t(samples) + 1, 7);
    float maximum = -1.0f;
    cpu::code_range({x.data(), dtype, samples, size, work.data(), &maximum});
    return std::vector<float>{maximum};
  };
  const std::vector<float> want = run_cpu();
  isa() = Isa::kScalar;
  CHECK_EQ(run_cpu(), want);
  isa() = detect_isa();
  for (const size_t skew : {size_t(0), size_t(1)}) {
    CHECK_EQ(test::same_in_every_order([&] {
               std::vector<T> padded(skew);
               padded.insert(padded.end(), x.begin(), x.end());
               Buffer<T> in(padded);
               Buffer<uint32_t> work(size_t(samples) + 1);
               Buffer<float> maximum(1);
               CHECK_EQ(
                   cuda::code_range({in.data() + skew, dtype, samples, size, work.data(), maximum.data()}, nullptr), 0);
               return maximum.read();
             }),
             want);
  }
  return want;
}

TEST(ranges_are_means_of_maxima) {
  const int64_t shapes[][2] = {{1, 1}, {1, 4099}, {3, 33}, {5, 1025}, {300, 9}, {2, 40000}, {1, 0}};
  for (const auto& s : shapes) {
    const Context context(std::to_string(s[0]) + " x " + std::to_string(s[1]));
    const std::vector<float> x = some_values(s[0] * s[1], uint64_t(s[1]));
    double sum = 0.0;
    for (int64_t n = 0; n < s[0]; ++n) {
      float most = 0.0f;
      for (int64_t i = 0; i < s[1]; ++i) most = std::max(most, std::fabs(x[size_t(n * s[1] + i)]));
      sum += double(most);
    }
    CHECK_EQ(range_of(x, Dtype::kFloat32, s[0], s[1]), std::vector<float>{float(sum / double(s[0]))});
  }
  std::vector<float> widened;
  const std::vector<uint16_t> half = as_bfloat16(some_values(6 * 100, 3));
  for (const uint16_t h : half) widened.push_back(from_bfloat16(h));
  CHECK_EQ(range_of(half, Dtype::kBFloat16, 6, 100), range_of(widened, Dtype::kFloat32, 6, 100));
}

TEST(what_is_no_number_shows_in_the_range) {
  for (const float bad : {kNan, -kNan, kInf, -kInf}) {
    std::vector<float> x = some_values(3 * 50, 1);
    x[77] = bad;
    CHECK(!is_number(range_of(x, Dtype::kFloat32, 3, 50)[0]));
    CHECK(!is_number(range_of(x, Dtype::kFloat32, 1, 150)[0]));
  }
}

struct Case {
  float maximum;
  int bits;
  bool is_signed;
  int64_t channels, pixels;  // 0: as x lies
};

CodeType type_of(const Case& c) {
  if (c.bits <= 8) return c.is_signed ? CodeType::kInt8 : CodeType::kUint8;
  return c.bits < 16 || c.is_signed ? CodeType::kInt16 : CodeType::kInt32;
}

template <class T, class X>
std::vector<int32_t> codes_by(const std::vector<X>& x, Dtype dtype, const Case& c, bool on_cuda, size_t skew) {
  const auto params = [&](const X* in, const float* maximum, T* codes, float* delta) {
    return QuantizeCodesParams{in,    dtype, int64_t(x.size()), maximum, c.bits, c.is_signed, type_of(c),
                               codes, delta, c.channels,        c.pixels};
  };
  std::vector<T> codes(x.size(), T(77));
  float delta = -7.0f;
  if (on_cuda) {
    std::vector<X> padded(skew);
    padded.insert(padded.end(), x.begin(), x.end());
    Buffer<X> in(padded);
    Buffer<T> out(x.size());
    Buffer<float> maximum(std::vector<float>{c.maximum}), step(1);
    CHECK_EQ(cuda::quantize_codes(params(in.data() + skew, maximum.data(), out.data(), step.data()), nullptr), 0);
    codes = out.read();
    delta = step.read()[0];
  } else {
    cpu::quantize_codes(params(x.data(), &c.maximum, codes.data(), &delta));
  }
  std::vector<int32_t> all(codes.begin(), codes.end());
  all.push_back(int32_t(test::comparable_bits(delta)));
  return all;
}

template <class X>
std::vector<int32_t> codes_by_type(const std::vector<X>& x, Dtype dtype, const Case& c, bool on_cuda, size_t skew) {
  switch (type_of(c)) {
    case CodeType::kUint8: return codes_by<uint8_t>(x, dtype, c, on_cuda, skew);
    case CodeType::kInt8: return codes_by<int8_t>(x, dtype, c, on_cuda, skew);
    case CodeType::kInt16: return codes_by<int16_t>(x, dtype, c, on_cuda, skew);
    default: return codes_by<int32_t>(x, dtype, c, on_cuda, skew);
  }
}

void check_codes(const std::vector<float>& x, const Case& c) {
  const Context context("range " + std::to_string(c.maximum) + ", bits " + std::to_string(c.bits) + ", " +
                        std::to_string(c.channels) + " x " + std::to_string(c.pixels));
  const CodeGrid g = code_grid(c.maximum, c.bits, c.is_signed);
  std::vector<int32_t> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    size_t to = i;
    if (c.pixels > 0) {
      const size_t pixels = size_t(c.pixels), channels = size_t(c.channels), image = pixels * channels;
      to = i / image * image + i % pixels * channels + i % image / pixels;
    }
    want[to] = code_of(g, x[i]);
  }
  want.push_back(int32_t(test::comparable_bits(g.delta)));
  for (const Isa path : {detect_isa(), Isa::kScalar}) {
    isa() = path;
    CHECK_EQ(codes_by_type(x, Dtype::kFloat32, c, false, 0), want);
    isa() = detect_isa();
  }
  for (const size_t skew : {size_t(0), size_t(1)}) {
    CHECK_EQ(test::same_in_every_order([&] { return codes_by_type(x, Dtype::kFloat32, c, true, skew); }), want);
  }
}

TEST(codes_as_their_elements) {
  for (const int n : test::awkward_sizes()) {
    for (const int bits : {1, 2, 7, 8, 9, 15, 16}) {
      for (const bool is_signed : {false, true})
        check_codes(some_values(n, uint64_t(n)), {1.3f, bits, is_signed, 0, 0});
    }
  }
  std::vector<float> odd = some_values(100, 9);
  odd[3] = kNan;
  odd[4] = kInf;
  odd[5] = -kInf;
  for (const float maximum : {0.0f, 1e-45f, 1e-40f, 3e38f, kInf, kNan}) {
    for (const bool is_signed : {false, true}) check_codes(odd, {maximum, 8, is_signed, 0, 0});
  }
}

TEST(codes_change_places) {
  const int64_t shapes[][3] = {{2, 3, 25}, {1, 64, 64},   {3, 17, 16}, {2, 40, 1},
                               {1, 1, 70}, {1, 20, 1100}, {2, 16, 33}};
  for (const auto& s : shapes) {
    for (const int bits : {8, 16}) {
      for (const bool is_signed : {false, true}) {
        check_codes(some_values(s[0] * s[1] * s[2], 5), {1.1f, bits, is_signed, s[1], s[2]});
      }
    }
  }
}

TEST(codes_of_bfloat16) {
  const std::vector<uint16_t> half = as_bfloat16(some_values(2 * 24 * 50, 3));
  std::vector<float> widened;
  for (const uint16_t h : half) widened.push_back(from_bfloat16(h));
  for (const int64_t pixels : {int64_t(0), int64_t(50)}) {
    const Case c{1.2f, 8, true, pixels ? 24 : 0, pixels};
    const std::vector<int32_t> want = codes_by_type(widened, Dtype::kFloat32, c, false, 0);
    CHECK_EQ(codes_by_type(half, Dtype::kBFloat16, c, false, 0), want);
    for (const size_t skew : {size_t(0), size_t(1)})
      CHECK_EQ(codes_by_type(half, Dtype::kBFloat16, c, true, skew), want);
  }
}

// The header's formula, of exact quotients, where the range is a power of two; ties go to even codes counted from 0.
TEST(elements_follow_the_formula) {
  for (const int bits : {1, 2, 3, 8, 16}) {
    for (const bool is_signed : {false, true}) {
      const CodeGrid g = code_grid(2.0f, bits, is_signed);
      const double low = is_signed ? -std::ldexp(1.0, bits - 1) : 0.0, delta = std::ldexp(is_signed ? 4.0 : 2.0, -bits);
      CHECK_EQ(double(g.delta), delta);
      for (int i = -600; i <= 600; ++i) {
        const double quotient = bits == 16 ? i * 100.5 : i / 4.0;  // quarters: ties among them
        const double counted = std::min(std::max(quotient - low, 0.0), std::ldexp(1.0, bits) - 1.0);
        CHECK_EQ(double(code_of(g, float(quotient * delta))), std::nearbyint(counted) + low);
      }
    }
  }
}

TEST(thresholds) {
  for (const int n : test::awkward_sizes()) {
    std::vector<float> grad = some_values(n, uint64_t(n)), exact = some_values(n, uint64_t(n) + 1);
    if (n > 31) grad[30] = kNan;
    for (const bool relative : {false, true}) {
      for (const bool mixed : {false, true}) {
        for (const bool sign : {false, true}) {
          const float maximum = 4.0f, threshold = relative ? 0.1f : 0.4f;
          const float bar = relative ? mul_rn(threshold, maximum) : threshold;
          std::vector<float> want;
          for (size_t i = 0; i < grad.size(); ++i) {
            float v = std::fabs(grad[i]) < bar ? (mixed ? exact[i] : 0.0f) : grad[i];
            if (sign && !std::isnan(v)) v = float((v > 0) - (v < 0));
            want.push_back(v);
          }
          const auto params = [&](float* g, const float* e, const float* m) {
            return ThresholdParams{g, mixed ? e : nullptr, relative ? m : nullptr, int64_t(n), threshold, sign};
          };
          for (const Isa path : {detect_isa(), Isa::kScalar}) {
            isa() = path;
            std::vector<float> got = grad;
            cpu::threshold_gradient(params(got.data(), exact.data(), &maximum));
            isa() = detect_isa();
            CHECK_EQ(got, want);
          }
          Buffer<float> beside(exact), most(std::vector<float>{maximum});
          CHECK_EQ(test::same_in_every_order([&] {
                     Buffer<float> g(grad);
                     CHECK_EQ(cuda::threshold_gradient(params(g.data(), beside.data(), most.data()), nullptr), 0);
                     return g.read();
                   }),
                   want);
        }
      }
    }
  }
}

}  // namespace
