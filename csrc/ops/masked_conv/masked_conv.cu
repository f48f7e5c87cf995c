// masked_conv.cu: choose the loaders and the tile for a layer, and launch.
#include "masked_conv.cuh"

namespace hn {
namespace cuda {
namespace {

constexpr int64_t kLargest = 0x7fffffff;
constexpr int64_t kLargestRows = kLargest - 128;  // a tile may reach past the last row
constexpr int32_t kLargestSize = 1 << 29;         // of an axis, padding or kernel: sums of a few fit int32

using LargeTile = ConvTile<128, 64>;
using SmallTile = ConvTile<64, 32>;

bool valid_axis(const ConvAxis& a) {
  return a.kernel >= 1 && a.stride >= 1 && a.dilation >= 1 && a.padding >= 0 && a.read_size >= 0 && a.write_size >= 0 &&
         a.read_size <= kLargestSize && a.write_size <= kLargestSize && a.padding <= kLargestSize &&
         a.stride <= kLargestSize && int64_t(a.kernel) * a.dilation <= kLargestSize;
}

// Within a map, an image has fewer than 2^31 elements and the batch fewer than 2^31 pixels; the
// elements of the whole map may be more.
bool valid_map(int64_t batch, int64_t height, int64_t width, int64_t channels) {
  return height * width <= kLargest && height * width * channels <= kLargest && batch * height * width <= kLargestRows;
}

bool valid(const MaskedConvParams& p, const ConvGemm& g) {
  const ConvShape& s = p.shape;
  return s.batch >= 0 && s.in_channels >= 0 && s.out_channels >= 0 && valid_axis(g.vertical) &&
         valid_axis(g.horizontal) && valid_map(s.batch, s.in_height, s.in_width, s.in_channels) &&
         valid_map(s.batch, s.out_height, s.out_width, s.out_channels) && p.rule.kind != RuleKind::kExpectation &&
         int64_t(p.layout.taps) == int64_t(s.kernel_height) * s.kernel_width && p.layout.channels == s.in_channels &&
         int64_t(p.layout.per_filter) == int64_t(s.in_channels) * p.layout.taps &&
         int64_t(p.layout.n) == int64_t(s.out_channels) * p.layout.per_filter;
}

template <class Tile, class Activations, class Weights>
int launch_tile(ConvGemm g, int32_t row_tiles, void* stream) {
  g.row_tiles = row_tiles;
  g.column_tiles = (g.columns + Tile::kColumns - 1) / Tile::kColumns;
  const int64_t blocks = int64_t(row_tiles) * g.column_tiles * g.phases_vertical * g.phases_horizontal;
  if (blocks > kLargest) return kRefused;
  return launch(masked_conv_kernel<Tile, Activations, Weights>, dim3(unsigned(blocks)), dim3(kThreads),
                sizeof(ConvShared<Tile>), stream, g);
}

// The large tile where it fills the machine and none of it is idle by its size, else the small one.
template <template <int> class Activations, template <int> class Weights>
int launch_loaders(const ConvGemm& g, int processors, void* stream) {
  const auto tiles = [](int32_t n, int size) { return n / size + (n % size != 0); };
  const int32_t rows = g.batch * conv_window(g, 0).pixels();
  const int64_t blocks = int64_t(tiles(rows, LargeTile::kRows)) * tiles(g.columns, LargeTile::kColumns) *
                         g.phases_vertical * g.phases_horizontal;
  if (rows > SmallTile::kRows && g.columns > SmallTile::kColumns && blocks >= processors) {
    return launch_tile<LargeTile, Activations<LargeTile::kRows>, Weights<LargeTile::kColumns>>(
        g, tiles(rows, LargeTile::kRows), stream);
  }
  return launch_tile<SmallTile, Activations<SmallTile::kRows>, Weights<SmallTile::kColumns>>(
      g, tiles(rows, SmallTile::kRows), stream);
}

// `processors`: multiprocessors to fill.
int masked_conv(const MaskedConvParams& p, bool gradient, int processors, void* stream) {
  const ConvGemm g = conv_gemm(p, gradient);
  if (!valid(p, g)) return kRefused;
  if (int64_t(g.batch) * g.vertical.write_size * g.horizontal.write_size * g.columns == 0) return 0;

  const Layout& l = p.layout;
  const bool selected = p.rule.kind == RuleKind::kMagnitude || p.rule.kind == RuleKind::kValue ||
                        (p.rule.kind == RuleKind::kRounded && p.rule.step == nullptr);
  const bool constants = selected && (p.source.kind == Source::kConstant || p.source.kind == Source::kSigns);
  const bool ohwi = l.channels_last || l.taps == 1;
  const bool weight_vectors = constants && ohwi && l.channels % kChunk == 0 && is_aligned<16>(p.scores);
  if (g.channels % kChunk != 0 || !is_aligned<16>(p.input)) {
    return launch_loaders<ScalarActivations, AnyWeights>(g, processors, stream);
  }
  if (!weight_vectors) return launch_loaders<VectorActivations, AnyWeights>(g, processors, stream);
  return gradient ? launch_loaders<VectorActivations, GradientConstants>(g, processors, stream)
                  : launch_loaders<VectorActivations, ForwardConstants>(g, processors, stream);
}

int masked_conv(const MaskedConvParams& p, bool gradient, void* stream) {
  int processors = 0;
  const int error = multiprocessors(&processors);
  return error != 0 ? error : masked_conv(p, gradient, processors, stream);
}

}  // namespace

int masked_conv_forward(const MaskedConvParams& p, void* stream) { return masked_conv(p, false, stream); }

int masked_conv_input_gradient(const MaskedConvParams& p, void* stream) { return masked_conv(p, true, stream); }

}  // namespace cuda
}  // namespace hn
