// masked_conv.cuh: the kernel: an implicit matrix product whose second operand is made from scores as it is needed.
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
  static_assert(kWarpRows % 16 == 0 && kWarpColumns % 8 == 0, "a warp owns whole 16 x 8 products");
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
__device__ __forceinline__ void place_rows(const ConvGemm& g, const Window& w, int32_t first_row,
                                           ConvShared<Tile>* s) {
  const int32_t pixels = w.pixels();
  const int64_t image_elements = int64_t(w.y.read_size) * w.x.read_size * g.channels;
  for (int r = int(threadIdx.x); r < Tile::kRows; r += kThreads) {
    const int32_t row = first_row + r;
    if (row >= g.batch * pixels) {
      s->rows[r] = {g.p.input, kNoRow, kNoRow};
      s->pixel[r] = -1;
      continue;
    }
    const int32_t image = row / pixels, rest = row - image * pixels, y = rest / w.x.count, x = rest - y * w.x.count;
    s->rows[r] = {g.p.input + image * image_elements, w.y.read_first + y * w.y.read_step,
                  w.x.read_first + x * w.x.read_step};
    s->pixel[r] = (image * g.vertical.write_size + w.y.write_first + y * w.y.write_step) * g.horizontal.write_size +
                  w.x.write_first + x * w.x.write_step;
  }
}

// acc += activations x weights over one tile of the depth. Lane (group, pair) of a fragment: see mma.cuh.
template <class Tile>
__device__ __forceinline__ void multiply(const uint16_t* activations, const uint16_t* weights, int warp_row,
                                         int warp_column, float (&acc)[Tile::kRowTiles][Tile::kColumnTiles][4]) {
  const int group = int(threadIdx.x) % 32 / 4, pair = int(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int k = 0; k < kTileDepth; k += 16) {
    uint32_t a[Tile::kRowTiles][4], b[Tile::kColumnTiles][2];
#pragma unroll
    for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        a[r][e] = *reinterpret_cast<const uint32_t*>(
            activations + tile_offset(warp_row + r * 16 + e % 2 * 8 + group, k + e / 2 * 8 + pair));
      }
    }
#pragma unroll
    for (int c = 0; c < Tile::kColumnTiles; ++c) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        b[c][e] = *reinterpret_cast<const uint32_t*>(
            weights + tile_offset(warp_column + c * 8 + group, k + e * 8 + pair));
      }
    }
#pragma unroll
    for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
      for (int c = 0; c < Tile::kColumnTiles; ++c) mma_m16n8k16(acc[r][c], a[r], b[c]);
    }
  }
}

// The whole depth. One barrier a step: it says that the tile of this step has landed and that every warp is done with
// the tile before, whose buffer the copies and the weights issued in this step overwrite.
template <class Tile, class Activations, class Weights>
__device__ __forceinline__ void accumulate(const ConvGemm& g, const Window& w, int32_t first_column, int steps,
                                           int warp_row, int warp_column, ConvShared<Tile>* s,
                                           float (&acc)[Tile::kRowTiles][Tile::kColumnTiles][4]) {
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
    multiply<Tile>(s->activations[now], s->weights[now], warp_row, warp_column, acc);
    if (more) weights.store(g, w, s->weights[next]);
    now = now + 1 < kStages ? now + 1 : 0;
    next = next + 1 < kStages ? next + 1 : 0;
  }
  cp_async_wait<0>();
}

// Rounds once to bfloat16 and writes. Lane (group, pair) holds two adjacent columns of rows group and group + 8.
template <class Tile>
__device__ __forceinline__ void write_tile(const ConvGemm& g, int32_t first_column, int warp_row, int warp_column,
                                           const ConvShared<Tile>* s,
                                           const float (&acc)[Tile::kRowTiles][Tile::kColumnTiles][4]) {
  const int group = int(threadIdx.x) % 32 / 4, pair = int(threadIdx.x) % 4 * 2;
  const bool paired = g.columns % 2 == 0 && reinterpret_cast<uintptr_t>(g.p.output) % 4 == 0;
#pragma unroll
  for (int r = 0; r < Tile::kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t pixel = s->pixel[warp_row + r * 16 + half * 8 + group];
      if (pixel < 0) continue;
      uint16_t* to = g.p.output + int64_t(pixel) * g.columns;
#pragma unroll
      for (int c = 0; c < Tile::kColumnTiles; ++c) {
        const int32_t column = first_column + warp_column + c * 8 + pair;
        const uint32_t low = bfloat16_bits(acc[r][c][half * 2]), high = bfloat16_bits(acc[r][c][half * 2 + 1]);
        if (paired && column < g.columns) {
          *reinterpret_cast<uint32_t*>(to + column) = low | high << 16;
        } else {
          if (column < g.columns) to[column] = uint16_t(low);
          if (column + 1 < g.columns) to[column + 1] = uint16_t(high);
        }
      }
    }
  }
}

// A block owns Tile::kRows pixels of one phase times Tile::kColumns channels, and writes each of its outputs once. It
// reads the pixels' windows once per column tile, and makes the weights of its columns anew: a weight is made once per
// row tile of the layer. Sums run over the depth in a fixed order, so results do not depend on the grid.
// Blocks of one row tile are neighbours: what they gather is the same and is found in L2.
template <class Tile, class Activations, class Weights>
__global__ void __launch_bounds__(kThreads) masked_conv_kernel(const __grid_constant__ ConvGemm g) {
  HN_DYNAMIC_SHARED(ConvShared<Tile>, s);
  const int32_t block = int32_t(blockIdx.x), column_tile = block % g.column_tiles, rest = block / g.column_tiles;
  const Window w = conv_window(g, rest / g.row_tiles);
  const int32_t first_row = rest % g.row_tiles * Tile::kRows, first_column = column_tile * Tile::kColumns;
  if (first_row >= g.batch * w.pixels()) return;  // the whole block: this phase is smaller than the largest

  place_rows<Tile>(g, w, first_row, s);
  __syncthreads();
  const int warp = int(threadIdx.x) / 32;
  const int warp_row = warp / 2 * Tile::kWarpRows, warp_column = warp % 2 * Tile::kWarpColumns;
  float acc[Tile::kRowTiles][Tile::kColumnTiles][4] = {};
  const int64_t depth = int64_t(w.taps()) * g.channels;
  if (depth > 0) {  // no tap of the kernel may reach this phase: then its gradient is 0
    accumulate<Tile, Activations, Weights>(g, w, first_column, int((depth + kTileDepth - 1) / kTileDepth), warp_row,
                                           warp_column, s, acc);
  }
  write_tile<Tile>(g, first_column, warp_row, warp_column, s, acc);
}

}  // namespace cuda
}  // namespace hn
