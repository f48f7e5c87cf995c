// plans.h: the fast plans of a convolution.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// Those this machine, held to HIDDENNET_ISA, can run; of one name only where one is asked for. May be none.
std::vector<std::unique_ptr<ConvPlan>> fast_conv_plans(const ConvShape& shape, const ConvWeights& weights,
                                                       const Epilogue& epilogue, bool bf16, const std::string& only);

std::vector<ConvIdea> fast_conv_ideas(const ConvOutline& outline, bool bf16);

}  // namespace hiddennet::runtime
