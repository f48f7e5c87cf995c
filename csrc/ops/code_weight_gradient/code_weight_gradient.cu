// code_weight_gradient.cu: choose how the codes are split and copied, cut the depth so that the machine is full, and launch.
#include "code_weight_gradient.cuh"

namespace hn {
namespace cuda {
namespace {

constexpr int64_t kLargestCount = 0x7fffffff;
// A model of time, in pixels of a block's depth: processors take their blocks side by side, but two no longer than one;
// sums that pass through memory take as long as these pixels.
constexpr int64_t kFewestBlocks = 2, kMostBlocks = 4;  // a processor
constexpr int64_t kSlotPixels = 512;

using Uint8 = Codes<uint8_t, 1, false>;
using Int8 = Codes<int8_t, 1, true>;
using Int16 = Codes<int16_t, 2, true>;
using Uint16 = Codes<int32_t, 2, false>;  // as the contract holds them

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What can be copied at once of codes at p, `count` channels a group: as they are stored, so not of those that are narrowed.
template <class C>
int32_t copied_bytes(const void* p, int64_t count) {
  if (sizeof(typename C::Type) != C::kParts) return 0;
  if (count * C::kParts % 16 == 0 && is_aligned<16>(p)) return 16;
  return count * C::kParts % 4 == 0 && is_aligned<4>(p) ? 4 : 0;
}

// The chunks of the depth that should be done first.
void cut_depth(int64_t tiles, int64_t processors, CodeGemm* g) {
  int64_t best = -1;
  for (int64_t blocks = 0; blocks <= kMostBlocks; ++blocks) {  // a processor; first one chunk, whatever that makes
    const int64_t fitting = blocks * processors / tiles, steps = ceil_div(g->pixels, kStepPixels);
    const int64_t wanted = fitting < 1 ? 1 : (fitting > steps ? steps : fitting);
    const int64_t each = ceil_div(ceil_div(g->pixels, wanted), kStepPixels) * kStepPixels;
    const int64_t chunks = ceil_div(g->pixels, each), rounds = ceil_div(tiles * chunks, processors);
    const int64_t time = (rounds > kFewestBlocks ? rounds : kFewestBlocks) * (each + (chunks > 1 ? kSlotPixels : 0));
    if (best >= 0 && time >= best) continue;
    best = time;
    g->chunks = int32_t(chunks);
    g->chunk_pixels = int32_t(each);
  }
}

// What `p` is as a product; false where it is too large. `slots`: how many it needs, 0 where a block has a tile's whole
// depth. Nothing is to be computed where weights or pixels are 0.
bool make_gemm(const CodeWeightGradientParams& p, int64_t processors, CodeGemm* g, int64_t* slots) {
  const ConvShape& s = p.shape;
  *g = {};
  *slots = 0;
  g->p = p;
  g->rows = s.out_channels / p.groups;
  g->channels = s.in_channels / p.groups;
  const int64_t columns = int64_t(g->channels) * s.kernel_height * s.kernel_width;
  const int64_t pixels = int64_t(s.batch) * s.out_height * s.out_width;
  if (columns * s.out_channels > kLargestCount || pixels > kLargestCount - (kCodeStages + 1) * kStepPixels)
    return false;
  g->columns = int32_t(columns);
  g->pixels = int32_t(pixels);
  if (columns * s.out_channels == 0 || pixels == 0) return true;
  g->row_tiles = int32_t(ceil_div(g->rows, kCodeSide));
  g->column_tiles = int32_t(ceil_div(columns, kCodeSide));
  g->step_x = kStepPixels % s.out_width;
  g->step_y = kStepPixels / s.out_width % s.out_height;
  g->step_images = kStepPixels / s.out_width / s.out_height;
  const int64_t tiles = int64_t(g->row_tiles) * g->column_tiles * p.groups;
  cut_depth(tiles, processors, g);
  if (g->chunks > 1 || pixels > kMostPixels) *slots = tiles * g->chunks;
  return tiles * g->chunks <= kLargestCount && tiles * kThreadPairs <= kLargestCount;
}

template <class X, class G>
int launch_sums(CodeGemm* g, unsigned blocks, void* stream) {
  g->input_parts = X::kParts;
  g->gradient_parts = G::kParts;
  g->input_bytes = copied_bytes<X>(g->p.input, g->channels);
  g->gradient_bytes = copied_bytes<G>(g->p.gradient, g->rows);
  return launch(&code_sums_kernel<X, G>, dim3(blocks), dim3(kCodeThreads), sizeof(CodeShared<X, G>), stream, *g);
}

template <class X>
int launch_inputs(CodeGemm* g, unsigned blocks, void* stream) {
  return g->p.gradient_type == CodeType::kInt8 ? launch_sums<X, Int8>(g, blocks, stream)
                                               : launch_sums<X, Int16>(g, blocks, stream);
}

int launch_codes(CodeGemm* g, unsigned blocks, void* stream) {
  switch (g->p.input_type) {
    case CodeType::kUint8: return launch_inputs<Uint8>(g, blocks, stream);
    case CodeType::kInt8: return launch_inputs<Int8>(g, blocks, stream);
    case CodeType::kInt16: return launch_inputs<Int16>(g, blocks, stream);
    default: return launch_inputs<Uint16>(g, blocks, stream);
  }
}

// `processors`: multiprocessors to fill.
int launch_gradient(const CodeWeightGradientParams& p, int processors, void* stream) {
  CodeGemm g;
  int64_t slots;
  if (!make_gemm(p, processors, &g, &slots)) return kRefused;
  int error = fill_zero(p.largest, sizeof(float), stream);
  const int64_t weights = int64_t(g.columns) * p.shape.out_channels;
  if (error != 0 || weights == 0) return error;
  if (g.pixels == 0) return fill_zero(p.dw, size_t(weights) * sizeof(float), stream);
  if (slots == 0) g.p.sums = nullptr;
  const unsigned tiles = unsigned(g.row_tiles * g.column_tiles * p.groups);
  error = launch_codes(&g, tiles * unsigned(g.chunks), stream);
  if (error != 0 || slots == 0) return error;
  return launch(&add_slots_kernel, dim3(tiles * kThreadPairs), dim3(kCodeThreads), 0, stream, g);
}

int64_t sums_of(const CodeWeightGradientParams& p, int processors) {
  CodeGemm g;
  int64_t slots;
  return make_gemm(p, processors, &g, &slots) ? slots * kSlotSums : 0;
}

}  // namespace

int64_t code_weight_gradient_sums(const CodeWeightGradientParams& p) {
  int processors = 0;
  return multiprocessors(&processors) == 0 ? sums_of(p, processors) : 0;
}

int code_weight_gradient(const CodeWeightGradientParams& p, void* stream) {
  int processors = 0;
  const int error = multiprocessors(&processors);
  return error != 0 ? error : launch_gradient(p, processors, stream);
}

}  // namespace cuda
}  // namespace hn
