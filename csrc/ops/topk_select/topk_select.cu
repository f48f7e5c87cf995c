// topk_select.cu: instantiates topk_select.cuh for the GPU's block and chunk size.
#include "topk_select.cuh"

namespace hn {
namespace cuda {

size_t topk_select_workspace(const TopkSelectParams& p) { return select_workspace<kSelectChunk>(p); }

size_t topk_counts_bytes(const TopkSelectParams& p) { return select_counts<kSelectChunk>(p); }

int topk_select(const TopkSelectParams& p, void* stream) {
  return select_in_chunks<kSelectThreads, kSelectChunk>(p, stream);
}

}  // namespace cuda
}  // namespace hn
