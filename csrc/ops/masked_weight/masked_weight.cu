// masked_weight.cu: instantiates and launches the kernels of masked_weight.cuh.
#include "masked_weight.cuh"

namespace hn {
namespace cuda {

int masked_weight(const MaskedWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const bool draws = draws_words(p.source) || draws_words(p.rule);
  const Piece piece = staged_piece(p.layout, draws, p.out);
  if (piece.channels != 0) {
    return launch(&staged_weight_kernel, dim3(unsigned(staged_blocks(p.layout, piece))), kUnitThreads, 0, stream, p,
                  piece);
  }
  return visit_walk(walk_of(p.layout, draws), [&](auto walk) {
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
