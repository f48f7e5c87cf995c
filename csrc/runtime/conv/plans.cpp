// plans.cpp: the list of the fast plans, the likely best first.
#include "plans.h"

#include <algorithm>
#include <optional>

#include "dense_plan.h"
#include "sparse_plan.h"
#include "tile_plan.h"

namespace hiddennet::runtime {

std::vector<std::unique_ptr<ConvPlan>> fast_conv_plans(const ConvShape& shape, const ConvWeights& weights,
                                                       const Epilogue& epilogue, bool bf16, const std::string& only) {
  std::vector<std::unique_ptr<ConvPlan>> plans;
  const auto add = [&](const char* start, auto make) {
    if (!only.empty() && only.rfind(start, 0) != 0) return;  // the name starts with another word: not even made
    std::unique_ptr<ConvPlan> plan = make(shape, weights, epilogue);
    if (plan != nullptr && (only.empty() || plan->name() == only)) plans.push_back(std::move(plan));
  };
  if (bf16) add("tiles", tile_plan);
  constexpr double kSparse = 0.6;  // above this density the dense product is faster
  const auto kept =
      only.empty() ? shape.weights() - std::count(weights.values, weights.values + shape.weights(), 0.0f) : 0;
  const bool sparse_first = double(kept) < kSparse * double(shape.weights());
  if (!sparse_first) add("dense", dense_plan);
  add("sparse images", sparse_images_plan);
  add("sparse parts", sparse_parts_plan);
  add("sparse pixels", sparse_pixels_plan);
  if (sparse_first) add("dense", dense_plan);
  return plans;
}

std::vector<ConvIdea> fast_conv_ideas(const ConvOutline& outline, bool bf16) {
  std::vector<ConvIdea> ideas;
  const auto add = [&](std::optional<ConvIdea> idea) {
    if (idea) ideas.push_back(std::move(*idea));
  };
  if (bf16) add(tile_idea(outline));
  add(sparse_images_idea(outline));
  add(sparse_parts_idea(outline));
  add(sparse_pixels_idea(outline));
  add(dense_idea(outline));
  return ideas;
}

}  // namespace hiddennet::runtime
