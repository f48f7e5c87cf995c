// transpose_tile.h: rows become columns on the way from L1 to memory. For codes of one to four bytes.
#pragma once
#include <cstdint>

#include "../../base/isa.h"

namespace hn {
namespace cpu {

#if defined(HN_X86)  // SSE2 is part of it

// 16 x 16 bytes: four times, rows i and i + 8 are interleaved. `columns` and `step` are the rows' distances.
inline void transpose_square(const uint8_t* from, int64_t columns, uint8_t* to, int64_t step) {
  __m128i a[16], b[16];
  for (int i = 0; i < 16; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * columns));
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    for (int i = 0; i < 16; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * step), a[i]);
}

// 8 x 8 words: three times, rows i and i + 4.
inline void transpose_square(const uint16_t* from, int64_t columns, uint16_t* to, int64_t step) {
  __m128i a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i * columns));
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) {
      b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
      b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 8; ++i) a[i] = b[i];
  }
  for (int i = 0; i < 8; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i * step), a[i]);
}

inline void transpose_square(const int8_t* from, int64_t columns, int8_t* to, int64_t step) {
  transpose_square(reinterpret_cast<const uint8_t*>(from), columns, reinterpret_cast<uint8_t*>(to), step);
}

inline void transpose_square(const int16_t* from, int64_t columns, int16_t* to, int64_t step) {
  transpose_square(reinterpret_cast<const uint16_t*>(from), columns, reinterpret_cast<uint16_t*>(to), step);
}

template <class T>
constexpr int64_t kSquare = sizeof(T) <= 2 ? 16 / int64_t(sizeof(T)) : 0;  // 0: none
#else
template <class T>
constexpr int64_t kSquare = 0;
#endif

// to[c * step + r] = from[r * columns + c].
template <class T>
inline void transpose_tile(const T* from, int64_t rows, int64_t columns, T* to, int64_t step) {
  int64_t whole_rows = 0, whole_columns = 0;  // what squares cover
  if constexpr (kSquare<T> > 0) {
    whole_rows = rows / kSquare<T> * kSquare<T>;
    whole_columns = columns / kSquare<T> * kSquare<T>;
    for (int64_t c = 0; c < whole_columns; c += kSquare<T>) {
      for (int64_t r = 0; r < whole_rows; r += kSquare<T>) {
        transpose_square(from + r * columns + c, columns, to + c * step + r, step);
      }
    }
  }
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; ++r) to[c * step + r] = from[r * columns + c];
  }
}

}  // namespace cpu
}  // namespace hn
