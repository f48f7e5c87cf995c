// test_strike_out.cpp: flags and thresholds against a plain sort and the CPU loops, in every thread order; popcounts.
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>

#include "base/isa.h"
#include "device.h"
#include "ops/strike_out/strike_out.cu"

using namespace hn;
using namespace hn::test;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Layer {
  std::vector<float> scores;  // in memory order
  std::vector<uint8_t> flags;
  Layout layout;
  int skew = 0;  // floats between a 256-byte boundary and the scores, and bytes before the flags

  bool active(int32_t i) const { return flags[size_t(i / 8)] >> (i % 8) & 1; }
  float score(int32_t i) const { return scores[size_t(layout.physical(i))]; }
};

struct Net {
  std::vector<Layer> layers;
  std::vector<int32_t> group_sizes;  // layers of each group
  std::vector<int64_t> counts;
  Order order = Order::kMagnitude;
  bool invert = false, exact = false;
};

struct Result {
  std::vector<std::vector<uint8_t>> flags;
  std::vector<float> thresholds;

  std::vector<uint8_t> bytes() const {
    std::vector<uint8_t> all(thresholds.size() * 4);
    std::memcpy(all.data(), thresholds.data(), all.size());
    for (const auto& f : flags) all.insert(all.end(), f.begin(), f.end());
    return all;
  }
};

// `levels`: so many different scores, and every special one; 0: all different. `density` of the flags are 1, and the
// bits past the last entry are random.
Layer make_layer(const Layout& layout, int levels, double density, uint64_t seed, int skew = 0) {
  const float special[] = {0.0f, -0.0f, kInf, -kInf, kNan, -kNan, 1e-40f};
  Random random(seed);
  Layer l{{}, std::vector<uint8_t>((size_t(layout.n) + 7) / 8), layout, skew};
  for (int32_t p = 0; p < layout.n; ++p) {
    const float s = random.symmetric();
    l.scores.push_back(levels == 0 ? s : (random.below(9) == 0 ? special[random.below(7)] : std::round(s * levels)));
  }
  for (size_t i = 0; i < 8 * l.flags.size(); ++i) {
    l.flags[i / 8] |= uint8_t((i < size_t(layout.n) ? random.uniform() < density : random.below(2)) << (i % 8));
  }
  return l;
}

Layer flat(int n, int levels, double density, uint64_t seed, int skew = 0) {
  return make_layer(flat_layout(n), levels, density, seed, skew);
}

Layer shaped(int filters, int channels, int taps, int levels, double density, uint64_t seed, int skew = 0) {
  return make_layer({filters * channels * taps, channels * taps, channels, taps, true}, levels, density, seed, skew);
}

// By sorting the active entries by (ranked key, layer, OIHW index).
Result expected(const Net& net) {
  Result r;
  for (const Layer& l : net.layers) r.flags.push_back(l.flags);
  size_t first = 0;
  for (size_t g = 0; g < net.group_sizes.size(); first += size_t(net.group_sizes[g++])) {
    std::vector<std::tuple<uint32_t, size_t, int32_t>> all;
    for (size_t s = first; s < first + size_t(net.group_sizes[g]); ++s) {
      const Layer& l = net.layers[s];
      for (int32_t i = 0; i < l.layout.n; ++i) {
        const uint32_t key = key_of(net.order, l.score(i));
        if (l.active(i)) all.emplace_back(net.invert ? ~key : key, s, i);
      }
    }
    std::sort(all.begin(), all.end());
    const size_t going = std::min(size_t(net.counts[g]), all.size());
    if (going == 0) {
      r.thresholds.push_back(net.invert ? kInf : -kInf);
      continue;
    }
    const auto& last = all[going - 1];
    for (size_t i = 0; i < all.size(); ++i) {
      const bool goes = net.exact ? i < going : std::get<0>(all[i]) <= std::get<0>(last);
      const int32_t at = std::get<2>(all[i]);
      if (goes) r.flags[std::get<1>(all[i])][size_t(at / 8)] &= uint8_t(~(1u << (at % 8)));
    }
    const float score = net.layers[std::get<1>(last)].score(std::get<2>(last));
    const float signless = net.order == Order::kMagnitude ? std::fabs(score) : score + 0.0f;
    r.thresholds.push_back(std::isnan(score) ? kNan : signless);
  }
  return r;
}

struct Tables {
  std::vector<StrikeSegment> segments;
  std::vector<StrikeGroup> groups;

  void add(const Net& net, const float* scores, uint8_t* flags) {
    segments.push_back({scores, flags, net.layers[segments.size()].layout});
  }
  void make_groups(const Net& net) {
    int32_t first = 0;
    for (size_t g = 0; g < net.group_sizes.size(); ++g) {
      StrikeGroup group{first, net.group_sizes[g], 0, net.counts[g]};
      for (int32_t i = 0; i < group.segments; ++i) group.n += net.layers[size_t(first + i)].layout.n;
      groups.push_back(group);
      first += group.segments;
    }
  }
  StrikeOutParams params(const Net& net, float* thresholds) const {
    return {segments.data(),
            groups.data(),
            int32_t(segments.size()),
            int32_t(groups.size()),
            net.order,
            net.invert,
            net.exact,
            thresholds,
            nullptr};
  }
};

