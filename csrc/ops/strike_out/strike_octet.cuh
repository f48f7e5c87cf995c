// strike_octet.cuh: what a thread of strike_out reads at a time: a byte of flags and the keys of its eight scores. What is
// done with them is in strike_out.cuh.
#pragma once
#include "../../base/memory.cuh"
#include "../masked_weight/weight_unit.cuh"
#include "strike_table.cuh"

namespace hn {
namespace cuda {

// A block's chunk.
struct Piece {
  int32_t segment, group;
  int32_t first, end;  // OIHW indices
};

template <int kChunk>
__device__ __forceinline__ Piece piece_of(const StrikeTable& t, int32_t chunk) {
  int32_t low = 0, high = t.num_segments;  // the last segment whose first chunk is not after `chunk`
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    (t.segment[middle].first_chunk <= chunk ? low : high) = middle;
  }
  const StruckSegment& s = t.segment[low];
  const int64_t first = int64_t(chunk - s.first_chunk) * kChunk, end = first + kChunk;
  return {low, s.group, int32_t(first), int32_t(end < s.layout.n ? end : s.layout.n)};
}

// Eight entries that share a byte of flags.
struct Octet {
  int32_t first;  // OIHW index, a multiple of 8
  uint32_t exists, active;
  uint32_t key[kUnit];  // ranked; 0 where nothing is active
};

template <Walk kWalk>
__device__ __forceinline__ void load_keys(const StrikeTable& t, const StruckSegment& s, Octet* o) {
  float scores[kUnit];
  load_floats(s.scores, make_unit<kWalk>(s.layout, o->first), scores);
#pragma unroll
  for (int e = 0; e < kUnit; ++e) o->key[e] = rank_key(key_of(t.order, scores[e]), t.invert);
}

__device__ __forceinline__ Octet load_octet(const StrikeTable& t, const StruckSegment& s, int32_t first) {
  const int32_t count = s.layout.n - first;
  Octet o = {first, count < kUnit ? (1u << count) - 1 : 0xffu, 0, {}};
  o.active = s.flags[first >> 3] & o.exists;
  if (o.active == 0) return o;
  if (!s.layout.channels_last || s.layout.taps == 1 || s.layout.channels == 1) {
    load_keys<Walk::kFlat>(t, s, &o);
  } else {
    load_keys<Walk::kLogical>(t, s, &o);
  }
  return o;
}

// The active entries of the octet that rank at the threshold.
__device__ __forceinline__ uint32_t tied_bits(const Octet& o, uint32_t threshold) {
  uint32_t bits = 0;
#pragma unroll
  for (int e = 0; e < kUnit; ++e) bits |= uint32_t(o.key[e] == threshold) << e;
  return bits & o.active;
}

}  // namespace cuda
}  // namespace hn
