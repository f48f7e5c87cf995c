// conv_gemm.cuh: a convolution seen as a matrix product: what its rows, columns and depth are, and
// how one walks them.
//
//   rows     pixels of the map that is written, image by image, within one phase (conv_axis.cuh)
//   columns  channels of the map that is written
//   depth    taps of the phase x channels of the map that is read, channels fastest
//
// Forward reads x and writes y; the input gradient reads dy and writes dx. Both are NHWC.
#pragma once
#include <cstdint>

#include "conv_axis.cuh"
#include "masked_conv.h"

namespace hn {
namespace cuda {

constexpr int kThreads = 128;   // a block: 4 warps
constexpr int kTileDepth = 32;  // elements of the depth in shared memory at once
constexpr int kChunk = 8;       // elements in 16 bytes

struct ConvGemm {
  MaskedConvParams p;
  ConvAxis vertical, horizontal;
  int32_t batch, channels, columns;  // channels of the map that is read, of the one that is written
  int32_t phases_vertical, phases_horizontal;
  int32_t row_tiles, column_tiles;  // row tiles of the largest phase
  bool gradient;
};

HN_HD ConvGemm conv_gemm(const MaskedConvParams& p, bool gradient) {
  const ConvShape& s = p.shape;
  ConvGemm g = {};
  g.p = p;
  g.gradient = gradient;
  g.batch = s.batch;
  g.channels = gradient ? s.out_channels : s.in_channels;
  g.columns = gradient ? s.in_channels : s.out_channels;
  g.vertical = {s.kernel_height, s.stride_height, s.padding_height, s.dilation_height, s.in_height, s.out_height};
  g.horizontal = {s.kernel_width, s.stride_width, s.padding_width, s.dilation_width, s.in_width, s.out_width};
  if (gradient) {
    g.vertical.read_size = s.out_height;
    g.vertical.write_size = s.in_height;
    g.horizontal.read_size = s.out_width;
    g.horizontal.write_size = s.in_width;
  }
  g.phases_vertical = gradient ? gradient_phases(g.vertical) : 1;
  g.phases_horizontal = gradient ? gradient_phases(g.horizontal) : 1;
  return g;
}

// A phase's two axes.
struct Window {
  AxisPhase y, x;

  HN_HD int32_t pixels() const { return y.count * x.count; }  // of one image
  HN_HD int32_t taps() const { return y.taps * x.taps; }
};

HN_HD Window conv_window(const ConvGemm& g, int32_t phase) {
  if (!g.gradient) return {forward_phase(g.vertical), forward_phase(g.horizontal)};
  return {gradient_phase(g.vertical, phase / g.phases_horizontal),
          gradient_phase(g.horizontal, phase % g.phases_horizontal)};
}

// A place in the depth: tap (y, x) of the window and a channel of the map that is read. Past the
// end, tap_y >= y.taps.
struct DepthCursor {
  int32_t tap_y, tap_x, channel;

  HN_HD bool inside(const Window& w) const { return tap_y < w.y.taps; }

  // A few elements at a time: crossing no tap costs one comparison.
  HN_HD void advance(const ConvGemm& g, const Window& w, int32_t elements) {
    channel += elements;
    while (channel >= g.channels) {
      channel -= g.channels;
      if (++tap_x == w.x.taps) {
        tap_x = 0;
        ++tap_y;
      }
    }
  }

  // Index of the tap among the kernel's positions.
  HN_HD int32_t kernel_position(const ConvGemm& g, const Window& w) const {
    return (w.y.kernel_first + tap_y * w.y.kernel_step) * g.horizontal.kernel + w.x.kernel_first +
           tap_x * w.x.kernel_step;
  }
};

HN_HD DepthCursor depth_cursor(const ConvGemm& g, const Window& w, int32_t element) {
  DepthCursor c = {0, 0, 0};
  c.advance(g, w, element);
  return c;
}

// Where element (row, column) of a tile with kWidth columns lies in shared memory. Rows are
// unpadded; the 16-byte chunks of a row are permuted so that eight rows at one chunk, as ldmatrix
// reads them, fill the 32 banks exactly once, and so does any aligned run of eight chunks in memory
// order, as they are written.
template <int kWidth>
HN_HD int tile_offset(int row, int column) {
  constexpr int kRowChunks = kWidth / kChunk;
  static_assert(kRowChunks == 4 || kRowChunks == 8, "a row is 64 or 128 bytes");
  const int chunk = (column / kChunk) ^ (row * kRowChunks / 8 % kRowChunks);
  return row * kWidth + chunk * kChunk + column % kChunk;
}

}  // namespace cuda
}  // namespace hn
