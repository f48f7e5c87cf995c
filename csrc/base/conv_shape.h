// conv_shape.h: the sizes of a 2-d convolution, as kernels take them.
#pragma once
#include <cstdint>

#include "layout.cuh"

namespace hn {

struct ConvShape {
  int32_t batch, in_channels, in_height, in_width;
  int32_t out_channels, out_height, out_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width, padding_height, padding_width, dilation_height, dilation_width;
};

// Of the weight [out, in, kernel height, kernel width]: a convolution asks for its taps in either memory format.
inline Layout weight_layout(const ConvShape& s, bool channels_last) {
  const int32_t taps = s.kernel_height * s.kernel_width, per_filter = s.in_channels * taps;
  return {s.out_channels * per_filter, per_filter, s.in_channels, taps, channels_last};
}

}  // namespace hn
