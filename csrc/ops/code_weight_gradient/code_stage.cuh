// code_stage.cuh: how codes come to shared memory: kStepPixels pixels of the depth at a time, kCodeStages steps at once,
// pixel by pixel as they lie, by asynchronous copies.
//
// Rows of the product are output channels of a group, columns are (tap, input channel), the depth are the output's
// pixels. What is outside the image, the group or the depth is 0.
#pragma once
#include <cstdint>
#include <type_traits>

#include "../../base/launch.cuh"
#include "../../base/memory.cuh"
#include "code_weight_gradient.h"

namespace hn {
namespace cuda {

constexpr int kCodeThreads = 128;  // four warps, two by two
constexpr int kCodeSide = 64;      // rows and columns of a block
constexpr int kStepPixels = 64;    // of the depth in a stage
constexpr int kCodeStages = 3;     // one being multiplied, the others on their way

struct CodeGemm {
  CodeWeightGradientParams p;
  int32_t rows, columns, channels;  // of a group: O / groups, taps * C / groups, C / groups
  int32_t row_tiles, column_tiles;
  int32_t chunks, chunk_pixels;         // the depth in equal parts, each of one block
  int32_t pixels;                       // of the whole depth
  int32_t input_bytes, gradient_bytes;  // copied at once: 16 or 4; 0: codes are read one by one
  int32_t input_parts, gradient_parts;  // bytes of a code
  int32_t step_x, step_y, step_images;  // kStepPixels pixels as x, y and images
};

// How codes are split into bytes: kParts parts, unsigned but for the last, which is signed where kSigned.
template <class T, int kNumParts, bool kIsSigned>
struct Codes {
  using Type = T;
  using Stored = std::conditional_t<kNumParts == 1, uint8_t, uint16_t>;  // in shared memory
  static constexpr int kParts = kNumParts;
  static constexpr bool kSigned = kIsSigned;
  // A pixel's codes in shared memory; eight pixels are in different banks.
  static constexpr int kPixelBytes = kCodeSide * kParts + 16;
};

// Where one pixel of a step reads: first pixel of its image in the input, coordinates of tap 0.
struct alignas(16) CodePixel {
  int32_t image, y, x, unused;
};
constexpr int32_t kNowhere = -(1 << 30);  // so far off that no tap brings it inside

template <class X, class G>
struct CodeShared {
  alignas(16) uint8_t gradient[kCodeStages][kStepPixels * G::kPixelBytes];
  alignas(16) uint8_t input[kCodeStages][kStepPixels * X::kPixelBytes];
  CodePixel pixel[kCodeStages][kStepPixels];
};

// One place of every step, from step to step.
class PixelWalk {
 public:
  __device__ __forceinline__ PixelWalk(const CodeGemm& g, int32_t pixel) : pixel_(pixel) {
    const ConvShape& s = g.p.shape;
    const int32_t row = pixel / s.out_width;
    x_ = pixel - row * s.out_width;
    image_ = row / s.out_height;
    y_ = row - image_ * s.out_height;
  }

  // This step's pixel, of a depth up to `end`; the next call has the next step's.
  __device__ __forceinline__ CodePixel next(const CodeGemm& g, int32_t end) {
    const ConvShape& s = g.p.shape;
    CodePixel at = {0, kNowhere, 0, 0};
    if (pixel_ < end) {
      at = {image_ * s.in_height * s.in_width, y_ * s.stride_height - s.padding_height,
            x_ * s.stride_width - s.padding_width, 0};
    }
    pixel_ += kStepPixels;
    x_ += g.step_x;
    const bool next_row = x_ >= s.out_width;
    x_ -= next_row ? s.out_width : 0;
    y_ += g.step_y + int32_t(next_row);
    const bool next_image = y_ >= s.out_height;
    y_ -= next_image ? s.out_height : 0;
    image_ += g.step_images + int32_t(next_image);
    return at;
  }

