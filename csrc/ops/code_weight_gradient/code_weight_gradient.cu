// code_weight_gradient.cu: choose how the codes are split, cut the depth so that the machine is full, and launch.
#include "code_weight_gradient.cuh"

namespace hn {
namespace cuda {
namespace {

constexpr int64_t kLargestCount = 0x7fffffff;
constexpr int kScaleThreads = 256;
constexpr int64_t kFewestPixels = 512;  // of a chunk: below, its 64-bit additions cost more than its products

using Uint8 = Codes<uint8_t, 1, false>;
using Int8 = Codes<int8_t, 1, true>;
using Int16 = Codes<int16_t, 2, true>;
using Uint16 = Codes<int32_t, 2, false>;  // as the contract holds them

constexpr int kVector = 4;  // channels read at once

// Four channels at once where all of them lie so.
template <class X, class G>
int launch_sums(const CodeGemm& g, unsigned blocks, void* stream) {
  const bool vectors = g.rows % kVector == 0 && g.channels % kVector == 0 &&
                       is_aligned<kVector * sizeof(typename X::Type)>(g.p.input) &&
                       is_aligned<kVector * sizeof(typename G::Type)>(g.p.gradient);
  return launch(vectors ? code_sums_kernel<X, G, kVector> : code_sums_kernel<X, G, 1>, dim3(blocks), dim3(kCodeThreads),
                sizeof(CodeShared<X, G>), stream, g);
}

template <class X>
int launch_inputs(const CodeGemm& g, unsigned blocks, void* stream) {
  return g.p.gradient_type == CodeType::kInt8 ? launch_sums<X, Int8>(g, blocks, stream)
                                              : launch_sums<X, Int16>(g, blocks, stream);
}

int launch_codes(const CodeGemm& g, unsigned blocks, void* stream) {
  switch (g.p.input_type) {
    case CodeType::kUint8: return launch_inputs<Uint8>(g, blocks, stream);
    case CodeType::kInt8: return launch_inputs<Int8>(g, blocks, stream);
    case CodeType::kInt16: return launch_inputs<Int16>(g, blocks, stream);
    default: return launch_inputs<Uint16>(g, blocks, stream);
  }
}

// `processors`: multiprocessors to fill.
int launch_gradient(const CodeWeightGradientParams& p, int processors, void* stream) {
  const ConvShape& s = p.shape;
  CodeGemm g = {};
  g.p = p;
  g.rows = s.out_channels / p.groups;
  g.channels = s.in_channels / p.groups;
  const int64_t columns = int64_t(g.channels) * s.kernel_height * s.kernel_width;
  const int64_t weights = columns * s.out_channels;
  const int64_t pixels = int64_t(s.batch) * s.out_height * s.out_width;
  if (weights > kLargestCount || pixels > kLargestCount - kStepPixels) return kRefused;
  int error = fill_zero(p.largest, sizeof(float), stream);
  if (error != 0 || weights == 0) return error;
  if (pixels == 0) return fill_zero(p.dw, size_t(weights) * sizeof(float), stream);
  error = fill_zero(p.sums, size_t(weights) * sizeof(int64_t), stream);
  if (error != 0) return error;

  g.columns = int32_t(columns);
  g.pixels = int32_t(pixels);
  g.row_tiles = (g.rows + kCodeRows - 1) / kCodeRows;
  g.column_tiles = (g.columns + kCodeColumns - 1) / kCodeColumns;
  const int64_t tiles = int64_t(g.row_tiles) * g.column_tiles * p.groups;
  const int64_t wanted = (4 * int64_t(processors) + tiles - 1) / tiles;  // chunks that make four blocks a processor
  const int64_t each = (pixels + wanted - 1) / wanted;
  const int64_t bounded = each < kFewestPixels ? kFewestPixels : (each > kMostPixels ? kMostPixels : each);
  g.chunk_pixels = int32_t((bounded + kStepPixels - 1) / kStepPixels * kStepPixels);
  g.chunks = int32_t((pixels + g.chunk_pixels - 1) / g.chunk_pixels);
  if (tiles * g.chunks > kLargestCount) return kRefused;
  error = launch_codes(g, unsigned(tiles * g.chunks), stream);
  if (error != 0) return error;
  return launch(scale_sums_kernel<kScaleThreads>, dim3(unsigned((weights + kScaleThreads - 1) / kScaleThreads)),
                dim3(kScaleThreads), 0, stream, p, int32_t(weights));
}

}  // namespace

int code_weight_gradient(const CodeWeightGradientParams& p, void* stream) {
  int processors = 0;
  const int error = multiprocessors(&processors);
  return error != 0 ? error : launch_gradient(p, processors, stream);
}

}  // namespace cuda
}  // namespace hn
