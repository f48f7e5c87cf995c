// code_product.cuh: a warp's product of bytes over one stage, and its sums.
//
// Codes of more than 8 bits are split: low bytes (unsigned) and what is above them; a product of split codes is two or
// four products of bytes, with 32-bit sums for each power of 256. An int32 holds those of kMostPixels pixels whatever the
// codes are.
#pragma once
#include <cstdint>

#include "../../base/mma.cuh"
#include "code_stage.cuh"

namespace hn {
namespace cuda {

constexpr int kWarpSide = kCodeSide / 2;  // rows and columns of a warp
constexpr int kCodeTiles = kWarpSide / 16;
constexpr int32_t kMostPixels = 16384;
constexpr int32_t kMostSteps = kMostPixels / kStepPixels;
static_assert(int64_t(kMostPixels) * (2 * 255 * 255) < (int64_t(1) << 31), "an int32 holds the sums of two products");
static_assert(kCodeThreads == 128 && kMostPixels % kStepPixels == 0 && kStepPixels % 32 == 0, "steps are whole");

__device__ __forceinline__ int warp_row() { return int(threadIdx.x) / 64 * kWarpSide; }
__device__ __forceinline__ int warp_column() { return int(threadIdx.x) / 32 % 2 * kWarpSide; }

// 16 rows or columns times 32 pixels, as ldmatrix gives them: halves of 8, of which 16 pixels each.
template <class C>
struct CodeWords {
  uint32_t word[C::kParts][2][2];
};

// Which of the sixteen is element n of a half. 16-bit transposes leave bytes in pairs.
__host__ __device__ __forceinline__ int code_place(int parts, int half, int n) {
  return parts == 1 ? 2 * n + half : 8 * half + n;
}

// Transposed: codes lie pixel by pixel, the product wants pixels side by side. The four pixels of a word are lane % 4 * 2,
// the next, and those 8 after, in both operands alike.
template <class C>
__device__ __forceinline__ CodeWords<C> load_words(const uint8_t* stage, int pixel, int first) {
  const uint8_t* const row = stage + (pixel + int(threadIdx.x) % 32) * C::kPixelBytes + first * C::kParts;
  CodeWords<C> to;
  uint32_t read[4];
#pragma unroll
  for (int r = 0; r < C::kParts; ++r) {
    ldmatrix_x4_transposed(read, row + 16 * r);
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      const int part = C::kParts == 1 ? 0 : b, half = C::kParts == 1 ? b : r;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        to.word[part][half][k] = __byte_perm(read[2 * k], read[2 * k + 1], b == 0 ? 0x6420 : 0x7531);
      }
    }
  }
  return to;
}

// By power of 256: low times high and high times low bytes have one.
template <class X, class G>
using CodeSums = MmaSums[G::kParts + X::kParts - 1][kCodeTiles][2 * kCodeTiles];

// The product of one part of each, 16 rows by 16 columns.
template <bool kSignedG, bool kSignedX>
__device__ __forceinline__ void multiply_part(const uint32_t (&gradient)[2][2], const uint32_t (&input)[2][2],
                                              MmaSums* sums) {
  const MmaA a = {{gradient[0][0], gradient[1][0], gradient[0][1], gradient[1][1]}};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const MmaB b = {{input[half][0], input[half][1]}};
    mma_m16n8k32<kSignedG, kSignedX>(sums[half], a, b);
  }
}

// A warp's product over one stage.
template <class X, class G>
__device__ __forceinline__ void multiply_stage(const uint8_t* gradient, const uint8_t* input, CodeSums<X, G>& sums) {
  constexpr int kLastG = G::kParts - 1, kLastX = X::kParts - 1;
#pragma unroll 1
  for (int pixel = 0; pixel < kStepPixels; pixel += 32) {
    CodeWords<X> b[kCodeTiles];
#pragma unroll
    for (int c = 0; c < kCodeTiles; ++c) b[c] = load_words<X>(input, pixel, warp_column() + 16 * c);
#pragma unroll
    for (int r = 0; r < kCodeTiles; ++r) {
      const CodeWords<G> a = load_words<G>(gradient, pixel, warp_row() + 16 * r);
#pragma unroll
      for (int c = 0; c < kCodeTiles; ++c) {
        multiply_part<G::kSigned, X::kSigned>(a.word[kLastG], b[c].word[kLastX], &sums[kLastG + kLastX][r][2 * c]);
        if constexpr (kLastX > 0) {
          multiply_part<G::kSigned, false>(a.word[kLastG], b[c].word[0], &sums[kLastG][r][2 * c]);
        }
        if constexpr (kLastG > 0) {
          multiply_part<false, X::kSigned>(a.word[0], b[c].word[kLastX], &sums[kLastX][r][2 * c]);
        }
        if constexpr (kLastG > 0 && kLastX > 0) {
          multiply_part<false, false>(a.word[0], b[c].word[0], &sums[0][r][2 * c]);
        }
      }
    }
  }
}

}  // namespace cuda
}  // namespace hn
