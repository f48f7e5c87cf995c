// dense_loops.h: products of rows and strips of weights, and convolutions by depth. No guard: included once an instruction
// set, with HN_LANES, the namespace of its vectors, and HN_LANES_TARGET.

#include "lane_finish.h"

namespace hiddennet::runtime {
namespace HN_LANES {

constexpr int kBlock = kLanes > 8 ? 14 : 6;  // rows whose sums are in registers, two vectors each

template <class Args>
HN_LANES_TARGET HN_INLINE void finish_vector(const Args& a, int64_t column, int32_t n, int64_t at, V sum) {
  V v = n < kLanes ? add_product(sum, load_part(a.scale + column, n), load_part(a.bias + column, n))
                   : add_product(sum, load(a.scale + column), load(a.bias + column));
  if (a.residual != nullptr) v = add(v, n < kLanes ? load_part(a.residual + at, n) : load(a.residual + at));
  v = activated(a.activation, a.low, a.high, v);
  n < kLanes ? store_part(a.y + at, n, v) : store(a.y + at, v);
}

template <int kRows>
HN_LANES_TARGET inline void multiply_rows(const ProductArgs& a, const float* x, int64_t out) {
  V s[kRows][2];
  _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) s[i][0] = s[i][1] = spread(0.0f);
  const float* w = a.weight;
  for (int64_t k = 0; k < a.depth; ++k, w += 2 * kLanes) {
    const V left = load(w), right = load(w + kLanes);
    const float* from = x + k;
    _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i, from = opaque(from + a.stride)) {
      const V v = spread(*from);
      s[i][0] = add_product(v, left, s[i][0]);
      s[i][1] = add_product(v, right, s[i][1]);
    }
  }
  const int32_t first = a.columns < kLanes ? a.columns : kLanes, second = a.columns - first;
  _Pragma("GCC unroll 16") for (int i = 0; i < kRows; ++i) {
    finish_vector(a, 0, first, out + i * a.out_stride, s[i][0]);
    if (second > 0) finish_vector(a, kLanes, second, out + i * a.out_stride + kLanes, s[i][1]);
  }
}

inline void multiply(const ProductArgs& a) {
  int32_t i = 0;
  for (; i + kBlock <= a.rows; i += kBlock) multiply_rows<kBlock>(a, a.x + i * a.stride, i * a.out_stride);
  for (; i + 4 <= a.rows; i += 4) multiply_rows<4>(a, a.x + i * a.stride, i * a.out_stride);
  for (; i < a.rows; ++i) multiply_rows<1>(a, a.x + i * a.stride, i * a.out_stride);
}

template <int kOutputs>
HN_LANES_TARGET inline void depth_outputs(const DepthwiseArgs& a, int32_t first, int32_t c, int32_t n) {
  V s[kOutputs];
  _Pragma("GCC unroll 8") for (int i = 0; i < kOutputs; ++i) s[i] = spread(0.0f);
  for (int32_t ky = 0; ky < a.taps_y; ++ky) {
    const float* x = a.x + ky * a.tap_y + first * a.output + c;
    const float* w = a.weight + ky * a.weight_row + c;
    for (int32_t kx = 0; kx < a.taps_x; ++kx, x += a.tap_x, w += a.channels) {
      const V weight = n < kLanes ? load_part(w, n) : load(w);
      _Pragma("GCC unroll 8") for (int i = 0; i < kOutputs; ++i) {
        const float* const from = x + i * a.output;
        s[i] = add_product(n < kLanes ? load_part(from, n) : load(from), weight, s[i]);
      }
    }
  }
  _Pragma("GCC unroll 8") for (int i = 0; i < kOutputs; ++i) {
    finish_vector(a, c, n, int64_t(first + i) * a.channels + c, s[i]);
  }
}

inline void by_depth(const DepthwiseArgs& a) {
  for (int32_t c = 0; c < a.channels; c += kLanes) {
    const int32_t n = a.channels - c < kLanes ? a.channels - c : kLanes;
    int32_t i = 0;
    for (; i + 6 <= a.outputs; i += 6) depth_outputs<6>(a, i, c, n);
    for (; i < a.outputs; ++i) depth_outputs<1>(a, i, c, n);
  }
}

inline const DenseLoops kDenseLoops = {kLanes, kBlock, 2 * kLanes, multiply, by_depth};

}  // namespace HN_LANES
}  // namespace hiddennet::runtime
