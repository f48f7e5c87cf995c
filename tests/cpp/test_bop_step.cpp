// test_bop_step.cpp: Bop's step on whole networks: kernel and CPU loops, bit for bit against the one-element functions,
// and those against a table worked by hand.
#include <limits>

#include "base/isa.h"
#include "device.h"
#include "ops/bop_step/bop_step.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const BopHyper kHypers[] = {{0.9f, 0.1f, 0.2f}, {0.75f, 0.25f, 0.0f}, {0.999f, 0.001f, 1e-6f}};

struct Layer {
  Layout layout;
  bool flagged, fresh;
  std::vector<float> weights, grad, average;
  std::vector<uint8_t> flags;
  int64_t flips, total;
};

Layer make_layer(const Layout& layout, bool flagged, bool fresh) {
  Layer l{layout, flagged, fresh, {}, {}, {}, {}, 77, 1000 + layout.n};
  Random random(uint64_t(layout.n) * 4 + flagged * 2 + fresh);
  for (int32_t p = 0; p < layout.n; ++p) {
    l.weights.push_back(p % 11 == 0 ? (p % 2 ? 0.0f : -0.0f) : (p % 37 == 5 ? kNan : random.symmetric()));
    l.grad.push_back(p == 17 ? kNan : (p % 5 == 0 ? 0.0f : random.symmetric()));
    l.average.push_back(p % 3 == 0 ? 0.0f : random.symmetric());
  }
  for (int32_t b = 0; b < (layout.n + 7) / 8; ++b) {
    l.flags.push_back(uint8_t(b % 5 == 0 ? 0 : (b % 5 == 1 ? 255 : random.below(256))));
  }
  return l;
}

std::vector<Layer> make_net() {
  std::vector<Layer> net;
  for (const int n : {0, 1, 7, 8, 31, 33, 255, 1023, 1025, 2049, 4099}) {
    for (const bool flagged : {false, true}) {
      for (const bool fresh : {false, true}) net.push_back(make_layer(flat_layout(n), flagged, fresh));
    }
  }
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9}, {33, 17, 9}, {6, 1, 25}, {4, 32, 1}, {1, 9, 3}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) {
      for (const bool flagged : {false, true}) {
        net.push_back(make_layer({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last}, flagged, s[1] == 13));
      }
    }
  }
  return net;
}

// Everything a step changes, as bits: NaN equals itself, and -0 is not 0.
std::vector<uint64_t> state(const std::vector<Layer>& net) {
  std::vector<uint64_t> all;
  for (const Layer& l : net) {
    for (const float p : l.weights) all.push_back(float_bits(p));
    for (const float m : l.average) all.push_back(m != m ? ~uint64_t(0) : float_bits(m));
    all.push_back(uint64_t(l.flips));
    all.push_back(uint64_t(l.total));
  }
  return all;
}

std::vector<Layer> expected(const BopHyper& h, std::vector<Layer> net) {
  for (Layer& l : net) {
    l.flips = 0;
    for (int32_t i = 0; i < l.layout.n; ++i) {
      const size_t p = size_t(l.layout.physical(i));
      if (l.flagged && !(l.flags[size_t(i / 8)] >> (i % 8) & 1)) continue;
      l.average[p] = bop_averaged(h, l.fresh, l.average[p], l.grad[p]);
      if (!bop_flips(h, l.average[p], l.weights[p])) continue;
      l.weights[p] = negated(l.weights[p]);
      ++l.flips;
    }
    l.total += l.flips;
  }
  return net;
}

std::vector<Layer> step_cpu(const BopHyper& h, std::vector<Layer> net) {
  std::vector<BopSegment> segments;
  for (Layer& l : net) {
    segments.push_back({l.weights.data(), l.grad.data(), l.average.data(), l.flagged ? l.flags.data() : nullptr,
                        &l.flips, &l.total, l.layout, l.fresh});
  }
  cpu::bop_step({segments.data(), int32_t(segments.size()), h, nullptr});
  return net;
}

