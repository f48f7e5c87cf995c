// redrawn_weight.cuh: the kernel that makes weights again from their redraw numbers.
#pragma once
#include "../masked_weight/weight_unit.cuh"
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

// One thread owns eight OIHW neighbours. Two bytes are read and four written a weight.
template <Walk kWalk>
__global__ void __launch_bounds__(kUnitThreads) redrawn_weight_kernel(const __grid_constant__ RedrawnWeightParams p) {
  static_assert(kWalk != Walk::kPhysical, "Philox blocks hold OIHW neighbours");
  const int64_t first = (int64_t(blockIdx.x) * kUnitThreads + threadIdx.x) * kUnit;
  if (first >= p.layout.n) return;
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, int32_t(first));
  const Stream stream = stream_of(p.kind);
  const uint32_t per_block = p.kind == Source::kSigns ? 128 : 4;
  float out[kUnit];
  Draw draw = p.draw;
  Philox4 block{};
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    const uint32_t redraw = e < u.count ? uint32_t(int32_t(p.redraws[u.position(e)])) : draw.redraw;
    const bool next = e == 0 || (per_block == 4 && e == 4);
    if (p.kind != Source::kConstant && (next || redraw != draw.redraw)) {
      draw.redraw = redraw;
      block = philox_block(draw, stream, uint32_t(u.first + e) / per_block);
    }
    out[e] = weight_of_block(p.kind, p.scale, block, u.first + e);
  }
  store_floats(p.out, Dtype::kFloat32, u, out);
}

}  // namespace cuda
}  // namespace hn
