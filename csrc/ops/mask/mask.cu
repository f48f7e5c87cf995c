// mask.cu: instantiates and launches the kernels of mask.cuh.
#include "mask.cuh"

namespace hn {
namespace cuda {

int rule_mask(const RuleMaskParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  return visit_walk(walk_of(p.layout, draws_words(p.rule)), [&](auto walk) {
    return launch(&rule_mask_kernel<decltype(walk)::value>, unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
  });
}

int pack_mask(const PackMaskParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const bool flat = walk_of(p.layout, false) == Walk::kFlat;
  return launch(flat ? &pack_mask_kernel<Walk::kFlat> : &pack_mask_kernel<Walk::kLogical>, unit_grid(p.layout.n),
                kUnitThreads, 0, stream, p);
}

int unpack_mask(const UnpackMaskParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const bool flat = walk_of(p.layout, false) == Walk::kFlat;
  return launch(flat ? &unpack_mask_kernel<Walk::kFlat> : &unpack_mask_kernel<Walk::kPhysical>, unit_grid(p.layout.n),
                kUnitThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
