// filter_nodes.cu: one launch for all maps.
#include "filter_nodes.cuh"

namespace hn {
namespace cuda {

int filter_nodes(const FilterNodesParams& p, void* stream) {
  const int64_t n = int64_t(p.images) * p.nodes * p.out_height * p.out_width;
  if (n == 0) return 0;
  const int64_t blocks = (n + kFilterThreads - 1) / kFilterThreads;
  if (blocks > 0x7fffffff) return kRefused;
  return launch(&filter_nodes_kernel, dim3(unsigned(blocks)), dim3(kFilterThreads), 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
