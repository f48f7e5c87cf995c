// test_collectives.cpp: sums, scans, ranks and rank-bins of warps and blocks against plain loops,
// in every thread order.
#include "base_kernels.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

template <class T>
std::vector<T> numbers(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<T> v(n);
  for (T& x : v) x = T(int32_t(random.below(2001)) - 1000);
  return v;
}

// All small integers, so that float sums are exact and any order agrees.
template <int kThreads, class T>
void check_rows(int n) {
  const int rows = 3;
  const std::vector<T> x = numbers<T>(size_t(rows * n), uint64_t(n) + kThreads);
  std::vector<T> expected;
  for (int r = 0; r < rows; ++r) {
    T before = 0;
    for (int i = 0; i < n; ++i) {
      expected.push_back(before);
      before += x[size_t(r * n + i)];
    }
    if (n > 0) expected.push_back(before);
  }
  const std::vector<T> got = same_in_every_order([&] {
    Buffer<T> in(x), scan(x.size()), sum(rows);
    CHECK_EQ(launch(row_scan_kernel<kThreads, T>, rows, kThreads, 0, nullptr, in.data(), n, scan.data(), sum.data()),
             0);
    std::vector<T> joined;
    const std::vector<T> scans = scan.read(), sums = sum.read();
    for (int r = 0; r < rows; ++r) {
      joined.insert(joined.end(), scans.begin() + r * n, scans.begin() + (r + 1) * n);
      if (n > 0) joined.push_back(sums[size_t(r)]);
      if (n == 0) CHECK_EQ(sums[size_t(r)], T(0));
    }
    return joined;
  });
  CHECK_EQ(got, expected);
}

TEST(block_sum_and_scan_of_awkward_sizes) {
  for (int n : awkward_sizes()) {
    const Context in("n = " + std::to_string(n));
    check_rows<32, int>(n);
    check_rows<64, uint32_t>(n);
    check_rows<96, float>(n);
    check_rows<256, int64_t>(n);
    check_rows<1024, uint32_t>(n);
  }
}

TEST(float_sums_have_one_order) {
  Random random(5);
  std::vector<float> x(4099);
  for (float& v : x) v = random.symmetric() * 1e3f;
  const auto sums = same_in_every_order([&] {
    Buffer<float> in(x), scan(x.size()), sum(1);
    CHECK_EQ(launch(row_scan_kernel<256, float>, 1, 256, 0, nullptr, in.data(), 4099, scan.data(), sum.data()), 0);
    return sum.read();
  });
  double exact = 0;
  for (float v : x) exact += v;
  CHECK(std::abs(double(sums[0]) - exact) < 0.1);
}

TEST(warp_ranks_scans_and_places) {
  for (uint32_t pattern : {0u, 1u, 0x80000000u, 0xffffffffu, 0x55555555u, 0x0f0f1234u}) {
    const std::vector<int> x = numbers<int>(32, pattern);
    std::vector<int> votes(32);
    for (int i = 0; i < 32; ++i) votes[size_t(i)] = int(pattern >> i & 1u) * 7;
    std::vector<int32_t> ranks;
    std::vector<int> values;
    int before = 0, scan = 0, total = 0, sum = 0, largest = x[0];
    for (int i = 0; i < 32; ++i) {
      total += votes[size_t(i)] != 0;
      sum += x[size_t(i)];
      largest = std::max(largest, x[size_t(i)]);
    }
    for (int i = 0; i < 32; ++i) {
      for (int32_t r : {before, total, votes[size_t(i)] != 0 ? 100 + before : -1}) ranks.push_back(r);
      before += votes[size_t(i)] != 0;
      scan += x[size_t(i)];
      for (int v : {scan, sum, largest}) values.push_back(v);
    }
    const auto got = same_in_every_order([&] {
      Buffer<int> in(x), vote(votes), value(96);
      Buffer<uint32_t> counter(std::vector<uint32_t>(1, 100));
      Buffer<int32_t> rank(96);
      CHECK_EQ(launch(warp_kernel<int>, 1, 32, 0, nullptr, in.data(), vote.data(), counter.data(), rank.data(),
                      value.data()),
               0);
      CHECK_EQ(counter.read()[0], uint32_t(100 + total));
      CHECK_EQ(value.read(), values);
      return rank.read();
    });
    CHECK_EQ(got, ranks);
  }
}

template <int kThreads>
void check_select(const std::vector<uint32_t>& counts) {
  std::vector<uint32_t> ranks = {0, 1, 2, 77, 0xfffffffeu, 0xffffffffu};
  uint64_t total = 0;
  for (uint32_t c : counts) {
    ranks.push_back(uint32_t(total));
    if (total > 0) ranks.push_back(uint32_t(total - 1));
    total += c;
    if (ranks.size() > 20) break;
  }
  std::vector<int32_t> bins;
  std::vector<uint32_t> befores;
  for (uint32_t rank : ranks) {
    uint64_t before = 0;
    int32_t found = -1;
    for (size_t b = 0; b < counts.size() && found < 0; ++b) {
      if (before + counts[b] > rank) {
        found = int32_t(b);
      } else {
        before += counts[b];
      }
    }
    bins.insert(bins.end(), kThreads, found);
    befores.insert(befores.end(), kThreads, found < 0 ? 0u : uint32_t(before));
  }
  const auto got = same_in_every_order([&] {
    Buffer<uint32_t> count(counts), rank(ranks), before(befores.size());
    Buffer<int32_t> bin(bins.size());
    CHECK_EQ(launch(select_kernel<kThreads>, 1, kThreads, 0, nullptr, count.data(), int(counts.size()), rank.data(),
                    int(ranks.size()), bin.data(), before.data()),
             0);
    CHECK_EQ(before.read(), befores);
    return bin.read();
  });
  CHECK_EQ(got, bins);
}

TEST(block_select_finds_the_bin_of_a_rank) {
  for (int bins : awkward_sizes()) {
    const Context in("bins = " + std::to_string(bins));
    Random random{uint64_t(bins)};
    std::vector<uint32_t> counts(size_t(bins), 0);
    for (uint32_t& c : counts) c = random.below(3) ? 0 : random.below(50);
    check_select<32>(counts);
    check_select<256>(counts);
    std::fill(counts.begin(), counts.end(), 0);
    check_select<256>(counts);
    if (bins > 0) counts.back() = 1000;
    check_select<96>(counts);
  }
}

template <int kThreads>
void check_scribble() {
  std::vector<uint32_t> x, expected;
  for (uint32_t t = 0; t < kThreads; ++t) x.push_back(t % 7 + 1);
  uint32_t sum = 0, before = 0;
  for (uint32_t v : x) sum += v;
  for (uint32_t v : x) {
    for (uint32_t e : {sum, before, uint32_t(kThreads - 1), sum - x.back()}) expected.push_back(e);
    before += v;
  }
  CHECK_EQ(same_in_every_order([&] {
             Buffer<uint32_t> in(x), out(expected.size());
             CHECK_EQ(launch(scribble_kernel<kThreads>, 1, kThreads, 0, nullptr, in.data(), out.data()), 0);
             return out.read();
           }),
           expected);
}

TEST(scratch_is_the_callers_before_and_after) {
  check_scribble<32>();
  check_scribble<64>();
  check_scribble<256>();
  check_scribble<1024>();
}

TEST(block_select_at_the_top_of_the_range) {
  check_select<64>({0x7fffffffu, 0x7fffffffu, 1u});  // 2^32 - 1 elements: no rank overflows
}

}  // namespace
