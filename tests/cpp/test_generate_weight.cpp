// test_generate_weight.cpp: generated weights and sign planes, bit for bit against the one-element
// functions of rng.cuh and the CPU loops, in every layout and dtype.
#include "device.h"
#include "ops/generate_weight/generate_weight.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;

namespace {

constexpr Draw kDraw{0x12345678u, 0x9abcdef0u, 3, 9};

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const int n : {1, 31, 32, 33, 127, 128, 129, 255, 1025, 4099}) all.push_back(flat_layout(n));
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9},  {3, 5, 1}, {6, 1, 25},   {4, 32, 4},
                           {1, 9, 3}, {11, 40, 9}, {3, 8, 4}, {2, 16, 121}, {1, 8, 257}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) all.push_back({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
  }
  return all;
}

float expected(Source kind, bool signs, float scale, int32_t i) {
  if (signs) return sign_bit(kDraw, uint32_t(i)) != 0 ? -scale : scale;
  if (kind == Source::kConstant) return scale;
  float number = 0.0f;
  with_distribution(kind, [&](auto d) { number = number_of<decltype(d)>(kDraw, uint32_t(i)); });
  return number * scale;
}

TEST(weights_equal_the_one_element_functions) {
  const float scale = 0.0731f;
  struct Init {
    Source kind;
    bool signs;
  };
  std::vector<Init> inits = {{Source::kConstant, false}, {Source::kConstant, true}};
  for (const Source kind : kSources) {
    if (draws_words(kind)) inits.push_back({kind, false});
  }
  for (const Layout& layout : layouts()) {
    for (const Init init : inits) {
      for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
        const Context context("n = " + std::to_string(layout.n) + (layout.channels_last ? " OHWI" : " OIHW") +
                              ", source " + std::to_string(int(init.kind)) + (init.signs ? " with signs" : ""));
        const size_t bytes = size_t(layout.n) * size_t(dtype_bytes(dtype));
        std::vector<uint8_t> want(bytes), cpu(bytes);
        for (int32_t p = 0; p < layout.n; ++p) {
          store_float(want.data(), dtype, p, expected(init.kind, init.signs, scale, layout.logical(p)));
        }
        GenerateWeightParams params{{init.kind, nullptr, nullptr, scale, kDraw}, init.signs, layout, dtype, cpu.data()};
        cpu::generate_weight(params);
        CHECK_EQ(cpu, want);
        for (const size_t before : {size_t(0), size_t(dtype_bytes(dtype))}) {  // aligned to 16 bytes, and not
          const std::vector<uint8_t> got = test::same_in_every_order([&] {
            Buffer<uint8_t> out(before + bytes);
            params.out = out.data() + before;
            CHECK_EQ(cuda::generate_weight(params, nullptr), 0);
            return out.read();
          });
          CHECK_EQ(std::vector<uint8_t>(got.begin() + long(before), got.end()), want);
        }
      }
    }
  }
}

TEST(sign_planes_equal_the_one_element_function) {
  for (const int n : {0, 1, 7, 8, 31, 32, 33, 127, 128, 129, 255, 1025, 4099, 32768, 40000}) {
    const Context context("n = " + std::to_string(n));
    std::vector<uint8_t> want((size_t(n) + 7) / 8, 0), cpu(want.size());
    for (int i = 0; i < n; ++i) want[size_t(i / 8)] |= uint8_t(sign_bit(kDraw, uint32_t(i)) << (i % 8));
    cpu::generate_signs({kDraw, n, cpu.data()});
    CHECK_EQ(cpu, want);
    for (const size_t before : {0, 3}) {
      const std::vector<uint8_t> got = test::same_in_every_order([&] {
        Buffer<uint8_t> plane(before + want.size());
        CHECK_EQ(cuda::generate_signs({kDraw, n, plane.data() + before}, nullptr), 0);
        return plane.read();
      });
      CHECK_EQ(std::vector<uint8_t>(got.begin() + long(before), got.end()), want);
    }
  }
}

// The plane and the weights are two views of the same signs.
TEST(signed_constants_carry_the_plane) {
  const int n = 1025;
  Buffer<uint8_t> plane((n + 7) / 8);
  Buffer<float> weights(n);
  CHECK_EQ(cuda::generate_signs({kDraw, n, plane.data()}, nullptr), 0);
  CHECK_EQ(
      cuda::generate_weight(
          {{Source::kConstant, nullptr, nullptr, 0.5f, kDraw}, true, flat_layout(n), Dtype::kFloat32, weights.data()},
          nullptr),
      0);
  const std::vector<uint8_t> bits = plane.read();
  std::vector<float> want;
  for (int i = 0; i < n; ++i) want.push_back(bits[size_t(i / 8)] >> (i % 8) & 1 ? -0.5f : 0.5f);
  CHECK_EQ(weights.read(), want);
}

}  // namespace
