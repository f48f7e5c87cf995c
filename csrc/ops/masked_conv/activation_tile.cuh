// activation_tile.cuh: gather rows of the map that is read into shared memory, [rows][kTileDepth]
// bfloat16.
//
// A tap outside the image, a row outside the batch and the tail of the depth read zero. Both
// loaders are called once a step, in order of the depth.
#pragma once
#include <cstdint>

#include "../../base/memory.cuh"
#include "conv_gemm.cuh"

namespace hn {
namespace cuda {

// A row of the product: the image it belongs to and the input coordinate of tap 0. `y` of a row
// outside the batch is so far off that no tap brings it inside.
struct PixelRow {
  const uint16_t* image;
  int32_t y, x;
};

constexpr int32_t kNoRow = -(1 << 30);

// Offset within the image of what a row reads at the cursor's tap and channel 0, or -1. An image
// has fewer than 2^31 elements.
__device__ __forceinline__ int32_t pixel_offset(const ConvGemm& g, const Window& w, int32_t row_y, int32_t row_x,
                                                const DepthCursor& at) {
  const int32_t y = row_y + at.tap_y * w.y.tap_step, x = row_x + at.tap_x * w.x.tap_step;
  const bool inside = at.inside(w) && uint32_t(y) < uint32_t(w.y.read_size) && uint32_t(x) < uint32_t(w.x.read_size);
  return inside ? (y * w.x.read_size + x) * g.channels : -1;
}

// Channels in multiples of 8, input aligned to 16 bytes. Thread t owns chunk t % 4 of row t / 4 and
// of every 32nd from there: one cursor for all, one asynchronous 16-byte copy each.
template <int kRows>
class VectorActivations {
 public:
  __device__ VectorActivations(const ConvGemm& g, const Window& w, const PixelRow* rows)
      : at_(depth_cursor(g, w, element())) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) mine_[j] = rows[row(j)];
  }

  __device__ void load(const ConvGemm& g, const Window& w, uint16_t* tile) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const int32_t offset = pixel_offset(g, w, mine_[j].y, mine_[j].x, at_);
      const bool inside = offset >= 0;
      const uint16_t* from = inside ? mine_[j].image + offset + at_.channel : g.p.input;
      cp_async<16>(tile + tile_offset<kTileDepth>(row(j), element()), from, inside);
    }
    at_.advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kRowChunks = kTileDepth / kChunk, kRowStep = kThreads / kRowChunks;
  static constexpr int kPerThread = kRows / kRowStep;
  static_assert(kRows % kRowStep == 0, "every thread copies the same number of chunks");
  static __device__ int element() { return int(threadIdx.x) % kRowChunks * kChunk; }
  static __device__ int row(int j) { return int(threadIdx.x) / kRowChunks + j * kRowStep; }

  DepthCursor at_;
  PixelRow mine_[kPerThread];
};

// Any number of channels, any alignment. Thread t owns the pair of elements t % 16 of rows t / 16,
// t / 16 + 8, ...
template <int kRows>
class ScalarActivations {
 public:
  __device__ ScalarActivations(const ConvGemm& g, const Window& w, const PixelRow* rows)
      : at_{depth_cursor(g, w, pair()), depth_cursor(g, w, pair() + 1)}, rows_(rows) {}

  __device__ void load(const ConvGemm& g, const Window& w, uint16_t* tile) {
#pragma unroll 4
    for (int row = int(threadIdx.x) / kPairs; row < kRows; row += kThreads / kPairs) {
      const PixelRow r = rows_[row];
      Vec<uint16_t, 2> both;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int32_t offset = pixel_offset(g, w, r.y, r.x, at_[e]);
        both[e] = offset >= 0 ? r.image[offset + at_[e].channel] : uint16_t(0);
      }
      store_vec(tile + tile_offset<kTileDepth>(row, pair()), both);
    }
    at_[0].advance(g, w, kTileDepth);
    at_[1].advance(g, w, kTileDepth);
  }

 private:
  static constexpr int kPairs = kTileDepth / 2;
  static __device__ int pair() { return int(threadIdx.x) % kPairs * 2; }

  DepthCursor at_[2];
  const PixelRow* rows_;
};

}  // namespace cuda
}  // namespace hn
