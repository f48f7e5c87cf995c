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
  HN_SHARED(Staging, numbers, 1);
  HN_SHARED(Staging, bars, 1);
  write_staged_weights(p, piece, int32_t(blockIdx.x), numbers, bars);
}

// The gradients of a unit. weights_of(x) leaves its weights in x, bits_of(scores) says which are kept:
// the weight is made again only for the scores' gradient, the mask only for the weights'.
template <Walk kWalk, class Weights, class Bits>
__device__ __forceinline__ void write_gradients(const MaskedWeightBackwardParams& p, const Unit<kWalk>& u,
                                                const Weights& weights_of, const Bits& bits_of) {
  float grad[kUnit], scores[kUnit] = {};
  load_as_floats(p.grad, p.grad_dtype, u, grad);
  if (p.scores != nullptr) load_floats(p.scores, u, scores);
  if (p.grad_scores != nullptr) {
    float out[kUnit], weights[kUnit];
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = grad[e];
    weights_of(weights);
    unit_score_gradient(p.rule, u, weights, scores, out);
    store_floats(p.grad_scores, Dtype::kFloat32, u, out);
  }
  if (p.grad_weight != nullptr) {
    reveal(p.rule, scores, bits_of(scores), grad);
    store_floats(p.grad_weight, Dtype::kFloat32, u, grad);
  }
}

// One thread owns one unit.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads)
    masked_weight_backward_kernel(const __grid_constant__ MaskedWeightBackwardParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  write_gradients(
      p, u, [&](float (&weights)[kUnit]) { unit_weights(p.source, u, weights); },
      [&](const float (&scores)[kUnit]) { return kept_bits(p.rule, scores, u); });
}

// A block owns one piece of OHWI memory, whose drawn numbers are staged.
__global__ void __launch_bounds__(kUnitThreads)
    staged_backward_kernel(const __grid_constant__ MaskedWeightBackwardParams p, const __grid_constant__ Piece piece) {
  HN_SHARED(Staging, numbers, 1);
  HN_SHARED(Staging, bars, 1);
  const StagedUnits u(p.layout, piece, int32_t(blockIdx.x));
  if (p.grad_scores != nullptr) stage_weights(p.source, u, numbers);
  if (p.grad_weight != nullptr) stage_bars(p.rule, u, bars);
  __syncthreads();
  if (!u.mine) return;
  write_gradients(
      p, u.owned, [&](float (&weights)[kUnit]) { owned_weights(p.source, u, numbers, weights); },
      [&](const float (&scores)[kUnit]) { return owned_bits(p.rule, scores, u, bars); });
}

}  // namespace cuda
}  // namespace hn
