// Steps that look at neighbouring pixels, or at all of a channel's.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "../base/isa.h"
#include "steps.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kVector = 64;  // channels, or lanes, that are summed at once

struct Window {
  int64_t begin, end;  // within the input
  int64_t whole;       // with the padding
};

Window window_of(const Node& node, int axis, int64_t size, int64_t out_size, int64_t o) {
  if (node.op == Op::adaptive_max_pool || node.op == Op::adaptive_average_pool) {
    const int64_t begin = o * size / out_size, end = ((o + 1) * size + out_size - 1) / out_size;
    return {begin, end, end - begin};
  }
  const int64_t begin = o * node.stride[axis] - node.pads[axis],
                reach = node.dilation[axis] * (node.kernel[axis] - 1) + 1;
  const int64_t end = std::min(begin + reach, size + node.pads[axis + 2]);
  int64_t first = begin;
  if (first < 0) first += (-first + node.dilation[axis] - 1) / node.dilation[axis] * node.dilation[axis];
  return {first, std::min(end, size), end - begin};
}

HN_INLINE float larger(float most, float x) { return x > most || x != x ? x : most; }

struct Reach {
  Window rows, columns;
  int64_t down, right;  // dilations
};

// One output pixel: n neighbours of a vector, at x + (row * width + column) * vector.
template <bool kMax, class T>
HN_INLINE void pixel_body(const T* x, T* y, const Reach* r, int64_t width, int64_t vector, int64_t n, float factor) {
  float sums[kVector], row[kVector];
  const float start = kMax ? -std::numeric_limits<float>::infinity() : 0.0f;
  for (int64_t v = 0; v < n; ++v) sums[v] = start;
  for (int64_t h = r->rows.begin; h < r->rows.end; h += r->down) {
    for (int64_t v = 0; v < n; ++v) row[v] = start;
    for (int64_t w = r->columns.begin; w < r->columns.end; w += r->right) {
      const T* from = x + (h * width + w) * vector;
      for (int64_t v = 0; v < n; ++v) row[v] = kMax ? larger(row[v], float(from[v])) : row[v] + float(from[v]);
    }
    for (int64_t v = 0; v < n; ++v) sums[v] = kMax ? larger(sums[v], row[v]) : sums[v] + row[v];
  }
  for (int64_t v = 0; v < n; ++v) y[v] = T(kMax ? sums[v] : sums[v] * factor);
}

template <class T>
HN_INLINE void max_body(const T* x, T* y, const Reach* r, int64_t width, int64_t vector, int64_t n) {
  pixel_body<true>(x, y, r, width, vector, n, 1.0f);
}

template <class T>
HN_INLINE void mean_body(const T* x, T* y, const Reach* r, int64_t width, int64_t vector, int64_t n, float factor) {
  pixel_body<false>(x, y, r, width, vector, n, factor);
}

HN_DISPATCH(max_pixel, max_body)
HN_DISPATCH(mean_pixel, mean_body)

Planes planes(const Operands& o, const Shape& s) { return planes_of(o.layout, o.batch, s.channels, s.height, s.width); }

}  // namespace

Step pool_step(const Node& node, const Operands& o) {
  const Planes in = planes(o, o.shapes[0]), out = planes(o, node.shape);
  const auto copy = std::make_shared<const Node>(node);
  const bool max = node.op == Op::max_pool || node.op == Op::adaptive_max_pool;
  const void* from = o.inputs[0];
  void* to = o.output;
  const Layout layout = o.layout;
  return {out.planes * out.height, [=](int64_t task, int) {
            const int64_t plane = task / out.height, oh = task % out.height;
            Reach reach{window_of(*copy, 0, in.height, out.height, oh), {}, copy->dilation[0], copy->dilation[1]};
            with_element(layout, [&](auto e) {
              using T = decltype(e);
              const T* x = static_cast<const T*>(from) + plane * in.height * in.width * in.vector;
              T* y = static_cast<T*>(to) + task * out.width * out.vector;
              for (int64_t ow = 0; ow < out.width; ++ow, y += out.vector) {
                reach.columns = window_of(*copy, 1, in.width, out.width, ow);
                const Window &r = reach.rows, &c = reach.columns;
                const int64_t within = std::max<int64_t>(0, r.end - r.begin) * std::max<int64_t>(0, c.end - c.begin);
                const int64_t count = copy->divisor > 0 ? copy->divisor : copy->count_pads ? r.whole * c.whole : within;
                for (int64_t v = 0; v < out.vector; v += kVector) {
                  const int64_t n = std::min(kVector, out.vector - v);
                  if (max) {
                    max_pixel(x + v, y + v, static_cast<const Reach*>(&reach), in.width, in.vector, n);
                  } else {
                    mean_pixel(x + v, y + v, static_cast<const Reach*>(&reach), in.width, in.vector, n,
                               1.0f / float(count));
                  }
                }
              }
            });
          }};
}

Step pad_step(const Node& node, const Operands& o) {
  const Planes in = planes(o, o.shapes[0]), out = planes(o, node.shape);
  const int64_t top = node.pads[0], left = node.pads[1];
  const float value = node.value;
  const void* from = o.inputs[0];
  void* to = o.output;
  const Layout layout = o.layout;
  return {out.planes * out.height, [=](int64_t task, int) {
            const int64_t plane = task / out.height, h = task % out.height - top;
            with_element(layout, [&](auto e) {
              using T = decltype(e);
              const int64_t row = out.width * out.vector;
              T* y = static_cast<T*>(to) + task * row;
              std::fill(y, y + row, T(value));
              const int64_t first = std::max<int64_t>(0, -left), place = std::max<int64_t>(0, left);
              const int64_t count = std::min(in.width - first, out.width - place);
              if (h < 0 || h >= in.height || count <= 0) return;
              const T* x = static_cast<const T*>(from) + ((plane * in.height + h) * in.width + first) * in.vector;
              std::copy(x, x + count * in.vector, y + place * in.vector);
            });
          }};
}

Step instance_norm_step(const Node& node, const Operands& o) {
  const Planes in = planes(o, o.shapes[0]);
  const auto copy = std::make_shared<const Node>(node);
  const auto* from = static_cast<const float*>(o.inputs[0]);
  auto* to = static_cast<float*>(o.output);
  const int64_t pixels = in.height * in.width, channels = node.shape.channels;
  const bool across = o.layout == Layout::nhwc_f32;
  return {in.planes, [=](int64_t plane, int) {
            const float* x = from + plane * pixels * in.vector;
            float* y = to + plane * pixels * in.vector;
            for (int64_t v = 0; v < in.vector; ++v) {
              const auto channel = size_t(across ? v : plane % channels);
              double sum = 0.0, squares = 0.0;
              for (int64_t p = 0; p < pixels; ++p) sum += double(x[p * in.vector + v]);
              const double mean = sum / double(pixels);
              for (int64_t p = 0; p < pixels; ++p) {
                const double off = double(x[p * in.vector + v]) - mean;
                squares += off * off;
              }
              const double scale = copy->scale[channel] / std::sqrt(squares / double(pixels) + copy->epsilon);
              const double shift = copy->shift[channel] - mean * scale;
              for (int64_t p = 0; p < pixels; ++p) {
                y[p * in.vector + v] = float(double(x[p * in.vector + v]) * scale + shift);
              }
            }
          }};
}

}  // namespace hiddennet::runtime
