// mask.cuh: the kernels that write masks as bytes and as packed bits. masked_weight applies them.
#pragma once
#include "../masked_weight/weight_unit.cuh"
#include "mask.h"

namespace hn {
namespace cuda {

// Eight bytes, each 0 or not, at the unit's positions.
template <Walk kWalk>
__device__ __forceinline__ uint32_t load_mask(const uint8_t* mask, const Unit<kWalk>& u) {
  uint32_t bits = 0;
  if (kWalk != Walk::kLogical && u.whole() && is_aligned<8>(mask)) {
    const Vec<uint8_t, 8> v = load_vec<8>(mask + u.first);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) bits |= uint32_t(v[e] != 0) << e;
    return bits;
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (e < u.count) bits |= uint32_t(mask[u.position(e)] != 0) << e;
  }
  return bits;
}

template <Walk kWalk>
__device__ __forceinline__ void store_mask(uint8_t* mask, const Unit<kWalk>& u, uint32_t bits) {
  if (kWalk != Walk::kLogical && u.whole() && is_aligned<8>(mask)) {
    Vec<uint8_t, 8> v;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) v[e] = uint8_t(bits >> e & 1u);
    store_vec(mask + u.first, v);
    return;
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (e < u.count) mask[u.position(e)] = uint8_t(bits >> e & 1u);
  }
}

// One thread owns eight weights in each kernel: 32 bytes of scores, 8 of mask, 1 of packed bits.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) rule_mask_kernel(const __grid_constant__ RuleMaskParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  float scores[kUnit] = {};
  if (p.scores != nullptr) load_floats(p.scores, u, scores);
  store_mask(p.mask, u, kept_bits(p.rule, scores, u));
}

// Packed bits are in OIHW order, and so are the thread's eight weights.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) pack_mask_kernel(const __grid_constant__ PackMaskParams p) {
  static_assert(!Unit<kWalk>::kByPosition, "a byte of bits is eight OIHW neighbours");
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  p.bits[u.first >> 3] = uint8_t(load_mask(p.mask, u));
}

template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) unpack_mask_kernel(const __grid_constant__ UnpackMaskParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  store_mask(p.mask, u, load_bits(p.bits, u));
}

}  // namespace cuda
}  // namespace hn
