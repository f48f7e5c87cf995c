// redrawn_weight.cu: instantiates and launches the kernel of redrawn_weight.cuh.
#include "redrawn_weight.cuh"

namespace hn {
namespace cuda {

int redrawn_weight(const RedrawnWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const bool flat = walk_of(p.layout, true) == Walk::kFlat;
  return launch(flat ? &redrawn_weight_kernel<Walk::kFlat> : &redrawn_weight_kernel<Walk::kLogical>,
                unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
