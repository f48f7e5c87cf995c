// conv_args.h: turn an op's sizes, strides, paddings and dilations into a ConvShape, with the checks.
#pragma once
#include "conv_shape.h"
#include "tensor.h"

namespace hn {

inline int64_t conv_output_size(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  return (in + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

// x: [N, C, H, W]; w: [O, C / groups, KH, KW].
inline ConvShape make_conv_shape(const char* op, const Sizes& x, const Sizes& w, const Sizes& stride,
                                 const Sizes& padding, const Sizes& dilation, int64_t groups = 1) {
  HN_CHECK(x.size() == 4 && w.size() == 4, op, ": expected 4-d input and weight, got ", x.size(), "-d and ", w.size(),
           "-d");
  HN_CHECK(stride.size() == 2 && padding.size() == 2 && dilation.size() == 2, op,
           ": expected two strides, paddings and dilations");
  constexpr int64_t kLargest = int64_t(1) << 29;  // sums of a few fit 32 bits
  HN_CHECK(groups >= 1 && groups <= kLargest && w[0] >= 0 && w[1] >= 0 && w[0] % groups == 0, op,
           ": expected output channels in multiples of the groups, got ", w[0], " in ", groups, " groups");
  HN_CHECK(w[1] <= kMaxElements && x[1] == w[1] * groups, op, ": expected ", w[1], " input channels",
           groups == 1 ? "" : " a group", ", got ", x[1]);
  for (int d = 0; d < 2; ++d) {
    HN_CHECK(stride[d] >= 1 && dilation[d] >= 1 && padding[d] >= 0 && w[2 + d] >= 1, op,
             ": expected stride, dilation and kernel >= 1 and padding >= 0");
    HN_CHECK(stride[d] <= kLargest && padding[d] <= kLargest && x[2 + d] <= kLargest && w[2 + d] <= kLargest &&
                 dilation[d] <= kLargest / w[2 + d],
             op, ": expected sizes, strides, paddings and dilated kernels of at most 2^29");
    HN_CHECK(x[2 + d] + 2 * padding[d] >= dilation[d] * (w[2 + d] - 1) + 1, op,
             ": expected an input at least as large as the kernel");
  }
  const int64_t oh = conv_output_size(x[2], w[2], stride[0], padding[0], dilation[0]);
  const int64_t ow = conv_output_size(x[3], w[3], stride[1], padding[1], dilation[1]);
  const auto few = [](const Sizes& sizes) {
    int64_t n = 1;
    for (const int64_t s : sizes) {
      if (s < 0 || (s > 0 && n > kMaxElements / s)) return false;
      n *= s;
    }
    return true;
  };
  HN_CHECK(few(x) && few(w) && few({x[0], w[0], oh, ow}) && few({oh, ow}), op, ": expected fewer than 2^31 elements");
  return {int32_t(x[0]),      int32_t(x[1]),       int32_t(x[2]),       int32_t(x[3]),        int32_t(w[0]),
          int32_t(oh),        int32_t(ow),         int32_t(w[2]),       int32_t(w[3]),        int32_t(stride[0]),
          int32_t(stride[1]), int32_t(padding[0]), int32_t(padding[1]), int32_t(dilation[0]), int32_t(dilation[1])};
}

// Of what the convolution gives: [N, O, OH, OW].
inline Sizes output_sizes(const ConvShape& s) { return {s.batch, s.out_channels, s.out_height, s.out_width}; }

}  // namespace hn
