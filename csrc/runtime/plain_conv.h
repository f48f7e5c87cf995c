// The plain plan: any geometry and groups, float32, in portable loops.
#pragma once

#include <memory>

#include "conv_plan.h"

namespace hiddennet::runtime {

std::unique_ptr<ConvPlan> plain_conv(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue);

}  // namespace hiddennet::runtime
