// test_topk_select.cpp: thresholds and cuts against a plain sort and the CPU loops, cold and warm, in every thread order.
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>

#include "base/memory.cuh"
#include "device.h"
#include "ops/topk_select/topk_select.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::Random;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Layer {
  std::vector<float> scores;  // in memory order
  Layout layout;
  int skew = 0;  // floats between a 256-byte boundary and the scores
};

struct Net {
  std::vector<Layer> layers;
  std::vector<int32_t> group_sizes;  // layers of each group
  std::vector<int64_t> k;
  Order order = Order::kMagnitude;
};

Layer flat(std::vector<float> scores, int skew = 0) {
  const Layout layout = flat_layout(int32_t(scores.size()));
  return {std::move(scores), layout, skew};
}

// One group a layer; `part` of each layer's scores are kept.
Net per_layer(std::vector<Layer> layers, double part, Order order = Order::kMagnitude) {
  Net net{std::move(layers), {}, {}, order};
  for (const Layer& l : net.layers) {
    net.group_sizes.push_back(1);
    net.k.push_back(int64_t(part * double(l.scores.size())));
  }
  return net;
}

struct Tables {
  std::vector<SelectSegment> segments;
  std::vector<SelectGroup> groups;
};

Tables tables(const Net& net, const std::vector<const float*>& scores) {
  Tables t;
  for (size_t g = 0; g < net.group_sizes.size(); ++g) {
    SelectGroup group{int32_t(t.segments.size()), net.group_sizes[g], 0, net.k[g]};
    for (int32_t i = 0; i < net.group_sizes[g]; ++i) {
      const size_t s = t.segments.size();
      t.segments.push_back({scores[s], net.layers[s].layout, int32_t(g)});
      group.n += net.layers[s].layout.n;
    }
    t.groups.push_back(group);
  }
  return t;
}

// What identifies the kept set: key and cut of every row.
std::vector<uint32_t> kept_set(const std::vector<Selection>& rows) {
  std::vector<uint32_t> v;
  for (const Selection& r : rows) {
    v.push_back(r.threshold);
    v.push_back(uint32_t(r.cut));
  }
  return v;
}

// By sorting: the n - k lowest by (key, segment, OIHW index) are pruned.
std::vector<Selection> expected(const Net& net) {
  std::vector<Selection> rows;
  size_t first = 0;
  for (size_t g = 0; g < net.group_sizes.size(); ++g) {
    std::vector<std::tuple<uint32_t, int, int32_t>> all;
    for (int i = 0; i < net.group_sizes[g]; ++i) {
      const Layer& l = net.layers[first + size_t(i)];
      for (int32_t p = 0; p < l.layout.n; ++p) {
        all.emplace_back(key_of(net.order, l.scores[size_t(p)]), i, l.layout.logical(p));
      }
    }
    std::sort(all.begin(), all.end());
    const size_t pruned = all.size() - size_t(net.k[g]);
    for (int i = 0; i < net.group_sizes[g]; ++i) {
      Selection row{0, 0, 0, 0};
      if (net.k[g] == 0) {
        row = {0xffffffffu, net.layers[first + size_t(i)].layout.n, 0, 0};
      } else if (pruned > 0) {
        row.threshold = std::get<0>(all[pruned]);
        const auto& last = all[pruned - 1];
        if (std::get<0>(last) == row.threshold && i <= std::get<1>(last)) {
          row.cut = i == std::get<1>(last) ? std::get<2>(last) + 1 : net.layers[first + size_t(i)].layout.n;
        }
      }
      if (net.k[g] == int64_t(all.size())) row = {0, 0, 0, 0};
      rows.push_back(row);
    }
    first += size_t(net.group_sizes[g]);
  }
  return rows;
}

template <int kThreads, int kChunk>
int launch_select(const Net& net, const std::vector<Selection>& hint, std::vector<Selection>* rows) {
  std::vector<std::unique_ptr<Buffer<float>>> buffers;
  std::vector<const float*> scores;
  for (const Layer& l : net.layers) {
    std::vector<float> with_skew(size_t(l.skew), kNan);
    with_skew.insert(with_skew.end(), l.scores.begin(), l.scores.end());
    buffers.push_back(std::make_unique<Buffer<float>>(with_skew));
    scores.push_back(buffers.back()->data() + l.skew);
  }
  const Tables t = tables(net, scores);
  Buffer<Selection> hint_rows(hint), out(net.layers.size());
  TopkSelectParams p{t.segments.data(), t.groups.data(), int32_t(t.segments.size()), int32_t(t.groups.size()),
                     net.order, hint.empty() ? nullptr : hint_rows.data(), out.data(), nullptr};
  Buffer<uint8_t> workspace(cuda::select_workspace<kChunk>(p));
  p.workspace = workspace.data();
  const int error = cuda::select_in_chunks<kThreads, kChunk>(p, nullptr);
  *rows = out.read();
  return error;
}

