// test_warp_words.cpp: CUDA's shuffles, votes, reductions and voting barriers against their definitions. In the shim this
// tests the shim; on a GPU it tests that the definitions are CUDA's.
#include "base/launch.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

constexpr uint32_t kAll = 0xffffffffu;

// --- Warp operations: one warp, lane l brings in[l]; op and its argument choose the word.

enum Op { kShfl, kXor, kUp, kDown, kBallot, kAny, kAllOf, kMatch, kAdd, kMin, kMax, kAnd, kOr, kXorAll, kOps };

template <class T>
__global__ void warp_words_kernel(const T* in, T* out, int op, int argument, int width, uint32_t mask) {
  const T v = in[threadIdx.x];
  if (!(mask >> threadIdx.x & 1u)) return;
  T r = 0;
  if (op == kShfl) r = __shfl_sync(mask, v, argument, width);
  if (op == kXor) r = __shfl_xor_sync(mask, v, argument, width);
  if (op == kUp) r = __shfl_up_sync(mask, v, unsigned(argument), width);
  if (op == kDown) r = __shfl_down_sync(mask, v, unsigned(argument), width);
  if (op == kMatch) r = T(__match_any_sync(mask, v));
  out[threadIdx.x] = r;
}

__global__ void vote_words_kernel(const uint32_t* in, uint32_t* out, int op, uint32_t mask) {
  const uint32_t v = in[threadIdx.x];
  if (!(mask >> threadIdx.x & 1u)) return;
  uint32_t r = 0;
  if (op == kBallot) r = __ballot_sync(mask, int(v & 2u));
  if (op == kAny) r = uint32_t(__any_sync(mask, int(v & 2u)));
  if (op == kAllOf) r = uint32_t(__all_sync(mask, int(v & 2u)));
  if (op == kAdd) r = __reduce_add_sync(mask, v);
  if (op == kMin) r = uint32_t(__reduce_min_sync(mask, int32_t(v)));
  if (op == kMax) r = __reduce_max_sync(mask, v);
  if (op == kAnd) r = __reduce_and_sync(mask, v);
  if (op == kOr) r = __reduce_or_sync(mask, v);
  if (op == kXorAll) r = __reduce_xor_sync(mask, v);
  out[threadIdx.x] = r;
}

template <class T>
std::vector<T> run_warp(const std::vector<T>& x, int op, int argument, int width, uint32_t mask) {
  return same_in_every_order([&] {
    Buffer<T> in(x), out(std::vector<T>(32, T(0)));
    CHECK_EQ(launch(warp_words_kernel<T>, 1, 32, 0, nullptr, in.data(), out.data(), op, argument, width, mask), 0);
    return out.read();
  });
}

template <class T>
std::vector<T> lanes(uint64_t seed) {
  Random random(seed);
  std::vector<T> x(32);
  for (T& v : x) v = T(random.below(1u << 20)) + T(1);
  return x;
}

template <class T>
void check_shuffles() {
  const std::vector<T> x = lanes<T>(3);
  for (int width : {1, 2, 4, 8, 16, 32}) {
    for (int argument : {0, 1, 3, 5, 16, 31}) {
      const Context in("width " + std::to_string(width) + ", argument " + std::to_string(argument));
      std::vector<T> shfl(32), other(32), up(32), down(32);
      for (int l = 0; l < 32; ++l) {
        const int base = l / width * width, at = l - base, to = l ^ argument;
        shfl[size_t(l)] = x[size_t(base + argument % width)];
        other[size_t(l)] = x[size_t(to < base + width ? to : l)];
        up[size_t(l)] = x[size_t(at >= argument ? l - argument : l)];
        down[size_t(l)] = x[size_t(at + argument < width ? l + argument : l)];
      }
      CHECK_EQ(run_warp(x, kShfl, argument, width, kAll), shfl);
      CHECK_EQ(run_warp(x, kXor, argument, width, kAll), other);
      CHECK_EQ(run_warp(x, kUp, argument, width, kAll), up);
      CHECK_EQ(run_warp(x, kDown, argument, width, kAll), down);
    }
  }
}

TEST(shuffles_within_segments) {
  check_shuffles<int>();
  check_shuffles<float>();
  check_shuffles<double>();
  check_shuffles<unsigned long long>();
}

