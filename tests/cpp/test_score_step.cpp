// test_score_step.cpp: steps on the scores of whole networks: kernel and CPU loops, bit for bit against the one-element
// function, and that function against the formulas in double precision.
#include <cmath>
#include <limits>

#include "base/isa.h"
#include "device.h"
#include "ops/score_step/score_step.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const ScoreRule kRules[] = {ScoreRule::kPlain, ScoreRule::kMomentum, ScoreRule::kNesterov, ScoreRule::kAdam};
const ScoreHyper kClamped{0.03f, 0.007f, 0.9f, 0.1f, 0.999f, 0.001f, 1e-8f, 0.0f, 1.0f};
const ScoreHyper kFree{0.0f, 0.0f, 0.5f, 0.2f, 0.98f, 0.02f, 1e-3f, -kInf, kInf};

struct Layer {
  Layout layout;
  bool flagged;
  std::vector<float> scores, grad, first, second;
  std::vector<uint8_t> flags;
  float rate, root;
  bool of_weight = false;  // `grad` is that of the effective weight, which is made of what follows
  Dtype dtype = Dtype::kFloat32;
  RuleKind rule = RuleKind::kMagnitude;
  WeightSource source{};
  std::vector<uint8_t> bits{}, plane{};
  std::vector<float> stored{};

  std::vector<uint8_t> grad_bytes() const {
    std::vector<uint8_t> bytes(grad.size() * size_t(dtype_bytes(dtype)));
    for (size_t i = 0; i < grad.size(); ++i) store_float(bytes.data(), dtype, int64_t(i), grad[i]);
    return bytes;
  }

  // The same with its planes and numbers elsewhere.
  void describe(const uint8_t* rule_bits, const uint8_t* signs, const float* weights, ScoreSegment* to) const {
    to->of_weight = of_weight;
    to->grad_dtype = dtype;
    to->rule.kind = rule;
    to->rule.bits = rule_bits;
    to->source = source;
    to->source.plane = signs;
    to->source.stored = weights;
  }

  // Of element i at place p; `bytes`: grad_bytes().
  float gradient(const uint8_t* bytes, int32_t i, int32_t p) const {
    if (!of_weight) return grad[size_t(p)];
    ScoreSegment s{};
    describe(bits.data(), plane.data(), stored.data(), &s);
    const float product = mul_rn(load_as_float(bytes, dtype, p), weight_at(s.source, p, i));
    if (has_flags(rule)) return bit_of(bits.data(), i) ? product : 0.0f;
    return mul_rn(product, surrogate(s.rule, scores[size_t(p)], i));
  }
};

Layer make_layer(const Layout& layout, bool flagged) {
  Layer l{layout, flagged, {}, {}, {}, {}, {}, 0.3f + 0.01f * float(layout.n % 7), 0.5f};
  Random random(uint64_t(layout.n) * 2 + flagged);
  for (int32_t p = 0; p < layout.n; ++p) {
    l.scores.push_back(p % 11 == 0 ? 0.0f : 1.2f * random.symmetric());
    l.grad.push_back(p == 17 ? kNan : random.symmetric());
    l.first.push_back(random.symmetric());
    l.second.push_back(random.uniform());
  }
  for (int32_t b = 0; b < (layout.n + 7) / 8; ++b) {
    l.flags.push_back(uint8_t(b % 5 == 0 ? 0 : (b % 5 == 1 ? 255 : random.below(256))));
  }
  return l;
}

// The same layer, whose gradient is that of its weight.
Layer of_weight(Layer l, RuleKind rule, Source source, Dtype dtype) {
  Random random(uint64_t(l.layout.n) * 31 + uint64_t(source));
  l.of_weight = true;
  l.rule = rule;
  l.dtype = dtype;
  l.source.kind = source;
  l.source.scale = 0.37f;
  l.source.draw = {5, 6, 7, 8};
  for (int32_t p = 0; p < l.layout.n; ++p) l.stored.push_back(random.symmetric());
  for (int32_t b = 0; b < (l.layout.n + 7) / 8; ++b) {
    l.plane.push_back(uint8_t(random.below(256)));
    l.bits.push_back(uint8_t(random.below(256)));
  }
  if (l.layout.n > 40) {
    l.scores[37] = kNan;
    l.scores[38] = -0.0f;
  }
  return l;
}

