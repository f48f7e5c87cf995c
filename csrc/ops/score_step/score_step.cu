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
  const auto blocks_of = [&](int32_t s) { return (int64_t(p.segments[s].layout.n) + kScoreBlock - 1) / kScoreBlock; };
  return launch_segments(kernel_of(p.rule), &t, p.num_segments, kUnitThreads, stream, blocks_of,
                         [&](int32_t s, int32_t first_block) { return entry_of(p.segments[s], first_block); });
}

}  // namespace cuda
}  // namespace hn
