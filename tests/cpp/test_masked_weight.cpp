// test_masked_weight.cpp: every rule with every source, dtype and layout, forward and backward,
// against a plain loop over `kept` and `weight_at` and against the CPU loops. Bits must be equal;
// only GPUs may differ, in expf.
#include <cmath>
#include <limits>

#include "device.h"
#include "ops/masked_weight/masked_weight.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr RuleKind kRules[] = {RuleKind::kAll,     RuleKind::kMagnitude,   RuleKind::kValue,   RuleKind::kBits,
                               RuleKind::kSampled, RuleKind::kExpectation, RuleKind::kRounded, RuleKind::kScored};
constexpr Dtype kDtypes[] = {Dtype::kFloat32, Dtype::kBFloat16, Dtype::kFloat16};

bool reads_scores(RuleKind kind) { return kind != RuleKind::kAll && kind != RuleKind::kBits; }
// What a GPU may compute to other bits: expf, and the payload of a NaN that a product makes.
bool has_soft_bits(RuleKind kind) { return kind == RuleKind::kExpectation || kind == RuleKind::kScored; }
bool uses_expf(RuleKind kind) { return kind == RuleKind::kSampled || kind == RuleKind::kExpectation; }

// All inputs of one layer, on the host and on the device.
struct Inputs {
  Layout layout;
  int before;  // floats between a 256-byte boundary and each tensor
  std::vector<float> scores, stored;
  std::vector<uint8_t> plane, bits;
  std::vector<Selection> rows;  // by magnitude, by value
  int64_t step = 7;
  bool rounded_by_draw = false;  // kRounded: by a draw, or by the threshold
  Buffer<float> device_scores, device_stored;
  Buffer<uint8_t> device_plane, device_bits;
  Buffer<Selection> device_rows;
  Buffer<int64_t> device_step;

  Inputs(Layout l, int offset, bool ties_pruned, uint64_t seed)
      : layout(l),
        before(offset),
        scores(made_scores(seed)),
        stored(made(seed + 1)),
        plane(made_bits(seed + 2)),
        bits(made_bits(seed + 3)),
        rows{{float_bits(0.5f), ties_pruned ? l.n / 2 : 0, 0, 0},
             {value_key(float_bits(0.5f)), ties_pruned ? l.n / 3 : 0, 0, 0}},
        device_scores(shifted(scores)),
        device_stored(shifted(stored)),
        device_plane(plane),
        device_bits(bits),
        device_rows(rows),
        device_step(std::vector<int64_t>{step}) {}

  std::vector<float> shifted(const std::vector<float>& v) const {
    std::vector<float> s(size_t(before), 0.0f);
    s.insert(s.end(), v.begin(), v.end());
    return s;
  }
  std::vector<float> made(uint64_t seed) const {
    Random random(seed);
    std::vector<float> v(size_t(layout.n));
    for (float& x : v) x = random.symmetric();
    return v;
  }
  // A third of them tie at +-0.5, which is the threshold; the special values appear as well.
  std::vector<float> made_scores(uint64_t seed) const {
    const float special[] = {0.0f, -0.0f, std::numeric_limits<float>::infinity(),
                             std::numeric_limits<float>::quiet_NaN()};
    Random random(seed);
    std::vector<float> v = made(seed + 9);
    for (float& x : v) {
      const uint32_t die = random.below(24);
      if (die < 8) x = die % 2 ? 0.5f : -0.5f;
      if (die >= 20) x = special[die - 20];
    }
    return v;
  }
  std::vector<uint8_t> made_bits(uint64_t seed) const {
    Random random(seed);
    std::vector<uint8_t> v((size_t(layout.n) + 7) / 8);
    for (uint8_t& x : v) x = uint8_t(random.bits());
    return v;
  }

  Rule rule(RuleKind kind, bool device) const {
    const size_t row = kind == RuleKind::kValue || kind == RuleKind::kRounded;
    const bool draws = kind != RuleKind::kRounded || rounded_by_draw;
    return {kind,
            (device ? device_rows.data() : rows.data()) + row,
            device ? device_bits.data() : bits.data(),
            draws ? (device ? device_step.data() : &step) : nullptr,
            {11, 12, 3, 0}};
  }
  WeightSource source(Source kind, bool device) const {
    return {kind,
            device ? device_stored.data() + before : stored.data(),
            device ? device_plane.data() : plane.data(),
            0.0625f * 1.1f,
            {21, 22, 4, 5}};
  }
  const float* scores_of(RuleKind kind, bool device) const {
    if (!reads_scores(kind)) return nullptr;
    return device ? device_scores.data() + before : scores.data();
  }
};

