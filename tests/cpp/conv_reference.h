// conv_reference.h: layers with random scores and weights, and their convolution as a plain loop in
// double precision: what masked_conv is compared with.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/key.cuh"
#include "device.h"
#include "ops/masked_conv/masked_conv.h"

namespace hn {
namespace test {

struct Size2 {
  int32_t h, w;
};

struct Shape {
  int32_t batch, in, out;
  Size2 image, kernel, stride = {1, 1}, padding = {0, 0}, dilation = {1, 1};

  ConvShape conv() const {
    const auto size = [](int32_t n, int32_t k, int32_t s, int32_t p, int32_t d) {
      return (n + 2 * p - d * (k - 1) - 1) / s + 1;
    };
    return {batch,
            in,
            image.h,
            image.w,
            out,
            size(image.h, kernel.h, stride.h, padding.h, dilation.h),
            size(image.w, kernel.w, stride.w, padding.w, dilation.w),
            kernel.h,
            kernel.w,
            stride.h,
            stride.w,
            padding.h,
            padding.w,
            dilation.h,
            dilation.w};
  }
  int32_t taps() const { return kernel.h * kernel.w; }
  int32_t weights() const { return out * in * taps(); }
  std::string text() const {
    return std::to_string(batch) + "x" + std::to_string(in) + "x" + std::to_string(image.h) + "x" +
           std::to_string(image.w) + " to " + std::to_string(out) + " channels by " + std::to_string(kernel.h) + "x" +
           std::to_string(kernel.w);
  }
};

// Scores without levels: all different; or zeros of both signs, infinities, NaNs and subnormals.
constexpr int kContinuous = 0, kSpecial = -1;

// How the weights of a layer come about, and how its numbers are drawn.
struct Recipe {
  Source source = Source::kSigns;
  RuleKind rule = RuleKind::kMagnitude;
  double density = 0.5;
  bool channels_last = true;
  bool integers = true;   // small integers everywhere: every sum is exact in float
  int score_levels = 5;   // so many different scores, or one of the two above
  bool infinity = false;  // one infinite activation
  bool draws = false;     // kRounded: by a draw, not by the threshold
  uint64_t seed = 1;

