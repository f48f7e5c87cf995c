// generate_weight.cuh: the kernels that turn (seed, layer, redraw) into weights or a plane of
// signs. No masking here.
#pragma once
#include "../masked_weight/weight_unit.cuh"
#include "generate_weight.h"

namespace hn {
namespace cuda {

// One thread owns eight OIHW neighbours: two Philox blocks of drawn numbers, or one byte of a
// block of signs. Sixteen threads make the same block of signs each: cheaper than handing it round,
// since the stores are what takes time.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) generate_weight_kernel(const __grid_constant__ GenerateWeightParams p) {
  static_assert(kWalk != Walk::kPhysical, "Philox blocks hold OIHW neighbours");
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  float out[kUnit];
  if (p.signs) {
    const Philox4 block = philox_block(p.source.draw, kSignStream, uint32_t(first) / 128);
    const uint32_t w = uint32_t(first) % 128 / 32;
    // A chain of selects: indexing the words by a variable would put them in memory.
    const uint32_t word = w < 2 ? (w == 0 ? block.word[0] : block.word[1]) : (w == 2 ? block.word[2] : block.word[3]);
    const uint32_t bits = word >> (uint32_t(first) % 32);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = signed_scale(p.source.scale, bits >> e & 1u);
  } else {
    unit_weights(p.source, u, out);
  }
  store_floats(p.out, p.dtype, u, out);
}

// One thread owns one Philox block: 128 signs, 16 bytes, one store. Only the last one is cut short.
__global__ void __launch_bounds__(kUnitThreads) generate_signs_kernel(const __grid_constant__ GenerateSignsParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * 128;
  if (first >= p.n) return;
  const Philox4 block = philox_block(p.draw, kSignStream, uint32_t(first / 128));
  uint8_t* plane = p.plane + first / 8;
  if (first + 128 <= p.n && is_aligned<16>(p.plane)) {
    store_vec(reinterpret_cast<uint32_t*>(plane),
              Vec<uint32_t, 4>{{block.word[0], block.word[1], block.word[2], block.word[3]}});
    return;
  }
  const int32_t signs = p.n - first < 128 ? int32_t(p.n - first) : 128;
#pragma unroll
  for (int b = 0; b < 16; ++b) {
    const int32_t live = signs - 8 * b;  // signs from this byte on
    if (live <= 0) break;
    const uint32_t byte = block.word[b / 4] >> (8 * (b % 4)) & 0xffu;
    plane[b] = uint8_t(live < 8 ? byte & ((1u << live) - 1u) : byte);
  }
}

}  // namespace cuda
}  // namespace hn
