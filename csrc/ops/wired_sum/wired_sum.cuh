// wired_sum.cuh: the kernels of the sum over a wiring's edges, and of the lists of its edges.
#pragma once
#include "../../base/collectives.cuh"
#include "wired_sum.h"

namespace hn {
namespace cuda {

constexpr int kWiredWarps = 8, kWiredThreads = 32 * kWiredWarps;
constexpr int kWiredColumns = 4;  // (image, pixel) pairs of a lane
constexpr int kWiredTile = 32 * kWiredColumns;
constexpr int kScanThreads = 1024;

struct WiredGrid {
  WiredSumParams p;
  int32_t columns;     // images * pixels
  int32_t row_blocks;  // of kWiredWarps destinations
};

HN_HD int32_t within(int32_t v, int32_t most) { return v < 0 ? 0 : (v > most ? most : v); }

// A warp owns a destination and 128 columns, pixels of all images in a row; the eight warps of a block and the blocks
// next to it read the same columns of x, which the caches keep. Lanes fetch 32 edges at once and hand them round; x is
// read 128 bytes at a time, y written once. A source that does not exist reads as NaN.
template <class Source>
__global__ void __launch_bounds__(kWiredThreads) wired_sum_kernel(const __grid_constant__ WiredGrid g) {
  const Edges& edges = g.p.edges;
  const int lane = lane_index();
  const int32_t row = int32_t(blockIdx.x) % g.row_blocks * kWiredWarps + int32_t(threadIdx.x) / 32;
  if (row >= edges.n_destinations) return;
  const int64_t first = int64_t(blockIdx.x) / g.row_blocks * kWiredTile + lane;
  const auto image = [&](int j) { return int32_t(first + 32 * j) / g.p.pixels; };
  const auto pixel = [&](int j) { return int32_t(first + 32 * j) % g.p.pixels; };
  const auto to = [&](int j) { return g.p.y + image(j) * g.p.y_image + int64_t(row) * g.p.pixels + pixel(j); };
  const float* from[kWiredColumns];
  float sum[kWiredColumns];
  bool mine[kWiredColumns];
#pragma unroll
  for (int j = 0; j < kWiredColumns; ++j) {
    mine[j] = first + 32 * j < g.columns;
    from[j] = mine[j] ? g.p.x + image(j) * g.p.x_image + pixel(j) : g.p.x;
    sum[j] = g.p.accumulate && mine[j] ? *to(j) : 0.0f;
  }
  const int32_t begin = within(edges.starts[row], edges.n_edges), end = within(edges.starts[row + 1], edges.n_edges);
  for (int32_t at = begin; at < end; at += 32) {
    int32_t source = 0;
    float value = 0.0f;
    if (at + lane < end) {
      source = int32_t(__ldg(sources_of<Source>(edges) + at + lane));
      value = __ldg(edges.values + at + lane);
      if (uint32_t(source) >= uint32_t(edges.n_sources)) {
        source = -1;
        value = __uint_as_float(0x7fc00000u);
      }
    }
    const int32_t count = end - at < 32 ? end - at : 32;
#pragma unroll 4
    for (int32_t e = 0; e < count; ++e) {
      const int32_t s = __shfl_sync(kFullWarp, source, e);
      const float w = __shfl_sync(kFullWarp, value, e);
      const int64_t map = int64_t(s) * g.p.pixels;
#pragma unroll
      for (int j = 0; j < kWiredColumns; ++j) {
        sum[j] = __fmaf_rn(w, s < 0 ? 0.0f : __ldg(from[j] + map), sum[j]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kWiredColumns; ++j) {
    if (mine[j]) *to(j) = sum[j];
  }
}

// A warp counts the edges of a destination, into starts[destination + 1].
__global__ void __launch_bounds__(kWiredThreads) count_edges_kernel(const __grid_constant__ EdgeStartsParams p) {
  const int64_t row = int64_t(blockIdx.x) * kWiredWarps + int32_t(threadIdx.x) / 32;
  if (row >= p.n_destinations) return;
  int32_t count = 0;
  for (int32_t s = lane_index(); s < p.n_sources; s += 32) count += p.weight[row * p.row + s] != 0.0f;
  count = warp_sum(count);
  if (lane_index() == 0) p.starts[row + 1] = count;
}

// One block turns counts into starts.
__global__ void __launch_bounds__(kScanThreads) scan_edges_kernel(int32_t* starts, int32_t n_destinations) {
  HN_SHARED(int32_t, scratch, kBlockScratch<kScanThreads>);
  int32_t before = 0;
  if (threadIdx.x == 0) starts[0] = 0;
  for (int32_t base = 0; base < n_destinations; base += kScanThreads) {
    const int32_t at = base + int32_t(threadIdx.x);
    const int32_t count = at < n_destinations ? starts[at + 1] : 0;
    const Scan<int32_t> scan = block_scan<kScanThreads>(count, scratch);
    if (at < n_destinations) starts[at + 1] = before + scan.before + count;
    before += scan.total;
  }
}

// A warp writes the edges of a destination in order; both lists were zero.
__global__ void __launch_bounds__(kWiredThreads) pack_edges_kernel(const __grid_constant__ PackEdgesParams p) {
  const int64_t row = int64_t(blockIdx.x) * kWiredWarps + int32_t(threadIdx.x) / 32;
  if (row >= p.n_destinations) return;
  int32_t at = within(p.starts[row], p.n_edges);
  const int32_t end = within(p.starts[row + 1], p.n_edges);
  for (int32_t base = 0; base < p.n_sources; base += 32) {
    const int32_t s = base + lane_index();
    const float w = s < p.n_sources ? p.weight[row * p.row + s] : 0.0f;
    const bool edge = w != 0.0f;
    const Rank rank = ballot_rank(edge);
    if (edge && at + rank.before < end) {
      p.sources[at + rank.before] = s;
      p.values[at + rank.before] = w;
    }
    at += rank.total;
  }
}

}  // namespace cuda
}  // namespace hn