// Every source under every rule that scores learn by, in every dtype, in turns; layers of their own among them.
std::vector<Layer> make_weights() {
  const Layout layouts[] = {{33 * 16 * 9, 16 * 9, 16, 9, true}, {5 * 24 * 9, 24 * 9, 24, 9, true},
                            {7 * 13 * 9, 13 * 9, 13, 9, true},  {33 * 16 * 9, 16 * 9, 16, 9, false},
                            {6 * 25, 25, 1, 25, true},          flat_layout(2050)};
  const RuleKind rules[] = {RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kRounded, RuleKind::kScored};
  std::vector<Layer> net;
  int turn = 0;
  for (const Source source : kSources) {
    for (const RuleKind rule : rules) {
      for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16}) {
        net.push_back(of_weight(make_layer(layouts[turn % 6], turn % 4 == 3), rule, source, dtype));
        ++turn;
      }
    }
    net.push_back(make_layer(layouts[turn % 6], turn % 2 == 0));
  }
  for (const Layout& layout : layouts) {
    for (const RuleKind rule : {RuleKind::kMagnitude, RuleKind::kValue}) {
      for (const Dtype dtype : {Dtype::kFloat32, Dtype::kBFloat16}) {
        net.push_back(of_weight(make_layer(layout, false), rule, Source::kSigns, dtype));
      }
    }
  }
  return net;
}

std::vector<Layer> make_net() {
  std::vector<Layer> net;
  for (const int n : {1, 7, 8, 31, 33, 255, 1023, 1025, 2049, 4099}) {
    for (const bool flagged : {false, true}) net.push_back(make_layer(flat_layout(n), flagged));
  }
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9}, {33, 17, 9}, {6, 1, 25}, {4, 32, 1}, {1, 9, 3}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) {
      for (const bool flagged : {false, true}) {
        net.push_back(make_layer({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last}, flagged));
      }
    }
  }
  return net;
}

