// code_blocks.h: how the product is cut: which pixels are packed at once, and what a tile of sums is.
//
// One group of the convolution is a matrix product: rows are output channels, columns are (tap, input channel), and the
// depth are the output's pixels, two at a time ("pairs") along a row of the image.
#pragma once
#include <algorithm>
#include <cstdint>

#include "code_tile.h"
#include "code_weight_gradient.h"

namespace hn {
namespace cpu {

constexpr int64_t kBlockPairs = 512;  // of pixels packed at once, about: panels stay in L2, sums are fetched rarely

// A group seen as a product. Two cases are told as simpler ones:
// - a 1x1 kernel that reads every pixel: the batch is one image, of rows that have no odd pixel left over;
// - few input channels: all taps are gathered into the columns, and there is one tap.
struct CodeBlocks {
  ConvShape s;                    // batch, sizes, padding: of the product, not of the layer
  int64_t in_pixels, out_pixels;  // of an image: any past them are 0
  int32_t pixel_in, pixel_out;    // channels of a pixel in memory
  int32_t in_channels, rows;      // of a group, a tap; output channels of a group
  int32_t columns;                // of a tap
  int32_t gathered;               // taps that are columns; then taps_y = taps_x = 1
  int32_t taps_y, taps_x;         // walked
  int32_t vectors;                // of a tap's columns
  int32_t row_tiles, groups_of_vectors;
  int32_t row_pairs;  // of a row of the output
  int32_t block_images, block_rows;

  int64_t tasks() const { return int64_t(groups_of_vectors) * row_tiles * taps_y; }
  int32_t all_vectors() const { return vectors * taps_x; }
  int32_t first_vector(int32_t group) const { return int32_t(int64_t(all_vectors()) * group / groups_of_vectors); }
};

// A block of the depth: images [image, image + images) with the output's rows [row, row + rows).
struct DepthBlock {
  int32_t image, images, row, rows;
  int32_t planes,
      plane_rows;  // the input's rows: one plane for all vertical taps where they share rows, else one a tap

  int64_t pairs(const CodeBlocks& b) const { return int64_t(rows) * b.row_pairs; }
  int64_t plane_elements(const CodeBlocks& b) const { return int64_t(plane_rows) * b.row_pairs * 2 * kLanes; }
  int64_t input_elements(const CodeBlocks& b) const {
    return plane_elements(b) * images * planes * b.taps_x * b.vectors;
  }
  int64_t gradient_elements(const CodeBlocks& b) const { return pairs(b) * images * b.row_tiles * 2 * kTileRows; }
  // Where the rows of vector v, horizontal tap kx, plane `plane` begin, from image `segment` on.
  int64_t plane_at(const CodeBlocks& b, int32_t v, int32_t kx, int32_t plane, int32_t segment) const {
    return (((int64_t(v) * b.taps_x + kx) * planes + plane) * images + segment) * plane_elements(b);
  }
  int64_t tap_at(const CodeBlocks& b, int32_t v, int32_t kx, int32_t ky) const {
    const int64_t row_elements = int64_t(b.row_pairs) * 2 * kLanes;
    return planes > 1 ? plane_at(b, v, kx, ky, 0) : plane_at(b, v, kx, 0, 0) + ky * b.s.dilation_height * row_elements;
  }
};

inline void flatten_images(CodeBlocks* b) {
  const int64_t pixels = int64_t(b->s.batch) * b->s.in_height * b->s.in_width;
  const int32_t width = int32_t(std::min<int64_t>((pixels + 1) / 2 * 2, 64));
  b->s.batch = 1;
  b->s.in_width = b->s.out_width = width;
  b->s.in_height = b->s.out_height = int32_t((pixels + width - 1) / width);
  b->in_pixels = b->out_pixels = pixels;
}

inline CodeBlocks code_blocks(const CodeWeightGradientParams& p) {
  CodeBlocks b = {};
  const ConvShape& s = b.s = p.shape;
  b.pixel_in = s.in_channels;
  b.pixel_out = s.out_channels;
  b.in_channels = s.in_channels / p.groups;
  b.rows = s.out_channels / p.groups;
  b.in_pixels = int64_t(s.in_height) * s.in_width;
  b.out_pixels = int64_t(s.out_height) * s.out_width;
  const int32_t taps = s.kernel_height * s.kernel_width;
  const bool pointwise =
      taps == 1 && s.stride_height == 1 && s.stride_width == 1 && s.padding_height == 0 && s.padding_width == 0;
  if (pointwise && s.out_width % 2 != 0) flatten_images(&b);
  b.gathered = b.in_channels < kLanes && taps > 1 ? taps : 1;
  b.taps_y = b.gathered > 1 ? 1 : s.kernel_height;
  b.taps_x = b.gathered > 1 ? 1 : s.kernel_width;
  b.columns = b.in_channels * b.gathered;
  b.vectors = (b.columns + kLanes - 1) / kLanes;
  b.row_tiles = (b.rows + kTileRows - 1) / kTileRows;
  b.groups_of_vectors = (b.all_vectors() + kTileVectors - 1) / kTileVectors;
  b.row_pairs = (s.out_width + 1) / 2;
  const auto part = [](int64_t n, int64_t most) {  // of n in equal parts of about `most`
    const int64_t parts = std::max<int64_t>(1, (n + most / 2) / std::max<int64_t>(most, 1));
    return int32_t(std::max<int64_t>(1, (n + parts - 1) / parts));
  };
  const int64_t image_pairs = int64_t(b.row_pairs) * s.out_height;
  b.block_rows = image_pairs > kBlockPairs ? part(s.out_height, std::max<int64_t>(1, kBlockPairs / b.row_pairs))
                                           : std::max(1, s.out_height);
  b.block_images = b.block_rows < s.out_height ? 1 : part(s.batch, kBlockPairs / std::max<int64_t>(image_pairs, 1));
  return b;
}

// Blocks in order; `at` < depth_blocks(b).
inline int64_t depth_blocks(const CodeBlocks& b) {
  const int64_t images = (int64_t(b.s.batch) + b.block_images - 1) / b.block_images;
  return images * ((int64_t(b.s.out_height) + b.block_rows - 1) / b.block_rows);
}

inline DepthBlock depth_block(const CodeBlocks& b, int64_t at) {
  const int32_t parts = (b.s.out_height + b.block_rows - 1) / b.block_rows;
  DepthBlock d = {};
  d.image = int32_t(at / parts) * b.block_images;
  d.images = std::min(b.block_images, b.s.batch - d.image);
  d.row = int32_t(at % parts) * b.block_rows;
  d.rows = std::min(b.block_rows, b.s.out_height - d.row);
  const int64_t shared = int64_t(d.rows) + int64_t(b.s.dilation_height) * (b.taps_y - 1);
  const bool share = b.gathered == 1 && b.s.stride_height == 1 && shared <= int64_t(d.rows) * b.taps_y;
  d.planes = share ? 1 : b.taps_y;
  d.plane_rows = share ? int32_t(shared) : d.rows;
  return d;
}

}  // namespace cpu
}  // namespace hn
