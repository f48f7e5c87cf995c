// sparse_plan.h: lists of the kept weights, walked once a block of neighbouring outputs. Images in lanes.
#pragma once
#include <memory>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// null where the batch is no multiple of 16 or a block's sources are too many for the first level of cache.
std::unique_ptr<ConvPlan> sparse_plan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue);

}  // namespace hiddennet::runtime