// Selects with one block and chunk size, the same rows in every order.
template <int kThreads, int kChunk>
std::vector<Selection> select(const Net& net, const std::vector<Selection>& hint) {
  std::vector<Selection> rows;
  test::same_in_every_order([&] {
    CHECK_EQ((launch_select<kThreads, kChunk>(net, hint, &rows)), 0);
    std::vector<uint32_t> all = kept_set(rows);
    for (const Selection& r : rows) {
      all.push_back(r.width);
      all.push_back(uint32_t(r.cold));
    }
    return all;
  });
  return rows;
}

std::vector<Selection> select_cpu(const Net& net, const std::vector<Selection>& hint) {
  std::vector<const float*> scores;
  for (const Layer& l : net.layers) scores.push_back(l.scores.data());
  const Tables t = tables(net, scores);
  std::vector<Selection> rows(net.layers.size());
  cpu::topk_select({t.segments.data(), t.groups.data(), int32_t(t.segments.size()), int32_t(t.groups.size()), net.order,
                    hint.empty() ? nullptr : hint.data(), rows.data(), nullptr});
  return rows;
}

// All of them agree with the sort. Returns the rows of a launch with small blocks and chunks, or of the GPU's own sizes.
std::vector<Selection> check(const Net& net, const std::vector<Selection>& hint = {}, bool full_size = false) {
  const std::vector<uint32_t> want = kept_set(expected(net));
  CHECK_EQ(kept_set(select_cpu(net, hint)), want);
  const std::vector<Selection> rows =
      full_size ? select<cuda::kSelectThreads, cuda::kSelectChunk>(net, hint) : select<64, 512>(net, hint);
  CHECK_EQ(kept_set(rows), want);
  return rows;
}

std::vector<float> random_scores(int n, uint64_t seed) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = 0.05f * random.symmetric();
  return v;
}

// Few distinct values, and every special one.
std::vector<float> coarse_scores(int n, uint64_t seed) {
  const float values[] = {0.0f, -0.0f, 0.5f, -0.5f, 0.5f, 0.25f, 1e-40f, kInf, -kInf, kNan, -kNan};
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = values[random.below(11)];
  return v;
}

Layer ohwi(int filters, int channels, int taps, std::vector<float> (*make)(int, uint64_t), uint64_t seed, int skew = 0) {
  const int n = filters * channels * taps;
  return {make(n, seed), {n, channels * taps, channels, taps, true}, skew};
}

TEST(by_eye) {
  Net net = per_layer({flat({3, -1, 2})}, 0);
  net.k = {2};
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{float_bits(2.0f), 0}));
  net = per_layer({flat({5, 5, -5})}, 0);
  net.k = {2};  // ties: the lower index is pruned first
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{float_bits(5.0f), 1}));
  net.order = Order::kValue;
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{value_key(float_bits(5.0f)), 0}));
  net = per_layer({flat({kNan, -1})}, 0);
  net.k = {1};  // NaN ranks highest
  CHECK_EQ(kept_set(check(net)), (std::vector<uint32_t>{kNanKey, 0}));
}

TEST(sizes_and_k) {
  for (const int n : {1, 31, 32, 33, 255, 1025, 4099}) {
    const Context size("n = " + std::to_string(n));
    for (const Order order : {Order::kMagnitude, Order::kValue}) {
      for (const int64_t k : {0, 1, n / 2, n - 1, n}) {
        const Context kept("k = " + std::to_string(k));
        if (k > n) continue;
        Net net = per_layer({flat(random_scores(n, 7), n % 4), flat(coarse_scores(n, 8), 3 - n % 4)}, 0, order);
        net.k = {k, n - k};
        const std::vector<Selection> rows = check(net);
        for (size_t i = 0; i < rows.size(); ++i) {
          const bool settled = net.k[i] == 0 || net.k[i] == n;
          CHECK_EQ(rows[i].width, kFirstWidth);
          CHECK_EQ(rows[i].cold, settled ? 0 : 1);
        }
        check(net, rows);
      }
    }
  }
}

TEST(channels_last_prunes_ties_in_oihw_order) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    const Net net = per_layer({ohwi(7, 13, 9, coarse_scores, 1), ohwi(32, 16, 9, random_scores, 2, 1),
                               ohwi(3, 1, 25, coarse_scores, 3), ohwi(40, 30, 1, coarse_scores, 4)},
                              0.4, order);
    check(net, check(net));
  }
}

TEST(all_equal) {
  for (const float value : {0.0f, -1.5f, kNan}) {
    Net net = per_layer({flat(std::vector<float>(2000, value)), flat(std::vector<float>(70, value))}, 0.3);
    const std::vector<Selection> rows = check(net);
    CHECK_EQ(rows[0].cut, 1400);
    check(net, rows);  // overflows the bracket of the large layer
  }
}