std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const int n : {1, 31, 32, 33, 255, 1025, 4099}) all.push_back(flat_layout(n));
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9}, {3, 5, 1},  {6, 1, 25}, {4, 32, 4},  {1, 2, 2},
                           {1, 9, 3}, {3, 16, 9}, {2, 24, 9}, {5, 8, 9},  {2, 160, 9}, {2, 40, 9}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) all.push_back({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
  }
  return all;
}

// f(inputs, rule, source) for all of them.
template <class F>
void for_each_case(const F& f) {
  int i = 0;
  for (const Layout& layout : layouts()) {
    ++i;
    Inputs in(layout, i % 3 == 0 ? 1 + i % 4 : 0, i % 4 < 2, uint64_t(layout.n));
    for (const RuleKind rule : kRules) {
      for (const Source source : kSources) {
        in.rounded_by_draw = (i / 2 + int(source)) % 2 != 0;
        const Context context("n = " + std::to_string(layout.n) + (layout.channels_last ? " OHWI" : " OIHW") +
                              ", rule " + std::to_string(int(rule)) + ", source " + std::to_string(int(source)));
        f(in, rule, source);
      }
    }
  }
}

// n elements of dtype as bytes, from floats.
std::vector<uint8_t> encoded(const std::vector<float>& v, Dtype dtype, size_t before = 0) {
  std::vector<uint8_t> bytes((before + v.size()) * size_t(dtype_bytes(dtype)), 0);
  for (size_t i = 0; i < v.size(); ++i) store_float(bytes.data(), dtype, int64_t(before + i), v[i]);
  return bytes;
}

void check_same(const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, Dtype dtype, bool expf_on_gpu) {
#if defined(__CUDACC__)
  if (expf_on_gpu) {
    CHECK_EQ(got.size(), want.size());
    const float step = dtype == Dtype::kFloat32 ? 1e-6f : (dtype == Dtype::kBFloat16 ? 8e-3f : 1e-3f);
    for (size_t i = 0; i < got.size() / size_t(dtype_bytes(dtype)); ++i) {
      const float g = load_as_float(got.data(), dtype, int64_t(i)), w = load_as_float(want.data(), dtype, int64_t(i));
      const Context at("element " + std::to_string(i));
      if (!(std::isnan(g) && std::isnan(w)) && std::fabs(g - w) > step * std::fabs(w) + 1e-7f) CHECK_EQ(g, w);
    }
    return;
  }
#endif
  (void)dtype;
  (void)expf_on_gpu;
  CHECK_EQ(got, want);
}

std::vector<uint8_t> without(std::vector<uint8_t> bytes, size_t head) {
  bytes.erase(bytes.begin(), bytes.begin() + long(head));
  return bytes;
}

TEST(forward) {
  for_each_case([](const Inputs& in, RuleKind rule, Source source) {
    const Rule r = in.rule(rule, false);
    const WeightSource w = in.source(source, false);
    std::vector<float> want(size_t(in.layout.n));
    for (int32_t p = 0; p < in.layout.n; ++p) {
      const int32_t i = in.layout.logical(p);
      const float weight = weight_at(w, p, i), score = in.scores[size_t(p)];
      const float scored = rule == RuleKind::kScored ? weight * score : weight;
      const float revealed = kept(r, score, i) ? scored : 0.0f;
      want[size_t(p)] = rule == RuleKind::kExpectation ? weight * sigmoid(score) : revealed;
    }
    for (const Dtype dtype : kDtypes) {
      const std::vector<uint8_t> bytes = encoded(want, dtype);
      std::vector<uint8_t> cpu(bytes.size());
      cpu::masked_weight({in.scores_of(rule, false), r, w, in.layout, dtype, cpu.data()});
      CHECK_EQ(cpu, bytes);
      const size_t head = size_t(in.before * dtype_bytes(dtype));
      const std::vector<uint8_t> got = test::same_in_every_order([&] {
        Buffer<uint8_t> out(head + bytes.size());
        CHECK_EQ(cuda::masked_weight({in.scores_of(rule, true), in.rule(rule, true), in.source(source, true), in.layout,
                                      dtype, out.data() + head},
                                     nullptr),
                 0);
        return without(out.read(), head);
      });
      check_same(got, bytes, dtype, has_soft_bits(rule));
    }
  });
}

