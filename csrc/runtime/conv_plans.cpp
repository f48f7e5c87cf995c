// The list of plans. The first is taken where none may be measured (HIDDENNET_PLANS=fixed), the plain one is the last.
#include "conv/plans.h"
#include "plain_conv.h"

namespace hiddennet::runtime {

std::vector<std::unique_ptr<ConvPlan>> conv_plans(const ConvShape& shape, const ConvWeights& weights,
                                                  const Epilogue& epilogue, bool bf16, const std::string& only) {
  std::vector<std::unique_ptr<ConvPlan>> found = fast_conv_plans(shape, weights, epilogue, bf16, only);
  if (only.empty() || only == "plain") found.push_back(plain_conv(shape, weights, epilogue));
  return found;
}

std::vector<ConvIdea> conv_ideas(const ConvOutline& outline, bool bf16) {
  std::vector<ConvIdea> found = fast_conv_ideas(outline, bf16);
  constexpr double kProductsASecond = 4e9;
  const double products = double(outline.shape.weights()) *
                          double(outline.shape.batch * outline.shape.out_height() * outline.shape.out_width());
  found.push_back({"plain", Layout::nhwc_f32, Layout::nhwc_f32, products / kProductsASecond});
  return found;
}

}  // namespace hiddennet::runtime
