// Steps that treat each pixel for itself.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "../base/isa.h"
#include "activation.h"
#include "error.h"
#include "steps.h"

namespace hiddennet::runtime {
namespace {

constexpr int64_t kPiece = 1 << 14;  // numbers of a task, about

// Tasks of whole rows.
int64_t rows_of_task(int64_t row) { return std::max<int64_t>(1, kPiece / std::max<int64_t>(1, row)); }

Step by_rows(int64_t rows, int64_t row, std::function<void(int64_t begin, int64_t end)> f) {
  const int64_t each = rows_of_task(row);
  return {(rows + each - 1) / each,
          [=, f = std::move(f)](int64_t task, int) { f(task * each, std::min(rows, (task + 1) * each)); }};
}

Spread spread(const Operands& o, const Shape& s) { return spread_of(o.layout, o.batch, s.channels, s.height, s.width); }

// Loops are made of two activations alone; the others follow in a pass of their own over what a task has just written.
template <class F>
void with_common_activation(Activation kind, const F& f) {
  if (kind == Activation::relu) return f([](float x) { return x < 0.0f ? 0.0f : x; });
  f([](float x) { return x; });
}

bool is_common(Activation kind) { return kind == Activation::none || kind == Activation::relu; }

template <class T, class F>
HN_INLINE void map_body(const T* x, T* y, const float* scale, const float* shift, int64_t n, F f) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(f(float(x[i]) * scale[i] + shift[i]));
}

template <class T, class F>
HN_INLINE void map_one_body(const T* x, T* y, float scale, float shift, int64_t n, F f) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(f(float(x[i]) * scale + shift));
}

template <class T, class F>
HN_INLINE void map_pure_body(const T* x, T* y, int64_t n, F f) {
  for (int64_t i = 0; i < n; ++i) y[i] = T(f(float(x[i])));
}

template <class T, class F>
HN_INLINE void pairs_body(const T* a, const T* b, int64_t step, T* y, int64_t n, F f) {
  if (step == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] = T(f(float(a[i]), float(b[i])));
  } else {
    const float other = float(b[0]);
    for (int64_t i = 0; i < n; ++i) y[i] = T(f(float(a[i]), other));
  }
}

HN_DISPATCH(map, map_body)
HN_DISPATCH(map_one, map_one_body)
HN_DISPATCH(map_pure, map_pure_body)
HN_DISPATCH(pairs, pairs_body)

struct Activated {
  Activation kind;
  float low, high;

  template <class T>
  void over(const T* x, T* y, int64_t n) const {
    with_activation(kind, low, high, [&](auto f) { map_pure(x, y, n, f); });
  }
};

}  // namespace

Step scale_step(const Node& node, const Operands& o) {
  const Spread s = spread(o, node.shape);
  const Activated activated{node.activation, node.low, node.high};
  const void* from = o.inputs[0];
  void* to = o.output;
  const Layout layout = o.layout;
  if (node.scale.empty() && node.shift.empty()) {
    const int64_t n = s.outer * s.channels * s.inner;
    return by_rows(n, 1, [=](int64_t begin, int64_t end) {
      with_element(layout, [&](auto e) {
        using T = decltype(e);
        activated.over(static_cast<const T*>(from) + begin, static_cast<T*>(to) + begin, end - begin);
      });
    });
  }
  auto numbers = std::make_shared<std::vector<float>>();  // scales, then shifts
  numbers->insert(numbers->end(), node.scale.begin(), node.scale.end());
  numbers->insert(numbers->end(), node.shift.begin(), node.shift.end());
  const bool across = s.inner == 1;  // a row is all channels
  const int64_t rows = across ? s.outer : s.outer * s.channels, row = across ? s.channels : s.inner;
  return by_rows(rows, row, [=](int64_t begin, int64_t end) {
    with_element(layout, [&](auto e) {
      using T = decltype(e);
      const T* x = static_cast<const T*>(from) + begin * row;
      T* const first = static_cast<T*>(to) + begin * row;
      const float *scale = numbers->data(), *shift = scale + s.channels;
      with_common_activation(activated.kind, [&](auto f) {
        T* y = first;
        for (int64_t r = begin; r < end; ++r, x += row, y += row) {
          if (across) {
            map(x, y, scale, shift, row, f);
          } else {
            map_one(x, y, scale[r % s.channels], shift[r % s.channels], row, f);
          }
        }
      });
      if (!is_common(activated.kind)) activated.over<T>(first, first, (end - begin) * row);
    });
  });
}

