// test_rerandomize.cpp: redrawn networks, bit for bit against the one-element functions of rng.cuh and the CPU loops, in
// every layout, kind of weight and mode.
#include <cstring>

#include "base/isa.h"
#include "device.h"
#include "ops/rerandomize/rerandomize.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr Draw kName{0x12345678u, 0x9abcdef0u, 0, 7};  // the layer is a layer's own

struct Layer {
  Layout layout;
  Source kind;
  bool plane, noted;
  float scale;
  std::vector<float> scores, weights;
  std::vector<uint8_t> signs;
  std::vector<int16_t> redraws;
  Selection row;
};

struct Mode {
  const char* name;
  uint64_t limit;
  bool blend;
  Order order;
};

const Mode kModes[] = {{"some", 0x40000000u, false, Order::kValue},
                       {"some by magnitude", 0xc0000000u, false, Order::kMagnitude},
                       {"all", uint64_t(1) << 32, false, Order::kValue},
                       {"none", 0, false, Order::kValue},
                       {"blend", uint64_t(1) << 32, true, Order::kValue}};

// Scores with many ties at the threshold, half of which the cut prunes.
Layer make_layer(const Layout& layout, Source kind, bool plane, bool noted, Order order) {
  Layer l{layout, kind, plane, noted, 0.0731f, {}, {}, {}, {}, {key_of(order, 0.25f), layout.n / 2, 0, 0}};
  Random random(uint64_t(layout.n) + uint64_t(kind));
  for (int32_t p = 0; p < layout.n; ++p) {
    const float s = random.symmetric();
    l.scores.push_back(s > 0.1f && s < 0.4f ? 0.25f : s);
    l.weights.push_back(random.symmetric());
    l.redraws.push_back(int16_t(random.below(5)));
  }
  for (int32_t b = 0; b < (layout.n + 7) / 8; ++b) l.signs.push_back(uint8_t(random.below(256)));
  return l;
}

std::vector<Layer> make_net(const Mode& m) {
  std::vector<Layer> net;
  std::vector<Source> kinds;
  for (const Source kind : kSources) {
    if (kind != Source::kStored) kinds.insert(kinds.end(), {kind, Source::kSigns});
  }
  int at = 0;
  const auto add = [&](const Layout& layout) {
    for (int all = 0; all < 2; ++all, ++at) {  // neighbours in the list of kinds
      const Source kind = kinds[size_t(at) % kinds.size()];
      const bool plane = kind == Source::kSigns && at % 3 == 1;
      net.push_back(make_layer(layout, kind, plane && !m.blend, at % 4 != 1 && !m.blend, m.order));
    }
    --at;
  };
  for (const int n : {1, 7, 31, 33, 128, 1023, 1024, 1030, 2048, 2049, 4099}) add(flat_layout(n));
  const int shapes[][3] = {{5, 3, 9}, {7, 13, 9}, {33, 17, 9}, {6, 1, 25},  {4, 32, 1}, {1, 9, 3},
                           {9, 8, 9}, {5, 16, 9}, {3, 40, 9},  {2, 264, 2}, {4, 24, 9}, {3, 16, 4}};
  for (const auto& s : shapes) {
    for (const bool last : {true, false}) add({s[0] * s[1] * s[2], s[1] * s[2], s[1], s[2], last});
  }
  return net;
}

RerandomizeParams params_of(const Mode& m, const std::vector<RedrawSegment>& segments, const Selection* rows) {
  return {segments.data(),
          int32_t(segments.size()),
          rows,
          m.order,
          kName.key0,
          kName.key1,
          kName.redraw,
          m.limit,
          m.blend,
          0.875f,
          0.3f};
}

// All that an op may change, one byte after another.
std::vector<uint8_t> state(const std::vector<Layer>& net) {
  std::vector<uint8_t> all;
  const auto append = [&](const void* from, size_t bytes) {
    const auto* b = static_cast<const uint8_t*>(from);
    all.insert(all.end(), b, b + bytes);
  };
  for (const Layer& l : net) {
    append(l.weights.data(), l.weights.size() * 4);
    append(l.redraws.data(), l.redraws.size() * 2);
    append(l.signs.data(), l.signs.size());
  }
  return all;
}

void expect_layer(const Mode& m, uint32_t number, Layer* l) {
  if (m.limit == 0 || (l->kind == Source::kConstant && !m.blend)) return;
  const Draw draw{kName.key0, kName.key1, number, kName.redraw};
  for (int32_t i = 0; i < l->layout.n; ++i) {
    const size_t p = size_t(l->layout.physical(i));
    if (kept_by_selection(l->row.threshold, l->row.cut, key_of(m.order, l->scores[p]), i)) continue;
    if (!redrawn(draw, m.limit, uint32_t(i))) continue;
    const bool negative = sign_bit(draw, uint32_t(i)) != 0;
    const float drawn = l->kind == Source::kSigns ? (negative ? -l->scale : l->scale)
                                                  : weight_at({l->kind, nullptr, nullptr, l->scale, draw}, 0, i);
    if (l->plane) {
      uint8_t& byte = l->signs[size_t(i / 8)];
      byte = uint8_t((byte & ~(1u << (i % 8))) | unsigned(negative) << (i % 8));
    } else {
      l->weights[p] = m.blend ? 0.875f * l->weights[p] + 0.3f * drawn : drawn;
    }
    if (l->noted) l->redraws[p] = int16_t(kName.redraw);
  }
}

