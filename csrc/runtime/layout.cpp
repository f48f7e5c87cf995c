#include "layout.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../base/float_lanes.h"

namespace hiddennet::runtime {
namespace {

// y[j][i] = x[i][j]: neighbours along j in x, along i in y.
struct TurnArgs {
  const float* x;
  int64_t x_row;
  float* y;
  int64_t y_row;
  int64_t rows, columns;  // of x
};
using TurnRows = void (*)(const TurnArgs&);

// Images between their lanes and the parts of their maps, channel by channel.
struct PartsArgs {
  float* parts;   // [16] images
  int64_t image;  // floats from an image to the next one
  float* images;  // [channels][pixels][16]
  int64_t channels, pixels;
  const int32_t* pixel;  // [pixels]: of a place of the parts
  bool to_images;
};
using TurnParts = void (*)(const PartsArgs&);

}  // namespace
}  // namespace hiddennet::runtime

#define HN_LOOPS "../runtime/layout_loops.h"
#include "../base/each_lanes.h"

namespace hiddennet::runtime {
namespace {

std::vector<int32_t> pixels_of_parts(int64_t height, int64_t width) {
  const PartGrid grid = part_grid();
  const int64_t rows = height / grid.rows, columns = width / grid.columns;
  std::vector<int32_t> found;
  found.reserve(size_t(height * width));
  for (int64_t y = 0; y < rows; ++y) {
    for (int64_t x = 0; x < columns; ++x) {
      for (int64_t r = 0; r < grid.rows; ++r) {
        for (int64_t c = 0; c < grid.columns; ++c) {
          found.push_back(int32_t((r * rows + y) * width + c * columns + x));
        }
      }
    }
  }
  return found;
}

// Where element (image, channel, pixel) lies: base + image * a + channel * b + pixel * c, images counted from the first
// of a task.
struct Strides {
  int64_t image, channel, pixel;
};

Strides strides_of(Layout layout, int64_t channels, int64_t pixels) {
  switch (layout) {
    case Layout::nchw_f32:
    case Layout::parts_f32: return {channels * pixels, pixels, 1};
    case Layout::lanes_f32: return {1, pixels * kLanesOfImages, kLanesOfImages};
    default: return {channels * pixels, 1, channels};
  }
}

constexpr int64_t kTile = 16;

// y[i][j] = x[i][j] by their strides, in tiles, so that both sides' lines are used whole.
template <class From, class To>
void turn(const From* x, int64_t xi, int64_t xj, To* y, int64_t yi, int64_t yj, int64_t rows, int64_t columns) {
  if constexpr (std::is_same_v<From, float> && std::is_same_v<To, float>) {
    if (xj == 1 && yi == 1) return HN_LOOPS_IN_USE(kTurnRows)({x, xi, y, yj, rows, columns});
    if (xi == 1 && yj == 1) return HN_LOOPS_IN_USE(kTurnRows)({x, xj, y, yi, columns, rows});
  }
  for (int64_t i0 = 0; i0 < rows; i0 += kTile) {
    const int64_t i1 = std::min(rows, i0 + kTile);
    for (int64_t j0 = 0; j0 < columns; j0 += kTile) {
      const int64_t j1 = std::min(columns, j0 + kTile);
      for (int64_t i = i0; i < i1; ++i) {
        for (int64_t j = j0; j < j1; ++j) y[i * yi + j * yj] = To(float(x[i * xi + j * xj]));
      }
    }
  }
}

// Of two layouts one is of parts: x's or y's.
template <class From, class To>
void place_parts(const From* x, const Strides& a, bool of_x, To* y, const Strides& b, int64_t images, int64_t channels,
                 const std::vector<int32_t>& pixel) {
  for (int64_t i = 0; i < images * channels; ++i) {
    const From* const from = x + i / channels * a.image + i % channels * a.channel;
    To* const to = y + i / channels * b.image + i % channels * b.channel;
    for (size_t place = 0; place < pixel.size(); ++place) {
      const int64_t at = int64_t(place), p = pixel[place];
      to[(of_x ? p : at) * b.pixel] = To(float(from[(of_x ? at : p) * a.pixel]));
    }
  }
}

}  // namespace

const char* layout_name(Layout layout) {
  constexpr const char* kNames[] = {"nhwc", "nhwc bf16", "nchw", "lanes", "parts"};
  return kNames[size_t(layout)];
}

Conversion::Conversion(Layout from, Layout to, int64_t batch, int64_t channels, int64_t height, int64_t width)
    : from_(from), to_(to), batch_(batch), channels_(channels), pixels_(height * width) {
  if (from == Layout::parts_f32 || to == Layout::parts_f32) pixel_ = pixels_of_parts(height, width);
}

int64_t Conversion::tasks() const {
  return from_ == Layout::lanes_f32 || to_ == Layout::lanes_f32 ? batch_ / kLanesOfImages : batch_;
}

void Conversion::run(const void* from, void* to, int64_t task) const {
  const int64_t images = batch_ / tasks(), size = channels_ * pixels_, start = task * images * size;
  const Strides a = strides_of(from_, channels_, pixels_), b = strides_of(to_, channels_, pixels_);
  if (!pixel_.empty() && (from_ == Layout::lanes_f32 || to_ == Layout::lanes_f32)) {
    const bool to_images = to_ == Layout::lanes_f32;
    auto* x = const_cast<float*>(static_cast<const float*>(from)) + start;  // only read
    auto* y = static_cast<float*>(to) + start;
    return HN_LOOPS_IN_USE(kTurnParts)(
        {to_images ? x : y, size, to_images ? y : x, channels_, pixels_, pixel_.data(), to_images});
  }
  with_element(from_, [&](auto in) {
    with_element(to_, [&](auto out) {
      const auto* x = static_cast<const decltype(in)*>(from) + start;
      auto* y = static_cast<decltype(out)*>(to) + start;
      if (!pixel_.empty()) {
        place_parts(x, a, from_ == Layout::parts_f32, y, b, images, channels_, pixel_);
      } else if (a.image == b.image && a.channel == b.channel && a.pixel == b.pixel) {
        for (int64_t i = 0; i < images * size; ++i) y[i] = decltype(out)(float(x[i]));
      } else if (images == 1) {
        turn(x, a.channel, a.pixel, y, b.channel, b.pixel, channels_, pixels_);
      } else {
        for (int64_t c = 0; c < channels_; ++c) {
          turn(x + c * a.channel, a.image, a.pixel, y + c * b.channel, b.image, b.pixel, images, pixels_);
        }
      }
    });
  });
}

}  // namespace hiddennet::runtime
