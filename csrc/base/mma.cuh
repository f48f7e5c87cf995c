// mma.cuh: one tensor-core tile, D(16x8) = A(16x16) B(16x8) + D, bfloat16 in and float out, and how
// a warp loads it; and D(16x8) = A(16x32) B(32x8) + D of bytes with 32-bit integers out.
//
// A warp holds a tile in registers; lane l owns, with g = l / 4 and t = l % 4 (PTX ISA,
// mma.m16n8k16):
//   A, four words of two bfloat16 (low half first): (g, 2t) (g+8, 2t) (g, 2t+8) (g+8, 2t+8), each
//   with the next column B, two words, each with the next row: (2t, g) (2t+8, g) D, four floats:
//   (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
// Bytes (mma.m16n8k32): a word is four neighbours along the depth, first in the low byte; the first are A, (g, 4t)
// (g+8, 4t) (g, 4t+16) (g+8, 4t+16); B, (4t, g) (4t+16, g). D lies as above.
// All 32 lanes call together.
#pragma once
#include <cstdint>

#include "launch.cuh"

namespace hn {

struct MmaA {
  uint32_t word[4];
};
struct MmaB {
  uint32_t word[2];
};
struct MmaD {
  float value[4];
};

// Where this lane's elements lie. A: word w in [0, 4) starts at (row, col). B: word w in [0, 2)
// starts at (row, col).
__host__ __device__ __forceinline__ int mma_a_row(int lane, int w) { return lane / 4 + 8 * (w & 1); }
__host__ __device__ __forceinline__ int mma_a_col(int lane, int w) { return lane % 4 * 2 + 8 * (w >> 1); }
__host__ __device__ __forceinline__ int mma_b_row(int lane, int w) { return lane % 4 * 2 + 8 * w; }
__host__ __device__ __forceinline__ int mma_b_col(int lane) { return lane / 4; }
__host__ __device__ __forceinline__ int mma_d_row(int lane, int i) { return lane / 4 + 8 * (i >> 1); }
__host__ __device__ __forceinline__ int mma_d_col(int lane, int i) { return lane % 4 * 2 + (i & 1); }

struct MmaSums {
  int32_t value[4];
};

__host__ __device__ __forceinline__ int mma_bytes_a_row(int lane, int w) { return lane / 4 + 8 * (w & 1); }
__host__ __device__ __forceinline__ int mma_bytes_a_col(int lane, int w) { return lane % 4 * 4 + 16 * (w >> 1); }
__host__ __device__ __forceinline__ int mma_bytes_b_row(int lane, int w) { return lane % 4 * 4 + 16 * w; }

#if defined(__CUDACC__)

// d += a b, exact modulo 2^32. Each operand is of int8 where signed, else of uint8.
template <bool kSignedA, bool kSignedB>
__device__ __forceinline__ void mma_m16n8k32(MmaSums& d, const MmaA& a, const MmaB& b) {
#define HN_MMA_BYTES(ta, tb)                                                            \
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32." ta "." tb                       \
               ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"             \
               : "+r"(d.value[0]), "+r"(d.value[1]), "+r"(d.value[2]), "+r"(d.value[3]) \
               : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]))
  if constexpr (kSignedA && kSignedB) HN_MMA_BYTES("s8", "s8");
  if constexpr (kSignedA && !kSignedB) HN_MMA_BYTES("s8", "u8");
  if constexpr (!kSignedA && kSignedB) HN_MMA_BYTES("u8", "s8");
  if constexpr (!kSignedA && !kSignedB) HN_MMA_BYTES("u8", "u8");
#undef HN_MMA_BYTES
}

// Two floats rounded to nearest even, `low` in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// d += a b. The order of the sixteen additions and their inner rounding are the machine's own.
__device__ __forceinline__ void mma_m16n8k16(MmaD& d, const MmaA& a, const MmaB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d.value[0]), "+f"(d.value[1]), "+f"(d.value[2]), "+f"(d.value[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
}

// Four 8x8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8 of
// matrix l / 8, 16 bytes each and aligned, and receives from matrix i, in word i, elements (l / 4,
// 2 (l % 4)) and its right neighbour.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&word)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

// Two matrices: rows come from lanes 0 to 15, the addresses of the others are not used.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&word)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(word[0]), "=r"(word[1])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

// Transposed: word i receives elements (2 (l % 4), l / 4) and the one below it.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&word)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_transposed(uint32_t (&word)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(word[0]), "=r"(word[1])
               : "r"(uint32_t(__cvta_generic_to_shared(row)))
               : "memory");
}

#endif

}  // namespace hn

#if !defined(__CUDACC__)
#include "simt_mma.h"
#endif
