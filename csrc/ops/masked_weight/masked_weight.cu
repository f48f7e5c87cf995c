// masked_weight.cu: instantiates and launches the kernels of masked_weight.cuh.
#include "masked_weight.cuh"

namespace hn {
namespace cuda {

int masked_weight(const MaskedWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  return visit_walk(walk_of(p.layout, draws_words(p.source) || draws_words(p.rule)), [&](auto walk) {
    return launch(&masked_weight_kernel<decltype(walk)::value>, unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
  });
}

int masked_weight_backward(const MaskedWeightBackwardParams& p, void* stream) {
  if (p.layout.n == 0 || (p.grad_scores == nullptr && p.grad_weight == nullptr)) return 0;
  return visit_walk(walk_of(p.layout, draws_words(p.source) || draws_words(p.rule)), [&](auto walk) {
    return launch(&masked_weight_backward_kernel<decltype(walk)::value>, unit_grid(p.layout.n), kUnitThreads, 0, stream,
                  p);
  });
}

}  // namespace cuda
}  // namespace hn
