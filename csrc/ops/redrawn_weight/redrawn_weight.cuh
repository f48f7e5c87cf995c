// redrawn_weight.cuh: the kernel that makes weights again from their redraw numbers.
#pragma once
#include "../masked_weight/staged_unit.cuh"
#include "redrawn_weight.h"

namespace hn {
namespace cuda {

// Word i of its stream as a weight. Neighbours share `block` when they share a number: at most one Philox block an
// element, one a quad where nothing was redrawn.
__device__ __forceinline__ float weight_of_block(Source kind, float scale, const Philox4& block, int32_t i) {
  switch (kind) {
    case Source::kSigns: return signed_scale(scale, word_of(block, uint32_t(i) / 32) >> (uint32_t(i) % 32) & 1u);
    case Source::kConstant: return scale;
    default: return drawn_weight(kind, scale, block, uint32_t(i));
  }
}

// OIHW neighbours by their numbers; neighbours share a Philox block where they share a number.
template <Walk kWalk>
__device__ __forceinline__ void redraw_unit(const RedrawnWeightParams& p, const Unit<kWalk>& u,
                                            const int32_t (&redraws)[kUnit], float (&out)[kUnit]) {
  static_assert(!Unit<kWalk>::kByPosition, "Philox blocks hold OIHW neighbours");
  const Stream stream = stream_of(p.kind);
  const uint32_t per_block = p.kind == Source::kSigns ? 128 : 4;
  Draw draw = p.draw;
  Philox4 block{};
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    const uint32_t redraw = e < u.count ? uint32_t(redraws[e]) : draw.redraw;
    const bool next = e == 0 || (per_block == 4 && e == 4);
    if (p.kind != Source::kConstant && (next || redraw != draw.redraw)) {
      draw.redraw = redraw;
      block = philox_block(draw, stream, uint32_t(u.first + e) / per_block);
    }
    out[e] = weight_of_block(p.kind, p.scale, block, u.first + e);
  }
}

// One thread owns eight OIHW neighbours. Two bytes are read and four written a weight.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) redrawn_weight_kernel(const __grid_constant__ RedrawnWeightParams p) {
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  int32_t redraws[kUnit];
#pragma unroll
  for (int e = 0; e < kUnit; ++e) redraws[e] = e < u.count ? p.redraws[u.position(e)] : 0;
  float out[kUnit];
  redraw_unit(p, u, redraws, out);
  store_floats(p.out, Dtype::kFloat32, u, out);
}

// The same of a piece of OHWI memory: the numbers are staged on their way to the threads that draw, the weights on theirs
// back, where the thread's numbers were.
__global__ void __launch_bounds__(kUnitThreads)
    staged_redrawn_kernel(const __grid_constant__ RedrawnWeightParams p, const __grid_constant__ Piece piece) {
  HN_SHARED(Staging, stage, 1);
  const StagedUnits u(p.layout, piece, int32_t(blockIdx.x));
  float x[kUnit];
  if (u.mine) {
    const Vec<int16_t, kUnit> mine = load_vec<kUnit>(p.redraws + u.owned.first);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) x[e] = bits_float(uint32_t(int32_t(mine[e])));  // which are only moved
    u.put_owned(stage, x);
  }
  __syncthreads();
  if (u.mine) {
    int32_t redraws[kUnit];
    u.take_made(stage, x);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) redraws[e] = int32_t(float_bits(x[e]));
    redraw_unit(p, u.made, redraws, x);
    u.put_made(stage, x);
  }
  __syncthreads();
  if (!u.mine) return;
  u.take_owned(stage, x);
  store_unit(p.out + u.owned.first, x);
}

}  // namespace cuda
}  // namespace hn
