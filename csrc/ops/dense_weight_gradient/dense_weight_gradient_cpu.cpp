// dense_weight_gradient_cpu.cpp: pack a block of images into panels, images fastest, and add up tiles tap by tap.
#include <algorithm>
#include <vector>

#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "dense_simd.h"
#include "dense_weight_gradient.h"

namespace hn {
namespace cpu {
namespace {

int64_t parts_of(int64_t n, int64_t part) { return (n + part - 1) / part; }

// How the sums are cut: tiles of rows (output channels) by columns (input channels), one a tap.
struct DenseCut {
  DenseCut(const ConvShape& s, const DenseLoops& loops)
      : columns(loops.columns),
        column_tiles(parts_of(s.in_channels, columns)),
        row_tiles(parts_of(s.out_channels, loops.max_rows)),
        rows(int32_t(parts_of(s.out_channels, row_tiles))),
        taps(s.kernel_height * s.kernel_width),
        positions(int64_t(s.in_height) * s.in_width),
        outputs(int64_t(s.out_height) * s.out_width) {
    const int64_t image = positions * column_tiles * columns + outputs * row_tiles * rows;
    const int64_t held = std::min<int64_t>(std::max<int64_t>(sums(), 1 << 18), 1 << 22);  // floats of a block's panels
    images = int32_t(std::clamp<int64_t>(held / std::max<int64_t>(image, 1), 1, s.batch));
  }

  int64_t tile() const { return int64_t(rows) * columns; }
  int64_t tiles() const { return column_tiles * row_tiles; }
  int64_t sums() const { return tiles() * taps * tile(); }

  int32_t columns;
  int64_t column_tiles, row_tiles;
  int32_t rows, taps;
  int64_t positions, outputs;
  int32_t images = 1;  // of a block
};

// The outputs [first, last) whose source lies in the map at a tap.
struct Reach {
  int64_t first, last, source;  // of the first one
};

Reach reach(int64_t size, int64_t outputs, int64_t stride, int64_t shift) {
  const int64_t first = shift < 0 ? parts_of(-shift, stride) : 0;
  const int64_t last = std::min(outputs, size > shift ? parts_of(size - shift, stride) : 0);
  return {first, std::max(first, last), first * stride + shift};
}

// The steps of a tap over a block of images.
std::vector<Run> runs_of(const ConvShape& s, int32_t tap, int64_t images) {
  const int64_t ky = tap / s.kernel_width, kx = tap % s.kernel_width;
  const Reach y = reach(s.in_height, s.out_height, s.stride_height, ky * s.dilation_height - s.padding_height);
  const Reach x = reach(s.in_width, s.out_width, s.stride_width, kx * s.dilation_width - s.padding_width);
  const bool whole = s.stride_width == 1;  // a row is one run
  std::vector<Run> runs;
  for (int64_t i = y.first; i < y.last; ++i) {
    const int64_t row = (y.source + (i - y.first) * s.stride_height) * s.in_width, out = i * s.out_width;
    const int64_t across = x.last - x.first;
    for (int64_t j = 0; j < (whole ? std::min<int64_t>(across, 1) : across); ++j) {
      const int64_t from = row + x.source + j * s.stride_width, to = out + x.first + j;
      runs.push_back({from * images, to * images, (whole ? across : 1) * images});
    }
  }
  return runs;
}

class DenseProduct {
 public:
  DenseProduct(const DenseWeightGradientParams& p, const DenseLoops& loops)
      : p_(p), s_(p.shape), loops_(loops), cut_(p.shape, loops) {
    const int64_t steps = cut_.images;
    x_.at_least(cut_.column_tiles * cut_.positions * steps * cut_.columns);
    dy_.at_least(cut_.row_tiles * cut_.outputs * steps * cut_.rows);
    sums_.at_least(cut_.sums());
  }

  void run() {
    for (int64_t first = 0; first < s_.batch; first += cut_.images) {
      const int32_t images = int32_t(std::min<int64_t>(cut_.images, s_.batch - first));
      pack(first, images);
      multiply(images, first == 0);
    }
    parallel_for(0, s_.out_channels, 16, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) write(o);
    });
  }

 private:
  // Panels: x as [column tile][position][image][columns], dy as [row tile][output][image][rows].
  void pack(int64_t first, int32_t images) {
    parallel_for(0, cut_.positions + cut_.outputs, 8, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; ++unit) {
        const bool input = unit < cut_.positions;
        const int64_t at = input ? unit : unit - cut_.positions, places = input ? cut_.positions : cut_.outputs;
        const int32_t channels = input ? s_.in_channels : s_.out_channels, width = input ? cut_.columns : cut_.rows;
        const int64_t image = places * channels;
        const float* const from = (input ? p_.x : p_.dy) + first * image + at * channels;
        float* const to = (input ? x_ : dy_).at_least(0) + at * images * width;
        loops_.copy({from, image, images, channels, width, to, places * images * width});
      }
    });
  }

  void multiply(int32_t images, bool fresh) {
    std::vector<std::vector<Run>> runs;
    for (int32_t t = 0; t < cut_.taps; ++t) runs.push_back(runs_of(s_, t, images));
    parallel_for(0, cut_.tiles(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const float* const x = x_.at_least(0) + tile / cut_.row_tiles * cut_.positions * images * cut_.columns;
        const float* const dy = dy_.at_least(0) + tile % cut_.row_tiles * cut_.outputs * images * cut_.rows;
        for (int32_t t = 0; t < cut_.taps; ++t) {
          const std::vector<Run>& r = runs[size_t(t)];
          float* const sums = sums_.at_least(0) + (tile * cut_.taps + t) * cut_.tile();
          loops_.tile(cut_.rows, {x, dy, r.data(), int64_t(r.size()), sums, fresh});
        }
      }
    });
  }

  void write(int64_t o) {
    float* const dw = p_.dw + o * s_.in_channels * cut_.taps;
    for (int64_t column = 0; column < cut_.column_tiles; ++column) {
      const int64_t tile = column * cut_.row_tiles + o / cut_.rows, first = column * cut_.columns;
      const int64_t n = std::min<int64_t>(cut_.columns, s_.in_channels - first);
      for (int32_t t = 0; t < cut_.taps; ++t) {
        const float* const from =
            sums_.at_least(0) + (tile * cut_.taps + t) * cut_.tile() + o % cut_.rows * cut_.columns;
        if (p_.channels_last) {
          std::copy(from, from + n, dw + int64_t(t) * s_.in_channels + first);
        } else {
          for (int64_t c = 0; c < n; ++c) dw[(first + c) * cut_.taps + t] = from[c];
        }
      }
    }
  }

  const DenseWeightGradientParams& p_;
  const ConvShape& s_;
  const DenseLoops& loops_;
  const DenseCut cut_;
  Aligned<float> x_, dy_, sums_;
};

}  // namespace

void dense_weight_gradient(const DenseWeightGradientParams& p) {
  const ConvShape& s = p.shape;
  const int64_t weights = int64_t(s.out_channels) * s.in_channels * s.kernel_height * s.kernel_width;
  if (weights == 0 || s.batch == 0) return std::fill(p.dw, p.dw + weights, 0.0f);
  DenseProduct(p, dense_loops()).run();
}

}  // namespace cpu
}  // namespace hn
