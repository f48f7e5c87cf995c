// bop_step.cu: clears the counters, fills the table of layers and launches: once, for networks of up to 256 layers.
#include "bop_step.cuh"

namespace hn {
namespace cuda {

int bop_step(const BopStepParams& p, void* stream) {
  const int error = fill_zero(p.scratch, size_t(p.num_segments) * sizeof *p.scratch, stream);
  if (error != 0) return error;
  BopTable t;
  t.hyper = p.hyper;
  const auto blocks_of = [&](int32_t s) {  // a layer without elements has a counter to set, too
    const int64_t blocks = (int64_t(p.segments[s].layout.n) + kBopBlock - 1) / kBopBlock;
    return blocks > 0 ? blocks : int64_t(1);
  };
  return launch_segments(&bop_step_kernel, &t, p.num_segments, kUnitThreads, stream, blocks_of,
                         [&](int32_t s, int32_t first_block) {
                           BopSegment segment = p.segments[s];
                           if (segment.flags == nullptr) segment.layout = flat_layout(segment.layout.n);
                           const bool flat = walk_of(segment.layout, false) == Walk::kFlat;
                           return BopEntry{segment, p.scratch + s, first_block, int32_t(blocks_of(s)), flat};
                         });
}

}  // namespace cuda
}  // namespace hn
