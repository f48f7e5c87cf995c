// tile_conv_op.cpp: the convolution of tiles for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "../../base/conv_args.h"
#include "tile_conv.h"

namespace hn {
namespace cpu {
namespace {

const uint16_t* maps_of(const char* op, const char* name, const Tensor& t) {
  check_type(op, name, t, ScalarType::BFloat16);
  check_dense(op, name, t, true);
  return static_cast<const uint16_t*>(t.data_ptr());
}

bool is_empty(const ConvShape& s) {
  return int64_t(s.batch) * s.out_channels * s.out_height * s.out_width == 0 || s.in_channels == 0;
}

}  // namespace

Tensor tile_conv_forward_op(const Tensor& x, const Tensor& weight, const Sizes& stride, const Sizes& padding,
                            const Sizes& dilation) {
  const char* op = "tile_conv_forward";
  HN_RANGE(op);
  TileConvParams p = {};
  p.x = maps_of(op, "x", x);
  p.weight = maps_of(op, "weight", weight);
  p.shape = make_conv_shape(op, sizes_of(x), sizes_of(weight), stride, padding, dilation);
  Tensor y = empty_on(output_sizes(p.shape), ScalarType::BFloat16, x, true);
  p.out = static_cast<uint16_t*>(y.data_ptr());
  if (is_empty(p.shape)) {
    std::fill_n(p.out, y.numel(), uint16_t(0));
  } else {
    tile_conv_forward(p);
  }
  return y;
}

Tensor tile_conv_input_gradient_op(const Tensor& dy, const Tensor& weight, const Sizes& input_shape,
                                   const Sizes& stride, const Sizes& padding, const Sizes& dilation) {
  const char* op = "tile_conv_input_gradient";
  HN_RANGE(op);
  TileConvParams p = {};
  p.dy = maps_of(op, "dy", dy);
  p.weight = maps_of(op, "weight", weight);
  p.shape = make_conv_shape(op, input_shape, sizes_of(weight), stride, padding, dilation);
  HN_CHECK(sizes_of(dy) == output_sizes(p.shape), op, ": expected dy of the convolution's output shape");
  Tensor dx = empty_on(input_shape, ScalarType::BFloat16, dy, true);
  p.out = static_cast<uint16_t*>(dx.data_ptr());
  if (is_empty(p.shape)) {
    std::fill_n(p.out, dx.numel(), uint16_t(0));
  } else {
    tile_conv_input_gradient(p);
  }
  return dx;
}

Tensor tile_conv_weight_gradient_op(const Tensor& x, const Tensor& dy, const Sizes& shape, const Sizes& stride,
                                    const Sizes& padding, const Sizes& dilation) {
  const char* op = "tile_conv_weight_gradient";
  HN_RANGE(op);
  TileConvParams p = {};
  p.x = maps_of(op, "x", x);
  p.dy = maps_of(op, "dy", dy);
  p.shape = make_conv_shape(op, sizes_of(x), shape, stride, padding, dilation);
  HN_CHECK(sizes_of(dy) == output_sizes(p.shape), op, ": expected dy of the convolution's output shape");
  Tensor dw = empty_on(shape, ScalarType::Float, x, true);
  p.dw = static_cast<float*>(dw.data_ptr());
  if (is_empty(p.shape)) {
    std::fill_n(p.dw, dw.numel(), 0.0f);
  } else {
    tile_conv_weight_gradient(p);
  }
  return dw;
}

int64_t tile_instructions_op(const Tensor&) { return tile_instructions(); }

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("tile_conv_forward", TORCH_BOX(&hn::cpu::tile_conv_forward_op));
  m.impl("tile_conv_input_gradient", TORCH_BOX(&hn::cpu::tile_conv_input_gradient_op));
  m.impl("tile_instructions", TORCH_BOX(&hn::cpu::tile_instructions_op));
  m.impl("tile_conv_weight_gradient", TORCH_BOX(&hn::cpu::tile_conv_weight_gradient_op));
}
#endif
