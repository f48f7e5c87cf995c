// rerandomize.cu: fills the table of layers and launches: once, for networks of up to 256 layers.
#include "rerandomize.cuh"

namespace hn {
namespace cuda {

int rerandomize(const RerandomizeParams& p, void* stream) {
  RedrawTable t{p.selection, p.order, p.key0, p.key1, p.redraw, p.limit, p.blend, p.decay, p.mix, 0, {}};
  int64_t blocks = 0;
  int error = 0;
  const auto flush = [&] {
    if (t.count > 0) error = launch(&rerandomize_kernel, dim3(unsigned(blocks)), kUnitThreads, 0, stream, t);
    t.count = 0;
    blocks = 0;
  };
  for (int32_t s = 0; s < p.num_segments && error == 0; ++s) {
    const RedrawSegment& segment = p.segments[s];
    if (left_alone(segment, p)) continue;
    const int64_t more = (int64_t(segment.layout.n) + kRedrawBlock - 1) / kRedrawBlock;
    if (t.count == kMaxRedrawSegments || blocks + more > 0x7fffffff) flush();
    t.entry[t.count++] = {segment, s, int32_t(blocks), walk_of(segment.layout, true) == Walk::kFlat};
    blocks += more;
  }
  if (error == 0) flush();
  return error;
}

}  // namespace cuda
}  // namespace hn
