// simt_mma.h: the host twins of mma.cuh; the contracts and the fragment layout are written there.
//
// The sixteen products of a sum are exact and added in double, then rounded once to float: a tensor
// core may differ from this in the last bits, a wrong fragment layout differs in all of them.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>

#include "simt_cuda.h"

namespace hn {

inline uint32_t pack_bf16(float low, float high) {
  return uint32_t(__float2bfloat16_rn(high).bits) << 16 | __float2bfloat16_rn(low).bits;
}

inline void mma_m16n8k16(MmaD& d, const MmaA& a, const MmaB& b, simt::Site site = simt::Site::here()) {
  struct Fragments {
    MmaA a;
    MmaB b;
  };
  const simt::Meeting& m = simt::meet(0xffffffffu, "mma_m16n8k16", Fragments{a, b}, site);
  const auto half = [](uint32_t word, int high) { return double(from_bfloat16(uint16_t(word >> (16 * high)))); };
  const int lane = simt::lane(), column = lane % 4 * 2;
  double sum[4] = {d.value[0], d.value[1], d.value[2], d.value[3]};
  for (int t = 0; t < 4; ++t) {  // columns 2t, 2t+1, 2t+8, 2t+9 of A
    const MmaA mine = simt::brought<Fragments>(m, lane / 4 * 4 + t).a;
    for (int n = 0; n < 2; ++n) {
      const MmaB other = simt::brought<Fragments>(m, (column + n) * 4 + t).b;
      for (int i = 0; i < 8; ++i) {  // row half, k half, k parity
        const int row = i & 1, k = i >> 1 & 1, high = i >> 2;
        sum[2 * row + n] += half(mine.word[row + 2 * k], high) * half(other.word[k], high);
      }
    }
  }
  for (int i = 0; i < 4; ++i) d.value[i] = float(sum[i]);
}

template <bool kSignedA, bool kSignedB>
inline void mma_m16n8k32(MmaSums& d, const MmaA& a, const MmaB& b, simt::Site site = simt::Site::here()) {
  struct Fragments {
    MmaA a;
    MmaB b;
  };
  const simt::Meeting& m = simt::meet(0xffffffffu, "mma_m16n8k32", Fragments{a, b}, site);
  const auto byte = [](uint32_t word, int i, bool is_signed) {
    const uint8_t u = uint8_t(word >> (8 * i));
    return is_signed ? int32_t(int8_t(u)) : int32_t(u);
  };
  const int lane = simt::lane(), column = lane % 4 * 2;
  uint32_t sum[4] = {uint32_t(d.value[0]), uint32_t(d.value[1]), uint32_t(d.value[2]), uint32_t(d.value[3])};
  for (int t = 0; t < 4; ++t) {  // columns 4t .. 4t+3 and 4t+16 .. 4t+19 of A
    const MmaA mine = simt::brought<Fragments>(m, lane / 4 * 4 + t).a;
    for (int n = 0; n < 2; ++n) {
      const MmaB other = simt::brought<Fragments>(m, (column + n) * 4 + t).b;
      for (int i = 0; i < 16; ++i) {  // row half, k half, byte
        const int row = i & 1, k = i >> 1 & 1, at = i >> 2;
        sum[2 * row + n] += uint32_t(byte(mine.word[row + 2 * k], at, kSignedA) * byte(other.word[k], at, kSignedB));
      }
    }
  }
  for (int i = 0; i < 4; ++i) d.value[i] = int32_t(sum[i]);
}

namespace detail {
template <int kMatrices>
void load_matrices(uint32_t (&word)[kMatrices], const void* row, bool transposed, const char* op, simt::Site site) {
  struct Row {
    unsigned char bytes[16];
  } mine = {};
  const int lane = simt::lane();
  if (lane < 8 * kMatrices) {
    if (reinterpret_cast<uintptr_t>(row) % 16) simt::block->fail(std::string(op) + ": expected 16-byte aligned rows");
    if (!simt::block->in_shared(row, 16)) simt::block->fail(std::string(op) + ": expected a row in shared memory");
    std::memcpy(mine.bytes, row, 16);
  }
  const simt::Meeting& m = simt::meet(0xffffffffu, op, mine, site);
  const auto element = [&](int matrix, int r, int c) {
    uint16_t e;
    std::memcpy(&e, m.brought[8 * matrix + r] + 2 * c, 2);
    return uint32_t(e);
  };
  const int g = lane / 4, t = lane % 4 * 2;
  for (int i = 0; i < kMatrices; ++i) {
    word[i] =
        transposed ? element(i, t, g) | element(i, t + 1, g) << 16 : element(i, g, t) | element(i, g, t + 1) << 16;
  }
}
}  // namespace detail

inline void ldmatrix_x4(uint32_t (&word)[4], const void* row, simt::Site site = simt::Site::here()) {
  detail::load_matrices(word, row, false, "ldmatrix_x4", site);
}
inline void ldmatrix_x2(uint32_t (&word)[2], const void* row, simt::Site site = simt::Site::here()) {
  detail::load_matrices(word, row, false, "ldmatrix_x2", site);
}
inline void ldmatrix_x4_transposed(uint32_t (&word)[4], const void* row, simt::Site site = simt::Site::here()) {
  detail::load_matrices(word, row, true, "ldmatrix_x4_transposed", site);
}
inline void ldmatrix_x2_transposed(uint32_t (&word)[2], const void* row, simt::Site site = simt::Site::here()) {
  detail::load_matrices(word, row, true, "ldmatrix_x2_transposed", site);
}

}  // namespace hn
