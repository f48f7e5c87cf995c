// collectives.cuh: what a warp or a block computes together: sum, scan, rank by ballot, the bin
// that holds a rank.
//
// Every lane of the warp (every thread of the block) calls; blocks are one-dimensional with
// kThreads threads, a multiple of 32. Sums have one fixed order, so equal input gives equal bits.
// Block functions take `scratch`, shared memory that is the caller's again when they return: they
// start and end with a barrier.
#pragma once
#include <cstdint>
#include <type_traits>

#include "launch.cuh"

namespace hn {

constexpr uint32_t kFullWarp = 0xffffffffu;

__device__ __forceinline__ int lane_index() { return int(threadIdx.x % 32); }

// Bits of the lanes below mine.
__device__ __forceinline__ uint32_t lanes_below() { return (1u << (threadIdx.x % 32)) - 1u; }

struct Rank {
  int32_t before;  // of those that vote true: lanes below mine
  int32_t total;
};

__device__ __forceinline__ Rank ballot_rank(bool vote) {
  const uint32_t votes = __ballot_sync(kFullWarp, vote);
  return {__popc(votes & lanes_below()), __popc(votes)};
}

// Reserves one place in `counter` for each lane that votes true, with one atomic a warp; returns
// the lane's place (meaningless without a vote). Places follow lane order within a warp, and chance
// between warps.
__device__ __forceinline__ uint32_t warp_reserve(uint32_t* counter, bool vote) {
  const Rank r = ballot_rank(vote);
  uint32_t first = 0;
  if (lane_index() == 0 && r.total) first = atomicAdd(counter, uint32_t(r.total));
  return __shfl_sync(kFullWarp, first, 0) + uint32_t(r.before);
}

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
  if constexpr (std::is_integral<T>::value && sizeof(T) == 4) {
    return __reduce_add_sync(kFullWarp, v);
  } else {
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(kFullWarp, v, step);
    return v;
  }
}

template <class T>
__device__ __forceinline__ T warp_max(T v) {
  for (int step = 16; step; step /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, v, step);
    v = other > v ? other : v;
  }
  return v;
}

// Sum of the lanes up to and including mine.
template <class T>
__device__ __forceinline__ T warp_inclusive_scan(T v) {
  const int lane = lane_index();
  for (int step = 1; step < 32; step *= 2) {
    const T other = __shfl_up_sync(kFullWarp, v, step);
    if (lane >= step) v += other;
  }
  return v;
}

template <class T>
struct Scan {
  T before;  // sum of the threads below mine
  T total;   // sum of all, the same in every thread
};

template <class T>
__device__ __forceinline__ Scan<T> warp_scan(T v) {
  const T through = warp_inclusive_scan(v);
  const T below = __shfl_up_sync(kFullWarp, through, 1);
  return {lane_index() == 0 ? T(0) : below, __shfl_sync(kFullWarp, through, 31)};
}

// Elements of scratch that block_sum and block_scan need; block_select needs two more.
template <int kThreads>
constexpr int kBlockScratch = kThreads / 32;

// Sum over the block, in every thread. scratch: [kBlockScratch<kThreads>].
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T v, T* scratch) {
  constexpr int kWarps = kBlockScratch<kThreads>;
  static_assert(kThreads % 32 == 0 && kWarps >= 1 && kWarps <= 32, "a block is 1 to 32 whole warps");
  v = warp_sum(v);
  if (kWarps == 1) return v;
  __syncthreads();
  if (lane_index() == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = warp_sum(lane_index() < kWarps ? scratch[lane_index()] : T(0));
  __syncthreads();
  return v;
}

// Exclusive scan over the block in thread order. scratch: [kBlockScratch<kThreads>].
template <int kThreads, class T>
__device__ __forceinline__ Scan<T> block_scan(T v, T* scratch) {
  constexpr int kWarps = kBlockScratch<kThreads>;
  static_assert(kThreads % 32 == 0 && kWarps >= 1 && kWarps <= 32, "a block is 1 to 32 whole warps");
  const Scan<T> mine = warp_scan(v);
  if (kWarps == 1) return mine;
  const int warp = int(threadIdx.x / 32);
  __syncthreads();
  if (lane_index() == 0) scratch[warp] = mine.total;
  __syncthreads();
  const Scan<T> warps = warp_scan(lane_index() < kWarps ? scratch[lane_index()] : T(0));
  const T before = __shfl_sync(kFullWarp, warps.before, warp);
  __syncthreads();
  return {before + mine.before, warps.total};
}

struct Place {
  int32_t index;  // of the count in which the rank lies
  uint32_t rank;  // the rank within it, from 1
};

// Where the `rank`-th counted thing, from 1, lies when counts[0, n) in global memory are laid end to end: the same
// answer in every thread. rank is at most their sum. scratch: [kBlockScratch<kThreads>], at least 2.
template <int kThreads>
__device__ __forceinline__ Place block_place(const uint32_t* counts, int32_t n, uint32_t rank, uint32_t* scratch) {
  Place place = {0, rank};
  for (int32_t base = 0; base < n; base += kThreads) {
    const int32_t i = base + int32_t(threadIdx.x);
    const uint32_t count = i < n ? counts[i] : 0;
    const Scan<uint32_t> scan = block_scan<kThreads>(count, scratch);
    if (place.rank > scan.total) {
      place.rank -= scan.total;
      continue;
    }
    __syncthreads();
    if (scan.before < place.rank && place.rank <= scan.before + count) {
      scratch[0] = uint32_t(i);
      scratch[1] = place.rank - scan.before;
    }
    __syncthreads();
    place = {int32_t(scratch[0]), scratch[1]};
    break;
  }
  __syncthreads();
  return place;
}

struct Selected {
  int32_t bin;      // the first bin whose running count exceeds the rank; -1 if there is none
  uint32_t before;  // the count of all bins before it
};

// The bin that holds the element of the given rank (from 0) when elements are ordered by bin:
// counts[0, bins) in shared or global memory, the same answer in every thread. scratch:
// [kBlockScratch<kThreads> + 2].
template <int kThreads>
__device__ __forceinline__ Selected block_select(const uint32_t* counts, int bins, uint32_t rank, uint32_t* scratch) {
  uint32_t* const answer = scratch + kBlockScratch<kThreads>;
  const int each = (bins + kThreads - 1) / kThreads;
  const int begin = int(threadIdx.x) * each, end = begin + each < bins ? begin + each : bins;
  __syncthreads();
  if (threadIdx.x == 0) answer[0] = 0xffffffffu;
  uint32_t sum = 0;
  for (int i = begin; i < end; ++i) sum += counts[i];
  uint32_t before = block_scan<kThreads>(sum, scratch).before;
  if (kThreads == 32) __syncthreads();          // block_scan of one warp orders no memory
  if (before <= rank && rank - before < sum) {  // true in one thread at most
    int bin = begin;
    while (rank - before >= counts[bin]) before += counts[bin++];
    answer[0] = uint32_t(bin);
    answer[1] = before;
  }
  __syncthreads();
  const Selected found = {int32_t(answer[0]), answer[0] == 0xffffffffu ? 0u : answer[1]};
  __syncthreads();
  return found;
}

}  // namespace hn
