// epilogue.h: what follows a product, as a plan keeps it, and one element of it.
#pragma once
#include <cmath>
#include <vector>

#include "../../base/isa.h"
#include "../conv_plan.h"

namespace hiddennet::runtime {

// Of a plan: its own copy of the bias, and what the product is multiplied by before it.
struct Finish {
  Finish(const ConvShape& shape, const float* magnitude, const Epilogue& epilogue)
      : bias(epilogue.bias == nullptr ? std::vector<float>(size_t(shape.out_channels), 0.0f)
                                      : std::vector<float>(epilogue.bias, epilogue.bias + shape.out_channels)),
        scale(magnitude == nullptr ? std::vector<float>(size_t(shape.out_channels), 1.0f)
                                   : std::vector<float>(magnitude, magnitude + shape.out_channels)),
        residual(epilogue.residual),
        activation(epilogue.activation),
        low(epilogue.low),
        high(epilogue.high) {}

  size_t bytes() const { return (bias.size() + scale.size()) * sizeof(float); }

  std::vector<float> bias, scale;
  bool residual;
  Activation activation;
  float low, high;
};

inline float between(float low, float x, float high) { return x < low ? low : (x > high ? high : x); }  // NaN stays

inline float activate(Activation a, float low, float high, float x) {
  switch (a) {
    case Activation::none: return x;
    case Activation::relu: return x < 0.0f ? 0.0f : x;
    case Activation::clamp: return between(low, x, high);
    case Activation::leaky_relu: return x < 0.0f ? x * low : x;
    case Activation::silu: return x / (1.0f + std::exp(-x));
    case Activation::hard_swish: return x * between(0.0f, x + 3.0f, 6.0f) / 6.0f;
    case Activation::hard_sigmoid: return between(0.0f, x + 3.0f, 6.0f) / 6.0f;
    case Activation::sigmoid: return 1.0f / (1.0f + std::exp(-x));
    case Activation::gelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::tanh: return std::tanh(x);
  }
  return x;
}

}  // namespace hiddennet::runtime