Result strike_cpu(const Net& net) {
  Result r;
  for (const Layer& l : net.layers) r.flags.push_back(l.flags);
  Tables t;
  for (size_t s = 0; s < net.layers.size(); ++s) t.add(net, net.layers[s].scores.data(), r.flags[s].data());
  t.make_groups(net);
  r.thresholds.resize(net.counts.size());
  cpu::strike_out(t.params(net, r.thresholds.data()));
  return r;
}

template <int kThreads, int kChunk>
int launch_strike(const Net& net, Result* r) {
  std::vector<std::unique_ptr<Buffer<float>>> scores;
  std::vector<std::unique_ptr<Buffer<uint8_t>>> flags;
  Tables t;
  for (const Layer& l : net.layers) {
    std::vector<float> s(size_t(l.skew), kNan);
    std::vector<uint8_t> f(size_t(l.skew), 0xaa);
    s.insert(s.end(), l.scores.begin(), l.scores.end());
    f.insert(f.end(), l.flags.begin(), l.flags.end());
    scores.push_back(std::make_unique<Buffer<float>>(s));
    flags.push_back(std::make_unique<Buffer<uint8_t>>(f));
    t.add(net, scores.back()->data() + l.skew, flags.back()->data() + l.skew);
  }
  t.make_groups(net);
  Buffer<float> thresholds(net.counts.size());
  StrikeOutParams p = t.params(net, thresholds.data());
  Buffer<uint8_t> workspace(cuda::strike_workspace<kChunk>(p));
  p.workspace = workspace.data();
  const int error = cuda::strike_in_chunks<kThreads, kChunk>(p, nullptr);
  *r = {};
  r->thresholds = thresholds.read();
  for (size_t s = 0; s < flags.size(); ++s) {
    std::vector<uint8_t> f = flags[s]->read();
    f.erase(f.begin(), f.begin() + net.layers[s].skew);
    r->flags.push_back(f);
  }
  return error;
}

// Sort, CPU loops in both instruction sets and kernels agree. Returns what they agree on.
template <int kThreads = 64, int kChunk = 512>
Result check(const Net& net) {
  const Context in("order " + std::to_string(int(net.order)) + (net.invert ? ", inverted" : "") +
                   (net.exact ? ", exact" : "") + ", count " + std::to_string(net.counts[0]));
  const Result want = expected(net);
  for (const Isa isa : {Isa::kScalar, detect_isa()}) {
    hn::isa() = isa;
    CHECK_EQ(strike_cpu(net).bytes(), want.bytes());
  }
  CHECK_EQ(same_in_every_order([&] {
             Result r;
             CHECK_EQ((launch_strike<kThreads, kChunk>(net, &r)), 0);
             return r.bytes();
           }),
           want.bytes());
  return want;
}

// In both directions, with and without ties left behind.
template <int kThreads = 64, int kChunk = 512>
void check_ways(Net net) {
  for (const bool invert : {false, true}) {
    for (const bool exact : {false, true}) {
      net.invert = invert;
      net.exact = exact;
      check<kThreads, kChunk>(net);
    }
  }
}

TEST(by_eye) {
  Net net{{{{3, -1, 2, -0.0f}, {0b11110111}, flat_layout(4)}}, {1}, {1}};
  Result r = check(net);  // the inactive zero is not ranked, the bits past the end stay
  CHECK_EQ(r.flags[0], (std::vector<uint8_t>{0b11110101}));
  CHECK_EQ(r.thresholds[0], 1.0f);
  net.invert = true;
  CHECK_EQ(check(net).flags[0], (std::vector<uint8_t>{0b11110110}));
  net = {{{{5, 5, -5, 6}, {0b1111}, flat_layout(4)}}, {1}, {2}};
  CHECK_EQ(check(net).flags[0], (std::vector<uint8_t>{0b1000}));  // all ties go
  net.exact = true;
  CHECK_EQ(check(net).flags[0], (std::vector<uint8_t>{0b1100}));  // the lower index goes first
  net.order = Order::kValue;
  CHECK_EQ(check(net).flags[0], (std::vector<uint8_t>{0b1010}));
}

TEST(sizes_and_counts) {
  for (const int n : {1, 7, 8, 9, 31, 33, 255, 1025, 4099}) {
    const Context size("n = " + std::to_string(n));
    for (const Order order : {Order::kMagnitude, Order::kValue}) {
      for (const int64_t count : {0, 1, n / 3, n - 1, n}) {
        if (count > n) continue;
        check_ways({{flat(n, 0, 0.7, 1, n % 4), flat(n, 3, 0.4, 2), flat(n, 0, 0.0, 3)},
                    {1, 1, 1},
                    {count, n - count, count},
                    order});
      }
    }
  }
}

