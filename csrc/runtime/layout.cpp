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

}  // namespace
}  // namespace hiddennet::runtime

#define HN_LOOPS "../runtime/layout_loops.h"
#include "../base/each_lanes.h"

namespace hiddennet::runtime {
namespace {

// Where element (image, channel, pixel) lies: base + image * a + channel * b + pixel * c, images counted from the first
// of a task.
struct Strides {
  int64_t image, channel, pixel;
};

Strides strides_of(Layout layout, int64_t channels, int64_t pixels) {
  switch (layout) {
    case Layout::nchw_f32: return {channels * pixels, pixels, 1};
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

}  // namespace

const char* layout_name(Layout layout) {
  constexpr const char* kNames[] = {"nhwc", "nhwc bf16", "nchw", "lanes"};
  return kNames[size_t(layout)];
}

int64_t Conversion::tasks() const {
  return from_ == Layout::lanes_f32 || to_ == Layout::lanes_f32 ? batch_ / kLanesOfImages : batch_;
}

void Conversion::run(const void* from, void* to, int64_t task) const {
  const int64_t images = batch_ / tasks(), size = channels_ * pixels_, start = task * images * size;
  const Strides a = strides_of(from_, channels_, pixels_), b = strides_of(to_, channels_, pixels_);
  with_element(from_, [&](auto in) {
    with_element(to_, [&](auto out) {
      const auto* x = static_cast<const decltype(in)*>(from) + start;
      auto* y = static_cast<decltype(out)*>(to) + start;
      if (a.image == b.image && a.channel == b.channel && a.pixel == b.pixel) {
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
