// dense_plan.h: float32 products of every weight, kept or not; channels in lanes.
#pragma once
#include <memory>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// Never null: any geometry.
std::unique_ptr<ConvPlan> dense_plan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue);

}  // namespace hiddennet::runtime
