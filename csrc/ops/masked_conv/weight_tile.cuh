// weight_tile.cuh: make a tile of masked weights in shared memory, [columns][kTileDepth] bfloat16.
//
// An element is bf16(kept ? weight : +0), the same bits as the effective weight rounded to bfloat16. Columns past the
// last and the tail of the depth are +0: the activations there are 0 too, but 0 times garbage could be NaN.
//
// A loader is called as load() then store() once a step, in order of the depth; between them run a step's products.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"
#include "../../base/memory.cuh"
#include "conv_gemm.cuh"

namespace hn {
namespace cuda {

// Any source, rule, layout and number of channels. Thread t owns the pair of elements t % 16 of columns t / 16,
// t / 16 + 8, ...; everything happens in store().
template <int kColumns>
class AnyWeights {
 public:
  __device__ AnyWeights(const ConvGemm& g, const Window& w, int32_t first_column)
      : at_{depth_cursor(g, w, pair()), depth_cursor(g, w, pair() + 1)}, first_column_(first_column) {}

  __device__ void load(const ConvGemm&, const Window&) {}

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
#pragma unroll 1
    for (int column = int(threadIdx.x) / kPairs; column < kColumns; column += kThreads / kPairs) {
      const uint32_t low = element(g, w, first_column_ + column, at_[0]);
      const uint32_t high = element(g, w, first_column_ + column, at_[1]);
      *reinterpret_cast<uint32_t*>(tile + tile_offset(column, pair())) = low | high << 16;
    }
    at_[0].advance(g, w, kTileDepth);
    at_[1].advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kPairs = kTileDepth / 2;
  static __device__ int pair() { return int(threadIdx.x) % kPairs * 2; }

  static __device__ uint32_t element(const ConvGemm& g, const Window& w, int32_t column, const DepthCursor& at) {
    if (!at.inside(w) || column >= g.columns) return 0;
    const Layout& l = g.p.layout;
    const int32_t filter = g.gradient ? at.channel : column, channel = g.gradient ? column : at.channel;
    const int32_t tap = at.kernel_position(g, w);
    const int32_t i = filter * l.per_filter + channel * l.taps + tap;
    const int32_t p = l.channels_last ? filter * l.per_filter + tap * l.channels + channel : i;
    const float score = g.p.scores != nullptr ? g.p.scores[p] : 0.0f;
    return kept(g.p.rule, score, i) ? bfloat16_bits(weight_at(g.p.source, p, i)) : 0u;
  }

  DepthCursor at_[2];
  int32_t first_column_;
};

// +scale, or a sign from a bit plane, under a selection by magnitude or value: about ten instructions a weight.
class SelectedConstant {
 public:
  __device__ explicit SelectedConstant(const MaskedConvParams& p)
      : threshold_(p.rule.selection->threshold),
        cut_(p.rule.selection->cut),
        scale_(bfloat16_bits(p.source.scale)),
        plane_(p.source.kind == Source::kSigns ? p.source.plane : nullptr),
        by_value_(p.rule.kind == RuleKind::kValue) {}

  // The bfloat16 bits of the weight of OIHW index i: rounding is symmetric, so the sign may come after it.
  __device__ uint32_t make(float score, int32_t i) const {
    const uint32_t key = by_value_ ? key_of<Order::kValue>(score) : key_of<Order::kMagnitude>(score);
    const uint32_t negative = plane_ != nullptr ? plane_[i >> 3] >> (i & 7) & 1u : 0u;
    return kept_by_selection(threshold_, cut_, key, i) ? scale_ ^ negative << 15 : 0u;
  }

 private:
  uint32_t threshold_;
  int32_t cut_;
  uint32_t scale_;
  const uint8_t* plane_;
  bool by_value_;
};

// Forward, OHWI scores aligned to 16 bytes, input channels in multiples of 8: the depth is contiguous. Thread t owns
// chunk t % 4 of columns t / 4, t / 4 + 32, ...
template <int kColumns>
class ForwardConstants {
 public:
  __device__ ForwardConstants(const ConvGemm& g, const Window& w, int32_t first_column)
      : make_(g.p), at_(depth_cursor(g, w, int(threadIdx.x) % kChunks * kChunk)), first_column_(first_column) {}