std::vector<float> state(const std::vector<Layer>& net) {
  std::vector<float> all;
  for (const Layer& l : net) {
    for (const auto* part : {&l.scores, &l.first, &l.second}) all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

float step_one(ScoreRule rule, const ScoreHyper& h, const Layer& l, float p, float g, float* m, float* v) {
  switch (rule) {
    case ScoreRule::kPlain: return stepped<ScoreRule::kPlain>(h, l.rate, l.root, p, g, m, v);
    case ScoreRule::kMomentum: return stepped<ScoreRule::kMomentum>(h, l.rate, l.root, p, g, m, v);
    case ScoreRule::kNesterov: return stepped<ScoreRule::kNesterov>(h, l.rate, l.root, p, g, m, v);
    default: return stepped<ScoreRule::kAdam>(h, l.rate, l.root, p, g, m, v);
  }
}

std::vector<Layer> expected(ScoreRule rule, const ScoreHyper& h, std::vector<Layer> net) {
  for (Layer& l : net) {
    const std::vector<uint8_t> bytes = l.grad_bytes();
    for (int32_t i = 0; i < l.layout.n; ++i) {
      const size_t p = size_t(l.layout.physical(i));
      if (l.flagged && !(l.flags[size_t(i / 8)] >> (i % 8) & 1)) continue;
      const float grad = l.gradient(bytes.data(), i, int32_t(p));
      l.scores[p] = step_one(rule, h, l, l.scores[p], grad, &l.first[p], &l.second[p]);
    }
  }
  return net;
}

std::vector<float> step_cpu(ScoreRule rule, const ScoreHyper& h, std::vector<Layer> net) {
  std::vector<ScoreSegment> segments;
  std::vector<std::vector<uint8_t>> grads;
  for (Layer& l : net) {
    grads.push_back(l.grad_bytes());
    segments.push_back({l.scores.data(), grads.back().data(), rule == ScoreRule::kPlain ? nullptr : l.first.data(),
                        rule == ScoreRule::kAdam ? l.second.data() : nullptr, l.flagged ? l.flags.data() : nullptr,
                        l.layout, l.rate, l.root});
    l.describe(l.bits.data(), l.plane.data(), l.stored.data(), &segments.back());
  }
  cpu::score_step({segments.data(), int32_t(segments.size()), rule, h});
  return state(net);
}

// `skew`: elements between a 256-byte boundary and the data.
std::vector<float> step_cuda(ScoreRule rule, const ScoreHyper& h, std::vector<Layer> net, size_t skew) {
  std::vector<std::unique_ptr<Buffer<float>>> parts;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> flags;
  std::vector<ScoreSegment> segments;
  const auto copy = [&](std::vector<float> values) {
    values.insert(values.begin(), skew, 0.0f);
    parts.push_back(std::make_unique<Buffer<float>>(values));
    return parts.back()->data() + skew;
  };
  const auto bytes = [&](std::vector<uint8_t> values, size_t before) {
    values.insert(values.begin(), before, uint8_t(0));
    flags.push_back(std::make_unique<Buffer<uint8_t>>(values));
    return flags.back()->data() + before;
  };
  for (const Layer& l : net) {
    const uint8_t* grad = bytes(l.grad_bytes(), skew * size_t(dtype_bytes(l.dtype)));
    float *scores = copy(l.scores), *first = copy(l.first), *second = copy(l.second);
    segments.push_back({scores, grad, rule == ScoreRule::kPlain ? nullptr : first,
                        rule == ScoreRule::kAdam ? second : nullptr, l.flagged ? bytes(l.flags, 0) : nullptr, l.layout,
                        l.rate, l.root});
    const uint8_t *bits = bytes(l.bits, 0), *plane = bytes(l.plane, 0);
    l.describe(bits, plane, copy(l.stored), &segments.back());
  }
  CHECK_EQ(cuda::score_step({segments.data(), int32_t(segments.size()), rule, h}, nullptr), 0);
  for (size_t l = 0; l < net.size(); ++l) {
    const auto back = [&](size_t part, std::vector<float>* to) {
      const std::vector<float> values = parts[4 * l + part]->read();
      to->assign(values.begin() + long(skew), values.end());
    };
    back(0, &net[l].scores);
    back(1, &net[l].first);
    back(2, &net[l].second);
  }
  return state(net);
}

TEST(networks_step_as_their_elements) {
  const std::vector<Layer> net = make_net();
  for (const ScoreRule rule : kRules) {
    for (const ScoreHyper& h : {kClamped, kFree}) {
      const Context context("rule " + std::to_string(int(rule)) + (h.l1 == 0 ? ", free" : ", clamped"));
      const std::vector<float> want = state(expected(rule, h, net));
      for (const Isa path : {detect_isa(), Isa::kScalar}) {
        isa() = path;
        const std::vector<float> got = step_cpu(rule, h, net);
        isa() = detect_isa();
        CHECK_EQ(got, want);
      }
      for (const size_t skew : {size_t(0), size_t(1)}) {
        CHECK_EQ(test::same_in_every_order([&] { return step_cuda(rule, h, net, skew); }), want);
      }
    }
  }
}

TEST(gradients_of_weights_step_as_those_of_scores) {
  const std::vector<Layer> net = make_weights();
  for (const ScoreRule rule : kRules) {
    const Context context("rule " + std::to_string(int(rule)));
    const std::vector<float> want = state(expected(rule, kClamped, net));
    for (const Isa path : {detect_isa(), Isa::kScalar}) {
      isa() = path;
      const std::vector<float> got = step_cpu(rule, kClamped, net);
      isa() = detect_isa();
      CHECK_EQ(got, want);
    }
    for (const size_t skew : {size_t(0), size_t(1)}) CHECK_EQ(step_cuda(rule, kClamped, net, skew), want);
  }
}

TEST(a_rate_in_memory_is_that_of_the_layers) {
  std::vector<Layer> net = make_net();
  for (Layer& l : net) l.rate = 0.25f;
  const std::vector<float> want = state(expected(ScoreRule::kMomentum, kClamped, net));
  for (Layer& l : net) l.rate = 99.0f;
  const float rate = 0.25f;
  Buffer<float> device_rate(std::vector<float>{rate});
  ScoreHyper h = kClamped;
  h.rate = &rate;
  CHECK_EQ(step_cpu(ScoreRule::kMomentum, h, net), want);
  h.rate = device_rate.data();
  CHECK_EQ(step_cuda(ScoreRule::kMomentum, h, net, 0), want);
}

TEST(many_layers_need_a_second_table) {
  std::vector<Layer> net;
  for (int l = 0; l < 300; ++l) net.push_back(make_layer(flat_layout(9 + l % 3), l % 2 == 0));
  const std::vector<float> want = state(expected(ScoreRule::kAdam, kClamped, net));
  CHECK_EQ(step_cpu(ScoreRule::kAdam, kClamped, net), want);
  CHECK_EQ(step_cuda(ScoreRule::kAdam, kClamped, net, 0), want);
}

// The formulas of the header in double precision.
TEST(elements_follow_the_formulas) {
  Random random(1);
  for (const ScoreRule rule : kRules) {
    for (int i = 0; i < 2000; ++i) {
      const double p = random.uniform(), g0 = random.symmetric(), m0 = random.symmetric(), v0 = random.uniform();
      const ScoreHyper& h = kClamped;
      const Layer l = make_layer(flat_layout(1), false);
      float m = float(m0), v = float(v0);
      const float got = step_one(rule, h, l, float(p), float(g0), &m, &v);
      const double g = g0 + double(h.decay) * p + double(h.l1) * (p > 0 ? 1 : 0);
      double want = p - double(l.rate) * g, m1 = m0, v1 = v0;
      if (rule == ScoreRule::kAdam) {
        m1 = m0 + double(h.first_share) * (g - m0);
        v1 = double(h.second_keep) * v0 + double(h.second_share) * g * g;
        want = p - double(l.rate) * m1 / (std::sqrt(v1) / double(l.root) + double(h.eps));
      } else if (rule != ScoreRule::kPlain) {
        m1 = double(h.momentum) * m0 + g;
        want = p - double(l.rate) * (rule == ScoreRule::kNesterov ? g + double(h.momentum) * m1 : m1);
      }
      want = std::min(std::max(want, 0.0), 1.0);
      CHECK(std::fabs(double(got) - want) < 2e-6);
      CHECK(std::fabs(double(m) - m1) < 1e-6);
      CHECK(std::fabs(double(v) - v1) < 1e-6);
    }
  }
}

}  // namespace
