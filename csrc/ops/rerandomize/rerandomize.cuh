// rerandomize.cuh: the kernel that redraws unrevealed weights of all layers of a network in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "../masked_weight/weight_unit.cuh"
#include "rerandomize.h"

namespace hn {
namespace cuda {

constexpr int kRedrawBlock = kUnitThreads * kUnit;

struct RedrawEntry {
  RedrawSegment segment;
  int32_t row;          // of the selection
  int32_t first_block;  // blocks of the entries before it
  bool flat;            // memory order is OIHW order
};

struct RedrawTable {
  const Selection* selection;
  Order order;
  uint32_t key0, key1, redraw;
  uint64_t limit;
  bool blend;
  float decay, mix;
  int32_t count;
  RedrawEntry entry[kMaxEntries];
};

// Bit e: element e exists, is not revealed, and its word of the redraw stream picks it. A quad without an unrevealed
// element draws nothing.
template <Walk kWalk>
__device__ __forceinline__ uint32_t redrawn_bits(const RedrawTable& t, const RedrawEntry& entry, const Draw& draw,
                                                 const Unit<kWalk>& u) {
  float scores[kUnit];
  load_floats(entry.segment.scores, u, scores);
  const Selection* row = t.selection + entry.row;
  const uint32_t kept = t.order == Order::kMagnitude ? selected_bits<Order::kMagnitude>(row, scores, u)
                                                     : selected_bits<Order::kValue>(row, scores, u);
  uint32_t bits = ~kept & ((1u << u.count) - 1u);
  if (t.limit >> 32 != 0) return bits;
  uint32_t picked = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if ((bits >> (4 * half) & 15u) == 0) continue;
    const Philox4 p = philox_block(draw, kRedrawStream, uint32_t(u.first) / 4 + half);
#pragma unroll
    for (int q = 0; q < 4; ++q) picked |= uint32_t(p.word[q] < uint32_t(t.limit)) << (4 * half + q);
  }
  return bits & picked;
}

// The eight signs of a unit, in the low bits.
__device__ __forceinline__ uint32_t drawn_signs(const Draw& draw, int32_t first) {
  return word_of(philox_block(draw, kSignStream, uint32_t(first) / 128), uint32_t(first) / 32) >>
         (uint32_t(first) % 32);
}

// Fresh weights for the quads that hold a bit; the others of `out` are not to be read.
__device__ __forceinline__ void drawn_weights(const RedrawSegment& s, const Draw& draw, int32_t first, uint32_t bits,
                                              float (&out)[kUnit]) {
  if (s.kind == Source::kConstant || s.kind == Source::kSigns) {
    const uint32_t signs = s.kind == Source::kSigns ? drawn_signs(draw, first) : 0;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) out[e] = signed_scale(s.scale, signs >> e & 1u);
    return;
  }
  with_distribution(s.kind, [&](auto d) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int e = 4 * half;
      if ((bits >> e & 15u) == 0) continue;
      numbers_of<decltype(d)>(philox_block(draw, d.kStream, uint32_t(first) / 4 + half), s.scale, out + e);
    }
  });
}

template <Walk kWalk>
__device__ __forceinline__ void redraw_unit(const RedrawTable& t, const RedrawEntry& entry, int32_t first) {
  const RedrawSegment& s = entry.segment;
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, first);
  const Draw draw{t.key0, t.key1, s.layer, t.redraw};
  const uint32_t bits = redrawn_bits(t, entry, draw, u);
  if (bits == 0) return;
  if (s.plane != nullptr) {
    uint8_t* byte = s.plane + (first >> 3);
    const uint32_t old = *byte;
    *byte = uint8_t(old ^ ((old ^ drawn_signs(draw, first)) & bits));
  }
  if (s.weights != nullptr) {
    float drawn[kUnit];
    drawn_weights(s, draw, first, bits, drawn);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      if (!(bits >> e & 1u)) continue;
      float* w = s.weights + u.position(e);
      *w = t.blend ? add_rn(mul_rn(t.decay, *w), mul_rn(t.mix, drawn[e])) : drawn[e];
    }
  }
  if (s.redraws != nullptr) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      if (bits >> e & 1u) s.redraws[u.position(e)] = int16_t(t.redraw);
    }
  }
}

// A block owns 2048 OIHW neighbours of one layer, a thread eight of them: one byte of a plane, so no byte is shared.
// Scores are read once; only what is replaced is written (and read first, where it is blended). No two threads touch
// one address, so any order gives the same bits.
__global__ void __launch_bounds__(kUnitThreads) rerandomize_kernel(const __grid_constant__ RedrawTable t) {
  const RedrawEntry& entry = t.entry[entry_of_block(t)];
  const int64_t first = int64_t(int32_t(blockIdx.x) - entry.first_block) * kRedrawBlock + int64_t(threadIdx.x) * kUnit;
  if (first >= entry.segment.layout.n) return;
  if (entry.flat) {
    redraw_unit<Walk::kFlat>(t, entry, int32_t(first));
  } else {
    redraw_unit<Walk::kLogical>(t, entry, int32_t(first));
  }
}

}  // namespace cuda
}  // namespace hn
