// strike_out.cuh: the kernels that find the thresholds of a network and strike out up to them.
//
// One block owns one chunk of one segment, in OIHW order; a thread owns a byte of flags and its eight scores at a time,
// and reads no scores where the byte is 0. Three launches count a digit each, by group; the block that completes a
// group's count settles the digit alone, so nothing waits and nothing visits the host. With `exact` a fourth launch
// counts ties by chunk and its last block places the cut. The last launch rewrites the flags.
#pragma once
#include "../../base/collectives.cuh"
#include "../../base/memory.cuh"
#include "strike_octet.cuh"

namespace hn {
namespace cuda {

constexpr int kStrikeThreads = 256;
constexpr int kStrikeChunk = 8192;  // entries: 32 KB of scores, 1 KB of flags

template <int kThreads>
constexpr int kStrikeScratch = kBlockScratch<kThreads> + 2;

// Whether this block completes its group's count of finished chunks; it then sees what all of them wrote.
__device__ __forceinline__ bool completes_group(const StrikeTable& t, int32_t group, uint32_t* scratch) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const uint32_t finished = atomic_add_acq_rel(&t.state[group].finished, 1u) + 1;
    scratch[0] = finished == uint32_t(t.group[group].chunks);
  }
  __syncthreads();
  const bool last = scratch[0] != 0;
  __syncthreads();
  return last;
}

__device__ __forceinline__ int digit_shift(int digit) {
  return digit == 0 ? 32 - kStrikeDigitBits : (digit == 1 ? 32 - 2 * kStrikeDigitBits : 0);
}
__device__ __forceinline__ uint32_t digit_mask(int digit) {
  return digit == 2 ? (1u << (32 - 2 * kStrikeDigitBits)) - 1 : uint32_t(kStrikeBins - 1);
}
__device__ __forceinline__ uint32_t prefix_mask(int digit) { return digit == 0 ? 0u : ~0u << digit_shift(digit - 1); }

// The whole block: fixes the digit and clears the bins for the next; after the last, writes the threshold.
template <int kThreads>
__device__ __forceinline__ void settle_strike_digit(const StrikeTable& t, int32_t group, int digit, uint32_t* scratch) {
  StruckState* state = t.state + group;
  const StruckGroup& g = t.group[group];
  const int bins = int(digit_mask(digit)) + 1;
  uint32_t rank = state->rank;
  if (digit == 0) {
    uint32_t active = 0;
    for (int i = int(threadIdx.x); i < bins; i += kThreads) active += state->bins[i];
    active = block_sum<kThreads>(active, scratch);
    if (active == 0) {
      if (threadIdx.x == 0) {
        state->quota = Quota::kNothing;
        t.thresholds[g.row] = no_threshold(t.invert);
      }
      return;
    }
    rank = (g.count < active ? g.count : active) - 1;
  }
  const Selected found = block_select<kThreads>(state->bins, bins, rank, scratch);
  const uint32_t here = state->bins[found.bin], left = rank - found.before;
  const uint32_t prefix = state->prefix | uint32_t(found.bin) << digit_shift(digit);
  __syncthreads();
  for (int i = int(threadIdx.x); i < bins; i += kThreads) state->bins[i] = 0;
  if (threadIdx.x != 0) return;
  state->prefix = prefix;
  state->finished = 0;
  state->rank = left;
  if (digit + 1 < kStrikeDigits) return;
  state->rank = left + 1;
  state->quota = t.exact && left + 1 < here ? Quota::kCount : Quota::kAllTies;
  t.thresholds[g.row] = threshold_of(t.order, t.invert, prefix);
}

// Adds the chunk's active keys that start with the group's prefix to its bins, by their next digit.
template <int kThreads, int kChunk>
__global__ void __launch_bounds__(kThreads) strike_count_kernel(const __grid_constant__ StrikeTable t, int digit) {
  HN_SHARED(uint32_t, bins, kStrikeBins);
  HN_SHARED(uint32_t, scratch, kStrikeScratch<kThreads>);
  if (digit == 0 && blockIdx.x == 0) {  // groups without chunks
    for (int g = int(threadIdx.x); g < t.num_groups; g += kThreads) {
      if (t.group[g].chunks == 0) t.thresholds[t.group[g].row] = no_threshold(t.invert);
    }
  }
  if (int32_t(blockIdx.x) >= t.chunks) return;
  const Piece piece = piece_of<kChunk>(t, int32_t(blockIdx.x));
  StruckState* state = t.state + piece.group;
  if (state->quota == Quota::kNothing) return;
  for (int i = int(threadIdx.x); i < kStrikeBins; i += kThreads) bins[i] = 0;
  __syncthreads();
  const uint32_t wanted = prefix_mask(digit), prefix = state->prefix, mask = digit_mask(digit);
  const int shift = digit_shift(digit);
  for (int32_t i = piece.first + int32_t(threadIdx.x) * kUnit; i < piece.end; i += kThreads * kUnit) {
    const Octet o = load_octet(t, t.segment[piece.segment], i);
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      if ((o.active >> e & 1u) != 0 && (o.key[e] & wanted) == prefix) atomicAdd(&bins[o.key[e] >> shift & mask], 1u);
    }
  }
  __syncthreads();
  for (int i = int(threadIdx.x); i < kStrikeBins; i += kThreads) {
    if (bins[i] != 0) atomicAdd(&state->bins[i], bins[i]);
  }
  if (completes_group(t, piece.group, scratch)) settle_strike_digit<kThreads>(t, piece.group, digit, scratch);
}

