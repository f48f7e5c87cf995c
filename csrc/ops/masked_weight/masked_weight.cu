// masked_weight.cu: instantiates and launches the kernels of masked_weight.cuh.
#include "masked_weight.cuh"

namespace hn {
namespace cuda {

int masked_weight(const MaskedWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const Piece piece = piece_of(p);
  if (piece.channels != 0) {
    return launch(&staged_weight_kernel, dim3(unsigned(staged_blocks(p.layout, piece))), kUnitThreads, 0, stream, p,
                  piece);
  }
  return visit_walk(walk_of(p.layout, draws(p)), [&](auto walk) {
    return launch(&masked_weight_kernel<decltype(walk)::value>, unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
  });
}

int masked_weight_backward(const MaskedWeightBackwardParams& p, void* stream) {
  if (p.layout.n == 0 || (p.grad_scores == nullptr && p.grad_weight == nullptr)) return 0;
  // weights are made for the scores' gradient, masks for the weights'
  const bool draws =
      (p.grad_scores != nullptr && draws_words(p.source)) || (p.grad_weight != nullptr && draws_words(p.rule));
  const Piece piece = staged_piece(p.layout, draws, {p.grad, p.scores, p.source.stored, p.grad_scores, p.grad_weight});
  if (piece.channels != 0) {
    return launch(&staged_backward_kernel, dim3(unsigned(staged_blocks(p.layout, piece))), kUnitThreads, 0, stream, p,
                  piece);
  }
  return visit_walk(walk_of(p.layout, draws), [&](auto walk) {
    return launch(&masked_weight_backward_kernel<decltype(walk)::value>, unit_grid(p.layout.n), kUnitThreads, 0, stream,
                  p);
  });
}

}  // namespace cuda
}  // namespace hn
