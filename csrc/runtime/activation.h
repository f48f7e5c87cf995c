// Activations of one number, as torch has them: NaN stays NaN.
#pragma once

#include <cmath>

#include "conv_plan.h"

namespace hiddennet::runtime {

// low, high: as of Epilogue.
inline float activate(Activation kind, float x, float low, float high) {
  const auto clamp = [](float v, float a, float b) { return v < a ? a : v > b ? b : v; };
  switch (kind) {
    case Activation::none: return x;
    case Activation::relu: return x < 0.0f ? 0.0f : x;
    case Activation::clamp: return clamp(x, low, high);
    case Activation::leaky_relu: return x < 0.0f ? x * low : x;
    case Activation::silu: return x / (1.0f + std::exp(-x));
    case Activation::hard_swish: return x * clamp(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    case Activation::hard_sigmoid: return clamp(x + 3.0f, 0.0f, 6.0f) / 6.0f;
    case Activation::sigmoid: return 1.0f / (1.0f + std::exp(-x));
    case Activation::gelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

// f(a) where a(x) is activate() of that kind, so that a loop over it has no switch inside.
template <class F>
void with_activation(Activation kind, float low, float high, const F& f) {
#define HN_ACTIVATION(name) \
  case Activation::name: return f([low, high](float x) { return activate(Activation::name, x, low, high); });
  switch (kind) {
    HN_ACTIVATION(none)
    HN_ACTIVATION(relu)
    HN_ACTIVATION(clamp)
    HN_ACTIVATION(leaky_relu)
    HN_ACTIVATION(silu)
    HN_ACTIVATION(hard_swish)
    HN_ACTIVATION(hard_sigmoid)
    HN_ACTIVATION(sigmoid)
    HN_ACTIVATION(gelu)
    HN_ACTIVATION(tanh)
  }
#undef HN_ACTIVATION
}

}  // namespace hiddennet::runtime
