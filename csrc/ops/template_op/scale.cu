// scale.cu: launches the kernel of the template op. The `.cu` is where templates are instantiated
// and grids are chosen.
//
// `cuda::scale` has the name, the params and the meaning of `cpu::scale`; it returns what base/launch_error.h
// says, as an int, so that the header stays free of CUDA, and leaves it to the caller (scale_op.cpp) to turn that into a
// message.
#include "scale.cuh"

namespace hn {
namespace cuda {

int scale(const ScaleParams& p, void* stream) {
  if (p.n == 0) return 0;  // a grid of no blocks is an error
  constexpr int64_t kBlockElems = int64_t(kScaleThreads) * kScaleElems;
  const int64_t blocks = (p.n + kBlockElems - 1) / kBlockElems;
  return launch(&scale_kernel, dim3(unsigned(blocks)), kScaleThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
