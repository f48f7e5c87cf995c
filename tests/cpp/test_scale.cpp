// test_scale.cpp: the template op's kernel against a plain loop and the CPU loop. Copy it, too.
#include <limits>

#include "device.h"
#include "ops/template_op/scale.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

std::vector<float> numbers(size_t n) {
  Random random(n);
  std::vector<float> v(n);
  for (float& x : v) x = random.symmetric();
  if (n > 3) v[3] = std::numeric_limits<float>::quiet_NaN();
  return v;
}

// `before`: floats between a 256-byte boundary and the data; 1 takes the unaligned road.
TEST(scale_equals_a_loop) {
  for (const int n : test::awkward_sizes()) {
    for (const int before : {0, 1, 4}) {
      const Context size("n = " + std::to_string(n) + " after " + std::to_string(before));
      const std::vector<float> x = numbers(size_t(n));
      std::vector<float> want, cpu(x.size());
      for (const float v : x) want.push_back(-2.5f * v);
      cpu::scale({x.data(), cpu.data(), -2.5f, n});
      CHECK_EQ(cpu, want);

      std::vector<float> shifted(size_t(before), 0.0f);
      shifted.insert(shifted.end(), x.begin(), x.end());
      const std::vector<float> got = test::same_in_every_order([&] {
        Buffer<float> in(shifted), out(shifted.size());  // poisoned: every element must be written
        CHECK_EQ(cuda::scale({in.data() + before, out.data() + before, -2.5f, n}, nullptr), 0);
        return out.read();
      });
      CHECK_EQ(std::vector<float>(got.begin() + before, got.end()), want);
    }
  }
}

TEST(scale_in_place) {
  const std::vector<float> x = numbers(1025);
  std::vector<float> want;
  for (const float v : x) want.push_back(3.0f * v);
  Buffer<float> buffer(x);
  CHECK_EQ(cuda::scale({buffer.data(), buffer.data(), 3.0f, 1025}, nullptr), 0);
  CHECK_EQ(buffer.read(), want);
}

}  // namespace
