// dense_plan.h: float32 products of every weight, kept or not; channels in lanes.
#pragma once
#include <memory>
#include <optional>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// Never null: any geometry.
std::unique_ptr<ConvPlan> dense_plan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue);

// The same, not made.
std::optional<ConvIdea> dense_idea(const ConvOutline& outline);

}  // namespace hiddennet::runtime
