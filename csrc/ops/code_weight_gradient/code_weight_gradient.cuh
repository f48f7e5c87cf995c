// code_weight_gradient.cuh: the exact weight gradient on tensor cores: an implicit matrix product of bytes.
//
// Blocks that share the depth have a slot each for their 64-bit sums; a second kernel adds the slots, in order.
#pragma once
#include <cstdint>

#include "code_product.cuh"

namespace hn {
namespace cuda {

constexpr int kSlotSums = kCodeSide * kCodeSide;
constexpr int kThreadPairs = kSlotSums / kCodeThreads / 2;  // neighbours (g, 2t) and (g, 2t + 1) of a tile (mma.cuh)

// A block's share of the product.
struct CodeTile {
  int32_t group, first_row, first_column;
};

// Tiles: columns fastest, then rows.
__device__ __forceinline__ CodeTile code_tile(const CodeGemm& g, int32_t group, int32_t tile) {
  return {group, tile / g.column_tiles * kCodeSide, tile % g.column_tiles * kCodeSide};
}

// Index in dw's memory of element e of this thread's pair; negative outside of the group.
__device__ __forceinline__ int64_t element_of_pair(const CodeGemm& g, const CodeTile& tile, int pair, int e) {
  const int lane = int(threadIdx.x) % 32;
  const int half = pair % 2, column_tile = pair / 2 % (2 * kCodeTiles), row_tile = pair / 4 / kCodeTiles;
  const int32_t row = tile.first_row + warp_row() + 16 * row_tile + code_place(g.gradient_parts, half, lane / 4);
  const int32_t column = tile.first_column + warp_column() + column_tile / 2 * 16 +
                         code_place(g.input_parts, column_tile % 2, lane % 4 * 2 + e);
  if (row >= g.rows || column >= g.columns) return -1;
  const int32_t tap = column / g.channels, taps = g.columns / g.channels;
  const int32_t at = g.p.channels_last ? column : (column - tap * g.channels) * taps + tap;
  return (int64_t(tile.group) * g.rows + row) * g.columns + at;
}

// f(pair, its two sums) for the pairs of a thread.
template <class X, class G, class F>
__device__ __forceinline__ void for_each_pair(const CodeSums<X, G>& sums, const F& f) {
#pragma unroll
  for (int pair = 0; pair < kThreadPairs; ++pair) {
    Vec<int64_t, 2> total = {};
#pragma unroll
    for (int e = 0; e < 2; ++e) {
#pragma unroll
      for (int power = 0; power < G::kParts + X::kParts - 1; ++power) {
        const MmaSums& of = sums[power][pair / 4 / kCodeTiles][pair / 2 % (2 * kCodeTiles)];
        total[e] += int64_t(of.value[pair % 2 * 2 + e]) * (int64_t(1) << (8 * power));
      }
    }
    f(pair, total);
  }
}

// Where the pair of this thread lies in a slot: neighbouring threads have neighbouring pairs.
__device__ __forceinline__ int pair_in_slot(int pair) { return 2 * (pair * kCodeThreads + int(threadIdx.x)); }

// Writes a pair's elements of dw; returns the larger of `largest` and their magnitudes.
__device__ __forceinline__ uint32_t write_pair(const CodeGemm& g, const CodeTile& tile, int pair,
                                               const Vec<int64_t, 2>& total, double scale, uint32_t largest) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int64_t element = element_of_pair(g, tile, pair, e);
    if (element < 0) continue;
    const float value = scaled_sum(total[e], scale);
    g.p.dw[element] = value;
    largest = magnitude_bits(value) > largest ? magnitude_bits(value) : largest;
  }
  return largest;
}

// All threads call it. p.largest is 0 before the first of them.
__device__ __forceinline__ void report_largest(const CodeGemm& g, uint32_t largest) {
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % 32 == 0 && largest != 0) atomicMax(reinterpret_cast<uint32_t*>(g.p.largest), largest);
}

// The slot is the block's own, and a thread's pairs are the thread's: in global or shared memory.
template <class X, class G>
__device__ __forceinline__ void add_to_slot(int64_t* slot, const CodeSums<X, G>& sums, bool is_first) {
  for_each_pair<X, G>(sums, [&](int pair, Vec<int64_t, 2> total) {
    int64_t* const to = slot + pair_in_slot(pair);
    __syncwarp();  // one pair after the other: loads of all at once would take more registers than there are
    if (!is_first) {
      const Vec<int64_t, 2> before = load_vec<2>(to);
      total = {{total[0] + before[0], total[1] + before[1]}};
    }
    store_vec(to, total);
  });
}

// What this thread has added to the slot, as elements of dw.
__device__ __forceinline__ void write_slot(const CodeGemm& g, const CodeTile& tile, const int64_t* slot) {
  const double scale = code_scale(*g.p.input_delta, *g.p.gradient_delta);
  uint32_t largest = 0;
#pragma unroll 1
  for (int pair = 0; pair < kThreadPairs; ++pair) {
    largest = write_pair(g, tile, pair, load_vec<2>(slot + pair_in_slot(pair)), scale, largest);
  }
  report_largest(g, largest);
}

