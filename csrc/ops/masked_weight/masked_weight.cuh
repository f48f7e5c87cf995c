// masked_weight.cuh: the kernels that make the effective weight and its straight-through gradients.
#pragma once
#include "masked_weight.h"
#include "weight_unit.cuh"

namespace hn {
namespace cuda {

// One thread owns one unit of eight weights. Scores and stored weights are read once and `out` is
// written once, 16 bytes at a time; sign and mask planes cost a byte, generated weights nothing.
// The branches on rule, source and dtype are the same for the whole grid, so a unit pays for them
// once and one kernel serves all of them.
template <Walk kWalk>
__device__ __forceinline__ void write_weights(const MaskedWeightParams& p, int32_t first) {
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, first);
  float scores[kUnit] = {}, out[kUnit];
  if (p.scores != nullptr) load_floats(p.scores, u, scores);
  unit_weights(p.source, u, out);
  if (p.rule.kind == RuleKind::kExpectation) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = mul_rn(out[e], sigmoid(scores[e]));
  } else {
    const uint32_t kept = kept_bits(p.rule, scores, u);
    if (p.rule.kind == RuleKind::kScored) {
#pragma unroll
      for (int e = 0; e < kUnit; ++e) out[e] = mul_rn(out[e], scores[e]);
    }
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = kept >> e & 1u ? out[e] : 0.0f;
  }
  store_floats(p.out, p.dtype, u, out);
}

template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) masked_weight_kernel(const __grid_constant__ MaskedWeightParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first < p.layout.n) write_weights<kWalk>(p, int32_t(first));
}

// The same ownership. The weight is made again only for the scores' gradient, the mask only for
// the weights'.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads)
    masked_weight_backward_kernel(const __grid_constant__ MaskedWeightBackwardParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  float grad[kUnit], scores[kUnit] = {};
  load_as_floats(p.grad, p.grad_dtype, u, grad);
  if (p.scores != nullptr) load_floats(p.scores, u, scores);
  if (p.grad_scores != nullptr) {
    float out[kUnit], weights[kUnit];
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = grad[e];
    unit_weights(p.source, u, weights);
    unit_score_gradient(p.rule, u, weights, scores, out);
    store_floats(p.grad_scores, Dtype::kFloat32, u, out);
  }
  if (p.grad_weight != nullptr) {
    if (p.rule.kind == RuleKind::kExpectation) {
#pragma unroll
      for (int e = 0; e < kUnit; ++e) grad[e] = mul_rn(grad[e], sigmoid(scores[e]));
    } else {
      const uint32_t kept = kept_bits(p.rule, scores, u);
      if (p.rule.kind == RuleKind::kScored) {
#pragma unroll
        for (int e = 0; e < kUnit; ++e) grad[e] = mul_rn(grad[e], scores[e]);
      }
#pragma unroll
      for (int e = 0; e < kUnit; ++e) grad[e] = kept >> e & 1u ? grad[e] : 0.0f;
    }
    store_floats(p.grad_weight, Dtype::kFloat32, u, grad);
  }
}

}  // namespace cuda
}  // namespace hn
