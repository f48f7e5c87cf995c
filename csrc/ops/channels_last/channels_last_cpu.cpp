// channels_last_cpu.cpp: blocks turned in registers (AVX-512), or by plain loops over blocks.
#include <algorithm>

#include "../../base/parallel.h"
#include "../tile_conv/tile_pack.h"
#include "channels_last.h"

namespace hn {
namespace cpu {
namespace {

template <class T>
constexpr int64_t kSide = sizeof(T) == 2 ? 32 : 16;  // of a block: a line of memory

// Turns rows x columns at most kSide each: to[c * to_stride + r] = from[r * stride + c].
template <class T>
void turn_plain(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * stride + c];
  }
}

#if defined(HN_X86)

HN_TARGET_AVX512 void turn_avx512(const uint16_t* from, int64_t stride, uint16_t* to, int64_t to_stride) {
  alignas(64) uint16_t turned[2][kTileElements];
  pack_turned_avx512({from, stride, 32, 32}, turned[0], turned[1]);
  for (int64_t c = 0; c < 32; ++c) {
    _mm512_storeu_si512(to + c * to_stride, _mm512_load_si512(turned[c / 16] + c % 16 * 32));
  }
}

HN_TARGET_AVX512 void turn_avx512(const uint32_t* from, int64_t stride, uint32_t* to, int64_t to_stride) {
  __m512i v[16];
  for (int64_t r = 0; r < 16; ++r) v[r] = _mm512_loadu_si512(from + r * stride);
  turn_words(v);
  for (int64_t c = 0; c < 16; ++c) _mm512_storeu_si512(to + c * to_stride, v[c]);
}

#endif

template <class T>
void turn(const T* from, int64_t stride, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
#if defined(HN_X86)
  if (wide() && rows == kSide<T> && columns == kSide<T>) return turn_avx512(from, stride, to, to_stride);
#endif
  turn_plain(from, stride, rows, columns, to, to_stride);
}

template <class T>
void turn_all(const ChannelsLastParams& p) {
  constexpr int64_t side = kSide<T>;
  const int64_t bands = (p.positions + side - 1) / side;
  const int64_t work = side * std::max<int64_t>(p.channels, 1);
  parallel_for(0, p.images * bands, std::max<int64_t>(1, 16384 / work), [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t image = u / bands * p.channels * p.positions, at = u % bands * side;
      const T* const from = static_cast<const T*>(p.x) + image + at;
      T* const to = static_cast<T*>(p.out) + image + at * p.channels;
      const int64_t columns = std::min(side, p.positions - at);
      for (int64_t c = 0; c < p.channels; c += side) {
        turn(from + c * p.positions, p.positions, std::min(side, p.channels - c), columns, to + c, p.channels);
      }
    }
  });
}

}  // namespace

void channels_last(const ChannelsLastParams& p) { p.bytes == 2 ? turn_all<uint16_t>(p) : turn_all<uint32_t>(p); }

}  // namespace cpu
}  // namespace hn
