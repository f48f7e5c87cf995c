// maps.h: checks of tensors of maps, [images, channels, height, width], that may be channels of a wider buffer.
#pragma once
#include <cstdint>

#include "check.h"
#include "tensor.h"

namespace hn {

// Whether maps are contiguous and lie side by side in an image.
inline bool has_maps(const Tensor& t) {
  const int64_t h = t.size(2), w = t.size(3);
  return t.numel() == 0 ||
         ((w == 1 || t.stride(3) == 1) && (h == 1 || t.stride(2) == w) && (t.size(1) == 1 || t.stride(1) == h * w));
}

// Elements from an image to the next one.
inline int64_t image_of(const Tensor& t) { return t.size(0) > 1 ? t.stride(0) : t.size(1) * t.size(2) * t.size(3); }

inline void check_maps(const char* op, const char* name, const Tensor& t) {
  check_type(op, name, t, ScalarType::Float);
  HN_CHECK(t.dim() == 4, op, ": expected ", name, " of 4 dimensions, got ", t.dim());
  HN_CHECK(t.numel() <= kMaxElements, op, ": expected ", name, " of fewer than 2^31 elements");
  HN_CHECK(has_maps(t), op, ": expected ", name, " with contiguous maps side by side; call .contiguous() first");
  HN_CHECK(t.numel() == 0 || image_of(t) >= t.size(1) * t.size(2) * t.size(3), op, ": expected ", name,
           " whose images do not overlap");
}

// Where images lie: `own` elements each, `image` from one to the next.
struct MapRange {
  const float* data;
  int64_t images, own, image;
};

// Both are in one buffer of images, in different channels of it; or they are apart.
inline bool maps_apart(const MapRange& x, const MapRange& y) {
  if (x.images == 0 || x.own == 0 || y.own == 0) return true;
  const uintptr_t x0 = reinterpret_cast<uintptr_t>(x.data), y0 = reinterpret_cast<uintptr_t>(y.data);
  const uintptr_t x1 = x0 + uintptr_t((x.images - 1) * x.image + x.own) * sizeof(float);
  const uintptr_t y1 = y0 + uintptr_t((y.images - 1) * y.image + y.own) * sizeof(float);
  if (x1 <= y0 || y1 <= x0) return true;
  if (x.images == 1 || x.image != y.image) return false;
  const int64_t image = x.image * int64_t(sizeof(float));
  const int64_t at = ((int64_t(y0) - int64_t(x0)) % image + image) % image;  // of y in an image that begins with x
  return at >= x.own * int64_t(sizeof(float)) && at + y.own * int64_t(sizeof(float)) <= image;
}

}  // namespace hn
