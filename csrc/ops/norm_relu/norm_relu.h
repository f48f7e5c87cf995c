// norm_relu.h: batch norm in training, an addition and ReLU in as few passes over the maps as there can be, on a CPU.
//
// Maps are channels_last: rows (images x positions) of `channels` elements. The forward reads x twice and writes y; the
// backward reads dy and x (with a residual y, too) twice and writes dx. torch takes 5 and 8 passes for the same.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"

namespace hn {

struct NormReluParams {
  const void* x;
  const void* residual;  // added before the ReLU, or null
  const float* gamma;    // [channels] or null: 1
  const float* beta;     // [channels] or null: 0
  void* y;               // written in full
  double* mean;          // [channels], written: of the batch
  double* invstd;        // [channels], written: 1 / sqrt(biased variance + eps)
  float* running_mean;   // [channels] or null; moved by `momentum`
  float* running_var;    // the same, towards the unbiased variance
  int64_t rows, channels;
  double momentum, eps;
  Dtype dtype;  // float32 or bfloat16, of x, residual and y
};

struct NormReluBackwardParams {
  const void* dy;
  const void* x;
  const void* y;  // of the forward with a residual; null: the sign is made again from x
  const float* gamma;
  const float* beta;
  const double* mean;
  const double* invstd;
  void* dx;         // written in full
  void* dresidual;  // written in full, or null
  float* dgamma;    // [channels], written
  float* dbeta;     // [channels], written
  int64_t rows, channels;
  Dtype dtype;
};

namespace cpu {
void norm_relu(const NormReluParams& p);
void norm_relu_backward(const NormReluBackwardParams& p);
}  // namespace cpu

}  // namespace hn
