// rerandomize.cuh: the kernel that redraws unrevealed weights of all layers of a network in one launch.
#pragma once
#include "../../base/segments.cuh"
#include "../masked_weight/staged_unit.cuh"
#include "rerandomize.h"

namespace hn {
namespace cuda {

constexpr int kRedrawBlock = kUnitThreads * kUnit;

struct RedrawEntry {
  RedrawSegment segment;
  int32_t row;          // of the selection
  int32_t first_block;  // blocks of the entries before it
  bool flat;            // memory order is OIHW order
  Piece piece;
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

inline RedrawEntry redraw_entry(const RedrawSegment& s, int32_t row, int32_t first_block) {
  const Piece piece = staged_piece(s.layout, true, {s.scores, s.weights, s.redraws});
  return {s, row, first_block, walk_of(s.layout, true) == Walk::kFlat, piece};
}

inline int64_t redraw_blocks(const RedrawSegment& s) {
  const Piece piece = redraw_entry(s, 0, 0).piece;
  return piece.channels != 0 ? staged_blocks(s.layout, piece) : (int64_t(s.layout.n) + kRedrawBlock - 1) / kRedrawBlock;
}

// Bit e: element e exists, is not revealed, and its word of the redraw stream picks it. A quad without an unrevealed
// element draws nothing.
template <Walk kWalk>
__device__ __forceinline__ uint32_t redrawn_bits(const RedrawTable& t, const RedrawEntry& entry, const Draw& draw,
                                                 const float (&scores)[kUnit], const Unit<kWalk>& u) {
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

// Fresh weights of four OIHW neighbours, which are a Philox block: of `first` and the next.
__device__ __forceinline__ void drawn_weights(const RedrawSegment& s, const Draw& draw, int32_t first,
                                              float (&out)[4]) {
  if (s.kind == Source::kConstant || s.kind == Source::kSigns) {
    const uint32_t signs = s.kind == Source::kSigns ? drawn_signs(draw, first) : 0;
#pragma unroll
    for (int q = 0; q < 4; ++q) out[q] = signed_scale(s.scale, signs >> q & 1u);
    return;
  }
  with_distribution(s.kind, [&](auto d) {
    numbers_of<decltype(d)>(philox_block(draw, d.kStream, uint32_t(first) / 4), s.scale, out);
  });
}

// Replaces the signs of OIHW neighbours that a bit is set for.
__device__ __forceinline__ void redraw_signs(uint8_t* plane, const Draw& draw, int32_t first, uint32_t bits) {
  uint8_t* byte = plane + (first >> 3);
  const uint32_t old = *byte;
  *byte = uint8_t(old ^ ((old ^ drawn_signs(draw, first)) & bits));
}

__device__ __forceinline__ float renewed(const RedrawTable& t, float old, float drawn) {
  return t.blend ? add_rn(mul_rn(t.decay, old), mul_rn(t.mix, drawn)) : drawn;
}

template <Walk kWalk>
__device__ __forceinline__ void redraw_unit(const RedrawTable& t, const RedrawEntry& entry, int32_t first) {
  const RedrawSegment& s = entry.segment;
  const Unit<kWalk> u = make_unit<kWalk>(s.layout, first);
  const Draw draw{t.key0, t.key1, s.layer, t.redraw};
  float scores[kUnit];
  load_floats(s.scores, u, scores);
  const uint32_t bits = redrawn_bits(t, entry, draw, scores, u);
  if (bits == 0) return;
  if (s.plane != nullptr) redraw_signs(s.plane, draw, first, bits);
  if (s.weights != nullptr) {
#pragma unroll
    for (int half = 0; half < kUnit; half += 4) {
      if ((bits >> half & 15u) == 0) continue;
      float drawn[4];
      drawn_weights(s, draw, first + half, drawn);
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        float* w = s.weights + u.position(half + q);
        if (bits >> (half + q) & 1u) *w = renewed(t, *w, drawn[q]);
      }
    }
  }
  if (s.redraws != nullptr) {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      if (bits >> e & 1u) s.redraws[u.position(e)] = int16_t(t.redraw);
    }
  }
}

// What a block's threads hand each other: scores of memory's neighbours, then drawn weights of OIHW neighbours, and the
// bits of those which are replaced.
struct RedrawStage {
  Staging numbers;
  uint8_t bits[kUnitThreads];
};

// The same of a piece of OHWI memory, which is read and written 16 bytes at a time: quads that hold a bit, and eight
// numbers of redraws.
__device__ __forceinline__ void redraw_staged(const RedrawTable& t, const RedrawEntry& entry, int32_t block,
                                              RedrawStage* stage) {
  const RedrawSegment& s = entry.segment;
  const Draw draw{t.key0, t.key1, s.layer, t.redraw};
  const StagedUnits u(s.layout, entry.piece, block);
  float x[kUnit];
  if (u.mine) {
    load_floats(s.scores, u.owned, x);
    u.put_owned(&stage->numbers, x);
  }
  __syncthreads();
  if (u.mine) {
    u.take_made(&stage->numbers, x);
    const uint32_t bits = redrawn_bits(t, entry, draw, x, u.made);
    stage->bits[threadIdx.x] = uint8_t(bits);
    if (s.plane != nullptr && bits != 0) redraw_signs(s.plane, draw, u.made.first, bits);
#pragma unroll 1
    for (int half = 0; s.weights != nullptr && half < kUnit; half += 4) {
      if ((bits >> half & 15u) == 0) continue;
      float drawn[4];
      drawn_weights(s, draw, u.made.first + half, drawn);
      u.put_made(&stage->numbers, half, drawn);  // where its scores were, which no other thread reads
    }
  }
  if (s.weights == nullptr && s.redraws == nullptr) return;
  __syncthreads();
  if (!u.mine) return;
  const uint32_t bits = u.take_bits(stage->bits);
  if (s.weights != nullptr) {
    u.take_owned(&stage->numbers, x);
#pragma unroll
    for (int half = 0; half < kUnit; half += 4) {
      if ((bits >> half & 15u) == 0) continue;
      float* to = s.weights + u.owned.first + half;
      Vec<float, 4> w = load_vec<4>(to);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (bits >> (half + e) & 1u) w[e] = renewed(t, w[e], x[half + e]);
      }
      store_vec(to, w);
    }
  }
  if (s.redraws != nullptr && bits != 0) {
    int16_t* to = s.redraws + u.owned.first;
    Vec<int16_t, kUnit> numbers = load_vec<kUnit>(to);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      if (bits >> e & 1u) numbers[e] = int16_t(t.redraw);
    }
    store_vec(to, numbers);
  }
}

// A block owns 2048 OIHW neighbours of one layer, a thread eight of them: one byte of a plane, so no byte is shared.
// Scores are read once; only what is replaced is written (and read first, where it is blended). No two threads touch
// one address, so any order gives the same bits.
__global__ void __launch_bounds__(kUnitThreads, 8) rerandomize_kernel(const __grid_constant__ RedrawTable t) {
  HN_SHARED(RedrawStage, stage, 1);
  const RedrawEntry& entry = t.entry[entry_of_block(t)];
  const int32_t block = int32_t(blockIdx.x) - entry.first_block;
  const int64_t first = int64_t(block) * kRedrawBlock + int64_t(threadIdx.x) * kUnit;
  if (entry.piece.channels != 0) return redraw_staged(t, entry, block, stage);
  if (first >= entry.segment.layout.n) return;
  if (entry.flat) {
    redraw_unit<Walk::kFlat>(t, entry, int32_t(first));
  } else {
    redraw_unit<Walk::kLogical>(t, entry, int32_t(first));
  }
}

}  // namespace cuda
}  // namespace hn
