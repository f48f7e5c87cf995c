// masked_conv.h: 2-d convolution whose weight loader makes the masked weight itself (CUDA, bf16, fp32 accumulate).
//
// Forward:        y  = conv(x, kept * weight)
// Input gradient: dx = conv_transpose(dy, kept * weight)
// x, y, dy and dx are channels_last (NHWC) bfloat16; the weight is never written to memory. Groups are 1.
#pragma once
#include <cstdint>

#include "../../base/conv_shape.h"
#include "../../base/layout.cuh"
#include "../../base/rule.cuh"
#include "../../base/source.cuh"

namespace hn {

struct MaskedConvParams {
  const uint16_t* input;  // forward: x [N, H, W, Cin]; input gradient: dy [N, OH, OW, Cout]; bfloat16 bits
  uint16_t* output;       // forward: y [N, OH, OW, Cout]; input gradient: dx [N, H, W, Cin]; written in full
  const float* scores;    // [Cout * Cin * KH * KW] in `layout`; null when the rule reads none
  Rule rule;              // any kind but kExpectation
  WeightSource source;
  Layout layout;
  ConvShape shape;
};

namespace cuda {
int masked_conv_forward(const MaskedConvParams& p, void* stream);
int masked_conv_input_gradient(const MaskedConvParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
