// dense_weight_gradient.h: the weight gradient of a float32 convolution without groups, on a CPU alone.
//
//   dw[o][c][t] = sum over images n and outputs p that reach the map at tap t of dy[n][o][p] * x[n][c][p's source]
// Sums are of floats: of some thousand products in registers, then of these. Every sum has one order of its own, so threads
// change no bit; instruction sets do.
#pragma once
#include <cstdint>

#include "../../base/conv_shape.h"

namespace hn {

struct DenseWeightGradientParams {
  const float* x;   // [N, H, W, C]
  const float* dy;  // [N, OH, OW, O]
  float* dw;        // [O, KH, KW, C] when channels_last, else [O, C, KH, KW]; written in full
  bool channels_last;
  ConvShape shape;
};

namespace cpu {
void dense_weight_gradient(const DenseWeightGradientParams& p);
}  // namespace cpu

}  // namespace hn
