// sparse_conv.h: a convolution by a weight of which most entries are zero, over lists of the others; float32, a CPU alone.
//
//   y[n][o][p] = sum over (c, t) with w[o][c][t] != 0 of w[o][c][t] * x[n][c][p's source at tap t]
// and its two gradients. A weight that is zero takes part in nothing: infinity and NaN spread through kept weights only.
// Padding counts as zeros, by which what is not finite gives NaN. Every sum has one order of its own, so threads change no bit; instruction sets do.
#pragma once
#include <cstdint>

#include "../../base/conv_shape.h"

namespace hn {

constexpr int32_t kMaxTaps = 4096;  // of a kernel: a tile of one position is addressed in 16 bits

// A weight's memory, dense: [O][C][taps], or [O][taps][C] in channels_last.
struct SparseWeight {
  const float* values;
  bool channels_last;
};

struct SparseConvParams {
  const float* x;  // [N, H, W, C]
  SparseWeight weight;
  float* y;         // [N, OH, OW, O], written in full
  ConvShape shape;  // at most kMaxTaps taps
};

struct SparseInputGradientParams {
  const float* dy;  // [N, OH, OW, O]
  SparseWeight weight;
  float* dx;  // [N, H, W, C], written in full
  ConvShape shape;
};

struct SparseWeightGradientParams {
  const float* x;       // [N, H, W, C]
  const float* dy;      // [N, OH, OW, O]
  SparseWeight weight;  // where it is zero, so is dw
  float* dw;            // as the weight, written in full
  ConvShape shape;
};

namespace cpu {
void sparse_conv(const SparseConvParams& p);
void sparse_input_gradient(const SparseInputGradientParams& p);
void sparse_weight_gradient(const SparseWeightGradientParams& p);
}  // namespace cpu

}  // namespace hn
