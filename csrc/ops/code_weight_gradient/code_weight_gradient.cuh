// code_weight_gradient.cuh: the exact weight gradient on tensor cores: an implicit matrix product of bytes.
//
// Rows are output channels of a group, columns are (tap, input channel), the depth are the output's pixels. Codes of more
// than 8 bits are split: low bytes (unsigned) and what is above them; a product of split codes is two or four products of
// bytes, each with 32-bit sums of its own. A block sums at most kMostPixels pixels, which an int32 holds whatever the
// codes are, and adds the exact result to the 64-bit sums: integer additions, so that their order changes nothing.
#pragma once
#include <cstdint>

#include "../../base/launch.cuh"
#include "../../base/memory.cuh"
#include "../../base/mma.cuh"
#include "code_weight_gradient.h"

namespace hn {
namespace cuda {

constexpr int kCodeThreads = 128;                 // four warps, one above the other
constexpr int kCodeRows = 64, kCodeColumns = 32;  // of a block
constexpr int kStepPixels = 64;                   // of the depth in shared memory at once
constexpr int kStepWords = kStepPixels / 4;       // of a row or column
constexpr int kRowWords = kStepWords + 1;         // in shared memory: odd, so that rows start in different banks
constexpr int64_t kMostPixels = 32768;            // 32768 * 255 * 255 < 2^31
constexpr int kColumnTiles = kCodeColumns / 8;
static_assert(kMostPixels * 255 * 255 < (int64_t(1) << 31), "an int32 holds a block's sums");
static_assert(kMostPixels % kStepPixels == 0 && kStepPixels % 32 == 0, "steps are whole");

struct CodeGemm {
  CodeWeightGradientParams p;
  int32_t rows, columns, channels;  // of a group: O / groups, taps * C / groups, C / groups
  int32_t row_tiles, column_tiles;
  int32_t chunks, chunk_pixels;  // the depth in equal parts, each of one block
  int32_t pixels;                // of the whole depth
};

// Of one pixel of a step: where it reads. `image` is negative past the last pixel.
struct CodePixel {
  int32_t image, y, x;  // first pixel of the image in the input, coordinates of tap 0
};

// How codes are split into bytes: kParts parts, unsigned but for the last, which is signed where kSigned.
template <class T, int kNumParts, bool kIsSigned>
struct Codes {
  using Type = T;
  static constexpr int kParts = kNumParts;
  static constexpr bool kSigned = kIsSigned;
};

// One byte of the codes of four neighbouring pixels, one channel of kChannels.
template <class T, int kChannels>
__device__ __forceinline__ uint32_t code_word(const Vec<T, kChannels> (&code)[4], int channel, int part) {
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) word |= (uint32_t(int32_t(code[i][channel])) >> (8 * part) & 255u) << (8 * i);
  return word;
}

template <class X, class G>
struct CodeShared {
  uint32_t gradient[G::kParts][kCodeRows * kRowWords];
  uint32_t input[X::kParts][kCodeColumns * kRowWords];
  CodePixel pixel[kStepPixels];
};

__device__ __forceinline__ CodePixel code_pixel(const CodeGemm& g, int32_t pixel, int32_t end) {
  if (pixel >= end) return {-1, 0, 0};
  const ConvShape& s = g.p.shape;
  const int32_t row = pixel / s.out_width, x = pixel - row * s.out_width;
  const int32_t image = row / s.out_height, y = row - image * s.out_height;
  return {image * s.in_height * s.in_width, y * s.stride_height - s.padding_height,
          x * s.stride_width - s.padding_width};
}

// A thread gathers kChannels neighbouring rows, four pixels at a time; neighbouring threads read neighbouring channels of
// a pixel.
template <class G, int kChannels, class Shared>
__device__ __forceinline__ void load_gradient(const CodeGemm& g, int32_t group, int32_t first_row, int32_t first,
                                              Shared* s) {
  constexpr int kOwners = kCodeRows / kChannels;
  static_assert(kCodeThreads % kOwners == 0, "a thread stays in its rows");
  const auto* const codes = static_cast<const typename G::Type*>(g.p.gradient);
  const int row = int(threadIdx.x) % kOwners * kChannels;
  const bool mine = first_row + row < g.rows;
  const int32_t channel = group * g.rows + first_row + row;
  for (int word = int(threadIdx.x) / kOwners; word < kStepWords; word += kCodeThreads / kOwners) {
    Vec<typename G::Type, kChannels> code[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * word + i;
      if (!mine || s->pixel[at].image < 0) continue;
      code[i] = load_vec_readonly<kChannels>(codes + int64_t(first + at) * g.p.shape.out_channels + channel);
    }
#pragma unroll
    for (int part = 0; part < G::kParts; ++part) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        s->gradient[part][(row + c) * kRowWords + word] = code_word<typename G::Type, kChannels>(code, c, part);
      }
    }
  }
}

