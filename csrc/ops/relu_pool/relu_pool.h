// relu_pool.h: ReLU and 2x2 max pooling in one pass over channels_last maps, on a CPU. The backward needs a byte an
// output, not the maps: which of the four it was, or that none was above zero.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"

namespace hn {

constexpr uint8_t kNowhere = 4;  // place of an output that has no gradient

struct ReluPoolParams {
  const void* x;    // [images, height, width, channels]
  void* y;          // [images, height / 2, width / 2, channels], written in full
  uint8_t* places;  // of y's elements: 0 to 3 in the order of memory, or kNowhere; as torch's pooling breaks ties
  int64_t images, height, width, channels;
  Dtype dtype;  // float32 or bfloat16
};

struct ReluPoolBackwardParams {
  const void* dy;
  const uint8_t* places;
  void* dx;  // written in full
  int64_t images, height, width, channels;
  Dtype dtype;
};

namespace cpu {
void relu_pool(const ReluPoolParams& p);
void relu_pool_backward(const ReluPoolBackwardParams& p);
}  // namespace cpu

}  // namespace hn
