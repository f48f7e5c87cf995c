// score_step_op.cpp: score_step_ for torch: one call changes the scores and the optimiser's state of all layers.
#include <cmath>

#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "score_step.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "score_step_";

// Of the layers whose gradient is that of the effective weight: what it is made of, a list element a layer.
struct WeightArgs {
  const Sizes& rules;               // -1: the gradient is the scores' own, and the layer's other arguments are ignored
  const std::vector<Tensor>& bits;  // of rules with flags; else empty
  const Sizes& sources;
  const std::vector<Tensor>& parts;  // stored weights or the plane of signs; else empty
  const std::vector<double>& scales;
  const Sizes& draws;  // three a layer: seed, layer, redraw
};

void add_weight(const WeightArgs& a, size_t i, const Tensor& grad, const Tensor& like, ScoreSegment* s) {
  HN_CHECK(a.rules[i] <= int64_t(RuleKind::kScored), kOp, ": expected a rule code -1..7, got ", a.rules[i]);
  s->of_weight = true;
  s->rule.kind = RuleKind(a.rules[i]);
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

// second: kAdam. flags: none, or one a layer, empty where all elements take part.
void score_step_op(const std::vector<Tensor>& scores, const std::vector<Tensor>& grads,
                   const std::vector<Tensor>& first, const std::vector<Tensor>& second,
                   const std::vector<Tensor>& flags, const Sizes& steps, double lr, double weight_decay, double l1,
                   double l2, double low, double high, double momentum, bool nesterov, double beta1, double beta2,
                   double eps, const Sizes& rules, const std::vector<Tensor>& bits, const Sizes& sources,
                   const std::vector<Tensor>& parts, const std::vector<double>& scales, const Sizes& draws,
                   const OptionalTensor& rate) {
  HN_RANGE("score_step_");
  const size_t rows = scores.size();
  const bool adam = !second.empty();
  HN_CHECK(rows > 0 && grads.size() == rows, kOp, ": expected one gradient for each of ", rows, " tensors of scores");
  HN_CHECK((first.empty() && !adam) || first.size() == rows, kOp, ": expected one `first` for each tensor, or none");
  HN_CHECK(!adam || (second.size() == rows && steps.size() == rows), kOp,
           ": expected one `second` and one step for each tensor");
  HN_CHECK(flags.empty() || flags.size() == rows, kOp, ": expected one plane of flags for each tensor, or none");
  const bool of_weights = !rules.empty();
  HN_CHECK(!of_weights || (rules.size() == rows && bits.size() == rows && sources.size() == rows &&
                           parts.size() == rows && scales.size() == rows && draws.size() == 3 * rows),
           kOp, ": expected what weights are made of for each tensor, or for none");
  if (rate.has_value() && rate->defined()) {
    HN_CHECK(!adam, kOp, ": expected no tensor of the rate with Adam, whose rate depends on the step");
    check_part(kOp, "rate", rate, ScalarType::Float, 1, scores[0]);
  }
  std::vector<ScoreSegment> segments;
  for (size_t i = 0; i < rows; ++i) {
    const Tensor& t = scores[i];
    check_type(kOp, "scores", t, ScalarType::Float);
    check_same_device(kOp, "scores", t, scores[0]);
    const bool channels_last = !t.is_contiguous();
    check_dense(kOp, "scores", t, channels_last);
    ScoreSegment s{};
    s.scores = static_cast<float*>(t.data_ptr());
    s.layout = layout_of(kOp, sizes_of(t), channels_last);
    if (of_weights && rules[i] >= 0) {
      add_weight({rules, bits, sources, parts, scales, draws}, i, grads[i], t, &s);
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
  Guard(scores[0]).run(kOp, &score_step, ScoreStepParams{segments.data(), int32_t(rows), rule, hyper});
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("score_step_", TORCH_BOX(&hn::HN_BACKEND::score_step_op)); }