// The first of a thread's columns (tap, channel); they are of one tap.
struct CodeColumn {
  int32_t y, x;     // of the tap, in pixels of the input
  int32_t channel;  // negative past the last column
};

__device__ __forceinline__ CodeColumn code_column(const CodeGemm& g, int32_t group, int32_t column) {
  if (column >= g.columns) return {0, 0, -1};
  const ConvShape& s = g.p.shape;
  const int32_t tap = column / g.channels;
  return {tap / s.kernel_width * s.dilation_height, tap % s.kernel_width * s.dilation_width,
          group * g.channels + column - tap * g.channels};
}

template <class X, int kChannels, class Shared>
__device__ __forceinline__ void load_input(const CodeGemm& g, const CodeColumn& c, Shared* s) {
  constexpr int kOwners = kCodeColumns / kChannels;
  static_assert(kCodeThreads % kOwners == 0, "a thread stays in its columns");
  const auto* const codes = static_cast<const typename X::Type*>(g.p.input);
  const ConvShape& shape = g.p.shape;
  const int column = int(threadIdx.x) % kOwners * kChannels;
  for (int word = int(threadIdx.x) / kOwners; word < kStepWords; word += kCodeThreads / kOwners) {
    Vec<typename X::Type, kChannels> code[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const CodePixel at = s->pixel[4 * word + i];
      const int32_t y = at.y + c.y, x = at.x + c.x;
      const bool inside = at.image >= 0 && c.channel >= 0 && uint32_t(y) < uint32_t(shape.in_height) &&
                          uint32_t(x) < uint32_t(shape.in_width);
      if (!inside) continue;
      const int64_t pixel = int64_t(at.image) + int64_t(y) * shape.in_width + x;
      code[i] = load_vec_readonly<kChannels>(codes + pixel * shape.in_channels + c.channel);
    }
#pragma unroll
    for (int part = 0; part < X::kParts; ++part) {
#pragma unroll
      for (int e = 0; e < kChannels; ++e) {
        s->input[part][(column + e) * kRowWords + word] = code_word<typename X::Type, kChannels>(code, e, part);
      }
    }
  }
}

template <class X, class G>
using CodeSums = MmaSums[G::kParts][X::kParts][kColumnTiles];

// One part of the gradient times one part of the input, 32 pixels.
template <bool kSignedG, bool kSignedX>
__device__ __forceinline__ void multiply_part(const uint32_t* gradient, const uint32_t* input, int word, int warp_row,
                                              MmaSums (&sums)[kColumnTiles]) {
  const int lane = int(threadIdx.x) % 32;
  MmaA a;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    a.word[w] = gradient[(warp_row + mma_bytes_a_row(lane, w)) * kRowWords + word + mma_bytes_a_col(lane, w) / 4];
  }
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
    MmaB b;
#pragma unroll
    for (int w = 0; w < 2; ++w) {
      b.word[w] = input[(8 * c + mma_b_col(lane)) * kRowWords + word + mma_bytes_b_row(lane, w) / 4];
    }
    mma_m16n8k32<kSignedG, kSignedX>(sums[c], a, b);
  }
}

template <class X, class G>
__device__ __forceinline__ void multiply_step(const CodeShared<X, G>& s, int warp_row, CodeSums<X, G>& sums) {
#pragma unroll
  for (int word = 0; word < kStepWords; word += 8) {
    constexpr int kLastG = G::kParts - 1, kLastX = X::kParts - 1;
    multiply_part<G::kSigned, X::kSigned>(s.gradient[kLastG], s.input[kLastX], word, warp_row, sums[kLastG][kLastX]);
    if constexpr (kLastX > 0) {
      multiply_part<G::kSigned, false>(s.gradient[kLastG], s.input[0], word, warp_row, sums[kLastG][0]);
    }
    if constexpr (kLastG > 0) {
      multiply_part<false, X::kSigned>(s.gradient[0], s.input[kLastX], word, warp_row, sums[0][kLastX]);
    }
    if constexpr (kLastG > 0 && kLastX > 0) {
      multiply_part<false, false>(s.gradient[0], s.input[0], word, warp_row, sums[0][0]);
    }
  }
}