TEST(a_right_hint_stays_warm) {
  Net net = per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2), 2), ohwi(16, 20, 9, random_scores, 3)},
                      0.5);
  std::vector<Selection> rows = check(net);
  for (int step = 0; step < 3; ++step) {
    for (Layer& l : net.layers) {
      for (float& s : l.scores) s *= 1.001f;
    }
    rows = check(net, rows);
    for (const Selection& r : rows) CHECK_EQ(r.cold, 1);
  }
}

TEST(a_wrong_hint_falls_back) {
  const Net net = per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2), 2)}, 0.5);
  const std::vector<Selection> right = check(net);
  for (const uint32_t wrong : {0u, float_bits(1e-3f), float_bits(0.9f), 0xfffffff0u, 0xffffffffu}) {
    // The first layer misses, the second does not: its answer must not wait for or change with the first.
    const std::vector<Selection> rows = check(net, {{wrong, 0, 1u << 10, 5}, {right[1].threshold, 0, 1u << 20, 3}});
    CHECK_EQ(rows[0].cold, 6);
    CHECK_EQ(rows[0].width, 1u << 12);
    CHECK_EQ(rows[1].cold, 3);
    check(net, {{wrong, 0, 1u << 10, 5}, {right[1].threshold, 0, 0, 0}});  // one missed, one cold
  }
}

TEST(a_bracket_with_too_many_candidates_falls_back) {
  const Net net = per_layer({flat(random_scores(4099, 1)), flat(random_scores(700, 2))}, 0.5);
  const std::vector<Selection> right = check(net);
  const std::vector<Selection> rows =
      check(net, {{right[0].threshold, 0, 1u << 30, 1}, {right[1].threshold, 0, 16, 1}});
  CHECK_EQ(rows[0].cold, 2);
  CHECK_EQ(rows[0].width, 1u << 28);
  CHECK_EQ(rows[1].cold, 1);
  CHECK_EQ(rows[1].width, 16u);
}

TEST(brackets_of_every_width) {
  const Net net = per_layer({flat(random_scores(1025, 4)), flat(coarse_scores(300, 5))}, 0.6);
  const std::vector<Selection> right = check(net);
  for (int bits = 0; bits < 32; ++bits) {
    check(net, {{right[0].threshold + 1, 9, 1u << bits, 0}, {right[1].threshold, 9, 1u << bits, 0}});
  }
}

// Keys 1000 .. 1299 once each, shuffled: every place of the answer relative to the bracket's ends.
TEST(the_bracket_is_inclusive_and_saturates) {
  std::vector<float> scores(300);
  for (size_t i = 0; i < 300; ++i) scores[i] = bits_float(uint32_t(1000 + i * 7 % 300));
  Net net = per_layer({flat(scores)}, 0);
  for (const uint32_t answer : {1000u, 1001u, 1130u, 1150u, 1298u, 1299u}) {
    net.k[0] = 1300 - answer;
    for (const uint32_t width : {1u, 20u}) {
      for (const int off : {-21, -20, -19, -2, -1, 0, 1, 2, 19, 20, 21}) {
        const bool inside = uint32_t(std::abs(off)) <= width && net.k[0] < 300;
        const std::vector<Selection> rows = check(net, {{uint32_t(int(answer) + off), 3, width, 0}});
        CHECK_EQ(rows[0].threshold, net.k[0] < 300 ? answer : 0);
        CHECK_EQ(rows[0].cold, net.k[0] == 300 || inside ? 0 : 1);
      }
    }
  }
  for (size_t i = 0; i < 300; ++i) scores[i] = bits_float(uint32_t(i * 7 % 300));  // around 0
  net = per_layer({flat(scores)}, 0.9);
  CHECK_EQ(check(net, {{10, 0, 40, 0}})[0].cold, 0);
  for (size_t i = 0; i < 300; ++i) scores[i] = i % 7 ? 0.0f : kNan;  // up to the last key
  net = per_layer({flat(scores)}, 0.1);
  CHECK_EQ(check(net, {{0xffffffffu, 0, 40, 0}})[0].cold, 0);
}

// The other chunk's candidates alone would give an answer, and a wrong one.
TEST(one_overflowing_chunk_spoils_the_bracket) {
  std::vector<float> scores(1024, 1.0f);
  for (size_t i = 512; i < 1024; ++i) scores[i] = i % 10 ? 100.0f : 1.0f + 1e-5f * float(i);
  Net net = per_layer({flat(scores)}, 0);
  net.k[0] = 1014;
  const std::vector<Selection> rows = check(net, {{float_bits(1.0f), 0, 1u << 20, 0}});
  CHECK_EQ(rows[0].cold, 1);
  CHECK_EQ(rows[0].width, 1u << 18);
}

