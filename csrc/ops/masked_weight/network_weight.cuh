// network_weight.cuh: the kernel that makes the weights of all layers of a network in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "write_weights.cuh"

namespace hn {
namespace cuda {

// A layer in the fewest bytes: 256 of them fit a kernel's parameters.
struct WeightEntry {
  const float* scores;
  void* out;
  const Selection* selection;
  const uint8_t* bits;
  const int64_t* step;
  const void* part;  // stored weights, or the plane of signs
  Layout layout;
  float scale;
  Draw rule_draw, source_draw;
  int32_t first_block;  // blocks of the entries before it
  Piece piece;
  uint8_t rule, source, dtype, walk;
};

struct WeightTable {
  int32_t count;
  WeightEntry entry[kMaxEntries];
};

inline WeightEntry weight_entry(const MaskedWeightParams& p, int32_t first_block) {
  const bool is_stored = p.source.kind == Source::kStored;
  WeightEntry e;
  e.scores = p.scores;
  e.out = p.out;
  e.selection = p.rule.selection;
  e.bits = p.rule.bits;
  e.step = p.rule.step;
  e.part = is_stored ? static_cast<const void*>(p.source.stored) : p.source.plane;
  e.layout = p.layout;
  e.scale = p.source.scale;
  e.rule_draw = p.rule.draw;
  e.source_draw = p.source.draw;
  e.first_block = first_block;
  e.rule = uint8_t(p.rule.kind);
  e.source = uint8_t(p.source.kind);
  e.dtype = uint8_t(p.dtype);
  e.walk = uint8_t(walk_of(p.layout, draws(p)));
  e.piece = piece_of(p);
  return e;
}

inline int64_t weight_blocks(const MaskedWeightParams& p) {
  if (p.layout.n == 0) return 0;
  const Piece piece = piece_of(p);
  return piece.channels != 0 ? staged_blocks(p.layout, piece) : int64_t(unit_grid(p.layout.n).x);
}

__global__ void __launch_bounds__(kUnitThreads) network_weight_kernel(const __grid_constant__ WeightTable t) {
  HN_SHARED(Staging, numbers, 1);
  HN_SHARED(Staging, bars, 1);
  const WeightEntry& e = t.entry[entry_of_block(t)];
  const int32_t block = int32_t(blockIdx.x) - e.first_block;
  const int64_t first = (int64_t(block) * kUnitThreads + threadIdx.x) * kUnit;
  MaskedWeightParams p;
  p.scores = e.scores;
  p.rule = {RuleKind(e.rule), e.selection, e.bits, e.step, e.rule_draw};
  p.source = {Source(e.source), static_cast<const float*>(e.part), static_cast<const uint8_t*>(e.part), e.scale,
              e.source_draw};
  p.layout = e.layout;
  p.dtype = Dtype(e.dtype);
  p.out = e.out;
  if (e.piece.channels != 0) return write_staged_weights(p, e.piece, block, numbers, bars);
  if (first >= e.layout.n) return;
  switch (Walk(e.walk)) {
    case Walk::kFlat: return write_weights<Walk::kFlat>(p, int32_t(first));
    case Walk::kPhysical: return write_weights<Walk::kPhysical>(p, int32_t(first));
    default: return write_weights<Walk::kLogical>(p, int32_t(first));
  }
}

}  // namespace cuda
}  // namespace hn
