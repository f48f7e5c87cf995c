// scale_op.cpp: check, allocate, launch; built once for the CPU and once for CUDA, where it registers its key.
#include "../../base/backend.h"
#include "scale.h"

namespace hn {
namespace HN_BACKEND {

Tensor scale_op(const Tensor& x, double a) {
  HN_RANGE("scale");
  check_type("scale", "x", x, ScalarType::Float);
  check_dense("scale", "x", x, false);
  Tensor out = empty_on(sizes_of(x), ScalarType::Float, x);
  const ScaleParams p{static_cast<const float*>(x.data_ptr()), static_cast<float*>(out.data_ptr()), float(a),
                      x.numel()};
  Guard(x).run("scale", &scale, p);
  return out;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("scale", TORCH_BOX(&hn::HN_BACKEND::scale_op)); }
