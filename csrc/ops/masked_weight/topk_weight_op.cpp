// topk_weight_op.cpp: selection and effective weight of one layer in one call: topk_select, then masked_weight.
#include "../../base/backend.h"
#include "../../base/rule.cuh"

namespace hn {
namespace HN_BACKEND {

Tensor topk_select_op(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
                      const OptionalTensor& hint);
Tensor masked_weight_op(const OptionalTensor& scores, const Tensor& selection, const Sizes& shape, bool channels_last,
                        int64_t rule, const OptionalTensor& bits, const OptionalTensor& step, int64_t rule_seed,
                        int64_t source, const OptionalTensor& stored, const OptionalTensor& plane, double scale,
                        int64_t seed, int64_t layer, int64_t redraw, int64_t dtype);

std::tuple<Tensor, Tensor> topk_weight_op(const Tensor& scores, int64_t k, bool by_value, const OptionalTensor& hint,
                                          int64_t source, const OptionalTensor& stored, const OptionalTensor& plane,
                                          double scale, int64_t seed, int64_t layer, int64_t redraw, int64_t dtype) {
  HN_RANGE("topk_weight");
  const int64_t rule = int64_t(by_value ? RuleKind::kValue : RuleKind::kMagnitude);
  Tensor selection = topk_select_op({scores}, {k}, by_value, false, hint);
  Tensor weight = masked_weight_op(scores, selection, sizes_of(scores), !scores.is_contiguous(), rule, std::nullopt,
                                   std::nullopt, 0, source, stored, plane, scale, seed, layer, redraw, dtype);
  return {weight, selection};
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("topk_weight", TORCH_BOX(&hn::HN_BACKEND::topk_weight_op)); }