// Adds a block's sums to where dw's elements are.
template <class X, class G>
__device__ __forceinline__ void add_sums(const CodeGemm& g, int32_t group, int32_t row, int32_t first_column,
                                         const CodeSums<X, G>& sums) {
  const int lane = int(threadIdx.x) % 32;
  const int32_t taps = g.columns / g.channels;
#pragma unroll
  for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t r = row + mma_d_row(lane, i), column = first_column + 8 * c + mma_d_col(lane, i);
      if (r >= g.rows || column >= g.columns) continue;
      int64_t total = 0;
#pragma unroll
      for (int pg = 0; pg < G::kParts; ++pg) {
#pragma unroll
        for (int px = 0; px < X::kParts; ++px)
          total += int64_t(sums[pg][px][c].value[i]) * (int64_t(1) << (8 * (pg + px)));
      }
      const int32_t tap = column / g.channels;
      const int32_t at = g.p.channels_last ? column : (column - tap * g.channels) * taps + tap;
      const int64_t element = (int64_t(group) * g.rows + r) * g.columns + at;
      atomicAdd(reinterpret_cast<unsigned long long*>(g.p.sums) + element, static_cast<unsigned long long>(total));
    }
  }
}

// Blocks: column tiles fastest, then row tiles, chunks of the depth, groups. kChannels: read at once; they divide the
// channels of a group, of input and output, and what is read is aligned.
template <class X, class G, int kChannels>
__global__ void __launch_bounds__(kCodeThreads) code_sums_kernel(const __grid_constant__ CodeGemm g) {
  using Shared = CodeShared<X, G>;
  HN_DYNAMIC_SHARED(Shared, s);
  const int32_t tiles = g.row_tiles * g.column_tiles, tile = int32_t(blockIdx.x) % tiles;
  const int32_t chunk = int32_t(blockIdx.x) / tiles % g.chunks, group = int32_t(blockIdx.x) / tiles / g.chunks;
  const int32_t first_column = tile % g.column_tiles * kCodeColumns, first_row = tile / g.column_tiles * kCodeRows;
  const int32_t begin = chunk * g.chunk_pixels;
  const int32_t end = g.pixels - begin < g.chunk_pixels ? g.pixels : begin + g.chunk_pixels;
  const int warp_row = int(threadIdx.x) / 32 * 16;
  const CodeColumn column =
      code_column(g, group, first_column + int(threadIdx.x) % (kCodeColumns / kChannels) * kChannels);
  CodeSums<X, G> sums = {};
#pragma unroll 1
  for (int32_t first = begin; first < end; first += kStepPixels) {
    if (threadIdx.x < kStepPixels) s->pixel[threadIdx.x] = code_pixel(g, first + int32_t(threadIdx.x), end);
    __syncthreads();  // also: every warp is done with the step before
    load_gradient<G, kChannels>(g, group, first_row, first, s);
    load_input<X, kChannels>(g, column, s);
    __syncthreads();
    multiply_step<X, G>(*s, warp_row, sums);
  }
  add_sums<X, G>(g, group, first_row + warp_row, first_column, sums);
}

// Sums as gradients, and their largest magnitude into p.largest, which is 0 before.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    scale_sums_kernel(const __grid_constant__ CodeWeightGradientParams p, int32_t n) {
  const double scale = code_scale(*p.input_delta, *p.gradient_delta);
  const int32_t i = int32_t(blockIdx.x) * kThreads + int32_t(threadIdx.x);
  uint32_t magnitude = 0;
  if (i < n) {
    const float value = scaled_sum(p.sums[i], scale);
    p.dw[i] = value;
    magnitude = magnitude_bits(value);
  }
  magnitude = __reduce_max_sync(0xffffffffu, magnitude);
  if (threadIdx.x % 32 == 0 && magnitude != 0) atomicMax(reinterpret_cast<uint32_t*>(p.largest), magnitude);
}

}  // namespace cuda
}  // namespace hn
