// test_wired_sum.cpp: sums over wirings and their lists: kernels and CPU loops, every instruction set, bit for bit against
// one fused multiply-add an edge.
#include <cmath>
#include <limits>

#include "device.h"
#include "isa_paths.h"
#include "ops/wired_sum/wired_sum.cu"

using namespace hn;
using hn::test::Buffer;
using hn::test::Context;
using hn::test::in_every_isa;
using hn::test::Random;

namespace {

struct Wiring {
  int32_t n_sources, n_destinations;
  std::vector<float> weight;
  std::vector<int32_t> starts, sources;
  std::vector<float> values;

  int32_t n_edges() const { return int32_t(sources.size()); }
};

// Every seventh row is empty.
Wiring make_wiring(int32_t n_sources, int32_t n_destinations, float density) {
  Wiring w{n_sources, n_destinations, {}, {0}, {}, {}};
  Random random(uint64_t(n_sources) * 1000 + uint64_t(n_destinations));
  for (int32_t v = 0; v < n_destinations; ++v) {
    for (int32_t u = 0; u < n_sources; ++u) {
      const bool edge = random.uniform() < density && v % 7 != 3;
      const float value = random.symmetric();
      w.weight.push_back(edge ? value : (u % 2 == 0 ? 0.0f : -0.0f));
      if (!edge) continue;
      w.sources.push_back(u);
      w.values.push_back(value);
    }
    w.starts.push_back(w.n_edges());
  }
  return w;
}

struct Sum {
  int32_t images, pixels;
  bool accumulate;
  int32_t x_beside, y_beside;  // floats between images that are not theirs
};

std::vector<float> maps(int64_t image, int32_t images, uint64_t seed) {
  std::vector<float> x;
  Random random(seed);
  for (int64_t i = 0; i < image * images; ++i) x.push_back(random.symmetric());
  return x;
}

int64_t x_image(const Wiring& w, const Sum& s) { return int64_t(w.n_sources) * s.pixels + s.x_beside; }
int64_t y_image(const Wiring& w, const Sum& s) { return int64_t(w.n_destinations) * s.pixels + s.y_beside; }

std::vector<float> expected(const Wiring& w, const Sum& s, const std::vector<float>& x, std::vector<float> y) {
  for (int32_t n = 0; n < s.images; ++n) {
    for (int32_t v = 0; v < w.n_destinations; ++v) {
      for (int32_t p = 0; p < s.pixels; ++p) {
        float* const to = &y[size_t(n * y_image(w, s) + int64_t(v) * s.pixels + p)];
        float sum = s.accumulate ? *to : 0.0f;
        for (int32_t e = w.starts[size_t(v)]; e < w.starts[size_t(v) + 1]; ++e) {
          const size_t from = size_t(n * x_image(w, s) + int64_t(w.sources[size_t(e)]) * s.pixels + p);
          sum = std::fma(w.values[size_t(e)], x[from], sum);
        }
        *to = sum;
      }
    }
  }
  return y;
}

WiredSumParams params(const Wiring& w, const Sum& s) {
  WiredSumParams p = {};
  p.edges = {w.starts.data(), w.sources.data(), w.values.data(), w.n_edges(), w.n_destinations, w.n_sources};
  p.x_image = x_image(w, s);
  p.y_image = y_image(w, s);
  p.images = s.images;
  p.pixels = s.pixels;
  p.accumulate = s.accumulate;
  return p;
}

std::vector<uint16_t> narrow_sources(const Wiring& w) { return {w.sources.begin(), w.sources.end()}; }

// narrow: the sources in 2 bytes each.
std::vector<float> sum_cpu(const Wiring& w, const Sum& s, const std::vector<float>& x, std::vector<float> y,
                           bool narrow = false) {
  WiredSumParams p = params(w, s);
  const std::vector<uint16_t> few = narrow_sources(w);
  if (narrow) p.edges.sources = nullptr;
  if (narrow) p.edges.narrow = few.data();
  p.x = x.data();
  p.y = y.data();
  cpu::wired_sum(p);
  return y;
}

std::vector<float> sum_cuda(const Wiring& w, const Sum& s, const std::vector<float>& x, const std::vector<float>& y,
                            bool narrow = false) {
  const Buffer<int32_t> starts(w.starts), sources(w.sources);
  const Buffer<uint16_t> few(narrow_sources(w));
  const Buffer<float> values(w.values), from(x);
  Buffer<float> to(y);
  WiredSumParams p = params(w, s);
  p.edges.starts = starts.data();
  p.edges.sources = narrow ? nullptr : sources.data();
  p.edges.narrow = narrow ? few.data() : nullptr;
  p.edges.values = values.data();
  p.x = from.data();
  p.y = to.data();
  CHECK_EQ(cuda::wired_sum(p, nullptr), 0);
  return to.read();
}

void check(const Wiring& w, const Sum& s) {
  const Context context(std::to_string(w.n_sources) + " to " + std::to_string(w.n_destinations) + ", " +
                        std::to_string(s.images) + " images of " + std::to_string(s.pixels));
  const std::vector<float> x = maps(x_image(w, s), s.images, 1), y = maps(y_image(w, s), s.images, 2);
  const std::vector<float> want = expected(w, s, x, y);
  in_every_isa([&] { CHECK_EQ(sum_cpu(w, s, x, y), want); });
  in_every_isa([&] { CHECK_EQ(sum_cpu(w, s, x, y, true), want); });
  CHECK_EQ(test::same_in_every_order([&] { return sum_cuda(w, s, x, y); }), want);
  CHECK_EQ(sum_cuda(w, s, x, y, true), want);
}

// Around vectors, tiles of 13 x 8 and 16 x 16 pixels, and maps that are packed side by side.
TEST(sums_of_all_sizes) {
  const Wiring w = make_wiring(11, 9, 0.5f);
  for (const int32_t pixels :
       {1, 2, 7, 8, 9, 15, 16, 17, 49, 103, 104, 105, 127, 128, 129, 196, 255, 256, 257, 400, 531}) {
    check(w, {1, pixels, false, 0, 0});
    check(w, {3, pixels, pixels % 2 == 0, 5, 3});
  }
  for (const int32_t images : {2, 5, 16, 17, 40}) {
    check(w, {images, 49, true, 0, 7});
    check(w, {images, 16, false, 1, 0});
  }
}

TEST(wirings_of_all_shapes) {
  for (const Sum& s : {Sum{2, 49, false, 0, 0}, Sum{1, 196, true, 0, 0}}) {
    check(make_wiring(130, 70, 0.3f), s);  // more than 32 edges a row, more than a block of rows
    check(make_wiring(33, 32, 1.0f), s);
    check(make_wiring(5, 33, 0.0f), s);
    check(make_wiring(1, 1, 1.0f), s);
    check(make_wiring(0, 4, 1.0f), s);
    check(make_wiring(4, 0, 1.0f), s);
  }
  check(make_wiring(4, 5, 0.5f), {0, 49, false, 0, 0});
  check(make_wiring(4, 5, 0.5f), {2, 0, false, 0, 0});
}

TEST(a_range_of_a_longer_list) {
  const Wiring all = make_wiring(40, 30, 0.4f);
  Wiring part = all;
  part.starts.assign(all.starts.begin() + 5, all.starts.begin() + 22);
  part.n_destinations = 16;
  check(part, {2, 60, false, 0, 0});
  check(part, {1, 300, true, 0, 0});
}

// The kernel reads nothing it does not have: it cannot ask the host to refuse.
TEST(bad_lists_do_not_reach_memory) {
  Wiring w = make_wiring(6, 5, 1.0f);
  w.sources[2] = 6;
  w.sources[7] = -1;
  const Sum s{2, 50, false, 0, 0};
  const std::vector<float> x = maps(x_image(w, s), s.images, 1), y = maps(y_image(w, s), s.images, 2);
  const std::vector<float> got = sum_cuda(w, s, x, y);
  for (size_t i = 0; i < got.size(); ++i) CHECK_EQ(std::isnan(got[i]), i / 50 % 5 < 2);
  w = make_wiring(6, 5, 1.0f);
  w.starts[2] = 1000;
  w.starts[0] = -7;
  sum_cuda(w, s, x, y);
}

struct Lists {
  std::vector<int32_t> starts, sources;
  std::vector<float> values;
};

// `row`: floats from a row to the next.
Lists list_cpu(const std::vector<float>& weight, int64_t row, const Wiring& w, int32_t n_edges) {
  Lists l{std::vector<int32_t>(size_t(w.n_destinations) + 1), std::vector<int32_t>(size_t(n_edges)),
          std::vector<float>(size_t(n_edges))};
  cpu::edge_starts({weight.data(), row, w.n_destinations, w.n_sources, l.starts.data()});
  cpu::pack_edges(
      {weight.data(), row, w.n_destinations, w.n_sources, l.starts.data(), n_edges, l.sources.data(), l.values.data()});
  return l;
}

Lists list_cuda(const std::vector<float>& weight, int64_t row, const Wiring& w, int32_t n_edges) {
  const Buffer<float> from(weight);
  Buffer<int32_t> starts(size_t(w.n_destinations) + 1), sources((size_t(n_edges)));
  Buffer<float> values((size_t(n_edges)));
  CHECK_EQ(cuda::edge_starts({from.data(), row, w.n_destinations, w.n_sources, starts.data()}, nullptr), 0);
  CHECK_EQ(cuda::pack_edges(
               {from.data(), row, w.n_destinations, w.n_sources, starts.data(), n_edges, sources.data(), values.data()},
               nullptr),
           0);
  return {starts.read(), sources.read(), values.read()};
}

void check_lists(const Lists& got, const Wiring& w, int32_t n_edges) {
  std::vector<int32_t> sources = w.sources;
  std::vector<float> values = w.values;
  sources.resize(size_t(n_edges), 0);
  values.resize(size_t(n_edges), 0.0f);
  CHECK_EQ(got.starts, w.starts);
  CHECK_EQ(got.sources, sources);
  CHECK_EQ(got.values, values);
}

// Exact room, too much (the rest is zero), and too little (the last edges are left out).
TEST(lists_of_weights) {
  for (const int32_t n_sources : {0, 1, 15, 16, 17, 33, 100}) {
    for (const int32_t n_destinations : {0, 1, 8, 9, 1030}) {
      const Wiring w = make_wiring(n_sources, n_destinations, 0.2f);
      const int64_t row = n_sources + 3;
      std::vector<float> weight;
      for (int32_t v = 0; v < n_destinations; ++v) {
        for (int64_t u = 0; u < row; ++u) {
          weight.push_back(u < n_sources ? w.weight[size_t(v) * size_t(n_sources) + size_t(u)] : 5.0f);
        }
      }
      for (const int32_t n_edges : {w.n_edges(), w.n_edges() + 4, w.n_edges() / 2}) {
        in_every_isa([&] { check_lists(list_cpu(weight, row, w, n_edges), w, n_edges); });
        if (n_destinations == 1030 && n_sources > 17) continue;  // the shim is slow
        const auto run = [&] {
          check_lists(list_cuda(weight, row, w, n_edges), w, n_edges);
          return std::vector<int>{};
        };
        test::same_in_every_order(run);
      }
    }
  }
}

TEST(numbers_that_are_none_are_edges) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const Wiring w{18, 1, {}, {0, 3}, {0, 8, 17}, {nan, -inf, 1e-45f}};
  std::vector<float> weight(18, -0.0f);
  for (size_t e = 0; e < 3; ++e) weight[size_t(w.sources[e])] = w.values[e];
  in_every_isa([&] { check_lists(list_cpu(weight, 18, w, 3), w, 3); });
  check_lists(list_cuda(weight, 18, w, 3), w, 3);
}

}  // namespace
