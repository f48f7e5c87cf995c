// tile_positions.h: which positions of a map meet at which taps of a kernel.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../base/conv_shape.h"

namespace hn {
namespace cpu {

struct Link {
  int32_t from, tap;
};

// For each position of one map, the positions of the other and the taps that they meet at.
struct Links {
  std::vector<int64_t> starts;  // [positions + 1]
  std::vector<Link> links;
};

// The first and the last output along one side that see the input through this tap; empty where first > last.
inline void outputs_of_tap(int32_t in, int32_t out, int32_t stride, int32_t padding, int32_t offset, int32_t* first,
                           int32_t* last) {
  const int32_t low = padding - offset;  // stride * o >= low
  *first = low <= 0 ? 0 : (low + stride - 1) / stride;
  const int32_t high = in - 1 + padding - offset;  // stride * o <= high
  *last = high < 0 ? -1 : std::min(out - 1, high / stride);
}

// f(tap, output position, input position, length of the run of outputs in this row)
template <class F>
inline void for_each_row(const ConvShape& s, const F& f) {
  for (int32_t ky = 0; ky < s.kernel_height; ++ky) {
    const int32_t down = ky * s.dilation_height;
    int32_t top, bottom;
    outputs_of_tap(s.in_height, s.out_height, s.stride_height, s.padding_height, down, &top, &bottom);
    for (int32_t kx = 0; kx < s.kernel_width; ++kx) {
      const int32_t right = kx * s.dilation_width;
      int32_t first, last;
      outputs_of_tap(s.in_width, s.out_width, s.stride_width, s.padding_width, right, &first, &last);
      if (first > last) continue;
      for (int32_t y = top; y <= bottom; ++y) {
        const int32_t row = y * s.stride_height - s.padding_height + down;
        const int32_t column = first * s.stride_width - s.padding_width + right;
        f(ky * s.kernel_width + kx, y * s.out_width + first, row * s.in_width + column, last - first + 1);
      }
    }
  }
}

// of_outputs: from outputs to the inputs they see; else from inputs to the outputs that see them.
inline Links make_links(const ConvShape& s, bool of_outputs) {
  const int32_t positions = of_outputs ? s.out_height * s.out_width : s.in_height * s.in_width;
  Links found;
  found.starts.assign(size_t(positions) + 1, 0);
  const auto each = [&](const auto& f) {
    for_each_row(s, [&](int32_t tap, int32_t out, int32_t in, int32_t length) {
      for (int32_t i = 0; i < length; ++i) {
        const int32_t o = out + i, q = in + i * s.stride_width;
        f(of_outputs ? o : q, Link{of_outputs ? q : o, tap});
      }
    });
  };
  each([&](int32_t at, const Link&) { ++found.starts[size_t(at) + 1]; });
  for (int32_t p = 0; p < positions; ++p) found.starts[size_t(p) + 1] += found.starts[size_t(p)];
  found.links.resize(size_t(found.starts.back()));
  std::vector<int64_t> next(found.starts.begin(), found.starts.end() - 1);
  each([&](int32_t at, const Link& link) { found.links[size_t(next[size_t(at)]++)] = link; });
  return found;
}

}  // namespace cpu
}  // namespace hn
