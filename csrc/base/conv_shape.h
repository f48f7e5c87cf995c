// conv_shape.h: the sizes of a 2-d convolution, as kernels take them.
#pragma once
#include <cstdint>

namespace hn {

struct ConvShape {
  int32_t batch, in_channels, in_height, in_width;
  int32_t out_channels, out_height, out_width;
  int32_t kernel_height, kernel_width;
  int32_t stride_height, stride_width, padding_height, padding_width, dilation_height, dilation_width;
};

}  // namespace hn
