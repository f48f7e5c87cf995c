// test_sparse_conv.cpp: convolutions by sparse weights and the dense weight gradient on every instruction set, against plain
// loops in double precision. Buffers have no room to spare: sanitizers see every read and write beyond them.
#include <cmath>

#include "conv_reference.h"
#include "isa_paths.h"
#include "ops/dense_weight_gradient/dense_weight_gradient.h"
#include "ops/sparse_conv/sparse_conv.h"

using namespace hn;
using hn::test::Context;
using hn::test::in_every_isa;
using hn::test::Random;
using hn::test::Shape;

namespace {

enum class Weights { kValues, kSigns, kNone, kAll };

struct Layer {
  ConvShape s;
  bool channels_last;
  std::vector<float> x, dy, w;

  int32_t taps() const { return s.kernel_height * s.kernel_width; }
  size_t at(int32_t o, int32_t c, int32_t t) const {
    return size_t(channels_last ? (int64_t(o) * taps() + t) * s.in_channels + c
                                : (int64_t(o) * s.in_channels + c) * taps() + t);
  }
};

std::vector<float> drawn(Random* random, int64_t n) {
  std::vector<float> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(random->symmetric());
  return v;
}

Layer make_layer(const Shape& shape, Weights weights, bool channels_last) {
  Layer l{shape.conv(), channels_last, {}, {}, {}};
  Random random(uint64_t(shape.weights()) + 7);
  l.x = drawn(&random, int64_t(l.s.batch) * l.s.in_channels * l.s.in_height * l.s.in_width);
  l.dy = drawn(&random, int64_t(l.s.batch) * l.s.out_channels * l.s.out_height * l.s.out_width);
  for (int32_t i = 0; i < shape.weights(); ++i) {
    const float value = random.symmetric(), draw = random.uniform();
    const bool kept = weights == Weights::kAll || (weights != Weights::kNone && draw < 0.3f);
    l.w.push_back(!kept ? 0.0f : (weights == Weights::kSigns ? std::copysign(0.125f, value) : value));
  }
  return l;
}

// Calls f(position of x, position of dy, position of w) for every product.
template <class F>
void each_product(const Layer& l, const F& f) {
  const ConvShape& s = l.s;
  for (int32_t n = 0; n < s.batch; ++n) {
    for (int32_t oy = 0; oy < s.out_height; ++oy) {
      for (int32_t ox = 0; ox < s.out_width; ++ox) {
        for (int32_t t = 0; t < l.taps(); ++t) {
          const int32_t y = oy * s.stride_height - s.padding_height + t / s.kernel_width * s.dilation_height;
          const int32_t x = ox * s.stride_width - s.padding_width + t % s.kernel_width * s.dilation_width;
          if (y < 0 || y >= s.in_height || x < 0 || x >= s.in_width) continue;
          const size_t from = size_t((int64_t(n) * s.in_height + y) * s.in_width + x) * size_t(s.in_channels);
          const size_t to = size_t((int64_t(n) * s.out_height + oy) * s.out_width + ox) * size_t(s.out_channels);
          for (int32_t o = 0; o < s.out_channels; ++o) {
            for (int32_t c = 0; c < s.in_channels; ++c) f(from + size_t(c), to + size_t(o), l.at(o, c, t));
          }
        }
      }
    }
  }
}

// Sums of products of numbers in [-1, 1]; a product more or less would be seen.
void check_near(const std::vector<float>& got, const std::vector<double>& want, double products) {
  CHECK_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::fabs(got[i] - want[i]) <= 1e-7 * products + 1e-6) continue;
    CHECK_EQ(double(got[i]), want[i]);
  }
}

void check(const Layer& l) {
  const ConvShape& s = l.s;
  std::vector<double> y(l.dy.size()), dx(l.x.size()), dw(l.w.size()), kept(l.w.size());
  each_product(l, [&](size_t x, size_t dy, size_t w) {
    y[dy] += double(l.w[w]) * l.x[x];
    dx[x] += double(l.w[w]) * l.dy[dy];
    dw[w] += double(l.dy[dy]) * l.x[x];
  });
  for (size_t i = 0; i < dw.size(); ++i) kept[i] = l.w[i] != 0.0f ? dw[i] : 0.0;
  const double taps = l.taps(), places = double(s.batch) * s.out_height * s.out_width;
  in_every_isa([&] {
    std::vector<float> got_y(y.size(), 9.0f), got_dx(dx.size(), 9.0f), got_dw(dw.size(), 9.0f), got_kept = got_dw;
    cpu::sparse_conv({l.x.data(), {l.w.data(), l.channels_last}, got_y.data(), s});
    check_near(got_y, y, taps * s.in_channels);
    cpu::sparse_input_gradient({l.dy.data(), {l.w.data(), l.channels_last}, got_dx.data(), s});
    check_near(got_dx, dx, taps * s.out_channels);
    cpu::sparse_weight_gradient({l.x.data(), l.dy.data(), {l.w.data(), l.channels_last}, got_kept.data(), s});
    check_near(got_kept, kept, places);
    cpu::dense_weight_gradient({l.x.data(), l.dy.data(), got_dw.data(), l.channels_last, s});
    check_near(got_dw, dw, places);
  });
}

void check_all(const Shape& shape) {
  const Context context(shape.text());
  for (const bool channels_last : {true, false}) {
    for (const Weights w : {Weights::kValues, Weights::kSigns, Weights::kNone, Weights::kAll}) {
      check(make_layer(shape, w, channels_last));
    }
  }
}

TEST(maps_and_batches_of_all_sizes) {
  for (const int32_t batch : {1, 3, 16, 19}) {
    for (const int32_t side : {1, 2, 4, 5, 8, 9}) check_all({batch, 5, 6, {side, side + 1}, {3, 3}, {1, 1}, {1, 1}});
  }
}

TEST(channels_of_all_sizes) {
  for (const int32_t channels : {1, 7, 8, 15, 16, 17, 33, 70}) {
    check_all({2, channels, 3, {4, 4}, {3, 3}, {1, 1}, {1, 1}});
    check_all({2, 3, channels, {4, 4}, {3, 3}, {1, 1}, {1, 1}});
  }
}

TEST(kernels_strides_and_dilations) {
  check_all({3, 9, 4, {9, 7}, {1, 1}});
  check_all({3, 9, 4, {9, 7}, {1, 1}, {2, 2}});
  check_all({3, 4, 9, {9, 8}, {3, 3}, {2, 2}, {1, 1}});
  check_all({2, 4, 5, {10, 11}, {2, 5}, {3, 1}, {0, 4}, {1, 2}});
  check_all({2, 3, 4, {11, 11}, {3, 2}, {5, 4}, {1, 0}, {1, 1}});
  check_all({2, 3, 4, {9, 9}, {3, 3}, {1, 1}, {6, 5}, {6, 5}});
  check_all({2, 3, 2, {2, 2}, {5, 5}, {1, 1}, {2, 2}});
  check_all({1, 2, 2, {3, 3}, {40, 40}, {9, 9}, {40, 40}, {2, 2}});
  check_all({0, 3, 2, {4, 4}, {3, 3}, {1, 1}, {1, 1}});
}

}  // namespace
