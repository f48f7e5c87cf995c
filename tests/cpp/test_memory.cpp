// test_memory.cpp: vectors, asynchronous copies and published words: right where they should be,
// wrong where planted.
#include "base_kernels.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

template <int N, class T>
void check_copy() {
  static_assert(sizeof(hn::Vec<T, N>) == N * sizeof(T) && alignof(hn::Vec<T, N>) == N * sizeof(T), "Vec is dense");
  for (int n : awkward_sizes()) {
    Random random{uint64_t(n)};
    std::vector<T> x{};
    for (int i = 0; i < n; ++i) x.push_back(T(random.bits()));
    for (int how = 0; how < 3; ++how) {
      const auto got = same_in_every_order([&] {
        Buffer<T> in(x), out(x.size());
        CHECK_EQ(launch(copy_kernel<N, T>, 2, 64, 0, nullptr, in.data(), out.data(), n, how), 0);
        return out.read();
      });
      CHECK_EQ(got, x);
    }
  }
}

TEST(vectors_of_every_width_copy) {
  check_copy<4, float>();
  check_copy<2, float>();
  check_copy<4, int32_t>();
  check_copy<2, int64_t>();
  check_copy<8, uint16_t>();
  check_copy<4, uint16_t>();
  check_copy<2, uint16_t>();
  check_copy<16, uint8_t>();
  check_copy<1, float>();
}

TEST(is_aligned_counts_from_zero) {
  alignas(16) char bytes[32];
  for (int i = 0; i < 16; ++i) {
    CHECK_EQ(hn::is_aligned<16>(bytes + i), i == 0);
    CHECK_EQ(hn::is_aligned<4>(bytes + i), i % 4 == 0);
    CHECK_EQ(hn::is_aligned<1>(bytes + i), true);
  }
}

template <int kBytes, int kWait>
std::vector<uint32_t> async_sums(const std::vector<uint32_t>& x) {
  constexpr int kTile = 64 * kBytes / 4;
  return same_in_every_order([&] {
    Buffer<uint32_t> in(x), out(64);
    CHECK_EQ(launch(async_sum_kernel<kBytes, kWait>, 1, 64, 2 * kTile * sizeof(uint32_t), nullptr, in.data(),
                    int(x.size()), out.data()),
             0);
    return out.read();
  });
}

template <int kBytes>
void check_async() {
  constexpr size_t kEach = kBytes / 4, kTile = 64 * kEach;
  for (size_t n : {size_t(0), kEach, kTile - kEach, kTile, kTile + kEach, 5 * kTile, 7 * kTile + 3 * kEach}) {
    Random random(n);
    std::vector<uint32_t> x(n), expected(64, 0);
    for (uint32_t& v : x) v = uint32_t(random.bits());
    for (size_t i = 0; i < n; ++i) expected[(i % kTile / kEach + 63) % 64] += x[i];
    CHECK_EQ((async_sums<kBytes, 1>(x)), expected);
  }
}

TEST(cp_async_of_every_width_fills_zeros_past_the_end) {
  check_async<16>();
  check_async<8>();
  check_async<4>();
}

#if !defined(__CUDACC__)

TEST(a_weak_wait_for_cp_async_is_visible) {
  const std::vector<uint32_t> x(64 * 4, 1);
  CHECK_EQ((async_sums<16, 1>(x)), std::vector<uint32_t>(64, 4));
  CHECK_THROWS(Failure, "order", async_sums<16, 2>(x));
}

__global__ void forgotten_wait_kernel(const uint32_t* in, int kind) {
  HN_SHARED(uint32_t, tile, 4);
  uint32_t local[4] = {};
  hn::cp_async<4>(kind == 2 ? local : tile, in);
  if (kind == 1) hn::cp_async_commit();
}

TEST(cp_async_must_be_waited_for_and_goes_to_shared_memory) {
  Buffer<uint32_t> in(4);
  for (int kind : {0, 1}) {
    CHECK_THROWS(simt::Error, "cp_async still in flight",
                 launch(forgotten_wait_kernel, 1, 1, 0, nullptr, in.data(), kind));
  }
  CHECK_THROWS(simt::Error, "destination in shared memory",
               launch(forgotten_wait_kernel, 1, 1, 0, nullptr, in.data(), 2));
}

#endif

TEST(the_last_block_sees_what_all_published) {
  for (int blocks : {1, 2, 33, 257}) {
    const auto out = same_in_every_order([&] {
      std::vector<uint32_t> x(static_cast<size_t>(blocks));
      for (int b = 0; b < blocks; ++b) x[size_t(b)] = uint32_t(b * b + 1);
      Buffer<uint32_t> in(x), partial(x.size()), ticket(1), total(1);
      CHECK_EQ(hn::fill_zero(ticket.data(), ticket.bytes(), nullptr), 0);
      CHECK_EQ(
          launch(last_block_kernel, blocks, 32, 0, nullptr, in.data(), partial.data(), ticket.data(), total.data()), 0);
      return total.read();
    });
    uint32_t expected = 0;
    for (int b = 0; b < blocks; ++b) expected += uint32_t(b * b + 1);
    CHECK_EQ(out[0], expected);
  }
}

TEST(tickets_make_a_chain_of_blocks_safe_in_any_order) {
  const int blocks = 100;
  const auto out = same_in_every_order([&] {
    Buffer<uint32_t> in(std::vector<uint32_t>(blocks, 3)), ticket(std::vector<uint32_t>(1, 0)), scan(blocks);
    Buffer<uint64_t> state(std::vector<uint64_t>(blocks, 0));
    CHECK_EQ(launch(chained_scan_kernel, blocks, 32, 0, nullptr, in.data(), ticket.data(), state.data(), scan.data()),
             0);
    return scan.read();
  });
  for (int b = 0; b < blocks; ++b) CHECK_EQ(out[size_t(b)], uint32_t(3 * b));
}

TEST(released_words_arrive) {
  const auto seen = same_in_every_order([&] {
    Buffer<uint32_t> counter(std::vector<uint32_t>(1, 37)), flag(std::vector<uint32_t>(1, 0)), out(2);
    CHECK_EQ(launch(release_kernel, 1, 32, 0, nullptr, counter.data(), flag.data(), out.data()), 0);
    CHECK_EQ(counter.read()[0], 42u);
    return out.read();
  });
  CHECK_EQ(seen, (std::vector<uint32_t>{1, 37}));
}

TEST(fill_zero_and_multiprocessors) {
  Buffer<uint32_t> x(5);
  CHECK_EQ(hn::fill_zero(x.data(), 12, nullptr), 0);
  CHECK_EQ(x.read(), (std::vector<uint32_t>{0, 0, 0, ~0u, ~0u}));
  int count = 0;
  CHECK_EQ(hn::multiprocessors(&count), 0);
  CHECK(count > 0);
}

}  // namespace
