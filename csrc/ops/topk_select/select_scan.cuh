// select_scan.cuh: what a block does with one chunk of scores: collect a bracket, count a digit, or
// count ties. What is then made of a group's chunks is in select_finish.cuh.
#pragma once
#include "../../base/collectives.cuh"
#include "../../base/memory.cuh"
#include "select_table.cuh"

namespace hn {
namespace cuda {

// The keys from `low` to `low + span`, cut into kSubBins by their distance from `low`.
struct Bracket {
  uint32_t low, span;
  int shift;  // distance >> shift is the sub-bin

  __device__ __forceinline__ bool holds(uint32_t key) const { return key - low <= span; }
  __device__ __forceinline__ uint32_t sub_bin(uint32_t key) const { return (key - low) >> shift; }
};

// What to do with a chunk, and then, once, with its group.
enum class Work : int32_t { kNone, kCounted, kBracket, kDigit, kTies };

// One chunk's worth of work, in shared memory.
struct Item {
  Stage stage;
  Work work;
  int32_t group, segment;
  int32_t chunk;    // in the table
  Bracket bracket;  // kBracket and kCounted only
};

__device__ __forceinline__ Bracket bracket_around(const Selection& hint) {
  const uint32_t t = hint.threshold, w = hint.width;
  const uint32_t low = t - (t < w ? t : w), span = t - low + (~t < w ? ~t : w);
  const int bits = 32 - __clz(int(span));
  return {low, span, bits > kSubBits ? bits - kSubBits : 0};
}

// The first look at a group that a step has counted: nothing is left to scan.
__device__ __forceinline__ Item counted_item(const SelectTable& t, int32_t group) {
  const GroupEntry& g = t.group[group];
  const Work work = g.settled() ? Work::kNone : Work::kCounted;
  return {kFirstLook,      work,          group,
          g.first_segment, g.first_chunk, bracket_around(t.hint[t.segment[g.first_segment].row])};
}

__device__ __forceinline__ Item make_item(const SelectTable& t, Stage stage, int32_t segment, int32_t chunk) {
  const int32_t group = t.segment[segment].group;
  const Work work = stage == kTieCount ? Work::kTies : Work::kDigit;
  Item item{stage, work, group, segment, chunk, {0, 0, 0}};
  if (stage != kFirstLook) return item;
  if (t.group[group].settled()) {
    item.work = Work::kNone;
  } else if (t.hint != nullptr) {
    const Selection hint = t.hint[t.segment[t.group[group].first_segment].row];
    if (hint.width != 0) {  // 0: no hint
      item.work = Work::kBracket;
      item.bracket = bracket_around(hint);
    }
  }
  return item;
}

// Part of a key that a counting stage looks at.
struct Digit {
  int shift;
  uint32_t mask, prefix_mask;
};

__device__ __forceinline__ Digit digit_of(Stage stage) {
  if (stage <= kDigit0) return {32 - kDigitBits, kBins - 1, 0};
  if (stage == kDigit1) return {32 - 2 * kDigitBits, kBins - 1, ~0u << (32 - kDigitBits)};
  return {0, (1u << (32 - 2 * kDigitBits)) - 1, ~0u << (32 - 2 * kDigitBits)};
}

constexpr int kTogether = 4;  // 16-byte loads a thread has in flight at a time, at most

template <int kThreads, int kChunk>
constexpr int kBatchVectors = kChunk / kThreads / 4 < kTogether ? kChunk / kThreads / 4 : kTogether;

// Where a chunk's place 0 lies: on a 16-byte boundary, which may be before the segment's scores.
template <int kChunk>
__device__ __forceinline__ const float* chunk_scores(const SegmentEntry& s, int32_t chunk) {
  return s.scores + (int64_t(chunk - s.first_chunk) * kChunk - int64_t(skew_of(s.scores)));
}

// Places of a chunk that hold a score: [begin, end).
struct ChunkRange {
  int32_t begin, end;
};

template <int kChunk>
__device__ __forceinline__ ChunkRange chunk_range(const SegmentEntry& s, int32_t chunk) {
  const int64_t skew = skew_of(s.scores), first = int64_t(chunk - s.first_chunk) * kChunk;
  const int64_t rest = s.layout.n + skew - first;
  return {int32_t(first == 0 ? skew : 0), int32_t(rest < kChunk ? rest : kChunk)};
}

// for_each_batch of a chunk where every place holds a score (kWhole) or not.
template <Order kOrder, int kThreads, int kChunk, bool kWhole, class F>
__device__ __forceinline__ void for_each_batch_of(const float* scores, ChunkRange range, const F& f) {
  constexpr int kVectors = kChunk / kThreads / 4, kBatch = kBatchVectors<kThreads, kChunk>;
  static_assert(kVectors % kBatch == 0 && kVectors * kThreads * 4 == kChunk, "a chunk is whole batches of vectors");
#pragma unroll 1
  for (int first = 0; first < kVectors; first += kBatch) {
    const int place = (first * kThreads + int(threadIdx.x)) * 4;
    const float* from = scores + place;
    Vec<float, 4> x[kBatch];
    uint32_t exists = ~0u;
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int ahead = j * kThreads * 4, at = place + ahead;
      if (kWhole || (at >= range.begin && at + 4 <= range.end)) {
        x[j] = load_vec<4>(from + ahead);
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const bool in = at + e >= range.begin && at + e < range.end;
          x[j][e] = in ? from[ahead + e] : 0.0f;
          if (!in) exists &= ~(1u << (4 * j + e));
        }
      }
    }
    uint32_t key[4 * kBatch];
#pragma unroll
    for (int i = 0; i < 4 * kBatch; ++i) key[i] = key_of<kOrder>(x[i / 4][i % 4]);
    f(key, exists, place);
  }
}