TEST(shuffles_among_some_lanes) {
  const auto x = lanes<uint32_t>(4);
  std::vector<uint32_t> expected(32, 0);
  for (size_t l = 8; l < 16; ++l) expected[l] = x[9];
  CHECK_EQ(run_warp(x, kShfl, 1, 8, 0x0000ff00u), expected);
}

TEST(match_any_finds_equal_lanes) {
  std::vector<uint32_t> x(32);
  for (uint32_t mask : {kAll, 0x0ff0f00fu, 1u << 7}) {
    for (size_t l = 0; l < 32; ++l) x[l] = uint32_t(l * l % 7);
    std::vector<uint32_t> expected(32, 0);
    for (size_t l = 0; l < 32; ++l) {
      for (size_t k = 0; k < 32; ++k) {
        if ((mask >> l & 1u) && (mask >> k & 1u) && x[l] == x[k]) expected[l] |= 1u << k;
      }
    }
    CHECK_EQ(run_warp(x, kMatch, 0, 32, mask), expected);
  }
}

TEST(votes_and_reductions) {
  Random random(8);
  for (uint32_t mask : {kAll, 0x0ff0f00fu, 1u << 31}) {
    for (int kind = 0; kind < 3; ++kind) {
      std::vector<uint32_t> x(32);
      for (uint32_t& v : x) v = kind == 0 ? uint32_t(random.bits()) : kind == 1 ? 0xfffffffeu : 0x80000001u;
      uint32_t ballot = 0, add = 0, largest = 0, all = kAll, any = 0, odd = 0;
      int32_t least = 0x7fffffff;
      for (size_t l = 0; l < 32; ++l) {
        if (!(mask >> l & 1u)) continue;
        ballot |= (x[l] >> 1 & 1u) << l;
        add += x[l];
        least = std::min(least, int32_t(x[l]));
        largest = std::max(largest, x[l]);
        all &= x[l];
        any |= x[l];
        odd ^= x[l];
      }
      const std::vector<std::pair<int, uint32_t>> expected = {{kBallot, ballot},
                                                              {kAny, ballot != 0},
                                                              {kAllOf, ballot == mask},
                                                              {kAdd, add},
                                                              {kMin, uint32_t(least)},
                                                              {kMax, largest},
                                                              {kAnd, all},
                                                              {kOr, any},
                                                              {kXorAll, odd}};
      for (const auto& e : expected) {
        const Context in("op " + std::to_string(e.first));
        std::vector<uint32_t> want(32, 0);
        for (size_t l = 0; l < 32; ++l) want[l] = mask >> l & 1u ? e.second : 0;
        CHECK_EQ(same_in_every_order([&] {
                   Buffer<uint32_t> in_lanes(x), out(std::vector<uint32_t>(32, 0));
                   CHECK_EQ(launch(vote_words_kernel, 1, 32, 0, nullptr, in_lanes.data(), out.data(), e.first, mask),
                            0);
                   return out.read();
                 }),
                 want);
      }
    }
  }
}

__global__ void barrier_words_kernel(const int* in, int* out) {
  const int t = int(threadIdx.x), n = int(blockDim.x);
  const int v = in[t];
  out[t] = __syncthreads_count(v);
  out[n + t] = __syncthreads_or(v) != 0;
  out[2 * n + t] = __syncthreads_and(v) != 0;
  out[3 * n + t] = __syncthreads_and(1) != 0;
}

TEST(barriers_count_votes) {
  for (int n : {1, 32, 33, 1024}) {
    for (int every : {1, 2, 5000}) {
      std::vector<int> x, expected;
      int count = 0;
      for (int i = 0; i < n; ++i) {
        x.push_back(i % every == every - 1 ? 4 : 0);
        count += x.back() != 0;
      }
      for (int v : {count, int(count > 0), int(count == n), 1}) expected.insert(expected.end(), size_t(n), v);
      CHECK_EQ(same_in_every_order([&] {
                 Buffer<int> in(x), out(size_t(4 * n));
                 CHECK_EQ(launch(barrier_words_kernel, 1, n, 0, nullptr, in.data(), out.data()), 0);
                 return out.read();
               }),
               expected);
    }
  }
}

}  // namespace