// A block's walk along its chunk of the depth. One barrier a step: it says that the step's stage has landed and that every
// warp is done with the stage before, which is filled next.
template <class X, class G>
class CodePipeline {
 public:
  __device__ __forceinline__ CodePipeline(const CodeGemm& g, const CodeTile& tile, int32_t chunk, CodeShared<X, G>* s)
      : g_(g),
        s_(s),
        begin_(chunk * g.chunk_pixels),
        end_(g.pixels - begin_ < g.chunk_pixels ? g.pixels : begin_ + g.chunk_pixels),
        steps_((end_ - begin_ + kStepPixels - 1) / kStepPixels),
        gradient_(g, tile.group, tile.first_row),
        input_(g, tile.group, tile.first_column),
        has_work_(tile.first_row + warp_row() < g.rows && tile.first_column + warp_column() < g.columns),
        walk_(g, begin_ + int32_t(threadIdx.x) % kStepPixels) {
    for (int stage = 0; stage < kCodeStages; ++stage) place_pixels(stage);
    __syncthreads();
    for (int stage = 0; stage < kCodeStages - 1; ++stage) load(stage, stage);
  }

  __device__ __forceinline__ bool done() const { return step_ == steps_; }

  // Adds the products of as many steps as an int32 holds.
  __device__ __forceinline__ void add_products(CodeSums<X, G>& sums) {
    const int32_t until = steps_ - step_ < kMostSteps ? steps_ : step_ + kMostSteps;
#pragma unroll 1
    for (; step_ < until; ++step_) {
      cp_async_wait<kCodeStages - 2>();
      __syncthreads();
      load(step_ + kCodeStages - 1, next_);
      place_pixels(now_);  // of the step that comes to this stage: those of this step were read when it was loaded
      if (has_work_) multiply_stage<X, G>(s_->gradient[now_], s_->input[now_], sums);
      now_ = now_ + 1 < kCodeStages ? now_ + 1 : 0;
      next_ = next_ + 1 < kCodeStages ? next_ + 1 : 0;
    }
    if (done()) cp_async_wait<0>();
  }

 private:
  __device__ __forceinline__ void place_pixels(int stage) {
    if (threadIdx.x < kStepPixels) s_->pixel[stage][threadIdx.x] = walk_.next(g_, end_);
  }
  __device__ __forceinline__ void load(int32_t step, int stage) {
    if (step < steps_) {
      gradient_.load(g_, begin_ + step * kStepPixels, end_, s_->gradient[stage]);
      input_.load(g_, s_->pixel[stage], s_->input[stage]);
    }
    cp_async_commit();
  }

  const CodeGemm& g_;
  CodeShared<X, G>* s_;
  int32_t begin_, end_, steps_, step_ = 0;
  int now_ = 0, next_ = kCodeStages - 1;
  GradientLoader<G> gradient_;
  InputLoader<X> input_;
  bool has_work_;  // this warp
  PixelWalk walk_;
};

// Blocks: tiles fastest, then chunks of the depth, groups. Where p.sums is null, one chunk is the whole depth and an int32
// holds it: its slot is in shared memory, and becomes dw at once.
template <class X, class G>
__global__ void __launch_bounds__(kCodeThreads, G::kParts + X::kParts == 2 ? 4 : 2)
    code_sums_kernel(const __grid_constant__ CodeGemm g) {
  using Shared = CodeShared<X, G>;
  static_assert(sizeof(Shared) >= kSlotSums * sizeof(int64_t), "a slot takes the place of the stages");
  HN_DYNAMIC_SHARED(Shared, s);
  const int32_t tiles = g.row_tiles * g.column_tiles, chunk = int32_t(blockIdx.x) / tiles % g.chunks;
  const CodeTile tile = code_tile(g, int32_t(blockIdx.x) / tiles / g.chunks, int32_t(blockIdx.x) % tiles);
  CodePipeline<X, G> pipeline(g, tile, chunk, s);
  const bool is_whole = g.p.sums == nullptr;
  int64_t* const slot = is_whole ? reinterpret_cast<int64_t*>(s) : g.p.sums + int64_t(blockIdx.x) * kSlotSums;
  for (bool is_first = true; !pipeline.done(); is_first = false) {
    CodeSums<X, G> sums = {};
    pipeline.add_products(sums);
    __syncthreads();  // every warp is done with the stages, whose place the slot may take
    add_to_slot<X, G>(slot, sums, is_first);
  }
  if (is_whole) write_slot(g, tile, slot);
}

// Adds the slots of the chunks, a pair a thread, and writes dw. Blocks: pairs fastest, then tiles, groups.
__global__ void __launch_bounds__(kCodeThreads) add_slots_kernel(const __grid_constant__ CodeGemm g) {
  const int32_t tiles = g.row_tiles * g.column_tiles, at = int32_t(blockIdx.x) / kThreadPairs;
  const int pair = int(blockIdx.x) % kThreadPairs;
  const CodeTile tile = code_tile(g, at / tiles, at % tiles);
  uint32_t largest = 0;
  if (element_of_pair(g, tile, pair, 0) >= 0) {
    const int64_t first_slot = int64_t(tile.group) * g.chunks * tiles + at % tiles;
    const int64_t* slot = g.p.sums + first_slot * kSlotSums + pair_in_slot(pair);
    Vec<int64_t, 2> total = {};
#pragma unroll 4
    for (int32_t chunk = 0; chunk < g.chunks; ++chunk, slot += int64_t(tiles) * kSlotSums) {
      const Vec<int64_t, 2> of = load_vec_streaming<2>(slot);
      total = {{total[0] + of[0], total[1] + of[1]}};
    }
    largest = write_pair(g, tile, pair, total, code_scale(*g.p.input_delta, *g.p.gradient_delta), 0);
  }
  report_largest(g, largest);
}

}  // namespace cuda
}  // namespace hn
