// tile_plan.h: products of bfloat16 tiles by AMX, or by AVX512-BF16 where there are no tiles.
#pragma once
#include <memory>
#include <optional>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// null where the machine has neither, or for groups.
std::unique_ptr<ConvPlan> tile_plan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue);

// The same, not made.
std::optional<ConvIdea> tile_idea(const ConvOutline& outline);

}  // namespace hiddennet::runtime
