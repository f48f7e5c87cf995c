// redrawn_weight.cu: instantiates and launches the kernel of redrawn_weight.cuh.
#include "redrawn_weight.cuh"

namespace hn {
namespace cuda {

int redrawn_weight(const RedrawnWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const Piece piece = staged_piece(p.layout, true, {p.redraws, p.out});
  if (piece.channels != 0) {
    return launch(&staged_redrawn_kernel, dim3(unsigned(staged_blocks(p.layout, piece))), kUnitThreads, 0, stream, p,
                  piece);
  }
  const bool flat = walk_of(p.layout, true) == Walk::kFlat;
  return launch(flat ? &redrawn_weight_kernel<Walk::kFlat> : &redrawn_weight_kernel<Walk::kLogical>,
                unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
