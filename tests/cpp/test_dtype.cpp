// test_dtype.cpp: conversions to and from 16-bit floats: all 65536 of each, and rounding against
// the nearest neighbour.
#include <cmath>

#include "base/dtype.h"
#include "base/launch.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

// The value of a 16-bit float with `fraction` bits of mantissa, from the definition.
double value_of(uint16_t bits, int fraction) {
  const int exponents = 15 - fraction, bias = (1 << (exponents - 1)) - 1;
  const int e = bits >> fraction & ((1 << exponents) - 1), m = bits & ((1 << fraction) - 1);
  if (e == (1 << exponents) - 1) return m ? NAN : (bits & 0x8000u ? -INFINITY : INFINITY);
  const double v = e ? std::ldexp((1 << fraction) + m, e - bias - fraction) : std::ldexp(m, 1 - bias - fraction);
  return bits & 0x8000u ? -v : v;
}

// The nearest 16-bit float, ties to the even one; past the largest by half a step or more:
// infinity.
uint16_t nearest(float x, int fraction) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const double v = std::fabs(double(x));
  const int infinity = ((1 << (15 - fraction)) - 1) << fraction;
  int low = 0, high = infinity;  // codes of positive numbers are in the order of their values
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (value_of(uint16_t(middle), fraction) <= v ? low : high) = middle;
  }
  const double below = value_of(uint16_t(low), fraction);
  const double above = high == infinity ? 2 * below - value_of(uint16_t(low - 1), fraction)  // what would come next
                                        : value_of(uint16_t(high), fraction);
  if (v == INFINITY) return uint16_t(sign | infinity);
  const double half = (below + above) / 2;
  return uint16_t(sign | (v < half || (v == half && low % 2 == 0) ? low : high));
}

std::vector<float> hard_floats() {
  std::vector<float> x;
  for (uint32_t top = 0; top < 65536; ++top) {  // each bfloat16, the middle above it, and both sides of the middle
    if ((top & 0x7f80u) == 0x7f80u && (top & 0x7fu)) continue;
    x.push_back(hn::bits_float(top << 16));
    if ((top & 0x7fffu) == 0x7f80u) continue;
    for (uint32_t low : {0x7fffu, 0x8000u, 0x8001u}) x.push_back(hn::bits_float(top << 16 | low));
  }
  for (uint32_t h = 0; h < 0x7c00u; ++h) {  // the same for each half
    const double a = value_of(uint16_t(h), 10), b = h == 0x7bffu ? 65536.0 : value_of(uint16_t(h + 1), 10);
    const float middle = float((a + b) / 2);
    for (float v : {float(a), middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 1e30f)}) {
      x.push_back(v);
      x.push_back(-v);
    }
  }
  return x;
}

TEST(every_16_bit_float_has_its_value) {
  for (uint32_t b = 0; b < 65536; ++b) {
    const double bf16 = value_of(uint16_t(b), 7), fp16 = value_of(uint16_t(b), 10);
    const float got_bf16 = hn::from_bfloat16(uint16_t(b)), got_fp16 = hn::from_float16(uint16_t(b));
    CHECK(std::isnan(bf16) ? std::isnan(got_bf16) : double(got_bf16) == bf16);
    CHECK(std::isnan(fp16) ? std::isnan(got_fp16) : double(got_fp16) == fp16);
    if (!std::isnan(bf16)) CHECK_EQ(uint32_t(hn::bfloat16_bits(got_bf16)), b);
    if (!std::isnan(fp16)) CHECK_EQ(uint32_t(hn::float16_bits(got_fp16)), b);
  }
}

TEST(rounding_is_to_the_nearest_even) {
  for (float x : hard_floats()) {
    const Context in("x = " + shown(x));
    CHECK_EQ(uint32_t(hn::bfloat16_bits(x)), uint32_t(nearest(x, 7)));
    CHECK_EQ(uint32_t(hn::float16_bits(x)), uint32_t(nearest(x, 10)));
  }
}

TEST(nan_stays_nan) {
  for (uint32_t u : {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0xff800001u, 0x7fffffffu}) {
    CHECK(std::isnan(hn::from_bfloat16(hn::bfloat16_bits(hn::bits_float(u)))));
    CHECK(std::isnan(hn::from_float16(hn::float16_bits(hn::bits_float(u)))));
  }
}

__global__ void convert_kernel(const float* in, uint16_t* out, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  uint16_t* const o = out + 6 * i;
  o[0] = hn::bfloat16_bits(in[i]);
  o[1] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
  o[2] = hn::float16_bits(in[i]);
  o[3] = __half_as_ushort(__float2half_rn(in[i]));
  o[4] = __bfloat162float(__ushort_as_bfloat16(o[0])) == hn::from_bfloat16(o[0]);
  o[5] = __half2float(__ushort_as_half(o[2])) == hn::from_float16(o[2]);
}

TEST(device_conversions_are_the_same) {
  const std::vector<float> x = hard_floats();
  std::vector<uint16_t> expected;
  for (float v : x) {
    const uint16_t b = hn::bfloat16_bits(v), h = hn::float16_bits(v);
    for (uint16_t e : {b, b, h, h, uint16_t(1), uint16_t(1)}) expected.push_back(e);
  }
  const int n = int(x.size());
  Buffer<float> in(x);
  Buffer<uint16_t> out(expected.size());
  CHECK_EQ(launch(convert_kernel, (n + 255) / 256, 256, 0, nullptr, in.data(), out.data(), n), 0);
  CHECK_EQ(out.read(), expected);
}

TEST(load_and_store_by_dtype) {
  float f[2] = {0, 0};
  uint16_t h[2] = {0, 0};
  hn::store_float(f, hn::Dtype::kFloat32, 1, 1.00390625f);
  CHECK_EQ(hn::load_as_float(f, hn::Dtype::kFloat32, 1), 1.00390625f);
  hn::store_float(h, hn::Dtype::kBFloat16, 1, 1.00390625f);  // halfway: to even
  CHECK_EQ(hn::load_as_float(h, hn::Dtype::kBFloat16, 1), 1.0f);
  hn::store_float(h, hn::Dtype::kFloat16, 0, 1.00390625f);
  CHECK_EQ(hn::load_as_float(h, hn::Dtype::kFloat16, 0), 1.00390625f);
  CHECK_EQ(f[0], 0.0f);
  CHECK_EQ(hn::dtype_bytes(hn::Dtype::kFloat32) + hn::dtype_bytes(hn::Dtype::kFloat16), 6);
}

}  // namespace
