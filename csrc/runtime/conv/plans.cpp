// plans.cpp: the list of the fast plans.
#include "plans.h"

#include "dense_plan.h"
#include "sparse_plan.h"
#include "tile_plan.h"

namespace hiddennet::runtime {

std::vector<std::unique_ptr<ConvPlan>> fast_conv_plans(const ConvShape& shape, const ConvWeights& weights,
                                                       const Epilogue& epilogue, bool bf16, const std::string& only) {
  std::vector<std::unique_ptr<ConvPlan>> plans;
  const auto add = [&](std::unique_ptr<ConvPlan> plan) {
    if (plan != nullptr && (only.empty() || plan->name() == only)) plans.push_back(std::move(plan));
  };
  add(dense_plan(shape, weights, epilogue));
  add(sparse_images_plan(shape, weights, epilogue));
  add(sparse_pixels_plan(shape, weights, epilogue));
  if (bf16) add(tile_plan(shape, weights, epilogue));
  return plans;
}

}  // namespace hiddennet::runtime