  __device__ void load(const ConvGemm& g, const Window& w) {
    const int32_t tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (!inside(g, w, j)) continue;
      const float* from = g.p.scores + (filter(j) * g.p.layout.per_filter + tap * g.p.layout.channels + at_.channel);
      load_vector(from, scores_[j]);
    }
  }

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
    const int32_t taps = g.p.layout.taps, tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      uint32_t words[kChunk / 2] = {};
      if (inside(g, w, j)) {
        const int32_t first = filter(j) * g.p.layout.per_filter + at_.channel * taps + tap;
#pragma unroll
        for (int e = 0; e < kChunk; ++e) words[e / 2] |= make_.make(scores_[j][e], first + e * taps) << (16 * (e % 2));
      }
      store_vector(tile + tile_offset(column(j), int(threadIdx.x) % kChunks * kChunk), words);
    }
    at_.advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kColumnStep = kThreads / kChunks, kPerThread = kColumns / kColumnStep;
  static_assert(kColumns % kColumnStep == 0, "every thread makes the same number of chunks");
  static __device__ int column(int j) { return int(threadIdx.x) / kChunks + j * kColumnStep; }
  __device__ int32_t filter(int j) const { return first_column_ + column(j); }
  __device__ bool inside(const ConvGemm& g, const Window& w, int j) const {
    return at_.inside(w) && filter(j) < g.columns;
  }

  SelectedConstant make_;
  DepthCursor at_;
  int32_t first_column_;
  float scores_[kPerThread][kChunk];
};

// Gradient, OHWI scores aligned to 16 bytes, input channels in multiples of 4, output channels in multiples of 8: the
// columns are contiguous. Thread t owns pair t / 4 % 4 of chunk t % 4 (two filters) of the four columns from t / 16 * 4
// on, then of those 32 further.
template <int kColumns>
class GradientConstants {
 public:
  __device__ GradientConstants(const ConvGemm& g, const Window& w, int32_t first_column)
      : make_(g.p), at_(depth_cursor(g, w, pair())), first_column_(first_column) {}

  __device__ void load(const ConvGemm& g, const Window& w) {
    const int32_t tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      if (!inside(g, w, j)) continue;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float* from = g.p.scores + ((at_.channel + e) * g.p.layout.per_filter + tap * g.p.layout.channels +
                                          first_column_ + column(j));
        load_vector(from, scores_[j][e]);
      }
    }
  }

  __device__ void store(const ConvGemm& g, const Window& w, uint16_t* tile) {
    const int32_t taps = g.p.layout.taps, tap = at_.kernel_position(g, w);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      uint32_t words[4] = {};
      if (inside(g, w, j)) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int32_t first =
              (at_.channel + e) * g.p.layout.per_filter + (first_column_ + column(j)) * taps + tap;
#pragma unroll
          for (int c = 0; c < 4; ++c) words[c] |= make_.make(scores_[j][e][c], first + c * taps) << (16 * e);
        }
      }
      // A warp holds two groups of four columns. Columns two apart share their banks, so odd groups go the other way.
      const bool odd = threadIdx.x / 16 % 2 != 0;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        *reinterpret_cast<uint32_t*>(tile + tile_offset(column(j) + (odd ? c ^ 1 : c), pair())) =
            odd ? words[c ^ 1] : words[c];
      }
    }
    at_.advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kColumnStep = kThreads / 16 * 4, kPerThread = kColumns / kColumnStep;
  static_assert(kColumns % kColumnStep == 0, "every thread makes the same number of groups");
  static __device__ int pair() { return int(threadIdx.x) % kChunks * kChunk + int(threadIdx.x) / 4 % 4 * 2; }
  static __device__ int column(int j) { return int(threadIdx.x) / 16 * 4 + j * kColumnStep; }
  __device__ bool inside(const ConvGemm& g, const Window& w, int j) const {
    return at_.inside(w) && first_column_ + column(j) < g.columns;
  }

  SelectedConstant make_;
  DepthCursor at_;
  int32_t first_column_;
  float scores_[kPerThread][2][4];
};

}  // namespace cuda
}  // namespace hn
