// tile_conv_cpu.cpp: the forward and the input gradient: a product of one map and the weight.
#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "tile_conv.h"
#include "tile_maps.h"

namespace hn {
namespace cpu {
namespace {

// B tiles of the weight: [blocks of 32 columns][2][taps][blocks of 32 of k]. Forward: columns are output channels.
void pack_weight(const TileConvParams& p, bool forward, uint16_t* out) {
  const ConvShape& s = p.shape;
  const int32_t taps = s.kernel_height * s.kernel_width, columns = forward ? s.out_channels : s.in_channels;
  const int64_t depth = blocks(forward ? s.in_channels : s.out_channels, 32), half = taps * depth;
  const Maps filters{p.weight, s.out_channels, taps, s.in_channels};
  const int64_t units = blocks(columns, 32) * half;
  parallel_for(0, units, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t block = u / half, tap = u % half / depth, k = u % depth;
      uint16_t* const to = out + (block * 2 * half + tap * depth + k) * kTileElements;
      if (forward) {
        pack_columns(filters.rows(block * 32, tap, k * 32), to);
        pack_columns(filters.rows(block * 32 + 16, tap, k * 32), to + half * kTileElements);
      } else {
        pack_pairs(filters.rows(k * 32, tap, block * 32), to, to + half * kTileElements);
      }
    }
  });
}

// out[image][position][column] = the sum over the position's links of from[image][link] weight[tap][][column].
class MapProduct {
 public:
  MapProduct(const TileConvParams& p, bool forward)
      : out_(p.out),
        height_(forward ? p.shape.out_height : p.shape.in_height),
        width_(forward ? p.shape.out_width : p.shape.in_width),
        columns_(forward ? p.shape.out_channels : p.shape.in_channels),
        from_width_(forward ? p.shape.in_width : p.shape.out_width),
        from_(maps_of(p, forward)),
        taps_(int64_t(p.shape.kernel_height) * p.shape.kernel_width),
        depth_(from_.channel_blocks()),
        strips_(blocks(columns_, 32)),
        links_(make_links(p.shape, forward)),
        needs_(links_, height_, width_, from_width_),
        step_(needs_.step(from_width_ * depth_ * 2 * kTileElements * 2)),
        ring_(needs_.span(step_)) {
    static thread_local Aligned<uint16_t> room;  // of the calling thread
    weight_ = room.at_least(strips_ * 2 * taps_ * depth_ * kTileElements);
    pack_weight(p, forward, weight_);
    product_ = {kTileElements, kTileElements, int64_t(ring_) * from_width_ * depth_ * kTileElements,
                taps_ * depth_ * kTileElements};
  }

  void run() const {
    const int64_t groups = from_.image_blocks(), bands = std::min<int64_t>(blocks(8, groups), blocks(height_, step_));
    parallel_for(0, groups * bands, 1, [&](int64_t begin, int64_t end) {
      const TileRegisters registers(matrix_tiles());
      static thread_local Aligned<uint16_t> room;
      uint16_t* const images = room.at_least(2 * product_.a_second);
      for (int64_t u = begin; u < end; ++u) {
        const int64_t band = u % bands;
        run_band(u / bands * 32, int32_t(height_ * band / bands), int32_t(height_ * (band + 1) / bands), images);
      }
    });
  }

 private:
  static Maps maps_of(const TileConvParams& p, bool forward) {
    const ConvShape& s = p.shape;
    return forward ? Maps{p.x, s.batch, s.in_height * s.in_width, s.in_channels}
                   : Maps{p.dy, s.batch, s.out_height * s.out_width, s.out_channels};
  }

  // Rows [top, bottom) of 32 images, `step_` at a time; what they need is packed as it comes by.
  void run_band(int64_t image, int32_t top, int32_t bottom, uint16_t* images) const {
    int32_t packed = 0;  // rows before this one are there, as far as they are still needed
    for (int32_t y = top; y < bottom; y += step_) {
      const int32_t n = std::min(step_, bottom - y), last = needs_.last_of(y, n);
      if (last >= 0) packed = std::max(packed, needs_.first_of(y, n));
      for (; packed <= last; ++packed) pack_row(image, packed, images);
      for (int64_t strip = 0; strip < strips_; ++strip) multiply_rows(image, y, n, strip, images);
    }
  }

  // A tiles of 16 images: [2][ring][width][depth].
  void pack_row(int64_t image, int32_t row, uint16_t* images) const {
    for (int32_t half = 0; half < 2; ++half) {
      uint16_t* to = images + half * product_.a_second + int64_t(row % ring_) * from_width_ * depth_ * kTileElements;
      for (int32_t x = 0; x < from_width_; ++x) {
        for (int64_t c = 0; c < depth_; ++c, to += kTileElements) {
          pack_rows(from_.rows(image + half * 16, int64_t(row) * from_width_ + x, c * 32), to);
        }
      }
    }
  }

  void multiply_rows(int64_t image, int32_t y, int32_t n, int64_t strip, const uint16_t* images) const {
    alignas(64) float sums[kSumElements];
    static thread_local std::vector<TileRun> runs;
    runs.resize(size_t(taps_));
    const uint16_t* const b = weight_ + strip * 2 * taps_ * depth_ * kTileElements;
    const int32_t rows = int32_t(std::min<int64_t>(32, from_.images - image));
    const int32_t width = int32_t(std::min<int64_t>(32, columns_ - strip * 32));
    const int64_t positions = int64_t(height_) * width_;
    for (int64_t q = int64_t(y) * width_; q < int64_t(y + n) * width_; ++q) {
      int32_t count = 0;
      for (int64_t i = links_.starts[size_t(q)]; i < links_.starts[size_t(q) + 1]; ++i, ++count) {
        const Link& link = links_.links[size_t(i)];
        const int64_t at = int64_t(link.from / from_width_ % ring_) * from_width_ + link.from % from_width_;
        runs[size_t(count)] = {images + at * depth_ * kTileElements, b + link.tap * depth_ * kTileElements,
                               int32_t(depth_)};
      }
      multiply(runs.data(), count, product_, false, sums);
      uint16_t* to = out_ + (image * positions + q) * columns_ + strip * 32;
      for (int32_t i = 0; i < rows; ++i, to += positions * columns_) {
        const float* const row = sums + i / 16 * 512 + i % 16 * 16;
        store_sums(row, row + 256, width, to);
      }
    }
  }

  uint16_t* out_;
  int32_t height_, width_, columns_, from_width_;
  Maps from_;
  int64_t taps_, depth_, strips_;
  Links links_;
  RowNeeds needs_;
  int32_t step_, ring_;
  uint16_t* weight_;
  TileProduct product_;
};

}  // namespace

void tile_conv_forward(const TileConvParams& p) { MapProduct(p, true).run(); }
void tile_conv_input_gradient(const TileConvParams& p) { MapProduct(p, false).run(); }

int tile_instructions() { return matrix_tiles() ? 2 : (bfloat16_products() ? 1 : 0); }

}  // namespace cpu
}  // namespace hn
