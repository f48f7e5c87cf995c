// select_finish.cuh: what the block that finishes a group's stage works out alone: the answer among
// the candidates, the next digit, the place of the cut. What is done about it: select_publish.cuh.
#pragma once
#include "select_scan.cuh"

namespace hn {
namespace cuda {

// Shared words the functions below need.
template <int kThreads>
constexpr int kFinishWords = kBins + 3 * kThreads;

template <int kThreads>
constexpr int kScratchWords = kBlockScratch<kThreads> + 4;

// What the end of a stage says about its group. kDone: the rows can be written. The quota of ties
// to prune ends in the group's segment `cut_segment`, at `cut`; segments before it lose all their
// ties, those after it none.
struct Verdict {
  Stage next;
  uint32_t threshold;
  int32_t cut_segment, cut;
};

__device__ __forceinline__ Verdict no_ties_pruned(uint32_t threshold) { return {kDone, threshold, -1, 0}; }
__device__ __forceinline__ Verdict go_on(Stage next) { return {next, 0, 0, 0}; }

// All or none are kept.
__device__ __forceinline__ Verdict settle_trivial(const GroupEntry& group) {
  if (group.rank == 0) return no_ties_pruned(0);
  return {kDone, 0xffffffffu, group.segments, 0};
}

// The candidates still in question: those whose distance from `low` equals `prefix` above its
// `open_bits` lowest bits.
struct Narrowed {
  uint32_t low, prefix;
  int open_bits;

