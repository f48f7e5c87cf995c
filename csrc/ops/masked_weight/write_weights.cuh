// write_weights.cuh: a thread's effective weights, for the kernels that write those of one layer and of many.
#pragma once
#include "masked_weight.h"
#include "staged_unit.cuh"

namespace hn {
namespace cuda {

inline bool draws(const MaskedWeightParams& p) { return draws_words(p.source) || draws_words(p.rule); }
inline Piece piece_of(const MaskedWeightParams& p) {
  return staged_piece(p.layout, draws(p), {p.scores, p.source.stored, p.out});
}

// A unit's weights as the rule leaves them, of which bit e says that e is kept.
__device__ __forceinline__ void reveal(const Rule& rule, const float (&scores)[kUnit], uint32_t kept,
                                       float (&weights)[kUnit]) {
  if (rule.kind == RuleKind::kExpectation) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) weights[e] = mul_rn(weights[e], sigmoid(scores[e]));
    return;
  }
  if (rule.kind == RuleKind::kScored) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) weights[e] = mul_rn(weights[e], scores[e]);
  }
#pragma unroll
  for (int e = 0; e < kUnit; ++e) weights[e] = kept >> e & 1u ? weights[e] : 0.0f;
}

// One thread owns one unit of eight weights. Scores and stored weights are read once and `out` is
// written once, 16 bytes at a time; sign and mask planes cost a byte, generated weights nothing.
// The branches on rule, source and dtype are the same for the whole grid, so a unit pays for them
// once and one kernel serves all of them.
template <Walk kWalk>
__device__ __forceinline__ void write_weights(const MaskedWeightParams& p, int32_t first) {
  const Unit<kWalk> u = make_unit<kWalk>(p.layout, first);
  float scores[kUnit] = {}, out[kUnit];
  if (p.scores != nullptr) load_floats(p.scores, u, scores);
  unit_weights(p.source, u, out);
  reveal(p.rule, scores, kept_bits(p.rule, scores, u), out);
  store_floats(p.out, p.dtype, u, out);
}

// The same of a piece in OHWI memory, whose numbers are drawn in OIHW order. All threads of the block call it, with a stage
// for the weights' numbers and one for the rule's bars.
__device__ __forceinline__ void write_staged_weights(const MaskedWeightParams& p, const Piece& piece, int32_t block,
                                                     Staging* numbers, Staging* bars) {
  const StagedUnits u(p.layout, piece, block);
  stage_weights(p.source, u, numbers);
  stage_bars(p.rule, u, bars);
  __syncthreads();
  if (!u.mine) return;
  float out[kUnit], scores[kUnit] = {};
  if (p.scores != nullptr) load_floats(p.scores, u.owned, scores);
  const uint32_t kept = owned_bits(p.rule, scores, u, bars);
  owned_weights(p.source, u, numbers, out);
  reveal(p.rule, scores, kept, out);
  store_unit(p.out, p.dtype, u.owned.first, out);
}

}  // namespace cuda
}  // namespace hn