// `skew`: elements between a 256-byte boundary and the data.
std::vector<Layer> step_cuda(const BopHyper& h, std::vector<Layer> net, size_t skew) {
  std::vector<std::unique_ptr<Buffer<float>>> parts;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> flags;
  std::vector<int64_t> values;
  for (const Layer& l : net) values.insert(values.end(), {l.flips, l.total});
  Buffer<int64_t> counters(values);
  Buffer<unsigned long long> scratch(std::vector<unsigned long long>(net.size(), 0xdeadbeefcafeull));
  std::vector<BopSegment> segments;
  const auto copy = [&](std::vector<float> from) {
    from.insert(from.begin(), skew, 0.0f);
    parts.push_back(std::make_unique<Buffer<float>>(from));
    return parts.back()->data() + skew;
  };
  for (size_t l = 0; l < net.size(); ++l) {
    float *weights = copy(net[l].weights), *grad = copy(net[l].grad), *average = copy(net[l].average);
    flags.push_back(std::make_unique<Buffer<uint8_t>>(net[l].flags));
    segments.push_back({weights, grad, average, net[l].flagged ? flags.back()->data() : nullptr,
                        counters.data() + 2 * l, counters.data() + 2 * l + 1, net[l].layout, net[l].fresh});
  }
  CHECK_EQ(cuda::bop_step({segments.data(), int32_t(segments.size()), h, scratch.data()}, nullptr), 0);
  values = counters.read();
  for (size_t l = 0; l < net.size(); ++l) {
    const auto back = [&](size_t part, std::vector<float>* to) {
      const std::vector<float> read = parts[3 * l + part]->read();
      to->assign(read.begin() + long(skew), read.end());
    };
    back(0, &net[l].weights);
    back(2, &net[l].average);
    net[l].flips = values[2 * l];
    net[l].total = values[2 * l + 1];
  }
  return net;
}

TEST(networks_step_as_their_elements) {
  const std::vector<Layer> net = make_net();
  for (const BopHyper& h : kHypers) {
    const Context context("threshold " + std::to_string(h.threshold));
    const std::vector<uint64_t> want = state(expected(h, net));
    for (const Isa path : {detect_isa(), Isa::kScalar}) {
      isa() = path;
      const std::vector<uint64_t> got = state(step_cpu(h, net));
      isa() = detect_isa();
      CHECK_EQ(got, want);
    }
    for (const size_t skew : {size_t(0), size_t(1)}) {
      CHECK_EQ(test::same_in_every_order([&] { return state(step_cuda(h, net, skew)); }), want);
    }
  }
}

TEST(many_layers_need_a_second_table) {
  std::vector<Layer> net;
  for (int l = 0; l < 300; ++l) net.push_back(make_layer(flat_layout(9 + l % 3), l % 2 == 0, l % 5 == 0));
  const std::vector<uint64_t> want = state(expected(kHypers[0], net));
  CHECK_EQ(state(step_cpu(kHypers[0], net)), want);
  CHECK_EQ(state(step_cuda(kHypers[0], net, 0)), want);
}

// Flips are told apart by sign and size; only the sign bit of a weight ever changes.
TEST(elements_by_hand) {
  const BopHyper h{0.5f, 0.5f, 0.25f}, all{0.5f, 0.5f, 0.0f};
  CHECK_EQ(bop_averaged(h, true, 100.0f, 2.0f), 3.0f);  // g + rate * g, whatever was there
  CHECK_EQ(bop_averaged(h, false, 1.0f, 2.0f), 1.5f);
  CHECK(bop_flips(h, 0.25f, 1.0f));  // at the threshold: flips
  CHECK(!bop_flips(h, 0.2499f, 1.0f));
  CHECK(bop_flips(h, -0.25f, -1e-30f));
  CHECK(!bop_flips(h, 0.25f, -1.0f));
  CHECK(!bop_flips(h, 0.25f, 0.0f));
  CHECK(bop_flips(all, 0.0f, -0.0f));
  CHECK(!bop_flips(all, 0.0f, 1.0f));
  CHECK(!bop_flips(all, kNan, 1.0f));
  CHECK(!bop_flips(all, 1.0f, kNan));
  CHECK(!bop_flips(all, 0.0f, kNan));
  CHECK_EQ(float_bits(negated(0.0f)), 0x80000000u);
  CHECK_EQ(negated(-1.5f), 1.5f);
}

}  // namespace
