// norm_relu_op.cpp: batch norm, addition and ReLU for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "norm_relu.h"

namespace hn {
namespace cpu {

namespace {

void check_maps(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  check_dense(op, name, t, true);
  check_type(op, name, t, like.scalar_type());
  HN_CHECK(sizes_of(t) == sizes_of(like), op, ": expected ", name, " of x's shape");
}

template <class T = float>
T* channel_values(const char* op, const char* name, const OptionalTensor& t, int64_t channels) {
  if (!t.has_value() || !t->defined()) return nullptr;
  check_dense(op, name, *t, false);
  check_type(op, name, *t, sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float);
  HN_CHECK(t->dim() == 1 && t->size(0) == channels, op, ": expected ", name, " of shape [", channels, "]");
  return static_cast<T*>(t->data_ptr());
}

Dtype check_x(const char* op, const Tensor& x) {
  HN_CHECK(x.dim() == 4 && x.numel() > 0, op, ": expected x of 4 dimensions that holds something");
  check_dense(op, "x", x, true);
  const Dtype dtype = dtype_of(op, x);
  HN_CHECK(dtype != Dtype::kFloat16, op, ": expected float32 or bfloat16, got float16");
  return dtype;
}

int64_t rows_of(const Tensor& x) { return x.size(0) * x.size(2) * x.size(3); }

}  // namespace

std::tuple<Tensor, Tensor, Tensor> norm_relu_op(const Tensor& x, const OptionalTensor& residual,
                                                const OptionalTensor& gamma, const OptionalTensor& beta,
                                                OptionalTensor running_mean, OptionalTensor running_var,
                                                double momentum, double eps) {
  const char* op = "norm_relu";
  HN_RANGE(op);
  const Dtype dtype = check_x(op, x);
  const int64_t c = x.size(1);
  HN_CHECK(rows_of(x) > 1, op, ": expected more than one value a channel, got input of one");
  const bool adds = residual.has_value() && residual->defined();
  if (adds) check_maps(op, "residual", *residual, x);
  Tensor y = empty_on(sizes_of(x), x.scalar_type(), x, true);
  Tensor mean = empty_on({c}, ScalarType::Double, x), invstd = empty_on({c}, ScalarType::Double, x);
  float* const moved_mean = channel_values(op, "running_mean", running_mean, c);
  float* const moved_var = channel_values(op, "running_var", running_var, c);
  HN_CHECK((moved_mean == nullptr) == (moved_var == nullptr), op,
           ": expected running_mean and running_var, or neither");
  norm_relu({x.data_ptr(), adds ? residual->data_ptr() : nullptr, channel_values(op, "gamma", gamma, c),
             channel_values(op, "beta", beta, c), y.data_ptr(), static_cast<double*>(mean.data_ptr()),
             static_cast<double*>(invstd.data_ptr()), moved_mean, moved_var, rows_of(x), c, momentum, eps, dtype});
  return {y, mean, invstd};
}

// dx, the residual's gradient (empty without y), gamma's and beta's.
std::tuple<Tensor, Tensor, Tensor, Tensor> norm_relu_backward_op(const Tensor& dy, const Tensor& x,
                                                                 const OptionalTensor& y, const OptionalTensor& gamma,
                                                                 const OptionalTensor& beta, const Tensor& mean,
                                                                 const Tensor& invstd) {
  const char* op = "norm_relu_backward";
  HN_RANGE(op);
  const Dtype dtype = check_x(op, x);
  const int64_t c = x.size(1);
  check_maps(op, "dy", dy, x);
  const bool adds = y.has_value() && y->defined();
  if (adds) check_maps(op, "y", *y, x);
  Tensor dx = empty_on(sizes_of(x), x.scalar_type(), x, true);
  Tensor dresidual = adds ? empty_on(sizes_of(x), x.scalar_type(), x, true) : empty_on({0}, x.scalar_type(), x);
  Tensor dgamma = empty_on({c}, ScalarType::Float, x), dbeta = empty_on({c}, ScalarType::Float, x);
  norm_relu_backward({dy.data_ptr(), x.data_ptr(), adds ? y->data_ptr() : nullptr,
                      channel_values(op, "gamma", gamma, c), channel_values(op, "beta", beta, c),
                      channel_values<double>(op, "mean", mean, c), channel_values<double>(op, "invstd", invstd, c),
                      dx.data_ptr(), adds ? dresidual.data_ptr() : nullptr, static_cast<float*>(dgamma.data_ptr()),
                      static_cast<float*>(dbeta.data_ptr()), rows_of(x), c, dtype});
  return {dx, dresidual, dgamma, dbeta};
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("norm_relu", TORCH_BOX(&hn::cpu::norm_relu_op));
  m.impl("norm_relu_backward", TORCH_BOX(&hn::cpu::norm_relu_backward_op));
}
#endif
