// test_layer.cpp: what describes a layer: keys, layouts, rules, weight sources, and the block
// reader of the CPU loops.
#include <cmath>
#include <limits>

#include "base/blocks.h"
#include "base/key.cuh"
#include "base/launch.cuh"
#include "base/layout.cuh"
#include "base/rule.cuh"
#include "base/source.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;
using hn::Layout;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();

// --- Keys.

TEST(keys_by_eye) {
  CHECK_EQ(hn::magnitude_key(hn::float_bits(-0.0f)), 0u);
  CHECK_EQ(hn::magnitude_key(hn::float_bits(-1.0f)), 0x3f800000u);
  CHECK_EQ(hn::value_key(hn::float_bits(0.0f)), 0x80000000u);
  CHECK_EQ(hn::value_key(hn::float_bits(-0.0f)), 0x80000000u);
  CHECK_EQ(hn::value_key(hn::float_bits(1.0f)), 0xbf800000u);
  CHECK_EQ(hn::value_key(hn::float_bits(-1.0f)), 0x407fffffu);
  for (uint32_t nan : {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0xffffffffu}) {
    CHECK_EQ(hn::magnitude_key(nan), hn::kNanKey);
    CHECK_EQ(hn::value_key(nan), hn::kNanKey);
  }
}

TEST(keys_are_ordered_as_scores) {
  std::vector<float> x = {-kInf, -1e30f, -1.0f, -kTiny, -0.0f, 0.0f, kTiny, 1.0f, std::nextafter(1.0f, 2.0f),
                          1e30f, kInf};
  Random random(6);
  while (x.size() < 1200) {
    const float v = hn::bits_float(uint32_t(random.bits()));
    if (!std::isnan(v)) x.push_back(v);
  }
  for (float a : x) {
    CHECK(hn::key_of(hn::Order::kValue, a) < hn::kNanKey);
    CHECK(hn::key_of(hn::Order::kMagnitude, a) < hn::kNanKey);
    for (float b : x) {
      const uint32_t va = hn::key_of<hn::Order::kValue>(a), vb = hn::key_of(hn::Order::kValue, b);
      const uint32_t ma = hn::key_of<hn::Order::kMagnitude>(a), mb = hn::key_of(hn::Order::kMagnitude, b);
      if ((va < vb) != (a < b) || (va == vb) != (a == b)) CHECK_EQ(a, b);
      if ((ma < mb) != (std::fabs(a) < std::fabs(b)) || (ma == mb) != (std::fabs(a) == std::fabs(b))) CHECK_EQ(a, b);
    }
  }
}

