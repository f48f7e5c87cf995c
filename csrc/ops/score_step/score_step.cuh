// score_step.cuh: the kernel that takes an optimiser's step on the scores of all layers in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "../masked_weight/weight_unit.cuh"
#include "score_step.h"

namespace hn {
namespace cuda {

constexpr int kScoreBlock = kUnitThreads * kUnit;

struct ScoreEntry {
  ScoreSegment segment;  // flat where it has no flags: order does not matter then
  int32_t first_block;   // blocks of the entries before it
  bool flat;
};

struct ScoreTable {
  ScoreHyper hyper;
  int32_t count;
  ScoreEntry entry[kMaxEntries];
};

template <ScoreRule kRule, Walk kWalk>
__device__ __forceinline__ void step_unit(const ScoreHyper& h, const ScoreSegment& s, int32_t first) {
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, first);
  const uint32_t bits = s.flags == nullptr ? 0xffu : load_bits(s.flags, u);
  if ((bits & ((1u << u.count) - 1u)) == 0) return;
  float p[kUnit], g[kUnit], m[kUnit] = {}, v[kUnit] = {};
  load_floats(s.scores, u, p);
  load_floats(s.grad, u, g);
  if (kRule != ScoreRule::kPlain) load_floats(s.first, u, m);
  if (kRule == ScoreRule::kAdam) load_floats(s.second, u, v);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    float m1 = m[e], v1 = v[e];
    const float next = stepped<kRule>(h, s.rate, s.root, p[e], g[e], &m1, &v1);
    if (bits >> e & 1u) {
      p[e] = next;
      m[e] = m1;
      v[e] = v1;
    }
  }
  store_floats(s.scores, Dtype::kFloat32, u, p);
  if (kRule != ScoreRule::kPlain) store_floats(s.first, Dtype::kFloat32, u, m);
  if (kRule == ScoreRule::kAdam) store_floats(s.second, Dtype::kFloat32, u, v);
}

// A thread owns eight neighbours in memory: each byte of scores, gradient and state is read once and written once, 16
// bytes at a time. Units without a flag are skipped after one byte.
template <ScoreRule kRule>
__global__ void __launch_bounds__(kUnitThreads) score_step_kernel(const __grid_constant__ ScoreTable t) {
  const ScoreEntry& entry = t.entry[entry_of_block(t)];
  const int64_t first = int64_t(int32_t(blockIdx.x) - entry.first_block) * kScoreBlock + int64_t(threadIdx.x) * kUnit;
  if (first >= entry.segment.layout.n) return;
  if (entry.flat) {
    step_unit<kRule, Walk::kFlat>(t.hyper, entry.segment, int32_t(first));
  } else {
    step_unit<kRule, Walk::kPhysical>(t.hyper, entry.segment, int32_t(first));
  }
}

}  // namespace cuda
}  // namespace hn