TEST(channels_last) {
  for (const Order order : {Order::kMagnitude, Order::kValue}) {
    for (const int64_t count : {1, 300, 2000, 6000}) {
      check_ways({{shaped(7, 13, 9, 3, 0.8, 1), shaped(32, 16, 9, 0, 0.5, 2, 1), shaped(3, 1, 25, 3, 1.0, 3),
                   shaped(40, 30, 1, 3, 0.9, 4, 3), shaped(1, 700, 4, 2, 0.6, 5)},
                  {5},
                  {count},
                  order});
    }
  }
}

// The quota of ties ends in every place of small layers, across bytes, chunks and layers.
TEST(every_quota) {
  const std::vector<Layer> layers = {flat(19, 1, 0.9, 1), shaped(2, 3, 4, 1, 0.8, 2, 1), flat(70, 1, 0.5, 3, 2)};
  for (int64_t count = 0; count <= 113; ++count) {
    check<32, 64>({layers, {3}, {count}, Order::kMagnitude, count % 2 != 0, true});
  }
}

TEST(all_equal) {
  for (const float value : {0.0f, -1.5f, kNan}) {
    Layer l = flat(3000, 0, 0.9, 5);
    l.scores.assign(3000, value);
    for (const int64_t count : {1, 1500, 2999}) check_ways({{l, l}, {2}, {count}});
  }
}

TEST(more_chunks_than_threads) { check_ways<32, 64>({{flat(4099, 2, 0.9, 1), flat(1000, 2, 0.9, 2)}, {2}, {2500}}); }

TEST(sparse_flags) { check_ways({{flat(9000, 0, 0.01, 1), flat(5000, 2, 0.01, 2, 1)}, {2}, {60}}); }

TEST(more_layers_than_one_launch_holds) {
  Net net{{}, {}, {}};
  for (int i = 0; i < 2 * cuda::kMaxStruck + 5; ++i) {
    net.layers.push_back(flat(i % 40, i % 3, 0.8, uint64_t(i)));  // some are empty
    net.group_sizes.push_back(1);
    net.counts.push_back(i % 40 / 2);
  }
  net.exact = true;
  check(net);
  net.group_sizes.assign(1, cuda::kMaxStruck + 1);
  net.layers.resize(cuda::kMaxStruck + 1);
  net.counts.assign(1, 100);
  Result r;
  CHECK_EQ((launch_strike<64, 512>(net, &r)), kRefused);
}

TEST(sizes_of_the_gpu) {
  check_ways<cuda::kStrikeThreads, cuda::kStrikeChunk>(
      {{flat(20011, 0, 0.6, 1, 1), shaped(9, 20, 9, 3, 1.0, 2), flat(9000, 3, 0.5, 3, 2)}, {2, 1}, {7000, 900}});
}

TEST(counts_of_flags) {
  std::vector<std::vector<uint8_t>> planes;
  std::vector<int64_t> want;
  for (int i = 0; i < cuda::kMaxPlanes + 60; ++i) {
    Random random{uint64_t(i)};
    std::vector<uint8_t> plane(i < 20 ? size_t(i * i * 37) : size_t(i % 37));
    int64_t ones = 0;
    for (uint8_t& b : plane) {
      b = uint8_t(random.bits());
      ones += __builtin_popcount(b);
    }
    planes.push_back(plane);
    want.push_back(ones);
  }
  std::vector<std::unique_ptr<Buffer<uint8_t>>> buffers;
  std::vector<FlagPlane> host, device;
  for (size_t i = 0; i < planes.size(); ++i) {
    std::vector<uint8_t> shifted(i % 3, 0xff);
    shifted.insert(shifted.end(), planes[i].begin(), planes[i].end());
    buffers.push_back(std::make_unique<Buffer<uint8_t>>(shifted));
    host.push_back({planes[i].data(), int64_t(planes[i].size())});
    device.push_back({buffers.back()->data() + i % 3, int64_t(planes[i].size())});
  }
  std::vector<int64_t> cpu(planes.size());
  cpu::count_flags({host.data(), int32_t(host.size()), cpu.data()});
  CHECK_EQ(cpu, want);
  CHECK_EQ(same_in_every_order([&] {
             Buffer<int64_t> counts(planes.size());
             CHECK_EQ(cuda::count_flags_in_blocks<128>({device.data(), int32_t(device.size()), counts.data()}, nullptr),
                      0);
             return counts.read();
           }),
           want);
  Buffer<int64_t> counts(planes.size());
  CHECK_EQ(cuda::count_flags({device.data(), int32_t(device.size()), counts.data()}, nullptr), 0);
  CHECK_EQ(counts.read(), want);
}

}  // namespace
