// relu_pool_op.cpp: ReLU and pooling for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "relu_pool.h"

namespace hn {
namespace cpu {

std::tuple<Tensor, Tensor> relu_pool_op(const Tensor& x) {
  const char* op = "relu_pool";
  HN_RANGE(op);
  HN_CHECK(x.dim() == 4 && x.size(2) > 1 && x.size(3) > 1, op,
           ": expected x of 4 dimensions, at least 2 pixels a side");
  check_dense(op, "x", x, true);
  const Dtype dtype = dtype_of(op, x);
  HN_CHECK(dtype != Dtype::kFloat16, op, ": expected float32 or bfloat16, got float16");
  const Sizes shape{x.size(0), x.size(1), x.size(2) / 2, x.size(3) / 2};
  Tensor y = empty_on(shape, x.scalar_type(), x, true), places = empty_on(shape, ScalarType::Byte, x, true);
  if (x.numel() > 0) {
    relu_pool({x.data_ptr(), y.data_ptr(), static_cast<uint8_t*>(places.data_ptr()), x.size(0), x.size(2), x.size(3),
               x.size(1), dtype});
  }
  return {y, places};
}

Tensor relu_pool_backward_op(const Tensor& dy, const Tensor& places, const Sizes& shape) {
  const char* op = "relu_pool_backward";
  HN_RANGE(op);
  HN_CHECK(shape.size() == 4 && shape[2] > 1 && shape[3] > 1, op,
           ": expected a shape of 4 dimensions, at least 2 pixels "
           "a side");
  HN_CHECK(sizes_of(dy) == (Sizes{shape[0], shape[1], shape[2] / 2, shape[3] / 2}) && sizes_of(places) == sizes_of(dy),
           op, ": expected dy and places of half the shape");
  check_dense(op, "dy", dy, true);
  check_dense(op, "places", places, true);
  check_type(op, "places", places, ScalarType::Byte);
  const Dtype dtype = dtype_of(op, dy);
  HN_CHECK(dtype != Dtype::kFloat16, op, ": expected float32 or bfloat16, got float16");
  Tensor dx = empty_on(shape, dy.scalar_type(), dy, true);
  if (dx.numel() > 0) {
    relu_pool_backward({dy.data_ptr(), static_cast<const uint8_t*>(places.data_ptr()), dx.data_ptr(), shape[0],
                        shape[2], shape[3], shape[1], dtype});
  }
  return dx;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("relu_pool", TORCH_BOX(&hn::cpu::relu_pool_op));
  m.impl("relu_pool_backward", TORCH_BOX(&hn::cpu::relu_pool_backward_op));
}
#endif
