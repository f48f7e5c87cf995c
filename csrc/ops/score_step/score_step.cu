// score_step.cu: fills the table of layers and launches: once, for networks of up to 256 layers.
#include "score_step.cuh"

namespace hn {
namespace cuda {
namespace {

using ScoreKernel = void (*)(ScoreTable);

ScoreKernel kernel_of(ScoreRule rule) {
  switch (rule) {
    case ScoreRule::kPlain: return &score_step_kernel<ScoreRule::kPlain>;
    case ScoreRule::kMomentum: return &score_step_kernel<ScoreRule::kMomentum>;
    case ScoreRule::kNesterov: return &score_step_kernel<ScoreRule::kNesterov>;
    default: return &score_step_kernel<ScoreRule::kAdam>;
  }
}

}  // namespace

int score_step(const ScoreStepParams& p, void* stream) {
  ScoreTable t;
  t.hyper = p.hyper;
  t.count = 0;
  int64_t blocks = 0;
  int error = 0;
  const auto flush = [&] {
    if (t.count > 0) error = launch(kernel_of(p.rule), dim3(unsigned(blocks)), kUnitThreads, 0, stream, t);
    t.count = 0;
    blocks = 0;
  };
  for (int32_t s = 0; s < p.num_segments && error == 0; ++s) {
    ScoreSegment segment = p.segments[s];
    if (segment.layout.n == 0) continue;
    if (segment.flags == nullptr) segment.layout = flat_layout(segment.layout.n);
    const int64_t more = (int64_t(segment.layout.n) + kScoreBlock - 1) / kScoreBlock;
    if (t.count == kMaxScoreSegments || blocks + more > 0x7fffffff) flush();
    t.entry[t.count++] = {segment, int32_t(blocks), walk_of(segment.layout, false) == Walk::kFlat};
    blocks += more;
  }
  if (error == 0) flush();
  return error;
}

}  // namespace cuda
}  // namespace hn
