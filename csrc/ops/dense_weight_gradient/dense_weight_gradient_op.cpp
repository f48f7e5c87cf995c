// dense_weight_gradient_op.cpp: the weight gradient of a float32 convolution for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "dense_weight_gradient.h"

namespace hn {
namespace cpu {

Tensor dense_weight_gradient_op(const Tensor& x, const Tensor& dy, const Sizes& weight_shape, const Sizes& stride,
                                const Sizes& padding, const Sizes& dilation, bool channels_last) {
  const char* op = "dense_conv_weight_gradient";
  HN_RANGE(op);
  DenseWeightGradientParams p = {};
  check_type(op, "x", x, ScalarType::Float);
  check_type(op, "dy", dy, ScalarType::Float);
  check_same_device(op, "dy", dy, x);
  p.shape = make_conv_shape(op, sizes_of(x), weight_shape, stride, padding, dilation);
  const ConvShape& s = p.shape;
  HN_CHECK(sizes_of(dy) == output_sizes(s), op, ": expected dy of the convolution's output shape");
  check_dense(op, "x", x, true);
  check_dense(op, "dy", dy, true);
  p.x = static_cast<const float*>(x.data_ptr());
  p.dy = static_cast<const float*>(dy.data_ptr());
  p.channels_last = channels_last;
  Tensor dw = empty_on(weight_shape, ScalarType::Float, x, channels_last);
  p.dw = static_cast<float*>(dw.data_ptr());
  dense_weight_gradient(p);
  return dw;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("dense_conv_weight_gradient", TORCH_BOX(&hn::cpu::dense_weight_gradient_op));
}
#endif
