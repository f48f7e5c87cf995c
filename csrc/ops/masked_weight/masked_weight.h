// masked_weight.h: rule(scores) x source -> the effective weight, in one pass; and its straight-through backward.
//
// Forward:  out[i] = kept(i) ? weight(i) : 0          (kExpectation: weight(i) * sigmoid(score(i)))
// Backward: dscore[i] = grad[i] * weight(i) * surrogate(score(i)) for every i, kept or not
//           dweight[i] = kept(i) ? grad[i] : 0         (kExpectation: grad[i] * sigmoid(score(i)))
// kScored has weight(i) * score(i) and grad[i] * score(i) for weight(i) and grad[i] in what depends on kept(i).
// Where a rule has flags, dscore of an unflagged element is +0 whatever grad and weight are.
// The mask and the weight are made again in the backward; nothing but the scores and a few bytes outlive the forward.
// -0 never appears in `out`: a pruned weight is +0.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"
#include "../../base/layout.cuh"
#include "../../base/rule.cuh"
#include "../../base/source.cuh"

namespace hn {

struct MaskedWeightParams {
  const float* scores;  // [n] in `layout`; null when the rule reads no scores (kAll, kBits)
  Rule rule;
  WeightSource source;  // stored weights lie in `layout`
  Layout layout;        // of scores, stored weights and out alike
  Dtype dtype;
  void* out;  // [n] of dtype
};

struct MaskedWeightBackwardParams {
  const void* grad;  // [n] of grad_dtype, in `layout`
  Dtype grad_dtype;
  const float* scores;  // as in the forward
  Rule rule;
  WeightSource source;
  Layout layout;
  float* grad_scores;  // [n] or null
  float* grad_weight;  // [n] or null
};

// The weights of many layers in one call.
struct NetworkWeightParams {
  const MaskedWeightParams* layers;  // [count], host memory
  int32_t count;
};

namespace cpu {
void network_weight(const NetworkWeightParams& p);
void masked_weight(const MaskedWeightParams& p);
void masked_weight_backward(const MaskedWeightBackwardParams& p);
}  // namespace cpu

namespace cuda {
int network_weight(const NetworkWeightParams& p, void* stream);  // one launch for up to 256 layers
int masked_weight(const MaskedWeightParams& p, void* stream);
int masked_weight_backward(const MaskedWeightBackwardParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
