// test_mask.cpp: masks of every rule, packing and unpacking, against plain loops and the CPU loops.
#include <limits>

#include "device.h"
#include "ops/mask/mask.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const int n : {1, 31, 32, 33, 255, 1025, 4099}) all.push_back(flat_layout(n));
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9}, {3, 5, 1}, {6, 1, 25}, {4, 32, 4}, {1, 9, 3}, {16, 20, 9}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) all.push_back({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
  }
  return all;
}

std::vector<uint8_t> random_bytes(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> v(n);
  for (uint8_t& x : v) x = uint8_t(random.bits());
  return v;
}

std::vector<uint8_t> without(const std::vector<uint8_t>& v, size_t before) {
  return std::vector<uint8_t>(v.begin() + long(before), v.end());
}

TEST(masks_of_every_rule) {
  const float special[] = {
      0.0f, -0.0f, 0.5f, -0.5f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()};
  for (const Layout& layout : layouts()) {
    Random random(uint64_t(layout.n));
    std::vector<float> scores(size_t(layout.n));
    for (float& x : scores) x = random.below(3) ? random.symmetric() : special[random.below(6)];
    const std::vector<uint8_t> bits = random_bytes((size_t(layout.n) + 7) / 8, 5);
    const std::vector<Selection> rows{{float_bits(0.5f), layout.n / 2, 0, 0},
                                      {value_key(float_bits(0.5f)), layout.n / 3, 0, 0}};
    const int64_t step = (int64_t(1) << 32) + 5;  // only the low half counts
    const Buffer<float> device_scores(scores);
    const Buffer<uint8_t> device_bits(bits);
    const Buffer<Selection> device_rows(rows);
    const Buffer<int64_t> device_step(std::vector<int64_t>{step});
    for (const RuleKind kind : {RuleKind::kAll, RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kBits,
                                RuleKind::kSampled, RuleKind::kExpectation, RuleKind::kRounded, RuleKind::kScored}) {
      const Context context("n = " + std::to_string(layout.n) + (layout.channels_last ? " OHWI" : " OIHW") + ", rule " +
                            std::to_string(int(kind)));
      const size_t row = kind == RuleKind::kValue || kind == RuleKind::kRounded;
      const bool draws = kind != RuleKind::kRounded || layout.n % 3 == 0;  // by a draw, or by the threshold
      const bool reads_scores = kind != RuleKind::kAll && kind != RuleKind::kBits;
      const Rule rule{kind, rows.data() + row, bits.data(), draws ? &step : nullptr, {1, 2, 3, 4}};
      const Rule on_device{
          kind, device_rows.data() + row, device_bits.data(), draws ? device_step.data() : nullptr, {1, 2, 3, 4}};
      std::vector<uint8_t> want(scores.size()), cpu(scores.size());
      for (int32_t p = 0; p < layout.n; ++p) want[size_t(p)] = kept(rule, scores[size_t(p)], layout.logical(p));
      cpu::rule_mask({reads_scores ? scores.data() : nullptr, rule, layout, cpu.data()});
      CHECK_EQ(cpu, want);
      for (const size_t before : {0, 3}) {
        const std::vector<uint8_t> got = test::same_in_every_order([&] {
          Buffer<uint8_t> mask(before + want.size());
          CHECK_EQ(
              cuda::rule_mask({reads_scores ? device_scores.data() : nullptr, on_device, layout, mask.data() + before},
                              nullptr),
              0);
          return mask.read();
        });
        CHECK_EQ(without(got, before), want);
      }
    }
  }
}

TEST(pack_and_unpack) {
  for (const Layout& layout : layouts()) {
    const Context context("n = " + std::to_string(layout.n) + (layout.channels_last ? " OHWI" : " OIHW"));
    std::vector<uint8_t> mask = random_bytes(size_t(layout.n), 6), as_01;
    for (uint8_t& x : mask) x = x % 3 ? x : 0;  // any non-zero byte counts as 1
    for (const uint8_t x : mask) as_01.push_back(x != 0);
    std::vector<uint8_t> want((mask.size() + 7) / 8, 0), cpu(want.size());
    for (int32_t i = 0; i < layout.n; ++i) {
      want[size_t(i / 8)] |= uint8_t((mask[size_t(layout.physical(i))] != 0) << (i % 8));
    }
    cpu::pack_mask({mask.data(), layout, cpu.data()});
    CHECK_EQ(cpu, want);
    for (const size_t before : {0, 1}) {
      std::vector<uint8_t> shifted(before, 0);
      shifted.insert(shifted.end(), mask.begin(), mask.end());
      const Buffer<uint8_t> device_mask(shifted), device_bits(want);
      CHECK_EQ(test::same_in_every_order([&] {
                 Buffer<uint8_t> bits(want.size());
                 CHECK_EQ(cuda::pack_mask({device_mask.data() + before, layout, bits.data()}, nullptr), 0);
                 return bits.read();
               }),
               want);
      const std::vector<uint8_t> back = test::same_in_every_order([&] {
        Buffer<uint8_t> out(before + mask.size());
        CHECK_EQ(cuda::unpack_mask({device_bits.data(), layout, out.data() + before}, nullptr), 0);
        return out.read();
      });
      CHECK_EQ(without(back, before), as_01);
    }
    std::vector<uint8_t> cpu_back(mask.size());
    cpu::unpack_mask({want.data(), layout, cpu_back.data()});
    CHECK_EQ(cpu_back, as_01);
  }
}

}  // namespace
