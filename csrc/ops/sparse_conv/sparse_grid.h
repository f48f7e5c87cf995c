// sparse_grid.h: which source a tap of an output reads, and where it lies in a tile of sources.
//
// A grid is a set of outputs that share their taps: output first + step * i reads source factor * i + shift at a tap. The
// forward is one grid; the input gradient of stride s has one for each remainder of the input's position modulo s. A
// block of outputs, i0 .. i0 + length, needs a few runs of sources, which lie one behind another in the tile: a tap's
// sources for neighbouring outputs are neighbours there, whatever stride and dilation are.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "../../base/conv_shape.h"

namespace hn {
namespace cpu {

struct Axis {
  Axis(int32_t count, int32_t first, int32_t step, int32_t size, int32_t factor)
      : count(count), first(first), step(step), size(size), factor(factor) {}

  int32_t count, first, step;  // outputs of the grid along the axis
  int32_t size;                // of the source
  int32_t factor;
  std::vector<int32_t> taps, shift;  // of the kernel, those that reach a source; its shift

  int32_t length = 0;           // of a block
  std::vector<int32_t> place;   // of a tap: its entry in the tile for a block's first output
  std::vector<int64_t> source;  // of an entry: its source for the block that begins at 0

  int64_t blocks() const { return (count + length - 1) / length; }

  void add(int32_t tap, int64_t at) {
    const int64_t last = at + int64_t(factor) * (count - 1);
    if (count < 1 || last < 0 || at >= size) return;
    taps.push_back(tap);
    shift.push_back(int32_t(at));
  }

  // Lays the tile out for blocks of this length.
  void lay_out(int32_t block) {
    length = block;
    place.assign(taps.size(), 0);
    source.clear();
    const auto phase = [&](size_t t) { return (shift[t] % factor + factor) % factor; };
    std::vector<size_t> order(taps.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return phase(a) != phase(b) ? phase(a) < phase(b) : shift[a] < shift[b]; });
    int64_t end = 0;  // the source behind the run
    for (size_t i = 0; i < order.size(); ++i) {
      const size_t t = order[i];
      const bool joins = i > 0 && phase(order[i - 1]) == phase(t) && shift[t] <= end;
      if (!joins) end = shift[t];
      place[t] = int32_t(int64_t(source.size()) - (end - shift[t]) / factor);
      for (; end < shift[t] + int64_t(factor) * block; end += factor) source.push_back(end);
    }
  }
};

struct Grid {
  Axis y, x;

  int64_t taps() const { return int64_t(y.taps.size() * x.taps.size()); }
  int64_t blocks() const { return y.blocks() * x.blocks(); }
  int32_t positions() const { return int32_t(y.source.size() * x.source.size()); }
};

inline Axis forward_axis(int32_t size, int32_t outputs, int32_t kernel, int32_t stride, int32_t padding,
                         int32_t dilation) {
  Axis a(outputs, 0, 1, size, stride);
  for (int32_t t = 0; t < kernel; ++t) a.add(t, int64_t(t) * dilation - padding);
  return a;
}

inline Grid forward_grid(const ConvShape& s) {
  return {
      forward_axis(s.in_height, s.out_height, s.kernel_height, s.stride_height, s.padding_height, s.dilation_height),
      forward_axis(s.in_width, s.out_width, s.kernel_width, s.stride_width, s.padding_width, s.dilation_width)};
}

// One axis a remainder that any tap reaches.
inline std::vector<Axis> gradient_axes(int32_t size, int32_t outputs, int32_t kernel, int32_t stride, int32_t padding,
                                       int32_t dilation) {
  std::vector<Axis> axes;
  for (int32_t first = 0; first < std::min(size, stride); ++first) {
    Axis a((size - first + stride - 1) / stride, first, stride, outputs, 1);
    for (int32_t t = 0; t < kernel; ++t) {
      const int64_t at = int64_t(first) + padding - int64_t(t) * dilation;
      if (at % stride == 0) a.add(t, at / stride);
    }
    if (!a.taps.empty()) axes.push_back(a);
  }
  return axes;
}

inline std::vector<Grid> gradient_grids(const ConvShape& s) {
  std::vector<Grid> grids;
  for (const Axis& y : gradient_axes(s.in_height, s.out_height, s.kernel_height, s.stride_height, s.padding_height,
                                     s.dilation_height)) {
    for (const Axis& x :
         gradient_axes(s.in_width, s.out_width, s.kernel_width, s.stride_width, s.padding_width, s.dilation_width)) {
      grids.push_back({y, x});
    }
  }
  return grids;
}

}  // namespace cpu
}  // namespace hn
