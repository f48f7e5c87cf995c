// masked_conv.cuh: the kernel: an implicit matrix product whose second operand is made from scores
// as it is needed.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"
#include "../../base/launch.cuh"
#include "../../base/mma.cuh"
#include "activation_tile.cuh"
#include "conv_gemm.cuh"
#include "weight_tile.cuh"

namespace hn {
namespace cuda {

// A block's share of the product, and of it a warp's (the four warps stand two by two).
template <int kBlockRows, int kBlockColumns>
struct ConvTile {
  static constexpr int kRows = kBlockRows, kColumns = kBlockColumns;
  static constexpr int kWarpRows = kRows / 2, kWarpColumns = kColumns / 2;
  static constexpr int kRowTiles = kWarpRows / 16, kColumnTiles = kWarpColumns / 8;
  static_assert(kWarpRows % 16 == 0 && kWarpColumns % 16 == 0, "a warp owns pairs of 16 x 8 products");
};

constexpr int kStages = 3;  // tiles in flight: one being multiplied, the others on their way

template <class Tile>
struct ConvShared {
  alignas(128) uint16_t activations[kStages][Tile::kRows * kTileDepth];
  alignas(128) uint16_t weights[kStages][Tile::kColumns * kTileDepth];
  PixelRow rows[Tile::kRows];
  int32_t pixel[Tile::kRows];  // index of the pixel a row writes, -1 outside the batch
};

template <class Tile>
__device__ __forceinline__ void place_rows(const ConvGemm& g, const Window& w, int32_t first_row, ConvShared<Tile>* s) {
  const int32_t pixels = w.pixels();
  const int64_t image_elements = int64_t(w.y.read_size) * w.x.read_size * g.channels;
  for (int r = int(threadIdx.x); r < Tile::kRows; r += kThreads) {
    const int32_t row = first_row + r;
    if (row >= g.batch * pixels) {
      s->rows[r] = {g.p.input, kNoRow, kNoRow};
      s->pixel[r] = -1;
      continue;
    }
    const int32_t image = row / pixels, rest = row - image * pixels;
    const int32_t y = rest / w.x.count, x = rest - y * w.x.count;
    s->rows[r] = {g.p.input + image * image_elements, w.y.read_first + y * w.y.read_step,
                  w.x.read_first + x * w.x.read_step};
    s->pixel[r] = (image * g.vertical.write_size + w.y.write_first + y * w.y.write_step) * g.horizontal.write_size +
                  w.x.write_first + x * w.x.write_step;
  }
}

// The fragments of a warp's share of a tile: ldmatrix rows are 8 elements of the contiguous side.
template <class Tile>
__device__ __forceinline__ void load_activations(const uint16_t* tile, int warp_row, int k,
                                                 MmaA (&a)[Tile::kRowTiles]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < Tile::kRowTiles; ++r) {
    ldmatrix_x4(a[r].word, tile + tile_offset<kTileDepth>(warp_row + r * 16 + lane % 16, k + lane / 16 * 8));
  }
}

template <class Tile, bool kDepthMajor>
__device__ __forceinline__ void load_weights(const uint16_t* tile, int warp_column, int k,
                                             MmaB (&b)[Tile::kColumnTiles]) {
  const int lane = int(threadIdx.x) % 32;
  const int depth = k + lane / 8 % 2 * 8, column = warp_column + lane / 16 * 8;
#pragma unroll
  for (int c = 0; c < Tile::kColumnTiles; c += 2) {  // two column tiles at once
    uint32_t word[4];
    if (kDepthMajor) {
      ldmatrix_x4_transposed(word, tile + tile_offset<Tile::kColumns>(depth + lane % 8, column + c * 8));
    } else {
      ldmatrix_x4(word, tile + tile_offset<kTileDepth>(column + c * 8 + lane % 8, depth));
    }
    b[c] = {{word[0], word[1]}};
    b[c + 1] = {{word[2], word[3]}};
  }
}

template <class Tile>
using Accumulators = MmaD[Tile::kRowTiles][Tile::kColumnTiles];

// acc += activations x weights over one tile of the depth.
template <class Tile, bool kDepthMajor>
__device__ __forceinline__ void multiply(const uint16_t* activations, const uint16_t* weights, int warp_row,
                                         int warp_column, Accumulators<Tile>& acc) {
#pragma unroll
  for (int k = 0; k < kTileDepth; k += 16) {
    MmaA a[Tile::kRowTiles];
    MmaB b[Tile::kColumnTiles];
    load_activations<Tile>(activations, warp_row, k, a);
    load_weights<Tile, kDepthMajor>(weights, warp_column, k, b);
#pragma unroll
    for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
      for (int c = 0; c < Tile::kColumnTiles; ++c) mma_m16n8k16(acc[r][c], a[r], b[c]);
    }
  }
}

