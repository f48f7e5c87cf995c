// quantize_codes.h: a tensor's range and its low-bit integer codes, and the threshold that a gradient made of codes meets.
//
// PSG (E2-Train, arXiv 1910.13349) as Peek-a-Boo uses it, for a range M and b bits:
//   unsigned: delta = M / 2^b,   c = rint(clamp(x / delta, 0, 2^b - 1))
//   signed:   delta = 2M / 2^b,  c = rint(clamp(x / delta, -2^(b-1), 2^(b-1) - 1))
// with ties to even and the value c * delta. (Of one signed bit, c is -1 up to x = -delta / 2 and 0 above: the tie goes
// to the even one of the codes counted from 0.) M = 0, or so small that delta is 0: all codes are 0.
//
// M is the mean over samples of each sample's largest |x|: a sum in double, in order, rounded once to float32; of one
// sample it is max|x|. A NaN or an infinity in x makes M non-finite; a non-finite M makes delta NaN and all codes 0, so
// that what is computed from them is NaN as well. Every operation is rounded once: all backends agree to the bit.
#pragma once
#include <cstdint>

#include "../../base/codes.h"
#include "../../base/dtype.h"
#include "../../base/macros.h"

namespace hn {

struct CodeRangeParams {
  const void* x;  // [samples, size], of `dtype`
  Dtype dtype;
  int64_t samples;  // at least 1
  int64_t size;     // elements a sample
  uint32_t* work;   // [samples + 1], contents ignored
  float* maximum;   // [1]
};

struct QuantizeCodesParams {
  const void* x;  // [n], of `dtype`
  Dtype dtype;
  int64_t n;
  const float* maximum;  // [1]
  int32_t bits;          // 1..16
  bool is_signed;
  CodeType type;  // wide enough for the codes
  void*
      codes;  // [n], as x lies; or where `pixels` is not 0, x is [.., channels, pixels] and they [.., pixels, channels]
  float* delta;              // [1]
  int64_t channels, pixels;  // pixels 0: nothing changes places
};

struct ThresholdParams {
  float* grad;           // [n], changed in place
  const float* exact;    // [n]: taken where |grad| is below the threshold, or null: 0 is
  const float* maximum;  // [1]: the threshold is a multiple of it, or null: it is absolute
  int64_t n;
  float threshold;
  bool sign;  // keep the sign alone
};

HN_HD bool is_number(float x) { return magnitude_bits(x) < 0x7f800000u; }

struct CodeGrid {
  float delta;      // what is stored: NaN for a non-finite range
  float divisor;    // delta, or 1 where all codes are 0
  float low, high;  // of the codes; both 0 where all codes are 0
  bool one_bit;     // signed, one bit
};

HN_HD CodeGrid code_grid(float maximum, int32_t bits, bool is_signed) {
  const bool number = is_number(maximum);
  // 2^-b and 2^(1-b): exact, so M times it is M divided by 2^b, rounded once (and only where it is subnormal)
  const float step = bits_float(uint32_t(127 - bits + (is_signed ? 1 : 0)) << 23);
  const float delta = mul_rn(maximum, step);
  const bool some = number && delta > 0.0f;
  const float levels = float(1 << bits), half = float(1 << bits >> 1);
  CodeGrid g;
  g.delta = number ? delta : bits_float(0x7fc00000u);
  g.divisor = some ? delta : 1.0f;
  g.low = some && is_signed ? -half : 0.0f;
  g.high = some ? (is_signed ? half - 1.0f : levels - 1.0f) : 0.0f;
  g.one_bit = is_signed && bits == 1;
  return g;
}

// NaN, which only a range of the caller's can meet, gives the lowest code.
HN_HD int32_t code_of(const CodeGrid& g, float x) {
  float v = x / g.divisor;
  v = v > g.low ? v : g.low;
  v = v < g.high ? v : g.high;
  if (g.one_bit) return v <= -0.5f ? -1 : 0;
  // adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits
  return int32_t(float_bits(add_rn(v, 12582912.0f))) - 0x4b400000;
}

// NaN stays NaN.
HN_HD float thresholded(float g, float exact, float threshold, bool sign) {
  const float kept = bits_float(magnitude_bits(g)) < threshold ? exact : g;
  if (!sign || kept != kept) return kept;
  return (kept > 0.0f ? 1.0f : 0.0f) - (kept < 0.0f ? 1.0f : 0.0f);
}

HN_HD float threshold_of(const ThresholdParams& p) {
  return p.maximum == nullptr ? p.threshold : mul_rn(p.threshold, *p.maximum);
}

namespace cpu {
void code_range(const CodeRangeParams& p);
void quantize_codes(const QuantizeCodesParams& p);
void threshold_gradient(const ThresholdParams& p);
}  // namespace cpu

namespace cuda {
int code_range(const CodeRangeParams& p, void* stream);
int quantize_codes(const QuantizeCodesParams& p, void* stream);
int threshold_gradient(const ThresholdParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
