// rerandomize.cu: fills the table of layers and launches: once, for networks of up to 256 layers.
#include "rerandomize.cuh"

namespace hn {
namespace cuda {

int rerandomize(const RerandomizeParams& p, void* stream) {
  RedrawTable t{p.selection, p.order, p.key0, p.key1, p.redraw, p.limit, p.blend, p.decay, p.mix, 0, {}};
  return launch_segments(
      &rerandomize_kernel, &t, p.num_segments, kUnitThreads, stream,
      [&](int32_t s) { return left_alone(p.segments[s], p) ? 0 : redraw_blocks(p.segments[s]); },
      [&](int32_t s, int32_t first_block) { return redraw_entry(p.segments[s], s, first_block); });
}

}  // namespace cuda
}  // namespace hn
