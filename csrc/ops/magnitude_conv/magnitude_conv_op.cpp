// magnitude_conv_op.cpp: magnitude_conv and its backward for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "../../base/weight_args.h"
#include "magnitude_conv.h"

namespace hn {
namespace cpu {
namespace {

// Sizes of [C, H, W] as those of a batch of one.
Sizes image_of(const char* op, const char* name, const Tensor& t) {
  check_type(op, name, t, ScalarType::Double);
  check_dense(op, name, t, false);
  HN_CHECK(t.dim() == 3, op, ": expected ", name, " of 3 dimensions, got ", t.dim());
  return {1, t.size(0), t.size(1), t.size(2)};
}

MagnitudeWeight weight_of(const char* op, const Tensor& weight, const Tensor& bits, const Tensor& like) {
  check_type(op, "weight", weight, ScalarType::Float);
  check_dense(op, "weight", weight, false);
  check_same_device(op, "weight", weight, like);
  check_part(op, "bits", bits, ScalarType::Byte, plane_bytes(weight.numel()), like);
  check_dense(op, "bits", bits, false);
  return {static_cast<const float*>(weight.data_ptr()), static_cast<const uint8_t*>(bits.data_ptr())};
}

ConvShape shape_of(const char* op, const Tensor& x, const Sizes& weight, const Sizes& stride, const Sizes& padding,
                   const Sizes& dilation) {
  const ConvShape s = make_conv_shape(op, image_of(op, "x", x), weight, stride, padding, dilation);
  HN_CHECK(x.numel() > 0 && elements_of(weight) > 0, op, ": expected a weight and an image that are not empty");
  const int64_t height = s.in_height + 2 * int64_t(s.padding_height);
  const int64_t width = s.in_width + 2 * int64_t(s.padding_width);
  HN_CHECK(height <= kMaxElements / width && s.in_channels <= kMaxElements / (height * width), op,
           ": expected fewer than 2^31 elements with the padding");
  return s;
}

const double* gradient_of(const char* op, const Tensor& dy, const ConvShape& s, const Tensor& x) {
  const Sizes want{1, s.out_channels, s.out_height, s.out_width};
  HN_CHECK(image_of(op, "dy", dy) == want, op, ": expected dy of the convolution's output shape");
  check_same_device(op, "dy", dy, x);
  return static_cast<const double*>(dy.data_ptr());
}

}  // namespace

Tensor magnitude_conv_op(const Tensor& x, const Tensor& weight, const Tensor& bits, const Sizes& stride,
                         const Sizes& padding, const Sizes& dilation) {
  const char* op = "magnitude_conv";
  HN_RANGE(op);
  MagnitudeConvParams p = {};
  p.shape = shape_of(op, x, sizes_of(weight), stride, padding, dilation);
  p.weight = weight_of(op, weight, bits, x);
  p.x = static_cast<const double*>(x.data_ptr());
  Tensor y = empty_on({p.shape.out_channels, p.shape.out_height, p.shape.out_width}, ScalarType::Double, x);
  p.y = static_cast<double*>(y.data_ptr());
  magnitude_conv(p);
  return y;
}

// The gradient of x, empty where it is not wanted.
Tensor magnitude_conv_backward_op(const Tensor& x, const Tensor& dy, const Tensor& weight, const Tensor& bits,
                                  const Tensor& scores, bool accumulate, bool want_dx, const Sizes& stride,
                                  const Sizes& padding, const Sizes& dilation) {
  const char* op = "magnitude_conv_backward_";
  HN_RANGE(op);
  MagnitudeConvBackwardParams p = {};
  p.shape = shape_of(op, x, sizes_of(weight), stride, padding, dilation);
  p.weight = weight_of(op, weight, bits, x);
  check_type(op, "scores", scores, ScalarType::Float);
  check_dense(op, "scores", scores, false);
  check_same_device(op, "scores", scores, x);
  HN_CHECK(sizes_of(scores) == sizes_of(weight), op, ": expected scores of the weight's shape");
  Tensor dx = empty_on(want_dx ? sizes_of(x) : Sizes{0}, ScalarType::Double, x);
  p.x = static_cast<const double*>(x.data_ptr());
  p.dy = gradient_of(op, dy, p.shape, x);
  p.dx = want_dx ? static_cast<double*>(dx.data_ptr()) : nullptr;
  p.scores = static_cast<float*>(scores.data_ptr());
  p.accumulate = accumulate;
  magnitude_conv_backward(p);
  return dx;
}

Tensor magnitude_conv_slopes_op(const Tensor& x, const Tensor& dy, const Sizes& shape, const Tensor& places,
                                const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
  const char* op = "magnitude_conv_slopes";
  HN_RANGE(op);
  MagnitudeConvSlopesParams p = {};
  p.shape = shape_of(op, x, shape, stride, padding, dilation);
  p.x = static_cast<const double*>(x.data_ptr());
  p.dy = gradient_of(op, dy, p.shape, x);
  check_type(op, "places", places, ScalarType::Long);
  check_dense(op, "places", places, false);
  check_same_device(op, "places", places, x);
  p.places = static_cast<const int64_t*>(places.data_ptr());
  p.n = places.numel();
  for (int64_t i = 0; i < p.n; ++i) {
    HN_CHECK(p.places[i] >= 0 && p.places[i] < elements_of(shape), op, ": expected places in [0, ", elements_of(shape),
             "), got ", p.places[i]);
  }
  Tensor slopes = empty_on({p.n}, ScalarType::Double, x);
  p.slopes = static_cast<double*>(slopes.data_ptr());
  magnitude_conv_slopes(p);
  return slopes;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("magnitude_conv", TORCH_BOX(&hn::cpu::magnitude_conv_op));
  m.impl("magnitude_conv_backward_", TORCH_BOX(&hn::cpu::magnitude_conv_backward_op));
  m.impl("magnitude_conv_slopes", TORCH_BOX(&hn::cpu::magnitude_conv_slopes_op));
}
#endif