std::vector<uint8_t> redraw_cpu(const Mode& m, std::vector<Layer> net) {
  std::vector<RedrawSegment> segments;
  std::vector<Selection> rows;
  for (Layer& l : net) {
    segments.push_back({l.scores.data(), l.plane ? nullptr : l.weights.data(), l.plane ? l.signs.data() : nullptr,
                        l.noted ? l.redraws.data() : nullptr, l.layout, l.kind, l.scale, uint32_t(segments.size())});
    rows.push_back(l.row);
  }
  cpu::rerandomize(params_of(m, segments, rows.data()));
  return state(net);
}

// `skew`: elements between a 256-byte boundary and the data.
std::vector<uint8_t> redraw_cuda(const Mode& m, std::vector<Layer> net, size_t skew) {
  std::vector<std::unique_ptr<Buffer<float>>> scores, weights;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> signs;
  std::vector<std::unique_ptr<Buffer<int16_t>>> redraws;
  std::vector<RedrawSegment> segments;
  std::vector<Selection> rows;
  const auto skewed = [&](auto values) {
    values.insert(values.begin(), skew, values[0]);
    return std::make_unique<Buffer<typename decltype(values)::value_type>>(values);
  };
  for (const Layer& l : net) {
    scores.push_back(skewed(l.scores));
    weights.push_back(skewed(l.weights));
    signs.push_back(skewed(l.signs));
    redraws.push_back(skewed(l.redraws));
    segments.push_back({scores.back()->data() + skew, l.plane ? nullptr : weights.back()->data() + skew,
                        l.plane ? signs.back()->data() + skew : nullptr,
                        l.noted ? redraws.back()->data() + skew : nullptr, l.layout, l.kind, l.scale,
                        uint32_t(segments.size())});
    rows.push_back(l.row);
  }
  Buffer<Selection> selection(rows);
  CHECK_EQ(cuda::rerandomize(params_of(m, segments, selection.data()), nullptr), 0);
  for (size_t l = 0; l < net.size(); ++l) {
    const auto back = [&](const auto& buffer, auto* to) {
      const auto values = buffer->read();
      to->assign(values.begin() + long(skew), values.end());
    };
    back(weights[l], &net[l].weights);
    back(signs[l], &net[l].signs);
    back(redraws[l], &net[l].redraws);
  }
  return state(net);
}

TEST(networks_are_redrawn_as_their_elements) {
  for (const Mode& m : kModes) {
    const Context context(m.name);
    const std::vector<Layer> net = make_net(m);
    std::vector<Layer> want = net;
    for (size_t l = 0; l < want.size(); ++l) expect_layer(m, uint32_t(l), &want[l]);
    if (m.limit > 0) CHECK(state(want) != state(net));
    const bool has_wide = wide();
    for (const auto& path : {std::make_pair(detect_isa(), has_wide), {detect_isa(), false}, {Isa::kScalar, false}}) {
      isa() = path.first;
      wide() = path.second;
      const std::vector<uint8_t> got = redraw_cpu(m, net);
      isa() = detect_isa();
      wide() = has_wide;
      CHECK_EQ(got, state(want));
    }
    for (const size_t skew : {size_t(0), size_t(1)}) {
      CHECK_EQ(test::same_in_every_order([&] { return redraw_cuda(m, net, skew); }), state(want));
    }
  }
}

// A launch holds 256 layers; more are redrawn all the same.
TEST(many_layers_need_a_second_table) {
  const Mode& m = kModes[0];
  std::vector<Layer> net;
  for (int l = 0; l < 300; ++l)
    net.push_back(make_layer(flat_layout(9 + l % 3), Source::kUniform, false, true, m.order));
  std::vector<Layer> want = net;
  for (size_t l = 0; l < want.size(); ++l) expect_layer(m, uint32_t(l), &want[l]);
  CHECK_EQ(redraw_cpu(m, net), state(want));
  CHECK_EQ(redraw_cuda(m, net, 0), state(want));
}

// Every score ties: the cut alone decides, wherever it lies in a vector of eight, a word or a chunk.
TEST(the_cut_is_an_index) {
  const Mode all{"all", uint64_t(1) << 32, false, Order::kValue};
  const int32_t n = 1100;
  for (const int32_t cut : {0, 1, 7, 8, 31, 32, 33, 1023, 1024, 1025, 1099, 1100}) {
    const Context context("cut = " + std::to_string(cut));
    Layer l = make_layer(flat_layout(n), Source::kUniform, false, true, all.order);
    std::fill(l.scores.begin(), l.scores.end(), 0.25f);
    std::fill(l.redraws.begin(), l.redraws.end(), int16_t(0));
    l.row.cut = cut;
    std::vector<Layer> want{l};
    for (int32_t i = 0; i < cut; ++i) {
      want[0].redraws[size_t(i)] = int16_t(kName.redraw);
      want[0].weights[size_t(i)] = number_of<Uniform>(kName, uint32_t(i)) * l.scale;
    }
    CHECK_EQ(redraw_cpu(all, {l}), state(want));
    CHECK_EQ(redraw_cuda(all, {l}, 0), state(want));
  }
}

}  // namespace
