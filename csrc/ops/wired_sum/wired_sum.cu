// wired_sum.cu: chooses grids and launches: one kernel a sum, two for the starts of a weight's edges, one to list them.
#include "wired_sum.cuh"

namespace hn {
namespace cuda {
namespace {

constexpr int64_t kLargestCount = 0x7fffffff;

int32_t row_blocks_of(int32_t rows) { return (rows + kWiredWarps - 1) / kWiredWarps; }

}  // namespace

int wired_sum(const WiredSumParams& p, void* stream) {
  const int64_t columns = int64_t(p.images) * p.pixels;
  if (columns == 0 || p.edges.n_destinations == 0) return 0;
  const int32_t row_blocks = row_blocks_of(p.edges.n_destinations);
  const int64_t blocks = (columns + kWiredTile - 1) / kWiredTile * row_blocks;
  if (columns > kLargestCount || blocks > kLargestCount) return kRefused;
  const auto kernel = p.edges.sources == nullptr ? &wired_sum_kernel<uint16_t> : &wired_sum_kernel<int32_t>;
  return launch(kernel, dim3(unsigned(blocks)), dim3(kWiredThreads), 0, stream,
                WiredGrid{p, int32_t(columns), row_blocks});
}

int edge_starts(const EdgeStartsParams& p, void* stream) {
  if (p.n_destinations == 0) return fill_zero(p.starts, sizeof(int32_t), stream);
  const int error =
      launch(&count_edges_kernel, dim3(unsigned(row_blocks_of(p.n_destinations))), dim3(kWiredThreads), 0, stream, p);
  if (error != 0) return error;
  return launch(&scan_edges_kernel, dim3(1), dim3(kScanThreads), 0, stream, p.starts, p.n_destinations);
}

int pack_edges(const PackEdgesParams& p, void* stream) {
  if (p.n_edges == 0) return 0;
  int error = fill_zero(p.sources, size_t(p.n_edges) * sizeof(int32_t), stream);
  if (error == 0) error = fill_zero(p.values, size_t(p.n_edges) * sizeof(float), stream);
  if (error != 0 || p.n_destinations == 0) return error;
  return launch(&pack_edges_kernel, dim3(unsigned(row_blocks_of(p.n_destinations))), dim3(kWiredThreads), 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
