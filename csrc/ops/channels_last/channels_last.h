// channels_last.h: the elements of maps, turned from [N, C, positions] to [N, positions, C] in memory, on a CPU.
//
// What comes back from a flattened network lies channel by channel; torch's own copy goes element by element (2 GB/s).
// Here blocks of 32 x 32 (bfloat16, float16) or 16 x 16 (float32) are turned in registers.
#pragma once
#include <cstdint>

namespace hn {

struct ChannelsLastParams {
  const void* x;  // [images, channels, positions] of `bytes` an element
  void* out;      // [images, positions, channels], written in full
  int64_t images, channels, positions;
  int32_t bytes;  // 2 or 4
};

namespace cpu {
void channels_last(const ChannelsLastParams& p);
}

}  // namespace hn
