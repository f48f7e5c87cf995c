// weight_tile.cuh: make a tile of masked weights in shared memory: bfloat16 [columns][kTileDepth],
// or, where a loader says kDepthMajor, [kTileDepth][columns].
//
// An element is bf16(kept ? weight : +0) (kScored: weight * score), the same bits as the effective weight rounded to
// bfloat16. Columns past the last and the tail of the depth are +0: the activations there are 0
// too, but 0 times garbage could be NaN.
//
// A loader is called as load() then store() once a step, in order of the depth; between them run a
// step's products.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"
#include "../../base/memory.cuh"
#include "conv_gemm.cuh"

namespace hn {
namespace cuda {

// Any source, rule, layout and number of channels. Thread t owns the pair of elements t % 16 of
// columns t / 16, t / 16 + 8, ...; everything happens in store().
template <int kColumns>
class AnyWeights {
 public:
  static constexpr bool kDepthMajor = false;
  static constexpr int kMinBlocks = 3;  // a processor, said to ptxas: else it spills to fit a fourth

  __device__ AnyWeights(const ConvGemm& g, const Window& w, int32_t first_column)
      : at_{depth_cursor(g, w, pair()), depth_cursor(g, w, pair() + 1)}, first_column_(first_column) {}

  __device__ void load(const ConvGemm&, const Window&) {}

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
#pragma unroll 1
    for (int column = int(threadIdx.x) / kPairs; column < kColumns; column += kThreads / kPairs) {
      const Vec<uint16_t, 2> made = {element(g, w, first_column_ + column, at_[0]),
                                     element(g, w, first_column_ + column, at_[1])};
      store_vec(tile + tile_offset<kTileDepth>(column, pair()), made);
    }
    at_[0].advance(g, w, kTileDepth);
    at_[1].advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kPairs = kTileDepth / 2;
  static __device__ int pair() { return int(threadIdx.x) % kPairs * 2; }

  static __device__ uint16_t element(const ConvGemm& g, const Window& w, int32_t column, const DepthCursor& at) {
    if (!at.inside(w) || column >= g.columns) return 0;
    const Layout& l = g.p.layout;
    const int32_t filter = g.gradient ? at.channel : column, channel = g.gradient ? column : at.channel;
    const int32_t tap = at.kernel_position(g, w);
    const int32_t i = filter * l.per_filter + channel * l.taps + tap;
    const int32_t p = l.channels_last ? filter * l.per_filter + tap * l.channels + channel : i;
    const float score = g.p.scores != nullptr ? g.p.scores[p] : 0.0f;
    if (!kept(g.p.rule, score, i)) return 0;
    const float weight = weight_at(g.p.source, p, i);
    return bfloat16_bits(g.p.rule.kind == RuleKind::kScored ? mul_rn(weight, score) : weight);
  }

  DepthCursor at_[2];
  int32_t first_column_;
};

// Weights of one size, with or without signs from a bit plane, under a selection, with or without
// flags: what does not change within a block.
struct SelectedConstant {
  uint32_t scale;  // bfloat16 in the high half; rounding is symmetric, so the sign may come after
  uint32_t threshold;
  int32_t cut;
  bool by_value;
  // With no cut and a threshold that is no NaN, a score is kept iff it is not less than `least`,
  // the score whose key is the threshold. By magnitude that is said of the score without its sign.
  bool no_cut;
  float least;
  uint32_t ordered_bits;
  const uint8_t* flags;  // null: none

  __device__ explicit SelectedConstant(const MaskedConvParams& p)
      : scale(uint32_t(bfloat16_bits(p.source.scale)) << 16),
        threshold(p.rule.selection->threshold),
        cut(p.rule.selection->cut),
        by_value(p.rule.kind != RuleKind::kMagnitude),
        ordered_bits(by_value ? 0xffffffffu : 0x7fffffffu),
        flags(has_flags(p.rule.kind) ? p.rule.bits : nullptr) {
    const uint32_t highest = by_value ? value_key(0x7f800000u) : magnitude_key(0x7f800000u);
    no_cut = cut == 0 && threshold <= highest;
    // A key below that of -inf, which keeps all, gives a NaN, which nothing is less than.
    const uint32_t flipped = threshold & 0x80000000u ? 0x80000000u : 0xffffffffu;
    least = bits_float(by_value ? threshold ^ flipped : threshold);
  }
};

// Makes the weights of 8 consecutive input channels of a filter at one tap: OHWI scores, channels
// in multiples of 8, aligned to 16 bytes. Loaded first, made later, so that the scores travel while
// a tile is multiplied.
struct ScoreVector {
  Vec<float, 4> score[2];

  __device__ void load(const MaskedConvParams& p, int32_t filter, int32_t channel, int32_t tap) {
    const float* from = p.scores + (filter * p.layout.per_filter + tap * p.layout.channels + channel);
    score[0] = load_vec_readonly<4>(from);
    score[1] = load_vec_readonly<4>(from + 4);
  }