TEST(backward) {
  for_each_case([](const Inputs& in, RuleKind rule, Source source) {
    const Dtype dtype = kDtypes[(in.layout.n + in.layout.channels_last + int(source)) % 3];
    const size_t n = size_t(in.layout.n), head = size_t(in.before);
    const std::vector<uint8_t> shifted = encoded(in.made(77), dtype, head);
    const void* grad = shifted.data() + head * size_t(dtype_bytes(dtype));
    const Rule r = in.rule(rule, false);
    const WeightSource w = in.source(source, false);
    std::vector<float> scores(n), weights(n);
    for (int32_t p = 0; p < in.layout.n; ++p) {
      const int32_t i = in.layout.logical(p);
      const float g = load_as_float(grad, dtype, p), score = in.scores[size_t(p)];
      const bool flagged = !has_flags(rule) || bit_of(in.bits.data(), i);
      scores[size_t(p)] = flagged ? g * weight_at(w, p, i) * surrogate(r, score, i) : 0.0f;
      const float scored = rule == RuleKind::kScored ? g * score : g;
      weights[size_t(p)] = rule == RuleKind::kExpectation ? g * sigmoid(score) : (kept(r, score, i) ? scored : 0.0f);
    }
    std::vector<float> cpu_scores(n), cpu_weights(n);
    cpu::masked_weight_backward(
        {grad, dtype, in.scores_of(rule, false), r, w, in.layout, cpu_scores.data(), cpu_weights.data()});
    CHECK_EQ(cpu_scores, scores);
    CHECK_EQ(cpu_weights, weights);
    std::vector<float> alone(n);
    cpu::masked_weight_backward({grad, dtype, in.scores_of(rule, false), r, w, in.layout, alone.data(), nullptr});
    CHECK_EQ(alone, scores);
    for (const int wanted : {1, 2, 3}) {  // either gradient alone, and both
      const auto got = test::same_in_every_order([&] {
        Buffer<uint8_t> grads(shifted);
        Buffer<float> to_scores(head + n), to_weights(head + n);
        CHECK_EQ(cuda::masked_weight_backward(
                     {grads.data() + head * size_t(dtype_bytes(dtype)), dtype, in.scores_of(rule, true),
                      in.rule(rule, true), in.source(source, true), in.layout,
                      wanted & 1 ? to_scores.data() + head : nullptr, wanted & 2 ? to_weights.data() + head : nullptr},
                     nullptr),
                 0);
        std::vector<float> both = to_scores.read(), second = to_weights.read();
        both.insert(both.end(), second.begin(), second.end());
        return both;
      });
      const auto part = [&](size_t from) {
        return std::vector<float>(got.begin() + long(from), got.begin() + long(from + n));
      };
      const auto same = [&](const std::vector<float>& a, const std::vector<float>& b) {
        check_same(encoded(a, Dtype::kFloat32), encoded(b, Dtype::kFloat32), Dtype::kFloat32,
                   uses_expf(rule) || has_soft_bits(rule));
      };
      if (wanted & 1) same(part(head), scores);
      if (wanted & 2) same(part(2 * head + n), weights);
    }
  });
}

TEST(a_pruned_weight_is_plus_zero) {
  const Inputs in(flat_layout(1025), 0, true, 3);
  Buffer<float> out(1025);
  CHECK_EQ(cuda::masked_weight({in.scores_of(RuleKind::kValue, true), in.rule(RuleKind::kValue, true),
                                in.source(Source::kSigns, true), in.layout, Dtype::kFloat32, out.data()},
                               nullptr),
           0);
  int zeros = 0;
  for (const float x : out.read()) {
    CHECK(float_bits(x) != 0x80000000u);
    zeros += x == 0.0f;
  }
  CHECK(zeros > 100);
}

TEST(an_unflagged_score_gets_plus_zero_even_from_an_infinite_gradient) {
  Inputs in(flat_layout(1025), 0, true, 4);
  const std::vector<float> grad(1025, -std::numeric_limits<float>::infinity());
  const Buffer<float> device_grad(grad);
  for (const RuleKind rule : {RuleKind::kRounded, RuleKind::kScored}) {
    Buffer<float> to_scores(1025);
    std::vector<float> cpu(1025);
    cpu::masked_weight_backward({grad.data(), Dtype::kFloat32, in.scores_of(rule, false), in.rule(rule, false),
                                 in.source(Source::kConstant, false), in.layout, cpu.data(), nullptr});
    CHECK_EQ(cuda::masked_weight_backward(
                 {device_grad.data(), Dtype::kFloat32, in.scores_of(rule, true), in.rule(rule, true),
                  in.source(Source::kConstant, true), in.layout, to_scores.data(), nullptr},
                 nullptr),
             0);
    for (int32_t i = 0; i < 1025; ++i) {
      const float want = bit_of(in.bits.data(), i) ? grad[0] : 0.0f;
      CHECK_EQ(float_bits(cpu[size_t(i)]), float_bits(want));
    }
    CHECK_EQ(to_scores.read(), cpu);
  }
}

TEST(nothing_to_do) {
  const Inputs in(flat_layout(0), 0, true, 1);
  CHECK_EQ(cuda::masked_weight({nullptr, in.rule(RuleKind::kAll, true), in.source(Source::kNormal, true), in.layout,
                                Dtype::kFloat32, nullptr},
                               nullptr),
           0);
}

}  // namespace
