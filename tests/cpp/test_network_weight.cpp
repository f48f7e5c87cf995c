// test_network_weight.cpp: the weights of many layers in one launch are those of a launch each: of the CPU loops, whose
// elements test_masked_weight.cpp checks.
#include "device.h"
#include "ops/masked_weight/network_weight.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

// kExpectation has an exponential, which is each machine's own.
constexpr RuleKind kRules[] = {RuleKind::kAll,     RuleKind::kMagnitude, RuleKind::kValue, RuleKind::kBits,
                               RuleKind::kSampled, RuleKind::kRounded,   RuleKind::kScored};

struct Layer {
  MaskedWeightParams params;  // its pointers are set when it is run
  bool draws;                 // kRounded: by a draw
  std::vector<float> scores, stored;
  std::vector<uint8_t> plane, bits;
};

Layer make_layer(const Layout& layout, RuleKind rule, Source source, Dtype dtype, uint64_t seed) {
  Random random(seed);
  Layer l{};
  l.draws = rule == RuleKind::kSampled || (rule == RuleKind::kRounded && seed % 2 == 0);
  l.params.rule.kind = rule;
  l.params.rule.draw = {uint32_t(seed), 5, 6, 7};
  l.params.source.kind = source;
  l.params.source.scale = 0.7f;
  l.params.source.draw = {11, uint32_t(seed), 13, 14};
  l.params.layout = layout;
  l.params.dtype = dtype;
  for (int32_t i = 0; i < layout.n; ++i) {
    l.scores.push_back(i % 7 == 0 ? 0.5f : random.symmetric());
    l.stored.push_back(random.symmetric());
  }
  for (int32_t b = 0; b < (layout.n + 7) / 8; ++b) {
    l.plane.push_back(uint8_t(random.below(256)));
    l.bits.push_back(uint8_t(random.below(256)));
  }
  return l;
}

std::vector<Layer> make_net() {
  const Layout layouts[] = {flat_layout(1),
                            flat_layout(2051),
                            {3 * 16 * 9, 16 * 9, 16, 9, true},
                            flat_layout(4096),
                            {7 * 13 * 9, 117, 13, 9, true},
                            {6 * 25, 25, 1, 25, true},
                            flat_layout(33),
                            {5 * 24 * 9, 216, 24, 9, false},
                            {11 * 40 * 9, 360, 40, 9, true},
                            {3 * 8 * 4, 32, 8, 4, true},
                            {2 * 32 * 25, 800, 32, 25, true}};
  std::vector<Layer> net;
  uint64_t turn = 0;
  for (const RuleKind rule : kRules) {
    for (const Source source : kSources) {
      net.push_back(make_layer(layouts[turn % 11], rule, source, Dtype(turn % 3), turn));
      ++turn;
    }
  }
  net.push_back(make_layer(flat_layout(0), RuleKind::kMagnitude, Source::kSigns, Dtype::kBFloat16, 3));
  return net;
}

size_t bytes_of(const Layer& l) { return size_t(l.params.layout.n) * size_t(dtype_bytes(l.params.dtype)); }

// The parameters with these pointers; the selection's row depends on the order.
MaskedWeightParams with(const Layer& l, const float* scores, const float* stored, const uint8_t* plane,
                        const uint8_t* bits, const Selection* rows, const int64_t* step, void* out) {
  MaskedWeightParams p = l.params;
  const bool reads = p.rule.kind != RuleKind::kAll && p.rule.kind != RuleKind::kBits;
  p.scores = reads ? scores : nullptr;
  p.source.stored = stored;
  p.source.plane = plane;
  p.rule.bits = bits;
  p.rule.selection = rows + (p.rule.kind == RuleKind::kMagnitude ? 0 : 1);
  p.rule.step = l.draws ? step : nullptr;
  p.out = out;
  return p;
}

const std::vector<Selection> kRows{{float_bits(0.5f), 40, 0, 0}, {value_key(float_bits(0.5f)), 0, 0, 0}};
const std::vector<int64_t> kStep{9};

std::vector<std::vector<uint8_t>> on_cpu(const std::vector<Layer>& net, bool together) {
  std::vector<std::vector<uint8_t>> out;
  std::vector<MaskedWeightParams> layers;
  for (const Layer& l : net) out.emplace_back(bytes_of(l));
  for (size_t i = 0; i < net.size(); ++i) {
    const Layer& l = net[i];
    layers.push_back(with(l, l.scores.data(), l.stored.data(), l.plane.data(), l.bits.data(), kRows.data(),
                          kStep.data(), out[i].data()));
    if (!together) cpu::masked_weight(layers.back());
  }
  if (together) cpu::network_weight({layers.data(), int32_t(layers.size())});
  return out;
}

std::vector<std::vector<uint8_t>> on_device(const std::vector<Layer>& net) {
  std::vector<std::unique_ptr<Buffer<float>>> floats;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> bytes, out;
  Buffer<Selection> rows(kRows);
  Buffer<int64_t> step(kStep);
  std::vector<MaskedWeightParams> layers;
  const auto copy = [&](const std::vector<float>& v) {
    floats.push_back(std::make_unique<Buffer<float>>(v));
    return floats.back()->data();
  };
  const auto copy_bytes = [&](const std::vector<uint8_t>& v) {
    bytes.push_back(std::make_unique<Buffer<uint8_t>>(v));
    return bytes.back()->data();
  };
  for (const Layer& l : net) {
    out.push_back(std::make_unique<Buffer<uint8_t>>(bytes_of(l)));
    layers.push_back(with(l, copy(l.scores), copy(l.stored), copy_bytes(l.plane), copy_bytes(l.bits), rows.data(),
                          step.data(), out.back()->data()));
  }
  CHECK_EQ(cuda::network_weight({layers.data(), int32_t(layers.size())}, nullptr), 0);
  std::vector<std::vector<uint8_t>> found;
  for (const auto& buffer : out) found.push_back(buffer->read());
  return found;
}

void check_same(const std::vector<Layer>& net, const std::vector<std::vector<uint8_t>>& got,
                const std::vector<std::vector<uint8_t>>& want) {
  for (size_t i = 0; i < net.size(); ++i) {
    const Context context("layer " + std::to_string(i));
    CHECK_EQ(got[i], want[i]);
  }
}

TEST(a_network_is_its_layers) {
  const std::vector<Layer> net = make_net();
  const auto want = on_cpu(net, false);
  check_same(net, on_cpu(net, true), want);
  check_same(net, on_device(net), want);
}

TEST(many_layers_need_a_second_table) {
  std::vector<Layer> net;
  for (uint64_t l = 0; l < 300; ++l) {
    net.push_back(make_layer(flat_layout(int32_t(5 + l % 40)), kRules[l % 7], Source::kSigns, Dtype(l % 3), l));
  }
  check_same(net, on_device(net), on_cpu(net, false));
}

TEST(no_layers_are_no_launch) { CHECK_EQ(cuda::network_weight({nullptr, 0}, nullptr), 0); }

}  // namespace
