// codes.h: what integer codes are stored in, and how floats are compared by magnitude.
#pragma once
#include <cstdint>

#include "bits.cuh"
#include "macros.h"

namespace hn {

enum class CodeType : int32_t { kUint8 = 0, kInt8 = 1, kInt16 = 2, kInt32 = 3 };

// The bits of |x|: as integers they order as the magnitudes do, infinity above numbers and NaN above infinity.
HN_HD uint32_t magnitude_bits(float x) { return float_bits(x) & 0x7fffffffu; }

}  // namespace hn
