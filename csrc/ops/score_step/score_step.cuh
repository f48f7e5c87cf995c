// score_step.cuh: the kernel that takes an optimiser's step on the scores of all layers in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "../masked_weight/staged_unit.cuh"
#include "../topk_select/select_scan.cuh"
#include "score_step.h"

namespace hn {
namespace cuda {

constexpr int kScoreBlock = kUnitThreads * kUnit;

constexpr int kMaxScoreEntries = 216;  // of one launch: the table must fit the kernel parameters

// Where a segment's keys go: its group's list, which has room for so many, and the place of its first score.
struct CountEntry {
  uint32_t list, room, place;
  int32_t row, group;  // group -1: it is not counted
};

// A segment in the fewest bytes.
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
  Piece piece;
  CountEntry count;
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
  const bool draws = s.of_weight && draws_words(w);
  e.walk = uint8_t(walk_of(e.layout, draws));
  e.piece = staged_piece(e.layout, draws, {s.scores, s.grad, s.first, s.second});
  e.count = {0, 0, 0, 0, -1};
  return e;
}

inline int64_t score_blocks(const ScoreSegment& s) {
  const ScoreEntry e = entry_of(s, 0);
  return e.piece.channels != 0 ? staged_blocks(e.layout, e.piece)
                               : (int64_t(s.layout.n) + kScoreBlock - 1) / kScoreBlock;
}

struct ScoreTable {
  ScoreHyper hyper;
  const Selection* rows;  // around which is counted
  Order order;
  CountTable counts;
  int32_t count;
  ScoreEntry entry[kMaxScoreEntries];
};

__device__ __forceinline__ WeightSource source_of(const ScoreEntry& s) {
  return {Source(s.source), static_cast<const float*>(s.part), static_cast<const uint8_t*>(s.part), s.scale, s.draw};
}

// dL/dscore of a unit; weights_of(x) leaves its weights in x.
template <Walk kWalk, class Weights>
__device__ __forceinline__ void load_gradient(const ScoreEntry& s, const Unit<kWalk>& u, const float (&p)[kUnit],
                                              const Weights& weights_of, float (&g)[kUnit]) {
  if (!s.of_weight) return load_floats(static_cast<const float*>(s.grad), u, g);
  load_as_floats(s.grad, Dtype(s.grad_dtype), u, g);
  float weights[kUnit];
  const Rule rule{RuleKind(s.rule), nullptr, s.bits, nullptr, {}};
  weights_of(weights);
  unit_score_gradient(rule, u, weights, p, g);
}

// Leaves the scores after the step in `p`; where none of them takes part, only if they are `counted`.
template <ScoreRule kRule, Walk kWalk, class Weights>
__device__ __forceinline__ void step_unit(const ScoreHyper& h, const ScoreEntry& s, const Unit<kWalk>& u,
                                          const Weights& weights_of, bool counted, float (&p)[kUnit]) {
  const uint32_t bits = s.flags == nullptr ? 0xffu : load_bits(s.flags, u);
  const bool learns = (bits & ((1u << u.count) - 1u)) != 0;
  if (learns || counted) load_floats(s.scores, u, p);
  if (!learns) return;
  const float rate = h.rate == nullptr ? s.rate : *h.rate;
  float g[kUnit], m[kUnit] = {}, v[kUnit] = {};
  load_gradient(s, u, p, weights_of, g);
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

// The whole block: what its scores add to their group's bracket, as scan_bracket adds a chunk's.
template <Walk kWalk>
__device__ __forceinline__ void count_unit(const ScoreTable& t, const CountEntry& s, const Unit<kWalk>& u,
                                           const float (&p)[kUnit], uint32_t* scratch) {
  const Bracket bracket = bracket_around(t.rows[s.row]);
  GroupCount& group = t.counts.group[s.group];
  uint32_t below = 0, inside = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {
    const uint32_t key = key_of(t.order, p[e]);
    below += e < u.count && key < bracket.low;
    inside |= uint32_t(e < u.count && bracket.holds(key)) << e;
  }
  static_assert(kScoreBlock < 1 << 16, "two counts of a block fit a word");
  const Scan<uint32_t> scan = block_scan<kUnitThreads>(below << 16 | uint32_t(__popc(inside)), scratch);
  if (scan.total == 0) return;
  if (threadIdx.x == 0) {
    if (scan.total >> 16 != 0) atomicAdd(&group.below, scan.total >> 16);
    *scratch = (scan.total & 0xffffu) == 0 ? 0 : atomicAdd(&group.candidates, scan.total & 0xffffu);
  }
  __syncthreads();
  uint32_t slot = *scratch + (scan.before & 0xffffu);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) {  // no index that is not known to the compiler: it would put `p` into memory
    if ((inside >> e & 1u) == 0 || slot >= s.room) continue;
    const uint32_t key = key_of(t.order, p[e]);
    t.counts.candidate[s.list + slot] = key;
    t.counts.place[s.list + slot] = s.place + uint32_t(u.position(e));
    atomicAdd(&group.bins[bracket.sub_bin(key)], 1u);
    ++slot;
  }
}

template <ScoreRule kRule, Walk kWalk, bool kCounts>
__device__ __forceinline__ void step_and_count(const ScoreTable& t, const ScoreEntry& s, int64_t first,
                                               uint32_t* scratch) {
  const bool counted = kCounts && s.count.group >= 0, exists = first < s.layout.n;
  if (!counted && !exists) return;
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, exists ? int32_t(first) : 0);
  float p[kUnit];
  const auto weights_of = [&](float (&x)[kUnit]) { unit_weights(source_of(s), u, x); };
  if (exists) step_unit<kRule>(t.hyper, s, u, weights_of, counted, p);
  if (!counted) return;
  Unit<kWalk> mine = u;
  if (!exists) mine.count = 0;
  count_unit(t, s.count, mine, p, scratch);
}