// The whole depth. One barrier a step: it says that the tile of this step has landed and that every
// warp is done with the tile before, whose buffer the copies and the weights issued in this step
// overwrite.
template <class Tile, class Activations, class Weights>
__device__ __forceinline__ void accumulate(const ConvGemm& g, const Window& w, int32_t first_column, int steps,
                                           int warp_row, int warp_column, ConvShared<Tile>* s,
                                           Accumulators<Tile>& acc) {
  Activations activations(g, w, s->rows);
  Weights weights(g, w, first_column);
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) {
      activations.load(g, w, s->activations[step]);
      weights.load(g, w);
      weights.store(g, w, s->weights[step]);
    }
    cp_async_commit();
  }
  int now = 0, next = kStages - 1;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kStages - 2>();
    __syncthreads();
    const bool more = step + kStages - 1 < steps;
    if (more) {
      activations.load(g, w, s->activations[next]);
      weights.load(g, w);
    }
    cp_async_commit();
    multiply<Tile, Weights::kDepthMajor>(s->activations[now], s->weights[now], warp_row, warp_column, acc);
    if (more) weights.store(g, w, s->weights[next]);
    now = now + 1 < kStages ? now + 1 : 0;
    next = next + 1 < kStages ? next + 1 : 0;
  }
  cp_async_wait<0>();
}

// Rounds once to bfloat16 and writes: a lane holds pairs of adjacent columns.
template <class Tile>
__device__ __forceinline__ void write_tile(const ConvGemm& g, int32_t first_column, int warp_row, int warp_column,
                                           const ConvShared<Tile>* s, const Accumulators<Tile>& acc) {
  const int lane = int(threadIdx.x) % 32;
  const bool paired = g.columns % 2 == 0 && is_aligned<4>(g.p.output);
#pragma unroll
  for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const int32_t pixel = s->pixel[warp_row + r * 16 + mma_d_row(lane, i)];
      if (pixel < 0) continue;
      uint16_t* to = g.p.output + int64_t(pixel) * g.columns;
#pragma unroll
      for (int c = 0; c < Tile::kColumnTiles; ++c) {
        const int32_t column = first_column + warp_column + c * 8 + mma_d_col(lane, i);
        const Vec<uint16_t, 2> both = {bfloat16_bits(acc[r][c].value[i]), bfloat16_bits(acc[r][c].value[i + 1])};
        if (paired && column < g.columns) {
          store_vec(to + column, both);
        } else {
          if (column < g.columns) to[column] = both[0];
          if (column + 1 < g.columns) to[column + 1] = both[1];
        }
      }
    }
  }
}

// A block owns Tile::kRows pixels of one phase times Tile::kColumns channels, and writes each of
// its outputs once. It reads the pixels' windows once per column tile, and makes the weights of its
// columns anew: a weight is made once per row tile of the layer. Sums run over the depth in a fixed
// order, so results do not depend on the grid. Blocks of one row tile are neighbours: what they
// gather is the same and is found in L2.
template <class Tile, class Activations, class Weights>
__global__ void __launch_bounds__(kThreads, Weights::kMinBlocks)
    masked_conv_kernel(const __grid_constant__ ConvGemm g) {
  HN_DYNAMIC_SHARED(ConvShared<Tile>, s);
  const int32_t first_column = int32_t(blockIdx.x) % g.column_tiles * Tile::kColumns;
  const int32_t row_tile = int32_t(blockIdx.x) / g.column_tiles;
  const int32_t first_row = row_tile % g.row_tiles * Tile::kRows;
  const Window w = conv_window(g, row_tile / g.row_tiles);
  if (first_row >= g.batch * w.pixels()) return;  // the whole block, in phases below the largest

  place_rows<Tile>(g, w, first_row, s);
  __syncthreads();
  const int warp = int(threadIdx.x) / 32;
  const int warp_row = warp / 2 * Tile::kWarpRows, warp_column = warp % 2 * Tile::kWarpColumns;
  Accumulators<Tile> acc = {};
  const int64_t depth = int64_t(w.taps()) * g.channels;
  if (depth > 0) {  // no tap of the kernel may reach this phase: then its gradient is 0
    accumulate<Tile, Activations, Weights>(g, w, first_column, int((depth + kTileDepth - 1) / kTileDepth), warp_row,
                                           warp_column, s, acc);
  }
  write_tile<Tile>(g, first_column, warp_row, warp_column, s, acc);
}

}  // namespace cuda
}  // namespace hn
