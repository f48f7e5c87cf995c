// test_tile_conv.cpp: convolutions by matrix tiles with every kind of instructions, against plain loops in double
// precision, and maps turned to channels_last. Buffers have no room to spare: sanitizers see what goes beyond them.
#include <cmath>

#include "base/amx.h"
#include "conv_reference.h"
#include "isa_paths.h"
#include "ops/channels_last/channels_last.h"
#include "ops/tile_conv/tile_conv.h"

using namespace hn;
using hn::test::Context;
using hn::test::in_every_isa;
using hn::test::Random;
using hn::test::Shape;

namespace {

std::vector<uint16_t> drawn(Random* random, int64_t n) {
  std::vector<uint16_t> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(bfloat16_bits(random->symmetric()));
  return v;
}

// f() with tiles, with AVX512-BF16 and with plain loops, as far as the machine has them.
template <class F>
void in_every_way(F f) {
  const bool tiles = matrix_tiles(), products = bfloat16_products();
  for (const int way : {0, 1, 2}) {
    if ((way == 2 && !tiles) || (way == 1 && !products)) continue;
    const Context context(way == 0 ? "plain" : (way == 1 ? "AVX512-BF16" : "AMX"));
    matrix_tiles() = way == 2;
    bfloat16_products() = way >= 1;
    in_every_isa(f);
  }
  matrix_tiles() = tiles;
  bfloat16_products() = products;
}

void check_near(double got, double want, double products, double rounding) {
  if (std::fabs(got - want) <= 1e-6 * products + rounding * std::fabs(want) + 1e-6) return;
  CHECK_EQ(got, want);
}

void check(const Shape& shape) {
  const Context context(shape.text());
  const ConvShape s = shape.conv();
  const int32_t taps = s.kernel_height * s.kernel_width;
  Random random(uint64_t(shape.weights()) + 11);
  const auto x = drawn(&random, int64_t(s.batch) * s.in_height * s.in_width * s.in_channels);
  const auto dy = drawn(&random, int64_t(s.batch) * s.out_height * s.out_width * s.out_channels);
  const auto w = drawn(&random, shape.weights());
  std::vector<double> y(dy.size()), dx(x.size()), dw(w.size());
  for (int32_t n = 0; n < s.batch; ++n) {
    for (int32_t p = 0; p < s.out_height * s.out_width; ++p) {
      for (int32_t t = 0; t < taps; ++t) {
        const int32_t row =
            p / s.out_width * s.stride_height - s.padding_height + t / s.kernel_width * s.dilation_height;
        const int32_t column =
            p % s.out_width * s.stride_width - s.padding_width + t % s.kernel_width * s.dilation_width;
        if (row < 0 || row >= s.in_height || column < 0 || column >= s.in_width) continue;
        const size_t from = size_t((int64_t(n) * s.in_height + row) * s.in_width + column) * size_t(s.in_channels);
        const size_t to = size_t(int64_t(n) * s.out_height * s.out_width + p) * size_t(s.out_channels);
        for (size_t o = 0; o < size_t(s.out_channels); ++o) {
          for (size_t c = 0; c < size_t(s.in_channels); ++c) {
            const size_t i = (o * size_t(taps) + size_t(t)) * size_t(s.in_channels) + c;
            y[to + o] += double(from_bfloat16(w[i])) * from_bfloat16(x[from + c]);
            dx[from + c] += double(from_bfloat16(w[i])) * from_bfloat16(dy[to + o]);
            dw[i] += double(from_bfloat16(dy[to + o])) * from_bfloat16(x[from + c]);
          }
        }
      }
    }
  }
  in_every_way([&] {
    std::vector<uint16_t> got_y(y.size(), 0x4110), got_dx(dx.size(), 0x4110);
    std::vector<float> got_dw(dw.size(), 9.0f);
    cpu::tile_conv_forward({s, x.data(), w.data(), nullptr, got_y.data(), nullptr});
    cpu::tile_conv_input_gradient({s, nullptr, w.data(), dy.data(), got_dx.data(), nullptr});
    cpu::tile_conv_weight_gradient({s, x.data(), nullptr, dy.data(), nullptr, got_dw.data()});
    for (size_t i = 0; i < y.size(); ++i) check_near(from_bfloat16(got_y[i]), y[i], taps * s.in_channels, 1.0 / 256);
    for (size_t i = 0; i < dx.size(); ++i)
      check_near(from_bfloat16(got_dx[i]), dx[i], taps * s.out_channels, 1.0 / 256);
    const double places = double(s.batch) * s.out_height * s.out_width;
    for (size_t i = 0; i < dw.size(); ++i) check_near(got_dw[i], dw[i], places, 0);
  });
}

TEST(channels_and_batches_of_all_sizes) {
  check({1, 1, 1, {3, 3}, {3, 3}, {1, 1}, {1, 1}});
  check({17, 33, 31, {2, 3}, {3, 3}, {1, 1}, {1, 1}});
  check({33, 16, 65, {2, 2}, {1, 1}});
  check({35, 64, 32, {1, 1}, {1, 1}});
}

TEST(kernels_strides_and_dilations) {
  check({3, 9, 4, {9, 7}, {1, 1}, {2, 2}});
  check({2, 4, 5, {10, 11}, {2, 5}, {3, 1}, {0, 4}, {1, 2}});
  check({2, 3, 4, {11, 11}, {3, 2}, {5, 4}, {1, 0}, {1, 1}});
  check({2, 3, 4, {9, 9}, {3, 3}, {1, 1}, {6, 5}, {6, 5}});
  check({1, 2, 2, {3, 3}, {20, 20}, {9, 9}, {20, 20}, {2, 2}});
}

TEST(rows_in_bands) { check({2, 3, 34, {40, 20}, {3, 3}, {1, 1}, {1, 1}}); }

template <class T>
void check_turned(int64_t images, int64_t channels, int64_t positions) {
  std::vector<T> x, want;
  for (int64_t i = 0; i < images * channels * positions; ++i) x.push_back(T(i * 40503u + 7));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t p = 0; p < positions; ++p) {
      for (int64_t c = 0; c < channels; ++c) want.push_back(x[size_t((n * channels + c) * positions + p)]);
    }
  }
  in_every_isa([&] {
    std::vector<T> got(x.size());
    cpu::channels_last({x.data(), got.data(), images, channels, positions, int32_t(sizeof(T))});
    CHECK_EQ(got, want);
  });
}

TEST(maps_turned_to_channels_last) {
  for (const int64_t channels : {1, 3, 16, 31, 32, 33, 64, 70}) {
    for (const int64_t positions : {1, 15, 16, 32, 49, 64}) {
      check_turned<uint16_t>(2, channels, positions);
      check_turned<uint32_t>(3, channels, positions);
    }
  }
}

}  // namespace
