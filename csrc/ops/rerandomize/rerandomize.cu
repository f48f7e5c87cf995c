// rerandomize.cu: fills the table of layers and launches: once, for networks of up to 256 layers.
#include "rerandomize.cuh"

namespace hn {
namespace cuda {

int rerandomize(const RerandomizeParams& p, void* stream) {
  RedrawTable t{p.selection, p.order, p.key0, p.key1, p.redraw, p.limit, p.blend, p.decay, p.mix, 0, {}};
  const auto blocks_of = [&](int32_t s) {
    const RedrawSegment& segment = p.segments[s];
    return left_alone(segment, p) ? 0 : (int64_t(segment.layout.n) + kRedrawBlock - 1) / kRedrawBlock;
  };
  return launch_segments(&rerandomize_kernel, &t, p.num_segments, kUnitThreads, stream, blocks_of,
                         [&](int32_t s, int32_t first_block) {
                           const RedrawSegment& segment = p.segments[s];
                           return RedrawEntry{segment, s, first_block, walk_of(segment.layout, true) == Walk::kFlat};
                         });
}

}  // namespace cuda
}  // namespace hn