  std::string text() const {
    return "source " + std::to_string(int(source)) + ", rule " + std::to_string(int(rule)) + ", density " +
           std::to_string(density) + (channels_last ? ", OHWI" : ", OIHW");
  }
};

// A layer on the host. Scores and stored weights are in memory order, everything else in OIHW
// order.
struct Layer {
  Layout layout;
  std::vector<float> scores, stored;
  std::vector<uint8_t> plane, bits;
  std::vector<int64_t> step;
  std::vector<Selection> selection;
  Rule rule;  // this and `source` point into the vectors
  WeightSource source;
  std::vector<uint16_t> effective;  // bfloat16, OIHW
};

// Prunes the n - k first of a stable ascending sort: the mask by definition, and the selection row
// that states it.
inline std::vector<bool> select(const Layer& l, Order order, int32_t k, Selection* row) {
  std::vector<uint32_t> keys;
  for (int32_t i = 0; i < l.layout.n; ++i) keys.push_back(key_of(order, l.scores[size_t(l.layout.physical(i))]));
  std::vector<int32_t> ranked(keys.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](int32_t a, int32_t b) { return keys[size_t(a)] < keys[size_t(b)]; });
  std::vector<bool> mask(keys.size(), true);
  for (int32_t r = 0; r < l.layout.n - k; ++r) mask[size_t(ranked[size_t(r)])] = false;
  if (k == 0) {
    *row = {0xffffffffu, l.layout.n, 0, 0};
  } else if (k == l.layout.n) {
    *row = {0, 0, 0, 0};
  } else {
    const int32_t first = ranked[size_t(l.layout.n - k)];  // of the smallest key, the lowest index
    const bool tied = keys[size_t(ranked[size_t(l.layout.n - k - 1)])] == keys[size_t(first)];
    *row = {keys[size_t(first)], tied ? first : 0, 0, 0};
  }
  return mask;
}

inline float drawn(Random* random, bool integer, int32_t range) {
  return integer ? float(int32_t(random->below(uint32_t(2 * range + 1))) - range) : random->symmetric();
}

inline float drawn_score(Random* random, int levels) {
  if (levels == kContinuous) return random->symmetric();
  if (levels > 0) return float(int(random->below(uint32_t(levels))) - levels / 2);
  const uint32_t special[] = {0x00000000u, 0x80000000u, 0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffc00001u,
                              0x00000001u, 0x80000001u, 0x3f800000u, 0xbf800000u, 0x7f7fffffu, 0xff7fffffu};
  return bits_float(special[random->below(12)]);
}

inline Layer make_layer(const Shape& s, const Recipe& r) {
  Random random(r.seed);
  Layer l;
  l.layout = weight_layout(s.conv(), r.channels_last);
  const size_t n = size_t(s.weights());
  for (size_t i = 0; i < n; ++i) {
    l.scores.push_back(drawn_score(&random, r.score_levels));
    l.stored.push_back(drawn(&random, r.integers, 3));
  }
  for (size_t i = 0; i < (n + 7) / 8; ++i) {
    l.plane.push_back(uint8_t(random.bits()));
    l.bits.push_back(uint8_t(random.bits()));
  }
  l.step = {int64_t(7)};
  l.selection.resize(1);
  const auto k = int32_t(std::lround(r.density * double(n)));
  const bool by_threshold = r.rule == RuleKind::kRounded && !r.draws;
  l.rule = {r.rule, l.selection.data(), l.bits.data(), by_threshold ? nullptr : l.step.data(), {11, 12, 3, 0}};
  l.source = {r.source, l.stored.data(), l.plane.data(), r.integers ? 2.0f : 0.3f, {21, 22, 3, 0}};
  std::vector<bool> mask;
  if (r.rule == RuleKind::kMagnitude || r.rule == RuleKind::kValue || by_threshold) {
    const Order order = r.rule == RuleKind::kMagnitude ? Order::kMagnitude : Order::kValue;
    mask = select(l, order, k, l.selection.data());
    for (int32_t i = 0; by_threshold && i < l.layout.n; ++i) {
      mask[size_t(i)] = mask[size_t(i)] && bit_of(l.bits.data(), i);
    }
  } else {
    for (int32_t i = 0; i < l.layout.n; ++i) {
      mask.push_back(kept(l.rule, l.scores[size_t(l.layout.physical(i))], i));
    }
  }
  for (int32_t i = 0; i < s.weights(); ++i) {
    const int32_t p = l.layout.physical(i);
    const bool keep = mask[size_t(i)];
    const float weight = weight_at(l.source, p, i);
    const float revealed = r.rule == RuleKind::kScored ? weight * l.scores[size_t(p)] : weight;
    l.effective.push_back(keep ? bfloat16_bits(revealed) : uint16_t(0));
  }
  return l;
}

struct Expected {
  std::vector<double> sum, magnitude;  // the products, and their absolute values
};

// Visits every (output pixel, tap) of the forward convolution; the gradient scatters along the same
// edges.
inline Expected expect(const Shape& shape, const Layer& l, const std::vector<uint16_t>& input, bool gradient) {
  const ConvShape s = shape.conv();
  const size_t outputs = size_t(s.batch) * size_t(gradient ? s.in_height * s.in_width * s.in_channels
                                                           : s.out_height * s.out_width * s.out_channels);
  Expected e = {std::vector<double>(outputs), std::vector<double>(outputs)};
  for (int32_t n = 0; n < s.batch; ++n) {
    for (int32_t pixel = 0; pixel < s.out_height * s.out_width; ++pixel) {
      for (int32_t tap = 0; tap < shape.taps(); ++tap) {
        const int32_t y =
            pixel / s.out_width * s.stride_height - s.padding_height + tap / s.kernel_width * s.dilation_height;
        const int32_t x =
            pixel % s.out_width * s.stride_width - s.padding_width + tap % s.kernel_width * s.dilation_width;
        if (y < 0 || y >= s.in_height || x < 0 || x >= s.in_width) continue;
        const size_t in_at = size_t((n * s.in_height + y) * s.in_width + x) * size_t(s.in_channels);
        const size_t out_at = size_t(n * s.out_height * s.out_width + pixel) * size_t(s.out_channels);
        for (int32_t o = 0; o < s.out_channels; ++o) {
          for (int32_t c = 0; c < s.in_channels; ++c) {
            const size_t in = in_at + size_t(c), out = out_at + size_t(o);
            const double w = from_bfloat16(l.effective[size_t((o * s.in_channels + c) * shape.taps() + tap)]);
            const double product = double(from_bfloat16(input[gradient ? out : in])) * w;
            e.sum[gradient ? in : out] += product;
            e.magnitude[gradient ? in : out] += std::fabs(product);
          }
        }
      }
    }
  }
  return e;
}

}  // namespace test
}  // namespace hn