// --- Layouts.

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const bool last : {false, true}) {
    for (const auto& s :
         std::vector<std::vector<int>>{{1, 1, 1}, {4, 3, 9}, {5, 7, 1}, {64, 1, 25}, {33, 31, 4}, {2, 600, 9}}) {
      all.push_back({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
    }
  }
  return all;
}

TEST(logical_and_physical_are_inverse_and_follow_memory) {
  for (const Layout& l : layouts()) {
    int32_t i = 0;
    for (int32_t o = 0; o < l.n / l.per_filter; ++o) {
      for (int32_t c = 0; c < l.channels; ++c) {
        for (int32_t t = 0; t < l.taps; ++t, ++i) {
          const int32_t p = l.channels_last ? (o * l.taps + t) * l.channels + c : i;
          CHECK_EQ(l.physical(i), p);
          CHECK_EQ(l.logical(p), i);
        }
      }
    }
    CHECK_EQ(i, l.n);
  }
  CHECK_EQ(hn::flat_layout(7).logical(5), 5);
}

// --- Rules and sources.

struct Layer {
  Layout layout;
  std::vector<float> scores, stored;
  std::vector<uint8_t> bits, plane;
  hn::Selection selection;
  int64_t step;

  explicit Layer(const Layout& l, uint64_t seed) : layout(l), step(5 + (int64_t(1) << 32)) {
    Random random(seed);
    const size_t n = size_t(l.n);
    for (size_t i = 0; i < n; ++i) {
      scores.push_back(random.below(4) ? random.symmetric() * 3 : float(int(random.below(3)) - 1));  // with ties
      stored.push_back(random.symmetric());
    }
    for (size_t i = 0; i < (n + 7) / 8; ++i) {
      bits.push_back(uint8_t(random.bits()));
      plane.push_back(uint8_t(random.bits()));
    }
    selection = {hn::float_bits(1.0f), l.n / 2, 0, 0};  // the threshold is one of the ties
  }

  bool rounded_by_draw = false;  // kRounded: by a draw, or by the threshold

  bool draws(hn::RuleKind kind) const { return kind != hn::RuleKind::kRounded || rounded_by_draw; }
  hn::Rule rule(hn::RuleKind kind) const {
    hn::Rule r = {kind, &selection, bits.data(), draws(kind) ? &step : nullptr, {11, 12, 3, 0}};
    return r;
  }
  hn::WeightSource source(hn::Source kind) const { return {kind, stored.data(), plane.data(), 0.75f, {21, 22, 4, 1}}; }
};

const hn::RuleKind kRules[] = {hn::RuleKind::kAll,     hn::RuleKind::kMagnitude, hn::RuleKind::kValue,
                               hn::RuleKind::kBits,    hn::RuleKind::kSampled,   hn::RuleKind::kExpectation,
                               hn::RuleKind::kRounded, hn::RuleKind::kScored};

TEST(kept_by_eye) {
  CHECK(hn::kept_by_selection(5, 3, 6, 0));
  CHECK(!hn::kept_by_selection(5, 3, 4, 9));
  CHECK(!hn::kept_by_selection(5, 3, 5, 2));
  CHECK(hn::kept_by_selection(5, 3, 5, 3));
  CHECK(hn::kept_by_selection(0, 0, 0, 0));                        // k = n
  CHECK(!hn::kept_by_selection(0xffffffffu, 10, 0xffffffffu, 9));  // k = 0, even for NaN

  Layer layer(hn::flat_layout(64), 1);
  for (int32_t i = 0; i < 64; ++i) {
    const float s = layer.scores[size_t(i)], m = std::fabs(s);
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kMagnitude), s, i), m > 1 || (m == 1 && i >= 32));
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kBits), s, i), (layer.bits[size_t(i / 8)] >> (i % 8) & 1) != 0);
    const hn::Draw now = {11, 12, 3, 5};  // the step's low word
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kSampled), s, i), s > hn::bernoulli_logit(now, uint32_t(i)));
    CHECK(hn::kept(layer.rule(hn::RuleKind::kAll), s, i));
    CHECK(hn::kept(layer.rule(hn::RuleKind::kExpectation), s, i));
  }
  layer.selection.threshold = hn::value_key(hn::float_bits(-1.0f));
  for (int32_t i = 0; i < 64; ++i) {
    const float s = layer.scores[size_t(i)];
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kValue), s, i), s > -1 || (s == -1 && i >= 32));
    const bool flag = layer.bits[size_t(i / 8)] >> (i % 8) & 1;
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kRounded), s, i), flag && (s > -1 || (s == -1 && i >= 32)));
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kScored), s, i), flag);
  }
  layer.rounded_by_draw = true;
  for (int32_t i = 0; i < 64; ++i) {
    const float s = layer.scores[size_t(i)];
    const bool flag = layer.bits[size_t(i / 8)] >> (i % 8) & 1;
    CHECK_EQ(hn::kept(layer.rule(hn::RuleKind::kRounded), s, i),
             flag && s > hn::bernoulli_unit({11, 12, 3, 5}, uint32_t(i)));
  }
}

TEST(surrogates_by_eye) {
  const Layer layer(hn::flat_layout(8), 1);
  for (float s : {-2.0f, -0.0f, 0.0f, 0.5f}) {
    CHECK_EQ(hn::surrogate(layer.rule(hn::RuleKind::kMagnitude), s, 0), float((s > 0) - (s < 0)));
    CHECK_EQ(hn::surrogate(layer.rule(hn::RuleKind::kValue), s, 0), 1.0f);
    CHECK_EQ(hn::surrogate(layer.rule(hn::RuleKind::kBits), s, 0), 1.0f);
    const double p = 1 / (1 + std::exp(-double(s)));
    CHECK(std::fabs(hn::surrogate(layer.rule(hn::RuleKind::kSampled), s, 0) - p * (1 - p)) < 1e-6);
    CHECK(std::fabs(hn::sigmoid(s) - p) < 1e-6);
    for (int32_t i = 0; i < 8; ++i) {
      const float flag = float(layer.bits[0] >> i & 1);
      CHECK_EQ(hn::surrogate(layer.rule(hn::RuleKind::kRounded), s, i), flag);
      CHECK_EQ(hn::surrogate(layer.rule(hn::RuleKind::kScored), s, i), flag);
    }
  }
}