TEST(a_few_ties_in_a_warm_channels_last_layer) {
  Random random(5);
  for (int round = 0; round < 6; ++round) {
    Layer layer = ohwi(16, 20, 9, random_scores, 3, round % 4);
    for (int i = 0; i < 20; ++i) layer.scores[random.below(2880)] = i % 2 ? 0.021f : -0.021f;
    Net net{{layer, flat(random_scores(100, 6)), layer}, {3}, {0}, Order::kMagnitude};
    const std::vector<Selection> hint(3, {float_bits(0.021f), 0, 1u << 12, 0});
    size_t below = 0;
    for (const Layer& l : net.layers) {
      for (const float s : l.scores) below += std::fabs(s) < 0.021f;
    }
    for (const size_t quota : {0, 1, 10, 19, 21, 35}) {
      net.k[0] = int64_t(5860 - below - quota);
      const std::vector<Selection> rows = check(net, hint);
      CHECK_EQ(rows[0].threshold, float_bits(0.021f));
      CHECK_EQ(rows[0].cold, 0);
    }
  }
}

// More ties than the finishing block has threads: the cut comes from counting over the scores.
TEST(a_warm_bracket_full_of_ties) {
  std::vector<float> scores = random_scores(4096, 6);
  Random random(9);
  for (int i = 0; i < 330; ++i) scores[random.below(4096)] = 0.02f;
  for (const double part : {0.58, 0.6, 0.62}) {
    for (const bool channels_last : {false, true}) {
      Net net = per_layer({{scores, {4096, 64, 16, 4, channels_last}, 1}}, part);
      const std::vector<Selection> rows = check(net, {{float_bits(0.02f), 0, 1u << 12, 0}});
      if (rows[0].threshold == float_bits(0.02f)) CHECK_EQ(rows[0].cold, 0);
    }
  }
}

TEST(one_ranking_over_several_layers) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    Net net{{flat(coarse_scores(900, 1), 1), ohwi(8, 12, 9, coarse_scores, 2), flat(random_scores(1300, 3)),
             flat(coarse_scores(40, 4)), flat(random_scores(777, 5), 3)},
            {4, 1},
            {0, 300},
            order};
    for (const int64_t k : {0, 1, 700, 1500, 2000, 3103, 3104}) {
      net.k[0] = k;
      check(net, check(net));
    }
  }
}

TEST(ties_across_layers_are_pruned_layer_by_layer) {
  Net net{{flat(std::vector<float>(100, 1)), flat(std::vector<float>(100, 2)), flat(std::vector<float>(100, 1))},
          {3},
          {170},
          Order::kValue};
  const std::vector<Selection> rows = check(net);
  CHECK_EQ(rows[0].cut, 100);
  CHECK_EQ(rows[1].cut, 100);  // has no tie, but lies before the end of the quota
  CHECK_EQ(rows[2].cut, 30);
  check(net, rows);
}

TEST(more_layers_than_one_launch_holds) {
  std::vector<Layer> layers;
  for (int i = 0; i < 2 * cuda::kMaxSegments + 5; ++i) layers.push_back(flat(random_scores(1 + i % 40, uint64_t(i))));
  Net net = per_layer(layers, 0.5);
  check(net, check(net));
  net.group_sizes.assign(1, cuda::kMaxSegments + 1);
  net.layers.resize(cuda::kMaxSegments + 1);
  net.k.assign(1, 100);
  std::vector<Selection> rows;
  CHECK_EQ((launch_select<64, 512>(net, {}, &rows)), cuda::kInvalidValue);
}

// More chunks than the finishing block has threads, at every place of the cut within them.
TEST(tiny_chunks) {
  for (const bool channels_last : {false, true}) {
    const Layer ties{std::vector<float>(4900, 1.0f), {4900, 49, 7, 7, channels_last}, 1};
    for (const int64_t k : {1, 100, 2500, 4799, 4899}) {
      Net net = per_layer({ties, flat(random_scores(4099, 3), 2)}, 0.5);
      net.k[0] = k;
      const std::vector<uint32_t> want = kept_set(expected(net));
      const std::vector<Selection> rows = select<32, 128>(net, {});
      CHECK_EQ(kept_set(rows), want);
      CHECK_EQ(kept_set(select<32, 128>(net, rows)), want);
    }
  }
}

TEST(sizes_of_the_gpu) {
  const Net net = per_layer({flat(random_scores(20011, 1), 1), flat(random_scores(8192, 2)),
                             ohwi(9, 20, 9, coarse_scores, 3), flat(coarse_scores(9000, 4), 2)},
                            0.5);
  check(net, check(net, {}, true), true);
}

}  // namespace
