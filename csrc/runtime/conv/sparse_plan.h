// sparse_plan.h: lists of the kept weights, walked once a block of neighbouring outputs.
#pragma once
#include <memory>
#include <optional>

#include "../conv_plan.h"

namespace hiddennet::runtime {

// Images in lanes; null where the batch is no multiple of 16 or a block's sources are too many for an entry to name.
std::unique_ptr<ConvPlan> sparse_images_plan(const ConvShape& shape, const ConvWeights& weights,
                                             const Epilogue& epilogue);

// Parts of a map in lanes, any batch; null where they are no whole pixels of the map or of the output.
std::unique_ptr<ConvPlan> sparse_parts_plan(const ConvShape& shape, const ConvWeights& weights,
                                            const Epilogue& epilogue);

// Neighbouring pixels in lanes, any batch; null where a block's sources are too many for an entry to name.
std::unique_ptr<ConvPlan> sparse_pixels_plan(const ConvShape& shape, const ConvWeights& weights,
                                             const Epilogue& epilogue);

// The same, not made.
std::optional<ConvIdea> sparse_images_idea(const ConvOutline& outline);
std::optional<ConvIdea> sparse_parts_idea(const ConvOutline& outline);
std::optional<ConvIdea> sparse_pixels_idea(const ConvOutline& outline);

}  // namespace hiddennet::runtime
