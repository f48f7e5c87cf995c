// score_step.cu: fills the table of layers and launches: once, for networks of up to 216 layers.
#include "score_step.cuh"

namespace hn {
namespace cuda {

// For the chunks that `topk_select` cuts scores into.
template <int kChunk>
int score_step_in_chunks(const ScoreStepParams& p, void* stream) {
  ScoreTable t;
  t.hyper = p.hyper;
  t.rows = nullptr;
  t.counts = {};
  SelectTable next;
  if (p.next != nullptr) {
    if (select_counts<kChunk>(*p.next) == 0) return kRefused;
    const int error = make_table<kChunk>(*p.next, {0, p.next->num_groups}, &next);
    if (error != 0) return error;
    t.rows = p.next->hint;
    t.order = p.next->order;
    t.counts = next.counts;
  }
  int32_t at[kMaxSegments];  // where the table has the segments of `next`
  for (int32_t i = 0; p.next != nullptr && i < next.num_segments; ++i) at[next.segment[i].row] = i;
  const auto kernel_of = [&](auto counts) -> void (*)(ScoreTable) {
    constexpr bool kCounts = decltype(counts)::value;
    switch (p.rule) {
      case ScoreRule::kPlain: return &score_step_kernel<ScoreRule::kPlain, kCounts>;
      case ScoreRule::kMomentum: return &score_step_kernel<ScoreRule::kMomentum, kCounts>;
      case ScoreRule::kNesterov: return &score_step_kernel<ScoreRule::kNesterov, kCounts>;
      default: return &score_step_kernel<ScoreRule::kAdam, kCounts>;
    }
  };
  const auto blocks_of = [&](int32_t s) { return score_blocks(p.segments[s]); };
  const auto entry = [&](int32_t s, int32_t first_block) {
    ScoreEntry e = entry_of(p.segments[s], first_block);
    if (p.next == nullptr || p.segments[s].ranked < 0) return e;
    const SegmentEntry& ranked = next.segment[at[p.segments[s].ranked]];
    const GroupEntry& group = next.group[ranked.group];
    if (group.settled()) return e;
    e.count = {uint32_t(group.first_chunk) * kCapacity<kChunk>, uint32_t(group.chunks) * kCapacity<kChunk>,
               uint32_t(ranked.first_chunk - group.first_chunk) * kChunk + skew_of(ranked.scores), ranked.row,
               ranked.group};
    return e;
  };
  return launch_segments(p.next == nullptr ? kernel_of(std::false_type{}) : kernel_of(std::true_type{}), &t,
                         p.num_segments, kUnitThreads, stream, blocks_of, entry);
}

int score_step(const ScoreStepParams& p, void* stream) { return score_step_in_chunks<kSelectChunk>(p, stream); }

}  // namespace cuda
}  // namespace hn
