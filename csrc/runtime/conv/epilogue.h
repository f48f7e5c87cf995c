// epilogue.h: what follows a product, as a plan keeps it.
#pragma once
#include <vector>

#include "../../base/isa.h"
#include "../activation.h"

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

}  // namespace hiddennet::runtime
