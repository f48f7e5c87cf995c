// select_net.h: networks of scores for the tests of topk_select, and the ways to select on them: by
// sorting, with the CPU loops, with the kernel. Includes the kernel: for one test file at a time.
#pragma once
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>

#include "base/isa.h"
#include "device.h"
#include "ops/topk_select/topk_select.cu"

namespace hn {
namespace test {

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

inline Layer flat(std::vector<float> scores, int skew = 0) {
  const Layout layout = flat_layout(int32_t(scores.size()));
  return {std::move(scores), layout, skew};
}

// One group a layer; `part` of each layer's scores are kept.
inline Net per_layer(std::vector<Layer> layers, double part, Order order = Order::kMagnitude) {
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

inline Tables tables(const Net& net, const std::vector<const float*>& scores) {
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
inline std::vector<uint32_t> kept_set(const std::vector<Selection>& rows) {
  std::vector<uint32_t> v;
  for (const Selection& r : rows) {
    v.push_back(r.threshold);
    v.push_back(uint32_t(r.cut));
  }
  return v;
}

// By sorting: the n - k lowest by (key, segment, OIHW index) are pruned.
inline std::vector<Selection> expected(const Net& net) {
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
  TopkSelectParams p{t.segments.data(),
                     t.groups.data(),
                     int32_t(t.segments.size()),
                     int32_t(t.groups.size()),
                     net.order,
                     hint.empty() ? nullptr : hint_rows.data(),
                     hint.empty() ? out.data() : hint_rows.data(),  // in place, where there is a hint
                     false,
                     nullptr};
  Buffer<uint8_t> workspace(cuda::select_workspace<kChunk>(p));
  p.workspace = workspace.data();
  const int error = cuda::select_in_chunks<kThreads, kChunk>(p, nullptr);
  *rows = hint.empty() ? out.read() : hint_rows.read();
  return error;
}

// Selects with one block and chunk size, the same rows in every order.
template <int kThreads, int kChunk>
std::vector<Selection> select(const Net& net, const std::vector<Selection>& hint) {
  std::vector<Selection> rows;
  same_in_every_order([&] {
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

inline std::vector<Selection> select_cpu(const Net& net, const std::vector<Selection>& hint) {
  std::vector<const float*> scores;
  for (const Layer& l : net.layers) scores.push_back(l.scores.data());
  const Tables t = tables(net, scores);
  std::vector<Selection> rows = hint;
  rows.resize(net.layers.size());
  cpu::topk_select({t.segments.data(), t.groups.data(), int32_t(t.segments.size()), int32_t(t.groups.size()), net.order,
                    hint.empty() ? nullptr : rows.data(), rows.data(), false, nullptr});
  return rows;
}

// All of them agree with the sort. Returns the kernel's rows, with small blocks and chunks or the
// GPU's own.
inline std::vector<Selection> check(const Net& net, const std::vector<Selection>& hint = {}, bool full_size = false) {
  const std::vector<uint32_t> want = kept_set(expected(net));
  const Isa own = isa();
  const bool own_wide = wide();
  for (const bool wider : {own_wide, false}) {
    wide() = wider;
    CHECK_EQ(kept_set(select_cpu(net, hint)), want);
  }
  isa() = Isa::kScalar;
  CHECK_EQ(kept_set(select_cpu(net, hint)), want);
  isa() = own;
  wide() = own_wide;
  const std::vector<Selection> rows =
      full_size ? select<cuda::kSelectThreads, cuda::kSelectChunk>(net, hint) : select<64, 512>(net, hint);
  CHECK_EQ(kept_set(rows), want);
  return rows;
}

inline std::vector<float> random_scores(int n, uint64_t seed) {
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = 0.05f * random.symmetric();
  return v;
}

// Few distinct values, and every special one.
inline std::vector<float> coarse_scores(int n, uint64_t seed) {
  const float values[] = {0.0f, -0.0f, 0.5f, -0.5f, 0.5f, 0.25f, 1e-40f, kInf, -kInf, kNan, -kNan};
  Random random(seed);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = values[random.below(11)];
  return v;
}

inline Layer ohwi(int filters, int channels, int taps, std::vector<float> (*make)(int, uint64_t), uint64_t seed,
                  int skew = 0) {
  const int n = filters * channels * taps;
  return {make(n, seed), {n, channels * taps, channels, taps, true}, skew};
}

}  // namespace test
}  // namespace hn