Step binary_step(const Node& node, const Operands& o) {
  const Shape &a = o.shapes[0], &b = o.shapes[1];
  const int64_t lanes = o.layout == Layout::lanes_f32 ? kLanesOfImages : 1, groups = o.batch / lanes;
  const int64_t pixels = a.height * a.width, b_pixels = b.height * b.width;
  // strides of the second value for a group of images, a channel, a pixel
  const bool last = o.layout == Layout::nhwc_f32 || o.layout == Layout::nhwc_bf16;
  const int64_t b_group = b.channels * b_pixels * lanes;
  const int64_t b_channel = b.channels == 1 ? 0 : last ? 1 : b_pixels * lanes;
  const int64_t b_pixel = b_pixels == 1 ? 0 : last ? b.channels : lanes;
  const bool adds = node.op == Op::add;
  const Activated activated{node.activation, node.low, node.high};
  const void *left = o.inputs[0], *right = o.inputs[1];
  void* to = o.output;
  const Layout layout = o.layout;
  const int64_t channels = a.channels;
  const bool same = a.channels == b.channels && pixels == b_pixels;
  // a row: all channels of a pixel, all pixels of a channel, the lanes of a pixel; or a piece of all there is
  const int64_t total = groups * channels * pixels * lanes;
  const int64_t row = same ? std::min<int64_t>(total, kPiece) : last ? channels : lanes > 1 ? lanes : pixels;
  const int64_t step = same || lanes > 1 ? 1 : last ? b_channel : b_pixel;
  return by_rows((total + row - 1) / row, row, [=](int64_t begin, int64_t end) {
    with_element(layout, [&](auto e) {
      using T = decltype(e);
      const T* x = static_cast<const T*>(left);
      T* y = static_cast<T*>(to);
      const auto second = [&](int64_t r) {
        if (same) return r * row;
        if (last) return r / pixels * b_group + r % pixels * b_pixel;
        if (lanes == 1) return r / channels * b_group + r % channels * b_channel;
        return r / (channels * pixels) * b_group + r / pixels % channels * b_channel + r % pixels * b_pixel;
      };
      const auto loop = [&](auto f) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t count = std::min(row, total - r * row);
          pairs(x + r * row, static_cast<const T*>(right) + second(r), step, y + r * row, count, f);
        }
      };
      with_common_activation(activated.kind, [&](auto g) {
        if (adds) {
          loop([g](float p, float q) { return g(p + q); });
        } else {
          loop([g](float p, float q) { return g(p * q); });
        }
      });
      const int64_t written = std::min(total, end * row) - begin * row;
      if (!is_common(activated.kind)) activated.over<T>(y + begin * row, y + begin * row, written);
    });
  });
}

Step concat_step(const Node& node, const Operands& o) {
  const Spread s = spread(o, node.shape);
  const size_t size = element_bytes(o.layout);
  std::vector<std::pair<const uint8_t*, size_t>> parts;  // with the bytes of one outer index
  for (size_t i = 0; i < o.inputs.size(); ++i) {
    parts.emplace_back(static_cast<const uint8_t*>(o.inputs[i]), size_t(o.shapes[i].channels * s.inner) * size);
  }
  auto* to = static_cast<uint8_t*>(o.output);
  const size_t row = size_t(s.channels * s.inner) * size;
  return by_rows(s.outer, s.channels * s.inner, [=](int64_t begin, int64_t end) {
    size_t first = 0;
    for (const auto& [from, bytes] : parts) {
      for (int64_t r = begin; r < end; ++r) std::memcpy(to + size_t(r) * row + first, from + size_t(r) * bytes, bytes);
      first += bytes;
    }
  });
}

Step slice_step(const Node& node, const Operands& o) {
  const Spread s = spread(o, node.shape);
  const size_t size = element_bytes(o.layout), row = size_t(s.channels * s.inner) * size;
  const size_t from_row = size_t(o.shapes[0].channels * s.inner) * size, first = size_t(node.first * s.inner) * size;
  const auto* from = static_cast<const uint8_t*>(o.inputs[0]);
  auto* to = static_cast<uint8_t*>(o.output);
  return by_rows(s.outer, s.channels * s.inner, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to + size_t(r) * row, from + size_t(r) * from_row + first, row);
    }
  });
}

Step shuffle_step(const Node& node, const Operands& o) {
  const Spread s = spread(o, node.shape);
  const int64_t groups = node.groups, each = s.channels / groups, inner = s.inner;
  const Layout layout = o.layout;
  const void* from = o.inputs[0];
  void* to = o.output;
  return by_rows(s.outer, s.channels * inner, [=](int64_t begin, int64_t end) {
    with_element(layout, [&](auto e) {
      using T = decltype(e);
      for (int64_t r = begin; r < end; ++r) {
        const T* x = static_cast<const T*>(from) + r * s.channels * inner;
        T* y = static_cast<T*>(to) + r * s.channels * inner;
        for (int64_t c = 0; c < s.channels; ++c) {
          std::memcpy(y + c * inner, x + (c % groups * each + c / groups) * inner, size_t(inner) * sizeof(T));
        }
      }
    });
  });
}

Step softmax_step(const Node& node, const Operands& o) {
  const Spread s = spread(o, node.shape);
  const bool log = node.op == Op::log_softmax;
  const auto* from = static_cast<const float*>(o.inputs[0]);
  auto* to = static_cast<float*>(o.output);
  return by_rows(s.outer * s.inner, s.channels, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r / s.inner * s.channels * s.inner + r % s.inner;
      const float* x = from + at;
      float* y = to + at;
      float most = -std::numeric_limits<float>::infinity();
      for (int64_t c = 0; c < s.channels; ++c) most = std::max(most, x[c * s.inner]);
      double sum = 0.0;
      for (int64_t c = 0; c < s.channels; ++c) sum += std::exp(double(x[c * s.inner] - most));
      const double whole = log ? std::log(sum) : 1.0 / sum;
      for (int64_t c = 0; c < s.channels; ++c) {
        const double moved = double(x[c * s.inner] - most);
        y[c * s.inner] = float(log ? moved - whole : std::exp(moved) * whole);
      }
    }
  });
}

Step make_step(const Node& node, const Operands& o) {
  switch (node.op) {
    case Op::scale: return scale_step(node, o);
    case Op::add:
    case Op::multiply: return binary_step(node, o);
    case Op::concat: return concat_step(node, o);
    case Op::slice: return slice_step(node, o);
    case Op::shuffle: return shuffle_step(node, o);
    case Op::softmax:
    case Op::log_softmax: return softmax_step(node, o);
    case Op::pad: return pad_step(node, o);
    case Op::instance_norm: return instance_norm_step(node, o);
    case Op::max_pool:
    case Op::average_pool:
    case Op::adaptive_max_pool:
    case Op::adaptive_average_pool: return pool_step(node, o);
    default: fail("expected a step for ", node.name, ", got an operation that has none");
  }
}

}  // namespace hiddennet::runtime