TEST(weights_by_eye) {
  const Layer layer(hn::flat_layout(40), 2);
  for (int32_t i = 0; i < 40; ++i) {
    CHECK_EQ(hn::weight_at(layer.source(hn::Source::kStored), i, 39 - i), layer.stored[size_t(i)]);
    CHECK_EQ(hn::weight_at(layer.source(hn::Source::kConstant), 0, i), 0.75f);
    const bool negative = layer.plane[size_t(i / 8)] >> (i % 8) & 1;
    CHECK_EQ(hn::weight_at(layer.source(hn::Source::kSigns), 0, i), negative ? -0.75f : 0.75f);
    const hn::Draw d = {21, 22, 4, 1};
#define CHECK_DRAWN(D) \
  CHECK_EQ(hn::weight_at(layer.source(hn::Source::k##D), 0, i), hn::number_of<hn::D>(d, uint32_t(i)) * 0.75f);
    HN_DISTRIBUTIONS(CHECK_DRAWN)
#undef CHECK_DRAWN
  }
}

__global__ void layer_kernel(hn::Rule rule, hn::WeightSource source, Layout layout, const float* scores, float* out) {
  const int32_t p = int32_t(blockIdx.x * blockDim.x + threadIdx.x);
  if (p >= layout.n) return;
  const int32_t i = layout.logical(p);
  out[p] = hn::kept(rule, scores[p], i) ? hn::weight_at(source, p, i) : 0.0f;
}

std::vector<float> expected_weights(const Layer& l, hn::RuleKind rule, hn::Source source) {
  std::vector<float> w;
  for (int32_t p = 0; p < l.layout.n; ++p) {
    const int32_t i = l.layout.logical(p);
    w.push_back(hn::kept(l.rule(rule), l.scores[size_t(p)], i) ? hn::weight_at(l.source(source), p, i) : 0.0f);
  }
  return w;
}

hn::Source source_of(size_t turn) { return hn::kSources[turn % std::size(hn::kSources)]; }

TEST(device_layers_are_host_layers) {
  for (const Layout& layout : layouts()) {
    Layer l(layout, 3);
    l.rounded_by_draw = layout.taps != 9;
    Buffer<float> scores(l.scores), stored(l.stored), out(size_t(layout.n));
    Buffer<uint8_t> bits(l.bits), plane(l.plane);
    Buffer<hn::Selection> selection(std::vector<hn::Selection>(1, l.selection));
    Buffer<int64_t> step(std::vector<int64_t>(1, l.step));
    for (const hn::RuleKind kind : kRules) {
      const hn::Source source = source_of(size_t(kind));
      hn::Rule r = l.rule(kind);
      r.selection = selection.data();
      r.bits = bits.data();
      r.step = r.step == nullptr ? nullptr : step.data();
      hn::WeightSource w = l.source(source);
      w.stored = stored.data();
      w.plane = plane.data();
      CHECK_EQ(launch(layer_kernel, (layout.n + 127) / 128, 128, 0, nullptr, r, w, layout, scores.data(), out.data()),
               0);
      CHECK_EQ(out.read(), expected_weights(l, kind, source));
    }
  }
}

// --- The CPU loops read a layer block by block; scalar and AVX2 must both be the element
// functions.

TEST(block_reader_is_weight_at_and_kept) {
  for (const hn::Isa isa : {hn::Isa::kScalar, hn::detect_isa()}) {
    hn::isa() = isa;
    for (const Layout& layout : layouts()) {
      Layer l(layout, 4);
      hn::cpu::BlockReader reader(layout);
      for (size_t turn = 0; turn < std::size(kRules) + 1; ++turn) {
        const size_t k = turn < std::size(kRules) ? turn : size_t(hn::RuleKind::kRounded);  // once more, by a draw
        l.rounded_by_draw = turn == std::size(kRules);
        const hn::Rule rule = l.rule(kRules[k]);
        const hn::WeightSource source = l.source(source_of(k));
        std::vector<float> got;
        for (int64_t b = 0; b < reader.blocks(); ++b) {
          const int32_t p0 = reader.begin(b), n = reader.size(b);
          const float* const w = reader.weights(source, p0, n);
          const uint32_t* const keep = reader.keep(rule, l.scores.data() + p0, p0, n);
          for (int32_t e = 0; e < n; ++e) {
            CHECK(keep[e] == 0 || keep[e] == 0xffffffffu);
            got.push_back(keep[e] ? w[e] : 0.0f);
          }
        }
        CHECK_EQ(got, expected_weights(l, kRules[k], source_of(k)));
      }
    }
  }
  hn::isa() = hn::detect_isa();
}

}  // namespace
