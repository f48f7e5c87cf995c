// strike_out.cu: instantiates the kernels for the GPU's block and chunk size.
#include "count_flags.cuh"
#include "strike_out.cuh"

namespace hn {
namespace cuda {

size_t strike_out_workspace(const StrikeOutParams& p) { return strike_workspace<kStrikeChunk>(p); }

int strike_out(const StrikeOutParams& p, void* stream) {
  return strike_in_chunks<kStrikeThreads, kStrikeChunk>(p, stream);
}

int count_flags(const CountFlagsParams& p, void* stream) { return count_flags_in_blocks<kCountThreads>(p, stream); }

}  // namespace cuda
}  // namespace hn