  __device__ __forceinline__ bool holds(uint32_t key) const { return ((key - low) ^ prefix) >> open_bits == 0; }
};

// f(distance from low, index in the list) for the candidates in question. One block reads the whole
// list, so what counts is how many loads are in flight: four of 16 bytes a thread. Few match, and
// those are read once more.
template <int kThreads, class F>
__device__ __forceinline__ void for_each_match(const uint32_t* list, uint32_t count, const Narrowed& in, const F& f) {
  constexpr uint32_t kStep = kThreads * 4;
#pragma unroll 1
  for (uint32_t first = threadIdx.x * 4; first < count; first += kTogether * kStep) {
    Vec<uint32_t, 4> keys[kTogether];
    uint32_t matches = 0;
#pragma unroll
    for (uint32_t j = 0; j < kTogether; ++j) {  // past the count lies the rest of the group's list
      if (first + j * kStep < count) keys[j] = load_vec<4>(list + first + j * kStep);
    }
#pragma unroll
    for (uint32_t i = 0; i < 4 * kTogether; ++i) {
      const bool match = first + i / 4 * kStep < count && in.holds(keys[i / 4][int(i % 4)]);
      matches |= uint32_t(match) << i;
    }
    for (; matches != 0; matches &= matches - 1) {
      const uint32_t i = uint32_t(__ffs(int(matches))) - 1, at = first + i / 4 * kStep + i % 4;
      if (at < count) f(list[at] - in.low, at);
    }
  }
}

// Last segment whose first chunk is not after `chunk`.
__device__ __forceinline__ int32_t segment_of(const SelectTable& t, int32_t chunk) {
  int32_t low = 0, high = t.num_segments;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    (t.segment[middle].first_chunk <= chunk ? low : high) = middle;
  }
  return low;
}

// A candidate's rank among ties: (segment in the group, OIHW index).
template <int kChunk>
__device__ __forceinline__ uint64_t order_of(const SelectTable& t, const GroupEntry& group, uint32_t place) {
  const int32_t segment = segment_of(t, group.first_chunk + int32_t(place / kChunk));
  const SegmentEntry& s = t.segment[segment];
  const uint32_t offset = place - uint32_t(s.first_chunk - group.first_chunk) * kChunk;
  const int32_t index = s.layout.logical(int32_t(offset - skew_of(s.scores)));
  return uint64_t(segment - group.first_segment) << 32 | uint32_t(index);
}

// The candidates in question are listed in shared memory, one a thread: bisects the open bits, then
// orders the ties.
template <int kThreads, int kChunk>
__device__ __forceinline__ Verdict settle_listed(const SelectTable& t, const GroupEntry& group, const Narrowed& in,
                                                 uint32_t count, uint32_t rank, uint32_t* space, uint32_t* scratch) {
  const bool mine = threadIdx.x < count;
  const uint32_t key = mine ? space[kBins + threadIdx.x] : 0;
  uint32_t prefix = in.prefix, before = 0;  // of these, keys below the prefix
  for (int bit = in.open_bits - 1; bit >= 0; --bit) {
    const uint32_t middle = prefix | 1u << bit;
    const uint32_t below = uint32_t(__syncthreads_count(mine && key < middle));
    if (rank >= below) {
      prefix = middle;
      before = below;
    }
  }
  const uint32_t quota = rank - before;
  if (quota == 0) return no_ties_pruned(in.low + prefix);

  constexpr uint64_t kNoTie = ~uint64_t(0);
  uint64_t* orders = reinterpret_cast<uint64_t*>(space);
  const uint64_t order =
      mine && key == prefix ? order_of<kChunk>(t, group, space[kBins + kThreads + threadIdx.x]) : kNoTie;
  orders[threadIdx.x] = order;
  __syncthreads();
  if (order != kNoTie) {
    uint32_t earlier = 0;
    for (uint32_t i = 0; i < count; ++i) earlier += orders[i] < order;
    if (earlier + 1 == quota) {  // the last tie to be pruned
      scratch[0] = uint32_t(order >> 32);
      scratch[1] = uint32_t(order) + 1;
    }
  }
  __syncthreads();
  return {kDone, in.low + prefix, int32_t(scratch[0]), int32_t(scratch[1])};
}

// What a warm group's bracket holds.
struct Found {
  uint32_t below, candidates;
  bool overflowed;
  uint32_t* bins;
  const uint32_t *candidate, *place;  // the group's
};

template <int kChunk>
__device__ __forceinline__ Found found_in(const SelectTable& t, const Item& item) {
  const GroupEntry& group = t.group[item.group];
  const int64_t list = int64_t(group.first_chunk) * kCapacity<kChunk>;
  if (item.work == Work::kCounted) {
    GroupCount& c = t.counts.group[item.group];
    const bool overflowed = c.candidates > uint32_t(group.chunks) * kCapacity<kChunk>;
    return {c.below, c.candidates, overflowed, c.bins, t.counts.candidate + list, t.counts.place + list};
  }
  GroupState* state = t.state + item.group;
  return {state->below, state->candidates, state->overflowed != 0, state->bins, t.candidate + list, t.place + list};
}

// The whole block: clears what a step counted of a group, for the next one.
template <int kThreads>
__device__ __forceinline__ void clear_counted(const SelectTable& t, int32_t group) {
  GroupCount& c = t.counts.group[group];
  for (int i = int(threadIdx.x); i < kSubBins; i += kThreads) c.bins[i] = 0;
  if (threadIdx.x == 0) c.below = c.candidates = 0;
}

// Ends the first look of a warm group: narrows the candidates, by sub-bin and then by digit, until
// each thread can have one. Usually the sub-bin is enough, and the list is read once.
template <int kThreads, int kChunk>
__device__ __forceinline__ Verdict settle_bracket(const SelectTable& t, const Item& item, uint32_t* space,
                                                  uint32_t* scratch) {
  const GroupEntry& group = t.group[item.group];
  GroupState* state = t.state + item.group;
  const Bracket bracket = item.bracket;
  const Found found = found_in<kChunk>(t, item);
  const uint32_t candidates = found.candidates;
  // Rank among the candidates in question. Below the bracket it wraps to more than there are.
  uint32_t rank = group.rank - found.below;
  if (found.overflowed || rank >= candidates) {
    for (int i = int(threadIdx.x); i < kSubBins; i += kThreads) found.bins[i] = 0;
    if (threadIdx.x == 0) {
      state->outcome = found.overflowed ? Outcome::kOverflowed : Outcome::kMissed;
      state->rank = group.rank;
    }
    return go_on(kDigit0);
  }
  Selected bin = block_select<kThreads>(found.bins, kSubBins, rank, scratch);
  if (threadIdx.x == 0) {
    state->outcome = Outcome::kFound;
    state->candidates = candidates;
  }
  uint32_t left = found.bins[bin.bin];
  Narrowed in{bracket.low, uint32_t(bin.bin) << bracket.shift, bracket.shift};
  rank -= bin.before;
  while (left <= kThreads || in.open_bits > 0) {
    const bool short_enough = left <= kThreads;
    const int bits = in.open_bits < kDigitBits ? in.open_bits : kDigitBits, shift = in.open_bits - bits;
    for (int i = int(threadIdx.x); i < kBins; i += kThreads) space[i] = 0;
    if (threadIdx.x == 0) scratch[0] = 0;
    __syncthreads();
    for_each_match<kThreads>(found.candidate, candidates, in, [&](uint32_t key, uint32_t i) {
      if (short_enough) {
        const uint32_t slot = kBins + atomicAdd(scratch, 1u);
        space[slot] = key;
        space[slot + kThreads] = found.place[i];
      } else {
        atomicAdd(&space[(key ^ in.prefix) >> shift], 1u);
      }
    });
    __syncthreads();
    if (short_enough) return settle_listed<kThreads, kChunk>(t, group, in, left, rank, space, scratch);
    bin = block_select<kThreads>(space, 1 << bits, rank, scratch);
    left = space[bin.bin];
    in.prefix |= uint32_t(bin.bin) << shift;
    in.open_bits = shift;
    rank -= bin.before;
    __syncthreads();
  }
  // More ties than threads: their cut needs a pass over the scores.
  const uint32_t threshold = in.low + in.prefix;
  if (rank == 0) return no_ties_pruned(threshold);
  if (threadIdx.x == 0) {
    state->prefix = threshold;
    state->rank = rank;
  }
  return go_on(kTieCount);
}

// Ends a counting stage: fixes the digit and clears the bins for the next.
template <int kThreads>
__device__ __forceinline__ Verdict settle_digit(const SelectTable& t, const Item& item, uint32_t* scratch) {
  GroupState* state = t.state + item.group;
  const Digit digit = digit_of(item.stage);
  const uint32_t rank = item.stage == kFirstLook ? t.group[item.group].rank : state->rank;
  const Selected bin = block_select<kThreads>(state->bins, int(digit.mask) + 1, rank, scratch);
  const uint32_t prefix = state->prefix | uint32_t(bin.bin) << digit.shift, left = rank - bin.before;
  __syncthreads();
  if (item.stage == kDigit2 && left == 0) return no_ties_pruned(prefix);
  for (int i = int(threadIdx.x); i < kBins; i += kThreads) state->bins[i] = 0;
  if (threadIdx.x == 0) {
    state->prefix = prefix;
    state->rank = left;
  }
  return go_on(item.stage <= kDigit0 ? kDigit1 : Stage(item.stage + 1));
}

// Ends the tie count: finds the chunk in which the quota ends, then the place in the chunk.
template <Order kOrder, int kThreads, int kChunk>
__device__ __forceinline__ Verdict settle_ties(const SelectTable& t, const Item& item, uint32_t* scratch) {
  const GroupEntry& group = t.group[item.group];
  const uint32_t threshold = t.state[item.group].prefix;
  // the quota-th tie, from 1, is the last to be pruned
  const Place place =
      block_place<kThreads>(t.ties + group.first_chunk, group.chunks, t.state[item.group].rank, scratch);
  uint32_t quota = place.rank;
  const int32_t chunk = group.first_chunk + place.index;
  const int32_t segment = segment_of(t, chunk);
  const SegmentEntry& s = t.segment[segment];
  const int64_t begin = int64_t(chunk - s.first_chunk) * kChunk;
#pragma unroll 1
  for (int base = 0; base < kChunk; base += kThreads) {
    const bool tie = is_tie<kOrder>(s, begin + base + int(threadIdx.x), threshold);
    const uint32_t total = uint32_t(__syncthreads_count(tie));
    if (quota > total) {
      quota -= total;
      continue;
    }
    const Scan<uint32_t> scan = block_scan<kThreads>(uint32_t(tie), scratch);
    __syncthreads();
    if (tie && scan.before + 1 == quota) scratch[0] = uint32_t(begin + base + threadIdx.x) + 1;
    break;
  }
  __syncthreads();
  return {kDone, threshold, segment - group.first_segment, int32_t(scratch[0])};
}

}  // namespace cuda
}  // namespace hn
