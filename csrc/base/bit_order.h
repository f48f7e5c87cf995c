// bit_order.h: bits of a filter from the order of a plane, [channel][tap], to that of channels-last memory.
#pragma once
#include <cstdint>

namespace hn {
namespace cpu {

// Whether a filter of so many channels and taps can be brought into that order byte by byte: 3x3 kernels do, whose eight
// channels are nine bytes.
inline bool reorders_bytes(int32_t channels, int32_t taps) { return taps == 9 && channels % 8 == 0; }

// 9 * channels bits from `from` to `to`: bit 9 c + t becomes bit channels * t + c.
inline void reorder_bytes(const uint8_t* from, int32_t channels, uint8_t* to) {
  const int32_t groups = channels / 8;
  for (int32_t g = 0; g < groups; ++g, from += 9) {
    uint64_t low = 0;
    for (int32_t b = 0; b < 8; ++b) low |= uint64_t(from[b]) << (8 * b);
    for (int32_t t = 0; t < 9; ++t) {
      const uint64_t word = low >> t | (t == 0 ? 0 : uint64_t(from[8]) << (64 - t));
      // the channels' bits lie 9 apart: byte c has its own at place c, and the product sums the bytes into the top one
      to[t * groups + g] = uint8_t((word & 0x8040201008040201u) * 0x0101010101010101u >> 56);
    }
  }
}

}  // namespace cpu
}  // namespace hn