// The whole block: finds the chunk in which the quota of ties ends, then the place in it.
template <int kThreads, int kChunk>
__device__ __forceinline__ void settle_strike_ties(const StrikeTable& t, int32_t group, uint32_t* scratch) {
  StruckState* state = t.state + group;
  const StruckGroup& g = t.group[group];
  const uint32_t threshold = state->prefix;
  // the quota-th tie, from 1, is the last to go
  const Place place = block_place<kThreads>(t.ties + g.first_chunk, g.chunks, state->rank, scratch);
  uint32_t quota = place.rank;
  const Piece piece = piece_of<kChunk>(t, g.first_chunk + place.index);
  for (int32_t base = piece.first; base < piece.end; base += kThreads * kUnit) {
    const int32_t first = base + int32_t(threadIdx.x) * kUnit;
    uint32_t tied = first < piece.end ? tied_bits(load_octet(t, t.segment[piece.segment], first), threshold) : 0;
    const Scan<uint32_t> scan = block_scan<kThreads>(uint32_t(__popc(tied)), scratch);
    if (quota > scan.total) {
      quota -= scan.total;
      continue;
    }
    if (scan.before < quota && quota <= scan.before + uint32_t(__popc(tied))) {
      for (uint32_t skip = quota - scan.before - 1; skip != 0; --skip) tied &= tied - 1;
      state->quota = Quota::kCut;
      state->cut_segment = piece.segment - g.first_segment;
      state->cut = first + __ffs(int(tied));
    }
    return;
  }
}

// Counts each chunk's ties at the threshold, for groups that keep some.
template <int kThreads, int kChunk>
__global__ void __launch_bounds__(kThreads) strike_ties_kernel(const __grid_constant__ StrikeTable t) {
  HN_SHARED(uint32_t, scratch, kStrikeScratch<kThreads>);
  const Piece piece = piece_of<kChunk>(t, int32_t(blockIdx.x));
  if (t.state[piece.group].quota != Quota::kCount) return;
  const uint32_t threshold = t.state[piece.group].prefix;
  uint32_t ties = 0;
  for (int32_t i = piece.first + int32_t(threadIdx.x) * kUnit; i < piece.end; i += kThreads * kUnit) {
    ties += uint32_t(__popc(tied_bits(load_octet(t, t.segment[piece.segment], i), threshold)));
  }
  ties = block_sum<kThreads>(ties, scratch);
  if (threadIdx.x == 0) t.ties[blockIdx.x] = ties;
  if (completes_group(t, piece.group, scratch)) settle_strike_ties<kThreads, kChunk>(t, piece.group, scratch);
}

// Rewrites the chunk's flags.
template <int kThreads, int kChunk>
__global__ void __launch_bounds__(kThreads) strike_apply_kernel(const __grid_constant__ StrikeTable t) {
  const Piece piece = piece_of<kChunk>(t, int32_t(blockIdx.x));
  const StruckState* state = t.state + piece.group;
  const StruckSegment& s = t.segment[piece.segment];
  const Quota quota = state->quota;
  if (quota == Quota::kNothing) return;
  const int32_t place = piece.segment - t.group[piece.group].first_segment;
  int32_t cut = s.layout.n;
  if (quota == Quota::kCut && place >= state->cut_segment) cut = place == state->cut_segment ? state->cut : 0;
  const uint32_t threshold = state->prefix;
  for (int32_t i = piece.first + int32_t(threadIdx.x) * kUnit; i < piece.end; i += kThreads * kUnit) {
    const Octet o = load_octet(t, s, i);
    if (o.active == 0) continue;
    uint32_t stays = ~o.exists;
#pragma unroll
    for (int e = 0; e < kUnit; ++e) {
      stays |= uint32_t(o.key[e] > threshold || (o.key[e] == threshold && i + e >= cut)) << e;
    }
    s.flags[i >> 3] &= uint8_t(stays);
  }
}

// The op with any block and chunk size: a memset and four or five launches for each batch of groups.
template <int kThreads, int kChunk>
int strike_in_chunks(const StrikeOutParams& p, void* stream) {
  static_assert(kChunk % kUnit == 0, "a byte of flags belongs to one chunk");
  int error = 0;
  for (int32_t first = 0; first < p.num_groups && error == 0;) {
    const StrikeBatch batch = next_strike_batch(p, first);
    StrikeTable t;
    error = make_strike_table<kChunk>(p, batch, &t);
    if (error == 0) error = fill_zero(t.state, strike_state_bytes(t.num_groups), stream);
    const dim3 grid(unsigned(t.chunks == 0 ? 1 : t.chunks));
    const int digits = t.chunks == 0 ? 1 : kStrikeDigits;
    for (int digit = 0; digit < digits && error == 0; ++digit) {
      error = launch(&strike_count_kernel<kThreads, kChunk>, grid, kThreads, 0, stream, t, digit);
    }
    if (t.chunks != 0 && error == 0 && t.exact) {
      error = launch(&strike_ties_kernel<kThreads, kChunk>, grid, kThreads, 0, stream, t);
    }
    if (t.chunks != 0 && error == 0) {
      error = launch(&strike_apply_kernel<kThreads, kChunk>, grid, kThreads, 0, stream, t);
    }
    first = batch.end_group;
  }
  return error;
}

}  // namespace cuda
}  // namespace hn
