// sparse_conv_op.cpp: convolutions by sparse weights for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "sparse_conv.h"

namespace hn {
namespace cpu {
namespace {

SparseWeight weight_of(const char* op, const Tensor& weight, const Tensor& like) {
  check_type(op, "weight", weight, ScalarType::Float);
  check_same_device(op, "weight", weight, like);
  HN_CHECK(weight.dim() == 4, op, ": expected a weight of 4 dimensions, got ", weight.dim());
  const bool channels_last = !weight.is_contiguous();
  check_dense(op, "weight", weight, channels_last);
  return {static_cast<const float*>(weight.data_ptr()), channels_last};
}

const float* maps_of(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  check_type(op, name, t, ScalarType::Float);
  check_same_device(op, name, t, like);
  HN_CHECK(t.dim() == 4, op, ": expected ", name, " of 4 dimensions, got ", t.dim());
  check_dense(op, name, t, true);
  return static_cast<const float*>(t.data_ptr());
}

ConvShape shape_of(const char* op, const Sizes& x, const Tensor& weight, const Sizes& stride, const Sizes& padding,
                   const Sizes& dilation) {
  const ConvShape s = make_conv_shape(op, x, sizes_of(weight), stride, padding, dilation);
  HN_CHECK(s.kernel_height <= kMaxTaps / s.kernel_width, op, ": expected a kernel of at most ", kMaxTaps, " taps");
  return s;
}

}  // namespace

Tensor sparse_conv_forward_op(const Tensor& x, const Tensor& weight, const Sizes& stride, const Sizes& padding,
                              const Sizes& dilation) {
  const char* op = "sparse_conv_forward";
  HN_RANGE(op);
  SparseConvParams p = {};
  p.x = maps_of(op, "x", x, x);
  p.weight = weight_of(op, weight, x);
  p.shape = shape_of(op, sizes_of(x), weight, stride, padding, dilation);
  Tensor y = empty_on(output_sizes(p.shape), ScalarType::Float, x, true);
  p.y = static_cast<float*>(y.data_ptr());
  sparse_conv(p);
  return y;
}

Tensor sparse_conv_input_gradient_op(const Tensor& dy, const Tensor& weight, const Sizes& input_shape,
                                     const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
  const char* op = "sparse_conv_input_gradient";
  HN_RANGE(op);
  SparseInputGradientParams p = {};
  p.dy = maps_of(op, "dy", dy, dy);
  p.weight = weight_of(op, weight, dy);
  p.shape = shape_of(op, input_shape, weight, stride, padding, dilation);
  HN_CHECK(sizes_of(dy) == output_sizes(p.shape), op, ": expected dy of the convolution's output shape");
  Tensor dx = empty_on(input_shape, ScalarType::Float, dy, true);
  p.dx = static_cast<float*>(dx.data_ptr());
  sparse_input_gradient(p);
  return dx;
}

Tensor sparse_conv_weight_gradient_op(const Tensor& x, const Tensor& dy, const Tensor& weight, const Sizes& stride,
                                      const Sizes& padding, const Sizes& dilation) {
  const char* op = "sparse_conv_weight_gradient";
  HN_RANGE(op);
  SparseWeightGradientParams p = {};
  p.x = maps_of(op, "x", x, x);
  p.dy = maps_of(op, "dy", dy, x);
  p.weight = weight_of(op, weight, x);
  p.shape = shape_of(op, sizes_of(x), weight, stride, padding, dilation);
  HN_CHECK(sizes_of(dy) == output_sizes(p.shape), op, ": expected dy of the convolution's output shape");
  Tensor dw = empty_on(sizes_of(weight), ScalarType::Float, x, p.weight.channels_last);
  p.dw = static_cast<float*>(dw.data_ptr());
  sparse_weight_gradient(p);
  return dw;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("sparse_conv_forward", TORCH_BOX(&hn::cpu::sparse_conv_forward_op));
  m.impl("sparse_conv_input_gradient", TORCH_BOX(&hn::cpu::sparse_conv_input_gradient_op));
  m.impl("sparse_conv_weight_gradient", TORCH_BOX(&hn::cpu::sparse_conv_weight_gradient_op));
}
#endif