// The same of a piece of OHWI memory, whose weights are drawn in OIHW order and staged.
template <ScoreRule kRule, bool kCounts>
__device__ __forceinline__ void step_and_count_staged(const ScoreTable& t, const ScoreEntry& s, int32_t block,
                                                      Staging* stage, uint32_t* scratch) {
  const StagedUnits u(s.layout, s.piece, block);
  stage_weights(source_of(s), u, stage);
  __syncthreads();
  const bool counted = kCounts && s.count.group >= 0;
  float p[kUnit];
  const auto weights_of = [&](float (&x)[kUnit]) { u.take_owned(stage, x); };
  if (u.mine) step_unit<kRule>(t.hyper, s, u.owned, weights_of, counted, p);
  if (!counted) return;
  Unit<Walk::kStaged> mine = u.owned;
  if (!u.mine) mine.count = 0;
  count_unit(t, s.count, mine, p, scratch);
}

// A thread owns eight neighbours in memory: each byte of scores, gradient and state is read once and written once, 16
// bytes at a time. Units without a flag are skipped after one byte, unless they are counted.
template <ScoreRule kRule, bool kCounts>
__global__ void __launch_bounds__(kUnitThreads) score_step_kernel(const __grid_constant__ ScoreTable t) {
  HN_SHARED(uint32_t, scratch, kBlockScratch<kUnitThreads>);
  HN_SHARED(Staging, stage, 1);
  const ScoreEntry& entry = t.entry[entry_of_block(t)];
  const int32_t block = int32_t(blockIdx.x) - entry.first_block;
  const int64_t first = int64_t(block) * kScoreBlock + int64_t(threadIdx.x) * kUnit;
  if (kCounts && blockIdx.x == 0 && threadIdx.x == 0) *t.counts.counted = 1;
  if (entry.piece.channels != 0) return step_and_count_staged<kRule, kCounts>(t, entry, block, stage, scratch);
  switch (Walk(entry.walk)) {
    case Walk::kFlat: return step_and_count<kRule, Walk::kFlat, kCounts>(t, entry, first, scratch);
    case Walk::kPhysical: return step_and_count<kRule, Walk::kPhysical, kCounts>(t, entry, first, scratch);
    default: return step_and_count<kRule, Walk::kLogical, kCounts>(t, entry, first, scratch);
  }
}

}  // namespace cuda
}  // namespace hn
