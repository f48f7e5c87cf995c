// magnitude_sight.h: which positions of a convolution see equal patches: rows and columns of an image that repeat.
//
// SynFlow's image is all ones, so that in the first layers neighbouring patches far from an edge are equal, bit for bit,
// and multiplied once. Nothing is assumed: the image's own bits are compared.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../base/conv_shape.h"
#include "../../base/isa.h"

namespace hn {
namespace cpu {

// Lines of positions (rows, or columns) that see the same: span i is [starts[i], starts[i + 1]).
struct Spans {
  std::vector<int32_t> starts;

  int32_t count() const { return int32_t(starts.size()) - 1; }
  bool single() const { return starts.back() == count(); }  // every line sees something else
};

struct Sight {
  Spans rows, columns;
};

inline Spans every_line(int32_t n) {
  Spans spans;
  for (int32_t i = 0; i <= n; ++i) spans.starts.push_back(i);
  return spans;
}

inline Sight every_position(const ConvShape& s) { return {every_line(s.out_height), every_line(s.out_width)}; }

// differs: for each line of an image whether it is another than the one before.
inline Spans spans_of(const std::vector<uint64_t>& differs, int32_t lines, int32_t stride, int32_t padding,
                      int32_t dilation, int32_t taps) {
  const int32_t inside = int32_t(differs.size());
  std::vector<int32_t> kinds(size_t(inside), 0);
  for (int32_t i = 1; i < inside; ++i) kinds[size_t(i)] = kinds[size_t(i - 1)] + (differs[size_t(i)] != 0);
  const auto seen = [&](int32_t line, int32_t tap) {
    const int32_t at = line * stride - padding + tap * dilation;
    return at < 0 || at >= inside ? -1 : kinds[size_t(at)];
  };
  Spans spans{{0}};
  for (int32_t line = 1; line < lines; ++line) {
    bool same = true;
    for (int32_t tap = 0; same && tap < taps; ++tap) same = seen(line, tap) == seen(line - 1, tap);
    if (!same) spans.starts.push_back(line);
  }
  spans.starts.push_back(lines);
  return spans;
}

// Adds to rows[y] and columns[i] bits in which a channel's line is unlike the one before.
HN_INLINE void compare_lines_body(const uint64_t* x, int32_t height, int32_t width, uint64_t* rows, uint64_t* columns) {
  for (int32_t y = 0; y < height; ++y, x += width) {
    for (int32_t i = 1; i < width; ++i) columns[i] |= x[i] ^ x[i - 1];
    if (y == 0) continue;
    uint64_t differs = 0;
    for (int32_t i = 0; i < width; ++i) differs |= x[i] ^ x[i - width];
    rows[y] |= differs;
  }
}

HN_DISPATCH(compare_lines, compare_lines_body)

// Which positions see the same patch, bit for bit, as the one above or before.
inline Sight sight_of(const ConvShape& s, const double* x) {
  std::vector<uint64_t> rows(size_t(s.in_height), 0), columns(size_t(s.in_width), 0);
  const auto all = [](const std::vector<uint64_t>& differs) {
    return std::find(differs.begin() + 1, differs.end(), 0u) == differs.end();
  };
  for (int32_t c = 0; c < s.in_channels; ++c) {
    const double* const from = x + int64_t(c) * s.in_height * s.in_width;
    compare_lines(reinterpret_cast<const uint64_t*>(from), s.in_height, s.in_width, rows.data(), columns.data());
    if (all(rows) && all(columns)) return every_position(s);
  }
  Sight sight{spans_of(rows, s.out_height, s.stride_height, s.padding_height, s.dilation_height, s.kernel_height),
              spans_of(columns, s.out_width, s.stride_width, s.padding_width, s.dilation_width, s.kernel_width)};
  const int64_t distinct = int64_t(sight.rows.count()) * sight.columns.count();
  return 8 * distinct > 7 * int64_t(s.out_height) * s.out_width ? every_position(s) : sight;
}

}  // namespace cpu
}  // namespace hn
