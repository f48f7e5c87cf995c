// How values lie in memory (conv_plan.h), seen by loops: as [outer][channels][inner], and as planes of pixels of vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../base/dtype.h"
#include "conv_plan.h"

namespace hiddennet::runtime {

constexpr int64_t kLanesOfImages = 16;  // of Layout::lanes_f32
constexpr size_t kSlack = 64;           // bytes behind a buffer that may be read

constexpr Layout kLayouts[] = {Layout::nhwc_f32, Layout::nhwc_bf16, Layout::nchw_f32, Layout::lanes_f32,
                               Layout::parts_f32};

inline size_t element_bytes(Layout layout) { return layout == Layout::nhwc_bf16 ? 2 : 4; }

const char* layout_name(Layout layout);

// [outer][channels][inner]
struct Spread {
  int64_t outer, channels, inner;
};

// [planes][height][width][vector]
struct Planes {
  int64_t planes, height, width, vector;
};

inline Spread spread_of(Layout layout, int64_t batch, int64_t channels, int64_t height, int64_t width) {
  switch (layout) {
    case Layout::nchw_f32:
    case Layout::parts_f32: return {batch, channels, height * width};
    case Layout::lanes_f32: return {batch / kLanesOfImages, channels, height * width * kLanesOfImages};
    default: return {batch * height * width, channels, 1};
  }
}

inline Planes planes_of(Layout layout, int64_t batch, int64_t channels, int64_t height, int64_t width) {
  switch (layout) {
    case Layout::nchw_f32: return {batch * channels, height, width, 1};
    case Layout::lanes_f32: return {batch / kLanesOfImages * channels, height, width, kLanesOfImages};
    default: return {batch, height, width, channels};
  }
}

// bfloat16 as a number that loops read and write.
struct Half {
  uint16_t bits;
  Half() = default;
  Half(float x) : bits(hn::bfloat16_bits(x)) {}
  operator float() const { return hn::from_bfloat16(bits); }
};

// f(T{}) with T the layout's element.
template <class F>
void with_element(Layout layout, const F& f) {
  if (layout == Layout::nhwc_bf16) return f(Half{});
  f(float{});
}

// A value of another layout; in pieces, of which any may run at once. parts_f32: of a map that the PartGrid divides.
class Conversion {
 public:
  Conversion(Layout from, Layout to, int64_t batch, int64_t channels, int64_t height, int64_t width);

  int64_t tasks() const;
  void run(const void* x, void* y, int64_t task) const;

 private:
  Layout from_, to_;
  int64_t batch_, channels_, pixels_;
  std::vector<int32_t> pixel_;  // of what stands at a place of parts_f32
};

}  // namespace hiddennet::runtime
