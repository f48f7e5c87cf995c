// generate_weight.cuh: the kernels that turn (seed, layer, redraw) into weights or a plane of
// signs. No masking here.
#pragma once
#include "../masked_weight/staged_unit.cuh"
#include "generate_weight.h"

namespace hn {
namespace cuda {

// A unit of OIHW neighbours: two Philox blocks of drawn numbers, or one byte of a block of signs. Sixteen threads make the
// same block of signs each: cheaper than handing it round, since the stores are what takes time.
template <Walk kWalk>
__device__ __forceinline__ void generate_unit(const GenerateWeightParams& p, const Unit<kWalk>& u,
                                              float (&out)[kUnit]) {
  static_assert(!Unit<kWalk>::kByPosition, "Philox blocks hold OIHW neighbours");
  if (!p.signs) return unit_weights(p.source, u, out);
  const Philox4 block = philox_block(p.source.draw, kSignStream, uint32_t(u.first) / 128);
  const uint32_t w = uint32_t(u.first) % 128 / 32;
  // A chain of selects: indexing the words by a variable would put them in memory.
  const uint32_t word = w < 2 ? (w == 0 ? block.word[0] : block.word[1]) : (w == 2 ? block.word[2] : block.word[3]);
  const uint32_t bits = word >> (uint32_t(u.first) % 32);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) out[e] = signed_scale(p.source.scale, bits >> e & 1u);
}

// One thread owns one unit.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) generate_weight_kernel(const __grid_constant__ GenerateWeightParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  float out[kUnit];
  generate_unit(p, u, out);
  store_floats(p.out, p.dtype, u, out);
}

// A block owns one piece of OHWI memory.
__global__ void __launch_bounds__(kUnitThreads)
    staged_generate_kernel(const __grid_constant__ GenerateWeightParams p, const __grid_constant__ Piece piece) {
  HN_SHARED(Staging, numbers, 1);
  const StagedUnits u(p.layout, piece, int32_t(blockIdx.x));
  float out[kUnit];
  if (u.mine) {
    generate_unit(p, u.made, out);
    u.put_made(numbers, out);
  }
  __syncthreads();
  if (!u.mine) return;
  u.take_owned(numbers, out);
  store_unit(p.out, p.dtype, u.owned.first, out);
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