 private:
  int32_t pixel_, x_, y_, image_;
};

// Fills a thread's share of a stage: from(pixel) -> where its codes of a pixel are, null for zeros. Neighbouring threads
// have neighbouring codes of a pixel. `any`: an address that may be read.
template <class C, int kBytes, class From>
__device__ __forceinline__ void copy_codes(uint8_t* stage, const void* any, const From& from) {
  constexpr int kCopies = kCodeSide * C::kParts / kBytes;  // of a pixel
  static_assert(kCodeThreads % kCopies == 0, "a thread stays in its codes");
  uint8_t* const to = stage + int(threadIdx.x) % kCopies * kBytes;
#pragma unroll 2
  for (int pixel = int(threadIdx.x) / kCopies; pixel < kStepPixels; pixel += kCodeThreads / kCopies) {
    const void* const codes = from(pixel);
    cp_async<kBytes>(to + pixel * C::kPixelBytes, codes != nullptr ? codes : any, codes != nullptr);
  }
}

template <class C, class From>
__device__ __forceinline__ void load_codes(int32_t bytes, uint8_t* stage, const void* any, const From& from) {
  if constexpr (sizeof(typename C::Type) == C::kParts) {
    if (bytes == 16) return copy_codes<C, 16>(stage, any, from);
    if (bytes == 4) return copy_codes<C, 4>(stage, any, from);
  }
  using Stored = typename C::Stored;
  static_assert(kCodeThreads % kCodeSide == 0, "a thread stays in its codes");
  Stored* const to = reinterpret_cast<Stored*>(stage) + int(threadIdx.x) % kCodeSide;
#pragma unroll 2
  for (int pixel = int(threadIdx.x) / kCodeSide; pixel < kStepPixels; pixel += kCodeThreads / kCodeSide) {
    const typename C::Type* const code = from(pixel);
    to[pixel * (C::kPixelBytes / int(sizeof(Stored)))] = code != nullptr ? Stored(__ldg(code)) : Stored(0);
  }
}

// The first of a thread's rows or columns in a block.
template <class C>
__device__ __forceinline__ int first_code(int32_t bytes) {
  const int at_once = bytes > 0 ? bytes / C::kParts : 1;
  return int(threadIdx.x) % (kCodeSide / at_once) * at_once;
}

// A thread's part of the gradient's stages: neighbouring rows.
template <class G>
class GradientLoader {
 public:
  __device__ __forceinline__ GradientLoader(const CodeGemm& g, int32_t group, int32_t first_row) {
    const int32_t row = first_row + first_code<G>(g.gradient_bytes);
    channel_ = row < g.rows ? group * g.rows + row : -1;
  }

  __device__ __forceinline__ void load(const CodeGemm& g, int32_t first, int32_t end, uint8_t* stage) const {
    const auto* const codes = static_cast<const typename G::Type*>(g.p.gradient);
    load_codes<G>(g.gradient_bytes, stage, codes, [&](int pixel) {
      const bool inside = channel_ >= 0 && first + pixel < end;
      return inside ? codes + int64_t(first + pixel) * g.p.shape.out_channels + channel_ : nullptr;
    });
  }

 private:
  int32_t channel_;  // negative past the last row
};

// A thread's part of the input's stages: neighbouring channels of one tap.
template <class X>
class InputLoader {
 public:
  __device__ __forceinline__ InputLoader(const CodeGemm& g, int32_t group, int32_t first_column) {
    const int32_t column = first_column + first_code<X>(g.input_bytes);
    const ConvShape& s = g.p.shape;
    const int32_t tap = column / g.channels;
    y_ = column < g.columns ? tap / s.kernel_width * s.dilation_height : kNowhere;
    x_ = tap % s.kernel_width * s.dilation_width;
    channel_ = group * g.channels + column - tap * g.channels;
  }

  __device__ __forceinline__ void load(const CodeGemm& g, const CodePixel* pixels, uint8_t* stage) const {
    const auto* const codes = static_cast<const typename X::Type*>(g.p.input);
    const ConvShape& s = g.p.shape;
    load_codes<X>(g.input_bytes, stage, codes, [&](int pixel) {
      const CodePixel at = pixels[pixel];
      const int32_t y = at.y + y_, x = at.x + x_;
      const bool inside = uint32_t(y) < uint32_t(s.in_height) && uint32_t(x) < uint32_t(s.in_width);
      return inside ? codes + (int64_t(at.image) + int64_t(y) * s.in_width + x) * s.in_channels + channel_ : nullptr;
    });
  }

 private:
  int32_t y_, x_, channel_;  // of the tap, in pixels of the input; kNowhere past the last column
};

}  // namespace cuda
}  // namespace hn
