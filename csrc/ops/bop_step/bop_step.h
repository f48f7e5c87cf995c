// bop_step.h: Bop's step on the weights of all layers: average the gradients, flip the signs that disagree, count them.
//
// For Bop (Helwegen et al., arXiv 1906.02107, algorithm 2) as Peek-a-Boo uses it. With g the gradient, p the weight:
//   m = g + rate * g                     where the average starts from the gradient (`fresh`)
//   m = (1 - rate) * m + rate * g        else
//   p = -p  where |m| >= threshold and sign(m) = sign(p); sign(0) = 0, and NaN has no sign
// With threshold 0, p = 0 under m = 0 counts as a flip. An element whose flag bit is 0 keeps p and m. Only sign bits of p
// ever change. Every operation is rounded once, so all backends agree to the bit.
#pragma once
#include <cstdint>

#include "../../base/bits.cuh"
#include "../../base/layout.cuh"
#include "../../base/macros.h"

namespace hn {

struct BopSegment {
  float* weights;        // [layout.n]
  const float* grad;     // [layout.n], as the weights lie
  float* average;        // m, as the weights lie; not read where fresh, but for elements without a flag
  const uint8_t* flags;  // [ceil(layout.n / 8)] in OIHW order, or null: all may flip
  int64_t* flips;        // one element: set to the flips of this step
  int64_t* total;        // one element: the flips of this step are added
  Layout layout;
  bool fresh;
};

struct BopHyper {
  float keep, share;  // 1 - rate, rate
  float threshold;
};

struct BopStepParams {
  const BopSegment* segments;  // [num_segments], host memory
  int32_t num_segments;
  BopHyper hyper;
  unsigned long long* scratch;  // [num_segments] on the device, contents ignored; the CPU needs none
};

HN_HD float bop_averaged(const BopHyper& h, bool fresh, float m, float g) {
  return add_rn(fresh ? g : mul_rn(h.keep, m), mul_rn(h.share, g));
}

HN_HD bool bop_flips(const BopHyper& h, float m, float p) {
  const float size = bits_float(float_bits(m) & 0x7fffffffu);
  const bool same = (m > 0.0f && p > 0.0f) || (m < 0.0f && p < 0.0f) || (m == 0.0f && p == 0.0f);
  return same && size >= h.threshold;
}

HN_HD float negated(float p) { return bits_float(float_bits(p) ^ 0x80000000u); }

namespace cpu {
void bop_step(const BopStepParams& p);
}

namespace cuda {
int bop_step(const BopStepParams& p, void* stream);
}

}  // namespace hn