// f(keys, exists, place) for all of a chunk: bit i of `exists` says whether keys[i] is a score, and
// its place in the chunk is place + i / 4 * kThreads * 4 + i % 4. Reads each score once. All lanes
// of a warp call f together.
template <Order kOrder, int kThreads, int kChunk, class F>
__device__ __forceinline__ void for_each_batch(const SegmentEntry& s, int32_t chunk, const F& f) {
  const float* scores = chunk_scores<kChunk>(s, chunk);
  const ChunkRange range = chunk_range<kChunk>(s, chunk);
  if (range.begin == 0 && range.end == kChunk) {
    for_each_batch_of<kOrder, kThreads, kChunk, true>(scores, range, f);
  } else {
    for_each_batch_of<kOrder, kThreads, kChunk, false>(scores, range, f);
  }
}

// Words of shared memory the functions below need.
template <int kChunk>
constexpr int kScanWords = kSubBins + 2 * kCapacity<kChunk> > kBins ? kSubBins + 2 * kCapacity<kChunk> : kBins;

// First look of a warm group: counts the keys below the bracket, appends those inside to the
// group's list, and counts them by sub-bin. Their order in the list is left to chance; only counts
// and keys are used, and ties by their places.
template <Order kOrder, int kThreads, int kChunk>
__device__ __forceinline__ void scan_bracket(const SelectTable& t, const Item& item, uint32_t* space,
                                             uint32_t* scratch) {
  const Bracket bracket = item.bracket;
  const SegmentEntry& s = t.segment[item.segment];
  const GroupEntry& group = t.group[item.group];
  GroupState* state = t.state + item.group;
  uint32_t *bins = space, *keys = space + kSubBins, *places = keys + kCapacity<kChunk>;
  uint32_t *found = scratch, *below = scratch + 1, *first = scratch + 2;
  const float* scores = chunk_scores<kChunk>(s, item.chunk);
  const ChunkRange range = chunk_range<kChunk>(s, item.chunk);
  const uint32_t capacity = uint32_t(candidate_capacity(range.end - range.begin));
  for (int i = int(threadIdx.x); i < kSubBins; i += kThreads) bins[i] = 0;
  if (threadIdx.x == 0) *found = *below = 0;
  __syncthreads();

  uint32_t mine_below = 0;
  for_each_batch<kOrder, kThreads, kChunk>(s, item.chunk, [&](const auto& key, uint32_t exists, int place) {
    constexpr int kKeys = 4 * kBatchVectors<kThreads, kChunk>;
    uint32_t inside = 0;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      mine_below += key[i] < bracket.low ? exists >> i & 1u : 0u;
      inside |= uint32_t(bracket.holds(key[i])) << i;
    }
    inside &= exists;
    // Places for a warp's finds with one atomic: few keys are inside, but most warps have one.
    const Scan<uint32_t> rank = warp_scan(uint32_t(__popc(inside)));
    uint32_t slot = 0;
    if (lane_index() == 0 && rank.total != 0) slot = atomicAdd(found, rank.total);
    slot = __shfl_sync(kFullWarp, slot, 0) + rank.before;
    for (; inside != 0 && slot < capacity; inside &= inside - 1, ++slot) {
      const int i = __ffs(int(inside)) - 1, at = place + i / 4 * kThreads * 4 + i % 4;
      const uint32_t again = key_of<kOrder>(scores[at]);  // key[i] would put `key` into memory
      keys[slot] = again;
      places[slot] = uint32_t(at);
      atomicAdd(&bins[bracket.sub_bin(again)], 1u);
    }
  });
  mine_below = warp_sum(mine_below);
  if (lane_index() == 0) atomicAdd(below, mine_below);
  __syncthreads();

  const uint32_t count = *found;
  if (count > capacity) {
    if (threadIdx.x == 0) atomicAdd(&state->overflowed, 1u);
    return;  // the whole block: the group's list is not read any more
  }
  if (threadIdx.x == 0) {
    atomicAdd(&state->below, *below);
    *first = count == 0 ? 0 : atomicAdd(&state->candidates, count);
  }
  for (int i = int(threadIdx.x); i < kSubBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&state->bins[i], bins[i]);
  }
  __syncthreads();
  const int64_t list = int64_t(group.first_chunk) * kCapacity<kChunk> + *first;
  for (uint32_t i = threadIdx.x; i < count; i += kThreads) {
    t.candidate[list + i] = keys[i];
    t.place[list + i] = uint32_t(item.chunk - group.first_chunk) * kChunk + places[i];
  }
}

