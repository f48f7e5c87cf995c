// masked_weight_op.cpp: masked_weight and its backward for torch.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "masked_weight.h"

namespace hn {
namespace HN_BACKEND {

Tensor masked_weight_op(const OptionalTensor& scores, const Tensor& selection, const Sizes& shape, bool channels_last,
                        int64_t rule, const OptionalTensor& bits, const OptionalTensor& step, int64_t rule_seed,
                        int64_t source, const OptionalTensor& stored, const OptionalTensor& plane, double scale,
                        int64_t seed, int64_t layer, int64_t redraw, int64_t dtype) {
  HN_RANGE("masked_weight");
  const char* op = "masked_weight";
  const Layout layout = layout_of(op, shape, channels_last);
  const Rule r = make_rule(op, {rule, selection, bits, step, rule_seed}, layout.n, layer);
  const WeightSource w =
      make_source(op, {source, stored, plane, scale, seed, layer, redraw}, layout.n, channels_last, selection);
  const Dtype type = dtype_of_code(op, dtype);
  Tensor out = empty_on(shape, scalar_type_of(type), selection, channels_last);
  const MaskedWeightParams p{
      make_scores(op, scores, r.kind, shape, channels_last, selection), r, w, layout, type, out.data_ptr()};
  if (layout.n > 0) Guard(selection).run(op, &masked_weight, p);
  return out;
}

std::tuple<Tensor, Tensor> masked_weight_backward_op(const Tensor& grad, const OptionalTensor& scores,
                                                     const Tensor& selection, bool channels_last, int64_t rule,
                                                     const OptionalTensor& bits, const OptionalTensor& step,
                                                     int64_t rule_seed, int64_t source, const OptionalTensor& stored,
                                                     const OptionalTensor& plane, double scale, int64_t seed,
                                                     int64_t layer, int64_t redraw, bool want_scores,
                                                     bool want_weight) {
  HN_RANGE("masked_weight_backward");
  const char* op = "masked_weight_backward";
  const Sizes shape = sizes_of(grad), none{0};
  const Layout layout = layout_of(op, shape, channels_last);
  check_dense(op, "grad", grad, channels_last);
  check_same_device(op, "grad", grad, selection);
  const Rule r = make_rule(op, {rule, selection, bits, step, rule_seed}, layout.n, layer);
  const WeightSource w =
      make_source(op, {source, stored, plane, scale, seed, layer, redraw}, layout.n, channels_last, selection);
  HN_CHECK(!want_scores || reads_scores(r.kind), op, ": expected a rule that reads scores, got rule code ", rule);
  Tensor grad_scores = empty_on(want_scores ? shape : none, ScalarType::Float, grad, want_scores && channels_last);
  Tensor grad_weight = empty_on(want_weight ? shape : none, ScalarType::Float, grad, want_weight && channels_last);
  const MaskedWeightBackwardParams p{grad.data_ptr(),
                                     dtype_of(op, grad),
                                     make_scores(op, scores, r.kind, shape, channels_last, selection),
                                     r,
                                     w,
                                     layout,
                                     want_scores ? static_cast<float*>(grad_scores.data_ptr()) : nullptr,
                                     want_weight ? static_cast<float*>(grad_weight.data_ptr()) : nullptr};
  if (layout.n > 0) Guard(grad).run(op, &masked_weight_backward, p);
  return {grad_scores, grad_weight};
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("masked_weight", TORCH_BOX(&hn::HN_BACKEND::masked_weight_op));
  m.impl("masked_weight_backward", TORCH_BOX(&hn::HN_BACKEND::masked_weight_backward_op));
}
