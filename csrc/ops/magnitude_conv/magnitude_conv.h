// magnitude_conv.h: one image through a convolution by the magnitudes of masked weights, and the way back (SynFlow).
//
// With a weight m = |w| where its bit is set, else 0, k = (c, ky, kx) and p = (y, x):
//   y[o][p] = sum over k of m[o][k] * patch[k][p],     patch[k][p] = x[c][stride * y - padding + dilation * ky][...]
//   dx[c][...] = sum over o, k, p of m[o][k] * dy[o][p] where patch[k][p] is that element
//   slope(o, k) = sum over p of dy[o][p] * patch[k][p]
//   scores[o][k] (+)= m[o][k] * slope(o, k)
// y, dx and single slopes are sums of doubles. Scores are sums of floats, of x and dy rounded, kBlock positions at a
// time; dy of positions that see equal patches is first added up in double. For numbers that are not negative they are
// good to about (kBlock + P / kBlock + 4) * 2^-24.
// Every sum has its own fixed order, every product is added by a fused multiply-add, so neither the number of threads
// nor the instruction set changes a bit (without an FMA instruction the C library's is used, which is slow). What is
// not a number spreads to all sums that a zero weight takes part in, too.
//
// A CPU alone has it: SynFlow on a GPU is a captured graph of torch's operations in float64.
#pragma once
#include <cstdint>

#include "../../base/conv_shape.h"

namespace hn {

constexpr int32_t kBlock = 256;  // positions whose products are added up by themselves

struct MagnitudeWeight {
  const float* values;  // [O, C, KH, KW]
  const uint8_t* bits;  // [ceil(n / 8)]; bits past the last entry are not looked at
};

struct MagnitudeConvParams {
  const double* x;  // [C, H, W]
  MagnitudeWeight weight;
  double* y;        // [O, OH, OW], written in full
  ConvShape shape;  // batch 1
};

struct MagnitudeConvBackwardParams {
  const double* x;   // [C, H, W]
  const double* dy;  // [O, OH, OW]
  MagnitudeWeight weight;
  double* dx;       // [C, H, W], written in full; or null
  float* scores;    // as the weight, written in full
  bool accumulate;  // add to scores
  ConvShape shape;  // batch 1
};

struct MagnitudeConvSlopesParams {
  const double* x;        // [C, H, W]
  const double* dy;       // [O, OH, OW]
  const int64_t* places;  // [n], of weights
  int64_t n;
  double* slopes;   // [n]
  ConvShape shape;  // batch 1
};

namespace cpu {
void magnitude_conv(const MagnitudeConvParams& p);
void magnitude_conv_backward(const MagnitudeConvBackwardParams& p);
void magnitude_conv_slopes(const MagnitudeConvSlopesParams& p);
}  // namespace cpu

}  // namespace hn
