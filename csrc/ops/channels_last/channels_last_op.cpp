// channels_last_op.cpp: maps turned to channels_last for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include "../../base/backend.h"
#include "channels_last.h"

namespace hn {
namespace cpu {

Tensor channels_last_op(const Tensor& x) {
  const char* op = "channels_last";
  HN_RANGE(op);
  HN_CHECK(x.dim() == 4, op, ": expected x of 4 dimensions, got ", x.dim());
  check_dense(op, "x", x, false);
  Tensor out = empty_on(sizes_of(x), x.scalar_type(), x, true);
  const int32_t bytes = dtype_bytes(dtype_of(op, x));
  if (x.numel() > 0) channels_last({x.data_ptr(), out.data_ptr(), x.size(0), x.size(1), x.size(2) * x.size(3), bytes});
  return out;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) { m.impl("channels_last", TORCH_BOX(&hn::cpu::channels_last_op)); }
#endif
