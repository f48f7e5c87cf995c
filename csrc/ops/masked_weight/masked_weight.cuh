// masked_weight.cuh: the kernels that make the effective weight and its straight-through gradients.
#pragma once
#include "write_weights.cuh"

namespace hn {
namespace cuda {

template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) masked_weight_kernel(const __grid_constant__ MaskedWeightParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first < p.layout.n) write_weights<kWalk>(p, int32_t(first));
}

__global__ void __launch_bounds__(kUnitThreads)
    staged_weight_kernel(const __grid_constant__ MaskedWeightParams p, const __grid_constant__ Piece piece) {
  HN_SHARED(Stage, numbers, 1);
  HN_SHARED(Stage, bars, 1);
  write_staged_weights(p, piece, int32_t(blockIdx.x), numbers, bars);
}

// One thread owns one unit. The weight is made again only for the scores' gradient, the mask only for
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
    reveal(p.rule, scores, kept_bits(p.rule, scores, u), grad);
    store_floats(p.grad_weight, Dtype::kFloat32, u, grad);
  }
}

}  // namespace cuda
}  // namespace hn
