// network_weight.cu: fills the table of layers and launches: once, for networks of up to 256 layers.
#include "network_weight.cuh"

namespace hn {
namespace cuda {

int network_weight(const NetworkWeightParams& p, void* stream) {
  WeightTable t;
  return launch_segments(
      &network_weight_kernel, &t, p.count, kUnitThreads, stream, [&](int32_t i) { return weight_blocks(p.layers[i]); },
      [&](int32_t i, int32_t first_block) { return weight_entry(p.layers[i], first_block); });
}

}  // namespace cuda
}  // namespace hn
