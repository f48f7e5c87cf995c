// test_redrawn_weight.cpp: weights by redraw numbers, bit for bit against the one-element functions of rng.cuh.
#include "base/isa.h"
#include "device.h"
#include "ops/redrawn_weight/redrawn_weight.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr Draw kName{0x12345678u, 0x9abcdef0u, 3, 12345};  // the redraw is each element's own

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const int n : {1, 3, 31, 32, 33, 129, 255, 256, 257, 1025, 4099}) all.push_back(flat_layout(n));
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9},  {3, 5, 1}, {6, 1, 25},  {4, 32, 4},
                           {1, 9, 3}, {11, 40, 9}, {3, 8, 4}, {2, 16, 121}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) all.push_back({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
  }
  return all;
}

float expected(Source kind, float scale, int32_t redraw, int32_t i) {
  const Draw draw{kName.key0, kName.key1, kName.layer, uint32_t(redraw)};
  if (kind == Source::kSigns) return sign_bit(draw, uint32_t(i)) != 0 ? -scale : scale;
  return weight_at({kind, nullptr, nullptr, scale, draw}, 0, i);
}

// `numbers`: how many different redraws there are.
void check_layer(const Layout& layout, Source kind, uint32_t numbers) {
  const Context context("n = " + std::to_string(layout.n) + (layout.channels_last ? " OHWI" : " OIHW") + ", source " +
                        std::to_string(int(kind)) + ", " + std::to_string(numbers) + " numbers");
  const float scale = 0.0731f;
  Random random(uint64_t(layout.n) + numbers);
  std::vector<int16_t> redraws;
  std::vector<float> want, cpu(size_t(layout.n));
  for (int32_t p = 0; p < layout.n; ++p) {
    redraws.push_back(int16_t(random.below(numbers) * (32767 / numbers)));
    want.push_back(expected(kind, scale, redraws.back(), layout.logical(p)));
  }
  for (const Isa path : {detect_isa(), Isa::kScalar}) {
    isa() = path;
    std::fill(cpu.begin(), cpu.end(), 0.0f);
    cpu::redrawn_weight({redraws.data(), kind, scale, kName, layout, cpu.data()});
    isa() = detect_isa();
    CHECK_EQ(cpu, want);
  }
  for (const size_t skew : {size_t(0), size_t(1)}) {
    std::vector<int16_t> shifted(skew, int16_t(0));
    shifted.insert(shifted.end(), redraws.begin(), redraws.end());
    const std::vector<float> got = test::same_in_every_order([&] {
      Buffer<int16_t> in(shifted);
      Buffer<float> out(skew + want.size());
      CHECK_EQ(cuda::redrawn_weight({in.data() + skew, kind, scale, kName, layout, out.data() + skew}, nullptr), 0);
      return out.read();
    });
    CHECK_EQ(std::vector<float>(got.begin() + long(skew), got.end()), want);
  }
}

TEST(weights_equal_the_one_element_functions) {
  for (const Layout& layout : layouts()) {
    for (const Source kind : kSources) {
      if (kind == Source::kStored) continue;
      for (const uint32_t numbers : {1u, 2u, 1000u}) check_layer(layout, kind, numbers);
    }
  }
}

}  // namespace