// Adds the chunk's keys that start with the prefix to the group's bins, by their next digit.
template <Order kOrder, int kThreads, int kChunk>
__device__ __forceinline__ void count_digit(const SelectTable& t, const Item& item, uint32_t* bins) {
  GroupState* state = t.state + item.group;
  const Digit digit = digit_of(item.stage);
  const uint32_t prefix = state->prefix;
  for (int i = int(threadIdx.x); i < kBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const SegmentEntry& s = t.segment[item.segment];
  for_each_batch<kOrder, kThreads, kChunk>(s, item.chunk, [&](const auto& key, uint32_t exists, int) {
#pragma unroll
    for (int i = 0; i < 4 * kBatchVectors<kThreads, kChunk>; ++i) {
      if ((exists >> i & 1u) != 0 && (key[i] & digit.prefix_mask) == prefix) {
        atomicAdd(&bins[key[i] >> digit.shift & digit.mask], 1u);
      }
    }
  });
  __syncthreads();
  for (int i = int(threadIdx.x); i < kBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&state->bins[i], bins[i]);
  }
}

// Is the element of OIHW index i a tie?
template <Order kOrder>
__device__ __forceinline__ bool is_tie(const SegmentEntry& s, int64_t i, uint32_t threshold) {
  return i < s.layout.n && key_of<kOrder>(s.scores[s.layout.physical(int32_t(i))]) == threshold;
}

// Counts the ties among the chunk's OIHW indices: in OIHW order, so a warp's loads may be
// scattered.
template <Order kOrder, int kThreads, int kChunk>
__device__ __forceinline__ void count_ties(const SelectTable& t, const Item& item, uint32_t* scratch) {
  const SegmentEntry& s = t.segment[item.segment];
  const uint32_t threshold = t.state[item.group].prefix;
  const int64_t begin = int64_t(item.chunk - s.first_chunk) * kChunk;
  uint32_t ties = 0;
#pragma unroll 4
  for (int i = int(threadIdx.x); i < kChunk; i += kThreads) {
    ties += is_tie<kOrder>(s, begin + i, threshold);
  }
  ties = block_sum<kThreads>(ties, scratch);
  if (threadIdx.x == 0) t.ties[item.chunk] = ties;
}

}  // namespace cuda
}  // namespace hn