  __device__ Vec<uint32_t, 4> make(const MaskedConvParams& p, const SelectedConstant& constant, int32_t filter,
                                   int32_t channel, int32_t tap) const {
    const int32_t first = filter * p.layout.per_filter + channel * p.layout.taps + tap;
    uint32_t weight[8];
    signed_weights(p, constant.scale, first, weight);
    if (constant.flags != nullptr) keep_flagged(p, constant.flags, first, weight);
    if (constant.no_cut) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const float s = bits_float(float_bits(score[e / 4][e % 4]) & constant.ordered_bits);
        weight[e] = s < constant.least ? 0u : weight[e];
      }
    } else {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const uint32_t key = key_of(constant.by_value ? Order::kValue : Order::kMagnitude, score[e / 4][e % 4]);
        const bool keep = kept_by_selection(constant.threshold, constant.cut, key, first + e * p.layout.taps);
        weight[e] = keep ? weight[e] : 0u;
      }
    }
    Vec<uint32_t, 4> made;
#pragma unroll
    for (int e = 0; e < 4; ++e) made[e] = __byte_perm(weight[2 * e], weight[2 * e + 1], 0x7632);
    return made;
  }

 private:
  static __device__ void keep_flagged(const MaskedConvParams& p, const uint8_t* flags, int32_t first,
                                      uint32_t (&weight)[8]) {
#pragma unroll
    for (int e = 0; e < 8; ++e) weight[e] = bit_of(flags, first + e * p.layout.taps) ? weight[e] : 0u;
  }

  // One byte of the plane holds all eight signs where a filter has one tap; else each has its own.
  static __device__ void signed_weights(const MaskedConvParams& p, uint32_t scale, int32_t first,
                                        uint32_t (&weight)[8]) {
    constexpr uint32_t kSign = 0x80000000u;
    if (p.source.kind == Source::kConstant) {
#pragma unroll
      for (int e = 0; e < 8; ++e) weight[e] = scale;
    } else if (p.layout.taps == 1) {
      const uint32_t byte = p.source.plane[first >> 3];
#pragma unroll
      for (int e = 0; e < 8; ++e) weight[e] = scale ^ (byte << (31 - e) & kSign);
    } else {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const int32_t i = first + e * p.layout.taps;
        weight[e] = scale ^ (uint32_t(p.source.plane[i >> 3]) << (24 | (~i & 7)) & kSign);
      }
    }
  }
};

// Forward: the vectors lie along the depth. Thread t owns chunk t % 4 of column t / 4 and of every
// 32nd from there.
template <int kColumns>
class ForwardConstants {
 public:
  static constexpr bool kDepthMajor = false;
  static constexpr int kMinBlocks = 0;  // as ptxas likes

  __device__ ForwardConstants(const ConvGemm& g, const Window& w, int32_t first_column)
      : constant_(g.p), at_(depth_cursor(g, w, element())), first_column_(first_column) {}

  __device__ void load(const ConvGemm& g, const Window& w) {
    const int32_t tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (inside(g, w, j)) scores_[j].load(g.p, first_column_ + column(j), at_.channel, tap);
    }
  }

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
    const int32_t tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      Vec<uint32_t, 4> made = {};
      if (inside(g, w, j)) made = scores_[j].make(g.p, constant_, first_column_ + column(j), at_.channel, tap);
      store_vec(reinterpret_cast<uint32_t*>(tile + tile_offset<kTileDepth>(column(j), element())), made);
    }
    at_.advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kRowChunks = kTileDepth / kChunk, kColumnStep = kThreads / kRowChunks;
  static constexpr int kPerThread = kColumns / kColumnStep;
  static_assert(kColumns % kColumnStep == 0, "every thread makes the same number of vectors");
  static __device__ int element() { return int(threadIdx.x) % kRowChunks * kChunk; }
  static __device__ int column(int j) { return int(threadIdx.x) / kRowChunks + j * kColumnStep; }
  __device__ bool inside(const ConvGemm& g, const Window& w, int j) const {
    return at_.inside(w) && first_column_ + column(j) < g.columns;
  }

  SelectedConstant constant_;
  DepthCursor at_;
  int32_t first_column_;
  ScoreVector scores_[kPerThread];
};

// Gradient: the vectors lie along the columns, and so does the tile. Thread t owns one chunk of
// columns at one or more elements of the depth (filters).
template <int kColumns>
class GradientConstants {
 public:
  static constexpr bool kDepthMajor = true;
  static constexpr int kMinBlocks = 0;  // as ptxas likes

  __device__ GradientConstants(const ConvGemm& g, const Window& w, int32_t first_column)
      : constant_(g.p), first_channel_(first_column + column()) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) at_[j] = depth_cursor(g, w, element(j));
  }

  __device__ void load(const ConvGemm& g, const Window& w) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (inside(g, w, j)) scores_[j].load(g.p, at_[j].channel, first_channel_, at_[j].kernel_position(g, w));
    }
  }

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      Vec<uint32_t, 4> made = {};
      if (inside(g, w, j)) {
        made = scores_[j].make(g.p, constant_, at_[j].channel, first_channel_, at_[j].kernel_position(g, w));
      }
      store_vec(reinterpret_cast<uint32_t*>(tile + tile_offset<kColumns>(element(j), column())), made);
      at_[j].advance(g, w, kTileDepth);
    }
  }

 private:
  static constexpr int kRowChunks = kColumns / kChunk, kElementStep = kThreads / kRowChunks;
  static constexpr int kPerThread = kTileDepth / kElementStep;
  static_assert(kTileDepth % kElementStep == 0, "every thread makes the same number of vectors");
  static __device__ int column() { return int(threadIdx.x) % kRowChunks * kChunk; }
  static __device__ int element(int j) { return int(threadIdx.x) / kRowChunks + j * kElementStep; }
  __device__ bool inside(const ConvGemm& g, const Window& w, int j) const {
    return at_[j].inside(w) && first_channel_ < g.columns;
  }

  SelectedConstant constant_;
  DepthCursor at_[kPerThread];
  int32_t first_channel_;
  ScoreVector scores_[kPerThread];
};

}  // namespace cuda
}  // namespace hn
