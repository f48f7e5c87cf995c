// staged_unit.cuh: drawn numbers for OHWI memory: a thread makes eight OIHW neighbours, which are whole Philox blocks, leaves
// them in shared memory, and takes eight neighbours in memory from there, which are read and written 16 bytes at a time.
//
// A block has a piece of a layer: some of its filters' channels with all their taps. Channels are multiples of eight.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "weight_unit.cuh"

namespace hn {
namespace cuda {

constexpr int kStagedFloats = kUnit * kUnitThreads;
constexpr int32_t kPieceChannels = 32;  // of a whole piece: 64 bytes of a 16-bit dtype lie together

struct alignas(16) Staging {
  float numbers[kStagedFloats];  // of a block's piece, in OIHW order
};

struct Piece {
  uint8_t filters, channels;  // channels of each of its filters: a multiple of kUnit; 0: the layer is not staged
};

// What a block's piece of this layer is, which has two taps at least; none where eight neighbours are not, or not by taps
// and channels.
inline Piece piece_of(const Layout& l) {
  const int32_t most = kStagedFloats / l.taps / kUnit * kUnit;
  if (l.channels % kUnit != 0 || most == 0) return {0, 0};
  const int32_t wanted = most < kPieceChannels ? most : kPieceChannels;
  const int32_t parts = (l.channels + wanted - 1) / wanted, each = (l.channels + parts - 1) / parts;
  const int32_t channels = (each + kUnit - 1) / kUnit * kUnit;
  return {uint8_t(kStagedFloats / (channels * l.taps)), uint8_t(channels)};
}

// The piece of a layer that draws words and whose tensors are these, or null.
inline Piece staged_piece(const Layout& l, bool draws, std::initializer_list<const void*> tensors) {
  bool gains = walk_of(l, draws) == Walk::kLogical;
  for (const void* tensor : tensors) gains &= is_aligned<16>(tensor);
  return gains ? piece_of(l) : Piece{0, 0};
}

inline int64_t staged_blocks(const Layout& l, const Piece& piece) {
  const int64_t filters = l.n / l.per_filter, across = (l.channels + piece.channels - 1) / piece.channels;
  return (filters + piece.filters - 1) / piece.filters * across;
}

// A thread's two units of its block's piece. Without work (`mine` false) it only goes to the barrier.
struct StagedUnits {
  Unit<Walk::kFlat> made;
  Unit<Walk::kStaged> owned;
  int32_t from, step;  // where the first of `owned` is staged, and how far apart they are
  bool mine;

  __device__ __forceinline__ StagedUnits(const Layout& l, const Piece& piece, int32_t block) {
    const int32_t across = (l.channels + piece.channels - 1) / piece.channels, of_filters = block / across;
    const int32_t first = (block - of_filters * across) * piece.channels;
    const int32_t channels = l.channels - first < piece.channels ? l.channels - first : piece.channels;
    const int32_t units = channels / kUnit * l.taps, filter = int32_t(threadIdx.x) / units;
    const int32_t at = int32_t(threadIdx.x) - filter * units;
    const int64_t base = (int64_t(of_filters) * piece.filters + filter) * l.per_filter;
    mine = filter < piece.filters && base < l.n;
    const int32_t tap = at / (channels / kUnit), channel = (at - tap * (channels / kUnit)) * kUnit;
    made.first = int32_t(base) + first * l.taps + at * kUnit;
    owned.first = int32_t(base) + tap * l.channels + first + channel;
    made.count = owned.count = kUnit;
    step = l.taps;
    from = (filter * channels + channel) * step + tap;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) owned.other[e] = int32_t(base) + (first + channel + e) * step + tap;
  }

  // x of `made` to the stage, and x of `owned` from it, after a barrier; and the other way round.
  __device__ __forceinline__ void put_made(Staging* stage, const float (&x)[kUnit]) const {
    store_unit(stage->numbers + kUnit * int(threadIdx.x), x);
  }
  __device__ __forceinline__ void put_made(Staging* stage, int half, const float (&x)[4]) const {
    store_vec(stage->numbers + kUnit * int(threadIdx.x) + half, Vec<float, 4>{{x[0], x[1], x[2], x[3]}});
  }
  __device__ __forceinline__ void take_owned(const Staging* stage, float (&x)[kUnit]) const {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) x[e] = stage->numbers[from + e * step];
  }
  __device__ __forceinline__ void put_owned(Staging* stage, const float (&x)[kUnit]) const {
#pragma unroll
    for (int e = 0; e < kUnit; ++e) stage->numbers[from + e * step] = x[e];
  }
  __device__ __forceinline__ void take_made(const Staging* stage, float (&x)[kUnit]) const {
    load_floats(stage->numbers, Unit<Walk::kFlat>{kUnit * int32_t(threadIdx.x), kUnit, {}}, x);
  }

  // Of a byte of bits from each thread, for its `made`: those of `owned`.
  __device__ __forceinline__ uint32_t take_bits(const uint8_t* bits) const {
    uint32_t all = 0;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      const int32_t at = from + e * step;
      all |= uint32_t(bits[at / kUnit] >> (at % kUnit) & 1) << e;
    }
    return all;
  }
};

// The weights of `made`, where they are drawn, to the stage; and those of `owned` after a barrier.
__device__ __forceinline__ void stage_weights(const WeightSource& source, const StagedUnits& u, Staging* stage) {
  if (!u.mine || !draws_words(source)) return;
  float x[kUnit];
  unit_weights(source, u.made, x);
  u.put_made(stage, x);
}
__device__ __forceinline__ void owned_weights(const WeightSource& source, const StagedUnits& u, const Staging* stage,
                                              float (&x)[kUnit]) {
  if (draws_words(source)) return u.take_owned(stage, x);
  unit_weights(source, u.owned, x);
}

// The same of what a score must exceed where the rule draws, and which of `owned` are kept.
__device__ __forceinline__ void stage_bars(const Rule& rule, const StagedUnits& u, Staging* stage) {
  if (!u.mine || !draws_words(rule)) return;
  float x[kUnit];
  drawn_bars(rule, u.made, x);
  u.put_made(stage, x);
}
__device__ __forceinline__ uint32_t owned_bits(const Rule& rule, const float (&scores)[kUnit], const StagedUnits& u,
                                               const Staging* stage) {
  if (!draws_words(rule)) return kept_bits(rule, scores, u.owned);
  float x[kUnit];
  u.take_owned(stage, x);
  return bits_above(rule, scores, x, u.owned);
}

}  // namespace cuda
}  // namespace hn
