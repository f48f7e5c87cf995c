// score_step_op.cpp: score_step_ for torch: one call changes the scores and the optimiser's state of all layers.
#include <algorithm>
#include <cmath>

#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "../topk_select/select_args.h"
#include "score_step.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "score_step_";

// What the effective weights are made of, a list element each layer whose gradient is that of its weight.
struct WeightArgs {
  const std::vector<Tensor>& bits;  // of rules with flags; else an empty one, or no list where no rule has
  const Sizes& sources;
  const std::vector<Tensor>& parts;  // stored weights or the plane of signs; else empty
  const std::vector<double>& scales;
  const Sizes& draws;  // three a layer: seed, layer, redraw
};

void add_weight(const WeightArgs& a, size_t i, int64_t rule, const Tensor& grad, const Tensor& like, ScoreSegment* s) {
  HN_CHECK(rule <= int64_t(RuleKind::kScored), kOp, ": expected a rule code -1..7, got ", rule);
  s->of_weight = true;
  s->rule.kind = RuleKind(rule);
  if (has_flags(s->rule.kind)) {
    s->rule.bits = flags_beside(kOp, a.bits, i, s->layout, like);
    HN_CHECK(s->rule.bits != nullptr, kOp, ": expected bits for this rule, got none");
  }
  const bool is_stored = Source(a.sources[i]) == Source::kStored;
  const OptionalTensor part = a.parts[i], none;
  s->source = make_source(kOp,
                          {a.sources[i], is_stored ? part : none, is_stored ? none : part, a.scales[i], a.draws[3 * i],
                           a.draws[3 * i + 1], a.draws[3 * i + 2]},
                          s->layout.n, s->layout.channels_last, like);
  s->grad_dtype = dtype_of(kOp, grad);
  check_part(kOp, "grads", grad, grad.scalar_type(), s->layout.n, like);
  check_dense(kOp, "grads", grad, s->layout.channels_last);
  s->grad = grad.data_ptr();
}

}  // namespace

// second: kAdam. flags: none, or one a layer, empty where all elements take part. rules: none, or one a layer; -1 where
// the gradient is the scores' own. counts: what topk_select_ will be
// given for the scores of these numbers, `ranked`, in that order, with these rows and k; or none.
void score_step_op(const std::vector<Tensor>& scores, const std::vector<Tensor>& grads,
                   const std::vector<Tensor>& first, const std::vector<Tensor>& second,
                   const std::vector<Tensor>& flags, const Sizes& steps, double lr, double weight_decay, double l1,
                   double l2, double low, double high, double momentum, bool nesterov, double beta1, double beta2,
                   double eps, const Sizes& rules, const std::vector<Tensor>& bits, const Sizes& sources,
                   const std::vector<Tensor>& parts, const std::vector<double>& scales, const Sizes& draws,
                   const OptionalTensor& rate, const OptionalTensor& counts, const OptionalTensor& rows,
                   const Sizes& ranked, const Sizes& k, bool by_value, bool network_wide) {
  HN_RANGE("score_step_");
  const size_t count = scores.size();
  const bool adam = !second.empty();
  HN_CHECK(count > 0 && grads.size() == count, kOp, ": expected one gradient for each of ", count,
           " tensors of scores");
  HN_CHECK((first.empty() && !adam) || first.size() == count, kOp, ": expected one `first` for each tensor, or none");
  HN_CHECK(!adam || (second.size() == count && steps.size() == count), kOp,
           ": expected one `second` and one step for each tensor");
  HN_CHECK(flags.empty() || flags.size() == count, kOp, ": expected one plane of flags for each tensor, or none");
  const size_t weights = size_t(std::count_if(rules.begin(), rules.end(), [](int64_t rule) { return rule >= 0; }));
  size_t weight = 0;  // among those
  HN_CHECK(rules.empty() ||
               (rules.size() == count && (bits.empty() || bits.size() == weights) && sources.size() == weights &&
                parts.size() == weights && scales.size() == weights && draws.size() == 3 * weights),
           kOp, ": expected a rule or -1 for each tensor, and what its weight is made of for each of ", weights,
           " rules");
  if (rate.has_value() && rate->defined()) {
    HN_CHECK(!adam, kOp, ": expected no tensor of the rate with Adam, whose rate depends on the step");
    check_part(kOp, "rate", rate, ScalarType::Float, 1, scores[0]);
  }
  std::vector<ScoreSegment> segments;
  for (size_t i = 0; i < count; ++i) {
    const Tensor& t = scores[i];
    check_type(kOp, "scores", t, ScalarType::Float);
    check_same_device(kOp, "scores", t, scores[0]);
    const bool channels_last = !t.is_contiguous();
    check_dense(kOp, "scores", t, channels_last);
    ScoreSegment s{};
    s.scores = static_cast<float*>(t.data_ptr());
    s.layout = layout_of(kOp, sizes_of(t), channels_last);
    if (!rules.empty() && rules[i] >= 0) {
      add_weight({bits, sources, parts, scales, draws}, weight++, rules[i], grads[i], t, &s);
    } else {
      s.grad = floats_beside(kOp, "grads", grads[i], s.layout, t);
    }
    if (!first.empty()) s.first = floats_beside(kOp, "first", first[i], s.layout, t);
    s.rate = float(lr);
    if (adam) {
      HN_CHECK(steps[i] >= 1, kOp, ": expected steps from 1 on, got ", steps[i]);
      s.second = floats_beside(kOp, "second", second[i], s.layout, t);
      s.rate = float(lr / (1.0 - std::pow(beta1, double(steps[i]))));
      s.root = float(std::sqrt(1.0 - std::pow(beta2, double(steps[i]))));
    }
    s.flags = flags_beside(kOp, flags, i, s.layout, t);
    segments.push_back(s);
  }
  const ScoreHyper hyper{float(weight_decay + 2.0 * l2),
                         float(l1),
                         float(momentum),
                         float(1.0 - beta1),
                         float(beta2),
                         float(1.0 - beta2),
                         float(eps),
                         float(low),
                         float(high),
                         pointer_or_null<const float>(rate)};
  const ScoreRule rule =
      adam ? ScoreRule::kAdam
           : (first.empty() ? ScoreRule::kPlain : (nesterov ? ScoreRule::kNesterov : ScoreRule::kMomentum));
  ScoreStepParams p{segments.data(), int32_t(count), rule, hyper};
  std::optional<Ranking> next;
  if (counts.has_value() && counts->defined()) {
    std::vector<Tensor> of;
    for (size_t i = 0; i < ranked.size(); ++i) {
      HN_CHECK(ranked[i] >= 0 && size_t(ranked[i]) < count && segments[size_t(ranked[i])].ranked < 0, kOp,
               ": expected ranked to name some of ", count, " tensors, each once, got ", ranked[i]);
      segments[size_t(ranked[i])].ranked = int32_t(i);
      of.push_back(scores[size_t(ranked[i])]);
    }
    HN_CHECK(rows.has_value() && rows->defined(), kOp, ": expected rows to count around, got none");
    next.emplace(kOp, of, k, by_value, network_wide, false);
    next->params().hint = selection_rows(kOp, "rows", *rows, of.size(), scores[0]);
    next->set_counts(kOp, counts, scores[0]);
    p.next = &next->params();
  }
  Guard(scores[0]).run(kOp, &score_step, p);
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("score_step_", TORCH_BOX(&hn::HN_BACKEND::score_step_op)); }
