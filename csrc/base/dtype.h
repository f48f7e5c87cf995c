// dtype.h: our own names for the element types kernels write, and the conversions that round to nearest even.
#pragma once
#include <cstdint>

#include "bits.cuh"
#include "macros.h"

namespace hn {

enum class Dtype : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

constexpr int dtype_bytes(Dtype t) { return t == Dtype::kFloat32 ? 4 : 2; }

HN_HD uint16_t bfloat16_bits(float x) {
  const uint32_t u = float_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x0040u);  // NaN stays NaN
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

HN_HD float from_bfloat16(uint16_t b) { return bits_float(uint32_t(b) << 16); }

HN_HD uint16_t float16_bits(float x) {
  const uint32_t u = float_bits(x), sign = (u >> 16) & 0x8000u, m = u & 0x7fffffffu;
  if (m > 0x7f800000u) return uint16_t(sign | 0x7e00u);
  if (m >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // rounds to infinity
  if (m < 0x38800000u) {                                  // subnormal half: let the adder round
    const uint32_t r = float_bits(add_rn(bits_float(m), 0.5f)) - 0x3f000000u;
    return uint16_t(sign | r);
  }
  return uint16_t(sign | ((m + 0xfffu + ((m >> 13) & 1u) - 0x38000000u) >> 13));
}

HN_HD float from_float16(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16, e = (h >> 10) & 31u, f = h & 0x3ffu;
  if (e == 31u) return bits_float(sign | 0x7f800000u | (f << 13));
  if (e == 0u) return bits_float(sign | float_bits(mul_rn(float(f), 5.9604644775390625e-08f)));
  return bits_float(sign | ((e + 112u) << 23) | (f << 13));
}

// Element i of a buffer of type `t`, as a float, and back.
HN_HD float load_as_float(const void* p, Dtype t, int64_t i) {
  if (t == Dtype::kFloat32) return static_cast<const float*>(p)[i];
  const uint16_t b = static_cast<const uint16_t*>(p)[i];
  return t == Dtype::kBFloat16 ? from_bfloat16(b) : from_float16(b);
}

HN_HD void store_float(void* p, Dtype t, int64_t i, float x) {
  if (t == Dtype::kFloat32) {
    static_cast<float*>(p)[i] = x;
  } else {
    static_cast<uint16_t*>(p)[i] = t == Dtype::kBFloat16 ? bfloat16_bits(x) : float16_bits(x);
  }
}

}  // namespace hn
