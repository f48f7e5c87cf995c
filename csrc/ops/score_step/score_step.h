// score_step.h: an optimiser's step on the scores of all layers: gradient, regulariser, update and clamp in one pass.
//
// `grad` is the scores' own, or that of the effective weight as the layer's backward leaves it, of which the scores' is
// made on the way, as masked_weight_backward makes it, to the bit. With p the score before the step:
//   g = grad + decay * p + l1 * sign(p)                       decay = weight_decay + 2 * l2; sign(0) = 0
//   SGD:  m = momentum * m + g;  p -= lr * (nesterov ? g + momentum * m : m)       m is zero before the first step
//   Adam: m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g * g;  p -= rate * m / (sqrt(v) / root + eps)
//         rate = lr / (1 - beta1^step), root = sqrt(1 - beta2^step)
//   p = clamp(p, low, high)                                   NaN stays NaN
// An element whose flag bit is 0 keeps p, m and v. Every operation is rounded once, so all backends agree to the bit.
//
// The scores are ranked when they next are used. The step may look for the threshold of then while it holds them: it
// counts them around the last one into `next->counts`, of which topk_select makes the next one.
#pragma once
#include <cstdint>

#include "../../base/bits.cuh"
#include "../../base/dtype.h"
#include "../../base/layout.cuh"
#include "../../base/macros.h"
#include "../../base/rule.cuh"
#include "../../base/source.cuh"
#include "../topk_select/topk_select.h"

namespace hn {

enum class ScoreRule : int32_t { kPlain = 0, kMomentum = 1, kNesterov = 2, kAdam = 3 };

struct ScoreSegment {
  float* scores;         // [layout.n]
  const void* grad;      // [layout.n], as the scores lie: float32, or of a weight: grad_dtype
  float* first;          // m, as the scores lie; null: kPlain
  float* second;         // v: kAdam
  const uint8_t* flags;  // [ceil(layout.n / 8)] in OIHW order, or null: all take part
  Layout layout;
  float rate;              // lr, or kAdam: lr / (1 - beta1^step)
  float root;              // kAdam: sqrt(1 - beta2^step)
  bool of_weight = false;  // `grad` is that of the effective weight, which is made of all that follows
  Dtype grad_dtype = Dtype::kFloat32;
  Rule rule{};  // by whose surrogate the scores learn; kind and bits alone count
  WeightSource source{};
  int32_t ranked = -1;  // which segment of `next` these scores are; -1: none
};

struct ScoreHyper {
  float decay, l1;
  float momentum;                                // kMomentum, kNesterov
  float first_share, second_keep, second_share;  // kAdam: 1 - beta1, beta2, 1 - beta2
  float eps;
  float low, high;              // -inf and inf: no clamp
  const float* rate = nullptr;  // one float beside the scores, in place of the segments' rates: a captured step's
};

struct ScoreStepParams {
  const ScoreSegment* segments;  // [num_segments], host memory
  int32_t num_segments;
  ScoreRule rule;
  ScoreHyper hyper;
  const TopkSelectParams* next = nullptr;  // the selection to count for, all of whose segments are among these, or null
};

HN_HD float regularised(const ScoreHyper& h, float p, float g) {
  const float sign = (p > 0.0f ? 1.0f : 0.0f) - (p < 0.0f ? 1.0f : 0.0f);
  return add_rn(fma_rn(h.decay, p, g), mul_rn(h.l1, sign));
}

HN_HD float clamped(const ScoreHyper& h, float p) {
  p = p < h.low ? h.low : p;
  return p > h.high ? h.high : p;
}

// The score after the step; m and v are changed as the rule does. SGD rounds where torch.optim.SGD does on a machine with
// fused multiply-add: the same bits.
template <ScoreRule kRule>
HN_HD float stepped(const ScoreHyper& h, float rate, float root, float p, float grad, float* m, float* v) {
  float g = regularised(h, p, grad);
  if (kRule == ScoreRule::kAdam) {
    *m = add_rn(*m, mul_rn(h.first_share, add_rn(g, -*m)));
    *v = add_rn(mul_rn(h.second_keep, *v), mul_rn(mul_rn(h.second_share, g), g));
    const float denominator = add_rn(sqrt_rn(*v) / root, h.eps);
    return clamped(h, add_rn(p, -mul_rn(rate, *m / denominator)));
  }
  if (kRule != ScoreRule::kPlain) {
    *m = add_rn(mul_rn(h.momentum, *m), g);
    g = kRule == ScoreRule::kNesterov ? fma_rn(h.momentum, *m, g) : *m;
  }
  return clamped(h, fma_rn(-rate, g, p));
}

namespace cpu {
void score_step(const ScoreStepParams& p);
}

namespace cuda {
int score_step(const ScoreStepParams& p, void* stream);
}

}  // namespace hn
