// bop_step.cuh: the kernel that takes Bop's step on the weights of all layers in one launch.
#pragma once
#include "../../base/collectives.cuh"
#include "../../base/segments.cuh"
#include "../masked_weight/weight_unit.cuh"
#include "bop_step.h"

namespace hn {
namespace cuda {

constexpr int kBopBlock = kUnitThreads * kUnit;

struct BopEntry {
  BopSegment segment;           // flat where it has no flags: order does not matter then
  unsigned long long* counter;  // blocks that are done, times 2^32, plus their flips
  int32_t first_block;          // blocks of the entries before it
  int32_t blocks;               // its own
  bool flat;
};

struct BopTable {
  BopHyper hyper;
  int32_t count;
  BopEntry entry[kMaxEntries];
};

// Returns how many of the unit's elements flipped. Weights are written only where one did.
template <Walk kWalk>
__device__ __forceinline__ int32_t bop_unit(const BopHyper& h, const BopSegment& s, int32_t first) {
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, first);
  const uint32_t here = (1u << u.count) - 1u;
  const uint32_t bits = s.flags == nullptr ? here : load_bits(s.flags, u) & here;
  if (bits == 0) return 0;
  float p[kUnit], g[kUnit], m[kUnit] = {};
  load_floats(s.weights, u, p);
  load_floats(s.grad, u, g);
  if (!s.fresh || bits != here) load_floats(s.average, u, m);
  uint32_t flipped = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    if (!(bits >> e & 1u)) continue;
    m[e] = bop_averaged(h, s.fresh, m[e], g[e]);
    if (!bop_flips(h, m[e], p[e])) continue;
    p[e] = negated(p[e]);
    flipped |= 1u << e;
  }
  store_floats(s.average, Dtype::kFloat32, u, m);
  if (flipped != 0) store_floats(s.weights, Dtype::kFloat32, u, p);
  return __popc(flipped);
}

// A thread owns eight neighbours in memory: gradient, average and weight are read once and the average written once, 16
// bytes at a time. A block adds its flips and one more done to its layer's counter in one atomic; who is the last knows
// the sum, and alone writes it, so flips and total have one writer each.
__global__ void __launch_bounds__(kUnitThreads) bop_step_kernel(const __grid_constant__ BopTable t) {
  HN_SHARED(int32_t, scratch, kBlockScratch<kUnitThreads>);
  const BopEntry& entry = t.entry[entry_of_block(t)];
  const int64_t first = int64_t(int32_t(blockIdx.x) - entry.first_block) * kBopBlock + int64_t(threadIdx.x) * kUnit;
  int32_t flips = 0;
  if (first < entry.segment.layout.n) {
    flips = entry.flat ? bop_unit<Walk::kFlat>(t.hyper, entry.segment, int32_t(first))
                       : bop_unit<Walk::kPhysical>(t.hyper, entry.segment, int32_t(first));
  }
  flips = block_sum<kUnitThreads>(flips, scratch);
  if (threadIdx.x != 0) return;
  const unsigned long long before = atomicAdd(entry.counter, (1ull << 32) + static_cast<unsigned long long>(flips));
  if (int32_t(before >> 32) != entry.blocks - 1) return;
  const int64_t all = int64_t(before & 0xffffffffu) + flips;
  *entry.segment.flips = all;
  *entry.segment.total += all;
}

}  // namespace cuda
}  // namespace hn
