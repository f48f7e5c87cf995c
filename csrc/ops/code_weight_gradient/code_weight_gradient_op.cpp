// code_weight_gradient_op.cpp: the exact weight gradient of integer codes for torch.
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "code_weight_gradient.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "code_weight_gradient";

CodeType input_type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Byte: return CodeType::kUint8;
    case ScalarType::Char: return CodeType::kInt8;
    case ScalarType::Short: return CodeType::kInt16;
    case ScalarType::Int: return CodeType::kInt32;
    default:
      HN_CHECK(false, kOp, ": expected input codes of uint8, int8, int16 or int32, got scalar type ",
               int(t.scalar_type()));
  }
}

CodeType gradient_type_of(const Tensor& t) {
  HN_CHECK(t.scalar_type() == ScalarType::Char || t.scalar_type() == ScalarType::Short, kOp,
           ": expected gradient codes of int8 or int16, got scalar type ", int(t.scalar_type()));
  return t.scalar_type() == ScalarType::Char ? CodeType::kInt8 : CodeType::kInt16;
}

const float* delta_of(const char* name, const Tensor& t, const Tensor& like) {
  check_type(kOp, name, t, ScalarType::Float);
  HN_CHECK(t.numel() == 1, kOp, ": expected ", name, " of 1 element, got ", t.numel());
  check_same_device(kOp, name, t, like);
  return static_cast<const float*>(t.data_ptr());
}

}  // namespace

std::tuple<Tensor, Tensor> code_weight_gradient_op(const Tensor& input, const Tensor& gradient,
                                                   const Tensor& input_delta, const Tensor& gradient_delta,
                                                   const Sizes& shape, const Sizes& stride, const Sizes& padding,
                                                   const Sizes& dilation, int64_t groups, bool channels_last) {
  HN_RANGE("code_weight_gradient");
  CodeWeightGradientParams p = {};
  p.input_type = input_type_of(input);
  p.gradient_type = gradient_type_of(gradient);
  p.shape = make_conv_shape(kOp, sizes_of(input), shape, stride, padding, dilation, groups);
  const ConvShape& s = p.shape;
  const Sizes want = output_sizes(s);
  HN_CHECK(sizes_of(gradient) == want, kOp, ": expected gradient codes of the convolution's output shape");
  check_dense(kOp, "input codes", input, true);
  check_dense(kOp, "gradient codes", gradient, true);
  check_same_device(kOp, "gradient codes", gradient, input);
  p.input = input.data_ptr();
  p.gradient = gradient.data_ptr();
  p.input_delta = delta_of("input_delta", input_delta, input);
  p.gradient_delta = delta_of("gradient_delta", gradient_delta, input);
  p.groups = int32_t(groups);
  p.channels_last = channels_last;
  Tensor dw = empty_on(shape, ScalarType::Float, input, channels_last);
  Tensor largest = empty_on({1}, ScalarType::Float, input);
  p.dw = static_cast<float*>(dw.data_ptr());
  p.largest = static_cast<float*>(largest.data_ptr());
  const Guard guard(input);
#if defined(HN_CUDA)
  Tensor sums = empty_on({code_weight_gradient_sums(p)}, ScalarType::Long, input);
  p.sums = static_cast<int64_t*>(sums.data_ptr());
#endif
  guard.run(kOp, &code_weight_gradient, p);
  return {dw, largest};
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("code_weight_gradient", TORCH_BOX(&hn::HN_BACKEND::code_weight_gradient_op));
}
