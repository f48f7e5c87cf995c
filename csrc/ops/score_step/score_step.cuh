// score_step.cuh: the kernel that takes an optimiser's step on the scores of all layers in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "../masked_weight/weight_unit.cuh"
#include "score_step.h"

namespace hn {
namespace cuda {

constexpr int kScoreBlock = kUnitThreads * kUnit;

// A segment in the fewest bytes: 256 of them fit a kernel's parameters.
struct ScoreEntry {
  float* scores;
  const void* grad;
  float *first, *second;
  const uint8_t* flags;
  const void* part;     // stored weights, or the plane of signs
  const uint8_t* bits;  // the rule's
  Layout layout;
  float rate, root, scale;
  Draw draw;
  int32_t first_block;  // blocks of the entries before it
  uint8_t rule, source, grad_dtype, walk;
  bool of_weight;
};

inline ScoreEntry entry_of(const ScoreSegment& s, int32_t first_block) {
  const WeightSource& w = s.source;
  ScoreEntry e;
  e.scores = s.scores;
  e.grad = s.grad;
  e.first = s.first;
  e.second = s.second;
  e.flags = s.flags;
  e.bits = s.rule.bits;
  e.layout = s.layout;
  e.rate = s.rate;
  e.root = s.root;
  e.part = w.kind == Source::kStored ? static_cast<const void*>(w.stored) : w.plane;
  e.scale = w.scale;
  e.draw = w.draw;
  e.first_block = first_block;
  e.rule = uint8_t(s.rule.kind);
  e.source = uint8_t(w.kind);
  e.grad_dtype = uint8_t(s.grad_dtype);
  e.of_weight = s.of_weight;
  // where nothing is looked up by OIHW index, the order of the elements does not matter
  const bool named = s.flags != nullptr || (s.of_weight && (has_flags(s.rule.kind) || w.kind > Source::kConstant));
  if (!named) e.layout = flat_layout(s.layout.n);
  e.walk = uint8_t(walk_of(e.layout, s.of_weight && draws_words(w)));
  return e;
}

struct ScoreTable {
  ScoreHyper hyper;
  int32_t count;
  ScoreEntry entry[kMaxEntries];
};

// dL/dscore of a unit.
template <Walk kWalk>
__device__ __forceinline__ void load_gradient(const ScoreEntry& s, const Unit<kWalk>& u, const float (&p)[kUnit],
                                              float (&g)[kUnit]) {
  if (!s.of_weight) return load_floats(static_cast<const float*>(s.grad), u, g);
  load_as_floats(s.grad, Dtype(s.grad_dtype), u, g);
  float weights[kUnit];
  const Rule rule{RuleKind(s.rule), nullptr, s.bits, nullptr, {}};
  unit_weights(
      {Source(s.source), static_cast<const float*>(s.part), static_cast<const uint8_t*>(s.part), s.scale, s.draw}, u,
      weights);
  unit_score_gradient(rule, u, weights, p, g);
}

template <ScoreRule kRule, Walk kWalk>
__device__ __forceinline__ void step_unit(const ScoreHyper& h, const ScoreEntry& s, int32_t first) {
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, first);
  const uint32_t bits = s.flags == nullptr ? 0xffu : load_bits(s.flags, u);
  if ((bits & ((1u << u.count) - 1u)) == 0) return;
  const float rate = h.rate == nullptr ? s.rate : *h.rate;
  float p[kUnit], g[kUnit], m[kUnit] = {}, v[kUnit] = {};
  load_floats(s.scores, u, p);
  load_gradient(s, u, p, g);
  if (kRule != ScoreRule::kPlain) load_floats(s.first, u, m);
  if (kRule == ScoreRule::kAdam) load_floats(s.second, u, v);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    float m1 = m[e], v1 = v[e];
    const float next = stepped<kRule>(h, rate, s.root, p[e], g[e], &m1, &v1);
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
  if (first >= entry.layout.n) return;
  switch (Walk(entry.walk)) {
    case Walk::kFlat: return step_unit<kRule, Walk::kFlat>(t.hyper, entry, int32_t(first));
    case Walk::kPhysical: return step_unit<kRule, Walk::kPhysical>(t.hyper, entry, int32_t(first));
    case Walk::kLogical: return step_unit<kRule, Walk::kLogical>(t.hyper, entry, int32_t(first));
  }
}

}  // namespace cuda
}  // namespace hn
