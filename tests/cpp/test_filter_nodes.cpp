// test_filter_nodes.cpp: what nodes do between receiving and sending: kernel and CPU loops, every instruction set, bit for
// bit against one fused multiply-add a term.
#include <cmath>
#include <limits>

#include "device.h"
#include "isa_paths.h"
#include "ops/filter_nodes/filter_nodes.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::in_every_isa;
using hn::test::Random;

namespace {

struct Case {
  int32_t images, nodes, height, width, stride;
  int32_t x_beside, y_beside;  // floats between images that are not theirs

  int32_t out(int32_t side) const { return side == 0 ? 0 : (side - 1) / stride + 1; }
  int64_t x_image() const { return int64_t(nodes) * height * width + x_beside; }
  int64_t y_image() const { return int64_t(nodes) * out(height) * out(width) + y_beside; }
};

struct Numbers {
  std::vector<float> x, y, scale, shift, taps;
};

std::vector<float> drawn(int64_t n, Random& random) {
  std::vector<float> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(random.symmetric());
  return v;
}

Numbers numbers_of(const Case& c) {
  Random random(uint64_t(c.nodes) * 100 + uint64_t(c.width));
  return {drawn(c.x_image() * c.images, random), drawn(c.y_image() * c.images, random), drawn(c.nodes, random),
          drawn(c.nodes, random), drawn(int64_t(c.nodes) * 9, random)};
}

FilterNodesParams params(const Case& c) {
  FilterNodesParams p = {};
  p.x_image = c.x_image();
  p.y_image = c.y_image();
  p.images = c.images;
  p.nodes = c.nodes;
  p.height = c.height;
  p.width = c.width;
  p.out_height = c.out(c.height);
  p.out_width = c.out(c.width);
  p.stride = c.stride;
  return p;
}

float term(const Case& c, const Numbers& v, const float* map, int32_t node, int32_t a, int32_t b) {
  if (a < 0 || a >= c.height || b < 0 || b >= c.width) return 0.0f;
  const float r = std::fma(v.scale[size_t(node)], map[int64_t(a) * c.width + b], v.shift[size_t(node)]);
  return r < 0.0f ? 0.0f : r;
}

std::vector<float> expected(const Case& c, const Numbers& v) {
  std::vector<float> y = v.y;
  for (int32_t n = 0; n < c.images; ++n) {
    for (int32_t node = 0; node < c.nodes; ++node) {
      const float* map = v.x.data() + n * c.x_image() + int64_t(node) * c.height * c.width;
      float* to = y.data() + n * c.y_image() + int64_t(node) * c.out(c.height) * c.out(c.width);
      for (int32_t i = 0; i < c.out(c.height); ++i) {
        for (int32_t j = 0; j < c.out(c.width); ++j) {
          float sum = 0.0f;
          for (int32_t k = 0; k < 9; ++k) {
            const float r = term(c, v, map, node, i * c.stride + k / 3 - 1, j * c.stride + k % 3 - 1);
            sum = std::fma(v.taps[size_t(9 * node + k)], r, sum);
          }
          *to++ = sum;
        }
      }
    }
  }
  return y;
}

std::vector<float> filter_cpu(const Case& c, const Numbers& v) {
  std::vector<float> y = v.y;
  FilterNodesParams p = params(c);
  p.x = v.x.data();
  p.y = y.data();
  p.scale = v.scale.data();
  p.shift = v.shift.data();
  p.taps = v.taps.data();
  cpu::filter_nodes(p);
  return y;
}

std::vector<float> filter_cuda(const Case& c, const Numbers& v) {
  const Buffer<float> x(v.x), scale(v.scale), shift(v.shift), taps(v.taps);
  Buffer<float> y(v.y);
  FilterNodesParams p = params(c);
  p.x = x.data();
  p.y = y.data();
  p.scale = scale.data();
  p.shift = shift.data();
  p.taps = taps.data();
  CHECK_EQ(cuda::filter_nodes(p, nullptr), 0);
  return y.read();
}

void check(const Case& c, const Numbers& v) {
  const Context context(std::to_string(c.images) + " images of " + std::to_string(c.nodes) + " maps of " +
                        std::to_string(c.height) + " x " + std::to_string(c.width) + ", stride " +
                        std::to_string(c.stride));
  const std::vector<float> want = expected(c, v);
  in_every_isa([&] { CHECK_EQ(filter_cpu(c, v), want); });
  CHECK_EQ(test::same_in_every_order([&] { return filter_cuda(c, v); }), want);
}

// Around vectors of 8 and 16, with even and odd sides.
TEST(maps_of_all_sizes) {
  for (const int32_t stride : {1, 2, 3}) {
    for (const int32_t width : {1, 2, 3, 7, 8, 9, 14, 15, 16, 17, 18, 31, 32, 33, 34, 47, 63, 64, 65, 66}) {
      const Case c{1, 2, 5, width, stride, 0, 0};
      check(c, numbers_of(c));
    }
    for (const int32_t height : {1, 2, 3, 4, 9}) {
      const Case c{2, 3, height, 6, stride, 5, 3};
      check(c, numbers_of(c));
    }
  }
  for (const Case& c :
       {Case{1, 2, 4, 9, 20, 0, 0}, Case{0, 2, 4, 4, 1, 0, 0}, Case{2, 0, 4, 4, 1, 0, 0}, Case{2, 3, 0, 4, 1, 0, 0}}) {
    check(c, numbers_of(c));
  }
}

TEST(numbers_that_are_none_stay) {
  const Case c{1, 1, 4, 20, 1, 0, 0};
  Numbers v = numbers_of(c);
  v.x[25] = std::numeric_limits<float>::quiet_NaN();
  in_every_isa([&] {
    const std::vector<float> y = filter_cpu(c, v);
    for (int32_t i = 0; i < 80; ++i) CHECK_EQ(std::isnan(y[size_t(i)]), i / 20 < 3 && i % 20 >= 4 && i % 20 < 7);
  });
  const std::vector<float> y = filter_cuda(c, v);
  for (int32_t i = 0; i < 80; ++i) CHECK_EQ(std::isnan(y[size_t(i)]), i / 20 < 3 && i % 20 >= 4 && i % 20 < 7);
}

}  // namespace
