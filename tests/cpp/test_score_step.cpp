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
    for (int32_t i = 0; i < l.layout.n; ++i) {
      const size_t p = size_t(l.layout.physical(i));
      if (l.flagged && !(l.flags[size_t(i / 8)] >> (i % 8) & 1)) continue;
      l.scores[p] = step_one(rule, h, l, l.scores[p], l.grad[p], &l.first[p], &l.second[p]);
    }
  }
  return net;
}

std::vector<float> step_cpu(ScoreRule rule, const ScoreHyper& h, std::vector<Layer> net) {
  std::vector<ScoreSegment> segments;
  for (Layer& l : net) {
    segments.push_back({l.scores.data(), l.grad.data(), rule == ScoreRule::kPlain ? nullptr : l.first.data(),
                        rule == ScoreRule::kAdam ? l.second.data() : nullptr, l.flagged ? l.flags.data() : nullptr,
                        l.layout, l.rate, l.root});
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
  for (const Layer& l : net) {
    float *scores = copy(l.scores), *grad = copy(l.grad), *first = copy(l.first), *second = copy(l.second);
    flags.push_back(std::make_unique<Buffer<uint8_t>>(l.flags));
    segments.push_back({scores, grad, rule == ScoreRule::kPlain ? nullptr : first,
                        rule == ScoreRule::kAdam ? second : nullptr, l.flagged ? flags.back()->data() : nullptr,
                        l.layout, l.rate, l.root});
  }
  CHECK_EQ(cuda::score_step({segments.data(), int32_t(segments.size()), rule, h}, nullptr), 0);
  for (size_t l = 0; l < net.size(); ++l) {
    const auto back = [&](size_t part, std::vector<float>* to) {
      const std::vector<float> values = parts[4 * l + part]->read();
      to->assign(values.begin() + long(skew), values.end());
    };
    back(0, &net[l].scores);
    back(2, &net[l].first);
    back(3, &net[l].second);
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
