// code_weight_gradient.h: the weight gradient of a 2-d convolution from integer codes of its input and of the gradient
// of its output, exact.
//
// For PSG (E2-Train, arXiv 1910.13349; as used by Peek-a-Boo). With group u of output channel o:
//   S[o][i][ky][kx] = sum over n, y, x of
//       g[n][o][y][x] * input[n][u * (C / groups) + i][stride * y - padding + dilation * ky][... x ... kx]
//   dw = float(double(S) * (double(input_delta) * double(gradient_delta)))      codes outside the image are 0
// S is an exact integer below 2^62. The product of the deltas is exact in double (24 and 24 bits), so dw is the real
// number S * input_delta * gradient_delta rounded to 53 and then to 24 bits (S to 53 bits before, where it is longer).
// All backends agree to the bit. Without pixels dw is zero whatever the deltas are.
//
// A code c stands for c * delta. Input: uint8, int8, int16, or int32 that holds unsigned codes of up to 16 bits,
// [0, 2^16). Gradient: int8 or int16.
#pragma once
#include <cstdint>

#include "../../base/codes.h"
#include "../../base/conv_shape.h"
#include "../../base/macros.h"

namespace hn {

struct CodeWeightGradientParams {
  const void* input;     // [N, H, W, C]
  const void* gradient;  // [N, OH, OW, O]
  CodeType input_type;
  CodeType gradient_type;       // kInt8 or kInt16
  const float* input_delta;     // [1]
  const float* gradient_delta;  // [1]
  float* dw;                    // [O, C / groups, KH, KW]: OHWI memory where channels_last, else OIHW; written in full
  float* largest;               // [1]: max |dw|; 0 where dw is empty
  int64_t* sums;  // CUDA: [code_weight_gradient_sums(p)], 16-byte aligned, garbage at the start; CPU: null
  ConvShape shape;
  int32_t groups;
  bool channels_last;
};

HN_HD double code_scale(float input_delta, float gradient_delta) {
  return double(input_delta) * double(gradient_delta);
}

HN_HD float scaled_sum(int64_t sum, double scale) { return float(double(sum) * scale); }

namespace cpu {
void code_weight_gradient(const CodeWeightGradientParams& p);
}

namespace cuda {
// How many sums of blocks pass through memory on the current device; 0 also where the launch will fail.
int64_t code_weight_gradient_sums(const CodeWeightGradientParams& p);
int code_weight_gradient(const CodeWeightGradientParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
