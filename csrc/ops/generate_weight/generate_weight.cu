// generate_weight.cu: instantiates and launches the kernels of generate_weight.cuh.
#include "generate_weight.cuh"

namespace hn {
namespace cuda {

int generate_weight(const GenerateWeightParams& p, void* stream) {
  if (p.layout.n == 0) return 0;
  const Piece piece = staged_piece(p.layout, true, {p.out});
  if (piece.channels != 0) {
    return launch(&staged_generate_kernel, dim3(unsigned(staged_blocks(p.layout, piece))), kUnitThreads, 0, stream, p,
                  piece);
  }
  const bool flat = walk_of(p.layout, true) == Walk::kFlat;
  return launch(flat ? &generate_weight_kernel<Walk::kFlat> : &generate_weight_kernel<Walk::kLogical>,
                unit_grid(p.layout.n), kUnitThreads, 0, stream, p);
}

int generate_signs(const GenerateSignsParams& p, void* stream) {
  if (p.n == 0) return 0;
  const int64_t blocks = (int64_t(p.n) + 127) / 128;
  return launch(&generate_signs_kernel, dim3(unsigned((blocks + kUnitThreads - 1) / kUnitThreads)), kUnitThreads, 0,
                stream, p);
}

}  // namespace cuda
}  // namespace hn
