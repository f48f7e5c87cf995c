// score_step_cpu.cpp: the step on a CPU: one pass over memory, a block at a time over all layers.
#include <vector>

#include "../../base/blocks.h"
#include "../../base/segments.h"
#include "../masked_weight/score_gradient_cpu.h"
#include "../topk_select/counts.h"
#include "score_step.h"

namespace hn {
namespace cpu {
namespace {

// keep: all ones or zeros an element, or null. `first` and `second` are only touched where the rule has them.
template <ScoreRule kRule, bool kFlags>
HN_INLINE void step_body(const ScoreHyper* hyper, float rate, float root, const float* __restrict__ grad,
                         const uint32_t* __restrict__ keep, int32_t n, float* __restrict__ scores,
                         float* __restrict__ first, float* __restrict__ second) {
  const ScoreHyper h = *hyper;
  for (int32_t e = 0; e < n; ++e) {
    const float p = scores[e];
    const float m0 = kRule == ScoreRule::kPlain ? 0.0f : first[e], v0 = kRule == ScoreRule::kAdam ? second[e] : 0.0f;
    float m = m0, v = v0;
    const float next = stepped<kRule>(h, rate, root, p, grad[e], &m, &v);
    const uint32_t take = kFlags ? keep[e] : ~0u;
    const auto choose = [take](float now, float old) {
      return bits_float((float_bits(now) & take) | (float_bits(old) & ~take));
    };
    scores[e] = kFlags ? choose(next, p) : next;
    if (kRule != ScoreRule::kPlain) first[e] = kFlags ? choose(m, m0) : m;
    if (kRule == ScoreRule::kAdam) second[e] = kFlags ? choose(v, v0) : v;
  }
}

template <ScoreRule kRule>
HN_INLINE void any_step_body(const ScoreHyper* h, float rate, float root, const float* grad, const uint32_t* keep,
                             int32_t n, float* scores, float* first, float* second) {
  if (keep == nullptr) {
    step_body<kRule, false>(h, rate, root, grad, keep, n, scores, first, second);
  } else {
    step_body<kRule, true>(h, rate, root, grad, keep, n, scores, first, second);
  }
}

HN_DISPATCH_FMA(step_plain, any_step_body<ScoreRule::kPlain>)
HN_DISPATCH_FMA(step_momentum, any_step_body<ScoreRule::kMomentum>)
HN_DISPATCH_FMA(step_nesterov, any_step_body<ScoreRule::kNesterov>)
HN_DISPATCH_FMA(step_adam, any_step_body<ScoreRule::kAdam>)

// grad: of the block; p0: its first position.
void step_block(ScoreRule rule, const ScoreHyper* h, const ScoreSegment& s, const float* grad, const uint32_t* keep,
                int32_t p0, int32_t n) {
  float *scores = s.scores + p0, *first = s.first == nullptr ? nullptr : s.first + p0,
        *second = s.second == nullptr ? nullptr : s.second + p0;
  const float rate = h->rate == nullptr ? s.rate : *h->rate;
  switch (rule) {
    case ScoreRule::kPlain: return step_plain(h, rate, s.root, grad, keep, n, scores, first, second);
    case ScoreRule::kMomentum: return step_momentum(h, rate, s.root, grad, keep, n, scores, first, second);
    case ScoreRule::kNesterov: return step_nesterov(h, rate, s.root, grad, keep, n, scores, first, second);
    case ScoreRule::kAdam: return step_adam(h, rate, s.root, grad, keep, n, scores, first, second);
  }
}

// Where nothing is looked up by OIHW index, the order of the elements does not matter.
Layout walked(const ScoreSegment& s) {
  const bool named =
      s.flags != nullptr || (s.of_weight && (has_flags(s.rule.kind) || s.source.kind > Source::kConstant));
  return named ? s.layout : flat_layout(s.layout.n);
}

}  // namespace

void score_step(const ScoreStepParams& p) {
  const SegmentBlocks blocks(p.num_segments, [&](int32_t s) { return BlockReader(walked(p.segments[s])).blocks(); });
  const TopkSelectParams& next = p.next == nullptr ? TopkSelectParams{} : *p.next;
  const Counts counts(next);
  parallel_for(0, blocks.total(), kParallelGrain / 2 / kBlock, [&](int64_t begin, int64_t end) {
    blocks.visit(begin, end, [&](int32_t at, int64_t b, int64_t stop) {
      const ScoreSegment& s = p.segments[at];
      BlockReader reader(walked(s));
      std::vector<float> made(s.of_weight ? size_t(reader.block()) : 0);  // stays in the cache
      const int32_t group = s.ranked < 0 ? -1 : next.segments[s.ranked].group;
      const bool counted = group >= 0 && !is_settled(next.groups[group]);
      const Bracket bracket = counted ? bracket_around(next.hint[s.ranked]) : Bracket{};
      std::vector<uint32_t> keys(counted ? size_t(reader.block() + kScanRoom) : 0);
      for (; b < stop; ++b) {
        const int32_t p0 = reader.begin(b), n = reader.size(b);
        const float* grad = made.data();
        if (s.of_weight) {
          score_gradient(reader, s.rule, s.source, s.grad, s.grad_dtype, s.scores + p0, p0, n, made.data());
        } else {
          grad = static_cast<const float*>(s.grad) + p0;
        }
        const uint32_t* keep = s.flags == nullptr ? nullptr : reader.plane(s.flags, p0, n);
        step_block(p.rule, &p.hyper, s, grad, keep, p0, n);
        if (counted) counts.add(group, next.order, bracket, s.scores + p0, n, keys.data());
      }
    });
  });
}

}  // namespace cpu
}  // namespace hn
