// masked_conv_op.cpp: the masked implicit-GEMM convolution for torch. CUDA only: a CPU convolves the effective weight.
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "../../base/weight_args.h"
#include "masked_conv.h"

namespace hn {
namespace HN_BACKEND {
namespace {

void check_activations(const char* op, const Tensor& t, const Tensor& selection) {
  check_type(op, "activations", t, ScalarType::BFloat16);
  check_dense(op, "activations", t, true);
  check_same_device(op, "activations", t, selection);
}

}  // namespace

Tensor masked_conv_forward_op(const Tensor& x, const OptionalTensor& scores, const Tensor& selection,
                              const Sizes& shape, bool channels_last, int64_t rule, const OptionalTensor& bits,
                              const OptionalTensor& step, int64_t rule_seed, int64_t source,
                              const OptionalTensor& stored, const OptionalTensor& plane, double scale, int64_t seed,
                              int64_t layer, int64_t redraw, const Sizes& stride, const Sizes& padding,
                              const Sizes& dilation) {
  HN_RANGE("masked_conv_forward");
  const char* op = "masked_conv_forward";
  check_activations(op, x, selection);
  const ConvShape s = make_conv_shape(op, sizes_of(x), shape, stride, padding, dilation);
  const Layout layout = weight_layout(s, channels_last);
  const Rule r = make_rule(op, {rule, selection, bits, step, rule_seed}, layout.n, layer);
  const WeightSource w =
      make_source(op, {source, stored, plane, scale, seed, layer, redraw}, layout.n, channels_last, selection);
  Tensor y = empty_on(output_sizes(s), ScalarType::BFloat16, x, true);
  const MaskedConvParams p{static_cast<const uint16_t*>(x.data_ptr()),
                           static_cast<uint16_t*>(y.data_ptr()),
                           make_scores(op, scores, r.kind, shape, channels_last, selection),
                           r,
                           w,
                           layout,
                           s};
  if (y.numel() > 0) Guard(x).run(op, &masked_conv_forward, p);
  return y;
}

Tensor masked_conv_input_gradient_op(const Tensor& dy, const Sizes& input_shape, const OptionalTensor& scores,
                                     const Tensor& selection, const Sizes& shape, bool channels_last, int64_t rule,
                                     const OptionalTensor& bits, const OptionalTensor& step, int64_t rule_seed,
                                     int64_t source, const OptionalTensor& stored, const OptionalTensor& plane,
                                     double scale, int64_t seed, int64_t layer, int64_t redraw, const Sizes& stride,
                                     const Sizes& padding, const Sizes& dilation) {
  HN_RANGE("masked_conv_input_gradient");
  const char* op = "masked_conv_input_gradient";
  check_activations(op, dy, selection);
  const ConvShape s = make_conv_shape(op, input_shape, shape, stride, padding, dilation);
  const Sizes want = output_sizes(s);
  HN_CHECK(sizes_of(dy) == want, op, ": expected dy of the forward's output shape");
  const Layout layout = weight_layout(s, channels_last);
  const Rule r = make_rule(op, {rule, selection, bits, step, rule_seed}, layout.n, layer);
  const WeightSource w =
      make_source(op, {source, stored, plane, scale, seed, layer, redraw}, layout.n, channels_last, selection);
  Tensor dx = empty_on(input_shape, ScalarType::BFloat16, dy, true);
  const MaskedConvParams p{static_cast<const uint16_t*>(dy.data_ptr()),
                           static_cast<uint16_t*>(dx.data_ptr()),
                           make_scores(op, scores, r.kind, shape, channels_last, selection),
                           r,
                           w,
                           layout,
                           s};
  if (dx.numel() > 0) Guard(dy).run(op, &masked_conv_input_gradient, p);
  return dx;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("masked_conv_forward", TORCH_BOX(&hn::HN_BACKEND::masked_conv_forward_op));
  m.impl("masked_conv_input_gradient", TORCH_BOX(&hn::HN_BACKEND::masked_conv_input_gradient_op));
}
